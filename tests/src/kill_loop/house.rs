//! Two gateways, two settlements and a Kafka as processes, with a fault proxy on
//! every wire between them.
//!
//! Promises: each client of Kafka has a listener of its own, whose advertised address
//! is its proxy: no connection of it goes another way; what is done to the house
//! stands in `course.log`; if a test fails, its directories stay. Never: a process
//! left behind.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use risiti_sim::site::Site;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::fault_proxy::FaultProxy;
use crate::gateway_process::{GatewayProcess, ProcessSwitches};
use crate::real_kafka::{KafkaOptions, RealKafka};
use crate::settlement_process::{SettlementProcess, SettlementSwitches};
use crate::upward;

use super::course::{Blow, Part, Round, Wire};
use super::{GATEWAYS, SETTLEMENTS};

/// The least that the configuration takes.
pub const GATEWAY_TRANSACTION_MS: u32 = 10_000;

/// A killed settlement's open transaction holds up all readers for so long.
const SETTLEMENT_TRANSACTION_MS: u32 = 5_000;

/// The broker's least (`group.min.session.timeout.ms`).
pub const SETTLEMENT_SESSION_MS: u32 = 6_000;

/// How long somebody may take to come to the place at which it kills itself. With a
/// bad wire it may never come there; then it is killed where it is.
const COMES_TO_ITS_PLACE: Duration = Duration::from_secs(8);

/// What a house is started with.
#[derive(Debug, Clone, Copy, Default)]
pub struct HouseSwitches {
    /// Of both gateways.
    pub gateway: ProcessSwitches,
    /// Of both settlements.
    pub settlement: SettlementSwitches,
}

/// How often what was done, by name.
pub type Counts = BTreeMap<String, u64>;

/// All but the terminals.
#[derive(Debug)]
pub struct House {
    /// The gateways.
    pub gateways: Vec<GatewayProcess>,
    settlements: Vec<SettlementProcess>,
    /// The broker.
    pub kafka: RealKafka,
    to_gateways: Vec<FaultProxy>,
    gateways_to_kafka: Vec<FaultProxy>,
    settlements_to_kafka: Vec<FaultProxy>,
    switches: HouseSwitches,
    frozen: BTreeMap<Part, Instant>,
    counts: Counts,
    kills: u64,
    course: File,
    began: Instant,
    dir: TempDir,
    // What the proxies run in.
    _runtime: Runtime,
}

