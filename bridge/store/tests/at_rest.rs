//! Who takes the disk reads no value, who has the key reads all of them, and who
//! has another key changes nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use risiti_store::{
    Batch, Journal, NewRecord, RecordSource, State, StoreError, StoreKey, StoreOptions,
};
use support::{Store, generations, numbered, open, options};

const PAYLOAD: &[u8] = b"canary-payload";
const CLIENT: &[u8] = b"canary-client";
const LARGE_PAYLOAD: &[u8] = b"canary-large-payload";
const VALUE: &[u8] = b"canary-session";
const LARGE_VALUE: &[u8] = b"canary-retained";
const RECEIPT: &[u8] = b"canary-receipt";
const CANARIES: [&[u8]; 6] = [PAYLOAD, CLIENT, LARGE_PAYLOAD, VALUE, LARGE_VALUE, RECEIPT];

fn keyed(dir: &Path, byte: u8) -> StoreOptions {
    StoreOptions {
        key: Some(StoreKey::new([byte; 32])),
        ..options(dir)
    }
}

fn row(number: u64) -> Vec<u8> {
    [&b"ort1\0"[..], &number.to_be_bytes()].concat()
}

/// The canary, repeated up to so many bytes: wherever it is cut, it shows.
fn filled(canary: &[u8], bytes: usize) -> Vec<u8> {
    canary.iter().copied().cycle().take(bytes).collect()
}

/// One of everything that is written.
fn write_all(store: &mut Store) {
    store.store(NewRecord {
        payload: Bytes::from_static(PAYLOAD),
        ..numbered(1, 1)
    });
    store.store(NewRecord {
        client_id: Bytes::from_static(CLIENT),
        identity: risiti_store::Identity::None,
        ..numbered(1, 1)
    });
    store.store(NewRecord {
        payload: filled(LARGE_PAYLOAD, 30_000).into(),
        ..numbered(1, 2)
    });
    let mut batch = Batch::new();
    batch.put(*b"session", VALUE);
    batch.put(*b"retained", filled(LARGE_VALUE, 30_000));
    batch.put(row(1), RECEIPT);
    store.state.commit(batch).unwrap();
}

fn read_all(store: &Store) {
    let (records, damaged) = store.read_all(1);
    assert_eq!(damaged, 0);
    assert_eq!(records[0].record.payload, PAYLOAD);
    assert_eq!(records[1].record.client_id, CLIENT);
    assert_eq!(records[2].record.payload, filled(LARGE_PAYLOAD, 30_000));
    let get = |key: &[u8]| store.state.get(key).unwrap().unwrap();
    assert_eq!(get(b"session"), VALUE);
    assert_eq!(get(b"retained"), filled(LARGE_VALUE, 30_000));
    assert_eq!(get(&row(1)), RECEIPT);
    let all: Vec<_> = store.state.scan(b"", None, 100).unwrap();
    let of = |key: &[u8]| all.iter().find(|(k, _)| k == key).unwrap().1.clone();
    assert_eq!(
        (of(b"session"), of(&row(1))),
        (VALUE.to_vec(), RECEIPT.to_vec())
    );
}

/// Every file, with its bytes.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// Which of the canaries some file holds.
fn seen(dir: &Path) -> Vec<&'static [u8]> {
    let files = tree(dir);
    let holds = |bytes: &[u8], canary: &[u8]| bytes.windows(canary.len()).any(|w| w == canary);
    CANARIES
        .into_iter()
        .filter(|canary| files.values().any(|bytes| holds(bytes, canary)))
        .collect()
}

fn refusal(options: &StoreOptions) -> StoreError {
    match State::open(options) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

#[test]
fn no_file_of_an_encrypted_store_shows_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let options = keyed(dir.path(), 1);
    let mut store = open(&options);
    write_all(&mut store);
    read_all(&store);
    assert_eq!(seen(dir.path()), [b""; 0], "open");
    store.close();
    assert_eq!(seen(dir.path()), [b""; 0], "closed");
    let store = open(&options);
    assert_eq!(store.report, risiti_store::OpenReport::default());
    read_all(&store);
    store.close();
    assert_eq!(seen(dir.path()), [b""; 0], "opened again");
}

