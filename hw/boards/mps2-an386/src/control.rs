//! What is no serial line on a real board, by the control UART: the battery
//! gauge, the modem's key, random bytes, and word of a panic.
//!
//! | from the board | means | to the board |
//! | --- | --- | --- |
//! | `?` | how many millivolts has the battery? | decimal digits, line feed |
//! | `K` / `k` | the modem's power key is driven high / low | |
//! | `R` | 32 random bytes, please | 32 bytes; none if there are none |
//! | `!`, decimal digits, line feed | panic in this line of a source; a reset follows | |

use core::convert::Infallible;

use embassy_futures::select::{Either, select};
use embedded_hal::digital::{ErrorType, OutputPin};
use embedded_io_async::Read;
use risiti_terminal::hardware::{self, Clock as _, NoEntropy};

use crate::clock::Clock;
use crate::registers::UARTS;
use crate::serial::{Receiver, Sender, Serial};

/// The world answers at once; if it has gone away, the terminal must not.
const GAUGE_MS_MAX: u64 = 1000;

/// A machine that is at its limits is slow to start.
const ENTROPY_MS_MAX: u64 = 60_000;

/// Where the modem's key and the gauge's question meet: the line of the control
/// UART that both may use.
pub(crate) const LINE: usize = 3;

/// The battery gauge.
pub struct Battery {
    line: Serial,
    clock: Clock,
    last: u16,
}

impl Battery {
    pub(crate) fn new(line: Serial, clock: Clock) -> Self {
        Self {
            line,
            clock,
            last: 0,
        }
    }

    async fn answer(receiver: &mut Receiver) -> u16 {
        let mut millivolts: u16 = 0;
        loop {
            let mut byte = [0];
            let Ok(_) = receiver.read(&mut byte).await;
            match byte[0] {
                digit @ b'0'..=b'9' => {
                    let digit = u16::from(digit - b'0');
                    millivolts = millivolts.saturating_mul(10).saturating_add(digit);
                }
                _ => return millivolts,
            }
        }
    }
}

impl hardware::Battery for Battery {
    async fn millivolts(&mut self) -> u16 {
        // The answer to a question that was given up.
        while self.line.receiver.try_read(&mut [0; 8]) > 0 {}
        self.line.sender.try_write(b"?");
        let late = self.clock.sleep(GAUGE_MS_MAX);
        if let Either::First(millivolts) = select(Self::answer(&mut self.line.receiver), late).await
        {
            self.last = millivolts;
        }
        self.last
    }
}

/// Random bytes of whoever runs the emulator: this board has no source of its own, so
/// it is a simulated part. Keys that are made of them are as good as that machine's.
pub struct Entropy {
    line: Serial,
    clock: Clock,
}

impl Entropy {
    /// On the line of the gauge. The terminal asks for random bytes before it looks at
    /// its battery, so neither takes an answer for the other.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            line: Serial::of(LINE),
            clock,
        }
    }
}

/// Bytes that one question brings.
const ENTROPY_BYTES: usize = 32;

impl hardware::Entropy for Entropy {
    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        let until_ms = self.clock.now_ms() + ENTROPY_MS_MAX;
        for part in bytes.chunks_mut(ENTROPY_BYTES) {
            self.line.sender.try_write(b"R");
            let mut answer = [0; ENTROPY_BYTES];
            let mut rest = &mut answer[..];
            while !rest.is_empty() {
                let count = self.line.receiver.try_read(rest);
                rest = rest.get_mut(count..).unwrap_or_default();
                if self.clock.now_ms() >= until_ms {
                    return Err(NoEntropy);
                }
                self.clock.sleep(1).await;
            }
            for (to, from) in part.iter_mut().zip(answer) {
                *to = from;
            }
        }
        Ok(())
    }
}

/// The pin that presses the modem's power key.
pub struct PowerKey(pub(crate) Sender);

impl ErrorType for PowerKey {
    type Error = Infallible;
}

impl OutputPin for PowerKey {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.try_write(b"k");
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.try_write(b"K");
        Ok(())
    }
}

/// Says which line has panicked, whatever else goes on or does not.
pub(crate) fn tell_panic(line: u32) {
    cortex_m::interrupt::disable();
    let uart = UARTS[LINE];
    let send = |byte| {
        while !uart.can_send() {}
        uart.send(byte);
    };
    send(b'!');
    let mut power = 10_000;
    while power > 0 {
        send(b'0' + (line / power % 10) as u8);
        power /= 10;
    }
    send(b'\n');
}
