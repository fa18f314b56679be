//! The sweep over the state's database, some entries with each commit: it removes
//! tombstones that no salvage needs any more, and learns how much lives.
//!
//! Promises: a tombstone stays as long as a torn commit could bring back what it
//! deleted. Never: more reads with a commit than that has writes, but for a few.

use std::collections::VecDeque;
use std::ops::Bound;

use crate::database::Database;
use crate::{StoreError, limits};

use super::envelope::{ENTRY, Envelope, Head, Kind, LIFE_SHIFT};
use super::writes::Writes;

/// Tombstones that make a new round of the sweep worth its reads.
pub(super) const SWEEP_AFTER_TOMBSTONES: usize = 4_096;

/// The part of [`StoreOptions::state_compact_bytes_min`](crate::StoreOptions) that is
/// written between two rounds at most, so that what lives is known.
const SWEEP_AFTER_PART: u64 = 4;

/// Openings after which a tombstone is forgotten, however few commits they had.
const TOMBSTONE_LIVES: u64 = 8;

/// Where it stands.
pub(super) struct Sweep {
    /// Go on behind this key of sled's.
    after: Vec<u8>,
    active: bool,
    tombstones_since: usize,
    /// Written since this round was begun.
    bytes_since: u64,
    /// What lives in the part that it has gone over.
    live_bytes: u64,
    /// What lives in all of it, once that is known.
    found: Option<u64>,
    newest: Newest,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            after: vec![ENTRY],
            // The lives before may have left some.
            active: true,
            tombstones_since: 0,
            bytes_since: 0,
            live_bytes: 0,
            found: None,
            newest: Newest::default(),
        }
    }
}

impl Sweep {
    /// Goes on with a commit of this stamp: adds what it removes to `writes`.
    /// `compact_bytes_min`: as [`StoreOptions`](crate::StoreOptions) has it.
    pub(super) fn go_on(
        &mut self,
        writes: &mut Writes,
        database: &Database,
        stamp: u64,
        compact_bytes_min: u64,
    ) -> Result<(), StoreError> {
        self.tombstones_since += writes.tombstones();
        let is_due = self.tombstones_since >= SWEEP_AFTER_TOMBSTONES
            || self.bytes_since > compact_bytes_min / SWEEP_AFTER_PART;
        if !self.active && !is_due {
            return Ok(());
        }
        if !self.active {
            *self = Self {
                newest: std::mem::take(&mut self.newest),
                ..Self::default()
            };
        }
        let limit = limits::SWEEP_ENTRIES_MIN + 2 * writes.puts.len();
        let page = database.page(Bound::Excluded(&self.after), limit, |key| {
            key.first() == Some(&ENTRY)
        })?;
        let ends = page.len() < limit;
        if let Some((key, _)) = page.last() {
            self.after = key.to_vec();
        }
        for (key, value) in page {
            let envelope = Envelope::decode_for(&key, &value);
            let large = envelope
                .as_ref()
                .filter(|envelope| envelope.kind == Kind::Head)
                .and_then(|envelope| Head::decode(envelope.value))
                .map_or(0, |head| head.total_bytes);
            self.live_bytes += (key.len() + value.len() + large) as u64;
            let forgotten = envelope.is_some_and(|e| {
                e.kind == Kind::Tombstone
                    && (is_forgotten(e.stamp, stamp) || self.newest.forgets(e.stamp))
            });
            if forgotten && !writes.puts.contains_key(&key.to_vec()) {
                writes.removes.push(key.to_vec());
            }
        }
        if ends {
            self.active = false;
            self.found = Some(self.live_bytes);
        }
        Ok(())
    }

    /// That commit is durable, and has written so much.
    pub(super) fn note(&mut self, tombstones: usize, bytes: u64, stamp: u64) {
        self.bytes_since += bytes;
        self.newest.note(tombstones, stamp);
    }

    /// What lives in the whole database, bytes; once a round.
    pub(super) fn take_found(&mut self) -> Option<u64> {
        self.found.take()
    }
}

/// Which of this life's tombstones are the newest [`limits::TOMBSTONES_MAX`], about:
/// what was deleted before them is forgotten, however few commits ago.
#[derive(Debug, Default)]
pub(super) struct Newest {
    /// Since the last of `marks`.
    written: usize,
    /// The commit at which each [`SWEEP_AFTER_TOMBSTONES`] were full, oldest first.
    marks: VecDeque<u64>,
}

impl Newest {
    /// This commit has written so many.
    pub(super) fn note(&mut self, tombstones: usize, stamp: u64) {
        self.written += tombstones;
        if self.written >= SWEEP_AFTER_TOMBSTONES {
            self.written = 0;
            self.marks.push_back(stamp);
            if self.marks.len() > limits::TOMBSTONES_MAX / SWEEP_AFTER_TOMBSTONES {
                self.marks.pop_front();
            }
        }
    }

    /// Whether this one is not among them.
    pub(super) fn forgets(&self, tombstone: u64) -> bool {
        self.marks.len() == limits::TOMBSTONES_MAX / SWEEP_AFTER_TOMBSTONES
            && self.marks.front().is_some_and(|oldest| tombstone < *oldest)
    }
}

pub(super) fn is_forgotten(tombstone: u64, now: u64) -> bool {
    let lives = (now >> LIFE_SHIFT) - (tombstone >> LIFE_SHIFT);
    let commits = if lives == 0 {
        now - tombstone
    } else {
        now & ((1 << LIFE_SHIFT) - 1)
    };
    commits > limits::TOMBSTONE_COMMITS || lives > TOMBSTONE_LIVES
}