#[test]
fn control_without_a_key_every_value_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    write_all(&mut store);
    store.close();
    assert_eq!(seen(dir.path()), CANARIES);
    assert!(!dir.path().join("key-check").exists());
}

#[test]
fn another_key_or_none_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&keyed(dir.path(), 1));
    write_all(&mut store);
    store.close();
    let before = tree(dir.path());
    for (options, word) in [
        (keyed(dir.path(), 2), "another key"),
        (options(dir.path()), "no key"),
    ] {
        let error = refusal(&options);
        assert!(matches!(error, StoreError::Key { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(!error.is_io() && !error.is_full());
        assert_eq!(tree(dir.path()), before, "{word}");
    }
    let store = open(&keyed(dir.path(), 1));
    assert_eq!(store.report, risiti_store::OpenReport::default());
    read_all(&store);
}

#[test]
fn a_store_that_was_plain_goes_on_and_what_is_new_is_encrypted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    write_all(&mut store);
    store.close();
    let mut store = open(&keyed(dir.path(), 1));
    read_all(&store);
    store.store(NewRecord {
        payload: Bytes::from_static(b"canary-second"),
        ..numbered(1, 3)
    });
    let mut batch = Batch::new();
    batch.put(*b"new", *b"canary-second");
    batch.put(row(2), *b"canary-second");
    store.state.commit(batch).unwrap();
    store.close();
    let second = b"canary-second";
    for (path, bytes) in tree(dir.path()) {
        let is_seen = bytes.windows(second.len()).any(|w| w == second);
        assert!(!is_seen, "{}", path.display());
    }
    assert!(matches!(
        refusal(&options(dir.path())),
        StoreError::Key { .. }
    ));
    let store = open(&keyed(dir.path(), 1));
    read_all(&store);
    assert_eq!(store.read_all(4).0[0].record.payload, &second[..]);
    assert_eq!(store.state.get(b"new").unwrap().unwrap(), second);
    assert_eq!(store.state.get(&row(2)).unwrap().unwrap(), second);
}

#[test]
fn without_its_check_the_values_judge_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&keyed(dir.path(), 1));
    write_all(&mut store);
    store.close();
    let path = dir.path().join("key-check");
    let check = fs::read(&path).unwrap();
    let mut flipped = check.clone();
    flipped[20] ^= 1;
    for damaged in [None, Some(&flipped[..]), Some(&check[..10]), Some(b"")] {
        match damaged {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let before = tree(dir.path());
        assert!(matches!(
            refusal(&keyed(dir.path(), 2)),
            StoreError::Key { .. }
        ));
        assert_eq!(tree(dir.path()), before);
        let store = open(&keyed(dir.path(), 1));
        read_all(&store);
        store.close();
        assert_eq!(fs::read(&path).unwrap(), check);
    }
    // Each kind of value alone is enough.
    for gone in [
        &["journal"][..],
        &["journal", "state/rows"],
        &["journal", "state/db"],
    ] {
        let copy = tempfile::tempdir().unwrap();
        support::crash_copy(dir.path(), copy.path());
        fs::remove_file(copy.path().join("key-check")).unwrap();
        for name in gone {
            fs::remove_dir_all(copy.path().join(name)).unwrap();
        }
        let error = refusal(&keyed(copy.path(), 2));
        assert!(matches!(error, StoreError::Key { .. }), "{gone:?}: {error}");
    }
}

