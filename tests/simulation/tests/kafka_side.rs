//! Journals, forwarders, the cluster and settlement, without gateways and terminals:
//! what Kafka can do to payments, thousands of times a second.
//!
//! Facts: whatever is killed, stopped, lost, late or fenced, each record of a journal
//! stands once in the committed log (G2), those of one terminal in their order (G3);
//! each payment is settled once and gets one and the same receipt as often as it was
//! sent (G2, G7); and all of it within a bounded time of the last fault.
//!
//! `RISITI_KAFKA_RUNS` sets how many runs; `RISITI_KAFKA_SEED` the first seed.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use risiti_config::Mode;
use risiti_simulation::forwarder::{self, ForwarderNode};
use risiti_simulation::kafka::{Counts, Kafka, topics};
use risiti_simulation::settlement::{self, SettlementNode};
use risiti_simulation::{Controls, Journalish, Ms, chance};
use risiti_store::{Identity, NewRecord, Position, ReadBatch, Record, StoreError};
use risiti_wire::limits::RECORD_BYTES_MAX;
use risiti_wire::{Account, Currency, Payment, RecordBody, mark_resend};

/// Faults come before, healing is over soon after.
const FAULTS_UNTIL_MS: Ms = 40_000;

/// By then everything must have arrived: transactions time out after 15 s, sessions
/// after 6 s, pauses last 1 s.
const HORIZON_MS: Ms = 180_000;

/// What no broker takes.
const POISON: &[u8] = b"poison";

/// Steps of a run at most; an ordinary one has some hundreds.
const STEPS_MAX: u64 = 200_000;

struct Journal {
    id: String,
    records: Vec<NewRecord>,
    oldest: Position,
}

impl Journalish for Journal {
    fn journal_id(&self) -> &str {
        &self.id
    }

    fn oldest(&self) -> Position {
        self.oldest
    }

    fn end(&self) -> Position {
        self.records.len() as u64 + 1
    }

    fn read(
        &mut self,
        from: Position,
        records_max: usize,
        _: usize,
    ) -> Result<ReadBatch, StoreError> {
        let from = from.max(self.oldest);
        let skip = usize::try_from(from - 1).unwrap();
        let records = self.records.iter().enumerate().skip(skip);
        let records: Vec<Record> = records
            .take(records_max)
            .map(|(index, record)| Record {
                position: index as u64 + 1,
                record: record.clone(),
            })
            .collect();
        Ok(ReadBatch {
            next: from + records.len() as u64,
            records,
            damaged: 0,
        })
    }

    fn release(&mut self, _: &str, upto: Position) {
        assert!(upto <= self.end(), "more is released than there is");
        self.oldest = upto.max(self.oldest);
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillForwarder(usize),
    KillSettlement(usize),
    FreezeForwarder(usize, Ms),
    FreezeSettlement(usize, Ms),
    Down(Ms),
    Slow(Ms, Ms),
    LoseAnswers(u32),
    Fail(u32),
    Delay(u32, Ms),
    FenceForwarder(usize),
    FenceSettlement(usize),
    Silence(usize, Ms),
    Compact,
    ForgetProducers,
    /// The next time that it has a transaction open, after so many more steps.
    Inside(Part, usize, u32, Hit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Forwarder,
    Settlement,
}

/// What happens to a process inside its transaction.
#[derive(Debug, Clone, Copy)]
enum Hit {
    /// It is killed, and starts again so much later.
    Kill(Ms),
    /// It hangs for so long.
    Freeze(Ms),
    /// It hangs for so long, and another one starts beside it: the supervisor thought
    /// it dead.
    Replace(Ms),
}

/// How the house is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Course {
    mode: Mode,
    controls: Controls,
    forwarders: forwarder::Wrong,
    settlements: settlement::Wrong,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            mode: Mode::ExactlyOnce,
            controls: Controls::default(),
            forwarders: forwarder::Wrong::default(),
            settlements: settlement::Wrong::default(),
        }
    }
}

