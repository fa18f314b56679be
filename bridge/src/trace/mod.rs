//! "Where is my receipt?": a flight recorder of every payment's steps.
//!
//! Promises: a note never waits for the disk and costs a fraction of a
//! microsecond; what was noted [`limits::TRACE_GATHER`] ago survives a kill of the
//! process; the files together stay within their bound, and the newest steps push
//! out the oldest. Never: anything that a guarantee rests on. When the disk is
//! slower than the notes come, notes are dropped and counted; a power cut may cost
//! the last seconds; nobody waits for it, and the gateway runs without it.
//!
//! The bytes are described in `format`, the files in `segments`.

mod format;
mod journal;
mod segments;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::format::Frames;
pub use self::journal::DurableSteps;
pub(crate) use self::journal::payment;
use self::segments::Segments;
pub use self::step::{Event, Passed, Step};
use crate::limits;

/// The recorder.
#[derive(Debug)]
pub struct TraceLog {
    shared: Option<Arc<Shared>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// One search at a time: each reads everything.
    searching: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    gathered: Mutex<Gathered>,
    /// Something was gathered, or is asked for.
    wake: Condvar,
    /// Something was written.
    written: Condvar,
    counts: Counts,
}

#[derive(Debug)]
struct Gathered {
    frames: Frames,
    /// Somebody waits until what is gathered is written.
    hurry: bool,
    closing: bool,
    /// Times that the writer took what was gathered, and finished writing it.
    taken: u64,
    finished: u64,
}

/// What the recorder counts since it was opened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Steps noted.
    pub notes: AtomicU64,
    /// Steps not noted: the disk was slower than they came, or a name was too
    /// long to be a terminal's.
    pub dropped: AtomicU64,
    /// Writes that failed; their steps are lost.
    pub write_failures: AtomicU64,
}

impl TraceLog {
    /// Opens the recorder in `dir`, made if it is not there, with `bytes_max`
    /// bytes of files at most. With 0 it is off, and what was there is removed.
    ///
    /// # Errors
    /// The directory can't be used, or there is no thread. The gateway can go on
    /// with [`TraceLog::disabled`].
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Arc<Self>> {
        if bytes_max == 0 {
            segments::remove_all(dir)?;
            return Ok(Self::disabled());
        }
        let segments = Segments::open(dir, bytes_max.max(limits::TRACE_BYTES_MIN))?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            gathered: Mutex::new(Gathered {
                frames: Frames::with_capacity(limits::TRACE_GATHERED_BYTES_MAX),
                hurry: false,
                closing: false,
                taken: 0,
                finished: 0,
            }),
            wake: Condvar::new(),
            written: Condvar::new(),
            counts: Counts::default(),
        });
        let its = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("trace".into())
            .spawn(move || write_until_closed(&its, segments))?;
        Ok(Arc::new(Self {
            shared: Some(shared),
            writer: Mutex::new(Some(writer)),
            searching: Mutex::new(()),
        }))
    }

    /// A recorder that notes nothing.
    #[must_use]
    pub fn disabled() -> Arc<Self> {
        Arc::new(Self {
            shared: None,
            writer: Mutex::new(None),
            searching: Mutex::new(()),
        })
    }

    /// Whether it notes anything.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.shared.is_some()
    }

    /// Notes a step. Never blocks on the disk; what has no room is dropped and
    /// counted.
    pub fn note(&self, at_ms: u64, terminal: &str, sequence: u64, step: Step<&str>) {
        self.notes().note(at_ms, terminal, sequence, step);
    }

    /// Notes many steps with one lock. Others wait meanwhile: hold it only to
    /// note.
    #[must_use]
    pub fn notes(&self) -> Notes<'_> {
        Notes(self.shared.as_deref().map(|shared| {
            let gathered = shared.gathered.lock();
            NotesOf {
                bytes_before: gathered.frames.len(),
                gathered,
                shared,
                noted: 0,
                dropped: 0,
            }
        }))
    }

    /// What was counted; `None` if it is off.
    #[must_use]
    pub fn counts(&self) -> Option<&Counts> {
        self.shared.as_deref().map(|shared| &shared.counts)
    }

    /// Every step of one record that is still held, in the order in which they
    /// were noted. Reads all files: some 50 ms for 64 MiB, in one place at a
    /// time. Of more than [`limits::TRACE_EVENTS_MAX`] the first and the last.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn find(&self, terminal: &str, sequence: u64) -> io::Result<Vec<Event>> {
        let Some(shared) = &self.shared else {
            return Ok(Vec::new());
        };
        let _one = self.searching.lock();
        shared.await_written(limits::TRACE_WRITTEN_WAIT);
        let mut found = VecDeque::new();
        for number in segments::list(&shared.dir)? {
            segments::scan(&segments::path(&shared.dir, number), &mut |_, frame| {
                let wanted = |name: &[u8], n| name == terminal.as_bytes() && n == sequence;
                format::events_in(frame, wanted, |_, _, event| {
                    if found.len() >= limits::TRACE_EVENTS_MAX {
                        found.remove(limits::TRACE_EVENTS_MAX / 2);
                    }
                    found.push_back(event);
                });
            })?;
        }
        Ok(found.into())
    }

    /// How long the payments took whose receipts were acknowledged last, from the
    /// gateway's reception to the terminal's acknowledgement, milliseconds, in the
    /// order of their acknowledgements. Reads the last
    /// [`limits::TRACE_RECENT_BYTES`]; a payment that began before is left out.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn recent_ms(&self) -> io::Result<Vec<u64>> {
        let Some(shared) = &self.shared else {
            return Ok(Vec::new());
        };
        let _one = self.searching.lock();
        let mut received = HashMap::new();
        let mut took = Vec::new();
        let Some(newest) = segments::list(&shared.dir)?.pop() else {
            return Ok(took);
        };
        let path = segments::path(&shared.dir, newest);
        segments::scan_end(&path, limits::TRACE_RECENT_BYTES, &mut |frame| {
            format::events_in(
                frame,
                |_, _| true,
                |terminal, sequence, event| match event.step {
                    Passed::Durable { received_ms, .. } => {
                        received
                            .entry((terminal.to_owned(), sequence))
                            .or_insert(received_ms);
                    }
                    Passed::Acknowledged { .. } => {
                        let began = received.remove(&(terminal.to_owned(), sequence));
                        took.extend(began.and_then(|began| event.at_ms.checked_sub(began)));
                    }
                    _ => {}
                },
            );
        })?;
        Ok(took)
    }

    /// The time of the oldest step that is still held, Unix milliseconds; `None`
    /// if there is none.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn reaches_back_ms(&self) -> io::Result<Option<u64>> {
        let Some(shared) = &self.shared else {
            return Ok(None);
        };
        let _one = self.searching.lock();
        let mut oldest = None;
        for number in segments::list(&shared.dir)? {
            segments::scan_while(&segments::path(&shared.dir, number), &mut |_, frame| {
                oldest = Some(format::base_ms(frame));
                false
            })?;
            if oldest.is_some() {
                break;
            }
        }
        Ok(oldest)
    }

    /// Writes what is gathered and ends; later notes are dropped. Also done when
    /// the last owner lets go of it.
    pub fn close(&self) {
        if let Some(shared) = &self.shared {
            shared.gathered.lock().closing = true;
            shared.wake.notify_all();
        }
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
    }
}

