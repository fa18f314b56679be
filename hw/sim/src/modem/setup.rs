//! How a simulated modem is made, and where it stands.
//!
//! Promises: what is not said is as good as it can be. Never: a decision.

use super::words::Family;
use crate::network::NetworkProfile;

/// How a modem is made, and where it stands.
#[derive(Debug, Clone)]
pub struct ModemSetup {
    /// Which commands it speaks.
    pub family: Family,
    /// The network around it.
    pub network: NetworkProfile,
    /// What is in its card holder.
    pub sim: SimCard,
    /// Bits a second of its serial line, with 10 a byte; none = no time at all.
    pub baud: Option<u32>,
    /// Probability that an unsolicited code comes before a line, or within an
    /// echo.
    pub chatter: f64,
    /// Probability that only some of the bytes to send are accepted.
    pub partial_accepts: f64,
    /// What time the network tells at the beginning, in seconds since 1970-01-01
    /// UTC.
    pub began_s: u32,
}

impl ModemSetup {
    /// A modem at 115,200 baud with a good SIM card.
    #[must_use]
    pub fn new(family: Family, network: NetworkProfile) -> Self {
        Self {
            family,
            network,
            sim: SimCard::Ready,
            baud: Some(115_200),
            chatter: 0.0,
            partial_accepts: 0.0,
            // 2026-11-21 00:00 UTC
            began_s: 1_795_219_200,
        }
    }
}

/// What is in a modem's card holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimCard {
    /// A card that the network takes.
    Ready,
    /// Nothing.
    Absent,
    /// A card that asks for a code.
    Locked,
    /// A card that the network refuses.
    Denied,
}
