//! What a message of the receipts topic is. A core: bytes in, judgement out.
//!
//! Promises: total; a message becomes a receipt, or is told why not, in words for
//! the person who finds it among the dead letters. Never: a receipt for a name
//! that is no terminal's, or a look into one that is sealed.
//!
//! | part        | what                                                              |
//! |-------------|-------------------------------------------------------------------|
//! | key         | the terminal's id                                                 |
//! | value       | the receipt in the wire format                                    |
//! | timestamp   | when it was settled                                               |
//! | `expiry_s`  | header, decimal text: seconds from then after which it is of no use |

use bytes::Bytes;
use risiti_store::{Identity, NewRecord, Record};
use risiti_wire::{Kind, Receipt, Status, WireError, peek, validate_terminal_id};

use super::poll::Received;
use crate::dead_letters::{DeadLetter, Reason};
use crate::limits;

/// The header that says how long a receipt is of use.
pub const EXPIRY_HEADER: &str = "expiry_s";

/// The route by which dead receipts are named.
pub const RECEIPTS_ROUTE: &str = "$receipts";

/// The status of a receipt that is sealed: what it says is between settlement and its
/// terminal.
pub const STATUS_SEALED: u16 = u16::MAX;

/// A message as it came.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Partition it stands in.
    pub partition: i32,
    /// Offset there.
    pub offset: i64,
    /// Its timestamp, Unix milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// The value of [`EXPIRY_HEADER`].
    pub expiry: Option<&'a [u8]>,
}

impl Message<'_> {
    /// The receipt in it.
    ///
    /// # Errors
    /// Why it is none, and what to do.
    pub fn read(&self) -> Result<Received, String> {
        let key = self.key.ok_or(
            "the message has no key; whoever writes the topic has to put the terminal's id there",
        )?;
        let terminal = std::str::from_utf8(key)
            .ok()
            .filter(|id| validate_terminal_id(id).is_ok())
            .ok_or("the message's key is no terminal id ([A-Za-z0-9_-], 1 to 23 of them); whoever writes the topic has to put it there")?;
        let value = self.value.ok_or("the message has no value")?;
        let told = Told::read(value).map_err(|error| {
            format!("the value is no receipt of the wire format that this version reads ({error}); requeue it after an upgrade if it is of a later one")
        })?;
        let settled_ms = self
            .timestamp_ms
            .and_then(|ms| u64::try_from(ms).ok())
            .or(told.time_ms);
        // What can't be read as a time does not make a good receipt bad.
        let expires_ms = self
            .expiry
            .and_then(|text| std::str::from_utf8(text).ok()?.trim().parse::<u64>().ok())
            .zip(settled_ms)
            .map(|(seconds, settled_ms)| {
                settled_ms
                    .saturating_add(seconds.saturating_mul(1000))
                    .max(1)
            });
        Ok(Received {
            terminal: terminal.to_owned(),
            sequence: told.sequence,
            status: told.status,
            settled_ms: settled_ms.unwrap_or(0),
            expires_ms,
            partition: self.partition,
            offset: self.offset,
            payload: Bytes::copy_from_slice(value),
        })
    }

    /// The dead letter that it becomes; its id tells partition and offset.
    #[must_use]
    pub fn letter(self, cluster: &str, topic: &str, why: &str, now_ms: u64) -> DeadLetter {
        let (partition, offset) = (self.partition, self.offset);
        let cut = |bytes: Option<&[u8]>, most: usize| {
            let bytes = bytes.unwrap_or_default();
            Bytes::copy_from_slice(&bytes[..bytes.len().min(most)])
        };
        let value_bytes = self.value.map_or(0, <[u8]>::len);
        let mut text = format!("{why} (partition {partition}, offset {offset})");
        if value_bytes > limits::DEAD_RECEIPT_BYTES_MAX {
            text.push_str(&format!(
                "; of its {value_bytes} bytes the first {} are kept",
                limits::DEAD_RECEIPT_BYTES_MAX
            ));
        }
        DeadLetter {
            refused_ms: now_ms,
            reason: Reason {
                cluster: cluster.into(),
                route: RECEIPTS_ROUTE.into(),
                topic: topic.into(),
                text,
            },
            // No journal's id begins so: those are hexadecimal.
            journal_id: format!("r{partition:07}"),
            record: Record {
                position: u64::try_from(offset).unwrap_or(0),
                record: NewRecord {
                    received_ms: self
                        .timestamp_ms
                        .and_then(|ms| u64::try_from(ms).ok())
                        .unwrap_or(now_ms),
                    client_id: cut(self.key, limits::DEAD_RECEIPT_KEY_BYTES_MAX),
                    topic: Bytes::new(),
                    identity: Identity::None,
                    properties: cut(self.expiry, limits::DEAD_RECEIPT_KEY_BYTES_MAX),
                    payload: cut(self.value, limits::DEAD_RECEIPT_BYTES_MAX),
                },
            },
        }
    }
}

/// What a receipt tells a gateway.
struct Told {
    sequence: u64,
    status: u16,
    /// When it was settled, if that can be read.
    time_ms: Option<u64>,
}

impl Told {
    fn read(value: &[u8]) -> Result<Self, WireError> {
        let header = peek(value)?;
        if header.sealed && header.kind == Kind::Receipt && !header.resend {
            return Ok(Self {
                sequence: header.sequence,
                status: STATUS_SEALED,
                time_ms: None,
            });
        }
        let receipt = Receipt::decode(value)?;
        Ok(Self {
            sequence: receipt.sequence,
            status: match receipt.status {
                Status::Accepted => 0,
                Status::Rejected(reason) => reason.code(),
            },
            time_ms: Some(u64::from(receipt.time_s) * 1000),
        })
    }
}

