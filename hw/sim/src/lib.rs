//! The hardware and networks around a gateway, simulated on the host, and the
//! judge over what they went through.
//!
//! Promises: with one seed, the same decisions. Never: used by a
//! terminal's firmware, or by the gateway but for its demo and what it gives a terminal.
//!
//! - [`link`], a 2G link between TCP clients and a gateway
//! - [`mqtt`], one MQTT connection of a client
//! - [`terminal`], a battery terminal with flash, printer and power cuts
//! - [`nor`], a NOR flash chip that power is cut in
//! - [`emulator`], a terminal's image in QEMU
//! - [`site`], the seals of a site: keys for terminals and for settlement
//! - [`package`], what a terminal is set up with, in one file
//! - [`operator`], a person at a terminal
//! - [`printer`], a thermal printer and its papers
//! - [`battery`], a battery that sags and runs down, and its gauge
//! - [`clock`], time as it is or faster
//! - [`network`], the 2G network around a modem
//! - [`modem`], SIM800 and Quectel modems
//! - [`fleet`], terminals by the hundred: the firmware's own core on simulated boards
//! - [`ledger`], the books of a run and its verdict
//! - [`village`], a gateway, Kafka and settlement in memory

pub mod battery;
pub mod clock;
pub mod emulator;
pub mod fleet;
pub mod ledger;
mod limits;
pub mod link;
pub mod modem;
pub mod mqtt;
pub mod network;
pub mod nor;
pub mod operator;
pub mod package;
pub mod printer;
pub mod site;
pub mod terminal;
pub mod village;
