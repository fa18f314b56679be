//! The thread that commits: takes whatever arrived while the last sync ran, and
//! gives all outcomes after one sync.
//!
//! A group is one sled batch where it fits, for the reason that stands in the
//! state's committer; and the database is fresh and only appended to.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::alarm::Alarm;
use crate::database::Database;
use crate::mark::Mark;
use crate::record::{AckSink, NewRecord, Outcome, Position, Record};
use crate::{StoreError, files, limits};

use super::clients::Clients;
use super::dedup::Verdict;
use super::generation::Generation;
use super::pack::{self, Packer};
use super::{Queue, Shared, Work};

/// Where the committer begins.
pub(super) struct Start {
    pub(super) clients: Clients,
    pub(super) mark: Mark,
    pub(super) end: Position,
    /// The number of the next generation.
    pub(super) number: u64,
}

pub(super) fn spawn(shared: Arc<Shared>, start: Start) -> Result<JoinHandle<()>, StoreError> {
    let dir = shared.dir.clone();
    let waker = Arc::downgrade(&shared);
    start.clients.steps_done().on_done(Box::new(move || {
        if let Some(shared) = waker.upgrade() {
            shared.wake();
        }
    }));
    std::thread::Builder::new()
        .name("journal-commit".to_string())
        .spawn(move || {
            Committer {
                shared,
                clients: start.clients,
                mark: start.mark,
                mark_written: Instant::now(),
                end: start.end,
                next_number: start.number,
                writing: None,
                sealed_end: start.end,
            }
            .run();
        })
        .map_err(|e| StoreError::io("start the committer of", &dir, e))
}

struct Committer {
    shared: Arc<Shared>,
    clients: Clients,
    mark: Mark,
    mark_written: Instant,
    /// One past the last durable position.
    end: Position,
    next_number: u64,
    writing: Option<Writing>,
    /// Where the last sealed generation ended: the next checkpoint's position.
    sealed_end: Position,
}

/// The generation that is being written.
struct Writing {
    generation: Generation,
    database: Arc<Database>,
    bytes: u64,
}

/// A group, judged: what to write, and what to tell whom afterwards.
#[derive(Default)]
struct Judged {
    records: Vec<NewRecord>,
    bytes: usize,
    outcomes: Vec<(Arc<dyn AckSink>, u64, Verdict)>,
    too_large: u64,
    below_window: u64,
    duplicates: u64,
}

/// How many steps of a checkpoint closing waits for, at most: a step is
/// [`limits::CHECKPOINT_STEP_BYTES`], and [`limits::PACKETS_TOTAL_MAX`] bounds all.
const CLOSING_WAIT: Duration = Duration::from_secs(5);

impl Committer {
    fn run(mut self) {
        // The checkpoint that recovery began.
        self.keep_house();
        while let Some(group) = self.next_group() {
            if !group.is_empty() && !self.commit(group) {
                self.give_up();
                break;
            }
            self.keep_house();
        }
        self.close();
    }

    /// Waits for work; an empty group if something else is due; `None` when
    /// closing and nothing is left.
    fn next_group(&mut self) -> Option<Vec<Work>> {
        let mark_due = self.mark.value() < self.end;
        let mut queue = self.shared.queue.lock();
        loop {
            if !queue.work.is_empty() {
                return Some(take_group(&mut queue));
            }
            if std::mem::take(&mut queue.wake) {
                return Some(Vec::new());
            }
            if queue.closing {
                return None;
            }
            if !mark_due {
                self.shared.arrived.wait(&mut queue);
                continue;
            }
            let period = Duration::from_millis(limits::MARK_MS);
            if self.shared.arrived.wait_for(&mut queue, period).timed_out() {
                return Some(Vec::new());
            }
        }
    }

