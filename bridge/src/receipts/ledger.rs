//! Numbers, counts and bounds of the outbox. A core: no clock, no disk.
//!
//! Promises: a terminal's numbers grow by one and none is given twice; what waits
//! is counted; a bound that is reached is named. Never: a payload, or more than
//! the bounded number of terminals.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::ReceiptNumber;
use super::rows::TerminalRow;

/// The ledger's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Terminals known.
    pub(super) terminals_max: usize,
    /// Receipts that wait for terminals that never were here.
    pub(super) unknown_receipts_max: u64,
    /// Receipts that wait for one terminal.
    pub(super) per_terminal_max: u32,
}

/// Why a receipt is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Too many for terminals that never were here.
    Unknown,
    /// Too many for this one.
    Terminal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    seen: bool,
    /// 0: not looked up on disk yet.
    next: ReceiptNumber,
    /// One past the last durable number.
    durable: ReceiptNumber,
    waiting: u32,
    /// Of these, on their way out.
    going: u32,
}

/// What a terminal's state was before a change that did not come about.
#[derive(Debug)]
pub(super) struct Before(Vec<(Arc<str>, Entry)>);

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Ledger {
    bounds: Bounds,
    terminals: HashMap<Arc<str>, Entry>,
    /// Terminals that were here and never had a receipt, oldest first: the first
    /// to be forgotten. May name some that have had one since.
    blank: VecDeque<Arc<str>>,
    /// Acknowledged or expired, row not gone yet.
    going: HashSet<(Arc<str>, ReceiptNumber)>,
    waiting: u64,
    unknown: u64,
}

