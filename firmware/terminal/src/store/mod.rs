//! Records, receipts and counters in NOR flash.
//!
//! Promises: what [`Store::save`] returned for survives a cut at any byte of any
//! write; no sequence number is used twice; a record is kept until its receipt is
//! stored; a receipt is handed out for printing once, and after that only as
//! interrupted; what is damaged is passed by and counted. Never: a page erased in
//! which something waits, a flash formatted that isn't blank, an index in memory
//! that grows.
//!
//! # Layout, version 1
//!
//! The flash is three rings of pages; a page is what the flash erases at once. In a
//! terminal it ends before the last page, which is the [vault](crate::vault)'s.
//!
//! | pages | ring | slot | holds |
//! | --- | --- | --- | --- |
//! | first 4, or 2 of less than 32 | notes | 84 bytes | all that is neither record nor receipt, newest counts |
//! | an eighth of the rest, at least 2 | receipts | 308 bytes | sequence number of the record (4), receipt |
//! | the rest, at least 2 | records | 76 bytes | record as it goes on the air |
//!
//! | ring | number of a slot | words 0, 1 | words 2, 3 | words 4, 5 |
//! | --- | --- | --- | --- | --- |
//! | records | sequence number | settled: its receipt is stored, or else void | word 2 only: sent, if not blank | whole: it was read back |
//! | receipts | ordinal | ended: on paper, or else void | began: the printer may have some of it | whole: it was read back |
//! | notes | one after the other | none | none | whole: it was read back |
//!
//! Pages of 4 KiB take 53 records, 13 receipts or 48 notes; 1 MiB keeps 11,713
//! records. Slots, marks and pages have their formats in `slot`, `ring` and `notes`.
//!
//! # What happens when
//!
//! - *Saving*: a block of numbers is reserved by a note, if none is left since the
//!   start; the slot is written, read back and marked as whole. One without a trace
//!   of that mark was cut, and is voided at the next start, though it may read well
//!   then: nobody saw it as saved, and a payment that is keyed in again must not
//!   count twice. A number is never given again, even if its slot was cut: after a
//!   start the rest of the block is skipped, and another block for each note that
//!   can't be read or may have been lost with its page. What the newest receipt
//!   answers was given, too, whatever became of its record.
//! - *Taking a receipt*: its slot is written, read back and marked as whole, then
//!   its record is settled. A start that finds the record not settled settles it,
//!   if there is a trace of the mark, or else voids the receipt. In either case it
//!   was not acknowledged: the gateway delivers it again.
//! - *Printing*: `began` before the first byte, `ended` after the last.
//! - *A full page*: pages at the old end in which nothing waits are passed by; a
//!   note says so; the oldest is erased and begun anew. If something waits in it
//!   the ring is full: a record is refused, a receipt left to the gateway.
//!
//! # What was cut, and what is damaged
//!
//! A word that was being written, and a page that was being erased, may read as
//! anything, and otherwise at the next start. So a mark that was found set by one
//! word is given its second where it matters; the newest note is written again at
//! each start; the blank slot after the last one is left out, since a write may
//! have begun there; and a page is erased, blank or not, in the same run in which
//! its head is written.
//!
//! One flipped bit in a slot is put right. What can't be read is counted and passed
//! by; it is given up when the ring comes round to its page. The last slot of a
//! ring, unreadable and without a mark, was cut: nobody was told of it.
//!
//! A flash in which no note and no record can be read, with anything in the pages
//! of records or receipts, is not touched: the store opens, and says that it can't
//! number a record ([`SaveError::Unnumbered`]). Blank is what reads all ones; that
//! is a new terminal.
//!
//! # What it costs
//!
//! Opening reads the head of each page, 16 bytes, twice, a byte of each slot
//! where a head is missing, and every page from the oldest in which something
//! waits: 33 KiB with nothing waiting in 1 MiB, all of it with a full one (1.1 s at
//! 8 MHz).

mod append;
mod error;
mod levels;
mod notes;
mod recovery;
mod ring;
#[doc(hidden)]
pub mod rules;
mod slot;

use core::marker::PhantomData;

use embedded_storage_async::nor_flash::NorFlash;
use risiti_wire::WireError;
use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX};

