//! One connection of the gateway, 3.1.1 and 5, with any client and any shell.
//!
//! An input is a shell's choices, then what the client sends. It is played twice:
//! once with the client's bytes in large pieces, once cut arbitrarily. Events,
//! answers and timeouts are the same both times.
//!
//! What the core sends is read by a decoder that shares nothing with it
//! (`server_packets`): whole packets, CONNACK first and once, nothing behind the
//! end, none larger than the client takes, no explanation to a client that wants
//! none. PUBACK and PUBREC leave in the order of the PUBLISHes and only for what
//! the shell has settled (G1, G3). A delivery arrives as it was given, never more
//! of them unacknowledged than the client takes. Memory follows what was sent.

#![no_main]

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use risiti_fuzz::control::breaks;
use risiti_fuzz::notation;
use risiti_fuzz::seeds::{self, Seed};
use risiti_fuzz::server_packets::{self, Packet};
use risiti_fuzz::{Choices, memory, target};
use risiti_mqtt::{
    Accept, ConnectRequest, Connection, ConnectionLimits, Deliver, Delivery, Event, Message, Qos,
    ReasonCode, Version,
};

target!("mqtt_session", seeds, |data| {
    let account = memory::begin();
    let whole = play(data, false);
    let bound = (64 << 10) + 256 * data.len();
    assert!(
        account.peak_bytes() <= bound,
        "{} bytes held",
        account.peak_bytes()
    );
    let cut = play(data, true);
    assert_eq!(whole, cut, "the way the bytes were cut shows");
});

/// All that can be seen of a connection.
#[derive(Debug, Default, PartialEq)]
struct Told {
    events: Vec<Event>,
    output: Vec<u8>,
    /// After each turn: reads, open, timeout, window, bytes left.
    marks: Vec<(bool, bool, Option<u64>, usize, usize)>,
}

fn play(data: &[u8], cut: bool) -> Told {
    let mut header = Choices::new(data);
    let flags = header.byte();
    let mut chance = u32::from(header.byte()) | 1;
    let shell = Choices::new(header.led());
    let mut stream = header.rest();
    let segment_bytes = [usize::MAX, 150, 40, 9][usize::from(flags >> 1 & 3)];
    let mut shell = Shell::new(flags & 1 == 1, shell);
    let mut input = BytesMut::new();
    loop {
        let (segment, rest) = stream.split_at(segment_bytes.min(stream.len()));
        stream = rest;
        let mut pieces = segment;
        while !pieces.is_empty() {
            // A generator of Lehmer's: the cuts follow from the input.
            chance = chance.wrapping_mul(48_271) % 0x7fff_ffff;
            let most = if cut {
                1 + chance as usize % 7
            } else {
                pieces.len()
            };
            let (piece, rest) = pieces.split_at(most.min(pieces.len()));
            pieces = rest;
            input.extend_from_slice(piece);
            shell.connection.handle_input(shell.now_ms, &mut input);
        }
        shell.turn(&mut input);
        if stream.is_empty() {
            break;
        }
    }
    shell.connection.handle_transport_lost();
    shell.heed(&mut input);
    assert_eq!(shell.closed, 1, "one end, as the last event");
    shell.told
}

/// A PUBLISH of the client that was told to the shell.
struct Published {
    token: u64,
    packet_id: u16,
    qos: Qos,
    settled: Option<ReasonCode>,
}

/// What the client is to get.
struct Expected {
    packet_id: u16,
    qos: Qos,
    retain: bool,
    dup: bool,
    topic: String,
    payload: Bytes,
    expiry_s: Option<u32>,
    subscription_ids: Vec<u32>,
}

struct Shell<'a> {
    connection: Connection,
    limits: ConnectionLimits,
    choices: Choices<'a>,
    now_ms: u64,
    told: Told,
    request: Option<ConnectRequest>,
    connacks: usize,
    closed: usize,
    disconnected: bool,
    /// Bytes at the front of what is to be sent that were judged.
    judged_bytes: usize,
    published: VecDeque<Published>,
    /// QoS 2 identifiers with PUBREC and without PUBCOMP.
    unreleased: Vec<u16>,
    releasing: Vec<u16>,
    requests: VecDeque<(u8, u16, usize)>,
    /// Deliveries without their acknowledgement.
    in_flight: Vec<u16>,
    /// Those of an earlier connection, which need no place in the window.
    resumed: usize,
    received: Vec<u16>,
    expected: VecDeque<Expected>,
    aliases: Vec<(u32, String)>,
    next_id: u16,
    last: Option<Message>,
}

