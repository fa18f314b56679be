//! The rows of the receipts outbox in the state database.
//!
//! Promises: keys sort as their numbers do; a row of another version, or one that
//! is cut, is told apart from one that is not there. Never: a lookup.
//!
//! Version 1, numbers big-endian:
//!
//! | key                                          | what                                                        |
//! |----------------------------------------------|-------------------------------------------------------------|
//! | `or` terminal 0 number (8)                   | a receipt that waits for its terminal's PUBACK              |
//! | `ol` terminal                                | the newest receipt that was acknowledged, and stays         |
//! | `ot` terminal                                | what is known of a terminal                                 |
//! | `ok` cluster 0 Kafka topic 0 partition (4)   | the next offset to take from there                          |
//!
//! | row  | bytes                                                                                                           |
//! |------|-----------------------------------------------------------------------------------------------------------------|
//! | `or` | version (1), number (8), sequence of its record (8), stored ms (8), expires ms or 0 (8), settled ms (8), status (2), partition (4), offset (8), payload |
//! | `ol` | the same                                                                                                        |
//! | `ot` | version (1), flags (1; bit 0: it was here), next number (8), receipts that wait (4)                             |
//! | `ok` | version (1), next offset (8)                                                                                    |
//!
//! Status is 0 for an accepted record, else the reason for its rejection.

use bytes::{Buf, BufMut, Bytes};

use super::{ReceiptNumber, StoredReceipt};

const VERSION: u8 = 1;
const RECEIPT_HEAD: usize = 1 + 8 * 5 + 2 + 4 + 8;

/// Begins the rows of all terminals' states.
pub(super) const TERMINALS: &[u8] = b"ot";
const SEEN: u8 = 1;

/// A receipt as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReceiptRow {
    pub(super) receipt: StoredReceipt,
    /// When settlement issued it, Unix milliseconds.
    pub(super) settled_ms: u64,
    /// 0 accepted, else the reason.
    pub(super) status: u16,
    /// Where it stands in Kafka.
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// What is known of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TerminalRow {
    pub(super) seen: bool,
    pub(super) next: ReceiptNumber,
    pub(super) waiting: u32,
}

/// The row is not what this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowError {
    #[error("written by version {0}, this one reads version {VERSION}: upgrade it")]
    Version(u8),
    #[error("cut or damaged")]
    Malformed,
}

pub(super) fn receipts_of(terminal: &str) -> Vec<u8> {
    [b"or", terminal.as_bytes(), &[0]].concat()
}

pub(super) fn receipt_key(terminal: &str, number: ReceiptNumber) -> Vec<u8> {
    [b"or", terminal.as_bytes(), &[0], &number.to_be_bytes()[..]].concat()
}

pub(super) fn receipt_number(key: &[u8]) -> Option<ReceiptNumber> {
    let at = key.len().checked_sub(8)?;
    Some(u64::from_be_bytes(key[at..].try_into().ok()?))
}

pub(super) fn last_key(terminal: &str) -> Vec<u8> {
    [b"ol", terminal.as_bytes()].concat()
}

pub(super) fn terminal_key(terminal: &str) -> Vec<u8> {
    [TERMINALS, terminal.as_bytes()].concat()
}

pub(super) fn terminal_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(TERMINALS)?).ok()
}

pub(super) fn offset_key(cluster: &str, topic: &str, partition: i32) -> Vec<u8> {
    let (cluster, topic) = (cluster.as_bytes(), topic.as_bytes());
    [
        b"ok",
        cluster,
        &[0],
        topic,
        &[0],
        &partition.to_be_bytes()[..],
    ]
    .concat()
}

impl ReceiptRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let receipt = &self.receipt;
        let mut bytes = Vec::with_capacity(RECEIPT_HEAD + receipt.payload.len());
        bytes.put_u8(VERSION);
        bytes.put_u64(receipt.number);
        bytes.put_u64(receipt.sequence);
        bytes.put_u64(receipt.stored_ms);
        bytes.put_u64(receipt.expires_ms.unwrap_or(0));
        bytes.put_u64(self.settled_ms);
        bytes.put_u16(self.status);
        bytes.put_i32(self.partition);
        bytes.put_i64(self.offset);
        bytes.put_slice(&receipt.payload);
        bytes
    }

    pub(super) fn decode(value: Vec<u8>) -> Result<Self, RowError> {
        let mut bytes = Bytes::from(value);
        version(&bytes)?;
        if bytes.len() < RECEIPT_HEAD {
            return Err(RowError::Malformed);
        }
        bytes.advance(1);
        let number = bytes.get_u64();
        let sequence = bytes.get_u64();
        let stored_ms = bytes.get_u64();
        let expires_ms = Some(bytes.get_u64()).filter(|ms| *ms > 0);
        Ok(Self {
            settled_ms: bytes.get_u64(),
            status: bytes.get_u16(),
            partition: bytes.get_i32(),
            offset: bytes.get_i64(),
            receipt: StoredReceipt {
                number,
                sequence,
                stored_ms,
                expires_ms,
                payload: bytes,
            },
        })
    }
}

