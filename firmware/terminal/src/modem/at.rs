//! What a modem says, byte by byte, cut into lines, prompts and data.
//!
//! Promises: after rubbish of any length the next whole line is read; data are
//! passed on as they are. Never: more memory than one line, or a meaning; that
//! is `said`'s.

use crate::limits::AT_LINE_BYTES_MAX;

/// What a byte completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// A line that is not empty: [`Reader::line`].
    Line,
    /// `>` where a line would begin: the modem takes the bytes to send.
    Prompt,
    /// One byte of the data announced by [`Reader::expect_data`].
    Data(u8),
    /// The data do not end where they should: bytes were lost on the serial line.
    Torn,
}

/// Cuts a modem's bytes into tokens.
pub struct Reader {
    line: [u8; AT_LINE_BYTES_MAX],
    len: usize,
    /// The line was told; the next byte begins another.
    told: bool,
    data_bytes: usize,
    /// What is yet to come of the line end that follows data, be there `OK` or a
    /// code behind (ITU-T V.250, 5.7.1).
    data_end: &'static [u8],
}

impl Reader {
    /// A reader at the beginning of a line.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            line: [0; AT_LINE_BYTES_MAX],
            len: 0,
            told: false,
            data_bytes: 0,
            data_end: &[],
        }
    }

    /// Takes the next byte.
    pub fn push(&mut self, byte: u8) -> Option<Token> {
        if self.data_bytes > 0 {
            self.data_bytes -= 1;
            if self.data_bytes == 0 {
                self.data_end = b"\r\n";
            }
            return Some(Token::Data(byte));
        }
        if let Some((expected, rest)) = self.data_end.split_first() {
            self.data_end = rest;
            if byte != *expected {
                self.data_end = &[];
                return Some(Token::Torn);
            }
            return None;
        }
        if self.told {
            self.told = false;
            self.len = 0;
        }
        match byte {
            b'\r' | b'\n' if self.len == 0 => None,
            // Only a line feed ends a line: an echo ends with a carriage return
            // that an unsolicited code may follow, and is no line of its own.
            b'\n' => {
                self.told = true;
                Some(Token::Line)
            }
            b'>' if self.len == 0 => Some(Token::Prompt),
            b' ' if self.len == 0 => None,
            // What comes out of a modem while its supply rises, or at a wrong
            // speed, must not spoil the line behind it.
            b' '..=b'~' => {
                // An overlong line is an echo or a code that nobody waits for:
                // what we match fits, so its beginning will do.
                if let Some(end) = self.line.get_mut(self.len) {
                    *end = byte;
                    self.len += 1;
                }
                None
            }
            _ => None,
        }
    }

    /// The line that was told last, without its end.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        self.line.get(..self.len).unwrap_or_default()
    }

    /// So many bytes follow that are data.
    pub fn expect_data(&mut self, bytes: usize) {
        self.data_bytes = bytes;
    }

    /// Expects no data any more. A line half read is kept: the rest of `SEND OK`
    /// alone would be taken for an `OK`.
    pub fn forget_data(&mut self) {
        self.data_bytes = 0;
        self.data_end = &[];
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

/// The comma-separated field with this index behind `: `, without blanks and
/// quotes.
#[must_use]
pub fn field(line: &[u8], index: usize) -> Option<&[u8]> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let fields = line.get(colon + 1..)?;
    let field = fields.split(|byte| *byte == b',').nth(index)?;
    let kept = |byte: &u8| !matches!(byte, b' ' | b'"');
    let begin = field.iter().position(kept)?;
    let end = field.iter().rposition(kept)?;
    field.get(begin..=end)
}

/// A decimal number that is all digits and fits.
#[must_use]
pub fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u32, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u32::from(digit))
    })
}

/// A number in decimal digits.
pub struct Decimal {
    digits: [u8; 5],
    begin: usize,
}

