//! Runs one case of `tests/cases`: a dialogue of client, core and shell.
//!
//! | line | meaning |
//! | --- | --- |
//! | `shows v4:MQTT-3.1.0-1 …` | the normative statements it shows, of 3.1.1 (`v4`) and 5.0 |
//! | `limits name=value …` | other limits than the defaults; first in a case |
//! | `open v4` / `open v5` | a plain CONNECT, accepted, its CONNACK taken |
//! | `> bytes` | the client sends |
//! | `< bytes` | all that the core has to write now |
//! | `< disconnect 82`, `< connack 82` | a v5 packet of that reason, whatever its reason string |
//! | `= event` | the next event, as [`describe`] puts it |
//! | `accept …`, `refuse 87 text`, `settle 0 00 text`, `completed 1`, `released 1`, `suback 1 00 80`, `unsuback 1 00`, `resume_release 1`, `close 8b text`, `lost` | the shell's calls |
//! | `deliver id=1 qos=1 topic=t payload=x … -> Delivered` | a delivery and its outcome |
//! | `at 1500` | the clock; timeouts that are due happen |
//! | `waits` / `reads` | what `wants_input` says |
//!
//! At the end nothing may be left unsaid: no bytes, no events.

use bytes::{Bytes, BytesMut};
use risiti_mqtt::connection::Closed;
use risiti_mqtt::{
    Accept, CloseCause, ConnectRequest, Connection, ConnectionLimits, Delivery, Event, Message,
    Qos, ReasonCode, RetainHandling, Subscription, Version,
};

use super::notation::{bytes, show};

/// How the client's bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feeding {
    AllAtOnce,
    ByteByByte,
}

pub struct Case {
    pub name: String,
    pub lines: Vec<String>,
    /// `v4:MQTT-…` and `v5:MQTT-…`.
    pub shows: Vec<String>,
}

/// The cases of one file: each begins with `== name`.
pub fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        let line = line.split(" ## ").next().unwrap_or(line).trim();
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case {
                name: name.to_owned(),
                lines: Vec::new(),
                shows: Vec::new(),
            });
        } else if let Some(statements) = line.strip_prefix("shows ") {
            let case = cases.last_mut().expect("a case before what it shows");
            let statements = statements.split_whitespace().map(str::to_owned);
            case.shows.extend(statements);
        } else if !line.is_empty() && !line.starts_with('#') {
            cases
                .last_mut()
                .expect("a case before the first line")
                .lines
                .push(line.to_owned());
        }
    }
    cases
}

pub struct Script {
    pub connection: Connection,
    pub limits: ConnectionLimits,
    input: BytesMut,
    now_ms: u64,
    feeding: Feeding,
}

impl Script {
    pub fn new(feeding: Feeding) -> Self {
        let limits = ConnectionLimits::default();
        Self {
            connection: Connection::new(&limits, 0),
            limits,
            input: BytesMut::new(),
            now_ms: 0,
            feeding,
        }
    }

    /// Runs a case; the error says which line broke and how.
    pub fn run(&mut self, case: &Case) -> Result<(), String> {
        for line in &case.lines {
            self.step(line)
                .map_err(|error| format!("{}: «{line}»: {error}", case.name))?;
        }
        let output = self.take_output();
        if !output.is_empty() {
            return Err(format!(
                "{}: unexpected at the end: < {}",
                case.name,
                show(&output)
            ));
        }
        match self.connection.poll_event() {
            Some(event) => Err(format!(
                "{}: unexpected at the end: = {}",
                case.name,
                describe(&event)
            )),
            None => Ok(()),
        }
    }

    pub fn send(&mut self, packet: &[u8]) {
        match self.feeding {
            Feeding::AllAtOnce => {
                self.input.extend_from_slice(packet);
                self.connection.handle_input(self.now_ms, &mut self.input);
            }
            Feeding::ByteByByte => {
                for byte in packet {
                    self.input.extend_from_slice(&[*byte]);
                    self.connection.handle_input(self.now_ms, &mut self.input);
                }
            }
        }
    }

    pub fn take_output(&mut self) -> Vec<u8> {
        let output = self.connection.transmit().split().to_vec();
        self.resume_input();
        output
    }

    fn resume_input(&mut self) {
        self.connection.handle_input(self.now_ms, &mut self.input);
    }

