//! G11 damage is seen: it costs what it hit, is counted, and never keeps the
//! journal from opening.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use risiti_store::{Outcome, RecordSource, StoreOptions};
use support::{Store, generations, numbered, open, options, packet};

const RECORDS: u64 = 600;

/// A journal of several generations, closed.
fn filled(dir: &Path) {
    let mut store = open(&options(dir));
    for n in 1..=RECORDS {
        store.submit(numbered(1, n));
        if n % 20 == 0 {
            store.outcomes.wait(n - 1);
        }
    }
    store.outcomes.wait(RECORDS - 1);
    store.close();
    assert!(generations(dir).len() >= 4);
}

fn flip(rng: &mut fastrand::Rng, path: &Path) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let length = file.metadata().unwrap().len();
    if length == 0 {
        return;
    }
    let at = rng.u64(0..length);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << rng.u8(0..8);
    file.write_all_at(&byte, at).unwrap();
}

/// Every record is there, in order, except `damaged` many that are counted; and
/// it goes on.
fn check(store: &mut Store, lost_max: u64, what: &str) -> u64 {
    let (records, damaged) = store.read_all(1);
    assert_eq!(
        records.len() as u64 + damaged,
        RECORDS,
        "{what}: lost in silence"
    );
    assert!(damaged <= lost_max, "{what}: {damaged} lost");
    assert!(
        records
            .windows(2)
            .all(|pair| pair[0].position < pair[1].position)
    );
    for record in records {
        assert_eq!(record.record, numbered(1, record.position), "{what}");
    }
    let health = store.journal.health();
    assert_eq!(health.damaged_positions, damaged, "{what}");
    assert_eq!(health.quarantined_generations > 0, damaged > 0, "{what}");
    assert_eq!(health.alarms.is_empty(), damaged == 0, "{what}");
    assert_eq!(
        store.append(numbered(1, RECORDS)),
        Outcome::Duplicate,
        "{what}"
    );
    assert_eq!(store.store(numbered(1, RECORDS + 1)), RECORDS + 1, "{what}");
    damaged
}

#[test]
fn a_flipped_bit_costs_at_most_one_pack() {
    let origin = tempfile::tempdir().unwrap();
    filled(origin.path());
    let mut hits = 0;
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        support::crash_copy(origin.path(), dir.path());
        let generation = rng.choice(generations(dir.path())).unwrap();
        let mut files: Vec<_> = fs::read_dir(&generation)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        // Mostly the file that holds the records.
        let file = if rng.u8(0..4) > 0 {
            generation.join("db")
        } else {
            rng.choice(files).unwrap()
        };
        flip(&mut rng, &file);
        let mut store = open(&options(dir.path()));
        let damaged = check(&mut store, 40, &format!("seed {seed}, {}", file.display()));
        hits += u64::from(damaged > 0);
        if damaged > 0 {
            let quarantine = fs::read_dir(dir.path().join("quarantine")).unwrap();
            assert!(quarantine.count() > 0, "seed {seed}");
        }
    }
    assert!(hits > 0, "no flip ever hit a record");
}

#[test]
fn flipped_bits_beside_the_records_cost_nothing() {
    let origin = tempfile::tempdir().unwrap();
    filled(origin.path());
    for seed in 0..12 {
        let mut rng = fastrand::Rng::with_seed(seed);
        for name in [
            "journal/id",
            "journal/mark",
            "state/mark",
            "state/db/db",
            "state/db/conf",
        ] {
            let dir = tempfile::tempdir().unwrap();
            support::crash_copy(origin.path(), dir.path());
            flip(&mut rng, &dir.path().join(name));
            let id = fs::read(origin.path().join("journal/id")).unwrap();
            let mut store = open(&options(dir.path()));
            assert_eq!(
                store.journal.journal_id().as_bytes(),
                &id[..32],
                "seed {seed} {name}"
            );
            check(&mut store, 0, &format!("seed {seed} {name}"));
        }
    }
}

#[test]
fn a_truncated_tail_is_told_and_its_positions_are_never_used_again() {
    let origin = tempfile::tempdir().unwrap();
    filled(origin.path());
    for keep in [0, 1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        support::crash_copy(origin.path(), dir.path());
        let newest = generations(dir.path()).pop().unwrap().join("db");
        let file = OpenOptions::new().write(true).open(&newest).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length * keep / 4).unwrap();
        let mut store = open(&options(dir.path()));
        let (records, damaged) = store.read_all(1);
        assert_eq!(records.len() as u64 + damaged, RECORDS);
        if keep == 0 {
            assert!(damaged > 0);
            assert!(
                store.report.damaged_positions > 0 || store.journal.health().damaged_positions > 0
            );
        }
        assert_eq!(store.store(numbered(1, RECORDS + 1)), RECORDS + 1);
    }
}

#[test]
fn a_generation_that_is_gone_costs_what_it_held() {
    let origin = tempfile::tempdir().unwrap();
    filled(origin.path());
    let count = generations(origin.path()).len();
    for lost in 0..count {
        for whole in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            support::crash_copy(origin.path(), dir.path());
            let generation = &generations(dir.path())[lost];
            if whole {
                fs::remove_dir_all(generation).unwrap();
            } else {
                fs::remove_file(generation.join("db")).unwrap();
            }
            let mut store = open(&options(dir.path()));
            let (records, damaged) = store.read_all(1);
            assert_eq!(records.len() as u64 + damaged, RECORDS, "{lost} {whole}");
            assert!(damaged > 0 && damaged < RECORDS / 2);
            assert_eq!(store.store(numbered(1, RECORDS + 1)), RECORDS + 1);
        }
    }
}

#[test]
fn a_lost_journal_directory_never_reuses_positions() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    for generation in generations(dir.path()) {
        fs::remove_dir_all(generation).unwrap();
    }
    let mut store = open(&options(dir.path()));
    assert_eq!(store.journal.end(), RECORDS + 1);
    assert_eq!(store.store(numbered(1, RECORDS + 1)), RECORDS + 1);
}

#[test]
fn damage_while_it_is_open_is_skipped_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&options(dir.path()));
    for n in 1..=RECORDS {
        store.submit(numbered(1, n));
        let token = store.submit(packet(2, n as u16, false, "x"));
        if n % 20 == 0 {
            store.outcomes.wait(token);
        }
    }
    // Past the tail in memory, from the files.
    store.journal.release("default", 1);
    let victim = generations(dir.path())[1].join("db");
    let file = OpenOptions::new().write(true).open(victim).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    file.write_all_at(&vec![0xAA; length / 2], 0).unwrap();
    store.close();
    let store = open(&options(dir.path()));
    let (records, damaged) = store.read_all(1);
    assert_eq!(records.len() as u64 + damaged, 2 * RECORDS);
    assert!(damaged > 0);
}

/// The negative control of the tests above: what they compare does differ.
#[test]
fn without_damage_nothing_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let mut store = open(&StoreOptions {
        generation_bytes: 1_000,
        ..options(dir.path())
    });
    assert_eq!(check(&mut store, 0, "whole"), 0);
    assert_eq!(store.report.alarms, []);
}
