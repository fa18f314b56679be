//! The Kafka cluster, modelled: true transactions, fencing, groups, outages.
//!
//! Promises: what a client asked for is done whole or not at all, and what stands
//! in the log stays; a client that hears nothing does not know whether it was done.
//! Never: a request taken from a producer that was fenced, or a reader of committed
//! records that sees what is not.
//!
//! | file | models | after |
//! | --- | --- | --- |
//! | `log` | offsets, markers, the last stable offset, sequence numbers, compaction | KIP-98, KIP-360 |
//! | `transactions` | the coordinator: epochs, timeouts, ends carried out bit by bit | KIP-98, KIP-360, KIP-890 |
//! | `group` | static members, generations, stable offsets | KIP-345, KIP-447 |
//! | `producer` | librdkafka's side of it | its `INTRODUCTION.md`, "Transactional producer" |
//!
//! What goes wrong, for each request that changes something: it does not arrive; it
//! arrives and its answer is lost; it arrives late, when its sender has given up.
//! For all: nobody answers until an hour that the scenario names.
//!
//! Not modelled: a cluster that loses what it acknowledged (`acks=all`, replicated);
//! and offsets, or the end of a transaction, that arrive so late that their producer
//! has begun its next transaction. Version 1 of the protocol, which librdkafka 2.12
//! speaks, can't tell them from that one's own (the second part of KIP-890 mends it):
//! a group's offset can go back by it, so that records are answered again with their
//! first receipt, and a batch can be committed without its position.

mod group;
mod log;
mod producer;
#[cfg(test)]
mod tests;
mod transactions;
mod words;

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use crate::Ms;
use crate::contract::EPOCH_MS;

pub use group::{Assignment, Heart, Member};
pub use log::{Committed, Fetched, Message, Origin, ProducerId, sooner};
pub use producer::{Producer, Sent};
pub use transactions::Place;
pub use words::{Answer, Code, Counts, Request, topics};

use group::Group;
use log::Partition;
use transactions::Coordinator;

/// What is to go wrong with the next requests that change something.
#[derive(Debug, Default)]
struct Faults {
    lose_answers: u32,
    fail: u32,
    delay: u32,
    delay_ms: Ms,
}

/// A request under way.
#[derive(Debug)]
struct Late {
    due: Ms,
    /// Which transaction of its producer it belongs to.
    serial: Option<u64>,
    request: Request,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Kafka {
    now: Ms,
    rng: fastrand::Rng,
    topics: BTreeMap<Rc<str>, Vec<Partition>>,
    coordinator: Coordinator,
    groups: BTreeMap<Rc<str>, Group>,
    faults: Faults,
    /// Requests under way, and when they arrive.
    late: Vec<Late>,
    down_until: Ms,
    was_down: bool,
    slow_until: Ms,
    slow_ms: Ms,
    changes: u64,
    news_seen: u64,
    counts: Counts,
    /// Values that no broker takes.
    refused: Vec<Bytes>,
}

impl Kafka {
    /// A cluster with the topics of a house, of so many partitions each.
    #[must_use]
    pub fn new(rng: fastrand::Rng, partitions: i32) -> Self {
        let mut kafka = Self {
            now: 0,
            rng,
            topics: BTreeMap::new(),
            coordinator: Coordinator::default(),
            groups: BTreeMap::new(),
            faults: Faults::default(),
            late: Vec::new(),
            down_until: 0,
            was_down: false,
            slow_until: 0,
            slow_ms: 0,
            changes: 0,
            news_seen: 0,
            counts: Counts::default(),
            refused: Vec::new(),
        };
        for topic in [
            topics::RECORDS,
            topics::RECEIPTS,
            topics::TRANSACTIONS,
            topics::REJECTED,
            topics::CHANGELOG,
            topics::DELIVERIES,
        ] {
            kafka.create_topic(topic, partitions);
        }
        kafka.create_topic(topics::POSITIONS, 1);
        kafka
    }

