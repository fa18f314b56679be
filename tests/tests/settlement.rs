//! Settlement against a real Kafka: every record is settled once and answered,
//! whatever is killed, and the negative controls show that the tests would notice.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use risiti_tests::asked::seed;
use risiti_tests::real_kafka::{Committed, RealKafka, end_of};
use risiti_tests::risiti_command::{Running, risiti};
use risiti_tests::samples;
use risiti_tests::turn::turn;
use risiti_wire::limits::{RECEIPT_BYTES_MAX, SEALED_RECORD_BYTES_MAX};
use risiti_wire::seal::{Direction, Root, open, seal};
use risiti_wire::{Account, Currency, Payment, Receipt, RecordBody, Reversal, Status, mark_resend};
use rustix::process::Signal;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(180);

const RECORDS: &str = "risiti.records";
const RECEIPTS: &str = "risiti.receipts";
const TRANSACTIONS: &str = "risiti.transactions";
const REJECTED: &str = "risiti.rejected";
const CHANGELOG: &str = "risiti.settled";

/// A Kafka with the records topic, and a directory for configurations and logs.
struct House {
    kafka: RealKafka,
    dir: tempfile::TempDir,
    producer: BaseProducer,
}

impl House {
    fn new() -> Self {
        let kafka = RealKafka::start().unwrap();
        kafka.create_topic(RECORDS, 3, &[]).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.bootstrap)
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "0")
            .create()
            .unwrap();
        Self {
            kafka,
            dir: tempfile::tempdir().unwrap(),
            producer,
        }
    }

    fn settle(&self, instance: &str, switches: &[String]) -> Instance {
        self.settle_by(instance, switches, "")
    }

    /// With more lines under `[settlement]`.
    fn settle_by(&self, instance: &str, switches: &[String], more: &str) -> Instance {
        let config = self.dir.path().join(format!("{instance}.toml"));
        let text = format!(
            "[kafka]\nbootstrap = \"{}\"\npartitions = 3\n[settlement]\ninstance = \"{instance}\"\nday_max_minor = 1000000\n{more}",
            self.kafka.bootstrap
        );
        std::fs::write(&config, text).unwrap();
        Instance::start(&config, self.dir.path(), instance, switches)
    }

    fn publish(&self, terminal: &str, value: &[u8]) {
        let record = BaseRecord::to(RECORDS).key(terminal).payload(value);
        self.producer
            .send(record)
            .map_err(|(error, _)| error)
            .unwrap();
        self.producer.poll(Duration::ZERO);
    }

    fn flush(&self) {
        self.producer.flush(LONG).unwrap();
    }

    /// Waits until the committed log of a topic has that many messages.
    fn wait(&self, topic: &str, count: usize) -> Vec<Committed> {
        let until = Instant::now() + LONG;
        loop {
            let log = self.kafka.committed(topic).unwrap_or_default();
            if log.len() >= count {
                return log;
            }
            assert!(
                Instant::now() < until,
                "{topic}: {} of {count}\n{}\n{}",
                log.len(),
                self.told(),
                self.kafka.told()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The ends of the logs of all instances.
    fn told(&self) -> String {
        let files = std::fs::read_dir(self.dir.path()).unwrap();
        let logs = files
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "log"));
        logs.map(|log| format!("{}:\n{}\n", log.display(), end_of(&log)))
            .collect()
    }
}

/// A settlement process.
struct Instance {
    process: Running,
    log: PathBuf,
}

