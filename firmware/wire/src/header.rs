//! The part of a message that the gateway reads.
//!
//! Promises: [`peek`] accepts only a well-formed message of version 1, without
//! a look into its body. Never: a decision that rests on the resend mark.

use crate::cbor::{Reader, Writer};
use crate::error::{Field, WireError};
use crate::limits::SEQUENCE_MAX;
use crate::seal::Encrypt0;

/// The version that this crate writes, and the only one that it reads.
pub const VERSION: u8 = 1;

/// Elements of every message.
const ELEMENTS: u64 = 4;
/// Bits of `marks` below the kind.
const RESEND: u8 = 0b01;
const SEALED: u8 = 0b10;
const KIND_SHIFT: u32 = 2;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A payment: a record.
    Payment,
    /// The taking back of a payment: a record.
    Reversal,
    /// The answer to a record.
    Receipt,
    /// Reserved: 0 or 4 to 63. A gateway passes it on.
    Reserved(u8),
}

impl Kind {
    /// Its number in `marks`.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Payment => 1,
            Self::Reversal => 2,
            Self::Receipt => 3,
            Self::Reserved(number) => number,
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Payment,
            2 => Self::Reversal,
            3 => Self::Receipt,
            reserved => Self::Reserved(reserved),
        }
    }
}

/// What stands before the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The format's version; always [`VERSION`].
    pub version: u8,
    /// What the message is.
    pub kind: Kind,
    /// Whether the body is sealed.
    pub sealed: bool,
    /// Whether the sender may have sent it before. A hint, not authenticated.
    pub resend: bool,
    /// The record's sequence number, at most [`SEQUENCE_MAX`]; on a receipt, of
    /// the record it answers.
    pub sequence: u64,
}

impl Header {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let elements = reader.array(Field::Message, 0..=u64::MAX)?;
        // The version rules the rest, its number of elements too.
        let version = reader.uint(Field::Version, 0..=u64::MAX)?;
        if version != u64::from(VERSION) {
            return Err(WireError::UnknownVersion { version });
        }
        if elements != ELEMENTS {
            return Err(WireError::WrongType(Field::Message));
        }
        let marks = reader.uint(Field::Marks, 0..=u64::from(u8::MAX))?;
        let marks = u8::try_from(marks).map_err(|_| WireError::OutOfRange(Field::Marks))?;
        let sequence = reader.uint(Field::Sequence, 0..=SEQUENCE_MAX)?;
        Ok(Self {
            version: VERSION,
            kind: Kind::from_number(marks >> KIND_SHIFT),
            sealed: marks & SEALED != 0,
            resend: marks & RESEND != 0,
            sequence,
        })
    }

    /// Its marks as sealing vouches for them.
    pub(crate) const fn marks_without_resend(&self) -> u8 {
        self.kind.number() << KIND_SHIFT | if self.sealed { SEALED } else { 0 }
    }

    /// Writes a header that was read, with another seal mark or not; a body follows.
    pub(crate) fn write_as_it_is(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        let marks = self.marks_without_resend() | u8::from(self.resend);
        writer
            .array(ELEMENTS)?
            .uint(self.version.into())?
            .uint(marks.into())?
            .uint(self.sequence)?;
        Ok(())
    }

    /// Writes the header of an open body, which follows.
    pub(crate) fn write(
        kind: Kind,
        resend: bool,
        sequence: u64,
        writer: &mut Writer<'_>,
    ) -> Result<(), WireError> {
        if sequence > SEQUENCE_MAX {
            return Err(WireError::OutOfRange(Field::Sequence));
        }
        let header = Self {
            version: VERSION,
            kind,
            sealed: false,
            resend,
            sequence,
        };
        header.write_as_it_is(writer)
    }
}

/// Reads the header of a message and checks that the rest is one well-formed
/// body with nothing after it. It does not check what the body says.
///
/// # Errors
/// [`WireError::UnknownVersion`] for a version that is not known; anything else
/// is damage or no message of ours.
pub fn peek(bytes: &[u8]) -> Result<Header, WireError> {
    let mut reader = Reader::new(bytes);
    let header = Header::read(&mut reader)?;
    if header.sealed {
        Encrypt0::read(&mut reader)?;
    } else {
        reader.skip_body(Field::Body)?;
    }
    reader.finish()?;
    Ok(header)
}

/// Sets the resend mark of an encoded message in place; its length stays.
///
/// # Errors
/// Those of [`peek`]; the bytes are then unchanged.
pub fn mark_resend(bytes: &mut [u8]) -> Result<(), WireError> {
    peek(bytes)?;
    // The array's head and the version take a byte each; marks from 24 on stand
    // in the byte after their head. Setting the lowest bit never crosses 24.
    let at = if bytes.get(2) == Some(&0x18) { 3 } else { 2 };
    let marks = bytes
        .get_mut(at)
        .ok_or(WireError::Truncated(Field::Marks))?;
    *marks |= RESEND;
    Ok(())
}
