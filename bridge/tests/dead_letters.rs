//! Dead letters outlive the process, and only a person or a requeue ends them.

// Helpers of tests count as tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use risiti_bridge::{BridgeError, DeadLetter, DeadLetters, Reason};
use risiti_store::{Identity, NewRecord, Record, State, StoreOptions};

fn open(dir: &Path) -> (Arc<State>, DeadLetters) {
    let mut options = StoreOptions::new(dir);
    options.ballast_bytes = 0;
    options.free_bytes_min = 0;
    let (state, _) = State::open(&options).unwrap();
    let dead = DeadLetters::open(state.clone()).unwrap();
    (state, dead)
}

fn letter(position: u64, identity: Identity) -> DeadLetter {
    DeadLetter {
        refused_ms: 1_700_000_000_000 + position,
        reason: Reason {
            cluster: "default".into(),
            route: "records".into(),
            topic: "risiti.records".into(),
            text: "too large".into(),
        },
        journal_id: "3f9a0c11deadbeef".into(),
        record: Record {
            position,
            record: NewRecord {
                received_ms: 1_700_000_000_000,
                client_id: Bytes::from_static(b"client"),
                topic: Bytes::from_static(b"t/1/records"),
                identity,
                properties: Bytes::from_static(b"\x01\x01"),
                payload: Bytes::from(vec![7; 10_000]),
            },
        },
    }
}

fn letters() -> Vec<DeadLetter> {
    let sequence = Identity::Sequence {
        sequence: 9,
        dup: false,
        resend_mark: false,
    };
    vec![letter(1, sequence), letter(2, Identity::None)]
}

#[test]
fn dead_letters_are_all_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (state, dead) = open(dir.path());
    assert!(dead.keep(&letters()).unwrap());
    // A crash before the position was saved brings them again.
    assert!(dead.keep(&letters()).unwrap());
    let (count, bytes) = (dead.count(), dead.bytes());
    assert_eq!(count, 2);
    state.close();
    drop((state, dead));
    let (_state, dead) = open(dir.path());
    assert_eq!((dead.count(), dead.bytes()), (count, bytes));
    assert_eq!(dead.list(None, 10).unwrap(), letters());
    assert_eq!(dead.list(Some("3f9a0c11-1"), 10).unwrap(), letters()[1..]);
    assert_eq!(dead.show("3f9a0c11-2").unwrap(), letters()[1]);
}

#[test]
fn a_requeued_letter_goes_back_marked_and_is_gone_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (state, dead) = open(dir.path());
    dead.keep(&letters()).unwrap();
    let mut appended = None;
    dead.requeue("3f9a0c11-1", |record| {
        appended = Some(record);
        Ok(())
    })
    .unwrap();
    let mut expected = letters().remove(0).record.record;
    expected.identity = Identity::Sequence {
        sequence: 9,
        dup: false,
        resend_mark: true,
    };
    assert_eq!(appended, Some(expected));
    state.close();
    drop((state, dead));
    let (_state, dead) = open(dir.path());
    assert_eq!(dead.count(), 1);
    assert!(matches!(
        dead.show("3f9a0c11-1"),
        Err(BridgeError::NoDeadLetter { .. })
    ));
}

#[test]
fn a_letter_that_the_journal_does_not_take_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (_state, dead) = open(dir.path());
    dead.keep(&letters()).unwrap();
    let refused = dead.requeue("3f9a0c11-1", |_| {
        Err(BridgeError::NoDeadLetter { id: "disk".into() })
    });
    assert!(refused.is_err());
    assert_eq!(dead.count(), 2);
    assert_eq!(dead.show("3f9a0c11-1").unwrap(), letters()[0]);
}
