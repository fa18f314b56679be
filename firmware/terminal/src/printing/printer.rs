//! The driver of an ESC/POS printer on a serial line.
//!
//! Promises: a job is confirmed by the strongest means that the printer has; a
//! printer that is out of paper, open, in error or silent is told apart before
//! the first byte of a receipt. Never: a wait without an end.
//!
//! | asked | answered | means |
//! | --- | --- | --- |
//! | `DLE EOT 2`, `DLE EOT 4` | a byte, at once | cover, paper, error: before a job, and after one that was not confirmed |
//! | `GS ( H` fn 48, `d1..d4` | `37 22 d1..d4 00` | everything before it is on paper |
//! | `GS r 1` | a byte | everything before it was read |
//!
//! Every job ends with `GS ( H` and `GS r 1`. A printer that knows the first
//! answers it when the mechanism has come so far, and once it did, nothing less
//! is taken. From one that only answers the second, that is taken, with the time
//! that the mechanism needs and a state without fault after it. One that answers
//! neither fails its first job, so that a person looks at the paper; after that
//! its time and state are taken. One that never answers anything can't say
//! whether paper came out, so it is not printed on.

use embassy_futures::select::{Either, select};
use embedded_io_async::{Read, Write};

use super::code_page::CODE_PAGE;
use super::slip::{PaperLine, Slip};
use crate::hardware::Clock;
use crate::limits::{PRINTER_ANSWER_MS, PRINTER_JOB_MS, PRINTER_MECHANISM_MS, PRINTER_WRITE_MS};

const DLE: u8 = 0x10;
const ESC: u8 = 0x1B;
const GS: u8 = 0x1D;

/// Initialises the printer, silences automatic status (`GS a 0`), which would
/// look like answers, and chooses the code page.
const BEGIN: [u8; 8] = [ESC, b'@', GS, b'a', 0, ESC, b't', CODE_PAGE];

/// `DLE DC4` fn 8: forgets what is not on paper yet, so that the rest of a job
/// that was given up does not come out with the next roll.
const FORGET: [u8; 10] = [DLE, 0x14, 8, 1, 3, 20, 1, 6, 2, 8];

/// Bits of a real-time status that are fixed, and their values.
const STATUS_FIXED: (u8, u8) = (0b1001_0011, 0b0001_0010);
/// Bits of an answer to `GS r` that are fixed at 0.
const SENSOR_FIXED: u8 = 0b1001_0000;

/// `DLE EOT 2`: why the printer is off line.
const OFFLINE: u8 = 2;
const COVER_OPEN: u8 = 0x04;
const PAPER_END_STOP: u8 = 0x20;
const ERROR: u8 = 0x40;
/// `DLE EOT 4`: the paper's sensors.
const PAPER: u8 = 4;
const PAPER_END: u8 = 0x60;

/// First bytes of a process id, and the bytes of a whole one.
const PROCESS_ID: [u8; 2] = [0x37, 0x22];
const PROCESS_ID_BYTES: usize = 7;

/// Why a receipt is not, or perhaps not, on paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrinterError {
    /// It has no paper: put some in.
    NoPaper,
    /// Its cover is open: close it.
    Open,
    /// It does not answer, or takes no bytes: switch it on, check the cable.
    Silent,
    /// It reports an error, or does not say that the job came to its end.
    Fault,
}

/// By what a printer confirms a job, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirms {
    /// Not known yet.
    Unknown,
    /// `GS ( H`.
    ProcessId,
    /// Only `GS r`.
    Sensor,
    /// Neither.
    Nothing,
}

/// How a job ended, as far as the printer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All of it is on paper.
    OnPaper,
    /// It has read all of it, and was given the time to print it.
    Read,
    /// It said nothing.
    Unanswered,
}

/// What came from the printer.
enum Answer {
    Status(u8),
    Sensor,
    ProcessId([u8; 4]),
}

/// A printer.
pub struct Printer<S, C> {
    serial: S,
    clock: C,
    confirms: Confirms,
}

impl<S: Read + Write, C: Clock> Printer<S, C> {
    /// A printer on this line. Nothing is sent yet.
    pub fn new(serial: S, clock: C) -> Self {
        Self {
            serial,
            clock,
            confirms: Confirms::Unknown,
        }
    }

    /// Asks whether it could print now.
    ///
    /// # Errors
    /// Why not. Nothing was printed.
    pub async fn ready(&mut self) -> Result<(), PrinterError> {
        let cause = match self.status(OFFLINE).await {
            // The first byte after a sleep may be lost.
            Err(PrinterError::Silent) => self.status(OFFLINE).await?,
            other => other?,
        };
        if cause & COVER_OPEN != 0 {
            return Err(PrinterError::Open);
        }
        let paper = self.status(PAPER).await?;
        if cause & PAPER_END_STOP != 0 || paper & PAPER_END != 0 {
            Err(PrinterError::NoPaper)
        } else if cause & ERROR != 0 {
            Err(PrinterError::Fault)
        } else {
            Ok(())
        }
    }

    /// Prints a slip and waits until it is on paper.
    ///
    /// # Errors
    /// Why that is not known: some of it may be on paper, or all.
    pub async fn print(&mut self, slip: &Slip<'_>) -> Result<(), PrinterError> {
        let printed = self.job(slip).await;
        if printed.is_err() {
            // The job is given up; what the line says to this changes nothing.
            let _ = self.write(&FORGET).await;
        }
        printed
    }

