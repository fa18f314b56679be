//! `make bench`: PUBACKs of the gateway beside mosquitto's and a bare disk's.
//!
//! Promises: all systems run one after the other in each round, in turn which is
//! first, on the same machine and disk; the report names all that a figure
//! depends on; a figure of the gateway counts only if the journal has taken every
//! record that was acknowledged. Never: a verdict; it is no test.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use risiti_bridge::EmbeddedCluster;
use risiti_tests::bench::Cell;
use risiti_tests::bench::bare::BareLog;
use risiti_tests::bench::frame;
use risiti_tests::bench::gateway::{Gateway, TOPICS};
use risiti_tests::bench::load::Load;
use risiti_tests::bench::machine::Machine;
use risiti_tests::bench::mosquitto::Mosquitto;
use risiti_tests::bench::report::{Report, Round, Row};
use risiti_tests::bench::sample::{Figures, Sample};

/// PUBACK/s and latency of the gateway, mosquitto and a bare fdatasync loop.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds measured for each system in each cell and round.
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of warm-up before each.
    #[arg(long, env = "BENCH_WARM_UP_S", default_value_t = 1.0)]
    warm_up_s: f64,
    /// Rounds; the median counts.
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 3)]
    rounds: usize,
    /// Numbers of clients.
    #[arg(long, env = "BENCH_CLIENTS", value_delimiter = ',', default_values_t = [1, 100, 1_000])]
    clients: Vec<usize>,
    /// Windows: PUBLISHes that a client keeps unacknowledged.
    #[arg(long, env = "BENCH_WINDOWS", value_delimiter = ',', default_values_t = [1, 20])]
    windows: Vec<usize>,
    /// Bytes of payload, at least 8.
    #[arg(long, env = "BENCH_PAYLOAD_BYTES", default_value_t = 200)]
    payload_bytes: usize,
    /// Seed of the payload.
    #[arg(long, env = "BENCH_SEED", default_value_t = 1)]
    seed: u64,
    /// Only the gateway: for a profiler.
    #[arg(long)]
    gateway_only: bool,
    /// Nothing listens where Kafka should be: the gateway keeps all.
    #[arg(long)]
    without_kafka: bool,
    /// Where to work and to leave `puback.json`.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
}

/// Partitions of each Kafka topic.
const PARTITIONS: u16 = 4;

/// Discard: a port on which nothing listens.
const NO_KAFKA: &str = "127.0.0.1:9";

fn main() -> ExitCode {
    frame::end(run(&Options::parse()))
}

fn run(options: &Options) -> io::Result<()> {
    raise_file_limit()?;
    let work = frame::work_dir(&options.dir, "work")?;
    let payload = payload(options);
    let cluster = EmbeddedCluster::start().map_err(io::Error::other)?;
    for topic in TOPICS {
        cluster
            .create_topic(topic, PARTITIONS)
            .map_err(io::Error::other)?;
    }
    let (bootstrap, kafka) = if options.without_kafka {
        (NO_KAFKA, "no Kafka, everything is kept")
    } else {
        (
            cluster.bootstrap(),
            "forwards to an embedded Kafka in the load generator's process meanwhile",
        )
    };
    let gateway = Gateway::start(&frame::risiti()?, &work, bootstrap)?;
    let cells: Vec<Cell> = (options.windows.iter())
        .flat_map(|window| options.clients.iter().map(|clients| (*clients, *window)))
        .map(|(clients, window)| Cell { clients, window })
        .collect();
    if options.gateway_only {
        eprintln!("gateway: process {}", gateway.pid());
        for cell in cells {
            let (figures, backlog) = measure_gateway(&gateway, cell, &payload, options)?;
            println!("{cell:?} {figures:.3?} backlog {backlog}");
        }
        return Ok(());
    }
    let mosquitto = Mosquitto::start(&work)?;
    let bare = BareLog::create(&work)?;
    let machine = Machine::look(&work, mosquitto.version());
    let mut report = Report {
        command: std::env::args().collect::<Vec<_>>().join(" "),
        seed: options.seed,
        payload_bytes: options.payload_bytes,
        seconds: options.seconds,
        warm_up_s: options.warm_up_s,
        kafka: kafka.into(),
        machine,
        rows: Vec::new(),
    };
    println!("{}", report.heading());
    let systems = Systems {
        gateway,
        mosquitto,
        bare,
    };
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); cells.len()];
    for number in 0..options.rounds.max(1) {
        for (cell, rounds) in cells.iter().zip(&mut rounds) {
            let round = systems.round(number, *cell, &payload, options)?;
            eprintln!(
                "round {} of {}: {:4} clients, window {:2}: gateway {:6.0} mosquitto {:6.0} bare {:6.0}; backlog {}",
                number + 1,
                options.rounds,
                cell.clients,
                cell.window,
                round.gateway.acks_per_s,
                round.mosquitto.acks_per_s,
                round.bare.acks_per_s,
                round.backlog_records
            );
            rounds.push(round);
        }
    }
    let rows = cells.into_iter().zip(rounds);
    report.rows = rows.map(|(cell, rounds)| Row::of(cell, rounds)).collect();
    println!("{}", report.table());
    frame::leave(&report, &options.dir.join("puback.json"))?;
    drop(systems);
    fs::remove_dir_all(&work)
}

