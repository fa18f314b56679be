//! The TCP connection of a modem, and the [`Modem`] that all this is for.
//!
//! Promises: bytes come out whole and in order, or the connection ends; a peer
//! that closes while bytes are handed over is noticed at once. Never: a byte
//! handed out whose fetch was not confirmed.

use embedded_hal::digital::OutputPin;
use embedded_io_async::{Read, Write};

use super::at::Decimal;
use super::driver::{Driver, Fetch, Link, Supply};
use super::family::Family;
use super::network::can_be_quoted;
use super::said::{Said, is_address};
use super::{Modem, ModemError, Network};
use crate::energy::Radio;
use crate::hardware::Clock;
use crate::limits::{
    MODEM_CLOSE_MS, MODEM_COMMAND_MS, MODEM_LOOK_MS, MODEM_PROMPT_MS, MODEM_SEGMENT_BYTES_MAX,
    MODEM_SEND_MS,
};

impl<F: Family, S: Read + Write, K: OutputPin, C: Clock> Modem for Driver<F, S, K, C> {
    async fn power_on(&mut self, network: &Network<'_>) -> Result<(), ModemError> {
        self.wake().await?;
        self.set_up().await?;
        self.register().await?;
        if self.context {
            return Ok(());
        }
        self.activate(network).await
    }

    async fn open(&mut self, host: &str, port: u16) -> Result<(), ModemError> {
        self.close().await;
        if self.supply != Supply::On || self.busy || !self.context {
            return Err(ModemError::Detached);
        }
        if host.is_empty() || !can_be_quoted(host) {
            return Err(ModemError::Refused);
        }
        self.work();
        let opened = self.opening(host, port).await;
        if opened.is_ok() {
            self.link = Link::Open;
            self.meter.connected();
        } else {
            self.rest();
        }
        opened
    }

    async fn send(&mut self, mut bytes: &[u8]) -> Result<(), ModemError> {
        while self.fetch != Fetch::None {
            self.go_on_fetching().await?;
        }
        while !bytes.is_empty() {
            if self.link != Link::Open || self.busy {
                return Err(ModemError::Closed);
            }
            let segment = bytes.get(..MODEM_SEGMENT_BYTES_MAX).unwrap_or(bytes);
            self.hand_over(segment).await?;
            self.meter.sent(segment.len());
            bytes = bytes.get(segment.len()..).unwrap_or_default();
        }
        Ok(())
    }

    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, ModemError> {
        loop {
            let taken = self.inbox.take(into);
            if taken > 0 || into.is_empty() {
                return Ok(taken);
            }
            if self.fetch != Fetch::None {
                self.go_on_fetching().await?;
            } else if self.link == Link::None {
                return Err(ModemError::Closed);
            } else if self.busy {
                // The connection has ended while something was handed over: what
                // came before is still to be had.
                let ended = self.link == Link::Ended && self.data_waits;
                if !(ended && self.answers().await) {
                    return Err(ModemError::Closed);
                }
            } else if self.data_waits {
                self.data_waits = false;
                self.fetch = Fetch::Asking(0);
            } else if self.link == Link::Ended {
                return Err(ModemError::Closed);
            } else {
                self.wait_for_data().await?;
            }
        }
    }

    async fn close(&mut self) {
        while self.fetch != Fetch::None {
            // Whatever comes of it is not wanted any more.
            let _ = self.go_on_fetching().await;
        }
        if self.link == Link::Open && !self.busy && self.command(&[F::CLOSE]).await.is_ok() {
            let until_ms = self.line.until(MODEM_CLOSE_MS);
            while let Ok(said) = self.answer(until_ms).await {
                if matches!(said, Said::ClosedByUs | Said::Closed | Said::Error) {
                    // If it had closed by itself a refusal may follow.
                    self.busy = said == Said::Closed;
                    break;
                }
            }
        }
        self.link = Link::None;
        self.data_waits = false;
        self.inbox.clear();
        self.rest();
    }

    async fn power_off(&mut self) {
        self.switch_off().await;
    }

    fn network_time_s(&self) -> Option<u32> {
        let (heard_s, heard_ms) = self.time?;
        let since_ms = self.now_ms().saturating_sub(heard_ms);
        // 32 bits of milliseconds are seven weeks: then it is no time any more.
        let since_ms = u32::try_from(since_ms).ok()?;
        heard_s.checked_add(since_ms / 1_000)
    }

    fn signal(&self) -> Option<u8> {
        self.signal
    }

    fn radio(&self) -> Radio {
        self.radio_now()
    }
}

