//! A modem's commands, and packet data.
//!
//! Promises: a command in the wrong state is an `ERROR`. Never: a connection;
//! that is `tcp`'s.

use std::time::Duration;

use super::super::words::Request;
use super::{Effect, Event, Family, ModemCore, Outcome, Packet, Power, SimCard};

impl ModemCore {
    pub(super) fn execute(&mut self, request: Request) -> Outcome {
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

    pub(super) fn pin(&mut self) -> Outcome {
        match self.setup.sim {
            SimCard::Locked => self.say("+CPIN: SIM PIN"),
            _ if self.sim_ready => self.say("+CPIN: READY"),
            _ => return Outcome::Error,
        }
        Outcome::Ok
    }

    /// `+CCLK`, in the time zone of East Africa.
    pub(super) fn time(&self) -> String {
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

    pub(super) fn is_in_use(&self) -> bool {
        matches!(self.packet, Packet::Connecting | Packet::Connected)
    }

    pub(super) fn activation_ends(&mut self) {
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

    pub(super) fn deactivated(&mut self) {
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
