//! A commit of the journal, step by step. A core: it asks for each step and is
//! told what came of it; the committer's thread takes the steps on a disk, a
//! simulation on a model of one.
//!
//! Promises: an outcome is given only after the sync that covers it has succeeded
//! (G1), in the order of the appends; positions grow by one and none is given
//! twice; a generation whose write or sync failed is never written or synced
//! again: its group goes to a new one, under a number that was never tried; a
//! group that can't be stored waits, and goes on where it was (G8). Never: a
//! clock, a file, or a step taken by itself.
//!
//! ```text
//! begin ─▶ judge ─▶ AskRoom ─▶ Create? ─▶ Write ─▶ Sync ─▶ Committed
//!            │         │          │         │       │
//!            └────── Pause ◀──────┴─────────┴───────┘
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::alarm::Alarm;
use crate::encryption::PackCipher;
use crate::record::{AckSink, NewRecord, Outcome, Position};
use crate::{StoreError, limits};

use super::clients::Clients;
use super::dedup::Verdict;
use super::pack::{self, JournalId, Pack, Packer};

/// Something that the journal is asked to do, in the order of asking.
pub enum Work {
    /// Make this record durable.
    Append {
        /// What.
        record: NewRecord,
        /// Who hears the outcome.
        sink: Arc<dyn AckSink>,
        /// Names it to the sink.
        token: u64,
    },
    /// A client's session was discarded.
    Forget {
        /// Whose.
        client_id: Bytes,
    },
}

/// What is to be done next.
#[derive(Debug)]
pub enum Action {
    /// Nothing: [`Core::begin`] a group when there is one.
    Idle,
    /// Tell whether the disk has room: [`Core::room`].
    AskRoom {
        /// For so many bytes.
        bytes: u64,
    },
    /// Create a generation; then [`Core::done`].
    Create {
        /// Its number.
        number: u64,
        /// Its first position.
        first: Position,
    },
    /// Write these packs behind the others, then [`Core::done`].
    Write {
        /// To which generation.
        number: u64,
        /// In order.
        packs: Vec<Pack>,
    },
    /// Make durable what was written; then [`Core::done`].
    Sync {
        /// Of which generation.
        number: u64,
    },
    /// Appends are withheld: wait, then [`Core::resume`].
    Pause(Pause),
    /// The group is durable: show its records to readers, then let its outcomes go.
    Committed(Committed),
}

/// Why, and how long, appends are withheld.
#[derive(Debug)]
pub struct Pause {
    /// How long until the next try, milliseconds.
    pub ms: u64,
    /// Records that wait.
    pub records: u64,
    /// Why.
    pub alarm: Alarm,
    /// A write or a sync failed: the generation it went to is left.
    pub failed: bool,
    /// Because the disk is full: space that is given up may help at once.
    pub full: bool,
}

/// A group that is durable.
#[derive(Default)]
pub struct Committed {
    /// The position of its first record.
    pub first: Position,
    /// Its records, at positions in a row.
    pub records: Vec<NewRecord>,
    /// Who is to hear what, in the order of the appends.
    pub outcomes: Vec<(Arc<dyn AckSink>, u64, Outcome)>,
    /// Resends that were recognised.
    pub duplicates: u64,
    /// Records below their terminal's window.
    pub below_window: u64,
    /// Records that can never be stored.
    pub too_large: u64,
}

impl std::fmt::Debug for Committed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committed")
            .field("first", &self.first)
            .field("records", &self.records.len())
            .field("outcomes", &self.outcomes.len())
            .finish_non_exhaustive()
    }
}

/// What keeping house has changed.
#[derive(Debug, Default)]
pub struct House {
    /// Nothing more goes to the generation that was written.
    pub sealed: bool,
    /// Every record below is in the dedup states filed.
    pub checkpointed: Option<Position>,
    /// Why a checkpoint has to wait.
    pub trouble: Option<StoreError>,
}

/// How the core is to be.
#[derive(Debug, Clone, Copy)]
pub struct CoreOptions {
    /// Whether resends are recognised (G2).
    pub dedup: bool,
    /// A generation is sealed when it holds this many bytes of packs.
    pub generation_bytes: u64,
}

/// A group, judged: what to write, and what to tell whom afterwards.
#[derive(Default)]
struct Judged {
    records: Vec<NewRecord>,
    bytes: usize,
    verdicts: Vec<(Arc<dyn AckSink>, u64, Verdict)>,
    too_large: u64,
    below_window: u64,
    duplicates: u64,
}

/// The generation that is being written.
struct Writing {
    number: u64,
    bytes: u64,
}

