//! Time, by RTC1 and the 32.768 kHz crystal.

use embassy_time::{Instant, Timer};
use risiti_terminal::hardware;

/// Time since the board started.
#[derive(Debug, Clone, Copy)]
pub struct Clock;

impl hardware::Clock for Clock {
    fn now_ms(&self) -> u64 {
        Instant::now().as_millis()
    }

    async fn sleep_until(&self, at_ms: u64) {
        Timer::at(Instant::from_millis(at_ms)).await;
    }
}
