//! Simulated time: tokio's, as it is or faster.
//!
//! Promises: all that share one clock see one time. Never: a tick; who waits
//! sleeps until the moment itself. Under tokio's paused clock it costs nothing.

use std::time::Duration;

use risiti_terminal::hardware::Clock;
use tokio::time::Instant;

/// A clock on tokio's time. Clones tell the same time.
#[derive(Debug, Clone)]
pub struct SimClock {
    began: Instant,
    factor: u32,
}

impl SimClock {
    /// A clock that begins now and runs as fast as tokio's. Call it inside a
    /// tokio runtime.
    #[must_use]
    pub fn start() -> Self {
        Self::faster(1)
    }

    /// A clock that begins now and runs `factor` times as fast as tokio's; 0 is
    /// taken as 1. Beyond some 100 the milliseconds that tokio's timers are exact
    /// to begin to show.
    #[must_use]
    pub fn faster(factor: u32) -> Self {
        Self {
            began: Instant::now(),
            factor: factor.max(1),
        }
    }

    /// Time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed() * self.factor
    }

    /// Returns once it is `at`.
    pub async fn reach(&self, at: Duration) {
        while self.now() < at {
            // Rounded up, or the last nanoseconds would be waited for in a loop.
            let real = at / self.factor + Duration::from_nanos(1);
            tokio::time::sleep_until(self.began + real).await;
        }
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    async fn sleep_until(&self, at_ms: u64) {
        self.reach(Duration::from_millis(at_ms)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_faster_clock_passes_a_day_in_minutes_of_tokios_time() {
        let clock = SimClock::faster(100);
        let began = Instant::now();
        clock.sleep_until(86_400_000).await;
        assert_eq!(began.elapsed().as_secs(), 864);
        assert_eq!(clock.now_ms() / 1_000, 86_400);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_wakes_when_it_is_time_and_not_before() {
        let clock = SimClock::faster(7);
        for at_ms in [1, 2, 3, 50, 51, 1_000_003] {
            clock.sleep_until(at_ms).await;
            assert!(clock.now_ms() >= at_ms);
        }
    }
}
