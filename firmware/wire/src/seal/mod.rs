//! Sealing: a message that only its terminal and settlement can make or read.
//!
//! Promises: what [`open`] gives was sealed with the same key, for this terminal, and
//! nothing of it was changed but the resend mark, which is outside; sealing the same
//! message again gives the same bytes; two messages share a nonce only if they are the
//! same. Never: an allocation, a random source, a key in an error or in `Debug`.
//!
//! # Format
//!
//! The body of a sealed message is a `COSE_Encrypt0` (RFC 9052, section 5.2):
//!
//! | element | type | meaning |
//! | --- | --- | --- |
//! | protected | bytes | empty |
//! | unprotected | map | 4 (kid): the key's generation, one byte, absent if it is 1; 6 (Partial IV): a receipt's number, big-endian, without leading zeros |
//! | ciphertext | bytes | the body's content, then a tag of 8 bytes |
//!
//! Content is of a record the body as it is when open; of a receipt what follows
//! the number in it, as a CBOR sequence: the number is the Partial IV.
//!
//! The algorithm is AES-CCM-16-64-128 (COSE algorithm 10; RFC 3610, RFC 9053): a tag
//! of 8 bytes, which no other AEAD in COSE has. It is not in the message but in the
//! authenticated data, as in OSCORE (RFC 8613, section 5.4). Should a nonce ever serve
//! two messages, CCM shows how they differ; ChaCha20-Poly1305 and GCM would give away
//! what forges others.
//!
//! | nonce | bytes | |
//! | --- | --- | --- |
//! | direction | 1 | 0 record, 1 receipt |
//! | sequence | 4 | big-endian |
//! | number | 8 | big-endian; of the receipt, 0 in a record |
//!
//! A terminal never uses a sequence number twice, and settlement answers one with
//! other content under another number. So a terminal that lost its counter (a flash
//! erased or replaced) **must** get keys of another generation.
//!
//! | external authenticated data: array of | |
//! | --- | --- |
//! | version, marks, sequence | as they stand in the message, with resend cleared |
//! | terminal | its id, text |
//! | direction | as in the nonce |
//! | generation | of the key |
//! | algorithm | 10 |
//!
//! # Keys
//!
//! Each is 16 bytes of HKDF-SHA256 (RFC 5869) of the site's root, without salt:
//!
//! | info | bytes |
//! | --- | --- |
//! | context | `risiti seal 1` |
//! | length of the id, the id | 1, 1 to 23 |
//! | generation | 1: from 1 to 255 |
//! | direction | 1 |
//!
//! So there is a key for each terminal, generation and direction: what one terminal
//! knows opens nothing of another's, and a record can't come back as a receipt.
//!
//! Or a terminal makes its two keys itself, 32 random bytes, and they are enrolled with
//! settlement once, by a [`code`]; of that generation none is derived then.

pub mod code;
mod cose;
mod key;

use core::fmt;

use ccm::aead::KeyInit;
use ccm::aead::inout::InOutBuf;
use ccm::consts::{U8, U13};
use ccm::{AeadInOut, Ccm, Nonce, Tag};

use crate::cbor::{Reader, Writer};
use crate::error::{Field, WireError};
use crate::header::{Header, Kind};
use crate::limits::{SEAL_TAG_BYTES, TERMINAL_ID_BYTES_MAX};
use crate::terminal::validate_terminal_id;

pub(crate) use cose::Encrypt0;
pub use key::{FIRST_GENERATION, KEY_BYTES, Key, ROOT_BYTES, Root};

/// AES-CCM-16-64-128: a tag of 64 bits, lengths of 16, so a nonce of 13 bytes.
type Cipher = Ccm<aes::Aes128Enc, U8, U13>;

/// Its number in the registry of COSE.
const ALGORITHM: u64 = 10;

/// Elements of a receipt's body, the number among them.
const RECEIPT_ELEMENTS: u64 = 7;

/// Bytes of the external authenticated data: at most 13 of uints, and an id with its
/// head.
const EXTERNAL_BYTES_MAX: usize = 13 + 1 + TERMINAL_ID_BYTES_MAX;

/// And with what COSE puts around them: two heads, the context, the empty header.
const AUTHENTICATED_BYTES_MAX: usize = EXTERNAL_BYTES_MAX + 13;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a terminal: records.
    Up,
    /// To a terminal: receipts.
    Down,
}