impl<'a> Shell<'a> {
    fn new(small: bool, choices: Choices<'a>) -> Self {
        let limits = if small {
            ConnectionLimits {
                packet_bytes_max: 100,
                connect_packet_bytes_max: 120,
                receive_maximum: 2,
                unreleased_max: 2,
                inflight_max: 2,
                topic_alias_maximum: 2,
                outbound_topic_alias_maximum: 2,
                topic_bytes_max: 16,
                client_id_bytes_max: 8,
                connect_timeout_ms: 1_000,
                transmit_bytes_max: 24,
            }
        } else {
            ConnectionLimits::default()
        };
        Self {
            connection: Connection::new(&limits, 0),
            limits,
            choices,
            now_ms: 0,
            told: Told::default(),
            request: None,
            connacks: 0,
            closed: 0,
            disconnected: false,
            judged_bytes: 0,
            published: VecDeque::new(),
            unreleased: Vec::new(),
            releasing: Vec::new(),
            requests: VecDeque::new(),
            in_flight: Vec::new(),
            resumed: 0,
            received: Vec::new(),
            expected: VecDeque::new(),
            aliases: Vec::new(),
            next_id: 1,
            last: None,
        }
    }

    /// Heeds what came, does something of its own, and lets the client read.
    fn turn(&mut self, input: &mut BytesMut) {
        self.heed(input);
        let action = self.choices.byte();
        self.act(action);
        self.heed(input);
        let connection = &self.connection;
        let left = if self.closed > 0 { 0 } else { input.len() };
        self.told.marks.push((
            connection.wants_input(),
            connection.is_open(),
            connection.poll_timeout(),
            connection.send_window(),
            left,
        ));
        if action & 0x80 != 0 {
            self.connection.release_spare_memory();
        }
    }

    fn heed(&mut self, input: &mut BytesMut) {
        loop {
            let mut heard = false;
            while let Some(event) = self.connection.poll_event() {
                assert_eq!(self.closed, 0, "{event:?} after the end");
                heard = true;
                self.judge();
                self.event(&event);
                self.told.events.push(event);
                self.judge();
            }
            self.judge();
            // A client that stalls leaves the bytes where they are, for a while.
            let stalls = self.closed == 0 && self.choices.byte() & 0xe0 == 0xe0;
            if !stalls {
                let sent = self.connection.transmit().split();
                self.told.output.extend_from_slice(&sent);
                self.judged_bytes = 0;
            }
            self.connection.handle_input(self.now_ms, input);
            if !heard {
                return;
            }
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Connect(request) => self.connect(request),
            Event::Publish {
                token,
                message,
                packet_id,
                ..
            } => {
                let qos = message.qos;
                assert_eq!(*packet_id == 0, qos == Qos::AtMostOnce);
                assert!(self.published.back().is_none_or(|last| last.token < *token));
                assert!(!message.topic.is_empty());
                assert_eq!(message.detach(), *message);
                self.last = Some(message.clone());
                let (token, packet_id) = (*token, *packet_id);
                self.published.push_back(Published {
                    token,
                    packet_id,
                    qos,
                    settled: None,
                });
                let mut reason = ReasonCode::Success;
                let mut text = None;
                match self.choices.byte() & 7 {
                    0..=3 => {}
                    4 => return,
                    5 => (reason, text) = (ReasonCode::NotAuthorized, Some("not yours")),
                    6 => text = Some("why"),
                    _ => reason = ReasonCode::NoMatchingSubscribers,
                }
                self.settle(token, reason, text);
            }
            Event::PublishRelease { packet_id } => {
                let known = self.unreleased.contains(packet_id);
                assert!(known, "released, but never acknowledged");
                self.releasing.push(*packet_id);
                if self.choices.byte() & 1 == 0 {
                    self.complete();
                }
            }
            Event::Subscribe { packet_id, filters } => {
                assert!(!filters.is_empty());
                self.requests.push_back((9, *packet_id, filters.len()));
                if self.choices.byte() & 1 == 0 {
                    self.answer();
                }
            }
            Event::Unsubscribe { packet_id, filters } => {
                assert!(!filters.is_empty());
                self.requests.push_back((11, *packet_id, filters.len()));
                if self.choices.byte() & 1 == 0 {
                    self.answer();
                }
            }
            Event::Acked { packet_id, .. } => {
                let at = self.in_flight.iter().position(|id| id == packet_id);
                self.in_flight
                    .remove(at.expect("acknowledged, but not in flight"));
                self.received.retain(|id| id != packet_id);
            }
            Event::Received { packet_id } => {
                assert!(
                    self.in_flight.contains(packet_id),
                    "received, but not in flight"
                );
                self.received.push(*packet_id);
                if self.choices.byte() & 1 == 0 {
                    self.release();
                }
            }
            Event::Closed(_) => {
                self.closed += 1;
                assert!(!self.connection.is_open() && !self.connection.wants_input());
                assert_eq!(self.connection.poll_timeout(), None);
            }
        }
    }

