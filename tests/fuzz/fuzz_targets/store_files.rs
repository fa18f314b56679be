//! The store, reopened on files that are damaged.
//!
//! A journal of some generations and a state database with numbered rows, closed in
//! order or left as by a kill, are copied to a tmpfs and damaged: flipped bits, holes,
//! cut and lengthened files, blocks moved, files gone. The store opens. It hands out
//! no record and no row but those that were written, in their order (G11); what is
//! missing of what was acknowledged is counted; it takes new records and rows, and
//! they are there at the next opening, with the rest.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, mpsc};

use bytes::Bytes;
use risiti_fuzz::control::breaks;
use risiti_fuzz::seeds::Seed;
use risiti_fuzz::{Choices, target};
use risiti_store::{
    AckSink, Batch, Identity, Journal, NewRecord, Outcome, RecordSource, State, StoreOptions,
};

const RECORDS: u64 = 60;
const ROWS: u64 = 30;

struct Origin {
    /// Every file with its path from the store's folder, in the order of names.
    files: Vec<(PathBuf, Vec<u8>)>,
    folders: Vec<PathBuf>,
}

/// Closed in order, and as by a kill.
static ORIGINS: LazyLock<[Origin; 2]> = LazyLock::new(|| {
    // The store turns sled's panics into errors; only others are told.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or("", |location| location.file());
        if !place.contains("sled") {
            eprintln!("{panic}");
        }
    }));
    let folder = folder();
    let store = Store::open(folder.path());
    for number in 1..=RECORDS {
        assert_eq!(
            store.append(record(number)),
            Outcome::Durable { position: number }
        );
    }
    for number in 1..=ROWS {
        let mut batch = Batch::new();
        batch.put(row_key(number), row_value(number));
        batch.put(numbered_key(number), row_value(number));
        store.state.commit(batch).expect("an undamaged store");
    }
    let killed = Origin::read(folder.path());
    store.close();
    [Origin::read(folder.path()), killed]
});

target!("store_files", seeds, |data| {
    let mut choices = Choices::new(data);
    let origin = &ORIGINS[choices.below(2)];
    let folder = folder();
    let mut files: Vec<(PathBuf, Option<Vec<u8>>)> = origin
        .files
        .iter()
        .map(|(path, bytes)| (path.clone(), Some(bytes.clone())))
        .collect();
    let touched = damage(&mut files, &mut choices);
    for path in &origin.folders {
        fs::create_dir_all(folder.path().join(path)).expect("a folder");
    }
    for (path, bytes) in &files {
        if let Some(bytes) = bytes {
            fs::write(folder.path().join(path), bytes).expect("a file");
        }
    }
    let store = Store::open(folder.path());
    let before = store.records();
    let lost = RECORDS
        - before
            .keys()
            .filter(|position| **position <= RECORDS)
            .count() as u64;
    let told = store.journal.health().damaged_positions;
    if breaks("store-damage") {
        assert_eq!((lost, told), (0, 0));
    }
    // The end of the newest generation may go without a trace, as in a power cut;
    // what lies before something that is there can't.
    let end = before.keys().next_back().copied().unwrap_or(0);
    let holes = end.min(RECORDS) - before.range(..=end.min(RECORDS)).count() as u64;
    assert!(touched || lost == 0, "lost without damage: {lost}");
    assert!(holes <= told, "{holes} lost, {told} told");
    let rows = store.rows();
    assert!(
        touched || rows.len() as u64 == 2 * ROWS,
        "rows lost without damage"
    );
    let next = RECORDS + 1_000;
    let outcome = store.append(record(next));
    let Outcome::Durable { position } = outcome else {
        panic!("a new record is not taken: {outcome:?}");
    };
    assert!(position > end, "position {position} is used twice");
    let mut batch = Batch::new();
    batch.put(row_key(next), row_value(next));
    store.state.commit(batch).expect("a new row is taken");
    store.close();
    let again = Store::open(folder.path());
    let after = again.records();
    assert_eq!(
        after.get(&position),
        Some(&record(next)),
        "acknowledged, and lost by a restart"
    );
    assert!(
        before.iter().all(|(at, one)| after.get(at) == Some(one)),
        "read once, then lost"
    );
    let rows_after = again.rows();
    assert_eq!(rows_after.get(&row_key(next)), Some(&row_value(next)));
    assert!(
        rows.keys().all(|key| rows_after.contains_key(key)),
        "a row read once, then lost"
    );
    again.close();
});

/// Damages files; whether any was changed.
fn damage(files: &mut [(PathBuf, Option<Vec<u8>>)], choices: &mut Choices<'_>) -> bool {
    let mut touched = false;
    for _ in 0..choices.byte() & 7 {
        let count = files.len();
        let (_, content) = &mut files[choices.below(count)];
        let Some(bytes) = content else { continue };
        if bytes.is_empty() {
            continue;
        }
        touched = true;
        let at = choices.word() as usize % bytes.len();
        let length = usize::from(choices.short()) + 1;
        let end = (at + length).min(bytes.len());
        match choices.byte() % 8 {
            0..=2 => bytes[at] ^= 1 << choices.below(8),
            3 => bytes[at..end].fill(0),
            4 => bytes.truncate(at),
            5 => {
                let grown = bytes.len() + length;
                bytes.resize(grown, choices.byte());
            }
            6 => {
                let from = choices.word() as usize % bytes.len();
                let count = (end - at).min(bytes.len() - from);
                bytes.copy_within(from..from + count, at);
            }
            _ => *content = None,
        }
    }
    touched
}