enum Stage {
    Idle,
    Judging,
    AskingRoom,
    Creating,
    /// Packs to write; none once they were handed out.
    Writing(Option<Vec<Pack>>, u64),
    Syncing(u64),
    Pausing(Box<Pause>, Next),
    Durable,
}

/// Where to go on after a pause.
#[derive(Clone, Copy)]
enum Next {
    Judge,
    AskRoom,
}

/// See the head of the file.
pub struct Core {
    journal: JournalId,
    options: CoreOptions,
    clients: Clients,
    /// One past the last durable position.
    end: Position,
    /// The number of the next generation.
    next_number: u64,
    writing: Option<Writing>,
    /// Where the last sealed generation ended: the next checkpoint's position.
    sealed_end: Position,
    stage: Stage,
    /// What is not judged yet.
    rest: VecDeque<Work>,
    judged: Judged,
    retry_ms: u64,
    cipher: Option<PackCipher>,
}

impl Core {
    /// Begins at `end`, with generation `next_number`.
    #[must_use]
    pub fn new(
        journal: JournalId,
        options: CoreOptions,
        clients: Clients,
        end: Position,
        next_number: u64,
    ) -> Self {
        Self {
            journal,
            options,
            clients,
            end,
            next_number,
            writing: None,
            sealed_end: end,
            stage: Stage::Idle,
            rest: VecDeque::new(),
            judged: Judged::default(),
            retry_ms: limits::RETRY_MS_MIN,
            cipher: None,
        }
    }

    /// With what is written encrypted, if there is a key.
    #[must_use]
    pub fn encrypting(mut self, cipher: Option<PackCipher>) -> Self {
        self.cipher = cipher;
        self
    }

    /// One past the last durable position.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// Whether no group is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// The dedup states.
    pub fn clients(&mut self) -> &mut Clients {
        &mut self.clients
    }

    /// Takes a group. Only while idle.
    pub fn begin(&mut self, group: impl IntoIterator<Item = Work>) {
        debug_assert!(self.is_idle(), "one group at a time");
        self.rest.extend(group);
        self.retry_ms = limits::RETRY_MS_MIN;
        self.stage = Stage::Judging;
    }

    /// What is to be done now. Asked again before it was answered, it says the same
    /// (but gives packs and outcomes away only once).
    pub fn poll(&mut self) -> Action {
        if matches!(self.stage, Stage::Judging) {
            self.judge();
        }
        match &mut self.stage {
            Stage::Idle | Stage::Judging => Action::Idle,
            Stage::AskingRoom => Action::AskRoom {
                bytes: self.judged.bytes as u64,
            },
            Stage::Creating => Action::Create {
                number: self.next_number,
                first: self.end,
            },
            Stage::Writing(packs, _) => Action::Write {
                number: self.writing.as_ref().map_or(0, |w| w.number),
                packs: packs.take().unwrap_or_default(),
            },
            Stage::Syncing(_) => Action::Sync {
                number: self.writing.as_ref().map_or(0, |w| w.number),
            },
            Stage::Pausing(pause, _) => Action::Pause(Pause {
                ms: pause.ms,
                records: pause.records,
                alarm: pause.alarm.clone(),
                failed: pause.failed,
                full: pause.full,
            }),
            Stage::Durable => {
                self.stage = Stage::Idle;
                Action::Committed(self.committed())
            }
        }
    }

    /// Asks the dedup states, which may have to be read from disk.
    fn judge(&mut self) {
        while let Some(work) = self.rest.front() {
            let asked = match work {
                Work::Forget { client_id } => self.clients.forget(client_id).map(|()| None),
                Work::Append { record, .. } if !pack::fits(record) => Ok(Some(Verdict::TooLarge)),
                Work::Append { .. } if !self.options.dedup => Ok(Some(Verdict::New)),
                Work::Append { record, .. } => self.clients.accept(record).map(Some),
            };
            let verdict = match asked {
                Ok(verdict) => verdict,
                Err(error) => return self.pause_after(&error, 0, false, Next::Judge),
            };
            let (
                Some(verdict),
                Some(Work::Append {
                    record,
                    sink,
                    token,
                }),
            ) = (verdict, self.rest.pop_front())
            else {
                continue;
            };
            let judged = &mut self.judged;
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
            judged.verdicts.push((sink, token, verdict));
        }
        self.retry_ms = limits::RETRY_MS_MIN;
        self.stage = if self.judged.records.is_empty() {
            Stage::Durable
        } else {
            Stage::AskingRoom
        };
    }

    /// Answers [`Action::AskRoom`]: why there is none, if so.
    pub fn room(&mut self, refused: Option<Alarm>) {
        if !matches!(self.stage, Stage::AskingRoom) {
            return;
        }
        self.stage = match refused {
            Some(alarm) => {
                let pause = Pause {
                    ms: limits::SPACE_CHECK_MS,
                    records: self.judged.records.len() as u64,
                    alarm,
                    failed: false,
                    full: false,
                };
                Stage::Pausing(Box::new(pause), Next::AskRoom)
            }
            None if self.writing.is_none() => Stage::Creating,
            None => self.pack(),
        };
    }

