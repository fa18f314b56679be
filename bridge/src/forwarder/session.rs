//! The forwarder's thread: connect, find the position, drain, and again.
//!
//! Promises: a producer that is finished is replaced, with pauses, for as long as
//! it takes. Never: a position assumed; it is read back before anything is sent.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::Producer as _;
use risiti_config::{DEFAULT_CLUSTER, Mode};
use risiti_store::{Position, Record};

use super::core::{Outgoing, Plan};
use super::pace::Pace;
use super::producer::{Context, Producer};
use super::transaction::Sent;
use super::{Control, ForwarderSetup, State};
use crate::dead_letters::{DeadLetter, Reason};
use crate::error::BridgeError;
use crate::headers::Provenance;
use crate::metrics::ForwarderMetrics;
use crate::remedy::{Backoff, Remedy, is_fenced, remedy};
use crate::route::Routes;
use crate::topics::Aging;
use crate::trace::{Step, payment};
use crate::transactional::Overdue;
use crate::{client, limits, position, topics};

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The handle asked for it.
    Stopped,
    /// A test ended it as a power cut would.
    Killed,
    /// The producer is finished; make another.
    Anew { reason: String, fenced: bool },
}

impl End {
    pub(super) fn anew(reason: impl ToString) -> Self {
        Self::Anew {
            reason: reason.to_string(),
            fenced: false,
        }
    }
}

impl From<Overdue> for End {
    fn from(_: Overdue) -> Self {
        Self::Stopped
    }
}

/// What outlives a producer.
struct Life {
    backoff: Backoff,
    /// When another producer had taken over, within the last while.
    fenced: Vec<Instant>,
    /// How much the link carries.
    pace: Pace,
}

impl Life {
    /// Whether another producer takes over again and again: two that share an id
    /// commit in turns, so a commit says nothing.
    fn contested(&mut self) -> bool {
        self.fenced
            .retain(|at| at.elapsed() < limits::FENCED_WINDOW);
        self.fenced.len() >= limits::FENCED_ALARM
    }
}

/// The thread's whole life.
pub(super) fn run(setup: &ForwarderSetup, control: &Control) {
    let mut life = Life {
        backoff: Backoff::new(),
        fenced: Vec::new(),
        pace: Pace::new(
            setup
                .cluster
                .batch_bytes_max
                .as_usize()
                .min(limits::BATCH_BYTES_MAX),
            Duration::from_millis(setup.cluster.transaction_timeout_ms.into()),
        ),
    };
    while !control.stopping() {
        control.set_state(State::Connecting);
        // A panic here would be a bug; records must flow on all the same.
        let ended = catch_unwind(AssertUnwindSafe(|| one_session(setup, control, &mut life)));
        let (reason, fenced) = match ended {
            Ok(End::Stopped) => break,
            Ok(End::Killed) => return,
            Ok(End::Anew { reason, fenced }) => (reason, fenced),
            Err(_) => (
                "a bug: the forwarder panicked; please report it".into(),
                false,
            ),
        };
        ForwarderMetrics::add(&setup.metrics.producers, 1);
        tracing::warn!(
            cluster = setup.name,
            reason,
            "producer given up, making a new one"
        );
        if fenced {
            ForwarderMetrics::add(&setup.metrics.fenced, 1);
            life.fenced.push(Instant::now());
            if life.contested() {
                control.set_alarm(&setup.name, Some(format!(
                    "taken over {} times within {} s by another producer with the transactional id of gateway {}; give each gateway an id of its own (gateway.id)",
                    life.fenced.len(), limits::FENCED_WINDOW.as_secs(), setup.gateway_id
                )));
            }
        }
        setup.metrics.set_last_error(Some(reason));
        control.pause(life.backoff.pause());
    }
    setup.metrics.connected.store(false, Ordering::Relaxed);
    control.set_state(State::Stopped);
}

