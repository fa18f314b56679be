//! The dedup states of all clients: the ones in use in memory, all of them in
//! the state database, brought there by checkpoints.
//!
//! Promises: a state that is not in the state database stays in memory. A
//! checkpoint at position P means: every record below P is in the states filed.
//! So after a restart only the records from P on are read again, and a
//! generation may be deleted once P is beyond it.
//!
//! | key in the state database | value |
//! | --- | --- |
//! | `j/c/` client identifier, or `j/h/` its 128-bit digest if longer than 255 | as in `dedup.rs` |
//! | `j/checkpoint` | journal id (16), P (8, big-endian) |

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::record::{NewRecord, Position};
use crate::rows::Rows;
use crate::state::{Batch, CommitSink};
use crate::{StoreError, limits};

use super::dedup::{ClientState, Verdict};
use super::pack::JournalId;

const CHECKPOINT_KEY: &[u8] = b"j/checkpoint";

struct Entry {
    client: ClientState,
    /// Changed since it was last submitted.
    dirty: bool,
    /// The checkpoint step that carried it to the state database.
    step: u64,
    used: u64,
}

/// Steps of checkpoints that are durable.
#[derive(Default)]
struct StepsDone {
    last: AtomicU64,
    wake: parking_lot::Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl StepsDone {
    fn on_done(&self, wake: Box<dyn Fn() + Send>) {
        *self.wake.lock() = Some(wake);
    }
}

impl CommitSink for StepsDone {
    fn committed(&self, token: u64, result: Result<(), StoreError>) {
        if result.is_ok() {
            self.last.fetch_max(token, Ordering::SeqCst);
        }
        if let Some(wake) = &*self.wake.lock() {
            wake();
        }
    }
}

/// See the head of the file.
pub struct Clients {
    state: Arc<dyn Rows>,
    journal: JournalId,
    entries: HashMap<Bytes, Entry>,
    packets: usize,
    uses: u64,
    steps_done: Arc<StepsDone>,
    steps: u64,
    /// The checkpoint under way: its position, and who is still to be written.
    under_way: Option<(Position, Vec<Bytes>)>,
    /// The step that ends it, and its position.
    ending: Option<(u64, Position)>,
    checkpointed: Position,
}

impl Clients {
    /// Reads the position of the last checkpoint.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(state: Arc<dyn Rows>, journal: JournalId) -> Result<Self, StoreError> {
        let checkpointed = match state.get(CHECKPOINT_KEY) {
            Ok(Some(value)) if value.len() == 24 && value[..16] == journal => {
                u64::from_be_bytes(value[16..].try_into().unwrap_or_default())
            }
            Ok(_) | Err(StoreError::Damaged { .. }) => 0,
            Err(e) => return Err(e),
        };
        Ok(Self {
            state,
            journal,
            entries: HashMap::new(),
            packets: 0,
            uses: 0,
            steps_done: Arc::default(),
            steps: 0,
            under_way: None,
            ending: None,
            checkpointed,
        })
    }

    /// Called when a step of a checkpoint has become durable: there may be another
    /// one to take.
    pub fn on_step_done(&self, wake: Box<dyn Fn() + Send>) {
        self.steps_done.on_done(wake);
    }

    /// Every record below is in the state database.
    #[must_use]
    pub fn checkpointed(&self) -> Position {
        self.checkpointed
    }

    /// Judges a record and, unless it is a duplicate, learns it.
    pub(super) fn accept(&mut self, record: &NewRecord) -> Result<Verdict, StoreError> {
        if record.identity == crate::Identity::None {
            return Ok(Verdict::New);
        }
        let entry = self.entry(&record.client_id)?;
        let verdict = entry.client.judge(record);
        if verdict != Verdict::Duplicate {
            self.learn(record)?;
        }
        Ok(verdict)
    }

    /// Learns a record that is in the journal.
    ///
    /// # Errors
    /// Its state could not be read.
    pub fn learn(&mut self, record: &NewRecord) -> Result<(), StoreError> {
        if record.identity == crate::Identity::None {
            return Ok(());
        }
        let entry = self.entry(&record.client_id)?;
        let before = entry.client.packets();
        entry.client.learn(record);
        entry.dirty = true;
        let after = entry.client.packets();
        self.packets = self.packets + after - before;
        Ok(())
    }

    /// The client's session was discarded. Of one that has sent nothing with a number
    /// nothing stays, neither here nor on disk: names that come once must not add up.
    pub(super) fn forget(&mut self, client_id: &Bytes) -> Result<(), StoreError> {
        if !self.entries.contains_key(client_id)
            && self
                .state
                .get(&key_of(client_id))
                .is_ok_and(|row| row.is_none())
        {
            return Ok(());
        }
        let entry = self.entry(client_id)?;
        let forgotten = entry.client.packets();
        if forgotten > 0 {
            entry.client.forget_packets();
            entry.dirty = true;
            self.packets -= forgotten;
        }
        Ok(())
    }

