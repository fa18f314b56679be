//! What is known of one terminal, by its display and its papers.
//!
//! Promises: written from what people see alone. Never: a number that was not
//! shown.

use std::collections::{BTreeMap, BTreeSet};

use risiti_sim::printer::Paper;

use super::log::Log;
use super::{Violation, broken};
use crate::terminal::Seen;

/// An account and an amount.
pub(super) type Content = (String, u64);

/// The book of one terminal.
#[derive(Debug)]
pub(super) struct Book {
    meant: BTreeSet<Content>,
    saved: BTreeMap<u64, Content>,
    originals: BTreeSet<u64>,
    printed: BTreeSet<u64>,
}

impl Book {
    /// Of a terminal at which these payments will be made.
    pub(super) fn new(meant: Vec<Content>) -> Self {
        Self {
            meant: meant.into_iter().collect(),
            saved: BTreeMap::new(),
            originals: BTreeSet::new(),
            printed: BTreeSet::new(),
        }
    }

    /// Somebody reads its display.
    pub(super) fn seen(&mut self, id: &str, seen: &Seen, log: &Log) -> Result<(), Violation> {
        match seen {
            Seen::Saved(saved) => {
                let content = (saved.account.clone(), saved.amount_minor);
                let sequence = saved.sequence;
                if let Some(other) = log.content(&(id.to_owned(), sequence))
                    && *other != content
                {
                    let what = format!("{id}/{sequence} is {content:?}, in Kafka {other:?}");
                    return broken("G6", what);
                }
                match self.saved.insert(sequence, content.clone()) {
                    Some(other) if other != content => {
                        let what = format!("{id}/{sequence} is {content:?}, and was {other:?}");
                        broken("G6", what)
                    }
                    _ => Ok(()),
                }
            }
            Seen::LastNumber(last) => match self.saved.last_key_value() {
                Some((shown, _)) if shown > last => {
                    let what = format!("{id} showed {shown} as saved, and now {last} as its last");
                    broken("G6", what)
                }
                _ => Ok(()),
            },
        }
    }

    /// A paper comes out.
    pub(super) fn paper(&mut self, id: &str, paper: &Paper) -> Result<(), Violation> {
        let (Some(sequence), true) = (paper.payment(), paper.whole) else {
            return Ok(());
        };
        self.printed.insert(sequence);
        if !paper.again() && !self.originals.insert(sequence) {
            return broken("G5", format!("{id}/{sequence} is printed twice"));
        }
        Ok(())
    }

    /// A record in Kafka says this.
    pub(super) fn check(
        &self,
        id: &str,
        sequence: u64,
        content: &Content,
    ) -> Result<(), Violation> {
        if !self.meant.contains(content) {
            let what = format!("{id}/{sequence} is {content:?} in Kafka: nobody paid that");
            return broken("G9", what);
        }
        match self.saved.get(&sequence) {
            Some(shown) if shown != content => {
                let what = format!("{id}/{sequence} was shown as {shown:?}, in Kafka {content:?}");
                broken("G6", what)
            }
            _ => Ok(()),
        }
    }

    /// Numbers that were shown as saved.
    pub(super) fn saved(&self) -> impl Iterator<Item = u64> {
        self.saved.keys().copied()
    }

    /// Whether a whole paper of it is there.
    pub(super) fn is_printed(&self, sequence: u64) -> bool {
        self.printed.contains(&sequence)
    }
}
