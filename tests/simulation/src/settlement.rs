//! A settlement instance over the simulated cluster: the product's own core, one call a step.
//!
//! Promises: what is settled, what is written, in which transaction, when a partition
//! is taken and what follows an error is decided by
//! [`risiti_bridge::settlement::machine`] and the core that it holds; memory is made
//! of the changelog by the product's own code. Never: more than one call to Kafka in
//! a step that changes something, so that a kill can come between any two.
//!
//! The consumer (librdkafka's part) is modelled coarsely: one request at a time,
//! heartbeats for as long as the process lives, whatever it does.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode;
use risiti_bridge::forwarder::core::Delivery;
use risiti_bridge::remedy::{Failure, Remedy};
use risiti_bridge::settlement::clients::Change;
use risiti_bridge::settlement::configured_policy;
use risiti_bridge::settlement::machine::{
    Action, Event, Machine, MachineSettings, News, Polled, Taken,
};
use risiti_bridge::settlement::messages::{self, Topic};
use risiti_bridge::settlement::rebuild::Rebuild;
use risiti_bridge::settlement::{Generations, Sealing};
use risiti_bridge::whole_log::Ends;
use risiti_config::Settlement;
use risiti_sim::site::Site;

use crate::kafka::{Code, Heart, Kafka, Member, Message, Producer, Request, topics};
use crate::{Controls, Ms};

/// Records of a transaction at most: small, so that a few payments make several.
const BATCH_RECORDS_MAX: usize = 3;

/// Messages taken by one fetch.
const FETCH_MAX: usize = 16;

/// How long it waits before it asks again what it was not told.
const ASK_AGAIN_MS: Ms = 50;

/// What a plausible shell around the machine could do wrong: for negative controls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Takes the last stable offset for the end of the changelog.
    pub stable_end: bool,
    /// Reads the changelog without waiting until the group's offsets are stable.
    pub impatient: bool,
}

/// A running instance. Dropping it is a kill at that point.
#[derive(Debug)]
pub struct SettlementNode {
    machine: Machine,
    settings: Settlement,
    instance: Rc<str>,
    group: Rc<str>,
    records: Rc<str>,
    /// None: it does not look in which partition a record stands.
    sealing: Option<Sealing>,
    producer: Option<Producer>,
    consumer: Consumer,
    rebuilding: Option<(BTreeMap<i32, i64>, Rebuild)>,
    /// When the answer to the last call is there.
    answered: Ms,
    frozen_until: Ms,
    counts: Counts,
    wrong: Wrong,
}

/// What an instance did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Partitions taken, with what was settled in them.
    pub takeovers: u64,
    /// Transactions that did not get through.
    pub aborts: u64,
    /// Times the clients were made anew.
    pub renewals: u64,
}

/// Its consumer.
#[derive(Debug, Default)]
struct Consumer {
    heart: Heart,
    member: Option<Member>,
    /// Where to fetch; none: to be asked.
    positions: BTreeMap<i32, Option<i64>>,
    fetched: VecDeque<Taken>,
    /// The state of the cluster of which it knows that there was nothing.
    dry: BTreeMap<i32, u64>,
    /// The state of the cluster in which it last asked the group.
    asked: Option<u64>,
}

/// What a step at the consumer gave.
enum Step {
    /// This, by a call.
    Called(Polled),
    /// This, from memory.
    Known(Polled),
    /// Nothing, until the cluster changes.
    Nothing,
}

impl SettlementNode {
    /// One that has not spoken to anybody yet.
    #[must_use]
    pub fn start(instance: &str, now: Ms, controls: Controls) -> Self {
        let settings = Settlement {
            instance: instance.into(),
            ..Settlement::default()
        };
        let mut machine = MachineSettings::new(&settings, configured_policy(&settings, None));
        machine.batch_records_max = BATCH_RECORDS_MAX;
        machine.core.forgetful = controls.no_memory;
        let root = Site::default().root().clone();
        let required = !controls.takes_unsealed;
        let sealing = Sealing::new(root, required, Generations::default());
        machine.core.sealing = sealing.clone();
        machine.offsets_outside_transaction = controls.offsets_outside;
        Self {
            machine: Machine::new(machine),
            instance: instance.into(),
            group: settings.group.as_str().into(),
            records: settings.records_topic.as_str().into(),
            settings,
            sealing: (!controls.takes_copies).then_some(sealing),
            producer: None,
            consumer: Consumer::default(),
            rebuilding: None,
            answered: now,
            frozen_until: 0,
            counts: Counts::default(),
            wrong: Wrong::default(),
        }
    }

