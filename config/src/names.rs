//! The rules for names, addresses and words with an inner form.
//!
//! Promises: each rule gives the reason when it refuses. Never: a name that
//! Kafka or MQTT would refuse later, when records already wait.

use crate::document::{Node, Value};
use crate::filter::{validate_filter, validate_topic};
use crate::kind::{Kind, List, Refusal, Text};
use crate::limits;
use crate::model::{Bootstrap, Key};
use crate::section::nearest;

fn of(text: &str, length_max: usize, allowed: fn(char) -> bool) -> Result<(), String> {
    let fits = !text.is_empty() && text.len() <= length_max && text.chars().all(allowed);
    if fits { Ok(()) } else { Err(String::new()) }
}

/// `gateway.id`.
pub const GATEWAY_ID: Text = Text {
    expected: "1 to 64 of a-z, 0-9 and -",
    remedy: "write a name of its own for each gateway, for example \"gw-kisumu-1\"",
    rule: |text| {
        of(text, 64, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
        })
    },
};

/// `settlement.instance`.
pub const INSTANCE: Text = Text {
    expected: "1 to 64 of a-z, 0-9 and -",
    remedy: "write a name of its own for each instance, for example \"settlement-2\"",
    rule: GATEWAY_ID.rule,
};

/// The name of a route or a cluster.
pub const NAME: Text = Text {
    expected: "1 to 64 of a-z, 0-9, _ and -",
    remedy: "write a short name, for example \"meters\"",
    rule: |text| {
        of(text, 64, |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
        })
    },
};

/// A Kafka topic.
pub const KAFKA_TOPIC: Text = Text {
    expected: "a Kafka topic: 1 to 249 of A-Z, a-z, 0-9, ., _ and -",
    remedy: "write a name such as \"risiti.records\"; a slash of MQTT becomes a dot",
    rule: |text| {
        if text == "." || text == ".." {
            return Err("Kafka forbids this name".into());
        }
        of(text, limits::KAFKA_TOPIC_BYTES_MAX, |c| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
        })
    },
};

/// An MQTT topic filter.
pub const FILTER: Text = Text {
    expected: "an MQTT topic filter",
    remedy: "`+` stands for one whole level and `#`, at the end, for all that follow: \"meters/+/reading\", \"meters/#\"",
    rule: |text| validate_filter(text).map_err(|error| error.to_string()),
};

/// A topic template of `[terminals]`.
pub const TEMPLATE: Text = Text {
    expected: "an MQTT topic with {id} as one whole level",
    remedy: "write it like \"t/{id}/records\"; {id} stands for the terminal's id",
    rule: |text| {
        validate_topic(text).map_err(|error| error.to_string())?;
        if text.starts_with('$') {
            return Err("it begins with $, which MQTT keeps for brokers".into());
        }
        if text.matches("{id}").count() != 1 || !text.split('/').any(|level| level == "{id}") {
            return Err("{id} does not stand once and alone in a level".into());
        }
        if text.replace("{id}", "").contains(['{', '}']) {
            return Err("it holds a brace that is not part of {id}".into());
        }
        Ok(())
    },
};

/// A user name.
pub const USERNAME: Text = Text {
    expected: "a user name",
    remedy: "write the user that the cluster knows, for example \"gw-1\"",
    rule: |text| of(text, 256, |c| !c.is_control()),
};

const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `log.level`. A bare word that is no level would be taken for a module's
/// name, which turns the log off instead of failing; so it is refused.
pub const LOG_LEVEL: Text = Text {
    expected: "log levels",
    remedy: "write off, error, warn, info, debug or trace, and module=level after a comma: \"info,risiti_mqtt=debug\"",
    rule: |text| {
        let is_level = |word: &str| LOG_LEVELS.contains(&word.to_ascii_lowercase().as_str());
        for directive in text.split(',') {
            let level = match directive.trim().rsplit_once('=') {
                Some((target, level))
                    if !target.is_empty() && !target.contains(char::is_whitespace) =>
                {
                    level
                }
                Some(_) => return Err(format!("{directive:?} names no module")),
                None => directive.trim(),
            };
            if !is_level(level) {
                let hint = nearest(level, LOG_LEVELS.into_iter())
                    .map_or(String::new(), |near| format!(" (did you mean {near}?)"));
                return Err(format!("{level:?} is no level{hint}"));
            }
        }
        Ok(())
    },
};

