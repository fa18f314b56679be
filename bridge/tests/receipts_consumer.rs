//! The consumer on librdkafka's mock cluster: what it takes, what it leaves, and
//! how it goes on. What rests on transactions is shown on a real Kafka.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

mod receipts_house;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use receipts_house::{Desk, House, PATIENCE, payload, until};
use risiti_bridge::receipts::{Delivered, NextOffset, Poll, ReceiptsState};
use risiti_bridge::{ConsumerSetup, EmbeddedCluster, ReceiptsConsumer, ReceiptsHandle};
use risiti_config::{Bootstrap, Cluster};

const TOPIC: &str = "risiti.receipts";
const DELIVERIES: &str = "risiti.deliveries";

struct Kafka {
    cluster: EmbeddedCluster,
    producer: BaseProducer,
}

impl Kafka {
    fn new(partitions: u16) -> Self {
        let kafka = Self::empty();
        kafka.cluster.create_topic(TOPIC, partitions).unwrap();
        kafka.cluster.create_topic(DELIVERIES, partitions).unwrap();
        kafka
    }

    fn empty() -> Self {
        let cluster = EmbeddedCluster::start().unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap())
            .create()
            .unwrap();
        Self { cluster, producer }
    }

    fn send(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: &[u8],
        headers: &[(&str, &str)],
    ) {
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            all = all.insert(Header {
                key,
                value: Some(*value),
            });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(partition)
            .payload(value)
            .headers(all);
        if let Some(key) = key {
            record = record.key(key);
        }
        self.producer.send(record).map_err(|(e, _)| e).unwrap();
    }

    fn receipt(&self, terminal: &str, sequence: u64) {
        self.send(TOPIC, 0, Some(terminal.as_bytes()), &payload(sequence), &[]);
    }

    fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }

    fn start(&self, house: &House) -> ReceiptsHandle {
        let servers = vec![self.cluster.bootstrap().to_owned()];
        let mut cluster = Cluster::new(Bootstrap::Servers(servers));
        cluster.create_topics = false;
        ReceiptsConsumer::start(ConsumerSetup {
            cluster,
            cluster_name: "default".into(),
            gateway_id: "gw-1".into(),
            journal_id: "0123456789abcdef".into(),
            embedded: None,
            topic: TOPIC.into(),
            deliveries_topic: DELIVERIES.into(),
            outbox: Arc::clone(&house.outbox),
            dead: Arc::clone(&house.dead),
        })
        .unwrap()
    }
}

fn sequences(house: &House, terminal: &str) -> Vec<u64> {
    let page = house.outbox.page(terminal, 0, 100_000).unwrap();
    page.iter().map(|receipt| receipt.sequence).collect()
}

fn stored(house: &House) -> u64 {
    house.count(|m| &m.stored)
}

#[test]
fn receipts_reach_their_terminals_and_a_restart_goes_on_behind_them() {
    let kafka = Kafka::new(3);
    let desk = Desk::new();
    let house = desk.open();
    for partition in 0..3 {
        let terminal = format!("t{partition}");
        for sequence in 1..=2 {
            let key = Some(terminal.as_bytes());
            kafka.send(TOPIC, partition, key, &payload(sequence), &[]);
        }
    }
    kafka.flush();
    let consumer = kafka.start(&house);
    until("all are stored", || stored(&house) == 6);
    assert!(consumer.stop(PATIENCE));
    drop(house);
    let house = desk.open();
    let consumer = kafka.start(&house);
    kafka.receipt("t0", 3);
    kafka.flush();
    until("the new one is stored", || stored(&house) == 1);
    assert_eq!(sequences(&house, "t0"), [1, 2, 3]);
    assert_eq!(sequences(&house, "t2"), [1, 2]);
    assert_eq!(consumer.status().state, ReceiptsState::Reading);
    assert_eq!(consumer.status().alarms, [""; 0]);
    assert!(consumer.stop(PATIENCE));
    assert_eq!(consumer.status().state, ReceiptsState::Stopped);
}

