//! A 2G network as a modem meets it: searching, attaching, and TCP connections
//! over a bad link.
//!
//! Promises: with one seed, one course. Never: a clock or a socket; both are the
//! modem's shell's.

mod connection;
mod profile;

pub use profile::{NetworkProfile, Span};

pub(crate) use connection::{Connection, Cut};
