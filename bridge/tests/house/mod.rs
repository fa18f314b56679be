//! What the forwarder's tests stand on: a journal in memory, dead letters in a
//! real state database, records with an order that can be checked.

#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use risiti_bridge::memory_source::MemorySource;
use risiti_bridge::{
    DeadLetters, EmbeddedCluster, Forwarder, ForwarderHandle, ForwarderMetrics, ForwarderSetup,
    Options, Routes, SharedRoutes, Status, TraceLog,
};
use risiti_config::{Bootstrap, Cluster, Route, Terminals};
use risiti_store::{Identity, NewRecord, State, StoreOptions};

/// Long enough for anything on a busy machine; reached only by a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct House {
    pub source: Arc<MemorySource>,
    pub dead: Arc<DeadLetters>,
    pub setup: ForwarderSetup,
    _dir: tempfile::TempDir,
}

impl House {
    pub fn embedded(cluster: &Arc<EmbeddedCluster>) -> Self {
        let mut house = Self::new(Cluster::new(Bootstrap::Embedded));
        house.setup.embedded = Some(Arc::clone(cluster));
        house
    }

    pub fn at(bootstrap: &str) -> Self {
        Self::new(Cluster::new(Bootstrap::Servers(vec![bootstrap.into()])))
    }

    pub fn new(cluster: Cluster) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = StoreOptions::new(dir.path());
        options.ballast_bytes = 0;
        options.free_bytes_min = 0;
        let (state, _) = State::open(&options).expect("a state");
        let dead = Arc::new(DeadLetters::open(state).expect("dead letters"));
        let source = Arc::new(MemorySource::new("3f9a0c11deadbeef3f9a0c11deadbeef"));
        let terminals = Terminals::default();
        let routes = Routes::new(&[Route::records(&terminals)], &terminals);
        let setup = ForwarderSetup {
            cluster,
            name: "default".into(),
            gateway_id: "gw-1".into(),
            embedded: None,
            routes: Arc::new(SharedRoutes::new(routes)),
            source: source.clone(),
            dead: Arc::clone(&dead),
            metrics: Arc::new(ForwarderMetrics::default()),
            trace: TraceLog::disabled(),
            options: Options::default(),
        };
        Self {
            source,
            dead,
            setup,
            _dir: dir,
        }
    }

    /// Appends records `from..from + count` of each terminal, interleaved.
    pub fn append(&self, terminals: u64, from: u64, count: u64) {
        for sequence in from..from + count {
            for terminal in 0..terminals {
                self.source.append(record(terminal, sequence, b"payload"));
            }
        }
    }

    pub fn start(&self) -> ForwarderHandle {
        Forwarder::start(self.setup.clone()).expect("a thread")
    }

    /// Waits until Kafka has everything below `position`.
    pub fn await_released(&self, position: u64) {
        let until = Instant::now() + PATIENCE;
        while self.source.released(&self.setup.name) < position {
            assert!(
                Instant::now() < until,
                "position {position} not within {PATIENCE:?}: {:?}",
                self.setup.metrics.last_error()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn await_drained(&self) {
        use risiti_store::RecordSource;
        self.await_released(self.source.end());
    }

    pub fn count(
        &self,
        counter: impl Fn(&ForwarderMetrics) -> &std::sync::atomic::AtomicU64,
    ) -> u64 {
        counter(&self.setup.metrics).load(Ordering::Relaxed)
    }
}

pub fn record(terminal: u64, sequence: u64, payload: &[u8]) -> NewRecord {
    NewRecord {
        received_ms: 1_700_000_000_000 + sequence,
        client_id: Bytes::from(format!("client-{terminal}")),
        topic: Bytes::from(format!("t/{terminal}/records")),
        identity: Identity::Sequence {
            sequence,
            dup: false,
            resend_mark: false,
        },
        properties: Bytes::new(),
        payload: Bytes::copy_from_slice(payload),
    }
}

pub fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn await_status(handle: &ForwarderHandle, what: &str, is_so: impl Fn(&Status) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so(&handle.status()) {
        let status = handle.status();
        assert!(
            Instant::now() < until,
            "not within {PATIENCE:?}: {what}, but {status:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
