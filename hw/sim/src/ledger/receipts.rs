//! The verdict over the way round: each payment settled once, each receipt
//! printed once, at its own terminal.
//!
//! Promises: what terminals saved is the measure; a fault is told with the
//! payment's name. Never: a fault hidden by another: a payment that is settled
//! twice and printed once is still settled twice.

use std::collections::BTreeMap;
use std::fmt;

use super::{Account, Accounts, Delivery, Found, Percentiles};
use crate::limits::{EXAMPLES_MAX, EXAMPLES_PER_CLIENT};

/// What stands in Kafka at the end of a run.
#[derive(Debug, Clone, Default)]
pub struct ReceiptsLog {
    /// Finalised transactions.
    pub settled: Vec<Found>,
    /// Receipts.
    pub receipts: Vec<Found>,
    /// Delivery events; none if they are not judged.
    pub deliveries: Option<Vec<Delivery>>,
}

/// What is right and wrong. All zeros from `unsettled` on: each payment was
/// settled once, its receipt printed once, at its own terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceiptsVerdict {
    /// Payments that terminals have saved.
    pub payments: u64,
    /// Different payments among the finalised transactions.
    pub settled: u64,
    /// Payments whose receipt was printed.
    pub printed: u64,
    /// Delivery events.
    pub delivered: u64,
    /// Receipts that came to a terminal again and were recognised. No fault.
    pub repeated: u64,
    /// Records sent again with the resend mark. No fault.
    pub resent: u64,
    /// Power cuts of terminals.
    pub power_cuts: u64,
    /// From the key press to the receipt in the terminal's flash.
    pub waited: Percentiles,
    /// Payments without a finalised transaction.
    pub unsettled: u64,
    /// Finalised transactions beyond the first of a payment.
    pub settled_twice: u64,
    /// Finalised transactions of payments that nobody made.
    pub foreign: u64,
    /// Payments whose receipt was not printed.
    pub missing: u64,
    /// Receipts that came to a terminal whose payment they do not answer.
    pub wrong_terminal: u64,
    /// Prints beyond the first of a payment.
    pub printed_twice: u64,
    /// Receipts that say no.
    pub rejected: u64,
    /// Receipts in Kafka without a delivery event.
    pub undelivered: u64,
    /// Delivery events beyond the number of receipts in Kafka for a payment, or
    /// of the same receipt number.
    pub delivered_twice: u64,
    /// Some of each, to look for.
    pub examples: Vec<String>,
}

impl ReceiptsVerdict {
    /// The faults, by name.
    #[must_use]
    pub fn faults(&self) -> [(&'static str, u64); 9] {
        [
            ("not settled", self.unsettled),
            ("settled twice", self.settled_twice),
            ("never paid", self.foreign),
            ("receipts missing", self.missing),
            ("wrong terminal", self.wrong_terminal),
            ("printed twice", self.printed_twice),
            ("rejected", self.rejected),
            ("no delivery event", self.undelivered),
            ("delivery event twice", self.delivered_twice),
        ]
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults().iter().all(|(_, count)| *count == 0)
    }

    fn example(&mut self, told: &mut usize, text: impl FnOnce() -> String) {
        *told += 1;
        if *told <= EXAMPLES_PER_CLIENT && self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

impl fmt::Display for ReceiptsVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "payments {}, settled {}, printed {}, delivered {}, repeated {}, resent {}, \
             power cuts of terminals {}; payment to receipt {}",
            self.payments,
            self.settled,
            self.printed,
            self.delivered,
            self.repeated,
            self.resent,
            self.power_cuts,
            self.waited
        )?;
        for (name, count) in self.faults() {
            if count > 0 {
                write!(f, ", {name} {count}")?;
            }
        }
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

/// Judges a run of terminals.
#[must_use]
pub fn receipts_verdict(accounts: &Accounts, log: &ReceiptsLog) -> ReceiptsVerdict {
    let mut verdict = ReceiptsVerdict::default();
    let mut settled = counted(&log.settled);
    for (terminal, account) in accounts {
        judge_terminal(&mut verdict, terminal, account, &mut settled);
    }
    let waited = accounts.values().flat_map(|account| &account.waited);
    verdict.waited = Percentiles::of(waited.copied().collect());
    let mut told = 0;
    for ((terminal, sequence), count) in settled {
        verdict.foreign += u64::from(count);
        verdict.example(&mut told, || {
            format!("{terminal}/{sequence} is settled, and nobody made it")
        });
    }
    if let Some(deliveries) = &log.deliveries {
        judge_deliveries(&mut verdict, &log.receipts, deliveries);
    }
    verdict
}

type Counted<'a> = BTreeMap<(&'a str, u64), u32>;

fn counted(log: &[Found]) -> Counted<'_> {
    let mut counted = Counted::new();
    for one in log {
        *counted.entry((&one.client, one.sequence)).or_default() += 1;
    }
    counted
}

