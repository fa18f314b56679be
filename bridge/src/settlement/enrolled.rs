//! Keys that terminals made themselves, as they were enrolled.
//!
//! Promises: a terminal's keys of one generation are enrolled once; where they are,
//! none of that generation are derived. Never: a key in an error or in `Debug`, or left
//! in memory once it is dropped.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use risiti_wire::seal::{Direction, FIRST_GENERATION, Key};
use risiti_wire::validate_terminal_id;

use crate::limits;

/// The two keys of a terminal and generation.
#[derive(Clone)]
struct Pair {
    record: Key,
    receipt: Key,
}

/// The keys that were enrolled.
#[derive(Clone, Default)]
pub struct Enrolled {
    /// Of each terminal, a pair a generation.
    terminals: HashMap<Box<str>, Vec<Pair>>,
    pairs: usize,
}

impl fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Enrolled {{ pairs: {} }}", self.pairs)
    }
}

impl Enrolled {
    /// Reads the text of a file of enrolled keys, a line each: a terminal, the
    /// generation, its key for records and its key for receipts, each of 32 hexadecimal
    /// digits; empty lines and what follows a `#` are passed over.
    ///
    /// # Errors
    /// The line, and what is wrong with it; nothing of what stands there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut read = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            if line.trim().is_empty() {
                continue;
            }
            let wrong = |what: &str| format!("line {}: {what}", index + 1);
            let (terminal, pair) = pair(line).ok_or_else(|| {
                wrong("a terminal, a generation from 1 to 255 and two keys of 32 hexadecimal digits are expected; take the line away and enrol that terminal's next generation")
            })?;
            if read.pair(terminal, pair.record.generation()).is_some() {
                return Err(wrong(
                    "these keys stand there twice; leave those that its terminal has",
                ));
            }
            read.terminals
                .entry(terminal.into())
                .or_default()
                .push(pair);
            read.pairs += 1;
            if read.pairs > limits::ENROLLED_MAX {
                return Err(wrong(&format!(
                    "more than {} keys; take away those of former generations",
                    limits::ENROLLED_MAX
                )));
            }
        }
        Ok(read)
    }

    /// The text of the file with one more line; it is the caller's to overwrite. The
    /// others stay, comments too.
    ///
    /// # Errors
    /// This terminal has enrolled keys of this generation already.
    pub fn with(text: &str, terminal: &str, record: &Key, receipt: &Key) -> Result<String, String> {
        let read = Self::parse(text)?;
        let generation = record.generation();
        if read.pair(terminal, generation).is_some() {
            return Err(format!(
                "keys of generation {generation} of terminal {terminal} are enrolled already, and are never replaced; if the terminal shows others, it needs the next generation: risiti terminal rotate {terminal} --own-keys"
            ));
        }
        if read.pairs >= limits::ENROLLED_MAX {
            return Err(format!(
                "keys of {} terminals and generations are enrolled, and no more fit; take away those of former generations",
                limits::ENROLLED_MAX
            ));
        }
        // Whole at once: a text that grows leaves copies behind.
        let mut with = String::with_capacity(text.len() + limits::ENROLLED_LINE_BYTES_MAX);
        with.push_str(text);
        if !text.is_empty() && !text.ends_with('\n') {
            with.push('\n');
        }
        let _ = write!(with, "{terminal} {generation}");
        for key in [record, receipt] {
            with.push(' ');
            let _ = key.write_hex(&mut with);
        }
        with.push('\n');
        Ok(with)
    }

    /// The key of a terminal that it has enrolled.
    pub(super) fn key(&self, terminal: &str, generation: u8, direction: Direction) -> Option<&Key> {
        let pair = self.pair(terminal, generation)?;
        Some(match direction {
            Direction::Up => &pair.record,
            Direction::Down => &pair.receipt,
        })
    }

    fn pair(&self, terminal: &str, generation: u8) -> Option<&Pair> {
        let pairs = self.terminals.get(terminal)?;
        pairs
            .iter()
            .find(|pair| pair.record.generation() == generation)
    }

    /// Terminals and generations whose keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
    }
}

