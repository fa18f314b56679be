//! Modems: power, network, one TCP connection at a time, by AT commands.
//!
//! Promises: every wait ends, and says why. Never: knowledge of what the bytes
//! mean.

mod at;
mod driver;
mod family;
mod inbox;
mod line;
mod network;
mod power;
mod said;
mod tcp;

use crate::energy::Radio;
pub use driver::Driver;
pub use family::{Family, QuectelFamily, Sim800Family, Step};
pub use said::Said;

/// A SIM800 of SIMCom (H, L, C or F) and its driver.
pub type Sim800<S, K, C> = Driver<Sim800Family, S, K, C>;

/// A 2G modem of Quectel (M95, M66, MC60 and their like) and its driver.
pub type Quectel<S, K, C> = Driver<QuectelFamily, S, K, C>;

/// A modem with its driver.
pub trait Modem {
    /// Powers it up, registers, attaches to packet data. If it is up already,
    /// only what is missing is done.
    ///
    /// # Errors
    /// By reason. The modem may be left on; [`power_off`](Self::power_off) ends that.
    async fn power_on(&mut self, network: &Network<'_>) -> Result<(), ModemError>;

    /// Opens a TCP connection; one that was open is closed first.
    ///
    /// # Errors
    /// By reason.
    async fn open(&mut self, host: &str, port: u16) -> Result<(), ModemError>;

    /// Hands these bytes over as one segment; returns once the modem has taken
    /// responsibility for all of them. Whoever drops the future gives the
    /// connection up: nobody knows how many were taken.
    ///
    /// # Errors
    /// The connection is gone ([`ModemError::Closed`]), or by reason.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), ModemError>;

    /// Waits for bytes from the peer; at least one. Dropping the future loses no
    /// byte.
    ///
    /// # Errors
    /// The connection is gone and all its bytes were read ([`ModemError::Closed`]),
    /// or by reason.
    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, ModemError>;

    /// Closes the connection, if one is open.
    async fn close(&mut self);

    /// Powers it down: by command, and if it does not answer by its key.
    async fn power_off(&mut self);

    /// What the network says the time is, seconds since 1970-01-01 UTC, once
    /// registered and if it says so.
    fn network_time_s(&self) -> Option<u32>;

    /// Signal quality, 0 to 31 (3GPP TS 27.007, 8.5); none if not known.
    fn signal(&self) -> Option<u8>;

    /// What the radio has done since the board started.
    fn radio(&self) -> Radio;
}

/// Where packet data is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network<'a> {
    /// The access point's name.
    pub apn: &'a str,
    /// Its user; empty if it asks for none.
    pub user: &'a str,
    /// The user's password.
    pub password: &'a str,
}

/// Why a modem could not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModemError {
    /// It does not answer at all: no power, wrong wiring, wrong speed.
    Silent,
    /// No SIM card, or it is locked.
    Sim,
    /// No network within the time.
    Unregistered,
    /// The network refuses this SIM card.
    Denied,
    /// Packet data was refused, or went away.
    Detached,
    /// The peer refused the connection, or its name is not known.
    Refused,
    /// The connection is gone.
    Closed,
    /// An answer did not come in time.
    Timeout,
    /// It answered `ERROR`, or what this driver can't read.
    Protocol,
    /// It reports that its supply voltage is too low, or it has started anew.
    Power,
}