fn one_session(setup: &ForwarderSetup, control: &Control, life: &mut Life) -> End {
    let mut session = match Session::open(setup, control) {
        Ok(session) => session,
        Err(end) => return end,
    };
    let end = session
        .recover()
        .and_then(|()| session.drain(life))
        .err()
        .unwrap_or(End::Stopped);
    if matches!(end, End::Killed) {
        // As after a power cut: nothing is closed, aborted or flushed.
        std::mem::forget(session.producer);
    }
    end
}

/// One producer's life.
pub(super) struct Session<'a> {
    pub(super) setup: &'a ForwarderSetup,
    pub(super) control: &'a Control,
    pub(super) producer: Producer,
    pub(super) context: Arc<Context>,
    pub(super) provenance: Provenance,
    pub(super) position_key: String,
    bootstrap: String,
    begun: Instant,
    /// When the last batch was begun.
    sent_at: Instant,
    /// The next position to send.
    next: Position,
    /// The next position as Kafka has it.
    saved: Position,
    saved_at: Instant,
    /// Positions from `next` on that need no sending: dead letters, and in
    /// `idempotent` mode what was delivered of a batch that was refused in part.
    pub(super) settled: BTreeSet<Position>,
    /// Records of the next batch at most; halved to find what was refused.
    records_max: usize,
    routes_seen: Option<Arc<Routes>>,
    /// Topics about whose records' age nothing was said yet.
    aging: Vec<Aging>,
    pub(super) retry: Backoff,
}

impl<'a> Session<'a> {
    fn open(setup: &'a ForwarderSetup, control: &'a Control) -> Result<Self, End> {
        let bootstrap = client::bootstrap(&setup.cluster, setup.embedded.as_deref())
            .inspect_err(|reason| control.set_alarm(&setup.name, Some((*reason).into())))
            .map_err(End::anew)?;
        let id = format!("risiti-{}-{}", setup.gateway_id, setup.name);
        let config = client::producer(&setup.cluster, &bootstrap, &id);
        let producer =
            Producer::from_config_and_context(&config, Context::default()).map_err(|error| {
                let error = BridgeError::Configuration {
                    cluster: setup.name.clone(),
                    reason: error.to_string(),
                };
                control.set_alarm(&setup.name, Some(error.to_string()));
                End::anew(error)
            })?;
        let journal_id = setup.source.journal_id();
        Ok(Self {
            context: Arc::clone(producer.client().context()),
            producer,
            provenance: Provenance::new(&setup.gateway_id, journal_id),
            position_key: position::key(&setup.gateway_id, &setup.name, journal_id),
            bootstrap,
            begun: Instant::now(),
            sent_at: Instant::now(),
            next: 0,
            saved: 0,
            saved_at: Instant::now(),
            settled: BTreeSet::new(),
            records_max: records_max(setup),
            routes_seen: None,
            aging: Vec::new(),
            retry: Backoff::new(),
            setup,
            control,
        })
    }

    /// Connects, fences any former self, and reads the position back.
    fn recover(&mut self) -> Result<(), End> {
        self.connect()?;
        self.control.set_state(State::Recovering);
        self.ensure_topics()?;
        if self.setup.cluster.mode == Mode::ExactlyOnce {
            while let Err(error) = self.producer.init_transactions(limits::CALL) {
                self.go_on()?;
                if remedy(&error) != Remedy::Again {
                    self.alarm(format!("Kafka refuses transactions: {error}; grant the transactional id, or set mode = \"idempotent\""));
                    return Err(self.finished(&error));
                }
                self.producer.poll(Duration::ZERO);
            }
        }
        let lookup = position::Lookup {
            cluster: &self.setup.cluster,
            bootstrap: &self.bootstrap,
            client_id: "risiti-position",
            key: &self.position_key,
        };
        let control = self.control;
        let found = position::read_back(lookup, || !control.stopping())
            .map_err(|error| {
                if matches!(error, BridgeError::Position { .. }) {
                    self.alarm(error.to_string());
                }
                End::anew(error)
            })?
            .ok_or(End::Stopped)?;
        self.begin_at(found);
        Ok(())
    }

