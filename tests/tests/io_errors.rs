//! G1, G2, G8 on a disk that fails: an error at every single file operation of
//! a run, in turn, none left out.
//!
//! Two runs are told: one from a blank disk, and one that takes up what a power
//! cut left. Each is run as often as it has operations (open, write, fsync,
//! fdatasync, ftruncate, rename, unlink, mkdir, sync_file_range), and each time
//! the next one fails, in every manner: EIO, ENOSPC, half a write and an error,
//! half a write and none; once, or for eight operations in a row. The store must
//! come to its end by itself, without a panic, and keep every promise: in the
//! files as they are, and in what a power cut would leave of them, where the
//! pages of a failed sync are gone.
//!
//! Then the same with what only looks: reading a file, listing a directory, asking
//! what a name stands for. What could not be read is not damaged, and is there: so
//! no error of this kind may cost anything, or be told as damage.
//!
//! `RISITI_IO_ROUNDS` repeats all of it with other seeds; `RISITI_EVERY=7` takes
//! only every seventh operation.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_tests::asked::{number, seed};
use risiti_tests::crash::{
    Cut, End, Ended, Errno, Fault, Judge, Names, Op, Operations, Recording, Scene, Shape, Stage,
    Unsynced, Verdict, convictions,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const DRIVER: &str = env!("CARGO_BIN_EXE_store_driver");
const VERDICT_TIMEOUT: Duration = Duration::from_secs(60);
/// A run takes 0.1 s and a few retries of up to 2 s; more is stuck.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);
/// Cuts of each run, beside its files as they are.
const CUTS: usize = 2;
/// Cuts behind a failed sync of names: the store opens again within so many operations.
const NAMES_CUTS: usize = 40;

/// Small, so that each of its operations can fail in turn; still with more than
/// one generation, row file and group.
const WORDS: &str = "records=9 changes=6 payloads=small values=small window=3 generation_bytes=300 row_file_bytes=256 segment_bytes=16384 ballast_bytes=8192";

/// What is taken up: killed in the midst of things, then cut.
const BEFORE: Shape = Shape {
    name: "before",
    words: WORDS,
    sync_ms: 1,
    lives: &[End::Killed],
};

#[derive(Debug, Clone, Copy)]
struct Manner {
    name: &'static str,
    operations: Operations,
    errno: Errno,
    count: u64,
    torn: bool,
    /// Every operation in turn, or only one in so many.
    every: u64,
}

const MANNERS: &[Manner] = &[
    Manner {
        name: "eio",
        operations: Operations::ANY,
        errno: Errno::Eio,
        count: 1,
        torn: false,
        every: 1,
    },
    Manner {
        name: "enospc",
        operations: Operations::ANY,
        errno: Errno::Enospc,
        count: 1,
        torn: false,
        every: 1,
    },
    Manner {
        name: "eio-for-a-while",
        operations: Operations::ANY,
        errno: Errno::Eio,
        count: 8,
        torn: false,
        every: 1,
    },
    Manner {
        name: "enospc-for-a-while",
        operations: Operations::ANY,
        errno: Errno::Enospc,
        count: 8,
        torn: true,
        every: 1,
    },
    Manner {
        name: "half-a-write-and-eio",
        operations: Operations::WRITE,
        errno: Errno::Eio,
        count: 1,
        torn: true,
        every: 1,
    },
    Manner {
        name: "short-write",
        operations: Operations::WRITE,
        errno: Errno::Short,
        count: 1,
        torn: true,
        every: 1,
    },
];

const LOOKS: &[Manner] = &[
    Manner {
        name: "eio-on-a-look",
        operations: Operations::READ,
        errno: Errno::Eio,
        count: 1,
        torn: false,
        every: 1,
    },
    Manner {
        name: "eio-on-looks-for-a-while",
        operations: Operations::READ,
        errno: Errno::Eio,
        count: 8,
        torn: false,
        // The first of them is met above.
        every: 4,
    },
];

/// Where a run begins.
enum Begin {
    Blank,
    /// Boxed: a recording is large.
    After(Box<Scene>, Cut, Vec<u8>),
    /// The same, and the state's database can't be opened: it is salvaged.
    Damaged(Box<Scene>, Cut, Vec<u8>),
}

impl Begin {
    fn after(seed: u64) -> Self {
        let (scene, cut, told) = Self::scene(seed);
        Self::After(scene, cut, told)
    }

    fn damaged(seed: u64) -> Self {
        let (scene, cut, told) = Self::scene(seed);
        Self::Damaged(scene, cut, told)
    }

    fn scene(seed: u64) -> (Box<Scene>, Cut, Vec<u8>) {
        let scene = Scene::record(Path::new(DRIVER), &BEFORE, seed).unwrap();
        let ops = scene.recording.ops().len();
        let cut = Cut {
            at: ops - fastrand::Rng::with_seed(seed).usize(..ops / 4),
            unsynced: Unsynced::Torn,
            names: Names::Journaled,
            seed,
        };
        let told = scene.recording.witnessed(cut.at);
        (Box::new(scene), cut, told)
    }

    fn stage(&self) -> Stage {
        match self {
            Self::Blank => Stage::blank(WORDS),
            Self::After(scene, cut, told) => Stage::after(scene, cut, told),
            Self::Damaged(scene, cut, told) => Stage::after_forged(scene, cut, told, unopenable),
        }
        .unwrap()
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::After(..) => "after-a-cut",
            Self::Damaged(..) => "damaged",
        }
    }
}

