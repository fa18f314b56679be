//! Receipts on paper, with any texts and any printer.
//!
//! With a printer that works as it should (the simulated one, in each of its
//! kinds), the paper says what the receipt says: compared line by line with a
//! layout that is written here from the table in `Slip`. Whatever the texts hold,
//! the printer is sent nothing but text and the commands that it knows. With a
//! printer that answers anything at any time, every wait ends, and a job of a
//! printer that never spoke is not called printed.

#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use embedded_io_async::{ErrorType, Read, Write};
use risiti_fuzz::control::breaks;
use risiti_fuzz::seeds::Seed;
use risiti_fuzz::time::Time;
use risiti_fuzz::{Choices, target};
use risiti_sim::printer::{Paper, PrinterCore, PrinterModel};
use risiti_terminal::hardware::Clock;
use risiti_terminal::limits::{
    PRINTER_ANSWER_MS, PRINTER_JOB_MS, PRINTER_MECHANISM_MS, PRINTER_WRITE_MS,
};
use risiti_terminal::printing::{Printer, Slip};
use risiti_wire::{Currency, Lines, Reason, Receipt, Status};

/// A job, its end and the questions after it.
const JOB_MS_MAX: u64 =
    PRINTER_JOB_MS + PRINTER_MECHANISM_MS + 4 * PRINTER_ANSWER_MS + 2 * PRINTER_WRITE_MS;

target!("escpos", seeds, |data| {
    let mut choices = Choices::new(data);
    let mode = choices.byte();
    let texts = Texts::new(&mut choices);
    let Some(slip) = texts.slip(&mut choices) else {
        return;
    };
    let time = Time::default();
    let model = match mode & 3 {
        0 => PrinterModel::ProcessId,
        1 => PrinterModel::Sensor,
        2 => PrinterModel::Status,
        _ => PrinterModel::Mute,
    };
    let works = mode & 4 == 0;
    let answers = if works { Choices::new(&[]) } else { choices };
    let desk = Rc::new(RefCell::new(Desk {
        core: PrinterCore::new(model),
        answers,
        spoke: false,
        pauses: 0,
    }));
    let line = Wire {
        desk: desk.clone(),
        time: time.clone(),
        unread: Vec::new(),
        works,
    };
    let mut printer = Printer::new(line, time.clone());
    for _ in 0..2 {
        let ready = time.ends(
            "ready",
            4 * PRINTER_ANSWER_MS + 3 * PRINTER_WRITE_MS,
            printer.ready(),
        );
        let printed = time.ends("print", JOB_MS_MAX, printer.print(&slip));
        time.pass(60_000);
        let now_ms = time.now_ms();
        let papers = desk.borrow_mut().core.take_papers(now_ms);
        let desk = desk.borrow();
        assert_eq!(
            desk.core.unknown(),
            [0; 0],
            "the printer was told what it does not know"
        );
        if works {
            assert_eq!(ready.is_ok(), model != PrinterModel::Mute);
            assert!(printed.is_err() || papers.len() == 1);
            assert!(
                printed.is_ok() || model != PrinterModel::ProcessId,
                "{printed:?}"
            );
        } else {
            assert!(
                printed.is_err() || desk.spoke,
                "printed, said a printer that never spoke"
            );
        }
        for paper in papers.iter().filter(|paper| paper.whole) {
            judge(paper, &slip);
        }
    }
});

