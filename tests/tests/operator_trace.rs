//! "Where is my receipt?", asked at every station of a payment's way, with the
//! `risiti` command that an operator has; over a kill of the gateway.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use risiti_gateway::trace::{Latency, PaymentTrace, Whereabouts};
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::real_kafka::RealKafka;
use risiti_tests::risiti_command::{output, risiti};
use risiti_tests::upward;
use risiti_tests::wire_client::{Connect, Message, Packet, Wire};
use risiti_wire::{Account, Currency, Lines, Payment, Receipt, Record, RecordBody, Status};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(90);

const TERMINAL: &str = "t-000041";

fn payment(sequence: u64, resend: bool) -> Vec<u8> {
    let mut buffer = [0; risiti_wire::limits::RECORD_BYTES_MAX];
    let record = Record {
        sequence,
        resend,
        body: RecordBody::Payment(Payment {
            time_s: 1_763_700_000,
            account: Account::new("12345678").unwrap(),
            amount_minor: 1_000,
            currency: Currency::new(404).unwrap(),
            reference: None,
        }),
    };
    record.encode(&mut buffer).unwrap().to_vec()
}

fn receipt(sequence: u64) -> Vec<u8> {
    let mut buffer = [0; risiti_wire::limits::RECEIPT_BYTES_MAX];
    let receipt = Receipt {
        sequence,
        number: 1,
        status: Status::Accepted,
        time_s: 1_763_700_001,
        amount_minor: 1_000,
        currency: Currency::new(404).unwrap(),
        bank_reference: None,
        lines: Lines::new(&["Thank you"]).unwrap(),
    };
    receipt.encode(&mut buffer).unwrap().to_vec()
}

/// Publishes and waits for the PUBACK.
fn publish(gateway: &GatewayProcess, payload: Vec<u8>) {
    let mut wire = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(4, TERMINAL)).unwrap();
    let topic = format!("t/{TERMINAL}/records");
    wire.publish(&Message::new(&topic, payload, 1)).unwrap();
    wire.disconnect().unwrap();
}

