//! What a soak came to.
//!
//! Promises: flat and clean, or each reason why not in words; the same as
//! `verdict.json`. Never: a verdict over fewer cycles than bear one.

use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use super::books::Books;
use super::crowds::CrowdCounts;
use super::judge::{Finding, Quantity, Series};
use super::process::Log;
use super::sampler::Point;
use super::{Plan, limits};
use crate::bench::machine::Machine;

/// The most that there was of what comes and goes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Peaks {
    /// Records that were not in Kafka yet, of both gateways.
    pub backlog: u64,
    /// Receipts that waited at one gateway.
    pub waiting: u64,
}

/// The most that one process took.
#[derive(Debug, Clone, Serialize)]
pub struct Most {
    /// The process.
    pub process: String,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// File descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Allocated bytes of its data.
    pub disk_bytes: u64,
    /// Connections.
    pub connections: u64,
}

/// What a log came to.
#[derive(Debug, Clone, Serialize)]
pub struct LogSeen {
    /// Whose.
    pub process: String,
    /// Bytes.
    pub bytes: u64,
    /// Times that it turned over.
    pub turns: u64,
    /// Lines that tell of a panic.
    pub panics: u64,
    /// Lines at the level of an error. They may be right: Kafka was away.
    pub errors: u64,
}

/// See the head of the file.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether nothing grows.
    pub flat: bool,
    /// Whether nothing went wrong otherwise.
    pub clean: bool,
    /// Everything that is wrong, in words.
    pub wrong: Vec<String>,
    /// Exactly how it was run.
    pub command: String,
    /// On what.
    pub machine: Machine,
    /// Of all choices.
    pub seed: u64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Cycles.
    pub cycles: usize,
    /// Of them, not judged.
    pub warm_up: usize,
    /// Whether Kafka was a real one.
    pub real_kafka: bool,
    /// Payments made.
    pub payments: u64,
    /// Of them, settled once and printed once.
    pub printed: u64,
    /// Records in Kafka.
    pub records: u64,
    /// Of them, sent again end to end.
    pub resent: u64,
    /// Receipts that came again and were recognised.
    pub repeated: u64,
    /// Receipts delivered by both gateways to a terminal that moved.
    pub crossed: u64,
    /// Records that came by both gateways, from terminals that moved.
    pub moved: u64,
    /// Messages of plain clients acknowledged, and in Kafka.
    pub plain: [u64; 2],
    /// Visits that got what they came for.
    pub visits: u64,
    /// Those that did not.
    pub visits_failed: u64,
    /// Hostile connections.
    pub hostile: u64,
    /// The most that came and went.
    pub peaks: Peaks,
    /// The most that each process took.
    pub most: Vec<Most>,
    /// Logs.
    pub logs: Vec<LogSeen>,
    /// What became of each series.
    pub findings: Vec<Finding>,
    /// What was measured at the end of each cycle.
    pub marks: Vec<Series>,
}

