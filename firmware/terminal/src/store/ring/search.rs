//! Finding a slot by its number, or the next that waits.
//!
//! Promises: heads of pages are read until the page is known, then slots. Never:
//! an index.

use embedded_storage_async::nor_flash::NorFlash;

use super::{Place, Ring};
use crate::store::slot::{BEGUN, Slot, State};

/// A slot that was looked for by its number.
pub(in crate::store) struct Sought {
    pub(in crate::store) place: Place,
    pub(in crate::store) slot: Slot,
    /// It is the one. Otherwise it can't be read, but stands where the one would.
    pub(in crate::store) found: bool,
}

impl Ring {
    /// Where to look for this number, or what follows it.
    async fn start<F: NorFlash>(&self, flash: &mut F, number: u32) -> Result<Place, F::Error> {
        let oldest = self.oldest();
        let (hinted, place) = self.hint;
        let mut start = if hinted <= number && place.serial >= oldest {
            place
        } else {
            Place {
                serial: oldest,
                slot: 0,
            }
        };
        for serial in start.serial + 1..=self.serial {
            match self.base(flash, serial).await? {
                Some(base) if base <= number => start = Place { serial, slot: 0 },
                Some(_) => break,
                // It may be in there, or further on.
                None => {}
            }
        }
        Ok(start)
    }

    /// The next place.
    fn after<F: NorFlash>(&self, place: Place) -> Place {
        if place.slot + 1 < self.slots_per_page::<F>() {
            Place {
                slot: place.slot + 1,
                ..place
            }
        } else {
            Place {
                serial: place.serial + 1,
                slot: 0,
            }
        }
    }

    /// The slot with the lowest number above this one that is not done.
    pub(in crate::store) async fn next_waiting<F: NorFlash>(
        &mut self,
        flash: &mut F,
        after: u32,
    ) -> Result<Option<(Place, Slot)>, F::Error> {
        let mut place = self.start(flash, after).await?;
        let oldest = Place {
            serial: self.oldest(),
            slot: 0,
        };
        let first_waiting = self.first_waiting.max(oldest);
        let mut is_first = place <= first_waiting;
        if is_first {
            place = first_waiting;
        }
        let mut found = None;
        while place.serial <= self.serial {
            let slot = self.inspect(flash, place).await?;
            if slot.state == State::Valid && !slot.is_done() {
                if is_first {
                    self.first_waiting = place;
                    is_first = false;
                }
                if slot.number > after {
                    self.hint = (slot.number, place);
                    found = Some((place, slot));
                    break;
                }
            }
            place = self.after::<F>(place);
        }
        Ok(found)
    }

    /// The slot with this number, or else an unreadable one that is not done and
    /// stands where it would: between a lower and a higher number.
    pub(in crate::store) async fn seek<F: NorFlash>(
        &mut self,
        flash: &mut F,
        number: u32,
    ) -> Result<Option<Sought>, F::Error> {
        let mut place = self.start(flash, number).await?;
        let mut gap = None;
        let mut is_above = false;
        while place.serial <= self.serial {
            if place.slot == 0 && !is_above {
                is_above =
                    matches!(self.base(flash, place.serial).await?, Some(base) if base <= number);
            }
            let slot = self.inspect(flash, place).await?;
            match slot.state {
                State::Valid if slot.number == number => {
                    self.hint = (number, place);
                    return Ok(Some(Sought {
                        place,
                        slot,
                        found: true,
                    }));
                }
                State::Valid if slot.number > number => break,
                State::Valid => {
                    is_above = true;
                    gap = None;
                }
                State::Unreadable if is_above && gap.is_none() && !slot.is_done() => {
                    gap = Some(Sought {
                        place,
                        slot,
                        found: false,
                    });
                }
                State::Unreadable | State::Blank => {}
            }
            place = self.after::<F>(place);
        }
        Ok(gap)
    }

    /// The newest slot that was begun and is done, of whichever page still has it.
    pub(in crate::store) async fn last_done<F: NorFlash>(
        &self,
        flash: &mut F,
    ) -> Result<Option<(Place, Slot)>, F::Error> {
        let mut last = None;
        for serial in (self.pages.max(self.serial + 1 - self.pages)..=self.serial).rev() {
            for slot in 0..self.slots_per_page::<F>() {
                let place = Place { serial, slot };
                let slot = self.inspect(flash, place).await?;
                if slot.state == State::Valid && slot.is_marked(BEGUN) && slot.is_done() {
                    last = Some((place, slot));
                }
            }
            if last.is_some() {
                break;
            }
        }
        Ok(last)
    }
}
