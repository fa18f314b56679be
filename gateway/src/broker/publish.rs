//! The way of one message to the store: checked, owed to its subscribers, submitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use risiti_mqtt::{Message, Qos, ReasonCode};
use risiti_store::state::Batch;
use risiti_store::{AckSink, NewRecord, Outcome, StoreError};

use super::access::NOT_ALLOWED;
use super::records::{Refusal, forbidden, record};
use super::settlement::{RecordFirst, Ticket};
use super::wills::DelayedWill;
use super::{Broker, Seat};
use crate::mailbox::{Mailbox, Settled};
use crate::outgoing::Sequence;
use crate::rows::{self, DeliveryRow, RetainedRow, SessionNumber};
use crate::session::{Epoch, Session};
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
        if let Some((reason, why)) = forbidden(self.receipts.topics(), &message) {
            self.metrics.refused.fetch_add(1, Ordering::Relaxed);
            return Taken::Now(reason, Some(why));
        }
        if !self.may_publish(&from.session.owner, &message.topic) {
            self.metrics.refused.fetch_add(1, Ordering::Relaxed);
            return Taken::Now(ReasonCode::NotAuthorized, Some(NOT_ALLOWED));
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
                    self.keep_malformed(route, *record, why, from.mailbox, how.token);
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
            matches,
            identifier,
            publisher: from.session.number,
            received_ms: now_ms,
            reply: Some((from.mailbox.clone(), how.token)),
            then_delete: None,
        };
        if let Some(record) = record {
            let state = from.session.lock();
            if state.epoch != from.epoch {
                return Taken::Superseded;
            }
            self.record_first(record, draft);
            return Taken::Later;
        }
        match self.accept(draft) {
            Ok(true) => Taken::Later,
            Ok(false) => Taken::Superseded,
            Err(error) => {
                tracing::warn!(%error, client = %from.session.client_id, "a PUBLISH could not be queued");
                Taken::Now(
                    QUEUE_FULL,
                    Some("too much waits for the disk; try again later"),
                )
            }
        }
    }

    /// Offers a record to the journal; what else follows from its message comes
    /// after. So subscribers never see what the journal has not, and everything
    /// that goes to them waits for one store only, in one order.
    fn record_first(&self, record: NewRecord, draft: Draft) {
        let sink: Arc<dyn AckSink> = Arc::new(RecordFirst {
            draft: Mutex::new(Some(Box::new(draft))),
            settled: self.settled.clone(),
        });
        self.journal.append(record, &sink, 0);
    }

    /// The journal has spoken: goes on with what follows from a record, or
    /// tells its publisher why nothing does.
    pub(super) fn recorded(&self, draft: Draft, outcome: Outcome) {
        let reply = draft.reply.clone();
        let then_delete = draft.then_delete.clone();
        let refused = match outcome {
            Outcome::Durable { .. } | Outcome::Duplicate => match self.accept(draft) {
                // The ticket answers; or nobody is there any more to be answered.
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "what follows from a record could not be queued");
                    Some(QUEUE_FULL)
                }
            },
            Outcome::TooLarge => Some(QUEUE_FULL),
            Outcome::Closing => None,
        };
        if let (Some(_), Some(key)) = (refused, then_delete) {
            let mut batch = Batch::new();
            batch.delete(key);
            self.submit(batch);
        }
        if let Some((mailbox, token)) = reply {
            mailbox.settle(match refused {
                Some(reason) => Settled::Publish(token, reason),
                None => Settled::Abandoned(token),
            });
        }
    }

    /// Publishes a message of the gateway's own accord: a will. Its row goes
    /// once all that follows from it is durable. False: too much waits for the
    /// disk, try again.
    pub(super) fn publish_own(&self, will: &DelayedWill, row: Vec<u8>) -> bool {
        let DelayedWill {
            client_id,
            publisher,
            owner,
            message,
            ..
        } = will;
        let (message, publisher) = (message.clone(), *publisher);
        if self.receipts.is_receipts_topic(&message.topic) || !self.may_will(owner, &message.topic)
        {
            // Of a time when it was allowed.
            tracing::warn!(%client_id, topic = %message.topic, "a will to a topic that is not its client's is not published");
            let mut batch = Batch::new();
            batch.delete(row);
            self.submit(batch);
            return true;
        }
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
        let matches = self.matches(&message, publisher);
        let draft = Draft {
            seat: None,
            message,
            matches,
            identifier: None,
            publisher,
            received_ms: now_ms,
            reply: None,
            then_delete: Some(row),
        };
        match record {
            Some(record) => {
                self.record_first(record, draft);
                true
            }
            None => match self.accept(draft) {
                Ok(_) => true,
                Err(error) => {
                    tracing::warn!(%error, %client_id, "a will can't be published now");
                    false
                }
            },
        }
    }

    fn matches(&self, message: &Message, publisher: SessionNumber) -> Matches {
        if !self.any_subscription.load(Ordering::Acquire) {
            return Matches::default();
        }
        self.subscriptions.lock().matches(message, publisher)
    }

    /// Submits all that must be durable and hands the ticket on when it is.
    /// False: the connection was superseded.
    fn accept(&self, draft: Draft) -> Result<bool, StoreError> {
        let order = self.order.lock();
        self.accept_in_order(&order, draft)
    }

    /// The same for whoever holds the order lock.
    pub(super) fn accept_in_order(
        &self,
        _order: &MutexGuard<'_, ()>,
        draft: Draft,
    ) -> Result<bool, StoreError> {
        let message = Arc::new(draft.message);
        let mut batch = Batch::new();
        batch.allow_splitting();
        if let Some(seat) = &draft.seat {
            let mut state = seat.session.lock();
            // What the session's next connection publishes again must not come
            // twice from this one. A connection that has merely ended (one
            // epoch on) still has its say.
            if state.epoch > seat.epoch + 1 && message.qos != Qos::AtMostOnce {
                return Ok(false);
            }
            if let Some((_, packet_id)) = draft.identifier {
                state.unreleased.push(packet_id);
            }
        }
        if let Some((session, packet_id)) = draft.identifier {
            batch.put(rows::unreleased_key(session, packet_id), Vec::new());
        }
        let deliveries: Vec<_> = draft
            .matches
            .targets
            .into_iter()
            .filter_map(|target| {
                let sequence = self.owe(&target, &message, draft.received_ms, &mut batch)?;
                Some((target, sequence))
            })
            .collect();
        // A message out of the retained store goes to its subscriber only.
        let retains = message.retain
            && draft.publisher != RETAINED_AGAIN
            && self.retain_row(&message, draft.received_ms, &mut batch);
        // What a publisher's earlier message waits for, its next one waits for
        // too: subscribers get both in the order in which they were published.
        let publisher = draft.seat.as_ref().map(|seat| seat.session.clone());
        let behind = publisher.as_ref().is_some_and(|p| p.publishing() > 0);
        let waits = !batch.is_empty() || behind;
        let ticket = Arc::new_cyclic(|me| Ticket {
            me: me.clone(),
            settled: self.settled.clone(),
            durable: AtomicBool::new(true),
            message: message.clone(),
            received_ms: draft.received_ms,
            publisher: draft.publisher,
            counted: publisher.filter(|_| waits),
            deliveries: Mutex::new(deliveries),
            live: draft.matches.live,
            reply: draft.reply,
            then_delete: draft.then_delete,
        });
        if let Some(counted) = &ticket.counted {
            counted.publishing_begins();
        }
        if !waits {
            ticket.arrived();
        } else if let Err(error) = self.state.submit(batch, Some((ticket.clone(), 0))) {
            self.take_back(&ticket, draft.seat.as_ref(), draft.identifier);
            return Err(error);
        }
        if retains {
            let limits = self.limits();
            self.retained.write().set(
                message,
                draft.received_ms,
                limits.retained_messages_max as usize,
                limits.retained_bytes_max.bytes() as usize,
            );
        }
        Ok(true)
    }

    /// Gives a delivery its sequence number and its row: 0 for one that has
    /// none (QoS 0, or of a clean session). `None`: not to be delivered.
    fn owe(
        &self,
        target: &Target,
        message: &Message,
        received_ms: u64,
        batch: &mut Batch,
    ) -> Option<Sequence> {
        if target.qos == Qos::AtMostOnce || !target.session.persistent {
            return Some(0);
        }
        let limits = self.limits();
        let mut state = target.session.lock();
        if state.ended {
            return None;
        }
        let full = state.owed >= u64::from(limits.queued_messages_per_session_max)
            || (state.owed_bytes + message.payload.len()) as u64
                > limits.queued_bytes_per_session_max.bytes();
        if full {
            self.metrics.queue_full.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                client = %target.session.client_id, topic = %message.topic,
                "the session's queue is full; this delivery is not queued"
            );
            return None;
        }
        state.owed += 1;
        state.owed_bytes += message.payload.len();
        let sequence = state.outgoing.assign();
        let row = DeliveryRow::new(
            received_ms,
            target.qos,
            target.retain,
            target.subscription_ids.clone(),
            message,
        );
        batch.put(
            rows::delivery_key(target.session.number, sequence),
            rows::encode(&row),
        );
        Some(sequence)
    }

    /// Undoes what was noted of a message that the store did not take.
    fn take_back(
        &self,
        ticket: &Ticket,
        seat: Option<&Seat>,
        identifier: Option<(SessionNumber, u16)>,
    ) {
        if let Some(counted) = &ticket.counted {
            counted.publishing_ends();
        }
        if let (Some(seat), Some((_, packet_id))) = (seat, identifier) {
            seat.session.lock().unreleased.retain(|id| *id != packet_id);
        }
        for (target, sequence) in ticket.deliveries.lock().drain(..) {
            if sequence != 0 {
                target.session.lock().forgive(ticket.message.payload.len());
            }
        }
    }

    /// Puts a retained message's row into the batch; whether it is to be set.
    fn retain_row(&self, message: &Message, received_ms: u64, batch: &mut Batch) -> bool {
        let limits = self.limits();
        let key = rows::retained_key(&message.topic);
        if message.payload.is_empty() {
            batch.delete(key);
            return true;
        }
        let fits = self.retained.read().fits(
            message,
            limits.retained_messages_max as usize,
            limits.retained_bytes_max.bytes() as usize,
        );
        if fits {
            batch.put(key, rows::encode(&RetainedRow::new(received_ms, message)));
        } else {
            self.metrics
                .retained_refused
                .fetch_add(1, Ordering::Relaxed);
            tracing::warn!(topic = %message.topic, "not retained: the bound on retained messages is reached");
        }
        fits
    }
}

/// "Publisher" of a message that comes out of the retained store.
pub(super) const RETAINED_AGAIN: SessionNumber = SessionNumber::MAX;

/// A message that was taken, with all that follows from it.
pub(super) struct Draft {
    /// The connection it came on, if any.
    pub seat: Option<Seat>,
    pub message: Message,
    pub matches: Matches,
    /// QoS 2 identifier to keep until PUBREL.
    pub identifier: Option<(SessionNumber, u16)>,
    pub publisher: SessionNumber,
    pub received_ms: u64,
    pub reply: Option<(Arc<Mailbox>, u64)>,
    /// A row that has served once everything is durable.
    pub then_delete: Option<Vec<u8>>,
}

/// What a publisher is told of a message for which there is no room.
const QUEUE_FULL: ReasonCode = ReasonCode::QuotaExceeded;
