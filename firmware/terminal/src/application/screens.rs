//! What stands on the display.
//!
//! Promises: every screen says what happens, and what can be done about it, in
//! ASCII and in its first row. Never: a decision.

use super::{Application, Fault, Notice, Page, Printing, Radio, RadioTrouble};
use crate::hardware::Screen;
use crate::limits::{BATTERY_EMPTY_MV, BATTERY_FULL_MV, SCREEN_COLUMNS, SCREEN_ROWS};
use crate::printing::line::Line;
use crate::printing::{Date, PrinterError};

/// Digits of an account in a row: three groups of four.
const ACCOUNT_ROW: usize = 12;
const GROUP: usize = 4;

const BLANK: Screen = Screen([[b' '; SCREEN_COLUMNS]; SCREEN_ROWS]);

impl Application {
    /// What the display is to show now.
    #[must_use]
    pub fn screen(&self, now_ms: u64) -> Screen {
        if self.dark {
            return BLANK;
        }
        let (text, number) = match self.page {
            Page::Idle => match self.question() {
                Some(question) => (
                    "RECEIPT OF #\nON PAPER?\nENTER=YES\nPRINT=NO, AGAIN",
                    question.sequence,
                ),
                None => return self.idle(now_ms),
            },
            Page::Account => ("ACCOUNT\n@\n&\nENTER=ON C=STOP", 0),
            Page::Amount => ("AMOUNT\n$\n\nENTER=ON C=STOP", 0),
            Page::Confirm => ("PAY?   ENTER=YES\n$\n@\n&", 0),
            Page::Saving => ("SAVING", 0),
            Page::Saved { sequence } => ("SAVED #\n$\nRECEIPT FOLLOWS", sequence),
            Page::Notice(notice) => match notice {
                Notice::Stopped => ("STOPPED\nNOTHING SAVED", 0),
                Notice::Card => ("NO CARD NUMBERS!\nNOTHING SAVED", 0),
                Notice::Full => ("FULL\nNOT SAVED\nFETCH RECEIPTS,\nTHEN PAY AGAIN", 0),
                Notice::NotSaved => ("NOT SAVED\nSTORAGE FAILED\nTRY AGAIN OR\nCALL SERVICE", 0),
                Notice::NoReceipt => ("NO RECEIPT YET", 0),
                Notice::ChargeToPrint => ("BATTERY LOW\nCHARGE IT TO\nPRINT RECEIPTS", 0),
                Notice::Printed(receipt) if receipt.accepted => {
                    ("PAYMENT #\nACCEPTED\nRECEIPT PRINTED", receipt.sequence)
                }
                Notice::Printed(receipt) => {
                    ("PAYMENT #\nREJECTED\nRECEIPT PRINTED", receipt.sequence)
                }
                Notice::PrinterStopped(fault) => (fault_text(fault), self.levels.to_print),
            },
        };
        self.draw(text, number)
    }

    /// A screen from its rows, parted by line feeds: `#` stands for the number,
    /// `$` for the amount, `@` and `&` for the account.
    fn draw(&self, text: &str, number: u32) -> Screen {
        let mut screen = BLANK;
        let mut rows = screen.0.iter_mut();
        for part in text.as_bytes().split(|byte| *byte == b'\n') {
            let Some(row) = rows.next() else {
                break;
            };
            let mut row = Line::new(row);
            for byte in part {
                match byte {
                    b'#' => row.number(number.into()),
                    b'$' => row.amount(self.amount_minor, self.currency),
                    b'@' => self.account_row(&mut row, 0),
                    b'&' => self.account_row(&mut row, ACCOUNT_ROW),
                    _ => row.byte(*byte),
                };
            }
        }
        screen
    }

    /// The account's digits from this one on, with a cursor while they are typed.
    fn account_row<'a, 'b>(&self, row: &'b mut Line<'a>, first: usize) -> &'b mut Line<'a> {
        let digits = self.account.bytes();
        for (place, digit) in digits.iter().enumerate().skip(first).take(ACCOUNT_ROW) {
            if place > first && place % GROUP == 0 {
                row.byte(b' ');
            }
            row.byte(*digit);
        }
        let here = (first..first + ACCOUNT_ROW).contains(&digits.len());
        if here && matches!(self.page, Page::Account) {
            row.byte(b'_');
        }
        row
    }

    fn idle(&self, now_ms: u64) -> Screen {
        let alarm = if self.is_full() {
            "FULL: KEY FETCH"
        } else if self.levels.damaged {
            "STORAGE DAMAGED"
        } else if self.battery_low {
            "BATTERY LOW"
        } else if self.levels.waiting > 0 {
            "WAITING #"
        } else {
            ""
        };
        let mut screen = self.draw(alarm, self.levels.waiting);
        let [status, prompt, alarm, activity] = &mut screen.0;
        core::mem::swap(status, alarm);
        self.status_row(&mut Line::new(status), now_ms);

        let mut prompt = Line::new(prompt);
        let start = prompt.text("ACCOUNT?").len();
        if self.levels.last_sequence > 0 {
            prompt
                .byte(b'#')
                .number(self.levels.last_sequence.into())
                .push_right(start);
        }

        let mut activity = Line::new(activity);
        match (self.printing, self.current) {
            (Printing::Busy { .. }, Some(receipt)) => {
                activity.text("PRINTING ").number(receipt.sequence.into());
            }
            (Printing::Stopped { fault, .. }, _) if self.levels.to_print > 0 => {
                let text = fault_text(fault).as_bytes();
                let title = text.split(|byte| *byte == b'\n').next();
                activity.bytes(title.unwrap_or_default());
            }
            _ => {
                activity.text(if self.asked {
                    "FETCHING"
                } else {
                    radio_text(self.radio)
                });
            }
        }
        screen
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

/// What is wrong, how many receipts it holds up, and what to do.
fn fault_text(fault: Fault) -> &'static str {
    match fault {
        Fault::Printer(PrinterError::NoPaper) => {
            "NO PAPER\n# TO PRINT\nPUT PAPER IN,\nTHEN KEY PRINT"
        }
        Fault::Printer(PrinterError::Open) => "PRINTER OPEN\n# TO PRINT\nCLOSE IT,\nTHEN KEY PRINT",
        Fault::Printer(PrinterError::Silent) => {
            "PRINTER SILENT\n# TO PRINT\nSWITCH IT ON,\nTHEN KEY PRINT"
        }
        Fault::Printer(PrinterError::Fault) => {
            "PRINTER FAULT\n# TO PRINT\nLOOK AT IT,\nTHEN KEY PRINT"
        }
        Fault::Storage => "STORAGE FAILED\n# TO PRINT\nCALL SERVICE",
    }
}

fn radio_text(radio: Radio) -> &'static str {
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
            RadioTrouble::Forged => "FALSE RECEIPT",
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
