//! Packets from the server.
//!
//! Promises: a packet is taken only if all of it is what the standard says,
//! properties too; else the [`Fault`] is the reason that a DISCONNECT gives.
//! Never: a length believed before the bytes are there, or a panic.

use super::reason::Reason;

/// Why a packet is refused: the server's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It can't be read as the standard says.
    Malformed,
    /// It may not be sent, or not now.
    Protocol,
    /// It is larger than we said that we take.
    TooLarge,
    /// It uses an alias beyond what we said, or one never defined.
    Alias,
}

impl Fault {
    /// For the DISCONNECT.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Malformed => Reason::MALFORMED_PACKET,
            Self::Protocol => Reason::PROTOCOL_ERROR,
            Self::TooLarge => Reason::PACKET_TOO_LARGE,
            Self::Alias => Reason::TOPIC_ALIAS_INVALID,
        }
    }
}

/// A packet from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// CONNACK (section 3.2).
    ConnAck(ConnAck),
    /// PUBLISH (section 3.3) at QoS 0 or 1.
    Publish(Publish<'a>),
    /// PUBACK (section 3.4).
    PubAck {
        /// Of our PUBLISH.
        packet_id: u16,
        /// What became of it.
        reason: Reason,
    },
    /// SUBACK (section 3.9) for one filter.
    SubAck {
        /// Of our SUBSCRIBE.
        packet_id: u16,
        /// What became of it.
        reason: Reason,
    },
    /// PINGRESP (section 3.13).
    PingResp,
    /// DISCONNECT (section 3.14).
    Disconnect {
        /// Why.
        reason: Reason,
    },
}

/// What a CONNACK says, as far as a terminal acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck {
    /// The server had our session.
    pub session_present: bool,
    /// Whether we are let in.
    pub reason: Reason,
    /// How many PUBLISHes may wait for their PUBACK.
    pub receive_maximum: u16,
    /// The largest packet that the server takes, in bytes.
    pub packet_bytes_max: u32,
    /// How many aliases we may define.
    pub topic_alias_maximum: u16,
    /// To be used instead of ours, in seconds.
    pub keep_alive_s: Option<u16>,
    /// QoS 1 is taken.
    pub takes_qos_1: bool,
    /// Retained messages are taken.
    pub takes_retain: bool,
}

/// What a PUBLISH says, as far as a terminal acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Its topic; empty if only the alias tells it.
    pub topic: &'a [u8],
    /// Its topic's alias.
    pub alias: Option<u16>,
    /// None at QoS 0.
    pub packet_id: Option<u16>,
    /// What it says.
    pub payload: &'a [u8],
}

/// How long the packet at the head of `bytes` is, with its fixed header; none if
/// that can't be told yet.
///
/// # Errors
/// Its length is malformed (MQTT-1.5.5), or beyond `bytes_max`.
pub fn packet_len(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Fault> {
    let mut remaining = 0_u32;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if index > 0 && *byte == 0 {
                return Err(Fault::Malformed); // MQTT-1.5.5-1: not the shortest
            }
            let len = remaining as usize + 2 + index;
            return if len <= bytes_max {
                Ok(Some(len))
            } else {
                Err(Fault::TooLarge)
            };
        }
    }
    if bytes.len() > 4 {
        Err(Fault::Malformed)
    } else {
        Ok(None)
    }
}

impl<'a> Incoming<'a> {
    /// Reads one whole packet, of the length that [`packet_len`] told.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(packet: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = Reader(packet);
        let first = reader.u8()?;
        reader.variable()?;
        let flags = first & 0x0f;
        if first >> 4 != 3 && flags != 0 && !matches!(first >> 4, 6 | 8 | 10) {
            return Err(Fault::Malformed); // MQTT-2.1.3-1
        }
        match first >> 4 {
            0 => Err(Fault::Malformed),
            2 => connack(&mut reader).map(Self::ConnAck),
            3 => publish(flags, reader).map(Self::Publish),
            4 => puback(&mut reader),
            9 => suback(&mut reader),
            13 if reader.0.is_empty() => Ok(Self::PingResp),
            13 => Err(Fault::Malformed),
            14 => disconnect(&mut reader),
            // A client's packets; and answers to what a terminal never asks.
            _ => Err(Fault::Protocol),
        }
    }
}

