//! What becomes one commit of the outbox. A core.
//!
//! Promises: a poll that has room fits, with one more message of any kind, into
//! one atomic batch of the store. Never: two offsets of one partition.

use std::sync::Arc;

use bytes::Bytes;

use super::rows::ReceiptRow;
use super::{ReceiptNumber, StoredReceipt};
use crate::limits;
use crate::trace::Step;

/// A receipt as it came from Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Whose it is: the message's key, a valid terminal id.
    pub terminal: String,
    /// The sequence number of the record that it answers.
    pub sequence: u64,
    /// 0 accepted, else the reason for the rejection.
    pub status: u16,
    /// When settlement issued it, Unix milliseconds.
    pub settled_ms: u64,
    /// When it is of no use any more, Unix milliseconds; none = never.
    pub expires_ms: Option<u64>,
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The receipt in the wire format.
    pub payload: Bytes,
}

/// The next offset to take from a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextOffset {
    /// Kafka topic.
    pub topic: Arc<str>,
    /// Partition of it.
    pub partition: i32,
    /// One past the last offset taken.
    pub next: i64,
}

/// Another gateway delivered the receipt of this record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// To which terminal.
    pub terminal: String,
    /// The sequence number of the record.
    pub sequence: u64,
}

/// What becomes one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Poll {
    /// In the order of their offsets.
    pub receipts: Vec<Received>,
    /// What other gateways delivered.
    pub elsewhere: Vec<Elsewhere>,
    /// How far the partitions are with these, each once.
    pub offsets: Vec<NextOffset>,
}

impl Poll {
    /// Whether one more message, whatever it is, fits into an atomic commit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // A receipt is a row and its terminal's; a delivery may end some rows.
        let keys = self.receipts.len() * 2
            + self.elsewhere.len() * (limits::ROWS_PER_DELIVERY + 1)
            + self.offsets.len();
        keys + limits::ROWS_PER_DELIVERY + 2 <= risiti_store::limits::BATCH_KEYS_MAX
    }

    /// Notes how far a partition is.
    pub fn passed(&mut self, to: NextOffset) {
        let same = |o: &&mut NextOffset| o.partition == to.partition && o.topic == to.topic;
        match self.offsets.iter_mut().find(same) {
            Some(offset) => offset.next = to.next,
            None => self.offsets.push(to),
        }
    }
}

impl Received {
    pub(super) fn step(&self, number: ReceiptNumber) -> Step<&'static str> {
        Step::Stored {
            partition: self.partition,
            offset: self.offset,
            settled_ms: self.settled_ms,
            number,
            status: self.status,
        }
    }

    pub(super) fn row(&self, number: ReceiptNumber, now_ms: u64) -> ReceiptRow {
        ReceiptRow {
            receipt: StoredReceipt {
                number,
                sequence: self.sequence,
                stored_ms: now_ms,
                expires_ms: self.expires_ms,
                payload: self.payload.clone(),
            },
            settled_ms: self.settled_ms,
            status: self.status,
            partition: self.partition,
            offset: self.offset,
        }
    }
}