    fn pack(&self) -> Stage {
        let number = self.writing.as_ref().map_or(0, |w| w.number);
        let mut packer =
            Packer::new(self.journal, number, self.end).encrypting(self.cipher.clone());
        for record in &self.judged.records {
            packer.add(record);
        }
        let packs = packer.finish();
        let bytes = packs.iter().map(|pack| pack.value.len() as u64).sum();
        Stage::Writing(Some(packs), bytes)
    }

    /// What came of the step that was asked for last.
    pub fn done(&mut self, result: Result<(), StoreError>) {
        if let (Stage::Creating, true) = (&self.stage, result.is_err()) {
            // A number that was tried is not used again.
            self.next_number += 1;
        }
        if let Err(error) = result {
            let full = error.is_full();
            // Whatever is in it now was acknowledged before, or counts nothing.
            self.seal();
            let records = self.judged.records.len() as u64;
            self.pause_after(&error, records, full, Next::AskRoom);
            return;
        }
        self.stage = match self.stage {
            Stage::Creating => {
                self.writing = Some(Writing {
                    number: self.next_number,
                    bytes: 0,
                });
                self.next_number += 1;
                self.pack()
            }
            Stage::Writing(_, bytes) => Stage::Syncing(bytes),
            Stage::Syncing(bytes) => {
                if let Some(writing) = &mut self.writing {
                    writing.bytes += bytes;
                }
                Stage::Durable
            }
            _ => return,
        };
    }

    fn pause_after(&mut self, error: &StoreError, records: u64, full: bool, next: Next) {
        let pause = Pause {
            ms: self.retry_ms,
            records,
            alarm: Alarm::WriteFailed {
                reason: error.to_string(),
            },
            failed: matches!(next, Next::AskRoom),
            full,
        };
        self.retry_ms = (self.retry_ms * 2).min(limits::RETRY_MS_MAX);
        self.stage = Stage::Pausing(Box::new(pause), next);
    }

    /// The pause is over: tries again.
    pub fn resume(&mut self) {
        if let Stage::Pausing(_, next) = self.stage {
            self.stage = match next {
                Next::Judge => Stage::Judging,
                Next::AskRoom => Stage::AskingRoom,
            };
        }
    }

    fn committed(&mut self) -> Committed {
        let judged = std::mem::take(&mut self.judged);
        let first = self.end;
        self.end += judged.records.len() as u64;
        let mut position = first;
        let outcomes = judged
            .verdicts
            .into_iter()
            .map(|(sink, token, verdict)| {
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
                (sink, token, outcome)
            })
            .collect();
        Committed {
            first,
            records: judged.records,
            outcomes,
            duplicates: judged.duplicates,
            below_window: judged.below_window,
            too_large: judged.too_large,
        }
    }

    /// The journal closes before the group could be stored: who is to hear that
    /// nothing will come. The dedup states know records now that were never stored,
    /// and must not be filed any more.
    pub fn abandon(&mut self) -> Vec<(Arc<dyn AckSink>, u64)> {
        self.stage = Stage::Idle;
        let judged = std::mem::take(&mut self.judged);
        let verdicts = judged.verdicts.into_iter();
        let mut waiting: Vec<_> = verdicts.map(|(sink, token, _)| (sink, token)).collect();
        for work in self.rest.drain(..) {
            if let Work::Append { sink, token, .. } = work {
                waiting.push((sink, token));
            }
        }
        waiting
    }

    /// Nothing more goes to the generation that is being written.
    pub fn seal(&mut self) {
        self.writing = None;
        self.sealed_end = self.end;
    }

    /// Between two groups: seals a full generation (or if `asked` to), takes
    /// checkpoints on.
    pub fn keep_house(&mut self, asked: bool) -> House {
        let mut house = House::default();
        let full = self
            .writing
            .as_ref()
            .is_some_and(|w| w.bytes >= self.options.generation_bytes);
        if full || asked {
            self.seal();
            house.sealed = true;
        }
        self.clients.evict();
        let due = self.sealed_end > self.clients.checkpointed() || self.clients.is_crowded();
        if due && !self.clients.is_checkpointing() {
            self.clients.begin_checkpoint(self.end);
        }
        match self.clients.step() {
            Ok(true) => house.checkpointed = Some(self.clients.checkpointed()),
            Ok(false) => {}
            Err(error) => house.trouble = Some(error),
        }
        house
    }
}

#[cfg(test)]
mod tests;
