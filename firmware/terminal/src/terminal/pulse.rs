//! Whether every task still comes round.
//!
//! Promises: a task that is at work longer than it said is told of, so that the
//! watchdog starves. Never: a wait without an end taken for one: who waits for a
//! person is not at work.

use core::cell::Cell;

/// A task that could hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Keys and display.
    People,
    /// The printer.
    Paper,
    /// The way to the gateway.
    Radio,
}

/// By when each task has said that it is done with what it is at.
#[derive(Debug)]
pub struct Pulse {
    done_by_ms: [Cell<u64>; 3],
}

/// Of a task that waits for others.
const IDLE: u64 = u64::MAX;

impl Pulse {
    /// Nobody is at work.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            done_by_ms: [const { Cell::new(IDLE) }; 3],
        }
    }

    /// It is at work, and done by then.
    pub fn works(&self, task: Task, done_by_ms: u64) {
        self.of(task).set(done_by_ms);
    }

    /// It waits for others, who may be long.
    pub fn waits(&self, task: Task) {
        self.of(task).set(IDLE);
    }

    /// Whether nobody is late.
    #[must_use]
    pub fn is_well(&self, now_ms: u64) -> bool {
        self.done_by_ms.iter().all(|by| now_ms <= by.get())
    }

    fn of(&self, task: Task) -> &Cell<u64> {
        let [people, paper, radio] = &self.done_by_ms;
        match task {
            Task::People => people,
            Task::Paper => paper,
            Task::Radio => radio,
        }
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_well_and_who_is_late_is_not() {
        let pulse = Pulse::new();
        assert!(pulse.is_well(u64::MAX));
        pulse.works(Task::Radio, 100);
        assert!(pulse.is_well(100));
        assert!(!pulse.is_well(101));
        pulse.works(Task::People, 50);
        pulse.waits(Task::Radio);
        assert!(!pulse.is_well(101));
        pulse.waits(Task::People);
        assert!(pulse.is_well(101));
    }
}
