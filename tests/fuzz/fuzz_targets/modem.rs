//! The drivers of the modems, with a modem that says anything.
//!
//! An input is what a terminal does, then how its modem behaves: answers as they
//! should be, in pieces, late, with codes that come unasked, or words and bytes
//! that fit nowhere. Every wait ends, within the times that the driver states. Of
//! an honest modem, one that only delays, chatters and loses its connection, no
//! byte is lost, repeated or invented, in either direction. The reader of lines
//! passes data on as they are and takes up after rubbish of any length.

#![no_main]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use embedded_io_async::{ErrorType, Read, Write};
use risiti_fuzz::control::breaks;
use risiti_fuzz::seeds::Seed;
use risiti_fuzz::time::Time;
use risiti_fuzz::{Choices, target};
use risiti_sim::modem::NoKey;
use risiti_terminal::hardware::Clock;
use risiti_terminal::modem::{Driver, Family, Modem, Network, QuectelFamily, Sim800Family};

const NETWORK: Network<'static> = Network {
    apn: "internet",
    user: "user",
    password: "",
};

/// The longest that each may take, in milliseconds: two starts, the card,
/// registering with its attach, activation.
const POWER_ON_MS: u64 = (20 + 15 + 80 + 250) * 1_000;
const OPEN_MS: u64 = 90_000;
const SEND_MS: u64 = 40_000;
const CLOSE_MS: u64 = 20_000;
const POWER_OFF_MS: u64 = 60_000;

target!("modem", seeds, |data| {
    let mut choices = Choices::new(data);
    let flags = choices.byte();
    let actions = Choices::new(choices.led());
    if flags & 1 == 0 {
        session::<Sim800Family>(flags, actions, choices);
    } else {
        session::<QuectelFamily>(flags, actions, choices);
    }
});

fn session<F: Family>(flags: u8, mut actions: Choices<'_>, modem: Choices<'_>) {
    let honest = flags & 2 == 0;
    let time = Time::default();
    let state = Rc::new(RefCell::new(State {
        choices: modem,
        honest,
        says: VecDeque::new(),
        heard: Vec::new(),
        takes: 0,
        waits: VecDeque::new(),
        open: false,
        handed_out: Vec::new(),
        taken: Vec::new(),
        late_ms: 0,
    }));
    let wire = Wire {
        state: state.clone(),
        time: time.clone(),
    };
    let mut driver = Driver::<F, _, _, _>::new(wire, NoKey, time.clone());
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    let mut whole = true;
    for _ in 0..12 {
        let action = actions.byte();
        match action & 7 {
            0 | 1 => {
                let on = time.ends("power_on", POWER_ON_MS, driver.power_on(&NETWORK));
                if on.is_ok() {
                    let opened = time.ends("open", OPEN_MS, driver.open("gw.example", 1883));
                    // Another connection: what the one before it had is its own.
                    settle(&state, &mut received, &mut sent, whole && honest);
                    whole = opened.is_ok();
                }
            }
            2 | 3 => {
                let bytes = [action; 90];
                let bytes = &bytes[..usize::from(action >> 3) * 2 + 1];
                let done = time.ends("send", SEND_MS, driver.send(bytes));
                if done.is_ok() {
                    sent.extend_from_slice(bytes);
                } else {
                    // Nobody knows how many were taken, but the connection is over.
                    sent.extend_from_slice(bytes);
                    whole = false;
                }
            }
            4 | 5 => {
                let mut into = [0; 100];
                let room = usize::from(action >> 3) * 3 + 1;
                let until_ms = time.now_ms() + 60_000;
                match time.run_until(until_ms, driver.receive(&mut into[..room])) {
                    Ok(Ok(count)) => {
                        assert!((1..=room).contains(&count), "{count} bytes received");
                        received.extend_from_slice(&into[..count]);
                    }
                    Ok(Err(_)) => {}
                    Err(why) => assert_eq!(why, "has not ended"),
                }
            }
            6 => {
                time.ends("close", CLOSE_MS, driver.close());
                state.borrow_mut().open = false;
            }
            _ => {
                time.ends("power_off", POWER_OFF_MS, driver.power_off());
                state.borrow_mut().open = false;
            }
        }
        let state = state.borrow();
        if honest {
            assert!(
                state.handed_out.starts_with(&received),
                "received what was not sent"
            );
            let mut taken = state.taken.clone();
            if breaks("modem-lost") {
                taken.pop();
            }
            let complete = !whole || taken.len() == sent.len();
            assert!(
                complete && sent.starts_with(&taken),
                "handed over {sent:?}, taken {taken:?}"
            );
        }
        if actions.is_empty() {
            break;
        }
    }
    let radio = driver.radio();
    assert!(
        radio.on_ms <= time.now_ms(),
        "on for longer than there was time"
    );
}

