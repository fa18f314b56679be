//! The keys of the file: for each its kind, its range and its default.
//!
//! Promises: this is the only place that names a key, so what is read, what is
//! known and what is documented can't differ. Never: a default of its own; they
//! stand in `model`.

use std::collections::BTreeMap;

use crate::ByteSize;
use crate::access::{read_access, read_token};
use crate::document::Table;
use crate::kind::{Address, Boolean, FilePath, Refusal, Size, SizeOrOff, Whole, Word};
use crate::limits;
use crate::listeners::read_listeners;
use crate::model::{
    Admin, Bootstrap, Cluster, Config, DEFAULT_CLUSTER, Gateway, Log, Mqtt, MqttLimits, Receipts,
    Route, Security, Settlement, Store, Terminals, Trace,
};
use crate::names::{
    BootstrapKind, FILTER, GATEWAY_ID, HOST_NAMES, INSTANCE, KAFKA_TOPIC, KeyKind, LOG_LEVEL, NAME,
    TEMPLATE, USERNAME,
};
use crate::properties::read_properties;
use crate::secret_file::{read_key, read_readable_file, read_secret};
use crate::section::{Report, Section};

/// What a value that was refused is read as, so that reading goes on.
const REFUSED_BOOTSTRAP: Bootstrap = Bootstrap::Servers(Vec::new());

/// Reads a whole document. The result means something only if the report has
/// no errors.
pub fn read(report: &Report, document: &Table) -> Config {
    let root = Section::root(report, document);
    let gateway = read_gateway(&root.section("gateway"));
    let mqtt = read_mqtt(&root.section("mqtt"));
    let listeners = read_listeners(&root);
    let access = read_access(&root.section("access"));
    let terminals = read_terminals(&root.section("terminals"));
    let kafka = read_cluster(&root.section("kafka"));
    let clusters = read_clusters(&root);
    let store = read_store(&root.section("store"), &kafka.bootstrap);
    let routes = read_routes(&root, &terminals);
    let settlement = read_settlement(&root.section("settlement"));
    let trace = read_trace(&root.section("trace"), &store);
    let receipts = read_receipts(&root.section("receipts"));
    let admin = read_admin(&root.section("admin"));
    let log = read_log(&root.section("log"));
    root.finish();
    Config {
        gateway,
        mqtt,
        listeners,
        access,
        terminals,
        store,
        kafka,
        clusters,
        routes,
        settlement,
        trace,
        receipts,
        admin,
        log,
        load_warnings: Vec::new(),
    }
}

fn read_gateway(section: &Section<'_>) -> Gateway {
    let default = Gateway::default();
    let gateway = Gateway {
        id: section.read("id", default.id, &GATEWAY_ID),
        data_dir: section.read(
            "data_dir",
            default.data_dir,
            &FilePath {
                what: "a directory for the store",
            },
        ),
    };
    section.finish();
    gateway
}

fn read_mqtt(section: &Section<'_>) -> Mqtt {
    let default = Mqtt::default();
    let mqtt = Mqtt {
        listen: section.read(
            "listen",
            default.listen,
            &Address {
                example: "127.0.0.1:1883",
            },
        ),
        insecure: section.read("insecure", default.insecure, &Boolean),
        limits: read_mqtt_limits(section, default.limits),
    };
    section.finish();
    mqtt
}

