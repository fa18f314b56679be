//! The records that a terminal sends and the receipts it gets back, as bytes; and
//! what it says of itself ([`Birth`], with a table of its own).
//!
//! Promises: one message has exactly one encoding (the shortest, RFC 8949
//! section 4.2.1), what decodes is within every bound of [`limits`], and no
//! input panics. Never: an allocation, a copy of a text, or a guess about a
//! version that is not known.
//!
//! A record, payment or reversal, takes at most 40 bytes unsealed
//! ([`limits::RECORD_BYTES_MAX`]), and 13 more sealed.
//!
//! # Format, version 1
//!
//! A message is one CBOR array, with nothing after it:
//!
//! | element | type | meaning |
//! | --- | --- | --- |
//! | version | uint | 1 |
//! | marks | uint | `kind * 4 + sealed * 2 + resend` |
//! | sequence | uint, 32 bits | a record's own number; on a receipt the number of the record it answers |
//! | body | by kind; a `COSE_Encrypt0` if sealed | |
//!
//! | kind | message | body: array of |
//! | --- | --- | --- |
//! | 1 | payment | time, account, amount, currency, and if there is one: reference |
//! | 2 | reversal | time, sequence of the payment that it takes back |
//! | 3 | receipt | number, status, time, amount, currency, bank reference or null, array of lines |
//! | 0, 4–63 | reserved | |
//!
//! | field | type | meaning |
//! | --- | --- | --- |
//! | time | uint, 32 bits | seconds since 1970-01-01 UTC; 0 = the clock was not set |
//! | account | uint | the decimal digits of the account with a `1` before them, so that leading zeros last; 1 to 18 digits |
//! | amount | uint, 32 bits | minor units of the currency; above 0 in a payment |
//! | currency | uint | ISO 4217 numeric, 1 to 999 (999 = none) |
//! | reference | text | 1 to 8 bytes |
//! | number | uint, 64 bits | the receipt's own number |
//! | status | uint, 16 bits | 0 accepted, else rejected with this [`Reason`] |
//! | bank reference | text | 1 to 24 bytes |
//! | line | text | at most 32 characters; at most 6 lines of 192 bytes in all |
//!
//! No text holds a control character: a printer would obey it. Bodies, also of
//! reserved kinds, are made of uints, texts, byte strings, arrays and null only.
//!
//! # Sealing
//!
//! Version, marks and sequence stay readable for the gateway, which needs them to
//! route, to order and to recognise a resend. The rest of a sealed message is for its
//! terminal and for settlement alone: [`seal`] has its format. These three are
//! authenticated with it, *with resend cleared*: a terminal sets that mark on a message
//! that it has sealed before. So resend is a hint that anybody could change; nothing
//! but counting may rest on it. What is sealed is opened by [`seal::open`], and told
//! apart by [`WireError::Sealed`] where it is not.
#![no_std]

mod birth;
pub mod card;
mod cbor;
mod error;
mod header;
pub mod limits;
mod money;
mod receipt;
mod record;
pub mod seal;
mod terminal;

pub use birth::{BIRTH_VERSION, Birth, LOST, Standing};
pub use error::{Field, WireError};
pub use header::{Header, Kind, VERSION, mark_resend, peek};
pub use money::{Account, Currency};
pub use receipt::{Lines, Reason, Receipt, Status};
pub use record::{Payment, Record, RecordBody, Reversal};
pub use terminal::validate_terminal_id;