fn settle(state: &RefCell<State<'_>>, received: &mut Vec<u8>, sent: &mut Vec<u8>, judged: bool) {
    let mut state = state.borrow_mut();
    assert!(!judged || state.handed_out.starts_with(received));
    received.clear();
    sent.clear();
    state.taken.clear();
    state.handed_out.clear();
}

/// What comes unasked, fit or not.
const WORDS: [&str; 30] = [
    "\r\nOK\r\n",
    "\r\nERROR\r\n",
    "\r\n+CME ERROR: 10\r\n",
    "\r\n> ",
    "\r\nCONNECT OK\r\n",
    "\r\nCONNECT FAIL\r\n",
    "\r\nALREADY CONNECT\r\n",
    "\r\nSEND OK\r\n",
    "\r\nSEND FAIL\r\n",
    "\r\nDATA ACCEPT:9\r\n",
    "\r\nDATA ACCEPT:99999\r\n",
    "\r\nCLOSED\r\n",
    "\r\nCLOSE OK\r\n",
    "\r\nSHUT OK\r\n",
    "\r\nDEACT OK\r\n",
    "\r\n10.1.2.3\r\n",
    "\r\n+PDP: DEACT\r\n",
    "\r\nRDY\r\n",
    "\r\nNORMAL POWER DOWN\r\n",
    "\r\nUNDER-VOLTAGE WARNNING\r\n",
    "\r\nUNDER_VOLTAGE POWER DOWN\r\n",
    "\r\n+CPIN: READY\r\n",
    "\r\n+CPIN: SIM PIN\r\n",
    "\r\n+CREG: 1\r\n",
    "\r\n+CREG: 3\r\n",
    "\r\n+CGATT: 1\r\n",
    "\r\n+CCLK: \"26/11/21,17:30:10+12\"\r\n",
    "\r\n+CIPRXGET: 1\r\n",
    "\r\n+CIPRXGET: 2,7,0\r\nreceipt\r\nOK\r\n",
    "\r\n+QIRD: 10.0.0.1:80,TCP,1460\r\n",
];

/// What an honest modem may say between two lines.
const CHATTER: [&str; 6] = [
    "\r\n+CREG: 1\r\n",
    "\r\nCall Ready\r\n",
    "\r\n+CSQ: 17,0\r\n",
    "\r\n+CIPRXGET: 1\r\n",
    "\r\n+QIRDI: 0,1,0,1,36,36\r\n",
    "\r\n*PSUTTZ: 2026\r\n",
];

struct State<'a> {
    choices: Choices<'a>,
    honest: bool,
    /// What it says, each behind a pause.
    says: VecDeque<(u64, Vec<u8>)>,
    /// A command that is not whole yet.
    heard: Vec<u8>,
    /// Bytes that it still takes for the peer.
    takes: usize,
    /// What the peer has sent.
    waits: VecDeque<u8>,
    open: bool,
    /// What it handed out of it.
    handed_out: Vec<u8>,
    /// What it took for the peer.
    taken: Vec<u8>,
    late_ms: u64,
}

