//! The whole chain at a steady rate: payment → Kafka → settlement → receipt →
//! its terminal, and how long each part takes.
//!
//! Promises: payments come at times that were set before (exponential pauses, by
//! the seed), and every latency counts from the time at which the payment was due,
//! so that a stall delays nobody's clock; only payments whose receipt came are
//! counted as delivered, and those whose didn't are told. Never: a mean.
//!
//! | part | from | to |
//! | --- | --- | --- |
//! | puback | the payment is due | PUBACK read |
//! | in Kafka | the payment is due | a `read_committed` consumer has the record |
//! | way back | settlement's timestamp of the receipt | the receipt is read from the socket |
//! | chain | the payment is due | the receipt is read from the socket |

pub mod kafka;
pub mod report;
pub mod stages;
pub mod terminals;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Terminals, each with a connection.
    pub terminals: usize,
    /// Payments a second, of all together.
    pub per_second: f64,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured after that.
    pub measured: Duration,
    /// Of the pauses.
    pub seed: u64,
}

/// One payment's times, nanoseconds since the run began; 0: not yet.
#[derive(Debug, Default)]
pub struct Times {
    /// When it was to be sent.
    pub due: AtomicU64,
    /// When its PUBACK was read.
    pub acknowledged: AtomicU64,
    /// When a consumer had it.
    pub visible: AtomicU64,
    /// When settlement issued the receipt, by its own clock (milliseconds).
    pub settled: AtomicU64,
    /// When a consumer had the receipt.
    pub receipt_visible: AtomicU64,
    /// When the terminal had the receipt.
    pub received: AtomicU64,
    /// Receipts that the terminal was sent for it.
    pub receipts: AtomicU64,
}

/// Everything that is written down while it runs.
#[derive(Debug)]
pub struct Notebook {
    began: Instant,
    began_unix_ns: u64,
    /// By terminal, then by sequence number less one.
    payments: Vec<Vec<Times>>,
}

impl Notebook {
    /// One for that plan, which begins now.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let schedules = (0..plan.terminals).map(|terminal| schedule(plan, terminal));
        let payments = schedules
            .map(|due| {
                let with = |due: &Duration| Times {
                    due: AtomicU64::new(nanoseconds(*due)),
                    ..Times::default()
                };
                due.iter().map(with).collect()
            })
            .collect();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            began: Instant::now(),
            began_unix_ns: unix.map_or(0, nanoseconds),
            payments,
        }
    }

    /// Nanoseconds since it began, at least 1.
    #[must_use]
    pub fn now(&self) -> u64 {
        nanoseconds(self.began.elapsed()).max(1)
    }

    /// A time of day as nanoseconds since it began, at least 1.
    #[must_use]
    pub fn at_unix_ms(&self, unix_ms: u64) -> u64 {
        (unix_ms * 1_000_000)
            .saturating_sub(self.began_unix_ns)
            .max(1)
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// A terminal's payments.
    #[must_use]
    pub fn of(&self, terminal: usize) -> &[Times] {
        &self.payments[terminal]
    }

    /// The times of a payment, by the terminal's id; none if nobody sent it.
    #[must_use]
    pub fn find(&self, terminal: &[u8], sequence: u64) -> Option<&Times> {
        let number = std::str::from_utf8(terminal).ok()?.strip_prefix('b')?;
        let payments = self.payments.get(number.parse::<usize>().ok()?)?;
        payments.get(usize::try_from(sequence.checked_sub(1)?).ok()?)
    }

    /// Every payment of the measured time with its terminal and sequence number.
    pub fn measured(&self, plan: &Plan) -> impl Iterator<Item = (usize, u64, &Times)> {
        let from = nanoseconds(plan.warm_up);
        self.payments
            .iter()
            .enumerate()
            .flat_map(|(terminal, payments)| {
                (1..).zip(payments).map(move |(n, t)| (terminal, n, t))
            })
            .filter(move |(_, _, times)| times.due.load(Ordering::Relaxed) >= from)
    }

    /// Payments whose receipt has not come.
    #[must_use]
    pub fn missing(&self) -> usize {
        let all = self.payments.iter().flatten();
        all.filter(|times| times.received.load(Ordering::Relaxed) == 0)
            .count()
    }
}

/// The id of a terminal of this run.
#[must_use]
pub fn terminal_id(terminal: usize) -> String {
    format!("b{terminal:04}")
}

/// Sets a time that is not set yet.
pub fn note(time: &AtomicU64, now: u64) {
    let _ = time.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
}

/// When a terminal's payments are due, since the beginning.
fn schedule(plan: &Plan, terminal: usize) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(plan.seed ^ (terminal as u64) << 32);
    let mean_s = plan.terminals as f64 / plan.per_second;
    let end = plan.warm_up + plan.measured;
    let mut due = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        // Exponential: terminals know nothing of one another.
        at += Duration::from_secs_f64(-mean_s * (1.0 - random.f64()).ln());
        if at >= end {
            return due;
        }
        due.push(at);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that fails may as well panic
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            terminals: 50,
            per_second: 500.0,
            warm_up: Duration::from_secs(2),
            measured: Duration::from_secs(8),
            seed: 1,
        }
    }

    #[test]
    fn payments_come_at_the_rate_of_the_plan() {
        let notebook = Notebook::new(&plan());
        let all: usize = (0..50).map(|terminal| notebook.of(terminal).len()).sum();
        assert!((4_700..5_300).contains(&all), "{all}");
        let measured = notebook.measured(&plan()).count();
        assert!((3_700..4_300).contains(&measured), "{measured}");
        assert_eq!(notebook.missing(), all);
    }

    #[test]
    fn a_payment_is_found_by_its_id() {
        let notebook = Notebook::new(&plan());
        let times = notebook.find(b"b0007", 3).unwrap();
        note(&times.received, 5);
        note(&times.received, 9);
        assert_eq!(notebook.of(7)[2].received.load(Ordering::Relaxed), 5);
        for (terminal, sequence) in [
            (&b"b0050"[..], 1),
            (b"b0007", 0),
            (b"x", 1),
            (b"b1", 10_000),
        ] {
            assert!(notebook.find(terminal, sequence).is_none());
        }
    }
}