struct Systems {
    gateway: Gateway,
    mosquitto: Mosquitto,
    bare: BareLog,
}

impl Systems {
    /// One cell of one round; another system is first each time.
    fn round(
        &self,
        number: usize,
        cell: Cell,
        payload: &[u8],
        options: &Options,
    ) -> io::Result<Round> {
        let mut round = Round {
            gateway: Figures::default(),
            mosquitto: Figures::default(),
            bare: Figures::default(),
            backlog_records: 0,
        };
        for turn in 0..3 {
            match (number + turn) % 3 {
                0 => {
                    (round.gateway, round.backlog_records) =
                        measure_gateway(&self.gateway, cell, payload, options)?;
                }
                1 => {
                    let load = Load::connect(self.mosquitto.address(), cell, payload)?;
                    let cpu = || self.mosquitto.cpu();
                    let sample = load.run(options.warm_up(), options.measured(), cpu)?;
                    round.mosquitto = Figures::of(sample);
                }
                _ => {
                    let (warm_up, measured) = (options.warm_up(), options.measured());
                    let sample: Sample = self.bare.run(cell, payload, warm_up, measured)?;
                    round.bare = Figures::of(sample);
                }
            }
        }
        Ok(round)
    }
}

/// Measures, and then lets the gateway forward the rest so that the next system
/// has the machine to itself.
fn measure_gateway(
    gateway: &Gateway,
    cell: Cell,
    payload: &[u8],
    options: &Options,
) -> io::Result<(Figures, u64)> {
    let before = gateway.status()?.journal;
    let load = Load::connect(gateway.address(), cell, payload)?;
    let sample = load.run(options.warm_up(), options.measured(), || gateway.cpu())?;
    let after = gateway.status()?.journal;
    let (kept, duplicates) = (after.end - before.end, after.duplicates - before.duplicates);
    if (kept, duplicates) != (sample.published, 0) {
        // Whatever was quick then, it was not what is to be measured.
        return Err(io::Error::other(format!(
            "{} PUBLISHes were acknowledged, but the journal took {kept} and {duplicates} as resends",
            sample.published
        )));
    }
    let backlog = if options.without_kafka {
        0
    } else {
        gateway.drain()?.0
    };
    Ok((Figures::of(sample), backlog))
}

impl Options {
    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_s)
    }

    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// Noise, so that nothing on the way compresses it to nothing.
fn payload(options: &Options) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut payload = vec![0; options.payload_bytes.max(8)];
    random.fill(&mut payload);
    payload
}

/// A connection is a file descriptor here and in the servers, which inherit it.
fn raise_file_limit() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(())
}
