//! The disk budget (G8): how much the store takes, how much is free, and the
//! ballast that buys room to move when nothing is free any more.
//!
//! Usage is what the file system really allocated, asked anew at most every
//! [`limits::SPACE_CHECK_MS`] and estimated in between by what was written.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::alarm::Alarm;
use crate::options::StoreOptions;
use crate::{StoreError, files, limits};

/// The store's share of the disk.
pub(crate) struct Disk {
    dir: PathBuf,
    budget_bytes: u64,
    receipts_reserve_bytes: u64,
    free_bytes_min: u64,
    ballast_bytes: u64,
    measured: Mutex<Measured>,
}

struct Measured {
    at: Option<Instant>,
    used_bytes: u64,
    free_bytes: u64,
    /// Written since the measurement; an estimate of what it misses.
    written_bytes: u64,
}

/// sled takes up to this many times what is written to it (measured: 1.7).
const WRITE_AMPLIFICATION: u64 = 2;

impl Disk {
    pub(crate) fn open(options: &StoreOptions) -> Result<Arc<Self>, StoreError> {
        files::create_dir(&options.dir)?;
        let disk = Self {
            dir: options.dir.clone(),
            budget_bytes: options.budget_bytes,
            receipts_reserve_bytes: options.receipts_reserve_bytes,
            free_bytes_min: options.free_bytes_min,
            ballast_bytes: options.ballast_bytes,
            measured: Mutex::new(Measured {
                at: None,
                used_bytes: 0,
                free_bytes: u64::MAX,
                written_bytes: 0,
            }),
        };
        disk.lay_ballast();
        Ok(Arc::new(disk))
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Writes the ballast if it is not there and there is room for it.
    pub(crate) fn lay_ballast(&self) {
        let path = self.ballast();
        if self.ballast_bytes == 0 || files::allocated_bytes(&path) >= self.ballast_bytes {
            return;
        }
        let roomy = files::free_bytes(&self.dir)
            .is_ok_and(|free| free >= self.free_bytes_min.saturating_add(self.ballast_bytes));
        if !roomy {
            return;
        }
        // Allocated for real: a sparse file would give nothing back.
        let written = File::create(&path).and_then(|file| {
            rustix::fs::fallocate(
                &file,
                rustix::fs::FallocateFlags::empty(),
                0,
                self.ballast_bytes,
            )
            .map_err(std::io::Error::from)
            .or_else(|_| write_zeros(&file, self.ballast_bytes))
        });
        if let Err(e) = written {
            tracing::warn!(error = %e, "no room for the ballast file");
            let _ = fs::remove_file(&path);
        }
    }

    /// Gives the ballast's space back; whether there was any.
    pub(crate) fn drop_ballast(&self) -> bool {
        let path = self.ballast();
        let there = fs::remove_file(&path).is_ok();
        if there {
            tracing::warn!("disk full: the ballast file is given up to recover");
            let _ = files::sync_dir(&self.dir);
            self.measured.lock().at = None;
        }
        there
    }

    /// Counts what was just written, bytes.
    pub(crate) fn wrote(&self, bytes: u64) {
        let mut measured = self.measured.lock();
        measured.written_bytes += bytes;
    }

    /// Something was deleted: measure at the next question.
    pub(crate) fn changed(&self) {
        self.measured.lock().at = None;
    }

    /// Used and free bytes.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let mut measured = self.measured.lock();
        let stale = measured
            .at
            .is_none_or(|at| at.elapsed() >= Duration::from_millis(limits::SPACE_CHECK_MS));
        if stale {
            measured.used_bytes = files::list(&self.dir)
                .unwrap_or_default()
                .iter()
                .filter(|path| path.file_name() != Some("ballast".as_ref()))
                .map(|path| files::allocated_bytes(path))
                .sum();
            measured.free_bytes = files::free_bytes(&self.dir).unwrap_or(u64::MAX);
            measured.written_bytes = 0;
            measured.at = Some(Instant::now());
        }
        let written = measured.written_bytes * WRITE_AMPLIFICATION;
        (
            measured.used_bytes + written,
            measured.free_bytes.saturating_sub(written),
        )
    }

    pub(crate) fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Why `more_bytes` of journal must not be written now, if so.
    pub(crate) fn refuses(&self, more_bytes: u64) -> Option<Alarm> {
        let (used_bytes, free_bytes) = self.usage();
        let more = more_bytes * WRITE_AMPLIFICATION;
        let allowed = self
            .budget_bytes
            .saturating_sub(self.receipts_reserve_bytes);
        if used_bytes.saturating_add(more) > allowed {
            return Some(Alarm::BudgetSpent {
                used_bytes,
                budget_bytes: self.budget_bytes,
            });
        }
        if free_bytes.saturating_sub(more) < self.free_bytes_min {
            return Some(Alarm::SpaceLow {
                free_bytes,
                free_bytes_min: self.free_bytes_min,
            });
        }
        None
    }
}

fn write_zeros(file: &File, bytes: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let chunk = [0_u8; 64 * 1024];
    let mut at = 0;
    while at < bytes {
        let len = (bytes - at).min(chunk.len() as u64);
        file.write_all_at(&chunk[..len as usize], at)?;
        at += len;
    }
    Ok(())
}
