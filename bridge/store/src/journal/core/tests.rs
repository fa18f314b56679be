//! Groups step by step, with the disk's answers as the test likes.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use super::*;
use crate::journal::clients::tests::{JOURNAL, Shelf, numbered, open};

#[derive(Default)]
struct Nobody;

impl AckSink for Nobody {
    fn settled(&self, _: u64, _: Outcome) {}
}

fn core(dedup: bool, generation_bytes: u64) -> Core {
    let options = CoreOptions {
        dedup,
        generation_bytes,
    };
    Core::new(JOURNAL, options, open(&Arc::<Shelf>::default()), 5, 3)
}

fn append(token: u64, record: NewRecord) -> Work {
    let sink = Arc::new(Nobody);
    Work::Append {
        record,
        sink,
        token,
    }
}

fn too_large() -> NewRecord {
    NewRecord {
        payload: vec![0; limits::RECORD_BYTES_MAX + 1].into(),
        ..numbered("t", 99)
    }
}

fn full_disk() -> StoreError {
    StoreError::BudgetSpent {
        used_bytes: 1,
        budget_bytes: 1,
    }
}

fn outcomes(committed: &Committed) -> Vec<(u64, Outcome)> {
    let outcomes = committed.outcomes.iter();
    outcomes
        .map(|(_, token, outcome)| (*token, *outcome))
        .collect()
}

