//! What happens to a modem by itself, and when.
//!
//! Promises: each event at its time. Never: one of a life before; they go with
//! the supply.

use std::time::Duration;

use super::{Effect, ModemCore, Packet, Power};

/// Something that happens by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
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

impl ModemCore {
    pub(super) fn later(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn at(&mut self, at: Duration, event: Event) {
        self.events.push((at, event));
    }

    /// The event that is due first.
    pub(super) fn due(&mut self) -> Option<Event> {
        let due = self.events.iter().enumerate();
        let (index, (at, _)) = due.min_by_key(|(_, (at, _))| *at)?;
        (*at <= self.now).then(|| self.events.remove(index).1)
    }

    pub(super) fn happen(&mut self, event: Event) {
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

    pub(super) fn answer(&mut self, line: &str) {
        self.busy = false;
        self.say(line);
    }
}