    /// Chooses where to begin.
    fn begin_at(&mut self, found: Option<Position>) {
        let (oldest, end) = (self.setup.source.oldest(), self.setup.source.end());
        let cluster = &self.setup.name;
        self.next = match found {
            // Only damage shortens a journal. What it gets now is new.
            Some(at) if at > end => {
                self.alarm(format!("Kafka has this journal up to position {at}, but it ends at {end}: its tail was lost to damage after it was forwarded"));
                end
            }
            Some(at) if at < oldest => {
                self.alarm(format!("Kafka has this journal up to position {at}, but it begins at {oldest}: what lies between was deleted or damaged"));
                oldest
            }
            Some(at) => at,
            None => oldest,
        };
        self.saved = self.next;
        self.saved_at = Instant::now();
        tracing::info!(cluster, ?found, next = self.next, end, "forwarding");
        // What a former self committed without living to say so.
        self.setup.source.release(cluster, self.next);
        self.setup.metrics.set_last_error(None);
        self.publish_position();
    }

    /// Sends until asked to stop.
    fn drain(&mut self, life: &mut Life) -> Result<(), End> {
        let source = Arc::clone(&self.setup.source);
        loop {
            self.go_on()?;
            self.producer.poll(Duration::ZERO);
            if let Some((code, reason)) = self.producer.client().fatal_error() {
                return Err(End::Anew {
                    reason,
                    fenced: is_fenced(code),
                });
            }
            if self.context.is_down() {
                self.connect()?;
            }
            if !self
                .routes_seen
                .as_ref()
                .is_some_and(|seen| Arc::ptr_eq(seen, &self.setup.routes.newest()))
            {
                self.ensure_topics()?;
            }
            self.let_gather(source.end());
            let bytes_max = life.pace.bytes_max();
            let batch = match source.read(self.next, self.records_max, bytes_max) {
                Ok(batch) => batch,
                Err(error) => {
                    self.control.set_state(State::StoreFailing);
                    self.setup.metrics.set_last_error(Some(error.to_string()));
                    self.control.pause(limits::BACKOFF_MAX);
                    continue;
                }
            };
            if batch.next <= self.next {
                self.idle(life)?;
                continue;
            }
            ForwarderMetrics::add(&self.setup.metrics.damaged, batch.damaged);
            let (routes, until) = self.setup.routes.at(self.next);
            let keeps = self.setup.name == DEFAULT_CLUSTER;
            if keeps && until.is_some() {
                self.await_clusters()?;
            }
            let clusters = self.setup.routes.clusters();
            let plan = Plan::new(
                batch,
                &routes,
                until,
                &self.setup.name,
                keeps.then_some(&*clusters),
                &self.settled,
            );
            self.carry_out(&plan, life)?;
        }
    }

    /// Under steady traffic lets a few records come together: a transaction costs
    /// the brokers the same for one record as for a hundred. What comes after a
    /// pause, and a batch that is full, goes at once.
    fn let_gather(&self, end: Position) {
        let waiting = end.saturating_sub(self.next);
        let since = self.sent_at.elapsed();
        if waiting > 0 && waiting < self.records_max as u64 && since < limits::TRANSACTION_SPACING {
            self.control.pause(limits::TRANSACTION_SPACING - since);
        }
    }

    /// Before a former table is asked which cluster is no more: lets the others
    /// of this process start.
    fn await_clusters(&self) -> Result<(), End> {
        while self.begun.elapsed() < limits::CLUSTERS_START {
            self.go_on()?;
            self.control.pause(limits::BACKOFF_MIN);
        }
        Ok(())
    }

