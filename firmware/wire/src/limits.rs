//! Every bound of the formats, with the reason for its value.

/// Digits of an account. Microfinance accounts have 8 to 16; 18 still fit, with
/// a mark for leading zeros, into the 8 bytes of a CBOR integer.
pub const ACCOUNT_DIGITS_MAX: usize = 18;

/// Largest amount in minor units: 15 digits, exact in any consumer that counts
/// in 64-bit floats (2^53).
pub const AMOUNT_MINOR_MAX: u64 = 999_999_999_999_999;

/// Largest numeric currency code (ISO 4217 has three digits).
pub const CURRENCY_MAX: u16 = 999;

/// Bytes of a payment's reference: a pupil's or invoice number.
pub const REFERENCE_BYTES_MAX: usize = 16;

/// Bytes of the bank's reference on a receipt; the longest seen are 22
/// characters.
pub const BANK_REFERENCE_BYTES_MAX: usize = 24;

/// Lines on a receipt for printing, besides what the terminal prints itself.
pub const LINES_MAX: usize = 6;

/// Characters of a line: what a 58 mm thermal printer has.
pub const LINE_CHARS_MAX: usize = 32;

/// Bytes of all lines together: six full ones in ASCII, two in scripts of three
/// bytes a character. A receipt is airtime and terminal memory.
pub const LINES_BYTES_MAX: usize = 192;

/// Characters of a terminal id: what every MQTT 3.1.1 broker must take as a
/// client identifier (MQTT-3.1.3-5).
pub const TERMINAL_ID_BYTES_MAX: usize = 23;

/// Bytes of an unsealed payment record within ordinary bounds: sequence, time
/// and amount below 2^32, a reference of at most
/// [`REFERENCE_BYTES_ORDINARY`] bytes, an account of any length.
pub const PAYMENT_BYTES_ORDINARY: usize = 40;

/// The reference that still fits into [`PAYMENT_BYTES_ORDINARY`].
pub const REFERENCE_BYTES_ORDINARY: usize = 8;

/// Bytes of any unsealed record: the size of a buffer that always suffices.
pub const RECORD_BYTES_MAX: usize = 56;

/// Bytes of any unsealed receipt: the size of a buffer that always suffices.
pub const RECEIPT_BYTES_MAX: usize = 273;
