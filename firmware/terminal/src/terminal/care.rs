//! The task that looks after the terminal itself: watchdog and battery.
//!
//! Promises: the watchdog starves if a task is late. Never: a wake-up that is not
//! needed for one of the two.

use core::convert::Infallible;

use super::desk::{Desk, SharedGauge};
use crate::application::Fact;
use crate::hardware::{Battery, Clock, Watchdog};
use crate::limits::GAUGE_MS;

/// What is looked after.
pub struct Care<'a, A, W, C> {
    pub desk: &'a Desk,
    pub clock: C,
    pub gauge: &'a SharedGauge<'a, A>,
    pub watchdog: &'a mut W,
}

impl<A: Battery, W: Watchdog, C: Clock> Care<'_, A, W, C> {
    /// Works for ever.
    pub async fn run(&mut self) -> Infallible {
        let feed_within_ms = u64::from(self.watchdog.feed_within_ms());
        let mut measure_at_ms = 0;
        loop {
            let mut now_ms = self.clock.now_ms();
            if self.desk.pulse.is_well(now_ms) {
                self.watchdog.feed();
            }
            if now_ms >= measure_at_ms {
                let millivolts = self.gauge.lock().await.millivolts().await;
                self.desk.facts.send(Fact::Battery { millivolts }).await;
                now_ms = self.clock.now_ms();
                measure_at_ms = now_ms + GAUGE_MS;
            }
            let feed_at_ms = now_ms + feed_within_ms;
            self.clock.sleep_until(feed_at_ms.min(measure_at_ms)).await;
        }
    }
}
