//! Records that Kafka refused for good, and messages of the receipts' topic that
//! are no receipts, kept with the reason.
//!
//! Promises: durable before the forwarder passes the record; written twice it is
//! one (the key is its position); bounded, and when full the forwarder waits.
//! Never: a dead letter deleted but by a person, or by a requeue that is durable.
//!
//! In the state database, version 1:
//!
//! | part  | bytes                                                                |
//! |-------|----------------------------------------------------------------------|
//! | key   | `d/<journal id, first 8>-<position, 20 digits>`; of a message of the receipts' topic `d/r<partition, 7 digits>-<offset, 20 digits>` |
//! | value | CBOR array: version 1, refused ms, cluster, route, Kafka topic, reason (text), position, journal id, received ms, client id, MQTT topic, identity (array: 0 \| 1, sequence, resend \| 2, packet id), properties, payload |

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use minicbor::bytes::ByteSlice;
use minicbor::{Decoder, Encoder};
use parking_lot::Mutex;
use risiti_store::{Batch, Identity, NewRecord, Position, Record, State, StoreError};

use crate::error::BridgeError;
use crate::limits;
use crate::receipts::RECEIPTS_ROUTE;

const VERSION: u8 = 1;
const FIELDS: u64 = 14;
const PREFIX: &[u8] = b"d/";

/// A page of keys and values.
pub type Page = Vec<(Vec<u8>, Vec<u8>)>;

/// Where dead letters are kept: the state database.
pub trait DeadLetterStore: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// The disk's, or damage.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Keys that begin with `prefix`, in order, beyond `after`.
    ///
    /// # Errors
    /// The disk's, or damage.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Page, StoreError>;
    /// Writes all of them; returns once they are durable.
    ///
    /// # Errors
    /// The disk's; some may have been written, writing them again is right.
    fn put(&self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError>;
    /// Deletes; returns once it is durable.
    ///
    /// # Errors
    /// The disk's.
    fn delete(&self, key: &[u8]) -> Result<(), StoreError>;
}

impl DeadLetterStore for State {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        State::get(self, key)
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Page, StoreError> {
        State::scan(self, prefix, after, limit)
    }

    fn put(&self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let mut batch = Batch::new();
            for (key, value) in entries.by_ref().take(limits::DEAD_LETTERS_BATCH) {
                batch.put(key, value);
            }
            self.commit(batch)?;
        }
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.delete(key);
        self.commit(batch)
    }
}

/// Why Kafka, or the configuration, will not take a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The cluster that refused.
    pub cluster: String,
    /// The route it took; empty if none matches.
    pub route: String,
    /// The Kafka topic; empty if no route matches.
    pub topic: String,
    /// In words.
    pub text: String,
}

/// A record that Kafka refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// When, Unix milliseconds.
    pub refused_ms: u64,
    /// Why, and by whom.
    pub reason: Reason,
    /// The journal it was accepted into.
    pub journal_id: String,
    /// The record, whole.
    pub record: Record,
}

impl DeadLetter {
    /// The name by which a person refers to it.
    #[must_use]
    pub fn id(&self) -> String {
        let short = self.journal_id.get(..8).unwrap_or(&self.journal_id);
        format!("{short}-{}", self.record.position)
    }

    /// Whether it came from the topic of receipts, not out of a journal.
    #[must_use]
    pub fn is_receipt(&self) -> bool {
        self.reason.route == RECEIPTS_ROUTE
    }

    /// What to append to the journal so that it is forwarded again. Its identity
    /// is kept but marked, for the journal would take it for a duplicate.
    #[must_use]
    pub fn to_requeue(&self) -> NewRecord {
        let mut record = self.record.record.clone();
        record.identity = match record.identity {
            Identity::Sequence { sequence, .. } => Identity::Sequence {
                sequence,
                dup: false,
                resend_mark: true,
            },
            Identity::Packet { .. } | Identity::None => Identity::None,
        };
        record
    }

