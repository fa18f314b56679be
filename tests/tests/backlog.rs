//! Weeks without Kafka: five million records wait on disk, and neither the
//! gateway's memory nor its start grows with them; drained, the disk is back.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use risiti_bridge::EmbeddedCluster;
use risiti_store::{
    AckSink, Identity, Journal, NewRecord, Outcome, RecordSource, State, StoreOptions,
};
use risiti_tests::filled_store::FilledStore;
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::memory;

const RECORDS: u64 = 5_000_000;
const TERMINALS: u64 = 500;
const MEMORY_BYTES_MAX: u64 = 150 << 20;
/// No Kafka is there.
const NOBODY: &str = "127.0.0.1:1";
/// A hang, not a speed: the figure is printed.
const HANG: Duration = Duration::from_secs(600);

/// Counts outcomes; lets the writer wait until few are open.
#[derive(Default)]
struct Window {
    durable: AtomicU64,
    writer: std::sync::OnceLock<std::thread::Thread>,
}

impl AckSink for Window {
    fn settled(&self, _token: u64, outcome: Outcome) {
        assert!(matches!(outcome, Outcome::Durable { .. }), "{outcome:?}");
        let durable = self.durable.fetch_add(1, Ordering::AcqRel) + 1;
        if durable.is_multiple_of(1_024)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

impl Window {
    fn wait_until(&self, durable: u64) {
        while self.durable.load(Ordering::Acquire) < durable {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// A meter reading of 200 bytes.
fn record(n: u64) -> NewRecord {
    let terminal = format!("m{:03}", n % TERMINALS);
    NewRecord {
        received_ms: 1_700_000_000_000 + n,
        topic: Bytes::from(format!("meters/{terminal}/reading")),
        client_id: Bytes::from(terminal),
        identity: Identity::Sequence {
            sequence: n / TERMINALS + 1,
            dup: false,
            resend_mark: false,
        },
        properties: Bytes::new(),
        payload: Bytes::from(vec![b'0' + (n % 10) as u8; 200]),
    }
}

/// Fills a gateway's store as its MQTT side would; returns this process's
/// largest growth on the way.
fn fill(dir: &Path) -> u64 {
    let resident = || memory::resident_bytes(std::process::id()).unwrap();
    let options = StoreOptions::new(dir);
    let before = resident();
    let (state, _) = State::open(&options).unwrap();
    let (journal, _) = Journal::open(&options, state.clone()).unwrap();
    let window = Arc::new(Window::default());
    window.writer.set(std::thread::current()).unwrap();
    let sink: Arc<dyn AckSink> = window.clone();
    let mut grown = 0;
    for n in 0..RECORDS {
        if n.is_multiple_of(512) {
            // As many without PUBACK as 128 sessions with full windows.
            window.wait_until(n.saturating_sub(8_192));
        }
        if n.is_multiple_of(100_000) {
            grown = grown.max(resident().saturating_sub(before));
        }
        journal.append(record(n), &sink, n);
    }
    window.wait_until(RECORDS);
    assert_eq!(journal.end(), RECORDS + 1);
    // As a power cut finds it: nothing is closed on purpose.
    std::mem::forget(journal);
    std::mem::forget(state);
    grown
}

#[test]
fn five_million_records_wait_on_disk_and_not_in_memory() {
    let test = "five_million_records_wait_on_disk_and_not_in_memory";
    let FilledStore { dir, grown_bytes } = FilledStore::by(test, fill).unwrap();
    assert!(
        grown_bytes < MEMORY_BYTES_MAX,
        "{} MiB while filling",
        grown_bytes >> 20
    );

    let kafka = EmbeddedCluster::start().unwrap();
    kafka.create_topic("meters", 6).unwrap();
    kafka.create_topic("risiti.positions", 1).unwrap();
    let config = |bootstrap: &str| {
        format!(
            "[gateway]\nid = \"gw-backlog\"\ndata_dir = {data:?}\n\
         [mqtt]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [kafka]\nbootstrap = \"{bootstrap}\"\n\
         [[routes]]\nname = \"meters\"\nfilter = \"meters/+/reading\"\ntopic = \"meters\"\nkey = \"level:2\"\nformat = \"raw\"\n",
            data = dir.path().join("data"),
        )
    };
    let starting = Instant::now();
    let mut gateway = GatewayProcess::start(
        &config(NOBODY),
        dir.path(),
        ProcessSwitches::default(),
        None,
    )
    .unwrap();
    println!(
        "first start after the kill: {} ms",
        starting.elapsed().as_millis()
    );
    let starting = Instant::now();
    gateway.restart().unwrap();
    println!(
        "start after another kill: {} ms",
        starting.elapsed().as_millis()
    );
    let status = gateway.status().unwrap();
    assert_eq!(status.journal.end, RECORDS + 1);
    assert_eq!(status.journal.damaged, 0);
    assert_eq!(status.alarms, Vec::<String>::new());
    let full_bytes = status.journal.used_bytes;
    println!(
        "{} MiB on disk, {} MiB resident with the whole backlog",
        full_bytes >> 20,
        gateway.resident_bytes().unwrap() >> 20
    );

    gateway.write_config(&config(kafka.bootstrap())).unwrap();
    gateway.restart().unwrap();
    let draining = Instant::now();
    let mut peak = 0;
    loop {
        peak = peak.max(gateway.resident_bytes().unwrap());
        let status = gateway.status().unwrap();
        if status.clusters[0].backlog == 0 {
            assert_eq!(status.clusters[0].forwarded, RECORDS);
            break;
        }
        assert!(draining.elapsed() < HANG, "{status:?}");
        std::thread::sleep(Duration::from_millis(250));
    }
    println!(
        "drained in {:.0} s, at most {} MiB resident",
        draining.elapsed().as_secs_f64(),
        peak >> 20
    );
    assert!(peak < MEMORY_BYTES_MAX, "{} MiB while draining", peak >> 20);
    // The disk comes back generation by generation, the last one stays.
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let used = gateway.status().unwrap().journal.used_bytes;
        if used < full_bytes / 10 {
            println!("{} MiB on disk after the drain", used >> 20);
            break;
        }
        assert!(Instant::now() < until, "{} MiB still on disk", used >> 20);
        std::thread::sleep(Duration::from_millis(250));
    }
}
