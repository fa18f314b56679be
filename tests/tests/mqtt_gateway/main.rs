//! The gateway's MQTT side from outside: what a client sends, and what it gets.
//!
//! Every test states one fact about a gateway of its own. Most run it inside the
//! test's process, for its clock and bounds can be set there; those about kills
//! run it as a process.

#![allow(clippy::unwrap_used)] // all of it is test code

mod bounds;
mod clients;
mod house;
mod listener_faults;
mod load;
mod order;
mod receipts;
mod receipts_access;
mod receipts_kill;
mod receipts_last;
mod receipts_load;
mod restart;
mod sessions;
mod stall;
mod version_5;
mod wills;
