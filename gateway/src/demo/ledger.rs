//! Who published what, what was acknowledged, what stands in Kafka.
//!
//! Promises: it counts what it was told and nothing else. With a Kafka that has
//! no transactions it counts what a consumer sees that removes duplicates by
//! `ce_id`, and says so.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

/// One payment, by terminal and sequence number.
#[derive(Debug, Default, Clone, Copy)]
struct Payment {
    acknowledged: bool,
    found: u32,
}

#[derive(Debug, Default)]
struct Book {
    payments: HashMap<String, HashMap<u64, Payment>>,
    /// Highest sequence number found of each terminal.
    last_found: HashMap<String, u64>,
    published: u64,
    acknowledged: u64,
    found: u64,
    repeated: u64,
    out_of_order: u64,
    unknown: u64,
    connected: i64,
    latencies: Vec<Duration>,
}

/// The books of one run.
#[derive(Debug)]
pub struct Ledger {
    deduplicates: bool,
    book: Mutex<Book>,
}

/// The counts shown while it runs.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    pub published: u64,
    pub acknowledged: u64,
    pub found: u64,
    pub connected: i64,
}

impl Ledger {
    /// `deduplicates`: count what a consumer sees that removes duplicates by
    /// `ce_id`.
    pub fn new(deduplicates: bool) -> Self {
        Self {
            deduplicates,
            book: Mutex::default(),
        }
    }

    /// A payment was made at a terminal.
    pub fn published(&self, terminal: &str, sequence: u64) {
        let mut book = self.book.lock();
        book.published += 1;
        book.payments
            .entry(terminal.to_owned())
            .or_default()
            .insert(sequence, Payment::default());
    }

    /// Its PUBACK arrived, so long after it was (last) sent.
    pub fn acknowledged(&self, terminal: &str, sequence: u64, after: Duration) {
        let mut book = self.book.lock();
        let payment = book
            .payments
            .get_mut(terminal)
            .and_then(|p| p.get_mut(&sequence));
        if let Some(payment) = payment
            && !payment.acknowledged
        {
            payment.acknowledged = true;
            book.acknowledged += 1;
            book.latencies.push(after);
        }
    }

    /// It stands in Kafka's log.
    pub fn found(&self, terminal: &str, sequence: u64) {
        let mut book = self.book.lock();
        let Some(payment) = book
            .payments
            .get_mut(terminal)
            .and_then(|p| p.get_mut(&sequence))
        else {
            book.unknown += 1;
            return;
        };
        payment.found += 1;
        if payment.found > 1 {
            book.repeated += 1;
            return;
        }
        book.found += 1;
        let last = book.last_found.entry(terminal.to_owned()).or_default();
        if sequence < *last {
            book.out_of_order += 1;
        } else {
            *last = sequence;
        }
    }

    /// A terminal connected (1) or lost its connection (-1).
    pub fn connected(&self, change: i64) {
        self.book.lock().connected += change;
    }

    /// Payments that are not acknowledged, or acknowledged and not yet found.
    pub fn waiting(&self) -> u64 {
        let book = self.book.lock();
        (book.published - book.acknowledged) + book.acknowledged.saturating_sub(book.found)
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        let book = self.book.lock();
        Counts {
            published: book.published,
            acknowledged: book.acknowledged,
            found: book.found,
            connected: book.connected,
        }
    }

    /// The verdict.
    pub fn verdict(&self, link_cuts: u64, power_cuts: u32) -> Verdict {
        let mut book = self.book.lock();
        let lost = book
            .payments
            .values()
            .flat_map(|p| p.values())
            .filter(|p| p.acknowledged && p.found == 0)
            .count() as u64;
        book.latencies.sort_unstable();
        let percentile = |p: usize| {
            let index =
                (book.latencies.len() * p / 100).min(book.latencies.len().saturating_sub(1));
            book.latencies.get(index).copied().unwrap_or_default()
        };
        Verdict {
            published: book.published,
            acknowledged: book.acknowledged,
            found: book.found,
            lost,
            duplicated: if self.deduplicates { 0 } else { book.repeated },
            repeated_by_id: book.repeated,
            out_of_order: book.out_of_order,
            unknown: book.unknown,
            deduplicates: self.deduplicates,
            link_cuts,
            power_cuts,
            puback: (percentile(50), percentile(99)),
        }
    }
}

