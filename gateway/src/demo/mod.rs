//! `risiti demo`: whole payments on one machine, with the power cut in the middle.
//!
//! It starts Kafka (embedded in this process, or a real one by address), the
//! gateway and settlement as child processes, and some hundred terminals: the
//! firmware's own core, each behind a simulated modem and a bad 2G network, with
//! somebody at the keys and a power supply that fails too. Terminals live
//! `FACTOR` times as fast as the gateway, so that a village's half hour fits
//! into a minute. It kills settlement and the gateway (SIGKILL) and starts them
//! again, waits until every receipt is on paper, and counts. It ends with a
//! verdict and fails if that is not clean.

mod gateway;
mod process;
mod reader;
mod topics;
mod verdict;
mod view;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use risiti_bridge::EmbeddedCluster;
use risiti_sim::fleet::{CutProfile, Fleet, GatewayDialer, TerminalSpec};
use risiti_sim::network::NetworkProfile;
use risiti_sim::operator::Habits;

use gateway::Gateway;
use process::Process;
use reader::Reader;
use topics::Topics;
use verdict::{Trials, Verdict};
use view::View;

/// How the demo runs.
#[derive(Args, Debug, Clone)]
pub struct Settings {
    /// How long terminals make payments.
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// How many terminals.
    #[arg(long, value_name = "N", default_value_t = 300)]
    terminals: usize,
    /// Payments each terminal makes per minute.
    #[arg(long, value_name = "N", default_value_t = 30)]
    per_minute: u32,
    /// A real Kafka cluster to use instead of the embedded one.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Makes the demo's chances (networks, power cuts, payments) repeatable.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long every receipt may take to come home once payments have ended.
const DRAIN_MAX: Duration = Duration::from_secs(90);
/// Partitions of the demo's topics.
const PARTITIONS: u16 = 6;
/// How long the gateway stays without power.
const GATEWAY_DARK: Duration = Duration::from_millis(1500);
/// How long settlement may take to join its group, on a Kafka that has just begun.
const SETTLEMENT_START_MAX: Duration = Duration::from_secs(60);
/// How long settlement stays away.
const SETTLEMENT_AWAY: Duration = Duration::from_secs(1);
/// Terminals live so many times as fast as everything else: a search for the
/// network takes a second at most, and what a terminal waits for a gateway at
/// most is still long for one on this machine.
const FACTOR: u32 = 30;
/// In the terminals' time. Of 300 terminals some seven a second.
const CUTS: CutProfile = CutProfile {
    after_mean: Duration::from_secs(20 * 60),
    dark_longest: Duration::from_secs(60),
};
/// In the terminals' time: as long as Kafka and settlement take here, which don't
/// live faster.
const PATIENCE: Duration = Duration::from_secs(30);
/// In the terminals' time.
const RESEND: Duration = Duration::from_secs(10 * 60);

/// Runs the demo; success only if the verdict is clean.
pub fn run(settings: Settings) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("risiti demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(play(&settings)) {
        Ok(verdict) => {
            println!("{verdict}");
            if verdict.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("risiti demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Terminals with somebody before each.
fn terminals(settings: &Settings, run: &str) -> Vec<TerminalSpec> {
    let pause_ms = 60_000 * u64::from(FACTOR) / u64::from(settings.per_minute.max(1));
    let habits = Habits {
        payments: u32::MAX,
        pause_ms: (pause_ms / 2, pause_ms * 3 / 2),
        ..Habits::default()
    };
    let spec = |n| {
        let id = format!("{run}-{n:04}");
        let mut spec = TerminalSpec::new(&id, habits.clone(), NetworkProfile::village());
        spec.cuts = Some(CUTS);
        spec.patience = PATIENCE;
        spec.resend_after = RESEND;
        spec
    };
    (0..settings.terminals).map(spec).collect()
}

/// Everything that takes part.
struct Cast {
    gateway: Gateway,
    settlement: Process,
    reader: Reader,
    dialer: GatewayDialer,
    terminals: Fleet,
    view: View,
    began: Instant,
}

async fn play(settings: &Settings) -> Result<Verdict, Failure> {
    // A run of its own among others on the same cluster.
    let run = format!("{:06x}", fastrand::u32(..1 << 24));
    let topics = Topics::of(&run);
    let embedded = match settings.kafka {
        None => Some(start_embedded(&topics)?),
        Some(_) => None,
    };
    let bootstrap = match (&embedded, &settings.kafka) {
        (Some(embedded), _) => embedded.bootstrap().to_owned(),
        (None, Some(address)) => address.clone(),
        (None, None) => return Err("no Kafka".into()),
    };
    let dir = std::env::temp_dir().join(format!("risiti-demo-{run}"));
    std::fs::create_dir_all(&dir)?;
    let configuration =
        topics.configuration(&run, &dir, &bootstrap, PARTITIONS, embedded.is_some());
    std::fs::write(dir.join("risiti.toml"), configuration)?;
    risiti_sim::site::Site::default().write_root(&dir.join("site.root"))?;
    println!(
        "Kafka on {bootstrap}, topics *.demo-{run}; data in {}",
        dir.display()
    );

    let mut cast = Cast::start(settings, &run, &dir, &bootstrap, &topics).await?;
    cast.rough_times(Duration::from_secs(settings.seconds))
        .await?;
    cast.bring_home().await?;
    let verdict = cast.end(embedded.is_some()).await;
    if verdict.is_clean() {
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        eprintln!("the data and logs are kept in {}", dir.display());
    }
    Ok(verdict)
}

/// The mock cluster answers no request to create topics.
fn start_embedded(topics: &Topics) -> Result<EmbeddedCluster, Failure> {
    let embedded = EmbeddedCluster::start()?;
    for topic in topics.partitioned() {
        embedded.create_topic(topic, PARTITIONS)?;
    }
    embedded.create_topic(&topics.positions, 1)?;
    Ok(embedded)
}

impl Cast {
    async fn start(
        settings: &Settings,
        run: &str,
        dir: &Path,
        bootstrap: &str,
        topics: &Topics,
    ) -> Result<Self, Failure> {
        let gateway = Gateway::start(dir).await?;
        let mut settlement = Process::new("settle", dir);
        settlement.start()?;
        // Its line comes once it has records to settle.
        settlement.says(SETTLEMENT_START_MAX).await?;
        gateway.reaches_kafka().await?;
        let reader = Reader::start(bootstrap, topics)?;
        let dialer = GatewayDialer::to(gateway.mqtt_addr());
        let specs = terminals(settings, run);
        Ok(Self {
            gateway,
            settlement,
            reader,
            terminals: Fleet::start(specs, FACTOR, dialer.clone(), settings.seed)?,
            dialer,
            view: View::new(settings.terminals, Duration::from_secs(settings.seconds)),
            began: Instant::now(),
        })
    }

    /// Payments, power cuts, and both processes killed once.
    async fn rough_times(&mut self, length: Duration) -> Result<(), Failure> {
        let settlement_at = length / 4;
        let gateway_at = length / 2;
        let mut redraw = tokio::time::interval(Duration::from_millis(250));
        while self.began.elapsed() < length {
            redraw.tick().await;
            let elapsed = self.began.elapsed();
            if self.settlement.kills() == 0 && elapsed >= settlement_at {
                self.settlement.kill()?;
                self.view.note("settlement was killed (SIGKILL)");
            }
            if !self.settlement.is_up() && elapsed >= settlement_at + SETTLEMENT_AWAY {
                self.settlement.start()?;
                self.view.note("settlement runs again");
            }
            if self.gateway.cuts() == 0 && elapsed >= gateway_at {
                self.gateway.cut_power()?;
                self.view
                    .note("power cut: the gateway was killed (SIGKILL)");
            }
            if !self.gateway.is_up() && elapsed >= gateway_at + GATEWAY_DARK {
                self.power_back().await?;
            }
            if let Some(why) = self.ended() {
                return Err(why.into());
            }
            self.draw().await;
        }
        if !self.gateway.is_up() {
            self.power_back().await?;
        }
        if !self.settlement.is_up() {
            self.settlement.start()?;
        }
        Ok(())
    }

    /// What has ended that should not have.
    fn ended(&mut self) -> Option<String> {
        let terminals = || (!self.terminals.is_running()).then(|| "a terminal panicked".into());
        self.settlement
            .ended()
            .or_else(|| self.gateway.ended())
            .or_else(terminals)
    }

    async fn power_back(&mut self) -> Result<(), Failure> {
        self.gateway.start_again().await?;
        self.dialer.move_to(self.gateway.mqtt_addr());
        self.view.note("power back: the gateway runs again");
        Ok(())
    }

    /// No more payments; waits until every receipt is at its terminal, and Kafka
    /// knows it.
    async fn bring_home(&mut self) -> Result<(), Failure> {
        self.terminals.rest();
        self.view
            .note("no more payments; waiting until every receipt is home");
        let until = Instant::now() + DRAIN_MAX;
        let mut redraw = tokio::time::interval(Duration::from_millis(250));
        while Instant::now() < until {
            redraw.tick().await;
            self.draw().await;
            if let Some(why) = self.ended() {
                return Err(why.into());
            }
            let totals = self.terminals.totals();
            let home = totals.printed == totals.saved && self.reader.counts().undelivered == 0;
            if home && self.reader.is_at_end() && self.gateway.backlog().await == Some(0) {
                break;
            }
        }
        Ok(())
    }

    async fn draw(&mut self) {
        let status = self.gateway.status().await;
        let scene = view::Scene {
            elapsed: self.began.elapsed(),
            connected: self.terminals.online(),
            totals: self.terminals.totals(),
            read: self.reader.counts(),
            gateway_up: self.gateway.is_up(),
            settlement_up: self.settlement.is_up(),
            backlog: status.map(|s| s.clusters.iter().map(|c| c.backlog).sum()),
        };
        self.view.draw(&scene);
    }

    async fn end(mut self, deduplicates: bool) -> Verdict {
        self.terminals.vanish();
        self.view.finish();
        let totals = self.terminals.totals();
        let trials = Trials {
            torn: totals.torn,
            again: totals.again,
            gateway_cuts: self.gateway.cuts(),
            settlement_kills: self.settlement.kills(),
        };
        self.gateway.stop().await;
        self.settlement.stop().await;
        let accounts = self.terminals.accounts();
        Verdict::new(&accounts, self.reader.stop(), trials, deduplicates)
    }
}
