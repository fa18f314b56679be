//! The watchdog.

use embassy_nrf::Peri;
use embassy_nrf::peripherals::WDT;
use embassy_nrf::wdt::{self, WatchdogHandle};
use risiti_terminal::hardware;

/// It runs while the processor sleeps; so an idle terminal wakes for it, seldom.
const RESET_AFTER_S: u32 = 120;

/// Resets the board two minutes after it was last fed.
pub struct Watchdog(Option<WatchdogHandle>);

impl Watchdog {
    pub(crate) fn start(watchdog: Peri<'static, WDT>) -> Self {
        let mut config = wdt::Config::default();
        config.timeout_ticks = RESET_AFTER_S * 32_768;
        config.action_during_debug_halt = wdt::HaltConfig::Pause;
        // It refuses if it already runs with other settings: those of an older
        // image, until the board loses its power. Then it is fed by none, resets,
        // and starts anew with ours.
        let started = wdt::Watchdog::try_new(watchdog, config);
        Self(started.ok().map(|(_, [handle])| handle))
    }
}

impl hardware::Watchdog for Watchdog {
    fn feed(&mut self) {
        if let Some(handle) = &mut self.0 {
            handle.pet();
        }
    }

    fn feed_within_ms(&self) -> u32 {
        RESET_AFTER_S * 1000 / 2
    }
}
