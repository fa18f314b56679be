//! One driver for all families: what it knows of its modem, and every exchange.
//!
//! Promises: a code that comes unasked, at whatever moment, is heeded; an
//! exchange that broke off, or whose future was dropped, never lends its answer
//! to the next one. Never: a wait without an end.
//!
//! Received bytes stay in the modem until they are fetched, so that nothing
//! overflows while the processor is busy: its TCP window holds the peer back.

use core::marker::PhantomData;

use embedded_hal::digital::OutputPin;
use embedded_io_async::{Read, Write};

use super::family::{Family, Step};
use super::inbox::Inbox;
use super::line::{Heard, Line};
use super::said::Said;
use super::{ModemError, Network};
use crate::energy::{Meter, Radio, State};
use crate::hardware::Clock;
use crate::limits::{
    MODEM_ATTACH_MS, MODEM_COMMAND_MS, MODEM_DENIALS_MAX, MODEM_NEWS_MS, MODEM_PROBE_MS,
    MODEM_PROBES, MODEM_QUIET_MS, MODEM_REGISTER_MS, MODEM_SIM_MS, MODEM_STARTS,
};

/// Whether the modem has its supply, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// The board has just started; the modem may have been on before.
    Unknown,
    Off,
    On,
}

/// The TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    None,
    Open,
    /// Ended by the peer or the network; bytes may still wait.
    Ended,
}

/// How far fetching bytes from the modem has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    None,
    /// So many bytes of the command are written.
    Asking(usize),
    /// The answer is due at this time; whether the line in front of the bytes has
    /// come.
    Answer {
        until_ms: u64,
        announced: bool,
    },
}

/// The driver of a modem on a serial line, with its power key.
///
/// `K` is the pin of the power key: high is pressed (the usual transistor pulls
/// PWRKEY low). `S` must lose no byte when a future of its `read` is dropped, and
/// its speed is the modem's fixed one.
pub struct Driver<F, S, K, C> {
    pub(super) line: Line<S, C>,
    key: K,
    pub(super) inbox: Inbox,
    pub(super) meter: Meter,
    pub(super) supply: Supply,
    /// A command has not had its answer: the modem must be brought to a known
    /// state before the next one.
    pub(super) busy: bool,
    /// The modem was told that bytes to send follow: whatever is written goes to
    /// the peer.
    pub(super) swallows: bool,
    /// Echo off, codes on.
    set_up: bool,
    sim_ready: bool,
    sim_locked: bool,
    registration: u8,
    attached: bool,
    /// Packet data have not been touched since the modem's start.
    untouched: bool,
    /// Packet data are up.
    pub(super) context: bool,
    pub(super) link: Link,
    pub(super) fetch: Fetch,
    /// Bytes from the peer may wait in the modem.
    pub(super) data_waits: bool,
    pub(super) signal: Option<u8>,
    /// The network's time, and when it was heard.
    pub(super) time: Option<(u32, u64)>,
    family: PhantomData<F>,
}

