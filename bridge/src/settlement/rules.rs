//! What a payment has to fulfil: rules as functions, and those that come with it.
//!
//! Promises: a rule sees what was settled before it and nothing that follows; a
//! record that a rule refuses is answered with the reason and changes no sum.
//! Never: a clock, a random source or the network in a rule; the same records must
//! give the same receipts on every instance and after every restart.
//!
//! A bank adds its own as closures; `bridge/examples/own_rules.rs` is a whole
//! program with one:
//!
//! ```
//! use std::sync::Arc;
//! use risiti_bridge::settlement::rules::{self, Case, Refusal, Rule};
//! use risiti_wire::{Reason, RecordBody};
//!
//! fn only_shillings(case: &Case<'_>) -> Result<(), Refusal> {
//!     match case.body {
//!         RecordBody::Payment(payment) if payment.currency.code() != 404 => Err(Refusal {
//!             reason: Reason::CURRENCY,
//!             detail: "this branch takes KES only".into(),
//!         }),
//!         _ => Ok(()),
//!     }
//! }
//! let rules: Vec<Rule> = vec![
//!     rules::reversal_linked(),
//!     rules::payment_max(50_000_00),
//!     Arc::new(only_shillings),
//! ];
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use risiti_wire::card::is_card_number;
use risiti_wire::{Account, Reason, RecordBody};

/// A record to be judged, with what is known of its terminal.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The terminal.
    pub terminal: &'a str,
    /// The record's number.
    pub sequence: u64,
    /// When it came to Kafka, Unix milliseconds: the time of its receipt.
    pub time_ms: u64,
    /// The day to which it counts, in days since 1970, local time.
    pub day: u32,
    /// What it says.
    pub body: &'a RecordBody<'a>,
    /// For a payment: the sum of the terminal's accepted payments of that day in
    /// this currency, less those taken back, in minor units.
    pub day_sum_minor: u64,
    /// For a reversal: what was settled under the number that it names, if that is
    /// still remembered.
    pub original: Option<Original>,
}

/// What a reversal names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// Whether it is a payment.
    pub is_payment: bool,
    /// Whether it was accepted.
    pub accepted: bool,
    /// Whether it was taken back before.
    pub reversed: bool,
    /// Its amount in minor units.
    pub amount_minor: u64,
    /// Its currency, ISO 4217 numeric.
    pub currency: u16,
}

/// Why a rule refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For the terminal, on the receipt.
    pub reason: Reason,
    /// For people, on the rejected topic.
    pub detail: String,
}

impl Refusal {
    /// A refusal with this reason and words.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// A rule. The first that refuses decides.
pub type Rule = Arc<dyn Fn(&Case<'_>) -> Result<(), Refusal> + Send + Sync>;

/// No payment above this amount, in minor units of whatever currency.
#[must_use]
pub fn payment_max(max_minor: u64) -> Rule {
    Arc::new(move |case| match case.body {
        RecordBody::Payment(payment) if payment.amount_minor > max_minor => Err(Refusal::new(
            Reason::LIMIT,
            format!(
                "{} is above {max_minor}, the most at once",
                payment.amount_minor
            ),
        )),
        _ => Ok(()),
    })
}

/// No more than this in a day, for each terminal and currency, in minor units.
#[must_use]
pub fn day_max(max_minor: u64) -> Rule {
    Arc::new(move |case| match case.body {
        RecordBody::Payment(payment)
            if case.day_sum_minor.saturating_add(payment.amount_minor) > max_minor =>
        {
            Err(Refusal::new(
                Reason::LIMIT,
                format!(
                    "{} and {} of this day before are above {max_minor}, the most in a day",
                    payment.amount_minor, case.day_sum_minor
                ),
            ))
        }
        _ => Ok(()),
    })
}

/// Only these accounts.
#[must_use]
pub fn known_account(accounts: HashSet<Account>) -> Rule {
    Arc::new(move |case| match case.body {
        RecordBody::Payment(payment) if !accounts.contains(&payment.account) => Err(Refusal::new(
            Reason::ACCOUNT,
            format!("there is no account {}", payment.account),
        )),
        _ => Ok(()),
    })
}

/// No number of a payment card as an account: Risiti is no place for one. The words
/// name only its last digits (PCI DSS 4.0, requirement 3.4).
#[must_use]
pub fn no_card_number() -> Rule {
    Arc::new(|case| {
        let RecordBody::Payment(payment) = case.body else {
            return Ok(());
        };
        let account = payment.account.to_string();
        if !is_card_number(account.as_bytes()) {
            return Ok(());
        }
        let last = account.get(account.len().saturating_sub(4)..);
        Err(Refusal::new(
            Reason::ACCOUNT,
            format!(
                "the account, which ends in {}, looks like the number of a payment card",
                last.unwrap_or_default()
            ),
        ))
    })
}

/// A reversal takes back a payment of the same terminal that was accepted, is
/// still remembered and was not taken back before.
#[must_use]
pub fn reversal_linked() -> Rule {
    Arc::new(|case| {
        let RecordBody::Reversal(reversal) = case.body else {
            return Ok(());
        };
        let wrong = match case.original {
            None => "is not known",
            Some(original) if !original.is_payment => "is no payment",
            Some(original) if !original.accepted => "was not accepted",
            Some(original) if original.reversed => "was taken back before",
            Some(_) => return Ok(()),
        };
        Err(Refusal::new(
            Reason::REVERSAL,
            format!("number {} {wrong}", reversal.reverses),
        ))
    })
}
