//! Drives a journal from the command line: for crash tests and measurements.
//!
//! ```text
//! journal_load load DIR CLIENTS RECORDS PAYLOAD_BYTES ACKS_FILE
//! journal_load verify DIR ACKS_FILE
//! journal_load bench DIR CLIENTS RECORDS PAYLOAD_BYTES
//! ```
//!
//! `load` appends RECORDS records from CLIENTS clients, 20 without an outcome
//! each at most, and writes one line `<position> <client> <sequence> <digest>`
//! to ACKS_FILE after each outcome. It goes on where an earlier run ended, so it
//! can be killed and started again; 0 RECORDS means for ever. With
//! `RISITI_SYNC=flush` it leaves out our sync: the negative control.
//! `verify` reopens the journal and checks that each acknowledged record stands
//! at its position, and none twice. Small generations make both cross borders;
//! `RISITI_GENERATION_BYTES` sets their size. With `RISITI_KEY` (64 hexadecimal digits)
//! values are encrypted.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use risiti_store::{
    AckSink, Identity, Journal, NewRecord, Outcome, RecordSource, State, StoreKey, StoreOptions,
    SyncPolicy,
};

const WINDOW: u64 = 20;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["load", dir, clients, records, payload, acks] => {
            load(dir, clients, records, payload, Some(acks))
        }
        ["bench", dir, clients, records, payload] => load(dir, clients, records, payload, None),
        ["verify", dir, acks] => verify(dir, acks),
        _ => Err("usage: journal_load load|verify|bench …; see the head of its source".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("journal_load: {e}");
            ExitCode::FAILURE
        }
    }
}

fn options(dir: &str) -> StoreOptions {
    let generation_bytes = std::env::var("RISITI_GENERATION_BYTES")
        .ok()
        .and_then(|text| text.parse().ok());
    let flush_only = std::env::var("RISITI_SYNC").is_ok_and(|value| value == "flush");
    let defaults = StoreOptions::new(dir);
    StoreOptions {
        generation_bytes: generation_bytes.unwrap_or(defaults.generation_bytes),
        key: std::env::var("RISITI_KEY")
            .ok()
            .and_then(|digits| StoreKey::from_hex(&digits)),
        free_bytes_min: 0,
        ballast_bytes: 1024 * 1024,
        sync: if flush_only {
            SyncPolicy::FlushOnly
        } else {
            SyncPolicy::Durable
        },
        ..defaults
    }
}

/// What the sink knows, and who waits for it.
struct Outcomes {
    inner: Mutex<Inner>,
    settled: Condvar,
}

struct Inner {
    /// Appends without an outcome, by client.
    open: Vec<u64>,
    settled: u64,
    duplicates: u64,
    acks: Option<File>,
}

impl AckSink for Outcomes {
    fn settled(&self, token: u64, outcome: Outcome) {
        let (client, sequence) = (token >> 40, token & ((1 << 40) - 1));
        let mut inner = self.inner.lock();
        inner.open[client as usize] -= 1;
        inner.settled += 1;
        match outcome {
            Outcome::Durable { position } => {
                let line = format!(
                    "{position} {client} {sequence} {:016x}\n",
                    digest(client, sequence)
                );
                if let Some(acks) = &mut inner.acks
                    && let Err(e) = acks.write_all(line.as_bytes())
                {
                    eprintln!("journal_load: acks file: {e}");
                    std::process::exit(3);
                }
            }
            Outcome::Duplicate => inner.duplicates += 1,
            Outcome::TooLarge | Outcome::Closing => {}
        }
        self.settled.notify_one();
    }
}

fn digest(client: u64, sequence: u64) -> u64 {
    fastrand::Rng::with_seed(client << 40 ^ sequence).u64(..)
}

