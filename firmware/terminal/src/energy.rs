//! What the radio has cost.
//!
//! Promises: counted from what was sent and how long the radio was on, in whole
//! units. Never: a measurement; joules are computed by the modem's datasheet.

/// What the radio has done since the board started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Radio {
    /// Bytes handed to the modem for its peer.
    pub up_bytes: u64,
    /// Bytes from the peer.
    pub down_bytes: u64,
    /// Milliseconds for which the modem was powered.
    pub on_ms: u64,
    /// Milliseconds of them with a TCP connection open or opening.
    pub connected_ms: u64,
    /// Millijoules, by the currents of the modem's datasheet.
    pub energy_mj: u64,
    /// TCP connections opened.
    pub connections: u32,
}
