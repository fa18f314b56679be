//! The core of one errand: what is still due, and when to leave.
//!
//! Promises: it ends, at the latest after [`ERRAND_MS_MAX`]. Never: a wait that
//! no receipt can be worth.

use crate::limits::{ASKS_MS_MAX, ERRAND_MS_MAX, HELD_BYTES_MAX, HELD_MS_MAX};
use crate::modem::ModemError;
use crate::mqtt::{Client, Fault, Reason};
use crate::store::{Levels, Taken};

/// What an errand is for; made by [`Schedule::begin`](super::Schedule::begin).
/// Records without PUBACK leave in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders {
    /// Wait for receipts of earlier errands too, or for whatever there is.
    pub expects: bool,
    /// Report, though the session is not new.
    pub report: bool,
    /// The battery now, for the report, in millivolts.
    pub battery_mv: u16,
    /// Of the records with PUBACK and without receipt, those above this number …
    pub resend_after: u32,
    /// … up to this one go out again. 0: none.
    pub resend_up_to: u32,
}

/// How an errand ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All that was due is done, or a receipt did not come in time; the gateway was
    /// told that we leave.
    Left,
    /// The modem: no network, no connection, or it was cut.
    Modem(ModemError),
    /// CONNACK refused.
    Refused(Reason),
    /// The gateway closed.
    Closed(Reason),
    /// The gateway broke the standard.
    Fault(Fault),
    /// An answer did not come in time.
    Timeout,
    /// The flash can't be read or written.
    Store,
}

/// What came of an errand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The gateway let us in.
    pub accepted: bool,
    /// Records that got their PUBACK.
    pub acknowledged: u16,
    /// Of them, those that were sent again with the resend mark.
    pub resent: u16,
    /// The last of these.
    pub resent_through: u32,
    /// What the gateway said no to: a record, the subscription or the report.
    pub refused: Option<Reason>,
    /// Receipts that came for the first time, all in flash.
    pub receipts: u16,
    /// Receipts that had come before.
    pub repeated: u16,
    /// Messages that answer nothing of this terminal's, or can't be read.
    pub strangers: u16,
    /// Receipts that settlement has not sealed for this terminal.
    pub forged: u16,
    /// A receipt found no room in the flash: print, then fetch.
    pub full: bool,
    /// The report arrived.
    pub reported: bool,
    /// What the network says the time is, seconds since 1970 UTC.
    pub network_time_s: Option<u32>,
    /// Signal quality, 0 to 31.
    pub signal: Option<u8>,
    /// MQTT bytes sent.
    pub up_bytes: u32,
    /// MQTT bytes received.
    pub down_bytes: u32,
}

impl Outcome {
    /// Nothing came of it but this end.
    #[must_use]
    pub const fn new(end: End) -> Self {
        Self {
            end,
            accepted: false,
            acknowledged: 0,
            resent: 0,
            resent_through: 0,
            refused: None,
            receipts: 0,
            repeated: 0,
            strangers: 0,
            forged: 0,
            full: false,
            reported: false,
            network_time_s: None,
            signal: None,
            up_bytes: 0,
            down_bytes: 0,
        }
    }
}

/// One errand, from CONNECT on.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) client: Client,
    /// Records up to this number were looked at.
    pub(super) cursor: u32,
    /// No more records leave: one was refused.
    pub(super) held: bool,
    pub(super) subscribe_due: bool,
    pub(super) report_due: bool,
    expects: bool,
    /// Somebody asks though no record waits for a receipt.
    asks: bool,
    patience_ms: u16,
    began_ms: u64,
    /// When something last happened that makes a receipt likely.
    stirred_ms: u64,
    /// The first record that left here, and how many got their PUBACK here and no
    /// receipt yet.
    first: u32,
    outstanding: u16,
    full: bool,
    /// Bytes of PUBACKs that wait for company, and since when.
    held_bytes: usize,
    held_ms: u64,
}

impl Visit {
    pub(super) fn new(
        client: Client,
        orders: &Orders,
        levels: &Levels,
        patience_ms: u16,
        now_ms: u64,
    ) -> Self {
        Self {
            client,
            cursor: 0,
            held: false,
            subscribe_due: false,
            report_due: false,
            expects: orders.expects,
            asks: orders.expects && levels.waiting == 0,
            patience_ms,
            began_ms: now_ms,
            stirred_ms: now_ms,
            first: u32::MAX,
            outstanding: 0,
            full: false,
            held_bytes: 0,
            held_ms: 0,
        }
    }