/// The message that a dead letter was made of; none if it is another's.
#[must_use]
pub fn message_of(letter: &DeadLetter) -> Option<Message<'_>> {
    if letter.reason.route != RECEIPTS_ROUTE {
        return None;
    }
    let new = &letter.record.record;
    Some(Message {
        partition: letter.journal_id.get(1..)?.parse().ok()?,
        offset: i64::try_from(letter.record.position).ok()?,
        timestamp_ms: i64::try_from(new.received_ms).ok(),
        key: Some(&*new.client_id).filter(|key| !key.is_empty()),
        value: Some(&*new.payload).filter(|value| !value.is_empty()),
        expiry: Some(&*new.properties).filter(|expiry| !expiry.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use risiti_wire::{Currency, Lines};

    fn receipt(buffer: &mut [u8; 265]) -> &[u8] {
        Receipt {
            sequence: 12,
            number: 5,
            status: Status::Accepted,
            time_s: 1_700_000_000,
            amount_minor: 500,
            currency: Currency::NONE,
            bank_reference: None,
            lines: Lines::default(),
        }
        .encode(buffer)
        .unwrap()
    }

    #[test]
    fn a_sealed_receipt_is_taken_and_not_looked_into() {
        let root = risiti_wire::seal::Root::new([7; 32]);
        let key = root.key("t1", 1, risiti_wire::seal::Direction::Down);
        let (mut open, mut buffer) = ([0; 265], [0; 300]);
        let sealed = risiti_wire::seal::seal(&key.unwrap(), "t1", receipt(&mut open), &mut buffer);
        let value = sealed.unwrap();
        let mut message = message(Some(b"t1"), Some(value));
        message.expiry = Some(b"60");
        let read = message.read().unwrap();
        assert_eq!((read.sequence, read.status), (12, STATUS_SEALED));
        assert_eq!(read.settled_ms, 1_700_000_001_000);
        assert_eq!(read.expires_ms, Some(1_700_000_061_000));
        assert_eq!(read.payload, value);
        // Without a time nobody knows when it expires: it does not.
        message.timestamp_ms = None;
        assert_eq!(message.read().unwrap().expires_ms, None);
        // A sealed record is no receipt.
        let mut record = value.to_vec();
        record[2] = 0x06;
        message.value = Some(&record);
        assert!(message.read().is_err());
    }

    fn message<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Message<'a> {
        Message {
            partition: 3,
            offset: 77,
            timestamp_ms: Some(1_700_000_001_000),
            key,
            value,
            expiry: None,
        }
    }

    #[test]
    fn a_receipt_is_read_with_its_place_and_its_end() {
        let mut buffer = [0; 265];
        let value = receipt(&mut buffer);
        let mut message = message(Some(b"t1"), Some(value));
        let read = message.read().unwrap();
        assert_eq!((read.terminal.as_str(), read.sequence), ("t1", 12));
        assert_eq!((read.partition, read.offset, read.status), (3, 77, 0));
        assert_eq!(read.settled_ms, 1_700_000_001_000);
        assert_eq!(read.expires_ms, None);
        message.expiry = Some(b"60");
        assert_eq!(message.read().unwrap().expires_ms, Some(1_700_000_061_000));
        // An unreadable time makes no bad receipt, and no time overflows.
        message.expiry = Some(b"soon");
        assert_eq!(message.read().unwrap().expires_ms, None);
        message.expiry = Some(b"18446744073709551615");
        assert_eq!(message.read().unwrap().expires_ms, Some(u64::MAX));
        message.timestamp_ms = None;
        assert_eq!(message.read().unwrap().settled_ms, 1_700_000_000_000);
    }

    #[test]
    fn what_is_no_receipt_is_told_why_and_comes_back_whole_from_its_letter() {
        let mut buffer = [0; 265];
        let value = receipt(&mut buffer);
        for (key, value, why) in [
            (None, Some(value), "no key"),
            (Some(&b"a/b"[..]), Some(value), "no terminal id"),
            (Some(b"\xff"), Some(value), "no terminal id"),
            (Some(b"t1"), None, "no value"),
            (Some(b"t1"), Some(&b"x"[..]), "no receipt"),
            (Some(b"t1"), Some(&value[1..]), "no receipt"),
        ] {
            let message = message(key, value);
            let error = message.read().unwrap_err();
            assert!(error.contains(why), "{error}");
            let letter = message.letter("default", "receipts", &error, 9);
            assert_eq!(letter.id(), "r0000003-77");
            let back = message_of(&letter).unwrap();
            assert_eq!((back.key, back.value), (key, value));
            assert_eq!((back.partition, back.offset), (3, 77));
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut buffer = [0; 265];
        let whole = receipt(&mut buffer).to_vec();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = message(Some(&bytes), Some(&bytes)).read();
        }
    }

    #[test]
    fn a_dead_receipt_is_cut_beyond_its_bound_and_says_so() {
        let most = limits::DEAD_RECEIPT_BYTES_MAX;
        for (bytes, kept, told) in [
            (most - 1, most - 1, false),
            (most, most, false),
            (most + 1, most, true),
        ] {
            let value = vec![7; bytes];
            let mut message = message(Some(b"t1"), Some(&value));
            message.expiry = Some(b"60");
            let letter = message.letter("default", "receipts", "no receipt", 9);
            let back = message_of(&letter).unwrap();
            assert_eq!(back.value, Some(&value[..kept]));
            assert_eq!(
                (back.key, back.expiry),
                (Some(&b"t1"[..]), Some(&b"60"[..]))
            );
            let text = &letter.reason.text;
            assert_eq!(text.contains("are kept"), told, "{text}");
        }
    }
}