    /// Runs one line of a case.
    pub fn step(&mut self, line: &str) -> Result<(), String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| -> u64 {
            words
                .get(at)
                .and_then(|word| word.parse().ok())
                .expect("a number")
        };
        let code = |at: usize| reason(words.get(at).copied().unwrap_or("00"));
        let text_from = |at: usize| words.get(at..).unwrap_or(&[]).join(" ");
        let explanation = || Some(text_from(2)).filter(|text| !text.is_empty());
        match verb {
            "limits" => self.set_limits(&words),
            "open" => self.open(rest)?,
            ">" => self.send(&bytes(rest)),
            "<" => {
                let output = self.take_output();
                if let [packet @ ("disconnect" | "connack"), code] = words[..] {
                    return refusal(packet, &output, code);
                }
                let wanted = bytes(rest);
                if output != wanted {
                    return Err(format!(
                        "got < {}\n wanted < {}",
                        show(&output),
                        show(&wanted)
                    ));
                }
            }
            "=" => {
                let got = self.connection.poll_event();
                let got = got.as_ref().map_or("nothing".to_owned(), describe);
                if got != rest {
                    return Err(format!("got = {got}"));
                }
                self.resume_input();
            }
            "accept" => self.accept(&words),
            "refuse" => self.connection.refuse(code(0), text_from(1)),
            "settle" => {
                let explanation = explanation();
                self.connection
                    .publish_settled(number(0), code(1), explanation.as_deref());
                self.resume_input();
            }
            "completed" => self.connection.publish_completed(number(0) as u16),
            "released" => self.connection.released(number(0) as u16),
            "resume_release" => {
                assert!(self.connection.resume_release(number(0) as u16));
            }
            "suback" | "unsuback" => {
                let codes: Vec<_> = words[1..].iter().map(|word| reason(word)).collect();
                let packet_id = number(0) as u16;
                if verb == "suback" {
                    self.connection.subscribed(packet_id, &codes, None);
                } else {
                    self.connection.unsubscribed(packet_id, &codes, None);
                }
                self.resume_input();
            }
            "deliver" => self.deliver(&words)?,
            "close" => self.connection.close(code(0), text_from(1)),
            "lost" => self.connection.handle_transport_lost(),
            "at" => {
                self.now_ms = number(0);
                self.connection.handle_timeout(self.now_ms);
            }
            "waits" | "reads" => {
                let wants_input = self.connection.wants_input();
                if wants_input != (verb == "reads") {
                    return Err(format!("wants_input is {wants_input}"));
                }
            }
            _ => return Err("no such verb".to_owned()),
        }
        Ok(())
    }

    fn set_limits(&mut self, words: &[&str]) {
        for word in words {
            let (name, value) = word.split_once('=').expect("name=value");
            let value: u32 = value.parse().expect("a number");
            let limits = &mut self.limits;
            match name {
                "packet_bytes_max" => limits.packet_bytes_max = value,
                "connect_packet_bytes_max" => limits.connect_packet_bytes_max = value,
                "receive_maximum" => limits.receive_maximum = value as u16,
                "unreleased_max" => limits.unreleased_max = value as u16,
                "inflight_max" => limits.inflight_max = value as u16,
                "topic_alias_maximum" => limits.topic_alias_maximum = value as u16,
                "outbound_topic_alias_maximum" => {
                    limits.outbound_topic_alias_maximum = value as u16;
                }
                "topic_bytes_max" => limits.topic_bytes_max = value as u16,
                "client_id_bytes_max" => limits.client_id_bytes_max = value as u16,
                "connect_timeout_ms" => limits.connect_timeout_ms = value,
                "transmit_bytes_max" => limits.transmit_bytes_max = value,
                _ => panic!("no limit {name}"),
            }
        }
        self.connection = Connection::new(&self.limits, self.now_ms);
    }

    /// Keep alive 60 s, client id `c`, clean. `open v5 {…}` gives CONNECT
    /// properties.
    pub fn open(&mut self, how: &str) -> Result<(), String> {
        let (version, properties) = how.split_once(' ').unwrap_or((how, "{}"));
        let connect = match version {
            "v4" => bytes("10{ 'MQTT' 04 02 003c 'c' }"),
            _ => bytes(&format!("10{{ 'MQTT' 05 02 003c {properties} 'c' }}")),
        };
        self.send(&connect);
        let Some(Event::Connect(_)) = self.connection.poll_event() else {
            return Err("no Connect event".to_owned());
        };
        self.connection.accept(self.now_ms, &Accept::default());
        if self.take_output().is_empty() {
            return Err("no CONNACK".to_owned());
        }
        Ok(())
    }

    fn accept(&mut self, words: &[&str]) {
        let mut accept = Accept::default();
        let mut unreleased = Vec::new();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "present" => accept.session_present = true,
                "id" => accept.assigned_client_id = Some(value),
                "expiry" => accept.session_expiry_s = value.parse().ok(),
                "keepalive" => accept.server_keep_alive_s = value.parse().ok(),
                "unreleased" => {
                    unreleased = value.split(',').filter_map(|id| id.parse().ok()).collect();
                }
                _ => panic!("accept {name}"),
            }
        }
        accept.unreleased = &unreleased;
        self.connection.accept(self.now_ms, &accept);
        self.resume_input();
    }

    fn deliver(&mut self, words: &[&str]) -> Result<(), String> {
        let mut message = Message::default();
        let mut delivery = (0, Qos::AtMostOnce, false, false, Vec::new(), None);
        let mut wanted = "";
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "id" => delivery.0 = value.parse().expect("packet id"),
                "qos" => delivery.1 = Qos::from_u8(value.parse().expect("QoS")).expect("QoS"),
                "topic" => message.topic = value.into(),
                "payload" => message.payload = Bytes::copy_from_slice(value.as_bytes()),
                "retain" => delivery.2 = true,
                "dup" => delivery.3 = true,
                "sub" => delivery.4.push(value.parse().expect("identifier")),
                "expiry" => delivery.5 = value.parse().ok(),
                "properties" => message.properties = bytes(value).into(),
                "->" => {}
                outcome => wanted = outcome,
            }
        }
        let (packet_id, qos, retain, dup, subscription_ids, expiry_s) = delivery;
        let got = self.connection.deliver(&Delivery {
            packet_id,
            message: &message,
            qos,
            retain,
            dup,
            subscription_ids: &subscription_ids,
            expiry_s,
        });
        let got = format!("{got:?}");
        if got == wanted {
            Ok(())
        } else {
            Err(format!("got -> {got}"))
        }
    }
}

