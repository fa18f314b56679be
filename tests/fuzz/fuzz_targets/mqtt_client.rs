//! The terminal's MQTT client, with any server.
//!
//! An input is what the terminal does, then what the server sends. A packet that
//! the terminal takes is one that the standard allows, and says what a decoder
//! reads in it that shares nothing with it (`server_packets`); what it refuses
//! breaks the standard, or is one of the few packets that nobody may send to a
//! terminal. What the terminal sends is read by the gateway's codec as it was
//! meant. Records leave within the window, each PUBACK names one that is in
//! flight, every wait ends, and no byte takes memory.

#![no_main]

use bytes::BytesMut;
use risiti_fuzz::control::breaks;
use risiti_fuzz::notation;
use risiti_fuzz::seeds::Seed;
use risiti_fuzz::server_packets::{self, Packet};
use risiti_fuzz::{Choices, memory, target};
use risiti_mqtt::Version;
use risiti_mqtt::codec::{Packet as ClientPacket, decode};
use risiti_terminal::limits::{ANSWER_MS, PIPELINE_MAX, RECEIVE_BYTES_MAX};
use risiti_terminal::mqtt::client::{self, Record};
use risiti_terminal::mqtt::incoming::packet_len;
use risiti_terminal::mqtt::transmit::Connect;
use risiti_terminal::mqtt::{Client, Event, Incoming, Transmit};
use risiti_terminal::settings::Settings;

target!("mqtt_client", seeds, |data| {
    let mut header = Choices::new(data);
    let flags = header.byte();
    let mut terminal = Terminal::new(flags, Choices::new(header.led()));
    let mut stream = header.rest();
    while let Ok(Some(length)) = packet_len(stream, RECEIVE_BYTES_MAX) {
        let Some((packet, rest)) = stream.split_at_checked(length) else {
            break;
        };
        for cut in 0..length.min(6) {
            assert!(matches!(
                packet_len(&packet[..cut], RECEIVE_BYTES_MAX),
                Ok(None | Some(_))
            ));
        }
        compare(packet);
        terminal.act();
        if !terminal.hear(packet) {
            return;
        }
        stream = rest;
    }
    terminal.act();
    terminal.wait();
});

