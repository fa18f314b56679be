//! Which record goes where: MQTT topic filters, compiled.
//!
//! Promises: the first route that matches wins; a table that is reloaded while
//! records wait applies from a position on, so that each record is judged by the
//! same table in every forwarder and none falls between two clusters. Never: a
//! filter or topic checked here (the configuration's reader did that).

use std::sync::Arc;

use parking_lot::RwLock;
use risiti_config::{Format, Key, Route, Terminals};
use risiti_store::Position;

use crate::limits;

/// A route, ready to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// As configured.
    pub route: Route,
    levels: Vec<Level>,
    /// Index of the level that is the terminal's id.
    terminal_level: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Name(Box<str>),
    One,
    Rest,
}

impl Compiled {
    fn new(route: &Route, terminal_level: usize) -> Self {
        let levels = route
            .filter
            .split('/')
            .map(|level| match level {
                "+" => Level::One,
                "#" => Level::Rest,
                name => Level::Name(name.into()),
            })
            .collect();
        Self {
            route: route.clone(),
            levels,
            terminal_level,
        }
    }

    /// Whether the filter matches this topic name (MQTT-4.7.1, MQTT-4.7.2).
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        // MQTT-4.7.2-1: a leading wildcard never matches a `$` topic.
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Name(_))) {
            return false;
        }
        let mut topic_levels = topic.split('/');
        for level in &self.levels {
            match level {
                // `#` also matches the parent level itself (MQTT-4.7.1.2).
                Level::Rest => return true,
                Level::One if topic_levels.next().is_none() => return false,
                Level::Name(name) if topic_levels.next() != Some(name) => return false,
                Level::One | Level::Name(_) => {}
            }
        }
        topic_levels.next().is_none()
    }

    /// The Kafka key of a record; none if the topic lacks that level.
    #[must_use]
    pub fn key<'a>(&self, topic: &'a str, client_id: &'a [u8]) -> Option<&'a [u8]> {
        match self.route.key {
            Key::Terminal => self.terminal(topic).map(str::as_bytes),
            Key::ClientId => Some(client_id),
            Key::Topic => Some(topic.as_bytes()),
            Key::Level(number) => topic
                .split('/')
                .nth(usize::from(number).saturating_sub(1))
                .map(str::as_bytes),
        }
    }

    /// The terminal's id, from the level that `{id}` has in the template.
    #[must_use]
    pub fn terminal<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.split('/').nth(self.terminal_level)
    }

    /// Whether the payload is a record of the wire format.
    #[must_use]
    pub fn is_risiti(&self) -> bool {
        self.route.format == Format::Risiti
    }
}

/// A routing table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    routes: Vec<Arc<Compiled>>,
}

impl Routes {
    /// Compiles the configuration's routes.
    #[must_use]
    pub fn new(routes: &[Route], terminals: &Terminals) -> Self {
        let terminal_level = terminals
            .records
            .split('/')
            .position(|level| level == "{id}")
            .unwrap_or(0);
        Self {
            routes: routes
                .iter()
                .map(|route| Arc::new(Compiled::new(route, terminal_level)))
                .collect(),
        }
    }

    /// The first route whose filter matches.
    #[must_use]
    pub fn find(&self, topic: &str) -> Option<&Arc<Compiled>> {
        self.routes.iter().find(|route| route.matches(topic))
    }

    /// The Kafka topics that a cluster's routes name, each once.
    #[must_use]
    pub fn topics(&self, cluster: &str) -> Vec<String> {
        let mut topics: Vec<String> = self
            .routes
            .iter()
            .filter(|route| route.route.cluster == cluster)
            .map(|route| route.route.topic.clone())
            .collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }
}

/// A table and the position from which it applies.
type Epoch = (Position, Arc<Routes>);

/// The routing tables in force, each from a position on.
///
/// A record that was accepted under one table is forwarded under that table even
/// if it is read after a reload: otherwise a route that moves from one cluster to
/// another would lose what one forwarder has passed and the other has not.
/// A restart knows only the newest table: drain the journal before a route that
/// already carries records is moved to another cluster by a restart.
#[derive(Debug)]
pub struct SharedRoutes {
    epochs: RwLock<Arc<Vec<Epoch>>>,
}

