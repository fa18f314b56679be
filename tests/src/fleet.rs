//! Clients that behave as terminals and plants do: an outbox each, and again
//! whatever was not acknowledged after every cut.
//!
//! Promises: a record is "published" before its first byte is written, and
//! "acknowledged" only when its PUBACK (or PUBREC) was read; what is not
//! acknowledged is sent again in its order after a reconnect. Never: a record
//! given up.
//!
//! | | terminal | raw |
//! | --- | --- | --- |
//! | MQTT topic | `t/<id>/records` | `raw/<id>` |
//! | QoS | 1 | 1 or 2 |
//! | payload | a payment of the wire format, numbered | the text `<id>/<number>` |
//! | sent again | any packet identifier, DUP or not | the same packet identifier, DUP; at QoS 2 PUBREL once there was a PUBREC |
//!
//! The way up alone: a terminal here is done with a record at its PUBACK. Those of
//! [`risiti_sim::terminal`] keep it until its receipt.
//!
//! Sessions are persistent. The packets are read and written by rumqttc's codec,
//! which is not the gateway's: a mistake of one is not hidden by the other. Its
//! event loop forgets what is unacknowledged when a session is not present, so
//! it is not used.

mod client;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use risiti_wire::{Currency, Payment, RecordBody};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::ledger::{Account, Accounts};
use crate::samples;

use client::Client;
pub use risiti_sim::mqtt::MqttVersion;

/// Without any progress for so long a client hangs up and tries anew, as one
/// with a keep alive would.
const STALL: Duration = Duration::from_secs(20);

/// What a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A battery terminal: records of the wire format.
    Terminal,
    /// Any other MQTT client, at QoS 1.
    Raw,
    /// Any other MQTT client, at QoS 2.
    RawQos2,
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
                kind: match n % 5 {
                    0..3 => Kind::Terminal,
                    3 => Kind::Raw,
                    _ => Kind::RawQos2,
                },
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
            Kind::Raw | Kind::RawQos2 => format!("raw/{}", self.id),
        }
    }

    fn payload(&self, number: u64) -> Vec<u8> {
        match self.kind {
            Kind::Raw | Kind::RawQos2 => format!("{}/{number}", self.id).into_bytes(),
            Kind::Terminal => payment(number),
        }
    }
}

/// A payment with this number.
fn payment(sequence: u64) -> Vec<u8> {
    let account = risiti_wire::Account::new("00417700123").expect("eleven digits");
    let payment = Payment {
        time_s: 1_760_000_000,
        account,
        amount_minor: 1 + sequence % 1_000_000,
        currency: Currency::new(404).expect("a currency"),
        reference: Some("term 2"),
    };
    samples::record(sequence, RecordBody::Payment(payment))
}

/// What went on besides records.
#[derive(Debug, Default)]
pub struct FleetCounts {
    /// Records whose PUBACK or PUBREC was read.
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
    /// (MQTT-4.6.0-2); the same of PUBREC and PUBCOMP.
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
            let address = spec.through.unwrap_or(gateway);
            let client = Client::new(
                spec,
                address,
                chance.fork(),
                account,
                Arc::clone(&counts),
                orders.clone(),
            );
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
