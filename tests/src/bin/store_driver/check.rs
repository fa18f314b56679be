//! Opens a store as the cut left it and looks for every promise.

use crate::run;
use crate::shape::Shape;
use crate::told::{self, CLIENTS, KEYS, SEQUENCE_CLIENTS, Told};
use risiti_store::{AckSink, Journal, NewRecord, Outcome, RecordSource, State};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long an append may take on a disk that works.
const SETTLE: Duration = Duration::from_secs(20);
/// How far back resends are tried: a terminal's window.
const RESENDS: u64 = 60;

/// `ok …` or `broken …`, one line.
pub fn verdict(dir: &Path, told: &Path, shape: &Shape, disk_failed: bool) -> String {
    let judged = std::fs::read(told)
        .map_err(|e| format!("no told file: {e}"))
        .and_then(|lines| {
            if let Some(complaint) = String::from_utf8_lossy(&lines)
                .lines()
                .find(|l| l.starts_with('!'))
            {
                return Err(format!("in the run itself: {complaint}"));
            }
            judge(dir, &Told::parse(&lines), shape, disk_failed)
        });
    match judged {
        Ok(summary) => format!("ok {}", summary.replace('\n', " ")),
        Err(reason) => format!("broken {}", reason.replace('\n', " ")),
    }
}

fn judge(dir: &Path, told: &Told, shape: &Shape, disk_failed: bool) -> Result<String, String> {
    let options = shape.options(dir);
    let (state, journal, report) =
        run::open(&options).map_err(|e| format!("REFUSED to open: {e}"))?;
    let versions = check_state(&state, shape, told)?;
    let found = check_journal(&journal, shape, told)?;
    if report.contains("Damaged") && !disk_failed {
        return Err(format!("ALARM for nothing at open: {report}"));
    }
    if !found.alarms.is_empty() {
        return Err(format!(
            "ALARM for nothing, journal {}..{}, released {}: {:?}",
            journal.oldest(),
            found.end,
            told.released,
            found.alarms
        ));
    }
    check_resends(&journal, shape, told, &found)?;
    let added = check_appends(&journal, shape, &found)?;
    check_state_goes_on(&state, shape, &versions)?;
    journal.close();
    state.close();
    drop((journal, state));

    let (state, journal, _) =
        run::open(&options).map_err(|e| format!("REFUSED to open again: {e}"))?;
    let again = read_all(&journal, shape)?;
    for (position, number) in found.by_position.iter().chain(&added) {
        if again.by_position.get(position) != Some(number) && *position >= told.released {
            return Err(format!(
                "LOST {number:?} at {position} by closing and opening"
            ));
        }
    }
    check_state_is(&state, shape, &versions, 1)?;
    journal.close();
    state.close();
    Ok(format!(
        "{} records, {} acknowledged, {report}",
        found.by_position.len(),
        told.acknowledged.len()
    ))
}

struct Found {
    by_position: BTreeMap<u64, (usize, u64)>,
    end: u64,
    /// Damage that was met, though only the power was cut.
    alarms: Vec<String>,
}

fn read_all(journal: &Journal, shape: &Shape) -> Result<Found, String> {
    let (mut at, end) = (journal.oldest(), journal.end());
    let (mut by_position, mut alarms) = (BTreeMap::new(), Vec::new());
    while at < end {
        let batch = match journal.read(at, 500, 1 << 20) {
            Ok(batch) => batch,
            // Told once; from then on it is quarantined and read around.
            Err(error) if alarms.len() < 20 => {
                alarms.push(format!("unreadable at {at}: {error}"));
                continue;
            }
            Err(error) => return Err(format!("UNREADABLE at {at}: {error}")),
        };
        if batch.damaged > 0 {
            alarms.push(format!(
                "{} positions of {at}..{} damaged",
                batch.damaged, batch.next
            ));
        }
        let mut damaged = batch.damaged;
        for read in &batch.records {
            if read.position < at || read.position > at + damaged {
                return Err(format!("GAP: {} where {at} was due", read.position));
            }
            damaged -= read.position - at;
            let Some(number) = told::number_of(shape, &read.record) else {
                return Err(format!(
                    "CHANGED: position {} is no record of ours",
                    read.position
                ));
            };
            by_position.insert(read.position, number);
            at = read.position + 1;
        }
        if batch.next != at + damaged || batch.next == at && batch.records.is_empty() {
            return Err(format!("GAP: next is {} after {at}, end {end}", batch.next));
        }
        at = batch.next;
    }
    Ok(Found {
        by_position,
        end,
        alarms,
    })
}

