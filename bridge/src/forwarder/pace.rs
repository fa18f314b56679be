//! How much goes into one transaction: what the link carries in a part of the
//! time that a transaction may take.
//!
//! Promises: behind a link so slow that a whole batch would outlive its
//! transaction, batches shrink until they pass; on a fast one they grow to the
//! configured size within a few. A core: it knows no clock. Never: fewer bytes
//! than [`limits::PACE_BYTES_MIN`].

use std::time::Duration;

use crate::limits;

/// See the head of the file.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    bytes_max: usize,
    ceiling: usize,
    target: Duration,
}

impl Pace {
    /// For batches of at most `ceiling` bytes in transactions that brokers abort
    /// after `timeout`.
    pub(super) fn new(ceiling: usize, timeout: Duration) -> Self {
        Self {
            bytes_max: limits::PACE_BYTES_FIRST.min(ceiling),
            ceiling,
            target: timeout / limits::PACE_TIMEOUT_PART,
        }
    }

    /// Bytes of the next batch at most.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// A batch of so many bytes was committed in that time.
    pub(super) fn committed(&mut self, bytes: usize, took: Duration) {
        if took > self.target {
            let share = self.target.as_secs_f64() / took.as_secs_f64();
            self.set((bytes as f64 * share) as usize);
        } else if took * 2 <= self.target && bytes.saturating_mul(2) >= self.bytes_max {
            self.set(self.bytes_max.saturating_mul(2));
        }
    }

    /// A batch did not get through.
    pub(super) fn failed(&mut self) {
        self.set(self.bytes_max / 2);
    }

    fn set(&mut self, bytes: usize) {
        self.bytes_max = bytes.max(limits::PACE_BYTES_MIN).min(self.ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(15);
    const CEILING: usize = 8 << 20;

    /// Batches over a link of so many bytes a second until one of them is
    /// committed; how many that took, and how long each of the next ten.
    fn over(bytes_per_s: f64, pace: &mut Pace) -> (u32, Vec<Duration>) {
        let mut failures = 0;
        let mut times = Vec::new();
        while times.len() < 10 {
            let bytes = pace.bytes_max();
            let took = Duration::from_secs_f64(bytes as f64 / bytes_per_s);
            if took > TIMEOUT {
                pace.failed();
                failures += 1;
            } else {
                pace.committed(bytes, took);
                times.push(took);
            }
        }
        (failures, times)
    }

    #[test]
    fn a_fast_link_soon_gets_whole_batches() {
        let mut pace = Pace::new(CEILING, TIMEOUT);
        let (failures, _) = over(50e6, &mut pace);
        assert_eq!((failures, pace.bytes_max()), (0, CEILING));
    }

    #[test]
    fn behind_a_slow_link_batches_shrink_until_they_pass() {
        for bytes_per_s in [8e3, 20e3, 100e3, 1e6] {
            let mut pace = Pace::new(CEILING, TIMEOUT);
            let (failures, times) = over(bytes_per_s, &mut pace);
            assert!(failures <= 4, "{bytes_per_s}: {failures}");
            let last = times.last().unwrap();
            assert!(*last <= TIMEOUT / 2, "{bytes_per_s}: {times:?}");
        }
    }

    #[test]
    fn a_link_that_becomes_slow_and_fast_again_is_followed() {
        let mut pace = Pace::new(CEILING, TIMEOUT);
        over(50e6, &mut pace);
        let (failures, _) = over(20e3, &mut pace);
        assert!(failures <= 5, "{failures}");
        over(50e6, &mut pace);
        assert_eq!(pace.bytes_max(), CEILING);
    }

    #[test]
    fn small_batches_say_nothing_about_the_link() {
        let mut pace = Pace::new(CEILING, TIMEOUT);
        let before = pace.bytes_max();
        pace.committed(200, Duration::from_millis(3));
        assert_eq!(pace.bytes_max(), before);
        for _ in 0..40 {
            pace.failed();
        }
        assert_eq!(pace.bytes_max(), limits::PACE_BYTES_MIN);
    }

    #[test]
    fn a_batch_within_its_time_shrinks_nothing_and_grows_only_what_has_room() {
        let target = TIMEOUT / limits::PACE_TIMEOUT_PART;
        let first = limits::PACE_BYTES_FIRST;
        for (bytes, took, expected) in [
            (first, target / 2, 2 * first),
            (first / 2, target / 2, 2 * first),
            (first / 2 - 1, target / 2, first),
            (first, target / 2 + Duration::from_millis(1), first),
            (first, target * 3 / 4, first),
            (first / 2, target, first),
            (first, target * 2, first / 2),
        ] {
            let mut pace = Pace::new(CEILING, TIMEOUT);
            pace.committed(bytes, took);
            assert_eq!(pace.bytes_max(), expected, "{bytes} in {took:?}");
        }
        let mut pace = Pace::new(CEILING, TIMEOUT);
        pace.failed();
        assert_eq!(pace.bytes_max(), first / 2);
    }
}
