//! G2 exactly once, the journal's part: a resend adds nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use risiti_store::{Identity, NewRecord, Outcome, RecordSource, StoreOptions, SyncHook};
use support::{eventually, generations, numbered, open, options, packet};

fn durable(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Durable { .. })
}

#[test]
fn a_resend_is_recognised_in_the_same_group_later_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    let tokens = [
        store.submit(numbered(1, 1)),
        store.submit(numbered(1, 1)),
        store.submit(packet(2, 9, false, "x")),
        store.submit(packet(2, 9, true, "x")),
    ];
    let outcomes = tokens.map(|token| store.outcomes.wait(token));
    let expected = [
        Outcome::Durable { position: 1 },
        Outcome::Duplicate,
        Outcome::Durable { position: 2 },
        Outcome::Duplicate,
    ];
    assert_eq!(outcomes, expected);
    store.close();
    let mut store = open(&options(dir.path()));
    assert_eq!(store.append(numbered(1, 1)), Outcome::Duplicate);
    assert_eq!(store.append(packet(2, 9, true, "x")), Outcome::Duplicate);
    assert!(durable(store.append(packet(2, 9, true, "y"))));
    assert_eq!(store.journal.health().duplicates, 2);
    assert_eq!(store.read_all(1).0.len(), 3);
}

#[test]
fn without_dedup_a_resend_is_stored_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&StoreOptions {
        dedup: false,
        ..options(dir.path())
    });
    assert!(durable(store.append(numbered(1, 1))));
    assert!(
        durable(store.append(numbered(1, 1))),
        "the control does not control"
    );
}

#[test]
fn a_record_whose_generation_is_deleted_is_still_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    for n in 1..=200 {
        store.store(numbered(1, n));
        store.store(packet(2, n as u16, false, "x"));
    }
    store.journal.release("default", store.journal.end());
    eventually("drained generations go", || store.journal.oldest() > 300);
    eventually("the disk comes back", || generations(dir.path()).len() <= 2);
    let again = |store: &mut support::Store| {
        for n in 1..=200 {
            assert_eq!(store.append(numbered(1, n)), Outcome::Duplicate);
            assert_eq!(
                store.append(packet(2, n as u16, true, "x")),
                Outcome::Duplicate
            );
        }
    };
    again(&mut store);
    store.close();
    again(&mut open(&options(dir.path())));
}

#[test]
fn an_end_to_end_resend_passes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    store.store(numbered(1, 1));
    let resend = NewRecord {
        identity: Identity::Sequence {
            sequence: 1,
            dup: true,
            resend_mark: true,
        },
        ..numbered(1, 1)
    };
    assert!(durable(store.append(resend)));
    let unmarked = NewRecord {
        identity: Identity::None,
        ..numbered(1, 1)
    };
    assert!(durable(store.append(unmarked)));
}

#[test]
fn a_terminal_that_starts_over_is_not_swallowed_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    store.store(numbered(1, 10_000));
    assert!(durable(store.append(numbered(1, 1))));
    assert_eq!(store.append(numbered(1, 1)), Outcome::Duplicate);
    assert_eq!(store.journal.health().below_window, 1);
}

#[test]
fn a_discarded_session_forgets_its_packet_identifiers_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    store.store(packet(1, 5, false, "x"));
    store.store(numbered(1, 1));
    store.journal.forget(Bytes::from_static(b"t1"));
    assert!(durable(store.append(packet(1, 5, true, "x"))));
    assert_eq!(store.append(numbered(1, 1)), Outcome::Duplicate);
}

/// A soak with clients whose names come once found a row for each of them.
#[test]
fn g8_a_client_that_is_forgotten_leaves_no_row_and_a_numbered_one_keeps_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    for client in 1..=50 {
        store.store(packet(client, 5, false, "x"));
    }
    store.store(numbered(7, 1));
    store.close();
    let rows = |store: &support::Store| store.state.scan(b"j/c/", None, 100).unwrap().len();
    let mut store = open(&options(dir.path()));
    assert_eq!(rows(&store), 50);
    for client in 1..=50 {
        let id = format!("t{client}");
        store.journal.forget(Bytes::from(id));
    }
    // Somebody who never was here.
    store.journal.forget(Bytes::from_static(b"nobody"));
    // The journal takes them before this.
    store.store(numbered(7, 2));
    store.close();
    let mut store = open(&options(dir.path()));
    assert_eq!(rows(&store), 1);
    assert_eq!(store.append(numbered(7, 1)), Outcome::Duplicate);
    assert!(durable(store.append(packet(7, 5, true, "x"))));
}

/// Found by a busy machine: the checkpoint that the start began was still on its way
/// when the journal was closed, and what was forgotten since came back with the next
/// start and stayed for ever.
#[test]
fn g8_who_is_forgotten_during_a_checkpoint_leaves_no_row_though_the_journal_closes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    for client in 1..=5 {
        store.store(packet(client, 5, false, "x"));
    }
    store.close();
    let slow_state: SyncHook = Arc::new(|dir: &std::path::Path| {
        let of_the_journal = dir.components().any(|part| part.as_os_str() == "journal");
        if !of_the_journal {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        Ok(())
    });
    let mut store = open(&StoreOptions {
        sync_hook: Some(slow_state),
        ..options(dir.path())
    });
    store.store(numbered(7, 1));
    for client in 1..=5 {
        store.journal.forget(Bytes::from(format!("t{client}")));
    }
    store.close();
    let mut store = open(&options(dir.path()));
    assert_eq!(store.state.scan(b"j/c/", None, 100).unwrap().len(), 1);
    assert_eq!(store.append(numbered(7, 1)), Outcome::Duplicate);
}

#[test]
fn more_clients_than_fit_in_memory_are_all_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&StoreOptions {
        generation_bytes: 1024 * 1024,
        ..options(dir.path())
    });
    let clients = risiti_store::limits::CLIENTS_MAX as u32 + 5_000;
    let small = |client: u32| NewRecord {
        payload: Bytes::new(),
        properties: Bytes::new(),
        ..numbered(client, 1)
    };
    let mut last = 0;
    for client in 0..clients {
        last = store.submit(small(client));
    }
    assert!(durable(store.outcomes.wait(last)));
    for client in 0..clients {
        last = store.submit(small(client));
    }
    assert_eq!(store.outcomes.wait(last), Outcome::Duplicate);
    assert_eq!(store.journal.health().duplicates, u64::from(clients));
    let journal = Arc::clone(&store.journal);
    assert_eq!(journal.end(), u64::from(clients) + 1);
}
