//! One connection to a gateway: what is in flight, what is awaited, until when.
//!
//! Promises: records leave within the window and in the order in which they are
//! given; every wait for an answer ends; what breaks the standard is a [`Fault`].
//! Never: a clock, a socket, a flash, or memory of an earlier connection.
//!
//! # Packet identifiers
//!
//! | identifier | packet |
//! | --- | --- |
//! | 1 to 65,000 | PUBLISH of a record: 1 + sequence number modulo 65,000 |
//! | 65,534 | PUBLISH of the birth message |
//! | 65,535 | SUBSCRIBE |
//!
//! So a record that is sent again, on whatever connection and after whatever power
//! cut, has its original identifier (MQTT-4.4.0-1) without a word of flash.

use heapless::Vec;

use super::incoming::{ConnAck, Fault, Incoming, Publish as Message};
use super::reason::Reason;
use super::transmit::{Alias, Connect, NoRoom, Publish, Transmit};
use crate::limits::{ANSWER_MS, PIPELINE_MAX};
use crate::settings::Settings;

const RECORD_IDS: u32 = 65_000;
const BIRTH_ID: u16 = 65_534;
const SUBSCRIBE_ID: u16 = 65_535;

/// The alias that a server may define, if any.
const RECEIPTS_ALIAS: u16 = 1;

/// What a packet from the server means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// CONNACK lets us in.
    Accepted {
        /// The server had our session.
        session_present: bool,
    },
    /// CONNACK does not. Nothing that was sent behind CONNECT was looked at
    /// (section 3.1.4).
    Refused(Reason),
    /// PUBACK of a record.
    Acknowledged {
        /// Its number.
        sequence: u32,
        /// What became of it.
        reason: Reason,
    },
    /// PUBACK of the birth message.
    Reported(Reason),
    /// SUBACK.
    Subscribed(Reason),
    /// A message on the receipts' topic; or on another, to which nobody subscribed.
    Message {
        /// To be acknowledged.
        packet_id: Option<u16>,
        /// Whether its topic is the receipts'.
        is_receipt: bool,
        /// What it says.
        payload: &'a [u8],
    },
    /// The server takes its leave.
    Closed(Reason),
    /// Nothing to do.
    None,
}

/// Why a record does not leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many as may wait for their PUBACK, or one with the same identifier.
    Window,
    /// The buffer is full: send it.
    Room,
    /// Larger than the server takes.
    TooLarge,
}

/// An answer did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut;

/// One connection.
#[derive(Debug)]
pub struct Client {
    accepted: bool,
    /// PUBLISHes that may wait for their PUBACK.
    window: usize,
    /// Records without PUBACK, in the order in which they were sent.
    records: Vec<u32, PIPELINE_MAX>,
    awaits_birth: bool,
    awaits_suback: bool,
    awaits_pong: bool,
    packet_bytes_max: u32,
    may_alias: bool,
    alias_defined: bool,
    takes_retain: bool,
    keep_alive_ms: u32,
    /// What the server's alias stands for, once it has defined it.
    alias_is_receipts: Option<bool>,
    may_be_aliased: bool,
    /// When we last sent something.
    sent_ms: u64,
    /// Since when an answer is awaited and none comes.
    awaiting_since_ms: u64,
}

impl Client {
    /// A connection on which nothing was said. `window` holds until CONNACK tells.
    #[must_use]
    pub fn new(window: u16) -> Self {
        Self {
            accepted: false,
            window: usize::from(window).min(PIPELINE_MAX),
            records: Vec::new(),
            awaits_birth: false,
            awaits_suback: false,
            awaits_pong: false,
            packet_bytes_max: u32::MAX,
            may_alias: false,
            alias_defined: false,
            takes_retain: true,
            keep_alive_ms: 0,
            alias_is_receipts: None,
            may_be_aliased: false,
            sent_ms: 0,
            awaiting_since_ms: 0,
        }
    }

    /// CONNECT.
    ///
    /// # Errors
    /// It does not fit into the buffer.
    pub fn connect(
        &mut self,
        now_ms: u64,
        connect: &Connect<'_>,
        to: &mut Transmit,
    ) -> Result<(), NoRoom> {
        to.connect(connect)?;
        self.keep_alive_ms = u32::from(connect.keep_alive_s) * 1_000;
        self.may_be_aliased = connect.topic_alias_maximum > 0;
        self.awaiting_since_ms = now_ms;
        Ok(())
    }

