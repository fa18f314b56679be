//! How long the state takes to open, and how much memory, by its size.
//!
//! `cargo run -p risiti-store --example state_load -- DIR ROWS [kill]`: fills DIR
//! with rows of 24 + 160 bytes if it is not there, closes it (or, with `kill`,
//! ends without), and opens it in the next run. Each run prints one line.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use risiti_store::{Batch, State, StoreOptions};

fn memory_kib(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|line| {
            line.strip_prefix(field)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(dir), Some(rows)) = (
        arguments.first(),
        arguments.get(1).and_then(|n| n.parse::<u64>().ok()),
    ) else {
        eprintln!("DIR ROWS [kill]");
        return ExitCode::FAILURE;
    };
    let kill = arguments.get(2).is_some_and(|word| word == "kill");
    let full = Path::new(dir).join("state").is_dir();
    let began = Instant::now();
    let (state, report) = match State::open(&StoreOptions::new(dir)) {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let took = began.elapsed();
    if full {
        println!(
            "opened in {took:?}, {} alarms, peak {} MiB, now {} MiB",
            report.alarms.len(),
            memory_kib("VmHWM:") >> 10,
            memory_kib("VmRSS:") >> 10
        );
    }
    // A third of it anew, or all of it: so that segments are reused.
    let step = if full { 3 } else { 1 };
    let began = Instant::now();
    let mut next = 0;
    while next < rows {
        let mut batch = Batch::new();
        for _ in 0..500 {
            let key = [
                &b"row/"[..],
                &(next.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_be_bytes(),
                &[0; 12],
            ]
            .concat();
            let value = [&next.to_be_bytes()[..], &[next as u8; 152]].concat();
            batch.put(key, value);
            next += step;
        }
        if let Err(error) = state.commit(batch) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    println!("wrote {} rows in {:?}", rows / step, began.elapsed());
    if kill {
        std::process::exit(0);
    }
    state.close();
    ExitCode::SUCCESS
}
