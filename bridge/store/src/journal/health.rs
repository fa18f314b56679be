//! The journal in numbers.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::alarm::Alarm;
use crate::record::Position;

use super::Shared;

/// Upper bounds of the sync latency buckets, microseconds; one more bucket
/// counts what took longer.
pub const SYNC_BUCKETS_US: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000,
];

/// Damage alarms kept for the operator, newest last.
const ALARMS_MAX: usize = 16;

/// The journal in plain numbers. Counters count since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// One past the last durable position.
    pub end: Position,
    /// The first position still held.
    pub oldest: Position,
    /// By consumer.
    pub consumers: BTreeMap<String, ConsumerHealth>,
    /// What journal and state take on disk, bytes.
    pub used_bytes: u64,
    /// What they may take, bytes.
    pub budget_bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// Generations on disk.
    pub generations: u64,
    /// Appends without an outcome yet.
    pub queued: u64,
    /// Set while appends are withheld (G8).
    pub withheld: Option<Withheld>,
    /// Records appended and made durable.
    pub appended: u64,
    /// Resends that were recognised (G2).
    pub duplicates: u64,
    /// Records below their terminal's dedup window, accepted: reset terminals.
    pub below_window: u64,
    /// Records refused for good as too large.
    pub too_large: u64,
    /// Acknowledged positions known to be lost to damage (G11).
    pub damaged_positions: u64,
    /// Generations in which damage was met.
    pub quarantined_generations: u64,
    /// Syncs done.
    pub syncs: u64,
    /// Their time together.
    pub sync_time: Duration,
    /// Syncs by [`SYNC_BUCKETS_US`], not cumulative; the last counts the rest.
    pub sync_buckets: [u64; SYNC_BUCKETS_US.len() + 1],
    /// Records of the largest commit group.
    pub group_records_max: u64,
    /// Writes or syncs that failed.
    pub write_failures: u64,
    /// What an operator must hear of, newest last.
    pub alarms: Vec<Alarm>,
}

/// How far a consumer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerHealth {
    /// It needs nothing below.
    pub released: Position,
    /// Records it has not released.
    pub backlog: u64,
}

/// Appends are withheld: no outcome until the reason is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// Records that wait.
    pub records: u64,
    /// Why.
    pub alarm: Alarm,
    /// For how long.
    pub since: Duration,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) withheld: Option<(u64, Alarm, Instant)>,
    pub(super) appended: u64,
    pub(super) duplicates: u64,
    pub(super) below_window: u64,
    pub(super) too_large: u64,
    pub(super) damaged_positions: u64,
    pub(super) quarantined_generations: u64,
    pub(super) syncs: u64,
    pub(super) sync_time: Duration,
    pub(super) sync_buckets: [u64; SYNC_BUCKETS_US.len() + 1],
    pub(super) group_records_max: u64,
    pub(super) write_failures: u64,
    alarms: VecDeque<Alarm>,
}

impl Counters {
    pub(super) fn note_sync(&mut self, took: Duration) {
        self.syncs += 1;
        self.sync_time += took;
        let took_us = took.as_micros() as u64;
        let bucket = SYNC_BUCKETS_US.partition_point(|bound| *bound < took_us);
        self.sync_buckets[bucket] += 1;
    }

    pub(super) fn note_alarm(&mut self, alarm: Alarm) {
        if self.alarms.len() >= ALARMS_MAX {
            self.alarms.pop_front();
        }
        self.alarms.push_back(alarm);
    }

    pub(super) fn withhold(&mut self, records: u64, alarm: Alarm) {
        let since = self.withheld.as_ref().map_or_else(Instant::now, |w| w.2);
        self.withheld = Some((records, alarm, since));
    }
}

impl Shared {
    pub(super) fn health(&self) -> Health {
        let queued = self.queue.lock().work.len() as u64;
        let (used_bytes, free_bytes) = self.disk.usage();
        let mut health = Health {
            used_bytes,
            free_bytes,
            budget_bytes: self.disk.budget_bytes(),
            queued,
            ..Health::default()
        };
        {
            let progress = self.progress.lock();
            let positions = &progress.positions;
            health.end = positions.end();
            health.oldest = positions.oldest();
            health.generations = positions.generations().len() as u64;
            for (consumer, released) in positions.released() {
                let from = (*released).max(health.oldest);
                let backlog = positions.end().saturating_sub(from);
                let consumer_health = ConsumerHealth {
                    released: *released,
                    backlog,
                };
                health.consumers.insert(consumer.clone(), consumer_health);
            }
        }
        let counters = self.counters.lock();
        health.withheld = counters
            .withheld
            .as_ref()
            .map(|(records, alarm, since)| Withheld {
                records: records + queued,
                alarm: alarm.clone(),
                since: since.elapsed(),
            });
        health.queued += counters.withheld.as_ref().map_or(0, |w| w.0);
        health.appended = counters.appended;
        health.duplicates = counters.duplicates;
        health.below_window = counters.below_window;
        health.too_large = counters.too_large;
        health.damaged_positions = counters.damaged_positions;
        health.quarantined_generations = counters.quarantined_generations;
        health.syncs = counters.syncs;
        health.sync_time = counters.sync_time;
        health.sync_buckets = counters.sync_buckets;
        health.group_records_max = counters.group_records_max;
        health.write_failures = counters.write_failures;
        health.alarms = counters.alarms.iter().cloned().collect();
        if let Some((_, alarm, _)) = &counters.withheld {
            health.alarms.push(alarm.clone());
        }
        health
    }
}
