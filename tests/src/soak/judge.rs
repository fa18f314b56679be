//! The verdict over what was measured at the same moment of every cycle.
//!
//! Promises: what grows steadily by more than it may is convicted, by name and with
//! its figures; what only jitters is not. Never: a verdict over fewer marks than can
//! bear one.
//!
//! A quantity grows if the lower 95 % limit of its slope (see `trend.rs`) is
//! above what is allowed to a cycle. What is allowed is a part of its level, or an
//! absolute amount, whichever is more.

use std::fmt;

use serde::Serialize;

use super::limits;
use super::trend::{median, trend};

/// What is measured of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Its anonymous resident memory, bytes: what only it holds.
    MemoryBytes,
    /// Its open file descriptors.
    Descriptors,
    /// Its threads.
    Threads,
    /// Allocated bytes of its data directory.
    DiskBytes,
    /// Sessions that it holds, by its own count.
    Sessions,
    /// Retained messages that it holds.
    Retained,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::MemoryBytes,
        Self::Descriptors,
        Self::Threads,
        Self::DiskBytes,
        Self::Sessions,
        Self::Retained,
    ];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryBytes => "memory",
            Self::Descriptors => "descriptors",
            Self::Threads => "threads",
            Self::DiskBytes => "disk",
            Self::Sessions => "sessions",
            Self::Retained => "retained messages",
        }
    }

    /// A value as people read it.
    #[must_use]
    pub fn told(self, value: f64) -> String {
        match self {
            Self::MemoryBytes | Self::DiskBytes => {
                format!("{:.2} MiB", value / f64::from(1 << 20))
            }
            _ => format!("{value:.1}"),
        }
    }
}

/// Growth that is allowed to one cycle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowed {
    /// As a part of the level.
    pub part_of_level: f64,
    /// At least so much.
    pub at_least: f64,
}

impl Allowed {
    fn at(self, level: f64) -> f64 {
        (self.part_of_level * level).max(self.at_least)
    }
}

/// What is allowed of each quantity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strictness {
    /// Memory, bytes.
    pub memory: Allowed,
    /// File descriptors.
    pub descriptors: Allowed,
    /// Threads.
    pub threads: Allowed,
    /// Disk, bytes.
    pub disk: Allowed,
    /// Things held, by number.
    pub held: Allowed,
}

impl Strictness {
    fn of(&self, quantity: Quantity) -> Allowed {
        match quantity {
            Quantity::MemoryBytes => self.memory,
            Quantity::Descriptors => self.descriptors,
            Quantity::Threads => self.threads,
            Quantity::DiskBytes => self.disk,
            Quantity::Sessions | Quantity::Retained => self.held,
        }
    }
}

/// One quantity of one process, a value a cycle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// The process.
    pub process: String,
    /// What of it.
    pub quantity: Quantity,
    /// At the mark of each cycle.
    pub values: Vec<f64>,
}

/// What became of one series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The process.
    pub process: String,
    /// What of it.
    pub quantity: Quantity,
    /// The first value after the warm-up.
    pub first: f64,
    /// The last one.
    pub last: f64,
    /// The slope, by cycle.
    pub slope: f64,
    /// Its lower limit at 95 %.
    pub slope_min: f64,
    /// What it may be.
    pub allowed: f64,
    /// Whether it grows.
    pub grows: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |value| self.quantity.told(value);
        write!(
            f,
            "{}: {} {} from {} to {}, {} a cycle (at least {} at 95 %; allowed {})",
            self.process,
            self.quantity.name(),
            if self.grows { "GROWS" } else { "is flat" },
            told(self.first),
            told(self.last),
            told(self.slope),
            told(self.slope_min),
            told(self.allowed)
        )
    }
}

/// Judges every series after its first `warm_up` values; none: there are too few
/// values for a verdict.
#[must_use]
pub fn judge(series: &[Series], warm_up: usize, strictness: &Strictness) -> Option<Vec<Finding>> {
    series
        .iter()
        .map(|one| finding(one, warm_up, strictness))
        .collect()
}

fn finding(series: &Series, warm_up: usize, strictness: &Strictness) -> Option<Finding> {
    let values = series.values.get(warm_up..).unwrap_or_default();
    if values.len() < limits::MARKS_MIN {
        return None;
    }
    let trend = trend(values)?;
    let level = median(values)?;
    let allowed = strictness.of(series.quantity).at(level);
    Some(Finding {
        process: series.process.clone(),
        quantity: series.quantity,
        first: *values.first()?,
        last: *values.last()?,
        slope: trend.slope,
        slope_min: trend.slope_min,
        allowed,
        grows: trend.slope_min > allowed,
    })
}

/// How many of so many cycles are warm-up.
#[must_use]
pub fn warm_up(cycles: usize) -> usize {
    (cycles / limits::WARM_UP_PART).max(limits::WARM_UP_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(quantity: Quantity, values: impl IntoIterator<Item = f64>) -> Series {
        Series {
            process: "gateway".into(),
            quantity,
            values: values.into_iter().collect(),
        }
    }

    fn grows(series: Series) -> bool {
        let warm_up = warm_up(series.values.len());
        judge(&[series], warm_up, &limits::STRICT).unwrap()[0].grows
    }

    /// Between -1 and 1.
    fn noise(seed: u64) -> impl FnMut() -> f64 {
        let mut chance = fastrand::Rng::with_seed(seed);
        move || chance.f64() * 2.0 - 1.0
    }

    #[test]
    fn a_leak_of_one_percent_a_cycle_is_convicted_under_noise_of_three() {
        for seed in 0..50 {
            let mut noise = noise(seed);
            let leak = (0..20).map(|n| 60e6 * (1.0 + 0.01 * f64::from(n) + 0.03 * noise()));
            assert!(grows(series(Quantity::MemoryBytes, leak)), "seed {seed}");
        }
    }

    #[test]
    fn flat_noise_is_not() {
        let mut convicted = 0;
        for seed in 0..200 {
            let mut noise = noise(seed);
            let flat = (0..20).map(|_| 60e6 * (1.0 + 0.03 * noise()));
            convicted += u32::from(grows(series(Quantity::MemoryBytes, flat)));
        }
        assert!(convicted <= 4, "{convicted} of 200");
    }

    #[test]
    fn a_warm_up_that_comes_to_rest_is_not() {
        let filling = (0..30).map(|n| 60e6 - 40e6 * 0.5_f64.powi(n));
        assert!(!grows(series(Quantity::MemoryBytes, filling)));
    }

    #[test]
    fn a_saw_of_files_that_fill_and_go_is_not() {
        let saw = (0..40).map(|n| f64::from(20 << 20) + f64::from((n * 5) % 32) * 1e6);
        assert!(!grows(series(Quantity::DiskBytes, saw)));
    }

    #[test]
    fn one_descriptor_a_cycle_is_convicted_and_one_in_ten_cycles_is_within_noise() {
        let leak = (0..12).map(|n| f64::from(200 + n));
        assert!(grows(series(Quantity::Descriptors, leak)));
        let flat = (0..12).map(|n| f64::from(200 + n % 3));
        assert!(!grows(series(Quantity::Descriptors, flat)));
    }

    #[test]
    fn what_shrinks_does_not_grow() {
        let shrinking = (0..12).map(|n| 60e6 - 1e6 * f64::from(n));
        assert!(!grows(series(Quantity::MemoryBytes, shrinking)));
    }

    #[test]
    fn three_marks_bear_no_verdict() {
        let few = series(Quantity::Threads, [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(judge(&[few], 2, &limits::STRICT), None);
    }
}
