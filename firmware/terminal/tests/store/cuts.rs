//! Power cuts: at every byte of one run, and at random in a great many.
//!
//! `RISITI_SEED=n cargo test -p risiti-terminal --test store cuts::replay` replays
//! one run of the many. `RISITI_RUNS` sets how many there are: other ones each time,
//! unless `RISITI_FROM` names the first.

use std::env;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use risiti_sim::nor::{Nor, Tear};
use risiti_terminal::store::rules::{Rules, Sound};

use crate::world::{Habits, Step, Stop, World};

/// Small pages make the rings come round soon: 13 records, 3 receipts, 13 notes.
const PAGE: usize = 1024;
/// 6 records, one receipt, 6 notes.
const PAGE_SMALL: usize = 512;

/// Random runs unless `RISITI_RUNS` says otherwise.
const RUNS: u64 = 200_000;

/// Runs of notes alone.
const NOTING_RUNS: u64 = 20_000;

/// Threads that share them.
const THREADS: u64 = 2;

/// Edges that each cut of the script is given: a clean one, and ragged ones.
const EDGES: u64 = 3;

/// Edges that each erase of the script is given, besides.
const ERASE_EDGES: u64 = 50;

/// Faults that are told before it gives up.
const FAULTS_MAX: usize = 5;

/// What was done in a test.
#[derive(Default)]
pub struct Tally {
    pub runs: u64,
    pub starts: u64,
    pub saved: u64,
}

/// One day at a terminal: everything that can happen, in an order that makes
/// every ring come round.
fn script() -> Vec<Step> {
    let mut steps = Vec::new();
    for turn in 0..6_u8 {
        steps.extend([Step::Save; 5]);
        steps.extend([Step::Send(3), Step::Take(0), Step::Print, Step::Save]);
        steps.extend([Step::SendAll, Step::Take(2), Step::TakeUnheard(1)]);
        steps.extend([Step::Repeat(turn), Step::Print, Step::Count]);
        steps.extend([Step::Take(1), Step::Take(1), Step::PrintHalf, Step::Print]);
        steps.extend([Step::Print, Step::Save, Step::Subscribe, Step::Take(3)]);
        steps.extend([Step::Restart, Step::Count, Step::Save, Step::Take(0)]);
        steps.extend([Step::PrintWhole, Step::Print, Step::SendAll]);
        if turn % 2 == 1 {
            for _ in 0..9 {
                steps.extend([Step::Take(0), Step::Print]);
            }
        }
    }
    steps
}

/// Where the script is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// After so many steps of the flash.
    AtStep(u64),
    /// In an erase, after so many others.
    InErase(u32),
}

impl Cut {
    /// Arms the flash for it.
    fn arm<const SIZE: usize>(self, chip: &Nor<SIZE>, tear: Tear, seed: u64) {
        match self {
            Self::AtStep(at) => chip.cut_after(at - chip.steps(), tear, seed),
            Self::InErase(erase) => chip.cut_in_erase(erase - erased(chip), tear, seed),
        }
    }

    /// Whether it is still to come; the flash stops exactly at a step.
    fn is_ahead<const SIZE: usize>(self, chip: &Nor<SIZE>) -> bool {
        match self {
            Self::AtStep(at) => chip.steps() < at,
            Self::InErase(erase) => erased(chip) <= erase,
        }
    }
}

fn erased<const SIZE: usize>(chip: &Nor<SIZE>) -> u32 {
    chip.wear().iter().sum()
}

/// The script with one cut; whether it came.
fn cut_once<R: Rules>(
    cut: Cut,
    tear: Tear,
    seed: u64,
    habits: Habits,
    tally: &mut Tally,
) -> Result<bool, String> {
    let chip = Nor::<PAGE>::new(6 * PAGE);
    let mut world = World::<PAGE, R>::new(chip, habits);
    cut.arm(&world.chip, tear, seed);
    let done = world.run(script(), |chip| {
        // This was one of the script's own restarts.
        if cut.is_ahead(chip) {
            cut.arm(chip, tear, seed);
        }
    });
    let came = !cut.is_ahead(&world.chip);
    let done = done.and_then(|()| world.settle().map(|()| came));
    tally.runs += 1;
    tally.starts += u64::from(world.restarts);
    tally.saved += u64::from(world.saved());
    done.map_err(|stop| format!("cut {cut:?}, {tear:?}, seed {seed}: {stop:?}"))
}

