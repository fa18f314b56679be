//! How one entry of the state database lies on disk.
//!
//! Every value sled holds is an envelope that names its own key, so that it can
//! be found in raw bytes, checked, and put in order when sled's own structure
//! is gone. Numbers are big-endian.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `RsS1` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind: 0 value, 1 tombstone, 2 head of a large value, 3 piece of one; +16: the value, or what the pieces of a head hold, is encrypted as in `encryption.rs` |
//! | 6 | 8 | stamp: the commit that wrote it; grows, also over restarts |
//! | 14 | 8 | the last stamp known to be durable when this was written |
//! | 22 | 2 | entries of its atomic batch (0: not part of one) |
//! | 24 | 2 | key length k |
//! | 26 | 4 | value length v |
//! | 30 | 4 | CRC32C of bytes 0..30, key and value |
//! | 34 | k | key, as sled has it |
//! | 34+k | v | value |
//!
//! Keys as sled has them: `00 key` an entry; `01 key-length(2) key piece(2)` a
//! piece of a large value; `02` the last stamp of the latest commit group; `03`
//! how far the row log reached with it: file (4), length (8), salt (4).
//! A head's value: total length (4), pieces (2), CRC32C of the whole (4).
//!
//! A stamp is `life << 40 | count`: each opening begins a new life.

use crate::limits;

pub(crate) const MAGIC: [u8; 4] = *b"RsS1";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 34;
/// Added to the kind.
const ENCRYPTED: u8 = 16;

/// The largest envelope, bytes.
pub(crate) const ENVELOPE_BYTES_MAX: usize = limits::STATE_ENTRY_BYTES_MAX;

/// The bytes of a large value that one piece takes: with header and key it
/// stays within [`limits::STATE_ENTRY_BYTES_MAX`].
pub(crate) const PIECE_BYTES: usize =
    limits::STATE_ENTRY_BYTES_MAX - HEADER_BYTES - limits::KEY_BYTES_MAX - 8;

/// Where stamps of one life begin.
pub(crate) const LIFE_SHIFT: u32 = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Value,
    Tombstone,
    Head,
    Piece,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Value => 0,
            Self::Tombstone => 1,
            Self::Head => 2,
            Self::Piece => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Value,
            1 => Self::Tombstone,
            2 => Self::Head,
            3 => Self::Piece,
            _ => return None,
        })
    }
}

/// A decoded, checked envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) kind: Kind,
    pub(crate) encrypted: bool,
    pub(crate) stamp: u64,
    pub(crate) durable_stamp: u64,
    pub(crate) batch_entries: u16,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.key.len() + self.value.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.push(self.kind.byte() | if self.encrypted { ENCRYPTED } else { 0 });
        bytes.extend_from_slice(&self.stamp.to_be_bytes());
        bytes.extend_from_slice(&self.durable_stamp.to_be_bytes());
        bytes.extend_from_slice(&self.batch_entries.to_be_bytes());
        bytes.extend_from_slice(&(self.key.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&(self.value.len() as u32).to_be_bytes());
        let crc = checksum(&bytes, self.key, self.value);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(self.key);
        bytes.extend_from_slice(self.value);
        bytes
    }

    /// Decodes the envelope at the head of `bytes`; `None` if it is not whole.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let header = bytes.get(..HEADER_BYTES)?;
        if header[..4] != MAGIC || header[4] != VERSION {
            return None;
        }
        let kind = Kind::from_byte(header[5] & !ENCRYPTED)?;
        let key_len = usize::from(u16::from_be_bytes(header[24..26].try_into().ok()?));
        let value_len = u32::from_be_bytes(header[26..30].try_into().ok()?) as usize;
        let end = HEADER_BYTES.checked_add(key_len)?.checked_add(value_len)?;
        if end > ENVELOPE_BYTES_MAX {
            return None;
        }
        let key = bytes.get(HEADER_BYTES..HEADER_BYTES + key_len)?;
        let value = bytes.get(HEADER_BYTES + key_len..end)?;
        let crc = u32::from_be_bytes(header[30..34].try_into().ok()?);
        if checksum(&header[..30], key, value) != crc {
            return None;
        }
        let envelope = Self {
            kind,
            encrypted: header[5] & ENCRYPTED != 0,
            stamp: u64::from_be_bytes(header[6..14].try_into().ok()?),
            durable_stamp: u64::from_be_bytes(header[14..22].try_into().ok()?),
            batch_entries: u16::from_be_bytes(header[22..24].try_into().ok()?),
            key,
            value,
        };
        Some((envelope, end))
    }

    /// Decodes what sled returned for `key`; `None` if it is damaged, or
    /// belongs to another key.
    pub(crate) fn decode_for(key: &[u8], bytes: &'a [u8]) -> Option<Self> {
        let (envelope, end) = Self::decode(bytes)?;
        (end == bytes.len() && envelope.key == key).then_some(envelope)
    }
}

fn checksum(header: &[u8], key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(header);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

/// The key of an entry, as sled has it.
pub(crate) fn entry_key(key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 1);
    stored.push(ENTRY);
    stored.extend_from_slice(key);
    stored
}

/// The key of a piece of a large value, as sled has it.
pub(crate) fn piece_key(key: &[u8], piece: u16) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 5);
    stored.push(PIECE);
    stored.extend_from_slice(&(key.len() as u16).to_be_bytes());
    stored.extend_from_slice(key);
    stored.extend_from_slice(&piece.to_be_bytes());
    stored
}

pub(crate) const ENTRY: u8 = 0;
pub(crate) const PIECE: u8 = 1;
pub(crate) const LAST_STAMP_KEY: &[u8] = &[2];
pub(crate) const LOG_END_KEY: &[u8] = &[3];

/// What the head of a large value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) total_bytes: usize,
    pub(crate) pieces: u16,
    pub(crate) crc: u32,
}

impl Head {
    pub(crate) fn of(value: &[u8]) -> Self {
        Self {
            total_bytes: value.len(),
            pieces: value.len().div_ceil(PIECE_BYTES) as u16,
            crc: crc32c::crc32c(value),
        }
    }

    pub(crate) fn encode(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&(self.total_bytes as u32).to_be_bytes());
        bytes[4..6].copy_from_slice(&self.pieces.to_be_bytes());
        bytes[6..].copy_from_slice(&self.crc.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 10] = bytes.try_into().ok()?;
        Some(Self {
            total_bytes: u32::from_be_bytes(bytes[..4].try_into().ok()?) as usize,
            pieces: u16::from_be_bytes(bytes[4..6].try_into().ok()?),
            crc: u32::from_be_bytes(bytes[6..].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_of_an_envelope_is_seen() {
        let whole = Envelope {
            kind: Kind::Value,
            encrypted: false,
            stamp: 5,
            durable_stamp: 4,
            batch_entries: 2,
            key: b"key",
            value: b"some value",
        }
        .encode();
        assert!(Envelope::decode_for(b"key", &whole).is_some());
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Envelope::decode_for(b"key", &flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn the_largest_piece_stays_below_the_blob_threshold() {
        let key = piece_key(&[7; limits::KEY_BYTES_MAX], u16::MAX);
        let piece = Envelope {
            kind: Kind::Piece,
            encrypted: false,
            stamp: u64::MAX,
            durable_stamp: u64::MAX,
            batch_entries: u16::MAX,
            key: &key,
            value: &[1; PIECE_BYTES],
        };
        assert!(piece.encode().len() <= limits::STATE_ENTRY_BYTES_MAX);
    }
}
