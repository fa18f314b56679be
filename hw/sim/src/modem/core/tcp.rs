//! A modem's TCP connection.
//!
//! Promises: received bytes stay until they are fetched; what was sent before an
//! end arrives before it. Never: a socket.

use std::time::Duration;

use super::super::fault::Moment;
use super::{Effect, Event, Family, ModemCore, Outcome, Packet};
use crate::network::Cut;

impl ModemCore {
    pub(super) fn open(&mut self, host: String, port: u16) -> Outcome {
        match self.packet {
            Packet::Ready | Packet::Closed => {}
            Packet::Connected | Packet::Connecting => {
                self.say("ERROR");
                self.say("ALREADY CONNECT");
                return Outcome::Own;
            }
            _ => return Outcome::Error,
        }
        let is_address = host.parse::<std::net::Ipv4Addr>().is_ok();
        if self.setup.family == Family::Quectel && is_address == self.looks_up_names {
            return Outcome::Error;
        }
        self.packet = Packet::Connecting;
        self.peer_ended = false;
        self.received.clear();
        self.announced = false;
        self.dial = Some((host, port));
        let link = &self.setup.network.link;
        // A name takes a round trip before the connection's own.
        let trips = if is_address { 1 } else { 2 };
        let jitter = link.jitter.mul_f64(self.chance.f64());
        let takes = link.round_trip * trips + jitter;
        self.later(takes, Event::Reached);
        Outcome::Ok
    }

    pub(super) fn connect_failed(&mut self) {
        self.packet = Packet::Closed;
        if self.setup.family == Family::Sim800 {
            self.say("STATE: TCP CLOSED");
        }
        self.say("CONNECT FAIL");
    }

    pub(super) fn send(&mut self, bytes: usize) -> Outcome {
        if self.packet != Packet::Connected || !(1..=1_460).contains(&bytes) {
            return Outcome::Error;
        }
        let connection = self.connection.as_ref();
        let room_at = connection.map_or(self.now, |connection| connection.room_at(self.now));
        if room_at > self.now {
            self.busy = true;
            self.at(room_at, Event::Prompt(bytes));
        } else {
            self.prompt(bytes);
        }
        Outcome::Own
    }

    pub(super) fn prompt(&mut self, bytes: usize) {
        if self.packet != Packet::Connected {
            return self.say("ERROR");
        }
        self.chatter();
        self.say_raw(b"\r\n> ".to_vec());
        self.chatter();
        self.payload_left = bytes;
        self.input.clear();
        if let Some(kind) = self.fault(|at| *at == Moment::Prompt) {
            self.suffer(kind, Event::Prompt(bytes));
        }
    }

    pub(super) fn hear_payload(&mut self) {
        let bytes = std::mem::take(&mut self.input);
        if let Some(kind) = self.fault(|at| *at == Moment::Payload)
            && !self.suffer(kind, Event::Payload(bytes.clone()))
        {
            return;
        }
        self.take_payload(&bytes);
    }

    pub(super) fn take_payload(&mut self, bytes: &[u8]) {
        if self.packet != Packet::Connected {
            return self.say("SEND FAIL");
        }
        let mut taken = bytes.len();
        if self.quick_send && taken > 1 && self.chance.f64() < self.setup.partial_accepts {
            taken = self.chance.usize(1..taken);
        }
        let bytes = bytes.get(..taken).unwrap_or_default();
        // One that has been cut silently takes them, and nothing comes of it.
        let sent = self.connection.as_mut();
        let acknowledged_at = sent.map(|connection| connection.send(self.now, bytes));
        match self.setup.family {
            Family::Quectel => self.say("SEND OK"),
            Family::Sim800 if self.quick_send => self.say(&format!("DATA ACCEPT:{taken}")),
            Family::Sim800 => {
                self.busy = true;
                if let Some(at) = acknowledged_at {
                    self.at(at, Event::SendAcknowledged);
                }
            }
        }
        self.carry();
    }

