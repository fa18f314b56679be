//! A person at a terminal: makes payments by its keys, reads its screen, looks
//! at its papers.
//!
//! Promises: knows nothing but what a person would (the screen, the papers, what
//! was meant to be paid), and answers truthfully; with the same seed and the same
//! screens, the same keys. Never: a clock; time is passed in.
//!
//! The book that is kept is an auditor's: what the terminal has shown as saved.

use fastrand::Rng;
use risiti_terminal::hardware::{Key, Screen};

use crate::printer::Paper;

/// How a person pays.
#[derive(Debug, Clone)]
pub struct Habits {
    /// How many payments to make in all.
    pub payments: u32,
    /// From one payment to the next, at least and at most.
    pub pause_ms: (u64, u64),
    /// From one key to the next, at least and at most.
    pub key_ms: (u64, u64),
    /// How long a screen that asks is read, at least and at most.
    pub read_ms: (u64, u64),
    /// A wrong key in so many; it is taken back.
    pub slips: f64,
    /// Payments that are given up at the last question; another is made instead.
    pub second_thoughts: f64,
    /// Asks for receipts after a payment.
    pub fetches: f64,
    /// Asks for the last receipt again after a payment.
    pub reprints: f64,
}

impl Default for Habits {
    /// One payment an hour or so, by practised hands.
    fn default() -> Self {
        Self {
            payments: 1,
            pause_ms: (10 * 60_000, 120 * 60_000),
            key_ms: (120, 400),
            read_ms: (600, 2_500),
            slips: 0.02,
            second_thoughts: 0.02,
            fetches: 0.1,
            reprints: 0.05,
        }
    }
}

/// A payment that the terminal has shown as saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The number that it was shown with.
    pub sequence: u64,
    /// The account's digits.
    pub account: String,
    /// In minor units.
    pub amount_minor: u64,
    /// When it was first seen.
    pub at_ms: u64,
}

/// What a person does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Presses a key now.
    Press(Key),
    /// Puts a new roll into the printer now.
    PutRoll,
    /// Closes the printer now.
    ClosePrinter,
    /// Looks again when the screen has changed, and at this time if it has not.
    LookAt {
        /// When.
        at_ms: u64,
    },
    /// Has nothing more to do; comes back if the screen asks something.
    Done,
}

/// What is to be paid.
#[derive(Debug, Clone)]
struct Plan {
    account: String,
    amount_minor: u64,
    /// ENTER was pressed on the last question, and no answer seen yet.
    confirmed: bool,
    given_up: bool,
}

/// A person at a terminal.
#[derive(Debug)]
pub struct Operator {
    habits: Habits,
    rng: Rng,
    begun: u32,
    plan: Option<Plan>,
    /// Not before this time is the next payment begun.
    next_ms: u64,
    /// The hand is not at the key before this time.
    hand_ms: u64,
    /// The screen that was read last.
    seen: String,
    /// What to press once the payment is saved.
    afterwards: Vec<Key>,
    /// The printer was put right, and has not been told.
    fixed: bool,
    last_number: u64,
    saved: Vec<Saved>,
}

impl Operator {
    /// A person who comes at this time.
    #[must_use]
    pub fn new(habits: Habits, seed: u64, now_ms: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (least, most) = habits.pause_ms;
        Self {
            next_ms: now_ms + rng.u64(0..=most - least),
            hand_ms: now_ms,
            habits,
            rng,
            begun: 0,
            plan: None,
            seen: String::new(),
            afterwards: Vec::new(),
            fixed: false,
            last_number: 0,
            saved: Vec::new(),
        }
    }

    /// What the terminal has shown as saved.
    #[must_use]
    pub fn saved(&self) -> &[Saved] {
        &self.saved
    }

    /// Begins no more payments; one that is begun is made.
    pub fn rest(&mut self) {
        self.habits.payments = self.begun;
    }