/// One decoder against the other.
fn compare(bytes: &[u8]) {
    let account = memory::begin();
    let ours = Incoming::decode(bytes);
    assert_eq!(account.peak_bytes(), 0, "a decoder took memory");
    let mut stream = bytes;
    let standard = server_packets::take(&mut stream, true);
    let Ok(ours) = ours else {
        let Ok(Some(packet)) = standard else { return };
        let never_for_us = match &packet {
            Packet::Publish { qos, .. } => *qos == 2,
            Packet::Acknowledge { kind, .. } => *kind != 4,
            Packet::Answer { kind, codes, .. } => *kind == 11 || codes.len() != 1,
            _ => false,
        };
        assert!(never_for_us, "refused, but the standard has it: {packet:?}");
        return;
    };
    // Refused with the reason for that (0x94), but by the client; see `hear`.
    if matches!(ours, Incoming::Publish(publish) if publish.alias == Some(0)) {
        return;
    }
    let Ok(Some(standard)) = standard else {
        panic!("taken, but not the standard's: {ours:?}, {standard:?}");
    };
    match (ours, &standard) {
        (
            Incoming::ConnAck(ours),
            Packet::ConnAck {
                session_present,
                reason,
                properties,
            },
        ) => {
            let number = |id: u8| properties.iter().find(|one| one.id == id).map(|p| p.number);
            assert_eq!(
                (ours.session_present, ours.reason.0),
                (*session_present, *reason)
            );
            let receive_maximum = number(0x21).unwrap_or(65_535);
            let told = if breaks("client-window") {
                65_535
            } else {
                receive_maximum
            };
            assert_eq!(u32::from(ours.receive_maximum), told);
            assert_eq!(ours.packet_bytes_max, number(0x27).unwrap_or(u32::MAX));
            assert_eq!(
                u32::from(ours.topic_alias_maximum),
                number(0x22).unwrap_or(0)
            );
            assert_eq!(ours.keep_alive_s.map(u32::from), number(0x13));
            assert_eq!(ours.takes_qos_1, number(0x24) != Some(0));
            assert_eq!(ours.takes_retain, number(0x25) != Some(0));
        }
        (
            Incoming::Publish(ours),
            Packet::Publish {
                topic,
                packet_id,
                properties,
                payload,
                ..
            },
        ) => {
            let alias = properties
                .iter()
                .find(|one| one.id == 0x23)
                .map(|one| one.number);
            assert_eq!(ours.topic, topic.as_bytes());
            assert_eq!(
                (ours.packet_id, ours.alias.map(u32::from)),
                (*packet_id, alias)
            );
            assert_eq!(ours.payload, *payload);
        }
        (
            Incoming::PubAck { packet_id, reason },
            Packet::Acknowledge {
                kind: 4,
                packet_id: id,
                reason: code,
                ..
            },
        ) => assert_eq!((packet_id, reason.0), (*id, *code)),
        (
            Incoming::SubAck { packet_id, reason },
            Packet::Answer {
                kind: 9,
                packet_id: id,
                codes,
                ..
            },
        ) => assert_eq!((packet_id, &[reason.0][..]), (*id, *codes)),
        (Incoming::PingResp, Packet::PingResp) => {}
        (Incoming::Disconnect { reason }, Packet::Disconnect { reason: code }) => {
            assert_eq!(reason.0, *code);
        }
        _ => panic!("{ours:?} is not {standard:?}"),
    }
}

struct Terminal<'a> {
    client: Client,
    transmit: Transmit,
    settings: Settings<'static>,
    choices: Choices<'a>,
    now_ms: u64,
    accepted: bool,
    reporting: bool,
    /// Records without PUBACK, in their order.
    in_flight: Vec<u32>,
    next: u32,
    sent_payloads: Vec<u8>,
}

impl<'a> Terminal<'a> {
    fn new(flags: u8, choices: Choices<'a>) -> Self {
        let settings = Settings {
            id: "abc",
            host: "h",
            ..Settings::default()
        };
        let mut terminal = Self {
            client: Client::new(u16::from(flags & 0x1f)),
            transmit: Transmit::new(),
            settings,
            choices,
            now_ms: 1_000,
            accepted: false,
            reporting: false,
            in_flight: Vec::new(),
            next: u32::from(flags >> 5) * 21_666,
            sent_payloads: Vec::new(),
        };
        let connect = Connect {
            id: settings.id,
            token: b"token",
            session_expiry_s: 60,
            keep_alive_s: if flags & 0x40 == 0 { 120 } else { 0 },
            packet_bytes_max: RECEIVE_BYTES_MAX as u32,
            topic_alias_maximum: u16::from(flags >> 7),
            will: Some((settings.status, b"-")),
        };
        let connected = terminal
            .client
            .connect(terminal.now_ms, &connect, &mut terminal.transmit);
        connected.expect("an empty buffer has room");
        terminal
    }

    fn act(&mut self) {
        let now_ms = self.now_ms;
        match self.choices.byte() & 0x0f {
            0..=2 => {}
            3 => {
                let _ = self
                    .client
                    .subscribe(now_ms, &self.settings, &mut self.transmit);
            }
            4 if !self.reporting => {
                let reported =
                    self.client
                        .report(now_ms, &self.settings, b"birth", &mut self.transmit);
                self.reporting |= reported.is_ok();
            }
            5..=12 => {
                for _ in 0..self.choices.below(20) {
                    self.record();
                }
            }
            13 | 14 => {
                self.now_ms += u64::from(self.choices.short());
                let due = self.client.poll_timeout();
                let timed_out = self.client.handle_timeout(self.now_ms, &mut self.transmit);
                if timed_out.is_err() {
                    assert!(due.is_some_and(|due| due <= self.now_ms));
                }
            }
            _ => self.next = self.next.wrapping_add(65_000 - 3),
        }
        self.flush();
    }

