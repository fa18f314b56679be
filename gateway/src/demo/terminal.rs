//! A simulated terminal: makes payments, keeps each until its PUBACK, sends
//! what has none again after every reconnect, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use risiti_wire::{Account, Currency, Payment, Record, RecordBody};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Phase;
use super::ledger::Ledger;

/// Payments under way at one time.
const WINDOW: usize = 16;

/// A payment that has no PUBACK.
struct Saved {
    sequence: u64,
    bytes: Vec<u8>,
    sent: Option<Instant>,
    packet_id: Option<u16>,
}

/// Polls rumqttc's event loop on a task of its own, which ends with the
/// connection: `poll` loses a connection attempt when it is cancelled.
fn poll(mut events: EventLoop) -> (mpsc::Receiver<Event>, AbortOnDrop) {
    let (sender, receiver) = mpsc::channel(2 * WINDOW);
    let task = tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    (receiver, AbortOnDrop(task))
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One terminal.
pub struct Terminal {
    id: String,
    gateway: SocketAddr,
    pause_mean: Duration,
    chance: fastrand::Rng,
    ledger: Arc<Ledger>,
    outbox: VecDeque<Saved>,
    sequence: u64,
    next_payment: Instant,
}

impl Terminal {
    /// A terminal that reaches the gateway at that address.
    pub fn new(
        id: String,
        gateway: SocketAddr,
        per_minute: u32,
        seed: u64,
        ledger: Arc<Ledger>,
    ) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let pause_mean = Duration::from_secs(60) / per_minute.max(1);
        let next_payment = Instant::now() + pause_mean.mul_f64(chance.f64());
        Self {
            id,
            gateway,
            pause_mean,
            chance,
            ledger,
            outbox: VecDeque::new(),
            sequence: 0,
            next_payment,
        }
    }

    /// Lives until the demo is over.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        while *phase.borrow() != Phase::Over {
            self.connect(&mut phase).await;
            for saved in &mut self.outbox {
                saved.sent = None;
                saved.packet_id = None;
            }
            let pause = Duration::from_millis(self.chance.u64(50..500));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = phase.changed() => {}
            }
            self.make_payments(&phase);
        }
    }

    /// One connection, until it breaks or the demo is over.
    async fn connect(&mut self, phase: &mut watch::Receiver<Phase>) {
        let mut options =
            MqttOptions::new(&self.id, self.gateway.ip().to_string(), self.gateway.port());
        options.set_keep_alive(Duration::from_secs(10));
        options.set_connection_timeout(5);
        options.set_clean_start(true);
        options.set_outgoing_inflight_upper_limit(WINDOW as u16);
        let (client, events) = AsyncClient::new(options, 2 * WINDOW);
        let (mut events, _polling) = poll(events);
        let mut connected = false;
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Incoming(Packet::ConnAck(_))) => {
                        connected = true;
                        self.ledger.connected(1);
                    }
                    Some(Event::Outgoing(Outgoing::Publish(packet_id))) => {
                        // Publishes leave in the order in which they were handed over.
                        if let Some(saved) = self
                            .outbox
                            .iter_mut()
                            .find(|s| s.sent.is_some() && s.packet_id.is_none())
                        {
                            saved.packet_id = Some(packet_id);
                        }
                    }
                    Some(Event::Incoming(Packet::PubAck(ack))) => self.acknowledged(ack.pkid),
                    Some(_) => {}
                    None => break,
                },
                _ = tick.tick() => {}
                _ = phase.changed() => {
                    if *phase.borrow() == Phase::Over {
                        break;
                    }
                }
            }
            self.make_payments(phase);
            if connected {
                self.send(&client);
            }
        }
        if connected {
            self.ledger.connected(-1);
        }
    }

    fn make_payments(&mut self, phase: &watch::Receiver<Phase>) {
        if *phase.borrow() != Phase::Rough {
            return;
        }
        while self.next_payment <= Instant::now() {
            self.next_payment += self.pause_mean.mul_f64(0.5 + self.chance.f64());
            self.sequence += 1;
            match self.payment(self.sequence) {
                Some(bytes) => {
                    self.ledger.published(&self.id, self.sequence);
                    self.outbox.push_back(Saved {
                        sequence: self.sequence,
                        bytes,
                        sent: None,
                        packet_id: None,
                    });
                }
                None => return,
            }
        }
    }

    fn payment(&mut self, sequence: u64) -> Option<Vec<u8>> {
        let account = format!("{:012}", self.chance.u64(..1_000_000_000_000));
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() as u32;
        let record = Record {
            sequence,
            resend: false,
            body: RecordBody::Payment(Payment {
                time_s,
                account: Account::new(&account).ok()?,
                amount_minor: self.chance.u64(5_000..2_000_000),
                currency: Currency::new(404).ok()?,
                reference: Some("FEES"),
            }),
        };
        let mut buffer = [0; risiti_wire::limits::RECORD_BYTES_MAX];
        Some(record.encode(&mut buffer).ok()?.to_vec())
    }

    /// Hands over what the window has room for, oldest first.
    fn send(&mut self, client: &AsyncClient) {
        let topic = format!("t/{}/records", self.id);
        for saved in self.outbox.iter_mut().take(WINDOW) {
            if saved.sent.is_none() {
                let handed_over =
                    client.try_publish(&topic, QoS::AtLeastOnce, false, saved.bytes.clone());
                if handed_over.is_err() {
                    return;
                }
                saved.sent = Some(Instant::now());
            }
        }
    }

    fn acknowledged(&mut self, packet_id: u16) {
        let Some(index) = self
            .outbox
            .iter()
            .position(|s| s.packet_id == Some(packet_id))
        else {
            return;
        };
        if let Some(saved) = self.outbox.remove(index) {
            let after = saved.sent.map_or(Duration::ZERO, |at| at.elapsed());
            self.ledger.acknowledged(&self.id, saved.sequence, after);
        }
    }
}
