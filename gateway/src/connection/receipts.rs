//! What a terminal is owed, from its session's window to the client.

use risiti_mqtt::{Deliver, Delivery, ReasonCode};
use risiti_store::StoreError;

use super::Shell;
use crate::broker::{ReceiptsPage, Seat};

impl Shell {
    /// Sends the next receipt, or finds that it can't be sent. False: there is
    /// none that may be sent now.
    pub(super) fn deliver_receipt(&mut self, seat: &Seat) -> bool {
        let window = self.connection.send_window();
        let Some(next) = self.broker.next_receipt(seat, window) else {
            return false;
        };
        self.receipts_turn = false;
        let Some((message, expiry_s)) = self.broker.receipt_message(seat, &next) else {
            return true;
        };
        let subscription_ids: Vec<u32> = next.subscription_id.into_iter().collect();
        let outcome = self.connection.deliver(&Delivery {
            packet_id: next.packet_id,
            message: &message,
            qos: next.qos,
            retain: next.retain,
            dup: next.dup,
            subscription_ids: &subscription_ids,
            expiry_s,
        });
        match outcome {
            Deliver::Delivered => self.broker.receipt_sent(seat, &next),
            Deliver::TooLarge => self.broker.receipt_too_large(seat, &next),
            // Window and buffer were looked at before; should they disagree, the
            // receipt is still in the outbox and the next connection gets it.
            Deliver::WindowFull | Deliver::TransmitFull | Deliver::NotOpen => {
                tracing::warn!(
                    client = self.client(),
                    ?outcome,
                    "a receipt waits for the next connection"
                );
            }
        }
        true
    }

    /// Begins to read the next page, if one is needed.
    pub(super) fn ask_receipts(&mut self, seat: &Seat) {
        if self.receipts_page.is_some() {
            return;
        }
        if let Some(page) = self.broker.ask_receipts(seat) {
            let read = self.broker.clone().read_receipts(seat.clone(), page);
            self.receipts_page = Some(tokio::spawn(read));
        }
    }

    pub(super) fn receipts_in(
        &mut self,
        page: Result<Result<ReceiptsPage, StoreError>, tokio::task::JoinError>,
    ) {
        let Some(seat) = self.seat.clone() else {
            return;
        };
        match page {
            Ok(Ok(page)) => self.broker.receipts_in(&seat, page),
            Ok(Err(error)) => {
                tracing::warn!(%error, client = self.client(), "receipts can't be read now");
                self.connection
                    .close(ReasonCode::ServerBusy, "receipts can't be read now");
            }
            Err(error) => {
                tracing::error!(%error, client = self.client(), "reading receipts failed");
                self.connection
                    .close(ReasonCode::UnspecifiedError, "internal error");
            }
        }
    }
}
