//! Receipts on paper, through the driver and a simulated printer.

use std::convert::Infallible;
use std::time::Duration;

use embedded_io_async::{ErrorType, Read, Write};
use fastrand::Rng;
use risiti_sim::printer::{Paper, PrinterCore, PrinterLine, PrinterModel};
use risiti_terminal::hardware::Clock;
use risiti_terminal::limits::{
    PRINTER_ANSWER_MS, PRINTER_JOB_MS, PRINTER_MECHANISM_MS, PRINTER_WRITE_MS,
};
use risiti_terminal::printing::{Printer, PrinterError, Slip};
use risiti_wire::{Currency, Lines, Reason, Receipt, Status};
use tokio::time::Instant;

/// The time of tokio, which stands still until all wait.
#[derive(Clone)]
struct Time {
    begun: Instant,
}

impl Time {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
        }
    }
}

impl Clock for Time {
    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    async fn sleep_until(&self, at_ms: u64) {
        tokio::time::sleep_until(self.begun + Duration::from_millis(at_ms)).await;
    }
}

/// A desk with a printer on it, and a terminal's driver.
struct Desk {
    printer: risiti_sim::printer::Printer<Time>,
    driver: Printer<PrinterLine<Time>, Time>,
    time: Time,
}

impl Desk {
    fn new(model: PrinterModel) -> Self {
        let time = Time::new();
        let printer = risiti_sim::printer::Printer::new(model, time.clone());
        let driver = Printer::new(printer.line(), time.clone());
        Self {
            printer,
            driver,
            time,
        }
    }

    /// The terminal starts anew.
    fn restart(&mut self) {
        self.driver = Printer::new(self.printer.line(), self.time.clone());
    }

    /// The papers so far, once the mechanism has stopped.
    async fn papers(&self) -> Vec<Paper> {
        self.time.sleep(60_000).await;
        self.printer.take_papers()
    }
}

fn receipt(sequence: u64) -> Receipt<'static> {
    Receipt {
        sequence,
        number: 9_001,
        status: Status::Accepted,
        time_s: 1_795_282_329,
        amount_minor: 150_000,
        currency: Currency::new(404).expect("KES"),
        bank_reference: Some("TX-77-0042"),
        lines: Lines::new(&["School fees, term 3", "Pupil: Añá Müller €"]).expect("two lines"),
    }
}

