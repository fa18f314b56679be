//! The disk budget (G8): how much the store takes, how much is free, and the
//! ballast that buys room to move when nothing is free any more.
//!
//! Promises: appends to the journal never take the store above the budget less
//! its reserve; once refused they go on only when [`limits::RESUME_MARGIN_BYTES`]
//! are free again, also over a restart, so that neither the alarm nor the clients
//! flap. Never refuses a write of the state: receipts have a question of their
//! own, sessions must go on.
//!
//! Usage is what the file system really allocated, and for a file of sled's the
//! whole of the segment that it has begun: it will be filled. It is asked anew
//! every [`limits::SPACE_CHECK_MS`], and whenever what was written since might
//! make the difference.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    appends_refused: AtomicBool,
    receipts_refused: AtomicBool,
}

struct Measured {
    at: Option<Instant>,
    used_bytes: u64,
    free_bytes: u64,
    /// Written since the measurement; an estimate of what it misses.
    written_bytes: u64,
}

impl Measured {
    /// Used and free, with the estimate.
    fn usage(&self) -> (u64, u64) {
        let written = self.written_bytes * WRITE_AMPLIFICATION;
        (
            self.used_bytes + written,
            self.free_bytes.saturating_sub(written),
        )
    }
}

/// Who asks for room.
#[derive(Clone, Copy)]
enum For {
    Appends,
    Receipts,
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
            // Until there is a margin: a restart is no reason to take more.
            appends_refused: AtomicBool::new(true),
            receipts_refused: AtomicBool::new(true),
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
            self.measure(&mut measured);
        }
        measured.usage()
    }

    /// The same without an estimate in it.
    fn usage_now(&self) -> (u64, u64) {
        let mut measured = self.measured.lock();
        if measured.at.is_none() || measured.written_bytes > 0 {
            self.measure(&mut measured);
        }
        measured.usage()
    }

    fn measure(&self, measured: &mut Measured) {
        measured.used_bytes = files::list(&self.dir)
            .unwrap_or_default()
            .iter()
            .filter(|path| path.file_name() != Some("ballast".as_ref()))
            .map(|path| taken_bytes(path))
            .sum();
        measured.free_bytes = files::free_bytes(&self.dir).unwrap_or(u64::MAX);
        measured.written_bytes = 0;
        measured.at = Some(Instant::now());
    }

    pub(crate) fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Why `more_bytes` of journal must not be written now, if so.
    pub(crate) fn refuses(&self, more_bytes: u64) -> Option<Alarm> {
        // The first segment of a generation that this write may begin, and the
        // one into which its end may fall.
        let more = more_bytes * WRITE_AMPLIFICATION + 2 * limits::SEGMENT_BYTES;
        self.asked(For::Appends, more)
    }

    /// Why no more receipts must be taken now, if so.
    pub(crate) fn refuses_receipts(&self) -> Option<Alarm> {
        self.asked(For::Receipts, 2 * limits::SEGMENT_BYTES)
    }

    fn asked(&self, by: For, more: u64) -> Option<Alarm> {
        let refused = match by {
            For::Appends => &self.appends_refused,
            For::Receipts => &self.receipts_refused,
        };
        let margin = if refused.load(Ordering::SeqCst) {
            limits::RESUME_MARGIN_BYTES
        } else {
            0
        };
        let wanted = more.saturating_add(margin);
        let answer = self
            .lacks(by, wanted, self.usage())
            .and_then(|_| self.lacks(by, wanted, self.usage_now()));
        refused.store(answer.is_some(), Ordering::SeqCst);
        answer
    }

    fn lacks(&self, by: For, wanted: u64, (used_bytes, free_bytes): (u64, u64)) -> Option<Alarm> {
        let budget_bytes = self.budget_bytes;
        let (allowed, free_bytes_min) = match by {
            For::Appends => (
                budget_bytes.saturating_sub(self.receipts_reserve_bytes),
                self.free_bytes_min,
            ),
            // The other half is for the copy that opening the state makes.
            For::Receipts => (budget_bytes, self.free_bytes_min / 2),
        };
        if used_bytes.saturating_add(wanted) > allowed {
            return Some(match by {
                For::Appends => Alarm::BudgetSpent {
                    used_bytes,
                    budget_bytes,
                },
                For::Receipts => Alarm::ReceiptsBudgetSpent {
                    used_bytes,
                    budget_bytes,
                },
            });
        }
        if free_bytes.saturating_sub(wanted) < free_bytes_min {
            return Some(match by {
                For::Appends => Alarm::SpaceLow {
                    free_bytes,
                    free_bytes_min,
                },
                For::Receipts => Alarm::ReceiptsSpaceLow { free_bytes },
            });
        }
        None
    }
}

/// What a directory takes on disk, sled's files with all of their last segment.
fn taken_bytes(path: &Path) -> u64 {
    files::taken_bytes(path, &|path, length| {
        if path.file_name() == Some("db".as_ref()) {
            length.next_multiple_of(limits::SEGMENT_BYTES)
        } else {
            0
        }
    })
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
