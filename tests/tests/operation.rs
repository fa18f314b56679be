//! What an operator does to a gateway, and what happens to it, under load and
//! against a real Kafka: nothing of it costs a record, a duplicate or an order.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::time::Duration;

use risiti_tests::fleet::{ClientSpec, Fleet};
use risiti_tests::gateway_process::{GatewayProcess, KillAt, ProcessSwitches};
use risiti_tests::ledger::{self, assert_exactly_once};
use risiti_tests::real_kafka::RealKafka;
use risiti_tests::turn::turn;
use risiti_tests::upward::{self, RAW, RECORDS, Upward};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(180);

fn gateway(config: &str, dir: &tempfile::TempDir) -> GatewayProcess {
    GatewayProcess::start(config, dir.path(), ProcessSwitches::default(), None).unwrap()
}

#[test]
fn a_graceful_stop_under_load_leaves_nothing_open_and_nothing_behind() {
    const RECORDS_ALL: u64 = 40_000;
    let _turn = turn();
    // A transaction that stays open would stay so for the rest of the test.
    let kafka = RealKafka::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", &kafka.bootstrap).replace(
        "partitions = 3",
        "partitions = 3\ntransaction_timeout_ms = 600000",
    );
    let mut gateway = gateway(&config, &dir);
    let specs = ClientSpec::mixed("c", 20, RECORDS_ALL / 20);
    let mut fleet = Fleet::start(gateway.mqtt_addr(), specs, 1).unwrap();
    for stop in 1..=3 {
        assert!(fleet.wait_acknowledged(stop * RECORDS_ALL / 5, LONG));
        assert!(gateway.terminate().unwrap().success());
        for topic in [RECORDS, RAW] {
            assert!(upward::transactions_end(&kafka.bootstrap, topic, LONG).unwrap());
        }
        let found = upward::found(&kafka.bootstrap, &[RECORDS, RAW]).unwrap();
        let so_far = ledger::verdict(&fleet.accounts(), &found);
        assert_eq!((so_far.duplicated, so_far.out_of_order), (0, 0));
        gateway.restart().unwrap();
    }
    assert!(fleet.wait_done(LONG), "{:?}", fleet.counts());
    let upward = Upward {
        gateway,
        kafka,
        dir,
    };
    assert_exactly_once(&upward.verdict(&fleet).unwrap(), RECORDS_ALL);
}

/// That a stop leaves no transaction open is worth saying: a kill does.
#[test]
fn control_a_kill_leaves_a_transaction_open() {
    let _turn = turn();
    let switches = ProcessSwitches {
        kill_at: Some(KillAt::AfterSend(1)),
        ..ProcessSwitches::default()
    };
    let mut upward = Upward::start(switches).unwrap();
    let specs = ClientSpec::mixed("c", 1, 10);
    let mut fleet = Fleet::start(upward.gateway.mqtt_addr(), specs, 1).unwrap();
    upward.gateway.wait_exit(LONG).unwrap();
    assert!(upward::transaction_is_open(&upward.kafka.bootstrap, RECORDS).unwrap());
    upward.gateway.set_switches(ProcessSwitches::default());
    upward.gateway.restart().unwrap();
    assert!(fleet.wait_done(LONG));
    assert_exactly_once(&upward.verdict(&fleet).unwrap(), 10);
    assert!(upward::transactions_end(&upward.kafka.bootstrap, RECORDS, LONG).unwrap());
}

#[test]
fn a_graceful_stop_needs_no_kafka() {
    const RECORDS_ALL: u64 = 40_000;
    let _turn = turn();
    let mut upward = Upward::start(ProcessSwitches::default()).unwrap();
    let specs = ClientSpec::mixed("c", 20, RECORDS_ALL / 20);
    let mut fleet = Fleet::start(upward.gateway.mqtt_addr(), specs, 1).unwrap();
    assert!(fleet.wait_acknowledged(RECORDS_ALL / 4, LONG));
    // In the middle of a transaction, most likely.
    upward.kafka.kill();
    assert!(fleet.wait_acknowledged(RECORDS_ALL / 2, LONG));
    assert!(upward.gateway.terminate().unwrap().success());
    upward.gateway.restart().unwrap();
    assert!(fleet.wait_done(LONG), "{:?}", fleet.counts());
    assert!(upward.gateway.terminate().unwrap().success());
    upward.gateway.restart().unwrap();
    upward.kafka.start_again().unwrap();
    assert_exactly_once(&upward.verdict(&fleet).unwrap(), RECORDS_ALL);
}

