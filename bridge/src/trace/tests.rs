//! The recorder: what is noted is found again, over restarts, cuts and damage.

use std::sync::atomic::Ordering::Relaxed;

use super::*;

const T0: u64 = 1_763_700_000_000;
const MIB: u64 = 1 << 20;

fn way_of(position: u64) -> Vec<(u64, Step<&'static str>)> {
    vec![
        (
            T0 + 5,
            Step::Durable {
                received_ms: T0,
                position,
                resend: false,
            },
        ),
        (
            T0 + 30,
            Step::Forwarded {
                topic: "risiti.records",
                partition: 3,
                offset: i64::MAX,
            },
        ),
        (
            T0 + 90,
            Step::Stored {
                partition: 5,
                offset: 77,
                settled_ms: T0 + 60,
                number: 12,
                status: 404,
            },
        ),
        (
            T0 + 91,
            Step::Sent {
                number: 12,
                again: false,
            },
        ),
        (
            // A clock that was set back.
            T0 - 9_000,
            Step::Sent {
                number: 12,
                again: true,
            },
        ),
        (T0 + 2_000, Step::Acknowledged { number: 12 }),
        (T0 + 3_000, Step::Expired { number: u64::MAX }),
        (T0 + 3_001, Step::Dead),
    ]
}

/// What a search should give for these notes.
fn passed(notes: &[(u64, Step<&str>)]) -> Vec<Event> {
    let owned = |step: &Step<&str>| match *step {
        Step::Durable {
            received_ms,
            position,
            resend,
        } => Passed::Durable {
            received_ms,
            position,
            resend,
        },
        Step::Forwarded {
            topic,
            partition,
            offset,
        } => Passed::Forwarded {
            topic: topic.into(),
            partition,
            offset,
        },
        Step::Stored {
            partition,
            offset,
            settled_ms,
            number,
            status,
        } => Passed::Stored {
            partition,
            offset,
            settled_ms,
            number,
            status,
        },
        Step::Sent { number, again } => Passed::Sent { number, again },
        Step::Acknowledged { number } => Passed::Acknowledged { number },
        Step::Expired { number } => Passed::Expired { number },
        Step::Dead => Passed::Dead,
    };
    notes
        .iter()
        .map(|(at_ms, step)| Event {
            at_ms: *at_ms,
            step: owned(step),
        })
        .collect()
}

fn acknowledged(number: u64) -> Step<&'static str> {
    Step::Acknowledged { number }
}

fn files_bytes(dir: &Path) -> u64 {
    let numbers = segments::list(dir).unwrap();
    numbers
        .iter()
        .map(|number| {
            std::fs::metadata(segments::path(dir, *number))
                .unwrap()
                .len()
        })
        .sum()
}

#[test]
fn every_step_is_found_again_and_only_of_the_record_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    let way = way_of(1_000_000);
    for (at_ms, step) in &way {
        log.note(*at_ms, "t-000041", 7, *step);
        log.note(*at_ms, "t-000042", 7, *step);
        log.note(*at_ms, "t-000041", 8, *step);
    }
    assert_eq!(log.find("t-000041", 7).unwrap(), passed(&way));
    assert_eq!(log.find("t-000042", 7).unwrap(), passed(&way));
    assert_eq!(log.find("t-000042", 8).unwrap(), []);
    assert_eq!(log.find("t-00004", 7).unwrap(), []);
    assert_eq!(log.reaches_back_ms().unwrap(), Some(T0 + 5));
}

#[test]
fn a_topic_is_known_although_anothers_entry_named_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    let mut notes = log.notes();
    for (sequence, topic) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        let step = Step::Forwarded {
            topic,
            partition: 0,
            offset: sequence,
        };
        notes.note(T0, "t", sequence.cast_unsigned(), step);
    }
    drop(notes);
    for (sequence, topic) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        let found = log.find("t", sequence).unwrap();
        assert!(
            matches!(&found[..], [Event { step: Passed::Forwarded { topic: t, .. }, .. }] if t == topic),
            "{sequence}: {found:?}"
        );
    }
}

#[test]
fn it_goes_on_behind_what_a_former_process_wrote() {
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=5 {
        let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
        log.note(T0, "t", 1, acknowledged(number));
    }
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    let numbers: Vec<_> = (1..=5).map(|n| (T0, acknowledged(n))).collect();
    assert_eq!(log.find("t", 1).unwrap(), passed(&numbers));
}

#[test]
fn the_newest_steps_push_out_the_oldest_within_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 2 * MIB).unwrap();
    let mut sequence = 0;
    for _ in 0..100 {
        let mut notes = log.notes();
        for _ in 0..2_000 {
            sequence += 1;
            notes.note(T0 + sequence, "t-000001", sequence, acknowledged(1));
        }
        drop(notes);
        // Waits until it is written, so that nothing is dropped.
        log.find("t-000001", sequence).unwrap();
        assert!(files_bytes(dir.path()) <= 2 * MIB);
    }
    assert_eq!(log.counts().unwrap().dropped.load(Relaxed), 0);
    assert!(segments::list(dir.path()).unwrap().len() == 2);
    assert_eq!(log.find("t-000001", 1).unwrap(), []);
    assert_eq!(log.find("t-000001", sequence).unwrap().len(), 1);
    // A half of the bound, at least, is always held.
    let reach = log.reaches_back_ms().unwrap().unwrap();
    assert!(reach > T0 + 1 && files_bytes(dir.path()) >= MIB, "{reach}");
}

