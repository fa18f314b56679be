//! What a terminal decides: which packet is next, and what one that came means.
//!
//! Promises: records leave in the order of their numbers, within the window; a
//! record is sent again until its PUBACK, and with the resend mark until its
//! receipt; a receipt is in flash before its PUBACK; one that came before is
//! acknowledged and not printed. Never: a clock, a socket or a random source of
//! its own.
//!
//! | after | what waits | how it is sent again |
//! | --- | --- | --- |
//! | a cut link | PUBLISH without PUBACK | the same identifier, DUP if the session is there |
//! | a power cut | record without PUBACK | as new: the gateway knows its number |
//! | a time without receipt | record with PUBACK | with the resend mark, later and later |

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use risiti_wire::{Account, Currency, Payment, Receipt, Record, RecordBody, Status, WireError};

use super::flash::{Flash, Job, Known, Saved};
use crate::mqtt::{Incoming, Message};

/// When a record is sent again although a gateway has acknowledged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resend {
    /// After so long without a receipt; up to a half more, by chance.
    pub after: Duration,
    /// It is doubled each time, up to this.
    pub longest: Duration,
}

/// A packet to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A SUBSCRIBE to the terminal's receipts.
    Subscribe {
        /// Its packet identifier.
        packet_id: u16,
    },
    /// A PUBACK.
    Acknowledge {
        /// For this packet.
        packet_id: u16,
    },
    /// A record.
    Publish {
        /// Its packet identifier.
        packet_id: u16,
        /// Whether this identifier was sent before.
        dup: bool,
        /// The record.
        payload: Bytes,
        /// Whether it goes out with the resend mark for the first time after a
        /// PUBACK.
        resent: bool,
    },
}

/// What a packet that came has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A gateway has a record.
    Acknowledged(u64),
    /// A receipt is in flash.
    Receipt {
        /// Of this record.
        sequence: u64,
        /// Since the key was pressed.
        waited: Duration,
        /// Whether it says yes.
        accepted: bool,
    },
    /// A receipt came again.
    Repeated,
    /// A message that answers nothing of this terminal's.
    Stranger(String),
    /// The gateway refuses a record or the subscription.
    Refused,
    /// An acknowledgement for nothing, or out of order (MQTT-4.6.0-2).
    Wrong,
    /// Nothing of note.
    None,
}

/// A record on its way.
#[derive(Debug)]
struct InFlight {
    sequence: u64,
    packet_id: u16,
    payload: Bytes,
}

/// What is gone after a power cut.
#[derive(Debug, Default)]
struct Memory {
    in_flight: VecDeque<InFlight>,
    /// So many of them, the last ones, are still to be sent again.
    again: usize,
    session_present: bool,
    /// Packets that want a PUBACK.
    acknowledge: VecDeque<u16>,
    /// A SUBSCRIBE is out under this identifier.
    subscribing: Option<u16>,
    packet_id: u16,
}

/// A terminal, without its connections.
#[derive(Debug)]
pub struct Core {
    id: String,
    receipts: String,
    window: usize,
    resend: Option<Resend>,
    chance: Rng,
    flash: Flash,
    memory: Memory,
}

impl Core {
    /// A new terminal with an empty flash.
    pub fn new(id: &str, window: usize, resend: Option<Resend>, chance: Rng) -> Self {
        Self {
            id: id.to_owned(),
            receipts: format!("t/{id}/receipts"),
            window,
            resend,
            chance,
            flash: Flash::default(),
            memory: Memory::default(),
        }
    }

    /// Where its receipts come.
    pub fn receipts_topic(&self) -> &str {
        &self.receipts
    }

