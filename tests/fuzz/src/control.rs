//! Negative controls: a target with one thing broken, which fuzzing has to find.
//!
//! `RISITI_FUZZ_CONTROL=name` breaks what a target calls by that name: mostly what
//! it compares with, as if the product had that fault. `../fuzz.sh controls` runs
//! each and wants a crash. Without the variable nothing is broken.

use std::sync::OnceLock;

static BROKEN: OnceLock<Option<String>> = OnceLock::new();

/// Whether this is to be broken.
#[must_use]
pub fn breaks(name: &str) -> bool {
    BROKEN
        .get_or_init(|| std::env::var("RISITI_FUZZ_CONTROL").ok())
        .as_deref()
        == Some(name)
}
