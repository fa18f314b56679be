//! What the forwarder decides: what to send, whose fault an error is, which
//! record Kafka refused.
//!
//! Promises: the order of the journal is the order of sending; a record is called
//! refused only when that is certain. Never: a clock, a socket, or librdkafka's
//! state (errors come in as plain codes).

use std::collections::BTreeSet;
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode;
use risiti_store::{Position, ReadBatch, Record};

use crate::route::{Compiled, Routes};

/// A record on its way.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The record.
    pub record: Record,
    /// The route it takes.
    pub route: Arc<Compiled>,
    /// The Kafka key.
    pub key: Vec<u8>,
}

/// A record that no cluster will get.
#[derive(Debug, Clone)]
pub struct Unroutable {
    /// The record.
    pub record: Record,
    /// The route whose key it lacks; none if no route matches.
    pub route: Option<Arc<Compiled>>,
    /// Why, in words.
    pub text: String,
}

/// What is to become of the records that were read.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be sent, in the order of the journal.
    pub sends: Vec<Outgoing>,
    /// To be kept as dead letters.
    pub unroutable: Vec<Unroutable>,
    /// Records that are another cluster's.
    pub skipped: u64,
    /// The position behind all of them.
    pub next: Position,
}

impl Plan {
    /// Judges each record by the routing table, up to the position `until` at
    /// which another table begins. `settled` need no sending any more.
    ///
    /// What no cluster takes is one forwarder's to keep: that one is given the
    /// clusters there are. A former table may name one that there is no more.
    #[must_use]
    pub fn new(
        batch: ReadBatch,
        routes: &Routes,
        until: Option<Position>,
        cluster: &str,
        clusters: Option<&BTreeSet<String>>,
        settled: &BTreeSet<Position>,
    ) -> Self {
        // The newest table names clusters of this configuration.
        let former = until.is_some();
        let until = until.unwrap_or(Position::MAX);
        let mut plan = Self {
            next: batch.next.min(until),
            ..Self::default()
        };
        for record in batch.records {
            if record.position >= until {
                break;
            }
            if settled.contains(&record.position) {
                continue;
            }
            plan.judge(record, routes, cluster, clusters, former);
        }
        plan
    }

    fn judge(
        &mut self,
        record: Record,
        routes: &Routes,
        cluster: &str,
        clusters: Option<&BTreeSet<String>>,
        former: bool,
    ) {
        let topic = std::str::from_utf8(&record.record.topic).ok();
        match topic.and_then(|topic| routes.find(topic).map(|route| (topic, route))) {
            Some((_, route)) if route.route.cluster != cluster => {
                let known = clusters.filter(|_| former);
                if known.is_some_and(|known| !known.contains(&route.route.cluster)) {
                    self.unroutable.push(Unroutable {
                        text: format!("it was accepted for cluster {}, which the configuration has no more; name it again, or requeue to send it by the routes of now", route.route.cluster),
                        route: Some(Arc::clone(route)),
                        record,
                    });
                } else {
                    self.skipped += 1;
                }
            }
            Some((topic, route)) => match route.key(topic, &record.record.client_id) {
                Some(key) => self.sends.push(Outgoing {
                    key: key.to_vec(),
                    route: Arc::clone(route),
                    record,
                }),
                None => self.unroutable.push(Unroutable {
                    text: format!("the topic lacks the level that route {} takes as key; correct the route and requeue", route.route.name),
                    route: Some(Arc::clone(route)),
                    record,
                }),
            },
            None if clusters.is_some() => self.unroutable.push(Unroutable {
                record,
                route: None,
                text: "no route matches its topic; add one and requeue".into(),
            }),
            None => self.skipped += 1,
        }
    }
}

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The record itself, or one that was in the same request.
    Record,
    /// Its topic, and so every record for it.
    Topic,
}

/// Whether a code means "never", and about what.
#[must_use]
pub fn refusal(code: RDKafkaErrorCode) -> Option<Scope> {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::PolicyViolation
        | Code::InvalidArgument => Some(Scope::Record),
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::TopicAuthorizationFailed
        | Code::InvalidTopic => Some(Scope::Topic),
        _ => None,
    }
}

