//! What is remembered of the numbers that were settled, a partition at a time.
//!
//! Promises: a number that was settled is never taken for a new one; of each
//! terminal the newest numbers are kept, at most as many as the window, and none
//! below the highest that was forgotten is settled any more. What is remembered
//! follows from the changelog alone, compacted or not, so that it is the same after
//! every restart. Never: a clock.
//!
//! **Why a number below the window is refused.** A terminal keeps each record until
//! its receipt, and can't keep as many as the window holds. So a number that comes
//! when a whole window of later ones is settled was answered long ago, or belongs
//! to a terminal whose counter was set back: settling it could count a payment
//! twice, and whether it was settled is not known any more. The first one to come
//! late is known not to have been settled: it is, and forgotten at once.
//!
//! **Memory.** Some 300 bytes a number: 512 numbers are 150 KiB a terminal at most,
//! and 1,000 terminals 150 MiB, shared by all instances of the group.

use std::collections::{BTreeMap, HashMap};

/// What is remembered of one settled number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Offset of the record that settled it.
    pub offset: i64,
    /// When, by Kafka: Unix milliseconds.
    pub time_ms: u64,
    /// Digest of the record with its resend mark set.
    pub digest: [u8; 16],
    /// 0 accepted, else the reason.
    pub status: u16,
    /// What it was.
    pub kind: Kind,
    /// The amount, in minor units; of a reversal the payment's.
    pub amount_minor: u64,
    /// Its currency.
    pub currency: u16,
    /// The day to which it counts, in days since 1970.
    pub day: u32,
    /// The receipt, as it was sent.
    pub receipt: Box<[u8]>,
    /// Whether an accepted reversal took it back. Follows from the others.
    pub reversed: bool,
}

/// What a settled record was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A payment.
    Payment,
    /// A reversal of the payment with this number.
    Reversal {
        /// Its number.
        reverses: u64,
    },
    /// A record that could not be read.
    Unreadable,
}

/// Sums of a terminal's accepted payments of one day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// The day, in days since 1970.
    pub day: u32,
    /// Currency and sum in minor units.
    pub sums: Vec<(u16, u64)>,
}

impl Totals {
    /// The day to which a record of this day counts. The clocks of brokers differ:
    /// just after midnight a record of yesterday counts to today.
    #[must_use]
    pub fn counted_day(&self, day: u32) -> u32 {
        if day.checked_add(1) == Some(self.day) {
            self.day
        } else {
            day
        }
    }

    /// The sum of a day in a currency.
    #[must_use]
    pub fn sum_minor(&self, day: u32, currency: u16) -> u64 {
        let of_day = self.sums.iter().filter(|_| self.day == day);
        of_day
            .filter(|(code, _)| *code == currency)
            .map(|(_, sum)| *sum)
            .sum()
    }

    /// Currencies of that day.
    #[must_use]
    pub fn currencies(&self, day: u32) -> usize {
        if self.day == day { self.sums.len() } else { 0 }
    }

    fn add(&mut self, day: u32, currency: u16, amount_minor: u64) {
        if self.day != day {
            self.day = day;
            self.sums.clear();
        }
        match self.sums.iter_mut().find(|(code, _)| *code == currency) {
            Some((_, sum)) => *sum = sum.saturating_add(amount_minor),
            None => self.sums.push((currency, amount_minor)),
        }
    }

    fn take_off(&mut self, day: u32, currency: u16, amount_minor: u64) {
        if self.day != day {
            return;
        }
        if let Some((_, sum)) = self.sums.iter_mut().find(|(code, _)| *code == currency) {
            *sum = sum.saturating_sub(amount_minor);
        }
    }
}

/// What is remembered of one terminal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terminal {
    settled: BTreeMap<u64, Settled>,
    floor: u64,
    totals: Totals,
}

impl Terminal {
    /// What was settled under this number.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<&Settled> {
        self.settled.get(&sequence)
    }

    /// Numbers below this one are not settled any more.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Today's sums.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Remembers a number that is settled now, and returns the numbers that the
    /// window has no place for any more; it may be one of them itself.
    pub fn settle(&mut self, sequence: u64, settled: Settled, window: usize) -> Vec<u64> {
        if settled.status == 0 {
            match settled.kind {
                Kind::Payment => {
                    self.totals
                        .add(settled.day, settled.currency, settled.amount_minor);
                }
                Kind::Reversal { reverses } => {
                    if let Some(original) = self.settled.get(&reverses) {
                        self.totals.take_off(
                            original.day,
                            original.currency,
                            original.amount_minor,
                        );
                    }
                }
                Kind::Unreadable => {}
            }
        }
        self.insert(sequence, settled);
        let mut forgotten = Vec::new();
        // One stays, whatever the window: its row carries the floor.
        while self.settled.len() > window.max(1) {
            let Some((oldest, _)) = self.settled.pop_first() else {
                break;
            };
            self.floor = oldest + 1;
            forgotten.push(oldest);
        }
        forgotten
    }

    /// The number whose row says what holds of the terminal now that this one is
    /// settled: itself, or, if the window had no place for it, the last one settled
    /// before it that is kept. A row of its own would be deleted with it, and
    /// compaction would leave nothing of the floor that keeps it from being settled
    /// again. The last row written anew leaves the rows in their order.
    #[must_use]
    pub fn carrier(&self, sequence: u64) -> Option<(u64, &Settled)> {
        let itself = self.settled.get_key_value(&sequence);
        let last = || self.settled.iter().max_by_key(|(_, one)| one.offset);
        let (sequence, settled) = itself.or_else(last)?;
        Some((*sequence, settled))
    }

    /// Remembers it without counting: its sums come from the changelog.
    fn insert(&mut self, sequence: u64, settled: Settled) {
        if settled.status == 0
            && let Kind::Reversal { reverses } = settled.kind
            && let Some(original) = self.settled.get_mut(&reverses)
        {
            original.reversed = true;
        }
        self.settled.insert(sequence, settled);
    }
}

/// A number as the changelog has it, with what holds of its terminal then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What was settled.
    pub settled: Settled,
    /// [`Terminal::floor`] after it.
    pub floor: u64,
    /// [`Terminal::totals`] after it.
    pub totals: Totals,
}

/// What is remembered of all terminals of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    terminals: HashMap<Box<str>, Terminal>,
}

impl Partition {
    /// One terminal.
    #[must_use]
    pub fn terminal(&self, id: &str) -> Option<&Terminal> {
        self.terminals.get(id)
    }

    /// One terminal, made if it is new.
    pub fn terminal_mut(&mut self, id: &str) -> &mut Terminal {
        if !self.terminals.contains_key(id) {
            self.terminals.insert(id.into(), Terminal::default());
        }
        self.terminals.entry(id.into()).or_default()
    }

    /// Terminals that it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.terminals.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terminals.is_empty()
    }

    /// Numbers remembered, of all terminals.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.terminals.values().map(|t| t.settled.len()).sum()
    }

    /// Takes a row of the changelog, in its order; none is a tombstone.
    pub fn restore(&mut self, id: &str, sequence: u64, row: Option<Row>) {
        match row {
            Some(row) => {
                let terminal = self.terminal_mut(id);
                terminal.insert(sequence, row.settled);
                // The last row holds: compaction keeps it, being the newest of
                // its key, and only a later row comes with its tombstone.
                terminal.floor = row.floor;
                terminal.totals = row.totals;
            }
            None => {
                if let Some(terminal) = self.terminals.get_mut(id) {
                    terminal.settled.remove(&sequence);
                }
            }
        }
    }
}