/// `bootstrap` of a cluster.
pub struct BootstrapKind;

impl Kind for BootstrapKind {
    type Value = Bootstrap;

    fn expected(&self) -> String {
        "\"embedded\", or host:port of one or several Kafka brokers".into()
    }

    fn remedy(&self) -> String {
        "write bootstrap = \"kafka-1.example:9092,kafka-2.example:9092\", or \"embedded\" to try things out".into()
    }

    fn read(&self, node: &Node) -> Result<Bootstrap, Refusal> {
        let servers: Vec<String> = match node.value() {
            Value::List(items) => {
                let texts = items
                    .iter()
                    .map(|item| item.text().map(|text| text.trim().to_owned()));
                texts
                    .collect::<Option<_>>()
                    .ok_or_else(|| self.refuse_because(node, "not every item is a text"))?
            }
            _ => {
                let text = node.text().ok_or_else(|| self.refuse(node))?;
                if text == "embedded" {
                    return Ok(Bootstrap::Embedded);
                }
                text.split(',')
                    .map(|server| server.trim().to_owned())
                    .collect()
            }
        };
        if servers.is_empty() || servers.len() > limits::BOOTSTRAP_SERVERS_MAX {
            return Err(self.refuse_because(
                node,
                &format!("not 1 to {} addresses", limits::BOOTSTRAP_SERVERS_MAX),
            ));
        }
        match servers.iter().find(|server| !is_host_and_port(server)) {
            Some(server) => Err(self.refuse_because(node, &format!("{server:?} is not host:port"))),
            None => Ok(Bootstrap::Servers(servers)),
        }
    }

    fn write(&self, value: &Bootstrap) -> String {
        format!(
            "\"{}\"",
            value.servers().unwrap_or_else(|| "embedded".into())
        )
    }
}

fn is_host_and_port(server: &str) -> bool {
    let Some((host, port)) = server.rsplit_once(':') else {
        return false;
    };
    let name = |host: &str| {
        !host.is_empty()
            && host.len() <= 253
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let host_valid = match host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name(host),
    };
    host_valid
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `admin.hosts`.
pub const HOST_NAMES: List<Text> = List {
    item: Text {
        expected: "host names",
        remedy: "write each without a port",
        rule: |text| {
            of(text, 253, |c| {
                c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
            })
        },
    },
    count: 0..=limits::HOST_NAMES_MAX,
    remedy: "write the names by which browsers and scrapers reach the port, without it: [\"gw-1.example.org\"]",
};

/// `key` of a route.
pub struct KeyKind;

impl Kind for KeyKind {
    type Value = Key;

    fn expected(&self) -> String {
        "\"terminal\", \"client_id\", \"topic\" or \"level:N\"".into()
    }

    fn remedy(&self) -> String {
        "write what the Kafka key is made of; \"level:2\" takes the second level of the MQTT topic"
            .into()
    }

    fn read(&self, node: &Node) -> Result<Key, Refusal> {
        match node.text() {
            Some("terminal") => Ok(Key::Terminal),
            Some("client_id") => Ok(Key::ClientId),
            Some("topic") => Ok(Key::Topic),
            Some(text) => {
                let level = text
                    .strip_prefix("level:")
                    .and_then(|level| level.parse().ok())
                    .filter(|level| *level > 0);
                level.map(Key::Level).ok_or_else(|| self.refuse(node))
            }
            None => Err(self.refuse(node)),
        }
    }

    fn write(&self, value: &Key) -> String {
        format!("\"{value}\"")
    }
}
