//! A real Apache Kafka of its own for a test: `tests/kafka/kafka.sh` as a child.
//!
//! Promises: free ports, data in a directory of its own, ready when `start`
//! returns, no process left behind. Never: a broker shared between tests.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// A JVM on a busy machine takes seconds; a minute means that it never will.
const START: Duration = Duration::from_secs(120);

/// Other tests take free ports at the same time.
const ATTEMPTS: u32 = 5;

/// How a broker is to be.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Lines appended to its configuration; `@PORT@` stands for its port and
    /// `@EXTRA_PORT_0@` to `_2@` for further free ones.
    pub extra: String,
    /// `--add-scram` values for the new directory.
    pub scram: Vec<String>,
}

/// A message read back from a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where it stands.
    pub partition: i32,
    /// At which offset.
    pub offset: i64,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its timestamp, Unix milliseconds.
    pub timestamp_ms: Option<i64>,
}

impl Committed {
    /// A header's value as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }
}

/// A running broker.
#[derive(Debug)]
pub struct RealKafka {
    /// `host:port` of its plaintext listener.
    pub bootstrap: String,
    /// Further free ports, for listeners of [`KafkaOptions::extra`].
    pub extra_ports: [u16; 3],
    port: u16,
    controller_port: u16,
    options: KafkaOptions,
    dir: TempDir,
    child: Option<Child>,
}

