//! The way of one message: in, durable, out to subscribers, acknowledged.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use risiti_bridge::{Compiled, DeadLetter, Reason};
use risiti_mqtt::{Message, Qos, ReasonCode};
use risiti_store::state::{Batch, CommitSink};
use risiti_store::{AckSink, Identity, NewRecord, Outcome, Record, StoreError};
use tokio::sync::mpsc;

use super::{Broker, Seat};
use crate::fanout::FilterNumber;
use crate::mailbox::{Mailbox, Settled};
use crate::outgoing::{Queued, Sequence};
use crate::rows::{self, DeliveryRow, RetainedRow, SessionNumber};
use crate::session::{Epoch, LiveEnvelope, Session};
use crate::subscriptions::{Matches, Target};

/// Who publishes: a connection of a session.
pub struct Publisher<'a> {
    /// Its session.
    pub session: &'a Arc<Session>,
    /// Its place in it.
    pub epoch: Epoch,
    /// Where it hears of the settlement.
    pub mailbox: &'a Arc<Mailbox>,
    /// The same, as the journal takes it.
    pub sink: &'a Arc<dyn AckSink>,
}

/// What became of a PUBLISH that was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Settled at once.
    Now(ReasonCode, Option<&'static str>),
    /// The mailbox hears of it.
    Later,
    /// The session belongs to a newer connection: this one has nothing to say.
    Superseded,
}

/// How a PUBLISH came.
#[derive(Debug, Clone, Copy)]
pub struct Delivered {
    /// Packet identifier; 0 at QoS 0.
    pub packet_id: u16,
    /// The DUP flag.
    pub dup: bool,
    /// Names it to the mailbox.
    pub token: u64,
}

impl Broker {
    /// Takes a PUBLISH. Never blocks; `message` owns its bytes.
    pub fn publish(&self, from: &Publisher<'_>, message: Message, how: Delivered) -> Taken {
        if message.topic.starts_with('$') {
            // The server's own (MQTT 5.0, section 4.7.2).
            return Taken::Now(
                ReasonCode::NotAuthorized,
                Some("topics that begin with $ are the server's"),
            );
        }
        if !message.payload_format_is_valid() {
            return Taken::Now(
                ReasonCode::PayloadFormatInvalid,
                Some("the payload is not the UTF-8 that it says it is"),
            );
        }
        let now_ms = self.now_ms();
        let routes = self.routes.newest();
        let route = routes.find(&message.topic);
        let record = match route {
            None => None,
            Some(route) => match record(route, &message, &from.session.client_id, how, now_ms) {
                Ok(record) => Some(record),
                Err(Refusal::Foreign(why)) => {
                    self.metrics.refused.fetch_add(1, Ordering::Relaxed);
                    return Taken::Now(ReasonCode::NotAuthorized, Some(why));
                }
                Err(Refusal::Malformed(record, why)) => {
                    self.metrics.refused.fetch_add(1, Ordering::Relaxed);
                    self.keep_malformed(route, record, why, from.mailbox, how.token);
                    return Taken::Later;
                }
            },
        };
        let counter = if record.is_some() {
            &self.metrics.records
        } else {
            &self.metrics.messages
        };
        counter.fetch_add(1, Ordering::Relaxed);

        // QoS 2 of a persistent session: the identifier is taken until PUBREL.
        let keep_identifier = message.qos == Qos::ExactlyOnce && from.session.persistent;
        let matches = self.matches(&message, from.session.number);
        if matches.is_empty() && !message.retain && !keep_identifier {
            return match record {
                Some(record) => {
                    // The lock: a connection that was taken over a moment ago
                    // must not append behind its successor.
                    let state = from.session.lock();
                    if state.epoch != from.epoch {
                        return Taken::Superseded;
                    }
                    self.journal.append(record, from.sink, how.token);
                    Taken::Later
                }
                None => Taken::Now(ReasonCode::NoMatchingSubscribers, None),
            };
        }
        let identifier = keep_identifier.then_some((from.session.number, how.packet_id));
        let draft = Draft {
            seat: Some(Seat {
                session: from.session.clone(),
                epoch: from.epoch,
            }),
            message,
            record,
            matches,
            identifier,
            publisher: from.session.number,
            received_ms: now_ms,
            reply: Some((from.mailbox.clone(), how.token)),
            then_delete: None,
        };
        match self.accept(draft) {
            Ok(true) => Taken::Later,
            Ok(false) => Taken::Superseded,
            Err(error) => {
                tracing::warn!(%error, client = %from.session.client_id, "a PUBLISH could not be queued");
                Taken::Now(
                    ReasonCode::QuotaExceeded,
                    Some("too much waits for the disk; try again later"),
                )
            }
        }
    }