    /// A payment was made: it is in flash when this returns its number.
    ///
    /// # Errors
    /// The numbers are used up.
    pub fn pay(&mut self, now: Duration, time_s: u32) -> Result<u64, WireError> {
        let sequence = self.flash.next_sequence();
        let digits = format!("{:012}", mix(&self.id, 0) % 1_000_000_000_000);
        let record = Record {
            sequence,
            resend: false,
            body: RecordBody::Payment(Payment {
                time_s,
                account: Account::new(&digits)?,
                amount_minor: amount_minor(&self.id, sequence),
                currency: Currency::new(404)?,
                reference: Some("FEES"),
            }),
        };
        let mut buffer = [0; risiti_wire::limits::RECORD_BYTES_MAX];
        let bytes = record.encode(&mut buffer)?.to_vec();
        self.flash.save(Saved {
            sequence,
            bytes,
            saved_at: now,
            send_at: Some(Duration::ZERO),
            wait: self.resend.map_or(Duration::ZERO, |resend| resend.after),
            acknowledged: false,
        });
        Ok(sequence)
    }

    /// A connection stands. Tells whether the gateway has forgotten a session
    /// that it had.
    pub fn connected(&mut self, session_present: bool) -> bool {
        let forgotten = !session_present && self.flash.is_subscribed();
        if !session_present {
            self.flash.set_subscribed(false);
        }
        let memory = &mut self.memory;
        memory.session_present = session_present;
        memory.again = memory.in_flight.len();
        // They were for packets of the last connection; the gateway sends those again.
        memory.acknowledge.clear();
        memory.subscribing = None;
        forgotten
    }

    /// The power is gone, and with it what is not in flash.
    pub fn cut_power(&mut self) {
        self.memory = Memory::default();
    }

    /// The next packet to send on this connection.
    pub fn next(&mut self, now: Duration) -> Option<Outgoing> {
        if let Some(packet_id) = self.memory.acknowledge.pop_front() {
            return Some(Outgoing::Acknowledge { packet_id });
        }
        if !self.flash.is_subscribed() && self.memory.subscribing.is_none() {
            let packet_id = self.take_packet_id();
            self.memory.subscribing = Some(packet_id);
            return Some(Outgoing::Subscribe { packet_id });
        }
        let memory = &mut self.memory;
        if memory.again > 0 {
            let index = memory.in_flight.len() - memory.again;
            memory.again -= 1;
            let one = memory.in_flight.get(index)?;
            return Some(Outgoing::Publish {
                packet_id: one.packet_id,
                dup: memory.session_present,
                payload: one.payload.clone(),
                resent: false,
            });
        }
        self.next_record(now)
    }

    fn next_record(&mut self, now: Duration) -> Option<Outgoing> {
        if self.memory.in_flight.len() >= self.window {
            return None;
        }
        let in_flight = &self.memory.in_flight;
        let (sequence, resent) = self
            .flash
            .outbox()
            .find(|saved| {
                saved.send_at.is_some_and(|at| at <= now)
                    && !in_flight.iter().any(|one| one.sequence == saved.sequence)
            })
            .map(|saved| (saved.sequence, saved.acknowledged))?;
        if resent {
            self.flash.mark(sequence).ok()?;
        }
        let saved = self.flash.outbox().find(|s| s.sequence == sequence)?;
        let payload = Bytes::copy_from_slice(&saved.bytes);
        let packet_id = self.take_packet_id();
        self.memory.in_flight.push_back(InFlight {
            sequence,
            packet_id,
            payload: payload.clone(),
        });
        Some(Outgoing::Publish {
            packet_id,
            dup: false,
            payload,
            resent,
        })
    }

    /// When something is to be sent that is not yet due.
    pub fn due(&self) -> Option<Duration> {
        if self.memory.in_flight.len() >= self.window {
            return None;
        }
        let in_flight = &self.memory.in_flight;
        self.flash
            .outbox()
            .filter(|saved| !in_flight.iter().any(|one| one.sequence == saved.sequence))
            .filter_map(|saved| saved.send_at)
            .min()
    }

    /// Whether an answer of the gateway is awaited.
    pub fn awaits_acknowledgement(&self) -> bool {
        !self.memory.in_flight.is_empty() || self.memory.subscribing.is_some()
    }

