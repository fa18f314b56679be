//! Creates the topics that are missing.
//!
//! Promises: a topic that exists is never altered; the positions topic is made
//! compacted, with small segments so that reading it back stays short; the others
//! keep records by their arrival, however long they waited. Never: a
//! failure that stops the forwarder (a topic nobody may create is refused by
//! Kafka later, record by record, into the dead letters).

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use risiti_config::Cluster;

use crate::client;
use crate::embedded::EmbeddedCluster;
use crate::error::BridgeError;

/// Settings of the positions topic. Its active segment is never compacted, so
/// that is what a start has to read.
const POSITIONS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "16777216"),
    ("segment.ms", "3600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
];

/// Settings of the other topics. A record keeps the time at which it was accepted
/// (`ce_time`), but retention has to count from its arrival in Kafka: by its own
/// timestamp a record that waited longer than the topic's retention would be
/// deleted as soon as it is committed, before anyone has read it.
const RECORDS: [(&str, &str); 1] = [("message.timestamp.type", "LogAppendTime")];

/// Names, out of these, the topics that the cluster does not have.
///
/// # Errors
/// The cluster did not answer within the timeout.
pub fn missing<C: ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> Result<Vec<String>, BridgeError> {
    let mut missing = Vec::new();
    // All topics in one answer: asking for one by name could create it.
    let metadata = client
        .fetch_metadata(None, timeout)
        .map_err(BridgeError::kafka("list topics"))?;
    for topic in topics {
        let known = metadata
            .topics()
            .iter()
            .any(|known| known.name() == topic && exists(known.error()));
        if !known {
            missing.push(topic.clone());
        }
    }
    Ok(missing)
}

fn exists(error: Option<RDKafkaRespErr>) -> bool {
    error != Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
}

/// Creates these topics on a cluster, or in the embedded one.
///
/// # Errors
/// Per topic and with the reason: no rights, a policy, no answer in time.
pub fn create(
    cluster: &Cluster,
    bootstrap: &str,
    embedded: Option<&EmbeddedCluster>,
    topics: &[String],
    timeout: Duration,
) -> Result<(), BridgeError> {
    let is_positions = |topic: &String| *topic == cluster.positions_topic;
    if let Some(embedded) = embedded {
        for topic in topics {
            let partitions = if is_positions(topic) {
                1
            } else {
                cluster.partitions
            };
            embedded.create_topic(topic, partitions)?;
        }
        return Ok(());
    }
    let admin: AdminClient<_> = client::connection(cluster, bootstrap, "risiti-topics")
        .create()
        .map_err(BridgeError::kafka("create a client for topics"))?;
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let partitions = if is_positions(topic) {
                1
            } else {
                cluster.partitions
            };
            let replication = TopicReplication::Fixed(i32::from(cluster.replication_factor));
            let new = NewTopic::new(topic, i32::from(partitions), replication);
            let settings: &[(&str, &str)] = if is_positions(topic) {
                &POSITIONS
            } else {
                &RECORDS
            };
            settings
                .iter()
                .fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(timeout))
        .request_timeout(Some(timeout));
    let results = futures_executor::block_on(admin.create_topics(&new, &options))
        .map_err(BridgeError::kafka("create topics"))?;
    for result in results {
        match result {
            Ok(topic) => tracing::info!(topic, "topic created"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(BridgeError::Configuration {
                    cluster: bootstrap.into(),
                    reason: format!("topic {topic} could not be created: {code}"),
                });
            }
        }
    }
    Ok(())
}
