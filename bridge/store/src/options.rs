//! What the store is told when it is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::encryption::StoreKey;
use crate::limits;
use crate::record::{NewRecord, Position};

/// Called with the database's directory before each sync of its file; may
/// block, and its error counts as the sync's. For tests: slow and failing disks.
pub type SyncHook = Arc<dyn Fn(&Path) -> io::Result<()> + Send + Sync>;

/// Hears what the journal has made durable, on its committer's thread: after the
/// sync, before any outcome and before a reader can see it. Every PUBACK waits
/// for it, so it must be quick and must not block.
pub trait DurableObserver: Send + Sync {
    /// `records` are on stable storage, at contiguous positions from `first` on.
    fn durable(&self, first: Position, records: &[NewRecord]);
}

/// Whether outcomes wait for stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// `fdatasync` after sled's flush: survives a power cut.
    #[default]
    Durable,
    /// sled's flush alone, which does **not** survive a power cut. It exists
    /// for negative controls: tests that must fail without our sync.
    FlushOnly,
}

/// How to open a store. `StoreOptions::new(dir)` gives the defaults.
#[derive(Clone)]
pub struct StoreOptions {
    /// Where everything lives; created if missing.
    pub dir: PathBuf,
    /// A journal generation is sealed when it holds this many bytes of packs.
    pub generation_bytes: u64,
    /// What journal and state together may take on disk, bytes (G8).
    pub budget_bytes: u64,
    /// The part of the budget that appends to the journal leave to receipts
    /// and sessions, bytes.
    pub receipts_reserve_bytes: u64,
    /// Appends are withheld while the file system has less than this free.
    pub free_bytes_min: u64,
    /// A file kept only to be deleted when the disk is full: sled needs space
    /// to read and to delete.
    pub ballast_bytes: u64,
    /// Released generations are kept up to this many bytes, for an operator
    /// who wants to send them again.
    pub keep_forwarded_bytes: u64,
    /// A segment of the state database, bytes: a power of two, and for ever what
    /// it was when the directory was made. Smaller than the default only in
    /// tests: a short run then fills, frees and reuses many, and sled puts its
    /// larger nodes into files of their own. (The journal, which is read without
    /// sled, always has segments in which that can't happen.)
    pub state_segment_bytes: usize,
    /// The state database is written anew once its file has more bytes than this and
    /// [`limits::STATE_COMPACT_FACTOR`] times what lives in it. Smaller than the default
    /// only in tests.
    pub state_compact_bytes_min: u64,
    /// No file of the row log ends before it has this size, bytes. Smaller than
    /// the default only in tests, so that a short run has many.
    pub row_file_bytes_min: u64,
    /// What values are encrypted with; `None`: they are not. A store that was
    /// opened with a key is opened with that one ever after (`encryption.rs`).
    pub key: Option<StoreKey>,
    /// Who reads the journal; a generation goes when all of them released it.
    pub consumers: Vec<String>,
    /// Whether resends are recognised (G2). `false` exists for negative
    /// controls only.
    pub dedup: bool,
    /// Whether outcomes wait for stable storage (G1).
    pub sync: SyncPolicy,
    /// See [`SyncHook`]; `None` outside tests.
    pub sync_hook: Option<SyncHook>,
    /// See [`DurableObserver`].
    pub observer: Option<Arc<dyn DurableObserver>>,
}

impl StoreOptions {
    /// The defaults of an edge box: 8 GiB, one consumer named `default`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            generation_bytes: 32 * 1024 * 1024,
            budget_bytes: 8 * 1024 * 1024 * 1024,
            receipts_reserve_bytes: 512 * 1024 * 1024,
            free_bytes_min: 256 * 1024 * 1024,
            ballast_bytes: 24 * 1024 * 1024,
            keep_forwarded_bytes: 0,
            state_segment_bytes: limits::SEGMENT_BYTES as usize,
            state_compact_bytes_min: limits::STATE_COMPACT_BYTES_MIN,
            row_file_bytes_min: *limits::LOG_FILE_BYTES.start(),
            key: None,
            consumers: vec!["default".to_string()],
            dedup: true,
            sync: SyncPolicy::Durable,
            sync_hook: None,
            observer: None,
        }
    }
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("dir", &self.dir)
            .field("budget_bytes", &self.budget_bytes)
            .field("consumers", &self.consumers)
            .field("dedup", &self.dedup)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}
