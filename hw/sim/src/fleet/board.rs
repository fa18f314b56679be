//! The parts of a simulated board.
//!
//! Promises: what a real board's parts promise. Never: a part that works on after
//! the power was cut.

use std::cell::Cell;
use std::future::pending;
use std::marker::PhantomData;
use std::rc::Rc;

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use risiti_terminal::hardware::{Board, Clock, Entropy, NoEntropy, Watchdog};
use risiti_terminal::modem::Modem;

use super::console::{ConsoleDisplay, ConsoleKeypad};
use crate::battery::Gauge;
use crate::clock::SimClock;
use crate::nor::{Nor, NorError};
use crate::printer::PrinterLine;

/// A board with this modem and flash.
pub struct SimBoard<M, F = BoardFlash>(PhantomData<(M, F)>);

impl<M: Modem, F: NorFlash> Board for SimBoard<M, F> {
    type Clock = BoardClock;
    type Flash = F;
    type Keypad = ConsoleKeypad;
    type Display = ConsoleDisplay;
    type Printer = PrinterLine<SimClock>;
    type Modem = M;
    type Battery = Gauge<SimClock>;
    type Watchdog = BoardWatchdog;
    type Entropy = BoardEntropy;
}

/// Time since the board has started.
#[derive(Debug, Clone)]
pub struct BoardClock {
    world: SimClock,
    started_ms: u64,
}

impl BoardClock {
    /// Of a board that starts now.
    #[must_use]
    pub fn start(world: &SimClock) -> Self {
        Self {
            world: world.clone(),
            started_ms: world.now_ms(),
        }
    }
}

impl Clock for BoardClock {
    fn now_ms(&self) -> u64 {
        self.world.now_ms() - self.started_ms
    }

    async fn sleep_until(&self, at_ms: u64) {
        let at_ms = self.started_ms.saturating_add(at_ms);
        self.world.sleep_until(at_ms).await;
    }
}

/// A flash chip on a board: when its power is cut, so is the processor's, and
/// nobody is told.
pub struct BoardFlash {
    nor: Nor,
}

impl BoardFlash {
    /// This chip.
    #[must_use]
    pub fn new(nor: &Nor) -> Self {
        Self { nor: nor.handle() }
    }
}

impl ErrorType for BoardFlash {
    type Error = NorError;
}

async fn or_dark(done: Result<(), NorError>) -> Result<(), NorError> {
    match done {
        Err(NorError::PowerCut) => pending().await,
        done => done,
    }
}

impl ReadNorFlash for BoardFlash {
    const READ_SIZE: usize = Nor::<4096>::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorError> {
        or_dark(self.nor.read(offset, bytes).await).await
    }

    fn capacity(&self) -> usize {
        self.nor.capacity()
    }
}

impl NorFlash for BoardFlash {
    const WRITE_SIZE: usize = Nor::<4096>::WRITE_SIZE;
    const ERASE_SIZE: usize = Nor::<4096>::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorError> {
        or_dark(self.nor.erase(from, to).await).await
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorError> {
        or_dark(self.nor.write(offset, bytes).await).await
    }
}

/// Random bytes as a simulation draws them: the same with the same seed.
#[derive(Debug)]
pub struct BoardEntropy(pub fastrand::Rng);

impl Entropy for BoardEntropy {
    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.fill(bytes);
        Ok(())
    }
}

/// A watchdog of an hour.
#[derive(Debug)]
pub struct BoardWatchdog {
    clock: BoardClock,
    fed_ms: Rc<Cell<u64>>,
}

/// The other side of a watchdog: the reset line.
#[derive(Debug)]
pub struct ResetLine {
    clock: BoardClock,
    fed_ms: Rc<Cell<u64>>,
}

/// A watchdog resets after so long.
const WATCHDOG_MS: u64 = 3_600_000;

impl BoardWatchdog {
    /// A watchdog that begins to count now.
    #[must_use]
    pub fn start(clock: &BoardClock) -> (Self, ResetLine) {
        let fed_ms = Rc::new(Cell::new(clock.now_ms()));
        let line = ResetLine {
            clock: clock.clone(),
            fed_ms: Rc::clone(&fed_ms),
        };
        let clock = clock.clone();
        (Self { clock, fed_ms }, line)
    }
}

impl Watchdog for BoardWatchdog {
    fn feed(&mut self) {
        self.fed_ms.set(self.clock.now_ms());
    }

    fn feed_within_ms(&self) -> u32 {
        (WATCHDOG_MS / 2) as u32
    }
}

impl ResetLine {
    /// Returns when the watchdog resets the board.
    pub async fn reset(&self) {
        loop {
            let at_ms = self.fed_ms.get() + WATCHDOG_MS;
            if self.clock.now_ms() >= at_ms {
                return;
            }
            self.clock.sleep_until(at_ms).await;
        }
    }
}
