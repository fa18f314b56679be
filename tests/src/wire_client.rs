//! A small MQTT client that does what it is told, packet by packet, right or wrong.
//!
//! Promises: it sends exactly what the test says, in the order it says, and
//! never acknowledges, pings or reconnects by itself; what arrives is handed out
//! packet by packet. It shares no code with the gateway, so that no error of the
//! gateway's codec hides behind its own. Never: a substitute for a real client.
//!
//! Blocking, over any carrier. Waiting for a packet ends in an error after
//! [`PATIENCE`], so that a test that waits in vain fails instead of hanging.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::carrier::{self, Carrier};

/// How long a test waits for a packet that must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A property of MQTT 5.0: identifier and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property(pub u8, pub Value);

/// The value of a property, by its type on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One byte.
    Byte(u8),
    /// Two bytes, big-endian.
    Two(u16),
    /// Four bytes, big-endian.
    Four(u32),
    /// A variable byte integer.
    Variable(u32),
    /// UTF-8 with its length.
    Text(String),
    /// Bytes with their length.
    Binary(Vec<u8>),
    /// A name and a value.
    Pair(String, String),
}

/// Identifiers of the properties that tests name (MQTT 5.0, table 2-4).
pub mod property {
    #![allow(missing_docs)] // the standard's own names
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0B;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const PACKET_BYTES_MAX: u8 = 0x27;
}

/// What CONNECT says.
#[derive(Debug, Clone)]
pub struct Connect {
    /// 4 is MQTT 3.1.1, 5 is 5.0.
    pub version: u8,
    /// May be empty.
    pub client_id: String,
    /// Clean session, or clean start.
    pub clean: bool,
    /// Seconds.
    pub keep_alive_s: u16,
    /// Version 5 only.
    pub properties: Vec<Property>,
    /// A will.
    pub will: Option<Message>,
    /// User name.
    pub username: Option<String>,
    /// Password; in version 3.1.1 only with a user name.
    pub password: Option<Vec<u8>>,
}

impl Connect {
    /// A clean session without keep alive.
    #[must_use]
    pub fn clean(version: u8, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.into(),
            clean: true,
            keep_alive_s: 0,
            properties: Vec::new(),
            will: None,
            username: None,
            password: None,
        }
    }

    /// A session that outlives its connection, by an hour in version 5.
    #[must_use]
    pub fn persistent(version: u8, client_id: &str) -> Self {
        let mut connect = Self::clean(version, client_id);
        connect.clean = false;
        if version == 5 {
            connect
                .properties
                .push(Property(property::SESSION_EXPIRY, Value::Four(3_600)));
        }
        connect
    }

    /// The same with a keep alive.
    #[must_use]
    pub fn keep_alive_s(mut self, keep_alive_s: u16) -> Self {
        self.keep_alive_s = keep_alive_s;
        self
    }

    /// The same with a property; it replaces one of the same identifier.
    #[must_use]
    pub fn with(mut self, id: u8, value: Value) -> Self {
        self.properties.retain(|p| p.0 != id);
        self.properties.push(Property(id, value));
        self
    }

    /// The same with a will.
    #[must_use]
    pub fn will(mut self, will: Message) -> Self {
        self.will = Some(will);
        self
    }

    /// The same with a password, and with a user name.
    #[must_use]
    pub fn login(mut self, username: Option<&str>, password: impl AsRef<[u8]>) -> Self {
        self.username = username.map(Into::into);
        self.password = Some(password.as_ref().to_vec());
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_text(&mut body, "MQTT");
        body.push(self.version);
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0b100 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        flags |= u8::from(self.username.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        body.push(flags);
        body.extend(self.keep_alive_s.to_be_bytes());
        if self.version == 5 {
            put_properties(&mut body, &self.properties);
        }
        put_text(&mut body, &self.client_id);
        if let Some(will) = &self.will {
            if self.version == 5 {
                put_properties(&mut body, &will.properties);
            }
            put_text(&mut body, &will.topic);
            put_binary(&mut body, &will.payload);
        }
        if let Some(username) = &self.username {
            put_text(&mut body, username);
        }
        if let Some(password) = &self.password {
            put_binary(&mut body, password);
        }
        frame(0x10, &body)
    }
}

/// A message, as it is sent or as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Topic name; may be empty with a topic alias.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// 0, 1, 2; others are sent as they are.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
    /// DUP.
    pub dup: bool,
    /// Packet identifier; not sent at QoS 0.
    pub packet_id: u16,
    /// Version 5 only.
    pub properties: Vec<Property>,
}

