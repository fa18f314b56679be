//! What one session is owed: the queue of deliveries and their packet identifiers.
//!
//! Promises: deliveries leave in the order of their sequence numbers; a packet
//! identifier follows from the sequence number, so a delivery keeps it across
//! reconnects and restarts (MQTT-4.4.0-1) without a write; memory is bounded
//! whatever waits in the store.
//!
//! For a persistent session every QoS 1 and 2 delivery is a row of the store
//! before it comes here; this queue is a window on those rows. When more wait
//! than it may hold, the rest stays in the store ([`Outgoing::wanted`] tells
//! where to read on). For a clean session the queue is all there is.
//!
//! A core: it knows no clock, store or socket.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use risiti_mqtt::{Message, Qos};

use crate::identifiers::Identifiers;
use crate::limits;

/// A session's own running number of a QoS 1 or 2 delivery; starts at 1, never
/// used again within the session.
pub type Sequence = u64;

/// One delivery that waits.
#[derive(Debug, Clone)]
pub struct Queued {
    /// 0 at QoS 0.
    pub sequence: Sequence,
    /// What is delivered; `qos` and `retain` here are those of the delivery,
    /// not the publisher's.
    pub message: Arc<Message>,
    /// The delivery's QoS: the lower of the message's and the subscription's.
    pub qos: Qos,
    /// The RETAIN flag as it goes out (MQTT-3.3.1-8, -9, -12, -13).
    pub retain: bool,
    /// Subscription identifiers of the subscriptions that matched.
    pub subscription_ids: Vec<u32>,
    /// When the gateway took the message, Unix milliseconds: its expiry runs
    /// from here.
    pub received_ms: u64,
    /// It may have been sent before.
    pub dup: bool,
}

/// A row of the store as a page brings it.
#[derive(Debug, Clone)]
pub enum Stored {
    /// Still to be delivered, or not yet acknowledged.
    Message(Queued),
    /// QoS 2, PUBREC seen: only PUBREL is owed.
    Released(Sequence),
}

/// What to send next.
#[derive(Debug, Clone)]
pub enum Next {
    /// A PUBLISH.
    Deliver(Queued),
    /// A PUBREL sent again after a reconnect.
    Release(Sequence),
}

/// A page of rows to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Rows above this number.
    pub after: Sequence,
    /// Rows up to this number were stored before the page was asked for.
    known: Sequence,
}

/// What is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InFlight {
    Sent { qos: Qos, bytes: usize },
    Released,
}

/// The queue of one session.
#[derive(Debug)]
pub struct Outgoing {
    /// The next delivery gets this number.
    next: Sequence,
    /// Highest number that was brought into `waiting` on this connection.
    loaded: Sequence,
    /// Highest number that is in the store but was not brought in; 0 for none.
    skipped: Sequence,
    /// Highest number that was ever sent: up to here DUP is set.
    sent: Sequence,
    waiting: VecDeque<Next>,
    waiting_bytes: usize,
    in_flight: BTreeMap<Sequence, InFlight>,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::resume(1, 0)
    }
}

impl Outgoing {
    /// A queue whose rows below `next` are in the store. `sent` is the highest
    /// number that may have been sent already.
    pub fn resume(next: Sequence, sent: Sequence) -> Self {
        Self {
            next: next.max(1),
            loaded: 0,
            skipped: next.max(1) - 1,
            sent,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: BTreeMap::new(),
        }
    }

    /// The packet identifier of a delivery.
    pub fn packet_id(sequence: Sequence) -> u16 {
        Identifiers::MESSAGES.of(sequence)
    }

    /// Gives the next number away.
    pub fn assign(&mut self) -> Sequence {
        let sequence = self.next;
        self.next += 1;
        sequence
    }

    /// Highest number that was ever sent.
    pub fn sent(&self) -> Sequence {
        self.sent
    }

    /// The number the next delivery will get.
    pub fn next_sequence(&self) -> Sequence {
        self.next
    }

    /// Whether `bytes` more would pass the bound for memory of what is in the
    /// store as well.
    fn is_full(&self, bytes: usize) -> bool {
        self.waiting.len() >= limits::SESSION_WAITING_MAX
            || (!self.waiting.is_empty()
                && self.waiting_bytes + bytes > limits::SESSION_WAITING_BYTES_MAX)
    }

    /// Whether one more of `bytes` that is nowhere else would pass its bound.
    fn is_full_of_live(&self, bytes: usize) -> bool {
        self.waiting.len() >= limits::LIVE_WAITING_MAX
            || (!self.waiting.is_empty()
                && self.waiting_bytes + bytes > limits::LIVE_WAITING_BYTES_MAX)
    }

    /// Offers a delivery of a persistent session that is in the store now.
    /// It is taken into memory or, if too many wait, left to a later page.
    pub fn stored(&mut self, queued: Queued) {
        if self.skipped > self.loaded || self.is_full(queued.message.payload.len()) {
            self.skipped = self.skipped.max(queued.sequence);
        } else {
            self.take_in(queued);
        }
    }

