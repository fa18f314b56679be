//! The line to the printer, and the printer's supply.
//!
//! Promises: the printer has power from the first byte for it until a minute after
//! the last one either way; idle it would take more than all else together. Never:
//! a byte to a printer that has not come up yet.

use core::cell::RefCell;

use embassy_nrf::buffered_uarte::BufferedUarte;
use embassy_nrf::gpio::Output;
use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Instant, Timer, with_timeout};
use embedded_io_async::{ErrorType, Read, Write};

/// A printer is up this long after its supply.
const UP_AFTER: Duration = Duration::from_millis(800);

/// A receipt is on paper within seconds of its last byte.
const OFF_AFTER: Duration = Duration::from_secs(60);

static SUPPLY: Mutex<CriticalSectionRawMutex, RefCell<Option<Output<'static>>>> =
    Mutex::new(RefCell::new(None));
static USED: Signal<CriticalSectionRawMutex, ()> = Signal::new();

/// The line to the printer.
pub struct Printer {
    line: BufferedUarte<'static>,
    up_at: Instant,
}

impl Printer {
    /// `supply` is low: the printer is off.
    pub(crate) fn start(line: BufferedUarte<'static>, supply: Output<'static>) -> Self {
        SUPPLY.lock(|pin| *pin.borrow_mut() = Some(supply));
        let up_at = Instant::MIN;
        Self { line, up_at }
    }
}

/// Takes the supply away from a printer that nobody uses. Never returns.
pub(crate) async fn rest() {
    loop {
        USED.wait().await;
        while with_timeout(OFF_AFTER, USED.wait()).await.is_ok() {}
        SUPPLY.lock(|pin| pin.borrow_mut().as_mut().map(Output::set_low));
    }
}

impl ErrorType for Printer {
    type Error = <BufferedUarte<'static> as ErrorType>::Error;
}

impl Read for Printer {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Self::Error> {
        let count = self.line.read(into).await?;
        USED.signal(());
        Ok(count)
    }
}

impl Write for Printer {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        let was_off = SUPPLY.lock(|pin| match &mut *pin.borrow_mut() {
            Some(pin) if pin.is_set_low() => {
                pin.set_high();
                true
            }
            _ => false,
        });
        USED.signal(());
        if was_off {
            self.up_at = Instant::now() + UP_AFTER;
        }
        Timer::at(self.up_at).await;
        self.line.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.line.flush().await
    }
}
