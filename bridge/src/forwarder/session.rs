//! The forwarder's thread: does what the machine asks for, and tells it what became
//! of it.
//!
//! Promises: every action is answered; what people, counters and the trace are to
//! hear is told at once. Never: a decision about records or errors; those are the
//! machine's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::producer::Producer as _;
use risiti_store::Position;

use super::machine::{Action, Event, Found, Looked, Machine, News, NotFound, Reading, Settings};
use super::producer::{Context, Producer};
use super::{Control, ForwarderSetup, State};
use crate::dead_letters::{DeadLetter, Reason};
use crate::error::BridgeError;
use crate::headers::Provenance;
use crate::metrics::ForwarderMetrics;
use crate::remedy::Failure;
use crate::route::Routes;
use crate::topics::Aging;
use crate::trace::{Step, payment};
use crate::transactional::Overdue;
use crate::{client, limits, position, topics};

/// Why the thread ends.
#[derive(Debug)]
pub(super) enum End {
    /// The handle asked for it.
    Stopped,
    /// A test ended it as a power cut would.
    Killed,
}

impl From<Overdue> for End {
    fn from(_: Overdue) -> Self {
        Self::Stopped
    }
}

/// The thread's whole life.
pub(super) fn run(setup: &ForwarderSetup, control: &Control) {
    let mut settings = Settings::new(&setup.cluster, &setup.name, &setup.gateway_id);
    settings.position_outside_transaction = setup.options.position_outside_transaction;
    let mut machine = Machine::new(settings);
    let mut shell = Shell {
        setup,
        control,
        began: Instant::now(),
        link: None,
    };
    loop {
        // A panic here would be a bug; records must flow on all the same.
        let ended = catch_unwind(AssertUnwindSafe(|| shell.serve(&mut machine)));
        match ended {
            Ok(End::Stopped) => break,
            Ok(End::Killed) => {
                // As after a power cut: nothing is closed, aborted or flushed.
                std::mem::forget(shell.link.take());
                return;
            }
            Err(_) => machine.panicked(shell.now()),
        }
    }
    shell.link = None;
    setup.metrics.connected.store(false, Ordering::Relaxed);
    control.set_state(State::Stopped);
}

/// What the machine's actions are done with.
pub(super) struct Shell<'a> {
    pub(super) setup: &'a ForwarderSetup,
    pub(super) control: &'a Control,
    began: Instant,
    link: Option<Link>,
}

/// One producer.
pub(super) struct Link {
    pub(super) producer: Producer,
    pub(super) context: Arc<Context>,
    pub(super) provenance: Provenance,
    pub(super) position_key: String,
    pub(super) bootstrap: String,
    /// Since when reports of the batch under way are waited for.
    pub(super) awaited: Option<Instant>,
    /// Whether it is the position alone.
    pub(super) position_only: bool,
    pub(super) routes_seen: Option<Arc<Routes>>,
    /// Topics about whose records' age nothing was said yet.
    pub(super) aging: Vec<Aging>,
}

impl Link {
    /// The error that finished the producer, if it is.
    pub(super) fn fatal(&self) -> Option<Failure> {
        let (code, reason) = self.producer.client().fatal_error()?;
        let remedy = crate::remedy::Remedy::Anew;
        Some(Failure::new(remedy, Some(code), &reason))
    }

    pub(super) fn failure(&self, error: &rdkafka::error::KafkaError) -> Failure {
        Failure::of(error, self.producer.client().fatal_error())
    }
}

