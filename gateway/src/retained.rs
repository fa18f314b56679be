//! Retained messages (MQTT 5.0, section 3.3.1.3): the last of each topic, in memory.
//!
//! Promises: bounded in number and bytes; an expired one is never given out.
//! The rows in the store are the broker's to write; this is their image.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytestring::ByteString;
use risiti_mqtt::Message;
use risiti_mqtt::topics::filter_matches;

use crate::limits;

/// One retained message.
#[derive(Debug, Clone)]
pub struct RetainedMessage {
    /// What was published.
    pub message: Arc<Message>,
    /// When the gateway took it, Unix milliseconds.
    pub received_ms: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Retained {
    by_topic: BTreeMap<ByteString, RetainedMessage>,
    bytes: usize,
}

/// Memory a retained message stands for beside topic and payload.
const OVERHEAD_BYTES: usize = 160;

fn size(message: &Message) -> usize {
    OVERHEAD_BYTES + message.topic.len() + message.payload.len() + message.properties.len()
}

impl Retained {
    /// Sets the retained message of its topic; an empty payload removes it
    /// (MQTT-3.3.1-6, -7). Returns false, and changes nothing, if a bound would
    /// be passed.
    pub fn set(
        &mut self,
        message: Arc<Message>,
        received_ms: u64,
        messages_max: usize,
        bytes_max: usize,
    ) -> bool {
        if message.payload.is_empty() {
            if let Some(old) = self.by_topic.remove(&message.topic) {
                self.bytes -= size(&old.message);
            }
            return true;
        }
        if !self.fits(&message, messages_max, bytes_max) {
            return false;
        }
        let old = self.by_topic.get(&message.topic);
        self.bytes += size(&message);
        self.bytes -= old.map_or(0, |o| size(&o.message));
        self.by_topic.insert(
            message.topic.clone(),
            RetainedMessage {
                message,
                received_ms,
            },
        );
        true
    }

    /// Whether a message that is not empty may be set without passing a bound.
    pub fn fits(&self, message: &Message, messages_max: usize, bytes_max: usize) -> bool {
        let old = self.by_topic.get(&message.topic);
        let count = self.by_topic.len() + usize::from(old.is_none());
        let bytes = self.bytes - old.map_or(0, |o| size(&o.message)) + size(message);
        count <= messages_max && bytes <= bytes_max
    }

