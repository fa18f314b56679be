//! A gateway as a process of its own, to be killed, stopped and started again.
//!
//! Promises: [`GatewayProcess::start`] returns once it serves; its MQTT port and
//! its data stay the same over restarts; its log is shown if the test fails; no
//! process is left behind. Never: a second gateway on the same data.
//!
//! The binary is `gateway_under_test` of this package, which Cargo builds before
//! it runs the package's tests.

mod launch;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use risiti_gateway::status::Status;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::crash::Shim;
use crate::memory;
use crate::risiti_command::{program, stands_still};

pub use launch::{KillAt, ProcessSwitches, free_port};

/// Opening a damaged or large store takes seconds here; a minute and more means
/// that it never will.
const START: Duration = Duration::from_secs(90);

/// A graceful stop has 20 s of its own, and then closes the store.
const STOP: Duration = Duration::from_secs(40);

/// How much of the log is shown when a test fails, bytes.
const LOG_SHOWN_BYTES: usize = 12_000;

/// Somebody else may take a free port first.
const PORT_ATTEMPTS: u32 = 5;

/// Where a gateway answers; its line on standard output.
#[derive(Debug, Clone, Deserialize)]
struct Addresses {
    mqtt: SocketAddr,
    admin: SocketAddr,
    embedded: Option<String>,
}

/// A gateway of its own.
#[derive(Debug)]
pub struct GatewayProcess {
    dir: PathBuf,
    switches: ProcessSwitches,
    shim: Option<Shim>,
    mqtt_port: u16,
    running: Option<Running>,
    starts: u32,
}

#[derive(Debug)]
struct Running {
    child: Child,
    addresses: Addresses,
    // Open for as long as the gateway may write to it.
    _stdout: BufReader<ChildStdout>,
}

impl GatewayProcess {
    /// Starts a gateway with its data, configuration and log in `dir`, which
    /// must exist and outlive it. `config` is TOML; `gateway.data_dir`
    /// (`<dir>/data`) and both `listen` addresses (loopback, a free port) are
    /// set from outside, whatever it says.
    ///
    /// # Errors
    /// It did not start; the error holds the end of its log.
    pub fn start(
        config: &str,
        dir: &Path,
        switches: ProcessSwitches,
        shim: Option<Shim>,
    ) -> io::Result<Self> {
        let mut gateway = Self {
            dir: dir.to_owned(),
            switches,
            shim,
            mqtt_port: 0,
            running: None,
            starts: 0,
        };
        gateway.write_config(config)?;
        for _ in 1..PORT_ATTEMPTS {
            gateway.mqtt_port = free_port()?;
            match gateway.restart() {
                Err(error) if error.to_string().contains("can't listen") => {}
                done => return done.map(|()| gateway),
            }
        }
        gateway.mqtt_port = free_port()?;
        gateway.restart().map(|()| gateway)
    }

