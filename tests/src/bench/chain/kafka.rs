//! What any reader of the cluster sees, and when: the records and the receipts
//! that are committed.
//!
//! Promises: a message counts from the moment at which `poll` gave it. Never: a
//! message that may still be aborted.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use risiti_wire::{Receipt, Record};

use super::{Notebook, note};
use crate::bench::limits;

/// Kafka topic of the payments.
pub const RECORDS: &str = "risiti.records";
/// Kafka topic of the receipts.
pub const RECEIPTS: &str = "risiti.receipts";

/// How often it looks whether it shall stop.
const POLL: Duration = Duration::from_millis(100);

/// A reader of one topic; it ends when dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Reads `topic` from its end on; what comes is noted in the notebook once
    /// there is one.
    ///
    /// # Errors
    /// The topic is not there.
    pub fn start(
        bootstrap: &str,
        topic: &'static str,
        notebook: Arc<OnceLock<Arc<Notebook>>>,
    ) -> io::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "bench-chain")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .create()
            .map_err(io::Error::other)?;
        let metadata = consumer
            .fetch_metadata(Some(topic), limits::START)
            .map_err(io::Error::other)?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(&[][..], |t| t.partitions());
        if partitions.is_empty() {
            return Err(io::Error::other(format!("there is no topic {topic}")));
        }
        let mut places = TopicPartitionList::new();
        for partition in partitions {
            places
                .add_partition_offset(topic, partition.id(), Offset::End)
                .map_err(io::Error::other)?;
        }
        consumer.assign(&places).map_err(io::Error::other)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                let Some(Ok(message)) = consumer.poll(POLL) else {
                    continue;
                };
                let Some(notebook) = notebook.get() else {
                    continue;
                };
                see(topic, &message, notebook);
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

fn see(topic: &str, message: &impl Message, notebook: &Notebook) {
    let now = notebook.now();
    let (Some(terminal), Some(payload)) = (message.key(), message.payload()) else {
        return;
    };
    if topic == RECORDS {
        let sequence = Record::decode(payload).map(|record| record.sequence);
        if let Some(times) = sequence.ok().and_then(|n| notebook.find(terminal, n)) {
            note(&times.visible, now);
        }
        return;
    }
    let sequence = Receipt::decode(payload).map(|receipt| receipt.sequence);
    if let Some(times) = sequence.ok().and_then(|n| notebook.find(terminal, n)) {
        note(&times.receipt_visible, now);
        let at_ms = message.timestamp().to_millis().unwrap_or(0);
        let at_ms = u64::try_from(at_ms).unwrap_or(0);
        note(&times.settled, notebook.at_unix_ms(at_ms));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