impl<F: Family, S: Read + Write, K: OutputPin, C: Clock> Driver<F, S, K, C> {
    /// A driver that does not know yet whether its modem is on. Nothing is
    /// written before it is asked for.
    pub fn new(serial: S, key: K, clock: C) -> Self {
        let meter = Meter::new(F::DRAW, clock.now_ms());
        Self {
            line: Line::new(serial, clock),
            key,
            inbox: Inbox::new(),
            meter,
            supply: Supply::Unknown,
            busy: false,
            swallows: false,
            set_up: false,
            sim_ready: false,
            sim_locked: false,
            registration: 0,
            attached: false,
            untouched: false,
            context: false,
            link: Link::None,
            fetch: Fetch::None,
            data_waits: false,
            signal: None,
            time: None,
            family: PhantomData,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.line.clock.now_ms()
    }

    pub(super) fn radio_now(&self) -> Radio {
        self.meter.radio(self.now_ms())
    }

    // What is heard.

    /// What the modem says next, noted; none once it is `until_ms`. Dropping the
    /// future loses nothing.
    pub(super) async fn next(&mut self, until_ms: u64) -> Option<Said> {
        loop {
            match self.line.hear::<F>(until_ms).await? {
                Heard::Said(said) => {
                    self.note(said);
                    return Some(said);
                }
                Heard::Byte(byte) => self.inbox.push(byte),
            }
        }
    }

    fn note(&mut self, said: Said) {
        match said {
            Said::Registration(state) => self.registration = state,
            Said::Attached(attached) => self.attached = attached,
            Said::Sim(ready) => self.sim_ready = ready,
            Said::SimLocked => self.sim_locked = true,
            Said::Signal(signal) => self.signal = Some(signal).filter(|signal| *signal <= 31),
            Said::Time(seconds) => self.time = Some((seconds, self.now_ms())),
            Said::DataWaits => self.data_waits = true,
            Said::Closed => self.link_ended(),
            Said::Deactivated => {
                self.context = false;
                self.link_ended();
            }
            Said::Started => {
                self.forget();
                self.supply = Supply::On;
                self.untouched = true;
                self.rest();
            }
            Said::PoweredDown | Said::UnderVoltageOff => self.has_gone_off(),
            _ => {}
        }
    }

    fn link_ended(&mut self) {
        // What it still swallows goes nowhere.
        self.swallows = false;
        if self.link == Link::Open {
            self.link = Link::Ended;
        }
        self.rest();
    }

    /// The radio has nothing to carry.
    pub(super) fn rest(&mut self) {
        if self.supply == Supply::On {
            let now_ms = self.now_ms();
            self.meter.enter(State::Idle, now_ms);
        }
    }

    /// The radio carries something.
    pub(super) fn work(&mut self) {
        let now_ms = self.now_ms();
        self.meter.enter(State::Data, now_ms);
    }

    pub(super) fn has_gone_off(&mut self) {
        self.forget();
        self.supply = Supply::Off;
        let now_ms = self.now_ms();
        self.meter.enter(State::Off, now_ms);
    }

    /// A modem that has started knows nothing any more.
    fn forget(&mut self) {
        self.busy = false;
        self.swallows = false;
        self.set_up = false;
        self.sim_ready = false;
        self.sim_locked = false;
        self.registration = 0;
        self.attached = false;
        self.untouched = false;
        self.context = false;
        if self.link == Link::Open {
            self.link = Link::Ended;
        }
        self.fetch = Fetch::None;
        self.data_waits = false;
        self.inbox.discard();
        self.line.restart();
    }

    /// The next answer, heeding what comes unasked.
    pub(super) async fn answer(&mut self, until_ms: u64) -> Result<Said, ModemError> {
        loop {
            match self.next(until_ms).await {
                None => return Err(ModemError::Timeout),
                Some(
                    Said::Started | Said::PoweredDown | Said::UnderVoltage | Said::UnderVoltageOff,
                ) => return Err(ModemError::Power),
                Some(Said::Deactivated) => return Err(ModemError::Detached),
                Some(
                    Said::Registration(_)
                    | Said::Attached(_)
                    | Said::Sim(_)
                    | Said::SimLocked
                    | Said::Signal(_)
                    | Said::Time(_)
                    | Said::DataWaits
                    | Said::Other,
                ) => {}
                Some(said) => return Ok(said),
            }
        }
    }

    // What is said.

    /// Writes a command in pieces. Until its answer the modem is busy.
    pub(super) async fn command(&mut self, pieces: &[&[u8]]) -> Result<(), ModemError> {
        self.busy = true;
        for piece in pieces {
            self.line.write(piece).await?;
        }
        Ok(())
    }

    /// Waits until the command is answered like this; [`ModemError::Protocol`] if
    /// it is refused.
    pub(super) async fn wait_for(&mut self, answer: Said, limit_ms: u32) -> Result<(), ModemError> {
        let until_ms = self.line.until(limit_ms);
        loop {
            let said = self.answer(until_ms).await?;
            if said == answer {
                self.busy = false;
                return Ok(());
            }
            if said == Said::Error {
                self.busy = false;
                return Err(ModemError::Protocol);
            }
        }
    }

    pub(super) async fn ask(
        &mut self,
        command: &[u8],
        answer: Said,
        limit_ms: u32,
    ) -> Result<(), ModemError> {
        self.command(&[command]).await?;
        self.wait_for(answer, limit_ms).await
    }

    async fn step(&mut self, step: &Step) -> Result<(), ModemError> {
        self.ask(step.command, step.answer, step.limit_ms).await
    }

    // Power.

    /// Presses the power key.
    pub(super) async fn press(&mut self, for_ms: u32) {
        // A key that can't be moved shows as a modem that stays silent.
        let _ = self.key.set_high();
        let until_ms = self.line.until(for_ms);
        self.line.clock.sleep_until(until_ms).await;
        let _ = self.key.set_low();
    }

    /// Lets go of the key, should a dropped future have left it pressed.
    pub(super) fn release(&mut self) {
        let _ = self.key.set_low();
    }

    /// Whether the modem may be in the middle of something.
    pub(super) fn is_unclear(&self) -> bool {
        self.busy || self.supply == Supply::Unknown || self.fetch != Fetch::None
    }

    /// Whether the modem answers. If a command was under way, nothing of it is
    /// left afterwards.
    pub(super) async fn answers(&mut self) -> bool {
        let unclear = self.is_unclear();
        if self.swallows {
            // A probe would be the peer's. Only the power key is left.
            return false;
        }
        if unclear {
            self.busy = true;
            self.fetch = Fetch::None;
            self.inbox.discard();
            self.line.restart();
            // Ends a wait for bytes to send, if that is what it is in.
            if self.line.write(b"\x1b").await.is_err() {
                return false;
            }
        }
        for _ in 0..MODEM_PROBES {
            if self.line.write(b"AT\r").await.is_err() {
                return false;
            }
            let until_ms = self.line.until(MODEM_PROBE_MS);
            while let Some(said) = self.next(until_ms).await {
                if said == Said::Ok {
                    if unclear {
                        self.quiet().await;
                        self.busy = false;
                    }
                    return true;
                }
            }
        }
        false
    }

    /// Hears the modem out: several probes may have been answered, or an answer
    /// may have come that was given up.
    async fn quiet(&mut self) {
        let end_ms = self.line.until(MODEM_COMMAND_MS);
        loop {
            let until_ms = self.line.until(MODEM_QUIET_MS);
            if until_ms >= end_ms || self.next(until_ms).await.is_none() {
                return;
            }
        }
    }

    /// Makes sure that the modem is on and answers.
    pub(super) async fn wake(&mut self) -> Result<(), ModemError> {
        self.release();
        if self.supply != Supply::Off {
            let unclear = self.is_unclear();
            if self.answers().await {
                self.supply = Supply::On;
                if unclear {
                    // Nobody knows what became of it.
                    self.context = false;
                    self.link = Link::None;
                }
                if self.link != Link::Open {
                    self.rest();
                }
                return Ok(());
            }
            // It is off, or hangs: then the first press switches it off.
            self.has_gone_off();
        }
        for _ in 0..MODEM_STARTS {
            self.press(F::KEY_ON_MS).await;
            self.supply = Supply::On;
            self.rest();
            if self.starts().await? {
                return Ok(());
            }
            self.has_gone_off();
        }
        Err(ModemError::Silent)
    }

    async fn starts(&mut self) -> Result<bool, ModemError> {
        let end_ms = self.line.until(F::BOOT_MS);
        while self.now_ms() < end_ms {
            self.line.write(b"AT\r").await?;
            let until_ms = self.line.until(MODEM_PROBE_MS).min(end_ms);
            while let Some(said) = self.next(until_ms).await {
                match said {
                    Said::Ok => {
                        self.quiet().await;
                        self.untouched = true;
                        return Ok(self.supply == Supply::On);
                    }
                    Said::UnderVoltage | Said::UnderVoltageOff => return Err(ModemError::Power),
                    Said::PoweredDown => return Ok(false),
                    Said::Started => break,
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    // Network.

    /// Turns the echo off and the codes on.
    pub(super) async fn set_up(&mut self) -> Result<(), ModemError> {
        if self.set_up {
            return Ok(());
        }
        let essential = b"ATE0;+CMEE=0;+CREG=1;+CGREG=1\r";
        self.ask(essential, Said::Ok, MODEM_COMMAND_MS).await?;
        match self.ask(F::HEAR_TIME, Said::Ok, MODEM_COMMAND_MS).await {
            // A modem that can't take the time from the network does without.
            Ok(()) | Err(ModemError::Protocol) => {}
            Err(error) => return Err(error),
        }
        self.set_up = true;
        Ok(())
    }

    /// Waits for the SIM card, the network and its packet data.
    pub(super) async fn register(&mut self) -> Result<(), ModemError> {
        self.wait_for_sim().await?;
        let end_ms = self.line.until(MODEM_REGISTER_MS);
        let mut denials = 0;
        loop {
            let status = b"AT+CREG?;+CGATT?;+CSQ;+CCLK?\r";
            self.ask(status, Said::Ok, MODEM_COMMAND_MS).await?;
            // 3GPP TS 27.007, 7.2: 1 is at home, 5 is roaming, 3 is denied.
            let registered = matches!(self.registration, 1 | 5);
            if registered && self.attached {
                return Ok(());
            }
            if self.registration == 3 {
                denials += 1;
                if denials == MODEM_DENIALS_MAX {
                    return Err(ModemError::Denied);
                }
            }
            if self.now_ms() >= end_ms {
                return Err(if registered {
                    ModemError::Detached
                } else {
                    ModemError::Unregistered
                });
            }
            if registered && self.attach().await? {
                return Ok(());
            }
            self.news(MODEM_NEWS_MS).await?;
        }
    }

    async fn wait_for_sim(&mut self) -> Result<(), ModemError> {
        let end_ms = self.line.until(MODEM_SIM_MS);
        while !self.sim_ready {
            match self.ask(b"AT+CPIN?\r", Said::Ok, MODEM_COMMAND_MS).await {
                // Refused: the card is not ready yet, or there is none.
                Ok(()) | Err(ModemError::Protocol) => {}
                Err(error) => return Err(error),
            }
            if self.sim_locked || (!self.sim_ready && self.now_ms() >= end_ms) {
                self.sim_locked = false;
                return Err(ModemError::Sim);
            }
            if !self.sim_ready {
                self.news(MODEM_PROBE_MS).await?;
            }
        }
        Ok(())
    }

    /// Asks for packet data; a modem does so by itself, but when is its affair.
    async fn attach(&mut self) -> Result<bool, ModemError> {
        match self.ask(b"AT+CGATT=1\r", Said::Ok, MODEM_ATTACH_MS).await {
            Ok(()) => Ok(true),
            // Refused for now: asked again until the time is over.
            Err(ModemError::Protocol) => Ok(false),
            Err(ModemError::Timeout) => Err(ModemError::Detached),
            Err(error) => Err(error),
        }
    }

    /// Waits for anything new of SIM card or network.
    async fn news(&mut self, limit_ms: u32) -> Result<(), ModemError> {
        let until_ms = self.line.until(limit_ms);
        while let Some(said) = self.next(until_ms).await {
            match said {
                Said::Registration(_) | Said::Sim(true) => return Ok(()),
                Said::Started | Said::PoweredDown | Said::UnderVoltage | Said::UnderVoltageOff => {
                    return Err(ModemError::Power);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Brings packet data up.
    pub(super) async fn activate(&mut self, network: &Network<'_>) -> Result<(), ModemError> {
        self.work();
        let activated = self.activation(network).await;
        self.rest();
        activated
    }

    async fn activation(&mut self, network: &Network<'_>) -> Result<(), ModemError> {
        let texts = [network.apn, network.user, network.password];
        if !texts.iter().all(|text| can_be_quoted(text)) {
            return Err(ModemError::Protocol);
        }
        if !self.untouched {
            match self.step(&F::SHUT).await {
                // Refused: there is nothing to shut.
                Ok(()) | Err(ModemError::Protocol) => {}
                Err(error) => return Err(error),
            }
        }
        self.untouched = false;
        self.link = Link::None;
        self.command(&[
            F::ACCESS_POINT,
            b"\"",
            network.apn.as_bytes(),
            b"\",\"",
            network.user.as_bytes(),
            b"\",\"",
            network.password.as_bytes(),
            b"\"\r",
        ])
        .await?;
        self.wait_for(Said::Ok, MODEM_COMMAND_MS).await?;
        for step in F::ACTIVATE {
            self.step(step).await.map_err(|error| match error {
                ModemError::Protocol => ModemError::Detached,
                other => other,
            })?;
        }
        self.context = true;
        Ok(())
    }
}

/// Whether a text may stand in quotes in a command.
pub(super) fn can_be_quoted(text: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"';
    text.bytes().all(fits)
}
