//! Looks at all processes every few seconds, for the table and the picture.
//!
//! Promises: each look is in the table (`samples.csv`) at once; in memory only as
//! many points as are drawn. Never: a look that waits for a gateway for ever.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Phase;
use super::house::Asker;
use super::limits;
use super::sample::{Usage, usage};

/// A process that is looked at.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What the soak calls it.
    pub name: String,
    /// Its number, 0 while it does not run.
    pub pid: Arc<AtomicU32>,
    /// Its data.
    pub dir: Option<PathBuf>,
    /// How it is asked, if it is a gateway.
    pub asker: Option<Asker>,
    /// Whether it is ours, and judged and drawn.
    pub judged: bool,
}

/// What one process was at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Point {
    /// What it took.
    pub usage: Usage,
    /// Records taken since its start.
    pub records: u64,
    /// Receipts delivered since its start.
    pub delivered: u64,
    /// Receipts that wait for their terminals.
    pub waiting: u64,
    /// Records that are not in Kafka yet.
    pub backlog: u64,
    /// Connections.
    pub connections: u64,
    /// Sessions.
    pub sessions: u64,
    /// Retained messages.
    pub retained: u64,
}

/// All processes at one moment; a process that did not run has none.
#[derive(Debug, Clone)]
pub struct Row {
    /// Since the begin.
    pub at: Duration,
    /// In the order of the processes.
    pub points: Vec<Option<Point>>,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every `stride`th look.
    pub rows: Vec<Row>,
    stride: usize,
    looks: usize,
    /// Phases as they began.
    pub phases: Vec<(Duration, Phase)>,
    /// The most of everything, by process.
    pub most: Vec<Point>,
    cycle: usize,
}

impl Seen {
    fn take(&mut self, row: Row) {
        self.most.resize(row.points.len(), Point::default());
        for (most, point) in self.most.iter_mut().zip(&row.points) {
            if let Some(point) = point {
                most.raise(point);
            }
        }
        if self.looks.is_multiple_of(self.stride.max(1)) {
            self.rows.push(row);
        }
        self.looks += 1;
        if self.rows.len() >= limits::POINTS_MAX {
            let mut nth = 0;
            self.rows.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.stride = self.stride.max(1) * 2;
        }
    }
}

impl Point {
    fn raise(&mut self, other: &Self) {
        let Usage {
            resident_bytes,
            anonymous_bytes,
            descriptors,
            threads,
            disk_bytes,
        } = other.usage;
        let usage = &mut self.usage;
        for (most, now) in [
            (&mut usage.resident_bytes, resident_bytes),
            (&mut usage.anonymous_bytes, anonymous_bytes),
            (&mut usage.descriptors, descriptors),
            (&mut usage.threads, threads),
            (&mut usage.disk_bytes, disk_bytes),
            (&mut self.waiting, other.waiting),
            (&mut self.backlog, other.backlog),
            (&mut self.connections, other.connections),
            (&mut self.sessions, other.sessions),
            (&mut self.retained, other.retained),
            (&mut self.records, other.records),
            (&mut self.delivered, other.delivered),
        ] {
            *most = now.max(*most);
        }
    }
}

/// The table's head.
const HEAD: &str = "seconds,cycle,phase,process,resident_bytes,anonymous_bytes,descriptors,\
threads,disk_bytes,connections,sessions,retained,records,receipts_delivered,\
receipts_waiting,backlog";