#[test]
fn routes_change_under_load_between_two_records_of_a_client() {
    const RECORDS_ALL: u64 = 30_000;
    const NEW_RAW: &str = "plant.raw.new";
    let _turn = turn();
    let upward = Upward::start(ProcessSwitches::default()).unwrap();
    let specs = ClientSpec::mixed("c", 20, RECORDS_ALL / 20);
    let mut fleet = Fleet::start(upward.gateway.mqtt_addr(), specs, 1).unwrap();
    assert!(fleet.wait_acknowledged(RECORDS_ALL / 3, LONG));
    let config = upward::config("gw-1", &upward.kafka.bootstrap);
    upward
        .gateway
        .reload(&config.replace(RAW, NEW_RAW))
        .unwrap();
    assert!(fleet.wait_done(LONG), "{:?}", fleet.counts());
    upward.gateway.wait_forwarded(LONG).unwrap();

    // Seen as one log, the new topic behind the old one, nothing is out of place.
    let mut found = upward::found(&upward.kafka.bootstrap, &[RECORDS, RAW]).unwrap();
    let old = found.len();
    let after = upward::found(&upward.kafka.bootstrap, &[NEW_RAW]).unwrap();
    assert!(!after.is_empty() && old > RECORDS_ALL as usize / 2);
    found.extend(after.into_iter().map(|mut one| {
        one.offset += 1 << 40;
        one
    }));
    assert_exactly_once(&ledger::verdict(&fleet.accounts(), &found), RECORDS_ALL);
}

#[test]
fn a_broken_reload_changes_nothing() {
    let _turn = turn();
    let upward = Upward::start(ProcessSwitches::default()).unwrap();
    upward.gateway.reload("[kafka]\nbootstap = 1\n").unwrap();
    while !upward.gateway.log().contains("not reloaded") {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut fleet =
        Fleet::start(upward.gateway.mqtt_addr(), ClientSpec::mixed("c", 5, 20), 1).unwrap();
    assert!(fleet.wait_done(LONG));
    assert_exactly_once(&upward.verdict(&fleet).unwrap(), 100);
}

#[test]
fn a_cluster_that_is_away_holds_up_only_its_own_routes() {
    const RECORDS_ALL: u64 = 20_000;
    let _turn = turn();
    let near = RealKafka::start().unwrap();
    let mut far = RealKafka::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", &near.bootstrap).replace(
        "key = \"client_id\"",
        "key = \"client_id\"\ncluster = \"far\"",
    ) + &format!(
        "[clusters.far]\nbootstrap = \"{}\"\npartitions = 2\n",
        far.bootstrap
    );
    let gateway = gateway(&config, &dir);
    far.stop();
    let specs = ClientSpec::mixed("c", 20, RECORDS_ALL / 20);
    let mut fleet = Fleet::start(gateway.mqtt_addr(), specs, 1).unwrap();
    assert!(fleet.wait_done(LONG), "{:?}", fleet.counts());
    let backlog = |status: &risiti_gateway::status::Status, name: &str| {
        let cluster = status.clusters.iter().find(|c| c.name == name).unwrap();
        cluster.backlog
    };
    let status = gateway
        .wait_until("the near one has all", LONG, |s| backlog(s, "default") == 0)
        .unwrap();
    assert!(backlog(&status, "far") > 0, "{status:#?}");
    far.start_again().unwrap();
    gateway.wait_forwarded(LONG).unwrap();
    let mut found = upward::found(&near.bootstrap, &[RECORDS]).unwrap();
    found.extend(upward::found(&far.bootstrap, &[RAW]).unwrap());
    assert_exactly_once(&ledger::verdict(&fleet.accounts(), &found), RECORDS_ALL);
}

#[test]
fn weeks_without_kafka_are_drained_in_order_with_bounded_memory() {
    const RECORDS_ALL: u64 = 200_000;
    const MEMORY_BYTES_MAX: u64 = 150 << 20;
    let _turn = turn();
    let mut kafka = RealKafka::start().unwrap();
    kafka.stop();
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = gateway(&upward::config("gw-1", &kafka.bootstrap), &dir);
    let specs = ClientSpec::mixed("c", 50, RECORDS_ALL / 50);
    let mut fleet = Fleet::start(gateway.mqtt_addr(), specs, 1).unwrap();
    assert!(fleet.wait_done(LONG), "{:?}", fleet.counts());
    let status = gateway.status().unwrap();
    assert_eq!(status.clusters[0].backlog, RECORDS_ALL, "{status:#?}");
    let full = gateway.resident_bytes().unwrap();
    // Weeks see restarts, too.
    gateway.restart().unwrap();
    let reopened = gateway.resident_bytes().unwrap();
    kafka.start_again().unwrap();
    let mut draining = 0;
    gateway
        .wait_until("drained", LONG, |status| {
            draining = draining.max(gateway.resident_bytes().unwrap());
            status.clusters[0].backlog == 0
        })
        .unwrap();
    println!("memory: full {full}, reopened {reopened}, draining {draining} bytes");
    assert!(full.max(reopened).max(draining) < MEMORY_BYTES_MAX);
    let upward = Upward {
        gateway,
        kafka,
        dir,
    };
    assert_exactly_once(&upward.verdict(&fleet).unwrap(), RECORDS_ALL);
}

