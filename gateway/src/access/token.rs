//! Tokens: how a terminal or a user proves who it is.
//!
//! Promises: a token that is made here has 130 bits out of the operating system's
//! random source; what is kept of it is its SHA-256, and digests are compared in a
//! time that does not depend on them. Never: a token in a log or in `Debug`.
//!
//! A fast digest is enough: slow ones make the guessing of passwords dear, and 130
//! random bits are beyond guessing at any speed. A slow one at each CONNECT would
//! let anybody who can connect use up the processor.

use risiti_config::TokenDigest;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// Letters and digits that are not taken for each other when somebody reads them
/// out or types them (Crockford's base 32): 5 bits each.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters of a token: 26 times 5 bits. Each is airtime with every CONNECT.
pub const TOKEN_CHARS: usize = 26;

/// A token. Shown to whoever made it, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// The operating system has no random bytes to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0; TOKEN_CHARS];
        getrandom::fill(&mut random)?;
        let letter = |byte: u8| char::from(ALPHABET[usize::from(byte & 31)]);
        Ok(Self(random.into_iter().map(letter).collect()))
    }

    /// The token itself, for the one that is to have it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> TokenDigest {
        digest(self.0.as_bytes())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// The digest of what a client showed.
#[must_use]
pub fn digest(shown: &[u8]) -> TokenDigest {
    TokenDigest(Sha256::digest(shown).into())
}

/// Whether two digests are the same, without telling by its time where they differ.
#[must_use]
pub fn same(one: &TokenDigest, other: &TokenDigest) -> Choice {
    one.0.ct_eq(&other.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_token_has_130_bits_of_which_all_vary() {
        let tokens: Vec<_> = (0..2_000).map(|_| Token::generate().unwrap()).collect();
        let all: HashSet<_> = tokens.iter().map(|t| t.expose().to_owned()).collect();
        assert_eq!(all.len(), tokens.len());
        for place in 0..TOKEN_CHARS {
            let seen: HashSet<u8> = tokens.iter().map(|t| t.0.as_bytes()[place]).collect();
            assert_eq!(seen.len(), 32, "every letter comes at place {place}");
        }
        const { assert!(TOKEN_CHARS * 5 >= 128) };
    }

    #[test]
    fn a_token_is_known_by_its_digest_and_shows_nowhere() {
        let token = Token::generate().unwrap();
        assert_eq!(format!("{token:?}"), "***");
        assert_eq!(digest(token.expose().as_bytes()), token.digest());
        assert!(bool::from(same(&token.digest(), &token.digest())));
        let mut other = token.digest();
        for bit in 0..256 {
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!bool::from(same(&token.digest(), &other)));
            other.0[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
