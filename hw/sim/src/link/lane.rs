//! One direction of a connection, as a core: when does each segment arrive?
//!
//! Promises: arrivals never go back in time, so order holds; the rate is kept
//! over any stretch; the bytes on the way are bounded. Never: a clock; `now` is
//! passed in, as the time since the connection began.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use super::profile::{LinkProfile, Stalls};
use crate::limits::IN_FLIGHT_BYTES_MAX;

/// One direction of a connection.
#[derive(Debug)]
pub struct Lane {
    bits_per_s: Option<u64>,
    delay: Duration,
    jitter: Duration,
    stalls: Option<Stalls>,
    chance: Rng,
    /// When the radio has sent all that was admitted.
    sent_at: Duration,
    /// When the last segment arrives.
    last_at: Duration,
    in_flight: VecDeque<(Duration, Vec<u8>)>,
    in_flight_bytes: usize,
}

impl Lane {
    pub fn up(profile: &LinkProfile, chance: Rng) -> Self {
        Self::new(profile, profile.up_bits_per_s, chance)
    }

    pub fn down(profile: &LinkProfile, chance: Rng) -> Self {
        Self::new(profile, profile.down_bits_per_s, chance)
    }

    fn new(profile: &LinkProfile, bits_per_s: Option<u64>, chance: Rng) -> Self {
        Self {
            bits_per_s,
            delay: profile.round_trip / 2,
            jitter: profile.jitter / 2,
            stalls: profile.stalls.clone(),
            chance,
            sent_at: Duration::ZERO,
            last_at: Duration::ZERO,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// Whether another segment may be admitted.
    pub fn has_room(&self) -> bool {
        self.in_flight_bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Whether nothing is on the way.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Takes a segment that the sender has given at `now`.
    pub fn admit(&mut self, now: Duration, segment: Vec<u8>) {
        let start = self.sent_at.max(now);
        self.sent_at = start + self.stall() + self.airtime(segment.len());
        let jitter = self.jitter.mul_f64(self.chance.f64());
        self.last_at = self.last_at.max(self.sent_at + self.delay + jitter);
        self.in_flight_bytes += segment.len();
        self.in_flight.push_back((self.last_at, segment));
    }

    /// When the last segment admitted so far arrives, or has arrived.
    pub fn last_at(&self) -> Duration {
        self.last_at
    }

    /// When the next segment arrives.
    pub fn next_at(&self) -> Option<Duration> {
        self.in_flight.front().map(|(at, _)| *at)
    }

    /// The next segment, if it has arrived.
    pub fn take(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.next_at().filter(|at| *at <= now)?;
        let (_, segment) = self.in_flight.pop_front()?;
        self.in_flight_bytes -= segment.len();
        Some(segment)
    }

    fn airtime(&self, bytes: usize) -> Duration {
        match self.bits_per_s {
            Some(rate) => Duration::from_nanos(bytes as u64 * 8 * 1_000_000_000 / rate.max(1)),
            None => Duration::ZERO,
        }
    }

    fn stall(&mut self) -> Duration {
        match &self.stalls {
            Some(stalls) if self.chance.f64() < stalls.probability => {
                let span = stalls.longest.saturating_sub(stalls.shortest);
                stalls.shortest + span.mul_f64(self.chance.f64())
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lane(profile: &LinkProfile, seed: u64) -> Lane {
        Lane::up(profile, Rng::with_seed(seed))
    }

    /// Arrivals of 200 segments of 500 bytes, all given at once.
    fn arrivals(profile: &LinkProfile, seed: u64) -> Vec<Duration> {
        let mut lane = lane(profile, seed);
        for _ in 0..200 {
            lane.admit(Duration::ZERO, vec![0; 500]);
        }
        lane.in_flight.iter().map(|(at, _)| *at).collect()
    }

    #[test]
    fn a_perfect_lane_delivers_at_once() {
        let mut lane = lane(&LinkProfile::perfect(), 1);
        lane.admit(SECOND, vec![7]);
        assert_eq!(lane.next_at(), Some(SECOND));
        assert_eq!(lane.take(SECOND), Some(vec![7]));
        assert!(lane.is_empty());
    }

    #[test]
    fn the_rate_is_kept_and_the_delay_added_once() {
        let profile = LinkProfile {
            up_bits_per_s: Some(20_000),
            round_trip: SECOND,
            ..LinkProfile::perfect()
        };
        // 100,000 bytes are 800,000 bits: 40 s at 20 kbit/s, and half a round trip.
        let arrivals = arrivals(&profile, 1);
        assert_eq!(arrivals.first(), Some(&Duration::from_millis(200 + 500)));
        assert_eq!(arrivals.last(), Some(&Duration::from_millis(40_000 + 500)));
    }

    #[test]
    fn arrivals_never_go_back_and_nothing_comes_early() {
        for seed in 0..100 {
            let arrivals = arrivals(&LinkProfile::gprs(), seed);
            assert!(arrivals.is_sorted(), "seed {seed}");
            assert!(arrivals[0] >= Duration::from_millis(250), "seed {seed}");
            assert!(arrivals[199] >= Duration::from_secs(40), "seed {seed}");
        }
    }

    #[test]
    fn one_seed_gives_one_course_and_another_seed_another() {
        assert_eq!(
            arrivals(&LinkProfile::gprs(), 7),
            arrivals(&LinkProfile::gprs(), 7)
        );
        assert_ne!(
            arrivals(&LinkProfile::gprs(), 7),
            arrivals(&LinkProfile::gprs(), 8)
        );
    }

    #[test]
    fn a_stall_holds_up_everything_behind_it() {
        let certain = Stalls {
            probability: 1.0,
            shortest: SECOND,
            longest: SECOND,
        };
        let profile = LinkProfile {
            stalls: Some(certain),
            ..LinkProfile::perfect()
        };
        let arrivals = arrivals(&profile, 1);
        assert_eq!((arrivals[0], arrivals[199]), (SECOND, SECOND * 200));
    }

    #[test]
    fn a_lane_has_room_only_below_its_bound() {
        let mut lane = lane(&LinkProfile::gprs(), 1);
        let mut admitted = 0;
        while lane.has_room() {
            lane.admit(Duration::ZERO, vec![0; 1_400]);
            admitted += 1_400;
        }
        assert!((IN_FLIGHT_BYTES_MAX..IN_FLIGHT_BYTES_MAX + 1_400).contains(&admitted));
        let first = lane.next_at().unwrap();
        assert_eq!(lane.take(first - Duration::from_nanos(1)), None);
        assert!(lane.take(first).is_some());
        assert!(lane.has_room());
    }
}
