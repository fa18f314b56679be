//! Room for what is written, and the numbers for it.
//!
//! Promises: what was written is read back before it counts; a page is taken only
//! after a note says that nothing in it waits. Never: a number given twice.

use embedded_storage_async::nor_flash::NorFlash;

use super::ring::{Place, Ring};
use super::rules::Rules;
use super::slot::WHOLE;
use super::{Store, StoreError};
use crate::limits::{RESERVED_NUMBERS, WRITE_ATTEMPTS_MAX};

/// A ring whose slots wait for something.
#[derive(Clone, Copy)]
pub(super) enum Which {
    Records,
    Receipts,
}

impl<F: NorFlash, R: Rules> Store<F, R> {
    /// A number that was never used; its block is reserved.
    pub(super) async fn next_sequence(&mut self) -> Result<Option<u32>, StoreError<F::Error>> {
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
    pub(super) async fn place(
        &mut self,
        which: Which,
    ) -> Result<Option<Place>, StoreError<F::Error>> {
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

    /// Writes a slot and marks it as whole; if it doesn't read back, another one. Returns where, or
    /// none if the ring is full by then.
    pub(super) async fn write(
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
                let slot = ring.inspect(flash, place).await?;
                ring.mark(flash, place, &slot, WHOLE).await?;
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
    pub(super) async fn put_note(&mut self) -> Result<(), StoreError<F::Error>> {
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
                // The newest note that is whole stays where it is, however often power
                // is cut in those of a new page, and whatever page takes nothing.
                let (serial, pages) = (self.notes.newest(), self.notes.pages);
                let is_held = self.note_serial != 0 && serial + 1 == self.note_serial + pages;
                let serial = serial + u32::from(!is_held);
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
                self.notes.set(flash, place, WHOLE).await?;
                self.note_serial = place.serial;
                self.is_note_firm = true;
                return Ok(());
            }
            self.levels.count_damaged();
        }
        Err(StoreError::Worn)
    }
}
