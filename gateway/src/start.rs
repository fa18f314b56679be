//! The parts of a start: each opens one thing, and says what to do if it can't.
//!
//! The order in which they are called is `gateway.rs`'s.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::sync::Arc;

use risiti_bridge::receipts::{ConsumerSetup, ReceiptsConsumer, ReceiptsHandle};
use risiti_bridge::trace::TraceLog;
use risiti_bridge::{DeadLetters, EmbeddedCluster, Outbox};
use risiti_config::{Bootstrap, Config, DEFAULT_CLUSTER};
use risiti_store::{Journal, OpenReport, RecordSource, State, StoreError, StoreKey, StoreOptions};
use tokio::net::{TcpListener, TcpSocket};

use crate::gateway::{StartError, Switches};
use crate::listener::{self, Listener};

/// An address that is ours, but nobody can connect yet.
pub(crate) struct Reserved {
    socket: TcpSocket,
    addr: SocketAddr,
    key: String,
}

pub(crate) fn reserve(addr: SocketAddr, key: &str) -> Result<Reserved, StartError> {
    let key = key.to_owned();
    match listener::reserve(addr) {
        Ok(socket) => Ok(Reserved { socket, addr, key }),
        Err(source) => Err(StartError::Listen { addr, key, source }),
    }
}

/// The listeners for MQTT, `[mqtt]` first.
pub(crate) struct Doors(Vec<(Listener, Reserved)>);

/// A listener, its socket, and its address.
pub(crate) type Door = (Arc<Listener>, TcpListener, SocketAddr);

impl Doors {
    /// Reads their certificates and takes their addresses.
    pub(crate) fn reserve(config: &Config) -> Result<Self, StartError> {
        let plain = reserve(config.mqtt.listen, "mqtt.listen")?;
        let mut doors = vec![(Listener::plain(), plain)];
        for one in &config.listeners {
            let key = format!("listen of listener {}", one.name);
            doors.push((Listener::new(one)?, reserve(one.listen, &key)?));
        }
        Ok(Self(doors))
    }

    /// Lets clients connect.
    pub(crate) fn open(self) -> Result<Vec<Door>, StartError> {
        let open = |(listener, reserved): (Listener, Reserved)| {
            let wanted = reserved.addr;
            let socket = reserved.listen()?;
            let addr = socket.local_addr().unwrap_or(wanted);
            Ok((Arc::new(listener), socket, addr))
        };
        self.0.into_iter().map(open).collect()
    }
}

impl Reserved {
    /// Lets clients connect.
    pub(crate) fn listen(self) -> Result<TcpListener, StartError> {
        let Self { socket, addr, key } = self;
        listener::listen(socket).map_err(|source| StartError::Listen { addr, key, source })
    }
}

pub(crate) type OpenStore = (Arc<State>, Arc<Journal>, Vec<OpenReport>);

pub(crate) fn open_store(options: &StoreOptions) -> Result<OpenStore, StoreError> {
    let (state, state_report) = State::open(options)?;
    let (journal, journal_report) = Journal::open(options, state.clone())?;
    Ok((state, journal, vec![state_report, journal_report]))
}

pub(crate) fn lock_data_dir(config: &Config) -> Result<File, StartError> {
    let path = &config.gateway.data_dir;
    let refused = |source| StartError::DataDir {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(path).map_err(refused)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("lock"))
        .map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { path: path.clone() }),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}

pub(crate) fn store_options(config: &Config, switches: &Switches) -> StoreOptions {
    let store = &config.store;
    StoreOptions {
        generation_bytes: store.generation_bytes.bytes(),
        // The recorder's files are counted whole, whether they are there or not.
        budget_bytes: store.budget_bytes.bytes() - config.trace.bytes_max.bytes(),
        receipts_reserve_bytes: store.receipts_reserve_bytes.bytes(),
        free_bytes_min: store.free_bytes_min.bytes(),
        ballast_bytes: store.ballast_bytes.bytes(),
        keep_forwarded_bytes: store.keep_forwarded_bytes.bytes(),
        key: store.key.as_ref().map(|key| StoreKey::new(*key.expose())),
        consumers: config
            .all_clusters()
            .map(|(name, _)| name.to_owned())
            .collect(),
        dedup: !switches.without_dedup,
        ..StoreOptions::new(config.gateway.data_dir.join("store"))
    }
}