/// A payload that its client and number determine: 24 bytes of both, and filling.
fn payload(client: u64, sequence: u64, bytes: usize) -> Bytes {
    let mut payload = Vec::with_capacity(bytes.max(24));
    payload.extend_from_slice(&client.to_be_bytes());
    payload.extend_from_slice(&sequence.to_be_bytes());
    payload.extend_from_slice(&digest(client, sequence).to_be_bytes());
    payload.resize(bytes.max(24), sequence as u8);
    Bytes::from(payload)
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn load(
    dir: &str,
    clients: &str,
    records: &str,
    bytes: &str,
    acks: Option<&str>,
) -> Result<(), Failure> {
    let (clients, records): (u64, u64) = (clients.parse()?, records.parse()?);
    let bytes: usize = bytes.parse()?;
    let mut next: Vec<u64> = vec![1; clients as usize];
    let acks = match acks {
        None => None,
        Some(path) => {
            if let Ok(file) = File::open(path) {
                for ack in read_acks(file)? {
                    if let Some(next) = next.get_mut(ack.client as usize) {
                        *next = (*next).max(ack.sequence + 1);
                    }
                }
            }
            Some(OpenOptions::new().create(true).append(true).open(path)?)
        }
    };
    let options = options(dir);
    let (state, report) = State::open(&options)?;
    for alarm in &report.alarms {
        eprintln!("journal_load: {alarm}");
    }
    let (journal, report) = Journal::open(&options, Arc::clone(&state))?;
    for alarm in &report.alarms {
        eprintln!("journal_load: {alarm}");
    }
    let outcomes = Arc::new(Outcomes {
        inner: Mutex::new(Inner {
            open: vec![0; clients as usize],
            settled: 0,
            duplicates: 0,
            acks,
        }),
        settled: Condvar::new(),
    });
    let sink: Arc<dyn AckSink> = Arc::clone(&outcomes) as _;
    let began = Instant::now();
    let mut appended = 0;
    while records == 0 || appended < records {
        for client in 0..clients {
            let mut inner = outcomes.inner.lock();
            while inner.open[client as usize] >= WINDOW {
                outcomes.settled.wait(&mut inner);
            }
            inner.open[client as usize] += 1;
            drop(inner);
            let sequence = next[client as usize];
            next[client as usize] += 1;
            let record = NewRecord {
                received_ms: sequence,
                client_id: Bytes::from(format!("terminal-{client}")),
                topic: Bytes::from(format!("t/terminal-{client}/records")),
                identity: Identity::Sequence {
                    sequence,
                    dup: false,
                    resend_mark: false,
                },
                properties: Bytes::new(),
                payload: payload(client, sequence, bytes),
            };
            journal.append(record, &sink, client << 40 | sequence);
            appended += 1;
        }
    }
    let mut inner = outcomes.inner.lock();
    while inner.settled < appended {
        outcomes.settled.wait(&mut inner);
    }
    let took = began.elapsed();
    let health = journal.health();
    println!(
        "{appended} records, {} duplicates, {:.0} records/s, {} syncs ({:.0} records a sync, {:.0} us each), {} bytes on disk",
        inner.duplicates,
        appended as f64 / took.as_secs_f64(),
        health.syncs,
        appended as f64 / health.syncs as f64,
        health.sync_time.as_micros() as f64 / health.syncs as f64,
        health.used_bytes,
    );
    drop(inner);
    journal.close();
    state.close();
    Ok(())
}

struct Ack {
    position: u64,
    client: u64,
    sequence: u64,
}

/// A last line without its end was being written when the process died.
fn read_acks(file: File) -> Result<Vec<Ack>, Failure> {
    let mut acks = Vec::new();
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        if line.ends_with('\n') {
            let mut words = line.split_whitespace();
            let mut word = || words.next().ok_or("a line of the acks file is too short");
            acks.push(Ack {
                position: word()?.parse()?,
                client: word()?.parse()?,
                sequence: word()?.parse()?,
            });
        }
        line.clear();
    }
    Ok(acks)
}

fn verify(dir: &str, acks: &str) -> Result<(), Failure> {
    let acks = read_acks(File::open(acks)?)?;
    let options = options(dir);
    let began = Instant::now();
    let (state, report) = State::open(&options)?;
    println!("state: {report:?}");
    let (journal, report) = Journal::open(&options, state)?;
    println!("journal: {report:?}, opened after {:?}", began.elapsed());
    let mut found: HashMap<(u64, u64), u64> = HashMap::new();
    let mut last: HashMap<u64, u64> = HashMap::new();
    let (mut damaged, mut twice, mut wrong, mut disordered) = (0, 0, 0, 0);
    let mut next = journal.oldest();
    while next < journal.end() {
        let batch = journal.read(next, 1_000, 1024 * 1024)?;
        damaged += batch.damaged;
        next = batch.next;
        for record in batch.records {
            let bytes = &record.record.payload;
            let (client, sequence) = (number(&bytes[..8]), number(&bytes[8..16]));
            wrong += u64::from(*bytes != payload(client, sequence, bytes.len()));
            twice += u64::from(found.insert((client, sequence), record.position).is_some());
            disordered += u64::from(
                last.insert(client, sequence)
                    .is_some_and(|last| last > sequence),
            );
        }
    }
    let lost = acks
        .iter()
        .filter(|ack| found.get(&(ack.client, ack.sequence)) != Some(&ack.position))
        .count();
    println!(
        "acknowledged {}, found {}, lost {lost}, twice {twice}, wrong {wrong}, out of order {disordered}, damaged {damaged}",
        acks.len(),
        found.len()
    );
    if lost > 0 || twice > 0 || wrong > 0 || disordered > 0 || damaged > 0 {
        return Err("not as acknowledged".into());
    }
    Ok(())
}
