//! A session: what outlives a connection (MQTT 5.0, section 4.1).
//!
//! A persistent session's rows are in the store; here is what is needed to
//! match and route while it is offline, which is little. A clean session lives
//! here only and ends with its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use parking_lot::{Mutex, MutexGuard};
use risiti_mqtt::topics::filter_matches;
use risiti_mqtt::{Message, Qos, ReasonCode, RetainHandling, Subscription, Will};

use crate::access::{Proof, Who};
use crate::fanout::{FilterNumber, LiveSubscriber};
use crate::limits;
use crate::mailbox::Mailbox;
use crate::outgoing::{Outgoing, Queued};
use crate::receipts::ReceiptsQueue;
use crate::rows::{self, SessionNumber, SessionRow, WillNumber};
use crate::tls::PeerCertificate;

/// A connection's place in a session: only the holder of the newest may act.
pub type Epoch = u64;

/// One session.
pub struct Session {
    /// Its client identifier.
    pub client_id: ByteString,
    /// Unique among all sessions of all time of this gateway: names its rows
    /// and its router link.
    pub number: SessionNumber,
    /// Whose it is: nobody else resumes it or takes it over.
    pub owner: Who,
    /// Whether it outlives its connection, and so has rows in the store.
    pub persistent: bool,
    state: Mutex<SessionState>,
    /// Messages it published that wait for the store on their way to subscribers.
    publishing: AtomicUsize,
}

/// What changes about a session.
pub struct SessionState {
    /// Grows with every connection.
    pub epoch: Epoch,
    /// The connection that has it now.
    pub mailbox: Option<Arc<Mailbox>>,
    /// Seconds it outlives its connection.
    pub expiry_s: u32,
    /// When its connection closed, in milliseconds of [`Clock::steady_ms`](crate::clock::Clock::steady_ms).
    pub disconnected_ms: Option<u64>,
    /// Whether the row in the store tells less than is known here.
    pub row_is_stale: bool,
    /// By what that connection was let in.
    pub proof: Proof,
    /// The certificate that it has shown.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// What it subscribes to, with the filter's number.
    pub subscriptions: Vec<(FilterNumber, Subscription)>,
    /// What it is owed.
    pub outgoing: Outgoing,
    /// Its terminal's receipts, once it has subscribed to their topic. That
    /// subscription stands here and not among the others.
    pub receipts: Option<Box<ReceiptsQueue>>,
    /// QoS 2 identifiers taken and not yet released by the client.
    pub unreleased: Vec<u16>,
    /// Deliveries owed to it by rows of the store, and their payload bytes (as
    /// far as known since the start).
    pub owed: u64,
    /// See `owed`.
    pub owed_bytes: usize,
    /// To publish when its connection ends without leave.
    pub will: Option<(WillNumber, Will)>,
    /// Whether it has a link to the router.
    pub linked: bool,
    /// It was discarded; nothing may be added any more.
    pub ended: bool,
}

impl Session {
    /// A new session without subscriptions.
    pub fn new(client_id: ByteString, number: SessionNumber, expiry_s: u32) -> Self {
        Self {
            client_id,
            number,
            owner: Who::Anonymous,
            persistent: expiry_s > 0,
            state: Mutex::new(SessionState {
                epoch: 0,
                mailbox: None,
                proof: Proof::None,
                certificate: None,
                expiry_s,
                disconnected_ms: None,
                row_is_stale: true,
                subscriptions: Vec::new(),
                outgoing: Outgoing::default(),
                receipts: None,
                unreleased: Vec::new(),
                owed: 0,
                owed_bytes: 0,
                will: None,
                linked: false,
                ended: false,
            }),
            publishing: AtomicUsize::new(0),
        }
    }

    /// The same, of that owner.
    #[must_use]
    pub fn owned_by(mut self, owner: Who) -> Self {
        self.owner = owner;
        self
    }

