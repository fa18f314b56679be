//! Kafka in this process, to try things out: librdkafka's mock cluster.
//!
//! Promises: other processes (kcat, any client library) reach it on the address
//! it gives; its limits are stated in [`LIMITS`]. Never: an exactly-once claim.

use std::sync::mpsc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rdkafka::mocking::MockCluster;

use crate::error::BridgeError;
use crate::limits;

/// What the embedded cluster is not; shown at start and in the manual.
pub const LIMITS: &str = "The embedded Kafka is for trying things out: it lives in this process's \
memory, keeps about 5 MiB a partition and forgets the oldest beyond that, starts empty, listens on \
a port of its own choosing on the loopback address, and implements no transactions (after a crash \
a record may stand in it twice, recognisable by ce_id). Use a real cluster for anything that \
matters: set kafka.bootstrap to its address.";

/// Its broker: one is enough, it replicates nothing.
const BROKERS: i32 = 1;

/// Whether this is the cluster id of an embedded cluster, of whatever process. It
/// acknowledges offsets that are passed in a transaction, and forgets them.
#[must_use]
pub fn is_embedded(cluster_id: &str) -> bool {
    cluster_id.starts_with("mockCluster")
}

/// A request to the thread that owns the cluster.
enum Request {
    CreateTopic(String, u16, mpsc::SyncSender<Result<(), String>>),
    SetUp(bool),
}

/// An in-process cluster; it ends when this is dropped.
///
/// The mock cluster itself may not change threads, so one thread owns it and
/// takes requests.
#[derive(Debug)]
pub struct EmbeddedCluster {
    bootstrap: String,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedCluster {
    /// Starts a cluster on a free port.
    ///
    /// # Errors
    /// librdkafka could not bind a port or start a thread.
    pub fn start() -> Result<Self, BridgeError> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let (started, start) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("embedded-kafka".into())
            .spawn(move || {
                let cluster = match MockCluster::new(BROKERS) {
                    Ok(cluster) => cluster,
                    Err(error) => {
                        let _ = started.send(Err(error.to_string()));
                        return;
                    }
                };
                let _ = started.send(Ok(cluster.bootstrap_servers()));
                for request in inbox {
                    match request {
                        Request::CreateTopic(topic, partitions, done) => {
                            let result = cluster
                                .create_topic(&topic, i32::from(partitions), BROKERS)
                                .map_err(|error| error.to_string());
                            let _ = done.send(result);
                        }
                        Request::SetUp(up) => {
                            let _ = if up {
                                cluster.broker_up(-1)
                            } else {
                                cluster.broker_down(-1)
                            };
                        }
                    }
                }
            })
            .map_err(|error| failed(error.to_string()))?;
        let bootstrap = start
            .recv()
            .map_err(|_| failed("its thread ended".into()))?
            .map_err(failed)?;
        Ok(Self {
            bootstrap,
            requests: Mutex::new(Some(requests)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// `host:port` for any Kafka client.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Creates a topic with at most [`limits::EMBEDDED_PARTITIONS_MAX`]
    /// partitions; one that exists stays as it is.
    ///
    /// # Errors
    /// The name is no topic name.
    pub fn create_topic(&self, topic: &str, partitions: u16) -> Result<(), BridgeError> {
        let partitions = partitions.clamp(1, limits::EMBEDDED_PARTITIONS_MAX);
        let (done, result) = mpsc::sync_channel(1);
        self.request(Request::CreateTopic(topic.into(), partitions, done));
        match result.recv() {
            Ok(Err(reason)) if !reason.to_ascii_lowercase().contains("exist") => {
                Err(failed(reason))
            }
            _ => Ok(()),
        }
    }

    /// Takes the cluster off the network, or puts it back: a cut link, for
    /// demonstrations and tests. What it holds stays.
    pub fn set_up(&self, up: bool) {
        self.request(Request::SetUp(up));
    }

    fn request(&self, request: Request) {
        if let Some(requests) = self.requests.lock().as_ref() {
            let _ = requests.send(request);
        }
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        self.requests.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn failed(reason: String) -> BridgeError {
    BridgeError::Configuration {
        cluster: "embedded".into(),
        reason,
    }
}
