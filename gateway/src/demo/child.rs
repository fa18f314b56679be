//! The gateway as a process of its own, so that its power can be cut.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::Failure;
use crate::status::Status;

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(30);

/// The gateway's process, up or not.
pub struct Child {
    dir: PathBuf,
    process: Option<tokio::process::Child>,
    mqtt: SocketAddr,
    admin: String,
    cuts: u32,
}

impl Child {
    /// Writes a configuration and starts it.
    pub async fn start(
        dir: &Path,
        run: &str,
        bootstrap: &str,
        topic: &str,
    ) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let config = format!(
            "[gateway]\nid = \"demo-{run}\"\ndata_dir = {data:?}\n\n\
             [mqtt]\nlisten = \"127.0.0.1:0\"\n\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\n\
             [store]\nbudget_bytes = \"1GiB\"\n\n\
             [kafka]\nbootstrap = \"{bootstrap}\"\n\n\
             [[routes]]\nname = \"records\"\nfilter = \"t/+/records\"\ntopic = \"{topic}\"\n",
            data = dir.join("data"),
        );
        std::fs::write(dir.join("risiti.toml"), config)?;
        let mut child = Self {
            dir: dir.to_owned(),
            process: None,
            mqtt: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: String::new(),
            cuts: 0,
        };
        child.start_again().await?;
        Ok(child)
    }

    /// Starts it, after a cut too.
    pub async fn start_again(&mut self) -> Result<(), Failure> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("gateway.log"))?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("run")
            .arg("--config")
            .arg(self.dir.join("risiti.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let log = self.dir.join("gateway.log");
        let line = tokio::time::timeout(START_MAX, lines.next_line())
            .await
            .map_err(|_| format!("the gateway does not start; see {}", log.display()))??
            .ok_or_else(|| format!("the gateway ended at once; see {}", log.display()))?;
        (self.mqtt, self.admin) =
            addresses(&line).ok_or_else(|| format!("the gateway said {line:?}"))?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it (SIGKILL): no file is closed, nothing is said to anyone.
    pub fn cut_power(&mut self) -> Result<(), Failure> {
        if let Some(mut process) = self.process.take() {
            process.start_kill()?;
            self.cuts += 1;
        }
        Ok(())
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// How often its power was cut.
    pub fn cuts(&self) -> u32 {
        self.cuts
    }

    /// Where it serves MQTT.
    pub fn mqtt_addr(&self) -> SocketAddr {
        self.mqtt
    }

    /// What it tells about itself.
    pub async fn status(&self) -> Option<Status> {
        self.process.as_ref()?;
        let url = format!("http://{}/v1/status", self.admin);
        tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .timeout_global(Some(Duration::from_secs(1)))
                .build()
                .into();
            agent
                .get(url)
                .call()
                .ok()?
                .body_mut()
                .read_json::<Status>()
                .ok()
        })
        .await
        .ok()?
    }

    /// Durable records that are not in Kafka yet; none if it can't be asked.
    pub async fn backlog(&self) -> Option<u64> {
        let status = self.status().await?;
        Some(status.clusters.iter().map(|c| c.backlog).sum())
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        if let Some(id) = process.id().and_then(|id| i32::try_from(id).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(id)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = tokio::time::timeout(crate::limits::STOP_DEADLINE, process.wait()).await;
    }
}

/// The addresses in the line that `risiti run` prints.
fn addresses(line: &str) -> Option<(SocketAddr, String)> {
    let rest = line.strip_prefix("risiti serves MQTT on ")?;
    let (mqtt, rest) = rest.split_once(", admin on http://")?;
    let admin = rest.split(',').next()?;
    Some((mqtt.parse().ok()?, admin.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_run_prints() {
        let line = "risiti serves MQTT on 127.0.0.1:1883, admin on http://127.0.0.1:9180, embedded Kafka on 127.0.0.1:1";
        let (mqtt, admin) = addresses(line).unwrap();
        assert_eq!(mqtt.port(), 1883);
        assert_eq!(admin, "127.0.0.1:9180");
    }
}
