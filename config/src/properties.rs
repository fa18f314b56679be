//! Raw librdkafka options of a cluster, and those that are not free.
//!
//! Promises: an option that a guarantee rests on, that has a key of its own, or
//! that holds a secret is refused with the reason. Never: the value of one in
//! an error.

use std::collections::BTreeMap;

use crate::document::Value;
use crate::kind::Refusal;
use crate::limits::PROPERTIES_MAX;
use crate::section::Section;

/// Options that are refused, and why. A name that ends in `*` stands for all
/// that begin so.
const RESERVED: &[(&str, &str)] = &[
    (
        "enable.idempotence",
        "the gateway sets it: without it a retry duplicates and reorders records",
    ),
    (
        "enable.gapless.guarantee",
        "the gateway sets it: order rests on it",
    ),
    (
        "acks",
        "the gateway sets it to all: a record is forwarded only once every replica has it",
    ),
    (
        "request.required.acks",
        "the gateway sets it to all: a record is forwarded only once every replica has it",
    ),
    ("max.in.flight*", "the gateway sets it: order rests on it"),
    ("retries", "the gateway sets it: a record is never given up"),
    (
        "message.send.max.retries",
        "the gateway sets it: a record is never given up",
    ),
    (
        "message.timeout.ms",
        "the gateway sets it: a timeout leaves a gap in the order",
    ),
    (
        "delivery.timeout.ms",
        "the gateway sets it: a timeout leaves a gap in the order",
    ),
    (
        "transactional.id",
        "the gateway makes it from gateway.id: it fences a former self",
    ),
    (
        "transaction.timeout.ms",
        "set transaction_timeout_ms of the cluster instead",
    ),
    (
        "partitioner*",
        "the gateway sets it to Java's, so that all writers agree where a key is",
    ),
    (
        "isolation.level",
        "the gateway sets it: it reads committed positions only",
    ),
    (
        "enable.auto.commit",
        "the gateway sets it: its own store holds the offsets",
    ),
    (
        "enable.auto.offset.store",
        "the gateway sets it: its own store holds the offsets",
    ),
    (
        "auto.offset.reset",
        "the gateway sets it: a lost offset must be seen",
    ),
    ("group.id", "the gateway sets it"),
    ("bootstrap.servers", "set bootstrap of the cluster instead"),
    (
        "metadata.broker.list",
        "set bootstrap of the cluster instead",
    ),
    ("compression.*", "set compression of the cluster instead"),
    (
        "security.protocol",
        "set security.protocol of the cluster instead",
    ),
    (
        "sasl.*",
        "set security.mechanism, username and password_file of the cluster instead",
    ),
    ("ssl.ca.*", "set security.ca_file of the cluster instead"),
    (
        "ssl.certificate.*",
        "set security.certificate_file of the cluster instead",
    ),
    (
        "ssl.key.*",
        "set security.key_file and key_password_file of the cluster instead",
    ),
    (
        "ssl.keystore.*",
        "set security.certificate_file and key_file of the cluster instead",
    ),
    (
        "plugin.library.paths",
        "it would load foreign code into the gateway",
    ),
];

/// Reads `properties` of a cluster.
pub fn read_properties(cluster: &Section<'_>) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let entries = cluster.entries("properties");
    if entries.len() > PROPERTIES_MAX {
        let expected = format!("at most {PROPERTIES_MAX} options");
        cluster.refuse(
            "properties",
            Refusal::new(
                &expected,
                &entries.len().to_string(),
                "keep only those that differ from librdkafka's defaults",
            ),
        );
        return properties;
    }
    for (name, node) in entries {
        let key = format!("{}.\"{name}\"", cluster.path_of("properties"));
        let value = match node.value() {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Boolean(value) => Some(value.to_string()),
            _ => None,
        };
        let refusal = if let Some(reason) = reserved(name) {
            Refusal::new(
                "an option that is free to set",
                &format!("`{name}`, which is not: {reason}"),
                &remedy(reason),
            )
        } else if let Some(value) = value {
            properties.insert(name.to_owned(), value);
            continue;
        } else {
            let remedy = "write the value in quotes, and an option with dots in quotes too: \"socket.timeout.ms\" = \"60000\"";
            Refusal::new(
                "a text, a number, true or false",
                "another kind of value",
                remedy,
            )
        };
        cluster.report().refuse(&node.key_origin, &key, refusal);
    }
    properties
}

fn reserved(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("topic.").unwrap_or(name);
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    RESERVED
        .iter()
        .find(|(pattern, _)| matches(pattern))
        .map(|(_, reason)| *reason)
}

fn remedy(reason: &str) -> String {
    match reason.split_once("set ") {
        Some(("", _)) => reason.to_owned(),
        _ => "remove it".into(),
    }
}