/// The texts of a slip, read off an input.
struct Texts<'a> {
    title: &'a str,
    bank: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Texts<'a> {
    fn new(choices: &mut Choices<'a>) -> Self {
        let count = choices.below(7);
        let mut text = || {
            let bytes = choices.led();
            match std::str::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
            }
        };
        Self {
            title: text(),
            bank: text(),
            lines: (0..count).map(|_| text()).collect(),
        }
    }

    fn slip(&self, choices: &mut Choices<'a>) -> Option<Slip<'a>> {
        let flags = choices.byte();
        let receipt = Receipt {
            sequence: choices.word().into(),
            number: u64::from(choices.word()) << 32 | u64::from(choices.word()),
            status: match Reason::new(u16::from(choices.byte())) {
                Ok(reason) if flags & 1 == 1 => Status::Rejected(reason),
                _ => Status::Accepted,
            },
            time_s: choices.word(),
            amount_minor: choices.word().into(),
            currency: Currency::new(choices.short()).unwrap_or(Currency::NONE),
            bank_reference: Some(self.bank).filter(|_| flags & 2 == 2),
            lines: Lines::new(&self.lines).ok()?,
        };
        // Only what has an encoding comes to a terminal.
        let mut buffer = [0; risiti_wire::limits::RECEIPT_BYTES_MAX];
        receipt.encode(&mut buffer).ok()?;
        Some(Slip {
            title: self.title,
            terminal: ["t-1", "terminal-id-of-23-bytes"][usize::from(flags >> 2 & 1)],
            receipt,
            again: flags & 8 != 0,
            utc_offset_minutes: i16::from(choices.byte() as i8) * 6,
        })
    }
}

struct Desk<'a> {
    core: PrinterCore,
    /// What a printer says that does not work as it should.
    answers: Choices<'a>,
    spoke: bool,
    pauses: u32,
}

struct Wire<'a> {
    desk: Rc<RefCell<Desk<'a>>>,
    time: Time,
    unread: Vec<u8>,
    works: bool,
}

impl ErrorType for Wire<'_> {
    type Error = Infallible;
}

impl Read for Wire<'_> {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        if !self.works {
            return self.rave(into).await;
        }
        poll_fn(|_| {
            let mut desk = self.desk.borrow_mut();
            self.unread.extend(desk.core.answers(self.time.now_ms()));
            if self.unread.is_empty() {
                if let Some(due_ms) = desk.core.due() {
                    self.time.wait_for(due_ms);
                }
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        let count = into.len().min(self.unread.len());
        for (place, byte) in into.iter_mut().zip(self.unread.drain(..count)) {
            *place = byte;
        }
        Ok(count)
    }
}

impl Wire<'_> {
    /// A byte of the input now, or after a while, or none any more.
    async fn rave(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        let pause_ms = {
            let mut desk = self.desk.borrow_mut();
            if desk.answers.is_empty() {
                None
            } else if desk.pauses > 0 {
                desk.pauses -= 1;
                Some(0)
            } else {
                let byte = desk.answers.byte();
                // So many bytes come at once behind this pause.
                desk.pauses = u32::from(byte & 7);
                Some(u64::from(byte >> 3) * 40)
            }
        };
        let Some(pause_ms) = pause_ms else {
            return std::future::pending().await;
        };
        if pause_ms > 0 {
            self.time.sleep(pause_ms).await;
        }
        let mut desk = self.desk.borrow_mut();
        desk.spoke = true;
        let byte = desk.answers.byte();
        match into.first_mut() {
            Some(place) => *place = byte,
            None => return Ok(0),
        }
        Ok(1)
    }
}

impl Write for Wire<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.desk.borrow_mut().core.take(bytes, self.time.now_ms());
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A character on paper: code page 858 has ASCII, Latin-1 and the euro sign.
fn on_paper(c: char) -> char {
    match c {
        ' '..='~' | '\u{a0}'..='\u{ff}' | '€' => c,
        '\u{2018}' | '\u{2019}' => '\'',
        '\u{201c}' | '\u{201d}' => '"',
        '\u{2010}'..='\u{2014}' => '-',
        _ => '?',
    }
}

/// Blanks at the ends of a line are no part of what it says.
fn says(text: &str, columns: usize) -> String {
    let text: String = text.chars().map(on_paper).take(columns).collect();
    text.trim_matches(' ').to_owned()
}

