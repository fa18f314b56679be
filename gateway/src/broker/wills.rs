//! Wills (MQTT 5.0, section 3.1.2.5): kept from CONNECT on, published when a
//! connection ends without leave, delayed if so asked.
//!
//! Promises: a will's row is in the store before CONNACK and leaves it only
//! with the client's leave, a resumed session, or once what it publishes is
//! durable; so a killed gateway publishes it after its restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytestring::ByteString;
use risiti_mqtt::Message;
use risiti_store::state::Batch;

use super::Broker;
use crate::access::Who;
use crate::rows::{self, SessionNumber, WillNumber};
use crate::session::Session;

/// A will that waits for its delay.
pub(super) struct DelayedWill {
    pub number: WillNumber,
    pub client_id: ByteString,
    /// As whom it came.
    pub owner: Who,
    /// Its client's session, which does not hear it where it said no local; 0 for
    /// one that is no more.
    pub publisher: SessionNumber,
    pub message: Message,
}

/// What happened to the will's connection or session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The client took its leave: no will.
    Leave,
    /// The connection was lost: the will is due after its delay.
    Lost,
    /// A new connection resumed the session: a delayed will is void; one
    /// without delay is due, for the old connection was closed without leave.
    Resumed,
    /// The session ended: a will that still waits is due now.
    SessionEnded,
}

/// When a will is tried again that found too much waiting for the disk.
const WILL_RETRY_S: u32 = 1;

impl Broker {
    /// Acts on a session's will.
    pub(super) fn settle_will(
        self: &Arc<Self>,
        session: &Arc<Session>,
        cause: Cause,
        batch: &mut Batch,
    ) {
        let (will, expiry_s) = {
            let mut state = session.lock();
            (state.will.take(), state.expiry_s)
        };
        if let Some((number, will)) = will {
            // The session's end is the latest (MQTT-3.1.3-9).
            let delay_s = will.delay_s.min(expiry_s);
            let will = DelayedWill {
                number,
                client_id: session.client_id.clone(),
                owner: session.owner.clone(),
                publisher: session.number,
                message: will.message,
            };
            match cause {
                Cause::Leave => {
                    batch.delete(rows::will_key(number));
                }
                _ if delay_s == 0 || cause == Cause::SessionEnded => self.publish_will(will),
                Cause::Lost => self.delay_will(session.number, will, delay_s),
                Cause::Resumed | Cause::SessionEnded => {
                    batch.delete(rows::will_key(number));
                }
            }
        }
        if matches!(cause, Cause::Resumed | Cause::SessionEnded) {
            for delayed in self.take_delayed(session.number) {
                if cause == Cause::SessionEnded {
                    self.publish_will(delayed);
                } else {
                    batch.delete(rows::will_key(delayed.number));
                }
            }
        }
    }

    /// Lets a will wait.
    pub(super) fn delay_will(&self, session: SessionNumber, will: DelayedWill, delay_s: u32) {
        let due_ms = self.steady_ms() + u64::from(delay_s) * 1000;
        self.wills
            .lock()
            .insert((due_ms, will.number), (session, will));
    }

    fn take_delayed(&self, session: SessionNumber) -> Vec<DelayedWill> {
        let mut wills = self.wills.lock();
        let keys: Vec<_> = wills
            .iter()
            .filter(|(_, (s, _))| *s == session)
            .map(|(key, _)| *key)
            .collect();
        keys.iter()
            .filter_map(|key| wills.remove(key))
            .map(|(_, will)| will)
            .collect()
    }

    fn publish_will(self: &Arc<Self>, will: DelayedWill) {
        // On its own task: the callers hold locks that publishing needs.
        let broker = self.clone();
        tokio::spawn(async move {
            let row = rows::will_key(will.number);
            if broker.publish_own(&will, row) {
                broker.metrics.wills.fetch_add(1, Ordering::Relaxed);
            } else {
                // Of no session any more: nothing can recall it.
                broker.delay_will(0, will, WILL_RETRY_S);
            }
        });
    }

    /// Publishes the wills that are due. To be called now and then.
    pub fn publish_due_wills(self: &Arc<Self>) {
        let now_ms = self.steady_ms();
        loop {
            let due = {
                let mut wills = self.wills.lock();
                match wills.first_key_value() {
                    Some(((due_ms, _), _)) if *due_ms <= now_ms => wills.pop_first(),
                    _ => None,
                }
            };
            let Some((_, (_, will))) = due else { break };
            self.publish_will(will);
        }
    }

    /// Removes retained messages that have expired. To be called now and then.
    pub fn expire_retained(&self) {
        // Not between a new message's row and its place in memory.
        let _order = self.order.lock();
        let gone = self.retained.write().expire(self.now_ms());
        if gone.is_empty() {
            return;
        }
        let mut batch = Batch::new();
        batch.allow_splitting();
        for topic in gone {
            batch.delete(rows::retained_key(&topic));
        }
        self.submit(batch);
    }
}
