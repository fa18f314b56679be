//! One network connection's protocol: bytes and time in, bytes and events out.
//!
//! # The contract with the shell
//!
//! The shell owns the socket and the clock and loops over:
//!
//! 1. bytes read → [`Connection::handle_input`]; what it leaves in the buffer is
//!    kept and given again, with or without more bytes, after the next answer or
//!    write. While [`Connection::wants_input`] is false the shell does not read.
//! 2. [`Connection::poll_event`] until `None`; each event answered, now or later.
//! 3. [`Connection::transmit`]: bytes to write; the shell takes what it wrote off
//!    the front.
//! 4. [`Connection::poll_timeout`] → [`Connection::handle_timeout`].
//!
//! Times are milliseconds of any clock that never goes back.
//!
//! # What it keeps
//!
//! PUBACK, PUBREC and PUBCOMP leave only after the shell's answer. PINGREQ is
//! answered at once, however many PUBLISHes wait. Only a PUBLISH beyond the window
//! waits unread (v5: is a protocol error), and while the core does not read, the
//! keep alive does not run out. [`Event::Closed`] comes exactly once; after it,
//! every call is without effect.

mod answers;
mod event;
mod inbound;
mod outbound;
mod packets;

use std::collections::VecDeque;

use bytes::BytesMut;

pub use event::{Accept, CloseCause, Closed, ConnectRequest, Deliver, Delivery, Event, Will};

use crate::codec::Version;
use crate::codec::writer::Form;
use crate::limits::ConnectionLimits;
use crate::reason::ReasonCode;
use inbound::Inbound;
use outbound::Outbound;

/// What dies with the network connection.
#[derive(Debug)]
pub struct Connection {
    limits: ConnectionLimits,
    stage: Stage,
    /// As far as CONNECT told it.
    version: Option<Version>,
    clean_start: bool,
    request_problem_information: bool,
    /// CONNECT set no session expiry interval, so DISCONNECT may not either.
    session_expires_at_once: bool,
    /// Input waits for the shell, not for the client.
    blocked: bool,
    /// The shell takes no PUBLISH for now.
    holds_publishes: bool,
    keep_alive_s: u16,
    /// SUBSCRIBE and UNSUBSCRIBE without answer.
    unanswered_requests: u16,
    client_packet_bytes_max: u32,
    /// When the last packet came, or when reading went on after a wait of ours.
    heard_ms: u64,
    inbound: Inbound,
    outbound: Outbound,
    transmit: BytesMut,
    events: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    AwaitConnect,
    /// The shell has the CONNECT.
    Deciding,
    Open,
    Closed,
}

impl Connection {
    /// A connection that was just opened and has to say CONNECT first.
    pub fn new(limits: &ConnectionLimits, now_ms: u64) -> Self {
        Self {
            limits: *limits,
            stage: Stage::AwaitConnect,
            version: None,
            clean_start: false,
            request_problem_information: true,
            session_expires_at_once: false,
            blocked: false,
            holds_publishes: false,
            keep_alive_s: 0,
            unanswered_requests: 0,
            client_packet_bytes_max: u32::MAX,
            heard_ms: now_ms,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            transmit: BytesMut::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes whole packets off `input` as far as it may. What is left is an
    /// unfinished packet, or waits for an answer from the shell.
    pub fn handle_input(&mut self, now_ms: u64, input: &mut BytesMut) {
        if self.blocked {
            self.heard_ms = now_ms; // our wait is not the client's silence
        }
        while self.stage != Stage::Closed {
            match self.handle_next(now_ms, input) {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => self.fail(fault),
            }
        }
        input.clear();
    }

    /// Whether more bytes from the network are of use. False while packets
    /// already read wait for an answer, and once closed.
    pub fn wants_input(&self) -> bool {
        matches!(self.stage, Stage::AwaitConnect | Stage::Open) && !self.blocked
    }

    /// Leaves PUBLISHes unread until told otherwise; all that comes before the
    /// first of them is still served. Takes effect with the next
    /// [`Connection::handle_input`].
    pub fn hold_publishes(&mut self, hold: bool) {
        self.holds_publishes = hold;
    }

    /// When [`Connection::handle_timeout`] is due, if at all.
    pub fn poll_timeout(&self) -> Option<u64> {
        let timeout_ms = match self.stage {
            Stage::AwaitConnect => u64::from(self.limits.connect_timeout_ms),
            Stage::Open if self.keep_alive_s > 0 && !self.blocked => self.keep_alive_timeout_ms(),
            _ => return None,
        };
        Some(self.heard_ms.saturating_add(timeout_ms))
    }

    /// Acts on what is due by now.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        if self.poll_timeout().is_none_or(|due_ms| now_ms < due_ms) {
            return;
        }
        if self.stage == Stage::AwaitConnect {
            let timeout_ms = self.limits.connect_timeout_ms;
            return self.end_by_stage(CloseCause::ConnectTimeout { timeout_ms });
        }
        let timeout_ms = self.keep_alive_timeout_ms();
        let cause = CloseCause::KeepAliveTimeout { timeout_ms };
        self.say_goodbye(ReasonCode::KeepAliveTimeout, "");
        self.end_by_stage(cause);
    }

    /// The network connection ended (end of stream or an error).
    pub fn handle_transport_lost(&mut self) {
        self.end_by_stage(CloseCause::TransportLost);
    }

    /// Bytes to write.
    pub fn transmit(&mut self) -> &mut BytesMut {
        &mut self.transmit
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives back memory that an idle connection does not need; to be called
    /// before waiting long.
    pub fn release_spare_memory(&mut self) {
        if self.transmit.is_empty() {
            self.transmit = BytesMut::new();
        }
        self.events.shrink_to_fit();
        self.inbound.release_spare_memory();
        self.outbound.release_spare_memory();
    }

    /// Heap memory held, in bytes, without what waiting events hold.
    pub fn heap_bytes(&self) -> usize {
        self.transmit.capacity()
            + self.events.capacity() * size_of::<Event>()
            + self.inbound.heap_bytes()
            + self.outbound.heap_bytes()
    }

    /// The version, once CONNECT told it.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// Whether it is accepted and not closed.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    fn form(&self) -> Form {
        Form {
            version: self.version.unwrap_or(Version::V311),
            packet_bytes_max: self.client_packet_bytes_max,
        }
    }

    /// One and a half times the keep alive (MQTT-3.1.2-22).
    fn keep_alive_timeout_ms(&self) -> u64 {
        u64::from(self.keep_alive_s) * 1500
    }

    /// Ends it; the will is due if there is a session to have one.
    fn end_by_stage(&mut self, cause: CloseCause) {
        let publish_will = self.stage == Stage::Open;
        self.end(cause, publish_will, None);
    }

    fn end(&mut self, cause: CloseCause, publish_will: bool, session_expiry_s: Option<u32>) {
        if self.stage == Stage::Closed {
            return;
        }
        self.stage = Stage::Closed;
        self.blocked = false;
        self.inbound = Inbound::default();
        self.outbound = Outbound::default();
        let closed = Closed {
            cause,
            publish_will,
            session_expiry_s,
        };
        self.events.push_back(Event::Closed(Box::new(closed)));
    }
}
