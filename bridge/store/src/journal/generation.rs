//! A generation: one append-only sled database, named by what it holds.
//!
//! | name in the journal's directory | what |
//! | --- | --- |
//! | `g-<number>-<first position>/` | a generation; both zero-padded decimals |
//! | `id` | the journal's id, 32 hex digits, and its CRC32C, 8 |
//! | `mark` | one past the last durable position, as in `mark.rs` |
//!
//! A generation is written by the process that created it, and only by it. Once
//! that is over, nobody opens it in sled again: sled's recovery writes to the
//! file (it overwrites whatever lies behind a damaged message, and it needs
//! space for a snapshot), and packs are found without it. So a sealed generation
//! is read from its raw bytes, by position, every pack checked: reading works on
//! a full disk, needs no memory but an index, and damage costs what it hit.
//!
//! A generation ends where the next one begins. What it holds beyond that was
//! never acknowledged.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::record::Position;
use crate::{StoreError, raw_scan};

use super::pack::{self, Header, JournalId};

type Result<T> = std::result::Result<T, StoreError>;

/// A generation's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) first: Position,
    pub(crate) dir: PathBuf,
}

impl Generation {
    pub(crate) fn new(journal_dir: &Path, number: u64, first: Position) -> Self {
        let dir = journal_dir.join(format!("g-{number:010}-{first:020}"));
        Self { number, first, dir }
    }

    pub(crate) fn from_dir(dir: &Path) -> Option<Self> {
        let mut parts = dir.file_name()?.to_str()?.split('-');
        let ("g", number, first, None) = (
            parts.next()?,
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
            parts.next(),
        ) else {
            return None;
        };
        Some(Self {
            number,
            first,
            dir: dir.to_path_buf(),
        })
    }
}

/// Where a pack lies.
#[derive(Debug, Clone, Copy)]
struct PackAt {
    first: Position,
    group_first: Position,
    records: u32,
    fragment: u16,
    fragments: u16,
    offset: u64,
    bytes: u32,
}

/// The packs of a generation that nobody writes any more, in order.
pub(crate) struct SealedGeneration {
    pub(crate) generation: Generation,
    /// One past the last position it is responsible for.
    pub(crate) end: Position,
    /// `None`: it is gone, and so are its packs.
    file: Option<File>,
    packs: Vec<PackAt>,
}

impl SealedGeneration {
    /// Finds the packs at `generation.first..end`.
    pub(crate) fn open(journal: JournalId, generation: &Generation, end: Position) -> Result<Self> {
        let path = generation.dir.join("db");
        let mut packs: Vec<PackAt> = Vec::new();
        let file = match File::open(&path) {
            Ok(file) => Some(file),
            // It stays in its place, without a record: the one before it must
            // not answer for its positions.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(StoreError::io("open", &path, e)),
        };
        let mut found = |offset, bytes: &[u8]| {
            let (header, _, length) = Header::decode(bytes)?;
            let ours = header.journal == journal && header.generation == generation.number;
            if ours && header.first >= generation.first && header.first < end {
                packs.push(PackAt {
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
        };
        if file.is_some() {
            raw_scan::scan_file(&path, pack::MAGIC, pack::PACK_BYTES_MAX, &mut found)?;
        }
        // sled writes a pack anew whenever it rewrites its page.
        packs.sort_by_key(|pack| (pack.first, pack.fragment, pack.offset));
        packs.dedup_by_key(|pack| (pack.first, pack.fragment));
        packs.shrink_to_fit();
        Ok(Self {
            generation: generation.clone(),
            end,
            file,
            packs,
        })
    }

    /// One past the last position that counts, for the newest generation after a
    /// crash: the end of the run of packs without a hole, except that a hole is
    /// skipped if a later pack, or the mark, says that it was durable (then it
    /// is damage, and what lies behind it was acknowledged). What lies behind
    /// any other hole belongs to the group that the cut tore.
    pub(crate) fn find_end(&self, mark: Position) -> Position {
        let proven = self.proven(mark);
        let mut end = self.generation.first;
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
    pub(crate) fn proven(&self, mark: Position) -> Position {
        self.packs
            .iter()
            .map(|pack| pack.group_first)
            .fold(mark.max(self.generation.first), Position::max)
    }

    /// Positions without a whole record.
    pub(crate) fn missing(&self) -> u64 {
        let mut missing = 0;
        let mut next = self.generation.first;
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

    /// The packs from the one that holds `from` on. A pack that can't be read as
    /// it was indexed is left out.
    pub(crate) fn packs_from(
        &self,
        from: Position,
    ) -> impl Iterator<Item = Result<(Header, Bytes)>> + '_ {
        let at = self
            .packs
            .partition_point(|pack| pack.first + u64::from(pack.records) <= from);
        self.packs[at..].iter().filter_map(|pack| {
            let mut bytes = vec![0; pack.bytes as usize];
            if let Err(e) = self.file.as_ref()?.read_exact_at(&mut bytes, pack.offset) {
                let path = self.generation.dir.join("db");
                return Some(Err(StoreError::io("read", &path, e)));
            }
            let (header, _, _) = Header::decode(&bytes)?;
            let body = Bytes::from(bytes).slice(pack::HEADER_BYTES..);
            (header.first == pack.first && header.fragment == pack.fragment)
                .then_some(Ok((header, body)))
        })
    }
}