    /// Commits a group, however long it takes; `false` only if the journal
    /// closes before it could.
    fn commit(&mut self, group: Vec<Work>) -> bool {
        let Some(judged) = self.judge(group) else {
            return false;
        };
        let first = self.end;
        if !judged.records.is_empty() && !self.store(&judged) {
            for (sink, token, _) in judged.outcomes {
                sink.settled(token, Outcome::Closing);
            }
            return false;
        }
        {
            let mut counters = self.shared.counters.lock();
            counters.appended += judged.records.len() as u64;
            counters.duplicates += judged.duplicates;
            counters.below_window += judged.below_window;
            counters.too_large += judged.too_large;
            counters.group_records_max =
                counters.group_records_max.max(judged.records.len() as u64);
        }
        if let Some(observer) = &self.shared.options.observer
            && !judged.records.is_empty()
        {
            observer.durable(first, &judged.records);
        }
        {
            let mut progress = self.shared.progress.lock();
            for (position, record) in (first..).zip(judged.records) {
                progress.tail.push(Record { position, record });
            }
            progress.end = self.end;
        }
        self.shared.advanced.notify_all();
        let mut position = first;
        for (sink, token, verdict) in judged.outcomes {
            let outcome = match verdict {
                Verdict::New | Verdict::NewBelowWindow => {
                    position += 1;
                    Outcome::Durable {
                        position: position - 1,
                    }
                }
                Verdict::Duplicate => Outcome::Duplicate,
                Verdict::TooLarge => Outcome::TooLarge,
            };
            sink.settled(token, outcome);
        }
        true
    }

    /// `None` only if the journal closes while the state can't be read.
    fn judge(&mut self, group: Vec<Work>) -> Option<Judged> {
        let mut judged = Judged::default();
        let mut closing = false;
        for work in group {
            let (record, sink, token) = match work {
                Work::Append {
                    record,
                    sink,
                    token,
                } => (record, sink, token),
                Work::Forget { client_id } => {
                    closing = closing
                        || self
                            .until_it_works(|clients| clients.forget(&client_id))
                            .is_none();
                    continue;
                }
            };
            let verdict = if closing {
                None
            } else if !pack::fits(&record) {
                Some(Verdict::TooLarge)
            } else if self.shared.options.dedup {
                self.until_it_works(|clients| clients.accept(&record))
            } else {
                Some(Verdict::New)
            };
            let Some(verdict) = verdict else {
                closing = true;
                sink.settled(token, Outcome::Closing);
                continue;
            };
            match verdict {
                Verdict::TooLarge => judged.too_large += 1,
                Verdict::Duplicate => judged.duplicates += 1,
                Verdict::NewBelowWindow => judged.below_window += 1,
                Verdict::New => {}
            }
            if matches!(verdict, Verdict::New | Verdict::NewBelowWindow) {
                judged.bytes += pack::record_bytes(&record);
                judged.records.push(record);
            }
            judged.outcomes.push((sink, token, verdict));
        }
        if closing {
            for (sink, token, _) in judged.outcomes {
                sink.settled(token, Outcome::Closing);
            }
            return None;
        }
        Some(judged)
    }

    /// Asks the dedup states, which may have to be read from disk.
    fn until_it_works<T>(
        &mut self,
        mut ask: impl FnMut(&mut Clients) -> Result<T, StoreError>,
    ) -> Option<T> {
        let mut retry_ms = limits::RETRY_MS_MIN;
        loop {
            match ask(&mut self.clients) {
                Ok(answer) => {
                    if retry_ms > limits::RETRY_MS_MIN {
                        self.shared.counters.lock().withheld = None;
                    }
                    return Some(answer);
                }
                Err(error) => self.withhold(0, failed(&error)),
            }
            if !self.pause(retry_ms) {
                return None;
            }
            retry_ms = (retry_ms * 2).min(limits::RETRY_MS_MAX);
        }
    }