    /// One that a restart finds: offline since its row says, or from now on if it
    /// was connected when the gateway died, or if a clock that was not set wrote the
    /// row. Its subscriptions and what it is owed are brought back by the caller.
    pub fn restore(client_id: ByteString, row: &SessionRow, now_ms: u64) -> Self {
        let owner = row.owner(&client_id);
        let session = Self::new(client_id, row.number, row.expiry_s.max(1)).owned_by(owner);
        {
            let mut state = session.lock();
            state.expiry_s = row.expiry_s;
            let since_ms = row
                .disconnected_ms
                .filter(|ms| (limits::CLOCK_SET_MS_MIN..=now_ms).contains(ms));
            state.disconnected_ms = Some(since_ms.unwrap_or(now_ms));
            state.row_is_stale = row.disconnected_ms.is_none();
        }
        session
    }

    /// Whether a CONNECT goes on with it: a session ends with its connection unless
    /// it is persistent; a clean start ends any (MQTT-3.1.2-4).
    pub fn is_resumed_by(&self, clean_start: bool, now_ms: u64) -> bool {
        self.persistent && !clean_start && !self.lock().has_expired(now_ms)
    }

    /// Its row as it is now.
    pub fn row(&self, state: &SessionState) -> Vec<u8> {
        let row = SessionRow::new(
            self.number,
            state.expiry_s,
            state.disconnected_ms,
            state.outgoing.sent(),
            state.receipts.as_ref().and_then(|r| r.sent()),
            state.all_subscriptions(),
        );
        rows::encode(&row.owned_by(&self.owner))
    }

    /// Messages it published that wait for the store.
    pub fn publishing(&self) -> usize {
        self.publishing.load(Ordering::Acquire)
    }

    /// One more waits.
    pub fn publishing_begins(&self) {
        self.publishing.fetch_add(1, Ordering::AcqRel);
    }

    /// One less waits.
    pub fn publishing_ends(&self) {
        self.publishing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Its state.
    pub fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.state.lock()
    }
}

/// What follows from a connection that takes its place in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seated {
    /// Its place.
    pub epoch: Epoch,
    /// The expiry is another one than the row says.
    pub expiry_changed: bool,
    /// The row says that the session is offline.
    pub stored_as_offline: bool,
}

impl SessionState {
    /// A connection takes its place; any older one acts in vain from now on.
    pub fn seat(&mut self, mailbox: Arc<Mailbox>, expiry_s: u32) -> Seated {
        self.epoch += 1;
        self.mailbox = Some(mailbox);
        let seated = Seated {
            epoch: self.epoch,
            expiry_changed: self.expiry_s != expiry_s,
            stored_as_offline: !self.row_is_stale,
        };
        self.expiry_s = expiry_s;
        self.disconnected_ms = None;
        self.start_over();
        if let Some(receipts) = &mut self.receipts {
            receipts.connected();
        }
        seated
    }

    /// The connection that holds it acts in vain from now on; its mailbox, to tell
    /// it so.
    pub fn unseat(&mut self) -> Option<Arc<Mailbox>> {
        self.epoch += 1;
        self.certificate = None;
        self.mailbox.take()
    }

    /// The connection of that place is over; `expiry_s` if it set another expiry.
    /// False: it had lost its place before.
    pub fn leave(&mut self, epoch: Epoch, now_ms: u64, expiry_s: Option<u32>) -> bool {
        if self.epoch != epoch || self.ended {
            return false;
        }
        self.unseat();
        self.disconnected_ms = Some(now_ms);
        self.row_is_stale = true;
        self.start_over();
        if let Some(expiry_s) = expiry_s {
            self.expiry_s = expiry_s;
        }
        true
    }

    /// SUBSCRIBE to its own receipts, by the connection of that place: the code of
    /// SUBACK, and whether the last receipt is asked for. `most` subscriptions a
    /// session.
    ///
    /// # Errors
    /// The code of the refusal.
    pub fn subscribe_receipts(
        &mut self,
        epoch: Epoch,
        subscription: Subscription,
        most: usize,
    ) -> Result<(ReasonCode, bool), ReasonCode> {
        if self.epoch != epoch || self.ended {
            return Err(ReasonCode::UnspecifiedError);
        }
        let handling = subscription.retain_handling;
        let code = match subscription.qos {
            Qos::AtMostOnce => ReasonCode::Success,
            Qos::AtLeastOnce | Qos::ExactlyOnce => ReasonCode::GrantedQos1,
        };
        let count = self.all_subscriptions().count();
        let is_new = match &mut self.receipts {
            Some(queue) if queue.subscription().is_some() => queue.subscribe(subscription),
            _ if count >= most => return Err(ReasonCode::QuotaExceeded),
            Some(queue) => queue.subscribe(subscription),
            none => {
                // Nothing was sent in this session yet.
                *none = Some(Box::new(ReceiptsQueue::resume(subscription, Some(0))));
                true
            }
        };
        let wants_last = match handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        Ok((code, wants_last))
    }

