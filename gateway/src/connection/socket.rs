//! A connection's socket: bytes in and out, none asked for twice.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::Shell;
use crate::limits;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; limits::READ_BYTES].into());
}
impl Shell {
    pub(super) fn read(&mut self, stream: &TcpStream) {
        READ.with_borrow_mut(|buffer| match read_once(stream, buffer) {
            Ok(0) => self.connection.handle_transport_lost(),
            Ok(n) => {
                self.input.extend_from_slice(&buffer[..n]);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.connection.handle_transport_lost(),
        });
        self.take_input();
    }

    pub(super) fn write(&mut self, stream: &TcpStream) -> io::Result<()> {
        let out = self.connection.transmit();
        while !out.is_empty() {
            match stream.try_write(out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    out.advance(n);
                    self.write_deadline = None;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let timeout_s = self.broker.limits().write_timeout_s;
                    self.write_deadline.get_or_insert_with(|| {
                        Instant::now() + Duration::from_secs(u64::from(timeout_s))
                    });
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        self.write_deadline = None;
        if out.capacity() > limits::WRITE_BUFFER_KEPT_BYTES {
            *out = BytesMut::new();
        }
        Ok(())
    }

    /// Writes the last bytes (DISCONNECT, CONNACK) for a moment at most.
    pub(super) async fn drain(&mut self, stream: &TcpStream) {
        let give_up = Instant::now() + limits::LAST_WRITE;
        while !self.connection.transmit().is_empty() {
            if self.write(stream).is_err() || self.connection.transmit().is_empty() {
                return;
            }
            tokio::select! {
                _ = stream.writable() => {}
                () = sleep_until(give_up) => return,
            }
        }
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
/// Lets a client read why it is closed: closing a socket while it still sends
/// would reset the connection, and the reason would be lost on the way.
pub(super) async fn linger(stream: &TcpStream) {
    if rustix::net::shutdown(stream, rustix::net::Shutdown::Write).is_err() {
        return;
    }
    let give_up = Instant::now() + limits::LAST_WRITE;
    loop {
        tokio::select! {
            readable = stream.readable() => {
                let read = readable.and_then(|()| {
                    READ.with_borrow_mut(|buffer| stream.try_read(buffer))
                });
                match read {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            () = sleep_until(give_up) => return,
        }
    }
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
