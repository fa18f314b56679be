//! A store so simple that it is plainly right: what the crash machinery is
//! itself tested with. Appends numbered records to a row of files and tells
//! the witness of each one that should be durable.
//!
//! `crash_toy DIR [forget-sync] [forget-dir-sync]`: with a word, it has that bug.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dir = Path::new(args.first().map_or(".", String::as_str));
    let has = |word: &str| args.iter().any(|a| a == word);
    let mut witness = File::create(dir.join("told"))?;
    for n in 0..6u8 {
        // Made under a temporary name, then renamed into a new directory.
        let home = dir.join(format!("home-{n}"));
        fs::create_dir(&home)?;
        let mut log = File::create(home.join("log.tmp"))?;
        log.write_all(&[n; 100])?;
        log.sync_all()?;
        fs::rename(home.join("log.tmp"), home.join("log"))?;
        if !has("forget-dir-sync") {
            File::open(&home)?.sync_all()?;
            File::open(dir)?.sync_all()?;
        }
        for i in 0..25u8 {
            log.write_all(&[i; 700])?;
            log.write_all(&[n; 1000])?;
            if !has("forget-sync") {
                log.sync_data()?;
            }
            witness.write_all(format!("{n} {i}\n").as_bytes())?;
        }
        if n >= 3 {
            fs::remove_file(dir.join(format!("home-{}/log", n - 3)))?;
            fs::remove_dir(dir.join(format!("home-{}", n - 3)))?;
        }
    }
    Ok(())
}
