//! Covering, judged by brute force: a filter covers another exactly if no topic
//! tells them apart.
//!
//! All filters of up to three levels over a small alphabet, and all topics of up
//! to five levels over that alphabet and a letter that no filter names. Levels are
//! compared whole, so a filter of three levels that matches a topic of any other
//! letters, or of more levels, matches one of these as well.

use risiti_topics::{covers, covers_for, filter_matches, validate_filter, validate_topic};

const FILTER_LEVELS: [&str; 6] = ["a", "b", "", "+", "#", "$s"];
const TOPIC_LEVELS: [&str; 5] = ["a", "b", "", "$s", "z"];

fn texts(levels: &[&str], most: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut longest: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
    for _ in 0..most {
        all.extend(longest.iter().cloned());
        longest = longest
            .iter()
            .flat_map(|text| levels.iter().map(move |level| format!("{text}/{level}")))
            .collect();
    }
    all
}

fn filters() -> Vec<String> {
    let mut all = texts(&FILTER_LEVELS, 3);
    all.retain(|filter| validate_filter(filter).is_ok());
    all
}

fn topics() -> Vec<String> {
    let mut all = texts(&TOPIC_LEVELS, 5);
    all.retain(|topic| validate_topic(topic).is_ok());
    all
}

/// The topics that a filter matches, a bit each.
fn matched(filter: &str, topics: &[String]) -> Vec<u64> {
    let mut bits = vec![0; topics.len().div_ceil(64)];
    for (index, topic) in topics.iter().enumerate() {
        if filter_matches(filter, topic) {
            bits[index / 64] |= 1 << (index % 64);
        }
    }
    bits
}

/// Pairs on which a rule and brute force differ: granted too much, too little.
fn judge(rule: impl Fn(&str, &str) -> bool) -> (Vec<String>, Vec<String>) {
    let (filters, topics) = (filters(), topics());
    let matched: Vec<_> = filters.iter().map(|f| matched(f, &topics)).collect();
    let (mut escapes, mut refusals) = (Vec::new(), Vec::new());
    for (wide, by_wide) in filters.iter().zip(&matched) {
        for (narrow, by_narrow) in filters.iter().zip(&matched) {
            let covered = by_narrow.iter().zip(by_wide).all(|(n, w)| n & !w == 0);
            match (rule(wide, narrow), covered) {
                (true, false) => escapes.push(format!("{wide} over {narrow}")),
                (false, true) => refusals.push(format!("{wide} over {narrow}")),
                _ => {}
            }
        }
    }
    (escapes, refusals)
}

#[test]
fn a_filter_covers_another_exactly_if_no_topic_tells_them_apart() {
    assert!(filters().len() > 100 && topics().len() > 3_000);
    let (escapes, refusals) = judge(covers);
    assert!(escapes.is_empty(), "granted too much: {escapes:?}");
    assert!(refusals.is_empty(), "granted too little: {refusals:?}");
}

/// Who takes a filter for a topic name grants `t/#` where `t/+` is allowed.
#[test]
fn control_matching_instead_of_covering_lets_wildcards_escape() {
    let (escapes, _) = judge(filter_matches);
    assert!(escapes.iter().any(|pair| pair == "a/+ over a/#"));
}

#[test]
fn a_topic_is_covered_exactly_if_it_matches() {
    let topics = topics();
    for filter in filters() {
        for topic in &topics {
            assert_eq!(
                covers(&filter, topic),
                filter_matches(&filter, topic),
                "{filter} {topic}"
            );
        }
    }
}

#[test]
fn an_id_stands_for_itself_and_never_for_a_wildcard() {
    for filter in texts(&["a", "+", "#", "{id}"], 3) {
        if validate_filter(&filter).is_err() {
            continue;
        }
        let plain = filter.replace("{id}", "b");
        for narrow in filters() {
            assert_eq!(
                covers_for(&filter, Some("b"), &narrow),
                covers(&plain, &narrow),
                "{filter} over {narrow}"
            );
        }
    }
    for id in ["+", "#", "a/b", ""] {
        for narrow in ["t/+/x", "t/#", "#", "t/a/b/x", "t/+/+", "+/+/x"] {
            assert!(!covers_for("t/{id}/x", Some(id), narrow), "{id} {narrow}");
        }
    }
    assert!(covers_for("t/{id}/x", Some("7"), "t/7/x"));
    assert!(!covers_for("t/{id}/x", Some("7"), "t/8/x"));
    assert!(!covers_for("t/{id}/x", Some("7"), "t/{id}/x"));
    assert!(covers_for("t/{id}/x", None, "t/{id}/x"));
}