    fn connect(&mut self, request: &ConnectRequest) {
        assert!(self.request.is_none(), "a second CONNECT");
        self.request = Some(request.clone());
        let unreleased = [3, 5, 3];
        let mut accept = Accept {
            session_present: true,
            ..Accept::default()
        };
        match self.choices.byte() {
            0..=159 => {}
            160..=199 => {
                accept.assigned_client_id = Some("assigned");
                accept.session_expiry_s = Some(60);
                accept.server_keep_alive_s = Some(7);
                accept.unreleased = &unreleased;
            }
            200..=219 => return self.connection.refuse(ReasonCode::NotAuthorized, "not you"),
            220..=239 => {
                return self
                    .connection
                    .close(ReasonCode::ServerShuttingDown, "later");
            }
            240..=247 => return self.connection.refuse(ReasonCode::Success, ""),
            // The shell leaves it waiting for ever.
            _ => return,
        }
        self.unreleased.extend_from_slice(accept.unreleased);
        self.connection.accept(self.now_ms, &accept);
    }

    fn settle(&mut self, token: u64, reason: ReasonCode, text: Option<&str>) {
        if let Some(one) = self.published.iter_mut().find(|one| one.token == token) {
            one.settled.get_or_insert(reason);
        }
        self.published
            .retain(|one| one.qos != Qos::AtMostOnce || one.token != token);
        self.connection.publish_settled(token, reason, text);
    }

    fn complete(&mut self) {
        if let Some(packet_id) = self.releasing.pop() {
            self.connection.publish_completed(packet_id);
        }
    }

    fn answer(&mut self) {
        let Some((kind, packet_id, filters)) = self.requests.pop_front() else {
            return;
        };
        let byte = self.choices.byte();
        let code = match byte & 3 {
            0 => ReasonCode::Success,
            1 if kind == 9 => ReasonCode::GrantedQos1,
            2 if kind == 9 => ReasonCode::GrantedQos2,
            _ => ReasonCode::NotAuthorized,
        };
        let codes = vec![code; filters];
        let text = (byte & 0x10 != 0).then_some("told");
        if kind == 9 {
            self.connection.subscribed(packet_id, &codes, text);
        } else {
            self.connection.unsubscribed(packet_id, &codes, text);
        }
    }

    fn release(&mut self) {
        if let Some(packet_id) = self.received.pop() {
            self.connection.released(packet_id);
        }
    }

    fn act(&mut self, action: u8) {
        match action & 0x1f {
            0..=3 => {}
            4..=9 => self.deliver(),
            10..=12 => {
                // Any of those that wait, not the oldest alone.
                let waiting: Vec<u64> = self.published.iter().map(|one| one.token).collect();
                if !waiting.is_empty() {
                    let token = waiting[self.choices.below(waiting.len())];
                    self.settle(token, ReasonCode::Success, None);
                }
            }
            13 => self.complete(),
            14 => self.answer(),
            15 => self.release(),
            16 => {
                for token in self
                    .published
                    .iter()
                    .map(|one| one.token)
                    .collect::<Vec<_>>()
                {
                    self.settle(token, ReasonCode::Success, None);
                }
            }
            17 => self.connection.hold_publishes(true),
            18 => self.connection.hold_publishes(false),
            19..=22 => {
                self.now_ms += u64::from(self.choices.short()) * 4;
                let due = self
                    .connection
                    .poll_timeout()
                    .is_some_and(|due| due <= self.now_ms);
                self.connection.handle_timeout(self.now_ms);
                assert!(
                    !due || self.connection.poll_timeout().is_none(),
                    "a timeout without end"
                );
            }
            23 => self
                .connection
                .close(ReasonCode::SessionTakenOver, "another"),
            24 => self.connection.handle_transport_lost(),
            25 => {
                // Answers to nothing.
                self.connection
                    .publish_settled(u64::MAX, ReasonCode::NotAuthorized, Some("x"));
                self.connection.publish_completed(999);
                self.connection.released(999);
            }
            26 => {
                let packet_id = 60_000 + u16::from(self.choices.byte());
                let known = self.in_flight.contains(&packet_id);
                if !known && self.connection.resume_release(packet_id) {
                    self.in_flight.push(packet_id);
                    self.resumed += 1;
                }
            }
            _ => {}
        }
    }