    async fn job(&mut self, slip: &Slip<'_>) -> Result<(), PrinterError> {
        self.forget_answers().await;
        let id = job_id(slip);
        let [a, b, c, d] = id;
        let ask = [GS, b'(', b'H', 6, 0, 48, 48, a, b, c, d, GS, b'r', 1];
        let mut line = PaperLine::default();
        line.set(&BEGIN);
        // All bytes of a job leave in one place: each costs flash.
        for next in 0..=Slip::LINES + 1 {
            self.write(line.bytes()).await?;
            if next < Slip::LINES {
                slip.line(next, &mut line);
            } else {
                line.set(&ask);
            }
        }
        let end = self.end_of_job(id).await;
        if end != End::OnPaper {
            self.ready().await?;
        }
        match (end, self.confirms) {
            (End::OnPaper, _) => {
                self.confirms = Confirms::ProcessId;
                Ok(())
            }
            (End::Read, Confirms::ProcessId) => Err(PrinterError::Fault),
            (End::Read, _) => {
                self.confirms = Confirms::Sensor;
                Ok(())
            }
            (End::Unanswered, Confirms::Nothing) => Ok(()),
            (End::Unanswered, confirms) => {
                if confirms == Confirms::Unknown {
                    self.confirms = Confirms::Nothing;
                }
                Err(PrinterError::Fault)
            }
        }
    }

    /// Waits for what a printer says at the end of the job with this id.
    async fn end_of_job(&mut self, id: [u8; 4]) -> End {
        let patience_ms = if self.confirms == Confirms::Nothing {
            PRINTER_MECHANISM_MS
        } else {
            PRINTER_JOB_MS
        };
        let mut until_ms = self.clock.now_ms() + patience_ms;
        let mut end = End::Unanswered;
        while let Some(answer) = self.answer(until_ms).await {
            match answer {
                Answer::ProcessId(of) if of == id => return End::OnPaper,
                Answer::Sensor if end == End::Unanswered => {
                    end = End::Read;
                    if self.confirms != Confirms::ProcessId {
                        until_ms = self.clock.now_ms() + PRINTER_MECHANISM_MS;
                    }
                }
                _ => {}
            }
        }
        end
    }

    /// A real-time status.
    async fn status(&mut self, which: u8) -> Result<u8, PrinterError> {
        self.forget_answers().await;
        self.write(&[DLE, 0x04, which]).await?;
        let until_ms = self.clock.now_ms() + PRINTER_ANSWER_MS;
        loop {
            match self.answer(until_ms).await {
                Some(Answer::Status(status)) => return Ok(status),
                Some(_) => {}
                None => return Err(PrinterError::Silent),
            }
        }
    }

    /// The next answer, if one comes in time. Bytes that are none are passed over.
    async fn answer(&mut self, until_ms: u64) -> Option<Answer> {
        let mut id = [0; PROCESS_ID_BYTES];
        let mut len = 0;
        loop {
            let byte = self.byte(until_ms).await?;
            if len == 0 && byte & STATUS_FIXED.0 == STATUS_FIXED.1 {
                return Some(Answer::Status(byte));
            } else if len == 0 && byte & SENSOR_FIXED == 0 {
                return Some(Answer::Sensor);
            } else if PROCESS_ID.get(len).is_some_and(|wanted| *wanted != byte) {
                len = 0;
                continue;
            }
            if let Some(place) = id.get_mut(len) {
                *place = byte;
            }
            len += 1;
            if let (PROCESS_ID_BYTES, [_, _, a, b, c, d, _]) = (len, id) {
                return Some(Answer::ProcessId([a, b, c, d]));
            }
        }
    }

    async fn byte(&mut self, until_ms: u64) -> Option<u8> {
        // Where bytes never stop, the other branch below is never asked.
        if self.clock.now_ms() > until_ms {
            return None;
        }
        let mut byte = [0];
        let read = self.serial.read(&mut byte);
        match select(read, self.clock.sleep_until(until_ms)).await {
            Either::First(Ok(1..)) => Some(byte[0]),
            Either::First(_) => {
                // A line error, or no line any more: not worth telling apart
                // from silence, but it must not spin.
                self.clock.sleep_until(until_ms).await;
                None
            }
            Either::Second(()) => None,
        }
    }

    /// Reads what came unasked, or too late.
    async fn forget_answers(&mut self) {
        let now_ms = self.clock.now_ms();
        while self.byte(now_ms).await.is_some() {}
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), PrinterError> {
        let until_ms = self.clock.now_ms() + PRINTER_WRITE_MS;
        let write = async {
            self.serial.write_all(bytes).await?;
            self.serial.flush().await
        };
        match select(write, self.clock.sleep_until(until_ms)).await {
            Either::First(Ok(())) => Ok(()),
            Either::First(Err(_)) | Either::Second(()) => Err(PrinterError::Silent),
        }
    }
}

/// Four printable bytes that tell this job from others that the printer may
/// still be busy with.
fn job_id(slip: &Slip<'_>) -> [u8; 4] {
    let job = (slip.receipt.sequence as u32) << 1 | u32::from(slip.again);
    [18, 12, 6, 0].map(|shift| b'0' + (job >> shift & 0x3F) as u8)
}