impl Message {
    /// A message of that quality of service.
    #[must_use]
    pub fn new(topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.as_ref().to_vec(),
            qos,
            ..Self::default()
        }
    }

    /// The same with RETAIN.
    #[must_use]
    pub fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// The same with DUP.
    #[must_use]
    pub fn again(mut self) -> Self {
        self.dup = true;
        self
    }

    /// The same with a packet identifier.
    #[must_use]
    pub fn id(mut self, packet_id: u16) -> Self {
        self.packet_id = packet_id;
        self
    }

    /// The same with a property.
    #[must_use]
    pub fn with(mut self, id: u8, value: Value) -> Self {
        self.properties.push(Property(id, value));
        self
    }

    /// Its payload as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The first property of that identifier.
    #[must_use]
    pub fn property(&self, id: u8) -> Option<&Value> {
        self.properties.iter().find(|p| p.0 == id).map(|p| &p.1)
    }
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNACK.
    ConnAck(ConnAck),
    /// PUBLISH.
    Publish(Message),
    /// PUBACK: packet identifier, reason (0 in version 3.1.1).
    PubAck(u16, u8),
    /// PUBREC, likewise.
    PubRec(u16, u8),
    /// PUBREL, likewise.
    PubRel(u16, u8),
    /// PUBCOMP, likewise.
    PubComp(u16, u8),
    /// SUBACK with its codes.
    SubAck(u16, Vec<u8>),
    /// UNSUBACK; no codes in version 3.1.1.
    UnsubAck(u16, Vec<u8>),
    /// PINGRESP.
    PingResp,
    /// DISCONNECT: reason, properties.
    Disconnect(u8, Vec<Property>),
}

/// CONNACK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnAck {
    /// Whether a session was resumed.
    pub session_present: bool,
    /// Return code, or reason.
    pub code: u8,
    /// Version 5 only.
    pub properties: Vec<Property>,
}

impl ConnAck {
    /// The first property of that identifier.
    #[must_use]
    pub fn property(&self, id: u8) -> Option<&Value> {
        self.properties.iter().find(|p| p.0 == id).map(|p| &p.1)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Wire {
    stream: Box<dyn Carrier>,
    version: u8,
    input: Vec<u8>,
    next_id: u16,
}

impl Wire {
    /// Opens a connection and says nothing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(addr: SocketAddr, version: u8) -> io::Result<Self> {
        Ok(Self::over(carrier::tcp(addr)?, version))
    }

    /// Speaks over a stream that is connected.
    #[must_use]
    pub fn over(stream: impl Carrier + 'static, version: u8) -> Self {
        Self {
            stream: Box::new(stream),
            version,
            input: Vec::new(),
            next_id: 0,
        }
    }

    /// Opens a connection, sends CONNECT and takes CONNACK, whatever it says.
    ///
    /// # Errors
    /// The connection failed, or something else than CONNACK came.
    pub fn connect(addr: SocketAddr, connect: &Connect) -> io::Result<(Self, ConnAck)> {
        Self::connect_over(carrier::tcp(addr)?, connect)
    }

    /// The same over a stream that is connected.
    ///
    /// # Errors
    /// The connection failed, or something else than CONNACK came.
    pub fn connect_over(
        stream: impl Carrier + 'static,
        connect: &Connect,
    ) -> io::Result<(Self, ConnAck)> {
        let mut wire = Self::over(stream, connect.version);
        wire.send_raw(&connect.encode())?;
        match wire.recv()? {
            Packet::ConnAck(ack) => Ok((wire, ack)),
            other => Err(unexpected("CONNACK", &other)),
        }
    }

    /// The same; the CONNACK must accept.
    ///
    /// # Errors
    /// It was refused, too.
    pub fn accepted(addr: SocketAddr, connect: &Connect) -> io::Result<Self> {
        let (wire, ack) = Self::connect(addr, connect)?;
        if ack.code == 0 {
            Ok(wire)
        } else {
            Err(io::Error::other(format!("refused: {ack:?}")))
        }
    }

    /// The socket underneath.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// The operating system's.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends CONNECT.
    ///
    /// # Errors
    /// The operating system's.
    pub fn send_connect(&mut self, connect: &Connect) -> io::Result<()> {
        self.send_raw(&connect.encode())
    }

    /// Sends PUBLISH.
    ///
    /// # Errors
    /// The operating system's.
    pub fn send_publish(&mut self, message: &Message) -> io::Result<()> {
        let bytes = self.publish_bytes(message);
        self.send_raw(&bytes)
    }

    /// The bytes of a PUBLISH.
    #[must_use]
    pub fn publish_bytes(&self, message: &Message) -> Vec<u8> {
        let mut body = Vec::new();
        put_text(&mut body, &message.topic);
        if message.qos > 0 {
            body.extend(message.packet_id.to_be_bytes());
        }
        if self.version == 5 {
            put_properties(&mut body, &message.properties);
        }
        body.extend(&message.payload);
        let flags = u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain);
        frame(0x30 | flags, &body)
    }

