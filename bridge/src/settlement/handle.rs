//! Between whoever started an instance and its thread.
//!
//! Promises: who waits for progress looks again after every change of state and
//! every commit. Never: a wait without a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{SettlementMetrics, State};
use crate::limits;
use crate::worker::{self, Worker};

/// A running instance. Dropping it asks for a stop without waiting.
#[derive(Debug)]
pub struct SettlementHandle {
    pub(super) worker: Worker<State>,
    pub(super) metrics: Arc<SettlementMetrics>,
}

impl SettlementHandle {
    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        *self.worker.control().shown.lock()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<SettlementMetrics> {
        &self.metrics
    }

    /// Whether the thread has ended, by request or by a [`FaultHook`](super::FaultHook).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.worker.is_finished()
    }

    /// Waits until a condition holds, which is looked at after every change of
    /// state and every commit. `false` if the time is over.
    pub fn wait_until(&self, timeout: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + timeout;
        let control = self.worker.control();
        control.wait_until(until, || condition(self))
    }

    /// Lets the transaction under way finish. `true` if it ended within `deadline`;
    /// nothing is lost in either case, the next start finds out what became of the
    /// transaction.
    pub fn stop(self, deadline: Duration) -> bool {
        self.worker.stop(deadline, limits::LAST_CALL)
    }
}

/// Between the handle and the thread.
pub(super) type Control = worker::Control<State>;

impl Control {
    pub(super) fn set_state(&self, state: State) {
        *self.shown.lock() = state;
        self.tell();
    }
}