fn connack<'a>(reader: &mut Reader<'a>) -> Result<ConnAck, Fault> {
    let flags = reader.u8()?;
    let reason = Reason(reader.u8()?);
    if flags > 1 || (flags == 1 && reason.is_error()) {
        return Err(Fault::Malformed); // MQTT-3.2.2-1, -6
    }
    if reason != Reason::SUCCESS && !reason.is_error() {
        return Err(Fault::Malformed); // MQTT-3.2.2-8: 3.1.1's return codes are none
    }
    let mut connack = ConnAck {
        session_present: flags == 1,
        reason,
        receive_maximum: u16::MAX,
        packet_bytes_max: u32::MAX,
        topic_alias_maximum: 0,
        keep_alive_s: None,
        takes_qos_1: true,
        takes_retain: true,
    };
    reader.properties(id::IN_CONNACK, &mut |id, number| {
        match id {
            id::RECEIVE_MAXIMUM | id::MAXIMUM_PACKET_SIZE if number == 0 => {
                return Err(Fault::Protocol);
            }
            id::RECEIVE_MAXIMUM => connack.receive_maximum = number as u16,
            id::MAXIMUM_PACKET_SIZE => connack.packet_bytes_max = number,
            id::TOPIC_ALIAS_MAXIMUM => connack.topic_alias_maximum = number as u16,
            id::SERVER_KEEP_ALIVE => connack.keep_alive_s = Some(number as u16),
            id::MAXIMUM_QOS => connack.takes_qos_1 = number > 0,
            id::RETAIN_AVAILABLE => connack.takes_retain = number > 0,
            _ => {}
        }
        Ok(())
    })?;
    reader.end()?;
    Ok(connack)
}

fn publish(flags: u8, mut reader: Reader<'_>) -> Result<Publish<'_>, Fault> {
    let qos = flags >> 1 & 3;
    if qos == 3 || (qos == 0 && flags & 8 != 0) {
        return Err(Fault::Malformed); // MQTT-3.3.1-4, -2
    }
    if qos == 2 {
        return Err(Fault::Protocol); // beyond what was subscribed (section 3.8.4)
    }
    let topic = reader.string()?;
    if topic.iter().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(Fault::Malformed); // MQTT-3.3.2-2
    }
    let packet_id = match qos {
        0 => None,
        _ => Some(reader.packet_id()?),
    };
    let mut alias = None;
    reader.properties(id::IN_PUBLISH, &mut |id, number| {
        if id == id::TOPIC_ALIAS {
            alias = Some(number as u16);
        }
        Ok(())
    })?;
    if topic.is_empty() && alias.is_none() {
        return Err(Fault::Protocol); // section 3.3.2.1
    }
    Ok(Publish {
        topic,
        alias,
        packet_id,
        payload: reader.0,
    })
}

fn puback<'a>(reader: &mut Reader<'a>) -> Result<Incoming<'a>, Fault> {
    let packet_id = reader.packet_id()?;
    let reason = reader.reason(id::IN_ACK)?;
    Ok(Incoming::PubAck { packet_id, reason })
}

fn suback<'a>(reader: &mut Reader<'a>) -> Result<Incoming<'a>, Fault> {
    let packet_id = reader.packet_id()?;
    reader.properties(id::IN_ACK, &mut |_, _| Ok(()))?;
    // A code for each filter, and we ask for one.
    let reason = Reason(reader.u8()?);
    reader.end()?;
    Ok(Incoming::SubAck { packet_id, reason })
}

fn disconnect<'a>(reader: &mut Reader<'a>) -> Result<Incoming<'a>, Fault> {
    let reason = reader.reason(id::IN_DISCONNECT)?;
    Ok(Incoming::Disconnect { reason })
}

/// Properties (section 2.2.2.2): where each may stand, a bit each.
mod id {
    pub(super) const TOPIC_ALIAS: u8 = 0x23;
    pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(super) const MAXIMUM_QOS: u8 = 0x24;
    pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    pub(super) const USER_PROPERTY: u8 = 0x26;

