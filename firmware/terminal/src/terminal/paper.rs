//! The task of the printer.
//!
//! Promises: a receipt is marked as begun before its first byte goes to the
//! printer, and as ended only once the printer, or a person, has said so. Never:
//! a receipt printed a second time unasked.

use core::convert::Infallible;

use embedded_io_async::{Read, Write};
use embedded_storage_async::nor_flash::NorFlash;
use risiti_wire::limits::RECEIPT_BYTES_MAX;
use risiti_wire::{Receipt, Status};

use super::desk::{Desk, SharedStore};
use super::levels;
use super::pulse::Task;
use crate::application::{Answered, Effect, Fact};
use crate::hardware::Clock;
use crate::limits::PAPER_MS_MAX;
use crate::printing::{Printer, Slip};
use crate::settings::Settings;
use crate::store::ToPrint;

/// The printer and whom it works for.
pub struct Paper<'a, F, S, C> {
    pub desk: &'a Desk,
    pub store: &'a SharedStore<F>,
    pub settings: &'a Settings<'a>,
    pub clock: C,
    pub printer: Printer<S, C>,
}

/// Which receipt is to be printed.
enum Which {
    /// The next one, unless it was interrupted.
    Next,
    /// The interrupted one with this ordinal, again.
    Again(u32),
    /// The last one, again.
    Last,
}

impl<F: NorFlash, S: Read + Write, C: Clock> Paper<'_, F, S, C> {
    /// Works for ever.
    pub async fn run(&mut self) -> Infallible {
        loop {
            let order = self.desk.paper.wait().await;
            let done_by_ms = self.clock.now_ms() + PAPER_MS_MAX;
            self.desk.pulse.works(Task::Paper, done_by_ms);
            let fact = match order {
                Effect::PrintLast => self.print(Which::Last).await,
                Effect::Answer {
                    ordinal,
                    again: true,
                } => self.print(Which::Again(ordinal)).await,
                Effect::Answer { ordinal, .. } => self.settle(ordinal).await,
                _ => self.print(Which::Next).await,
            };
            let fact = fact.unwrap_or(Fact::StorageFailed);
            self.desk.facts.send(fact).await;
            let levels = levels(self.store).await;
            self.desk.facts.send(levels).await;
            self.desk.pulse.waits(Task::Paper);
        }
    }

    /// None: the flash failed.
    async fn print(&mut self, which: Which) -> Option<Fact> {
        let mut bytes = [0; RECEIPT_BYTES_MAX];
        let (receipt, ordinal) = match which {
            Which::Last => {
                let len = self.store.lock().await.last_receipt(&mut bytes).await;
                match len.ok()? {
                    Some(len) => (decode(&bytes, len), None),
                    None => return Some(Fact::NothingToPrint),
                }
            }
            Which::Next | Which::Again(_) => {
                let next = self.store.lock().await.next_to_print(&mut bytes).await;
                let Some(next) = next.ok()? else {
                    return Some(Fact::NothingToPrint);
                };
                let receipt = decode(&bytes, next.len);
                match (&which, &receipt) {
                    (Which::Next, Some(receipt)) if next.interrupted => {
                        return Some(interrupted(&next, receipt));
                    }
                    (Which::Again(ordinal), Some(receipt)) if *ordinal != next.ordinal => {
                        return Some(interrupted(&next, receipt));
                    }
                    _ => (receipt, Some(next.ordinal)),
                }
            }
        };
        let Some(receipt) = receipt else {
            // Not of this version: what a later firmware will read is no paper now.
            if let Some(ordinal) = ordinal {
                self.settle(ordinal).await?;
            }
            return Some(Fact::NothingToPrint);
        };
        if let Err(error) = self.printer.ready().await {
            return Some(Fact::PrinterStopped(error));
        }
        let again = !matches!(which, Which::Next);
        if let Some(ordinal) = ordinal
            && !again
        {
            self.store.lock().await.print_began(ordinal).await.ok()?;
        }
        let answered = answered(&receipt);
        self.desk.facts.send(Fact::Printing(answered)).await;
        let slip = Slip {
            title: self.settings.title,
            terminal: self.settings.id,
            receipt,
            again,
            utc_offset_minutes: self.settings.utc_offset_minutes,
        };
        if let Err(error) = self.printer.print(&slip).await {
            return Some(Fact::PrinterStopped(error));
        }
        if let Some(ordinal) = ordinal {
            self.settle(ordinal).await?;
        }
        let count = &self.desk.printed_count;
        count.set(count.get().saturating_add(1));
        Some(Fact::Printed(answered))
    }

    /// The receipt is on paper.
    async fn settle(&mut self, ordinal: u32) -> Option<Fact> {
        let ended = self.store.lock().await.print_ended(ordinal).await;
        ended.ok().map(|()| Fact::Settled)
    }
}

fn decode(bytes: &[u8], len: usize) -> Option<Receipt<'_>> {
    Receipt::decode(bytes.get(..len)?).ok()
}

fn answered(receipt: &Receipt<'_>) -> Answered {
    Answered {
        // The wire's bound is that of a u32.
        sequence: receipt.sequence as u32,
        accepted: receipt.status == Status::Accepted,
    }
}

fn interrupted(next: &ToPrint, receipt: &Receipt<'_>) -> Fact {
    Fact::Interrupted {
        ordinal: next.ordinal,
        sequence: receipt.sequence as u32,
    }
}
