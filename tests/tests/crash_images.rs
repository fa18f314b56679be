//! G1, G2, G8, G11 under power cuts, by the ten thousand: the real store, reopened
//! on images of what a cut could have left of its files (crash model:
//! `src/crash/image.rs`).
//!
//! Many short lives of different shapes are recorded, each with its own kinds of
//! files and steps, and cut everywhere. On each image every acknowledged record
//! must be there, once, in order, at its position; resends must be recognised;
//! committed state must be there, whole; the store must open without an alarm
//! and go on. `RISITI_IMAGES` is how many, `RISITI_SEED` where they begin.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_tests::asked::{number, seed};
use risiti_tests::crash::{
    Cut, End, Ended, Errno, Fault, Judge, Names, Operations, Scene, Shape, Stage, Unsynced,
    Verdict, scratch, tree,
};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DRIVER: &str = env!("CARGO_BIN_EXE_store_driver");
/// An image takes some 10 ms; this is for a machine that is busy.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(60);
/// Cuts of each recording: it has about as many places worth a cut.
const CUTS: usize = 160;

const ONE: &[End] = &[End::Closed];

const SHAPES: &[Shape] = &[
    Shape {
        name: "blank",
        words: "records=2 changes=3 ballast_bytes=8192",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "journal",
        words: "records=60 changes=0 payloads=small window=8 generation_bytes=2048 segment_bytes=16384 ballast_bytes=0",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "release",
        words: "records=80 changes=0 payloads=small window=4 release=at-once generation_bytes=512 segment_bytes=16384 ballast_bytes=0",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "large-records",
        words: "records=12 changes=0 payloads=large window=4 generation_bytes=65536 ballast_bytes=0",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "state",
        words: "records=0 changes=45 values=small keys=ordinary segment_bytes=16384 ballast_bytes=0",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "large-values",
        words: "records=0 changes=15 values=large ballast_bytes=0",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "rows",
        words: "records=0 changes=60 values=small keys=numbered row_file_bytes=1024 segment_bytes=16384 ballast_bytes=0",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "all",
        words: "records=50 changes=24 generation_bytes=8192 row_file_bytes=4096 ballast_bytes=4096",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "encrypted",
        words: "key=yes records=50 changes=24 generation_bytes=8192 row_file_bytes=4096 ballast_bytes=4096",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "encrypted-killed",
        words: "key=yes records=25 changes=12 payloads=small values=small release=no generation_bytes=1024 row_file_bytes=1024 segment_bytes=16384 ballast_bytes=0",
        sync_ms: 0,
        lives: &[End::Killed, End::Killed, End::Closed],
    },
    Shape {
        name: "slow-disk",
        words: "records=60 changes=24 payloads=small generation_bytes=2048 row_file_bytes=2048 ballast_bytes=0",
        sync_ms: 2,
        lives: ONE,
    },
    // Two removals of generations at once would come in any order here.
    Shape {
        name: "slow-release",
        words: "records=80 changes=0 payloads=small window=4 release=at-once generation_bytes=512 segment_bytes=16384 ballast_bytes=0",
        sync_ms: 2,
        lives: ONE,
    },
    Shape {
        name: "killed",
        words: "records=25 changes=12 payloads=small values=small release=no generation_bytes=1024 row_file_bytes=1024 segment_bytes=16384 ballast_bytes=0",
        sync_ms: 0,
        lives: &[End::Killed, End::Killed, End::Closed],
    },
    Shape {
        name: "closed-and-opened",
        words: "records=16 changes=9 payloads=small values=small generation_bytes=1024 row_file_bytes=1024 segment_bytes=16384 ballast_bytes=0",
        sync_ms: 0,
        lives: &[End::Closed, End::Closed, End::Closed],
    },
    // The state's database is written anew every few commits.
    Shape {
        name: "compacted",
        words: "records=0 changes=45 values=small segment_bytes=16384 compact_bytes=0 ballast_bytes=0",
        sync_ms: 0,
        lives: ONE,
    },
    Shape {
        name: "compacted-killed",
        words: "records=9 changes=12 payloads=small values=small release=no generation_bytes=1024 row_file_bytes=1024 segment_bytes=16384 compact_bytes=0 ballast_bytes=0",
        sync_ms: 0,
        lives: &[End::Killed, End::Killed, End::Closed],
    },
];

