//! One run: the clock, the order of steps, the faults.
//!
//! Promises: time goes from event to event; at one instant everybody who is due
//! takes one step, in a fixed order, again and again until nobody is; the reference
//! looks after each round. Never: a decision of a part made here.
//!
//! | file | holds |
//! | --- | --- |
//! | `site` | a gateway with its forwarder and its receipts' consumer |
//! | `instance` | an instance of settlement |
//! | `seat` | a terminal and its way to a gateway |
//! | `hostile` | clients that are none |
//! | `forger` | who writes to the topics and has no key |
//! | `faults` | what a fault does, and how it heals |

mod faults;
mod forger;
mod hostile;
mod instance;
mod seat;
mod site;

use crate::contract::{Ms, chance};
use crate::kafka::{Counts, Kafka};
use crate::network::{Arrival, Network, Traffic};
use crate::reference::{Reference, Tally, Violation, broken};
use crate::scenario::{KINDS, QUIET_MS, Scenario};
use faults::Pending;
use forger::Forger;
use hostile::Hostile;
use instance::Instance;
use seat::Seat;
use site::Site;

/// Rounds at one instant after which the house is taken to spin.
const ROUNDS_MAX: u32 = 20_000;

/// Partitions of each topic.
const PARTITIONS: i32 = 2;

/// Once all is home people ask for receipts once more: what comes then has come
/// before, and must not be printed. So long it is waited for.
const ENCORE_MS: Ms = 60_000;

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Virtual time that it took.
    pub ended_ms: Ms,
    /// Rounds of steps.
    pub rounds: u64,
    /// Polls of firmware.
    pub polls: u64,
    /// Power cuts of terminals.
    pub terminal_cuts: u64,
    /// Of them, in the middle of a flash operation.
    pub torn_writes: u64,
    /// Times a gateway's process died.
    pub gateway_deaths: u64,
    /// Faults that really struck, by kind.
    pub faults: [u64; KINDS.len()],
    /// What the reference saw.
    pub tally: Tally,
    /// What the network did.
    pub traffic: Traffic,
    /// What happened in the cluster.
    pub kafka: Counts,
    /// Of the whole course: equal for equal runs.
    pub digest: u64,
}

/// A run that broke a guarantee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What is broken.
    pub violation: Violation,
    /// At which round.
    pub round: u64,
    /// When.
    pub at_ms: Ms,
}

/// One run.
pub struct World {
    scenario: Scenario,
    now_ms: Ms,
    network: Network,
    kafka: Kafka,
    kafka_seen: u64,
    seats: Vec<Seat>,
    sites: Vec<Site>,
    instances: Vec<Instance>,
    hostile: Hostile,
    forger: Forger,
    /// What is still to happen, the next last.
    pending: Vec<Pending>,
    reference: Reference,
    arrivals: Vec<Arrival>,
    report: Report,
    quiet: bool,
    encore_until_ms: Option<Ms>,
    trace: Option<Vec<String>>,
}

/// Runs a scenario to its end.
///
/// # Errors
/// The guarantee that it broke.
pub fn run(scenario: &Scenario) -> Result<Report, Failure> {
    World::new(scenario.clone()).run().0
}

