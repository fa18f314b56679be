//! One direction of a connection.
//!
//! Promises: what was pushed comes out in its order, never before its time; what
//! is pushed behind an end is not there. Never: a byte lost between two that come.

use std::collections::VecDeque;

use crate::contract::Ms;

/// What travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The beginning of a connection, or its acceptance.
    Open,
    /// Bytes of a segment.
    Bytes(Vec<u8>),
    /// The end: closed, or reset.
    End,
}

/// One direction.
#[derive(Debug, Default)]
pub struct Lane {
    queue: VecDeque<(Ms, Item)>,
    last_ms: Ms,
    /// What is pushed from now on goes nowhere.
    closed: bool,
    /// Nothing arrives before.
    stalled_until_ms: Ms,
}

impl Lane {
    /// Sends this; it arrives then, and not before what was sent before.
    pub fn push(&mut self, item: Item, at_ms: Ms) {
        if self.closed {
            return;
        }
        self.last_ms = at_ms.max(self.last_ms).max(self.stalled_until_ms);
        self.queue.push_back((self.last_ms, item));
    }

    /// What arrives by now.
    pub fn pop(&mut self, now_ms: Ms) -> Option<Item> {
        if self.due_ms() > now_ms {
            return None;
        }
        self.queue.pop_front().map(|(_, item)| item)
    }

    /// When the next arrives.
    pub fn due_ms(&self) -> Ms {
        let first = self.queue.front();
        first.map_or(Ms::MAX, |(at_ms, _)| (*at_ms).max(self.stalled_until_ms))
    }

    /// Nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Nothing arrives before that.
    pub fn stall(&mut self, until_ms: Ms) {
        self.stalled_until_ms = until_ms.max(self.stalled_until_ms);
    }

    /// All that is on its way comes so much later.
    pub fn delay(&mut self, by_ms: Ms) {
        for (at_ms, _) in &mut self.queue {
            *at_ms += by_ms;
        }
        self.last_ms += by_ms;
    }

    /// Of what is on its way a first part still arrives, to a byte.
    pub fn keep_some(&mut self, chance: &mut fastrand::Rng) {
        let keep = chance.usize(0..=self.queue.len());
        let torn = match self.queue.get_mut(keep) {
            Some((_, Item::Bytes(bytes))) => {
                bytes.truncate(chance.usize(0..=bytes.len()));
                !bytes.is_empty()
            }
            _ => false,
        };
        self.queue.truncate(keep + usize::from(torn));
    }

    /// What is on its way arrives; then nothing, and nobody is told.
    pub fn ends_silently(&mut self) {
        self.closed = true;
    }

    /// Nothing of it is there any more.
    pub fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
    }
}
