//! The consumer of receipts: Kafka → outbox.
//!
//! Promises: which partitions are read, and what a message becomes, is the product's
//! own [`Course`]; one step makes one call to Kafka at most, so that a death can
//! come between any two. Never: an offset that the outbox has not.

use std::sync::Arc;

use risiti_bridge::Outbox;
use risiti_bridge::receipts::{
    Course, EXPIRY_HEADER, JOURNAL_HEADER, NextOffset, Place, Places, Poll, ReceiptMessage, begin,
};
use risiti_config::DEFAULT_CLUSTER;

use crate::contract::Ms;
use crate::kafka::{Code, Kafka, topics};

/// Commits under way at once, as in the product.
pub(super) const COMMITS_UNDER_WAY: usize = risiti_bridge::limits::COMMITS_UNDER_WAY;

/// Messages taken at once: few, so that many commits come about.
pub(super) const FETCH_MAX: usize = 4;

/// How long it waits after an error, or for room, ms.
const BACKOFF_MS: Ms = 250;

/// What it does next.
enum Stage {
    /// Wait until nothing is under way: what the store says is true then.
    Connect,
    /// Ask which partitions there are, of the n-th topic.
    Look(usize),
    /// Where to begin in those that are new.
    Begin(Vec<Place>, Places),
    /// Read; partitions in turn.
    Read(usize),
}

/// See the head of the file.
pub(super) struct Consumer {
    course: Course,
    journal_id: String,
    stage: Stage,
    /// A change in the cluster that was not looked at in every partition yet.
    round: Option<usize>,
    seen_changes: u64,
    /// What was read and could not be stored yet.
    held: Option<Poll>,
    due: Ms,
}

impl Consumer {
    pub(super) fn new(journal_id: &str) -> Self {
        Self {
            course: Self::course(journal_id),
            journal_id: journal_id.to_owned(),
            stage: Stage::Connect,
            round: None,
            seen_changes: 0,
            held: None,
            due: 0,
        }
    }

    fn course(journal_id: &str) -> Course {
        Course::new(topics::RECEIPTS, topics::DELIVERIES, journal_id)
    }

    /// A step, if one is due. When to be called again, if not for a change.
    pub(super) fn step(
        &mut self,
        now: Ms,
        kafka: &mut Kafka,
        outbox: &Arc<Outbox>,
        _unix_ms: u64,
    ) -> Option<Ms> {
        if self.seen_changes != kafka.changes() {
            self.seen_changes = kafka.changes();
            self.round = Some(0);
        } else if now < self.due {
            return Some(self.due);
        }
        let next = match self.try_step(now, kafka, outbox) {
            Ok(wait) => wait,
            Err(_) => Some(BACKOFF_MS),
        };
        self.due = next.map_or(Ms::MAX, |wait| now + wait.max(1));
        next.map(|_| self.due)
    }

