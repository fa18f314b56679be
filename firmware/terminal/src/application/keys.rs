//! What a key does, by what is on display.
//!
//! Promises: a payment is asked to be saved in one place only, on the screen with
//! its account and amount, once that could be read. Never: an effect of a key
//! that was pressed unseen.

use risiti_wire::card::is_card_number;

use super::entry::{Digits, with_digit};
use super::{Application, Draft, Effect, Notice, Page, Printing, Question};
use crate::hardware::Key;
use crate::limits::POSTPONE_MS;

impl Application {
    /// A key was pressed.
    pub fn key(&mut self, key: Key, now_ms: u64) -> Option<Effect> {
        let unseen = self.dark;
        self.light(now_ms);
        if unseen && (self.question.is_some() || !starts_something(key)) {
            self.page_since_ms = now_ms;
            return None;
        }
        match self.page {
            Page::Saved { .. } | Page::Notice(_) => {
                self.show(Page::Idle, now_ms);
                starts_something(key)
                    .then(|| self.key_idle(key, now_ms))
                    .flatten()
            }
            Page::Idle => self.key_idle(key, now_ms),
            Page::Account => self.key_account(key, now_ms),
            Page::Amount => self.key_amount(key, now_ms),
            Page::Confirm => self.key_confirm(key, now_ms),
            // The store will answer.
            Page::Saving => None,
        }
    }

    fn key_idle(&mut self, key: Key, now_ms: u64) -> Option<Effect> {
        let asked = self.question().copied();
        match (key, asked) {
            (Key::Digit(digit), _) => {
                if self.is_full() {
                    self.show(Page::Notice(Notice::Full), now_ms);
                } else {
                    self.account = Digits::EMPTY;
                    self.amount_minor = 0;
                    self.account.push(digit);
                    self.show(Page::Account, now_ms);
                }
                None
            }
            (Key::Enter, Some(question)) => self.answer(question, false, now_ms),
            (Key::Print, Some(question)) => self.answer(question, true, now_ms),
            (Key::Cancel, Some(question)) => {
                self.question = Some(Question {
                    postponed_to_ms: Some(now_ms + POSTPONE_MS),
                    ..question
                });
                None
            }
            (Key::Print, None) => self.key_print(now_ms),
            (Key::Fetch, _) => {
                self.asked = true;
                Some(Effect::Fetch)
            }
            (Key::Enter | Key::Delete | Key::Cancel, _) => None,
        }
    }

    fn key_account(&mut self, key: Key, now_ms: u64) -> Option<Effect> {
        match key {
            Key::Digit(digit) => self.account.push(digit),
            Key::Enter if is_card_number(self.account.bytes()) => {
                self.show(Page::Notice(Notice::Card), now_ms);
            }
            Key::Enter if self.account.account().is_some() => {
                self.show(Page::Amount, now_ms);
            }
            Key::Delete if self.account.pop() => {}
            Key::Cancel | Key::Delete => self.show(Page::Idle, now_ms),
            Key::Enter | Key::Print | Key::Fetch => {}
        }
        None
    }

    fn key_amount(&mut self, key: Key, now_ms: u64) -> Option<Effect> {
        match key {
            Key::Digit(digit) => self.amount_minor = with_digit(self.amount_minor, digit),
            Key::Enter if self.amount_minor > 0 => self.show(Page::Confirm, now_ms),
            Key::Delete if self.amount_minor > 0 => self.amount_minor /= 10,
            Key::Delete => self.show(Page::Account, now_ms),
            Key::Cancel => self.show(Page::Notice(Notice::Stopped), now_ms),
            Key::Enter | Key::Print | Key::Fetch => {}
        }
        None
    }

    fn key_confirm(&mut self, key: Key, now_ms: u64) -> Option<Effect> {
        match key {
            Key::Enter if self.was_read(now_ms) => {
                let account = self.account.account()?;
                self.show(Page::Saving, now_ms);
                return Some(Effect::Save(Draft {
                    account,
                    amount_minor: self.amount_minor,
                    currency: self.currency,
                }));
            }
            Key::Delete => self.show(Page::Amount, now_ms),
            Key::Cancel => self.show(Page::Notice(Notice::Stopped), now_ms),
            _ => {}
        }
        None
    }

    fn key_print(&mut self, now_ms: u64) -> Option<Effect> {
        if self.battery_low {
            self.show(Page::Notice(Notice::ChargeToPrint), now_ms);
            return None;
        }
        if self.levels.to_print > 0 && self.question.is_none() {
            self.print_after_ms = 0;
            if let Printing::Stopped { .. } = self.printing {
                self.printing = Printing::Free;
            }
            return self.next_print(now_ms);
        }
        if matches!(self.printing, Printing::Busy { .. }) {
            return None;
        }
        self.printing = Printing::Busy { last: true };
        Some(Effect::PrintLast)
    }

    fn answer(&mut self, question: Question, again: bool, now_ms: u64) -> Option<Effect> {
        if !self.was_read(now_ms) {
            return None;
        }
        if again && self.battery_low {
            self.show(Page::Notice(Notice::ChargeToPrint), now_ms);
            return None;
        }
        self.question = None;
        self.printing = Printing::Busy { last: false };
        Some(Effect::Answer {
            ordinal: question.ordinal,
            again,
        })
    }
}

/// Whether a key does something on an idle screen that is worth doing unseen.
fn starts_something(key: Key) -> bool {
    matches!(key, Key::Digit(_) | Key::Print | Key::Fetch)
}
