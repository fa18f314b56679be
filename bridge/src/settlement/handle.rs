//! Between whoever started an instance and its thread.
//!
//! Promises: a stop waits for the transaction under way, and not for ever. Never: a
//! wait without a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{SettlementMetrics, State};

/// A running instance. Dropping it asks for a stop without waiting.
#[derive(Debug)]
pub struct SettlementHandle {
    control: Arc<Control>,
    metrics: Arc<SettlementMetrics>,
    thread: Option<JoinHandle<()>>,
}

impl SettlementHandle {
    pub(super) fn new(
        control: Arc<Control>,
        metrics: Arc<SettlementMetrics>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self {
            control,
            metrics,
            thread: Some(thread),
        }
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        *self.control.state.lock()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<SettlementMetrics> {
        &self.metrics
    }

    /// Whether the thread has ended, by request or by a [`FaultHook`](super::FaultHook).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until a condition holds, which is looked at after every change of
    /// state and every commit. `false` if the time is over.
    pub fn wait_until(&self, timeout: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + timeout;
        let mut ended = self.control.ended.lock();
        loop {
            if condition(self) {
                return true;
            }
            if *ended || self.control.wake.wait_until(&mut ended, until).timed_out() {
                return condition(self);
            }
        }
    }

    /// Lets the transaction under way finish. `true` if it ended within `deadline`;
    /// nothing is lost in either case, the next start finds out what became of the
    /// transaction.
    pub fn stop(mut self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        self.control.ask_to_stop(until);
        // The last call to Kafka may take that much longer.
        let ended = self.control.wait_ended(until + Duration::from_secs(3));
        if ended && let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        ended
    }
}

impl Drop for SettlementHandle {
    fn drop(&mut self) {
        self.control.ask_to_stop(Instant::now());
    }
}

/// Between the handle and the thread.
#[derive(Debug, Default)]
pub(super) struct Control {
    stopping: AtomicBool,
    until: Mutex<Option<Instant>>,
    ended: Mutex<bool>,
    wake: Condvar,
    state: Mutex<State>,
}

impl Control {
    pub(super) fn ask_to_stop(&self, until: Instant) {
        self.until.lock().get_or_insert(until);
        let _held = self.ended.lock();
        self.stopping.store(true, Ordering::Release);
        self.wake.notify_all();
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether the time given for the stop is over.
    pub(super) fn overdue(&self) -> bool {
        self.stopping()
            && self
                .until
                .lock()
                .is_some_and(|until| Instant::now() >= until)
    }

    /// Pauses, but not beyond a request to stop.
    pub(super) fn pause(&self, duration: Duration) {
        let until = Instant::now() + duration;
        let mut ended = self.ended.lock();
        while !self.stopping() && !self.wake.wait_until(&mut ended, until).timed_out() {}
    }

    pub(super) fn wait_ended(&self, until: Instant) -> bool {
        let mut ended = self.ended.lock();
        while !*ended {
            if self.wake.wait_until(&mut ended, until).timed_out() {
                break;
            }
        }
        *ended
    }

    pub(super) fn set_ended(&self) {
        *self.ended.lock() = true;
        self.wake.notify_all();
    }

    pub(super) fn set_state(&self, state: State) {
        *self.state.lock() = state;
        self.settled();
    }

    /// Wakes who waits for progress.
    pub(super) fn settled(&self) {
        let _held = self.ended.lock();
        self.wake.notify_all();
    }
}
