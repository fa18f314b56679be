//! MQTT topic filters and topic names in a configuration: the standard's rules
//! ([`risiti_topics`]) and those of ours.
//!
//! Promises: what passes is valid under MQTT-4.7 for 3.1.1 and 5, bounded in its
//! levels, and a filter is no shared one.

pub use risiti_topics::{TopicError, covers, filter_matches, levels_certain};

use crate::limits::FILTER_LEVELS_MAX;

/// Why a text is no topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A rule of the standard.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A bound of ours.
    #[error("it has more than 128 levels")]
    TooDeep,
    /// A shared subscription is a client's, never a route's.
    #[error("it is a shared subscription")]
    Shared,
}

/// Checks a topic filter of a route.
///
/// # Errors
/// The first rule it breaks.
pub fn validate_filter(filter: &str) -> Result<(), FilterError> {
    validate_depth(filter)?;
    if filter == "$share" || filter.starts_with("$share/") {
        return Err(FilterError::Shared);
    }
    Ok(risiti_topics::validate_filter(filter)?)
}

/// Checks a topic name.
///
/// # Errors
/// The first rule it breaks.
pub fn validate_topic(topic: &str) -> Result<(), FilterError> {
    validate_depth(topic)?;
    Ok(risiti_topics::validate_topic(topic)?)
}

fn validate_depth(text: &str) -> Result<(), FilterError> {
    risiti_topics::validate_text(text)?;
    if text.split('/').count() > FILTER_LEVELS_MAX {
        Err(FilterError::TooDeep)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routes_filter_is_the_standards_of_few_levels_and_not_shared() {
        for filter in ["a", "/", "a/+/b", "#", "$SYS/#", "$shared/a"] {
            assert_eq!(validate_filter(filter), Ok(()), "{filter}");
        }
        for (filter, error) in [
            ("", TopicError::Empty.into()),
            ("a/#/b", TopicError::MultiLevelPlace.into()),
            ("a+/b", TopicError::SingleLevelPlace.into()),
            ("$share", FilterError::Shared),
            ("$share/g/a", FilterError::Shared),
            ("$share/g/a+", FilterError::Shared),
            ("$share/g/\0", TopicError::Null.into()),
        ] {
            assert_eq!(validate_filter(filter), Err(error), "{filter}");
        }
        assert_eq!(validate_filter(&"/".repeat(127)), Ok(()));
        for (deep, error) in [
            ("/".repeat(128), FilterError::TooDeep),
            ("/".repeat(65_536), TopicError::TooLong.into()),
        ] {
            assert_eq!(validate_filter(&deep), Err(error));
            assert_eq!(validate_topic(&deep), Err(error));
        }
        assert_eq!(validate_topic("a/+"), Err(TopicError::Wildcard.into()));
        assert_eq!(validate_topic("a/b"), Ok(()));
    }
}
