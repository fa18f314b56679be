//! A modem's network: SIM card, registration, packet data.
//!
//! Promises: why there is none is told. Never: a command that a modem which has
//! all this does not need.

use embedded_hal::digital::OutputPin;
use embedded_io_async::{Read, Write};

use super::driver::{Driver, Link};
use super::family::Family;
use super::said::Said;
use super::{ModemError, Network};
use crate::hardware::Clock;
use crate::limits::{
    MODEM_ATTACH_MS, MODEM_COMMAND_MS, MODEM_DENIALS_MAX, MODEM_NEWS_MS, MODEM_PROBE_MS,
    MODEM_REGISTER_MS, MODEM_SIM_MS,
};

impl<F: Family, S: Read + Write, K: OutputPin, C: Clock> Driver<F, S, K, C> {
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
                said => {
                    if let Some(error) = said.alarm() {
                        return Err(error);
                    }
                }
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
