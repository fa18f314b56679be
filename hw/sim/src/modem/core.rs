//! A modem as a core: bytes and time in, bytes and effects out.
//!
//! Promises: as strict as the real one: a command in the wrong state, or in the
//! middle of a line that it should end, is an `ERROR`; a command under way hears
//! nothing. With one seed, one course. Never: a clock or a socket.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;
use risiti_terminal::energy::{Draw, Meter, Radio, State};

use super::fault::{Fault, FaultKind, Moment};
use super::words::{Family, Request, commands};
use crate::limits::{COMMAND_BYTES_MAX, MODEM_WINDOW_BYTES};
use crate::network::{Connection, Cut, NetworkProfile};

/// How a modem is made, and where it stands.
#[derive(Debug, Clone)]
pub struct ModemSetup {
    /// Which commands it speaks.
    pub family: Family,
    /// The network around it.
    pub network: NetworkProfile,
    /// What is in its card holder.
    pub sim: SimCard,
    /// Bits a second of its serial line, with 10 a byte; none = no time at all.
    pub baud: Option<u32>,
    /// Probability that an unsolicited code comes before a line, or within an
    /// echo.
    pub chatter: f64,
    /// Probability that only some of the bytes to send are accepted.
    pub partial_accepts: f64,
    /// What time the network tells at the beginning, in seconds since 1970-01-01
    /// UTC.
    pub began_s: u32,
}

impl ModemSetup {
    /// A modem at 115,200 baud with a good SIM card.
    #[must_use]
    pub fn new(family: Family, network: NetworkProfile) -> Self {
        Self {
            family,
            network,
            sim: SimCard::Ready,
            baud: Some(115_200),
            chatter: 0.0,
            partial_accepts: 0.0,
            // 2026-11-21 00:00 UTC
            began_s: 1_795_219_200,
        }
    }
}