    /// Reason string, user property.
    pub(super) const IN_ACK: u64 = bits(&[0x1f, USER_PROPERTY]);
    /// And server reference.
    pub(super) const IN_DISCONNECT: u64 = bits(&[0x1c, 0x1f, USER_PROPERTY]);
    pub(super) const IN_PUBLISH: u64 = bits(&[
        0x01,
        0x02,
        0x03,
        0x08,
        0x09,
        SUBSCRIPTION_IDENTIFIER,
        TOPIC_ALIAS,
        USER_PROPERTY,
    ]);
    pub(super) const IN_CONNACK: u64 = bits(&[
        0x11,
        0x12,
        SERVER_KEEP_ALIVE,
        0x15,
        0x16,
        0x1a,
        0x1c,
        0x1f,
        RECEIVE_MAXIMUM,
        TOPIC_ALIAS_MAXIMUM,
        MAXIMUM_QOS,
        RETAIN_AVAILABLE,
        USER_PROPERTY,
        MAXIMUM_PACKET_SIZE,
        0x28,
        0x29,
        0x2a,
    ]);
    /// Those that may stand there more than once.
    pub(super) const REPEATABLE: u64 = bits(&[SUBSCRIPTION_IDENTIFIER, USER_PROPERTY]);

    const fn bits(ids: &[u8]) -> u64 {
        let mut bits = 0;
        let mut index = 0;
        while index < ids.len() {
            bits |= 1 << ids[index];
            index += 1;
        }
        bits
    }
}

/// What is left of a packet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Fault::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn end(&self) -> Result<(), Fault> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Fault::Malformed)
        }
    }

    /// An integer of so many bytes.
    fn number(&mut self, bytes: usize) -> Result<u32, Fault> {
        let bytes = self.take(bytes)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.number(1).map(|number| number as u8)
    }

    /// A variable byte integer (section 1.5.5).
    fn variable(&mut self) -> Result<u32, Fault> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                if index > 0 && byte == 0 {
                    break; // not the shortest
                }
                return Ok(value);
            }
        }
        Err(Fault::Malformed)
    }

    fn packet_id(&mut self) -> Result<u16, Fault> {
        match self.number(2)? as u16 {
            0 => Err(Fault::Protocol), // MQTT-2.2.1-3, -4
            packet_id => Ok(packet_id),
        }
    }

    fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.number(2)?;
        self.take(len as usize)
    }

    /// A string (section 1.5.4).
    fn string(&mut self) -> Result<&'a [u8], Fault> {
        let bytes = self.binary()?;
        // MQTT-1.5.4-1, -2
        if core::str::from_utf8(bytes).is_err() || bytes.contains(&0) {
            return Err(Fault::Malformed);
        }
        Ok(bytes)
    }

    /// A reason with its properties, each left out at the end of a packet that
    /// has no more to say.
    fn reason(&mut self, allowed: u64) -> Result<Reason, Fault> {
        if self.0.is_empty() {
            return Ok(Reason::SUCCESS);
        }
        let reason = Reason(self.u8()?);
        if !self.0.is_empty() {
            self.properties(allowed, &mut |_, _| Ok(()))?;
            self.end()?;
        }
        Ok(reason)
    }

    /// Reads properties and hands over those that are numbers.
    fn properties(
        &mut self,
        allowed: u64,
        take: &mut dyn FnMut(u8, u32) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let len = self.variable()?;
        let mut block = Reader(self.take(len as usize)?);
        let mut seen = 0;
        while !block.0.is_empty() {
            let (id, number) = block.property(allowed, &mut seen)?;
            take(id, number)?;
        }
        Ok(())
    }

    fn property(&mut self, allowed: u64, seen: &mut u64) -> Result<(u8, u32), Fault> {
        let id = self.u8()?;
        let bit = 1_u64.checked_shl(id.into()).unwrap_or(0);
        let number = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => match self.u8()? {
                flag @ 0..=1 => flag.into(),
                _ => return Err(Fault::Protocol),
            },
            0x13 | 0x21..=0x23 => self.number(2)?,
            0x02 | 0x11 | 0x18 | 0x27 => self.number(4)?,
            0x0b => match self.variable()? {
                0 => return Err(Fault::Protocol),
                number => number,
            },
            0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => {
                self.string()?;
                0
            }
            0x09 | 0x16 => {
                self.binary()?;
                0
            }
            0x26 => {
                self.string()?;
                self.string()?;
                0
            }
            _ => return Err(Fault::Malformed), // section 2.2.2.2
        };
        if allowed & bit == 0 || *seen & bit & !id::REPEATABLE != 0 {
            return Err(Fault::Protocol);
        }
        *seen |= bit;
        Ok((id, number))
    }
}