    /// Creates a topic.
    pub fn create_topic(&mut self, name: &str, partitions: i32) {
        let partitions = (0..partitions).map(Partition::new).collect();
        self.topics.insert(name.into(), partitions);
    }

    // --- what goes wrong ---------------------------------------------------

    /// Nobody answers until then.
    pub fn down_until(&mut self, until: Ms) {
        self.down_until = self.down_until.max(until);
        self.was_down = true;
        self.changes += 1;
    }

    /// The next `n` requests that change something are done; nobody hears of it.
    pub fn lose_answer_of_next(&mut self, n: u32) {
        self.faults.lose_answers += n;
    }

    /// The next `n` requests that change something do not arrive.
    pub fn fail_next(&mut self, n: u32) {
        self.faults.fail += n;
    }

    /// The next `n` requests that change something arrive so much later, when their
    /// sender has given them up.
    pub fn delay_next(&mut self, n: u32, delay_ms: Ms) {
        self.faults.delay += n;
        self.faults.delay_ms = delay_ms;
    }

    /// Until then every answer, and every end of a transaction in every partition,
    /// takes up to so much longer.
    pub fn slow_until(&mut self, until: Ms, slow_ms: Ms) {
        self.slow_until = until;
        self.slow_ms = slow_ms;
    }

    /// From now on a batch with a record of this value is refused for good, as one that
    /// a broker can't take.
    pub fn refuse(&mut self, value: Bytes) {
        self.refused.push(value);
    }

    /// Somebody who may write to this topic does, beside everybody's transactions.
    /// Where it stands then; none if there is no such partition.
    pub fn write(&mut self, topic: &str, partition: i32, key: &str, value: &[u8]) -> Option<i64> {
        let origin = Origin {
            producer: self.coordinator.new_producer(),
            epoch: 0,
            sequence: 0,
            transactional: false,
        };
        let message = Message {
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::copy_from_slice(value)),
            headers: Vec::new(),
        };
        let time_ms = EPOCH_MS + self.now;
        let log = self.partition_mut(topic, partition)?;
        // The first batch of a producer is never out of order.
        let offset = log.append(origin, &[message], time_ms).ok()?;
        self.changes += 1;
        Some(offset)
    }

    /// Another producer begins under this transactional id, and leaves at once.
    pub fn fence(&mut self, transactional_id: &str) {
        let slow_ms = self.slow();
        let mut when = ends(&mut self.rng, self.now, slow_ms);
        self.coordinator.fence(transactional_id, &mut when);
        self.changes += 1;
    }

    /// The heartbeats of a member that lives are lost until then.
    pub fn silence(&mut self, instance: &str, until: Ms) {
        for group in self.groups.values_mut() {
            group.silence(instance, self.now, until);
        }
        self.note();
    }

    /// Compacts a topic, up to somewhere.
    pub fn compact(&mut self, topic: &str) {
        if let Some(partitions) = self.topics.get_mut(topic) {
            for partition in partitions {
                let below = self.rng.i64(0..=partition.end());
                partition.compact(below);
            }
        }
    }

    /// The brokers forget producers that write nothing just now.
    pub fn forget_producers(&mut self) {
        for partition in self.topics.values_mut().flatten() {
            partition.forget_producers();
        }
    }

    // --- time --------------------------------------------------------------

    /// Does what is due by now: ends of transactions, timeouts, late requests.
    pub fn step(&mut self, now: Ms) {
        self.now = self.now.max(now);
        if self.now < self.down_until {
            return;
        }
        if std::mem::take(&mut self.was_down) {
            for group in self.groups.values_mut() {
                group.restarted(self.now);
            }
            self.changes += 1;
        }
        let mut late = std::mem::take(&mut self.late);
        late.sort_by_key(|late| late.due);
        for late in late {
            if late.due > self.now {
                self.late.push(late);
            } else if late.serial == self.serial(&late.request) {
                self.counts.late += 1;
                let _ = self.apply(late.request);
            }
        }
        let slow_ms = self.slow();
        let markers = {
            let mut when = ends(&mut self.rng, self.now, slow_ms);
            self.coordinator.advance(self.now, &mut when)
        };
        for marker in markers {
            match marker.place {
                Place::Partition(topic, partition) => {
                    let time_ms = EPOCH_MS + self.now;
                    if let Some(partition) = self.partition_mut(&topic, partition) {
                        let before = partition.visible();
                        partition.mark(marker.producer, marker.epoch, marker.commit, time_ms);
                        if partition.visible() != before {
                            self.changes += 1;
                        }
                    }
                }
                Place::Group(group) => {
                    if let Some(group) = self.groups.get_mut(&group) {
                        group.mark(marker.producer, marker.commit);
                        self.changes += 1;
                    }
                }
            }
        }
        for group in self.groups.values_mut() {
            if group.advance(self.now) {
                self.counts.members_lost += 1;
            }
        }
        self.note();
    }

