//! Where to begin in a partition. A core.
//!
//! Promises: an offset that Kafka still has is kept; what is gone is said, and
//! reading goes on with what there is. Never: an offset passed over in silence
//! that Kafka still has.

/// A partition's place, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Go on here.
    At(i64),
    /// So many offsets are gone; go on at the first there is.
    Gone {
        /// Where to go on.
        at: i64,
        /// How many there were between.
        offsets: i64,
    },
    /// The partition is shorter than it was: the topic was made anew. Begin at its
    /// beginning.
    Anew {
        /// Where that is.
        at: i64,
        /// What was to come next in the former one.
        was: i64,
    },
}

/// Judges the next offset to take by what the partition holds: from `low` until
/// before `high`.
#[must_use]
pub fn begin(next: Option<i64>, low: i64, high: i64) -> Begin {
    match next {
        None => Begin::At(low),
        Some(next) if next > high => Begin::Anew { at: low, was: next },
        // The mark that ends a transaction takes an offset too, and is never seen.
        Some(next) if low - next == 1 => Begin::At(low),
        Some(next) if next < low => Begin::Gone {
            at: low,
            offsets: low - next,
        },
        Some(next) => Begin::At(next),
    }
}

impl Begin {
    /// Where to go on.
    #[must_use]
    pub fn at(self) -> i64 {
        match self {
            Self::At(at) | Self::Gone { at, .. } | Self::Anew { at, .. } => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_or_what_is_gone_is_said() {
        for (next, low, high, expected) in [
            (None, 0, 0, Begin::At(0)),
            (None, 7, 9, Begin::At(7)),
            (Some(7), 7, 9, Begin::At(7)),
            (Some(9), 7, 9, Begin::At(9)),
            (Some(6), 7, 9, Begin::At(7)),
            (Some(2), 7, 9, Begin::Gone { at: 7, offsets: 5 }),
            (Some(10), 7, 9, Begin::Anew { at: 7, was: 10 }),
            (Some(3), 0, 0, Begin::Anew { at: 0, was: 3 }),
        ] {
            assert_eq!(begin(next, low, high), expected, "{next:?} {low} {high}");
        }
    }
}
