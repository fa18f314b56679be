//! One cycle after the other, until the time is over; then the verdict.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fastrand::Rng;
use risiti_sim::mqtt::MqttVersion;
use risiti_sim::terminal::{Resend, TerminalSpec, Terminals};
use tokio::runtime::Runtime;

use super::books::{Books, Reader};
use super::crowds::{self, CrowdCounts};
use super::house::House;
use super::judge::{Quantity, Series, judge, warm_up};
use super::leaky::Leaky;
use super::report::{Peaks, Report};
use super::sampler::{Point, Sampler, Watched};
use super::trend::median;
use super::{Phase, Plan, limits, plot};

/// When a terminal sends a record again that has no receipt: longer than an ordinary
/// outage here, so that some do and most do not.
const RESEND: Resend = Resend {
    after: Duration::from_secs(15),
    longest: Duration::from_secs(60),
};

/// Runs a soak, leaves its results in the plan's directory, and judges.
///
/// # Errors
/// Something did not start, or the results can't be written. What goes wrong with
/// the house is in the report.
pub fn run(plan: &Plan) -> io::Result<Report> {
    plan.make_dir()?;
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let house = House::start(&plan.risiti, &plan.dir, plan.embedded, runtime.handle())?;
    let reader = Reader::start(&house.bootstrap)?;
    let leaky = match &plan.leak {
        Some((soak, leak)) => Some(Leaky::start(soak, *leak)?),
        None => None,
    };
    let kafka = Arc::new(AtomicU32::new(0));
    let watched = watched(&house, &kafka, leaky.as_ref());
    let csv = plan.dir.join("samples.csv");
    let sampler = Sampler::start(watched, plan.sample_every, &csv)?;
    let terminals = {
        let _inside = runtime.enter();
        Terminals::start(specs(plan, house.balancer.addr()), plan.seed)
    };
    let mut soak = Soak {
        plan,
        chance: Rng::with_seed(plan.seed),
        runtime,
        house,
        reader,
        leaky,
        kafka,
        sampler,
        terminals,
        counts: Arc::default(),
        books: Books::default(),
        marks: BTreeMap::new(),
        peaks: Peaks::default(),
        faults: Vec::new(),
    };
    let began = Instant::now();
    let mut cycles = 0;
    while cycles < plan.cycles_max
        && (cycles < plan.cycles_min() || began.elapsed() < plan.lasts)
        && soak.faults.is_empty()
    {
        soak.cycle(cycles)?;
        cycles += 1;
        println!("{}", soak.line(cycles));
    }
    soak.end(cycles, began.elapsed())
}

struct Soak<'a> {
    plan: &'a Plan,
    chance: Rng,
    terminals: Terminals,
    runtime: Runtime,
    sampler: Sampler,
    reader: Reader,
    leaky: Option<Leaky>,
    kafka: Arc<AtomicU32>,
    counts: Arc<CrowdCounts>,
    books: Books,
    /// By process and quantity, a value a cycle.
    marks: BTreeMap<(usize, Quantity), Vec<f64>>,
    peaks: Peaks,
    /// What ends a soak: going on would say nothing more.
    faults: Vec<String>,
    house: House,
}