impl State<'_> {
    fn say(&mut self, words: &[u8]) {
        let late_ms = self.late_ms;
        self.says.push_back((late_ms, words.to_vec()));
    }

    /// A byte from the terminal.
    fn hear(&mut self, byte: u8) {
        if self.takes > 0 {
            self.takes -= 1;
            self.taken.push(byte);
            if self.takes == 0 {
                let count = self.heard.len();
                self.heard.clear();
                let answer = if count == 1 {
                    "\r\nSEND OK\r\n".into()
                } else {
                    format!("\r\nDATA ACCEPT:{count}\r\n")
                };
                self.say(answer.as_bytes());
            }
            return;
        }
        match byte {
            0x1b => self.heard.clear(),
            b'\r' => {
                let command = std::mem::take(&mut self.heard);
                self.command(&command);
            }
            _ => self.heard.push(byte),
        }
    }

    fn command(&mut self, command: &[u8]) {
        let mood = self.choices.byte();
        self.late_ms = u64::from(mood & 3) * 60;
        if self.honest {
            if mood & 0xc0 == 0xc0 {
                self.say(CHATTER[usize::from(mood >> 2 & 15) % CHATTER.len()].as_bytes());
            }
            self.obey(command, mood);
            return;
        }
        match mood >> 5 {
            0..=3 => self.obey(command, mood),
            4 => {
                let word = WORDS[self.choices.below(WORDS.len())];
                self.say(word.as_bytes());
                self.obey(command, mood);
            }
            5 => {
                self.obey(command, mood);
                let word = WORDS[self.choices.below(WORDS.len())];
                self.say(word.as_bytes());
            }
            6 => {
                let rubbish = self.choices.led();
                self.say(rubbish);
            }
            // It hangs.
            _ => {}
        }
    }

    /// Does what an honest modem does.
    fn obey(&mut self, command: &[u8], mood: u8) {
        let text = String::from_utf8_lossy(command).into_owned();
        let ok = "\r\nOK\r\n";
        let number = || {
            text.rsplit('=')
                .next()
                .and_then(|digits| digits.parse::<usize>().ok())
        };
        if text.starts_with("AT+CPIN?") {
            self.say(format!("\r\n+CPIN: READY\r\n{ok}").as_bytes());
        } else if text.starts_with("AT+CREG?") {
            let status = "\r\n+CREG: 1,1\r\n\r\n+CGATT: 1\r\n\r\n+CSQ: 20,0\r\n\r\n+CCLK: \"26/11/21,17:30:10+12\"\r\n";
            self.say(format!("{status}{ok}").as_bytes());
        } else if text.starts_with("AT+CIPSHUT") {
            self.open = false;
            self.say(b"\r\nSHUT OK\r\n");
        } else if text.starts_with("AT+QIDEACT") {
            self.open = false;
            self.say(b"\r\nDEACT OK\r\n");
        } else if text.starts_with("AT+CIFSR") {
            self.say(b"\r\n10.0.0.7\r\n");
        } else if text.contains("+CIPSTART=") || text.contains("+QIOPEN=") {
            self.open = true;
            self.waits.clear();
            self.say(ok.as_bytes());
            self.say(b"\r\nCONNECT OK\r\n");
            // The peer talks.
            let count = self.choices.byte();
            self.waits.extend((0..count).map(|at| at ^ mood));
        } else if text.starts_with("AT+CIPSEND=") || text.starts_with("AT+QISEND=") {
            match number() {
                Some(count) if self.open && count > 0 => {
                    self.takes = count;
                    // One byte for the answer, which differs from family to family.
                    self.heard = if text.contains("QI") {
                        vec![0]
                    } else {
                        vec![0; count]
                    };
                    self.say(b"\r\n> ");
                }
                _ => self.say(b"\r\nERROR\r\n"),
            }
        } else if text.starts_with("AT+CIPRXGET=2,") || text.starts_with("AT+QIRD=") {
            if mood & 0x38 == 0x38 {
                self.open = false;
                self.say(b"\r\nCLOSED\r\n");
            }
            let most = usize::from(mood >> 2) * 8 + 1;
            let count = self.waits.len().min(most).min(256);
            let data: Vec<u8> = self.waits.drain(..count).collect();
            self.handed_out.extend_from_slice(&data);
            let sim800 = text.contains("CIP");
            let mut answer = Vec::new();
            if sim800 {
                answer.extend(format!("\r\n+CIPRXGET: 2,{count},{}\r\n", self.waits.len()).bytes());
            } else if count > 0 {
                answer.extend(format!("\r\n+QIRD: 10.0.0.1:1883,TCP,{count}\r\n").bytes());
            }
            if count > 0 {
                answer.extend_from_slice(&data);
            }
            answer.extend(ok.bytes());
            self.say(&answer);
        } else if text.starts_with("AT+CIPCLOSE") || text.starts_with("AT+QICLOSE") {
            self.open = false;
            self.say(b"\r\nCLOSE OK\r\n");
        } else if text.starts_with("AT+CPOWD") || text.starts_with("AT+QPOWD") {
            self.open = false;
            self.say(b"\r\nNORMAL POWER DOWN\r\n");
        } else if text.starts_with("AT") {
            self.say(ok.as_bytes());
        }
    }
}

