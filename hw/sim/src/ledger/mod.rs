//! The books of a run and the one judge over them: what clients were promised
//! against what stands in Kafka and what was printed.
//!
//! Promises: judges by the logs and the printers alone; a record is known by who
//! published it and its number, read from the payload that the client itself
//! wrote, not from what the gateway says of it. Never: a look at a gateway, a
//! clock or a socket.
//!
//! [`verdict`] judges the way up (each acknowledged record once in Kafka, in
//! order); [`receipts_verdict`] the way round (each payment settled once, each
//! receipt printed once, at its own terminal).

mod account;
mod log;
mod percentiles;
mod receipts;
mod records;

pub use account::{Account, Accounts};
pub use log::{Delivery, Entry, Found, delivery, receipt, record, transaction, without_repeats};
pub use percentiles::Percentiles;
pub use receipts::{ReceiptsLog, ReceiptsVerdict, receipts_verdict};
pub use records::{Verdict, verdict};
