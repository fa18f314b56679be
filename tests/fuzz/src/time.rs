//! Time that passes only when all wait, for what waits on a clock.
//!
//! Promises: a future is polled until it is ready, and time goes on to the next
//! moment that somebody waits for; one that waits for nothing at all, or wakes
//! without end while time stands still, is told. Never: a thread, or the machine's
//! own time.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use risiti_terminal::hardware::Clock;

/// Polls without any time passing that are no wait any more.
const POLLS_AT_ONCE_MAX: u32 = 100_000;

/// A clock; clones tell the same time.
#[derive(Debug, Clone, Default)]
pub struct Time(Rc<State>);

#[derive(Debug, Default)]
struct State {
    now_ms: Cell<u64>,
    /// The next moment that somebody waits for.
    next_ms: Cell<Option<u64>>,
}

impl Time {
    /// Somebody waits for this moment.
    pub fn wait_for(&self, at_ms: u64) {
        let next_ms = self
            .0
            .next_ms
            .get()
            .map_or(at_ms, |next_ms| next_ms.min(at_ms));
        self.0.next_ms.set(Some(next_ms));
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        self.0.now_ms.set(self.now_ms() + ms);
    }

    /// Runs a future to its end, which must come within so many milliseconds.
    ///
    /// # Panics
    /// It does not.
    pub fn ends<T>(&self, what: &str, within_ms: u64, future: impl Future<Output = T>) -> T {
        let last_ms = self.now_ms() + within_ms;
        self.run_until(last_ms, future)
            .unwrap_or_else(|why| panic!("{what} {why} after {within_ms} ms"))
    }

    /// Runs a future for so many milliseconds at most, then drops it.
    ///
    /// # Errors
    /// What it did instead of ending.
    pub fn run_until<T>(
        &self,
        last_ms: u64,
        future: impl Future<Output = T>,
    ) -> Result<T, &'static str> {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        let mut polls = 0;
        loop {
            self.0.next_ms.set(None);
            if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
                return Ok(done);
            }
            let Some(next_ms) = self.0.next_ms.get() else {
                return Err("waits for nothing");
            };
            if next_ms > last_ms {
                self.0.now_ms.set(last_ms.max(self.now_ms()));
                return Err("has not ended");
            }
            if next_ms > self.now_ms() {
                self.0.now_ms.set(next_ms);
                polls = 0;
            }
            polls += 1;
            assert!(
                polls < POLLS_AT_ONCE_MAX,
                "it spins at {} ms",
                self.now_ms()
            );
        }
    }
}

impl Clock for Time {
    fn now_ms(&self) -> u64 {
        self.0.now_ms.get()
    }

    async fn sleep_until(&self, at_ms: u64) {
        poll_fn(|_| {
            if self.now_ms() >= at_ms {
                return Poll::Ready(());
            }
            self.wait_for(at_ms);
            Poll::Pending
        })
        .await;
    }
}
