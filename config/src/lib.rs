//! Risiti's configuration: one TOML file, overridden by the environment, into
//! one plain typed [`Config`].
//!
//! Promises: what [`Config::load`] returns is valid, every error names its file,
//! line, key, what was expected, what was found and the remedy, and no secret is
//! ever shown. Never: a socket, a thread, or the process's own environment
//! (it is passed in).

mod access;
mod byte_size;
mod check;
mod choice;
mod describe;
mod document;
mod environment;
mod error;
pub mod filter;
mod kind;
pub mod limits;
mod listeners;
mod load;
mod model;
mod names;
mod properties;
mod read;
mod reload;
mod secret;
mod secret_file;
mod section;

pub use byte_size::{ByteSize, ByteSizeError};
pub use error::{ConfigError, ConfigErrors, Origin};
pub use model::{
    Access, Admin, Anonymous, Bootstrap, ClientCertificates, Cluster, Compression, Config,
    DEFAULT_CLUSTER, Format, Gateway, Key, Listener, Log, LogFormat, Mechanism, Mode, Mqtt,
    MqttLimits, Protocol, Rates, Receipts, Route, Rule, Sealing, Security, Settlement, Store,
    Subject, Terminals, Tls, TokenDigest, Trace, Transport, User,
};
pub use reload::ReloadDiff;
pub use secret::{Secret, SecretKey};
pub use section::KnownKey;
