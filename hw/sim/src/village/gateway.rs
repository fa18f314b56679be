//! The village's gateway: what it keeps, and what it loses with its disk.
//!
//! Promises: a record is in the journal before its PUBACK; a number is taken
//! once, and again only with the resend mark; a receipt waits until its PUBACK.
//! Never: a clock or a socket.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use super::settlement::Issued;
use crate::ledger::Delivery;

/// A receipt that waits for its PUBACK.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number in its terminal's outbox; also its packet identifier, which so
    /// stays the same over connections.
    pub number: u64,
    /// Of which record.
    pub sequence: u64,
    /// The receipt.
    pub payload: Bytes,
    /// Sent before, on this connection or an earlier one.
    pub sent: bool,
}

impl Row {
    /// 1 to 65,535, in turn.
    pub fn packet_id(&self) -> u16 {
        (self.number % 65_535) as u16 + 1
    }
}

/// What the disk holds of one terminal.
#[derive(Debug, Default)]
pub struct Terminal {
    /// It has a session.
    pub session: bool,
    /// The session has a subscription to the receipts.
    pub subscribed: bool,
    /// Numbers that were taken.
    seen: BTreeSet<u64>,
    /// Receipts.
    pub outbox: VecDeque<Row>,
    /// How many there were so far.
    numbers: u64,
    /// The last message retained for its status.
    pub status: Option<Bytes>,
}

/// All that the disk holds.
#[derive(Debug, Default)]
struct Disk {
    terminals: HashMap<String, Terminal>,
    /// Not in Kafka yet: from when on it will be, the terminal, the record.
    journal: VecDeque<(u64, String, Bytes)>,
}

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in the journal.
    New,
    /// It was there.
    Repeated,
}

/// The gateway.
#[derive(Debug, Default)]
pub struct Gateway {
    disk: Disk,
    deliveries: Vec<Delivery>,
    /// It has lost its disk once: not all deliveries are known.
    wiped: bool,
}

impl Gateway {
    /// What it has of a terminal.
    pub fn terminal(&mut self, id: &str) -> &mut Terminal {
        if !self.disk.terminals.contains_key(id) {
            self.disk
                .terminals
                .insert(id.to_owned(), Terminal::default());
        }
        self.disk
            .terminals
            .get_mut(id)
            .expect("it was put there just now")
    }

    /// Takes a record into the journal; it is in Kafka from `forward_at_ms` on.
    pub fn take(&mut self, forward_at_ms: u64, id: &str, record: &Bytes) -> Option<Taken> {
        let header = risiti_wire::peek(record).ok()?;
        let new = self.terminal(id).seen.insert(header.sequence);
        if !new && !header.resend {
            return Some(Taken::Repeated);
        }
        let entry = (forward_at_ms, id.to_owned(), record.clone());
        self.disk.journal.push_back(entry);
        Some(Taken::New)
    }

    /// When the next record is in Kafka.
    pub fn due_ms(&self) -> Option<u64> {
        self.disk.journal.front().map(|(at_ms, ..)| *at_ms)
    }

    /// The next record that is in Kafka by now.
    pub fn forward(&mut self, now_ms: u64) -> Option<(String, Bytes)> {
        if self.due_ms()? > now_ms {
            return None;
        }
        let (_, id, record) = self.disk.journal.pop_front()?;
        Some((id, record))
    }

    /// A receipt came from Kafka.
    pub fn receive(&mut self, issued: Issued) {
        let terminal = self.terminal(&issued.terminal);
        terminal.numbers += 1;
        terminal.outbox.push_back(Row {
            number: terminal.numbers,
            sequence: issued.sequence,
            payload: issued.payload,
            sent: false,
        });
    }

    /// A terminal has a receipt.
    pub fn delivered(&mut self, id: &str, packet_id: u16) {
        let outbox = &mut self.terminal(id).outbox;
        let Some(at) = outbox.iter().position(|row| row.packet_id() == packet_id) else {
            return;
        };
        if let Some(row) = outbox.remove(at) {
            self.deliveries.push(Delivery {
                terminal: id.to_owned(),
                sequence: row.sequence,
                number: row.number,
                gateway: "village".to_owned(),
            });
        }
    }

    /// Receipts that wait.
    pub fn waiting(&self) -> usize {
        let rows = |terminal: &Terminal| terminal.outbox.len();
        self.disk.terminals.values().map(rows).sum()
    }

    /// Delivery events, if all are known.
    pub fn deliveries(&self) -> Option<&[Delivery]> {
        (!self.wiped).then_some(&self.deliveries)
    }

    /// All sessions with their subscriptions are forgotten; receipts are not.
    pub fn forget_sessions(&mut self) {
        for terminal in self.disk.terminals.values_mut() {
            terminal.session = false;
            terminal.subscribed = false;
        }
    }

    /// The disk is gone, with all that was acknowledged and not yet in Kafka.
    pub fn lose_disk(&mut self) {
        self.disk = Disk::default();
        self.wiped = true;
    }
}