/// Opens the recorder; without it the gateway runs as well.
pub(crate) fn open_trace(config: &Config) -> Arc<TraceLog> {
    let dir = config.gateway.data_dir.join("trace");
    TraceLog::open(&dir, config.trace.bytes_max.bytes()).unwrap_or_else(|error| {
        tracing::error!(%error, dir = %dir.display(), "the steps of payments are not recorded, `risiti trace` has no answers; make the directory writable and restart");
        TraceLog::disabled()
    })
}

/// Starts what brings receipts, unless it is switched off.
pub(crate) fn start_receipts(
    config: &Config,
    embedded: &Option<Arc<EmbeddedCluster>>,
    journal: &Arc<Journal>,
    outbox: &Arc<Outbox>,
    dead_letters: &Arc<DeadLetters>,
) -> Result<Option<ReceiptsHandle>, StartError> {
    let receipts = &config.receipts;
    let Some(cluster) = config
        .cluster(&receipts.cluster)
        .filter(|_| receipts.enabled)
    else {
        return Ok(None);
    };
    let setup = ConsumerSetup {
        cluster: cluster.clone(),
        cluster_name: receipts.cluster.clone(),
        gateway_id: config.gateway.id.clone(),
        journal_id: journal.journal_id().to_owned(),
        embedded: embedded
            .clone()
            .filter(|_| cluster.bootstrap == Bootstrap::Embedded),
        topic: receipts.topic.clone(),
        deliveries_topic: receipts.deliveries_topic.clone(),
        outbox: outbox.clone(),
        dead: dead_letters.clone(),
    };
    let handle = ReceiptsConsumer::start(setup).map_err(StartError::Thread)?;
    Ok(Some(handle))
}

/// Starts the embedded cluster if any cluster is it, with the topics of its
/// routes, and leaves its address beside the data.
pub(crate) fn start_embedded(config: &Config) -> Result<Option<Arc<EmbeddedCluster>>, StartError> {
    let partitions: BTreeMap<_, _> = config
        .all_clusters()
        .filter(|(_, cluster)| cluster.bootstrap == Bootstrap::Embedded)
        .map(|(name, cluster)| (name, cluster.partitions))
        .collect();
    if partitions.is_empty() {
        return Ok(None);
    }
    let embedded = EmbeddedCluster::start()?;
    for route in &config.routes {
        if let Some(partitions) = partitions.get(route.cluster.as_str()) {
            embedded.create_topic(&route.topic, *partitions)?;
        }
    }
    let receipts = &config.receipts;
    if let Some(partitions) = partitions.get(receipts.cluster.as_str()) {
        embedded.create_topic(&receipts.topic, *partitions)?;
        embedded.create_topic(&receipts.deliveries_topic, *partitions)?;
    }
    // Settlement is a process of its own, but nobody else can create them here.
    let settlement = &config.settlement;
    if let Some(partitions) = partitions.get(settlement.cluster.as_str()) {
        for (topic, partitions) in
            risiti_bridge::settlement::topics::needed(settlement, *partitions)
        {
            embedded.create_topic(topic, partitions)?;
        }
    }
    let path = config.gateway.data_dir.join("embedded-kafka");
    std::fs::write(&path, format!("{}\n", embedded.bootstrap())).map_err(|source| {
        StartError::DataDir {
            path: path.clone(),
            source,
        }
    })?;
    tracing::warn!(
        bootstrap = embedded.bootstrap(),
        cluster = DEFAULT_CLUSTER,
        "embedded Kafka: {}",
        risiti_bridge::embedded::LIMITS
    );
    Ok(Some(Arc::new(embedded)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't go on has failed

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_stores_key_reaches_the_store_and_another_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let options = |digit: &str| {
            let key = dir.path().join(digit);
            std::fs::write(&key, digit.repeat(64)).unwrap();
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
            let source = format!(
                "[gateway]\ndata_dir = {:?}\n[kafka]\nbootstrap = \"k:1\"\n[store]\nkey_file = {key:?}\n",
                dir.path()
            );
            let config = Config::from_toml_str("f", &source, std::iter::empty()).unwrap();
            store_options(&config, &Switches::default())
        };
        let (state, journal, _) = open_store(&options("a")).unwrap();
        journal.close();
        state.close();
        let refused = open_store(&options("b")).map(|_| ());
        assert!(
            matches!(refused, Err(StoreError::Key { .. })),
            "{refused:?}"
        );
        assert!(open_store(&options("a")).is_ok());
    }
}
