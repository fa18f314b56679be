//! The thread that commits: one group, one sled batch, one sync, then outcomes.
//!
//! One sled batch a sync is not only for atomicity. sled frees and reuses a
//! segment once the relocated copies of its pages count as stable, which to
//! sled means `sync_file_range`. Inside one batch nothing counts as stable, and
//! the next batch begins behind our own sync: so no copy that a power cut could
//! take back is ever the only one.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

use crate::mark::Mark;
use crate::{StoreError, limits};

use super::batch::{bytes_of, pieces_of};
use super::fresh::{self, NotCompacted};
use super::log::{self, Appended, LogEnd, LogWriter};
use super::sweep::Sweep;
use super::writes::Writes;
use super::{CommitSink, Queue, Shared, Work, read};

/// Where the committer begins.
pub(super) struct Start {
    /// The last stamp used, durable.
    pub(super) stamp: u64,
    pub(super) mark: Mark,
    pub(super) log: LogWriter,
    /// How far the row log reaches with it.
    pub(super) log_end: LogEnd,
}

pub(super) fn spawn(shared: Arc<Shared>, start: Start) -> Result<JoinHandle<()>, StoreError> {
    let dir = shared.dir.clone();
    std::thread::Builder::new()
        .name("state-commit".to_string())
        .spawn(move || {
            Committer {
                shared,
                stamp: start.stamp,
                mark: start.mark,
                mark_written: Instant::now(),
                sweep: Sweep::default(),
                log: start.log,
                log_end: start.log_end,
                displaced: false,
            }
            .run();
        })
        .map_err(|e| StoreError::io("start the committer of", &dir, e))
}

struct Committer {
    shared: Arc<Shared>,
    /// The last stamp that is durable.
    stamp: u64,
    mark: Mark,
    mark_written: Instant,
    sweep: Sweep,
    log: LogWriter,
    /// How far the row log reached with `stamp`.
    log_end: LogEnd,
    /// Whether a compaction got stuck half-way: the contents must move before anything
    /// is written.
    displaced: bool,
}

type Sink = (Arc<dyn CommitSink>, u64);

impl Committer {
    fn run(mut self) {
        while let Some(group) = self.next_group() {
            if !self.commit(&group) {
                self.give_up(group);
                break;
            }
            self.settle(group);
            self.keep_small();
            self.write_mark(false);
        }
        self.write_mark(true);
    }

    /// Waits for work; an empty group if the row log has some of its own; `None` when closing and nothing is left.
    fn next_group(&mut self) -> Option<Vec<Work>> {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        while queue.work.is_empty() {
            if queue.closing {
                return None;
            }
            if self.log.has_work(&shared.rows) {
                return Some(Vec::new());
            }
            let mark_due = self.mark.value() < self.stamp;
            if mark_due {
                let period = Duration::from_millis(limits::MARK_MS);
                if shared.arrived.wait_for(&mut queue, period).timed_out() {
                    drop(queue);
                    self.write_mark(true);
                    queue = shared.queue.lock();
                }
            } else {
                shared.arrived.wait(&mut queue);
            }
        }
        Some(take_group(&mut queue))
    }

    /// Commits, however long it takes; `false` only if the state closes.
    fn commit(&mut self, group: &[Work]) -> bool {
        let mut retry_ms = limits::RETRY_MS_MIN;
        let asked = |work: &Work| matches!(work, Work::Rebuild { .. });
        let mut failed = self.displaced || group.iter().any(asked);
        let mut logged = None;
        loop {
            let result = match self.write_log(group, &mut logged) {
                Err(error) => Err(error),
                Ok(()) if failed => self
                    .move_to_fresh()
                    .and_then(|()| self.write(group, logged.as_ref())),
                Ok(()) => {
                    let written = self.write(group, logged.as_ref());
                    failed = written.is_err();
                    written
                }
            };
            let error = match result {
                Ok(()) => {
                    self.show(logged.as_ref());
                    self.shared.health.lock().stalled = None;
                    return true;
                }
                Err(e) => e,
            };
            tracing::error!(%error, "state: commit failed, outcomes are withheld");
            self.shared.health.lock().stalled = Some(error.to_string());
            if error.is_full() && self.shared.disk.drop_ballast() {
                continue;
            }
            let mut queue = self.shared.queue.lock();
            if queue.closing {
                return false;
            }
            let until = Instant::now() + Duration::from_millis(retry_ms);
            while !queue.closing
                && !self
                    .shared
                    .arrived
                    .wait_until(&mut queue, until)
                    .timed_out()
            {}
            retry_ms = (retry_ms * 2).min(limits::RETRY_MS_MAX);
        }
    }

