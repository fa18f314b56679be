//! A terminal's flash: what is still there after its power was cut.
//!
//! Promises: a record is here from "saved" until its receipt is here; a number
//! is never used again. Never: a packet identifier, a connection, a PUBACK that
//! was not sent: those are the working memory's.
//!
//! Each method is one write that is whole or not at all; cuts fall between them.
//! Printing and its mark are one step, too. What a cut inside a write leaves is
//! the firmware's matter.

use std::collections::VecDeque;
use std::time::Duration;

use risiti_wire::{WireError, mark_resend};

/// A record that has no receipt.
#[derive(Debug, Clone)]
pub struct Saved {
    /// Its number.
    pub sequence: u64,
    /// As it goes on the air.
    pub bytes: Vec<u8>,
    /// When the key was pressed.
    pub saved_at: Duration,
    /// When it is to be sent, from the start on; none: not again.
    pub send_at: Option<Duration>,
    /// How long to wait for the receipt after the next PUBACK.
    pub wait: Duration,
    /// Whether a gateway has acknowledged it.
    pub acknowledged: bool,
}

/// A receipt that is to be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The number of the record that it answers.
    pub sequence: u64,
    /// The receipt.
    pub bytes: Vec<u8>,
}

/// Whether a number was used, and its receipt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Its record waits for a receipt.
    Waiting,
    /// Its receipt has come.
    Answered,
    /// It was never used.
    Never,
}

/// The flash.
#[derive(Debug, Default)]
pub struct Flash {
    last_sequence: u64,
    outbox: VecDeque<Saved>,
    to_print: VecDeque<Job>,
    subscribed: bool,
}

impl Flash {
    /// The number of the next record.
    pub fn next_sequence(&self) -> u64 {
        self.last_sequence + 1
    }

    /// Saves a record under [`Self::next_sequence`].
    pub fn save(&mut self, record: Saved) {
        self.last_sequence = record.sequence;
        self.outbox.push_back(record);
    }

    /// Records that wait for a receipt, oldest first.
    pub fn outbox(&self) -> impl Iterator<Item = &Saved> {
        self.outbox.iter()
    }

    /// What is known of a number. An answered record has left the outbox, so no
    /// list of receipts is needed.
    pub fn known(&self, sequence: u64) -> Known {
        if self.outbox.iter().any(|saved| saved.sequence == sequence) {
            Known::Waiting
        } else if (1..=self.last_sequence).contains(&sequence) {
            Known::Answered
        } else {
            Known::Never
        }
    }

    /// A gateway has the record: it is to be sent again only if no receipt comes.
    pub fn acknowledge(&mut self, sequence: u64, send_at: Option<Duration>, wait: Duration) {
        if let Some(saved) = self.outbox.iter_mut().find(|s| s.sequence == sequence) {
            saved.acknowledged = true;
            saved.send_at = send_at;
            saved.wait = wait;
        }
    }

    /// Sets the resend mark in a record.
    ///
    /// # Errors
    /// What is saved is no record.
    pub fn mark(&mut self, sequence: u64) -> Result<(), WireError> {
        match self.outbox.iter_mut().find(|s| s.sequence == sequence) {
            Some(saved) => mark_resend(&mut saved.bytes),
            None => Ok(()),
        }
    }

    /// Takes a receipt in the place of its record, to be printed; the record, if
    /// it waited for one.
    pub fn store_receipt(&mut self, receipt: Job) -> Option<Saved> {
        let is = |saved: &Saved| saved.sequence == receipt.sequence;
        let at = self.outbox.iter().position(is)?;
        self.to_print.push_back(receipt);
        self.outbox.remove(at)
    }

    /// The next receipt to print, which is then printed.
    pub fn print(&mut self) -> Option<Job> {
        self.to_print.pop_front()
    }

    /// Whether the gateway knows the subscription.
    pub fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// It does, or does no more.
    pub fn set_subscribed(&mut self, subscribed: bool) {
        self.subscribed = subscribed;
    }
}
