//! Rows that become durable batch by batch, as their users see them.
//!
//! The state database is what stands behind it in a gateway. Whoever keeps
//! something in rows (dedup states, receipts, sessions) asks for this and no more,
//! so that its decisions can be run without a disk, on rows that are cut, refused
//! or late.

use std::sync::Arc;

use crate::state::{Batch, CommitSink, KeyValue, State};
use crate::{Alarm, StoreError};

/// Keys and values. What each call promises stands with [`State`]'s of the same
/// name.
pub trait Rows: Send + Sync {
    /// The value under `key`, as of the last batch that was applied.
    ///
    /// # Errors
    /// As [`State::get`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Up to `limit` entries whose keys begin with `prefix`, in key order, from
    /// behind `after` on.
    ///
    /// # Errors
    /// As [`State::scan`].
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError>;

    /// Queues a batch; `sink` hears when it is durable. Never blocks.
    ///
    /// # Errors
    /// As [`State::submit`].
    fn submit(
        &self,
        batch: Batch,
        sink: Option<(Arc<dyn CommitSink>, u64)>,
    ) -> Result<(), StoreError>;

    /// Commits a batch and waits until it is durable.
    ///
    /// # Errors
    /// As [`State::commit`].
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Why no more receipts must be taken now.
    fn receipts_refused(&self) -> Option<Alarm>;
}

impl Rows for State {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Self::get(self, key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        Self::scan(self, prefix, after, limit)
    }

    fn submit(
        &self,
        batch: Batch,
        sink: Option<(Arc<dyn CommitSink>, u64)>,
    ) -> Result<(), StoreError> {
        Self::submit(self, batch, sink)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        Self::commit(self, batch)
    }

    fn receipts_refused(&self) -> Option<Alarm> {
        Self::receipts_refused(self)
    }
}
