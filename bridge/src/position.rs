//! The forwarder's position, kept in Kafka itself.
//!
//! Promises: what is read back is at least what was committed last by a producer
//! that has been fenced; a position that can't be read for certain is waited
//! for. Never: a fall back to an older one.
//!
//! In partition 0 of the positions topic (compacted, version 1; always that one,
//! so that adding partitions moves no key):
//!
//! | part  | bytes                                   | example              |
//! |-------|-----------------------------------------|----------------------|
//! | key   | `<gateway id>/<cluster>/<journal id>`   | `gw-1/default/3f9a…` |
//! | value | `1 <next position>`, ASCII              | `1 52731`            |
//!
//! *next position* is the first position that is not in Kafka yet. A later
//! version begins with another number and is refused by this one.

use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use risiti_config::Cluster;
use risiti_store::Position;

use crate::client;
use crate::error::BridgeError;
use crate::limits;

/// The partition that holds every position.
pub const PARTITION: i32 = 0;

/// How long a scan waits for the next message before it looks where it stands.
const STEP: Duration = Duration::from_millis(20);

/// Version of the value.
const VERSION: &str = "1";

/// The key under which a forwarder keeps its position.
#[must_use]
pub fn key(gateway_id: &str, cluster: &str, journal_id: &str) -> String {
    format!("{gateway_id}/{cluster}/{journal_id}")
}

/// The value for a position.
#[must_use]
pub fn encode(next: Position) -> String {
    format!("{VERSION} {next}")
}

/// Reads a value; none if it is not of this version.
#[must_use]
pub fn decode(value: &[u8]) -> Option<Position> {
    let (version, next) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    (version == VERSION).then(|| next.parse().ok()).flatten()
}

/// Where and under which key to look.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// Settings of the cluster.
    pub cluster: &'a Cluster,
    /// Its resolved address.
    pub bootstrap: &'a str,
    /// Client id of the consumers.
    pub client_id: &'a str,
    /// [`key()`].
    pub key: &'a str,
}

/// Reads the position back; none if there is none. To be called after
/// `init_transactions`, which ends whatever a former self left open.
///
/// An open transaction of *another* gateway on the same partition ends a
/// `read_committed` scan early (the last stable offset). So the end is asked with `read_uncommitted`, and the scan goes on until it has
/// passed it. `go_on` is asked between steps; when it says no, the answer is
/// `Ok(None)` of the outer option.
///
/// # Errors
/// The cluster is away, or the value is of a later version. Try again.
pub fn read_back(
    lookup: Lookup<'_>,
    mut go_on: impl FnMut() -> bool,
) -> Result<Option<Option<Position>>, BridgeError> {
    let topic = lookup.cluster.positions_topic.as_str();
    let client = |committed| -> Result<BaseConsumer, BridgeError> {
        client::reader(
            lookup.cluster,
            lookup.bootstrap,
            lookup.client_id,
            committed,
        )
        .create()
        .map_err(BridgeError::kafka("create a client for the position"))
    };
    let (low, high) = watermarks(&client(false)?, topic)?;
    if low >= high {
        return Ok(Some(None));
    }
    let consumer = client(true)?;
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, PARTITION, Offset::Offset(low))
        .and_then(|()| consumer.assign(&assignment))
        .map_err(BridgeError::kafka("read the position"))?;
    let mut found: Option<Position> = None;
    loop {
        if !go_on() {
            return Ok(None);
        }
        let mut next = consumer.poll(STEP);
        while let Some(message) = next {
            let message = message.map_err(BridgeError::kafka("read the position"))?;
            // The last one holds, not the largest: a journal whose tail was lost
            // to damage goes on at a lower position.
            found = position_in(&message, lookup.key)?.or(found);
            next = consumer.poll(Duration::ZERO);
        }
        if passed(&consumer, topic, high)? {
            return Ok(Some(found));
        }
    }
}

/// The position in a message, if it is this key's.
fn position_in(message: &BorrowedMessage<'_>, key: &str) -> Result<Option<Position>, BridgeError> {
    if message.key() != Some(key.as_bytes()) {
        return Ok(None);
    }
    let Some(value) = message.payload() else {
        return Ok(None);
    };
    decode(value)
        .map(Some)
        .ok_or_else(|| BridgeError::Position {
            key: key.into(),
            value: String::from_utf8_lossy(value).into_owned(),
        })
}

/// Low and high watermark of the partition.
fn watermarks(consumer: &BaseConsumer, topic: &str) -> Result<(i64, i64), BridgeError> {
    // A topic that is not there has no end: never "no position".
    consumer
        .fetch_watermarks(topic, PARTITION, limits::CALL * 4)
        .map_err(BridgeError::kafka("ask the end of the positions topic"))
}

/// Whether the scan has passed the end.
fn passed(consumer: &BaseConsumer, topic: &str, high: i64) -> Result<bool, BridgeError> {
    let position = consumer
        .position()
        .map_err(BridgeError::kafka("read the position"))?;
    Ok(position
        .find_partition(topic, PARTITION)
        .is_some_and(|at| matches!(at.offset(), Offset::Offset(at) if at >= high)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back() {
        for next in [1, 52_731, u64::MAX] {
            assert_eq!(decode(encode(next).as_bytes()), Some(next));
        }
    }

    #[test]
    fn another_version_or_damage_is_no_position() {
        for value in ["", "1", "2 7", "1 x", "1 -1", "1 7 8", "\u{ff}"] {
            assert_eq!(decode(value.as_bytes()), None, "{value:?}");
        }
    }
}
