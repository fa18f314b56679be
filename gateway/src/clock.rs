//! The time, passed in so that tests can set it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch; may jump.
    fn unix_ms(&self) -> u64;
    /// Milliseconds that never go back, for timeouts.
    fn monotonic_ms(&self) -> u64;
}

/// The operating system's.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as u64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

/// One that a test sets.
#[derive(Debug, Default)]
pub struct ManualClock {
    ms: AtomicU64,
}

impl ManualClock {
    /// Begins at this time.
    pub fn at(unix_ms: u64) -> Self {
        Self {
            ms: AtomicU64::new(unix_ms),
        }
    }

    /// Moves on.
    pub fn advance_ms(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        self.ms.load(Ordering::Acquire)
    }

    fn monotonic_ms(&self) -> u64 {
        self.ms.load(Ordering::Acquire)
    }
}