    fn deliver(&mut self) {
        let byte = self.choices.byte();
        let qos = Qos::from_u8(byte % 3).expect("0 to 2");
        let message = match (&self.last, byte & 0x40) {
            (Some(last), 0) => last.clone(),
            _ => Message::new("status/of/it", vec![byte; usize::from(byte)]),
        };
        let ids = [1, 268_435_455, 77];
        let subscription_ids = &ids[..usize::from(byte >> 4 & 3)];
        let expiry_s = (byte & 0x80 != 0).then_some(60);
        let packet_id = if qos == Qos::AtMostOnce {
            0
        } else {
            self.next_id
        };
        let (retain, dup) = (byte & 4 != 0, byte & 8 != 0 && qos != Qos::AtMostOnce);
        let outcome = self.connection.deliver(&Delivery {
            packet_id,
            message: &message,
            qos,
            retain,
            dup,
            subscription_ids,
            expiry_s,
        });
        if outcome != Deliver::Delivered {
            return;
        }
        assert_eq!(self.closed, 0);
        let v5 = self.version() == Version::V5;
        self.expected.push_back(Expected {
            packet_id,
            qos,
            retain,
            dup,
            topic: message.topic.to_string(),
            payload: message.payload,
            expiry_s: expiry_s.filter(|_| v5),
            subscription_ids: if v5 {
                subscription_ids.to_vec()
            } else {
                Vec::new()
            },
        });
        if qos != Qos::AtMostOnce {
            self.next_id += 1;
            self.in_flight.push(packet_id);
            let request = self.request.as_ref().expect("open");
            let window = usize::from(request.receive_maximum.min(self.limits.inflight_max));
            assert!(
                self.in_flight.len() <= window + self.resumed,
                "beyond the client's window"
            );
        }
    }

    fn version(&self) -> Version {
        self.connection.version().unwrap_or(Version::V311)
    }

    /// Reads what is new in what is to be sent.
    fn judge(&mut self) {
        let pending = self.connection.transmit();
        if pending.len() == self.judged_bytes {
            return;
        }
        let bytes = pending[self.judged_bytes..].to_vec();
        self.judged_bytes = pending.len();
        let v5 = self.version() == Version::V5;
        let mut stream = &bytes[..];
        while !stream.is_empty() {
            let before = stream.len();
            let packet = server_packets::take(&mut stream, v5)
                .unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"))
                .unwrap_or_else(|| panic!("half a packet: {bytes:02x?}"));
            let packet_bytes = before - stream.len();
            let most = self
                .request
                .as_ref()
                .and_then(|request| request.packet_bytes_max);
            assert!(
                !v5 || most.is_none_or(|most| packet_bytes <= most as usize),
                "too large"
            );
            assert!(!self.disconnected, "{packet:?} behind DISCONNECT");
            self.sent(packet);
        }
    }

    fn sent(&mut self, packet: Packet<'_>) {
        let is_connack = matches!(packet, Packet::ConnAck { .. });
        assert_eq!(
            self.connacks == 0,
            is_connack,
            "CONNACK first, and once: {packet:?}"
        );
        let explains = self
            .request
            .as_ref()
            .is_none_or(|one| one.request_problem_information);
        match packet {
            Packet::ConnAck {
                session_present, ..
            } => {
                self.connacks += 1;
                let clean = self
                    .request
                    .as_ref()
                    .is_none_or(|request| request.clean_start);
                assert!(!(session_present && clean), "MQTT-3.2.2-2");
            }
            Packet::Publish {
                topic,
                packet_id,
                qos,
                dup,
                retain,
                properties,
                payload,
            } => {
                let expected = self.expected.pop_front().expect("delivered by nobody");
                let number = |id: u8| properties.iter().find(|one| one.id == id).map(|p| p.number);
                let name = match number(0x23) {
                    None => topic.to_owned(),
                    Some(alias) => {
                        let request = self.request.as_ref().expect("open");
                        assert!(alias <= request.topic_alias_maximum.into(), "MQTT-3.1.2-26");
                        if !topic.is_empty() {
                            self.aliases.retain(|(known, _)| *known != alias);
                            self.aliases.push((alias, topic.to_owned()));
                        }
                        let known = self.aliases.iter().find(|(known, _)| *known == alias);
                        known.expect("an alias that was never defined").1.clone()
                    }
                };
                assert_eq!(name, expected.topic);
                assert_eq!(packet_id.unwrap_or(0), expected.packet_id);
                assert_eq!(qos, expected.qos as u8);
                assert_eq!((dup, retain), (expected.dup, expected.retain));
                assert_eq!(payload, &expected.payload[..]);
                assert_eq!(number(0x02), expected.expiry_s);
                let ids: Vec<u32> = properties
                    .iter()
                    .filter(|one| one.id == 0x0b)
                    .map(|one| one.number)
                    .collect();
                assert_eq!(ids, expected.subscription_ids);
            }
            Packet::Acknowledge {
                kind,
                packet_id,
                reason,
                explained,
            } => {
                assert!(explains || !explained, "MQTT-3.1.2-29");
                match kind {
                    4 | 5 => self.acknowledged(kind, packet_id, reason),
                    7 => self.unreleased.retain(|id| *id != packet_id),
                    _ => {}
                }
            }
            Packet::Answer { explained, .. } => assert!(explains || !explained, "MQTT-3.1.2-29"),
            Packet::PingResp => {}
            Packet::Disconnect { .. } => self.disconnected = true,
        }
    }