    /// When [`Self::step`] has something to do next.
    #[must_use]
    pub fn due_ms(&self) -> Option<Ms> {
        if self.was_down {
            return Some(self.down_until);
        }
        let late = self.late.iter().map(|late| late.due).min();
        let groups = self
            .groups
            .values()
            .fold(None, |due, group| sooner(due, group.due(self.now)));
        sooner(sooner(self.coordinator.due(), late), groups)
    }

    /// Grows with whatever a client could notice without asking.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How long the next answer takes.
    pub fn takes_ms(&mut self) -> Ms {
        let slow = self.slow();
        self.rng.u64(1..=4 + slow)
    }

    fn slow(&self) -> Ms {
        if self.now < self.slow_until {
            self.slow_ms
        } else {
            0
        }
    }

    fn note(&mut self) {
        let news = self.groups.values().map(Group::news).sum();
        if news != self.news_seen {
            self.news_seen = news;
            self.changes += 1;
        }
    }

    // --- requests ----------------------------------------------------------

    /// A request that changes something.
    ///
    /// # Errors
    /// Why not; [`Code::Transport`] if nobody knows whether.
    pub fn call(&mut self, now: Ms, request: Request) -> Result<Answer, Code> {
        self.step(now);
        self.reachable()?;
        if self.faults.fail > 0 {
            self.faults.fail -= 1;
            self.counts.requests_lost += 1;
            return Err(Code::Transport);
        }
        if self.faults.delay > 0 {
            self.faults.delay -= 1;
            self.late.push(Late {
                due: self.now + self.faults.delay_ms,
                serial: self.serial(&request),
                request,
            });
            return Err(Code::Transport);
        }
        let answer = self.apply(request);
        if self.faults.lose_answers > 0 {
            self.faults.lose_answers -= 1;
            self.counts.answers_lost += 1;
            return Err(Code::Transport);
        }
        answer
    }

    /// Whether anybody answers.
    ///
    /// # Errors
    /// Nobody does.
    pub fn reachable(&self) -> Result<(), Code> {
        if self.now < self.down_until {
            Err(Code::Transport)
        } else {
            Ok(())
        }
    }

    /// Which transaction a request belongs to, if brokers can't tell by its epoch or
    /// sequence number.
    fn serial(&self, request: &Request) -> Option<u64> {
        match request {
            Request::Offsets { id, .. } | Request::End { id, .. } => {
                Some(self.coordinator.serial(id))
            }
            _ => None,
        }
    }

    fn apply(&mut self, request: Request) -> Result<Answer, Code> {
        let answer = self.carry_out(request);
        if matches!(
            answer,
            Err(Code::ProducerFenced | Code::InvalidProducerEpoch)
        ) {
            self.counts.fenced += 1;
        }
        self.note();
        answer
    }