/// Whether `output` is one v5 DISCONNECT or CONNACK of that reason, with at most a
/// reason string.
fn refusal(packet: &str, output: &[u8], code: &str) -> Result<(), String> {
    let lead: &[u8] = if packet == "disconnect" { &[] } else { &[0] };
    let first_byte = if packet == "disconnect" { 0xe0 } else { 0x20 };
    let mut wanted = lead.to_vec();
    wanted.push(reason(code) as u8);
    let text = output
        .windows(3)
        .position(|w| w[0] == 0x1f && w[1] == 0)
        .map(|at| &output[at..]);
    match text {
        Some(property) => {
            super::notation::put_variable_integer(&mut wanted, property.len());
            wanted.extend(property);
        }
        None if packet == "connack" => wanted.push(0),
        None => {}
    }
    let mut whole = vec![first_byte];
    super::notation::put_variable_integer(&mut whole, wanted.len());
    whole.extend(wanted);
    if whole == output {
        Ok(())
    } else {
        Err(format!("got < {}", show(output)))
    }
}

fn reason(word: &str) -> ReasonCode {
    u8::from_str_radix(word, 16)
        .ok()
        .and_then(ReasonCode::from_u8)
        .expect("a reason code")
}

/// An event in one line; what has its usual value is left out.
pub fn describe(event: &Event) -> String {
    match event {
        Event::Connect(request) => describe_connect(request),
        Event::Publish {
            token,
            message,
            packet_id,
            dup,
        } => {
            let mut text = format!("publish {token}");
            if *packet_id != 0 {
                text += &format!(" id={packet_id}");
            }
            if *dup {
                text += " dup";
            }
            text + &describe_message(message)
        }
        Event::PublishRelease { packet_id } => format!("release {packet_id}"),
        Event::Subscribe { packet_id, filters } => {
            let filters: Vec<_> = filters.iter().map(describe_subscription).collect();
            format!("subscribe {packet_id} {}", filters.join(" "))
        }
        Event::Unsubscribe { packet_id, filters } => {
            let filters: Vec<_> = filters.iter().map(ToString::to_string).collect();
            format!("unsubscribe {packet_id} {}", filters.join(" "))
        }
        Event::Acked { packet_id, reason } => format!("acked {packet_id} {:02x}", *reason as u8),
        Event::Received { packet_id } => format!("received {packet_id}"),
        Event::Closed(closed) => describe_closed(closed),
    }
}