    fn encode(&self) -> Vec<u8> {
        let new = &self.record.record;
        let mut bytes = Vec::with_capacity(new.payload.len() + 256);
        let mut encoder = Encoder::new(&mut bytes);
        let written = (|| {
            encoder
                .array(FIELDS)?
                .u8(VERSION)?
                .u64(self.refused_ms)?
                .str(&self.reason.cluster)?
                .str(&self.reason.route)?
                .str(&self.reason.topic)?
                .str(&self.reason.text)?
                .u64(self.record.position)?
                .str(&self.journal_id)?
                .u64(new.received_ms)?
                .bytes(&new.client_id)?
                .bytes(&new.topic)?;
            match new.identity {
                Identity::None => encoder.array(1)?.u8(0)?,
                Identity::Sequence {
                    sequence,
                    resend_mark,
                    ..
                } => encoder.array(3)?.u8(1)?.u64(sequence)?.bool(resend_mark)?,
                Identity::Packet { packet_id, .. } => encoder.array(2)?.u8(2)?.u16(packet_id)?,
            };
            encoder.bytes(&new.properties)?.bytes(&new.payload)?.ok()
        })();
        written.expect("a Vec takes any number of bytes");
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        let mut decoder = Decoder::new(bytes);
        if decoder.array()? != Some(FIELDS) || decoder.u8()? != VERSION {
            return Err(minicbor::decode::Error::message(
                "written by another version",
            ));
        }
        let refused_ms = decoder.u64()?;
        let reason = Reason {
            cluster: decoder.str()?.into(),
            route: decoder.str()?.into(),
            topic: decoder.str()?.into(),
            text: decoder.str()?.into(),
        };
        let position = decoder.u64()?;
        let journal_id = decoder.str()?.into();
        let received_ms = decoder.u64()?;
        let bytes = |decoder: &mut Decoder<'_>| -> Result<Bytes, minicbor::decode::Error> {
            let slice: &ByteSlice = decoder.decode()?;
            Ok(Bytes::copy_from_slice(slice))
        };
        let client_id = bytes(&mut decoder)?;
        let topic = bytes(&mut decoder)?;
        decoder.array()?;
        let identity = match decoder.u8()? {
            0 => Identity::None,
            1 => Identity::Sequence {
                sequence: decoder.u64()?,
                dup: false,
                resend_mark: decoder.bool()?,
            },
            2 => Identity::Packet {
                packet_id: decoder.u16()?,
                dup: false,
            },
            _ => return Err(minicbor::decode::Error::message("unknown identity")),
        };
        Ok(Self {
            refused_ms,
            reason,
            journal_id,
            record: Record {
                position,
                record: NewRecord {
                    received_ms,
                    client_id,
                    topic,
                    identity,
                    properties: bytes(&mut decoder)?,
                    payload: bytes(&mut decoder)?,
                },
            },
        })
    }
}

/// The dead letters of a gateway.
pub struct DeadLetters {
    store: Arc<dyn DeadLetterStore>,
    /// Held while something is written, so that the count stays true.
    writing: Mutex<()>,
    count: AtomicU64,
    bytes: AtomicU64,
    count_max: u64,
    bytes_max: u64,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters")
            .field("count", &self.count())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Counts what there is.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(store: Arc<dyn DeadLetterStore>) -> Result<Self, BridgeError> {
        let bounds = (limits::DEAD_LETTERS_MAX, limits::DEAD_LETTERS_BYTES_MAX);
        Self::with_bounds(store, bounds.0, bounds.1)
    }

