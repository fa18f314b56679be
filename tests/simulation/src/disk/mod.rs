//! What survives a gateway's death: the journal's generations, its mark, the rows
//! of the state database.
//!
//! Promises: a cut keeps what a sync covered, and of the rest any part of it that a
//! disk might keep; the page cache survives the death of the process and not that
//! of the power; damage is told to the scenario, which knows what it hit. Never:
//! more than the product's store asks for: rows are a model of what the state
//! database promises (crash images show that it keeps it).

mod generation;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use risiti_store::journal::{Bounds, Generation, Header, Index, JournalId, batch_from};
use risiti_store::{Identity, Position, Record, StoreError};

pub use generation::{AppendedFile, SECTOR_BYTES};
pub use rows::{SimRows, Table};

/// What a flipped bit hit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hit {
    /// Records of a pack of the journal: terminal and sequence number.
    pub records: Vec<(String, u64)>,
    /// A receipt that waited.
    pub receipts: Vec<(String, u64)>,
    /// What the journal knew of resends: one may be taken for new now.
    pub resends: bool,
    /// Another row: a session, an offset, what is known of a terminal.
    pub other: bool,
}

/// What happened to the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Power cuts.
    pub cuts: u64,
    /// Cuts that dropped or tore something.
    pub torn: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Writes refused because it was full.
    pub refused_writes: u64,
    /// Bits flipped.
    pub flips: u64,
    /// Times it was wiped.
    pub wipes: u64,
}

/// One generation of the journal, and its name.
#[derive(Debug, Clone)]
pub(crate) struct GenerationFile {
    pub(crate) first: Position,
    /// Its name is on the disk.
    pub(crate) named: bool,
    pub(crate) file: AppendedFile,
    /// Records in it, where each lies; for the onlooker.
    pub(crate) known: Vec<PackKnown>,
}

/// Where a pack lies, and which records are in it: terminal and sequence number.
pub(crate) type PackKnown = (std::ops::Range<usize>, Vec<(String, u64)>);

/// See the head of the file.
#[derive(Debug)]
pub struct Disk {
    pub(crate) rng: fastrand::Rng,
    pub(crate) journal_id: Option<JournalId>,
    /// As it is on disk, and as it was written.
    pub(crate) mark: (Position, Position),
    pub(crate) generations: BTreeMap<u64, GenerationFile>,
    pub(crate) table: Table,
    pub(crate) damaged: BTreeSet<Vec<u8>>,
    full: bool,
    failing_syncs: u32,
    hits: Vec<Hit>,
    counts: DiskCounts,
}

impl Disk {
    /// An empty disk. `rng` draws how long it takes, and what else is left to it.
    #[must_use]
    pub fn new(rng: fastrand::Rng) -> Self {
        Self {
            rng,
            journal_id: None,
            mark: (0, 0),
            generations: BTreeMap::new(),
            table: Table::new(),
            damaged: BTreeSet::new(),
            full: false,
            failing_syncs: 0,
            hits: Vec::new(),
            counts: DiskCounts::default(),
        }
    }

    /// The power went while nothing ran, or the moment that the process died.
    pub fn cut(&mut self, rng: &mut fastrand::Rng) {
        self.counts.cuts += 1;
        let mut torn = false;
        self.generations
            .retain(|_, generation| generation.named || rng.bool());
        for generation in self.generations.values_mut() {
            torn |= generation.file.cut(rng);
        }
        let numbers: Vec<u64> = self.generations.keys().copied().collect();
        for number in numbers {
            self.learn(number, 0);
        }
        if rng.bool() {
            self.mark.0 = self.mark.1;
        }
        self.mark.1 = self.mark.0;
        self.counts.torn += u64::from(torn);
    }

    /// Another disk, empty.
    pub fn wipe(&mut self) {
        self.counts.wipes += 1;
        self.journal_id = None;
        self.mark = (0, 0);
        self.generations.clear();
        self.table.clear();
        self.damaged.clear();
    }

    /// It is full, or is not any more.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Whether it is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The next `n` syncs of the journal or of the rows fail.
    pub fn fail_syncs(&mut self, n: u32) {
        self.failing_syncs += n;
    }

