//! What a terminal sends.
//!
//! Promises: what encodes is decoded by [`Record::decode`] to the same record,
//! and what decodes encodes to the same bytes. Never: a record outside the
//! bounds of [`limits`](crate::limits), in either direction.

use crate::cbor::{Reader, Writer, check_text};
use crate::error::{Field, WireError};
use crate::header::{Header, Kind};
use crate::limits::{AMOUNT_MINOR_MAX, CURRENCY_MAX, REFERENCE_BYTES_MAX, SEQUENCE_MAX};
use crate::money::{Account, Currency};

/// A record: what a terminal publishes, identified by (terminal, sequence).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number, at most [`SEQUENCE_MAX`]; a terminal never uses one twice.
    pub sequence: u64,
    /// Whether it may have been sent before.
    pub resend: bool,
    /// What it says.
    pub body: RecordBody<'a>,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordBody<'a> {
    /// Money was paid in.
    Payment(Payment<'a>),
    /// An earlier payment is taken back.
    Reversal(Reversal),
}

/// Money paid in at a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment<'a> {
    /// When, in seconds since 1970 UTC; 0 = the clock was not set.
    pub time_s: u32,
    /// To which account.
    pub account: Account,
    /// How much, in minor units of the currency: 1 to [`AMOUNT_MINOR_MAX`].
    pub amount_minor: u64,
    /// In which currency.
    pub currency: Currency,
    /// What for: a pupil's or an invoice's number, 1 to [`REFERENCE_BYTES_MAX`]
    /// bytes.
    pub reference: Option<&'a str>,
}

/// The taking back of a payment of the same terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reversal {
    /// When, in seconds since 1970 UTC; 0 = the clock was not set.
    pub time_s: u32,
    /// The sequence number of the payment, below the reversal's own.
    pub reverses: u64,
}

impl<'a> Record<'a> {
    /// Reads a record; its texts are borrowed from the bytes.
    ///
    /// # Errors
    /// The first field that is wrong, and why.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let header = Header::read(&mut reader)?;
        let body = match header.kind {
            Kind::Payment | Kind::Reversal if header.sealed => return Err(WireError::Sealed),
            Kind::Payment => RecordBody::Payment(Payment::read(&mut reader)?),
            Kind::Reversal => RecordBody::Reversal(Reversal::read(&mut reader, header.sequence)?),
            Kind::Receipt => {
                return Err(WireError::OtherKind {
                    kind: header.kind.number(),
                });
            }
            Kind::Reserved(kind) => return Err(WireError::UnknownKind { kind }),
        };
        reader.finish()?;
        Ok(Self {
            sequence: header.sequence,
            resend: header.resend,
            body,
        })
    }

    /// Writes a record into a buffer and returns what was written;
    /// [`RECORD_BYTES_MAX`](crate::limits::RECORD_BYTES_MAX) bytes suffice.
    ///
    /// # Errors
    /// The first field that is out of bounds, or `BufferTooSmall`.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], WireError> {
        let mut writer = Writer::new(buffer);
        match &self.body {
            RecordBody::Payment(payment) => {
                Header::write(Kind::Payment, self.resend, self.sequence, &mut writer)?;
                payment.write(&mut writer)?;
            }
            RecordBody::Reversal(reversal) => {
                Header::write(Kind::Reversal, self.resend, self.sequence, &mut writer)?;
                reversal.write(&mut writer, self.sequence)?;
            }
        }
        Ok(writer.finish())
    }
}

impl<'a> Payment<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let elements = reader.array(Field::Body, 4..=5)?;
        Ok(Self {
            time_s: read_time(reader)?,
            account: Account::from_marked(reader.uint(Field::Account, 0..=u64::MAX)?)?,
            amount_minor: reader.uint(Field::Amount, 1..=AMOUNT_MINOR_MAX)?,
            currency: read_currency(reader)?,
            reference: match elements {
                5 => Some(reader.text(Field::Reference, 1..=REFERENCE_BYTES_MAX)?),
                _ => None,
            },
        })
    }

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        if !(1..=AMOUNT_MINOR_MAX).contains(&self.amount_minor) {
            return Err(WireError::OutOfRange(Field::Amount));
        }
        writer
            .array(if self.reference.is_some() { 5 } else { 4 })?
            .uint(self.time_s.into())?;
        writer
            .uint(self.account.marked())?
            .uint(self.amount_minor)?
            .uint(self.currency.code().into())?;
        if let Some(reference) = self.reference {
            check_text(reference, Field::Reference, 1..=REFERENCE_BYTES_MAX)?;
            writer.text(reference)?;
        }
        Ok(())
    }
}

impl Reversal {
    fn read(reader: &mut Reader<'_>, sequence: u64) -> Result<Self, WireError> {
        reader.array(Field::Body, 2..=2)?;
        let time_s = read_time(reader)?;
        let reverses = reader.uint(Field::Reverses, 0..=SEQUENCE_MAX)?;
        check_reverses(reverses, sequence)?;
        Ok(Self { time_s, reverses })
    }

    fn write(&self, writer: &mut Writer<'_>, sequence: u64) -> Result<(), WireError> {
        check_reverses(self.reverses, sequence)?;
        writer
            .array(2)?
            .uint(self.time_s.into())?
            .uint(self.reverses)?;
        Ok(())
    }
}

/// Only what was sent before can be taken back.
fn check_reverses(reverses: u64, sequence: u64) -> Result<(), WireError> {
    if reverses < sequence {
        Ok(())
    } else {
        Err(WireError::OutOfRange(Field::Reverses))
    }
}

pub(crate) fn read_time(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    let time_s = reader.uint(Field::Time, 0..=u32::MAX.into())?;
    u32::try_from(time_s).map_err(|_| WireError::OutOfRange(Field::Time))
}

pub(crate) fn read_currency(reader: &mut Reader<'_>) -> Result<Currency, WireError> {
    let code = reader.uint(Field::Currency, 1..=CURRENCY_MAX.into())?;
    u16::try_from(code)
        .map_err(|_| WireError::OutOfRange(Field::Currency))
        .and_then(Currency::new)
}
