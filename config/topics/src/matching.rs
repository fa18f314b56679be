//! Which topics a valid topic filter matches.
//!
//! Promises: one level is looked at once, and nothing is kept. Never: a check of
//! what it is given; that is [`syntax`](crate::syntax)'s.

/// Whether the filter matches the topic.
#[must_use]
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false; // MQTT-4.7.2-1
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true; // also when the topic has ended: `a/#` matches `a`
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether every topic that `narrow` matches is matched by `wide` too. Both
/// are valid filters; a topic name is a filter that matches itself.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    covers_for(wide, None, narrow)
}

/// The same for a filter in which the level `{id}` stands for `id`, a text that
/// is compared as it is: an id that looks like a wildcard is none. Without an
/// id, `{id}` is a level like any other.
#[must_use]
pub fn covers_for(wide: &str, id: Option<&str>, narrow: &str) -> bool {
    // `#` and `+/#` match the same topics, for every topic has a first level; so do
    // `/#` and `/+/#`, for no topic is empty.
    let narrow = match narrow {
        "#" => "+/#",
        "/#" => "/+/#",
        other => other,
    };
    // MQTT-4.7.2-1: a wildcard in the first level does not match `$…`.
    if narrow.starts_with('$') && wide.starts_with(['#', '+']) {
        return false;
    }
    let mut wide = wide.split('/');
    let mut narrow = narrow.split('/');
    loop {
        match (wide.next(), narrow.next()) {
            (Some("#"), _) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some("+"), Some(level)) => {
                if level == "#" {
                    return false;
                }
            }
            // Only a wildcard covers a wildcard.
            (_, Some("+" | "#")) => return false,
            (Some(ID), Some(level)) if id.is_some() => {
                if id != Some(level) {
                    return false;
                }
            }
            (Some(wide), Some(level)) => {
                if wide != level {
                    return false;
                }
            }
        }
    }
}

/// The level of a template that stands for an id.
pub const ID: &str = "{id}";

/// The number of levels that every topic which a valid filter matches has.
#[must_use]
pub fn levels_certain(filter: &str) -> usize {
    // `a/#` matches `a` too (section 4.7.1.2); `#` alone matches topics of one level.
    filter
        .split('/')
        .filter(|level| *level != "#")
        .count()
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_match_as_it_says() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
            ),
            ("sport/#", "sport"),
            ("#", "a/b"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/monitor/Clients"),
        ] {
            assert!(filter_matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/a"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("a/b", "a/B"),
            ("a", "a/"),
        ] {
            assert!(!filter_matches(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn a_routes_filter_matches_whole_levels() {
        for (filter, topic, matches) in [
            ("t/+/records", "t/17/records", true),
            ("t/+/records", "t/17/status", false),
            ("t/+/records", "t/records", false),
            ("t/+/records", "t/17/records/x", false),
            ("sport/#", "sport/", true),
            ("sport/#", "sport/a/b", true),
            ("sport/#", "sports", false),
            ("+/x", "$SYS/x", false),
        ] {
            assert_eq!(filter_matches(filter, topic), matches, "{filter} {topic}");
        }
    }

    #[test]
    fn a_wider_filter_covers_a_narrower_one() {
        for (wide, narrow, covered) in [
            ("#", "a/b", true),
            ("#", "#", true),
            ("a/#", "a", true),
            ("a/#", "a/+/b", true),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("a/+", "a", false),
            ("a", "a/+", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("t/+/records", "t/+/records", true),
        ] {
            assert_eq!(covers(wide, narrow), covered, "{wide} over {narrow}");
        }
    }

    #[test]
    fn only_levels_before_the_multi_level_wildcard_are_certain() {
        for (filter, levels) in [("a", 1), ("a/b", 2), ("a/#", 1), ("#", 1), ("a/+/#", 2)] {
            assert_eq!(levels_certain(filter), levels, "{filter}");
        }
    }
}
