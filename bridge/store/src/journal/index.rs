//! Where the packs of one generation lie, found in its raw bytes. A core: bytes in,
//! positions out.
//!
//! Promises: only packs of this journal and this generation, whole by their
//! checksum, count; each position once. Never: a byte kept.

use bytes::Bytes;

use crate::record::Position;

use super::pack::{self, Header, JournalId};

/// Where a pack lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackAt {
    first: Position,
    group_first: Position,
    records: u32,
    fragment: u16,
    fragments: u16,
    /// From the beginning of the generation's bytes.
    pub offset: u64,
    /// With its header.
    pub bytes: u32,
}

impl PackAt {
    /// The pack out of the bytes that lie there now; none if they are not the pack
    /// that was found.
    #[must_use]
    pub fn decode(&self, bytes: Bytes) -> Option<(Header, Bytes)> {
        let (header, _, _) = Header::decode(&bytes)?;
        (header.first == self.first && header.fragment == self.fragment)
            .then(|| (header, bytes.slice(pack::HEADER_BYTES..)))
    }
}

/// The packs of a generation that nobody writes any more, in order.
#[derive(Debug, Clone)]
pub struct Index {
    journal: JournalId,
    number: u64,
    first: Position,
    end: Position,
    packs: Vec<PackAt>,
}

impl Index {
    /// Of generation `number`, responsible for `first..end`. Empty until
    /// [`Index::found`] was told of its packs.
    #[must_use]
    pub fn new(journal: JournalId, number: u64, first: Position, end: Position) -> Self {
        Self {
            journal,
            number,
            first,
            end,
            packs: Vec::new(),
        }
    }

    /// The same out of all of its bytes.
    #[must_use]
    pub fn of_bytes(
        journal: JournalId,
        number: u64,
        first: Position,
        end: Position,
        bytes: &[u8],
    ) -> Self {
        let mut index = Self::new(journal, number, first, end);
        let mut at = 0;
        while let Some(found) = bytes.get(at..).and_then(|rest| {
            rest.windows(pack::MAGIC.len())
                .position(|w| w == pack::MAGIC)
        }) {
            at += found;
            at += index.found(at as u64, &bytes[at..]).unwrap_or(1);
        }
        index.sort();
        index
    }

    /// The magic of a pack stands at `offset`: takes the pack if it is one, and
    /// tells its length.
    pub fn found(&mut self, offset: u64, bytes: &[u8]) -> Option<usize> {
        self.found_if(offset, bytes, &|_, _| true)
    }

    /// The same, but takes only a pack whose header and body `admits`.
    pub(crate) fn found_if(
        &mut self,
        offset: u64,
        bytes: &[u8],
        admits: &dyn Fn(&Header, &[u8]) -> bool,
    ) -> Option<usize> {
        let (header, body, length) = Header::decode(bytes)?;
        let ours = header.journal == self.journal && header.generation == self.number;
        let due = header.first >= self.first && header.first < self.end;
        if ours && due && admits(&header, body) {
            self.packs.push(PackAt {
                first: header.first,
                group_first: header.group_first,
                records: header.records,
                fragment: header.fragment,
                fragments: header.fragments,
                offset,
                bytes: length as u32,
            });
        }
        Some(length)
    }

    /// To be called once all packs were told.
    pub fn sort(&mut self) {
        // sled writes a pack anew whenever it rewrites its page.
        self.packs
            .sort_by_key(|pack| (pack.first, pack.fragment, pack.offset));
        self.packs.dedup_by_key(|pack| (pack.first, pack.fragment));
        self.packs.shrink_to_fit();
    }

    /// One past the last position it is responsible for.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// One past the last position that counts, for the newest generation after a
    /// crash: the end of the run of packs without a hole, except that a hole is
    /// skipped if a later pack, or the mark, says that it was durable (then it
    /// is damage, and what lies behind it was acknowledged). What lies behind
    /// any other hole belongs to the group that the cut tore.
    #[must_use]
    pub fn find_end(&self, mark: Position) -> Position {
        let proven = self.proven(mark);
        let mut end = self.first;
        for run in self.runs() {
            if run.start > end && end >= proven {
                break;
            }
            end = end.max(run.end);
        }
        end.max(proven)
    }

    /// One past the last position that a later pack, or the mark, says was
    /// durable.
    #[must_use]
    pub fn proven(&self, mark: Position) -> Position {
        self.packs
            .iter()
            .map(|pack| pack.group_first)
            .fold(mark.max(self.first), Position::max)
    }

    /// Positions without a whole record.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let mut missing = 0;
        let mut next = self.first;
        for run in self.runs() {
            missing += run.start.saturating_sub(next);
            next = next.max(run.end);
        }
        missing + self.end.saturating_sub(next)
    }

    /// The positions of each whole pack or whole set of fragments.
    fn runs(&self) -> impl Iterator<Item = std::ops::Range<Position>> + '_ {
        self.packs
            .chunk_by(|a, b| a.first == b.first)
            .filter(|fragments| fragments.len() == usize::from(fragments[0].fragments))
            .map(|fragments| {
                fragments[0].first..fragments[0].first + u64::from(fragments[0].records)
            })
    }

    /// The packs from the one that holds `from` on.
    #[must_use]
    pub fn packs_from(&self, from: Position) -> &[PackAt] {
        let at = self
            .packs
            .partition_point(|pack| pack.first + u64::from(pack.records) <= from);
        &self.packs[at..]
    }
}

#[cfg(test)]
mod tests;