    /// The same with other bounds, for tests.
    ///
    /// # Errors
    /// The disk's.
    pub fn with_bounds(
        store: Arc<dyn DeadLetterStore>,
        count_max: u64,
        bytes_max: u64,
    ) -> Result<Self, BridgeError> {
        let (mut count, mut bytes) = (0, 0);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(PREFIX, after.as_deref(), limits::DEAD_LETTERS_PAGE)?;
            let Some((last, _)) = page.last() else { break };
            count += page.len() as u64;
            bytes += page
                .iter()
                .map(|(_, value)| value.len() as u64)
                .sum::<u64>();
            after = Some(last.clone());
        }
        Ok(Self {
            store,
            writing: Mutex::new(()),
            count: AtomicU64::new(count),
            bytes: AtomicU64::new(bytes),
            count_max,
            bytes_max,
        })
    }

    /// The database they are in.
    pub(crate) fn store(&self) -> Arc<dyn DeadLetterStore> {
        Arc::clone(&self.store)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How many bytes they are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Keeps these, durably. `Ok(false)`: there is no room, nothing was written.
    ///
    /// # Errors
    /// The disk's; nothing was written.
    pub fn keep(&self, letters: &[DeadLetter]) -> Result<bool, BridgeError> {
        let _writing = self.writing.lock();
        let mut entries = Vec::with_capacity(letters.len());
        let (mut count, mut bytes) = (0, 0);
        for letter in letters {
            let key = key(&letter.journal_id, letter.record.position);
            let value = letter.encode();
            // A crash between this and the commit brings the same one again.
            match self.store.get(&key)? {
                Some(old) => bytes += (value.len() as u64).saturating_sub(old.len() as u64),
                None => {
                    count += 1;
                    bytes += value.len() as u64;
                }
            }
            entries.push((key, value));
        }
        if self.count() + count > self.count_max || self.bytes() + bytes > self.bytes_max {
            return Ok(false);
        }
        self.store.put(entries)?;
        self.count.fetch_add(count, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(true)
    }

    /// A page, in the order of positions, beyond the one with the id `after`.
    ///
    /// # Errors
    /// The disk's, or one that can't be read.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>, BridgeError> {
        let after = after.map(parse_id).transpose()?;
        let limit = limit.min(limits::DEAD_LETTERS_PAGE);
        self.store
            .scan(PREFIX, after.as_deref(), limit)?
            .iter()
            .map(|(key, value)| read(&String::from_utf8_lossy(key), value))
            .collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none of that id, or the disk's.
    pub fn show(&self, id: &str) -> Result<DeadLetter, BridgeError> {
        let key = parse_id(id)?;
        match self.store.get(&key)? {
            Some(value) => read(id, &value),
            None => Err(BridgeError::NoDeadLetter { id: id.into() }),
        }
    }

    /// Gives the record back to the journal by `append`, which returns once it
    /// is durable there, and deletes it here. A crash in between leaves it in
    /// both; `ce_id` tells.
    ///
    /// # Errors
    /// There is none of that id, `append` failed (it stays), or the disk's.
    pub fn requeue(
        &self,
        id: &str,
        append: impl FnOnce(NewRecord) -> Result<(), BridgeError>,
    ) -> Result<DeadLetter, BridgeError> {
        self.requeue_by(id, |letter| append(letter.to_requeue()))
    }

    /// The same for a letter of any kind: `again` returns once what the letter
    /// holds is durable where it belongs.
    ///
    /// # Errors
    /// There is none of that id, `again` failed (it stays), or the disk's.
    pub fn requeue_by(
        &self,
        id: &str,
        again: impl FnOnce(&DeadLetter) -> Result<(), BridgeError>,
    ) -> Result<DeadLetter, BridgeError> {
        let letter = self.show(id)?;
        again(&letter)?;
        self.delete(id)?;
        Ok(letter)
    }

    /// Deletes one for good.
    ///
    /// # Errors
    /// There is none of that id, or the disk's.
    pub fn delete(&self, id: &str) -> Result<(), BridgeError> {
        let _writing = self.writing.lock();
        let key = parse_id(id)?;
        let Some(value) = self.store.get(&key)? else {
            return Err(BridgeError::NoDeadLetter { id: id.into() });
        };
        self.store.delete(&key)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(value.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn key(journal_id: &str, position: Position) -> Vec<u8> {
    let short = journal_id.get(..8).unwrap_or(journal_id);
    format!("d/{short}-{position:020}").into_bytes()
}

fn parse_id(id: &str) -> Result<Vec<u8>, BridgeError> {
    id.rsplit_once('-')
        .and_then(|(journal, position)| Some(key(journal, position.parse().ok()?)))
        .ok_or_else(|| BridgeError::NoDeadLetter { id: id.into() })
}

fn read(id: &str, value: &[u8]) -> Result<DeadLetter, BridgeError> {
    DeadLetter::decode(value).map_err(|error| BridgeError::DeadLetter {
        id: id.trim_start_matches("d/").into(),
        reason: error.to_string(),
    })
}