impl Shell<'_> {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn serve(&mut self, machine: &mut Machine) -> End {
        loop {
            if self.control.stopping() {
                machine.stop();
            }
            if let Some(link) = &self.link {
                link.producer.poll(Duration::ZERO);
            }
            let action = machine.poll(self.now());
            self.tell(machine);
            if action == Action::Ended {
                return End::Stopped;
            }
            match self.act(action, machine) {
                Ok(event) => machine.done(event, self.now()),
                Err(end) => return end,
            }
            self.tell(machine);
        }
    }

    fn act(&mut self, action: Action, machine: &Machine) -> Result<Event, End> {
        Ok(match action {
            Action::Open => {
                // The one before goes first: two of one name would fence each other.
                self.link = None;
                Event::Opened(self.open().map(|link| self.link = Some(link)))
            }
            Action::Connect => self.connect(),
            Action::Topics => Event::Topics(self.ensure_topics()?),
            Action::Init => Event::Done(match &self.link {
                Some(link) => {
                    let answer = link.producer.init_transactions(limits::CALL);
                    answer.map_err(|error| link.failure(&error))
                }
                None => Err(no_link()),
            }),
            Action::AskEnds => Event::Ends(match self.lookup() {
                Some(lookup) => position::ends(lookup).map_err(|error| error.to_string()),
                None => Err(no_link().text),
            }),
            Action::ReadPosition { from, to } => Event::Position(self.read_position(from, to)?),
            Action::Look => Event::Looked(self.look()),
            Action::Read {
                from,
                records_max,
                bytes_max,
            } => Event::Read(self.read(from, records_max, bytes_max)),
            Action::Bury => Event::Buried(self.bury(machine)),
            Action::Release { upto } => {
                self.setup.source.release(&self.setup.name, upto);
                Event::Passed
            }
            Action::Idle { after, .. } => {
                self.setup.routes.save_if_needed();
                self.setup.source.wait(after, limits::IDLE_WAIT);
                Event::Passed
            }
            Action::Pause(duration) => {
                self.control.pause(duration);
                Event::Passed
            }
            Action::Ended => return Err(End::Stopped),
            Action::Begin
            | Action::HandOver { .. }
            | Action::Await
            | Action::Collect
            | Action::Commit
            | Action::Abort => {
                let Some(link) = &mut self.link else {
                    return Ok(Event::Done(Err(no_link())));
                };
                link.transact(&action, machine, self.setup, self.control)?
            }
        })
    }

    fn open(&self) -> Result<Link, String> {
        let (setup, control) = (self.setup, self.control);
        let bootstrap = client::bootstrap(&setup.cluster, setup.embedded.as_deref())
            .inspect_err(|reason| control.set_alarm(&setup.name, Some((*reason).into())))?;
        let id = format!("risiti-{}-{}", setup.gateway_id, setup.name);
        let config = client::producer(&setup.cluster, &bootstrap, &id);
        let producer =
            Producer::from_config_and_context(&config, Context::default()).map_err(|error| {
                let error = BridgeError::Configuration {
                    cluster: setup.name.clone(),
                    reason: error.to_string(),
                };
                control.set_alarm(&setup.name, Some(error.to_string()));
                error.to_string()
            })?;
        let journal_id = setup.source.journal_id();
        Ok(Link {
            context: Arc::clone(producer.client().context()),
            producer,
            provenance: Provenance::new(&setup.gateway_id, journal_id),
            position_key: position::key(&setup.gateway_id, &setup.name, journal_id),
            bootstrap,
            awaited: None,
            position_only: false,
            routes_seen: None,
            aging: Vec::new(),
        })
    }

    /// Asks whether the cluster answers.
    fn connect(&self) -> Event {
        let connected = &self.setup.metrics.connected;
        connected.store(false, Ordering::Relaxed);
        let Some(link) = &self.link else {
            return Event::Connected {
                answer: Err(no_link().text),
                distrust: None,
            };
        };
        let distrust = link.context.take_distrust();
        // Cleared before asking: a loss right after the answer must stand.
        link.context.set_up();
        let asked = link.producer.client().fetch_metadata(None, limits::CALL);
        let answer = match asked {
            Ok(_) => Ok(()),
            Err(error) => Err(link
                .context
                .last_error()
                .unwrap_or_else(|| error.to_string())),
        };
        connected.store(answer.is_ok(), Ordering::Relaxed);
        Event::Connected { answer, distrust }
    }

    fn lookup(&self) -> Option<position::Lookup<'_>> {
        let link = self.link.as_ref()?;
        Some(position::Lookup {
            cluster: &self.setup.cluster,
            bootstrap: &link.bootstrap,
            client_id: "risiti-position",
            key: &link.position_key,
        })
    }

    fn read_position(&self, from: i64, to: i64) -> Result<Result<Found, NotFound>, End> {
        let not = |text: String, is_foreign| NotFound { text, is_foreign };
        let Some(lookup) = self.lookup() else {
            return Ok(Err(not(no_link().text, false)));
        };
        match position::read_back(lookup, (from, to), || !self.control.stopping()) {
            Ok(Some(at)) => Ok(Ok(Found {
                at,
                oldest: self.setup.source.oldest(),
                end: self.setup.source.end(),
            })),
            Ok(None) => Err(End::Stopped),
            Err(error) => {
                let is_foreign = matches!(error, BridgeError::Position { .. });
                Ok(Err(not(error.to_string(), is_foreign)))
            }
        }
    }

    fn look(&self) -> Looked {
        let end = self.setup.source.end();
        let Some(link) = &self.link else {
            return Looked {
                fatal: Some(no_link()),
                down: false,
                routes_changed: false,
                end,
            };
        };
        let newest = self.setup.routes.newest();
        let mut seen = link.routes_seen.iter();
        Looked {
            fatal: link.fatal(),
            down: link.context.is_down(),
            routes_changed: !seen.any(|seen| Arc::ptr_eq(seen, &newest)),
            end,
        }
    }

    fn read(
        &self,
        from: Position,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Reading, String> {
        let source = &self.setup.source;
        let batch = source.read(from, records_max, bytes_max);
        let batch = batch.map_err(|error| error.to_string())?;
        let (routes, until) = self.setup.routes.at(from);
        Ok(Reading {
            batch,
            routes,
            until,
            clusters: self.setup.routes.clusters(),
        })
    }

    fn bury(&self, machine: &Machine) -> Result<bool, String> {
        let refused_ms = unix_ms();
        let letters: Vec<DeadLetter> = machine
            .letters()
            .iter()
            .map(|letter| DeadLetter {
                refused_ms,
                reason: Reason {
                    cluster: self.setup.name.clone(),
                    route: letter.route.clone(),
                    topic: letter.topic.clone(),
                    text: letter.text.clone(),
                },
                journal_id: self.setup.source.journal_id().into(),
                record: letter.record.clone(),
            })
            .collect();
        let kept = self.setup.dead.keep(&letters);
        let kept = kept.map_err(|error| error.to_string())?;
        for letter in letters.iter().filter(|_| kept) {
            tracing::warn!(
                cluster = self.setup.name,
                id = letter.id(),
                reason = letter.reason.text,
                "dead letter kept"
            );
            if let Some((terminal, sequence, _)) = payment(&letter.record.record) {
                let trace = &self.setup.trace;
                trace.note(letter.refused_ms, terminal, sequence, Step::Dead);
            }
        }
        Ok(kept)
    }

    /// Tells what the machine has to say.
    fn tell(&mut self, machine: &mut Machine) {
        let metrics = &self.setup.metrics;
        for news in machine.take_news() {
            match news {
                News::State(state) => self.control.set_state(state),
                News::Alarm(alarm) => self.control.set_alarm(&self.setup.name, alarm),
                News::Error(error) => metrics.set_last_error(error),
                News::Position => self.publish_position(machine),
                News::Found(found) => tracing::info!(
                    cluster = self.setup.name,
                    ?found,
                    next = machine.next(),
                    end = self.setup.source.end(),
                    "forwarding"
                ),
                News::Sending => {
                    if let Some(link) = &mut self.link {
                        link.warn_of_aged(machine.sends(), &self.setup.name);
                    }
                }
                News::Forwarded => {
                    if let Some(link) = &self.link {
                        link.count(machine.sends(), self.setup);
                    }
                }
                News::ForwardedSome(count) => ForwarderMetrics::add(&metrics.forwarded, count),
                News::Committed => {
                    ForwarderMetrics::add(&metrics.batches, 1);
                    metrics.committed_ms.store(unix_ms(), Ordering::Relaxed);
                }
                News::Aborted => ForwarderMetrics::add(&metrics.aborts, 1),
                News::Skipped(count) => ForwarderMetrics::add(&metrics.skipped, count),
                News::Damaged(count) => ForwarderMetrics::add(&metrics.damaged, count),
                News::Buried => {
                    ForwarderMetrics::add(&metrics.dead, machine.letters().len() as u64);
                }
                News::Anew { reason, fenced } => {
                    ForwarderMetrics::add(&metrics.producers, 1);
                    ForwarderMetrics::add(&metrics.fenced, u64::from(fenced));
                    tracing::warn!(
                        cluster = self.setup.name,
                        reason,
                        "producer given up, making a new one"
                    );
                }
            }
        }
    }

    fn publish_position(&self, machine: &Machine) {
        let metrics = &self.setup.metrics;
        metrics.position.store(machine.saved(), Ordering::Relaxed);
        let lag = self.setup.source.end().saturating_sub(machine.next());
        metrics.lag.store(lag, Ordering::Relaxed);
        self.control.shown.lock().next = machine.next();
    }

    /// Creates the topics that the newest routes name, if that is wanted.
    /// `true` if there were any to create.
    fn ensure_topics(&mut self) -> Result<Result<bool, String>, End> {
        let (setup, control) = (self.setup, self.control);
        let Some(link) = &mut self.link else {
            return Ok(Err(no_link().text));
        };
        let routes = setup.routes.newest();
        let mut wanted = setup.routes.topics(&setup.name);
        wanted.push(setup.cluster.positions_topic.clone());
        link.routes_seen = Some(routes);
        let created = match link.create_missing(&wanted, setup, control)? {
            Ok(created) => created,
            Err(reason) => return Ok(Err(reason)),
        };
        wanted.pop();
        link.look_for_aging(&wanted, setup, control);
        Ok(Ok(created))
    }
}

