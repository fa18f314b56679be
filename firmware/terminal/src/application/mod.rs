//! Keys in, screens out: what the people at a terminal do and see.
//!
//! Promises: a payment is saved only after a screen with its account and its
//! amount was confirmed, and shown as saved only after the store has said so; a
//! receipt that may be on paper already is printed again only when a person asks
//! for it; whatever is shown goes away by itself, except a question. Never: a
//! clock, a key, a display or a printer; [`key`](Application::key),
//! [`fact`](Application::fact) and [`tick`](Application::tick) are called, and
//! return what is to be done.
//!
//! ```text
//!  idle ──digit──▶ account ──ENTER──▶ amount ──ENTER──▶ pay? ──ENTER──▶ saving
//!   ▲ ◀──CANCEL, or no key for a while──┴───────────────┘                 │
//!   └──◀──── SAVED n, NOT SAVED, FULL ◀── what the store has said ◀───────┘
//! ```
//!
//! Printing goes on beside all this. The display goes dark when nothing happens:
//! it costs more than all else that is on. A key that can't be meant for what it
//! would do, since its screen was dark or has only just come up, does nothing
//! but light the display: nobody confirms a payment, or a paper, unseen.

mod entry;
mod facts;
mod keys;
mod screens;

use risiti_wire::Currency;

use entry::Digits;
pub use facts::{Answered, Draft, Effect, Fact, Levels, NotSaved, Radio, RadioTrouble};

use crate::limits::{
    BATTERY_LOW_MV, BATTERY_RECOVERED_MV, DARK_MS, ENTRY_MS, NOTICE_MS, PRINT_RETRY_MS,
    PRINT_RETRY_MS_MAX, READ_MS,
};
use crate::printing::PrinterError;

/// A time that does not come.
const NEVER: u64 = u64::MAX;

/// What is on display, besides receipts.
#[derive(Debug, Clone, Copy)]
enum Page {
    Idle,
    Account,
    Amount,
    Confirm,
    Saving,
    Saved { sequence: u32 },
    Notice(Notice),
}

/// What is told for a while.
#[derive(Debug, Clone, Copy)]
enum Notice {
    Stopped,
    Card,
    Full,
    NotSaved,
    NoReceipt,
    ChargeToPrint,
    Printed(Answered),
    PrinterStopped(Fault),
}

/// Where the receipts are on their way to paper.
#[derive(Debug, Clone, Copy)]
enum Printing {
    Free,
    /// Asked for, not answered yet; `last` if it is the last one again.
    Busy {
        last: bool,
    },
    /// It did not work; tried again at this time, or by key.
    Stopped {
        fault: Fault,
        retry_at_ms: u64,
    },
}

/// What stands between a receipt and its paper.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Printer(PrinterError),
    Storage,
}

/// A receipt of which nobody here knows whether it is on paper.
#[derive(Debug, Clone, Copy)]
struct Question {
    ordinal: u32,
    sequence: u32,
    /// Asked again at this time, if a person had no time for it.
    postponed_to_ms: Option<u64>,
}

/// The application.
pub struct Application {
    currency: Currency,
    utc_offset_minutes: i16,

    page: Page,
    /// Since when the page, or the question on it, can be read.
    page_since_ms: u64,
    account: Digits,
    amount_minor: u32,
    /// The display is off until something happens.
    dark: bool,
    /// When the display goes dark.
    dark_at_ms: u64,
    /// When the clock on it changes.
    minute_at_ms: u64,

    levels: Levels,
    printing: Printing,
    /// The receipt in the printer.
    current: Option<Answered>,
    question: Option<Question>,
    /// How long to wait before printing is tried again.
    retry_ms: u64,
    /// Nothing is printed before, since the store had nothing to print.
    print_after_ms: u64,

    radio: Radio,
    /// Fetching was asked for, and the radio has not said anything since.
    asked: bool,
    signal: Option<u8>,
    battery_mv: Option<u16>,
    battery_low: bool,
    /// The time in seconds since 1970 UTC, and when it was told.
    clock: Option<(u32, u64)>,
}

