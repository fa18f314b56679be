//! Whole processes killed against a real Kafka, for as long as one likes.
//!
//! Promises: in each round something is killed (SIGKILL), hangs (SIGSTOP) or is cut
//! off while payments go on; after each epoch all heals, comes home and is judged by
//! what stands in Kafka and on paper; the first fault ends the run, with its seed and
//! the logs of everybody. Never: a verdict that leans on what a process says of
//! itself, or memory that grows with the length of the run.
//!
//! ```text
//! terminals ══▶ gateway 0 ══▶ ┐            ┌ ◀══ settlement 0
//!                             │ one Kafka  │
//! terminals ══▶ gateway 1 ══▶ ┘            └ ◀══ settlement 1      ══ a fault proxy
//! ```
//!
//! A seed fixes who is killed, when and where by its kind, and which wire is bad and
//! how. What the processes do meanwhile is up to the machine: a seed that has found a
//! fault finds it again by chance, and the kept logs tell the rest.

mod course;
mod epoch;
mod house;

use std::io;
use std::time::Duration;

pub use course::{Card, Course, DECK, PLACES, Place, SETTLEMENT_PLACES, SettlementPlace};
pub use epoch::{End, EpochVerdict, Terminals};
pub use house::{Counts, HouseSwitches};

use epoch::Epoch;
use house::House;

/// Gateways, each with terminals of its own.
pub const GATEWAYS: usize = 2;

/// Settlements that share the work.
pub const SETTLEMENTS: usize = 2;

/// Kills between two verdicts of a long run: a fault is told within some four minutes
/// of its cause.
pub const EPOCH_KILLS: u64 = 50;

/// All is looked at for progress once in so many rounds.
const ROUNDS_PER_LOOK: usize = 8;

/// So many receipts more on paper are progress. Terminals print some ten a second.
const PROGRESS: u64 = 20;

/// How long they may take: a half-open connection and a hanging gateway together
/// cost half a minute, on a machine that does nothing else.
const PROGRESS_MAX: Duration = Duration::from_secs(180);

/// What is done to whom.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Processes to kill.
    pub kills: u64,
    /// Between two verdicts.
    pub epoch_kills: u64,
    /// Its chances.
    pub seed: u64,
    /// What is dealt.
    pub deck: &'static [(u32, Card)],
    /// What is broken, for controls.
    pub switches: HouseSwitches,
    /// Who pays.
    pub terminals: Terminals,
    /// Which verdict ends the run before all are killed.
    pub ends: fn(&EpochVerdict) -> bool,
    /// Whether everybody's data and logs stay if there is a fault.
    pub keeps: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Processes killed.
    pub kills: u64,
    /// Kills, hangs and faults by name.
    pub counts: Counts,
    /// Epochs that were judged.
    pub epochs: u64,
    /// Payments in all of them.
    pub payments: u64,
    /// Records sent again end to end.
    pub resent: u64,
    /// Power cuts of terminals.
    pub terminal_cuts: u64,
    /// Producers that gateways have given up for new ones.
    pub producers_given_up: u64,
    /// The largest memory of a gateway at a verdict, bytes.
    pub gateway_bytes_max: u64,
    /// The last verdict: clean, or the first that is not.
    pub verdict: Option<EpochVerdict>,
    /// What else went wrong: somebody ended by itself, or nothing moved any more.
    pub fault: Option<String>,
}

impl Outcome {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.fault.is_none() && self.verdict.as_ref().is_some_and(EpochVerdict::is_clean)
    }
}

/// Runs the loop to its end or to the first fault.
///
/// # Errors
/// The house could not be started.
pub fn run(settings: &Settings) -> io::Result<Outcome> {
    let mut house = House::start(settings.switches, settings.seed)?;
    house.note(&format_args!("{settings:?}"));
    let mut outcome = Outcome::default();
    let mut course = Course::new(settings.seed, settings.deck);
    while house.kills() < settings.kills && outcome.fault.is_none() {
        let until = (house.kills() + settings.epoch_kills).min(settings.kills);
        match epoch(&mut house, &mut course, until, settings, &mut outcome) {
            Ok(verdict) => {
                println!("{} kills: {verdict}", house.kills());
                let ends = (settings.ends)(&verdict);
                outcome.verdict = Some(verdict);
                if ends {
                    break;
                }
            }
            Err(error) => outcome.fault = Some(error.to_string()),
        }
    }
    outcome.kills = house.kills();
    outcome.counts = house.counts().clone();
    let idle = house.kafka_bytes().iter().position(|bytes| *bytes == 0);
    if let Some(wire) = idle {
        outcome.fault = Some(format!("nothing went over wire {wire} to Kafka"));
    }
    outcome.producers_given_up = house.producers_given_up();
    if settings.keeps && !outcome.is_clean() {
        house.keep();
    }
    Ok(outcome)
}

