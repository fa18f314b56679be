//! One sled database, made true to its word.
//!
//! Promises: a flush that returned is on stable storage; a panic inside sled
//! is an error, not the end of the process; a half-made snapshot never keeps
//! a database from opening. Never retries a failed sync: the kernel may have
//! dropped the pages and marked them clean, so a second fsync that succeeds
//! proves nothing. Whoever gets an error from [`Database::sync`] moves to a
//! fresh database.
//!
//! sled 0.34.7 loses a wakeup when a write fails (`exit_reservation` in its
//! logger sets the error and tells nobody), and a call then waits for ever:
//! `watched.rs` wakes it.
//!
//! sled's own `flush()` ends in `sync_file_range`, which survives no power cut;
//! the `fdatasync` here, on a descriptor that is as old as the open database
//! (so that it sees every write-back error), is what counts.

use std::fs::{self, File};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sled::IVec;

use crate::options::{StoreOptions, SyncHook, SyncPolicy};
use crate::watched::{Watched, quietly};
use crate::{StoreError, files, limits};

type Result<T> = std::result::Result<T, StoreError>;

/// How to open a database.
#[derive(Clone)]
pub(crate) struct DatabaseOptions {
    /// sled's page cache, bytes.
    pub(crate) cache_bytes: u64,
    /// A segment of its file, bytes.
    pub(crate) segment_bytes: usize,
    pub(crate) sync: SyncPolicy,
    pub(crate) sync_hook: Option<SyncHook>,
}

impl DatabaseOptions {
    /// What the store's options say of a database with this cache.
    pub(crate) fn of(options: &StoreOptions, cache_bytes: u64) -> Self {
        Self {
            cache_bytes,
            segment_bytes: limits::SEGMENT_BYTES as usize,
            sync: options.sync,
            sync_hook: options.sync_hook.clone(),
        }
    }
}

/// An open sled database.
pub(crate) struct Database {
    dir: PathBuf,
    watched: Watched,
    file: File,
    options: DatabaseOptions,
}

impl Database {
    /// Creates a fresh database in `dir`, durable with its name, `conf` and
    /// file. `dir` must not exist.
    pub(crate) fn create(dir: &Path, options: &DatabaseOptions) -> Result<Self> {
        files::create_dir(dir)?;
        let database = Self::open_sled(dir, options)?;
        database.sync()?;
        for name in ["conf", "db"] {
            let path = dir.join(name);
            File::open(&path)
                .and_then(|f| f.sync_all())
                .map_err(|e| StoreError::io("sync", &path, e))?;
        }
        files::sync_dir(dir)?;
        Ok(database)
    }

    /// Opens an existing database.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the operating system refused; anything else means
    /// that the bytes in `dir` are not a whole database: salvage it.
    pub(crate) fn open(dir: &Path, options: &DatabaseOptions) -> Result<Self> {
        remove_half_made_snapshots(dir)?;
        let database = Self::open_sled(dir, options)?;
        // Recovery may have written a snapshot and zeroed the torn tail.
        files::sync_dir(dir)?;
        Ok(database)
    }

    fn open_sled(dir: &Path, options: &DatabaseOptions) -> Result<Self> {
        let deadline = Instant::now() + Duration::from_millis(limits::LOCK_WAIT_MS);
        let db = loop {
            let opened = guarded(dir, || {
                sled::Config::new()
                    .path(dir)
                    .cache_capacity(options.cache_bytes)
                    .segment_size(options.segment_bytes)
                    .flush_every_ms(None)
                    .open()
            });
            match opened {
                Err(StoreError::Io { source, .. })
                    if source.to_string().contains("could not acquire lock")
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other => break other?,
            }
        };
        // First of all: from here on it is dropped with its panics caught.
        let watched = Watched::new(db).map_err(|e| StoreError::io("watch", dir, e))?;
        let path = dir.join("db");
        let file = File::open(&path).map_err(|e| StoreError::io("open", &path, e))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            watched,
            file,
            options: options.clone(),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn run<T>(&self, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T> {
        guarded(&self.dir, || self.watched.call(work))
    }

    /// The value under `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>> {
        self.run(|db| db.get(key))
    }

    /// The entry with the greatest key at or below `key`.
    pub(crate) fn at_or_below(&self, key: &[u8]) -> Result<Option<(IVec, IVec)>> {
        self.run(|db| {
            db.range::<&[u8], _>((Bound::Unbounded, Bound::Included(key)))
                .next_back()
                .transpose()
        })
    }

    /// Up to `limit` entries from `from` on, in order, while `keep` holds.
    pub(crate) fn page(
        &self,
        from: Bound<&[u8]>,
        limit: usize,
        mut keep: impl FnMut(&[u8]) -> bool,
    ) -> Result<Vec<(IVec, IVec)>> {
        self.run(|db| {
            let mut page = Vec::new();
            for entry in db.range::<&[u8], _>((from, Bound::Unbounded)) {
                let (key, value) = entry?;
                if !keep(&key) {
                    break;
                }
                page.push((key, value));
                if page.len() >= limit {
                    break;
                }
            }
            Ok(page)
        })
    }

    /// Applies a batch atomically; durable after the next [`Database::sync`].
    pub(crate) fn apply(&self, batch: sled::Batch) -> Result<()> {
        self.run(|db| db.apply_batch(batch))
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.run(|db| db.flush().map(|_| ()))?;
        let path = self.dir.join("db");
        if let Some(hook) = &self.options.sync_hook {
            hook(&self.dir).map_err(|e| StoreError::io("sync", &path, e))?;
        }
        match self.options.sync {
            SyncPolicy::Durable => {
                self.sync_blobs()?;
                self.file
                    .sync_data()
                    .map_err(|e| StoreError::io("sync", &path, e))
            }
            SyncPolicy::FlushOnly => Ok(()),
        }
    }

    /// sled writes a node that has grown too large into a file of its own and
    /// never syncs it. The bounds on values keep that from happening, and must:
    /// synced before the log as here, such a file still does not survive every
    /// cut, since sled refers to it before (crash images show that).
    fn sync_blobs(&self) -> Result<()> {
        let folder = self.dir.join("blobs");
        let blobs = files::list(&folder)?;
        if blobs.is_empty() {
            return Ok(());
        }
        for path in blobs {
            match File::open(&path).and_then(|f| f.sync_all()) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io("sync", &path, e));
                }
                _ => {}
            }
        }
        files::sync_dir(&folder)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Flushed while it is still watched, so that the flush of sled's own
        // drop has nothing left to wait for. What was not synced before was not
        // promised to anybody.
        let _ = self.run(|db| db.flush());
    }
}

/// sled takes the greatest name for its newest snapshot, also one that a kill
/// left half-made, and then refuses to open (sled #1533).
fn remove_half_made_snapshots(dir: &Path) -> Result<()> {
    for path in files::list(dir)? {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        }
    }
    files::sync_dir(dir)
}

fn guarded<T>(dir: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match quietly(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(e))) if !is_about_content(&e) => {
            Err(StoreError::io("access", &dir.join("db"), e))
        }
        Ok(Err(e)) => Err(StoreError::Database {
            path: dir.to_path_buf(),
            reason: e.to_string(),
        }),
        Err(panic) => Err(StoreError::Database {
            path: dir.to_path_buf(),
            reason: format!("sled panicked: {panic}"),
        }),
    }
}

/// These kinds come from what the bytes say (a pointer past the end, a blob
/// that is not there, text that is none), not from the device.
fn is_about_content(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(
        e.kind(),
        NotFound | UnexpectedEof | InvalidData | InvalidInput
    )
}
