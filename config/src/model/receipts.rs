//! `[receipts]`: the way back, from Kafka to the terminals.
//!
//! Promises: every bound has a default here with the reason for it. Never: a
//! bound behind which a receipt is lost: its terminal asks for it again.

use super::DEFAULT_CLUSTER;

/// `[receipts]`: where receipts come from, and how many wait here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipts {
    /// Whether this gateway takes receipts at all.
    pub enabled: bool,
    /// Name of the cluster that has both topics; `default` is `[kafka]`.
    pub cluster: String,
    /// Kafka topic of the receipts of all terminals.
    pub topic: String,
    /// Kafka topic that is told which receipts reached their terminals.
    pub deliveries_topic: String,
    /// Receipts kept for terminals that never were at this gateway.
    pub unknown_receipts_max: u64,
    /// Receipts kept for one terminal.
    pub receipts_per_terminal_max: u32,
}

impl Default for Receipts {
    fn default() -> Self {
        Self {
            enabled: true,
            cluster: DEFAULT_CLUSTER.into(),
            topic: "risiti.receipts".into(),
            deliveries_topic: "risiti.deliveries".into(),
            // Another site's terminals on the same topic: their receipts are
            // some 400 bytes of disk each, 40 MB in all.
            unknown_receipts_max: 100_000,
            // A receipt every four minutes for a month.
            receipts_per_terminal_max: 10_000,
        }
    }
}
