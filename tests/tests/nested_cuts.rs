//! G1, G2, G8, G11 when one power cut follows another: in the middle of the
//! recovery from the first, and in the recovery from that, up to four deep.
//!
//! On what a cut left of a short life the store is opened again, and recorded
//! again: it only recovers, or goes on with new promises; it may be killed in
//! that, and the disk may fail in it (EIO, ENOSPC, short writes). Then the power
//! goes once more, and images of each level are judged. `RISITI_NESTED_IMAGES`
//! is how many.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_store::{Journal, RecordSource, State, StoreOptions};
use risiti_tests::asked::{number, seed};
use risiti_tests::crash::{
    Cut, End, Ended, Errno, Fault, Judge, Names, Operations, Scene, Shape, Stage, Unsynced, scratch,
};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DRIVER: &str = env!("CARGO_BIN_EXE_store_driver");
const TIMEOUT: Duration = Duration::from_secs(60);
/// How many cuts follow each other.
const LEVELS: usize = 4;
/// Images of each level.
const CUTS: usize = 8;

const SHAPES: &[Shape] = &[
    Shape {
        name: "journal",
        words: "records=40 changes=0 payloads=small window=8 generation_bytes=1024 ballast_bytes=0",
        sync_ms: 0,
        lives: &[End::Closed],
    },
    Shape {
        name: "state",
        words: "records=0 changes=36 values=small segment_bytes=16384 row_file_bytes=1024 ballast_bytes=0",
        sync_ms: 0,
        lives: &[End::Closed],
    },
    Shape {
        name: "all",
        words: "records=30 changes=18 payloads=small values=small generation_bytes=1024 row_file_bytes=1024 segment_bytes=16384 ballast_bytes=4096",
        sync_ms: 1,
        lives: &[End::Killed],
    },
    Shape {
        name: "mixed",
        words: "records=30 changes=18 generation_bytes=16384 row_file_bytes=4096 ballast_bytes=4096",
        sync_ms: 0,
        lives: &[End::Closed],
    },
];

/// One level down: what happens between two cuts. `None`: nobody can go on from there.
fn descend(
    scene: &Scene,
    random: &mut fastrand::Rng,
    weak: &str,
    failed: &mut bool,
) -> Option<Scene> {
    let cut = Cut::through(&scene.recording, 1, random.u64(..))[0];
    let told = scene.recording.witnessed(cut.at);
    let stage = Stage::after(scene, &cut, &told).unwrap();
    if weak.is_empty() && random.u8(..3) == 0 {
        *failed = true;
        stage.shim().fault(Fault {
            operations: Operations::ANY,
            first: random.u64(1..150),
            count: [1, 1, 2, 6][random.usize(..4)],
            errno: [Errno::Eio, Errno::Enospc, Errno::Short][random.usize(..3)],
            torn: random.bool(),
        });
    }
    let recovers = random.bool();
    let more = format!(
        "records=6 changes=6 tries=50 seed={} {weak}",
        random.u64(..)
    );
    if random.u8(..3) == 0 {
        stage.kill_somewhere(random, 120);
        let ended = stage.live(Path::new(DRIVER), recovers, &more, TIMEOUT);
        assert!(matches!(ended.unwrap(), Ended::Killed | Ended::Well));
        stage.shim().spare();
    }
    let ended = stage.live(Path::new(DRIVER), recovers, &more, TIMEOUT);
    let ended = ended.unwrap();
    let scene = match stage.end() {
        Ok(scene) => scene,
        // A link into quarantine can't be recorded: it lost something, and has seen it.
        Err(error) => {
            let may = *failed || !weak.is_empty();
            assert!(may && error.to_string().contains("hard link"), "{error}");
            return None;
        }
    };
    assert_eq!(ended, Ended::Well, "{}", kept(&scene, "ended", &cut));
    Some(scene)
}

fn kept(scene: &Scene, name: &str, cut: &Cut) -> String {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nested-{name}-{}", cut.seed));
    scene.keep(&dir, cut).unwrap();
    format!(
        "RISITI_REPLAY={} cargo test -p risiti-tests --test nested_cuts replay -- --nocapture",
        dir.display()
    )
}

#[derive(Default)]
struct Campaign {
    chains: AtomicUsize,
    images: AtomicUsize,
    deepest: AtomicUsize,
    failing: AtomicUsize,
    broken: Mutex<Vec<String>>,
}

