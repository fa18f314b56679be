//! The people before a terminal: they pay, read, answer, and keep an auditor's book.
//!
//! Promises: knows the screen, the papers and what was meant to be paid, nothing
//! else, and answers truthfully. What one payment is does not depend on whether
//! another is made. Never: a look into the terminal.

use std::collections::BTreeMap;

use risiti_sim::printer::Paper;
use risiti_terminal::hardware::{Key, Screen};
use risiti_terminal::limits::READ_MS;

use crate::contract::Ms;

/// A payment that somebody means to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// Which of the scenario's it is.
    pub index: usize,
    /// When they come.
    pub at_ms: Ms,
    /// Digits of the account; no other payment of the scenario has them.
    pub account: String,
    /// In minor units.
    pub amount_minor: u64,
}

/// A payment that the display has shown as saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The number that it was shown with.
    pub sequence: u64,
    /// Digits of the account.
    pub account: String,
    /// In minor units.
    pub amount_minor: u64,
}

/// What people saw on the display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A payment is saved.
    Saved(Saved),
    /// This is the last number that the terminal saved, it says; 0: none.
    LastNumber(u64),
}

/// The people before one terminal.
#[derive(Debug)]
pub struct People {
    /// Still to be made, the next one last.
    queue: Vec<Meant>,
    plan: Option<Meant>,
    /// ENTER was pressed on the last question, and no answer seen yet.
    confirmed: bool,
    hand_ms: Ms,
    seen: Screen,
    last_number: u64,
    /// Whole papers by payment.
    papers: BTreeMap<u64, u32>,
    /// What was shown as saved and has no paper yet.
    missing: Vec<u64>,
    fetch_at_ms: Ms,
    /// They ask for receipts once more, though they have them all.
    pub encore: bool,
    /// What was seen, and not told to the reference yet.
    pub told: Vec<Seen>,
}

/// From one key to the next: practised hands, and beyond what a terminal takes for
/// a doubled key.
const KEY_MS: u64 = 200;

/// How long a screen that asks is read.
const ASKED_MS: u64 = READ_MS + 100;

/// Who waits for a receipt asks for it so often once it is quiet.
const FETCH_MS: u64 = 120_000;

impl People {
    /// Who mean to make these payments.
    pub fn new(mut queue: Vec<Meant>) -> Self {
        queue.sort_by_key(|one| std::cmp::Reverse((one.at_ms, one.index)));
        Self {
            queue,
            plan: None,
            confirmed: false,
            hand_ms: 0,
            seen: Screen([[b' '; 16]; 4]),
            last_number: 0,
            papers: BTreeMap::new(),
            missing: Vec::new(),
            fetch_at_ms: Ms::MAX,
            encore: false,
            told: Vec::new(),
        }
    }

    /// From now on who misses a receipt asks for it.
    pub fn ask_for_receipts(&mut self, now_ms: Ms) {
        self.fetch_at_ms = self.fetch_at_ms.min(now_ms + FETCH_MS);
    }

    /// Every payment was made, and its paper is in hand.
    pub fn is_content(&self) -> bool {
        self.queue.is_empty() && self.plan.is_none() && self.missing.is_empty()
    }

    /// Payments that were shown as saved and have no paper.
    pub fn missing(&self) -> &[u64] {
        &self.missing
    }

    /// A paper came out.
    pub fn paper(&mut self, paper: &Paper) {
        if let (true, Some(number)) = (paper.whole, paper.payment()) {
            *self.papers.entry(number).or_default() += 1;
            self.missing.retain(|one| *one != number);
        }
    }

    /// When they look again if the screen does not change.
    pub fn due_ms(&self) -> Ms {
        let screen = kind(&self.seen);
        let waits = match screen {
            Kind::Saving => return Ms::MAX,
            Kind::Idle | Kind::Dark if self.encore => 0,
            Kind::Idle | Kind::Dark => match (&self.plan, self.queue.last()) {
                (Some(plan), _) | (None, Some(plan)) => plan.at_ms,
                (None, None) => Ms::MAX,
            }
            .min(if self.missing.is_empty() {
                Ms::MAX
            } else {
                self.fetch_at_ms
            }),
            _ => 0,
        };
        waits.max(self.hand_ms)
    }

    /// The power is gone: hands off.
    pub fn dark(&mut self) {
        self.seen = Screen([[b' '; 16]; 4]);
    }

    /// What they press now, if anything.
    pub fn look(&mut self, screen: &Screen, now_ms: Ms) -> Option<Key> {
        if self.seen != *screen {
            self.seen = *screen;
            self.read();
            let kind = kind(screen);
            let pause_ms = match kind {
                Kind::Confirm | Kind::Question => ASKED_MS,
                _ => KEY_MS,
            };
            self.hand_ms = now_ms + pause_ms;
        }
        if now_ms < self.due_ms() {
            return None;
        }
        self.hand_ms = now_ms + ASKED_MS;
        self.decide(now_ms)
    }

