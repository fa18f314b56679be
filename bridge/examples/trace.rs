//! What a note in the trace costs, and how long a search takes when it is full.
//!
//! `cargo run --release -p risiti-bridge --example trace [MIB]`

use std::sync::atomic::Ordering;
use std::time::Instant;

use risiti_bridge::{Step, TraceLog};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mib: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(64), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let log = TraceLog::open(dir.path(), mib << 20)?;
    let counts = log.counts().ok_or("it is off")?;
    // In groups, as a batch of the forwarder; the writer keeps up in between.
    let (mut sequence, mut noting) = (0_u64, std::time::Duration::ZERO);
    let notes = (mib << 20) / 25;
    while sequence < notes {
        let begun = Instant::now();
        let mut group = log.notes();
        for _ in 0..1_000 {
            sequence += 1;
            let step = Step::Forwarded {
                topic: "risiti.records",
                partition: (sequence % 6) as i32,
                offset: sequence as i64 / 6,
            };
            let terminal = ["t-000001", "t-000002", "t-000003"][sequence as usize % 3];
            group.note(1_763_700_000_000 + sequence / 10, terminal, sequence, step);
        }
        drop(group);
        noting += begun.elapsed();
        if sequence.is_multiple_of(10_000) {
            // As long as the writer gathers.
            std::thread::sleep(risiti_bridge::limits::TRACE_GATHER);
        }
    }
    let dropped = counts.dropped.load(Ordering::Relaxed);
    println!(
        "{sequence} notes, {:.0} ns each, {dropped} dropped",
        noting.as_nanos() as f64 / sequence as f64
    );
    let last = ["t-000001", "t-000002", "t-000003"][sequence as usize % 3];
    let begun = Instant::now();
    let found = log.find(last, sequence)?.len();
    println!(
        "a search found {found} in {:.1} ms",
        begun.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}
