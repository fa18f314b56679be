//! The journal of a running gateway: the product's core, on the model of a disk.
//!
//! Promises: what the committer's thread does on sled and files, step by step, with
//! time between two of them. Never: a decision of its own about what is a resend,
//! what is durable, where a generation ends, or who still needs it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use risiti_store::journal::{
    Action, Bounds, Clients, Core, CoreOptions, Generation, Header, Pause, Positions, ReadOn,
    Source, Work, batch_from, never_written, read_on,
};
use risiti_store::{
    AckSink, Alarm, Identity, NewRecord, Outcome, Position, ReadBatch, Record, RecordSink, Rows,
    StoreError, limits,
};

use crate::contract::{Controls, Journalish, Ms};
use crate::disk::{AppendedFile, Disk, GenerationFile, SimRows};

/// A generation is sealed after so many bytes of packs: small, so that many are
/// sealed, read back and given up in one run.
const GENERATION_BYTES: u64 = 1_500;

/// The largest group, records: small, so that what is sent together is not always
/// synced together.
const GROUP_RECORDS_MAX: usize = 8;

/// The consumer of the journal: the forwarder to the one cluster.
pub const CONSUMER: &str = "default";

/// What waits for the committer.
#[derive(Clone, Default)]
pub struct Intake(Arc<Mutex<VecDeque<Work>>>);

impl Intake {
    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Work>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A client's session was discarded.
    pub fn forget(&self, client_id: Bytes) {
        self.with(|queue| queue.push_back(Work::Forget { client_id }));
    }

    /// What waits there is never done.
    pub fn clear(&self) {
        let waiting = self.with(std::mem::take);
        drop(waiting); // outside the lock: a sink may come back here
    }
}

impl RecordSink for Intake {
    fn append(&self, record: NewRecord, sink: &Arc<dyn AckSink>, token: u64) {
        let sink = Arc::clone(sink);
        self.with(|queue| {
            queue.push_back(Work::Append {
                record,
                sink,
                token,
            });
        });
    }
}

/// What the disk is busy with.
enum Busy {
    Create(u64, Position),
    Sync(u64),
    Pause,
}

/// What happened in the journal that somebody may want to hear of.
#[derive(Debug, Default)]
pub struct News {
    /// Records that have no outcome because there is no room, or the disk fails.
    pub withheld: Vec<(String, u64)>,
    /// Positions found damaged.
    pub damaged: u64,
    /// Whether the end has moved.
    pub advanced: bool,
}

/// See the head of the file.
pub struct SimJournal {
    id_hex: String,
    core: Core,
    positions: Positions,
    intake: Intake,
    busy: Option<(Ms, Busy)>,
    mark: Position,
    /// As it was written, it is on disk.
    is_marked: bool,
    mark_written_ms: Ms,
    /// Since the last group, or since the mark was tried last.
    quiet_since_ms: Ms,
    /// A sync that was skipped (a control) and comes later.
    late_sync: Option<(Ms, u64)>,
    /// Whose group is under way, and whether it was told as withheld.
    under_way: Vec<(String, u64)>,
    told_withheld: bool,
    /// Generations whose damage was told.
    damaged: BTreeMap<u64, u64>,
    news: News,
    controls: Controls,
}

