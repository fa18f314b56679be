//! The thread that commits: takes whatever arrived while the last sync ran, and
//! takes the steps that the core asks for until all outcomes may go.
//!
//! A group is one sled batch where it fits, for the reason that stands in the
//! state's committer; and the database is fresh and only appended to.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::alarm::Alarm;
use crate::database::Database;
use crate::mark::Mark;
use crate::record::{Outcome, Position, Record};
use crate::{StoreError, files, limits};

use super::clients::Clients;
use super::core::{Action, Committed, Core, CoreOptions, Pause, Work};
use super::generation::Generation;
use super::pack::{self, Pack};
use super::{Queue, Shared};

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
    start.clients.on_step_done(Box::new(move || {
        if let Some(shared) = waker.upgrade() {
            shared.wake();
        }
    }));
    let options = CoreOptions {
        dedup: shared.options.dedup,
        generation_bytes: shared.options.generation_bytes,
    };
    std::thread::Builder::new()
        .name("journal-commit".to_string())
        .spawn(move || {
            Committer {
                core: Core::new(shared.id, options, start.clients, start.end, start.number)
                    .encrypting(shared.cipher.clone()),
                shared,
                mark: start.mark,
                mark_written: Instant::now(),
                mark_fails: false,
                writing: None,
            }
            .run();
        })
        .map_err(|e| StoreError::io("start the committer of", &dir, e))
}