    /// The same with something wrong.
    #[must_use]
    pub fn doing(mut self, wrong: Wrong) -> Self {
        self.wrong = wrong;
        self
    }

    /// Under which name it writes: for [`Kafka::fence`].
    #[must_use]
    pub fn transactional_id(&self) -> String {
        format!("{}-{}", self.group, self.instance)
    }

    /// What it did.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// It does nothing until then, as a process that was stopped (SIGSTOP); the
    /// brokers hear nothing of it.
    pub fn freeze_until(&mut self, until: Ms, kafka: &mut Kafka) {
        self.frozen_until = self.frozen_until.max(until);
        kafka.silence(&self.instance, until);
    }

    /// Does what is next, one call to Kafka at most. Gives when it wants to be
    /// stepped again; none: when the cluster has changed.
    pub fn step(&mut self, now: Ms, kafka: &mut Kafka) -> Option<Ms> {
        let waits = self.answered.max(self.frozen_until);
        if now < waits {
            return Some(waits);
        }
        loop {
            let action = self.machine.poll(Duration::from_millis(now));
            self.hear();
            let (event, called) = match action {
                Action::Pause(pause) => {
                    let pause = pause.as_micros().div_ceil(1_000);
                    return Some(now + Ms::try_from(pause).unwrap_or(Ms::MAX).max(1));
                }
                Action::Ended => return None,
                Action::Poll { wait } => {
                    match self.consumer.poll(
                        now,
                        kafka,
                        (&self.group, &self.instance),
                        &self.settings,
                    ) {
                        Step::Called(polled) => (Some(Event::Polled(polled)), true),
                        Step::Known(polled) => (Some(Event::Polled(polled)), false),
                        Step::Nothing if wait => return None,
                        Step::Nothing => (Some(Event::Polled(Polled::default())), false),
                    }
                }
                Action::Read(partitions, ends) => self.read(&partitions, &ends, now, kafka),
                action => {
                    let (event, called) = self.act(action, now, kafka);
                    (Some(event), called)
                }
            };
            if called {
                self.answered = self.answered.max(now + kafka.takes_ms());
            }
            if let Some(event) = event {
                self.machine.done(event, Duration::from_millis(now));
                self.hear();
            }
            if now < self.answered {
                return Some(self.answered);
            }
        }
    }

    fn producer(&mut self) -> &mut Producer {
        let id = format!("{}-{}", self.group, self.instance);
        let timeout_ms = self.settings.transaction_timeout_ms.into();
        self.producer
            .get_or_insert_with(|| Producer::new(Some(&id), timeout_ms))
    }

    /// Does an action; whether Kafka was asked.
    fn act(&mut self, action: Action, now: Ms, kafka: &mut Kafka) -> (Event, bool) {
        match action {
            Action::Open => {
                self.producer = None;
                self.consumer = Consumer::default();
                self.rebuilding = None;
                let partitions = kafka.partitions(now, topics::RECORDS);
                if let (Some(sealing), Ok(partitions)) = (&self.sealing, partitions) {
                    sealing.set_partitions(partitions);
                }
                let opened = partitions.map(|_| false);
                let opened = opened.map_err(|code| format!("{code:?}"));
                (Event::Opened(opened), true)
            }
            Action::Init => (Event::Done(self.producer().init(now, kafka)), true),
            // It speaks to the group with its first poll.
            Action::Join => (Event::Joined(Ok(())), false),
            Action::AskOffsets(partitions) => {
                let (group, records) = (&self.group, &self.records);
                let asked = kafka.stable_offsets(now, group, records, &partitions);
                let asked = match asked {
                    Err(Code::UnstableOffsetCommit) if self.wrong.impatient => {
                        Ok(partitions.iter().map(|p| (*p, None)).collect())
                    }
                    asked => asked,
                };
                (
                    Event::Offsets(asked.map_err(|code| format!("{code:?}"))),
                    true,
                )
            }
            Action::AskEnds(partitions) => {
                self.rebuilding = None;
                let mut ends = Ends::default();
                for partition in partitions {
                    match kafka.end(now, topics::CHANGELOG, partition, self.wrong.stable_end) {
                        Ok(end) => ends.note(partition, 0, end),
                        Err(code) => return (Event::Ends(Err(format!("{code:?}"))), true),
                    }
                }
                (Event::Ends(Ok(ends)), true)
            }
            Action::Begin => (Event::Done(self.producer().begin()), false),
            Action::PassOffsets => {
                let Some(member) = self.consumer.member.clone() else {
                    let text = "the consumer is no member of its group";
                    let failure = Failure::new(Remedy::Anew, None, text);
                    return (Event::Done(Err(failure)), false);
                };
                let (records, offsets) = (Rc::clone(&self.records), self.machine.offsets());
                let producer = self.producer();
                let passed = producer.pass_offsets(now, kafka, &member, &records, &offsets);
                (Event::Done(passed), true)
            }
            Action::HandOver => {
                self.hand_over(now, kafka);
                (Event::HandedOver(Ok(Ok(()))), false)
            }
            Action::Await => {
                let producer = self.producer();
                let called = producer.progress().0 > 0 && producer.work(now, kafka);
                let failed = producer.sent().iter().find_map(|sent| match sent.delivery {
                    Delivery::Failed(code) => Some(code.to_string()),
                    _ => None,
                });
                let progress = match producer.fatal() {
                    Some(fatal) => Err(fatal.clone()),
                    None => Ok((producer.progress().0, failed)),
                };
                if !called && matches!(progress, Ok((1.., None))) {
                    self.answered = now + ASK_AGAIN_MS;
                }
                (Event::Progress(progress), called)
            }
            Action::Commit => (Event::Done(self.producer().commit(now, kafka)), true),
            Action::Abort => (Event::Done(self.producer().abort(now, kafka)), true),
            Action::CommitOffsets => {
                let committed = match self.consumer.member.clone() {
                    Some(member) => kafka
                        .call(
                            now,
                            Request::Commit {
                                member,
                                topic: Rc::clone(&self.records),
                                offsets: self.machine.offsets(),
                            },
                        )
                        .map(|_| ()),
                    None => Err(Code::UnknownMemberId),
                };
                let failed = |code| Failure::new(Remedy::Anew, None, &format!("{code:?}"));
                (Event::Done(committed.map_err(failed)), true)
            }
            Action::Poll { .. } | Action::Read(..) | Action::Pause(_) | Action::Ended => {
                (Event::Passed, false)
            }
        }
    }

