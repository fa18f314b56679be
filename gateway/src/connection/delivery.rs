//! What a session is owed, from its queue and the store to the client.

use risiti_mqtt::{Deliver, Delivery, Qos, ReasonCode};
use risiti_store::StoreError;

use super::{RETAINED, Shell};
use crate::broker::{PageRead, Seat};
use crate::limits;
use crate::outgoing::{Next, Outgoing, Queued};

impl Shell {
    /// Sends what the session is owed, as far as window and buffer allow.
    pub(super) fn deliver(&mut self) {
        self.mailbox.take_deliver();
        let Some(seat) = self.seat.clone() else {
            return;
        };
        // What can't be written any more waits for the next connection, or goes to
        // another member of a share.
        if self.is_unheard || !self.connection.is_open() {
            return;
        }
        let unix_ms = self.broker.now_ms();
        loop {
            if self.connection.transmit().len() >= limits::WRITE_WAITING_BYTES {
                return;
            }
            let receipts_turn = self.receipts_turn;
            if receipts_turn && self.deliver_receipt(&seat) {
                continue;
            }
            let window = self.connection.send_window();
            let (next, wanted) = {
                let mut state = seat.session.lock();
                if state.epoch != seat.epoch {
                    return;
                }
                (state.outgoing.next(window), state.outgoing.wanted())
            };
            // With the window closed nobody's turn is over.
            self.receipts_turn |= next.is_some();
            match next {
                Some(Next::Deliver(queued)) => self.send(&seat, &queued, unix_ms),
                Some(Next::Release(sequence)) => {
                    self.connection
                        .resume_release(Outgoing::packet_id(sequence));
                }
                None if !receipts_turn && self.deliver_receipt(&seat) => {}
                None => {
                    if let (Some(page), None) = (wanted, &self.page) {
                        let broker = self.broker.clone();
                        let seat = seat.clone();
                        self.page = Some(tokio::task::spawn_blocking(move || {
                            broker.read_page(&seat, page)
                        }));
                    }
                    self.feed_retained(&seat);
                    self.ask_receipts(&seat);
                    return;
                }
            }
        }
    }

    /// Has the next retained messages queued once what was queued is sent.
    pub(super) fn feed_retained(&mut self, seat: &Seat) {
        while !self.retained_coming
            && self.page.is_none()
            && seat.session.lock().outgoing.is_drained()
        {
            let Some((subscription, after)) = self.retained.pop_front() else {
                return;
            };
            let (next, coming) = self.broker.send_retained(
                seat,
                &subscription,
                after.as_ref(),
                &self.mailbox,
                RETAINED,
            );
            self.retained_coming = coming;
            if next.is_some() {
                self.retained.push_front((subscription, next));
            }
        }
    }

    pub(super) fn send(&mut self, seat: &Seat, queued: &Queued, unix_ms: u64) {
        if !self.broker.may_receive(seat, &queued.message.topic) {
            // It was allowed when it was queued.
            self.broker.withdrawn(seat, queued);
            return;
        }
        let waited_s = (unix_ms.saturating_sub(queued.received_ms) / 1000) as u32;
        // What was sent once at QoS 2 expires no more: MQTT-4.3.3-7.
        let is_begun = queued.dup && queued.qos == Qos::ExactlyOnce;
        let expiry_s = match queued.message.expiry_s {
            Some(expiry_s) if waited_s >= expiry_s && !is_begun => {
                self.broker.expired(seat, queued);
                return;
            }
            other => other.map(|expiry_s| expiry_s.saturating_sub(waited_s)),
        };
        let packet_id = if queued.sequence == 0 {
            0
        } else {
            Outgoing::packet_id(queued.sequence)
        };
        let outcome = self.connection.deliver(&Delivery {
            packet_id,
            message: &queued.message,
            qos: queued.qos,
            retain: queued.retain,
            dup: queued.dup,
            subscription_ids: &queued.subscription_ids,
            expiry_s,
        });
        match outcome {
            Deliver::Delivered => {}
            Deliver::TooLarge => {
                tracing::info!(client = self.client(), topic = %queued.message.topic, "a delivery is larger than the client takes; it is dropped");
                if queued.sequence != 0 {
                    self.broker.delivered(seat, packet_id);
                }
            }
            // Window and buffer were looked at before; should they disagree, the
            // row is still there and the next connection gets it.
            Deliver::WindowFull | Deliver::TransmitFull | Deliver::NotOpen => {
                tracing::warn!(
                    client = self.client(),
                    ?outcome,
                    "a delivery waits for the next connection"
                );
            }
        }
    }

    pub(super) fn page_in(
        &mut self,
        page: Result<Result<PageRead, StoreError>, tokio::task::JoinError>,
    ) {
        let Some(seat) = self.seat.clone() else {
            return;
        };
        match page {
            Ok(Ok(read)) => self.broker.page_in(&seat, read),
            Ok(Err(error)) => {
                tracing::warn!(%error, client = self.client(), "queued messages can't be read now");
                self.connection
                    .close(ReasonCode::ServerBusy, "queued messages can't be read now");
            }
            Err(error) => {
                tracing::error!(%error, client = self.client(), "reading queued messages failed");
                self.connection
                    .close(ReasonCode::UnspecifiedError, "internal error");
            }
        }
    }
}
