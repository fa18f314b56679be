//! Clients that behave as terminals and plants do: an outbox each, PUBLISH at
//! QoS 1, and again whatever was not acknowledged after every cut.
//!
//! Promises: a record is "published" before its first byte is written, and
//! "acknowledged" only when its PUBACK was read; what is not acknowledged is
//! sent again in its order after a reconnect. Never: a record given up.
//!
//! | | terminal | raw |
//! | --- | --- | --- |
//! | MQTT topic | `t/<id>/records` | `raw/<id>` |
//! | payload | a payment of the wire format, numbered | the text `<id>/<number>` |
//! | sent again | any packet identifier, DUP or not | the same packet identifier, DUP |
//!
//! Sessions are persistent. The packets are read and written by rumqttc's codec,
//! which is not the gateway's: a mistake of one is not hidden by the other. Its
//! event loop forgets what is unacknowledged when a session is not present, so
//! it is not used.

mod wire;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use risiti_wire::{Currency, Payment, Record, RecordBody};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::ledger::{Account, Accounts};

pub use wire::MqttVersion;
use wire::{Incoming, Wire};

/// Clients look for their gateway again after this long, doubled up to the
/// second: terminals would be slower, but a restart should meet them all.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// Without any progress for so long a client hangs up and tries anew, as one
/// with a keep alive would.
const STALL: Duration = Duration::from_secs(20);

/// What a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A battery terminal: records of the wire format.
    Terminal,
    /// Any other MQTT client.
    Raw,
}

/// One client.
#[derive(Debug, Clone)]
pub struct ClientSpec {
    /// Its client identifier, also its terminal id.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Which MQTT it speaks.
    pub version: MqttVersion,
    /// PUBLISHes it keeps unacknowledged at most, from 1.
    pub window: usize,
    /// Records in its outbox.
    pub records: u64,
    /// A link on its way to the gateway; none: it connects to the gateway itself.
    pub through: Option<SocketAddr>,
    /// Records a second that the key presses make; none: all at once.
    pub per_second: Option<f64>,
    /// The PUBACKs with these multiples are lost on the way: the client has not seen them,
    /// and its connection is cut at that moment. None: none is.
    pub puback_lost_every: Option<u64>,
}

impl ClientSpec {
    /// `count` clients named `<prefix>0` and on: terminals and raw clients, MQTT
    /// 3.1.1 and 5, windows from 1 to 20.
    #[must_use]
    pub fn mixed(prefix: &str, count: usize, records: u64) -> Vec<Self> {
        let windows = [20, 1, 7, 4, 13];
        (0..count)
            .map(|n| Self {
                id: format!("{prefix}{n}"),
                // Of ten: six terminals, four raw.
                kind: if n % 5 < 3 { Kind::Terminal } else { Kind::Raw },
                version: if n % 2 == 0 {
                    MqttVersion::V3_1_1
                } else {
                    MqttVersion::V5
                },
                window: windows[n % windows.len()],
                records,
                through: None,
                per_second: None,
                puback_lost_every: None,
            })
            .collect()
    }

    fn topic(&self) -> String {
        match self.kind {
            Kind::Terminal => format!("t/{}/records", self.id),
            Kind::Raw => format!("raw/{}", self.id),
        }
    }

    fn payload(&self, number: u64) -> Vec<u8> {
        match self.kind {
            Kind::Raw => format!("{}/{number}", self.id).into_bytes(),
            Kind::Terminal => payment(number),
        }
    }
}

/// A payment with this number.
fn payment(sequence: u64) -> Vec<u8> {
    let account = risiti_wire::Account::new("00417700123").expect("eleven digits");
    let record = Record {
        sequence,
        resend: false,
        body: RecordBody::Payment(Payment {
            time_s: 1_760_000_000,
            account,
            amount_minor: 1 + sequence % 1_000_000,
            currency: Currency::new(404).expect("a currency"),
            reference: Some("term 2"),
        }),
    };
    let mut buffer = [0; risiti_wire::limits::RECORD_BYTES_MAX];
    record.encode(&mut buffer).expect("within bounds").to_vec()
}

/// What went on besides records.
#[derive(Debug, Default)]
pub struct FleetCounts {
    /// Records whose PUBACK was read.
    pub acknowledged: AtomicU64,
    /// CONNACKs.
    pub connects: AtomicU64,
    /// Records sent again.
    pub resends: AtomicU64,
    /// PUBACKs lost on purpose.
    pub pubacks_lost: AtomicU64,
    /// Sessions that the gateway had forgotten.
    pub sessions_lost: AtomicU64,
    /// PUBACKs that refuse, or for nothing that is in flight, or out of order
    /// (MQTT-4.6.0-2).
    pub wrong_pubacks: AtomicU64,
    /// Clients that hung up because nothing moved.
    pub stalls: AtomicU64,
}

