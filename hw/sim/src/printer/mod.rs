//! A thermal printer: ESC/POS in, answers and papers out.
//!
//! Promises: a mechanism that takes its time, so that what was sent and what is
//! on paper differ, as they do on a desk; a power cut leaves a torn paper with
//! what was printed by then. Never: a clock; time is passed in.
//!
//! [`PrinterCore`] is for anyone who has bytes; [`Printer`] and
//! [`PrinterLine`] are the same on a serial line in this process.

mod escpos;
mod line;
mod paper;

use std::collections::VecDeque;

use escpos::{Command, character};
pub use line::{Printer, PrinterLine};
pub use paper::Paper;

use crate::limits::{PAPER_COLUMNS, PAPER_CUT_MS, PAPER_LINE_MS};

/// By what a printer confirms a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrinterModel {
    /// By `GS ( H`, when all is on paper; by `GS r` when all was read.
    #[default]
    ProcessId,
    /// By `GS r` only.
    Sensor,
    /// Not at all; it only tells its state.
    Status,
    /// It prints and never says a word.
    Mute,
}

/// What the mechanism has before it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Line { text: String, lines: u32 },
    Feed { lines: u32 },
    Initialise,
    Cut,
    ProcessId([u8; 4]),
    Sensor,
}

/// A printer without its line.
#[derive(Debug)]
pub struct PrinterCore {
    model: PrinterModel,
    /// Bytes of a command that is not whole yet.
    unread: Vec<u8>,
    style: u8,
    centred: bool,
    automatic_status: bool,
    text: String,

    steps: VecDeque<Step>,
    /// Since when the mechanism is at the first of them.
    step_since_ms: u64,
    /// Lines left on the roll.
    roll_lines: u64,
    open: bool,

    answers: Vec<u8>,
    paper: Vec<String>,
    papers: Vec<Paper>,
    unknown: Vec<u8>,
}

