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
use rdkafka::error::KafkaError;
use risiti_config::Cluster;
use risiti_store::Position;

use crate::error::BridgeError;
use crate::whole_log::{Ends, Stage, WholeLog};

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

/// Asks where the positions begin and end. To be called after `init_transactions`,
/// which ends whatever a former self left open.
///
/// # Errors
/// The cluster is away. Try again.
pub fn ends(lookup: Lookup<'_>) -> Result<(i64, i64), BridgeError> {
    Ok(lookup.log().ends(failed)?.of(PARTITION))
}

/// Reads the position back between these ends; none if there is none.
///
/// `go_on` is asked between steps; when it says no, the answer is `Ok(None)` of the
/// outer option.
///
/// # Errors
/// The cluster is away, or the value is of a later version. Try again.
pub fn read_back(
    lookup: Lookup<'_>,
    (from, to): (i64, i64),
    go_on: impl FnMut() -> bool,
) -> Result<Option<Option<Position>>, BridgeError> {
    let mut ends = Ends::default();
    ends.note(PARTITION, from, to);
    let mut scan = Scan::new(lookup.key);
    let whole = lookup.log().read(&ends, go_on, failed, |message| {
        scan.take(message.key(), message.payload())
    })?;
    Ok(whole.then_some(scan.found()))
}

impl<'a> Lookup<'a> {
    fn log(&self) -> WholeLog<'a> {
        WholeLog {
            cluster: self.cluster,
            bootstrap: self.bootstrap,
            client_id: self.client_id,
            topic: &self.cluster.positions_topic,
            partitions: &[PARTITION],
        }
    }
}

fn failed(stage: Stage, error: KafkaError) -> BridgeError {
    BridgeError::kafka(match stage {
        Stage::Client => "create a client for the position",
        Stage::End => "ask the end of the positions topic",
        Stage::Read => "read the position",
    })(error)
}

/// Finds a position among the messages of the partition, given in their order. A
/// core.
#[derive(Debug, Clone)]
pub struct Scan {
    key: String,
    found: Option<Position>,
}

impl Scan {
    /// Looks for this key.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self {
            key: key.into(),
            found: None,
        }
    }

    /// Looks at a message. The last one holds, not the largest: a journal whose tail
    /// was lost to damage goes on at a lower position.
    ///
    /// # Errors
    /// It is of a later version.
    pub fn take(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), BridgeError> {
        let Some(value) = value.filter(|_| key == Some(self.key.as_bytes())) else {
            return Ok(());
        };
        let position = decode(value).ok_or_else(|| BridgeError::Position {
            key: self.key.clone(),
            value: String::from_utf8_lossy(value).into_owned(),
        })?;
        self.found = Some(position);
        Ok(())
    }

    /// The last one.
    #[must_use]
    pub fn found(&self) -> Option<Position> {
        self.found
    }
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

    #[test]
    fn the_last_position_under_the_key_holds() {
        let key = key("gw-1", "default", "3f9a");
        assert_eq!(key, "gw-1/default/3f9a");
        let mut scan = Scan::new(&key);
        assert_eq!(scan.found(), None);
        let ours = Some(key.as_bytes());
        for (key, value) in [
            (ours, Some(&b"1 9"[..])),
            (ours, Some(b"1 7")),
            (Some(b"gw-2/default/3f9a"), Some(b"1 8")),
            (None, Some(b"1 8")),
            (ours, None),
        ] {
            assert!(scan.take(key, value).is_ok());
        }
        assert_eq!(scan.found(), Some(7), "though another one was larger");
        assert!(scan.take(ours, Some(b"2 9")).is_err(), "of a later version");
        assert_eq!(scan.found(), Some(7));
    }
}