#[test]
fn what_is_no_receipt_becomes_a_dead_letter_and_the_rest_goes_on() {
    let kafka = Kafka::new(1);
    let desk = Desk::new();
    let house = desk.open();
    kafka.receipt("t1", 1);
    kafka.send(TOPIC, 0, None, &payload(2), &[]);
    kafka.send(TOPIC, 0, Some(b"a/b"), &payload(3), &[]);
    kafka.send(TOPIC, 0, Some(b"t1"), b"no receipt", &[]);
    kafka.receipt("t1", 4);
    kafka.flush();
    let consumer = kafka.start(&house);
    until("all are read", || {
        house.outbox.offset("default", TOPIC, 0).unwrap() == Some(5)
    });
    until("the receipts are stored", || stored(&house) == 2);
    assert_eq!(sequences(&house, "t1"), [1, 4]);
    let letters = house.dead.list(None, 10).unwrap();
    let ids: Vec<_> = letters.iter().map(risiti_bridge::DeadLetter::id).collect();
    assert_eq!(ids, ["r0000000-1", "r0000000-2", "r0000000-3"]);
    assert!(letters[0].reason.text.contains("no key"));
    assert!(letters[2].reason.text.contains("partition 0, offset 3"));
    until("they are counted", || house.count(|m| &m.dead) == 3);
    // Trying again says why not, and that letter stays.
    for letter in &letters {
        let error = house.outbox.requeue(letter).unwrap_err();
        assert!(error.to_string().contains(&letter.id()), "{error}");
    }
    drop(consumer);
}

#[test]
fn a_dead_letter_that_is_a_receipt_after_all_can_be_requeued() {
    let desk = Desk::new();
    let house = desk.open();
    let kafka = Kafka::new(1);
    kafka.send(TOPIC, 0, Some(b"t1"), b"no receipt", &[]);
    kafka.flush();
    let consumer = kafka.start(&house);
    until("it is dead", || house.dead.count() == 1);
    consumer.stop(PATIENCE);
    // As an upgrade would: what it holds can be read now.
    let mut letter = house.dead.list(None, 1).unwrap().remove(0);
    letter.record.record.payload = payload(9).into();
    assert!(letter.is_receipt());
    house.outbox.requeue(&letter).unwrap();
    assert_eq!(sequences(&house, "t1"), [9]);
}

#[test]
fn a_topic_that_is_not_there_yet_is_waited_for_calmly() {
    let kafka = Kafka::empty();
    let desk = Desk::new();
    let house = desk.open();
    let consumer = kafka.start(&house);
    until("it says so", || {
        consumer.status().state == ReceiptsState::WaitingForTopic
    });
    let status = consumer.status();
    assert!(
        status.notes.iter().any(|note| note.contains("create it")),
        "{status:?}"
    );
    assert_eq!(status.alarms, [""; 0]);
    kafka.cluster.create_topic(TOPIC, 1).unwrap();
    kafka.receipt("t1", 1);
    kafka.flush();
    until("it is stored", || stored(&house) == 1);
    assert!(consumer.stop(PATIENCE));
}

#[test]
fn an_offset_behind_the_end_means_a_new_topic_which_is_read_from_its_beginning() {
    let kafka = Kafka::new(1);
    let desk = Desk::new();
    let house = desk.open();
    house.submit(&Poll {
        offsets: vec![NextOffset {
            topic: TOPIC.into(),
            partition: 0,
            next: 1_000,
        }],
        ..Poll::default()
    });
    kafka.receipt("t1", 1);
    kafka.flush();
    let consumer = kafka.start(&house);
    until("it is stored", || stored(&house) == 1);
    until("it is told", || !consumer.status().alarms.is_empty());
    let alarms = consumer.status().alarms;
    assert!(alarms[0].contains("made anew"), "{alarms:?}");
    until("the place is saved", || {
        house.outbox.offset("default", TOPIC, 0).unwrap() == Some(1)
    });
    assert!(consumer.stop(PATIENCE));
}

