//! What can go wrong between the journal and Kafka, by blame.

use rdkafka::error::KafkaError;
use risiti_store::StoreError;

/// An error of the bridge. None of them means that a record is lost: what is
/// not in Kafka stays in the journal or among the dead letters.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The configuration's: librdkafka refuses an option or can't read a file.
    #[error("cluster {cluster}: {reason}; correct its section of the configuration file")]
    Configuration {
        /// Name of the cluster.
        cluster: String,
        /// librdkafka's own words.
        reason: String,
    },
    /// The cluster's: it can't be reached, or refuses.
    #[error("Kafka, {action}: {source}; retried by itself")]
    Kafka {
        /// What was being done.
        action: &'static str,
        /// librdkafka's own words.
        source: KafkaError,
    },
    /// The position in Kafka is in a format of a later version.
    #[error(
        "the position of {key} in Kafka reads {value:?}, which this version does not know; run the version that wrote it, or a later one"
    )]
    Position {
        /// Its key.
        key: String,
        /// What was found.
        value: String,
    },
    /// The disk's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no thread.
    #[error("no thread: {0}; raise the limit of processes (ulimit -u, TasksMax)")]
    Thread(std::io::Error),
    /// A dead letter can't be read.
    #[error(
        "dead letter {id}: {reason}; the journal keeps nothing of it, look at it with `risiti dead show`"
    )]
    DeadLetter {
        /// Which.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A person named a dead letter that isn't there.
    #[error("there is no dead letter {id}; `risiti dead list` shows those there are")]
    NoDeadLetter {
        /// What was asked for.
        id: String,
    },
}

impl BridgeError {
    pub(crate) fn kafka(action: &'static str) -> impl FnOnce(KafkaError) -> Self {
        move |source| Self::Kafka { action, source }
    }
}
