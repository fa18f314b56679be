//! Listening sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::broker::Broker;
use crate::connection;
use crate::limits;

/// Binds a listener that a restart can take over at once.
///
/// # Errors
/// The operating system's.
pub async fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
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