    /// SUBSCRIBE to the receipts.
    ///
    /// # Errors
    /// It does not fit into the buffer.
    pub fn subscribe(
        &mut self,
        now_ms: u64,
        settings: &Settings<'_>,
        to: &mut Transmit,
    ) -> Result<(), NoRoom> {
        to.subscribe(SUBSCRIBE_ID, settings.receipts, settings.id)?;
        self.await_more(now_ms);
        self.awaits_suback = true;
        Ok(())
    }

    /// The birth message, retained.
    ///
    /// # Errors
    /// It does not leave now.
    pub fn report(
        &mut self,
        now_ms: u64,
        settings: &Settings<'_>,
        payload: &[u8],
        to: &mut Transmit,
    ) -> Result<(), Refusal> {
        let in_flight = usize::from(self.awaits_birth) + self.records.len();
        if in_flight >= self.window {
            return Err(Refusal::Window);
        }
        let publish = Publish {
            topic: settings.status,
            id: settings.id,
            packet_id: BIRTH_ID,
            dup: false,
            retain: true,
            alias: Alias::None,
            payload,
        };
        self.publish(&publish, to)?;
        self.await_more(now_ms);
        self.awaits_birth = true;
        Ok(())
    }

    /// A record. `dup`: it was sent before, and had no PUBACK. `more`: others
    /// follow, so that an alias pays.
    ///
    /// # Errors
    /// It does not leave now.
    pub fn record(
        &mut self,
        now_ms: u64,
        settings: &Settings<'_>,
        record: &Record<'_>,
        to: &mut Transmit,
    ) -> Result<(), Refusal> {
        let packet_id = packet_id(record.sequence);
        let in_flight = usize::from(self.awaits_birth) + self.records.len();
        let in_use = |one: &u32| self::packet_id(*one) == packet_id;
        if in_flight >= self.window || self.records.iter().any(in_use) {
            return Err(Refusal::Window);
        }
        let alias = match (self.alias_defined, self.may_alias && record.more) {
            (true, _) => Alias::Used,
            (false, true) => Alias::Defined,
            (false, false) => Alias::None,
        };
        let publish = Publish {
            topic: settings.records,
            id: settings.id,
            packet_id,
            dup: record.dup,
            retain: false,
            alias,
            payload: record.payload,
        };
        self.publish(&publish, to)?;
        self.alias_defined |= alias == Alias::Defined;
        self.await_more(now_ms);
        // The window is no wider than the list.
        let _full = self.records.push(record.sequence);
        Ok(())
    }

    fn publish(&self, publish: &Publish<'_>, to: &mut Transmit) -> Result<(), Refusal> {
        let before = to.room();
        let most = 10 + publish.topic.len(publish.id) + publish.payload.len();
        if most > self.packet_bytes_max as usize {
            return Err(Refusal::TooLarge);
        }
        to.publish(publish).map_err(|NoRoom| match before {
            crate::limits::TRANSMIT_BYTES_MAX => Refusal::TooLarge,
            _ => Refusal::Room,
        })
    }