fn check_journal(journal: &Journal, shape: &Shape, told: &Told) -> Result<Found, String> {
    let found = read_all(journal, shape)?;
    for (position, number) in told.acknowledged.range(told.released..) {
        match found.by_position.get(position) {
            Some(there) if there == number => {}
            there => {
                return Err(format!(
                    "LOST acknowledged {number:?} at {position}: {there:?} is there, journal {}..{}, {} acknowledged above {}",
                    journal.oldest(),
                    found.end,
                    told.acknowledged.len(),
                    told.released
                ));
            }
        }
    }
    if told.released == 0 {
        let there: BTreeSet<(usize, u64)> = found.by_position.values().copied().collect();
        if let Some(lost) = told.known.difference(&there).next() {
            return Err(format!("LOST {lost:?}, acknowledged as known already"));
        }
    }
    let mut highest = [0; CLIENTS];
    for (position, (client, sequence)) in &found.by_position {
        if *sequence <= highest[*client] {
            return Err(format!(
                "TWICE or out of order: {client}/{sequence} at {position} after {}",
                highest[*client]
            ));
        }
        highest[*client] = *sequence;
    }
    Ok(found)
}

/// Asks the journal and waits for the answer.
struct Asker {
    answers: Receiver<(u64, Outcome)>,
    sink: Arc<dyn AckSink>,
}

struct Answer(Mutex<Sender<(u64, Outcome)>>);

impl AckSink for Answer {
    fn settled(&self, token: u64, outcome: Outcome) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer after the deadline finds nobody: told as WITHHELD already.
        let _ = sender.send((token, outcome));
    }
}

impl Asker {
    fn new() -> Self {
        let (sender, answers) = mpsc::channel();
        Self {
            answers,
            sink: Arc::new(Answer(Mutex::new(sender))),
        }
    }

    /// The outcomes of these appends, all under way at once.
    fn ask(&self, journal: &Journal, records: Vec<NewRecord>) -> Result<Vec<Outcome>, String> {
        let count = records.len();
        for (token, record) in records.into_iter().enumerate() {
            journal.append(record, &self.sink, token as u64);
        }
        let mut outcomes = vec![None; count];
        for _ in 0..count {
            let (token, outcome) = self
                .answers
                .recv_timeout(SETTLE)
                .map_err(|_| format!("WITHHELD on a disk that works: {:?}", journal.health()))?;
            outcomes[token as usize] = Some(outcome);
        }
        Ok(outcomes.into_iter().flatten().collect())
    }
}

/// What each client's highest sequence is, acknowledged or found.
fn highest(told: &Told, found: &Found) -> [u64; CLIENTS] {
    let mut highest = told.highest();
    for (client, sequence) in found.by_position.values() {
        highest[*client] = highest[*client].max(*sequence);
    }
    highest
}

fn check_resends(
    journal: &Journal,
    shape: &Shape,
    told: &Told,
    found: &Found,
) -> Result<(), String> {
    let highest = highest(told, found);
    let numbers: Vec<(usize, u64)> = (0..CLIENTS)
        .flat_map(|client| {
            let lowest = highest[client].saturating_sub(RESENDS).max(1);
            (lowest..=highest[client]).map(move |sequence| (client, sequence))
        })
        .collect();
    let records = numbers
        .iter()
        .map(|(c, s)| told::record(shape, *c, *s, true))
        .collect();
    let outcomes = Asker::new().ask(journal, records)?;
    for ((client, sequence), outcome) in numbers.into_iter().zip(outcomes) {
        if outcome != Outcome::Duplicate {
            let kind = if client < SEQUENCE_CLIENTS {
                "sequence"
            } else {
                "packet"
            };
            return Err(format!(
                "FORGOTTEN: resend of {client}/{sequence} (by {kind}, highest {}) is {outcome:?}; {} acknowledged, released {}, journal {}..{}",
                highest[client],
                told.acknowledged.len(),
                told.released,
                journal.oldest(),
                found.end
            ));
        }
    }
    Ok(())
}

