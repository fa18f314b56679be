//! Appending to the row log, and taking what lives out of its oldest file. Used
//! by the state's committer alone.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::database::DatabaseOptions;
use crate::options::SyncPolicy;
use crate::{StoreError, files, limits};

use super::entry::{Entry, Kind};
use super::group::{Appended, Group};
use super::index::Place;
use super::{LogFile, Result, RowLog};

/// The end of the row log.
pub(in crate::state) struct LogWriter {
    next_number: u32,
    current: Option<Current>,
    /// The last file with a commit, and how far its commits go.
    last: Option<(u32, u64)>,
    /// This file and all before it move: there was damage.
    evacuate_upto: Option<u32>,
    moving: Option<Moving>,
    /// A file ends with the commit that reaches this.
    file_bytes: u64,
    /// Nothing moves before: the disk is full or failing, and what waits for its
    /// sync comes first.
    calm_at: Option<Instant>,
}

/// The file that is being appended to.
struct Current {
    number: u32,
    file: Arc<File>,
    /// As far as its commits go.
    end: u64,
    /// Whether its name is durable.
    named: bool,
}

/// What still lives in the oldest file, last first.
struct Moving {
    number: u32,
    rows: Vec<(Vec<u8>, Place)>,
}

impl LogWriter {
    pub(super) fn new(
        next_number: u32,
        last: Option<(u32, u64)>,
        file_bytes: u64,
        evacuate_upto: Option<u32>,
    ) -> Self {
        Self {
            next_number,
            current: None,
            last,
            evacuate_upto,
            moving: None,
            file_bytes,
            calm_at: None,
        }
    }

    /// Appends and syncs a group. After an error nothing of it counts, and its
    /// file is written no more: nobody knows what of it is on disk.
    pub(in crate::state) fn append(
        &mut self,
        log: &RowLog,
        mut group: Group,
        options: &DatabaseOptions,
    ) -> Result<Appended> {
        group.end();
        let mut current = match self.current.take() {
            Some(current) if current.end < self.file_bytes => current,
            _ => match self.create(log) {
                Ok(current) => current,
                Err(error) => {
                    self.wait_for_calm();
                    return Err(error);
                }
            },
        };
        let path = log.path(current.number);
        let written = current
            .file
            .write_all_at(&group.bytes, current.end)
            .map_err(|e| StoreError::io("write", &path, e))
            .and_then(|()| sync(log, &mut current, options));
        if let Err(error) = written {
            self.wait_for_calm();
            if log.inner.read().files.contains_key(&current.number) {
                // What stays behind is recognised all the same.
                let _ = current
                    .file
                    .set_len(current.end)
                    .and_then(|()| current.file.sync_all());
            } else {
                let _ = fs::remove_file(&path);
            }
            return Err(error);
        }
        let appended = Appended {
            salt: log.salt,
            file: current.number,
            offset: current.end,
            bytes: group.bytes.len() as u64,
            changes: group.changes,
        };
        current.end += appended.bytes;
        self.last = Some((current.number, current.end));
        log.inner
            .write()
            .files
            .entry(current.number)
            .or_insert_with(|| LogFile {
                file: Arc::clone(&current.file),
                bytes: 0,
                live_bytes: 0,
            })
            .bytes = current.end;
        self.current = Some(current);
        Ok(appended)
    }

    /// Shows readers what was appended, once the database has its part too.
    pub(in crate::state) fn publish(&mut self, log: &RowLog, appended: &Appended) {
        let mut inner = log.inner.write();
        for (key, change) in &appended.changes {
            let place = change.map(|(at, bytes)| Place {
                file: appended.file,
                // Files end soon after LOG_FILE_BYTES, far below 4 GiB.
                offset: appended.offset as u32 + at,
                bytes,
            });
            inner.set(key, place);
        }
    }

    /// Whether the oldest file should go, or move.
    pub(in crate::state) fn has_work(&self, log: &RowLog) -> bool {
        self.oldest_to_go(log).is_some()
    }

    fn oldest_to_go(&self, log: &RowLog) -> Option<u32> {
        let inner = log.inner.read();
        let (number, oldest) = inner.files.first_key_value()?;
        if self.current.as_ref().is_some_and(|c| c.number == *number) {
            return None;
        }
        // The last file says how far the log reaches.
        let is_last = inner.files.len() < 2;
        if oldest.live_bytes == 0 {
            return (!is_last).then_some(*number);
        }
        if self.calm_at.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let bytes: u64 = inner.files.values().map(|file| file.bytes).sum();
        let live: u64 = inner.files.values().map(|file| file.live_bytes).sum();
        let files_max = limits::LOG_FILES_SPARE + 2 * bytes / self.file_bytes;
        let due = self.evacuates(*number)
            || !is_last
                && (bytes > 2 * live + 2 * self.file_bytes || inner.files.len() as u64 > files_max);
        due.then_some(*number)
    }

