//! Opening the state: what a stop, a cut, a full disk or damage has left.
//!
//! Promises: what was durable and is not damaged is there again; what is damaged is set
//! aside and told. Never: a failure because of what the bytes say, or a second opening
//! that finds less than the first.

use std::path::Path;
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
use super::envelope::{Envelope, LAST_STAMP_KEY, LIFE_SHIFT, LOG_END_KEY};
use super::fresh::finish_replacement;
use super::log::{self, LogEnd};
use super::salvage::{Index, salvage};
use super::seal;
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