    fn read(&mut self) {
        let rows = self.seen.0;
        match kind(&self.seen) {
            Kind::Saved => {
                if let Some(sequence) = number(&rows[0][6..]) {
                    self.saved(sequence);
                }
            }
            Kind::Idle => {
                let at = rows[1].iter().position(|byte| *byte == b'#');
                let last = at.and_then(|at| number(&rows[1][at + 1..])).unwrap_or(0);
                self.told.push(Seen::LastNumber(last));
                // After a power cut the idle screen tells what became of it.
                if last > self.last_number {
                    self.saved(last);
                }
                self.confirmed = false;
            }
            Kind::NotSaved => self.confirmed = false,
            _ => {}
        }
    }

    /// The terminal says that the payment which was confirmed is saved.
    fn saved(&mut self, sequence: u64) {
        self.last_number = sequence.max(self.last_number);
        if !std::mem::take(&mut self.confirmed) {
            return;
        }
        let Some(plan) = self.plan.take() else {
            return;
        };
        if !self.papers.contains_key(&sequence) {
            self.missing.push(sequence);
        }
        self.told.push(Seen::Saved(Saved {
            sequence,
            account: plan.account,
            amount_minor: plan.amount_minor,
        }));
    }

    fn decide(&mut self, now_ms: Ms) -> Option<Key> {
        let rows = self.seen.0;
        match kind(&self.seen) {
            Kind::Question => {
                let asked = number(rows[0].get(11..).unwrap_or_default());
                let there = asked.is_some_and(|asked| self.papers.contains_key(&asked));
                Some(if there { Key::Enter } else { Key::Print })
            }
            Kind::Account => {
                let typed = digits(&[&rows[1], &rows[2]]);
                self.type_on(typed, |plan| plan.account.clone())
            }
            Kind::Amount => {
                let typed = digits(&[&rows[1]]);
                let typed = typed.trim_start_matches('0').to_owned();
                self.type_on(typed, |plan| plan.amount_minor.to_string())
            }
            Kind::Confirm => {
                let amount = digits(&[&rows[1]]);
                let account = digits(&[&rows[2], &rows[3]]);
                let right = self.plan.as_ref().is_some_and(|plan| {
                    plan.account == account
                        && amount.trim_start_matches('0') == plan.amount_minor.to_string()
                });
                self.confirmed = right;
                Some(if right { Key::Enter } else { Key::Cancel })
            }
            Kind::Saving => None,
            Kind::Idle | Kind::Dark => self.begin(now_ms),
            Kind::Saved | Kind::NotSaved | Kind::Notice => Some(Key::Cancel),
        }
    }

    fn begin(&mut self, now_ms: Ms) -> Option<Key> {
        let dark = kind(&self.seen) == Kind::Dark;
        if self.plan.is_none() && self.queue.last().is_some_and(|one| one.at_ms <= now_ms) {
            self.plan = self.queue.pop();
        }
        match &self.plan {
            // Light first: who types reads.
            Some(_) if dark => Some(Key::Cancel),
            Some(plan) => Some(digit(plan.account.as_bytes().first())),
            None if std::mem::take(&mut self.encore) => Some(Key::Fetch),
            None if !self.missing.is_empty() && now_ms >= self.fetch_at_ms => {
                self.fetch_at_ms = now_ms + FETCH_MS;
                Some(Key::Fetch)
            }
            None => None,
        }
    }

    /// The next key on the way from what is typed to what is meant.
    fn type_on(&self, typed: String, meant: impl Fn(&Meant) -> String) -> Option<Key> {
        let Some(plan) = &self.plan else {
            return Some(Key::Cancel);
        };
        Some(match meant(plan).strip_prefix(typed.as_str()) {
            None => Key::Delete,
            Some("") => Key::Enter,
            Some(rest) => digit(rest.as_bytes().first()),
        })
    }
}

/// What a person takes a screen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dark,
    Idle,
    Account,
    Amount,
    Confirm,
    Saving,
    Saved,
    NotSaved,
    Question,
    Notice,
}

fn kind(screen: &Screen) -> Kind {
    let rows = &screen.0;
    let title = &rows[0];
    if title.starts_with(b"SAVED ") {
        Kind::Saved
    } else if title.starts_with(b"SAVING") {
        Kind::Saving
    } else if title.starts_with(b"ACCOUNT ") {
        Kind::Account
    } else if title.starts_with(b"AMOUNT ") {
        Kind::Amount
    } else if title.starts_with(b"PAY?") {
        Kind::Confirm
    } else if title.starts_with(b"RECEIPT OF ") {
        Kind::Question
    } else if title.starts_with(b"NOT SAVED") || title.starts_with(b"FULL") {
        Kind::NotSaved
    } else if rows[1].starts_with(b"ACCOUNT?") {
        Kind::Idle
    } else if rows.iter().flatten().all(|byte| *byte == b' ') {
        Kind::Dark
    } else {
        Kind::Notice
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.trim().parse().ok()
}

fn digits(rows: &[&[u8]]) -> String {
    let all = rows.iter().flat_map(|row| row.iter());
    let digits = all.filter(|byte| byte.is_ascii_digit());
    digits.map(|byte| char::from(*byte)).collect()
}

fn digit(character: Option<&u8>) -> Key {
    Key::Digit(character.map_or(0, |byte| byte.saturating_sub(b'0')))
}
