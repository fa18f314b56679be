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
    /// 0 accepted, else the reason for the rejection, or
    /// [`STATUS_SEALED`](super::STATUS_SEALED).
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

#[cfg(test)]
mod tests {
    use super::*;

    fn received(offset: i64) -> Received {
        Received {
            terminal: "t1".into(),
            sequence: 1,
            status: 0,
            settled_ms: 0,
            expires_ms: None,
            partition: 0,
            offset,
            payload: Bytes::new(),
        }
    }

    fn elsewhere() -> Elsewhere {
        Elsewhere {
            terminal: "t1".into(),
            sequence: 1,
        }
    }

    fn next(topic: &str, partition: i32, next: i64) -> NextOffset {
        NextOffset {
            topic: topic.into(),
            partition,
            next,
        }
    }

    /// Adds until there is no room; with how many that is.
    fn filled(mut poll: Poll, mut add: impl FnMut(&mut Poll, usize)) -> usize {
        let mut count = 0;
        while poll.has_room() {
            add(&mut poll, count);
            count += 1;
            assert!(count <= risiti_store::limits::BATCH_KEYS_MAX);
        }
        count
    }

    #[test]
    fn g8_whatever_comes_next_fits_into_the_commit_and_not_one_is_left_out_for_nothing() {
        // A delivery is the largest of messages: rows, a terminal, and its offset.
        let largest = limits::ROWS_PER_DELIVERY + 2;
        let room = risiti_store::limits::BATCH_KEYS_MAX - largest;
        let receipts = |poll: &mut Poll, n: usize| poll.receipts.push(received(n as i64));
        let deliveries = |poll: &mut Poll, _: usize| poll.elsewhere.push(elsewhere());
        let offsets = |poll: &mut Poll, n: usize| poll.passed(next("r", n as i32, 1));
        assert_eq!(filled(Poll::default(), receipts), room / 2 + 1);
        let delivery = limits::ROWS_PER_DELIVERY + 1;
        assert_eq!(filled(Poll::default(), deliveries), room / delivery + 1);
        assert_eq!(filled(Poll::default(), offsets), room + 1);
        let mut mixed = Poll::default();
        for n in 0..10 {
            receipts(&mut mixed, n);
            deliveries(&mut mixed, n);
            offsets(&mut mixed, n);
        }
        let left = room - 10 * (2 + delivery + 1);
        assert_eq!(filled(mixed, offsets_from_ten), left + 1);
    }

    fn offsets_from_ten(poll: &mut Poll, n: usize) {
        poll.passed(next("r", n as i32 + 10, 1));
    }

    #[test]
    fn how_far_a_partition_is_stands_once_for_each_of_each_topic() {
        let mut poll = Poll::default();
        for to in [
            next("r", 0, 5),
            next("r", 1, 6),
            next("d", 0, 7),
            next("r", 0, 8),
        ] {
            poll.passed(to);
        }
        let expected = [next("r", 0, 8), next("r", 1, 6), next("d", 0, 7)];
        assert_eq!(poll.offsets, expected);
    }
}