struct Committer {
    shared: Arc<Shared>,
    core: Core,
    mark: Mark,
    mark_written: Instant,
    /// That it can't be synced was told.
    mark_fails: bool,
    /// The generation that is being written.
    writing: Option<Arc<Database>>,
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
        let mark_due = self.mark.value() < self.core.end() || !self.mark.is_durable();
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
                drop(queue);
                self.settle_mark();
                return Some(Vec::new());
            }
        }
    }

    /// Commits a group, however long it takes; `false` only if the journal
    /// closes before it could.
    fn commit(&mut self, group: Vec<Work>) -> bool {
        self.core.begin(group);
        loop {
            match self.core.poll() {
                Action::Idle => return true,
                Action::AskRoom { bytes } => {
                    let refused = self.shared.disk.refuses(bytes);
                    self.core.room(refused);
                }
                Action::Create { number, first } => {
                    let created = self.create(number, first);
                    self.core.done(created);
                }
                Action::Write { packs, .. } => {
                    let written = self.write(&packs);
                    self.core.done(written);
                }
                Action::Sync { .. } => {
                    let synced = self.sync();
                    self.core.done(synced);
                }
                Action::Pause(pause) => {
                    if !self.withheld(pause) {
                        for (sink, token) in self.core.abandon() {
                            sink.settled(token, Outcome::Closing);
                        }
                        return false;
                    }
                    self.core.resume();
                }
                Action::Committed(committed) => self.committed(committed),
            }
        }
    }

    /// Shows what is durable to readers, then tells the outcomes.
    fn committed(&mut self, committed: Committed) {
        let Committed {
            first,
            records,
            outcomes,
            ..
        } = committed;
        let was_withheld = {
            let mut counters = self.shared.counters.lock();
            counters.appended += records.len() as u64;
            counters.duplicates += committed.duplicates;
            counters.below_window += committed.below_window;
            counters.too_large += committed.too_large;
            counters.group_records_max = counters.group_records_max.max(records.len() as u64);
            counters.withheld.take().is_some()
        };
        if was_withheld {
            tracing::info!("journal: appends go on");
            self.shared.disk.lay_ballast();
        }
        if let Some(observer) = &self.shared.options.observer
            && !records.is_empty()
        {
            observer.durable(first, &records);
        }
        {
            let records = (first..)
                .zip(records)
                .map(|(position, record)| Record { position, record });
            self.shared.progress.lock().positions.durable(records);
        }
        self.shared.advanced.notify_all();
        for (sink, token, outcome) in outcomes {
            sink.settled(token, outcome);
        }
    }

    /// Creates the generation to write to.
    fn create(&mut self, number: u64, first: Position) -> Result<(), StoreError> {
        let generation = Generation::new(&self.shared.dir, number, first);
        let database = match Database::create(&generation.dir, &self.shared.database_options) {
            Ok(database) => Arc::new(database),
            Err(error) => {
                self.remove_or_remember(&generation);
                return Err(error);
            }
        };
        let superseded = {
            let mut progress = self.shared.progress.lock();
            progress.live = Some(Arc::clone(&database));
            progress.positions.begin(generation)
        };
        for older in &superseded {
            self.remove_or_remember(older);
        }
        // Its first segment is more than an estimate by bytes says.
        self.shared.disk.changed();
        self.writing = Some(database);
        Ok(())
    }

    fn write(&self, packs: &[Pack]) -> Result<(), StoreError> {
        let Some(database) = &self.writing else {
            return Err(StoreError::Closing);
        };
        let mut bytes = 0;
        for chunk in packs.chunks(limits::BATCH_KEYS_MAX) {
            let mut batch = sled::Batch::default();
            for pack in chunk {
                debug_assert!(
                    pack.value.len() <= limits::VALUE_BYTES_MAX,
                    "would become a blob"
                );
                bytes += pack.value.len() as u64;
                batch.insert(&pack.key[..], &pack.value[..]);
            }
            database.apply(batch)?;
        }
        self.shared.disk.wrote(bytes);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let Some(database) = &self.writing else {
            return Err(StoreError::Closing);
        };
        let began = Instant::now();
        database.sync()?;
        self.shared.counters.lock().note_sync(began.elapsed());
        Ok(())
    }

    /// Removes a generation without a record, sooner or later.
    fn remove_or_remember(&self, generation: &Generation) {
        if files::remove_dir(&generation.dir).is_err()
            && files::is_dir(&generation.dir).unwrap_or(true)
        {
            let dir = generation.dir.clone();
            self.shared.progress.lock().leftovers.push(dir);
        }
    }

    /// Nothing more goes to the generation that is being written.
    fn stop_writing(&mut self) {
        let mut progress = self.shared.progress.lock();
        progress.positions.seal();
        progress.live = None;
        self.writing = None;
    }

    /// Appends are withheld: says why, does what may help, waits. `false` if the
    /// journal closes.
    fn withheld(&mut self, pause: Pause) -> bool {
        let Pause {
            ms,
            records,
            alarm,
            failed,
            full,
        } = pause;
        if failed {
            tracing::error!(%alarm, "journal: writing failed, outcomes are withheld");
            self.shared.counters.lock().write_failures += 1;
            self.stop_writing();
        }
        self.withhold(records, alarm);
        if full && self.shared.disk.drop_ballast() {
            return true;
        }
        if !failed {
            self.shared.delete_released();
        }
        self.pause(ms)
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
        let house = self.core.keep_house(asked);
        if house.sealed {
            self.stop_writing();
        }
        if let Some(position) = house.checkpointed {
            self.shared.progress.lock().positions.checkpointed(position);
            self.shared.delete_released();
        }
        if let Some(error) = house.trouble {
            tracing::warn!(%error, "journal: a checkpoint has to wait");
        }
        if self.mark_written.elapsed() >= Duration::from_millis(limits::MARK_MS) {
            self.write_mark();
        }
    }

    fn write_mark(&mut self) {
        if let Err(error) = self.mark.raise(self.core.end()) {
            tracing::warn!(%error, "journal: the mark could not be written");
        }
        self.mark_written = Instant::now();
    }

    /// While there is work each group proves the one before it; of the last one
    /// only the mark can tell a damaged pack from one that was never whole.
    fn settle_mark(&mut self) {
        let end = self.core.end();
        match self.mark.raise(end).and_then(|()| self.mark.sync()) {
            Ok(()) => self.mark_fails = false,
            Err(error) if !std::mem::replace(&mut self.mark_fails, true) => {
                tracing::warn!(%error, "journal: the mark can't be synced, and is tried again");
            }
            Err(_) => {}
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
        self.core.seal();
        self.stop_writing();
        self.write_mark();
        if let Err(error) = self.mark.sync() {
            tracing::warn!(%error, "journal: the mark could not be synced");
        }
        if self.shared.counters.lock().withheld.is_some() {
            // The dedup states know records that were never stored.
            return;
        }
        let until = Instant::now() + CLOSING_WAIT;
        // One that is under way knows nothing of what changed since it was begun; of a
        // client that was forgotten since, no record would tell the next start.
        if self.end_checkpoint(until) {
            let end = self.core.end();
            self.core.clients().begin_checkpoint(end);
            self.end_checkpoint(until);
        }
        let checkpointed = self.core.clients().checkpointed();
        self.shared
            .progress
            .lock()
            .positions
            .checkpointed(checkpointed);
        self.shared.delete_released();
    }

    /// Takes the checkpoint under way to its end; whether none is left.
    fn end_checkpoint(&mut self, until: Instant) -> bool {
        let clients = self.core.clients();
        while clients.is_checkpointing() && Instant::now() < until {
            if clients.step().is_err() {
                break;
            }
            let mut queue = self.shared.queue.lock();
            while clients.is_checkpointing() && !std::mem::take(&mut queue.wake) {
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
        !clients.is_checkpointing()
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
