//! `risiti demo`: the whole way on one machine, with the power cut in the middle.
//!
//! It starts Kafka (embedded in this process, or a real one by address), the
//! gateway as a child process, and some hundred terminals behind bad links;
//! kills the gateway half way (SIGKILL) and starts it again; then counts.
//! It ends with a verdict and fails if that is not clean.

mod child;
mod ledger;
mod reader;
mod terminal;
mod view;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use risiti_bridge::EmbeddedCluster;
use risiti_sim::link::{Link, LinkProfile};
use tokio::sync::watch;

use child::Child;
use ledger::{Ledger, Verdict};
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

/// How long all that was published may take to arrive once links are well.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// Partitions of the demo's topic in the embedded cluster.
const PARTITIONS: u16 = 6;
/// How long the gateway stays without power.
const DARK: Duration = Duration::from_millis(1500);

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

async fn play(settings: &Settings) -> Result<Verdict, Failure> {
    let embedded = match settings.kafka {
        None => Some(EmbeddedCluster::start()?),
        Some(_) => None,
    };
    let bootstrap = match (&embedded, &settings.kafka) {
        (Some(embedded), _) => embedded.bootstrap().to_owned(),
        (None, Some(address)) => address.clone(),
        (None, None) => return Err("no Kafka".into()),
    };
    // A run of its own among others on the same cluster.
    let run = format!("{:06x}", fastrand::u32(..1 << 24));
    let topic = format!("risiti.records.demo-{run}");
    if let Some(embedded) = &embedded {
        // The mock cluster answers no request to create topics.
        embedded.create_topic(&topic, PARTITIONS)?;
        embedded.create_topic("risiti.positions", 1)?;
    }
    let dir = std::env::temp_dir().join(format!("risiti-demo-{run}"));
    let ledger = Arc::new(Ledger::new(embedded.is_some()));

    println!(
        "Kafka on {bootstrap}, topic {topic}; data in {}",
        dir.display()
    );
    let mut gateway = Child::start(&dir, &run, &bootstrap, &topic).await?;
    let reader = reader::start(&bootstrap, &topic, ledger.clone())?;

    let (phase, seen) = watch::channel(Phase::Rough);
    let mut links = Vec::new();
    let mut terminals = Vec::new();
    for n in 0..settings.terminals {
        let seed = settings.seed.wrapping_mul(1_000_003).wrapping_add(n as u64);
        let link = Link::start(gateway.mqtt_addr(), LinkProfile::demo(), seed)?;
        let terminal = terminal::Terminal::new(
            format!("{run}-{n:04}"),
            link.addr(),
            settings.per_minute,
            seed,
            ledger.clone(),
        );
        terminals.push(tokio::spawn(terminal.run(seen.clone())));
        links.push(link);
    }

    let mut view = View::new(settings.terminals, Duration::from_secs(settings.seconds));
    let start = Instant::now();
    let length = Duration::from_secs(settings.seconds);
    let cut_at = start + length / 2;
    let mut dark_until = None;
    let mut redraw = tokio::time::interval(Duration::from_millis(250));
    while start.elapsed() < length {
        redraw.tick().await;
        let now = Instant::now();
        if dark_until.is_none() && now >= cut_at {
            gateway.cut_power()?;
            view.note("power cut: the gateway was killed (SIGKILL)");
            dark_until = Some(now + DARK);
        }
        if dark_until.is_some_and(|until| now >= until) && !gateway.is_up() {
            gateway.start_again().await?;
            for link in &links {
                link.set_upstream(gateway.mqtt_addr());
            }
            view.note("power back: the gateway runs again");
        }
        view.draw(&ledger, &gateway, &links, start.elapsed()).await;
    }
    if !gateway.is_up() {
        gateway.start_again().await?;
        for link in &links {
            link.set_upstream(gateway.mqtt_addr());
        }
    }

    // No more payments; what terminals still hold goes out.
    let _ = phase.send(Phase::Draining);
    view.note("no more payments; waiting until all that is out has arrived");
    let drain_until = Instant::now() + DRAIN_MAX;
    loop {
        redraw.tick().await;
        view.draw(&ledger, &gateway, &links, start.elapsed()).await;
        let quiet = ledger.waiting() == 0 && gateway.backlog().await == Some(0);
        if (quiet && reader.is_at_end()) || Instant::now() > drain_until {
            break;
        }
    }
    let _ = phase.send(Phase::Over);
    for terminal in terminals {
        let _ = terminal.await;
    }
    view.finish();
    let verdict = ledger.verdict(links.iter().map(|l| l.counts().cuts).sum(), gateway.cuts());
    gateway.stop().await;
    reader.stop();
    if verdict.is_clean() {
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        eprintln!("the gateway's data and log are kept in {}", dir.display());
    }
    Ok(verdict)
}

/// Where the demo is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Terminals make payments.
    Rough,
    /// They send what they still hold.
    Draining,
    /// They stop.
    Over,
}
