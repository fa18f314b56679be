//! G1, G2, G8 under power cuts: the real store, on images of what a cut could
//! have left of its files (crash model: `src/crash/image.rs`).
//!
//! A run is recorded: small generations are created, sealed, released and
//! deleted while eight clients append, resends come, and the state changes. At
//! each cut every acknowledged record must be there, once, in order, at its
//! position; resends must be recognised; committed state must be there, whole;
//! the store must open and go on. On failure the recording is kept and its
//! path printed: `RISITI_SEED=… RISITI_RECORDING=…` replays it.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_tests::crash::{Cut, Judge, Names, Recording, Shim, Snapshot, Unsynced, Verdict};
use risiti_tests::crash::{convictions, scratch, seed};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const DRIVER: &str = env!("CARGO_BIN_EXE_store_driver");
/// An image takes some 0.1 s; this is for a machine that is busy.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(60);

struct Run {
    home: tempfile::TempDir,
    log: PathBuf,
    recording: Recording,
}

/// Records a whole run of the workload, on a disk whose syncs take this long:
/// on a slow one, more is under way at any moment.
fn record(words: &[&str], seed: u64, sync_ms: u64) -> Run {
    let home = tempfile::tempdir_in(scratch()).unwrap();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut log = home.path().join("log");
    if let Some(earlier) = std::env::var_os("RISITI_RECORDING") {
        log = earlier.into();
    } else {
        let shim = Shim::over(&root).unwrap().recording(&log).witness("told");
        shim.skip_real_syncs();
        shim.delay_syncs_ms(sync_ms);
        let mut command = Command::new(DRIVER);
        command
            .arg("run")
            .arg(&root)
            .arg(format!("seed={seed}"))
            .args(words);
        let output = shim
            .command(&mut command)
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let recording = Recording::load(&log, &Snapshot::default(), "told").unwrap();
    Run {
        home,
        log,
        recording,
    }
}

impl Run {
    /// The verdict on what a cut leaves, in a place of this judge's own.
    fn ask(&self, judge: &mut Judge, number: usize, cut: &Cut, told: &[u8]) -> Verdict {
        let image = self.home.path().join(format!("image-{number}"));
        let told_file = self.home.path().join(format!("told-{number}"));
        cut.build(&self.recording, &image).unwrap();
        fs::write(&told_file, told).unwrap();
        let line = format!("{} {}", image.join("store").display(), told_file.display());
        let verdict = judge.ask(&line).unwrap();
        // Whatever the judge left open goes with it.
        let _ = fs::remove_dir_all(&image);
        verdict
    }
}

fn judge() -> Judge {
    Judge::new(DRIVER, &["check"], VERDICT_TIMEOUT)
}

/// Images whose promises were broken, with what to replay them by.
fn lost(run: &Run, cuts: &[Cut]) -> Vec<(Cut, Verdict)> {
    let judges = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .min(8);
    convictions(
        judges,
        cuts,
        |number| (number, judge()),
        |(number, judge), cut| {
            let verdict = run.ask(judge, *number, cut, &run.recording.witnessed(cut.at));
            (!verdict.is_kept()).then_some((*cut, verdict))
        },
    )
}

fn summary(convictions: &[(Cut, Verdict)]) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, verdict) in convictions {
        *kinds.entry(verdict.kind()).or_default() += 1;
    }
    let mut text = format!("{kinds:?}\n");
    for (cut, verdict) in convictions.iter().take(12) {
        text += &format!("  {cut:?}: {verdict:?}\n");
    }
    text
}

/// Keeps what a replay needs.
fn keep(run: &Run, seed: u64) -> String {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-cut-{seed}.log"));
    if run.log != kept {
        fs::copy(&run.log, &kept).unwrap();
    }
    format!(
        "replay with RISITI_SEED={seed} RISITI_RECORDING={}",
        kept.display()
    )
}

fn tree(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            all.extend(tree(&path).into_iter().map(|(p, b)| (name.join(p), b)));
            all.insert(name, None);
        } else {
            all.insert(name, Some(fs::read(&path).unwrap()));
        }
    }
    all
}

