//! The serial lines: interrupts on one side, `embedded-io` on the other, a
//! bounded ring each way between.
//!
//! Promises: no byte is lost; who sends faster than it is read is kept waiting,
//! at the far end of the line, too. Dropping a future loses nothing. Never: a
//! wait inside an interrupt.

use core::cell::RefCell;
use core::convert::Infallible;
use core::future::poll_fn;
use core::task::Poll;

use critical_section::Mutex;
use embedded_io_async::{ErrorType, Read, Write};

use crate::registers::{UARTS, UartRegisters};

/// Bytes that wait each way. The far ends are buffered by the emulator; so this
/// only has to outlast a poll of the terminal.
const RING_BYTES: usize = 16;

/// What waits each way, for each line.
static LINES: Mutex<RefCell<[Line; 4]>> = Mutex::new(RefCell::new([const { Line::new() }; 4]));

struct Line {
    received: Ring,
    to_send: Ring,
}

impl Line {
    const fn new() -> Self {
        Self {
            received: Ring::new(),
            to_send: Ring::new(),
        }
    }
}

/// A ring of bytes.
struct Ring {
    bytes: [u8; RING_BYTES],
    first: u8,
    len: u8,
}

const _: () = assert!(RING_BYTES.is_power_of_two() && RING_BYTES < 256);

impl Ring {
    const fn new() -> Self {
        Self {
            bytes: [0; RING_BYTES],
            first: 0,
            len: 0,
        }
    }

    fn is_full(&self) -> bool {
        usize::from(self.len) == RING_BYTES
    }

    fn push(&mut self, byte: u8) -> bool {
        if self.is_full() {
            return false;
        }
        let at = usize::from(self.first) + usize::from(self.len);
        self.bytes[at % RING_BYTES] = byte;
        self.len += 1;
        true
    }

    fn pop(&mut self) -> Option<u8> {
        self.len = self.len.checked_sub(1)?;
        let byte = self.bytes[usize::from(self.first) % RING_BYTES];
        self.first = self.first.wrapping_add(1) % RING_BYTES as u8;
        Some(byte)
    }
}

fn with<T>(line: usize, run: impl FnOnce(&mut Line, UartRegisters) -> T) -> T {
    critical_section::with(|token| {
        let mut lines = LINES.borrow_ref_mut(token);
        run(&mut lines[line % 4], UARTS[line % 4])
    })
}

/// The UART of this line has received or sent a byte.
pub fn interrupted(line: usize) {
    with(line, |line, uart| {
        uart.clear();
        take_received(line, uart);
        send_waiting(line, uart);
    });
    risiti_idle::wake();
}

fn take_received(line: &mut Line, uart: UartRegisters) {
    while !line.received.is_full() {
        let Some(byte) = uart.receive() else { break };
        line.received.push(byte);
    }
    // The next byte stays in the UART until there is room, and its sender waits.
    uart.receive_interrupt(!line.received.is_full());
}

fn send_waiting(line: &mut Line, uart: UartRegisters) {
    while uart.can_send() {
        let Some(byte) = line.to_send.pop() else {
            break;
        };
        uart.send(byte);
    }
}

/// The near end of a serial line, both ways.
pub struct Serial {
    /// What comes in.
    pub receiver: Receiver,
    /// What goes out.
    pub sender: Sender,
}

impl Serial {
    /// Starts this line; `line` is 0 to 3.
    pub(crate) fn start(line: usize, baud: u32) -> Self {
        UARTS[line % 4].start(baud);
        Self::of(line)
    }
}

impl Serial {
    /// Another near end of a line that was started. What comes in goes to whichever
    /// asks for it first.
    pub(crate) fn of(line: usize) -> Self {
        Self {
            receiver: Receiver { line },
            sender: Sender { line },
        }
    }
}

/// What comes in on a serial line.
pub struct Receiver {
    line: usize,
}

impl Receiver {
    /// What has come in and was not read yet, without waiting; its count.
    pub fn try_read(&mut self, into: &mut [u8]) -> usize {
        with(self.line, |line, uart| {
            let mut count = 0;
            for byte in into {
                let Some(received) = line.received.pop() else {
                    break;
                };
                *byte = received;
                count += 1;
            }
            if count > 0 {
                take_received(line, uart);
            }
            count
        })
    }
}

/// What goes out on a serial line.
pub struct Sender {
    line: usize,
}

impl Sender {
    /// Another sender on the same line: what both send mixes byte by byte.
    pub(crate) fn of(line: usize) -> Self {
        Self { line }
    }

    /// Hands over what there is room for, without waiting; its count.
    pub fn try_write(&mut self, bytes: &[u8]) -> usize {
        with(self.line, |line, uart| {
            let mut count = 0;
            for &byte in bytes {
                if !line.to_send.push(byte) {
                    break;
                }
                count += 1;
            }
            send_waiting(line, uart);
            count
        })
    }

    fn is_empty(&self) -> bool {
        with(self.line, |line, _| line.to_send.len == 0)
    }
}

impl ErrorType for Receiver {
    type Error = Infallible;
}

impl Read for Receiver {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        poll_fn(|_| match self.try_read(into) {
            0 if !into.is_empty() => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        })
        .await
    }
}

impl ErrorType for Sender {
    type Error = Infallible;
}

impl Write for Sender {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        poll_fn(|_| match self.try_write(bytes) {
            0 if !bytes.is_empty() => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        })
        .await
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        poll_fn(|_| match self.is_empty() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        })
        .await
    }
}

impl ErrorType for Serial {
    type Error = Infallible;
}

impl Read for Serial {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        self.receiver.read(into).await
    }
}

impl Write for Serial {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.sender.write(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        self.sender.flush().await
    }
}
