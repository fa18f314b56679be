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
use super::positions::{Positions, Source};

type Result<T> = std::result::Result<T, StoreError>;

/// Packs looked at in one go while reading the generation that is being written.
const LIVE_PACKS: usize = 64;

/// How much to read at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Records.
    pub records_max: usize,
    /// Their bytes; one record is given whatever its size.
    pub bytes_max: usize,
}

/// Where the records of a batch are to come from.
pub enum ReadOn {
    /// The batch has what it may have, or there is no more.
    Done,
    /// The packs of this generation, from `batch.next` on, until before `end`: they
    /// go to [`Bounds::collect`].
    Packs(Source),
}

/// Goes on with a batch as far as that needs no disk: the tail in memory, and what
/// is gone.
pub fn read_on(positions: &Positions, bounds: Bounds, batch: &mut ReadBatch) -> ReadOn {
    while batch.records.is_empty() && batch.next < positions.end() {
        let tail = &positions.tail;
        if tail.read(batch, bounds.records_max, bounds.bytes_max) {
            break;
        }
        match positions.source_of(batch.next) {
            // Nothing holds it: deleted, or lost with its generation.
            Source::Gone { next } => {
                batch.damaged += next - batch.next;
                batch.next = next;
            }
            source => return ReadOn::Packs(source),
        }
    }
    ReadOn::Done
}

/// A batch that begins at `from`.
#[must_use]
pub fn batch_from(from: Position) -> ReadBatch {
    ReadBatch {
        next: from.max(1),
        ..ReadBatch::default()
    }
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
    let mut batch = batch_from(from);
    loop {
        let (read_on, live) = {
            let progress = shared.progress.lock();
            let read_on = read_on(&progress.positions, bounds, &mut batch);
            (read_on, progress.live.clone())
        };
        match (read_on, live) {
            (ReadOn::Packs(Source::Live { end, .. }), Some(database)) => {
                read_live(shared, &database, end, bounds, &mut batch)?;
            }
            (
                ReadOn::Packs(
                    Source::Sealed { generation, end } | Source::Live { generation, end },
                ),
                _,
            ) => {
                let sealed = shared.sealed(&generation, end)?;
                let mut packs = sealed.packs_from(batch.next);
                if bounds.collect(&mut packs, end, &mut batch)? {
                    batch.damaged += end - batch.next;
                    batch.next = end;
                }
            }
            (ReadOn::Packs(Source::Gone { .. }) | ReadOn::Done, _) => return Ok(batch),
        }
    }
}

fn read_live(
    shared: &Shared,
    database: &Database,
    end: Position,
    bounds: Bounds,
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
        let body = header.open(value, Bytes::copy_from_slice(body), shared.cipher.as_ref())?;
        Some(Ok((header, body)))
    });
    if bounds.collect(&mut packs, end, batch)? && whole_generation && batch.records.is_empty() {
        shared.ask_seal();
        batch.damaged += end - batch.next;
        batch.next = end;
    }
    Ok(())
}

impl Bounds {
    /// Takes records until a bound or `end` is reached; `true` if the packs ran out
    /// before.
    ///
    /// # Errors
    /// Of the packs.
    pub fn collect(
        self,
        packs: &mut dyn Iterator<Item = Result<(Header, Bytes)>>,
        end: Position,
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
                let full = batch.records.len() >= self.records_max
                    || bytes + record_bytes > self.bytes_max;
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
}

impl Shared {
    /// The sealed generation, from the few that are kept open.
    fn sealed(&self, generation: &Generation, end: Position) -> Result<Arc<SealedGeneration>> {
        let mut readers = self.readers.lock();
        let known = readers.iter().position(|open| {
            open.generation.number == generation.number && open.index.end() == end
        });
        if let Some(at) = known {
            let open = readers.remove(at);
            readers.push(Arc::clone(&open));
            return Ok(open);
        }
        let opened = Arc::new(SealedGeneration::open(
            self.id,
            generation,
            end,
            self.cipher.clone(),
        )?);
        let missing = opened.index.missing();
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
