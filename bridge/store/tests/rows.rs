//! Numbered rows: they wait in files of their own, and share the promises of the
//! state that they are a part of.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use risiti_store::{
    Alarm, Batch, CommitSink, OpenReport, State, StoreError, StoreOptions, SyncHook,
};
use support::{crash_copy, eventually, options};

/// The smallest files of the row log: 256 KiB.
const FILE_BYTES: u64 = 256 * 1024;

/// Without a sync for so long nothing is under way.
const CALM: Duration = Duration::from_millis(100);

fn row(name: u32, number: u64) -> Vec<u8> {
    let name = format!("or{name}\0").into_bytes();
    [&name[..], &number.to_be_bytes()].concat()
}

fn value(number: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(number);
    let length = rng.usize(100..300);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

fn open(dir: &Path) -> Arc<State> {
    let (state, report) = State::open(&options(dir)).unwrap();
    assert_eq!(report, OpenReport::default());
    state
}

/// Rows 1 to `numbers` of `names` names, and an ordinary one with each commit.
fn fill(state: &State, names: u32, numbers: u64) {
    for number in 1..=numbers {
        let mut batch = Batch::new();
        for name in 0..names {
            batch.put(row(name, number), value(number));
        }
        batch.put(*b"beside", number.to_be_bytes());
        state.commit(batch).unwrap();
    }
}

/// A copy as a kill would leave it. The store moves rows of its own accord, and a
/// kill does not take one file earlier than another: copied again if a commit may
/// have come in between.
fn calm_copy(state: &State, from: &Path, to: &Path) {
    let still = || {
        let before = state.health().syncs;
        std::thread::sleep(CALM);
        (state.health().syncs == before).then_some(before)
    };
    loop {
        let Some(before) = still() else { continue };
        crash_copy(from, to);
        if still() == Some(before) {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir.join("state/rows"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

fn is_rows_damaged(report: &OpenReport) -> bool {
    matches!(report.alarms[..], [Alarm::RowsDamaged { .. }])
}

#[test]
fn they_are_what_a_map_of_all_commits_is_over_kills_and_closes() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(21);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut life = dir.path().join("0");
    for lives in 1..=12 {
        let state = open(&life);
        for _ in 0..rng.u32(1..150) {
            let mut batch = Batch::new();
            for _ in 0..rng.u32(1..40) {
                let key = match rng.u32(..10) {
                    0 => format!("o{}", rng.u32(..50)).into_bytes(),
                    1 => format!("orphan{}", rng.u32(..50)).into_bytes(),
                    _ => row(rng.u32(..40), rng.u64(..50)),
                };
                if rng.u32(..10) < 6 {
                    let length = rng.usize(1..600);
                    let value = vec![rng.u8(..); length];
                    model.insert(key.clone(), value.clone());
                    batch.put(key, value);
                } else {
                    model.remove(&key);
                    batch.delete(key);
                }
            }
            state.commit(batch).unwrap();
        }
        let all = state.scan(b"o", None, usize::MAX).unwrap();
        assert!(all.iter().map(|(k, v)| (k, v)).eq(&model), "life {lives}");
        let some = row(rng.u32(..40), rng.u64(..50));
        assert_eq!(state.get(&some).unwrap().as_ref(), model.get(&some));
        let page = state.scan(b"or1", Some(&some), 20).unwrap();
        let expected = model
            .range(some.clone()..)
            .filter(|(k, _)| **k > some && k.starts_with(b"or1"))
            .take(20);
        assert!(page.iter().map(|(k, v)| (k, v)).eq(expected));
        if rng.bool() {
            let next = dir.path().join(lives.to_string());
            calm_copy(&state, &life, &next);
            life = next;
        }
        state.close();
    }
    assert!(model.len() > 500, "{}", model.len());
}

#[test]
fn the_disk_comes_back_and_what_waits_is_moved_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    fill(&state, 50, 400);
    let full = state.health();
    assert_eq!(full.numbered_rows, 20_000);
    assert!(full.row_log_bytes > 15 * FILE_BYTES);
    for number in 1..=400 {
        let mut batch = Batch::new();
        // Terminal 7 is away for months.
        for name in (0..50).filter(|name| *name != 7) {
            batch.delete(row(name, number));
        }
        state.commit(batch).unwrap();
    }
    eventually("the disk is back", || {
        let now = state.health();
        now.row_log_bytes <= 5 * FILE_BYTES
    });
    let kept = |state: &State| {
        let rows = state.scan(b"or", None, 1_000).unwrap();
        assert_eq!(rows.len(), 400);
        assert!(
            (1..=400)
                .zip(rows)
                .all(|(n, kept)| kept == (row(7, n), value(n)))
        );
    };
    kept(&state);
    let copy = tempfile::tempdir().unwrap();
    calm_copy(&state, dir.path(), copy.path());
    state.close();
    kept(&open(copy.path()));
    kept(&open(dir.path()));
}

/// A copy of the store as it is when the row log has been written and not yet
/// synced, so before the database hears of the commit.
fn cut_between(dir: &Path, to: &Path, before: impl Fn(&State), commit: Batch) {
    let armed = Arc::new(AtomicBool::new(false));
    let hook: SyncHook = {
        let (armed, from, to) = (Arc::clone(&armed), dir.to_path_buf(), to.to_path_buf());
        Arc::new(move |path: &Path| {
            if path.ends_with("rows") && armed.swap(false, Ordering::SeqCst) {
                crash_copy(&from, &to);
            }
            Ok(())
        })
    };
    let (state, _) = State::open(&StoreOptions {
        sync_hook: Some(hook),
        ..options(dir)
    })
    .unwrap();
    before(&state);
    armed.store(true, Ordering::SeqCst);
    state.commit(commit).unwrap();
    assert!(!armed.load(Ordering::SeqCst));
}

fn receipt_and_offset(number: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(row(1, number), value(number));
    batch.delete(row(1, 1));
    batch.put(*b"offset", number.to_be_bytes());
    batch
}

#[test]
fn a_commit_that_the_database_never_heard_of_is_done_whole_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let cut = tempfile::tempdir().unwrap();
    let before = |state: &State| fill(state, 2, 3);
    cut_between(dir.path(), cut.path(), before, receipt_and_offset(9));
    for _ in 0..3 {
        let state = open(cut.path());
        assert_eq!(state.get(&row(1, 9)).unwrap(), Some(value(9)));
        assert_eq!(state.get(&row(1, 1)).unwrap(), None);
        let offset = state.get(b"offset").unwrap();
        assert_eq!(offset, Some(9_u64.to_be_bytes().to_vec()));
        assert_eq!(state.health().numbered_rows, 6);
    }
}

#[test]
fn a_commit_that_was_torn_never_was_also_when_later_ones_come() {
    let dir = tempfile::tempdir().unwrap();
    let cut = tempfile::tempdir().unwrap();
    let before = |state: &State| fill(state, 2, 3);
    cut_between(dir.path(), cut.path(), before, receipt_and_offset(9));
    let log = logs(cut.path()).pop().unwrap();
    let length = fs::metadata(&log).unwrap().len();
    let file = fs::File::options().write(true).open(&log).unwrap();
    file.set_len(length - 3).unwrap();
    for life in 0..4_u64 {
        let state = open(cut.path());
        assert_eq!(state.get(&row(1, 9)).unwrap(), None, "life {life}");
        assert_eq!(state.get(b"offset").unwrap(), None);
        assert_eq!(state.get(&row(1, 1)).unwrap(), Some(value(1)));
        let mut batch = Batch::new();
        batch.put(row(3, life), value(life));
        state.commit(batch).unwrap();
        assert_eq!(state.health().numbered_rows, 6 + life + 1);
    }
}

#[test]
fn damage_costs_what_it_hit_and_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    fill(&state, 10, 300);
    state.close();
    let paths = logs(dir.path());
    assert!(paths.len() >= 3, "{paths:?}");
    // In a row of an old file, and in one of the last.
    flip(&paths[0], FILE_BYTES / 2);
    let last = paths.last().unwrap();
    flip(last, fs::metadata(last).unwrap().len() / 2);
    let (state, report) = State::open(&options(dir.path())).unwrap();
    assert!(is_rows_damaged(&report), "{report:?}");
    let left = state.scan(b"or", None, 10_000).unwrap();
    assert!(
        (2_990..3_000).contains(&left.len()),
        "{} {report:?}",
        left.len()
    );
    assert!(left.iter().all(|(key, found)| {
        let number = u64::from_be_bytes(key[key.len() - 8..].try_into().unwrap());
        *found == value(number)
    }));
    let beside = state.get(b"beside").unwrap();
    assert_eq!(beside, Some(300_u64.to_be_bytes().to_vec()));
    // What is whole moves out of the damaged files, and they go.
    eventually("the damaged files are gone", || {
        !paths[0].exists() && !last.exists()
    });
    state.close();
    let state = open(dir.path());
    assert_eq!(state.scan(b"or", None, 10_000).unwrap(), left);
    assert!(fs::read_dir(dir.path().join("quarantine")).unwrap().count() >= 2);
}

#[test]
fn a_lost_tail_and_a_lost_file_are_told() {
    let breaks: [fn(&[PathBuf]); 3] = [
        |paths| {
            // Exactly behind a commit: no entry is cut.
            let last = paths.last().unwrap();
            let bytes = fs::read(last).unwrap();
            let begins = |at: &usize| bytes[*at..].starts_with(b"RsO1\x01\x04");
            let end = (0..bytes.len() - 6).rev().filter(begins).nth(1).unwrap();
            let file = fs::File::options().write(true).open(last).unwrap();
            file.set_len(end as u64 + 28).unwrap();
        },
        |paths| fs::remove_file(&paths[1]).unwrap(),
        |paths| fs::remove_file(paths.last().unwrap()).unwrap(),
    ];
    for (n, destroy) in breaks.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path());
        fill(&state, 10, 300);
        state.close();
        destroy(&logs(dir.path()));
        let (state, report) = State::open(&options(dir.path())).unwrap();
        assert!(is_rows_damaged(&report), "{n}: {report:?}");
        // It goes on, and tells it once.
        let mut batch = Batch::new();
        batch.put(row(1, 1_000), value(1_000));
        state.commit(batch).unwrap();
        eventually("what was around it has moved", || {
            logs(dir.path()).len() <= 2 || n > 0
        });
        let rows = state.health().numbered_rows;
        assert!((1_000..3_001).contains(&rows), "{n}: {rows}");
    }
}

