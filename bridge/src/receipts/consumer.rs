//! The consumer's handle: what it is told, what it tells.
//!
//! Promises: it needs no cluster to start, nor ever to be there; it ends only by
//! [`ReceiptsHandle::stop`]. Never: a consumer group joined; the group's name is
//! used only to show in Kafka how far this gateway is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use risiti_config::Cluster;

use super::metrics::ReceiptsMetrics;
use super::outbox::Outbox;
use super::reading;
use crate::dead_letters::DeadLetters;
use crate::embedded::EmbeddedCluster;
use crate::worker::{self, Worker};

/// A place at which a test may kill the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptsFault {
    /// Receipts were read from Kafka, nothing is on disk.
    BeforeCommit,
    /// Only with [`ReceiptsOptions::offset_before_row`]: the offsets are on disk,
    /// the receipts are not.
    BetweenOffsetAndRow,
    /// Receipts and offsets are on disk; nobody was told.
    AfterCommit,
    /// A PUBACK came; its delivery event is not in the journal.
    BeforeEvent,
    /// The event is in the journal; the receipt's row is still there.
    BeforeDeletion,
    /// The row is gone.
    AfterDeletion,
}

/// Told of each place; it may never return.
pub type ReceiptsFaultHook = Arc<dyn Fn(ReceiptsFault) + Send + Sync>;

/// What no configuration file can set.
#[derive(Clone, Default)]
pub struct ReceiptsOptions {
    /// For the negative control of G4 only: has the offsets on disk before the
    /// receipts. A kill in between loses them.
    pub offset_before_row: bool,
    /// For tests of crashes.
    pub fault: Option<ReceiptsFaultHook>,
}

impl ReceiptsOptions {
    pub(super) fn at(&self, place: ReceiptsFault) {
        if let Some(fault) = &self.fault {
            fault(place);
        }
    }
}

impl std::fmt::Debug for ReceiptsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiptsOptions")
            .field("offset_before_row", &self.offset_before_row)
            .field("fault", &self.fault.is_some())
            .finish()
    }
}

/// Everything that the consumer works with.
#[derive(Clone)]
pub struct ConsumerSetup {
    /// The settings of the cluster that has the topics.
    pub cluster: Cluster,
    /// Its name.
    pub cluster_name: String,
    /// This gateway; `risiti-<id>` shows in Kafka how far it is.
    pub gateway_id: String,
    /// This gateway's journal: deliveries that it tells of are our own.
    pub journal_id: String,
    /// The embedded cluster, if the settings say so.
    pub embedded: Option<Arc<EmbeddedCluster>>,
    /// Kafka topic of the receipts.
    pub topic: String,
    /// Kafka topic of the delivery events.
    pub deliveries_topic: String,
    /// Where receipts go.
    pub outbox: Arc<Outbox>,
    /// Where messages go that are none.
    pub dead: Arc<DeadLetters>,
}

/// What the consumer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceiptsState {
    /// The cluster does not answer.
    #[default]
    Connecting,
    /// The cluster has no such topic.
    WaitingForTopic,
    /// Receipts are taken as they come.
    Reading,
    /// There is no disk for more of them.
    Paused,
    /// The store can't be read or written.
    StoreFailing,
    /// Ended by request.
    Stopped,
}

/// The consumer's state, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceiptsStatus {
    /// What it is doing.
    pub state: ReceiptsState,
    /// Whether all partitions were read to their ends once since it connected.
    pub caught_up: bool,
    /// What a person has to look at; empty if nothing.
    pub alarms: Vec<String>,
    /// What a person should know; nothing is wrong yet.
    pub notes: Vec<String>,
    /// The last error, until things go well again.
    pub last_error: Option<String>,
}

/// Starts consumers.
#[derive(Debug)]
pub struct ReceiptsConsumer;

impl ReceiptsConsumer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system gave none.
    pub fn start(setup: ConsumerSetup) -> std::io::Result<ReceiptsHandle> {
        let outbox = Arc::clone(&setup.outbox);
        let worker = Worker::start("receipts".into(), move |control| {
            reading::run(&setup, control);
        })?;
        Ok(ReceiptsHandle { worker, outbox })
    }
}

/// A running consumer. Dropping it asks for a stop without waiting.
#[derive(Debug)]
pub struct ReceiptsHandle {
    worker: Worker<Shown>,
    outbox: Arc<Outbox>,
}

impl ReceiptsHandle {
    /// What it is doing, and what a person should look at.
    #[must_use]
    pub fn status(&self) -> ReceiptsStatus {
        let shown = self.worker.control().shown.lock().clone();
        let mut status = ReceiptsStatus {
            state: shown.state,
            caught_up: shown.caught_up,
            alarms: shown.alarms.into_values().collect(),
            notes: shown.notes.into_values().collect(),
            last_error: shown.last_error,
        };
        self.outbox.tell_bounds(&mut status);
        status
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ReceiptsMetrics> {
        self.outbox.metrics()
    }

    /// Ends it; `true` if it ended within `deadline`. What it has taken and not
    /// stored is taken again by the next start.
    pub fn stop(&self, deadline: Duration) -> bool {
        self.worker.stop(deadline, Duration::ZERO)
    }
}

/// What an alarm or note is about; there is one of each at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    Configuration,
    Topic,
    Deliveries,
    Refused,
    Gone,
    Anew,
    DeadLetters,
    Rights,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    state: ReceiptsState,
    caught_up: bool,
    alarms: BTreeMap<About, String>,
    notes: BTreeMap<About, String>,
    last_error: Option<String>,
}

/// Between the handle and the thread.
pub(super) type Control = worker::Control<Shown>;

impl Control {
    pub(super) fn set_state(&self, state: ReceiptsState) {
        self.shown.lock().state = state;
    }

    pub(super) fn set_caught_up(&self, caught_up: bool) {
        self.shown.lock().caught_up = caught_up;
    }

    pub(super) fn set_last_error(&self, error: Option<String>) {
        self.shown.lock().last_error = error;
    }

    pub(super) fn alarm(&self, about: About, text: Option<String>) {
        let mut shown = self.shown.lock();
        let old = match &text {
            Some(text) => shown.alarms.insert(about, text.clone()),
            None => shown.alarms.remove(&about),
        };
        match (old, text) {
            (old, Some(alarm)) if old.as_ref() != Some(&alarm) => {
                tracing::error!(alarm, "receipts need attention");
            }
            (Some(was), None) => tracing::info!(was, "receipts are well again"),
            _ => {}
        }
    }

    pub(super) fn note(&self, about: About, text: Option<String>) {
        let mut shown = self.shown.lock();
        let old = match &text {
            Some(text) => shown.notes.insert(about, text.clone()),
            None => shown.notes.remove(&about),
        };
        if let Some(note) = text
            && old.as_ref() != Some(&note)
        {
            tracing::warn!(note, "receipts");
        }
    }
}
