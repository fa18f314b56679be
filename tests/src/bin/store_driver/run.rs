//! The workload: eight clients append with a window, a forwarder reads and
//! releases behind them, three threads change the state, all at once.
//!
//! Generations are small, so that many are created, sealed, released and
//! deleted. It goes through to its end whatever the disk does: what fails to
//! open is opened again, what is withheld is waited for.

use crate::shape::Shape;
use crate::told::{self, CLIENTS, KEYS, Told};
use risiti_store::{
    AckSink, Batch, Journal, Outcome, RecordSource, State, StoreError, StoreOptions,
};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Appends under way at once, as many clients with full windows would have;
/// fewer (`window=4`) make more and smaller group commits.
const WINDOW_MAX: usize = 64;

/// The state and the journal over it.
pub fn open(options: &StoreOptions) -> Result<(Arc<State>, Arc<Journal>, String), StoreError> {
    let (state, state_report) = State::open(options)?;
    let (journal, report) = Journal::open(options, Arc::clone(&state))?;
    Ok((state, journal, format!("{state_report:?} {report:?}")))
}

/// Where promises are told: one write each, in order.
struct Witness(Mutex<File>);

impl Witness {
    fn tell(&self, line: &str) {
        let mut file = locked(&self.0);
        file.write_all(line.as_bytes())
            .expect("the witness never fails");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Sink {
    witness: Arc<Witness>,
    outstanding: Mutex<HashMap<u64, Offer>>,
    settled: Condvar,
}

#[derive(Clone, Copy)]
struct Offer {
    client: usize,
    sequence: u64,
    due: Due,
}

/// What the answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    New,
    /// Offered before, by this process.
    Known,
    /// Perhaps offered before, by a process that was killed.
    Either,
}

impl AckSink for Sink {
    fn settled(&self, token: u64, outcome: Outcome) {
        let Some(offer) = locked(&self.outstanding).remove(&token) else {
            self.witness.tell("! settled twice\n");
            return;
        };
        let Offer {
            client,
            sequence,
            due,
        } = offer;
        self.witness.tell(&match (due, outcome) {
            (Due::New | Due::Either, Outcome::Durable { position }) => {
                format!("a {client} {sequence} {position}\n")
            }
            (Due::Either, Outcome::Duplicate) => format!("k {client} {sequence}\n"),
            (Due::Known, Outcome::Duplicate) | (_, Outcome::Closing) => String::new(),
            _ => format!("! {client}/{sequence} due {due:?}: {outcome:?}\n"),
        });
        self.settled.notify_all();
    }
}

/// Runs to the end.
pub fn run(dir: &Path, shape: &Shape) -> io::Result<()> {
    let path = shape
        .word("told")
        .map_or_else(|| dir.join("told"), PathBuf::from);
    // Told by a run that was killed: this one takes up where that one was.
    let lines = std::fs::read(&path).unwrap_or_default();
    let told = Told::parse(&lines);
    let mut file = File::options().append(true).create(true).open(&path)?;
    if lines.last().is_some_and(|byte| *byte != b'\n') {
        // Its last line was cut off: told to nobody.
        file.write_all(told::CUT_OFF)?;
    }
    let witness = Arc::new(Witness(Mutex::new(file)));
    let options = shape.options(&dir.join("store"));
    // The disk may refuse to say.
    let resumes = loop {
        match options.dir.try_exists() {
            Ok(there) => break there,
            Err(error) => eprintln!("not known yet: {error}"),
        }
    };
    let (state, journal, found) = loop {
        match open(&options) {
            Ok(opened) => break opened,
            Err(error) => {
                eprintln!("not open yet: {error}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    };
    let undamaged = shape.word("damage") == Some("none");
    if undamaged && found.contains("Damaged") {
        witness.tell(&format!("! told of damage at the opening: {found}\n"));
    }
    let sink = Arc::new(Sink {
        witness: Arc::clone(&witness),
        outstanding: Mutex::default(),
        settled: Condvar::new(),
    });
    let appended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (state, witness, told) = (&state, &witness, &told);
            scope.spawn(move || change(state, witness, thread, shape, told));
        }
        if let Some(path) = shape.word("health") {
            scope.spawn(|| report(&state, &journal, Path::new(path), &appended));
        }
        scope.spawn(|| forward(&journal, &witness, &appended, shape));
        append(&journal, &sink, shape, &told, resumes);
        appended.store(true, Ordering::Release);
    });
    let (health, kept) = (journal.health(), state.health());
    if undamaged && (health.quarantined_generations > 0 || kept.damage.is_some()) {
        witness.tell(&format!(
            "! told of damage: {:?} {:?}\n",
            health.alarms, kept.damage
        ));
    }
    if shape.word("abandon") == Some("yes") {
        // As a kill once nothing is under way: nothing is closed.
        std::process::exit(0);
    }
    journal.close();
    state.close();
    println!("done");
    Ok(())
}

/// Opens the store and closes it: all that a start after a cut writes.
pub fn recover(dir: &Path, shape: &Shape) -> io::Result<()> {
    let mut tries = shape.number("tries", 1);
    let (state, journal, report) = loop {
        match open(&shape.options(dir)) {
            Ok(opened) => break opened,
            Err(error) if tries <= 1 => return Err(io::Error::other(error)),
            Err(error) => eprintln!("not open yet: {error}"),
        }
        tries -= 1;
    };
    println!("{report}");
    if shape.word("abandon") == Some("yes") {
        std::process::exit(0);
    }
    journal.close();
    state.close();
    Ok(())
}

fn append(journal: &Journal, sink: &Arc<Sink>, shape: &Shape, told: &Told, resumes: bool) {
    let mut random = fastrand::Rng::with_seed(shape.number("seed", 1));
    let window = shape.number("window", WINDOW_MAX as u64) as usize;
    let mut next = told.highest().map(|highest| highest + 1);
    // A killed process may have had this many under way.
    let unsure = next.map(|n| {
        if resumes {
            n + WINDOW_MAX as u64 + 8
        } else {
            0
        }
    });
    let as_sink: Arc<dyn AckSink> = Arc::clone(sink) as Arc<dyn AckSink>;
    let mut token = 0;
    let mut offer = |client, sequence, due| {
        token += 1;
        let mut outstanding = locked(&sink.outstanding);
        while outstanding.len() >= window {
            outstanding = sink
                .settled
                .wait(outstanding)
                .unwrap_or_else(PoisonError::into_inner);
        }
        outstanding.insert(
            token,
            Offer {
                client,
                sequence,
                due,
            },
        );
        drop(outstanding);
        journal.append(
            told::record(shape, client, sequence, due != Due::New),
            &as_sink,
            token,
        );
    };
    for _ in 0..shape.number("records", 3_000) {
        let client = random.usize(..CLIENTS);
        let due = if next[client] < unsure[client] {
            Due::Either
        } else {
            Due::New
        };
        offer(client, next[client], due);
        next[client] += 1;
        // A terminal that missed its PUBACK sends again.
        if random.u8(..20) == 0 {
            let sequence = next[client] - random.u64(1..=next[client].min(40) - 1).max(1);
            offer(client, sequence, Due::Known);
        }
    }
    let mut outstanding = locked(&sink.outstanding);
    while !outstanding.is_empty() {
        outstanding = sink
            .settled
            .wait(outstanding)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

fn forward(journal: &Journal, witness: &Witness, appended: &AtomicBool, shape: &Shape) {
    let mut random = fastrand::Rng::with_seed(shape.number("seed", 1) ^ 1);
    let releases = shape.word("release") != Some("no");
    let at_once = shape.word("release") == Some("at-once");
    let mut at = journal.oldest();
    let mut released = 0;
    while !appended.load(Ordering::Acquire) {
        if journal.wait(at, Duration::from_millis(20)) <= at {
            continue;
        }
        let Ok(batch) = journal.read(at, random.usize(1..400), random.usize(1..80_000)) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        at = batch.next;
        // Behind what was read by as much as Kafka has not confirmed.
        let unconfirmed = if at_once || random.bool() {
            0
        } else {
            random.u64(..500)
        };
        let upto = at.saturating_sub(unconfirmed);
        if releases && upto > released && (at_once || random.bool()) {
            released = upto;
            witness.tell(&format!("r {upto}\n"));
            journal.release("default", upto);
        }
    }
}

/// Keeps the store's own account of itself in a file, replaced whole.
fn report(state: &State, journal: &Journal, path: &Path, appended: &AtomicBool) {
    while !appended.load(Ordering::Acquire) {
        let health = journal.health();
        let head = if health.withheld.is_some() {
            "withheld"
        } else {
            "flowing"
        };
        let written = std::fs::write(
            path.with_extension("new"),
            format!("{head} {health:?} {:?}", state.health()),
        )
        .and_then(|()| std::fs::rename(path.with_extension("new"), path));
        if let Err(error) = written {
            eprintln!("no health: {error}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn change(state: &State, witness: &Witness, thread: usize, shape: &Shape, told: &Told) {
    let mut random = fastrand::Rng::with_seed(shape.number("seed", 1) ^ (thread as u64 + 2));
    // Of each three keys one kind each: ordinary, mixed, numbered.
    let threads: Vec<usize> = match shape.word("keys") {
        Some("ordinary") => vec![0],
        Some("numbered") => vec![1, 2],
        _ => vec![0, 1, 2],
    };
    if !threads.contains(&thread) {
        return;
    }
    let mut versions = [0_u64; KEYS];
    for (key, version) in &told.state_begun {
        versions[*key] = *version;
    }
    for _ in 0..shape.number("changes", 600) / threads.len() as u64 {
        let key = thread + 3 * random.usize(..KEYS / 3);
        versions[key] += 1;
        let version = versions[key];
        let mut batch = Batch::new();
        for name in told::names(key) {
            match told::value(shape, key, version) {
                Some(value) => batch.put(name, value),
                None => batch.delete(name),
            };
        }
        witness.tell(&format!("w {key} {version}\n"));
        if let Err(error) = state.commit(batch) {
            witness.tell(&format!("! state {key}@{version}: {error}\n"));
            return;
        }
        witness.tell(&format!("s {key} {version}\n"));
    }
}
