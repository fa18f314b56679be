//! What terminals do between two verdicts, and the verdict.
//!
//! Promises: terminals are the firmware's own core with people before them, new ones
//! each epoch; what stands in Kafka before an epoch is no part of it, and whatever an
//! earlier epoch's terminals left behind is foreign to it. Never: memory of an epoch
//! that was judged.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use risiti_sim::fleet::{CutProfile, Fleet, GatewayDialer, TerminalSpec, Totals};
use risiti_sim::ledger::{Accounts, Found, ReceiptsLog, ReceiptsVerdict, receipts_verdict};
use risiti_sim::network::NetworkProfile;
use risiti_sim::operator::Habits;

use crate::ledger::{self, Verdict};
use crate::real_kafka::{Committed, Places, committed_since, ends};
use crate::upward;

use super::GATEWAYS;
use super::house::House;

/// Terminals live so many times as fast as the rest: a search for the network takes a
/// second at most.
const FACTOR: u32 = 30;

/// From one payment to the next, in the terminals' time: some second of ours.
const PAUSE_MS: (u64, u64) = (20_000, 80_000);

/// In the terminals' time: a power cut every minute of ours, for a second.
const CUTS: CutProfile = CutProfile {
    after_mean: Duration::from_secs(30 * 60),
    dark_longest: Duration::from_secs(40),
};

/// In the terminals' time: as long as Kafka and settlement take, which don't live
/// faster.
const PATIENCE: Duration = Duration::from_secs(30);

/// In the terminals' time: a terminal sends again what nobody answered for some 40 s
/// of ours.
const RESEND: Duration = Duration::from_secs(20 * 60);

/// For controls: a terminal never sends again what a gateway has.
const NEVER: Duration = Duration::from_secs(86_400);

/// Where terminals don't send again: when nothing has moved for so long, nothing will.
/// Longer than they wait between two looks for receipts.
const STILL: Duration = Duration::from_secs(25);

/// How long the last answers may take to Kafka, once all is on paper, and Kafka to a
/// question.
const ANSWERED: Duration = Duration::from_secs(60);

/// A second paper would come within this.
const SECOND_PAPER: Duration = Duration::from_secs(2);

const TOPICS: [&str; 5] = [
    upward::RECORDS,
    "risiti.receipts",
    "risiti.transactions",
    "risiti.deliveries",
    "risiti.rejected",
];

/// How the terminals of an epoch are.
#[derive(Debug, Clone, Copy)]
pub struct Terminals {
    /// So many at each gateway.
    pub per_gateway: usize,
    /// Whether they send again what has no receipt, and lose power. A control's do
    /// not: it would heal what is broken.
    pub rough: bool,
    /// How long all may take to come home, once all is healed.
    pub home_within: Duration,
}

/// An epoch that runs.
pub struct Epoch {
    fleets: Vec<Fleet>,
    begins: Vec<Places>,
    terminals: Terminals,
}

impl Epoch {
    /// Lets its terminals begin.
    ///
    /// # Errors
    /// Kafka does not answer, or there is no thread to be had.
    pub fn begin(house: &House, nth: u64, terminals: Terminals, seed: u64) -> io::Result<Self> {
        let bootstrap = &house.kafka.bootstrap;
        let begins = |topic: &&str| match nth {
            // Topics are being created now.
            0 => Ok(Places::new()),
            _ => patiently(|| ends(bootstrap, topic)),
        };
        let begins = TOPICS.iter().map(begins).collect::<io::Result<_>>()?;
        let fleet = |gateway: usize| {
            let specs = (0..terminals.per_gateway)
                .map(|n| terminals.spec(&format!("e{nth}-g{gateway}-{n}")))
                .collect();
            let dialer = GatewayDialer::to(house.gateway_addr(gateway));
            Fleet::start(specs, FACTOR, dialer, seed.wrapping_add(gateway as u64))
        };
        Ok(Self {
            fleets: (0..GATEWAYS).map(fleet).collect::<io::Result<_>>()?,
            begins,
            terminals,
        })
    }

