//! `risiti demo`: whole payments on one machine, with the power cut in the middle.
//!
//! It starts Kafka (embedded in this process, or a real one by address), the
//! gateway and settlement as child processes, and some hundred terminals behind
//! bad links, whose own power fails too. It kills settlement and the gateway
//! (SIGKILL) and starts them again, waits until every receipt is home, and
//! counts. It ends with a verdict and fails if that is not clean.

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
use risiti_sim::link::{Link, LinkProfile};
use risiti_sim::mqtt::MqttVersion;
use risiti_sim::terminal::{PowerProfile, Resend, TerminalSpec, Terminals};

use gateway::Gateway;
use process::Process;
use reader::Reader;
use topics::Topics;
use verdict::{Trials, Verdict};
use view::View;

/// How the demo runs.
#[derive(Args, Debug, Clone)]
pub struct Settings {
    /// How long terminals make payments and links drop.
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// How many terminals.
    #[arg(long, value_name = "N", default_value_t = 300)]
    terminals: usize,
    /// Payments each terminal makes per minute.
    #[arg(long, value_name = "N", default_value_t = 60)]
    per_minute: u32,
    /// A real Kafka cluster to use instead of the embedded one.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Makes the demo's chances (cuts, delays, payments) repeatable.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long every receipt may take to come home once payments have ended.
const DRAIN_MAX: Duration = Duration::from_secs(90);
/// Partitions of the demo's topics.
const PARTITIONS: u16 = 6;
/// PUBLISHes that a terminal keeps unacknowledged.
const WINDOW: usize = 16;
/// How long the gateway stays without power.
const GATEWAY_DARK: Duration = Duration::from_millis(1500);
/// How long settlement may take to join its group, on a Kafka that has just begun.
const SETTLEMENT_START_MAX: Duration = Duration::from_secs(60);
/// How long settlement stays away.
const SETTLEMENT_AWAY: Duration = Duration::from_secs(1);
/// A village's hours in fast motion.
const RESEND: Resend = Resend {
    after: Duration::from_secs(15),
    longest: Duration::from_secs(60),
};
/// Of 300 terminals some seven a second.
const POWER: PowerProfile = PowerProfile {
    cut_after_mean: Duration::from_secs(45),
    dark_longest: Duration::from_secs(2),
};

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

/// Everything that takes part.
struct Cast {
    gateway: Gateway,
    settlement: Process,
    reader: Reader,
    links: Vec<Link>,
    terminals: Terminals,
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
        let mut links = Vec::new();
        let mut specs = Vec::new();
        for n in 0..settings.terminals {
            let seed = settings.seed.wrapping_mul(1_000_003).wrapping_add(n as u64);
            let link = Link::start(gateway.mqtt_addr(), LinkProfile::demo(), seed)?;
            specs.push(TerminalSpec {
                id: format!("{run}-{n:04}"),
                gateway: link.addr(),
                version: if n % 2 == 0 {
                    MqttVersion::V5
                } else {
                    MqttVersion::V3_1_1
                },
                window: WINDOW,
                payments: None,
                per_second: f64::from(settings.per_minute.max(1)) / 60.0,
                resend: Some(RESEND),
                power: Some(POWER),
                away: None,
                prints_before_saving: false,
            });
            links.push(link);
        }
        Ok(Self {
            gateway,
            settlement,
            reader,
            links,
            terminals: Terminals::start(specs, settings.seed),
            view: View::new(settings.terminals, Duration::from_secs(settings.seconds)),
            began: Instant::now(),
        })
    }

    /// Payments, bad links, and both processes killed once.
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
            if let Some(why) = self.settlement.ended().or_else(|| self.gateway.ended()) {
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

    async fn power_back(&mut self) -> Result<(), Failure> {
        self.gateway.start_again().await?;
        for link in &self.links {
            link.set_upstream(self.gateway.mqtt_addr());
        }
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
            if let Some(why) = self.settlement.ended().or_else(|| self.gateway.ended()) {
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
        let link_cuts = self.links.iter().map(|link| link.counts().cuts).sum();
        let status = self.gateway.status().await;
        let scene = view::Scene {
            elapsed: self.began.elapsed(),
            connected: self.terminals.connected(),
            totals: self.terminals.totals(),
            read: self.reader.counts(),
            link_cuts,
            gateway_up: self.gateway.is_up(),
            settlement_up: self.settlement.is_up(),
            backlog: status.map(|s| s.clusters.iter().map(|c| c.backlog).sum()),
        };
        self.view.draw(&scene);
    }

    async fn end(mut self, deduplicates: bool) -> Verdict {
        self.terminals.vanish().await;
        self.view.finish();
        let trials = Trials {
            link_cuts: self.links.iter().map(|link| link.counts().cuts).sum(),
            gateway_cuts: self.gateway.cuts(),
            settlement_kills: self.settlement.kills(),
        };
        self.gateway.stop().await;
        self.settlement.stop().await;
        let accounts = self.terminals.accounts();
        Verdict::new(&accounts, self.reader.stop(), trials, deduplicates)
    }
}
