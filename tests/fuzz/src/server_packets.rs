//! MQTT packets from a server, read by the tables of the standard and by nothing
//! of the product's: MQTT 3.1.1 and 5.0, chapters 2 and 3.
//!
//! Promises: a packet passes only if every byte of it is what the standard allows
//! a server to send, in its shortest form. Never: state; whether it may be sent now
//! is the target's question.

/// A packet from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    ConnAck {
        session_present: bool,
        reason: u8,
        properties: Vec<Property<'a>>,
    },
    Publish {
        topic: &'a str,
        packet_id: Option<u16>,
        qos: u8,
        dup: bool,
        retain: bool,
        properties: Vec<Property<'a>>,
        payload: &'a [u8],
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP by their number (4 to 7).
    Acknowledge {
        kind: u8,
        packet_id: u16,
        reason: u8,
        explained: bool,
    },
    /// SUBACK or UNSUBACK (9 or 11).
    Answer {
        kind: u8,
        packet_id: u16,
        codes: &'a [u8],
        explained: bool,
    },
    PingResp,
    Disconnect {
        reason: u8,
    },
}

/// A property (5.0, table 2-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Property<'a> {
    pub id: u8,
    /// Of integers.
    pub number: u32,
    /// Of texts and binary data; of a user property its name.
    pub bytes: &'a [u8],
    /// Of a user property.
    pub value: &'a [u8],
}

/// Takes the first packet off `stream`. None if its bytes are not all there.
///
/// # Errors
/// What is wrong with it.
pub fn take<'a>(stream: &mut &'a [u8], v5: bool) -> Result<Option<Packet<'a>>, &'static str> {
    let Some((first, rest)) = stream.split_first() else {
        return Ok(None);
    };
    let mut reader = Reader(rest);
    let length = match reader.variable() {
        Ok(length) => length as usize,
        Err(_) if rest.len() < 4 && rest.iter().all(|byte| byte & 0x80 != 0) => return Ok(None),
        Err(error) => return Err(error),
    };
    if reader.0.len() < length {
        return Ok(None);
    }
    let (body, behind) = reader.0.split_at(length);
    let packet = read(*first, body, v5)?;
    *stream = behind;
    Ok(Some(packet))
}

fn read(first: u8, body: &[u8], v5: bool) -> Result<Packet<'_>, &'static str> {
    let mut body = Reader(body);
    let kind = first >> 4;
    let flags = first & 0x0f;
    let wanted_flags = if kind == 6 { 2 } else { 0 };
    if kind != 3 && flags != wanted_flags {
        return Err("reserved flags");
    }
    let packet = match kind {
        2 => {
            let acknowledge = body.u8()?;
            let reason = body.u8()?;
            if acknowledge > 1 || (acknowledge == 1 && reason != 0) {
                return Err("CONNACK flags"); // 3.2.2.1, MQTT-3.2.2-6
            }
            if !v5 && reason > 5 {
                return Err("CONNACK return code"); // 3.1.1, table 3.1
            }
            if v5 && reason != 0 && reason < 0x80 {
                return Err("CONNACK reason code");
            }
            Packet::ConnAck {
                session_present: acknowledge == 1,
                reason,
                properties: body.properties(v5, CONNACK)?,
            }
        }
        3 => publish(&mut body, flags, v5)?,
        4..=7 => {
            let packet_id = body.packet_id()?;
            let reason = if v5 && !body.is_empty() {
                body.u8()?
            } else {
                0
            };
            let explained =
                v5 && !body.is_empty() && !body.properties(true, REASON_ONLY)?.is_empty();
            Packet::Acknowledge {
                kind,
                packet_id,
                reason,
                explained,
            }
        }
        9 | 11 => {
            let packet_id = body.packet_id()?;
            let explained = !body.properties(v5, REASON_ONLY)?.is_empty();
            let codes = std::mem::take(&mut body.0);
            if kind == 11 && !v5 {
                if !codes.is_empty() {
                    return Err("UNSUBACK of 3.1.1 has no payload");
                }
            } else if codes.is_empty() {
                return Err("no reason code");
            }
            if !v5 && codes.iter().any(|code| !matches!(code, 0..=2 | 0x80)) {
                return Err("SUBACK return code"); // MQTT-3.9.3-2
            }
            Packet::Answer {
                kind,
                packet_id,
                codes,
                explained,
            }
        }
        13 => Packet::PingResp,
        14 if v5 => {
            let reason = if body.is_empty() { 0 } else { body.u8()? };
            if !body.is_empty() {
                body.properties(true, DISCONNECT)?;
            }
            Packet::Disconnect { reason }
        }
        _ => return Err("not a packet from a server"),
    };
    if body.is_empty() {
        Ok(packet)
    } else {
        Err("bytes behind the packet")
    }
}