    /// Sends a PUBLISH and waits for all its acknowledgements. A packet
    /// identifier is chosen if it has none.
    ///
    /// # Errors
    /// Something else came, or a reason of 0x80 and above.
    pub fn publish(&mut self, message: &Message) -> io::Result<()> {
        let mut message = message.clone();
        if message.qos > 0 && message.packet_id == 0 {
            message.packet_id = self.next_id();
        }
        let id = message.packet_id;
        self.send_publish(&message)?;
        match message.qos {
            0 => Ok(()),
            1 => match self.recv()? {
                Packet::PubAck(got, code) if got == id && code < 0x80 => Ok(()),
                other => Err(unexpected("PUBACK", &other)),
            },
            _ => {
                match self.recv()? {
                    Packet::PubRec(got, code) if got == id && code < 0x80 => {}
                    other => return Err(unexpected("PUBREC", &other)),
                }
                self.pubrel(id)?;
                match self.recv()? {
                    Packet::PubComp(got, code) if got == id && code < 0x80 => Ok(()),
                    other => Err(unexpected("PUBCOMP", &other)),
                }
            }
        }
    }

    /// Subscribes to filters with their options bytes; returns the codes.
    /// PUBLISHes that come before SUBACK are an error.
    ///
    /// # Errors
    /// Something else came.
    pub fn subscribe(&mut self, filters: &[(&str, u8)]) -> io::Result<Vec<u8>> {
        self.subscribe_with(filters, &[])
    }

    /// The same with properties (version 5).
    ///
    /// # Errors
    /// Something else came.
    pub fn subscribe_with(
        &mut self,
        filters: &[(&str, u8)],
        properties: &[Property],
    ) -> io::Result<Vec<u8>> {
        let id = self.send_subscribe(filters, properties)?;
        match self.recv()? {
            Packet::SubAck(got, codes) if got == id => Ok(codes),
            other => Err(unexpected("SUBACK", &other)),
        }
    }

    /// Sends SUBSCRIBE; returns its packet identifier.
    ///
    /// # Errors
    /// The operating system's.
    pub fn send_subscribe(
        &mut self,
        filters: &[(&str, u8)],
        properties: &[Property],
    ) -> io::Result<u16> {
        let id = self.next_id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == 5 {
            put_properties(&mut body, properties);
        }
        for (filter, options) in filters {
            put_text(&mut body, filter);
            body.push(*options);
        }
        self.send_raw(&frame(0x82, &body))?;
        Ok(id)
    }

    /// Unsubscribes; returns the codes.
    ///
    /// # Errors
    /// Something else came.
    pub fn unsubscribe(&mut self, filters: &[&str]) -> io::Result<Vec<u8>> {
        let id = self.next_id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == 5 {
            put_properties(&mut body, &[]);
        }
        for filter in filters {
            put_text(&mut body, filter);
        }
        self.send_raw(&frame(0xA2, &body))?;
        match self.recv()? {
            Packet::UnsubAck(got, codes) if got == id => Ok(codes),
            other => Err(unexpected("UNSUBACK", &other)),
        }
    }

    /// Sends PUBACK.
    ///
    /// # Errors
    /// The operating system's.
    pub fn puback(&mut self, id: u16) -> io::Result<()> {
        self.send_raw(&frame(0x40, &id.to_be_bytes()))
    }

    /// Sends PUBREC.
    ///
    /// # Errors
    /// The operating system's.
    pub fn pubrec(&mut self, id: u16) -> io::Result<()> {
        self.send_raw(&frame(0x50, &id.to_be_bytes()))
    }

    /// Sends PUBREL.
    ///
    /// # Errors
    /// The operating system's.
    pub fn pubrel(&mut self, id: u16) -> io::Result<()> {
        self.send_raw(&frame(0x62, &id.to_be_bytes()))
    }

    /// Sends PUBCOMP.
    ///
    /// # Errors
    /// The operating system's.
    pub fn pubcomp(&mut self, id: u16) -> io::Result<()> {
        self.send_raw(&frame(0x70, &id.to_be_bytes()))
    }

