//! The verdict over the way up: acknowledged records against Kafka's log.
//!
//! Promises: [`verdict`] counts a record that was acknowledged and is not there,
//! copies beyond the first, disorder and what nobody published. Never: a record
//! with the resend mark for a duplicate: its terminal had no receipt and was to
//! send it again; settlement counts it once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Account, Accounts, Found};
use crate::limits::{EXAMPLES_MAX, EXAMPLES_PER_CLIENT};

/// What is right and wrong. All zeros from `lost` on: exactly once, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records put on the wire at least once.
    pub published: u64,
    /// Records whose PUBACK was seen.
    pub acknowledged: u64,
    /// Different records in the log.
    pub in_kafka: u64,
    /// Acknowledged and not in the log.
    pub lost: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    /// Records that stand behind a later one of the same client.
    pub out_of_order: u64,
    /// In the log, but published by nobody.
    pub foreign: u64,
    /// Copies with the resend mark. No fault.
    pub resent: u64,
    /// Some of each, to look for.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0 && self.foreign == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "published {}, acknowledged {}, in Kafka {}, resent {}, lost {}, duplicated {}, out of order {}, foreign {}",
            self.published,
            self.acknowledged,
            self.in_kafka,
            self.resent,
            self.lost,
            self.duplicated,
            self.out_of_order,
            self.foreign
        )?;
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

/// Judges a log against what the clients did. `found` stands in any order of
/// partitions; within one it is sorted by offset here.
///
/// A duplicate of an early record behind later ones counts as a duplicate, not
/// as disorder: only first copies are looked at for that.
#[must_use]
pub fn verdict(accounts: &Accounts, found: &[Found]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut by_client: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for one in found {
        by_client.entry(&one.client).or_default().push(one);
    }
    for (client, account) in accounts {
        verdict.published += account.count();
        verdict.acknowledged += account.acknowledged.len() as u64;
        let mut log = by_client.remove(client.as_str()).unwrap_or_default();
        log.sort_by_key(|one| (one.partition, one.offset));
        judge_client(&mut verdict, client, account, &log);
    }
    for (client, log) in by_client {
        verdict.foreign += log.len() as u64;
        verdict.example(format!("{client} published nothing, {} found", log.len()));
    }
    verdict
}

fn judge_client(verdict: &mut Verdict, client: &str, account: &Account, log: &[&Found]) {
    let mut seen: BTreeMap<u64, &Found> = BTreeMap::new();
    let mut resent: BTreeSet<u64> = BTreeSet::new();
    let mut highest: Option<&Found> = None;
    let mut told = [0; 4];
    let mut tell = |verdict: &mut Verdict, kind: usize, text: String| {
        told[kind] += 1;
        if told[kind] <= EXAMPLES_PER_CLIENT {
            verdict.example(text);
        }
    };
    for one in log {
        let place = |at: &Found| format!("{}@{}", at.partition, at.offset);
        let number = one.sequence;
        if !account.holds(number) {
            verdict.foreign += 1;
            let text = format!("{client}/{number} was never published, {}", place(one));
            tell(verdict, 0, text);
        }
        if one.resend {
            verdict.resent += 1;
            resent.insert(number);
            continue;
        }
        if let Some(first) = seen.get(&number) {
            verdict.duplicated += 1;
            let text = format!(
                "{client}/{number} stands at {} and {}",
                place(first),
                place(one)
            );
            tell(verdict, 1, text);
            continue;
        }
        seen.insert(number, one);
        match highest {
            // Between partitions nothing has an order: a client that is spread
            // over two has lost it.
            Some(before) if before.partition != one.partition || before.sequence > number => {
                verdict.out_of_order += 1;
                let text = format!(
                    "{client}/{number} at {} stands behind {} at {}",
                    place(one),
                    before.sequence,
                    place(before)
                );
                tell(verdict, 2, text);
            }
            _ => highest = Some(one),
        }
    }
    let only_resent = resent.iter().filter(|number| !seen.contains_key(number));
    verdict.in_kafka += (seen.len() + only_resent.count()) as u64;
    for number in &account.acknowledged {
        if !seen.contains_key(number) && !resent.contains(number) {
            verdict.lost += 1;
            tell(verdict, 3, format!("{client}/{number} is not there"));
        }
    }
}

impl Verdict {
    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(published: u64, acknowledged: &[u64]) -> Accounts {
        let account = Account {
            published,
            acknowledged: acknowledged.iter().copied().collect(),
            ..Account::default()
        };
        Accounts::from([("a".to_owned(), account)])
    }

    fn found(numbers: &[u64]) -> Vec<Found> {
        (0..)
            .zip(numbers)
            .map(|(offset, sequence)| Found {
                client: "a".into(),
                sequence: *sequence,
                resend: false,
                partition: 1,
                offset,
            })
            .collect()
    }

    fn faults(verdict: &Verdict) -> [u64; 4] {
        [
            verdict.lost,
            verdict.duplicated,
            verdict.out_of_order,
            verdict.foreign,
        ]
    }

    #[test]
    fn each_once_in_order_is_clean() {
        let verdict = verdict(&accounts(3, &[1, 2]), &found(&[1, 2, 3]));
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!(
            (verdict.published, verdict.acknowledged, verdict.in_kafka),
            (3, 2, 3)
        );
    }

    #[test]
    fn what_was_not_acknowledged_may_be_missing() {
        assert!(verdict(&accounts(3, &[1]), &found(&[1])).is_clean());
    }

    #[test]
    fn an_acknowledged_record_that_is_missing_is_lost() {
        let verdict = verdict(&accounts(3, &[1, 2, 3]), &found(&[1, 3]));
        assert_eq!(faults(&verdict), [1, 0, 0, 0]);
    }

    #[test]
    fn a_second_copy_is_a_duplicate_and_no_disorder() {
        let verdict = verdict(&accounts(3, &[]), &found(&[1, 2, 1, 2, 3]));
        assert_eq!(faults(&verdict), [0, 2, 0, 0]);
    }

    #[test]
    fn a_record_behind_a_later_one_is_out_of_order() {
        let mut log = found(&[1, 3, 2]);
        assert_eq!(faults(&verdict(&accounts(3, &[]), &log)), [0, 0, 1, 0]);
        // Offsets rule, not the order in which partitions were read.
        log.reverse();
        assert_eq!(faults(&verdict(&accounts(3, &[]), &log)), [0, 0, 1, 0]);
    }

    #[test]
    fn a_client_in_two_partitions_is_out_of_order() {
        let mut log = found(&[1, 2]);
        log[1].partition = 2;
        assert_eq!(faults(&verdict(&accounts(2, &[]), &log)), [0, 0, 1, 0]);
    }

    #[test]
    fn a_copy_with_the_resend_mark_counts_as_there_and_never_as_a_fault() {
        let mut log = found(&[1, 3, 1, 2, 2]);
        for marked in &mut log[2..] {
            marked.resend = true;
        }
        let verdict = verdict(&accounts(3, &[1, 2, 3]), &log);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!((verdict.in_kafka, verdict.resent), (3, 3));
    }

    #[test]
    fn what_nobody_published_is_foreign() {
        assert_eq!(
            faults(&verdict(&accounts(1, &[]), &found(&[1, 2]))),
            [0, 0, 0, 1]
        );
        assert_eq!(
            faults(&verdict(&Accounts::default(), &found(&[1]))),
            [0, 0, 0, 1]
        );
    }
}
