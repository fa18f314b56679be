//! A number that only grows, kept beside a database: how far it was durable.
//!
//! If the database comes back shorter than its mark, bytes were lost in
//! silence, and a salvage is due. The mark is never ahead of the database: it
//! is written after the sync. It may lag (while there is work it is written
//! once a second, and synced only when there is none), which costs detection,
//! never truth.
//!
//! | offset | bytes | in each of two slots (slot 1 at byte 512) |
//! | --- | --- | --- |
//! | 0 | 4 | magic `RsM1` |
//! | 4 | 4 | version, 1 |
//! | 8 | 8 | the number, big-endian |
//! | 16 | 4 | CRC32C of bytes 0..16, big-endian |
//!
//! The slots are written in turn, so a torn write leaves the other one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{StoreError, files};

const MAGIC: &[u8; 4] = b"RsM1";
const VERSION: u32 = 1;
const SLOT_BYTES: u64 = 512;

/// An open mark.
pub(crate) struct Mark {
    path: PathBuf,
    file: File,
    value: u64,
    slot: u64,
    written: Written,
}

/// Where the value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// In memory: the next sync gets it to the disk.
    Unsynced,
    /// On disk.
    Durable,
    /// In memory, but a sync of it failed, or a life before this one may have met
    /// that: the page counts as clean, and only another write gets it to the disk.
    Stale,
}

impl Mark {
    /// Opens or creates the mark; a missing or damaged one reads as 0, one that the disk
    /// can't read is an error.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| StoreError::io("open", path, e))?;
        if let Some(dir) = path.parent() {
            files::sync_dir(dir)?;
        }
        let read = |slot| read_slot(&file, slot).map_err(|e| StoreError::io("read", path, e));
        let slots = [read(0)?, read(1)?];
        let newest = if slots[1] > slots[0] { 1 } else { 0 };
        Ok(Self {
            path: path.to_path_buf(),
            file,
            value: slots[newest].unwrap_or(0),
            slot: newest as u64,
            written: Written::Stale,
        })
    }

    /// The greatest number that was written.
    pub(crate) fn value(&self) -> u64 {
        self.value
    }

    /// Writes `value` if it is greater.
    pub(crate) fn raise(&mut self, value: u64) -> Result<(), StoreError> {
        if value <= self.value {
            return Ok(());
        }
        self.set(value)
    }

    /// Writes `value`, also a smaller one: for after a loss that was counted.
    pub(crate) fn set(&mut self, value: u64) -> Result<(), StoreError> {
        let mut bytes = [0_u8; 20];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_be_bytes());
        bytes[8..16].copy_from_slice(&value.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_be_bytes());
        let slot = 1 - self.slot;
        self.write_at(&bytes, slot)?;
        if value < self.value {
            // The other slot still says more.
            self.write_at(&bytes, 1 - slot)?;
        }
        self.slot = slot;
        self.value = value;
        self.written = Written::Unsynced;
        Ok(())
    }

    /// Whether a power cut leaves what [`Self::value`] says.
    pub(crate) fn is_durable(&self) -> bool {
        self.written == Written::Durable
    }

    fn write_at(&self, bytes: &[u8], slot: u64) -> Result<(), StoreError> {
        self.file
            .write_all_at(bytes, slot * SLOT_BYTES)
            .map_err(|e| StoreError::io("write", &self.path, e))
    }

    /// Makes the mark itself durable.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        if self.written == Written::Stale {
            self.set(self.value)?;
        }
        let synced = self.file.sync_data();
        self.written = match synced {
            Ok(()) => Written::Durable,
            Err(_) => Written::Stale,
        };
        synced.map_err(|e| StoreError::io("sync", &self.path, e))
    }
}

fn read_slot(file: &File, slot: u64) -> std::io::Result<Option<u64>> {
    let mut bytes = [0_u8; 20];
    match file.read_exact_at(&mut bytes, slot * SLOT_BYTES) {
        Ok(()) => Ok(value_of(&bytes)),
        // It was never written.
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

fn value_of(bytes: &[u8; 20]) -> Option<u64> {
    let crc = u32::from_be_bytes(bytes[16..20].try_into().ok()?);
    let version = u32::from_be_bytes(bytes[4..8].try_into().ok()?);
    if &bytes[..4] != MAGIC || version != VERSION || crc32c::crc32c(&bytes[..16]) != crc {
        return None;
    }
    Some(u64::from_be_bytes(bytes[8..16].try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_mark_falls_back_to_the_other_slot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let mut mark = Mark::open(&path).unwrap();
        mark.raise(7).unwrap();
        mark.raise(9).unwrap();
        let newest = mark.slot * SLOT_BYTES;
        mark.file.write_all_at(&[0xff; 3], newest + 9).unwrap();
        drop(mark);
        assert_eq!(Mark::open(&path).unwrap().value(), 7);
    }

    #[test]
    fn a_mark_of_another_life_is_written_again_before_its_sync() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let mut mark = Mark::open(&path).unwrap();
        mark.raise(7).unwrap();
        assert!(!mark.is_durable());
        mark.sync().unwrap();
        assert!(mark.is_durable());
        drop(mark);
        // That life may have died of a sync that failed: the page counts as clean.
        let mut mark = Mark::open(&path).unwrap();
        assert!(!mark.is_durable());
        let (newest, other) = (mark.slot, 1 - mark.slot);
        assert_eq!(read_slot(&mark.file, other).unwrap(), None);
        mark.raise(7).unwrap();
        mark.sync().unwrap();
        assert!(mark.is_durable());
        assert_eq!((mark.slot, mark.value()), (other, 7));
        for slot in [newest, other] {
            assert_eq!(read_slot(&mark.file, slot).unwrap(), Some(7));
        }
        // Once is enough.
        mark.sync().unwrap();
        assert_eq!(mark.slot, other);
    }

    #[test]
    fn a_mark_never_goes_back_by_raising() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mark");
        let mut mark = Mark::open(&path).unwrap();
        mark.raise(9).unwrap();
        mark.raise(3).unwrap();
        drop(mark);
        let mut mark = Mark::open(&path).unwrap();
        assert_eq!(mark.value(), 9);
        mark.set(3).unwrap();
        drop(mark);
        assert_eq!(Mark::open(&path).unwrap().value(), 3);
    }
}
