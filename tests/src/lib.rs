//! What the tests of the whole house stand on.

pub mod crash;
pub mod gateway_process;
pub mod real_kafka;
pub mod wire_client;
