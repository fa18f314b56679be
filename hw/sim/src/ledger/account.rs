//! What one client did, in its own eyes.
//!
//! Promises: written by the client at the moment at which it happens. Never:
//! forgotten in a power cut of the client; it is the auditor's book, not the
//! terminal's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What one client did. Its numbers are 1, 2, 3 and so on, in order, but for those
/// that it has skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The last number that it has put on the wire at least once; of a terminal,
    /// that it has saved.
    pub published: u64,
    /// Numbers below that one which stand for nothing: a power cut of a terminal
    /// skips those that it had reserved.
    pub skipped: BTreeSet<u64>,
    /// The numbers whose PUBACK it has seen.
    pub acknowledged: BTreeSet<u64>,
    /// How often the receipt of each number was printed.
    pub printed: BTreeMap<u64, u32>,
    /// Receipts that say no, among those printed.
    pub rejected: u64,
    /// Messages on its receipts topic that answer nothing of its own, and
    /// messages on any other topic.
    pub strangers: u64,
    /// Receipts that came again and were recognised.
    pub repeated: u64,
    /// Records sent again with the resend mark.
    pub resent: u64,
    /// Times that its own power was cut.
    pub power_cuts: u64,
    /// From the key press to the receipt in its flash, for each number once.
    pub waited: Vec<Duration>,
}

impl Account {
    /// How many it has published, or saved.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.published - self.skipped.len() as u64
    }

    /// Whether this is the number of something that it has published, or saved.
    #[must_use]
    pub fn holds(&self, number: u64) -> bool {
        (1..=self.published).contains(&number) && !self.skipped.contains(&number)
    }
}

/// What all clients did, by client identifier.
pub type Accounts = BTreeMap<String, Account>;