#[test]
fn a_twin_with_the_same_id_costs_an_alarm_and_no_record() {
    // Far more than it takes until somebody notices.
    const OUTBOX: u64 = 1_000_000;
    let _turn = turn();
    let kafka = RealKafka::start().unwrap();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = upward::config("gw-1", &kafka.bootstrap);
    let [mut first, mut twin] = dirs.each_ref().map(|dir| gateway(&config, dir));
    let paced = |prefix| {
        let mut specs = ClientSpec::mixed(prefix, 10, OUTBOX);
        for spec in &mut specs {
            spec.per_second = Some(100.0);
        }
        specs
    };
    let mut fleets = [
        Fleet::start(first.mqtt_addr(), paced("a"), 1).unwrap(),
        Fleet::start(twin.mqtt_addr(), paced("b"), 2).unwrap(),
    ];
    let alarmed = |gateway: &GatewayProcess| {
        let status = gateway.status().unwrap();
        status
            .alarms
            .iter()
            .any(|alarm| alarm.contains("gateway.id"))
    };
    let until = std::time::Instant::now() + LONG;
    while !alarmed(&first) && !alarmed(&twin) {
        assert!(std::time::Instant::now() < until, "no alarm");
        std::thread::sleep(Duration::from_millis(50));
    }
    for fleet in &mut fleets {
        fleet.rest();
        assert!(fleet.wait_done(LONG), "{:?}", fleet.counts());
    }
    // A person has read the alarm: one is stopped until the other has drained.
    twin.terminate().unwrap();
    first.wait_forwarded(LONG).unwrap();
    first.terminate().unwrap();
    twin.restart().unwrap();
    twin.wait_forwarded(LONG).unwrap();
    let found = upward::found(&kafka.bootstrap, &[RECORDS, RAW]).unwrap();
    let mut accounts = fleets[0].accounts();
    accounts.extend(fleets[1].accounts());
    let published = accounts.values().map(|account| account.published).sum();
    assert_exactly_once(&ledger::verdict(&accounts, &found), published);
}

#[test]
fn a_new_journal_on_a_wiped_disk_is_forwarded_from_its_beginning() {
    const RECORDS_EACH: u64 = 5_000;
    let _turn = turn();
    let mut upward = Upward::start(ProcessSwitches::default()).unwrap();
    let send = |upward: &Upward, prefix| {
        let specs = ClientSpec::mixed(prefix, 10, RECORDS_EACH / 10);
        let mut fleet = Fleet::start(upward.gateway.mqtt_addr(), specs, 1).unwrap();
        assert!(fleet.wait_done(LONG));
        upward.gateway.wait_forwarded(LONG).unwrap();
        fleet
    };
    let before = send(&upward, "a");
    let old_journal = upward.gateway.status().unwrap().journal.id;
    upward.gateway.kill();
    std::fs::remove_dir_all(upward.gateway.data_dir()).unwrap();
    upward.gateway.restart().unwrap();
    assert_ne!(upward.gateway.status().unwrap().journal.id, old_journal);
    // Fewer than the old position counts: by it, all of these would be old.
    let after = send(&upward, "b");
    let found = upward::found(&upward.kafka.bootstrap, &[RECORDS, RAW]).unwrap();
    let mut accounts = before.accounts();
    accounts.extend(after.accounts());
    assert_exactly_once(&ledger::verdict(&accounts, &found), RECORDS_EACH * 2);
}

#[test]
fn a_journal_is_never_forwarded_under_another_gateway_id() {
    let _turn = turn();
    let mut upward = Upward::start(ProcessSwitches::default()).unwrap();
    let specs = ClientSpec::mixed("c", 5, 100);
    let mut fleet = Fleet::start(upward.gateway.mqtt_addr(), specs, 1).unwrap();
    assert!(fleet.wait_done(LONG));
    upward.gateway.wait_forwarded(LONG).unwrap();
    // Under its new name it would not find its position, and send all again.
    let config = |id| upward::config(id, &upward.kafka.bootstrap);
    upward.gateway.write_config(&config("gw-2")).unwrap();
    let refused = upward.gateway.restart().unwrap_err().to_string();
    assert!(refused.contains("belongs to gateway gw-1"), "{refused}");
    upward.gateway.write_config(&config("gw-1")).unwrap();
    upward.gateway.restart().unwrap();
    assert_exactly_once(&upward.verdict(&fleet).unwrap(), 500);
}