/// A kill between a file's beginning and its first sync leaves one that no sync has
/// covered; a power cut in the next life may take it.
#[test]
fn g11_a_file_that_no_sync_has_covered_may_go_and_that_is_no_damage() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("store");
    let state = open(&dir);
    fill(&state, 1, 3);
    state.close();
    let files = logs(&dir);
    let last = files.last().unwrap();
    let begun = last.with_file_name("000000ff.log");
    let whole = fs::read(last).unwrap();
    fs::write(&begun, begin(0xff, (1, whole.len()), salt_of(&whole))).unwrap();

    let state = open(&dir);
    fill(&state, 2, 1);
    state.close();
    assert!(logs(&dir).last().unwrap() > &begun, "a file after that one");
    for power_cut in [
        |path: &Path| fs::write(path, []),
        |path: &Path| fs::remove_file(path),
    ] {
        power_cut(&begun).unwrap();
        open(&dir).close();
    }
}

#[test]
fn a_row_that_is_damaged_while_open_is_told_once_and_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    fill(&state, 1, 200);
    flip(&logs(dir.path())[0], 20_000);
    let damaged: Vec<u64> = (1..=200)
        .filter(|n| matches!(state.get(&row(0, *n)), Err(StoreError::Damaged { .. })))
        .collect();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    eventually("it is set aside", || {
        matches!(state.get(&row(0, damaged[0])), Ok(None))
    });
    assert_eq!(state.health().damaged_values, 1);
    assert_eq!(state.scan(b"or", None, 500).unwrap().len(), 199);
    let quarantined = fs::read_dir(dir.path().join("quarantine")).unwrap();
    assert_eq!(quarantined.count(), 1);
}