impl SimJournal {
    /// Recovers what the disk holds, as `journal/recovery.rs` does.
    ///
    /// # Panics
    /// The model's rows can always be read.
    #[must_use]
    pub fn open(disk: &mut Disk, rows: &SimRows, now: Ms, controls: Controls) -> Self {
        let id = *disk
            .journal_id
            .get_or_insert_with(|| disk.rng.u128(..).to_be_bytes());
        // The directory is synced before anything is read.
        for generation in disk.generations.values_mut() {
            generation.named = true;
        }
        let mut generations = disk.names();
        let rows: Arc<dyn Rows> = Arc::new(rows.clone());
        let clients = Clients::open(rows, id).expect("rows can be read");
        let floor = disk.mark.1.max(clients.checkpointed()).max(1);
        let end = match generations.keys().next_back() {
            Some(newest) => end_of_newest(disk, *newest, floor),
            None => floor,
        };
        let mut is_marked = false;
        if disk.room().is_ok() {
            disk.mark.1 = end.max(disk.mark.1);
            is_marked = disk.sync_mark();
        }
        let next = generations.keys().next_back().map_or(1, |last| last + 1);
        for number in never_written(&generations) {
            generations.remove(&number);
            disk.generations.remove(&number);
        }
        let checkpointed = clients.checkpointed();
        let positions = Positions::new(generations, &[CONSUMER.into()], end, checkpointed);
        let options = CoreOptions {
            dedup: !controls.no_dedup,
            generation_bytes: GENERATION_BYTES,
        };
        let mut journal = Self {
            id_hex: format!("{:032x}", u128::from_be_bytes(id)),
            core: Core::new(id, options, clients, end, next),
            positions,
            intake: Intake::default(),
            busy: None,
            mark: disk.mark.1,
            is_marked,
            mark_written_ms: now,
            quiet_since_ms: now,
            late_sync: None,
            under_way: Vec::new(),
            told_withheld: false,
            damaged: BTreeMap::new(),
            news: News::default(),
            controls,
        };
        journal.learn(disk, end);
        journal.core.clients().begin_checkpoint(end);
        journal.keep_house(disk, now);
        journal
    }

    /// Reads what the last checkpoint does not cover.
    fn learn(&mut self, disk: &mut Disk, end: Position) {
        let mut next = self
            .core
            .clients()
            .checkpointed()
            .max(self.positions.oldest());
        while next < end {
            let batch = self.read_from(disk, next, 4_096, 4 * 1024 * 1024);
            if batch.next <= next {
                break;
            }
            for record in &batch.records {
                let learnt = self.core.clients().learn(&record.record);
                learnt.expect("rows can be read");
            }
            next = batch.next;
        }
    }

    /// Where records are offered.
    #[must_use]
    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    /// What happened since the last call.
    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// When it has to go on by itself.
    #[must_use]
    pub fn due_ms(&self) -> Option<Ms> {
        // As the product's, the house is kept while nothing is written.
        let mark_due = self.core.is_idle() && !self.is_marked();
        let mark = mark_due.then_some(self.quiet_since_ms + limits::MARK_MS);
        let busy = self.busy.as_ref().map(|(due, _)| *due);
        let late = self.late_sync.map(|(due, _)| due);
        [busy, late, mark].into_iter().flatten().min()
    }

    /// Takes all steps that may be taken by now. Whether any was.
    pub fn advance(&mut self, disk: &mut Disk, now: Ms) -> bool {
        let mut moved = false;
        if let Some((due, number)) = self.late_sync
            && due <= now
        {
            self.late_sync = None;
            if let Some(generation) = disk.generations.get_mut(&number) {
                generation.file.sync();
            }
        }
        while self.take_step(disk, now) {
            moved = true;
        }
        if self.core.is_idle() {
            self.settle_mark(disk, now);
            self.keep_house(disk, now);
        }
        moved
    }

