//! What a start finds, and what it ends.
//!
//! Promises: after it, nothing rests on a write that was cut, and no number is
//! given that something in the flash tells of. Never: a page erased for more than
//! a note.

use embedded_storage_async::nor_flash::NorFlash;

use super::notes::{NOTE_BYTES, Note};
use super::ring::Place;
use super::rules::Rules;
use super::slot::{BEGUN, DONE, Slot, State, WHOLE};
use super::{Levels, Opening, SEQUENCE_BYTES, Store, StoreError};
use crate::limits::RESERVED_NUMBERS;

impl<F: NorFlash, R: Rules> Store<F, R> {
    pub(super) async fn recover(&mut self) -> Result<Opening, StoreError<F::Error>> {
        let flash = &mut self.flash;
        self.notes.find_newest(flash).await?;
        self.records.find_newest(flash).await?;
        self.receipts.find_newest(flash).await?;

        // The newest note stands in the newest page, or, if that was just begun,
        // in the one before; after damage, wherever there is one. One that is not
        // marked as whole may read otherwise next time: the newest that is counts then.
        self.notes.look_back(1);
        let mut notes = self.notes.survey(flash).await?;
        if notes.last_whole.is_none() {
            self.notes.look_back(u32::MAX);
            notes = self.notes.survey(flash).await?;
        }
        if let Some((place, slot)) = &notes.last {
            let mut bytes = [0; NOTE_BYTES];
            self.notes.read(flash, *place, slot, 0, &mut bytes).await?;
            self.note = Note::decode(&bytes);
        }
        if let Some((place, slot)) = &notes.last_whole {
            self.notes.mark(flash, *place, slot, WHOLE).await?;
        }
        let held = notes.last_whole.as_ref().or(notes.last.as_ref());
        self.note_serial = held.map_or(0, |(place, _)| place.serial);
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
        if let Some((place, slot)) = &receipts.last {
            self.last_answered = self.answers(*place, slot).await?;
            // The record that it answers may be lost. Another one of its number
            // would be settled by it at the next start.
            self.next_sequence = self.next_sequence.max(self.last_answered.saturating_add(1));
        }
        if R::RESERVES {
            let last = notes.last.as_ref().map(|(place, _)| *place);
            let flash = &mut self.flash;
            let lost = match self.is_numbered && !is_new {
                true => self.notes.slots_lost_after(flash, last).await?,
                false => 0,
            };
            // Each note reserves one block at most.
            let blocks = notes.unreadable_after + lost;
            self.next_sequence = self
                .next_sequence
                .max(self.note.reserved.saturating_add(1))
                .saturating_add(blocks * RESERVED_NUMBERS);
        }
        self.reserved = self.next_sequence - 1;

        self.levels = Levels {
            waiting: records.waiting,
            unsent: records.fresh,
            to_print: receipts.waiting,
            capacity: self.records.pages * self.records.slots_per_page::<F>(),
            damaged: records.damaged.saturating_add(receipts.damaged),
            torn: notes.torn + records.torn + receipts.torn,
            last_sequence: records.last_whole.map_or(0, |(_, slot)| slot.number),
        };
        if let Some((place, slot)) = &records.last {
            self.resolve_record(*place, slot).await?;
        }
        if let Some((place, _)) = receipts.last {
            match self.resolve(self.last_answered, place).await? {
                Resolved::Voided { waited: true } => self.levels.to_print -= 1,
                Resolved::Completed(record) => self.count_settled(&record),
                _ => {}
            }
        }
        // The newest note may have been cut.
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

    /// Voids the newest record if it was cut before it was whole; a mark of one
    /// word that says it is gets the other.
    async fn resolve_record(
        &mut self,
        place: Place,
        record: &Slot,
    ) -> Result<(), StoreError<F::Error>> {
        let flash = &mut self.flash;
        if record.has_trace(WHOLE) {
            self.records.mark(flash, place, record, WHOLE).await?;
            self.levels.last_sequence = record.number;
            return Ok(());
        }
        self.records.mark(flash, place, record, DONE).await?;
        if !record.is_done() {
            self.count_settled(record);
        }
        Ok(())
    }

    /// The sequence number that a receipt answers.
    pub(super) async fn answers(
        &mut self,
        place: Place,
        slot: &Slot,
    ) -> Result<u32, StoreError<F::Error>> {
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
            return Ok(Resolved::Settled(record.slot));
        }
        if receipt.is_done() || !receipt.has_trace(WHOLE) {
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

    pub(super) async fn resolve_pending(&mut self) -> Result<(), StoreError<F::Error>> {
        if let Some((sequence, place)) = self.pending {
            match self.resolve(sequence, place).await? {
                // Nobody has counted it: that comes right after it is no longer pending.
                Resolved::Completed(record) | Resolved::Settled(record) => {
                    self.levels.to_print += 1;
                    self.count_settled(&record);
                }
                Resolved::Voided { .. } | Resolved::Neither => {}
            }
            self.pending = None;
        }
        Ok(())
    }

    pub(super) fn count_settled(&mut self, record: &Slot) {
        let levels = &mut self.levels;
        levels.waiting = levels.waiting.saturating_sub(1);
        if record.is_blank(BEGUN) {
            levels.unsent = levels.unsent.saturating_sub(1);
        }
    }
}

/// What was under way with a receipt.
enum Resolved {
    /// Its record, which is this, was settled: it exists.
    Settled(Slot),
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
