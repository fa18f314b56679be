//! `[[routes]]`: which MQTT topics go to which Kafka topic.
//!
//! Promises: a route names a cluster that exists, a valid filter and a valid
//! topic. Never: matching; that is the bridge's.

use std::fmt;

use super::{DEFAULT_CLUSTER, Terminals};

/// One of `[[routes]]`. The first route whose filter matches takes the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// A name for logs, metrics and dead letters, unique: `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// MQTT topic filter (MQTT-4.7).
    pub filter: String,
    /// Name of the cluster; `default` is `[kafka]`.
    pub cluster: String,
    /// Kafka topic.
    pub topic: String,
    /// What becomes the Kafka key, and so what is kept in order.
    pub key: Key,
    /// What the payload is.
    pub format: Format,
}

impl Route {
    /// The route that stands when the file has none: terminals' records to
    /// `risiti.records`.
    #[must_use]
    pub fn records(terminals: &Terminals) -> Self {
        Self {
            name: "records".into(),
            filter: terminals.records.replace("{id}", "+"),
            cluster: DEFAULT_CLUSTER.into(),
            topic: "risiti.records".into(),
            key: Key::Terminal,
            format: Format::Risiti,
        }
    }
}

/// `key` of a route: what becomes the Kafka key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `terminal`: the terminal id, from the level that `{id}` has in
    /// `terminals.records`; the route's filter has no `#` before it.
    Terminal,
    /// `client_id`: the MQTT client identifier.
    ClientId,
    /// `topic`: the whole MQTT topic.
    Topic,
    /// `level:N`: one level of the MQTT topic, the first is 1. Every topic that
    /// the filter matches has it.
    Level(u16),
}

/// `format` of a route: what the payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `risiti`: a record of the wire format; resends are recognised by
    /// (terminal, sequence).
    Risiti,
    /// `raw`: any bytes; resends are recognised by DUP, packet identifier and
    /// digest within the session.
    Raw,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminal => f.write_str("terminal"),
            Self::ClientId => f.write_str("client_id"),
            Self::Topic => f.write_str("topic"),
            Self::Level(level) => write!(f, "level:{level}"),
        }
    }
}
