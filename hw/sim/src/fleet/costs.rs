//! What terminals cost on the air, as a table.
//!
//! Promises: radio by the modem, bytes by the gateway; nothing that a terminal
//! says of itself. Never: a mean without its spread.

use std::fmt;

use risiti_terminal::energy::Radio;

use crate::village::Traffic;

/// What one terminal has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// With the modem powered, seconds.
    pub radio_s: f64,
    /// Taken by the modem, joules.
    pub energy_j: f64,
    /// MQTT to the gateway, bytes.
    pub up_bytes: f64,
    /// MQTT from the gateway, bytes.
    pub down_bytes: f64,
    /// Connections.
    pub connections: f64,
}

impl Cost {
    /// Of a radio and what has passed through it.
    #[must_use]
    pub fn new(radio: &Radio, traffic: &Traffic) -> Self {
        Self {
            radio_s: radio.on_ms as f64 / 1e3,
            energy_j: radio.energy_mj as f64 / 1e3,
            up_bytes: traffic.up_bytes as f64,
            down_bytes: traffic.down_bytes as f64,
            connections: traffic.connections as f64,
        }
    }

    fn columns(&self) -> [f64; 5] {
        [
            self.radio_s,
            self.energy_j,
            self.up_bytes,
            self.down_bytes,
            self.connections,
        ]
    }
}

/// What many terminals have cost, a day.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Costs {
    /// One each.
    pub terminals: Vec<Cost>,
    /// In so many days.
    pub days: f64,
}

impl Costs {
    /// Mean, median and 99th percentile of each column, a day.
    #[must_use]
    pub fn table(&self) -> [(&'static str, [f64; 3]); 5] {
        let names = ["radio, s", "modem, J", "up, B", "down, B", "connections"];
        let count = self.terminals.len();
        let columns = [0, 1, 2, 3, 4].map(|column| {
            let a_day = |cost: &Cost| cost.columns()[column] / self.days;
            let mut all: Vec<f64> = self.terminals.iter().map(a_day).collect();
            all.sort_by(f64::total_cmp);
            let at = |percent: usize| {
                let rank = (count * percent).div_ceil(100).max(1);
                all.get(rank - 1).copied().unwrap_or_default()
            };
            let mean = all.iter().sum::<f64>() / count.max(1) as f64;
            [mean, at(50), at(99)]
        });
        let mut columns = columns.into_iter();
        names.map(|name| (name, columns.next().unwrap_or_default()))
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| a terminal and day ({} terminals, {} days) | mean | p50 | p99 |",
            self.terminals.len(),
            self.days
        )?;
        write!(f, "| --- | ---: | ---: | ---: |")?;
        for (name, [mean, p50, p99]) in self.table() {
            write!(f, "\n| {name} | {mean:.1} | {p50:.1} | {p99:.1} |")?;
        }
        Ok(())
    }
}
