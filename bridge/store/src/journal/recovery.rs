//! Opening the journal: where it ends, and what its dedup must know.
//!
//! Only names are listed, and only generations beyond the last checkpoint are
//! read: the time does not grow with the backlog. Nothing is written except, after
//! a kill, the newest generation anew: what is read from it (and forwarded) must
//! not be taken back by a later power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::database::DatabaseOptions;
use crate::disk::Disk;
use crate::encryption::PackCipher;
use crate::mark::Mark;
use crate::options::StoreOptions;
use crate::quarantine::Quarantine;
use crate::record::Position;
use crate::state::{OpenReport, State};
use crate::{StoreError, files, limits};

use super::clients::Clients;
use super::committer::Start;
use super::generation::{Generation, SealedGeneration};
use super::health::Counters;
use super::pack::{self, Header, JournalId};
use super::positions::{Positions, never_written};
use super::{Progress, Queue, Shared};

type Result<T> = std::result::Result<T, StoreError>;

pub(super) fn open(
    options: &StoreOptions,
    state: Arc<State>,
    disk: Arc<Disk>,
) -> Result<(Shared, Start, OpenReport)> {
    let dir = options.dir.join("journal");
    files::create_dir(&dir)?;
    files::sweep_leftovers(&dir)?;
    let mut generations: BTreeMap<u64, Generation> = files::list(&dir)?
        .iter()
        .filter_map(|path| Generation::from_dir(path))
        .map(|generation| (generation.number, generation))
        .collect();
    let id = journal_id(&dir, &generations)?;
    let cipher = options.key.as_ref().map(|key| PackCipher::of(key, &id));
    let mut mark = Mark::open(&dir.join("mark"))?;
    let mut clients = Clients::open(state, id)?;
    let floor = mark.value().max(clients.checkpointed()).max(1);

    let end = match generations.values().next_back() {
        Some(newest) => end_of_newest(id, newest, floor, cipher.as_ref())?,
        None => floor,
    };
    // Where the newest pack is damaged only the mark knows that its positions were
    // used. The next power cut must not take that.
    if let Err(error) = mark.raise(end).and_then(|()| mark.sync()) {
        tracing::warn!(%error, "journal: the mark could not be synced");
    }
    let number = generations.keys().next_back().map_or(1, |last| last + 1);
    // What holds nothing (its first append was cut off) is in the way of nobody,
    // but it would be listed for ever.
    let empty = never_written(&generations);
    for number in empty {
        if let Some(generation) = generations.remove(&number) {
            files::remove_dir(&generation.dir)?;
        }
    }

    let shared = Shared {
        id,
        id_hex: hex(&id),
        cipher,
        options: options.clone(),
        database_options: DatabaseOptions::of(options, limits::GENERATION_CACHE_BYTES),
        disk,
        quarantine: Quarantine::open(options)?,
        queue: Mutex::new(Queue::default()),
        arrived: Condvar::new(),
        progress: Mutex::new(Progress {
            positions: Positions::new(generations, &options.consumers, end, clients.checkpointed()),
            live: None,
            damaged: BTreeSet::new(),
            leftovers: Vec::new(),
            removal_unsynced: false,
        }),
        advanced: Condvar::new(),
        removing: Mutex::new(()),
        readers: Mutex::new(Vec::new()),
        counters: Mutex::new(Counters::default()),
        dir,
    };
    let mut report = OpenReport::default();
    report.salvaged += learn(&shared, &mut clients, end)?;
    {
        let health = shared.health();
        report.damaged_positions = health.damaged_positions;
        report.quarantined = health.quarantined_generations;
        report.alarms = health.alarms;
    }
    clients.begin_checkpoint(end);
    let start = Start {
        clients,
        mark,
        end,
        number,
    };
    Ok((shared, start, report))
}