/// Changes what sled needs to open the state's database, and no entry.
fn unopenable(store: &Path) -> std::io::Result<()> {
    let file = std::fs::File::options()
        .write(true)
        .open(store.join("state/db/db"))?;
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 8], 0)?;
    Ok(())
}

struct Case<'a> {
    begin: &'a Begin,
    manner: Manner,
    nth: u64,
    seed: u64,
}

impl Case<'_> {
    fn fault(&self, first: u64) -> Fault {
        Fault {
            operations: self.manner.operations,
            first,
            count: self.manner.count,
            errno: self.manner.errno,
            torn: self.manner.torn,
        }
    }

    fn words(&self) -> String {
        // Every other run keeps everything: then everything must be there.
        let release = if self.nth.is_multiple_of(2) {
            "no"
        } else {
            "at-once"
        };
        // Nothing is damaged by a failed look.
        let damage = if self.manner.operations == Operations::READ {
            "none"
        } else {
            "any"
        };
        format!("seed={} release={release} damage={damage}", self.seed)
    }

    /// How many operations there are to fail.
    fn operations(&self) -> u64 {
        let stage = self.begin.stage();
        stage.shim().fault(self.fault(0));
        let ended = stage
            .live(Path::new(DRIVER), false, &self.words(), RUN_TIMEOUT)
            .unwrap();
        assert_eq!(ended, Ended::Well);
        stage.shim().seen()
    }

    /// Runs it with this operation failing.
    ///
    /// # Errors
    /// In words: it did not end well.
    fn lived(&self, count: &Counts) -> Result<Scene, String> {
        let stage = self.begin.stage();
        stage.shim().fault(self.fault(self.nth));
        let ended = stage
            .live(Path::new(DRIVER), false, &self.words(), RUN_TIMEOUT)
            .unwrap();
        let injected = stage.shim().injected();
        count
            .runs
            .fetch_add(u64::from(injected > 0), Ordering::Relaxed);
        count.injected.fetch_add(injected, Ordering::Relaxed);
        // What can't be recorded is a link into the quarantine.
        let scene = stage
            .end()
            .map_err(|error| format!("{}: {error}", self.name()))?;
        if ended != Ended::Well {
            return Err(self.wrong(&scene, &last(&scene.recording), &format!("{ended:?}")));
        }
        Ok(scene)
    }

    /// Runs it with this operation failing; what was wrong.
    fn judge(&self, judge: &mut Judge, count: &Counts) -> Option<String> {
        let scene = match self.lived(count) {
            Ok(scene) => scene,
            Err(wrong) => return Some(wrong),
        };
        for cut in cuts(&scene.recording, self.seed ^ self.nth) {
            count.images.fetch_add(1, Ordering::Relaxed);
            let told = scene.recording.witnessed(cut.at);
            let verdict = scene.ask(judge, &cut, &told).unwrap();
            if !verdict.is_kept() {
                return Some(self.wrong(&scene, &cut, &format!("{verdict:?}")));
            }
        }
        match scene.ask_now(judge).unwrap() {
            Verdict::Kept(_) => None,
            verdict => Some(self.wrong(&scene, &last(&scene.recording), &format!("{verdict:?}"))),
        }
    }

    /// Runs it with this sync failing, and looks at all that a cut soon after it may
    /// leave, if it was a sync of names; what was wrong.
    fn judge_names(&self, judge: &mut Judge, count: &Counts) -> Option<String> {
        let scene = match self.lived(count) {
            Ok(scene) => scene,
            Err(wrong) => return Some(wrong),
        };
        let ops = scene.recording.ops();
        let failure = ops
            .iter()
            .position(|op| matches!(op, Op::SyncFail(node, _) if scene.recording.is_dir(*node)))?;
        let mut random = fastrand::Rng::with_seed(self.seed ^ self.nth);
        for at in (failure + 1..=ops.len()).take(NAMES_CUTS) {
            let cut = Cut {
                at,
                unsynced: Unsynced::Torn,
                names: Names::Strict,
                seed: random.u64(..),
            };
            count.images.fetch_add(1, Ordering::Relaxed);
            let told = scene.recording.witnessed(at);
            let verdict = scene.ask(judge, &cut, &told).unwrap();
            if !verdict.is_kept() {
                return Some(self.wrong(&scene, &cut, &format!("{verdict:?}")));
            }
        }
        None
    }

    fn name(&self) -> String {
        let (begin, manner, nth) = (self.begin.name(), self.manner.name, self.nth);
        format!("{begin}, {manner} at operation {nth}")
    }

    fn wrong(&self, scene: &Scene, cut: &Cut, what: &str) -> String {
        let (begin, manner, nth) = (self.begin.name(), self.manner.name, self.nth);
        let kept = kept_dir(&format!("io-{begin}-{manner}-{nth}-{}", self.seed));
        scene.keep(&kept, cut).unwrap();
        format!(
            "{}: {what}\n    {cut:?}\n    RISITI_REPLAY={} cargo test -p risiti-tests --test io_errors replay -- --nocapture",
            self.name(),
            kept.display()
        )
    }
}