    /// What all terminals have come to.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut all = Totals::default();
        for totals in self.fleets.iter().map(Fleet::totals) {
            all.saved += totals.saved;
            all.printed += totals.printed;
            all.again += totals.again;
            all.torn += totals.torn;
            all.power_cuts += totals.power_cuts;
            all.resets += totals.resets;
        }
        all
    }

    /// Waits until so many more receipts are on paper; whether they are.
    #[must_use]
    pub fn progresses(&self, receipts: u64, within: Duration) -> bool {
        let enough = self.totals().printed + receipts;
        wait(within, || self.totals().printed >= enough)
    }

    /// The same at each gateway.
    #[must_use]
    pub fn each_progresses(&self, receipts: u64, within: Duration) -> bool {
        let printed = || self.fleets.iter().map(|fleet| fleet.totals().printed);
        let enough: Vec<u64> = printed().map(|printed| printed + receipts).collect();
        wait(within, || {
            printed().zip(&enough).all(|(now, enough)| now >= *enough)
        })
    }

    /// Waits until all is home, and judges.
    ///
    /// # Errors
    /// Kafka can't be read, or holds what nobody here writes.
    pub fn judge(mut self, house: &mut House) -> io::Result<EpochVerdict> {
        for fleet in &self.fleets {
            fleet.rest();
        }
        let rested = Instant::now();
        let end = self.end(house);
        house.note(&format_args!(
            "{end:?}: {:?} after {:?}",
            self.totals(),
            rested.elapsed()
        ));
        // What is sent again is answered again, and each answer delivered.
        let until = Instant::now() + ANSWERED;
        let mut log = Log::read(house, &self.begins)?;
        while end == End::Home && !log.is_settled() && Instant::now() < until {
            sleep(Duration::from_millis(500));
            log = Log::read(house, &self.begins)?;
        }
        house.note(&format_args!("{log} after {:?}", rested.elapsed()));
        sleep(SECOND_PAPER);
        let panicked = self.fleets.iter().any(|fleet| !fleet.is_running());
        for fleet in &mut self.fleets {
            fleet.vanish();
        }
        let log = Log::read(house, &self.begins)?;
        let accounts: Accounts = self.fleets.iter().flat_map(Fleet::accounts).collect();
        let totals = self.totals();
        let (unanswered, answered_twice, examples) = answers(&log.records, &log.receipts.receipts);
        let verdict = EpochVerdict {
            records: ledger::verdict(&accounts, &log.records),
            receipts: receipts_verdict(&accounts, &log.receipts),
            unanswered,
            answered_twice,
            rejected: log.rejected,
            resets: totals.resets,
            panicked,
            end,
            again: totals.again,
            torn: totals.torn,
            home_after: rested.elapsed(),
            examples,
        };
        house.note(&verdict);
        Ok(verdict)
    }
}

/// How an epoch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every payment's receipt is on paper.
    Home,
    /// Some are not, and nobody has anything left to do about it.
    Lost,
    /// Some are not, and somebody may still be busy.
    Late,
}

impl Epoch {
    fn end(&self, house: &House) -> End {
        let until = Instant::now() + self.terminals.home_within;
        let (mut still, mut last) = (Instant::now(), self.totals());
        while Instant::now() < until {
            let totals = self.totals();
            if totals.saved == totals.printed {
                return End::Home;
            }
            if totals != last || !house.is_at_rest() {
                (still, last) = (Instant::now(), totals);
            }
            if !self.terminals.rough && still.elapsed() > STILL {
                return End::Lost;
            }
            sleep(Duration::from_millis(100));
        }
        End::Late
    }
}

impl Terminals {
    fn spec(&self, id: &str) -> TerminalSpec {
        let habits = Habits {
            payments: u32::MAX,
            pause_ms: PAUSE_MS,
            ..Habits::default()
        };
        let mut spec = TerminalSpec::new(id, habits, NetworkProfile::village());
        spec.cuts = self.rough.then_some(CUTS);
        spec.patience = PATIENCE;
        spec.resend_after = if self.rough { RESEND } else { NEVER };
        spec
    }
}

fn wait(within: Duration, mut reached: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + within;
    while !reached() {
        if Instant::now() > until {
            return false;
        }
        sleep(Duration::from_millis(50));
    }
    true
}

/// Reads again what a busy broker did not answer.
fn patiently<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + ANSWERED;
    loop {
        match read() {
            Err(_) if Instant::now() < until => sleep(Duration::from_millis(500)),
            done => return done,
        }
    }
}

/// What stands in Kafka since the beginning of an epoch.
struct Log {
    records: Vec<Found>,
    receipts: ReceiptsLog,
    rejected: u64,
    delivered: usize,
}

impl Log {
    fn read(house: &House, begins: &[Places]) -> io::Result<Self> {
        let mut logs = TOPICS.iter().zip(begins).map(|(topic, begins)| {
            let bootstrap = &house.kafka.bootstrap;
            let log = patiently(|| committed_since(bootstrap, topic, begins));
            log.map_err(|error| io::Error::other(format!("{topic}: {error}")))
        });
        let mut next = || logs.next().unwrap_or_else(|| Ok(Vec::new()));
        let records = parse(&next()?, ledger::read)?;
        let receipts = parse(&next()?, ledger::receipts)?;
        let settled = parse(&next()?, ledger::transactions)?;
        let deliveries = parse(&next()?, ledger::deliveries)?;
        Ok(Self {
            records,
            delivered: deliveries.len(),
            receipts: ReceiptsLog {
                settled,
                receipts,
                deliveries: Some(deliveries),
            },
            rejected: next()?.len() as u64,
        })
    }

