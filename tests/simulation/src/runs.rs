//! Many runs, on all cores of the machine.
//!
//! Promises: which seeds are run does not depend on how many cores there are; the
//! failure that is told is that of the lowest seed that failed. Never: a thread
//! inside a run.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::contract::{Controls, Ms};
use crate::reference::Violation;
use crate::scenario::{KINDS, Scenario};
use crate::shrink::shrink;
use crate::world::{Failure, Report, run, trace};

/// Lines of a trace that are told of a failure: its end.
const TRACE_LINES: usize = 120;

/// What many runs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    /// Runs that ended well.
    pub runs: u64,
    /// Virtual time, of all.
    pub virtual_ms: Ms,
    /// By name.
    pub counts: Vec<(&'static str, u64)>,
    /// Faults that struck, by kind.
    pub faults: [u64; KINDS.len()],
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.virtual_ms += report.ended_ms;
        for (sum, one) in self.faults.iter_mut().zip(report.faults) {
            *sum += one;
        }
        let counts = counts(report);
        if self.counts.is_empty() {
            self.counts = counts.to_vec();
            return;
        }
        for ((_, sum), (_, one)) in self.counts.iter_mut().zip(counts) {
            *sum += one;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.virtual_ms += other.virtual_ms;
        for (sum, one) in self.faults.iter_mut().zip(other.faults) {
            *sum += one;
        }
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        for ((_, sum), (_, one)) in self.counts.iter_mut().zip(&other.counts) {
            *sum += one;
        }
    }

    /// One of the counts.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        let one = self.counts.iter().find(|(known, _)| *known == name);
        one.map_or(0, |(_, count)| *count)
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.virtual_ms / 86_400_000;
        writeln!(f, "{} runs, {days} days of virtual time", self.runs)?;
        for (name, count) in &self.counts {
            writeln!(f, "{count:>12}  {name}")?;
        }
        writeln!(f, "faults that struck:")?;
        for (name, count) in KINDS.iter().zip(self.faults) {
            writeln!(f, "{count:>12}  {name}")?;
        }
        Ok(())
    }
}

fn counts(report: &Report) -> [(&'static str, u64); 26] {
    let (tally, traffic, kafka) = (&report.tally, &report.traffic, &report.kafka);
    [
        ("rounds", report.rounds),
        ("firmware_polls", report.polls),
        ("terminal_cuts", report.terminal_cuts),
        ("torn_flash_writes", report.torn_writes),
        ("gateway_deaths", report.gateway_deaths),
        ("saved", tally.saved),
        ("pubacks", tally.acked),
        ("withheld", tally.withheld),
        ("resends_recognised", tally.duplicates),
        ("records", tally.records),
        ("resent_end_to_end", tally.resent),
        ("settled", tally.settled),
        ("receipts", tally.receipts),
        ("receipts_sent", tally.delivered),
        ("printed", tally.printed),
        ("printed_again", tally.again),
        ("papers_torn", tally.torn),
        ("damaged", tally.damaged),
        ("forged_records_refused", tally.refused),
        ("connections", traffic.opened),
        ("connections_lost", traffic.lost),
        ("late_bytes", traffic.late),
        ("transactions_committed", kafka.committed),
        ("transactions_aborted", kafka.aborted),
        ("fenced", kafka.fenced),
        ("answers_lost", kafka.answers_lost),
    ]
}

/// Runs a scenario; a panic is a failure like others.
///
/// # Errors
/// What it broke.
pub fn attempt(scenario: &Scenario) -> Result<Report, Failure> {
    catch_unwind(AssertUnwindSafe(|| run(scenario))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Failure {
            violation: Violation {
                guarantee: "panic",
                what: text.unwrap_or_default(),
            },
            round: 0,
            at_ms: 0,
        })
    })
}

/// Runs so many seeds from this one on, with what is broken on purpose, until one
/// fails.
///
/// # Errors
/// The lowest seed that failed, and how.
pub fn many(from: u64, runs: u64, controls: Controls) -> Result<Sum, (u64, Failure)> {
    let next = AtomicU64::new(0);
    // Nobody begins with a seed behind one that failed.
    let end = AtomicU64::new(runs);
    let found: Mutex<(Sum, Option<(u64, Failure)>)> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut sum = Sum::default();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= end.load(Ordering::Relaxed) {
                        break;
                    }
                    let seed = from.wrapping_add(n);
                    match attempt(&Scenario::of(seed).with(controls)) {
                        Ok(report) => sum.add(&report),
                        Err(failure) => {
                            end.fetch_min(n, Ordering::Relaxed);
                            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                            if found.1.as_ref().is_none_or(|(first, _)| seed < *first) {
                                found.1 = Some((seed, failure));
                            }
                        }
                    }
                }
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.0.merge(&sum);
            });
        }
    });
    let (sum, failure) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(sum), Err)
}