struct World {
    now: Ms,
    kafka: Kafka,
    course: Course,
    /// Dead letters, by journal and position.
    dead: BTreeSet<(usize, Position)>,
    journals: Vec<Journal>,
    forwarders: Vec<(Option<ForwarderNode>, Option<Ms>)>,
    settlements: Vec<(Option<SettlementNode>, Option<Ms>)>,
    /// What is to happen inside a transaction.
    traps: Vec<(Part, usize, u32, Hit)>,
    /// Forwarders that hang while another one has taken their place.
    zombies: Vec<(usize, ForwarderNode, Option<Ms>)>,
    /// When a killed one starts again.
    births: Vec<(Ms, bool, usize)>,
    seen: u64,
    steps: u64,
    /// Traps that were sprung.
    hits: u64,
    trace: Option<String>,
}

fn payment(sequence: u64, amount_minor: u64) -> Vec<u8> {
    let record = risiti_wire::Record {
        sequence,
        resend: false,
        body: RecordBody::Payment(Payment {
            time_s: 0,
            account: Account::new("0012345").unwrap(),
            amount_minor,
            currency: Currency::new(404).unwrap(),
            reference: None,
        }),
    };
    let mut buffer = [0; RECORD_BYTES_MAX];
    record.encode(&mut buffer).unwrap().to_vec()
}

fn record(terminal: usize, sequence: u64, resend: bool) -> NewRecord {
    let mut payload = payment(sequence, sequence * 100);
    if resend {
        mark_resend(&mut payload).unwrap();
    }
    NewRecord {
        received_ms: 1,
        client_id: Bytes::from(format!("term-{terminal}")),
        topic: Bytes::from(format!("t/term-{terminal}/records")),
        identity: Identity::Sequence {
            sequence,
            dup: resend,
            resend_mark: resend,
        },
        properties: Bytes::new(),
        payload: payload.into(),
    }
}