/// The check is gone, and with it the knowledge that there was a key.
#[test]
fn what_is_encrypted_is_never_taken_for_damage_even_without_key_and_check() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&keyed(dir.path(), 1));
    write_all(&mut store);
    store.close();
    fs::remove_file(dir.path().join("key-check")).unwrap();
    let options = options(dir.path());
    let (state, report) = State::open(&options).unwrap();
    assert_eq!(report, risiti_store::OpenReport::default());
    for key in [&b"session"[..], b"retained", &row(1)] {
        let read = state.get(key);
        assert!(matches!(read, Err(StoreError::Key { .. })), "{read:?}");
    }
    let opened = Journal::open(&options, Arc::clone(&state)).map(|_| ());
    assert!(matches!(opened, Err(StoreError::Key { .. })), "{opened:?}");
    assert_eq!(state.health().damaged_values, 0);
    state.close();
    assert_eq!(
        fs::read_dir(dir.path().join("quarantine")).unwrap().count(),
        0
    );
    read_all(&open(&keyed(dir.path(), 1)));
}

/// Flips a byte of the last pack of a generation, under a checksum made to fit.
fn forge_pack(db: &Path) {
    let mut bytes = fs::read(db).unwrap();
    let begins = |at: &usize| bytes[*at..].starts_with(b"RsJ1");
    let at = (0..bytes.len() - 62).rev().find(begins).unwrap();
    let length = u32::from_be_bytes(bytes[at + 54..at + 58].try_into().unwrap()) as usize;
    bytes[at + 62] ^= 1;
    let crc = crc32c::crc32c(&bytes[at..at + 58]);
    let crc = crc32c::crc32c_append(crc, &bytes[at + 62..at + 62 + length]);
    bytes[at + 58..at + 62].copy_from_slice(&crc.to_be_bytes());
    fs::write(db, bytes).unwrap();
}

#[test]
fn g11_a_record_that_does_not_fit_its_tag_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&keyed(dir.path(), 1));
    for n in 1..=300 {
        store.store(numbered(1, n));
    }
    store.close();
    let dirs = generations(dir.path());
    assert!(dirs.len() >= 3);
    forge_pack(&dirs[1].join("db"));
    let store = open(&keyed(dir.path(), 1));
    let (records, damaged) = store.read_all(1);
    assert_eq!((records.len() as u64 + damaged, damaged), (300, 1));
    let health = store.journal.health();
    assert_eq!(
        (health.damaged_positions, health.quarantined_generations),
        (1, 1)
    );
    assert_eq!(store.journal.end(), 301);
}

/// Flips a byte in the value of the entry with this key, under a checksum made to fit.
fn forge_entry(file: &Path, magic: &[u8], key: &[u8], forge: &dyn Fn(&mut [u8], usize)) {
    let mut bytes = fs::read(file).unwrap();
    let header = if magic == b"RsS1" { 34 } else { 24 };
    let mut forged = 0;
    for at in 0..bytes.len() - header - key.len() {
        if bytes[at..].starts_with(magic) && bytes[at + header..].starts_with(key) {
            forge(&mut bytes[at..], header + key.len());
            forged += 1;
        }
    }
    assert!(forged > 0);
    fs::write(file, bytes).unwrap();
}

#[test]
fn g11_a_row_that_does_not_fit_its_tag_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = State::open(&keyed(dir.path(), 1)).unwrap();
    for n in 1..=3 {
        let mut batch = Batch::new();
        batch.put(row(n), RECEIPT);
        state.commit(batch).unwrap();
    }
    state.close();
    let log = fs::read_dir(dir.path().join("state/rows")).unwrap().next();
    let log = log.unwrap().unwrap().path();
    let salt: [u8; 4] = fs::read(&log).unwrap()[48..52].try_into().unwrap();
    forge_entry(&log, b"RsO1", &row(2), &|bytes, at| {
        let length = u32::from_be_bytes(bytes[16..20].try_into().unwrap()) as usize;
        bytes[at + 13] ^= 1;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&salt), &bytes[..20]);
        let crc = crc32c::crc32c_append(crc, &bytes[24..at + length]);
        bytes[20..24].copy_from_slice(&crc.to_be_bytes());
    });
    let (state, report) = State::open(&keyed(dir.path(), 1)).unwrap();
    assert_eq!(report, risiti_store::OpenReport::default());
    assert!(matches!(
        state.get(&row(2)),
        Err(StoreError::Damaged { .. })
    ));
    support::eventually("it is set aside", || matches!(state.get(&row(2)), Ok(None)));
    assert_eq!(state.health().damaged_values, 1);
    for n in [1, 3] {
        assert_eq!(state.get(&row(n)).unwrap().unwrap(), RECEIPT);
    }
    assert_eq!(
        fs::read_dir(dir.path().join("quarantine")).unwrap().count(),
        1
    );
}

