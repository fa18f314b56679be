//! What the receipts' way counts; read by the metrics page.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct ReceiptsMetrics {
    /// Receipts stored.
    pub stored: AtomicU64,
    /// Delivery events that are in the journal.
    pub delivered: AtomicU64,
    /// Receipts that expired before they were delivered.
    pub expired: AtomicU64,
    /// Receipts not kept: too many wait for terminals that never were here.
    pub unknown: AtomicU64,
    /// Receipts not kept: too many wait for their terminal.
    pub terminal_full: AtomicU64,
    /// Messages that are no receipts.
    pub dead: AtomicU64,
    /// Receipts dropped because another gateway delivered them.
    pub delivered_elsewhere: AtomicU64,
    /// Offsets that were gone from Kafka before they were read.
    pub gone: AtomicU64,
    /// PUBACKs not taken because too many waited for the disk; their receipts are
    /// sent again.
    pub acknowledgements_refused: AtomicU64,
    /// Whether the cluster answers now.
    pub connected: AtomicBool,
}

impl ReceiptsMetrics {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
