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

    /// Makes a line of what is written into its columns.
    fn compose(&mut self, style: u8, centred: bool, write: &dyn Fn(&mut Line<'_>)) {
        let commands = [ESC, b'!', style, ESC, b'a', u8::from(centred)];
        self.len = 0;
        self.raw(&commands);
        let columns = self.bytes.get_mut(self.len..self.len + PAPER_COLUMNS);
        if let Some(columns) = columns {
            let mut line = Line::new(columns);
            write(&mut line);
            self.len += line.len();
        }
        self.raw(b"\n");
    }

    fn raw(&mut self, bytes: &[u8]) {
        if let Some(places) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            places.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn centred(&mut self, style: u8, text: &str) {
        self.compose(style, true, &|line| {
            line.printable(text);
        });
    }

    /// A label at the left end, its value at the right.
    fn labelled(&mut self, style: u8, label: &str, value: &dyn Fn(&mut Line<'_>)) {
        self.compose(style, false, &|line| {
            line.text(label).byte(b' ');
            let start = line.len();
            value(line);
            line.push_right(start);
        });
    }
}

impl Slip<'_> {
    /// Lines that a paper may have.
    pub(super) const LINES: u8 = 17;

    /// Makes the line with this index, from 0 to [`LINES`](Self::LINES); it is
    /// empty where this receipt has nothing to say.
    pub(super) fn line(&self, index: u8, into: &mut PaperLine) {
        let receipt = &self.receipt;
        into.len = 0;
        match index {
            0 if !self.title.is_empty() => into.centred(BOLD | TALL, self.title),
            1 => into.centred(
                TALL | WIDE,
                match receipt.status {
                    Status::Accepted => "ACCEPTED",
                    Status::Rejected(_) => "REJECTED",
                },
            ),
            2 => {
                if let Status::Rejected(reason) = receipt.status {
                    into.compose(PLAIN, true, &|line| {
                        match reason.text() {
                            Some(text) => line.text(text),
                            None => line.text("reason ").number(reason.code().into()),
                        };
                    });
                }
            }
            3 if self.again => into.centred(BOLD, "PRINTED AGAIN"),
            4 if receipt.currency != Currency::NONE => {
                into.labelled(BOLD, "AMOUNT", &|line| {
                    // The wire's bound is that of a u32.
                    line.amount(receipt.amount_minor as u32, receipt.currency);
                });
            }
            5 => into.labelled(PLAIN, "PAYMENT", &|line| {
                line.number(receipt.sequence);
            }),
            6 => into.labelled(PLAIN, "RECEIPT", &|line| {
                line.number(receipt.number);
            }),
            7 => into.labelled(PLAIN, "DATE", &|line| self.date(line)),
            8 => {
                if let Some(reference) = receipt.bank_reference {
                    into.labelled(PLAIN, "BANK", &|line| {
                        line.printable(reference);
                    });
                }
            }
            9..=14 => {
                if let Some(text) = receipt.lines.iter().nth(usize::from(index - 9)) {
                    into.compose(PLAIN, false, &|line| {
                        line.printable(text);
                    });
                }
            }
            15 => into.labelled(PLAIN, "TERMINAL", &|line| {
                line.text(self.terminal);
            }),
            16 => into.raw(&FEED_AND_CUT),
            _ => {}
        }
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
