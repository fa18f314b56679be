//! A `risiti` command as a process of its own, so that it can be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::Failure;

/// A process, up or not.
pub struct Process {
    command: &'static str,
    dir: PathBuf,
    child: Option<Child>,
    // Open for as long as it may write to it.
    lines: Option<Lines<BufReader<ChildStdout>>>,
    kills: u32,
}

impl Process {
    /// `risiti <command> --config <dir>/risiti.toml`, not yet started.
    pub fn new(command: &'static str, dir: &Path) -> Self {
        Self {
            command,
            dir: dir.to_owned(),
            child: None,
            lines: None,
            kills: 0,
        }
    }

    /// Starts it.
    pub fn start(&mut self) -> Result<(), Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(self.command)
            .arg("--config")
            .arg(self.dir.join("risiti.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.log()?)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        self.lines = Some(BufReader::new(stdout).lines());
        self.child = Some(child);
        Ok(())
    }

    /// The next line that it says.
    pub async fn says(&mut self, within: Duration) -> Result<String, Failure> {
        let lines = self.lines.as_mut().ok_or("it does not run")?;
        let log = self.dir.join(format!("{}.log", self.command));
        let line = tokio::time::timeout(within, lines.next_line())
            .await
            .map_err(|_| {
                format!(
                    "risiti {} does not start; see {}",
                    self.command,
                    log.display()
                )
            })??
            .ok_or_else(|| {
                format!(
                    "risiti {} ended at once; see {}",
                    self.command,
                    log.display()
                )
            })?;
        Ok(line)
    }

    fn log(&self) -> Result<File, Failure> {
        Ok(File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?)
    }

    /// Kills it (SIGKILL): no file is closed, nothing is said to anyone.
    pub fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child.start_kill()?;
            self.kills += 1;
        }
        Ok(())
    }

    /// Whether it was started and not killed.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Why it has ended by itself, if it has.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(format!(
            "risiti {} ended by itself ({status}); see {}",
            self.command,
            self.log_path().display()
        ))
    }

    /// How often it was killed.
    pub fn kills(&self) -> u32 {
        self.kills
    }

    /// Where it logs.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.command))
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(id)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = tokio::time::timeout(crate::limits::STOP_DEADLINE, child.wait()).await;
    }
}
