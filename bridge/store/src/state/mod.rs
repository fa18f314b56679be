//! The state database: sessions, retained messages, wills, the receipts outbox,
//! Kafka offsets, dead letters, dedup checkpoints.
//!
//! Promises: a batch whose outcome was given is on stable storage, whole; a
//! damaged value is reported once, set aside and counted, and the rest goes on;
//! opening never fails because of what the bytes say. Never blocks in
//! [`State::submit`]; never applies a part of an atomic batch.
//!
//! Numbered rows, that is those under `or` name 0 number (8), lie in the row log
//! (`log/`): there are many and they wait long. All others are in sled.
//!
//! One thread commits: whatever arrived while the last sync ran goes into the
//! next one. If a write or a sync fails, the database is left behind and its
//! contents move to a fresh one, because a failed sync leaves no way to know
//! what is on disk. Until that works, outcomes are withheld. The same is done with
//! a file that has grown far beyond what lives in it: sled alone gives nothing back.
//!
//! Keys are the callers' own, by their first byte; the journal's begin with
//! `j/` (`journal/clients.rs`).
//!
//! | name in the state's directory | what |
//! | --- | --- |
//! | `db/` | the sled database, entries as in `envelope.rs` |
//! | `mark` | the last durable stamp, as in `mark.rs` |
//! | `sealed` | says that `db/` was closed in order, as in `seal.rs` |
//! | `rows/` | the row log |
//! | `before/` | the original of `db/` while sled opens a copy: put back if it did not get through |
//! | `fresh.building/` | a replacement that is not whole yet: deleted at open |
//! | `fresh/` | a replacement that is whole: takes the place of `db/` at open |

mod batch;
mod committer;
mod envelope;
mod fresh;
mod log;
mod read;
mod recovery;
mod salvage;
mod seal;
mod sweep;
#[cfg(test)]
mod tests;
mod value;
mod writes;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, RwLock};

pub use batch::Batch;
pub(crate) use value::evidence;

use crate::alarm::Alarm;
use crate::database::{Database, DatabaseOptions};
use crate::disk::Disk;
use crate::encryption::ValueCipher;
use crate::options::{StoreOptions, SyncPolicy};
use crate::quarantine::Quarantine;
use crate::{StoreError, key_check, limits};

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Hears of commits, on the committer's thread; must not block.
pub trait CommitSink: Send + Sync {
    /// The batch that was submitted with `token` is durable, or (`Err`) the
    /// state closed before it was.
    fn committed(&self, token: u64, result: Result<(), StoreError>);
}

/// What opening a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// What an operator must hear of; empty if all is well.
    pub alarms: Vec<Alarm>,
    /// Databases that were moved to quarantine.
    pub quarantined: u64,
    /// Entries or records that were brought back from raw bytes.
    pub salvaged: u64,
    /// Acknowledged records that are known to be lost.
    pub damaged_positions: u64,
}

/// Numbers of the state for the metrics page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateHealth {
    /// Batches made durable since the start.
    pub committed_batches: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// Batches that wait for their sync now.
    pub queued_batches: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Numbered rows now.
    pub numbered_rows: u64,
    /// The row log's bytes on disk.
    pub row_log_bytes: u64,
    /// Damaged values met since the start.
    pub damaged_values: u64,
    /// Times that the contents moved to a fresh database.
    pub rebuilds: u64,
    /// Times that they moved because the file had grown.
    pub compactions: u64,
    /// Why nothing is committed right now, if so.
    pub stalled: Option<String>,
    /// The last damage that was met while open, if any.
    pub damage: Option<Alarm>,
}

/// The open state database. Shared by reference; closes when dropped.
pub struct State {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) database_options: DatabaseOptions,
    /// What values are encrypted with, if they are.
    cipher: Option<ValueCipher>,
    /// `None` only while a replacement is being put in its place.
    pub(crate) database: RwLock<Option<Arc<Database>>>,
    pub(crate) quarantine: Quarantine,
    pub(crate) disk: Arc<Disk>,
    rows: log::RowLog,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) arrived: Condvar,
    pub(crate) health: Mutex<StateHealth>,
    /// A smaller file is never compacted.
    pub(crate) compact_bytes_min: u64,
    /// Whether a [`Work::Rebuild`] is on its way.
    pub(crate) rebuild_asked: AtomicBool,
}

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) work: VecDeque<Work>,
    pub(crate) bytes: usize,
    pub(crate) closing: bool,
}

pub(crate) enum Work {
    Commit {
        batch: Batch,
        sink: Option<(Arc<dyn CommitSink>, u64)>,
    },
    /// A reader found these bytes damaged under this key of sled's.
    SetAside { stored_key: Vec<u8>, bytes: Vec<u8> },
    /// A reader found this numbered row damaged.
    DropRow { key: Vec<u8> },
    /// A reader met damage in sled's own structure.
    Rebuild { reason: String },
}

impl Work {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Commit { batch, .. } => batch.bytes(),
            Self::SetAside { bytes, .. } => bytes.len(),
            Self::DropRow { key } => key.len(),
            Self::Rebuild { .. } => 0,
        }
    }
}

impl State {
    /// Opens the state under `options.dir`, creating it if missing.
    ///
    /// Damage is repaired as far as the bytes allow and told in the report.
    ///
    /// # Errors
    /// The operating system refused, or ([`StoreError::Key`], before anything is
    /// touched) the key is not the store's.
    pub fn open(options: &StoreOptions) -> Result<(Arc<Self>, OpenReport), StoreError> {
        let cipher = key_check::check(options)?;
        let disk = Disk::open(options)?;
        let (shared, start, report) = recovery::open(options, disk, cipher)?;
        let shared = Arc::new(shared);
        let committer = committer::spawn(Arc::clone(&shared), start)?;
        let state = Self {
            shared,
            committer: Mutex::new(Some(committer)),
        };
        Ok((Arc::new(state), report))
    }

