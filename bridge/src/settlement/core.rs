//! What settlement decides: one record in, what is to be written out.
//!
//! Promises: a number is settled once; its resend gets the first receipt again,
//! byte for byte, and changes nothing; other content under a settled number is
//! refused. The same records in the same order give the same decisions: number and
//! time of a receipt come from the record's place and time in Kafka. Never: a
//! clock, a socket, a random source, or a record that stops those behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use risiti_wire::limits::RECEIPT_BYTES_MAX;
use risiti_wire::{Currency, Lines, Payment, Reason, Receipt, RecordBody, Status};

use super::changelog;
use super::memory::{Kind, Partition, Row, Settled, Terminal};
use super::rules::{Case, Original, Refusal, Rule};
use super::verify::{self, Verified};
use crate::limits;

/// On the receipt of a record whose number is settled with other content.
pub const CONFLICT: u16 = 8;

/// In the rejected topic: the number is below the window.
pub const TOO_OLD: u16 = 9;

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
    /// For the negative control of G2 only: remembers nothing, so that a resend is
    /// settled again.
    pub forgetful: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: 512,
            utc_offset_minutes: 0,
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

/// The number of a receipt, from its record's place in Kafka: unique, above 0, and
/// the same whenever the record is read.
#[must_use]
pub fn receipt_number(partition: i32, offset: i64) -> u64 {
    let places = u64::from(limits::SETTLEMENT_PARTITIONS_MAX.unsigned_abs());
    offset
        .unsigned_abs()
        .saturating_mul(places)
        .saturating_add(u64::from(partition.unsigned_abs()) + 1)
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
    pub fn settle(&mut self, input: &Input<'_>) -> Option<Decision> {
        let memory = self.partitions.get_mut(&input.partition)?;
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
        let (sequence, body) = match verify::verify(terminal, input.value) {
            Verified::Record(record) => (record.sequence, Ok(record.body)),
            Verified::Damaged { sequence, detail } => {
                (sequence, Err(Refusal::new(Reason::UNREADABLE, detail)))
            }
            Verified::Foreign { sequence, detail } => {
                decision.sequence = sequence;
                decision.verdict = Verdict::Foreign(detail);
                return Some(decision);
            }
        };
        decision.sequence = Some(sequence);
        if memory.terminal(terminal).is_none() && memory.len() >= limits::SETTLEMENT_TERMINALS_MAX {
            decision.verdict = Verdict::Foreign(format!(
                "more than {} terminals in one partition; use more partitions",
                limits::SETTLEMENT_TERMINALS_MAX
            ));
            return Some(decision);
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
                return Some(decision);
            }
            Some(_) => {
                decision.verdict = Verdict::Conflict;
                decision.receipt = Some(conflict(&decision, sequence, body.ok().as_ref()));
                return Some(decision);
            }
            None if sequence < memory.floor() => return Some(decision),
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
            &mut decision,
        );
        Some(decision)
    }
}

/// The receipt for a record whose number is settled with other content. It says
/// that *this* payment does not count; a terminal whose counter was set back must
/// not wait for ever. The first receipt stays what it is.
fn conflict(decision: &Decision, sequence: u64, body: Option<&RecordBody<'_>>) -> Vec<u8> {
    let (amount_minor, currency) = match body {
        Some(RecordBody::Payment(payment)) => (payment.amount_minor, payment.currency.code()),
        _ => (0, Currency::NONE.code()),
    };
    write_receipt(decision, sequence, CONFLICT, amount_minor, currency, None)
}

fn write_receipt(
    decision: &Decision,
    sequence: u64,
    status: u16,
    amount_minor: u64,
    currency: u16,
    bank_reference: Option<&str>,
) -> Vec<u8> {
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    let mut receipt = Receipt {
        sequence,
        number: decision.number,
        status: Reason::new(status).map_or(Status::Accepted, Status::Rejected),
        time_s: u32::try_from(decision.time_ms / 1_000).unwrap_or(u32::MAX),
        amount_minor,
        currency: Currency::new(currency).unwrap_or(Currency::NONE),
        bank_reference,
        lines: Lines::default(),
    };
    if let Ok(bytes) = receipt.encode(&mut buffer) {
        return bytes.to_vec();
    }
    // All that can be out of bounds is a reference that the bank's function gave.
    receipt.bank_reference = None;
    receipt
        .encode(&mut buffer)
        .map(<[u8]>::to_vec)
        .expect("number, amount and currency come from a decoded record")
}

/// What the rules said of a record.
struct Judged {
    kind: Kind,
    amount_minor: u64,
    currency: u16,
    day: u32,
    outcome: Result<Transaction, Refusal>,
}

