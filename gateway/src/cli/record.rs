//! `risiti record`: a payment record in the wire format, on standard output.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use risiti_wire::{Account, Currency, Record, RecordBody};

use super::Failure;

/// A payment.
#[derive(Args)]
pub struct Payment {
    /// The terminal's sequence number of this record.
    #[arg(long)]
    sequence: u64,
    /// The account to pay to, decimal digits.
    #[arg(long)]
    account: String,
    /// Minor units of the currency (cents).
    #[arg(long)]
    amount: u64,
    /// ISO 4217 numeric code; 404 is the Kenya shilling.
    #[arg(long, default_value_t = 404)]
    currency: u16,
    /// What it is for, short.
    #[arg(long)]
    reference: Option<String>,
}

/// Writes the record's bytes to standard output, ready for
/// `mosquitto_pub -s`.
pub fn write(payment: &Payment) -> Result<(), Failure> {
    let time_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as u32);
    let record = Record {
        sequence: payment.sequence,
        resend: false,
        body: RecordBody::Payment(risiti_wire::Payment {
            time_s,
            account: Account::new(&payment.account).map_err(|e| e.to_string())?,
            amount_minor: payment.amount,
            currency: Currency::new(payment.currency).map_err(|e| e.to_string())?,
            reference: payment.reference.as_deref(),
        }),
    };
    let mut buffer = [0; risiti_wire::limits::RECORD_BYTES_MAX];
    let bytes = record.encode(&mut buffer).map_err(|e| e.to_string())?;
    std::io::stdout().write_all(bytes)?;
    Ok(())
}