#[test]
fn what_kafka_deleted_before_it_was_read_is_told_and_the_rest_is_read() {
    let kafka = Kafka::new(1);
    let desk = Desk::new();
    let house = desk.open();
    house.submit(&Poll {
        offsets: vec![NextOffset {
            topic: TOPIC.into(),
            partition: 0,
            next: 3,
        }],
        ..Poll::default()
    });
    // The mock keeps 5 MiB a partition and forgets the oldest.
    let large = vec![0; 500_000];
    for _ in 0..30 {
        kafka.send(TOPIC, 0, None, &large, &[]);
        kafka.flush();
    }
    kafka.receipt("t1", 7);
    kafka.flush();
    let consumer = kafka.start(&house);
    until("it is stored", || stored(&house) == 1);
    let alarms = consumer.status().alarms;
    assert!(alarms[0].contains("offsets"), "{alarms:?}");
    assert!(house.count(|m| &m.gone) > 5);
    assert_eq!(sequences(&house, "t1"), [7]);
    assert!(consumer.stop(PATIENCE));
}

#[test]
fn an_expiry_in_the_headers_counts_from_the_settlement() {
    let kafka = Kafka::new(1);
    let desk = Desk::new();
    let house = desk.open();
    let key = Some(&b"t1"[..]);
    kafka.send(TOPIC, 0, key, &payload(1), &[("expiry_s", "4000000000")]);
    // The house's clock stands in 2023, so this one has not expired either.
    kafka.send(TOPIC, 0, key, &payload(2), &[]);
    kafka.flush();
    let consumer = kafka.start(&house);
    until("both are stored", || stored(&house) == 2);
    let page = house.outbox.page("t1", 0, 10).unwrap();
    assert!(page[0].expires_ms.unwrap() > 4_000_000_000_000 + house.now_ms());
    assert_eq!(page[1].expires_ms, None);
    drop(consumer);
}

#[test]
fn weeks_without_kafka_cost_nothing_and_it_wakes_when_it_is_back() {
    let kafka = Kafka::new(1);
    let desk = Desk::new();
    let house = desk.open();
    kafka.receipt("t1", 1);
    kafka.flush();
    let consumer = kafka.start(&house);
    until("it is stored", || stored(&house) == 1);
    let connected = || house.outbox.metrics().connected.load(Ordering::Relaxed);
    kafka.cluster.set_up(false);
    until("it knows", || !connected());
    kafka.cluster.set_up(true);
    kafka.receipt("t1", 2);
    kafka.flush();
    until("the next is stored", || stored(&house) == 2);
    until("it says so", connected);
    assert_eq!(consumer.status().alarms, [""; 0]);
    // And one that starts while it is away waits as calmly.
    assert!(consumer.stop(PATIENCE));
    kafka.cluster.set_up(false);
    let consumer = kafka.start(&house);
    until("it says so", || consumer.status().last_error.is_some());
    assert!(consumer.stop(Duration::from_secs(10)));
}

#[test]
fn what_another_gateway_delivered_is_dropped_and_our_own_events_are_not_heeded() {
    let kafka = Kafka::new(1);
    let desk = Desk::new();
    let house = desk.open();
    for sequence in 1..=3 {
        kafka.receipt("t1", sequence);
    }
    // Before the receipts were read: they are found all the same.
    for (sequence, gateway, journal) in [
        (1, "gw-1", "0123456789abcdef"),
        (2, "gw-2", "fedcba9876543210"),
    ] {
        let event = Delivered {
            terminal: "t1".into(),
            sequence,
            number: 5,
            status: 0,
            gateway: gateway.into(),
            stored_ms: 1,
            acknowledged_ms: 2,
        };
        let event = serde_json::to_vec(&event).unwrap();
        kafka.send(
            DELIVERIES,
            0,
            Some(b"t1"),
            &event,
            &[("risiti-journal", journal)],
        );
    }
    kafka.send(DELIVERIES, 0, None, b"no event", &[]);
    kafka.flush();
    let consumer = kafka.start(&house);
    until("the events are read", || {
        house.outbox.offset("default", DELIVERIES, 0).unwrap() == Some(3)
    });
    assert_eq!(sequences(&house, "t1"), [1, 3]);
    until("it is counted", || {
        house.count(|m| &m.delivered_elsewhere) == 1
    });
    assert!(house.events().is_empty());
    assert!(consumer.status().caught_up);
    drop(consumer);
}

