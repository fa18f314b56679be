//! What carries a test's MQTT bytes: TCP, TLS, WebSocket, and WebSocket over TLS.
//!
//! Blocking, like the client above it. A time limit on the socket holds in every layer.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// A way for bytes, with the socket that it ends in.
pub trait Carrier: Read + Write + Send + Debug {
    /// The socket.
    fn tcp(&self) -> &TcpStream;
}

impl Carrier for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Carrier for Box<dyn Carrier> {
    fn tcp(&self) -> &TcpStream {
        (**self).tcp()
    }
}

impl Carrier for StreamOwned<ClientConnection, TcpStream> {
    fn tcp(&self) -> &TcpStream {
        &self.sock
    }
}

/// Opens a socket.
///
/// # Errors
/// The operating system's.
pub fn tcp(addr: SocketAddr) -> io::Result<TcpStream> {
    prepared(TcpStream::connect(addr)?)
}

/// The same from another loopback address, as another machine would.
///
/// # Errors
/// The operating system's.
pub fn tcp_from(source: Ipv4Addr, addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    connect(&socket, &addr)?;
    prepared(TcpStream::from(socket))
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(crate::wire_client::PATIENCE))?;
    Ok(stream)
}

/// Opens TLS to `localhost` at an address; the handshake is over when it returns.
///
/// # Errors
/// The handshake failed. That the gateway refuses a certificate shows only when the
/// first byte is read (RFC 8446, section 4.4.2.4).
pub fn tls(
    addr: SocketAddr,
    config: &Arc<ClientConfig>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut stream = tcp(addr)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// MQTT's bytes in WebSocket's binary messages.
#[derive(Debug)]
pub struct WebSocketCarrier<C: Carrier> {
    /// The library's client.
    pub socket: WebSocket<C>,
    came: Vec<u8>,
}

/// Opens a WebSocket over a carrier: the subprotocols offered, and an origin.
///
/// # Errors
/// The gateway refused; then its status code is in the text.
pub fn websocket<C: Carrier>(
    carrier: C,
    subprotocols: &str,
    origin: Option<&str>,
) -> io::Result<WebSocketCarrier<C>> {
    let mut request = "ws://localhost/mqtt"
        .into_client_request()
        .map_err(io::Error::other)?;
    let value = |text: &str| text.parse().map_err(io::Error::other);
    if !subprotocols.is_empty() {
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", value(subprotocols)?);
    }
    if let Some(origin) = origin {
        request.headers_mut().insert("Origin", value(origin)?);
    }
    match tungstenite::client(request, carrier) {
        Ok((socket, _)) => Ok(WebSocketCarrier {
            socket,
            came: Vec::new(),
        }),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

impl<C: Carrier> Read for WebSocketCarrier<C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.came.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.came.extend_from_slice(&bytes),
                Ok(Message::Text(text)) => return Err(io::Error::other(text.to_string())),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) => return Err(error),
                Err(tungstenite::Error::ConnectionClosed) => return Ok(0),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let bytes = buffer.len().min(self.came.len());
        buffer[..bytes].copy_from_slice(&self.came[..bytes]);
        self.came.drain(..bytes);
        Ok(bytes)
    }
}

impl<C: Carrier> Write for WebSocketCarrier<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let message = Message::Binary(bytes.to_vec().into());
        self.socket.send(message).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map_err(io::Error::other)
    }
}

impl<C: Carrier> Carrier for WebSocketCarrier<C> {
    fn tcp(&self) -> &TcpStream {
        self.socket.get_ref().tcp()
    }
}
