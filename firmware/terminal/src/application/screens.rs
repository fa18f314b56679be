//! What stands on the display.
//!
//! Promises: every screen says what happens, and what can be done about it, in
//! ASCII and in its first row. Never: a decision.

use super::{Application, Fault, Levels, Notice, Page, Printing, Radio, RadioTrouble};
use crate::hardware::Screen;
use crate::limits::{BATTERY_EMPTY_MV, BATTERY_FULL_MV, SCREEN_COLUMNS, SCREEN_ROWS};
use crate::printing::line::Line;
use crate::printing::{Date, PrinterError};

/// Digits of an account in a row: three groups of four.
const ACCOUNT_ROW: usize = 12;
const GROUP: usize = 4;

impl Application {
    /// What the display is to show now.
    #[must_use]
    pub fn screen(&self, now_ms: u64) -> Screen {
        let mut screen = Screen([[b' '; SCREEN_COLUMNS]; SCREEN_ROWS]);
        if self.dark {
            return screen;
        }
        let [first, second, third, fourth] = screen.0.each_mut().map(|row| Line::new(row));
        let rows = Rows {
            first,
            second,
            third,
            fourth,
        };
        match self.page {
            Page::Idle => match self.question() {
                Some(question) => rows.of(
                    "RECEIPT OF",
                    Some(question.sequence),
                    ["ON PAPER?", "ENTER=YES", "PRINT=NO, AGAIN"],
                ),
                None => self.idle(rows, now_ms),
            },
            Page::Account => self.account_page(rows),
            Page::Amount => {
                let mut rows = rows;
                rows.first.text("AMOUNT");
                rows.second.amount(self.amount_minor, self.currency);
                rows.fourth.text("ENTER=ON");
            }
            Page::Confirm => {
                let mut rows = rows;
                rows.first.text("PAY?");
                rows.second.amount(self.amount_minor, self.currency);
                // 18 digits fill a row and two more: no groups here.
                let (row, rest) = split(self.account.bytes(), SCREEN_COLUMNS);
                rows.third.bytes(row);
                rows.fourth.bytes(rest);
                rows.fourth.text(if rest.is_empty() {
                    "ENTER=YES C=NO"
                } else {
                    "   ENTER=YES"
                });
            }
            Page::Saving => rows.of("SAVING", None, ["", "", ""]),
            Page::Saved { sequence } => {
                let mut rows = rows;
                rows.second.amount(self.amount_minor, self.currency);
                rows.of("SAVED", Some(sequence), ["", "RECEIPT FOLLOWS", ""]);
            }
            Page::Notice(notice) => self.notice(rows, notice),
        }
        screen
    }

    fn account_page(&self, mut rows: Rows<'_>) {
        rows.first.text("ACCOUNT");
        let (row, rest) = split(self.account.bytes(), ACCOUNT_ROW);
        grouped(&mut rows.second, row);
        grouped(&mut rows.third, rest);
        if rest.is_empty() && row.len() < ACCOUNT_ROW {
            rows.second.byte(b'_');
        } else {
            rows.third.byte(b'_');
        }
        rows.fourth.text("ENTER=ON C=STOP");
    }

    fn notice(&self, rows: Rows<'_>, notice: Notice) {
        match notice {
            Notice::Stopped => rows.of("STOPPED", None, ["NOTHING SAVED", "", ""]),
            Notice::Full => rows.of(
                "FULL",
                None,
                ["NOT SAVED", "FETCH RECEIPTS,", "THEN PAY AGAIN"],
            ),
            Notice::NotSaved => rows.of(
                "NOT SAVED",
                None,
                ["STORAGE FAILED", "TRY AGAIN OR", "CALL SERVICE"],
            ),
            Notice::NoReceipt => rows.of("NO RECEIPT YET", None, ["", "", ""]),
            Notice::ChargeToPrint => {
                rows.of("BATTERY LOW", None, ["CHARGE IT TO", "PRINT RECEIPTS", ""])
            }
            Notice::Printed(receipt) => rows.of(
                "PAYMENT",
                Some(receipt.sequence),
                [verdict(receipt.accepted), "RECEIPT PRINTED", ""],
            ),
            Notice::PrinterStopped(fault) => {
                let [what, to_do, then] = match fault {
                    Fault::Printer(PrinterError::NoPaper) => {
                        ["NO PAPER", "PUT PAPER IN,", "THEN KEY PRINT"]
                    }
                    Fault::Printer(PrinterError::Open) => {
                        ["PRINTER OPEN", "CLOSE IT,", "THEN KEY PRINT"]
                    }
                    Fault::Printer(PrinterError::Silent) => {
                        ["PRINTER SILENT", "SWITCH IT ON,", "THEN KEY PRINT"]
                    }
                    Fault::Printer(PrinterError::Fault) => {
                        ["PRINTER FAULT", "LOOK AT IT,", "THEN KEY PRINT"]
                    }
                    Fault::Storage => ["STORAGE FAILED", "CALL SERVICE", ""],
                };
                let mut rows = rows;
                to_print(&mut rows.second, &self.levels);
                rows.of(what, None, ["", to_do, then]);
            }
        }
    }