    /// Whether every payment was made, and shown as saved.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.begun >= self.habits.payments && self.plan.is_none()
    }

    /// What to do with this screen (its rows, each with a line feed or not, blanks
    /// at their ends as they like) and these papers, which came out so far.
    pub fn act(&mut self, screen: &str, papers: &[Paper], now_ms: u64) -> Act {
        let screen = trimmed(screen);
        if screen != self.seen {
            self.read(&screen, now_ms);
            let (least, most) = if asks(&screen) {
                self.habits.read_ms
            } else {
                self.habits.key_ms
            };
            self.hand_ms = now_ms + self.rng.u64(least..=most);
            self.seen = screen;
        }
        if now_ms < self.hand_ms {
            return Act::LookAt {
                at_ms: self.hand_ms,
            };
        }
        let act = self.decide(papers, now_ms);
        if !matches!(act, Act::LookAt { .. } | Act::Done) {
            // The next look tells what it did; if nothing changed it is done
            // again, after as long as a person waits for a machine.
            let (least, most) = self.habits.read_ms;
            self.hand_ms = now_ms + self.rng.u64(least..=most);
        }
        act
    }

    /// Notes what the screen says.
    fn read(&mut self, screen: &str, now_ms: u64) {
        let mut rows = screen.lines();
        let title = rows.next().unwrap_or_default();
        if let Some(number) = title.strip_prefix("SAVED ") {
            self.note(number, now_ms);
            return;
        }
        if title == "NOT SAVED" || title == "FULL" {
            if let Some(plan) = &mut self.plan {
                plan.confirmed = false;
            }
            let (least, most) = self.habits.pause_ms;
            self.next_ms = now_ms + self.rng.u64(least..=most);
        }
        // After a power cut: the idle screen tells the last number.
        if let Some((_, number)) = rows.next().and_then(|row| row.split_once('#')) {
            self.note(number, now_ms);
        }
        if is_idle(screen)
            && let Some(plan) = &mut self.plan
        {
            plan.confirmed = false;
        }
    }

    /// The terminal says that this is the last number that it saved.
    fn note(&mut self, number: &str, now_ms: u64) {
        let Ok(sequence) = number.trim().parse() else {
            return;
        };
        if sequence <= self.last_number {
            return;
        }
        self.last_number = sequence;
        let Some(plan) = self.plan.take_if(|plan| plan.confirmed) else {
            return;
        };
        self.saved.push(Saved {
            sequence,
            account: plan.account,
            amount_minor: plan.amount_minor,
            at_ms: now_ms,
        });
        let (least, most) = self.habits.pause_ms;
        self.next_ms = now_ms + self.rng.u64(least..=most);
        if self.rng.f64() < self.habits.reprints {
            self.afterwards.push(Key::Print);
        }
        if self.rng.f64() < self.habits.fetches {
            self.afterwards.push(Key::Fetch);
        }
    }

    fn decide(&mut self, papers: &[Paper], now_ms: u64) -> Act {
        let screen = self.seen.clone();
        let rows: Vec<&str> = screen.lines().collect();
        let row = |at: usize| rows.get(at).copied().unwrap_or_default();
        let title = row(0);
        if let Some(number) = title.strip_prefix("RECEIPT OF ") {
            let number = number.parse().ok();
            let there = papers
                .iter()
                .any(|paper| paper.whole && paper.payment() == number);
            return Act::Press(if there { Key::Enter } else { Key::Print });
        }
        match title {
            "ACCOUNT" => self.type_account(&digits(&[row(1), row(2)])),
            "AMOUNT" => self.type_amount(&digits(&[row(1)])),
            _ if title.starts_with("PAY?") => {
                self.confirm(&digits(&[row(1)]), &digits(&[row(2), row(3)]))
            }
            "NO PAPER" | "PRINTER OPEN" => self.fix(title),
            "FULL" => Act::Press(Key::Fetch),
            "SAVING" => Act::LookAt {
                at_ms: now_ms + 1_000,
            },
            _ if screen.is_empty() || is_idle(&screen) => match row(3) {
                trouble @ ("NO PAPER" | "PRINTER OPEN") => self.fix(trouble),
                _ => self.begin(&screen, now_ms),
            },
            // A notice: read, and gone.
            _ => Act::Press(Key::Cancel),
        }
    }

    /// Puts the printer right, then says so by its key.
    fn fix(&mut self, trouble: &str) -> Act {
        self.fixed = !self.fixed;
        match trouble {
            _ if !self.fixed => Act::Press(Key::Print),
            "NO PAPER" => Act::PutRoll,
            _ => Act::ClosePrinter,
        }
    }

    /// Begins with the next payment, if it is time for it.
    fn begin(&mut self, screen: &str, now_ms: u64) -> Act {
        let wants = self.plan.is_some() || self.begun < self.habits.payments;
        if !self.afterwards.is_empty() || wants && now_ms >= self.next_ms {
            if screen.is_empty() {
                // Light first: a person reads before typing.
                return Act::Press(Key::Cancel);
            }
        } else if wants {
            return Act::LookAt {
                at_ms: self.next_ms,
            };
        } else {
            return Act::Done;
        }
        if let Some(key) = self.afterwards.pop() {
            return Act::Press(key);
        }
        if self.plan.is_none() {
            self.begun += 1;
            self.plan = Some(self.draw());
        }
        match &self.plan {
            Some(plan) => digit(plan.account.as_bytes().first()),
            None => Act::Done,
        }
    }

    fn draw(&mut self) -> Plan {
        let length = self.rng.usize(6..=12);
        let account = (0..length).map(|_| self.rng.char('0'..='9')).collect();
        Plan {
            account,
            // Whole units, up to 20,000.00.
            amount_minor: self.rng.u64(1..=20_000) * 100,
            confirmed: false,
            given_up: self.rng.f64() < self.habits.second_thoughts,
        }
    }

    fn type_account(&mut self, typed: &str) -> Act {
        match &self.plan {
            Some(plan) => {
                let account = plan.account.clone();
                self.type_on(typed, &account)
            }
            None => Act::Press(Key::Cancel),
        }
    }

    fn type_amount(&mut self, typed: &str) -> Act {
        match &self.plan {
            Some(plan) => {
                let amount = plan.amount_minor.to_string();
                self.type_on(typed.trim_start_matches('0'), &amount)
            }
            None => Act::Press(Key::Cancel),
        }
    }

    /// The next key on the way from what is typed to what is meant.
    fn type_on(&mut self, typed: &str, meant: &str) -> Act {
        match meant.strip_prefix(typed) {
            None => Act::Press(Key::Delete),
            Some("") => Act::Press(Key::Enter),
            Some(_) if self.rng.f64() < self.habits.slips => {
                Act::Press(Key::Digit(self.rng.u8(0..=9)))
            }
            Some(rest) => digit(rest.as_bytes().first()),
        }
    }

    fn confirm(&mut self, amount: &str, account: &str) -> Act {
        match &mut self.plan {
            Some(plan)
                if plan.account == account
                    && amount.trim_start_matches('0') == plan.amount_minor.to_string() =>
            {
                if plan.given_up {
                    self.plan = None;
                    self.begun -= 1;
                    return Act::Press(Key::Cancel);
                }
                plan.confirmed = true;
                Act::Press(Key::Enter)
            }
            _ => Act::Press(Key::Cancel),
        }
    }
}

