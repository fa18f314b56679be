//! What becomes of a number that is new: the rules are asked, and the answer is
//! remembered.
//!
//! Promises: an answer, whatever the rules say; what is remembered and what is
//! written to the changelog are the same. Never: a change before all is decided.

use risiti_wire::{Currency, Payment, Reason, RecordBody};

use super::changelog;
use super::core::{Decision, Input, Policy, Settings, Transaction, Verdict};
use super::memory::{Kind, Row, Settled, Terminal};
use super::receipt;
use super::rules::{Case, Original, Refusal};
use crate::limits;

/// What the rules said of a record.
pub(super) struct Judged {
    kind: Kind,
    amount_minor: u64,
    currency: u16,
    day: u32,
    outcome: Result<Transaction, Refusal>,
}

impl Judged {
    /// Asks the rules.
    pub(super) fn new(
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

    /// Remembers it, and completes the decision.
    pub(super) fn apply(
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
        let receipt = receipt::write(
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
        let forgotten = memory.settle(sequence, settled, window);
        if let Some((carrier, settled)) = memory.carrier(sequence) {
            let row = Row {
                settled: settled.clone(),
                floor: memory.floor(),
                totals: memory.totals().clone(),
            };
            decision.changelog.push((
                changelog::key(terminal, carrier),
                Some(changelog::encode(&row)),
            ));
        }
        // One that was forgotten at once has no row to delete.
        for forgotten in forgotten.into_iter().filter(|one| *one != sequence) {
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

#[cfg(test)]
mod tests;