    fn entry(&mut self, client_id: &Bytes) -> Result<&mut Entry, StoreError> {
        self.uses += 1;
        let used = self.uses;
        if !self.entries.contains_key(client_id) {
            let client = match self.state.get(&key_of(client_id)) {
                Ok(Some(value)) => ClientState::decode(&value).unwrap_or_default(),
                Ok(None) | Err(StoreError::Damaged { .. }) => ClientState::default(),
                Err(e) => return Err(e),
            };
            self.evict();
            self.packets += client.packets();
            let entry = Entry {
                client,
                dirty: false,
                step: 0,
                used,
            };
            // The identifier is copied: a slice would pin the block it came in.
            self.entries
                .insert(Bytes::copy_from_slice(client_id), entry);
        }
        let entry = self
            .entries
            .get_mut(client_id)
            .expect("the entry was just found or inserted");
        entry.used = used;
        Ok(entry)
    }

    /// Drops the least recently used tenth of those that are in the state
    /// database, if there are too many.
    pub(super) fn evict(&mut self) {
        if self.entries.len() < limits::CLIENTS_MAX && self.packets < limits::PACKETS_TOTAL_MAX {
            return;
        }
        let done = self.steps_done.last.load(Ordering::SeqCst);
        let mut idle: Vec<(u64, Bytes)> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.dirty && entry.step <= done)
            .map(|(id, entry)| (entry.used, id.clone()))
            .collect();
        idle.sort_unstable();
        let tenth = self.entries.len() / 10 + 1;
        for (_, id) in idle.into_iter().take(tenth) {
            if let Some(entry) = self.entries.remove(&id) {
                self.packets -= entry.client.packets();
            }
        }
    }

    /// Whether so many states wait for a checkpoint that memory grows.
    pub(super) fn is_crowded(&self) -> bool {
        self.entries.len() >= limits::CLIENTS_MAX || self.packets >= limits::PACKETS_TOTAL_MAX
    }

    /// Whether a checkpoint is under way.
    #[must_use]
    pub fn is_checkpointing(&self) -> bool {
        self.under_way.is_some() || self.ending.is_some()
    }

    /// Begins a checkpoint: every record below `position` was learned.
    pub fn begin_checkpoint(&mut self, position: Position) {
        let mut dirty: Vec<Bytes> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.dirty)
            .map(|(id, _)| id.clone())
            .collect();
        // In one order, whatever the map's: the same work always writes the same.
        dirty.sort_unstable();
        self.under_way = Some((position, dirty));
    }

    /// Submits the next part of the checkpoint, unless the last one is still on
    /// its way. Returns whether a checkpoint has become durable.
    ///
    /// # Errors
    /// The state database takes no more now: later.
    pub fn step(&mut self) -> Result<bool, StoreError> {
        let done = self.steps_done.last.load(Ordering::SeqCst);
        let mut finished = false;
        if let Some((step, position)) = self.ending
            && step <= done
        {
            self.checkpointed = self.checkpointed.max(position);
            self.ending = None;
            finished = true;
            // This was the last step that was submitted: whatever is not dirty is durable.
            self.entries
                .retain(|_, entry| entry.dirty || !entry.client.is_empty());
        }
        if self.steps > done {
            return Ok(finished);
        }
        let Some((position, mut dirty)) = self.under_way.take() else {
            return Ok(finished);
        };
        let mut batch = Batch::new();
        batch.allow_splitting();
        let mut written = Vec::new();
        while batch.bytes() < limits::CHECKPOINT_STEP_BYTES
            && let Some(id) = dirty.pop()
        {
            if let Some(entry) = self.entries.get(&id) {
                if entry.client.is_empty() {
                    batch.delete(key_of(&id));
                } else {
                    batch.put(key_of(&id), entry.client.encode());
                }
                written.push(id);
            }
        }
        let ends = dirty.is_empty();
        if ends {
            let value = [&self.journal[..], &position.to_be_bytes()].concat();
            batch.put(CHECKPOINT_KEY, value);
        }
        let step = self.steps + 1;
        let sink: Arc<dyn CommitSink> = Arc::clone(&self.steps_done) as _;
        if let Err(error) = self.state.submit(batch, Some((sink, step))) {
            dirty.extend(written);
            self.under_way = Some((position, dirty));
            return Err(error);
        }
        self.steps = step;
        for id in written {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.dirty = false;
                entry.step = step;
            }
        }
        if ends {
            self.ending = Some((step, position));
        } else {
            self.under_way = Some((position, dirty));
        }
        Ok(finished)
    }
}

fn key_of(client_id: &[u8]) -> Vec<u8> {
    if client_id.len() <= 255 {
        return [b"j/c/", client_id].concat();
    }
    let digest = xxhash_rust::xxh3::xxh3_128(client_id);
    [&b"j/h/"[..], &digest.to_be_bytes()].concat()
}

#[cfg(test)]
pub(super) mod tests;