    fn carry_out(&mut self, plan: &Plan, life: &mut Life) -> Result<(), End> {
        if !plan.unroutable.is_empty() {
            let letters = plan.unroutable.iter().map(|none| {
                let route = none.route.as_deref().map(|compiled| &compiled.route);
                self.letter(
                    &none.record,
                    route.map_or("", |route| &route.name),
                    route.map_or("", |route| &route.topic),
                    none.text.clone(),
                )
            });
            let letters: Vec<_> = letters.collect();
            self.bury(&letters)?;
        }
        if plan.sends.is_empty() {
            ForwarderMetrics::add(&self.setup.metrics.skipped, plan.skipped);
            self.next = plan.next;
            // Dead letters are worth saving the position at once, others' records
            // only now and then.
            let settled = self.settled.first().is_some_and(|first| *first < self.next);
            if settled || self.next.saturating_sub(self.saved) >= limits::UNSAVED_POSITIONS_MAX {
                self.save_position(life)?;
            }
            return Ok(());
        }
        self.control.set_state(State::Sending);
        self.sent_at = Instant::now();
        if !self.aging.is_empty() {
            self.warn_of_aged(&plan.sends);
        }
        let sent = self.send(&plan.sends, plan.next);
        if matches!(sent, Err(End::Anew { .. }) | Ok(Sent::Again)) {
            life.pace.failed();
        }
        match sent? {
            Sent::Committed => {
                let bytes = plan
                    .sends
                    .iter()
                    .map(|send| send.record.record.payload.len());
                life.pace.committed(bytes.sum(), self.sent_at.elapsed());
                ForwarderMetrics::add(&self.setup.metrics.skipped, plan.skipped);
                self.next = plan.next;
                self.committed(life);
            }
            Sent::Again => {
                ForwarderMetrics::add(&self.setup.metrics.aborts, 1);
                self.control.pause(self.retry.pause());
            }
            Sent::Divide => {
                ForwarderMetrics::add(&self.setup.metrics.aborts, 1);
                self.records_max = (plan.sends.len() / 2).max(1);
            }
            Sent::Refused(refused) => {
                ForwarderMetrics::add(&self.setup.metrics.aborts, 1);
                let unknown = refused.iter().any(|(_, code)| {
                    super::core::refusal(*code) == Some(super::core::Scope::Topic)
                });
                // A topic deleted under way is made again rather than refused.
                if unknown && self.ensure_topics()? {
                    return Ok(());
                }
                let letters: Vec<_> = refused
                    .iter()
                    .map(|(index, code)| {
                        let send = &plan.sends[*index];
                        let route = &send.route.route;
                        let text = format!("Kafka refuses it: {code} ({code:?})");
                        self.letter(&send.record, &route.name, &route.topic, text)
                    })
                    .collect();
                self.bury(&letters)?;
            }
        }
        Ok(())
    }

    fn letter(&self, record: &Record, route: &str, topic: &str, text: String) -> DeadLetter {
        DeadLetter {
            refused_ms: unix_ms(),
            reason: Reason {
                cluster: self.setup.name.clone(),
                route: route.into(),
                topic: topic.into(),
                text,
            },
            journal_id: self.setup.source.journal_id().into(),
            record: record.clone(),
        }
    }

    /// Keeps dead letters; waits for as long as there is no room.
    fn bury(&mut self, letters: &[DeadLetter]) -> Result<(), End> {
        loop {
            let alarm = match self.setup.dead.keep(letters) {
                Ok(true) => break,
                Ok(false) => {
                    self.control.set_state(State::DeadLettersFull);
                    "the dead letters are full, forwarding waits; look at them with `risiti dead list`, then requeue or drop them".to_owned()
                }
                Err(error) => {
                    self.control.set_state(State::StoreFailing);
                    error.to_string()
                }
            };
            self.setup.metrics.set_last_error(Some(alarm.clone()));
            self.alarm(alarm);
            self.producer.poll(Duration::ZERO);
            self.control.pause(limits::BACKOFF_MAX);
            self.go_on()?;
        }
        ForwarderMetrics::add(&self.setup.metrics.dead, letters.len() as u64);
        for letter in letters {
            tracing::warn!(
                cluster = self.setup.name,
                id = letter.id(),
                reason = letter.reason.text,
                "dead letter kept"
            );
            self.settled.insert(letter.record.position);
            if let Some((terminal, sequence, _)) = payment(&letter.record.record) {
                let trace = &self.setup.trace;
                trace.note(letter.refused_ms, terminal, sequence, Step::Dead);
            }
        }
        Ok(())
    }