/// The packs and the group, if nothing goes wrong.
fn commit(core: &mut Core, group: Vec<Work>) -> (Vec<Pack>, Committed) {
    core.begin(group);
    let mut written = Vec::new();
    loop {
        match core.poll() {
            Action::AskRoom { .. } => core.room(None),
            Action::Write { packs, .. } => {
                written.extend(packs);
                core.done(Ok(()));
            }
            Action::Create { .. } | Action::Sync { .. } => core.done(Ok(())),
            Action::Committed(committed) => return (written, committed),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_group_takes_its_steps_in_order_and_its_outcomes_come_last() {
    let mut core = core(true, 1 << 20);
    assert!(core.is_idle());
    assert!(matches!(core.poll(), Action::Idle));
    let records = [
        numbered("t", 1),
        numbered("t", 1),
        too_large(),
        numbered("t", 2),
    ];
    core.begin(
        (7..)
            .zip(records)
            .map(|(token, record)| append(token, record)),
    );
    assert!(!core.is_idle());

    let bytes = 2 * pack::record_bytes(&numbered("t", 1)) as u64;
    for _ in 0..2 {
        let Action::AskRoom { bytes: asked } = core.poll() else {
            panic!()
        };
        assert_eq!(
            asked, bytes,
            "for what is new, and the same when asked again"
        );
    }
    core.room(None);
    let Action::Create {
        number: 3,
        first: 5,
    } = core.poll()
    else {
        panic!()
    };
    core.room(Some(Alarm::WriteFailed {
        reason: "late".into(),
    }));
    core.done(Ok(()));
    let Action::Write { number: 3, packs } = core.poll() else {
        panic!()
    };
    let (header, body, _) = pack::Header::decode(&packs[0].value).unwrap();
    assert_eq!((packs.len(), header.first, header.records), (1, 5, 2));
    assert_eq!((header.generation, header.group_first), (3, 5));
    let read = pack::records_of(&header, Bytes::copy_from_slice(body)).unwrap();
    assert_eq!(read, [numbered("t", 1), numbered("t", 2)]);
    core.done(Ok(()));
    let Action::Sync { number: 3 } = core.poll() else {
        panic!()
    };
    assert_eq!(core.end(), 5, "nothing is durable yet");
    core.done(Ok(()));
    let Action::Committed(committed) = core.poll() else {
        panic!()
    };
    let expected = [
        (7, Outcome::Durable { position: 5 }),
        (8, Outcome::Duplicate),
        (9, Outcome::TooLarge),
        (10, Outcome::Durable { position: 6 }),
    ];
    assert_eq!(outcomes(&committed), expected);
    assert_eq!((committed.first, committed.records.len()), (5, 2));
    assert_eq!((committed.duplicates, committed.too_large), (1, 1));
    assert_eq!(committed.below_window, 0);
    assert_eq!(core.end(), 7);
    assert!(core.is_idle());

    // The next group goes to the same generation, whose positions go on.
    let (packs, committed) = commit(&mut core, vec![append(1, numbered("t", 3))]);
    assert_eq!(
        outcomes(&committed),
        [(1, Outcome::Durable { position: 7 })]
    );
    let (header, _, _) = pack::Header::decode(&packs[0].value).unwrap();
    assert_eq!((header.generation, header.first), (3, 7));
}

#[test]
fn a_group_of_resends_touches_no_disk() {
    let mut core = core(true, 1 << 20);
    commit(&mut core, vec![append(1, numbered("t", 1_000))]);
    core.begin([append(2, numbered("t", 1_000)), append(3, too_large())]);
    let Action::Committed(committed) = core.poll() else {
        panic!()
    };
    let expected = [(2, Outcome::Duplicate), (3, Outcome::TooLarge)];
    assert_eq!(outcomes(&committed), expected);
    let (_, committed) = commit(&mut core, vec![append(4, numbered("t", 1))]);
    assert_eq!((committed.below_window, committed.duplicates), (1, 0));
}

#[test]
fn without_dedup_every_record_is_new() {
    let mut core = core(false, 1 << 20);
    let group = vec![append(1, numbered("t", 1)), append(2, numbered("t", 1))];
    let (_, committed) = commit(&mut core, group);
    let positions = [5, 6].map(|position| Outcome::Durable { position });
    assert_eq!(outcomes(&committed), [(1, positions[0]), (2, positions[1])]);
}

#[test]
fn without_room_it_asks_again_and_goes_on() {
    let mut core = core(true, 1 << 20);
    core.begin([append(1, numbered("t", 1))]);
    for _ in 0..2 {
        assert!(matches!(core.poll(), Action::AskRoom { .. }));
        core.room(Some(Alarm::BudgetSpent {
            used_bytes: 2,
            budget_bytes: 1,
        }));
        let Action::Pause(pause) = core.poll() else {
            panic!()
        };
        assert_eq!((pause.ms, pause.records), (limits::SPACE_CHECK_MS, 1));
        assert!(!pause.failed && !pause.full);
        assert!(
            matches!(core.poll(), Action::Pause(_)),
            "until it is resumed"
        );
        core.resume();
    }
    assert!(matches!(core.poll(), Action::AskRoom { .. }));
    core.room(None);
    assert!(matches!(core.poll(), Action::Create { .. }));
}

#[test]
fn a_generation_that_failed_is_left_and_no_number_is_tried_twice() {
    // Which step fails, and the numbers of the generations that are tried then.
    for (step, numbers) in [("create", [3, 4]), ("write", [3, 4]), ("sync", [3, 4])] {
        let mut core = core(true, 1 << 20);
        core.begin([append(1, numbered("t", 1))]);
        let mut failed = false;
        let mut tried = Vec::new();
        let committed = loop {
            let action = core.poll();
            let now = match &action {
                Action::Create { number, first } => {
                    assert_eq!(*first, 5);
                    tried.push(*number);
                    "create"
                }
                Action::Write { number, packs } => {
                    assert_eq!(Some(number), tried.last());
                    let (header, _, _) = pack::Header::decode(&packs[0].value).unwrap();
                    assert_eq!((header.generation, header.first), (*number, 5));
                    "write"
                }
                Action::Sync { number } => {
                    assert_eq!(Some(number), tried.last());
                    "sync"
                }
                _ => "",
            };
            match action {
                Action::AskRoom { .. } => core.room(None),
                Action::Pause(pause) => {
                    assert!(pause.failed && pause.full);
                    assert_eq!((pause.ms, pause.records), (limits::RETRY_MS_MIN, 1));
                    core.resume();
                }
                Action::Committed(committed) => break committed,
                _ if now == step && !failed => {
                    failed = true;
                    core.done(Err(full_disk()));
                }
                _ => core.done(Ok(())),
            }
        };
        assert_eq!(tried, numbers, "{step}");
        assert_eq!(
            outcomes(&committed),
            [(1, Outcome::Durable { position: 5 })]
        );
    }
}

#[test]
fn the_pause_doubles_up_to_its_bound_and_begins_anew_with_the_next_group() {
    let mut core = core(true, 1 << 20);
    let mut expected_ms = limits::RETRY_MS_MIN;
    core.begin([append(1, numbered("t", 1))]);
    for _ in 0..8 {
        assert!(matches!(core.poll(), Action::AskRoom { .. }));
        core.room(None);
        core.done(Err(StoreError::Closing));
        let Action::Pause(pause) = core.poll() else {
            panic!()
        };
        assert_eq!(pause.ms, expected_ms);
        assert!(!pause.full);
        expected_ms = (2 * expected_ms).min(limits::RETRY_MS_MAX);
        core.resume();
    }
    assert_eq!(expected_ms, limits::RETRY_MS_MAX);
    assert_eq!(core.abandon().len(), 1);
    core.begin([append(2, numbered("t", 2))]);
    core.poll();
    core.room(None);
    core.done(Err(StoreError::Closing));
    let Action::Pause(pause) = core.poll() else {
        panic!()
    };
    assert_eq!(pause.ms, limits::RETRY_MS_MIN);
}

#[test]
fn who_waits_when_it_is_abandoned_is_told_whatever_the_step() {
    let mut core = core(true, 1 << 20);
    assert!(core.abandon().is_empty());
    core.begin([append(1, numbered("t", 1)), append(2, numbered("t", 1))]);
    assert!(matches!(core.poll(), Action::AskRoom { .. }));
    let waiting: Vec<u64> = core.abandon().into_iter().map(|(_, token)| token).collect();
    assert_eq!(waiting, [1, 2]);
    assert!(core.is_idle());
    core.begin([append(3, numbered("t", 3))]);
    let waiting: Vec<u64> = core.abandon().into_iter().map(|(_, token)| token).collect();
    assert_eq!(waiting, [3], "not even judged");
}

#[test]
fn a_generation_is_sealed_when_it_is_full_or_asked_to_and_a_checkpoint_follows() {
    let shelf = Arc::<Shelf>::default();
    let options = CoreOptions {
        dedup: true,
        generation_bytes: 200,
    };
    let mut core = Core::new(JOURNAL, options, open(&shelf), 1, 1);
    assert!(!core.keep_house(false).sealed, "there is none");
    shelf.sync();
    let began = core.keep_house(false).checkpointed;
    assert_eq!(began, Some(1), "a journal begins with a checkpoint");
    let mut sealed_after = 0;
    for sequence in 1..10 {
        commit(&mut core, vec![append(1, numbered("t", sequence))]);
        sealed_after = sequence;
        if core.keep_house(false).sealed {
            break;
        }
        assert!(!core.clients().is_checkpointing(), "none is due");
    }
    // A pack of one such record takes 98 bytes: three are more than 200.
    let (packs, _) = commit(&mut core, vec![append(1, numbered("t", 20))]);
    assert_eq!(sealed_after, 200_u64.div_ceil(packs[0].value.len() as u64));
    let (header, _, _) = pack::Header::decode(&packs[0].value).unwrap();
    assert_eq!(header.generation, 2, "what comes then goes to the next one");

    assert!(core.clients().is_checkpointing());
    assert_eq!(
        core.keep_house(false).checkpointed,
        None,
        "it is not durable"
    );
    shelf.sync();
    assert_eq!(core.keep_house(false).checkpointed, Some(1 + sealed_after));
    let house = core.keep_house(true);
    assert!(house.sealed, "asked to");
    shelf.sync();
    assert_eq!(core.keep_house(false).checkpointed, Some(core.end()));
    let house = core.keep_house(false);
    assert!(!house.sealed && house.checkpointed.is_none() && house.trouble.is_none());
}

#[test]
fn a_checkpoint_that_is_refused_is_told_and_waits() {
    let shelf = Arc::<Shelf>::default();
    let options = CoreOptions {
        dedup: true,
        generation_bytes: 1,
    };
    let mut core = Core::new(JOURNAL, options, open(&shelf), 1, 1);
    commit(&mut core, vec![append(1, numbered("t", 1))]);
    *shelf.refuses.lock() = true;
    assert!(core.keep_house(false).trouble.is_some());
    *shelf.refuses.lock() = false;
    assert!(core.keep_house(false).trouble.is_none());
    shelf.sync();
    assert_eq!(core.keep_house(false).checkpointed, Some(2));
}

#[test]
fn a_session_that_is_discarded_is_forgotten_in_its_place_in_the_group() {
    let mut core = core(true, 1 << 20);
    let packet = |token| append(token, crate::journal::clients::tests::packet("t", 1));
    let client_id = Bytes::from_static(b"t");
    let group = vec![packet(1), packet(2), Work::Forget { client_id }, packet(3)];
    let (_, committed) = commit(&mut core, group);
    let expected = [
        (1, Outcome::Durable { position: 5 }),
        (2, Outcome::Duplicate),
        (3, Outcome::Durable { position: 6 }),
    ];
    assert_eq!(outcomes(&committed), expected);
}
