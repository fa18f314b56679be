//! The parts of a board, as plain cells that the world fills and empties.
//!
//! Promises: what the firmware is promised of its hardware: nothing more. A leaf
//! that waits notes when time alone would end its wait, so that the world knows
//! when to poll again. Never: a byte that goes on after the power was cut.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use embedded_io_async::{ErrorType as IoErrorType, Read, Write};
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use risiti_sim::nor::{Nor, NorError};
use risiti_sim::printer::{PrinterCore, PrinterModel};
use risiti_terminal::energy::Radio;
use risiti_terminal::hardware::{
    Battery, Board, Clock, Display, Entropy, Key, Keypad, NoEntropy, Screen, Watchdog,
};
use risiti_terminal::limits::{SCREEN_COLUMNS, SCREEN_ROWS};
use risiti_terminal::modem::{Modem, ModemError, Network};

use crate::contract::{EPOCH_MS, Ms};

/// What the modem asks of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A connection to the gateway.
    Open,
    /// These bytes go out on it.
    Send(Vec<u8>),
    /// It is closed from this side.
    Close,
}

/// Where the modem's connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// None is there.
    Closed,
    /// Asked for.
    Opening,
    /// The gateway took it.
    Open,
    /// The gateway, or whoever stands for it, refused it.
    Refused,
    /// It is gone; what had come before may still be read.
    Gone,
}

/// All that the firmware and the world share. One lives as long as its terminal;
/// what dies with the power is reset by [`power_up`](Self::power_up).
pub struct Cells {
    /// World time.
    now_ms: Cell<Ms>,
    started_ms: Cell<Ms>,
    /// The earliest time at which a leaf that waits would go on.
    wake_ms: Cell<Ms>,
    keys: RefCell<VecDeque<Key>>,
    screen: Cell<Screen>,
    /// The printer; its power is the board's.
    pub printer: RefCell<PrinterCore>,
    unread: RefCell<VecDeque<u8>>,
    /// The printer was spoken to since the last write to flash.
    printer_spoke: Cell<bool>,
    /// Where the connection is.
    pub line: Cell<Line>,
    /// Bytes from the gateway that the firmware has not taken yet.
    pub inbox: RefCell<VecDeque<u8>>,
    /// What the modem asks of the world.
    pub asks: RefCell<Vec<Ask>>,
    modem_on: Cell<bool>,
    /// The network is not found until then.
    pub no_network_until_ms: Cell<Ms>,
    /// What the network says is so far from the truth.
    pub network_clock_off_s: Cell<i64>,
    chance: RefCell<fastrand::Rng>,
}

const DARK: Screen = Screen([[b' '; SCREEN_COLUMNS]; SCREEN_ROWS]);

impl Cells {
    /// A board without power.
    pub fn new(chance: fastrand::Rng) -> Self {
        Self {
            now_ms: Cell::new(0),
            started_ms: Cell::new(0),
            wake_ms: Cell::new(Ms::MAX),
            keys: RefCell::default(),
            screen: Cell::new(DARK),
            printer: RefCell::new(PrinterCore::new(PrinterModel::ProcessId)),
            unread: RefCell::default(),
            printer_spoke: Cell::new(false),
            line: Cell::new(Line::Closed),
            inbox: RefCell::default(),
            asks: RefCell::default(),
            modem_on: Cell::new(false),
            no_network_until_ms: Cell::new(0),
            network_clock_off_s: Cell::new(0),
            chance: RefCell::new(chance),
        }
    }

    /// Power is given: the board's own clock begins.
    pub fn power_up(&self, now_ms: Ms) {
        self.cut(now_ms);
        self.started_ms.set(now_ms);
    }

    /// Power goes: keys, screen, modem and what the printer had not printed.
    pub fn cut(&self, now_ms: Ms) {
        self.now_ms.set(now_ms);
        self.wake_ms.set(Ms::MAX);
        self.keys.borrow_mut().clear();
        self.screen.set(DARK);
        self.unread.borrow_mut().clear();
        self.line.set(Line::Closed);
        self.inbox.borrow_mut().clear();
        self.asks.borrow_mut().clear();
        self.modem_on.set(false);
        self.printer.borrow_mut().cut_power(now_ms);
    }

    /// It is this time; nobody waits for another yet.
    pub fn begin_poll(&self, now_ms: Ms) {
        self.now_ms.set(now_ms);
        self.wake_ms.set(Ms::MAX);
    }

    /// When time alone makes the firmware go on.
    pub fn wake_ms(&self) -> Ms {
        self.wake_ms.get()
    }

    /// A key is pressed.
    pub fn press(&self, key: Key) {
        self.keys.borrow_mut().push_back(key);
    }

