//! A line of text for a screen or a paper, made without `core::fmt`.
//!
//! Promises: what does not fit is left out, never written elsewhere. Never: a
//! panic, or a division of 64 bits, which a Cortex-M does in software.

/// Digits of the largest `u64`.
const DIGITS_MAX: usize = 20;

/// A line that is being written into the room that was lent for it.
pub(crate) struct Line<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl<'a> Line<'a> {
    pub(crate) fn new(room: &'a mut [u8]) -> Self {
        Self { room, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn byte(&mut self, byte: u8) -> &mut Self {
        if let Some(place) = self.room.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            self.byte(*byte);
        }
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.digits(number, 1)
    }

    /// A number with zeros before it, to at least so many digits.
    pub(crate) fn digits(&mut self, number: u64, digits_min: usize) -> &mut Self {
        let mut digits = [b'0'; DIGITS_MAX];
        let mut first = DIGITS_MAX;
        let mut rest = number;
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            if rest == 0 && DIGITS_MAX - first >= digits_min {
                break;
            }
            let (tenth, last) = tenth(rest);
            *digit = b'0' + last;
            rest = tenth;
            first = place;
        }
        self.bytes(digits.get(first..).unwrap_or_default())
    }

    /// Moves what was written from `start` on to the right end of the room.
    pub(crate) fn push_right(&mut self, start: usize) {
        let mut to = self.room.len();
        for from in (start..self.len).rev() {
            to = to.saturating_sub(1);
            let byte = self.room.get(from).copied().unwrap_or(b' ');
            if let Some(place) = self.room.get_mut(to) {
                *place = byte;
            }
        }
        for place in self.room.get_mut(start..to).unwrap_or_default() {
            *place = b' ';
        }
        self.len = self.room.len();
    }
}

/// A tenth of a number and the digit that is left, in steps of 16 bits.
fn tenth(number: u64) -> (u64, u8) {
    let mut tenth = 0;
    let mut rest = 0_u32;
    for shift in [48, 32, 16, 0] {
        let part = rest << 16 | u32::from((number >> shift) as u16);
        tenth |= u64::from(part / 10) << shift;
        rest = part % 10;
    }
    (tenth, rest as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Line<'_>)) -> ([u8; 24], usize) {
        let mut room = [b'~'; 24];
        let mut line = Line::new(&mut room);
        write(&mut line);
        let len = line.len();
        (room, len)
    }

    #[test]
    fn numbers_are_written_to_the_last_digit() {
        for (number, expected) in [
            (0, "0"),
            (9, "9"),
            (10, "10"),
            (65_536, "65536"),
            (4_294_967_296, "4294967296"),
            (u64::MAX, "18446744073709551615"),
        ] {
            let (room, len) = written(|line| {
                line.number(number);
            });
            assert_eq!(room.get(..len), Some(expected.as_bytes()));
        }
    }

    #[test]
    fn zeros_fill_a_number_up() {
        let (room, len) = written(|line| {
            line.digits(7, 2).digits(123, 2).digits(0, 3);
        });
        assert_eq!(room.get(..len), Some(&b"07123000"[..]));
    }

    #[test]
    fn a_value_goes_to_the_right() {
        let (room, len) = written(|line| {
            line.text("LABEL");
            let start = line.len();
            line.number(42).push_right(start);
        });
        assert_eq!(len, 24);
        assert_eq!(&room, b"LABEL                 42");
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let (room, len) = written(|line| {
            line.text("0123456789")
                .text("0123456789")
                .text("0123456789");
        });
        assert_eq!(len, 24);
        assert_eq!(&room, b"012345678901234567890123");
    }
}
