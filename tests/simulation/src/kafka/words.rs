//! The protocol's words: requests, answers, errors; and the topics of a house.
//!
//! Promises: one request is one change of the cluster, or none. Never: a decision.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Member, Message, Origin, Place, ProducerId};
use crate::Ms;

/// Why a request failed, in the protocol's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// No answer: whether it was done is not known.
    Transport,
    /// There is no such topic or partition.
    UnknownTopicOrPartition,
    /// A producer of an older life.
    InvalidProducerEpoch,
    /// The same, by the coordinator.
    ProducerFenced,
    /// The coordinator does not know this producer.
    InvalidProducerIdMapping,
    /// A batch that is not the next one.
    OutOfOrderSequence,
    /// A batch from long ago.
    DuplicateSequence,
    /// A batch that is none.
    InvalidRecord,
    /// The transaction before is not ended everywhere yet.
    ConcurrentTransactions,
    /// The transaction does not allow that.
    InvalidTxnState,
    /// A transaction that is not ended holds this offset.
    UnstableOffsetCommit,
    /// The group has changed.
    IllegalGeneration,
    /// The group has put this member out.
    UnknownMemberId,
    /// Another process has taken this member's name.
    FencedInstanceId,
}

/// A request that changes something. One that arrives late is kept as it is.
#[derive(Debug, Clone)]
pub enum Request {
    /// `InitProducerId`.
    Init {
        /// None: idempotent only.
        id: Option<Rc<str>>,
        /// Of its transactions.
        timeout_ms: Ms,
        /// What it has, if it only asks for a new epoch (KIP-360).
        own: Option<(ProducerId, i16)>,
    },
    /// `AddPartitionsToTxn`.
    Add {
        /// The transactional id.
        id: Rc<str>,
        /// The producer and its epoch.
        by: (ProducerId, i16),
        /// A partition.
        place: Place,
    },
    /// `Produce`.
    Produce {
        /// The transactional id.
        id: Option<Rc<str>>,
        /// Who, and which batch.
        origin: Origin,
        /// The topic.
        topic: Rc<str>,
        /// The partition.
        partition: i32,
        /// The batch.
        messages: Vec<Message>,
    },
    /// `AddOffsetsToTxn` and `TxnOffsetCommit`.
    Offsets {
        /// The transactional id.
        id: Rc<str>,
        /// The producer and its epoch.
        by: (ProducerId, i16),
        /// On whose behalf.
        member: Member,
        /// The topic.
        topic: Rc<str>,
        /// The next offset of each partition.
        offsets: BTreeMap<i32, i64>,
    },
    /// `EndTxn`.
    End {
        /// The transactional id.
        id: Rc<str>,
        /// The producer and its epoch.
        by: (ProducerId, i16),
        /// Or abort.
        commit: bool,
    },
    /// `OffsetCommit`, outside a transaction.
    Commit {
        /// On whose behalf.
        member: Member,
        /// The topic.
        topic: Rc<str>,
        /// The next offset of each partition.
        offsets: BTreeMap<i32, i64>,
    },
}

/// What a request gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing but that it is done.
    Done,
    /// A producer and its epoch.
    Producer(ProducerId, i16),
    /// The offset of the first record of a batch.
    Offset(i64),
}

/// What has happened in the cluster, for whoever wants to know that faults did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions committed.
    pub committed: u64,
    /// Transactions aborted.
    pub aborted: u64,
    /// Answers lost.
    pub answers_lost: u64,
    /// Requests lost.
    pub requests_lost: u64,
    /// Requests that arrived late.
    pub late: u64,
    /// Requests of fenced producers that were refused.
    pub fenced: u64,
    /// Batches that came again and were recognised.
    pub batches_again: u64,
    /// Members put out of their group.
    pub members_lost: u64,
    /// Offsets asked for that were not stable.
    pub unstable: u64,
}

/// The topics of a house, by their usual names.
pub mod topics {
    /// Records.
    pub const RECORDS: &str = "risiti.records";
    /// Receipts.
    pub const RECEIPTS: &str = "risiti.receipts";
    /// What was settled.
    pub const TRANSACTIONS: &str = "risiti.transactions";
    /// What was not.
    pub const REJECTED: &str = "risiti.rejected";
    /// What settlement remembers.
    pub const CHANGELOG: &str = "risiti.settled";
    /// Receipts that reached their terminals.
    pub const DELIVERIES: &str = "risiti.deliveries";
    /// Journal positions.
    pub const POSITIONS: &str = "risiti.positions";
}