    /// Publishes a message of the gateway's own accord: a will. Its row goes
    /// once all that follows from it is durable.
    pub(super) fn publish_own(&self, message: Message, client_id: &str, row: Vec<u8>) {
        let now_ms = self.now_ms();
        let routes = self.routes.newest();
        let how = Delivered {
            packet_id: 0,
            dup: false,
            token: 0,
        };
        let record = routes
            .find(&message.topic)
            .and_then(|route| record(route, &message, client_id, how, now_ms).ok());
        let matches = self.matches(&message, 0);
        let draft = Draft {
            seat: None,
            message,
            record,
            matches,
            identifier: None,
            publisher: 0,
            received_ms: now_ms,
            reply: None,
            then_delete: Some(row),
        };
        if let Err(error) = self.accept(draft) {
            tracing::warn!(%error, client_id, "a will could not be published");
        }
    }

    fn matches(&self, message: &Message, publisher: SessionNumber) -> Matches {
        if !self.any_subscription.load(Ordering::Acquire) {
            return Matches::default();
        }
        self.subscriptions.lock().matches(message, publisher)
    }

    /// Queues one retained message for a session that has just subscribed.
    pub(super) fn deliver_retained(&self, draft: Draft) {
        if let Err(error) = self.accept(draft) {
            tracing::warn!(%error, "a retained message could not be queued");
        }
    }

    /// Submits all that must be durable, under the order lock, and hands the
    /// ticket on when all of it is. False: the connection was superseded.
    fn accept(&self, draft: Draft) -> Result<bool, StoreError> {
        let message = Arc::new(draft.message);
        let mut batch = Batch::new();
        batch.allow_splitting();
        let mut deliveries = Vec::with_capacity(draft.matches.targets.len());
        let order = self.order.lock();
        if let Some(seat) = &draft.seat {
            // A takeover changes the epoch under the order lock too.
            let mut state = seat.session.lock();
            if state.epoch != seat.epoch {
                return Ok(false);
            }
            if let Some((_, packet_id)) = draft.identifier {
                state.unreleased.push(packet_id);
            }
        }
        let limits = self.limits();
        for target in draft.matches.targets {
            let sequence = if target.qos == Qos::AtMostOnce {
                0
            } else {
                let mut state = target.session.lock();
                if state.ended {
                    continue;
                }
                if target.session.persistent {
                    let full = state.owed >= u64::from(limits.queued_messages_per_session_max)
                        || (state.owed_bytes + message.payload.len()) as u64
                            > limits.queued_bytes_per_session_max.bytes();
                    if full {
                        self.metrics.queue_full.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(
                            client = %target.session.client_id, topic = %message.topic,
                            "the session's queue is full; this delivery is not queued"
                        );
                        continue;
                    }
                    state.owed += 1;
                    state.owed_bytes += message.payload.len();
                }
                let sequence = state.outgoing.assign();
                if target.session.persistent {
                    let row = DeliveryRow::new(
                        draft.received_ms,
                        target.qos,
                        target.retain,
                        target.subscription_ids.clone(),
                        &message,
                    );
                    batch.put(
                        rows::delivery_key(target.session.number, sequence),
                        rows::encode(&row),
                    );
                }
                sequence
            };
            deliveries.push((target, sequence));
        }
        // A message out of the retained store goes to its subscriber only.
        if message.retain && draft.publisher != RETAINED_AGAIN {
            self.retain(&message, draft.received_ms, &mut batch);
        }
        if let Some((session, packet_id)) = draft.identifier {
            batch.put(rows::unreleased_key(session, packet_id), Vec::new());
        }
        let obligations = u8::from(draft.record.is_some()) + u8::from(!batch.is_empty());
        let ticket = Arc::new_cyclic(|me| Ticket {
            me: me.clone(),
            settled: self.settled.clone(),
            outstanding: AtomicU8::new(obligations.max(1)),
            reason: Mutex::new(Some(ReasonCode::Success)),
            message,
            received_ms: draft.received_ms,
            publisher: draft.publisher,
            deliveries: Mutex::new(deliveries),
            live: draft.matches.live,
            reply: draft.reply,
            then_delete: draft.then_delete,
        });
        if !batch.is_empty() {
            self.state.submit(batch, Some((ticket.clone(), 0)))?;
        }
        if let Some(record) = draft.record {
            let sink: Arc<dyn AckSink> = ticket.clone();
            self.journal.append(record, &sink, 0);
        }
        if obligations == 0 {
            ticket.arrived();
        }
        drop(order);
        Ok(true)
    }