    /// A PUBACK stands in the buffer.
    pub(super) fn hold(&mut self, now_ms: u64, bytes: usize) {
        if self.held_bytes == 0 {
            self.held_ms = now_ms;
        }
        self.held_bytes += bytes;
    }

    /// The buffer was sent.
    pub(super) fn release(&mut self) {
        self.held_bytes = 0;
    }

    /// Until when what is in the buffer may wait; none: it is to leave now. A
    /// segment costs 40 bytes of headers, ten times a PUBACK, and receipts seldom
    /// come alone. A receipt whose PUBACK is lost comes again, and is known.
    pub(super) fn holds_until(&self, buffered_bytes: usize) -> Option<u64> {
        let only_pubacks = buffered_bytes == self.held_bytes;
        (only_pubacks && self.held_bytes < HELD_BYTES_MAX)
            .then_some(self.held_ms.saturating_add(HELD_MS_MAX))
    }

    /// Something happened that makes a receipt likely.
    pub(super) fn stirred(&mut self, now_ms: u64) {
        self.stirred_ms = now_ms;
    }

    /// A record leaves.
    pub(super) fn left(&mut self, sequence: u32) {
        self.cursor = sequence;
        self.first = self.first.min(sequence);
    }

    /// A record got its PUBACK.
    pub(super) fn acknowledged(&mut self, now_ms: u64) {
        self.outstanding = self.outstanding.saturating_add(1);
        self.stirred_ms = now_ms;
    }

    /// A receipt came.
    pub(super) fn took(&mut self, now_ms: u64, sequence: u32, taken: &Taken) {
        match taken {
            Taken::New if sequence >= self.first => {
                self.outstanding = self.outstanding.saturating_sub(1);
            }
            Taken::Full => self.full = true,
            _ => {}
        }
        self.stirred_ms = now_ms;
    }