/// Runs a scenario, and tells what happened, a line each event.
pub fn trace(scenario: &Scenario) -> (Result<Report, Failure>, Vec<String>) {
    let mut world = World::new(scenario.clone());
    world.trace = Some(Vec::new());
    world.run()
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let seed = scenario.seed;
        let controls = scenario.controls;
        let terminals = 0..scenario.terminals.len();
        let seats: Vec<Seat> = terminals.map(|n| Seat::new(&scenario, n)).collect();
        let books = seats.iter().map(Seat::book).collect();
        let site = |n| Site::new(n, seed, controls);
        let instance = |n| Instance::new(n, controls);
        Self {
            now_ms: 0,
            network: Network::new(scenario.ways.clone(), seed),
            kafka: Kafka::new(chance(seed, "kafka"), PARTITIONS),
            kafka_seen: u64::MAX,
            reference: Reference::new(books, scenario.gateways),
            seats,
            sites: (0..scenario.gateways).map(site).collect(),
            instances: (0..scenario.settlements).map(instance).collect(),
            hostile: Hostile::new(scenario.terminals.len(), seed),
            forger: Forger::new(scenario.terminals.len(), PARTITIONS, seed),
            pending: faults::pending(&scenario),
            arrivals: Vec::new(),
            report: Report::default(),
            quiet: false,
            encore_until_ms: None,
            trace: None,
            scenario,
        }
    }

    fn run(mut self) -> (Result<Report, Failure>, Vec<String>) {
        let ran = self.go();
        let result = match ran {
            Ok(()) => Ok(self.finish()),
            Err(violation) => Err(Failure {
                violation,
                round: self.report.rounds,
                at_ms: self.now_ms,
            }),
        };
        (result, self.trace.unwrap_or_default())
    }

    fn finish(&mut self) -> Report {
        let report = &mut self.report;
        report.ended_ms = self.now_ms;
        report.polls = self.seats.iter().map(|s| s.terminal.polls).sum();
        report.terminal_cuts = self.seats.iter().map(|s| s.terminal.cuts).sum();
        report.torn_writes = self.seats.iter().map(|s| s.terminal.torn).sum();
        report.tally = self.reference.tally;
        report.traffic = self.network.traffic;
        report.kafka = self.kafka.counts();
        report.clone()
    }

    fn go(&mut self) -> Result<(), Violation> {
        let limit_ms = self.scenario.horizon_ms + QUIET_MS;
        let mut rounds_here = 0;
        loop {
            self.report.rounds += 1;
            self.happen()?;
            self.round()?;
            if self.is_over() {
                return self.reference.end();
            }
            let due_ms = self.due_ms();
            if due_ms <= self.now_ms {
                rounds_here += 1;
                if rounds_here > ROUNDS_MAX {
                    let who = self.who_is_due();
                    return broken("liveness", format!("{who} never comes to rest"));
                }
                continue;
            }
            rounds_here = 0;
            let limit_ms = self.encore_until_ms.unwrap_or(limit_ms);
            if due_ms > limit_ms {
                // What has not arrived by now never will; after an encore all has.
                self.now_ms = limit_ms;
                return self.reference.end();
            }
            self.now_ms = due_ms;
        }
    }

    /// One step of everybody who is due.
    fn round(&mut self) -> Result<(), Violation> {
        let now_ms = self.now_ms;
        self.kafka.step(now_ms);
        self.deliver()?;
        let changed = self.kafka.changes() != self.kafka_seen;
        self.kafka_seen = self.kafka.changes();
        for n in 0..self.sites.len() {
            self.step_site(n, changed)?;
        }
        for n in 0..self.instances.len() {
            self.step_instance(n, changed);
        }
        for n in 0..self.seats.len() {
            self.step_seat(n)?;
        }
        self.hostile.step(now_ms, &mut self.network);
        self.reference.read(&self.kafka)?;
        self.reference.after_step(&self.kafka)?;
        self.mix();
        Ok(())
    }

    /// What arrived, to whom it is for.
    fn deliver(&mut self) -> Result<(), Violation> {
        let now_ms = self.now_ms;
        let mut arrivals = std::mem::take(&mut self.arrivals);
        self.network.arrivals(now_ms, &mut arrivals);
        for arrival in arrivals.drain(..) {
            match arrival {
                Arrival::Knock { conn, gateway } => {
                    if self.sites[gateway].open(conn, now_ms) {
                        self.network.accept(conn, now_ms);
                        self.tell(|| format!("gateway {gateway} takes connection {conn}"));
                    } else {
                        self.network.refuse(conn, now_ms);
                    }
                }
                Arrival::ToGateway {
                    conn,
                    gateway,
                    bytes,
                } => {
                    if !self.sites[gateway].received(conn, &bytes, now_ms) {
                        self.network.refuse(conn, now_ms);
                    }
                    self.tell(|| format!("gateway {gateway} <- {conn}: {}", packets(&bytes)));
                }
                Arrival::GatewayClosed { conn, gateway } => {
                    self.sites[gateway].closed(conn, now_ms);
                }
                Arrival::Accepted { conn, client } => match self.seats.get_mut(client) {
                    Some(seat) => seat.accepted(conn),
                    None => self.hostile.accepted(conn, now_ms),
                },
                Arrival::ClientClosed { conn, client } => match self.seats.get_mut(client) {
                    Some(seat) => seat.closed(conn),
                    None => self.hostile.closed(conn),
                },
                Arrival::ToClient {
                    conn,
                    client,
                    bytes,
                } => {
                    self.tell(|| format!("client {client} <- {conn}: {}", packets(&bytes)));
                    match self.seats.get_mut(client) {
                        Some(seat) => seat.received(conn, &bytes),
                        None => self.reference.told_hostile(&bytes)?,
                    }
                }
            }
        }
        self.arrivals = arrivals;
        Ok(())
    }

    fn step_site(&mut self, n: usize, changed: bool) -> Result<(), Violation> {
        let mut began = false;
        let site = &mut self.sites[n];
        if site.begins_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
            site.start(self.now_ms);
            self.tell(|| format!("gateway {n} begins"));
            began = true;
        }
        let site = &mut self.sites[n];
        let died = site.step(self.now_ms, changed, &mut self.kafka, &mut self.network);
        let events = site.take_events();
        for event in &events {
            if let Some(onlooker) = site.onlooker() {
                self.reference.at_gateway(n, event, onlooker);
            }
        }
        // With its first step it has told of the damage that it found.
        if began && let Some(onlooker) = site.onlooker() {
            self.reference.began(n, onlooker)?;
        }
        if site.looked_different()
            && let Some(onlooker) = site.onlooker()
        {
            if let Err(what) = onlooker.bounds() {
                return broken("G8", format!("gateway {n}: {what}"));
            }
            self.reference.receipts(n, onlooker)?;
        }
        for event in &events {
            self.tell(|| format!("gateway {n}: {event:?}"));
        }
        if let Some(death) = died {
            self.gateway_dies(n, death);
        }
        Ok(())
    }

    fn step_instance(&mut self, n: usize, changed: bool) {
        let instance = &mut self.instances[n];
        if instance.step(self.now_ms, changed, &mut self.kafka) {
            self.tell(|| format!("settlement {n} dies"));
        }
    }

    fn step_seat(&mut self, n: usize) -> Result<(), Violation> {
        let now_ms = self.now_ms;
        let seat = &mut self.seats[n];
        let was_on = seat.terminal.is_on();
        seat.step(now_ms, &mut self.network)
            .map_err(|what| Violation {
                guarantee: "liveness",
                what,
            })?;
        let is_on = seat.terminal.is_on();
        let id = seat.terminal.id().to_owned();
        let (seen, papers) = (seat.terminal.take_seen(), seat.terminal.take_papers());
        if was_on != is_on {
            self.tell(|| format!("{id} is {}", if is_on { "on" } else { "dark" }));
        }
        for seen in &seen {
            self.tell(|| format!("{id}: {seen:?}"));
            self.reference.seen(&id, seen)?;
        }
        for paper in &papers {
            self.tell(|| {
                let (payment, whole) = (paper.payment(), paper.whole);
                format!(
                    "{id}: a paper of {payment:?}, whole {whole}, again {}",
                    paper.again()
                )
            });
            self.reference.paper(&id, paper)?;
        }
        Ok(())
    }

    /// When anybody is due next.
    fn due_ms(&self) -> Ms {
        let mut due_ms = self.network.due_ms();
        due_ms = due_ms.min(self.kafka.due_ms().unwrap_or(Ms::MAX));
        for seat in &self.seats {
            due_ms = due_ms.min(seat.due_ms());
        }
        for site in &self.sites {
            due_ms = due_ms.min(site.due_ms());
        }
        for instance in &self.instances {
            due_ms = due_ms.min(instance.due_ms());
        }
        due_ms = due_ms.min(self.hostile.due_ms());
        if self.kafka.changes() != self.kafka_seen {
            return self.now_ms;
        }
        due_ms.min(self.happens_ms())
    }

    fn who_is_due(&self) -> String {
        let now_ms = self.now_ms;
        let mut who = Vec::new();
        let mut note = |name: String, due_ms: Ms| {
            if due_ms <= now_ms {
                who.push(name);
            }
        };
        note("the network".into(), self.network.due_ms());
        note("Kafka".into(), self.kafka.due_ms().unwrap_or(Ms::MAX));
        for (n, seat) in self.seats.iter().enumerate() {
            note(format!("terminal {n}"), seat.due_ms());
        }
        for (n, site) in self.sites.iter().enumerate() {
            note(
                format!("gateway {n} {}", site.who_is_due(now_ms)),
                site.due_ms(),
            );
        }
        for (n, instance) in self.instances.iter().enumerate() {
            note(format!("settlement {n}"), instance.due_ms());
        }
        who.join(", ")
    }

    /// Whether all is healed, and all has arrived, twice.
    fn is_over(&mut self) -> bool {
        let now_ms = self.now_ms;
        if let Some(until_ms) = self.encore_until_ms {
            return now_ms >= until_ms;
        }
        let healed = self.pending.is_empty()
            && self.sites.iter().all(Site::is_well)
            && self.instances.iter().all(Instance::is_well)
            && self.seats.iter().all(Seat::is_well);
        let home = healed
            && self.seats.iter().all(|seat| seat.terminal.is_content())
            && self.reference.is_forwarded();
        if home {
            self.encore_until_ms = Some(now_ms + ENCORE_MS);
            for seat in &mut self.seats {
                seat.terminal.encore();
            }
            self.tell(|| "all is home".into());
        }
        false
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{:>8} ms  {:>5}  {}",
                self.now_ms,
                self.report.rounds,
                what()
            ));
        }
    }

    /// The course so far, as a number.
    fn mix(&mut self) {
        let polls: u64 = self.seats.iter().map(|seat| seat.terminal.polls).sum();
        let tally = &self.reference.tally;
        let parts = [
            self.now_ms,
            polls,
            tally.acked ^ tally.records << 16 ^ tally.settled << 32,
            self.kafka.changes(),
            self.network.due_ms(),
        ];
        for part in parts {
            let mixed = (self.report.digest ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.report.digest = mixed ^ mixed >> 29;
        }
    }
}

/// The first bytes of MQTT packets in words, for a trace.
fn packets(bytes: &[u8]) -> String {
    const NAMES: [&str; 16] = [
        "?",
        "CONNECT",
        "CONNACK",
        "PUBLISH",
        "PUBACK",
        "PUBREC",
        "PUBREL",
        "PUBCOMP",
        "SUBSCRIBE",
        "SUBACK",
        "UNSUBSCRIBE",
        "UNSUBACK",
        "PINGREQ",
        "PINGRESP",
        "DISCONNECT",
        "AUTH",
    ];
    let mut told = Vec::new();
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        let mut length = 0;
        let mut used = 0;
        for (place, byte) in tail.iter().take(4).enumerate() {
            length |= usize::from(byte & 0x7F) << (7 * place);
            used = place + 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        told.push(NAMES[usize::from(first >> 4)]);
        rest = tail.get(used + length..).unwrap_or_default();
    }
    format!("{} bytes {}", bytes.len(), told.join(" "))
}
