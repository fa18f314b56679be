//! What the machine asks for, what it is told, what it tells.
//!
//! Promises: each action is one call to Kafka, and has one event that answers it.
//! Never: a decision.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::State;
use super::super::clients::Change;
use super::super::core::{Input, Policy, Settings, Verdict};
use super::super::memory::Partition;
use super::super::messages::{Envelope, Message};
use crate::remedy::Failure;
use crate::whole_log::Ends;

/// What the machine is told once.
#[derive(Debug, Clone)]
pub struct MachineSettings {
    /// For the core.
    pub core: Settings,
    /// By what records are judged.
    pub policy: Policy,
    /// What all messages have in common.
    pub envelope: Envelope,
    /// The group.
    pub group: String,
    /// This instance.
    pub instance: String,
    /// Records of a transaction at most.
    pub batch_records_max: usize,
    /// For a negative control only.
    pub offsets_outside_transaction: bool,
}

impl MachineSettings {
    /// As the configuration says.
    #[must_use]
    pub fn new(settings: &risiti_config::Settlement, policy: Policy) -> Self {
        Self {
            core: Settings {
                window: settings.window as usize,
                utc_offset_minutes: settings.utc_offset_minutes,
                ..Settings::default()
            },
            policy,
            envelope: Envelope {
                records_topic: settings.records_topic.clone(),
                receipt_expiry_s: settings.receipt_expiry_s,
            },
            group: settings.group.clone(),
            instance: settings.instance.clone(),
            batch_records_max: settings.batch_records_max as usize,
            offsets_outside_transaction: false,
        }
    }
}

/// What is to be done now. Each but [`Action::Ended`] is answered by the event named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a producer and see that the topics are there; the clients before, if any,
    /// are finished. [`Event::Opened`]
    Open,
    /// Begin as the only producer of this transactional id. [`Event::Done`]
    Init,
    /// Make a consumer and join the group. [`Event::Joined`]
    Join,
    /// Take a record and what the group decided. [`Event::Polled`]
    Poll {
        /// Whether to wait a little for a record.
        wait: bool,
    },
    /// Ask the group's offsets, once no transaction can change them any more
    /// (KIP-447). [`Event::Offsets`]
    AskOffsets(Vec<i32>),
    /// Ask where the changelog begins and ends in these partitions, open transactions
    /// included. [`Event::Ends`]
    AskEnds(Vec<i32>),
    /// Read the changelog in between, whole. [`Event::Memories`]
    Read(Vec<i32>, Ends),
    /// Begin a transaction. [`Event::Done`]
    Begin,
    /// Pass [`super::Machine::offsets`] on behalf of the group. [`Event::Done`]
    PassOffsets,
    /// Hand over [`super::Machine::pending`]. [`Event::HandedOver`]
    HandOver,
    /// Wait a little for delivery reports. [`Event::Progress`]
    Await,
    /// Commit the transaction. [`Event::Done`]
    Commit,
    /// Commit [`super::Machine::offsets`] outside a transaction. [`Event::Done`]
    CommitOffsets,
    /// Abort the transaction. [`Event::Done`]
    Abort,
    /// Do nothing for so long. [`Event::Passed`]
    Pause(Duration),
    /// It was asked to stop, and has.
    Ended,
}

/// A record, copied: librdkafka's own buffers are given back at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, Unix milliseconds.
    pub time_ms: u64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Taken {
    pub(super) fn input(&self) -> Input<'_> {
        Input {
            partition: self.partition,
            offset: self.offset,
            time_ms: self.time_ms,
            key: self.key.as_deref(),
            value: &self.value,
        }
    }
}

/// What a poll gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Polled {
    /// A record, if there was one.
    pub record: Option<Taken>,
    /// What the group decided, in its order.
    pub changes: Vec<Change>,
    /// The consumer is finished, by this.
    pub fatal: Option<Failure>,
}

/// What became of an action.
#[derive(Debug)]
pub enum Event {
    /// The producer is there; whether the cluster takes offsets in a transaction and
    /// forgets them (the embedded one does).
    Opened(Result<bool, String>),
    /// It is done, or not.
    Done(Result<(), Failure>),
    /// The consumer is there.
    Joined(Result<(), String>),
    /// What there was.
    Polled(Polled),
    /// The next offset of each partition, none if there is none yet.
    Offsets(Result<BTreeMap<i32, Option<i64>>, String>),
    /// Where the changelog begins and ends.
    Ends(Result<Ends, String>),
    /// What was settled before.
    Memories(Result<BTreeMap<i32, Partition>, String>),
    /// All was taken; or why not; or the producer is finished.
    HandedOver(Result<Result<(), String>, Failure>),
    /// Messages without a report, and the first failure; or the producer is finished.
    Progress(Result<(usize, Option<String>), Failure>),
    /// Time passed.
    Passed,
}

/// What people, counters and the log are to hear, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// What it is doing.
    State(State),
    /// The last error.
    Error(String),
    /// Partitions are another's now.
    GivenUp(Vec<i32>),
    /// Partitions are its now, with so many numbers; and the group's offsets.
    TakenOver {
        /// The next offset of each, if there is one.
        offsets: BTreeMap<i32, Option<i64>>,
        /// Numbers remembered in them.
        numbers: usize,
    },
    /// A record came that the group had passed.
    PassedBefore {
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
    },
    /// A record is not settled.
    NotSettled {
        /// The terminal that its key names.
        terminal: Option<String>,
        /// Its number.
        sequence: Option<u64>,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// Why.
        verdict: Verdict,
    },
    /// A transaction is committed, with these.
    Committed(Vec<Verdict>),
    /// A transaction did not get through, for this reason.
    Aborted(String),
    /// The clients are finished, for this reason.
    Anew(String),
}

/// A record that is decided, until its transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// What became of it.
    pub verdict: Verdict,
    /// What is written because of it.
    pub messages: Vec<Message>,
}
