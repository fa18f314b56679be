//! A disk that fails or is full: a failed sync is never success (G1), appends
//! are withheld and go on by themselves (G8), nothing acknowledged is lost.
//!
//! The real store runs a whole workload while its nth file operation fails,
//! for every n (or, if there are many, evenly spread). It must come to its end
//! by itself, and keep every promise: in the files as they are, and in what a
//! power cut would leave of them, where the pages of a failed sync are gone.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_tests::asked::{number, seed};
use risiti_tests::crash::{
    Cut, Errno, Fault, Judge, Names, Op, Operations, Recording, Shim, Snapshot, Unsynced, Verdict,
};
use risiti_tests::crash::{convictions, scratch};
use risiti_tests::own_mounts::SmallDisk;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DRIVER: &str = env!("CARGO_BIN_EXE_store_driver");
const VERDICT_TIMEOUT: Duration = Duration::from_secs(60);
/// A run takes some 0.2 s and a few retries of up to 2 s; more is stuck.
const RUN_TIMEOUT: Duration = Duration::from_secs(45);
/// Small, so that each of its operations can fail in turn.
const WORDS: [&str; 3] = ["records=400", "changes=45", "generation_bytes=65536"];

/// A run of the workload on a disk that may fail.
struct Run {
    home: tempfile::TempDir,
    shim: Shim,
    child: Child,
}

impl Run {
    fn start(fault: Option<Fault>, words: &[&str]) -> Self {
        let home = tempfile::tempdir_in(scratch()).unwrap();
        let root = home.path().join("root");
        fs::create_dir(&root).unwrap();
        let shim = Shim::over(&root)
            .unwrap()
            .recording(&home.path().join("log"))
            .witness("told");
        shim.skip_real_syncs();
        if let Some(fault) = fault {
            shim.fault(fault);
        }
        let child = spawn(&home, &shim, words);
        Self { home, shim, child }
    }

    /// Starts the workload again where the last process was killed.
    fn resume(&mut self, words: &[&str]) {
        self.child = spawn(&self.home, &self.shim, words);
    }

    fn told(&self) -> Vec<u8> {
        fs::read(self.home.path().join("root/told")).unwrap_or_default()
    }

