//! Listening sockets, and what is spoken on each.

use std::net::SocketAddr;
use std::sync::Arc;

use risiti_config::{Subject, Transport};
use rustls::ServerConnection;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::access::Who;
use crate::broker::Broker;
use crate::connection;
use crate::limits;
use crate::tls::{PeerCertificate, Tls, TlsError};

/// One way in for MQTT clients.
#[derive(Debug)]
pub struct Listener {
    name: String,
    tls: Option<Arc<Tls>>,
    /// With WebSocket: the pages that may connect.
    origins: Option<Arc<[String]>>,
    /// Whose connections are taken; empty: everybody's.
    who: Vec<Subject>,
}

impl Listener {
    /// That of `[mqtt]`: plain TCP, for whoever `[access]` lets in.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            name: "mqtt".into(),
            tls: None,
            origins: None,
            who: Vec::new(),
        }
    }

    /// One of `[[listeners]]`. Reads its certificates.
    ///
    /// # Errors
    /// Its files do not make a TLS configuration.
    pub fn new(listener: &risiti_config::Listener) -> Result<Self, TlsError> {
        let tls = match &listener.tls {
            Some(files) => Some(Arc::new(Tls::open(&listener.name, files)?)),
            None => None,
        };
        let is_websocket = listener.transport == Transport::Websocket;
        Ok(Self {
            name: listener.name.clone(),
            tls,
            origins: is_websocket.then(|| listener.origins.clone().into()),
            who: listener.who.clone(),
        })
    }

    /// For logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// TLS, if it speaks it.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// The pages that may connect, if it speaks WebSocket.
    #[must_use]
    pub fn origins(&self) -> Option<Arc<[String]>> {
        self.origins.clone()
    }

    /// TLS for a connection that was just accepted, if it speaks it.
    ///
    /// # Errors
    /// The library's.
    pub fn accept_tls(&self) -> Result<Option<ServerConnection>, rustls::Error> {
        self.tls.as_ref().map(|tls| tls.accept()).transpose()
    }

    /// Who a client is by its certificate.
    #[must_use]
    pub fn client(&self, tls: &ServerConnection) -> Option<Arc<PeerCertificate>> {
        self.tls.as_ref()?.client(tls).map(Arc::new)
    }

    /// Whether it takes somebody's connections.
    #[must_use]
    pub fn is_for(&self, who: &Who) -> bool {
        let is = |subject: &Subject| match (subject, who) {
            (Subject::Terminal, Who::Terminal(_)) => true,
            (Subject::User(name), Who::User(user)) => name == &**user,
            (Subject::Anonymous, Who::Anonymous) => true,
            _ => false,
        };
        self.who.is_empty() || self.who.iter().any(is)
    }
}

/// Takes an address that a restart can take over at once. Nobody can connect
/// until [`listen`].
///
/// # Errors
/// The operating system's: somebody listens there, or it is not ours.
pub fn reserve(addr: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// Lets clients connect.
///
/// # Errors
/// The operating system's: somebody else began to listen there meanwhile.
pub fn listen(socket: TcpSocket) -> std::io::Result<TcpListener> {
    socket.listen(limits::LISTEN_BACKLOG)
}

/// Accepts MQTT connections until told to stop.
pub async fn accept(
    socket: TcpListener,
    listener: Arc<Listener>,
    broker: Arc<Broker>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopping.changed() => return,
        };
        match accepted {
            // Closed at once: it costs no more than that.
            Ok((_, peer))
                if !broker
                    .access()
                    .takes_connection(peer.ip(), broker.monotonic_ms()) =>
            {
                tracing::debug!(%peer, "refused: its address opens connections too fast (access.connects_per_address_per_s_max)");
            }
            Ok((stream, peer)) => match broker.take_connection() {
                Some(permit) => {
                    let (listener, broker) = (listener.clone(), broker.clone());
                    tokio::spawn(connection::serve(stream, peer, listener, broker, permit));
                }
                None => {
                    tracing::warn!(%peer, "refused: as many connections are open as may be (mqtt.connections_max)");
                }
            },
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to be freed.
                tracing::error!(%error, "a connection can't be accepted; raise the limit of open files (LimitNOFILE)");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}