/// The rows of a screen, as a person at a console sees them.
#[must_use]
pub fn text(screen: &Screen) -> String {
    let rows = screen.0.iter().map(|row| String::from_utf8_lossy(row));
    rows.collect::<Vec<_>>().join("\n")
}

/// The byte of a key on a console: digits, return, backspace, `c`, `p`, `f`.
#[must_use]
pub fn console_byte(key: Key) -> u8 {
    match key {
        Key::Digit(digit) => b'0' + digit % 10,
        Key::Enter => b'\r',
        Key::Delete => 0x08,
        Key::Cancel => b'c',
        Key::Print => b'p',
        Key::Fetch => b'f',
    }
}

fn trimmed(screen: &str) -> String {
    let rows: Vec<&str> = screen.lines().map(str::trim_end).collect();
    rows.join("\n").trim_end().to_owned()
}

/// Whether a screen wants a decision, not only a digit.
fn asks(screen: &str) -> bool {
    screen.starts_with("PAY?") || screen.starts_with("RECEIPT OF ")
}

fn is_idle(screen: &str) -> bool {
    let second = screen.lines().nth(1);
    second.is_some_and(|row| row.starts_with("ACCOUNT?"))
}

fn digits(rows: &[&str]) -> String {
    let all = rows.iter().flat_map(|row| row.chars());
    all.filter(char::is_ascii_digit).collect()
}

fn digit(character: Option<&u8>) -> Act {
    Act::Press(Key::Digit(
        character.map_or(0, |byte| byte.saturating_sub(b'0')),
    ))
}
