//! What the tests of the whole house stand on.

pub mod crash;
pub mod real_kafka;
