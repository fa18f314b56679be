//! One measurement, and what several of one cell come to.

use std::time::Duration;

use serde::Serialize;

/// What one system did in one cell of one round.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Acknowledged while it was measured.
    pub acks: u64,
    /// All that was published and acknowledged, warm-up and end included.
    pub published: u64,
    /// How long it was measured.
    pub elapsed: Duration,
    /// From the write of a PUBLISH to the read of its PUBACK, in units of 100 ns.
    pub latencies: Vec<u32>,
    /// Processor time of the load generator.
    pub generator_cpu: Duration,
    /// Processor time of the system that was measured, if it is a process.
    pub server_cpu: Option<Duration>,
}

/// A latency in the unit of [`Sample::latencies`].
#[must_use]
pub fn latency_units(latency: Duration) -> u32 {
    u32::try_from(latency.as_nanos() / 100).unwrap_or(u32::MAX)
}

/// The figures of a sample, or the medians of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Acknowledgements a second.
    pub acks_per_s: f64,
    /// Half of the latencies are at most this, milliseconds.
    pub p50_ms: f64,
    /// 99 % of the latencies are at most this, milliseconds.
    pub p99_ms: f64,
    /// Processor time of the system for one acknowledgement, microseconds.
    pub cpu_us_per_ack: Option<f64>,
    /// Share of the time in which the load generator was busy.
    pub generator_busy: f64,
}

impl Figures {
    /// The figures of one sample; it takes the latencies in any order.
    #[must_use]
    pub fn of(mut sample: Sample) -> Self {
        let seconds = sample.elapsed.as_secs_f64();
        let acks = sample.acks.max(1) as f64;
        Self {
            acks_per_s: sample.acks as f64 / seconds,
            p50_ms: quantile_ms(&mut sample.latencies, 0.50),
            p99_ms: quantile_ms(&mut sample.latencies, 0.99),
            cpu_us_per_ack: sample.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / acks),
            generator_busy: sample.generator_cpu.as_secs_f64() / seconds,
        }
    }

    /// The median of each figure.
    #[must_use]
    pub fn medians(rounds: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> f64| median(rounds.iter().map(pick).collect());
        let cpu: Vec<f64> = rounds.iter().filter_map(|r| r.cpu_us_per_ack).collect();
        Self {
            acks_per_s: of(|r| r.acks_per_s),
            p50_ms: of(|r| r.p50_ms),
            p99_ms: of(|r| r.p99_ms),
            cpu_us_per_ack: (!cpu.is_empty()).then(|| median(cpu)),
            generator_busy: of(|r| r.generator_busy),
        }
    }
}

fn quantile_ms(latencies: &mut [u32], quantile: f64) -> f64 {
    if latencies.is_empty() {
        return f64::NAN;
    }
    let at = ((latencies.len() - 1) as f64 * quantile).round() as usize;
    f64::from(*latencies.select_nth_unstable(at).1) / 10_000.0
}

/// The middle value, or the mean of the two in the middle; NaN of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.len(), values.get(half)) {
        (_, None) => f64::NAN,
        (length, Some(upper)) if length % 2 == 1 => *upper,
        (_, Some(upper)) => (values[half - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rate_quantiles_and_cost() {
        let figures = Figures::of(Sample {
            acks: 1_000,
            published: 1_500,
            elapsed: Duration::from_secs(2),
            latencies: (0..=100).rev().map(|ms| ms * 10_000).collect(),
            generator_cpu: Duration::from_secs(1),
            server_cpu: Some(Duration::from_millis(10)),
        });
        assert_eq!(figures.acks_per_s, 500.0);
        assert_eq!((figures.p50_ms, figures.p99_ms), (50.0, 99.0));
        assert_eq!(figures.cpu_us_per_ack, Some(10.0));
        assert_eq!(figures.generator_busy, 0.5);
    }

    #[test]
    fn one_wild_round_does_not_move_the_median() {
        assert_eq!(median(vec![3.0, 1_000.0, 1.0]), 3.0);
        assert_eq!(median(vec![4.0, 2.0]), 3.0);
        assert!(median(Vec::new()).is_nan());
    }
}