    /// What stands on the display.
    pub fn screen(&self) -> Screen {
        self.screen.get()
    }

    /// A number for this start.
    pub fn draw_seed(&self) -> u64 {
        self.chance.borrow_mut().u64(..)
    }

    fn draw(&self, from_ms: u64, to_ms: u64) -> u64 {
        self.chance.borrow_mut().u64(from_ms..=to_ms)
    }

    fn wake_at(&self, at_ms: Ms) {
        self.wake_ms.set(self.wake_ms.get().min(at_ms));
    }

    /// Ends at this world time.
    async fn until(&self, at_ms: Ms) {
        poll_fn(|_| {
            if self.now_ms.get() >= at_ms {
                return Poll::Ready(());
            }
            self.wake_at(at_ms);
            Poll::Pending
        })
        .await;
    }

    async fn pause(&self, from_ms: u64, to_ms: u64) {
        let at_ms = self.now_ms.get() + self.draw(from_ms, to_ms);
        self.until(at_ms).await;
    }
}

/// The parts of a simulated board, by their types.
pub struct Parts;

impl Board for Parts {
    type Clock = BoardClock;
    type Flash = BoardFlash;
    type Keypad = Console;
    type Display = Console;
    type Printer = PrinterLine;
    type Modem = Pipe;
    type Battery = Full;
    type Watchdog = Asleep;
    type Entropy = Drawn;
}

/// Time since the board started.
#[derive(Clone)]
pub struct BoardClock(pub Rc<Cells>);

impl Clock for BoardClock {
    fn now_ms(&self) -> u64 {
        self.0.now_ms.get() - self.0.started_ms.get()
    }

    async fn sleep_until(&self, at_ms: u64) {
        let at_ms = self.0.started_ms.get().saturating_add(at_ms);
        self.0.until(at_ms).await;
    }
}

/// A flash chip on a board: when its power is cut, so is the processor's, and
/// nobody is told.
pub struct BoardFlash {
    /// The chip.
    pub nor: Nor,
    /// What else goes on, for the negative control.
    pub cells: Rc<Cells>,
    /// The negative control: marks that are set while the printer is at work are
    /// not kept: that a receipt was begun, and that it is on paper.
    pub forgets_printing: bool,
}

/// Bytes of a mark's word: nothing else that the store writes is so short.
const MARK_BYTES: usize = 4;

async fn or_dark(done: Result<(), NorError>) -> Result<(), NorError> {
    match done {
        Err(NorError::PowerCut) => pending().await,
        done => done,
    }
}

impl ErrorType for BoardFlash {
    type Error = NorError;
}

impl ReadNorFlash for BoardFlash {
    const READ_SIZE: usize = <Nor>::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorError> {
        or_dark(self.nor.read(offset, bytes).await).await
    }

    fn capacity(&self) -> usize {
        self.nor.capacity()
    }
}

impl NorFlash for BoardFlash {
    const WRITE_SIZE: usize = <Nor>::WRITE_SIZE;
    const ERASE_SIZE: usize = <Nor>::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorError> {
        or_dark(self.nor.erase(from, to).await).await
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorError> {
        let printing = self.cells.printer_spoke.get();
        if self.forgets_printing && printing && bytes.len() == MARK_BYTES {
            return Ok(());
        }
        self.cells.printer_spoke.set(false);
        or_dark(self.nor.write(offset, bytes).await).await
    }
}

/// Keys and display.
pub struct Console(pub Rc<Cells>);

impl Keypad for Console {
    async fn key(&mut self) -> Key {
        poll_fn(|_| match self.0.keys.borrow_mut().pop_front() {
            Some(key) => Poll::Ready(key),
            None => Poll::Pending,
        })
        .await
    }
}

impl Display for Console {
    async fn show(&mut self, screen: &Screen) {
        self.0.screen.set(*screen);
    }
}

/// The serial line to the printer.
pub struct PrinterLine(pub Rc<Cells>);

impl IoErrorType for PrinterLine {
    type Error = Infallible;
}

impl Read for PrinterLine {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        let cells = &self.0;
        poll_fn(|_| {
            let mut printer = cells.printer.borrow_mut();
            let mut unread = cells.unread.borrow_mut();
            unread.extend(printer.answers(cells.now_ms.get()));
            if unread.is_empty() {
                if let Some(at_ms) = printer.due() {
                    cells.wake_at(at_ms);
                }
                return Poll::Pending;
            }
            let count = into.len().min(unread.len());
            for (place, byte) in into.iter_mut().zip(unread.drain(..count)) {
                *place = byte;
            }
            Poll::Ready(Ok(count))
        })
        .await
    }
}

