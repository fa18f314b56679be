//! The consumer's thread: connect, find its place, read, and again.
//!
//! Promises: the place is what the store says, read when nothing is under way any
//! more; partitions that are added later are read from their beginning; whatever
//! Kafka answers, the thread goes on. Delivery events are read only once the
//! receipts are, so that they find the rows that they end. Never: a receipt passed
//! over that is neither stored, nor counted, nor a dead letter.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::begin::{Begin, begin};
use super::consumer::{About, ConsumerSetup, Control, ReceiptsFault, ReceiptsState};
use super::event::{Delivered, JOURNAL_HEADER};
use super::intake::{EXPIRY_HEADER, Message};
use super::metrics::ReceiptsMetrics;
use super::outbox::{Elsewhere, NextOffset, Poll};
use crate::error::BridgeError;
use crate::forwarder::core::Backoff;
use crate::{client, limits, topics};
use risiti_store::StoreError;

/// Why a session ends.
enum End {
    Stopped,
    Anew(String),
}

/// The thread's whole life.
pub(super) fn run(setup: &ConsumerSetup, control: &Control) {
    let mut backoff = Backoff::new();
    while !control.stopping() {
        control.set_state(ReceiptsState::Connecting);
        control.set_caught_up(false);
        // A panic here would be a bug; receipts must flow on all the same.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            one_session(setup, control, &mut backoff)
        }));
        let reason = match ended {
            Ok(End::Stopped) => break,
            Ok(End::Anew(reason)) => reason,
            Err(_) => "a bug: the receipts' consumer panicked; please report it".into(),
        };
        tracing::warn!(reason, "receipts: consumer given up, making a new one");
        control.set_last_error(Some(reason));
        setup
            .outbox
            .metrics()
            .connected
            .store(false, Ordering::Relaxed);
        control.pause(backoff.pause());
    }
    setup
        .outbox
        .metrics()
        .connected
        .store(false, Ordering::Relaxed);
    control.set_ended();
}

fn one_session(setup: &ConsumerSetup, control: &Control, backoff: &mut Backoff) -> End {
    let ended = Session::open(setup, control).and_then(|mut session| {
        session.connect()?;
        backoff.reset();
        session.read()
    });
    match ended {
        Err(end) => end,
        Ok(never) => match never {},
    }
}

/// What librdkafka reports comes with [`BaseConsumer::poll`] too, where it is
/// judged: by itself it would put ends of partitions into the log as errors.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

type Reader = BaseConsumer<Quiet>;

/// Nothing is ever returned but an [`End`].
enum Never {}

/// A partition that is read: `Some(next)` once its place is known.
type Places = BTreeMap<(Arc<str>, i32), Option<i64>>;

struct Session<'a> {
    setup: &'a ConsumerSetup,
    control: &'a Control,
    consumer: Reader,
    bootstrap: String,
    receipts: Arc<str>,
    deliveries: Arc<str>,
    places: Places,
    /// Partitions of the receipts whose end was not reached yet.
    behind: BTreeSet<i32>,
    caught_up: bool,
    paused: bool,
    looked_at: Instant,
    shown_at: Instant,
    /// Durable offsets that Kafka was not shown yet.
    to_show: BTreeMap<(Arc<str>, i32), i64>,
}

impl<'a> Session<'a> {
    fn open(setup: &'a ConsumerSetup, control: &'a Control) -> Result<Self, End> {
        let bootstrap = match (&setup.embedded, setup.cluster.bootstrap.servers()) {
            (Some(embedded), _) => embedded.bootstrap().to_owned(),
            (None, Some(servers)) => servers,
            (None, None) => {
                let reason = "bootstrap is \"embedded\" but no embedded cluster runs";
                control.alarm(About::Configuration, Some(reason.into()));
                return Err(End::Anew(reason.into()));
            }
        };
        let mut config = client::reader(
            &setup.cluster,
            &bootstrap,
            &format!("risiti-{}", setup.gateway_id),
            true,
        );
        for (name, value) in limits::RECEIPTS_FETCH {
            config.set(name, value);
        }
        config.set("enable.partition.eof", "true");
        let wait_ms = if setup.embedded.is_some() {
            limits::FETCH_WAIT_EMBEDDED_MS
        } else {
            limits::FETCH_WAIT_MS
        };
        config.set("fetch.wait.max.ms", wait_ms);
        let consumer = Reader::from_config_and_context(&config, Quiet).map_err(|error| {
            let error = BridgeError::Configuration {
                cluster: setup.cluster_name.clone(),
                reason: error.to_string(),
            };
            control.alarm(About::Configuration, Some(error.to_string()));
            End::Anew(error.to_string())
        })?;
        control.alarm(About::Configuration, None);
        Ok(Self {
            receipts: setup.topic.as_str().into(),
            deliveries: setup.deliveries_topic.as_str().into(),
            setup,
            control,
            consumer,
            bootstrap,
            places: Places::new(),
            behind: BTreeSet::new(),
            caught_up: false,
            paused: false,
            looked_at: Instant::now(),
            shown_at: Instant::now(),
            to_show: BTreeMap::new(),
        })
    }