impl Direction {
    const fn number(self) -> u8 {
        match self {
            Self::Up => 0,
            Self::Down => 1,
        }
    }
}

impl Kind {
    /// Which way it goes; none of a kind that is not known.
    const fn direction(self) -> Option<Direction> {
        match self {
            Self::Payment | Self::Reversal => Some(Direction::Up),
            Self::Receipt => Some(Direction::Down),
            Self::Reserved(_) => None,
        }
    }
}

/// Why a message can't be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// It is no message, or does not fit.
    Wire(WireError),
    /// It is not sealed.
    Open,
    /// It is sealed already.
    Sealed,
    /// The key is for the other direction.
    OtherDirection,
    /// It says that it was sealed with a key of this generation.
    OtherGeneration(u8),
    /// It was not sealed with this key for this terminal and number, or was changed.
    Forged,
}

impl From<WireError> for SealError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => error.fmt(f),
            Self::Open => f.write_str("it is not sealed"),
            Self::Sealed => f.write_str("it is sealed already"),
            Self::OtherDirection => f.write_str("the key is for the other direction"),
            Self::OtherGeneration(generation) => {
                write!(f, "it is sealed with a key of generation {generation}")
            }
            Self::Forged => {
                f.write_str("the seal is not this terminal's, or what it covers was changed")
            }
        }
    }
}

impl core::error::Error for SealError {}

/// The generation of the key that a message says it is sealed with; none if it is
/// open. Nobody vouches for it before the seal is opened.
///
/// # Errors
/// Those of [`peek`](crate::peek).
pub fn generation(message: &[u8]) -> Result<Option<u8>, WireError> {
    let mut reader = Reader::new(message);
    let header = Header::read(&mut reader)?;
    if !header.sealed {
        crate::peek(message)?;
        return Ok(None);
    }
    let body = Encrypt0::read(&mut reader)?;
    reader.finish()?;
    Ok(Some(body.generation))
}

/// Seals a message into a buffer and returns what was written;
/// [`SEALED_RECORD_BYTES_MAX`](crate::limits::SEALED_RECORD_BYTES_MAX) and
/// [`SEALED_RECEIPT_BYTES_MAX`](crate::limits::SEALED_RECEIPT_BYTES_MAX) bytes
/// suffice. A resend mark stays as it is.
///
/// # Errors
/// [`SealError`], but never `Forged`.
pub fn seal<'b>(
    key: &Key,
    terminal: &str,
    message: &[u8],
    into: &'b mut [u8],
) -> Result<&'b [u8], SealError> {
    validate_terminal_id(terminal)?;
    crate::peek(message)?;
    let mut reader = Reader::new(message);
    let header = Header::read(&mut reader)?;
    if header.sealed {
        return Err(SealError::Sealed);
    }
    require_direction(&header, key)?;
    let number = match key.direction() {
        Direction::Up => None,
        Direction::Down => {
            reader.array(Field::Body, RECEIPT_ELEMENTS..=RECEIPT_ELEMENTS)?;
            Some(reader.uint(Field::Number, 0..=u64::MAX)?)
        }
    };
    let content = reader.rest();
    let header = Header {
        sealed: true,
        ..header
    };
    let mut writer = Writer::new(into);
    header.write_as_it_is(&mut writer)?;
    let body = Encrypt0 {
        generation: key.generation(),
        number,
        ciphertext: &[],
    };
    body.write_head(content.len() + SEAL_TAG_BYTES, &mut writer)?;
    let at = writer.finish().len();
    let room = into.get_mut(at..).unwrap_or(&mut []);
    let (ciphertext, room) = room
        .split_at_mut_checked(content.len())
        .ok_or(WireError::BufferTooSmall)?;
    let tag_at = room
        .first_chunk_mut::<SEAL_TAG_BYTES>()
        .ok_or(WireError::BufferTooSmall)?;
    ciphertext.copy_from_slice(content);
    let mut authenticated = [0; AUTHENTICATED_BYTES_MAX];
    let authenticated = authenticate(&header, key, terminal, &mut authenticated)?;
    let tag = Cipher::new(&(*key.expose()).into())
        .encrypt_inout_detached(
            &nonce(&header, key, number),
            authenticated,
            InOutBuf::from(ciphertext),
        )
        .map_err(|_| WireError::BufferTooSmall)?;
    tag_at.copy_from_slice(&tag);
    let end = at + content.len() + SEAL_TAG_BYTES;
    Ok(into.get(..end).unwrap_or(&[]))
}

