//! Variables override the file, key by key.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use risiti_config::{Bootstrap, Compression, Config, Key};

const FILE: &str = r#"
[kafka]
bootstrap = "file:9092"
[clusters.west]
bootstrap = "west:9092"
[[routes]]
name = "records"
filter = "t/+/records"
topic = "from-file"
"#;

fn load(variables: &[(&str, &str)]) -> Config {
    let env = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_toml_str("f", FILE, env).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_variable_wins_over_the_file() {
    let config = load(&[("RISITI__KAFKA__BOOTSTRAP", "a:1,b:2")]);
    assert_eq!(
        config.kafka.bootstrap,
        Bootstrap::Servers(vec!["a:1".into(), "b:2".into()])
    );
}

#[test]
fn a_variable_is_read_as_toml_and_else_as_text() {
    let config = load(&[
        ("RISITI__MQTT__CONNECTIONS_MAX", "50"),
        ("RISITI__MQTT__INSECURE", "true"),
        ("RISITI__MQTT__PACKET_BYTES_MAX", "32KiB"),
        ("RISITI__STORE__BUDGET_BYTES", "1_073_741_824"),
        ("RISITI__LOG__LEVEL", "\"debug\""),
        ("RISITI__KAFKA__BOOTSTRAP", "[\"a:1\", \"b:2\"]"),
        // A text, although TOML would take it for a number.
        ("RISITI__GATEWAY__ID", "7"),
    ]);
    assert_eq!(config.mqtt.limits.connections_max, 50);
    assert!(config.mqtt.insecure);
    assert_eq!(config.mqtt.limits.packet_bytes_max.bytes(), 32 << 10);
    assert_eq!(config.store.budget_bytes.bytes(), 1 << 30);
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.kafka.bootstrap.servers().as_deref(), Some("a:1,b:2"));
    assert_eq!(config.gateway.id, "7");
}

#[test]
fn a_variable_reaches_into_clusters_routes_and_security() {
    let config = load(&[
        ("RISITI__CLUSTERS__WEST__COMPRESSION", "lz4"),
        ("RISITI__CLUSTERS__EAST__BOOTSTRAP", "east:9092"),
        ("RISITI__ROUTES__0__TOPIC", "from-environment"),
        ("RISITI__ROUTES__1__NAME", "rest"),
        ("RISITI__ROUTES__1__FILTER", "#"),
        ("RISITI__ROUTES__1__TOPIC", "rest"),
        ("RISITI__ROUTES__1__KEY", "topic"),
        ("RISITI__ROUTES__1__FORMAT", "raw"),
        ("RISITI__ROUTES__1__CLUSTER", "east"),
        ("RISITI__KAFKA__PROPERTIES__SOCKET.TIMEOUT.MS", "5000"),
    ]);
    assert_eq!(config.clusters["west"].compression, Compression::Lz4);
    assert_eq!(config.clusters.len(), 2);
    assert_eq!(config.routes[0].topic, "from-environment");
    assert_eq!(
        (config.routes[1].key, config.routes[1].cluster.as_str()),
        (Key::Topic, "east")
    );
    assert_eq!(config.kafka.properties["socket.timeout.ms"], "5000");
}

#[test]
fn other_variables_are_nobodys() {
    assert_eq!(
        load(&[
            ("RISITI_LOG", "x"),
            ("PATH", "/bin"),
            ("risiti__kafka__x", "1")
        ]),
        load(&[])
    );
}

#[test]
fn a_file_may_be_empty_if_the_environment_says_where_kafka_is() {
    let env = [("RISITI__KAFKA__BOOTSTRAP".to_owned(), "embedded".to_owned())];
    let config = Config::from_toml_str("f", "", env.into_iter()).unwrap();
    assert_eq!(config, Config::new(Bootstrap::Embedded));
}