    /// One fetch of the changelog; waits where a reader of committed records would.
    fn read(
        &mut self,
        partitions: &[i32],
        ends: &Ends,
        now: Ms,
        kafka: &mut Kafka,
    ) -> (Option<Event>, bool) {
        let begin = || {
            let rebuild = Rebuild::new(topics::CHANGELOG, partitions);
            (ends.starts().collect(), rebuild)
        };
        let (positions, rebuild) = self.rebuilding.get_or_insert_with(begin);
        if ends.passed(|partition| positions.get(&partition).copied()) {
            let memories = self.rebuilding.take().map(|(_, rebuild)| rebuild);
            let memories = memories.map_or_else(BTreeMap::new, Rebuild::into_memories);
            return (Some(Event::Memories(Ok(memories))), false);
        }
        let mut moved = false;
        for (partition, at) in positions.iter_mut() {
            let fetched = match kafka.fetch(now, topics::CHANGELOG, *partition, *at, FETCH_MAX) {
                Ok(fetched) => fetched,
                Err(code) => return (Some(Event::Memories(Err(format!("{code:?}")))), true),
            };
            for record in &fetched.records {
                let place = (record.partition, record.offset);
                let taken = rebuild.take(place, record.key.as_deref(), record.value.as_deref());
                if let Err(error) = taken {
                    return (Some(Event::Memories(Err(error.to_string()))), true);
                }
            }
            moved |= fetched.next > *at;
            *at = fetched.next;
        }
        if !moved {
            self.answered = now + ASK_AGAIN_MS;
        }
        (None, true)
    }

    fn hand_over(&mut self, now: Ms, kafka: &Kafka) {
        let pending = self.machine.pending().iter();
        let all: Vec<(i32, messages::Message)> = pending
            .flat_map(|decided| {
                let messages = decided.messages.iter().cloned();
                messages.map(|message| (decided.partition, message))
            })
            .collect();
        let producer = self.producer();
        producer.expect(all.len());
        for (place, (partition, message)) in all.into_iter().enumerate() {
            let topic: Rc<str> = match message.topic {
                Topic::Receipts => topics::RECEIPTS,
                Topic::Transactions => topics::TRANSACTIONS,
                Topic::Rejected => topics::REJECTED,
                Topic::Changelog => topics::CHANGELOG,
            }
            .into();
            let partition = (message.topic == Topic::Changelog).then_some(partition);
            let headers = message.headers.into_iter();
            let written = Message {
                key: message.key.map(Bytes::from),
                value: message.value.map(Bytes::from),
                headers: headers
                    .map(|(key, value)| (key.to_owned(), Bytes::from(value)))
                    .collect(),
            };
            producer.send(now, kafka, place, (&topic, partition), written);
        }
    }

