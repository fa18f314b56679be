//! How much each address and each identity may do in a second.
//!
//! Promises: whoever does more waits for its own sake only; what was done in bursts
//! is granted as long as the average is kept; memory is bounded however many come,
//! and those for whom there is no room share one measure instead of having none.
//! Never: a clock, or a packet that is dropped.
//!
//! Each measure is a bucket of tokens: full, it holds what may be done in
//! [`RATE_BURST_S`] seconds; it fills at its rate. What is done takes tokens out, and
//! may take more than there are; then its doer waits until none is owed.

use std::collections::HashMap;
use std::hash::Hash;

use crate::limits::{RATE_BURST_S, RATE_KEYS_MAX};

/// One bucket. In thousandths, so that milliseconds fill it evenly.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens_milli: i64,
    filled_ms: u64,
}

impl Bucket {
    fn full(per_s: u64, now_ms: u64) -> Self {
        Self {
            tokens_milli: capacity_milli(per_s),
            filled_ms: now_ms,
        }
    }

    fn fill(&mut self, per_s: u64, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.filled_ms);
        let more = i64::try_from(passed_ms.saturating_mul(per_s)).unwrap_or(i64::MAX);
        self.tokens_milli = self
            .tokens_milli
            .saturating_add(more)
            .min(capacity_milli(per_s));
        self.filled_ms = self.filled_ms.max(now_ms);
    }

    /// Milliseconds until nothing is owed.
    fn wait_ms(&self, per_s: u64) -> u64 {
        if self.tokens_milli >= 0 {
            return 0;
        }
        self.tokens_milli.unsigned_abs().div_ceil(per_s.max(1))
    }
}

fn capacity_milli(per_s: u64) -> i64 {
    i64::try_from(per_s.saturating_mul(RATE_BURST_S * 1_000)).unwrap_or(i64::MAX)
}

/// One measure for many.
#[derive(Debug)]
pub struct Rate<K> {
    buckets: HashMap<K, Bucket>,
    /// Of all those for whom there is no room.
    others: Option<Bucket>,
}

impl<K> Default for Rate<K> {
    fn default() -> Self {
        Self {
            buckets: HashMap::new(),
            others: None,
        }
    }
}

impl<K: Eq + Hash + Clone> Rate<K> {
    /// Takes so much, and tells for how many milliseconds its doer has to wait
    /// before it does more. `per_s` 0: there is no bound.
    pub fn take(&mut self, key: &K, amount: u64, per_s: u64, now_ms: u64) -> u64 {
        if per_s == 0 {
            return 0;
        }
        let bucket = self.bucket(key, per_s, now_ms);
        bucket.fill(per_s, now_ms);
        let amount_milli = i64::try_from(amount.saturating_mul(1_000)).unwrap_or(i64::MAX);
        bucket.tokens_milli = bucket.tokens_milli.saturating_sub(amount_milli);
        bucket.wait_ms(per_s)
    }

    /// Takes one, if there is one.
    pub fn take_one(&mut self, key: &K, per_s: u64, now_ms: u64) -> bool {
        if per_s == 0 {
            return true;
        }
        let bucket = self.bucket(key, per_s, now_ms);
        bucket.fill(per_s, now_ms);
        let has_one = bucket.tokens_milli >= 1_000;
        if has_one {
            bucket.tokens_milli -= 1_000;
        }
        has_one
    }

    fn bucket(&mut self, key: &K, per_s: u64, now_ms: u64) -> &mut Bucket {
        if !self.buckets.contains_key(key) && self.buckets.len() >= RATE_KEYS_MAX {
            // A full one is as good as none. Not looked for with each that comes:
            // what was looked through without finding any stays so for a while.
            let is_due = self.others.is_none_or(|o| now_ms >= o.filled_ms + 1_000);
            if is_due {
                self.buckets.retain(|_, bucket| {
                    bucket.fill(per_s, now_ms);
                    bucket.tokens_milli < capacity_milli(per_s)
                });
            }
            if self.buckets.len() >= RATE_KEYS_MAX {
                return self
                    .others
                    .get_or_insert_with(|| Bucket::full(per_s, now_ms));
            }
        }
        self.buckets
            .entry(key.clone())
            .or_insert_with(|| Bucket::full(per_s, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u64 = RATE_BURST_S * 5;

    #[test]
    fn a_burst_is_granted_and_then_the_rate() {
        let mut rate = Rate::default();
        for _ in 0..BURST {
            assert_eq!(rate.take(&"a", 1, 5, 1_000), 0);
        }
        assert_eq!(rate.take(&"a", 1, 5, 1_000), 200);
        assert_eq!(rate.take(&"a", 1, 5, 1_000), 400);
        // It waits as long as it was told, and no longer.
        assert_eq!(rate.take(&"a", 0, 5, 1_399), 1);
        assert_eq!(rate.take(&"a", 0, 5, 1_400), 0);
        // A year later it is no more than full.
        let later = 365 * 24 * 3_600_000;
        assert_eq!(rate.take(&"a", BURST, 5, later), 0);
        assert_eq!(rate.take(&"a", 1, 5, later), 200);
        // A clock that goes back gives nothing and takes nothing.
        assert_eq!(rate.take(&"a", 0, 5, 0), 200);
    }

    #[test]
    fn nobody_waits_for_what_another_did() {
        let mut rate = Rate::default();
        assert!(rate.take(&"a", 1_000_000, 5, 0) > 0);
        assert_eq!(rate.take(&"b", 1, 5, 0), 0);
        assert_eq!(rate.take(&"a", u64::MAX, 0, 0), 0, "0 is no bound");
    }

    #[test]
    fn who_has_to_wait_for_a_connection_owes_nothing_for_asking() {
        let mut rate = Rate::default();
        for _ in 0..BURST {
            assert!(rate.take_one(&"a", 5, 0));
        }
        for _ in 0..1_000 {
            assert!(!rate.take_one(&"a", 5, 199));
        }
        assert!(rate.take_one(&"a", 5, 200));
        assert!(!rate.take_one(&"a", 5, 200));
    }

    #[test]
    fn however_many_come_memory_is_bounded_and_the_bound_holds_for_all_the_others() {
        let mut rate = Rate::default();
        for n in 0..RATE_KEYS_MAX as u64 {
            assert!(rate.take_one(&n, 5, 0));
        }
        let mut let_in = 0;
        for n in 0..1_000 {
            let_in += u64::from(rate.take_one(&(1_000_000 + n), 5, 0));
        }
        assert_eq!(let_in, BURST);
        assert_eq!(rate.buckets.len(), RATE_KEYS_MAX);
        // Who was here before is not the worse for it.
        assert!(rate.take_one(&0, 5, 0));
        // Those who have been quiet make room.
        assert!(rate.take_one(&2_000_000, 5, 10_000));
        assert!(rate.buckets.len() < RATE_KEYS_MAX);
    }
}
