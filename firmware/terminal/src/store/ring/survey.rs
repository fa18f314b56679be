//! What a start finds in a ring.
//!
//! Promises: every slot that counts is looked at once; after any damage, what is
//! written after a start is found by the next one, if nothing is damaged in
//! between. Never: trust in the head of a page alone.
//!
//! The second rests on four rules:
//!
//! - *Where it ends*: the newest page is the highest of those with a sound head, and
//!   of those without whose slots are of the same lap or a later one. Writing changes
//!   neither but for that page and the one behind it, so the next start finds the same
//!   page, or that one, and no other comes up in between.
//! - *Behind all others*: the next slot is written behind every slot of that page in
//!   which anything stands, readable or not, or into a page behind it.
//! - *Above all others*: its number is above those of all slots and heads of pages
//!   that count, so that what is sought by number is where the order says.
//! - *Of nobody else*: no receipt that the next start can resolve answers its number
//!   (`recovery` numbers above the newest receipt, and a receipt is taken only for a
//!   number that was given).

use embedded_storage_async::nor_flash::NorFlash;

use super::{Place, Ring};
use crate::limits::BLANK_HEADS_MAX;
use crate::store::slot::{self, BEGUN, DONE, HEADER_BYTES, Slot, State, WHOLE};

/// Of the laps that eight bits tell apart, so many are ahead.
const LAPS_AHEAD_MAX: u8 = u8::MAX / 2;

/// The head of a page.
enum Head {
    /// It says which page it is: its serial.
    Of(u32),
    /// Nothing stands there.
    Blank,
    /// It is damaged, was cut, or belongs elsewhere.
    Unreadable,
}

/// What a ring was found to hold.
#[derive(Default)]
pub(in crate::store) struct Survey {
    /// Slots that are not done.
    pub(in crate::store) waiting: u32,
    /// Those of them that are not begun.
    pub(in crate::store) fresh: u32,
    /// Slots or pages of which somebody expected something, unreadable.
    pub(in crate::store) damaged: u16,
    /// Slots cut while they were written.
    pub(in crate::store) torn: u16,
    /// Slots with one flipped bit, which was put right.
    pub(in crate::store) repaired: u16,
    /// The newest slot with a trace of the mark that it is whole, and where it is: the
    /// mark is begun only after the slot was read back.
    pub(in crate::store) last_whole: Option<(Place, Slot)>,
    /// The newest slot that could be read, and where it is.
    pub(in crate::store) last: Option<(Place, Slot)>,
    /// Slots after it that couldn't.
    pub(in crate::store) unreadable_after: u32,
}

impl Ring {
    /// Finds the newest page.
    ///
    /// Its head may be damaged; then the lap in its slots tells, also behind a page
    /// of which nothing is left. A page whose head was cut has none, and one that is
    /// being erased only those of the lap before.
    pub(in crate::store) async fn find_newest<F: NorFlash>(
        &mut self,
        flash: &mut F,
    ) -> Result<(), F::Error> {
        for index in 0..self.pages {
            if let Head::Of(serial) = self.head(flash, index).await? {
                self.serial = self.serial.max(serial);
            }
        }
        let by_heads = self.serial;
        let mut blank_heads = 0;
        for serial in by_heads + 1..=by_heads + self.pages {
            match self.head(flash, serial % self.pages).await? {
                // It was erased before it was begun: nothing in it is of a later lap.
                Head::Of(_) => continue,
                Head::Blank => blank_heads += 1,
                Head::Unreadable => {}
            }
            if blank_heads <= BLANK_HEADS_MAX {
                let by_slots = self.by_slots(flash, serial % self.pages, by_heads).await?;
                self.serial = self.serial.max(by_slots);
            }
        }
        Ok(())
    }

    /// What is written at the head of the page that stands there.
    async fn head<F: NorFlash>(&self, flash: &mut F, index: u32) -> Result<Head, F::Error> {
        let at = self.page_at::<F>(index);
        let head = slot::inspect(flash, at, self.head_shape).await?;
        // No flash lives to see half of the serials.
        let is_sound = head.state == State::Valid
            && (self.pages..u32::MAX / 2).contains(&head.number)
            && head.number % self.pages == index
            && head.lap == self.lap(head.number);
        Ok(match head.state {
            _ if is_sound => Head::Of(head.number),
            State::Blank => Head::Blank,
            State::Valid | State::Unreadable => Head::Unreadable,
        })
    }

