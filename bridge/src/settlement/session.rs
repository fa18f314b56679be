//! The thread: join the group, remember, settle, commit, and again.
//!
//! Promises: clients that are finished are replaced, with pauses, for as long as it
//! takes; a partition is settled only after its changelog was read to its end.
//! Never: a transaction that stands open while the group changes hands, since
//! partitions come and go only between two of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::Producer as _;

use super::clients::{self, Assignments, Consumer, Deliveries, Producer};
use super::core::{Core, Decision, Input, Settings, Verdict};
use super::error::SettlementError;
use super::messages::{Envelope, Message};
use super::metrics::SettlementMetrics;
use super::transaction::Sent;
use super::{Control, SettlementSetup, State, topics};
use crate::remedy::{Backoff, Remedy, is_fenced, remedy};
use crate::transactional::Overdue;
use crate::{embedded, limits};

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The handle asked for it.
    Stopped,
    /// A test ended it as a power cut would.
    Killed,
    /// The clients are finished; make others.
    Anew(String),
}

impl End {
    pub(super) fn anew(reason: impl ToString) -> Self {
        Self::Anew(reason.to_string())
    }
}

impl From<Overdue> for End {
    fn from(_: Overdue) -> Self {
        Self::Stopped
    }
}

/// A record that is decided, until its transaction is committed.
pub(super) struct Decided {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) verdict: Verdict,
    pub(super) messages: Vec<Message>,
}

/// The thread's whole life.
pub(super) fn run(setup: &SettlementSetup, control: &Control) {
    let mut backoff = Backoff::new();
    while !control.stopping() {
        control.set_state(State::Connecting);
        // A panic here would be a bug; payments must be settled all the same.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            one_session(setup, control, &mut backoff)
        }));
        let reason = match ended {
            Ok(End::Stopped) => break,
            Ok(End::Killed) => return,
            Ok(End::Anew(reason)) => reason,
            Err(_) => "a bug: settlement panicked; please report it".into(),
        };
        SettlementMetrics::add(&setup.metrics.restarts, 1);
        if setup.metrics.last_error().as_ref() != Some(&reason) {
            tracing::warn!(reason, "begins anew");
        }
        setup.metrics.set_last_error(Some(reason));
        control.pause(backoff.pause());
    }
    control.set_state(State::Stopped);
}

fn one_session(setup: &SettlementSetup, control: &Control, backoff: &mut Backoff) -> End {
    let mut session = match Session::open(setup, control) {
        Ok(session) => session,
        Err(end) => return end,
    };
    let end = session.serve(backoff).err().unwrap_or(End::Stopped);
    if matches!(end, End::Killed) {
        // As after a power cut: nothing is closed, aborted or left.
        std::mem::forget(session.producer);
        std::mem::forget(session.consumer);
    }
    end
}

/// One life of the two clients.
pub(super) struct Session<'a> {
    pub(super) setup: &'a SettlementSetup,
    pub(super) control: &'a Control,
    pub(super) consumer: Consumer,
    pub(super) producer: Producer,
    pub(super) deliveries: Arc<Deliveries>,
    /// Decided, but not committed.
    pub(super) pending: Vec<Decided>,
    assignments: Arc<Assignments>,
    pub(super) core: Core,
    envelope: Envelope,
    /// Whether the cluster takes offsets in a transaction and forgets them.
    pub(super) forgets_offsets: bool,
    /// For each partition, the next offset that the group had when it was taken.
    pub(super) begun_at: BTreeMap<i32, i64>,
    /// When the log last told of a record that was not settled.
    told_at: Option<Instant>,
    /// When the sizes were last counted, which takes a look at every terminal.
    sizes_at: Instant,
}