fn pair(line: &str) -> Option<(&str, Pair)> {
    let mut words = line.split_whitespace();
    let terminal = words.next()?;
    validate_terminal_id(terminal).ok()?;
    let generation = words.next()?.parse().ok()?;
    if generation < FIRST_GENERATION {
        return None;
    }
    let record = Key::from_hex(Direction::Up, generation, words.next()?)?;
    let receipt = Key::from_hex(Direction::Down, generation, words.next()?)?;
    words
        .next()
        .is_none()
        .then_some((terminal, Pair { record, receipt }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00112233445566778899aabbccddeeff";
    const B: &str = "ffeeddccbbaa99887766554433221100";

    fn key(direction: Direction, generation: u8, digits: &str) -> Key {
        Key::from_hex(direction, generation, digits).unwrap()
    }

    #[test]
    fn what_is_enrolled_is_read_again_and_other_lines_stay() {
        let text = format!("# by hand\nt1 1 {A} {B} # in May");
        let record = key(Direction::Up, 2, B);
        let receipt = key(Direction::Down, 2, A);
        let with = Enrolled::with(&text, "t1", &record, &receipt).unwrap();
        assert_eq!(with, format!("{text}\nt1 2 {B} {A}\n"));
        let read = Enrolled::parse(&with).unwrap();
        assert_eq!(read.len(), 2);
        let of = |generation, direction| {
            let key = read.key("t1", generation, direction);
            key.map(|key| (key.generation(), key.direction(), *key.expose()))
        };
        for (generation, direction, digits) in [
            (1, Direction::Up, A),
            (1, Direction::Down, B),
            (2, Direction::Up, B),
            (2, Direction::Down, A),
        ] {
            let expected = key(direction, generation, digits);
            assert_eq!(
                of(generation, direction),
                Some((generation, direction, *expected.expose()))
            );
        }
        assert_eq!(of(3, Direction::Up), None);
        assert!(read.key("t10", 1, Direction::Up).is_none());
        // The line that is written is within what it was given room for.
        let longest = "a".repeat(23);
        let (record, receipt) = (key(Direction::Up, 255, A), key(Direction::Down, 255, B));
        let line = Enrolled::with("", &longest, &record, &receipt).unwrap();
        assert!(line.len() <= limits::ENROLLED_LINE_BYTES_MAX);
    }

    #[test]
    fn keys_are_enrolled_once() {
        let (record, receipt) = (key(Direction::Up, 1, A), key(Direction::Down, 1, B));
        let text = Enrolled::with("", "t1", &record, &receipt).unwrap();
        let error = Enrolled::with(&text, "t1", &record, &receipt).unwrap_err();
        assert!(error.contains("rotate t1 --own-keys"), "{error}");
        assert!(Enrolled::with(&text, "t2", &record, &receipt).is_ok());
    }

    #[test]
    fn a_line_that_is_none_is_named_and_shows_no_key() {
        for wrong in [
            "t1".to_owned(),
            format!("t1 1 {A}"),
            format!("t1 0 {A} {B}"),
            format!("t1 256 {A} {B}"),
            format!("t1 1 {A} {B} {A}"),
            format!("a/b 1 {A} {B}"),
            format!("t1 1 {A}0 {B}"),
            format!("t1 1 {A} {}", B.replace('0', "g")),
            format!("t0 1 {B} {A}"),
        ] {
            let text = format!("t0 1 {A} {B}\n{wrong}\n");
            let error = Enrolled::parse(&text).unwrap_err();
            assert!(error.starts_with("line 2: "), "{wrong}: {error}");
            assert!(
                !error.contains("2233") && !error.contains("ffee"),
                "{error}"
            );
        }
        let read = Enrolled::parse(&format!("t0 1 {A} {B}\n")).unwrap();
        assert_eq!(format!("{read:?}"), "Enrolled { pairs: 1 }");
    }
}
