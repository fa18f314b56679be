//! How good a network is.
//!
//! Promises: figures of real networks where a profile bears their name. Never: a
//! decision.

use std::time::Duration;

use fastrand::Rng;

use crate::link::LinkProfile;

/// A time between two bounds, all as likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Shortest.
    pub shortest: Duration,
    /// Longest.
    pub longest: Duration,
}

impl Span {
    /// Always the same time.
    #[must_use]
    pub const fn exactly(time: Duration) -> Self {
        Self {
            shortest: time,
            longest: time,
        }
    }

    /// From `shortest_ms` to `longest_ms`.
    #[must_use]
    pub const fn of_ms(shortest_ms: u64, longest_ms: u64) -> Self {
        Self {
            shortest: Duration::from_millis(shortest_ms),
            longest: Duration::from_millis(longest_ms),
        }
    }

    pub(crate) fn draw(&self, chance: &mut Rng) -> Duration {
        let width = self.longest.saturating_sub(self.shortest);
        self.shortest + width.mul_f64(chance.f64())
    }
}

/// How good a network is.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkProfile {
    /// What an open connection meets.
    pub link: LinkProfile,
    /// From the modem's start to being registered.
    pub registration: Span,
    /// From there to being attached to packet data.
    pub attach: Span,
    /// Bringing packet data up.
    pub activation: Span,
    /// Probability that a modem finds no network until it is started anew.
    pub no_service: f64,
    /// Probability that packet data is refused.
    pub activation_refused: f64,
    /// Mean of the time until the network takes packet data away; none = never.
    pub context_life_mean: Option<Duration>,
    /// Probability that a connection which is cut ends without a word: the modem
    /// believes it to be open, and so does the peer.
    pub silent_cuts: f64,
}

impl NetworkProfile {
    /// At once, and for ever.
    #[must_use]
    pub fn perfect() -> Self {
        Self {
            link: LinkProfile::perfect(),
            registration: Span::exactly(Duration::ZERO),
            attach: Span::exactly(Duration::ZERO),
            activation: Span::exactly(Duration::ZERO),
            no_service: 0.0,
            activation_refused: 0.0,
            context_life_mean: None,
            silent_cuts: 0.0,
        }
    }

    /// Steady 2G with this round trip, nothing lost and nothing drawn by chance:
    /// for measuring.
    #[must_use]
    pub fn steady(round_trip: Duration) -> Self {
        Self {
            link: LinkProfile {
                round_trip,
                jitter: Duration::ZERO,
                stalls: None,
                cut_after_mean: None,
                ..LinkProfile::gprs()
            },
            registration: Span::exactly(Duration::from_secs(5)),
            attach: Span::exactly(Duration::from_secs(1)),
            activation: Span::exactly(Duration::from_secs(1)),
            ..Self::perfect()
        }
    }

    /// A village: a bad link, 3 to 30 s until there is a network, at times none
    /// at all; half of the cuts go unnoticed.
    #[must_use]
    pub fn village() -> Self {
        Self {
            link: LinkProfile::gprs(),
            registration: Span::of_ms(3_000, 30_000),
            attach: Span::of_ms(500, 3_000),
            activation: Span::of_ms(800, 4_000),
            no_service: 0.05,
            activation_refused: 0.02,
            context_life_mean: Some(Duration::from_secs(600)),
            silent_cuts: 0.5,
        }
    }
}
