//! The gateway as a process of its own, so that its power can be cut.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Failure;
use super::process::Process;
use crate::status::Status;

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(30);

/// The gateway's process, up or not.
pub struct Gateway {
    process: Process,
    mqtt: SocketAddr,
    admin: String,
}

impl Gateway {
    /// Starts it with `<dir>/risiti.toml`.
    pub async fn start(dir: &Path) -> Result<Self, Failure> {
        let mut gateway = Self {
            process: Process::new("run", dir),
            mqtt: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: String::new(),
        };
        gateway.start_again().await?;
        Ok(gateway)
    }

    /// Starts it, after a cut too.
    pub async fn start_again(&mut self) -> Result<(), Failure> {
        self.process.start()?;
        let line = self.process.says(START_MAX).await?;
        (self.mqtt, self.admin) =
            addresses(&line).ok_or_else(|| format!("the gateway said {line:?}"))?;
        Ok(())
    }

    /// Kills it (SIGKILL).
    pub fn cut_power(&mut self) -> Result<(), Failure> {
        self.process.kill()
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.process.is_up()
    }

    /// Why it has ended by itself, if it has.
    pub fn ended(&mut self) -> Option<String> {
        self.process.ended()
    }

    /// How often its power was cut.
    pub fn cuts(&self) -> u32 {
        self.process.kills()
    }

    /// Where it serves MQTT.
    pub fn mqtt_addr(&self) -> SocketAddr {
        self.mqtt
    }

    /// What it tells about itself.
    pub async fn status(&self) -> Option<Status> {
        if !self.is_up() {
            return None;
        }
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

    /// Waits until it has found its place in Kafka.
    pub async fn reaches_kafka(&self) -> Result<(), Failure> {
        let until = Instant::now() + START_MAX;
        while Instant::now() < until {
            if let Some(status) = self.status().await
                && status.clusters.iter().all(|c| c.state == "CaughtUp")
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = self.process.log_path();
        Err(format!("the gateway does not reach Kafka; see {}", log.display()).into())
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        self.process.stop().await;
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