struct Store {
    journal: Arc<Journal>,
    state: Arc<State>,
}

impl Store {
    fn open(folder: &Path) -> Self {
        let options = StoreOptions {
            generation_bytes: 4_000,
            receipts_reserve_bytes: 0,
            free_bytes_min: 0,
            ballast_bytes: 0,
            ..StoreOptions::new(folder)
        };
        let (state, _) = State::open(&options).expect("damage is no reason not to open");
        let (journal, _) =
            Journal::open(&options, state.clone()).expect("damage is no reason not to open");
        Self { journal, state }
    }

    fn append(&self, record: NewRecord) -> Outcome {
        let (sender, receiver) = mpsc::channel();
        let sink: Arc<dyn AckSink> = Arc::new(Answer(sender));
        self.journal.append(record, &sink, 0);
        receiver
            .recv_timeout(std::time::Duration::from_secs(20))
            .expect("an outcome")
    }

    /// All records by position; each is one that was written.
    fn records(&self) -> BTreeMap<u64, NewRecord> {
        let mut all = BTreeMap::new();
        let mut next = self.journal.oldest();
        while next < self.journal.end() {
            let batch = self
                .journal
                .read(next, 100, 50_000)
                .expect("a disk that works");
            assert!(batch.next > next, "a read that gets nowhere");
            next = batch.next;
            for one in batch.records {
                let number = one.record.received_ms;
                assert_eq!(one.record, record(number), "never written");
                assert!(
                    number == one.position || number > RECORDS,
                    "at another's position"
                );
                assert!(all.insert(one.position, one.record).is_none());
            }
        }
        all
    }

    /// All rows; each is one that was written.
    fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = BTreeMap::new();
        for prefix in [&b"row"[..], b"or"] {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = self
                    .state
                    .scan(prefix, after.as_deref(), 50)
                    .expect("a disk that works");
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (key, value) in page {
                    let number =
                        u64::from_be_bytes(key[key.len() - 8..].try_into().expect("8 bytes"));
                    assert_eq!(value, row_value(number), "never written");
                    all.insert(key, value);
                }
            }
        }
        all
    }

    fn close(&self) {
        self.journal.close();
        self.state.close();
    }
}

struct Answer(mpsc::Sender<Outcome>);

impl AckSink for Answer {
    fn settled(&self, _token: u64, outcome: Outcome) {
        let _ = self.0.send(outcome);
    }
}

impl Origin {
    fn read(root: &Path) -> Self {
        let mut origin = Self {
            files: Vec::new(),
            folders: Vec::new(),
        };
        let mut open = vec![PathBuf::new()];
        while let Some(folder) = open.pop() {
            let mut entries: Vec<PathBuf> = fs::read_dir(root.join(&folder))
                .expect("a folder")
                .map(|entry| folder.join(entry.expect("an entry").file_name()))
                .collect();
            entries.sort();
            for path in entries {
                if root.join(&path).is_dir() {
                    open.push(path.clone());
                    origin.folders.push(path);
                } else {
                    let bytes = fs::read(root.join(&path)).expect("a file");
                    origin.files.push((path, bytes));
                }
            }
        }
        origin
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder")
}

fn record(number: u64) -> NewRecord {
    NewRecord {
        received_ms: number,
        client_id: Bytes::from_static(b"t-1"),
        topic: Bytes::from_static(b"t/t-1/records"),
        identity: Identity::Sequence {
            sequence: number,
            dup: false,
            resend_mark: false,
        },
        properties: Bytes::from_static(b"properties"),
        payload: Bytes::from(format!("payment {number}, ").repeat(12)),
    }
}

fn row_key(number: u64) -> Vec<u8> {
    [b"row", &number.to_be_bytes()[..]].concat()
}

/// One that waits in the row log.
fn numbered_key(number: u64) -> Vec<u8> {
    [b"or1\0", &number.to_be_bytes()[..]].concat()
}

fn row_value(number: u64) -> Vec<u8> {
    format!("row {number}, ").repeat(10).into_bytes()
}

fn seeds() -> Vec<Seed> {
    let mut all = vec![("closed".into(), vec![0, 0]), ("killed".into(), vec![1, 0])];
    for kind in 0..8_u8 {
        for file in 0..24_u8 {
            // Near the head, and in the middle of what sled has written.
            for (near, at) in [(0, 9_u16), (1, 700)] {
                let [high, low] = at.to_be_bytes();
                let seed = vec![
                    file & 1,
                    1,
                    file,
                    0,
                    0,
                    high,
                    low,
                    0,
                    40,
                    kind,
                    3,
                    0,
                    0,
                    0,
                    0,
                ];
                if (kind + file) % 4 == near * 2 {
                    all.push((format!("damage-{kind}-{file:02}-{near}"), seed));
                }
            }
        }
    }
    all
}