impl Link {
    /// Asks which topics would take a record that waited long for an old one.
    fn look_for_aging(&mut self, wanted: &[String], setup: &ForwarderSetup, control: &Control) {
        if setup.embedded.is_some() || wanted.is_empty() {
            return;
        }
        let (cluster, bootstrap) = (&setup.cluster, &self.bootstrap);
        match topics::aging(cluster, bootstrap, wanted, limits::CALL * 4) {
            Ok(found) => self.aging = found,
            // Not every gateway may read settings.
            Err(error) => tracing::debug!(%error, "topics not looked at"),
        }
        let notes: Vec<String> = self.aging.iter().map(ToString::to_string).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        control.set_note(&setup.name, note);
    }

    /// Creates those of the topics that are missing, if it may. `true` if there
    /// were any.
    fn create_missing(
        &self,
        wanted: &[String],
        setup: &ForwarderSetup,
        control: &Control,
    ) -> Result<Result<bool, String>, End> {
        if !setup.cluster.create_topics {
            return Ok(Ok(false));
        }
        let missing = || {
            let client = self.producer.client();
            topics::missing(client, wanted, limits::CALL * 4).map_err(|error| error.to_string())
        };
        let mut absent = match missing() {
            Ok(absent) => absent,
            Err(reason) => return Ok(Err(reason)),
        };
        if absent.is_empty() {
            return Ok(Ok(false));
        }
        let created = topics::create(
            &setup.cluster,
            &self.bootstrap,
            setup.embedded.as_deref(),
            &absent,
            limits::TOPIC_PROPAGATION,
        );
        if let Err(error) = created {
            control.set_alarm(&setup.name, Some(error.to_string()));
            return Ok(Ok(false));
        }
        let until = Instant::now() + limits::TOPIC_PROPAGATION;
        while !absent.is_empty() && Instant::now() < until {
            if control.stopping() {
                return Err(End::Stopped);
            }
            control.pause(limits::BACKOFF_MIN);
            absent = match missing() {
                Ok(absent) => absent,
                Err(reason) => return Ok(Err(reason)),
            };
        }
        Ok(Ok(true))
    }
}

/// An invariant of the machine broken: it acts only after it has opened.
fn no_link() -> Failure {
    let text = "a bug: no producer; please report it";
    Failure::new(crate::remedy::Remedy::Anew, None, text)
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
