//! The steps of a payment and of its receipt.

/// A step on the way of a record or of its receipt, with its Kafka topic as the
/// caller has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<Topic> {
    /// The record is on stable storage.
    Durable {
        /// When the gateway received it, Unix milliseconds.
        received_ms: u64,
        /// Its place in the journal.
        position: u64,
        /// The terminal marked it as sent again because no receipt came.
        resend: bool,
    },
    /// It stands in Kafka's committed log.
    Forwarded {
        /// Kafka topic.
        topic: Topic,
        /// Partition.
        partition: i32,
        /// Offset.
        offset: i64,
    },
    /// Kafka refused it for good; it is kept as a dead letter.
    Dead,
    /// Its receipt is on stable storage.
    Stored {
        /// Partition of the receipts' topic.
        partition: i32,
        /// Offset there.
        offset: i64,
        /// When settlement issued it, Unix milliseconds.
        settled_ms: u64,
        /// The terminal's receipt number.
        number: u64,
        /// The receipt's status code.
        status: u16,
    },
    /// The receipt was written to its terminal's connection.
    Sent {
        /// The terminal's receipt number.
        number: u64,
        /// It had been sent before.
        again: bool,
    },
    /// The terminal has acknowledged the receipt.
    Acknowledged {
        /// The terminal's receipt number.
        number: u64,
    },
    /// The receipt expired before the terminal took it.
    Expired {
        /// The terminal's receipt number.
        number: u64,
    },
}

/// A step that was noted.
pub type Passed = Step<String>;

/// When a step was noted, and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// The step.
    pub step: Passed,
}