impl Judged {
    fn new(
        policy: &Policy,
        settings: &Settings,
        memory: &Terminal,
        input: &Input<'_>,
        (terminal, sequence): (&str, u64),
        body: Result<RecordBody<'_>, Refusal>,
    ) -> Self {
        let day = memory
            .totals()
            .counted_day(day(input.time_ms, settings.utc_offset_minutes));
        let body = match body {
            Ok(body) => body,
            Err(refusal) => {
                return Self {
                    kind: Kind::Unreadable,
                    amount_minor: 0,
                    currency: Currency::NONE.code(),
                    day,
                    outcome: Err(refusal),
                };
            }
        };
        let (kind, original, amount_minor, currency) = match &body {
            RecordBody::Payment(payment) => (
                Kind::Payment,
                None,
                payment.amount_minor,
                payment.currency.code(),
            ),
            RecordBody::Reversal(reversal) => {
                let original = memory.get(reversal.reverses).map(original);
                let (amount, currency) = original
                    .as_ref()
                    .map_or((0, Currency::NONE.code()), |o| (o.amount_minor, o.currency));
                let reverses = reversal.reverses;
                (Kind::Reversal { reverses }, original, amount, currency)
            }
        };
        let case = Case {
            terminal,
            sequence,
            time_ms: input.time_ms,
            day,
            body: &body,
            day_sum_minor: memory.totals().sum_minor(day, currency),
            original,
        };
        let outcome = within_bounds(&case, memory, currency)
            .and_then(|()| policy.rules.iter().try_for_each(|rule| rule(&case)))
            .map(|()| transaction(policy, &case, kind, amount_minor, currency));
        Self {
            kind,
            amount_minor,
            currency,
            day,
            outcome,
        }
    }

    fn apply(
        self,
        memory: &mut Terminal,
        window: usize,
        (terminal, sequence): (&str, u64),
        input: &Input<'_>,
        digest: [u8; 16],
        decision: &mut Decision,
    ) {
        let (status, bank_reference) = match &self.outcome {
            Ok(transaction) => (0, transaction.bank_reference.as_deref()),
            Err(refusal) => (refusal.reason.code(), None),
        };
        let receipt = write_receipt(
            decision,
            sequence,
            status,
            self.amount_minor,
            self.currency,
            bank_reference,
        );
        let settled = Settled {
            offset: input.offset,
            time_ms: input.time_ms,
            digest,
            status,
            kind: self.kind,
            amount_minor: self.amount_minor,
            currency: self.currency,
            day: self.day,
            receipt: receipt.clone().into(),
            reversed: false,
        };
        let forgotten = memory.settle(sequence, settled.clone(), window);
        let row = Row {
            settled,
            floor: memory.floor(),
            totals: memory.totals().clone(),
        };
        decision.changelog.push((
            changelog::key(terminal, sequence),
            Some(changelog::encode(&row)),
        ));
        for forgotten in forgotten {
            decision
                .changelog
                .push((changelog::key(terminal, forgotten), None));
        }
        decision.receipt = Some(receipt);
        decision.verdict = match self.outcome {
            Ok(transaction) => Verdict::Accepted(transaction),
            Err(refusal) => Verdict::Refused(refusal),
        };
    }
}

/// What no bank's rules need to say.
fn within_bounds(case: &Case<'_>, memory: &Terminal, currency: u16) -> Result<(), Refusal> {
    let is_payment = matches!(case.body, RecordBody::Payment(_));
    let is_new = case.day_sum_minor == 0;
    if is_payment
        && is_new
        && memory.totals().currencies(case.day) >= limits::SETTLEMENT_CURRENCIES_MAX
    {
        return Err(Refusal::new(
            Reason::CURRENCY,
            format!(
                "{currency} is one more than the {} currencies of a terminal and day",
                limits::SETTLEMENT_CURRENCIES_MAX
            ),
        ));
    }
    Ok(())
}

fn transaction(
    policy: &Policy,
    case: &Case<'_>,
    kind: Kind,
    amount_minor: u64,
    currency: u16,
) -> Transaction {
    let bank_reference = policy.bank_reference.as_ref().and_then(|name| name(case));
    let base = Transaction {
        kind,
        account: None,
        amount_minor,
        currency,
        reference: None,
        terminal_time_s: 0,
        day: case.day,
        bank_reference,
    };
    match case.body {
        RecordBody::Payment(Payment {
            time_s,
            account,
            reference,
            ..
        }) => Transaction {
            account: Some(account.to_string()),
            reference: reference.map(str::to_owned),
            terminal_time_s: *time_s,
            ..base
        },
        RecordBody::Reversal(reversal) => Transaction {
            terminal_time_s: reversal.time_s,
            ..base
        },
    }
}

fn original(settled: &Settled) -> Original {
    Original {
        is_payment: settled.kind == Kind::Payment,
        accepted: settled.status == 0,
        reversed: settled.reversed,
        amount_minor: settled.amount_minor,
        currency: settled.currency,
    }
}

/// Days since 1970, of a place that is that many minutes ahead of UTC.
fn day(time_ms: u64, utc_offset_minutes: i32) -> u32 {
    let local_ms = i128::from(time_ms) + i128::from(utc_offset_minutes) * 60_000;
    u32::try_from((local_ms / 86_400_000).max(0)).unwrap_or(u32::MAX)
}