/// How often the broker hangs, and how.
#[derive(Debug, Clone, Copy)]
pub struct Freezes {
    /// Times.
    pub count: u64,
    /// How long it hangs: less than any connection or session waits for it.
    pub each: Duration,
    /// From its going on to its next hanging, beside the time until receipts are
    /// printed again at every gateway.
    pub between: Duration,
}

/// Hangs the broker again and again (SIGSTOP, SIGCONT), nothing else. Each time
/// payments must go on at both gateways by themselves; at the end all is judged.
///
/// # Errors
/// The house could not be started.
pub fn freeze(freezes: &Freezes, seed: u64) -> io::Result<Outcome> {
    let mut house = House::start(HouseSwitches::default(), seed)?;
    house.note(&format_args!("{freezes:?}"));
    let mut outcome = Outcome::default();
    match frozen(&mut house, freezes, seed) {
        Ok(verdict) => {
            outcome.epochs = 1;
            outcome.payments = verdict.receipts.payments;
            outcome.resent = verdict.records.resent;
            outcome.verdict = Some(verdict);
        }
        Err(error) => outcome.fault = Some(error.to_string()),
    }
    outcome.counts = house.counts().clone();
    outcome.producers_given_up = house.producers_given_up();
    if !outcome.is_clean() {
        house.keep();
    }
    Ok(outcome)
}

fn frozen(house: &mut House, freezes: &Freezes, seed: u64) -> io::Result<EpochVerdict> {
    // Without power cuts and resends: nothing else hides what the broker's hanging does.
    let terminals = Terminals {
        per_gateway: 24,
        rough: false,
        home_within: PROGRESS_MAX,
    };
    let epoch = Epoch::begin(house, 0, terminals, seed)?;
    let goes_on = |house: &mut House, times: u64| {
        house.note(&format_args!("hung {times} times"));
        match epoch.each_progresses(PROGRESS / 2, PROGRESS_MAX) {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "a gateway's terminals print nothing any more after the broker hung {times} times: {:?}",
                epoch.totals()
            ))),
        }
    };
    goes_on(house, 0)?;
    for times in 1..=freezes.count {
        house.hang_kafka(freezes.each)?;
        goes_on(house, times)?;
        std::thread::sleep(freezes.between);
    }
    epoch.judge(house)
}

fn epoch(
    house: &mut House,
    course: &mut Course,
    until: u64,
    settings: &Settings,
    outcome: &mut Outcome,
) -> io::Result<EpochVerdict> {
    let seed = settings.seed.wrapping_add(outcome.epochs << 8);
    let epoch = Epoch::begin(house, outcome.epochs, settings.terminals, seed)?;
    let mut rounds = 0;
    while house.kills() < until {
        if rounds % ROUNDS_PER_LOOK == 0 {
            house.heal()?;
            if !epoch.progresses(PROGRESS, PROGRESS_MAX) {
                let totals = epoch.totals();
                return Err(io::Error::other(format!(
                    "nothing moves any more: {totals:?}"
                )));
            }
        }
        if let Some(round) = course.next() {
            house.play(&round)?;
        }
        rounds += 1;
    }
    house.heal()?;
    let verdict = epoch.judge(house)?;
    outcome.epochs += 1;
    outcome.payments += verdict.receipts.payments;
    outcome.resent += verdict.records.resent;
    outcome.terminal_cuts += verdict.receipts.power_cuts;
    for gateway in &house.gateways {
        let bytes = gateway.resident_bytes()?;
        outcome.gateway_bytes_max = outcome.gateway_bytes_max.max(bytes);
    }
    Ok(verdict)
}
