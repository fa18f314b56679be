//! One connection to the village's gateway, by the real gateway's protocol core.
//!
//! Promises: PUBACK after the time that a disk takes, and not at all if the
//! gateway went down before; receipts to a subscribed terminal only, with DUP if
//! they may have come before. Never: a look at what a record says.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use risiti_mqtt::{
    Accept, ConnectRequest, Connection, ConnectionLimits, Deliver, Delivery, Event, Message, Qos,
    ReasonCode,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::traffic::Packets;
use super::{Seat, Traffic, Village};

/// What waits for the disk.
struct Unsettled {
    at_ms: u64,
    token: u64,
    what: What,
}

enum What {
    Record(Bytes),
    Status(Bytes),
    Other(ReasonCode),
}

/// The shell of one connection.
pub(super) struct Shell {
    village: Village,
    connection: Connection,
    unsettled: VecDeque<Unsettled>,
    seat: Option<Seat>,
    /// Changes when the gateway goes down.
    down: watch::Receiver<u64>,
    passed: Traffic,
    /// Up and down.
    packets: (Packets, Packets),
    opened_ms: u64,
    over: bool,
}

impl Shell {
    pub(super) fn new(village: Village, down: watch::Receiver<u64>) -> Self {
        let opened_ms = village.now_ms();
        let connection = Connection::new(&ConnectionLimits::default(), opened_ms);
        Self {
            village,
            connection,
            unsettled: VecDeque::new(),
            seat: None,
            down,
            passed: Traffic::default(),
            packets: <(Packets, Packets)>::default(),
            opened_ms,
            over: false,
        }
    }

    /// Serves it until it ends.
    pub(super) async fn run<S>(mut self, mut stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.serve(&mut stream).await.is_err() {
            self.connection.handle_transport_lost();
            self.handle_events();
        }
    }

    async fn serve<S>(&mut self, stream: &mut S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut input = BytesMut::new();
        loop {
            self.work(&mut input);
            let out = self.connection.transmit().split();
            if !out.is_empty() {
                self.passed.down_bytes += out.len() as u64;
                self.passed.down_packets += self.packets.1.take(&out);
                self.passed.down_segments += 1;
                tokio::select! {
                    written = stream.write_all(&out) => written?,
                    _ = self.down.changed() => return Err(gone()),
                }
                continue; // the buffer has room for deliveries again
            }
            if self.over {
                return stream.shutdown().await;
            }
            let wake_ms = [
                self.connection.poll_timeout(),
                self.unsettled.front().map(|one| one.at_ms),
            ];
            let wake = wake_ms.into_iter().flatten().min();
            let at = self.village.instant(wake.unwrap_or_default());
            let reads = self.connection.wants_input();
            tokio::select! {
                read = stream.read_buf(&mut input), if reads => match read? {
                    0 => return Err(gone()),
                    count => {
                        let came = &input[input.len() - count..];
                        self.passed.up_bytes += count as u64;
                        self.passed.up_packets += self.packets.0.take(came);
                        self.passed.up_segments += 1;
                    }
                },
                () = changed(&self.seat) => {}
                _ = self.down.changed() => return Err(gone()),
                () = tokio::time::sleep_until(at), if wake.is_some() => {
                    self.connection.handle_timeout(self.village.now_ms());
                }
            }
        }
    }

    fn work(&mut self, input: &mut BytesMut) {
        let now_ms = self.village.now_ms();
        if let Some(seat) = &self.seat
            && self.village.is_taken_over(seat)
        {
            self.connection
                .close(ReasonCode::SessionTakenOver, "it came again");
        }
        self.settle(now_ms);
        self.connection.handle_input(now_ms, input);
        self.handle_events();
        // What was read before the answer to CONNECT waits for it.
        self.connection.handle_input(now_ms, input);
        self.handle_events();
        self.deliver();
    }

