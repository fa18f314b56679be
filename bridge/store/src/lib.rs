//! The store: what must survive a power cut, made true to its word over sled.
//!
//! Nothing else in the house opens sled.

pub mod error;
pub mod record;

pub use error::StoreError;
pub use record::{
    AckSink, Identity, NewRecord, Outcome, Position, ReadBatch, Record, RecordSource,
};