    /// Waits for `event`; fails if the run ends or nothing comes.
    fn wait(&mut self, what: &str, event: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !event(self) {
            assert!(
                begun.elapsed() < RUN_TIMEOUT,
                "never came: {what}\n{}",
                self.stderr()
            );
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the run ended ({status}) before: {what}\n{}", self.stderr());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for so many failures; false if the run came to its end without
    /// them, as it may: a busy machine's group commits are larger, and fewer.
    fn meets(&mut self, failures: u64) -> bool {
        let begun = Instant::now();
        while self.shim.injected() < failures {
            assert!(begun.elapsed() < RUN_TIMEOUT, "stuck\n{}", self.stderr());
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "died, {status}\n{}", self.stderr());
                return self.shim.injected() >= failures;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    fn stderr(&self) -> String {
        let text = fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default();
        text.lines().rev().take(8).collect::<Vec<_>>().join("\n")
    }

    /// What went wrong, if anything: with the run, with what is in its files
    /// now, or with what a power cut now would leave.
    fn judge(&mut self, judge: &mut Judge, seed: u64) -> Result<(), String> {
        if let Some(wrong) = finish(&mut self.child) {
            let health = fs::read_to_string(self.home.path().join("health"));
            return Err(format!("{wrong}: {}\n  {health:?}", self.stderr()));
        }
        let recording =
            Recording::load(&self.home.path().join("log"), &Snapshot::default(), "told")
                .map_err(|e| e.to_string())?;
        let told = self.home.path().join("told");
        for cut in cuts_after_failures(&recording, seed) {
            let image = self.home.path().join("image");
            cut.build(&recording, &image).unwrap();
            fs::write(&told, recording.witnessed(cut.at)).unwrap();
            kept(judge, &image.join("store"), &told).map_err(|e| format!("{cut:?}: {e}"))?;
            let _ = fs::remove_dir_all(&image);
        }
        fs::write(&told, self.told()).unwrap();
        kept(judge, &self.home.path().join("root/store"), &told)
    }
}

fn spawn(home: &tempfile::TempDir, shim: &Shim, words: &[&str]) -> Child {
    let mut command = Command::new(DRIVER);
    command.arg("run").arg(shim.root()).args(words);
    command.arg(format!("health={}", home.path().join("health").display()));
    let errors = fs::File::create(home.path().join("stderr")).unwrap();
    shim.command(&mut command)
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .unwrap()
}

/// At the end, and soon after a failed sync, when what it took with it has not
/// been written again.
fn cuts_after_failures(recording: &Recording, seed: u64) -> Vec<Cut> {
    let mut random = fastrand::Rng::with_seed(seed);
    let end = recording.ops().len();
    let failed = |n: &usize| matches!(recording.ops()[*n], Op::SyncFail(..));
    let failures: Vec<usize> = (0..end).filter(failed).collect();
    let mut at = vec![end, random.usize(..=end)];
    for failure in failures.iter().rev().take(3) {
        at.push((failure + random.usize(1..160)).min(end));
    }
    at.into_iter()
        .map(|at| Cut {
            at,
            unsynced: if random.bool() {
                Unsynced::Dropped
            } else {
                Unsynced::Torn
            },
            names: if random.bool() {
                Names::Strict
            } else {
                Names::Journaled
            },
            seed: random.u64(..),
        })
        .collect()
}

fn finish(child: &mut Child) -> Option<String> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (!status.success()).then(|| format!("died, {status}"));
        }
        if begun.elapsed() > RUN_TIMEOUT {
            child.kill().unwrap();
            child.wait().unwrap();
            return Some("STUCK: does not go on by itself".into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kept(judge: &mut Judge, store: &Path, told: &Path) -> Result<(), String> {
    match judge
        .ask(&format!("{} {}", store.display(), told.display()))
        .unwrap()
    {
        Verdict::Kept(_) => Ok(()),
        verdict => Err(format!("{verdict:?}")),
    }
}

fn judge() -> Judge {
    Judge::new(DRIVER, &["check", "disk-failed"], VERDICT_TIMEOUT)
}

const NO_FAULT: Fault = Fault {
    operations: Operations::ANY,
    first: 0,
    count: 1,
    errno: Errno::Eio,
    torn: false,
};

/// More than one for each core: a run waits for its disk, and what happens on a busy
/// machine happens here.
fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    cores.clamp(2, 8) * 2
}

/// Fails every nth of `operations` in turn, in the manner given by its turn.
fn each_operation_in_turn(
    operations: Operations,
    points_max: u64,
    manner: fn(u64, Fault) -> Fault,
) {
    let seed = seed();
    let fault = Fault {
        operations,
        ..NO_FAULT
    };
    let mut dry = Run::start(Some(fault), &WORDS);
    assert_eq!(finish(&mut dry.child), None, "{}", dry.stderr());
    let length = dry.shim.seen();
    let points_max = number("RISITI_FAULT_POINTS", points_max);
    let stride = length.div_ceil(points_max);
    let points: Vec<u64> = (1 + seed % stride..=length)
        .step_by(stride as usize)
        .collect();
    let injected = AtomicUsize::new(0);
    let broken = convictions(
        workers(),
        &points,
        |_| judge(),
        |judge, &first| {
            let fault = manner(first, Fault { first, ..fault });
            let mut words = WORDS.to_vec();
            if first % 2 == 0 {
                // Nothing goes, so everything must be there.
                words.push("release=no");
            }
            let mut run = Run::start(Some(fault), &words);
            let judged = run.judge(judge, seed ^ first);
            injected.fetch_add(usize::from(run.shim.injected() > 0), Ordering::Relaxed);
            judged.err().map(|reason| format!("{fault:?}: {reason}"))
        },
    );
    let injected = injected.into_inner();
    println!(
        "{length} operations, {} runs, {injected} of them with a fault, {} broken",
        points.len(),
        broken.len()
    );
    assert!(
        broken.is_empty(),
        "{} of {}:\n{}",
        broken.len(),
        points.len(),
        broken.join("\n")
    );
    assert!(
        injected * 2 > points.len(),
        "only {injected} faults in {} runs",
        points.len()
    );
}

#[test]
fn a_failed_sync_is_never_success() {
    each_operation_in_turn(Operations::SYNC, 60, |n, fault| Fault {
        count: 1 + n % 3,
        ..fault
    });
}

#[test]
fn any_one_failed_operation_loses_nothing_and_stops_nothing() {
    each_operation_in_turn(Operations::ANY, 100, |n, fault| Fault {
        errno: if n % 2 == 0 {
            Errno::Eio
        } else {
            Errno::Enospc
        },
        torn: n % 3 == 0,
        count: [1, 1, 4][n as usize % 3],
        ..fault
    });
}

/// A failed sync leaves pages in the cache that no later sync writes. The next
/// process reads them, and must not take them for durable. What is cut off or removed
/// then may come back as well.
#[test]
fn a_kill_after_a_failed_sync_and_then_a_power_cut_lose_nothing() {
    let (seed, begun) = (seed(), Instant::now());
    let lives: Vec<u64> = (0..number("RISITI_KILLED_LIVES", 120)).collect();
    let killed = AtomicUsize::new(0);
    let broken = convictions(
        workers(),
        &lives,
        |_| judge(),
        |judge, life| {
            let seed = seed.wrapping_add(*life);
            let fault = Fault {
                operations: Operations::SYNC,
                first: 20 + 3 * (seed % 30),
                count: u64::MAX,
                ..NO_FAULT
            };
            let mut words = WORDS.to_vec();
            words.push("release=no");
            let mut run = Run::start(Some(fault), &words);
            if run.meets(1 + seed / 30 % 8) {
                run.child.kill().unwrap();
                let was_killed = run.child.wait().unwrap().signal() == Some(9);
                killed.fetch_add(usize::from(was_killed), Ordering::Relaxed);
            }
            run.shim.heal();
            run.resume(&words);
            let judged = run.judge(judge, seed);
            judged
                .err()
                .map(|reason| format!("RISITI_SEED={seed}, {fault:?}: {reason}"))
        },
    );
    println!(
        r#"PROOF {{"what":"kill-errors","guarantees":"G1 G2 G8 G11","runs":{},"failures":{},"seed":{seed},"seconds":{},"extra":{{"killed":{}}}}}"#,
        lives.len(),
        broken.len(),
        begun.elapsed().as_secs(),
        killed.load(Ordering::Relaxed)
    );
    assert!(
        killed.into_inner() * 2 > lives.len(),
        "only a few were killed"
    );
    assert!(
        broken.is_empty(),
        "{} of {}:\n{}",
        broken.len(),
        lives.len(),
        broken.join("\n")
    );
}

/// While the disk refuses, nothing is acknowledged; afterwards all goes on.
fn withheld_until_healed(fault: Fault) {
    let mut run = Run::start(None, &["records=4000", "changes=90"]);
    run.wait("a first hundred promises", |run| run.told().len() > 1_500);
    run.shim.fault(fault);
    // What had succeeded before may still be on its way to the witness: a few times.
    let calm = (0..5).any(|_| {
        let (told, injected) = (run.told(), run.shim.injected());
        run.wait("failures", |run| run.shim.injected() >= injected + 6);
        run.told() == told
    });
    assert!(
        calm,
        "again and again something was acknowledged while no operation succeeded"
    );
    run.shim.heal();
    if let Err(reason) = run.judge(&mut judge(), seed()) {
        panic!("{fault:?}: {reason}");
    }
}

#[test]
fn while_every_sync_fails_nothing_is_acknowledged_and_later_all_goes_on() {
    withheld_until_healed(Fault {
        operations: Operations::SYNC,
        first: 1,
        count: u64::MAX,
        ..NO_FAULT
    });
}

#[test]
fn while_every_write_fails_nothing_is_acknowledged_and_later_all_goes_on() {
    withheld_until_healed(Fault {
        operations: Operations::SPACE,
        first: 1,
        count: u64::MAX,
        errno: Errno::Enospc,
        torn: true,
    });
}

#[test]
fn while_the_whole_disk_fails_nothing_is_acknowledged_and_later_all_goes_on() {
    withheld_until_healed(Fault {
        first: 1,
        count: u64::MAX,
        ..NO_FAULT
    });
}

/// A run of the workload on a small disk.
struct RunOnSmallDisk {
    home: tempfile::TempDir,
    disk: SmallDisk,
    child: Child,
}

impl RunOnSmallDisk {
    fn start(size_mib: u64, words: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let disk = SmallDisk::mount(home.path(), size_mib).unwrap();
        let errors = fs::File::create(home.path().join("stderr")).unwrap();
        let child = Command::new(DRIVER)
            .arg("run")
            .arg(disk.root())
            .args(["told=told", "health=health"])
            .args(words)
            .current_dir(home.path())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap();
        Self { home, disk, child }
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.home.path().join(file)).unwrap_or_default()
    }

    fn wait(&mut self, what: &str, event: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !event(self) {
            assert!(
                begun.elapsed() < RUN_TIMEOUT,
                "never came: {what}; {} {}",
                self.text("health"),
                self.text("stderr")
            );
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended ({status}) before: {what}; {}", self.text("stderr"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Fills the last byte, again and again, until `event`.
    fn fill_until(&mut self, what: &str, event: impl Fn(&Self) -> bool) {
        self.wait(what, |run| {
            run.disk.fill().unwrap();
            event(run)
        });
    }

    fn judge(&mut self) {
        assert_eq!(
            finish(&mut self.child),
            None,
            "{} {}",
            self.text("health"),
            self.text("stderr")
        );
        let store = self.disk.root().join("store");
        let mut judge = Judge::new(DRIVER, &["check"], VERDICT_TIMEOUT);
        assert_eq!(
            kept(&mut judge, &store, &self.home.path().join("told")),
            Ok(())
        );
    }
}

#[test]
fn a_full_disk_withholds_and_goes_on_by_itself_once_there_is_space() {
    let mut run = RunOnSmallDisk::start(24, &["records=9000", "changes=90"]);
    run.wait("a first hundred promises", |run| {
        run.text("told").len() > 1_500
    });
    run.fill_until("withheld, and an alarm", |run| {
        is_withheld(&run.text("health"))
    });
    let acknowledged = run.text("told").lines().count();
    assert!(acknowledged < 9_000, "the disk was full too late");
    run.disk.free().unwrap();
    run.judge();
    assert!(
        run.text("told")
            .lines()
            .filter(|l| l.starts_with('a'))
            .count()
            == 9_000
    );
}

#[test]
fn low_space_withholds_before_the_disk_is_full() {
    let mut run = RunOnSmallDisk::start(
        24,
        &["records=9000", "changes=90", "free_bytes_min=2000000"],
    );
    run.wait("a first hundred promises", |run| {
        run.text("told").len() > 1_500
    });
    let filler = fs::File::create(run.disk.filler()).unwrap();
    // Leaves 1.5 MB: below the limit, yet room for what is under way.
    let free = Command::new("stat")
        .args(["-f", "-c", "%a"])
        .arg(run.disk.filler())
        .output()
        .unwrap();
    let blocks: u64 = String::from_utf8_lossy(&free.stdout)
        .trim()
        .parse()
        .unwrap();
    let mut left = (blocks * 4096).saturating_sub(1_500_000);
    while left > 0 && (&filler).write_all(&[0; 4096]).is_ok() {
        left = left.saturating_sub(4096);
    }
    run.wait("withheld, and an alarm", |run| {
        is_withheld(&run.text("health"))
    });
    drop(filler); // an open file keeps its space
    run.disk.free().unwrap();
    run.judge();
}

/// Whether the store's own health says that appends are withheld, and why.
fn is_withheld(health: &str) -> bool {
    health.starts_with("withheld ")
}
