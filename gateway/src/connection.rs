//! One TCP connection: the shell around [`risiti_mqtt::Connection`].
//!
//! Promises: everything the client may wait for (PINGRESP, other
//! acknowledgements) goes on while PUBLISHes wait for the disk; nothing it does
//! or leaves undone costs others more than its own bounds; a slow reader is
//! timed out.
//!
//! While nothing happens it holds no read buffer: bytes are read into a buffer
//! of the thread, and only what is not yet a whole packet is kept.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use bytestring::ByteString;
use risiti_mqtt::connection::Closed;
use risiti_mqtt::{
    Accept, CloseCause, Connection, ConnectionLimits, Deliver, Delivery, Event, Message, Qos,
    ReasonCode, Subscription, Version,
};
use risiti_store::{AckSink, StoreError};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::broker::{
    Broker, ConnectionPermit, Delivered, PageRead, Publisher, Seat, Taken, Ungated,
};
use crate::limits;
use crate::mailbox::{Farewell, Mailbox, Settled};
use crate::outgoing::{Next, Outgoing, Queued};

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; limits::READ_BYTES].into());
}

/// Serves one connection until it ends.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    broker: Arc<Broker>,
    permit: ConnectionPermit,
) {
    let mailbox = Arc::new(Mailbox::default());
    let limits = connection_limits(&broker);
    let shell = Shell {
        connection: Connection::new(&limits, broker.monotonic_ms()),
        sink: mailbox.clone(),
        mailbox,
        broker,
        peer,
        seat: None,
        input: BytesMut::new(),
        unsettled: VecDeque::new(),
        answers: Vec::new(),
        next_answer: ANSWERS_FROM,
        page: None,
        retained: VecDeque::new(),
        retained_coming: false,
        write_deadline: None,
        over: None,
    };
    shell.run(stream).await;
    drop(permit);
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

/// Tokens of state batches start here, those of PUBLISHes at 0.
const ANSWERS_FROM: u64 = 1 << 63;

/// The token of retained messages on their way to the session's queue.
const RETAINED: u64 = u64::MAX;

/// What is to be done once a state batch is durable.
enum Answer {
    Subscribed {
        packet_id: u16,
        codes: Vec<ReasonCode>,
        retained: Vec<Subscription>,
    },
    Unsubscribed {
        packet_id: u16,
        codes: Vec<ReasonCode>,
    },
    Completed(u16),
    Released(u16),
}

struct Shell {
    connection: Connection,
    broker: Arc<Broker>,
    mailbox: Arc<Mailbox>,
    sink: Arc<dyn AckSink>,
    peer: SocketAddr,
    seat: Option<Seat>,
    /// Bytes read that are not taken yet.
    input: BytesMut,
    /// Tokens and sizes of PUBLISHes that wait for the disk, oldest first.
    unsettled: VecDeque<(u64, usize)>,
    answers: Vec<(u64, Answer)>,
    next_answer: u64,
    page: Option<JoinHandle<Result<PageRead, StoreError>>>,
    /// New subscriptions whose retained messages are still to be sent, and
    /// behind which topic.
    retained: VecDeque<(Subscription, Option<ByteString>)>,
    /// Some of them are on their way to the session's queue.
    retained_coming: bool,
    /// When the client must have taken some of what waits to be written.
    write_deadline: Option<Instant>,
    over: Option<Box<Closed>>,
}

impl Shell {
    async fn run(mut self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        loop {
            self.work().await;
            match self.write(&stream) {
                Ok(()) => {}
                Err(_) => self.connection.handle_transport_lost(),
            }
            // Writing may have made room for deliveries, or ended it all.
            self.work().await;
            if let Some(closed) = &self.over {
                let ours = !matches!(
                    closed.cause,
                    CloseCause::ClientDisconnected(_) | CloseCause::TransportLost
                );
                self.drain(&stream).await;
                self.end();
                if ours {
                    linger(&stream).await;
                }
                return;
            }
            self.connection.release_spare_memory();
            self.wait(&stream).await;
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

    fn take_input(&mut self) {
        if !self.input.is_empty() {
            self.connection.hold_publishes(self.broker.is_saturated());
            self.connection
                .handle_input(self.broker.monotonic_ms(), &mut self.input);
        }
        if self.input.is_empty() {
            // Keep no block alive behind an idle connection.
            self.input = BytesMut::new();
        }
    }

    async fn wait(&mut self, stream: &TcpStream) {
        // A connection that is told to go takes no more work.
        let reads = self.connection.wants_input() && self.mailbox.farewell().is_none();
        let saturated = !self.connection.wants_input() && self.broker.is_saturated();
        let writes = !self.connection.transmit().is_empty();
        let deadline = self.deadline(saturated);
        let mailbox = self.mailbox.clone();
        let broker = self.broker.clone();
        tokio::select! {
            () = mailbox.ready() => {}
            read = stream.readable(), if reads => {
                if read.is_err() {
                    self.connection.handle_transport_lost();
                } else {
                    self.read(stream);
                }
            }
            _ = stream.writable(), if writes => {}
            () = broker.unsaturated(), if saturated => self.take_input(),
            page = async { match self.page.as_mut() {
                Some(page) => page.await,
                None => std::future::pending().await,
            } } => {
                self.page = None;
                self.page_in(page);
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
        let recheck = saturated.then(|| now + limits::SATURATED_RECHECK);
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

    fn read(&mut self, stream: &TcpStream) {
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

    fn write(&mut self, stream: &TcpStream) -> io::Result<()> {
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
    async fn drain(&mut self, stream: &TcpStream) {
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

    fn take_settled(&mut self) {
        for settled in self.mailbox.take_settled() {
            match settled {
                Settled::Publish(RETAINED, _) | Settled::Abandoned(RETAINED) => {
                    self.retained_coming = false;
                }
                Settled::Publish(token, reason) => self.publish_settled(token, reason, None),
                // No acknowledgement; the client sends it again some day.
                Settled::Abandoned(token) if token < ANSWERS_FROM => self.forget(token),
                Settled::Committed(token) => self.answer(token),
                Settled::Abandoned(token) => {
                    self.answers.retain(|(t, _)| *t != token);
                    self.connection
                        .close(ReasonCode::ServerUnavailable, "the gateway stops");
                }
            }
        }
    }

    fn publish_settled(&mut self, token: u64, reason: ReasonCode, text: Option<&str>) {
        self.forget(token);
        // A v3.1.1 client can't be told; its record is kept as a dead letter.
        let reason = if reason == ReasonCode::PayloadFormatInvalid
            && self.connection.version() == Some(Version::V311)
        {
            ReasonCode::Success
        } else {
            reason
        };
        if reason == ReasonCode::Success {
            self.broker
                .metrics
                .acknowledged
                .fetch_add(1, Ordering::Relaxed);
        }
        self.connection.publish_settled(token, reason, text);
    }

    fn forget(&mut self, token: u64) {
        if let Some(index) = self.unsettled.iter().position(|(t, _)| *t == token)
            && let Some((_, bytes)) = self.unsettled.remove(index)
        {
            self.broker.remove_ungated(bytes);
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Connect(request) => self.connect(&request).await,
            Event::Publish {
                token,
                message,
                packet_id,
                dup,
            } => self.publish(token, message, packet_id, dup),
            Event::PublishRelease { packet_id } => {
                let batch = self
                    .seat
                    .as_ref()
                    .and_then(|s| self.broker.release(s, packet_id));
                self.answer_when_durable(batch, Answer::Completed(packet_id));
            }
            Event::Subscribe { packet_id, filters } => {
                let Some(seat) = self.seat.clone() else {
                    return;
                };
                let done = self.broker.subscribe(&seat, filters).await;
                self.answer_when_durable(
                    done.batch,
                    Answer::Subscribed {
                        packet_id,
                        codes: done.codes,
                        retained: done.retained,
                    },
                );
            }
            Event::Unsubscribe { packet_id, filters } => {
                let Some(seat) = self.seat.clone() else {
                    return;
                };
                let (codes, batch) = self.broker.unsubscribe(&seat, &filters).await;
                self.answer_when_durable(batch, Answer::Unsubscribed { packet_id, codes });
            }
            Event::Acked { packet_id, .. } => {
                if let Some(seat) = &self.seat {
                    self.broker.delivered(seat, packet_id);
                }
            }
            Event::Received { packet_id } => {
                let batch = self
                    .seat
                    .as_ref()
                    .and_then(|s| self.broker.received(s, packet_id));
                self.answer_when_durable(batch, Answer::Released(packet_id));
            }
            Event::Closed(closed) => self.over = Some(closed),
        }
    }

    async fn connect(&mut self, request: &risiti_mqtt::ConnectRequest) {
        let connected = match self.broker.connect(request, &self.mailbox).await {
            Ok(connected) => connected,
            Err((reason, text)) => {
                self.connection.refuse(reason, text);
                return;
            }
        };
        let keepalive_max_s = self.broker.limits().keepalive_s_max;
        let keep_alive_s = request.keep_alive_s;
        let server_keep_alive_s = (keepalive_max_s != 0
            && (keep_alive_s == 0 || keep_alive_s > keepalive_max_s))
            .then_some(keepalive_max_s);
        tracing::debug!(
            peer = %self.peer, client = %connected.seat.session.client_id,
            session_present = connected.session_present, version = ?request.version, "connected"
        );
        self.connection.accept(
            self.broker.monotonic_ms(),
            &Accept {
                session_present: connected.session_present,
                assigned_client_id: connected.assigned_client_id.as_deref(),
                session_expiry_s: (connected.session_expiry_s != request.session_expiry_s)
                    .then_some(connected.session_expiry_s),
                server_keep_alive_s,
                unreleased: &connected.unreleased,
            },
        );
        self.seat = Some(connected.seat);
        self.take_input();
    }

    fn publish(&mut self, token: u64, message: Message, packet_id: u16, dup: bool) {
        let Some(seat) = &self.seat else { return };
        let publisher = Publisher {
            session: &seat.session,
            epoch: seat.epoch,
            mailbox: &self.mailbox,
            sink: &self.sink,
        };
        let message = message.detach();
        let bytes = limits::UNSETTLED_OVERHEAD_BYTES
            + message.payload.len()
            + message.topic.len()
            + message.properties.len();
        let qos = message.qos;
        let how = Delivered {
            packet_id,
            dup,
            token,
        };
        self.unsettled.push_back((token, bytes));
        self.broker.add_ungated(bytes);
        match self.broker.publish(&publisher, message, how) {
            Taken::Later if qos == Qos::AtMostOnce => {}
            Taken::Later | Taken::Superseded => {}
            Taken::Now(reason, text) => {
                if reason.is_error() {
                    tracing::info!(peer = %self.peer, client = self.client(), %reason, ?text, "PUBLISH refused");
                }
                self.publish_settled(token, reason, text);
            }
        }
    }

    /// Answers at once if nothing has to be durable first.
    fn answer_when_durable(&mut self, batch: Option<risiti_store::state::Batch>, answer: Answer) {
        let token = self.next_answer;
        self.next_answer += 1;
        self.answers.push((token, answer));
        match batch {
            None => self.answer(token),
            Some(batch) => {
                if let Err(error) = self.broker.submit_for(batch, &self.mailbox, token) {
                    tracing::warn!(%error, client = self.client(), "closed: the session can't be stored now");
                    self.connection
                        .close(ReasonCode::ServerBusy, "too much waits for the disk");
                }
            }
        }
    }

    fn answer(&mut self, token: u64) {
        let Some(index) = self.answers.iter().position(|(t, _)| *t == token) else {
            return;
        };
        match self.answers.remove(index).1 {
            Answer::Subscribed {
                packet_id,
                codes,
                retained,
            } => {
                self.connection.subscribed(packet_id, &codes, None);
                self.retained.extend(
                    retained
                        .into_iter()
                        .map(|subscription| (subscription, None)),
                );
            }
            Answer::Unsubscribed { packet_id, codes } => {
                self.connection.unsubscribed(packet_id, &codes, None);
            }
            Answer::Completed(packet_id) => self.connection.publish_completed(packet_id),
            Answer::Released(packet_id) => self.connection.released(packet_id),
        }
    }

    /// Sends what the session is owed, as far as window and buffer allow.
    fn deliver(&mut self) {
        self.mailbox.take_deliver();
        let Some(seat) = self.seat.clone() else {
            return;
        };
        if !self.connection.is_open() {
            return;
        }
        let unix_ms = self.broker.now_ms();
        loop {
            if self.connection.transmit().len() >= limits::WRITE_WAITING_BYTES {
                return;
            }
            let window = self.connection.send_window();
            let (next, wanted) = {
                let mut state = seat.session.lock();
                if state.epoch != seat.epoch {
                    return;
                }
                (state.outgoing.next(window), state.outgoing.wanted())
            };
            match next {
                Some(Next::Deliver(queued)) => self.send(&seat, &queued, unix_ms),
                Some(Next::Release(sequence)) => {
                    self.connection
                        .resume_release(Outgoing::packet_id(sequence));
                }
                None => {
                    if let (Some(page), None) = (wanted, &self.page) {
                        let broker = self.broker.clone();
                        let seat = seat.clone();
                        self.page = Some(tokio::task::spawn_blocking(move || {
                            broker.read_page(&seat, page)
                        }));
                    }
                    self.feed_retained(&seat);
                    return;
                }
            }
        }
    }

    /// Has the next retained messages queued once what was queued is sent.
    fn feed_retained(&mut self, seat: &Seat) {
        while !self.retained_coming
            && self.page.is_none()
            && seat.session.lock().outgoing.is_drained()
        {
            let Some((subscription, after)) = self.retained.pop_front() else {
                return;
            };
            let (next, coming) = self.broker.send_retained(
                seat,
                &subscription,
                after.as_ref(),
                &self.mailbox,
                RETAINED,
            );
            self.retained_coming = coming;
            if next.is_some() {
                self.retained.push_front((subscription, next));
            }
        }
    }

    fn send(&mut self, seat: &Seat, queued: &Queued, unix_ms: u64) {
        let waited_s = (unix_ms.saturating_sub(queued.received_ms) / 1000) as u32;
        let expiry_s = match queued.message.expiry_s {
            Some(expiry_s) if waited_s >= expiry_s => {
                self.broker.expired(seat, queued);
                return;
            }
            other => other.map(|expiry_s| expiry_s - waited_s),
        };
        let packet_id = if queued.sequence == 0 {
            0
        } else {
            Outgoing::packet_id(queued.sequence)
        };
        let outcome = self.connection.deliver(&Delivery {
            packet_id,
            message: &queued.message,
            qos: queued.qos,
            retain: queued.retain,
            dup: queued.dup,
            subscription_ids: &queued.subscription_ids,
            expiry_s,
        });
        match outcome {
            Deliver::Delivered => {}
            Deliver::TooLarge => {
                tracing::info!(client = self.client(), topic = %queued.message.topic, "a delivery is larger than the client takes; it is dropped");
                if queued.sequence != 0 {
                    self.broker.delivered(seat, packet_id);
                }
            }
            // Window and buffer were looked at before; should they disagree, the
            // row is still there and the next connection gets it.
            Deliver::WindowFull | Deliver::TransmitFull | Deliver::NotOpen => {
                tracing::warn!(
                    client = self.client(),
                    ?outcome,
                    "a delivery waits for the next connection"
                );
            }
        }
    }

    fn page_in(&mut self, page: Result<Result<PageRead, StoreError>, tokio::task::JoinError>) {
        let Some(seat) = self.seat.clone() else {
            return;
        };
        match page {
            Ok(Ok(read)) => self.broker.page_in(&seat, read),
            Ok(Err(error)) => {
                tracing::warn!(%error, client = self.client(), "queued messages can't be read now");
                self.connection
                    .close(ReasonCode::ServerBusy, "queued messages can't be read now");
            }
            Err(error) => {
                tracing::error!(%error, client = self.client(), "reading queued messages failed");
                self.connection
                    .close(ReasonCode::UnspecifiedError, "internal error");
            }
        }
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

/// Lets a client read why it is closed: closing a socket while it still sends
/// would reset the connection, and the reason would be lost on the way.
async fn linger(stream: &TcpStream) {
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
