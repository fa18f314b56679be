//! The journal: the durable log of accepted records, by position.
//!
//! Promises: `Outcome::Durable` is given only after the record is on stable
//! storage (G1); positions are contiguous and never reused; outcomes of one sink
//! come in the order of its appends; a resend of what is stored is `Duplicate`
//! (G2); what was never acknowledged and cut off by an error is never read; when
//! the budget is spent, or the disk fails, outcomes are withheld, an alarm is
//! raised, and it goes on by itself (G8); damage costs what it hit and is
//! counted (G11). Never blocks in [`Journal::append`]; never takes a failed sync
//! for a success, and never syncs that file again: the batch goes to a new
//! generation.
//!
//! What decides is in cores that know no file, no lock and no clock: `core.rs` (a
//! commit, step by step), `positions.rs` (who holds what), `index.rs` (what a
//! generation's bytes hold, where it ends), `dedup.rs` and `clients.rs` (resends).
//! The threads here drive them on a disk.
//!
//! Layouts: packs in `pack.rs`, files in `generation.rs`, dedup in `dedup.rs`
//! and `clients.rs`.

mod clients;
mod committer;
mod core;
mod dedup;
mod generation;
mod health;
mod index;
mod pack;
mod positions;
mod read;
mod recovery;
mod tail;

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

pub use self::core::{Action, Committed, Core, CoreOptions, House, Pause, Work};
pub use clients::Clients;
pub use generation::Generation;
pub(crate) use generation::evidence;
pub use health::{ConsumerHealth, Health, SYNC_BUCKETS_US, Withheld};
pub use index::{Index, PackAt};
pub use pack::{Header, JournalId, Pack};
pub use positions::{Positions, Source, never_written};
pub use read::{Bounds, ReadOn, batch_from, read_on};

use crate::alarm::Alarm;
use crate::database::{Database, DatabaseOptions};
use crate::disk::Disk;
use crate::encryption::PackCipher;
use crate::options::StoreOptions;
use crate::quarantine::Quarantine;
use crate::record::{AckSink, NewRecord, Outcome, Position, ReadBatch, RecordSource};
use crate::state::{OpenReport, State};
use crate::{StoreError, files};

use generation::SealedGeneration;
use health::Counters;

/// What takes records: the journal, or what stands in for it where there is no
/// disk.
pub trait RecordSink: Send + Sync {
    /// As [`Journal::append`].
    fn append(&self, record: NewRecord, sink: &Arc<dyn AckSink>, token: u64);
}

impl RecordSink for Journal {
    fn append(&self, record: NewRecord, sink: &Arc<dyn AckSink>, token: u64) {
        Self::append(self, record, sink, token);
    }
}

/// The open journal. Shared by reference; closes when dropped.
pub struct Journal {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) struct Shared {
    dir: PathBuf,
    id: JournalId,
    id_hex: String,
    /// What packs are encrypted with, if they are.
    cipher: Option<PackCipher>,
    options: StoreOptions,
    database_options: DatabaseOptions,
    disk: Arc<Disk>,
    quarantine: Quarantine,
    queue: Mutex<Queue>,
    arrived: Condvar,
    progress: Mutex<Progress>,
    advanced: Condvar,
    /// Held by who removes generations: two at once would leave a gap between those
    /// that are there, and a kill just then would make damage of it.
    removing: Mutex<()>,
    readers: Mutex<Vec<Arc<SealedGeneration>>>,
    counters: Mutex<Counters>,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    closing: bool,
    /// Something else than work wants the committer's attention.
    wake: bool,
    seal_asked: bool,
}

/// How far everybody is.
struct Progress {
    positions: Positions,
    /// The generation that is being written, open.
    live: Option<Arc<Database>>,
    /// Generations whose damage was told.
    damaged: BTreeSet<u64>,
    /// Generations without a record that could not be removed.
    leftovers: Vec<PathBuf>,
    /// A generation was removed, but not surely: its directory's sync failed.
    removal_unsynced: bool,
}

