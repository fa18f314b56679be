//! The code that carries the keys which a terminal made itself from its display to
//! settlement: read by one person, typed by one, once.
//!
//! Promises: a code that was read wrong in one character is refused, and where that is
//! told; so is one of another terminal or generation; anything else that is wrong
//! passes once in 16 million times. Never: a character of a code in an error.
//!
//! # Format
//!
//! | bytes | field |
//! | --- | --- |
//! | 16 | key that seals records |
//! | 16 | key that opens receipts |
//! | 3 | check, big-endian: CRC-24 (RFC 4880, section 6.1) of the length of the terminal's id, the id, the generation, both keys |
//!
//! These 280 bits are 56 characters of Crockford's base32
//! (<https://www.crockford.com/base32.html>): four rows of 14. Small letters are read
//! as capitals, `O` as 0, `I` and `L` as 1; blanks, line breaks and hyphens are passed
//! over.

use core::fmt;

use zeroize::Zeroizing;

use super::{Direction, KEY_BYTES, Key};
use crate::error::WireError;
use crate::terminal::validate_terminal_id;

/// Rows of a code.
pub const CODE_ROWS: usize = 4;

/// Characters of a row.
pub const CODE_ROW_CHARS: usize = 14;

/// Characters of a code.
pub const CODE_CHARS: usize = CODE_ROWS * CODE_ROW_CHARS;

/// A code, by its rows.
pub type CodeRows = [[u8; CODE_ROW_CHARS]; CODE_ROWS];

/// Neither I nor L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

const CHECK_BYTES: usize = 3;
const CODE_BYTES: usize = 2 * KEY_BYTES + CHECK_BYTES;

const _: () = assert!(CODE_BYTES * 8 == CODE_CHARS * 5);

/// What each character stands for: 5 bits.
type Values = [u8; CODE_CHARS];

/// Where in a code: both count from 1, as people do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodePlace {
    /// The row.
    pub row: usize,
    /// The character in it.
    pub character: usize,
}

impl CodePlace {
    const fn of(at: usize) -> Self {
        Self {
            row: at / CODE_ROW_CHARS + 1,
            character: at % CODE_ROW_CHARS + 1,
        }
    }
}

impl fmt::Display for CodePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}, character {}", self.row, self.character)
    }
}

/// Why what was typed is no code of this terminal and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeError {
    /// It has so many characters.
    Length(usize),
    /// The character here is in no code.
    Character(CodePlace),
    /// It would fit with another character here.
    Misread(CodePlace),
    /// It does not fit.
    Unfit,
    /// The id or the generation is none.
    Wire(WireError),
}

