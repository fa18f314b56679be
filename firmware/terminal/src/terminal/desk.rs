//! What the tasks of a terminal tell each other.
//!
//! Promises: no fact is lost, none overtakes another; an order waits until its
//! task is free. Never: a decision, or a wait while the store is locked.

use core::cell::Cell;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::channel::Channel;
use embassy_sync::mutex::Mutex;
use embassy_sync::signal::Signal;

use super::pulse::Pulse;
use crate::application::{Effect, Fact};
use crate::limits::FACTS_WAITING_MAX;
use crate::store::Store;

/// The store, for all tasks. Locked for one operation at a time, never while a
/// key, the printer or the modem is waited for.
pub type SharedStore<F> = Mutex<NoopRawMutex, Store<F>>;

/// The battery gauge, for all tasks.
pub type SharedGauge<'a, A> = Mutex<NoopRawMutex, &'a mut A>;

/// What the tasks tell each other.
pub struct Desk {
    /// For the people's task.
    pub facts: Channel<NoopRawMutex, Fact, FACTS_WAITING_MAX>,
    /// For the paper's task. The application asks for one thing at a time.
    pub paper: Signal<NoopRawMutex, Effect>,
    /// For the radio's task: something waits that didn't before.
    pub saved: Signal<NoopRawMutex, ()>,
    /// For the radio's task: a person wants receipts now.
    pub fetch: Signal<NoopRawMutex, ()>,
    /// Payments saved since the start.
    pub saved_count: Cell<u32>,
    /// Receipts printed since the start.
    pub printed_count: Cell<u32>,
    /// Whether everybody comes round.
    pub pulse: Pulse,
}

impl Desk {
    /// With nothing on it.
    pub const fn new() -> Self {
        Self {
            facts: Channel::new(),
            paper: Signal::new(),
            saved: Signal::new(),
            fetch: Signal::new(),
            saved_count: Cell::new(0),
            printed_count: Cell::new(0),
            pulse: Pulse::new(),
        }
    }
}
