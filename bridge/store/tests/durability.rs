//! G1 durable PUBACK, and what failing disks do to it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use risiti_store::{
    DurableObserver, NewRecord, Outcome, Position, RecordSource, StoreOptions, SyncHook, limits,
};
use support::{crash_copy, generations, numbered, open, options, packet};

/// A disk whose journal syncs wait until they are let through.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    waiting: AtomicU64,
    changed: Condvar,
}

impl Gate {
    fn hook(self: &Arc<Self>) -> SyncHook {
        let gate = Arc::clone(self);
        Arc::new(move |dir: &Path| {
            if dir.to_string_lossy().contains("/journal/") {
                let mut closed = gate.closed.lock();
                gate.waiting.fetch_add(1, Ordering::SeqCst);
                while *closed {
                    gate.changed.wait(&mut closed);
                }
                gate.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(())
        })
    }

    fn set_closed(&self, closed: bool) {
        *self.closed.lock() = closed;
        self.changed.notify_all();
    }
}

#[test]
fn an_outcome_comes_only_after_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let mut store = open(&StoreOptions {
        sync_hook: Some(gate.hook()),
        ..options(dir.path())
    });
    store.store(numbered(1, 1));
    gate.set_closed(true);
    let token = store.submit(numbered(1, 2));
    support::eventually("the sync has begun", || {
        gate.waiting.load(Ordering::SeqCst) == 1
    });
    assert_eq!(store.outcomes.of(token), None);
    assert_eq!(store.journal.end(), 2, "readable before it was durable");
    // What arrives meanwhile goes into one next group, also a resend.
    let more: Vec<u64> = (3..103).map(|n| store.submit(numbered(1, n))).collect();
    let resend = store.submit(numbered(1, 2));
    assert_eq!(store.outcomes.count(), 1);
    let syncs = store.journal.health().syncs;
    gate.set_closed(false);
    assert_eq!(store.outcomes.wait(resend), Outcome::Duplicate);
    assert_eq!(store.outcomes.wait(token), Outcome::Durable { position: 2 });
    assert_eq!(
        store.outcomes.wait(more[99]),
        Outcome::Durable { position: 102 }
    );
    assert_eq!(store.journal.health().syncs, syncs + 2);
}

/// What the journal's observer heard.
#[derive(Default)]
struct Heard {
    records: Mutex<Vec<(Position, NewRecord)>>,
}

impl DurableObserver for Heard {
    fn durable(&self, first: Position, records: &[NewRecord]) {
        let numbered = (first..).zip(records.iter().cloned());
        self.records.lock().extend(numbered);
    }
}

#[test]
fn the_observer_hears_of_each_record_once_after_its_sync_and_before_its_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let heard = Arc::new(Heard::default());
    let mut store = open(&StoreOptions {
        sync_hook: Some(gate.hook()),
        observer: Some(Arc::clone(&heard) as _),
        ..options(dir.path())
    });
    gate.set_closed(true);
    let first = store.submit(numbered(1, 1));
    support::eventually("the sync has begun", || {
        gate.waiting.load(Ordering::SeqCst) == 1
    });
    assert!(heard.records.lock().is_empty(), "before it is durable");
    gate.set_closed(false);
    store.outcomes.wait(first);
    assert_eq!(heard.records.lock()[..], [(1, numbered(1, 1))]);
    assert_eq!(store.append(numbered(1, 1)), Outcome::Duplicate);
    let tokens: Vec<u64> = (2..50).map(|n| store.submit(numbered(1, n))).collect();
    for token in tokens {
        store.outcomes.wait(token);
    }
    let expected: Vec<_> = (1..50).map(|n| (n, numbered(1, n))).collect();
    assert_eq!(*heard.records.lock(), expected);
}

#[test]
fn positions_are_contiguous_and_records_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    let mut expected = Vec::new();
    for n in 1..=600_u64 {
        let record = match n % 7 {
            0 => NewRecord {
                payload: Bytes::from(vec![n as u8; (n * 400) as usize]),
                ..numbered(1, n)
            },
            1 => packet(2, n as u16, n % 2 == 0, "plain"),
            2 => NewRecord {
                payload: Bytes::new(),
                properties: Bytes::new(),
                ..numbered(3, n)
            },
            _ => numbered(4, n),
        };
        store.submit(record.clone());
        expected.push(record);
    }
    for n in 0..600 {
        assert_eq!(store.outcomes.wait(n), Outcome::Durable { position: n + 1 });
    }
    assert_eq!(store.outcomes.order(), (0..600).collect::<Vec<_>>());
    store.close();
    let store = open(&options(dir.path()));
    let (records, damaged) = store.read_all(1);
    assert_eq!(damaged, 0);
    assert!(records.iter().map(|r| r.position).eq(1..=600));
    assert!(records.into_iter().map(|r| r.record).eq(expected));
    for generation in generations(dir.path()) {
        let blobs = std::fs::read_dir(generation.join("blobs")).unwrap();
        assert_eq!(blobs.count(), 0, "a blob is covered by no sync");
    }
}

