//! The `risiti` command as a person or a service manager runs it.
//!
//! Promises: no environment of the tests' own machine reaches it (a variable
//! `RISITI__…` or `NOTIFY_SOCKET` set there); nothing runs on after a test.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// `risiti` with these arguments, ready to run.
#[must_use]
pub fn risiti<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program("risiti_under_test"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RISITI") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .stdin(Stdio::null());
    command
}

/// Runs it to its end; killed if that takes longer than `patience`.
///
/// # Errors
/// It can't be started, or did not end.
pub fn output(command: &mut Command, patience: Duration) -> io::Result<Output> {
    let mut ended = Running(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?,
    );
    // What it says fits into a pipe.
    ended.wait(patience)?;
    let mut output = Output {
        status: ended.0.wait()?,
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    if let (Some(mut out), Some(mut err)) = (ended.0.stdout.take(), ended.0.stderr.take()) {
        io::Read::read_to_end(&mut out, &mut output.stdout)?;
        io::Read::read_to_end(&mut err, &mut output.stderr)?;
    }
    Ok(output)
}

/// A command that runs; killed when dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.0.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("no such process"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It did not end in time; it is killed.
    pub fn wait(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                let _ = self.0.kill();
                return Err(io::Error::other(format!("no end within {patience:?}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process is stopped by a signal (proc(5), state `T`) within so long.
pub(crate) fn stands_still(pid: u32, within: Duration) -> bool {
    let until = Instant::now() + within;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") T ") {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A program of this package, beside the directory of the running test.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let deps = test.parent().unwrap_or(Path::new("."));
    deps.parent().unwrap_or(Path::new(".")).join(name)
}
