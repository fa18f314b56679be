//! The terminal: payments into flash, over 2G to a gateway, receipts back and
//! onto paper.
//!
//! Promises: what it shows as saved survives a cut at any byte of any flash
//! write; a record is kept until its receipt; each receipt is printed once; no
//! sequence number is used twice. Never: an allocation, a board's register, or a
//! wait without an end.
//!
//! Cores decide and are told the time; the shells around them wait on hardware
//! through the traits of [`hardware`], so that the same code runs on a board, in
//! an emulator and a thousand times over in a test.
//!
//! | module | holds |
//! | --- | --- |
//! | [`hardware`] | what a board must offer |
//! | [`settings`] | what was provisioned: identity, gateway, network |
//! | [`store`] | records, receipts and counters in NOR flash |
//! | [`mqtt`] | the MQTT 5 packets that a terminal sends and takes |
//! | [`connection`] | one errand to the gateway, and when the next one is due |
//! | [`modem`] | AT commands, the drivers, their power |
//! | [`energy`] | bytes, radio seconds and joules |
//! | [`printing`] | receipts as ESC/POS |
//! | [`application`] | keys in, screens out |
//! | [`terminal`] | all of it together |
//! | [`vault`] | keys that this terminal made itself |
//! | [`wipe`] | the end of it: all that was kept is erased |
#![no_std]
// Futures of a terminal stay on its one core: nobody asks them to be Send.
#![allow(async_fn_in_trait)]

pub mod application;
mod check;
pub mod connection;
pub mod energy;
pub mod hardware;
pub mod limits;
pub mod modem;
pub mod mqtt;
pub mod printing;
pub mod settings;
pub mod store;
pub mod terminal;
pub mod vault;
pub mod wipe;
