//! The shell of one errand: bytes between modem and [`Client`], records and
//! receipts between it and the store.
//!
//! Promises: all that is due leaves as one segment; a receipt is in flash before
//! its PUBACK is written; a modem that was opened is closed. With keys, no record
//! leaves open, and no receipt that they don't open is stored. Never: a decision that
//! is not the core's ([`super::visit`]) or the client's.

use embassy_futures::select::{Either3, select3};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use embassy_sync::signal::Signal;
use embedded_storage_async::nor_flash::NorFlash;
use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX, SEALED_RECORD_BYTES_MAX};
use risiti_wire::{LOST, Receipt, mark_resend};

use super::link::Link;
use super::report::{birth, report};
use super::sealed::{self, Came};
use super::visit::{End, Orders, Outcome, Visit};
use crate::hardware::Clock;
use crate::limits::{KEEP_ALIVE_S, RECEIVE_BYTES_MAX, SESSION_EXPIRY_S};
use crate::modem::{Modem, ModemError};
use crate::mqtt::client::Record;
use crate::mqtt::incoming::packet_len;
use crate::mqtt::transmit::Connect;
use crate::mqtt::{Client, Event, Fault, Reason, Refusal, Transmit};
use crate::settings::Settings;
use crate::store::{Store, Taken};

/// The buffers of an errand: 1.3 KiB, to be kept in static memory.
#[derive(Debug)]
pub struct Scratch {
    transmit: Transmit,
    receive: [u8; RECEIVE_BYTES_MAX],
    received: usize,
    record: [u8; RECORD_BYTES_MAX],
    /// A record that is sealed, or a receipt that is opened.
    other_side: [u8; RECEIPT_BYTES_MAX],
}

const _: () = assert!(SEALED_RECORD_BYTES_MAX <= RECEIPT_BYTES_MAX);

impl Scratch {
    /// Empty ones.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            transmit: Transmit::new(),
            receive: [0; RECEIVE_BYTES_MAX],
            received: 0,
            record: [0; RECORD_BYTES_MAX],
            other_side: [0; RECEIPT_BYTES_MAX],
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// What an errand is run with.
pub struct Errand<'a, M, F, C> {
    /// The modem. It may be off; it is left on.
    pub modem: &'a mut M,
    /// Records and receipts.
    pub store: &'a Mutex<NoopRawMutex, Store<F>>,
    /// Time.
    pub clock: &'a C,
    /// Who and where.
    pub settings: &'a Settings<'a>,
    /// Buffers.
    pub scratch: &'a mut Scratch,
    /// What earlier errands found out.
    pub link: &'a mut Link,
    /// Signalled when a record was saved: it leaves with this errand.
    pub saved: &'a Signal<NoopRawMutex, ()>,
}