    fn carry_out(&mut self, request: Request) -> Result<Answer, Code> {
        let slow = self.slow();
        match request {
            Request::Init { id: None, .. } => {
                Ok(Answer::Producer(self.coordinator.new_producer(), 0))
            }
            Request::Init {
                id: Some(id),
                timeout_ms,
                own,
            } => {
                let mut when = ends(&mut self.rng, self.now, slow);
                let (producer, epoch) = self.coordinator.init(&id, timeout_ms, own, &mut when)?;
                Ok(Answer::Producer(producer, epoch))
            }
            Request::Add { id, by, place } => {
                if let Place::Partition(topic, partition) = &place {
                    self.known(topic, *partition)?;
                }
                self.coordinator.add(&id, by.0, by.1, place, self.now)?;
                Ok(Answer::Done)
            }
            Request::Produce {
                id,
                origin,
                topic,
                partition,
                messages,
            } => {
                self.known(&topic, partition)?;
                if let Some(id) = &id {
                    let place = Place::Partition(Rc::clone(&topic), partition);
                    let (producer, epoch) = (origin.producer, origin.epoch);
                    self.coordinator.takes_part(id, producer, epoch, &place)?;
                }
                let mut values = messages.iter().filter_map(|message| message.value.as_ref());
                if values.any(|value| self.refused.contains(value)) {
                    return Err(Code::InvalidRecord);
                }
                let time_ms = EPOCH_MS + self.now;
                let Some(log) = self.partition_mut(&topic, partition) else {
                    return Err(Code::UnknownTopicOrPartition);
                };
                let (end, visible) = (log.end(), log.visible());
                let offset = log.append(origin, &messages, time_ms)?;
                let grew = log.visible() != visible;
                if offset < end {
                    self.counts.batches_again += 1;
                }
                if grew {
                    self.changes += 1;
                }
                Ok(Answer::Offset(offset))
            }
            Request::Offsets {
                id,
                by,
                member,
                topic,
                offsets,
            } => {
                let place = Place::Group(Rc::clone(&member.group));
                self.coordinator.add(&id, by.0, by.1, place, self.now)?;
                let group = self.group(&member.group)?;
                group.pend(&member, by.0, &topic, &offsets)?;
                Ok(Answer::Done)
            }
            Request::End { id, by, commit } => {
                let mut when = ends(&mut self.rng, self.now, slow);
                self.coordinator.end(&id, by.0, by.1, commit, &mut when)?;
                Ok(Answer::Done)
            }
            Request::Commit {
                member,
                topic,
                offsets,
            } => {
                self.group(&member.group)?
                    .commit(&member, &topic, &offsets)?;
                Ok(Answer::Done)
            }
        }
    }

    fn group(&mut self, name: &Rc<str>) -> Result<&mut Group, Code> {
        self.groups.get_mut(name).ok_or(Code::UnknownMemberId)
    }

    fn known(&self, topic: &str, partition: i32) -> Result<(), Code> {
        match self.partition(topic, partition) {
            Some(_) => Ok(()),
            None => Err(Code::UnknownTopicOrPartition),
        }
    }

    fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.topics
            .get(topic)?
            .get(usize::try_from(partition).ok()?)
    }

    fn partition_mut(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        let partitions = self.topics.get_mut(topic)?;
        partitions.get_mut(usize::try_from(partition).ok()?)
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// Nobody answers, or there is no such topic.
    pub fn partitions(&mut self, now: Ms, topic: &str) -> Result<i32, Code> {
        self.step(now);
        self.reachable()?;
        let partitions = self.topics.get(topic);
        let partitions = partitions.ok_or(Code::UnknownTopicOrPartition)?;
        Ok(i32::try_from(partitions.len()).unwrap_or(i32::MAX))
    }

    /// The end of a partition: the next offset to be written, or with
    /// `committed_only` the last stable one.
    ///
    /// # Errors
    /// Nobody answers, or there is no such partition.
    pub fn end(
        &mut self,
        now: Ms,
        topic: &str,
        partition: i32,
        committed_only: bool,
    ) -> Result<i64, Code> {
        self.step(now);
        self.reachable()?;
        let log = self
            .partition(topic, partition)
            .ok_or(Code::UnknownTopicOrPartition)?;
        Ok(if committed_only {
            log.stable()
        } else {
            log.end()
        })
    }

    /// Fetches committed records from an offset on. What is behind markers and
    /// aborted records only is told by `next`.
    ///
    /// # Errors
    /// Nobody answers, or there is no such partition.
    pub fn fetch(
        &mut self,
        now: Ms,
        topic: &str,
        partition: i32,
        from: i64,
        count_max: usize,
    ) -> Result<Fetched, Code> {
        self.step(now);
        self.reachable()?;
        let log = self
            .partition(topic, partition)
            .ok_or(Code::UnknownTopicOrPartition)?;
        Ok(log.fetch(from, count_max, true))
    }

    /// Joins a group under a name, to share this topic.
    ///
    /// # Errors
    /// Nobody answers, or there is no such topic.
    pub fn join(
        &mut self,
        now: Ms,
        (group, instance): (&Rc<str>, &Rc<str>),
        heart: &Heart,
        topic: &str,
        session_timeout_ms: Ms,
    ) -> Result<Member, Code> {
        let partitions = self.partitions(now, topic)?;
        let known = self.groups.entry(Rc::clone(group)).or_default();
        let id = known.join(instance, heart, partitions, session_timeout_ms);
        self.note();
        Ok(Member {
            group: Rc::clone(group),
            instance: Rc::clone(instance),
            id,
            generation: 0,
        })
    }

    /// What the group wants of a member.
    ///
    /// # Errors
    /// Nobody answers, or it is no member any more.
    pub fn poll_group(&mut self, now: Ms, member: &Member) -> Result<Assignment, Code> {
        self.step(now);
        self.reachable()?;
        let assignment = self.group(&member.group)?.poll(member);
        self.note();
        assignment
    }

    /// The next offsets of a group, once no transaction can change them any more.
    ///
    /// # Errors
    /// Nobody answers, or one is not stable.
    pub fn stable_offsets(
        &mut self,
        now: Ms,
        group: &Rc<str>,
        topic: &Rc<str>,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Option<i64>>, Code> {
        self.step(now);
        self.reachable()?;
        let known = self.groups.entry(Rc::clone(group)).or_default();
        let asked = partitions
            .iter()
            .map(|partition| Ok((*partition, known.offset(topic, *partition)?)))
            .collect();
        if matches!(asked, Err(Code::UnstableOffsetCommit)) {
            self.counts.unstable += 1;
        }
        asked
    }

    // --- for the oracle ----------------------------------------------------

    /// What stands committed in a topic, by partition and offset.
    pub fn committed(&self, topic: &str) -> impl Iterator<Item = &Committed> {
        let partitions = self.topics.get(topic).into_iter().flatten();
        partitions.flat_map(Partition::committed)
    }

    /// How many records of a topic have ever become visible to readers of committed
    /// records.
    #[must_use]
    pub fn visible(&self, topic: &str) -> usize {
        let partitions = self.topics.get(topic).into_iter().flatten();
        partitions.map(Partition::visible).sum()
    }

    /// What became visible in a topic since the last call with the same places:
    /// `seen` holds how far each partition was looked at, and is moved on. What
    /// compaction removed meanwhile is not among it.
    pub fn newly_visible<'a>(
        &'a self,
        topic: &str,
        seen: &'a mut Vec<usize>,
    ) -> impl Iterator<Item = &'a Committed> {
        let partitions = self.topics.get(topic).map_or(&[][..], Vec::as_slice);
        seen.resize(partitions.len(), 0);
        let places = partitions.iter().zip(seen.iter_mut());
        places.flat_map(|(partition, seen)| {
            let from = std::mem::replace(seen, partition.visible());
            partition.since(from)
        })
    }

    /// Transactions that are not ended.
    #[must_use]
    pub fn open_transactions(&self) -> usize {
        self.coordinator.open()
    }

    /// What happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (committed, aborted) = self.coordinator.ended();
        Counts {
            committed,
            aborted,
            ..self.counts
        }
    }
}

/// When each place of a transaction hears how it ends.
fn ends(rng: &mut fastrand::Rng, now: Ms, slow_ms: Ms) -> impl FnMut() -> Ms {
    move || {
        let usual = if rng.u8(..) < 32 { 40 } else { 3 };
        now + rng.u64(0..=usual + slow_ms)
    }
}
