//! The serial line to a modem: bytes out, what it says in.
//!
//! Promises: every wait has its end; dropping a wait for what is said loses
//! nothing, since all that was read stays here. Never: state of the network.

use embassy_futures::select::{Either, select};
use embedded_io_async::{Read, Write};

use super::ModemError;
use super::at::{Reader, Token};
use super::family::Family;
use super::said::{Said, said};
use crate::hardware::Clock;
use crate::limits::{SERIAL_CHUNK_BYTES, SERIAL_PAUSE_MS, SERIAL_WRITE_MS};

/// What came over the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A line or a prompt.
    Said(Said),
    /// A byte from the peer.
    Byte(u8),
}

/// The serial line to a modem.
pub struct Line<S, C> {
    serial: S,
    pub clock: C,
    reader: Reader,
    chunk: [u8; SERIAL_CHUNK_BYTES],
    /// What of the chunk was read and not yet looked at.
    begin: usize,
    end: usize,
}

impl<S: Read + Write, C: Clock> Line<S, C> {
    pub fn new(serial: S, clock: C) -> Self {
        Self {
            serial,
            clock,
            reader: Reader::new(),
            chunk: [0; SERIAL_CHUNK_BYTES],
            begin: 0,
            end: 0,
        }
    }

    /// What the modem says next. None once it is `until_ms`. Dropping the future
    /// loses nothing.
    pub async fn hear<F: Family>(&mut self, until_ms: u64) -> Option<Heard> {
        loop {
            while let Some(byte) = self.next_read() {
                match self.reader.push(byte) {
                    None => {}
                    Some(Token::Data(byte)) => return Some(Heard::Byte(byte)),
                    Some(Token::Prompt) => return Some(Heard::Said(Said::Prompt)),
                    Some(Token::Torn) => return Some(Heard::Said(Said::Torn)),
                    Some(Token::Line) => {
                        let line = self.reader.line();
                        let said = said(line, F::DATA_WAITS, F::DATA, F::DATA_FIELD);
                        if let Said::Data(bytes) = said {
                            self.reader.expect_data(usize::from(bytes));
                        }
                        return Some(Heard::Said(said));
                    }
                }
            }
            let reading = self.serial.read(&mut self.chunk);
            match select(reading, self.clock.sleep_until(until_ms)).await {
                Either::First(Ok(bytes)) if bytes > 0 => {
                    self.begin = 0;
                    self.end = bytes;
                }
                // Framing errors and overruns, as while the supply rises. What is
                // missing is missed by who waits for it.
                Either::First(_) => {
                    let now_ms = self.clock.now_ms();
                    if now_ms >= until_ms {
                        return None;
                    }
                    let pause_ms = now_ms.saturating_add(SERIAL_PAUSE_MS.into());
                    self.clock.sleep_until(pause_ms.min(until_ms)).await;
                }
                Either::Second(()) => return None,
            }
        }
    }

    fn next_read(&mut self) -> Option<u8> {
        if self.begin == self.end {
            return None;
        }
        let byte = self.chunk.get(self.begin).copied();
        self.begin += 1;
        byte
    }

    /// Expects no data from the peer any more.
    pub fn forget_data(&mut self) {
        self.reader.forget_data();
    }

    /// Writes some of the bytes; how many. Dropping the future writes none or
    /// all of the number that it would have returned.
    pub async fn write_some(&mut self, bytes: &[u8]) -> Result<usize, ModemError> {
        let until_ms = self.until(SERIAL_WRITE_MS);
        let writing = self.serial.write(bytes);
        match select(writing, self.clock.sleep_until(until_ms)).await {
            Either::First(Ok(bytes)) if bytes > 0 => Ok(bytes),
            Either::First(_) | Either::Second(()) => Err(ModemError::Silent),
        }
    }

    /// Writes all of them.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), ModemError> {
        while !bytes.is_empty() {
            let written = self.write_some(bytes).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// The time in so many milliseconds.
    pub fn until(&self, for_ms: u32) -> u64 {
        self.clock.now_ms().saturating_add(u64::from(for_ms))
    }
}
