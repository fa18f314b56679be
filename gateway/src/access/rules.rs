//! What each identity may publish and subscribe to.
//!
//! Promises: what no rule allows is refused; a subscription is allowed only if
//! every topic that it can ever match is, so that no wildcard and no share group
//! reaches further than the rules. Never: a clock, a session, or a rule that
//! depends on what exists.
//!
//! A terminal may, without any rule: publish its records and its status, subscribe
//! to its receipts. Rules add to that.

use std::collections::HashMap;

use bytestring::ByteString;
use risiti_config::{Access, Anonymous, Rule, Subject, Terminals};
use risiti_topics::covers_for;

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Who {
    /// The terminal of that id; its client identifier is the same.
    Terminal(ByteString),
    /// The user of that name, with any client identifier that is no terminal's.
    User(ByteString),
    /// It did not say, or nobody asked.
    #[default]
    Anonymous,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Terminal(id) => write!(f, "terminal {id}"),
            Self::User(name) => write!(f, "user {name}"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// What somebody wants to do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// PUBLISH, or have a will published.
    Publish,
    /// SUBSCRIBE, or be given a message.
    Subscribe,
}

/// A check that is left out, for the negative controls of G9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hole {
    /// Nobody is asked for a token.
    Login,
    /// Whoever has a token connects under any client identifier.
    ClientId,
    /// PUBLISH is not checked.
    Publish,
    /// Wills are not checked.
    Will,
    /// A filter is taken for a topic name: what matches is allowed.
    Wildcard,
    /// A shared subscription is not checked.
    Share,
    /// The id in a template stands for any.
    Id,
}

/// The topic filters of one subject, by verb.
#[derive(Debug, Clone, Default)]
struct Grants {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl Grants {
    fn add(&mut self, rule: &Rule) {
        if rule.publish {
            self.publish.push(rule.filter.clone());
        }
        if rule.subscribe {
            self.subscribe.push(rule.filter.clone());
        }
    }

    fn filters(&self, verb: Verb) -> &[String] {
        match verb {
            Verb::Publish => &self.publish,
            Verb::Subscribe => &self.subscribe,
        }
    }
}

/// All rules.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Whoever shows no identity may do everything.
    anonymous_is_free: bool,
    anonymous: Grants,
    terminals: Grants,
    users: HashMap<String, Grants>,
    hole: Option<Hole>,
}

impl Rules {
    /// Those of a configuration.
    #[must_use]
    pub fn new(access: &Access, terminals: &Terminals, hole: Option<Hole>) -> Self {
        let mut rules = Self {
            anonymous_is_free: access.anonymous == Anonymous::All,
            terminals: Grants {
                publish: vec![terminals.records.clone(), terminals.status.clone()],
                subscribe: vec![terminals.receipts.clone()],
            },
            hole,
            ..Self::default()
        };
        for rule in &access.rules {
            let grants = match &rule.who {
                Subject::Terminal => &mut rules.terminals,
                Subject::Anonymous => &mut rules.anonymous,
                Subject::User(name) => rules.users.entry(name.clone()).or_default(),
            };
            grants.add(rule);
        }
        rules
    }

    /// Whether it may do that with every topic that the filter matches; a topic
    /// name is a filter that matches itself.
    #[must_use]
    pub fn allows(&self, who: &Who, verb: Verb, filter: &str) -> bool {
        let (grants, id) = match who {
            Who::Anonymous if self.anonymous_is_free => return true,
            Who::Anonymous => (&self.anonymous, None),
            Who::Terminal(id) => (&self.terminals, Some(&**id)),
            Who::User(name) => match self.users.get(&**name) {
                Some(grants) => (grants, Some(&**name)),
                None => return false,
            },
        };
        let filters = grants.filters(verb);
        match self.hole {
            Some(Hole::Publish) if verb == Verb::Publish => true,
            Some(Hole::Wildcard) => filters.iter().any(|allowed| {
                let allowed = allowed.replace(risiti_topics::ID, id.unwrap_or_default());
                risiti_topics::filter_matches(&allowed, filter)
                    || risiti_topics::filter_matches(filter, &allowed)
            }),
            Some(Hole::Id) => filters
                .iter()
                .any(|allowed| covers_for(&allowed.replace(risiti_topics::ID, "+"), None, filter)),
            _ => filters
                .iter()
                .any(|allowed| covers_for(allowed, id, filter)),
        }
    }

