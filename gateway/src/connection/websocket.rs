//! MQTT over WebSocket (MQTT 5.0, section 6; RFC 6455), between bytes and bytes.
//!
//! Promises: only the subprotocol `mqtt` is spoken, in binary messages, whose borders
//! mean nothing; a page of another origin than those allowed is refused; a message is
//! no longer than a packet may be. Never: a socket.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response, ServerHandshake};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::http::{HeaderValue, StatusCode, header};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use crate::admin_guard::is_certain_host;
use crate::limits;

/// The subprotocol (MQTT 5.0, section 6; MQTT-6.0.0-3).
const SUBPROTOCOL: &str = "mqtt";

/// Bytes that came and bytes that go; the library reads and writes here.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    incoming: BytesMut,
    outgoing: BytesMut,
}

impl io::Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut ends = self.0.lock();
        if ends.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = buffer.len().min(ends.incoming.len());
        buffer[..bytes].copy_from_slice(&ends.incoming[..bytes]);
        ends.incoming.advance(bytes);
        Ok(bytes)
    }
}

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Looks at the request for the upgrade.
struct Door {
    origins: Arc<[String]>,
    /// The client has seen the gateway's certificate.
    is_certified: bool,
}

impl Door {
    /// Whether a page of that origin may connect: an allowed one, or the gateway's own,
    /// which some clients that are no browsers give. In clear, a name may be one that
    /// somebody gave the gateway's address (DNS rebinding).
    fn takes(&self, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let is_allowed = self.origins.iter().any(|allowed| allowed == origin);
        let own = origin.split_once("://").map(|(_, authority)| authority);
        let is_own = own.is_some() && own == host.and_then(|host| host.to_str().ok());
        let is_certain = self.is_certified || own.is_some_and(is_certain_host);
        is_allowed || (is_own && is_certain)
    }
}

impl Callback for Door {
    fn on_request(
        self,
        request: &Request,
        mut response: Response,
    ) -> Result<Response, ErrorResponse> {
        let headers = request.headers();
        let offered = headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim() == SUBPROTOCOL);
        if !offered {
            return Err(refusal(
                StatusCode::BAD_REQUEST,
                "offer the subprotocol mqtt (Sec-WebSocket-Protocol)\n",
            ));
        }
        // What is no browser sends none (RFC 6455, section 10.2).
        if let Some(origin) = headers.get(header::ORIGIN)
            && !self.takes(origin, headers.get(header::HOST))
        {
            tracing::info!(
                ?origin,
                "a page's WebSocket was refused: its origin is not among the listener's origins"
            );
            return Err(refusal(
                StatusCode::FORBIDDEN,
                "this page may not connect: its origin is not among the listener's origins\n",
            ));
        }
        response.headers_mut().insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
        Ok(response)
    }
}

fn refusal(status: StatusCode, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(text.to_owned()));
    *response.status_mut() = status;
    response
}

enum Stage {
    Handshake(Box<MidHandshake<ServerHandshake<Pipe, Door>>>),
    Open(Box<WebSocket<Pipe>>),
    Over,
}

/// One connection's WebSocket.
pub(super) struct WebSocketLayer {
    pipe: Pipe,
    stage: Stage,
}

impl WebSocketLayer {
    /// One that waits for its client's request: whose pages may connect, whether TLS is
    /// under it, and how long a packet may be.
    pub fn new(origins: Arc<[String]>, is_certified: bool, packet_bytes_max: usize) -> Self {
        let pipe = Pipe::default();
        // Some clients put a few small packets into a message.
        let most = packet_bytes_max.max(limits::READ_BYTES);
        let config = WebSocketConfig::default()
            .read_buffer_size(limits::WEBSOCKET_READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        let door = Door {
            origins,
            is_certified,
        };
        let handshake = ServerHandshake::start(pipe.clone(), door, Some(config));
        Self {
            pipe,
            stage: Stage::Handshake(Box::new(handshake)),
        }
    }

    /// Whether messages can be exchanged.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Whether bytes wait to go.
    pub fn wants_write(&self) -> bool {
        !self.pipe.0.lock().outgoing.is_empty()
    }

    /// Gives the bytes that go away; what is taken is gone.
    pub fn with_outgoing<T>(
        &mut self,
        give: impl FnOnce(&mut BytesMut) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut ends = self.pipe.0.lock();
        let given = give(&mut ends.outgoing);
        if ends.outgoing.is_empty() {
            ends.outgoing = BytesMut::new();
        }
        given
    }

    /// Takes bytes that came, appends MQTT's. False: the client has closed.
    ///
    /// # Errors
    /// What is not a WebSocket, or not of MQTT; what answers it waits to go.
    pub fn take(&mut self, bytes: &[u8], into: &mut BytesMut) -> io::Result<bool> {
        self.pipe.0.lock().incoming.extend_from_slice(bytes);
        if let Stage::Handshake(_) = &self.stage {
            let Stage::Handshake(handshake) = std::mem::replace(&mut self.stage, Stage::Over)
            else {
                return Ok(false);
            };
            match handshake.handshake() {
                Ok(open) => self.stage = Stage::Open(Box::new(open)),
                Err(HandshakeError::Interrupted(handshake)) => {
                    self.stage = Stage::Handshake(Box::new(handshake));
                    return Ok(true);
                }
                Err(HandshakeError::Failure(error)) => return Err(invalid(error)),
            }
        }
        let Stage::Open(open) = &mut self.stage else {
            return Ok(false);
        };
        loop {
            match open.read() {
                Ok(Message::Binary(part)) => into.extend_from_slice(&part),
                Ok(Message::Text(_)) => {
                    // MQTT-6.0.0-1.
                    let why = CloseFrame {
                        code: CloseCode::Unsupported,
                        reason: "MQTT is sent in binary messages".into(),
                    };
                    let _ = open.close(Some(why));
                    return Err(invalid("a text message"));
                }
                // Answered by the library.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) => {
                    let _ = open.flush();
                    return Ok(false);
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(false),
                Err(error) => {
                    let code = match &error {
                        Error::Capacity(_) => CloseCode::Size,
                        _ => CloseCode::Protocol,
                    };
                    let _ = open.close(Some(CloseFrame {
                        code,
                        reason: "".into(),
                    }));
                    return Err(invalid(error));
                }
            }
        }
        // A pong is on its way at once.
        match open.flush() {
            Ok(()) => Ok(true),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(false),
            Err(error) => Err(invalid(error)),
        }
    }

    /// Takes MQTT's bytes for a message of their own, unless others still wait to go.
    ///
    /// # Errors
    /// The client has closed.
    pub fn put(&mut self, out: &mut BytesMut) -> io::Result<()> {
        if out.is_empty() || self.wants_write() {
            return Ok(());
        }
        let Stage::Open(open) = &mut self.stage else {
            return Ok(());
        };
        let message: Bytes = out.split().freeze();
        open.send(Message::Binary(message)).map_err(invalid)
    }

    /// Says that no more comes.
    pub fn close(&mut self) {
        if let Stage::Open(open) = &mut self.stage {
            let _ = open.close(None);
            let _ = open.flush();
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