    /// The serial of the page that stands there, if its slots are of a later lap
    /// than the newest page with a head, or of the same; else 0.
    async fn by_slots<F: NorFlash>(
        &self,
        flash: &mut F,
        index: u32,
        by_heads: u32,
    ) -> Result<u32, F::Error> {
        let mut newest = 0;
        for slot in 0..self.slots_per_page::<F>() {
            let at = self.slot_at::<F>(Place {
                serial: index,
                slot,
            });
            if !slot::may_be(flash, at, self.shape).await? {
                continue;
            }
            let slot = slot::inspect(flash, at, self.shape).await?;
            // Without any head, none is of an earlier lap.
            let ahead = slot.lap.wrapping_sub(self.lap(by_heads));
            if slot.state == State::Valid && (ahead <= LAPS_AHEAD_MAX || by_heads < self.pages) {
                let lap = by_heads / self.pages + u32::from(ahead);
                newest = newest.max(lap * self.pages + index);
            }
        }
        Ok(newest)
    }

    /// Reads every page that counts, and finds where the next slot goes.
    pub(in crate::store) async fn survey<F: NorFlash>(
        &mut self,
        flash: &mut F,
    ) -> Result<Survey, F::Error> {
        let mut survey = Survey::default();
        let slots = self.slots_per_page::<F>();
        self.slot = slots;
        let oldest = self.oldest();
        self.floor = oldest;
        let mut after_last: Option<(Place, Slot)> = None;
        for serial in oldest..=self.serial {
            match self.base(flash, serial).await? {
                Some(base) => self.next_number = self.next_number.max(base),
                None => survey.damaged = survey.damaged.saturating_add(1),
            }
            let mut used = 0;
            for slot in 0..slots {
                let place = Place { serial, slot };
                let slot = self.inspect(flash, place).await?;
                match slot.state {
                    State::Blank => continue,
                    State::Valid => {
                        self.next_number = self.next_number.max(slot.number.saturating_add(1));
                        if slot.flipped.is_some() {
                            survey.repaired = survey.repaired.saturating_add(1);
                        }
                        if slot.has_trace(WHOLE) {
                            survey.last_whole = Some((place, slot));
                        }
                        if !slot.is_done() {
                            survey.waiting += 1;
                            survey.fresh += u32::from(slot.is_blank(BEGUN));
                        }
                        survey.last = Some((place, slot));
                        survey.unreadable_after = 0;
                    }
                    State::Unreadable => survey.unreadable_after += 1,
                }
                if slot.state == State::Unreadable && !slot.is_done() {
                    survey.damaged = survey.damaged.saturating_add(1);
                }
                after_last = (slot.state == State::Unreadable).then_some((place, slot));
                used = place.slot + 1;
            }
            // A write may have begun in the slot after the last one, and left
            // nothing that can be seen yet.
            if serial == self.serial {
                self.slot = used + 1;
            }
            if survey.waiting == 0 && survey.damaged == 0 && serial < self.serial {
                self.floor = serial + 1;
            }
        }
        // What was being written when power was cut is the last there is, and
        // nobody was told of it. A slot with a mark had been finished.
        if let Some((place, slot)) = after_last
            && place.serial == self.serial
            && slot.is_unmarked()
        {
            survey.damaged = survey.damaged.saturating_sub(1);
            survey.torn += 1;
            if self.shape.has(DONE) {
                self.mark(flash, place, &slot, DONE).await?;
            }
        }
        Ok(survey)
    }

    /// How many slots may have been written after the last one that can be read,
    /// by the pages that were begun since, or may have been.
    pub(in crate::store) async fn slots_lost_after<F: NorFlash>(
        &self,
        flash: &mut F,
        last: Option<Place>,
    ) -> Result<u32, F::Error> {
        let slots = self.slots_per_page::<F>();
        let mut pages = last.map_or(self.pages, |last| self.serial - last.serial);
        let mut serial = self.serial;
        // A page is begun once the one before it is full.
        while self.slot >= slots && pages < self.pages {
            serial += 1;
            match self.head(flash, serial % self.pages).await? {
                // It would have been erased for that.
                Head::Of(_) => break,
                Head::Blank if serial < 2 * self.pages => break,
                Head::Blank | Head::Unreadable => pages += 1,
            }
        }
        Ok(pages * slots)
    }

    /// Whether all its pages are blank.
    pub(in crate::store) async fn is_blank<F: NorFlash>(
        &self,
        flash: &mut F,
    ) -> Result<bool, F::Error> {
        let mut piece = [0; 4 * HEADER_BYTES];
        let end = (self.first + self.pages) * F::ERASE_SIZE as u32;
        let mut at = self.first * F::ERASE_SIZE as u32;
        while at < end {
            // A page is whole words, and no more than that.
            let bytes = piece.len().min((end - at) as usize);
            let (part, _) = piece.split_at_mut(bytes);
            flash.read(at, part).await?;
            if part.iter().any(|&byte| byte != 0xFF) {
                return Ok(false);
            }
            at += part.len() as u32;
        }
        Ok(true)
    }
}