impl Report {
    #[allow(clippy::too_many_arguments)] // it is where everything comes together
    pub(super) fn new(
        plan: &Plan,
        cycles: usize,
        lasted: Duration,
        warm_up: usize,
        marks: Vec<Series>,
        findings: Option<Vec<Finding>>,
        books: &Books,
        counts: &CrowdCounts,
        peaks: Peaks,
        most: &[(String, Point)],
        logs: &[(&str, &Log)],
        faults: Vec<String>,
    ) -> Self {
        let mut wrong = faults;
        wrong.extend(books.faults.iter().cloned());
        let failed = counts.failed.load(Relaxed);
        if failed > 0 {
            let last = counts.last_failure.lock();
            let last = last.unwrap_or_else(PoisonError::into_inner).clone();
            let last = last.unwrap_or_default();
            wrong.push(format!(
                "{failed} visitors did not get what they came for; the last: {last}"
            ));
        }
        let acknowledged = counts.acknowledged.load(Relaxed);
        if books.raw < acknowledged {
            let lost = acknowledged - books.raw;
            wrong.push(format!("{lost} messages of plain clients are not in Kafka"));
        }
        for (process, log) in logs {
            let panics = log.panics.load(Relaxed);
            if panics > 0 {
                wrong.push(format!(
                    "{process} panicked {panics} times: {:#?}",
                    log.worst()
                ));
            }
        }
        for (process, point) in most {
            let most = match process.as_str() {
                "settlement" => limits::SETTLEMENT_RESIDENT_BYTES_MAX,
                name if name.starts_with("gateway") => limits::GATEWAY_RESIDENT_BYTES_MAX,
                _ => u64::MAX,
            };
            let resident = point.usage.resident_bytes;
            if resident > most {
                wrong.push(format!(
                    "{process} took {} MiB, {} are allowed",
                    resident >> 20,
                    most >> 20
                ));
            }
        }
        let clean = wrong.is_empty();
        let flat = match &findings {
            Some(findings) => {
                let growing = findings.iter().filter(|finding| finding.grows);
                wrong.extend(growing.clone().map(ToString::to_string));
                growing.count() == 0
            }
            None => {
                wrong.push(format!("{cycles} cycles bear no verdict"));
                false
            }
        };
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        Self {
            flat,
            clean,
            wrong,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::look(&plan.dir, "-"),
            seed: plan.seed,
            seconds: lasted.as_secs_f64(),
            cycles,
            warm_up,
            real_kafka: !plan.embedded,
            payments: books.payments,
            printed: books.printed,
            records: books.records,
            resent: books.resent,
            repeated: books.repeated,
            crossed: books.crossed,
            moved: books.moved,
            plain: [acknowledged, books.raw],
            visits: count(&counts.visits),
            visits_failed: failed,
            hostile: count(&counts.hostile),
            peaks,
            most: most
                .iter()
                .map(|(process, point)| Most {
                    process: process.clone(),
                    resident_bytes: point.usage.resident_bytes,
                    descriptors: point.usage.descriptors,
                    threads: point.usage.threads,
                    disk_bytes: point.usage.disk_bytes,
                    connections: point.connections,
                })
                .collect(),
            logs: logs
                .iter()
                .map(|(process, log)| LogSeen {
                    process: (*process).to_owned(),
                    bytes: count(&log.bytes),
                    turns: count(&log.turns),
                    panics: count(&log.panics),
                    errors: count(&log.errors),
                })
                .collect(),
            findings: findings.unwrap_or_default(),
            marks,
        }
    }

    /// Whether it is both flat and clean.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.flat && self.clean
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![format!(
            "{} cycles in {:.0} s: {} payments, {} printed; {} messages of plain clients, {} visits, {} hostile ones; at most {} records waited for Kafka and {} receipts for a terminal",
            self.cycles,
            self.seconds,
            self.payments,
            self.printed,
            self.plain[0],
            self.visits,
            self.hostile,
            self.peaks.backlog,
            self.peaks.waiting
        )];
        lines.extend(self.findings.iter().map(ToString::to_string));
        lines.push(match (self.flat, self.clean) {
            (true, true) => "Flat and clean.".into(),
            (false, true) => "Clean, but NOT FLAT:".into(),
            (true, false) => "Flat, but NOT CLEAN:".into(),
            (false, false) => "NEITHER FLAT NOR CLEAN:".into(),
        });
        lines.extend(self.wrong.iter().map(|wrong| format!("  {wrong}")));
        lines.join("\n")
    }

    /// The line for those who collect such lines.
    #[must_use]
    pub fn proof(&self) -> String {
        let memory = |process: &str, pick: fn(&[f64]) -> Option<&f64>| {
            let series = self.marks.iter().find(|series| {
                series.process == process && series.quantity == Quantity::MemoryBytes
            });
            let value = series.and_then(|series| pick(series.values.get(self.warm_up..)?));
            (value.copied().unwrap_or(0.0) / f64::from(1 << 20) * 100.0).round() / 100.0
        };
        let most = |process: &str| {
            let most = self.most.iter().find(|most| most.process == process);
            most.map_or(0, |most| most.resident_bytes >> 20)
        };
        let line = serde_json::json!({
            "what": "soak",
            "guarantees": "G2 G4 G5 G8 G9",
            "runs": self.cycles,
            "failures": self.wrong.len(),
            "seed": self.seed,
            "seconds": self.seconds.round(),
            "extra": {
                "hours": (self.seconds / 36.0).round() / 100.0,
                "payments": self.payments,
                "plain_messages": self.plain[0],
                "visits": self.visits,
                "hostile": self.hostile,
                "backlog_max": self.peaks.backlog,
                "receipts_waiting_max": self.peaks.waiting,
                "rss_mib_first": memory("gateway-1", <[f64]>::first),
                "rss_mib_last": memory("gateway-1", <[f64]>::last),
                "rss_mib_max": most("gateway-1"),
                "settlement_rss_mib_first": memory("settlement", <[f64]>::first),
                "settlement_rss_mib_last": memory("settlement", <[f64]>::last),
            },
        });
        format!("PROOF {line}")
    }

    pub(super) fn leave(&self, dir: &Path) -> io::Result<()> {
        let json = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        std::fs::write(dir.join("verdict.json"), json + "\n")
    }
}