impl RealKafka {
    /// Starts a broker with nothing in it.
    ///
    /// # Errors
    /// Java or Maven is missing, or it did not come up; the error holds its log.
    pub fn start() -> io::Result<Self> {
        Self::start_with(KafkaOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(options: KafkaOptions) -> io::Result<Self> {
        let status = Command::new(script()).arg("fetch").status()?;
        if !status.success() {
            return Err(io::Error::other("kafka.sh fetch failed, see its output"));
        }
        let mut attempt = 1;
        loop {
            let [port, controller_port, extra_ports @ ..] = free_ports()?;
            let mut kafka = Self {
                bootstrap: format!("127.0.0.1:{port}"),
                extra_ports,
                port,
                controller_port,
                options: options.clone(),
                dir: tempfile::Builder::new().prefix("kafka-").tempdir()?,
                child: None,
            };
            match kafka.start_again() {
                Ok(()) => return Ok(kafka),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// Starts it on the same ports and data, after [`Self::stop`] or
    /// [`Self::kill`].
    ///
    /// # Errors
    /// It did not come up; the error holds the end of its log.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.kill();
        let log = self.dir.path().join("broker.log");
        let extra = self.dir.path().join("extra.properties");
        let mut lines = self
            .options
            .extra
            .replace("@PORT@", &self.port.to_string())
            .replace("@CONTROLLER_PORT@", &self.controller_port.to_string());
        for (index, port) in self.extra_ports.iter().enumerate() {
            lines = lines.replace(&format!("@EXTRA_PORT_{index}@"), &port.to_string());
        }
        std::fs::write(&extra, lines)?;
        let out = File::create(&log)?;
        let child = Command::new(script())
            .arg("start")
            .arg(self.dir.path().join("data"))
            .arg(self.port.to_string())
            .arg(self.controller_port.to_string())
            .env("KAFKA_EXTRA", &extra)
            .env("KAFKA_SCRAM", self.options.scram.join(" "))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()?;
        self.child = Some(child);
        let until = Instant::now() + START;
        while Instant::now() < until {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains("Kafka Server started") {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if ended {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let tail = text.len().saturating_sub(4000);
        let tail = text.get(tail..).unwrap_or(&text);
        Err(io::Error::other(format!(
            "the broker did not start:\n{tail}"
        )))
    }

    /// Stops it in an orderly way (SIGTERM) and waits.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Kills it (SIGKILL) and waits.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, signal);
            }
            let _ = child.wait();
        }
    }

    /// Its directory: data, configuration and log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// Kafka's topic tool failed.
    pub fn create_topic(&self, topic: &str, partitions: u32, settings: &[&str]) -> io::Result<()> {
        let mut command = Command::new(script());
        command
            .args([
                "topics",
                &self.bootstrap,
                "--create",
                "--if-not-exists",
                "--topic",
                topic,
            ])
            .args(["--partitions", &partitions.to_string()]);
        for setting in settings {
            command.args(["--config", setting]);
        }
        let done = command.output()?;
        if done.status.success() {
            return Ok(());
        }
        Err(io::Error::other(
            String::from_utf8_lossy(&done.stderr).into_owned(),
        ))
    }

    /// The committed log of a topic: what a `read_committed` consumer sees up to
    /// its end of now, partition by partition.
    ///
    /// # Errors
    /// The topic isn't there, or its end was not reached within a minute: a
    /// transaction stands open.
    pub fn committed(&self, topic: &str) -> io::Result<Vec<Committed>> {
        committed(&self.bootstrap, topic)
    }
}

impl Drop for RealKafka {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The committed log of a topic of any cluster; see [`RealKafka::committed`].
///
/// # Errors
/// As there.
pub fn committed(bootstrap: &str, topic: &str) -> io::Result<Vec<Committed>> {
    let client = |isolation: &str| {
        ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "risiti-tests")
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("fetch.wait.max.ms", "20")
            .create::<BaseConsumer>()
            .map_err(io::Error::other)
    };
    let timeout = Duration::from_secs(20);
    // The end as it is for read_uncommitted: an open transaction must not look
    // like the end of the log.
    let plain = client("read_uncommitted")?;
    let metadata = plain
        .fetch_metadata(Some(topic), timeout)
        .map_err(io::Error::other)?;
    let partitions = metadata
        .topics()
        .first()
        .map(|found| {
            found
                .partitions()
                .iter()
                .map(|partition| partition.id())
                .collect::<Vec<_>>()
        })
        .filter(|partitions| !partitions.is_empty())
        .ok_or_else(|| io::Error::other(format!("there is no topic {topic}")))?;
    let consumer = client("read_committed")?;
    let mut all = Vec::new();
    for partition in partitions {
        let (low, high) = plain
            .fetch_watermarks(topic, partition, timeout)
            .map_err(io::Error::other)?;
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, partition, Offset::Offset(low))
            .map_err(io::Error::other)?;
        consumer.assign(&assignment).map_err(io::Error::other)?;
        let until = Instant::now() + Duration::from_secs(60);
        let at_end = |consumer: &BaseConsumer| {
            let position = consumer.position().ok();
            position
                .and_then(|list| list.find_partition(topic, partition).map(|at| at.offset()))
                .is_some_and(|at| matches!(at, Offset::Offset(at) if at >= high))
        };
        while low < high && !at_end(&consumer) {
            if Instant::now() > until {
                return Err(io::Error::other(format!(
                    "{topic}/{partition}: the end {high} was not reached; a transaction is open"
                )));
            }
            let mut next = consumer.poll(Duration::from_millis(20));
            while let Some(message) = next {
                let message = message.map_err(io::Error::other)?;
                if message.offset() < high {
                    all.push(read(&message));
                }
                next = consumer.poll(Duration::ZERO);
            }
        }
    }
    Ok(all)
}

fn read(message: &rdkafka::message::BorrowedMessage<'_>) -> Committed {
    use rdkafka::message::Headers;
    Committed {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| {
                    (
                        header.key.to_owned(),
                        header.value.unwrap_or_default().to_vec(),
                    )
                })
                .collect()
        }),
        timestamp_ms: message.timestamp().to_millis(),
    }
}

/// `tests/kafka/kafka.sh`.
#[must_use]
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/kafka.sh")
}

/// Ports that were free a moment ago, all different.
fn free_ports() -> io::Result<[u16; 5]> {
    let mut listeners = Vec::new();
    let mut ports = [0; 5];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