impl From<WireError> for CodeError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(characters) => write!(
                f,
                "it has {characters} characters, and a code has {CODE_CHARS}: {CODE_ROWS} rows of {CODE_ROW_CHARS}"
            ),
            Self::Character(place) => write!(
                f,
                "{place} is neither a digit nor a letter of a code; look at it again"
            ),
            Self::Misread(place) => write!(f, "{place} is wrong, as it seems; look at it again"),
            Self::Unfit => f.write_str(
                "it does not fit: more than one character is wrong, or it is of another terminal or generation; compare it and type it again",
            ),
            Self::Wire(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CodeError {}

/// The code of a terminal's own keys: of this id and generation, for records and for
/// receipts.
#[must_use]
pub fn encode(
    terminal: &str,
    generation: u8,
    record: &[u8; KEY_BYTES],
    receipt: &[u8; KEY_BYTES],
) -> CodeRows {
    // One byte more than there is, for the last character.
    let mut bytes = Zeroizing::new([0; CODE_BYTES + 1]);
    let (first, rest) = bytes.split_at_mut(KEY_BYTES);
    let (second, rest) = rest.split_at_mut(KEY_BYTES);
    first.copy_from_slice(record);
    second.copy_from_slice(receipt);
    let check = check(terminal, generation, &[record, receipt]) << 8;
    rest.copy_from_slice(&check.to_be_bytes());
    let mut rows = [[0; CODE_ROW_CHARS]; CODE_ROWS];
    for (at, character) in rows.as_flattened_mut().iter_mut().enumerate() {
        let (byte, bit) = (at * 5 / 8, at * 5 % 8);
        let [high, low] = [byte, byte + 1].map(|at| bytes.get(at).copied().unwrap_or(0));
        let value = u16::from_be_bytes([high, low]) >> (11 - bit) & 31;
        *character = ALPHABET.get(usize::from(value)).copied().unwrap_or(b'0');
    }
    rows
}

/// The keys, for records and for receipts, that this code of a terminal carries.
///
/// # Errors
/// What is wrong with it, and where, as far as that can be told.
pub fn decode(terminal: &str, generation: u8, text: &str) -> Result<(Key, Key), CodeError> {
    validate_terminal_id(terminal)?;
    let mut values = Zeroizing::new([0; CODE_CHARS]);
    let mut characters = 0;
    let mut wrong = None;
    let typed = text
        .bytes()
        .filter(|b| !b.is_ascii_whitespace() && *b != b'-');
    for byte in typed {
        // What is not ASCII has several bytes; that it is wrong is told all the same.
        if let Some(to) = values.get_mut(characters) {
            match value_of(byte) {
                Some(value) => *to = value,
                None => wrong = wrong.or(Some(CodePlace::of(characters))),
            }
        }
        characters += 1;
    }
    if let Some(place) = wrong {
        return Err(CodeError::Character(place));
    } else if characters != CODE_CHARS {
        return Err(CodeError::Length(characters));
    }
    if !fits(terminal, generation, &values) {
        return Err(
            misread(terminal, generation, &mut values).map_or(CodeError::Unfit, CodeError::Misread)
        );
    }
    let bytes = packed(&values);
    let (record, rest) = bytes.split_first_chunk().ok_or(CodeError::Unfit)?;
    let receipt = rest.first_chunk().ok_or(CodeError::Unfit)?;
    Ok((
        Key::new(Direction::Up, generation, *record)?,
        Key::new(Direction::Down, generation, *receipt)?,
    ))
}

/// The one place where another character makes it fit.
fn misread(terminal: &str, generation: u8, values: &mut Values) -> Option<CodePlace> {
    for at in 0..CODE_CHARS {
        let typed = *values.get(at)?;
        for value in 0..32 {
            *values.get_mut(at)? = value;
            if fits(terminal, generation, values) {
                return Some(CodePlace::of(at));
            }
        }
        *values.get_mut(at)? = typed;
    }
    None
}

fn value_of(byte: u8) -> Option<u8> {
    let byte = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        byte => byte,
    };
    let value = ALPHABET.iter().position(|one| *one == byte)?;
    u8::try_from(value).ok()
}

fn packed(values: &Values) -> Zeroizing<[u8; CODE_BYTES]> {
    let mut bytes = Zeroizing::new([0; CODE_BYTES]);
    let mut bits = 0_u32;
    let mut held = 0;
    let mut to = bytes.iter_mut();
    for value in values {
        bits = bits << 5 | u32::from(*value);
        held += 5;
        if held >= 8 {
            held -= 8;
            if let Some(byte) = to.next() {
                *byte = (bits >> held) as u8;
            }
        }
    }
    bytes
}

fn fits(terminal: &str, generation: u8, values: &Values) -> bool {
    let bytes = packed(values);
    let Some((keys, [high, middle, low])) = bytes.split_last_chunk::<CHECK_BYTES>() else {
        return false;
    };
    let said = u32::from_be_bytes([0, *high, *middle, *low]);
    check(terminal, generation, &[keys]) == said
}

fn check(terminal: &str, generation: u8, keys: &[&[u8]]) -> u32 {
    // The id's bound is 23 bytes.
    let mut register = crc24(CRC24_START, &[terminal.len() as u8]);
    register = crc24(register, terminal.as_bytes());
    register = crc24(register, &[generation]);
    for key in keys {
        register = crc24(register, key);
    }
    register
}

