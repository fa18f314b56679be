//! Seals of what leaves and of what comes.
//!
//! Promises: with keys, a record leaves sealed, and the same record always as the same
//! bytes; a receipt counts only if settlement sealed it for this terminal. Never: a
//! receipt that is open, or another's, taken for want of a better one; anything at all
//! while a terminal that is to make its own keys has none.

use risiti_wire::seal::{self, Direction, SealError};

use crate::settings::Settings;

/// What came as a receipt.
#[derive(Clone, Copy)]
pub(super) enum Came<'a> {
    /// Its message, open. Without keys that is what came.
    Open(&'a [u8]),
    /// Of a version that is not known here: a later firmware may read it.
    Unreadable,
    /// Sealed for other keys of this terminal: older or newer ones.
    Stranger,
    /// Not sealed by settlement, or not for this terminal, or changed.
    Forged,
}

/// A record as it goes on the air. None: it is no record, and can't be sealed.
pub(super) fn record<'a>(
    settings: &Settings<'_>,
    open: &'a [u8],
    into: &'a mut [u8],
) -> Option<&'a [u8]> {
    let Some(keys) = &settings.seal else {
        return settings.own_keys.is_none().then_some(open);
    };
    let key = keys.key(Direction::Up).ok()?;
    seal::seal(&key, settings.id, open, into).ok()
}

/// What a receipt says.
pub(super) fn receipt<'a>(
    settings: &Settings<'_>,
    payload: &'a [u8],
    into: &'a mut [u8],
) -> Came<'a> {
    let Some(keys) = &settings.seal else {
        return match settings.own_keys {
            None => Came::Open(payload),
            Some(_) => Came::Stranger,
        };
    };
    let opened = keys
        .key(Direction::Down)
        .map_err(SealError::Wire)
        .and_then(|key| seal::open(&key, settings.id, payload, into));
    match opened {
        Ok(message) => Came::Open(message),
        Err(SealError::Wire(_)) => Came::Unreadable,
        Err(SealError::OtherGeneration(_)) => Came::Stranger,
        Err(_) => Came::Forged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_is_to_make_its_keys_sends_and_believes_nothing_without_them() {
        let open = Settings::default();
        assert_eq!(record(&open, b"record", &mut []), Some(&b"record"[..]));
        assert!(matches!(receipt(&open, b"r", &mut []), Came::Open(b"r")));
        let own = Settings {
            own_keys: Some(1),
            ..open
        };
        assert_eq!(record(&own, b"record", &mut []), None);
        assert!(matches!(receipt(&own, b"r", &mut []), Came::Stranger));
    }
}
