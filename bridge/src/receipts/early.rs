//! Deliveries that were heard of before their receipts. A core: no clock, no disk.
//!
//! Promises: a delivery by another gateway ends the receipt here also if the receipt
//! is not on disk yet when the event comes: two topics are read side by side, and a
//! commit takes its time. At most so many are remembered, each for so long. Never: a
//! receipt that was asked for again long after it was delivered.

use std::collections::{HashMap, VecDeque};

use crate::limits;

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Since when, by terminal and sequence number.
    known: HashMap<(String, u64), u64>,
    /// In the order in which they came; may name some that are gone.
    order: VecDeque<(String, u64)>,
}

impl Early {
    /// An event came.
    pub(super) fn heard(&mut self, terminal: &str, sequence: u64, now_ms: u64) {
        let key = (terminal.to_owned(), sequence);
        if self.known.insert(key.clone(), now_ms).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > limits::EARLY_DELIVERIES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Its receipt was found, or has come: whether there was such an event.
    pub(super) fn take(&mut self, terminal: &str, sequence: u64, now_ms: u64) -> bool {
        if self.known.is_empty() {
            return false;
        }
        let heard_ms = self.known.remove(&(terminal.to_owned(), sequence));
        if self.known.is_empty() {
            self.order.clear();
        }
        heard_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) <= limits::EARLY_DELIVERY_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_one_receipt_and_only_for_a_while() {
        let mut early = Early::default();
        early.heard("a", 1, 1_000);
        assert!(!early.take("a", 2, 1_000));
        assert!(!early.take("b", 1, 1_000));
        assert!(early.take("a", 1, 1_500));
        assert!(!early.take("a", 1, 1_500));
        early.heard("a", 1, 1_000);
        assert!(!early.take("a", 1, 1_001 + limits::EARLY_DELIVERY_MS));
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut early = Early::default();
        for n in 0..=limits::EARLY_DELIVERIES_MAX as u64 {
            early.heard("a", n, 0);
        }
        assert!(!early.take("a", 0, 0));
        assert!(early.take("a", 1, 0));
        for n in 0..100_000 {
            early.heard("b", n, 0);
            early.take("b", n, 0);
        }
        assert!(early.order.len() <= limits::EARLY_DELIVERIES_MAX);
        assert!(early.known.len() <= limits::EARLY_DELIVERIES_MAX);
    }
}
