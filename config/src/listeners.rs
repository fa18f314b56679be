//! Reads and checks `[[listeners]]`.
//!
//! Promises: a listener that others can reach speaks TLS or is said to be insecure;
//! what would have no effect is refused. Never: a file's content.

use std::net::SocketAddr;

use crate::access::{SubjectKind, check_subject};
use crate::kind::{Address, Boolean, List, Refusal, Text, Word};
use crate::limits::{LISTENERS_MAX, ORIGINS_MAX};
use crate::model::{Anonymous, Config, Listener, Mqtt, Subject, Tls, Transport};
use crate::names::NAME;
use crate::secret_file::{read_private_file, read_readable_file};
use crate::section::Section;

/// `who` of a listener.
const WHO: List<SubjectKind> = List {
    item: SubjectKind,
    count: 1..=usize::MAX,
    remedy: "write whose connections it takes: who = [\"terminal\"]; without it, everybody's",
};

/// `origins` of a listener (RFC 6454, section 6.2).
const ORIGINS: List<Text> = List {
    item: Text {
        expected: "origins: scheme, host and, unless it is the usual one, port",
        remedy: "write each as a browser sends it",
        rule: |text| {
            let host = ["https://", "http://"]
                .iter()
                .find_map(|scheme| text.strip_prefix(scheme));
            let is_host = |host: &str| {
                !host.is_empty()
                    && text.len() <= 300
                    && host.bytes().all(|byte| {
                        byte.is_ascii_lowercase()
                            || byte.is_ascii_digit()
                            || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
                    })
            };
            if host.is_some_and(is_host) {
                Ok(())
            } else {
                Err(String::new())
            }
        },
    },
    count: 0..=ORIGINS_MAX,
    remedy: "write them as a browser sends them: [\"https://dashboard.example.org\"]",
};

/// Reads `[[listeners]]`.
pub fn read_listeners(root: &Section<'_>) -> Vec<Listener> {
    let sections = root.list("listeners");
    if sections.len() > LISTENERS_MAX {
        root.refuse(
            "listeners",
            Refusal::new(
                &format!("at most {LISTENERS_MAX} listeners"),
                &sections.len().to_string(),
                "let clients of one kind share a listener",
            ),
        );
        return Vec::new();
    }
    sections.iter().map(read_listener).collect()
}

fn read_listener(section: &Section<'_>) -> Listener {
    let listener = Listener {
        name: section.read_required("name", &NAME).unwrap_or_default(),
        listen: section
            .read_required(
                "listen",
                &Address {
                    example: "0.0.0.0:8883",
                },
            )
            .unwrap_or(Mqtt::default().listen),
        transport: section.read("transport", Transport::default(), &Word::new()),
        insecure: section.read("insecure", false, &Boolean),
        who: section.read_optional("who", &WHO).unwrap_or_default(),
        origins: section.read("origins", Vec::new(), &ORIGINS),
        tls: read_tls(section),
    };
    section.finish();
    listener
}

fn read_tls(section: &Section<'_>) -> Option<Tls> {
    let is_given = section.has("tls");
    let tls = section.section("tls");
    let required = |key: &'static str, path: Option<std::path::PathBuf>| {
        if is_given && path.is_none() {
            let refusal = Refusal::new(
                "the path of a PEM file",
                "nothing",
                &format!("add {key} = \"…\", or remove the table"),
            );
            tls.refuse(key, refusal);
        }
        path.unwrap_or_default()
    };
    let read = Tls {
        certificate_file: required(
            "certificate_file",
            read_readable_file(&tls, "certificate_file", "the gateway's certificate"),
        ),
        key_file: required(
            "key_file",
            read_private_file(&tls, "key_file", "the key of the gateway's certificate"),
        ),
        client_ca_file: read_readable_file(
            &tls,
            "client_ca_file",
            "the certificates of the authorities of clients",
        ),
        crl_file: read_readable_file(&tls, "crl_file", "the certificate revocation lists"),
        client_certificates: tls.read("client_certificates", Default::default(), &Word::new()),
    };
    tls.finish();
    is_given.then_some(read)
}

/// Refuses an address that others reach, unless TLS is spoken there or the risk taken.
pub fn check_reach(section: &Section<'_>, listen: SocketAddr, insecure: bool, why: &str) {
    if !listen.ip().is_loopback() && !insecure {
        let found = format!("{listen}, which others on the network can reach ({why})");
        let remedy = format!(
            "listen on 127.0.0.1:{}, or accept the risk with insecure = true in the same table",
            listen.port()
        );
        section.refuse(
            "listen",
            Refusal::new("a loopback address", &found, &remedy),
        );
    }
}

/// Checks what no key shows alone.
pub fn check_listeners(root: &Section<'_>, config: &Config) {
    let sections = root.list("listeners");
    for (index, section) in sections.iter().enumerate() {
        if let Some(listener) = config.listeners.get(index) {
            check_listener(section, listener, index, config);
        }
    }
}

fn check_listener(section: &Section<'_>, listener: &Listener, index: usize, config: &Config) {
    let before = &config.listeners[..index];
    if before.iter().any(|other| other.name == listener.name) || listener.name == "mqtt" {
        let refusal = Refusal::new(
            "a name that no other listener has",
            &format!("{:?} again", listener.name),
            "give each listener a name of its own; [mqtt] is called \"mqtt\"",
        );
        section.refuse("name", refusal);
    }
    let taken = std::iter::once(config.mqtt.listen)
        .chain([config.admin.listen])
        .chain(before.iter().map(|other| other.listen))
        .any(|other| other == listener.listen && other.port() != 0);
    if taken {
        let refusal = Refusal::new(
            "an address of its own",
            &format!("{}, where something else listens", listener.listen),
            "give each listener a port of its own",
        );
        section.refuse("listen", refusal);
    }
    if listener.tls.is_none() {
        let why = "without [listeners.tls] its clients send tokens and payments in clear";
        check_reach(section, listener.listen, listener.insecure, why);
    }
    if !listener.origins.is_empty() && listener.transport != Transport::Websocket {
        let refusal = Refusal::new(
            "no such key, since transport is \"tcp\"",
            "a value that would not be used",
            "set transport = \"websocket\", or remove it",
        );
        section.refuse("origins", refusal);
    }
    check_client_certificates(&section.section("tls"));
    for who in &listener.who {
        check_subject(section, who, &config.access);
        if *who == Subject::Anonymous && config.access.anonymous == Anonymous::None {
            let refusal = Refusal::new(
                "somebody who may connect",
                "\"anonymous\", with access.anonymous = \"none\"",
                "remove it here, or set access.anonymous",
            );
            section.refuse("who", refusal);
        }
    }
}

fn check_client_certificates(section: &Section<'_>) {
    for key in ["crl_file", "client_certificates"] {
        if section.has(key) && !section.has("client_ca_file") {
            let refusal = Refusal::new(
                "client_ca_file beside it",
                "nothing",
                &format!("add client_ca_file = \"…\", or remove {key}"),
            );
            section.refuse(key, refusal);
        }
    }
}
