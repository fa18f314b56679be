//! The power-cut machinery, on a store that is plainly right and on ones that
//! plainly aren't: it must pass the first and convict the others.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_tests::asked::seed;
use risiti_tests::crash::{
    Cut, Errno, Fault, Moment, Names, Operations, Recording, Shim, Snapshot, Unsynced,
};
use risiti_tests::crash::{scratch, tree};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Toy {
    home: tempfile::TempDir,
    recording: Recording,
}

fn toy(words: &[&str]) -> Toy {
    let home = tempfile::tempdir_in(scratch()).unwrap();
    let root = home.path().join("root");
    fs::create_dir(&root).unwrap();
    let log = home.path().join("log");
    let shim = Shim::over(&root).unwrap().recording(&log).witness("told");
    let mut command = Command::new(env!("CARGO_BIN_EXE_crash_toy"));
    let status = shim
        .command(command.arg(&root).args(words))
        .status()
        .unwrap();
    assert!(status.success());
    let recording = Recording::load(&log, &Snapshot::default(), "told").unwrap();
    Toy { home, recording }
}

/// How many of `images` images lack something that was told to be durable.
fn losses(toy: &Toy, names: Names, images: usize) -> usize {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut losses = 0;
    for (n, at) in toy
        .recording
        .cuts(&mut random, images)
        .into_iter()
        .enumerate()
    {
        let unsynced = [
            Unsynced::Dropped,
            Unsynced::Kept,
            Unsynced::Torn,
            Unsynced::Torn,
        ][n % 4];
        let cut = Cut {
            at,
            unsynced,
            names,
            seed: random.u64(..),
        };
        let image = toy.home.path().join("image");
        cut.build(&toy.recording, &image).unwrap();
        losses += usize::from(!holds(&image, &toy.recording.witnessed(at)));
        fs::remove_dir_all(&image).unwrap();
    }
    losses
}

fn holds(image: &Path, told: &[u8]) -> bool {
    let told = String::from_utf8_lossy(told);
    let highest = told
        .lines()
        .last()
        .map_or(0, |l| l[..1].parse::<u8>().unwrap());
    told.lines().all(|line| {
        let (n, i) = line.split_once(' ').unwrap();
        let (n, i): (u8, u8) = (n.parse().unwrap(), i.parse().unwrap());
        // Removal of the older ones is under way: either answer is right.
        if n + 3 <= highest {
            return true;
        }
        let Ok(log) = fs::read(image.join(format!("home-{n}/log"))) else {
            return false;
        };
        let at = 100 + usize::from(i) * 1700;
        log.get(at..at + 1700)
            .is_some_and(|r| r[..700] == [i; 700] && r[700..] == [n; 1000])
    })
}

#[test]
fn a_cut_after_the_end_with_all_writes_kept_is_the_directory_itself() {
    let toy = toy(&[]);
    let cut = Cut {
        at: toy.recording.ops().len(),
        unsynced: Unsynced::Kept,
        names: Names::Strict,
        seed: 0,
    };
    let image = toy.home.path().join("image");
    cut.build(&toy.recording, &image).unwrap();
    let mut real = tree(&toy.home.path().join("root")).unwrap();
    real.remove(Path::new("told"));
    assert!(tree(&image).unwrap() == real);
}

#[test]
fn the_same_seed_makes_the_same_image() {
    let toy = toy(&["forget-sync"]);
    let at = toy.recording.ops().len() / 2;
    let image = |name: &str, seed| {
        let path = toy.home.path().join(name);
        Cut {
            at,
            unsynced: Unsynced::Torn,
            names: Names::Strict,
            seed,
        }
        .build(&toy.recording, &path)
        .unwrap();
        tree(&path).unwrap()
    };
    assert!(image("a", 7) == image("b", 7));
    assert!((8..18).any(|seed| image(&seed.to_string(), seed) != image(&format!("{seed}-"), 7)));
}

#[test]
fn a_right_store_loses_nothing() {
    let toy = toy(&[]);
    assert_eq!(losses(&toy, Names::Strict, 150), 0);
    assert_eq!(losses(&toy, Names::Journaled, 150), 0);
}

#[test]
fn a_store_that_forgets_fdatasync_is_convicted() {
    assert!(losses(&toy(&["forget-sync"]), Names::Strict, 60) > 20);
}

#[test]
fn a_store_that_forgets_the_directory_is_convicted_only_where_directories_need_it() {
    let toy = toy(&["forget-dir-sync"]);
    assert!(losses(&toy, Names::Strict, 60) > 5);
    // A journaling file system commits the names with the file's own sync.
    assert_eq!(losses(&toy, Names::Journaled, 60), 0);
}