pub use error::{SaveError, StoreError};
pub use levels::{Levels, Opening, Taken, ToPrint, Waiting};
pub use notes::Counters;

use append::Which;
use notes::{NOTE_BYTES, Note};
use ring::{Place, Ring};
use rules::{Rules, Sound};
use slot::{BEGUN, DONE, Shape};

/// Bytes before a receipt in its slot: the sequence number that it answers.
const SEQUENCE_BYTES: usize = 4;

const RECORD: Shape = Shape::new(0x51, RECORD_BYTES_MAX, 6);
const RECEIPT: Shape = Shape::new(
    0x61,
    (SEQUENCE_BYTES + RECEIPT_BYTES_MAX).next_multiple_of(4),
    6,
);
const NOTE: Shape = Shape::new(0x72, NOTE_BYTES, 2);

/// Pages of a ring: one that is written, one that is erased.
const RING_PAGES_MIN: u32 = 2;

/// What a terminal must not lose.
///
/// Its futures are to be run to their end. One that is dropped loses nothing that
/// was promised, but [`levels`](Self::levels) may be wrong by one until the next
/// start.
pub struct Store<F, R = Sound> {
    flash: F,
    records: Ring,
    receipts: Ring,
    notes: Ring,
    /// What the newest note says, or the next one that is written will.
    note: Note,
    /// The page that holds the newest note that is whole.
    note_serial: u32,
    /// Whether it was written since the start, as it is.
    is_note_firm: bool,
    is_numbered: bool,
    next_sequence: u32,
    /// The highest one that was reserved since the start.
    reserved: u32,
    /// A receipt that is being stored: of this number, here.
    pending: Option<(u32, Place)>,
    /// The number that the newest receipt answers.
    last_answered: u32,
    levels: Levels,
    rules: PhantomData<R>,
}

impl<F: NorFlash> Store<F> {
    /// Finds what the flash holds, and ends what was cut. A blank flash, or one
    /// that isn't ours, is not written to.
    ///
    /// # Errors
    /// The flash can't be read, or is too small. What it holds is never an error.
    pub async fn open(flash: F) -> Result<(Self, Opening), StoreError<F::Error>> {
        Self::open_by(flash).await
    }
}

impl<F: NorFlash, R: Rules> Store<F, R> {
    /// As [`open`](Store::open), by other rules.
    ///
    /// # Errors
    /// Those of [`open`](Store::open).
    #[doc(hidden)]
    pub async fn open_by(flash: F) -> Result<(Self, Opening), StoreError<F::Error>> {
        const {
            assert!(F::READ_SIZE == 1, "the store reads single bytes");
            assert!(4 % F::WRITE_SIZE == 0, "the store writes words of 4 bytes");
            assert!(F::ERASE_SIZE.is_multiple_of(4), "pages hold whole words");
        }
        let pages = (flash.capacity() / F::ERASE_SIZE) as u32;
        if pages < 3 * RING_PAGES_MIN || F::ERASE_SIZE < 16 + RECEIPT.slot_bytes() {
            return Err(StoreError::TooSmall);
        }
        let note_pages = if pages < 32 { RING_PAGES_MIN } else { 4 };
        let receipt_pages = ((pages - note_pages) / 8).max(RING_PAGES_MIN);
        let record_pages = pages - note_pages - receipt_pages;
        let ring = |mut shape: Shape, first, pages| {
            shape.checked = R::CHECKS;
            shape.marks_twice = R::MARKS_TWICE;
            Ring::new(shape, first, pages)
        };
        let mut store = Self {
            flash,
            notes: ring(NOTE, 0, note_pages),
            receipts: ring(RECEIPT, note_pages, receipt_pages),
            records: ring(RECORD, note_pages + receipt_pages, record_pages),
            note: Note::default(),
            note_serial: 0,
            is_note_firm: false,
            is_numbered: true,
            next_sequence: 1,
            reserved: 0,
            pending: None,
            last_answered: 0,
            levels: Levels::default(),
            rules: PhantomData,
        };
        let opening = store.recover().await?;
        Ok((store, opening))
    }

