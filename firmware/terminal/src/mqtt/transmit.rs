//! Packets to the server, gathered into one buffer that leaves as one segment.
//!
//! Promises: a packet stands there whole or not at all, in its shortest form.
//! Never: a property that only says the standard's default.
//!
//! | packet | bytes, n for texts and payloads | section |
//! | --- | --- | --- |
//! | CONNECT | 25 + id, + 2 + token, + 3 with aliases, + 5 + topic with a will | 3.1 |
//! | PUBLISH | 5 + topic + payload, + 2 at QoS 1, + 3 with an alias | 3.3 |
//! | PUBACK | 4; 5 with a refusal | 3.4 |
//! | SUBSCRIBE | 8 + topic | 3.8 |
//! | PINGREQ, DISCONNECT | 2; DISCONNECT 3 with a reason | 3.12, 3.14 |
//!
//! From 128 bytes behind it, a length takes one byte more.

use super::reason::Reason;
use crate::limits::TRANSMIT_BYTES_MAX;
use crate::settings::Topic;

const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
/// With the bits that section 3.8.1 wants.
const SUBSCRIBE: u8 = 0x82;
const PINGREQ: u8 = 0xc0;
const DISCONNECT: u8 = 0xe0;

const DUP: u8 = 0x08;
const QOS_1: u8 = 0x02;
const RETAIN: u8 = 0x01;

/// Connect flags (section 3.1.2.3).
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL: u8 = 0x04;

/// Properties (section 2.2.2.2).
const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;
const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
const TOPIC_ALIAS: u8 = 0x23;

/// Subscription options (section 3.8.3.1): QoS 1, and no retained message, for a
/// receipt that was printed is none that is missing.
const OPTIONS: u8 = 0x21;

/// The only alias that a terminal defines: its records' topic.
const RECORDS_ALIAS: u16 = 1;

/// No room is left: send what is gathered, then go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

/// What a CONNECT says. Clean start is always 0.
#[derive(Debug, Clone, Copy)]
pub struct Connect<'a> {
    /// Client identifier.
    pub id: &'a str,
    /// Sent as password, without a user name; empty: none.
    pub token: &'a [u8],
    /// How long the server keeps the session, in seconds.
    pub session_expiry_s: u32,
    /// In seconds.
    pub keep_alive_s: u16,
    /// The largest packet that we take, in bytes.
    pub packet_bytes_max: u32,
    /// How many aliases the server may define.
    pub topic_alias_maximum: u16,
    /// Retained at QoS 0, without delay.
    pub will: Option<(Topic<'a>, &'a [u8])>,
}

/// What a PUBLISH says.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// Its topic.
    pub topic: Topic<'a>,
    /// The id within the topic.
    pub id: &'a str,
    /// Its packet identifier. QoS is 1.
    pub packet_id: u16,
    /// It may have been sent before.
    pub dup: bool,
    /// To be kept by the server.
    pub retain: bool,
    /// How the topic is told.
    pub alias: Alias,
    /// What it says.
    pub payload: &'a [u8],
}

/// How a PUBLISH tells its topic (section 3.3.2.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alias {
    /// By its name.
    None,
    /// By its name, with an alias for later.
    Defined,
    /// By the alias.
    Used,
}

/// The buffer.
#[derive(Debug)]
pub struct Transmit {
    bytes: [u8; TRANSMIT_BYTES_MAX],
    len: usize,
}