/// All that is to be told of a seed that failed: the guarantee, how to see it
/// again, and the end of its course once it was made small.
#[must_use]
pub fn explain(scenario: &Scenario, failure: &Failure) -> String {
    let Failure {
        violation,
        round,
        at_ms,
    } = failure;
    let shrunk = shrink(scenario, violation);
    let without: Vec<String> = shrunk.without.iter().map(ToString::to_string).collect();
    let option = match without.is_empty() {
        true => String::new(),
        false => format!(" --without {}", without.join(",")),
    };
    let controls = control_names(&scenario.controls);
    let controls: String = controls
        .iter()
        .map(|name| format!(" --control {name}"))
        .collect();
    let lines = match violation.guarantee {
        // The course of a panic can't be told from inside.
        "panic" => Vec::new(),
        _ => trace(&shrunk.scenario).1,
    };
    let from = lines.len().saturating_sub(TRACE_LINES);
    format!(
        "{violation}\n(seed {seed}, round {round}, {at_ms} ms)\n\n\
         cargo run -p risiti-simulation -- replay {seed}{controls}\n\n\
         made small in {} runs: {}\n\
         cargo run -p risiti-simulation -- replay {seed}{option}{controls}\n\n{}\n{}",
        shrunk.runs,
        shrunk.violation,
        shrunk.scenario.story(),
        lines[from..].join("\n"),
        seed = scenario.seed,
    )
}

/// The controls that are on, by name.
fn control_names(controls: &Controls) -> Vec<&'static str> {
    let is_on = |name: &&'static str| control(name).is_some_and(|one| overlap(&one, controls));
    CONTROLS.into_iter().filter(is_on).collect()
}

/// Whether the control that is on in the first is on in the second.
fn overlap(one: &Controls, all: &Controls) -> bool {
    let pairs = [
        (one.puback_before_sync, all.puback_before_sync),
        (one.no_dedup, all.no_dedup),
        (one.position_outside, all.position_outside),
        (one.shuffles, all.shuffles),
        (one.offset_before_row, all.offset_before_row),
        (one.deleted_before_puback, all.deleted_before_puback),
        (one.flash_forgets, all.flash_forgets),
        (one.prints_again, all.prints_again),
        (one.no_resend, all.no_resend),
        (one.no_memory, all.no_memory),
        (one.offsets_outside, all.offsets_outside),
        (one.drops_when_full, all.drops_when_full),
        (one.open_topics, all.open_topics),
        (one.damage_in_silence, all.damage_in_silence),
        (one.takes_unsealed, all.takes_unsealed),
        (one.takes_copies, all.takes_copies),
    ];
    pairs.iter().any(|(one, all)| *one && *all)
}

/// All controls, by name.
pub const CONTROLS: [&str; 16] = [
    "puback-before-sync",
    "no-dedup",
    "position-outside",
    "shuffles",
    "offset-before-row",
    "deleted-before-puback",
    "flash-forgets",
    "prints-again",
    "no-resend",
    "no-memory",
    "offsets-outside",
    "drops-when-full",
    "open-topics",
    "damage-in-silence",
    "takes-unsealed",
    "takes-copies",
];

/// The control of this name.
#[must_use]
pub fn control(name: &str) -> Option<Controls> {
    let mut controls = Controls::default();
    let switch = match name {
        "puback-before-sync" => &mut controls.puback_before_sync,
        "no-dedup" => &mut controls.no_dedup,
        "position-outside" => &mut controls.position_outside,
        "shuffles" => &mut controls.shuffles,
        "offset-before-row" => &mut controls.offset_before_row,
        "deleted-before-puback" => &mut controls.deleted_before_puback,
        "flash-forgets" => &mut controls.flash_forgets,
        "prints-again" => &mut controls.prints_again,
        "no-resend" => &mut controls.no_resend,
        "no-memory" => &mut controls.no_memory,
        "offsets-outside" => &mut controls.offsets_outside,
        "drops-when-full" => &mut controls.drops_when_full,
        "open-topics" => &mut controls.open_topics,
        "damage-in-silence" => &mut controls.damage_in_silence,
        "takes-unsealed" => &mut controls.takes_unsealed,
        "takes-copies" => &mut controls.takes_copies,
        _ => return None,
    };
    *switch = true;
    Some(controls)
}
