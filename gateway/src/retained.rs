//! Retained messages (MQTT 5.0, section 3.3.1.3): the last of each topic, in memory.
//!
//! Promises: bounded in number and bytes; an expired one is never given out.
//! The rows in the store are the broker's to write; this is their image.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;
use risiti_mqtt::Message;
use risiti_mqtt::topics::filter_matches;

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
        let old = self.by_topic.get(&message.topic);
        let old_bytes = old.map_or(0, |o| size(&o.message));
        let count = self.by_topic.len() + usize::from(old.is_none());
        let bytes = self.bytes - old_bytes + size(&message);
        if count > messages_max || bytes > bytes_max {
            return false;
        }
        self.bytes = bytes;
        self.by_topic.insert(
            message.topic.clone(),
            RetainedMessage {
                message,
                received_ms,
            },
        );
        true
    }

    /// Those that match a filter and have not expired.
    pub fn matching(&self, filter: &str, now_ms: u64) -> Vec<RetainedMessage> {
        let live = |m: &&RetainedMessage| !is_expired(m, now_ms);
        if !filter.contains(['+', '#']) {
            return self
                .by_topic
                .get(filter)
                .filter(live)
                .cloned()
                .into_iter()
                .collect();
        }
        // Only topics that begin like the filter up to its first wildcard.
        let fixed = filter.split(['+', '#']).next().unwrap_or_default();
        // `a/#` also matches `a`.
        let from = fixed.strip_suffix('/').unwrap_or(fixed);
        self.by_topic
            .range(ByteString::from(from)..)
            .take_while(|(topic, _)| topic.starts_with(from))
            .filter(|(topic, _)| filter_matches(filter, topic))
            .map(|(_, m)| m)
            .filter(live)
            .cloned()
            .collect()
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
        assert_eq!(r.matching("a", 0)[0].message.payload, "2");
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
            r.matching(f, 0)
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
        assert_eq!(r.matching("a", 2_999).len(), 1);
        assert_eq!(r.matching("a", 3_000).len(), 0);
        assert_eq!(r.expire(3_000).len(), 1);
    }
}
