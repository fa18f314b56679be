//! What was settled, read back from the changelog.
//!
//! Promises: what is returned holds everything that was committed by whoever had
//! the partition before. Never: a part of it.
//!
//! Two traps. *The last stable offset*: see `whole_log.rs`. *What the former holder commits
//! meanwhile*: its transaction can end only before its offsets are stable, so the
//! caller waits for these first ([`settled_offsets`]); after that it is fenced by
//! the group's new generation, and the end can't move on any more.

use std::collections::BTreeMap;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use risiti_config::Cluster;

use super::changelog;
use super::clients::Consumer;
use super::error::SettlementError;
use super::memory::Partition;
use crate::limits;
use crate::whole_log::{Ends, Stage, WholeLog};

/// Where to read.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// Settings of the cluster.
    pub cluster: &'a Cluster,
    /// Its address.
    pub bootstrap: &'a str,
    /// The changelog topic.
    pub topic: &'a str,
    /// Client id of the consumers.
    pub client_id: &'a str,
    /// The partitions.
    pub partitions: &'a [i32],
}

/// The group's offsets for these partitions, once no transaction can change them
/// any more (KIP-447): next offset to settle, or none if there is none yet.
///
/// # Errors
/// The cluster did not answer in time, or a transaction stands open. Try again.
pub fn settled_offsets(
    consumer: &Consumer,
    topic: &str,
    partitions: &[i32],
) -> Result<BTreeMap<i32, Option<i64>>, SettlementError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    let offsets = consumer
        .committed_offsets(list, limits::CALL)
        .map_err(SettlementError::kafka("ask the group's offsets"))?;
    let mut next = BTreeMap::new();
    for element in offsets.elements() {
        // One that is not stable yet may come as an error of its own.
        element
            .error()
            .map_err(SettlementError::kafka("ask the group's offsets"))?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        next.insert(element.partition(), offset);
    }
    Ok(next)
}

/// Asks where the changelog begins and ends in these partitions.
///
/// # Errors
/// The cluster is away.
pub fn ends(lookup: Lookup<'_>) -> Result<Ends, SettlementError> {
    lookup.log().ends(failed)
}

/// Reads the changelog between these ends. `go_on` is asked between steps; when it
/// says no, the answer is `Ok(None)`.
///
/// # Errors
/// The cluster is away, or the changelog holds what is no row of this version.
pub fn read(
    lookup: Lookup<'_>,
    ends: &Ends,
    go_on: impl FnMut() -> bool,
) -> Result<Option<BTreeMap<i32, Partition>>, SettlementError> {
    let mut rebuild = Rebuild::new(lookup.topic, lookup.partitions);
    let whole = lookup.log().read(ends, go_on, failed, |message| {
        let place = (message.partition(), message.offset());
        rebuild.take(place, message.key(), message.payload())
    })?;
    Ok(whole.then_some(rebuild.memories))
}

impl<'a> Lookup<'a> {
    fn log(&self) -> WholeLog<'a> {
        WholeLog {
            cluster: self.cluster,
            bootstrap: self.bootstrap,
            client_id: self.client_id,
            topic: self.topic,
            partitions: self.partitions,
        }
    }
}

fn failed(stage: Stage, error: KafkaError) -> SettlementError {
    match stage {
        Stage::Client => SettlementError::Configuration(error.to_string()),
        Stage::End => SettlementError::kafka("ask the end of the changelog")(error),
        Stage::Read => SettlementError::kafka("read the changelog")(error),
    }
}

/// Makes memory of the changelog's messages, given in their order. A core.
#[derive(Debug)]
pub struct Rebuild {
    topic: String,
    memories: BTreeMap<i32, Partition>,
}

impl Rebuild {
    /// Of nothing yet.
    #[must_use]
    pub fn new(topic: &str, partitions: &[i32]) -> Self {
        let partitions = partitions.iter();
        Self {
            topic: topic.into(),
            memories: partitions
                .map(|partition| (*partition, Partition::default()))
                .collect(),
        }
    }

    /// Takes a message. `place` is its partition and offset.
    ///
    /// # Errors
    /// It is no row of this version.
    pub fn take(
        &mut self,
        (partition, offset): (i32, i64),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), SettlementError> {
        let Some(memory) = self.memories.get_mut(&partition) else {
            return Ok(());
        };
        let key = key.unwrap_or_default();
        let row = || {
            let (terminal, sequence) = changelog::decode_key(key)?;
            let row = value.map(changelog::decode).transpose()?;
            Ok((terminal, sequence, row))
        };
        let (terminal, sequence, row) = row().map_err(|source| SettlementError::Changelog {
            topic: self.topic.clone(),
            partition,
            offset,
            key: String::from_utf8_lossy(key).into_owned(),
            source,
        })?;
        memory.restore(terminal, sequence, row);
        Ok(())
    }

    /// What was settled.
    #[must_use]
    pub fn into_memories(self) -> BTreeMap<i32, Partition> {
        self.memories
    }
}
