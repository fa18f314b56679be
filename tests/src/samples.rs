//! Messages of the wire format as tests send them, as bytes.
//!
//! Promises: each is valid; [`receipt`] gives the same bytes for the same number.

use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX};
use risiti_wire::{Currency, Lines, Receipt, Record, RecordBody, Status};

/// A terminal's first sending of a record.
///
/// # Panics
/// It is outside the bounds of the format.
#[must_use]
pub fn record(sequence: u64, body: RecordBody<'_>) -> Vec<u8> {
    let record = Record {
        sequence,
        resend: false,
        body,
    };
    let mut buffer = [0; RECORD_BYTES_MAX];
    record.encode(&mut buffer).expect("within bounds").to_vec()
}

/// The receipt of an accepted payment, whose number is that of its record.
///
/// # Panics
/// The number is outside the bounds of the format.
#[must_use]
pub fn receipt(sequence: u64) -> Vec<u8> {
    let receipt = Receipt {
        sequence,
        number: sequence,
        status: Status::Accepted,
        time_s: 1_700_000_000,
        amount_minor: 500,
        currency: Currency::NONE,
        bank_reference: None,
        lines: Lines::default(),
    };
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    receipt.encode(&mut buffer).expect("within bounds").to_vec()
}
