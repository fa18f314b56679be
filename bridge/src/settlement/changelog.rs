//! The changelog: what was settled, as messages of a compacted topic.
//!
//! Promises: what is written reads back the same; a later version, or bytes that
//! are no row, are an error and never taken for "not settled". Never: Kafka.
//!
//! A message, version 1, in the partition that its record has in the records topic:
//!
//! | part  | bytes                                                       |
//! |-------|-------------------------------------------------------------|
//! | key   | `<terminal>/<sequence>`, ASCII                              |
//! | value | one CBOR array, below; none (a tombstone): out of the window |
//!
//! | element  | type         | meaning                                          |
//! |----------|--------------|--------------------------------------------------|
//! | version  | uint         | 1                                                |
//! | offset   | uint         | offset of the record that settled the number     |
//! | time     | uint         | when, by Kafka, Unix milliseconds                |
//! | digest   | 16 bytes     | XXH3-128 of the record with the resend mark set, big-endian |
//! | status   | uint         | 0 accepted, else the reason                      |
//! | kind     | uint         | 1 payment, 2 reversal, 0 unreadable              |
//! | reverses | uint or null | of a reversal: the number of the payment         |
//! | amount   | uint         | minor units                                      |
//! | currency | uint         | ISO 4217 numeric                                 |
//! | day      | uint         | to which it counts, days since 1970              |
//! | receipt  | bytes        | as it was sent                                   |
//! | floor    | uint         | lower numbers of the terminal are refused from now on |
//! | sums day | uint         | the day of the sums                              |
//! | sums     | array        | currency, sum, currency, sum …                   |
//!
//! The digest is not cryptographic: whoever makes two records with one digest gets
//! the first one's receipt for both, and nothing is settled twice.

use minicbor::{Decoder, Encoder};
use xxhash_rust::xxh3::xxh3_128;

use super::memory::{Kind, Row, Settled, Totals};
use crate::limits;

const VERSION: u64 = 1;
const ELEMENTS: u64 = 14;

/// Why a message is no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A later version wrote it.
    #[error(
        "its version is {0}, which this one does not know; run the version that wrote it, or a later one"
    )]
    Version(u64),
    /// It is damaged, or nobody's.
    #[error("{0}; if it is not settlement's, write a tombstone for its key")]
    Damaged(String),
}

/// The key of a number.
#[must_use]
pub fn key(terminal: &str, sequence: u64) -> Vec<u8> {
    format!("{terminal}/{sequence}").into_bytes()
}

/// Reads a key: the terminal and the number.
///
/// # Errors
/// It is no key of this changelog.
pub fn decode_key(key: &[u8]) -> Result<(&str, u64), RowError> {
    std::str::from_utf8(key)
        .ok()
        .and_then(|key| key.split_once('/'))
        .and_then(|(terminal, sequence)| Some((terminal, sequence.parse().ok()?)))
        .filter(|(terminal, _)| risiti_wire::validate_terminal_id(terminal).is_ok())
        .ok_or_else(|| RowError::Damaged("its key is not <terminal>/<sequence>".into()))
}

/// The digest of a record, the same whether or not it is marked as a resend.
#[must_use]
pub fn digest(record: &[u8]) -> [u8; 16] {
    let mut marked = record.to_vec();
    // Bytes without a header have no mark either.
    let _ = risiti_wire::mark_resend(&mut marked);
    xxh3_128(&marked).to_be_bytes()
}

/// Writes a row.
#[must_use]
pub fn encode(row: &Row) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96 + row.settled.receipt.len());
    write(&mut Encoder::new(&mut bytes), row).expect("writing to a Vec can't fail");
    bytes
}

fn write(
    encoder: &mut Encoder<&mut Vec<u8>>,
    row: &Row,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    let settled = &row.settled;
    let (kind, reverses) = match settled.kind {
        Kind::Unreadable => (0, None),
        Kind::Payment => (1, None),
        Kind::Reversal { reverses } => (2, Some(reverses)),
    };
    encoder
        .array(ELEMENTS)?
        .u64(VERSION)?
        .u64(settled.offset.unsigned_abs())?
        .u64(settled.time_ms)?
        .bytes(&settled.digest)?
        .u16(settled.status)?
        .u8(kind)?;
    match reverses {
        Some(reverses) => encoder.u64(reverses)?,
        None => encoder.null()?,
    };
    encoder
        .u64(settled.amount_minor)?
        .u16(settled.currency)?
        .u32(settled.day)?
        .bytes(&settled.receipt)?
        .u64(row.floor)?
        .u32(row.totals.day)?
        .array(row.totals.sums.len() as u64 * 2)?;
    for (currency, sum) in &row.totals.sums {
        encoder.u16(*currency)?.u64(*sum)?;
    }
    Ok(())
}