    fn retain(&self, message: &Arc<Message>, received_ms: u64, batch: &mut Batch) {
        let limits = self.limits();
        let kept = self.retained.write().set(
            message.clone(),
            received_ms,
            limits.retained_messages_max as usize,
            limits.retained_bytes_max.bytes() as usize,
        );
        let key = rows::retained_key(&message.topic);
        if message.payload.is_empty() {
            batch.delete(key);
        } else if kept {
            batch.put(key, rows::encode(&RetainedRow::new(received_ms, message)));
        } else {
            self.metrics
                .retained_refused
                .fetch_add(1, Ordering::Relaxed);
            tracing::warn!(topic = %message.topic, "not retained: the bound on retained messages is reached");
        }
    }

    /// A record that is none: kept as a dead letter, then told to its client.
    fn keep_malformed(
        &self,
        route: &Compiled,
        record: NewRecord,
        why: String,
        mailbox: &Arc<Mailbox>,
        token: u64,
    ) {
        tracing::warn!(
            client = %String::from_utf8_lossy(&record.client_id),
            topic = %String::from_utf8_lossy(&record.topic),
            "malformed record, kept as a dead letter: {why}"
        );
        let letter = DeadLetter {
            refused_ms: record.received_ms,
            reason: Reason {
                cluster: route.route.cluster.clone(),
                route: route.route.name.clone(),
                topic: route.route.topic.clone(),
                text: format!("malformed record: {why}"),
            },
            // It has no position: a number of its own, in the order of time.
            journal_id: "refused".into(),
            record: Record {
                position: record.received_ms << 20 | fastrand::u64(..1 << 20),
                record,
            },
        };
        let dead_letters = self.dead_letters.clone();
        let mailbox = mailbox.clone();
        tokio::task::spawn_blocking(move || {
            let settled = match dead_letters.keep(&[letter]) {
                Ok(true) => Settled::Publish(token, ReasonCode::PayloadFormatInvalid),
                Ok(false) => {
                    tracing::error!(
                        "the dead-letter store is full: a malformed record stays unacknowledged; free it with `risiti dead drop`"
                    );
                    Settled::Abandoned(token)
                }
                Err(error) => {
                    tracing::error!(%error, "a malformed record could not be kept and stays unacknowledged");
                    Settled::Abandoned(token)
                }
            };
            mailbox.settle(settled);
        });
    }
}