#[test]
fn a_process_that_dies_and_comes_back_is_one_recording() {
    let home = tempfile::tempdir_in(scratch()).unwrap();
    let root = home.path().join("root");
    fs::create_dir_all(root.join("old")).unwrap();
    fs::write(root.join("old/file"), b"was here before").unwrap();
    let before = Snapshot::of(&root).unwrap();
    let log = home.path().join("log");
    let shim = Shim::over(&root).unwrap().recording(&log);
    for script in [
        "echo one > $0/new; mv $0/old $0/moved",
        "echo two >> $0/new; echo more >> $0/moved/file; sync $0/new",
    ] {
        // The shell is a stranger to the shim: it writes by libc like any other.
        let mut command = Command::new("sh");
        assert!(
            shim.command(command.args(["-c", script]).arg(&root))
                .status()
                .unwrap()
                .success()
        );
    }
    let recording = Recording::load(&log, &before, "").unwrap();
    let build = |unsynced, name: &str| {
        let image = home.path().join(name);
        Cut {
            at: recording.ops().len(),
            unsynced,
            names: Names::Journaled,
            seed: 1,
        }
        .build(&recording, &image)
        .unwrap();
        tree(&image).unwrap()
    };
    assert!(build(Unsynced::Kept, "kept") == tree(&root).unwrap());
    let dropped = build(Unsynced::Dropped, "dropped");
    assert_eq!(
        dropped[Path::new("new")].as_deref(),
        Some(&b"one\ntwo\n"[..])
    );
    assert_eq!(
        dropped[Path::new("old/file")].as_deref(),
        Some(&b"was here before"[..])
    );
}