    /// Sends PINGREQ and takes PINGRESP, which must be the next packet.
    ///
    /// # Errors
    /// Something else came.
    pub fn ping(&mut self) -> io::Result<()> {
        self.send_raw(&[0xC0, 0])?;
        match self.recv()? {
            Packet::PingResp => Ok(()),
            other => Err(unexpected("PINGRESP", &other)),
        }
    }

    /// Takes its leave, and waits until the gateway has closed.
    ///
    /// # Errors
    /// Something else came than the end.
    pub fn disconnect(mut self) -> io::Result<()> {
        self.send_raw(&[0xE0, 0])?;
        self.ended().map(|_| ())
    }

    /// The next packet.
    ///
    /// # Errors
    /// None came in time, the connection ended, or it is none.
    pub fn recv(&mut self) -> io::Result<Packet> {
        self.recv_within(PATIENCE)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway closed"))
    }

    /// The next packet; `None` if the connection ended.
    ///
    /// # Errors
    /// None came in time ([`io::ErrorKind::TimedOut`]), or it is none.
    pub fn recv_within(&mut self, patience: Duration) -> io::Result<Option<Packet>> {
        self.stream().set_read_timeout(Some(patience))?;
        loop {
            if let Some((first, body)) = self.take_frame()? {
                return decode(first, &body, self.version).map(Some);
            }
            let mut some = [0; 64 * 1024];
            match self.stream.read(&mut some) {
                Ok(0) => return Ok(None),
                Ok(n) => self.input.extend_from_slice(&some[..n]),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("no packet within {patience:?}"),
                    ));
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The next packet, which must be a PUBLISH.
    ///
    /// # Errors
    /// Something else came.
    pub fn message(&mut self) -> io::Result<Message> {
        match self.recv()? {
            Packet::Publish(message) => Ok(message),
            other => Err(unexpected("PUBLISH", &other)),
        }
    }

    /// The next message, taken and fully acknowledged by its quality of service.
    ///
    /// # Errors
    /// Something else came.
    pub fn take(&mut self) -> io::Result<Message> {
        let message = self.message()?;
        self.acknowledge(&message)?;
        Ok(message)
    }

    /// Acknowledges a message, at QoS 2 through to PUBCOMP; nothing else may come
    /// in between.
    ///
    /// # Errors
    /// Something else came.
    pub fn acknowledge(&mut self, message: &Message) -> io::Result<()> {
        match message.qos {
            0 => Ok(()),
            1 => self.puback(message.packet_id),
            _ => {
                self.pubrec(message.packet_id)?;
                match self.recv()? {
                    Packet::PubRel(id, _) if id == message.packet_id => self.pubcomp(id),
                    other => Err(unexpected("PUBREL", &other)),
                }
            }
        }
    }

    /// Reads until the gateway closes; returns the DISCONNECT it said, if any.
    /// Other packets are passed over.
    ///
    /// # Errors
    /// It did not close in time.
    pub fn ended(&mut self) -> io::Result<Option<(u8, Vec<Property>)>> {
        let mut said = None;
        loop {
            match self.recv_within(PATIENCE)? {
                None => return Ok(said),
                Some(Packet::Disconnect(code, properties)) => said = Some((code, properties)),
                Some(_) => {}
            }
        }
    }

    /// Asserts that nothing arrives before the answer to a PINGREQ.
    ///
    /// # Errors
    /// Something came.
    pub fn nothing_came(&mut self) -> io::Result<()> {
        self.ping()
    }

    /// A packet identifier that was not used on this connection lately.
    pub fn next_id(&mut self) -> u16 {
        self.next_id = self.next_id % u16::MAX + 1;
        self.next_id
    }

    fn take_frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        let mut length = 0usize;
        for index in 0..4 {
            let Some(byte) = self.input.get(1 + index) else {
                return Ok(None);
            };
            length |= usize::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                let from = 2 + index;
                if self.input.len() < from + length {
                    return Ok(None);
                }
                let first = self.input[0];
                let body = self.input[from..from + length].to_vec();
                self.input.drain(..from + length);
                return Ok(Some((first, body)));
            }
        }
        Err(malformed("remaining length"))
    }
}

/// A whole packet: first byte, remaining length, body.
#[must_use]
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    put_variable(&mut bytes, body.len() as u32);
    bytes.extend(body);
    bytes
}