    /// Offers a delivery that exists in memory only: QoS 0, or of a clean
    /// session. False if there is no room.
    pub fn push(&mut self, queued: Queued) -> bool {
        if self.is_full_of_live(queued.message.payload.len()) {
            return false;
        }
        self.take_in(queued);
        true
    }

    fn take_in(&mut self, mut queued: Queued) {
        if queued.sequence != 0 {
            if queued.sequence <= self.loaded {
                return;
            }
            self.loaded = queued.sequence;
            queued.dup |= queued.sequence <= self.sent;
        }
        self.waiting_bytes += queued.message.payload.len();
        self.waiting.push_back(Next::Deliver(queued));
    }

    /// The next page to read from the store, if one is needed and there is room.
    pub fn wanted(&self) -> Option<Page> {
        (self.skipped > self.loaded && self.waiting.is_empty()).then_some(Page {
            after: self.loaded,
            known: self.skipped,
        })
    }

    /// Takes the rows of a page, in order. `complete`: the store had no more
    /// when it was read.
    pub fn page(&mut self, page: Page, rows: Vec<Stored>, complete: bool) {
        for row in rows {
            match row {
                Stored::Message(queued) => self.take_in(queued),
                Stored::Released(sequence) if sequence > self.loaded => {
                    self.loaded = sequence;
                    self.waiting.push_back(Next::Release(sequence));
                }
                Stored::Released(_) => {}
            }
        }
        if complete {
            // Rows up to `known` were stored before the page was read; what was
            // skipped while it was read is above, and wants another page.
            self.loaded = self.loaded.max(page.known);
        }
    }

    /// Takes out what is to be sent next. `window`: how many QoS 1 and 2
    /// deliveries may still be in flight.
    pub fn next(&mut self, window: usize) -> Option<Next> {
        match self.waiting.front()? {
            Next::Deliver(q)
                if q.qos != Qos::AtMostOnce
                    && (window == 0 || !self.identifier_is_free(q.sequence)) =>
            {
                return None;
            }
            _ => {}
        }
        let next = self.waiting.pop_front()?;
        match &next {
            Next::Deliver(q) => {
                self.waiting_bytes -= q.message.payload.len();
                if q.qos != Qos::AtMostOnce {
                    self.sent = self.sent.max(q.sequence);
                    self.in_flight.insert(
                        q.sequence,
                        InFlight::Sent {
                            qos: q.qos,
                            bytes: q.message.payload.len(),
                        },
                    );
                }
            }
            Next::Release(sequence) => {
                self.in_flight.insert(*sequence, InFlight::Released);
            }
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to(limits::SESSION_WAITING_KEPT);
        }
        Some(next)
    }

    /// Identifiers repeat: a client that never acknowledges its oldest delivery
    /// must not meet the same one twice.
    fn identifier_is_free(&self, sequence: Sequence) -> bool {
        self.in_flight
            .first_key_value()
            .is_none_or(|(oldest, _)| sequence - oldest < Identifiers::MESSAGES.count())
    }

    /// The delivery in flight under that identifier.
    fn find(&self, packet_id: u16) -> Option<(Sequence, InFlight)> {
        self.in_flight
            .iter()
            .find(|(sequence, _)| Self::packet_id(**sequence) == packet_id)
            .map(|(sequence, state)| (*sequence, *state))
    }

    /// PUBREC came: the number whose row now says so. `None`: nothing of that
    /// identifier waits for it.
    pub fn received(&mut self, packet_id: u16) -> Option<Sequence> {
        let (sequence, state) = self.find(packet_id)?;
        match state {
            InFlight::Sent {
                qos: Qos::ExactlyOnce,
                ..
            }
            | InFlight::Released => {
                self.in_flight.insert(sequence, InFlight::Released);
                Some(sequence)
            }
            InFlight::Sent { .. } => None,
        }
    }

    /// PUBACK or PUBCOMP came (or a refusal, or the delivery was skipped): the
    /// number whose row can go, and the bytes of its payload as far as known.
    pub fn done(&mut self, packet_id: u16) -> Option<(Sequence, usize)> {
        let (sequence, state) = self.find(packet_id)?;
        self.in_flight.remove(&sequence);
        match state {
            InFlight::Sent { bytes, .. } => Some((sequence, bytes)),
            InFlight::Released => Some((sequence, 0)),
        }
    }

    /// The connection is gone; what survives is in the store. Memory is given
    /// back, and the next connection starts from the first row.
    pub fn disconnected(&mut self) {
        *self = Self::resume(self.next, self.sent);
    }

    /// Deliveries that wait in memory or are in flight.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    /// Whether all that may be sent was sent, here and in the store.
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.skipped <= self.loaded
    }

    /// Whether nothing waits in memory and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is room for another delivery in memory.
    pub fn has_room(&self) -> bool {
        !self.is_full(0)
    }
}

#[cfg(test)]
mod tests;
