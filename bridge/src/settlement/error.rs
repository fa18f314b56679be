//! What can go wrong with settlement, by blame. Records are never lost by it:
//! what is not settled stays in its topic, and settlement tries again.

use rdkafka::error::KafkaError;

use super::changelog::RowError;

/// An error of settlement.
#[derive(Debug, thiserror::Error)]
pub enum SettlementError {
    /// The configuration's: librdkafka refuses an option or can't read a file.
    #[error("settlement's clients: {0}; correct the cluster's section of the configuration file")]
    Configuration(String),
    /// The cluster's: it can't be reached, or refuses.
    #[error("Kafka, {action}: {source}; retried by itself")]
    Kafka {
        /// What was being done.
        action: &'static str,
        /// librdkafka's own words.
        source: KafkaError,
    },
    /// The topics do not fit together.
    #[error("{0}")]
    Topics(String),
    /// The changelog holds what this version can't read. To go on without it could
    /// settle a payment twice.
    #[error("{topic}/{partition} at offset {offset}, key {key:?}: {source}")]
    Changelog {
        /// Its topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The message.
        offset: i64,
        /// Its key.
        key: String,
        /// Why not, and what to do.
        source: RowError,
    },
}

impl SettlementError {
    pub(super) fn kafka(action: &'static str) -> impl FnOnce(KafkaError) -> Self {
        move |source| Self::Kafka { action, source }
    }
}
