//! What settlement counts; read by its metrics page and its log.
//!
//! Promises: plain numbers, updated without locks. Never: a name of the metrics
//! system.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// One instance's counters since its start.
#[derive(Debug, Default)]
pub struct SettlementMetrics {
    /// Records settled as accepted.
    pub accepted: AtomicU64,
    /// Records settled as refused by a rule, or damaged.
    pub refused: AtomicU64,
    /// Resends that got their first receipt again.
    pub repeated: AtomicU64,
    /// Records whose number was settled with other content.
    pub conflicts: AtomicU64,
    /// Records whose number was below the window.
    pub too_old: AtomicU64,
    /// Records whose seal was refused, or that had none.
    pub seals_refused: AtomicU64,
    /// Messages that are no records of this version.
    pub foreign: AtomicU64,
    /// Transactions committed.
    pub transactions: AtomicU64,
    /// Transactions aborted and tried again.
    pub aborts: AtomicU64,
    /// Times the clients were made anew.
    pub restarts: AtomicU64,
    /// Partitions that were read back from the changelog.
    pub rebuilds: AtomicU64,
    /// Records that Kafka deleted before they were settled.
    pub missed: AtomicU64,
    /// Partitions held now.
    pub partitions: AtomicU64,
    /// Terminals remembered now.
    pub terminals: AtomicU64,
    /// Numbers remembered now.
    pub numbers: AtomicU64,
    /// When the last transaction was committed, Unix milliseconds; 0 = never.
    pub committed_ms: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl SettlementMetrics {
    /// The last error in words, until the next commit.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Records settled now or before: everything that got a verdict.
    #[must_use]
    pub fn records(&self) -> u64 {
        [
            &self.accepted,
            &self.refused,
            &self.repeated,
            &self.conflicts,
            &self.too_old,
            &self.seals_refused,
            &self.foreign,
        ]
        .iter()
        .map(|counter| counter.load(Ordering::Relaxed))
        .sum()
    }

    pub(super) fn set_last_error(&self, error: Option<String>) {
        *self.last_error.lock() = error;
    }

    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
