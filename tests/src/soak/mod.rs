//! Soak: the whole house for hours, through everything that a year brings, over and
//! over; and whether it is the same after each round.
//!
//! Promises: real processes (two gateways of one site, settlement, Kafka), terminals
//! by the hundred and visitors by the thousand; each process's memory, descriptors,
//! threads and disk at the same moment of every cycle, judged by a robust trend
//! ([`judge`]); every payment settled once and printed once, judged epoch by epoch
//! ([`books`]); the same seed, the same visitors. Never: a soak that grows itself.
//!
//! | phase | what happens |
//! | --- | --- |
//! | steady | terminals pay; they pay on through all phases until `drain` |
//! | storm | thousands of clients vanish at once and come again at once |
//! | roam | clients with names and addresses that never come again; terminals move to the other gateway |
//! | churn | subscriptions and retained messages come and go |
//! | hostile | rubbish, half CONNECTs, slow-loris, rivals for a session |
//! | absent | terminals are away, and their receipts pile up; they come again, and those leave |
//! | outage | Kafka is cut off, stopped or killed; a backlog grows, and drains |
//! | drain | no payment is made; everything comes home |
//! | mark | what each process takes now is what is judged |
//!
//! Logs and the recorder's files are so small that they turn over on the way.

pub mod books;
mod client;
mod crowds;
mod cycle;
pub mod house;
pub mod judge;
pub mod leaky;
pub mod limits;
mod plot;
mod process;
pub mod report;
pub mod sample;
mod sampler;
mod trend;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

pub use self::cycle::run;
use self::house::Outage;
use self::judge::Strictness;
use self::leaky::Leak;

/// A part of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the table at the head of the file
pub enum Phase {
    Steady,
    Storm,
    Roam,
    Churn,
    Hostile,
    Absent,
    Outage,
    Drain,
    Mark,
}

impl Phase {
    /// All, in their order.
    pub const ALL: [Self; 9] = [
        Self::Steady,
        Self::Storm,
        Self::Roam,
        Self::Churn,
        Self::Hostile,
        Self::Absent,
        Self::Outage,
        Self::Drain,
        Self::Mark,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Storm => "storm",
            Self::Roam => "roam",
            Self::Churn => "churn",
            Self::Hostile => "hostile",
            Self::Absent => "absent",
            Self::Outage => "outage",
            Self::Drain => "drain",
            Self::Mark => "mark",
        }
    }

    /// Its sixteenths of a cycle; draining takes what it takes.
    fn sixteenths(self) -> u32 {
        match self {
            Self::Steady => 3,
            Self::Drain => 0,
            Self::Mark => 1,
            _ => 2,
        }
    }
}

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `risiti` binary.
    pub risiti: PathBuf,
    /// Where data, logs and results go; made if it is not there.
    pub dir: PathBuf,
    /// How long, about: whole cycles, and at least as many as bear a verdict.
    pub lasts: Duration,
    /// How long one cycle is, beside what draining takes.
    pub cycle: Duration,
    /// At most so many cycles.
    pub cycles_max: usize,
    /// How Kafka is taken away, in turns; at least one way.
    pub outages: Vec<Outage>,
    /// Kafka inside the first gateway, in the place of a real one: no outages.
    pub embedded: bool,
    /// Terminals.
    pub terminals: usize,
    /// Payments a second of each.
    pub per_second: f64,
    /// Clients of a storm.
    pub storm: usize,
    /// Clients that flood while Kafka is away, and messages of each.
    pub flood: (usize, u64),
    /// How often all processes are looked at.
    pub sample_every: Duration,
    /// What may grow.
    pub strictness: Strictness,
    /// A process that leaks so much in each cycle takes part: the control.
    pub leak: Option<(PathBuf, Leak)>,
    /// Of all choices.
    pub seed: u64,
}

impl Plan {
    /// An ordinary soak of so many hours.
    #[must_use]
    pub fn hours(hours: f64, risiti: PathBuf, dir: PathBuf) -> Self {
        let lasts = Duration::from_secs_f64(hours * 3_600.0);
        // Draining takes about a third of a cycle.
        let cycle = lasts / limits::CYCLES_WANTED * 2 / 3;
        let cycle = cycle.clamp(limits::CYCLE_MIN, limits::CYCLE_MAX);
        Self {
            risiti,
            dir,
            lasts,
            cycle,
            cycles_max: usize::MAX,
            outages: vec![Outage::Freeze, Outage::Stop, Outage::Freeze, Outage::Kill],
            embedded: false,
            terminals: 200,
            per_second: 0.5,
            storm: 2_000,
            flood: (40, 500),
            sample_every: (cycle / 20).clamp(Duration::from_secs(1), Duration::from_secs(5)),
            strictness: limits::STRICT,
            leak: None,
            seed: 1,
        }
    }

    /// A minute, for `make test`.
    #[must_use]
    pub fn short(risiti: PathBuf, dir: PathBuf) -> Self {
        Self {
            lasts: Duration::ZERO,
            cycle: limits::CYCLE_SHORT,
            // A broker takes as long to start as all the rest.
            outages: vec![Outage::Freeze],
            cycles_max: limits::WARM_UP_MIN + limits::MARKS_MIN,
            terminals: 60,
            storm: 400,
            flood: (8, 250),
            sample_every: Duration::from_millis(500),
            strictness: limits::LOOSE,
            ..Self::hours(0.0, risiti, dir)
        }
    }

    /// The fewest cycles that bear a verdict.
    fn cycles_min(&self) -> usize {
        limits::WARM_UP_MIN + limits::MARKS_MIN
    }

    fn of_cycle(&self, phase: Phase) -> Duration {
        self.cycle * phase.sixteenths() / 16
    }

    /// Removes what the processes kept; the results stay.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove_data(&self) -> io::Result<()> {
        for name in ["gateway-1", "gateway-2"] {
            fs::remove_dir_all(self.dir.join(name))?;
        }
        Ok(())
    }

    fn make_dir(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)
    }
}