    /// The value under `key`, as of the last commit that was applied.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] the first time a damaged value is met; after that
    /// the key is simply absent. Others: can't be read right now.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = read::get(&self.shared, key);
        self.heal(&found);
        found
    }

    /// Up to `limit` entries whose keys begin with `prefix`, in key order,
    /// beginning behind `after` (a whole key) or at the first.
    ///
    /// Damaged entries are set aside, counted and skipped.
    ///
    /// # Errors
    /// Can't be read right now.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let found = read::scan(&self.shared, prefix, after, limit);
        self.heal(&found);
        found
    }

    /// If sled itself stumbled over damage, its contents must be salvaged.
    fn heal<T>(&self, found: &Result<T, StoreError>) {
        if let Err(StoreError::Database { reason, .. }) = found
            && !self.shared.rebuild_asked.swap(true, Ordering::SeqCst)
        {
            let reason = reason.clone();
            let _ = self.shared.enqueue(Work::Rebuild { reason });
        }
    }

    /// Queues a batch. Batches are applied in the order of their submission;
    /// `sink` hears when this one is durable. Never blocks.
    ///
    /// # Errors
    /// [`StoreError::Limit`] if the batch or the queue is too large (of an
    /// atomic batch nothing was queued), [`StoreError::Closing`].
    pub fn submit(
        &self,
        batch: Batch,
        sink: Option<(Arc<dyn CommitSink>, u64)>,
    ) -> Result<(), StoreError> {
        let cipher = self.shared.cipher.as_ref();
        batch.check(value::grows_bytes(cipher))?;
        let mut parts = value::encrypted(batch, cipher)?.into_parts();
        let last = parts.pop().unwrap_or_default();
        for batch in parts {
            self.shared.enqueue(Work::Commit { batch, sink: None })?;
        }
        self.shared.enqueue(Work::Commit { batch: last, sink })
    }

    /// Commits a batch and waits until it is durable: as long as the disk is
    /// full or failing. Must not be called on a committer's thread (from a
    /// sink).
    ///
    /// # Errors
    /// As [`State::submit`], or the state closed before it was durable.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let waiter = Arc::new(Waiter::default());
        let sink: Arc<dyn CommitSink> = Arc::clone(&waiter) as Arc<dyn CommitSink>;
        self.submit(batch, Some((sink, 0)))?;
        let mut done = waiter.done.lock();
        loop {
            if let Some(result) = done.take() {
                return result;
            }
            waiter.settled.wait(&mut done);
        }
    }

    /// Why no more receipts must be taken now: even the reserve of the disk
    /// budget is spent, or the file system is nearly full (G8). Cheap enough to
    /// be asked before each batch. Nothing else of the state is refused.
    #[must_use]
    pub fn receipts_refused(&self) -> Option<Alarm> {
        self.shared.disk.refuses_receipts()
    }

    pub(crate) fn disk(&self) -> Arc<Disk> {
        Arc::clone(&self.shared.disk)
    }

    /// Numbers for the metrics page.
    #[must_use]
    pub fn health(&self) -> StateHealth {
        let mut health = self.shared.health.lock().clone();
        let queue = self.shared.queue.lock();
        health.queued_batches = queue.work.len() as u64;
        health.queued_bytes = queue.bytes as u64;
        (health.numbered_rows, health.row_log_bytes) = self.shared.rows.size();
        health
    }

    /// Commits what is queued and closes. What can't be committed (full disk)
    /// is told [`StoreError::Closing`].
    pub fn close(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.arrived.notify_all();
        let Some(committer) = self.committer.lock().take() else {
            return;
        };
        let ended = committer.join();
        *self.shared.database.write() = None;
        if ended.is_err() {
            tracing::error!("the state's committer panicked");
        } else if self.shared.health.lock().stalled.is_none() {
            self.shared.seal();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(crate) fn enqueue(&self, work: Work) -> Result<(), StoreError> {
        let bytes = work.bytes();
        {
            let mut queue = self.queue.lock();
            if queue.closing {
                return Err(StoreError::Closing);
            }
            if queue.bytes + bytes > limits::STATE_QUEUE_BYTES_MAX {
                return Err(StoreError::Limit {
                    what: "the state's queue in bytes",
                    is: queue.bytes + bytes,
                    max: limits::STATE_QUEUE_BYTES_MAX,
                });
            }
            queue.bytes += bytes;
            queue.work.push_back(work);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Spares the next opening a copy. Without a seal it is only slower.
    fn seal(&self) {
        if self.database_options.sync != SyncPolicy::Durable {
            return;
        }
        if let Err(error) = seal::put_on(&self.dir, &self.dir.join("db")) {
            tracing::warn!(%error, "state: closed without a seal");
        }
    }

    pub(crate) fn database(&self) -> Result<Arc<Database>, StoreError> {
        self.database.read().clone().ok_or(StoreError::Closing)
    }
}

#[derive(Default)]
struct Waiter {
    done: Mutex<Option<Result<(), StoreError>>>,
    settled: Condvar,
}

impl CommitSink for Waiter {
    fn committed(&self, _token: u64, result: Result<(), StoreError>) {
        *self.done.lock() = Some(result);
        self.settled.notify_all();
    }
}
