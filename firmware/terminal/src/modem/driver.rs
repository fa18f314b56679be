//! One driver for all families: what it knows of its modem, and how it asks.
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

use super::ModemError;
use super::family::{Family, Step};
use super::inbox::Inbox;
use super::line::{Heard, Line};
use super::said::Said;
use crate::energy::{Meter, Radio, State};
use crate::hardware::Clock;

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
    pub(super) key: K,
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
    pub(super) set_up: bool,
    pub(super) sim_ready: bool,
    pub(super) sim_locked: bool,
    pub(super) registration: u8,
    pub(super) attached: bool,
    /// Packet data have not been touched since the modem's start.
    pub(super) untouched: bool,
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
        self.line.forget_data();
    }

    /// The next answer, heeding what comes unasked.
    pub(super) async fn answer(&mut self, until_ms: u64) -> Result<Said, ModemError> {
        loop {
            match self.next(until_ms).await {
                None => return Err(ModemError::Timeout),
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
                Some(said) => {
                    return match said.alarm() {
                        Some(error) => Err(error),
                        None => Ok(said),
                    };
                }
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

    pub(super) async fn step(&mut self, step: &Step) -> Result<(), ModemError> {
        self.ask(step.command, step.answer, step.limit_ms).await
    }
}