    /// What happened to it.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.counts
    }

    /// A write, if there is room.
    pub(crate) fn room(&mut self) -> Result<(), StoreError> {
        if !self.full {
            return Ok(());
        }
        self.counts.refused_writes += 1;
        Err(io("write", std::io::ErrorKind::StorageFull))
    }

    /// A sync, if it is not one that fails.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        if self.failing_syncs == 0 {
            return Ok(());
        }
        self.failing_syncs -= 1;
        self.counts.failed_syncs += 1;
        Err(io("sync", std::io::ErrorKind::Other))
    }

    /// Syncs the mark, which another write went before; whether it is on disk now.
    pub(crate) fn sync_mark(&mut self) -> bool {
        let synced = self.sync().is_ok();
        if synced {
            self.mark.0 = self.mark.1;
        }
        synced
    }

    /// How long the next sync takes.
    pub(crate) fn sync_ms(&mut self) -> u64 {
        match self.rng.u8(..) {
            0..=3 => self.rng.u64(200..2_000),
            4..=40 => self.rng.u64(30..200),
            _ => self.rng.u64(1..30),
        }
    }

    /// The packs of a generation.
    pub(crate) fn index(&self, number: u64, end: Position) -> Option<Index> {
        let id = self.journal_id?;
        let generation = self.generations.get(&number)?;
        let bytes = generation.file.bytes();
        Some(Index::of_bytes(id, number, generation.first, end, bytes))
    }

    /// The names of the generations.
    pub(crate) fn names(&self) -> BTreeMap<u64, Generation> {
        let name = |(number, generation): (&u64, &GenerationFile)| {
            let name = Generation {
                number: *number,
                first: generation.first,
                dir: std::path::PathBuf::new(),
            };
            (*number, name)
        };
        self.generations.iter().map(name).collect()
    }

    /// Whether a record would be found if the power went now.
    #[must_use]
    pub fn holds_record(&self, terminal: &str, sequence: u64) -> bool {
        self.generations.values().any(|generation| {
            generation.known.iter().any(|(range, records)| {
                generation.file.is_durable(range)
                    && records.iter().any(|(t, s)| t == terminal && *s == sequence)
            })
        })
    }

    /// What is written to a generation is known by what lies in it.
    pub(crate) fn learn(&mut self, number: u64, from: usize) {
        let Some(id) = self.journal_id else { return };
        let Some(generation) = self.generations.get_mut(&number) else {
            return;
        };
        generation.known.retain(|(range, _)| range.end <= from);
        let known = records_in(id, number, generation.first, generation.file.bytes(), from);
        generation.known.extend(known);
    }

    /// Damage: somewhere a bit is another, if there is any. Of a gateway that does
    /// not run.
    pub fn flip_a_bit(&mut self, rng: &mut fastrand::Rng) {
        let hit = self.flip(rng);
        self.hits.extend(hit);
    }

    /// What flipped bits have hit since the last call.
    pub fn take_hits(&mut self) -> Vec<Hit> {
        std::mem::take(&mut self.hits)
    }

    fn flip(&mut self, rng: &mut fastrand::Rng) -> Option<Hit> {
        let rows = self.table.len();
        let packs: usize = self.generations.values().map(|g| g.known.len()).sum();
        if rows + packs == 0 {
            return None;
        }
        self.counts.flips += 1;
        let at = rng.usize(0..rows + packs);
        if at < rows {
            let key = self.table.keys().nth(at)?.clone();
            let value = self.table.remove(&key)?;
            self.damaged.insert(key.clone());
            return Some(hit_of_row(&key, &value));
        }
        let (number, nth) = self
            .generations
            .iter()
            .flat_map(|(number, g)| (0..g.known.len()).map(move |nth| (*number, nth)))
            .nth(at - rows)?;
        let generation = self.generations.get_mut(&number)?;
        let (range, records) = generation.known.remove(nth);
        generation.file.flip(rng.usize(range), rng.u8(..));
        Some(Hit {
            records,
            ..Hit::default()
        })
    }
}

/// What a row tells, for whoever damages it.
fn hit_of_row(key: &[u8], value: &[u8]) -> Hit {
    if let Some((terminal, receipt)) = receipt_of(key, value) {
        return Hit {
            receipts: vec![(terminal, receipt.sequence)],
            ..Hit::default()
        };
    }
    let resends = key.starts_with(b"j/");
    Hit {
        resends,
        other: !resends,
        ..Hit::default()
    }
}

/// A receipt's row, as an auditor reads it (the layout stands with the outbox).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceiptAt {
    pub(crate) sequence: u64,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// The receipt in a row; none if it holds another thing.
pub(crate) fn receipt_of(key: &[u8], value: &[u8]) -> Option<(String, ReceiptAt)> {
    let rest = key.strip_prefix(b"or")?;
    let terminal = rest.get(..rest.len().checked_sub(9)?)?;
    let receipt = ReceiptAt {
        sequence: u64::from_be_bytes(value.get(9..17)?.try_into().ok()?),
        partition: i32::from_be_bytes(value.get(43..47)?.try_into().ok()?),
        offset: i64::from_be_bytes(value.get(47..55)?.try_into().ok()?),
    };
    Some((String::from_utf8(terminal.to_vec()).ok()?, receipt))
}

/// The packs from an offset on: where each lies, and which records are in it.
fn records_in(
    id: JournalId,
    number: u64,
    first: Position,
    bytes: &[u8],
    from: usize,
) -> Vec<PackKnown> {
    let index = Index::of_bytes(id, number, first, Position::MAX, &bytes[from..]);
    let mut found = Vec::new();
    for pack in index.packs_from(0) {
        let at = from + pack.offset as usize;
        let range = at..at + pack.bytes as usize;
        let Some(whole) = pack.decode(Bytes::copy_from_slice(&bytes[range.clone()])) else {
            continue;
        };
        let mut batch = batch_from(whole.0.first);
        let bounds = Bounds {
            records_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let mut one = std::iter::once(Ok::<(Header, Bytes), StoreError>(whole));
        let _ = bounds.collect(&mut one, Position::MAX, &mut batch);
        found.push((range, batch.records.iter().filter_map(name_of).collect()));
    }
    found
}

/// Terminal and sequence number of a record.
pub(crate) fn name_of(record: &Record) -> Option<(String, u64)> {
    let Identity::Sequence { sequence, .. } = record.record.identity else {
        return None;
    };
    let terminal = String::from_utf8(record.record.client_id.to_vec()).ok()?;
    Some((terminal, sequence))
}

fn io(action: &'static str, kind: std::io::ErrorKind) -> StoreError {
    StoreError::Io {
        action,
        path: std::path::PathBuf::from("disk"),
        source: kind.into(),
    }
}
