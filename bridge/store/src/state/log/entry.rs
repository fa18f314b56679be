//! How a row lies in the row log. Numbers are big-endian.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `RsO1` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind, below |
//! | 6 | 8 | stamp: the state's commit that wrote it |
//! | 14 | 2 | key length k |
//! | 16 | 4 | value length v |
//! | 20 | 4 | CRC32C of salt, bytes 0..20, key and value |
//! | 24 | k | key, as the caller has it |
//! | 24+k | v | value |
//!
//! | kind | what |
//! | --- | --- |
//! | 0 | a numbered row |
//! | 1 | a numbered row is deleted |
//! | 2, 3 | another row of the same commit is put, or deleted: for the case that the database never heard of it |
//! | +16 | for 0 and 2: the value is encrypted as in `encryption.rs` |
//! | 4 | end of the commit; value: how many entries it has beside this one (4) |
//! | 5 | begin of a file; value: its number (8), that of the one before it and as far as its commits went (8, 8; 0: there was none), the salt (4) |
//!
//! The salt is a random number of the directory, 0 for kind 5 itself. Who does not
//! know it can't write a payload that looks like an entry, should damage make a
//! search begin in the middle of it.

use crate::encryption::VALUE_GROWS_BYTES;
use crate::limits;

pub(super) const MAGIC: [u8; 4] = *b"RsO1";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 24;
/// Added to the kind.
const ENCRYPTED: u8 = 16;

/// The largest entry, bytes.
pub(super) const ENTRY_BYTES_MAX: usize =
    HEADER_BYTES + limits::KEY_BYTES_MAX + limits::STATE_VALUE_BYTES_MAX + VALUE_GROWS_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Row,
    RowDeleted,
    OtherPut,
    OtherDeleted,
    End,
    Begin,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Row => 0,
            Self::RowDeleted => 1,
            Self::OtherPut => 2,
            Self::OtherDeleted => 3,
            Self::End => 4,
            Self::Begin => 5,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Row,
            1 => Self::RowDeleted,
            2 => Self::OtherPut,
            3 => Self::OtherDeleted,
            4 => Self::End,
            5 => Self::Begin,
            _ => return None,
        })
    }
}

/// A decoded, checked entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) kind: Kind,
    pub(super) encrypted: bool,
    pub(super) stamp: u64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Its bytes on disk.
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.key.len() + self.value.len()
    }

    pub(super) fn encode_into(&self, bytes: &mut Vec<u8>, salt: u32) {
        let at = bytes.len();
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.push(self.kind.byte() | if self.encrypted { ENCRYPTED } else { 0 });
        bytes.extend_from_slice(&self.stamp.to_be_bytes());
        bytes.extend_from_slice(&(self.key.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&(self.value.len() as u32).to_be_bytes());
        let crc = checksum(salt, &bytes[at..], self.key, self.value);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(self.key);
        bytes.extend_from_slice(self.value);
    }

    /// Decodes the entry at the head of `bytes`; `None` if it is not whole.
    pub(super) fn decode(bytes: &'a [u8], salt: u32) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        if header[..4] != MAGIC || header[4] != VERSION {
            return None;
        }
        let kind = Kind::from_byte(header[5] & !ENCRYPTED)?;
        let salt = if kind == Kind::Begin { 0 } else { salt };
        let key_len = usize::from(u16::from_be_bytes(header[14..16].try_into().ok()?));
        let value_len = u32::from_be_bytes(header[16..20].try_into().ok()?) as usize;
        let end = HEADER_BYTES.checked_add(key_len)?.checked_add(value_len)?;
        if end > ENTRY_BYTES_MAX {
            return None;
        }
        let key = bytes.get(HEADER_BYTES..HEADER_BYTES + key_len)?;
        let value = bytes.get(HEADER_BYTES + key_len..end)?;
        let crc = u32::from_be_bytes(header[20..24].try_into().ok()?);
        if checksum(salt, &header[..20], key, value) != crc {
            return None;
        }
        Some(Self {
            kind,
            encrypted: header[5] & ENCRYPTED != 0,
            stamp: u64::from_be_bytes(header[6..14].try_into().ok()?),
            key,
            value,
        })
    }
}

fn checksum(salt: u32, header: &[u8], key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&salt.to_be_bytes()), header);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_of_an_entry_is_seen() {
        let entry = Entry {
            kind: Kind::Row,
            encrypted: false,
            stamp: 7,
            key: b"key",
            value: b"value",
        };
        let mut whole = Vec::new();
        entry.encode_into(&mut whole, 9);
        assert_eq!(Entry::decode(&whole, 9), Some(entry));
        assert_eq!(Entry::decode(&whole, 8), None, "another directory's");
        assert_eq!(whole.len(), entry.bytes());
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Entry::decode(&flipped, 9), None, "bit {bit}");
        }
    }
}
