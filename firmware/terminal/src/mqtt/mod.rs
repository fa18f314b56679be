//! MQTT 5.0 as a terminal speaks it: few packets, each as short as the standard
//! lets it be.
//!
//! Promises: whatever a server sends is understood or refused by the standard's
//! own reason; nothing here reads a byte, a clock or a flash: packets, time and
//! answers come in, bytes and [`Event`]s go out. Never: QoS 2, a second
//! subscription, or an allocation.
//!
//! It is not `rust-mqtt`, whose client reads and writes by itself: this one can be
//! driven by a virtual clock and byte by byte, puts CONNECT and the first PUBLISHes
//! into one segment, and is a third of its size.
//!
//! | module | holds |
//! | --- | --- |
//! | [`transmit`] | packets to the server, gathered into one buffer |
//! | [`incoming`] | packets from the server |
//! | [`client`] | one connection: what is in flight, what is awaited |
//! | [`reason`] | reason codes |

pub mod client;
pub mod incoming;
pub mod reason;
pub mod transmit;

pub use client::{Client, Event, Refusal};
pub use incoming::{Fault, Incoming};
pub use reason::Reason;
pub use transmit::{NoRoom, Transmit};
