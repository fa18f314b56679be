//! What settlement decides: one record in, what is to be written out.
//!
//! Promises: a number is settled once; its resend gets the first receipt again,
//! byte for byte, and changes nothing; other content under a settled number is
//! refused. The same records in the same order give the same decisions: number and
//! time of a receipt come from the record's place and time in Kafka. Never: a
//! clock, a socket, a random source, or a record that stops those behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use risiti_wire::limits::RECORD_BYTES_MAX;
use risiti_wire::{Reason, Receipt};

use super::changelog;
use super::judge::Judged;
use super::memory::{Kind, Partition};
use super::receipt::{self, receipt_number};
use super::rules::{Case, Refusal, Rule};
use super::sealing::Sealing;
use super::verify::{self, Verified};
use crate::limits;

/// The bank's own reference for an accepted record, 1 to 24 bytes. As rules are,
/// it must be a function of the case alone.
pub type BankReference = Arc<dyn Fn(&Case<'_>) -> Option<String> + Send + Sync>;

/// By what records are judged.
#[derive(Clone, Default)]
pub struct Policy {
    /// The rules, in their order.
    pub rules: Vec<Rule>,
    /// The reference on receipts; none = receipts have none.
    pub bank_reference: Option<BankReference>,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("rules", &self.rules.len())
            .field("bank_reference", &self.bank_reference.is_some())
            .finish()
    }
}

/// A message of the records topic.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, Unix milliseconds.
    pub time_ms: u64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Settled now.
    Accepted(Transaction),
    /// Refused by a rule, or damaged; its number is settled as refused.
    Refused(Refusal),
    /// Settled before: the first receipt again.
    Again,
    /// Its number is settled with other content.
    Conflict,
    /// Its number is below the window.
    TooOld,
    /// Its seal is refused, by this reason; nobody is answered. Whoever forged it
    /// uses up no number.
    Seal(String),
    /// Not a record that can be judged; the reason in words.
    Foreign(String),
}

/// A payment or reversal that is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// What is credited, or taken back again.
    pub kind: Kind,
    /// The account, in digits; none for a reversal.
    pub account: Option<String>,
    /// In minor units.
    pub amount_minor: u64,
    /// ISO 4217 numeric.
    pub currency: u16,
    /// What it is for.
    pub reference: Option<String>,
    /// When, by the terminal's clock: seconds since 1970; 0 = not set.
    pub terminal_time_s: u32,
    /// The day to which it counts, days since 1970.
    pub day: u32,
    /// The bank's own reference.
    pub bank_reference: Option<String>,
}

/// What is to be written because of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What became of it.
    pub verdict: Verdict,
    /// The terminal that its key names.
    pub terminal: Option<String>,
    /// Its number.
    pub sequence: Option<u64>,
    /// When it was settled: Unix milliseconds, of the first time if this is a
    /// resend.
    pub time_ms: u64,
    /// The receipt to send.
    pub receipt: Option<Vec<u8>>,
    /// The receipt's own number.
    pub number: u64,
    /// Keys and values for the changelog; none is a tombstone.
    pub changelog: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What a [`Core`] is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Numbers remembered of each terminal.
    pub window: usize,
    /// Minutes by which a day begins before midnight UTC.
    pub utc_offset_minutes: i32,
    /// How records are opened and receipts closed.
    pub sealing: Sealing,
    /// For the negative control of G2 only: remembers nothing, so that a resend is
    /// settled again.
    pub forgetful: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: 512,
            utc_offset_minutes: 0,
            sealing: Sealing::default(),
            forgetful: false,
        }
    }
}

/// Settlement of the partitions that one instance holds.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    policy: Policy,
    partitions: BTreeMap<i32, Partition>,
}

impl Core {
    /// One that holds no partition.
    #[must_use]
    pub fn new(settings: Settings, policy: Policy) -> Self {
        Self {
            settings,
            policy,
            partitions: BTreeMap::new(),
        }
    }

    /// Takes a partition, with what its changelog says.
    pub fn assign(&mut self, partition: i32, memory: Partition) {
        self.partitions.insert(partition, memory);
    }