impl World {
    fn new(seed: u64, gateways: usize, instances: usize, partitions: i32, course: Course) -> Self {
        let journal = |index| Journal {
            id: format!("{index:032x}"),
            records: Vec::new(),
            oldest: 1,
        };
        Self {
            now: 0,
            kafka: Kafka::new(chance(seed, "kafka"), partitions),
            course,
            dead: BTreeSet::new(),
            journals: (0..gateways).map(journal).collect(),
            forwarders: (0..gateways).map(|_| (None, None)).collect(),
            settlements: (0..instances).map(|_| (None, None)).collect(),
            traps: Vec::new(),
            zombies: Vec::new(),
            births: Vec::new(),
            seen: 0,
            steps: 0,
            hits: 0,
            trace: None,
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>7} {}", self.now, what());
        }
    }

    fn start_forwarder(&mut self, index: usize) {
        let Course { mode, controls, .. } = self.course;
        let name = format!("gw-{index}");
        let node = ForwarderNode::start_in(mode, &name, "default", self.now, controls);
        let node = node.doing(self.course.forwarders);
        self.forwarders[index] = (Some(node), Some(self.now));
    }

    fn start_settlement(&mut self, index: usize) {
        // Who writes here has no keys: what is sealed is for the whole house to show.
        let controls = Controls {
            takes_unsealed: true,
            ..self.course.controls
        };
        let node = SettlementNode::start(&format!("s-{index}"), self.now, controls);
        let node = node.doing(self.course.settlements);
        self.settlements[index] = (Some(node), Some(self.now));
    }

    fn apply(&mut self, fault: Fault, rng: &mut fastrand::Rng) {
        self.note(|| format!("{fault:?}"));
        let now = self.now;
        match fault {
            Fault::KillForwarder(index) => {
                if self.forwarders[index].0.take().is_some() {
                    self.births.push((now + rng.u64(1..8_000), true, index));
                }
            }
            Fault::KillSettlement(index) => {
                if self.settlements[index].0.take().is_some() {
                    self.births.push((now + rng.u64(1..20_000), false, index));
                }
            }
            Fault::FreezeForwarder(index, ms) => {
                if let Some(node) = &mut self.forwarders[index].0 {
                    node.freeze_until(now + ms);
                }
            }
            Fault::FreezeSettlement(index, ms) => {
                if let Some(node) = &mut self.settlements[index].0 {
                    node.freeze_until(now + ms, &mut self.kafka);
                }
            }
            Fault::Down(ms) => self.kafka.down_until(now + ms),
            Fault::Slow(ms, by) => self.kafka.slow_until(now + ms, by),
            Fault::LoseAnswers(n) => self.kafka.lose_answer_of_next(n),
            Fault::Fail(n) => self.kafka.fail_next(n),
            Fault::Delay(n, ms) => self.kafka.delay_next(n, ms),
            Fault::FenceForwarder(index) => self.kafka.fence(&format!("risiti-gw-{index}-default")),
            Fault::FenceSettlement(index) => {
                self.kafka.fence(&format!("risiti.settlement-s-{index}"));
            }
            Fault::Silence(index, ms) => self.kafka.silence(&format!("s-{index}"), now + ms),
            Fault::Compact => {
                self.kafka.compact(topics::POSITIONS);
                self.kafka.compact(topics::CHANGELOG);
            }
            Fault::ForgetProducers => self.kafka.forget_producers(),
            Fault::Inside(part, index, steps, hit) => self.traps.push((part, index, steps, hit)),
        }
    }

    /// Springs the traps of a process that has just made a step.
    fn spring(&mut self, part: Part, index: usize, before: usize) {
        let is_inside = before > 0 || self.kafka.open_transactions() > 0;
        let mut hit = None;
        self.traps.retain_mut(|trap| {
            if (trap.0, trap.1) != (part, index) || !is_inside || hit.is_some() {
                return true;
            }
            if trap.2 > 0 {
                trap.2 -= 1;
                return true;
            }
            hit = Some(trap.3);
            false
        });
        let Some(hit) = hit else {
            return;
        };
        self.note(|| format!("{part:?} {index}: {hit:?} inside a transaction"));
        self.hits += 1;
        let now = self.now;
        match (part, hit) {
            (Part::Forwarder, Hit::Kill(ms)) => {
                self.forwarders[index].0 = None;
                self.births.push((now + ms, true, index));
            }
            (Part::Settlement, Hit::Kill(ms)) => {
                self.settlements[index].0 = None;
                self.births.push((now + ms, false, index));
            }
            (Part::Forwarder, Hit::Freeze(ms)) => {
                if let Some(node) = &mut self.forwarders[index].0 {
                    node.freeze_until(now + ms);
                }
            }
            (Part::Settlement, Hit::Freeze(ms) | Hit::Replace(ms)) => {
                if let Some(node) = &mut self.settlements[index].0 {
                    node.freeze_until(now + ms, &mut self.kafka);
                }
            }
            (Part::Forwarder, Hit::Replace(ms)) => {
                if let Some(mut node) = self.forwarders[index].0.take() {
                    node.freeze_until(now + ms);
                    self.zombies.push((index, node, Some(now + ms)));
                    self.births.push((now + 1, true, index));
                }
            }
        }
    }

    /// Lets everything happen that is due by then.
    fn run_until(&mut self, until: Ms) -> Result<(), String> {
        loop {
            self.step_all()?;
            let mut next = self.kafka.due_ms();
            let nodes = self.forwarders.iter().filter(|(node, _)| node.is_some());
            let dues = nodes.filter_map(|(_, due)| *due);
            let nodes = self.settlements.iter().filter(|(node, _)| node.is_some());
            let dues = dues.chain(nodes.filter_map(|(_, due)| *due));
            let zombies = self.zombies.iter();
            let dues = dues.chain(zombies.filter_map(|(_, _, due)| *due));
            let dues = dues.chain(self.births.iter().map(|(due, ..)| *due));
            for due in dues {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
            match next {
                Some(next) if next <= until => self.now = next.max(self.now),
                _ => {
                    self.now = until;
                    return Ok(());
                }
            }
        }
    }

    fn step_all(&mut self) -> Result<(), String> {
        let now = self.now;
        self.kafka.step(now);
        let born: Vec<_> = self.births.iter().filter(|b| b.0 <= now).copied().collect();
        self.births.retain(|b| b.0 > now);
        for (_, is_forwarder, index) in born {
            self.note(|| format!("start {is_forwarder} {index}"));
            if is_forwarder {
                self.start_forwarder(index);
            } else {
                self.start_settlement(index);
            }
        }
        // A zombie hears that it is one, and ends: its supervisor has another.
        for (index, node, due) in &mut self.zombies {
            if due.is_some_and(|due| due <= now) {
                *due = node.step(now, &mut self.kafka, &mut self.journals[*index]);
                let letters = node.take_dead().into_iter();
                self.dead
                    .extend(letters.map(|letter| (*index, letter.record.position)));
            }
        }
        self.zombies
            .retain(|(_, node, due)| due.is_some() && node.renewals().0 == 0);
        let changed = self.kafka.changes() != self.seen;
        self.seen = self.kafka.changes();
        for index in 0..self.forwarders.len() {
            let due = self.forwarders[index].1;
            let grown = due.is_none();
            if (changed || grown || due.is_some_and(|due| due <= now))
                && let (Some(node), due) = &mut self.forwarders[index]
            {
                self.steps += 1;
                let before = self.kafka.open_transactions();
                *due = node.step(now, &mut self.kafka, &mut self.journals[index]);
                let letters = node.take_dead().into_iter();
                self.dead
                    .extend(letters.map(|letter| (index, letter.record.position)));
                self.spring(Part::Forwarder, index, before);
            }
        }
        for index in 0..self.settlements.len() {
            let due = self.settlements[index].1;
            if (changed || due.is_some_and(|due| due <= now))
                && let (Some(node), due) = &mut self.settlements[index]
            {
                self.steps += 1;
                let before = self.kafka.open_transactions();
                *due = node.step(now, &mut self.kafka);
                self.spring(Part::Settlement, index, before);
            }
        }
        if self.steps > STEPS_MAX {
            return Err(format!("{} steps at {now} ms: somebody spins", self.steps));
        }
        Ok(())
    }

    /// What may never be otherwise, and at the end what must be.
    fn judge(&self, is_end: bool) -> Result<(), String> {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        // G2, G3: each record of each journal once, in its order. Without transactions
        // it may be repeated: then each for the first time.
        let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut known: BTreeSet<(String, u64)> = BTreeSet::new();
        for record in self.kafka.committed(topics::RECORDS) {
            let journal = text(record.header("risiti-journal"));
            let position: u64 = text(record.header("risiti-position")).parse().unwrap();
            let terminal = text(record.key.as_deref());
            let is_new = known.insert((journal.clone(), position));
            if !is_new && self.course.mode == Mode::Idempotent {
                continue;
            }
            let before = last.insert((journal.clone(), terminal.clone()), position);
            if before.is_some_and(|before| before >= position) {
                return Err(format!(
                    "G2/G3: position {position} of journal {journal} comes after {before:?} of {terminal}"
                ));
            }
        }
        for (index, position) in &self.dead {
            if known.contains(&(self.journals[*index].id.clone(), *position)) {
                return Err(format!(
                    "G2: position {position} of journal {index} is in Kafka and a dead letter"
                ));
            }
        }
        let appended: usize = self
            .journals
            .iter()
            .map(|journal| journal.records.len())
            .sum();
        let count = known.len() + self.dead.len();
        if is_end && count != appended {
            return Err(format!(
                "G2: {count} of {appended} records are in Kafka or kept"
            ));
        }
        // Each payment settled once.
        let mut settled: BTreeMap<String, u32> = BTreeMap::new();
        for record in self.kafka.committed(topics::TRANSACTIONS) {
            let id = text(record.header("ce_id"));
            *settled.entry(id).or_default() += 1;
        }
        if let Some((id, times)) = settled.iter().find(|(_, times)| **times > 1) {
            return Err(format!("G2/G7: {id} is settled {times} times"));
        }
        // One receipt for each record, always the same bytes.
        let mut receipts: BTreeMap<String, (usize, Bytes)> = BTreeMap::new();
        let mut answered: BTreeMap<String, u32> = BTreeMap::new();
        for record in self.kafka.committed(topics::RECEIPTS) {
            let id = text(record.header("ce_id"));
            let bytes = record.value.clone().unwrap();
            let (times, first) = receipts.entry(id.clone()).or_insert((0, bytes.clone()));
            if *first != bytes {
                return Err(format!("G7: {id} has two different receipts"));
            }
            *times += 1;
            let place = text(record.header("risiti-record"));
            let times = answered.entry(place.clone()).or_default();
            *times += 1;
            if *times > 1 {
                return Err(format!("G2: the record at {place} is answered twice"));
            }
        }
        if is_end {
            let mut sent: BTreeMap<String, usize> = BTreeMap::new();
            for record in self.kafka.committed(topics::RECORDS) {
                *sent.entry(text(record.header("ce_id"))).or_default() += 1;
            }
            for (id, times) in &sent {
                let receipts = receipts.get(id).map_or(0, |(times, _)| *times);
                if receipts != *times {
                    return Err(format!("{id}: sent {times} times, {receipts} receipts"));
                }
                if !settled.contains_key(id) {
                    return Err(format!("{id} is not settled"));
                }
            }
            if self.kafka.open_transactions() > 0 {
                return Err("a transaction stands open".into());
            }
        }
        Ok(())
    }
}

