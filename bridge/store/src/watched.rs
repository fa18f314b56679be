//! Calls of sled that come back, also when sled forgets to wake them.
//!
//! While a call takes longer than [`limits::CALL_STUCK_MS`], a thread of its own
//! asks the same database's log to be made stable, again after twice the time,
//! and so on: that looks at sled's error first and wakes whoever waits. Each may
//! fall into the same hole if the error comes later; the next one frees them all.
//!
//! It is the log and not `flush()`: that takes sled's lock for batches, which is
//! one for all databases of the process. A stuck flush of one holds it, a batch
//! of another queues for it, and a second flush would queue behind both.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::limits;

/// An open database whose calls are watched.
pub(crate) struct Watched {
    inner: Arc<Inner>,
    watcher: Option<JoinHandle<()>>,
}

struct Inner {
    /// `None` only while it is being dropped.
    db: Mutex<Option<sled::Db>>,
    calls: Mutex<Calls>,
    stop: Condvar,
}

#[derive(Default)]
struct Calls {
    next: u64,
    begun: BTreeMap<u64, Instant>,
    stopping: bool,
}

impl Watched {
    pub(crate) fn new(db: sled::Db) -> std::io::Result<Self> {
        let inner = Arc::new(Inner {
            db: Mutex::new(Some(db)),
            calls: Mutex::default(),
            stop: Condvar::new(),
        });
        let watching = Arc::clone(&inner);
        let mut watched = Self {
            inner,
            watcher: None,
        };
        let watcher = std::thread::Builder::new()
            .name("sled-watch".to_string())
            .spawn(move || watching.watch())?;
        watched.watcher = Some(watcher);
        Ok(watched)
    }

    /// Runs `work`; whoever panics in it is taken note of as ended too.
    pub(crate) fn call<T>(&self, work: impl FnOnce(&sled::Db) -> T) -> T {
        let db = self.inner.db.lock().clone();
        let db = db.expect("the database is open until dropped");
        let _running = self.inner.begin();
        work(&db)
    }
}

impl Inner {
    fn begin(&self) -> Running<'_> {
        let mut calls = self.calls.lock();
        let call = calls.next;
        calls.next += 1;
        calls.begun.insert(call, Instant::now());
        Running { inner: self, call }
    }

    fn watch(&self) {
        let first = Duration::from_millis(limits::CALL_STUCK_MS);
        let mut patience = first;
        let mut calls = self.calls.lock();
        while !calls.stopping {
            self.stop.wait_for(&mut calls, first / 2);
            let longest = calls.begun.values().next().map(Instant::elapsed);
            match longest {
                Some(longest) if longest >= patience => {
                    patience *= 2;
                    let db = self.db.lock().clone();
                    if let Some(db) = db {
                        wake_all(db, longest);
                    }
                }
                Some(longest) if longest >= first => {}
                _ => patience = first,
            }
        }
    }
}

fn wake_all(db: sled::Db, longest: Duration) {
    tracing::warn!(
        seconds = longest.as_secs(),
        "a call of sled is slow or stuck"
    );
    let spawned = std::thread::Builder::new()
        .name("sled-wake".to_string())
        .spawn(move || {
            let _ = quietly(|| {
                let log = &db.context.pagecache.log;
                log.make_stable(log.stable_offset() + 1)
            });
        });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to wake sled with");
    }
}

/// A call under way.
struct Running<'a> {
    inner: &'a Inner,
    call: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.inner.calls.lock().begun.remove(&self.call);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.inner.calls.lock().stopping = true;
        self.inner.stop.notify_all();
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        // sled panics if its last flush fails.
        let db = self.inner.db.lock().take();
        let _ = quietly(|| drop(db));
    }
}

/// Runs `work`; a panic is an error, with its message.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a message".to_string())
    })
}
