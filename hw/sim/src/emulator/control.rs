//! The control line, as `hw/boards/mps2-an386/src/control.rs` has it.

/// What the board says on its control line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It asks for the battery's voltage; answer with [`millivolts`].
    HowMuch,
    /// It wants random bytes; answer with 32.
    HowRandom,
    /// The modem's power key is driven high.
    KeyHigh,
    /// The modem's power key is driven low.
    KeyLow,
    /// The image has panicked in this line of one of its sources, or in 0 by a
    /// fault of the processor; it starts anew by itself.
    Panicked(u32),
}

/// Reads the board's side of the line.
#[derive(Debug, Default)]
pub struct ControlReader {
    /// The digits of a panic so far.
    line: Option<u32>,
}

impl ControlReader {
    /// Takes the next byte.
    pub fn take(&mut self, byte: u8) -> Option<Said> {
        match (byte, self.line) {
            (b'?', _) => Some(Said::HowMuch),
            (b'R', _) => Some(Said::HowRandom),
            (b'K', _) => Some(Said::KeyHigh),
            (b'k', _) => Some(Said::KeyLow),
            (b'!', _) => {
                self.line = Some(0);
                None
            }
            (b'0'..=b'9', Some(line)) => {
                let digit = u32::from(byte - b'0');
                self.line = Some(line.saturating_mul(10).saturating_add(digit));
                None
            }
            (_, Some(line)) => {
                self.line = None;
                Some(Said::Panicked(line))
            }
            _ => None,
        }
    }
}

/// Bytes of the answer to [`Said::HowRandom`].
pub const RANDOM_BYTES: usize = 32;

/// The answer to [`Said::HowMuch`].
#[must_use]
pub fn millivolts(millivolts: u16) -> Vec<u8> {
    format!("{millivolts}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_board_says_is_understood() {
        let mut reader = ControlReader::default();
        let said: Vec<Said> = b"?KR!00217\nk"
            .iter()
            .filter_map(|&b| reader.take(b))
            .collect();
        let all = [
            Said::HowMuch,
            Said::KeyHigh,
            Said::HowRandom,
            Said::Panicked(217),
            Said::KeyLow,
        ];
        assert_eq!(said, all);
        assert_eq!(millivolts(3812), b"3812\n");
    }
}