impl Instance {
    fn start(config: &Path, dir: &Path, instance: &str, switches: &[String]) -> Self {
        let log = dir.join(format!("{instance}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child: Child = Command::new(env!("CARGO_BIN_EXE_settlement_under_test"))
            .arg("--config")
            .arg(config)
            .args(switches)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self {
            process: Running(child),
            log,
        }
    }

    fn kill(mut self) {
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
    }

    /// Waits for the end that its switches give it.
    fn wait_killed(mut self) {
        let status = self.process.wait(LONG);
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(status.is_ok_and(|status| !status.success()), "{log}");
    }

    fn stop(mut self) {
        self.process.signal(Signal::TERM).unwrap();
        let status = self.process.wait(LONG).unwrap();
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(status.success(), "{log}");
    }
}

fn payment(sequence: u64, amount_minor: u64) -> Vec<u8> {
    samples::record(
        sequence,
        RecordBody::Payment(Payment {
            time_s: 0,
            account: Account::new("0012345").unwrap(),
            amount_minor,
            currency: Currency::new(404).unwrap(),
            reference: Some("P-1"),
        }),
    )
}

fn reversal(sequence: u64, reverses: u64) -> Vec<u8> {
    let reversal = Reversal {
        time_s: 0,
        reverses,
    };
    samples::record(sequence, RecordBody::Reversal(reversal))
}

fn resend(record: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    mark_resend(&mut record).unwrap();
    record
}

/// `<terminal>/<sequence>` and what came under it, in the order of the log.
fn by_id(log: &[Committed]) -> BTreeMap<String, Vec<&Committed>> {
    let mut found: BTreeMap<String, Vec<&Committed>> = BTreeMap::new();
    for message in log {
        let id = message.header("ce_id").unwrap().to_owned();
        found.entry(id).or_default().push(message);
    }
    found
}

/// What terminals sent: for each number whether it may be accepted, and how often
/// it was sent.
#[derive(Default)]
struct Sent {
    numbers: BTreeMap<String, u32>,
}

impl Sent {
    fn note(&mut self, terminal: &str, sequence: u64) {
        *self
            .numbers
            .entry(format!("{terminal}/{sequence}"))
            .or_default() += 1;
    }

    /// Messages in all.
    fn messages(&self) -> usize {
        self.numbers.values().map(|times| *times as usize).sum()
    }
}

#[test]
fn a_record_becomes_a_receipt_a_transaction_and_a_row() {
    let _turn = turn();
    let house = House::new();
    let instance = house.settle("a", &[]);
    house.publish("t-1", &payment(1, 1_500));
    house.publish("t-1", &reversal(2, 1));
    house.publish("t-1", &reversal(3, 1));
    house.publish("t-1", &payment(4, 1_000_001));
    house.publish("t-1", b"rubbish");
    house.publish("t-1", &payment(1, 1_501));
    house.publish("t-1", &resend(&payment(1, 1_500)));
    house.flush();
    let receipts = house.wait(RECEIPTS, 6);
    let told: Vec<_> = receipts
        .iter()
        .map(|message| {
            let receipt = Receipt::decode(&message.value).unwrap();
            (receipt.sequence, receipt.status, receipt.amount_minor)
        })
        .collect();
    let rejected = |code| Status::Rejected(risiti_wire::Reason::new(code).unwrap());
    assert_eq!(
        told,
        [
            (1, Status::Accepted, 1_500),
            (2, Status::Accepted, 1_500),
            (3, rejected(7), 1_500),
            (4, rejected(6), 1_000_001),
            (1, rejected(8), 1_501),
            (1, Status::Accepted, 1_500),
        ]
    );
    assert_eq!(receipts[0].value, receipts[5].value);
    assert_eq!(receipts[5].header("risiti-repeat"), Some("1"));
    assert_eq!(receipts[0].header("ce_id"), Some("t-1/1"));
    let transactions = house.wait(TRANSACTIONS, 2);
    let first: serde_json::Value = serde_json::from_slice(&transactions[0].value).unwrap();
    assert_eq!(first["account"], "0012345");
    assert_eq!(first["amount_minor"], 1_500);
    let rejects: Vec<String> = house
        .wait(REJECTED, 4)
        .iter()
        .map(|message| {
            let value: serde_json::Value = serde_json::from_slice(&message.value).unwrap();
            value["reason"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(rejects, ["reversal", "limit", "foreign", "conflict"]);
    let rows = house.wait(CHANGELOG, 4);
    let record = house.kafka.committed(RECORDS).unwrap();
    assert!(rows.iter().all(|row| row.partition == record[0].partition));
    instance.stop();
}

/// What was told of the records whose seal was refused: their numbers.
fn refused_seals(rejected: &[Committed]) -> Vec<u64> {
    let told = rejected.iter().map(|message| {
        let value: serde_json::Value = serde_json::from_slice(&message.value).unwrap();
        assert_eq!(value["reason"], "seal", "{value}");
        value["sequence"].as_u64().unwrap()
    });
    told.collect()
}

/// Where the records of t-1 stand.
fn own_partition(house: &House) -> i32 {
    let records = house.kafka.committed(RECORDS).unwrap();
    let own = records.iter().find(|record| record.key == b"t-1");
    own.unwrap().partition
}

#[test]
fn g10_what_its_terminal_has_not_sealed_is_refused_and_keys_change_while_it_settles() {
    let _turn = turn();
    let house = House::new();
    let root_file = house.dir.path().join("site.root");
    let made = risiti(["site", "new-root"]).arg(&root_file).status();
    assert!(made.unwrap().success());
    let digits = std::fs::read_to_string(&root_file).unwrap();
    let root = Root::from_hex(digits.trim_end()).unwrap();
    let sealed = |generation: u8, message: &[u8]| {
        let key = root.key("t-1", generation, Direction::Up).unwrap();
        let mut buffer = [0; SEALED_RECORD_BYTES_MAX];
        seal(&key, "t-1", message, &mut buffer).unwrap().to_vec()
    };
    let opened = |generation: u8, receipt: &[u8]| {
        let key = root.key("t-1", generation, Direction::Down).unwrap();
        let mut buffer = [0; RECEIPT_BYTES_MAX];
        let receipt = open(&key, "t-1", receipt, &mut buffer).unwrap();
        let receipt = Receipt::decode(receipt).unwrap();
        (receipt.sequence, receipt.status)
    };
    let more = format!("root_file = {root_file:?}\n");
    let instance = house.settle_by("a", &[], &more);
    let first = sealed(1, &payment(1, 1_500));
    house.publish("t-1", &first);
    house.publish("t-1", &payment(2, 1_500));
    // Another terminal's record under this one's name, and the other way round.
    house.publish("t-2", &sealed(1, &payment(3, 1_500)));
    house.publish("t-1", &sealed(2, &payment(4, 1_500)));
    house.publish("t-1", &resend(&first));
    house.flush();
    let receipts = house.wait(RECEIPTS, 2);
    assert_eq!(opened(1, &receipts[0].value), (1, Status::Accepted));
    assert_eq!(receipts[0].value, receipts[1].value);
    let mut numbers = refused_seals(&house.wait(REJECTED, 3));
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3, 4]);

    // A genuine record, copied to where nothing is remembered of its terminal.
    let elsewhere = (own_partition(&house) + 1) % 3;
    let copy = BaseRecord::to(RECORDS).key("t-1").payload(&first);
    let copy = copy.partition(elsewhere);
    house.producer.send(copy).map_err(|(e, _)| e).unwrap();
    house.flush();
    let mut numbers = refused_seals(&house.wait(REJECTED, 4));
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);

    // The terminal got other keys: what the old ones seal is refused from now on.
    let generations = house.dir.path().join("site.root.generations");
    std::fs::write(generations, "t-1 2 2\n").unwrap();
    let until = Instant::now() + LONG;
    while house.kafka.committed(RECEIPTS).unwrap().len() < 3 {
        assert!(Instant::now() < until, "the generations were not taken");
        house.publish("t-1", &sealed(2, &payment(4, 1_500)));
        house.flush();
        std::thread::sleep(Duration::from_millis(200));
    }
    let receipts = house.wait(RECEIPTS, 3);
    assert_eq!(opened(2, &receipts[2].value), (4, Status::Accepted));
    house.publish("t-1", &sealed(1, &payment(5, 1_500)));
    house.flush();
    while !refused_seals(&house.wait(REJECTED, 5)).contains(&5) {
        assert!(Instant::now() < until, "the old keys are still accepted");
    }
    let transactions = house.wait(TRANSACTIONS, 2);
    assert_eq!(transactions.len(), 2);
    instance.stop();
}

/// 20 instances die in the middle of a transaction, each at another place; every
/// record is settled once, and every resend answered with the same receipt.
fn killed(kills: u32, switches: &[&str]) -> (House, Sent) {
    const TERMINALS: u64 = 20;
    const NUMBERS: u64 = 150;
    let seed = seed();
    let mut chance = fastrand::Rng::with_seed(seed);
    let house = House::new();
    let mut sent = Sent::default();
    let switches: Vec<String> = switches.iter().map(|s| (*s).to_owned()).collect();
    let places = ["inside-transaction", "after-send", "after-commit"];
    let mut next = vec![1; TERMINALS as usize];
    let mut publish_some = |house: &House, sent: &mut Sent, chance: &mut fastrand::Rng| {
        for terminal in 0..TERMINALS {
            let id = format!("t-{terminal}");
            let until = next[terminal as usize] + NUMBERS / u64::from(kills + 1) + 1;
            while next[terminal as usize] < until {
                let sequence = next[terminal as usize];
                house.publish(&id, &payment(sequence, sequence));
                sent.note(&id, sequence);
                next[terminal as usize] += 1;
                if chance.u8(0..10) == 0 {
                    let again = chance.u64(1..=sequence);
                    house.publish(&id, &resend(&payment(again, again)));
                    sent.note(&id, again);
                }
            }
        }
        house.flush();
    };
    for kill in 0..kills {
        let place = places[kill as usize % places.len()];
        let mut switches = switches.clone();
        switches.extend(["--kill-at".into(), place.into()]);
        switches.extend(["--kill-at-nth".into(), chance.u8(1..4).to_string()]);
        let instance = house.settle("a", &switches);
        // Small portions, so that there is more than one transaction.
        let publisher = Instant::now();
        publish_some(&house, &mut sent, &mut chance);
        while publisher.elapsed() < LONG {
            // More of what was sent already, until it has come to its place.
            std::thread::sleep(Duration::from_millis(chance.u64(20..60)));
            if File::open(&instance.log).is_err() || ended(&instance) {
                break;
            }
            house.publish("t-0", &resend(&payment(1, 1)));
            sent.note("t-0", 1);
            house.flush();
        }
        instance.wait_killed();
    }
    publish_some(&house, &mut sent, &mut chance);
    let instance = house.settle("a", &switches);
    house.wait(RECEIPTS, sent.messages());
    instance.stop();
    (house, sent)
}

fn ended(instance: &Instance) -> bool {
    let pid = instance.process.0.id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[test]
fn g2_twenty_kills_inside_transactions_settle_every_record_once() {
    let _turn = turn();
    let (house, sent) = killed(20, &[]);
    let receipts = house.kafka.committed(RECEIPTS).unwrap();
    assert_eq!(receipts.len(), sent.messages());
    for (id, times) in by_id(&receipts) {
        assert_eq!(times.len(), sent.numbers[&id] as usize, "{id}");
        assert!(times.iter().all(|m| m.value == times[0].value), "{id}");
        let first: Vec<_> = times
            .iter()
            .filter(|m| m.header("risiti-repeat").is_none())
            .collect();
        assert_eq!(first.len(), 1, "{id}");
    }
    let transactions = house.kafka.committed(TRANSACTIONS).unwrap();
    let settled = by_id(&transactions);
    assert_eq!(transactions.len(), settled.len());
    assert_eq!(settled.len(), sent.numbers.len());
    assert_eq!(house.kafka.committed(REJECTED).unwrap(), []);
}

#[test]
fn control_with_offsets_outside_the_transaction_a_kill_answers_again() {
    let _turn = turn();
    let (house, sent) = killed(3, &["--offsets-outside-transaction"]);
    let receipts = house.kafka.committed(RECEIPTS).unwrap();
    assert!(receipts.len() > sent.messages(), "{}", receipts.len());
}

#[test]
fn control_without_a_memory_resends_settle_twice() {
    let _turn = turn();
    let (house, sent) = killed(1, &["--forgetful"]);
    let transactions = house.kafka.committed(TRANSACTIONS).unwrap();
    assert!(transactions.len() > sent.numbers.len());
}

/// Two instances share the partitions; one is killed with its transaction open,
/// and the other goes on with what it did not know before.
#[test]
fn g2_a_killed_instance_is_taken_over_by_the_other() {
    let _turn = turn();
    let house = House::new();
    let kill = ["--kill-at", "after-send", "--kill-at-nth", "15"].map(String::from);
    let first = house.settle("a", &kill);
    let second = house.settle("b", &[]);
    let until = Instant::now() + LONG;
    let has_a_share = |instance: &Instance| {
        let log = std::fs::read_to_string(&instance.log).unwrap();
        log.contains("partitions taken")
    };
    while !has_a_share(&first) || !has_a_share(&second) {
        assert!(Instant::now() < until, "they never shared the work");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut sent = Sent::default();
    let mut sequence = 0;
    while !ended(&first) {
        assert!(Instant::now() < until, "it never came to its place");
        sequence += 1;
        for terminal in 0..12 {
            let id = format!("t-{terminal}");
            house.publish(&id, &payment(sequence, sequence));
            sent.note(&id, sequence);
        }
        house.flush();
        std::thread::sleep(Duration::from_millis(30));
    }
    // Each number again: the second must know what the first settled.
    for sequence in 1..=sequence {
        for terminal in 0..12 {
            let id = format!("t-{terminal}");
            house.publish(&id, &resend(&payment(sequence, sequence)));
            sent.note(&id, sequence);
        }
    }
    house.flush();
    first.wait_killed();
    let receipts = house.wait(RECEIPTS, sent.messages());
    assert_eq!(receipts.len(), sent.messages());
    for (id, times) in by_id(&receipts) {
        assert!(times.iter().all(|m| m.value == times[0].value), "{id}");
    }
    let transactions = house.kafka.committed(TRANSACTIONS).unwrap();
    assert_eq!(transactions.len(), sent.numbers.len());
    // Its own share, and then the other's.
    let log = std::fs::read_to_string(&second.log).unwrap();
    assert!(log.matches("partitions taken").count() >= 2, "{log}");
    second.stop();
}

/// Power goes while one partition is on its way from one instance to the other: the
/// cluster remembers the last generation of the group, and instances that come back
/// under their names are given what they had in it. Had a partition nobody then, it
/// would have nobody for ever (KIP-429 with KIP-345).
#[test]
fn g2_no_partition_is_without_an_instance_after_a_cut_in_a_rebalance() {
    let _turn = turn();
    let mut house = House::new();
    let first = house.settle("a", &[]);
    wait_told(&first, "partitions taken");
    let second = house.settle("b", &[]);
    wait_told(&first, "partitions given up");
    house.kafka.kill();
    first.kill();
    second.kill();
    house.kafka.start_again().unwrap();
    let first = house.settle("a", &[]);
    let second = house.settle("b", &[]);
    for terminal in 0..12 {
        house.publish(&format!("t-{terminal}"), &payment(1, 1));
    }
    house.flush();
    house.wait(RECEIPTS, 12);
    assert_eq!(house.kafka.committed(TRANSACTIONS).unwrap().len(), 12);
    first.stop();
    second.stop();
}

/// One that starts without anything but the changelog answers as before.
#[test]
fn what_was_settled_is_read_back_from_the_changelog() {
    let _turn = turn();
    let house = House::new();
    let instance = house.settle("a", &[]);
    for sequence in 1..=700 {
        house.publish("t-1", &payment(sequence, 1));
    }
    house.flush();
    let before = house.wait(RECEIPTS, 700);
    instance.kill();
    let instance = house.settle("b", &[]);
    house.publish("t-1", &resend(&payment(650, 1)));
    // Out of the window of 512.
    house.publish("t-1", &resend(&payment(100, 1)));
    house.publish("t-1", &payment(701, 1));
    house.flush();
    let after = house.wait(RECEIPTS, 702);
    assert_eq!(after[700].value, before[649].value);
    assert_eq!(Receipt::decode(&after[701].value).unwrap().sequence, 701);
    let rejected = house.wait(REJECTED, 1);
    let value: serde_json::Value = serde_json::from_slice(&rejected[0].value).unwrap();
    assert_eq!(value["reason"], "too_old");
    assert_eq!(house.kafka.committed(TRANSACTIONS).unwrap().len(), 701);
    instance.stop();
}

/// Brokers stop and come back while records come in and transactions are open.
#[test]
fn a_stop_of_kafka_neither_loses_nor_repeats() {
    let _turn = turn();
    let mut house = House::new();
    let mut sent = Sent::default();
    let instance = house.settle("a", &[]);
    house.publish("t-0", &payment(1, 1));
    sent.note("t-0", 1);
    house.flush();
    house.wait(RECEIPTS, 1);
    for (round, killed) in [true, false].into_iter().enumerate() {
        let first = 2 + round as u64 * 200;
        for sequence in first..first + 200 {
            for terminal in 0..10 {
                let id = format!("t-{terminal}");
                house.publish(&id, &payment(sequence, 1));
                sent.note(&id, sequence);
            }
        }
        // Most of it is under way now, whatever the machine is doing.
        house.producer.poll(Duration::from_millis(50));
        if killed {
            house.kafka.kill();
        } else {
            house.kafka.stop();
        }
        house.kafka.start_again().unwrap();
        house.flush();
    }
    house.wait(RECEIPTS, sent.messages());
    let receipts = house.kafka.committed(RECEIPTS).unwrap();
    assert_eq!(receipts.len(), sent.messages());
    let transactions = house.kafka.committed(TRANSACTIONS).unwrap();
    assert_eq!(transactions.len(), sent.numbers.len());
    instance.stop();
}

/// What stands in the log of an instance once it says this.
fn wait_told(instance: &Instance, told: &str) {
    let until = Instant::now() + LONG;
    loop {
        let log = std::fs::read_to_string(&instance.log).unwrap_or_default();
        if log.contains(told) {
            return;
        }
        assert!(Instant::now() < until, "never told {told}: {log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_changelog_that_does_not_fit_is_told_and_nothing_is_settled() {
    let _turn = turn();
    let house = House::new();
    house.kafka.create_topic(CHANGELOG, 2, &[]).unwrap();
    let instance = house.settle("a", &[]);
    house.publish("t-1", &payment(1, 1));
    house.flush();
    wait_told(&instance, "has 2 partitions and risiti.records has 3");
    instance.kill();
    assert_eq!(house.kafka.committed(TRANSACTIONS).unwrap(), []);
}

/// Two that share a name take over from each other, and still settle once.
#[test]
fn two_instances_of_one_name_are_told_and_settle_once() {
    let _turn = turn();
    let house = House::new();
    let first = house.settle("a", &[]);
    house.publish("t-1", &payment(1, 1));
    house.flush();
    house.wait(RECEIPTS, 1);
    let second = house.settle("a", &[]);
    let mut sequence = 1;
    let until = Instant::now() + LONG;
    while !std::fs::read_to_string(&first.log)
        .unwrap()
        .contains("settlement.instance")
    {
        assert!(Instant::now() < until);
        sequence += 1;
        house.publish("t-1", &payment(sequence, 1));
        house.flush();
        std::thread::sleep(Duration::from_millis(50));
    }
    first.kill();
    let count = usize::try_from(sequence).unwrap();
    house.wait(RECEIPTS, count);
    assert_eq!(house.kafka.committed(RECEIPTS).unwrap().len(), count);
    assert_eq!(house.kafka.committed(TRANSACTIONS).unwrap().len(), count);
    second.stop();
}
