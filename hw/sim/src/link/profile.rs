//! How bad a link is.
//!
//! Promises: figures of real networks where a profile bears their name. Never:
//! a decision; those are the lane's.

use std::time::Duration;

/// How bad a link is.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkProfile {
    /// Bits a second from client to upstream; none = no limit.
    pub up_bits_per_s: Option<u64>,
    /// Bits a second from upstream to client; none = no limit.
    pub down_bits_per_s: Option<u64>,
    /// Round trip without jitter. Each direction takes half; a connection takes
    /// one before its first byte passes.
    pub round_trip: Duration,
    /// Delay added to the round trip, from none to this, new for every segment.
    pub jitter: Duration,
    /// Times in which nothing passes; none = never.
    pub stalls: Option<Stalls>,
    /// Mean of a connection's life until it is cut, distributed exponentially;
    /// none = never.
    pub cut_after_mean: Option<Duration>,
}

/// Times in which nothing passes in one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Stalls {
    /// Probability that a segment (at most 1,400 bytes) meets one, 0 to 1.
    pub probability: f64,
    /// Shortest.
    pub shortest: Duration,
    /// Longest.
    pub longest: Duration,
}

impl LinkProfile {
    /// No delay, no limit, no cut: a plain proxy with controls.
    #[must_use]
    pub fn perfect() -> Self {
        Self {
            up_bits_per_s: None,
            down_bits_per_s: None,
            round_trip: Duration::ZERO,
            jitter: Duration::ZERO,
            stalls: None,
            cut_after_mean: None,
        }
    }

    /// GPRS in a village: 20 kbit/s up, 40 down, 500 to 1000 ms a round trip,
    /// stalls of 2 to 10 s, a cut every other minute.
    #[must_use]
    pub fn gprs() -> Self {
        Self {
            up_bits_per_s: Some(20_000),
            down_bits_per_s: Some(40_000),
            round_trip: Duration::from_millis(500),
            jitter: Duration::from_millis(500),
            stalls: Some(Stalls {
                probability: 0.01,
                shortest: Duration::from_secs(2),
                longest: Duration::from_secs(10),
            }),
            cut_after_mean: Some(Duration::from_secs(120)),
        }
    }

    /// The same troubles some ten times faster, so that a demonstration of
    /// seconds shows what takes a village minutes.
    #[must_use]
    pub fn demo() -> Self {
        Self {
            up_bits_per_s: Some(200_000),
            down_bits_per_s: Some(400_000),
            round_trip: Duration::from_millis(50),
            jitter: Duration::from_millis(50),
            stalls: Some(Stalls {
                probability: 0.01,
                shortest: Duration::from_millis(200),
                longest: Duration::from_secs(1),
            }),
            cut_after_mean: Some(Duration::from_secs(8)),
        }
    }
}
