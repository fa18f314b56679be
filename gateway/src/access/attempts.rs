//! Failed logins: whoever guesses has to wait longer each time.
//!
//! Promises: the wait doubles with each failure of one identity from one address,
//! up to a bound, and is forgotten after a while; memory is bounded however many
//! try. Never: a wait for an identity from another address, or a clock.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::limits::{
    ATTEMPT_FORGOTTEN_MS, ATTEMPT_WAIT_MS, ATTEMPT_WAIT_MS_MAX, ATTEMPTS_FREE, ATTEMPTS_KEPT,
};

/// Who tried, from where: an address (of IPv6 its network, which one host has whole)
/// and a digest of the name, which may be long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    network: IpAddr,
    name: u64,
}

impl Key {
    fn new(address: IpAddr, name: &str) -> Self {
        Self {
            network: network(address),
            name: xxhash_rust::xxh3::xxh3_64(name.as_bytes()),
        }
    }
}

/// What stands for an address: one host has a whole /64 of IPv6.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let mut segments = v6.segments();
            segments[4..].fill(0);
            IpAddr::V6(segments.into())
        }
        v4 => v4,
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last_ms: u64,
    until_ms: u64,
}

/// All that failed lately.
#[derive(Debug, Default)]
pub struct Attempts {
    failures: HashMap<Key, Failures>,
}

impl Attempts {
    /// Whether this one has to wait.
    #[must_use]
    pub fn must_wait(&self, address: IpAddr, name: &str, now_ms: u64) -> bool {
        self.failures
            .get(&Key::new(address, name))
            .is_some_and(|failures| now_ms < failures.until_ms)
    }

    /// A login failed.
    pub fn failed(&mut self, address: IpAddr, name: &str, now_ms: u64) {
        let key = Key::new(address, name);
        if !self.failures.contains_key(&key) && self.failures.len() >= ATTEMPTS_KEPT {
            self.make_room(now_ms);
        }
        let failures = self.failures.entry(key).or_insert(Failures {
            count: 0,
            last_ms: now_ms,
            until_ms: now_ms,
        });
        if now_ms.saturating_sub(failures.last_ms) >= ATTEMPT_FORGOTTEN_MS {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last_ms = now_ms;
        let doublings = failures.count.saturating_sub(ATTEMPTS_FREE);
        failures.until_ms = match doublings {
            0 => now_ms,
            n => {
                let wait_ms = ATTEMPT_WAIT_MS << (n - 1).min(20);
                now_ms + wait_ms.min(ATTEMPT_WAIT_MS_MAX)
            }
        };
    }

    /// A login succeeded: it was only a mistake.
    pub fn succeeded(&mut self, address: IpAddr, name: &str) {
        self.failures.remove(&Key::new(address, name));
    }

    /// Lets go what is over, or, if all of it lasts, what failed the longest ago.
    fn make_room(&mut self, now_ms: u64) {
        self.failures
            .retain(|_, f| now_ms.saturating_sub(f.last_ms) < ATTEMPT_FORGOTTEN_MS);
        if self.failures.len() >= ATTEMPTS_KEPT {
            let oldest = self.failures.iter().min_by_key(|(_, f)| f.last_ms);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.failures.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_is_forgotten() {
        let mut attempts = Attempts::default();
        let mut now_ms = 1_000;
        for _ in 0..ATTEMPTS_FREE {
            attempts.failed(HERE, "t1", now_ms);
            assert!(!attempts.must_wait(HERE, "t1", now_ms));
        }
        let mut wait_ms = ATTEMPT_WAIT_MS;
        for _ in 0..40 {
            attempts.failed(HERE, "t1", now_ms);
            assert!(attempts.must_wait(HERE, "t1", now_ms + wait_ms - 1));
            assert!(!attempts.must_wait(HERE, "t1", now_ms + wait_ms));
            now_ms += wait_ms;
            wait_ms = (wait_ms * 2).min(ATTEMPT_WAIT_MS_MAX);
        }
        now_ms += ATTEMPT_FORGOTTEN_MS;
        attempts.failed(HERE, "t1", now_ms);
        assert!(!attempts.must_wait(HERE, "t1", now_ms));
    }

    #[test]
    fn nobody_waits_for_what_another_did() {
        let mut attempts = Attempts::default();
        for _ in 0..20 {
            attempts.failed(HERE, "t1", 0);
        }
        assert!(attempts.must_wait(HERE, "t1", 0));
        assert!(!attempts.must_wait(HERE, "t2", 0));
        assert!(!attempts.must_wait("10.0.0.2".parse().unwrap(), "t1", 0));
        attempts.succeeded(HERE, "t1");
        assert!(!attempts.must_wait(HERE, "t1", 0));
    }

    #[test]
    fn a_host_is_known_by_its_ipv6_network_and_its_mapped_address() {
        let mut attempts = Attempts::default();
        for n in 0..20 {
            attempts.failed(format!("2001:db8::{n}").parse().unwrap(), "t1", 0);
            attempts.failed("::ffff:10.0.0.1".parse().unwrap(), "t1", 0);
        }
        assert!(attempts.must_wait("2001:db8::ffff".parse().unwrap(), "t1", 0));
        assert!(!attempts.must_wait("2001:db8:0:1::1".parse().unwrap(), "t1", 0));
        assert!(attempts.must_wait(HERE, "t1", 0));
    }

    #[test]
    fn however_many_try_memory_is_bounded_and_the_newest_are_known() {
        let mut attempts = Attempts::default();
        for n in 0..ATTEMPTS_KEPT as u64 + 100 {
            for _ in 0..=ATTEMPTS_FREE {
                attempts.failed(HERE, &format!("guess-{n}"), n);
            }
            assert!(attempts.must_wait(HERE, &format!("guess-{n}"), n));
        }
        assert_eq!(attempts.failures.len(), ATTEMPTS_KEPT);
    }
}
