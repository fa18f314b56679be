//! From durable to delivered: what happens once the store has spoken.
//!
//! Promises: one task hands messages over, in the order in which the store
//! settled them; subscribers come before the publisher's acknowledgement.
//! Never: waiting for a client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use risiti_mqtt::{Message, Qos, ReasonCode};
use risiti_store::state::{Batch, CommitSink};
use risiti_store::{AckSink, Outcome, StoreError};
use tokio::sync::mpsc;

use super::Broker;
use super::publish::Draft;
use crate::fanout::FilterNumber;
use crate::mailbox::{Mailbox, Settled};
use crate::outgoing::{Queued, Sequence};
use crate::rows::SessionNumber;
use crate::session::{LiveEnvelope, Session};
use crate::subscriptions::Target;

/// What the distributor is told.
pub(super) enum Settlement {
    /// The journal's outcome for a record from which more follows.
    Record(Box<Draft>, Outcome),
    /// A message is durable, or never will be.
    Message(Arc<Ticket>),
}

/// What follows from a record, while the journal has it.
pub(super) struct RecordFirst {
    pub(super) draft: Mutex<Option<Box<Draft>>>,
    pub(super) settled: mpsc::UnboundedSender<Settlement>,
}

impl AckSink for RecordFirst {
    fn settled(&self, _token: u64, outcome: Outcome) {
        if let Some(draft) = self.draft.lock().take() {
            // The distributor is gone only when the process stops.
            let _ = self.settled.send(Settlement::Record(draft, outcome));
        }
    }
}

/// A message whose durability is under way; then the distributor has it.
pub(super) struct Ticket {
    pub(super) me: Weak<Self>,
    pub(super) settled: mpsc::UnboundedSender<Settlement>,
    /// False once it can't become durable any more.
    pub(super) durable: AtomicBool,
    pub(super) message: Arc<Message>,
    pub(super) received_ms: u64,
    pub(super) publisher: SessionNumber,
    /// The session that has one message less on its way afterwards.
    pub(super) counted: Option<Arc<Session>>,
    pub(super) deliveries: Mutex<Vec<(Target, Sequence)>>,
    pub(super) live: Vec<FilterNumber>,
    pub(super) reply: Option<(Arc<Mailbox>, u64)>,
    pub(super) then_delete: Option<Vec<u8>>,
}

impl Ticket {
    pub(super) fn arrived(&self) {
        if let Some(me) = self.me.upgrade() {
            // The distributor is gone only when the process stops.
            let _ = self.settled.send(Settlement::Message(me));
        }
    }
}

impl CommitSink for Ticket {
    fn committed(&self, _token: u64, result: Result<(), StoreError>) {
        if result.is_err() {
            self.durable.store(false, Ordering::Release);
        }
        self.arrived();
    }
}

/// Hands durable messages to their subscribers, then lets their publishers know.
pub(super) async fn distribute(
    broker: Weak<Broker>,
    mut queue: mpsc::UnboundedReceiver<Settlement>,
) {
    while let Some(settlement) = queue.recv().await {
        let Some(broker) = broker.upgrade() else {
            return;
        };
        match settlement {
            Settlement::Record(draft, outcome) => broker.recorded(*draft, outcome),
            Settlement::Message(ticket) => broker.message_settled(&ticket).await,
        }
    }
}

impl Broker {
    async fn message_settled(&self, ticket: &Ticket) {
        if let Some(counted) = &ticket.counted {
            counted.publishing_ends();
        }
        let durable = ticket.durable.load(Ordering::Acquire);
        if durable {
            for (target, sequence) in std::mem::take(&mut *ticket.deliveries.lock()) {
                self.hand_over(ticket, target, sequence);
            }
            if !ticket.live.is_empty() {
                let envelope =
                    LiveEnvelope::encode(ticket.publisher, ticket.received_ms, &ticket.message);
                for filter in &ticket.live {
                    self.fanout.publish(*filter, envelope.clone()).await;
                }
            }
            if let Some(key) = &ticket.then_delete {
                let mut batch = Batch::new();
                batch.delete(key.clone());
                self.submit(batch);
            }
        }
        if let Some((mailbox, token)) = &ticket.reply {
            mailbox.settle(if durable {
                Settled::Publish(*token, ReasonCode::Success)
            } else {
                Settled::Abandoned(*token)
            });
        }
    }

    fn hand_over(&self, ticket: &Ticket, target: Target, sequence: Sequence) {
        let mut state = target.session.lock();
        if state.ended || (state.mailbox.is_none() && sequence == 0) {
            return;
        }
        let stored = sequence != 0;
        // A clean session's number is given as late as its place in the queue.
        let sequence = if stored || target.qos == Qos::AtMostOnce {
            sequence
        } else {
            state.outgoing.assign()
        };
        let queued = Queued {
            sequence,
            message: ticket.message.clone(),
            qos: target.qos,
            retain: target.retain,
            subscription_ids: target.subscription_ids,
            received_ms: ticket.received_ms,
            dup: false,
        };
        if stored {
            state.outgoing.stored(queued);
        } else if !state.outgoing.push(queued) {
            self.metrics.queue_full.fetch_add(1, Ordering::Relaxed);
        }
        state.wake();
    }
}