/// Opens a sealed message into a buffer and returns the message as it was before it
/// was sealed; [`RECORD_BYTES_MAX`](crate::limits::RECORD_BYTES_MAX) and
/// [`RECEIPT_BYTES_MAX`](crate::limits::RECEIPT_BYTES_MAX) bytes suffice for what is
/// within bounds. The resend mark is as it came: nobody vouches for it.
///
/// # Errors
/// [`SealError`]; the buffer then holds nothing of the message.
pub fn open<'b>(
    key: &Key,
    terminal: &str,
    message: &[u8],
    into: &'b mut [u8],
) -> Result<&'b [u8], SealError> {
    validate_terminal_id(terminal)?;
    let mut reader = Reader::new(message);
    let header = Header::read(&mut reader)?;
    if !header.sealed {
        return Err(SealError::Open);
    }
    require_direction(&header, key)?;
    let body = Encrypt0::read(&mut reader)?;
    reader.finish()?;
    if body.generation != key.generation() {
        return Err(SealError::OtherGeneration(body.generation));
    }
    if body.number.is_some() != (key.direction() == Direction::Down) {
        return Err(SealError::Forged);
    }
    let (ciphertext, tag) = body
        .ciphertext
        .split_last_chunk::<SEAL_TAG_BYTES>()
        .ok_or(SealError::Forged)?;
    let open = Header {
        sealed: false,
        ..header
    };
    let mut writer = Writer::new(into);
    open.write_as_it_is(&mut writer)?;
    if let Some(number) = body.number {
        writer.array(RECEIPT_ELEMENTS)?.uint(number)?;
    }
    let at = writer.finish().len();
    let end = at + ciphertext.len();
    let content = into.get_mut(at..end).ok_or(WireError::BufferTooSmall)?;
    content.copy_from_slice(ciphertext);
    let mut authenticated = [0; AUTHENTICATED_BYTES_MAX];
    let authenticated = authenticate(&header, key, terminal, &mut authenticated)?;
    let opened = Cipher::new(&(*key.expose()).into()).decrypt_inout_detached(
        &nonce(&header, key, body.number),
        authenticated,
        InOutBuf::from(&mut *content),
        &Tag::from(*tag),
    );
    if opened.is_err() {
        content.fill(0);
        return Err(SealError::Forged);
    }
    Ok(into.get(..end).unwrap_or(&[]))
}

fn require_direction(header: &Header, key: &Key) -> Result<(), SealError> {
    match header.kind.direction() {
        None => Err(SealError::Wire(WireError::UnknownKind {
            kind: header.kind.number(),
        })),
        Some(direction) if direction != key.direction() => Err(SealError::OtherDirection),
        Some(_) => Ok(()),
    }
}

fn nonce(header: &Header, key: &Key, number: Option<u64>) -> Nonce<U13> {
    let mut nonce = Nonce::<U13>::default();
    let [direction, rest @ ..] = &mut nonce.0;
    *direction = key.direction().number();
    // The header's bound on sequence numbers is 32 bits.
    let sequence = (header.sequence as u32).to_be_bytes();
    let number = number.unwrap_or(0).to_be_bytes();
    for (byte, of) in rest.iter_mut().zip(sequence.iter().chain(&number)) {
        *byte = *of;
    }
    nonce
}

/// The `Enc_structure` (RFC 9052, section 5.3): `["Encrypt0", h'', external_aad]`.
fn authenticate<'b>(
    header: &Header,
    key: &Key,
    terminal: &str,
    into: &'b mut [u8; AUTHENTICATED_BYTES_MAX],
) -> Result<&'b [u8], WireError> {
    let mut external = [0; EXTERNAL_BYTES_MAX];
    let mut writer = Writer::new(&mut external);
    writer
        .array(7)?
        .uint(header.version.into())?
        .uint(header.marks_without_resend().into())?
        .uint(header.sequence)?
        .text(terminal)?
        .uint(key.direction().number().into())?
        .uint(key.generation().into())?
        .uint(ALGORITHM)?;
    let external = writer.finish();
    let mut writer = Writer::new(into);
    writer
        .array(3)?
        .text("Encrypt0")?
        .bytes(&[])?
        .bytes(external)?;
    Ok(writer.finish())
}

#[cfg(test)]
mod tests;
