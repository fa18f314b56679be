//! Seals: whose records are opened, and how their receipts are closed.
//!
//! Promises: a record is taken for its terminal's only if it was sealed with a key of
//! it that is accepted now: the one that was enrolled, or else the one that is derived,
//! never the other; its receipt is sealed with the same generation; what is
//! refused is told by its reason. Never: a key or what was sealed in an error or in
//! `Debug`; a clock or a file: generations and enrolled keys are passed in.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::RwLock;
use risiti_wire::limits::{RECORD_BYTES_MAX, SEALED_RECEIPT_BYTES_MAX};
use risiti_wire::seal::{self, Direction, FIRST_GENERATION, Key, Root, SealError};
use risiti_wire::{Kind, WireError, peek, validate_terminal_id};

use super::enrolled::Enrolled;
use super::partitioner::partition_of;
use crate::limits;

/// Which generations of a terminal's keys are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The newest that was given out; 0: none is accepted, the terminal is revoked.
    pub newest: u8,
    /// The oldest whose records are still taken; of a revoked terminal, the newest that
    /// it had.
    pub least: u8,
}

impl Accepted {
    /// None, of a terminal that had keys up to this generation.
    #[must_use]
    pub fn revoked(last: u8) -> Self {
        Self {
            newest: 0,
            least: last,
        }
    }

    /// The newest generation that was ever given out.
    #[must_use]
    pub fn last(self) -> u8 {
        match self.newest {
            0 => self.least,
            newest => newest,
        }
    }
}

impl Default for Accepted {
    /// A terminal's first keys.
    fn default() -> Self {
        Self {
            newest: FIRST_GENERATION,
            least: FIRST_GENERATION,
        }
    }
}

/// The generations of all terminals. Of one that is not named, the first is accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generations {
    terminals: HashMap<Box<str>, Accepted>,
}

impl Generations {
    /// Reads the text of a file of generations: a terminal a line, its newest
    /// generation and the least that is accepted, or `revoked` and its newest; empty lines
    /// and what follows a `#` are passed over.
    ///
    /// # Errors
    /// The line, what is wrong with it, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terminals = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let (terminal, accepted) = match words[..] {
                [] => continue,
                [terminal, "revoked"] => (terminal, Accepted::revoked(FIRST_GENERATION)),
                [terminal, "revoked", last] => {
                    let last = accepted(last, "1", index)?.newest;
                    (terminal, Accepted::revoked(last))
                }
                [terminal, newest, least] => (terminal, accepted(newest, least, index)?),
                _ => return Err(not_a_line(index)),
            };
            validate_terminal_id(terminal).map_err(|error| {
                format!(
                    "line {}: {terminal:?} is no terminal id: {error}",
                    index + 1
                )
            })?;
            if terminals.insert(terminal.into(), accepted).is_some() {
                return Err(format!(
                    "line {}: {terminal} stands there twice; leave one line of it",
                    index + 1
                ));
            }
            if terminals.len() > limits::SETTLEMENT_TERMINALS_MAX {
                return Err(format!(
                    "more than {} terminals",
                    limits::SETTLEMENT_TERMINALS_MAX
                ));
            }
        }
        Ok(Self { terminals })
    }

    /// What is accepted of a terminal, if it is named.
    #[must_use]
    pub fn named(&self, terminal: &str) -> Option<Accepted> {
        self.terminals.get(terminal).copied()
    }

    /// The text of a file of generations with this terminal's line as it is to be. The
    /// other lines stay, comments too.
    #[must_use]
    pub fn edited(text: &str, terminal: &str, accepted: Accepted) -> String {
        let line = match accepted.newest {
            0 => format!("{terminal} revoked {}", accepted.last()),
            newest => format!("{terminal} {newest} {}", accepted.least),
        };
        let others = text
            .lines()
            .filter(|line| line.split_whitespace().next() != Some(terminal));
        let mut edited: String = others.flat_map(|line| [line, "\n"]).collect();
        edited.push_str(&line);
        edited.push('\n');
        edited
    }

    /// What is accepted of a terminal.
    #[must_use]
    pub fn of(&self, terminal: &str) -> Accepted {
        self.terminals.get(terminal).copied().unwrap_or_default()
    }

    /// Terminals that it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.terminals.len()
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terminals.is_empty()
    }
}

