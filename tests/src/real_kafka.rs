//! A real Apache Kafka of its own for a test: `tests/kafka/kafka.sh` as a child.
//!
//! Promises: free ports, data in a directory of its own, ready when `start`
//! returns, no process left behind. Never: a broker shared between tests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::bound::bound;
use crate::gateway_process::free_port;

/// A JVM on a busy machine takes seconds; a minute means that it never will.
const START: Duration = Duration::from_secs(120);

/// Other tests take free ports at the same time.
const ATTEMPTS: u32 = 5;

/// How a broker is to be.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Lines appended to its configuration; `@PORT@` stands for its port and
    /// `@EXTRA_PORT_0@` to `_3@` for further free ones.
    pub extra: String,
    /// `--add-scram` values for the new directory.
    pub scram: Vec<String>,
    /// Whether it ends with the thread that starts it, see [`bound`].
    pub dies_with_us: bool,
}

/// A place in each partition of a topic: the next offset to read.
pub type Places = BTreeMap<i32, i64>;

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

/// The last 4,000 bytes of a log, for the report of a failure; empty if there is none.
#[must_use]
pub fn end_of(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(4_000);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}

/// A running broker.
#[derive(Debug)]
pub struct RealKafka {
    /// `host:port` of its plaintext listener.
    pub bootstrap: String,
    /// Further free ports, for listeners of [`KafkaOptions::extra`].
    pub extra_ports: [u16; 4],
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
        let mut command = match self.options.dies_with_us {
            true => bound(script()),
            false => Command::new(script()),
        };
        let child = command
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
        Err(io::Error::other(format!(
            "the broker did not start:\n{}",
            self.told()
        )))
    }

    /// The end of what it has logged since its last start.
    #[must_use]
    pub fn told(&self) -> String {
        end_of(&self.dir.path().join("broker.log"))
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
        let _ = self.signal(signal);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let group = self.child.as_ref().and_then(|child| {
            let id = i32::try_from(child.id()).ok()?;
            Pid::from_raw(id)
        });
        let group = group.ok_or_else(|| io::Error::other("the broker does not run"))?;
        Ok(kill_process_group(group, signal)?)
    }

    /// Leaves its directory behind when it ends, to be looked into.
    pub fn keep_dir(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// Its process, for `/proc`; none if it does not run.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
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
    committed_since(bootstrap, topic, &Places::new())
}

/// The same from these places on; a partition without one from its beginning.
///
/// # Errors
/// As [`RealKafka::committed`].
pub fn committed_since(bootstrap: &str, topic: &str, from: &Places) -> io::Result<Vec<Committed>> {
    // The end as it is for read_uncommitted: an open transaction must not look
    // like the end of the log.
    let plain = reader(bootstrap, "read_uncommitted")?;
    let partitions = partitions(&plain, topic)?;
    if partitions.is_empty() {
        return Err(io::Error::other(format!("there is no topic {topic}")));
    }
    let consumer = reader(bootstrap, "read_committed")?;
    let mut all = Vec::new();
    for partition in partitions {
        let (low, high) = plain
            .fetch_watermarks(topic, partition, ANSWER)
            .map_err(io::Error::other)?;
        let low = from.get(&partition).map_or(low, |from| low.max(*from));
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
                match message {
                    Ok(message) if message.offset() < high => all.push(read(&message)),
                    Ok(_) => {}
                    // It connects again by itself; a busy broker drops a connection.
                    Err(KafkaError::MessageConsumption(
                        RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
                    )) => {}
                    Err(error) => return Err(io::Error::other(error)),
                }
                next = consumer.poll(Duration::ZERO);
            }
        }
    }
    Ok(all)
}

/// Where a topic ends now, open transactions and all; empty if there is none.
///
/// # Errors
/// Kafka does not answer.
pub fn ends(bootstrap: &str, topic: &str) -> io::Result<Places> {
    let plain = reader(bootstrap, "read_uncommitted")?;
    let end = |partition| {
        let watermarks = plain.fetch_watermarks(topic, partition, ANSWER);
        watermarks
            .map(|(_, high)| (partition, high))
            .map_err(io::Error::other)
    };
    partitions(&plain, topic)?.into_iter().map(end).collect()
}

/// How long a broker may take for an answer.
const ANSWER: Duration = Duration::from_secs(20);

fn reader(bootstrap: &str, isolation: &str) -> io::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "risiti-tests")
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("fetch.wait.max.ms", "20")
        .create()
        .map_err(io::Error::other)
}

fn partitions(reader: &BaseConsumer, topic: &str) -> io::Result<Vec<i32>> {
    let metadata = reader
        .fetch_metadata(Some(topic), ANSWER)
        .map_err(io::Error::other)?;
    let found = metadata.topics().first();
    Ok(found.map_or_else(Vec::new, |found| {
        let partitions = found.partitions().iter();
        partitions.map(|partition| partition.id()).collect()
    }))
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

/// Ports that were free a moment ago, all different, and that no outgoing
/// connection is given while the broker is down: its clients keep trying.
fn free_ports() -> io::Result<[u16; 6]> {
    let mut ports = [0; 6];
    for index in 0..ports.len() {
        let mut port = free_port()?;
        while ports[..index].contains(&port) {
            port = free_port()?;
        }
        ports[index] = port;
    }
    Ok(ports)
}