fn scenario(rng: &mut fastrand::Rng, gateways: usize, instances: usize) -> Vec<(Ms, Fault)> {
    let mut faults = Vec::new();
    for _ in 0..rng.u32(0..=10) {
        let at = rng.u64(0..FAULTS_UNTIL_MS);
        let gateway = rng.usize(0..gateways);
        let instance = rng.usize(0..instances);
        let fault = match rng.u32(0..20) {
            0 => Fault::KillForwarder(gateway),
            1 => Fault::KillSettlement(instance),
            2 => Fault::FreezeForwarder(gateway, rng.u64(1..30_000)),
            3 => Fault::FreezeSettlement(instance, rng.u64(1..30_000)),
            4 => Fault::Down(rng.u64(1..20_000)),
            5 => Fault::Slow(rng.u64(1..10_000), rng.u64(1..2_000)),
            6 => Fault::LoseAnswers(rng.u32(1..4)),
            7 => Fault::Fail(rng.u32(1..4)),
            8 => Fault::Delay(rng.u32(1..4), rng.u64(1..20_000)),
            9 => Fault::FenceForwarder(gateway),
            10 => Fault::FenceSettlement(instance),
            11 => Fault::Silence(instance, rng.u64(1..15_000)),
            12 => Fault::Compact,
            13 => Fault::ForgetProducers,
            _ => {
                let hit = match rng.u32(0..3) {
                    0 => Hit::Kill(rng.u64(1..12_000)),
                    1 => Hit::Freeze(rng.u64(1..14_000)),
                    _ => Hit::Replace(rng.u64(1..14_000)),
                };
                let steps = rng.u32(0..8);
                if rng.bool() {
                    Fault::Inside(Part::Forwarder, gateway, steps, hit)
                } else {
                    Fault::Inside(Part::Settlement, instance, steps, hit)
                }
            }
        };
        faults.push((at, fault));
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// What a run came to.
#[derive(Debug, Clone, Copy, Default)]
struct Summary {
    records: u64,
    faults: u64,
    dead: u64,
    hits: u64,
    kafka: Counts,
}

/// One run. `traced`: what happened, in words.
fn run(seed: u64, course: Course, traced: bool) -> (Result<Summary, String>, String) {
    let mut rng = chance(seed, "scenario");
    let (gateways, instances) = (rng.usize(1..=2), rng.usize(1..=2));
    let partitions = rng.i32(1..=3);
    let mut faults = scenario(&mut rng, gateways, instances);
    if course.mode == Mode::Idempotent {
        // Then a batch in doubt comes twice: that is what the mode promises.
        faults.retain(|(_, fault)| {
            !matches!(
                fault,
                Fault::ForgetProducers | Fault::Inside(_, _, _, Hit::Replace(_))
            )
        });
    }
    let mut world = World::new(seed, gateways, instances, partitions, course);
    world.trace = traced.then(String::new);
    let terminals = rng.usize(1..=3);
    // Payments and their resends end to end, each terminal's in order.
    let mut appends: Vec<(Ms, usize, NewRecord)> = Vec::new();
    for terminal in 0..terminals {
        let mut gateway = rng.usize(0..gateways);
        let mut at = 0;
        for sequence in 1..=rng.u64(1..=6) {
            at += rng.u64(0..12_000);
            appends.push((at, gateway, record(terminal, sequence, false)));
            if rng.u8(0..4) == 0 {
                gateway = rng.usize(0..gateways);
                at += rng.u64(0..3_000);
                appends.push((at, gateway, record(terminal, sequence, true)));
            }
        }
    }
    // What no route takes, and what no broker does.
    world.kafka.refuse(Bytes::from_static(POISON));
    if course.mode == Mode::ExactlyOnce {
        for _ in 0..rng.u32(0..3) {
            let mut odd = record(rng.usize(0..terminals), 1_000, false);
            odd.identity = Identity::None;
            if rng.bool() {
                odd.topic = Bytes::from_static(b"elsewhere");
            } else {
                odd.payload = Bytes::from_static(POISON);
            }
            appends.push((rng.u64(0..FAULTS_UNTIL_MS), rng.usize(0..gateways), odd));
        }
    }
    appends.sort_by_key(|(at, ..)| *at);
    let mut summary = Summary {
        records: appends.len() as u64,
        faults: faults.len() as u64,
        dead: 0,
        hits: 0,
        kafka: Counts::default(),
    };
    let result = play(&mut world, appends, faults, &mut rng);
    summary.kafka = world.kafka.counts();
    summary.dead = world.dead.len() as u64;
    summary.hits = world.hits;
    let trace = world.trace.take().unwrap_or_default();
    (result.map(|()| summary), trace)
}

fn play(
    world: &mut World,
    appends: Vec<(Ms, usize, NewRecord)>,
    faults: Vec<(Ms, Fault)>,
    rng: &mut fastrand::Rng,
) -> Result<(), String> {
    for index in 0..world.forwarders.len() {
        world.start_forwarder(index);
    }
    for index in 0..world.settlements.len() {
        world.start_settlement(index);
    }
    let mut appends = appends.into_iter().peekable();
    let mut faults = faults.into_iter().peekable();
    loop {
        let append = appends.peek().map(|(at, ..)| *at);
        let fault = faults.peek().map(|(at, _)| *at);
        let Some(next) = append.into_iter().chain(fault).min() else {
            break;
        };
        world.run_until(next)?;
        while let Some((_, gateway, record)) = appends.next_if(|(at, ..)| *at <= next) {
            world.journals[gateway].records.push(record);
            if world.forwarders[gateway].1.is_none() {
                world.forwarders[gateway].1 = Some(next);
            }
        }
        while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= next) {
            world.apply(fault, rng);
        }
        world.judge(false)?;
    }
    let mut until = world.now;
    while until < HORIZON_MS + FAULTS_UNTIL_MS {
        until += 20_000;
        world.run_until(until)?;
        world.judge(false)?;
    }
    world.judge(true)
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().expect("a number"))
}

