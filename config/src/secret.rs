//! Passwords and keys that are never shown.
//!
//! Promises: `Debug` prints `***` whatever they hold, there is no `Display`, and they
//! are overwritten when they are dropped. Never: a secret in a log line or an error.

use std::fmt;

use zeroize::Zeroizing;

/// A secret; shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// 32 bytes from 64 hexadecimal digits.
pub(crate) fn from_hex(digits: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | value as u8;
        }
    }
    Some(bytes)
}

/// A key of 32 bytes; shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(Zeroizing<[u8; 32]>);

impl SecretKey {
    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<Self> {
        from_hex(digits).map(Self)
    }

    /// The key itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_hexadecimal_digits() {
        let digits = "00ff".repeat(16);
        let read = from_hex(&digits).map(|key| (key[0], key[1], key[31]));
        assert_eq!(read, Some((0, 0xff, 0xff)));
        for other in [&digits[1..], "", &digits.replace('f', "g"), &"é".repeat(32)] {
            assert!(from_hex(other).is_none(), "{other}");
        }
    }
}
