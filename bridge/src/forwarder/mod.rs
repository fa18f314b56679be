//! Journal → Kafka: one thread a cluster.
//!
//! Promises: in `exactly_once` mode a batch and the position behind it are
//! committed in one transaction, so that each record stands in the committed log
//! once whatever is killed (G2), in the order of the journal (G3); in
//! `idempotent` mode a crash may repeat a batch, recognisable by `ce_id`, and where
//! Kafka refuses a whole request (a record too large for its topic) the innocent
//! records of that request may follow later ones of the same batch: by fewer
//! places than `batch_records_max`, since no batch begins before the one before it
//! is settled. A
//! transaction is open only while the cluster answers and there is something to
//! send. Never: an end of the thread but by [`ForwarderHandle::stop`], a record
//! passed over that is neither committed, nor another cluster's, nor kept as a
//! dead letter, or memory that grows with the backlog.

pub mod core;
pub mod machine;
mod pace;
mod producer;
mod session;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use risiti_config::Cluster;
use risiti_store::{Position, RecordSource};

use crate::dead_letters::DeadLetters;
use crate::embedded::EmbeddedCluster;
use crate::epochs::SharedRoutes;
use crate::limits;
use crate::metrics::ForwarderMetrics;
use crate::trace::TraceLog;
use crate::worker::{self, Worker};

/// A place at which a test may end the forwarder as a power cut would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultPoint {
    /// Half of the batch was handed over.
    InsideBatch,
    /// Everything was delivered, nothing committed.
    AfterSend,
    /// Committed, but this process does not know yet.
    AfterCommit,
}

/// Asked at each place; `true` ends the forwarder there, as it stands: its
/// connections stay open like a zombie's.
pub type FaultHook = Arc<dyn Fn(FaultPoint) -> bool + Send + Sync>;

/// What no configuration file can set.
#[derive(Clone, Default)]
pub struct Options {
    /// For the negative control of G2 only: writes the position in a transaction
    /// of its own after the batch's. A crash in between repeats the batch.
    pub position_outside_transaction: bool,
    /// For tests of crashes.
    pub fault: Option<FaultHook>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field(
                "position_outside_transaction",
                &self.position_outside_transaction,
            )
            .field("fault", &self.fault.is_some())
            .finish()
    }
}

/// Everything that a forwarder works with.
#[derive(Clone)]
pub struct ForwarderSetup {
    /// Its cluster's settings.
    pub cluster: Cluster,
    /// Its cluster's name; `default` also keeps what no route matches.
    pub name: String,
    /// This gateway; with the name it makes the transactional id, so two that
    /// share it fence each other.
    pub gateway_id: String,
    /// The embedded cluster, if the settings say so.
    pub embedded: Option<Arc<EmbeddedCluster>>,
    /// The routing tables, exchanged at reload.
    pub routes: Arc<SharedRoutes>,
    /// The journal. The name is also the consumer's name for its `release`.
    pub source: Arc<dyn RecordSource>,
    /// Where refused records are kept.
    pub dead: Arc<DeadLetters>,
    /// What it counts.
    pub metrics: Arc<ForwarderMetrics>,
    /// Where it notes what is committed.
    pub trace: Arc<TraceLog>,
    /// For tests.
    pub options: Options,
}

/// What a forwarder is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// The cluster does not answer; records wait in the journal.
    #[default]
    Connecting,
    /// It answers; the position is being read back.
    Recovering,
    /// Everything durable is in Kafka.
    CaughtUp,
    /// Records are being sent.
    Sending,
    /// The dead letters are full: waits until a person has looked at them.
    DeadLettersFull,
    /// The journal can't be read.
    StoreFailing,
    /// Ended by request.
    Stopped,
}

/// A forwarder's state, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// The next position to forward.
    pub next: Position,
    /// What a person has to look at; none if nothing.
    pub alarm: Option<String>,
    /// The last error, until the next commit.
    pub last_error: Option<String>,
    /// What endangers records that wait long, in the settings of the cluster's
    /// topics; none if nothing.
    pub note: Option<String>,
}

/// Starts forwarders.
#[derive(Debug)]
pub struct Forwarder;

impl Forwarder {
    /// Starts the thread. It needs no cluster to start, nor ever to be there.
    /// To be called before anything is accepted under the routes of the setup:
    /// what the journal holds goes by the routes it was accepted under.
    ///
    /// # Errors
    /// The operating system gave no thread, or the former routes can't be read
    /// from the disk.
    pub fn start(setup: ForwarderSetup) -> std::io::Result<ForwarderHandle> {
        setup
            .routes
            .keep_in(setup.dead.store(), Arc::clone(&setup.source))
            .map_err(std::io::Error::other)?;
        setup.routes.serve(&setup.name);
        let metrics = Arc::clone(&setup.metrics);
        let worker = Worker::start(format!("forward-{}", setup.name), move |control| {
            session::run(&setup, control);
        })?;
        Ok(ForwarderHandle { worker, metrics })
    }
}

/// A running forwarder. Dropping it asks for a stop without waiting.
#[derive(Debug)]
pub struct ForwarderHandle {
    worker: Worker<Status>,
    metrics: Arc<ForwarderMetrics>,
}

impl ForwarderHandle {
    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.worker.control().shown.lock().clone();
        status.last_error = self.metrics.last_error();
        status
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ForwarderMetrics> {
        &self.metrics
    }

    /// Whether the thread has ended, by request or by a [`FaultHook`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.worker.is_finished()
    }

    /// Lets the transaction under way finish, or aborts it when the time is over.
    /// `true` if it ended within `deadline`; nothing is lost in either case, the
    /// next start finds out what became of the transaction.
    pub fn stop(self, deadline: Duration) -> bool {
        self.worker.stop(deadline, limits::LAST_CALL)
    }
}

/// Between the handle and the thread.
type Control = worker::Control<Status>;

impl Control {
    fn set_state(&self, state: State) {
        self.shown.lock().state = state;
    }

    fn set_note(&self, cluster: &str, note: Option<String>) {
        let mut status = self.shown.lock();
        if status.note != note {
            if let Some(note) = &note {
                tracing::warn!(cluster, note, "records that wait long are in danger");
            }
            status.note = note;
        }
    }

    fn set_alarm(&self, cluster: &str, alarm: Option<String>) {
        let mut status = self.shown.lock();
        if status.alarm != alarm {
            match &alarm {
                Some(alarm) => tracing::error!(cluster, alarm, "forwarder needs attention"),
                None => tracing::info!(cluster, "forwarder is well again"),
            }
            status.alarm = alarm;
        }
    }
}
