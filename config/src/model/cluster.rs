//! `[kafka]` and `[clusters.NAME]`: a Kafka cluster and how to write to it.
//!
//! Promises: credentials never show in `Debug`. Never: a default address; where
//! records go is always stated.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::{ByteSize, Secret};

/// A Kafka cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Where it is.
    pub bootstrap: Bootstrap,
    /// What is promised of records written to it.
    pub mode: Mode,
    /// Compression of batches.
    pub compression: Compression,
    /// Records of one transaction (or of one unacknowledged batch) at most.
    pub batch_records_max: u32,
    /// Bytes of them at most.
    pub batch_bytes_max: ByteSize,
    /// Milliseconds after which the broker aborts a transaction that was left
    /// open; readers of committed records wait that long at worst.
    pub transaction_timeout_ms: u32,
    /// Compacted topic that holds the journal positions.
    pub positions_topic: String,
    /// Whether missing topics are created.
    pub create_topics: bool,
    /// Partitions of topics it creates.
    pub partitions: u16,
    /// Replication factor of topics it creates.
    pub replication_factor: u16,
    /// Encryption and authentication.
    pub security: Security,
    /// Raw librdkafka options, set last. Those that the guarantees rest on are
    /// refused.
    pub properties: BTreeMap<String, String>,
}

impl Cluster {
    /// Every default, with this address.
    #[must_use]
    pub fn new(bootstrap: Bootstrap) -> Self {
        Self {
            bootstrap,
            mode: Mode::ExactlyOnce,
            compression: Compression::Zstd,
            // A transaction costs 3.3 round trips; small enough that one which
            // is left open by a lost link holds readers up for little.
            // Reached only behind a backlog, where it doubles the rate of 1,000.
            batch_records_max: 10_000,
            batch_bytes_max: ByteSize::mib(8),
            // A gateway that is lost for good holds readers up for that long and
            // 10 s more; batches are made to take a fraction of it.
            transaction_timeout_ms: 15_000,
            positions_topic: "risiti.positions".into(),
            create_topics: true,
            partitions: 6,
            replication_factor: 1,
            security: Security::default(),
            properties: BTreeMap::new(),
        }
    }
}

/// `bootstrap`: where a cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// `embedded`: an in-process cluster without durability or transactions,
    /// for trying things out.
    Embedded,
    /// `host:port`, one or several; never empty.
    Servers(Vec<String>),
}

impl Bootstrap {
    /// The value of librdkafka's `bootstrap.servers`; none for the embedded
    /// cluster, whose port is known only once it runs.
    #[must_use]
    pub fn servers(&self) -> Option<String> {
        match self {
            Self::Embedded => None,
            Self::Servers(servers) => Some(servers.join(",")),
        }
    }

    /// Whether it is the embedded cluster.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded)
    }
}

/// `mode`: what is promised of records written to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `exactly_once`: transactions, the journal position inside them.
    ExactlyOnce,
    /// `idempotent`: for clusters without transaction rights; a restart may
    /// repeat a batch, recognisable by `ce_id`.
    Idempotent,
}

/// `compression` of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `none`
    None,
    /// `gzip`
    Gzip,
    /// `snappy`
    Snappy,
    /// `lz4`
    Lz4,
    /// `zstd`
    Zstd,
}

/// `security`: encryption and authentication towards a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// What the connection is.
    pub protocol: Protocol,
    /// PEM file of the authorities trusted; none = the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of its key; both or neither.
    pub key_file: Option<PathBuf>,
    /// What `key_password_file` holds.
    pub key_password: Option<Secret>,
    /// SASL mechanism; unused unless the protocol has SASL.
    pub mechanism: Mechanism,
    /// SASL user; set if the protocol has SASL.
    pub username: Option<String>,
    /// What `password_file` holds; set if the protocol has SASL.
    pub password: Option<Secret>,
}

/// `security.protocol`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// `plaintext`
    #[default]
    Plaintext,
    /// `ssl`
    Ssl,
    /// `sasl_plaintext`
    SaslPlaintext,
    /// `sasl_ssl`
    SaslSsl,
}

impl Protocol {
    /// Whether the connection is encrypted.
    #[must_use]
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether the client authenticates by SASL.
    #[must_use]
    pub fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// `security.mechanism`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mechanism {
    /// `SCRAM-SHA-512`
    #[default]
    ScramSha512,
    /// `SCRAM-SHA-256`
    ScramSha256,
    /// `PLAIN`
    Plain,
}
