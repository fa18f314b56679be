//! The `risiti` binary.
fn main() {}
