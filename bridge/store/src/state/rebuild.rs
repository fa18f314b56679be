//! Opening the state, and moving its contents to a fresh database when the old
//! one is damaged or can't be trusted any more.
//!
//! A fresh database is filled under a name that the next opening deletes, gets
//! its real name only when it is whole and synced, and then takes the place of
//! the old one in two renames that the next opening finishes if need be.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::alarm::Alarm;
use crate::database::{Database, DatabaseOptions};
use crate::disk::Disk;
use crate::encryption::ValueCipher;
use crate::mark::Mark;
use crate::options::StoreOptions;
use crate::quarantine::Quarantine;
use crate::{StoreError, files, limits};

use super::committer::Start;
use super::envelope::{ENTRY, Envelope, LAST_STAMP_KEY, LIFE_SHIFT, LOG_END_KEY};
use super::log::{self, LogEnd};
use super::read::{Assembled, assemble};
use super::salvage::{Index, salvage};
use super::seal;
use super::value::Value;
use super::writes::Writes;
use super::{OpenReport, Queue, Shared, StateHealth};

type Result<T> = std::result::Result<T, StoreError>;

pub(super) fn open(
    options: &StoreOptions,
    disk: Arc<Disk>,
    cipher: Option<ValueCipher>,
) -> Result<(Shared, Start, OpenReport)> {
    let dir = options.dir.join("state");
    let database_options = DatabaseOptions {
        segment_bytes: options.state_segment_bytes,
        ..DatabaseOptions::of(options, limits::STATE_CACHE_BYTES)
    };
    files::create_dir(&dir)?;
    files::sweep_leftovers(&dir)?;
    let quarantine = Quarantine::open(options)?;
    restore_before(&dir)?;
    finish_replacement(&dir, &quarantine)?;
    let mut mark = Mark::open(&dir.join("mark"))?;
    let mut report = OpenReport::default();

    let opened = open_checked(&dir, &database_options, &mark).or_else(|error| {
        if error.is_full() && disk.drop_ballast() {
            restore_before(&dir)?;
            return open_checked(&dir, &database_options, &mark);
        }
        Err(error)
    });
    // sled takes some of what it could not read for damaged. It had a copy: it gets
    // another one, and what is damaged is damaged there too.
    let opened = opened.or_else(|error| {
        if error.is_io() || !files::is_dir(&dir.join("before"))? {
            return Err(error);
        }
        restore_before(&dir)?;
        open_checked(&dir, &database_options, &mark)
    });
    let before = dir.join("before");
    let (database, last_stamp) = match opened {
        Ok(opened) => opened,
        Err(error) if error.is_io() => return Err(error),
        Err(error) => {
            restore_before(&dir)?;
            let (salvaged, stamp) =
                salvage(&dir.join("db"), &dir, &database_options, mark.value())?;
            files::rename(&dir.join("fresh.building"), &dir.join("fresh"))?;
            let quarantined = if files::is_dir(&dir.join("db"))? {
                quarantine.take_dir(&dir.join("db"), "state")?
            } else {
                "nothing, it was not there".to_string()
            };
            files::rename(&dir.join("fresh"), &dir.join("db"))?;
            let alarm = Alarm::StateDamaged {
                reason: error.to_string(),
                salvaged,
                quarantined,
            };
            tracing::error!(%alarm, "state: damaged");
            report.alarms.push(alarm);
            report.quarantined += 1;
            report.salvaged += salvaged;
            (Database::open(&dir.join("db"), &database_options)?, stamp)
        }
    };

    let file_bytes = (options.receipts_reserve_bytes / limits::LOG_FILE_RESERVE_PART)
        .min(*limits::LOG_FILE_BYTES.end())
        .max(options.row_file_bytes_min);
    let told_end = log_end(&database)?;
    let rows_dir = dir.join("rows");
    let mut rows = log::open(&rows_dir, last_stamp, told_end, file_bytes, &quarantine)?;
    if let Some(damage) = rows.damage.take() {
        let alarm = Alarm::RowsDamaged {
            reason: damage.reason,
            lost: damage.lost,
            kept: rows.log.size().0,
            quarantined: damage.quarantined,
        };
        tracing::error!(%alarm, "state: damaged");
        report.alarms.push(alarm);
    }

    // A new life: whatever a torn last group left has a smaller stamp.
    let stamp_max = last_stamp.max(mark.value()).max(rows.stamp_max);
    let stamp = ((stamp_max >> LIFE_SHIFT) + 1) << LIFE_SHIFT;
    let mut writes = Writes::default();
    let mut log_end = told_end.unwrap_or(rows.end);
    if !rows.redo.is_empty() {
        // In one step with the new stamp: with that, the old ones are done.
        for batch in &rows.redo {
            writes.add(batch, &database)?;
        }
        log_end = match rows.redo(stamp, &database_options) {
            Err(error) if error.is_full() && disk.drop_ballast() => {
                rows.redo(stamp, &database_options)?
            }
            redone => redone?,
        };
    }
    if told_end != Some(log_end) {
        writes.log_end(log_end);
    }
    writes.apply(&database, stamp, last_stamp)?;
    database.sync()?;
    // Before the mark: as long as the original can come back, the mark must not
    // speak of the copy.
    if files::is_dir(&before)? {
        files::remove_dir(&before)?;
    }
    mark.raise(stamp)?;
    mark.sync()?;

    let shared = Shared {
        dir,
        database_options,
        cipher,
        database: RwLock::new(Some(Arc::new(database))),
        quarantine,
        disk,
        rows: rows.log,
        queue: Mutex::new(Queue::default()),
        arrived: Condvar::new(),
        health: Mutex::new(StateHealth::default()),
        compact_bytes_min: options.state_compact_bytes_min,
        rebuild_asked: AtomicBool::new(false),
    };
    let start = Start {
        stamp,
        mark,
        log: rows.writer,
        log_end,
    };
    Ok((shared, start, report))
}

