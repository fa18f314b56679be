//! What can go wrong under the store, by blame.

use std::path::PathBuf;

/// An error of the store. None of them means that an acknowledged record is
/// gone: what was not durable was never acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused (disk full, I/O error, permissions).
    #[error("{action} {path}: {source}; check the disk and its free space, the gateway retries by itself")]
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
    #[error("the store's disk budget is spent ({used_bytes} of {budget_bytes} bytes); it resumes by itself when Kafka takes records again")]
    BudgetSpent {
        /// Used now.
        used_bytes: u64,
        /// Allowed.
        budget_bytes: u64,
    },
    /// The store is closing.
    #[error("the store is closing")]
    Closing,
}
