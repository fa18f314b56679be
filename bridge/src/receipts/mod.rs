//! Kafka → terminal: the receipts, from their topic to their terminals' PUBACKs.
//!
//! Promises: a receipt and the Kafka offset behind it are on disk in one commit,
//! before the offset is passed to Kafka (G4); its row stays until its terminal
//! acknowledged it and the delivery event that says so is in the journal, where
//! it is recognised if it comes twice; what is not kept because of a bound is
//! counted and told, and its terminal asks for it again (G7, G8). One bad receipt
//! never stops the rest. Never: a payload of an absent terminal held in memory, a
//! call that makes the MQTT side wait for Kafka.
//!
//! | file          | what                                                         |
//! |---------------|--------------------------------------------------------------|
//! | `rows.rs`     | layout on disk                                               |
//! | `ledger.rs`   | core: numbers, counts and bounds                             |
//! | `outbox.rs`   | what waits, as the MQTT side sees it                         |
//! | `poll.rs`     | core: what becomes one commit                                |
//! | `storing.rs`  | a poll becomes a commit, and listeners hear of it            |
//! | `delivered.rs`| from a PUBACK to the delivery event and the end of the row   |
//! | `event.rs`    | the delivery event                                           |
//! | `intake.rs`   | core: what a message of the receipts' topic is               |
//! | `begin.rs`    | core: where to begin in a partition                          |
//! | `early.rs`    | core: deliveries elsewhere that are heard of too early       |
//! | `course.rs`   | core: which partitions, where in them, what a message becomes |
//! | `consumer.rs` | the consumer's handle and status                             |
//! | `reading.rs`  | the consumer's thread                                        |
//! | `places.rs`   | its partitions, and where it is in them                      |

mod begin;
mod consumer;
mod course;
mod delivered;
mod early;
mod event;
mod intake;
mod ledger;
mod metrics;
mod outbox;
mod places;
mod poll;
mod reading;
mod rows;
mod storing;

use bytes::Bytes;

pub use begin::{Begin, begin};
pub use consumer::{
    ConsumerSetup, ReceiptsConsumer, ReceiptsFault, ReceiptsFaultHook, ReceiptsHandle,
    ReceiptsOptions, ReceiptsState, ReceiptsStatus,
};
pub use course::{Course, Place, Places};
pub use event::{DELIVERIES_ROUTE, Delivered, JOURNAL_HEADER, deliveries_route};
pub use intake::{
    EXPIRY_HEADER, Message as ReceiptMessage, RECEIPTS_ROUTE, STATUS_SEALED, message_of,
};
pub use metrics::ReceiptsMetrics;
pub use outbox::{Now, Outbox, OutboxSetup};
pub use poll::{Elsewhere, NextOffset, Poll, Received};

/// Numbers a terminal's receipts in the order in which they came: from 1, never
/// used again within a data directory.
pub type ReceiptNumber = u64;

/// A receipt that waits for its terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReceipt {
    /// Its number.
    pub number: ReceiptNumber,
    /// The sequence number of the record that it answers.
    pub sequence: u64,
    /// When it was stored here, Unix milliseconds.
    pub stored_ms: u64,
    /// When it is of no use any more, Unix milliseconds; none = never.
    pub expires_ms: Option<u64>,
    /// The receipt in the wire format.
    pub payload: Bytes,
}

/// Hears of receipts once they are durable.
pub trait Arrivals: Send + Sync {
    /// These have come for this terminal, in the order of their numbers. Called
    /// on the store's own thread: must not block.
    fn arrived(&self, terminal: &str, receipts: &[StoredReceipt]);
}
