//! G4 against a real Kafka: from the committed log of receipts to the committed
//! log of their deliveries, over kills at every place between.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use risiti_bridge::receipts::{Delivered, ReceiptsFault};
use risiti_tests::gateway_process::{GatewayProcess, KillAt, ProcessSwitches};
use risiti_tests::mock_kafka;
use risiti_tests::real_kafka::RealKafka;
use risiti_tests::risiti_command::{output, risiti};
use risiti_tests::samples;
use risiti_tests::upward::{self, Upward};
use risiti_tests::wire_client::{Connect, Packet, Value, Wire, property};
use risiti_wire::Receipt;

const RECEIPTS: &str = "risiti.receipts";
const DELIVERIES: &str = "risiti.deliveries";
const PATIENCE: Duration = Duration::from_secs(120);
const TERMINALS: u64 = 5;

/// Issues receipts as settlement does: each batch in a transaction.
struct Issuer(BaseProducer);

impl Issuer {
    fn new(kafka: &RealKafka) -> Self {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.bootstrap)
            .set("transactional.id", "issuer")
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        Self(producer)
    }

    /// Receipts for these sequence numbers of every terminal, committed or not.
    fn issue(&self, sequences: std::ops::Range<u64>, commit: bool) {
        self.0.begin_transaction().unwrap();
        for sequence in sequences {
            for terminal in 0..TERMINALS {
                let (key, value) = (format!("t{terminal}"), samples::receipt(sequence));
                let record = BaseRecord::to(RECEIPTS).key(&key).payload(&value);
                self.0.send(record).map_err(|(e, _)| e).unwrap();
            }
        }
        self.0.flush(PATIENCE).unwrap();
        if commit {
            self.0.commit_transaction(PATIENCE).unwrap();
        } else {
            self.0.abort_transaction(PATIENCE).unwrap();
        }
    }
}

/// A terminal that takes receipts until it is told to stop; what it acknowledged.
struct Terminal {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u64>>,
}

