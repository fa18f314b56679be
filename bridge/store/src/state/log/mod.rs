//! The row log: rows that are written once, read seldom and wait long, such as
//! a million receipts for terminals that are switched off.
//!
//! A tree that takes rows in random order rewrites its pages again and again,
//! and whoever opens it after a kill reads and copies all of that. So these rows
//! go to files that are only ever appended to; in memory is where each lies.
//!
//! Promises: a commit that touches a numbered row stands here whole, its other
//! rows too, and synced, before the database hears of it; so it is all there or
//! not at all, though two files hold it. What lies in older files is never
//! written again. A damaged row costs itself and is told. The files take at most
//! twice what lives in them and two files more. Never: a value in memory.
//!
//! | name in `state/rows/` | what |
//! | --- | --- |
//! | `00000007.log` | file 7 (hexadecimal): entries as in `entry.rs`, in the order of the commits |
//!
//! A file goes when nothing lives in it, the oldest first, so that no deletion
//! goes before what it deletes. What still lives in the oldest is appended anew
//! as soon as too much is dead.

mod entry;
mod group;
mod index;
mod recovery;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::StoreError;
use crate::state::value::Value;

use entry::{Entry, Kind};
use index::{Index, Place};

pub(super) use group::{Appended, Group};
pub(super) use recovery::{each_encrypted, open};
pub(super) use writer::LogWriter;

type Result<T> = std::result::Result<T, StoreError>;

/// The numbered rows, for readers.
pub(crate) struct RowLog {
    dir: PathBuf,
    salt: u32,
    inner: RwLock<Inner>,
}

struct Inner {
    index: Index,
    files: BTreeMap<u32, LogFile>,
}

/// How far the log reached with a commit, as the database keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogEnd {
    pub(super) file: u32,
    pub(super) length: u64,
    pub(super) salt: u32,
}

struct LogFile {
    file: Arc<File>,
    /// As far as its commits go.
    bytes: u64,
    live_bytes: u64,
}

/// Whether a row with this key is kept here.
pub(super) fn is_numbered(key: &[u8]) -> bool {
    index::split(key).is_some()
}

/// Whether rows with this prefix may be kept here.
pub(super) fn may_hold(prefix: &[u8]) -> bool {
    prefix.starts_with(index::FAMILY) || index::FAMILY.starts_with(prefix)
}

impl RowLog {
    /// The value under `key`, as it was written.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or it can't be read now.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        let (place, file) = {
            let inner = self.inner.read();
            let Some(place) = inner.index.get(key) else {
                return Ok(None);
            };
            match inner.files.get(&place.file) {
                Some(log) => (place, Arc::clone(&log.file)),
                None => return Err(self.damaged(key, place)),
            }
        };
        let bytes = self.read(&file, place)?;
        match Entry::decode(&bytes, self.salt) {
            Some(entry) if entry.kind == Kind::Row && entry.key == key => Ok(Some(Value {
                bytes: entry.value.to_vec(),
                encrypted: entry.encrypted,
            })),
            _ => Err(self.damaged(key, place)),
        }
    }

    /// Up to `limit` keys as [`Index::page`] gives them.
    pub(super) fn keys(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
        let page = self.inner.read().index.page(prefix, after, limit);
        page.into_iter().map(|(key, _)| key).collect()
    }

    /// The bytes of a damaged row, as far as they can be read.
    pub(super) fn raw(&self, key: &[u8]) -> Option<Vec<u8>> {
        let (place, file) = {
            let inner = self.inner.read();
            let place = inner.index.get(key)?;
            (place, Arc::clone(&inner.files.get(&place.file)?.file))
        };
        self.read(&file, place).ok()
    }

    /// An empty group for the commit with this stamp.
    pub(super) fn group(&self, stamp: u64) -> Group {
        Group::new(stamp, self.salt)
    }

    /// Rows, and bytes on disk.
    pub(super) fn size(&self) -> (u64, u64) {
        let inner = self.inner.read();
        let bytes = inner.files.values().map(|file| file.bytes).sum();
        (inner.index.rows(), bytes)
    }

    fn read(&self, file: &File, place: Place) -> Result<Vec<u8>> {
        let mut bytes = vec![0; place.bytes as usize];
        match file.read_exact_at(&mut bytes, u64::from(place.offset)) {
            Ok(()) => Ok(bytes),
            // Shorter than it was: damage, not the device.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
            Err(e) => Err(StoreError::io("read", &self.path(place.file), e)),
        }
    }

    /// What to say of a row whose value does not fit its tag.
    pub(super) fn unfit(&self, key: &[u8]) -> StoreError {
        StoreError::Damaged {
            what: format!("state row {}", key.escape_ascii()),
            path: self.dir.clone(),
        }
    }

    fn damaged(&self, key: &[u8], place: Place) -> StoreError {
        StoreError::Damaged {
            what: format!("state row {}", key.escape_ascii()),
            path: self.path(place.file),
        }
    }

    fn path(&self, number: u32) -> PathBuf {
        path_of(&self.dir, number)
    }
}

impl Inner {
    /// A row lies here now, or nowhere.
    fn set(&mut self, key: &[u8], place: Option<Place>) {
        let before = match place {
            Some(place) => {
                if let Some(file) = self.files.get_mut(&place.file) {
                    file.live_bytes += u64::from(place.bytes);
                }
                self.index.put(key, place)
            }
            None => self.index.remove(key),
        };
        if let Some(before) = before
            && let Some(file) = self.files.get_mut(&before.file)
        {
            file.live_bytes = file.live_bytes.saturating_sub(u64::from(before.bytes));
        }
    }
}

fn path_of(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08x}.log"))
}
