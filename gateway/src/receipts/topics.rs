//! The topics on which terminals take their receipts.
//!
//! Promises: every topic name of the template `terminals.receipts` is known for
//! one, whoever names it; a filter with a wildcard never is. Never: a guess at
//! which terminals exist.

use bytestring::ByteString;
use risiti_mqtt::TopicFilter;

/// The template, cut at its `{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptsTopics {
    before: Box<str>,
    behind: Box<str>,
}

impl ReceiptsTopics {
    /// From the template, which holds `{id}` once as a whole level (the
    /// configuration's reader saw to that).
    #[must_use]
    pub fn new(template: &str) -> Self {
        let (before, behind) = template.split_once("{id}").unwrap_or((template, ""));
        Self {
            before: before.into(),
            behind: behind.into(),
        }
    }

    /// The terminal that a topic, or a filter of one topic, names; none if it is
    /// no receipts topic. May be empty: then it is nobody's, but still one.
    #[must_use]
    pub fn terminal<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let id = topic
            .strip_prefix(&*self.before)?
            .strip_suffix(&*self.behind)?;
        (!id.contains(['/', '+', '#'])).then_some(id)
    }

    /// Whether a SUBSCRIBE with this filter is to the client's own receipts, and to
    /// nothing else (G9).
    #[must_use]
    pub fn is_own(&self, filter: &TopicFilter, client_id: &str) -> bool {
        filter.share.is_none() && self.terminal(&filter.filter) == Some(client_id)
    }

    /// The topic of a terminal.
    #[must_use]
    pub fn of(&self, terminal: &str) -> ByteString {
        [&*self.before, terminal, &*self.behind].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_names_its_terminal_and_a_wildcard_names_nobody() {
        let topics = ReceiptsTopics::new("t/{id}/receipts");
        for (topic, terminal) in [
            ("t/17/receipts", Some("17")),
            ("t//receipts", Some("")),
            ("t/a/b/receipts", None),
            ("t/+/receipts", None),
            ("t/#", None),
            ("#", None),
            ("t/17/receipts/x", None),
            ("t/17/receipt", None),
            ("x/17/receipts", None),
            ("t/receipts", None),
        ] {
            assert_eq!(topics.terminal(topic), terminal, "{topic}");
        }
        assert_eq!(&*topics.of("17"), "t/17/receipts");
    }

    #[test]
    fn the_id_may_stand_first_or_last() {
        assert_eq!(
            ReceiptsTopics::new("{id}/down").terminal("7/down"),
            Some("7")
        );
        assert_eq!(
            ReceiptsTopics::new("down/{id}").terminal("down/7"),
            Some("7")
        );
        assert_eq!(ReceiptsTopics::new("{id}").terminal("7"), Some("7"));
    }

    /// G9: a terminal reads its own receipts; neither another's, nor in a group.
    #[test]
    fn a_subscription_is_to_the_clients_own_receipts_or_to_nobodys() {
        let topics = ReceiptsTopics::new("t/{id}/receipts");
        let is_own = |filter: &str, client_id| {
            let filter = TopicFilter::parse(filter.into(), true).unwrap();
            topics.is_own(&filter, client_id)
        };
        assert!(is_own("t/17/receipts", "17"));
        assert!(!is_own("t/17/receipts", "18"));
        assert!(!is_own("$share/g/t/17/receipts", "17"));
        assert!(!is_own("t/+/receipts", "17"));
        assert!(!is_own("t/17/other", "17"));
    }
}
