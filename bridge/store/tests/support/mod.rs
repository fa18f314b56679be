//! A journal under test: appends that wait for their outcomes, whole reads, and
//! copies of the directory as a crash would leave it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use risiti_store::{
    AckSink, Identity, Journal, NewRecord, OpenReport, Outcome, Position, Record, RecordSource,
    State, StoreKey, StoreOptions,
};

/// Collects outcomes by token, and their order.
#[derive(Default)]
pub struct Outcomes {
    inner: Mutex<(BTreeMap<u64, Outcome>, Vec<u64>)>,
    settled: Condvar,
}

impl AckSink for Outcomes {
    fn settled(&self, token: u64, outcome: Outcome) {
        let mut inner = self.inner.lock();
        assert_eq!(inner.0.insert(token, outcome), None, "settled twice");
        inner.1.push(token);
        self.settled.notify_all();
    }
}

impl Outcomes {
    pub fn wait(&self, token: u64) -> Outcome {
        let mut inner = self.inner.lock();
        loop {
            if let Some(outcome) = inner.0.get(&token) {
                return *outcome;
            }
            self.settled.wait(&mut inner);
        }
    }

    pub fn of(&self, token: u64) -> Option<Outcome> {
        self.inner.lock().0.get(&token).copied()
    }

    /// Lets go of what was asked for, so that a long run stays small.
    pub fn forget_before(&self, token: u64) {
        let mut inner = self.inner.lock();
        inner.0 = inner.0.split_off(&token);
        inner.1.clear();
    }

    pub fn count(&self) -> usize {
        self.inner.lock().0.len()
    }

    pub fn order(&self) -> Vec<u64> {
        self.inner.lock().1.clone()
    }
}

/// A store under test, and the outcomes of its appends.
pub struct Store {
    pub journal: Arc<Journal>,
    pub state: Arc<State>,
    pub report: OpenReport,
    pub outcomes: Arc<Outcomes>,
    next_token: u64,
}

/// What `encrypted.rs` gives to every store.
pub const KEY: [u8; 32] = [7; 32];

/// Small generations, no reserve: borders are crossed, limits are the test's.
pub fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        generation_bytes: 20_000,
        receipts_reserve_bytes: 0,
        free_bytes_min: 0,
        ballast_bytes: 0,
        key: (env!("CARGO_CRATE_NAME") == "encrypted").then(|| StoreKey::new(KEY)),
        ..StoreOptions::new(dir)
    }
}

pub fn open(options: &StoreOptions) -> Store {
    let (state, mut report) = State::open(options).unwrap();
    let (journal, journal_report) = Journal::open(options, Arc::clone(&state)).unwrap();
    report.alarms.extend(journal_report.alarms);
    report.quarantined += journal_report.quarantined;
    report.damaged_positions += journal_report.damaged_positions;
    Store {
        journal,
        state,
        report,
        outcomes: Arc::default(),
        next_token: 0,
    }
}

impl Store {
    /// Appends without waiting; the token.
    pub fn submit(&mut self, record: NewRecord) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        let sink: Arc<dyn AckSink> = Arc::clone(&self.outcomes) as _;
        self.journal.append(record, &sink, token);
        token
    }

    /// Appends and waits.
    pub fn append(&mut self, record: NewRecord) -> Outcome {
        let token = self.submit(record);
        self.outcomes.wait(token)
    }

    /// Appends and waits; the position.
    pub fn store(&mut self, record: NewRecord) -> Position {
        match self.append(record) {
            Outcome::Durable { position } => position,
            other => panic!("not stored: {other:?}"),
        }
    }

    /// Everything from `from` on, and how many positions are damaged.
    pub fn read_all(&self, from: Position) -> (Vec<Record>, u64) {
        let mut next = from;
        let (mut records, mut damaged) = (Vec::new(), 0);
        while next < self.journal.end() {
            let batch = self.journal.read(next, 100, 50_000).unwrap();
            assert!(batch.next > next, "a read that gets nowhere");
            next = batch.next;
            damaged += batch.damaged;
            records.extend(batch.records);
        }
        (records, damaged)
    }

    pub fn close(&self) {
        self.journal.close();
        self.state.close();
    }
}

/// Record `sequence` of terminal `client`.
pub fn numbered(client: u32, sequence: u64) -> NewRecord {
    NewRecord {
        received_ms: sequence,
        client_id: Bytes::from(format!("t{client}")),
        topic: Bytes::from(format!("t/t{client}/records")),
        identity: Identity::Sequence {
            sequence,
            dup: false,
            resend_mark: false,
        },
        properties: Bytes::from_static(b"properties"),
        payload: Bytes::from(format!("payment {sequence} of terminal {client}, ").repeat(5)),
    }
}

/// A publication of a plain client.
pub fn packet(client: u32, packet_id: u16, dup: bool, payload: &str) -> NewRecord {
    NewRecord {
        identity: Identity::Packet { packet_id, dup },
        payload: Bytes::from(payload.to_string()),
        ..numbered(client, 1)
    }
}

/// A copy of what is on disk right now: as after `kill -9`.
pub fn crash_copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    // A name may vanish while it is being copied: a generation released.
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    for entry in entries {
        let Ok(entry) = entry else { continue };
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            crash_copy(&entry.path(), &target);
        } else {
            let _ = fs::copy(entry.path(), target);
        }
    }
}

/// The generations on disk, oldest first.
pub fn generations(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

/// Waits for what the committer does by itself.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("never came true: {what}");
}