/// What a fleet does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Go,
    /// Nothing new; what is in flight is still brought home.
    Rest,
    /// Gone at once, whatever is in flight.
    Vanish,
}

/// A running fleet. Dropping it ends it.
#[derive(Debug)]
pub struct Fleet {
    runtime: Runtime,
    clients: Vec<JoinHandle<()>>,
    order: watch::Sender<Order>,
    accounts: Vec<(String, Arc<Mutex<Account>>)>,
    counts: Arc<FleetCounts>,
}

impl Fleet {
    /// Starts all clients. They connect to `gateway` for as long as it takes.
    ///
    /// # Errors
    /// The operating system gives no threads.
    pub fn start(gateway: SocketAddr, specs: Vec<ClientSpec>, seed: u64) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let (order, orders) = watch::channel(Order::Go);
        let counts = Arc::new(FleetCounts::default());
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut clients = Vec::new();
        let mut accounts = Vec::new();
        for spec in specs {
            let account = Arc::new(Mutex::new(Account::default()));
            accounts.push((spec.id.clone(), Arc::clone(&account)));
            let client = Client {
                next: 1,
                in_flight: VecDeque::new(),
                packet_id: 0,
                had_session: false,
                pubacks: 0,
                begun: Instant::now(),
                gateway: spec.through.unwrap_or(gateway),
                spec,
                chance: chance.fork(),
                account,
                counts: Arc::clone(&counts),
                orders: orders.clone(),
            };
            clients.push(runtime.spawn(client.run()));
        }
        Ok(Self {
            runtime,
            clients,
            order,
            accounts,
            counts,
        })
    }

    /// Waits until every record is acknowledged; `false` if that took too long.
    pub fn wait_done(&mut self, within: Duration) -> bool {
        let clients = &mut self.clients;
        self.runtime.block_on(async {
            let all = async {
                for client in clients.iter_mut() {
                    let _ = client.await;
                }
            };
            timeout(within, all).await.is_ok()
        })
    }

    /// Waits until so many records are acknowledged in all; `false` if that took
    /// too long.
    pub fn wait_acknowledged(&self, records: u64, within: Duration) -> bool {
        let until = std::time::Instant::now() + within;
        while self.acknowledged() < records {
            if std::time::Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// No client begins anything new; each ends once nothing is in flight.
    pub fn rest(&self) {
        let _ = self.order.send(Order::Rest);
    }

    /// All are gone at once; what was in flight stays unacknowledged.
    pub fn vanish(&mut self) {
        let _ = self.order.send(Order::Vanish);
        self.wait_done(STALL);
    }

    /// Records acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.counts.acknowledged.load(Ordering::Relaxed)
    }

    /// What went on besides.
    #[must_use]
    pub fn counts(&self) -> &FleetCounts {
        &self.counts
    }

    /// What the clients did so far, for [`crate::ledger::verdict`].
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        self.accounts
            .iter()
            .map(|(id, account)| {
                let account = account.lock().unwrap_or_else(PoisonError::into_inner);
                (id.clone(), account.clone())
            })
            .collect()
    }
}

/// A record on its way.
struct InFlight {
    number: u64,
    packet_id: u16,
    payload: Vec<u8>,
}

struct Client {
    spec: ClientSpec,
    gateway: SocketAddr,
    chance: fastrand::Rng,
    account: Arc<Mutex<Account>>,
    counts: Arc<FleetCounts>,
    orders: watch::Receiver<Order>,
    /// The next number to publish.
    next: u64,
    in_flight: VecDeque<InFlight>,
    packet_id: u16,
    had_session: bool,
    pubacks: u64,
    begun: Instant,
}

/// Why a connection is over.
enum Over {
    /// Everything is acknowledged.
    Done,
    /// It was cut.
    Cut,
}

impl Client {
    async fn run(mut self) {
        let mut orders = self.orders.clone();
        tokio::select! {
            () = self.work() => {}
            _ = orders.wait_for(|order| *order == Order::Vanish) => {}
        }
    }

