//! A producer, modelled after librdkafka's transactional one: what it keeps in
//! memory, and which request it makes next.
//!
//! Promises: one request a call of [`Producer::work`], [`Producer::init`],
//! [`Producer::commit`], [`Producer::abort`] or [`Producer::pass_offsets`]; a batch
//! whose answer did not come is sent again under the same sequence number; after a
//! batch of which nobody knows what became, the epoch is raised before anything else
//! is sent (KIP-360). Never: a decision about what an error means to the caller
//! beyond the three marks that librdkafka gives (fatal, requires abort, retriable).

use risiti_bridge::settlement::partitioner::partition_of;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use rdkafka::error::RDKafkaErrorCode;
use risiti_bridge::forwarder::core::Delivery;
use risiti_bridge::remedy::{Failure, Remedy};

use super::{Answer, Code, Kafka, Member, Message, Ms, Origin, Place, ProducerId, Request};

/// Records of a batch at most: more batches, more places to be killed at.
const BATCH_MAX: usize = 4;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How.
    pub delivery: Delivery,
    /// Partition and offset, once it is delivered.
    pub place: (i32, i64),
}

#[derive(Debug)]
struct Batch {
    topic: Rc<str>,
    partition: i32,
    /// Given when it is sent for the first time.
    sequence: Option<i32>,
    places: Vec<usize>,
    messages: Vec<Message>,
    queued_ms: Ms,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Producer {
    /// None: idempotent only.
    id: Option<Rc<str>>,
    timeout_ms: Ms,
    identity: Option<(ProducerId, i16)>,
    /// Places that the coordinator knows of this transaction.
    added: BTreeSet<Place>,
    queue: VecDeque<Batch>,
    sequences: BTreeMap<(Rc<str>, i32), i32>,
    /// Nobody knows what became of a batch: only a new epoch makes that sure.
    bump: bool,
    /// Why the transaction can't be committed.
    broken: Option<Failure>,
    fatal: Option<Failure>,
    sent: Vec<Sent>,
    pending: usize,
    down: bool,
    counter: usize,
}

impl Producer {
    /// One that has not spoken to anybody yet.
    #[must_use]
    pub fn new(transactional_id: Option<&str>, timeout_ms: Ms) -> Self {
        Self {
            id: transactional_id.map(Rc::from),
            timeout_ms,
            identity: None,
            added: BTreeSet::new(),
            queue: VecDeque::new(),
            sequences: BTreeMap::new(),
            bump: false,
            broken: None,
            fatal: None,
            sent: Vec::new(),
            pending: 0,
            down: false,
            counter: 0,
        }
    }

    /// The error after which nothing goes any more.
    #[must_use]
    pub fn fatal(&self) -> Option<&Failure> {
        self.fatal.as_ref()
    }

    /// Whether no broker answered, since the last call.
    pub fn take_down(&mut self) -> bool {
        std::mem::take(&mut self.down)
    }

    /// `init_transactions`.
    ///
    /// # Errors
    /// Again, or fatal.
    pub fn init(&mut self, now: Ms, kafka: &mut Kafka) -> Result<(), Failure> {
        self.ask_identity(now, kafka, None)
    }

    fn ask_identity(
        &mut self,
        now: Ms,
        kafka: &mut Kafka,
        own: Option<(ProducerId, i16)>,
    ) -> Result<(), Failure> {
        let request = Request::Init {
            id: self.id.clone(),
            timeout_ms: self.timeout_ms,
            own,
        };
        match kafka.call(now, request) {
            Ok(Answer::Producer(producer, epoch)) => {
                self.identity = Some((producer, epoch));
                self.sequences.clear();
                self.bump = false;
                Ok(())
            }
            Ok(_) => Err(self.end_of(Code::InvalidTxnState)),
            Err(code) => Err(self.failed(code)),
        }
    }

    /// `begin_transaction`: nobody is asked.
    ///
    /// # Errors
    /// The producer is finished.
    pub fn begin(&mut self) -> Result<(), Failure> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        self.added.clear();
        self.broken = None;
        Ok(())
    }

