//! The check of all that is kept in flash, and the repair of one flipped bit.
//!
//! Promises: CRC-32C (RFC 3720, appendix B.4), whose Hamming distance is 6 up to
//! 5,243 bits, more than the longest slot has: with one bit repaired, two to four
//! flipped ones are still seen. Never: a table of a kilobyte.

/// The polynomial, reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// What the lower and the upper half of a byte leave after eight shifts: a
/// compromise between 1 KiB of flash and eight steps a byte.
const HALVES: [[u32; 16]; 2] = [left_by(1), left_by(16)];

const fn left_by(step: u32) -> [u32; 16] {
    let mut table = [0; 16];
    let mut value = 0;
    while value < 16 {
        let mut register = value as u32 * step;
        let mut bit = 0;
        while bit < 8 {
            register = shift(register);
            bit += 1;
        }
        table[value] = register;
        value += 1;
    }
    table
}

const fn shift(register: u32) -> u32 {
    if register & 1 == 1 {
        register >> 1 ^ POLYNOMIAL
    } else {
        register >> 1
    }
}

/// A CRC under way.
#[derive(Clone, Copy)]
pub(crate) struct Check(u32);

impl Check {
    pub(crate) const fn new() -> Self {
        Self(u32::MAX)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let [lower, upper] = &HALVES;
        let mut register = self.0;
        for &byte in bytes {
            let mixed = register as u8 ^ byte;
            register =
                register >> 8 ^ lower[usize::from(mixed & 15)] ^ upper[usize::from(mixed >> 4)];
        }
        self.0 = register;
    }

    pub(crate) const fn finish(self) -> u32 {
        !self.0
    }
}

/// Where the one bit is that makes a stored check differ so from the computed
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flipped {
    /// Counted from the first byte's lowest bit.
    Data(u16),
    /// In the check itself.
    Check,
}

/// The one flipped bit among so many bytes and their check that explains the
/// difference; none if it takes more than one.
pub(crate) fn one_flipped(difference: u32, bytes: u16) -> Option<Flipped> {
    if difference.is_power_of_two() {
        return Some(Flipped::Check);
    }
    // A bit that differs leaves the polynomial, shifted once for each bit after it.
    let mut left = POLYNOMIAL;
    for bit in (0..bytes * 8).rev() {
        if left == difference {
            return Some(Flipped::Data(bit));
        }
        left = shift(left);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u32 {
        let mut check = Check::new();
        check.update(bytes);
        check.finish()
    }

    #[test]
    fn it_is_crc_32c() {
        assert_eq!(of(b"123456789"), 0xE306_9283);
        assert_eq!(of(&[0; 32]), 0x8A91_36AA);
    }

    #[test]
    fn every_single_flip_is_found_and_no_double_one_is_taken_for_it() {
        let mut bytes = *b"0123456789abcdef0123456789abcdef0123456789abcdef";
        let sound = of(&bytes);
        let bits = bytes.len() as u16 * 8;
        for bit in 0..bits {
            bytes[usize::from(bit / 8)] ^= 1 << (bit % 8);
            let flipped = one_flipped(of(&bytes) ^ sound, bytes.len() as u16);
            assert_eq!(flipped, Some(Flipped::Data(bit)));
            for second in 0..bits {
                if second != bit {
                    bytes[usize::from(second / 8)] ^= 1 << (second % 8);
                    assert_eq!(one_flipped(of(&bytes) ^ sound, 48), None);
                    bytes[usize::from(second / 8)] ^= 1 << (second % 8);
                }
            }
            bytes[usize::from(bit / 8)] ^= 1 << (bit % 8);
        }
        for bit in 0..32 {
            assert_eq!(one_flipped(1 << bit, 48), Some(Flipped::Check));
        }
    }
}
