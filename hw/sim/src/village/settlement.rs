//! What stands behind the village's gateway: settlement and its log.
//!
//! Promises: a record is settled once, by terminal and number; a copy of it is
//! answered again with the first receipt. Never: a clock; time is passed in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use bytes::Bytes;
use fastrand::Rng;
use risiti_wire::seal::SealError;
use risiti_wire::{Lines, Reason, Receipt, Record, RecordBody, Status};

use crate::ledger::Found;
use crate::site::Site;

/// How settlement is.
#[derive(Debug, Clone, PartialEq)]
pub struct SettlementProfile {
    /// From the record to its receipt, the shortest and the longest, ms.
    pub answers_after_ms: (u64, u64),
    /// Of a thousand records, so many wait for a bank that opens tomorrow.
    pub slow_of_1000: u32,
    /// From the record to its receipt for those, the shortest and the longest, ms.
    pub slow_after_ms: (u64, u64),
    /// Of a thousand payments, so many are refused.
    pub rejects_of_1000: u32,
    /// Whether receipts bear a bank's reference and lines. The real settlement
    /// writes none by itself.
    pub wordy: bool,
    /// Whether records must be sealed by terminals of the simulated [`Site`], and
    /// receipts are.
    pub sealed: bool,
}

impl Default for SettlementProfile {
    /// At once, as far as Kafka goes; now and then hours; one in a hundred refused.
    fn default() -> Self {
        Self {
            answers_after_ms: (150, 1_500),
            slow_of_1000: 10,
            slow_after_ms: (60_000, 4 * 3_600_000),
            rejects_of_1000: 10,
            wordy: true,
            sealed: true,
        }
    }
}

/// A receipt that is due to go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Whose it is.
    pub terminal: String,
    /// Of which record.
    pub sequence: u64,
    /// The receipt.
    pub payload: Bytes,
}

/// Settlement, and Kafka's log of it.
#[derive(Debug)]
pub struct Settlement {
    profile: SettlementProfile,
    site: Site,
    chance: Rng,
    answers: HashMap<(String, u64), Bytes>,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: HashMap<u64, Issued>,
    issued: u64,
    records: Vec<Found>,
    settled: Vec<Found>,
    receipts: Vec<Found>,
    rejected: u64,
}

impl Settlement {
    /// An empty one.
    pub fn new(profile: SettlementProfile, chance: Rng) -> Self {
        Self {
            profile,
            site: Site::default(),
            chance,
            answers: HashMap::new(),
            due: BinaryHeap::new(),
            waiting: HashMap::new(),
            issued: 0,
            records: Vec::new(),
            settled: Vec::new(),
            receipts: Vec::new(),
            rejected: 0,
        }
    }

    /// A record of Kafka's committed log.
    ///
    /// # Errors
    /// It is none, or not its terminal's; nobody gets a receipt for it.
    pub fn take(&mut self, now_ms: u64, terminal: &str, payload: &[u8]) -> Result<(), SealError> {
        let opened = match self.profile.sealed {
            true => self.site.opened_record(terminal, payload)?,
            false => payload.to_vec(),
        };
        let record = Record::decode(&opened)?;
        let sequence = record.sequence;
        note(&mut self.records, terminal, sequence, record.resend);
        let key = (terminal.to_owned(), sequence);
        let payload = match self.answers.get(&key) {
            Some(answer) => answer.clone(),
            None => {
                let answer = self.decide(now_ms, terminal, &record)?;
                note(&mut self.settled, terminal, sequence, false);
                self.answers.insert(key, answer.clone());
                answer
            }
        };
        let profile = &self.profile;
        let slow = self.chance.u32(..1000) < profile.slow_of_1000;
        let (shortest, longest) = match slow {
            true => profile.slow_after_ms,
            false => profile.answers_after_ms,
        };
        let at_ms = now_ms + self.chance.u64(shortest..=longest);
        self.issued += 1;
        self.due.push(Reverse((at_ms, self.issued)));
        let issued = Issued {
            terminal: terminal.to_owned(),
            sequence,
            payload,
        };
        self.waiting.insert(self.issued, issued);
        Ok(())
    }

    fn decide(
        &mut self,
        now_ms: u64,
        terminal: &str,
        record: &Record<'_>,
    ) -> Result<Bytes, SealError> {
        let rejects = self.chance.u32(..1000) < self.profile.rejects_of_1000;
        let status = if rejects {
            self.rejected += 1;
            Status::Rejected(Reason::ACCOUNT)
        } else {
            Status::Accepted
        };
        let (amount_minor, currency) = match &record.body {
            RecordBody::Payment(payment) => (payment.amount_minor, payment.currency),
            RecordBody::Reversal(_) => (0, risiti_wire::Currency::NONE),
        };
        let wordy = self.profile.wordy;
        let lines = match (wordy, rejects) {
            (false, _) => Ok(Lines::default()),
            (true, true) => Lines::new(&["Ask at the office"]),
            (true, false) => Lines::new(&["School fees", "Thank you"]),
        };
        let receipt = Receipt {
            sequence: record.sequence,
            number: self.settled.len() as u64 + 1,
            status,
            time_s: EPOCH_S.saturating_add((now_ms / 1000) as u32),
            amount_minor,
            currency,
            bank_reference: (wordy && !rejects).then_some("MFI-0042"),
            lines: lines.unwrap_or_default(),
        };
        let mut buffer = [0; risiti_wire::limits::RECEIPT_BYTES_MAX];
        let bytes = receipt.encode(&mut buffer)?;
        Ok(match self.profile.sealed {
            true => self.site.sealed_receipt(terminal, bytes)?.into(),
            false => Bytes::copy_from_slice(bytes),
        })
    }

    /// When the next receipt goes out.
    pub fn due_ms(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// The next receipt that is due by now.
    pub fn next(&mut self, now_ms: u64) -> Option<Issued> {
        if self.due_ms()? > now_ms {
            return None;
        }
        let Reverse((_, number)) = self.due.pop()?;
        let issued = self.waiting.remove(&number)?;
        note(&mut self.receipts, &issued.terminal, issued.sequence, false);
        Some(issued)
    }

    /// Records as they stand in Kafka.
    pub fn records(&self) -> &[Found] {
        &self.records
    }

    /// Finalised transactions, and those refused.
    pub fn settled(&self) -> &[Found] {
        &self.settled
    }

    /// Receipts that went out.
    pub fn receipts(&self) -> &[Found] {
        &self.receipts
    }

    /// Payments that were refused.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }
}

/// 2026-01-01: what the time is in the village when a run begins.
pub const EPOCH_S: u32 = 1_767_225_600;

fn note(log: &mut Vec<Found>, terminal: &str, sequence: u64, resend: bool) {
    log.push(Found {
        client: terminal.to_owned(),
        sequence,
        resend,
        partition: 0,
        offset: log.len() as i64,
    });
}