impl Application {
    /// An application that takes payments in this currency, where clocks are so
    /// many minutes ahead of UTC. Tell it the [`Levels`] next.
    #[must_use]
    pub fn new(currency: Currency, utc_offset_minutes: i16, now_ms: u64) -> Self {
        Self {
            currency,
            utc_offset_minutes,
            page: Page::Idle,
            page_since_ms: now_ms,
            account: Digits::EMPTY,
            amount_minor: 0,
            dark: false,
            dark_at_ms: now_ms + DARK_MS,
            minute_at_ms: NEVER,
            levels: Levels::default(),
            printing: Printing::Free,
            current: None,
            question: None,
            retry_ms: PRINT_RETRY_MS,
            print_after_ms: 0,
            radio: Radio::Off,
            asked: false,
            signal: None,
            battery_mv: None,
            battery_low: false,
            clock: None,
        }
    }

    /// The time now for a record, in seconds since 1970 UTC; 0 if it is not
    /// known, also when the network has not told it for 49 days.
    #[must_use]
    pub fn time_s(&self, now_ms: u64) -> u32 {
        self.clock
            .and_then(|(time_s, at_ms)| {
                let since_ms = u32::try_from(now_ms.saturating_sub(at_ms)).ok()?;
                time_s.checked_add(since_ms / 1_000)
            })
            .unwrap_or(0)
    }

    /// Something happened.
    pub fn fact(&mut self, fact: Fact, now_ms: u64) -> Option<Effect> {
        match fact {
            Fact::Clock { time_s } => {
                self.clock = Some((time_s, now_ms));
                self.see_minute(now_ms);
            }
            Fact::Battery { millivolts } => {
                self.battery_mv = Some(millivolts);
                self.battery_low = if self.battery_low {
                    millivolts < BATTERY_RECOVERED_MV
                } else {
                    millivolts < BATTERY_LOW_MV
                };
            }
            Fact::Signal(signal) => self.signal = signal,
            Fact::Levels(levels) => self.levels = levels,
            Fact::Radio(radio) => {
                self.radio = radio;
                self.asked = false;
            }
            Fact::Saved { sequence } => self.stored(Page::Saved { sequence }, now_ms),
            Fact::NotSaved(NotSaved::Full) => self.stored(Page::Notice(Notice::Full), now_ms),
            Fact::NotSaved(NotSaved::Failed) => {
                self.stored(Page::Notice(Notice::NotSaved), now_ms);
            }
            Fact::Printing(receipt) => {
                self.current = Some(receipt);
                self.light(now_ms);
            }
            Fact::Printed(receipt) => {
                let last = matches!(self.printing, Printing::Busy { last: true });
                self.print_ended(!last, now_ms);
                self.retry_ms = PRINT_RETRY_MS;
                self.tell(Notice::Printed(receipt), now_ms);
            }
            Fact::Settled => self.print_ended(true, now_ms),
            Fact::NothingToPrint => {
                if matches!(self.printing, Printing::Busy { last: true }) {
                    self.tell(Notice::NoReceipt, now_ms);
                } else {
                    // A store that counts what it can't read must not be asked
                    // again and again.
                    self.print_after_ms = now_ms + PRINT_RETRY_MS;
                }
                self.print_ended(false, now_ms);
            }
            Fact::PrinterStopped(error) => self.print_failed(Fault::Printer(error), now_ms),
            Fact::StorageFailed => self.print_failed(Fault::Storage, now_ms),
            Fact::Interrupted { ordinal, sequence } => {
                self.print_ended(false, now_ms);
                self.question = Some(Question {
                    ordinal,
                    sequence,
                    postponed_to_ms: None,
                });
                self.light(now_ms);
            }
        }
        self.next_print(now_ms)
    }

    /// The time of [`due`](Self::due) has come.
    pub fn tick(&mut self, now_ms: u64) -> Option<Effect> {
        if now_ms >= self.page_until_ms() {
            let next = match self.page {
                Page::Account | Page::Amount | Page::Confirm => Page::Notice(Notice::Stopped),
                _ => Page::Idle,
            };
            self.show(next, now_ms);
        }
        if now_ms >= self.asked_at_ms() {
            if let Some(question) = &mut self.question {
                question.postponed_to_ms = None;
            }
            if matches!(self.page, Page::Idle) {
                self.page_since_ms = now_ms;
            }
        }
        if matches!(self.page, Page::Idle) && now_ms >= self.dark_at_ms {
            self.dark = true;
        }
        if now_ms >= self.minute_at_ms {
            self.see_minute(now_ms);
        }
        self.next_print(now_ms)
    }