    /// Whether nothing is on its way.
    fn is_settled(&self) -> bool {
        let receipts = self.receipts.receipts.len();
        self.records.len() == receipts && receipts == self.delivered
    }
}

fn parse<T>(
    log: &[Committed],
    read: impl Fn(&[Committed]) -> Result<Vec<T>, String>,
) -> io::Result<Vec<T>> {
    read(log).map_err(io::Error::other)
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records, {} settled, {} receipts, {} delivered",
            self.records.len(),
            self.receipts.settled.len(),
            self.receipts.receipts.len(),
            self.delivered
        )
    }
}

/// Examples of each fault that are told.
const EXAMPLES_MAX: usize = 10;

/// Each message about a record has one answer: how many have none, how many answers
/// are too many, and some of both.
fn answers(records: &[Found], receipts: &[Found]) -> (u64, u64, Vec<String>) {
    let mut left: BTreeMap<(&str, u64), i64> = BTreeMap::new();
    for record in records {
        *left.entry((&record.client, record.sequence)).or_default() += 1;
    }
    for receipt in receipts {
        *left.entry((&receipt.client, receipt.sequence)).or_default() -= 1;
    }
    let (mut unanswered, mut twice, mut examples) = (0, 0, Vec::new());
    for ((terminal, sequence), left) in left {
        if left != 0 && examples.len() < EXAMPLES_MAX {
            examples.push(format!(
                "{terminal}/{sequence}: {left} more records than receipts"
            ));
        }
        unanswered += left.max(0) as u64;
        twice += (-left).max(0) as u64;
    }
    (unanswered, twice, examples)
}

/// What is right and wrong after an epoch.
#[derive(Debug)]
pub struct EpochVerdict {
    /// The way up: G2, G3.
    pub records: Verdict,
    /// The way round: settled, printed and told once: G2, G4, G5.
    pub receipts: ReceiptsVerdict,
    /// Records in Kafka, resends among them, without a receipt.
    pub unanswered: u64,
    /// Receipts beyond one for each record.
    pub answered_twice: u64,
    /// Records that settlement refused. Nobody sends any that it should.
    pub rejected: u64,
    /// Terminals that hung until their watchdog bit.
    pub resets: u64,
    /// A terminal's core has panicked.
    pub panicked: bool,
    /// Whether all receipts came home.
    pub end: End,
    /// Papers that say that they were printed again. No fault.
    pub again: u64,
    /// Papers that a power cut has torn. No fault.
    pub torn: u64,
    /// From the last payment until all was home.
    pub home_after: Duration,
    examples: Vec<String>,
}

impl EpochVerdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let wrong = [
            self.unanswered,
            self.answered_twice,
            self.rejected,
            self.resets,
        ];
        let none = wrong.iter().all(|count| *count == 0);
        none && self.end == End::Home
            && !self.panicked
            && self.records.is_clean()
            && self.receipts.is_clean()
    }
}

impl fmt::Display for EpochVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clean = if self.is_clean() {
            "clean"
        } else {
            "NOT CLEAN"
        };
        write!(
            f,
            "{clean}: {}\n{}\n{:?} after {:.1} s; unanswered {}, answered twice {}, rejected {}, \
             resets {}, panicked {}, printed again {}, torn {}",
            self.records,
            self.receipts,
            self.end,
            self.home_after.as_secs_f64(),
            self.unanswered,
            self.answered_twice,
            self.rejected,
            self.resets,
            self.panicked,
            self.again,
            self.torn,
        )?;
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(numbers: &[u64]) -> Vec<Found> {
        let one = |sequence: &u64| Found {
            client: "a".into(),
            sequence: *sequence,
            resend: false,
            partition: 0,
            offset: 0,
        };
        numbers.iter().map(one).collect()
    }

    #[test]
    fn each_record_and_each_resend_wants_one_receipt() {
        let judge = |records: &[u64], receipts: &[u64]| {
            let (unanswered, twice, _) = answers(&found(records), &found(receipts));
            (unanswered, twice)
        };
        assert_eq!(judge(&[1, 2, 2], &[2, 1, 2]), (0, 0));
        assert_eq!(judge(&[1, 2, 2], &[1, 2]), (1, 0));
        // One too many hides none that is missing.
        assert_eq!(judge(&[1, 2], &[1, 1]), (1, 1));
        assert_eq!(judge(&[], &[7]), (0, 1));
    }
}
