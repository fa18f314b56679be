//! The consumer and the producer of an instance.
//!
//! Promises: the settings on which exactly-once rests are set last. Never: an
//! offset committed but in a transaction.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, ProducerContext};
use risiti_config::{Cluster, Mode, Settlement};

use crate::client;
use crate::transactional::Reports;

/// A consumer that notes which partitions come and go.
pub type Consumer = BaseConsumer<Assignments>;

/// A producer that counts its deliveries.
pub type Producer = BaseProducer<Deliveries>;

/// The settings of the producer.
///
/// One transactional id for each instance name: an instance that starts again
/// aborts at once what its former self left open, so that readers of committed
/// records wait for that only if it stays away.
#[must_use]
pub fn producer(cluster: &Cluster, bootstrap: &str, settlement: &Settlement) -> ClientConfig {
    let cluster = Cluster {
        mode: Mode::ExactlyOnce,
        transaction_timeout_ms: settlement.transaction_timeout_ms,
        ..cluster.clone()
    };
    let id = format!("{}-{}", settlement.group, settlement.instance);
    let mut config = client::producer(&cluster, bootstrap, &id);
    // A transaction waits for its last message: nothing is gained by gathering.
    config.set("linger.ms", "0");
    // Grows with each attempt. The brokers take some milliseconds to close the
    // transaction before.
    config.set("retry.backoff.ms", "3");
    config
}

/// The settings of the consumer.
///
/// A static member (KIP-345): a restarted instance takes its partitions back at
/// once, and the others keep theirs. Not cooperative (KIP-429): there a partition that
/// changes hands has no holder for a generation, and if power goes then, static members
/// come back to just that generation, and nobody settles the partition any more.
#[must_use]
pub fn consumer(cluster: &Cluster, bootstrap: &str, settlement: &Settlement) -> ClientConfig {
    let mut config = client::connection(cluster, bootstrap, &settlement.instance);
    let session_ms = settlement.session_timeout_ms;
    config
        .set("group.id", &settlement.group)
        .set("group.instance.id", &settlement.instance)
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", session_ms.to_string())
        .set("heartbeat.interval.ms", (session_ms / 6).to_string())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A group without offsets begins with the oldest record; what was settled
        // before is recognised.
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        // Only when nothing comes: brokers answer as soon as there is a record.
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "50")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "4096")
        .set("enable.partition.eof", "true");
    config
}

/// A change of what this instance holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These partitions are its now.
    Assigned(Vec<i32>),
    /// These are not any more.
    Revoked(Vec<i32>),
}

/// What the consumer calls back, in the thread that polls it.
#[derive(Debug, Default)]
pub struct Assignments {
    changes: Mutex<Vec<Change>>,
    last_error: Mutex<Option<String>>,
}

impl Assignments {
    /// Takes the changes since the last call, in their order.
    pub fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock())
    }

    /// Takes the last error of the connection, in words.
    pub fn take_error(&self) -> Option<String> {
        self.last_error.lock().take()
    }
}

impl ClientContext for Assignments {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka reports");
        *self.last_error.lock() = Some(reason.to_owned());
    }
}

impl ConsumerContext for Assignments {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = |list: &rdkafka::TopicPartitionList| {
            let elements = list.elements();
            elements.iter().map(|element| element.partition()).collect()
        };
        let change = match rebalance {
            Rebalance::Assign(list) => Change::Assigned(partitions(list)),
            Rebalance::Revoke(list) => Change::Revoked(partitions(list)),
            Rebalance::Error(error) => {
                *self.last_error.lock() = Some(error.to_string());
                return;
            }
        };
        self.changes.lock().push(change);
    }
}

/// What the producer calls back.
#[derive(Debug, Default)]
pub struct Deliveries {
    pending: AtomicUsize,
    failed: Mutex<Option<RDKafkaErrorCode>>,
}

impl Deliveries {
    /// Begins a transaction.
    pub fn begin(&self) {
        self.pending.store(0, Ordering::Relaxed);
        *self.failed.lock() = None;
    }

    /// A message was handed over.
    pub fn handed_over(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// The first failure.
    pub fn failed(&self) -> Option<RDKafkaErrorCode> {
        *self.failed.lock()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka reports");
    }
}

impl Reports for Deliveries {
    fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let code = error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown);
            self.failed.lock().get_or_insert(code);
        }
        let _ = self
            .pending
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pending| {
                pending.checked_sub(1)
            });
    }
}
