//! librdkafka's settings for a cluster.
//!
//! Promises: the settings that exactly-once rests on are set last, so that no
//! raw option of the configuration undoes them. Never: a secret in a log line.

use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use risiti_config::{Cluster, Compression, Mechanism, Mode, Protocol, Security};

use crate::embedded::EmbeddedCluster;
use crate::limits;

/// The address of the cluster's brokers, or of the embedded cluster that stands
/// for them.
///
/// # Errors
/// The configuration asks for the embedded cluster, and none runs.
pub fn bootstrap(
    cluster: &Cluster,
    embedded: Option<&EmbeddedCluster>,
) -> Result<String, &'static str> {
    match (embedded, cluster.bootstrap.servers()) {
        (Some(embedded), _) => Ok(embedded.bootstrap().to_owned()),
        (None, Some(servers)) => Ok(servers),
        (None, None) => Err("bootstrap is \"embedded\" but no embedded cluster runs"),
    }
}

/// Address and credentials: what every client of the cluster has.
///
/// `bootstrap` is the resolved address (the embedded cluster's is known only
/// once it runs).
#[must_use]
pub fn connection(cluster: &Cluster, bootstrap: &str, client_id: &str) -> ClientConfig {
    connection_over(ClientConfig::new(), cluster, bootstrap, client_id)
}

/// The same over defaults that the configuration's raw options may override.
///
/// Set in place, never copied: what a `ClientConfig` shows of itself has its
/// secrets blotted out, so a copy of it can't log in.
fn connection_over(
    mut config: ClientConfig,
    cluster: &Cluster,
    bootstrap: &str,
    client_id: &str,
) -> ClientConfig {
    config
        .set("client.id", client_id)
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "50")
        // Wakes within a second when Kafka is back.
        .set(
            "reconnect.backoff.max.ms",
            limits::BACKOFF_MAX.as_millis().to_string(),
        )
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("socket.timeout.ms", "20000")
        // A broker that hangs for seconds, again and again, is lost for good to a
        // rebootstrap that never ends (librdkafka 2.12.1). Ours is a new client, made
        // after [`limits::UNANSWERED`].
        .set("metadata.recovery.strategy", "none")
        .set(
            "topic.metadata.propagation.max.ms",
            limits::TOPIC_PROPAGATION.as_millis().to_string(),
        )
        // A lost connection is an event of ours, not a line a second in the log.
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Critical);
    security(&mut config, &cluster.security);
    for (name, value) in &cluster.properties {
        config.set(name, value);
    }
    config.set("bootstrap.servers", bootstrap);
    config
}

/// A producer's settings. `transactional_id` is used in `exactly_once` mode.
#[must_use]
pub fn producer(cluster: &Cluster, bootstrap: &str, transactional_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("batch.size", "262144")
        .set("linger.ms", "1")
        .set("compression.codec", compression(cluster.compression));
    let mut config = connection_over(config, cluster, bootstrap, transactional_id);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "5")
        // The same partition as Java's default for the same key.
        .set("partitioner", "murmur2_random")
        .set(
            "queue.buffering.max.messages",
            limits::QUEUE_MESSAGES_MAX.to_string(),
        )
        .set(
            "queue.buffering.max.kbytes",
            limits::QUEUE_KBYTES_MAX.to_string(),
        );
    match cluster.mode {
        Mode::ExactlyOnce => {
            // librdkafka wants a request to end 100 ms before its transaction.
            let longest_ms = cluster.transaction_timeout_ms.saturating_sub(100);
            let request_ms: Option<u32> = config
                .get("socket.timeout.ms")
                .and_then(|ms| ms.parse().ok());
            if request_ms.is_none_or(|ms| ms > longest_ms) {
                config.set("socket.timeout.ms", longest_ms.max(900).to_string());
            }
            config.set("transactional.id", transactional_id).set(
                "transaction.timeout.ms",
                cluster.transaction_timeout_ms.to_string(),
            );
        }
        Mode::Idempotent => {
            // A message that times out here would leave a gap behind which the
            // next ones go on.
            config.set("message.timeout.ms", "0");
        }
    }
    config
}

