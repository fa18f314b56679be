//! Settlement as the demo runs it: against the embedded cluster, which has groups
//! and no transactions.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use risiti_bridge::EmbeddedCluster;
use risiti_bridge::settlement::{
    Options, Sealing, Settlement, SettlementHandle, SettlementMetrics, SettlementSetup, State,
    configured_policy, topics,
};
use risiti_config::{Bootstrap, Cluster};
use risiti_wire::limits::RECORD_BYTES_MAX;
use risiti_wire::{Account, Currency, Payment, Receipt, Record, RecordBody, Status, mark_resend};

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: u16 = 3;

fn cluster() -> EmbeddedCluster {
    let cluster = EmbeddedCluster::start().unwrap();
    let settings = risiti_config::Settlement::default();
    for (topic, partitions) in topics::needed(&settings, PARTITIONS) {
        cluster.create_topic(topic, partitions).unwrap();
    }
    cluster
}

fn start(bootstrap: &str, instance: &str) -> SettlementHandle {
    let settings = risiti_config::Settlement {
        instance: instance.into(),
        ..risiti_config::Settlement::default()
    };
    Settlement::start(SettlementSetup {
        cluster: Cluster::new(Bootstrap::Servers(vec![bootstrap.into()])),
        bootstrap: bootstrap.into(),
        policy: configured_policy(&settings, None),
        settings,
        sealing: Sealing::default(),
        metrics: Arc::new(SettlementMetrics::default()),
        options: Options::default(),
    })
    .unwrap()
}

fn payment(sequence: u64, amount_minor: u64) -> Vec<u8> {
    let record = Record {
        sequence,
        resend: false,
        body: RecordBody::Payment(Payment {
            time_s: 0,
            account: Account::new("0012345").unwrap(),
            amount_minor,
            currency: Currency::new(404).unwrap(),
            reference: None,
        }),
    };
    let mut buffer = [0; RECORD_BYTES_MAX];
    record.encode(&mut buffer).unwrap().to_vec()
}

fn publish(bootstrap: &str, records: &[(String, Vec<u8>)]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    for (terminal, value) in records {
        let record = BaseRecord::to("risiti.records")
            .key(terminal)
            .payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// Receipts by terminal and number, as they came.
fn receipts(bootstrap: &str, count: usize) -> BTreeMap<(String, u64), Vec<Vec<u8>>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "test")
        .set("fetch.wait.max.ms", "20")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::from(PARTITIONS) {
        list.add_partition_offset("risiti.receipts", partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let until = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < count {
        assert!(Instant::now() < until, "{seen} of {count}");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message.unwrap();
        let terminal = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
        let bytes = message.payload().unwrap().to_vec();
        let sequence = Receipt::decode(&bytes).unwrap().sequence;
        found.entry((terminal, sequence)).or_default().push(bytes);
        seen += 1;
    }
    found
}

#[test]
fn every_record_gets_its_receipt_and_a_resend_the_same_one() {
    let cluster = cluster();
    let handle = start(cluster.bootstrap(), "a");
    let mut records = Vec::new();
    for sequence in 1..=20 {
        for terminal in 0..10 {
            records.push((format!("t-{terminal}"), payment(sequence, 100 + sequence)));
        }
    }
    publish(cluster.bootstrap(), &records);
    let first = receipts(cluster.bootstrap(), 200);
    assert_eq!(first.len(), 200);
    for bytes in first.values() {
        assert_eq!(bytes.len(), 1);
        assert_eq!(Receipt::decode(&bytes[0]).unwrap().status, Status::Accepted);
    }
    // Another instance takes over: it knows what was settled only from the
    // changelog.
    assert!(handle.stop(PATIENCE));
    let handle = start(cluster.bootstrap(), "a");
    let mut resent = payment(7, 107);
    mark_resend(&mut resent).unwrap();
    publish(cluster.bootstrap(), &[("t-3".into(), resent)]);
    let second = receipts(cluster.bootstrap(), 201);
    let both = &second[&("t-3".to_owned(), 7)];
    assert_eq!(both.len(), 2);
    assert_eq!(both[0], both[1]);
    let counted = handle.wait_until(PATIENCE, |h| h.metrics().repeated.load(Relaxed) == 1);
    assert!(counted, "{:?}", handle.metrics());
    assert_eq!(handle.state(), State::Settling);
    assert!(handle.stop(PATIENCE));
}
