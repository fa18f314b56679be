//! The topics that settlement works on: those that are missing are created.
//!
//! Promises: the changelog has as many partitions as the records topic, or nothing
//! is settled. Never: a topic altered.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use risiti_config::{Cluster, Settlement};

use super::error::SettlementError;
use crate::{client, limits};

/// Settings of the changelog. Its active segment is never compacted, so that is
/// what a takeover has to read besides the window of each terminal.
const CHANGELOG: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "16777216"),
    ("segment.ms", "3600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
];

/// Settings of the other topics: retention counts from arrival.
const OTHERS: [(&str, &str); 1] = [("message.timestamp.type", "LogAppendTime")];

/// The topics that settlement writes, with the partitions that they need beside a
/// records topic of that many: for whoever creates topics before settlement runs,
/// as the embedded cluster asks for.
#[must_use]
pub fn needed(settlement: &Settlement, partitions: u16) -> [(&str, u16); 5] {
    [
        (&settlement.records_topic, partitions),
        (&settlement.receipts_topic, partitions),
        (&settlement.transactions_topic, partitions),
        (&settlement.rejected_topic, partitions),
        (&settlement.changelog_topic, partitions),
    ]
}

/// Creates what is missing and checks that all fits together. Returns the
/// partitions of the records topic.
///
/// # Errors
/// A topic is missing and may not be created, or the changelog does not fit.
pub fn ensure<C: ClientContext>(
    client: &Client<C>,
    cluster: &Cluster,
    bootstrap: &str,
    settlement: &Settlement,
) -> Result<i32, SettlementError> {
    let found = counts(client)?;
    let count = |topic: &str| {
        let found = found.iter().find(|(name, _)| name == topic);
        found.map(|(_, partitions)| *partitions)
    };
    let records = count(&settlement.records_topic).unwrap_or(i32::from(cluster.partitions));
    if records > limits::SETTLEMENT_PARTITIONS_MAX {
        return Err(SettlementError::Topics(format!(
            "{} has {records} partitions, more than the {} that receipt numbers leave room for; use a topic with fewer",
            settlement.records_topic,
            limits::SETTLEMENT_PARTITIONS_MAX
        )));
    }
    let missing: Vec<(&str, i32)> = needed(settlement, cluster.partitions)
        .into_iter()
        .filter(|(topic, _)| count(topic).is_none())
        .map(|(topic, partitions)| {
            let is_changelog = topic == settlement.changelog_topic;
            (
                topic,
                if is_changelog {
                    records
                } else {
                    i32::from(partitions)
                },
            )
        })
        .collect();
    if !missing.is_empty() {
        create(cluster, bootstrap, settlement, &missing)?;
    }
    match count(&settlement.changelog_topic) {
        Some(changelog) if changelog != records => Err(SettlementError::Topics(format!(
            "{} has {changelog} partitions and {} has {records}; what was settled is remembered by partition, so they must be the same: never add partitions to a records topic in use, make a new one",
            settlement.changelog_topic, settlement.records_topic
        ))),
        _ => Ok(records),
    }
}

/// Every topic with its number of partitions.
fn counts<C: ClientContext>(client: &Client<C>) -> Result<Vec<(String, i32)>, SettlementError> {
    // All in one answer: asking for one by name could create it.
    let metadata = client
        .fetch_metadata(None, limits::CALL * 4)
        .map_err(SettlementError::kafka("list topics"))?;
    let there = metadata.topics().iter().filter(|topic| {
        topic.error() != Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
    });
    Ok(there
        .map(|topic| {
            let partitions = i32::try_from(topic.partitions().len());
            (topic.name().to_owned(), partitions.unwrap_or(i32::MAX))
        })
        .filter(|(_, partitions)| *partitions > 0)
        .collect())
}

fn create(
    cluster: &Cluster,
    bootstrap: &str,
    settlement: &Settlement,
    missing: &[(&str, i32)],
) -> Result<(), SettlementError> {
    let names = || missing.iter().map(|(topic, _)| *topic).collect::<Vec<_>>();
    if !cluster.create_topics {
        return Err(SettlementError::Topics(format!(
            "topics are missing: {}; create them ({} compacted, with as many partitions as {}), or set kafka.create_topics = true",
            names().join(", "),
            settlement.changelog_topic,
            settlement.records_topic
        )));
    }
    let admin: AdminClient<_> = client::connection(cluster, bootstrap, "risiti-topics")
        .create()
        .map_err(|error| SettlementError::Configuration(error.to_string()))?;
    let new: Vec<NewTopic<'_>> = missing
        .iter()
        .map(|(topic, partitions)| {
            let replication = TopicReplication::Fixed(i32::from(cluster.replication_factor));
            let settings: &[(&str, &str)] = if *topic == settlement.changelog_topic {
                &CHANGELOG
            } else {
                &OTHERS
            };
            settings.iter().fold(
                NewTopic::new(topic, *partitions, replication),
                |new, (name, value)| new.set(name, value),
            )
        })
        .collect();
    let timeout = Duration::from_secs(10);
    let options = AdminOptions::new()
        .operation_timeout(Some(timeout))
        .request_timeout(Some(timeout));
    let results = futures_executor::block_on(admin.create_topics(&new, &options))
        .map_err(SettlementError::kafka("create topics"))?;
    for result in results {
        match result {
            Ok(topic) => tracing::info!(topic, "topic created"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(SettlementError::Topics(format!(
                    "topic {topic} could not be created: {code}; create it, or grant the right to"
                )));
            }
        }
    }
    Ok(())
}
