//! How a simulated modem reaches its peer.
//!
//! Promises: what it returns is connected. Never: a delay of its own; the
//! network's are the modem's.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::limits::IN_FLIGHT_BYTES_MAX;

/// Makes the connections that a modem is asked for.
pub trait Dialer: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects to a peer.
    fn dial(
        &mut self,
        host: String,
        port: u16,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send + 'static;
}

/// Real TCP, to where the terminal says or to one address for everything.
#[derive(Debug, Clone, Default)]
pub struct TcpDialer {
    instead: Option<SocketAddr>,
}

impl TcpDialer {
    /// To where the terminal says, by this machine's resolver.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Always to this address, whatever the terminal says.
    #[must_use]
    pub fn to(addr: SocketAddr) -> Self {
        Self {
            instead: Some(addr),
        }
    }
}

impl Dialer for TcpDialer {
    type Stream = TcpStream;

    fn dial(
        &mut self,
        host: String,
        port: u16,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send + 'static {
        let instead = self.instead;
        async move {
            let stream = match instead {
                Some(addr) => TcpStream::connect(addr).await?,
                None => TcpStream::connect((host, port)).await?,
            };
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }
}

/// A connection that a modem has made to a peer in memory.
#[derive(Debug)]
pub struct Call {
    /// What the terminal has dialled.
    pub host: String,
    /// What the terminal has dialled.
    pub port: u16,
    /// The peer's end.
    pub stream: DuplexStream,
}

/// Peers in memory: each connection is handed to whoever holds the other end of
/// the channel. When nobody does, it is refused.
#[derive(Debug, Clone)]
pub struct MemoryDialer {
    calls: mpsc::UnboundedSender<Call>,
}

impl MemoryDialer {
    /// A dialer, and the connections that it makes.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Call>) {
        let (calls, made) = mpsc::unbounded_channel();
        (Self { calls }, made)
    }
}

impl Dialer for MemoryDialer {
    type Stream = DuplexStream;

    fn dial(
        &mut self,
        host: String,
        port: u16,
    ) -> impl Future<Output = io::Result<DuplexStream>> + Send + 'static {
        let calls = self.calls.clone();
        async move {
            let (ours, stream) = duplex(IN_FLIGHT_BYTES_MAX);
            let call = Call { host, port, stream };
            match calls.send(call) {
                Ok(()) => Ok(ours),
                Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        }
    }
}
