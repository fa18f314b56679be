//! What a terminal gets back.
//!
//! Promises: what encodes is decoded by [`Receipt::decode`] to the same
//! receipt, and what decodes encodes to the same bytes; a line fits the printer
//! and can't command it. Never: a layout; how a receipt looks is the terminal's.

use core::fmt;

use crate::cbor::{Reader, Writer, check_text};
use crate::error::{Field, WireError};
use crate::header::{Header, Kind};
use crate::limits::{
    AMOUNT_MINOR_MAX, BANK_REFERENCE_BYTES_MAX, LINE_CHARS_MAX, LINES_BYTES_MAX, LINES_MAX,
};
use crate::money::Currency;
use crate::record::{read_currency, read_time};

/// Elements of a receipt's body.
const ELEMENTS: u64 = 7;

/// The answer to one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt<'a> {
    /// The sequence number of the record it answers, at most
    /// [`SEQUENCE_MAX`](crate::limits::SEQUENCE_MAX).
    pub sequence: u64,
    /// Its own number.
    pub number: u64,
    /// Whether the record was accepted.
    pub status: Status,
    /// When that was decided, in seconds since 1970 UTC.
    pub time_s: u32,
    /// The amount accepted or rejected, in minor units of the currency.
    pub amount_minor: u64,
    /// Its currency; [`Currency::NONE`] if the record could not be read.
    pub currency: Currency,
    /// The bank's own reference, if the record was booked.
    pub bank_reference: Option<&'a str>,
    /// Lines to print as they are.
    pub lines: Lines<'a>,
}

/// Whether a record was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is final.
    Accepted,
    /// It is not, and won't be.
    Rejected(Reason),
}

/// Why a record was rejected: a code from 1 to 65535. Codes that are not named
/// here are carried as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(u16);

impl Reason {
    /// The record could not be read.
    pub const UNREADABLE: Self = Self(1);
    /// The seal did not verify.
    pub const SEAL: Self = Self(2);
    /// The terminal is not known, or revoked.
    pub const TERMINAL: Self = Self(3);
    /// There is no such account.
    pub const ACCOUNT: Self = Self(4);
    /// The account does not take this currency.
    pub const CURRENCY: Self = Self(5);
    /// The amount is above what a terminal may take, at once or in a day.
    pub const LIMIT: Self = Self(6);
    /// The payment to take back does not exist, or was taken back before.
    pub const REVERSAL: Self = Self(7);
    /// The number was used before, for a record with other content.
    pub const CONFLICT: Self = Self(8);
    /// The number is so low that nobody knows any more whether it was used.
    pub const TOO_OLD: Self = Self(9);

    /// A reason from its code.
    ///
    /// # Errors
    /// `OutOfRange` for 0, which means accepted.
    pub fn new(code: u16) -> Result<Self, WireError> {
        if code > 0 {
            Ok(Self(code))
        } else {
            Err(WireError::OutOfRange(Field::Status))
        }
    }

    /// The code.
    #[must_use]
    pub fn code(self) -> u16 {
        self.0
    }

    /// What it says to people, if it is one that is named here.
    #[must_use]
    pub fn text(self) -> Option<&'static str> {
        Some(match self {
            Self::UNREADABLE => "record unreadable",
            Self::SEAL => "seal not valid",
            Self::TERMINAL => "terminal not known",
            Self::ACCOUNT => "account not known",
            Self::CURRENCY => "currency not taken",
            Self::LIMIT => "limit exceeded",
            Self::REVERSAL => "nothing to take back",
            Self::CONFLICT => "number used before",
            Self::TOO_OLD => "number too old",
            Self(_) => return None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "reason {}", self.0),
        }
    }
}

impl Status {
    fn code(self) -> u16 {
        match self {
            Self::Accepted => 0,
            Self::Rejected(reason) => reason.0,
        }
    }

    fn from_code(code: u16) -> Self {
        Reason::new(code).map_or(Self::Accepted, Self::Rejected)
    }
}

/// Lines to print: at most 6 of 32 characters, of 192 bytes in all.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Lines<'a> {
    lines: [&'a str; LINES_MAX],
    count: usize,
}