fn slip(receipt: Receipt<'_>) -> Slip<'_> {
    Slip {
        title: "Village Savings & Loan",
        terminal: "kiosk-0001",
        receipt,
        again: false,
        utc_offset_minutes: 180,
    }
}

async fn printed(slip: &Slip<'_>) -> Paper {
    let mut desk = Desk::new(PrinterModel::ProcessId);
    desk.driver.print(slip).await.expect("printed");
    let mut papers = desk.printer.take_papers();
    desk.printer
        .with(|core, _| assert_eq!(core.unknown(), [0; 0]));
    assert_eq!(papers.len(), 1);
    papers.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_paper_says_all_that_the_receipt_says() {
    let paper = printed(&slip(receipt(12))).await;
    assert!(paper.whole);
    assert_eq!(
        paper.text(),
        "     Village Savings & Loan
        ACCEPTED
AMOUNT               KES 1500.00
PAYMENT                       12
RECEIPT                     9001
DATE            2026-11-21 20:32
BANK                  TX-77-0042
School fees, term 3
Pupil: Añá Müller €
TERMINAL              kiosk-0001"
    );
    assert_eq!(paper.payment(), Some(12));
    assert_eq!(paper.receipt(), Some(9_001));
    assert_eq!(paper.accepted(), Some(true));
    assert!(!paper.again());
}

#[tokio::test(start_paused = true)]
async fn a_rejection_says_why() {
    let rejected = Receipt {
        status: Status::Rejected(Reason::LIMIT),
        bank_reference: None,
        lines: Lines::default(),
        currency: Currency::new(800).expect("UGX"),
        ..receipt(7)
    };
    let slip = Slip {
        title: "",
        utc_offset_minutes: 0,
        ..slip(rejected)
    };
    assert_eq!(
        printed(&slip).await.text(),
        "        REJECTED
         limit exceeded
AMOUNT                UGX 150000
PAYMENT                        7
RECEIPT                     9001
DATE        2026-11-21 17:32 UTC
TERMINAL              kiosk-0001"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_not_made_up() {
    let unread = Receipt {
        status: Status::Rejected(Reason::new(77).expect("a reason")),
        time_s: 0,
        amount_minor: 0,
        currency: Currency::NONE,
        bank_reference: None,
        lines: Lines::default(),
        ..receipt(8)
    };
    assert_eq!(
        printed(&slip(unread)).await.text(),
        "     Village Savings & Loan
        REJECTED
           reason 77
PAYMENT                        8
RECEIPT                     9001
DATE                   not known
TERMINAL              kiosk-0001"
    );
}

#[tokio::test(start_paused = true)]
async fn the_longest_receipt_fits_its_columns() {
    let line = "0123456789abcdef0123456789abcdef";
    let longest = Receipt {
        sequence: u32::MAX.into(),
        number: u64::MAX,
        amount_minor: u32::MAX.into(),
        bank_reference: Some("ABCDEFGHIJKLMNOPQRSTUVWX"),
        lines: Lines::new(&[line; 6]).expect("six lines"),
        ..receipt(0)
    };
    let slip = Slip {
        title: "A title of an institution that is longer than a paper",
        terminal: "terminal-id-of-23-bytes",
        again: true,
        ..slip(longest)
    };
    let paper = printed(&slip).await;
    assert_eq!(
        paper.text(),
        format!(
            "A title of an institution that i
        ACCEPTED
         PRINTED AGAIN
AMOUNT           KES 42949672.95
PAYMENT               4294967295
RECEIPT     18446744073709551615
DATE            2026-11-21 20:32
BANK    ABCDEFGHIJKLMNOPQRSTUVWX
{line}\n{line}\n{line}\n{line}\n{line}\n{line}
TERMINAL terminal-id-of-23-bytes"
        )
    );
    assert!(paper.again() && paper.lines.iter().all(|line| line.chars().count() <= 32));
}

#[tokio::test(start_paused = true)]
async fn printed_means_that_it_is_on_paper() {
    // Power goes at every moment of a job: whoever was told "printed" by then
    // has a whole paper in the hand.
    let mut told = 0;
    let mut sent_not_printed = 0;
    for cut_ms in (0..3_000).step_by(20) {
        let mut desk = Desk::new(PrinterModel::ProcessId);
        let slip = slip(receipt(12));
        let job = tokio::time::timeout(Duration::from_millis(cut_ms), desk.driver.print(&slip));
        let confirmed = matches!(job.await, Ok(Ok(())));
        desk.printer.with(PrinterCore::cut_power);
        let whole = desk.printer.take_papers().iter().any(|paper| paper.whole);
        assert!(whole || !confirmed, "cut after {cut_ms} ms");
        told += u32::from(confirmed);
        sent_not_printed += u32::from(!whole);
    }
    // The control: all bytes are sent in no time here, so whoever took that for
    // printed would have been wrong in these.
    assert!(
        told > 20 && sent_not_printed > 40,
        "{told} {sent_not_printed}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_printer_that_only_says_what_it_has_read_is_given_its_time() {
    let mut desk = Desk::new(PrinterModel::Sensor);
    for sequence in 1..=3 {
        desk.driver.ready().await.expect("ready");
        let begun_ms = desk.time.now_ms();
        desk.driver
            .print(&slip(receipt(sequence)))
            .await
            .expect("printed");
        assert!(desk.time.now_ms() - begun_ms <= PRINTER_MECHANISM_MS + 100);
        let papers = desk.printer.take_papers();
        assert_eq!(papers.len(), 1);
        assert!(papers.iter().all(|paper| paper.whole));
    }
}

#[tokio::test(start_paused = true)]
async fn a_printer_that_confirms_nothing_is_looked_at_once() {
    let mut desk = Desk::new(PrinterModel::Status);
    desk.driver.ready().await.expect("ready");
    let first = desk.driver.print(&slip(receipt(1))).await;
    assert_eq!(first, Err(PrinterError::Fault));
    desk.driver.print(&slip(receipt(2))).await.expect("printed");
    assert_eq!(desk.papers().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_printer_that_never_answers_gets_no_receipt() {
    let mut desk = Desk::new(PrinterModel::Mute);
    let begun_ms = desk.time.now_ms();
    assert_eq!(desk.driver.ready().await, Err(PrinterError::Silent));
    assert!(desk.time.now_ms() - begun_ms <= 2 * PRINTER_ANSWER_MS);
    assert!(desk.papers().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn trouble_is_told_before_the_first_byte() {
    let mut desk = Desk::new(PrinterModel::ProcessId);
    desk.printer.with(|core, now_ms| core.put_roll(0, now_ms));
    assert_eq!(desk.driver.ready().await, Err(PrinterError::NoPaper));
    desk.printer
        .with(|core, now_ms| core.put_roll(1_000, now_ms));
    desk.printer
        .with(|core, now_ms| core.set_open(true, now_ms));
    assert_eq!(desk.driver.ready().await, Err(PrinterError::Open));
    desk.printer
        .with(|core, now_ms| core.set_open(false, now_ms));
    assert_eq!(desk.driver.ready().await, Ok(()));
    assert!(desk.papers().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_roll_that_ends_in_a_job_leaves_one_torn_paper() {
    for lines in 1..14 {
        let mut desk = Desk::new(PrinterModel::ProcessId);
        desk.printer
            .with(|core, now_ms| core.put_roll(lines, now_ms));
        desk.driver.ready().await.expect("there is paper yet");
        let begun_ms = desk.time.now_ms();
        let ended = desk.driver.print(&slip(receipt(1))).await;
        assert_eq!(ended, Err(PrinterError::NoPaper), "{lines} lines");
        assert!(desk.time.now_ms() - begun_ms <= PRINTER_JOB_MS + 3 * PRINTER_ANSWER_MS);
        // The rest of the job does not come out with the new roll.
        desk.printer
            .with(|core, now_ms| core.put_roll(1_000, now_ms));
        let papers = desk.papers().await;
        assert_eq!(papers.len(), 1);
        assert!(papers.iter().all(|paper| !paper.whole));

        desk.driver.print(&slip(receipt(1))).await.expect("printed");
        assert!(desk.papers().await.iter().all(|paper| paper.whole));
    }
}

#[tokio::test(start_paused = true)]
async fn a_printer_that_lost_power_in_a_job_is_a_fault() {
    let mut desk = Desk::new(PrinterModel::ProcessId);
    // It has shown what it can confirm.
    desk.driver.print(&slip(receipt(1))).await.expect("printed");
    let printer = desk.printer.clone();
    let time = desk.time.clone();
    let slip = slip(receipt(2));
    let (ended, ()) = tokio::join!(desk.driver.print(&slip), async {
        time.sleep(500).await;
        printer.with(PrinterCore::cut_power);
    });
    assert_eq!(ended, Err(PrinterError::Fault));
    let whole: Vec<bool> = desk
        .papers()
        .await
        .iter()
        .map(|paper| paper.whole)
        .collect();
    assert_eq!(whole, [true, false]);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_job_does_not_confirm_a_later_one() {
    for cut_ms in (0..2_000).step_by(50) {
        let mut desk = Desk::new(PrinterModel::ProcessId);
        let before = slip(receipt(1));
        let cut = Duration::from_millis(cut_ms);
        // The terminal loses power, the printer on its own supply prints on.
        let _ = tokio::time::timeout(cut, desk.driver.print(&before)).await;
        desk.restart();
        desk.driver.ready().await.expect("ready");
        desk.driver.print(&slip(receipt(2))).await.expect("printed");
        let papers = desk.printer.take_papers();
        let second = |paper: &Paper| paper.whole && paper.payment() == Some(2);
        assert!(papers.iter().any(second), "cut after {cut_ms} ms");
    }
}

/// A line with noise on it.
struct Noise {
    rng: Rng,
    /// Bytes are taken, or the line stands still.
    takes: bool,
}

impl ErrorType for Noise {
    type Error = Infallible;
}

impl Read for Noise {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(0..50))).await;
        let count = self.rng.usize(1..=8).min(into.len());
        for byte in into.iter_mut().take(count) {
            *byte = self.rng.u8(..);
        }
        Ok(count)
    }
}

impl Write for Noise {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        if !self.takes {
            std::future::pending::<()>().await;
        }
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn every_wait_ends() {
    let limit_ms = PRINTER_JOB_MS + PRINTER_MECHANISM_MS + 2 * PRINTER_WRITE_MS;
    for seed in 0..2_000 {
        let time = Time::new();
        let line = Noise {
            rng: Rng::with_seed(seed),
            takes: seed % 4 > 0,
        };
        let mut driver = Printer::new(line, time.clone());
        let _ = driver.ready().await;
        let _ = driver.print(&slip(receipt(seed))).await;
        assert!(time.now_ms() <= limit_ms, "seed {seed}: {}", time.now_ms());
    }
}
