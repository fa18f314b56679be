//! One TCP connection: the shell around [`risiti_mqtt::Connection`].
//!
//! Promises: everything the client may wait for (PINGRESP, other
//! acknowledgements) goes on while PUBLISHes wait for the disk; nothing it does
//! or leaves undone costs others more than its own bounds; a slow reader is
//! timed out.
//!
//! While nothing happens it holds no read buffer: bytes are read into a buffer
//! of the thread, and only what is not yet a whole packet is kept.

//! The parts: `transport` and `websocket` (the layers that carry its bytes), `socket`
//! (bytes in and out), `events` (what the client asks and
//! what it is answered), `delivery` (what its session is owed), `receipts` (what
//! its terminal is owed).

mod delivery;
mod events;
mod receipts;
mod socket;
mod transport;
mod websocket;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use bytestring::ByteString;
use risiti_mqtt::connection::Closed;
use risiti_mqtt::{CloseCause, Connection, ConnectionLimits, ReasonCode, Subscription};
use risiti_store::{AckSink, StoreError};
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};

use crate::broker::{Broker, ConnectionPermit, PageRead, ReceiptsPage, Seat, Ungated};
use crate::limits;
use crate::listener::Listener;
use crate::mailbox::{Farewell, Mailbox};
use crate::tls::PeerCertificate;

use events::Answer;
use socket::linger;
use transport::Transport;
use websocket::WebSocketLayer;

/// Serves one connection until it ends.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    listener: Arc<Listener>,
    broker: Arc<Broker>,
    permit: ConnectionPermit,
) {
    let Some(transport) = transport(stream, &listener, &broker) else {
        return;
    };
    let mailbox = Arc::new(Mailbox::default());
    let limits = connection_limits(&broker);
    let shell = Shell {
        connection: Connection::new(&limits, broker.monotonic_ms()),
        sink: mailbox.clone(),
        mailbox,
        broker,
        peer,
        listener,
        is_shaken: false,
        certificate: None,
        must_linger: false,
        seat: None,
        input: BytesMut::new(),
        unsettled: VecDeque::new(),
        answers: Vec::new(),
        next_answer: ANSWERS_FROM,
        page: None,
        receipts_page: None,
        receipts_turn: true,
        retained: VecDeque::new(),
        retained_coming: false,
        write_deadline: None,
        is_unheard: false,
        held_until_ms: 0,
        over: None,
    };
    shell.run(transport).await;
    drop(permit);
}

/// The layers that a listener's connections have.
fn transport(stream: TcpStream, listener: &Listener, broker: &Broker) -> Option<Transport> {
    let tls = match listener.accept_tls() {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(listener = listener.name(), %error, "a connection was refused: TLS can't be spoken");
            return None;
        }
    };
    let packet_bytes_max = broker.limits().packet_bytes_max.bytes() as usize;
    let websocket = listener
        .origins()
        .map(|origins| WebSocketLayer::new(origins, tls.is_some(), packet_bytes_max));
    Some(Transport::new(stream, tls, websocket))
}

/// The bounds of `[mqtt]` as one connection takes them.
fn connection_limits(broker: &Broker) -> ConnectionLimits {
    let configured = broker.limits();
    ConnectionLimits {
        packet_bytes_max: configured.packet_bytes_max.bytes() as u32,
        receive_maximum: configured.receive_maximum,
        topic_alias_maximum: configured.topic_alias_maximum,
        connect_timeout_ms: configured.connect_timeout_s * 1000,
        ..ConnectionLimits::default()
    }
}
/// Resolves with what a task found, if there is one.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Tokens of state batches start here, those of PUBLISHes at 0.
const ANSWERS_FROM: u64 = 1 << 63;

/// The token of retained messages on their way to the session's queue.
const RETAINED: u64 = u64::MAX;
struct Shell {
    connection: Connection,
    broker: Arc<Broker>,
    mailbox: Arc<Mailbox>,
    sink: Arc<dyn AckSink>,
    peer: SocketAddr,
    /// Where it came in.
    listener: Arc<Listener>,
    /// The TLS handshake is over.
    is_shaken: bool,
    /// What the client has shown in it.
    certificate: Option<Arc<PeerCertificate>>,
    /// A layer refused what came: its answer is given time to arrive.
    must_linger: bool,
    seat: Option<Seat>,
    /// Bytes read that are not taken yet.
    input: BytesMut,
    /// Tokens and sizes of PUBLISHes that wait for the disk, oldest first.
    unsettled: VecDeque<(u64, usize)>,
    answers: Vec<(u64, Answer)>,
    next_answer: u64,
    page: Option<JoinHandle<Result<PageRead, StoreError>>>,
    receipts_page: Option<JoinHandle<Result<ReceiptsPage, StoreError>>>,
    /// Receipts and messages take turns: a window of one serves both.
    receipts_turn: bool,
    /// New subscriptions whose retained messages are still to be sent, and
    /// behind which topic.
    retained: VecDeque<(Subscription, Option<ByteString>)>,
    /// Some of them are on their way to the session's queue.
    retained_coming: bool,
    /// When the client must have taken some of what waits to be written.
    write_deadline: Option<Instant>,
    /// Nothing can be written any more. What the client sent before is still taken: the
    /// reading tells when there is no more.
    is_unheard: bool,
    /// Until then its PUBLISHes stay unread: it has sent more than it may.
    held_until_ms: u64,
    over: Option<Box<Closed>>,
}
impl Shell {
    async fn run(mut self, mut transport: Transport) {
        loop {
            self.work().await;
            self.write(&mut transport);
            // Writing may have made room for deliveries, or ended it all.
            self.work().await;
            if let Some(closed) = &self.over {
                let ours = !matches!(
                    closed.cause,
                    CloseCause::ClientDisconnected(_) | CloseCause::TransportLost
                ) || self.must_linger;
                self.drain(&mut transport).await;
                transport.close();
                self.drain(&mut transport).await;
                self.end();
                if ours {
                    linger(&transport).await;
                }
                return;
            }
            self.connection.release_spare_memory();
            self.wait(&mut transport).await;
        }
    }

