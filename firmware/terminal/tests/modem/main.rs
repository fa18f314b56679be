//! The modem's driver against simulated modems, under a virtual clock.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

mod bytes;
mod faults;
mod madness;
mod session;
mod world;
