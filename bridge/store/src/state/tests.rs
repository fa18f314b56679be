//! Facts about the state database.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::encryption::StoreKey;
use crate::files;
use crate::options::SyncHook;

fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        ballast_bytes: 0,
        free_bytes_min: 0,
        ..StoreOptions::new(dir)
    }
}

fn open(dir: &Path) -> Arc<State> {
    let (state, report) = State::open(&options(dir)).unwrap();
    assert_eq!(report, OpenReport::default());
    state
}

fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    state.commit(put(b"a", b"1")).unwrap();
    state.commit(put(b"b", b"2")).unwrap();
    let mut batch = Batch::new();
    batch.delete(*b"a").put(*b"c", *b"3");
    state.commit(batch).unwrap();
    drop(state);
    let state = open(dir.path());
    assert_eq!(state.get(b"a").unwrap(), None);
    let all = state.scan(b"", None, 10).unwrap();
    let expected = [
        (b"b".to_vec(), b"2".to_vec()),
        (b"c".to_vec(), b"3".to_vec()),
    ];
    assert_eq!(all, expected);
}

#[test]
fn a_scan_is_a_bounded_page_that_skips_the_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let mut batch = Batch::new();
    batch.allow_splitting();
    for n in 0..2_000_u32 {
        batch.put([b"t/", &n.to_be_bytes()[..]].concat(), n.to_be_bytes());
    }
    batch.put(*b"u", *b"other");
    state.commit(batch).unwrap();
    let mut batch = Batch::new();
    batch.allow_splitting();
    for n in (0..2_000_u32).filter(|n| n % 3 != 0) {
        batch.delete([b"t/", &n.to_be_bytes()[..]].concat());
    }
    state.commit(batch).unwrap();
    let mut after: Option<Vec<u8>> = None;
    let mut seen = Vec::new();
    loop {
        let page = state.scan(b"t/", after.as_deref(), 100).unwrap();
        assert!(page.len() <= 100);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        seen.extend(
            page.iter()
                .map(|(_, v)| u32::from_be_bytes(v[..].try_into().unwrap())),
        );
    }
    assert_eq!(seen, (0..2_000).filter(|n| n % 3 == 0).collect::<Vec<_>>());
}