    async fn work(&mut self) {
        let mut backoff = BACKOFF.0;
        loop {
            let before = self.pubacks;
            match self.connection().await {
                Ok(Over::Done) => return,
                Ok(Over::Cut) | Err(_) => {}
            }
            if self.pubacks > before {
                backoff = BACKOFF.0;
            }
            sleep(backoff.mul_f64(0.5 + self.chance.f64())).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    async fn connection(&mut self) -> std::io::Result<Over> {
        let open = Wire::connect(self.gateway, &self.spec.id, self.spec.version);
        let (mut wire, session_present) = timeout(STALL, open).await??;
        self.counts.connects.fetch_add(1, Ordering::Relaxed);
        if self.had_session && !session_present {
            self.counts.sessions_lost.fetch_add(1, Ordering::Relaxed);
        }
        self.had_session = true;
        self.send_again(&mut wire)?;
        let mut moved = Instant::now();
        loop {
            let due = self.send_new(&mut wire)?;
            wire.flush().await?;
            let resting = *self.orders.borrow() != Order::Go;
            if self.in_flight.is_empty() && (resting || self.next > self.spec.records) {
                wire.disconnect().await?;
                return Ok(Over::Done);
            }
            tokio::select! {
                incoming = wire.next() => match incoming? {
                    Incoming::PubAck { packet_id, success } => {
                        moved = Instant::now();
                        if self.loses_this_puback() {
                            return Ok(Over::Cut);
                        }
                        self.acknowledged(packet_id, success)?;
                    }
                    Incoming::Other => {}
                },
                () = sleep_until(due.unwrap_or(moved + STALL)) => {
                    if self.in_flight.is_empty() {
                        moved = Instant::now();
                    } else if moved.elapsed() >= STALL {
                        self.counts.stalls.fetch_add(1, Ordering::Relaxed);
                        return Ok(Over::Cut);
                    }
                }
                _ = self.orders.changed() => {}
            }
        }
    }

    /// After a reconnect: whatever is not acknowledged, in its order.
    fn send_again(&mut self, wire: &mut Wire) -> std::io::Result<()> {
        let topic = self.spec.topic();
        let resends = self.in_flight.len() as u64;
        self.counts.resends.fetch_add(resends, Ordering::Relaxed);
        for index in 0..self.in_flight.len() {
            let mut dup = true;
            if self.spec.kind == Kind::Terminal && self.chance.bool() {
                // It has forgotten its identifiers in a power cut of its own.
                dup = false;
                let packet_id = self.take_packet_id();
                self.in_flight[index].packet_id = packet_id;
            }
            let one = &self.in_flight[index];
            wire.publish(&topic, &one.payload, one.packet_id, dup)?;
        }
        Ok(())
    }

    /// Fills the window with what is there to send; tells when there is more.
    fn send_new(&mut self, wire: &mut Wire) -> std::io::Result<Option<Instant>> {
        let topic = self.spec.topic();
        while self.in_flight.len() < self.spec.window
            && self.next <= self.spec.records
            && *self.orders.borrow() == Order::Go
        {
            if let Some(per_second) = self.spec.per_second {
                let due = Duration::from_secs_f64((self.next - 1) as f64 / per_second);
                if self.begun.elapsed() < due {
                    return Ok(Some(self.begun + due));
                }
            }
            let one = InFlight {
                number: self.next,
                packet_id: self.take_packet_id(),
                payload: self.spec.payload(self.next),
            };
            self.lock().published = self.next;
            self.next += 1;
            let sent = wire.publish(&topic, &one.payload, one.packet_id, false);
            self.in_flight.push_back(one);
            sent?;
        }
        Ok(None)
    }

    fn acknowledged(&mut self, packet_id: u16, success: bool) -> std::io::Result<()> {
        let first = self.in_flight.front().map(|one| one.packet_id);
        if !success || first != Some(packet_id) {
            self.counts.wrong_pubacks.fetch_add(1, Ordering::Relaxed);
            return Err(std::io::Error::other("a wrong PUBACK"));
        }
        if let Some(one) = self.in_flight.pop_front() {
            self.lock().acknowledged.insert(one.number);
            self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn loses_this_puback(&mut self) -> bool {
        self.pubacks += 1;
        let lost = self
            .spec
            .puback_lost_every
            .is_some_and(|every| self.pubacks.is_multiple_of(every));
        if lost {
            self.counts.pubacks_lost.fetch_add(1, Ordering::Relaxed);
        }
        lost
    }

    /// The next packet identifier that is not in flight (MQTT-2.2.1-3).
    fn take_packet_id(&mut self) -> u16 {
        loop {
            self.packet_id = self.packet_id % u16::MAX + 1;
            let taken = self.in_flight.iter().any(|o| o.packet_id == self.packet_id);
            if !taken {
                return self.packet_id;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
