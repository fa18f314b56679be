//! NOR flash: 8 MB of memory that outlive the emulator, under the rules of a
//! flash chip.
//!
//! Promises: a write clears bits and sets none, an erase takes a whole page; both
//! take the time that an MX25R6435F takes and happen byte by byte, so that a
//! power cut finds them half done. Never: an erase that nobody asked for.

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use risiti_terminal::hardware::Clock as _;

use crate::clock::Clock;
use crate::registers::{NOR_BYTES, nor_byte, put_nor_byte, timer};

/// An erase takes this long for each 64 bytes: 40 ms a page.
const ERASE_64_BYTES_US: u32 = 625;

/// The NOR flash.
pub struct Nor {
    clock: Clock,
}

impl Nor {
    pub(crate) fn start(clock: Clock) -> Self {
        Self { clock }
    }
}

/// Whether the chip could do that: within it, and in whole units.
fn check(from: u32, len: usize, unit: usize) -> Result<(), NorFlashErrorKind> {
    let from = from as usize;
    if !from.is_multiple_of(unit) || !len.is_multiple_of(unit) {
        return Err(NorFlashErrorKind::NotAligned);
    }
    match from.checked_add(len) {
        Some(end) if end <= NOR_BYTES => Ok(()),
        _ => Err(NorFlashErrorKind::OutOfBounds),
    }
}

impl ErrorType for Nor {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check(offset, bytes.len(), Self::READ_SIZE)?;
        for (at, byte) in (offset as usize..).zip(bytes) {
            *byte = nor_byte(at).ok_or(NorFlashErrorKind::OutOfBounds)?;
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        NOR_BYTES
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check(from, to.saturating_sub(from) as usize, Self::ERASE_SIZE)?;
        let mut since_us = 0;
        for at in from as usize..to as usize {
            put_nor_byte(at, 0xFF);
            if at % 64 == 63 {
                since_us += ERASE_64_BYTES_US;
                if since_us >= 1000 {
                    since_us -= 1000;
                    self.clock.sleep(1).await;
                }
            }
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check(offset, bytes.len(), Self::WRITE_SIZE)?;
        for (at, byte) in (offset as usize..).zip(bytes) {
            let there = nor_byte(at).ok_or(NorFlashErrorKind::OutOfBounds)?;
            put_nor_byte(at, there & byte);
            // A tick, 10 µs: what a chip takes for the first byte of a program.
            let since = timer::ticks();
            while timer::ticks() == since {}
        }
        Ok(())
    }
}