    /// Writes and syncs the records; waits for space and for the disk.
    fn store(&mut self, judged: &Judged) -> bool {
        let records = judged.records.len() as u64;
        let mut retry_ms = limits::RETRY_MS_MIN;
        loop {
            if let Some(alarm) = self.shared.disk.refuses(judged.bytes as u64) {
                self.withhold(records, alarm);
                self.shared.delete_released();
                if !self.pause(limits::SPACE_CHECK_MS) {
                    return false;
                }
                continue;
            }
            let error = match self.try_store(&judged.records) {
                Ok(()) => break,
                Err(e) => e,
            };
            tracing::error!(%error, "journal: writing failed, outcomes are withheld");
            self.withhold(records, failed(&error));
            self.shared.counters.lock().write_failures += 1;
            // Whatever is in it now was acknowledged before, or counts nothing.
            self.stop_writing();
            if error.is_full() && self.shared.disk.drop_ballast() {
                continue;
            }
            if !self.pause(retry_ms) {
                return false;
            }
            retry_ms = (retry_ms * 2).min(limits::RETRY_MS_MAX);
        }
        let mut counters = self.shared.counters.lock();
        if counters.withheld.take().is_some() {
            drop(counters);
            tracing::info!("journal: appends go on");
            self.shared.disk.lay_ballast();
        }
        self.end += records;
        true
    }

    fn try_store(&mut self, records: &[NewRecord]) -> Result<(), StoreError> {
        let end = self.end;
        let id = self.shared.id;
        let writing = self.writing()?;
        let mut packer = Packer::new(id, writing.generation.number, end);
        for record in records {
            packer.add(record);
        }
        let packs = packer.finish();
        let mut bytes = 0;
        for chunk in packs.chunks(limits::BATCH_KEYS_MAX) {
            let mut batch = sled::Batch::default();
            for (key, value) in chunk {
                debug_assert!(
                    value.len() <= limits::VALUE_BYTES_MAX,
                    "would become a blob"
                );
                bytes += value.len() as u64;
                batch.insert(&key[..], &value[..]);
            }
            writing.database.apply(batch)?;
        }
        let began = Instant::now();
        writing.database.sync()?;
        let took = began.elapsed();
        writing.bytes += bytes;
        self.shared.disk.wrote(bytes);
        self.shared.counters.lock().note_sync(took);
        Ok(())
    }

    /// The generation to write to; a new one if there is none.
    fn writing(&mut self) -> Result<&mut Writing, StoreError> {
        if self.writing.is_none() {
            // A number that was tried is not used again.
            let number = self.next_number;
            self.next_number += 1;
            let generation = Generation::new(&self.shared.dir, number, self.end);
            let created = Database::create(&generation.dir, &self.shared.database_options);
            let database = match created {
                Ok(database) => Arc::new(database),
                Err(error) => {
                    self.remove_or_remember(&generation);
                    return Err(error);
                }
            };
            let superseded: Vec<Generation> = {
                let mut progress = self.shared.progress.lock();
                let superseded: Vec<Generation> = progress
                    .generations
                    .values()
                    .filter(|older| older.first >= generation.first)
                    .cloned()
                    .collect();
                for older in &superseded {
                    progress.generations.remove(&older.number);
                }
                progress.generations.insert(number, generation.clone());
                progress.live = Some((number, Arc::clone(&database)));
                superseded
            };
            for older in &superseded {
                self.remove_or_remember(older);
            }
            // Its first segment is more than an estimate by bytes says.
            self.shared.disk.changed();
            self.writing = Some(Writing {
                generation,
                database,
                bytes: 0,
            });
        }
        Ok(self
            .writing
            .as_mut()
            .expect("the generation was just opened"))
    }

    /// Removes a generation without a record, sooner or later.
    fn remove_or_remember(&self, generation: &Generation) {
        if files::remove_dir(&generation.dir).is_err() && generation.dir.is_dir() {
            let dir = generation.dir.clone();
            self.shared.progress.lock().leftovers.push(dir);
        }
    }

    /// Nothing more goes to this generation.
    fn stop_writing(&mut self) {
        self.shared.progress.lock().live = None;
        self.writing = None;
        self.sealed_end = self.end;
    }