#[test]
fn the_largest_record_is_stored_and_a_larger_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    let frame = numbered(1, 1);
    let around = frame.client_id.len() + frame.topic.len() + frame.properties.len();
    let largest = NewRecord {
        payload: Bytes::from(vec![7; limits::RECORD_BYTES_MAX - around]),
        ..frame
    };
    let larger = NewRecord {
        payload: Bytes::from(vec![7; limits::RECORD_BYTES_MAX - around + 1]),
        ..numbered(1, 2)
    };
    assert_eq!(store.append(larger), Outcome::TooLarge);
    assert_eq!(store.store(largest.clone()), 1);
    store.close();
    let store = open(&options(dir.path()));
    assert_eq!(store.read_all(1).0[0].record, largest);
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    for n in 1..=500 {
        store.store(numbered(1, n));
        if n % 50 == 0 {
            let copy = tempfile::tempdir().unwrap();
            crash_copy(dir.path(), copy.path());
            let mut after = open(&options(copy.path()));
            assert_eq!(after.read_all(1).0.len() as u64, n, "{:?}", after.report);
            assert_eq!(after.append(numbered(1, n)), Outcome::Duplicate);
            assert_eq!(after.store(numbered(1, n + 1)), n + 1);
        }
    }
}

#[test]
fn a_failed_sync_is_never_a_success_and_its_file_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let failed_dirs = Arc::new(Mutex::new(Vec::new()));
    let hook: SyncHook = {
        let (failing, failed_dirs) = (Arc::clone(&failing), Arc::clone(&failed_dirs));
        Arc::new(move |dir: &Path| {
            if failing.load(Ordering::SeqCst) && dir.to_string_lossy().contains("/journal/") {
                failed_dirs.lock().push(dir.to_path_buf());
                return Err(io::Error::other("injected"));
            }
            Ok(())
        })
    };
    let mut store = open(&StoreOptions {
        sync_hook: Some(hook),
        ..options(dir.path())
    });
    for n in 1..=5 {
        store.store(numbered(1, n));
    }
    failing.store(true, Ordering::SeqCst);
    let token = store.submit(numbered(1, 6));
    support::eventually("it was tried twice", || failed_dirs.lock().len() >= 2);
    assert_eq!(store.outcomes.of(token), None);
    assert_eq!(store.journal.end(), 6);
    let health = store.journal.health();
    assert!(
        health.withheld.is_some() && !health.alarms.is_empty(),
        "{health:?}"
    );
    assert_eq!(health.withheld.map(|w| w.records), Some(1));
    // Cut here: the group that failed may be there, once, or not at all.
    let copy = tempfile::tempdir().unwrap();
    crash_copy(dir.path(), copy.path());
    failing.store(false, Ordering::SeqCst);
    assert_eq!(store.outcomes.wait(token), Outcome::Durable { position: 6 });
    assert_eq!(store.append(numbered(1, 6)), Outcome::Duplicate);
    assert_eq!(store.store(numbered(1, 7)), 7);
    assert!(store.journal.health().withheld.is_none());
    let mut tried = failed_dirs.lock().clone();
    tried.dedup();
    assert_eq!(
        tried.len(),
        failed_dirs.lock().len(),
        "a file was synced again"
    );
    store.close();
    for copy in [dir.path(), copy.path()] {
        let store = open(&options(copy));
        let (records, damaged) = store.read_all(1);
        assert_eq!(damaged, 0);
        let end = store.journal.end();
        assert!(records.iter().map(|r| r.position).eq(1..end));
        assert!(records.iter().all(|r| r.record == numbered(1, r.position)));
        assert!(end >= 6);
    }
}

#[test]
fn closing_settles_what_is_queued_and_then_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    for n in 1..=1_000 {
        store.submit(numbered(1, n));
    }
    store.journal.close();
    for n in 0..1_000 {
        assert_eq!(
            store.outcomes.of(n),
            Some(Outcome::Durable { position: n + 1 })
        );
    }
    assert_eq!(store.append(numbered(1, 1_001)), Outcome::Closing);
}