fn kept_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn last(recording: &Recording) -> Cut {
    Cut {
        at: recording.ops().len(),
        unsynced: Unsynced::Kept,
        names: Names::Strict,
        seed: 0,
    }
}

/// At the end, anywhere, and soon after a failed sync: what it took with it has
/// not been written again yet.
fn cuts(recording: &Recording, seed: u64) -> Vec<Cut> {
    let mut random = fastrand::Rng::with_seed(seed);
    let end = recording.ops().len();
    let begin = recording.base();
    let failed = |n: &usize| matches!(recording.ops()[*n], Op::SyncFail(..));
    let mut at: Vec<usize> = (begin..end)
        .filter(failed)
        .map(|failure| (failure + random.usize(1..40)).min(end))
        .collect();
    random.shuffle(&mut at);
    at.truncate(CUTS - 1);
    at.push(end);
    while at.len() < CUTS {
        at.push(random.usize(begin..=end));
    }
    at.into_iter()
        .map(|at| Cut {
            at,
            unsynced: [Unsynced::Dropped, Unsynced::Torn][random.usize(..2)],
            names: [Names::Strict, Names::Journaled][random.usize(..2)],
            seed: random.u64(..),
        })
        .collect()
}

fn judge() -> Judge {
    Judge::new(DRIVER, &["check", "disk-failed"], VERDICT_TIMEOUT)
}

#[derive(Default)]
struct Counts {
    runs: AtomicU64,
    injected: AtomicU64,
    images: AtomicU64,
}

/// Fails each operation of the run from `begin` in turn.
fn each(begin: &Begin, manners: &[Manner], seed: u64, counts: &Counts) -> Vec<String> {
    let every = number("RISITI_EVERY", 1);
    let mut cases = Vec::new();
    for manner in manners {
        let case = |nth| Case {
            begin,
            manner: *manner,
            nth,
            seed,
        };
        // Threads take turns as they like: no two runs are the same length.
        let operations = case(1).operations().max(case(2).operations());
        let every = every * manner.every;
        cases.extend((1..=operations).step_by(every as usize).map(case));
    }
    // Most of the time a run waits to try again.
    let workers = std::thread::available_parallelism().map_or(8, |cores| 6 * cores.get());
    let before = counts.runs.load(Ordering::Relaxed);
    let wrong = convictions(
        workers,
        &cases,
        |_| judge(),
        |judge, case| case.judge(judge, counts),
    );
    let failed = counts.runs.load(Ordering::Relaxed) - before;
    println!(
        "{}: {} runs, {failed} of them with an error",
        begin.name(),
        cases.len()
    );
    assert!(
        failed * 10 > cases.len() as u64 * 8,
        "only {failed} of {} runs met an error",
        cases.len()
    );
    wrong
}

