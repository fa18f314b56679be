//! What one session still has to send of its terminal's receipts.
//!
//! Promises: receipts leave in the order of their numbers; each is offered again
//! on every connection until it is acknowledged, with the same packet identifier
//! and with DUP if it may have been sent before (MQTT-3.3.1-1, MQTT-4.4.0-1);
//! memory is bounded whatever waits in the outbox.
//!
//! The outbox holds the receipts; this is a window on it, filled by pages and by
//! what arrives while the session is connected. Nothing here survives the
//! process but [`ReceiptsQueue::sent`], which the session's row keeps.
//!
//! The outcome of a delivery:
//!
//! | what happens | the receipt |
//! | --- | --- |
//! | PUBACK | is acknowledged: its row goes |
//! | PUBACK with an error (0x80 and above) | stays in the outbox; this delivery is over, the next connection or SUBSCRIBE begins another |
//! | larger than the client takes | likewise |
//! | its expiry has passed | is dropped and counted |
//! | sent at QoS 0 | stays, for nobody acknowledges it; sent once on each connection |
//!
//! The last receipt is retained: a SUBSCRIBE that asks for retained messages gets
//! it again when nothing waits. Such a copy goes out with RETAIN, its PUBACK ends
//! the copy and nothing else.
//!
//! A core: it knows no clock, store or socket.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use risiti_bridge::receipts::{Outbox, ReceiptNumber, StoredReceipt};
use risiti_mqtt::{Qos, Subscription};
use risiti_store::StoreError;

use crate::identifiers::Identifiers;
use crate::limits;

/// One receipt to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// What.
    pub receipt: StoredReceipt,
    /// 0 at QoS 0.
    pub packet_id: u16,
    /// 1, or 0 if no more was subscribed to.
    pub qos: Qos,
    /// It is the retained copy of the last receipt.
    pub retain: bool,
    /// It may have been sent before.
    pub dup: bool,
    /// Of the subscription.
    pub subscription_id: Option<u32>,
}

/// One receipt that waits for its PUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    /// Its number.
    pub number: ReceiptNumber,
    /// Number of the record that it answers.
    pub sequence: u64,
    /// It went out with DUP.
    pub again: bool,
    /// It was the retained copy: nothing follows from its PUBACK.
    pub retained: bool,
}

/// A page of the outbox to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Receipts above this number.
    pub after: ReceiptNumber,
    /// Whether [`PageRead::end`] is wanted.
    pub wants_end: bool,
    /// Whether [`PageRead::last`] is wanted if there are none.
    pub wants_last: bool,
}

impl Page {
    /// Reads it from the outbox.
    ///
    /// # Errors
    /// The store can't be read right now.
    pub fn read(
        &self,
        outbox: &Outbox,
        terminal: &str,
        now_ms: u64,
    ) -> Result<PageRead, StoreError> {
        // Before the page is read: what comes in between is not the last one, but
        // waits.
        let end = match self.wants_end || self.wants_last {
            true => outbox.end(terminal)?,
            false => 0,
        };
        let receipts = outbox.page(terminal, self.after, limits::RECEIPTS_PER_PAGE)?;
        let last = match self.wants_last && receipts.is_empty() {
            true => outbox.last(terminal)?,
            false => None,
        };
        Ok(PageRead {
            complete: receipts.len() < limits::RECEIPTS_PER_PAGE,
            receipts,
            end: self.wants_end.then_some(end),
            last: last
                .filter(|last| last.number < end)
                .filter(|last| last.expires_ms.is_none_or(|ms| now_ms < ms)),
        })
    }
}

/// Such a page as it was read.
#[derive(Debug, Clone, Default)]
pub struct PageRead {
    /// In the order of their numbers.
    pub receipts: Vec<StoredReceipt>,
    /// Whether there was no more when it was read.
    pub complete: bool,
    /// The number that the next receipt will get.
    pub end: Option<ReceiptNumber>,
    /// The newest receipt of the terminal.
    pub last: Option<StoredReceipt>,
}