    /// Makes room for the reports of so many messages.
    pub fn expect(&mut self, places: usize) {
        let pending = Sent {
            delivery: Delivery::Pending,
            place: (-1, -1),
        };
        self.sent.clear();
        self.sent.resize(places, pending);
        self.pending = 0;
    }

    /// Hands a message over. Its partition follows from its key, unless it is named.
    pub fn send(
        &mut self,
        now: Ms,
        kafka: &Kafka,
        place: usize,
        (topic, partition): (&Rc<str>, Option<i32>),
        message: Message,
    ) {
        let count = kafka.topics.get(topic).map_or(1, Vec::len);
        let partition = partition.unwrap_or_else(|| match &message.key {
            Some(key) => partition_of(key, i32::try_from(count).unwrap_or(i32::MAX)),
            None => 0,
        });
        self.pending += 1;
        let fits = |batch: &&mut Batch| {
            batch.sequence.is_none()
                && batch.messages.len() < BATCH_MAX
                && (&batch.topic, batch.partition) == (topic, partition)
        };
        if let Some(batch) = self.queue.iter_mut().rev().find(fits) {
            batch.places.push(place);
            batch.messages.push(message);
            return;
        }
        self.queue.push_back(Batch {
            topic: Rc::clone(topic),
            partition,
            sequence: None,
            places: vec![place],
            messages: vec![message],
            queued_ms: now,
        });
    }

    /// Reports so far.
    #[must_use]
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// Messages without a report, and whether any has failed.
    #[must_use]
    pub fn progress(&self) -> (usize, bool) {
        let failed = |sent: &Sent| matches!(sent.delivery, Delivery::Failed(_));
        (self.pending, self.sent.iter().any(failed))
    }

    /// Makes the next request. `false`: there was none to make.
    pub fn work(&mut self, now: Ms, kafka: &mut Kafka) -> bool {
        if self.fatal.is_some() || self.queue.is_empty() {
            return false;
        }
        let Some(identity) = self.identity else {
            // Without transactions a producer gets its number by itself.
            let _ = self.ask_identity(now, kafka, None);
            return true;
        };
        // Partitions are served in turns; one partition's batches in their order.
        self.counter += 1;
        let chosen = self.counter % self.queue.len();
        let (topic, partition) = {
            let batch = &self.queue[chosen];
            (Rc::clone(&batch.topic), batch.partition)
        };
        let first = |batch: &Batch| (&batch.topic, batch.partition) == (&topic, partition);
        let index = self.queue.iter().position(first).unwrap_or(chosen);
        if let Some(id) = &self.id {
            let place = Place::Partition(Rc::clone(&topic), partition);
            if !self.added.contains(&place) {
                let request = Request::Add {
                    id: Rc::clone(id),
                    by: identity,
                    place: place.clone(),
                };
                match kafka.call(now, request) {
                    Ok(_) => {
                        self.added.insert(place);
                    }
                    Err(Code::Transport | Code::ConcurrentTransactions) => {
                        // It may have been added: an abort has to end it.
                        self.added_perhaps(place);
                        self.expire(now, kafka);
                    }
                    Err(Code::UnknownTopicOrPartition) => {
                        self.refuse(index, RDKafkaErrorCode::UnknownTopicOrPartition)
                    }
                    Err(code) => {
                        self.failed(code);
                    }
                }
                return true;
            }
        }
        self.produce(now, kafka, index, identity);
        true
    }

    /// Notes that a place may take part without having to be counted on.
    fn added_perhaps(&mut self, place: Place) {
        let Place::Partition(topic, partition) = place else {
            return;
        };
        // A mark of its own: a partition number that no topic has.
        self.added.insert(Place::Partition(topic, -1 - partition));
    }