    fn move_to_fresh(&mut self) -> Result<(), StoreError> {
        let damage = fresh::move_to_fresh(&self.shared, self.stamp, self.log_end)?;
        self.displaced = false;
        let mut health = self.shared.health.lock();
        health.rebuilds += 1;
        if damage.is_some() {
            health.damage = damage;
        }
        drop(health);
        self.shared.rebuild_asked.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Writes the database anew if it takes far more room than what lives in it, as the
    /// last sweep has found.
    fn keep_small(&mut self) {
        let Some(live) = self.sweep.take_found() else {
            return;
        };
        let path = self.shared.dir.join("db").join("db");
        let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        let lean = live.saturating_mul(limits::STATE_COMPACT_FACTOR);
        if bytes <= lean.max(self.shared.compact_bytes_min) || self.shared.queue.lock().closing {
            return;
        }
        match fresh::compact(&self.shared, self.stamp, self.log_end) {
            Ok(()) => {
                tracing::info!(bytes, live, "state: written anew, without what is dead");
                self.shared.health.lock().compactions += 1;
            }
            Err(NotCompacted::Kept(error)) => {
                tracing::warn!(%error, "state: can't be written anew now, and stays as it is");
            }
            Err(NotCompacted::Displaced(error)) => {
                tracing::warn!(%error, "state: was written anew, and is not in its place yet");
                self.displaced = true;
            }
        }
    }

    /// Appends to the row log what belongs there, once: a commit that touches
    /// numbered rows stands there whole before sled hears of it.
    fn write_log(
        &mut self,
        group: &[Work],
        logged: &mut Option<Appended>,
    ) -> Result<(), StoreError> {
        if logged.is_some() {
            return Ok(());
        }
        let rows = &self.shared.rows;
        let mut log_group = rows.group(self.stamp + 1);
        let mut damaged = Vec::new();
        let mut numbered = false;
        for work in group {
            match work {
                Work::Commit { batch, .. } => {
                    let mut keys = batch.operations.iter().map(|(key, _)| key);
                    numbered |= keys.any(|key| log::is_numbered(key));
                }
                Work::DropRow { key } => {
                    // Several readers may have met it.
                    let told = log_group.touches(key);
                    if !told
                        && matches!(
                            read::row(&self.shared, key),
                            Err(StoreError::Damaged { .. })
                        )
                    {
                        damaged.push(rows.raw(key).unwrap_or_default());
                        log_group.row(key, None);
                    }
                }
                Work::SetAside { .. } | Work::Rebuild { .. } => {}
            }
        }
        if numbered {
            for work in group {
                if let Work::Commit { batch, .. } = work {
                    log_group.add(batch);
                }
            }
        }
        damaged.extend(self.log.move_some(rows, &mut log_group)?);
        for bytes in &damaged {
            self.shared.quarantine.take_bytes(bytes, "state-row")?;
        }
        self.shared.health.lock().damaged_values += damaged.len() as u64;
        if log_group.is_empty() {
            return Ok(());
        }
        let options = &self.shared.database_options;
        let appended = self.log.append(rows, log_group, options)?;
        self.shared.disk.wrote(appended.bytes());
        *logged = Some(appended);
        Ok(())
    }

    /// Shows readers what the row log has, and lets go of its dead files.
    fn show(&mut self, logged: Option<&Appended>) {
        if let Some(appended) = logged {
            self.log.publish(&self.shared.rows, appended);
        }
        match self.log.remove_dead(&self.shared.rows) {
            Ok(true) => self.shared.disk.changed(),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "state: a dead file of the row log stays"),
        }
    }

