//! The watchdog.

use risiti_terminal::hardware;

use crate::registers::{self, CLOCK_HZ};

/// Half of the time after which an unfed board is reset: its first timeout only
/// warns. Together two minutes, twice what a terminal takes at most.
const HALF_S: u32 = 60;

/// Resets the board two minutes after it was last fed.
pub struct Watchdog(());

impl Watchdog {
    pub(crate) fn start() -> Self {
        registers::watchdog::start(HALF_S * CLOCK_HZ);
        Self(())
    }
}

impl hardware::Watchdog for Watchdog {
    fn feed(&mut self) {
        registers::watchdog::feed();
    }
}