    /// In how long to go on; none: when the cluster has changed.
    fn try_step(
        &mut self,
        now: Ms,
        kafka: &mut Kafka,
        outbox: &Arc<Outbox>,
    ) -> Result<Option<Ms>, Code> {
        if let Some(poll) = self.held.take() {
            return Ok(self.store(poll, outbox));
        }
        match &mut self.stage {
            Stage::Connect => {
                if outbox.under_way() == 0 {
                    self.course = Self::course(&self.journal_id);
                    self.stage = Stage::Look(0);
                    return Ok(Some(1));
                }
                Ok(Some(20))
            }
            Stage::Look(nth) => {
                let nth = *nth;
                let Some((topic, wanted)) = self.course.topics().get(nth).cloned() else {
                    self.stage = Stage::Read(0);
                    self.round = Some(0);
                    return Ok(Some(1));
                };
                self.stage = Stage::Look(nth + 1);
                if !wanted {
                    return Ok(Some(1));
                }
                let partitions = match kafka.partitions(now, &topic) {
                    Ok(partitions) => partitions,
                    Err(code) => {
                        self.stage = Stage::Look(nth);
                        return Err(code);
                    }
                };
                let places = (0..partitions).map(|partition| (Arc::clone(&topic), partition));
                let new: Vec<Place> = places.filter(|place| !self.course.knows(place)).collect();
                let mut found = Places::new();
                for (topic, partition) in &new {
                    match outbox.offset(DEFAULT_CLUSTER, topic, *partition) {
                        Ok(next) => {
                            found.insert((Arc::clone(topic), *partition), next);
                        }
                        Err(_) => {
                            self.stage = Stage::Look(nth);
                            return Ok(Some(BACKOFF_MS));
                        }
                    }
                }
                if !new.is_empty() {
                    self.stage = Stage::Begin(new, found);
                }
                Ok(Some(1))
            }
            Stage::Begin(left, found) => {
                // librdkafka finds out with its first fetch; here it is asked.
                if let Some((topic, partition)) = left.last() {
                    let high = kafka.end(now, topic, *partition, true)?;
                    let place = (Arc::clone(topic), *partition);
                    let next = found.get(&place).copied().flatten();
                    let judged = begin(next, 0, high);
                    if next.is_some_and(|next| next != judged.at()) {
                        found.insert(place, Some(judged.at()));
                    }
                    left.pop();
                    return Ok(Some(1));
                }
                let found = std::mem::take(found);
                self.course.add(found);
                self.stage = Stage::Look(0);
                Ok(Some(1))
            }
            Stage::Read(at) => {
                if outbox.refused().is_some() {
                    self.stage = Stage::Connect;
                    return Ok(Some(BACKOFF_MS));
                }
                let places: Vec<Place> = self.course.places().keys().cloned().collect();
                let Some(round) = self.round.filter(|round| *round < places.len()) else {
                    self.round = None;
                    return Ok(None);
                };
                *at %= places.len().max(1);
                let (topic, partition) = places[*at].clone();
                let from = self.course.places().get(&places[*at]).copied().flatten();
                let fetched = kafka.fetch(now, &topic, partition, from.unwrap_or(0), FETCH_MAX)?;
                let wait_ms = kafka.takes_ms();
                if fetched.records.is_empty() {
                    // At its end, perhaps behind markers.
                    *at += 1;
                    self.round = Some(round + 1);
                    if topic.as_ref() == topics::RECEIPTS {
                        self.course.reached_end(partition);
                    }
                    if self.course.catches_up() {
                        self.stage = Stage::Look(0);
                    }
                    return Ok(Some(wait_ms));
                }
                self.round = Some(0);
                let mut poll = Poll::default();
                for record in &fetched.records {
                    if !poll.has_room() {
                        break;
                    }
                    if self.course.was_taken(&topic, partition, record.offset) {
                        continue;
                    }
                    let message = ReceiptMessage {
                        partition,
                        offset: record.offset,
                        timestamp_ms: i64::try_from(record.time_ms).ok(),
                        key: record.key.as_deref(),
                        value: record.value.as_deref(),
                        expiry: record.header(EXPIRY_HEADER),
                    };
                    let journal = record.header(JOURNAL_HEADER);
                    // What is no receipt is a dead letter in the product.
                    let _ = self.course.take(&topic, &message, journal, &mut poll);
                }
                if poll.offsets.is_empty() {
                    poll.passed(NextOffset {
                        topic,
                        partition,
                        next: fetched.next,
                    });
                }
                let waits = self.store(poll, outbox);
                Ok(waits.map(|ms| ms.max(wait_ms)))
            }
        }
    }

    /// Gives a poll to the outbox, or keeps it until that takes it.
    fn store(&mut self, poll: Poll, outbox: &Arc<Outbox>) -> Option<Ms> {
        if outbox.under_way() >= COMMITS_UNDER_WAY {
            self.held = Some(poll);
            return Some(20);
        }
        match outbox.submit(DEFAULT_CLUSTER, &poll) {
            Ok(()) => {
                self.course.stored(poll.offsets);
                Some(1)
            }
            Err(_) => {
                self.held = Some(poll);
                Some(BACKOFF_MS)
            }
        }
    }
}