fn describe_connect(request: &ConnectRequest) -> String {
    let version = if request.version == Version::V5 {
        "v5"
    } else {
        "v4"
    };
    let mut text = format!("connect {version} '{}'", request.client_id);
    let mut say = |usual: bool, what: String| {
        if !usual {
            text += " ";
            text += &what;
        }
    };
    say(!request.clean_start, "clean".to_owned());
    say(
        request.keep_alive_s == 0,
        format!("keepalive={}", request.keep_alive_s),
    );
    say(
        request.session_expiry_s == 0,
        format!("expiry={}", request.session_expiry_s),
    );
    say(
        request.receive_maximum == 65535,
        format!("receive={}", request.receive_maximum),
    );
    let packet_bytes_max = request.packet_bytes_max.unwrap_or(0);
    say(packet_bytes_max == 0, format!("packet={packet_bytes_max}"));
    say(
        request.topic_alias_maximum == 0,
        format!("aliases={}", request.topic_alias_maximum),
    );
    say(
        request.request_problem_information,
        "no-problem-info".to_owned(),
    );
    say(
        !request.request_response_information,
        "response-info".to_owned(),
    );
    say(
        request.username.is_none(),
        format!("user={:?}", request.username.as_deref()),
    );
    say(
        request.password.is_none(),
        format!(
            "password={}",
            show(request.password.as_deref().unwrap_or_default())
        ),
    );
    for (name, value) in &request.user_properties {
        say(false, format!("{name}:{value}"));
    }
    if let Some(will) = &request.will {
        text += &format!(
            " will delay={}{}",
            will.delay_s,
            describe_message(&will.message)
        );
    }
    text
}

fn describe_message(message: &Message) -> String {
    let mut text = format!(" qos={} {}", message.qos as u8, message.topic);
    if !message.payload.is_empty() {
        text += &format!(" '{}'", message.payload.escape_ascii());
    }
    if message.retain {
        text += " retain";
    }
    if let Some(expiry_s) = message.expiry_s {
        text += &format!(" expiry={expiry_s}");
    }
    if !message.properties.is_empty() {
        text += &format!(" properties={}", show(&message.properties).replace(' ', ""));
    }
    text
}

fn describe_subscription(subscription: &Subscription) -> String {
    let mut text = format!("{}:{}", subscription.filter, subscription.qos as u8);
    if subscription.filter.share.is_some() {
        text += ",shared";
    }
    if subscription.no_local {
        text += ",no-local";
    }
    if subscription.retain_as_published {
        text += ",as-published";
    }
    match subscription.retain_handling {
        RetainHandling::Send => {}
        RetainHandling::SendIfNew => text += ",retained-if-new",
        RetainHandling::DoNotSend => text += ",no-retained",
    }
    if let Some(id) = subscription.id {
        text += &format!(",id={id}");
    }
    text
}

fn describe_closed(closed: &Closed) -> String {
    let cause = match &closed.cause {
        CloseCause::ClientDisconnected(reason) => format!("client {:02x}", *reason as u8),
        CloseCause::TransportLost => "lost".to_owned(),
        CloseCause::Peer { reason, .. } => format!("peer {:02x}", *reason as u8),
        CloseCause::ConnectTimeout { .. } => "connect-timeout".to_owned(),
        CloseCause::KeepAliveTimeout { .. } => "keepalive-timeout".to_owned(),
        CloseCause::Refused { reason, .. } => format!("refused {:02x}", *reason as u8),
        CloseCause::PublishRefused { reason } => format!("publish-refused {:02x}", *reason as u8),
        CloseCause::Server { reason, .. } => format!("server {:02x}", *reason as u8),
    };
    let will = if closed.publish_will { " will" } else { "" };
    let expiry = closed
        .session_expiry_s
        .map_or(String::new(), |s| format!(" expiry={s}"));
    format!("closed {cause}{will}{expiry}")
}
