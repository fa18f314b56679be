//! What a forwarder counts; read by the metrics page.
//!
//! Promises: plain numbers, updated without locks. Never: a label or a name of
//! the metrics system.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// One forwarder's counters since the start of the process.
#[derive(Debug, Default)]
pub struct ForwarderMetrics {
    /// Records that stand in Kafka's committed log.
    pub forwarded: AtomicU64,
    /// Their payload bytes.
    pub forwarded_bytes: AtomicU64,
    /// Batches committed.
    pub batches: AtomicU64,
    /// Transactions aborted and tried again.
    pub aborts: AtomicU64,
    /// Times another producer had taken over the transactional id.
    pub fenced: AtomicU64,
    /// Producers made anew after a fatal error.
    pub producers: AtomicU64,
    /// Records that became dead letters.
    pub dead: AtomicU64,
    /// Records of other clusters that were passed over.
    pub skipped: AtomicU64,
    /// Positions that the journal reported as damaged.
    pub damaged: AtomicU64,
    /// Whether the cluster answers now.
    pub connected: AtomicBool,
    /// The next position to forward, as saved in Kafka.
    pub position: AtomicU64,
    /// Durable records of the journal beyond that position.
    pub lag: AtomicU64,
    /// When the last batch was committed, Unix milliseconds; 0 = never.
    pub committed_ms: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl ForwarderMetrics {
    /// The last error in words, until the next commit.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    pub(crate) fn set_last_error(&self, error: Option<String>) {
        *self.last_error.lock() = error;
    }

    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
