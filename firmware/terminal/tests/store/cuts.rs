//! Power cuts: at every byte of one run, and at random in a great many.
//!
//! `RISITI_SEED=n cargo test -p risiti-terminal --test store cuts::replay` replays
//! one run of the many; `RISITI_RUNS` sets how many there are.

use std::env;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use risiti_sim::nor::{Nor, Tear};
use risiti_terminal::store::rules::{Rules, Sound};

use crate::world::{Habits, Step, Stop, World};

/// Small pages make the rings come round soon: 15 records, 3 receipts, 13 notes.
const PAGE: usize = 1024;
/// 7 records, one receipt, 6 notes.
const PAGE_SMALL: usize = 512;

/// Random runs unless `RISITI_RUNS` says otherwise.
const RUNS: u64 = 200_000;

/// Threads that share them.
const THREADS: u64 = 2;

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
    for turn in 0..5_u8 {
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

/// The script with one cut after so many steps of the flash; whether it came.
fn cut_once<R: Rules>(
    after: u64,
    tear: Tear,
    seed: u64,
    habits: Habits,
    tally: &mut Tally,
) -> Result<bool, String> {
    let chip = Nor::<PAGE>::new(8 * PAGE);
    let mut world = World::<PAGE, R>::new(chip, habits);
    world.chip.cut_after(after, tear, seed);
    let mut armed = true;
    let done = world
        .run(script(), |chip| {
            // The restarts of the script come before the cut, or after.
            if armed && chip.steps() < after {
                chip.cut_after(after - chip.steps(), tear, seed);
            } else {
                armed = false;
            }
        })
        .and_then(|()| {
            let came = world.chip.steps() > after;
            world.settle().map(|()| came)
        });
    tally.runs += 1;
    tally.starts += u64::from(world.restarts);
    tally.saved += u64::from(world.saved());
    done.map_err(|stop| format!("cut after {after}, {tear:?}, seed {seed}: {stop:?}"))
}

/// Cuts the script at every byte; what broke.
pub fn cut_everywhere<R: Rules>(
    tears: &[(Tear, u64)],
    habits: Habits,
    tally: &mut Tally,
) -> Vec<String> {
    let mut broken = Vec::new();
    for &(tear, seed) in tears {
        for after in 0.. {
            match cut_once::<R>(after, tear, seed ^ after << 8, habits, tally) {
                Ok(true) => {}
                Ok(false) => break,
                Err(what) => {
                    broken.push(what);
                    if broken.len() > 20 {
                        return broken;
                    }
                }
            }
        }
    }
    broken
}

#[test]
fn nothing_is_lost_by_a_cut_at_any_byte() {
    let tears = [
        (Tear::Clean, 0),
        (Tear::Ragged, 1),
        (Tear::Ragged, 2),
        (Tear::Ragged, 3),
    ];
    let (mut cuts, mut broken) = (Tally::default(), Vec::new());
    thread::scope(|scope| {
        let halves = tears.chunks(tears.len() / THREADS as usize).map(|tears| {
            scope.spawn(|| {
                let mut tally = Tally::default();
                let broken = cut_everywhere::<Sound>(tears, Habits::default(), &mut tally);
                (tally, broken)
            })
        });
        for half in halves.collect::<Vec<_>>() {
            let (tally, what) = half.join().expect("no run panics");
            cuts.runs += tally.runs;
            cuts.starts += tally.starts;
            cuts.saved += tally.saved;
            broken.extend(what);
        }
    });
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    println!(
        "store: cut at every byte: {} cuts, {} starts, {} records saved, 0 lost",
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
        chip.cut_after(cuts.u64(..within), tear, cuts.u64(..));
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

fn from_environment(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_by_cuts_at_random() {
    let runs = from_environment("RISITI_RUNS").unwrap_or(RUNS);
    let next = AtomicU64::new(0);
    let mut sum = Tally::default();
    let mut broken = String::new();
    thread::scope(|scope| {
        let workers = (0..THREADS).map(|_| {
            scope.spawn(|| {
                let mut tally = Tally::default();
                let mut broken = Vec::new();
                while broken.len() < 5 {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= runs {
                        break;
                    }
                    if let Err(stop) = seeded_run::<Sound>(seed, Habits::default(), &mut tally) {
                        broken.push((seed, stop));
                    }
                }
                (tally, broken)
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            let (tally, what) = worker.join().expect("no run panics");
            sum.runs += tally.runs;
            sum.starts += tally.starts;
            sum.saved += tally.saved;
            for (seed, stop) in what {
                let _ = writeln!(
                    broken,
                    "{stop:?}; replay with RISITI_SEED={seed} \
                     cargo test -p risiti-terminal --test store cuts::replay"
                );
            }
        }
    });
    assert!(broken.is_empty(), "\n{broken}");
    println!(
        "store: random cuts: {} runs, {} starts, {} records saved, 0 lost",
        sum.runs, sum.starts, sum.saved
    );
}

#[test]
fn replay() {
    if let Some(seed) = from_environment("RISITI_SEED") {
        let done = seeded_run::<Sound>(seed, Habits::default(), &mut Tally::default());
        assert_eq!(done, Ok(()));
    }
}
