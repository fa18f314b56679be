//! Receipts: their number, and their bytes.
//!
//! Promises: a receipt follows from its record's place and time in Kafka and from
//! what was decided. Never: a clock.

use risiti_wire::limits::RECEIPT_BYTES_MAX;
use risiti_wire::{Currency, Lines, Reason, Receipt, RecordBody, Status};

use super::core::Decision;
use crate::limits;

/// The number of a receipt, from its record's place in Kafka: unique, above 0, and
/// the same whenever the record is read.
#[must_use]
pub fn receipt_number(partition: i32, offset: i64) -> u64 {
    let places = u64::from(limits::SETTLEMENT_PARTITIONS_MAX.unsigned_abs());
    offset
        .unsigned_abs()
        .saturating_mul(places)
        .saturating_add(u64::from(partition.unsigned_abs()) + 1)
}

/// The receipt for a record whose number is settled with other content. It says
/// that *this* payment does not count; a terminal whose counter was set back must
/// not wait for ever. The first receipt stays what it is.
pub(super) fn conflict(
    decision: &Decision,
    sequence: u64,
    body: Option<&RecordBody<'_>>,
) -> Vec<u8> {
    let (amount_minor, currency) = match body {
        Some(RecordBody::Payment(payment)) => (payment.amount_minor, payment.currency.code()),
        _ => (0, Currency::NONE.code()),
    };
    let code = Reason::CONFLICT.code();
    write(decision, sequence, code, amount_minor, currency, None)
}

/// Writes the receipt for a decision.
pub(super) fn write(
    decision: &Decision,
    sequence: u64,
    status: u16,
    amount_minor: u64,
    currency: u16,
    bank_reference: Option<&str>,
) -> Vec<u8> {
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    let mut receipt = Receipt {
        sequence,
        number: decision.number,
        status: Reason::new(status).map_or(Status::Accepted, Status::Rejected),
        time_s: u32::try_from(decision.time_ms / 1_000).unwrap_or(u32::MAX),
        amount_minor,
        currency: Currency::new(currency).unwrap_or(Currency::NONE),
        bank_reference,
        lines: Lines::default(),
    };
    if let Ok(bytes) = receipt.encode(&mut buffer) {
        return bytes.to_vec();
    }
    // All that can be out of bounds is a reference that the bank's function gave.
    receipt.bank_reference = None;
    receipt
        .encode(&mut buffer)
        .map(<[u8]>::to_vec)
        .expect("number, amount and currency come from a decoded record")
}