fn publish<'a>(body: &mut Reader<'a>, flags: u8, v5: bool) -> Result<Packet<'a>, &'static str> {
    let qos = flags >> 1 & 3;
    let dup = flags & 8 != 0;
    if qos == 3 || (dup && qos == 0) {
        return Err("QoS and DUP"); // MQTT-3.3.1-2, -4
    }
    let topic = body.text()?;
    if topic.contains(['+', '#']) {
        return Err("a wildcard in a topic name"); // MQTT-3.3.2-2
    }
    let packet_id = if qos > 0 {
        Some(body.packet_id()?)
    } else {
        None
    };
    let properties = body.properties(v5, PUBLISH)?;
    if topic.is_empty() && !properties.iter().any(|property| property.id == 0x23) {
        return Err("neither topic nor alias");
    }
    Ok(Packet::Publish {
        topic,
        packet_id,
        qos,
        dup,
        retain: flags & 1 != 0,
        properties,
        payload: std::mem::take(&mut body.0),
    })
}

const CONNACK: &[u8] = &[
    0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29,
    0x2a,
];
const PUBLISH: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26];
const REASON_ONLY: &[u8] = &[0x1f, 0x26];
/// Without the session expiry interval, which a server may not send (MQTT-3.14.2-2).
const DISCONNECT: &[u8] = &[0x1c, 0x1f, 0x26];

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// A variable byte integer (1.5.5), in its shortest form (MQTT-1.5.5-1).
    fn variable(&mut self) -> Result<u32, &'static str> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return if place > 0 && byte == 0 {
                    Err("not the shortest")
                } else {
                    Ok(value)
                };
            }
        }
        Err("a length of five bytes")
    }

    fn packet_id(&mut self) -> Result<u16, &'static str> {
        match self.u16()? {
            0 => Err("packet identifier 0"), // MQTT-2.2.1-3
            id => Ok(id),
        }
    }

    fn binary(&mut self) -> Result<&'a [u8], &'static str> {
        let count = self.u16()?;
        self.take(count.into())
    }

    fn text(&mut self) -> Result<&'a str, &'static str> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| "not UTF-8")?;
        if text.contains('\0') {
            Err("a null character")
        } else {
            Ok(text)
        }
    }

    fn properties(&mut self, v5: bool, allowed: &[u8]) -> Result<Vec<Property<'a>>, &'static str> {
        let mut all: Vec<Property<'a>> = Vec::new();
        if !v5 {
            return Ok(all);
        }
        let length = self.variable()? as usize;
        let mut block = Reader(self.take(length)?);
        while !block.is_empty() {
            let one = block.property()?;
            if !allowed.contains(&one.id) {
                return Err("a property that may not stand here");
            }
            let may_repeat = one.id == 0x26 || one.id == 0x0b;
            if !may_repeat && all.iter().any(|other| other.id == one.id) {
                return Err("a property twice");
            }
            all.push(one);
        }
        Ok(all)
    }

    fn property(&mut self) -> Result<Property<'a>, &'static str> {
        let id = u8::try_from(self.variable()?).map_err(|_| "an unknown property")?;
        let mut one = Property {
            id,
            number: 0,
            bytes: &[],
            value: &[],
        };
        match id {
            0x01 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => {
                one.number = self.u8()?.into();
                if one.number > 1 {
                    return Err("a flag that is neither 0 nor 1");
                }
            }
            0x13 | 0x21 | 0x22 | 0x23 => one.number = self.u16()?.into(),
            0x02 | 0x11 | 0x27 => one.number = self.u32()?,
            0x0b => one.number = self.variable()?,
            0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => one.bytes = self.text()?.as_bytes(),
            0x09 | 0x16 => one.bytes = self.binary()?,
            0x26 => {
                one.bytes = self.text()?.as_bytes();
                one.value = self.text()?.as_bytes();
            }
            _ => return Err("an unknown property"),
        }
        // 3.2.2.3.3, 3.2.2.3.6, 3.3.2.3.4, 3.3.2.3.8
        if one.number == 0 && matches!(id, 0x21 | 0x27 | 0x23 | 0x0b) {
            return Err("a property of 0");
        }
        Ok(one)
    }
}