/// The window of one session on its terminal's receipts.
#[derive(Debug)]
pub struct ReceiptsQueue {
    /// None: unsubscribed; what is in flight is still acknowledged.
    subscription: Option<Subscription>,
    /// There is a connection, and SUBACK is out.
    serving: bool,
    /// Highest number that was ever sent at QoS 1 in this session: up to here
    /// DUP is set. None: not known, the gateway was killed meanwhile.
    sent: Option<ReceiptNumber>,
    /// Highest number brought in since the outbox was looked at from its start.
    loaded: ReceiptNumber,
    /// The outbox may hold receipts above `loaded`.
    more: bool,
    /// A page is being read.
    reading: bool,
    waiting: VecDeque<StoredReceipt>,
    waiting_bytes: usize,
    in_flight: BTreeMap<ReceiptNumber, InFlight>,
    /// Sent before an UNSUBSCRIBE and not acknowledged when the connection ended:
    /// at most a window of them. A restart forgets them.
    finishing: BTreeSet<ReceiptNumber>,
    /// Came to an end while a page is read, which may still hold them; no more
    /// than a window of them, for nothing else is sent meanwhile.
    done_meanwhile: Vec<ReceiptNumber>,
    /// The retained copy is asked for.
    wants_last: bool,
    /// It was in flight when a connection broke: it comes again.
    last_again: bool,
    /// The copy, to be sent before anything else.
    last: Option<StoredReceipt>,
}

impl ReceiptsQueue {
    /// Of a subscription that a restart finds. `sent`: the highest number that
    /// may have been sent, if that is known.
    pub fn resume(subscription: Subscription, sent: Option<ReceiptNumber>) -> Self {
        Self {
            subscription: Some(subscription),
            serving: false,
            sent,
            loaded: 0,
            more: true,
            reading: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: BTreeMap::new(),
            finishing: BTreeSet::new(),
            done_meanwhile: Vec::new(),
            wants_last: false,
            last_again: false,
            last: None,
        }
    }

    /// The subscription, if there is one.
    pub fn subscription(&self) -> Option<&Subscription> {
        self.subscription.as_ref()
    }

    /// Highest number that may have been sent, if that is known.
    pub fn sent(&self) -> Option<ReceiptNumber> {
        self.sent
    }

    /// Receipts that wait here or for their PUBACK.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len() + usize::from(self.last.is_some())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client subscribes, perhaps again. Whether it did not before.
    pub fn subscribe(&mut self, subscription: Subscription) -> bool {
        self.finishing.clear();
        self.subscription.replace(subscription).is_none()
    }

    /// The client unsubscribes: nothing new is sent, but the delivery of what was
    /// sent is completed (MQTT-3.10.4-3). False: it had not subscribed.
    pub fn unsubscribe(&mut self) -> bool {
        self.serving = false;
        self.look_again();
        self.last = None;
        self.wants_last = false;
        self.subscription.take().is_some()
    }

    /// SUBACK is out: whatever the outbox holds and is not in flight is to be
    /// sent, and if it holds nothing and `wants_last`, the last receipt once more.
    pub fn begin(&mut self, wants_last: bool) {
        if self.subscription.is_none() {
            return; // unsubscribed meanwhile
        }
        self.serving = true;
        self.look_again();
        self.wants_last |= wants_last;
    }

    /// A connection resumes the session.
    pub fn connected(&mut self) {
        self.disconnected();
        self.serving = self.subscription.is_some() || !self.finishing.is_empty();
    }

    /// The connection is gone: the next one starts from the outbox.
    pub fn disconnected(&mut self) {
        self.serving = false;
        self.reading = false;
        self.look_again();
        let copy_waits = self.last.take().is_some();
        let copy_in_flight = self.in_flight.values().any(|f| f.retained);
        if self.subscription.is_none() {
            let sent = self.in_flight.values().filter(|f| !f.retained);
            self.finishing.extend(sent.map(|f| f.number));
        }
        self.in_flight.clear();
        self.done_meanwhile = Vec::new();
        if self.subscription.is_some() {
            self.last_again |= copy_in_flight;
            self.wants_last |= copy_in_flight || copy_waits;
        }
    }

    fn look_again(&mut self) {
        self.loaded = 0;
        self.more = true;
        self.waiting = VecDeque::new();
        self.waiting_bytes = 0;
    }

    /// These receipts are in the outbox now. Whether there is something to send.
    pub fn arrived(&mut self, receipts: &[StoredReceipt]) -> bool {
        if !self.serving || self.subscription.is_none() {
            return false;
        }
        for receipt in receipts {
            if self.more || self.reading || self.is_full() {
                self.more = true;
                break;
            }
            self.take_in(receipt.clone());
        }
        !receipts.is_empty()
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= limits::RECEIPTS_WAITING_MAX
            || self.waiting_bytes >= limits::RECEIPTS_WAITING_BYTES_MAX
    }

