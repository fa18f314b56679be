//! A terminal's receipts, from the outbox to its session and back.
//!
//! Promises: a receipt goes to the session whose client identifier is the
//! terminal's id, over its subscription to exactly its own receipts topic, and to
//! nobody else (G9); it stays in the outbox until its PUBACK (G4). Receipts never
//! go through the router, the retained store or a session's queue of messages, so
//! no wildcard, share or will finds them. Never: a thread of the runtime that
//! waits for the disk.
//!
//! What a client may do with a receipts topic, if rules let it that far; "own" is
//! that of its client identifier, if it is that terminal or shows no identity:
//!
//! | | own | another's |
//! | --- | --- | --- |
//! | SUBSCRIBE to exactly it | granted, QoS 1 at most | not authorized (3.1.1: 0x80) |
//! | SUBSCRIBE to it by `$share` | not authorized | not authorized |
//! | SUBSCRIBE by a wildcard that covers it | granted, brings no receipt | likewise |
//! | UNSUBSCRIBE | as any | not authorized |
//! | PUBLISH, will | not authorized | not authorized |

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytestring::ByteString;
use risiti_bridge::receipts::{Arrivals, Outbox, StoredReceipt};
use risiti_bridge::trace::{Step, TraceLog};
use risiti_mqtt::{Message, ReasonCode, Subscription, TopicFilter};
use risiti_store::StoreError;
use risiti_store::state::Batch;
use tokio::sync::Semaphore;

use super::{Broker, Seat};
use crate::access::Who;
use crate::limits;
use crate::receipts::queue::{Next, Page, PageRead};
use crate::receipts::{ReceiptsQueue, ReceiptsTopics};

/// What delivery of receipts is built from.
pub struct ReceiptsParts {
    /// The receipts that wait.
    pub outbox: Arc<Outbox>,
    /// Which topic is whose.
    pub topics: ReceiptsTopics,
    /// Where each step is noted.
    pub trace: Arc<TraceLog>,
    /// Takes a receipt for acknowledged as soon as it is sent. For the negative
    /// control of G4.
    pub delete_before_puback: bool,
}

/// Delivery of receipts, as the broker has it.
pub struct Receipts {
    parts: ReceiptsParts,
    /// First come, first served: a page each, so that nobody waits for one who
    /// has many.
    pages: Arc<Semaphore>,
}

impl Receipts {
    pub(super) fn new(parts: ReceiptsParts) -> Self {
        Self {
            parts,
            pages: Arc::new(Semaphore::new(limits::RECEIPT_PAGES_AT_ONCE)),
        }
    }

    /// Whether a topic, or a filter of one topic, is some terminal's receipts.
    pub(super) fn is_receipts_topic(&self, topic: &str) -> bool {
        self.parts.topics.terminal(topic).is_some()
    }

    /// Which topic is whose.
    pub(super) fn topics(&self) -> &ReceiptsTopics {
        &self.parts.topics
    }

    fn is_own(&self, filter: &TopicFilter, client_id: &str) -> bool {
        self.parts.topics.is_own(filter, client_id)
    }
}

/// A page of a session's receipts as it was read.
pub struct ReceiptsPage {
    page: Page,
    read: PageRead,
}

/// What came of a SUBSCRIBE to a receipts topic.
pub(super) struct Asked {
    pub code: ReasonCode,
    /// Granted; whether the last receipt is asked for.
    pub wants_last: Option<bool>,
}

/// The broker, as the outbox knows it.
struct Listener(Weak<Broker>);

impl Arrivals for Listener {
    fn arrived(&self, terminal: &str, receipts: &[StoredReceipt]) {
        let Some(broker) = self.0.upgrade() else {
            return;
        };
        let session = broker.sessions.lock().get(terminal).cloned();
        let Some(session) = session else { return };
        let mut state = session.lock();
        let queue = state.receipts.as_mut();
        if queue.is_some_and(|queue| queue.arrived(receipts)) {
            state.wake();
        }
    }
}

impl Broker {
    /// Hears of receipts from now on.
    pub(super) fn listen_for_receipts(self: &Arc<Self>) {
        let listener = Listener(Arc::downgrade(self));
        self.receipts.parts.outbox.listen(Arc::new(listener));
    }

