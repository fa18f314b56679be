//! The forwarder reaches a real Kafka over TLS, mutual TLS and SASL, and does not
//! reach one that it must not trust or that does not trust it.

// Helpers of tests count as tests.
#![allow(clippy::unwrap_used)]

#[path = "../../bridge/tests/house/mod.rs"]
mod house;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use house::{House, await_status};
use risiti_config::{Bootstrap, Cluster, Mechanism, Protocol, Route, Secret, Security, Terminals};
use risiti_tests::real_kafka::{KafkaOptions, RealKafka, script};

const SSL: usize = 0;
const SASL_PLAINTEXT: usize = 1;
const SASL_SSL: usize = 2;

/// A certification authority and two certificates it signed, all for this test.
struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let pki = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        pki.authority("ca");
        pki.authority("stranger");
        pki.signed("broker", "subjectAltName=DNS:localhost,IP:127.0.0.1");
        pki.signed("gateway", "extendedKeyUsage=clientAuth");
        // Kafka takes key and chain from one PEM file.
        let read = |name| std::fs::read_to_string(pki.path(name)).unwrap();
        let chain = read("broker.key") + &read("broker.pem");
        std::fs::write(pki.path("broker-chain.pem"), chain).unwrap();
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn authority(&self, name: &str) {
        let subject = format!("/CN={name}");
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
        ]);
    }

    fn signed(&self, name: &str, extension: &str) {
        let subject = format!("/CN={name}");
        let (key, request, out) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.pem"),
        );
        self.openssl(&[
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out",
            &request,
        ]);
        std::fs::write(self.path("extension"), extension).unwrap();
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extension",
            "-out",
            &out,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl")
            .args(arguments)
            .current_dir(self.dir.path())
            .output()
            .expect("openssl is installed");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

fn broker(pki: &Pki) -> RealKafka {
    let path = |name: &str| pki.path(name).display().to_string();
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let plain =
        "org.apache.kafka.common.security.plain.PlainLoginModule required user_gateway=\"secret\";";
    let mut extra = format!(
        "listeners=PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@,SSL://localhost:@EXTRA_PORT_0@,SASL_PLAINTEXT://localhost:@EXTRA_PORT_1@,SASL_SSL://localhost:@EXTRA_PORT_2@\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@,SSL://localhost:@EXTRA_PORT_0@,SASL_PLAINTEXT://localhost:@EXTRA_PORT_1@,SASL_SSL://localhost:@EXTRA_PORT_2@\n\
         ssl.keystore.type=PEM\nssl.keystore.location={}\n\
         ssl.truststore.type=PEM\nssl.truststore.location={}\n\
         listener.name.ssl.ssl.client.auth=required\n\
         sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN\n",
        path("broker-chain.pem"),
        path("ca.pem"),
    );
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        for (mechanism, module) in [
            ("scram-sha-512", scram),
            ("scram-sha-256", scram),
            ("plain", plain),
        ] {
            extra += &format!("listener.name.{listener}.{mechanism}.sasl.jaas.config={module}\n");
        }
    }
    let kafka = RealKafka::start_with(KafkaOptions {
        extra,
        ..KafkaOptions::default()
    })
    .unwrap();
    add_user(&kafka, "gateway");
    kafka
}

