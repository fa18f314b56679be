//! Where everything that concerns more than one connection meets.
//!
//! Promises:
//! - A PUBLISH is settled only when all that must survive of it is on stable
//!   storage: the journal's record, the rows of persistent subscribers, the
//!   retained message, the QoS 2 identifier (guarantee G1). Only then does
//!   anyone else see it.
//! - What one session's newest connection does, no older one can undo: every
//!   act names its epoch, which is checked under the session's lock.
//! - Nothing here waits for Kafka, and no connection for another.
//!
//! The parts: `publish` (the way of a message to the store), `records` (which
//! message is a record), `settlement` (from the store to subscribers and back to
//! its publisher), `connect` (sessions come, are taken over, expire), `subscribe`,
//! `wills`, `outbox` (what a session is owed, from the store), `receipts` (what
//! its terminal is owed), `access` (what a change of rights ends), `recovery` (what a restart finds in the store).

mod access;
mod commit;
mod connect;
mod outbox;
mod publish;
mod receipts;
mod records;
mod recovery;
mod settlement;
mod subscribe;
mod wills;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytestring::ByteString;
use parking_lot::{Mutex, RwLock};
use risiti_bridge::{DeadLetters, SharedRoutes};
use risiti_config::MqttLimits;
use risiti_store::{Journal, RecordSource, State};
use tokio::sync::{Notify, mpsc};

pub use connect::{Connected, Entrance};
pub use outbox::PageRead;
pub use publish::{Delivered, Publisher, Taken};
pub use receipts::{Receipts, ReceiptsPage, ReceiptsParts};
pub use records::{Refusal, forbidden, record};
pub use subscribe::Subscribed;

use crate::access::Access;
use crate::clock::Clock;
use crate::fanout::Fanout;
use crate::retained::Retained;
use crate::rows::{SessionNumber, WillNumber};
use crate::session::{Epoch, Session};
use crate::subscriptions::Subscriptions;
use settlement::Settlement;
use wills::DelayedWill;

/// What the broker is built from.
pub struct Parts {
    /// The durable log of accepted records.
    pub journal: Arc<Journal>,
    /// Sessions, queues, retained messages, wills.
    pub state: Arc<State>,
    /// Where a malformed record is kept.
    pub dead_letters: Arc<DeadLetters>,
    /// Which topics are records.
    pub routes: Arc<SharedRoutes>,
    /// The receipts that wait for their terminals.
    pub receipts: ReceiptsParts,
    /// Who may connect, and what each may do.
    pub access: Arc<Access>,
    /// The bounds of `[mqtt]`.
    pub limits: MqttLimits,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Counters of the MQTT side, since the start.
#[derive(Debug, Default)]
pub struct BrokerMetrics {
    /// PUBLISH packets taken, by whether a route sends them to Kafka.
    pub records: AtomicU64,
    /// PUBLISH packets taken that only go to subscribers.
    pub messages: AtomicU64,
    /// PUBACK and PUBREC sent for records.
    pub acknowledged: AtomicU64,
    /// PUBLISH packets refused.
    pub refused: AtomicU64,
    /// Deliveries not queued because a session's queue was full.
    pub queue_full: AtomicU64,
    /// Deliveries dropped because they had expired.
    pub expired: AtomicU64,
    /// Retained messages not kept because of their bounds.
    pub retained_refused: AtomicU64,
    /// Receipts written to connections, each time.
    pub receipts_sent: AtomicU64,
    /// Of those, with DUP.
    pub receipts_sent_again: AtomicU64,
    /// Receipts acknowledged by their terminals.
    pub receipts_acknowledged: AtomicU64,
    /// PUBACKs with an error: the receipt stays in the outbox.
    pub receipts_refused: AtomicU64,
    /// Receipts larger than their terminal takes: they stay in the outbox.
    pub receipts_too_large: AtomicU64,
    /// Retained copies of a last receipt.
    pub receipts_copied: AtomicU64,
    /// Subscriptions to another's receipts that were refused.
    pub receipts_foreign: AtomicU64,
    /// Wills published.
    pub wills: AtomicU64,
    /// Connections opened.
    pub connections_opened: AtomicU64,
    /// Connections closed because of the client's fault.
    pub peer_faults: AtomicU64,
    /// Connections that were taken over by another of the same client.
    pub taken_over: AtomicU64,
}

/// The broker. One for each gateway process, shared by reference.
pub struct Broker {
    journal: Arc<Journal>,
    state: Arc<State>,
    dead_letters: Arc<DeadLetters>,
    routes: Arc<SharedRoutes>,
    receipts: Receipts,
    access: Arc<Access>,
    limits: RwLock<Arc<MqttLimits>>,
    clock: Arc<dyn Clock>,
    sessions: Mutex<HashMap<ByteString, Arc<Session>>>,
    subscriptions: Mutex<Subscriptions>,
    /// False while nobody subscribes to anything: then a record need not ask.
    any_subscription: AtomicBool,
    retained: RwLock<Retained>,
    /// Held while sequence numbers are assigned and their rows submitted, so
    /// that both happen in one order, and while a session is taken over, so
    /// that nothing of the old connection follows the new one's.
    order: Mutex<()>,
    fanout: Fanout<Session>,
    settled: mpsc::UnboundedSender<Settlement>,
    /// By when they are due, steady milliseconds.
    wills: Mutex<BTreeMap<(u64, WillNumber), (SessionNumber, DelayedWill)>>,
    /// Clients without a session that have lost their connection, oldest first.
    lost_clients: Mutex<VecDeque<ByteString>>,
    /// Bytes of all PUBLISHes that are not settled.
    ungated_bytes: AtomicUsize,
    ungated_fell: Notify,
    connections: AtomicUsize,
    /// For what follows from calls that come from elsewhere.
    runtime: tokio::runtime::Handle,
    /// Counters for the metrics page.
    pub metrics: BrokerMetrics,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

impl Broker {
    /// Builds the broker and brings back what the store holds.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The store can't be read, or no thread can be started.
    pub fn open(parts: Parts) -> Result<Arc<Self>, OpenError> {
        let fanout = Fanout::start(tokio::runtime::Handle::current())?;
        let (settled, queue) = mpsc::unbounded_channel();
        let broker = Arc::new(Self {
            journal: parts.journal,
            state: parts.state,
            dead_letters: parts.dead_letters,
            routes: parts.routes,
            receipts: Receipts::new(parts.receipts),
            access: parts.access,
            limits: RwLock::new(Arc::new(parts.limits)),
            clock: parts.clock,
            sessions: Mutex::default(),
            subscriptions: Mutex::default(),
            any_subscription: AtomicBool::new(false),
            retained: RwLock::default(),
            order: Mutex::default(),
            fanout,
            settled,
            wills: Mutex::default(),
            lost_clients: Mutex::default(),
            ungated_bytes: AtomicUsize::new(0),
            ungated_fell: Notify::new(),
            connections: AtomicUsize::new(0),
            runtime: tokio::runtime::Handle::current(),
            metrics: BrokerMetrics::default(),
        });
        broker.recover()?;
        broker.recover_used_tokens()?;
        broker.enforce_access();
        broker.listen_for_receipts();
        tokio::spawn(settlement::distribute(Arc::downgrade(&broker), queue));
        Ok(broker)
    }

