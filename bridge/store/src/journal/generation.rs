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
//! A pack whose tag does not fit the key is damage as well as one whose checksum
//! does not fit its bytes.
//!
//! A generation ends where the next one begins. What it holds beyond that was
//! never acknowledged.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::encryption::PackCipher;
use crate::key_check::{self, Evidence};
use crate::record::Position;
use crate::{StoreError, files, raw_scan};

use super::index::Index;
use super::pack::{self, Header, JournalId};

type Result<T> = std::result::Result<T, StoreError>;

/// A generation's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Grows by one or more from each to the next.
    pub number: u64,
    /// The first position it is responsible for.
    pub first: Position,
    /// Where it lies.
    pub dir: PathBuf,
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

/// A generation that nobody writes any more: its file, and where its packs lie.
pub(crate) struct SealedGeneration {
    pub(crate) generation: Generation,
    /// `None`: it is gone, and so are its packs.
    file: Option<File>,
    pub(crate) index: Index,
    cipher: Option<PackCipher>,
}

impl SealedGeneration {
    /// Finds the packs at `generation.first..end`.
    pub(crate) fn open(
        journal: JournalId,
        generation: &Generation,
        end: Position,
        cipher: Option<PackCipher>,
    ) -> Result<Self> {
        let path = generation.dir.join("db");
        let mut index = Index::new(journal, generation.number, generation.first, end);
        let file = match File::open(&path) {
            Ok(file) => Some(file),
            // It stays in its place, without a record: the one before it must
            // not answer for its positions.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(StoreError::io("open", &path, e)),
        };
        if file.is_some() {
            raw_scan::scan_file(
                &path,
                pack::MAGIC,
                pack::PACK_BYTES_MAX,
                &mut |offset, bytes| {
                    index.found_if(offset, bytes, &|header, body| {
                        // Without a key that is for who wants to read it to tell.
                        let Some(cipher) = cipher.as_ref().filter(|_| header.encrypted) else {
                            return true;
                        };
                        let body = Bytes::copy_from_slice(body);
                        header.open(bytes, body, Some(cipher)).is_some()
                    })
                },
            )?;
        }
        index.sort();
        Ok(Self {
            generation: generation.clone(),
            file,
            index,
            cipher,
        })
    }

    /// The packs from the one that holds `from` on. A pack that can't be read as
    /// it was indexed is left out.
    pub(crate) fn packs_from(
        &self,
        from: Position,
    ) -> impl Iterator<Item = Result<(Header, Bytes)>> + '_ {
        self.index.packs_from(from).iter().filter_map(|pack| {
            let mut bytes = vec![0; pack.bytes as usize];
            if let Err(e) = self.file.as_ref()?.read_exact_at(&mut bytes, pack.offset) {
                let path = self.generation.dir.join("db");
                return Some(Err(StoreError::io("read", &path, e)));
            }
            let bytes = Bytes::from(bytes);
            let (header, body) = pack.decode(bytes.clone())?;
            if header.encrypted && self.cipher.is_none() {
                return Some(Err(key_check::missing(&self.generation.dir)));
            }
            let body = header.open(&bytes, body, self.cipher.as_ref())?;
            Some(Ok((header, body)))
        })
    }
}

/// What the packs of a journal say about a key: a generation is written by one
/// process, so the newest that holds any pack tells.
pub(crate) fn evidence(
    journal_dir: &Path,
    cipher_of: &dyn Fn(&JournalId) -> PackCipher,
) -> Result<Evidence> {
    for dir in files::list(journal_dir)?.iter().rev() {
        let path = dir.join("db");
        if Generation::from_dir(dir).is_none() || !files::is_file(&path)? {
            continue;
        }
        let mut found = None;
        raw_scan::scan_file(&path, pack::MAGIC, pack::PACK_BYTES_MAX, &mut |_, bytes| {
            let (header, body, length) = Header::decode(bytes)?;
            let told = if !header.encrypted {
                Evidence::None
            } else {
                let cipher = cipher_of(&header.journal);
                let body = Bytes::copy_from_slice(body);
                match header.open(bytes, body, Some(&cipher)) {
                    Some(_) => Evidence::For,
                    None => Evidence::Against,
                }
            };
            found = found.max(Some(told));
            Some(length)
        })?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Ok(Evidence::None)
}

#[cfg(test)]
mod tests;
