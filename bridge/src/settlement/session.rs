//! The thread: does what the machine asks for, and tells it what became of it.
//!
//! Promises: every action is answered; what people and counters are to hear is told
//! at once. Never: a decision about records, partitions or errors; those are the
//! machine's.

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
use super::core::Verdict;
use super::error::SettlementError;
use super::machine::{Action, Event, Machine, MachineSettings, News, Polled, Taken};
use super::metrics::SettlementMetrics;
use super::{Control, SettlementSetup, State, rebuild, topics};
use crate::remedy::{Failure, Remedy};
use crate::silence::Silence;
use crate::transactional::Overdue;
use crate::{embedded, limits};

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
pub(super) fn run(setup: &SettlementSetup, control: &Control) {
    let mut settings = MachineSettings::new(&setup.settings, setup.policy.clone());
    settings.core.sealing = setup.sealing.clone();
    settings.core.forgetful = setup.options.forgetful;
    settings.offsets_outside_transaction = setup.options.offsets_outside_transaction;
    let mut machine = Machine::new(settings);
    let mut shell = Shell {
        setup,
        control,
        began: Instant::now(),
        producer: None,
        consumer: None,
        told_at: None,
        sizes_at: Instant::now(),
    };
    loop {
        // A panic here would be a bug; payments must be settled all the same.
        let ended = catch_unwind(AssertUnwindSafe(|| shell.serve(&mut machine)));
        match ended {
            Ok(End::Stopped) => break,
            Ok(End::Killed) => {
                // As after a power cut: nothing is closed, aborted or left.
                std::mem::forget(shell.producer.take());
                std::mem::forget(shell.consumer.take());
                return;
            }
            Err(_) => machine.panicked(shell.now()),
        }
    }
    // The producer goes first: a transaction under way ends before the group hears.
    shell.producer = None;
    shell.consumer = None;
    control.set_state(State::Stopped);
}

/// What the machine's actions are done with.
pub(super) struct Shell<'a> {
    pub(super) setup: &'a SettlementSetup,
    pub(super) control: &'a Control,
    began: Instant,
    producer: Option<Sender>,
    consumer: Option<Receiver>,
    /// When the log last told of a record that was not settled.
    told_at: Option<Instant>,
    /// When the sizes were last counted, which takes a look at every terminal.
    sizes_at: Instant,
}

/// The producer, and since when reports are waited for.
pub(super) struct Sender {
    pub(super) producer: Producer,
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) awaited: Option<Instant>,
}

/// The consumer.
pub(super) struct Receiver {
    pub(super) consumer: Consumer,
    assignments: Arc<Assignments>,
    /// When the cluster last gave it anything.
    heard_at: Instant,
    /// When it was last asked whether it is there.
    asked_at: Instant,
    /// Whether it hears what there is.
    silence: Silence<i32>,
}

impl Receiver {
    /// Asks whether there is anything to come from partitions that were long silent.
    fn look_for_silence(&mut self, topic: &str, now: Instant) {
        let Ok(assignment) = self.consumer.assignment() else {
            return;
        };
        let partitions: Vec<i32> = assignment
            .elements()
            .iter()
            .map(|e| e.partition())
            .collect();
        self.silence.reads(&partitions, now);
        self.silence.look(now, |partition| {
            let asked = self
                .consumer
                .fetch_watermarks(topic, *partition, limits::CALL * 4);
            asked.ok().map(|(_, high)| high)
        });
    }

    /// Asks a cluster that has long been silent whether it is there. True once it has
    /// left this consumer without an answer for too long: a broker that hung can be
    /// lost to librdkafka for good, without an error (see [`limits::UNANSWERED`]).
    fn is_cut_off(&mut self, topic: &str) -> bool {
        let now = Instant::now();
        self.look_for_silence(topic, now);
        if self.silence.deaf_to(now).is_some() {
            return true;
        }
        if now - self.heard_at < limits::SILENCE || now - self.asked_at < limits::BACKOFF_MAX {
            return false;
        }
        self.asked_at = now;
        let client = self.consumer.client();
        if client.fetch_metadata(Some(topic), limits::CALL).is_ok() {
            self.heard_at = Instant::now();
        }
        self.heard_at.elapsed() > limits::SILENCE + limits::UNANSWERED
    }
}

