//! What one subscription asks for, and what a peer is told whose topic name or
//! filter is refused.
//!
//! The rules are [`risiti_topics`]'; here stand those of `$share` (MQTT 5.0,
//! section 4.8.2). UTF-8 itself (well-formed, without U+0000) is checked where
//! strings are read.

use bytestring::ByteString;
use risiti_topics::TopicError;

use crate::Qos;

/// Why a topic name or filter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// MQTT-4.7.3-1
    #[error("it is empty")]
    Empty,
    /// MQTT-4.7.3-3
    #[error("it is longer than 65,535 bytes")]
    TooLong,
    /// MQTT-4.7.3-2
    #[error("it contains U+0000")]
    Null,
    /// MQTT-4.7.1-1, 4.7.1-2, or a wildcard in a topic name (MQTT-3.3.2-2)
    #[error("a wildcard stands where none may")]
    Wildcard,
    /// MQTT-4.8.2-1, 4.8.2-2
    #[error("its $share prefix names no proper group and filter")]
    Share,
}

impl From<TopicError> for FilterError {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Empty => Self::Empty,
            TopicError::TooLong => Self::TooLong,
            TopicError::Null => Self::Null,
            TopicError::MultiLevelPlace | TopicError::SingleLevelPlace | TopicError::Wildcard => {
                Self::Wildcard
            }
        }
    }
}

/// What one subscription asks for, without the share prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter {
    /// The group of a shared subscription (`$share/<group>/…`).
    pub share: Option<ByteString>,
    /// The filter itself.
    pub filter: ByteString,
}

/// What a client wants done about retained messages when it subscribes (MQTT
/// 5.0, section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send them, always. The only way of v3.1.1.
    #[default]
    Send = 0,
    /// Send them if the subscription did not exist.
    SendIfNew = 1,
    /// Send none.
    DoNotSend = 2,
}

/// One subscription of a SUBSCRIBE packet. In v3.1.1 only filter and QoS are the
/// client's; the rest stands as that version behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The filter and, if shared, its group.
    pub filter: TopicFilter,
    /// The most that is to be delivered.
    pub qos: Qos,
    /// Do not send back what this client itself publishes.
    pub no_local: bool,
    /// Keep the retain flag as published.
    pub retain_as_published: bool,
    /// What about retained messages now.
    pub retain_handling: RetainHandling,
    /// The subscription identifier to put on what it delivers; 1..=268,435,455.
    pub id: Option<u32>,
}

impl TopicFilter {
    /// Takes `$share/<group>/<filter>` apart and validates both, or the plain
    /// filter. `shared_by_rule` (v5) makes a malformed `$share` an error; without
    /// it (v3.1.1) it is an ordinary filter.
    pub fn parse(text: ByteString, shared_by_rule: bool) -> Result<Self, FilterError> {
        validate_filter(&text)?;
        if let Some(rest) = text.strip_prefix("$share/") {
            match split_share(rest) {
                Some((group, filter)) => {
                    return Ok(Self {
                        share: Some(text.slice_ref(group)),
                        filter: text.slice_ref(filter),
                    });
                }
                None if shared_by_rule => return Err(FilterError::Share),
                None => {}
            }
        } else if shared_by_rule && &*text == "$share" {
            return Err(FilterError::Share);
        }
        Ok(Self {
            share: None,
            filter: text,
        })
    }

    /// A copy that does not hold on to the packet it came in.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self {
            share: self.share.as_deref().map(ByteString::from),
            filter: ByteString::from(&*self.filter),
        }
    }
}

impl Subscription {
    /// A copy that does not hold on to the packet it came in.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self {
            filter: self.filter.detach(),
            ..*self
        }
    }
}

impl std::fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.share {
            Some(group) => write!(f, "$share/{group}/{}", self.filter),
            None => f.write_str(&self.filter),
        }
    }
}

fn split_share(rest: &str) -> Option<(&str, &str)> {
    let (group, filter) = rest.split_once('/')?;
    let proper = !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty();
    proper.then_some((group, filter))
}

/// Whether a PUBLISH may carry it as its topic name.
pub fn validate_topic(topic: &str) -> Result<(), FilterError> {
    Ok(risiti_topics::validate_topic(topic)?)
}

/// Whether a SUBSCRIBE may carry it as a topic filter; `$share` is not looked at.
pub fn validate_filter(filter: &str) -> Result<(), FilterError> {
    Ok(risiti_topics::validate_filter(filter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &'static str) -> Result<TopicFilter, FilterError> {
        TopicFilter::parse(ByteString::from_static(text), true)
    }

    #[test]
    fn a_peer_is_told_one_reason_for_every_misplaced_wildcard() {
        for bad in ["a/#/b", "a#", "a+", "++"] {
            assert_eq!(validate_filter(bad), Err(FilterError::Wildcard), "{bad}");
        }
        assert_eq!(validate_topic("a/+"), Err(FilterError::Wildcard));
        for (text, error) in [("", FilterError::Empty), ("a\0", FilterError::Null)] {
            assert_eq!(validate_filter(text), Err(error));
            assert_eq!(validate_topic(text), Err(error));
        }
        assert_eq!(
            validate_topic(&"a".repeat(65_536)),
            Err(FilterError::TooLong)
        );
    }

    #[test]
    fn a_share_prefix_names_group_and_filter() {
        let shared = parse("$share/g/a/+").unwrap();
        assert_eq!(shared.share.as_deref(), Some("g"));
        assert_eq!(&*shared.filter, "a/+");
        assert_eq!(shared.to_string(), "$share/g/a/+");
        assert_eq!(parse("$share/g//").unwrap().filter, "/");
        for bad in ["$share", "$share/", "$share/g", "$share/g/", "$share//a"] {
            assert_eq!(parse(bad), Err(FilterError::Share), "{bad}");
        }
        for bad in ["$share/+/a", "$share/#"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("$shared/g/a").unwrap().share, None);
    }
}