fn judge() -> Judge {
    Judge::new(DRIVER, &["check"], VERDICT_TIMEOUT)
}

/// A judge waits for its threads half of the time.
fn judges() -> usize {
    std::thread::available_parallelism().map_or(4, |cores| 2 * cores.get())
}

struct Lost {
    shape: &'static str,
    cut: Cut,
    verdict: Verdict,
    replay: PathBuf,
}

/// Images of many scenes.
#[derive(Default)]
struct Campaign {
    images: AtomicUsize,
    scenes: AtomicUsize,
    operations: AtomicUsize,
    by_shape: Mutex<BTreeMap<&'static str, usize>>,
    lost: Mutex<Vec<Lost>>,
}

impl Campaign {
    /// Records scene after scene until `images` were judged, or many are lost.
    fn run(&self, images: usize, seed: u64) {
        std::thread::scope(|scope| {
            for _ in 0..judges() {
                scope.spawn(|| {
                    let mut judge = judge();
                    while self.images.load(Ordering::Relaxed) < images
                        && self.lost.lock().unwrap().len() < 20
                    {
                        self.scene(&mut judge, seed);
                    }
                });
            }
        });
    }

    fn scene(&self, judge: &mut Judge, seed: u64) {
        let number = self.scenes.fetch_add(1, Ordering::Relaxed);
        let shape = &SHAPES[number % SHAPES.len()];
        let scene_seed = seed
            .wrapping_add(number as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let scene = Scene::record(Path::new(DRIVER), shape, scene_seed).unwrap();
        assert_eq!(
            scene.recording.made_in("blobs"),
            0,
            "{}: sled made a file that nothing keeps",
            shape.name
        );
        let (broken, images) = scene.judge(judge, CUTS, scene_seed).unwrap();
        self.images.fetch_add(images, Ordering::Relaxed);
        self.operations
            .fetch_add(scene.recording.ops().len(), Ordering::Relaxed);
        *self.by_shape.lock().unwrap().entry(shape.name).or_default() += images;
        for (n, (cut, verdict)) in broken.into_iter().enumerate() {
            let replay = Path::new(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("crash-{}-{seed}-{number}-{n}", shape.name));
            scene.keep(&replay, &cut).unwrap();
            self.lost.lock().unwrap().push(Lost {
                shape: shape.name,
                cut,
                verdict,
                replay,
            });
        }
    }

    fn report(&self) -> String {
        let lost = self.lost.lock().unwrap();
        let mut text = format!("{} images broken\n", lost.len());
        for lost in lost.iter() {
            text += &format!(
                "  {} {:?}: {:?}\n    RISITI_REPLAY={} cargo test -p risiti-tests --test crash_images replay -- --nocapture\n",
                lost.shape,
                lost.cut,
                lost.verdict,
                lost.replay.display()
            );
        }
        text
    }
}

#[test]
fn nothing_promised_is_lost_by_any_power_cut() {
    let (seed, began) = (seed(), Instant::now());
    let campaign = Campaign::default();
    campaign.run(number("RISITI_IMAGES", 20_000) as usize, seed);
    let lost = campaign.lost.lock().unwrap().len();
    println!(
        r#"PROOF {{"what":"crash-images","guarantees":"G1 G2 G8 G11","runs":{},"failures":{lost},"seed":{seed},"seconds":{},"extra":{{"recordings":{},"operations":{}}}}}"#,
        campaign.images.load(Ordering::Relaxed),
        began.elapsed().as_secs(),
        campaign.scenes.load(Ordering::Relaxed),
        campaign.operations.load(Ordering::Relaxed),
    );
    println!("{:?}", campaign.by_shape.lock().unwrap());
    assert!(lost == 0, "{}", campaign.report());
}

/// A life as long as a gateway's day, on a disk so slow that much is under way.
const LONG: Shape = Shape {
    name: "long",
    words: "",
    sync_ms: 3,
    lives: ONE,
};

/// Generations of full size are sealed, released and deleted while eight clients
/// append and the state changes.
#[test]
fn nothing_promised_is_lost_in_a_long_life_either() {
    let (seed, mut judge) = (seed(), judge());
    let scene = Scene::record(Path::new(DRIVER), &LONG, seed).unwrap();
    let (broken, images) = scene.judge(&mut judge, 60, seed).unwrap();
    println!("{images} images, {} broken", broken.len());
    for (n, (cut, verdict)) in broken.iter().enumerate() {
        let replay = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-long-{seed}-{n}"));
        scene.keep(&replay, cut).unwrap();
        println!(
            "{cut:?}: {verdict:?}\n    RISITI_REPLAY={}",
            replay.display()
        );
    }
    assert!(broken.is_empty());
}

#[test]
fn the_recording_misses_nothing_that_the_store_does() {
    let seed = seed();
    let stage = Stage::blank("records=600 changes=120").unwrap();
    let more = format!("seed={seed}");
    let ended = stage.live(Path::new(DRIVER), false, &more, VERDICT_TIMEOUT);
    assert_eq!(ended.unwrap(), Ended::Well);
    let root = stage.shim().root().to_owned();
    let scene = stage.end().unwrap();
    let image = tempfile::tempdir_in(scratch()).unwrap();
    let cut = Cut {
        at: scene.recording.ops().len(),
        unsynced: Unsynced::Kept,
        names: Names::Strict,
        seed,
    };
    cut.build(&scene.recording, image.path()).unwrap();
    let (real, built) = (
        tree(&root.join("store")).unwrap(),
        tree(&image.path().join("store")).unwrap(),
    );
    assert!(real.keys().eq(built.keys()), "names differ");
    for (path, bytes) in &real {
        let path_told = path.display();
        assert!(
            built[path] == *bytes,
            "{path_told} differs: raw system calls?"
        );
    }
}

/// What `words` and a shim so `ordered` lose in some images of three recordings.
fn convictions_of(words: &str, images: usize, order: impl Fn(&Stage)) -> BTreeMap<String, usize> {
    let (seed, mut judge, mut kinds) = (seed(), judge(), BTreeMap::new());
    for n in 0..3 {
        let stage = Stage::blank(words).unwrap();
        order(&stage);
        let more = format!("seed={}", seed ^ n);
        let ended = stage.live(Path::new(DRIVER), false, &more, VERDICT_TIMEOUT);
        assert_eq!(ended.unwrap(), Ended::Well);
        let scene = stage.end().unwrap();
        let (broken, _) = scene.judge(&mut judge, images / 3, seed ^ n).unwrap();
        for (_, verdict) in broken {
            *kinds.entry(verdict.kind().to_owned()).or_default() += 1;
        }
    }
    println!("convicted: {kinds:?}");
    kinds
}

const CONTROL: &str = "records=40 changes=18 payloads=small values=small release=no generation_bytes=1024 row_file_bytes=1024 ballast_bytes=0";

/// sled's own flush, as published, is not enough.
#[test]
fn control_without_our_own_sync_promises_are_broken() {
    let words = format!("{CONTROL} sync=flush-only");
    assert!(convictions_of(&words, 120, |_| {})["LOST"] > 0);
}

#[test]
fn control_without_syncs_of_directories_promises_are_broken() {
    let kinds = convictions_of(CONTROL, 120, |stage| {
        stage.shim().forget_syncs_of_directories();
    });
    assert!(kinds["LOST"] > 0);
}

/// A store that takes failed syncs for successes, wherever in its life they come.
#[test]
fn control_a_store_that_does_not_hear_of_failed_syncs_is_convicted() {
    let lost: usize = (20..80)
        .step_by(6)
        .map(|first| {
            let kinds = convictions_of(CONTROL, 90, |stage| {
                stage.shim().say_that_failed_syncs_succeed();
                stage.shim().fault(Fault {
                    operations: Operations::SYNC,
                    first,
                    count: 6,
                    errno: Errno::Eio,
                    torn: false,
                });
            });
            kinds.get("LOST").copied().unwrap_or_default()
        })
        .sum();
    assert!(lost > 0);
}

/// A store that does not look at the checks of its packs: on the image each pack is
/// given the check that fits what a cut has left of it.
#[test]
fn control_a_journal_that_ignores_its_checks_is_convicted() {
    // Packs of many sectors, of which a cut leaves some.
    let words = "records=60 changes=0 payloads=large window=16 release=no generation_bytes=65536 ballast_bytes=0";
    let (seed, mut judge) = (seed(), judge());
    let (mut forged, mut kinds) = (0, BTreeMap::<String, usize>::new());
    for n in 0..60 {
        let stage = Stage::blank(words).unwrap();
        let more = format!("seed={}", seed ^ n);
        let ended = stage.live(Path::new(DRIVER), false, &more, VERDICT_TIMEOUT);
        assert_eq!(ended.unwrap(), Ended::Well);
        let scene = stage.end().unwrap();
        let cuts = Cut::through(&scene.recording, 200, seed ^ n);
        for cut in cuts.iter().filter(|cut| cut.unsynced == Unsynced::Torn) {
            let told = scene.recording.witnessed(cut.at);
            let forge = |store: &Path| {
                forged += fit_checks(store)?;
                Ok(())
            };
            let verdict = scene.ask_forged(&mut judge, cut, &told, forge).unwrap();
            if !verdict.is_kept() {
                *kinds.entry(verdict.kind().to_owned()).or_default() += 1;
            }
        }
        if !kinds.is_empty() {
            break;
        }
    }
    println!("{forged} checks made to fit, convicted: {kinds:?}");
    assert!(!kinds.is_empty());
}

/// Gives every pack of the journal (layout: `bridge/store/src/journal/pack.rs`) the
/// check of the bytes that are there; how many had another one.
fn fit_checks(store: &Path) -> io::Result<usize> {
    const HEADER: usize = 62;
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap_or_default());
    let mut changed = 0;
    for entry in fs::read_dir(store.join("journal")).into_iter().flatten() {
        let path = entry?.path().join("db");
        let Ok(mut file) = fs::read(&path) else {
            continue;
        };
        let mut at = 0;
        while at + HEADER <= file.len() {
            let end = at + HEADER + number(&file[at + 54..at + 58]) as usize;
            if &file[at..at + 4] != b"RsJ1" || end > file.len() {
                at += 1;
                continue;
            }
            let head = crc32c::crc32c(&file[at..at + 58]);
            let check = crc32c::crc32c_append(head, &file[at + HEADER..end]);
            changed += usize::from(number(&file[at + 58..at + HEADER]) != check);
            file[at + 58..at + HEADER].copy_from_slice(&check.to_be_bytes());
            at = end;
        }
        fs::write(&path, file)?;
    }
    Ok(changed)
}

/// What the bounds on values are for: with segments so small that sled puts its
/// nodes into files of their own, no sync of ours makes a cut harmless.
#[test]
fn control_nodes_in_files_of_their_own_do_not_survive_a_cut() {
    let words =
        "records=0 changes=36 values=large keys=ordinary segment_bytes=16384 ballast_bytes=0";
    let kinds = (0..8).map(|_| convictions_of(words, 300, |_| {}));
    assert!(kinds.into_iter().any(|kinds| !kinds.is_empty()));
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