    /// When [`tick`](Self::tick) is to be called next, if nothing else happens
    /// before; in the past if at once. The screen may have changed by then.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let lit_ms = if matches!(self.page, Page::Idle) && !self.dark {
            self.dark_at_ms.min(self.minute_at_ms)
        } else {
            NEVER
        };
        let due_ms = self
            .page_until_ms()
            .min(lit_ms)
            .min(self.asked_at_ms())
            .min(self.print_at_ms());
        (due_ms < NEVER).then_some(due_ms)
    }

    /// When the page goes away by itself.
    fn page_until_ms(&self) -> u64 {
        match self.page {
            Page::Idle | Page::Saving => NEVER,
            // From the last key on.
            Page::Account | Page::Amount | Page::Confirm => self.dark_at_ms - DARK_MS + ENTRY_MS,
            Page::Saved { .. } | Page::Notice(_) => self.page_since_ms + NOTICE_MS,
        }
    }

    /// When the question that was put off is asked again.
    fn asked_at_ms(&self) -> u64 {
        self.question
            .and_then(|question| question.postponed_to_ms)
            .unwrap_or(NEVER)
    }

    /// When the next receipt is to be printed.
    fn print_at_ms(&self) -> u64 {
        if self.levels.to_print == 0 || self.question.is_some() || self.battery_low {
            return NEVER;
        }
        match self.printing {
            Printing::Free => self.print_after_ms,
            Printing::Stopped { retry_at_ms, .. } => retry_at_ms,
            Printing::Busy { .. } => NEVER,
        }
    }

    fn next_print(&mut self, now_ms: u64) -> Option<Effect> {
        if now_ms < self.print_at_ms() {
            return None;
        }
        self.printing = Printing::Busy { last: false };
        Some(Effect::Print)
    }

    /// The printer has nothing to do; `one_less` if a receipt that waited is done.
    fn print_ended(&mut self, one_less: bool, now_ms: u64) {
        self.job_over(Printing::Free, now_ms);
        if one_less {
            self.levels.to_print = self.levels.to_print.saturating_sub(1);
        }
    }

    fn print_failed(&mut self, fault: Fault, now_ms: u64) {
        // Told once, and to whom has asked; then the idle screen says it.
        let news = self.retry_ms == PRINT_RETRY_MS
            || matches!(self.printing, Printing::Busy { last: true });
        let retry_at_ms = now_ms + self.retry_ms;
        self.job_over(Printing::Stopped { fault, retry_at_ms }, now_ms);
        self.retry_ms = (self.retry_ms * 2).min(PRINT_RETRY_MS_MAX);
        if news {
            self.tell(Notice::PrinterStopped(fault), now_ms);
        }
    }

    fn job_over(&mut self, printing: Printing, now_ms: u64) {
        self.printing = printing;
        self.current = None;
        if matches!(self.page, Page::Idle) {
            // A question may come up that stood back for the job.
            self.page_since_ms = now_ms;
        }
    }

    /// The store has answered.
    fn stored(&mut self, page: Page, now_ms: u64) {
        if matches!(self.page, Page::Saving) {
            self.light(now_ms);
            self.show(page, now_ms);
        }
    }

    /// Shows a notice, unless somebody is at work.
    fn tell(&mut self, notice: Notice, now_ms: u64) {
        if matches!(self.page, Page::Idle | Page::Notice(_)) && self.question.is_none() {
            self.light(now_ms);
            self.show(Page::Notice(notice), now_ms);
        }
    }

    fn show(&mut self, page: Page, now_ms: u64) {
        self.page = page;
        self.page_since_ms = now_ms;
    }

    fn light(&mut self, now_ms: u64) {
        self.dark = false;
        self.dark_at_ms = now_ms + DARK_MS;
    }

    fn see_minute(&mut self, now_ms: u64) {
        let time_s = self.time_s(now_ms);
        self.minute_at_ms = if time_s > 0 {
            now_ms + u64::from(60 - time_s % 60) * 1_000
        } else {
            NEVER
        };
    }

    /// Whether what is shown has been there long enough to be read.
    fn was_read(&self, now_ms: u64) -> bool {
        now_ms >= self.page_since_ms + READ_MS
    }

    /// The question, if it is on display.
    fn question(&self) -> Option<&Question> {
        let free = !matches!(self.printing, Printing::Busy { .. });
        self.question.as_ref().filter(|question| {
            free && matches!(self.page, Page::Idle) && question.postponed_to_ms.is_none()
        })
    }

    fn is_full(&self) -> bool {
        self.levels.capacity > 0 && self.levels.waiting >= self.levels.capacity
    }
}
