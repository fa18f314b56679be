//! The state database, as its users see it: batches that become durable whole.
//!
//! Promises: what [`State`](risiti_store::State) promises: batches in the order of
//! their submission; an outcome only once its batch is durable; after a cut, of the
//! commit under way all or nothing, of what was only submitted nothing. A failed
//! sync or a full disk withholds outcomes until a later try succeeds. Damaged
//! values are told once and are gone then. Never: a batch in part.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use risiti_store::state::{CommitSink, KeyValue};
use risiti_store::{Alarm, Batch, Rows, StoreError, limits};

type Sink = (Arc<dyn CommitSink>, u64);

/// Keys and their values.
pub type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// The rows of a running gateway. Shared by whoever keeps something in them.
#[derive(Debug, Clone, Default)]
pub struct SimRows(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// As of the last batch that was applied.
    view: Table,
    /// What a cut leaves.
    durable: Table,
    waiting: VecDeque<(Batch, Option<Sink>)>,
    waiting_bytes: usize,
    under_way: Vec<(Batch, Option<Sink>)>,
    /// Met by nobody yet.
    damaged: BTreeSet<Vec<u8>>,
    full: bool,
    lost: u64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("rows", &self.view.len())
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl SimRows {
    /// Of what a disk holds.
    #[must_use]
    pub fn new(durable: Table, damaged: BTreeSet<Vec<u8>>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            view: durable.clone(),
            durable,
            damaged,
            ..Inner::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a commit is to be begun.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let inner = self.lock();
        inner.under_way.is_empty() && !inner.waiting.is_empty()
    }

    /// Applies all that waits: from here on it may survive a cut.
    pub fn begin(&self) {
        let mut inner = self.lock();
        let Inner {
            view,
            waiting,
            under_way,
            damaged,
            ..
        } = &mut *inner;
        for (batch, sink) in waiting.drain(..) {
            apply(view, &batch);
            for (key, _) in batch.operations() {
                damaged.remove(key);
            }
            under_way.push((batch, sink));
        }
        inner.waiting_bytes = 0;
    }

    /// The commit under way is durable: what was put into it, and who is to hear.
    /// The sinks are called by the caller, for they may submit again.
    #[must_use]
    pub fn end(&self) -> (Vec<KeyValue>, Vec<Sink>) {
        let mut inner = self.lock();
        let Inner {
            durable, under_way, ..
        } = &mut *inner;
        let mut put = Vec::new();
        let mut sinks = Vec::new();
        for (batch, sink) in under_way.drain(..) {
            apply(durable, &batch);
            let puts = batch
                .operations()
                .filter_map(|(key, value)| Some((key.to_vec(), value?.to_vec())));
            put.extend(puts);
            sinks.extend(sink);
        }
        (put, sinks)
    }

    /// Whether a commit is under way.
    #[must_use]
    pub fn is_committing(&self) -> bool {
        !self.lock().under_way.is_empty()
    }

    /// The disk is full, or is not any more.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// One value is not what was written; nobody has met it yet.
    pub fn damage(&self, key: &[u8]) {
        let mut inner = self.lock();
        inner.durable.remove(key);
        if inner.view.remove(key).is_some() {
            inner.damaged.insert(key.to_vec());
        }
    }

    /// Damaged values that were met since the last call.
    #[must_use]
    pub fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost)
    }

    /// What is durable.
    pub fn with_durable<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.lock().durable)
    }

    /// Bytes of batches that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.lock().waiting_bytes
    }

    /// The process dies: what its disk holds, and what is damaged on it. Of the
    /// commit under way all or nothing.
    #[must_use]
    pub fn die(&self, rng: &mut fastrand::Rng) -> (Table, BTreeSet<Vec<u8>>) {
        let mut inner = self.lock();
        let under_way = std::mem::take(&mut inner.under_way);
        inner.waiting.clear(); // sinks hold their owners, who hold these rows
        let mut durable = std::mem::take(&mut inner.durable);
        if !under_way.is_empty() && rng.bool() {
            for (batch, _) in &under_way {
                apply(&mut durable, batch);
            }
        }
        (durable, std::mem::take(&mut inner.damaged))
    }
}

fn apply(table: &mut Table, batch: &Batch) {
    for (key, value) in batch.operations() {
        match value {
            Some(value) => {
                table.insert(key.to_vec(), value.to_vec());
            }
            None => {
                table.remove(key);
            }
        }
    }
}

impl Rows for SimRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut inner = self.lock();
        if inner.damaged.remove(key) {
            inner.lost += 1;
            return Err(StoreError::Damaged {
                what: String::from_utf8_lossy(key).into_owned(),
                path: PathBuf::new(),
            });
        }
        Ok(inner.view.get(key).cloned())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let mut inner = self.lock();
        let met: Vec<Vec<u8>> = inner
            .damaged
            .iter()
            .filter(|key| key.starts_with(prefix))
            .cloned()
            .collect();
        for key in met {
            inner.damaged.remove(&key);
            inner.lost += 1;
        }
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        Ok(inner
            .view
            .range::<[u8], _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn submit(&self, batch: Batch, sink: Option<Sink>) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let bytes = inner.waiting_bytes + batch.bytes();
        if bytes > limits::STATE_QUEUE_BYTES_MAX {
            return Err(StoreError::Limit {
                what: "the state's queue in bytes",
                is: bytes,
                max: limits::STATE_QUEUE_BYTES_MAX,
            });
        }
        inner.waiting_bytes = bytes;
        inner.waiting.push_back((batch, sink));
        Ok(())
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut inner = self.lock();
        apply(&mut inner.view, &batch);
        apply(&mut inner.durable, &batch);
        Ok(())
    }

    fn receipts_refused(&self) -> Option<Alarm> {
        self.lock()
            .full
            .then_some(Alarm::ReceiptsSpaceLow { free_bytes: 0 })
    }
}
