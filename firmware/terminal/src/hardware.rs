//! What a board offers to a terminal.
//!
//! Promises: nothing about pins, buses or registers; a board crate fills these
//! in. Never: an error that a terminal could not go on after.

use embedded_io_async::{Read, Write};
use embedded_storage_async::nor_flash::NorFlash;

use crate::limits::{SCREEN_COLUMNS, SCREEN_ROWS};
use crate::modem::Modem;

/// The parts of a board, by their types.
pub trait Board {
    /// Time.
    type Clock: Clock;
    /// The external NOR flash, for this terminal's use alone.
    type Flash: NorFlash;
    /// The keys.
    type Keypad: Keypad;
    /// The display.
    type Display: Display;
    /// The serial line to the receipt printer, both ways.
    type Printer: Read + Write;
    /// The modem with its driver.
    type Modem: Modem;
    /// The battery gauge.
    type Battery: Battery;
    /// The watchdog.
    type Watchdog: Watchdog;
    /// The source of random bytes.
    type Entropy: Entropy;
}

/// The parts of a board.
pub struct Hardware<B: Board> {
    /// Time.
    pub clock: B::Clock,
    /// The external NOR flash.
    pub flash: B::Flash,
    /// The keys.
    pub keypad: B::Keypad,
    /// The display.
    pub display: B::Display,
    /// The serial line to the receipt printer.
    pub printer: B::Printer,
    /// The modem with its driver.
    pub modem: B::Modem,
    /// The battery gauge.
    pub battery: B::Battery,
    /// The watchdog.
    pub watchdog: B::Watchdog,
    /// The source of random bytes. It is asked before all tasks begin, and never again.
    pub entropy: B::Entropy,
    /// A number that differs from start to start and from terminal to terminal:
    /// the seed of the reconnect jitter. Not a secret.
    pub seed: u64,
}

/// Time since the board started. Clones tell the same time.
pub trait Clock: Clone {
    /// Milliseconds since the board started; never goes back.
    fn now_ms(&self) -> u64;

    /// Returns once [`now_ms`](Self::now_ms) is at least `at_ms`. Dropping the
    /// future is fine at any time.
    async fn sleep_until(&self, at_ms: u64);

    /// Returns after so many milliseconds.
    async fn sleep(&self, for_ms: u64) {
        self.sleep_until(self.now_ms().saturating_add(for_ms)).await;
    }
}

/// A key of the keypad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// 0 to 9.
    Digit(u8),
    /// Goes on, says yes.
    Enter,
    /// Takes the last digit back.
    Delete,
    /// Gives up, says no.
    Cancel,
    /// Prints the last receipt again.
    Print,
    /// Asks the gateway for receipts now.
    Fetch,
}

/// The keys.
pub trait Keypad {
    /// The next key that was pressed. Dropping the future loses no key.
    async fn key(&mut self) -> Key;
}

/// What stands on the display: ASCII, blanks where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen(pub [[u8; SCREEN_COLUMNS]; SCREEN_ROWS]);

/// The display.
pub trait Display {
    /// Shows this instead of what was shown. A display that fails is left alone
    /// until the next screen: payments go on.
    async fn show(&mut self, screen: &Screen);
}

/// The battery gauge.
pub trait Battery {
    /// The voltage now, in millivolts.
    async fn millivolts(&mut self) -> u16;
}

/// Resets the board unless it is fed.
pub trait Watchdog {
    /// Starts the time anew.
    fn feed(&mut self);

    /// Fed at least this often it does not reset the board, in milliseconds: half
    /// of its time or less. The longer, the longer an idle terminal sleeps.
    fn feed_within_ms(&self) -> u32 {
        60_000
    }
}

/// There are no random bytes to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoEntropy;

/// Bytes that nobody can guess: what keys are made of. Nothing that differs only from
/// start to start will do.
pub trait Entropy {
    /// Fills all of it.
    ///
    /// # Errors
    /// The source does not answer, or doubts itself. What was filled is of no use.
    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy>;
}
