//! What can go wrong under the store, by blame.

use std::path::{Path, PathBuf};

/// An error of the store. None of them means that an acknowledged record is
/// gone: what was not durable was never acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused (disk full, I/O error, permissions).
    #[error("{action} {path}: {source}; check the disk and its free space")]
    Io {
        /// What was being done.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// sled failed or panicked.
    #[error("database {path}: {reason}")]
    Database {
        /// Its directory.
        path: PathBuf,
        /// sled's own words.
        reason: String,
    },
    /// Bytes on disk are not what was written.
    #[error("damaged: {what} in {path}; it is quarantined, the rest goes on")]
    Damaged {
        /// Which entry.
        what: String,
        /// Where.
        path: PathBuf,
    },
    /// The disk budget is spent (G8).
    #[error(
        "the store's disk budget is spent ({used_bytes} of {budget_bytes} bytes); it resumes by itself when Kafka takes records again"
    )]
    BudgetSpent {
        /// Used now.
        used_bytes: u64,
        /// Allowed.
        budget_bytes: u64,
    },
    /// The caller went beyond a bound of [`crate::limits`].
    #[error("{what} is {is}, more than {max}: split it, or wait for what was submitted before")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        is: usize,
        /// The bound.
        max: usize,
    },
    /// The key is not the one that the store was written with, or there is none.
    #[error("{path}: {reason}; no value was touched")]
    Key {
        /// The store's directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: &'static str,
    },
    /// The store is closing.
    #[error("the store is closing")]
    Closing,
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Whether the disk (or quota) is full: freeing space cures it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            Self::BudgetSpent { .. } => true,
            Self::Database { .. }
            | Self::Damaged { .. }
            | Self::Limit { .. }
            | Self::Key { .. }
            | Self::Closing => false,
        }
    }

    /// Whether the operating system refused, so that the same bytes may well
    /// be readable later: never a reason to quarantine anything.
    #[must_use]
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}
