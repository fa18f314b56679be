//! The store: what must survive a power cut, made true to its word over sled.
//!
//! Nothing else in the house opens sled. [`Journal`] is the durable log of
//! accepted records, [`State`] the database of everything else; both live in
//! one directory and share its disk budget.

pub mod alarm;
mod database;
mod disk;
mod encryption;
pub mod error;
mod files;
pub mod journal;
mod key_check;
pub mod limits;
mod mark;
mod options;
mod quarantine;
mod raw_scan;
pub mod record;
pub mod rows;
pub mod state;
mod watched;

pub use alarm::Alarm;
pub use encryption::{PackCipher, StoreKey};
pub use error::StoreError;
pub use journal::{Health, Journal, RecordSink};
pub use options::{DurableObserver, StoreOptions, SyncHook, SyncPolicy};
pub use record::{
    AckSink, Identity, NewRecord, Outcome, Position, ReadBatch, Record, RecordSource,
};
pub use rows::Rows;
pub use state::{Batch, CommitSink, KeyValue, OpenReport, State, StateHealth};
