//! When the next errand is due, and what it is for.
//!
//! Promises: records leave soon after they are saved; after a failure the waits
//! grow, and differ from terminal to terminal; no errand below the battery's limit;
//! a record that a gateway has and nobody answers goes out again. Never: a clock or
//! a random source: both are passed in.
//!
//! | due because | when |
//! | --- | --- |
//! | records without PUBACK | at once; after a start within [`Pace::start_ms`] |
//! | the key that fetches | at once, whatever failed before |
//! | receipts are awaited | [`Pace::poll_ms`] after an errand that brought something, doubled up to [`Pace::poll_ms_max`] |
//! | a record long without receipt | [`Pace::resend_ms`], doubled up to [`Pace::resend_ms_max`] |
//! | a report | once in [`Pace::report_ms`]: an idle terminal's sign of life |
//!
//! After a failure nothing but the key is due before a wait that is drawn from a
//! quarter to the whole of a window, which doubles from failure to failure. A
//! payment shortens it to [`Pace::saved_ms`] after the last try: somebody waits.
//!
//! Time since a PUBACK is not kept for each record. A record that got it since the
//! start is not sent again within an interval, and is within three. After a start
//! nobody knows how long the others have waited: they go out again within one
//! interval; with one start in eight at once, so that a terminal that is switched
//! off after each payment resends too.

use super::visit::{End, Orders, Outcome};
use crate::limits::{BATTERY_RECHECK_MS, BATTERY_WARNING_MV};
use crate::modem::ModemError;
use crate::mqtt::Fault;
use crate::settings::Settings;
use crate::store::Levels;

/// How long a terminal waits for what, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// After a start, at most: after a power failure all terminals of a town start
    /// at once.
    pub start_ms: u32,
    /// The first window after a failed connection.
    pub retry_ms: u32,
    /// The last one.
    pub retry_ms_max: u32,
    /// The first window after the modem or its network failed: that took a minute
    /// of radio.
    pub search_ms: u32,
    /// The last one; also if who or where is wrong.
    pub search_ms_max: u32,
    /// After a failure and a payment.
    pub saved_ms: u32,
    /// The first wait for a receipt between errands.
    pub poll_ms: u32,
    /// The longest: an errand is some ten joules.
    pub poll_ms_max: u32,
    /// A record without receipt goes out again after this.
    pub resend_ms: u32,
    /// The longest.
    pub resend_ms_max: u32,
    /// From report to report.
    pub report_ms: u32,
}

const DAY_MS: u32 = 86_400_000;

/// Of so many starts one sends again at once what has no receipt.
const STARTS_PER_RESEND: u32 = 8;

impl Pace {
    /// As provisioned.
    #[must_use]
    pub fn new(settings: &Settings<'_>) -> Self {
        let resend_ms = settings.resend_after_s.saturating_mul(1_000).min(DAY_MS);
        Self {
            start_ms: 10_000,
            retry_ms: 8_000,
            retry_ms_max: 900_000,
            search_ms: 60_000,
            search_ms_max: 3_600_000,
            saved_ms: 60_000,
            poll_ms: 20_000,
            poll_ms_max: 3_600_000,
            resend_ms,
            resend_ms_max: DAY_MS,
            report_ms: DAY_MS,
        }
    }
}

/// What, if it gets worse, is reported with the next errand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Alarms {
    damaged: u16,
    torn: u16,
    nearly_full: bool,
    battery_low: bool,
}

impl Alarms {
    fn is_worse_than(&self, other: &Self) -> bool {
        self.damaged > other.damaged
            || self.torn > other.torn
            || self.nearly_full && !other.nearly_full
            || self.battery_low && !other.battery_low
    }
}

/// When the next errand is due.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    battery_mv_min: u16,
    random: u32,
    failures: u8,
    /// When the last errand ended.
    ended_ms: u64,
    /// Nothing is due before, but the key.
    not_before_ms: u64,
    /// Not even the key: the battery.
    hold_ms: u64,
    /// When records may leave.
    send_ms: u64,
    fetch: bool,
    poll_at_ms: u64,
    poll_ms: u32,
    /// When the next round of records goes out again: those up to `resend_mark`.
    resend_at_ms: u64,
    resend_ms: u32,
    resend_mark: u32,
    /// The round that is under way: above the first, up to the second.
    round: (u32, u32),
    report_at_ms: u64,
    reported: Alarms,
    /// As at the beginning of the errand that is under way.
    alarms: Alarms,
}

