//! Which record goes where: the routes, and what they take from a topic.
//!
//! Promises: the first route that matches wins. Never: a filter or topic checked
//! here (the configuration's reader did that), or matched by rules of its own.

use std::sync::Arc;

use risiti_config::filter::filter_matches;
use risiti_config::{Config, Format, Key, Route, Terminals};

use crate::receipts::{DELIVERIES_ROUTE, deliveries_route};

/// A route, ready to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// As configured.
    pub route: Route,
    /// Index of the level that is the terminal's id.
    terminal_level: usize,
}

impl Compiled {
    fn new(route: &Route, terminal_level: usize) -> Self {
        Self {
            route: route.clone(),
            terminal_level,
        }
    }

    /// Whether the filter matches this topic name (MQTT-4.7.1, MQTT-4.7.2).
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        filter_matches(&self.route.filter, topic)
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

    /// Whether this is the route of delivery events, which no client takes.
    #[must_use]
    pub fn is_deliveries(&self) -> bool {
        self.route.name == DELIVERIES_ROUTE
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
    terminal_level: usize,
}

impl Routes {
    /// The table that a gateway with this configuration works by: the route of its
    /// delivery events, if it takes receipts, then the configured ones.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let receipts = &config.receipts;
        let deliveries = receipts.enabled.then(|| {
            let topic = &receipts.deliveries_topic;
            deliveries_route(&config.terminals, &receipts.cluster, topic)
        });
        let routes: Vec<Route> = deliveries
            .into_iter()
            .chain(config.routes.iter().cloned())
            .collect();
        Self::new(&routes, &config.terminals)
    }

    /// Compiles the configuration's routes.
    #[must_use]
    pub fn new(routes: &[Route], terminals: &Terminals) -> Self {
        let terminal_level = terminals
            .records
            .split('/')
            .position(|level| level == "{id}")
            .unwrap_or(0);
        Self::at_level(routes, terminal_level)
    }

    /// Compiles routes of which the terminal's level is known.
    pub(crate) fn at_level(routes: &[Route], terminal_level: usize) -> Self {
        Self {
            terminal_level,
            routes: routes
                .iter()
                .map(|route| Arc::new(Compiled::new(route, terminal_level)))
                .collect(),
        }
    }

    /// Index of the topic level that is the terminal's id.
    pub(crate) fn terminal_level(&self) -> usize {
        self.terminal_level
    }

    /// The routes as configured, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().map(|compiled| &compiled.route)
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
    fn delivery_events_go_before_what_is_configured() {
        let mut config = Config::new(risiti_config::Bootstrap::Embedded);
        config.terminals.receipts = "down/x/{id}".into();
        config.routes[0].filter = "#".into();
        let routes = Routes::of(&config);
        let found = routes.find("down/x/t1").unwrap();
        assert!(found.is_deliveries());
        assert_eq!(found.route.topic, "risiti.deliveries");
        assert_eq!(found.key("down/x/t1", b""), Some(&b"t1"[..]));
        assert!(!routes.find("t/t1/records").unwrap().is_deliveries());
        config.receipts.enabled = false;
        assert!(
            !Routes::of(&config)
                .find("down/x/t1")
                .unwrap()
                .is_deliveries()
        );
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
    fn the_terminal_is_the_level_that_the_template_says() {
        let terminals = Terminals {
            records: "a/b/{id}/records".into(),
            ..Terminals::default()
        };
        let routes = Routes::new(&[route("#", Key::Terminal)], &terminals);
        assert_eq!(routes.terminal_level(), 2);
        let found = routes.find("a/b/t1/records").unwrap();
        assert_eq!(found.terminal("a/b/t1/records"), Some("t1"));
    }

    #[test]
    fn the_topics_of_a_cluster_are_named_once_each() {
        let to = |topic: &str, cluster: &str| Route {
            topic: topic.into(),
            cluster: cluster.into(),
            ..route("#", Key::Topic)
        };
        let routes = [to("b", "x"), to("a", "x"), to("c", "y"), to("b", "x")];
        let routes = Routes::new(&routes, &Terminals::default());
        assert_eq!(routes.topics("x"), ["a", "b"]);
        assert_eq!(routes.topics("y"), ["c"]);
        assert!(routes.topics("z").is_empty());
    }
}