    /// Saves a record: `build` is given its sequence number and writes it, and
    /// says how many bytes it has. Returns its number once it is durable.
    ///
    /// # Errors
    /// See [`SaveError`]. After [`SaveError::Flash`] the record may yet turn out to
    /// be saved, as after a cut in the very last word that is written.
    pub async fn save(
        &mut self,
        build: impl FnOnce(u32, &mut [u8; RECORD_BYTES_MAX]) -> Result<usize, WireError>,
    ) -> Result<u32, SaveError<F::Error>> {
        let mut bytes = [0; RECORD_BYTES_MAX];
        let Some(sequence) = self.next_sequence().await? else {
            return Err(SaveError::Unnumbered);
        };
        // What was cut may yet be read, so a new page begins above it.
        self.records.next_number = sequence;
        let Some(place) = self.place(Which::Records).await? else {
            return Err(SaveError::Full);
        };
        let len = build(sequence, &mut bytes).map_err(SaveError::Record)?;
        let Some(bytes) = bytes.get(..len) else {
            return Err(SaveError::Record(WireError::BufferTooSmall));
        };
        // From here on it is used, whatever happens.
        self.next_sequence = sequence.saturating_add(1);
        match self
            .write(Which::Records, place, sequence, [bytes, &[]])
            .await?
        {
            Some(_) => {
                self.levels.waiting += 1;
                self.levels.unsent += 1;
                self.levels.last_sequence = sequence;
                Ok(sequence)
            }
            None => Err(SaveError::Full),
        }
    }

    /// The record with the lowest number above `after` that has no receipt.
    ///
    /// # Errors
    /// The flash.
    pub async fn next_waiting(
        &mut self,
        after: u32,
        into: &mut [u8; RECORD_BYTES_MAX],
    ) -> Result<Option<Waiting>, StoreError<F::Error>> {
        if self.levels.waiting == 0 {
            return Ok(None);
        }
        let flash = &mut self.flash;
        let Some((place, slot)) = self.records.next_waiting(flash, after).await? else {
            return Ok(None);
        };
        let len = self.records.read(flash, place, &slot, 0, into).await?;
        Ok(Some(Waiting {
            sequence: slot.number,
            len,
            sent: !slot.is_blank(BEGUN),
        }))
    }

