//! Bytes that were fetched from the modem and not yet taken.
//!
//! Promises: only what the modem has confirmed is handed out; bytes of a fetch
//! that broke off never are. Never: a byte dropped silently.

use crate::limits::MODEM_INBOX_BYTES;

/// Bytes that were fetched from the modem and not yet taken.
pub struct Inbox {
    bytes: [u8; MODEM_INBOX_BYTES],
    /// Taken up to here.
    taken: usize,
    /// Confirmed up to here.
    confirmed: usize,
    /// Fetched up to here.
    fetched: usize,
    /// The fetch under way brought more than there is room for.
    overflowed: bool,
}

impl Inbox {
    pub const fn new() -> Self {
        Self {
            bytes: [0; MODEM_INBOX_BYTES],
            taken: 0,
            confirmed: 0,
            fetched: 0,
            overflowed: false,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.taken = 0;
        self.confirmed = 0;
        self.discard();
    }

    /// A byte of the fetch under way.
    pub fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.fetched) {
            *place = byte;
            self.fetched += 1;
        } else {
            self.overflowed = true;
        }
    }

    /// The fetch is whole: how many bytes it brought. None if they were more than
    /// was asked for.
    pub fn confirm(&mut self) -> Option<usize> {
        let new = self.fetched - self.confirmed;
        self.confirmed = self.fetched;
        (!self.overflowed).then_some(new)
    }

    /// The fetch broke off.
    pub fn discard(&mut self) {
        self.fetched = self.confirmed;
        self.overflowed = false;
    }

    /// Takes the oldest bytes, as many as there are and fit; how many.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        let waiting = self.bytes.get(self.taken..self.confirmed);
        let waiting = waiting.unwrap_or_default();
        let count = waiting.len().min(into.len());
        let (Some(from), Some(to)) = (waiting.get(..count), into.get_mut(..count)) else {
            return 0;
        };
        to.copy_from_slice(from);
        self.taken += count;
        if self.taken == self.fetched {
            self.clear();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_confirmed_bytes_are_taken_and_in_order() {
        let mut inbox = Inbox::new();
        inbox.push(1);
        inbox.push(2);
        let mut into = [0; 8];
        assert_eq!(inbox.take(&mut into), 0);
        assert_eq!(inbox.confirm(), Some(2));
        inbox.push(3);
        inbox.discard();
        assert_eq!(inbox.take(&mut into[..1]), 1);
        assert_eq!(inbox.take(&mut into[1..]), 1);
        assert_eq!(into[..2], [1, 2]);
        assert_eq!(inbox.take(&mut into), 0);
    }

    #[test]
    fn more_than_there_is_room_for_is_no_fetch() {
        let mut inbox = Inbox::new();
        for _ in 0..MODEM_INBOX_BYTES {
            inbox.push(7);
        }
        assert_eq!(inbox.confirm(), Some(MODEM_INBOX_BYTES));
        inbox.push(7);
        assert_eq!(inbox.confirm(), None);
    }
}