    /// Kills it if it runs, and starts it again on the same data and MQTT port.
    /// The admin port changes.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> io::Result<()> {
        let mut child = self.spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no standard output"))?;
        let (told, hears) = mpsc::channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            let read = stdout.read_line(&mut line);
            // Nobody hears it any more if the start took too long.
            let _ = told.send((read.map(|_| line), stdout));
        });
        let line = hears.recv_timeout(START);
        let served = line.map_err(io::Error::other).and_then(|(line, stdout)| {
            let addresses: Addresses = serde_json::from_str(&line?)?;
            Ok((addresses, stdout))
        });
        match served {
            Ok((addresses, stdout)) => {
                self.mqtt_port = addresses.mqtt.port();
                self.running = Some(Running {
                    child,
                    addresses,
                    _stdout: stdout,
                });
                Ok(())
            }
            Err(error) => {
                let _ = child.kill();
                let status = child.wait()?;
                Err(io::Error::other(format!(
                    "the gateway did not start ({error}; {status}):\n{}",
                    self.log_tail()
                )))
            }
        }
    }

    /// Kills it if it runs, starts it, and kills it again after so long, most
    /// likely before it serves.
    ///
    /// # Errors
    /// There is no process to be had.
    pub fn kill_while_starting(&mut self, after: Duration) -> io::Result<()> {
        let mut child = self.spawn()?;
        std::thread::sleep(after);
        child.kill()?;
        child.wait().map(drop)
    }

    fn spawn(&mut self) -> io::Result<Child> {
        self.kill();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut command = Command::new(program("gateway_under_test"));
        command
            .arg("--config")
            .arg(self.config_path())
            .args(self.switches.args())
            .env("RISITI__GATEWAY__DATA_DIR", self.data_dir())
            .env(
                "RISITI__MQTT__LISTEN",
                format!("127.0.0.1:{}", self.mqtt_port),
            )
            .env("RISITI__ADMIN__LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(shim) = &self.shim {
            shim.command(&mut command);
        }
        self.starts += 1;
        command.spawn()
    }

    /// SIGKILL, and waits until it is gone. Nothing if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }

    /// Whether it has ended without being told to.
    pub fn has_ended(&mut self) -> bool {
        let running = self.running.as_mut();
        running.is_some_and(|running| !matches!(running.child.try_wait(), Ok(None)))
    }

    /// SIGTERM, and waits until it has ended by itself.
    ///
    /// # Errors
    /// It did not end in time; it is killed.
    pub fn terminate(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(STOP)
    }

    /// Waits for it to end by itself, as it does with [`ProcessSwitches::kill_at`].
    ///
    /// # Errors
    /// It did not in time; it is killed.
    pub fn wait_exit(&mut self, timeout: Duration) -> io::Result<ExitStatus> {
        let Some(mut running) = self.running.take() else {
            return Err(io::Error::other("the gateway does not run"));
        };
        let until = Instant::now() + timeout;
        while Instant::now() < until {
            if let Some(status) = running.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = running.child.kill();
        let _ = running.child.wait();
        Err(io::Error::other(format!(
            "the gateway did not end within {timeout:?}:\n{}",
            self.log_tail()
        )))
    }

    /// Waits until it stands still, as it does with
    /// [`ProcessSwitches::stop_there`]; whether it does.
    pub fn wait_stopped(&self, within: Duration) -> bool {
        self.pid().is_ok_and(|pid| stands_still(pid, within))
    }

    /// Has it read its configuration again (SIGHUP), with this text.
    ///
    /// # Errors
    /// It does not run, or the file can't be written.
    pub fn reload(&self, config: &str) -> io::Result<()> {
        self.write_config(config)?;
        self.signal(Signal::HUP)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.running()?.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("no such process"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// What holds from the next start on.
    pub fn set_switches(&mut self, switches: ProcessSwitches) {
        self.switches = switches;
    }

    /// Writes another configuration, for the next start or reload.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_config(&self, config: &str) -> io::Result<()> {
        fs::write(self.config_path(), config)
    }

    /// Where MQTT clients connect, running or not.
    #[must_use]
    pub fn mqtt_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.mqtt_port).into()
    }

    /// Where it answers HTTP.
    ///
    /// # Errors
    /// It does not run.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.running()?.addresses.admin)
    }

    /// Where its embedded Kafka is reached, if it has one.
    #[must_use]
    pub fn embedded_bootstrap(&self) -> Option<&str> {
        self.running.as_ref()?.addresses.embedded.as_deref()
    }

    /// Its process id, for `/proc`.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> io::Result<u32> {
        Ok(self.running()?.child.id())
    }

    /// Memory that it holds now, bytes (`VmRSS`).
    ///
    /// # Errors
    /// It does not run.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        memory::resident_bytes(self.pid()?)
    }

    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Its shim, to order faults and delays.
    #[must_use]
    pub fn shim(&self) -> Option<&Shim> {
        self.shim.as_ref()
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its log, of all starts.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("gateway.log")
    }

    /// Its log, of all starts, as text.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map_or_else(
            |error| error.to_string(),
            |log| String::from_utf8_lossy(&log).into_owned(),
        )
    }

    /// `GET path` on its admin port: status and body.
    ///
    /// # Errors
    /// It does not run or does not answer.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let url = format!("http://{}{path}", self.admin_addr()?);
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build()
            .into();
        let mut answer = agent.get(&url).call().map_err(io::Error::other)?;
        let body = answer
            .body_mut()
            .read_to_string()
            .map_err(io::Error::other)?;
        Ok((answer.status().as_u16(), body))
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// It does not run or does not answer.
    pub fn status(&self) -> io::Result<Status> {
        let (_, body) = self.get("/v1/status")?;
        Ok(serde_json::from_str(&body)?)
    }

    /// Asks for its status until it is as wanted.
    ///
    /// # Errors
    /// It was not in time; the error tells the last status.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> io::Result<Status> {
        let until = Instant::now() + timeout;
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!(
                    "not within {timeout:?}: {what}; {status:#?}"
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until every durable record is in Kafka.
    ///
    /// # Errors
    /// It was not in time.
    pub fn wait_forwarded(&self, timeout: Duration) -> io::Result<Status> {
        self.wait_until("everything is forwarded", timeout, |status| {
            !status.clusters.is_empty()
                && status
                    .clusters
                    .iter()
                    .all(|cluster| cluster.backlog == 0 && cluster.state == "CaughtUp")
        })
    }

    fn running(&self) -> io::Result<&Running> {
        self.running
            .as_ref()
            .ok_or_else(|| io::Error::other("the gateway does not run"))
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("gateway.toml")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let mut from = log.len().saturating_sub(LOG_SHOWN_BYTES);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        log[from..].to_owned()
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the gateway's log ends so:\n{}", self.log_tail());
        }
    }
}