    /// Says why appends wait.
    fn withhold(&self, records: u64, alarm: Alarm) {
        let mut counters = self.shared.counters.lock();
        if counters.withheld.is_none() {
            tracing::warn!(%alarm, "journal: appends are withheld");
        }
        counters.withhold(records, alarm);
    }

    /// Waits, or until something changed; `false` if closing.
    fn pause(&self, ms: u64) -> bool {
        let mut queue = self.shared.queue.lock();
        let until = Instant::now() + Duration::from_millis(ms);
        while !queue.closing && !std::mem::take(&mut queue.wake) {
            if self
                .shared
                .arrived
                .wait_until(&mut queue, until)
                .timed_out()
            {
                break;
            }
        }
        !queue.closing
    }

    /// Seals a full generation, takes checkpoints on, writes the mark.
    fn keep_house(&mut self) {
        let asked = std::mem::take(&mut self.shared.queue.lock().seal_asked);
        let full = self
            .writing
            .as_ref()
            .is_some_and(|w| w.bytes >= self.shared.options.generation_bytes);
        if full || asked {
            self.stop_writing();
        }
        self.clients.evict();
        let due = self.sealed_end > self.clients.checkpointed() || self.clients.is_crowded();
        if due && !self.clients.is_checkpointing() {
            self.clients.begin_checkpoint(self.end);
        }
        match self.clients.step() {
            Ok(true) => {
                self.shared.progress.lock().checkpointed = self.clients.checkpointed();
                self.shared.delete_released();
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "journal: a checkpoint has to wait"),
        }
        if self.mark_written.elapsed() >= Duration::from_millis(limits::MARK_MS) {
            self.write_mark();
        }
    }

    fn write_mark(&mut self) {
        if let Err(error) = self.mark.raise(self.end) {
            tracing::warn!(%error, "journal: the mark could not be written");
        }
        self.mark_written = Instant::now();
    }

    /// Tells everybody who waits that nothing will come.
    fn give_up(&self) {
        let rest: Vec<Work> = self.shared.queue.lock().work.drain(..).collect();
        for work in rest {
            if let Work::Append { sink, token, .. } = work {
                sink.settled(token, Outcome::Closing);
            }
        }
    }

    fn close(&mut self) {
        self.stop_writing();
        self.write_mark();
        if let Err(error) = self.mark.sync() {
            tracing::warn!(%error, "journal: the mark could not be synced");
        }
        if self.shared.counters.lock().withheld.is_some() {
            // The dedup states know records that were never stored.
            return;
        }
        if !self.clients.is_checkpointing() {
            self.clients.begin_checkpoint(self.end);
        }
        let until = Instant::now() + CLOSING_WAIT;
        while self.clients.is_checkpointing() && Instant::now() < until {
            if self.clients.step().is_err() {
                break;
            }
            let mut queue = self.shared.queue.lock();
            while self.clients.is_checkpointing() && !std::mem::take(&mut queue.wake) {
                if self
                    .shared
                    .arrived
                    .wait_until(&mut queue, until)
                    .timed_out()
                {
                    break;
                }
            }
        }
        self.shared.progress.lock().checkpointed = self.clients.checkpointed();
        self.shared.delete_released();
    }
}

fn failed(error: &StoreError) -> Alarm {
    Alarm::WriteFailed {
        reason: error.to_string(),
    }
}

fn take_group(queue: &mut Queue) -> Vec<Work> {
    let mut group = Vec::new();
    let mut bytes = 0;
    while let Some(work) = queue.work.front() {
        let work_bytes = match work {
            Work::Append { record, .. } => pack::record_bytes(record),
            Work::Forget { .. } => 0,
        };
        let full = group.len() >= limits::GROUP_RECORDS_MAX
            || bytes + work_bytes > limits::GROUP_BYTES_MAX;
        if full && !group.is_empty() {
            break;
        }
        bytes += work_bytes;
        group.extend(queue.work.pop_front());
    }
    group
}
