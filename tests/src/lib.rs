//! What the tests of the whole house stand on.

pub mod asked;
pub mod bench;
pub mod bound;
pub mod carrier;
pub mod crash;
pub mod fault_proxy;
pub mod filled_store;
pub mod fleet;
pub mod gateway_process;
pub mod kill_loop;
pub mod ledger;
pub mod memory;
pub mod mock_kafka;
pub mod own_mounts;
pub mod qemu;
pub mod real_kafka;
pub mod risiti_command;
pub mod round_trip;
pub mod samples;
pub mod settlement_process;
pub mod soak;
pub mod turn;
pub mod upward;
pub mod wire_client;