impl House {
    /// Starts all.
    ///
    /// # Errors
    /// One of them did not start.
    pub fn start(switches: HouseSwitches, seed: u64) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let inside = runtime.enter();
        let mut chance = fastrand::Rng::with_seed(seed);
        // Kafka's ports are not known yet.
        let nowhere = local(1);
        let mut proxies = |count| -> io::Result<Vec<FaultProxy>> {
            (0..count)
                .map(|_| FaultProxy::start(nowhere, chance.u64(..)))
                .collect()
        };
        let gateways_to_kafka = proxies(GATEWAYS)?;
        let settlements_to_kafka = proxies(SETTLEMENTS)?;
        let to_gateways = proxies(GATEWAYS)?;
        let clients = || gateways_to_kafka.iter().chain(&settlements_to_kafka);
        let kafka = RealKafka::start_with(KafkaOptions {
            extra: listeners(clients().map(FaultProxy::addr)),
            ..KafkaOptions::default()
        })?;
        for (proxy, port) in clients().zip(kafka.extra_ports) {
            proxy.set_upstream(local(port));
        }
        let dir = tempfile::Builder::new()
            .prefix("process-kills-")
            .tempdir()?;
        let mut gateways = Vec::new();
        for (n, proxy) in gateways_to_kafka.iter().enumerate() {
            let own = dir.path().join(format!("gw-{n}"));
            fs::create_dir(&own)?;
            let config = configuration(n, proxy.addr());
            let gateway = GatewayProcess::start(&config, &own, switches.gateway, None)?;
            to_gateways[n].set_upstream(gateway.mqtt_addr());
            gateways.push(gateway);
        }
        let mut settlements = Vec::new();
        let root = dir.path().join("site.root");
        Site::default().write_root(&root)?;
        let root = format!("root_file = {root:?}\n");
        for (n, proxy) in settlements_to_kafka.iter().enumerate() {
            let config = configuration(n, proxy.addr()) + &root;
            let name = format!("settlement-{n}");
            let settlement =
                SettlementProcess::start_with(&config, dir.path(), &name, switches.settlement)?;
            settlements.push(settlement);
        }
        let course = File::create(dir.path().join("course.log"))?;
        drop(inside);
        Ok(Self {
            gateways,
            settlements,
            kafka,
            to_gateways,
            gateways_to_kafka,
            settlements_to_kafka,
            switches,
            frozen: BTreeMap::new(),
            counts: Counts::new(),
            kills: 0,
            course,
            began: Instant::now(),
            dir,
            _runtime: runtime,
        })
    }

    /// Where the terminals of a gateway connect.
    #[must_use]
    pub fn gateway_addr(&self, n: usize) -> SocketAddr {
        self.to_gateways[n].addr()
    }

    /// Processes killed so far.
    #[must_use]
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// What was done so far, by name.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Bytes that the wires to Kafka have carried.
    #[must_use]
    pub fn kafka_bytes(&self) -> Vec<u64> {
        let clients = self
            .gateways_to_kafka
            .iter()
            .chain(&self.settlements_to_kafka);
        clients.map(|proxy| proxy.counts().up_bytes).collect()
    }

    /// Leaves logs and data behind.
    pub fn keep(&mut self) {
        self.dir.disable_cleanup(true);
        self.kafka.keep_dir();
        for gateway in 0..GATEWAYS {
            let status = self.gateways[gateway].get("/v1/status");
            let status = status.map_or_else(|error| error.to_string(), |(_, body)| body);
            self.note(&status);
            eprintln!("{status}");
        }
        let kafka = self.kafka.dir().display().to_string();
        self.note(&format_args!("kept; Kafka in {kafka}"));
        eprintln!("kept: {} and {kafka}", self.dir.path().display());
    }

    /// How often gateways have given a producer up for a new one, by their logs: what
    /// a zombie must do.
    #[must_use]
    pub fn producers_given_up(&self) -> u64 {
        let told = |gateway: &GatewayProcess| gateway.log().matches("producer given up").count();
        self.gateways
            .iter()
            .map(|gateway| told(gateway) as u64)
            .sum()
    }

    /// Whether gateways have nothing left to do. What waits for terminals of the other
    /// one waits for ever, if that one has lost it.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.gateways.iter().all(|gateway| {
            gateway.status().is_ok_and(|status| {
                let forwarded = status.clusters.iter().all(|cluster| cluster.backlog == 0);
                let receipts = &status.receipts;
                let delivered = receipts.waiting == receipts.waiting_unknown;
                forwarded && delivered && receipts.caught_up
            })
        })
    }

    /// Writes down what happens.
    pub fn note(&mut self, what: &dyn Display) {
        let at = self.began.elapsed().as_secs_f64();
        // A log that can't be written is no reason to stop.
        let _ = writeln!(self.course, "{at:9.3} {what}");
    }

    /// Plays one round.
    ///
    /// # Errors
    /// Somebody did not start again, or ended without being told to.
    pub fn play(&mut self, round: &Round) -> io::Result<()> {
        self.note(&format_args!("{round:?}"));
        self.thaw(false)?;
        self.look_for_ended()?;
        if let Some((wire, trouble)) = &round.trouble {
            self.count(&format!("wire_{}", trouble.name()));
            trouble.befall(self.wire(*wire));
        }
        sleep(round.before);
        self.strike(round.blow, round.dark)?;
        sleep(round.after);
        if let Some((wire, _)) = &round.trouble {
            self.wire(*wire).heal();
        }
        Ok(())
    }

    fn strike(&mut self, blow: Blow, dark: Duration) -> io::Result<()> {
        match blow {
            Blow::Kill(first, second) => {
                let parts = [Some(first), second].into_iter().flatten();
                for part in parts.clone() {
                    self.kill(part);
                }
                sleep(dark);
                for part in parts {
                    self.start_again(part)?;
                }
            }
            Blow::GatewayAt(n, place) => {
                self.kill(Part::Gateway(n));
                self.gateways[n].set_switches(ProcessSwitches {
                    kill_at: Some(place),
                    ..self.switches.gateway
                });
                self.start_again(Part::Gateway(n))?;
                let came = self.gateways[n].wait_exit(COMES_TO_ITS_PLACE).is_ok();
                self.gateways[n].set_switches(self.switches.gateway);
                self.killed_at("gateway", came.then(|| place.name()));
                sleep(dark);
                self.start_again(Part::Gateway(n))?;
            }
            Blow::GatewayStarting(n, after) => {
                self.kill(Part::Gateway(n));
                self.gateways[n].kill_while_starting(after)?;
                self.killed_at("gateway", Some("start"));
                self.start_again(Part::Gateway(n))?;
            }
            Blow::SettlementAt(n, place) => {
                self.kill(Part::Settlement(n));
                self.settlements[n].set_switches(SettlementSwitches {
                    kill_at: Some(place),
                    ..self.switches.settlement
                });
                self.start_again(Part::Settlement(n))?;
                let came = self.settlements[n].wait_exit(COMES_TO_ITS_PLACE);
                self.settlements[n].set_switches(self.switches.settlement);
                self.killed_at("settlement", came.then(|| place.name()));
                sleep(dark);
                self.start_again(Part::Settlement(n))?;
            }
            Blow::StopKafka => {
                self.frozen.remove(&Part::Kafka);
                self.count("stop_kafka");
                // A broker that was frozen hears it when it goes on.
                let _ = self.kafka.signal(Signal::CONT);
                self.kafka.stop();
                sleep(dark);
                self.kafka.start_again()?;
            }
            Blow::Freeze(part, time) => self.freeze(part, None, time)?,
            Blow::FreezeGatewayAt(n, place, time) => {
                self.kill(Part::Gateway(n));
                self.gateways[n].set_switches(ProcessSwitches {
                    kill_at: Some(place),
                    stop_there: true,
                    ..self.switches.gateway
                });
                self.start_again(Part::Gateway(n))?;
                let came = self.gateways[n].wait_stopped(COMES_TO_ITS_PLACE);
                self.gateways[n].set_switches(self.switches.gateway);
                self.freeze(Part::Gateway(n), came.then(|| place.name()), time)?;
            }
            Blow::FreezeSettlementAt(n, place, time) => {
                self.kill(Part::Settlement(n));
                self.settlements[n].set_switches(SettlementSwitches {
                    kill_at: Some(place),
                    stop_there: true,
                    ..self.switches.settlement
                });
                self.start_again(Part::Settlement(n))?;
                let came = self.settlements[n].wait_stopped(COMES_TO_ITS_PLACE);
                self.settlements[n].set_switches(self.switches.settlement);
                self.freeze(Part::Settlement(n), came.then(|| place.name()), time)?;
            }
        }
        Ok(())
    }

    /// SIGSTOP, wherever it is; it may stand still already, at this place.
    fn freeze(&mut self, part: Part, place: Option<&str>, time: Duration) -> io::Result<()> {
        self.signal(part, Signal::STOP)?;
        self.frozen.insert(part, Instant::now() + time);
        self.count_at("freeze", name(part), place);
        Ok(())
    }

    /// SIGKILL, and it is gone.
    fn kill(&mut self, part: Part) {
        self.frozen.remove(&part);
        match part {
            Part::Gateway(n) => self.gateways[n].kill(),
            Part::Settlement(n) => self.settlements[n].kill(),
            Part::Kafka => self.kafka.kill(),
        }
        self.killed_at(name(part), None);
    }

    fn killed_at(&mut self, who: &str, place: Option<&str>) {
        self.kills += 1;
        self.count_at("kill", who, place);
    }

    fn count_at(&mut self, what: &str, who: &str, place: Option<&str>) {
        match place {
            Some(place) => self.count(&format!("{what}_{who}_{}", place.replace('-', "_"))),
            None => self.count(&format!("{what}_{who}")),
        }
    }

    fn start_again(&mut self, part: Part) -> io::Result<()> {
        match part {
            Part::Gateway(n) => self.gateways[n].restart(),
            Part::Settlement(n) => self.settlements[n].start_again(),
            Part::Kafka => self.kafka.start_again(),
        }
    }

    fn signal(&self, part: Part, signal: Signal) -> io::Result<()> {
        match part {
            Part::Gateway(n) => self.gateways[n].signal(signal),
            Part::Settlement(n) => self.settlements[n].signal(signal),
            Part::Kafka => self.kafka.signal(signal),
        }
    }

    /// Lets those go on whose time has come, or waits for all.
    fn thaw(&mut self, all: bool) -> io::Result<()> {
        let frozen = self.frozen.clone();
        for (part, until) in frozen {
            let left = until.saturating_duration_since(Instant::now());
            if all {
                sleep(left);
            }
            if all || left.is_zero() {
                self.signal(part, Signal::CONT)?;
                self.frozen.remove(&part);
                self.note(&format_args!("{part:?} goes on"));
            }
        }
        Ok(())
    }

    /// The broker hangs for so long, and goes on.
    ///
    /// # Errors
    /// It has ended, or somebody else has.
    pub fn hang_kafka(&mut self, time: Duration) -> io::Result<()> {
        self.freeze(Part::Kafka, None, time)?;
        self.heal()
    }

    /// Everything runs, and every wire is whole. Connections that were left half open
    /// stay so: whoever has one must notice by itself.
    ///
    /// # Errors
    /// Somebody has ended without being told to.
    pub fn heal(&mut self) -> io::Result<()> {
        self.thaw(true)?;
        self.look_for_ended()?;
        self.note(&"healed");
        Ok(())
    }

    fn look_for_ended(&mut self) -> io::Result<()> {
        for (n, gateway) in self.gateways.iter_mut().enumerate() {
            if gateway.has_ended() {
                let why = gateway.wait_exit(Duration::ZERO);
                return Err(io::Error::other(format!(
                    "gateway {n} has ended by itself: {why:?}"
                )));
            }
        }
        for (n, settlement) in self.settlements.iter_mut().enumerate() {
            if settlement.has_ended() {
                return Err(io::Error::other(format!(
                    "settlement {n} has ended by itself:\n{}",
                    settlement.log_tail()
                )));
            }
        }
        Ok(())
    }

    fn wire(&self, wire: Wire) -> &FaultProxy {
        match wire {
            Wire::Terminals(n) => &self.to_gateways[n],
            Wire::Gateway(n) => &self.gateways_to_kafka[n],
            Wire::Settlement(n) => &self.settlements_to_kafka[n],
        }
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
    }
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Gateway(_) => "gateway",
        Part::Settlement(_) => "settlement",
        Part::Kafka => "kafka",
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A listener for each client, which names the client's proxy as its own address.
fn listeners(proxies: impl Iterator<Item = SocketAddr>) -> String {
    let mut listeners =
        String::from("PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@");
    let mut advertised = String::from("PLAINTEXT://127.0.0.1:@PORT@");
    let mut protocols = String::from("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT");
    for (n, proxy) in proxies.enumerate() {
        listeners += &format!(",CLIENT{n}://127.0.0.1:@EXTRA_PORT_{n}@");
        advertised += &format!(",CLIENT{n}://{proxy}");
        protocols += &format!(",CLIENT{n}:PLAINTEXT");
    }
    format!(
        "listeners={listeners}\nadvertised.listeners={advertised}\n\
         listener.security.protocol.map={protocols}\n"
    )
}

fn configuration(n: usize, kafka: SocketAddr) -> String {
    format!(
        r#"
[gateway]
id = "gw-{n}"
[kafka]
bootstrap = "{kafka}"
# Small, so that a fault falls between two of many.
batch_records_max = 50
partitions = 3
transaction_timeout_ms = {GATEWAY_TRANSACTION_MS}
[[routes]]
name = "records"
filter = "t/+/records"
topic = "{}"
[settlement]
instance = "settlement-{n}"
batch_records_max = 50
transaction_timeout_ms = {SETTLEMENT_TRANSACTION_MS}
session_timeout_ms = {SETTLEMENT_SESSION_MS}
"#,
        upward::RECORDS
    )
}
