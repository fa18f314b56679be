//! Settlement: records in, receipts out, each payment counted once.
//!
//! Promises: consume, verify, decide and produce in one Kafka transaction with the
//! consumer's offsets, so that every record of the committed log is settled once
//! whatever is killed (G2, G7); the same record always gives the same receipt;
//! nothing in the records topic, however broken, stops what stands behind it.
//! Never: a decision that rests on a clock, and no state but what the changelog
//! topic holds.
//!
//! # How it reads
//!
//! [`core`] decides: one record in, what is to be written out, no Kafka. [`sealing`]
//! opens what is sealed, [`verify`] says whether it is a record, [`rules`] are what a bank adds, `judge` asks them,
//! [`memory`] is what is remembered, [`changelog`] how that survives, [`receipt`] and
//! [`messages`] are what is written. [`machine`] says in which order: polls, takeovers,
//! transactions, and what follows an error. The rest is the shell, which does that
//! with librdkafka: `session`, `transaction`, and [`rebuild`], which reads back what
//! was settled in a partition before.
//!
//! # Several instances
//!
//! Each has a name (`settlement.instance`), which makes its transactional id and its
//! static membership. When one is killed, its partitions go to the others after
//! `settlement.session_timeout_ms`; started again before that it takes them back
//! itself. A transaction that it left open hides what follows in its topics from
//! readers of committed records until it starts again, or until the brokers abort
//! it: `settlement.transaction_timeout_ms` and up to 10 s more.
//!
//! What it needs of Kafka: transactions (brokers from 2.5 on), the rights to read
//! the records topic and the group, to write the transactional id and the other
//! topics, to read the changelog. Partitions must never be added to a records topic
//! in use: a terminal's numbers would move away from what is remembered of them.

pub mod changelog;
pub mod clients;
pub mod core;
pub mod enrolled;
pub mod error;
mod handle;
mod judge;
pub mod machine;
pub mod memory;
pub mod messages;
pub mod metrics;
pub mod partitioner;
pub mod rebuild;
pub mod receipt;
pub mod rules;
pub mod sealing;
mod session;
pub mod topics;
mod transaction;
pub mod verify;

use std::collections::HashSet;
use std::sync::Arc;

use risiti_config::Cluster;
use risiti_wire::Account;

use self::handle::Control;
use crate::worker::Worker;

pub use self::core::{Core, Decision, Input, Policy, Settings, Verdict};
pub use enrolled::Enrolled;
pub use error::SettlementError;
pub use handle::SettlementHandle;
pub use metrics::SettlementMetrics;
pub use sealing::{Accepted, Generations, Sealing};

/// A place at which a test may end settlement as a power cut would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// Half of the records' messages were handed over.
    InsideTransaction,
    /// Everything was delivered and the offsets passed, nothing committed.
    AfterSend,
    /// Committed, but this process does not know yet.
    AfterCommit,
}

/// Asked at each place; `true` ends settlement there, as it stands.
pub type FaultHook = Arc<dyn Fn(FaultPoint) -> bool + Send + Sync>;

/// What no configuration file can set.
#[derive(Clone, Default)]
pub struct Options {
    /// For a negative control only: commits the offsets after the transaction. A
    /// kill in between answers its records again.
    pub offsets_outside_transaction: bool,
    /// For a negative control only: remembers nothing, so that a resend is settled
    /// again.
    pub forgetful: bool,
    /// For tests of crashes.
    pub fault: Option<FaultHook>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field(
                "offsets_outside_transaction",
                &self.offsets_outside_transaction,
            )
            .field("forgetful", &self.forgetful)
            .field("fault", &self.fault.is_some())
            .finish()
    }
}

/// Everything that an instance works with.
#[derive(Debug, Clone)]
pub struct SettlementSetup {
    /// The cluster's settings.
    pub cluster: Cluster,
    /// Its address: `host:port`, several with commas.
    pub bootstrap: String,
    /// `[settlement]` of the configuration.
    pub settings: risiti_config::Settlement,
    /// By what records are judged.
    pub policy: Policy,
    /// How records are opened and receipts closed.
    pub sealing: Sealing,
    /// What it counts.
    pub metrics: Arc<SettlementMetrics>,
    /// For tests.
    pub options: Options,
}

/// The rules that the configuration asks for, in the order in which they are
/// applied. `accounts` are those of `settlement.accounts_file`, if it is set.
#[must_use]
pub fn configured_policy(
    settings: &risiti_config::Settlement,
    accounts: Option<HashSet<Account>>,
) -> Policy {
    let mut rules = vec![rules::no_card_number(), rules::reversal_linked()];
    if let Some(accounts) = accounts {
        rules.push(rules::known_account(accounts));
    }
    if settings.payment_max_minor > 0 {
        rules.push(rules::payment_max(settings.payment_max_minor));
    }
    if settings.day_max_minor > 0 {
        rules.push(rules::day_max(settings.day_max_minor));
    }
    Policy {
        rules,
        bank_reference: None,
    }
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Kafka does not answer yet, or the topics are not there.
    #[default]
    Connecting,
    /// It waits for the group to give it partitions.
    Joining,
    /// It reads back what was settled before.
    Rebuilding,
    /// It settles.
    Settling,
    /// Ended by request.
    Stopped,
}

/// Starts an instance.
#[derive(Debug)]
pub struct Settlement;

impl Settlement {
    /// Starts the thread. It needs no cluster to start, nor ever to be there.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn start(setup: SettlementSetup) -> std::io::Result<SettlementHandle> {
        let metrics = Arc::clone(&setup.metrics);
        let worker = Worker::start("settlement".into(), move |control| {
            session::run(&setup, control);
        })?;
        Ok(SettlementHandle { worker, metrics })
    }
}
