//! One direction of a connection, as a core: when does each segment leave?
//!
//! Promises: order holds; nothing leaves early; the rate is kept over any stretch;
//! when a fault is taken away, what it held up leaves at once. Never: a clock or a
//! random source; both are passed in.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

use super::fault::Fault;

/// Bytes on the way in one direction of one connection; then the sender waits.
/// A transaction of Kafka's clients fits, a thousand connections take 256 MiB.
const LANE_BYTES_MAX: usize = 256 * 1024;

/// One direction of a connection.
#[derive(Debug)]
pub struct Lane {
    fault: Fault,
    chance: Rng,
    /// When the wire has taken all that was admitted.
    sent_at: Duration,
    /// When the last segment leaves.
    last_at: Duration,
    segments: VecDeque<(Duration, Vec<u8>)>,
    bytes: usize,
}

impl Lane {
    pub fn new(fault: Fault, chance: Rng) -> Self {
        Self {
            fault,
            chance,
            sent_at: Duration::ZERO,
            last_at: Duration::ZERO,
            segments: VecDeque::new(),
            bytes: 0,
        }
    }

    /// This holds from now on.
    pub fn set_fault(&mut self, now: Duration, fault: Fault) {
        if fault == self.fault {
            return;
        }
        self.fault = fault;
        self.sent_at = now;
        self.last_at = now;
        for (at, _) in &mut self.segments {
            *at = (*at).min(now);
        }
    }

    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Whether another segment may be admitted.
    pub fn has_room(&self) -> bool {
        self.bytes < LANE_BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Everything on the way is gone.
    pub fn lose(&mut self) {
        self.segments.clear();
        self.bytes = 0;
    }

    /// Takes a segment that the sender has given at `now`.
    pub fn admit(&mut self, now: Duration, segment: Vec<u8>) {
        self.sent_at = self.sent_at.max(now) + self.airtime(segment.len());
        let jitter = self.fault.jitter.mul_f64(self.chance.f64());
        self.last_at = self.last_at.max(self.sent_at + self.fault.delay + jitter);
        self.bytes += segment.len();
        self.segments.push_back((self.last_at, segment));
    }

    /// When the next segment leaves.
    pub fn next_at(&self) -> Option<Duration> {
        self.segments.front().map(|(at, _)| *at)
    }

    /// The next segment, if it leaves now.
    pub fn take(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.next_at().filter(|at| *at <= now)?;
        let (_, segment) = self.segments.pop_front()?;
        self.bytes -= segment.len();
        Some(segment)
    }

    fn airtime(&self, bytes: usize) -> Duration {
        match self.fault.bytes_per_s {
            Some(rate) => Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate.max(1)),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn times(fault: Fault, seed: u64) -> Vec<Duration> {
        let mut lane = Lane::new(fault, Rng::with_seed(seed));
        for _ in 0..100 {
            lane.admit(SECOND, vec![0; 500]);
        }
        lane.segments.iter().map(|(at, _)| *at).collect()
    }

    #[test]
    fn without_a_fault_everything_leaves_at_once() {
        assert!(times(Fault::NONE, 1).iter().all(|at| *at == SECOND));
    }

    #[test]
    fn delay_and_jitter_keep_the_order_and_their_bounds() {
        for seed in 0..100 {
            let times = times(Fault::slow(SECOND), seed);
            assert!(times.is_sorted(), "seed {seed}");
            assert!(times[0] >= 2 * SECOND && times[99] <= 3 * SECOND);
        }
        assert_eq!(
            times(Fault::slow(SECOND), 7),
            times(Fault::slow(SECOND), 7),
            "one seed, one course"
        );
        assert_ne!(times(Fault::slow(SECOND), 7), times(Fault::slow(SECOND), 8));
    }

    #[test]
    fn a_rate_is_kept() {
        // 50,000 bytes at 1,000 a second.
        assert_eq!(times(Fault::narrow(1_000), 1)[99], 51 * SECOND);
    }

    #[test]
    fn what_a_fault_held_up_leaves_when_it_is_taken_away() {
        let mut lane = Lane::new(Fault::slow(1_000 * SECOND), Rng::with_seed(1));
        lane.admit(SECOND, vec![1]);
        assert_eq!(lane.take(2 * SECOND), None);
        lane.set_fault(2 * SECOND, Fault::NONE);
        assert_eq!(lane.take(2 * SECOND), Some(vec![1]));
        lane.admit(3 * SECOND, vec![2]);
        assert_eq!(lane.take(3 * SECOND), Some(vec![2]));
    }

    #[test]
    fn a_lane_has_room_only_below_its_bound() {
        let mut lane = Lane::new(Fault::slow(SECOND), Rng::with_seed(1));
        let mut admitted = 0;
        while lane.has_room() {
            lane.admit(Duration::ZERO, vec![0; 1_000]);
            admitted += 1_000;
        }
        assert!((LANE_BYTES_MAX..LANE_BYTES_MAX + 1_000).contains(&admitted));
        lane.lose();
        assert!(lane.has_room() && lane.is_empty());
    }
}
