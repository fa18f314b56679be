//! The forwarder against librdkafka's mock cluster: faults that a real broker
//! can't be asked for. Exactly-once is not shown here; the mock has no
//! transactions.

// Helpers of tests count as tests.
#![allow(clippy::unwrap_used)]

mod house;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use house::{House, await_status, await_that, record};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use risiti_bridge::memory_source::MemorySource;
use risiti_bridge::{EmbeddedCluster, Forwarder, ForwarderMetrics, State};
use risiti_config::{Key, Mode, Route, Terminals};
use risiti_store::RecordSource;

const TOPIC: &str = "risiti.records";

/// Keys and `ce_id` of a topic, partition by partition, as any consumer sees it.
fn read(bootstrap: &str, topic: &str) -> Vec<(String, String)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "test")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let timeout = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(topic), timeout).unwrap();
    let mut all = Vec::new();
    for partition in metadata.topics()[0].partitions() {
        let id = partition.id();
        let (low, high) = consumer.fetch_watermarks(topic, id, timeout).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, id, Offset::Offset(low))
            .unwrap();
        consumer.assign(&list).unwrap();
        let mut next = low;
        while next < high {
            let Some(message) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let message = message.unwrap();
            next = message.offset() + 1;
            let headers = message.headers().unwrap();
            let identity = headers
                .iter()
                .find(|header| header.key == "ce_id")
                .and_then(|header| header.value)
                .unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            all.push((text(message.key().unwrap()), text(identity)));
        }
    }
    all
}

/// What a consumer sees that removes duplicates by `ce_id`: a batch that was
/// aborted stands in the mock all the same.
fn without_repeats(records: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut seen = std::collections::HashSet::new();
    records
        .into_iter()
        .filter(|(_, identity)| seen.insert(identity.clone()))
        .collect()
}

/// Each terminal's records once, in their order.
fn assert_once_in_order(records: &[(String, String)], terminals: u64, count: u64) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, identity) in records {
        let (terminal, sequence) = identity.split_once('/').unwrap();
        assert_eq!(key, terminal);
        let sequence: u64 = sequence.parse().unwrap();
        let expected = last.get(terminal).map_or(1, |last| last + 1);
        assert_eq!(sequence, expected, "terminal {terminal}");
        last.insert(terminal, sequence);
    }
    assert_eq!(last.len() as u64, terminals);
    assert!(last.values().all(|last| *last == count));
}

#[test]
fn records_reach_the_embedded_cluster_in_order() {
    let cluster = Arc::new(EmbeddedCluster::start().unwrap());
    let house = House::embedded(&cluster);
    let forwarder = house.start();
    house.append(7, 1, 300);
    house.await_drained();
    assert_once_in_order(&read(cluster.bootstrap(), TOPIC), 7, 300);
    assert!(forwarder.stop(Duration::from_secs(10)));
}

#[test]
fn a_restart_goes_on_where_kafka_says() {
    let cluster = Arc::new(EmbeddedCluster::start().unwrap());
    let house = House::embedded(&cluster);
    house.append(3, 1, 100);
    let forwarder = house.start();
    house.await_drained();
    assert!(forwarder.stop(Duration::from_secs(10)));
    house.append(3, 101, 100);
    let forwarder = house.start();
    house.await_drained();
    assert_once_in_order(&read(cluster.bootstrap(), TOPIC), 3, 200);
    assert!(forwarder.stop(Duration::from_secs(10)));
}

#[test]
fn the_idempotent_mode_delivers_in_order_and_saves_its_position() {
    let cluster = Arc::new(EmbeddedCluster::start().unwrap());
    let mut house = House::embedded(&cluster);
    house.setup.cluster.mode = Mode::Idempotent;
    house.append(3, 1, 500);
    let forwarder = house.start();
    house.await_drained();
    assert!(forwarder.stop(Duration::from_secs(10)));
    house.append(3, 501, 10);
    let forwarder = house.start();
    house.await_drained();
    assert_once_in_order(&read(cluster.bootstrap(), TOPIC), 3, 510);
    assert!(forwarder.stop(Duration::from_secs(10)));
}

#[test]
fn a_cut_link_is_waited_for_and_noticed_when_it_is_back() {
    for mode in [Mode::ExactlyOnce, Mode::Idempotent] {
        let cluster = Arc::new(EmbeddedCluster::start().unwrap());
        let mut house = House::embedded(&cluster);
        house.setup.cluster.mode = mode;
        house.append(2, 1, 10);
        let forwarder = house.start();
        house.await_drained();
        cluster.set_up(false);
        house.append(2, 11, 500);
        await_status(&forwarder, "connecting", |status| {
            status.state != State::CaughtUp
        });
        cluster.set_up(true);
        house.await_drained();
        let records = read(cluster.bootstrap(), TOPIC);
        assert_once_in_order(&without_repeats(records), 2, 510);
        assert!(forwarder.stop(Duration::from_secs(10)));
    }
}

