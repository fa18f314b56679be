//! What the machine asks for, what it is told, what it tells.
//!
//! Promises: each action is one call to Kafka, to the journal or to the dead
//! letters, and has one event that answers it. Never: a decision.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use risiti_config::{Cluster, Mode};
use risiti_store::{Position, ReadBatch, Record};

use crate::forwarder::State;
use crate::forwarder::core::Delivery;
use crate::remedy::Failure;
use crate::route::Routes;

/// What the machine is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cluster's name; `default` also keeps what no route matches.
    pub cluster: String,
    /// This gateway.
    pub gateway_id: String,
    /// With transactions or without.
    pub mode: Mode,
    /// Records of a batch at most.
    pub batch_records_max: usize,
    /// Bytes of a batch at most.
    pub batch_bytes_max: usize,
    /// After which brokers abort a transaction.
    pub transaction_timeout: Duration,
    /// Where positions are kept.
    pub positions_topic: String,
    /// For the negative control of G2 only.
    pub position_outside_transaction: bool,
}

impl Settings {
    /// As the configuration says.
    #[must_use]
    pub fn new(cluster: &Cluster, name: &str, gateway_id: &str) -> Self {
        Self {
            cluster: name.into(),
            gateway_id: gateway_id.into(),
            mode: cluster.mode,
            batch_records_max: usize::try_from(cluster.batch_records_max).unwrap_or(usize::MAX),
            batch_bytes_max: cluster.batch_bytes_max.as_usize(),
            transaction_timeout: Duration::from_millis(cluster.transaction_timeout_ms.into()),
            positions_topic: cluster.positions_topic.clone(),
            position_outside_transaction: false,
        }
    }
}

/// What is to be done now. Each but [`Action::Ended`] is answered by the event
/// named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a producer; the one before, if any, is finished. [`Event::Opened`]
    Open,
    /// Ask whether the cluster answers. [`Event::Connected`]
    Connect,
    /// Look for the topics that the newest routes name, and create what is missing,
    /// if that is wanted. [`Event::Topics`]
    Topics,
    /// Begin as the only producer of this transactional id. [`Event::Done`]
    Init,
    /// Ask where the log of positions begins and ends, open transactions of others
    /// included. [`Event::Ends`]
    AskEnds,
    /// Read the committed positions in between, whole. [`Event::Position`]
    ReadPosition {
        /// From here.
        from: i64,
        /// To here; a reader that does not get there waits.
        to: i64,
    },
    /// Look around. [`Event::Looked`]
    Look,
    /// Read the journal. [`Event::Read`]
    Read {
        /// From here.
        from: Position,
        /// So many at most.
        records_max: usize,
        /// So many bytes at most, or one record.
        bytes_max: usize,
    },
    /// Keep the dead letters. [`Event::Buried`]
    Bury,
    /// Begin a transaction. [`Event::Done`]
    Begin,
    /// Hand over. [`Event::HandedOver`]
    HandOver {
        /// The records of the batch.
        records: bool,
        /// The position, as the last message.
        position: Option<Position>,
    },
    /// Wait a little for delivery reports. [`Event::Progress`]
    Await,
    /// Show the delivery reports. [`Event::Deliveries`]
    Collect,
    /// Commit the transaction. [`Event::Done`]
    Commit,
    /// Abort the transaction. [`Event::Done`]
    Abort,
    /// Tell the journal what it need not keep any more. [`Event::Passed`]
    Release {
        /// Everything below.
        upto: Position,
    },
    /// Wait for records. [`Event::Passed`]
    Idle {
        /// From this position on.
        after: Position,
        /// When there will be something to do without any.
        at_most: Option<Duration>,
    },
    /// Do nothing for so long. [`Event::Passed`]
    Pause(Duration),
    /// It was asked to stop, and has.
    Ended,
}

/// What is found by looking around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The producer is finished, by this.
    pub fatal: Option<Failure>,
    /// All connections were lost.
    pub down: bool,
    /// The routes are not those whose topics were looked for.
    pub routes_changed: bool,
    /// One past the last durable position of the journal.
    pub end: Position,
}

/// Records, and by what they are judged.
#[derive(Debug, Clone)]
pub struct Reading {
    /// From the journal.
    pub batch: ReadBatch,
    /// The table for the first of them.
    pub routes: Arc<Routes>,
    /// Where another table begins.
    pub until: Option<Position>,
    /// The clusters that have a forwarder.
    pub clusters: Arc<BTreeSet<String>>,
}

/// What the positions' log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The next position that is not in Kafka; none: nothing of this journal is.
    pub at: Option<Position>,
    /// The first position that the journal holds.
    pub oldest: Position,
    /// One past its last durable one.
    pub end: Position,
}

/// Why the position could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    /// In words.
    pub text: String,
    /// Whether a person has to do something about it.
    pub is_foreign: bool,
}

/// What became of an action.
#[derive(Debug)]
pub enum Event {
    /// A producer is there, or why not.
    Opened(Result<(), String>),
    /// The cluster answers, or not.
    Connected {
        /// Why not.
        answer: Result<(), String>,
        /// What was said about credentials or certificates.
        distrust: Option<String>,
    },
    /// Whether topics were created; or what Kafka said.
    Topics(Result<bool, String>),
    /// It is done, or not.
    Done(Result<(), Failure>),
    /// First offset and end of the positions' partition.
    Ends(Result<(i64, i64), String>),
    /// The position.
    Position(Result<Found, NotFound>),
    /// What there is.
    Looked(Looked),
    /// Records, or what the journal said.
    Read(Result<Reading, String>),
    /// Whether there was room; or what the disk said.
    Buried(Result<bool, String>),
    /// Whether all was taken; or the producer is finished.
    HandedOver(Result<bool, Failure>),
    /// Messages without a report, and whether any has failed; or the producer is
    /// finished.
    Progress(Result<(usize, bool), Failure>),
    /// One for each message, in the order of handing over.
    Deliveries(Vec<Delivery>),
    /// Time passed, or it is done.
    Passed,
}

/// A record to be kept as a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The record.
    pub record: Record,
    /// Its route's name; empty without one.
    pub route: String,
    /// The topic that it was for; empty without a route.
    pub topic: String,
    /// Why.
    pub text: String,
}

/// What people, counters and the log are to hear, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// What it is doing.
    State(State),
    /// What a person has to look at; none: all is well again.
    Alarm(Option<String>),
    /// The last error; none: it is over.
    Error(Option<String>),
    /// `next` or `saved` have changed.
    Position,
    /// The position was found.
    Found(Option<Position>),
    /// The records of a batch are about to be sent.
    Sending,
    /// They stand in Kafka, every one.
    Forwarded,
    /// Some of them do (without transactions).
    ForwardedSome(u64),
    /// A transaction is committed, with the position.
    Committed,
    /// A batch did not get through.
    Aborted,
    /// Records were passed over that are another cluster's.
    Skipped(u64),
    /// Positions that the journal can't read.
    Damaged(u64),
    /// The dead letters are kept.
    Buried,
    /// The producer is finished.
    Anew {
        /// Why.
        reason: String,
        /// Whether another one had taken over.
        fenced: bool,
    },
}
