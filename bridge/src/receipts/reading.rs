//! The consumer's thread: connect, find its place, read, and again.
//!
//! Promises: the place is what the store says, read when nothing is under way any
//! more; partitions that are added later are read from their beginning; whatever
//! Kafka answers, the thread goes on. Delivery events are read only once the
//! receipts are, so that they find the rows that they end. Never: a receipt passed
//! over that is neither stored, nor counted, nor a dead letter.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};

use super::consumer::{About, ConsumerSetup, Control, ReceiptsFault, ReceiptsState};
use super::course::{Course, Place};
use super::event::JOURNAL_HEADER;
use super::intake::{EXPIRY_HEADER, Message};
use super::metrics::ReceiptsMetrics;
use super::poll::Poll;
use crate::error::BridgeError;
use crate::remedy::Backoff;
use crate::silence::Silence;
use crate::{client, headers, limits};
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

/// One consumer's life.
pub(super) struct Session<'a> {
    pub(super) setup: &'a ConsumerSetup,
    pub(super) control: &'a Control,
    pub(super) consumer: Reader,
    pub(super) bootstrap: String,
    pub(super) course: Course,
    pub(super) connected: bool,
    /// Since when the cluster does not answer this consumer.
    unanswered_since: Option<Instant>,
    /// Whether it hears what there is.
    pub(super) silence: Silence<Place>,
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
            course: Course::new(&setup.topic, &setup.deliveries_topic, &setup.journal_id),
            setup,
            control,
            consumer,
            bootstrap,
            connected: false,
            unanswered_since: None,
            silence: Silence::new(),
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
                    self.unanswered(&error)?;
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
                self.unanswered(&error)?;
            }
            self.look_for_silence()?;
            self.show_offsets();
            let Some(poll) = self.gather()? else {
                continue;
            };
            self.store(poll)?;
        }
    }

    /// Asks whether there is anything to come from partitions that were long silent.
    fn look_for_silence(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let (consumer, control) = (&self.consumer, self.control);
        self.silence.look(now, |(topic, partition)| {
            let asked = consumer.fetch_watermarks(topic, *partition, limits::CALL * 4);
            let asked = asked.map_err(BridgeError::kafka("ask the end of the receipts"));
            asked
                .inspect_err(|error| control.set_last_error(Some(error.to_string())))
                .ok()
                .map(|(_, high)| high)
        });
        if let Some((topic, partition)) = self.silence.deaf_to(now) {
            return Err(End::Anew(format!(
                "Kafka has more of topic {topic}, partition {partition}, than this consumer hears of, or does not answer for it"
            )));
        }
        Ok(())
    }

    /// Takes what there is, as much as one commit holds.
    fn gather(&mut self) -> Result<Option<Poll>, End> {
        let mut poll = Poll::default();
        let mut letters = Vec::new();
        let mut timeout = limits::RECEIPTS_WAIT;
        let mut failed = None;
        let mut ended = None;
        // Borrowed apart from the rest of the session: a message borrows it.
        let consumer = &self.consumer;
        while poll.has_room() {
            match consumer.poll(timeout) {
                None => break,
                // Never expected.
                Some(Ok(message))
                    if self.course.was_taken(
                        message.topic(),
                        message.partition(),
                        message.offset(),
                    ) => {}
                Some(Ok(message)) => {
                    take(
                        self.setup,
                        &mut self.course,
                        &message,
                        &mut poll,
                        &mut letters,
                    );
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended = Some(partition);
                    break;
                }
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
                }
            }
            timeout = Duration::ZERO;
        }
        self.hear(&poll, ended);
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

    /// Notes from where something came, if only the news that there is no more.
    fn hear(&mut self, poll: &Poll, ended: Option<i32>) {
        let now = Instant::now();
        for offset in &poll.offsets {
            let place = (Arc::clone(&offset.topic), offset.partition);
            self.silence.heard(&place, now);
        }
        for place in ended
            .map(|p| self.course.reached_end(p))
            .unwrap_or_default()
        {
            self.silence.heard(&place, now);
        }
    }

    /// Once the receipts were read to their ends, the delivery events are too.
    fn catch_up(&mut self) -> Result<(), End> {
        if !self.course.catches_up() {
            return Ok(());
        }
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
        self.course.stored(poll.offsets);
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
        if connected {
            self.unanswered_since = None;
        }
        self.connected = connected;
        let metrics = self.setup.outbox.metrics();
        metrics.connected.store(connected, Ordering::Relaxed);
    }

    /// A question had no answer. After [`limits::UNANSWERED`] it takes another
    /// consumer to ask.
    fn unanswered(&mut self, error: &BridgeError) -> Result<(), End> {
        self.trouble(&error.to_string());
        if !matches!(error, BridgeError::Kafka { .. }) {
            return Ok(());
        }
        self.set_connected(false);
        let since = *self.unanswered_since.get_or_insert_with(Instant::now);
        if since.elapsed() > limits::UNANSWERED {
            return Err(End::Anew(error.to_string()));
        }
        Ok(())
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
    course: &mut Course,
    message: &BorrowedMessage<'_>,
    poll: &mut Poll,
    letters: &mut Vec<crate::dead_letters::DeadLetter>,
) {
    let read = Message {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
        expiry: headers::value(message, EXPIRY_HEADER),
    };
    if let Err(why) = course.take(
        message.topic(),
        &read,
        headers::value(message, JOURNAL_HEADER),
        poll,
    ) {
        letters.push(read.letter(
            &setup.cluster_name,
            message.topic(),
            &why,
            setup.outbox.now_ms(),
        ));
    }
}
