//! Accounts and currencies.
//!
//! Promises: a value of these types is within its bounds. Never: arithmetic;
//! amounts are counted by settlement.

use core::fmt::{self, Write};

use crate::error::{Field, WireError};
use crate::limits::{ACCOUNT_DIGITS_MAX, CURRENCY_MAX};

/// An account: 1 to 18 decimal digits, leading zeros included.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account {
    /// The digits with a 1 before them.
    marked: u64,
}

impl Account {
    /// An account from its digits.
    ///
    /// # Errors
    /// `OutOfRange` unless there are 1 to 18, and nothing but digits.
    pub fn new(digits: &str) -> Result<Self, WireError> {
        let fits = (1..=ACCOUNT_DIGITS_MAX).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !fits {
            return Err(WireError::OutOfRange(Field::Account));
        }
        let marked = digits
            .bytes()
            .fold(1, |marked, digit| marked * 10 + u64::from(digit - b'0'));
        Ok(Self { marked })
    }

    pub(crate) fn from_marked(marked: u64) -> Result<Self, WireError> {
        let digits = marked.checked_ilog10().unwrap_or(0);
        let in_range = (1..=ACCOUNT_DIGITS_MAX).contains(&(digits as usize));
        if in_range && marked / 10_u64.pow(digits) == 1 {
            Ok(Self { marked })
        } else {
            Err(WireError::OutOfRange(Field::Account))
        }
    }

    pub(crate) fn marked(self) -> u64 {
        self.marked
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.marked.ilog10();
        for place in (0..digits).rev() {
            let digit = self.marked / 10_u64.pow(place) % 10;
            f.write_char(char::from(b'0' + digit as u8))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({self})")
    }
}

/// A currency by its numeric code in ISO 4217: 404 is KES, 800 UGX, 999 none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(u16);

impl Currency {
    /// No currency (XXX), on the receipt of a record that could not be read.
    pub const NONE: Self = Self(999);

    /// A currency from its code.
    ///
    /// # Errors
    /// `OutOfRange` unless the code is from 1 to 999.
    pub fn new(code: u16) -> Result<Self, WireError> {
        if (1..=CURRENCY_MAX).contains(&code) {
            Ok(Self(code))
        } else {
            Err(WireError::OutOfRange(Field::Currency))
        }
    }

    /// The code.
    #[must_use]
    pub fn code(self) -> u16 {
        self.0
    }
}
