//! Reads a compacted topic's partitions from their beginning to their end of now.
//!
//! Promises: everything that was committed before the call is read. An open
//! transaction of *another* client ends a `read_committed` scan early (the last
//! stable offset). So the end is asked with `read_uncommitted`, and the scan goes on
//! until it has passed it. Never: a topic that is not there taken for an empty one.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};
use risiti_config::Cluster;

use crate::{client, limits};

/// How long a scan waits for the next message before it looks where it stands.
const STEP: Duration = Duration::from_millis(20);

/// What is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WholeLog<'a> {
    /// Settings of the cluster.
    pub(crate) cluster: &'a Cluster,
    /// Its resolved address.
    pub(crate) bootstrap: &'a str,
    /// Client id of the consumers.
    pub(crate) client_id: &'a str,
    /// The topic.
    pub(crate) topic: &'a str,
    /// Partitions of it.
    pub(crate) partitions: &'a [i32],
}

/// What was being done when Kafka failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A client was made.
    Client,
    /// The ends were asked for.
    End,
    /// The log was read.
    Read,
}

impl WholeLog<'_> {
    /// Gives each message to `each`, of one partition in their order. `go_on` is
    /// asked between steps; when it says no, the answer is `false`.
    ///
    /// # Errors
    /// What `failed` makes of Kafka's, or `each` gives.
    pub(crate) fn read<E>(
        self,
        mut go_on: impl FnMut() -> bool,
        failed: impl Fn(Stage, KafkaError) -> E,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let reading = |error| failed(Stage::Read, error);
        let plain = self
            .client(false)
            .map_err(|error| failed(Stage::Client, error))?;
        let mut ends = BTreeMap::new();
        let mut assignment = TopicPartitionList::new();
        for partition in self.partitions {
            let (low, high) = plain
                .fetch_watermarks(self.topic, *partition, limits::CALL * 4)
                .map_err(|error| failed(Stage::End, error))?;
            if low < high {
                ends.insert(*partition, high);
                assignment
                    .add_partition_offset(self.topic, *partition, Offset::Offset(low))
                    .map_err(reading)?;
            }
        }
        if ends.is_empty() {
            return Ok(true);
        }
        let consumer = self
            .client(true)
            .map_err(|error| failed(Stage::Client, error))?;
        consumer.assign(&assignment).map_err(reading)?;
        loop {
            if !go_on() {
                return Ok(false);
            }
            let mut next = consumer.poll(STEP);
            while let Some(message) = next {
                each(&message.map_err(reading)?)?;
                next = consumer.poll(Duration::ZERO);
            }
            if self.passed(&consumer, &ends).map_err(reading)? {
                return Ok(true);
            }
        }
    }

    fn client(&self, committed: bool) -> Result<BaseConsumer, KafkaError> {
        client::reader(self.cluster, self.bootstrap, self.client_id, committed).create()
    }

    /// Whether the scan has passed every end.
    fn passed(
        &self,
        consumer: &BaseConsumer,
        ends: &BTreeMap<i32, i64>,
    ) -> Result<bool, KafkaError> {
        let position = consumer.position()?;
        Ok(ends.iter().all(|(partition, end)| {
            position
                .find_partition(self.topic, *partition)
                .is_some_and(|at| matches!(at.offset(), Offset::Offset(at) if at >= *end))
        }))
    }
}