impl PrinterCore {
    /// A printer with an endless roll.
    #[must_use]
    pub fn new(model: PrinterModel) -> Self {
        Self {
            model,
            unread: Vec::new(),
            style: 0,
            centred: false,
            automatic_status: false,
            text: String::new(),
            steps: VecDeque::new(),
            step_since_ms: 0,
            roll_lines: u64::MAX,
            open: false,
            answers: Vec::new(),
            paper: Vec::new(),
            papers: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Takes bytes from the terminal.
    pub fn take(&mut self, bytes: &[u8], now_ms: u64) {
        self.advance(now_ms);
        for byte in bytes {
            self.unread.push(*byte);
            while let Some(command) = escpos::next(&mut self.unread) {
                self.obey(command, now_ms);
            }
        }
        self.advance(now_ms);
    }

    /// What it says to the terminal by now; each byte once.
    pub fn answers(&mut self, now_ms: u64) -> Vec<u8> {
        self.advance(now_ms);
        std::mem::take(&mut self.answers)
    }

    /// When it has something to say, if nothing stops it before.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let says = |step: &Step| matches!(step, Step::ProcessId(_) | Step::Sensor);
        let at = self.steps.iter().position(says)?;
        let cost_ms: u64 = self.steps.iter().take(at + 1).map(cost_ms).sum();
        (!self.is_off_line()).then_some(self.step_since_ms + cost_ms)
    }

    /// The papers that came out by now; each once.
    pub fn take_papers(&mut self, now_ms: u64) -> Vec<Paper> {
        self.advance(now_ms);
        std::mem::take(&mut self.papers)
    }

    /// Bytes that were neither text nor a command that is known here.
    #[must_use]
    pub fn unknown(&self) -> &[u8] {
        &self.unknown
    }

    /// Puts in a roll of so many lines; none at all with 0.
    pub fn put_roll(&mut self, lines: u64, now_ms: u64) {
        self.advance(now_ms);
        self.roll_lines = lines;
        self.step_since_ms = now_ms;
    }

    /// Opens or closes its cover.
    pub fn set_open(&mut self, open: bool, now_ms: u64) {
        self.advance(now_ms);
        self.open = open;
        self.step_since_ms = now_ms;
    }

    /// Its power goes, and comes back: what is not on paper is forgotten.
    pub fn cut_power(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.unread.clear();
        self.text.clear();
        self.answers.clear();
        (self.style, self.centred, self.automatic_status) = (0, false, false);
        self.forget();
    }

    fn obey(&mut self, command: Command, now_ms: u64) {
        let mute = self.model == PrinterModel::Mute;
        match command {
            Command::Print(byte) => self.text.push(character(byte)),
            Command::LineFeed => self.end_line(now_ms),
            Command::Initialise => {
                (self.style, self.centred) = (0, false);
                self.text.clear();
                self.step(Step::Initialise, now_ms);
            }
            Command::Style(style) => self.style = style,
            Command::Justify(how) => self.centred = how == 1,
            // What is printed is 858; another would print other characters.
            Command::CodePage(19) => {}
            Command::CodePage(page) => self.unknown.push(page),
            Command::Feed(lines) => self.step(
                Step::Feed {
                    lines: lines.into(),
                },
                now_ms,
            ),
            Command::Cut => self.step(Step::Cut, now_ms),
            Command::AutomaticStatus(which) => self.automatic_status = which != 0,
            Command::ProcessId(id) if self.model == PrinterModel::ProcessId => {
                self.step(Step::ProcessId(id), now_ms);
            }
            Command::Sensor
                if matches!(self.model, PrinterModel::ProcessId | PrinterModel::Sensor) =>
            {
                // Answered when it is read: before the mechanism has come so
                // far, unless the printer is off line and reads nothing.
                if self.is_off_line() {
                    self.step(Step::Sensor, now_ms);
                } else {
                    self.answers.push(self.sensor());
                }
            }
            Command::ProcessId(_) | Command::Sensor => {}
            Command::Status(which) if !mute => self.answers.push(self.status(which)),
            Command::Status(_) => {}
            Command::Forget => self.forget(),
            Command::Unknown(byte) => self.unknown.push(byte),
        }
    }

    fn end_line(&mut self, now_ms: u64) {
        let columns = if self.style & 0x20 == 0 {
            PAPER_COLUMNS
        } else {
            PAPER_COLUMNS / 2
        };
        let lines = if self.style & 0x10 == 0 { 1 } else { 2 };
        let text: Vec<char> = std::mem::take(&mut self.text).chars().collect();
        // What does not fit a line goes on in the next one.
        let mut rows: Vec<String> = text
            .chunks(columns)
            .map(|row| row.iter().collect())
            .collect();
        if rows.is_empty() {
            rows.push(String::new());
        }
        for row in rows {
            let blanks = if self.centred {
                (PAPER_COLUMNS - row.chars().count() * PAPER_COLUMNS / columns) / 2
            } else {
                0
            };
            let text = format!("{}{}", " ".repeat(blanks), row.trim_end_matches(' '));
            self.step(Step::Line { text, lines }, now_ms);
        }
    }

    fn step(&mut self, step: Step, now_ms: u64) {
        if self.steps.is_empty() {
            self.step_since_ms = now_ms;
        }
        self.steps.push_back(step);
    }

    /// Lets the mechanism go on until now.
    fn advance(&mut self, now_ms: u64) {
        while let Some(cost_ms) = self.steps.front().map(cost_ms) {
            let at_ms = self.step_since_ms + cost_ms;
            if self.is_off_line() || at_ms > now_ms {
                break;
            }
            self.step_since_ms = at_ms;
            match self.steps.pop_front() {
                Some(Step::Line { text, lines }) => {
                    self.roll_lines = self.roll_lines.saturating_sub(lines.into());
                    self.paper.push(text);
                }
                Some(Step::Feed { lines }) => {
                    self.roll_lines = self.roll_lines.saturating_sub(lines.into());
                }
                Some(Step::Cut) => self.tear(true),
                Some(Step::Initialise) => self.tear(false),
                Some(Step::ProcessId([a, b, c, d])) => {
                    self.answers.extend([0x37, 0x22, a, b, c, d, 0]);
                }
                Some(Step::Sensor) => self.answers.push(self.sensor()),
                None => {}
            }
        }
    }

    fn is_off_line(&self) -> bool {
        self.open || self.roll_lines == 0
    }

    fn forget(&mut self) {
        self.steps.clear();
        self.tear(false);
    }

    fn tear(&mut self, whole: bool) {
        let lines = std::mem::take(&mut self.paper);
        if !lines.is_empty() {
            self.papers.push(Paper { lines, whole });
        }
    }

    fn sensor(&self) -> u8 {
        if self.roll_lines == 0 { 0x0C } else { 0 }
    }

    /// `DLE EOT n`.
    fn status(&self, which: u8) -> u8 {
        let out = self.roll_lines == 0;
        let bits = match which {
            1 => u8::from(self.is_off_line()) << 3,
            2 => u8::from(self.open) << 2 | u8::from(out) << 5,
            4 if out => 0x6C,
            _ => 0,
        };
        0x12 | bits
    }
}

fn cost_ms(step: &Step) -> u64 {
    match step {
        Step::Line { lines, .. } | Step::Feed { lines } => u64::from(*lines) * PAPER_LINE_MS,
        Step::Cut => PAPER_CUT_MS,
        Step::Initialise | Step::ProcessId(_) | Step::Sensor => 0,
    }
}
