//! The gateway that is measured: the release build, as a process of its own.
//!
//! Promises: its journal is on the real disk, every PUBLISH of the load has a
//! route to Kafka, and a cell begins with nothing left to forward. Never: a
//! setting that an ordinary gateway does not have, but for bounds that the load
//! would hit.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use risiti_gateway::status::Status;
use risiti_gateway::trace::PaymentTrace;

use super::{limits, machine};

/// The Kafka topics that the gateway writes to: the load's, and its positions.
pub const TOPICS: [&str; 2] = [RECORDS, "risiti.positions"];
const RECORDS: &str = "bench.records";

/// A running gateway; it is killed when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    mqtt: SocketAddr,
    admin: String,
    http: ureq::Agent,
}

impl Gateway {
    /// Starts `binary` with everything it keeps under `dir`, forwarding to the
    /// Kafka at `bootstrap`.
    ///
    /// # Errors
    /// It did not start; its log is `gateway.log` in `dir`.
    pub fn start(binary: &Path, dir: &Path, bootstrap: &str) -> io::Result<Self> {
        let more = format!(
            r#"create_topics = false
[[routes]]
name = "bench"
filter = "bench/+/records"
topic = "{RECORDS}"
key = "level:2"
format = "raw"
"#
        );
        Self::start_with(binary, dir, bootstrap, &more)
    }

    /// The same with no route of its own; its configuration, which ends with the
    /// table of its Kafka and `more`, is left as `gateway.toml` in `dir`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(binary: &Path, dir: &Path, bootstrap: &str, more: &str) -> io::Result<Self> {
        let config = dir.join("gateway.toml");
        let data = dir.join("gateway");
        fs::write(&config, configuration(&data, bootstrap) + more)?;
        let log = fs::File::create(dir.join("gateway.log"))?;
        let mut child = Command::new(binary)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|e| {
                io::Error::other(format!(
                    "{}: {e}; build it with `cargo build --release -p risiti-gateway`",
                    binary.display()
                ))
            })?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let Some((mqtt, admin)) = addresses(&line) else {
            let _ = child.kill();
            let _ = child.wait();
            let log = fs::read_to_string(dir.join("gateway.log")).unwrap_or_default();
            return Err(io::Error::other(format!(
                "the gateway did not start:\n{log}"
            )));
        };
        let http = ureq::Agent::config_builder()
            .timeout_global(Some(limits::START))
            .build()
            .into();
        Ok(Self {
            child,
            mqtt,
            admin,
            http,
        })
    }

    /// Where it serves MQTT.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.mqtt
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has used.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> io::Result<Duration> {
        machine::process_cpu(self.child.id())
    }

    /// What it tells about itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> io::Result<Status> {
        let url = format!("{}/v1/status", self.admin);
        let mut answer = self.http.get(&url).call().map_err(io::Error::other)?;
        let status: Status = answer.body_mut().read_json().map_err(io::Error::other)?;
        for alarm in &status.alarms {
            eprintln!("alarm of the gateway: {alarm}");
        }
        Ok(status)
    }

    /// The life of a payment.
    ///
    /// # Errors
    /// It does not answer.
    pub fn trace(&self, terminal: &str, sequence: u64) -> io::Result<PaymentTrace> {
        let url = format!("{}/v1/trace/{terminal}/{sequence}", self.admin);
        let mut answer = self.http.get(&url).call().map_err(io::Error::other)?;
        answer.body_mut().read_json().map_err(io::Error::other)
    }

    /// Waits until Kafka has all; how many records waited, and how long it took.
    ///
    /// # Errors
    /// It takes longer than [`limits::DRAIN`].
    pub fn drain(&self) -> io::Result<(u64, Duration)> {
        let began = Instant::now();
        let backlog = || -> io::Result<u64> {
            let clusters = self.status()?.clusters;
            Ok(clusters.iter().map(|cluster| cluster.backlog).sum())
        };
        let first = backlog()?;
        let mut left = first;
        while left > 0 {
            if began.elapsed() > limits::DRAIN {
                return Err(io::Error::other(format!(
                    "{left} records are not forwarded"
                )));
            }
            std::thread::sleep(limits::ASK_AGAIN);
            left = backlog()?;
        }
        Ok((first, began.elapsed()))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(data: &Path, bootstrap: &str) -> String {
    format!(
        r#"[gateway]
id = "bench"
data_dir = {data:?}
[mqtt]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[log]
level = "warn"
[kafka]
bootstrap = "{bootstrap}"
"#
    )
}

/// Both addresses out of the line that `risiti run` prints.
pub(crate) fn addresses(line: &str) -> Option<(SocketAddr, String)> {
    let (_, rest) = line.split_once("MQTT on ")?;
    let (mqtt, rest) = rest.split_once(',')?;
    let (_, admin) = rest.split_once("admin on ")?;
    let admin = admin.split([',', '\n']).next()?;
    Some((mqtt.parse().ok()?, admin.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_are_read_from_the_line_at_start() {
        let line = "risiti serves MQTT on 127.0.0.1:40001, admin on http://127.0.0.1:40002, embedded Kafka on x:1\n";
        let (mqtt, admin) = addresses(line).unwrap();
        assert_eq!(mqtt.port(), 40_001);
        assert_eq!(admin, "http://127.0.0.1:40002");
        assert_eq!(addresses(""), None);
    }
}
