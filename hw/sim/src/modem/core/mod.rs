//! A modem as a core: bytes and time in, bytes and effects out.
//!
//! Promises: as strict as the real one: a command in the wrong state, or in the
//! middle of a line that it should end, is an `ERROR`; a command under way hears
//! nothing. With one seed, one course. Never: a clock or a socket.

mod event;
mod packet;
mod power;
mod serial;
mod tcp;

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;
use risiti_terminal::energy::{Draw, Meter, Radio, State};

use super::fault::Fault;
use super::setup::{ModemSetup, SimCard};
use super::words::Family;
use crate::limits::MODEM_WINDOW_BYTES;
use crate::network::Connection;
use event::Event;

/// What a modem asks its surroundings for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Connect to this peer and tell [`ModemCore::dialled`].
    Dial {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// These bytes have reached the peer.
    ToPeer(Vec<u8>),
    /// The connection has ended in an orderly way, behind all bytes.
    HangUp,
    /// The connection is gone, and the peer is not told.
    Vanish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    Off,
    Starting,
    On,
}

/// How far packet data are: SIM800's states; Quectel's are the same but for
/// `Active`, which it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packet {
    Initial,
    Start,
    Active,
    Ready,
    Connecting,
    Connected,
    Closed,
    Deactivated,
}

/// How one command of a line went.
enum Outcome {
    Ok,
    Error,
    /// Its answer was given, or comes later.
    Own,
}

/// How long a modem thinks about a command.
const THOUGHT: Duration = Duration::from_millis(10);

/// A modem.
#[derive(Debug)]
pub struct ModemCore {
    setup: ModemSetup,
    chance: Rng,
    now: Duration,
    power: Power,
    supplied: bool,
    key_pressed_at: Option<Duration>,
    meter: Meter,
    events: Vec<(Duration, Event)>,
    said: VecDeque<(Duration, Vec<u8>)>,
    /// When the serial line has carried all that was said.
    said_until: Duration,
    effects: VecDeque<Effect>,
    faults: Vec<Fault>,
    hangs: bool,
    input: Vec<u8>,
    /// Bytes to send that are yet to come.
    payload_left: usize,
    /// A command is under way.
    busy: bool,
    echo: bool,
    codes: bool,
    hears_time: bool,
    sim_ready: bool,
    registered: bool,
    attached: bool,
    attached_at: Option<Duration>,
    packet: Packet,
    access_point: bool,
    looks_up_names: bool,
    manual_receive: bool,
    quick_send: bool,
    dial: Option<(String, u16)>,
    connection: Option<Connection>,
    peer_ended: bool,
    received: VecDeque<u8>,
    announced: bool,
    commands: u64,
}

impl ModemCore {
    /// A modem that is off, with its battery in.
    #[must_use]
    pub fn new(setup: ModemSetup, seed: u64) -> Self {
        Self {
            setup,
            chance: Rng::with_seed(seed),
            now: Duration::ZERO,
            power: Power::Off,
            supplied: true,
            key_pressed_at: None,
            meter: Meter::new(Draw::SIM800, 0),
            events: Vec::new(),
            said: VecDeque::new(),
            said_until: Duration::ZERO,
            effects: VecDeque::new(),
            faults: Vec::new(),
            hangs: false,
            input: Vec::new(),
            payload_left: 0,
            busy: false,
            echo: true,
            codes: false,
            hears_time: false,
            sim_ready: false,
            registered: false,
            attached: false,
            attached_at: None,
            packet: Packet::Initial,
            access_point: false,
            looks_up_names: false,
            manual_receive: false,
            quick_send: false,
            dial: None,
            connection: None,
            peer_ended: false,
            received: VecDeque::new(),
            announced: false,
            commands: 0,
        }
    }

    // In.

    /// Lets everything happen that is due by now, each at its time.
    pub fn advance(&mut self, now: Duration) {
        while let Some(at) = self.happens_at().filter(|at| *at <= now) {
            self.now = self.now.max(at);
            self.carry();
            if let Some(event) = self.due() {
                self.happen(event);
            }
            self.account();
        }
        self.now = self.now.max(now);
        self.carry();
        self.account();
    }