/// What is in a modem's card holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimCard {
    /// A card that the network takes.
    Ready,
    /// Nothing.
    Absent,
    /// A card that asks for a code.
    Locked,
    /// A card that the network refuses.
    Denied,
}

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

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    KeyHeld,
    Started,
    SimReady,
    Registered,
    Attached,
    /// A command line is carried out, late.
    Line(String),
    /// Bytes to send are taken, late.
    Payload(Vec<u8>),
    AttachEnds,
    /// There is room for so many bytes to send.
    Prompt(usize),
    ShutEnds,
    ActivationEnds,
    ContextLost,
    Reached,
    SendAcknowledged,
    CloseEnds,
    OffEnds,
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

    /// Lets everything happen that is due by now.
    pub fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.carry();
        while let Some(event) = self.due() {
            self.happen(event);
            self.carry();
        }
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
        let events = self.events.iter().map(|(at, _)| *at);
        let said = self.said.front().map(|(at, _)| *at);
        let connection = self.connection.as_ref().and_then(Connection::next_at);
        events.chain(said).chain(connection).min()
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

    // Power.

    fn start(&mut self) {
        self.power = Power::Starting;
        let takes = self.chance.u64(2_000..3_000);
        self.later(Duration::from_millis(takes), Event::Started);
    }

    fn started(&mut self) {
        self.power = Power::On;
        for word in ["RDY", "+CFUN: 1"] {
            self.say(word);
        }
        if self.setup.sim == SimCard::Ready || self.setup.sim == SimCard::Denied {
            self.later(Duration::from_millis(800), Event::SimReady);
        } else if self.setup.sim == SimCard::Locked {
            self.say("+CPIN: SIM PIN");
        }
        let takes = self.setup.network.registration.draw(&mut self.chance);
        let none = self.chance.f64() < self.setup.network.no_service;
        if self.setup.sim == SimCard::Ready && !none {
            self.later(takes.max(Duration::from_millis(801)), Event::Registered);
        }
    }

    fn go_off_in_order(&mut self) {
        self.busy = true;
        let takes = self.chance.u64(800..2_500);
        self.hang_up();
        self.packet = Packet::Initial;
        self.later(Duration::from_millis(takes), Event::OffEnds);
    }

    fn complain(&mut self, off: bool) {
        let words = self.setup.family.under_voltage(off);
        self.say(words);
        if off {
            let said = std::mem::take(&mut self.said);
            self.go_off();
            self.said = said;
        }
    }

    /// Everything is gone at once.
    fn go_off(&mut self) {
        if self.connection.take().is_some() || self.dial.take().is_some() {
            self.effects.push_back(Effect::Vanish);
        }
        let fresh = Self::new(self.setup.clone(), self.chance.u64(..));
        let old = std::mem::replace(self, fresh);
        self.now = old.now;
        self.supplied = old.supplied;
        self.key_pressed_at = old.key_pressed_at;
        self.meter = old.meter;
        self.said_until = old.said_until;
        self.effects = old.effects;
        self.faults = old.faults;
        self.commands = old.commands;
    }

    fn account(&mut self) {
        let state = self.state();
        self.meter.enter(state, millis(self.now));
    }

    // Serial line.

    fn hear_byte(&mut self, byte: u8) {
        if self.payload_left > 0 {
            self.input.push(byte);
            self.payload_left -= 1;
            if self.payload_left == 0 {
                self.hear_payload();
            }
            return;
        }
        if self.busy {
            return;
        }
        match byte {
            b'\r' => {
                let line = std::mem::take(&mut self.input);
                let printable = |byte: &u8| matches!(byte, b' '..=b'~');
                let line: Vec<u8> = line.into_iter().filter(printable).collect();
                let line = String::from_utf8_lossy(&line).into_owned();
                if self.echo {
                    self.say_echo(&line);
                }
                self.hear_line(&line);
            }
            b'\n' => {}
            _ if self.input.len() < COMMAND_BYTES_MAX => self.input.push(byte),
            _ => self.input.clear(),
        }
    }

    fn hear_line(&mut self, line: &str) {
        let Some(body) = line.strip_prefix("AT").or_else(|| line.strip_prefix("at")) else {
            return;
        };
        self.commands += 1;
        let moment = |at: &Moment| matches!(at, Moment::Command(text) if line.contains(text));
        if let Some(kind) = self.fault(moment)
            && !self.suffer(kind, Event::Line(body.to_owned()))
        {
            return;
        }
        self.carry_out(body);
    }

    fn carry_out(&mut self, body: &str) {
        let commands: Vec<_> = commands(body)
            .into_iter()
            .filter(|command| !command.is_empty())
            .collect();
        for (index, command) in commands.iter().enumerate() {
            let request = self.setup.family.read(command);
            let last = index + 1 == commands.len();
            let outcome = match request {
                Some(request) if last || !request.ends_line() => self.execute(request),
                _ => Outcome::Error,
            };
            match outcome {
                Outcome::Ok => {}
                Outcome::Error => return self.say("ERROR"),
                Outcome::Own => return,
            }
        }
        self.say("OK");
    }

    /// A fault ordered for this moment, if it is its turn.
    fn fault(&mut self, is_moment: impl Fn(&Moment) -> bool) -> Option<FaultKind> {
        let mut due = None;
        for (index, fault) in self.faults.iter_mut().enumerate() {
            if is_moment(&fault.at) {
                if fault.after == 0 {
                    due = Some(index);
                    break;
                }
                fault.after -= 1;
            }
        }
        due.map(|index| self.faults.remove(index).kind)
    }

    /// Whether what was under way goes on.
    fn suffer(&mut self, kind: FaultKind, what: Event) -> bool {
        match kind {
            FaultKind::Error => self.say("ERROR"),
            FaultKind::Silence => {}
            FaultKind::Hang => self.hangs = true,
            FaultKind::Late(delay) => {
                self.busy = true;
                self.later(delay, what);
            }
            FaultKind::Rubbish => {
                let rubbish = (0..200).map(|_| self.chance.u8(..)).collect();
                self.say_raw(rubbish);
                self.say_raw(b"\r\n".to_vec());
                return true;
            }
            FaultKind::Closed => {
                self.closed_by_peer();
                return true;
            }
            FaultKind::Deactivated => {
                self.deactivated();
                return true;
            }
            FaultKind::UnderVoltage => {
                self.complain(false);
                return true;
            }
            FaultKind::UnderVoltageOff => self.complain(true),
            FaultKind::Restart => {
                self.go_off();
                self.start();
            }
            FaultKind::PowerCut => self.go_off(),
        }
        false
    }

    fn say(&mut self, line: &str) {
        self.chatter();
        self.say_raw(format!("\r\n{line}\r\n").into_bytes());
    }

    fn say_echo(&mut self, line: &str) {
        let middle = self.chance.usize(..=line.len());
        let (head, tail) = line.split_at(middle);
        self.say_raw(head.as_bytes().to_vec());
        self.chatter();
        self.say_raw(format!("{tail}\r").into_bytes());
    }

    /// Something that nobody has asked for.
    fn chatter(&mut self) {
        if self.chance.f64() >= self.setup.chatter {
            return;
        }
        let codes = [
            "RING",
            "+CMTI: \"SM\",3",
            "+CIEV: \"MESSAGE\",1",
            "*PSUTTZ: 2026,11,21,9,30,10,\"+12\",0",
            "+CIEV: 10,\"63902\",\"a name that is longer than any line that matters\", 0, 0",
            "Call Ready",
            "SMS Ready",
        ];
        let code = codes[self.chance.usize(..codes.len())];
        let registration = self.registered && self.codes && self.chance.bool();
        let code = if registration { "+CREG: 1" } else { code };
        self.say_raw(format!("\r\n{code}\r\n").into_bytes());
    }

    fn say_raw(&mut self, bytes: Vec<u8>) {
        let began = self.said_until.max(self.now + THOUGHT);
        self.said_until = began + self.takes(bytes.len());
        self.said.push_back((self.said_until, bytes));
    }

    fn takes(&self, bytes: usize) -> Duration {
        match self.setup.baud {
            Some(baud) => Duration::from_secs_f64(bytes as f64 * 10.0 / f64::from(baud.max(1))),
            None => Duration::ZERO,
        }
    }

    // Events.

    fn later(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.events.push((at, event));
    }

    /// The event that is due first.
    fn due(&mut self) -> Option<Event> {
        let due = self.events.iter().enumerate();
        let (index, (at, _)) = due.min_by_key(|(_, (at, _))| *at)?;
        (*at <= self.now).then(|| self.events.remove(index).1)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::KeyHeld => {
                if self.power == Power::Off && self.supplied {
                    self.start();
                    // Held on, it is not a press that ends.
                    self.key_pressed_at = None;
                }
            }
            Event::Started => self.started(),
            Event::SimReady => {
                self.sim_ready = true;
                self.say("+CPIN: READY");
            }
            Event::Registered => {
                self.registered = true;
                if self.codes {
                    self.say("+CREG: 1");
                }
                let takes = self.setup.network.attach.draw(&mut self.chance);
                self.attached_at = Some(self.now + takes);
                self.later(takes, Event::Attached);
            }
            Event::Attached => self.attached = true,
            Event::Line(body) => {
                self.busy = false;
                self.carry_out(&body);
            }
            Event::Payload(bytes) => {
                self.busy = false;
                self.take_payload(&bytes);
            }
            Event::AttachEnds => self.answer("OK"),
            Event::Prompt(bytes) => {
                self.busy = false;
                self.prompt(bytes);
            }
            Event::ShutEnds => {
                self.packet = Packet::Initial;
                self.answer(self.setup.family.shut());
            }
            Event::ActivationEnds => self.activation_ends(),
            Event::ContextLost => self.deactivated(),
            Event::Reached => {
                if let Some((host, port)) = self.dial.take() {
                    self.effects.push_back(Effect::Dial { host, port });
                }
            }
            Event::SendAcknowledged => self.answer("SEND OK"),
            Event::CloseEnds => {
                if self.packet == Packet::Connected {
                    self.hang_up();
                    self.packet = Packet::Closed;
                    self.say("CLOSE OK");
                }
            }
            Event::OffEnds => {
                self.say("NORMAL POWER DOWN");
                let said = std::mem::take(&mut self.said);
                self.go_off();
                self.said = said;
            }
        }
    }

    fn answer(&mut self, line: &str) {
        self.busy = false;
        self.say(line);
    }

    // Network.

    fn execute(&mut self, request: Request) -> Outcome {
        match request {
            Request::Echo(on) => self.echo = on,
            Request::Accepted => {}
            Request::Pin => return self.pin(),
            Request::Registration => {
                let state = match (self.registered, self.setup.sim) {
                    (true, _) => 1,
                    (false, SimCard::Denied) => 3,
                    (false, SimCard::Ready) => 2,
                    (false, _) => 0,
                };
                let codes = u8::from(self.codes);
                self.say(&format!("+CREG: {codes},{state}"));
            }
            Request::RegistrationCodes(on) => self.codes = on,
            Request::Attached => {
                let attached = u8::from(self.attached);
                self.say(&format!("+CGATT: {attached}"));
            }
            Request::Attach => {
                if !self.registered {
                    return Outcome::Error;
                }
                self.busy = true;
                let at = self.attached_at.unwrap_or_default().max(self.now);
                self.at(at, Event::AttachEnds);
                return Outcome::Own;
            }
            Request::Signal => {
                let signal = if self.registered {
                    self.chance.u8(8..25)
                } else {
                    99
                };
                self.say(&format!("+CSQ: {signal},0"));
            }
            Request::HearTime => self.hears_time = true,
            Request::Time => {
                let time = self.time();
                self.say(&time);
            }
            Request::ManualReceive(_) | Request::QuickSend(_) | Request::AccessPoint
                if self.is_in_use() =>
            {
                return Outcome::Error;
            }
            Request::ManualReceive(on) => self.manual_receive = on,
            Request::QuickSend(on) => self.quick_send = on,
            Request::LookUpNames(on) => self.looks_up_names = on,
            Request::AccessPoint => match (self.setup.family, self.packet) {
                (Family::Sim800, Packet::Initial) => self.packet = Packet::Start,
                (Family::Sim800, _) => return Outcome::Error,
                (Family::Quectel, _) => self.access_point = true,
            },
            Request::Prepare => {
                if self.packet != Packet::Initial || !self.access_point {
                    return Outcome::Error;
                }
                self.packet = Packet::Start;
            }
            Request::Shut => {
                self.hang_up();
                self.busy = true;
                self.later(Duration::from_millis(200), Event::ShutEnds);
                return Outcome::Own;
            }
            Request::Activate => {
                if self.packet != Packet::Start || !self.attached {
                    return Outcome::Error;
                }
                self.busy = true;
                let takes = self.setup.network.activation.draw(&mut self.chance);
                self.later(takes, Event::ActivationEnds);
                return Outcome::Own;
            }
            Request::Address => {
                if matches!(
                    self.packet,
                    Packet::Initial | Packet::Start | Packet::Deactivated
                ) {
                    return Outcome::Error;
                }
                if self.packet == Packet::Active {
                    self.packet = Packet::Ready;
                }
                self.say("10.64.3.17");
                return Outcome::Own;
            }
            Request::Open { host, port } => return self.open(host, port),
            Request::Send(bytes) => return self.send(bytes),
            Request::Fetch(bytes) => return self.fetch(bytes),
            Request::Close { quick } => return self.close(quick),
            Request::Off => {
                self.go_off_in_order();
                return Outcome::Own;
            }
        }
        Outcome::Ok
    }

    fn pin(&mut self) -> Outcome {
        match self.setup.sim {
            SimCard::Locked => self.say("+CPIN: SIM PIN"),
            _ if self.sim_ready => self.say("+CPIN: READY"),
            _ => return Outcome::Error,
        }
        Outcome::Ok
    }

    /// `+CCLK`, in the time zone of East Africa.
    fn time(&self) -> String {
        const QUARTERS: u64 = 12;
        if !(self.hears_time && self.registered) {
            let seconds = self.now.as_secs() % 60;
            return format!("+CCLK: \"04/01/01,00:00:{seconds:02}+00\"");
        }
        let now_s = u64::from(self.setup.began_s) + self.now.as_secs() + QUARTERS * 15 * 60;
        let (days, second) = (now_s / 86_400, now_s % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let year = year % 100;
        format!(
            "+CCLK: \"{year:02}/{month:02}/{day:02},{hour:02}:{minute:02}:{second:02}+{QUARTERS}\""
        )
    }

    fn is_in_use(&self) -> bool {
        matches!(self.packet, Packet::Connecting | Packet::Connected)
    }

    fn activation_ends(&mut self) {
        if self.chance.f64() < self.setup.network.activation_refused {
            self.packet = Packet::Deactivated;
            return self.answer("ERROR");
        }
        self.packet = match self.setup.family {
            Family::Sim800 => Packet::Active,
            Family::Quectel => Packet::Ready,
        };
        if let Some(mean) = self.setup.network.context_life_mean {
            let fortune = -(1.0 - self.chance.f64()).ln();
            self.later(mean.mul_f64(fortune), Event::ContextLost);
        }
        self.answer("OK");
    }

    fn deactivated(&mut self) {
        if self.power != Power::On {
            return;
        }
        self.events
            .retain(|(_, event)| *event != Event::ContextLost);
        if self.connection.take().is_some() {
            self.effects.push_back(Effect::Vanish);
        }
        self.connection_is_over();
        if !matches!(self.packet, Packet::Initial | Packet::Start) {
            self.packet = Packet::Deactivated;
        }
        self.say(self.setup.family.deactivated());
    }

    // TCP.

    fn open(&mut self, host: String, port: u16) -> Outcome {
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

    fn connect_failed(&mut self) {
        self.packet = Packet::Closed;
        if self.setup.family == Family::Sim800 {
            self.say("STATE: TCP CLOSED");
        }
        self.say("CONNECT FAIL");
    }

    fn send(&mut self, bytes: usize) -> Outcome {
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

    fn prompt(&mut self, bytes: usize) {
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

    fn hear_payload(&mut self) {
        let bytes = std::mem::take(&mut self.input);
        if let Some(kind) = self.fault(|at| *at == Moment::Payload)
            && !self.suffer(kind, Event::Payload(bytes.clone()))
        {
            return;
        }
        self.take_payload(&bytes);
    }

    fn take_payload(&mut self, bytes: &[u8]) {
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

    fn fetch(&mut self, bytes: usize) -> Outcome {
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

    fn close(&mut self, quick: bool) -> Outcome {
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
    fn hang_up(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            // What is on the way arrives: it left before.
            while let Some(bytes) = connection.arrived_up(Duration::MAX) {
                self.effects.push_back(Effect::ToPeer(bytes));
            }
            self.effects.push_back(Effect::HangUp);
        }
        self.connection_is_over();
    }

    fn connection_is_over(&mut self) {
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

    fn closed_by_peer(&mut self) {
        self.hang_up();
        if self.is_in_use() {
            self.packet = Packet::Closed;
        }
        self.say(self.setup.family.closed());
    }

    /// Moves what is on the air.
    fn carry(&mut self) {
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
        if !self.received.is_empty() && !self.announced {
            self.announced = true;
            if self.manual_receive {
                self.say(self.setup.family.data_waits());
            }
        }
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
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The date so many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is a year's last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    };
    (year + era * 400, month, day)
}
