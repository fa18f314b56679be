//! A connection's bytes in and out, none asked for twice.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, sleep_until};

use super::Shell;
use super::transport::Transport;
use crate::limits;

impl Shell {
    pub(super) fn read(&mut self, transport: &mut Transport) {
        match transport.read(&mut self.input) {
            Ok(true) => self.look_at_certificate(transport),
            Ok(false) => self.connection.handle_transport_lost(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    let metrics = &self.broker.metrics;
                    metrics.peer_faults.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(peer = %self.peer, listener = self.listener.name(), "closed: {error}");
                    self.must_linger = true;
                }
                self.connection.handle_transport_lost();
            }
        }
        self.take_input();
    }

    /// Once, when the handshake is over: before the CONNECT that may have come with its
    /// last bytes.
    fn look_at_certificate(&mut self, transport: &Transport) {
        let Some(tls) = transport.tls() else { return };
        if !self.is_shaken && !tls.is_handshaking() {
            self.is_shaken = true;
            self.certificate = self.listener.client(tls);
        }
    }

    /// Writes as much as the socket takes. True: nothing waits any more.
    pub(super) fn write(&mut self, transport: &mut Transport) -> bool {
        let out = self.connection.transmit();
        if self.is_unheard {
            out.clear();
            return true;
        }
        let Ok(written) = transport.write(out) else {
            out.clear();
            self.is_unheard = true;
            // However long its input is held back.
            self.limit_write();
            return true;
        };
        if written.any || written.all {
            self.write_deadline = None;
        }
        if !written.all {
            self.limit_write();
        } else if out.capacity() > limits::WRITE_BUFFER_KEPT_BYTES {
            *out = BytesMut::new();
        }
        written.all
    }

    /// From now on, if it is not limited yet.
    fn limit_write(&mut self) {
        let timeout_s = self.broker.limits().write_timeout_s;
        self.write_deadline
            .get_or_insert_with(|| Instant::now() + Duration::from_secs(u64::from(timeout_s)));
    }

    /// Writes the last bytes (DISCONNECT, CONNACK) for a moment at most.
    pub(super) async fn drain(&mut self, transport: &mut Transport) {
        let give_up = Instant::now() + limits::LAST_WRITE;
        while !self.connection.transmit().is_empty() || transport.wants_write() {
            if self.write(transport) {
                return;
            }
            tokio::select! {
                _ = transport.writable() => {}
                () = sleep_until(give_up) => return,
            }
        }
    }
}

/// Lets a client read why it is closed: closing a socket while it still sends
/// would reset the connection, and the reason would be lost on the way.
pub(super) async fn linger(transport: &Transport) {
    if transport.shut().is_err() {
        return;
    }
    let give_up = Instant::now() + limits::LAST_WRITE;
    loop {
        tokio::select! {
            readable = transport.socket_readable() => {
                match readable.and_then(|()| transport.discard()) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            () = sleep_until(give_up) => return,
        }
    }
}