impl Journal {
    /// Opens the journal under `options.dir`, creating it if missing. `state`
    /// must be the state of the same directory.
    ///
    /// Damage is repaired as far as the bytes allow and told in the report.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn open(
        options: &StoreOptions,
        state: Arc<State>,
    ) -> Result<(Arc<Self>, OpenReport), StoreError> {
        let disk = state.disk();
        let (shared, start, report) = recovery::open(options, state, disk)?;
        let shared = Arc::new(shared);
        let committer = committer::spawn(Arc::clone(&shared), start)?;
        let journal = Self {
            shared,
            committer: Mutex::new(Some(committer)),
        };
        Ok((Arc::new(journal), report))
    }

    /// Offers a record; `sink` hears its outcome, on the committer's thread.
    /// Never blocks: the caller bounds what it has without an outcome.
    pub fn append(&self, record: NewRecord, sink: &Arc<dyn AckSink>, token: u64) {
        {
            let mut queue = self.shared.queue.lock();
            if !queue.closing {
                queue.work.push_back(Work::Append {
                    record,
                    sink: Arc::clone(sink),
                    token,
                });
                drop(queue);
                self.shared.arrived.notify_one();
                return;
            }
        }
        sink.settled(token, Outcome::Closing);
    }

    /// A client's session was discarded (clean start, expiry): its packet
    /// identifiers mean nothing any more. Takes effect in the order of appends.
    pub fn forget(&self, client_id: Bytes) {
        let mut queue = self.shared.queue.lock();
        if !queue.closing {
            queue.work.push_back(Work::Forget { client_id });
            drop(queue);
            self.shared.arrived.notify_one();
        }
    }

    /// Numbers for the metrics page, and what an operator must hear of.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Settles what is queued, files the dedup states and closes. What is
    /// withheld is told [`Outcome::Closing`].
    pub fn close(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.arrived.notify_all();
        if let Some(committer) = self.committer.lock().take()
            && committer.join().is_err()
        {
            tracing::error!("the journal's committer panicked");
        }
        self.shared.advanced.notify_all();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl RecordSource for Journal {
    fn journal_id(&self) -> &str {
        &self.shared.id_hex
    }

    fn oldest(&self) -> Position {
        self.shared.progress.lock().positions.oldest()
    }

    fn end(&self) -> Position {
        self.shared.progress.lock().positions.end()
    }

    fn read(
        &self,
        from: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<ReadBatch, StoreError> {
        read::read(&self.shared, from, records_max, bytes_max)
    }

    fn wait(&self, after: Position, timeout: Duration) -> Position {
        let until = Instant::now() + timeout;
        let mut progress = self.shared.progress.lock();
        while progress.positions.end() <= after {
            if self
                .shared
                .advanced
                .wait_until(&mut progress, until)
                .timed_out()
            {
                break;
            }
        }
        progress.positions.end()
    }

    fn release(&self, consumer: &str, upto: Position) {
        {
            let mut progress = self.shared.progress.lock();
            if !progress.positions.release(consumer, upto) {
                tracing::error!(
                    consumer,
                    "not a consumer of this journal: its release is ignored"
                );
                return;
            }
        }
        self.shared.delete_released();
    }
}

impl Shared {
    fn ask_seal(&self) {
        let mut queue = self.queue.lock();
        queue.seal_asked = true;
        queue.wake = true;
        drop(queue);
        self.arrived.notify_one();
    }

    fn wake(&self) {
        self.queue.lock().wake = true;
        self.arrived.notify_one();
    }

    /// Deletes generations that nobody needs any more: released by all, their
    /// dedup states filed, never the newest (its name keeps the positions).
    fn delete_released(&self) {
        let _one_at_a_time = self.removing.lock();
        // What comes back in a power cut, and a leftover, would answer for the
        // positions of what is deleted behind it.
        if self.progress.lock().removal_unsynced {
            if files::sync_dir(&self.dir).is_err() {
                return;
            }
            self.progress.lock().removal_unsynced = false;
        }
        let leftovers = self.progress.lock().leftovers.clone();
        for dir in leftovers {
            let is_there = || files::is_dir(&dir).unwrap_or(true);
            let removed = !is_there() || files::remove_dir(&dir).is_ok();
            let mut progress = self.progress.lock();
            if removed || !is_there() {
                progress.leftovers.retain(|left| *left != dir);
                progress.removal_unsynced = !removed;
            }
            if !removed {
                return;
            }
        }
        let keep_bytes = self.options.keep_forwarded_bytes;
        let doomed = self.progress.lock().positions.take_released(|released| {
            let mut kept = 0;
            while keep_bytes > 0
                && let Some(generation) = released.last()
            {
                kept += files::allocated_bytes(&generation.dir);
                if kept > keep_bytes {
                    break;
                }
                released.pop();
            }
        });
        if doomed.is_empty() {
            return;
        }
        self.readers
            .lock()
            .retain(|open| doomed.iter().all(|g| g.number != open.generation.number));
        for (at, generation) in doomed.iter().enumerate() {
            if let Err(error) = files::remove_dir(&generation.dir) {
                tracing::warn!(%error, "journal: a drained generation could not be deleted");
                // Oldest first and without a gap, or the next opening would take
                // the gap for damage.
                let stays = files::is_dir(&generation.dir).unwrap_or(true);
                let rest = doomed[at + usize::from(!stays)..].iter().cloned();
                let mut progress = self.progress.lock();
                progress.positions.put_back(rest);
                progress.removal_unsynced = !stays;
                break;
            }
        }
        self.disk.changed();
        self.wake();
    }

    /// Tells of damage in a sealed generation, once, and keeps the evidence.
    fn note_damage(&self, generation: &Generation, missing: u64, reason: &str) {
        {
            let mut progress = self.progress.lock();
            if !progress.damaged.insert(generation.number) {
                return;
            }
        }
        let quarantined = match self.quarantine.link_dir(&generation.dir, "generation") {
            Ok(name) => name,
            Err(error) => format!("nothing ({error})"),
        };
        let alarm = Alarm::Damaged {
            what: format!("journal generation {}", generation.number),
            reason: reason.to_string(),
            salvaged: 0,
            lost: missing,
            quarantined,
        };
        tracing::error!(%alarm, "journal: damaged");
        let mut counters = self.counters.lock();
        counters.damaged_positions += missing;
        counters.quarantined_generations += 1;
        counters.note_alarm(alarm);
    }
}
