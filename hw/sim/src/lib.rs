//! The hardware and networks around a gateway, simulated on the host.
//!
//! Promises: with one seed, the same decisions. Never: used by the gateway or by
//! a terminal's firmware; tests and the demo only.
//!
//! So far: [`link`], a 2G link between TCP clients and a gateway.

mod limits;
pub mod link;