    /// Nothing to send: saves the position if it moved, then waits for records.
    fn idle(&mut self, life: &mut Life) -> Result<(), End> {
        if self.next != self.saved && self.saved_at.elapsed() >= limits::UNSAVED_POSITION_AGE {
            return self.save_position(life);
        }
        self.setup.routes.save_if_needed();
        self.control.set_state(State::CaughtUp);
        self.publish_position();
        self.setup.source.wait(self.next, limits::IDLE_WAIT);
        Ok(())
    }

    fn save_position(&mut self, life: &mut Life) -> Result<(), End> {
        match self.send(&[], self.next)? {
            Sent::Committed => self.committed(life),
            _ => self.control.pause(self.retry.pause()),
        }
        Ok(())
    }

    /// Everything below `next` is in Kafka, or kept.
    fn committed(&mut self, life: &mut Life) {
        life.backoff.reset();
        self.retry.reset();
        self.saved = self.next;
        self.saved_at = Instant::now();
        self.settled = self.settled.split_off(&self.next);
        self.records_max = (self.records_max * 2).min(records_max(self.setup));
        let metrics = &self.setup.metrics;
        ForwarderMetrics::add(&metrics.batches, 1);
        metrics.committed_ms.store(unix_ms(), Ordering::Relaxed);
        metrics.set_last_error(None);
        if !life.contested() {
            self.control.set_alarm(&self.setup.name, None);
        }
        self.setup.source.release(&self.setup.name, self.next);
        self.publish_position();
    }

    fn publish_position(&self) {
        let metrics = &self.setup.metrics;
        metrics.position.store(self.saved, Ordering::Relaxed);
        let lag = self.setup.source.end().saturating_sub(self.next);
        metrics.lag.store(lag, Ordering::Relaxed);
        self.control.shown.lock().next = self.next;
    }

    /// Waits until the cluster answers.
    fn connect(&mut self) -> Result<(), End> {
        let metrics = Arc::clone(&self.setup.metrics);
        metrics.connected.store(false, Ordering::Relaxed);
        self.control.set_state(State::Connecting);
        let mut distrusted = false;
        loop {
            self.go_on()?;
            self.producer.poll(Duration::ZERO);
            // A link mends by itself, credentials don't: a person has to know.
            if let Some(reason) = self.context.take_distrust() {
                distrusted = true;
                self.alarm(format!("the cluster and this gateway don't accept each other's credentials or certificates: {reason}; correct the security section of cluster {} or the user in Kafka; tried again until then", self.setup.name));
            }
            // Cleared before asking: a loss right after the answer must stand.
            self.context.set_up();
            match self.producer.client().fetch_metadata(None, limits::CALL) {
                Ok(_) => break,
                Err(error) => {
                    let reason = self.context.last_error();
                    metrics.set_last_error(Some(reason.unwrap_or_else(|| error.to_string())));
                    self.publish_position();
                    self.control.pause(limits::BACKOFF_MIN);
                }
            }
        }
        metrics.connected.store(true, Ordering::Relaxed);
        if distrusted {
            self.control.set_alarm(&self.setup.name, None);
        }
        Ok(())
    }

    /// Creates the topics that the newest routes name, if that is wanted.
    /// `true` if there were any to create.
    fn ensure_topics(&mut self) -> Result<bool, End> {
        let routes = self.setup.routes.newest();
        let mut wanted = self.setup.routes.topics(&self.setup.name);
        wanted.push(self.setup.cluster.positions_topic.clone());
        self.routes_seen = Some(routes);
        let created = self.create_missing(&wanted)?;
        wanted.pop();
        self.look_for_aging(&wanted);
        Ok(created)
    }

