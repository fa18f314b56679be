//! `[settlement]`: the stream processor that turns records into receipts.
//!
//! Promises: every default has its reason here. Never: read by a gateway; only
//! `risiti settle` looks at it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::DEFAULT_CLUSTER;

/// Which records are taken where there is a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sealing {
    /// Sealed ones only.
    #[default]
    Required,
    /// Open ones too, until every terminal has its keys. Whoever can write to the
    /// records topic, a gateway too, can then make up a payment.
    Accepted,
}

/// `[settlement]`: what `risiti settle` works on, and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// This instance's name, unique among those that share the work. By it a
    /// restarted instance ends what it left open and takes its partitions back.
    pub instance: String,
    /// The consumer group in which instances share the work.
    pub group: String,
    /// Name of the cluster; `default` is `[kafka]`.
    pub cluster: String,
    /// Where records come from.
    pub records_topic: String,
    /// Where receipts go.
    pub receipts_topic: String,
    /// Where settled payments and reversals go, as JSON.
    pub transactions_topic: String,
    /// Where goes, as JSON with the reason, what was not settled.
    pub rejected_topic: String,
    /// Compacted topic that remembers what was settled; it has as many partitions
    /// as `records_topic`.
    pub changelog_topic: String,
    /// Records of one transaction at most.
    pub batch_records_max: u32,
    /// Numbers remembered of each terminal.
    pub window: u32,
    /// Milliseconds after which the broker aborts a transaction that a killed
    /// instance left open.
    pub transaction_timeout_ms: u32,
    /// Milliseconds after which the others take over from a killed instance.
    pub session_timeout_ms: u32,
    /// Largest amount of one payment, in minor units; 0 = no limit.
    pub payment_max_minor: u64,
    /// Largest sum of a terminal's payments in a day and a currency, in minor
    /// units; 0 = no limit.
    pub day_max_minor: u64,
    /// Minutes by which the day of that sum begins before midnight UTC.
    pub utc_offset_minutes: i32,
    /// File of the accounts there are, one a line; none = any account.
    pub accounts_file: Option<PathBuf>,
    /// File of the site's root, of which all keys are derived: records are opened and
    /// receipts sealed with them. None: nothing is sealed.
    pub root_file: Option<PathBuf>,
    /// Which records are taken; only where there is a root.
    pub sealing: Option<Sealing>,
    /// Seconds after which a receipt need not be delivered any more; 0 = never.
    pub receipt_expiry_s: u32,
    /// Address of `/healthz` and `/metrics` over HTTP; none = no listener.
    pub listen: Option<SocketAddr>,
}

impl Settlement {
    /// The file beside the root that says which generations of keys are accepted.
    #[must_use]
    pub fn generations_file(root_file: &Path) -> PathBuf {
        beside(root_file, ".generations")
    }

    /// The file beside the root that holds the keys which terminals made themselves.
    #[must_use]
    pub fn enrolled_file(root_file: &Path) -> PathBuf {
        beside(root_file, ".enrolled")
    }

    /// Whether what is not sealed is refused.
    #[must_use]
    pub fn seals_are_required(&self) -> bool {
        self.root_file.is_some() && self.sealing.unwrap_or_default() == Sealing::Required
    }
}

fn beside(root_file: &Path, extension: &str) -> PathBuf {
    let mut name = root_file.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

impl Default for Settlement {
    fn default() -> Self {
        Self {
            instance: "settlement-1".into(),
            group: "risiti.settlement".into(),
            cluster: DEFAULT_CLUSTER.into(),
            records_topic: "risiti.records".into(),
            receipts_topic: "risiti.receipts".into(),
            transactions_topic: "risiti.transactions".into(),
            rejected_topic: "risiti.rejected".into(),
            changelog_topic: "risiti.settled".into(),
            // Reached only behind a backlog; some 300 KiB of receipts and
            // changelog.
            batch_records_max: 1_000,
            // Twice what a gateway's own dedup remembers, and more than a terminal
            // can keep without a receipt.
            window: 512,
            // A transaction takes some 20 ms; readers of committed records wait
            // this long at worst (and until the broker looks, every 10 s).
            transaction_timeout_ms: 10_000,
            // The least that brokers allow by default.
            session_timeout_ms: 6_000,
            payment_max_minor: 0,
            day_max_minor: 0,
            utc_offset_minutes: 0,
            accounts_file: None,
            root_file: None,
            sealing: None,
            receipt_expiry_s: 0,
            listen: None,
        }
    }
}
