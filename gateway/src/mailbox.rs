//! What other threads have to tell one connection.
//!
//! Promises: telling never blocks and wakes the connection once for whatever
//! piled up; acknowledgements are bounded by the connection's own window.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use risiti_mqtt::ReasonCode;
use risiti_store::state::CommitSink;
use risiti_store::{AckSink, Outcome, StoreError};
use tokio::sync::Notify;

use crate::broker::Ungated;

/// Something a connection waited for has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The PUBLISH of this token may be acknowledged so.
    Publish(u64, ReasonCode),
    /// The PUBLISH of this token will not become durable: the journal closes.
    Abandoned(u64),
    /// The state batch of this token is durable.
    Committed(u64),
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Another connection of the same client identifier took the session over.
    TakenOver,
    /// The gateway stops.
    ShuttingDown,
    /// An operator, or a bound, ends it.
    Administrative,
}

/// One connection's mailbox.
#[derive(Debug, Default)]
pub struct Mailbox {
    settled: Mutex<Vec<Settled>>,
    farewell: Mutex<Option<Farewell>>,
    deliver: AtomicBool,
    wake: Notify,
    /// Of a connection that has ended: given back with the last of its
    /// PUBLISHes, each of which holds the mailbox.
    leftover: Mutex<Option<Ungated>>,
}

impl Mailbox {
    /// Tells that something was settled.
    pub fn settle(&self, what: Settled) {
        let first = {
            let mut settled = self.settled.lock();
            settled.push(what);
            settled.len() == 1
        };
        if first {
            self.wake.notify_one();
        }
    }

    /// Tells that the session's queue has something to send.
    pub fn deliver(&self) {
        if !self.deliver.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Tells the connection to end.
    pub fn end(&self, why: Farewell) {
        self.farewell.lock().get_or_insert(why);
        self.wake.notify_one();
    }

    /// The connection has ended: keeps its claim on memory until nothing can be
    /// told any more.
    pub fn keep(&self, leftover: Ungated) {
        *self.leftover.lock() = Some(leftover);
    }

    /// Resolves when there is something to take.
    pub async fn ready(&self) {
        self.wake.notified().await;
    }

    /// Takes what was settled, in the order in which it was told.
    pub fn take_settled(&self) -> Vec<Settled> {
        std::mem::take(&mut *self.settled.lock())
    }

    /// Whether the session's queue has something to send.
    pub fn take_deliver(&self) -> bool {
        self.deliver.swap(false, Ordering::AcqRel)
    }

    /// Why to end, if it must.
    pub fn farewell(&self) -> Option<Farewell> {
        *self.farewell.lock()
    }
}

impl AckSink for Mailbox {
    fn settled(&self, token: u64, outcome: Outcome) {
        self.settle(match outcome {
            Outcome::Durable { .. } | Outcome::Duplicate => {
                Settled::Publish(token, ReasonCode::Success)
            }
            Outcome::TooLarge => Settled::Publish(token, ReasonCode::QuotaExceeded),
            Outcome::Closing => Settled::Abandoned(token),
        });
    }
}

impl CommitSink for Mailbox {
    fn committed(&self, token: u64, result: Result<(), StoreError>) {
        self.settle(match result {
            Ok(()) => Settled::Committed(token),
            Err(_) => Settled::Abandoned(token),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_piled_up_comes_in_order_with_one_wake() {
        let mailbox = Mailbox::default();
        mailbox.settled(1, Outcome::Durable { position: 9 });
        mailbox.settled(2, Outcome::Duplicate);
        mailbox.settled(3, Outcome::Closing);
        mailbox.ready().await;
        assert_eq!(
            mailbox.take_settled(),
            [
                Settled::Publish(1, ReasonCode::Success),
                Settled::Publish(2, ReasonCode::Success),
                Settled::Abandoned(3)
            ]
        );
        assert!(mailbox.take_settled().is_empty());
    }
}
