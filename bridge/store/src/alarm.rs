//! What an operator must hear of.

/// An alarm of the store. `Display` is one line with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Alarm {
    /// The disk budget is spent: PUBACKs are withheld (G8).
    #[error(
        "the disk budget is spent ({used_bytes} of {budget_bytes} bytes): PUBACKs are withheld; check that Kafka is reachable, or raise store.budget_bytes"
    )]
    BudgetSpent {
        /// Taken on disk now.
        used_bytes: u64,
        /// Allowed.
        budget_bytes: u64,
    },
    /// The file system is nearly full: PUBACKs are withheld (G8).
    #[error(
        "the file system has {free_bytes} bytes free, less than store.free_bytes_min ({free_bytes_min}): PUBACKs are withheld; free space"
    )]
    SpaceLow {
        /// Free now.
        free_bytes: u64,
        /// Wanted.
        free_bytes_min: u64,
    },
    /// Writing fails: PUBACKs are withheld until it works.
    #[error("writing fails ({reason}): PUBACKs are withheld; check the disk")]
    WriteFailed {
        /// The last error.
        reason: String,
    },
    /// A database was damaged; its entries were salvaged from raw bytes (G11).
    #[error(
        "{what} was damaged ({reason}): {salvaged} entries salvaged, {lost} lost; the original is in quarantine/{quarantined}; check the disk"
    )]
    Damaged {
        /// Which database.
        what: String,
        /// What was seen.
        reason: String,
        /// Entries or records brought back.
        salvaged: u64,
        /// Acknowledged records known to be lost.
        lost: u64,
        /// The name under `quarantine/`.
        quarantined: String,
    },
}
