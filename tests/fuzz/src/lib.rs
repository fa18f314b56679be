//! What the fuzz targets share: choices read from an input, an account of memory,
//! broken variants, seeds.
//!
//! Promises: an input always means the same, whatever ran before it. Never: a
//! clock, a random source, or a judgement; each target judges by itself.
//!
//! A target is a function of bytes that must return. What it asserts stands at
//! the head of its file in `fuzz_targets/`.

pub mod choices;
pub mod control;
pub mod memory;
#[path = "../../../gateway/mqtt/tests/support/notation.rs"]
pub mod notation;
pub mod seeds;
pub mod server_packets;
pub mod time;

pub use choices::Choices;
pub use libfuzzer_sys;

/// Declares a fuzz target: `target!(name, seeds, |data| { … })`. `seeds` is a
/// function that returns the inputs with which a corpus begins.
#[macro_export]
macro_rules! target {
    ($name:literal, $seeds:path, |$data:ident| $body:block) => {
        #[global_allocator]
        static ACCOUNT: $crate::memory::Account = $crate::memory::Account;

        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::seeds::write_if_asked($name, $seeds),
            |$data: &[u8]| $body
        );
    };
}