fn read_mqtt_limits(section: &Section<'_>, default: MqttLimits) -> MqttLimits {
    let seconds = |max| Whole::new(1, max, "seconds");
    let count = |max| Whole::new(1_u32, max, "units");
    MqttLimits {
        packet_bytes_max: section.read(
            "packet_bytes_max",
            default.packet_bytes_max,
            &Size::new(ByteSize::kib(1), limits::PACKET_BYTES_MAX),
        ),
        connections_max: section.read(
            "connections_max",
            default.connections_max,
            &count(1_000_000),
        ),
        receive_maximum: section.read(
            "receive_maximum",
            default.receive_maximum,
            &Whole::new(1, u16::MAX, "messages"),
        ),
        topic_alias_maximum: section.read(
            "topic_alias_maximum",
            default.topic_alias_maximum,
            &Whole::new(0, 1_024, "aliases"),
        ),
        connect_timeout_s: section.read(
            "connect_timeout_s",
            default.connect_timeout_s,
            &seconds(300),
        ),
        write_timeout_s: section.read("write_timeout_s", default.write_timeout_s, &seconds(3_600)),
        keepalive_s_max: section.read(
            "keepalive_s_max",
            default.keepalive_s_max,
            &Whole::new(0, u16::MAX, "seconds"),
        ),
        session_expiry_s_max: section.read(
            "session_expiry_s_max",
            default.session_expiry_s_max,
            // 0xFFFF_FFFF would mean never (MQTT-3.1.2-23): nothing grows forever.
            &Whole::new(60, 5 * 366 * 24 * 3600, "seconds"),
        ),
        sessions_max: section.read("sessions_max", default.sessions_max, &count(10_000_000)),
        subscriptions_per_session_max: section.read(
            "subscriptions_per_session_max",
            default.subscriptions_per_session_max,
            &count(100_000),
        ),
        queued_messages_per_session_max: section.read(
            "queued_messages_per_session_max",
            default.queued_messages_per_session_max,
            &count(1_000_000),
        ),
        queued_bytes_per_session_max: section.read(
            "queued_bytes_per_session_max",
            default.queued_bytes_per_session_max,
            &Size::new(ByteSize::kib(1), ByteSize::gib(1)),
        ),
        retained_messages_max: section.read(
            "retained_messages_max",
            default.retained_messages_max,
            &Whole::new(0, 10_000_000, "messages"),
        ),
        retained_bytes_max: section.read(
            "retained_bytes_max",
            default.retained_bytes_max,
            &Size::new(ByteSize::ZERO, ByteSize::gib(16)),
        ),
        ungated_bytes_max: section.read(
            "ungated_bytes_max",
            default.ungated_bytes_max,
            &Size::new(ByteSize::mib(1), ByteSize::gib(16)),
        ),
    }
}

fn read_terminals(section: &Section<'_>) -> Terminals {
    let default = Terminals::default();
    let terminals = Terminals {
        records: section.read("records", default.records, &TEMPLATE),
        receipts: section.read("receipts", default.receipts, &TEMPLATE),
        status: section.read("status", default.status, &TEMPLATE),
    };
    section.finish();
    for (key, topic, others) in [
        (
            "receipts",
            &terminals.receipts,
            [&terminals.records, &terminals.records],
        ),
        (
            "status",
            &terminals.status,
            [&terminals.records, &terminals.receipts],
        ),
    ] {
        if others.contains(&topic) {
            let remedy = "give records, receipts and status a topic each";
            section.refuse(
                key,
                Refusal::new(
                    "a topic of its own",
                    &format!("{topic:?}, which has another use"),
                    remedy,
                ),
            );
        }
    }
    terminals
}

fn read_store(section: &Section<'_>, bootstrap: &Bootstrap) -> Store {
    let default = Store::for_bootstrap(bootstrap);
    let any = Size::new(ByteSize::ZERO, ByteSize::gib(1 << 20));
    let store = Store {
        budget_bytes: section.read(
            "budget_bytes",
            default.budget_bytes,
            &Size::new(ByteSize::mib(32), ByteSize::gib(1 << 20)),
        ),
        receipts_reserve_bytes: section.read(
            "receipts_reserve_bytes",
            default.receipts_reserve_bytes,
            &any,
        ),
        generation_bytes: section.read(
            "generation_bytes",
            default.generation_bytes,
            // Below, deleting generations costs more than filling them; above,
            // reopening after a kill takes too long.
            &Size::new(ByteSize::mib(4), ByteSize::gib(1)),
        ),
        ballast_bytes: section.read(
            "ballast_bytes",
            default.ballast_bytes,
            &Size::new(ByteSize::ZERO, ByteSize::gib(1)),
        ),
        free_bytes_min: section.read("free_bytes_min", default.free_bytes_min, &any),
        keep_forwarded_bytes: section.read(
            "keep_forwarded_bytes",
            default.keep_forwarded_bytes,
            &any,
        ),
        key: read_key(section, "key_file", "the file that holds the store's key"),
    };
    section.finish();
    store
}

fn read_trace(section: &Section<'_>, store: &Store) -> Trace {
    let trace = Trace {
        bytes_max: section.read(
            "bytes_max",
            Trace::for_store(store).bytes_max,
            // Every search reads it all: 4 GiB take some seconds.
            &SizeOrOff::new(ByteSize::mib(1), ByteSize::gib(4)),
        ),
    };
    section.finish();
    trace
}

