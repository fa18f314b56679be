//! The whole way up, for real: a gateway process before an Apache Kafka of its
//! own, and the verdict over what a fleet sent through them.

use std::io;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use crate::fleet::Fleet;
use crate::gateway_process::{GatewayProcess, ProcessSwitches};
use crate::ledger::{self, Found, Verdict};
use crate::real_kafka::{self, RealKafka};

/// Where terminals' records go.
pub const RECORDS: &str = "risiti.records";

/// Where raw clients' messages go.
pub const RAW: &str = "plant.raw";

/// How long a backlog of these tests may take to drain, with the restart of a
/// broker that was killed before.
const DRAIN: Duration = Duration::from_secs(120);

/// A gateway and its Kafka.
#[derive(Debug)]
pub struct Upward {
    /// The gateway.
    pub gateway: GatewayProcess,
    /// Its Kafka.
    pub kafka: RealKafka,
    /// Its directory, which ends after it.
    pub dir: TempDir,
}

impl Upward {
    /// Starts both.
    ///
    /// # Errors
    /// One of them did not start.
    pub fn start(switches: ProcessSwitches) -> io::Result<Self> {
        let kafka = RealKafka::start()?;
        let dir = tempfile::tempdir()?;
        let config = config("gw-1", &kafka.bootstrap);
        let gateway = GatewayProcess::start(&config, dir.path(), switches, None)?;
        Ok(Self {
            gateway,
            kafka,
            dir,
        })
    }

    /// Waits until all is in Kafka and judges.
    ///
    /// # Errors
    /// It did not drain, or the log holds what no client of a fleet writes.
    pub fn verdict(&self, fleet: &Fleet) -> io::Result<Verdict> {
        self.gateway.wait_forwarded(DRAIN)?;
        let found = found(&self.kafka.bootstrap, &[RECORDS, RAW])?;
        Ok(ledger::verdict(&fleet.accounts(), &found))
    }
}

/// The configuration of a gateway with both routes.
#[must_use]
pub fn config(gateway_id: &str, bootstrap: &str) -> String {
    format!(
        r#"
[gateway]
id = "{gateway_id}"
[kafka]
bootstrap = "{bootstrap}"
# Small, so that a fault falls between two of many.
batch_records_max = 1000
partitions = 3
[[routes]]
name = "records"
filter = "t/+/records"
topic = "{RECORDS}"
[[routes]]
name = "raw"
filter = "raw/#"
topic = "{RAW}"
key = "client_id"
format = "raw"
"#
    )
}

/// Whether a transaction stands open in a topic: whether what is there goes
/// beyond what a `read_committed` consumer may see.
///
/// # Errors
/// The topic isn't there, or Kafka does not answer.
pub fn transaction_is_open(bootstrap: &str, topic: &str) -> io::Result<bool> {
    let timeout = Duration::from_secs(20);
    let client = |isolation: &str| {
        ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("isolation.level", isolation)
            .create::<BaseConsumer>()
            .map_err(io::Error::other)
    };
    let (all, committed) = (client("read_uncommitted")?, client("read_committed")?);
    let metadata = all
        .fetch_metadata(Some(topic), timeout)
        .map_err(io::Error::other)?;
    let topic_metadata = metadata
        .topics()
        .first()
        .filter(|found| !found.partitions().is_empty())
        .ok_or_else(|| io::Error::other(format!("there is no topic {topic}")))?;
    for partition in topic_metadata.partitions() {
        let end = |consumer: &BaseConsumer| {
            let ends = consumer.fetch_watermarks(topic, partition.id(), timeout);
            ends.map(|(_, high)| high).map_err(io::Error::other)
        };
        if end(&committed)? < end(&all)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether every transaction in a topic ends in time: Kafka answers a commit before
/// its markers stand in every partition.
///
/// # Errors
/// As [`transaction_is_open`].
pub fn transactions_end(bootstrap: &str, topic: &str, timeout: Duration) -> io::Result<bool> {
    let until = Instant::now() + timeout;
    while transaction_is_open(bootstrap, topic)? {
        if Instant::now() > until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}

/// Everything in the committed logs of these topics.
///
/// # Errors
/// A log can't be read to its end, or holds what no client of a fleet writes.
pub fn found(bootstrap: &str, topics: &[&str]) -> io::Result<Vec<Found>> {
    let mut all = Vec::new();
    for topic in topics {
        let log = real_kafka::committed(bootstrap, topic)?;
        all.extend(ledger::read(&log).map_err(io::Error::other)?);
    }
    Ok(all)
}