    pub(super) fn fetch(&mut self, bytes: usize) -> Outcome {
        let open = self.packet == Packet::Connected;
        let rest = self.packet == Packet::Closed && !self.received.is_empty();
        if !self.manual_receive || !(1..=1_460).contains(&bytes) || !(open || rest) {
            return Outcome::Error;
        }
        let count = bytes.min(self.received.len());
        let data: Vec<u8> = self.received.drain(..count).collect();
        let left = self.received.len();
        self.announced = left > 0;
        let head = match self.setup.family {
            Family::Sim800 => format!("\r\n+CIPRXGET: 2,{count},{left}\r\n"),
            Family::Quectel if count == 0 => return Outcome::Ok,
            Family::Quectel => format!("\r\n+QIRD: 10.0.0.1:1883,TCP,{count}\r\n"),
        };
        self.chatter();
        let mut block = head.into_bytes();
        block.extend(data);
        self.say_raw(block);
        Outcome::Ok
    }

    pub(super) fn close(&mut self, quick: bool) -> Outcome {
        if self.packet != Packet::Connected {
            return Outcome::Error;
        }
        let connection = self.connection.as_ref();
        let done_at = match connection {
            Some(connection) if !quick => connection.acknowledged_at(self.now),
            Some(_) => self.now,
            // Cut silently: it tries for a while.
            None => self.now + Duration::from_secs(30),
        };
        self.at(done_at, Event::CloseEnds);
        Outcome::Own
    }

    /// Whatever connection there is ends, and the peer is told.
    pub(super) fn hang_up(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            // What is on the way arrives: it left before.
            while let Some(bytes) = connection.arrived_up(Duration::MAX) {
                self.effects.push_back(Effect::ToPeer(bytes));
            }
            self.effects.push_back(Effect::HangUp);
        }
        self.connection_is_over();
    }

    pub(super) fn connection_is_over(&mut self) {
        self.dial = None;
        let over = |event: &Event| {
            matches!(
                event,
                Event::Reached | Event::SendAcknowledged | Event::CloseEnds
            )
        };
        let waited = self
            .events
            .iter()
            .any(|(_, event)| *event == Event::SendAcknowledged);
        self.events.retain(|(_, event)| !over(event));
        if waited {
            self.busy = false;
        }
    }

    pub(super) fn closed_by_peer(&mut self) {
        self.hang_up();
        if self.is_in_use() {
            self.packet = Packet::Closed;
        }
        self.say(self.setup.family.closed());
    }

    /// Moves what is on the air.
    pub(super) fn carry(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        while let Some(bytes) = connection.arrived_up(self.now) {
            self.effects.push_back(Effect::ToPeer(bytes));
        }
        while let Some(bytes) = connection.arrived_down(self.now) {
            self.received.extend(bytes);
        }
        let cut = connection.cut(self.now);
        let ended = self.peer_ended && connection.is_read_up();
        self.announce();
        match cut {
            Some(Cut::Told) => {
                self.connection = None;
                self.effects.push_back(Effect::Vanish);
                self.connection_is_over();
                self.packet = Packet::Closed;
                self.say(self.setup.family.closed());
            }
            Some(Cut::Silent) => {
                self.connection = None;
                self.effects.push_back(Effect::Vanish);
            }
            None if ended => self.closed_by_peer(),
            None => {}
        }
    }

    /// Announces received bytes, or pushes them if nobody wants to fetch them.
    fn announce(&mut self) {
        if self.received.is_empty() {
            return;
        }
        if !self.manual_receive {
            let bytes: Vec<u8> = self.received.drain(..).collect();
            let mut block = format!("\r\n+IPD,{}:", bytes.len()).into_bytes();
            block.extend(bytes);
            self.say_raw(block);
        } else if !self.announced {
            self.announced = true;
            self.say(self.setup.family.data_waits());
        }
    }
}