/// New records follow where the old ones end.
fn check_appends(
    journal: &Journal,
    shape: &Shape,
    found: &Found,
) -> Result<BTreeMap<u64, (usize, u64)>, String> {
    let numbers: Vec<(usize, u64)> = (0..CLIENTS)
        .flat_map(|c| (1..4).map(move |n| (c, 1_000_000 + n)))
        .collect();
    let records = numbers
        .iter()
        .map(|(c, s)| told::record(shape, *c, *s, false))
        .collect();
    let outcomes = Asker::new().ask(journal, records)?;
    let mut added = BTreeMap::new();
    for (n, (number, outcome)) in numbers.into_iter().zip(outcomes).enumerate() {
        let due = found.end + n as u64;
        if outcome != (Outcome::Durable { position: due }) {
            return Err(format!(
                "appending does not go on: {number:?} is {outcome:?}, due at {due}"
            ));
        }
        added.insert(due, number);
    }
    Ok(added)
}

/// The version of each key, if both its halves are at one that may be there:
/// the last that was told, or the one that was under way.
fn check_state(state: &State, shape: &Shape, told: &Told) -> Result<Vec<u64>, String> {
    let mut listed: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for prefix in [&b"pair/"[..], b"or"] {
        let page = state.scan(prefix, None, 1_000);
        listed.extend(page.map_err(|e| format!("UNREADABLE state: {e}"))?);
    }
    let mut versions = Vec::new();
    for key in 0..KEYS {
        let last = told.state.get(&key).copied().unwrap_or(0);
        let mut halves = Vec::new();
        for name in told::names(key) {
            let value = state
                .get(&name)
                .map_err(|e| format!("UNREADABLE state {key}: {e}"))?;
            if listed.get(&name) != value.as_ref() {
                return Err(format!("state {key}: listing and reading differ"));
            }
            halves.push(value);
        }
        let at = |version: u64| {
            if version == 0 {
                None
            } else {
                told::value(shape, key, version)
            }
        };
        if halves[0] != halves[1] {
            return Err(format!(
                "HALF a batch in the state: {key} after {last}: {:?}",
                heads(&halves)
            ));
        }
        let begun = told.state_begun.get(&key).copied().unwrap_or(0).max(last);
        match (last..=begun).find(|version| halves[0] == at(*version)) {
            Some(version) => versions.push(version),
            None => {
                return Err(format!(
                    "LOST state {key}@{last}..={begun}: {:?}",
                    heads(&halves)
                ));
            }
        }
    }
    Ok(versions)
}

fn heads(halves: &[Option<Vec<u8>>]) -> Vec<String> {
    halves
        .iter()
        .map(|half| match half {
            None => "absent".to_owned(),
            Some(value) => String::from_utf8_lossy(value)
                .split(':')
                .next()
                .unwrap_or("")
                .to_owned(),
        })
        .collect()
}

/// One batch changes every key; afterwards each is at its next version.
fn check_state_goes_on(state: &State, shape: &Shape, versions: &[u64]) -> Result<(), String> {
    let mut batch = risiti_store::Batch::new();
    for (key, version) in versions.iter().enumerate() {
        for name in told::names(key) {
            match told::value(shape, key, version + 1) {
                Some(value) => batch.put(name, value),
                None => batch.delete(name),
            };
        }
        // Together the largest values would be more than one atomic step takes.
        if batch.bytes() > 500_000 || key + 1 == versions.len() {
            state
                .commit(std::mem::take(&mut batch))
                .map_err(|e| format!("the state does not go on: {e}"))?;
        }
    }
    check_state_is(state, shape, versions, 1)
}

/// Each key is at its version and `more`.
fn check_state_is(state: &State, shape: &Shape, versions: &[u64], more: u64) -> Result<(), String> {
    for (key, version) in versions.iter().enumerate() {
        let due = told::value(shape, key, version + more);
        for name in told::names(key) {
            if state.get(&name).map_err(|e| e.to_string())? != due {
                return Err(format!("the state does not go on: {key}@{version}+{more}"));
            }
        }
    }
    Ok(())
}