fn ask(gateway: &GatewayProcess, sequence: u64, more: &[&str]) -> String {
    let admin = gateway.admin_addr().unwrap().to_string();
    let sequence = sequence.to_string();
    let mut command = risiti([&["trace", TERMINAL, &sequence, "--admin", &admin], more].concat());
    let ended = output(&mut command, LONG).unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

fn told(gateway: &GatewayProcess, sequence: u64) -> PaymentTrace {
    serde_json::from_str(&ask(gateway, sequence, &["--json"])).unwrap()
}

/// Asks until it is there.
fn until(gateway: &GatewayProcess, sequence: u64, wanted: Whereabouts) -> PaymentTrace {
    let until = Instant::now() + LONG;
    loop {
        let told = told(gateway, sequence);
        if told.whereabouts == wanted {
            return told;
        }
        assert!(Instant::now() < until, "{wanted:?}: {told:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn names(told: &PaymentTrace) -> Vec<&str> {
    told.steps.iter().map(|step| step.step.as_str()).collect()
}

#[test]
fn a_payment_is_followed_from_its_arrival_to_kafka_over_a_kill() {
    let mut kafka = RealKafka::start().unwrap();
    kafka.stop();
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", &kafka.bootstrap);
    let switches = ProcessSwitches::default();
    let mut gateway = GatewayProcess::start(&config, dir.path(), switches, None).unwrap();

    // Nothing of it.
    let answer = ask(&gateway, 7, &[]);
    assert!(
        answer.contains("never seen by gateway gw-1, or nothing is recorded yet"),
        "{answer}"
    );

    // On the disk.
    publish(&gateway, payment(7, false));
    let on_disk = until(&gateway, 7, Whereabouts::WaitsForKafka);
    assert_eq!(names(&on_disk), ["published", "on_disk"]);
    assert_eq!(on_disk.steps[1].position, Some(1));
    let answer = ask(&gateway, 7, &[]);
    assert!(
        answer.contains("waits for Kafka (cluster default is not reached, 0 records before it)"),
        "{answer}"
    );

    // A kill changes nothing of what is told.
    gateway.restart().unwrap();
    assert_eq!(told(&gateway, 7).steps, on_disk.steps);

    // In Kafka, where it says.
    kafka.start_again().unwrap();
    let in_kafka = until(&gateway, 7, Whereabouts::NotSettled);
    let place = in_kafka.steps.last().unwrap();
    let log = kafka.committed(upward::RECORDS).unwrap();
    assert_eq!(log.len(), 1);
    assert_eq!(
        (place.step.as_str(), place.partition, place.offset),
        ("in_kafka", Some(log[0].partition), Some(log[0].offset))
    );
    assert!(ask(&gateway, 7, &[]).contains("not settled yet"));

    // The terminal sends it again, with the mark: both times are told.
    publish(&gateway, payment(7, true));
    let twice = until(&gateway, 7, Whereabouts::NotSettled);
    assert_eq!(
        twice.steps[3].text,
        "received again from the terminal, which had no receipt yet"
    );
    let seen = "published on_disk in_kafka published on_disk in_kafka";
    gateway.wait_forwarded(LONG).unwrap();
    assert_eq!(names(&told(&gateway, 7)).join(" "), seen);

    // Others' payments have lives of their own; one that never was is not called
    // lost.
    publish(&gateway, payment(8, false));
    gateway.wait_forwarded(LONG).unwrap();
    assert_eq!(
        names(&told(&gateway, 8)),
        ["published", "on_disk", "in_kafka"]
    );
    let answer = ask(&gateway, 9, &[]);
    assert!(
        answer.contains("never seen by gateway gw-1, or it is older"),
        "{answer}"
    );
    assert!(
        answer.contains("What is recorded here begins 20"),
        "{answer}"
    );
    let (status, _) = gateway.get("/v1/trace/t-000041/seven").unwrap();
    assert_eq!(status, 400);

    gateway.restart().unwrap();
    assert_eq!(names(&told(&gateway, 7)).join(" "), seen);
    gateway
        .wait_until("Kafka has everything", LONG, |status| {
            status.clusters[0].state == "CaughtUp"
        })
        .unwrap();
    page_tells(&gateway);
}

/// The page of the admin port, its script run against this gateway.
fn page_tells(gateway: &GatewayProcess) {
    let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/clients");
    let mut node = Command::new(format!("{clients}/node"));
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/page.mjs"))
        .arg(format!("http://{}", gateway.admin_addr().unwrap()))
        .args([TERMINAL, "7"])
        .env("TZ", "UTC");
    let ended = output(&mut node, LONG).unwrap();
    let page = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "run `make setup`? {ended:?}");
    for line in [
        "gateway gw-1",
        "state takes payments",
        "backlog 0",
        "records 0 since the start",
        "dead 0",
        "latency-more nothing delivered lately",
        "clusters default | CaughtUp | 0 | ",
        "answer The payment is in Kafka; it is not settled yet",
    ] {
        assert!(
            page.lines().any(|found| found.starts_with(line)),
            "{line:?} in\n{page}"
        );
    }
    let steps = page
        .lines()
        .find(|line| line.starts_with("steps "))
        .unwrap();
    assert!(steps.contains("on disk | position 1 |"), "{steps}");
    assert!(
        steps.contains("in kafka | risiti.records, partition"),
        "{steps}"
    );
}

#[test]
fn the_page_comes_with_a_policy_that_lets_nothing_else_in() {
    let dir = tempfile::tempdir().unwrap();
    let switches = ProcessSwitches::default();
    let config = "[kafka]\nbootstrap = \"embedded\"\n";
    let gateway = GatewayProcess::start(config, dir.path(), switches, None).unwrap();
    let mut admin = TcpStream::connect(gateway.admin_addr().unwrap()).unwrap();
    admin
        .write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    admin.read_to_string(&mut answer).unwrap();
    let (headers, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(headers.starts_with("HTTP/1.1 200"), "{headers}");
    for header in [
        "content-security-policy: default-src 'none'; connect-src 'self'",
        "content-type: text/html; charset=utf-8",
        "x-content-type-options: nosniff",
    ] {
        assert!(headers.contains(header), "{headers}");
    }
    assert!(page.contains("Where is my receipt?"));
}

#[test]
fn a_receipt_is_followed_until_its_terminal_has_acknowledged_it() {
    let kafka = RealKafka::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", &kafka.bootstrap);
    let switches = ProcessSwitches::default();
    let mut gateway = GatewayProcess::start(&config, dir.path(), switches, None).unwrap();
    publish(&gateway, payment(1, false));
    until(&gateway, 1, Whereabouts::NotSettled);

    // Settled; the terminal is away.
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap)
        .create()
        .unwrap();
    let settled = receipt(1);
    let record = BaseRecord::to("risiti.receipts")
        .key(TERMINAL)
        .payload(&settled);
    producer.send(record).unwrap();
    producer.flush(LONG).unwrap();
    let stored = until(&gateway, 1, Whereabouts::WaitsForTerminal);
    assert_eq!(
        names(&stored),
        [
            "published",
            "on_disk",
            "in_kafka",
            "settled",
            "receipt_stored"
        ]
    );
    assert!(
        stored.answer.contains("was not sent yet"),
        "{}",
        stored.answer
    );

    // It comes, takes it, and is cut off before its PUBACK.
    let topic = format!("t/{TERMINAL}/receipts");
    let mut wire = Wire::accepted(gateway.mqtt_addr(), &Connect::persistent(4, TERMINAL)).unwrap();
    assert_eq!(wire.subscribe(&[(&topic, 1)]).unwrap(), [1]);
    let Packet::Publish(message) = wire.recv().unwrap() else {
        panic!("no receipt");
    };
    assert_eq!(message.payload, settled);
    drop(wire);
    let answer = told(&gateway, 1).answer;
    assert!(answer.contains("sent once"), "{answer}");

    // Over a kill of the gateway it is sent again, and acknowledged.
    gateway.restart().unwrap();
    let mut wire = Wire::accepted(gateway.mqtt_addr(), &Connect::persistent(4, TERMINAL)).unwrap();
    let Packet::Publish(message) = wire.recv().unwrap() else {
        panic!("no receipt");
    };
    wire.puback(message.packet_id).unwrap();
    let delivered = until(&gateway, 1, Whereabouts::Delivered);
    assert_eq!(
        names(&delivered).join(" "),
        "published on_disk in_kafka settled receipt_stored sent sent acknowledged"
    );
    assert!(delivered.total_ms.is_some());
    let page = ask(&gateway, 1, &[]);
    assert!(page.contains("The receipt is at the terminal"), "{page}");
    assert!(page.contains("to the terminal, again"), "{page}");
    assert!(page.contains("From payment to receipt: "), "{page}");
    let (status, latency) = gateway.get("/v1/latency").unwrap();
    assert_eq!(status, 200);
    let latency: Latency = serde_json::from_str(&latency).unwrap();
    assert_eq!(latency.payments, 1);
    assert_eq!(Some(latency.p99_ms), delivered.total_ms);
}
