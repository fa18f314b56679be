//! The journal against a model of itself: a list of records. Whatever is
//! appended, read, released, killed and reopened in whatever order, both agree.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use risiti_store::{NewRecord, Outcome, RecordSource, StoreOptions};
use support::{Store, crash_copy, numbered, open, options};

#[derive(Debug, Clone)]
enum Step {
    /// `count` new records of a client, of this size each.
    Append {
        client: u32,
        count: u64,
        bytes: usize,
    },
    /// The client sends its last ones again.
    Resend {
        client: u32,
        back: u64,
    },
    Read {
        back: u64,
        records_max: usize,
        bytes_max: usize,
    },
    Release {
        back: u64,
    },
    Reopen,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![8 => 0..400_usize, 1 => 6_500..7_500_usize, 1 => 20_000..60_000_usize];
    prop_oneof![
        6 => (0..3_u32, 1..40_u64, bytes)
            .prop_map(|(client, count, bytes)| Step::Append { client, count, bytes }),
        2 => (0..3_u32, 0..100_u64).prop_map(|(client, back)| Step::Resend { client, back }),
        3 => (0..300_u64, 1..50_usize, 1..50_000_usize)
            .prop_map(|(back, records_max, bytes_max)| Step::Read { back, records_max, bytes_max }),
        2 => (0..100_u64).prop_map(|back| Step::Release { back }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

/// What the journal must hold: everything from the release on, at least.
#[derive(Default)]
struct Model {
    records: VecDeque<NewRecord>,
    sequences: BTreeMap<u32, u64>,
    released: u64,
}

impl Model {
    fn end(&self) -> u64 {
        self.records.len() as u64 + 1
    }

    fn at(&self, position: u64) -> &NewRecord {
        &self.records[position as usize - 1]
    }
}

fn run(steps: Vec<Step>) {
    let mut dir = tempfile::tempdir().unwrap();
    let options_of = |dir: &tempfile::TempDir| StoreOptions {
        generation_bytes: 15_000,
        ..options(dir.path())
    };
    let mut store: Store = open(&options_of(&dir));
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append {
                client,
                count,
                bytes,
            } => {
                let mut tokens = Vec::new();
                for _ in 0..count {
                    let sequence = model.sequences.entry(client).or_default();
                    *sequence += 1;
                    let record = NewRecord {
                        payload: Bytes::from(vec![*sequence as u8; bytes]),
                        ..numbered(client, *sequence)
                    };
                    tokens.push((store.submit(record.clone()), model.end()));
                    model.records.push_back(record);
                }
                for (token, position) in tokens {
                    assert_eq!(store.outcomes.wait(token), Outcome::Durable { position });
                }
            }
            Step::Resend { client, back } => {
                let last = model.sequences.get(&client).copied().unwrap_or(0);
                for sequence in last.saturating_sub(back).max(1)..=last {
                    assert_eq!(store.append(numbered(client, sequence)), Outcome::Duplicate);
                }
            }
            Step::Read {
                back,
                records_max,
                bytes_max,
            } => {
                let from = model.end().saturating_sub(back).max(model.released).max(1);
                let batch = store.journal.read(from, records_max, bytes_max).unwrap();
                assert_eq!(batch.damaged, 0);
                assert_eq!(batch.records.is_empty(), from >= model.end());
                assert!(batch.records.len() <= records_max);
                assert_eq!(batch.next, from + batch.records.len() as u64);
                for (position, record) in (from..).zip(batch.records) {
                    assert_eq!(record.position, position);
                    assert_eq!(&record.record, model.at(position));
                }
            }
            Step::Release { back } => {
                let upto = model.end().saturating_sub(back).max(model.released);
                store.journal.release("default", upto);
                model.released = upto;
            }
            Step::Reopen => {
                store.close();
                store = open(&options_of(&dir));
            }
            Step::Kill => {
                // Opening sweeps up what the dead process was doing: quiet first.
                let after = tempfile::tempdir().unwrap();
                let copied = model.released;
                crash_copy(dir.path(), after.path());
                store.close();
                dir = after;
                store = open(&options_of(&dir));
                model.released = copied;
            }
        }
        assert_eq!(store.journal.end(), model.end());
        assert!(store.journal.oldest() <= model.released.max(1));
    }
    store.close();
    let store = open(&options_of(&dir));
    let oldest = store.journal.oldest();
    let (records, damaged) = store.read_all(oldest);
    assert_eq!(damaged, 0);
    assert!(records.iter().map(|r| r.position).eq(oldest..model.end()));
    assert!(records.iter().all(|r| &r.record == model.at(r.position)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_agrees_with_its_model(steps in prop::collection::vec(step(), 1..40)) {
        run(steps);
    }
}
