//! What the outside world was told, and the records and values themselves.
//!
//! One line each, in the order of telling:
//! `a CLIENT SEQUENCE POSITION` acknowledged as new · `k CLIENT SEQUENCE`
//! acknowledged as known already · `r POSITION` about to release all below ·
//! `w KEY VERSION` change number VERSION of the state's KEY is under way ·
//! `s KEY VERSION` it is committed · `! …` the store contradicted itself.
//!
//! Records and values follow from their numbers alone, so that a check knows
//! every byte that must be there.

use crate::shape::{Shape, Sizes};
use bytes::Bytes;
use risiti_store::{Identity, NewRecord};
use std::collections::{BTreeMap, BTreeSet};

/// Clients below this send sequence numbers; the others packet identifiers.
pub const SEQUENCE_CLIENTS: usize = 6;
/// All clients of a run.
pub const CLIENTS: usize = 8;
/// Keys of the state; each stands for a pair that changes in one batch.
pub const KEYS: usize = 9;

/// Ends a line that was not told to its end.
pub const CUT_OFF: &[u8] = b"~\n";

/// All that was told before a cut.
#[derive(Debug, Default)]
pub struct Told {
    /// By position: which record.
    pub acknowledged: BTreeMap<u64, (usize, u64)>,
    /// Resends that were acknowledged because the journal had them.
    pub known: BTreeSet<(usize, u64)>,
    /// The forwarder needs nothing below.
    pub released: u64,
    /// By key: the last change that was committed.
    pub state: BTreeMap<usize, u64>,
    /// By key: the last change that was begun.
    pub state_begun: BTreeMap<usize, u64>,
}

impl Told {
    /// Reads the lines; a cut may have torn the last.
    pub fn parse(lines: &[u8]) -> Self {
        let mut told = Self::default();
        let whole = lines.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        for line in String::from_utf8_lossy(&lines[..whole]).lines() {
            if line.ends_with('~') {
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let number = |n: usize| {
                words
                    .get(n)
                    .and_then(|w| w.parse::<u64>().ok())
                    .unwrap_or(0)
            };
            match words.first() {
                Some(&"a") => {
                    told.acknowledged
                        .insert(number(3), (number(1) as usize, number(2)));
                }
                Some(&"r") => told.released = told.released.max(number(1)),
                Some(&"k") => {
                    told.known.insert((number(1) as usize, number(2)));
                }
                Some(&"s") => {
                    told.state.insert(number(1) as usize, number(2));
                }
                Some(&"w") => {
                    told.state_begun.insert(number(1) as usize, number(2));
                }
                _ => {}
            }
        }
        told
    }
}

impl Told {
    /// Each client's highest acknowledged sequence; 0 for none.
    pub fn highest(&self) -> [u64; CLIENTS] {
        let mut highest = [0; CLIENTS];
        for (client, sequence) in self.acknowledged.values().chain(&self.known) {
            highest[*client] = highest[*client].max(*sequence);
        }
        highest
    }
}

/// The `sequence`th record of `client` (from 1).
pub fn record(shape: &Shape, client: usize, sequence: u64, dup: bool) -> NewRecord {
    let mut random = fastrand::Rng::with_seed(sequence << 8 | client as u64);
    let length = match (shape.payloads, random.u32(..1000)) {
        (Sizes::Small, _) => random.usize(..48),
        (Sizes::Mixed, 0..700) => random.usize(16..120),
        (Sizes::Mixed, 700..950) => random.usize(120..1_000),
        (Sizes::Mixed, 950..990) | (Sizes::Large, 0..500) => random.usize(1_000..9_000),
        (Sizes::Mixed, 990..998) | (Sizes::Large, 500..900) => random.usize(9_000..30_000),
        (_, 998..) => random.usize(30_000..100_000),
        (Sizes::Large, _) => random.usize(30_000..60_000),
    };
    let payload = filled(format!("{client}/{sequence}:"), length, &mut random);
    let identity = if client < SEQUENCE_CLIENTS {
        Identity::Sequence {
            sequence,
            dup,
            resend_mark: false,
        }
    } else {
        Identity::Packet {
            packet_id: (sequence % 60_000) as u16 + 1,
            dup,
        }
    };
    NewRecord {
        received_ms: 1_700_000_000_000 + sequence,
        client_id: Bytes::from(format!("T{client:05}")),
        topic: Bytes::from(format!("t/T{client:05}/records")),
        identity,
        properties: Bytes::new(),
        payload: Bytes::from(payload),
    }
}

/// Which record this is, if it is one of ours, to the last byte.
pub fn number_of(shape: &Shape, found: &NewRecord) -> Option<(usize, u64)> {
    let head = found.payload.split(|b| *b == b':').next()?;
    let (client, sequence) = std::str::from_utf8(head).ok()?.split_once('/')?;
    let (client, sequence) = (client.parse().ok()?, sequence.parse().ok()?);
    let dup = match found.identity {
        Identity::Sequence { dup, .. } | Identity::Packet { dup, .. } => dup,
        Identity::None => return None,
    };
    (record(shape, client, sequence, dup) == *found).then_some((client, sequence))
}

/// What change `version` (from 1) of `key` leaves under both its names; `None`
/// for a deletion.
pub fn value(shape: &Shape, key: usize, version: u64) -> Option<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(version << 8 | key as u64);
    let length = match (shape.values, random.u32(..100)) {
        (_, 0..15) => return None,
        (Sizes::Small, _) => random.usize(..60),
        (Sizes::Mixed, 15..90) => random.usize(10..400),
        (Sizes::Mixed, 90..98) | (Sizes::Large, 15..60) => random.usize(400..6_000),
        (Sizes::Mixed, _) | (Sizes::Large, 60..95) => random.usize(6_000..60_000),
        (Sizes::Large, _) => random.usize(60_000..270_000),
    };
    Some(filled(format!("{key}@{version}:"), length, &mut random))
}

fn filled(head: String, length: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = head.into_bytes();
    let at = bytes.len();
    bytes.resize(at + length, 0);
    random.fill(&mut bytes[at..]);
    bytes
}

/// The two names of a key, which change together. Of every three keys one has
/// ordinary names, one an ordinary and a numbered one, and one two numbered ones:
/// those lie in different files.
pub fn names(key: usize) -> [Vec<u8>; 2] {
    let ordinary = |half| format!("pair/{half}/{key}").into_bytes();
    let numbered = |half: &str| {
        let number = (key as u64 / 3).to_be_bytes();
        [b"or", half.as_bytes(), &[0], &number[..]].concat()
    };
    match key % 3 {
        0 => [ordinary("left"), ordinary("right")],
        1 => [ordinary("left"), numbered("mixed")],
        _ => [numbered("left"), numbered("right")],
    }
}
