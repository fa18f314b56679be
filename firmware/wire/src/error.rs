//! Why bytes are no message, or a message can't become bytes.
//!
//! Promises: the field and the reason; an unknown version is never reported as
//! damage. Never: content of a message.

use core::fmt;

/// A part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of the format's table
pub enum Field {
    Message,
    Version,
    Marks,
    Sequence,
    Body,
    Time,
    Account,
    Amount,
    Currency,
    Reference,
    Reverses,
    Number,
    Status,
    BankReference,
    Lines,
    TerminalId,
    Firmware,
    Battery,
    Signal,
    Counter,
    Seal,
    Generation,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message => "message",
            Self::Version => "version",
            Self::Marks => "marks",
            Self::Sequence => "sequence",
            Self::Body => "body",
            Self::Time => "time",
            Self::Account => "account",
            Self::Amount => "amount",
            Self::Currency => "currency",
            Self::Reference => "reference",
            Self::Reverses => "reversed sequence",
            Self::Number => "receipt number",
            Self::Status => "status",
            Self::BankReference => "bank reference",
            Self::Lines => "lines",
            Self::TerminalId => "terminal id",
            Self::Firmware => "firmware version",
            Self::Battery => "battery voltage",
            Self::Signal => "signal quality",
            Self::Counter => "counter",
            Self::Seal => "seal",
            Self::Generation => "generation of the key",
        })
    }
}

/// Why bytes are no message, or a message can't become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// The sender speaks a version that this build does not know. Not damage:
    /// keep the message and update the reader.
    UnknownVersion {
        /// The version it states.
        version: u64,
    },
    /// A kind that version 1 reserves. Update the reader.
    UnknownKind {
        /// The kind it states.
        kind: u8,
    },
    /// Another kind than was asked for: a receipt where a record should be, or
    /// the other way round.
    OtherKind {
        /// The kind it states.
        kind: u8,
    },
    /// The body is sealed; it takes the key to read it.
    Sealed,
    /// The bytes end inside this field.
    Truncated(Field),
    /// Bytes follow the message.
    TrailingBytes,
    /// This field is not of its CBOR type, or has the wrong number of elements.
    WrongType(Field),
    /// This field is not in its shortest form.
    NotCanonical(Field),
    /// This field's value is outside its bounds.
    OutOfRange(Field),
    /// This field's text is not UTF-8, or holds a control character.
    BadText(Field),
    /// The buffer is too small; [`limits`](crate::limits) has sizes that suffice.
    BufferTooSmall,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVersion { version } => {
                write!(f, "version {version} is not known here: update the reader")
            }
            Self::UnknownKind { kind } => {
                write!(f, "kind {kind} is not known here: update the reader")
            }
            Self::OtherKind { kind } => write!(f, "kind {kind} is not what belongs here"),
            Self::Sealed => f.write_str("the body is sealed: it takes the key to read it"),
            Self::Truncated(field) => write!(f, "{field}: the bytes end inside it"),
            Self::TrailingBytes => f.write_str("bytes follow the message"),
            Self::WrongType(field) => write!(f, "{field}: not of its CBOR type or length"),
            Self::NotCanonical(field) => write!(f, "{field}: not in its shortest form"),
            Self::OutOfRange(field) => write!(f, "{field}: outside its bounds"),
            Self::BadText(field) => write!(f, "{field}: not UTF-8, or with a control character"),
            Self::BufferTooSmall => f.write_str("the buffer is too small for the message"),
        }
    }
}

impl core::error::Error for WireError {}