    fn go_on(&self) -> Result<(), End> {
        if self.control.stopping() {
            Err(End::Stopped)
        } else {
            Ok(())
        }
    }

    /// Waits for the cluster, and for the topic.
    fn connect(&mut self) -> Result<(), End> {
        // What the store says is true once nothing is under way.
        while !self.setup.outbox.wait_below(1, limits::CALL) {
            self.go_on()?;
        }
        loop {
            self.go_on()?;
            self.serve_events();
            match self.look_for_partitions() {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    self.control.set_state(ReceiptsState::WaitingForTopic);
                    self.control.pause(limits::BACKOFF_MAX);
                }
                Err(error) => {
                    self.control.set_state(ReceiptsState::Connecting);
                    self.control.set_last_error(Some(error.to_string()));
                    self.control.pause(limits::BACKOFF_MAX);
                }
            }
        }
    }

    /// Before anything is assigned there are no messages, only events.
    fn serve_events(&self) {
        while self.consumer.poll(Duration::ZERO).is_some() {}
    }

    /// Looks which partitions there are and adds those that are new. `false`: there
    /// is no topic of receipts.
    fn look_for_partitions(&mut self) -> Result<bool, BridgeError> {
        self.looked_at = Instant::now();
        // All topics in one answer: asking for one by name could create it.
        let metadata = self
            .consumer
            .fetch_metadata(None, limits::CALL * 4)
            .map_err(BridgeError::kafka("list the partitions of the receipts"))?;
        let metrics = self.setup.outbox.metrics();
        metrics.connected.store(true, Ordering::Relaxed);
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for (topic, wanted) in [(&self.receipts, true), (&self.deliveries, self.caught_up)] {
            let known = metadata
                .topics()
                .iter()
                .find(|known| known.name() == &**topic && !known.partitions().is_empty());
            match known {
                Some(known) if wanted => found.extend(
                    known
                        .partitions()
                        .iter()
                        .map(|partition| (Arc::clone(topic), partition.id())),
                ),
                Some(_) => {}
                None => missing.push(topic.to_string()),
            }
        }
        self.provide(&missing);
        if missing.contains(&self.setup.topic) {
            return Ok(false);
        }
        let new: Vec<_> = found
            .into_iter()
            .filter(|place| !self.places.contains_key(place))
            .collect();
        if !new.is_empty() {
            for (topic, partition) in new {
                let next = self
                    .setup
                    .outbox
                    .offset(&self.setup.cluster_name, &topic, partition)?;
                if topic == self.receipts {
                    self.behind.insert(partition);
                    self.caught_up = false;
                    self.control.set_caught_up(false);
                }
                self.places.insert((topic, partition), next);
            }
            self.assign()?;
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

    /// Has librdkafka read all partitions from their places.
    fn assign(&mut self) -> Result<(), BridgeError> {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), next) in &self.places {
            let offset = next.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(topic, *partition, offset)
                .map_err(BridgeError::kafka("assign the partitions of the receipts"))?;
        }
        self.paused = false;
        self.consumer
            .assign(&list)
            .map_err(BridgeError::kafka("assign the partitions of the receipts"))?;
        tracing::info!(partitions = self.places.len(), places = ?self.places, "reading receipts");
        Ok(())
    }

    /// Reads until asked to stop.
    fn read(&mut self) -> Result<Never, End> {
        self.control.set_state(ReceiptsState::Reading);
        self.control.set_last_error(None);
        loop {
            self.go_on()?;
            self.pause_if_refused()?;
            if self.looked_at.elapsed() >= limits::PARTITIONS_LOOK
                && let Err(error) = self.look_for_partitions()
            {
                self.trouble(&error.to_string());
            }
            self.show_offsets();
            let Some(poll) = self.gather()? else {
                continue;
            };
            self.store(poll)?;
        }
    }

    /// Takes what there is, as much as one commit holds.
    fn gather(&mut self) -> Result<Option<Poll>, End> {
        let mut poll = Poll::default();
        let mut letters = Vec::new();
        let mut timeout = limits::RECEIPTS_WAIT;
        let mut failed = None;
        // Borrowed apart from the rest of the session: a message borrows it.
        let consumer = &self.consumer;
        while poll.has_room() {
            match consumer.poll(timeout) {
                None => break,
                Some(Ok(message)) => {
                    take(
                        self.setup,
                        &self.receipts,
                        &message,
                        &mut poll,
                        &mut letters,
                    );
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.behind.remove(&partition);
                    break;
                }
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
                }
            }
            timeout = Duration::ZERO;
        }
        if !letters.is_empty() {
            self.bury(&letters)?;
        }
        if let Some(error) = failed {
            self.failed(&error)?;
        }
        self.catch_up()?;
        Ok((!poll.offsets.is_empty()).then_some(poll))
    }

    /// Once the receipts were read to their ends, the delivery events are too.
    fn catch_up(&mut self) -> Result<(), End> {
        if self.caught_up || !self.behind.is_empty() {
            return Ok(());
        }
        self.caught_up = true;
        self.control.set_caught_up(true);
        self.control.set_last_error(None);
        if let Err(error) = self.look_for_partitions() {
            self.trouble(&error.to_string());
        }
        Ok(())
    }

    /// Keeps what is no receipt.
    fn bury(&self, letters: &[crate::dead_letters::DeadLetter]) -> Result<(), End> {
        let metrics = self.setup.outbox.metrics();
        loop {
            match self.setup.dead.keep(letters) {
                Ok(true) => {
                    self.control.alarm(About::DeadLetters, None);
                    ReceiptsMetrics::add(&metrics.dead, letters.len() as u64);
                    for letter in letters {
                        tracing::warn!(
                            id = letter.id(),
                            reason = letter.reason.text,
                            "no receipt; kept as a dead letter"
                        );
                    }
                    return Ok(());
                }
                // Waiting would hold up all terminals for one bad message, which
                // stays in Kafka.
                Ok(false) => {
                    ReceiptsMetrics::add(&metrics.dead, letters.len() as u64);
                    for letter in letters {
                        self.control.alarm(About::DeadLetters, Some(format!(
                            "the dead letters are full: a message of topic {} that is no receipt was passed over and is only in Kafka ({}); look at them with `risiti dead list`, then requeue or drop them",
                            letter.reason.topic, letter.reason.text
                        )));
                    }
                    return Ok(());
                }
                Err(error) => self.store_failing(&error.to_string())?,
            }
        }
    }

    /// Gives a poll to the store, and waits only if too much is under way.
    fn store(&mut self, poll: Poll) -> Result<(), End> {
        let options = self.setup.outbox.options();
        options.at(ReceiptsFault::BeforeCommit);
        let outbox = &self.setup.outbox;
        let mut failing = false;
        loop {
            while !outbox.wait_below(limits::COMMITS_UNDER_WAY, limits::CALL) {
                self.go_on()?;
            }
            match outbox.submit(&self.setup.cluster_name, &poll) {
                Ok(()) => break,
                Err(StoreError::Closing) => return Err(End::Stopped),
                Err(error) => {
                    failing = true;
                    self.store_failing(&error.to_string())?;
                }
            }
        }
        if failing {
            self.control.set_state(ReceiptsState::Reading);
            self.control.set_last_error(None);
        }
        for offset in poll.offsets {
            self.places
                .insert((offset.topic, offset.partition), Some(offset.next));
        }
        Ok(())
    }

    fn store_failing(&self, error: &str) -> Result<(), End> {
        self.control.set_state(ReceiptsState::StoreFailing);
        self.control.set_last_error(Some(error.into()));
        self.go_on()?;
        self.control.pause(limits::BACKOFF_MIN);
        Ok(())
    }

    /// While there is no disk for receipts, none is taken.
    fn pause_if_refused(&mut self) -> Result<(), End> {
        let refused = self.setup.outbox.refused();
        if refused.is_some() == self.paused {
            return Ok(());
        }
        let change = self.consumer.assignment().and_then(|partitions| {
            if refused.is_some() {
                self.consumer.pause(&partitions)
            } else {
                self.consumer.resume(&partitions)
            }
        });
        if let Err(error) = change {
            return Err(End::Anew(error.to_string()));
        }
        self.paused = refused.is_some();
        self.control.set_state(if self.paused {
            ReceiptsState::Paused
        } else {
            ReceiptsState::Reading
        });
        self.control.alarm(
            About::Refused,
            refused.map(|why| format!("no receipts are taken from Kafka: {why}")),
        );
        Ok(())
    }

    fn trouble(&self, error: &str) {
        self.control.set_last_error(Some(error.into()));
    }

    /// Goes on after an error, or asks for another consumer.
    fn failed(&mut self, error: &KafkaError) -> Result<(), End> {
        let code = match error {
            KafkaError::MessageConsumptionFatal(_) => return Err(End::Anew(error.to_string())),
            KafkaError::MessageConsumption(code) => *code,
            _ => {
                self.trouble(&error.to_string());
                return Ok(());
            }
        };
        self.trouble(&error.to_string());
        match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => self.find_places(),
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                // Deleted, perhaps made anew: its places have to be judged again.
                Err(End::Anew(error.to_string()))
            }
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed => {
                self.control.alarm(About::Rights, Some(format!(
                    "Kafka lets nobody read receipts here: {error}; grant the user of cluster {} the right to read topics {} and {} and the group risiti-{}",
                    self.setup.cluster_name, self.setup.topic, self.setup.deliveries_topic, self.setup.gateway_id
                )));
                self.control.pause(limits::BACKOFF_MAX);
                Ok(())
            }
            Code::AllBrokersDown => {
                let metrics = self.setup.outbox.metrics();
                metrics.connected.store(false, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An offset is not in Kafka: judges all places by what the partitions hold.
    fn find_places(&mut self) -> Result<(), End> {
        let places: Vec<_> = self.places.iter().map(|(k, v)| (k.clone(), *v)).collect();
        for ((topic, partition), next) in places {
            let (low, high) = loop {
                self.go_on()?;
                match self
                    .consumer
                    .fetch_watermarks(&topic, partition, limits::CALL * 4)
                {
                    Ok(found) => break found,
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
            if next != Some(judged.at()) {
                self.places.insert((topic, partition), Some(judged.at()));
            }
        }
        self.assign().map_err(|error| End::Anew(error.to_string()))
    }

    /// Shows Kafka how far this gateway is, for monitoring only.
    fn show_offsets(&mut self) {
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

/// Puts a message where it belongs.
fn take(
    setup: &ConsumerSetup,
    receipts: &Arc<str>,
    message: &BorrowedMessage<'_>,
    poll: &mut Poll,
    letters: &mut Vec<crate::dead_letters::DeadLetter>,
) {
    let header = |name: &str| {
        let headers = message.headers()?;
        headers.iter().find(|h| h.key == name)?.value
    };
    let topic: Arc<str> = if message.topic() == &**receipts {
        let read = Message {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            expiry: header(EXPIRY_HEADER),
        };
        match read.read() {
            Ok(receipt) => poll.receipts.push(receipt),
            Err(why) => letters.push(read.letter(
                &setup.cluster_name,
                receipts,
                &why,
                setup.outbox.now_ms(),
            )),
        }
        Arc::clone(receipts)
    } else {
        // Of another gateway, or of this one before its disk was lost.
        let ours = header(JOURNAL_HEADER) == Some(setup.journal_id.as_bytes());
        if !ours && let Some(delivered) = message.payload().and_then(Delivered::decode) {
            poll.elsewhere.push(Elsewhere {
                terminal: delivered.terminal,
                sequence: delivered.sequence,
            });
        }
        setup.deliveries_topic.as_str().into()
    };
    poll.passed(NextOffset {
        topic,
        partition: message.partition(),
        next: message.offset() + 1,
    });
}
