//! Who holds which position of the journal, and who still needs it. A core.
//!
//! Promises: a position is answered for by one generation at most; nothing is
//! given up that a consumer has not released, that is not in the dedup states
//! filed, or that the newest generation holds. Never: a file.

use std::collections::BTreeMap;

use crate::record::{Position, Record};

use super::generation::Generation;
use super::tail::Tail;

/// How far everybody is.
#[derive(Debug)]
pub struct Positions {
    /// One past the last durable position.
    end: Position,
    pub(super) tail: Tail,
    /// By number; the positions grow with it.
    generations: BTreeMap<u64, Generation>,
    /// The number of the one that is being written.
    live: Option<u64>,
    /// By consumer: it needs nothing below.
    released: BTreeMap<String, Position>,
    /// Every record below is in the dedup states filed.
    checkpointed: Position,
}

/// The generations that hold nothing (their first append was cut off): the next one
/// begins where they do.
#[must_use]
pub fn never_written(generations: &BTreeMap<u64, Generation>) -> Vec<u64> {
    generations
        .values()
        .filter(|g| {
            generations
                .range(g.number + 1..)
                .next()
                .is_some_and(|(_, n)| n.first <= g.first)
        })
        .map(|g| g.number)
        .collect()
}

/// Who holds a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The generation that is being written, until before `end`.
    Live {
        /// Which.
        generation: Generation,
        /// One past the last position it answers for.
        end: Position,
    },
    /// One that nobody writes any more.
    Sealed {
        /// Which.
        generation: Generation,
        /// One past the last position it answers for.
        end: Position,
    },
    /// Nobody: deleted, or lost with its generation.
    Gone {
        /// Where to read on.
        next: Position,
    },
}

impl Positions {
    /// What a start finds. Consumers have released nothing yet.
    #[must_use]
    pub fn new(
        generations: BTreeMap<u64, Generation>,
        consumers: &[String],
        end: Position,
        checkpointed: Position,
    ) -> Self {
        Self {
            end,
            tail: Tail::default(),
            generations,
            live: None,
            released: consumers.iter().map(|c| (c.clone(), 1)).collect(),
            checkpointed,
        }
    }

    /// One past the last durable position.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// The generations, by number.
    #[must_use]
    pub fn generations(&self) -> &BTreeMap<u64, Generation> {
        &self.generations
    }

    /// By consumer: it needs nothing below.
    #[must_use]
    pub fn released(&self) -> &BTreeMap<String, Position> {
        &self.released
    }

    /// A generation is written from now on. Those that it takes the place of, for
    /// they never held a record that counts, are to be removed.
    pub fn begin(&mut self, generation: Generation) -> Vec<Generation> {
        let superseded: Vec<Generation> = self
            .generations
            .values()
            .filter(|older| older.first >= generation.first)
            .cloned()
            .collect();
        for older in &superseded {
            self.generations.remove(&older.number);
        }
        self.live = Some(generation.number);
        self.generations.insert(generation.number, generation);
        superseded
    }

    /// Nothing more goes to the generation that was written.
    pub fn seal(&mut self) {
        self.live = None;
    }

    /// Records that are durable now, at the end.
    pub fn durable(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            self.end = record.position + 1;
            self.tail.push(record);
        }
    }

    /// Every record below is in the dedup states filed.
    pub fn checkpointed(&mut self, position: Position) {
        self.checkpointed = position;
    }

    /// `consumer` needs nothing below `upto` any more; false: it is none.
    pub fn release(&mut self, consumer: &str, upto: Position) -> bool {
        let Some(released) = self.released.get_mut(consumer) else {
            return false;
        };
        *released = upto.max(*released);
        let upto = self.released_by_all();
        self.tail.release(upto);
        true
    }

    /// Who holds a position.
    #[must_use]
    pub fn source_of(&self, position: Position) -> Source {
        let holder = self
            .generations
            .values()
            .rev()
            .find(|generation| generation.first <= position);
        let Some(holder) = holder else {
            return Source::Gone {
                next: self.oldest(),
            };
        };
        let end = self.end_of(holder);
        if end <= position {
            return Source::Gone { next: self.end };
        }
        let generation = holder.clone();
        if self.live == Some(holder.number) {
            Source::Live { generation, end }
        } else {
            Source::Sealed { generation, end }
        }
    }

    /// One past the last position that `generation` is responsible for.
    fn end_of(&self, generation: &Generation) -> Position {
        self.generations
            .range(generation.number + 1..)
            .next()
            .map_or(self.end, |(_, next)| next.first)
    }

    /// The first position still held.
    #[must_use]
    pub fn oldest(&self) -> Position {
        self.generations
            .values()
            .next()
            .map_or(self.end, |g| g.first)
    }

    /// What every consumer has released; 1 if somebody never did.
    fn released_by_all(&self) -> Position {
        self.released.values().copied().min().unwrap_or(self.end)
    }

    /// Takes out the generations that nobody needs any more, oldest first: released
    /// by all, their dedup states filed, never the newest (its name keeps the
    /// positions). `keep` takes from the end those that are to stay all the same.
    pub fn take_released(&mut self, keep: impl FnOnce(&mut Vec<Generation>)) -> Vec<Generation> {
        let upto = self.released_by_all().min(self.checkpointed);
        let Some(newest) = self.generations.keys().next_back().copied() else {
            return Vec::new();
        };
        let mut released: Vec<Generation> = self
            .generations
            .values()
            .filter(|g| g.number != newest && self.end_of(g) <= upto)
            .cloned()
            .collect();
        keep(&mut released);
        for generation in &released {
            self.generations.remove(&generation.number);
        }
        released
    }

    /// They could not be deleted: they answer for their positions again.
    pub fn put_back(&mut self, generations: impl IntoIterator<Item = Generation>) {
        self.generations
            .extend(generations.into_iter().map(|g| (g.number, g)));
    }
}

#[cfg(test)]
mod tests;