    /// A packet came.
    ///
    /// # Errors
    /// The server's fault: tell it with DISCONNECT, and close.
    pub fn handle<'a>(
        &mut self,
        now_ms: u64,
        settings: &Settings<'_>,
        packet: &'a [u8],
    ) -> Result<Event<'a>, Fault> {
        let incoming = Incoming::decode(packet)?;
        if self.accepted == matches!(incoming, Incoming::ConnAck(_)) {
            return Err(Fault::Protocol); // MQTT-3.2.0-1, -2; section 4.1
        }
        Ok(match incoming {
            Incoming::ConnAck(connack) => self.connack(now_ms, &connack),
            Incoming::Publish(message) => self.message(settings, &message)?,
            Incoming::PubAck { packet_id, reason } => self.puback(now_ms, packet_id, reason),
            Incoming::SubAck { packet_id, reason } => {
                if packet_id != SUBSCRIBE_ID || !self.awaits_suback {
                    return Ok(Event::None);
                }
                self.awaits_suback = false;
                self.awaiting_since_ms = now_ms;
                Event::Subscribed(reason)
            }
            Incoming::PingResp => {
                self.awaits_pong = false;
                Event::None
            }
            Incoming::Disconnect { reason } => Event::Closed(reason),
        })
    }

    fn connack(&mut self, now_ms: u64, connack: &ConnAck) -> Event<'static> {
        if connack.reason.is_error() {
            return Event::Refused(connack.reason);
        }
        if !connack.takes_qos_1 {
            return Event::Refused(Reason::QOS_NOT_SUPPORTED);
        }
        self.accepted = true;
        self.awaiting_since_ms = now_ms;
        self.window = usize::from(connack.receive_maximum).min(PIPELINE_MAX);
        self.packet_bytes_max = connack.packet_bytes_max;
        self.may_alias = connack.topic_alias_maximum > 0;
        self.takes_retain = connack.takes_retain;
        if let Some(keep_alive_s) = connack.keep_alive_s {
            self.keep_alive_ms = u32::from(keep_alive_s) * 1_000; // MQTT-3.1.2-21
        }
        Event::Accepted {
            session_present: connack.session_present,
        }
    }

    fn message<'a>(
        &mut self,
        settings: &Settings<'_>,
        message: &Message<'a>,
    ) -> Result<Event<'a>, Fault> {
        let named = settings.receipts.is(settings.id, message.topic);
        let is_receipt = match message.alias {
            None => named,
            Some(RECEIPTS_ALIAS) if self.may_be_aliased => {
                if !message.topic.is_empty() {
                    self.alias_is_receipts = Some(named);
                }
                self.alias_is_receipts.ok_or(Fault::Protocol)?
            }
            Some(_) => return Err(Fault::Alias), // MQTT-3.1.2-26
        };
        Ok(Event::Message {
            packet_id: message.packet_id,
            is_receipt,
            payload: message.payload,
        })
    }

    fn puback(&mut self, now_ms: u64, packet_id: u16, reason: Reason) -> Event<'static> {
        if packet_id == BIRTH_ID && self.awaits_birth {
            self.awaits_birth = false;
            self.awaiting_since_ms = now_ms;
            return Event::Reported(reason);
        }
        let mut records = self.records.iter();
        let Some(at) = records.position(|one| self::packet_id(*one) == packet_id) else {
            return Event::None; // said before
        };
        let sequence = self.records.remove(at);
        self.awaiting_since_ms = now_ms;
        Event::Acknowledged { sequence, reason }
    }

    /// Whether CONNACK let us in.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.accepted
    }

    /// Whether the server keeps retained messages, as far as it told.
    #[must_use]
    pub fn takes_retain(&self) -> bool {
        self.takes_retain
    }

    /// How many PUBLISHes the server takes before their PUBACK, up to our own
    /// bound.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.window as u16
    }

    /// How many records wait for their PUBACK.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.records.len()
    }

    /// Whether the server owes an answer without which we do not leave.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        !self.accepted || self.awaits_birth || self.awaits_suback || !self.records.is_empty()
    }

    /// Something was sent.
    pub fn sent(&mut self, now_ms: u64) {
        self.sent_ms = now_ms;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let answer = (self.awaits_answer() || self.awaits_pong)
            .then_some(self.awaiting_since_ms.saturating_add(ANSWER_MS));
        let ping = (self.accepted && self.keep_alive_ms > 0 && !self.awaits_pong)
            .then_some(self.ping_ms());
        match (answer, ping) {
            (Some(answer), Some(ping)) => Some(answer.min(ping)),
            (answer, ping) => answer.or(ping),
        }
    }

    /// Acts on what is due by now: keeps the connection alive, or gives it up.
    ///
    /// # Errors
    /// An answer did not come in time.
    pub fn handle_timeout(&mut self, now_ms: u64, to: &mut Transmit) -> Result<(), TimedOut> {
        if self.poll_timeout().is_none_or(|due_ms| now_ms < due_ms) {
            return Ok(());
        }
        let awaits = self.awaits_answer() || self.awaits_pong;
        if awaits && now_ms >= self.awaiting_since_ms.saturating_add(ANSWER_MS) {
            return Err(TimedOut);
        }
        if to.pingreq().is_ok() {
            self.await_more(now_ms);
            self.awaits_pong = true;
        }
        Ok(())
    }

    /// Three quarters of the keep alive: what is sent by then arrives by its end
    /// (MQTT-3.1.2-20).
    fn ping_ms(&self) -> u64 {
        let quiet_ms = self.keep_alive_ms - self.keep_alive_ms / 4;
        self.sent_ms.saturating_add(quiet_ms.into())
    }

    /// One more answer is awaited: its time begins now unless others are late.
    fn await_more(&mut self, now_ms: u64) {
        if self.accepted && !self.awaits_answer() && !self.awaits_pong {
            self.awaiting_since_ms = now_ms;
        }
    }
}

/// A record to be published.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its number.
    pub sequence: u32,
    /// It was sent before, and had no PUBACK.
    pub dup: bool,
    /// Others follow, so that an alias pays.
    pub more: bool,
    /// The record.
    pub payload: &'a [u8],
}

/// The packet identifier of a record.
#[must_use]
pub fn packet_id(sequence: u32) -> u16 {
    (1 + sequence % RECORD_IDS) as u16
}
