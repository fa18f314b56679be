//! Risiti's configuration: one TOML file, overridden by the environment, into
//! one plain typed [`Config`].
//!
//! Promises: what [`Config::load`] returns is valid, every error names its file,
//! line, key, what was expected, what was found and the remedy, and no secret is
//! ever shown. Never: a socket, a thread, or the process's own environment
//! (it is passed in).

mod byte_size;
mod choice;
mod model;
mod secret;

pub use byte_size::{ByteSize, ByteSizeError};
pub use model::{
    Admin, Bootstrap, Cluster, Compression, Config, DEFAULT_CLUSTER, Format, Gateway, Key, Log,
    LogFormat, Mechanism, Mode, Mqtt, MqttLimits, Protocol, Route, Security, Store, Terminals,
};
pub use secret::Secret;