impl<M: Modem, F: NorFlash, C: Clock> Errand<'_, M, F, C> {
    /// Powers the modem on, does what is due, closes. It ends by itself, in the
    /// worst case after the modem's longest waits and
    /// [`ERRAND_MS_MAX`](crate::limits::ERRAND_MS_MAX); dropped before, the modem's
    /// next `open` closes what is open.
    pub async fn run(mut self, orders: &Orders) -> Outcome {
        let mut outcome = Outcome::new(End::Left);
        match self.open().await {
            Ok(()) => {
                self.note_network(&mut outcome);
                let ended = self.talk(orders, &mut outcome).await;
                outcome.end = ended.err().unwrap_or(End::Left);
                self.modem.close().await;
            }
            Err(error) => {
                self.note_network(&mut outcome);
                outcome.end = End::Modem(error);
            }
        }
        outcome
    }

    async fn open(&mut self) -> Result<(), ModemError> {
        self.modem.power_on(&self.settings.network()).await?;
        let settings = self.settings;
        self.modem.open(settings.host, settings.port).await
    }

    fn note_network(&self, outcome: &mut Outcome) {
        outcome.network_time_s = self.modem.network_time_s();
        outcome.signal = self.modem.signal();
    }

    /// From CONNECT to DISCONNECT.
    async fn talk(&mut self, orders: &Orders, outcome: &mut Outcome) -> Result<(), End> {
        self.scratch.transmit.clear();
        self.scratch.received = 0;
        let mut visit = self.connect(orders).await;
        let done = self.serve(&mut visit, orders, outcome).await;
        if !visit.client.is_accepted() {
            // It may have made a session that has no subscription.
            self.link.subscribed = false;
        } else {
            let waits = self.store.lock().await.levels().waiting > 0;
            let came = outcome.receipts > 0 || outcome.repeated > 0;
            self.link.note_receipts(came, waits);
        }
        match done {
            Ok(()) => {
                self.link.lost = false;
                self.link.resend_attempted = 0;
                Ok(())
            }
            Err(End::Fault(fault)) => {
                self.link.refused(fault.reason());
                self.scratch.transmit.clear();
                // Always fits: the buffer is empty.
                let _no_room = self.scratch.transmit.disconnect(fault.reason());
                // Closing is what matters; the reason is for the gateway's log.
                let _gone = self.flush(&mut visit, outcome).await;
                Err(End::Fault(fault))
            }
            Err(end) => {
                if let End::Refused(reason) | End::Closed(reason) = end {
                    self.link.refused(reason);
                }
                Err(end)
            }
        }
    }

    /// Begins the first segment.
    async fn connect(&mut self, orders: &Orders) -> Visit {
        let (settings, now_ms) = (self.settings, self.clock.now_ms());
        let reports = self.link.takes_retain && (orders.report || self.link.lost);
        let levels = self.store.lock().await.levels();
        let mut client = Client::new(self.link.early_window());
        let connect = Connect {
            id: settings.id,
            token: settings.token,
            session_expiry_s: SESSION_EXPIRY_S,
            keep_alive_s: KEEP_ALIVE_S,
            packet_bytes_max: RECEIVE_BYTES_MAX as u32,
            // It costs 3 bytes here and 3 with the first receipt, and saves a
            // topic with each further one.
            topic_alias_maximum: u16::from(levels.waiting > 1),
            // Its bytes go where the birth message goes: it says that the
            // connection with that broke.
            will: reports.then_some((settings.status, &LOST[..])),
        };
        // Always fits: the buffer is empty, and the settings' bounds are below it.
        let _no_room = client.connect(now_ms, &connect, &mut self.scratch.transmit);
        let mut visit = Visit::new(client, orders, &levels, settings.patience_ms, now_ms);
        visit.subscribe_due = !self.link.subscribed;
        visit.report_due = reports;
        self.link.lost = reports;
        visit
    }

    async fn serve(
        &mut self,
        visit: &mut Visit,
        orders: &Orders,
        outcome: &mut Outcome,
    ) -> Result<(), End> {
        loop {
            self.fill(visit, orders, outcome).await?;
            let now_ms = self.clock.now_ms();
            let levels = self.store.lock().await.levels();
            let leave_ms = visit.leave_at(&levels);
            if leave_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                // A full buffer is left with the next round.
                if self.scratch.transmit.disconnect(Reason::SUCCESS).is_ok() {
                    return self.flush(visit, outcome).await;
                }
            }
            let held_ms = self.hold(visit, outcome).await?;
            let due_ms = [leave_ms, visit.client.poll_timeout(), held_ms];
            let due_ms = due_ms.into_iter().flatten().min().unwrap_or(now_ms);
            let Scratch {
                receive, received, ..
            } = &mut *self.scratch;
            let free = receive.get_mut(*received..).unwrap_or(&mut []);
            match select3(
                self.modem.receive(free),
                self.clock.sleep_until(due_ms),
                self.saved.wait(),
            )
            .await
            {
                Either3::First(came) => {
                    let came = came.map_err(End::Modem)?;
                    *received = (*received + came).min(RECEIVE_BYTES_MAX);
                    outcome.down_bytes = outcome.down_bytes.saturating_add(came as u32);
                    self.take(visit, orders, outcome).await?;
                }
                Either3::Second(()) => {
                    let now_ms = self.clock.now_ms();
                    let transmit = &mut self.scratch.transmit;
                    let timed_out = visit.client.handle_timeout(now_ms, transmit);
                    timed_out.map_err(|_| End::Timeout)?;
                }
                Either3::Third(()) => {}
            }
        }
    }

    /// Writes what is due, as far as window and buffer allow.
    async fn fill(
        &mut self,
        visit: &mut Visit,
        orders: &Orders,
        outcome: &mut Outcome,
    ) -> Result<(), End> {
        let (settings, link) = (self.settings, &mut *self.link);
        let may = visit.client.is_accepted() || link.eager;
        loop {
            let now_ms = self.clock.now_ms();
            let Scratch {
                transmit,
                record,
                other_side,
                ..
            } = &mut *self.scratch;
            if may && visit.subscribe_due {
                visit.subscribe_due = visit.client.subscribe(now_ms, settings, transmit).is_err();
            }
            let mut store = self.store.lock().await;
            let levels = store.levels();
            if visit.report_due {
                let birth = birth(orders, outcome, &levels, store.counters());
                match report(&mut visit.client, now_ms, settings, &birth, transmit) {
                    Ok(()) => visit.report_due = false,
                    Err(Refusal::TooLarge) => (visit.report_due, link.lost) = (false, false),
                    Err(Refusal::Window | Refusal::Room) => {}
                }
            }
            if visit.held {
                return Ok(());
            }
            let waiting = store.next_waiting(visit.cursor, record).await;
            drop(store);
            let Some(waiting) = waiting.map_err(|_| End::Store)? else {
                return Ok(());
            };
            let sequence = waiting.sequence;
            let again = sequence > orders.resend_after && sequence <= orders.resend_up_to;
            let bytes = record.get_mut(..waiting.len).unwrap_or(&mut []);
            // What the store gives out is whole; should it not be a record, it
            // can't be sent again.
            if waiting.sent && (!again || mark_resend(bytes).is_err()) {
                visit.cursor = sequence;
                continue;
            }
            let Some(payload) = sealed::record(settings, bytes, other_side) else {
                visit.cursor = sequence;
                continue;
            };
            let attempted = if waiting.sent {
                &mut link.resend_attempted
            } else {
                &mut link.attempted
            };
            let in_flight = visit.client.in_flight() as u32;
            let published = visit.client.record(
                now_ms,
                settings,
                &Record {
                    sequence,
                    dup: sequence <= *attempted,
                    more: levels.unsent > in_flight + 1,
                    payload,
                },
                transmit,
            );
            match published {
                Ok(()) => {
                    *attempted = sequence.max(*attempted);
                    visit.left(sequence);
                }
                Err(Refusal::Window) => return Ok(()),
                Err(Refusal::Room) => {
                    let length = transmit.bytes().len();
                    self.modem
                        .send(transmit.bytes())
                        .await
                        .map_err(End::Modem)?;
                    outcome.up_bytes = outcome.up_bytes.saturating_add(length as u32);
                    transmit.clear();
                    visit.release();
                    visit.client.sent(self.clock.now_ms());
                }
                Err(Refusal::TooLarge) => {
                    visit.held = true;
                    outcome.refused = Some(Reason::PACKET_TOO_LARGE);
                }
            }
        }
    }

    /// Sends what is due; until when the rest may wait, if there is any.
    async fn hold(&mut self, visit: &mut Visit, outcome: &mut Outcome) -> Result<Option<u64>, End> {
        let buffered = self.scratch.transmit.bytes().len();
        let until_ms = visit.holds_until(buffered);
        if buffered > 0 && until_ms.is_some_and(|at_ms| self.clock.now_ms() < at_ms) {
            return Ok(until_ms);
        }
        self.flush(visit, outcome).await?;
        Ok(None)
    }

    async fn flush(&mut self, visit: &mut Visit, outcome: &mut Outcome) -> Result<(), End> {
        let transmit = &mut self.scratch.transmit;
        if transmit.is_empty() {
            return Ok(());
        }
        let sent = self.modem.send(transmit.bytes()).await;
        let length = transmit.bytes().len() as u32;
        transmit.clear();
        visit.release();
        sent.map_err(End::Modem)?;
        outcome.up_bytes = outcome.up_bytes.saturating_add(length);
        visit.client.sent(self.clock.now_ms());
        Ok(())
    }

    /// Takes whole packets out of what was received.
    async fn take(
        &mut self,
        visit: &mut Visit,
        orders: &Orders,
        outcome: &mut Outcome,
    ) -> Result<(), End> {
        let mut at = 0;
        loop {
            let rest = self.scratch.receive.get(at..self.scratch.received);
            let rest = rest.unwrap_or(&[]);
            let Some(length) = packet_len(rest, RECEIVE_BYTES_MAX).map_err(End::Fault)? else {
                break;
            };
            if length > rest.len() {
                break;
            }
            self.take_packet(visit, orders, outcome, at, length).await?;
            at += length;
        }
        let Scratch {
            receive, received, ..
        } = &mut *self.scratch;
        receive.copy_within(at..*received, 0);
        *received -= at;
        Ok(())
    }

    async fn take_packet(
        &mut self,
        visit: &mut Visit,
        orders: &Orders,
        outcome: &mut Outcome,
        at: usize,
        length: usize,
    ) -> Result<(), End> {
        let (now_ms, link) = (self.clock.now_ms(), &mut *self.link);
        let Scratch {
            receive,
            transmit,
            other_side,
            ..
        } = &mut *self.scratch;
        let packet = receive.get(at..at + length).unwrap_or(&[]);
        let event = visit.client.handle(now_ms, self.settings, packet);
        match event.map_err(End::Fault)? {
            Event::Accepted { session_present } => {
                outcome.accepted = true;
                link.window = visit.client.window();
                link.takes_retain = visit.client.takes_retain();
                visit.stirred(now_ms);
                if !session_present {
                    visit.subscribe_due |= link.subscribed;
                    // Nobody knows this terminal there.
                    visit.report_due |= link.takes_retain && !link.lost;
                    link.subscribed = false;
                }
                visit.report_due &= link.takes_retain;
            }
            Event::Refused(reason) => return Err(End::Refused(reason)),
            Event::Closed(reason) => return Err(End::Closed(reason)),
            Event::Subscribed(reason) => {
                link.subscribed = !reason.is_error();
                visit.stirred(now_ms);
                note_refusal(outcome, reason);
            }
            Event::Reported(reason) => {
                outcome.reported = true;
                note_refusal(outcome, reason);
            }
            Event::Acknowledged { sequence, reason } => {
                note_refusal(outcome, reason);
                // A record that can't be read is kept by the gateway for a person
                // to look at: sending it at once again is in vain.
                if reason.is_error() && reason != Reason::PAYLOAD_FORMAT_INVALID {
                    visit.held = true;
                    // Its PUBLISH is over: the next is not the same again.
                    link.attempted = link.attempted.min(sequence.saturating_sub(1));
                    return Ok(());
                }
                let marked = self.store.lock().await.mark_sent(sequence).await;
                marked.map_err(|_| End::Store)?;
                outcome.acknowledged = outcome.acknowledged.saturating_add(1);
                if sequence > orders.resend_after && sequence <= orders.resend_up_to {
                    outcome.resent = outcome.resent.saturating_add(1);
                    outcome.resent_through = sequence;
                }
                visit.acknowledged(now_ms);
            }
            Event::Message {
                packet_id,
                is_receipt,
                payload,
            } => {
                if visit.is_full() {
                    return Ok(());
                }
                let came = match is_receipt {
                    true => sealed::receipt(self.settings, payload, other_side),
                    false => Came::Stranger,
                };
                let mut reason = Reason::SUCCESS;
                let receipt = match came {
                    Came::Open(payload) => Receipt::decode(payload).ok().zip(Some(payload)),
                    _ => None,
                };
                if let Some((receipt, payload)) = receipt {
                    // The format's bound on sequence numbers is 32 bits.
                    let sequence = u32::try_from(receipt.sequence).unwrap_or(u32::MAX);
                    let taken = self
                        .store
                        .lock()
                        .await
                        .take_receipt(sequence, payload)
                        .await;
                    let taken = taken.map_err(|_| End::Store)?;
                    let count = match taken {
                        Taken::New => &mut outcome.receipts,
                        Taken::Repeated => &mut outcome.repeated,
                        Taken::Unknown => &mut outcome.strangers,
                        Taken::Full => {
                            outcome.full = true;
                            visit.took(now_ms, sequence, &taken);
                            return Ok(());
                        }
                    };
                    *count = count.saturating_add(1);
                    visit.took(now_ms, sequence, &taken);
                } else if let Came::Forged = came {
                    // It gets its PUBACK, as one that is known: kept by the gateway it
                    // would come with every connection. What it pretends to answer has
                    // no receipt yet, goes out again, and is answered again.
                    outcome.forged = outcome.forged.saturating_add(1);
                } else {
                    outcome.strangers = outcome.strangers.saturating_add(1);
                    if let Came::Open(_) | Came::Unreadable = came {
                        // A later firmware may read it: the gateway keeps it.
                        reason = Reason::PAYLOAD_FORMAT_INVALID;
                    }
                }
                if let Some(packet_id) = packet_id {
                    // Always fits: the PUBACKs of a full receive buffer and those
                    // that wait are shorter than the transmit buffer.
                    let room = transmit.room();
                    let fits = transmit.puback(packet_id, reason);
                    fits.map_err(|_| End::Fault(Fault::TooLarge))?;
                    visit.hold(now_ms, room - transmit.room());
                }
            }
            Event::None => {}
        }
        Ok(())
    }
}

fn note_refusal(outcome: &mut Outcome, reason: Reason) {
    if reason.is_error() {
        outcome.refused = Some(reason);
    }
}
