//! How fast a backlog is settled, how long a takeover takes, and how long a record
//! waits for its receipt at a steady rate.
//!
//! `cargo run --release -p risiti-bridge --example settle -- BOOTSTRAP [BACKLOG] [RATE] [SECONDS]`
//!
//! Payments of 200 terminals (1,000 in the backlog) in topics of this run's own, with
//! six partitions. A wait is from the hand-over of a record to Kafka's client until
//! a consumer of committed messages has its receipt.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use risiti_bridge::settlement::{
    Options, Sealing, Settlement, SettlementHandle, SettlementMetrics, SettlementSetup, State,
    configured_policy,
};
use risiti_config::{Bootstrap, Cluster};
use risiti_wire::limits::RECORD_BYTES_MAX;
use risiti_wire::{Account, Currency, Payment, Receipt, Record, RecordBody, WireError};

type Failure = Box<dyn std::error::Error>;

const PATIENCE: Duration = Duration::from_secs(600);
const PARTITIONS: u16 = 6;

/// When each record was handed over.
type HandedOver = Arc<Mutex<HashMap<(u64, u64), Instant>>>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().ok_or("name a cluster: host:port")?;
    let mut number = |otherwise: u64| -> Result<u64, std::num::ParseIntError> {
        arguments.next().map_or(Ok(otherwise), |text| text.parse())
    };
    let (backlog, rate, seconds) = (number(100_000)?, number(1_000)?, number(20)?);
    let handle = start(&bootstrap)?;
    settling(&handle)?;
    handle.stop(PATIENCE);

    let producer = producer(&bootstrap)?;
    for n in 0..backlog {
        send(&producer, n % 1_000, n / 1_000 + 1)?;
    }
    producer.flush(PATIENCE)?;
    let handle = start(&bootstrap)?;
    settling(&handle)?;
    let begun = Instant::now();
    if !handle.wait_until(PATIENCE, |handle| handle.metrics().records() >= backlog) {
        return Err("the backlog was not settled".into());
    }
    let elapsed = begun.elapsed();
    println!(
        "backlog of {backlog} settled in {elapsed:.1?}: {:.0} a second, {} transactions",
        backlog as f64 / elapsed.as_secs_f64(),
        handle.metrics().transactions.load(Ordering::Relaxed)
    );
    handle.stop(PATIENCE);
    let begun = Instant::now();
    let handle = start(&bootstrap)?;
    settling(&handle)?;
    println!(
        "taken over in {:.1?}: {} numbers of {} terminals, {}",
        begun.elapsed(),
        handle.metrics().numbers.load(Ordering::Relaxed),
        handle.metrics().terminals.load(Ordering::Relaxed),
        resident()
    );
    waits(&bootstrap, &producer, backlog / 1_000 + 1, rate, seconds)?;
    handle.stop(PATIENCE);
    Ok(())
}

fn topic(name: &str) -> String {
    format!("measure-{}.{name}", std::process::id())
}

fn start(bootstrap: &str) -> Result<SettlementHandle, Failure> {
    let settings = risiti_config::Settlement {
        group: topic("settlement"),
        records_topic: topic("records"),
        receipts_topic: topic("receipts"),
        transactions_topic: topic("transactions"),
        rejected_topic: topic("rejected"),
        changelog_topic: topic("settled"),
        ..risiti_config::Settlement::default()
    };
    let mut cluster = Cluster::new(Bootstrap::Servers(vec![bootstrap.into()]));
    cluster.partitions = PARTITIONS;
    Ok(Settlement::start(SettlementSetup {
        cluster,
        bootstrap: bootstrap.into(),
        policy: configured_policy(&settings, None),
        settings,
        sealing: Sealing::default(),
        metrics: Arc::new(SettlementMetrics::default()),
        options: Options::default(),
    })?)
}

fn settling(handle: &SettlementHandle) -> Result<(), Failure> {
    if handle.wait_until(PATIENCE, |handle| handle.state() == State::Settling) {
        return Ok(());
    }
    Err(format!("it does not settle: {:?}", handle.metrics().last_error()).into())
}

fn producer(bootstrap: &str) -> Result<BaseProducer, KafkaError> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", "2000000")
        .create()
}

fn send(producer: &BaseProducer, terminal: u64, sequence: u64) -> Result<(), Failure> {
    let mut buffer = [0; RECORD_BYTES_MAX];
    let payment = || -> Result<_, WireError> {
        Ok(RecordBody::Payment(Payment {
            time_s: 1_700_000_000,
            account: Account::new("001234567890")?,
            amount_minor: 150_000,
            currency: Currency::new(404)?,
            reference: Some("P-123"),
        }))
    };
    let record = Record {
        sequence,
        resend: false,
        body: payment()?,
    };
    let value = record.encode(&mut buffer)?;
    let key = format!("t-{terminal}");
    producer
        .send(BaseRecord::to(&topic("records")).key(&key).payload(value))
        .map_err(|(error, _)| error)?;
    producer.poll(Duration::ZERO);
    Ok(())
}

/// Sends at a rate and prints the percentiles of the waits.
fn waits(
    bootstrap: &str,
    producer: &BaseProducer,
    first: u64,
    rate: u64,
    seconds: u64,
) -> Result<(), Failure> {
    let count = rate * seconds;
    let sent = HandedOver::default();
    let reader = {
        let (bootstrap, sent) = (bootstrap.to_owned(), Arc::clone(&sent));
        std::thread::spawn(move || read(&bootstrap, &sent, count).map_err(|e| e.to_string()))
    };
    let begun = Instant::now();
    for n in 0..count {
        let due = begun + Duration::from_secs(1) * u32::try_from(n)? / u32::try_from(rate)?;
        while Instant::now() < due {
            producer.poll(Duration::ZERO);
            std::thread::sleep(Duration::from_micros(200));
        }
        let at = (n % 200, first + n / 200);
        let now = Instant::now();
        sent.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(at, now);
        send(producer, at.0, at.1)?;
    }
    let mut waits = reader.join().map_err(|_| "the reader panicked")??;
    // What comes first pays for connections.
    waits.drain(..waits.len() / 10);
    waits.sort_unstable();
    let at = |part: usize| waits.get(waits.len() * part / 1_000).copied();
    println!(
        "waits at {rate} a second: p50 {:.1?} p90 {:.1?} p99 {:.1?} p99.9 {:.1?}",
        at(500).unwrap_or_default(),
        at(900).unwrap_or_default(),
        at(990).unwrap_or_default(),
        at(999).unwrap_or_default()
    );
    Ok(())
}

fn read(bootstrap: &str, sent: &HandedOver, count: u64) -> Result<Vec<Duration>, Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", topic("reader"))
        .set("isolation.level", "read_committed")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::from(PARTITIONS) {
        list.add_partition_offset(&topic("receipts"), partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut waits = Vec::new();
    while (waits.len() as u64) < count {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        let now = Instant::now();
        let key = std::str::from_utf8(message.key().unwrap_or_default())?;
        let terminal = key.trim_start_matches("t-").parse()?;
        let receipt = Receipt::decode(message.payload().unwrap_or_default())?;
        let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        // The backlog's receipts come first.
        if let Some(at) = sent.get(&(terminal, receipt.sequence)) {
            waits.push(now - *at);
        }
    }
    Ok(waits)
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.unwrap_or("VmRSS: unknown").replace('\t', " ")
}
