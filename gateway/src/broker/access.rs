//! Rights, where sessions meet them: what is asked before each act, and what ends
//! when rights do.
//!
//! Promises: a change of the registry or of the rules reaches whatever is there
//! before it returns: connections that would not be let in any more are told to
//! end, subscriptions that are not allowed any more are gone, and of what they had
//! queued nothing is delivered. Whatever happens meanwhile is judged by the new
//! rights: they are put in force first, and every act asks under a lock that this
//! file takes afterwards. Never: a file read under those locks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytestring::ByteString;
use risiti_config::Config;
use risiti_mqtt::TopicFilter;
use risiti_store::StoreError;
use risiti_store::state::Batch;

use super::connect::ConnectRefusal;
use super::{Broker, Seat};
use crate::access::{Access, Hole, LoginRefusal, Verb, Who};
use crate::mailbox::Farewell;
use crate::outgoing::{Outgoing, Queued};
use crate::rows;
use crate::session::Session;
use crate::tls::PeerCertificate;

/// What a client is told that may not publish there.
pub(super) const NOT_ALLOWED: &str = "no rule allows this identity to publish there";

impl Broker {
    /// Who may connect, and what each may do.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    pub(super) fn may_publish(&self, who: &Who, topic: &str) -> bool {
        let allowed = self.access.allows(who, Verb::Publish, topic);
        if !allowed {
            self.access
                .metrics
                .publishes
                .fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }

    pub(super) fn may_will(&self, who: &Who, topic: &str) -> bool {
        self.access.policy().rules().hole() == Some(Hole::Will) || self.may_publish(who, topic)
    }

    /// Of a shared subscription the filter counts, not the group.
    pub(super) fn may_subscribe(&self, who: &Who, filter: &TopicFilter) -> bool {
        let policy = self.access.policy();
        let rules = policy.rules();
        let allowed = rules.allows(who, Verb::Subscribe, &filter.filter)
            || (rules.hole() == Some(Hole::Share) && filter.share.is_some());
        if !allowed {
            let metrics = &self.access.metrics;
            metrics.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }

    /// Whether a message that was queued for a session may still go to it.
    pub fn may_receive(&self, seat: &Seat, topic: &str) -> bool {
        self.access
            .allows(&seat.session.owner, Verb::Subscribe, topic)
            || self.access.policy().rules().hole().is_some()
    }

    /// A delivery will not be made: its session may not have it any more.
    pub fn withdrawn(&self, seat: &Seat, queued: &Queued) {
        self.access
            .metrics
            .withdrawn
            .fetch_add(1, Ordering::Relaxed);
        if queued.sequence != 0 {
            self.delivered(seat, Outgoing::packet_id(queued.sequence));
        }
    }

    /// Whether somebody may take the place of a session: its owner may, and whoever
    /// has shown who it is may in place of who has not, or is not any more.
    pub(super) fn may_take(&self, who: &Who, old: &Session) -> Result<(), ConnectRefusal> {
        let policy = self.access.policy();
        let is_free = match (who, &old.owner) {
            (who, owner) if who == owner => true,
            // Nobody else gets so far with its client identifier.
            (Who::Terminal(_), _) | (Who::User(_), Who::Anonymous) => true,
            (_, owner) => !policy.knows(owner) || policy.rules().hole() == Some(Hole::ClientId),
        };
        if is_free {
            return Ok(());
        }
        let metrics = &self.access.metrics;
        metrics.logins.fetch_add(1, Ordering::Relaxed);
        Err(LoginRefusal::ForeignClientId.told())
    }

    /// Looks whether the registry has changed, and puts it in force. Blocks: for a
    /// blocking thread.
    pub fn refresh_access(self: &Arc<Self>) {
        if self.access.refresh(false) {
            self.enforce_access();
        }
    }

    /// Puts another configuration's rights in force, and the registry as it is now.
    pub fn reconfigure_access(self: &Arc<Self>, config: &Config) {
        self.access.reconfigure(config);
        self.enforce_access();
    }

    /// Ends what is not allowed any more.
    pub fn enforce_access(self: &Arc<Self>) {
        let mut batch = Batch::new();
        for id in self.access.forget_used() {
            batch.delete(rows::used_token_key(&id));
        }
        self.submit(batch);
        let sessions: Vec<_> = self.sessions.lock().values().cloned().collect();
        let mut unlink = Vec::new();
        for session in &sessions {
            self.end_if_unknown(session);
            self.end_subscriptions(session, &mut unlink);
        }
        if unlink.is_empty() {
            return;
        }
        let fanout = self.fanout.clone();
        // What still comes on the way is judged before it is delivered.
        self.runtime.spawn(async move {
            for (session, filter) in unlink {
                fanout.unsubscribe(session, filter).await;
            }
        });
    }

    fn end_if_unknown(&self, session: &Session) {
        let state = session.lock();
        let Some(mailbox) = &state.mailbox else {
            return;
        };
        let (owner, client_id) = (&session.owner, &session.client_id);
        let is_trusted = |certificate: &Arc<PeerCertificate>| certificate.is_trusted();
        if self.access.admits(owner, client_id, &state.proof)
            && state.certificate.as_ref().is_none_or(is_trusted)
        {
            return;
        }
        tracing::warn!(%client_id, %owner, "closed: it would not be let in any more");
        self.access
            .metrics
            .withdrawn
            .fetch_add(1, Ordering::Relaxed);
        mailbox.end(Farewell::Administrative);
    }

    /// Ends a session's subscriptions that are not allowed any more.
    fn end_subscriptions(
        &self,
        session: &Arc<Session>,
        unlink: &mut Vec<(rows::SessionNumber, crate::fanout::FilterNumber)>,
    ) {
        let policy = self.access.policy();
        let allowed = |filter: &TopicFilter| {
            let rules = policy.rules();
            rules.hole().is_some() || rules.allows(&session.owner, Verb::Subscribe, &filter.filter)
        };
        // As in SUBSCRIBE: subscriptions before a session.
        let _order = self.order.lock();
        let mut all = self.subscriptions.lock();
        let mut state = session.lock();
        if state.ended {
            return;
        }
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut state.subscriptions)
            .into_iter()
            .partition(|(_, subscription)| allowed(&subscription.filter));
        state.subscriptions = stay;
        let mut ended = go.len();
        for (number, subscription) in go {
            tracing::info!(client = %session.client_id, filter = %subscription.filter, "a subscription ended: no rule allows it any more");
            all.remove(session, &subscription.filter);
            if !session.persistent && subscription.filter.share.is_none() {
                unlink.push((session.number, number));
            }
        }
        self.any_subscription
            .store(!all.is_empty(), Ordering::Release);
        drop(all);
        if let Some(receipts) = &mut state.receipts {
            let is_allowed = receipts
                .subscription()
                .is_none_or(|subscription| allowed(&subscription.filter));
            ended += usize::from(!is_allowed && receipts.unsubscribe());
        }
        if ended == 0 {
            return;
        }
        let metrics = &self.access.metrics;
        metrics.withdrawn.fetch_add(ended as u64, Ordering::Relaxed);
        if session.persistent {
            let mut batch = Batch::new();
            batch.put(rows::session_key(&session.client_id), session.row(&state));
            self.submit(batch);
        }
    }

    /// Which next tokens were used here before the start.
    pub(super) fn recover_used_tokens(self: &Arc<Self>) -> Result<(), StoreError> {
        self.each_row(rows::USED_TOKENS, |broker, key, value| {
            if let (Ok(id), Some(token)) = (ByteString::try_from(key), rows::used_token(&value)) {
                broker.access.used(id, token);
            }
        })
    }
}
