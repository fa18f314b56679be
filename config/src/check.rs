//! The rules between keys.
//!
//! Promises: an error points at the key to change, even if the other one is at
//! fault too. Never: a rule about one key alone; those stand with its kind.

use crate::ByteSize;
use crate::access::check_access;
use crate::document::Table;
use crate::filter::{covers, levels_certain};
use crate::kind::Refusal;
use crate::listeners::{check_listeners, check_reach};
use crate::model::{Bootstrap, Cluster, Config, Format, Key, Receipts, Route, Store};
use crate::section::{Report, Section, nearest};

/// Checks what was read.
pub fn check(report: &Report, document: &Table, config: &Config) {
    let root = Section::root(report, document);
    check_reach(
        &root.section("mqtt"),
        config.mqtt.listen,
        config.mqtt.insecure,
        "every MQTT client sends its payments in clear",
    );
    check_reach(
        &root.section("admin"),
        config.admin.listen,
        config.admin.insecure,
        "the admin port is plain HTTP: whoever is on the way reads its tokens",
    );
    check_listeners(&root, config);
    check_access(&root.section("access"), config);
    check_settlement(&root.section("settlement"), config);
    check_sizes(&root, config);
    check_store(
        &root.section("store"),
        &config.store,
        config.trace.bytes_max,
    );
    check_cluster(&root.section("kafka"), &config.kafka, config);
    for (name, section) in root.sections("clusters") {
        if let Some(cluster) = config.clusters.get(name) {
            check_cluster(&section, cluster, config);
        }
    }
    check_receipts(&root.section("receipts"), &config.receipts, config);
    let routes = root.list("routes");
    for (index, section) in routes.iter().enumerate() {
        // Lists differ in length only when there are too many routes.
        if let Some(route) = config.routes.get(index) {
            check_route(section, route, &config.routes[..index], config);
        }
    }
}

fn check_at_least(section: &Section<'_>, key: &str, value: ByteSize, least: ByteSize, of: &str) {
    if value < least {
        let remedy = format!("raise it to {least}, or lower {of}");
        section.refuse(
            key,
            Refusal::new(
                &format!("at least {least}, for {of}"),
                &value.to_string(),
                &remedy,
            ),
        );
    }
}

fn check_sizes(root: &Section<'_>, config: &Config) {
    let limits = &config.mqtt.limits;
    let mqtt = root.section("mqtt");
    let packet = limits.packet_bytes_max;
    check_at_least(
        &mqtt,
        "queued_bytes_per_session_max",
        limits.queued_bytes_per_session_max,
        packet,
        "one packet of mqtt.packet_bytes_max",
    );
    check_at_least(
        &mqtt,
        "ungated_bytes_max",
        limits.ungated_bytes_max,
        packet,
        "one packet of mqtt.packet_bytes_max",
    );
    if limits.sessions_max < limits.connections_max {
        let expected = format!(
            "at least {}, for as many sessions as mqtt.connections_max",
            limits.connections_max
        );
        let remedy = "raise it, or lower connections_max";
        mqtt.refuse(
            "sessions_max",
            Refusal::new(&expected, &limits.sessions_max.to_string(), remedy),
        );
    }
}

fn check_store(section: &Section<'_>, store: &Store, trace_bytes: ByteSize) {
    let parts = [
        store.receipts_reserve_bytes,
        store.ballast_bytes,
        store.keep_forwarded_bytes,
        store.generation_bytes,
        store.generation_bytes,
        trace_bytes,
    ];
    let least = ByteSize::new(parts.iter().map(|part| part.bytes()).sum());
    let of = "receipts_reserve_bytes, ballast_bytes, keep_forwarded_bytes, trace.bytes_max and two generations of generation_bytes";
    check_at_least(section, "budget_bytes", store.budget_bytes, least, of);
}

fn check_settlement(section: &Section<'_>, config: &Config) {
    let settlement = &config.settlement;
    if let Some(listen) = settlement.listen
        && !listen.ip().is_loopback()
    {
        let remedy = format!("listen on 127.0.0.1:{}", listen.port());
        let found = format!("{listen}, which others on the network can reach");
        section.refuse(
            "listen",
            Refusal::new("a loopback address", &found, &remedy),
        );
    }
    if settlement.sealing.is_some() && settlement.root_file.is_none() {
        section.refuse(
            "sealing",
            Refusal::new(
                "a root to open seals with",
                "no settlement.root_file",
                "make one with risiti site new-root and name it in root_file, or remove this key",
            ),
        );
    }
    check_known_cluster(section, &settlement.cluster, config);
    let topics = [
        ("records_topic", &settlement.records_topic),
        ("receipts_topic", &settlement.receipts_topic),
        ("transactions_topic", &settlement.transactions_topic),
        ("rejected_topic", &settlement.rejected_topic),
        ("changelog_topic", &settlement.changelog_topic),
    ];
    for (index, (key, topic)) in topics.iter().enumerate() {
        if topics[..index].iter().any(|(_, other)| other == topic) {
            section.refuse(
                key,
                Refusal::new(
                    "a topic of its own",
                    &format!("{topic:?}, which has another use here"),
                    "give each of the five a topic of its own",
                ),
            );
        }
    }
}

