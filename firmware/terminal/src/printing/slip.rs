//! The layout of a receipt on 58 mm paper.
//!
//! Promises: 32 columns, each line complete with its commands, so that a printer
//! may be sent line by line from one small buffer; every paper says whether the
//! money was accepted before anything else. Never: a text of the receipt as a
//! command.
//!
//! | line | style | when |
//! | --- | --- | --- |
//! | title | tall, centred | the settings have one |
//! | `ACCEPTED` or `REJECTED` | double, centred | |
//! | the reason | centred | rejected |
//! | `PRINTED AGAIN` | bold, centred | it may be on another paper too |
//! | `AMOUNT`, amount | bold | the record could be read |
//! | `PAYMENT`, record's number | | |
//! | `RECEIPT`, receipt's number | | |
//! | `DATE`, day and time | | |
//! | `BANK`, bank's reference | | it was booked |
//! | lines | | as many as came |
//! | `TERMINAL`, id | | |
//! | feed, cut | | |
//!
//! A line is `ESC ! style`, `ESC a justification`, text, `LF`.

use risiti_wire::limits::LINES_MAX;
use risiti_wire::{Currency, Receipt, Status};

use super::date::Date;
use super::line::Line;
use crate::limits::{PAPER_COLUMNS, PAPER_LINE_BYTES_MAX};

const ESC: u8 = 0x1B;
const GS: u8 = 0x1D;

/// Bits of `ESC !`.
const PLAIN: u8 = 0;
const BOLD: u8 = 0x08;
const TALL: u8 = 0x10;
const WIDE: u8 = 0x20;

/// Feeds 4 lines, so that the last one is past the tearing bar, then cuts;
/// printers without a cutter pass the second over.
const FEED_AND_CUT: [u8; 7] = [ESC, b'd', 4, GS, b'V', b'B', 0];

/// One paper.
#[derive(Debug, Clone, Copy)]
pub struct Slip<'a> {
    /// What stands at its head: the institution's name.
    pub title: &'a str,
    /// The terminal's id.
    pub terminal: &'a str,
    /// The receipt.
    pub receipt: Receipt<'a>,
    /// Whether it may have been printed before: the paper then says so.
    pub again: bool,
    /// Minutes by which clocks here are ahead of UTC.
    pub utc_offset_minutes: i16,
}

/// How a line is printed, and what stands at its left end; what stands at its
/// right end, or in it, is [`Slip::value`]'s.
struct Form {
    style: u8,
    centred: bool,
    label: &'static str,
}

const fn centred(style: u8) -> Form {
    Form {
        style,
        centred: true,
        label: "",
    }
}

const fn labelled(style: u8, label: &'static str) -> Form {
    Form {
        style,
        centred: false,
        label,
    }
}

/// The lines from the title to the bank's reference.
const FORMS: [Form; 9] = [
    centred(BOLD | TALL),
    centred(TALL | WIDE),
    centred(PLAIN),
    centred(BOLD),
    labelled(BOLD, "AMOUNT "),
    labelled(PLAIN, "PAYMENT "),
    labelled(PLAIN, "RECEIPT "),
    labelled(PLAIN, "DATE "),
    labelled(PLAIN, "BANK "),
];
/// The receipt's own lines, after those.
const LINE: Form = labelled(PLAIN, "");
const LINE_FIRST: u8 = FORMS.len() as u8;
/// The line after those.
const TERMINAL: Form = labelled(PLAIN, "TERMINAL ");
const TERMINAL_INDEX: u8 = LINE_FIRST + LINES_MAX as u8;
/// And the end.
const END_INDEX: u8 = TERMINAL_INDEX + 1;

/// Bytes of one line with its commands.
#[derive(Debug, Clone)]
pub struct PaperLine {
    bytes: [u8; PAPER_LINE_BYTES_MAX],
    len: usize,
}

impl Default for PaperLine {
    fn default() -> Self {
        Self {
            bytes: [0; PAPER_LINE_BYTES_MAX],
            len: 0,
        }
    }
}

impl PaperLine {
    /// The bytes for the printer.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Makes these bytes the line; what does not fit is left out.
    pub(super) fn set(&mut self, bytes: &[u8]) {
        self.len = Line::new(&mut self.bytes).bytes(bytes).len();
    }
}

impl Slip<'_> {
    /// Lines that a paper may have.
    pub(super) const LINES: u8 = END_INDEX + 1;

    /// Makes the line with this index, from 0 to [`LINES`](Self::LINES); it is
    /// empty where this receipt has nothing to say.
    pub(super) fn line(&self, index: u8, into: &mut PaperLine) {
        into.len = 0;
        if index == END_INDEX {
            into.set(&FEED_AND_CUT);
            return;
        }
        let form = match index {
            TERMINAL_INDEX => &TERMINAL,
            _ => FORMS.get(usize::from(index)).unwrap_or(&LINE),
        };
        let Some((commands, columns)) = into.bytes.split_first_chunk_mut() else {
            return;
        };
        *commands = [ESC, b'!', form.style, ESC, b'a', u8::from(form.centred)];
        let mut line = Line::new(columns.get_mut(..PAPER_COLUMNS).unwrap_or_default());
        let start = line.text(form.label).len();
        if !self.value(index, &mut line) {
            return;
        }
        if start > 0 {
            line.push_right(start);
        }
        let end = line.len();
        if let Some(place) = columns.get_mut(end) {
            *place = b'\n';
            into.len = commands.len() + end + 1;
        }
    }

    /// Writes what the line with this index says; whether there is anything.
    fn value(&self, index: u8, line: &mut Line<'_>) -> bool {
        let receipt = &self.receipt;
        match index {
            0 => {
                line.printable(self.title);
                return !self.title.is_empty();
            }
            1 => {
                line.text(match receipt.status {
                    Status::Accepted => "ACCEPTED",
                    Status::Rejected(_) => "REJECTED",
                });
            }
            2 => {
                let Status::Rejected(reason) = receipt.status else {
                    return false;
                };
                match reason.text() {
                    Some(text) => line.text(text),
                    None => line.text("reason ").number(reason.code().into()),
                };
            }
            3 => {
                line.text("PRINTED AGAIN");
                return self.again;
            }
            4 => {
                // The wire's bound is that of a u32.
                line.amount(receipt.amount_minor as u32, receipt.currency);
                return receipt.currency != Currency::NONE;
            }
            5 => {
                line.number(receipt.sequence);
            }
            6 => {
                line.number(receipt.number);
            }
            7 => self.date(line),
            8 => {
                line.printable(receipt.bank_reference.unwrap_or_default());
                return receipt.bank_reference.is_some();
            }
            TERMINAL_INDEX => {
                line.text(self.terminal);
            }
            _ => {
                let at = usize::from(index.saturating_sub(LINE_FIRST));
                let Some(text) = receipt.lines.iter().nth(at) else {
                    return false;
                };
                line.printable(text);
            }
        }
        true
    }

    fn date(&self, line: &mut Line<'_>) {
        if self.receipt.time_s == 0 {
            line.text("not known");
            return;
        }
        let offset = self.utc_offset_minutes;
        let date = Date::new(self.receipt.time_s, offset);
        line.day(&date).byte(b' ').time_of_day(&date);
        if offset == 0 {
            line.text(" UTC");
        }
    }
}