/// Looks for as long as it lives.
#[derive(Debug)]
pub struct Sampler {
    began: Instant,
    watched: Vec<Watched>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Sampler {
    /// Begins, with its table at `csv`.
    ///
    /// # Errors
    /// The table can't be written.
    pub fn start(watched: Vec<Watched>, every: Duration, csv: &Path) -> io::Result<Self> {
        let mut table = File::create(csv)?;
        writeln!(table, "{HEAD}")?;
        let began = Instant::now();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (watched, seen, stop) = (watched.clone(), Arc::clone(&seen), Arc::clone(&stop));
            move || {
                let mut next = began;
                while !stop.load(Relaxed) {
                    let at = began.elapsed();
                    let points: Vec<_> = watched.iter().map(look).collect();
                    let (cycle, phase) = {
                        let seen = lock(&seen);
                        (seen.cycle, seen.phases.last().map_or("", |(_, p)| p.name()))
                    };
                    let lead = format!("{:.1},{cycle},{phase}", at.as_secs_f64());
                    for (watched, point) in watched.iter().zip(&points) {
                        if let Some(point) = point {
                            writeln!(table, "{lead},{},{}", watched.name, csv_fields(point))?;
                        }
                    }
                    lock(&seen).take(Row { at, points });
                    next += every;
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                Ok(())
            }
        });
        Ok(Self {
            began,
            watched,
            seen,
            stop,
            thread: Some(thread),
        })
    }

    /// A phase begins.
    pub fn phase(&self, cycle: usize, phase: Phase) {
        let mut seen = lock(&self.seen);
        seen.cycle = cycle;
        seen.phases.push((self.began.elapsed(), phase));
    }

    /// Since the begin.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The processes.
    #[must_use]
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// One look now, at all processes in their order.
    #[must_use]
    pub fn look(&self) -> Vec<Option<Point>> {
        self.watched.iter().map(look).collect()
    }

    /// What was seen so far.
    pub fn with<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&lock(&self.seen))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(watched: &Watched) -> Option<Point> {
    let pid = watched.pid.load(Relaxed);
    if pid == 0 {
        return None;
    }
    let mut point = Point {
        usage: usage(pid, watched.dir.as_deref()).ok()?,
        ..Point::default()
    };
    if let Some(asker) = &watched.asker
        && let Ok(status) = asker.status()
    {
        point.records = status.records;
        point.delivered = status.receipts.delivered;
        point.waiting = status.receipts.waiting;
        point.backlog = status.clusters.iter().map(|cluster| cluster.backlog).sum();
        point.connections = status.connections;
        point.sessions = status.sessions;
        point.retained = status.retained;
    }
    Some(point)
}

fn csv_fields(point: &Point) -> String {
    let usage = &point.usage;
    [
        usage.resident_bytes,
        usage.anonymous_bytes,
        usage.descriptors,
        usage.threads,
        usage.disk_bytes,
        point.connections,
        point.sessions,
        point.retained,
        point.records,
        point.delivered,
        point.waiting,
        point.backlog,
    ]
    .map(|value| value.to_string())
    .join(",")
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_soak_keeps_a_bounded_number_of_points_over_all_of_its_time() {
        let mut seen = Seen::default();
        for second in 0..50_000 {
            seen.take(Row {
                at: Duration::from_secs(second),
                points: vec![Some(Point {
                    waiting: second % 1_000,
                    ..Point::default()
                })],
            });
        }
        assert!(seen.rows.len() < limits::POINTS_MAX);
        assert!(seen.rows.len() > limits::POINTS_MAX / 3);
        assert_eq!(seen.rows[0].at, Duration::ZERO);
        assert!(seen.rows.last().unwrap().at > Duration::from_secs(49_000));
        assert_eq!(seen.most[0].waiting, 999);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("samples.csv");
        let watched = Watched {
            name: "soak".into(),
            pid: Arc::new(AtomicU32::new(std::process::id())),
            dir: None,
            asker: None,
            judged: true,
        };
        let sampler = Sampler::start(vec![watched], Duration::from_millis(5), &csv).unwrap();
        sampler.phase(3, Phase::Storm);
        let enough = |seen: &Seen| seen.rows.len() >= 5;
        while !sampler.with(enough) {
            std::thread::yield_now();
        }
        drop(sampler);
        let table = std::fs::read_to_string(csv).unwrap();
        let columns = HEAD.split(',').count();
        assert!(table.lines().all(|line| line.split(',').count() == columns));
        assert!(table.contains(",3,storm,soak,"), "{table}");
    }
}
