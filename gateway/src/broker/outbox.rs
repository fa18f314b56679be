//! A session's owed deliveries between the store and its connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use risiti_store::StoreError;
use risiti_store::state::Batch;

use super::{Broker, Seat};
use crate::limits;
use crate::outgoing::{Outgoing, Page, Queued, Sequence, Stored};
use crate::rows::{self, DeliveryRow};

/// A page of rows as it was read.
pub struct PageRead {
    page: Page,
    rows: Vec<Stored>,
    complete: bool,
}

impl Broker {
    /// Reads a page of what a session is owed. Blocks: for a blocking thread.
    ///
    /// # Errors
    /// The store can't be read right now.
    pub fn read_page(&self, seat: &Seat, page: Page) -> Result<PageRead, StoreError> {
        if page.after == 0 {
            // A connection's first page: what the last one acknowledged must
            // have left the store, or QoS 2 would be delivered again.
            self.state.commit(Batch::new())?;
        }
        let number = seat.session.number;
        let after = rows::delivery_key(number, page.after);
        let found = self.state.scan(
            &rows::deliveries_prefix(number),
            Some(&after),
            limits::ROWS_PER_PAGE,
        )?;
        let complete = found.len() < limits::ROWS_PER_PAGE;
        let mut rows = Vec::with_capacity(found.len());
        let mut unreadable = Batch::new();
        for (key, value) in found {
            let Some(sequence) = rows::delivery_sequence(&key) else {
                continue;
            };
            match stored(sequence, &value) {
                Ok(row) => rows.push(row),
                Err(error) => {
                    tracing::error!(
                        client = %seat.session.client_id, sequence, %error,
                        "a queued delivery can't be read; it is dropped"
                    );
                    unreadable.delete(key);
                }
            }
        }
        self.submit(unreadable);
        Ok(PageRead {
            page,
            rows,
            complete,
        })
    }

    /// Gives a page to its session.
    pub fn page_in(&self, seat: &Seat, read: PageRead) {
        let mut state = seat.session.lock();
        if state.epoch == seat.epoch {
            state.outgoing.page(read.page, read.rows, read.complete);
        }
    }

    /// A delivery is done: its row goes.
    pub fn delivered(&self, seat: &Seat, packet_id: u16) {
        let mut state = seat.session.lock();
        if state.epoch != seat.epoch {
            return;
        }
        let Some((sequence, bytes)) = state.outgoing.done(packet_id) else {
            return;
        };
        if seat.session.persistent {
            state.forgive(bytes);
            self.delete_delivery(seat, sequence);
        }
    }

    /// A delivery will not be made: it expired.
    pub fn expired(&self, seat: &Seat, queued: &Queued) {
        self.metrics.expired.fetch_add(1, Ordering::Relaxed);
        if queued.sequence != 0 {
            self.delivered(seat, Outgoing::packet_id(queued.sequence));
        }
    }

    fn delete_delivery(&self, seat: &Seat, sequence: Sequence) {
        let mut batch = Batch::new();
        batch.delete(rows::delivery_key(seat.session.number, sequence));
        self.submit(batch);
    }

    /// PUBREC came: what must be durable before PUBREL. `None`: nothing.
    pub fn received(&self, seat: &Seat, packet_id: u16) -> Option<Batch> {
        let mut state = seat.session.lock();
        if state.epoch != seat.epoch {
            return None;
        }
        let sequence = state.outgoing.received(packet_id)?;
        if !seat.session.persistent {
            return None;
        }
        let mut batch = Batch::new();
        batch.put(
            rows::delivery_key(seat.session.number, sequence),
            rows::encode(&DeliveryRow::released()),
        );
        Some(batch)
    }

    /// PUBREL came: what must be durable before PUBCOMP. `None`: nothing.
    pub fn release(&self, seat: &Seat, packet_id: u16) -> Option<Batch> {
        let mut state = seat.session.lock();
        if state.epoch != seat.epoch {
            return None;
        }
        state.unreleased.retain(|id| *id != packet_id);
        if !seat.session.persistent {
            return None;
        }
        let mut batch = Batch::new();
        batch.delete(rows::unreleased_key(seat.session.number, packet_id));
        Some(batch)
    }

    /// Submits a connection's batch; its mailbox hears when it is durable.
    ///
    /// # Errors
    /// Too much waits for the disk, or the store closes.
    pub fn submit_for(
        &self,
        batch: Batch,
        mailbox: &Arc<crate::mailbox::Mailbox>,
        token: u64,
    ) -> Result<(), StoreError> {
        self.state.submit(batch, Some((mailbox.clone(), token)))
    }
}

fn stored(sequence: Sequence, value: &[u8]) -> Result<Stored, rows::RowError> {
    let row: DeliveryRow = rows::decode(value)?;
    Ok(match row.message()? {
        None => Stored::Released(sequence),
        Some(message) => Stored::Message(Queued {
            sequence,
            message: Arc::new(message),
            qos: row.qos(),
            retain: row.retain(),
            subscription_ids: row.subscription_ids.clone(),
            received_ms: row.received_ms,
            dup: false,
        }),
    })
}
