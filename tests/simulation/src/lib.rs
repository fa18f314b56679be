//! The whole of Risiti in one process, on a virtual clock, driven by a seed.
//!
//! Promises: the decisions are the product's own code (the firmware's future, the
//! MQTT connection core, the journal's judging, packing and dedup, the outbox,
//! forwarder and settlement); what surrounds them (network, flash, disk, Kafka,
//! people) is a model that fails as real ones do. One seed, one course, to the
//! byte. After each step a [`mod@reference`] that knows only what people and auditors
//! can see checks the guarantees. Never: a thread, a socket, a file, a clock of
//! the machine, or chance that is not drawn from the seed.
//!
//! | module | holds |
//! | --- | --- |
//! | [`contract`] | words between the parts: time, chance, what a gateway tells |
//! | [`scenario`] | seed → terminals, gateways, payments, faults, each with its time |
//! | [`world`] | the clock and the order of steps; one run |
//! | [`terminal`] | the firmware on flash that is cut, with people before it |
//! | [`network`] | connections that are slow, lost, half-open, duplicated |
//! | [`gateway`] | one gateway process over its [`disk`] |
//! | [`disk`] | what survives a gateway's death |
//! | [`forwarder`] | journal → Kafka |
//! | [`kafka`] | the cluster: true transactions, fencing, groups |
//! | [`settlement`] | records → receipts |
//! | [`mod@reference`] | the oracle |
//! | [`runs`] | many runs, on all cores; what is told of one that failed |
//! | [`shrink`] | a failing scenario made small |

pub mod contract;
pub mod disk;
pub mod forwarder;
pub mod gateway;
pub mod kafka;
pub mod network;
pub mod reference;
pub mod runs;
pub mod scenario;
pub mod settlement;
pub mod shrink;
pub mod terminal;
pub mod world;

pub use contract::{Controls, GatewayEvent, Journalish, Ms, Onlooker, Out, chance};