    /// Forgets a partition: another instance settles it from now on.
    pub fn revoke(&mut self, partition: i32) -> Option<Partition> {
        self.partitions.remove(&partition)
    }

    /// Whether this partition is its.
    #[must_use]
    pub fn holds(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// Partitions, terminals and numbers that it remembers.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        let all = self.partitions.values();
        (
            self.partitions.len(),
            all.clone().map(Partition::len).sum(),
            all.map(Partition::numbers).sum(),
        )
    }

    /// What is remembered of a partition.
    #[must_use]
    pub fn partition(&self, partition: i32) -> Option<&Partition> {
        self.partitions.get(&partition)
    }

    /// Settles a record; none if its partition is not held.
    ///
    /// What is remembered, and compared, is the record as it was before it was sealed:
    /// one that is sealed again with a newer key is the same record.
    pub fn settle(&mut self, input: &Input<'_>) -> Option<Decision> {
        if !self.holds(input.partition) {
            return None;
        }
        let mut decision = Decision {
            verdict: Verdict::TooOld,
            terminal: None,
            sequence: None,
            time_ms: input.time_ms,
            receipt: None,
            number: receipt_number(input.partition, input.offset),
            changelog: Vec::new(),
        };
        let terminal = match verify::terminal(input.key) {
            Ok(terminal) => terminal,
            Err(detail) => {
                decision.verdict = Verdict::Foreign(detail);
                return Some(decision);
            }
        };
        decision.terminal = Some(terminal.to_owned());
        let sealing = self.settings.sealing.clone();
        let mut buffer = [0; RECORD_BYTES_MAX];
        match sealing.open(terminal, input.partition, input.value, &mut buffer) {
            Ok(opened) => {
                let input = Input {
                    value: opened.bytes,
                    ..*input
                };
                self.decide(terminal, &input, &mut decision);
                let receipt = decision.receipt.take();
                decision.receipt =
                    receipt.map(|receipt| sealing.close(terminal, opened.generation, receipt));
            }
            Err(refused) => {
                decision.sequence = Some(refused.sequence);
                decision.verdict = Verdict::Seal(refused.detail);
            }
        }
        Some(decision)
    }

    /// Decides about a record that is open.
    fn decide(&mut self, terminal: &str, input: &Input<'_>, decision: &mut Decision) {
        let Some(memory) = self.partitions.get_mut(&input.partition) else {
            return;
        };
        let (sequence, body) = match verify::verify(input.value) {
            Verified::Record(record) => (record.sequence, Ok(record.body)),
            Verified::Damaged { sequence, detail } => {
                (sequence, Err(Refusal::new(Reason::UNREADABLE, detail)))
            }
            Verified::Foreign { sequence, detail } => {
                decision.sequence = sequence;
                decision.verdict = Verdict::Foreign(detail);
                return;
            }
        };
        decision.sequence = Some(sequence);
        if memory.terminal(terminal).is_none() && memory.len() >= limits::SETTLEMENT_TERMINALS_MAX {
            decision.verdict = Verdict::Foreign(format!(
                "more than {} terminals in one partition; use more partitions",
                limits::SETTLEMENT_TERMINALS_MAX
            ));
            return;
        }
        let memory = memory.terminal_mut(terminal);
        let digest = changelog::digest(input.value);
        match memory.get(sequence).filter(|_| !self.settings.forgetful) {
            Some(settled) if settled.digest == digest => {
                decision.verdict = Verdict::Again;
                decision.receipt = Some(settled.receipt.to_vec());
                decision.time_ms = settled.time_ms;
                decision.number = Receipt::decode(&settled.receipt)
                    .map_or(decision.number, |receipt| receipt.number);
                return;
            }
            Some(_) => {
                decision.verdict = Verdict::Conflict;
                decision.receipt = Some(receipt::conflict(decision, sequence, body.ok().as_ref()));
                return;
            }
            None if sequence < memory.floor() => return,
            None => {}
        }
        let judged = Judged::new(
            &self.policy,
            &self.settings,
            memory,
            input,
            (terminal, sequence),
            body,
        );
        judged.apply(
            memory,
            self.settings.window,
            (terminal, sequence),
            input,
            digest,
            decision,
        );
    }
}
