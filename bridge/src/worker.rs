//! A thread that serves Kafka for as long as nobody asks it to end: the
//! forwarder's, the receipts' consumer's, settlement's.
//!
//! Promises: a pause ends with the request to stop; the first request says by when;
//! a stop waits for what is under way, and not for ever. Never: a wait without a
//! deadline.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A running thread. Dropping it asks for a stop without waiting.
#[derive(Debug)]
pub(crate) struct Worker<S> {
    control: Arc<Control<S>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S: Default + Send + 'static> Worker<S> {
    /// Starts the thread; it ends when `run` returns.
    ///
    /// # Errors
    /// The operating system gave none.
    pub(crate) fn start(
        name: String,
        run: impl FnOnce(&Control<S>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let control = Arc::new(Control::default());
        let inner = Arc::clone(&control);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            run(&inner);
            inner.set_ended();
        })?;
        Ok(Self {
            control,
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl<S> Worker<S> {
    /// What the thread hears and shows.
    pub(crate) fn control(&self) -> &Control<S> {
        &self.control
    }

    /// Whether the thread has ended, for whatever reason.
    pub(crate) fn is_finished(&self) -> bool {
        let thread = self.thread.lock();
        thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks the thread to end within `deadline`, and waits for it that long and
    /// `grace` longer. `true` if it ended.
    pub(crate) fn stop(&self, deadline: Duration, grace: Duration) -> bool {
        let by = Instant::now() + deadline;
        self.control.ask_to_stop(by);
        let ended = self.control.wait_ended(by + grace);
        if ended && let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
        ended
    }
}

impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        self.control.ask_to_stop(Instant::now());
    }
}

/// Between the handle and the thread.
#[derive(Debug, Default)]
pub(crate) struct Control<S> {
    /// By when it shall have ended, once it was asked to.
    stop_by: OnceLock<Instant>,
    ended: Mutex<bool>,
    wake: Condvar,
    /// What the thread shows of itself. Never held while waiting.
    pub(crate) shown: Mutex<S>,
}

impl<S> Control<S> {
    fn ask_to_stop(&self, by: Instant) {
        let _held = self.ended.lock();
        let _ = self.stop_by.set(by);
        self.wake.notify_all();
    }

    /// Whether it was asked to end.
    pub(crate) fn stopping(&self) -> bool {
        self.stop_by.get().is_some()
    }

    /// Whether the time given for the stop is over.
    pub(crate) fn overdue(&self) -> bool {
        self.stop_by.get().is_some_and(|by| Instant::now() >= *by)
    }

    /// Pauses, but not beyond a request to stop.
    pub(crate) fn pause(&self, duration: Duration) {
        let until = Instant::now() + duration;
        let mut ended = self.ended.lock();
        self.wake
            .wait_while_until(&mut ended, |_| !self.stopping(), until);
    }

    /// Has those who wait look at their condition again.
    pub(crate) fn tell(&self) {
        let _held = self.ended.lock();
        self.wake.notify_all();
    }

    /// Waits until a condition holds, which is looked at after every
    /// [`Self::tell`]. `false` if the time is over, or the thread.
    pub(crate) fn wait_until(&self, until: Instant, condition: impl Fn() -> bool) -> bool {
        let mut ended = self.ended.lock();
        let mut holds = false;
        self.wake.wait_while_until(
            &mut ended,
            |ended| {
                holds = condition();
                !holds && !*ended
            },
            until,
        );
        holds || condition()
    }

    fn wait_ended(&self, until: Instant) -> bool {
        let mut ended = self.ended.lock();
        self.wake
            .wait_while_until(&mut ended, |ended| !*ended, until);
        *ended
    }

    fn set_ended(&self) {
        *self.ended.lock() = true;
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_stop_ends_a_pause() {
        let worker: Worker<()> =
            Worker::start("test".into(), |control| control.pause(LONG)).unwrap();
        assert!(!worker.control().stopping());
        assert!(worker.stop(LONG, Duration::ZERO));
        assert!(worker.is_finished());
    }

    #[test]
    fn who_waits_is_told_and_a_thread_that_goes_on_is_not_waited_for() {
        let (end, told_to_end) = std::sync::mpsc::channel::<()>();
        let worker: Worker<u32> = Worker::start("test".into(), move |control| {
            *control.shown.lock() = 7;
            control.tell();
            let _ = told_to_end.recv();
        })
        .unwrap();
        let control = worker.control();
        assert!(control.wait_until(Instant::now() + LONG, || *control.shown.lock() == 7));
        assert!(!worker.stop(Duration::ZERO, Duration::ZERO));
        assert!(control.overdue());
        drop(end);
        assert!(!control.wait_until(Instant::now() + LONG, || false));
    }

    #[test]
    fn the_first_request_says_by_when() {
        let control = Control::<()>::default();
        control.ask_to_stop(Instant::now() + LONG);
        control.ask_to_stop(Instant::now());
        assert!(control.stopping() && !control.overdue());
    }
}