/// Does this with 0, 1, 2 and so on, on all threads, until it says that there is
/// no more or has found a few faults; what broke.
fn on_all_threads<D>(faults_max: usize, done: D) -> (Tally, String)
where
    D: Fn(u64, &mut Tally) -> Result<bool, String> + Sync,
{
    let next = AtomicU64::new(0);
    let found = AtomicUsize::new(0);
    let mut sum = Tally::default();
    let mut faults = String::new();
    thread::scope(|scope| {
        let workers = (0..THREADS).map(|_| {
            scope.spawn(|| {
                let mut tally = Tally::default();
                let mut broken = Vec::new();
                while found.load(Ordering::Relaxed) < faults_max {
                    match done(next.fetch_add(1, Ordering::Relaxed), &mut tally) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(what) => {
                            broken.push(what);
                            found.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                (tally, broken)
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            let (tally, broken) = worker.join().expect("no run panics");
            sum.runs += tally.runs;
            sum.starts += tally.starts;
            sum.saved += tally.saved;
            for what in broken {
                let _ = writeln!(faults, "{what}");
            }
        }
    });
    (sum, faults)
}

/// Cuts the script at every byte, with a clean and with ragged edges.
pub fn cut_everywhere<R: Rules>(faults_max: usize, habits: Habits) -> (Tally, String) {
    on_all_threads(faults_max, |cut, tally| {
        let after = cut / EDGES;
        let seed = cut % EDGES;
        let tear = match seed {
            0 => Tear::Clean,
            _ => Tear::Ragged,
        };
        cut_once::<R>(Cut::AtStep(after), tear, seed | after << 8, habits, tally)
    })
}

/// Cuts the script in every erase, with a great many edges.
pub fn cut_erases<R: Rules>(faults_max: usize, habits: Habits) -> (Tally, String) {
    on_all_threads(faults_max, |cut, tally| {
        let erase = Cut::InErase((cut / ERASE_EDGES) as u32);
        cut_once::<R>(erase, Tear::Ragged, cut, habits, tally)
    })
}

#[test]
fn the_script_makes_every_ring_come_round() {
    let mut world = World::<PAGE, Sound>::new(Nor::new(6 * PAGE), Habits::default());
    assert_eq!(world.run(script(), |_| {}), Ok(()));
    let wear = world.chip.wear();
    assert!(wear.iter().all(|&erased| erased > 1), "{wear:?}");
}

#[test]
fn nothing_is_lost_by_a_cut_at_any_byte() {
    let (cuts, broken) = cut_everywhere::<Sound>(FAULTS_MAX, Habits::default());
    assert!(broken.is_empty(), "\n{broken}");
    println!(
        "store: cut at every byte of a script: {} cuts, {} starts, {} records saved; \
         0 lost, 0 numbers reused, 0 receipts printed twice",
        cuts.runs, cuts.starts, cuts.saved
    );
}

/// A random day with random cuts, some of them in the recovery from another.
pub fn random_run<const SIZE: usize, R: Rules>(
    seed: u64,
    habits: Habits,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let mut draw = fastrand::Rng::with_seed(seed);
    let pages = draw.usize(6..10);
    let chip = Nor::<SIZE>::new(pages * SIZE);
    let mut world = World::<SIZE, R>::new(chip, habits);
    let days: [&[Step]; 4] = [
        // An ordinary one.
        &[
            Step::Save,
            Step::Save,
            Step::Send(3),
            Step::Take(0),
            Step::Print,
            Step::Count,
        ],
        // No network: the store fills.
        &[Step::Save, Step::Save, Step::Save, Step::Restart],
        // No paper: receipts fill.
        &[Step::Save, Step::SendAll, Step::Take(0), Step::Take(1)],
        // Everything at once.
        &[
            Step::Save,
            Step::Send(2),
            Step::SendAll,
            Step::Take(0),
            Step::Take(5),
            Step::TakeUnheard(0),
            Step::Repeat(0),
            Step::Print,
            Step::PrintHalf,
            Step::PrintWhole,
            Step::Count,
            Step::Subscribe,
            Step::Restart,
        ],
    ];
    let mut steps = Vec::new();
    for _ in 0..draw.usize(1..4) {
        let day = days[draw.usize(..days.len())];
        for _ in 0..draw.usize(5..30) {
            let mut step = day[draw.usize(..day.len())];
            if let Step::Take(which) | Step::TakeUnheard(which) | Step::Repeat(which) = &mut step
                && draw.bool()
            {
                *which = draw.u8(..);
            }
            steps.push(step);
        }
    }
    let mut cuts = draw.fork();
    let mut cut = move |chip: &Nor<SIZE>, within: u64| {
        let tear = [Tear::Clean, Tear::Ragged][usize::from(cuts.u8(..4) > 0)];
        if cuts.u8(..4) == 0 {
            chip.cut_in_erase(cuts.u32(..6), tear, cuts.u64(..));
        } else {
            chip.cut_after(cuts.u64(..within), tear, cuts.u64(..));
        }
    };
    cut(&world.chip, 4_000);
    let mut left = draw.u32(1..5);
    let done = world.run(steps, |chip| {
        if left > 0 {
            left -= 1;
            // Recovery itself takes a mark or two; some cuts fall into it.
            let within = [12, 100, 1_000][draw.usize(..3)];
            cut(chip, within);
        }
    });
    let done = done.and_then(|()| world.settle());
    tally.runs += 1;
    tally.starts += u64::from(world.restarts);
    tally.saved += u64::from(world.saved());
    done
}

/// The run with this seed, in one of two sizes.
pub fn seeded_run<R: Rules>(seed: u64, habits: Habits, tally: &mut Tally) -> Result<(), Stop> {
    if seed.is_multiple_of(4) {
        random_run::<PAGE, R>(seed, habits, tally)
    } else {
        random_run::<PAGE_SMALL, R>(seed, habits, tally)
    }
}

/// Counts and starts, and no more; power is cut again and again, mostly in a note.
fn noting_run<R: Rules>(seed: u64, tally: &mut Tally) -> Result<(), Stop> {
    let mut draw = fastrand::Rng::with_seed(seed);
    let chip = Nor::<PAGE_SMALL>::new(6 * PAGE_SMALL);
    let mut world = World::<PAGE_SMALL, R>::new(chip, Habits::default());
    let steps: Vec<Step> = (0..draw.usize(5..40))
        .map(|_| [Step::Count, Step::Count, Step::Subscribe, Step::Restart][draw.usize(..4)])
        .collect();
    let mut left = draw.u32(3..12);
    let done = world.run(steps, |chip| {
        if left > 0 {
            left -= 1;
            match draw.u8(..8) {
                0 => chip.cut_in_erase(0, Tear::Ragged, draw.u64(..)),
                _ => chip.cut_after(draw.u64(..130), Tear::Ragged, draw.u64(..)),
            }
        }
    });
    tally.runs += 1;
    tally.starts += u64::from(world.restarts);
    done
}

/// What a terminal has noted, it knows, though power is cut in one note after the
/// other, and in the erases that make room for them.
#[test]
fn g6_the_newest_note_outlives_cuts_in_a_row() {
    let (tally, broken) = on_all_threads(FAULTS_MAX, |seed, tally| {
        if seed >= NOTING_RUNS {
            return Ok(false);
        }
        let run = noting_run::<Sound>(seed, tally);
        run.map(|()| true)
            .map_err(|stop| format!("seed {seed}: {stop:?}"))
    });
    assert!(broken.is_empty(), "\n{broken}");
    assert!(tally.starts > 5 * tally.runs, "{} starts", tally.starts);
}

fn from_environment(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_by_a_cut_in_any_erase() {
    let (cuts, broken) = cut_erases::<Sound>(FAULTS_MAX, Habits::default());
    assert!(broken.is_empty(), "\n{broken}");
    println!(
        "store: cut in every erase of a script: {} cuts, {} starts, {} records saved; \
         0 lost, 0 numbers reused, 0 receipts printed twice",
        cuts.runs, cuts.starts, cuts.saved
    );
}

/// So many runs with seeds from this one on.
pub fn many_runs<R: Rules>(
    from: u64,
    runs: u64,
    faults_max: usize,
    habits: Habits,
) -> (Tally, String) {
    on_all_threads(faults_max, |number, tally| {
        if number >= runs {
            return Ok(false);
        }
        let seed = from + number;
        seeded_run::<R>(seed, habits, tally)
            .map(|()| true)
            .map_err(|stop| {
                format!(
                    "{stop:?}; replay with RISITI_SEED={seed} \
                     cargo test -p risiti-terminal --test store cuts::replay"
                )
            })
    })
}

#[test]
fn nothing_is_lost_by_cuts_at_random() {
    let wanted = from_environment("RISITI_RUNS");
    let from = match (from_environment("RISITI_FROM"), wanted) {
        (Some(from), _) => from,
        (None, Some(_)) => fastrand::u64(..1 << 56),
        (None, None) => 0,
    };
    let runs = wanted.unwrap_or(RUNS);
    let (tally, broken) = many_runs::<Sound>(from, runs, FAULTS_MAX, Habits::default());
    assert!(broken.is_empty(), "\n{broken}");
    println!(
        r#"PROOF {{"what":"flash-cuts","guarantees":"G5 G6","runs":{},"failures":0,"seed":{from},"extra":{{"starts":{},"records_saved":{}}}}}"#,
        tally.runs, tally.starts, tally.saved
    );
    println!(
        "store: random cuts: {} runs, {} starts, {} records saved; \
         0 lost, 0 numbers reused, 0 receipts printed twice",
        tally.runs, tally.starts, tally.saved
    );
}

#[test]
fn replay() {
    if let Some(seed) = from_environment("RISITI_SEED") {
        let done = seeded_run::<Sound>(seed, Habits::default(), &mut Tally::default());
        assert_eq!(done, Ok(()));
    }
}
