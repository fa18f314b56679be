//! Whether bytes of the records topic are a record of the terminal that they name.
//!
//! Promises: total; whatever the bytes are they get an answer. Never: a look at
//! what was settled before.

use risiti_wire::{Kind, Record, WireError, peek, validate_terminal_id};

/// What the bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified<'a> {
    /// A record.
    Record(Record<'a>),
    /// A record of this number that says what no record may say. No update of
    /// settlement will change that, so its terminal is told.
    Damaged {
        /// Its number.
        sequence: u64,
        /// What is wrong.
        detail: String,
    },
    /// Not a record that this version can judge: nobody is answered, so that a
    /// later version may settle it.
    Foreign {
        /// Its number, if it has one.
        sequence: Option<u64>,
        /// Why.
        detail: String,
    },
}

/// The terminal that a Kafka key names.
///
/// # Errors
/// Why it names none.
pub fn terminal(key: Option<&[u8]>) -> Result<&str, String> {
    let key = key.ok_or("the message has no key")?;
    let id = std::str::from_utf8(key).map_err(|_| "the key is not UTF-8")?;
    validate_terminal_id(id).map_err(|error| format!("the key is no terminal id: {error}"))?;
    Ok(id)
}

/// Judges the bytes that came under a terminal's key, once its seal is opened
/// ([`super::sealing`]). One that is still sealed is foreign: it takes a root.
#[must_use]
pub fn verify(bytes: &[u8]) -> Verified<'_> {
    let header = match peek(bytes) {
        Ok(header) => header,
        Err(error) => {
            return Verified::Foreign {
                sequence: None,
                detail: error.to_string(),
            };
        }
    };
    match Record::decode(bytes) {
        Ok(record) => Verified::Record(record),
        Err(error) => {
            let sequence = header.sequence;
            let is_record = matches!(header.kind, Kind::Payment | Kind::Reversal);
            let detail = error.to_string();
            match error {
                WireError::Sealed => Verified::Foreign {
                    sequence: Some(sequence),
                    detail,
                },
                _ if is_record => Verified::Damaged { sequence, detail },
                _ => Verified::Foreign {
                    sequence: Some(sequence),
                    detail,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_no_terminal_is_told() {
        assert_eq!(terminal(Some(b"t-1")), Ok("t-1"));
        for key in [None, Some(&b""[..]), Some(b"a/b"), Some(b"\xff")] {
            assert!(terminal(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn what_may_be_understood_later_burns_no_number() {
        // Version 2; kind 5; a sealed payment; a receipt.
        for bytes in [
            &b"\x84\x02\x04\x09\x80"[..],
            b"\x84\x01\x14\x09\x80",
            b"\x84\x01\x06\x09\x83\x40\xa0\x41\x00",
            b"\x84\x01\x0c\x09\x80",
            b"rubbish",
            b"",
        ] {
            assert!(
                matches!(verify(bytes), Verified::Foreign { .. }),
                "{bytes:?}"
            );
        }
        // A payment without anything in it will never be one.
        let damaged = verify(b"\x84\x01\x04\x09\x80");
        assert!(matches!(damaged, Verified::Damaged { sequence: 9, .. }));
    }
}