#[test]
fn g2_g3_g7_whatever_kafka_does_each_payment_is_settled_once_and_in_order() {
    let runs = setting("RISITI_KAFKA_RUNS", 5_000);
    let first = setting("RISITI_KAFKA_SEED", 1);
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let mut total = Summary::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| {
                    let mut sum = Summary::default();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= runs {
                            return sum;
                        }
                        let seed = first + index;
                        match run(seed, Course::default(), false).0 {
                            Ok(summary) => sum.add(summary),
                            Err(reason) => {
                                let trace = run(seed, Course::default(), true).1;
                                panic!("{reason}\n{trace}replay: RISITI_KAFKA_SEED={seed} RISITI_KAFKA_RUNS=1 cargo test -p risiti-simulation --test kafka_side g2_g3_g7");
                            }
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            total.add(worker.join().expect("no run fails"));
        }
    });
    let kafka = total.kafka;
    println!(
        r#"PROOF {{"what":"kafka-side","guarantees":"G2 G3 G7","runs":{runs},"failures":0,"seed":{first},"seconds":{},"extra":{{"records":{},"faults":{},"dead_letters":{},"inside_a_transaction":{},"commits":{},"aborts":{},"fenced":{},"answers_lost":{},"requests_lost":{},"late":{},"batches_again":{},"unstable_offsets":{},"members_lost":{}}}}}"#,
        began.elapsed().as_secs(),
        total.records,
        total.faults,
        total.dead,
        total.hits,
        kafka.committed,
        kafka.aborted,
        kafka.fenced,
        kafka.answers_lost,
        kafka.requests_lost,
        kafka.late,
        kafka.batches_again,
        kafka.unstable,
        kafka.members_lost,
    );
    if runs >= 1_000 {
        for (what, times) in [
            ("dead letters", total.dead),
            ("hits inside a transaction", total.hits),
            ("aborts", kafka.aborted),
            ("fenced requests", kafka.fenced),
            ("lost answers", kafka.answers_lost),
            ("lost requests", kafka.requests_lost),
            ("late requests", kafka.late),
            ("batches recognised", kafka.batches_again),
            ("unstable offsets", kafka.unstable),
            ("lost members", kafka.members_lost),
        ] {
            assert!(
                times > 0,
                "no {what} in {runs} runs: they show less than they say"
            );
        }
    }
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.faults += other.faults;
        self.dead += other.dead;
        self.hits += other.hits;
        let (kafka, more) = (&mut self.kafka, other.kafka);
        kafka.committed += more.committed;
        kafka.aborted += more.aborted;
        kafka.answers_lost += more.answers_lost;
        kafka.requests_lost += more.requests_lost;
        kafka.late += more.late;
        kafka.fenced += more.fenced;
        kafka.batches_again += more.batches_again;
        kafka.members_lost += more.members_lost;
        kafka.unstable += more.unstable;
    }
}

