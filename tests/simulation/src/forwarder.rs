//! A forwarder over the simulated cluster: the product's own machine, one call a step.
//!
//! Promises: what is sent, when, in which transaction, and what follows an error is
//! decided by [`risiti_bridge::forwarder::machine`], the headers and the position are
//! written by the product's own code. Never: more than one call to Kafka in a step,
//! so that a kill can come between any two.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::message::Headers as _;
use risiti_bridge::Routes;
use risiti_bridge::forwarder::core::Outgoing;
use risiti_bridge::forwarder::machine::{
    Action, Event, Found, Letter, Looked, Machine, News, NotFound, Reading, Settings,
};
use risiti_bridge::headers::Provenance;
use risiti_bridge::position::{self, Scan};
use risiti_bridge::remedy::{Failure, Remedy};
use risiti_config::{Bootstrap, Cluster, Config, DEFAULT_CLUSTER, Mode};

use crate::kafka::{Kafka, Message, Producer, topics};
use crate::{Controls, Journalish, Ms};

/// Records of a batch at most: small, so that a few payments make several.
const BATCH_RECORDS_MAX: usize = 4;

/// Messages taken by one fetch.
const FETCH_MAX: usize = 64;

/// How long a reader that is not where it wants to be waits, as the product's does.
const READ_STEP_MS: Ms = 20;

/// What a plausible shell around the machine could do wrong: for negative controls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Takes the last stable offset for the end of the positions, so that another
    /// gateway's open transaction hides its own position.
    pub stable_end: bool,
    /// Begins under a new transactional id each time, so that nobody is fenced.
    pub no_fencing: bool,
}

/// A running forwarder. Dropping it is a kill at that point.
#[derive(Debug)]
pub struct ForwarderNode {
    machine: Machine,
    mode: Mode,
    transactional_id: String,
    transaction_timeout_ms: Ms,
    gateway_id: String,
    producer: Option<Producer>,
    topics_seen: bool,
    scan: Option<(i64, Scan)>,
    /// Who tells of itself in the headers, once the journal has named itself.
    provenance: Option<(Provenance, String)>,
    /// When the answer to the last call is there.
    answered: Ms,
    frozen_until: Ms,
    dead: Vec<Letter>,
    wrong: Wrong,
    alarm: Option<String>,
    renewals: u64,
    fenced: u64,
}

/// The routing table that a gateway with the usual configuration works by.
fn routes() -> Arc<Routes> {
    static ROUTES: OnceLock<Arc<Routes>> = OnceLock::new();
    let routes = || Arc::new(Routes::of(&Config::new(Bootstrap::Embedded)));
    Arc::clone(ROUTES.get_or_init(routes))
}

fn clusters() -> Arc<BTreeSet<String>> {
    static CLUSTERS: OnceLock<Arc<BTreeSet<String>>> = OnceLock::new();
    let clusters = || Arc::new(BTreeSet::from([DEFAULT_CLUSTER.to_owned()]));
    Arc::clone(CLUSTERS.get_or_init(clusters))
}

impl ForwarderNode {
    /// One that has not spoken to anybody yet.
    #[must_use]
    pub fn start(gateway_id: &str, cluster: &str, now: Ms, controls: Controls) -> Self {
        Self::start_in(Mode::ExactlyOnce, gateway_id, cluster, now, controls)
    }

    /// The same in a mode.
    #[must_use]
    pub fn start_in(
        mode: Mode,
        gateway_id: &str,
        cluster: &str,
        now: Ms,
        controls: Controls,
    ) -> Self {
        let configured = Cluster {
            mode,
            ..Cluster::new(Bootstrap::Embedded)
        };
        let mut settings = Settings::new(&configured, cluster, gateway_id);
        settings.batch_records_max = BATCH_RECORDS_MAX;
        settings.position_outside_transaction = controls.position_outside;
        Self {
            machine: Machine::new(settings),
            mode,
            transactional_id: format!("risiti-{gateway_id}-{cluster}"),
            transaction_timeout_ms: configured.transaction_timeout_ms.into(),
            gateway_id: gateway_id.into(),
            producer: None,
            topics_seen: false,
            scan: None,
            provenance: None,
            answered: now,
            frozen_until: 0,
            dead: Vec::new(),
            wrong: Wrong::default(),
            alarm: None,
            renewals: 0,
            fenced: 0,
        }
    }

    /// Under which name it writes: for [`Kafka::fence`].
    #[must_use]
    pub fn transactional_id(&self) -> &str {
        &self.transactional_id
    }

    /// The same with something wrong.
    #[must_use]
    pub fn doing(mut self, wrong: Wrong) -> Self {
        self.wrong = wrong;
        self
    }

