//! Simulated modems: a SIM800 and a Quectel, each with a 2G network behind it.
//!
//! Promises: as strict as the real ones, unsolicited codes and all; with one
//! seed, one course. Never: more work than there are events, so that thousands
//! run on one machine.
//!
//! [`ModemCore`] decides; [`ModemSim`] runs it in this process.

mod core;
mod dialer;
mod fault;
mod pipe;
mod setup;
mod shell;
mod words;

pub use self::core::{Effect, ModemCore};
pub use dialer::{Call, Dialer, MemoryDialer, TcpDialer};
pub use fault::{Fault, FaultKind, Moment};
pub use pipe::Serial;
pub use setup::{ModemSetup, SimCard};
pub use shell::{ModemSim, NoKey, PowerKey};
pub use words::Family;