/// Why a message on a record's topic is no record.
enum Refusal {
    /// Another terminal's topic.
    Foreign(&'static str),
    /// Not what the format says.
    Malformed(NewRecord, String),
}

fn record(
    route: &Compiled,
    message: &Message,
    client_id: &str,
    how: Delivered,
    now_ms: u64,
) -> Result<NewRecord, Refusal> {
    let mut record = NewRecord {
        received_ms: now_ms,
        client_id: Bytes::copy_from_slice(client_id.as_bytes()),
        topic: message.topic.as_bytes().clone(),
        identity: if how.packet_id == 0 {
            Identity::None
        } else {
            Identity::Packet {
                packet_id: how.packet_id,
                dup: how.dup,
            }
        },
        properties: message.properties.clone(),
        payload: message.payload.clone(),
    };
    if route.is_risiti() {
        if route.terminal(&message.topic) != Some(client_id) {
            return Err(Refusal::Foreign(
                "a terminal publishes records on its own topic only: its id there must be its client identifier",
            ));
        }
        match risiti_wire::peek(&message.payload) {
            Ok(header) => {
                record.identity = Identity::Sequence {
                    sequence: header.sequence,
                    dup: how.dup,
                    resend_mark: header.resend,
                };
            }
            Err(why) => return Err(Refusal::Malformed(record, why.to_string())),
        }
    }
    Ok(record)
}

/// "Publisher" of a message that comes out of the retained store.
pub(super) const RETAINED_AGAIN: SessionNumber = SessionNumber::MAX;

/// A message that was taken, with all that follows from it.
pub(super) struct Draft {
    /// The connection it came on, if any.
    pub seat: Option<Seat>,
    pub message: Message,
    pub record: Option<NewRecord>,
    pub matches: Matches,
    /// QoS 2 identifier to keep until PUBREL.
    pub identifier: Option<(SessionNumber, u16)>,
    pub publisher: SessionNumber,
    pub received_ms: u64,
    pub reply: Option<(Arc<Mailbox>, u64)>,
    /// A row that has served once everything is durable.
    pub then_delete: Option<Vec<u8>>,
}

/// A message whose durability is under way. When nothing is outstanding any
/// more it is handed to the distributor.
pub(super) struct Ticket {
    me: Weak<Self>,
    settled: mpsc::UnboundedSender<Arc<Ticket>>,
    outstanding: AtomicU8,
    /// What to answer; `None` once it can't become durable any more.
    reason: Mutex<Option<ReasonCode>>,
    message: Arc<Message>,
    received_ms: u64,
    publisher: SessionNumber,
    deliveries: Mutex<Vec<(Target, Sequence)>>,
    live: Vec<FilterNumber>,
    reply: Option<(Arc<Mailbox>, u64)>,
    then_delete: Option<Vec<u8>>,
}

impl Ticket {
    fn arrived(&self) {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(me) = self.me.upgrade()
        {
            // The distributor is gone only when the process stops.
            let _ = self.settled.send(me);
        }
    }
}

impl AckSink for Ticket {
    fn settled(&self, _token: u64, outcome: Outcome) {
        match outcome {
            Outcome::Durable { .. } | Outcome::Duplicate => {}
            Outcome::TooLarge => *self.reason.lock() = Some(ReasonCode::QuotaExceeded),
            Outcome::Closing => *self.reason.lock() = None,
        }
        self.arrived();
    }
}

impl CommitSink for Ticket {
    fn committed(&self, _token: u64, result: Result<(), StoreError>) {
        if result.is_err() {
            *self.reason.lock() = None;
        }
        self.arrived();
    }
}

/// Hands durable messages to their subscribers, then lets their publishers know.
pub(super) async fn distribute(
    broker: Weak<Broker>,
    mut queue: mpsc::UnboundedReceiver<Arc<Ticket>>,
) {
    while let Some(ticket) = queue.recv().await {
        let Some(broker) = broker.upgrade() else {
            return;
        };
        let reason = *ticket.reason.lock();
        if reason == Some(ReasonCode::Success) {
            for (target, sequence) in std::mem::take(&mut *ticket.deliveries.lock()) {
                broker.hand_over(&ticket, target, sequence);
            }
            if !ticket.live.is_empty() {
                let envelope =
                    LiveEnvelope::encode(ticket.publisher, ticket.received_ms, &ticket.message);
                for filter in &ticket.live {
                    broker.fanout.publish(*filter, envelope.clone()).await;
                }
            }
        }
        if let (Some(_), Some(key)) = (reason, &ticket.then_delete) {
            let mut batch = Batch::new();
            batch.delete(key.clone());
            broker.submit(batch);
        }
        if let Some((mailbox, token)) = &ticket.reply {
            mailbox.settle(match reason {
                Some(reason) => Settled::Publish(*token, reason),
                None => Settled::Abandoned(*token),
            });
        }
    }
}

impl Broker {
    fn hand_over(&self, ticket: &Ticket, target: Target, sequence: Sequence) {
        let mut state = target.session.lock();
        if state.ended || (state.mailbox.is_none() && sequence == 0) {
            return;
        }
        let queued = Queued {
            sequence,
            message: ticket.message.clone(),
            qos: target.qos,
            retain: target.retain,
            subscription_ids: target.subscription_ids,
            received_ms: ticket.received_ms,
            dup: false,
        };
        if target.session.persistent && sequence != 0 {
            state.outgoing.stored(queued);
        } else if !state.outgoing.push(queued) {
            self.metrics.queue_full.fetch_add(1, Ordering::Relaxed);
        }
        state.wake();
    }
}