    /// What it kept as dead letters since the last call: durable, whatever becomes of
    /// it.
    pub fn take_dead(&mut self) -> Vec<Letter> {
        std::mem::take(&mut self.dead)
    }

    /// What a person has to look at.
    #[must_use]
    pub fn alarm(&self) -> Option<&str> {
        self.alarm.as_deref()
    }

    /// Producers given up, and how many of them because another one had taken over.
    #[must_use]
    pub fn renewals(&self) -> (u64, u64) {
        (self.renewals, self.fenced)
    }

    /// It does nothing until then, as a process that was stopped (SIGSTOP).
    pub fn freeze_until(&mut self, until: Ms) {
        self.frozen_until = self.frozen_until.max(until);
    }

    /// Does what is next, one call to Kafka at most. Gives when it wants to be
    /// stepped again; none: when its journal or the cluster has changed.
    pub fn step(&mut self, now: Ms, kafka: &mut Kafka, source: &mut dyn Journalish) -> Option<Ms> {
        let waits = self.answered.max(self.frozen_until);
        if now < waits {
            return Some(waits);
        }
        loop {
            let action = self.machine.poll(Duration::from_millis(now));
            self.hear();
            let (event, called) = match action {
                Action::Pause(pause) => return Some(now + whole_ms(pause)),
                Action::Idle { after, at_most } => {
                    let due = at_most.is_some_and(|at_most| at_most.is_zero());
                    if source.end() <= after && !due {
                        return at_most.map(|at_most| now + whole_ms(at_most));
                    }
                    (Some(Event::Passed), false)
                }
                Action::Ended => return None,
                Action::Release { upto } => {
                    source.release(DEFAULT_CLUSTER, upto);
                    self.answered = now + 1;
                    (Some(Event::Passed), false)
                }
                Action::ReadPosition { from, to } => {
                    self.read_position(from, to, now, kafka, source)
                }
                action => {
                    let (event, called) = self.act(action, now, kafka, source);
                    (Some(event), called)
                }
            };
            if called {
                self.answered = now + kafka.takes_ms();
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
        let (id, timeout_ms) = (&self.transactional_id, self.transaction_timeout_ms);
        let id = (self.mode == Mode::ExactlyOnce).then_some(id.as_str());
        self.producer
            .get_or_insert_with(|| Producer::new(id, timeout_ms))
    }

    /// Does an action; whether Kafka was asked.
    fn act(
        &mut self,
        action: Action,
        now: Ms,
        kafka: &mut Kafka,
        source: &mut dyn Journalish,
    ) -> (Event, bool) {
        match action {
            Action::Open => {
                self.producer = None;
                if self.wrong.no_fencing {
                    self.transactional_id = format!("{}-{now}", self.transactional_id);
                }
                self.topics_seen = false;
                self.scan = None;
                let journal_id = source.journal_id();
                let key = position::key(&self.gateway_id, DEFAULT_CLUSTER, journal_id);
                self.provenance = Some((Provenance::new(&self.gateway_id, journal_id), key));
                (Event::Opened(Ok(())), false)
            }
            Action::Connect => {
                kafka.step(now);
                let answer = kafka.reachable().map_err(|_| "nobody answers".into());
                let connected = Event::Connected {
                    answer,
                    distrust: None,
                };
                (connected, true)
            }
            Action::Topics => {
                self.topics_seen = true;
                (Event::Topics(Ok(false)), false)
            }
            Action::Init => (Event::Done(self.producer().init(now, kafka)), true),
            Action::AskEnds => {
                let stable_end = self.wrong.stable_end;
                let asked = kafka.end(now, topics::POSITIONS, position::PARTITION, stable_end);
                let ends = asked.map(|end| (0, end));
                self.scan = None;
                (Event::Ends(ends.map_err(|code| format!("{code:?}"))), true)
            }
            Action::Look => {
                let topics_seen = self.topics_seen;
                let producer = self.producer();
                let looked = Looked {
                    fatal: producer.fatal().cloned(),
                    down: producer.take_down(),
                    routes_changed: !topics_seen,
                    end: source.end(),
                };
                (Event::Looked(looked), false)
            }
            Action::Read {
                from,
                records_max,
                bytes_max,
            } => {
                let read = source.read(from, records_max, bytes_max);
                let reading = read.map(|batch| Reading {
                    batch,
                    routes: routes(),
                    until: None,
                    clusters: clusters(),
                });
                (
                    Event::Read(reading.map_err(|error| error.to_string())),
                    false,
                )
            }
            Action::Bury => {
                self.dead.extend_from_slice(self.machine.letters());
                (Event::Buried(Ok(true)), false)
            }
            Action::Begin => (Event::Done(self.producer().begin()), false),
            Action::HandOver { records, position } => {
                self.hand_over(records, position, now, kafka);
                (Event::HandedOver(Ok(true)), false)
            }
            Action::Await => {
                let producer = self.producer();
                let called = producer.progress().0 > 0 && producer.work(now, kafka);
                let progress = match producer.fatal() {
                    Some(fatal) => Err(fatal.clone()),
                    None => Ok(producer.progress()),
                };
                if !called && progress.as_ref().is_ok_and(|(pending, _)| *pending > 0) {
                    self.answered = now + READ_STEP_MS;
                }
                (Event::Progress(progress), called)
            }
            Action::Collect => {
                let sent = self.producer().sent().iter();
                let deliveries = sent.map(|sent| sent.delivery).collect();
                (Event::Deliveries(deliveries), false)
            }
            Action::Commit => (Event::Done(self.producer().commit(now, kafka)), true),
            Action::Abort => (Event::Done(self.producer().abort(now, kafka)), true),
            Action::Release { .. }
            | Action::ReadPosition { .. }
            | Action::Idle { .. }
            | Action::Pause(_)
            | Action::Ended => {
                let text = "not an action of Kafka's";
                (
                    Event::Done(Err(Failure::new(Remedy::Anew, None, text))),
                    false,
                )
            }
        }
    }

    /// One fetch of the positions; waits where a reader of committed records would.
    fn read_position(
        &mut self,
        from: i64,
        to: i64,
        now: Ms,
        kafka: &mut Kafka,
        source: &mut dyn Journalish,
    ) -> (Option<Event>, bool) {
        let key = self.provenance.as_ref().map_or("", |(_, key)| key);
        let (at, scan) = self.scan.get_or_insert_with(|| (from, Scan::new(key)));
        if *at >= to {
            let found = Found {
                at: scan.found(),
                oldest: source.oldest(),
                end: source.end(),
            };
            return (Some(Event::Position(Ok(found))), false);
        }
        let fetched = kafka.fetch(now, topics::POSITIONS, position::PARTITION, *at, FETCH_MAX);
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(code) => {
                let not = NotFound {
                    text: format!("{code:?}"),
                    is_foreign: false,
                };
                return (Some(Event::Position(Err(not))), true);
            }
        };
        for record in &fetched.records {
            if let Err(error) = scan.take(record.key.as_deref(), record.value.as_deref()) {
                let not = NotFound {
                    text: error.to_string(),
                    is_foreign: true,
                };
                return (Some(Event::Position(Err(not))), true);
            }
        }
        if fetched.next <= *at {
            self.answered = now + READ_STEP_MS;
        }
        *at = fetched.next;
        (None, true)
    }

    fn hand_over(&mut self, records: bool, next: Option<u64>, now: Ms, kafka: &Kafka) {
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => return,
        };
        if let Some((provenance, key)) = &self.provenance {
            let sends = if records { self.machine.sends() } else { &[] };
            producer.expect(sends.len() + usize::from(next.is_some()));
            for (place, send) in sends.iter().enumerate() {
                let topic: Rc<str> = send.route.route.topic.as_str().into();
                let message = message(send, provenance);
                producer.send(now, kafka, place, (&topic, None), message);
            }
            if let Some(next) = next {
                let message = Message {
                    key: Some(Bytes::copy_from_slice(key.as_bytes())),
                    value: Some(Bytes::from(position::encode(next))),
                    headers: Vec::new(),
                };
                let topic: Rc<str> = topics::POSITIONS.into();
                let place = (&topic, Some(position::PARTITION));
                producer.send(now, kafka, sends.len(), place, message);
            }
        }
        self.producer = Some(producer);
    }

    fn hear(&mut self) {
        for news in self.machine.take_news() {
            match news {
                News::Alarm(alarm) => self.alarm = alarm,
                News::Anew { fenced, .. } => {
                    self.renewals += 1;
                    self.fenced += u64::from(fenced);
                }
                _ => {}
            }
        }
    }
}

fn message(send: &Outgoing, provenance: &Provenance) -> Message {
    let headers = provenance.headers(&send.record, &send.route);
    let header = |header: rdkafka::message::Header<'_, &[u8]>| {
        let value = header.value.unwrap_or_default();
        (header.key.to_owned(), Bytes::copy_from_slice(value))
    };
    Message {
        key: Some(Bytes::copy_from_slice(&send.key)),
        value: Some(send.record.record.payload.clone()),
        headers: headers.iter().map(header).collect(),
    }
}

/// Milliseconds, never too few.
fn whole_ms(duration: Duration) -> Ms {
    let micros = duration.as_micros().div_ceil(1_000);
    Ms::try_from(micros).unwrap_or(Ms::MAX).max(1)
}