/// What the run came to.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    published: u64,
    acknowledged: u64,
    found: u64,
    lost: u64,
    duplicated: u64,
    repeated_by_id: u64,
    out_of_order: u64,
    unknown: u64,
    deduplicates: bool,
    link_cuts: u64,
    power_cuts: u32,
    puback: (Duration, Duration),
}

impl Verdict {
    /// Whether every promise was kept, and something was really tried.
    pub fn is_clean(&self) -> bool {
        self.published > 0
            && self.acknowledged == self.published
            && self.found == self.published
            && self.lost == 0
            && self.duplicated == 0
            && self.out_of_order == 0
            && self.unknown == 0
            && self.power_cuts > 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        writeln!(
            f,
            "verdict: {}",
            if self.is_clean() {
                "CLEAN"
            } else {
                "NOT CLEAN"
            }
        )?;
        writeln!(f, "  published       {:>9}", self.published)?;
        writeln!(f, "  acknowledged    {:>9}", self.acknowledged)?;
        writeln!(f, "  in Kafka        {:>9}", self.found)?;
        writeln!(f, "  lost            {:>9}", self.lost)?;
        writeln!(f, "  duplicated      {:>9}", self.duplicated)?;
        writeln!(f, "  out of order    {:>9}", self.out_of_order)?;
        if self.unknown > 0 {
            writeln!(f, "  never published {:>9}", self.unknown)?;
        }
        writeln!(
            f,
            "  through {} power cut of the gateway and {} link cuts;\n  \
             PUBACK after {} ms (median), {} ms (p99) over the bad link",
            self.power_cuts,
            self.link_cuts,
            self.puback.0.as_millis(),
            self.puback.1.as_millis()
        )?;
        if self.deduplicates {
            write!(
                f,
                "  The embedded Kafka has no real transactions: counted is what a consumer sees that\n  \
                 removes duplicates by ce_id (it removed {}). `make demo KAFKA=real` counts the\n  \
                 committed log of a real Kafka itself.",
                self.repeated_by_id
            )
        } else {
            write!(
                f,
                "  Counted in the committed log of a real Kafka (read_committed)."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(deduplicates: bool) -> Ledger {
        let ledger = Ledger::new(deduplicates);
        for n in 1..=3 {
            ledger.published("t", n);
            ledger.acknowledged("t", n, Duration::ZERO);
        }
        ledger
    }

    #[test]
    fn all_once_and_in_order_is_clean() {
        let l = ledger(false);
        for n in 1..=3 {
            l.found("t", n);
        }
        assert!(l.verdict(0, 1).is_clean());
        // Without a power cut nothing was shown.
        assert!(!l.verdict(0, 0).is_clean());
    }

    #[test]
    fn a_lost_a_repeated_and_a_misplaced_one_are_each_seen() {
        let l = ledger(false);
        l.found("t", 1);
        l.found("t", 2);
        assert_eq!(l.verdict(0, 1).lost, 1);
        l.found("t", 3);
        l.found("t", 3);
        assert_eq!(l.verdict(0, 1).duplicated, 1);
        let l = ledger(false);
        for n in [1, 3, 2] {
            l.found("t", n);
        }
        assert_eq!(l.verdict(0, 1).out_of_order, 1);
    }

    #[test]
    fn repeats_are_removed_by_id_only_where_kafka_has_no_transactions() {
        let l = ledger(true);
        for n in [1, 2, 2, 3] {
            l.found("t", n);
        }
        assert!(l.verdict(0, 1).is_clean());
    }
}
