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
        "the file system has {free_bytes} bytes free, too few beside store.free_bytes_min ({free_bytes_min}): PUBACKs are withheld; free space"
    )]
    SpaceLow {
        /// Free now.
        free_bytes: u64,
        /// Wanted.
        free_bytes_min: u64,
    },
    /// Even the reserve of the disk budget is spent: no more receipts are taken
    /// from Kafka, which keeps them (G8).
    #[error(
        "the disk budget is spent with its reserve for receipts ({used_bytes} of {budget_bytes} bytes): receipts wait in Kafka; raise store.budget_bytes, or let receipts expire"
    )]
    ReceiptsBudgetSpent {
        /// Taken on disk now.
        used_bytes: u64,
        /// Allowed.
        budget_bytes: u64,
    },
    /// The file system is so full that no more receipts are taken from Kafka,
    /// which keeps them (G8).
    #[error("the file system has only {free_bytes} bytes free: receipts wait in Kafka; free space")]
    ReceiptsSpaceLow {
        /// Free now.
        free_bytes: u64,
    },
    /// Writing fails: PUBACKs are withheld until it works.
    #[error("writing fails ({reason}): PUBACKs are withheld; check the disk")]
    WriteFailed {
        /// The last error.
        reason: String,
    },
    /// A part of the journal was damaged; what can be read goes on (G11).
    #[error(
        "{what} was damaged ({reason}): {salvaged} records salvaged, {lost} lost; the original is in quarantine/{quarantined}; check the disk"
    )]
    Damaged {
        /// Which part.
        what: String,
        /// What was seen.
        reason: String,
        /// Records brought back.
        salvaged: u64,
        /// Acknowledged records known to be lost.
        lost: u64,
        /// The name under `quarantine/`.
        quarantined: String,
    },
    /// The state database was damaged; its entries were salvaged from raw bytes.
    /// How many the damage hit is not known, for nothing counts them (G11).
    #[error(
        "the state database was damaged ({reason}): {salvaged} entries salvaged; what the damage hit is gone (a session, a queued or a retained message; no record that waits for Kafka); the original is in quarantine/{quarantined}; check the disk"
    )]
    StateDamaged {
        /// What was seen.
        reason: String,
        /// Entries brought back.
        salvaged: u64,
        /// The name under `quarantine/`.
        quarantined: String,
    },
    /// Rows that wait long, such as receipts, were damaged on disk (G11).
    #[error(
        "waiting receipts were damaged ({reason}): at least {lost} entries can't be read, {kept} are whole; a terminal that misses one asks for it again; the original is in quarantine/{quarantined}; check the disk"
    )]
    RowsDamaged {
        /// What was seen.
        reason: String,
        /// Entries that can't be read, as far as they can be counted.
        lost: u64,
        /// Rows that are whole.
        kept: u64,
        /// The name under `quarantine/`.
        quarantined: String,
    },
}
