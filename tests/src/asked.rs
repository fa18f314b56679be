//! What the environment asks of a machine: where its draws begin, and how often it
//! tries.
//!
//! Promises: without a word the same in every build, so that one that breaks is about
//! a change; `make proof` asks for others each time. Never: a word that is not
//! understood, and taken for none.

/// The seed of this run, printed so that it can be replayed: `RISITI_SEED`, or 1.
#[must_use]
pub fn seed() -> u64 {
    let seed = number("RISITI_SEED", 1);
    println!("replay with RISITI_SEED={seed}");
    seed
}

/// The number in this variable, or the usual one.
///
/// # Panics
/// It is no number.
#[must_use]
pub fn number(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => panic!("{name}={text}: a whole number is wanted"),
        },
        Err(_) => usual,
    }
}
