//! Tests of one file that run one after the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One at a time: each has a broker of its own, and a machine has two cores.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