impl TerminalRow {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(14);
        bytes.put_u8(VERSION);
        bytes.put_u8(if self.seen { SEEN } else { 0 });
        bytes.put_u64(self.next);
        bytes.put_u32(self.waiting);
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, RowError> {
        version(bytes)?;
        if bytes.len() != 14 {
            return Err(RowError::Malformed);
        }
        bytes.advance(1);
        Ok(Self {
            seen: bytes.get_u8() & SEEN != 0,
            next: bytes.get_u64(),
            waiting: bytes.get_u32(),
        })
    }
}

pub(super) fn encode_offset(next: i64) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.put_i64(next);
    bytes
}

pub(super) fn decode_offset(mut bytes: &[u8]) -> Result<i64, RowError> {
    version(bytes)?;
    if bytes.len() != 9 {
        return Err(RowError::Malformed);
    }
    bytes.advance(1);
    Ok(bytes.get_i64())
}

fn version(bytes: &[u8]) -> Result<(), RowError> {
    match bytes.first() {
        Some(&VERSION) => Ok(()),
        Some(&other) => Err(RowError::Version(other)),
        None => Err(RowError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> ReceiptRow {
        ReceiptRow {
            receipt: StoredReceipt {
                number: 7,
                sequence: 41,
                stored_ms: 1_000,
                expires_ms: Some(9_000),
                payload: Bytes::from_static(b"receipt"),
            },
            settled_ms: 900,
            status: 6,
            partition: 3,
            offset: 1 << 40,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut receipt = row();
        assert_eq!(ReceiptRow::decode(receipt.encode()), Ok(receipt.clone()));
        receipt.receipt.expires_ms = None;
        receipt.receipt.payload = Bytes::new();
        assert_eq!(ReceiptRow::decode(receipt.encode()), Ok(receipt));
        for seen in [false, true] {
            let terminal = TerminalRow {
                seen,
                next: u64::MAX,
                waiting: 5,
            };
            assert_eq!(TerminalRow::decode(&terminal.encode()), Ok(terminal));
        }
        assert_eq!(decode_offset(&encode_offset(12)), Ok(12));
    }

    #[test]
    fn a_cut_row_and_one_of_another_version_are_told() {
        let whole = row().encode();
        assert_eq!(whole.len(), RECEIPT_HEAD + row().receipt.payload.len());
        for cut in 0..RECEIPT_HEAD {
            assert!(ReceiptRow::decode(whole[..cut].to_vec()).is_err());
        }
        let mut later = whole;
        later[0] = 2;
        assert_eq!(ReceiptRow::decode(later), Err(RowError::Version(2)));
        assert!(TerminalRow::decode(&[1, 0]).is_err());
        assert!(decode_offset(&[1]).is_err());
    }

    #[test]
    fn the_keys_of_a_terminal_sort_by_number_and_hold_no_other_terminals() {
        let mut keys: Vec<_> = [256, 1, 255, 70_000].map(|n| receipt_key("t1", n)).into();
        keys.sort();
        let numbers: Vec<_> = keys.iter().filter_map(|key| receipt_number(key)).collect();
        assert_eq!(numbers, [1, 255, 256, 70_000]);
        assert!(keys.iter().all(|key| key.starts_with(&receipts_of("t1"))));
        assert!(!receipt_key("t10", 1).starts_with(&receipts_of("t1")));
        assert_eq!(terminal_of(&terminal_key("t1")), Some("t1"));
    }

    #[test]
    fn each_key_is_what_the_table_says() {
        assert_eq!(last_key("t1"), b"olt1");
        assert_eq!(terminal_key("t1"), b"ott1");
        assert_eq!(offset_key("c", "top", 258), b"okc\0top\0\0\0\x01\x02");
        assert_eq!(receipts_of("t1"), b"ort1\0");
    }
}
