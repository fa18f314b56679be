//! G8 as the operator meets it: the disk budget spent, and the disk truly full.
//! PUBACKs are withheld and everything else goes on; the reason and the remedy
//! stand on /readyz, in the metrics and in `risiti status`; nothing acknowledged
//! is lost, and it resumes by itself.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::own_mounts::SmallDisk;
use risiti_tests::real_kafka::{self, RealKafka};
use risiti_tests::risiti_command::{output, risiti};
use risiti_tests::upward::{self, RAW};
use risiti_tests::wire_client::{Connect, Message, Packet, Wire};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(90);

/// A client whose PUBACK does not come asks whether the gateway is there.
const PING_AFTER: Duration = Duration::from_millis(300);

/// A publisher that never gives up: one PUBLISH at a time, again after every cut.
struct Publisher {
    id: String,
    acknowledged: Arc<AtomicU32>,
    /// PINGRESPs that came while a PUBACK did not.
    pings: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Publisher {
    fn start(gateway: SocketAddr, id: &str, payload_bytes: usize) -> Self {
        let acknowledged = Arc::new(AtomicU32::new(0));
        let (pings, stop) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = {
            let (id, acknowledged) = (id.to_owned(), acknowledged.clone());
            let (pings, stop) = (pings.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut again = false;
                while !stop.load(Ordering::SeqCst) {
                    let connect = Connect::persistent(4, &id);
                    if let Ok(mut wire) = Wire::accepted(gateway, &connect) {
                        let _ = publish_on(
                            &mut wire,
                            &id,
                            payload_bytes,
                            &mut again,
                            (&acknowledged, &pings, &stop),
                        );
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        };
        Self {
            id: id.to_owned(),
            acknowledged,
            pings,
            stop,
            thread,
        }
    }

    fn acknowledged(&self) -> u32 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn stop(self) -> (String, u32) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
        (self.id, self.acknowledged.load(Ordering::SeqCst))
    }
}

/// Publishes until told to stop (then nothing is in flight) or cut off.
fn publish_on(
    wire: &mut Wire,
    id: &str,
    payload_bytes: usize,
    again: &mut bool,
    (acknowledged, pings, stop): (&AtomicU32, &AtomicU32, &AtomicBool),
) -> std::io::Result<()> {
    while *again || !stop.load(Ordering::SeqCst) {
        let number = acknowledged.load(Ordering::SeqCst) + 1;
        let payload = format!("{number:0payload_bytes$}");
        let mut message = Message::new(&format!("raw/{id}"), payload, 1).id(number as u16);
        if *again {
            message = message.again();
        }
        *again = true;
        wire.send_publish(&message)?;
        loop {
            match wire.recv_within(PING_AFTER) {
                Ok(Some(Packet::PubAck(got, 0))) if got == number as u16 => break,
                Ok(Some(Packet::PingResp)) => {
                    pings.fetch_add(1, Ordering::SeqCst);
                }
                Ok(_) => return Err(std::io::ErrorKind::ConnectionReset.into()),
                Err(e) if e.kind() == std::io::ErrorKind::TimedOut => wire.send_raw(&[0xC0, 0])?,
                Err(e) => return Err(e),
            }
        }
        *again = false;
        acknowledged.store(number, Ordering::SeqCst);
    }
    Ok(())
}

/// Waits for an event of the publishers'.
fn wait(what: &str, gateway: &GatewayProcess, event: impl Fn() -> bool) {
    let until = Instant::now() + LONG;
    while !event() {
        assert!(
            Instant::now() < until,
            "never: {what}; {:?}",
            gateway.status()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every acknowledged one is in Kafka, each once, in order.
fn judge(bootstrap: &str, publishers: Vec<(String, u32)>) {
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for record in real_kafka::committed(bootstrap, RAW).unwrap() {
        let client = String::from_utf8(record.key).unwrap();
        let number = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
        found.entry(client).or_default().push(number);
    }
    for (id, acknowledged) in publishers {
        let expected: Vec<u32> = (1..=acknowledged).collect();
        assert_eq!(found.remove(&id).unwrap_or_default(), expected, "{id}");
    }
    assert!(found.is_empty(), "published by nobody: {:?}", found.keys());
}

fn status_text(gateway: &GatewayProcess) -> String {
    let admin = gateway.admin_addr().unwrap().to_string();
    let shown = output(&mut risiti(["status", "--admin", &admin]), LONG).unwrap();
    String::from_utf8(shown.stdout).unwrap()
}

fn metric(gateway: &GatewayProcess, name: &str) -> u64 {
    let (_, page) = gateway.get("/metrics").unwrap();
    let line = page
        .lines()
        .find_map(|l| l.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name}: {page}"))
        .parse()
        .unwrap()
}

/// Ordinary messages between clients, and a ping, while PUBACKs are withheld.
fn everything_else_goes_on(gateway: &GatewayProcess) {
    let mut hears = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "hears")).unwrap();
    hears.subscribe(&[("chat/#", 0)]).unwrap();
    let mut says = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(4, "says")).unwrap();
    for n in 0..20 {
        let text = format!("hello {n}");
        says.publish(&Message::new("chat/1", &text, 0)).unwrap();
        assert_eq!(hears.take().unwrap().text(), text);
    }
    hears.ping().unwrap();
}

const MIB: u64 = 1 << 20;

#[test]
fn a_spent_budget_is_told_and_resumes_by_itself_when_kafka_is_back() {
    let mut kafka = RealKafka::start().unwrap();
    kafka.stop();
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", &kafka.bootstrap)
        + "[store]\nbudget_bytes = \"32MiB\"\nreceipts_reserve_bytes = \"4MiB\"\n\
           ballast_bytes = \"1MiB\"\nfree_bytes_min = \"1MiB\"\ngeneration_bytes = \"4MiB\"\n";
    let switches = ProcessSwitches::default();
    let mut gateway = GatewayProcess::start(&config, dir.path(), switches, None).unwrap();
    assert_eq!(gateway.get("/readyz").unwrap(), (200, "ready\n".into()));
    assert_eq!(metric(&gateway, "risiti_store_alarms"), 0);
    let publishers: Vec<_> = (0..3)
        .map(|n| Publisher::start(gateway.mqtt_addr(), &format!("p{n}"), 16_000))
        .collect();
    let spent = |s: &risiti_gateway::status::Status| s.journal.withheld >= 3;
    let status = gateway
        .wait_until("the budget is spent", LONG, spent)
        .unwrap();
    assert!(
        status.journal.used_bytes <= 28 * MIB,
        "the reserve: {status:#?}"
    );

    let (code, reason) = gateway.get("/readyz").unwrap();
    assert_eq!(code, 503);
    for told in [
        "disk budget is spent",
        "Kafka is reachable",
        "store.budget_bytes",
    ] {
        assert!(reason.contains(told), "{told}: {reason}");
    }
    assert_eq!(gateway.get("/healthz").unwrap().0, 200);
    assert!(metric(&gateway, "risiti_journal_withheld_records") >= 3);
    assert!(metric(&gateway, "risiti_store_alarms") >= 1);
    let text = status_text(&gateway);
    assert!(text.contains("3 withheld"), "{text}");
    assert!(
        text.contains("ALARM        the disk budget is spent"),
        "{text}"
    );
    let acknowledged: Vec<_> = publishers.iter().map(Publisher::acknowledged).collect();
    everything_else_goes_on(&gateway);
    wait("each waiting client is answered its ping", &gateway, || {
        publishers
            .iter()
            .all(|p| p.pings.load(Ordering::SeqCst) > 2)
    });
    // A restart changes nothing of it: what is acknowledged meanwhile, if
    // anything, has room within the budget.
    let room = 28 * MIB - status.journal.used_bytes.min(28 * MIB);
    gateway.restart().unwrap();
    let status = gateway.wait_until("still spent", LONG, spent).unwrap();
    assert!(
        status.journal.used_bytes <= 28 * MIB,
        "the reserve, after a restart: {status:#?}"
    );
    let now = publishers.iter().map(Publisher::acknowledged);
    let added: u64 = now
        .zip(&acknowledged)
        .map(|(now, b)| u64::from(now - b))
        .sum();
    assert!(added * 16_000 <= room, "PUBACKs beyond the budget: {added}");

    kafka.start_again().unwrap();
    wait("PUBACKs resume", &gateway, || {
        let now = publishers.iter().map(Publisher::acknowledged);
        now.zip(&acknowledged)
            .all(|(now, before)| now > before + 50)
    });
    gateway
        .wait_until("no alarm", LONG, |s| s.alarms.is_empty())
        .unwrap();
    assert_eq!(gateway.get("/readyz").unwrap().0, 200);
    let publishers = publishers.into_iter().map(Publisher::stop).collect();
    gateway.wait_forwarded(LONG).unwrap();
    judge(&kafka.bootstrap, publishers);
}

#[test]
fn a_full_disk_is_told_and_resumes_by_itself_also_over_a_restart() {
    let mut kafka = RealKafka::start().unwrap();
    kafka.stop();
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path(), 48).unwrap();
    let data = disk.root().join("data");
    fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(data, dir.path().join("data")).unwrap();
    let config = upward::config("gw-1", &kafka.bootstrap)
        + "[store]\nbudget_bytes = \"1GiB\"\nreceipts_reserve_bytes = \"1MiB\"\n\
           ballast_bytes = \"4MiB\"\nfree_bytes_min = \"0B\"\ngeneration_bytes = \"4MiB\"\n";
    let switches = ProcessSwitches::default();
    let mut gateway = GatewayProcess::start(&config, dir.path(), switches, None).unwrap();
    let publishers: Vec<_> = (0..2)
        .map(|n| Publisher::start(gateway.mqtt_addr(), &format!("p{n}"), 200))
        .collect();
    wait("a first hundred", &gateway, || {
        publishers.iter().all(|p| p.acknowledged() > 100)
    });
    gateway
        .wait_until("the disk is full", LONG, |status| {
            disk.fill().unwrap();
            status.journal.withheld >= 2
        })
        .unwrap();
    // What the ballast had taken lets it go on for a moment.
    let ballast = disk.root().join("data/store/ballast");
    wait("it says so, and the ballast is spent", &gateway, || {
        disk.fill().unwrap();
        let (code, reason) = gateway.get("/readyz").unwrap();
        let is_told = code == 503 && reason.contains("free space");
        is_told && status_text(&gateway).contains("ALARM") && !ballast.exists()
    });
    everything_else_goes_on(&gateway);

    // Space is back: by itself.
    let before: Vec<_> = publishers.iter().map(Publisher::acknowledged).collect();
    disk.free().unwrap();
    wait("PUBACKs resume", &gateway, || {
        let now = publishers.iter().map(Publisher::acknowledged);
        now.zip(&before).all(|(now, before)| now > before + 50)
    });
    gateway
        .wait_until("no alarm", LONG, |s| s.alarms.is_empty())
        .unwrap();

    // Full again, and killed: the next start either serves, or says what is
    // wrong; a supervisor's next one succeeds as soon as there is space.
    gateway
        .wait_until("the disk is full again", LONG, |status| {
            disk.fill().unwrap();
            status.journal.withheld >= 2
        })
        .unwrap();
    gateway.kill();
    disk.fill().unwrap();
    match gateway.restart() {
        Ok(()) => println!("it starts on a full disk"),
        Err(error) => {
            let said = error.to_string();
            println!("it does not start on a full disk");
            assert!(said.contains("the disk is full"), "{said}");
            assert!(said.contains("free space"), "no remedy: {said}");
        }
    }
    disk.free().unwrap();
    if gateway.status().is_err() {
        gateway.restart().unwrap();
    }
    let before: Vec<_> = publishers.iter().map(Publisher::acknowledged).collect();
    wait("PUBACKs resume", &gateway, || {
        let now = publishers.iter().map(Publisher::acknowledged);
        now.zip(&before).all(|(now, before)| now > before + 50)
    });
    let publishers = publishers.into_iter().map(Publisher::stop).collect();
    kafka.start_again().unwrap();
    gateway.wait_forwarded(LONG).unwrap();
    judge(&kafka.bootstrap, publishers);
}
