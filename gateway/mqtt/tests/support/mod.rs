//! What the tests of this crate share: bytes written as text, and a script that
//! drives one connection.

#![allow(dead_code)] // each test file uses its part

pub mod notation;
pub mod script;
