//! A long time without Kafka: memory and reopening do not grow with the backlog,
//! and the disk comes back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use risiti_store::{NewRecord, RecordSource, StoreOptions};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{eventually, generations, numbered, open, options};

/// Resident memory of this process, bytes.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

/// Appends, measures, drains; `records` of about 200 bytes in 50 sessions.
fn backlog(records: u64, generation_bytes: u64, memory_bytes_max: u64) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        generation_bytes,
        ..options(dir.path())
    };
    let small = |n: u64| NewRecord {
        payload: vec![n as u8; 150].into(),
        ..numbered((n % 50) as u32, n / 50 + 1)
    };
    let before = resident_bytes();
    let mut peak = 0;
    let mut store = open(&options);
    for n in 0..records {
        let token = store.submit(small(n));
        // As many without an outcome as 50 sessions may have.
        if token >= 3_200 {
            store.outcomes.wait(token - 3_200);
        }
        if n % 10_000 == 0 {
            store.outcomes.forget_before(token.saturating_sub(3_200));
            peak = peak.max(resident_bytes() - before);
        }
    }
    store.outcomes.wait(records - 1);
    let used_bytes = store.journal.health().used_bytes;
    store.close();
    drop(store);

    let store = open(&options);
    let syncs_read = generations(dir.path()).len();
    assert_eq!(store.journal.end(), records + 1);
    // Opening read no generation at all: the checkpoint of the close covers all.
    assert_eq!(store.report.alarms, []);
    assert!(syncs_read as u64 >= records * 150 / generation_bytes / 2);
    let mut next = 1;
    while next < store.journal.end() {
        let batch = store.journal.read(next, 4_096, 1024 * 1024).unwrap();
        assert_eq!(batch.records[0].record, small(next - 1));
        next = batch.next;
        store.journal.release("default", next);
        peak = peak.max(resident_bytes().saturating_sub(before));
    }
    eventually("the disk comes back", || generations(dir.path()).len() <= 1);
    let left = store.journal.health().used_bytes;
    println!(
        "{records} records: {} MiB of memory at most, {} MiB on disk, {} MiB left",
        peak >> 20,
        used_bytes >> 20,
        left >> 20
    );
    assert!(peak < memory_bytes_max, "{} MiB of memory", peak >> 20);
    assert!(left < used_bytes / 4 || left < 4 * generation_bytes);
}

#[test]
fn a_backlog_costs_disk_and_not_memory() {
    backlog(100_000, 2 * 1024 * 1024, 100 << 20);
}

/// The first position that a generation answers for: the end of its name.
fn first(generation: &Path) -> u64 {
    let name = generation.file_name().unwrap().to_str().unwrap();
    name.rsplit('-').next().unwrap().parse().unwrap()
}

/// A kill between two removals in the wrong order would leave a gap, which the next
/// opening takes for damage.
#[test]
fn g11_who_releases_at_once_removes_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        generation_bytes: 2_000,
        ..options(dir.path())
    };
    let mut store = open(&options);
    for n in 1..=200 {
        store.store(numbered(1, n));
    }
    store.close();
    drop(store);
    // The checkpoint of the close covers all: any generation goes when it is released.
    let store = open(&options);
    let all = generations(dir.path());
    assert!(all.len() > 10, "{}", all.len());
    // The removal of the first takes long.
    for n in 0..20_000 {
        fs::write(all[0].join(n.to_string()), "").unwrap();
    }
    let ended = AtomicBool::new(false);
    let release = |upto: u64| store.journal.release("default", upto);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            release(first(&all[3]));
        });
        eventually("the first is being removed", || !all[0].exists());
        scope.spawn(|| {
            release(first(&all[6]));
            ended.store(true, Ordering::Release);
        });
        while !ended.load(Ordering::Acquire) {
            let fourth_is_gone = !all[3].exists();
            assert!(!(fourth_is_gone && all[1].exists()), "a gap");
        }
    });
    assert_eq!(generations(dir.path())[0], all[6]);
}
