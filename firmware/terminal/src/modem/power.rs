//! A modem's power: its key, its start, its end, and whether it answers.
//!
//! Promises: what became of a command that was given up is known, or the modem is
//! started anew. Never: a probe that a modem would take for bytes to send.

use embedded_hal::digital::OutputPin;
use embedded_io_async::{Read, Write};

use super::ModemError;
use super::driver::{Driver, Fetch, Link, Supply};
use super::family::Family;
use super::said::Said;
use crate::hardware::Clock;
use crate::limits::{MODEM_COMMAND_MS, MODEM_PROBE_MS, MODEM_PROBES, MODEM_QUIET_MS, MODEM_STARTS};

impl<F: Family, S: Read + Write, K: OutputPin, C: Clock> Driver<F, S, K, C> {
    /// Presses the power key.
    async fn press(&mut self, for_ms: u32) {
        // A key that can't be moved shows as a modem that stays silent.
        let _ = self.key.set_high();
        let until_ms = self.line.until(for_ms);
        self.line.clock.sleep_until(until_ms).await;
        let _ = self.key.set_low();
    }

    /// Lets go of the key, should a dropped future have left it pressed.
    fn release(&mut self) {
        let _ = self.key.set_low();
    }

    /// Whether the modem may be in the middle of something.
    fn is_unclear(&self) -> bool {
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
            self.line.forget_data();
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

    /// Switches it off: by command, and if that does not help by its key.
    pub(super) async fn switch_off(&mut self) {
        self.release();
        let was_on = self.supply == Supply::On;
        let answers = match self.supply {
            Supply::Off => return,
            Supply::Unknown => self.answers().await,
            Supply::On => !self.is_unclear() || self.answers().await,
        };
        let off = answers && self.goes_off_by_command().await;
        if !off && (answers || was_on) {
            self.goes_off_by_key().await;
        }
        self.has_gone_off();
    }

    /// Whether it says that it is off after the command.
    async fn goes_off_by_command(&mut self) -> bool {
        self.command(&[F::OFF]).await.is_ok() && self.is_off_within(F::OFF_MS).await
    }

    /// For a modem that hangs, or has gone off unheard: then the key switches it
    /// on, and it answers.
    async fn goes_off_by_key(&mut self) {
        self.press(F::KEY_OFF_MS).await;
        if !self.is_off_within(F::OFF_MS).await && self.answers().await {
            self.goes_off_by_command().await;
        }
    }

    async fn is_off_within(&mut self, limit_ms: u32) -> bool {
        let until_ms = self.line.until(limit_ms);
        while self.supply != Supply::Off {
            if self.next(until_ms).await.is_none() {
                return false;
            }
        }
        true
    }
}