    /// The power key is pressed or let go.
    pub fn key(&mut self, now: Duration, pressed: bool) {
        self.advance(now);
        if pressed {
            if self.key_pressed_at.is_none() {
                self.key_pressed_at = Some(self.now);
                self.later(Duration::from_millis(1_000), Event::KeyHeld);
            }
            return;
        }
        let Some(pressed_at) = self.key_pressed_at.take() else {
            return;
        };
        self.events.retain(|(_, event)| *event != Event::KeyHeld);
        let held = self.now - pressed_at;
        let needed = match self.setup.family {
            Family::Sim800 => Duration::from_millis(1_000),
            Family::Quectel => Duration::from_millis(600),
        };
        // The press that has switched it on does not switch it off.
        if self.power == Power::On && held >= needed {
            self.go_off_in_order();
        }
        self.account();
    }

    /// The supply comes or goes.
    pub fn set_supply(&mut self, now: Duration, supplied: bool) {
        self.advance(now);
        self.supplied = supplied;
        if !supplied {
            self.go_off();
        }
        self.account();
    }

    /// The supply is too low; `off` if so low that the modem goes off.
    pub fn under_voltage(&mut self, now: Duration, off: bool) {
        self.advance(now);
        if self.power == Power::On {
            self.complain(off);
        }
        self.account();
    }

    /// Orders a fault.
    pub fn order(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Bytes come from the terminal.
    pub fn hear(&mut self, now: Duration, bytes: &[u8]) {
        self.advance(now);
        for byte in bytes {
            if self.power == Power::On && !self.hangs {
                self.hear_byte(*byte);
            }
        }
        self.account();
    }

    /// Whether the connection asked for by [`Effect::Dial`] was made.
    pub fn dialled(&mut self, now: Duration, made: bool) {
        self.advance(now);
        if self.packet != Packet::Connecting {
            if made {
                self.effects.push_back(Effect::HangUp);
            }
            return;
        }
        if made {
            self.packet = Packet::Connected;
            let connection = Connection::new(&self.setup.network, &mut self.chance, self.now);
            self.connection = Some(connection);
            self.say("CONNECT OK");
        } else {
            self.connect_failed();
        }
        self.account();
    }

    /// Bytes come from the peer.
    pub fn hear_peer(&mut self, now: Duration, bytes: Vec<u8>) {
        self.advance(now);
        if let Some(connection) = &mut self.connection {
            connection.take_from_peer(self.now, bytes);
        }
        self.advance(now);
    }

    /// The peer has ended the connection.
    pub fn peer_ended(&mut self, now: Duration) {
        self.advance(now);
        self.peer_ended = true;
        self.advance(now);
    }

    // Out.

    /// Whether bytes from the peer are taken.
    #[must_use]
    pub fn takes_from_peer(&self) -> bool {
        let window = self.received.len() < MODEM_WINDOW_BYTES;
        let connection = self.connection.as_ref();
        window && !self.peer_ended && connection.is_some_and(Connection::has_room_for_peer)
    }

    /// When something happens next by itself.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        let said = self.said.front().map(|(at, _)| *at);
        self.happens_at().into_iter().chain(said).min()
    }

    fn happens_at(&self) -> Option<Duration> {
        let events = self.events.iter().map(|(at, _)| *at);
        let connection = self.connection.as_ref().and_then(Connection::next_at);
        events.chain(connection).min()
    }

    /// What has come out of its serial line by now.
    pub fn take_said(&mut self) -> Option<Vec<u8>> {
        let (at, _) = self.said.front()?;
        if *at > self.now {
            return None;
        }
        self.said.pop_front().map(|(_, bytes)| bytes)
    }

    /// What it asks for next.
    pub fn take_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What the radio has really done; its bytes are the driver's to count.
    #[must_use]
    pub fn radio(&self) -> Radio {
        self.meter.radio(millis(self.now))
    }

    /// What it is doing, as far as its supply current goes.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.power, self.packet) {
            (Power::Off, _) => State::Off,
            (Power::On, Packet::Connecting | Packet::Connected) => State::Data,
            (Power::On, Packet::Start) if self.busy => State::Data,
            _ => State::Idle,
        }
    }

    /// Command lines that it has heard.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.commands
    }

    fn account(&mut self) {
        let state = self.state();
        self.meter.enter(state, millis(self.now));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