impl<'a> Session<'a> {
    fn open(setup: &'a SettlementSetup, control: &'a Control) -> Result<Self, End> {
        let settings = &setup.settings;
        let refused = |error: KafkaError| {
            let error = SettlementError::Configuration(error.to_string());
            End::anew(error)
        };
        let config = clients::producer(&setup.cluster, &setup.bootstrap, settings);
        let producer =
            Producer::from_config_and_context(&config, Deliveries::default()).map_err(refused)?;
        topics::ensure(
            producer.client(),
            &setup.cluster,
            &setup.bootstrap,
            settings,
        )
        .map_err(End::anew)?;
        // Ends what a former self left open, before anything is read.
        while let Err(error) = producer.init_transactions(limits::CALL) {
            if control.stopping() {
                return Err(End::Stopped);
            }
            if remedy(&error) != Remedy::Again {
                return Err(End::anew(format!(
                    "Kafka refuses transactions: {error}; grant the transactional id {}-{}",
                    settings.group, settings.instance
                )));
            }
            producer.poll(Duration::ZERO);
        }
        let cluster_id = producer.client().fetch_cluster_id(limits::CALL);
        let config = clients::consumer(&setup.cluster, &setup.bootstrap, settings);
        let consumer =
            Consumer::from_config_and_context(&config, Assignments::default()).map_err(refused)?;
        consumer
            .subscribe(&[&settings.records_topic])
            .map_err(|error| End::anew(SettlementError::kafka("subscribe")(error)))?;
        control.set_state(State::Joining);
        Ok(Self {
            setup,
            control,
            deliveries: Arc::clone(producer.client().context()),
            assignments: Arc::clone(consumer.context()),
            consumer,
            producer,
            pending: Vec::new(),
            core: Core::new(
                Settings {
                    window: settings.window as usize,
                    utc_offset_minutes: settings.utc_offset_minutes,
                    forgetful: setup.options.forgetful,
                },
                setup.policy.clone(),
            ),
            envelope: Envelope {
                records_topic: settings.records_topic.clone(),
                receipt_expiry_s: settings.receipt_expiry_s,
            },
            forgets_offsets: cluster_id.is_some_and(|id| embedded::is_embedded(&id)),
            begun_at: BTreeMap::new(),
            told_at: None,
            sizes_at: Instant::now(),
        })
    }

    fn serve(&mut self, backoff: &mut Backoff) -> Result<(), End> {
        let mut failures = 0;
        let mut pauses = Backoff::new();
        while !self.control.stopping() {
            self.gather()?;
            if self.sizes_at.elapsed() > limits::SETTLEMENT_TELL {
                self.publish_sizes();
            }
            if self.pending.is_empty() {
                continue;
            }
            match self.transaction()? {
                Sent::Committed => {
                    self.count();
                    failures = 0;
                    pauses.reset();
                    backoff.reset();
                }
                Sent::Again(reason) => {
                    failures += 1;
                    if failures > limits::SETTLEMENT_ATTEMPTS_MAX {
                        return Err(End::anew(reason));
                    }
                    SettlementMetrics::add(&self.setup.metrics.aborts, 1);
                    self.setup.metrics.set_last_error(Some(reason));
                    self.control.pause(pauses.pause());
                }
            }
        }
        Err(End::Stopped)
    }

    /// Takes what is there, and waits a little if that is nothing. What is decided
    /// is not taken back: a transaction that fails is sent again as it is.
    fn gather(&mut self) -> Result<(), End> {
        loop {
            let wait = if self.pending.is_empty() {
                limits::SETTLEMENT_IDLE_WAIT
            } else {
                Duration::ZERO
            };
            let record = match self.consumer.poll(wait) {
                None => None,
                Some(Ok(message)) => Some(Taken::from(&message)),
                Some(Err(error)) => {
                    self.poll_failed(&error)?;
                    None
                }
            };
            let changes = self.assignments.take();
            let changed = !changes.is_empty();
            for change in changes {
                self.change(change)?;
            }
            match record {
                Some(record) => self.decide(&record),
                None if changed => {}
                None => return Ok(()),
            }
            if self.pending.len() >= self.setup.settings.batch_records_max as usize {
                return Ok(());
            }
        }
    }

