//! The state's contents from the raw bytes of a database that sled can't open or
//! read any more.
//!
//! Promises: the newest whole version of every entry that can be read, and never
//! a part of a commit that was not known to be durable. Memory grows with the
//! number of keys, not with their values.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::database::{Database, DatabaseOptions};
use crate::{StoreError, files, raw_scan};

use super::envelope::{ENTRY, ENVELOPE_BYTES_MAX, Envelope, Head, Kind, MAGIC, PIECE, piece_key};
use super::fresh::Filler;
use super::value::Value;

type Result<T> = std::result::Result<T, StoreError>;

/// Fills `fresh.building` with the newest whole version of every entry found in
/// the raw bytes of `from`; returns how many, and the last stamp of which all is
/// in it: the row log may have more, and that is then committed anew.
pub(super) fn salvage(
    from: &Path,
    dir: &Path,
    options: &DatabaseOptions,
    stamp_min: u64,
) -> Result<(u64, u64)> {
    let building = dir.join("fresh.building");
    if files::is_dir(&building)? {
        files::remove_dir(&building)?;
    }
    let index = Index::of(from)?;
    let stamp = index.last_stamp.max(stamp_min);
    let database = Database::create(&building, options)?;
    let mut filler = Filler::new(&database, stamp);
    let mut large: HashMap<Vec<u8>, (Head, u64, bool)> = HashMap::new();
    let mut filled: HashSet<Vec<u8>> = HashSet::new();
    let mut failure = None;
    raw_scan::scan_database(from, MAGIC, ENVELOPE_BYTES_MAX, &mut |_, bytes| {
        let (envelope, len) = Envelope::decode(bytes)?;
        let wanted = envelope.key.first() == Some(&ENTRY)
            && index.newest.get(envelope.key) == Some(&envelope.stamp)
            && !filled.contains(envelope.key);
        if wanted && failure.is_none() {
            filled.insert(envelope.key.to_vec());
            match envelope.kind {
                Kind::Value => {
                    let value = Value {
                        bytes: envelope.value.to_vec(),
                        encrypted: envelope.encrypted,
                    };
                    failure = filler.put(&envelope.key[1..], &value).err();
                }
                Kind::Head => {
                    if let Some(head) = Head::decode(envelope.value) {
                        large.insert(
                            envelope.key[1..].to_vec(),
                            (head, envelope.stamp, envelope.encrypted),
                        );
                    }
                }
                Kind::Tombstone | Kind::Piece => {}
            }
        }
        Some(len)
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    for (key, (head, stamp, encrypted)) in large {
        if let Some(bytes) = large_value(from, &key, head, stamp)? {
            filler.put(&key, &Value { bytes, encrypted })?;
        }
    }
    let entries = filler.finish()?;
    Ok((entries, stamp))
}

/// One large value from raw bytes: a scan for each, since it is rare and the
/// memory for all of them at once has no bound.
fn large_value(from: &Path, key: &[u8], head: Head, stamp: u64) -> Result<Option<Vec<u8>>> {
    let mut pieces: Vec<Option<Vec<u8>>> = vec![None; usize::from(head.pieces)];
    raw_scan::scan_database(from, MAGIC, ENVELOPE_BYTES_MAX, &mut |_, bytes| {
        let (envelope, len) = Envelope::decode(bytes)?;
        if envelope.kind == Kind::Piece
            && envelope.stamp == stamp
            && envelope.key.first() == Some(&PIECE)
            && let Some(last_two) = envelope.key.last_chunk::<2>()
        {
            let piece = u16::from_be_bytes(*last_two);
            if piece < head.pieces && envelope.key == piece_key(key, piece) {
                pieces[usize::from(piece)] = Some(envelope.value.to_vec());
            }
        }
        Some(len)
    })?;
    let Some(pieces) = pieces.into_iter().collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let value = pieces.concat();
    let whole = value.len() == head.total_bytes && crc32c::crc32c(&value) == head.crc;
    Ok(whole.then_some(value))
}

/// Which version of each key to take.
pub(super) struct Index {
    newest: HashMap<Vec<u8>, u64>,
    last_stamp: u64,
}

impl Index {
    /// The last stamp that some entry knows to be durable.
    pub(super) fn durable_stamp(from: &Path) -> Result<u64> {
        let mut durable = 0;
        scan(from, &mut |envelope| {
            durable = durable.max(envelope.durable_stamp);
        })?;
        Ok(durable)
    }

    /// The newest version of each key, except those of a group that was not
    /// known to be durable and is not whole: it was torn by the power cut.
    fn of(from: &Path) -> Result<Self> {
        let durable = Self::durable_stamp(from)?;
        let mut recent: HashMap<u64, (u16, HashSet<Vec<u8>>)> = HashMap::new();
        scan(from, &mut |envelope| {
            if envelope.stamp > durable {
                let (entries, keys) = recent.entry(envelope.stamp).or_default();
                *entries = envelope.batch_entries;
                keys.insert(envelope.key.to_vec());
            }
        })?;
        let torn: HashSet<u64> = recent
            .into_iter()
            .filter(|(_, (entries, keys))| keys.len() < usize::from(*entries))
            .map(|(stamp, _)| stamp)
            .collect();
        let mut newest: HashMap<Vec<u8>, u64> = HashMap::new();
        let mut last_stamp = durable;
        scan(from, &mut |envelope| {
            if torn.contains(&envelope.stamp) {
                return;
            }
            last_stamp = last_stamp.max(envelope.stamp);
            if envelope.key.first() == Some(&ENTRY) {
                let stamp = newest.entry(envelope.key.to_vec()).or_default();
                *stamp = (*stamp).max(envelope.stamp);
            }
        })?;
        Ok(Self { newest, last_stamp })
    }
}

fn scan(from: &Path, each: &mut dyn FnMut(&Envelope<'_>)) -> Result<()> {
    raw_scan::scan_database(from, MAGIC, ENVELOPE_BYTES_MAX, &mut |_, bytes| {
        let (envelope, len) = Envelope::decode(bytes)?;
        each(&envelope);
        Some(len)
    })
}

#[cfg(test)]
mod tests {
    use super::super::envelope::entry_key;
    use super::*;
    use crate::StoreOptions;

    /// Found by an ENOSPC that tore a group in the database, which the row log had
    /// whole, and a power cut after the salvage: with the torn group's stamp, only
    /// the half of it that lies in the row log was there afterwards.
    #[test]
    fn a_torn_group_does_not_lend_its_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("db");
        std::fs::create_dir(&from).unwrap();
        let mut bytes = Vec::new();
        // Commit 5 is whole; of the three entries of commit 6 one is there.
        for (name, stamp, batch_entries) in [("a", 5, 2), ("b", 5, 2), ("a", 6, 3)] {
            let envelope = Envelope {
                kind: Kind::Value,
                encrypted: false,
                stamp,
                durable_stamp: 4,
                batch_entries,
                key: &entry_key(name.as_bytes()),
                value: &[stamp as u8],
            };
            bytes.extend(envelope.encode());
        }
        std::fs::write(from.join("db"), bytes).unwrap();
        let options = DatabaseOptions::of(&StoreOptions::new(dir.path()), 1 << 20);
        assert_eq!(salvage(&from, dir.path(), &options, 4).unwrap(), (2, 5));
    }
}