fn judge_terminal<'a>(
    verdict: &mut ReceiptsVerdict,
    terminal: &'a str,
    account: &Account,
    settled: &mut Counted<'a>,
) {
    verdict.payments += account.count();
    verdict.repeated += account.repeated;
    verdict.resent += account.resent;
    verdict.power_cuts += account.power_cuts;
    verdict.rejected += account.rejected;
    verdict.wrong_terminal += account.strangers;
    let mut told = [0; 4];
    let numbers = (1..=account.published).filter(|number| account.holds(*number));
    for sequence in numbers {
        match settled.remove(&(terminal, sequence)) {
            None => {
                verdict.unsettled += 1;
                verdict.example(&mut told[0], || {
                    format!("{terminal}/{sequence} is not settled")
                });
            }
            Some(count) => {
                verdict.settled += 1;
                verdict.settled_twice += u64::from(count - 1);
                if count > 1 {
                    verdict.example(&mut told[1], || {
                        format!("{terminal}/{sequence} is settled {count} times")
                    });
                }
            }
        }
        match account.printed.get(&sequence) {
            None | Some(0) => {
                verdict.missing += 1;
                verdict.example(&mut told[2], || {
                    format!("{terminal}/{sequence} has no receipt")
                });
            }
            Some(&count) => {
                verdict.printed += 1;
                verdict.printed_twice += u64::from(count - 1);
                if count > 1 {
                    verdict.example(&mut told[3], || {
                        format!("{terminal}/{sequence} was printed {count} times")
                    });
                }
            }
        }
    }
}

