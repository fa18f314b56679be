//! What the outbox's tests stand on: a real store in a directory that can be left
//! as a kill leaves it, and a listener that writes down what it hears.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use risiti_bridge::receipts::{
    Arrivals, Delivered, NextOffset, Outbox, OutboxSetup, Poll, ReceiptNumber, ReceiptsFault,
    ReceiptsMetrics, ReceiptsOptions, Received, StoredReceipt,
};
use risiti_bridge::{DeadLetters, TraceLog};
use risiti_config::Terminals;
use risiti_store::{Batch, Journal, RecordSource, State, StoreOptions, SyncHook};
use risiti_wire::{Currency, Lines, Receipt, Status};

/// Long enough for anything on a busy machine; reached only by a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory.
pub struct Desk {
    dir: tempfile::TempDir,
    /// Whether the journal recognises what it has.
    pub dedup: bool,
    /// Receipts that may wait in all.
    pub receipts_max: u64,
    /// Disk budget, and what of it only receipts may use, bytes.
    pub budget_bytes: (u64, u64),
}

/// A gateway's store and outbox.
pub struct House {
    pub outbox: Arc<Outbox>,
    pub state: Arc<State>,
    pub journal: Arc<Journal>,
    pub dead: Arc<DeadLetters>,
    listener: Arc<Listener>,
}

/// Holds syncs up while it is closed.
#[derive(Default)]
pub struct Gate {
    closed: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    pub fn close(&self) {
        *self.closed.lock() = (true, false);
    }

    pub fn open(&self) {
        self.closed.lock().0 = false;
        self.changed.notify_all();
    }

    pub fn wait_blocked(&self) {
        let mut closed = self.closed.lock();
        while !closed.1 {
            let late = self.changed.wait_for(&mut closed, PATIENCE).timed_out();
            assert!(!late, "no sync came");
        }
    }

    fn pass(&self) {
        let mut closed = self.closed.lock();
        while closed.0 {
            closed.1 = true;
            self.changed.notify_all();
            self.changed.wait_for(&mut closed, PATIENCE);
        }
    }
}

#[derive(Default)]
struct Listener {
    heard: Mutex<Vec<(String, Vec<ReceiptNumber>)>>,
}

impl Arrivals for Listener {
    fn arrived(&self, terminal: &str, receipts: &[StoredReceipt]) {
        let numbers = receipts.iter().map(|receipt| receipt.number).collect();
        self.heard.lock().push((terminal.into(), numbers));
    }
}

impl Desk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            dedup: true,
            receipts_max: u64::MAX,
            budget_bytes: (1 << 30, 1 << 26),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn gate(&self) -> Arc<Gate> {
        Arc::default()
    }

    pub fn open(&self) -> House {
        self.open_with(100_000, 10_000, ReceiptsOptions::default(), None)
    }

    pub fn open_bounded(&self, unknown_max: u64, terminal_max: u32) -> House {
        self.open_with(unknown_max, terminal_max, ReceiptsOptions::default(), None)
    }

    /// With a gate before each sync of the state.
    pub fn open_gated(&self, gate: &Arc<Gate>) -> House {
        let gate = Arc::clone(gate);
        let hook: SyncHook = Arc::new(move |dir| {
            if dir.to_string_lossy().contains("state") {
                gate.pass();
            }
            Ok(())
        });
        self.open_with(100_000, 10_000, ReceiptsOptions::default(), Some(hook))
    }

    pub fn open_with(
        &self,
        unknown_receipts_max: u64,
        receipts_per_terminal_max: u32,
        options: ReceiptsOptions,
        sync_hook: Option<SyncHook>,
    ) -> House {
        let store = StoreOptions {
            ballast_bytes: 0,
            free_bytes_min: 0,
            sync_hook,
            dedup: self.dedup,
            budget_bytes: self.budget_bytes.0,
            receipts_reserve_bytes: self.budget_bytes.1,
            generation_bytes: 4 << 20,
            ..StoreOptions::new(self.dir.path())
        };
        let (state, _) = State::open(&store).unwrap();
        let (journal, _) = Journal::open(&store, Arc::clone(&state)).unwrap();
        let outbox = Outbox::open(OutboxSetup {
            state: state.clone(),
            journal: journal.clone(),
            gateway_id: "gw-1".into(),
            terminals: Terminals::default(),
            receipts_max: self.receipts_max,
            unknown_receipts_max,
            receipts_per_terminal_max,
            now: Arc::new(|| 1_700_000_000_000),
            trace: TraceLog::disabled(),
            options,
        })
        .unwrap();
        let listener = Arc::new(Listener::default());
        outbox.listen(Arc::clone(&listener) as Arc<dyn Arrivals>);
        let dead = Arc::new(DeadLetters::open(Arc::clone(&state) as _).unwrap());
        House {
            outbox,
            state,
            journal,
            dead,
            listener,
        }
    }

    /// The directory as it is when the process is killed at this place, for the
    /// first time, in the course of `act`.
    pub fn killed_at(
        &self,
        options: ReceiptsOptions,
        place: ReceiptsFault,
        act: impl FnOnce(&House) + Send,
    ) -> Self {
        let (reached, reaches) = mpsc::channel::<()>();
        let (release, released) = mpsc::channel::<()>();
        let reached = Mutex::new(Some(reached));
        let released = Mutex::new(released);
        let options = ReceiptsOptions {
            fault: Some(Arc::new(move |at| {
                if at == place
                    && let Some(reached) = reached.lock().take()
                {
                    reached.send(()).unwrap();
                    // Until the other end is dropped.
                    let _ = released.lock().recv();
                }
            })),
            ..options
        };
        let house = self.open_with(100_000, 10_000, options, None);
        std::thread::scope(|scope| {
            let acting = scope.spawn(|| act(&house));
            reaches
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("never came to {place:?}"));
            let image = Self::new();
            copy(self.dir.path(), image.dir.path());
            drop(release);
            acting.join().unwrap();
            image
        })
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