fn accepted(newest: &str, least: &str, index: usize) -> Result<Accepted, String> {
    let read = |word: &str| word.parse().ok().filter(|one| *one >= FIRST_GENERATION);
    match (read(newest), read(least)) {
        (Some(newest), Some(least)) if least <= newest => Ok(Accepted { newest, least }),
        _ => Err(not_a_line(index)),
    }
}

fn not_a_line(index: usize) -> String {
    format!(
        "line {}: write a terminal, its newest generation and the least that is accepted, each from 1 to 255 (\"village-17 2 1\"), or \"village-17 revoked 2\"",
        index + 1
    )
}

/// Opens records and seals receipts; without a root it does neither.
#[derive(Clone, Default)]
pub struct Sealing {
    site: Option<Arc<Site>>,
}

struct Site {
    root: Root,
    required: bool,
    generations: RwLock<Generations>,
    enrolled: RwLock<Enrolled>,
    /// Of the records topic; 0: not known.
    partitions: AtomicI32,
}

impl Site {
    /// A terminal's key: the enrolled one, if it has enrolled keys of this generation.
    fn key(&self, terminal: &str, generation: u8, direction: Direction) -> Result<Key, WireError> {
        let enrolled = self.enrolled.read();
        match enrolled.key(terminal, generation, direction) {
            Some(key) => Ok(key.clone()),
            None => self.root.key(terminal, generation, direction),
        }
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing")
            .field("root", &self.site.is_some())
            .field("required", &self.site.as_ref().map(|site| site.required))
            .finish()
    }
}

/// A record as its terminal made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The message, open.
    pub bytes: &'a [u8],
    /// Of the key with which it was sealed; none: it was not.
    pub generation: Option<u8>,
}

/// A record whose seal is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its number, as it says.
    pub sequence: u64,
    /// Why.
    pub detail: String,
}

impl Sealing {
    /// Of a site with this root. Unless it is `required`, what is not sealed is taken
    /// as well.
    #[must_use]
    pub fn new(root: Root, required: bool, generations: Generations) -> Self {
        Self {
            site: Some(Arc::new(Site {
                root,
                required,
                generations: RwLock::new(generations),
                enrolled: RwLock::default(),
                partitions: AtomicI32::new(0),
            })),
        }
    }

    /// Takes other generations, for all copies of this one, from the next record on.
    pub fn set_generations(&self, generations: Generations) {
        if let Some(site) = &self.site {
            *site.generations.write() = generations;
        }
    }

    /// Takes other enrolled keys, for all copies of this one, from the next record on.
    pub fn set_enrolled(&self, enrolled: Enrolled) {
        if let Some(site) = &self.site {
            *site.enrolled.write() = enrolled;
        }
    }

    /// Terminals and generations whose enrolled keys it has.
    #[must_use]
    pub fn enrolled(&self) -> usize {
        self.site
            .as_ref()
            .map_or(0, |site| site.enrolled.read().len())
    }

    /// So many partitions has the records topic. What was settled is remembered by
    /// partition: a record that was copied into another one would be settled again.
    pub fn set_partitions(&self, partitions: i32) {
        if let Some(site) = &self.site {
            site.partitions.store(partitions, Ordering::Relaxed);
        }
    }

