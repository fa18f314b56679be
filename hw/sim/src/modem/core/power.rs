//! A modem's power: start, under-voltage, end.
//!
//! Promises: nothing outlives the supply but what was said. Never: a start
//! without the key.

use std::time::Duration;

use super::{Effect, Event, ModemCore, Packet, Power, SimCard};

impl ModemCore {
    pub(super) fn start(&mut self) {
        self.power = Power::Starting;
        let takes = self.chance.u64(2_000..3_000);
        self.later(Duration::from_millis(takes), Event::Started);
    }

    pub(super) fn started(&mut self) {
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

    pub(super) fn go_off_in_order(&mut self) {
        // What was under way is not answered any more.
        self.busy = true;
        self.events.clear();
        self.payload_left = 0;
        let takes = self.chance.u64(800..2_500);
        self.hang_up();
        self.packet = Packet::Initial;
        self.later(Duration::from_millis(takes), Event::OffEnds);
    }

    pub(super) fn complain(&mut self, off: bool) {
        let words = self.setup.family.under_voltage(off);
        self.say(words);
        if off {
            let said = std::mem::take(&mut self.said);
            self.go_off();
            self.said = said;
        }
    }

    /// Everything is gone at once.
    pub(super) fn go_off(&mut self) {
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
}
