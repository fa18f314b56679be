//! What `make bench` measures PUBACKs with, and the whole chain.
//!
//! Promises: every system gets the same load from the same generator, in turn
//! and round after round, so that whatever else the machine does hits all of
//! them; what is compared is stated beside the figures. Never: a figure without
//! the command, machine, seed and commit that it came from.

pub mod bare;
pub mod chain;
pub mod frame;
pub mod gateway;
pub mod limits;
pub mod load;
pub mod machine;
pub mod mosquitto;
pub mod packets;
pub mod report;
pub mod sample;

/// A cell of the table: so many clients, each with so many unacknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Cell {
    /// Connections.
    pub clients: usize,
    /// PUBLISHes that each keeps unacknowledged.
    pub window: usize,
}