    fn record(&mut self) {
        let byte = self.choices.byte();
        let sequence = self.next;
        let payload = [byte; 40];
        let payload = &payload[..usize::from(byte) % 41];
        let record = Record {
            sequence,
            dup: byte & 1 == 1,
            more: byte & 2 == 2,
            payload,
        };
        let before = self.transmit.bytes().len();
        let left = self
            .client
            .record(self.now_ms, &self.settings, &record, &mut self.transmit);
        if left.is_err() {
            assert_eq!(self.transmit.bytes().len(), before, "half a packet");
            self.flush();
            return;
        }
        self.next = self.next.wrapping_add(1);
        self.in_flight.push(sequence);
        self.sent_payloads.push(byte);
        let in_flight = self.in_flight.len() + usize::from(self.reporting);
        assert!(
            in_flight <= usize::from(self.client.window()),
            "beyond the window"
        );
        let ids = self
            .in_flight
            .iter()
            .filter(|one| client::packet_id(**one) == client::packet_id(sequence));
        assert_eq!(ids.count(), 1, "one packet identifier twice in flight");
    }

    /// Sends what was gathered, as the gateway reads it.
    fn flush(&mut self) {
        assert_eq!(self.client.in_flight(), self.in_flight.len());
        let mut stream = BytesMut::from(self.transmit.bytes());
        self.transmit.clear();
        if stream.is_empty() {
            return;
        }
        self.client.sent(self.now_ms);
        let mut payloads = std::mem::take(&mut self.sent_payloads).into_iter();
        while !stream.is_empty() {
            let packet = decode(&mut stream, Version::V5, u32::MAX).expect("what we send is valid");
            let Some(ClientPacket::Publish(publish)) = packet else {
                assert!(packet.is_some(), "half a packet");
                continue;
            };
            let topic = &*publish.message.topic;
            if topic == "t/abc/status" {
                assert_eq!(&publish.message.payload[..], b"birth");
                continue;
            }
            assert!(
                topic == "t/abc/records" || (topic.is_empty() && publish.topic_alias == Some(1))
            );
            let byte = payloads.next().expect("a record that was given");
            assert_eq!(publish.dup, byte & 1 == 1);
            assert!(publish.message.payload.iter().all(|one| *one == byte));
            assert_eq!(publish.message.payload.len(), usize::from(byte) % 41);
        }
        assert_eq!(payloads.next(), None, "a record that did not leave");
    }

    /// Whether the connection goes on.
    fn hear(&mut self, packet: &[u8]) -> bool {
        let event = match self.client.handle(self.now_ms, &self.settings, packet) {
            Ok(event) => event,
            Err(fault) => {
                self.transmit
                    .disconnect(fault.reason())
                    .expect("room for a leave");
                self.flush();
                return false;
            }
        };
        match event {
            Event::Accepted { .. } => {
                assert!(!self.accepted, "let in twice");
                self.accepted = true;
            }
            Event::Refused(_) | Event::Closed(_) => return false,
            Event::Acknowledged { sequence, .. } => {
                assert!(self.accepted);
                let at = self.in_flight.iter().position(|one| *one == sequence);
                self.in_flight
                    .remove(at.expect("acknowledged, but not in flight"));
            }
            Event::Reported(_) => {
                assert!(self.reporting, "reported, but not in flight");
                self.reporting = false;
            }
            Event::Message {
                packet_id, payload, ..
            } => {
                assert!(self.accepted);
                let decoded = Incoming::decode(packet);
                assert!(!matches!(decoded, Ok(Incoming::Publish(one)) if one.alias == Some(0)));
                let inside = packet.as_ptr_range();
                assert!(payload.is_empty() || inside.contains(&payload.as_ptr()));
                if let Some(packet_id) = packet_id {
                    let code = risiti_terminal::mqtt::Reason::SUCCESS;
                    self.transmit
                        .puback(packet_id, code)
                        .expect("room for a PUBACK");
                }
            }
            Event::Subscribed(_) | Event::None => {}
        }
        assert!(usize::from(self.client.window()) <= PIPELINE_MAX);
        assert_eq!(self.client.is_accepted(), self.accepted);
        self.flush();
        true
    }

