//! What a topic name and a topic filter may look like.
//!
//! Promises: what passes is valid under MQTT 5.0, section 4.7. Never: a look at
//! `$share`, which is an ordinary level here.

use std::fmt;

use crate::limits::TOPIC_BYTES_MAX;

/// Why a text is no topic name or no topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicError {
    /// MQTT-4.7.3-1
    Empty,
    /// MQTT-4.7.3-3
    TooLong,
    /// MQTT-4.7.3-2
    Null,
    /// MQTT-4.7.1-1: `#` alone in the last level.
    MultiLevelPlace,
    /// MQTT-4.7.1-2: `+` alone in a level.
    SingleLevelPlace,
    /// MQTT-4.7.0-1, MQTT-3.3.2-2: names have no wildcards.
    Wildcard,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::TooLong => "it is longer than 65535 bytes",
            Self::Null => "it holds a NUL character",
            Self::MultiLevelPlace => "`#` does not stand alone in the last level",
            Self::SingleLevelPlace => "`+` does not stand alone in its level",
            Self::Wildcard => "it holds a wildcard",
        })
    }
}

impl std::error::Error for TopicError {}

/// Checks a topic filter.
///
/// # Errors
/// The first rule it breaks.
pub fn validate_filter(filter: &str) -> Result<(), TopicError> {
    validate_text(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MultiLevelPlace);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevelPlace);
        }
    }
    Ok(())
}

/// Checks a topic name.
///
/// # Errors
/// The first rule it breaks.
pub fn validate_topic(topic: &str) -> Result<(), TopicError> {
    validate_text(topic)?;
    if topic.contains(['#', '+']) {
        Err(TopicError::Wildcard)
    } else {
        Ok(())
    }
}

/// Checks what names and filters have in common (MQTT 5.0, section 4.7.3).
///
/// # Errors
/// The first rule it breaks.
pub fn validate_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        Err(TopicError::Empty)
    } else if text.len() > TOPIC_BYTES_MAX {
        Err(TopicError::TooLong)
    } else if text.contains('\0') {
        Err(TopicError::Null)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_alone_in_their_level_and_hash_stands_last() {
        for good in [
            "a", "/", "//", "a//b", "+", "#", "a/+/b", "+/+", "+/a/+", "/+", "a/#", "+/a/#", "/#",
            "$SYS/#", "a b/ü", "$share",
        ] {
            assert_eq!(validate_filter(good), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", TopicError::Empty),
            ("a\0", TopicError::Null),
            ("#/a", TopicError::MultiLevelPlace),
            ("a/#/b", TopicError::MultiLevelPlace),
            ("a#", TopicError::MultiLevelPlace),
            ("a/b#", TopicError::MultiLevelPlace),
            ("##", TopicError::MultiLevelPlace),
            ("a+", TopicError::SingleLevelPlace),
            ("+a", TopicError::SingleLevelPlace),
            ("a+/b", TopicError::SingleLevelPlace),
            ("a/b+/c", TopicError::SingleLevelPlace),
            ("++", TopicError::SingleLevelPlace),
        ] {
            assert_eq!(validate_filter(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn a_topic_name_has_no_wildcard() {
        assert_eq!(validate_topic("/ü/日本"), Ok(()));
        assert_eq!(validate_topic("a/+"), Err(TopicError::Wildcard));
        assert_eq!(validate_topic("a#"), Err(TopicError::Wildcard));
        assert_eq!(validate_topic(""), Err(TopicError::Empty));
        assert_eq!(validate_topic("a\0b"), Err(TopicError::Null));
    }

    #[test]
    fn names_and_filters_have_a_length_of_two_bytes() {
        for (bytes, valid) in [(65_535, Ok(())), (65_536, Err(TopicError::TooLong))] {
            let text = "a".repeat(bytes);
            assert_eq!(validate_topic(&text), valid);
            assert_eq!(validate_filter(&text), valid);
        }
        let told = TopicError::TooLong.to_string();
        assert!(told.contains(&TOPIC_BYTES_MAX.to_string()), "{told}");
    }
}
