//! The promises that the other files here test, of a store whose values are
//! encrypted: `support/mod.rs` gives it a key.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    clippy::duplicate_mod,
    reason = "each of these files has its own support"
)]

#[path = "budget.rs"]
mod budget;
#[path = "damage.rs"]
mod damage;
#[path = "durability.rs"]
mod durability;
#[path = "model.rs"]
mod model;
#[path = "resends.rs"]
mod resends;
#[path = "rows.rs"]
mod rows;
