//! The consumer's partitions, and where it is in them.
//!
//! Promises: a partition is begun where the store says, one that is new at its
//! beginning, and one whose offset Kafka does not have where [`begin`] says.
//! Never: a topic created by asking for it.

use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::begin::{Begin, begin};
use super::consumer::About;
use super::course::Places;
use super::metrics::ReceiptsMetrics;
use super::poll::{NextOffset, Poll};
use super::reading::{End, Session};
use crate::error::BridgeError;
use crate::{limits, topics};

impl Session<'_> {
    /// Looks which partitions there are and adds those that are new. `false`: there
    /// is no topic of receipts.
    pub(super) fn look_for_partitions(&mut self) -> Result<bool, BridgeError> {
        self.looked_at = Instant::now();
        // All topics in one answer: asking for one by name could create it.
        let metadata = self
            .consumer
            .fetch_metadata(None, limits::CALL * 4)
            .map_err(BridgeError::kafka("list the partitions of the receipts"))?;
        self.set_connected(true);
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for (topic, wanted) in self.course.topics() {
            let known = metadata
                .topics()
                .iter()
                .find(|known| known.name() == &*topic && !known.partitions().is_empty());
            match known {
                Some(known) if wanted => found.extend(
                    known
                        .partitions()
                        .iter()
                        .map(|partition| (Arc::clone(&topic), partition.id())),
                ),
                Some(_) => {}
                None => missing.push(topic.to_string()),
            }
        }
        self.provide(&missing);
        if missing.contains(&self.setup.topic) {
            return Ok(false);
        }
        let mut new = Places::new();
        for (topic, partition) in found {
            let place = (topic, partition);
            if self.course.knows(&place) {
                continue;
            }
            let (topic, partition) = &place;
            let next = self
                .setup
                .outbox
                .offset(&self.setup.cluster_name, topic, *partition)?;
            new.insert(place, next);
        }
        if !new.is_empty() {
            self.assign(&new)?;
            self.course.add(new);
            let places: Vec<_> = self.course.places().keys().cloned().collect();
            self.silence.reads(&places, Instant::now());
            if !self.course.is_caught_up() {
                self.control.set_caught_up(false);
            }
        }
        Ok(true)
    }

    /// Creates topics that are missing, or says that somebody has to.
    fn provide(&self, missing: &[String]) {
        let cluster = &self.setup.cluster;
        let created =
            !missing.is_empty() && (cluster.create_topics || self.setup.embedded.is_some());
        let mut trouble = None;
        if created {
            trouble = topics::create(
                cluster,
                &self.bootstrap,
                self.setup.embedded.as_deref(),
                missing,
                limits::CALL * 10,
            )
            .err()
            .map(|error| error.to_string());
        }
        for (topic, about) in [
            (&self.setup.topic, About::Topic),
            (&self.setup.deliveries_topic, About::Deliveries),
        ] {
            let note = match (&trouble, created) {
                _ if !missing.contains(topic) => None,
                (Some(trouble), _) => Some(trouble.clone()),
                (None, true) => None,
                (None, false) => Some(format!(
                    "cluster {} has no topic {topic}: create it, or set create_topics = true; no receipt comes until then",
                    self.setup.cluster_name
                )),
            };
            self.control.note(about, note);
        }
    }

    /// Has librdkafka read further partitions from their places. Only ever adds:
    /// to replace an assignment whose predecessor's fetchers are still stopping
    /// ends the process (librdkafka 2.12, `rktp_started`).
    fn assign(&self, places: &Places) -> Result<(), BridgeError> {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in places {
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(topic, *partition, offset)
                .map_err(BridgeError::kafka("assign the partitions of the receipts"))?;
        }
        self.consumer
            .incremental_assign(&list)
            .map_err(BridgeError::kafka("assign the partitions of the receipts"))?;
        tracing::info!(?places, "reading receipts");
        Ok(())
    }

    /// An offset is not in Kafka: judges all places by what the partitions hold,
    /// keeps them, and asks for another consumer, which begins there.
    pub(super) fn find_places(&mut self) -> Result<(), End> {
        let places: Vec<_> = self
            .course
            .places()
            .iter()
            .map(|(k, v)| (k.clone(), *v))
            .collect();
        let mut poll = Poll::default();
        let mut answered_at = Instant::now();
        for ((topic, partition), next) in places {
            let (low, high) = loop {
                self.go_on()?;
                match self
                    .consumer
                    .fetch_watermarks(&topic, partition, limits::CALL * 4)
                {
                    Ok(found) => {
                        answered_at = Instant::now();
                        break found;
                    }
                    // Another consumer hears of the same, and comes here again.
                    Err(error) if answered_at.elapsed() > limits::UNANSWERED => {
                        return Err(End::Anew(error.to_string()));
                    }
                    Err(error) => {
                        self.trouble(&error.to_string());
                        self.control.pause(limits::BACKOFF_MAX);
                    }
                }
            };
            let judged = begin(next, low, high);
            match judged {
                Begin::At(_) => {}
                Begin::Gone { offsets, .. } => {
                    let gone = u64::try_from(offsets).unwrap_or(0);
                    ReceiptsMetrics::add(&self.setup.outbox.metrics().gone, gone);
                    self.control.alarm(About::Gone, Some(format!(
                        "Kafka deleted {offsets} offsets of topic {topic}, partition {partition}, before this gateway read them (it was away for longer than the topic's retention); their terminals ask again for what they miss; set a longer retention.ms"
                    )));
                }
                Begin::Anew { was, .. } => {
                    self.control.alarm(About::Anew, Some(format!(
                        "topic {topic}, partition {partition}, ends at offset {high}, but this gateway had read it until {was}: it was made anew, and is read from its beginning; terminals recognise what they have had"
                    )));
                }
            }
            if next.is_some_and(|next| next != judged.at()) {
                poll.passed(NextOffset {
                    topic,
                    partition,
                    next: judged.at(),
                });
            }
            if !poll.has_room() {
                self.store(std::mem::take(&mut poll))?;
            }
        }
        self.store(poll)?;
        Err(End::Anew(
            "offsets that Kafka does not have were found anew".into(),
        ))
    }

    /// Shows Kafka how far this gateway is, for monitoring only.
    pub(super) fn show_offsets(&mut self) {
        for offset in self.setup.outbox.take_durable() {
            self.to_show
                .insert((offset.topic, offset.partition), offset.next);
        }
        if self.to_show.is_empty() || self.shown_at.elapsed() < limits::OFFSETS_SHOWN {
            return;
        }
        self.shown_at = Instant::now();
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in std::mem::take(&mut self.to_show) {
            let _ = list.add_partition_offset(&topic, partition, Offset::Offset(next));
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "offsets could not be shown to Kafka");
        }
    }
}