    /// Asks which topics would take a record that waited long for an old one.
    fn look_for_aging(&mut self, topics: &[String]) {
        if self.setup.embedded.is_some() || topics.is_empty() {
            return;
        }
        let found = topics::aging(
            &self.setup.cluster,
            &self.bootstrap,
            topics,
            limits::CALL * 4,
        );
        match found {
            Ok(found) => self.aging = found,
            // Not every gateway may read settings.
            Err(error) => tracing::debug!(%error, "topics not looked at"),
        }
        let notes: Vec<String> = self.aging.iter().map(ToString::to_string).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        self.control.set_note(&self.setup.name, note);
    }

    /// Says so, once a session, when a record goes to a topic that takes it for
    /// too old.
    fn warn_of_aged(&mut self, sends: &[Outgoing]) {
        let now_ms = unix_ms();
        let aged = sends.iter().find_map(|send| {
            let topic = &send.route.route.topic;
            let aging = self.aging.iter().find(|aging| aging.topic == *topic)?;
            let age_ms = now_ms.saturating_sub(send.record.record.received_ms);
            (age_ms > aging.age_ms).then(|| (send.record.position, aging.clone()))
        });
        if let Some((position, aging)) = aged {
            tracing::error!(
                cluster = self.setup.name,
                position,
                "the record at this position has waited too long: {aging}"
            );
            self.aging.retain(|known| known.topic != aging.topic);
        }
    }

    /// Creates those of the topics that are missing, if it may. `true` if there
    /// were any.
    fn create_missing(&mut self, wanted: &[String]) -> Result<bool, End> {
        if !self.setup.cluster.create_topics {
            return Ok(false);
        }
        let missing = |session: &Self| {
            topics::missing(session.producer.client(), wanted, limits::CALL * 4).map_err(End::anew)
        };
        let mut absent = missing(self)?;
        if absent.is_empty() {
            return Ok(false);
        }
        let created = topics::create(
            &self.setup.cluster,
            &self.bootstrap,
            self.setup.embedded.as_deref(),
            &absent,
            limits::TOPIC_PROPAGATION,
        );
        if let Err(error) = created {
            self.alarm(error.to_string());
            return Ok(false);
        }
        let until = Instant::now() + limits::TOPIC_PROPAGATION;
        while !absent.is_empty() && Instant::now() < until {
            self.go_on()?;
            self.control.pause(limits::BACKOFF_MIN);
            absent = missing(self)?;
        }
        Ok(true)
    }

    /// The position as Kafka has it: writing it again changes nothing.
    pub(super) fn position_now(&self) -> Position {
        self.saved
    }

    /// Refuses to begin anything new once a stop was asked for.
    fn go_on(&self) -> Result<(), End> {
        if self.control.stopping() {
            return Err(End::Stopped);
        }
        Ok(())
    }

    pub(super) fn alarm(&self, alarm: String) {
        self.control.set_alarm(&self.setup.name, Some(alarm));
    }

    /// The end that a final error of librdkafka means.
    pub(super) fn finished(&self, error: &rdkafka::error::KafkaError) -> End {
        let fatal = self.producer.client().fatal_error();
        let code = fatal
            .as_ref()
            .map(|(code, _)| *code)
            .or(error.rdkafka_error_code());
        End::Anew {
            reason: match &fatal {
                Some((_, reason)) => format!("{error}: {reason}"),
                None => error.to_string(),
            },
            fenced: code.is_some_and(is_fenced),
        }
    }
}

fn records_max(setup: &ForwarderSetup) -> usize {
    let configured = usize::try_from(setup.cluster.batch_records_max).unwrap_or(usize::MAX);
    configured.clamp(1, limits::BATCH_RECORDS_MAX)
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
