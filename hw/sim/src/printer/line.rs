//! A printer on a serial line in this process.

use std::convert::Infallible;
use std::sync::Arc;

use embassy_futures::select::select;
use embedded_io_async::{ErrorType, Read, Write};
use parking_lot::Mutex;
use risiti_terminal::hardware::Clock;
use tokio::sync::Notify;

use super::{Paper, PrinterCore, PrinterModel};

/// A printer and the hand that holds it. Clones are the same printer.
#[derive(Debug, Clone)]
pub struct Printer<C> {
    core: Arc<Mutex<PrinterCore>>,
    changed: Arc<Notify>,
    clock: C,
}

impl<C: Clock> Printer<C> {
    /// A printer with an endless roll.
    #[must_use]
    pub fn new(model: PrinterModel, clock: C) -> Self {
        Self {
            core: Arc::new(Mutex::new(PrinterCore::new(model))),
            changed: Arc::default(),
            clock,
        }
    }

    /// The terminal's end of the line. A terminal that starts anew takes another.
    #[must_use]
    pub fn line(&self) -> PrinterLine<C> {
        PrinterLine {
            printer: self.clone(),
            unread: Vec::new(),
        }
    }

    /// Does something to the printer; see [`PrinterCore`]. The time goes with it.
    pub fn with<T>(&self, act: impl FnOnce(&mut PrinterCore, u64) -> T) -> T {
        let did = act(&mut self.core.lock(), self.clock.now_ms());
        self.changed.notify_one();
        did
    }

    /// The papers that came out by now; each once.
    #[must_use]
    pub fn take_papers(&self) -> Vec<Paper> {
        self.with(PrinterCore::take_papers)
    }
}

/// A terminal's end of the line to a printer.
#[derive(Debug)]
pub struct PrinterLine<C> {
    printer: Printer<C>,
    unread: Vec<u8>,
}

impl<C> ErrorType for PrinterLine<C> {
    type Error = Infallible;
}

impl<C: Clock> Read for PrinterLine<C> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        while self.unread.is_empty() {
            let due = {
                let mut core = self.printer.core.lock();
                self.unread = core.answers(self.printer.clock.now_ms());
                core.due()
            };
            if !self.unread.is_empty() {
                break;
            }
            let changed = self.printer.changed.notified();
            match due {
                Some(at_ms) => {
                    select(changed, self.printer.clock.sleep_until(at_ms)).await;
                }
                None => changed.await,
            }
        }
        let count = into.len().min(self.unread.len());
        for (place, byte) in into.iter_mut().zip(self.unread.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }
}

impl<C: Clock> Write for PrinterLine<C> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.printer.with(|core, now_ms| core.take(bytes, now_ms));
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
