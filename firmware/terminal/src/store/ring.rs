//! A ring of pages with numbered slots: append, mark, give whole pages back.
//!
//! Promises: the newest page is found whatever a cut or damage left of the
//! others; a page is erased only if nothing in it waits, and only after a note
//! says so. Never: an index in memory that grows with the slots.
//!
//! Pages are taken strictly in turn: the page with serial *s* stands at index
//! *s* mod *pages*, so they wear evenly, and a page whose head is damaged is
//! still known by its neighbours. Serials begin at *pages*; the lap in a slot is
//! *s* / *pages*, so what an earlier lap left is never taken for this one's.
//!
//! # Format of a page
//!
//! | offset | what |
//! | --- | --- |
//! | 0 | head: a slot with a body of 4 bytes and no marks; its magic is that of the slots with the highest bit set, its number is the page's serial, its body the lowest number that a slot here can have |
//! | 16 | slots, one after the other, in the order of their numbers |
//!
//! Which pages count: serials from the floor (pages below it hold nothing that
//! waits, as the newest note says) to the newest one.

mod search;
mod survey;

use embedded_storage_async::nor_flash::NorFlash;

use super::slot::{self, DONE, Shape, Slot, State};

/// Where a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Of its page.
    pub(super) serial: u32,
    /// In its page.
    pub(super) slot: u32,
}

/// A ring.
pub(super) struct Ring {
    shape: Shape,
    head_shape: Shape,
    /// Where its pages begin, in pages.
    first: u32,
    pub(super) pages: u32,
    /// The newest page.
    serial: u32,
    /// The first slot of it that may be blank.
    slot: u32,
    /// Pages below hold nothing that waits.
    pub(super) floor: u32,
    /// What the next slot gets, at least.
    pub(super) next_number: u32,
    /// A number, and where its slot is.
    hint: (u32, Place),
    /// Nothing before this place waits.
    first_waiting: Place,
}

impl Ring {
    pub(super) const fn new(shape: Shape, first: u32, pages: u32) -> Self {
        let mut head_shape = Shape::new(shape.magic | 0x80, 4, 0);
        head_shape.checked = shape.checked;
        Self {
            shape,
            head_shape,
            first,
            pages,
            serial: pages - 1,
            slot: u32::MAX,
            floor: pages,
            next_number: 1,
            hint: (u32::MAX, Place { serial: 0, slot: 0 }),
            first_waiting: Place { serial: 0, slot: 0 },
        }
    }

    pub(super) const fn slots_per_page<F: NorFlash>(&self) -> u32 {
        ((F::ERASE_SIZE - self.head_shape.slot_bytes()) / self.shape.slot_bytes()) as u32
    }

    /// Lets no page count below this serial, which a note gives.
    pub(super) fn raise_to(&mut self, floor: u32) {
        self.floor = self.floor.max(floor.min(self.serial));
    }

    /// Gives no slot one of the next numbers, which slots that can't be read may
    /// have.
    pub(super) fn skip_numbers(&mut self, numbers: u32) {
        self.next_number = self.next_number.saturating_add(numbers);
    }

    /// Lets the newest page count, and so many before it.
    pub(super) fn look_back(&mut self, pages: u32) {
        self.floor = self.serial.saturating_sub(pages).max(self.pages);
    }

    /// The newest page.
    pub(super) fn newest(&self) -> u32 {
        self.serial
    }

    /// The oldest page that counts.
    pub(super) fn oldest(&self) -> u32 {
        self.floor.max(self.serial + 1 - self.pages)
    }

    const fn page_at<F: NorFlash>(&self, serial: u32) -> u32 {
        (self.first + serial % self.pages) * F::ERASE_SIZE as u32
    }

    fn slot_at<F: NorFlash>(&self, place: Place) -> u32 {
        let before = self.head_shape.slot_bytes() + place.slot as usize * self.shape.slot_bytes();
        self.page_at::<F>(place.serial) + before as u32
    }

    const fn lap(&self, serial: u32) -> u8 {
        (serial / self.pages) as u8
    }

    /// Reads a slot. One that an earlier lap left is unreadable, and done.
    pub(super) async fn inspect<F: NorFlash>(
        &self,
        flash: &mut F,
        place: Place,
    ) -> Result<Slot, F::Error> {
        let mut slot = slot::inspect(flash, self.slot_at::<F>(place), self.shape).await?;
        if slot.state == State::Valid && slot.lap != self.lap(place.serial) {
            slot.make_stale();
        }
        Ok(slot)
    }

    /// Reads the body of a valid slot.
    pub(super) async fn read<F: NorFlash>(
        &self,
        flash: &mut F,
        place: Place,
        slot: &Slot,
        skip: usize,
        into: &mut [u8],
    ) -> Result<usize, F::Error> {
        slot::read_body(flash, self.slot_at::<F>(place), slot, skip, into).await
    }