/// What became of one record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Not known yet.
    Pending,
    /// Acknowledged by Kafka.
    Delivered,
    /// Refused by librdkafka before anything was sent.
    Local(RDKafkaErrorCode),
    /// Failed on the way or at the broker.
    Failed(RDKafkaErrorCode),
}

/// What the deliveries of a batch say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All were delivered.
    Clean,
    /// These indices were refused for certain, with these codes.
    Refused(Vec<(usize, RDKafkaErrorCode)>),
    /// Some were refused as a whole: send fewer at once to find out which.
    Divide(RDKafkaErrorCode),
    /// Nothing was refused; send again.
    Again(Option<RDKafkaErrorCode>),
}

/// Finds what was refused.
///
/// Kafka judges a request as a whole for some codes, and a request holds many
/// records: two or more that failed so may include innocent ones.
#[must_use]
pub fn verdict(deliveries: &[Delivery]) -> Verdict {
    let mut certain = Vec::new();
    let mut suspects = Vec::new();
    let mut other = None;
    for (index, delivery) in deliveries.iter().enumerate() {
        match *delivery {
            Delivery::Delivered => {}
            Delivery::Pending => other = other.or(Some(None)),
            Delivery::Local(code) => certain.push((index, code)),
            Delivery::Failed(code) => match refusal(code) {
                Some(Scope::Topic) => certain.push((index, code)),
                Some(Scope::Record) => suspects.push((index, code)),
                None => other = Some(Some(code)),
            },
        }
    }
    if let [only] = suspects[..] {
        certain.push(only);
    }
    if !certain.is_empty() {
        certain.sort_unstable_by_key(|(index, _)| *index);
        return Verdict::Refused(certain);
    }
    match (suspects.first(), other) {
        (Some((_, code)), _) => Verdict::Divide(*code),
        (None, Some(code)) => Verdict::Again(code),
        (None, None) => Verdict::Clean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode as Code;
    use bytes::Bytes;
    use risiti_config::{Key, Route, Terminals};
    use risiti_store::{Identity, NewRecord};

    fn batch(topics: &[&'static str]) -> ReadBatch {
        let records: Vec<Record> = topics
            .iter()
            .zip(1..)
            .map(|(topic, position)| Record {
                position,
                record: NewRecord {
                    received_ms: 0,
                    client_id: Bytes::from_static(b"c"),
                    topic: Bytes::from_static(topic.as_bytes()),
                    identity: Identity::None,
                    properties: Bytes::new(),
                    payload: Bytes::new(),
                },
            })
            .collect();
        ReadBatch {
            next: records.len() as u64 + 1,
            records,
            damaged: 0,
        }
    }

    fn route(name: &str, filter: &str, cluster: &str, key: Key) -> Route {
        Route {
            name: name.into(),
            filter: filter.into(),
            cluster: cluster.into(),
            key,
            ..Route::records(&Terminals::default())
        }
    }

    fn routes() -> Routes {
        Routes::new(
            &[
                route("a", "a/#", "default", Key::Topic),
                route("b", "b/#", "other", Key::Topic),
                route("l", "l/#", "default", Key::Level(3)),
            ],
            &Terminals::default(),
        )
    }

    fn plan(topics: &[&'static str], cluster: &str, settled: &[Position]) -> Plan {
        let known = ["default".to_owned(), "other".to_owned()].into();
        Plan::new(
            batch(topics),
            &routes(),
            None,
            cluster,
            (cluster == "default").then_some(&known),
            &settled.iter().copied().collect(),
        )
    }

    fn positions<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<Position> {
        records.map(|record| record.position).collect()
    }

    #[test]
    fn each_record_is_sent_by_the_cluster_of_its_route() {
        let topics = ["a/1", "b/1", "x", "a/2", "l/1"];
        let default = plan(&topics, "default", &[]);
        assert_eq!(
            positions(default.sends.iter().map(|send| &send.record)),
            [1, 4]
        );
        assert_eq!(
            positions(default.unroutable.iter().map(|none| &none.record)),
            [3, 5]
        );
        assert_eq!((default.skipped, default.next), (1, 6));
        let other = plan(&topics, "other", &[]);
        assert_eq!(positions(other.sends.iter().map(|send| &send.record)), [2]);
        assert!(other.unroutable.is_empty());
        assert_eq!(other.skipped, 4);
    }

    #[test]
    fn a_record_for_a_cluster_that_is_no_more_is_kept() {
        let known = ["default".to_owned()].into();
        let plan = Plan::new(
            batch(&["a/1", "b/1"]),
            &routes(),
            Some(3),
            "default",
            Some(&known),
            &BTreeSet::new(),
        );
        assert_eq!(
            positions(plan.unroutable.iter().map(|none| &none.record)),
            [2]
        );
        assert!(plan.unroutable[0].text.contains("cluster other"));
    }

    #[test]
    fn what_is_settled_is_not_sent_again() {
        let plan = plan(&["a/1", "a/2", "a/3"], "default", &[2]);
        assert_eq!(
            positions(plan.sends.iter().map(|send| &send.record)),
            [1, 3]
        );
    }

    #[test]
    fn a_plan_ends_where_another_table_begins() {
        let plan = Plan::new(
            batch(&["a/1", "a/2", "a/3"]),
            &routes(),
            Some(3),
            "default",
            Some(&BTreeSet::new()),
            &BTreeSet::new(),
        );
        assert_eq!(
            positions(plan.sends.iter().map(|send| &send.record)),
            [1, 2]
        );
        assert_eq!(plan.next, 3);
    }

    #[test]
    fn one_refused_record_is_certain() {
        let deliveries = [
            Delivery::Delivered,
            Delivery::Failed(Code::MessageSizeTooLarge),
            Delivery::Failed(Code::PurgeQueue),
        ];
        let expected = Verdict::Refused(vec![(1, Code::MessageSizeTooLarge)]);
        assert_eq!(verdict(&deliveries), expected);
    }

    #[test]
    fn a_request_refused_as_a_whole_is_divided() {
        let deliveries = [Delivery::Failed(Code::MessageSizeTooLarge); 3];
        assert_eq!(
            verdict(&deliveries),
            Verdict::Divide(Code::MessageSizeTooLarge)
        );
    }

    #[test]
    fn a_refused_topic_is_certain_for_all_its_records() {
        let deliveries = [
            Delivery::Failed(Code::UnknownTopic),
            Delivery::Delivered,
            Delivery::Failed(Code::UnknownTopic),
        ];
        let expected = vec![(0, Code::UnknownTopic), (2, Code::UnknownTopic)];
        assert_eq!(verdict(&deliveries), Verdict::Refused(expected));
    }

    #[test]
    fn what_is_certain_goes_before_what_has_to_be_found_out() {
        let deliveries = [
            Delivery::Local(Code::MessageSizeTooLarge),
            Delivery::Failed(Code::InvalidRecord),
            Delivery::Failed(Code::InvalidRecord),
        ];
        let expected = Verdict::Refused(vec![(0, Code::MessageSizeTooLarge)]);
        assert_eq!(verdict(&deliveries), expected);
    }

    #[test]
    fn a_failure_that_is_no_refusal_is_sent_again() {
        let deliveries = [Delivery::Failed(Code::MessageTimedOut), Delivery::Delivered];
        assert_eq!(
            verdict(&deliveries),
            Verdict::Again(Some(Code::MessageTimedOut))
        );
        assert_eq!(verdict(&[Delivery::Pending]), Verdict::Again(None));
        assert_eq!(verdict(&[Delivery::Delivered]), Verdict::Clean);
    }

    #[test]
    fn no_transient_code_is_a_refusal() {
        for code in [
            Code::BrokerTransportFailure,
            Code::MessageTimedOut,
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::NotLeaderForPartition,
            Code::LeaderNotAvailable,
            Code::RequestTimedOut,
            Code::CoordinatorNotAvailable,
            Code::ConcurrentTransactions,
            Code::Fenced,
            Code::ClusterAuthorizationFailed,
            Code::TransactionalIdAuthorizationFailed,
            Code::KafkaStorageError,
            Code::PurgeQueue,
            Code::PurgeInflight,
            Code::InvalidDifferentRecord,
        ] {
            assert_eq!(refusal(code), None, "{code:?}");
        }
    }
}