impl Terminal {
    fn start(addr: SocketAddr, id: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut taken = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                // Ends when the gateway is killed.
                let _ = listen(addr, id, &stopping, &mut taken);
                std::thread::sleep(Duration::from_millis(20));
            }
            taken
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn listen(
    addr: SocketAddr,
    id: u64,
    stopping: &AtomicBool,
    taken: &mut Vec<u64>,
) -> io::Result<()> {
    let connect = Connect::persistent(5, &format!("t{id}"))
        .with(property::SESSION_EXPIRY, Value::Four(u32::MAX));
    let mut wire = Wire::accepted(addr, &connect)?;
    wire.subscribe(&[(&format!("t/t{id}/receipts"), 1)])?;
    while !stopping.load(Ordering::Relaxed) {
        let message = match wire.recv_within(Duration::from_millis(200)) {
            Ok(Some(Packet::Publish(message))) => message,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
            other => return Err(io::Error::other(format!("came: {other:?}"))),
        };
        let receipt = Receipt::decode(&message.payload).map_err(io::Error::other)?;
        taken.push(receipt.sequence);
        wire.acknowledge(&message)?;
    }
    Ok(())
}

/// (terminal, sequence) of every delivery event in Kafka, with how often it is
/// there; and of every terminal the receipts' numbers.
type Deliveries = (
    BTreeMap<(String, u64), u32>,
    BTreeMap<String, BTreeSet<u64>>,
);

fn deliveries(kafka: &RealKafka) -> Deliveries {
    let (mut events, mut numbers) = Deliveries::default();
    for message in kafka.committed(DELIVERIES).unwrap_or_default() {
        let event = Delivered::decode(&message.value).unwrap();
        assert_eq!(message.key, event.terminal.as_bytes());
        assert_eq!(
            message.header("ce_id"),
            Some(&*format!("{}/{}", event.terminal, event.sequence))
        );
        assert_eq!(message.header("ce_type"), Some("risiti.delivered"));
        assert_eq!(message.header("content-type"), Some("application/json"));
        assert_eq!(event.gateway, "gw-1");
        numbers
            .entry(event.terminal.clone())
            .or_default()
            .insert(event.number);
        *events.entry((event.terminal, event.sequence)).or_default() += 1;
    }
    (events, numbers)
}

fn wait_waiting(gateway: &GatewayProcess, waiting: u64, stored: u64) {
    gateway
        .wait_until("receipts are where they should be", PATIENCE, |status| {
            status.receipts.waiting == waiting && status.receipts.stored >= stored
        })
        .unwrap();
}

#[test]
fn g4_a_kill_at_any_place_loses_and_repeats_no_delivery() {
    let mut upward = Upward::start(ProcessSwitches::default()).unwrap();
    let issuer = Issuer::new(&upward.kafka);
    let addr = upward.gateway.mqtt_addr();
    let terminals: Vec<_> = (0..TERMINALS).map(|id| Terminal::start(addr, id)).collect();
    let mut next = 1;
    issuer.issue(next..next + 10, true);
    next += 10;
    wait_waiting(&upward.gateway, 0, 50);
    for (place, nth) in [
        (ReceiptsFault::BeforeCommit, 1),
        (ReceiptsFault::AfterCommit, 1),
        (ReceiptsFault::BeforeEvent, 3),
        (ReceiptsFault::BeforeDeletion, 2),
        (ReceiptsFault::AfterDeletion, 4),
    ] {
        upward.gateway.kill();
        upward.gateway.set_switches(ProcessSwitches {
            kill_at: Some(KillAt::Receipts(place, nth)),
            ..ProcessSwitches::default()
        });
        upward.gateway.restart().unwrap();
        issuer.issue(next..next + 20, true);
        // Nobody is ever to see these.
        issuer.issue(1_000_000..1_000_010, false);
        next += 20;
        upward.gateway.wait_exit(PATIENCE).unwrap();
        upward.gateway.set_switches(ProcessSwitches::default());
        upward.gateway.restart().unwrap();
        upward
            .gateway
            .wait_until("it has caught up", PATIENCE, |status| {
                status.receipts.caught_up && status.receipts.waiting == 0
            })
            .unwrap();
    }
    let expected = (next - 1) * TERMINALS;
    let until = Instant::now() + PATIENCE;
    let (events, numbers) = loop {
        let found = deliveries(&upward.kafka);
        if found.0.len() as u64 == expected || Instant::now() > until {
            break found;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(events.len() as u64, expected, "deliveries that are missing");
    assert!(events.values().all(|count| *count == 1), "{events:?}");
    for (terminal, numbers) in numbers {
        let all: BTreeSet<u64> = (1..next).collect();
        assert_eq!(numbers, all, "the numbers of {terminal}");
    }
    for terminal in terminals {
        let taken = terminal.stop();
        let distinct: BTreeSet<u64> = taken.iter().copied().collect();
        assert_eq!(distinct, (1..next).collect());
        // In order but for what was sent again.
        let mut highest = 0;
        for sequence in taken {
            assert!(sequence <= highest + 1, "{sequence} after {highest}");
            highest = highest.max(sequence);
        }
    }
}

#[test]
fn control_with_the_offset_before_the_row_that_kill_loses_receipts() {
    let switches = ProcessSwitches {
        offset_before_row: true,
        kill_at: Some(KillAt::Receipts(ReceiptsFault::BetweenOffsetAndRow, 1)),
        ..ProcessSwitches::default()
    };
    let mut upward = Upward::start(switches).unwrap();
    let issuer = Issuer::new(&upward.kafka);
    issuer.issue(1..11, true);
    upward.gateway.wait_exit(PATIENCE).unwrap();
    upward.gateway.set_switches(ProcessSwitches::default());
    upward.gateway.restart().unwrap();
    let status = upward
        .gateway
        .wait_until("it has caught up", PATIENCE, |status| {
            status.receipts.caught_up
        })
        .unwrap();
    assert!(
        status.receipts.waiting < 50,
        "the control must lose receipts: {status:?}"
    );
}

fn admin(kafka: &RealKafka) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .create()
        .unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

#[test]
fn what_retention_deleted_and_a_topic_made_anew_are_told_and_the_rest_is_read() {
    let kafka = RealKafka::start().unwrap();
    kafka.create_topic(RECEIPTS, 1, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", &kafka.bootstrap);
    let mut gateway =
        GatewayProcess::start(&config, dir.path(), ProcessSwitches::default(), None).unwrap();
    let issuer = Issuer::new(&kafka);
    issuer.issue(1..3, true);
    wait_waiting(&gateway, 10, 10);
    gateway.terminate().unwrap();
    // It is away for longer than receipts are kept.
    issuer.issue(3..5, true);
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(RECEIPTS, 0, Offset::Offset(17))
        .unwrap();
    block_on(admin(&kafka).delete_records(&before, &AdminOptions::new())).unwrap();
    gateway.restart().unwrap();
    // Ten and a mark, then ten and a mark: of 10 to 20 the last four are left.
    wait_waiting(&gateway, 14, 4);
    let status = gateway.status().unwrap();
    let told = |alarms: &[String], what: &str| alarms.iter().any(|alarm| alarm.contains(what));
    assert!(
        told(&status.alarms, "Kafka deleted 7 offsets"),
        "{status:?}"
    );
    // And the topic is deleted and made anew.
    gateway.terminate().unwrap();
    block_on(admin(&kafka).delete_topics(&[RECEIPTS], &AdminOptions::new())).unwrap();
    let until = Instant::now() + PATIENCE;
    while kafka.create_topic(RECEIPTS, 1, &[]).is_err() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(issuer);
    Issuer::new(&kafka).issue(5..6, true);
    gateway.restart().unwrap();
    wait_waiting(&gateway, 19, 5);
    let status = gateway.status().unwrap();
    assert!(told(&status.alarms, "was made anew"), "{status:?}");
}

#[test]
fn partitions_that_are_added_are_read_from_their_beginning() {
    let kafka = RealKafka::start().unwrap();
    kafka.create_topic(RECEIPTS, 1, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", &kafka.bootstrap);
    let gateway =
        GatewayProcess::start(&config, dir.path(), ProcessSwitches::default(), None).unwrap();
    gateway
        .wait_until("it has caught up", PATIENCE, |status| {
            status.receipts.caught_up
        })
        .unwrap();
    let more = rdkafka::admin::NewPartitions::new(RECEIPTS, 3);
    block_on(admin(&kafka).create_partitions([&more], &AdminOptions::new())).unwrap();
    let issuer = Issuer::new(&kafka);
    issuer.issue(1..3, true);
    let spread = kafka.committed(RECEIPTS).unwrap();
    let partitions: BTreeSet<i32> = spread.iter().map(|message| message.partition).collect();
    assert!(partitions.len() > 1, "{partitions:?}");
    wait_waiting(&gateway, 10, 10);
}

/// Runs `risiti …` against this gateway: whether it succeeded, and what it says.
fn ask(gateway: &GatewayProcess, args: &[&str]) -> (bool, String) {
    let admin = gateway.admin_addr().unwrap().to_string();
    let mut command = risiti(args);
    command.args(["--admin", &admin]);
    let ended = output(&mut command, PATIENCE).unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_message_that_is_no_receipt_is_found_by_the_operator_and_holds_nobody_up() {
    let kafka = mock_kafka::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = mock_kafka::config(&kafka);
    let gateway =
        GatewayProcess::start(&config, dir.path(), ProcessSwitches::default(), None).unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .create()
        .unwrap();
    let send = |key: &str, value: &[u8]| {
        let record = BaseRecord::to(RECEIPTS)
            .partition(2)
            .key(key)
            .payload(value);
        producer.send(record).map_err(|(e, _)| e).unwrap();
        producer.flush(PATIENCE).unwrap();
    };
    send("t1", &samples::receipt(1));
    send("t1", b"{\"status\": \"paid\"}");
    send("t1", &samples::receipt(2));
    wait_waiting(&gateway, 2, 2);
    let (_, listed) = ask(&gateway, &["dead", "list"]);
    assert!(listed.contains("r0000002-1"), "{listed}");
    assert!(listed.contains("no receipt of the wire format"), "{listed}");
    let (_, shown) = ask(&gateway, &["dead", "show", "r0000002-1"]);
    assert!(shown.contains("risiti.receipts"), "{shown}");
    let (done, said) = ask(&gateway, &["dead", "requeue", "r0000002-1"]);
    assert!(!done && said.contains("after an upgrade"), "{said}");
    let (done, said) = ask(&gateway, &["dead", "drop", "r0000002-1"]);
    assert!(done, "{said}");
    let (_, metrics) = gateway.get("/metrics").unwrap();
    for line in [
        "risiti_receipts_waiting 2",
        "risiti_receipts_waiting_unknown 2",
        "risiti_receipts_stored_total 2",
        "risiti_receipts_dead_total 1",
        "risiti_dead_letters 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
}