#[test]
fn without_any_kafka_it_starts_waits_and_stops() {
    let house = House::at("127.0.0.1:1");
    house.append(1, 1, 10);
    let forwarder = house.start();
    await_status(&forwarder, "an error in words", |status| {
        status.last_error.is_some()
    });
    assert_eq!(forwarder.status().state, State::Connecting);
    assert_eq!(house.source.released("default"), 0);
    assert!(forwarder.stop(Duration::from_secs(1)));
}

#[test]
fn a_record_too_large_for_kafka_becomes_a_dead_letter_and_the_rest_goes_on() {
    for mode in [Mode::ExactlyOnce, Mode::Idempotent] {
        let cluster = Arc::new(EmbeddedCluster::start().unwrap());
        let mut house = House::embedded(&cluster);
        house.setup.cluster.mode = mode;
        let properties = &mut house.setup.cluster.properties;
        properties.insert("message.max.bytes".into(), "10000".into());
        properties.insert("batch.size".into(), "10000".into());
        house.append(2, 1, 50);
        house.source.append(record(9, 1, &[0; 20_000]));
        house.append(2, 51, 50);
        let forwarder = house.start();
        house.await_drained();
        let records = read(cluster.bootstrap(), TOPIC);
        assert_once_in_order(&without_repeats(records), 2, 100);
        let letters = house.dead.list(None, 10).unwrap();
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert_eq!(letters[0].record.position, 101);
        assert_eq!(letters[0].record.record, record(9, 1, &[0; 20_000]));
        assert_eq!(letters[0].reason.topic, TOPIC);
        assert!(letters[0].reason.text.contains("MessageSizeTooLarge"));
        assert!(forwarder.stop(Duration::from_secs(10)));
    }
}

#[test]
fn what_no_route_matches_becomes_a_dead_letter_of_the_default_cluster() {
    let cluster = Arc::new(EmbeddedCluster::start().unwrap());
    let house = House::embedded(&cluster);
    let mut stray = record(1, 1, b"x");
    stray.topic = "elsewhere".into();
    house.source.append(stray);
    house.append(1, 1, 5);
    let forwarder = house.start();
    house.await_drained();
    let letters = house.dead.list(None, 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.text.contains("no route"));
    assert_once_in_order(&read(cluster.bootstrap(), TOPIC), 1, 5);
    assert!(forwarder.stop(Duration::from_secs(10)));
}

#[test]
fn a_second_cluster_takes_its_routes_and_passes_the_others_over() {
    let cluster = Arc::new(EmbeddedCluster::start().unwrap());
    let mut house = House::embedded(&cluster);
    let terminals = Terminals::default();
    let other = Route {
        name: "other".into(),
        filter: "raw/#".into(),
        cluster: "other".into(),
        topic: "raw".into(),
        key: Key::Topic,
        format: risiti_config::Format::Raw,
    };
    let routes = [other, Route::records(&terminals)];
    let routes = risiti_bridge::Routes::new(&routes, &terminals);
    house.setup.routes.replace(routes, 0);
    house.setup.name = "other".into();
    house.append(1, 1, 20);
    let mut raw = record(1, 1, b"x");
    raw.topic = "raw/1".into();
    house.source.append(raw);
    let forwarder = house.start();
    house.await_drained();
    let raw = read(cluster.bootstrap(), "raw");
    assert_eq!(raw, [("raw/1".into(), "client-1/3f9a0c11-21".into())]);
    assert_eq!(house.count(|metrics| &metrics.skipped), 20);
    assert_eq!(house.dead.count(), 0);
    assert!(forwarder.stop(Duration::from_secs(10)));
}

fn raw_route(cluster: &str, filter: &str) -> Route {
    Route {
        name: format!("{cluster}-{}", filter.trim_end_matches("/#")),
        filter: filter.into(),
        cluster: cluster.into(),
        topic: "raw".into(),
        key: Key::Topic,
        format: risiti_config::Format::Raw,
    }
}

fn table(routes: &[Route]) -> Arc<risiti_bridge::SharedRoutes> {
    let routes = risiti_bridge::Routes::new(routes, &Terminals::default());
    Arc::new(risiti_bridge::SharedRoutes::new(routes))
}

fn raw(house: &House, topic: &str) {
    let mut record = record(1, 1, b"x");
    record.topic = topic.to_owned().into();
    house.source.append(record);
}

