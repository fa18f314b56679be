//! Reads the run's topic from its first record on, as a bank would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::Failure;
use super::ledger::Ledger;

/// How long the topic may take to exist.
const TOPIC_MAX: Duration = Duration::from_secs(30);
/// Nothing new for so long: the end.
const QUIET: Duration = Duration::from_secs(1);

/// A running reader.
pub struct Reader {
    stopping: Arc<AtomicBool>,
    at_end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Starts to read.
pub fn start(bootstrap: &str, topic: &str, ledger: Arc<Ledger>) -> Result<Reader, Failure> {
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
    let topic = topic.to_owned();
    let (stop, end) = (stopping.clone(), at_end.clone());
    let thread = std::thread::Builder::new()
        .name("demo-reader".into())
        .spawn(move || {
            if let Err(error) = read(&consumer, &topic, &ledger, &stop, &end) {
                eprintln!("risiti demo: the reader ended: {error}");
            }
        })?;
    Ok(Reader {
        stopping,
        at_end,
        thread,
    })
}

impl Reader {
    /// Whether nothing new has come for a while.
    pub fn is_at_end(&self) -> bool {
        self.at_end.load(Ordering::Acquire)
    }

    /// Ends it.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        let _ = self.thread.join();
    }
}

fn read(
    consumer: &BaseConsumer,
    topic: &str,
    ledger: &Ledger,
    stopping: &AtomicBool,
    at_end: &AtomicBool,
) -> Result<(), Failure> {
    let until = Instant::now() + TOPIC_MAX;
    let partitions = loop {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5))?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(0, |t| t.partitions().len());
        if partitions > 0 {
            break partitions;
        }
        if Instant::now() > until || stopping.load(Ordering::Acquire) {
            return Err(format!("topic {topic} does not exist").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut last = Instant::now();
    while !stopping.load(Ordering::Acquire) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            last = Instant::now();
            let terminal = message.key().map(String::from_utf8_lossy);
            let record = message.payload().map(risiti_wire::peek);
            match (terminal, record) {
                (Some(terminal), Some(Ok(header))) => ledger.found(&terminal, header.sequence),
                _ => ledger.found("", 0),
            }
        }
        at_end.store(last.elapsed() > QUIET, Ordering::Release);
    }
    Ok(())
}
