//! Terminal ids.
//!
//! Promises: a valid id is safe in an MQTT topic, a Kafka key, a file name and a
//! log line. Never: knowledge of which ids exist.

use crate::error::{Field, WireError};
use crate::limits::TERMINAL_ID_BYTES_MAX;

/// Checks a terminal id: `[A-Za-z0-9_-]{1,23}`.
///
/// # Errors
/// `OutOfRange` for its length, `BadText` for another character.
pub fn validate_terminal_id(id: &str) -> Result<(), WireError> {
    if !(1..=TERMINAL_ID_BYTES_MAX).contains(&id.len()) {
        Err(WireError::OutOfRange(Field::TerminalId))
    } else if id
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    {
        Ok(())
    } else {
        Err(WireError::BadText(Field::TerminalId))
    }
}
