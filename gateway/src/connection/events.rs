//! What a client asks for, and what it is answered: at once, or when the store
//! has spoken.

use std::sync::atomic::Ordering;

use risiti_mqtt::{Accept, Event, Message, Qos, ReasonCode, Subscription, Version};

use super::{ANSWERS_FROM, RETAINED, Shell};
use crate::broker::{Delivered, Entrance, Publisher, Taken};
use crate::identifiers::Identifiers;
use crate::limits;
use crate::mailbox::Settled;

/// What is to be done once a state batch is durable.
pub(super) enum Answer {
    Subscribed {
        packet_id: u16,
        codes: Vec<ReasonCode>,
        retained: Vec<Subscription>,
        receipts: Option<bool>,
    },
    Unsubscribed {
        packet_id: u16,
        codes: Vec<ReasonCode>,
    },
    Completed(u16),
    Released(u16),
}
impl Shell {
    pub(super) fn take_settled(&mut self) {
        for settled in self.mailbox.take_settled() {
            match settled {
                Settled::Publish(RETAINED, _) | Settled::Abandoned(RETAINED) => {
                    self.retained_coming = false;
                }
                Settled::Publish(token, reason) => self.publish_settled(token, reason, None),
                // No acknowledgement; the client sends it again some day.
                Settled::Abandoned(token) if token < ANSWERS_FROM => self.forget(token),
                Settled::Committed(token) => self.answer(token),
                Settled::Abandoned(token) => {
                    self.answers.retain(|(t, _)| *t != token);
                    self.connection
                        .close(ReasonCode::ServerUnavailable, "the gateway stops");
                }
            }
        }
    }

    pub(super) fn publish_settled(&mut self, token: u64, reason: ReasonCode, text: Option<&str>) {
        self.forget(token);
        // A v3.1.1 client can't be told; its record is kept as a dead letter.
        let reason = if reason == ReasonCode::PayloadFormatInvalid
            && self.connection.version() == Some(Version::V311)
        {
            ReasonCode::Success
        } else {
            reason
        };
        if reason == ReasonCode::Success {
            self.broker
                .metrics
                .acknowledged
                .fetch_add(1, Ordering::Relaxed);
        }
        self.connection.publish_settled(token, reason, text);
    }

    pub(super) fn forget(&mut self, token: u64) {
        if let Some(index) = self.unsettled.iter().position(|(t, _)| *t == token)
            && let Some((_, bytes)) = self.unsettled.remove(index)
        {
            self.broker.remove_ungated(bytes);
        }
    }

    pub(super) async fn handle(&mut self, event: Event) {
        match event {
            Event::Connect(request) => self.connect(&request).await,
            Event::Publish {
                token,
                message,
                packet_id,
                dup,
            } => self.publish(token, message, packet_id, dup),
            Event::PublishRelease { packet_id } => {
                let batch = self
                    .seat
                    .as_ref()
                    .and_then(|s| self.broker.release(s, packet_id));
                self.answer_when_durable(batch, Answer::Completed(packet_id));
            }
            Event::Subscribe { packet_id, filters } => {
                let Some(seat) = self.seat.clone() else {
                    return;
                };
                let done = self.broker.subscribe(&seat, filters).await;
                self.answer_when_durable(
                    done.batch,
                    Answer::Subscribed {
                        packet_id,
                        codes: done.codes,
                        retained: done.retained,
                        receipts: done.receipts,
                    },
                );
            }
            Event::Unsubscribe { packet_id, filters } => {
                let Some(seat) = self.seat.clone() else {
                    return;
                };
                let (codes, batch) = self.broker.unsubscribe(&seat, &filters).await;
                self.answer_when_durable(batch, Answer::Unsubscribed { packet_id, codes });
            }
            Event::Acked { packet_id, reason } => {
                let Some(seat) = &self.seat else { return };
                if Identifiers::RECEIPTS.contains(packet_id) {
                    self.broker.receipt_acknowledged(seat, packet_id, reason);
                } else {
                    self.broker.delivered(seat, packet_id);
                }
            }
            Event::Received { packet_id } => {
                let batch = self
                    .seat
                    .as_ref()
                    .and_then(|s| self.broker.received(s, packet_id));
                self.answer_when_durable(batch, Answer::Released(packet_id));
            }
            Event::Closed(closed) => self.over = Some(closed),
        }
    }

