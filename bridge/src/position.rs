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

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use risiti_config::Cluster;
use risiti_store::Position;

use crate::error::BridgeError;
use crate::whole_log::{Stage, WholeLog};

/// The partition that holds every position.
pub const PARTITION: i32 = 0;

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
/// `go_on` is asked between steps; when it says no, the answer is `Ok(None)` of the
/// outer option.
///
/// # Errors
/// The cluster is away, or the value is of a later version. Try again.
pub fn read_back(
    lookup: Lookup<'_>,
    go_on: impl FnMut() -> bool,
) -> Result<Option<Option<Position>>, BridgeError> {
    let log = WholeLog {
        cluster: lookup.cluster,
        bootstrap: lookup.bootstrap,
        client_id: lookup.client_id,
        topic: &lookup.cluster.positions_topic,
        partitions: &[PARTITION],
    };
    let failed = |stage, error| {
        BridgeError::kafka(match stage {
            Stage::Client => "create a client for the position",
            Stage::End => "ask the end of the positions topic",
            Stage::Read => "read the position",
        })(error)
    };
    let mut found: Option<Position> = None;
    let whole = log.read(go_on, failed, |message| {
        // The last one holds, not the largest: a journal whose tail was lost to
        // damage goes on at a lower position.
        found = position_in(message, lookup.key)?.or(found);
        Ok(())
    })?;
    Ok(whole.then_some(found))
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
