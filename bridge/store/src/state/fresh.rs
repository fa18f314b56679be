//! A fresh database that takes the place of one that is damaged, can't be trusted any
//! more, or has grown far beyond what lives in it.
//!
//! It is filled under a name that the next opening deletes, gets its real name only
//! when it is whole and synced, and then takes the place of the old one in two renames
//! that the next opening finishes if need be.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::alarm::Alarm;
use crate::database::{Database, DatabaseOptions};
use crate::quarantine::Quarantine;
use crate::{StoreError, files};

use super::Shared;
use super::envelope::ENTRY;
use super::log::LogEnd;
use super::read::{Assembled, assemble};
use super::salvage::salvage;
use super::value::Value;
use super::writes::Writes;

type Result<T> = std::result::Result<T, StoreError>;

/// Finishes a replacement that a power cut interrupted.
pub(super) fn finish_replacement(dir: &Path, quarantine: &Quarantine) -> Result<()> {
    let fresh = dir.join("fresh");
    if !files::is_dir(&fresh)? {
        return Ok(());
    }
    if files::is_dir(&dir.join("db"))? {
        quarantine.take_dir(&dir.join("db"), "state")?;
    }
    files::rename(&fresh, &dir.join("db"))
}

/// Moves the contents to a fresh database, which takes the old one's place;
/// says what was damaged on the way, if anything. Readers go on with the old
/// one until then. `log_end` is how far the row log reached at `durable_stamp`.
pub(super) fn move_to_fresh(
    shared: &Shared,
    durable_stamp: u64,
    log_end: LogEnd,
) -> Result<Option<Alarm>> {
    let dir = &shared.dir;
    clear_the_way(dir)?;
    let old = shared.database()?;
    let options = &shared.database_options;
    let copied = copy(&old, &building(dir), options, durable_stamp, log_end);
    let damage = match copied {
        Ok(()) => None,
        Err(error) => {
            // An I/O error too: sled gives its first one back for ever, also when
            // the disk is well again. If it is not, this fails and is tried again.
            tracing::warn!(%error, "state: copying failed, salvaging from raw bytes");
            let (salvaged, _) = salvage(&dir.join("db"), dir, options, durable_stamp)?;
            (!error.is_io()).then_some((error, salvaged))
        }
    };
    replace(shared, damage)
}

/// How a compaction ended that did not succeed.
pub(super) enum NotCompacted {
    /// Nothing has changed.
    Kept(StoreError),
    /// The database must not be written to any more: only
    /// [`move_to_fresh`] leads on.
    Displaced(StoreError),
}

/// Does the same with a database that is well, only because its file has grown: sled
/// keeps a segment for as long as one page in it is the newest of its kind.
pub(super) fn compact(
    shared: &Shared,
    durable_stamp: u64,
    log_end: LogEnd,
) -> std::result::Result<(), NotCompacted> {
    let dir = &shared.dir;
    let copied = clear_the_way(dir).and_then(|()| {
        let old = shared.database()?;
        let options = &shared.database_options;
        copy(&old, &building(dir), options, durable_stamp, log_end)
    });
    if let Err(error) = copied {
        // A full disk needs that room.
        let _ = files::remove_dir(&building(dir));
        return Err(NotCompacted::Kept(error));
    }
    match replace(shared, None) {
        Ok(_) => Ok(()),
        Err(error) => Err(NotCompacted::Displaced(error)),
    }
}

fn building(dir: &Path) -> PathBuf {
    dir.join("fresh.building")
}

/// Clears what a try before this one left, however far it got. At every instant one
/// whole database is on disk.
fn clear_the_way(dir: &Path) -> Result<()> {
    if files::is_dir(&dir.join("fresh"))? && !files::is_dir(&dir.join("db"))? {
        files::rename(&dir.join("fresh"), &dir.join("db"))?;
    }
    for left in [&building(dir), &dir.join("fresh")] {
        if files::is_dir(left)? {
            files::remove_dir(left)?;
        }
    }
    Ok(())
}

/// Puts what was built in the place of the database.
fn replace(shared: &Shared, damage: Option<(StoreError, u64)>) -> Result<Option<Alarm>> {
    let dir = &shared.dir;
    files::rename(&building(dir), &dir.join("fresh"))?;
    let mut alarm = None;
    if let Some((error, salvaged)) = damage {
        alarm = Some(Alarm::StateDamaged {
            reason: error.to_string(),
            salvaged,
            quarantined: shared.quarantine.take_dir(&dir.join("db"), "state")?,
        });
    } else if files::is_dir(&dir.join("db"))? {
        files::remove_dir(&dir.join("db"))?;
    }
    files::rename(&dir.join("fresh"), &dir.join("db"))?;
    let fresh = Database::open(&dir.join("db"), &shared.database_options)?;
    *shared.database.write() = Some(Arc::new(fresh));
    shared.disk.changed();
    Ok(alarm)
}

/// Copies every live entry of an open database. What that says of the row log may be of
/// the commit that failed: the copy says `log_end`.
fn copy(
    old: &Database,
    building: &Path,
    options: &DatabaseOptions,
    durable_stamp: u64,
    log_end: LogEnd,
) -> Result<()> {
    let fresh = Database::create(building, options)?;
    let mut filler = Filler::new(&fresh, durable_stamp);
    filler.writes.log_end(log_end);
    let mut from = Bound::Unbounded;
    loop {
        let page = old.page(from.as_ref().map(Vec::as_slice), PAGE, |key| {
            key.first() == Some(&ENTRY)
        })?;
        for (stored_key, bytes) in &page {
            match assemble(old, stored_key, bytes)? {
                Assembled::Whole(Some(value)) => filler.put(&stored_key[1..], &value)?,
                Assembled::Whole(None) => {}
                Assembled::Damaged => {
                    return Err(StoreError::Damaged {
                        what: "an entry, while copying".to_string(),
                        path: old.dir().to_path_buf(),
                    });
                }
            }
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => from = Bound::Excluded(key.to_vec()),
            _ => break,
        }
    }
    filler.finish()?;
    Ok(())
}

const PAGE: usize = 256;

/// Fills a fresh database, in batches with a sync each.
pub(super) struct Filler<'a> {
    database: &'a Database,
    stamp: u64,
    writes: Writes,
    entries: u64,
}

impl<'a> Filler<'a> {
    pub(super) fn new(database: &'a Database, stamp: u64) -> Self {
        Self {
            database,
            stamp,
            writes: Writes::default(),
            entries: 0,
        }
    }

    pub(super) fn put(&mut self, key: &[u8], value: &Value) -> Result<()> {
        self.writes.put(key, value);
        self.entries += 1;
        if self.writes.keys() >= PAGE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let writes = std::mem::take(&mut self.writes);
        // The durable stamp says: nothing of this is a torn group.
        writes.apply(self.database, self.stamp, self.stamp)?;
        self.database.sync()
    }

    pub(super) fn finish(mut self) -> Result<u64> {
        if !self.writes.is_empty() || self.entries == 0 {
            self.flush()?;
        }
        Ok(self.entries)
    }
}