impl Drop for TraceLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// Many steps noted with one lock.
pub struct Notes<'a>(Option<NotesOf<'a>>);

struct NotesOf<'a> {
    shared: &'a Shared,
    gathered: MutexGuard<'a, Gathered>,
    bytes_before: usize,
    noted: u64,
    dropped: u64,
}

impl Notes<'_> {
    /// As [`TraceLog::note`].
    pub fn note(&mut self, at_ms: u64, terminal: &str, sequence: u64, step: Step<&str>) {
        let Some(notes) = &mut self.0 else {
            return;
        };
        let max = limits::TRACE_GATHERED_BYTES_MAX;
        let gathered = &mut notes.gathered;
        let added = !gathered.closing && gathered.frames.add(at_ms, terminal, sequence, step, max);
        if added {
            notes.noted += 1;
        } else {
            notes.dropped += 1;
        }
    }
}

impl Drop for NotesOf<'_> {
    fn drop(&mut self) {
        let counts = &self.shared.counts;
        counts.notes.fetch_add(self.noted, Ordering::Relaxed);
        if self.dropped > 0 {
            counts.dropped.fetch_add(self.dropped, Ordering::Relaxed);
        }
        // The writer is woken by what comes first, and when it has to hurry.
        let bytes = self.gathered.frames.len();
        let crossed = |line: usize| self.bytes_before <= line && bytes > line;
        if crossed(0) || crossed(limits::TRACE_GATHERED_BYTES_MAX / 2) {
            self.shared.wake.notify_all();
        }
    }
}

impl Shared {
    /// Waits until what is gathered now is in the files.
    fn await_written(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut gathered = self.gathered.lock();
        let waited_for = gathered.taken + u64::from(!gathered.frames.is_empty());
        gathered.hurry = true;
        self.wake.notify_all();
        while gathered.finished < waited_for && !gathered.closing {
            if self.written.wait_until(&mut gathered, until).timed_out() {
                return;
            }
        }
    }
}

/// The writer's thread.
fn write_until_closed(shared: &Shared, mut segments: Segments) {
    let mut taken = Frames::with_capacity(limits::TRACE_GATHERED_BYTES_MAX);
    let mut failing = false;
    loop {
        let closing = {
            let mut gathered = shared.gathered.lock();
            while gathered.frames.is_empty() && !gathered.closing {
                gathered.hurry = false;
                shared.wake.wait(&mut gathered);
            }
            let until = Instant::now() + limits::TRACE_GATHER;
            while !gathered.hurry
                && !gathered.closing
                && gathered.frames.len() <= limits::TRACE_GATHERED_BYTES_MAX / 2
            {
                if shared.wake.wait_until(&mut gathered, until).timed_out() {
                    break;
                }
            }
            gathered.hurry = false;
            gathered.taken += 1;
            std::mem::swap(&mut gathered.frames, &mut taken);
            gathered.closing
        };
        let mut failed = None;
        taken.take_frames(|frame| {
            if let Err(error) = segments.append(frame) {
                shared.counts.write_failures.fetch_add(1, Ordering::Relaxed);
                failed = Some(error);
            }
        });
        match &failed {
            Some(error) if !failing => {
                tracing::warn!(%error, "steps of payments can't be recorded; free space on the disk");
            }
            _ => {}
        }
        failing = failed.is_some();
        shared.gathered.lock().finished += 1;
        shared.written.notify_all();
        if closing {
            return;
        }
    }
}
