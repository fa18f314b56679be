//! Texts in the printer's code page.
//!
//! Promises: one byte a character, and none that commands a printer. ASCII is
//! printed as it is; Latin-1 and the euro sign by code page 858, which nearly
//! every ESC/POS printer has; typographic quotes and dashes as their ASCII
//! sisters; all else as `?`. Never: a guess at a script that the printer's fonts
//! don't hold.

use super::line::Line;

/// Code page 858, by its number in `ESC t`.
pub(super) const CODE_PAGE: u8 = 19;

/// U+00A0 to U+00FF in code page 858.
const LATIN_1: [u8; 96] = [
    0xFF, 0xAD, 0xBD, 0x9C, 0xCF, 0xBE, 0xDD, 0xF5, 0xF9, 0xB8, 0xA6, 0xAE, //
    0xAA, 0xF0, 0xA9, 0xEE, 0xF8, 0xF1, 0xFD, 0xFC, 0xEF, 0xE6, 0xF4, 0xFA, //
    0xF7, 0xFB, 0xA7, 0xAF, 0xAC, 0xAB, 0xF3, 0xA8, 0xB7, 0xB5, 0xB6, 0xC7, //
    0x8E, 0x8F, 0x92, 0x80, 0xD4, 0x90, 0xD2, 0xD3, 0xDE, 0xD6, 0xD7, 0xD8, //
    0xD1, 0xA5, 0xE3, 0xE0, 0xE2, 0xE5, 0x99, 0x9E, 0x9D, 0xEB, 0xE9, 0xEA, //
    0x9A, 0xED, 0xE8, 0xE1, 0x85, 0xA0, 0x83, 0xC6, 0x84, 0x86, 0x91, 0x87, //
    0x8A, 0x82, 0x88, 0x89, 0x8D, 0xA1, 0x8C, 0x8B, 0xD0, 0xA4, 0x95, 0xA2, //
    0x93, 0xE4, 0x94, 0xF6, 0x9B, 0x97, 0xA3, 0x96, 0x81, 0xEC, 0xE7, 0x98, //
];

/// The byte that prints a character.
fn printed(character: char) -> u8 {
    match character {
        ' '..='~' => character as u8,
        '\u{A0}'..='\u{FF}' => LATIN_1
            .get(character as usize - 0xA0)
            .copied()
            .unwrap_or(b'?'),
        '€' => 0xD5,
        '\u{2018}' | '\u{2019}' => b'\'',
        '\u{201C}' | '\u{201D}' => b'"',
        '\u{2010}'..='\u{2014}' => b'-',
        _ => b'?',
    }
}

impl Line<'_> {
    /// A text in the printer's code page.
    pub(super) fn printable(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            self.byte(printed(character));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_print_as_one_byte() {
        let mut room = [0; 16];
        let mut line = Line::new(&mut room);
        line.printable("Año é€’–ÿ\u{A0}漢");
        let len = line.len();
        assert_eq!(room.get(..len), Some(&b"A\xA4o \x82\xD5'-\x98\xFF?"[..]));
    }

    #[test]
    fn nothing_commands_the_printer() {
        let control = |byte: u8| byte < b' ' || byte == 0x7F;
        assert!(
            !(0..=0x30_00)
                .filter_map(char::from_u32)
                .any(|c| control(printed(c)))
        );
    }
}
