//! What is being typed.
//!
//! Promises: an account has at most the wire's digits, an amount is within the
//! wire's bound; a digit that would pass either is not taken.

use risiti_wire::Account;
use risiti_wire::limits::ACCOUNT_DIGITS_MAX;

/// The digits of an account.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digits {
    digits: [u8; ACCOUNT_DIGITS_MAX],
    len: u8,
}

impl Digits {
    pub(super) const EMPTY: Self = Self {
        digits: [0; ACCOUNT_DIGITS_MAX],
        len: 0,
    };

    pub(super) fn push(&mut self, digit: u8) {
        if let Some(place) = self.digits.get_mut(usize::from(self.len)) {
            *place = b'0' + digit % 10;
            self.len += 1;
        }
    }

    /// Takes the last digit back; whether there was one.
    pub(super) fn pop(&mut self) -> bool {
        let any = self.len > 0;
        self.len = self.len.saturating_sub(1);
        any
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.digits.get(..self.len.into()).unwrap_or_default()
    }

    /// The account; none without a digit.
    pub(super) fn account(&self) -> Option<Account> {
        let digits = core::str::from_utf8(self.bytes()).ok()?;
        Account::new(digits).ok()
    }
}

/// An amount with one more digit at its end, if it may be that large.
pub(super) fn with_digit(amount_minor: u32, digit: u8) -> u32 {
    amount_minor
        .checked_mul(10)
        .and_then(|amount| amount.checked_add(u32::from(digit % 10)))
        .unwrap_or(amount_minor)
}
