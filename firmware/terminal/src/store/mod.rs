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
//! The flash is three rings of pages; a page is what the flash erases at once.
//!
//! | pages | ring | slot | holds |
//! | --- | --- | --- | --- |
//! | first 4, or 2 of less than 32 | notes | 76 bytes | all that is neither record nor receipt, newest counts |
//! | an eighth of the rest, at least 2 | receipts | 308 bytes | sequence number of the record (4), receipt |
//! | the rest, at least 2 | records | 64 bytes | record as it goes on the air |
//!
//! | ring | number of a slot | words 0, 1 | words 2, 3 | words 4, 5 |
//! | --- | --- | --- | --- | --- |
//! | records | sequence number | settled: its receipt is stored | word 2 only: sent, if not blank | |
//! | receipts | ordinal | ended: on paper, or else void | began: the printer may have some of it | whole: it was read back |
//!
//! Pages of 4 KiB take 63 records, 13 receipts or 53 notes; 1 MiB keeps 13,923
//! records. Slots, marks and pages have their formats in `slot`, `ring` and `notes`.
//!
//! # What happens when
//!
//! - *Saving*: a block of numbers is reserved by a note, if none is left since the
//!   start; the slot is written and read back. A number is never given again, even
//!   if its slot was cut: after a start the rest of the block is skipped, and
//!   another block for each note that can't be read.
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
//! Opening reads 16 bytes of each page, a page of each ring besides the newest one
//! of each, and every page from the oldest in which something waits: 40 KiB with
//! nothing waiting in 1 MiB, all of it with a full one (1.1 s at 8 MHz).

mod check;
mod error;
mod notes;
mod ring;
#[doc(hidden)]
pub mod rules;
mod slot;

use core::marker::PhantomData;

use embedded_storage_async::nor_flash::NorFlash;
use risiti_wire::WireError;
use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX};

pub use error::{SaveError, StoreError};
pub use notes::Counters;

use crate::limits::{RESERVED_NUMBERS, WRITE_ATTEMPTS_MAX};
use notes::{NOTE_BYTES, Note};
use ring::{Place, Ring};
use rules::{Rules, Sound};
use slot::{BEGUN, DONE, Shape, Slot, State, WHOLE};

/// Bytes before a receipt in its slot: the sequence number that it answers.
const SEQUENCE_BYTES: usize = 4;

const RECORD: Shape = Shape::new(0x51, RECORD_BYTES_MAX, 3);
const RECEIPT: Shape = Shape::new(
    0x61,
    (SEQUENCE_BYTES + RECEIPT_BYTES_MAX).next_multiple_of(4),
    6,
);
const NOTE: Shape = Shape::new(0x71, NOTE_BYTES, 0);

/// Pages of a ring: one that is written, one that is erased.
const RING_PAGES_MIN: u32 = 2;

/// What was found at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opening {
    /// Nothing was ever saved here.
    pub is_new: bool,
    /// Records can be numbered; see [`SaveError::Unnumbered`].
    pub is_numbered: bool,
    /// Slots and pages that somebody relied on and that can't be read.
    pub damaged: u16,
    /// Slots that power was cut in; nothing is lost by them.
    pub torn: u16,
    /// Slots with a flipped bit, read all the same.
    pub repaired: u16,
}

/// How much of what there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Levels {
    /// Records without a receipt.
    pub waiting: u32,
    /// Those of them that no gateway has acknowledged.
    pub unsent: u32,
    /// Receipts that are not known to be on paper.
    pub to_print: u32,
    /// Records that fit in all.
    pub capacity: u32,
    /// Slots and pages that can't be read, since the start.
    pub damaged: u16,
    /// Slots that power was cut in, found at the start.
    pub torn: u16,
    /// The highest sequence number of a record; 0 if there was none.
    pub last_sequence: u32,
}

impl Levels {
    fn count_damaged(&mut self) {
        self.damaged = self.damaged.saturating_add(1);
    }
}

