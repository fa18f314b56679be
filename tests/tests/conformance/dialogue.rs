//! Dialogues of several clients with a gateway, as data, and who plays them.
//!
//! Promises: a case holds only if every byte that arrives is the expected one, in its
//! place, and nothing else arrives; at the end of a case each client that is still
//! there must be answered PINGREQ next, and closed without a byte more when it leaves. Never: sleeping. What
//! must come is waited for; that something does not come is shown by what must come
//! after it.
//!
//! | line | meaning |
//! | --- | --- |
//! | `== name`, `shows v4:MQTT-… v5:MQTT-…` | a case, and the statements it shows |
//! | `house NAME` | with another configuration; first in a case |
//! | `clock 60000` | so many milliseconds pass; what is due by then happens |
//! | `restart` | the gateway stops and starts on the same data; nobody is connected |
//! | `a dials` | client `a` opens a connection and says nothing |
//! | `a open v5 …` | and is let in: client identifier `a`, clean, keep alive 0 |
//! | `a > bytes` | it sends |
//! | `a < bytes` | exactly these bytes come next |
//! | `a <~ bytes ;; bytes` | these packets come next, in any order |
//! | `a < disconnect 8e`, `a < connack 85` | a v5 packet of that reason, whatever its text |
//! | `a quiet` | PINGREQ is answered, and nothing came before |
//! | `a ends` | the gateway closes, and nothing came before |
//! | `a drops` | it closes without a word, and the gateway has noticed |
//!
//! Bytes are in the notation of the wire cases, and `@x` is a packet identifier, not 0,
//! that is not known before: wherever it stands again it is the same, and
//! another name is another identifier of that client. `open` may say `kept` (no clean start; v5: a
//! session expiry of an hour), `present` (a session is resumed), `as ID`, `anonymous`,
//! CONNECT properties `{…}`, and last `will FF 'topic' 'payload'` with the flags of QoS
//! and RETAIN (v5: its properties before the topic).

use std::collections::{HashMap, HashSet};

use crate::support::notation::{bytes, show};
use crate::support::script::Case;

/// What a dialogue is played with: a gateway, or what one once said.
pub trait World {
    /// A new connection of that client.
    fn dial(&mut self, client: &str) -> Result<(), String>;
    /// The client sends.
    fn send(&mut self, client: &str, bytes: &[u8]) -> Result<(), String>;
    /// The next so many bytes to the client.
    fn receive(&mut self, client: &str, count: usize) -> Result<Vec<u8>, String>;
    /// The gateway closes the connection and says nothing before.
    fn ends(&mut self, client: &str) -> Result<(), String>;
    /// The client closes it.
    fn drops(&mut self, client: &str) -> Result<(), String>;
    /// Time passes.
    fn clock(&mut self, ms: u64) -> Result<(), String>;
    /// The gateway starts anew.
    fn restart(&mut self) -> Result<(), String>;
}

/// Bytes of a dialogue that may be any: connection, from, to.
pub type Free = (String, usize, usize);

/// The configuration that a case asks for.
pub fn house(case: &Case) -> &str {
    case.lines
        .first()
        .and_then(|line| line.strip_prefix("house "))
        .unwrap_or("usual")
}

/// Plays a case; returns what could have been other bytes.
pub fn play(case: &Case, world: &mut dyn World) -> Result<Vec<Free>, String> {
    let mut player = Player {
        world,
        clients: HashMap::new(),
        dialled: HashMap::new(),
        identifiers: HashMap::new(),
        free: Vec::new(),
    };
    for line in &case.lines {
        player
            .line(line)
            .map_err(|error| format!("{}: «{line}»: {error}", case.name))?;
    }
    let mut left: Vec<_> = player.clients.keys().cloned().collect();
    left.sort();
    for client in left {
        player
            .leave(&client)
            .map_err(|error| format!("{}: {client} at the end: {error}", case.name))?;
    }
    Ok(player.free)
}

struct Player<'a> {
    world: &'a mut dyn World,
    /// Those that are connected.
    clients: HashMap<String, Client>,
    /// How many connections each had.
    dialled: HashMap<String, usize>,
    /// Packet identifiers by their names, and to whom they came.
    identifiers: HashMap<String, (String, u16)>,
    free: Vec<Free>,
}

#[derive(Default)]
struct Client {
    /// Its connection's name.
    connection: String,
    /// CONNACK let it in.
    accepted: bool,
    received: usize,
}