#[test]
fn large_values_come_back_whole_and_never_become_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    for n in 0..40_u8 {
        let key = vec![n; limits::KEY_BYTES_MAX];
        state.commit(put(&key, &vec![n; 256 * 1024])).unwrap();
    }
    for n in 0..40_u8 {
        let key = vec![n; limits::KEY_BYTES_MAX];
        state
            .commit(put(&key, &vec![n; 20_000 * usize::from(n % 3)]))
            .unwrap();
    }
    drop(state);
    let state = open(dir.path());
    for n in 0..40_u8 {
        let value = state.get(&vec![n; limits::KEY_BYTES_MAX]).unwrap().unwrap();
        assert_eq!(value, vec![n; 20_000 * usize::from(n % 3)]);
    }
    assert!(
        files::list(&dir.path().join("state/db/blobs"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn batches_beyond_the_bounds_are_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let mut batch = Batch::new();
    for n in 0..600_u32 {
        batch.put(n.to_be_bytes(), *b"x");
    }
    assert!(matches!(state.commit(batch), Err(StoreError::Limit { .. })));
    assert!(state.scan(b"", None, 1).unwrap().is_empty());
    let key = vec![0; limits::KEY_BYTES_MAX + 1];
    assert!(matches!(
        state.commit(put(&key, b"")),
        Err(StoreError::Limit { .. })
    ));
}

#[test]
fn a_failed_sync_is_never_a_success_and_never_retried_on_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let failures = Arc::new(AtomicUsize::new(0));
    let hook: SyncHook = {
        let (failing, failures) = (Arc::clone(&failing), Arc::clone(&failures));
        Arc::new(move |path: &Path| {
            // Only the database that fails fails; a fresh one works.
            if failing.load(Ordering::SeqCst) && path.ends_with("db") {
                failures.fetch_add(1, Ordering::SeqCst);
                return Err(io::Error::other("injected"));
            }
            Ok(())
        })
    };
    let options = StoreOptions {
        sync_hook: Some(hook),
        ..options(dir.path())
    };
    let (state, _) = State::open(&options).unwrap();
    state.commit(put(b"before", b"1")).unwrap();
    failing.store(true, Ordering::SeqCst);
    let submitted = Arc::new(Waiter::default());
    let sink: Arc<dyn CommitSink> = Arc::clone(&submitted) as _;
    state.submit(put(b"during", b"2"), Some((sink, 0))).unwrap();
    while failures.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    assert!(
        submitted.done.lock().is_none(),
        "told durable without a sync"
    );
    failing.store(false, Ordering::SeqCst);
    state.commit(put(b"after", b"3")).unwrap();
    assert!(submitted.done.lock().take().unwrap().is_ok());
    assert!(state.health().rebuilds >= 1);
    drop(state);
    let state = open(dir.path());
    assert_eq!(state.scan(b"", None, 10).unwrap().len(), 3);
}

#[test]
fn a_sync_that_fails_at_open_makes_the_next_one_begin_from_the_original() {
    for killed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let sealed = dir.path().join("state/sealed");
        let state = open(dir.path());
        state.commit(put(b"a", b"1")).unwrap();
        drop(state);
        if killed {
            std::fs::remove_file(&sealed).unwrap();
        }
        let failing = StoreOptions {
            sync_hook: Some(Arc::new(|_: &Path| Err(io::Error::other("injected")))),
            ..options(dir.path())
        };
        assert!(State::open(&failing).is_err());
        // An orderly close left no copy; then the next opening makes one, for
        // nothing vouches for the original any more.
        assert!(!sealed.exists());
        assert_eq!(
            dir.path().join("state/before").is_dir(),
            killed,
            "the distrusted copy is taken for good"
        );
        let state = open(dir.path());
        assert!(!dir.path().join("state/before").exists());
        assert_eq!(state.get(b"a").unwrap(), Some(b"1".to_vec()));
    }
}

/// Opening and reading whatever was done to the files; every entry that comes
/// back must be one that was written.
fn survives(damage: impl Fn(&mut fastrand::Rng, &Path)) {
    for seed in 0..24 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            key: (seed % 2 == 1).then(|| StoreKey::new([7; 32])),
            ..options(dir.path())
        };
        let open = || State::open(&options).unwrap().0;
        let state = open();
        for n in 0..300_u32 {
            state.commit(put(&n.to_be_bytes(), &value(n))).unwrap();
        }
        for n in (0..300_u32).step_by(5) {
            let mut batch = Batch::new();
            batch.delete(n.to_be_bytes());
            state.commit(batch).unwrap();
        }
        if rng.bool() {
            // A snapshot is written when an existing database is opened.
            drop(state);
            drop(open());
        } else {
            drop(state);
        }
        damage(&mut rng, &dir.path().join("state/db"));
        let (state, report) = State::open(&options).unwrap();
        let (mut there, mut came_back) = (0, 0);
        for n in 0..300_u32 {
            match read_to_the_end(&state, n) {
                Some(found) => {
                    assert_eq!(found, value(n), "seed {seed}, entry {n}");
                    there += usize::from(n % 5 != 0);
                    came_back += usize::from(n % 5 == 0);
                }
                None => assert!(
                    n % 5 == 0
                        || report.quarantined > 0
                        || state.health().damaged_values > 0
                        || state.health().damage.is_some(),
                    "seed {seed}: entry {n} vanished in silence"
                ),
            }
        }
        // The one entry hit may be a tombstone: then a deletion is what is lost.
        assert!(
            came_back <= 1,
            "seed {seed}: {came_back} deleted entries came back, {report:?} {:?}",
            state.health()
        );
        assert!(
            there >= 239,
            "seed {seed}: only {there} of 240 left, {report:?}"
        );
        state.commit(put(b"goes on", b"1")).unwrap();
    }
}

