//! Listening sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::broker::Broker;
use crate::connection;
use crate::limits;

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
    listener: TcpListener,
    broker: Arc<Broker>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
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
                    tokio::spawn(connection::serve(stream, peer, broker.clone(), permit));
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
