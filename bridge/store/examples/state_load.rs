//! How long the state takes to open, and how much memory, with receipts in it.
//!
//! `cargo run -p risiti-store --example state_load -- DIR RECEIPTS [kill]`: fills
//! DIR with receipts for 10,000 terminals, in the order of a busy day, if it is
//! not there; in the next runs opens it, acknowledges a tenth of them and adds
//! as many. Then closes it (or, with `kill`, ends without). Prints one line for
//! each.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use risiti_store::{Batch, State, StoreOptions};

const TERMINALS: u64 = 10_000;

fn memory_mib(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|line| {
            line.strip_prefix(field)?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0)
        >> 10
}

fn file_mib(dir: &str) -> u64 {
    fs::metadata(Path::new(dir).join("state/db/db")).map_or(0, |meta| meta.len() >> 20)
}

/// Terminals come in no order.
fn terminal(receipt: u64) -> String {
    format!("terminal-{:05}", receipt.wrapping_mul(7_919) % TERMINALS)
}

/// 25 bytes: the family, the terminal, a separator and its receipt's number.
fn key(receipt: u64) -> Vec<u8> {
    let mut key = format!("or{}", terminal(receipt)).into_bytes();
    key.push(0);
    key.extend_from_slice(&(receipt / TERMINALS + 1).to_be_bytes());
    key
}

/// 100 to 300 bytes that don't repeat.
fn value(receipt: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(receipt);
    let length = rng.usize(100..=300);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(dir), Some(receipts)) = (
        arguments.first(),
        arguments.get(1).and_then(|n| n.parse::<u64>().ok()),
    ) else {
        eprintln!("DIR RECEIPTS [kill]");
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
    println!(
        "opened {} MiB in {took:?}, {} alarms, peak {} MiB, now {} MiB",
        file_mib(dir),
        report.alarms.len(),
        memory_mib("VmHWM:"),
        memory_mib("VmRSS:")
    );
    let began = Instant::now();
    let count = if full { receipts / 10 } else { receipts };
    let first = if full { receipts } else { 0 };
    let mut next = 0;
    while next < count {
        let mut batch = Batch::new();
        for _ in 0..150.min(count - next) {
            let receipt = first + next;
            batch.put(key(receipt), value(receipt));
            batch.put(format!("ot{}", terminal(receipt)), receipt.to_be_bytes());
            if full {
                batch.delete(key(next));
            }
            next += 1;
        }
        if let Err(error) = state.commit(batch) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    println!(
        "wrote {count} in {:?}, {} MiB, peak {} MiB, now {} MiB",
        began.elapsed(),
        file_mib(dir),
        memory_mib("VmHWM:"),
        memory_mib("VmRSS:")
    );
    if kill {
        std::process::exit(0);
    }
    state.close();
    ExitCode::SUCCESS
}