/// A payment that was sent again is answered again: as many events as receipts,
/// and none of them for the same receipt.
fn judge_deliveries(verdict: &mut ReceiptsVerdict, receipts: &[Found], deliveries: &[Delivery]) {
    verdict.delivered = deliveries.len() as u64;
    let mut events = Counted::new();
    let mut numbers = BTreeMap::new();
    for one in deliveries {
        *events.entry((&one.terminal, one.sequence)).or_default() += 1;
        *numbers
            .entry((&one.gateway, &one.terminal, one.number))
            .or_insert(0_u32) += 1;
    }
    let mut told = [0; 3];
    for ((terminal, sequence), receipts) in counted(receipts) {
        let found = events.remove(&(terminal, sequence)).unwrap_or(0);
        if found < receipts {
            verdict.undelivered += u64::from(receipts - found);
            verdict.example(&mut told[0], || {
                format!("{terminal}/{sequence}: {receipts} receipts, {found} delivery events")
            });
        } else if found > receipts {
            verdict.delivered_twice += u64::from(found - receipts);
            verdict.example(&mut told[1], || {
                format!("{terminal}/{sequence}: {receipts} receipts, {found} delivery events")
            });
        }
    }
    for ((_, terminal, number), count) in numbers {
        if count > 1 {
            verdict.delivered_twice += u64::from(count - 1);
            verdict.example(&mut told[2], || {
                format!("{terminal}: {count} delivery events for its receipt {number}")
            });
        }
    }
    let without_receipt = events.values().map(|count| u64::from(*count)).sum::<u64>();
    verdict.delivered_twice += without_receipt;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal with three payments, each printed once.
    fn accounts() -> Accounts {
        let account = Account {
            published: 3,
            printed: BTreeMap::from([(1, 1), (2, 1), (3, 1)]),
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
                partition: 0,
                offset,
            })
            .collect()
    }

    fn events(numbers: &[(u64, u64)]) -> Vec<Delivery> {
        let event = |(sequence, number): &(u64, u64)| Delivery {
            terminal: "a".into(),
            sequence: *sequence,
            number: *number,
            gateway: "g".into(),
        };
        numbers.iter().map(event).collect()
    }

    fn clean() -> ReceiptsLog {
        ReceiptsLog {
            settled: found(&[1, 2, 3]),
            receipts: found(&[1, 2, 3]),
            deliveries: Some(events(&[(1, 1), (2, 2), (3, 3)])),
        }
    }

    #[track_caller]
    fn assert_only(verdict: &ReceiptsVerdict, fault: &str, count: u64) {
        let wrong: Vec<_> = verdict.faults().into_iter().filter(|f| f.1 > 0).collect();
        assert_eq!(wrong, [(fault, count)], "{verdict}");
        assert!(!verdict.is_clean());
    }

    #[test]
    fn each_settled_and_printed_once_is_clean() {
        let verdict = receipts_verdict(&accounts(), &clean());
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!((verdict.payments, verdict.settled), (3, 3));
        assert_eq!((verdict.printed, verdict.delivered), (3, 3));
    }

    #[test]
    fn what_is_not_settled_or_settled_twice_is_seen() {
        let mut log = clean();
        log.settled = found(&[1, 3]);
        assert_only(&receipts_verdict(&accounts(), &log), "not settled", 1);
        log.settled = found(&[1, 2, 3, 2]);
        assert_only(&receipts_verdict(&accounts(), &log), "settled twice", 1);
        log.settled = found(&[1, 2, 3, 4]);
        assert_only(&receipts_verdict(&accounts(), &log), "never paid", 1);
    }

    #[test]
    fn a_receipt_missing_printed_twice_or_astray_is_seen() {
        let change = |change: fn(&mut Account)| {
            let mut accounts = accounts();
            accounts.values_mut().for_each(change);
            receipts_verdict(&accounts, &clean())
        };
        let missing = change(|a| {
            a.printed.remove(&2);
        });
        assert_only(&missing, "receipts missing", 1);
        let twice = change(|a| {
            a.printed.insert(2, 2);
        });
        assert_only(&twice, "printed twice", 1);
        assert_only(&change(|a| a.strangers = 1), "wrong terminal", 1);
        assert_only(&change(|a| a.rejected = 1), "rejected", 1);
    }

    #[test]
    fn a_number_that_a_power_cut_has_skipped_is_no_payment() {
        let mut accounts = accounts();
        for account in accounts.values_mut() {
            account.skipped.insert(2);
            account.printed.remove(&2);
        }
        let mut log = ReceiptsLog {
            settled: found(&[1, 3]),
            receipts: found(&[1, 3]),
            deliveries: None,
        };
        let verdict = receipts_verdict(&accounts, &log);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!(verdict.payments, 2);
        log.settled = found(&[1, 2, 3]);
        assert_only(&receipts_verdict(&accounts, &log), "never paid", 1);
    }

    #[test]
    fn a_delivery_event_missing_or_doubled_is_seen() {
        let mut log = clean();
        log.deliveries = Some(events(&[(1, 1), (3, 3)]));
        assert_only(&receipts_verdict(&accounts(), &log), "no delivery event", 1);
        log.deliveries = Some(events(&[(1, 1), (2, 2), (2, 4), (3, 3)]));
        assert_only(
            &receipts_verdict(&accounts(), &log),
            "delivery event twice",
            1,
        );
    }

    #[test]
    fn a_payment_sent_again_has_two_receipts_and_two_events() {
        let mut log = clean();
        log.receipts = found(&[1, 2, 2, 3]);
        log.deliveries = Some(events(&[(1, 1), (2, 2), (2, 3), (3, 4)]));
        assert!(receipts_verdict(&accounts(), &log).is_clean());
        // Two events for one and the same of them are one too many.
        log.deliveries = Some(events(&[(1, 1), (2, 2), (2, 2), (3, 4)]));
        assert_only(
            &receipts_verdict(&accounts(), &log),
            "delivery event twice",
            1,
        );
    }
}
