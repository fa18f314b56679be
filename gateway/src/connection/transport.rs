//! A connection's way to its client: a socket, and over it TLS and WebSocket if its
//! listener speaks them.
//!
//! Promises: what is read comes out as MQTT's bytes, in order; what is written is on
//! its way only when the socket has taken it; no layer keeps more than a read of
//! bytes that came, one WebSocket message that is not whole, and what waits for the
//! socket. Plain TCP passes through without a copy more. Never: a wait; only
//! `readable` and `writable` do.

use std::cell::RefCell;
use std::io;

use bytes::{Buf, BytesMut};
use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::websocket::WebSocketLayer;
use crate::limits;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; limits::READ_BYTES].into());
}

/// One connection's layers.
pub(super) struct Transport {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    websocket: Option<Box<WebSocketLayer>>,
    /// The client has closed a layer: no bytes come any more.
    closed: bool,
}

/// How far a write came.
pub(super) struct Written {
    /// The socket took something.
    pub any: bool,
    /// Nothing waits any more.
    pub all: bool,
}

impl Transport {
    pub fn new(
        socket: TcpStream,
        tls: Option<ServerConnection>,
        websocket: Option<WebSocketLayer>,
    ) -> Self {
        let _ = socket.set_nodelay(true);
        Self {
            socket,
            tls: tls.map(Box::new),
            websocket: websocket.map(Box::new),
            closed: false,
        }
    }

    /// TLS, if it is spoken.
    pub fn tls(&self) -> Option<&ServerConnection> {
        self.tls.as_deref()
    }

    /// Resolves when there may be something to read.
    pub async fn readable(&self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        self.socket_readable().await
    }

    /// The same for the socket itself, whatever was said over it.
    pub async fn socket_readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Resolves when the socket may take something.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Whether a layer has something for the socket.
    pub fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
            || self.websocket.as_ref().is_some_and(|ws| ws.wants_write())
    }

    /// Reads once, and appends MQTT's bytes; there may be none yet. False: the client
    /// has closed.
    ///
    /// # Errors
    /// The socket's, `WouldBlock` among them; what a layer can't take.
    pub fn read(&mut self, into: &mut BytesMut) -> io::Result<bool> {
        if self.closed {
            return Ok(false);
        }
        READ.with_borrow_mut(|buffer| {
            let bytes = read_once(&self.socket, buffer)?;
            if bytes == 0 {
                return Ok(false);
            }
            match (&mut self.tls, &mut self.websocket) {
                (None, None) => into.extend_from_slice(&buffer[..bytes]),
                (None, Some(ws)) => self.closed |= !ws.take(&buffer[..bytes], into)?,
                (Some(tls), None) => self.closed |= !decrypt(tls, &buffer[..bytes], into)?,
                (Some(tls), Some(ws)) => {
                    let mut plain = BytesMut::new();
                    self.closed |= !decrypt(tls, &buffer[..bytes], &mut plain)?;
                    self.closed |= !ws.take(&plain, into)?;
                }
            }
            Ok(true)
        })
    }

    /// Writes as much as the socket takes; what it took, or a layer keeps for it, is
    /// gone from `out`.
    ///
    /// # Errors
    /// The socket's.
    pub fn write(&mut self, out: &mut BytesMut) -> io::Result<Written> {
        let mut any = false;
        loop {
            let all = match (&mut self.tls, &mut self.websocket) {
                (None, None) => write_plain(&self.socket, out, &mut any)?,
                (None, Some(ws)) => {
                    ws.put(out)?;
                    ws.with_outgoing(|framed| write_plain(&self.socket, framed, &mut any))?
                }
                (Some(tls), None) => encrypt(&self.socket, tls, out, &mut any)?,
                (Some(tls), Some(ws)) => {
                    ws.put(out)?;
                    ws.with_outgoing(|framed| encrypt(&self.socket, tls, framed, &mut any))?
                }
            };
            if !all {
                return Ok(Written { any, all: false });
            }
            if out.is_empty() && !self.wants_write() {
                return Ok(Written { any, all: true });
            }
            if self.websocket.as_ref().is_some_and(|ws| !ws.is_open()) {
                // Before its handshake and after its end nothing can be said.
                out.clear();
                return Ok(Written { any, all: true });
            }
        }
    }

    /// Says in every layer that no more comes; the next write sends it.
    pub fn close(&mut self) {
        if let Some(ws) = &mut self.websocket {
            ws.close();
            if let Some(tls) = &mut self.tls {
                use io::Write;
                // A record at most: it fits.
                let _ = ws.with_outgoing(|framed| {
                    let taken = tls.writer().write(framed)?;
                    framed.advance(taken);
                    Ok(true)
                });
            }
        }
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
    }

    /// Throws away what still comes. False: the client's half has ended.
    ///
    /// # Errors
    /// The socket's, `WouldBlock` among them.
    pub fn discard(&self) -> io::Result<bool> {
        let read = READ.with_borrow_mut(|buffer| self.socket.try_read(buffer))?;
        Ok(read > 0)
    }

    /// Tells the client's side of the socket that no more comes.
    pub fn shut(&self) -> io::Result<()> {
        rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write).map_err(Into::into)
    }
}