/// Reads a row.
///
/// # Errors
/// A later version, or damage.
pub fn decode(value: &[u8]) -> Result<Row, RowError> {
    let mut decoder = Decoder::new(value);
    let damaged = |error: minicbor::decode::Error| RowError::Damaged(error.to_string());
    let elements = decoder.array().map_err(damaged)?;
    let version = decoder.u64().map_err(damaged)?;
    if version != VERSION {
        return Err(RowError::Version(version));
    }
    if elements != Some(ELEMENTS) {
        return Err(RowError::Damaged("it has not 14 elements".into()));
    }
    let row = read(&mut decoder).map_err(damaged)?;
    if decoder.position() != value.len() {
        return Err(RowError::Damaged("bytes follow it".into()));
    }
    Ok(row)
}

fn read(decoder: &mut Decoder<'_>) -> Result<Row, minicbor::decode::Error> {
    use minicbor::decode::Error;
    let offset = i64::try_from(decoder.u64()?).map_err(|_| Error::message("offset"))?;
    let time_ms = decoder.u64()?;
    let digest = <[u8; 16]>::try_from(decoder.bytes()?).map_err(|_| Error::message("digest"))?;
    let status = decoder.u16()?;
    let kind = decoder.u8()?;
    let reverses = if decoder.datatype()? == minicbor::data::Type::Null {
        decoder.null()?;
        None
    } else {
        Some(decoder.u64()?)
    };
    let kind = match (kind, reverses) {
        (0, None) => Kind::Unreadable,
        (1, None) => Kind::Payment,
        (2, Some(reverses)) => Kind::Reversal { reverses },
        _ => return Err(Error::message("kind")),
    };
    let settled = Settled {
        offset,
        time_ms,
        digest,
        status,
        kind,
        amount_minor: decoder.u64()?,
        currency: decoder.u16()?,
        day: decoder.u32()?,
        receipt: decoder.bytes()?.into(),
        reversed: false,
    };
    let floor = decoder.u64()?;
    let day = decoder.u32()?;
    let length = decoder.array()?.ok_or_else(|| Error::message("sums"))?;
    if length % 2 != 0 || length > 2 * limits::SETTLEMENT_CURRENCIES_MAX as u64 {
        return Err(Error::message("sums"));
    }
    let mut sums = Vec::with_capacity(limits::SETTLEMENT_CURRENCIES_MAX);
    for _ in 0..length / 2 {
        sums.push((decoder.u16()?, decoder.u64()?));
    }
    Ok(Row {
        settled,
        floor,
        totals: Totals { day, sums },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            settled: Settled {
                offset: 7,
                time_ms: 1_700_000_000_000,
                digest: [3; 16],
                status: 0,
                kind: Kind::Reversal { reverses: 4 },
                amount_minor: 1_500,
                currency: 404,
                day: 19_675,
                receipt: (*b"receipt").into(),
                reversed: false,
            },
            floor: 2,
            totals: Totals {
                day: 19_675,
                sums: vec![(404, 10), (800, 11)],
            },
        }
    }

    #[test]
    fn a_row_reads_back() {
        assert_eq!(decode(&encode(&row())), Ok(row()));
    }

    #[test]
    fn a_row_cut_anywhere_is_an_error_and_no_flipped_bit_panics() {
        let bytes = encode(&row());
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "{cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_later_version_is_told_apart_from_damage() {
        assert_eq!(decode(&[0x82, 2, 0]), Err(RowError::Version(2)));
        assert!(matches!(decode(b"rubbish"), Err(RowError::Damaged(_))));
    }

    #[test]
    fn a_key_reads_back_and_others_are_refused() {
        assert_eq!(decode_key(&key("t-1", 9)), Ok(("t-1", 9)));
        for wrong in [
            &b""[..],
            b"t-1",
            b"t-1/",
            b"/9",
            b"t-1/x",
            b"t 1/9",
            b"\xff/9",
        ] {
            assert!(decode_key(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_resend_mark_does_not_change_the_digest() {
        let record = [0x84, 1, 4, 9, 0x80];
        let mut resend = record;
        risiti_wire::mark_resend(&mut resend).unwrap();
        assert_ne!(record, resend);
        assert_eq!(digest(&record), digest(&resend));
        assert_ne!(digest(&record), digest(&[0x84, 1, 4, 10, 0x80]));
    }

    #[test]
    fn a_row_holds_the_sums_of_so_many_currencies_and_of_no_more() {
        let mut full = row();
        let currencies = 1..=limits::SETTLEMENT_CURRENCIES_MAX as u16;
        full.totals.sums = currencies.map(|code| (code, u64::MAX)).collect();
        assert_eq!(decode(&encode(&full)), Ok(full.clone()));
        full.totals.sums.push((999, 1));
        assert!(matches!(decode(&encode(&full)), Err(RowError::Damaged(_))));
    }
}