/// sled meets the changed byte first, and everything is salvaged from raw bytes: for
/// that no key is needed, and what does not fit its tag is told by who reads it.
#[test]
fn g11_a_salvage_brings_back_encrypted_values_and_what_is_forged_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = State::open(&keyed(dir.path(), 1)).unwrap();
    for n in 0..50_u8 {
        let mut batch = Batch::new();
        batch.put([b'k', n], VALUE);
        batch.put([b'l', n], filled(LARGE_VALUE, 9_000));
        state.commit(batch).unwrap();
    }
    state.close();
    forge_entry(
        &dir.path().join("state/db/db"),
        b"RsS1",
        &[0, b'k', 7],
        &|bytes, at| {
            let length = u32::from_be_bytes(bytes[26..30].try_into().unwrap()) as usize;
            bytes[at + 13] ^= 1;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..30]), &bytes[34..at + length]);
            bytes[30..34].copy_from_slice(&crc.to_be_bytes());
        },
    );
    let (state, _) = State::open(&keyed(dir.path(), 1)).unwrap();
    let read = |key: [u8; 2]| {
        for _ in 0..100 {
            match state.get(&key) {
                // sled itself stumbles first, and is replaced.
                Err(StoreError::Database { .. }) => {
                    support::eventually("it is rebuilt", || state.health().rebuilds > 0);
                }
                read => return read,
            }
        }
        panic!("never read");
    };
    for n in 0..50 {
        if n != 7 {
            assert_eq!(read([b'k', n]).unwrap().unwrap(), VALUE, "{n}");
        }
        let large = read([b'l', n]).unwrap().unwrap();
        assert_eq!(large, filled(LARGE_VALUE, 9_000), "{n}");
    }
    let forged = read([b'k', 7]);
    assert!(
        matches!(forged, Err(StoreError::Damaged { .. })),
        "{forged:?}"
    );
    support::eventually("it is set aside", || matches!(read([b'k', 7]), Ok(None)));
    assert_eq!(state.health().damaged_values, 1);
}

/// The bounds hold for values as their callers see them.
#[test]
fn the_largest_values_fit_with_a_key_too() {
    use risiti_store::limits::{RECORD_BYTES_MAX, STATE_VALUE_BYTES_MAX};
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&keyed(dir.path(), 1));
    let mut largest = numbered(1, 1);
    let rest = RECORD_BYTES_MAX - 2 - 12 - 10;
    largest.payload = vec![7; rest].into();
    store.store(largest.clone());
    for name in [b"largest".to_vec(), row(1)] {
        for bytes in [0, 1, 3_600, 3_626, 3_654, 3_655, STATE_VALUE_BYTES_MAX] {
            let mut batch = Batch::new();
            batch.put(name.clone(), vec![7; bytes]);
            store.state.commit(batch).unwrap();
            let read = store.state.get(&name).unwrap().unwrap();
            assert_eq!(read, vec![7; bytes]);
        }
        let mut batch = Batch::new();
        batch.put(name, vec![7; STATE_VALUE_BYTES_MAX + 1]);
        assert!(matches!(
            store.state.commit(batch),
            Err(StoreError::Limit { .. })
        ));
    }
    store.close();
    let store = open(&keyed(dir.path(), 1));
    assert_eq!(store.read_all(1).0[0].record, largest);
    for name in [b"largest".to_vec(), row(1)] {
        let read = store.state.get(&name).unwrap().unwrap();
        assert_eq!(read, vec![7; STATE_VALUE_BYTES_MAX]);
    }
}