    fn produce(&mut self, now: Ms, kafka: &mut Kafka, index: usize, by: (ProducerId, i16)) {
        let batch = &mut self.queue[index];
        let key = (Rc::clone(&batch.topic), batch.partition);
        let count = i32::try_from(batch.messages.len()).unwrap_or(i32::MAX);
        let sequence = *batch.sequence.get_or_insert_with(|| {
            let next = self.sequences.entry(key).or_insert(0);
            let sequence = *next;
            *next += count;
            sequence
        });
        let request = Request::Produce {
            id: self.id.clone(),
            origin: Origin {
                producer: by.0,
                epoch: by.1,
                sequence,
                transactional: self.id.is_some(),
            },
            topic: Rc::clone(&batch.topic),
            partition: batch.partition,
            messages: batch.messages.clone(),
        };
        match kafka.call(now, request) {
            Ok(Answer::Offset(base)) => {
                if let Some(batch) = self.queue.remove(index) {
                    for (place, offset) in batch.places.iter().zip(base..) {
                        self.report(*place, Delivery::Delivered, (batch.partition, offset));
                    }
                }
            }
            Ok(_) => {}
            Err(Code::Transport) => self.expire(now, kafka),
            Err(Code::UnknownTopicOrPartition) => {
                self.refuse(index, RDKafkaErrorCode::UnknownTopicOrPartition)
            }
            Err(Code::InvalidRecord) => self.refuse(index, RDKafkaErrorCode::InvalidRecord),
            Err(code) => {
                self.failed(code);
            }
        }
    }

    /// Gives messages up that have waited for as long as a transaction may take.
    fn expire(&mut self, now: Ms, kafka: &Kafka) {
        self.down |= kafka.reachable().is_err();
        let timeout_ms = self.timeout_ms;
        let old = |batch: &Batch| now >= batch.queued_ms + timeout_ms;
        if self.id.is_none() || !self.queue.iter().any(old) {
            return;
        }
        let code = RDKafkaErrorCode::MessageTimedOut;
        self.give_up(Delivery::Failed(code));
        self.broken = Some(Failure::new(
            Remedy::Abort,
            Some(code),
            "messages timed out",
        ));
    }

    /// A batch that no broker will ever take. The others go on, so that it shows what
    /// was refused.
    fn refuse(&mut self, index: usize, code: RDKafkaErrorCode) {
        if let Some(batch) = self.queue.remove(index) {
            if let Some(sequence) = batch.sequence {
                // It was not used up.
                let key = (Rc::clone(&batch.topic), batch.partition);
                self.sequences.insert(key, sequence);
            }
            for place in batch.places {
                self.report(place, Delivery::Failed(code), (-1, -1));
            }
        }
        self.broken = Some(Failure::new(Remedy::Abort, Some(code), "refused"));
    }

    /// Every message that is not delivered never will be.
    fn give_up(&mut self, delivery: Delivery) {
        for batch in std::mem::take(&mut self.queue) {
            self.bump |= batch.sequence.is_some();
            for place in batch.places {
                self.report(place, delivery, (-1, -1));
            }
        }
    }

    fn report(&mut self, place: usize, delivery: Delivery, at: (i32, i64)) {
        self.pending = self.pending.saturating_sub(1);
        if let Some(sent) = self.sent.get_mut(place) {
            *sent = Sent {
                delivery,
                place: at,
            };
        }
    }

    /// `send_offsets_to_transaction`.
    ///
    /// # Errors
    /// As librdkafka marks them.
    pub fn pass_offsets(
        &mut self,
        now: Ms,
        kafka: &mut Kafka,
        member: &Member,
        topic: &Rc<str>,
        offsets: &BTreeMap<i32, i64>,
    ) -> Result<(), Failure> {
        let (Some(id), Some(by)) = (&self.id, self.identity) else {
            return Err(self.end_of(Code::InvalidTxnState));
        };
        let request = Request::Offsets {
            id: Rc::clone(id),
            by,
            member: member.clone(),
            topic: Rc::clone(topic),
            offsets: offsets.clone(),
        };
        // Whatever the answer, the coordinator may know of it.
        self.added.insert(Place::Group(Rc::clone(&member.group)));
        match kafka.call(now, request) {
            Ok(_) => Ok(()),
            Err(code) => Err(self.failed(code)),
        }
    }