#[test]
fn ten_thousand_at_once_are_stored_in_atomic_commits() {
    let kafka = Kafka::new(3);
    let desk = Desk::new();
    let house = desk.open();
    for n in 0..10_000_u64 {
        let terminal = format!("t{}", n % 3_000);
        let partition = i32::try_from(n % 3).unwrap();
        kafka.send(
            TOPIC,
            partition,
            Some(terminal.as_bytes()),
            &payload(n),
            &[],
        );
    }
    kafka.flush();
    let commits = house.state.health().committed_batches;
    let consumer = kafka.start(&house);
    until("all are stored", || stored(&house) == 10_000);
    // A commit takes 512 keys at most, two a receipt.
    assert!(house.state.health().committed_batches - commits >= 20_000 / 512);
    assert_eq!(house.outbox.waiting(), 10_000);
    drop(consumer);
}

#[test]
fn g8_without_room_for_more_it_pauses_and_goes_on_by_itself_and_loses_none() {
    let kafka = Kafka::new(1);
    let mut desk = Desk::new();
    desk.receipts_max = 300;
    let house = desk.open();
    for sequence in 1..=5_000 {
        kafka.receipt("t1", sequence);
    }
    kafka.flush();
    let consumer = kafka.start(&house);
    until("it pauses", || {
        consumer.status().state == ReceiptsState::Paused
    });
    let alarms = consumer.status().alarms;
    assert!(alarms[0].contains("store.budget_bytes"), "{alarms:?}");
    // What one poll and those under way hold beyond the bound.
    let (waiting, more) = (house.outbox.waiting(), 10 * 256);
    assert!((300..300 + more).contains(&waiting), "{waiting}");
    let mut taken = Vec::new();
    until("all were taken", || {
        let after = taken.len() as u64;
        for receipt in house.outbox.page("t1", after, 1_000).unwrap() {
            house.outbox.acknowledged("t1", receipt.number, false);
            taken.push(receipt.sequence);
        }
        taken.len() == 5_000
    });
    assert!(taken.into_iter().eq(1..=5_000));
    until("nothing waits", || house.outbox.waiting() == 0);
    until("it is well again", || consumer.status().alarms.is_empty());
    until("it reads on", || {
        consumer.status().state == ReceiptsState::Reading
    });
}

#[test]
fn it_can_be_stopped_at_any_moment_and_takes_nothing_twice() {
    let kafka = Kafka::new(3);
    let desk = Desk::new();
    let house = desk.open();
    let mut chance = fastrand::Rng::with_seed(11);
    let mut sent = 0;
    for _ in 0..40 {
        for _ in 0..20 {
            let partition = i32::try_from(sent % 3).unwrap();
            let terminal = format!("t{partition}");
            sent += 1;
            let key = Some(terminal.as_bytes());
            kafka.send(TOPIC, partition, key, &payload(sent), &[]);
        }
        let consumer = kafka.start(&house);
        std::thread::sleep(Duration::from_millis(chance.u64(0..120)));
        assert!(consumer.stop(PATIENCE));
    }
    kafka.flush();
    let _consumer = kafka.start(&house);
    until("all are stored", || stored(&house) == sent);
    let mut all: Vec<u64> = (0..3)
        .flat_map(|n| sequences(&house, &format!("t{n}")))
        .collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(1..=sent));
}
