//! What the gateway is told, as plain typed data.
//!
//! Promises: every field holds a value that has passed validation when it came
//! from [`Config::load`]; every field but `kafka.bootstrap` has a default, which
//! stands here and nowhere else. Never: parsing, files or environment.

mod access;
mod cluster;
mod listener;
mod mqtt;
mod receipts;
mod route;
mod settlement;
mod store;
mod trace;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use access::{Access, Anonymous, Rates, Rule, Subject, TokenDigest, User};
pub use cluster::{Bootstrap, Cluster, Compression, Mechanism, Mode, Protocol, Security};
pub use listener::{ClientCertificates, Listener, Tls, Transport};
pub use mqtt::{Mqtt, MqttLimits};
pub use receipts::Receipts;
pub use route::{Format, Key, Route};
pub use settlement::{Sealing, Settlement};
pub use store::Store;
pub use trace::Trace;

/// The name by which a route refers to `[kafka]`.
pub const DEFAULT_CLUSTER: &str = "default";

/// Everything a gateway is told: one TOML file, overridden by the environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[gateway]`: who this gateway is and where it keeps its data.
    pub gateway: Gateway,
    /// `[mqtt]`: the listener for terminals and other MQTT clients.
    pub mqtt: Mqtt,
    /// `[[listeners]]`: further ways in.
    pub listeners: Vec<Listener>,
    /// `[access]`: who may connect, and what each may do.
    pub access: Access,
    /// `[terminals]`: the topics of a terminal.
    pub terminals: Terminals,
    /// `[store]`: how much disk, and how it is divided.
    pub store: Store,
    /// `[kafka]`: the cluster named `default`.
    pub kafka: Cluster,
    /// `[clusters.NAME]`: further clusters by name; never holds `default`.
    pub clusters: BTreeMap<String, Cluster>,
    /// `[[routes]]`: which MQTT topics go where; the first that matches wins.
    /// Never empty: without any in the file it is [`Route::records`].
    pub routes: Vec<Route>,
    /// `[settlement]`: what `risiti settle` does.
    pub settlement: Settlement,
    /// `[trace]`: how far back the steps of payments can be told.
    pub trace: Trace,
    /// `[receipts]`: the way back.
    pub receipts: Receipts,
    /// `[admin]`: health, metrics.
    pub admin: Admin,
    /// `[log]`: what is logged and how it is written.
    pub log: Log,
    /// What loading found allowed but doubtful, such as a secret that every
    /// user can read; [`Config::warnings`] has these and more.
    pub load_warnings: Vec<String>,
}

impl Config {
    /// The configuration with every default and this default cluster.
    #[must_use]
    pub fn new(bootstrap: Bootstrap) -> Self {
        let kafka = Cluster::new(bootstrap);
        let terminals = Terminals::default();
        let store = Store::for_bootstrap(&kafka.bootstrap);
        Self {
            gateway: Gateway::default(),
            mqtt: Mqtt::default(),
            listeners: Vec::new(),
            access: Access::default(),
            routes: vec![Route::records(&terminals)],
            terminals,
            trace: Trace::for_store(&store),
            store,
            kafka,
            clusters: BTreeMap::new(),
            settlement: Settlement::default(),
            receipts: Receipts::default(),
            admin: Admin::default(),
            log: Log::default(),
            load_warnings: Vec::new(),
        }
    }

    /// The cluster of that name; `default` is `[kafka]`.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&Cluster> {
        if name == DEFAULT_CLUSTER {
            Some(&self.kafka)
        } else {
            self.clusters.get(name)
        }
    }

    /// Whether others on the network reach a listener for MQTT.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let further = self.listeners.iter().map(|listener| listener.listen);
        std::iter::once(self.mqtt.listen)
            .chain(further)
            .any(|listen| !listen.ip().is_loopback())
    }

    /// Every cluster with its name, `default` first, the others by name.
    pub fn all_clusters(&self) -> impl Iterator<Item = (&str, &Cluster)> {
        std::iter::once((DEFAULT_CLUSTER, &self.kafka)).chain(
            self.clusters
                .iter()
                .map(|(name, cluster)| (name.as_str(), cluster)),
        )
    }
}

/// `[gateway]`: who this gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its name, unique among all gateways that write to the same Kafka
    /// cluster (it fences its own former self by it): `[a-z0-9-]{1,64}`.
    pub id: String,
    /// The directory that holds the store. On a disk, not a tmpfs.
    pub data_dir: PathBuf,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            id: "gw-1".into(),
            data_dir: PathBuf::from("/var/lib/risiti"),
        }
    }
}

/// `[terminals]`: a terminal's own topics. Each template holds `{id}` once, as
/// a whole level; it stands for the terminal's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminals {
    /// Where a terminal publishes its records.
    pub records: String,
    /// Where a terminal takes its receipts.
    pub receipts: String,
    /// Where a terminal's state stands, retained, with its will.
    pub status: String,
}

impl Default for Terminals {
    fn default() -> Self {
        Self {
            records: "t/{id}/records".into(),
            receipts: "t/{id}/receipts".into(),
            status: "t/{id}/status".into(),
        }
    }
}

/// `[admin]`: the HTTP listener for health and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Allows a listener that others on the network can reach: it is plain HTTP.
    pub insecure: bool,
    /// SHA-256 of the token (`read_token_file`) that reading needs; none: reading
    /// needs none.
    pub read_token_sha256: Option<TokenDigest>,
    /// SHA-256 of the token (`operate_token_file`) that changes need.
    pub operate_token_sha256: Option<TokenDigest>,
    /// Names by which the port is reached; addresses and `localhost` always are.
    pub hosts: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9180)),
            insecure: false,
            read_token_sha256: None,
            operate_token_sha256: None,
            hosts: Vec::new(),
        }
    }
}

/// `[log]`: what is logged, to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing_subscriber::EnvFilter` string: `info`, or
    /// `info,risiti_mqtt=debug`.
    pub level: String,
    /// How a line is written.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
        }
    }
}

/// `log.format`: how a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `text`: for people.
    Text,
    /// `json`: one object a line, for machines.
    Json,
}
