//! Reads a compacted topic's partitions from their beginning to their end of now.
//!
//! Promises: everything that was committed before the call is read. An open
//! transaction of *another* client ends a `read_committed` scan early (the last
//! stable offset). So the end is asked with `read_uncommitted`, and the scan goes on
//! until it has passed it. Never: a topic that is not there taken for an empty one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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

/// Where partitions begin and end; those that hold nothing are left out. A core.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ends {
    ends: BTreeMap<i32, (i64, i64)>,
}

impl Ends {
    /// A partition begins and ends there: the end with what is in open transactions.
    pub fn note(&mut self, partition: i32, low: i64, high: i64) {
        if low < high {
            self.ends.insert(partition, (low, high));
        }
    }

    /// Where to begin to read each.
    pub fn starts(&self) -> impl Iterator<Item = (i32, i64)> {
        let ends = self.ends.iter();
        ends.map(|(partition, (low, _))| (*partition, *low))
    }

    /// Begin and end of a partition; the same number twice if it holds nothing.
    #[must_use]
    pub fn of(&self, partition: i32) -> (i64, i64) {
        self.ends.get(&partition).copied().unwrap_or_default()
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether a reader has passed the end of each. `position` gives where it stands
    /// in a partition.
    pub fn passed(&self, position: impl Fn(i32) -> Option<i64>) -> bool {
        let mut ends = self.ends.iter();
        ends.all(|(partition, (_, high))| position(*partition).is_some_and(|at| at >= *high))
    }
}

impl WholeLog<'_> {
    /// Asks where each partition begins and ends.
    ///
    /// # Errors
    /// What `failed` makes of Kafka's.
    pub(crate) fn ends<E>(self, failed: impl Fn(Stage, KafkaError) -> E) -> Result<Ends, E> {
        let plain = self
            .client(false)
            .map_err(|error| failed(Stage::Client, error))?;
        let mut ends = Ends::default();
        for partition in self.partitions {
            let (low, high) = plain
                .fetch_watermarks(self.topic, *partition, limits::CALL * 4)
                .map_err(|error| failed(Stage::End, error))?;
            ends.note(*partition, low, high);
        }
        Ok(ends)
    }

    /// Gives each committed message before the ends to `each`, of one partition in
    /// their order. `go_on` is asked between steps; when it says no, the answer is
    /// `false`.
    ///
    /// # Errors
    /// What `failed` makes of Kafka's, or `each` gives.
    pub(crate) fn read<E>(
        self,
        ends: &Ends,
        mut go_on: impl FnMut() -> bool,
        failed: impl Fn(Stage, KafkaError) -> E,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let reading = |error| failed(Stage::Read, error);
        if ends.is_empty() {
            return Ok(true);
        }
        let mut assignment = TopicPartitionList::new();
        for (partition, low) in ends.starts() {
            assignment
                .add_partition_offset(self.topic, partition, Offset::Offset(low))
                .map_err(reading)?;
        }
        let consumer = self
            .client(true)
            .map_err(|error| failed(Stage::Client, error))?;
        consumer.assign(&assignment).map_err(reading)?;
        let (mut heard_at, mut asked_at) = (Instant::now(), Instant::now());
        loop {
            if !go_on() {
                return Ok(false);
            }
            let mut next = consumer.poll(STEP);
            while let Some(message) = next {
                each(&message.map_err(reading)?)?;
                heard_at = Instant::now();
                next = consumer.poll(Duration::ZERO);
            }
            // Nothing may mean that somebody's transaction is open, or that librdkafka
            // has lost a broker that hung (see [`limits::UNANSWERED`]).
            if heard_at.elapsed() > limits::SILENCE && asked_at.elapsed() > limits::BACKOFF_MAX {
                asked_at = Instant::now();
                match consumer
                    .client()
                    .fetch_metadata(Some(self.topic), limits::CALL)
                {
                    Ok(_) => heard_at = Instant::now(),
                    Err(error) if heard_at.elapsed() > limits::SILENCE + limits::UNANSWERED => {
                        return Err(reading(error));
                    }
                    Err(_) => {}
                }
            }
            let position = consumer.position().map_err(reading)?;
            let at = |partition| match position.find_partition(self.topic, partition)?.offset() {
                Offset::Offset(at) => Some(at),
                _ => None,
            };
            if ends.passed(at) {
                return Ok(true);
            }
        }
    }

    fn client(&self, committed: bool) -> Result<BaseConsumer, KafkaError> {
        client::reader(self.cluster, self.bootstrap, self.client_id, committed).create()
    }
}