fn value(n: u32) -> Vec<u8> {
    format!("value of {n}, ").repeat(20).into_bytes()
}

/// Reads through one error of each kind: damage is told once.
fn read_to_the_end(state: &State, n: u32) -> Option<Vec<u8>> {
    for _ in 0..3 {
        match state.get(&n.to_be_bytes()) {
            Ok(found) => return found,
            // Waits for what the reader asked for.
            Err(_) => state.commit(put(b"barrier", b"")).unwrap(),
        }
    }
    panic!("entry {n} is told damaged for ever");
}

#[test]
fn flipped_bits_cost_at_most_what_they_hit() {
    survives(|rng, db| {
        let mut targets = files::list(db).unwrap();
        targets.retain(|path| path.is_file());
        let target = rng.choice(&targets).unwrap().clone();
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&target)
            .unwrap();
        let at = rng.u64(0..file.metadata().unwrap().len());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= 1 << rng.u8(0..8);
        file.write_all_at(&byte, at).unwrap();
    });
}

#[test]
fn a_half_made_snapshot_does_not_keep_it_from_opening() {
    survives(|rng, db| {
        let junk: Vec<u8> = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
        std::fs::write(db.join("snap.FFFFFFFFFFFFFFF0.generating"), junk).unwrap();
    });
}

#[test]
fn a_lost_tail_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    for n in 0..2_000_u32 {
        state.commit(put(&n.to_be_bytes(), &[7; 2_000])).unwrap();
    }
    drop(state);
    let db = dir.path().join("state/db/db");
    let file = std::fs::OpenOptions::new().write(true).open(&db).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let (_state, report) = State::open(&options(dir.path())).unwrap();
    assert_eq!(report.quarantined, 1, "{report:?}");
}

#[test]
fn an_interrupted_replacement_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    state.commit(put(b"a", b"1")).unwrap();
    drop(state);
    let db = dir.path().join("state/db");
    std::fs::rename(&db, dir.path().join("state/fresh")).unwrap();
    std::fs::create_dir(dir.path().join("state/other.building")).unwrap();
    let state = open(dir.path());
    assert_eq!(state.get(b"a").unwrap(), Some(b"1".to_vec()));
    assert!(!dir.path().join("state/other.building").exists());
}

#[test]
fn tombstones_are_forgotten_in_time() {
    assert!(!is_forgotten(5 << 40, (5 << 40) + 10));
    assert!(is_forgotten(
        5 << 40,
        (5 << 40) + limits::TOMBSTONE_COMMITS + 1
    ));
    assert!(!is_forgotten((5 << 40) + 1_000_000, (6 << 40) + 10));
    assert!(is_forgotten(5 << 40, 14 << 40));
}

#[test]
fn g8_only_the_newest_tombstones_are_remembered() {
    let mut newest = Newest::default();
    let each = SWEEP_AFTER_TOMBSTONES as u64;
    for stamp in 1..=limits::TOMBSTONES_MAX as u64 {
        assert!(!newest.forgets(1), "{stamp}");
        newest.note(1, stamp);
    }
    assert!(newest.forgets(each - 1));
    assert!(!newest.forgets(each));
    for stamp in 1..=each {
        newest.note(1, limits::TOMBSTONES_MAX as u64 + stamp);
    }
    assert!(newest.forgets(2 * each - 1));
    assert!(!newest.forgets(2 * each));
}

use super::sweep::{Newest, SWEEP_AFTER_TOMBSTONES, is_forgotten};