impl Decimal {
    /// The digits of `number`, without leading zeros.
    #[must_use]
    pub fn new(mut number: u16) -> Self {
        let mut digits = [b'0'; 5];
        let mut begin = 5;
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            begin = at;
            if number == 0 {
                break;
            }
        }
        Self { digits, begin }
    }

    /// The digits.
    #[must_use]
    pub fn digits(&self) -> &[u8] {
        self.digits.get(self.begin..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    /// The lines in these bytes, `>` for a prompt.
    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut reader = Reader::new();
        let mut lines = Vec::new();
        for byte in bytes {
            match reader.push(*byte) {
                Some(Token::Line) => {
                    lines.push(String::from_utf8(reader.line().to_vec()).unwrap());
                }
                Some(Token::Prompt) => lines.push(">".into()),
                Some(Token::Data(_) | Token::Torn) => panic!("data"),
                None => {}
            }
        }
        lines
    }

    #[test]
    fn lines_come_without_their_ends_and_empty_ones_not_at_all() {
        let said = b"\r\n+CSQ: 23,0\r\n\r\nOK\r\n";
        assert_eq!(lines(said), ["+CSQ: 23,0", "OK"]);
    }

    #[test]
    fn a_prompt_needs_no_line_end() {
        assert_eq!(lines(b"\r\n> "), [">"]);
        assert_eq!(lines(b"\r\n> \r\nSEND OK\r\n"), [">", "SEND OK"]);
        assert_eq!(lines(b"a>b\r\n"), ["a>b"]);
    }

    #[test]
    fn rubbish_does_not_spoil_the_next_line() {
        assert_eq!(lines(b"\0\xff\x80RDY\r\n"), ["RDY"]);
        let mut endless = [b'x'; 10_000].to_vec();
        endless.extend(b"\r\nOK\r\n");
        let lines = lines(&endless);
        assert_eq!(lines[0].len(), AT_LINE_BYTES_MAX);
        assert_eq!(lines[1], "OK");
    }

    #[test]
    fn data_pass_as_they_are() {
        let mut reader = Reader::new();
        reader.expect_data(4);
        let told: Vec<_> = b"\r\n>\0\r\nOK\r\n"
            .iter()
            .filter_map(|byte| reader.push(*byte))
            .collect();
        let data = b"\r\n>\0".map(Token::Data);
        assert_eq!(told[..4], data);
        assert_eq!(told[4..], [Token::Line]);
        assert_eq!(reader.line(), b"OK");
    }

    #[test]
    fn data_with_a_byte_missing_are_torn() {
        for lost in 1..4 {
            let mut reader = Reader::new();
            reader.expect_data(4);
            let said = &b"data\r\nOK\r\n"[lost..];
            let told: Vec<_> = said.iter().filter_map(|byte| reader.push(*byte)).collect();
            assert!(told.contains(&Token::Torn), "{lost} lost");
        }
    }

    #[test]
    fn a_line_that_is_given_up_half_way_does_not_become_another() {
        let mut reader = Reader::new();
        for byte in b"\r\nSEND " {
            assert_eq!(reader.push(*byte), None);
        }
        reader.forget_data();
        let told: Vec<_> = b"OK\r\n"
            .iter()
            .filter_map(|byte| reader.push(*byte))
            .collect();
        assert_eq!(told, [Token::Line]);
        assert_eq!(reader.line(), b"SEND OK");
    }

    #[test]
    fn fields_are_found_and_numbers_read() {
        let line = br#"+QIRD: 10.0.0.1:80,TCP,36"#;
        assert_eq!(field(line, 2).and_then(number), Some(36));
        assert_eq!(field(br#"+CREG: 2,"00C3""#, 1), Some(&b"00C3"[..]));
        assert_eq!(field(b"+CREG: 1", 1), None);
        assert_eq!(field(b"OK", 0), None);
        assert_eq!(number(b"4294967295"), Some(u32::MAX));
        assert_eq!(number(b"4294967296"), None);
        assert_eq!(number(b"-1"), None);
        assert_eq!(number(b""), None);
    }

    #[test]
    fn decimals_have_no_leading_zero() {
        for number in [0, 7, 10, 1883, u16::MAX] {
            assert_eq!(
                Decimal::new(number).digits(),
                std::format!("{number}").as_bytes()
            );
        }
    }
}
