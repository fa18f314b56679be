//! The house that is soaked: two gateways of one site behind a balancer, settlement,
//! and Kafka.
//!
//! Promises: real processes with the settings of a small box, files as small as
//! settings allow, so that everything that turns over does so in every cycle. Never:
//! a bound that an ordinary gateway does not have.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use risiti_gateway::status::Status;
use risiti_sim::link::{Link, LinkProfile};
use rustix::process::Signal;
use tokio::runtime::Handle;

use super::limits;
use super::process::{Process, signal};
use crate::bench::gateway::addresses;
use crate::bound::bound;
use crate::real_kafka::{KafkaOptions, RealKafka};

/// Kafka topics of the soak.
pub mod topics {
    /// Terminals' records.
    pub const RECORDS: &str = "risiti.records";
    /// Plain clients' messages.
    pub const RAW: &str = "plant.raw";
    /// Receipts.
    pub const RECEIPTS: &str = "risiti.receipts";
    /// What was settled.
    pub const TRANSACTIONS: &str = "risiti.transactions";
    /// What reached its terminal.
    pub const DELIVERIES: &str = "risiti.deliveries";
    /// All of them.
    pub const ALL: [&str; 5] = [RECORDS, RAW, RECEIPTS, TRANSACTIONS, DELIVERIES];
}

/// So that Kafka itself does not fill the disk in a soak of days.
const RETENTION: &str = "log.segment.bytes=8388608
log.retention.bytes=33554432
log.retention.check.interval.ms=5000
log.segment.delete.delay.ms=1000
log.cleaner.backoff.ms=2000
log.cleaner.min.cleanable.ratio=0.1
";

/// How Kafka is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// It answers no more, and its connections stay: a network that is cut.
    Freeze,
    /// It is stopped in order.
    Stop,
    /// It is killed.
    Kill,
}

/// Which Kafka.
#[derive(Debug)]
enum Cluster {
    /// An Apache Kafka of its own.
    Real(RealKafka),
    /// In the first gateway: it can't be taken away.
    Embedded,
}

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Its process.
    pub process: Process,
    /// Where it serves MQTT.
    pub mqtt: SocketAddr,
    /// Asks it how it is.
    pub asker: Asker,
}

/// Asks a gateway how it is.
#[derive(Debug, Clone)]
pub struct Asker {
    admin: String,
    http: ureq::Agent,
}

impl Asker {
    /// What it tells about itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> io::Result<Status> {
        let url = format!("{}/v1/status", self.admin);
        let mut answer = self.http.get(&url).call().map_err(io::Error::other)?;
        answer.body_mut().read_json().map_err(io::Error::other)
    }
}

impl Gateway {
    fn start(risiti: &Path, name: &str, config: &Path, dir: PathBuf) -> io::Result<Self> {
        let logs = config.parent().unwrap_or(Path::new("."));
        let mut process = Process::start(
            name,
            risiti_command(risiti).args(["run", "--config"]).arg(config),
            Some(dir),
            logs,
        )?;
        let line = process.first_line()?;
        let (mqtt, admin) =
            addresses(&line).ok_or_else(|| io::Error::other(format!("{name} says {line:?}")))?;
        let http = ureq::Agent::config_builder()
            .timeout_global(Some(limits::START))
            .build()
            .into();
        Ok(Self {
            process,
            mqtt,
            asker: Asker { admin, http },
        })
    }
}

/// All of it.
#[derive(Debug)]
pub struct House {
    /// The gateways of the site.
    pub gateways: [Gateway; 2],
    /// Settlement.
    pub settlement: Process,
    /// Where terminals connect.
    pub balancer: Link,
    /// `host:port` of Kafka.
    pub bootstrap: String,
    cluster: Cluster,
}

/// Nobody answers there: tcpmux, which nobody has.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

impl House {
    /// Starts everything with its data, configuration and logs in `dir`.
    ///
    /// # Errors
    /// One of them did not start.
    pub fn start(risiti: &Path, dir: &Path, embedded: bool, runtime: &Handle) -> io::Result<Self> {
        let cluster = if embedded {
            Cluster::Embedded
        } else {
            Cluster::Real(RealKafka::start_with(KafkaOptions {
                extra: RETENTION.into(),
                dies_with_us: true,
                ..KafkaOptions::default()
            })?)
        };
        let bootstrap = match &cluster {
            Cluster::Real(kafka) => kafka.bootstrap.clone(),
            Cluster::Embedded => "embedded".into(),
        };
        let gateway = |name: &str, bootstrap: &str| -> io::Result<Gateway> {
            let data = dir.join(name).join("data");
            let config = dir.join(format!("{name}.toml"));
            fs::create_dir_all(&data)?;
            fs::write(&config, configuration(name, &data, bootstrap))?;
            Gateway::start(risiti, name, &config, data)
        };
        let first = gateway("gateway-1", &bootstrap)?;
        let bootstrap = match first.asker.status()?.embedded_bootstrap {
            Some(found) => found,
            None => bootstrap,
        };
        let second = gateway("gateway-2", &bootstrap)?;
        let settlement = Process::start(
            "settlement",
            risiti_command(risiti)
                .args(["settle", "--config"])
                .arg(dir.join("gateway-1.toml")),
            None,
            dir,
        )?;
        let balancer = {
            let _inside = runtime.enter();
            Link::start(first.mqtt, LinkProfile::perfect(), 1)?
        };
        Ok(Self {
            gateways: [first, second],
            settlement,
            balancer,
            bootstrap,
            cluster,
        })
    }

