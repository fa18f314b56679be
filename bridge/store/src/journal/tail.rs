//! The newest records, kept in memory so that a forwarder that keeps up never
//! reads the database. Holds only what is durable; bounded by bytes.

use std::collections::VecDeque;

use crate::limits;
use crate::record::{Position, ReadBatch, Record};

use super::pack::record_bytes;

/// What a record takes beside its bytes.
const OVERHEAD_BYTES: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Tail {
    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record_bytes(&record.record) + OVERHEAD_BYTES;
        self.records.push_back(record);
        while self.bytes > limits::TAIL_BYTES_MAX
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= record_bytes(&oldest.record) + OVERHEAD_BYTES;
        }
    }

    /// What every consumer has released is not needed any more.
    pub(super) fn release(&mut self, upto: Position) {
        while self
            .records
            .front()
            .is_some_and(|record| record.position < upto)
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= record_bytes(&oldest.record) + OVERHEAD_BYTES;
        }
    }

    /// Reads on from `batch.next`; `false` if it isn't here.
    pub(super) fn read(&self, batch: &mut ReadBatch, records_max: usize, bytes_max: usize) -> bool {
        let Some(first) = self.records.front().map(|record| record.position) else {
            return false;
        };
        let Some(skip) = batch.next.checked_sub(first) else {
            return false;
        };
        let Ok(skip) = usize::try_from(skip) else {
            return false;
        };
        if skip >= self.records.len() {
            return false;
        }
        let mut bytes = 0;
        for record in self.records.range(skip..) {
            bytes += record_bytes(&record.record);
            let full = batch.records.len() >= records_max || bytes > bytes_max;
            if full && !batch.records.is_empty() {
                break;
            }
            batch.next = record.position + 1;
            batch.records.push(record.clone());
        }
        true
    }
}

#[cfg(test)]
mod tests;