#[derive(Default)]
struct Told(Mutex<Option<Result<(), StoreError>>>);

impl CommitSink for Told {
    fn committed(&self, _token: u64, result: Result<(), StoreError>) {
        *self.0.lock() = Some(result);
    }
}

#[test]
fn a_failed_sync_is_never_a_success_and_its_file_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let failures = Arc::new(AtomicU64::new(0));
    let hook: SyncHook = {
        let (failing, failures) = (Arc::clone(&failing), Arc::clone(&failures));
        Arc::new(move |path: &Path| {
            if path.ends_with("rows") && failing.load(Ordering::SeqCst) {
                failures.fetch_add(1, Ordering::SeqCst);
                return Err(io::Error::other("injected"));
            }
            Ok(())
        })
    };
    let (state, _) = State::open(&StoreOptions {
        sync_hook: Some(hook),
        ..options(dir.path())
    })
    .unwrap();
    fill(&state, 2, 5);
    let first = logs(dir.path());
    failing.store(true, Ordering::SeqCst);
    let told = Arc::new(Told::default());
    let sink: Arc<dyn CommitSink> = Arc::clone(&told) as _;
    state
        .submit(receipt_and_offset(9), Some((sink, 0)))
        .unwrap();
    eventually("it is tried more than once", || {
        failures.load(Ordering::SeqCst) > 2
    });
    assert!(told.0.lock().is_none(), "told durable without a sync");
    assert!(state.health().stalled.is_some());
    assert_eq!(state.get(&row(1, 9)).unwrap(), None);
    failing.store(false, Ordering::SeqCst);
    eventually("it is told", || told.0.lock().is_some());
    assert!(told.0.lock().take().unwrap().is_ok());
    assert_eq!(state.get(&row(1, 9)).unwrap(), Some(value(9)));
    let now = logs(dir.path());
    assert_eq!(now.len(), 2, "{now:?}");
    assert_eq!(now[0], first[0]);
    assert_eq!(state.health().rebuilds, 0, "the database was not at fault");
    let copy = tempfile::tempdir().unwrap();
    crash_copy(dir.path(), copy.path());
    let state = open(copy.path());
    assert_eq!(state.get(&row(1, 9)).unwrap(), Some(value(9)));
    assert_eq!(state.health().numbered_rows, 10);
}

