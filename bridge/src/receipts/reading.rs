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
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};

use super::consumer::{About, ConsumerSetup, Control, ReceiptsFault, ReceiptsState};
use super::event::{Delivered, JOURNAL_HEADER};
use super::intake::{EXPIRY_HEADER, Message};
use super::metrics::ReceiptsMetrics;
use super::poll::{Elsewhere, NextOffset, Poll};
use crate::error::BridgeError;
use crate::remedy::Backoff;
use crate::{client, limits};
use risiti_store::StoreError;

/// Why a session ends.
pub(super) enum End {
    Stopped,
    /// There is no room for more receipts. The consumer goes rather than pauses:
    /// a pause soon after an assignment can lose its offset (librdkafka issue
    /// 2190).
    Refused,
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
            Ok(End::Refused) => {
                wait_for_room(setup, control);
                continue;
            }
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
    control.set_state(ReceiptsState::Stopped);
}

/// While there is no room for receipts, none is taken.
fn wait_for_room(setup: &ConsumerSetup, control: &Control) {
    while !control.stopping()
        && let Some(why) = setup.outbox.refused()
    {
        let alarm = format!("no receipts are taken from Kafka: {why}");
        control.alarm(About::Refused, Some(alarm));
        control.set_state(ReceiptsState::Paused);
        control.pause(limits::IDLE_WAIT);
    }
    control.alarm(About::Refused, None);
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
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

pub(super) type Reader = BaseConsumer<Quiet>;

/// Nothing is ever returned but an [`End`].
enum Never {}

/// A partition that is read: `Some(next)` once its place is known.
pub(super) type Places = BTreeMap<(Arc<str>, i32), Option<i64>>;

/// One consumer's life.
pub(super) struct Session<'a> {
    pub(super) setup: &'a ConsumerSetup,
    pub(super) control: &'a Control,
    pub(super) consumer: Reader,
    pub(super) bootstrap: String,
    pub(super) receipts: Arc<str>,
    pub(super) deliveries: Arc<str>,
    pub(super) places: Places,
    /// Partitions of the receipts whose end was not reached yet.
    pub(super) behind: BTreeSet<i32>,
    pub(super) caught_up: bool,
    pub(super) connected: bool,
    pub(super) looked_at: Instant,
    pub(super) shown_at: Instant,
    /// Durable offsets that Kafka was not shown yet.
    pub(super) to_show: BTreeMap<(Arc<str>, i32), i64>,
}

impl<'a> Session<'a> {
    fn open(setup: &'a ConsumerSetup, control: &'a Control) -> Result<Self, End> {
        let bootstrap = client::bootstrap(&setup.cluster, setup.embedded.as_deref())
            .inspect_err(|reason| control.alarm(About::Configuration, Some((*reason).into())))
            .map_err(|reason| End::Anew(reason.into()))?;
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
            connected: false,
            looked_at: Instant::now(),
            shown_at: Instant::now(),
            to_show: BTreeMap::new(),
        })
    }

    pub(super) fn go_on(&self) -> Result<(), End> {
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

    /// Reads until asked to stop.
    fn read(&mut self) -> Result<Never, End> {
        self.control.set_state(ReceiptsState::Reading);
        self.control.set_last_error(None);
        loop {
            self.go_on()?;
            if self.setup.outbox.refused().is_some() {
                return Err(End::Refused);
            }
            let due = if self.connected {
                limits::PARTITIONS_LOOK
            } else {
                limits::BACKOFF_MAX
            };
            if self.looked_at.elapsed() >= due
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
                Some(Ok(message)) if self.was_taken(&message) => {}
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
        } else if !poll.offsets.is_empty() {
            self.set_connected(true);
            self.control.alarm(About::Rights, None);
        }
        self.catch_up()?;
        Ok((!poll.offsets.is_empty()).then_some(poll))
    }

    /// Whether this was taken before: never expected, and to take it twice would
    /// deliver it twice.
    fn was_taken(&self, message: &BorrowedMessage<'_>) -> bool {
        let topic = if message.topic() == &*self.receipts {
            &self.receipts
        } else {
            &self.deliveries
        };
        let place = (Arc::clone(topic), message.partition());
        let next = self.places.get(&place).copied().flatten();
        next.is_some_and(|next| message.offset() < next)
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
    pub(super) fn store(&mut self, poll: Poll) -> Result<(), End> {
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

    /// Notes whether the cluster answers.
    pub(super) fn set_connected(&mut self, connected: bool) {
        if connected && !self.connected {
            self.control.set_last_error(None);
        }
        self.connected = connected;
        let metrics = self.setup.outbox.metrics();
        metrics.connected.store(connected, Ordering::Relaxed);
    }

    pub(super) fn trouble(&self, error: &str) {
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
                self.set_connected(false);
                Ok(())
            }
            _ => Ok(()),
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