    /// Whether no receipt is taken any more. PUBACKs leave in the order of what
    /// they acknowledge (MQTT-4.6.0-2), so one that found no room ends it.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// When to leave if nothing happens; none: not yet, an answer is owed.
    pub(super) fn leave_at(&self, levels: &Levels) -> Option<u64> {
        let last_ms = self.began_ms.saturating_add(ERRAND_MS_MAX);
        if self.client.awaits_answer() || self.subscribe_due || self.report_due {
            return self.client.is_accepted().then_some(last_ms);
        }
        let more = levels.waiting > 0 && (self.expects || self.outstanding > 0);
        if self.full || !(self.asks || more) {
            return Some(0);
        }
        let patience_ms = u64::from(self.patience_ms);
        let patience_ms = if more {
            patience_ms
        } else {
            patience_ms.min(ASKS_MS_MAX)
        };
        let patient_ms = self.stirred_ms.saturating_add(patience_ms);
        Some(patient_ms.min(last_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Transmit;
    use crate::mqtt::client::Record;
    use crate::settings::Settings;

    const PATIENCE_MS: u16 = 5_000;
    const EXPECTS: Orders = Orders {
        expects: true,
        report: false,
        battery_mv: 4_000,
        resend_after: 0,
        resend_up_to: 0,
    };

    fn waiting(records: u32) -> Levels {
        Levels {
            waiting: records,
            ..Levels::default()
        }
    }

    /// One that began, and was let in, at 1,000 ms.
    fn visit(orders: &Orders, records: u32) -> Visit {
        let mut client = Client::new(16);
        let accepted = client.handle(1_000, &Settings::default(), &[0x20, 3, 0, 0, 0]);
        assert!(accepted.is_ok() && client.is_accepted());
        Visit::new(client, orders, &waiting(records), PATIENCE_MS, 1_000)
    }

    #[test]
    fn a_visit_that_awaits_nothing_ends_at_once() {
        let orders = Orders::default();
        assert_eq!(visit(&orders, 0).leave_at(&waiting(0)), Some(0));
        // Records whose receipts nobody expects here.
        assert_eq!(visit(&orders, 3).leave_at(&waiting(3)), Some(0));
    }

    #[test]
    fn patience_counts_from_what_makes_a_receipt_likely() {
        let mut visit = visit(&EXPECTS, 2);
        let leaves_ms = |visit: &Visit| visit.leave_at(&waiting(2));
        assert_eq!(leaves_ms(&visit), Some(6_000));
        visit.stirred(2_000);
        assert_eq!(leaves_ms(&visit), Some(7_000));
        visit.acknowledged(3_000);
        assert_eq!(leaves_ms(&visit), Some(8_000));
        visit.took(4_000, 1, &Taken::Repeated);
        assert_eq!(leaves_ms(&visit), Some(9_000));
        // It has an end all the same.
        visit.stirred(ERRAND_MS_MAX);
        assert_eq!(leaves_ms(&visit), Some(1_000 + ERRAND_MS_MAX));
    }

    #[test]
    fn who_asks_with_nothing_waiting_is_answered_soon() {
        assert_eq!(
            visit(&EXPECTS, 0).leave_at(&waiting(0)),
            Some(1_000 + ASKS_MS_MAX)
        );
        // The last receipt came: nobody asked for more.
        assert_eq!(visit(&EXPECTS, 1).leave_at(&waiting(0)), Some(0));
    }

    #[test]
    fn receipts_of_what_left_here_are_awaited_and_no_others() {
        // Nothing is expected but what this visit brings about.
        let mut visit = visit(&Orders::default(), 3);
        visit.left(7);
        visit.left(8);
        assert_eq!((visit.cursor, visit.first), (8, 7));
        visit.acknowledged(1_000);
        visit.acknowledged(1_000);
        let awaits = |visit: &Visit| visit.leave_at(&waiting(3)) != Some(0);
        // The receipt of an earlier one, and one that came before.
        visit.took(1_000, 6, &Taken::New);
        visit.took(1_000, 7, &Taken::Repeated);
        visit.took(1_000, 8, &Taken::Unknown);
        assert_eq!(visit.outstanding, 2);
        visit.took(1_000, 7, &Taken::New);
        assert!(awaits(&visit));
        visit.took(1_000, 8, &Taken::New);
        assert!(!awaits(&visit));
    }

    #[test]
    fn a_receipt_without_room_ends_it() {
        let mut visit = visit(&EXPECTS, 2);
        assert!(!visit.is_full());
        visit.took(2_000, 1, &Taken::Full);
        assert!(visit.is_full());
        assert_eq!(visit.leave_at(&waiting(2)), Some(0));
    }

    #[test]
    fn what_is_owed_is_awaited_to_the_end_of_the_errand() {
        let end_ms = Some(1_000 + ERRAND_MS_MAX);
        let mut subscribing = visit(&Orders::default(), 0);
        subscribing.subscribe_due = true;
        assert_eq!(subscribing.leave_at(&waiting(0)), end_ms);
        let mut reporting = visit(&Orders::default(), 0);
        reporting.report_due = true;
        assert_eq!(reporting.leave_at(&waiting(0)), end_ms);
        let mut sending = visit(&Orders::default(), 1);
        let record = Record {
            sequence: 1,
            dup: false,
            more: false,
            payload: b"1",
        };
        let (settings, mut to) = (Settings::default(), Transmit::new());
        let left = sending.client.record(1_000, &settings, &record, &mut to);
        assert_eq!(left, Ok(()));
        assert_eq!(sending.leave_at(&waiting(1)), end_ms);
        // Before CONNACK the client's own wait is the only one.
        let client = Client::new(16);
        let visit = Visit::new(client, &EXPECTS, &waiting(1), PATIENCE_MS, 1_000);
        assert_eq!(visit.leave_at(&waiting(1)), None);
    }

    #[test]
    fn pubacks_wait_for_company_and_nothing_else_does() {
        let mut visit = visit(&EXPECTS, 1);
        visit.hold(2_000, 4);
        visit.hold(2_500, 4);
        // From the first of them on.
        assert_eq!(visit.holds_until(8), Some(2_000 + HELD_MS_MAX));
        assert_eq!(
            visit.holds_until(9),
            None,
            "something else is in the buffer"
        );
        visit.release();
        visit.hold(3_000, HELD_BYTES_MAX - 1);
        assert_eq!(
            visit.holds_until(HELD_BYTES_MAX - 1),
            Some(3_000 + HELD_MS_MAX)
        );
        visit.hold(3_100, 1);
        assert_eq!(visit.holds_until(HELD_BYTES_MAX), None, "it is enough");
    }
}