impl<F: Family, S: Read + Write, K: OutputPin, C: Clock> Driver<F, S, K, C> {
    async fn opening(&mut self, host: &str, port: u16) -> Result<(), ModemError> {
        let command = if is_address(host.as_bytes()) {
            F::OPEN_ADDRESS
        } else {
            F::OPEN_NAME
        };
        let port = Decimal::new(port);
        let host = host.as_bytes();
        self.command(&[command, b"\"", host, b"\",\"", port.digits(), b"\"\r"])
            .await?;
        match self.wait_for(Said::Ok, MODEM_COMMAND_MS).await {
            Ok(()) => {}
            // Packet data are not what we think: they are brought up anew.
            Err(ModemError::Protocol) => {
                self.context = false;
                return Err(ModemError::Detached);
            }
            Err(error) => return Err(error),
        }
        self.busy = true;
        let until_ms = self.line.until(F::OPEN_MS);
        loop {
            match self.answer(until_ms).await? {
                Said::Connected => {
                    self.busy = false;
                    return Ok(());
                }
                Said::ConnectFailed | Said::Error => {
                    self.busy = false;
                    return Err(ModemError::Refused);
                }
                Said::Closed => return Err(ModemError::Closed),
                Said::ConnectedAlready => return Err(ModemError::Protocol),
                _ => {}
            }
        }
    }

    /// Hands one segment over.
    async fn hand_over(&mut self, segment: &[u8]) -> Result<(), ModemError> {
        let length = Decimal::new(u16::try_from(segment.len()).unwrap_or(u16::MAX));
        self.swallows = true;
        self.command(&[F::SEND, length.digits(), b"\r"]).await?;
        let until_ms = self.line.until(MODEM_PROMPT_MS);
        loop {
            match self.answer(until_ms).await? {
                Said::Prompt => break,
                Said::Closed => return Err(ModemError::Closed),
                Said::Error => {
                    self.is_refused();
                    return Err(ModemError::Closed);
                }
                _ => {}
            }
        }
        self.line.write(segment).await?;
        let until_ms = self.line.until(MODEM_SEND_MS);
        loop {
            match self.answer(until_ms).await? {
                Said::Sent => break,
                Said::Accepted(bytes) if usize::from(bytes) == segment.len() => break,
                // Either it has taken a part, or a digit was lost on the serial
                // line: whoever goes on here may repeat bytes or leave some out.
                Said::Accepted(_) => return Err(ModemError::Protocol),
                Said::Closed => return Err(ModemError::Closed),
                Said::SendFailed | Said::Error => {
                    self.is_refused();
                    return Err(ModemError::Closed);
                }
                _ => {}
            }
        }
        self.swallows = false;
        self.busy = false;
        Ok(())
    }

    /// The modem takes no bytes: there is no connection any more.
    fn is_refused(&mut self) {
        self.swallows = false;
        self.busy = false;
        self.link = Link::Ended;
    }

    /// Waits until bytes are announced, or long enough to look for them all the
    /// same: an announcement may be lost on the serial line.
    async fn wait_for_data(&mut self) -> Result<(), ModemError> {
        let until_ms = self.line.until(MODEM_LOOK_MS);
        match self.next(until_ms).await {
            None => {
                self.data_waits = true;
                Ok(())
            }
            Some(said) => said.alarm().map_or(Ok(()), Err),
        }
    }

    /// Takes a fetch further. What was done so far is in `self`: the future may
    /// be dropped at any time.
    async fn go_on_fetching(&mut self) -> Result<(), ModemError> {
        let gone_on = match self.fetch {
            Fetch::None => Ok(()),
            Fetch::Asking(written) => self.go_on_asking(written).await,
            Fetch::Answer {
                until_ms,
                announced,
            } => self.hear_fetched(until_ms, announced).await,
        };
        if let Err(error) = gone_on {
            // Bytes may be missing from now on: this connection is over.
            self.inbox.discard();
            self.fetch = Fetch::None;
            self.link = Link::None;
            self.busy = self.supply == Supply::On && error != ModemError::Closed;
        }
        gone_on
    }

    async fn go_on_asking(&mut self, written: usize) -> Result<(), ModemError> {
        let rest = F::FETCH.get(written..).unwrap_or_default();
        if rest.is_empty() {
            self.fetch = Fetch::Answer {
                until_ms: self.line.until(MODEM_COMMAND_MS),
                announced: false,
            };
            return Ok(());
        }
        let more = self.line.write_some(rest).await?;
        self.fetch = Fetch::Asking(written + more);
        Ok(())
    }

    async fn hear_fetched(&mut self, until_ms: u64, announced: bool) -> Result<(), ModemError> {
        match self.answer(until_ms).await {
            Ok(Said::Data(_)) => {
                self.fetch = Fetch::Answer {
                    until_ms,
                    announced: true,
                };
                Ok(())
            }
            // The line in front of the bytes was spoiled, and they with it.
            Ok(Said::Ok) if F::DATA_ALWAYS && !announced => Err(ModemError::Protocol),
            Ok(Said::Ok) => {
                let bytes = self.inbox.confirm().ok_or(ModemError::Protocol)?;
                self.meter.received(bytes);
                // More may wait until a fetch brings nothing.
                self.data_waits |= bytes > 0;
                self.fetch = Fetch::None;
                Ok(())
            }
            Ok(Said::Torn) => Err(ModemError::Protocol),
            // What has ended has nothing more to fetch.
            Ok(Said::Error) => Err(ModemError::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