    fn decide(&mut self, record: &Taken) {
        let input = record.input();
        // None: it was fetched before its partition went to another instance.
        let Some(decision) = self.core.settle(&input) else {
            return;
        };
        if let Some(began) = self.begun_at.remove(&input.partition)
            && input.offset < began
        {
            tracing::error!(
                partition = input.partition,
                offset = input.offset,
                "a record comes that the group had passed: was its topic deleted and made anew? settled by what is remembered"
            );
        }
        if matches!(
            decision.verdict,
            Verdict::Conflict | Verdict::TooOld | Verdict::Foreign(_)
        ) {
            self.tell_not_settled(&input, &decision);
        }
        self.pending.push(Decided {
            partition: input.partition,
            offset: input.offset,
            messages: self.envelope.messages(&input, &decision),
            verdict: decision.verdict,
        });
    }

    /// One line a second at most: rubbish can come fast, and all of it stands in the
    /// rejected topic and is counted.
    fn tell_not_settled(&mut self, input: &Input<'_>, decision: &Decision) {
        if self
            .told_at
            .is_some_and(|at| at.elapsed() < limits::SETTLEMENT_TELL)
        {
            return;
        }
        self.told_at = Some(Instant::now());
        tracing::warn!(
            terminal = decision.terminal,
            sequence = decision.sequence,
            partition = input.partition,
            offset = input.offset,
            verdict = ?decision.verdict,
            "not settled, see {}",
            self.setup.settings.rejected_topic
        );
    }

    fn poll_failed(&self, error: &KafkaError) -> Result<(), End> {
        if let Some((code, reason)) = self.consumer.client().fatal_error() {
            return Err(End::anew(format!("{code}: {reason}{}", self.hint(code))));
        }
        let reason = self.assignments.take_error();
        self.setup
            .metrics
            .set_last_error(Some(reason.unwrap_or_else(|| error.to_string())));
        tracing::debug!(%error, "the consumer reports");
        Ok(())
    }

    /// What to do about another instance of the same name.
    fn hint(&self, code: rdkafka::error::RDKafkaErrorCode) -> String {
        use rdkafka::error::RDKafkaErrorCode as Code;
        if is_fenced(code) || code == Code::FencedInstanceId {
            format!(
                "; another instance named {} took over: give each a name of its own (settlement.instance)",
                self.setup.settings.instance
            )
        } else {
            String::new()
        }
    }

    /// The producer is finished.
    pub(super) fn finished(&self, error: &KafkaError) -> End {
        let fatal = self.producer.client().fatal_error();
        let code = fatal.map(|(code, _)| code).or(error.rdkafka_error_code());
        let hint = code.map(|code| self.hint(code)).unwrap_or_default();
        End::anew(format!("{error}{hint}"))
    }

    fn count(&mut self) {
        let metrics = &self.setup.metrics;
        for decided in self.pending.drain(..) {
            let counter = match decided.verdict {
                Verdict::Accepted(_) => &metrics.accepted,
                Verdict::Refused(_) => &metrics.refused,
                Verdict::Again => &metrics.repeated,
                Verdict::Conflict => &metrics.conflicts,
                Verdict::TooOld => &metrics.too_old,
                Verdict::Foreign(_) => &metrics.foreign,
            };
            SettlementMetrics::add(counter, 1);
        }
        SettlementMetrics::add(&metrics.transactions, 1);
        metrics.set_last_error(None);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        metrics.committed_ms.store(now_ms, Ordering::Relaxed);
        self.control.tell();
    }

    pub(super) fn publish_sizes(&mut self) {
        self.sizes_at = Instant::now();
        let (partitions, terminals, numbers) = self.core.sizes();
        let metrics = &self.setup.metrics;
        for (gauge, size) in [
            (&metrics.partitions, partitions),
            (&metrics.terminals, terminals),
            (&metrics.numbers, numbers),
        ] {
            gauge.store(size as u64, Ordering::Relaxed);
        }
    }
}

/// A message, copied: librdkafka's own buffers are given back at once.
struct Taken {
    partition: i32,
    offset: i64,
    time_ms: u64,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
}

impl Taken {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let time_ms = message.timestamp().to_millis().unwrap_or(0);
        Self {
            partition: message.partition(),
            offset: message.offset(),
            time_ms: u64::try_from(time_ms).unwrap_or(0),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }

    fn input(&self) -> Input<'_> {
        Input {
            partition: self.partition,
            offset: self.offset,
            time_ms: self.time_ms,
            key: self.key.as_deref(),
            value: &self.value,
        }
    }
}