impl Player<'_> {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "house" => return Ok(()),
            "clock" => {
                let ms = rest.parse().map_err(|_| "no number")?;
                return self.world.clock(ms);
            }
            "restart" => {
                self.clients.clear();
                return self.world.restart();
            }
            _ => {}
        }
        let client = first;
        let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "dials" => self.dial(client),
            "open" => self.open(client, rest),
            ">" => {
                let mut text = rest.to_owned();
                for name in names(rest) {
                    let (_, value) = self
                        .identifiers
                        .get(&name)
                        .ok_or_else(|| format!("@{name} never came"))?;
                    text = replace_name(&text, &name, &format!("{value:04x}"));
                }
                self.send(client, &bytes(&text))
            }
            "<" => match rest.split_once(' ') {
                Some((packet @ ("disconnect" | "connack"), code)) => {
                    self.refusal(client, packet, code)
                }
                _ => {
                    let wanted = Pattern::new(rest);
                    let got = self.receive(client, wanted.bytes.len())?;
                    self.compare(client, &wanted, &got)
                }
            },
            "<~" => self.in_any_order(client, rest),
            "quiet" => self.quiet(client),
            "ends" => {
                self.clients.remove(client).ok_or("not connected")?;
                self.world.ends(client)
            }
            "drops" => {
                self.clients.remove(client).ok_or("not connected")?;
                self.world.drops(client)
            }
            _ => Err("no such verb".to_owned()),
        }
    }

    fn client(&mut self, client: &str) -> Result<&mut Client, String> {
        self.clients
            .get_mut(client)
            .ok_or_else(|| format!("{client} is not connected"))
    }

    fn dial(&mut self, client: &str) -> Result<(), String> {
        // Who dials again may leave its old connection to a takeover.
        if let Some(old) = self.clients.remove(client) {
            return Err(format!("{client} is connected as {}", old.connection));
        }
        self.world.dial(client)?;
        let count = self.dialled.entry(client.to_owned()).or_default();
        let connection = format!("{client} {count}");
        *count += 1;
        self.clients.insert(
            client.to_owned(),
            Client {
                connection,
                ..Client::default()
            },
        );
        Ok(())
    }

    fn open(&mut self, client: &str, how: &str) -> Result<(), String> {
        let (how, will) = how.split_once(" will ").unwrap_or((how, ""));
        let (how, properties) = match how.split_once('{') {
            Some((how, rest)) => (how, rest.trim_end().trim_end_matches('}')),
            None => (how, ""),
        };
        let mut words = how.split_whitespace();
        let version = if words.next() == Some("v5") { 5 } else { 4 };
        let (mut kept, mut present, mut id) = (false, false, client.to_owned());
        while let Some(word) = words.next() {
            match word {
                "kept" => kept = true,
                "present" => present = true,
                "anonymous" => id.clear(),
                "as" => id = words.next().unwrap_or_default().to_owned(),
                _ => return Err(format!("open {word}")),
            }
        }
        let (will_flags, will) = match will.split_once(' ') {
            Some((flags, will)) => (bytes(flags)[0] | 4, will),
            None => (0, ""),
        };
        let flags = will_flags | if kept { 0 } else { 2 };
        let properties = match (version, kept) {
            (4, _) => String::new(),
            (_, true) if !properties.contains("11 ") => format!("{{ 11 00000e10 {properties} }}"),
            _ => format!("{{ {properties} }}"),
        };
        self.dial(client)?;
        let connect =
            format!("10{{ 'MQTT' {version:02x} {flags:02x} 0000 {properties} '{id}' {will} }}");
        self.send(client, &bytes(&connect))?;
        let (packet, at) = self.packet(client)?;
        let answer = packet.get(2..4).ok_or("no CONNACK")?;
        let is_whole = match (version, packet.get(4)) {
            (4, None) => true,
            (5, Some(properties)) => packet.len() == 5 + usize::from(*properties),
            _ => false,
        };
        if packet[0] != 0x20 || answer != [u8::from(present), 0] || !is_whole {
            return Err(format!("got < {}", show(&packet)));
        }
        let client = self.client(client)?;
        client.accepted = true;
        let connection = client.connection.clone();
        self.free.push((connection, at + 5, at + packet.len()));
        Ok(())
    }

    fn send(&mut self, client: &str, packet: &[u8]) -> Result<(), String> {
        self.client(client)?;
        self.world.send(client, packet)
    }

    fn receive(&mut self, client: &str, count: usize) -> Result<Vec<u8>, String> {
        self.client(client)?;
        let got = self.world.receive(client, count)?;
        self.client(client)?.received += count;
        Ok(got)
    }

    /// A whole packet, and where it began.
    fn packet(&mut self, client: &str) -> Result<(Vec<u8>, usize), String> {
        let at = self.client(client)?.received;
        let mut packet = self.receive(client, 2)?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = packet[packet.len() - 1];
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 21 {
                return Err(format!("got < {}", show(&packet)));
            }
            packet.extend(self.receive(client, 1)?);
        }
        packet.extend(self.receive(client, length)?);
        Ok((packet, at))
    }

    /// Compares what ended just now, and binds the identifiers that are new.
    fn compare(&mut self, client: &str, wanted: &Pattern, got: &[u8]) -> Result<(), String> {
        let state = self
            .clients
            .get_mut(client)
            .ok_or_else(|| format!("{client} is not connected"))?;
        let begin = state.received - got.len();
        let mut identifiers = self.identifiers.clone();
        let mut free = Vec::new();
        let mut expected = wanted.bytes.clone();
        for (at, name) in &wanted.identifiers {
            let value = u16::from_be_bytes([got[*at], got[*at + 1]]);
            let known = match identifiers.get(name) {
                Some((_, known)) => *known,
                None if value == 0
                    || identifiers
                        .values()
                        .any(|(whose, other)| whose == client && *other == value) =>
                {
                    return Err(format!("@{name} is {value}: 0, or in use"));
                }
                None => {
                    identifiers.insert(name.clone(), (client.to_owned(), value));
                    free.push((state.connection.clone(), begin + at, begin + at + 2));
                    value
                }
            };
            expected[*at..*at + 2].copy_from_slice(&known.to_be_bytes());
        }
        if expected != got {
            return Err(format!(
                "got < {}\n wanted < {}",
                show(got),
                show(&expected)
            ));
        }
        self.identifiers = identifiers;
        self.free.extend(free);
        Ok(())
    }

    fn in_any_order(&mut self, client: &str, texts: &str) -> Result<(), String> {
        let mut wanted: Vec<_> = texts.split(";;").map(Pattern::new).collect();
        while !wanted.is_empty() {
            let (packet, _) = self.packet(client)?;
            let found = wanted.iter().position(|pattern| {
                pattern.bytes.len() == packet.len()
                    && self.compare(client, pattern, &packet).is_ok()
            });
            match found {
                Some(found) => wanted.remove(found),
                None => return Err(format!("got < {}", show(&packet))),
            };
        }
        Ok(())
    }

    /// A v5 DISCONNECT or CONNACK of that reason, with at most a reason string.
    fn refusal(&mut self, client: &str, kind: &str, code: &str) -> Result<(), String> {
        let (packet, at) = self.packet(client)?;
        let (first, lead) = if kind == "disconnect" {
            (0xe0, vec![])
        } else {
            (0x20, vec![0])
        };
        let mut body = lead;
        body.extend(bytes(code));
        let text = packet.get(2 + body.len()..).unwrap_or_default();
        let named = match text {
            [] => kind == "disconnect",
            [0] => kind == "connack",
            [all, 0x1f, 0, length, string @ ..] => {
                usize::from(*length) == string.len()
                    && usize::from(*all) == 3 + string.len()
                    && *all < 0x80
            }
            _ => false,
        };
        if packet[0] != first || packet.get(2..2 + body.len()) != Some(&body[..]) || !named {
            return Err(format!("got < {}", show(&packet)));
        }
        let connection = self.client(client)?.connection.clone();
        let string = at + packet.len().min(2 + body.len() + 4);
        self.free.push((connection, string, at + packet.len()));
        Ok(())
    }

    /// Nothing came that the case did not expect, and a goodbye ends it.
    fn leave(&mut self, client: &str) -> Result<(), String> {
        if !self.client(client)?.accepted {
            return self.world.drops(client);
        }
        self.quiet(client)?;
        self.send(client, &[0xe0, 0])?;
        self.world.ends(client)
    }

    fn quiet(&mut self, client: &str) -> Result<(), String> {
        self.send(client, &[0xc0, 0])?;
        let got = self.receive(client, 2)?;
        if got == [0xd0, 0] {
            Ok(())
        } else {
            Err(format!("got < {} …", show(&got)))
        }
    }
}

