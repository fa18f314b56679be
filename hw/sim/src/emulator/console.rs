//! Screens from the console's line, as `hw/boards/mps2-an386/src/console.rs` has
//! them. Keys are [`console_byte`](crate::operator::console_byte).

use risiti_terminal::hardware::Screen;
use risiti_terminal::limits::{SCREEN_COLUMNS, SCREEN_ROWS};

/// A screen begins with a form feed.
const BEGIN: u8 = 0x0C;

/// Puts screens together from the bytes of the line.
#[derive(Debug)]
pub struct ScreenReader {
    screen: Screen,
    /// Characters of the screen that have come; none before a form feed.
    at: Option<usize>,
}

impl Default for ScreenReader {
    /// Before the first byte.
    fn default() -> Self {
        Self {
            screen: Screen([[b' '; SCREEN_COLUMNS]; SCREEN_ROWS]),
            at: None,
        }
    }
}

impl ScreenReader {
    /// Takes the next byte; the screen that it completes.
    pub fn take(&mut self, byte: u8) -> Option<Screen> {
        if byte == BEGIN {
            self.at = Some(0);
            return None;
        }
        // Ends of rows are for people who look at the line itself.
        if byte == b'\r' || byte == b'\n' {
            return None;
        }
        let at = self.at?;
        self.screen.0[at / SCREEN_COLUMNS][at % SCREEN_COLUMNS] = byte;
        if at + 1 < SCREEN_COLUMNS * SCREEN_ROWS {
            self.at = Some(at + 1);
            return None;
        }
        self.at = None;
        Some(self.screen)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_screen_is_read_whole_or_not_at_all() {
        let mut row = [b' '; SCREEN_COLUMNS];
        row[..5].copy_from_slice(b"SAVED");
        let mut sent = vec![BEGIN];
        sent.extend_from_slice(b"torn by a reset");
        sent.push(BEGIN);
        for _ in 0..SCREEN_ROWS {
            sent.extend_from_slice(&row);
            sent.extend_from_slice(b"\r\n");
        }
        let mut reader = ScreenReader::default();
        let screens: Vec<Screen> = sent.into_iter().filter_map(|b| reader.take(b)).collect();
        assert_eq!(screens, [Screen([row; SCREEN_ROWS])]);
    }
}