    fn settle(&mut self, now_ms: u64) {
        while let Some(first) = self.unsettled.front()
            && first.at_ms <= now_ms
            && let Some(one) = self.unsettled.pop_front()
        {
            let Some(seat) = &self.seat else { continue };
            let reason = match one.what {
                What::Record(record) => self.village.take_record(&seat.id, &record),
                What::Status(status) => self.village.take_status(&seat.id, status),
                What::Other(reason) => reason,
            };
            self.connection.publish_settled(one.token, reason, None);
        }
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Connect(request) => self.connect(&request),
                Event::Publish { token, message, .. } => {
                    let what = self.look_at(&message);
                    let at_ms = self.village.durable_at_ms();
                    self.unsettled.push_back(Unsettled { at_ms, token, what });
                }
                Event::Subscribe { packet_id, filters } => {
                    let grant = |filter: &str| match &self.seat {
                        Some(seat) if filter == format!("t/{}/receipts", seat.id) => {
                            self.village.subscribe(&seat.id);
                            ReasonCode::GrantedQos1
                        }
                        _ => ReasonCode::NotAuthorized,
                    };
                    let codes: Vec<_> = filters
                        .iter()
                        .map(|one| grant(&one.filter.filter))
                        .collect();
                    self.connection.subscribed(packet_id, &codes, None);
                }
                Event::Unsubscribe { packet_id, filters } => {
                    let codes = vec![ReasonCode::NotAuthorized; filters.len()];
                    self.connection.unsubscribed(packet_id, &codes, None);
                }
                Event::Acked { packet_id, .. } => {
                    if let Some(seat) = &self.seat {
                        self.passed.delivered_after_ms = self.village.now_ms() - self.opened_ms;
                        self.village.delivered(&seat.id, packet_id);
                    }
                }
                // Terminals speak QoS 1.
                Event::PublishRelease { packet_id } => {
                    self.connection.publish_completed(packet_id);
                }
                Event::Received { packet_id } => self.connection.released(packet_id),
                Event::Closed(closed) => {
                    self.over = true;
                    if let Some(seat) = &self.seat {
                        self.village.note_closed(seat, &closed, &self.passed);
                    }
                }
            }
        }
    }

    fn connect(&mut self, request: &ConnectRequest) {
        match self.village.connect(request) {
            Ok((seat, session_present)) => {
                self.seat = Some(seat);
                let accept = Accept {
                    session_present,
                    ..Accept::default()
                };
                self.connection.accept(self.village.now_ms(), &accept);
            }
            Err(reason) => self.connection.refuse(reason, ""),
        }
    }

    fn look_at(&self, message: &Message) -> What {
        let Some(seat) = &self.seat else {
            return What::Other(ReasonCode::NotAuthorized);
        };
        let own = message
            .topic
            .strip_prefix("t/")
            .and_then(|rest| rest.strip_prefix(seat.id.as_str()));
        let payload = Bytes::copy_from_slice(&message.payload);
        match own {
            Some("/records") if message.qos == Qos::AtLeastOnce => What::Record(payload),
            Some("/status") => What::Status(payload),
            _ => What::Other(self.village.refuse_topic(&seat.id, &message.topic)),
        }
    }

    fn deliver(&mut self) {
        let Some(seat) = &mut self.seat else { return };
        let connection = &mut self.connection;
        let topic = format!("t/{}/receipts", seat.id);
        self.village.deliver(seat, |row, dup| {
            let message = Message::new(topic.clone(), row.payload.clone());
            let delivery = Delivery {
                packet_id: row.packet_id(),
                message: &message,
                qos: Qos::AtLeastOnce,
                retain: false,
                dup,
                subscription_ids: &[],
                expiry_s: None,
            };
            connection.deliver(&delivery) == Deliver::Delivered
        });
    }
}

async fn changed(seat: &Option<Seat>) {
    match seat {
        Some(seat) => seat.notify.notified().await,
        None => std::future::pending().await,
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