    fn take_in(&mut self, receipt: StoredReceipt) {
        if receipt.number <= self.loaded {
            return;
        }
        self.loaded = receipt.number;
        // Of a page that was asked for again by a SUBSCRIBE.
        let known = self.in_flight.contains_key(&receipt.number)
            || self.done_meanwhile.contains(&receipt.number);
        let wanted = self.subscription.is_some() || self.finishing.contains(&receipt.number);
        if wanted && !known {
            self.waiting_bytes += receipt.payload.len();
            self.waiting.push_back(receipt);
        }
    }

    /// The next page to read, if one is needed; the caller has to read it.
    pub fn ask(&mut self) -> Option<Page> {
        if !self.serving || self.reading || !self.more || !self.waiting.is_empty() {
            return None;
        }
        if self.subscription.is_none() && self.finishing.last() <= Some(&self.loaded) {
            return None;
        }
        self.reading = true;
        self.more = false;
        Some(Page {
            after: self.loaded,
            wants_end: self.sent.is_none(),
            wants_last: self.wants_last && self.loaded == 0,
        })
    }

    /// Takes a page that was asked for.
    pub fn page(&mut self, page: Page, read: PageRead) {
        self.reading = false;
        if let (None, Some(end)) = (self.sent, read.end) {
            self.sent = Some(end.saturating_sub(1));
        }
        if page.after != self.loaded || self.sent.is_none() {
            self.more = true; // a SUBSCRIBE came meanwhile: from the start again
            self.done_meanwhile = Vec::new();
            return;
        }
        self.more |= !read.complete;
        let none = read.receipts.is_empty();
        for receipt in read.receipts {
            self.take_in(receipt);
        }
        self.done_meanwhile = Vec::new();
        if page.wants_last {
            self.wants_last = false;
            // A copy that is on its way already is not sent twice at once.
            self.last = read
                .last
                .filter(|last| none && !self.in_flight.contains_key(&last.number));
            self.last_again &= self.last.is_some();
        }
    }

    /// Takes out what is to be sent next. `window`: how many QoS 1 deliveries may
    /// still be in flight.
    pub fn next(&mut self, window: usize) -> Option<Next> {
        if !self.serving {
            return None;
        }
        let subscription = self.subscription.as_ref();
        let qos = subscription.map_or(Qos::AtLeastOnce, |s| s.qos.min(Qos::AtLeastOnce));
        let subscription_id = subscription.and_then(|s| s.id);
        let number = self.last.as_ref().or_else(|| self.waiting.front())?.number;
        let at_least_once = qos == Qos::AtLeastOnce;
        if at_least_once && (window == 0 || !self.identifier_is_free(number)) {
            return None;
        }
        let (receipt, retain) = match self.last.take() {
            Some(receipt) => (receipt, true),
            None => (self.waiting.pop_front()?, false),
        };
        let again = if retain {
            std::mem::take(&mut self.last_again)
        } else {
            self.waiting_bytes -= receipt.payload.len();
            self.sent.is_some_and(|sent| number <= sent)
        };
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        if at_least_once {
            self.sent = self.sent.max(Some(number));
            self.in_flight.insert(
                number,
                InFlight {
                    number,
                    sequence: receipt.sequence,
                    again,
                    retained: retain,
                },
            );
        }
        Some(Next {
            packet_id: if at_least_once {
                Identifiers::RECEIPTS.of(number)
            } else {
                0
            },
            qos,
            retain,
            dup: again && at_least_once, // MQTT-3.3.1-2
            subscription_id,
            receipt,
        })
    }

    /// A client that never acknowledges one must not meet its identifier again
    /// (MQTT-2.2.1-3). What is in flight is at most a window.
    fn identifier_is_free(&self, number: ReceiptNumber) -> bool {
        self.in_flight_under(Identifiers::RECEIPTS.of(number))
            .is_none()
    }

    fn in_flight_under(&self, packet_id: u16) -> Option<ReceiptNumber> {
        let mut numbers = self.in_flight.keys().copied();
        numbers.find(|number| Identifiers::RECEIPTS.of(*number) == packet_id)
    }

    /// A delivery is over: acknowledged, refused, or not to be made at all.
    /// `None`: nothing is in flight under that identifier.
    pub fn done(&mut self, packet_id: u16) -> Option<InFlight> {
        let number = self.in_flight_under(packet_id)?;
        if self.reading {
            self.done_meanwhile.push(number);
        }
        self.finishing.remove(&number);
        self.in_flight.remove(&number)
    }
}

#[cfg(test)]
mod page_tests;
#[cfg(test)]
mod tests;
