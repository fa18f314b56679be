//! What an image takes: flash, RAM, stack.

use std::fs;
use std::io;
use std::path::Path;

use super::machine::RAM_BYTES;

/// cortex-m-rt paints the stack with this word before the program runs.
const PAINT: u32 = 0xCCCC_CCCC;

/// What an image takes, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Code, constants and the first values of variables.
    pub flash: u32,
    /// Variables.
    pub ram: u32,
}

impl Footprint {
    /// By the sections of an image (ELF, 32 bits, little-endian).
    ///
    /// # Errors
    /// It can't be read, or is no such file.
    pub fn of(image: &Path) -> io::Result<Self> {
        let elf = fs::read(image)?;
        sections(&elf).ok_or_else(|| {
            io::Error::other(format!("{} is no image of a terminal", image.display()))
        })
    }

    /// The most that the stack ever took, by the paint that is left in the RAM of
    /// a machine that has run this image ([`Machine::ram`](super::Machine::ram)). None
    /// if there is no paint: it has not begun to run.
    #[must_use]
    pub fn stack(&self, ram: &[u8]) -> Option<u32> {
        let words = ram.chunks_exact(4).skip((self.ram as usize).div_ceil(4));
        let unused = words
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            // The linker may leave a gap behind the variables.
            .skip_while(|&word| word != PAINT)
            .take_while(|&word| word == PAINT)
            .count() as u32;
        (unused > 0).then(|| RAM_BYTES.saturating_sub(self.ram + unused * 4))
    }
}

/// Adds up the sections. System V ABI, chapter 4, "Sections".
fn sections(elf: &[u8]) -> Option<Footprint> {
    const ALLOCATED: u32 = 0x2;
    const WRITABLE: u32 = 0x1;
    const NO_BITS: u32 = 8;
    let word = |at: usize| {
        let bytes = elf.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let half = |at: usize| {
        let bytes = elf.get(at..at + 2)?;
        Some(usize::from(u16::from_le_bytes(bytes.try_into().ok()?)))
    };
    if elf.get(..6)? != b"\x7FELF\x01\x01" {
        return None;
    }
    let (table, entry_bytes, entries) = (word(32)? as usize, half(46)?, half(48)?);
    let mut footprint = Footprint { flash: 0, ram: 0 };
    for at in (0..entries).map(|n| table + n * entry_bytes) {
        let (kind, flags, bytes) = (word(at + 4)?, word(at + 8)?, word(at + 20)?);
        if flags & ALLOCATED == 0 {
            continue;
        }
        if flags & WRITABLE != 0 {
            footprint.ram += bytes;
        }
        if kind != NO_BITS {
            footprint.flash += bytes;
        }
    }
    Some(footprint)
}