    /// `commit_transaction`.
    ///
    /// # Errors
    /// As librdkafka marks them.
    pub fn commit(&mut self, now: Ms, kafka: &mut Kafka) -> Result<(), Failure> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        if self.pending > 0 {
            return Err(Failure::new(Remedy::Again, None, "messages wait"));
        }
        self.end(now, kafka, true)
    }

    /// `abort_transaction`, after a purge.
    ///
    /// # Errors
    /// As librdkafka marks them.
    pub fn abort(&mut self, now: Ms, kafka: &mut Kafka) -> Result<(), Failure> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        self.give_up(Delivery::Failed(RDKafkaErrorCode::PurgeQueue));
        let ended = if self.bump && self.id.is_some() {
            // A new epoch aborts what the old one has open (KIP-360).
            self.ask_identity(now, kafka, self.identity)
        } else {
            self.end(now, kafka, false)
        };
        if ended.is_ok() {
            self.added.clear();
            self.broken = None;
        }
        ended
    }

    fn end(&mut self, now: Ms, kafka: &mut Kafka, commit: bool) -> Result<(), Failure> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone());
        }
        let (Some(id), Some(by)) = (&self.id, self.identity) else {
            return Err(self.end_of(Code::InvalidTxnState));
        };
        if self.added.is_empty() {
            return Ok(());
        }
        // Perhaps added is not added: a commit would be refused for nothing.
        let sure = |place: &Place| !matches!(place, Place::Partition(_, ..0));
        let only_perhaps = !self.added.iter().any(sure);
        let request = Request::End {
            id: Rc::clone(id),
            by,
            commit,
        };
        match kafka.call(now, request) {
            Ok(_) => {
                self.added.clear();
                Ok(())
            }
            Err(Code::InvalidTxnState) if only_perhaps && !commit => {
                self.added.clear();
                Ok(())
            }
            Err(code) => Err(self.failed(code)),
        }
    }

    /// What librdkafka makes of an error, kept if it can't be undone.
    fn failed(&mut self, code: Code) -> Failure {
        use RDKafkaErrorCode as Rd;
        let (remedy, named) = match code {
            Code::Transport => (Remedy::of(false, false, true), Rd::OperationTimedOut),
            Code::ConcurrentTransactions => {
                (Remedy::of(false, false, true), Rd::ConcurrentTransactions)
            }
            Code::IllegalGeneration => (Remedy::of(false, true, false), Rd::IllegalGeneration),
            Code::UnknownMemberId => (Remedy::of(false, true, false), Rd::UnknownMemberId),
            Code::FencedInstanceId => (Remedy::of(false, true, false), Rd::FencedInstanceId),
            Code::UnknownTopicOrPartition => {
                (Remedy::of(false, true, false), Rd::UnknownTopicOrPartition)
            }
            Code::InvalidRecord => (Remedy::of(false, true, false), Rd::InvalidRecord),
            Code::OutOfOrderSequence | Code::DuplicateSequence => {
                self.bump = true;
                (Remedy::of(false, true, false), Rd::OutOfOrderSequenceNumber)
            }
            Code::InvalidProducerEpoch | Code::ProducerFenced => {
                (Remedy::of(true, false, false), Rd::Fenced)
            }
            Code::InvalidProducerIdMapping => {
                (Remedy::of(true, false, false), Rd::InvalidProducerIdMapping)
            }
            Code::InvalidTxnState => (
                Remedy::of(true, false, false),
                Rd::InvalidTransactionalState,
            ),
            Code::UnstableOffsetCommit => {
                (Remedy::of(false, false, true), Rd::UnstableOffsetCommit)
            }
        };
        let failure = Failure::new(remedy, Some(named), &format!("{code:?}"));
        match remedy {
            Remedy::Again => {}
            Remedy::Abort => {
                self.give_up(Delivery::Failed(named));
                self.broken = Some(failure.clone());
            }
            Remedy::Anew => {
                self.give_up(Delivery::Failed(named));
                self.fatal = Some(failure.clone());
            }
        }
        failure
    }

    fn end_of(&mut self, code: Code) -> Failure {
        self.failed(code)
    }
}
