//! Packet identifiers of deliveries (MQTT 5.0, section 2.2.1).
//!
//! Promises: an identifier follows from the delivery's running number, so it
//! stays with its delivery across reconnects and restarts (MQTT-4.4.0-1) without
//! a write; a session's two queues never share one.
//!
//! | identifiers | queue | running number |
//! | --- | --- | --- |
//! | 1 to 32,767 | messages (`outgoing.rs`) | the session's own sequence |
//! | 32,768 to 65,535 | receipts (`receipts/queue.rs`) | the receipt's number |

/// A queue's part of the packet identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identifiers {
    first: u16,
    count: u16,
}

impl Identifiers {
    /// Those of ordinary messages.
    pub const MESSAGES: Self = Self {
        first: 1,
        count: 32_767,
    };
    /// Those of receipts.
    pub const RECEIPTS: Self = Self {
        first: 32_768,
        count: 32_768,
    };

    /// The identifier of a delivery by its running number, which starts at 1:
    /// never 0, and unique among [`Self::count`] numbers in a row.
    #[must_use]
    pub fn of(self, number: u64) -> u16 {
        let index = number.saturating_sub(1) % u64::from(self.count);
        self.first + index as u16
    }

    /// After how many numbers they repeat.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(self.count)
    }

    /// Whether the identifier is one of these.
    #[must_use]
    pub fn contains(self, packet_id: u16) -> bool {
        packet_id >= self.first && packet_id - self.first < self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identifier_but_zero_belongs_to_one_queue() {
        assert!(!Identifiers::MESSAGES.contains(0) && !Identifiers::RECEIPTS.contains(0));
        for id in 1..=u16::MAX {
            assert_ne!(
                Identifiers::MESSAGES.contains(id),
                Identifiers::RECEIPTS.contains(id),
                "{id}"
            );
        }
    }

    #[test]
    fn identifiers_follow_from_the_number_and_repeat_only_after_all_were_used() {
        for (queue, first, last) in [
            (Identifiers::MESSAGES, 1, 32_767),
            (Identifiers::RECEIPTS, 32_768, 65_535),
        ] {
            assert_eq!(queue.of(1), first);
            assert_eq!(queue.of(queue.count()), last);
            assert_eq!(queue.of(queue.count() + 1), first);
            for number in [1, 2, queue.count(), queue.count() * 7 + 3, u64::MAX] {
                assert!(queue.contains(queue.of(number)));
            }
        }
    }
}