    fn take_step(&mut self, disk: &mut Disk, now: Ms) -> bool {
        match self.busy.take() {
            Some((due, busy)) if now < due => {
                self.busy = Some((due, busy));
                return false;
            }
            Some((_, busy)) => {
                self.finish(busy, disk);
                return true;
            }
            None => {}
        }
        match self.core.poll() {
            Action::Idle => return self.begin_group(),
            Action::AskRoom { .. } => {
                // What is measured lags: the write itself may be what tells.
                let told = disk.is_full() && disk.rng.bool();
                let alarm = told.then_some(Alarm::SpaceLow {
                    free_bytes: 0,
                    free_bytes_min: 1,
                });
                self.core.room(alarm);
            }
            Action::Create { number, first } => match disk.room() {
                Ok(()) => {
                    let generation = GenerationFile {
                        first,
                        named: false,
                        file: AppendedFile::default(),
                        known: Vec::new(),
                    };
                    disk.generations.insert(number, generation);
                    self.busy = Some((now + disk.sync_ms(), Busy::Create(number, first)));
                }
                Err(error) => self.core.done(Err(error)),
            },
            Action::Write { number, packs } => {
                let room = disk.room();
                if let Some(generation) = disk.generations.get_mut(&number) {
                    let from = generation.file.bytes().len();
                    for pack in &packs {
                        // A full disk may have taken a part.
                        let bytes = match room {
                            Ok(()) => pack.value.len(),
                            Err(_) => pack.value.len() / 2,
                        };
                        generation.file.write(&pack.value[..bytes]);
                    }
                    disk.learn(number, from);
                }
                self.core.done(room);
            }
            Action::Sync { number } => {
                let due = now + disk.sync_ms();
                if self.controls.puback_before_sync {
                    self.late_sync = Some((due + 100, number));
                    self.core.done(Ok(()));
                } else {
                    self.busy = Some((due, Busy::Sync(number)));
                }
            }
            Action::Pause(pause) => self.withhold(&pause, now),
            Action::Committed(committed) => {
                let records = (committed.first..)
                    .zip(committed.records)
                    .map(|(position, record)| Record { position, record });
                let before = self.positions.end();
                self.positions.durable(records);
                self.news.advanced |= self.positions.end() > before;
                self.under_way.clear();
                self.told_withheld = false;
                for (sink, token, outcome) in committed.outcomes {
                    sink.settled(token, outcome);
                }
                self.quiet_since_ms = now;
                self.keep_house(disk, now);
            }
        }
        true
    }

    fn begin_group(&mut self) -> bool {
        let mut group: Vec<Work> = self.intake.with(|queue| {
            let taken = queue.len().min(GROUP_RECORDS_MAX);
            queue.drain(..taken).collect()
        });
        if group.is_empty() {
            return false;
        }
        if self.controls.shuffles {
            group.reverse();
        }
        self.under_way = group.iter().filter_map(name_of_work).collect();
        self.core.begin(group);
        true
    }

    fn finish(&mut self, busy: Busy, disk: &mut Disk) {
        match busy {
            Busy::Pause => self.core.resume(),
            Busy::Create(number, first) => {
                let created = disk.sync();
                if created.is_err() {
                    disk.generations.remove(&number);
                } else {
                    if let Some(generation) = disk.generations.get_mut(&number) {
                        generation.named = true;
                    }
                    let generation = Generation {
                        number,
                        first,
                        dir: std::path::PathBuf::new(),
                    };
                    for older in self.positions.begin(generation) {
                        disk.generations.remove(&older.number);
                    }
                }
                self.core.done(created);
            }
            Busy::Sync(number) => {
                let synced = disk.sync();
                if let Some(generation) = disk.generations.get_mut(&number) {
                    match synced {
                        Ok(()) => drop(generation.file.sync()),
                        Err(_) => generation.file.fail_sync(),
                    }
                }
                self.core.done(synced);
            }
        }
    }

    fn withhold(&mut self, pause: &Pause, now: Ms) {
        if pause.failed {
            self.positions.seal();
        }
        if !std::mem::replace(&mut self.told_withheld, true) {
            self.news.withheld.append(&mut self.under_way.clone());
        }
        if self.controls.drops_when_full {
            for (sink, token) in self.core.abandon() {
                sink.settled(token, Outcome::Duplicate);
            }
            return;
        }
        self.busy = Some((now + pause.ms, Busy::Pause));
    }

    fn keep_house(&mut self, disk: &mut Disk, now: Ms) {
        let house = self.core.keep_house(false);
        if house.sealed {
            self.positions.seal();
        }
        if let Some(position) = house.checkpointed {
            self.positions.checkpointed(position);
            self.delete_released(disk);
        }
        if now >= self.mark_written_ms + limits::MARK_MS && self.mark < self.core.end() {
            self.mark = self.core.end();
            disk.mark.1 = self.mark;
            self.is_marked = false;
            self.mark_written_ms = now;
        }
    }

    /// As the product's, when there was no work for a while.
    fn settle_mark(&mut self, disk: &mut Disk, now: Ms) {
        if now < self.quiet_since_ms + limits::MARK_MS || self.is_marked() {
            return;
        }
        self.mark = self.core.end();
        disk.mark.1 = self.mark;
        self.is_marked = disk.sync_mark();
        (self.mark_written_ms, self.quiet_since_ms) = (now, now);
    }