    fn hear(&mut self) {
        for news in self.machine.take_news() {
            match news {
                News::TakenOver { offsets, .. } => self.counts.takeovers += offsets.len() as u64,
                News::Aborted(_) => self.counts.aborts += 1,
                News::Anew(_) => self.counts.renewals += 1,
                _ => {}
            }
        }
    }
}

impl Consumer {
    fn poll(
        &mut self,
        now: Ms,
        kafka: &mut Kafka,
        (group, instance): (&Rc<str>, &Rc<str>),
        settings: &Settlement,
    ) -> Step {
        kafka.step(now);
        let state = kafka.changes();
        if kafka.reachable().is_err() {
            return Step::Nothing;
        }
        let Some(member) = &mut self.member else {
            let timeout_ms = settings.session_timeout_ms.into();
            let name = (group, instance);
            let joined = kafka.join(now, name, &self.heart, &settings.records_topic, timeout_ms);
            self.member = joined.ok();
            return Step::Called(Polled::default());
        };
        if self.asked != Some(state) {
            let asked = kafka.poll_group(now, member);
            self.asked = Some(kafka.changes());
            match asked {
                Ok(assignment) => {
                    member.generation = assignment.generation;
                    let mut polled = Polled::default();
                    if !assignment.revoked.is_empty() {
                        self.give_up(&assignment.revoked);
                        polled.changes.push(Change::Revoked(assignment.revoked));
                    }
                    if !assignment.assigned.is_empty() {
                        let assigned = assignment.assigned.iter();
                        self.positions.extend(assigned.map(|p| (*p, None)));
                        polled.changes.push(Change::Assigned(assignment.assigned));
                    }
                    if !polled.changes.is_empty() {
                        return Step::Called(polled);
                    }
                }
                Err(Code::FencedInstanceId) => {
                    let code = RDKafkaErrorCode::FencedInstanceId;
                    let fatal = Failure::new(Remedy::Anew, Some(code), "fenced");
                    return Step::Called(Polled {
                        fatal: Some(fatal),
                        ..Polled::default()
                    });
                }
                // Put out: what it held is lost, and it joins again.
                Err(_) => {
                    self.member = None;
                    self.asked = None;
                    let lost: Vec<i32> = self.positions.keys().copied().collect();
                    self.give_up(&lost);
                    return Step::Called(Polled {
                        changes: vec![Change::Revoked(lost)],
                        ..Polled::default()
                    });
                }
            }
        }
        if let Some(record) = self.fetched.pop_front() {
            return Step::Known(Polled {
                record: Some(record),
                ..Polled::default()
            });
        }
        self.fetch(now, kafka, group, settings)
    }

    fn give_up(&mut self, partitions: &[i32]) {
        self.positions.retain(|p, _| !partitions.contains(p));
        self.dry.retain(|p, _| !partitions.contains(p));
        let fetched = &mut self.fetched;
        fetched.retain(|taken| !partitions.contains(&taken.partition));
    }

    fn fetch(
        &mut self,
        now: Ms,
        kafka: &mut Kafka,
        group: &Rc<str>,
        settings: &Settlement,
    ) -> Step {
        let state = kafka.changes();
        let dry = &self.dry;
        let mut places = self.positions.iter_mut();
        let Some((partition, position)) =
            places.find(|(partition, _)| dry.get(partition) != Some(&state))
        else {
            return Step::Nothing;
        };
        let topic = settings.records_topic.as_str();
        let Some(at) = *position else {
            let asked = kafka.stable_offsets(now, group, &topic.into(), &[*partition]);
            match asked {
                Ok(offsets) => {
                    let offset = offsets.get(partition).copied().flatten();
                    *position = Some(offset.unwrap_or(0));
                }
                // Asked again when something has changed.
                Err(_) => {
                    self.dry.insert(*partition, state);
                }
            }
            return Step::Called(Polled::default());
        };
        let partition = *partition;
        match kafka.fetch(now, topic, partition, at, FETCH_MAX) {
            Ok(fetched) => {
                *position = Some(fetched.next);
                if fetched.records.is_empty() {
                    self.dry.insert(partition, state);
                }
                self.fetched
                    .extend(fetched.records.into_iter().map(|record| Taken {
                        partition,
                        offset: record.offset,
                        time_ms: record.time_ms,
                        key: record.key.map(|key| key.to_vec()),
                        value: record.value.map(|value| value.to_vec()).unwrap_or_default(),
                    }));
                let record = self.fetched.pop_front();
                Step::Called(Polled {
                    record,
                    ..Polled::default()
                })
            }
            Err(_) => Step::Called(Polled::default()),
        }
    }
}
