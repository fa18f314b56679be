//! Runs the real store under the crash machinery, and judges what is left.
//!
//! `store_driver run DIR [key=value]…` works on `DIR/store` and tells
//! `DIR/told` each thing that the store promised, when it promised it.
//! `store_driver recover STORE-DIR [key=value]…` opens the store and closes it
//! again; with `tries=N` it tries again while the disk refuses.
//! `store_driver check [disk-failed]` reads lines `STORE-DIR TOLD-FILE
//! [key=value]…`, opens the store there and answers each with `ok …` or `broken
//! …`: a promise was not kept. If a disk failed, an alarm is no false alarm, as
//! long as all is there.
//!
//! It keeps no promise of its own: what it tells is only what it was told.

mod check;
mod run;
mod shape;
mod told;

use shape::Shape;
use std::io::{self, BufRead, Write};
use std::path::Path;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", dir, ref words @ ..] => {
            run::run(Path::new(dir), &Shape::from(words.iter().copied()))
        }
        ["recover", dir, ref words @ ..] => {
            run::recover(Path::new(dir), &Shape::from(words.iter().copied()))
        }
        ["check", ref words @ ..] => {
            let disk_failed = words.contains(&"disk-failed");
            // sled's own panics are caught by the store and told as errors.
            std::panic::set_hook(Box::new(|_| {}));
            for line in io::stdin().lock().lines() {
                let line = line?;
                let mut parts = line.split(' ');
                let dir = Path::new(parts.next().unwrap_or_default());
                let told = Path::new(parts.next().unwrap_or_default());
                let shape = Shape::from(parts);
                println!("{}", check::verdict(dir, told, &shape, disk_failed));
                io::stdout().flush()?;
            }
            Ok(())
        }
        _ => Err(io::Error::other(
            "store_driver run DIR [key=value]… | recover STORE-DIR [key=value]… | check [disk-failed]",
        )),
    }
}
