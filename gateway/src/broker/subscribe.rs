//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0, sections 3.8 and 3.10).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytestring::ByteString;
use risiti_mqtt::{Message, Qos, ReasonCode, RetainHandling, Subscription, TopicFilter};
use risiti_store::state::Batch;

use super::publish::{Draft, RETAINED_AGAIN};
use super::{Broker, Seat};
use crate::mailbox::Mailbox;
use crate::rows;
use crate::subscriptions::{Matches, Target};

/// What came of a SUBSCRIBE.
pub struct Subscribed {
    /// A code for each filter.
    pub codes: Vec<ReasonCode>,
    /// The session's row changed: SUBACK waits until this batch is durable.
    pub batch: Option<Batch>,
    /// Whose retained messages are to be delivered once SUBACK is out.
    pub retained: Vec<Subscription>,
    /// The client subscribed to its receipts: they are to be delivered once
    /// SUBACK is out, and whether the last one is asked for.
    pub receipts: Option<bool>,
}

impl Broker {
    /// Takes a SUBSCRIBE.
    pub async fn subscribe(
        self: &Arc<Self>,
        seat: &Seat,
        filters: Vec<Subscription>,
    ) -> Subscribed {
        let session = &seat.session;
        let limits = self.limits();
        let mut codes = Vec::with_capacity(filters.len());
        let mut retained = Vec::new();
        let mut link = Vec::new();
        let mut attach = false;
        let mut changed = false;
        let mut receipts = None;
        // Takeover, expiry and the end of a connection hold it too: the session
        // can't go away in the middle.
        let order = self.order.lock();
        for subscription in filters {
            let subscription = Subscription {
                filter: subscription.filter.detach(),
                ..subscription
            };
            if !self.may_subscribe(&session.owner, &subscription.filter) {
                tracing::info!(client = %session.client_id, filter = %subscription.filter, "SUBSCRIBE refused: no rule allows it");
                codes.push(ReasonCode::NotAuthorized);
                continue;
            }
            if self.receipts.is_receipts_topic(&subscription.filter.filter) {
                let done = self.subscribe_receipts(seat, subscription);
                codes.push(done.code);
                if let Some(wants_last) = done.wants_last {
                    receipts = Some(receipts.unwrap_or(false) || wants_last);
                    changed = true;
                }
                continue;
            }
            // Lock order everywhere: subscriptions before a session.
            let mut all = self.subscriptions.lock();
            let mut state = session.lock();
            if state.epoch != seat.epoch || state.ended {
                codes.push(ReasonCode::UnspecifiedError);
                continue;
            }
            let old = state
                .subscriptions
                .iter()
                .position(|(_, s)| s.filter == subscription.filter);
            if old.is_none()
                && state.all_subscriptions().count()
                    >= limits.subscriptions_per_session_max as usize
            {
                codes.push(ReasonCode::QuotaExceeded);
                continue;
            }
            let through_router = !session.persistent && subscription.filter.share.is_none();
            if through_router
                && old.is_none()
                && (self.fanout.filters() >= crate::limits::FANOUT_FILTERS_MAX
                    || !state.linked
                        && self.fanout.links() >= crate::limits::FANOUT_LINKS_MAX as u64 - 1)
            {
                codes.push(ReasonCode::QuotaExceeded);
                continue;
            }
            if old.is_some() {
                all.remove(session, &subscription.filter);
            }
            let inserted = all.insert(session, &subscription);
            self.any_subscription
                .store(!all.is_empty(), Ordering::Release);
            let Ok(number) = inserted else {
                codes.push(ReasonCode::TopicFilterInvalid);
                continue;
            };
            match old {
                Some(index) => state.subscriptions[index] = (number, subscription.clone()),
                None => state.subscriptions.push((number, subscription.clone())),
            }
            if through_router {
                attach |= !std::mem::replace(&mut state.linked, true);
                link.push(number);
            }
            drop(state);
            drop(all);
            changed = true;
            codes.push(match subscription.qos {
                Qos::AtMostOnce => ReasonCode::Success,
                Qos::AtLeastOnce => ReasonCode::GrantedQos1,
                Qos::ExactlyOnce => ReasonCode::GrantedQos2,
            });
            let wants_retained = subscription.filter.share.is_none()
                && match subscription.retain_handling {
                    RetainHandling::Send => true,
                    RetainHandling::SendIfNew => old.is_none(),
                    RetainHandling::DoNotSend => false,
                };
            if wants_retained {
                retained.push(subscription);
            }
        }
        drop(order);
        if attach {
            self.fanout.attach(session.number, session.clone()).await;
        }
        for number in link {
            self.fanout.subscribe(session.number, number).await;
        }
        if attach && session.lock().ended {
            // It was taken over meanwhile, and its link given back too early.
            self.fanout.detach(session.number).await;
        }
        Subscribed {
            codes,
            batch: self.row_if(changed, seat),
            retained,
            receipts,
        }
    }