    pub(super) async fn connect(&mut self, request: &risiti_mqtt::ConnectRequest) {
        let entrance = Entrance {
            address: self.peer.ip(),
            listener: &self.listener,
            certificate: self.certificate.clone(),
        };
        let connected = match self.broker.connect(request, &self.mailbox, entrance).await {
            Ok(connected) => connected,
            Err((reason, text)) => {
                self.connection.refuse(reason, text);
                return;
            }
        };
        let keepalive_max_s = self.broker.limits().keepalive_s_max;
        let keep_alive_s = request.keep_alive_s;
        let server_keep_alive_s = (keepalive_max_s != 0
            && (keep_alive_s == 0 || keep_alive_s > keepalive_max_s))
            .then_some(keepalive_max_s);
        tracing::debug!(
            peer = %self.peer, client = %connected.seat.session.client_id,
            session_present = connected.session_present, version = ?request.version, "connected"
        );
        self.connection.accept(
            self.broker.monotonic_ms(),
            &Accept {
                session_present: connected.session_present,
                assigned_client_id: connected.assigned_client_id.as_deref(),
                session_expiry_s: (connected.session_expiry_s != request.session_expiry_s)
                    .then_some(connected.session_expiry_s),
                server_keep_alive_s,
                unreleased: &connected.unreleased,
            },
        );
        self.seat = Some(connected.seat);
        self.take_input();
    }

    pub(super) fn publish(&mut self, token: u64, message: Message, packet_id: u16, dup: bool) {
        let Some(seat) = &self.seat else { return };
        let publisher = Publisher {
            session: &seat.session,
            epoch: seat.epoch,
            mailbox: &self.mailbox,
            sink: &self.sink,
        };
        let message = message.detach();
        let bytes = limits::UNSETTLED_OVERHEAD_BYTES
            + message.payload.len()
            + message.topic.len()
            + message.properties.len();
        let qos = message.qos;
        let how = Delivered {
            packet_id,
            dup,
            token,
        };
        self.unsettled.push_back((token, bytes));
        self.broker.add_ungated(bytes);
        let now_ms = self.broker.monotonic_ms();
        let access = self.broker.access();
        let wait_ms = access.published(&seat.session.owner, self.peer.ip(), bytes, now_ms);
        self.held_until_ms = self.held_until_ms.max(now_ms + wait_ms);
        match self.broker.publish(&publisher, message, how) {
            Taken::Later if qos == Qos::AtMostOnce => {}
            Taken::Later | Taken::Superseded => {}
            Taken::Now(reason, text) => {
                if reason.is_error() {
                    tracing::info!(peer = %self.peer, client = self.client(), %reason, ?text, "PUBLISH refused");
                }
                self.publish_settled(token, reason, text);
            }
        }
    }

    /// Answers at once if nothing has to be durable first.
    pub(super) fn answer_when_durable(
        &mut self,
        batch: Option<risiti_store::state::Batch>,
        answer: Answer,
    ) {
        let token = self.next_answer;
        self.next_answer += 1;
        self.answers.push((token, answer));
        match batch {
            None => self.answer(token),
            Some(batch) => {
                if let Err(error) = self.broker.submit_for(batch, &self.mailbox, token) {
                    tracing::warn!(%error, client = self.client(), "closed: the session can't be stored now");
                    self.connection
                        .close(ReasonCode::ServerBusy, "too much waits for the disk");
                }
            }
        }
    }

    pub(super) fn answer(&mut self, token: u64) {
        let Some(index) = self.answers.iter().position(|(t, _)| *t == token) else {
            return;
        };
        match self.answers.remove(index).1 {
            Answer::Subscribed {
                packet_id,
                codes,
                retained,
                receipts,
            } => {
                self.connection.subscribed(packet_id, &codes, None);
                if let (Some(seat), Some(wants_last)) = (&self.seat, receipts) {
                    self.broker.begin_receipts(seat, wants_last);
                }
                self.retained.extend(
                    retained
                        .into_iter()
                        .map(|subscription| (subscription, None)),
                );
            }
            Answer::Unsubscribed { packet_id, codes } => {
                self.connection.unsubscribed(packet_id, &codes, None);
            }
            Answer::Completed(packet_id) => self.connection.publish_completed(packet_id),
            Answer::Released(packet_id) => self.connection.released(packet_id),
        }
    }
}
