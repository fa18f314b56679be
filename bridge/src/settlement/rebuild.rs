//! What was settled, read back from the changelog.
//!
//! Promises: what is returned holds everything that was committed by whoever had
//! the partition before. Never: a part of it.
//!
//! Two traps. *The last stable offset*: while anybody's transaction stands open, a
//! `read_committed` scan ends early; so the end is asked with `read_uncommitted`,
//! and the scan goes on until it has passed that. *What the former holder commits
//! meanwhile*: its transaction can end only before its offsets are stable, so the
//! caller waits for these first ([`settled_offsets`]); after that it is fenced by
//! the group's new generation, and the end can't move on any more.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use risiti_config::Cluster;

use super::changelog;
use super::clients::Consumer;
use super::error::SettlementError;
use super::memory::Partition;
use crate::{client, limits};

/// How long a scan waits for the next message before it looks where it stands.
const STEP: Duration = Duration::from_millis(20);

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

/// Reads these partitions to their end of now. `go_on` is asked between steps;
/// when it says no, the answer is `Ok(None)`.
///
/// # Errors
/// The cluster is away, or the changelog holds what is no row of this version.
pub fn read(
    lookup: Lookup<'_>,
    partitions: &[i32],
    mut go_on: impl FnMut() -> bool,
) -> Result<Option<BTreeMap<i32, Partition>>, SettlementError> {
    let client = |committed| -> Result<BaseConsumer, SettlementError> {
        client::reader(
            lookup.cluster,
            lookup.bootstrap,
            lookup.client_id,
            committed,
        )
        .create()
        .map_err(|error| SettlementError::Configuration(error.to_string()))
    };
    let plain = client(false)?;
    let mut memories = BTreeMap::new();
    let mut ends = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in partitions {
        memories.insert(*partition, Partition::default());
        let (low, high) = plain
            .fetch_watermarks(lookup.topic, *partition, limits::CALL * 4)
            .map_err(SettlementError::kafka("ask the end of the changelog"))?;
        if low < high {
            ends.insert(*partition, high);
            assignment
                .add_partition_offset(lookup.topic, *partition, Offset::Offset(low))
                .map_err(SettlementError::kafka("read the changelog"))?;
        }
    }
    if ends.is_empty() {
        return Ok(Some(memories));
    }
    let consumer = client(true)?;
    consumer
        .assign(&assignment)
        .map_err(SettlementError::kafka("read the changelog"))?;
    loop {
        if !go_on() {
            return Ok(None);
        }
        let mut next = consumer.poll(STEP);
        while let Some(message) = next {
            let message = message.map_err(SettlementError::kafka("read the changelog"))?;
            if let Some(memory) = memories.get_mut(&message.partition()) {
                restore(memory, &message)?;
            }
            next = consumer.poll(Duration::ZERO);
        }
        if passed(&consumer, lookup.topic, &ends)? {
            return Ok(Some(memories));
        }
    }
}

fn restore(memory: &mut Partition, message: &BorrowedMessage<'_>) -> Result<(), SettlementError> {
    let key = message.key().unwrap_or_default();
    let row = || {
        let (terminal, sequence) = changelog::decode_key(key)?;
        let row = message.payload().map(changelog::decode).transpose()?;
        Ok((terminal, sequence, row))
    };
    let (terminal, sequence, row) = row().map_err(|source| SettlementError::Changelog {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: String::from_utf8_lossy(key).into_owned(),
        source,
    })?;
    memory.restore(terminal, sequence, row);
    Ok(())
}

/// Whether the scan has passed every end.
fn passed(
    consumer: &BaseConsumer,
    topic: &str,
    ends: &BTreeMap<i32, i64>,
) -> Result<bool, SettlementError> {
    let position = consumer
        .position()
        .map_err(SettlementError::kafka("read the changelog"))?;
    Ok(ends.iter().all(|(partition, end)| {
        position
            .find_partition(topic, *partition)
            .is_some_and(|at| matches!(at.offset(), Offset::Offset(at) if at >= *end))
    }))
}