    /// The next of those that match a filter and have not expired, in the order
    /// of their topics behind `after`; and where to go on, unless that was all.
    /// It looks at a bounded number of topics, so it may find none and yet not
    /// be at the end.
    pub fn page(
        &self,
        filter: &str,
        after: Option<&ByteString>,
        now_ms: u64,
    ) -> (Vec<RetainedMessage>, Option<ByteString>) {
        if !filter.contains(['+', '#']) {
            let found = self.by_topic.get(filter);
            let live = found.filter(|m| !is_expired(m, now_ms));
            return (live.cloned().into_iter().collect(), None);
        }
        // Only topics that begin like the filter up to its first wildcard.
        let fixed = filter.split(['+', '#']).next().unwrap_or_default();
        // `a/#` also matches `a`.
        let from = fixed.strip_suffix('/').unwrap_or(fixed);
        let first = ByteString::from(from);
        let start = after.map_or(Bound::Included(&first), Bound::Excluded);
        let mut found = Vec::new();
        let mut looked_at = 0;
        for (topic, kept) in self
            .by_topic
            .range::<ByteString, _>((start, Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(from))
        {
            looked_at += 1;
            if !is_expired(kept, now_ms) && filter_matches(filter, topic) {
                found.push(kept.clone());
            }
            if found.len() >= limits::RETAINED_PER_PAGE
                || looked_at >= limits::RETAINED_LOOKED_AT_PER_PAGE
            {
                return (found, Some(topic.clone()));
            }
        }
        (found, None)
    }

    /// Removes those that have expired; returns their topics.
    pub fn expire(&mut self, now_ms: u64) -> Vec<ByteString> {
        let gone: Vec<_> = self
            .by_topic
            .iter()
            .filter(|(_, m)| is_expired(m, now_ms))
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in &gone {
            if let Some(old) = self.by_topic.remove(topic) {
                self.bytes -= size(&old.message);
            }
        }
        gone
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }
}

fn is_expired(m: &RetainedMessage, now_ms: u64) -> bool {
    m.message
        .expiry_s
        .is_some_and(|s| now_ms >= m.received_ms + u64::from(s) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(r: &mut Retained, topic: &str, payload: &'static str) -> bool {
        r.set(Arc::new(Message::new(topic, payload)), 0, 3, 10_000)
    }

    #[test]
    fn the_last_message_of_a_topic_stands_and_an_empty_one_removes_it() {
        let mut r = Retained::default();
        assert!(set(&mut r, "a", "1") && set(&mut r, "a", "2"));
        assert_eq!(r.page("a", None, 0).0[0].message.payload, "2");
        assert!(set(&mut r, "a", ""));
        assert!(r.is_empty() && r.bytes == 0);
    }

    #[test]
    fn wildcards_find_what_they_match() {
        let mut r = Retained::default();
        for topic in ["a", "a/b", "ab"] {
            assert!(set(&mut r, topic, "x"));
        }
        let found = |f: &str| {
            r.page(f, None, 0)
                .0
                .iter()
                .map(|m| m.message.topic.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("a/#"), ["a", "a/b"]);
        assert_eq!(found("+"), ["a", "ab"]);
        assert_eq!(found("#"), ["a", "a/b", "ab"]);
        assert_eq!(found("a/+"), ["a/b"]);
    }

    #[test]
    fn bounds_refuse_a_new_topic_but_not_a_new_value() {
        let mut r = Retained::default();
        assert!(set(&mut r, "1", "x") && set(&mut r, "2", "x") && set(&mut r, "3", "x"));
        assert!(!set(&mut r, "4", "x"));
        assert!(set(&mut r, "3", "y"));
    }

    #[test]
    fn an_expired_one_is_never_given_out() {
        let mut r = Retained::default();
        let message = Message {
            expiry_s: Some(2),
            ..Message::new("a", "x")
        };
        assert!(r.set(Arc::new(message), 1_000, 3, 10_000));
        assert_eq!(r.page("a", None, 2_999).0.len(), 1);
        assert_eq!(r.page("a", None, 3_000).0.len(), 0);
        assert_eq!(r.expire(3_000).len(), 1);
    }

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let mut r = Retained::default();
        let total = limits::RETAINED_PER_PAGE * 2 + 5;
        for n in 0..total {
            let message = Message::new(format!("a/{n:04}"), "x");
            assert!(r.set(Arc::new(message), 0, total, usize::MAX));
        }
        let mut topics = Vec::new();
        let mut after = None;
        for _ in 0..total {
            let (page, next) = r.page("a/#", after.as_ref(), 0);
            topics.extend(page.into_iter().map(|m| m.message.topic.to_string()));
            after = next;
            if after.is_none() {
                break;
            }
        }
        let all: Vec<_> = (0..total).map(|n| format!("a/{n:04}")).collect();
        assert_eq!(topics, all);
    }

    /// What a bound counts is what is there: topic, payload, properties and what
    /// keeping one costs.
    #[test]
    fn the_bound_of_bytes_is_what_the_messages_take() {
        let message = |payload: usize| {
            Arc::new(Message {
                properties: vec![0; 7].into(),
                ..Message::new("a/b", vec![b'x'; payload])
            })
        };
        let whole = OVERHEAD_BYTES + 3 + 10 + 7;
        let mut r = Retained::default();
        assert!(!r.set(message(10), 0, 9, whole - 1));
        assert!(r.is_empty());
        assert!(r.set(message(10), 0, 9, whole));
        assert_eq!((r.len(), r.is_empty(), r.bytes), (1, false, whole));

        // A new value takes the place of the old one.
        assert!(!r.set(message(12), 0, 9, whole + 1));
        assert_eq!(r.bytes, whole);
        assert!(r.set(message(12), 0, 9, whole + 2));
        assert_eq!(r.bytes, whole + 2);

        let other = OVERHEAD_BYTES + 1 + 4;
        let second = || Arc::new(Message::new("c", "four"));
        assert!(!r.fits(&second(), 9, whole + 2 + other - 1));
        assert!(r.fits(&second(), 2, whole + 2 + other));
        assert!(!r.fits(&second(), 1, usize::MAX));
        assert!(r.set(second(), 0, 2, whole + 2 + other));
        assert_eq!((r.len(), r.bytes), (2, whole + 2 + other));

        // MQTT-3.3.1-6, and -7 where there is none.
        assert!(r.set(Arc::new(Message::new("a/b", "")), 0, 2, 0));
        assert!(r.set(Arc::new(Message::new("nobody", "")), 0, 2, 0));
        assert_eq!((r.len(), r.bytes), (1, other));
    }

    #[test]
    fn expired_ones_go_and_the_others_stay() {
        let mut r = Retained::default();
        for (topic, expiry_s) in [("a", Some(2)), ("b", Some(3)), ("c", None)] {
            let message = Message {
                expiry_s,
                ..Message::new(topic, "x")
            };
            assert!(r.set(Arc::new(message), 1_500, 3, 10_000));
        }
        let given = |r: &Retained, now_ms| {
            let (page, next) = r.page("+", None, now_ms);
            assert_eq!(next, None);
            page.iter()
                .map(|m| m.message.topic.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(given(&r, 3_499), ["a", "b", "c"]);
        assert_eq!(given(&r, 3_500), ["b", "c"]);
        assert_eq!(r.expire(3_499), [""; 0]);
        assert_eq!(r.expire(3_500), ["a"]);
        assert_eq!((r.len(), r.bytes), (2, 2 * (OVERHEAD_BYTES + 2)));
        assert_eq!(r.expire(4_500), ["b"]);
        assert_eq!(r.bytes, OVERHEAD_BYTES + 2);
        assert_eq!(given(&r, u64::MAX), ["c"]);
    }

    #[test]
    fn a_filter_that_matches_little_comes_to_its_end_in_pages_too() {
        let mut r = Retained::default();
        let total = limits::RETAINED_LOOKED_AT_PER_PAGE + 1;
        for n in 0..total {
            let message = Message::new(format!("a/{n:06}"), "x");
            assert!(r.set(Arc::new(message), 0, total, usize::MAX));
        }
        let last = format!("a/{:06}", total - 1);
        let filter = "a/+/none";
        let (page, next) = r.page(filter, None, 0);
        assert!(page.is_empty());
        let next = next.unwrap();
        assert_eq!(next, format!("a/{:06}", total - 2), "all it looked at");
        assert!(r.page(filter, Some(&next), 0).0.is_empty());
        assert_eq!(r.page(filter, Some(&next), 0).1, None);
        // Where many match, a page has so many of them.
        let (page, next) = r.page("a/+", None, 0);
        assert_eq!(page.len(), limits::RETAINED_PER_PAGE);
        assert_eq!(page.last().map(|m| &m.message.topic), next.as_ref());
        let (page, next) = r.page("a/#", Some(&format!("a/{:06}", total - 2).into()), 0);
        assert_eq!(page.len(), 1);
        assert_eq!(*page[0].message.topic, *last);
        assert_eq!(next, None);
    }
}