/// A record without a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its sequence number.
    pub sequence: u32,
    /// Its bytes.
    pub len: usize,
    /// Whether a gateway has acknowledged it.
    pub sent: bool,
}

/// What became of a receipt. All but [`Full`](Self::Full) are to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is stored, and its record settled.
    New,
    /// Its record had one already.
    Repeated,
    /// No record has this number, or it is larger than a receipt can be.
    Unknown,
    /// There is no room before some have been printed. Leave it to the gateway.
    Full,
}

/// A receipt that is to be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToPrint {
    /// Its number among the receipts of this terminal.
    pub ordinal: u32,
    /// The sequence number of its record.
    pub sequence: u32,
    /// Its bytes.
    pub len: usize,
    /// Its printing began, and nobody knows whether it ended: ask.
    pub interrupted: bool,
}

#[derive(Clone, Copy)]
enum Which {
    Records,
    Receipts,
}

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
    /// The page that holds the newest note.
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

    async fn recover(&mut self) -> Result<Opening, StoreError<F::Error>> {
        let flash = &mut self.flash;
        self.notes.find_newest(flash).await?;
        self.records.find_newest(flash).await?;
        self.receipts.find_newest(flash).await?;

        // The newest note stands in the newest page, or, if that was just begun,
        // in the one before; after damage, wherever there is one.
        self.notes.look_back(1);
        let mut notes = self.notes.survey(flash).await?;
        if notes.last.is_none() {
            self.notes.look_back(u32::MAX);
            notes = self.notes.survey(flash).await?;
        }
        if let Some((place, slot)) = &notes.last {
            let mut bytes = [0; NOTE_BYTES];
            self.notes.read(flash, *place, slot, 0, &mut bytes).await?;
            self.note = Note::decode(&bytes);
            self.note_serial = place.serial;
        }
        let [records_floor, receipts_floor] = self.note.floors;
        if R::NOTES_FLOORS {
            self.records.raise_to(records_floor);
            self.receipts.raise_to(receipts_floor);
        }

        let records = self.records.survey(flash).await?;
        let receipts = self.receipts.survey(flash).await?;
        self.receipts.skip_numbers(receipts.unreadable_after);
        let is_new = notes.last.is_none()
            && records.last.is_none()
            && self.records.is_blank(flash).await?
            && self.receipts.is_blank(flash).await?;
        self.is_numbered = is_new || notes.last.is_some() || records.last.is_some();
        self.next_sequence = self.records.next_number;
        if R::RESERVES {
            // Each note reserves one block at most.
            self.next_sequence = self
                .next_sequence
                .max(self.note.reserved.saturating_add(1))
                .saturating_add(notes.unreadable_after * RESERVED_NUMBERS);
        }
        self.reserved = self.next_sequence - 1;

        self.levels = Levels {
            waiting: records.waiting,
            unsent: records.fresh,
            to_print: receipts.waiting,
            capacity: self.records.pages * self.records.slots_per_page::<F>(),
            damaged: records.damaged.saturating_add(receipts.damaged),
            torn: notes.torn + records.torn + receipts.torn,
            last_sequence: self.records.next_number - 1,
        };
        if let Some((place, slot)) = receipts.last {
            let sequence = self.answers(place, &slot).await?;
            self.last_answered = sequence;
            match self.resolve(sequence, place).await? {
                Resolved::Voided { waited: true } => self.levels.to_print -= 1,
                Resolved::Completed(record) => self.count_settled(&record),
                _ => {}
            }
        }
        // The newest note may have been cut, and read otherwise next time.
        if notes.last.is_some() {
            self.note.reserved = self.reserved;
            match self.put_note().await {
                Ok(()) | Err(StoreError::Worn) => {}
                Err(flash) => return Err(flash),
            }
        }
        Ok(Opening {
            is_new,
            is_numbered: self.is_numbered,
            damaged: self.levels.damaged,
            torn: self.levels.torn,
            repaired: records.repaired.saturating_add(receipts.repaired),
        })
    }

    /// Saves a record: `build` is given its sequence number and writes it, and
    /// says how many bytes it has. Returns its number once it is durable.
    ///
    /// # Errors
    /// See [`SaveError`]. Unless it is [`SaveError::Record`], the record may turn
    /// out to be saved after a start, as after a cut.
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
            self.records.set_begun(flash, sought.place).await?;
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
        let Some(record) = self.records.seek(&mut self.flash, sequence).await? else {
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
            // Its receipt is here; only the slot of its record couldn't be ended.
            let flash = &mut self.flash;
            self.records
                .mark(flash, record.place, &record.slot, DONE)
                .await?;
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
        let Some(place) = self.write(Which::Receipts, place, ordinal, body).await? else {
            return Ok(Taken::Full);
        };
        let flash = &mut self.flash;
        let receipt = self.receipts.inspect(flash, place).await?;
        self.receipts.mark(flash, place, &receipt, WHOLE).await?;
        if R::RECEIPT_FIRST {
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

    /// Keeps these. Durable when it returns; a note of 76 bytes.
    ///
    /// # Errors
    /// The flash.
    pub async fn put_counters(&mut self, counters: Counters) -> Result<(), StoreError<F::Error>> {
        self.note.counters = counters;
        self.put_note().await
    }

    /// A number that was never used; its block is reserved.
    async fn next_sequence(&mut self) -> Result<Option<u32>, StoreError<F::Error>> {
        let next = self.next_sequence;
        if !self.is_numbered || next > u32::MAX - 2 * RESERVED_NUMBERS {
            return Ok(None);
        }
        if R::RESERVES && next > self.reserved {
            let reserved = next - 1 + RESERVED_NUMBERS;
            self.note.reserved = reserved;
            self.put_note().await?;
            self.reserved = reserved;
        }
        Ok(Some(next))
    }

    fn ring(&mut self, which: Which) -> (&mut Ring, &mut F) {
        let ring = match which {
            Which::Records => &mut self.records,
            Which::Receipts => &mut self.receipts,
        };
        (ring, &mut self.flash)
    }

    /// A blank slot; none if the ring is full.
    async fn place(&mut self, which: Which) -> Result<Option<Place>, StoreError<F::Error>> {
        for _ in 0..WRITE_ATTEMPTS_MAX {
            let (ring, flash) = self.ring(which);
            if let Some(place) = ring.blank_slot(flash).await? {
                return Ok(Some(place));
            }
            if !ring.raise_floor(flash).await? {
                return Ok(None);
            }
            let floors = [self.records.floor, self.receipts.floor];
            if R::NOTES_FLOORS && (self.note.floors != floors || !self.is_note_firm) {
                self.put_note().await?;
            }
            let (ring, flash) = self.ring(which);
            let serial = ring.newest() + 1;
            if !ring.begin_page(flash, serial).await? {
                self.levels.count_damaged();
            }
        }
        Err(StoreError::Worn)
    }

    /// Writes a slot; if it doesn't read back, into another one. Returns where, or
    /// none if the ring is full by then.
    async fn write(
        &mut self,
        which: Which,
        first: Place,
        number: u32,
        body: [&[u8]; 2],
    ) -> Result<Option<Place>, StoreError<F::Error>> {
        let mut place = first;
        for _ in 0..WRITE_ATTEMPTS_MAX {
            if let (Which::Receipts, Some(sequence)) = (which, body[0].first_chunk()) {
                self.pending = Some((u32::from_le_bytes(*sequence), place));
            }
            let (ring, flash) = self.ring(which);
            if ring.append(flash, place, number, body).await? {
                return Ok(Some(place));
            }
            self.levels.count_damaged();
            match self.place(which).await? {
                Some(next) => place = next,
                None => return Ok(None),
            }
        }
        Err(StoreError::Worn)
    }

    /// Writes the note, with the floors as they are. A flash that isn't ours is
    /// left alone.
    async fn put_note(&mut self) -> Result<(), StoreError<F::Error>> {
        if !self.is_numbered {
            return Ok(());
        }
        self.is_note_firm = false;
        if R::NOTES_FLOORS {
            self.note.floors = [self.records.floor, self.receipts.floor];
        }
        let flash = &mut self.flash;
        for _ in 0..WRITE_ATTEMPTS_MAX {
            let Some(place) = self.notes.blank_slot(flash).await? else {
                // The newest note stays where it is, however often power is cut in
                // the first ones of a new page.
                let serial = self.notes.newest();
                let is_held = self.note_serial == serial || serial < self.notes.pages;
                let serial = serial + u32::from(is_held);
                if !self.notes.begin_page(flash, serial).await? {
                    self.levels.count_damaged();
                }
                continue;
            };
            let number = self.notes.next_number;
            let bytes = self.note.encode();
            if self
                .notes
                .append(flash, place, number, [&bytes, &[]])
                .await?
            {
                self.note_serial = place.serial;
                self.is_note_firm = true;
                return Ok(());
            }
            self.levels.count_damaged();
        }
        Err(StoreError::Worn)
    }

    /// The sequence number that a receipt answers.
    async fn answers(&mut self, place: Place, slot: &Slot) -> Result<u32, StoreError<F::Error>> {
        let mut sequence = [0; SEQUENCE_BYTES];
        self.receipts
            .read(&mut self.flash, place, slot, 0, &mut sequence)
            .await?;
        Ok(u32::from_le_bytes(sequence))
    }

    /// Brings to an end what was under way with the newest receipt when power was
    /// cut, or its future dropped.
    ///
    /// Nobody was told of a receipt whose record is not settled. If there is a
    /// trace of the mark that it is whole, the record is settled now, since its own
    /// mark may have been begun, too. Otherwise it was not begun, and the receipt,
    /// which may not be whole though it reads so, is voided. A mark that one word
    /// sets gets the other.
    async fn resolve(
        &mut self,
        sequence: u32,
        place: Place,
    ) -> Result<Resolved, StoreError<F::Error>> {
        let flash = &mut self.flash;
        let receipt = self.receipts.inspect(flash, place).await?;
        let record = self.records.seek(flash, sequence).await?;
        let Some(record) = record.filter(|_| receipt.state == State::Valid) else {
            return Ok(Resolved::Neither);
        };
        if !record.found {
            return Ok(Resolved::Neither);
        }
        if record.slot.is_done() {
            self.records
                .mark(flash, record.place, &record.slot, DONE)
                .await?;
            return Ok(Resolved::Settled);
        }
        if receipt.is_done() || receipt.is_blank(WHOLE) {
            self.receipts.mark(flash, place, &receipt, DONE).await?;
            return Ok(Resolved::Voided {
                waited: !receipt.is_done(),
            });
        }
        self.receipts.mark(flash, place, &receipt, WHOLE).await?;
        self.records
            .mark(flash, record.place, &record.slot, DONE)
            .await?;
        Ok(Resolved::Completed(record.slot))
    }

    async fn resolve_pending(&mut self) -> Result<(), StoreError<F::Error>> {
        if let Some((sequence, place)) = self.pending {
            match self.resolve(sequence, place).await? {
                Resolved::Completed(record) => {
                    self.levels.to_print += 1;
                    self.count_settled(&record);
                }
                // Nobody counted it any more; that is put right by the next start.
                Resolved::Settled => self.levels.to_print += 1,
                Resolved::Voided { .. } | Resolved::Neither => {}
            }
            self.pending = None;
        }
        Ok(())
    }

    fn count_settled(&mut self, record: &Slot) {
        let levels = &mut self.levels;
        levels.waiting = levels.waiting.saturating_sub(1);
        if record.is_blank(BEGUN) {
            levels.unsent = levels.unsent.saturating_sub(1);
        }
    }
}

/// What was under way with a receipt.
enum Resolved {
    /// Its record was settled: it exists.
    Settled,
    /// It was whole, and its record, which is this, is now settled.
    Completed(Slot),
    /// It may not have been whole.
    Voided {
        /// It was counted as waiting for the printer.
        waited: bool,
    },
    /// Its record, or itself, can't be read, or is long gone.
    Neither,
}