impl Write for PrinterLine {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let now_ms = self.0.now_ms.get();
        self.0.printer_spoke.set(true);
        self.0.printer.borrow_mut().take(bytes, now_ms);
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A battery that is never the trouble: brown-outs have tests of their own.
pub struct Full;

impl Battery for Full {
    async fn millivolts(&mut self) -> u16 {
        4_000
    }
}

/// A watchdog that an idle terminal needs to wake for once an hour only.
pub struct Asleep;

impl Watchdog for Asleep {
    fn feed(&mut self) {}

    fn feed_within_ms(&self) -> u32 {
        3_600_000
    }
}

/// Random bytes as the world draws them: its terminals are given their keys.
pub struct Drawn(pub Rc<Cells>);

impl Entropy for Drawn {
    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.chance.borrow_mut().fill(bytes);
        Ok(())
    }
}

/// A modem without its AT commands: bytes to and from the simulated network, with
/// a modem's waits. Its driver has tests of its own.
pub struct Pipe(pub Rc<Cells>);

/// A modem starts and registers within this.
const REGISTER_MS: (u64, u64) = (4_000, 12_000);
/// It gives up looking for a network after this.
const SEARCH_MS: u64 = 60_000;
/// It gives up a connection that nobody answers after this.
const OPEN_MS: u64 = 75_000;
/// It takes a segment within this.
const TAKE_MS: (u64, u64) = (5, 60);

impl Modem for Pipe {
    async fn power_on(&mut self, _network: &Network<'_>) -> Result<(), ModemError> {
        let cells = &self.0;
        if !cells.modem_on.get() {
            cells.pause(REGISTER_MS.0, REGISTER_MS.1).await;
        }
        if cells.now_ms.get() < cells.no_network_until_ms.get() {
            cells.pause(SEARCH_MS, SEARCH_MS).await;
            return Err(ModemError::Unregistered);
        }
        cells.modem_on.set(true);
        Ok(())
    }

    async fn open(&mut self, _host: &str, _port: u16) -> Result<(), ModemError> {
        self.close().await;
        let cells = &self.0;
        cells.line.set(Line::Opening);
        cells.inbox.borrow_mut().clear();
        cells.asks.borrow_mut().push(Ask::Open);
        let until_ms = cells.now_ms.get() + OPEN_MS;
        poll_fn(|_| match cells.line.get() {
            Line::Open => Poll::Ready(Ok(())),
            Line::Refused | Line::Gone | Line::Closed => {
                cells.line.set(Line::Closed);
                Poll::Ready(Err(ModemError::Refused))
            }
            Line::Opening if cells.now_ms.get() >= until_ms => {
                cells.asks.borrow_mut().push(Ask::Close);
                cells.line.set(Line::Closed);
                Poll::Ready(Err(ModemError::Timeout))
            }
            Line::Opening => {
                cells.wake_at(until_ms);
                Poll::Pending
            }
        })
        .await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ModemError> {
        let cells = &self.0;
        if cells.line.get() != Line::Open {
            return Err(ModemError::Closed);
        }
        cells.asks.borrow_mut().push(Ask::Send(bytes.to_vec()));
        cells.pause(TAKE_MS.0, TAKE_MS.1).await;
        Ok(())
    }

    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, ModemError> {
        let cells = &self.0;
        poll_fn(|_| {
            let mut inbox = cells.inbox.borrow_mut();
            if !inbox.is_empty() && !into.is_empty() {
                let count = into.len().min(inbox.len());
                for (place, byte) in into.iter_mut().zip(inbox.drain(..count)) {
                    *place = byte;
                }
                return Poll::Ready(Ok(count));
            }
            match cells.line.get() {
                Line::Open => Poll::Pending,
                _ => Poll::Ready(Err(ModemError::Closed)),
            }
        })
        .await
    }

    async fn close(&mut self) {
        let cells = &self.0;
        if cells.line.replace(Line::Closed) != Line::Closed {
            cells.asks.borrow_mut().push(Ask::Close);
        }
    }

    async fn power_off(&mut self) {
        self.close().await;
        self.0.modem_on.set(false);
    }

    fn network_time_s(&self) -> Option<u32> {
        let cells = &self.0;
        let true_s = (EPOCH_MS + cells.now_ms.get()) / 1_000;
        let told_s = true_s.saturating_add_signed(cells.network_clock_off_s.get());
        u32::try_from(told_s).ok()
    }

    fn signal(&self) -> Option<u8> {
        Some(20)
    }

    fn radio(&self) -> Radio {
        Radio::default()
    }
}
