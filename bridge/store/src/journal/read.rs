//! Reading in order: from the tail in memory, from the generation that is being
//! written, from a sealed one. Damage is skipped and counted, never a stop.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::database::Database;
use crate::record::{Position, ReadBatch, Record};
use crate::{StoreError, limits};

use super::Shared;
use super::generation::{Generation, SealedGeneration};
use super::pack::{self, Header};

type Result<T> = std::result::Result<T, StoreError>;

/// Packs looked at in one go while reading the generation that is being written.
const LIVE_PACKS: usize = 64;

struct Bounds {
    records_max: usize,
    bytes_max: usize,
}

pub(super) fn read(
    shared: &Shared,
    from: Position,
    records_max: usize,
    bytes_max: usize,
) -> Result<ReadBatch> {
    let bounds = Bounds {
        records_max: records_max.max(1),
        bytes_max,
    };
    let mut batch = ReadBatch {
        next: from.max(1),
        ..ReadBatch::default()
    };
    while batch.records.is_empty() {
        let source = {
            let progress = shared.progress.lock();
            if batch.next >= progress.end {
                break;
            }
            if progress
                .tail
                .read(&mut batch, bounds.records_max, bounds.bytes_max)
            {
                break;
            }
            progress.source_of(batch.next)
        };
        match source {
            // Nothing holds it: deleted, or lost with its generation.
            Source::Gone { next } => {
                batch.damaged += next - batch.next;
                batch.next = next;
            }
            Source::Live { database, end } => {
                read_live(shared, &database, end, &bounds, &mut batch)?
            }
            Source::Sealed { generation, end } => {
                let sealed = shared.sealed(&generation, end)?;
                let mut packs = sealed.packs_from(batch.next);
                if collect(&mut packs, end, &bounds, &mut batch)? {
                    batch.damaged += end - batch.next;
                    batch.next = end;
                }
            }
        }
    }
    Ok(batch)
}

/// Who holds a position.
pub(super) enum Source {
    Live {
        database: Arc<Database>,
        end: Position,
    },
    Sealed {
        generation: Generation,
        end: Position,
    },
    Gone {
        next: Position,
    },
}

fn read_live(
    shared: &Shared,
    database: &Database,
    end: Position,
    bounds: &Bounds,
    batch: &mut ReadBatch,
) -> Result<()> {
    let looked = || -> Result<_> {
        let start = database.at_or_below(&pack::key(batch.next, u16::MAX))?;
        let start = match start {
            Some((key, _)) => Bytes::copy_from_slice(&key[..8.min(key.len())]),
            None => Bytes::new(),
        };
        database.page(Bound::Included(&start), LIVE_PACKS, |_| true)
    };
    let page = match looked() {
        Ok(page) => page,
        Err(error) => {
            // Sealed, it is read without sled, and damage costs what it hit.
            shared.ask_seal();
            return Err(error);
        }
    };
    let whole_generation = page.len() < LIVE_PACKS;
    let mut packs = page.iter().filter_map(|(_, value)| {
        let (header, body, _) = Header::decode(value)?;
        Some(Ok((header, Bytes::copy_from_slice(body))))
    });
    if collect(&mut packs, end, bounds, batch)? && whole_generation && batch.records.is_empty() {
        shared.ask_seal();
        batch.damaged += end - batch.next;
        batch.next = end;
    }
    Ok(())
}

/// Takes records until a bound or `end` is reached; `true` if the packs ran out
/// before.
fn collect(
    packs: &mut dyn Iterator<Item = Result<(Header, Bytes)>>,
    end: Position,
    bounds: &Bounds,
    batch: &mut ReadBatch,
) -> Result<bool> {
    let mut bytes = 0;
    let mut fragments: Vec<Bytes> = Vec::new();
    for found in packs {
        let (header, body) = found?;
        if header.first >= end {
            break;
        }
        let body = if header.fragments == 1 {
            body
        } else {
            if header.fragment == 0 {
                fragments.clear();
            }
            if usize::from(header.fragment) != fragments.len() {
                continue;
            }
            fragments.push(body);
            if fragments.len() < usize::from(header.fragments) {
                continue;
            }
            Bytes::from(std::mem::take(&mut fragments).concat())
        };
        let Some(records) = pack::records_of(&header, body) else {
            continue;
        };
        for (position, record) in (header.first..end).zip(records) {
            if position < batch.next {
                continue;
            }
            let record_bytes = pack::record_bytes(&record);
            let full = batch.records.len() >= bounds.records_max
                || bytes + record_bytes > bounds.bytes_max;
            if full && !batch.records.is_empty() {
                return Ok(false);
            }
            batch.damaged += position - batch.next;
            batch.next = position + 1;
            bytes += record_bytes;
            batch.records.push(Record { position, record });
        }
    }
    Ok(batch.next < end)
}

impl Shared {
    /// The sealed generation, from the few that are kept open.
    fn sealed(&self, generation: &Generation, end: Position) -> Result<Arc<SealedGeneration>> {
        let mut readers = self.readers.lock();
        let known = readers
            .iter()
            .position(|open| open.generation.number == generation.number && open.end == end);
        if let Some(at) = known {
            let open = readers.remove(at);
            readers.push(Arc::clone(&open));
            return Ok(open);
        }
        let opened = Arc::new(SealedGeneration::open(self.id, generation, end)?);
        let missing = opened.missing();
        if missing > 0 {
            self.note_damage(
                generation,
                missing,
                "positions are missing or do not match their checksum",
            );
        }
        while readers.len() >= limits::READERS_MAX {
            readers.remove(0);
        }
        readers.push(Arc::clone(&opened));
        Ok(opened)
    }
}