    /// Sets the mark whose two words begin here, or strengthens it.
    pub(super) async fn mark<F: NorFlash>(
        &self,
        flash: &mut F,
        place: Place,
        slot: &Slot,
        word: u8,
    ) -> Result<(), F::Error> {
        slot::set_mark(flash, self.slot_at::<F>(place), self.shape, slot, word).await
    }

    /// Sets one word of a slot that was found blank there, where one must do.
    pub(super) async fn set<F: NorFlash>(
        &self,
        flash: &mut F,
        place: Place,
        word: u8,
    ) -> Result<(), F::Error> {
        let at = self.slot_at::<F>(place);
        slot::set_word(flash, at, self.shape, word).await?;
        Ok(())
    }

    /// The lowest number that a slot of this page can have, if its head says so.
    async fn base<F: NorFlash>(&self, flash: &mut F, serial: u32) -> Result<Option<u32>, F::Error> {
        let at = self.page_at::<F>(serial);
        let head = slot::inspect(flash, at, self.head_shape).await?;
        if head.state != State::Valid || head.number != serial {
            return Ok(None);
        }
        let mut base = [0; 4];
        slot::read_body(flash, at, &head, 0, &mut base).await?;
        Ok(Some(u32::from_le_bytes(base)))
    }

    /// The next slot to write, if the newest page has one: blank by a look at it.
    pub(super) async fn blank_slot<F: NorFlash>(
        &mut self,
        flash: &mut F,
    ) -> Result<Option<Place>, F::Error> {
        while self.slot < self.slots_per_page::<F>() {
            let place = Place {
                serial: self.serial,
                slot: self.slot,
            };
            if self.inspect(flash, place).await?.state == State::Blank {
                return Ok(Some(place));
            }
            self.slot += 1;
        }
        Ok(None)
    }

    /// Passes by the pages at the old end in which nothing waits; whether there
    /// is then one to take. What can't be read is kept until its page is needed:
    /// its receipt may still come.
    pub(super) async fn raise_floor<F: NorFlash>(
        &mut self,
        flash: &mut F,
    ) -> Result<bool, F::Error> {
        self.floor = self.oldest();
        while self.floor < self.serial {
            for slot in 0..self.slots_per_page::<F>() {
                let place = Place {
                    serial: self.floor,
                    slot,
                };
                let slot = self.inspect(flash, place).await?;
                let is_kept = slot.state == State::Valid
                    || slot.state == State::Unreadable && self.floor > self.next_erased();
                if is_kept && !slot.is_done() {
                    return Ok(self.floor > self.next_erased());
                }
            }
            self.floor += 1;
        }
        Ok(true)
    }

    /// The serial of the page that is erased for the next one. Before the first
    /// lap is over there is none; the number is then below every floor.
    const fn next_erased(&self) -> u32 {
        self.serial + 1 - self.pages
    }

    /// Begins a page: the one after the newest, in the place of the oldest, in
    /// which nothing waits, as a note says; or the newest again. It is erased even
    /// if it looks blank: an erase that was cut can look so. Whether it can be used.
    pub(super) async fn begin_page<F: NorFlash>(
        &mut self,
        flash: &mut F,
        serial: u32,
    ) -> Result<bool, F::Error> {
        let at = self.page_at::<F>(serial);
        flash.erase(at, at + F::ERASE_SIZE as u32).await?;
        slot::write(
            flash,
            at,
            self.head_shape,
            self.lap(serial),
            serial,
            [&self.next_number.to_le_bytes(), &[]],
        )
        .await?;
        self.serial = serial;
        // A page that doesn't take its head is passed by; its turn comes again.
        let is_sound = self.base(flash, serial).await?.is_some();
        self.slot = if is_sound { 0 } else { u32::MAX };
        Ok(is_sound)
    }

    /// Writes a slot into a blank place and reads it back; none if it can't be
    /// relied on. The place is used up either way.
    pub(super) async fn append<F: NorFlash>(
        &mut self,
        flash: &mut F,
        place: Place,
        number: u32,
        body: [&[u8]; 2],
    ) -> Result<bool, F::Error> {
        self.slot = place.slot + 1;
        self.next_number = self.next_number.max(number.saturating_add(1));
        let at = self.slot_at::<F>(place);
        slot::write(flash, at, self.shape, self.lap(place.serial), number, body).await?;
        let slot = self.inspect(flash, place).await?;
        if slot.state == State::Valid {
            return Ok(true);
        }
        if self.shape.has(DONE) {
            self.mark(flash, place, &slot, DONE).await?;
        }
        Ok(false)
    }
}