impl House {
    /// Stores receipts (terminal, sequence) and the offset behind them, durably.
    pub fn store(&self, receipts: &[(&str, u64)], next: i64) {
        self.submit(&poll(receipts, next));
    }

    /// Submits and waits until it is durable and its listeners have heard.
    pub fn submit(&self, poll: &Poll) {
        self.outbox.submit("default", poll).unwrap();
        self.state.commit(Batch::new()).unwrap();
    }

    pub fn acknowledge(&self, terminal: &str, number: ReceiptNumber) {
        self.outbox.acknowledged(terminal, number, false);
        self.wait_gone_number(terminal, number);
    }

    pub fn offset(&self) -> Option<i64> {
        self.outbox.offset("default", "receipts", 0).unwrap()
    }

    pub fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }

    /// Waits until nothing of this terminal is on disk.
    pub fn wait_gone(&self, terminal: &str) {
        let prefix = [b"or", terminal.as_bytes(), &[0]].concat();
        until("its rows are gone", || {
            self.state.scan(&prefix, None, 1).unwrap().is_empty()
        });
        self.state.commit(Batch::new()).unwrap();
    }

    /// Waits until the row of one receipt is gone.
    pub fn wait_gone_number(&self, terminal: &str, number: ReceiptNumber) {
        let key = [b"or", terminal.as_bytes(), &[0], &number.to_be_bytes()[..]].concat();
        until("its row is gone", || {
            self.state.get(&key).unwrap().is_none()
        });
        self.state.commit(Batch::new()).unwrap();
    }

    pub fn lose_row(&self, key: &[u8]) {
        let mut batch = Batch::new();
        batch.delete(key);
        self.state.commit(batch).unwrap();
    }

    pub fn heard(&self) -> Vec<(String, Vec<ReceiptNumber>)> {
        self.listener.heard.lock().clone()
    }

    pub fn wait_heard(&self, count: usize) {
        until("so much was heard", || self.heard().len() >= count);
    }

    pub fn count(&self, pick: impl Fn(&ReceiptsMetrics) -> &AtomicU64) -> u64 {
        pick(self.outbox.metrics()).load(Ordering::Relaxed)
    }

    /// The delivery events in the journal.
    pub fn events(&self) -> Vec<Delivered> {
        let mut events = Vec::new();
        let mut from = self.journal.oldest();
        while from < self.journal.end() {
            let read = self.journal.read(from, 1_000, usize::MAX).unwrap();
            from = read.next;
            events.extend(
                read.records
                    .iter()
                    .map(|record| Delivered::decode(&record.record.payload).unwrap()),
            );
        }
        events
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.outbox.close();
        self.journal.close();
        self.state.close();
    }
}

/// How often the delivery of one receipt is in the journal.
pub fn event_count(house: &House, terminal: &str, number: ReceiptNumber) -> usize {
    let same = |event: &&Delivered| event.terminal == terminal && event.number == number;
    house.events().iter().filter(same).count()
}

pub fn receipt(terminal: &str, sequence: u64) -> Received {
    Received {
        terminal: terminal.into(),
        sequence,
        status: 0,
        settled_ms: 1_600_000_000_000,
        expires_ms: None,
        partition: 0,
        offset: 0,
        payload: payload(sequence).into(),
    }
}

pub fn poll(receipts: &[(&str, u64)], next: i64) -> Poll {
    Poll {
        receipts: receipts
            .iter()
            .map(|(terminal, sequence)| receipt(terminal, *sequence))
            .collect(),
        offsets: vec![NextOffset {
            topic: "receipts".into(),
            partition: 0,
            next,
        }],
        ..Poll::default()
    }
}

/// A receipt in the wire format.
pub fn payload(sequence: u64) -> Vec<u8> {
    let mut buffer = [0; 265];
    let receipt = Receipt {
        sequence,
        number: sequence,
        status: Status::Accepted,
        time_s: 1_700_000_000,
        amount_minor: 500,
        currency: Currency::NONE,
        bank_reference: None,
        lines: Lines::default(),
    };
    receipt.encode(&mut buffer).unwrap().to_vec()
}

pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < late, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