    /// Opens a record of this partition. What is no record of this version is passed on
    /// as it is.
    ///
    /// # Errors
    /// It is sealed, and not by this terminal, or does not belong here; or it is not
    /// sealed, and ought to be.
    pub(super) fn open<'b>(
        &self,
        terminal: &str,
        partition: i32,
        message: &'b [u8],
        buffer: &'b mut [u8; RECORD_BYTES_MAX],
    ) -> Result<Opened<'b>, Refused> {
        let as_it_is = Opened {
            bytes: message,
            generation: None,
        };
        let (Some(site), Ok(header)) = (&self.site, peek(message)) else {
            return Ok(as_it_is);
        };
        if !matches!(header.kind, Kind::Payment | Kind::Reversal) {
            return Ok(as_it_is);
        }
        let refuse = |detail: String| Refused {
            sequence: header.sequence,
            detail,
        };
        let generation = match seal::generation(message) {
            Ok(Some(generation)) => generation,
            _ if site.required => {
                let what = "it is not sealed; give its terminal keys of this site, or set settlement.sealing = \"accepted\" until all have them";
                return Err(refuse(what.into()));
            }
            _ => return Ok(as_it_is),
        };
        let partitions = site.partitions.load(Ordering::Relaxed);
        let own = partition_of(terminal.as_bytes(), partitions);
        if partitions > 0 && own != partition {
            return Err(refuse(format!(
                "it stands in partition {partition}, and its terminal's records in {own}: it was copied there, or written by another partitioner than murmur2"
            )));
        }
        let accepted = site.generations.read().of(terminal);
        if accepted.newest == 0 {
            return Err(refuse("its terminal is revoked".into()));
        }
        if !(accepted.least..=accepted.newest).contains(&generation) {
            let Accepted { newest, least } = accepted;
            return Err(refuse(format!(
                "it is sealed with a key of generation {generation}, and {least} to {newest} are accepted of its terminal"
            )));
        }
        let opened = site
            .key(terminal, generation, Direction::Up)
            .map_err(SealError::Wire)
            .and_then(|key| seal::open(&key, terminal, message, buffer));
        match opened {
            Ok(bytes) => Ok(Opened {
                bytes,
                generation: Some(generation),
            }),
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    /// Seals a receipt with the generation of the record that it answers.
    pub(super) fn close(
        &self,
        terminal: &str,
        generation: Option<u8>,
        receipt: Vec<u8>,
    ) -> Vec<u8> {
        let (Some(site), Some(generation)) = (&self.site, generation) else {
            return receipt;
        };
        let mut buffer = [0; SEALED_RECEIPT_BYTES_MAX];
        site.key(terminal, generation, Direction::Down)
            .map_err(SealError::Wire)
            .and_then(|key| seal::seal(&key, terminal, &receipt, &mut buffer))
            .map(<[u8]>::to_vec)
            .expect("a receipt that we wrote is a message, and its terminal's record was opened")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_read_with_comments_and_the_first_is_accepted_without() {
        let text = "# keys\n\nvillage-17 3 2   # lost its flash\nvillage-18\t255 255\nt revoked\n";
        let generations = Generations::parse(text).unwrap();
        assert_eq!(generations.len(), 3);
        let of = |terminal: &str| {
            let Accepted { newest, least } = generations.of(terminal);
            (newest, least)
        };
        assert_eq!(of("village-17"), (3, 2));
        assert_eq!(of("village-18"), (255, 255));
        assert_eq!(of("t"), (0, 1));
        assert_eq!(of("anybody"), (1, 1));
    }

    #[test]
    fn a_line_is_edited_and_the_others_stay() {
        let text = "# keys\nt1 2 1 # since May\nt10 1 1\n";
        let accepted = Accepted {
            newest: 3,
            least: 3,
        };
        let edited = Generations::edited(text, "t1", accepted);
        assert_eq!(edited, "# keys\nt10 1 1\nt1 3 3\n");
        assert_eq!(
            Generations::parse(&edited).unwrap().named("t1"),
            Some(accepted)
        );
        // What a revoked terminal had is not forgotten: a generation is given out once.
        for last in [3, 255] {
            let edited = Generations::edited(&edited, "t1", Accepted::revoked(last));
            let read = Generations::parse(&edited).unwrap();
            assert_eq!(read.named("t1").map(Accepted::last), Some(last));
        }
        let edited = Generations::edited(&edited, "t1", Accepted::revoked(3));
        let read = Generations::parse(&edited).unwrap();
        assert_eq!(read.of("t1").newest, 0);
        assert_eq!(read.named("t2"), None);
        assert_eq!(Generations::parse("t1 revoked").unwrap().of("t1").last(), 1);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for wrong in [
            "t",
            "t 1",
            "t 1 2",
            "t 0 0",
            "t 256 1",
            "t 2 0",
            "t x 1",
            "t 1 1 1",
            "t Revoked",
            "a/b 1 1",
            "u 1 1\nu 2 1",
        ] {
            let text = format!("u2 1 1\n{wrong}");
            let error = Generations::parse(&text).unwrap_err();
            assert!(error.starts_with("line "), "{wrong}: {error}");
        }
    }

    #[test]
    fn nothing_of_a_root_is_shown() {
        let sealing = Sealing::new(Root::new([0x5a; 32]), true, Generations::default());
        let shown = format!("{sealing:?}");
        assert_eq!(shown, "Sealing { root: true, required: Some(true) }");
    }
}