    fn evacuates(&self, number: u32) -> bool {
        self.evacuate_upto.is_some_and(|upto| number <= upto)
    }

    /// Adds some of what lives in the oldest file, if that is to go, to a group
    /// that holds everything else of its commit already. Returns rows that are
    /// damaged, with their bytes: they go.
    pub(in crate::state) fn move_some(
        &mut self,
        log: &RowLog,
        group: &mut Group,
    ) -> Result<Vec<Vec<u8>>> {
        let Some(number) = self.oldest_to_go(log) else {
            self.moving = None;
            return Ok(Vec::new());
        };
        if self
            .moving
            .as_ref()
            .is_none_or(|m| m.number != number || m.rows.is_empty())
        {
            let mut inner = log.inner.write();
            let rows = inner.index.in_file(number);
            if rows.is_empty()
                && let Some(file) = inner.files.get_mut(&number)
            {
                file.live_bytes = 0;
            }
            self.moving = Some(Moving { number, rows });
        }
        let Some(moving) = &mut self.moving else {
            return Ok(Vec::new());
        };
        let touched: HashSet<Vec<u8>> = group.changes.iter().map(|(k, _)| k.clone()).collect();
        let upto = group.bytes.len() + limits::LOG_MOVE_BYTES;
        let mut damaged = Vec::new();
        while group.bytes.len() < upto {
            let Some((key, place)) = moving.rows.pop() else {
                break;
            };
            if touched.contains(&key) || log.inner.read().index.get(&key) != Some(place) {
                continue;
            }
            match log.get(&key) {
                Ok(Some(value)) => group.row(&key, Some(&value)),
                Ok(None) => {}
                Err(StoreError::Damaged { .. }) => {
                    damaged.push(log.raw(&key).unwrap_or_default());
                    group.row(&key, None);
                }
                Err(error) => {
                    // From the beginning, with the next try.
                    self.moving = None;
                    return Err(error);
                }
            }
        }
        Ok(damaged)
    }

    /// Removes oldest files in which nothing lives; whether there were any.
    pub(in crate::state) fn remove_dead(&mut self, log: &RowLog) -> Result<bool> {
        let mut removed = false;
        while let Some(number) = self.oldest_to_go(log) {
            // The guard must end here: the file is taken out under the other lock.
            let lives = {
                let inner = log.inner.read();
                let file = inner.files.get(&number);
                file.is_some_and(|file| file.live_bytes > 0)
            };
            if lives {
                break;
            }
            let path = log.path(number);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::io("remove", &path, e)),
            }
            // Before the next one: else it could come back without the deletions
            // that lie in that.
            files::sync_dir(&log.dir)?;
            log.inner.write().files.remove(&number);
            removed = true;
        }
        Ok(removed)
    }

    fn wait_for_calm(&mut self) {
        self.calm_at = Some(Instant::now() + Duration::from_millis(limits::RETRY_MS_MAX));
    }

    fn create(&mut self, log: &RowLog) -> Result<Current> {
        // A number that was tried is not used again.
        let number = self.next_number;
        self.next_number += 1;
        let path = log.path(number);
        let failed = |e| StoreError::io("create", &path, e);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed)?;
        let (last, length) = self.last.unwrap_or((0, 0));
        let value = [
            &u64::from(number).to_be_bytes()[..],
            &u64::from(last).to_be_bytes(),
            &length.to_be_bytes(),
            &log.salt.to_be_bytes(),
        ]
        .concat();
        let mut bytes = Vec::new();
        Entry {
            kind: Kind::Begin,
            encrypted: false,
            stamp: 0,
            key: &[],
            value: &value,
        }
        .encode_into(&mut bytes, 0);
        if let Err(error) = file.write_all_at(&bytes, 0) {
            let _ = fs::remove_file(&path);
            return Err(failed(error));
        }
        Ok(Current {
            number,
            file: Arc::new(file),
            end: bytes.len() as u64,
            named: false,
        })
    }
}

fn sync(log: &RowLog, current: &mut Current, options: &DatabaseOptions) -> Result<()> {
    let path = log.path(current.number);
    let failed = |e| StoreError::io("sync", &path, e);
    if let Some(hook) = &options.sync_hook {
        hook(&log.dir).map_err(failed)?;
    }
    if options.sync != SyncPolicy::Durable {
        return Ok(());
    }
    if current.named {
        return current.file.sync_data().map_err(failed);
    }
    current.file.sync_all().map_err(failed)?;
    files::sync_dir(&log.dir)?;
    current.named = true;
    Ok(())
}
