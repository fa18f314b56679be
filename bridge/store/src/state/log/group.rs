//! What one commit appends to the row log.

use crate::state::Batch;
use crate::state::value::Value;

use super::entry::{Entry, Kind};
use super::{LogEnd, is_numbered};

/// In order: where in the group's bytes a row lies, or that it goes.
type Changes = Vec<(Vec<u8>, Option<(u32, u32)>)>;

/// What one commit writes.
pub(in crate::state) struct Group {
    stamp: u64,
    salt: u32,
    pub(super) bytes: Vec<u8>,
    pub(super) entries: u32,
    /// Numbered rows.
    pub(super) changes: Changes,
}

impl Group {
    pub(super) fn new(stamp: u64, salt: u32) -> Self {
        Self {
            stamp,
            salt,
            bytes: Vec::new(),
            entries: 0,
            changes: Vec::new(),
        }
    }

    /// A numbered row is put or deleted.
    pub(in crate::state) fn row(&mut self, key: &[u8], value: Option<&Value>) {
        let kind = if value.is_some() {
            Kind::Row
        } else {
            Kind::RowDeleted
        };
        let at = self.bytes.len() as u32;
        self.put(kind, key, value);
        let length = self.bytes.len() as u32 - at;
        self.changes
            .push((key.to_vec(), value.map(|_| (at, length))));
    }

    /// All of a batch.
    pub(in crate::state) fn add(&mut self, batch: &Batch) {
        for (key, value) in &batch.operations {
            if is_numbered(key) {
                self.row(key, value.as_ref());
            } else {
                self.other(key, value.as_ref());
            }
        }
    }

    /// Another row of the same commit.
    fn other(&mut self, key: &[u8], value: Option<&Value>) {
        let kind = if value.is_some() {
            Kind::OtherPut
        } else {
            Kind::OtherDeleted
        };
        self.put(kind, key, value);
    }

    /// Whether no numbered row is touched: then it has no place here.
    pub(in crate::state) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether a numbered row is in it.
    pub(in crate::state) fn touches(&self, key: &[u8]) -> bool {
        self.changes.iter().any(|(changed, _)| changed == key)
    }

    /// The entry behind all others: how many there are.
    pub(super) fn end(&mut self) {
        let entries = self.entries.to_be_bytes();
        self.put(Kind::End, &[], Some(&Value::plain(entries.to_vec())));
    }

    fn put(&mut self, kind: Kind, key: &[u8], value: Option<&Value>) {
        let entry = Entry {
            kind,
            encrypted: value.is_some_and(|value| value.encrypted),
            stamp: self.stamp,
            key,
            value: value.map_or(&[], |value| &value.bytes),
        };
        entry.encode_into(&mut self.bytes, self.salt);
        self.entries += 1;
    }
}

/// A group that is synced here, and not seen by readers yet.
pub(in crate::state) struct Appended {
    pub(super) salt: u32,
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) changes: Changes,
}

impl Appended {
    /// For the database to know how far the log must reach.
    pub(in crate::state) fn end(&self) -> LogEnd {
        LogEnd {
            file: self.file,
            length: self.offset + self.bytes,
            salt: self.salt,
        }
    }

    pub(in crate::state) fn bytes(&self) -> u64 {
        self.bytes
    }
}
