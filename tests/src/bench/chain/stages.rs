//! Where the time goes inside, as the gateway's own recorder tells it.
//!
//! Promises: the steps of a sample of the measured payments, each from the step
//! before it. Milliseconds, as the recorder has them.

use std::collections::BTreeMap;
use std::io;

use risiti_gateway::trace::PaymentTrace;
use serde::Serialize;

/// The steps of a payment, in their order.
const STEPS: [&str; 7] = [
    "published",
    "on_disk",
    "in_kafka",
    "settled",
    "receipt_stored",
    "sent",
    "acknowledged",
];

/// Payments asked for: enough for a 99th percentile.
pub const SAMPLE: usize = 1_000;

/// From one step to the next.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// The step it ends with.
    pub step: String,
    /// Half take at most this, milliseconds.
    pub p50_ms: u64,
    /// 99 % take at most this, milliseconds.
    pub p99_ms: u64,
}

/// Asks `ask` for the traces of payments and sums their steps up.
///
/// # Errors
/// The gateway does not answer.
pub fn stages(
    payments: &[(String, u64)],
    mut ask: impl FnMut(&str, u64) -> io::Result<PaymentTrace>,
) -> io::Result<Vec<Stage>> {
    let mut durations: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for (terminal, sequence) in payments {
        let told = ask(terminal, *sequence)?;
        let at = |step: &str| told.steps.iter().find(|s| s.step == step).map(|s| s.at_ms);
        for (index, pair) in STEPS.windows(2).enumerate() {
            if let (Some(before), Some(after)) = (at(pair[0]), at(pair[1])) {
                let passed = after.saturating_sub(before);
                durations.entry(index).or_default().push(passed);
            }
        }
    }
    let stages = durations.into_iter().map(|(index, mut passed)| {
        passed.sort_unstable();
        let quantile = |q: f64| passed[((passed.len() - 1) as f64 * q).round() as usize];
        Stage {
            step: STEPS[index + 1].replace('_', " "),
            p50_ms: quantile(0.50),
            p99_ms: quantile(0.99),
        }
    });
    Ok(stages.collect())
}