/// As an operator adds a user to a cluster that runs; one credential a request.
fn add_user(kafka: &RealKafka, user: &str) {
    for mechanism in ["SCRAM-SHA-512", "SCRAM-SHA-256"] {
        let done = Command::new(script())
            .args(["tool", "kafka.admin.ConfigCommand", "--alter"])
            .args(["--bootstrap-server", &kafka.bootstrap])
            .args(["--entity-type", "users", "--entity-name", user])
            .args(["--add-config", &format!("{mechanism}=[password=secret]")])
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

fn house(kafka: &RealKafka, listener: usize, name: &str, security: Security) -> House {
    let server = format!("localhost:{}", kafka.extra_ports[listener]);
    let mut house = House::new(Cluster {
        security,
        ..Cluster::new(Bootstrap::Servers(vec![server]))
    });
    house.setup.gateway_id = name.into();
    let terminals = Terminals::default();
    let route = Route {
        topic: name.into(),
        ..Route::records(&terminals)
    };
    house
        .setup
        .routes
        .replace(risiti_bridge::Routes::new(&[route], &terminals), 0);
    house.append(1, 1, 10);
    house
}

fn sasl(protocol: Protocol, mechanism: Mechanism, ca: &Path) -> Security {
    Security {
        protocol,
        mechanism,
        ca_file: protocol.has_tls().then(|| ca.to_path_buf()),
        username: Some("gateway".into()),
        password: Some(Secret::new("secret".into())),
        ..Security::default()
    }
}

#[test]
fn every_way_to_authenticate_reaches_kafka_and_a_wrong_one_does_not() {
    let pki = Pki::new();
    let kafka = broker(&pki);
    let ca = pki.path("ca.pem");
    let mutual = Security {
        protocol: Protocol::Ssl,
        ca_file: Some(ca.clone()),
        certificate_file: Some(pki.path("gateway.pem")),
        key_file: Some(pki.path("gateway.key")),
        ..Security::default()
    };
    let mut good = vec![(SSL, "mutual-tls".to_owned(), mutual.clone())];
    for (listener, protocol, transport) in [
        (SASL_PLAINTEXT, Protocol::SaslPlaintext, "plaintext"),
        (SASL_SSL, Protocol::SaslSsl, "tls"),
    ] {
        for (mechanism, name) in [
            (Mechanism::ScramSha512, "scram-512"),
            (Mechanism::ScramSha256, "scram-256"),
            (Mechanism::Plain, "plain"),
        ] {
            good.push((
                listener,
                format!("{transport}-{name}"),
                sasl(protocol, mechanism, &ca),
            ));
        }
    }
    for (listener, name, security) in good {
        let house = house(&kafka, listener, &name, security);
        let forwarder = house.start();
        house.await_drained();
        assert!(forwarder.stop(Duration::from_secs(20)));
        assert_eq!(kafka.committed(&name).unwrap().len(), 10, "{name}");
    }

    let scram = sasl(Protocol::SaslSsl, Mechanism::ScramSha512, &ca);
    let bad = [
        (
            SASL_SSL,
            "wrong-password",
            Security {
                password: Some(Secret::new("wrong".into())),
                ..scram.clone()
            },
        ),
        (
            SASL_SSL,
            "wrong-authority",
            Security {
                ca_file: Some(pki.path("stranger.pem")),
                ..scram
            },
        ),
        (
            SSL,
            "no-certificate",
            Security {
                certificate_file: None,
                key_file: None,
                ..mutual
            },
        ),
    ];
    for (listener, name, security) in bad {
        let house = house(&kafka, listener, name, security);
        let forwarder = house.start();
        await_status(&forwarder, name, |status| status.alarm.is_some());
        let status = forwarder.status();
        let error = status.last_error.unwrap();
        let alarm = status.alarm.unwrap();
        assert!(alarm.contains("credentials or certificates"), "{alarm}");
        assert!(!alarm.contains("secret"), "{alarm}");
        assert!(
            !error.contains("wrong\"") && !error.contains("secret"),
            "{error}"
        );
        assert_eq!(house.source.released("default"), 0, "{name}");
        assert!(forwarder.stop(Duration::from_secs(20)));
        assert!(kafka.committed(name).is_err(), "{name}: the topic was made");
    }

    // Once the operator has added the missing user, the same forwarder goes on.
    let late = Security {
        username: Some("late".into()),
        ..sasl(Protocol::SaslPlaintext, Mechanism::ScramSha512, &ca)
    };
    let house = house(&kafka, SASL_PLAINTEXT, "late", late);
    let forwarder = house.start();
    await_status(&forwarder, "an alarm", |status| status.alarm.is_some());
    add_user(&kafka, "late");
    house.await_drained();
    assert_eq!(forwarder.status().alarm, None);
    assert!(forwarder.stop(Duration::from_secs(20)));
    assert_eq!(kafka.committed("late").unwrap().len(), 10);
}
