//! From a receipt's topic in Kafka to its terminal, through a gateway process.
//!
//! The cluster is librdkafka's mock: quick, and enough for what is shown here.
//! What stands once in Kafka is shown on a real one, by `receipts_consumer`.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use risiti_bridge::EmbeddedCluster;
use risiti_bridge::receipts::EXPIRY_HEADER;
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::mock_kafka;
use risiti_tests::samples;
use risiti_tests::wire_client::{Connect, PATIENCE, Packet, Value, Wire, property};
use risiti_wire::Receipt;

const RECEIPTS: &str = "risiti.receipts";

struct Issuer(BaseProducer);

impl Issuer {
    fn of(kafka: &EmbeddedCluster) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.bootstrap());
        Self(config.create().unwrap())
    }

    /// Issues a receipt as settlement does.
    fn issue(&self, terminal: &str, sequence: u64, expiry_s: Option<u32>) {
        let value = samples::receipt(sequence);
        let mut headers = OwnedHeaders::new();
        let text = expiry_s.map(|s| s.to_string());
        if let Some(text) = &text {
            headers = headers.insert(Header {
                key: EXPIRY_HEADER,
                value: Some(text),
            });
        }
        let record = BaseRecord::to(RECEIPTS).key(terminal).payload(&value);
        self.0
            .send(record.headers(headers))
            .map_err(|(e, _)| e)
            .unwrap();
    }

    fn flush(&self) {
        self.0.flush(PATIENCE).unwrap();
    }
}

fn connect(n: usize) -> Connect {
    let version = if n.is_multiple_of(2) { 4 } else { 5 };
    Connect::persistent(version, &format!("v{n}"))
}

fn topic(terminal: &str) -> String {
    format!("t/{terminal}/receipts")
}

/// The record's number that a receipt answers.
fn sequence(payload: &[u8]) -> u64 {
    Receipt::decode(payload).unwrap().sequence
}

/// A terminal that connects whenever it can, until it has them all: the numbers
/// in the order in which it first saw each.
fn collect(addr: SocketAddr, n: usize, count: usize, got: &AtomicU64) -> io::Result<Vec<u64>> {
    let connect = connect(n);
    let own = topic(&connect.client_id);
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    let mut subscribed = false;
    while seen.len() < count {
        let Ok((mut wire, ack)) = Wire::connect(addr, &connect) else {
            std::thread::sleep(Duration::from_millis(20)); // it is down
            continue;
        };
        // Once, ever: the session lasts.
        if !ack.session_present {
            assert!(!subscribed, "the session was lost");
            if !wire.subscribe(&[(&own, 1)]).is_ok_and(|codes| codes == [1]) {
                continue;
            }
            subscribed = true;
        }
        while seen.len() < count {
            let Ok(Packet::Publish(message)) = wire.recv() else {
                break;
            };
            assert_eq!(message.topic, own);
            let sequence = sequence(&message.payload);
            if seen.insert(sequence) {
                assert!(order.last().is_none_or(|last| *last < sequence));
                order.push(sequence);
                got.fetch_add(1, Ordering::Relaxed);
            } else {
                assert!(message.dup, "{sequence} came again without DUP");
            }
            if wire.acknowledge(&message).is_err() || fastrand::u8(..40) == 0 {
                break; // the link is cut
            }
        }
    }
    Ok(order)
}

#[test]
fn receipts_reach_their_terminals_in_order_over_kills_and_cuts() -> io::Result<()> {
    const TERMINALS: usize = 12;
    const EACH: u64 = 60;
    let kafka = mock_kafka::start()?;
    let dir = tempfile::tempdir()?;
    let config = mock_kafka::config(&kafka);
    let mut gateway = GatewayProcess::start(&config, dir.path(), ProcessSwitches::default(), None)?;
    let issuer = Issuer::of(&kafka);
    // Some wait before their terminals ever were here.
    for n in 0..TERMINALS {
        for sequence in 1..=EACH / 2 {
            issuer.issue(&format!("v{n}"), sequence, None);
        }
    }
    issuer.flush();
    let got = AtomicU64::new(0);
    let addr = gateway.mqtt_addr();
    std::thread::scope(|scope| -> io::Result<()> {
        let got = &got;
        let terminals: Vec<_> = (0..TERMINALS)
            .map(|n| scope.spawn(move || collect(addr, n, EACH as usize, got)))
            .collect();
        for kill in 1..=5 {
            for n in 0..TERMINALS {
                for sequence in 1..=EACH / 10 {
                    let sequence = EACH / 2 + (kill - 1) * (EACH / 10) + sequence;
                    issuer.issue(&format!("v{n}"), sequence, None);
                }
            }
            issuer.flush();
            let wanted = TERMINALS as u64 * EACH * kill / 8;
            let give_up = std::time::Instant::now() + PATIENCE;
            while got.load(Ordering::Relaxed) < wanted {
                assert!(std::time::Instant::now() < give_up, "no progress");
                std::thread::sleep(Duration::from_millis(5));
            }
            gateway.restart()?;
        }
        for (n, terminal) in terminals.into_iter().enumerate() {
            let order = terminal.join().unwrap()?;
            assert_eq!(order, (1..=EACH).collect::<Vec<_>>(), "terminal {n}");
        }
        Ok(())
    })
}

#[test]
fn the_expiry_that_settlement_sets_reaches_the_terminal() -> io::Result<()> {
    let kafka = mock_kafka::start()?;
    let dir = tempfile::tempdir()?;
    let config = mock_kafka::config(&kafka);
    let gateway = GatewayProcess::start(&config, dir.path(), ProcessSwitches::default(), None)?;
    let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect(1))?;
    wire.subscribe(&[(&topic("v1"), 1)])?;
    let issuer = Issuer::of(&kafka);
    issuer.issue("v1", 1, Some(3_600));
    issuer.issue("v1", 2, None);
    issuer.flush();
    let first = wire.take()?;
    match first.property(property::MESSAGE_EXPIRY) {
        Some(Value::Four(rest)) => assert!((3_400..=3_600).contains(rest), "{rest}"),
        other => panic!("{other:?}"),
    }
    let second = wire.take()?;
    assert_eq!(sequence(&second.payload), 2);
    assert_eq!(second.property(property::MESSAGE_EXPIRY), None);
    gateway
        .wait_until("both are gone", PATIENCE, |s| s.receipts.waiting == 0)
        .map(drop)
}