    /// A session's subscription that a restart finds; none if it is to another's
    /// receipts, as it may be from a time when that was an ordinary topic.
    pub(super) fn recover_receipts(
        &self,
        client_id: &ByteString,
        subscription: Subscription,
        sent: Option<u64>,
    ) -> Option<Box<ReceiptsQueue>> {
        if !self.receipts.is_own(&subscription.filter, client_id) {
            tracing::warn!(%client_id, filter = %subscription.filter.filter, "a subscription to another's receipts is dropped");
            return None;
        }
        self.receipts.parts.outbox.seen(client_id);
        Some(Box::new(ReceiptsQueue::resume(subscription, sent)))
    }

    /// SUBSCRIBE to a receipts topic.
    pub(super) fn subscribe_receipts(&self, seat: &Seat, subscription: Subscription) -> Asked {
        let client_id = &seat.session.client_id;
        let refused = |code| Asked {
            code,
            wants_last: None,
        };
        // A user is no terminal, whatever client identifier it chose.
        let is_user = matches!(seat.session.owner, Who::User(_));
        if is_user || !self.receipts.is_own(&subscription.filter, client_id) {
            let metrics = &self.metrics;
            metrics.receipts_foreign.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%client_id, filter = %subscription.filter.filter, "SUBSCRIBE refused: not this client's receipts");
            return refused(ReasonCode::NotAuthorized);
        }
        let most = self.limits().subscriptions_per_session_max as usize;
        let granted = seat
            .session
            .lock()
            .subscribe_receipts(seat.epoch, subscription, most);
        match granted {
            Err(code) => refused(code),
            Ok((code, wants_last)) => {
                self.receipts.parts.outbox.seen(client_id);
                Asked {
                    code,
                    wants_last: Some(wants_last),
                }
            }
        }
    }

    /// UNSUBSCRIBE from a receipts topic.
    pub(super) fn unsubscribe_receipts(&self, seat: &Seat, filter: &TopicFilter) -> ReasonCode {
        if !self.receipts.is_own(filter, &seat.session.client_id) {
            return ReasonCode::NotAuthorized;
        }
        let mut state = seat.session.lock();
        if state.epoch != seat.epoch || state.ended {
            return ReasonCode::UnspecifiedError;
        }
        let existed = state.receipts.as_mut().is_some_and(|q| q.unsubscribe());
        if existed {
            ReasonCode::Success
        } else {
            ReasonCode::NoSubscriptionExisted
        }
    }

    /// SUBACK is out: delivery begins, with what waits or with the last receipt.
    pub fn begin_receipts(&self, seat: &Seat, wants_last: bool) {
        self.with_receipts(seat, |queue| queue.begin(wants_last));
    }

    /// The next receipt to send. `window`: how many may still be in flight.
    pub fn next_receipt(&self, seat: &Seat, window: usize) -> Option<Next> {
        self.with_receipts(seat, |queue| queue.next(window))
            .flatten()
    }

    /// The page that the session needs next; the caller has to read it.
    pub fn ask_receipts(&self, seat: &Seat) -> Option<Page> {
        self.with_receipts(seat, ReceiptsQueue::ask).flatten()
    }

    /// Reads a page of what waits for a session's terminal. Waits for its turn.
    ///
    /// # Errors
    /// The store can't be read right now.
    pub async fn read_receipts(
        self: Arc<Self>,
        seat: Seat,
        page: Page,
    ) -> Result<ReceiptsPage, StoreError> {
        if page.after == 0 {
            // The row that says that this session is connected, or subscribed,
            // comes before the first receipt: after a kill, what may have been
            // sent goes out with DUP. A disk that stands still is not waited for:
            // then a kill may cost a DUP, but no receipt.
            let durable = self.commit(Batch::new());
            if let Ok(done) = tokio::time::timeout(limits::RECEIPTS_DURABLE_WAIT, durable).await {
                done?;
            }
        }
        let turn = self.receipts.pages.clone().acquire_owned().await;
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let outbox = &self.receipts.parts.outbox;
            let terminal = &*seat.session.client_id;
            page.read(outbox, terminal, self.now_ms())
        });
        match read.await {
            Ok(read) => read.map(|read| ReceiptsPage { page, read }),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::Closing), // the runtime ends
            },
        }
    }

    /// Gives a page to its session.
    pub fn receipts_in(&self, seat: &Seat, page: ReceiptsPage) {
        self.with_receipts(seat, |queue| queue.page(page.page, page.read));
    }

    /// A receipt as the client gets it, with what is left of its expiry in
    /// seconds; `None` if that has passed: it is dropped.
    pub fn receipt_message(&self, seat: &Seat, next: &Next) -> Option<(Message, Option<u32>)> {
        let now_ms = self.now_ms();
        let receipt = &next.receipt;
        let terminal = &seat.session.client_id;
        if receipt.expires_ms.is_some_and(|ms| now_ms >= ms) {
            self.with_receipts(seat, |queue| queue.done(next.packet_id));
            if !next.retain {
                self.receipts.parts.outbox.expired(terminal, receipt.number);
                let number = receipt.number;
                self.note(terminal, receipt.sequence, Step::Expired { number });
            }
            return None;
        }
        let expiry_s = receipt
            .expires_ms
            .map(|ms| u32::try_from((ms - now_ms).div_ceil(1000)).unwrap_or(u32::MAX));
        let topic = self.receipts.parts.topics.of(terminal);
        Some((Message::new(topic, receipt.payload.clone()), expiry_s))
    }

    /// A receipt was written to its connection.
    pub fn receipt_sent(&self, seat: &Seat, next: &Next) {
        let metrics = &self.metrics;
        if next.retain {
            metrics.receipts_copied.fetch_add(1, Ordering::Relaxed);
            return;
        }
        metrics.receipts_sent.fetch_add(1, Ordering::Relaxed);
        if next.dup {
            metrics.receipts_sent_again.fetch_add(1, Ordering::Relaxed);
        }
        let again = next.dup;
        let (terminal, receipt) = (&seat.session.client_id, &next.receipt);
        let number = receipt.number;
        self.note(terminal, receipt.sequence, Step::Sent { number, again });
        if self.receipts.parts.delete_before_puback {
            let outbox = &self.receipts.parts.outbox;
            outbox.acknowledged(terminal, receipt.number, next.dup);
        }
    }

    /// A receipt can't be sent to this client: it stays in the outbox.
    pub fn receipt_too_large(&self, seat: &Seat, next: &Next) {
        let metrics = &self.metrics;
        metrics.receipts_too_large.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            client = %seat.session.client_id, number = next.receipt.number,
            "a receipt is larger than the packets that its terminal takes; it waits for a connection that takes it"
        );
        self.with_receipts(seat, |queue| queue.done(next.packet_id));
    }

    /// PUBACK came for a receipt.
    pub fn receipt_acknowledged(&self, seat: &Seat, packet_id: u16, reason: ReasonCode) {
        let done = self.with_receipts(seat, |queue| queue.done(packet_id));
        let Some(done) = done.flatten().filter(|done| !done.retained) else {
            return;
        };
        let terminal = &seat.session.client_id;
        if reason.is_error() {
            // The terminal does not have it: the delivery is over (MQTT 5.0,
            // section 4.3.2), the receipt is not.
            let metrics = &self.metrics;
            metrics.receipts_refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%terminal, number = done.number, %reason, "a terminal refuses its receipt; it is offered again with its next connection");
            return;
        }
        let metrics = &self.metrics;
        metrics
            .receipts_acknowledged
            .fetch_add(1, Ordering::Relaxed);
        let number = done.number;
        self.note(terminal, done.sequence, Step::Acknowledged { number });
        let outbox = &self.receipts.parts.outbox;
        outbox.acknowledged(terminal, done.number, done.again);
    }

    fn note(&self, terminal: &str, sequence: u64, step: Step<&str>) {
        let trace = &self.receipts.parts.trace;
        trace.note(self.now_ms(), terminal, sequence, step);
    }

    /// The session's receipts, if the connection still has the session.
    fn with_receipts<T>(
        &self,
        seat: &Seat,
        act: impl FnOnce(&mut ReceiptsQueue) -> T,
    ) -> Option<T> {
        let mut state = seat.session.lock();
        if state.epoch != seat.epoch {
            return None;
        }
        state.receipts.as_deref_mut().map(act)
    }
}