fn check_cluster(section: &Section<'_>, cluster: &Cluster, config: &Config) {
    let packet = config.mqtt.limits.packet_bytes_max;
    check_at_least(
        section,
        "batch_bytes_max",
        cluster.batch_bytes_max,
        packet,
        "one packet of mqtt.packet_bytes_max",
    );
    let security = &cluster.security;
    let inner = section.section("security");
    let protocol = security.protocol;
    if cluster.bootstrap == Bootstrap::Embedded && protocol != crate::Protocol::Plaintext {
        let remedy = "remove [security], or give the address of a real cluster as bootstrap";
        inner.refuse(
            "protocol",
            Refusal::new(
                "\"plaintext\" with the embedded cluster",
                &format!("\"{protocol}\""),
                remedy,
            ),
        );
    }
    for (key, set, needed_by) in [
        ("username", security.username.is_some(), protocol.has_sasl()),
        (
            "password_file",
            security.password.is_some(),
            protocol.has_sasl(),
        ),
    ] {
        if needed_by && !set && !inner.has(key) {
            inner.refuse(
                key,
                Refusal::new(
                    &format!("a value, since protocol is \"{protocol}\""),
                    "nothing",
                    &format!("add {key} = \"…\""),
                ),
            );
        }
        if inner.has(key) && !needed_by {
            let remedy = "set protocol = \"sasl_ssl\", or remove it";
            inner.refuse(
                key,
                Refusal::new(
                    &format!("no such key, since protocol is \"{protocol}\""),
                    "a value that would not be used",
                    remedy,
                ),
            );
        }
    }
    for key in [
        "ca_file",
        "certificate_file",
        "key_file",
        "key_password_file",
    ] {
        if inner.has(key) && !protocol.has_tls() {
            let remedy = "set protocol = \"ssl\" or \"sasl_ssl\", or remove it";
            inner.refuse(
                key,
                Refusal::new(
                    &format!("no such key, since protocol is \"{protocol}\""),
                    "a value that would not be used",
                    remedy,
                ),
            );
        }
    }
    for (key, other) in [
        ("certificate_file", "key_file"),
        ("key_file", "certificate_file"),
        ("key_password_file", "key_file"),
    ] {
        if inner.has(key) && !inner.has(other) {
            inner.refuse(
                key,
                Refusal::new(
                    &format!("{other} beside it"),
                    "nothing",
                    &format!("add {other} = \"…\", or remove {key}"),
                ),
            );
        }
    }
}

fn check_known_cluster(section: &Section<'_>, cluster: &str, config: &Config) {
    if config.cluster(cluster).is_some() {
        return;
    }
    let known: Vec<&str> = config.all_clusters().map(|(name, _)| name).collect();
    let remedy = match nearest(cluster, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!(
            "add [clusters.{cluster}] with its bootstrap, or use one of: {}",
            known.join(", ")
        ),
    };
    section.refuse(
        "cluster",
        Refusal::new(
            "the name of a cluster",
            &format!("{cluster:?}, which is none"),
            &remedy,
        ),
    );
}

fn check_receipts(section: &Section<'_>, receipts: &Receipts, config: &Config) {
    if !receipts.enabled {
        return;
    }
    check_known_cluster(section, &receipts.cluster, config);
    let positions = config
        .cluster(&receipts.cluster)
        .map(|cluster| &cluster.positions_topic);
    let writes = |topic: &str| {
        config
            .routes
            .iter()
            .any(|route| route.cluster == receipts.cluster && route.topic == topic)
    };
    if writes(&receipts.topic)
        || positions == Some(&receipts.topic)
        || receipts.topic == receipts.deliveries_topic
    {
        section.refuse(
            "topic",
            Refusal::new(
                "a topic that holds receipts only",
                &format!("{:?}, which this gateway itself writes to", receipts.topic),
                "give receipts, deliveries, positions and each route a Kafka topic of their own",
            ),
        );
    }
    if writes(&receipts.deliveries_topic) || positions == Some(&receipts.deliveries_topic) {
        section.refuse(
            "deliveries_topic",
            Refusal::new(
                "a topic that holds delivery events only",
                &format!("{:?}, which has another use", receipts.deliveries_topic),
                "give receipts, deliveries, positions and each route a Kafka topic of their own",
            ),
        );
    }
}

fn check_route(section: &Section<'_>, route: &Route, before: &[Route], config: &Config) {
    if !route.name.is_empty() && before.iter().any(|other| other.name == route.name) {
        section.refuse(
            "name",
            Refusal::new(
                "a name that no other route has",
                &format!("{:?} again", route.name),
                "give each route a name of its own",
            ),
        );
    }
    check_known_cluster(section, &route.cluster, config);
    if route.filter.is_empty() {
        return; // refused already
    }
    let records = config.terminals.records.replace("{id}", "+");
    let status = config.terminals.status.replace("{id}", "+");
    let of_records = covers(&records, &route.filter);
    match route.key {
        Key::Terminal if !of_records && !covers(&status, &route.filter) => {
            let found = format!(
                "\"terminal\" with the filter {:?}, which matches topics of no terminal",
                route.filter
            );
            let remedy = "set key = \"client_id\", \"topic\" or \"level:N\"";
            section.refuse(
                "key",
                Refusal::new("a key that every such topic has", &found, remedy),
            );
        }
        Key::Level(level) if usize::from(level) > levels_certain(&route.filter) => {
            let certain = levels_certain(&route.filter);
            let found = format!(
                "\"level:{level}\" with the filter {:?}, which promises {certain}",
                route.filter
            );
            section.refuse(
                "key",
                Refusal::new(
                    "a level that every such topic has",
                    &found,
                    "choose a level before `#`, or key = \"topic\"",
                ),
            );
        }
        _ => {}
    }
    if route.format == Format::Risiti && !of_records {
        let found = format!(
            "\"risiti\" with the filter {:?}, which matches other topics than terminals.records",
            route.filter
        );
        section.refuse(
            "format",
            Refusal::new(
                "a format that the payload has",
                &found,
                "set format = \"raw\"",
            ),
        );
    }
}