fn read_clusters(root: &Section<'_>) -> BTreeMap<String, Cluster> {
    let sections = root.sections("clusters");
    if sections.len() > limits::CLUSTERS_MAX {
        let expected = format!("at most {} clusters", limits::CLUSTERS_MAX);
        root.refuse(
            "clusters",
            Refusal::new(
                &expected,
                &sections.len().to_string(),
                "run a second gateway for the others",
            ),
        );
    }
    let mut clusters = BTreeMap::new();
    for (name, section) in sections {
        let refusal = if name == DEFAULT_CLUSTER {
            Some(Refusal::new(
                "another name than default",
                "`default`",
                "write it as [kafka], which is the cluster named default",
            ))
        } else if (NAME.rule)(name).is_err() {
            Some(Refusal::new(
                NAME.expected,
                &format!("the name {:?}", crate::document::cut(name)),
                NAME.remedy,
            ))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            root.report()
                .refuse(&section.origin(), &section.path(), refusal);
        }
        clusters.insert(name.to_owned(), read_cluster(&section));
    }
    clusters
}

fn read_cluster(section: &Section<'_>) -> Cluster {
    let bootstrap = section
        .read_required("bootstrap", &BootstrapKind)
        .unwrap_or(REFUSED_BOOTSTRAP);
    let default = Cluster::new(bootstrap);
    let cluster = Cluster {
        bootstrap: default.bootstrap,
        mode: section.read("mode", default.mode, &Word::new()),
        compression: section.read("compression", default.compression, &Word::new()),
        // Half of the producer's queue, so that one batch always fits into it.
        batch_records_max: section.read(
            "batch_records_max",
            default.batch_records_max,
            &Whole::new(1, 10_000, "records"),
        ),
        batch_bytes_max: section.read(
            "batch_bytes_max",
            default.batch_bytes_max,
            &Size::new(ByteSize::kib(64), ByteSize::mib(8)),
        ),
        transaction_timeout_ms: section.read(
            "transaction_timeout_ms",
            default.transaction_timeout_ms,
            // Above is refused by a broker's default transaction.max.timeout.ms.
            &Whole::new(10_000, 900_000, "milliseconds"),
        ),
        positions_topic: section.read("positions_topic", default.positions_topic, &KAFKA_TOPIC),
        create_topics: section.read("create_topics", default.create_topics, &Boolean),
        partitions: section.read(
            "partitions",
            default.partitions,
            &Whole::new(1, 1_000, "partitions"),
        ),
        replication_factor: section.read(
            "replication_factor",
            default.replication_factor,
            &Whole::new(1, 9, "replicas"),
        ),
        security: read_security(&section.section("security")),
        properties: read_properties(section),
    };
    section.finish();
    cluster
}

fn read_security(section: &Section<'_>) -> Security {
    let default = Security::default();
    section.read_refused(
        "password",
        "no password in this file",
        "put it alone into a file and write password_file = \"/etc/risiti/kafka.password\"",
    );
    section.read_refused(
        "key_password",
        "no password in this file",
        "put it alone into a file and write key_password_file = its path",
    );
    let security = Security {
        protocol: section.read("protocol", default.protocol, &Word::new()),
        ca_file: read_readable_file(
            section,
            "ca_file",
            "the PEM file of the authorities trusted",
        ),
        certificate_file: read_readable_file(
            section,
            "certificate_file",
            "the PEM file of the client certificate",
        ),
        key_file: read_readable_file(section, "key_file", "the PEM file of the client's key"),
        key_password: read_secret(
            section,
            "key_password_file",
            "the file that holds the key's password",
        ),
        mechanism: section.read("mechanism", default.mechanism, &Word::new()),
        username: section.read_optional("username", &USERNAME),
        password: read_secret(section, "password_file", "the file that holds the password"),
    };
    section.finish();
    security
}

fn read_routes(root: &Section<'_>, terminals: &Terminals) -> Vec<Route> {
    let sections = root.list("routes");
    if sections.is_empty() {
        return vec![Route::records(terminals)];
    }
    if sections.len() > limits::ROUTES_MAX {
        let expected = format!("at most {} routes", limits::ROUTES_MAX);
        root.refuse(
            "routes",
            Refusal::new(
                &expected,
                &sections.len().to_string(),
                "use wildcards, so that one route serves many topics",
            ),
        );
        return Vec::new();
    }
    sections
        .iter()
        .map(|section| read_route(section, terminals))
        .collect()
}

fn read_route(section: &Section<'_>, terminals: &Terminals) -> Route {
    let default = Route::records(terminals);
    let route = Route {
        name: section.read_required("name", &NAME).unwrap_or_default(),
        filter: section.read_required("filter", &FILTER).unwrap_or_default(),
        cluster: section.read("cluster", default.cluster, &NAME),
        topic: section
            .read_required("topic", &KAFKA_TOPIC)
            .unwrap_or_default(),
        key: section.read("key", default.key, &KeyKind),
        format: section.read("format", default.format, &Word::new()),
    };
    section.finish();
    route
}

