//! `[trace]`: the recorder that answers "where is my receipt?".
//!
//! Promises: its files fit into the store's budget. Never: anything that a
//! payment waits for.

use super::Store;
use crate::ByteSize;

/// `[trace]`: how far back the steps of payments can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Disk for the steps of payments, part of `store.budget_bytes`; the newest
    /// push out the oldest. 0 = off.
    pub bytes_max: ByteSize,
}

impl Trace {
    /// The default: what half a million payments take, and of a small budget a
    /// sixteenth.
    #[must_use]
    pub fn for_store(store: &Store) -> Self {
        let part = ByteSize::new(store.budget_bytes.bytes() / 16);
        Self {
            bytes_max: part.min(ByteSize::mib(64)),
        }
    }
}