impl Schedule {
    /// After a start. `seed` differs from terminal to terminal and from start to
    /// start.
    #[must_use]
    pub fn new(
        seed: u64,
        pace: Pace,
        settings: &Settings<'_>,
        now_ms: u64,
        levels: &Levels,
    ) -> Self {
        let mut schedule = Self {
            pace,
            battery_mv_min: settings.battery_mv_min,
            random: (seed ^ seed >> 32) as u32 | 1,
            failures: 0,
            ended_ms: now_ms,
            not_before_ms: now_ms,
            hold_ms: now_ms,
            send_ms: now_ms,
            fetch: false,
            poll_at_ms: now_ms,
            poll_ms: pace.poll_ms,
            resend_at_ms: now_ms,
            resend_ms: pace.resend_ms,
            resend_mark: levels.last_sequence,
            round: (0, 0),
            report_at_ms: now_ms,
            reported: Alarms::default(),
            alarms: Alarms::default(),
        };
        // Seeds may differ in few bits only.
        for _ in 0..8 {
            schedule.draw(0);
        }
        let start_ms = now_ms + u64::from(schedule.draw(pace.start_ms));
        schedule.send_ms = start_ms;
        schedule.poll_at_ms = start_ms;
        schedule.report_at_ms = start_ms;
        let awaits = levels.waiting > levels.unsent;
        schedule.resend_at_ms = if awaits && schedule.draw(STARTS_PER_RESEND) == 0 {
            start_ms
        } else {
            now_ms + schedule.spread(pace.resend_ms)
        };
        schedule
    }

    /// A record was saved.
    pub fn saved(&mut self, now_ms: u64) {
        self.send_ms = self.send_ms.min(now_ms);
        let again_ms = self.ended_ms.saturating_add(self.pace.saved_ms.into());
        self.not_before_ms = self.not_before_ms.min(again_ms);
    }

    /// The key that fetches was pressed.
    pub fn fetch(&mut self) {
        self.fetch = true;
    }

    /// When an errand is due, if at all: at that time [`begin`](Self::begin).
    #[must_use]
    pub fn due_ms(&self, levels: &Levels) -> u64 {
        let mut due_ms = self.report_at_ms;
        if levels.unsent > 0 {
            due_ms = due_ms.min(self.send_ms);
        }
        if levels.waiting > levels.unsent {
            due_ms = due_ms.min(self.poll_at_ms).min(self.resend_at_ms);
        }
        due_ms = due_ms.max(self.not_before_ms);
        if self.fetch {
            due_ms = 0;
        }
        due_ms.max(self.hold_ms)
    }

    /// An errand is due: what it is for. None if the battery is too low for the
    /// modem's bursts; that is looked at again a minute later.
    pub fn begin(&mut self, now_ms: u64, battery_mv: u16, levels: &Levels) -> Option<Orders> {
        if battery_mv < self.battery_mv_min {
            self.hold_ms = now_ms.saturating_add(BATTERY_RECHECK_MS);
            return None;
        }
        let awaits = levels.waiting > levels.unsent;
        if now_ms >= self.resend_at_ms {
            if awaits {
                self.round = (0, self.resend_mark);
            }
            self.resend_mark = levels.last_sequence;
            let wait_ms = self.resend_ms.saturating_add(self.draw(self.resend_ms / 4));
            self.resend_at_ms = now_ms.saturating_add(wait_ms.into());
            self.resend_ms = double(self.resend_ms, self.pace.resend_ms_max);
        }
        self.alarms = Alarms {
            damaged: levels.damaged,
            torn: levels.torn,
            nearly_full: levels.waiting >= levels.capacity - levels.capacity / 8,
            battery_low: battery_mv < self.battery_mv_min.saturating_add(BATTERY_WARNING_MV),
        };
        let (resend_after, resend_up_to) = self.round;
        Some(Orders {
            expects: self.fetch || awaits && now_ms >= self.poll_at_ms,
            report: now_ms >= self.report_at_ms || self.alarms.is_worse_than(&self.reported),
            battery_mv,
            resend_after,
            resend_up_to,
        })
    }