fn put_variable(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        out.push(byte | if value > 0 { 0x80 } else { 0 });
        if value == 0 {
            return;
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_binary(out, text.as_bytes());
}

fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend(bytes);
}

fn put_properties(out: &mut Vec<u8>, properties: &[Property]) {
    let mut bytes = Vec::new();
    for Property(id, value) in properties {
        bytes.push(*id);
        match value {
            Value::Byte(v) => bytes.push(*v),
            Value::Two(v) => bytes.extend(v.to_be_bytes()),
            Value::Four(v) => bytes.extend(v.to_be_bytes()),
            Value::Variable(v) => put_variable(&mut bytes, *v),
            Value::Text(v) => put_text(&mut bytes, v),
            Value::Binary(v) => put_binary(&mut bytes, v),
            Value::Pair(name, v) => {
                put_text(&mut bytes, name);
                put_text(&mut bytes, v);
            }
        }
    }
    put_variable(out, bytes.len() as u32);
    out.extend(bytes);
}

fn decode(first: u8, body: &[u8], version: u8) -> io::Result<Packet> {
    let mut rest = Rest(body);
    let packet = match first >> 4 {
        2 => {
            let session_present = rest.byte()? & 1 == 1;
            let code = rest.byte()?;
            Packet::ConnAck(ConnAck {
                session_present,
                code,
                properties: rest.properties(version)?,
            })
        }
        3 => {
            let qos = first >> 1 & 3;
            let topic = rest.text()?;
            let packet_id = if qos > 0 { rest.two()? } else { 0 };
            let properties = rest.properties(version)?;
            Packet::Publish(Message {
                topic,
                payload: rest.0.to_vec(),
                qos,
                retain: first & 1 == 1,
                dup: first & 8 == 8,
                packet_id,
                properties,
            })
        }
        kind @ 4..=7 => {
            let id = rest.two()?;
            let code = if rest.0.is_empty() { 0 } else { rest.byte()? };
            match kind {
                4 => Packet::PubAck(id, code),
                5 => Packet::PubRec(id, code),
                6 => Packet::PubRel(id, code),
                _ => Packet::PubComp(id, code),
            }
        }
        kind @ (9 | 11) => {
            let id = rest.two()?;
            rest.properties(version)?;
            if kind == 9 {
                Packet::SubAck(id, rest.0.to_vec())
            } else {
                Packet::UnsubAck(id, rest.0.to_vec())
            }
        }
        13 => Packet::PingResp,
        14 => {
            let code = if rest.0.is_empty() { 0 } else { rest.byte()? };
            let properties = if rest.0.is_empty() {
                Vec::new()
            } else {
                rest.properties(version)?
            };
            Packet::Disconnect(code, properties)
        }
        _ => return Err(malformed("packet type")),
    };
    Ok(packet)
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| malformed("length"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn two(&mut self) -> io::Result<u16> {
        let b = self.take(2)?;
        Ok(u16::from_be_bytes([b[0], b[1]]))
    }

    fn four(&mut self) -> io::Result<u32> {
        let b = self.take(4)?;
        Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn variable(&mut self) -> io::Result<u32> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("variable byte integer"))
    }

    fn binary(&mut self) -> io::Result<Vec<u8>> {
        let count = usize::from(self.two()?);
        Ok(self.take(count)?.to_vec())
    }

    fn text(&mut self) -> io::Result<String> {
        String::from_utf8(self.binary()?).map_err(|_| malformed("UTF-8"))
    }

    fn properties(&mut self, version: u8) -> io::Result<Vec<Property>> {
        let mut properties = Vec::new();
        if version < 5 {
            return Ok(properties);
        }
        let count = self.variable()? as usize;
        let mut inner = Rest(self.take(count)?);
        while !inner.0.is_empty() {
            let id = inner.byte()?;
            let value = match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Value::Byte(inner.byte()?),
                0x13 | 0x21 | 0x22 | 0x23 => Value::Two(inner.two()?),
                0x02 | 0x11 | 0x18 | 0x27 => Value::Four(inner.four()?),
                0x0B => Value::Variable(inner.variable()?),
                0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => Value::Text(inner.text()?),
                0x09 | 0x16 => Value::Binary(inner.binary()?),
                0x26 => Value::Pair(inner.text()?, inner.text()?),
                _ => return Err(malformed("property")),
            };
            properties.push(Property(id, value));
        }
        Ok(properties)
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the gateway sent a packet with a bad {what}"),
    )
}

fn unexpected(wanted: &str, got: &Packet) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{wanted} expected, came: {got:?}"),
    )
}
