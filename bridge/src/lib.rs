//! From the journal to Kafka, and the receipt back.
//!
//! Promises: each record of the journal whose route names a cluster stands there
//! once in the committed log (guarantee G2), one terminal's in the order in which
//! they were accepted (G3), or is kept as a dead letter with the reason; weeks
//! without Kafka change none of that, and never grow memory. Never: a call that
//! makes the MQTT side wait, or a record dropped.

pub mod client;
pub mod dead_letters;
pub mod embedded;
pub mod epochs;
pub mod error;
pub mod forwarder;
pub mod headers;
pub mod limits;
pub mod memory_source;
pub mod metrics;
pub mod position;
pub mod properties;
pub mod receipts;
pub mod remedy;
pub mod route;
pub mod settlement;
mod silence;
pub mod topics;
pub mod trace;
mod transactional;
pub mod whole_log;
mod worker;

pub use dead_letters::{DeadLetter, DeadLetterStore, DeadLetters, Reason};
pub use embedded::EmbeddedCluster;
pub use epochs::SharedRoutes;
pub use error::BridgeError;
pub use forwarder::{Forwarder, ForwarderHandle, ForwarderSetup, Options, State, Status};
pub use metrics::ForwarderMetrics;
pub use receipts::{
    Arrivals, ConsumerSetup, Outbox, OutboxSetup, ReceiptNumber, ReceiptsConsumer, ReceiptsHandle,
    ReceiptsOptions, ReceiptsStatus, StoredReceipt,
};
pub use route::{Compiled, Routes};
pub use trace::{Step, TraceLog};
