//! A terminal's own power: when it is cut.
//!
//! Promises: cuts fall between any two steps of the terminal's work as likely as
//! between others, not only while it waits. Never: a cut inside a step.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::limits::{CUT_IDLE, CUT_STEPS_MAX};

/// How often the power is cut, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerProfile {
    /// Mean of the time from one cut to the next, distributed exponentially.
    pub cut_after_mean: Duration,
    /// How long it stays dark at most.
    pub dark_longest: Duration,
}

/// The power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut;

/// The power supply of one terminal.
#[derive(Debug)]
pub struct Power {
    profile: Option<PowerProfile>,
    chance: Rng,
    due: Option<Instant>,
    steps_left: u32,
}

impl Power {
    pub fn new(profile: Option<PowerProfile>, chance: Rng) -> Self {
        let mut power = Self {
            profile,
            chance,
            due: None,
            steps_left: 0,
        };
        power.restore(Instant::now());
        power
    }

    /// The power is back: draws the next cut.
    pub fn restore(&mut self, now: Instant) {
        self.due = self.profile.map(|profile| {
            let fortune = -(1.0 - self.chance.f64()).ln();
            now + profile.cut_after_mean.mul_f64(fortune)
        });
        self.steps_left = self.chance.u32(0..CUT_STEPS_MAX);
    }

    /// One step of the work is done.
    pub fn step(&mut self) -> Result<(), Cut> {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            if self.steps_left == 0 {
                return Err(Cut);
            }
            self.steps_left -= 1;
        }
        Ok(())
    }

    /// When it is cut although nothing is done.
    pub fn idle_cut_at(&self) -> Option<Instant> {
        self.due.map(|due| due + CUT_IDLE)
    }

    /// How long it stays dark.
    pub fn dark(&mut self) -> Duration {
        let longest = self.profile.map_or(Duration::ZERO, |p| p.dark_longest);
        longest.mul_f64(self.chance.f64())
    }

    /// No more cuts.
    pub fn make_good(&mut self) {
        self.profile = None;
        self.due = None;
    }
}