fn judge(paper: &Paper, slip: &Slip<'_>) {
    let receipt = &slip.receipt;
    let mut wanted: Vec<String> = Vec::new();
    if !slip.title.is_empty() {
        wanted.push(says(slip.title, 32));
    }
    match receipt.status {
        Status::Accepted => wanted.push("ACCEPTED".into()),
        Status::Rejected(reason) => {
            wanted.push(
                if breaks("escpos-verdict") {
                    "ACCEPTED"
                } else {
                    "REJECTED"
                }
                .into(),
            );
            wanted.push(
                reason
                    .text()
                    .map_or(format!("reason {}", reason.code()), str::to_owned),
            );
        }
    }
    if slip.again {
        wanted.push("PRINTED AGAIN".into());
    }
    let mut lines = paper.lines.iter().map(|line| line.trim_matches(' '));
    let mut amount = None;
    let mut read: Vec<&str> = Vec::new();
    for line in lines.by_ref() {
        if amount.is_none() && line.starts_with("AMOUNT ") && read.len() == wanted.len() {
            amount = Some(line);
        } else {
            read.push(line);
        }
    }
    assert_eq!(amount.is_some(), receipt.currency != Currency::NONE);
    if let Some(amount) = amount {
        // Minor units, wherever the point stands.
        let number = amount
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .replace('.', "");
        assert_eq!(number.parse(), Ok(receipt.amount_minor), "{amount}");
    }
    let labelled = |label: &str, value: &str| {
        let value: Vec<char> = value.chars().map(on_paper).collect();
        let blanks = 32_usize.saturating_sub(label.len() + value.len());
        let value: String = value.into_iter().collect();
        format!("{label}{}{value}", " ".repeat(blanks))
            .trim_matches(' ')
            .to_owned()
    };
    wanted.push(labelled("PAYMENT ", &receipt.sequence.to_string()));
    wanted.push(labelled("RECEIPT ", &receipt.number.to_string()));
    wanted.push(labelled(
        "DATE ",
        &date(receipt.time_s, slip.utc_offset_minutes),
    ));
    if let Some(bank) = receipt.bank_reference {
        wanted.push(labelled("BANK ", bank));
    }
    wanted.extend(receipt.lines.iter().map(|line| says(line, 32)));
    wanted.push(labelled("TERMINAL ", slip.terminal));
    assert_eq!(read, wanted);
}

/// Days and time of day by the proleptic Gregorian calendar, counted year by year.
fn date(time_s: u32, offset_minutes: i16) -> String {
    if time_s == 0 {
        return "not known".into();
    }
    // Local time before 1970 and after 2106 is their first and last second.
    let local_s = i64::from(time_s) + i64::from(offset_minutes) * 60;
    let local_s = local_s.clamp(0, u32::MAX.into());
    let (mut days, second) = (local_s.div_euclid(86_400), local_s.rem_euclid(86_400));
    let mut year = 1970;
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while days >= if is_leap(year) { 366 } else { 365 } {
        days -= if is_leap(year) { 366 } else { 365 };
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    let zone = if offset_minutes == 0 { " UTC" } else { "" };
    format!(
        "{year:04}-{month:02}-{:02} {hour:02}:{minute:02}{zone}",
        days + 1
    )
}

fn seeds() -> Vec<Seed> {
    let mut all = Vec::new();
    let texts: [&[&str]; 4] = [
        &[
            "Village Savings & Loan",
            "TX-77-0042",
            "School fees, term 3",
            "Pupil: Añá Müller €",
        ],
        &["", "ABCDEFGHIJKLMNOPQRSTUVWX"],
        &[
            "A title of an institution that is longer than a paper",
            "X",
            "0123456789abcdef0123456789abcdef",
        ],
        &[
            "\u{1b}@\u{1d}V\0",
            "–’",
            "漢字",
            "é\u{a0}\u{ad}ÿ",
            "x",
            "y",
            "z",
            "w",
        ],
    ];
    for (number, texts) in texts.iter().enumerate() {
        for mode in [0, 1, 2, 3, 4] {
            let mut seed = vec![mode, texts.len() as u8 - 2];
            for text in *texts {
                seed.push(text.len() as u8);
                seed.extend_from_slice(text.as_bytes());
            }
            let flags = 2 | (number as u8 & 1) | (8 * (mode & 1));
            seed.extend([flags, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0x23, 0x29, 4]);
            seed.extend([0x6b, 0x01, 0xd4, 0x19, 0, 2, 0x49, 0xf0, 1, 0x94, 30]);
            if mode == 4 {
                seed.extend([
                    0x08, 0x12, 0x08, 0x12, 0x08, 0x12, 0x48, 0x00, 0x4e, 0x37, 0x22,
                ]);
            }
            all.push((format!("slip-{number}-{mode}"), seed));
        }
    }
    all
}