    /// Whether Kafka can be taken away.
    #[must_use]
    pub fn has_outages(&self) -> bool {
        matches!(self.cluster, Cluster::Real(_))
    }

    /// Kafka's process, if it is one and runs, and its directory.
    #[must_use]
    pub fn kafka(&self) -> Option<(u32, PathBuf)> {
        match &self.cluster {
            Cluster::Real(kafka) => Some((kafka.pid()?, kafka.dir().to_owned())),
            Cluster::Embedded => None,
        }
    }

    /// Takes Kafka away.
    ///
    /// # Errors
    /// It has ended by itself.
    pub fn take_kafka_away(&mut self, how: Outage) -> io::Result<()> {
        let Cluster::Real(kafka) = &mut self.cluster else {
            return Ok(());
        };
        match how {
            Outage::Freeze => match kafka.pid() {
                Some(pid) => signal(pid, Signal::STOP),
                None => Err(io::Error::other("Kafka does not run")),
            },
            Outage::Stop => {
                kafka.stop();
                Ok(())
            }
            Outage::Kill => {
                kafka.kill();
                Ok(())
            }
        }
    }

    /// Brings it back.
    ///
    /// # Errors
    /// It does not start.
    pub fn bring_kafka_back(&mut self, how: Outage) -> io::Result<()> {
        let Cluster::Real(kafka) = &mut self.cluster else {
            return Ok(());
        };
        match (how, kafka.pid()) {
            (Outage::Freeze, Some(pid)) => signal(pid, Signal::CONT),
            _ => kafka.start_again(),
        }
    }

    /// Leads terminals to this gateway; to none: nobody answers. Those that are
    /// connected are cut off.
    pub fn lead_terminals_to(&self, gateway: Option<usize>) {
        let to = gateway.map_or(NOBODY, |n| self.gateways[n % 2].mqtt);
        self.balancer.set_upstream(to);
        self.balancer.cut_now();
    }

    /// What both gateways tell.
    ///
    /// # Errors
    /// One of them does not answer.
    pub fn status(&self) -> io::Result<[Status; 2]> {
        let [first, second] = &self.gateways;
        Ok([first.asker.status()?, second.asker.status()?])
    }

    /// Looks at both gateways until they are as wanted; whether they were in time.
    ///
    /// # Errors
    /// One of them does not answer.
    pub fn wait(
        &self,
        within: Duration,
        mut wanted: impl FnMut(&[Status; 2]) -> bool,
    ) -> io::Result<bool> {
        let until = Instant::now() + within;
        loop {
            if wanted(&self.status()?) {
                return Ok(true);
            }
            if Instant::now() > until {
                return Ok(false);
            }
            std::thread::sleep(limits::LOOK);
        }
    }
}

/// `risiti` without the environment of whoever runs the soak.
fn risiti_command(risiti: &Path) -> Command {
    let mut command = bound(risiti);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RISITI") {
            command.env_remove(name);
        }
    }
    command
        // As its unit has it.
        .env("MALLOC_ARENA_MAX", "2")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC");
    command
}

fn configuration(name: &str, data: &Path, bootstrap: &str) -> String {
    format!(
        r#"[gateway]
id = "{name}"
data_dir = {data:?}
[mqtt]
listen = "127.0.0.1:0"
# Those of terminals that moved are gone before they come again.
session_expiry_s_max = 60
connect_timeout_s = 2
[store]
budget_bytes = "512MiB"
receipts_reserve_bytes = "64MiB"
ballast_bytes = "1MiB"
generation_bytes = "4MiB"
[trace]
bytes_max = "2MiB"
[kafka]
bootstrap = "{bootstrap}"
partitions = 2
transaction_timeout_ms = 10000
[settlement]
# Full after 64 payments of a terminal, so that it does not look like a leak.
window = 64
[admin]
listen = "127.0.0.1:0"
[log]
level = "info"
[[routes]]
name = "records"
filter = "t/+/records"
topic = "{records}"
[[routes]]
name = "raw"
filter = "raw/#"
topic = "{raw}"
key = "client_id"
format = "raw"
"#,
        records = topics::RECORDS,
        raw = topics::RAW,
    )
}