struct Wire<'a> {
    state: Rc<RefCell<State<'a>>>,
    time: Time,
}

impl ErrorType for Wire<'_> {
    type Error = Infallible;
}

impl Read for Wire<'_> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        let mut until_ms = None;
        poll_fn(|_| {
            let mut state = self.state.borrow_mut();
            let Some((pause_ms, words)) = state.says.front_mut() else {
                return Poll::Pending;
            };
            let at_ms = *until_ms.get_or_insert(self.time.now_ms() + *pause_ms);
            if self.time.now_ms() < at_ms {
                self.time.wait_for(at_ms);
                return Poll::Pending;
            }
            *pause_ms = 0;
            let count = words.len().min(into.len());
            for (place, byte) in into.iter_mut().zip(words.drain(..count)) {
                *place = byte;
            }
            if words.is_empty() {
                state.says.pop_front();
            }
            Poll::Ready(Ok(count))
        })
        .await
    }
}

impl Write for Wire<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let pieces = {
            let mut state = self.state.borrow_mut();
            let count = if state.honest {
                bytes.len()
            } else {
                bytes.len().min(16)
            };
            for byte in &bytes[..count] {
                state.hear(*byte);
            }
            count
        };
        // 115,200 baud.
        self.time.pass(pieces as u64 / 11);
        Ok(pieces)
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn seeds() -> Vec<Seed> {
    let actions: [(&str, &[u8]); 4] = [
        ("session", &[0, 0xa2, 0xfc, 0xfc, 0xfc, 6, 7]),
        ("twice", &[0, 0x0a, 0x44, 0, 0x1b, 0xfd, 7]),
        ("receive", &[0, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74]),
        ("send", &[0, 0xfa, 0x12, 0x1b, 0x22, 6, 6, 7]),
    ];
    let modems: [(&str, &[u8]); 4] = [
        ("good", &[0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0]),
        (
            "slow",
            &[3, 2, 3, 1, 2, 3, 2, 1, 200, 0xc3, 0xff, 0xfb, 0x3b, 0xc7],
        ),
        (
            "chatter",
            &[
                0xc0, 0xc4, 0xc8, 0xcc, 0xd0, 0xd4, 0xc0, 0xc4, 100, 0xc8, 0xcc, 0xd0,
            ],
        ),
        (
            "mad",
            &[
                0x80, 3, 0xa0, 7, 0, 0, 0, 0, 0, 30, 0x81, 11, 0xc0, 4, b'a', b'\r', b'\n', 0xff,
            ],
        ),
    ];
    let mut all = Vec::new();
    for (done, actions) in actions {
        for (is, modem) in modems {
            for family in [0, 1] {
                let flags = family | if is == "mad" { 2 } else { 0 };
                let mut seed = vec![flags, actions.len() as u8];
                seed.extend_from_slice(actions);
                seed.extend_from_slice(modem);
                all.push((format!("{done}-{is}-{family}"), seed));
            }
        }
    }
    all
}
