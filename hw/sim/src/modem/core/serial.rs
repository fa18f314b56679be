//! A modem's serial line: commands in, lines out, at their speed.
//!
//! Promises: a command under way hears nothing; unsolicited codes come between
//! lines and within echoes. Never: a code in the middle of data.

use std::time::Duration;

use super::super::fault::{FaultKind, Moment};
use super::super::words::commands;
use super::{Event, ModemCore, Outcome, THOUGHT};
use crate::limits::COMMAND_BYTES_MAX;

impl ModemCore {
    pub(super) fn hear_byte(&mut self, byte: u8) {
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

    pub(super) fn hear_line(&mut self, line: &str) {
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

    pub(super) fn carry_out(&mut self, body: &str) {
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
    pub(super) fn fault(&mut self, is_moment: impl Fn(&Moment) -> bool) -> Option<FaultKind> {
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
    pub(super) fn suffer(&mut self, kind: FaultKind, what: Event) -> bool {
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

    pub(super) fn say(&mut self, line: &str) {
        self.chatter();
        self.say_raw(format!("\r\n{line}\r\n").into_bytes());
    }

    pub(super) fn say_echo(&mut self, line: &str) {
        let middle = self.chance.usize(..=line.len());
        let (head, tail) = line.split_at(middle);
        self.say_raw(head.as_bytes().to_vec());
        self.chatter();
        self.say_raw(format!("{tail}\r").into_bytes());
    }

    /// Something that nobody has asked for.
    pub(super) fn chatter(&mut self) {
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

    pub(super) fn say_raw(&mut self, bytes: Vec<u8>) {
        let began = self.said_until.max(self.now + THOUGHT);
        self.said_until = began + self.takes(bytes.len());
        self.said.push_back((self.said_until, bytes));
    }

    pub(super) fn takes(&self, bytes: usize) -> Duration {
        match self.setup.baud {
            Some(baud) => Duration::from_secs_f64(bytes as f64 * 10.0 / f64::from(baud.max(1))),
            None => Duration::ZERO,
        }
    }
}
