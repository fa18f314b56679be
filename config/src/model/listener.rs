//! `[[listeners]]`: further ways in than `mqtt.listen`, each with its own transport,
//! certificates and clients.
//!
//! Promises: what a listener is not told to take, it does not take. Never: a
//! certificate's content; files are read where TLS is spoken, and again when they
//! change.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Subject;

/// One of `[[listeners]]`. A restart changes it; what stands in its files is taken
/// over while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// For logs and errors; each has its own.
    pub name: String,
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What MQTT is carried by.
    pub transport: Transport,
    /// Allows a listener without TLS on an address that others can reach.
    pub insecure: bool,
    /// TLS 1.3; none: in clear.
    pub tls: Option<Tls>,
    /// Whose connections are taken; empty: everybody's whom `[access]` lets in.
    pub who: Vec<Subject>,
    /// The pages (scheme, host and port) whose scripts may connect by WebSocket; what
    /// is no browser names none, or the gateway itself, and may.
    pub origins: Vec<String>,
}

/// `transport` of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// `tcp`: MQTT's own (MQTT 5.0, section 4.2).
    #[default]
    Tcp,
    /// `websocket`: for browsers (MQTT 5.0, section 6).
    Websocket,
}

/// `[listeners.tls]`: TLS 1.3 (RFC 8446) with PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate of the gateway, and those between it and its authority.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// The authorities whose client certificates are taken; none: none is asked for.
    pub client_ca_file: Option<PathBuf>,
    /// What they have revoked (RFC 5280, section 5).
    pub crl_file: Option<PathBuf>,
    /// Whether a client may come without one.
    pub client_certificates: ClientCertificates,
}

/// `client_certificates` of a listener's TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// `required`: no handshake without one.
    #[default]
    Required,
    /// `optional`: without one a client shows its token.
    Optional,
}

impl Listener {
    /// Whether others on the network can hear what is said.
    #[must_use]
    pub fn is_in_clear(&self) -> bool {
        self.tls.is_none() && !self.listen.ip().is_loopback()
    }
}
