//! An auditor's book about one terminal: what its people saw and hold in hands.
//!
//! Promises: written from the display and the papers alone. Never: a look into
//! the terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ledger::Account;
use crate::operator::Saved;
use crate::printer::Paper;

/// What one terminal did, as far as people can see.
#[derive(Debug, Clone, Default)]
pub struct Book {
    saved: BTreeMap<u64, u64>,
    papers: BTreeMap<u64, Papers>,
    waited: Vec<Duration>,
    /// Papers of which nobody can tell what they answer.
    scraps: u64,
    /// Times that the power was cut.
    pub power_cuts: u64,
    /// Times that the battery gave up.
    pub brown_outs: u64,
    /// Times that the watchdog had to reset it.
    pub resets: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Papers {
    /// Whole ones that don't say that there may be others.
    originals: u32,
    /// Whole ones that do.
    again: u32,
    torn: u32,
    rejected: bool,
}

impl Book {
    /// The terminal has shown a payment as saved.
    pub fn saved(&mut self, saved: &Saved) {
        self.saved.insert(saved.sequence, saved.at_ms);
    }

    /// A paper came out.
    pub fn paper(&mut self, paper: &Paper, now_ms: u64) {
        let Some(number) = paper.payment() else {
            self.scraps += 1;
            return;
        };
        let papers = self.papers.entry(number).or_default();
        match (paper.whole, paper.again()) {
            (false, _) => papers.torn += 1,
            (true, false) => papers.originals += 1,
            (true, true) => papers.again += 1,
        }
        papers.rejected |= paper.accepted() == Some(false);
        if paper.whole
            && papers.originals + papers.again == 1
            && let Some(at_ms) = self.saved.get(&number)
        {
            let waited_ms = now_ms.saturating_sub(*at_ms);
            self.waited.push(Duration::from_millis(waited_ms));
        }
    }

    /// Payments that were shown as saved.
    #[must_use]
    pub fn saved_count(&self) -> u64 {
        self.saved.len() as u64
    }

    /// Payments of which a whole paper is there.
    #[must_use]
    pub fn printed_count(&self) -> u64 {
        let whole = |papers: &&Papers| papers.originals + papers.again > 0;
        self.papers.values().filter(whole).count() as u64
    }

    /// Papers that say that there may be others.
    #[must_use]
    pub fn again_count(&self) -> u64 {
        self.papers.values().map(|p| u64::from(p.again)).sum()
    }

    /// Papers that are not whole.
    #[must_use]
    pub fn torn_count(&self) -> u64 {
        let torn: u64 = self.papers.values().map(|p| u64::from(p.torn)).sum();
        torn + self.scraps
    }

    /// For the judge. An original beyond the first is a receipt printed twice; a
    /// paper that says that it is printed again counts only where there is no
    /// whole original.
    #[must_use]
    pub fn account(&self) -> Account {
        let published = self.saved.keys().next_back().copied().unwrap_or(0);
        let skipped: BTreeSet<u64> = (1..=published)
            .filter(|number| !self.saved.contains_key(number))
            .collect();
        let times = |papers: &Papers| papers.originals.max(papers.again.min(1));
        let printed: BTreeMap<u64, u32> = self
            .papers
            .iter()
            .map(|(number, papers)| (*number, times(papers)))
            .filter(|(_, times)| *times > 0)
            .collect();
        let strangers = printed.keys().filter(|n| !self.saved.contains_key(n));
        let rejected = self.papers.values().filter(|papers| papers.rejected);
        Account {
            published,
            skipped,
            acknowledged: printed.keys().copied().collect(),
            strangers: strangers.count() as u64,
            rejected: rejected.count() as u64,
            printed,
            power_cuts: self.power_cuts + self.brown_outs,
            waited: self.waited.clone(),
            ..Account::default()
        }
    }
}
