//! The table, and the same as JSON.
//!
//! Promises: ratios beside the figures, each the median over rounds of what the
//! systems did one after the other in the same round. Never: a ratio of figures
//! from different rounds.

use std::fmt::Write;

use serde::Serialize;

use super::machine::Machine;
use super::sample::{Figures, median};
use super::{Cell, limits};

/// What one round gave in one cell.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Round {
    /// Ours.
    pub gateway: Figures,
    /// The broker in memory.
    pub mosquitto: Figures,
    /// The bare loop.
    pub bare: Figures,
    /// Records that waited for Kafka when the gateway's turn was over.
    pub backlog_records: u64,
}

/// A cell of the report.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    pub cell: Cell,
    /// Medians of the rounds.
    pub gateway: Figures,
    /// Medians of the rounds.
    pub mosquitto: Figures,
    /// Medians of the rounds.
    pub bare: Figures,
    /// Gateway's PUBACK/s to mosquitto's: median of the rounds' ratios.
    pub to_mosquitto: f64,
    /// Gateway's PUBACK/s to the bare loop's records/s: the same.
    pub to_bare: f64,
    /// Least and greatest of the rounds' ratios to mosquitto: if they are far
    /// apart, the machine was too busy for the median to mean much.
    pub to_mosquitto_range: [f64; 2],
    /// The same to the bare loop.
    pub to_bare_range: [f64; 2],
    /// The rounds themselves.
    pub rounds: Vec<Round>,
}

impl Row {
    /// Sums rounds up.
    #[must_use]
    pub fn of(cell: Cell, rounds: Vec<Round>) -> Self {
        let figures = |pick: fn(&Round) -> Figures| {
            Figures::medians(&rounds.iter().map(pick).collect::<Vec<_>>())
        };
        let ratios = |to: fn(&Round) -> Figures| -> Vec<f64> {
            let ratios = rounds
                .iter()
                .map(|round| round.gateway.acks_per_s / to(round).acks_per_s);
            ratios.collect()
        };
        let (to_mosquitto, to_bare) = (ratios(|round| round.mosquitto), ratios(|round| round.bare));
        Self {
            cell,
            gateway: figures(|round| round.gateway),
            mosquitto: figures(|round| round.mosquitto),
            bare: figures(|round| round.bare),
            to_mosquitto_range: range(&to_mosquitto),
            to_bare_range: range(&to_bare),
            to_mosquitto: median(to_mosquitto),
            to_bare: median(to_bare),
            rounds,
        }
    }
}

fn range(values: &[f64]) -> [f64; 2] {
    [
        values.iter().copied().fold(f64::INFINITY, f64::min),
        values.iter().copied().fold(0.0, f64::max),
    ]
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The command line.
    pub command: String,
    /// Seed of the payload.
    pub seed: u64,
    /// Payload of each PUBLISH, bytes.
    pub payload_bytes: usize,
    /// Seconds measured in each cell and round, after the warm-up.
    pub seconds: f64,
    /// Seconds of warm-up.
    pub warm_up_s: f64,
    /// What is on the other side of the gateway.
    pub kafka: String,
    /// Where.
    pub machine: Machine,
    /// What came out.
    pub rows: Vec<Row>,
}

impl Report {
    /// What stands above the table.
    #[must_use]
    pub fn heading(&self) -> String {
        let m = &self.machine;
        format!(
            "PUBLISH to PUBACK, QoS 1, {} B, no subscribers; {} s a cell after {} s of warm-up\n\
             gateway:   risiti {}, commit {}, release build; PUBACK after fdatasync; {}\n\
             mosquitto: {}, in memory, nothing durable\n\
             bare:      the same records through one thread that writes and calls fdatasync, no network\n\
             machine:   {} x {}, {} MiB, Linux {}, {}; load before {}\n\
             command:   {}   seed {}\n",
            self.payload_bytes,
            self.seconds,
            self.warm_up_s,
            m.gateway,
            m.commit,
            self.kafka,
            m.mosquitto,
            m.processors,
            m.processor,
            m.memory_bytes >> 20,
            m.kernel,
            m.file_system,
            m.load,
            self.command,
            self.seed
        )
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from(
            "clients window |  gateway/mosquitto (range)       gateway/bare (range) | gateway: PUBACK/s  p50 ms  p99 ms  cpu µs | mosquitto: PUBACK/s  p50 ms  p99 ms  cpu µs | bare: records/s  p50 ms  p99 ms\n",
        );
        for row in &self.rows {
            let cpu = |figures: &Figures| {
                figures
                    .cpu_us_per_ack
                    .map_or("-".to_owned(), |cpu| format!("{cpu:.1}"))
            };
            let (g, m, b) = (&row.gateway, &row.mosquitto, &row.bare);
            // Writing to a String can't fail.
            let _ = writeln!(
                text,
                "{:7} {:6} | {:8.2} ({:5.2} to {:5.2}) {:8.2} ({:5.2} to {:5.2}) | {:17.0} {:7.2} {:7.2} {:>7} | {:19.0} {:7.2} {:7.2} {:>7} | {:15.0} {:7.2} {:7.2}{}",
                row.cell.clients,
                row.cell.window,
                row.to_mosquitto,
                row.to_mosquitto_range[0],
                row.to_mosquitto_range[1],
                row.to_bare,
                row.to_bare_range[0],
                row.to_bare_range[1],
                g.acks_per_s,
                g.p50_ms,
                g.p99_ms,
                cpu(g),
                m.acks_per_s,
                m.p50_ms,
                m.p99_ms,
                cpu(m),
                b.acks_per_s,
                b.p50_ms,
                b.p99_ms,
                if row.generator_was_busy() { "  *" } else { "" }
            );
        }
        if self.rows.iter().any(Row::generator_was_busy) {
            text.push_str(
                "* the load generator was busy nearly all the time: it may be the limit\n",
            );
        }
        text
    }
}

impl Row {
    fn generator_was_busy(&self) -> bool {
        [&self.gateway, &self.mosquitto]
            .iter()
            .any(|figures| figures.generator_busy > limits::GENERATOR_BUSY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_one_round() {
        let round = |gateway, mosquitto| Round {
            gateway: Figures {
                acks_per_s: gateway,
                ..Figures::default()
            },
            mosquitto: Figures {
                acks_per_s: mosquitto,
                ..Figures::default()
            },
            bare: Figures {
                acks_per_s: 100.0,
                ..Figures::default()
            },
            backlog_records: 0,
        };
        // The machine was ten times slower in the last round, for both.
        let rounds = vec![round(50.0, 100.0), round(60.0, 100.0), round(5.0, 10.0)];
        let cell = Cell {
            clients: 1,
            window: 1,
        };
        let row = Row::of(cell, rounds);
        assert_eq!((row.to_mosquitto, row.to_bare), (0.5, 0.5));
        assert_eq!(row.to_mosquitto_range, [0.5, 0.6]);
        assert_eq!(row.gateway.acks_per_s, 50.0);
    }
}
