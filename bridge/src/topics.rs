//! Creates the topics that are missing.
//!
//! Promises: a topic that exists is never altered; the positions topic is made
//! compacted, with small segments so that reading it back stays short; the others
//! keep records by their arrival, however long they waited. Never: a
//! failure that stops the forwarder (a topic nobody may create is refused by
//! Kafka later, record by record, into the dead letters).

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
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

/// A topic, made by somebody else, that judges records by their own time: one that
/// waited here for longer than this is deleted or refused although it is new to
/// Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aging {
    /// Its name.
    pub topic: String,
    /// Age in milliseconds, from the moment the gateway accepted the record.
    pub age_ms: u64,
    /// Whether Kafka refuses what is older, rather than deletes it.
    pub refuses: bool,
}

impl std::fmt::Display for Aging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (topic, hours) = (&self.topic, self.age_ms / 3_600_000);
        let fate = if self.refuses {
            "refuses (message.timestamp.before.max.ms)"
        } else {
            "may delete at once (retention.ms)"
        };
        write!(
            f,
            "Kafka topic {topic} goes by the records' own time and {fate} what waited for more than {hours} h; set message.timestamp.type=LogAppendTime on it"
        )
    }
}

/// Asks the cluster which of these topics are [`Aging`].
///
/// # Errors
/// No answer in time. A topic whose settings may not be read is left out.
pub fn aging(
    cluster: &Cluster,
    bootstrap: &str,
    topics: &[String],
    timeout: Duration,
) -> Result<Vec<Aging>, BridgeError> {
    let admin: AdminClient<_> = client::connection(cluster, bootstrap, "risiti-topics")
        .create()
        .map_err(BridgeError::kafka("create a client for topics"))?;
    let resources: Vec<_> = topics
        .iter()
        .map(|topic| ResourceSpecifier::Topic(topic))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let answers = futures_executor::block_on(admin.describe_configs(&resources, &options))
        .map_err(BridgeError::kafka("read the settings of topics"))?;
    let mut found = Vec::new();
    for answer in answers {
        match answer {
            Ok(resource) => found.extend(judge(&resource)),
            Err(code) => tracing::debug!(%code, "a topic's settings can't be read"),
        }
    }
    Ok(found)
}

fn judge(resource: &ConfigResource) -> Option<Aging> {
    let OwnedResourceSpecifier::Topic(topic) = &resource.specifier else {
        return None;
    };
    let value = |name: &str| {
        let entry = resource.entries.iter().find(|entry| entry.name == name)?;
        entry.value.as_deref()
    };
    if value("message.timestamp.type")? != "CreateTime" {
        return None;
    }
    // -1 and the largest number stand for "never".
    let bound = |name: &str| {
        let age_ms = value(name)?.parse::<i64>().ok()?;
        (age_ms != i64::MAX).then(|| u64::try_from(age_ms).ok())?
    };
    let deleted = value("cleanup.policy")
        .is_none_or(|policy| policy.contains("delete"))
        .then(|| bound("retention.ms"))
        .flatten();
    let refused = bound("message.timestamp.before.max.ms");
    let refuses = match (refused, deleted) {
        (Some(refused), Some(deleted)) => refused <= deleted,
        (refused, _) => refused.is_some(),
    };
    let age_ms = if refuses { refused } else { deleted }?;
    Some(Aging {
        topic: topic.clone(),
        age_ms,
        refuses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::admin::{ConfigEntry, ConfigSource};

    fn topic(settings: &[(&str, &str)]) -> ConfigResource {
        let entries = settings
            .iter()
            .map(|(name, value)| ConfigEntry {
                name: (*name).into(),
                value: Some((*value).into()),
                source: ConfigSource::Default,
                is_read_only: false,
                is_default: true,
                is_sensitive: false,
            })
            .collect();
        ConfigResource {
            specifier: OwnedResourceSpecifier::Topic("t".into()),
            entries,
        }
    }

    #[test]
    fn only_a_topic_that_goes_by_the_records_own_time_is_aging() {
        let never = i64::MAX.to_string();
        for (kind, retention, before, expected) in [
            ("LogAppendTime", "1000", "5", None),
            ("CreateTime", "-1", &*never, None),
            ("CreateTime", "1000", &*never, Some((1000, false))),
            ("CreateTime", "1000", "5", Some((5, true))),
            ("CreateTime", "-1", "5", Some((5, true))),
        ] {
            let found = judge(&topic(&[
                ("message.timestamp.type", kind),
                ("retention.ms", retention),
                ("message.timestamp.before.max.ms", before),
            ]));
            let found = found.map(|aging| (aging.age_ms, aging.refuses));
            assert_eq!(found, expected, "{kind} {retention} {before}");
        }
    }
}
