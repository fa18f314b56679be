//! Topic names, topic filters and the tree of subscriptions.
//!
//! Validity and matching are compared with a reading of MQTT 5.0, section 4.7,
//! that is written here in the plainest way: whole lists of levels, recursion. The
//! tree finds exactly the filters that match one by one, keeps them through
//! removals, and holds no node when it holds no filter. `covers` is never wrong
//! where it says yes. A template of a terminal's topic names one level.

#![no_main]

use bytestring::ByteString;
use risiti_fuzz::control::breaks;
use risiti_fuzz::seeds::Seed;
use risiti_fuzz::{Choices, target};
use risiti_mqtt::limits::TOPIC_LEVELS_MAX;
use risiti_mqtt::{FilterTree, TopicFilter};
use risiti_terminal::settings::Topic;
use risiti_topics::{covers, filter_matches, levels_certain, validate_filter, validate_topic};

target!("topics", seeds, |data| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Lines; a topic is what stands last, all before it are filters.
    let mut lines: Vec<&str> = text.split('\n').take(9).collect();
    let topic = lines.pop().unwrap_or_default();
    for line in &lines {
        validity(line);
    }
    validity(topic);
    template(topic);
    if !is_name(topic) {
        return;
    }
    let filters: Vec<&str> = lines.into_iter().filter(|line| is_filter(line)).collect();
    for (at, filter) in filters.iter().enumerate() {
        let matches = naive_match(&levels(filter), &levels(topic), 0);
        assert_eq!(
            filter_matches(filter, topic),
            matches,
            "{filter:?} {topic:?}"
        );
        assert!(!matches || levels(topic).len() >= levels_certain(filter));
        for narrow in &filters[at + 1..] {
            covering(filter, narrow, topic);
            covering(narrow, filter, topic);
        }
    }
    tree(&filters, topic, data);
});

fn levels(text: &str) -> Vec<&str> {
    text.split('/').collect()
}

/// 4.7.3: one character at least, no null, a length of two bytes; 4.7.1: no
/// wildcard in a name.
fn is_name(text: &str) -> bool {
    is_text(text) && !text.chars().any(|c| c == '+' || c == '#')
}

fn is_text(text: &str) -> bool {
    (1..=65_535).contains(&text.len()) && !text.bytes().any(|byte| byte == 0)
}

/// 4.7.1.2 and 4.7.1.3.
fn is_filter(text: &str) -> bool {
    let levels = levels(text);
    let proper = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at + 1 == levels.len(),
        other => !other.contains('+') && !other.contains('#'),
    };
    is_text(text) && levels.iter().enumerate().all(proper)
}

fn naive_match(filter: &[&str], topic: &[&str], depth: usize) -> bool {
    let hidden = depth == 0 && topic.first().is_some_and(|level| level.starts_with('$'));
    match (filter.split_first(), topic.split_first()) {
        (None, None) => true,
        // The parent level too (4.7.1.2).
        (Some((&"#", _)), _) => !hidden || breaks("topics-dollar"),
        (Some((&"+", filter)), Some((_, topic))) => {
            !hidden && naive_match(filter, topic, depth + 1)
        }
        (Some((wanted, filter)), Some((level, topic))) => {
            wanted == level && naive_match(filter, topic, depth + 1)
        }
        _ => false,
    }
}

fn validity(text: &str) {
    assert_eq!(validate_filter(text).is_ok(), is_filter(text), "{text:?}");
    assert_eq!(validate_topic(text).is_ok(), is_name(text), "{text:?}");
    for by_rule in [false, true] {
        let Ok(parsed) = TopicFilter::parse(ByteString::from(text), by_rule) else {
            continue;
        };
        assert_eq!(parsed.to_string(), text, "nothing is lost in parsing");
        assert!(is_filter(&parsed.filter), "{text:?}");
        if let Some(group) = &parsed.share {
            // MQTT-4.8.2-1, -2
            let proper = !group.is_empty() && !group.contains(['/', '+', '#']);
            assert!(proper && text.starts_with("$share/"), "{text:?}");
        } else if by_rule {
            assert_ne!(levels(text)[0], "$share", "{text:?}");
        }
    }
}

fn covering(wide: &str, narrow: &str, topic: &str) {
    if covers(wide, narrow) && filter_matches(narrow, topic) {
        assert!(
            filter_matches(wide, topic),
            "{wide:?} does not cover {narrow:?}: {topic:?}"
        );
    }
}

/// The terminal's own template: what it takes for its topic is that topic.
fn template(text: &str) {
    let Some(topic) = Topic::from_template(text) else {
        return;
    };
    let name = text.replacen("{id}", "t-1", 1);
    assert!(topic.is("t-1", name.as_bytes()), "{text:?}");
    assert_eq!(topic.len("t-1"), name.len());
    assert!(is_name(&name), "{text:?}");
    assert!(!topic.is("t-2", name.as_bytes()), "{text:?}");
}

fn tree(filters: &[&str], topic: &str, data: &[u8]) {
    let mut tree = FilterTree::new();
    let mut held: Vec<(usize, &str)> = Vec::new();
    for (number, filter) in filters.iter().enumerate() {
        match tree.insert(filter, number) {
            Ok(()) => held.push((number, filter)),
            Err(_) => assert!(levels(filter).len() > TOPIC_LEVELS_MAX, "{filter:?}"),
        }
    }
    let mut choices = Choices::new(data);
    loop {
        assert_eq!(tree.len(), held.len());
        let mut found: Vec<usize> = Vec::new();
        tree.matches(topic, |number| found.push(*number));
        found.sort_unstable();
        let wanted: Vec<usize> = held
            .iter()
            .filter(|(_, filter)| filter_matches(filter, topic))
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(found, wanted, "{topic:?} in {held:?}");
        if held.is_empty() {
            assert_eq!(tree.node_count(), 1, "nodes are left");
            return;
        }
        let (number, filter) = held.remove(choices.below(held.len()));
        assert_eq!(tree.remove(filter, |one| *one == number), Some(number));
        assert_eq!(tree.remove(filter, |one| *one == number), None);
    }
}

fn seeds() -> Vec<Seed> {
    let texts = [
        "sport/tennis/player1/#\nsport/+\n#\nsport/tennis/player1",
        "sport/#\n+/+\n/+\n/finance",
        "$SYS/#\n#\n+/monitor/Clients\n$SYS/monitor/Clients",
        "a/b\na/+\na/#\n+/b\n+/#\n#\na/b",
        "$share/g/a/+\n$share/g\n$share//a\na/x",
        "t/{id}/records\nt/+/records\nt/17/records",
        "t/{id}/records",
        "//\n/+/\n+//+\n//",
        "a#\na+\n#/a\n++\na",
        "é/日本/+\né/#\né/日本/x",
    ];
    let named = |(at, text): (usize, &&str)| (format!("lines-{at:02}"), text.as_bytes().to_vec());
    texts.iter().enumerate().map(named).collect()
}
