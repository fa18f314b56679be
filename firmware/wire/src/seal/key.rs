//! Keys: a site's root, and what is derived of it.
//!
//! Promises: a key is overwritten when it is dropped, and shown by nothing but
//! [`Key::expose`] and [`Root::expose`]. Never: `Debug`, `Display`, or a comparison.

use core::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Direction;
use crate::error::{Field, WireError};
use crate::limits::TERMINAL_ID_BYTES_MAX;
use crate::terminal::validate_terminal_id;

/// Bytes of a site's root.
pub const ROOT_BYTES: usize = 32;

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// The generation of a terminal's first keys.
pub const FIRST_GENERATION: u8 = 1;

const CONTEXT: &[u8] = b"risiti seal 1";

fn from_hex<const BYTES: usize>(digits: &str) -> Option<Zeroizing<[u8; BYTES]>> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    if digits.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | value as u8;
        }
    }
    Some(bytes)
}

/// Straight into `out`: no digit of a secret stays anywhere else.
fn write_hex(bytes: &[u8], out: &mut dyn fmt::Write) -> fmt::Result {
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            out.write_char(char::from_digit(half.into(), 16).unwrap_or_default())?;
        }
    }
    Ok(())
}

/// What all keys of a site are derived of: 32 random bytes, known to settlement and to
/// whoever provisions terminals.
#[derive(Clone)]
pub struct Root(Zeroizing<[u8; ROOT_BYTES]>);

impl Root {
    /// From its bytes.
    #[must_use]
    pub fn new(bytes: [u8; ROOT_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From 64 hexadecimal digits, as its file has them.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        from_hex(digits).map(Self)
    }

    /// Writes its 64 hexadecimal digits, as [`Root::from_hex`] takes them.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_hex(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write_hex(&*self.0, out)
    }

    /// Its bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; ROOT_BYTES] {
        &self.0
    }

    /// The key of a terminal, for one direction.
    ///
    /// # Errors
    /// The id is none, or the generation is 0.
    pub fn key(
        &self,
        terminal: &str,
        generation: u8,
        direction: Direction,
    ) -> Result<Key, WireError> {
        validate_terminal_id(terminal)?;
        let id = terminal.as_bytes();
        let mut key = Key::new(direction, generation, [0; KEY_BYTES])?;
        // The id's bound is 23 bytes.
        const { assert!(TERMINAL_ID_BYTES_MAX <= u8::MAX as usize) };
        let info = [
            CONTEXT,
            &[id.len() as u8],
            id,
            &[generation, direction.number()],
        ];
        Hkdf::<Sha256>::new(None, &*self.0)
            .expand_multi_info(&info, &mut *key.bytes)
            // Only above 255 blocks of 32 bytes.
            .map_err(|_| WireError::BufferTooSmall)?;
        Ok(key)
    }
}

/// A key of one terminal, for one direction.
#[derive(Clone)]
pub struct Key {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    direction: Direction,
    generation: u8,
}

impl Key {
    /// From its bytes, as a terminal was provisioned with them.
    ///
    /// # Errors
    /// The generation is 0.
    pub fn new(
        direction: Direction,
        generation: u8,
        bytes: [u8; KEY_BYTES],
    ) -> Result<Self, WireError> {
        if generation < FIRST_GENERATION {
            return Err(WireError::OutOfRange(Field::Generation));
        }
        Ok(Self {
            bytes: Zeroizing::new(bytes),
            direction,
            generation,
        })
    }

    /// From hexadecimal digits, two a byte, as the file of a terminal has them; none if
    /// they are not, or the generation is 0.
    #[must_use]
    pub fn from_hex(direction: Direction, generation: u8, digits: &str) -> Option<Self> {
        Self::new(direction, generation, *from_hex(digits)?).ok()
    }

    /// Writes its hexadecimal digits, as [`Key::from_hex`] takes them.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_hex(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write_hex(&*self.bytes, out)
    }

    /// Which way what it seals goes.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Its generation, from 1.
    #[must_use]
    pub fn generation(&self) -> u8 {
        self.generation
    }

    /// Its bytes, for the settings of a terminal.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }
}