const CRC24_START: u32 = 0x00B7_04CE;
const CRC24_POLYNOMIAL: u32 = 0x0186_4CFB;

fn crc24(mut register: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        register ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            register <<= 1;
            if register & 0x0100_0000 != 0 {
                register ^= CRC24_POLYNOMIAL;
            }
        }
    }
    register
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    fn keys() -> (Key, Key) {
        let bytes = |from: u8| core::array::from_fn(|at| from.wrapping_mul(37) ^ (at as u8 * 13));
        (
            Key::new(Direction::Up, 2, bytes(3)).unwrap(),
            Key::new(Direction::Down, 2, bytes(200)).unwrap(),
        )
    }

    fn typed() -> String {
        let (record, receipt) = keys();
        let rows = encode("village-17", 2, record.expose(), receipt.expose());
        let rows: Vec<&str> = rows
            .iter()
            .map(|row| str::from_utf8(row).unwrap())
            .collect();
        rows.join("\n")
    }

    #[test]
    fn it_is_the_crc_24_of_openpgp() {
        assert_eq!(crc24(CRC24_START, b"123456789"), 0x21_CF02);
    }

    #[test]
    fn a_code_comes_back_as_its_keys_however_it_is_typed() {
        let code = typed();
        let ragged: String = code.chars().flat_map(|c| [c, ' ']).collect();
        let sloppy = code.replace('0', "o").replace('1', "l").to_lowercase();
        for text in [code.clone(), ragged, sloppy, code.replace('\n', "-")] {
            let (record, receipt) = decode("village-17", 2, &text).unwrap();
            let own = keys();
            assert_eq!(record.expose(), own.0.expose());
            assert_eq!(receipt.expose(), own.1.expose());
            assert_eq!(record.direction(), Direction::Up);
            assert_eq!(receipt.direction(), Direction::Down);
            assert_eq!((record.generation(), receipt.generation()), (2, 2));
        }
    }

    #[test]
    fn every_wrong_character_is_refused_and_its_place_told() {
        let code = typed().replace('\n', "");
        for at in 0..CODE_CHARS {
            for character in ALPHABET {
                let mut bytes = code.clone().into_bytes();
                if bytes[at] == *character {
                    continue;
                }
                bytes[at] = *character;
                let text = String::from_utf8(bytes).unwrap();
                let refused = decode("village-17", 2, &text).err();
                assert_eq!(refused, Some(CodeError::Misread(CodePlace::of(at))), "{at}");
            }
        }
        let place = CodePlace {
            row: 2,
            character: 3,
        };
        assert_eq!(CodePlace::of(16), place);
    }

    #[test]
    fn two_characters_that_changed_places_are_refused() {
        let code = typed().replace('\n', "").into_bytes();
        for at in 1..CODE_CHARS {
            let mut bytes = code.clone();
            bytes.swap(at - 1, at);
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert_eq!(decode("village-17", 2, &text).is_ok(), bytes == code);
        }
    }

    #[test]
    fn what_is_none_or_anothers_says_what_is_wrong_and_shows_nothing() {
        let code = typed();
        for (terminal, generation) in [("village-18", 2), ("village-17", 3), ("village-1", 2)] {
            let refused = decode(terminal, generation, &code).err();
            assert_eq!(refused, Some(CodeError::Unfit));
        }
        let short = code.replacen('\n', "", 4);
        let short = &short[1..];
        let refused = decode("village-17", 2, short).err().unwrap();
        assert_eq!(refused, CodeError::Length(55));
        let twice = std::format!("{code}{code}");
        assert_eq!(
            decode("village-17", 2, &twice).err(),
            Some(CodeError::Length(112))
        );
        let mut odd = code.clone();
        odd.replace_range(15..16, "?");
        let refused = decode("village-17", 2, &odd).err().unwrap();
        assert_eq!(
            std::format!("{refused}").find("row 2, character 1 "),
            Some(0)
        );
        assert!(matches!(decode("a/b", 2, &code), Err(CodeError::Wire(_))));
    }
}