impl Campaign {
    fn run(&self, images: usize, seed: u64, weak: &str) {
        let workers = std::thread::available_parallelism().map_or(4, |cores| 2 * cores.get());
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let mut judges = [
                        Judge::new(DRIVER, &["check"], TIMEOUT),
                        Judge::new(DRIVER, &["check", "disk-failed"], TIMEOUT),
                    ];
                    while self.images.load(Ordering::Relaxed) < images
                        && self.broken.lock().unwrap().len() < 12
                    {
                        self.chain(&mut judges, seed, weak);
                    }
                });
            }
        });
    }

    fn chain(&self, judges: &mut [Judge; 2], seed: u64, weak: &str) {
        let number = self.chains.fetch_add(1, Ordering::Relaxed);
        let shape = &SHAPES[number % SHAPES.len()];
        let chain_seed = (seed.wrapping_add(number as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = fastrand::Rng::with_seed(chain_seed);
        let mut failed = false;
        let mut scene = Scene::record(Path::new(DRIVER), shape, chain_seed).unwrap();
        for level in 2..=LEVELS {
            let Some(next) = descend(&scene, &mut random, weak, &mut failed) else {
                break;
            };
            scene = next;
            let judge = &mut judges[usize::from(failed)];
            let (broken, images) = scene.judge(judge, CUTS, random.u64(..)).unwrap();
            self.images.fetch_add(images, Ordering::Relaxed);
            self.deepest.fetch_max(level, Ordering::Relaxed);
            for (cut, verdict) in broken {
                let replay = kept(&scene, shape.name, &cut);
                let mut all = self.broken.lock().unwrap();
                all.push(format!(
                    "{} at cut {level}: {verdict:?}\n    {cut:?}\n    {replay}",
                    shape.name
                ));
            }
        }
        self.failing
            .fetch_add(usize::from(failed), Ordering::Relaxed);
    }
}

#[test]
fn cuts_in_recoveries_from_cuts_lose_nothing() {
    let (seed, begun) = (seed(), Instant::now());
    let images = number("RISITI_NESTED_IMAGES", 1_500) as usize;
    let campaign = Campaign::default();
    campaign.run(images, seed, "");
    let broken = campaign.broken.into_inner().unwrap();
    println!(
        r#"PROOF {{"what":"nested-cuts","guarantees":"G1 G2 G8 G11","runs":{},"failures":{},"seed":{seed},"seconds":{},"extra":{{"chains":{},"cuts_in_a_row":{},"chains_on_failing_disks":{}}}}}"#,
        campaign.images.into_inner(),
        broken.len(),
        begun.elapsed().as_secs(),
        campaign.chains.into_inner(),
        campaign.deepest.into_inner(),
        campaign.failing.into_inner(),
    );
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Where the newest pack is damaged only the mark knows that its positions were used.
/// A recovery that has read the pack whole has shown its end to Kafka; then the power
/// goes, and the disk loses the pack.
#[test]
fn the_mark_of_a_recovery_outlives_the_next_cut() {
    let seed = seed();
    let lost_all_unsynced = |scene: &Scene| Cut {
        at: scene.recording.ops().len(),
        unsynced: Unsynced::Dropped,
        names: Names::Strict,
        seed,
    };
    let words = "records=30 changes=0 payloads=small release=no ballast_bytes=0 abandon=yes";
    let stage = Stage::blank(words).unwrap();
    let more = format!("seed={seed}");
    let ended = stage.live(Path::new(DRIVER), false, &more, TIMEOUT);
    assert_eq!(ended.unwrap(), Ended::Well);
    let scene = stage.end().unwrap();
    let cut = lost_all_unsynced(&scene);
    let told = scene.recording.witnessed(cut.at);
    let positions = String::from_utf8_lossy(&told)
        .lines()
        .filter_map(|line| line.strip_prefix("a ")?.rsplit(' ').next()?.parse().ok())
        .max();
    let end = positions.map_or(0, |last: u64| last + 1);
    assert!(end > 20, "{end}");

    let stage = Stage::after(&scene, &cut, &told).unwrap();
    let ended = stage.live(Path::new(DRIVER), true, &more, TIMEOUT);
    assert_eq!(ended.unwrap(), Ended::Well);
    let recovered = stage.end().unwrap();
    assert_eq!(
        end_without_newest_pack(&recovered, &lost_all_unsynced(&recovered)),
        end
    );
    // The control: what the recovery found and did not sync is not known any more.
    assert!(end_without_newest_pack(&scene, &cut) < end);
}

/// Where the journal of an image ends whose newest pack is damaged.
fn end_without_newest_pack(scene: &Scene, cut: &Cut) -> u64 {
    let home = tempfile::tempdir_in(scratch()).unwrap();
    cut.build(&scene.recording, home.path()).unwrap();
    let store = home.path().join("store");
    let generations = fs::read_dir(store.join("journal")).unwrap();
    let newest = generations
        .map(|entry| entry.unwrap().path().join("db"))
        .filter(|path| path.is_file())
        .max()
        .unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let found = bytes.windows(4).rposition(|four| four == b"RsJ1");
    // In its check.
    bytes[found.unwrap() + 60] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let mut options = StoreOptions::new(&store);
    options.free_bytes_min = 0;
    options.receipts_reserve_bytes = 0;
    let (state, _) = State::open(&options).unwrap();
    let (journal, _) = Journal::open(&options, state).unwrap();
    journal.end()
}

/// A store that goes on after a cut without our own sync.
#[test]
fn control_a_recovery_without_our_own_sync_is_convicted() {
    let campaign = Campaign::default();
    campaign.run(400, seed(), "sync=flush-only");
    let broken = campaign.broken.into_inner().unwrap();
    println!("{} convicted", broken.len());
    assert!(broken.iter().any(|b| b.contains("LOST")), "{broken:?}");
}

/// Judges one image again; `RISITI_REPLAY` is the directory that was printed.
#[test]
fn replay() {
    let Some(dir) = std::env::var_os("RISITI_REPLAY") else {
        return;
    };
    let (scene, cut) = Scene::kept(Path::new(&dir)).unwrap();
    let mut judge = Judge::new(DRIVER, &["check", "disk-failed"], TIMEOUT);
    let told = scene.recording.witnessed(cut.at);
    let verdict = scene.ask(&mut judge, &cut, &told).unwrap();
    println!("{cut:?}: {verdict:?}");
    assert!(verdict.is_kept(), "{verdict:?}");
}
