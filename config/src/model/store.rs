//! `[store]`: the disk budget, and the key of what lies on the disk.
//!
//! Promises: the parts always fit into the budget. Never: space taken that is
//! not counted here.

use super::Bootstrap;
use crate::{ByteSize, SecretKey};

/// `[store]`: how much disk the gateway may use, and how it is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Disk the store may use in all. When it is spent, PUBACK is withheld.
    pub budget_bytes: ByteSize,
    /// Part of the budget that only receipts may use.
    pub receipts_reserve_bytes: ByteSize,
    /// Size at which a generation of the journal is closed.
    pub generation_bytes: ByteSize,
    /// A file kept only to be deleted when the disk is full, so that the
    /// store can still be opened and drained.
    pub ballast_bytes: ByteSize,
    /// Free space of the file system below which PUBACK is withheld although
    /// the budget is not spent: other programs can fill a disk too.
    pub free_bytes_min: ByteSize,
    /// Forwarded records kept on disk all the same. 0 with a real cluster; with
    /// the embedded one 64 MiB, so that the empty cluster after a restart can be
    /// filled again.
    pub keep_forwarded_bytes: ByteSize,
    /// What values are encrypted with on disk; none: they are not.
    pub key: Option<SecretKey>,
}

impl Store {
    /// The defaults; they depend on whether Kafka itself is durable.
    #[must_use]
    pub fn for_bootstrap(bootstrap: &Bootstrap) -> Self {
        Self {
            // About 20 million records of 200 bytes at the measured 1.7 × .
            budget_bytes: ByteSize::gib(8),
            // Over a million receipts.
            receipts_reserve_bytes: ByteSize::mib(256),
            // Reopens in some 30 ms; small enough that disk comes back soon.
            generation_bytes: ByteSize::mib(32),
            // What was measured to be enough to recover from a full disk.
            ballast_bytes: ByteSize::mib(24),
            free_bytes_min: ByteSize::mib(64),
            keep_forwarded_bytes: match bootstrap {
                Bootstrap::Embedded => ByteSize::mib(64),
                Bootstrap::Servers(_) => ByteSize::ZERO,
            },
            key: None,
        }
    }
}