    /// The receipt that this packet brings for the first time, if it is one.
    pub fn first_receipt(&self, incoming: &Incoming) -> Option<u64> {
        let Incoming::Message(message) = incoming else {
            return None;
        };
        let receipt = Receipt::decode(&message.payload).ok()?;
        let first = self.flash.known(receipt.sequence) == Known::Waiting;
        (first && self.is_own(message, &receipt)).then_some(receipt.sequence)
    }

    /// A packet came.
    pub fn take(&mut self, now: Duration, incoming: Incoming) -> Event {
        match incoming {
            Incoming::Acknowledged { packet_id, success } => {
                self.acknowledged(now, packet_id, success)
            }
            Incoming::Subscribed { packet_id, success } => {
                if self.memory.subscribing != Some(packet_id) {
                    return Event::Wrong;
                }
                self.memory.subscribing = None;
                self.flash.set_subscribed(success);
                if success { Event::None } else { Event::Refused }
            }
            Incoming::Message(message) => self.message(now, &message),
            Incoming::Completed { .. } => Event::Wrong,
            Incoming::Other => Event::None,
        }
    }

    fn acknowledged(&mut self, now: Duration, packet_id: u16, success: bool) -> Event {
        let Some(one) = self.memory.in_flight.front() else {
            return Event::Wrong;
        };
        if one.packet_id != packet_id {
            return Event::Wrong;
        }
        if !success {
            return Event::Refused;
        }
        let sequence = one.sequence;
        self.memory.in_flight.pop_front();
        let wait = self.flash.outbox().find(|s| s.sequence == sequence);
        if let (Some(wait), Some(resend)) = (wait.map(|saved| saved.wait), self.resend) {
            let spread = wait.mul_f64(1.0 + self.chance.f64() / 2.0);
            let longer = (wait * 2).min(resend.longest);
            self.flash.acknowledge(sequence, Some(now + spread), longer);
        } else {
            self.flash.acknowledge(sequence, None, Duration::ZERO);
        }
        Event::Acknowledged(sequence)
    }

    fn message(&mut self, now: Duration, message: &Message) -> Event {
        // Whatever it is, it must not come for ever.
        self.memory.acknowledge.extend(message.packet_id);
        let receipt = match Receipt::decode(&message.payload) {
            Ok(receipt) => receipt,
            Err(error) => return Event::Stranger(format!("{}: {error}", message.topic)),
        };
        let sequence = receipt.sequence;
        let known = self.flash.known(sequence);
        if known == Known::Never || !self.is_own(message, &receipt) {
            return Event::Stranger(format!("{}: {receipt:?}", message.topic));
        }
        let stored = self.flash.store_receipt(Job {
            sequence,
            bytes: message.payload.to_vec(),
        });
        match stored {
            None => Event::Repeated,
            Some(record) => Event::Receipt {
                sequence,
                waited: now.saturating_sub(record.saved_at),
                accepted: receipt.status == Status::Accepted,
            },
        }
    }

    /// No receipt bears its terminal's name, but each amount is that of one
    /// payment, with one chance in a million to be that of another too.
    fn is_own(&self, message: &Message, receipt: &Receipt<'_>) -> bool {
        message.topic == self.receipts
            && receipt.amount_minor == amount_minor(&self.id, receipt.sequence)
    }

    /// Prints the next receipt that waits for it.
    pub fn print(&mut self) -> Option<Job> {
        self.flash.print()
    }

    /// The next packet identifier that is not in use (MQTT-2.2.1-3).
    fn take_packet_id(&mut self) -> u16 {
        let memory = &mut self.memory;
        loop {
            memory.packet_id = memory.packet_id % u16::MAX + 1;
            let id = memory.packet_id;
            let taken = memory.in_flight.iter().any(|one| one.packet_id == id);
            if !taken && memory.subscribing != Some(id) {
                return id;
            }
        }
    }
}

/// What a payment of the simulation is about: 1 to 1,000,000 minor units.
pub fn amount_minor(terminal: &str, sequence: u64) -> u64 {
    1 + mix(terminal, sequence) % 1_000_000
}

/// FNV-1a over both.
fn mix(terminal: &str, sequence: u64) -> u64 {
    let bytes = terminal.bytes().chain(sequence.to_be_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
