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
use risiti_mqtt::{Message, Qos, Subscription, Will};

use crate::fanout::{FilterNumber, LiveSubscriber};
use crate::mailbox::Mailbox;
use crate::outgoing::{Outgoing, Queued};
use crate::receipts::ReceiptsQueue;
use crate::rows::{SessionNumber, WillNumber};

/// A connection's place in a session: only the holder of the newest may act.
pub type Epoch = u64;

/// One session.
pub struct Session {
    /// Its client identifier.
    pub client_id: ByteString,
    /// Unique among all sessions of all time of this gateway: names its rows
    /// and its router link.
    pub number: SessionNumber,
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
            persistent: expiry_s > 0,
            state: Mutex::new(SessionState {
                epoch: 0,
                mailbox: None,
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

impl SessionState {
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