impl Transmit {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; TRANSMIT_BYTES_MAX],
            len: 0,
        }
    }

    /// What is to be sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Whether nothing is to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        TRANSMIT_BYTES_MAX - self.len
    }

    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends a CONNECT.
    ///
    /// # Errors
    /// It does not fit.
    pub fn connect(&mut self, connect: &Connect<'_>) -> Result<(), NoRoom> {
        let mut flags = 0;
        let aliases = connect.topic_alias_maximum > 0;
        let properties = if aliases { 13 } else { 10 };
        let mut remaining = 11 + properties + 2 + connect.id.len();
        if let Some((topic, payload)) = connect.will {
            flags |= WILL | WILL_RETAIN;
            remaining += 1 + 2 + topic.len(connect.id) + 2 + payload.len();
        }
        if !connect.token.is_empty() {
            flags |= PASSWORD;
            remaining += 2 + connect.token.len();
        }
        self.begin(CONNECT, remaining)?;
        self.put(&[0, 4, b'M', b'Q', b'T', b'T', 5, flags]);
        self.put_u16(connect.keep_alive_s);
        self.put(&[properties as u8, SESSION_EXPIRY_INTERVAL]);
        self.put(&connect.session_expiry_s.to_be_bytes());
        self.put(&[MAXIMUM_PACKET_SIZE]);
        self.put(&connect.packet_bytes_max.to_be_bytes());
        if aliases {
            self.put(&[TOPIC_ALIAS_MAXIMUM]);
            self.put_u16(connect.topic_alias_maximum);
        }
        self.put_binary(connect.id.as_bytes());
        if let Some((topic, payload)) = connect.will {
            self.put(&[0]);
            self.put_topic(topic, connect.id);
            self.put_binary(payload);
        }
        if !connect.token.is_empty() {
            self.put_binary(connect.token);
        }
        Ok(())
    }

    /// Appends a PUBLISH at QoS 1.
    ///
    /// # Errors
    /// It does not fit.
    pub fn publish(&mut self, publish: &Publish<'_>) -> Result<(), NoRoom> {
        let named = publish.alias != Alias::Used;
        let aliased = publish.alias != Alias::None;
        let topic = if named {
            publish.topic.len(publish.id)
        } else {
            0
        };
        let properties = if aliased { 3 } else { 0 };
        let remaining = 2 + topic + 2 + 1 + properties + publish.payload.len();
        let mut first = PUBLISH | QOS_1;
        if publish.dup {
            first |= DUP;
        }
        if publish.retain {
            first |= RETAIN;
        }
        self.begin(first, remaining)?;
        if named {
            self.put_topic(publish.topic, publish.id);
        } else {
            self.put_u16(0);
        }
        self.put_u16(publish.packet_id);
        self.put(&[properties as u8]);
        if aliased {
            self.put(&[TOPIC_ALIAS]);
            self.put_u16(RECORDS_ALIAS);
        }
        self.put(publish.payload);
        Ok(())
    }

    /// Appends a PUBACK.
    ///
    /// # Errors
    /// It does not fit.
    pub fn puback(&mut self, packet_id: u16, reason: Reason) -> Result<(), NoRoom> {
        let success = reason == Reason::SUCCESS;
        self.begin(PUBACK, if success { 2 } else { 3 })?;
        self.put_u16(packet_id);
        if !success {
            self.put(&[reason.0]);
        }
        Ok(())
    }

    /// Appends a SUBSCRIBE to one topic, at QoS 1.
    ///
    /// # Errors
    /// It does not fit.
    pub fn subscribe(&mut self, packet_id: u16, topic: Topic<'_>, id: &str) -> Result<(), NoRoom> {
        self.begin(SUBSCRIBE, 2 + 1 + 2 + topic.len(id) + 1)?;
        self.put_u16(packet_id);
        self.put(&[0]);
        self.put_topic(topic, id);
        self.put(&[OPTIONS]);
        Ok(())
    }

    /// Appends a PINGREQ.
    ///
    /// # Errors
    /// It does not fit.
    pub fn pingreq(&mut self) -> Result<(), NoRoom> {
        self.begin(PINGREQ, 0)
    }

    /// Appends a DISCONNECT.
    ///
    /// # Errors
    /// It does not fit.
    pub fn disconnect(&mut self, reason: Reason) -> Result<(), NoRoom> {
        if reason == Reason::SUCCESS {
            return self.begin(DISCONNECT, 0);
        }
        self.begin(DISCONNECT, 1)?;
        self.put(&[reason.0]);
        Ok(())
    }

    /// Begins a packet if all of it fits.
    fn begin(&mut self, first: u8, remaining: usize) -> Result<(), NoRoom> {
        let head = if remaining < 0x80 { 2 } else { 3 };
        if remaining >= 0x4000 || head + remaining > self.room() {
            return Err(NoRoom);
        }
        let low = (remaining & 0x7f) as u8;
        if head == 2 {
            self.put(&[first, low]);
        } else {
            self.put(&[first, low | 0x80, (remaining >> 7) as u8]);
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        // `begin` saw to it that all of a packet fits.
        if let Some(to) = self.bytes.get_mut(self.len..end) {
            to.copy_from_slice(bytes);
            self.len = end;
        }
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn put_binary(&mut self, bytes: &[u8]) {
        self.put_u16(bytes.len() as u16);
        self.put(bytes);
    }

    fn put_topic(&mut self, topic: Topic<'_>, id: &str) {
        self.put_u16(topic.len(id) as u16);
        for part in [topic.before, id, topic.behind] {
            self.put(part.as_bytes());
        }
    }
}

impl Default for Transmit {
    fn default() -> Self {
        Self::new()
    }
}
