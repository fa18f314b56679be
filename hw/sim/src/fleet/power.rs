//! When a simulated terminal's power is cut.
//!
//! Promises: cuts fall between any two steps of the terminal's work as likely as
//! between others, and into the middle of a flash write; with one seed, the same
//! ones. Never: a cut while nothing happens; those are harmless.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;

use crate::limits::{CUT_FLASH_STEPS_MAX, CUT_POLLS_MAX};
use crate::nor::{Nor, Tear};

/// How often the power is cut, and for how long, in the terminal's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutProfile {
    /// Mean of the time from a start to the cut, distributed exponentially.
    pub after_mean: Duration,
    /// It stays dark for so long at most.
    pub dark_longest: Duration,
}

/// One cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Not before so long after the start, ms.
    pub after_ms: u64,
    /// Where.
    pub place: Place,
    /// Dark for so long, ms.
    pub dark_ms: u64,
    seed: u64,
}

/// Where in its work a terminal is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// After it was woken so often.
    Wakes(u32),
    /// After so many steps of its flash, in the middle of the operation.
    Flash(u64),
}

impl CutProfile {
    /// Draws a cut.
    pub fn draw(&self, chance: &mut Rng) -> Cut {
        let fortune = -(1.0 - chance.f64()).ln();
        Cut {
            after_ms: self.after_mean.mul_f64(fortune).as_millis() as u64,
            place: match chance.bool() {
                true => Place::Wakes(chance.u32(0..CUT_POLLS_MAX)),
                false => Place::Flash(chance.u64(0..CUT_FLASH_STEPS_MAX)),
            },
            dark_ms: self.dark_longest.mul_f64(chance.f64()).as_millis() as u64,
            seed: chance.u64(..),
        }
    }
}

impl Cut {
    /// Runs a terminal until it is cut. `due` ends when the time has come; the
    /// terminal never does.
    pub async fn run<F: Future>(&self, terminal: F, due: impl Future<Output = ()>, nor: &Nor) {
        let mut terminal = pin!(terminal);
        let mut due = pin!(due);
        let mut wakes_left = None;
        poll_fn(|context| {
            if wakes_left.is_none() && due.as_mut().poll(context).is_ready() {
                wakes_left = Some(match self.place {
                    Place::Wakes(wakes) => wakes,
                    Place::Flash(steps) => {
                        nor.cut_after(steps, Tear::Ragged, self.seed);
                        u32::MAX
                    }
                });
            }
            if terminal.as_mut().poll(context).is_ready() || nor.is_cut() {
                return Poll::Ready(());
            }
            match &mut wakes_left {
                Some(0) => Poll::Ready(()),
                Some(wakes) => {
                    *wakes -= 1;
                    Poll::Pending
                }
                None => Poll::Pending,
            }
        })
        .await;
    }
}