impl<'a> Lines<'a> {
    /// Lines from texts.
    ///
    /// # Errors
    /// `OutOfRange` for too many, too long or too many bytes in all; `BadText`
    /// for a control character.
    pub fn new(texts: &[&'a str]) -> Result<Self, WireError> {
        let mut lines = Self::default();
        let mut bytes = 0;
        for text in texts {
            bytes += text.len();
            lines.push(text, bytes)?;
        }
        Ok(lines)
    }

    /// The lines, from the first.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.lines.iter().take(self.count).copied()
    }

    fn push(&mut self, text: &'a str, bytes_in_all: usize) -> Result<(), WireError> {
        check_text(text, Field::Lines, 0..=LINES_BYTES_MAX)?;
        if bytes_in_all > LINES_BYTES_MAX || text.chars().nth(LINE_CHARS_MAX).is_some() {
            return Err(WireError::OutOfRange(Field::Lines));
        }
        *self
            .lines
            .get_mut(self.count)
            .ok_or(WireError::OutOfRange(Field::Lines))? = text;
        self.count += 1;
        Ok(())
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.array(Field::Lines, 0..=LINES_MAX as u64)?;
        let mut lines = Self::default();
        let mut bytes = 0;
        for _ in 0..count {
            let text = reader.text(Field::Lines, 0..=LINES_BYTES_MAX)?;
            bytes += text.len();
            lines.push(text, bytes)?;
        }
        Ok(lines)
    }
}

impl fmt::Debug for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Receipt<'a> {
    /// Reads a receipt; its texts are borrowed from the bytes.
    ///
    /// # Errors
    /// The first field that is wrong, and why.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader)?;
        match header.kind {
            Kind::Receipt if header.resend => return Err(WireError::OutOfRange(Field::Marks)),
            Kind::Receipt if header.sealed => return Err(WireError::Sealed),
            Kind::Receipt => {}
            Kind::Reserved(kind) => return Err(WireError::UnknownKind { kind }),
            other => {
                return Err(WireError::OtherKind {
                    kind: other.number(),
                });
            }
        }
        reader.array(Field::Body, ELEMENTS..=ELEMENTS)?;
        let receipt = Self {
            sequence: header.sequence,
            number: reader.uint(Field::Number, 0..=u64::MAX)?,
            status: read_status(&mut reader)?,
            time_s: read_time(&mut reader)?,
            amount_minor: reader.uint(Field::Amount, 0..=AMOUNT_MINOR_MAX)?,
            currency: read_currency(&mut reader)?,
            bank_reference: if reader.take_null(Field::BankReference)? {
                None
            } else {
                Some(reader.text(Field::BankReference, 1..=BANK_REFERENCE_BYTES_MAX)?)
            },
            lines: Lines::read(&mut reader)?,
        };
        reader.finish()?;
        Ok(receipt)
    }

    /// Writes a receipt into a buffer and returns what was written;
    /// [`RECEIPT_BYTES_MAX`](crate::limits::RECEIPT_BYTES_MAX) bytes suffice.
    ///
    /// # Errors
    /// The first field that is out of bounds, or `BufferTooSmall`.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], WireError> {
        if self.amount_minor > AMOUNT_MINOR_MAX {
            return Err(WireError::OutOfRange(Field::Amount));
        }
        let mut writer = Writer::new(buffer);
        Header::write(Kind::Receipt, false, self.sequence, &mut writer)?;
        writer
            .array(ELEMENTS)?
            .uint(self.number)?
            .uint(self.status.code().into())?
            .uint(self.time_s.into())?;
        writer
            .uint(self.amount_minor)?
            .uint(self.currency.code().into())?;
        match self.bank_reference {
            Some(reference) => {
                check_text(
                    reference,
                    Field::BankReference,
                    1..=BANK_REFERENCE_BYTES_MAX,
                )?;
                writer.text(reference)?;
            }
            None => {
                writer.null()?;
            }
        }
        writer.array(self.lines.count as u64)?;
        for line in self.lines.iter() {
            writer.text(line)?;
        }
        Ok(writer.finish())
    }
}

fn read_status(reader: &mut Reader<'_>) -> Result<Status, WireError> {
    let code = reader.uint(Field::Status, 0..=u16::MAX.into())?;
    let code = u16::try_from(code).map_err(|_| WireError::OutOfRange(Field::Status))?;
    Ok(Status::from_code(code))
}
