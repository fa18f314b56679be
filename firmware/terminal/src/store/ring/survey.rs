//! What a start finds in a ring.
//!
//! Promises: every slot that counts is looked at once. Never: trust in the head of
//! a page alone.

use embedded_storage_async::nor_flash::NorFlash;

use super::{Place, Ring};
use crate::store::slot::{self, BEGUN, DONE, HEADER_BYTES, Slot, State, WHOLE};

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
    /// The number of the newest slot with the mark that it is whole; 0 if there is
    /// none.
    pub(in crate::store) last_whole: u32,
    /// The newest slot that could be read, and where it is.
    pub(in crate::store) last: Option<(Place, Slot)>,
    /// Slots after it that couldn't.
    pub(in crate::store) unreadable_after: u32,
}

impl Ring {
    /// Finds the newest page.
    ///
    /// Its head may be damaged; then slots of its lap tell. A page whose head was
    /// cut has none, and one that is being erased only those of the lap before.
    pub(in crate::store) async fn find_newest<F: NorFlash>(
        &mut self,
        flash: &mut F,
    ) -> Result<(), F::Error> {
        for index in 0..self.pages {
            let at = self.page_at::<F>(index);
            let head = slot::inspect(flash, at, self.head_shape).await?;
            if head.state == State::Valid
                && head.number > self.serial
                && head.number % self.pages == index
                && head.lap == self.lap(head.number)
            {
                self.serial = head.number;
            }
        }
        for _ in 0..self.pages {
            let mut place = Place {
                serial: self.serial + 1,
                slot: 0,
            };
            while place.slot < self.slots_per_page::<F>() {
                if self.inspect(flash, place).await?.state == State::Valid {
                    break;
                }
                place.slot += 1;
            }
            if place.slot == self.slots_per_page::<F>() {
                break;
            }
            self.serial += 1;
        }
        Ok(())
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
                        if slot.is_marked(WHOLE) {
                            survey.last_whole = slot.number;
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
            if self.shape.marks > 0 {
                self.mark(flash, place, &slot, DONE).await?;
            }
        }
        Ok(survey)
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
            flash.read(at, &mut piece).await?;
            if piece.iter().any(|&byte| byte != 0xFF) {
                return Ok(false);
            }
            at += piece.len() as u32;
        }
        Ok(true)
    }
}