/// Finds the end of the newest generation, and makes sure that it is on disk.
///
/// What it holds beyond what is proven durable was written by the last group
/// before a kill. It may stand in the page cache only; and if its sync failed,
/// clean, so that no sync of this file would ever write it. So the file is
/// written anew, which a kill makes necessary once and a clean end never.
fn end_of_newest(
    id: JournalId,
    newest: &Generation,
    floor: Position,
    cipher: Option<&PackCipher>,
) -> Result<Position> {
    let path = newest.dir.join("db");
    let copy = newest.dir.join("db.copy");
    let sealed = SealedGeneration::open(id, newest, Position::MAX, cipher.cloned())?;
    let end = sealed.index.find_end(floor);
    if end > sealed.index.proven(floor) {
        match files::copy_bytes(&path, &copy).and_then(|()| files::rename(&copy, &path)) {
            Ok(()) => {}
            // A full disk must not keep the backlog from being drained.
            Err(error) if error.is_full() => {
                let _ = fs::remove_file(&copy);
                reread(&path)?;
            }
            Err(error) => return Err(error),
        }
        let anew = SealedGeneration::open(id, newest, Position::MAX, cipher.cloned())?;
        return Ok(anew.index.find_end(floor));
    }
    Ok(end)
}

/// Without space for a copy: syncs the file and drops what memory holds of it, so
/// that it is read from the disk itself. Pages whose sync failed before count as
/// clean, and would be taken for what the disk has; a resend of what they hold
/// would be acknowledged as known, and lost with the power.
fn reread(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| {
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    });
    synced.map_err(|e| StoreError::io("sync", path, e))
}

/// Reads what the last checkpoint does not cover; the readers on the way find
/// and count damage. Returns the records read.
fn learn(shared: &Shared, clients: &mut Clients, end: Position) -> Result<u64> {
    let mut next = clients
        .checkpointed()
        .max(shared.progress.lock().positions.oldest());
    let mut records = 0;
    while next < end {
        let batch = super::read::read(shared, next, 4_096, 4 * 1024 * 1024)?;
        if batch.next <= next {
            break;
        }
        for record in &batch.records {
            clients.learn(&record.record)?;
        }
        records += batch.records.len() as u64;
        next = batch.next;
    }
    let damaged = shared.counters.lock().damaged_positions;
    Ok(if damaged > 0 { records } else { 0 })
}

/// The journal's id: from its file, else from any pack, else a new one.
fn journal_id(dir: &Path, generations: &BTreeMap<u64, Generation>) -> Result<JournalId> {
    let path = dir.join("id");
    match fs::read(&path) {
        Ok(bytes) => {
            if let Some(id) = parse_id(&bytes) {
                return Ok(id);
            }
            tracing::error!("journal: its id file is damaged, the id is taken from its packs");
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(StoreError::io("read", &path, e)),
    }
    let mut found = None;
    for generation in generations.values().rev() {
        let db = generation.dir.join("db");
        if found.is_none() && files::is_file(&db)? {
            crate::raw_scan::scan_file(&db, pack::MAGIC, pack::PACK_BYTES_MAX, &mut |_, bytes| {
                let (header, _, length) = Header::decode(bytes)?;
                if header.generation == generation.number {
                    found = Some(header.journal);
                }
                Some(length)
            })?;
        }
    }
    let id = match found {
        Some(id) => id,
        None => random_id()?,
    };
    let text = hex(&id);
    let crc = crc32c::crc32c(text.as_bytes());
    files::write_whole(&path, format!("{text}{crc:08x}").as_bytes())?;
    Ok(id)
}

fn random_id() -> Result<JournalId> {
    let path = Path::new("/dev/urandom");
    let mut id = JournalId::default();
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut id))
        .map_err(|e| StoreError::io("read", path, e))?;
    Ok(id)
}

fn parse_id(bytes: &[u8]) -> Option<JournalId> {
    let text = std::str::from_utf8(bytes.get(..40)?).ok()?;
    let crc = u32::from_str_radix(text.get(32..)?, 16).ok()?;
    if bytes.len() != 40 || crc32c::crc32c(&bytes[..32]) != crc {
        return None;
    }
    let number = u128::from_str_radix(text.get(..32)?, 16).ok()?;
    Some(number.to_be_bytes())
}

fn hex(id: &JournalId) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}
