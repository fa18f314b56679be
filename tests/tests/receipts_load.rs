//! A gateway comes back, and everybody with it: two thousand terminals reconnect
//! at once, each with receipts that wait, while other clients go on publishing.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::io;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::mock_kafka;
use risiti_tests::samples;
use risiti_tests::wire_client::{Connect, Message, Value, Wire, property};
use risiti_wire::Receipt;

const TERMINALS: usize = 2_000;
const EACH: u64 = 20;

/// Threads that the terminals are spread over.
const THREADS: usize = 16;

/// Clients that publish all the while.
const OTHERS: usize = 4;

/// What the issue allows a gateway, and the start after a kill.
const MEMORY_BYTES_MAX: u64 = 200 << 20;
const START_MAX: Duration = Duration::from_secs(2);

/// By how much a machine that does other things as well may be slower.
const BUSY: u32 = 3;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(120);

fn connect(terminal: usize) -> Connect {
    let id = format!("t{terminal}");
    if terminal.is_multiple_of(2) {
        return Connect::persistent(4, &id);
    }
    Connect::persistent(5, &id).with(property::SESSION_EXPIRY, Value::Four(u32::MAX))
}

/// So that a receipt says for whom it is.
fn sequence(terminal: usize, number: u64) -> u64 {
    terminal as u64 * 1_000 + number
}

/// `EACH` receipts for every terminal, as settlement issues them: by time.
fn issue(bootstrap: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    for number in 1..=EACH {
        for terminal in 0..TERMINALS {
            let value = samples::receipt(sequence(terminal, number));
            let key = format!("t{terminal}");
            let record = BaseRecord::to("risiti.receipts").key(&key).payload(&value);
            producer.send(record).map_err(|(e, _)| e).unwrap();
        }
        producer.flush(LONG).unwrap();
    }
}

fn for_each_terminal(work: impl Fn(usize) -> io::Result<()> + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let work = &work;
            scope.spawn(move || {
                for terminal in (thread..TERMINALS).step_by(THREADS) {
                    work(terminal).unwrap();
                }
            });
        }
    });
}

/// Takes what waits for a terminal: all of its own, in order, nothing else.
fn take_all(wire: &mut Wire, terminal: usize) -> io::Result<()> {
    for number in 1..=EACH {
        let message = wire.take()?;
        assert_eq!(message.topic, format!("t/t{terminal}/receipts"));
        let receipt = Receipt::decode(&message.payload).unwrap();
        assert_eq!(receipt.sequence, sequence(terminal, number));
    }
    Ok(())
}

/// Publishes until told to stop, and counts the PUBACKs.
fn publish(gateway: SocketAddr, id: &str, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let mut wire = Wire::accepted(gateway, &Connect::clean(4, id)).unwrap();
    while !stop.load(Ordering::SeqCst) {
        let message = Message::new(&format!("raw/{id}"), "x", 1);
        wire.publish(&message).unwrap();
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_storm_of_two_thousand_reconnects_is_served_and_nobody_else_waits() {
    let kafka = mock_kafka::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = mock_kafka::config(&kafka);
    let switches = ProcessSwitches::default();
    let mut gateway = GatewayProcess::start(&config, dir.path(), switches, None).unwrap();
    let addr = gateway.mqtt_addr();
    for_each_terminal(|terminal| {
        let mut wire = Wire::accepted(addr, &connect(terminal))?;
        wire.subscribe(&[(&format!("t/t{terminal}/receipts"), 1)])?;
        wire.disconnect()
    });
    issue(kafka.bootstrap());
    let all = TERMINALS as u64 * EACH;
    gateway
        .wait_until("all receipts wait", LONG, |s| s.receipts.waiting == all)
        .unwrap();

    let starting = Instant::now();
    gateway.restart().unwrap();
    let start = starting.elapsed();
    println!("start after a kill: {} ms", start.as_millis());
    assert!(start < START_MAX * BUSY, "{start:?}");

    let addr = gateway.mqtt_addr();
    let stop = AtomicBool::new(false);
    let others: Vec<AtomicU64> = (0..OTHERS).map(|_| AtomicU64::new(0)).collect();
    let counts = || -> Vec<u64> { others.iter().map(|n| n.load(Ordering::SeqCst)).collect() };
    let served = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (n, acknowledged) in others.iter().enumerate() {
            let stop = &stop;
            scope.spawn(move || publish(addr, &format!("other-{n}"), stop, acknowledged));
        }
        while counts().contains(&0) {
            std::thread::yield_now();
        }
        let before = counts();
        // All are connected before any of them takes its first.
        let connected = Barrier::new(THREADS);
        std::thread::scope(|storm| {
            for thread in 0..THREADS {
                let (connected, served) = (&connected, &served);
                storm.spawn(move || {
                    let terminals = (thread..TERMINALS).step_by(THREADS);
                    let wires: io::Result<Vec<(usize, Wire)>> = terminals
                        .map(|n| Ok((n, Wire::accepted(addr, &connect(n))?)))
                        .collect();
                    connected.wait();
                    for (terminal, mut wire) in wires.unwrap() {
                        take_all(&mut wire, terminal).unwrap();
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        let meanwhile: Vec<u64> = counts().iter().zip(before).map(|(n, b)| n - b).collect();
        stop.store(true, Ordering::SeqCst);
        println!("PUBACKs of the others meanwhile: {meanwhile:?}");
        // One may have been under way; more means that it went on.
        assert!(meanwhile.iter().all(|n| *n > 2), "{meanwhile:?}");
    });
    assert_eq!(served.load(Ordering::SeqCst), TERMINALS as u64);
    gateway
        .wait_until("no receipt waits", LONG, |s| s.receipts.waiting == 0)
        .unwrap();
    let resident = gateway.resident_bytes().unwrap();
    println!("{} MiB resident", resident >> 20);
    assert!(resident < MEMORY_BYTES_MAX, "{} MiB", resident >> 20);
}