/// Expected bytes, some of them packet identifiers by name.
struct Pattern {
    bytes: Vec<u8>,
    identifiers: Vec<(usize, String)>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let with = |special: &str, digits: &str| {
            let mut text = text.to_owned();
            for name in names(&text) {
                let put = if name == special { digits } else { "0000" };
                text = replace_name(&text, &name, put);
            }
            bytes(&text)
        };
        let plain = with("", "");
        let mut identifiers = Vec::new();
        for name in names(text) {
            // Where it stands is where the bytes depend on it.
            let other = with(&name, "ffff");
            let mut at = 0;
            while at < plain.len() {
                if plain[at] == other[at] {
                    at += 1;
                } else {
                    identifiers.push((at, name.clone()));
                    at += 2;
                }
            }
        }
        identifiers.sort();
        Self {
            bytes: plain,
            identifiers,
        }
    }
}

/// The names of the identifiers in a text, each once.
fn names(text: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    text.split('@')
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect::<String>()
        })
        .filter(|name| seen.insert(name.clone()))
        .collect()
}

fn replace_name(text: &str, name: &str, digits: &str) -> String {
    // A name is followed by a space or a brace, so that no name hides in another.
    let mut out = String::new();
    let mut rest = text;
    let sought = format!("@{name}");
    while let Some(at) = rest.find(&sought) {
        out.push_str(&rest[..at]);
        rest = &rest[at + sought.len()..];
        let ends = rest
            .chars()
            .next()
            .is_none_or(|c| !c.is_ascii_alphanumeric());
        out.push_str(if ends { digits } else { &sought });
    }
    out + rest
}