impl Soak<'_> {
    fn cycle(&mut self, cycle: usize) -> io::Result<()> {
        if let Some(leaky) = &mut self.leaky {
            leaky.step()?;
        }
        self.terminals.work();
        for phase in Phase::ALL {
            self.sampler.phase(cycle, phase);
            let lasts = self.plan.of_cycle(phase);
            let until = Instant::now() + lasts;
            match phase {
                Phase::Steady => {}
                Phase::Storm => self.storm(until),
                Phase::Roam => self.roam(until),
                Phase::Churn => self.churn(until),
                Phase::Hostile => self.hostile(until),
                Phase::Absent => self.absent(until)?,
                Phase::Outage => self.outage(cycle, until)?,
                Phase::Drain => self.drain(cycle)?,
                Phase::Mark => self.mark(lasts),
            }
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        self.look_for_the_dead();
        Ok(())
    }

    fn gateways(&self) -> [SocketAddr; 2] {
        [self.house.gateways[0].mqtt, self.house.gateways[1].mqtt]
    }

    fn storm(&mut self, _until: Instant) {
        let [first, _] = self.gateways();
        let storm = crowds::storm(first, self.plan.storm, 2, &mut self.chance, &self.counts);
        self.runtime.block_on(storm);
    }

    fn roam(&mut self, until: Instant) {
        self.house.lead_terminals_to(Some(1));
        let to = self.gateways();
        let roam = crowds::roam(to, until.into(), &mut self.chance, &self.counts);
        self.runtime.block_on(roam);
    }

    fn churn(&mut self, until: Instant) {
        let to = self.gateways();
        let counts = &self.counts;
        let churn = crowds::churn(to, until.into(), &mut self.chance, counts);
        self.runtime.block_on(async {
            churn.await;
            for to in to {
                crowds::clear_retained(to, counts).await;
            }
        });
    }

    fn hostile(&mut self, until: Instant) {
        let to = self.gateways();
        let hostile = crowds::hostile(to, until.into(), &mut self.chance, &self.counts);
        self.runtime.block_on(hostile);
    }

    /// Payments are acknowledged, then the terminals are gone, then their receipts
    /// come.
    fn absent(&mut self, until: Instant) -> io::Result<()> {
        self.house.settlement.freeze()?;
        let half = until.saturating_duration_since(Instant::now()) / 2;
        std::thread::sleep(half);
        self.house.lead_terminals_to(None);
        self.house.settlement.thaw()?;
        let peaks = &mut self.peaks;
        let piled = self.house.wait(limits::DRAIN, |status| {
            let waiting = status.each_ref().map(|status| status.receipts.waiting);
            peaks.waiting = peaks.waiting.max(waiting[0]).max(waiting[1]);
            waiting[0] > 0
        })?;
        if !piled {
            self.faults
                .push("no receipt waited for a terminal that is away".into());
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        self.house.lead_terminals_to(Some(0));
        Ok(())
    }

    fn outage(&mut self, cycle: usize, until: Instant) -> io::Result<()> {
        let how = self.plan.outages[cycle % self.plan.outages.len()];
        let can_be_away = self.house.has_outages();
        self.house.take_kafka_away(how)?;
        self.kafka
            .store(self.house.kafka().map_or(0, |(pid, _)| pid), Relaxed);
        let to = self.gateways();
        let (clients, each) = self.plan.flood;
        let flood = crowds::flood(to, clients, each, &mut self.chance, &self.counts);
        self.runtime.block_on(flood);
        let status = self.house.status()?;
        let backlogs = status
            .iter()
            .flat_map(|status| &status.clusters)
            .map(|cluster| cluster.backlog);
        let backlog = backlogs.sum();
        self.peaks.backlog = self.peaks.backlog.max(backlog);
        if can_be_away && backlog == 0 {
            self.faults.push("no backlog grew without Kafka".into());
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        self.house.bring_kafka_back(how)?;
        self.kafka
            .store(self.house.kafka().map_or(0, |(pid, _)| pid), Relaxed);
        Ok(())
    }

    /// Everything comes home: then the epoch is closed and judged.
    fn drain(&mut self, cycle: usize) -> io::Result<()> {
        self.terminals.rest();
        let until = Instant::now() + limits::DRAIN;
        let mut last = None;
        let mut since = Instant::now();
        let home = loop {
            let totals = self.terminals.totals();
            let saved = totals.saved - self.books.base();
            let raw = self.counts.acknowledged.load(Relaxed);
            let raw = raw.saturating_sub(self.books.raw);
            let status = self.house.status()?;
            let at_rest = status.iter().all(|status| {
                status.receipts.waiting == 0
                    && status.clusters.iter().all(|cluster| cluster.backlog == 0)
            });
            let size = self.reader.look(super::books::Epoch::size);
            let [records, receipts, settled, deliveries, found_raw] = size;
            let home = at_rest
                && totals.printed == saved
                && totals.acknowledged == saved
                && records as u64 >= saved
                && receipts >= records
                && settled as u64 >= saved
                && deliveries >= receipts
                && found_raw as u64 >= raw;
            let now = Some((totals, size));
            if !home || now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() >= limits::QUIET {
                break true;
            }
            if Instant::now() > until {
                self.faults.push(format!(
                    "cycle {}: not everything came home within {} s: saved {saved}, {totals:?}; in Kafka: records {records}, receipts {receipts}, settled {settled}, deliveries {deliveries}, plain {found_raw} of {raw}; {:?}",
                    cycle + 1,
                    limits::DRAIN.as_secs(),
                    status.each_ref().map(|status| (
                        status.receipts.waiting,
                        &status.clusters,
                        &status.alarms
                    ))
                ));
                break false;
            }
            std::thread::sleep(limits::LOOK);
        };
        let (accounts, epoch) = (self.terminals.take_accounts(), self.reader.take());
        self.books.close(accounts, epoch);
        if home {
            // Sessions of visitors end by themselves; what stays shows in the marks.
            // Terminals have one at each gateway until it expires.
            let sessions = self.plan.terminals as u64 + limits::SESSIONS_SPARE;
            self.house.wait(limits::LEAVE, |status| {
                status.iter().all(|status| status.sessions <= sessions)
            })?;
        }
        Ok(())
    }

    fn mark(&mut self, lasts: Duration) {
        let mut looks: Vec<Vec<Option<Point>>> = Vec::new();
        for _ in 0..limits::MARK_SAMPLES {
            looks.push(self.sampler.look());
            std::thread::sleep(lasts / limits::MARK_SAMPLES as u32);
        }
        for (index, watched) in self.sampler.watched().iter().enumerate() {
            if !watched.judged {
                continue;
            }
            for quantity in Quantity::ALL {
                let applies = match quantity {
                    Quantity::DiskBytes => watched.dir.is_some(),
                    Quantity::Sessions | Quantity::Retained => watched.asker.is_some(),
                    _ => true,
                };
                let values: Vec<f64> = looks
                    .iter()
                    .filter_map(|look| Some(value(look.get(index)?.as_ref()?, quantity)))
                    .collect();
                if applies && let Some(value) = median(&values) {
                    self.marks.entry((index, quantity)).or_default().push(value);
                }
            }
        }
    }

    fn look_for_the_dead(&mut self) {
        let [first, second] = &mut self.house.gateways;
        for process in [
            &mut first.process,
            &mut second.process,
            &mut self.house.settlement,
        ] {
            if !process.runs() {
                self.faults.push(format!("{} has ended", process.name));
            }
        }
    }

    /// What a cycle came to.
    fn line(&self, cycles: usize) -> String {
        let of = |index: usize, quantity| {
            let values = self.marks.get(&(index, quantity))?;
            values.last().copied()
        };
        let names = self.sampler.watched().iter().enumerate();
        let marks: Vec<String> = names
            .filter(|(_, watched)| watched.judged)
            .map(|(index, watched)| {
                let told = |quantity: Quantity| {
                    of(index, quantity).map_or("-".into(), |value| quantity.told(value))
                };
                format!(
                    "{} {} fds {:.0} threads {:.0} disk {}",
                    watched.name,
                    told(Quantity::MemoryBytes),
                    of(index, Quantity::Descriptors).unwrap_or(0.0),
                    of(index, Quantity::Threads).unwrap_or(0.0),
                    told(Quantity::DiskBytes),
                )
            })
            .collect();
        format!(
            "{:6.0} s, cycle {cycles}: {} payments; {}",
            self.sampler.elapsed().as_secs_f64(),
            self.books.payments,
            marks.join("; ")
        )
    }

    fn end(self, cycles: usize, lasted: Duration) -> io::Result<Report> {
        let watched = self.sampler.watched();
        let series: Vec<Series> = self
            .marks
            .iter()
            .map(|((index, quantity), values)| Series {
                process: watched[*index].name.clone(),
                quantity: *quantity,
                values: values.clone(),
            })
            .collect();
        let warm_up = warm_up(cycles);
        let findings = judge(&series, warm_up, &self.plan.strictness);
        let title = format!(
            "Soak: {cycles} cycles in {:.1} min, {} payments",
            lasted.as_secs_f64() / 60.0,
            self.books.payments
        );
        let picture = self.sampler.with(|seen| plot::svg(&title, seen, watched));
        std::fs::write(self.plan.dir.join("soak.svg"), picture)?;
        let most: Vec<(String, Point)> = self.sampler.with(|seen| {
            let names = watched.iter().map(|one| one.name.clone());
            names.zip(seen.most.iter().copied()).collect()
        });
        let [first, second] = &self.house.gateways;
        let logs = [&first.process, &second.process, &self.house.settlement]
            .map(|process| (process.name.as_str(), process.log()));
        let report = Report::new(
            self.plan,
            cycles,
            lasted,
            warm_up,
            series.clone(),
            findings,
            &self.books,
            &self.counts,
            self.peaks,
            &most,
            &logs,
            self.faults,
        );
        report.leave(&self.plan.dir)?;
        Ok(report)
    }
}

fn value(point: &Point, quantity: Quantity) -> f64 {
    let value = match quantity {
        Quantity::MemoryBytes => point.usage.anonymous_bytes,
        Quantity::Descriptors => point.usage.descriptors,
        Quantity::Threads => point.usage.threads,
        Quantity::DiskBytes => point.usage.disk_bytes,
        Quantity::Sessions => point.sessions,
        Quantity::Retained => point.retained,
    };
    value as f64
}

fn watched(house: &House, kafka: &Arc<AtomicU32>, leaky: Option<&Leaky>) -> Vec<Watched> {
    let fixed = |pid: u32| Arc::new(AtomicU32::new(pid));
    let mut all: Vec<Watched> = house
        .gateways
        .iter()
        .map(|gateway| Watched {
            name: gateway.process.name.clone(),
            pid: fixed(gateway.process.pid()),
            dir: gateway.process.dir.clone(),
            asker: Some(gateway.asker.clone()),
            judged: true,
        })
        .collect();
    let plain = |name: &str, pid| Watched {
        name: name.into(),
        pid,
        dir: None,
        asker: None,
        judged: true,
    };
    all.push(plain("settlement", fixed(house.settlement.pid())));
    all.push(plain("soak", fixed(std::process::id())));
    if let Some(leaky) = leaky {
        all.push(plain("leaky", fixed(leaky.pid())));
    }
    if let Some((pid, dir)) = house.kafka() {
        kafka.store(pid, Relaxed);
        // Its memory is the virtual machine's, its disk its retention's: not ours to
        // judge.
        all.push(Watched {
            dir: Some(dir),
            judged: false,
            ..plain("kafka", Arc::clone(kafka))
        });
    }
    all
}

fn specs(plan: &Plan, balancer: SocketAddr) -> Vec<TerminalSpec> {
    let windows = [20, 1, 7, 4, 13];
    (0..plan.terminals)
        .map(|n| TerminalSpec {
            id: format!("t{n}"),
            gateway: balancer,
            version: if n % 2 == 0 {
                MqttVersion::V3_1_1
            } else {
                MqttVersion::V5
            },
            window: windows[n % windows.len()],
            payments: None,
            per_second: plan.per_second,
            resend: Some(RESEND),
            power: None,
            away: None,
            prints_before_saving: false,
        })
        .collect()
}

/// A storm has thousands of connections, each with a descriptor here.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