    /// Whether it is offline for as long as it may be.
    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.disconnected_ms
            .is_some_and(|since_ms| now_ms >= since_ms + u64::from(self.expiry_s) * 1000)
    }

    /// A delivery is owed no longer.
    pub fn forgive(&mut self, bytes: usize) {
        self.owed = self.owed.saturating_sub(1);
        self.owed_bytes = if self.owed == 0 {
            0
        } else {
            self.owed_bytes.saturating_sub(bytes)
        };
    }

    /// Every subscription, that to its receipts too.
    pub fn all_subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        let receipts = self.receipts.iter().filter_map(|r| r.subscription());
        self.subscriptions.iter().map(|(_, s)| s).chain(receipts)
    }

    /// The connection that had it is gone, or another one has it now: all that is
    /// owed is offered again from its start.
    pub fn start_over(&mut self) {
        self.outgoing.disconnected();
        if let Some(receipts) = &mut self.receipts {
            receipts.disconnected();
        }
    }

    /// Wakes its connection to send what waits.
    pub fn wake(&self) {
        if let Some(mailbox) = &self.mailbox {
            mailbox.deliver();
        }
    }
}

/// A message on its way to live sessions: who published it, when, and what.
#[derive(Debug, Clone)]
pub struct LiveEnvelope {
    /// The publisher's session; 0 for none (the gateway itself).
    pub publisher: SessionNumber,
    /// When the gateway took it, Unix milliseconds.
    pub received_ms: u64,
    /// The message as published.
    pub message: Message,
}

impl LiveEnvelope {
    /// Its bytes, as they travel through the router: publisher and time, both
    /// u64 big-endian, then the message's envelope.
    pub fn encode(publisher: SessionNumber, received_ms: u64, message: &Message) -> Bytes {
        let mut out = BytesMut::with_capacity(16 + message.encoded_len());
        out.put_u64(publisher);
        out.put_u64(received_ms);
        message.encode_into(&mut out);
        out.freeze()
    }

    /// From its bytes; none if they are not an envelope.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut bytes = bytes.clone();
        if bytes.len() < 16 {
            return None;
        }
        let publisher = bytes.get_u64();
        let received_ms = bytes.get_u64();
        Some(Self {
            publisher,
            received_ms,
            message: Message::decode(&bytes).ok()?,
        })
    }
}

/// The delivery of `message` under `subscription`: the lower QoS, and RETAIN
/// only if the subscription keeps it as published (MQTT-3.3.1-12, -13).
pub fn delivery(
    sequence: u64,
    message: Arc<Message>,
    subscription: &Subscription,
    received_ms: u64,
) -> Queued {
    Queued {
        sequence,
        qos: message.qos.min(subscription.qos),
        retain: message.retain && subscription.retain_as_published,
        subscription_ids: subscription.id.into_iter().collect(),
        message,
        received_ms,
        dup: false,
    }
}

impl LiveSubscriber for Session {
    fn offer(&self, filter: FilterNumber, envelope: &Bytes) -> bool {
        let mut state = self.lock();
        if state.mailbox.is_none() || state.ended {
            return true;
        }
        let Some(live) = LiveEnvelope::decode(envelope) else {
            return true;
        };
        let Some((_, subscription)) = state
            .subscriptions
            .iter()
            .find(|(number, s)| *number == filter && s.filter.share.is_none())
        else {
            return true;
        };
        if subscription.no_local && live.publisher == self.number {
            return true;
        }
        // The number may have stood for another filter when this was published.
        if !filter_matches(&subscription.filter.filter, &live.message.topic) {
            return true;
        }
        let mut queued = delivery(0, Arc::new(live.message), subscription, live.received_ms);
        if queued.qos != Qos::AtMostOnce {
            queued.sequence = state.outgoing.assign();
        }
        let has_room = state.outgoing.push(queued);
        state.wake();
        has_room
    }
}