#[test]
fn without_transactions_nothing_is_lost_and_what_is_repeated_is_recognisable() {
    let course = Course {
        mode: Mode::Idempotent,
        ..Course::default()
    };
    for seed in 1..=setting("RISITI_KAFKA_RUNS", 5_000) / 5 {
        if let Err(reason) = run(seed, course, false).0 {
            panic!("seed {seed}: {reason}\n{}", run(seed, course, true).1);
        }
    }
}

/// Runs until one fails; what it fails by.
fn convicted(course: Course) -> String {
    let failed = (1..100_000).find_map(|seed| run(seed, course, false).0.err());
    failed.expect("convicted within 100,000 runs")
}

fn controlled(controls: Controls) -> Course {
    Course {
        controls,
        ..Course::default()
    }
}

#[test]
fn control_a_position_read_to_the_last_stable_offset_only_is_an_old_one() {
    let reason = convicted(Course {
        forwarders: forwarder::Wrong {
            stable_end: true,
            ..forwarder::Wrong::default()
        },
        ..Course::default()
    });
    assert!(reason.starts_with("G2"), "{reason}");
}

#[test]
fn control_without_fencing_a_forwarder_that_hung_repeats_records() {
    let reason = convicted(Course {
        forwarders: forwarder::Wrong {
            no_fencing: true,
            ..forwarder::Wrong::default()
        },
        ..Course::default()
    });
    assert!(reason.starts_with("G2"), "{reason}");
}

