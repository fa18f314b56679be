//! `risiti settle` as a process of its own, to be killed and started again.
//!
//! Promises: its log is shown if the test fails; no process is left behind.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::risiti_command::risiti;

/// How much of the log is shown when a test fails, bytes.
const LOG_SHOWN_BYTES: usize = 8_000;

/// Settlement of its own.
#[derive(Debug)]
pub struct SettlementProcess {
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    kills: u32,
}

impl SettlementProcess {
    /// Starts it with its configuration and log in `dir`. It has most likely
    /// joined its group some moments after this returns.
    ///
    /// # Errors
    /// There is no process to be had.
    pub fn start(config: &str, dir: &Path) -> io::Result<Self> {
        let mut settlement = Self {
            config: dir.join("settlement.toml"),
            log: dir.join("settlement.log"),
            child: None,
            kills: 0,
        };
        fs::write(&settlement.config, config)?;
        settlement.start_again()?;
        Ok(settlement)
    }

    /// Kills it if it runs, and starts it again.
    ///
    /// # Errors
    /// There is no process to be had.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.kill();
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = risiti(["settle", "--config"])
            .arg(&self.config)
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// SIGKILL, and waits until it is gone. Nothing if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            self.kills += 1;
        }
    }

    /// How often it was killed.
    #[must_use]
    pub fn kills(&self) -> u32 {
        self.kills
    }

    /// The end of its log, of all starts.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let from = log.len().saturating_sub(LOG_SHOWN_BYTES);
        String::from_utf8_lossy(&log[from..]).into_owned()
    }
}

impl Drop for SettlementProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("settlement's log ends so:\n{}", self.log_tail());
        }
    }
}