    /// A gateway has acknowledged this record. It is kept until its receipt.
    ///
    /// # Errors
    /// The flash.
    pub async fn mark_sent(&mut self, sequence: u32) -> Result<(), StoreError<F::Error>> {
        let flash = &mut self.flash;
        if let Some(sought) = self.records.seek(flash, sequence).await?
            && sought.found
            && sought.slot.is_blank(BEGUN)
        {
            self.records.set(flash, sought.place, BEGUN).await?;
            if !sought.slot.is_done() {
                self.levels.unsent = self.levels.unsent.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Stores the receipt of a record and settles the record. Both are durable
    /// when it returns.
    ///
    /// # Errors
    /// The flash. Don't acknowledge the receipt: the gateway delivers it again.
    pub async fn take_receipt(
        &mut self,
        sequence: u32,
        payload: &[u8],
    ) -> Result<Taken, StoreError<F::Error>> {
        self.resolve_pending().await?;
        if payload.len() > RECEIPT_BYTES_MAX {
            return Ok(Taken::Unknown);
        }
        let record = self.records.seek(&mut self.flash, sequence).await?;
        // A slot that can't be read has a number that was given.
        let record = record.filter(|record| record.found || sequence < self.next_sequence);
        let Some(record) = record else {
            return Ok(if sequence != 0 && sequence < self.next_sequence {
                Taken::Repeated
            } else {
                Taken::Unknown
            });
        };
        if record.slot.is_done() {
            return Ok(Taken::Repeated);
        }
        if !record.found && sequence == self.last_answered {
            // Its receipt is here. What was found may be the slot of another record,
            // whose receipt is still to come.
            return Ok(Taken::Repeated);
        }
        let Some(place) = self.place(Which::Receipts).await? else {
            return Ok(Taken::Full);
        };
        if !R::RECEIPT_FIRST {
            let flash = &mut self.flash;
            self.records
                .mark(flash, record.place, &record.slot, DONE)
                .await?;
        }
        let ordinal = self.receipts.next_number;
        let body = [&sequence.to_le_bytes(), payload];
        if self
            .write(Which::Receipts, place, ordinal, body)
            .await?
            .is_none()
        {
            return Ok(Taken::Full);
        }
        if R::RECEIPT_FIRST {
            let flash = &mut self.flash;
            self.records
                .mark(flash, record.place, &record.slot, DONE)
                .await?;
        }
        self.pending = None;
        self.last_answered = sequence;
        self.levels.to_print += 1;
        if record.found {
            self.count_settled(&record.slot);
        }
        Ok(Taken::New)
    }

    /// The oldest receipt that is not known to be on paper.
    ///
    /// # Errors
    /// The flash.
    pub async fn next_to_print(
        &mut self,
        into: &mut [u8; RECEIPT_BYTES_MAX],
    ) -> Result<Option<ToPrint>, StoreError<F::Error>> {
        self.resolve_pending().await?;
        if self.levels.to_print == 0 {
            return Ok(None);
        }
        let Some((place, slot)) = self.receipts.next_waiting(&mut self.flash, 0).await? else {
            return Ok(None);
        };
        let sequence = self.answers(place, &slot).await?;
        let flash = &mut self.flash;
        let len = self
            .receipts
            .read(flash, place, &slot, SEQUENCE_BYTES, into)
            .await?;
        Ok(Some(ToPrint {
            ordinal: slot.number,
            sequence,
            len,
            interrupted: slot.is_marked(BEGUN),
        }))
    }

    /// The first byte of a receipt is about to go to the printer. Durable when it
    /// returns.
    ///
    /// # Errors
    /// The flash. Don't print.
    pub async fn print_began(&mut self, ordinal: u32) -> Result<(), StoreError<F::Error>> {
        let flash = &mut self.flash;
        if let Some(sought) = self.receipts.seek(flash, ordinal).await?
            && sought.found
        {
            self.receipts
                .mark(flash, sought.place, &sought.slot, BEGUN)
                .await?;
        }
        Ok(())
    }

    /// A receipt is on paper, as the printer or a human says. Durable when it
    /// returns.
    ///
    /// # Errors
    /// The flash. The receipt counts as interrupted.
    pub async fn print_ended(&mut self, ordinal: u32) -> Result<(), StoreError<F::Error>> {
        let flash = &mut self.flash;
        if let Some(sought) = self.receipts.seek(flash, ordinal).await?
            && sought.found
            && !sought.slot.is_done()
        {
            self.receipts
                .mark(flash, sought.place, &sought.slot, DONE)
                .await?;
            self.levels.to_print = self.levels.to_print.saturating_sub(1);
        }
        Ok(())
    }

    /// The newest receipt that is on paper; how many bytes it has.
    ///
    /// # Errors
    /// The flash.
    pub async fn last_receipt(
        &mut self,
        into: &mut [u8; RECEIPT_BYTES_MAX],
    ) -> Result<Option<usize>, StoreError<F::Error>> {
        let flash = &mut self.flash;
        let Some((place, slot)) = self.receipts.last_done(flash).await? else {
            return Ok(None);
        };
        let len = self
            .receipts
            .read(flash, place, &slot, SEQUENCE_BYTES, into)
            .await?;
        Ok(Some(len))
    }

    /// How much of what there is.
    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// Whether the gateway's session is known to hold the subscription.
    pub fn is_subscribed(&self) -> bool {
        self.note.subscribed
    }

    /// It does, or does no more. Durable when it returns.
    ///
    /// # Errors
    /// The flash.
    pub async fn set_subscribed(&mut self, subscribed: bool) -> Result<(), StoreError<F::Error>> {
        if subscribed == self.note.subscribed && self.is_note_firm {
            return Ok(());
        }
        self.note.subscribed = subscribed;
        self.put_note().await
    }

    /// What was counted until the last [`put_counters`](Self::put_counters).
    pub fn counters(&self) -> &Counters {
        &self.note.counters
    }

    /// Keeps these. Durable when it returns; a note of 84 bytes.
    ///
    /// # Errors
    /// The flash.
    pub async fn put_counters(&mut self, counters: Counters) -> Result<(), StoreError<F::Error>> {
        self.note.counters = counters;
        self.put_note().await
    }
}
