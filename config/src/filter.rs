//! MQTT topic filters and topic names, as far as a configuration needs them.
//!
//! Promises: what passes is valid under MQTT-4.7 for 3.1.1 and 5. Never:
//! matching of messages; that is the gateway's and the bridge's.

use crate::limits::{FILTER_BYTES_MAX, FILTER_LEVELS_MAX};

/// Why a text is no topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// MQTT-4.7.3-1
    #[error("it is empty")]
    Empty,
    /// MQTT-4.7.3-3
    #[error("it is longer than 65535 bytes")]
    TooLong,
    /// A bound of ours.
    #[error("it has more than 128 levels")]
    TooDeep,
    /// MQTT-4.7.3-2
    #[error("it holds a NUL character")]
    Nul,
    /// MQTT-4.7.1-1: `#` alone in the last level.
    #[error("`#` does not stand alone in the last level")]
    MultiLevelPlace,
    /// MQTT-4.7.1-2: `+` alone in a level.
    #[error("`+` does not stand alone in its level")]
    SingleLevelPlace,
    /// MQTT-4.7.1-1: names have no wildcards.
    #[error("it holds a wildcard")]
    Wildcard,
    /// A shared subscription is a client's, never a route's.
    #[error("it is a shared subscription")]
    Shared,
}

/// Checks a topic filter of a route.
///
/// # Errors
/// The first rule it breaks.
pub fn validate_filter(filter: &str) -> Result<(), FilterError> {
    validate_text(filter)?;
    if filter == "$share" || filter.starts_with("$share/") {
        return Err(FilterError::Shared);
    }
    let last = filter.split('/').count() - 1;
    for (index, level) in filter.split('/').enumerate() {
        if level.contains('#') && (level != "#" || index != last) {
            return Err(FilterError::MultiLevelPlace);
        }
        if level.contains('+') && level != "+" {
            return Err(FilterError::SingleLevelPlace);
        }
    }
    Ok(())
}

/// Checks a topic name.
///
/// # Errors
/// The first rule it breaks.
pub fn validate_topic(topic: &str) -> Result<(), FilterError> {
    validate_text(topic)?;
    if topic.contains(['#', '+']) {
        Err(FilterError::Wildcard)
    } else {
        Ok(())
    }
}

fn validate_text(text: &str) -> Result<(), FilterError> {
    if text.is_empty() {
        Err(FilterError::Empty)
    } else if text.len() > FILTER_BYTES_MAX {
        Err(FilterError::TooLong)
    } else if text.contains('\0') {
        Err(FilterError::Nul)
    } else if text.split('/').count() > FILTER_LEVELS_MAX {
        Err(FilterError::TooDeep)
    } else {
        Ok(())
    }
}

/// Whether every topic that `narrow` matches is matched by `wide` too. Both
/// are valid filters.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    // MQTT-4.7.2-1: a wildcard in the first level does not match `$…`.
    if narrow.starts_with('$') && wide.starts_with(['#', '+']) {
        return false;
    }
    let mut wide = wide.split('/');
    let mut narrow = narrow.split('/');
    loop {
        match (wide.next(), narrow.next()) {
            (Some("#"), _) | (None, None) => return true,
            (_, Some("#")) | (None, Some(_)) | (Some(_), None) => return false,
            (Some("+"), Some(_)) => {}
            (Some(wide), Some(narrow)) if wide == narrow => {}
            _ => return false,
        }
    }
}

/// The number of levels that every topic which a valid filter matches has.
#[must_use]
pub fn levels_certain(filter: &str) -> usize {
    // `a/#` matches `a` too (MQTT-4.7.1-2); `#` alone matches topics of one level.
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
    fn a_filter_has_its_wildcards_alone_in_a_level() {
        for filter in [
            "a", "/", "a//b", "+", "#", "a/+/b", "+/+", "a/#", "/#", "$SYS/#", "ä/ö",
        ] {
            assert_eq!(validate_filter(filter), Ok(()), "{filter}");
        }
        for (filter, error) in [
            ("", FilterError::Empty),
            ("a\0b", FilterError::Nul),
            ("a/#/b", FilterError::MultiLevelPlace),
            ("a/b#", FilterError::MultiLevelPlace),
            ("##", FilterError::MultiLevelPlace),
            ("a+/b", FilterError::SingleLevelPlace),
            ("++", FilterError::SingleLevelPlace),
            ("$share/g/a", FilterError::Shared),
        ] {
            assert_eq!(validate_filter(filter), Err(error), "{filter}");
        }
        assert_eq!(
            validate_filter(&"a".repeat(65_536)),
            Err(FilterError::TooLong)
        );
        assert_eq!(validate_filter(&"/".repeat(128)), Err(FilterError::TooDeep));
        assert_eq!(validate_topic("a/+"), Err(FilterError::Wildcard));
        assert_eq!(validate_topic("a/b"), Ok(()));
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