    /// The bounds in force.
    pub fn limits(&self) -> Arc<MqttLimits> {
        self.limits.read().clone()
    }

    /// Puts other bounds in force; connections that exist keep what was agreed.
    pub fn set_limits(&self, limits: MqttLimits) {
        *self.limits.write() = Arc::new(limits);
    }

    /// Puts other routes in force for what is accepted from now on.
    pub fn set_routes(&self, routes: risiti_bridge::Routes) {
        self.routes.replace(routes, self.journal.end());
    }

    /// The time, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// The time by which sessions expire and wills wait; never jumps.
    pub fn steady_ms(&self) -> u64 {
        self.clock.steady_ms()
    }

    /// The time for timeouts, milliseconds that never go back.
    pub fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    /// Takes one of the connections that may be open; `None` when all are taken.
    pub fn take_connection(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let max = self.limits().connections_max as usize;
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < max).then_some(n + 1)
            })
            .ok()?;
        self.metrics
            .connections_opened
            .fetch_add(1, Ordering::Relaxed);
        Some(ConnectionPermit(self.clone()))
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Sessions held now, connected or not.
    pub fn sessions(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether a client is connected now; `None` if it has no session.
    pub fn is_connected(&self, client_id: &str) -> Option<bool> {
        let session = self.sessions.lock().get(client_id).cloned()?;
        let connected = session.lock().mailbox.is_some();
        Some(connected)
    }

    /// Retained messages held now.
    pub fn retained(&self) -> usize {
        self.retained.read().len()
    }

    /// Different topic filters subscribed to now.
    pub fn filters(&self) -> usize {
        self.subscriptions.lock().filters()
    }

    /// The live fan-out, for its counters.
    pub fn fanout(&self) -> &Fanout<Session> {
        &self.fanout
    }

    /// Tells every connection to end.
    pub fn end_all(&self, why: crate::mailbox::Farewell) {
        for session in self.sessions.lock().values() {
            if let Some(mailbox) = &session.lock().mailbox {
                mailbox.end(why);
            }
        }
    }

    /// Whether so much is unsettled that no more may be read.
    pub fn is_saturated(&self) -> bool {
        self.ungated_bytes.load(Ordering::Relaxed)
            >= self.limits().ungated_bytes_max.bytes() as usize
    }

    /// Resolves when something was settled.
    pub async fn unsaturated(&self) {
        self.ungated_fell.notified().await;
    }

    /// A connection took a PUBLISH of that size.
    pub fn add_ungated(&self, bytes: usize) {
        self.ungated_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A connection settled, or forgot, a PUBLISH of that size.
    pub fn remove_ungated(&self, bytes: usize) {
        let before = self.ungated_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if bytes == 0 {
            return;
        }
        let max = self.limits().ungated_bytes_max.bytes() as usize;
        if before >= max && before - bytes < max {
            self.ungated_fell.notify_waiters();
        }
    }
}

/// Bytes of PUBLISHes that are not settled, of a connection that is no more;
/// given back when dropped.
#[derive(Debug)]
pub struct Ungated {
    broker: Weak<Broker>,
    bytes: usize,
}

impl Ungated {
    /// Takes over bytes that were added before.
    pub fn new(broker: &Arc<Broker>, bytes: usize) -> Self {
        Self {
            broker: Arc::downgrade(broker),
            bytes,
        }
    }
}

impl Drop for Ungated {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.upgrade() {
            broker.remove_ungated(self.bytes);
        }
    }
}

/// One of the connections that may be open, until dropped.
pub struct ConnectionPermit(Arc<Broker>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A session, and the place of one connection in it.
#[derive(Clone)]
pub struct Seat {
    /// The session.
    pub session: Arc<Session>,
    /// The connection's epoch.
    pub epoch: Epoch,
}

/// Why the broker did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] risiti_store::StoreError),
    /// The operating system gave no thread.
    #[error("no thread for the fan-out: {0}")]
    Thread(#[from] std::io::Error),
}