impl SharedRoutes {
    /// This table, for every position.
    #[must_use]
    pub fn new(routes: Routes) -> Self {
        Self {
            epochs: RwLock::new(Arc::new(vec![(0, Arc::new(routes))])),
        }
    }

    /// Puts a table in force from a position on: the journal's end at the time.
    pub fn replace(&self, routes: Routes, from: Position) {
        let mut epochs = self.epochs.write();
        let mut next: Vec<_> = epochs
            .iter()
            .filter(|(at, _)| *at < from)
            .cloned()
            .collect();
        next.push((from, Arc::new(routes)));
        if next.len() > limits::ROUTE_EPOCHS_MAX {
            next.remove(1);
        }
        *epochs = Arc::new(next);
    }

    /// The table for a position, and the position at which the next one begins.
    #[must_use]
    pub fn at(&self, position: Position) -> (Arc<Routes>, Option<Position>) {
        let epochs = Arc::clone(&self.epochs.read());
        let index = epochs
            .partition_point(|(from, _)| *from <= position)
            .saturating_sub(1);
        (
            Arc::clone(&epochs[index].1),
            epochs.get(index + 1).map(|(from, _)| *from),
        )
    }

    /// The newest table.
    #[must_use]
    pub fn newest(&self) -> Arc<Routes> {
        self.at(Position::MAX).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(filter: &str, key: Key) -> Route {
        Route {
            filter: filter.into(),
            key,
            ..Route::records(&Terminals::default())
        }
    }

    fn compiled(filter: &str, key: Key) -> Compiled {
        Compiled::new(&route(filter, key), 1)
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, matches) in [
            ("t/+/records", "t/17/records", true),
            ("t/+/records", "t/17/status", false),
            ("t/+/records", "t/records", false),
            ("t/+/records", "t/17/records/x", false),
            ("sport/#", "sport", true),
            ("sport/#", "sport/", true),
            ("sport/#", "sport/a/b", true),
            ("sport/#", "sports", false),
            ("sport/+", "sport/", true),
            ("sport/+", "sport", false),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
        ] {
            assert_eq!(
                compiled(filter, Key::Topic).matches(topic),
                matches,
                "{filter} {topic}"
            );
        }
    }

    #[test]
    fn the_key_is_what_the_route_says() {
        for (key, expected) in [
            (Key::Terminal, Some(&b"17"[..])),
            (Key::ClientId, Some(b"client")),
            (Key::Topic, Some(b"t/17/records")),
            (Key::Level(3), Some(b"records")),
            (Key::Level(4), None),
        ] {
            let route = compiled("t/+/records", key);
            assert_eq!(route.key("t/17/records", b"client"), expected);
        }
    }

    #[test]
    fn the_first_route_that_matches_wins() {
        let mut second = route("#", Key::Topic);
        second.name = "all".into();
        let routes = Routes::new(
            &[route("t/+/records", Key::Terminal), second],
            &Terminals::default(),
        );
        let name = |topic| routes.find(topic).map(|found| found.route.name.clone());
        assert_eq!(name("t/1/records").as_deref(), Some("records"));
        assert_eq!(name("x").as_deref(), Some("all"));
        assert_eq!(name("$SYS/x"), None);
    }

    #[test]
    fn a_reloaded_table_applies_from_its_position_on() {
        let table = |filter| Routes::new(&[route(filter, Key::Topic)], &Terminals::default());
        let shared = SharedRoutes::new(table("a"));
        shared.replace(table("b"), 10);
        shared.replace(table("c"), 20);
        let found = |position, topic| {
            let (routes, until) = shared.at(position);
            (routes.find(topic).is_some(), until)
        };
        assert_eq!(found(9, "a"), (true, Some(10)));
        assert_eq!(found(10, "b"), (true, Some(20)));
        assert_eq!(found(19, "a"), (false, Some(20)));
        assert_eq!(found(20, "c"), (true, None));
    }

    #[test]
    fn reloads_without_end_stay_bounded() {
        let shared = SharedRoutes::new(Routes::default());
        for position in 1..1000 {
            shared.replace(Routes::default(), position);
        }
        assert!(shared.epochs.read().len() <= limits::ROUTE_EPOCHS_MAX);
    }
}