#[test]
fn after_an_orderly_close_nothing_is_copied_and_after_a_kill_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("state/db/db");
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&db).unwrap());
    let state = open(dir.path());
    state.commit(put(b"a", b"1")).unwrap();
    drop(state);
    assert!(dir.path().join("state/sealed").is_file());
    let closed = inode();
    let state = open(dir.path());
    assert_eq!(state.get(b"a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(inode(), closed, "it was copied");
    assert!(!dir.path().join("state/sealed").exists(), "still sealed");
    drop(state);
    // As a kill leaves it: without a seal.
    std::fs::remove_file(dir.path().join("state/sealed")).unwrap();
    drop(open(dir.path()));
    assert_ne!(inode(), closed, "it was not copied");
}

#[test]
fn a_key_that_comes_again_takes_no_more_of_a_commit_and_others_fill_it() {
    let dir = tempfile::tempdir().unwrap();
    let closed = Arc::new((Mutex::new(false), Condvar::new()));
    let hook: SyncHook = {
        let closed = Arc::clone(&closed);
        Arc::new(move |_: &Path| {
            let mut waits = closed.0.lock();
            while *waits {
                closed.1.wait(&mut waits);
            }
            Ok(())
        })
    };
    let (state, _) = State::open(&StoreOptions {
        sync_hook: Some(hook),
        ..options(dir.path())
    })
    .unwrap();
    let syncs_of = |key: &dyn Fn(u32) -> Vec<u8>| {
        let before = state.health().syncs;
        *closed.0.lock() = true;
        for n in 0..3_000 {
            state.submit(put(&key(n), &n.to_be_bytes()), None).unwrap();
        }
        *closed.0.lock() = false;
        closed.1.notify_all();
        state.commit(put(b"last", b"")).unwrap();
        state.health().syncs - before
    };
    assert!(syncs_of(&|n| vec![b'k', (n % 100) as u8]) <= 3);
    let distinct = syncs_of(&|n| [&b"k"[..], &n.to_be_bytes()].concat());
    assert!(
        distinct >= 3_000 / limits::BATCH_KEYS_MAX as u64,
        "{distinct}"
    );
    let page = state.scan(b"k", None, 10_000).unwrap();
    assert_eq!(page.len(), 3_100);
    let latest = state.get(&[b'k', 50]).unwrap();
    assert_eq!(latest, Some(2_950_u32.to_be_bytes().to_vec()));
}

/// What sled would keep: segments, each with a page or two that are still needed.
#[test]
fn a_file_that_has_grown_is_written_anew_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        state_segment_bytes: 16 * 1024,
        state_compact_bytes_min: 0,
        ..options(dir.path())
    };
    let (state, _) = State::open(&options).unwrap();
    let stays = |n: u8| (format!("stays/{n}").into_bytes(), vec![n; 100]);
    let row = b"or\x01t\0\0\0\0\0\0\0\0\x01".to_vec();
    let mut batch = Batch::new();
    for n in 0..10 {
        let (key, value) = stays(n);
        batch.put(key, value);
    }
    // How far the row log reaches stands in the database, too.
    batch.put(row.clone(), b"row".to_vec());
    state.commit(batch).unwrap();
    let file = dir.path().join("state/db/db");
    let bytes = || std::fs::metadata(&file).map_or(0, |meta| meta.len());
    let mut most = 0;
    for n in 0..3_000_u32 {
        if state.health().compactions >= 3 {
            break;
        }
        state
            .commit(put(format!("goes/{}", n % 20).as_bytes(), &[1; 200]))
            .unwrap();
        let mut batch = Batch::new();
        batch.delete(format!("goes/{}", n % 20).into_bytes());
        state.commit(batch).unwrap();
        most = most.max(bytes());
    }
    assert!(state.health().compactions >= 3, "{most} bytes");
    assert_eq!(state.health().rebuilds, 0);
    let whole = |state: &State| {
        for n in 0..10 {
            let (key, value) = stays(n);
            assert_eq!(state.get(&key).unwrap(), Some(value));
        }
        assert_eq!(state.get(&row).unwrap(), Some(b"row".to_vec()));
        assert_eq!(state.scan(b"", None, 100).unwrap().len(), 11);
    };
    whole(&state);
    drop(state);
    let (state, report) = State::open(&options).unwrap();
    assert_eq!(report.alarms, []);
    whole(&state);
}
