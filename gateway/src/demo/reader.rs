//! Reads the run's topics from their first message on, as a bank would.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use risiti_bridge::headers;
use risiti_sim::ledger::{self, Delivery, Entry, Found};

use super::Failure;
use super::topics::Topics;

/// How long the topics may take to exist.
const TOPICS_MAX: Duration = Duration::from_secs(30);
/// Nothing new for so long: the end.
const QUIET: Duration = Duration::from_secs(1);

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Records.
    pub records: Vec<Found>,
    /// Finalised transactions.
    pub settled: Vec<Found>,
    /// Receipts.
    pub receipts: Vec<Found>,
    /// Delivery events.
    pub deliveries: Vec<Delivery>,
    /// Messages that are not what their topic is for.
    pub unreadable: Vec<String>,
    /// Different payments among records and among finalised transactions.
    pub different: [HashSet<(String, u64)>; 2],
}

/// How many different payments there are on the way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Among the records.
    pub in_kafka: u64,
    /// Among the finalised transactions.
    pub settled: u64,
    /// Receipts without a delivery event yet.
    pub undelivered: u64,
}

/// A running reader.
pub struct Reader {
    stopping: Arc<AtomicBool>,
    at_end: Arc<AtomicBool>,
    read: Arc<Mutex<Read>>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Starts to read.
    pub fn start(bootstrap: &str, topics: &Topics) -> Result<Self, Failure> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "risiti-demo")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "50")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .create()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let at_end = Arc::new(AtomicBool::new(false));
        let read = Arc::new(Mutex::new(Read::default()));
        let (stop, end, book) = (stopping.clone(), at_end.clone(), read.clone());
        let topics = topics.clone();
        let thread = std::thread::Builder::new()
            .name("demo-reader".into())
            .spawn(move || {
                if let Err(error) = follow(&consumer, &topics, &book, &stop, &end) {
                    eprintln!("risiti demo: the reader ended: {error}");
                }
            })?;
        Ok(Self {
            stopping,
            at_end,
            read,
            thread,
        })
    }

    /// Whether nothing new has come for a while.
    pub fn is_at_end(&self) -> bool {
        self.at_end.load(Ordering::Acquire)
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        let read = self.read.lock();
        let different = |n: usize| read.different.get(n).map_or(0, HashSet::len) as u64;
        Counts {
            in_kafka: different(0),
            settled: different(1),
            undelivered: read.receipts.len().saturating_sub(read.deliveries.len()) as u64,
        }
    }

    /// Ends it; what it has read.
    pub fn stop(self) -> Read {
        self.stopping.store(true, Ordering::Release);
        let _ = self.thread.join();
        std::mem::take(&mut *self.read.lock())
    }
}

fn follow(
    consumer: &BaseConsumer,
    topics: &Topics,
    read: &Mutex<Read>,
    stopping: &AtomicBool,
    at_end: &AtomicBool,
) -> Result<(), Failure> {
    let followed = [
        &topics.records,
        &topics.transactions,
        &topics.receipts,
        &topics.deliveries,
    ];
    let mut assignment = TopicPartitionList::new();
    for topic in followed {
        let Some(partitions) = partitions(consumer, topic, stopping)? else {
            return Ok(());
        };
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&assignment)?;
    let mut last = Instant::now();
    while !stopping.load(Ordering::Acquire) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            last = Instant::now();
            take(&mut read.lock(), &message, topics);
        }
        at_end.store(last.elapsed() > QUIET, Ordering::Release);
    }
    Ok(())
}

/// Waits until the topic is there; none when the reader is to stop.
fn partitions(
    consumer: &BaseConsumer,
    topic: &str,
    stopping: &AtomicBool,
) -> Result<Option<i32>, Failure> {
    let until = Instant::now() + TOPICS_MAX;
    while !stopping.load(Ordering::Acquire) {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5))?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(0, |t| t.partitions().len());
        if partitions > 0 {
            return Ok(Some(i32::try_from(partitions)?));
        }
        if Instant::now() > until {
            return Err(format!("topic {topic} does not exist").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(None)
}

fn take(read: &mut Read, message: &BorrowedMessage<'_>, topics: &Topics) {
    let header = |name: &str| headers::text(message, name);
    let entry = Entry {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().unwrap_or_default(),
        value: message.payload().unwrap_or_default(),
        ce_id: header("ce_id"),
        ce_type: header("ce_type"),
    };
    let topic = message.topic();
    let taken = if topic == topics.records {
        ledger::record(&entry).map(|found| {
            read.different[0].insert((found.client.clone(), found.sequence));
            read.records.push(found);
        })
    } else if topic == topics.transactions {
        ledger::transaction(&entry).map(|found| {
            read.different[1].insert((found.client.clone(), found.sequence));
            read.settled.push(found);
        })
    } else if topic == topics.receipts {
        ledger::receipt(&entry).map(|found| read.receipts.push(found))
    } else {
        ledger::delivery(&entry).map(|event| read.deliveries.push(event))
    };
    if let Err(what) = taken {
        read.unreadable.push(format!("{topic}: {what}"));
    }
}
