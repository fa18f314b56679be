//! The chain's table, and the same as JSON.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::stages::Stage;
use super::{Notebook, Plan, Times};
use crate::bench::machine::Machine;

/// The aim for the whole chain, milliseconds at the 99th percentile.
pub const AIM_P99_MS: f64 = 120.0;

/// A part of the way.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Which.
    pub name: &'static str,
    /// Payments that it is known of.
    pub count: usize,
    /// Percentiles, milliseconds.
    pub p50_ms: f64,
    #[allow(missing_docs)]
    pub p90_ms: f64,
    #[allow(missing_docs)]
    pub p99_ms: f64,
    #[allow(missing_docs)]
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// One run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How it was called.
    pub command: String,
    /// Seed of the schedule.
    pub seed: u64,
    /// Where.
    pub machine: Machine,
    /// Terminals connected.
    pub terminals: usize,
    /// Payments a second that were due.
    pub per_second: f64,
    /// Partitions of each Kafka topic.
    pub partitions: u32,
    /// Seconds measured, after so many of warm-up.
    pub seconds: f64,
    /// Seconds before that.
    pub warm_up_s: f64,
    /// Payments of the measured time.
    pub payments: usize,
    /// Of all payments, those without a receipt at the end.
    pub missing: usize,
    /// Of all payments, those with more than one.
    pub twice: usize,
    /// The way from outside.
    pub parts: Vec<Part>,
    /// The way from inside.
    pub stages: Vec<Stage>,
    /// Processor time of the gateway, of settlement and of the generator for a
    /// payment, microseconds; Kafka's is not among them.
    pub cpu_us: [f64; 3],
}

/// The parts of the way, from what was noted.
#[must_use]
pub fn parts(notebook: &Notebook, plan: &Plan) -> Vec<Part> {
    type Pick = fn(&Times) -> &AtomicU64;
    let parts: [(&str, Pick, Pick); 6] = [
        ("PUBLISH -> PUBACK", |t| &t.due, |t| &t.acknowledged),
        ("PUBLISH -> record visible", |t| &t.due, |t| &t.visible),
        ("record visible -> settled", |t| &t.visible, |t| &t.settled),
        (
            "settled -> receipt visible",
            |t| &t.settled,
            |t| &t.receipt_visible,
        ),
        (
            "settled -> at the terminal",
            |t| &t.settled,
            |t| &t.received,
        ),
        ("PUBLISH -> at the terminal", |t| &t.due, |t| &t.received),
    ];
    parts
        .into_iter()
        .map(|(name, from, to)| {
            let passed = notebook.measured(plan).filter_map(|(_, _, times)| {
                let from = from(times).load(Ordering::Relaxed);
                let to = to(times).load(Ordering::Relaxed);
                // The clock of a timestamp counts milliseconds only.
                (from > 0 && to > 0).then(|| to.saturating_sub(from) as f64 / 1e6)
            });
            Part::of(name, passed.collect())
        })
        .collect()
}

impl Part {
    fn of(name: &'static str, mut passed: Vec<f64>) -> Self {
        passed.sort_by(f64::total_cmp);
        let quantile = |q: f64| {
            let last = passed.len().saturating_sub(1) as f64;
            passed
                .get((last * q).round() as usize)
                .copied()
                .unwrap_or(f64::NAN)
        };
        Self {
            name,
            count: passed.len(),
            p50_ms: quantile(0.50),
            p90_ms: quantile(0.90),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: quantile(1.0),
        }
    }
}

impl Report {
    /// Everything, for people.
    ///
    /// # Errors
    /// Never: writing text into memory.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let machine = &self.machine;
        writeln!(
            out,
            "Chain latency: {} payments a second of {} terminals for {} s (after {} s), loopback, Apache Kafka in exactly_once mode, {} partitions a topic",
            self.per_second, self.terminals, self.seconds, self.warm_up_s, self.partitions
        )?;
        writeln!(
            out,
            "{}, {} processors, Linux {}, load {}, {}, commit {}, seed {}",
            machine.processor,
            machine.processors,
            machine.kernel,
            machine.load,
            machine.file_system,
            machine.commit,
            self.seed
        )?;
        writeln!(
            out,
            "{} payments measured; {} without receipt, {} with more than one; processor time of a payment: gateway {:.0} µs, settlement {:.0} µs, load generator {:.0} µs\n",
            self.payments, self.missing, self.twice, self.cpu_us[0], self.cpu_us[1], self.cpu_us[2]
        )?;
        writeln!(
            out,
            "{:<28} {:>8} {:>8} {:>8} {:>8} {:>8}  ms",
            "from outside", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for part in &self.parts {
            writeln!(
                out,
                "{:<28} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
                part.name, part.p50_ms, part.p90_ms, part.p99_ms, part.p999_ms, part.max_ms
            )?;
        }
        writeln!(
            out,
            "\n{:<28} {:>8} {:>8} {:>8}          ms",
            "from inside, step by step", "p50", "", "p99"
        )?;
        for stage in &self.stages {
            writeln!(
                out,
                "-> {:<25} {:>8} {:>8} {:>8}",
                stage.step, stage.p50_ms, "", stage.p99_ms
            )?;
        }
        if let Some(chain) = self.parts.last() {
            let verdict = if chain.p99_ms <= AIM_P99_MS {
                "reached"
            } else {
                "missed"
            };
            writeln!(
                out,
                "\nAim for the whole chain: p99 at most {AIM_P99_MS} ms: {verdict}"
            )?;
        }
        Ok(out)
    }
}
