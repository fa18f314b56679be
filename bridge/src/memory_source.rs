//! Records in memory, in the journal's place: for tests and measurements.
//!
//! Promises: behaves as [`RecordSource`] says, and remembers what was released.
//! Never: durable.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use risiti_store::{NewRecord, Position, ReadBatch, Record, RecordSource, StoreError};

/// A journal in memory.
#[derive(Debug)]
pub struct MemorySource {
    journal_id: String,
    records: Mutex<Records>,
    appended: Condvar,
}

#[derive(Debug)]
struct Records {
    first: Position,
    kept: std::collections::VecDeque<NewRecord>,
    released: BTreeMap<String, Position>,
    delete_released: bool,
}

impl MemorySource {
    /// An empty one; its first position is 1. Released records are kept, so that
    /// another forwarder can read the same journal again.
    #[must_use]
    pub fn new(journal_id: &str) -> Self {
        Self {
            journal_id: journal_id.into(),
            records: Mutex::new(Records {
                first: 1,
                kept: std::collections::VecDeque::new(),
                released: BTreeMap::new(),
                delete_released: false,
            }),
            appended: Condvar::new(),
        }
    }

    /// An empty one with one consumer, which deletes what that has released.
    #[must_use]
    pub fn deleting(journal_id: &str) -> Self {
        let source = Self::new(journal_id);
        source.records.lock().delete_released = true;
        source
    }

    /// Appends a record and gives its position.
    pub fn append(&self, record: NewRecord) -> Position {
        let mut records = self.records.lock();
        records.kept.push_back(record);
        let position = records.end() - 1;
        self.appended.notify_all();
        position
    }

    /// Up to where a consumer has released.
    #[must_use]
    pub fn released(&self, consumer: &str) -> Position {
        let records = self.records.lock();
        records.released.get(consumer).copied().unwrap_or(0)
    }
}

impl Records {
    fn end(&self) -> Position {
        self.first + self.kept.len() as u64
    }
}

impl RecordSource for MemorySource {
    fn journal_id(&self) -> &str {
        &self.journal_id
    }

    fn oldest(&self) -> Position {
        self.records.lock().first
    }

    fn end(&self) -> Position {
        self.records.lock().end()
    }

    fn read(
        &self,
        from: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<ReadBatch, StoreError> {
        let records = self.records.lock();
        let from = from.max(records.first);
        let skip = usize::try_from(from - records.first).unwrap_or(usize::MAX);
        let mut batch = ReadBatch {
            next: from,
            ..ReadBatch::default()
        };
        let mut bytes = 0;
        for record in records.kept.iter().skip(skip).take(records_max) {
            bytes += record.payload.len() + record.topic.len() + record.properties.len();
            if bytes > bytes_max && !batch.records.is_empty() {
                break;
            }
            batch.records.push(Record {
                position: batch.next,
                record: record.clone(),
            });
            batch.next += 1;
        }
        Ok(batch)
    }

    fn wait(&self, after: Position, timeout: Duration) -> Position {
        let until = Instant::now() + timeout;
        let mut records = self.records.lock();
        while records.end() <= after {
            if self.appended.wait_until(&mut records, until).timed_out() {
                break;
            }
        }
        records.end()
    }

    fn release(&self, consumer: &str, upto: Position) {
        let mut records = self.records.lock();
        let released = records.released.entry(consumer.into()).or_default();
        *released = upto.max(*released);
        while records.delete_released && records.first < upto && records.kept.pop_front().is_some()
        {
            records.first += 1;
        }
    }
}