    fn write(&mut self, group: &[Work], logged: Option<&Appended>) -> Result<(), StoreError> {
        let database = self.shared.database()?;
        let stamp = self.stamp + 1;
        let mut writes = Writes::default();
        if let Some(appended) = logged {
            writes.log_end(appended.end());
        }
        for work in group {
            match work {
                Work::DropRow { .. } => {}
                Work::Commit { batch, .. } => writes.add(batch, &database)?,
                Work::Rebuild { reason } => {
                    tracing::error!(%reason, "state: damage met while reading, contents moved");
                }
                Work::SetAside { stored_key, bytes } => {
                    // Several readers may have met it.
                    let told = writes.removes.contains(stored_key);
                    if !told && database.get(stored_key)?.is_some_and(|now| now == *bytes) {
                        self.shared.quarantine.take_bytes(bytes, "state-value")?;
                        self.shared.health.lock().damaged_values += 1;
                        writes.removes.push(stored_key.clone());
                    }
                }
            }
        }
        let compact_bytes_min = self.shared.compact_bytes_min;
        self.sweep
            .go_on(&mut writes, &database, stamp, compact_bytes_min)?;
        let tombstones = writes.tombstones();
        let written_bytes = writes.apply(&database, stamp, self.stamp)?;
        database.sync()?;
        self.shared.disk.wrote(written_bytes as u64);
        self.sweep.note(tombstones, written_bytes as u64, stamp);
        self.stamp = stamp;
        if let Some(appended) = logged {
            self.log_end = appended.end();
        }
        self.shared.health.lock().syncs += 1;
        Ok(())
    }

    fn settle(&self, group: Vec<Work>) {
        let sinks = sinks_of(group);
        self.shared.health.lock().committed_batches += sinks.len() as u64;
        for (sink, token) in sinks.into_iter().flatten() {
            sink.committed(token, Ok(()));
        }
    }

    fn give_up(&self, group: Vec<Work>) {
        let rest: Vec<Work> = {
            let mut queue = self.shared.queue.lock();
            queue.bytes = 0;
            queue.work.drain(..).collect()
        };
        for (sink, token) in sinks_of(group).into_iter().chain(sinks_of(rest)).flatten() {
            sink.committed(token, Err(StoreError::Closing));
        }
    }

    fn write_mark(&mut self, now: bool) {
        if !now && self.mark_written.elapsed() < Duration::from_millis(limits::MARK_MS) {
            return;
        }
        if let Err(error) = self.mark.raise(self.stamp) {
            tracing::warn!(%error, "state: the mark could not be written");
        }
        self.mark_written = Instant::now();
    }
}

/// As much as fits one sled batch. A key that comes again counts once: a terminal
/// that takes twenty receipts changes its own row twenty times.
fn take_group(queue: &mut Queue) -> Vec<Work> {
    let mut group = Vec::new();
    let mut keys: HashSet<u64> = HashSet::new();
    let (mut others, mut bytes) = (0, 0);
    while let Some(work) = queue.work.front() {
        let (mut work_keys, mut work_others) = (Vec::new(), 0);
        match work {
            Work::Commit { batch, .. } => {
                for (key, value) in &batch.operations {
                    // Numbered rows go elsewhere.
                    if !log::is_numbered(key) {
                        work_keys.push(xxh3_64(key));
                        work_others += pieces_of(bytes_of(value.as_ref()));
                    }
                }
            }
            Work::SetAside { .. } | Work::DropRow { .. } | Work::Rebuild { .. } => work_others = 1,
        }
        // At most, for what stands twice in one batch.
        let work_new = work_keys.iter().filter(|key| !keys.contains(key)).count();
        let full = keys.len() + work_new + others + work_others > limits::BATCH_KEYS_MAX
            || bytes + work.bytes() > limits::STATE_GROUP_BYTES_MAX;
        if full && !group.is_empty() {
            break;
        }
        keys.extend(work_keys);
        others += work_others;
        bytes += work.bytes();
        queue.bytes -= work.bytes();
        group.extend(queue.work.pop_front());
    }
    group
}

fn sinks_of(group: Vec<Work>) -> Vec<Option<Sink>> {
    group
        .into_iter()
        .filter_map(|work| match work {
            Work::Commit { sink, .. } => Some(sink),
            Work::SetAside { .. } | Work::DropRow { .. } | Work::Rebuild { .. } => None,
        })
        .collect()
}