/// An entry of the row log, as somebody would write it who knows the format.
fn forged(kind: u8, key: &[u8], value: &[u8], stamp: u64, salt: u32) -> Vec<u8> {
    let mut bytes = [&b"RsO1\x01"[..], &[kind]].concat();
    bytes.extend_from_slice(&stamp.to_be_bytes());
    bytes.extend_from_slice(&(key.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
    let checked = [&salt.to_be_bytes()[..], &bytes, key, value].concat();
    bytes.extend_from_slice(&crc32c::crc32c(&checked).to_be_bytes());
    [&bytes, key, value].concat()
}

/// A whole commit that deletes a row.
fn deletion(key: &[u8], stamp: u64, salt: u32) -> Vec<u8> {
    let entries = 1_u32.to_be_bytes();
    let end = forged(4, b"", &entries, stamp, salt);
    [forged(1, key, b"", stamp, salt), end].concat()
}

/// What a file of the row log begins with, where `last` is the one with the last commit
/// before it and how far that goes.
fn begin(number: u64, last: (u64, usize), salt: u32) -> Vec<u8> {
    let numbers = [number, last.0, last.1 as u64].map(u64::to_be_bytes);
    let value = [&numbers.concat()[..], &salt.to_be_bytes()].concat();
    forged(5, b"", &value, 0, 0)
}

/// The salt that a file tells.
fn salt_of(file: &[u8]) -> u32 {
    u32::from_be_bytes(file[48..52].try_into().unwrap())
}

/// Whoever cuts off a commit that failed, or removes the file that was begun for it, may
/// fail at that too. Found by kills after failed syncs on a busy machine: the power cut
/// in the next life brought such commits back, with stamps that were small enough.
#[test]
fn a_commit_that_failed_does_not_come_back_in_a_later_life() {
    for comes_back in ["behind the last", "behind an older one", "as a file"] {
        for moved in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            fill(&open(dir.path()), 2, 3);
            let fails = Arc::new(AtomicBool::new(false));
            let hook: SyncHook = {
                let fails = Arc::clone(&fails);
                Arc::new(move |path: &Path| {
                    if path.ends_with("db") && fails.swap(false, Ordering::SeqCst) {
                        return Err(io::Error::from_raw_os_error(5));
                    }
                    Ok(())
                })
            };
            let (state, _) = State::open(&StoreOptions {
                sync_hook: Some(hook),
                ..options(dir.path())
            })
            .unwrap();
            if comes_back == "behind an older one" {
                fill(&state, 1, 1);
            }
            // A commit that fails moves the database; this one holds no numbered row.
            fails.store(moved, Ordering::SeqCst);
            let mut session = Batch::new();
            session.put(*b"session", *b"1");
            state.commit(session).unwrap();
            assert_eq!(state.health().rebuilds, u64::from(moved));
            drop(state);

            let log = logs(dir.path()).remove(0);
            let whole = fs::read(&log).unwrap();
            let salt = salt_of(&whole);
            let failed = deletion(&row(1, 2), 1 << 40 | 1_000, salt);
            if comes_back == "as a file" {
                let begin = begin(2, (1, whole.len()), salt);
                fs::write(log.with_file_name("00000002.log"), [begin, failed].concat()).unwrap();
            } else {
                fs::write(&log, [whole, failed].concat()).unwrap();
            }
            for life in 0..3 {
                let state = open(dir.path());
                let kept = state.get(&row(1, 2)).unwrap();
                assert_eq!(kept, Some(value(2)), "{comes_back}, {moved}, life {life}");
                fill(&state, 1, 2);
            }
        }
    }
}

#[test]
fn a_payload_that_looks_like_an_entry_is_none_when_damage_uncovers_it() {
    // The second time with the salt, which nobody outside knows: so it would be,
    // unless the payload is encrypted.
    for knows in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path());
        fill(&state, 2, 3);
        let log = logs(dir.path()).remove(0);
        let salt = salt_of(&fs::read(&log).unwrap());
        let salt = if knows { salt } else { !salt };
        let value = (0..100)
            .flat_map(|stamp| forged(1, &row(1, 2), b"", stamp, salt))
            .collect::<Vec<u8>>();
        let mut batch = Batch::new();
        batch.put(*b"hostile", value.clone()).put(row(1, 4), *b"r");
        state.commit(batch).unwrap();
        state.close();
        let bytes = fs::read(&log).unwrap();
        let at = bytes.windows(7).position(|w| w == b"hostile").unwrap();
        flip(&log, at as u64 + 1);
        let (state, report) = State::open(&options(dir.path())).unwrap();
        assert!(is_rows_damaged(&report), "{report:?}");
        assert_eq!(state.get(b"hostile").unwrap(), Some(value));
        let seen = knows && options(dir.path()).key.is_none();
        assert_eq!(state.get(&row(1, 2)).unwrap().is_none(), seen);
        assert_eq!(state.get(&row(1, 3)).unwrap(), Some(self::value(3)));
    }
}
