//! Everybody who is no terminal: those who come in storms, those who come once,
//! those who subscribe and leave, and those who mean harm.
//!
//! Promises: each crowd follows from its seed and from how fast the gateway answers;
//! when its phase is over, all of it has gone. What a visitor must get (CONNACK,
//! SUBACK, PUBACK) and does not is counted and told. Never: a client that stays.

mod hostile;
mod visitors;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use hostile::hostile;
pub use visitors::{churn, clear_retained, flood, roam, storm};

/// What crowds have come to; counted since the start.
#[derive(Debug, Default)]
pub struct CrowdCounts {
    /// Visits that got what they came for.
    pub visits: AtomicU64,
    /// Those that did not, though they did no wrong.
    pub failed: AtomicU64,
    /// What the last of them met.
    pub last_failure: Mutex<Option<String>>,
    /// Messages of plain clients for Kafka that were acknowledged.
    pub acknowledged: AtomicU64,
    /// Hostile connections.
    pub hostile: AtomicU64,
}

impl CrowdCounts {
    /// Counts a visit.
    pub fn visited(&self, what: &str, done: io::Result<()>) {
        match done {
            Ok(()) => {
                self.visits.fetch_add(1, Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(1, Relaxed);
                *self.last_failure.lock().unwrap_or_else(|e| e.into_inner()) =
                    Some(format!("{what}: {error}"));
            }
        }
    }
}
