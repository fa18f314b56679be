//! Every bound of the formats, with the reason for its value.

/// Digits of an account. Microfinance accounts have 8 to 16; 18 still fit, with
/// a mark for leading zeros, into the 8 bytes of a CBOR integer.
pub const ACCOUNT_DIGITS_MAX: usize = 18;

/// Largest sequence number. A terminal that sends a record a second, and never
/// stops, gets there after 136 years; 4 bytes less on the air with every record.
pub const SEQUENCE_MAX: u64 = u32::MAX as u64;

/// Largest amount in minor units: 42,949,672.95 in a currency with cents, far
/// above what a terminal may take at once.
pub const AMOUNT_MINOR_MAX: u64 = u32::MAX as u64;

/// Largest numeric currency code (ISO 4217 has three digits).
pub const CURRENCY_MAX: u16 = 999;

/// Bytes of a payment's reference: a pupil's or invoice number. It is what is
/// left of [`RECORD_BYTES_MAX`] when every other field is at its largest.
pub const REFERENCE_BYTES_MAX: usize = 8;

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

/// Bytes of any unsealed record: the size of a buffer that always suffices. A
/// record is airtime that somebody pays for; the bounds of its fields are chosen
/// so that no valid one is larger.
pub const RECORD_BYTES_MAX: usize = 40;

/// Bytes of any unsealed receipt: the size of a buffer that always suffices.
pub const RECEIPT_BYTES_MAX: usize = 265;

/// Bytes of a seal's tag. A forger gets one try in 2^64 for each record that he makes
/// a gateway carry, and each is told; 8 more would be a tenth of a payment's bytes.
pub const SEAL_TAG_BYTES: usize = 8;

/// Bytes of any sealed record: 5 around what is sealed, 3 for the key's generation
/// unless it is the first, and the tag.
pub const SEALED_RECORD_BYTES_MAX: usize = RECORD_BYTES_MAX + 8 + SEAL_TAG_BYTES;

/// Bytes of any sealed receipt: as a record's; its number only changes its place.
pub const SEALED_RECEIPT_BYTES_MAX: usize = RECEIPT_BYTES_MAX + 8 + SEAL_TAG_BYTES;

/// Largest signal quality (3GPP TS 27.007, 8.5, without the value for "not known").
pub const SIGNAL_MAX: u8 = 31;

/// Bytes of any birth message: the size of a buffer that always suffices. It is
/// sent about once a day.
pub const BIRTH_BYTES_MAX: usize = 72;