#[test]
fn control_a_takeover_that_does_not_wait_for_stable_offsets_settles_twice() {
    let reason = convicted(Course {
        settlements: settlement::Wrong {
            impatient: true,
            ..settlement::Wrong::default()
        },
        ..Course::default()
    });
    assert!(reason.starts_with("G"), "{reason}");
}

#[test]
fn control_with_the_position_outside_the_transaction_records_come_twice() {
    let controls = Controls {
        position_outside: true,
        ..Controls::default()
    };
    let reason = convicted(controlled(controls));
    assert!(reason.starts_with("G2/G3"), "{reason}");
}

#[test]
fn control_with_offsets_outside_the_transaction_records_are_answered_twice() {
    let controls = Controls {
        offsets_outside: true,
        ..Controls::default()
    };
    let reason = convicted(controlled(controls));
    assert!(reason.starts_with("G2"), "{reason}");
}

#[test]
fn control_without_a_memory_resends_are_settled_twice() {
    let controls = Controls {
        no_memory: true,
        ..Controls::default()
    };
    let reason = convicted(controlled(controls));
    assert!(reason.starts_with("G2/G7"), "{reason}");
}

#[test]
fn the_same_seed_takes_the_same_course() {
    for seed in 1..50 {
        assert_eq!(
            run(seed, Course::default(), true).1,
            run(seed, Course::default(), true).1
        );
    }
}