impl Ledger {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            terminals: HashMap::new(),
            blank: VecDeque::new(),
            going: HashSet::new(),
            waiting: 0,
            unknown: 0,
        }
    }

    /// Takes back what the disk knows of a terminal.
    pub(super) fn restore(&mut self, terminal: &str, row: TerminalRow) {
        let terminal: Arc<str> = terminal.into();
        if row.next <= 1 {
            self.blank.push_back(Arc::clone(&terminal));
        }
        self.waiting += u64::from(row.waiting);
        if !row.seen {
            self.unknown += u64::from(row.waiting);
        }
        let entry = Entry {
            seen: row.seen,
            next: row.next,
            durable: row.next,
            waiting: row.waiting,
            going: 0,
        };
        self.terminals.insert(terminal, entry);
    }

    /// Whether the disk has to be asked for this terminal's numbers.
    pub(super) fn is_strange(&self, terminal: &str) -> bool {
        self.terminals
            .get(terminal)
            .is_none_or(|entry| entry.next == 0)
    }

    /// What the disk says of a strange terminal: the number that its next receipt
    /// gets, and how many wait (above 0 only if its own row was lost).
    pub(super) fn introduce(&mut self, terminal: &str, next: ReceiptNumber, waiting: u32) {
        if !self.is_strange(terminal) {
            return;
        }
        let seen = self.terminals.get(terminal).is_some_and(|e| e.seen);
        self.waiting += u64::from(waiting);
        if !seen {
            self.unknown += u64::from(waiting);
        }
        let entry = Entry {
            seen,
            next,
            durable: next,
            waiting,
            going: 0,
        };
        self.terminals.insert(terminal.into(), entry);
    }

    /// Gives a receipt its number. The terminal is not strange.
    pub(super) fn admit(
        &mut self,
        terminal: &str,
        before: &mut Before,
    ) -> Result<(Arc<str>, ReceiptNumber), Full> {
        let terminals = self.terminals.len();
        let Some((name, entry)) = self.terminals.get_key_value(terminal) else {
            return Err(Full::Unknown);
        };
        if entry.waiting >= self.bounds.per_terminal_max {
            return Err(Full::Terminal);
        }
        let first = entry.next == 1 && entry.waiting == 0;
        if !entry.seen
            && (self.unknown >= self.bounds.unknown_receipts_max
                || first && terminals > self.bounds.terminals_max)
        {
            return Err(Full::Unknown);
        }
        let name = Arc::clone(name);
        if before.0.iter().all(|(known, _)| *known != name) {
            before.0.push((Arc::clone(&name), *entry));
        }
        let entry = self.terminals.get_mut(terminal).expect("just found");
        let number = entry.next;
        entry.next += 1;
        entry.waiting += 1;
        self.waiting += 1;
        if !entry.seen {
            self.unknown += 1;
        }
        Ok((name, number))
    }

    /// Forgets a terminal that was only introduced: nothing of it was kept.
    pub(super) fn dismiss(&mut self, terminal: &str) {
        if let Some(entry) = self.terminals.get(terminal)
            && !entry.seen
            && entry.next <= 1
            && entry.waiting == 0
        {
            self.terminals.remove(terminal);
        }
    }

    /// Takes back what was admitted: its commit was not taken.
    pub(super) fn undo(&mut self, before: Before) {
        for (terminal, was) in before.0 {
            if let Some(entry) = self.terminals.get_mut(&terminal) {
                let taken = u64::from(entry.waiting - was.waiting);
                self.waiting -= taken;
                if !entry.seen {
                    self.unknown -= taken;
                }
                entry.next = was.next;
                entry.waiting = was.waiting;
            }
        }
    }

    pub(super) fn row(&self, terminal: &str) -> Option<TerminalRow> {
        let entry = self.terminals.get(terminal)?;
        Some(TerminalRow {
            seen: entry.seen,
            next: entry.next,
            waiting: entry.waiting,
        })
    }

    /// Receipts up to and with this one are durable.
    pub(super) fn durable(&mut self, terminal: &str, number: ReceiptNumber) {
        if let Some(entry) = self.terminals.get_mut(terminal) {
            entry.durable = entry.durable.max(number + 1);
        }
    }

    /// One past the last durable number; none if the disk has to be asked.
    pub(super) fn end(&self, terminal: &str) -> Option<ReceiptNumber> {
        let entry = self.terminals.get(terminal)?;
        (entry.next > 0).then_some(entry.durable)
    }

    /// The terminal was here. `Some` if that is new, with a terminal to forget for
    /// it.
    pub(super) fn seen(&mut self, terminal: &str) -> Option<Option<Arc<str>>> {
        if let Some(entry) = self.terminals.get_mut(terminal) {
            if entry.seen {
                return None;
            }
            entry.seen = true;
            self.unknown -= u64::from(entry.waiting);
            return Some(None);
        }
        let mut forgotten = None;
        if self.terminals.len() >= self.bounds.terminals_max {
            forgotten = Some(self.forget_blank()?);
        }
        let name: Arc<str> = terminal.into();
        self.blank.push_back(Arc::clone(&name));
        let entry = Entry {
            seen: true,
            next: 0,
            durable: 0,
            waiting: 0,
            going: 0,
        };
        self.terminals.insert(name, entry);
        Some(forgotten)
    }

    fn forget_blank(&mut self) -> Option<Arc<str>> {
        while let Some(terminal) = self.blank.pop_front() {
            let blank = self
                .terminals
                .get(&terminal)
                .is_some_and(|entry| entry.next <= 1 && entry.waiting == 0);
            if blank {
                self.terminals.remove(&terminal);
                return Some(terminal);
            }
        }
        None
    }

    /// A receipt is done with; `None` if it is already on its way out, or unknown.
    pub(super) fn going(&mut self, terminal: &str, number: ReceiptNumber) -> Option<Arc<str>> {
        let name = self.name(terminal)?;
        let entry = self.terminals.get_mut(terminal)?;
        if number == 0 || number >= entry.durable || !self.going.insert((Arc::clone(&name), number))
        {
            return None;
        }
        entry.going += 1;
        Some(name)
    }

    /// Whether it is on its way out.
    pub(super) fn is_going(&self, terminal: &Arc<str>, number: ReceiptNumber) -> bool {
        self.going.contains(&(Arc::clone(terminal), number))
    }

    pub(super) fn name(&self, terminal: &str) -> Option<Arc<str>> {
        let (name, _) = self.terminals.get_key_value(terminal)?;
        Some(Arc::clone(name))
    }

    /// Its row is about to be deleted.
    pub(super) fn leaves(&mut self, terminal: &str) {
        if let Some(entry) = self.terminals.get_mut(terminal)
            && entry.waiting > 0
        {
            entry.waiting -= 1;
            self.waiting -= 1;
            if !entry.seen {
                self.unknown -= 1;
            }
        }
    }

    /// The deletion was not taken.
    pub(super) fn stays(&mut self, terminal: &str) {
        if let Some(entry) = self.terminals.get_mut(terminal) {
            entry.waiting += 1;
            self.waiting += 1;
            if !entry.seen {
                self.unknown += 1;
            }
        }
    }

    /// Its row is gone, or was never there.
    pub(super) fn gone(&mut self, terminal: &Arc<str>, number: ReceiptNumber) {
        if self.going.remove(&(Arc::clone(terminal), number))
            && let Some(entry) = self.terminals.get_mut(terminal)
        {
            entry.going -= 1;
        }
    }

    /// All rows of a terminal up to `end` were read, and there are so many: what
    /// damage took does not wait any more.
    pub(super) fn recount(&mut self, terminal: &str, end: ReceiptNumber, rows: usize) {
        let Some(entry) = self.terminals.get_mut(terminal) else {
            return;
        };
        // Only where nothing is under way in either direction.
        if entry.going > 0 || entry.next != end || entry.durable != end {
            return;
        }
        let lost = u64::from(entry.waiting).saturating_sub(rows as u64);
        if lost > 0 {
            tracing::error!(
                terminal,
                lost,
                "receipts that waited are not on disk any more: damage; their terminal asks for them again"
            );
            entry.waiting -= u32::try_from(lost).unwrap_or(entry.waiting);
            self.waiting -= lost;
            if !entry.seen {
                self.unknown -= lost;
            }
        }
    }

    pub(super) fn has_waiting(&self, terminal: &str) -> bool {
        self.terminals
            .get(terminal)
            .is_some_and(|entry| entry.waiting > 0)
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    pub(super) fn unknown(&self) -> u64 {
        self.unknown
    }

    pub(super) fn terminals(&self) -> usize {
        self.terminals.len()
    }
}

impl Before {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests;
