//! How fast a backlog goes to Kafka, and what a record costs at a steady rate.
//!
//! `cargo run --release -p risiti-bridge --example forward -- BOOTSTRAP [MODE] [BACKLOG] [RATE] [SECONDS] [BATCH] [TRACE_MIB]`
//!
//! Records of 200 B from 50 terminals out of a journal in memory: what is measured
//! is the forwarder, librdkafka and the cluster, not the disk. A rate stands for
//! live traffic: records arrive one by one, as terminals send them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use risiti_bridge::memory_source::MemorySource;
use risiti_bridge::{
    DeadLetters, Forwarder, ForwarderMetrics, ForwarderSetup, Options, Routes, SharedRoutes,
    TraceLog,
};
use risiti_config::{Bootstrap, ByteSize, Cluster, Mode, Route, Terminals};
use risiti_store::{Identity, NewRecord, RecordSource, State, StoreOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().ok_or("name a cluster: host:port")?;
    let mode = match arguments.next().as_deref() {
        Some("idempotent") => Mode::Idempotent,
        _ => Mode::ExactlyOnce,
    };
    let mut number = |otherwise: u64| -> Result<u64, std::num::ParseIntError> {
        arguments.next().map_or(Ok(otherwise), |text| text.parse())
    };
    let (backlog, rate, seconds) = (number(500_000)?, number(0)?, number(10)?);
    let batch = number(0)?;
    let trace_bytes = number(64)? << 20;

    let dir = tempfile::tempdir()?;
    let (state, _) = State::open(&StoreOptions::new(dir.path()))?;
    let terminals = Terminals::default();
    let routes = Routes::new(&[Route::records(&terminals)], &terminals);
    // A journal of its own each time: nothing of it stands in Kafka yet.
    let journal = Arc::new(MemorySource::deleting(&format!(
        "{:032x}",
        std::process::id()
    )));
    let metrics = Arc::new(ForwarderMetrics::default());
    let mut cluster = Cluster::new(Bootstrap::Servers(vec![bootstrap]));
    cluster.mode = mode;
    if batch > 0 {
        cluster.batch_records_max = u32::try_from(batch)?;
        cluster.batch_bytes_max = ByteSize::mib(8);
    }
    let source: Arc<dyn RecordSource> = Arc::clone(&journal) as _;
    let setup = ForwarderSetup {
        cluster,
        name: "default".into(),
        gateway_id: format!("measure-{}", std::process::id()),
        embedded: None,
        routes: Arc::new(SharedRoutes::new(routes)),
        source,
        dead: Arc::new(DeadLetters::open(state)?),
        metrics: Arc::clone(&metrics),
        trace: TraceLog::open(&dir.path().join("trace"), trace_bytes)?,
        options: Options::default(),
    };
    let await_all = || {
        while journal.released("default") < journal.end() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let forwarder = Forwarder::start(setup)?;
    // One to connect, recover and make the topics: not what is measured.
    journal.append(record(0));
    await_all();

    let begun = Instant::now();
    let before = (cpu_ms(), metrics.batches.load(Ordering::Relaxed));
    for sequence in 1..=backlog {
        journal.append(record(sequence));
    }
    await_all();
    report("backlog", backlog, begun, before, &metrics);

    if rate > 0 {
        let begun = Instant::now();
        let before = (cpu_ms(), metrics.batches.load(Ordering::Relaxed));
        for sequence in 1..=rate * seconds {
            let due = begun + Duration::from_micros(sequence * 1_000_000 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            journal.append(record(backlog + sequence));
        }
        await_all();
        report("steady", rate * seconds, begun, before, &metrics);
    }
    forwarder.stop(Duration::from_secs(10));
    Ok(())
}

fn record(sequence: u64) -> NewRecord {
    let terminal = sequence % 50;
    NewRecord {
        received_ms: 1_790_000_000_000,
        client_id: Bytes::from(format!("terminal-{terminal}")),
        topic: Bytes::from(format!("t/{terminal}/records")),
        identity: Identity::Sequence {
            sequence,
            dup: false,
            resend_mark: false,
        },
        properties: Bytes::new(),
        payload: Bytes::from_static(&[7; 200]),
    }
}

/// Processor time of this process so far (Linux; 0 elsewhere).
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let mut fields = stat.split_whitespace().skip(13);
    let mut ticks = || {
        let field = fields.next().and_then(|field| field.parse::<u64>().ok());
        field.unwrap_or(0)
    };
    // A tick is 10 ms on every Linux that we know.
    (ticks() + ticks()) * 10
}

fn report(
    what: &str,
    records: u64,
    begun: Instant,
    (cpu_before, batches_before): (u64, u64),
    metrics: &ForwarderMetrics,
) {
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_ms = cpu_ms() - cpu_before;
    let batches = metrics.batches.load(Ordering::Relaxed) - batches_before;
    #[allow(clippy::cast_precision_loss)]
    let (rate, cost_us, each, share) = (
        records as f64 / seconds,
        cpu_ms as f64 * 1000.0 / records as f64,
        records as f64 / batches.max(1) as f64,
        cpu_ms as f64 / 10.0 / seconds,
    );
    println!(
        "{what}: {records} records in {seconds:.2} s, {rate:.0}/s, {batches} batches of {each:.0}; processor {share:.0} % of a core, {cost_us:.1} µs a record"
    );
}