/// Reads once. Bytes that do not fill the buffer are all there were: the socket
/// counts as drained, and is not asked again only to say so. A close that the
/// kernel has seen meanwhile stays known to the runtime.
fn read_once(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = None;
    let again = stream.try_io(Interest::READABLE, || {
        let bytes = rustix::io::read(stream, &mut *buffer)?;
        read = Some(bytes);
        if bytes == 0 || bytes == buffer.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    });
    match (read, again) {
        (Some(bytes), _) => Ok(bytes),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Ok(0),
    }
}

/// True: all of it was taken; false: the socket is full.
fn write_plain(socket: &TcpStream, out: &mut BytesMut, any: &mut bool) -> io::Result<bool> {
    while !out.is_empty() {
        match socket.try_write(out) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => {
                out.advance(taken);
                *any = true;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// A socket for what writes by itself.
struct Sink<'a>(&'a TcpStream);

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same through TLS, with what TLS itself has to say.
fn encrypt(
    socket: &TcpStream,
    tls: &mut ServerConnection,
    out: &mut BytesMut,
    any: &mut bool,
) -> io::Result<bool> {
    use io::Write;
    loop {
        if !out.is_empty() {
            // As much as its own buffer takes (64 KiB).
            let taken = tls.writer().write(out)?;
            out.advance(taken);
        }
        while tls.wants_write() {
            match tls.write_tls(&mut Sink(socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => *any = true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        if out.is_empty() {
            return Ok(true);
        }
    }
}

/// Takes encrypted bytes, appends what they say. False: the client has said that no
/// more comes.
fn decrypt(tls: &mut ServerConnection, mut bytes: &[u8], into: &mut BytesMut) -> io::Result<bool> {
    use io::Read;
    while !bytes.is_empty() {
        if tls.read_tls(&mut bytes)? == 0 {
            return Ok(false);
        }
        let state = tls
            .process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let plain = state.plaintext_bytes_to_read();
        if plain > 0 {
            let before = into.len();
            into.resize(before + plain, 0);
            tls.reader().read_exact(&mut into[before..])?;
        }
        if state.peer_has_closed() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn short_and_full_reads_find_every_byte_and_the_close() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let sending = sent.clone();
        let writer = tokio::spawn(async move {
            for part in sending.chunks(333) {
                client.write_all(part).await.unwrap();
            }
        });
        let mut received = Vec::new();
        let mut buffer = [0; 1_000];
        loop {
            server.readable().await.unwrap();
            match read_once(&server, &mut buffer) {
                Ok(0) => break,
                Ok(bytes) => received.extend_from_slice(&buffer[..bytes]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        writer.await.unwrap();
        assert!(received == sent);
    }
}