#[test]
fn the_nth_operation_fails_and_the_count_is_told() {
    let run = |fault: Fault| {
        let home = tempfile::tempdir_in(scratch()).unwrap();
        let shim = Shim::over(home.path()).unwrap().witness("told");
        shim.fault(fault);
        let mut command = Command::new(env!("CARGO_BIN_EXE_crash_toy"));
        let output = shim.command(command.arg(home.path())).output().unwrap();
        let told = fs::read_to_string(home.path().join("told")).unwrap_or_default();
        (
            shim.seen(),
            shim.injected(),
            told.lines().count(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let fault = Fault {
        operations: Operations::SYNC,
        first: 0,
        count: 1,
        errno: Errno::Eio,
        torn: false,
    };
    // Per home: the first file, its directory, the root, 25 records.
    assert_eq!(run(fault), (6 * 28, 0, 150, String::new()));
    let (seen, injected, told, error) = run(Fault { first: 14, ..fault });
    assert_eq!((seen, injected, told), (14, 1, 10));
    assert!(error.contains("Input/output error"), "{error}");
    let (_, _, told, error) = run(Fault {
        operations: Operations::WRITE,
        first: 2,
        errno: Errno::Enospc,
        ..fault
    });
    assert_eq!(told, 0);
    assert!(error.contains("No space left"), "{error}");
}

#[test]
fn a_stalled_sync_ends_when_the_test_says_so() {
    let home = tempfile::tempdir_in(scratch()).unwrap();
    let shim = Shim::over(home.path()).unwrap().witness("told");
    shim.delay_syncs_ms(600_000);
    let mut command = Command::new(env!("CARGO_BIN_EXE_crash_toy"));
    let mut child = shim
        .command(command.arg(home.path()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !home.path().join("home-0/log.tmp").exists() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.try_wait().unwrap().is_none());
    assert_eq!(
        (
            shim.syncs(),
            fs::read(home.path().join("told")).unwrap().len()
        ),
        (0, 0)
    );
    shim.delay_syncs_ms(0);
    assert!(child.wait().unwrap().success());
    assert_eq!(shim.syncs(), 6 * 28);
}

/// The lives of processes that are killed in turn, over one recorded directory.
struct Lives {
    home: tempfile::TempDir,
    shim: Shim,
    lives: u32,
}

impl Lives {
    fn new() -> Self {
        let home = tempfile::tempdir_in(scratch()).unwrap();
        fs::create_dir(home.path().join("root")).unwrap();
        let shim = Shim::over(&home.path().join("root"))
            .unwrap()
            .recording(&home.path().join("log"));
        shim.skip_real_syncs();
        Self {
            home,
            shim,
            lives: 0,
        }
    }

    fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    /// Another life: appends to what the others left, in pieces of many pages,
    /// shrinks it, and lets the toy do the rest in a directory of its own.
    fn command(&mut self) -> Command {
        // Only what a tool opens itself is seen, not what a shell opens for it.
        const LIFE: &str = "dd if=\"$0\" of=big bs=300000 count=1
            dd if=big of=all bs=70000 oflag=append conv=notrunc; mv big mine
            truncate -s 250000 mine; mkdir \"$1\" && exec \"$0\" \"$1\"";
        self.lives += 1;
        let mut command = Command::new("sh");
        let toy = env!("CARGO_BIN_EXE_crash_toy");
        command
            .args(["-c", LIFE, toy])
            .arg(self.lives.to_string())
            .current_dir(self.root())
            .process_group(0)
            .stderr(Stdio::null());
        self.shim.command(&mut command);
        command
    }

    /// Why the recording is not the directory, if it isn't.
    fn difference(&self) -> Option<String> {
        let log = self.home.path().join("log");
        let recording = match Recording::load(&log, &Snapshot::default(), "") {
            Ok(recording) => recording,
            Err(e) => return Some(e.to_string()),
        };
        let image = self.home.path().join("image");
        let cut = Cut {
            at: recording.ops().len(),
            unsynced: Unsynced::Kept,
            names: Names::Strict,
            seed: 0,
        };
        cut.build(&recording, &image).unwrap();
        let (real, built) = (tree(&self.root()).unwrap(), tree(&image).unwrap());
        fs::remove_dir_all(&image).unwrap();
        let paths = real.keys().chain(built.keys());
        paths
            .filter(|path| real.get(*path) != built.get(*path))
            .map(|path| format!("{} differs", path.display()))
            .next()
    }
}

/// A toy that is killed at `moment` of its `nth` operation, and comes back.
fn killed_at(moment: Moment, nth: u64, forgetful: bool) -> Option<String> {
    let mut lives = Lives::new();
    if forgetful {
        lives.shim.forget_what_kills_cut_short();
    }
    let mut toy = Command::new(env!("CARGO_BIN_EXE_crash_toy"));
    lives.shim.kill_at(moment, nth);
    let status = lives.shim.command(toy.arg(lives.root())).status().unwrap();
    assert_eq!(status.signal(), Some(9), "{moment:?} {nth}: {status}");
    lives.shim.spare();
    assert!(lives.command().status().unwrap().success());
    lives.difference()
}

const MOMENTS: [Moment; 5] = [
    Moment::Noted,
    Moment::Intended,
    Moment::HalfDone,
    Moment::Done,
    Moment::Recorded,
];

#[test]
fn a_kill_at_any_moment_of_an_operation_leaves_an_exact_recording() {
    let mut random = fastrand::Rng::with_seed(seed());
    for moment in MOMENTS {
        // The first ones are of every kind: mkdir, create, write, rename.
        let later: Vec<u64> = (0..8).map(|_| random.u64(8..300)).collect();
        for nth in (1..8).chain(later) {
            let difference = killed_at(moment, nth, false);
            assert_eq!(difference, None, "killed when {moment:?}, {nth}");
        }
    }
}

#[test]
fn a_recorder_that_forgets_what_a_kill_cut_short_is_convicted() {
    for moment in [Moment::HalfDone, Moment::Done] {
        let missed = (1..8).filter(|nth| killed_at(moment, *nth, true).is_some());
        assert!(missed.count() >= 6, "{moment:?}");
    }
    // Where nothing happened, there is nothing to miss.
    assert_eq!(killed_at(Moment::Intended, 3, true), None);
}

#[test]
fn an_operation_that_the_recorder_does_not_see_is_noticed() {
    let mut lives = Lives::new();
    assert!(lives.command().status().unwrap().success());
    assert_eq!(lives.difference(), None);
    fs::write(lives.root().join("1/unseen"), b"").unwrap();
    assert_eq!(lives.difference().as_deref(), Some("1/unseen differs"));
}

#[test]
fn kills_at_random_moments_leave_an_exact_recording() {
    let mut random = fastrand::Rng::with_seed(seed());
    let (mut lives, mut killed) = (Lives::new(), 0);
    for _ in 0..40 {
        let mut child = lives.command().stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.u64(..15_000)));
        kill_process_group(Pid::from_child(&child), Signal::KILL).unwrap();
        killed += u32::from(child.wait().unwrap().signal() == Some(9));
        // Whatever the shell had begun has its output: gone when that ends.
        let mut output = Vec::new();
        child.stdout.unwrap().read_to_end(&mut output).unwrap();
    }
    assert!(lives.command().status().unwrap().success());
    assert_eq!(lives.difference(), None);
    println!("{killed} of 40 killed");
    assert!(killed > 0);
}