fn read_settlement(section: &Section<'_>) -> Settlement {
    let default = Settlement::default();
    let amount = Whole::new(0_u64, u64::from(u32::MAX) * 1_000, "minor units");
    let topic = |key, default| section.read(key, default, &KAFKA_TOPIC);
    let settlement = Settlement {
        instance: section.read("instance", default.instance, &INSTANCE),
        group: topic("group", default.group),
        cluster: section.read("cluster", default.cluster, &NAME),
        records_topic: topic("records_topic", default.records_topic),
        receipts_topic: topic("receipts_topic", default.receipts_topic),
        transactions_topic: topic("transactions_topic", default.transactions_topic),
        rejected_topic: topic("rejected_topic", default.rejected_topic),
        changelog_topic: topic("changelog_topic", default.changelog_topic),
        batch_records_max: section.read(
            "batch_records_max",
            default.batch_records_max,
            // Each writes up to four messages into a queue of 20,000.
            &Whole::new(1, 4_000, "records"),
        ),
        window: section.read(
            "window",
            default.window,
            // Below, a terminal's own unanswered records might not fit.
            &Whole::new(64, 100_000, "numbers"),
        ),
        transaction_timeout_ms: section.read(
            "transaction_timeout_ms",
            default.transaction_timeout_ms,
            &Whole::new(1_000, 900_000, "milliseconds"),
        ),
        session_timeout_ms: section.read(
            "session_timeout_ms",
            default.session_timeout_ms,
            &Whole::new(1_000, 300_000, "milliseconds"),
        ),
        payment_max_minor: section.read("payment_max_minor", default.payment_max_minor, &amount),
        day_max_minor: section.read("day_max_minor", default.day_max_minor, &amount),
        utc_offset_minutes: section.read(
            "utc_offset_minutes",
            default.utc_offset_minutes,
            &Whole::new(-12 * 60, 14 * 60, "minutes"),
        ),
        accounts_file: section.read_optional(
            "accounts_file",
            &FilePath {
                what: "a file of accounts, one a line",
            },
        ),
        root_file: section.read_optional(
            "root_file",
            &FilePath {
                what: "the site's root, made by risiti site new-root",
            },
        ),
        sealing: section.read_optional("sealing", &Word::new()),
        receipt_expiry_s: section.read(
            "receipt_expiry_s",
            default.receipt_expiry_s,
            &Whole::new(0, 5 * 366 * 24 * 3600, "seconds"),
        ),
        listen: section.read_optional(
            "listen",
            &Address {
                example: "127.0.0.1:9181",
            },
        ),
    };
    section.finish();
    settlement
}

fn read_receipts(section: &Section<'_>) -> Receipts {
    let default = Receipts::default();
    let receipts = Receipts {
        enabled: section.read("enabled", default.enabled, &Boolean),
        cluster: section.read("cluster", default.cluster, &NAME),
        topic: section.read("topic", default.topic, &KAFKA_TOPIC),
        deliveries_topic: section.read("deliveries_topic", default.deliveries_topic, &KAFKA_TOPIC),
        unknown_receipts_max: section.read(
            "unknown_receipts_max",
            default.unknown_receipts_max,
            &Whole::new(0, 100_000_000, "receipts"),
        ),
        receipts_per_terminal_max: section.read(
            "receipts_per_terminal_max",
            default.receipts_per_terminal_max,
            &Whole::new(1, 10_000_000, "receipts"),
        ),
    };
    section.finish();
    receipts
}

fn read_admin(section: &Section<'_>) -> Admin {
    let default = Admin::default();
    let admin = Admin {
        listen: section.read(
            "listen",
            default.listen,
            &Address {
                example: "127.0.0.1:9180",
            },
        ),
        insecure: section.read("insecure", default.insecure, &Boolean),
        read_token_sha256: read_token(section, "read_token_file"),
        operate_token_sha256: read_token(section, "operate_token_file"),
        hosts: section.read("hosts", default.hosts, &HOST_NAMES),
    };
    section.finish();
    admin
}

fn read_log(section: &Section<'_>) -> Log {
    let default = Log::default();
    let log = Log {
        level: section.read("level", default.level, &LOG_LEVEL),
        format: section.read("format", default.format, &Word::new()),
    };
    section.finish();
    log
}