    /// The server says nothing any more.
    fn wait(&mut self) {
        let awaited = self.client.awaits_answer();
        for _ in 0..4 {
            let Some(due_ms) = self.client.poll_timeout() else {
                assert!(!awaited, "a wait without end");
                return;
            };
            assert!(
                !awaited || due_ms <= self.now_ms + ANSWER_MS,
                "an answer is awaited too long"
            );
            self.now_ms = self.now_ms.max(due_ms);
            if self
                .client
                .handle_timeout(self.now_ms, &mut self.transmit)
                .is_err()
            {
                return;
            }
            self.flush();
        }
        panic!("it waits for ever");
    }
}

fn seeds() -> Vec<Seed> {
    let accepted = "20{ 00 00 {} }";
    let sessions = [
        ("accepted", accepted.to_owned()),
        ("refused", "20{ 00 89 {} }".to_owned()),
        (
            "connack-full",
            "20{ 01 00 { 11 00000009 21 0005 24 00 25 00 27 00000200 12 'i' 22 0002 1f 'r' 26 'a' 'b' \
             28 01 29 01 2a 00 13 001e 1a 'x' 1c 'y' 15 'm' 16 0002 ffff } }"
                .to_owned(),
        ),
        ("limits", "20{ 00 00 { 21 0002 22 0001 27 00000040 13 0005 } } 40{ 0001 } 40{ 0002 10 }".to_owned()),
        (
            "pubacks",
            format!("{accepted} 40{{ 0001 }} 40{{ 0002 10 }} 40{{ 0003 97 {{ 1f 'q' }} }} 40{{ fffe }}"),
        ),
        ("suback", format!("{accepted} 90{{ ffff {{}} 01 }} 90{{ ffff {{ 1f 'q' }} 87 }}")),
        (
            "receipt",
            format!("{accepted} 32{{ 't/abc/receipts' 0007 {{}} \"xy\" }} 30{{ 't/abc/status' {{}} \"x\" }}"),
        ),
        (
            "alias",
            format!(
                "{accepted} 32{{ 't/abc/receipts' 0007 {{ 23 0001 }} \"x\" }} 3a{{ 0000 0008 {{ 23 0001 }} \"y\" }}"
            ),
        ),
        (
            "publish-full",
            format!(
                "{accepted} 3b{{ 't' 0007 {{ 01 01 02 0000003c 0b 05 0b 8001 26 'a' 'b' 03 '' 08 'r' 09 'c' }} \"x\" }}"
            ),
        ),
        ("pong", format!("{accepted} d000 d000")),
        ("leave", format!("{accepted} e0{{ 9d {{ 1c 'h' 26 'a' 'b' }} }}")),
    ];
    let shells: [(u8, &[u8]); 3] = [
        (
            0x10,
            &[7, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 4, 8, 5, 0, 1, 2, 3, 4],
        ),
        (0x90, &[3, 4, 6, 3, 40, 2, 3, 13, 0xff, 0xff, 0]),
        (0x05, &[]),
    ];
    let mut all = Vec::new();
    for (name, session) in sessions {
        for (at, (flags, shell)) in shells.iter().enumerate() {
            let mut seed = vec![*flags, shell.len() as u8];
            seed.extend_from_slice(shell);
            seed.extend(notation::bytes(&session));
            all.push((format!("{name}-{at}"), seed));
        }
    }
    all
}