#[test]
fn the_recording_misses_nothing_that_the_store_does() {
    let seed = seed();
    let run = record(&["records=1500", "changes=300"], seed, 0);
    let image = run.home.path().join("image");
    let cut = Cut {
        at: run.recording.ops().len(),
        unsynced: Unsynced::Kept,
        names: Names::Strict,
        seed,
    };
    cut.build(&run.recording, &image).unwrap();
    let root = run.home.path().join("root");
    if root.join("store").exists() {
        let (real, built) = (tree(&root.join("store")), tree(&image.join("store")));
        assert_eq!(
            real.keys().collect::<Vec<_>>(),
            built.keys().collect::<Vec<_>>()
        );
        for (path, bytes) in &real {
            assert!(
                built[path] == *bytes,
                "{} differs: raw system calls?",
                path.display()
            );
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    let seed = seed();
    let images = std::env::var("RISITI_IMAGES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(240);
    for sync_ms in [0, 3] {
        let run = record(&[], seed, sync_ms);
        let cuts = Cut::through(&run.recording, images / 2, seed);
        let lost = lost(&run, &cuts);
        println!(
            "{} operations, {} images, {} broken",
            run.recording.ops().len(),
            cuts.len(),
            lost.len()
        );
        assert!(
            lost.is_empty(),
            "{} of {} images broken: {}{}",
            lost.len(),
            cuts.len(),
            summary(&lost),
            keep(&run, seed)
        );
    }
}

/// The negative control: sled's own flush, as published, is not enough.
#[test]
fn without_our_own_sync_a_power_cut_loses_acknowledged_records() {
    let seed = seed();
    let run = record(&["sync=flush-only", "records=1500", "changes=300"], seed, 0);
    let lost = lost(&run, &Cut::through(&run.recording, 40, seed));
    println!("{} of 40 images broken: {}", lost.len(), summary(&lost));
    let losses = lost.iter().filter(|(_, v)| v.kind() == "LOST").count();
    assert!(losses > 0, "no loss found where there must be some");
}

/// What a killed process left in the page cache alone is not durable yet: the
/// next one must not acknowledge a resend because of it.
#[test]
fn a_kill_and_then_a_power_cut_lose_nothing() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let home = tempfile::tempdir_in(scratch()).unwrap();
    let (root, log) = (home.path().join("root"), home.path().join("log"));
    fs::create_dir(&root).unwrap();
    let shim = Shim::over(&root).unwrap().recording(&log).witness("told");
    shim.skip_real_syncs();
    // Most kills come while a sync is under way.
    shim.delay_syncs_ms(3);
    for life in 0..6 {
        let mut command = Command::new(DRIVER);
        command.arg("run").arg(&root).args([
            "release=no",
            "changes=90",
            &format!("seed={}", seed ^ life),
        ]);
        let mut child = shim
            .command(&mut command)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let told = || fs::metadata(root.join("told")).map_or(0, |told| told.len());
        let enough = told() + random.u64(200..6_000);
        while told() < enough && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let recording = Recording::load(&log, &Snapshot::default(), "told").unwrap();
    let run = Run {
        home,
        log,
        recording,
    };
    let told = run.recording.witnessed(run.recording.ops().len());
    let known = String::from_utf8_lossy(&told)
        .lines()
        .filter(|l| l.starts_with('k'))
        .count();
    assert!(
        known > 0,
        "no kill left a record that was not acknowledged yet"
    );
    let lost = lost(&run, &Cut::through(&run.recording, 80, seed));
    assert!(
        lost.is_empty(),
        "{} of 80 images broken: {}{}",
        lost.len(),
        summary(&lost),
        keep(&run, seed)
    );
}

#[test]
fn a_second_power_cut_during_recovery_loses_nothing_either() {
    let seed = seed();
    let run = record(&["records=2000", "changes=300"], seed, 0);
    let mut broken = Vec::new();
    for (n, first) in Cut::through(&run.recording, 10, seed)
        .into_iter()
        .enumerate()
    {
        let home = tempfile::tempdir_in(scratch()).unwrap();
        let (root, log) = (home.path().join("root"), home.path().join("log"));
        first.build(&run.recording, &root).unwrap();
        fs::create_dir_all(root.join("store")).unwrap();
        let before = Snapshot::of(&root).unwrap();
        let shim = Shim::over(&root).unwrap().recording(&log);
        let mut command = Command::new(DRIVER);
        let output = shim
            .command(command.arg("recover").arg(root.join("store")))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{first:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let recording = Recording::load(&log, &before, "").unwrap();
        let second = Run {
            home,
            log,
            recording,
        };
        let told = run.recording.witnessed(first.at);
        for cut in Cut::through(&second.recording, 8, seed ^ n as u64) {
            let verdict = second.ask(&mut judge(), 0, &cut, &told);
            if !verdict.is_kept() {
                broken.push(format!("{first:?}\n  then {cut:?}\n  {verdict:?}"));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "{} of 80:\n{}\n{}",
        broken.len(),
        broken.join("\n"),
        keep(&run, seed)
    );
}
