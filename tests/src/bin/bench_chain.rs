//! `make bench`, second part: how long a payment and its receipt take, before a
//! real Apache Kafka, with settlement.
//!
//! Promises: every process is of the same release build, the gateway's journal on
//! the real disk; the report names all that a figure depends on. Never: a verdict
//! by exit status; it is no test.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::Parser;
use risiti_tests::bench::chain::kafka::{RECEIPTS, RECORDS, Watcher};
use risiti_tests::bench::chain::report::{Report, parts};
use risiti_tests::bench::chain::{Notebook, Plan, stages, terminal_id, terminals};
use risiti_tests::bench::gateway::Gateway;
use risiti_tests::bench::machine::{self, Machine};
use risiti_tests::bench::{frame, limits, packets};
use risiti_tests::real_kafka::RealKafka;

/// Percentiles of payment → Kafka → settlement → receipt at a steady rate.
#[derive(Debug, Parser)]
struct Options {
    /// Payments a second, of all terminals together.
    #[arg(long, env = "CHAIN_RATE", default_value_t = 1_000.0)]
    rate: f64,
    /// Terminals.
    #[arg(long, env = "CHAIN_TERMINALS", default_value_t = 200)]
    terminals: usize,
    /// Seconds measured.
    #[arg(long, env = "CHAIN_SECONDS", default_value_t = 20.0)]
    seconds: f64,
    /// Seconds of warm-up before.
    #[arg(long, env = "CHAIN_WARM_UP_S", default_value_t = 10.0)]
    warm_up_s: f64,
    /// Partitions of each Kafka topic. A transaction costs a request and a marker
    /// for each partition that it writes to, so that more of them cost time.
    #[arg(long, env = "CHAIN_PARTITIONS", default_value_t = 2)]
    partitions: u32,
    /// Seed of the times at which payments are due.
    #[arg(long, env = "BENCH_SEED", default_value_t = 1)]
    seed: u64,
    /// Where to work and to leave `chain.json`.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    frame::end(run(&Options::parse()))
}

fn run(options: &Options) -> io::Result<()> {
    let work = frame::work_dir(&options.dir, "chain")?;
    let kafka = RealKafka::start()?;
    let risiti = frame::risiti()?;
    let more = format!("partitions = {}\n", options.partitions);
    let gateway = Gateway::start_with(&risiti, &work, &kafka.bootstrap, &more)?;
    let settlement = Settlement::start(&risiti, &work)?;
    let machine = Machine::look(&work, "-");

    let plan = Plan {
        terminals: options.terminals,
        per_second: options.rate,
        warm_up: Duration::from_secs_f64(options.warm_up_s),
        measured: Duration::from_secs_f64(options.seconds),
        seed: options.seed,
    };
    let notebook = Arc::new(OnceLock::new());
    let watchers = [
        watch_when_there(&kafka.bootstrap, RECORDS, &notebook)?,
        watch_when_there(&kafka.bootstrap, RECEIPTS, &notebook)?,
    ];
    await_round_trip(&gateway)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let cpu = || -> io::Result<[Duration; 3]> {
        Ok([
            gateway.cpu()?,
            machine::process_cpu(settlement.0.id())?,
            machine::process_cpu(std::process::id())?,
        ])
    };
    let before = cpu()?;
    let begin = || Arc::clone(notebook.get_or_init(|| Arc::new(Notebook::new(&plan))));
    let done = runtime.block_on(terminals::run(
        gateway.address(),
        plan.terminals,
        begin,
        limits::STALL,
    ))?;
    let after = cpu()?;
    drop(watchers);

    let all = (0..plan.terminals).flat_map(|terminal| done.of(terminal));
    let payments = all.clone().count().max(1) as f64;
    let twice = all
        .filter(|times| times.receipts.load(Ordering::Relaxed) > 1)
        .count();
    let measured: Vec<_> = done.measured(&plan).map(|(t, n, _)| (t, n)).collect();
    let each = (measured.len() / stages::SAMPLE).max(1);
    let sample: Vec<_> = measured
        .iter()
        .step_by(each)
        .map(|(terminal, sequence)| (terminal_id(*terminal), *sequence))
        .collect();
    let mut cpu_us = [0.0; 3];
    for (into, (before, after)) in cpu_us.iter_mut().zip(before.iter().zip(after)) {
        *into = (after - *before).as_secs_f64() * 1e6 / payments;
    }
    let report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        seed: options.seed,
        machine,
        terminals: plan.terminals,
        per_second: plan.per_second,
        partitions: options.partitions,
        seconds: options.seconds,
        warm_up_s: options.warm_up_s,
        payments: measured.len(),
        missing: done.missing(),
        twice,
        parts: parts(&done, &plan),
        stages: stages::stages(&sample, |terminal, sequence| {
            gateway.trace(terminal, sequence)
        })?,
        cpu_us,
    };
    println!("{}", report.text().map_err(io::Error::other)?);
    frame::leave(&report, &options.dir.join("chain.json"))?;
    drop((settlement, gateway));
    fs::remove_dir_all(&work)
}

/// `risiti settle`, killed when this is dropped.
struct Settlement(Child);

impl Settlement {
    fn start(risiti: &Path, work: &Path) -> io::Result<Self> {
        let log = fs::File::create(work.join("settlement.log"))?;
        let child = Command::new(risiti)
            .args(["settle", "--config"])
            .arg(work.join("gateway.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gateway and settlement make the topics themselves.
fn watch_when_there(
    bootstrap: &str,
    topic: &'static str,
    notebook: &Arc<OnceLock<Arc<Notebook>>>,
) -> io::Result<Watcher> {
    let until = Instant::now() + limits::START;
    loop {
        match Watcher::start(bootstrap, topic, Arc::clone(notebook)) {
            Err(_) if Instant::now() < until => std::thread::sleep(limits::ASK_AGAIN),
            done => return done,
        }
    }
}

/// Waits until the whole chain stands: a payment of a terminal that is not
/// measured comes back as a receipt.
fn await_round_trip(gateway: &Gateway) -> io::Result<()> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(gateway.address())?;
    stream.write_all(&packets::connect("first"))?;
    let mut buffer = [0; risiti_wire::limits::RECORD_BYTES_MAX];
    let wire = |e: risiti_wire::WireError| io::Error::other(format!("{e:?}"));
    let record = risiti_wire::Record {
        sequence: 1,
        resend: false,
        body: risiti_wire::RecordBody::Payment(risiti_wire::Payment {
            time_s: 0,
            account: risiti_wire::Account::new("1").map_err(wire)?,
            amount_minor: 1,
            currency: risiti_wire::Currency::new(404).map_err(wire)?,
            reference: None,
        }),
    };
    let mut packet = Vec::new();
    let payload = record.encode(&mut buffer).map_err(wire)?;
    packets::publish("t/first/records", 1, payload, &mut packet);
    stream.write_all(&packet)?;
    let until = Instant::now() + limits::START;
    while gateway.status()?.receipts.stored == 0 {
        if Instant::now() > until {
            return Err(io::Error::other("no receipt for the first payment"));
        }
        std::thread::sleep(limits::ASK_AGAIN);
    }
    Ok(())
}
