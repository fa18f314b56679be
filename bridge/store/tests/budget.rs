//! G8 bounded, never dropped: a spent budget withholds, says so, and it goes on
//! by itself.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use bytes::Bytes;
use risiti_store::{Alarm, Batch, NewRecord, Outcome, RecordSource, StoreOptions};
use support::{eventually, generations, numbered, open, options};

fn bulky(n: u64) -> NewRecord {
    NewRecord {
        payload: Bytes::from(vec![n as u8; 20_000]),
        ..numbered(1, n)
    }
}

const BUDGET_BYTES: u64 = 10_000_000;

fn tight(dir: &Path) -> StoreOptions {
    StoreOptions {
        generation_bytes: 400_000,
        budget_bytes: BUDGET_BYTES,
        receipts_reserve_bytes: 3_000_000,
        ..options(dir)
    }
}

/// Appends until one is withheld; its token.
fn fill(store: &mut support::Store) -> u64 {
    for n in 1..=5_000 {
        let token = store.submit(bulky(n));
        eventually("an outcome, or the budget is spent", || {
            store.outcomes.of(token).is_some() || store.journal.health().withheld.is_some()
        });
        if store.outcomes.of(token).is_none() {
            return token;
        }
    }
    panic!("the budget is never spent");
}

#[test]
fn a_spent_budget_withholds_and_goes_on_when_the_backlog_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&tight(dir.path()));
    let token = fill(&mut store);
    let health = store.journal.health();
    let alarm = health.withheld.unwrap().alarm;
    assert!(matches!(alarm, Alarm::BudgetSpent { .. }), "{alarm}");
    assert!(health.alarms.contains(&alarm));
    assert!(health.used_bytes <= BUDGET_BYTES, "{}", health.used_bytes);
    // Receipts still have their reserve.
    let mut batch = Batch::new();
    batch.put(*b"receipt", vec![1; 10_000]);
    store.state.commit(batch).unwrap();
    assert_eq!(store.state.receipts_refused(), None);
    // Everything stored can be read, and nothing more was stored.
    let (records, damaged) = store.read_all(1);
    assert_eq!((records.len() as u64, damaged), (token, 0));
    assert_eq!(store.outcomes.of(token), None);

    store.journal.release("default", store.journal.end());
    assert_eq!(
        store.outcomes.wait(token),
        Outcome::Durable {
            position: token + 1
        }
    );
    assert!(store.journal.health().withheld.is_none());
    // There is room before the last of them is gone.
    eventually("the disk comes back", || generations(dir.path()).len() <= 2);
}

#[test]
fn what_is_withheld_at_close_was_never_promised() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&tight(dir.path()));
    let token = fill(&mut store);
    store.close();
    assert_eq!(store.outcomes.of(token), Some(Outcome::Closing));
    let store = open(&tight(dir.path()));
    assert_eq!(store.journal.end(), token + 1);
    store.journal.release("default", token + 1);
    drop(store);
    // It is not taken for a duplicate either, once there is room.
    let mut roomy = open(&options(dir.path()));
    assert_eq!(
        roomy.append(bulky(token + 1)),
        Outcome::Durable {
            position: token + 1
        }
    );
}

#[test]
fn once_the_reserve_is_spent_too_receipts_are_refused_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&StoreOptions {
        receipts_reserve_bytes: 7_000_000,
        budget_bytes: 16_000_000,
        ..options(dir.path())
    });
    let row = |n: u64| [&b"orterminal\0"[..], &n.to_be_bytes()].concat();
    let rows = |n: u64| (n * 100..(n + 1) * 100).map(row);
    let mut groups = 0;
    while store.state.receipts_refused().is_none() {
        let mut batch = Batch::new();
        for key in rows(groups) {
            batch.put(key, vec![groups as u8; 1_000]);
        }
        store.state.commit(batch).unwrap();
        groups += 1;
        assert!(groups < 1_000, "the budget is never spent");
    }
    assert!(groups > 10, "{groups}");
    let alarm = store.state.receipts_refused().unwrap();
    assert!(
        matches!(alarm, Alarm::ReceiptsBudgetSpent { .. }),
        "{alarm}"
    );
    let used = store.journal.health().used_bytes;
    assert!(used <= 16_000_000, "{used}");
    // What waits is acknowledged: a deletion is never refused.
    for group in 0..groups {
        let mut batch = Batch::new();
        for key in rows(group) {
            batch.delete(key);
        }
        store.state.commit(batch).unwrap();
    }
    eventually("receipts are taken again", || {
        store.state.receipts_refused().is_none()
    });
}

#[test]
fn too_little_free_space_withholds() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&StoreOptions {
        free_bytes_min: u64::MAX / 4,
        ..options(dir.path())
    });
    store.submit(numbered(1, 1));
    eventually("an alarm", || !store.journal.health().alarms.is_empty());
    let alarm = store.journal.health().withheld.unwrap().alarm;
    assert!(matches!(alarm, Alarm::SpaceLow { .. }), "{alarm}");
    assert_eq!(store.outcomes.count(), 0);
}

#[test]
fn every_consumer_counts_and_forwarded_bytes_can_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&StoreOptions {
        consumers: vec!["north".to_string(), "south".to_string()],
        ..options(dir.path())
    });
    for n in 1..=500 {
        store.store(numbered(1, n));
    }
    store.journal.release("north", 501);
    store.journal.release("nobody", 501);
    assert_eq!(store.journal.oldest(), 1);
    let backlog = store.journal.health().consumers["south"].backlog;
    assert_eq!(backlog, 500);
    store.journal.release("south", 250);
    eventually("what both released goes", || store.journal.oldest() > 100);
    assert!(store.journal.oldest() <= 250);
    store.close();

    let keeping = StoreOptions {
        keep_forwarded_bytes: 1 << 30,
        ..options(dir.path())
    };
    let store = open(&keeping);
    let oldest = store.journal.oldest();
    store.journal.release("default", 501);
    store.close();
    assert_eq!(open(&keeping).journal.oldest(), oldest);
}

#[test]
fn the_ballast_takes_its_space_for_real() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let _store = open(&StoreOptions {
        ballast_bytes: 3_000_000,
        ..options(dir.path())
    });
    let ballast = std::fs::metadata(dir.path().join("ballast")).unwrap();
    assert!(ballast.blocks() * 512 >= 3_000_000);
}