impl Sender {
    pub(super) fn failure(&self, error: &KafkaError) -> Failure {
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
            if self.sizes_at.elapsed() > limits::SETTLEMENT_TELL {
                self.publish_sizes(machine);
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
                self.producer = None;
                self.consumer = None;
                Event::Opened(self.open())
            }
            Action::Init => Event::Done(match &self.producer {
                Some(sender) => {
                    let answer = sender.producer.init_transactions(limits::CALL);
                    sender.producer.poll(Duration::ZERO);
                    answer.map_err(|error| sender.failure(&error))
                }
                None => Err(no_client()),
            }),
            Action::Join => Event::Joined(self.join()),
            Action::Poll { wait } => Event::Polled(self.poll(wait)),
            Action::AskOffsets(partitions) => Event::Offsets(self.ask_offsets(&partitions)),
            Action::AskEnds(partitions) => Event::Ends(
                rebuild::ends(self.lookup(&partitions)).map_err(|error| error.to_string()),
            ),
            Action::Read(partitions, ends) => {
                let go_on = || !self.control.stopping();
                match rebuild::read(self.lookup(&partitions), &ends, go_on) {
                    Ok(Some(memories)) => Event::Memories(Ok(memories)),
                    Ok(None) => return Err(End::Stopped),
                    Err(error) => Event::Memories(Err(error.to_string())),
                }
            }
            Action::Pause(duration) => {
                self.control.pause(duration);
                Event::Passed
            }
            Action::Ended => return Err(End::Stopped),
            Action::Begin
            | Action::PassOffsets
            | Action::HandOver
            | Action::Await
            | Action::Commit
            | Action::CommitOffsets
            | Action::Abort => {
                let (Some(sender), Some(receiver)) = (&mut self.producer, &self.consumer) else {
                    return Ok(Event::Done(Err(no_client())));
                };
                sender.transact(&action, receiver, machine, self.setup, self.control)?
            }
        })
    }

    /// Makes the producer and sees to the topics. Whether the cluster forgets offsets
    /// that it takes in a transaction.
    fn open(&mut self) -> Result<bool, String> {
        let setup = self.setup;
        let config = clients::producer(&setup.cluster, &setup.bootstrap, &setup.settings);
        let producer = Producer::from_config_and_context(&config, Deliveries::default())
            .map_err(|error| SettlementError::Configuration(error.to_string()).to_string())?;
        let client = producer.client();
        let partitions = topics::ensure(client, &setup.cluster, &setup.bootstrap, &setup.settings)
            .map_err(|error| error.to_string())?;
        setup.sealing.set_partitions(partitions);
        let cluster_id = client.fetch_cluster_id(limits::CALL);
        self.producer = Some(Sender {
            deliveries: Arc::clone(client.context()),
            producer,
            awaited: None,
        });
        Ok(cluster_id.is_some_and(|id| embedded::is_embedded(&id)))
    }

    fn join(&mut self) -> Result<(), String> {
        let (setup, settings) = (self.setup, &self.setup.settings);
        let config = clients::consumer(&setup.cluster, &setup.bootstrap, settings);
        let consumer = Consumer::from_config_and_context(&config, Assignments::default())
            .map_err(|error| SettlementError::Configuration(error.to_string()).to_string())?;
        consumer
            .subscribe(&[&settings.records_topic])
            .map_err(|error| SettlementError::kafka("subscribe")(error).to_string())?;
        self.consumer = Some(Receiver {
            assignments: Arc::clone(consumer.context()),
            consumer,
            heard_at: Instant::now(),
            asked_at: Instant::now(),
            silence: Silence::new(),
        });
        Ok(())
    }

    /// Takes a record and what the group decided; waits a little if there is nothing.
    fn poll(&mut self, wait: bool) -> Polled {
        let mut polled = Polled::default();
        let Some(receiver) = &mut self.consumer else {
            polled.fatal = Some(no_client());
            return polled;
        };
        let topic = &self.setup.settings.records_topic;
        if wait && receiver.is_cut_off(topic) {
            let text =
                "the cluster does not answer any more, or has more than this instance hears of";
            polled.fatal = Some(Failure::new(Remedy::Anew, None, text));
            return polled;
        }
        let Receiver {
            consumer,
            assignments,
            heard_at,
            silence,
            ..
        } = receiver;
        let wait = if wait {
            limits::SETTLEMENT_IDLE_WAIT
        } else {
            Duration::ZERO
        };
        let answer = loop {
            match consumer.poll(wait) {
                // Heard, but nothing to tell.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    silence.heard(&partition, Instant::now());
                }
                answer => break answer,
            }
        };
        match answer {
            None => {}
            Some(Ok(message)) => {
                *heard_at = Instant::now();
                silence.heard(&message.partition(), *heard_at);
                polled.record = Some(taken(&message));
            }
            Some(Err(error)) => {
                if let Some((code, reason)) = consumer.client().fatal_error() {
                    let text = format!("{code}: {reason}");
                    polled.fatal = Some(Failure::new(Remedy::Anew, Some(code), &text));
                } else {
                    let reason = assignments.take_error();
                    let reason = reason.unwrap_or_else(|| error.to_string());
                    self.setup.metrics.set_last_error(Some(reason));
                    tracing::debug!(%error, "the consumer reports");
                }
            }
        }
        polled.changes = assignments.take();
        polled
    }

    fn ask_offsets(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, String> {
        let receiver = self.consumer.as_ref().ok_or_else(|| no_client().text)?;
        let topic = &self.setup.settings.records_topic;
        rebuild::settled_offsets(&receiver.consumer, topic, partitions)
            .map_err(|error| error.to_string())
    }

    fn lookup<'a>(&'a self, partitions: &'a [i32]) -> rebuild::Lookup<'a> {
        rebuild::Lookup {
            cluster: &self.setup.cluster,
            bootstrap: &self.setup.bootstrap,
            topic: &self.setup.settings.changelog_topic,
            client_id: &self.setup.settings.instance,
            partitions,
        }
    }

    /// Tells what the machine has to say.
    fn tell(&mut self, machine: &mut Machine) {
        let metrics = &self.setup.metrics;
        for news in machine.take_news() {
            match news {
                News::State(state) => self.control.set_state(state),
                News::Error(reason) => metrics.set_last_error(Some(reason)),
                News::GivenUp(partitions) => {
                    tracing::info!(?partitions, "partitions given up");
                    self.publish_sizes(machine);
                }
                News::TakenOver { offsets, numbers } => {
                    let partitions: Vec<i32> = offsets.keys().copied().collect();
                    tracing::info!(?partitions, numbers, "partitions taken");
                    SettlementMetrics::add(&metrics.rebuilds, partitions.len() as u64);
                    for (partition, offset) in offsets {
                        if let Some(offset) = offset {
                            self.tell_missed(partition, offset);
                        }
                    }
                    self.publish_sizes(machine);
                }
                News::PassedBefore { partition, offset } => tracing::error!(
                    partition,
                    offset,
                    "a record comes that the group had passed: was its topic deleted and made anew? settled by what is remembered"
                ),
                News::NotSettled {
                    terminal,
                    sequence,
                    partition,
                    offset,
                    verdict,
                } => {
                    // One line a second at most: rubbish can come fast, and all of it
                    // stands in the rejected topic and is counted.
                    let told = self.told_at.map(|at| at.elapsed());
                    if told.is_none_or(|since| since >= limits::SETTLEMENT_TELL) {
                        self.told_at = Some(Instant::now());
                        tracing::warn!(
                            terminal,
                            sequence,
                            partition,
                            offset,
                            ?verdict,
                            "not settled, see {}",
                            self.setup.settings.rejected_topic
                        );
                    }
                }
                News::Committed(verdicts) => self.count(&verdicts),
                News::Aborted(reason) => {
                    SettlementMetrics::add(&metrics.aborts, 1);
                    metrics.set_last_error(Some(reason));
                }
                News::Anew(reason) => {
                    SettlementMetrics::add(&metrics.restarts, 1);
                    if metrics.last_error().as_ref() != Some(&reason) {
                        tracing::warn!(reason, "begins anew");
                    }
                    metrics.set_last_error(Some(reason));
                }
            }
        }
    }

    fn count(&self, verdicts: &[Verdict]) {
        let metrics = &self.setup.metrics;
        for verdict in verdicts {
            let counter = match verdict {
                Verdict::Accepted(_) => &metrics.accepted,
                Verdict::Refused(_) => &metrics.refused,
                Verdict::Again => &metrics.repeated,
                Verdict::Conflict => &metrics.conflicts,
                Verdict::TooOld => &metrics.too_old,
                Verdict::Seal(_) => &metrics.seals_refused,
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

    /// Records that retention deleted before they were settled are lost to
    /// settlement; their terminals keep them and send them again.
    fn tell_missed(&self, partition: i32, offset: i64) {
        let topic = &self.setup.settings.records_topic;
        let Some(receiver) = &self.consumer else {
            return;
        };
        let asked = receiver
            .consumer
            .fetch_watermarks(topic, partition, limits::CALL);
        if let Ok((low, _)) = asked
            && low > offset
        {
            let missed = low.abs_diff(offset);
            SettlementMetrics::add(&self.setup.metrics.missed, missed);
            tracing::error!(
                topic,
                partition,
                from = offset,
                to = low,
                "Kafka deleted records before they were settled; raise the topic's retention.ms"
            );
        }
    }

    fn publish_sizes(&mut self, machine: &Machine) {
        self.sizes_at = Instant::now();
        let (partitions, terminals, numbers) = machine.sizes();
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

fn taken(message: &BorrowedMessage<'_>) -> Taken {
    let time_ms = message.timestamp().to_millis().unwrap_or(0);
    Taken {
        partition: message.partition(),
        offset: message.offset(),
        time_ms: u64::try_from(time_ms).unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().unwrap_or_default().to_vec(),
    }
}

/// An invariant of the machine broken: it acts only after it has opened.
fn no_client() -> Failure {
    let text = "a bug: no client; please report it";
    Failure::new(Remedy::Anew, None, text)
}