    fn idle(&self, mut rows: Rows<'_>, now_ms: u64) {
        self.status_row(&mut rows.first, now_ms);
        rows.second.text("ACCOUNT?");
        if self.levels.last_sequence > 0 {
            let start = rows.second.len();
            rows.second
                .byte(b'#')
                .number(self.levels.last_sequence.into())
                .push_right(start);
        }
        if self.is_full() {
            rows.third.text("FULL: KEY FETCH");
        } else if self.levels.damaged {
            rows.third.text("STORAGE DAMAGED");
        } else if self.battery_low {
            rows.third.text("BATTERY LOW");
        } else if self.levels.waiting > 0 {
            rows.third
                .text("WAITING ")
                .number(self.levels.waiting.into());
        }
        match (self.printing, self.current) {
            (Printing::Busy { .. }, Some(receipt)) => {
                rows.fourth
                    .text("PRINTING ")
                    .number(receipt.sequence.into());
            }
            (Printing::Stopped { fault, .. }, _) if self.levels.to_print > 0 => {
                rows.fourth.text(match fault {
                    Fault::Printer(PrinterError::NoPaper) => "NO PAPER",
                    Fault::Printer(PrinterError::Open) => "PRINTER OPEN",
                    Fault::Printer(PrinterError::Silent) => "PRINTER SILENT",
                    Fault::Printer(PrinterError::Fault) => "PRINTER FAULT",
                    Fault::Storage => "STORAGE FAILED",
                });
            }
            _ if self.asked => {
                rows.fourth.text("FETCHING");
            }
            _ => {
                rows.fourth.text(radio(self.radio));
            }
        }
    }

    /// `12:34 |||.   84%`
    fn status_row(&self, row: &mut Line<'_>, now_ms: u64) {
        match self.time_s(now_ms) {
            0 => row.text("--:--"),
            time_s => row.time_of_day(&Date::new(time_s, self.utc_offset_minutes)),
        };
        row.byte(b' ');
        if let Some(signal) = self.signal {
            for bar in 0..4 {
                row.byte(if signal > bar * 7 { b'|' } else { b'.' });
            }
        }
        if let Some(millivolts) = self.battery_mv {
            let start = row.len();
            row.number(percent(millivolts).into())
                .byte(b'%')
                .push_right(start);
        }
    }
}

/// The rows of a screen.
struct Rows<'a> {
    first: Line<'a>,
    second: Line<'a>,
    third: Line<'a>,
    fourth: Line<'a>,
}

impl Rows<'_> {
    /// A title with a number, and three more rows, each after what it holds.
    fn of(mut self, title: &str, number: Option<u32>, [second, third, fourth]: [&str; 3]) {
        self.first.text(title);
        if let Some(number) = number {
            self.first.byte(b' ').number(number.into());
        }
        self.second.text(second);
        self.third.text(third);
        self.fourth.text(fourth);
    }
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(at).unwrap_or((bytes, &[]))
}

fn grouped(row: &mut Line<'_>, digits: &[u8]) {
    for (place, digit) in digits.iter().enumerate() {
        if place > 0 && place % GROUP == 0 {
            row.byte(b' ');
        }
        row.byte(*digit);
    }
}

fn to_print(row: &mut Line<'_>, levels: &Levels) {
    if levels.to_print > 0 {
        row.number(levels.to_print.into()).text(" TO PRINT");
    }
}

fn verdict(accepted: bool) -> &'static str {
    if accepted { "ACCEPTED" } else { "REJECTED" }
}

fn radio(radio: Radio) -> &'static str {
    match radio {
        Radio::Off => "",
        Radio::Searching => "SEEKING NETWORK",
        Radio::Connecting => "CONNECTING",
        Radio::Online => "ONLINE",
        Radio::Failed(trouble) => match trouble {
            RadioTrouble::Modem => "MODEM SILENT",
            RadioTrouble::Sim => "NO SIM CARD",
            RadioTrouble::NoNetwork => "NO NETWORK",
            RadioTrouble::Denied => "SIM REFUSED",
            RadioTrouble::NoGateway => "NO GATEWAY",
            RadioTrouble::Refused => "GATEWAY REFUSES",
            RadioTrouble::Battery => "CHARGE FOR RADIO",
        },
    }
}

/// The charge of a lithium cell by its voltage: a straight line, which is what
/// a gauge without a coulomb counter can honestly say.
fn percent(millivolts: u16) -> u16 {
    let above = millivolts
        .saturating_sub(BATTERY_EMPTY_MV)
        .min(BATTERY_FULL_MV - BATTERY_EMPTY_MV);
    (u32::from(above) * 100 / u32::from(BATTERY_FULL_MV - BATTERY_EMPTY_MV)) as u16
}
