//! A process of the soak: started, frozen, thawed, asked, and its log kept short.
//!
//! Promises: it ends with this; its log never takes more than twice
//! [`limits::LOG_BYTES`]; every line that tells of a panic or an error is counted.
//! Never: a process of somebody else touched.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use super::limits;

/// Lines of a log that are told when something is wrong.
const LINES_TOLD: usize = 12;

/// Bytes of a log's beginning that are told when a process did not start.
const FIRST_BYTES: usize = 1_000;

/// A child whose standard error goes to a log that turns over.
#[derive(Debug)]
pub struct Process {
    /// What the soak calls it.
    pub name: String,
    /// Its data, if it has any.
    pub dir: Option<PathBuf>,
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// What was read of a process's log.
#[derive(Debug, Default)]
pub struct Log {
    /// Bytes so far.
    pub bytes: AtomicU64,
    /// Times that the file turned over.
    pub turns: AtomicU64,
    /// Lines that tell of a panic.
    pub panics: AtomicU64,
    /// Lines at the level of an error.
    pub errors: AtomicU64,
    /// The last lines of both kinds.
    worst: Mutex<VecDeque<String>>,
    /// The first lines, for one that does not start.
    first: Mutex<String>,
}

impl Log {
    fn take(&self, line: &str) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < FIRST_BYTES {
            first.push_str(line);
        }
        drop(first);
        let panic = line.contains("panicked at");
        let error = line.contains(" ERROR ");
        self.panics.fetch_add(u64::from(panic), Relaxed);
        self.errors.fetch_add(u64::from(error), Relaxed);
        if panic || error {
            let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
            if worst.len() == LINES_TOLD {
                worst.pop_front();
            }
            worst.push_back(line.trim_end().to_owned());
        }
    }

    fn beginning(&self) -> String {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone()
    }

    /// The last lines that tell of a panic or an error.
    #[must_use]
    pub fn worst(&self) -> Vec<String> {
        let worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        worst.iter().cloned().collect()
    }
}

impl Process {
    /// Starts it with its log in `logs`.
    ///
    /// # Errors
    /// There is no such program, or no place for its log.
    pub fn start(
        name: &str,
        command: &mut Command,
        dir: Option<PathBuf>,
        logs: &Path,
    ) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                io::Error::other(format!("{}: {error}", command.get_program().display()))
            })?;
        let log = Arc::new(Log::default());
        let reader = match child.stderr.take() {
            Some(stderr) => {
                let (log, path) = (Arc::clone(&log), logs.join(format!("{name}.log")));
                Some(std::thread::spawn(move || {
                    // What can't be written is still read: a full pipe would stop it.
                    let _ = keep_log(stderr, &path, &log);
                }))
            }
            None => None,
        };
        Ok(Self {
            name: name.to_owned(),
            dir,
            child,
            log,
            reader,
        })
    }

    /// Its first line on standard output.
    ///
    /// # Errors
    /// It ended without one.
    pub fn first_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.is_empty() {
            let _ = self.child.wait();
            if let Some(reader) = self.reader.take() {
                let _ = reader.join();
            }
            return Err(io::Error::other(format!(
                "{} did not start: {}",
                self.name,
                self.log.beginning()
            )));
        }
        Ok(line)
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops it in the middle of whatever it does.
    ///
    /// # Errors
    /// It has ended.
    pub fn freeze(&self) -> io::Result<()> {
        signal(self.pid(), Signal::STOP)
    }

    /// Has it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn thaw(&self) -> io::Result<()> {
        signal(self.pid(), Signal::CONT)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// It has ended.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no such process"))?;
    Ok(kill_process(pid, signal)?)
}

fn keep_log(from: impl Read, path: &Path, log: &Log) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut written = 0;
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while {
        line.clear();
        from.read_until(b'\n', &mut line)? > 0
    } {
        log.bytes.fetch_add(line.len() as u64, Relaxed);
        log.take(&String::from_utf8_lossy(&line));
        if file.write_all(&line).is_ok() {
            written += line.len() as u64;
        }
        if written >= limits::LOG_BYTES {
            fs::rename(path, path.with_extension("log.1"))?;
            file = File::create(path)?;
            written = 0;
            log.turns.fetch_add(1, Relaxed);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_turns_over_and_its_errors_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let line = format!("2026 ERROR x: {}\n", "y".repeat(1_000));
        let lines = line.repeat(3 * limits::LOG_BYTES as usize / line.len());
        let text = lines + "thread 'main' panicked at src/x.rs:1:1:\n";
        let log = Log::default();
        keep_log(text.as_bytes(), &path, &log).unwrap();
        assert!(log.turns.load(Relaxed) >= 2);
        assert_eq!(log.panics.load(Relaxed), 1);
        assert!(log.errors.load(Relaxed) > 1_000);
        assert_eq!(log.worst().len(), LINES_TOLD);
        let kept = super::super::sample::allocated_bytes(dir.path());
        assert!(kept < 3 * limits::LOG_BYTES, "{kept}");
    }
}