/// Ten records wait for the default cluster, and the other one is past them, when
/// a restart moves their route to the other one. Gives how many records each
/// cluster has in the end. `forget` loses the tables that were kept.
fn move_a_route_by_a_restart(forget: bool) -> [u64; 2] {
    let clusters = [
        Arc::new(EmbeddedCluster::start().unwrap()),
        Arc::new(EmbeddedCluster::start().unwrap()),
    ];
    let mut house = House::embedded(&clusters[0]);
    house.setup.routes = table(&[raw_route("default", "a/#"), raw_route("other", "b/#")]);
    let mut other = house.setup.clone();
    other.name = "other".into();
    other.embedded = Some(Arc::clone(&clusters[1]));
    other.metrics = Arc::default();
    let forwarder = Forwarder::start(other.clone()).unwrap();
    for _ in 0..10 {
        raw(&house, "a/1");
    }
    raw(&house, "b/1");
    await_that("passed", || house.source.released("other") == 12);
    assert!(forwarder.stop(Duration::from_secs(10)));

    if forget {
        let unused = House::embedded(&clusters[0]);
        house.setup.dead = Arc::clone(&unused.dead);
        other.dead = Arc::clone(&unused.dead);
    }
    house.setup.routes = table(&[raw_route("other", "a/#"), raw_route("other", "b/#")]);
    other.routes = Arc::clone(&house.setup.routes);
    let forwarders = [house.start(), Forwarder::start(other.clone()).unwrap()];
    raw(&house, "a/1");
    house.await_drained();
    await_that("both", || house.source.released("other") == 13);
    assert_eq!(house.setup.dead.count(), 0);
    for forwarder in forwarders {
        assert!(forwarder.stop(Duration::from_secs(10)));
    }
    let forwarded = |metrics: &ForwarderMetrics| metrics.forwarded.load(Ordering::Relaxed);
    [forwarded(&house.setup.metrics), forwarded(&other.metrics)]
}

#[test]
fn a_route_moved_to_another_cluster_by_a_restart_loses_nothing_that_waits() {
    assert_eq!(move_a_route_by_a_restart(false), [10, 2]);
}

/// Negative control of the one above.
#[test]
fn without_the_tables_kept_a_route_moved_by_a_restart_loses_what_waits() {
    assert_eq!(move_a_route_by_a_restart(true), [0, 2]);
}

#[test]
fn what_waits_for_a_cluster_that_a_restart_took_away_is_kept_as_dead_letters() {
    let cluster = Arc::new(EmbeddedCluster::start().unwrap());
    let mut house = House::embedded(&cluster);
    house.setup.routes = table(&[raw_route("other", "b/#"), raw_route("default", "a/#")]);
    let forwarder = house.start();
    raw(&house, "a/1");
    house.await_drained();
    assert!(forwarder.stop(Duration::from_secs(10)));
    raw(&house, "b/1");
    house.setup.routes = table(&[raw_route("default", "b/#"), raw_route("default", "a/#")]);
    let forwarder = house.start();
    house.await_drained();
    let letters = house.dead.list(None, 10).unwrap();
    assert_eq!(letters.len(), 1);
    assert!(
        letters[0].reason.text.contains("cluster other"),
        "{letters:?}"
    );
    assert!(forwarder.stop(Duration::from_secs(10)));
}

#[test]
fn full_dead_letters_make_it_wait_and_room_lets_it_go_on() {
    let cluster = Arc::new(EmbeddedCluster::start().unwrap());
    let mut house = House::embedded(&cluster);
    let dir = tempfile::tempdir().unwrap();
    let mut options = risiti_store::StoreOptions::new(dir.path());
    options.ballast_bytes = 0;
    options.free_bytes_min = 0;
    let (state, _) = risiti_store::State::open(&options).unwrap();
    let dead = risiti_bridge::DeadLetters::with_bounds(state, 1, 1 << 20).unwrap();
    house.setup.dead = Arc::new(dead);
    for sequence in 1..=2 {
        let mut stray = record(1, sequence, b"x");
        stray.topic = "elsewhere".into();
        house.source.append(stray);
        house.append(1, sequence, 1);
    }
    house.setup.cluster.batch_records_max = 1;
    let forwarder = house.start();
    await_status(&forwarder, "full", |status| {
        status.state == State::DeadLettersFull
    });
    let alarm = forwarder.status().alarm.unwrap();
    assert!(alarm.contains("dead letters are full"), "{alarm}");
    let first = house.setup.dead.list(None, 10).unwrap().remove(0);
    house.setup.dead.delete(&first.id()).unwrap();
    house.await_drained();
    assert_once_in_order(&read(cluster.bootstrap(), TOPIC), 1, 2);
    assert_eq!(house.setup.dead.count(), 1);
    assert!(forwarder.stop(Duration::from_secs(10)));
}

#[test]
fn memory_is_released_as_records_are_forwarded() {
    let cluster = Arc::new(EmbeddedCluster::start().unwrap());
    let mut house = House::embedded(&cluster);
    let source = Arc::new(MemorySource::deleting("ab"));
    house.setup.source = source.clone();
    for sequence in 1..=1000 {
        source.append(record(1, sequence, b"x"));
    }
    let forwarder = house.start();
    await_that("all released", || source.oldest() == 1001);
    assert!(forwarder.stop(Duration::from_secs(10)));
}

#[test]
fn a_lone_record_does_not_wait_for_others() {
    let cluster = Arc::new(EmbeddedCluster::start().unwrap());
    let house = House::embedded(&cluster);
    let forwarder = house.start();
    house.append(1, 1, 1);
    house.await_drained();
    let begun = Instant::now();
    for sequence in 2..=20 {
        house.append(1, sequence, 1);
        house.await_drained();
    }
    println!("one record at a time: {:?} each", begun.elapsed() / 19);
    assert!(forwarder.stop(Duration::from_secs(10)));
}