    /// Whether the mark is on disk and covers all.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.is_marked && self.mark >= self.core.end()
    }

    fn delete_released(&mut self, disk: &mut Disk) {
        for generation in self.positions.take_released(|_| {}) {
            disk.generations.remove(&generation.number);
        }
    }

    fn read_from(
        &mut self,
        disk: &mut Disk,
        from: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> ReadBatch {
        let bounds = Bounds {
            records_max: records_max.max(1),
            bytes_max,
        };
        let mut batch = batch_from(from);
        loop {
            let (generation, end) = match read_on(&self.positions, bounds, &mut batch) {
                ReadOn::Packs(
                    Source::Live { generation, end } | Source::Sealed { generation, end },
                ) => (generation, end),
                ReadOn::Done | ReadOn::Packs(Source::Gone { .. }) => return batch,
            };
            if self.collect(disk, &generation, end, bounds, &mut batch) {
                batch.damaged += end - batch.next;
                batch.next = end;
            }
        }
    }

    /// Takes what a generation has; `true` if its packs ran out before its end.
    fn collect(
        &mut self,
        disk: &Disk,
        generation: &Generation,
        end: Position,
        bounds: Bounds,
        batch: &mut ReadBatch,
    ) -> bool {
        let number = generation.number;
        let found = disk.index(number, end).zip(disk.generations.get(&number));
        let Some((index, file)) = found else {
            self.note_damage(number, end - generation.first);
            return true;
        };
        self.note_damage(number, index.missing());
        let bytes = file.file.bytes();
        let mut packs = index.packs_from(batch.next).iter().filter_map(|pack| {
            let at = pack.offset as usize;
            let whole = bytes.get(at..at + pack.bytes as usize)?;
            pack.decode(Bytes::copy_from_slice(whole))
                .map(Ok::<(Header, Bytes), StoreError>)
        });
        bounds.collect(&mut packs, end, batch).unwrap_or(true)
    }

    /// Damage in a generation is told once.
    fn note_damage(&mut self, number: u64, missing: u64) {
        if missing > 0 && self.damaged.insert(number, missing).is_none() {
            self.news.damaged += missing;
        }
    }

    /// Its name, for ever.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id_hex
    }
}

/// A journal and the disk it is on, as a forwarder sees them.
pub struct Store {
    /// What runs.
    pub journal: SimJournal,
    /// What stays.
    pub disk: Disk,
}

impl Journalish for Store {
    fn journal_id(&self) -> &str {
        &self.journal.id_hex
    }

    fn oldest(&self) -> Position {
        self.journal.positions.oldest()
    }

    fn end(&self) -> Position {
        self.journal.positions.end()
    }

    fn read(
        &mut self,
        from: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<ReadBatch, StoreError> {
        let disk = &mut self.disk;
        Ok(self.journal.read_from(disk, from, records_max, bytes_max))
    }

    fn release(&mut self, consumer: &str, upto: Position) {
        self.journal.positions.release(consumer, upto);
        self.journal.delete_released(&mut self.disk);
    }
}

/// Finds the end of the newest generation and makes sure that it is on disk: what
/// is beyond what is proven may stand in the page cache only, and is written anew.
fn end_of_newest(disk: &mut Disk, number: u64, floor: Position) -> Position {
    let Some(index) = disk.index(number, Position::MAX) else {
        return floor;
    };
    let end = index.find_end(floor);
    if end <= index.proven(floor) {
        return end;
    }
    let full = disk.is_full();
    if let Some(generation) = disk.generations.get_mut(&number) {
        if full {
            // A full disk must not keep the backlog from being drained.
            generation.file.reread(&mut disk.rng);
        } else {
            generation.file.rewrite();
        }
    }
    disk.learn(number, 0);
    let index = disk.index(number, Position::MAX);
    index.map_or(floor, |index| index.find_end(floor))
}

fn name_of_work(work: &Work) -> Option<(String, u64)> {
    let Work::Append { record, .. } = work else {
        return None;
    };
    let Identity::Sequence { sequence, .. } = record.identity else {
        return None;
    };
    Some((String::from_utf8(record.client_id.to_vec()).ok()?, sequence))
}
