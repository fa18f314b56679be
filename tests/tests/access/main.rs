//! Who gets in, and what each may do (G9): a gateway with identities, from outside.
//!
//! The gateway runs inside the test's process, for its clock and its negative
//! controls are set there; what the command does is tested with the command.

#![allow(clippy::unwrap_used)] // all of it is test code

#[allow(dead_code)] // other tests need more of it
#[path = "../mqtt_gateway/house.rs"]
mod house;

mod admin;
mod authority;
mod changes;
mod command;
mod hostile;
mod listeners;
mod logins;
mod matrix;
mod oracle;
mod site;
