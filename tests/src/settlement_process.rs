//! `risiti settle` as a process of its own, to be killed and started again.
//!
//! Promises: its log is shown if the test fails; no process is left behind.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::risiti_command::{program, risiti, stands_still};

/// How much of the log is shown when a test fails, bytes.
const LOG_SHOWN_BYTES: usize = 8_000;

/// A place at which settlement kills itself, when it comes there the nth time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettlementKillAt {
    /// Half of a batch was handed to Kafka.
    InsideTransaction(u64),
    /// A batch was delivered, nothing committed.
    AfterSend(u64),
    /// A transaction was committed, but it does not know yet.
    AfterCommit(u64),
}

impl SettlementKillAt {
    /// What the program calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InsideTransaction(_) => "inside-transaction",
            Self::AfterSend(_) => "after-send",
            Self::AfterCommit(_) => "after-commit",
        }
    }

    fn nth(self) -> u64 {
        match self {
            Self::InsideTransaction(nth) | Self::AfterSend(nth) | Self::AfterCommit(nth) => nth,
        }
    }
}

/// What no configuration has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SettlementSwitches {
    /// Commits offsets after the transaction: the negative control.
    pub offsets_outside_transaction: bool,
    /// Dies there.
    pub kill_at: Option<SettlementKillAt>,
    /// Only stops there, until [`Signal::CONT`].
    pub stop_there: bool,
}

impl SettlementSwitches {
    /// The command itself, unless it is to do what the command can't.
    fn command(self) -> Command {
        if self == Self::default() {
            return risiti(["settle"]);
        }
        let mut command = Command::new(program("settlement_under_test"));
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        if self.offsets_outside_transaction {
            command.arg("--offsets-outside-transaction");
        }
        if self.stop_there {
            command.arg("--stop-there");
        }
        if let Some(at) = self.kill_at {
            command.args(["--kill-at", at.name()]);
            command.args(["--kill-at-nth", &at.nth().to_string()]);
        }
        command
    }
}

/// Settlement of its own.
#[derive(Debug)]
pub struct SettlementProcess {
    config: PathBuf,
    log: PathBuf,
    switches: SettlementSwitches,
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
        Self::start_with(config, dir, "settlement", SettlementSwitches::default())
    }

    /// The same under a name of its own, by which its files are called.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        config: &str,
        dir: &Path,
        name: &str,
        switches: SettlementSwitches,
    ) -> io::Result<Self> {
        let mut settlement = Self {
            config: dir.join(format!("{name}.toml")),
            log: dir.join(format!("{name}.log")),
            switches,
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
        let child = self
            .switches
            .command()
            .arg("--config")
            .arg(&self.config)
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// What holds from the next start on.
    pub fn set_switches(&mut self, switches: SettlementSwitches) {
        self.switches = switches;
    }

    /// SIGKILL, and waits until it is gone. Nothing if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            self.kills += 1;
        }
    }

    /// Waits for the end that its switches give it; whether it came. Killed if not.
    pub fn wait_exit(&mut self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while Instant::now() < until {
            if self.has_ended() {
                self.kill();
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        false
    }

    /// Waits until it stands still, as it does with
    /// [`SettlementSwitches::stop_there`]; whether it does.
    pub fn wait_stopped(&self, within: Duration) -> bool {
        let child = self.child.as_ref();
        child.is_some_and(|child| stands_still(child.id(), within))
    }

    /// Whether it has ended without being told to.
    pub fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = self.child.as_ref().and_then(|child| {
            let id = i32::try_from(child.id()).ok()?;
            Pid::from_raw(id)
        });
        let id = id.ok_or_else(|| io::Error::other("settlement does not run"))?;
        Ok(kill_process(id, signal)?)
    }

    /// How often it was killed.
    #[must_use]
    pub fn kills(&self) -> u32 {
        self.kills
    }

    /// Its log, of all starts.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
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
