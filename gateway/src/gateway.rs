//! The gateway as a whole: what is started, in which order, and how it stops.
//!
//! Promises: a port that is taken is told before anything is touched, and
//! nothing listens before the store is open; at a graceful stop no new PUBLISH is
//! taken, those taken are made durable and acknowledged, a Kafka transaction
//! finishes or is aborted, and the store is closed last. A kill at any moment
//! costs none of the guarantees, only time at the next start; so a stop whose
//! disk does not answer ends at its deadline like one.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use risiti_bridge::forwarder::Options as ForwarderOptions;
use risiti_bridge::trace::{DurableSteps, TraceLog};
use risiti_bridge::{
    BridgeError, DeadLetters, EmbeddedCluster, Forwarder, ForwarderHandle, ForwarderMetrics,
    ForwarderSetup, Outbox, OutboxSetup, ReceiptsHandle, ReceiptsOptions, Routes, SharedRoutes,
};
use risiti_config::{Bootstrap, Config, ReloadDiff, Terminals};
use risiti_store::{Journal, OpenReport, RecordSource, State, StoreError, StoreOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::{self, Access, Hole};
use crate::admin;
use crate::admin_guard::Guard;
use crate::audit::Audit;
use crate::broker::{Broker, OpenError, Parts, ReceiptsParts};
use crate::clock::{Clock, SystemClock};
use crate::identity;
use crate::limits;
use crate::listener::{self, Listener};
use crate::mailbox::Farewell;
use crate::receipts::ReceiptsTopics;
use crate::start::{
    Doors, lock_data_dir, open_store, open_trace, reserve, start_embedded, start_receipts,
    store_options,
};
use crate::status;
use crate::tls::TlsError;
use crate::trace;

/// What no configuration file can set.
#[derive(Clone, Default)]
pub struct Switches {
    /// Turns the recognition of resends off. For the negative control of G2.
    pub without_dedup: bool,
    /// For the negative control of G2, and for tests of crashes.
    pub forwarder: ForwarderOptions,
    /// For the negative control of G4, and for tests of crashes.
    pub receipts: ReceiptsOptions,
    /// Takes a receipt for acknowledged as soon as it is sent. For the negative
    /// control of G4.
    pub delete_before_puback: bool,
    /// Leaves a check of access out. For the negative controls of G9.
    pub access_hole: Option<Hole>,
    /// Another time than the operating system's, for tests.
    pub clock: Option<Arc<dyn Clock>>,
}

/// A running gateway.
pub struct Gateway {
    config: Mutex<Config>,
    insecure: Arc<Mutex<Vec<String>>>,
    journal: Arc<Journal>,
    state: Arc<State>,
    outbox: Arc<Outbox>,
    broker: Arc<Broker>,
    dead_letters: Arc<DeadLetters>,
    embedded: Option<Arc<EmbeddedCluster>>,
    forwarders: Arc<Mutex<Vec<(String, ForwarderHandle)>>>,
    receipts: Option<Arc<ReceiptsHandle>>,
    listeners: Vec<Arc<Listener>>,
    /// Of each listener, `[mqtt]` first.
    addrs: Vec<(String, SocketAddr)>,
    admin_addr: SocketAddr,
    stopping: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    trace: Arc<TraceLog>,
    open_reports: Vec<OpenReport>,
    // Held until the end: one gateway a data directory.
    _lock: File,
    audit: Arc<Audit>,
}

/// Why the gateway did not start, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory can't be used.
    #[error(
        "data directory {path}: {source}; create it, or make it writable for this user (gateway.data_dir)"
    )]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "data directory {path} is in use by another gateway; stop that one, or give this one its own gateway.data_dir"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// It was used under another `gateway.id`.
    #[error(
        "data directory {path} belongs to gateway {owner}, but gateway.id is {id}: under another id its records would be sent to Kafka again; set gateway.id = \"{owner}\", or give {id} a data directory of its own (records that {owner} has not forwarded yet are sent only from here, under its own id)"
    )]
    OtherGateway {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who wanted it.
        id: String,
    },
    /// An address can't be listened on.
    #[error(
        "can't listen on {addr} ({key}): {source}; stop what has it (`ss -ltnp` tells), or set another address"
    )]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Its key in the configuration.
        key: String,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no space to open the store in.
    #[error(
        "the disk is full: {0}; free space where gateway.data_dir is and start again (systemd does by itself); nothing acknowledged is lost"
    )]
    DiskFull(StoreError),
    /// The store.
    #[error("store: {0}")]
    Store(StoreError),
    /// A listener's certificates.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// Nobody would know the terminals.
    #[error(
        "{0}; or set another access.registry. Nobody is let in whom it would have kept out: start again once it is put right"
    )]
    Access(#[from] access::FileError),
    /// The broker.
    #[error("broker: {0}")]
    Broker(#[from] OpenError),
    /// The Kafka side.
    #[error("kafka: {0}")]
    Kafka(#[from] BridgeError),
    /// The operating system gives no thread.
    #[error("no thread: {0}")]
    Thread(std::io::Error),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        if error.is_full() {
            Self::DiskFull(error)
        } else {
            Self::Store(error)
        }
    }
}

/// A view of a running gateway for the admin pages.
#[derive(Clone)]
pub struct View {
    /// Its name.
    pub id: String,
    /// The journal.
    pub journal: Arc<Journal>,
    /// The state database.
    pub state: Arc<State>,
    /// The MQTT side.
    pub broker: Arc<Broker>,
    /// What Kafka refused.
    pub dead_letters: Arc<DeadLetters>,
    /// Every forwarder, with the name of its cluster.
    pub forwarders: Arc<Mutex<Vec<(String, ForwarderHandle)>>>,
    /// The receipts that wait for their terminals.
    pub outbox: Arc<Outbox>,
    /// What brings them, unless it is switched off.
    pub receipts: Option<Arc<ReceiptsHandle>>,
    /// Where the embedded cluster is reached, if it runs.
    pub embedded_bootstrap: Option<String>,
    /// What opening the store found.
    pub open_reports: Vec<OpenReport>,
    /// The steps of payments.
    pub trace: Arc<TraceLog>,
    /// The topics of a terminal.
    pub terminals: Terminals,
    /// The ways in.
    pub listeners: Vec<Arc<Listener>>,
    /// What the configuration in force leaves open to others.
    pub insecure: Arc<Mutex<Vec<String>>>,
}

impl View {
    /// What is so now and matters for the life of a terminal's payment.
    ///
    /// # Errors
    /// The recorder's files can't be read.
    pub fn now_for(&self, terminal: &str) -> std::io::Result<trace::Now> {
        let oldest = self.journal.oldest();
        let clusters = self.forwarders.lock();
        Ok(trace::Now {
            gateway: self.id.clone(),
            recording: self.trace.is_enabled(),
            reaches_back_ms: self.trace.reaches_back_ms()?,
            clusters: clusters
                .iter()
                .map(|(name, forwarder)| {
                    let status = forwarder.status();
                    let next = status.next.max(oldest);
                    (name.clone(), trace::in_words(status.state), next)
                })
                .collect(),
            connected: self.broker.is_connected(terminal),
            withheld: self
                .journal
                .health()
                .withheld
                .map(|withheld| withheld.alarm.to_string()),
            receipts_topic: self.terminals.receipts.replace("{id}", terminal),
        })
    }
}

impl Gateway {
    /// Starts everything. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What is in the way, with the remedy.
    pub async fn start(config: Config, switches: Switches) -> Result<Self, StartError> {
        let lock = lock_data_dir(&config)?;
        let access = Arc::new(Access::start(&config, switches.access_hole)?);
        let doors = Doors::reserve(&config)?;
        let admin = reserve(config.admin.listen, "admin.listen")?;
        let clock = switches
            .clock
            .clone()
            .unwrap_or_else(|| Arc::new(SystemClock::default()));
        let audit = Arc::new(Audit::new(&config.gateway.data_dir, clock.clone()));
        let trace = open_trace(&config);
        let now = clock.clone();
        let options = StoreOptions {
            observer: Some(DurableSteps::new(trace.clone(), move || now.unix_ms())),
            ..store_options(&config, &switches)
        };
        let (state, journal, open_reports) =
            tokio::task::spawn_blocking(move || open_store(&options))
                .await
                .map_err(|e| StartError::Thread(std::io::Error::other(e)))??;
        if let Some(owner) = identity::former_owner(&state, &config.gateway.id)? {
            return Err(StartError::OtherGateway {
                path: config.gateway.data_dir.clone(),
                owner,
                id: config.gateway.id.clone(),
            });
        }
        for alarm in open_reports.iter().flat_map(|r| &r.alarms) {
            tracing::error!("{alarm}");
        }

        let routes = Arc::new(SharedRoutes::new(Routes::of(&config)));
        let dead_letters = Arc::new(DeadLetters::open(state.clone())?);
        let unix = clock.clone();
        let outbox = Outbox::open(OutboxSetup {
            state: state.clone(),
            journal: journal.clone(),
            gateway_id: config.gateway.id.clone(),
            terminals: config.terminals.clone(),
            receipts_max: risiti_bridge::limits::receipts_max(
                config.store.budget_bytes.bytes(),
                config.store.receipts_reserve_bytes.bytes(),
            ),
            unknown_receipts_max: config.receipts.unknown_receipts_max,
            receipts_per_terminal_max: config.receipts.receipts_per_terminal_max,
            now: Arc::new(move || unix.unix_ms()),
            trace: trace.clone(),
            options: switches.receipts.clone(),
        })?;
        let broker = Broker::open(Parts {
            journal: journal.clone(),
            state: state.clone(),
            dead_letters: dead_letters.clone(),
            routes: routes.clone(),
            receipts: ReceiptsParts {
                outbox: outbox.clone(),
                topics: ReceiptsTopics::new(&config.terminals.receipts),
                trace: trace.clone(),
                delete_before_puback: switches.delete_before_puback,
            },
            access,
            limits: config.mqtt.limits.clone(),
            clock,
        })?;

        let embedded = start_embedded(&config)?;
        let mut forwarders = Vec::new();
        for (name, cluster) in config.all_clusters() {
            let setup = ForwarderSetup {
                cluster: cluster.clone(),
                name: name.to_owned(),
                gateway_id: config.gateway.id.clone(),
                embedded: (cluster.bootstrap == Bootstrap::Embedded)
                    .then(|| embedded.clone())
                    .flatten(),
                routes: routes.clone(),
                source: journal.clone(),
                dead: dead_letters.clone(),
                metrics: Arc::new(ForwarderMetrics::default()),
                trace: trace.clone(),
                options: switches.forwarder.clone(),
            };
            let handle = Forwarder::start(setup).map_err(StartError::Thread)?;
            forwarders.push((name.to_owned(), handle));
        }
        let forwarders = Arc::new(Mutex::new(forwarders));
        let receipts =
            start_receipts(&config, &embedded, &journal, &outbox, &dead_letters)?.map(Arc::new);

        let (stopping, _) = watch::channel(false);
        let open = doors.open()?;
        let listeners: Vec<_> = open.iter().map(|(one, _, _)| one.clone()).collect();
        let addrs = open
            .iter()
            .map(|(one, _, addr)| (one.name().to_owned(), *addr));
        let addrs: Vec<_> = addrs.collect();
        let admin = admin.listen()?;
        let admin_addr = admin.local_addr().unwrap_or(config.admin.listen);
        let guarded = Guard::new(&config.admin, audit.clone());
        let insecure = Arc::new(Mutex::new(status::insecure(&config)));
        let view = View {
            id: config.gateway.id.clone(),
            journal: journal.clone(),
            state: state.clone(),
            broker: broker.clone(),
            dead_letters: dead_letters.clone(),
            forwarders: forwarders.clone(),
            outbox: outbox.clone(),
            receipts: receipts.clone(),
            embedded_bootstrap: embedded.as_ref().map(|e| e.bootstrap().to_owned()),
            open_reports: open_reports.clone(),
            trace: trace.clone(),
            terminals: config.terminals.clone(),
            listeners: listeners.clone(),
            insecure: insecure.clone(),
        };
        let mut tasks = vec![
            tokio::spawn(admin::serve(admin, view, guarded, stopping.subscribe())),
            tokio::spawn(sweep(broker.clone(), stopping.subscribe())),
            tokio::spawn(watch_files(
                broker.clone(),
                listeners.clone(),
                stopping.subscribe(),
            )),
        ];
        for (listener, socket, _) in open {
            let accept = listener::accept(socket, listener, broker.clone(), stopping.subscribe());
            tasks.push(tokio::spawn(accept));
        }
        Ok(Self {
            config: Mutex::new(config),
            insecure,
            journal,
            state,
            outbox,
            broker,
            dead_letters,
            embedded,
            forwarders,
            receipts,
            listeners,
            addrs,
            admin_addr,
            stopping,
            tasks,
            trace,
            open_reports,
            _lock: lock,
            audit,
        })
    }

    /// Where MQTT clients connect, at the listener of `[mqtt]`.
    pub fn mqtt_addr(&self) -> SocketAddr {
        self.addrs[0].1
    }

    /// Every listener for MQTT and its address, that of `[mqtt]` first.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.addrs.iter().map(|(name, addr)| (name.as_str(), *addr))
    }

    /// Where they connect at the listener of that name.
    pub fn listener_addr(&self, name: &str) -> Option<SocketAddr> {
        let found = self.listeners().find(|(listener, _)| *listener == name);
        found.map(|(_, addr)| addr)
    }

    /// Where health, metrics and the CLI's requests are answered.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Where the embedded Kafka is reached, if it runs.
    pub fn embedded_bootstrap(&self) -> Option<&str> {
        self.embedded.as_deref().map(EmbeddedCluster::bootstrap)
    }

    /// The MQTT side.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The journal.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The receipts that wait for their terminals.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// What Kafka refused.
    pub fn dead_letters(&self) -> &Arc<DeadLetters> {
        &self.dead_letters
    }

    /// What opening the store found.
    pub fn open_reports(&self) -> &[OpenReport] {
        &self.open_reports
    }

    /// What it runs with.
    pub fn config(&self) -> Config {
        self.config.lock().clone()
    }

    /// Puts in force what can change while it runs; tells what that was, and
    /// what waits for a restart.
    pub fn reload(&self, new: Config) -> ReloadDiff {
        let mut current = self.config.lock();
        let diff = current.reloadable_diff(&new);
        for line in &diff.applied {
            if let Err(error) = self.audit.note("reload", line, "done") {
                tracing::error!(%error, "a reload is not noted");
            }
        }
        self.broker.set_limits(new.mqtt.limits.clone());
        if current.routes != new.routes {
            current.routes = new.routes;
            self.broker.set_routes(Routes::of(&current));
        }
        current.access = new.access;
        // The listener stays where it is.
        for tls in self.listeners.iter().filter_map(|listener| listener.tls()) {
            tls.refresh(true);
        }
        self.broker.reconfigure_access(&current);
        current.mqtt.limits = new.mqtt.limits;
        current.log = new.log;
        *self.insecure.lock() = status::insecure(&current);
        diff
    }

    /// Stops in order. What is not done by the deadline is left to the next
    /// start, as after a kill: PUBACKs that wait for a disk without space or
    /// without an answer were never promised.
    pub async fn stop(self, deadline: Duration) {
        let until = tokio::time::Instant::now() + deadline;
        let _ = self.stopping.send(true);
        self.broker.end_all(Farewell::ShuttingDown);
        let settled_by = until - limits::STOP_CLOSE.min(deadline / 2);
        while self.broker.connections() > 0 && tokio::time::Instant::now() < settled_by {
            if self.journal.health().withheld.is_some() {
                tracing::warn!("PUBACKs are withheld: their clients send again after the restart");
                break;
            }
            tokio::time::sleep(limits::STOP_POLL).await;
        }
        let left = self.broker.connections();
        if left > 0 {
            tracing::warn!(left, "connections did not end in time; they are cut");
        }
        for task in self.tasks {
            task.abort();
        }
        let handles = std::mem::take(&mut *self.forwarders.lock());
        let remaining = until
            .saturating_duration_since(tokio::time::Instant::now())
            .max(limits::STOP_FORWARDER_MIN);
        let (journal, state, outbox) = (self.journal, self.state, self.outbox);
        let trace = self.trace;
        let broker = self.broker;
        let receipts = self.receipts;
        let lock = self._lock;
        let stopped = tokio::task::spawn_blocking(move || {
            if let Some(receipts) = receipts
                && !receipts.stop(remaining)
            {
                tracing::warn!(
                    "the receipts' consumer did not stop in time; what it has taken is taken again by the next start"
                );
            }
            for (cluster, handle) in handles {
                if !handle.stop(remaining) {
                    tracing::warn!(
                        cluster,
                        "a forwarder did not stop in time; its transaction is aborted by the next start"
                    );
                }
            }
            broker.save_sessions();
            outbox.close();
            journal.close();
            state.close();
            trace.close();
            // No other gateway before the last byte is written.
            drop(lock);
        });
        let closed = remaining + limits::STOP_CLOSE;
        match tokio::time::timeout(closed, stopped).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "closing the store failed"),
            Err(_) => tracing::error!(
                "the disk does not answer: the store is left as after a kill, nothing acknowledged is lost; check the disk"
            ),
        }
    }
}

/// Looks after files that change while it runs: the registry of terminals, and
/// certificates.
async fn watch_files(
    broker: Arc<Broker>,
    listeners: Vec<Arc<Listener>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(limits::FILES_POLL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopping.changed() => return,
        }
        let (broker, listeners) = (broker.clone(), listeners.clone());
        // A disk that does not answer holds a thread that nobody waits for.
        let looked = tokio::task::spawn_blocking(move || {
            broker.refresh_access();
            let with_tls = listeners.iter().filter_map(|listener| listener.tls());
            if with_tls.filter(|tls| tls.refresh(false)).count() > 0 {
                broker.enforce_access();
            }
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "looking at the registry and the certificates failed");
        }
    }
}

/// Does what is due now and then: wills, expiry.
async fn sweep(broker: Arc<Broker>, mut stopping: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(limits::SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut n = 0u32;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stopping.changed() => return,
        }
        broker.publish_due_wills();
        if n.is_multiple_of(limits::SWEEPS_PER_EXPIRY) {
            broker.expire_sessions();
            broker.expire_retained();
        }
        n = n.wrapping_add(1);
    }
}