    /// Takes an UNSUBSCRIBE: a code for each filter, and what must be durable
    /// before UNSUBACK.
    pub async fn unsubscribe(
        self: &Arc<Self>,
        seat: &Seat,
        filters: &[TopicFilter],
    ) -> (Vec<ReasonCode>, Option<Batch>) {
        let session = &seat.session;
        let mut codes = Vec::with_capacity(filters.len());
        let mut unlink = Vec::new();
        let mut changed = false;
        let order = self.order.lock();
        for filter in filters {
            if self.receipts.is_receipts_topic(&filter.filter) {
                let code = self.unsubscribe_receipts(seat, filter);
                changed |= code == ReasonCode::Success;
                codes.push(code);
                continue;
            }
            let removed = {
                let mut state = session.lock();
                if state.epoch != seat.epoch || state.ended {
                    codes.push(ReasonCode::UnspecifiedError);
                    continue;
                }
                state
                    .subscriptions
                    .iter()
                    .position(|(_, s)| s.filter == *filter)
                    .map(|index| state.subscriptions.swap_remove(index))
            };
            let Some((number, subscription)) = removed else {
                codes.push(ReasonCode::NoSubscriptionExisted);
                continue;
            };
            let mut all = self.subscriptions.lock();
            all.remove(session, &subscription.filter);
            self.any_subscription
                .store(!all.is_empty(), Ordering::Release);
            drop(all);
            if !session.persistent && subscription.filter.share.is_none() {
                unlink.push(number);
            }
            changed = true;
            codes.push(ReasonCode::Success);
        }
        drop(order);
        for number in unlink {
            self.fanout.unsubscribe(session.number, number).await;
        }
        (codes, self.row_if(changed, seat))
    }

    fn row_if(&self, changed: bool, seat: &Seat) -> Option<Batch> {
        if !changed || !seat.session.persistent {
            return None;
        }
        let mut state = seat.session.lock();
        if state.ended {
            return None;
        }
        state.row_is_stale = false;
        let mut batch = Batch::new();
        batch.put(
            rows::session_key(&seat.session.client_id),
            seat.session.row(&state),
        );
        Some(batch)
    }

    /// Queues the next retained messages for a session that has just
    /// subscribed, with RETAIN set (MQTT-3.3.1-8), all or nothing of a topic's
    /// newest. `mailbox` hears as of a PUBLISH with `token` when they are in the
    /// session's queue. Returns where to go on; `None` if that was all, and
    /// whether the mailbox will hear.
    pub fn send_retained(
        &self,
        seat: &Seat,
        subscription: &Subscription,
        after: Option<&ByteString>,
        mailbox: &Arc<Mailbox>,
        token: u64,
    ) -> (Option<ByteString>, bool) {
        // No newer message of these topics may come in between, or the older
        // one would reach the subscriber last.
        let order = self.order.lock();
        let (found, next) =
            self.retained
                .read()
                .page(&subscription.filter.filter, after, self.now_ms());
        let count = found.len();
        for (index, kept) in found.into_iter().enumerate() {
            let message = Message {
                retain: true,
                ..(*kept.message).clone()
            };
            let target = Target {
                session: seat.session.clone(),
                qos: message.qos.min(subscription.qos),
                retain: true,
                subscription_ids: subscription.id.into_iter().collect(),
            };
            let draft = Draft {
                seat: Some(seat.clone()),
                message,
                matches: Matches {
                    targets: vec![target],
                    live: Vec::new(),
                },
                identifier: None,
                publisher: RETAINED_AGAIN,
                received_ms: kept.received_ms,
                reply: (index + 1 == count).then(|| (mailbox.clone(), token)),
                then_delete: None,
            };
            match self.accept_in_order(&order, draft) {
                Ok(true) => {}
                Ok(false) => return (None, false),
                Err(error) => {
                    tracing::warn!(
                        %error, client = %seat.session.client_id, filter = %subscription.filter.filter,
                        "retained messages can't be queued now; the client must subscribe again"
                    );
                    return (None, false);
                }
            }
        }
        (next, count > 0)
    }
}