#[test]
fn a_torn_tail_is_cut_off_and_what_follows_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    log.note(T0, "t", 1, acknowledged(1));
    log.find("t", 1).unwrap();
    log.note(T0, "t", 1, acknowledged(2));
    drop(log);
    let path = segments::path(dir.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
        log.note(T0, "t", 1, acknowledged(3));
        let found = log.find("t", 1).unwrap();
        let before = if cut < whole.len() / 2 { 0 } else { 1 };
        assert_eq!(found.len(), before + 1, "cut at {cut}");
        assert_eq!(found[before].step, Passed::Acknowledged { number: 3 });
    }
}

#[test]
fn a_flipped_bit_costs_its_frame_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    for number in 1..=3 {
        log.note(T0, "t", 1, acknowledged(number));
        log.find("t", 1).unwrap();
    }
    drop(log);
    let path = segments::path(dir.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let frame = whole.len() / 3;
    for at in frame..2 * frame {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            std::fs::write(&path, &damaged).unwrap();
            let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
            let expected = passed(&[(T0, acknowledged(1)), (T0, acknowledged(3))]);
            assert_eq!(log.find("t", 1).unwrap(), expected, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn any_bytes_are_a_segment_without_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..rng.usize(0..40_000))
            .map(|_| *rng.choice(b"RsTr\x01\x00\x40").unwrap_or(&0))
            .collect();
        std::fs::write(segments::path(dir.path(), 1), bytes).unwrap();
        let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
        log.note(T0, "t", 1, acknowledged(1));
        assert_eq!(log.find("t", 1).unwrap().len(), 1);
    }
    // A whole frame of nonsense.
    for _ in 0..2_000 {
        let frame: Vec<u8> = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
        format::events_in(&frame, |_, _| true, |_, _, _| {});
    }
}

#[test]
fn without_room_notes_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    let mut notes = log.notes();
    // The writer can't take them meanwhile.
    for sequence in 0..1_000_000 {
        notes.note(T0, "t-000001", sequence, acknowledged(1));
    }
    drop(notes);
    let counts = log.counts().unwrap();
    let (noted, dropped) = (counts.notes.load(Relaxed), counts.dropped.load(Relaxed));
    assert_eq!(noted + dropped, 1_000_000);
    assert!(noted > 10_000 && dropped > 0, "{noted} {dropped}");
    assert_eq!(log.find("t-000001", noted - 1).unwrap().len(), 1);
    assert_eq!(log.find("t-000001", noted).unwrap(), []);
}

#[test]
fn a_name_too_long_for_a_terminal_is_not_noted() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    let long = "t".repeat(65);
    log.note(T0, &long, 1, acknowledged(1));
    log.note(T0, "", 1, acknowledged(1));
    assert_eq!(log.counts().unwrap().dropped.load(Relaxed), 2);
    assert_eq!(log.find(&long, 1).unwrap(), []);
}

#[test]
fn of_very_many_steps_the_first_and_the_last_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    for number in 0..5_000 {
        log.note(T0, "t", 1, acknowledged(number));
    }
    let found = log.find("t", 1).unwrap();
    assert_eq!(found.len(), limits::TRACE_EVENTS_MAX);
    assert_eq!(found[0].step, Passed::Acknowledged { number: 0 });
    assert_eq!(
        found.last().unwrap().step,
        Passed::Acknowledged { number: 4_999 }
    );
}

#[test]
fn switched_off_it_notes_nothing_and_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    log.note(T0, "t", 1, acknowledged(1));
    drop(log);
    assert_eq!(segments::list(dir.path()).unwrap(), [1]);
    let log = TraceLog::open(dir.path(), 0).unwrap();
    assert!(!log.is_enabled());
    log.note(T0, "t", 1, acknowledged(1));
    assert_eq!(log.find("t", 1).unwrap(), []);
    assert!(segments::list(dir.path()).unwrap().is_empty());
}

#[test]
fn recent_payments_are_measured_from_reception_to_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let log = TraceLog::open(dir.path(), 64 * MIB).unwrap();
    assert!(log.recent_ms().unwrap().is_empty());
    let received = |received_ms| Step::Durable {
        received_ms,
        position: 1,
        resend: false,
    };
    log.note(T0, "a", 1, received(T0));
    log.note(T0 + 5, "a", 2, received(T0 + 5));
    // Sent again: the first time counts.
    log.note(T0 + 40, "a", 1, received(T0 + 40));
    log.note(T0 + 70, "a", 1, acknowledged(1));
    log.note(T0 + 80, "a", 1, acknowledged(1));
    log.note(T0 + 90, "b", 2, acknowledged(1));
    log.note(T0 + 105, "a", 2, acknowledged(2));
    // A clock that was set back between.
    log.note(T0, "c", 1, received(T0));
    log.note(T0 - 1, "c", 1, acknowledged(1));
    log.find("a", 1).unwrap();
    assert_eq!(log.recent_ms().unwrap(), [70, 100]);
    // Long ago is not now.
    for sequence in 0..200_000 {
        log.note(T0, "d", sequence, acknowledged(1));
        if sequence % 10_000 == 0 {
            log.find("d", 0).unwrap();
        }
    }
    log.find("d", 0).unwrap();
    assert!(log.recent_ms().unwrap().is_empty());
}
