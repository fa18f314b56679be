//! What a commit group writes to the database, as one sled batch.

use std::collections::BTreeMap;

use crate::StoreError;
use crate::database::Database;

use super::batch::{Batch, pieces_of};
use super::envelope::{
    Envelope, Head, Kind, LAST_STAMP_KEY, LOG_END_KEY, PIECE_BYTES, entry_key, piece_key,
};
use super::log::{self, LogEnd};
use super::value::Value;

/// What one group writes, by sled's keys.
#[derive(Default)]
pub(super) struct Writes {
    pub(super) puts: BTreeMap<Vec<u8>, (Kind, Value)>,
    pub(super) removes: Vec<Vec<u8>>,
}

impl Writes {
    pub(super) fn is_empty(&self) -> bool {
        self.puts.is_empty()
    }

    pub(super) fn keys(&self) -> usize {
        self.puts.len()
    }

    pub(super) fn tombstones(&self) -> usize {
        let is_tombstone = |put: &&(Kind, Value)| put.0 == Kind::Tombstone;
        self.puts.values().filter(is_tombstone).count()
    }

    /// Notes how far the row log reaches.
    pub(super) fn log_end(&mut self, end: LogEnd) {
        let value = [
            &end.file.to_be_bytes()[..],
            &end.length.to_be_bytes(),
            &end.salt.to_be_bytes(),
        ]
        .concat();
        self.puts
            .insert(LOG_END_KEY.to_vec(), (Kind::Value, Value::plain(value)));
    }

    /// Adds what is not a numbered row.
    pub(super) fn add(&mut self, batch: &Batch, database: &Database) -> Result<(), StoreError> {
        for (key, value) in &batch.operations {
            if log::is_numbered(key) {
                continue;
            }
            let stored_key = entry_key(key);
            let pieces_before = match self.puts.get(&stored_key) {
                Some((Kind::Head, head)) => Head::decode(&head.bytes).map_or(0, |head| head.pieces),
                Some(_) => 0,
                None => match database.get(&stored_key)? {
                    None if value.is_none() => continue,
                    None => 0,
                    Some(bytes) => Envelope::decode_for(&stored_key, &bytes)
                        .filter(|envelope| envelope.kind == Kind::Head)
                        .and_then(|envelope| Head::decode(envelope.value))
                        .map_or(0, |head| head.pieces),
                },
            };
            let pieces = match value {
                Some(value) => self.put(key, value),
                None => {
                    let nothing = Value::plain(Vec::new());
                    self.puts.insert(stored_key, (Kind::Tombstone, nothing));
                    0
                }
            };
            for piece in pieces..pieces_before {
                let stored_key = piece_key(key, piece);
                self.puts.remove(&stored_key);
                self.removes.push(stored_key);
            }
        }
        Ok(())
    }

    /// Adds a whole value; returns its pieces.
    pub(super) fn put(&mut self, key: &[u8], value: &Value) -> u16 {
        if pieces_of(value.bytes.len()) == 0 {
            self.puts
                .insert(entry_key(key), (Kind::Value, value.clone()));
            return 0;
        }
        let head = Head::of(&value.bytes);
        let told = Value {
            bytes: head.encode().to_vec(),
            encrypted: value.encrypted,
        };
        self.puts.insert(entry_key(key), (Kind::Head, told));
        for (piece, bytes) in (0_u16..).zip(value.bytes.chunks(PIECE_BYTES)) {
            let bytes = Value::plain(bytes.to_vec());
            self.puts
                .insert(piece_key(key, piece), (Kind::Piece, bytes));
        }
        head.pieces
    }

    /// Applies all of it as one sled batch; returns its bytes.
    pub(super) fn apply(
        self,
        database: &Database,
        stamp: u64,
        durable_stamp: u64,
    ) -> Result<usize, StoreError> {
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        for key in self.removes {
            if !self.puts.contains_key(&key) {
                batch.remove(key);
            }
        }
        // All puts of a group share one stamp and carry their number, so that a
        // salvage can tell a torn group from a whole one.
        let batch_entries = (self.puts.len() + 1) as u16;
        let mut put = |key: &[u8], kind: Kind, encrypted: bool, value: &[u8]| {
            let envelope = Envelope {
                kind,
                encrypted,
                stamp,
                durable_stamp,
                batch_entries,
                key,
                value,
            }
            .encode();
            bytes += envelope.len();
            batch.insert(key, envelope);
        };
        for (key, (kind, value)) in &self.puts {
            put(key, *kind, value.encrypted, &value.bytes);
        }
        put(LAST_STAMP_KEY, Kind::Value, false, &[]);
        database.apply(batch)?;
        Ok(bytes)
    }
}
