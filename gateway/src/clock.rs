//! The time, passed in so that tests can set it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch; may jump.
    fn unix_ms(&self) -> u64;
    /// Milliseconds that never go back, for timeouts.
    fn monotonic_ms(&self) -> u64;
    /// Unix milliseconds as they stood at the start, moved on by the monotonic
    /// clock: what lasts for days is measured by it, because a box without a
    /// battery wakes in 1970 and jumps to today once it hears a time server.
    fn steady_ms(&self) -> u64;
}

/// The operating system's.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    start_unix_ms: u64,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            start_unix_ms: unix_ms(),
        }
    }
}

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        unix_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn steady_ms(&self) -> u64 {
        self.start_unix_ms + self.monotonic_ms()
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// One that a test sets.
#[derive(Debug, Default)]
pub struct ManualClock {
    ms: AtomicU64,
    jumped_ms: AtomicU64,
}

impl ManualClock {
    /// Begins at this time.
    pub fn at(unix_ms: u64) -> Self {
        Self {
            ms: AtomicU64::new(unix_ms),
            jumped_ms: AtomicU64::new(0),
        }
    }

    /// Moves on.
    pub fn advance_ms(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::AcqRel);
    }

    /// Sets the wall clock forward, as a time server does; no time passes.
    pub fn jump_ms(&self, ms: u64) {
        self.jumped_ms.fetch_add(ms, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        self.ms.load(Ordering::Acquire) + self.jumped_ms.load(Ordering::Acquire)
    }

    fn steady_ms(&self) -> u64 {
        self.ms.load(Ordering::Acquire)
    }

    fn monotonic_ms(&self) -> u64 {
        self.ms.load(Ordering::Acquire)
    }
}