    /// Does all that can be done without waiting for the network or the disk.
    async fn work(&mut self) {
        loop {
            self.take_settled();
            if let Some(why) = self.mailbox.farewell() {
                self.say_farewell(why);
            }
            // What was settled may have opened the window for what was read.
            self.take_input();
            let mut busy = false;
            while let Some(event) = self.connection.poll_event() {
                busy = true;
                self.handle(event).await;
            }
            self.deliver();
            if !busy {
                return;
            }
        }
    }

    fn is_held(&self) -> bool {
        self.broker.monotonic_ms() < self.held_until_ms
    }

    fn take_input(&mut self) {
        if !self.input.is_empty() {
            let holds = self.broker.is_saturated() || self.is_held();
            self.connection.hold_publishes(holds);
            self.connection
                .handle_input(self.broker.monotonic_ms(), &mut self.input);
        }
        if self.input.is_empty() {
            // Keep no block alive behind an idle connection.
            self.input = BytesMut::new();
        }
    }

    async fn wait(&mut self, transport: &mut Transport) {
        // A connection that is told to go takes no more work.
        let reads = self.connection.wants_input() && self.mailbox.farewell().is_none();
        let saturated = !self.connection.wants_input() && self.broker.is_saturated();
        let writes =
            !self.is_unheard && (!self.connection.transmit().is_empty() || transport.wants_write());
        let deadline = self.deadline(saturated);
        let mailbox = self.mailbox.clone();
        let broker = self.broker.clone();
        tokio::select! {
            () = mailbox.ready() => {}
            read = transport.readable(), if reads => {
                if read.is_err() {
                    self.connection.handle_transport_lost();
                } else {
                    self.read(transport);
                }
            }
            _ = transport.writable(), if writes => {}
            () = broker.unsaturated(), if saturated => self.take_input(),
            page = finished(&mut self.page) => {
                self.page = None;
                self.page_in(page);
            }
            page = finished(&mut self.receipts_page) => {
                self.receipts_page = None;
                self.receipts_in(page);
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.timeout();
            }
        }
    }

    /// When to look at the clock next.
    fn deadline(&self, saturated: bool) -> Option<Instant> {
        let now_ms = self.broker.monotonic_ms();
        let now = Instant::now();
        let protocol = self
            .connection
            .poll_timeout()
            .map(|at_ms| now + Duration::from_millis(at_ms.saturating_sub(now_ms)));
        let waits = saturated || (!self.connection.wants_input() && self.is_held());
        let recheck = waits.then(|| now + limits::SATURATED_RECHECK);
        [protocol, recheck, self.write_deadline]
            .into_iter()
            .flatten()
            .min()
    }

    fn timeout(&mut self) {
        if self.write_deadline.is_some_and(|at| at <= Instant::now()) {
            tracing::info!(peer = %self.peer, client = self.client(), "closed: the client takes no bytes");
            self.connection.handle_transport_lost();
            self.connection.transmit().clear();
            return;
        }
        self.connection.handle_timeout(self.broker.monotonic_ms());
        self.take_input();
    }

    fn say_farewell(&mut self, why: Farewell) {
        let (reason, text) = match why {
            Farewell::TakenOver => (
                ReasonCode::SessionTakenOver,
                "another connection of the same client identifier",
            ),
            // What waits for the disk is still acknowledged first.
            Farewell::ShuttingDown if !self.unsettled.is_empty() => return,
            Farewell::ShuttingDown => (ReasonCode::ServerShuttingDown, "the gateway stops"),
            Farewell::Administrative => (ReasonCode::AdministrativeAction, "ended by an operator"),
        };
        self.connection.close(reason, text);
    }

    fn client(&self) -> &str {
        self.seat.as_ref().map_or("", |s| &s.session.client_id)
    }

    fn end(mut self) {
        if let Some(page) = self.receipts_page.take() {
            page.abort(); // gives its place in the row away
        }
        // What the disk still has to take counts until it has.
        let unsettled_bytes = self.unsettled.iter().map(|(_, bytes)| bytes).sum();
        self.mailbox
            .keep(Ungated::new(&self.broker, unsettled_bytes));
        let Some(closed) = self.over.take() else {
            return;
        };
        match &closed.cause {
            CloseCause::Peer { .. } | CloseCause::PublishRefused { .. } => {
                self.broker
                    .metrics
                    .peer_faults
                    .fetch_add(1, Ordering::Relaxed);
                tracing::warn!(peer = %self.peer, client = self.client(), "closed: {}", closed.cause);
            }
            cause => tracing::debug!(peer = %self.peer, client = self.client(), "closed: {cause}"),
        }
        if let Some(seat) = &self.seat {
            self.broker.disconnected(seat, &closed);
        }
    }
}