    /// An errand has ended. `levels` as they are now.
    pub fn ended(&mut self, now_ms: u64, outcome: &Outcome, levels: &Levels) {
        self.ended_ms = now_ms;
        self.fetch = false;
        self.round.0 = self.round.0.max(outcome.resent_through);
        let left = outcome.end == End::Left;
        if outcome.reported {
            self.reported = self.alarms;
        }
        // A gateway that keeps nothing retained gets none; its sign of life it had.
        if outcome.reported || left && now_ms >= self.report_at_ms {
            let (report_ms, spread_ms) = (self.pace.report_ms, self.pace.report_ms / 8);
            let wait_ms = report_ms - self.draw(spread_ms);
            self.report_at_ms = now_ms.saturating_add(wait_ms.into());
        }
        let progress = outcome.acknowledged > outcome.resent || outcome.receipts > 0;
        if left {
            self.round = (0, 0);
        }
        if levels.waiting == levels.unsent {
            self.resend_ms = self.pace.resend_ms;
        }
        if left && outcome.refused.is_none() && (progress || levels.unsent == 0) {
            self.failures = 0;
            self.not_before_ms = now_ms;
            // What was saved meanwhile, or found no time.
            self.send_ms = now_ms;
        } else {
            let window_ms = self.window(outcome);
            self.failures = self.failures.saturating_add(1);
            self.not_before_ms = now_ms.saturating_add(self.spread(window_ms));
        }
        if progress {
            self.poll_ms = self.pace.poll_ms;
        }
        if left {
            let wait_ms = self.poll_ms.saturating_add(self.draw(self.poll_ms / 2));
            self.poll_at_ms = now_ms.saturating_add(wait_ms.into());
            self.poll_ms = double(self.poll_ms, self.pace.poll_ms_max);
        }
    }

    /// From which a wait is drawn.
    fn window(&self, outcome: &Outcome) -> u32 {
        let (pace, failures) = (&self.pace, self.failures);
        let retry = doubled(pace.retry_ms, failures, pace.retry_ms_max);
        let search = doubled(pace.search_ms, failures, pace.search_ms_max);
        match outcome.end {
            End::Modem(ModemError::Sim | ModemError::Denied) => pace.search_ms_max,
            End::Modem(ModemError::Refused | ModemError::Closed | ModemError::Timeout) => retry,
            End::Modem(_) | End::Store => search,
            End::Refused(reason) | End::Closed(reason) if reason.is_about_identity() => {
                pace.search_ms_max
            }
            End::Left if outcome.refused.is_some_and(|r| r.is_about_identity()) => {
                pace.search_ms_max
            }
            End::Fault(Fault::Malformed) => search,
            _ => retry,
        }
    }

    /// From a quarter of the window to all of it.
    fn spread(&mut self, window_ms: u32) -> u64 {
        let least_ms = window_ms / 4;
        u64::from(least_ms + self.draw(window_ms - least_ms))
    }

    /// A number from 0 to `range`, without `range` itself unless it is 0
    /// (Marsaglia's xorshift).
    fn draw(&mut self, range: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        ((u64::from(self.random) * u64::from(range)) >> 32) as u32
    }
}

fn double(ms: u32, ms_max: u32) -> u32 {
    ms.saturating_mul(2).min(ms_max)
}

fn doubled(ms: u32, times: u8, ms_max: u32) -> u32 {
    let factor = 1_u32.checked_shl(times.into()).unwrap_or(u32::MAX);
    ms.saturating_mul(factor).min(ms_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marsaglia, "Xorshift RNGs" (2003), section 3: the 32-bit generator with the
    /// triple 13, 17, 5, which has all of its 2^32 - 1 numbers.
    #[test]
    fn numbers_are_those_of_the_generator_that_is_named() {
        let settings = Settings::default();
        let pace = Pace::new(&settings);
        let mut schedule = Schedule::new(1, pace, &settings, 0, &Levels::default());
        schedule.random = 2_463_534_242;
        let numbers = [(); 4].map(|()| {
            schedule.draw(0);
            schedule.random
        });
        assert_eq!(
            numbers,
            [723_471_715, 2_497_366_906, 2_064_144_800, 2_008_045_182]
        );
        // The upper bits of each.
        schedule.random = 2_463_534_242;
        assert_eq!(schedule.draw(1 << 8), 723_471_715 >> 24);
    }
}
