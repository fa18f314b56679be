//! One TCP connection over the air, as a core.
//!
//! Promises: bytes arrive whole and in order until the connection is cut. Never:
//! more bytes on the way than the lanes' bound.

use std::time::Duration;

use fastrand::Rng;

use super::NetworkProfile;
use crate::limits::SEGMENT_BYTES_MAX;
use crate::link::Lane;

/// How a connection was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The modem is told.
    Told,
    /// Nobody is told.
    Silent,
}

/// One TCP connection over the air.
#[derive(Debug)]
pub struct Connection {
    up: Lane,
    down: Lane,
    half_trip: Duration,
    cut: Option<(Duration, Cut)>,
}

impl Connection {
    /// A connection that was set up just now.
    pub fn new(profile: &NetworkProfile, chance: &mut Rng, now: Duration) -> Self {
        // Drawn in any case, so that a profile without cuts meets the same delays.
        let fortune = -(1.0 - chance.f64()).ln();
        let how = if chance.f64() < profile.silent_cuts {
            Cut::Silent
        } else {
            Cut::Told
        };
        let life = profile.link.cut_after_mean;
        Self {
            up: Lane::up(&profile.link, chance.fork()),
            down: Lane::down(&profile.link, chance.fork()),
            half_trip: profile.link.round_trip / 2,
            cut: life.map(|mean| (now + mean.mul_f64(fortune), how)),
        }
    }

    /// Sends bytes to the peer; when their acknowledgement is back.
    pub fn send(&mut self, now: Duration, bytes: &[u8]) -> Duration {
        for segment in bytes.chunks(SEGMENT_BYTES_MAX) {
            self.up.admit(now, segment.to_vec());
        }
        self.acknowledged_at(now)
    }

    /// When all that was sent so far, and an end after it, is acknowledged.
    pub fn acknowledged_at(&self, now: Duration) -> Duration {
        self.up.last_at().max(now + self.half_trip) + self.half_trip
    }

    /// When more may be sent.
    pub fn room_at(&self, now: Duration) -> Duration {
        match self.up.next_at() {
            Some(at) if !self.up.has_room() => at,
            _ => now,
        }
    }

    /// Takes bytes that the peer has sent.
    pub fn take_from_peer(&mut self, now: Duration, bytes: Vec<u8>) {
        self.down.admit(now, bytes);
    }

    /// Whether the peer may send more.
    pub fn has_room_for_peer(&self) -> bool {
        self.down.has_room()
    }

    /// Whether nothing from the peer is on the way.
    pub fn is_read_up(&self) -> bool {
        self.down.is_empty()
    }

    /// When something happens next by itself.
    pub fn next_at(&self) -> Option<Duration> {
        let cut_at = self.cut.map(|(at, _)| at);
        let arrivals = [self.up.next_at(), self.down.next_at(), cut_at];
        arrivals.into_iter().flatten().min()
    }

    /// Bytes that have reached the peer.
    pub fn arrived_up(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.up.take(now)
    }

    /// Bytes that have reached the modem.
    pub fn arrived_down(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.down.take(now)
    }

    /// How it was cut, once it was.
    pub fn cut(&self, now: Duration) -> Option<Cut> {
        self.cut.filter(|(at, _)| *at <= now).map(|(_, how)| how)
    }
}