    /// The check that is left out, if any.
    #[must_use]
    pub fn hole(&self) -> Option<Hole> {
        self.hole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(who: Subject, publish: bool, subscribe: bool, filter: &str) -> Rule {
        Rule {
            who,
            publish,
            subscribe,
            filter: filter.into(),
        }
    }

    fn rules(anonymous: Anonymous, rules: Vec<Rule>) -> Rules {
        let access = Access {
            anonymous,
            rules,
            ..Access::default()
        };
        Rules::new(&access, &Terminals::default(), None)
    }

    fn terminal(id: &'static str) -> Who {
        Who::Terminal(id.into())
    }

    #[test]
    fn g9_a_terminal_may_what_its_firmware_needs_and_nothing_else() {
        let r = rules(Anonymous::None, vec![]);
        let seven = terminal("7");
        for (verb, topic, allowed) in [
            (Verb::Publish, "t/7/records", true),
            (Verb::Publish, "t/7/status", true),
            (Verb::Subscribe, "t/7/receipts", true),
            (Verb::Publish, "t/7/receipts", false),
            (Verb::Subscribe, "t/7/records", false),
            (Verb::Subscribe, "t/7/status", false),
            (Verb::Publish, "t/8/records", false),
            (Verb::Subscribe, "t/8/receipts", false),
            (Verb::Subscribe, "t/+/receipts", false),
            (Verb::Subscribe, "t/7/+", false),
            (Verb::Subscribe, "t/7/#", false),
            (Verb::Subscribe, "#", false),
            (Verb::Publish, "x", false),
        ] {
            assert_eq!(r.allows(&seven, verb, topic), allowed, "{verb:?} {topic}");
        }
    }

    #[test]
    fn rules_add_to_what_their_subject_may_and_to_nobody_elses() {
        let r = rules(
            Anonymous::Rules,
            vec![
                rule(Subject::Terminal, false, true, "news/{id}/#"),
                rule(Subject::User("ops".into()), true, true, "cmd/{id}/+"),
                rule(Subject::Anonymous, true, false, "meters/+/reading"),
            ],
        );
        let ops = Who::User("ops".into());
        let other = Who::User("other".into());
        for (who, verb, filter, allowed) in [
            (&terminal("7"), Verb::Subscribe, "news/7/a/+", true),
            (&terminal("7"), Verb::Subscribe, "news/8/a", false),
            (&terminal("7"), Verb::Publish, "news/7/a", false),
            (&terminal("7"), Verb::Subscribe, "cmd/7/a", false),
            (&ops, Verb::Publish, "cmd/ops/x", true),
            (&ops, Verb::Subscribe, "cmd/ops/+", true),
            (&ops, Verb::Subscribe, "cmd/ops/#", false),
            (&ops, Verb::Subscribe, "cmd/+/x", false),
            (&ops, Verb::Publish, "t/7/records", false),
            (&other, Verb::Publish, "cmd/other/x", false),
            (&Who::Anonymous, Verb::Publish, "meters/7/reading", true),
            (&Who::Anonymous, Verb::Subscribe, "meters/7/reading", false),
            (&Who::Anonymous, Verb::Publish, "t/7/records", false),
        ] {
            assert_eq!(
                r.allows(who, verb, filter),
                allowed,
                "{who} {verb:?} {filter}"
            );
        }
    }

    #[test]
    fn who_shows_no_identity_is_free_only_where_that_is_said() {
        for (mode, allowed) in [
            (Anonymous::All, true),
            (Anonymous::Rules, false),
            (Anonymous::None, false),
        ] {
            let r = rules(mode, vec![]);
            assert_eq!(r.allows(&Who::Anonymous, Verb::Subscribe, "#"), allowed);
            assert!(!r.allows(&Who::User("x".into()), Verb::Publish, "a"));
            assert!(!r.allows(&terminal("7"), Verb::Publish, "a"));
        }
    }
}
