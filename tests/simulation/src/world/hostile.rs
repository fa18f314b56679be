//! Clients that are none: rubbish, others' topics, half packets, packets that lie
//! about their length, connections that say nothing.
//!
//! Promises: whatever they do they do under a name of their own; that a client is
//! who it says is not promised by a gateway yet (section "Guarantees", G9). Never:
//! a word that would be in order and change something of another's.

use std::collections::BTreeMap;

use crate::contract::{Ms, chance};
use crate::network::Network;

/// The hostile clients of a run.
pub(super) struct Hostile {
    client: usize,
    chance: fastrand::Rng,
    /// Packets still to be sent on a connection, and when the next is.
    open: BTreeMap<u64, (Ms, u32)>,
}

impl Hostile {
    pub(super) fn new(client: usize, seed: u64) -> Self {
        Self {
            client,
            chance: chance(seed, "hostile"),
            open: BTreeMap::new(),
        }
    }

    /// They come, so many.
    pub(super) fn come(
        &mut self,
        gateway: usize,
        connections: u32,
        now_ms: Ms,
        network: &mut Network,
    ) {
        for _ in 0..connections {
            network.open(self.client, gateway, now_ms);
        }
    }

    pub(super) fn accepted(&mut self, conn: u64, now_ms: Ms) {
        let packets = self.chance.u32(1..8);
        self.open.insert(conn, (now_ms, packets));
    }

    pub(super) fn closed(&mut self, conn: u64) {
        self.open.remove(&conn);
    }

    pub(super) fn due_ms(&self) -> Ms {
        let dues = self.open.values().map(|(at_ms, _)| *at_ms);
        dues.min().unwrap_or(Ms::MAX)
    }

    pub(super) fn step(&mut self, now_ms: Ms, network: &mut Network) {
        let due = self.open.iter().filter(|(_, (at_ms, _))| *at_ms <= now_ms);
        let due: Vec<u64> = due.map(|(conn, _)| *conn).collect();
        for conn in due {
            let Some((at_ms, packets)) = self.open.get_mut(&conn) else {
                continue;
            };
            if *packets == 0 {
                self.open.remove(&conn);
                // Some leave the gateway with a connection that says nothing more.
                if self.chance.bool() {
                    network.client_closes(conn, now_ms);
                }
                continue;
            }
            let first = *packets;
            *packets -= 1;
            *at_ms = now_ms + self.chance.u64(0..3_000);
            let bytes = self.say(first);
            network.from_client(conn, bytes, now_ms);
        }
    }

    fn say(&mut self, left: u32) -> Vec<u8> {
        let victim = self.chance.usize(..self.client.max(1));
        let chance = &mut self.chance;
        match chance.u8(0..10) {
            // In order, so that the next is listened to.
            0..=2 => connect(&format!("h{left}")),
            3 => publish(&format!("t/t{victim}/records"), &[0xA5, 1, 2, 3]),
            4 => publish(&format!("t/t{victim}/receipts"), &[0xFF; 30]),
            5 => {
                let filters = ["t/+/receipts", "#", "t/t0/receipts", "$share/x/t/#"];
                subscribe(filters[chance.usize(..filters.len())])
            }
            6 => {
                let mut bytes = connect("h");
                let keep = chance.usize(..bytes.len());
                bytes.truncate(keep);
                bytes
            }
            // A length that no packet has, or that never comes.
            7 => vec![0x30, 0xFF, 0xFF, 0xFF, chance.u8(..)],
            8 => publish("t/h/records", &vec![0x5A; chance.usize(..2_000)]),
            _ => (0..chance.usize(1..64)).map(|_| chance.u8(..)).collect(),
        }
    }
}

fn text(text: &str, into: &mut Vec<u8>) {
    into.extend((text.len() as u16).to_be_bytes());
    into.extend(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 0x7F;
        bytes.push((length & 0x7F) as u8 | u8::from(more) << 7);
        length >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

fn connect(id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text("MQTT", &mut body);
    // Version 5, clean start, keep alive 60 s, no properties.
    body.extend([5, 2, 0, 60, 0]);
    text(id, &mut body);
    packet(0x10, &body)
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(topic, &mut body);
    body.extend([0, 7, 0]);
    body.extend(payload);
    packet(0x32, &body)
}

fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 9, 0];
    text(filter, &mut body);
    body.push(1);
    packet(0x82, &body)
}