    /// PUBACK or PUBREC.
    fn acknowledged(&mut self, kind: u8, packet_id: u16, reason: u8) {
        let qos = if kind == 4 {
            Qos::AtLeastOnce
        } else {
            Qos::ExactlyOnce
        };
        if kind == 5 && reason == ReasonCode::PacketIdentifierInUse as u8 {
            return; // another message under an identifier that is being released
        }
        // QoS 0 has no acknowledgement and keeps none waiting.
        let first = self
            .published
            .iter()
            .position(|one| one.qos != Qos::AtMostOnce);
        if let Some(at) = first {
            let one = &self.published[at];
            let settled = one.settled.is_some() && !breaks("mqtt-settled");
            if one.qos == qos && one.packet_id == packet_id && settled {
                // 3.1.1 has no reason codes, and so acknowledges only what is well.
                let v5 = self.connection.version() == Some(Version::V5);
                let said = |wanted: ReasonCode| match v5 {
                    true => wanted as u8 == reason,
                    false => !wanted.is_error() && reason == 0,
                };
                assert!(one.settled.is_some_and(said), "{:?}", one.settled);
                self.published.remove(at);
                if qos == Qos::ExactlyOnce && reason < 0x80 {
                    self.unreleased.push(packet_id);
                }
                return;
            }
        }
        // A QoS 2 message that came again is acknowledged again, without an event.
        let again = kind == 5 && self.unreleased.contains(&packet_id);
        assert!(again, "acknowledged out of turn or unsettled: {packet_id}");
    }
}

/// The wire cases of the gateway's core: what their clients send, with a shell that
/// says yes to everything, and one that delivers.
fn seeds() -> Vec<Seed> {
    let mut all = Vec::new();
    for name in [
        "connect_v311",
        "connect_v5",
        "ending",
        "malformed",
        "publish_in",
        "publish_out",
        "subscribe",
    ] {
        let text = seeds::file(&format!("gateway/mqtt/tests/cases/{name}.txt"));
        for (number, case) in text.split("\n== ").skip(1).enumerate() {
            let mut stream = Vec::new();
            for line in case.lines() {
                let line = line.split(" ## ").next().unwrap_or(line).trim();
                if let Some(sent) = line.strip_prefix("> ") {
                    stream.extend(notation::bytes(sent));
                } else if line.starts_with("open v4") {
                    stream.extend(notation::bytes("10{ 'MQTT' 04 02 003c 'c' }"));
                } else if let Some(properties) = line.strip_prefix("open v5") {
                    let properties = properties.trim();
                    let properties = if properties.is_empty() {
                        "{}"
                    } else {
                        properties
                    };
                    let connect = format!("10{{ 'MQTT' 05 02 003c {properties} 'c' }}");
                    stream.extend(notation::bytes(&connect));
                }
            }
            if stream.is_empty() || stream.len() > 600 {
                continue;
            }
            let delivers = case.contains("\ndeliver");
            let (flags, shell): (u8, &[u8]) = match (delivers, number % 3) {
                (true, _) => (6, &[0, 0, 4, 1, 0, 4, 0x42, 0, 0, 5, 0x82, 0, 0, 6, 0x31]),
                (false, 0) => (1, &[]),
                (false, 1) => (2, &[]),
                _ => (0, &[]),
            };
            let mut seed = vec![flags, number as u8, shell.len() as u8];
            seed.extend_from_slice(shell);
            seed.extend(stream);
            all.push((format!("{name}-{number:02}"), seed));
        }
    }
    all
}