/// A consumer that is told its partitions, joins no group and commits nothing.
#[must_use]
pub fn reader(
    cluster: &Cluster,
    bootstrap: &str,
    client_id: &str,
    committed: bool,
) -> ClientConfig {
    let mut config = connection(cluster, bootstrap, client_id);
    config
        // Required by librdkafka, never joined.
        .set("group.id", client_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", "50")
        .set("queued.max.messages.kbytes", "4096")
        .set("enable.partition.eof", "false")
        .set(
            "isolation.level",
            if committed {
                "read_committed"
            } else {
                "read_uncommitted"
            },
        );
    config
}

fn security(config: &mut ClientConfig, security: &Security) {
    config.set(
        "security.protocol",
        match security.protocol {
            Protocol::Plaintext => "plaintext",
            Protocol::Ssl => "ssl",
            Protocol::SaslPlaintext => "sasl_plaintext",
            Protocol::SaslSsl => "sasl_ssl",
        },
    );
    let mut file = |name: &str, path: &Option<std::path::PathBuf>| {
        if let Some(path) = path {
            config.set(name, text(path));
        }
    };
    if security.protocol.has_tls() {
        file("ssl.ca.location", &security.ca_file);
        file("ssl.certificate.location", &security.certificate_file);
        file("ssl.key.location", &security.key_file);
        if let Some(password) = &security.key_password {
            config.set("ssl.key.password", password.expose());
        }
    }
    if security.protocol.has_sasl() {
        config.set(
            "sasl.mechanism",
            match security.mechanism {
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::Plain => "PLAIN",
            },
        );
        if let Some(username) = &security.username {
            config.set("sasl.username", username);
        }
        if let Some(password) = &security.password {
            config.set("sasl.password", password.expose());
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn compression(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use risiti_config::{Bootstrap, Secret};

    fn cluster() -> Cluster {
        Cluster::new(Bootstrap::Servers(vec!["a:1".into()]))
    }

    #[test]
    fn a_raw_option_cannot_undo_what_exactly_once_rests_on() {
        let mut cluster = cluster();
        for (name, value) in [
            ("acks", "1"),
            ("enable.idempotence", "false"),
            ("transactional.id", "other"),
            ("partitioner", "random"),
            ("linger.ms", "7"),
        ] {
            cluster.properties.insert(name.into(), value.into());
        }
        let config = producer(&cluster, "a:1", "risiti-gw-1-default");
        assert_eq!(config.get("acks"), Some("all"));
        assert_eq!(config.get("enable.idempotence"), Some("true"));
        assert_eq!(config.get("transactional.id"), Some("risiti-gw-1-default"));
        assert_eq!(config.get("partitioner"), Some("murmur2_random"));
        // The others are the operator's to choose.
        assert_eq!(config.get("linger.ms"), Some("7"));
    }

    #[test]
    fn any_transaction_timeout_makes_a_producer() {
        for timeout_ms in [1_000, 20_000, 900_000] {
            let mut cluster = cluster();
            cluster.transaction_timeout_ms = timeout_ms;
            let config = producer(&cluster, "127.0.0.1:1", "x");
            let made: Result<rdkafka::producer::BaseProducer, _> = config.create();
            assert!(made.is_ok(), "{timeout_ms}: {:?}", made.err());
        }
    }

    #[test]
    fn idempotent_mode_never_times_a_message_out_and_has_no_transactions() {
        let mut cluster = cluster();
        cluster.mode = Mode::Idempotent;
        let config = producer(&cluster, "a:1", "x");
        assert_eq!(config.get("message.timeout.ms"), Some("0"));
        assert_eq!(config.get("transactional.id"), None);
    }

    /// The text of a `ClientConfig` hides its secrets, and so would a copy made
    /// from it; only the client itself tells what it was given.
    #[test]
    fn every_client_gets_the_credentials_themselves() {
        let mut cluster = cluster();
        cluster.security = Security {
            protocol: Protocol::SaslPlaintext,
            mechanism: Mechanism::Plain,
            username: Some("gateway".into()),
            password: Some(Secret::new("secret".into())),
            ..Security::default()
        };
        for config in [
            producer(&cluster, "a:1", "x"),
            reader(&cluster, "a:1", "x", true),
            connection(&cluster, "a:1", "x"),
        ] {
            let native = config.create_native_config().unwrap();
            assert_eq!(native.get("sasl.username").unwrap(), "gateway");
            assert_eq!(native.get("sasl.password").unwrap(), "secret");
        }
    }

    #[test]
    fn credentials_are_passed_on_for_the_protocols_that_use_them() {
        let mut cluster = cluster();
        cluster.security = Security {
            protocol: Protocol::SaslSsl,
            ca_file: Some("/ca.pem".into()),
            username: Some("gateway".into()),
            password: Some(Secret::new("secret".into())),
            ..Security::default()
        };
        let config = connection(&cluster, "a:1", "x");
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!(config.get("ssl.ca.location"), Some("/ca.pem"));
        cluster.security.protocol = Protocol::Plaintext;
        let config = connection(&cluster, "a:1", "x");
        assert_eq!(config.get("sasl.password"), None);
    }
}