/// Every one of these errors in every life; tells what it came to.
fn proof(what: &str, guarantees: &str, manners: &[Manner]) {
    let (seed, begun) = (seed(), Instant::now());
    let (counts, mut wrong) = (Counts::default(), Vec::new());
    for round in 0..number("RISITI_IO_ROUNDS", 1) {
        let seed = seed.wrapping_add(round);
        wrong.extend(each(&Begin::Blank, manners, seed, &counts));
        wrong.extend(each(&Begin::after(seed), manners, seed, &counts));
    }
    println!(
        r#"PROOF {{"what":"{what}","guarantees":"{guarantees}","runs":{},"failures":{},"seed":{seed},"seconds":{},"extra":{{"errors":{},"images":{}}}}}"#,
        counts.runs.into_inner(),
        wrong.len(),
        begun.elapsed().as_secs(),
        counts.injected.into_inner(),
        counts.images.into_inner(),
    );
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_error_at_every_nth_operation_loses_nothing_and_stops_nothing() {
    proof("io-errors", "G1 G2 G8", MANNERS);
}

#[test]
fn what_could_not_be_read_is_not_taken_for_nothing() {
    proof("read-errors", "G1 G2 G8 G11", LOOKS);
}

/// A sync of names that fails leaves them as if made and not on disk: whoever goes on
/// from them, in the same life or the next, must not lose them to a cut. Each sync of
/// the run fails in turn, and the power goes at each of the operations behind it: an
/// error anywhere, above, meets the few operations that matter too seldom.
#[test]
fn names_whose_sync_failed_are_not_relied_on() {
    let (seed, begun) = (seed(), Instant::now());
    let (counts, mut wrong) = (Counts::default(), Vec::new());
    let manner = Manner {
        name: "eio-on-a-sync",
        operations: Operations::SYNC,
        ..MANNERS[0]
    };
    let rounds = number("RISITI_IO_ROUNDS", 1);
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        for begin in [Begin::after(seed), Begin::damaged(seed)] {
            let case = |nth| Case {
                begin: &begin,
                manner,
                nth,
                seed,
            };
            let cases: Vec<_> = (1..=case(1).operations()).map(case).collect();
            wrong.extend(convictions(
                std::thread::available_parallelism().map_or(4, |cores| 2 * cores.get()),
                &cases,
                |_| judge(),
                |judge, case| case.judge_names(judge, &counts),
            ));
        }
    }
    let images = counts.images.into_inner();
    println!(
        r#"PROOF {{"what":"name-errors","guarantees":"G1 G8 G11","runs":{images},"failures":{},"seed":{seed},"seconds":{},"extra":{{"rounds":{rounds}}}}}"#,
        wrong.len(),
        begun.elapsed().as_secs(),
    );
    assert!(images > 1_000 * rounds, "only {images} images");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A store that takes what it can't read for nothing: a name for missing, a file for
/// ended, a list for short.
#[test]
fn control_a_store_that_takes_a_failed_look_for_nothing_is_convicted() {
    let blind = Manner {
        name: "nothing-for-a-look",
        errno: Errno::Nothing,
        every: 3,
        ..LOOKS[0]
    };
    // Not every life has a look on which something hangs.
    let seed = seed();
    let convicted = (0..20).map(|life| seed.wrapping_add(life)).any(|seed| {
        let wrong = each(&Begin::after(seed), &[blind], seed, &Counts::default());
        let lost = wrong.iter().filter(|what| what.contains("LOST")).count();
        println!("{} convicted, {lost} of them of a loss", wrong.len());
        !wrong.is_empty()
    });
    assert!(convicted);
}

/// Judges one image again; `RISITI_REPLAY` is the directory that was printed.
#[test]
fn replay() {
    let Some(dir) = std::env::var_os("RISITI_REPLAY") else {
        return;
    };
    let (scene, cut) = Scene::kept(Path::new(&dir)).unwrap();
    let verdict = scene
        .ask(&mut judge(), &cut, &scene.recording.witnessed(cut.at))
        .unwrap();
    println!("{cut:?}: {verdict:?}");
    assert!(verdict.is_kept(), "{verdict:?}");
}