/// How far the row log must reach, if the database knows.
fn log_end(database: &Database) -> Result<Option<LogEnd>> {
    let Some(bytes) = database.get(LOG_END_KEY)? else {
        return Ok(None);
    };
    Ok(
        Envelope::decode_for(LOG_END_KEY, &bytes).and_then(|envelope| {
            let value: [u8; 16] = envelope.value.try_into().ok()?;
            Some(LogEnd {
                file: u32::from_be_bytes(value[..4].try_into().ok()?),
                length: u64::from_be_bytes(value[4..12].try_into().ok()?),
                salt: u32::from_be_bytes(value[12..].try_into().ok()?),
            })
        }),
    )
}

/// Puts a fresh copy of `db/` in its place, and the original aside until sled
/// has opened the copy: where sled's recovery meets damage it overwrites
/// everything behind it, and the salvage would find nothing. And a copy is on
/// disk for sure, while the original may stand in the page cache only, clean,
/// if a sync failed in the life before.
fn keep_before(dir: &Path) -> Result<()> {
    let building = dir.join("copy.building");
    if files::is_dir(&building)? {
        files::remove_dir(&building)?;
    }
    for folder in ["", "blobs"] {
        let to = building.join(folder);
        files::create_dir(&to)?;
        for from in files::list(&dir.join("db").join(folder))? {
            if let (true, Some(name)) = (files::is_file(&from)?, from.file_name()) {
                files::copy_bytes(&from, &to.join(name))?;
            }
        }
        files::sync_dir(&to)?;
    }
    files::rename(&dir.join("db"), &dir.join("before"))?;
    files::rename(&building, &dir.join("db"))
}

/// Puts the original back: sled did not get through with opening its copy.
fn restore_before(dir: &Path) -> Result<()> {
    let before = dir.join("before");
    if !files::is_dir(&before)? {
        return Ok(());
    }
    if files::is_dir(&dir.join("db"))? {
        files::remove_dir(&dir.join("db"))?;
    }
    files::rename(&before, &dir.join("db"))
}

/// Opens `db/`, or makes it if nothing was ever there, and checks that it did
/// not come back shorter than its mark.
fn open_checked(dir: &Path, options: &DatabaseOptions, mark: &Mark) -> Result<(Database, u64)> {
    let path = dir.join("db");
    if !files::is_dir(&path)? && mark.value() == 0 {
        let building = dir.join("fresh.building");
        if files::is_dir(&building)? {
            files::remove_dir(&building)?;
        }
        let database = Database::create(&building, options)?;
        Writes::default().apply(&database, 0, 0)?;
        database.sync()?;
        drop(database);
        files::rename(&building, &path)?;
    }
    let damaged = |what: &str| StoreError::Damaged {
        what: what.to_string(),
        path: path.clone(),
    };
    if !files::is_dir(&path)? {
        return Err(damaged("the whole database is gone"));
    }
    // Closed in order and not a bit changed since: all of it is on disk, and
    // there is no damage for sled to meet.
    let sealed = seal::take_off(dir, &path)?;
    let mut durable_stamp = mark.value();
    if !sealed {
        durable_stamp = durable_stamp.max(Index::durable_stamp(&path)?);
        match keep_before(dir) {
            Ok(()) => {}
            // Better opened without a copy than not at all.
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "state: no room for a copy while it is opened");
                let _ = std::fs::remove_dir_all(dir.join("copy.building"));
            }
            Err(error) => return Err(error),
        }
    }
    let database = Database::open(&path, options)?;
    let last = database
        .get(LAST_STAMP_KEY)?
        .ok_or_else(|| damaged("its last stamp is gone"))?;
    let stamp = Envelope::decode_for(LAST_STAMP_KEY, &last)
        .ok_or_else(|| damaged("its last stamp"))?
        .stamp;
    if stamp < durable_stamp {
        return Err(damaged("its latest commits are gone"));
    }
    Ok((database, stamp))
}

/// Finishes a replacement that a power cut interrupted.
fn finish_replacement(dir: &Path, quarantine: &Quarantine) -> Result<()> {
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
