//! A gateway inside the test's process, without any Kafka that answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use risiti_config::{Bootstrap, ByteSize, Config, Format, Key, Route};
use risiti_gateway::broker::Broker;
use risiti_gateway::clock::ManualClock;
use risiti_gateway::gateway::{Gateway, Switches};
use risiti_tests::wire_client::{Connect, Wire};
use tokio::runtime::Runtime;

/// Both protocol versions.
pub const VERSIONS: [u8; 2] = [4, 5];

/// A running gateway and its data.
pub struct House {
    runtime: Runtime,
    gateway: Option<Gateway>,
    dir: tempfile::TempDir,
    pub clock: Option<Arc<ManualClock>>,
    change: Box<dyn Fn(&mut Config) + Send + Sync>,
    switch: fn(&mut Switches),
}

impl House {
    /// With every default but addresses and a small store; topics below
    /// `records/` are Kafka's.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With another configuration.
    pub fn with(change: fn(&mut Config)) -> Self {
        Self::build(change, |_| {}, None)
    }

    /// With every default, and a switch that no configuration has.
    pub fn with_switch(switch: fn(&mut Switches)) -> Self {
        Self::build(|_| {}, switch, None)
    }

    /// With a clock that stands until it is moved.
    pub fn with_clock(change: fn(&mut Config)) -> Self {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        Self::build(change, |_| {}, Some(clock))
    }

    /// With all of these.
    #[allow(dead_code)] // only the tests of access need all of them
    pub fn of(
        change: impl Fn(&mut Config) + Send + Sync + 'static,
        switch: fn(&mut Switches),
        clock: Option<Arc<ManualClock>>,
    ) -> Self {
        Self::build(change, switch, clock)
    }

    fn build(
        change: impl Fn(&mut Config) + Send + Sync + 'static,
        switch: fn(&mut Switches),
        clock: Option<Arc<ManualClock>>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut house = Self {
            runtime,
            gateway: None,
            dir: tempfile::tempdir().unwrap(),
            clock,
            change: Box::new(change),
            switch,
        };
        house.start();
        house
    }

    fn start(&mut self) {
        let mut config = Config::new(Bootstrap::Servers(vec!["127.0.0.1:1".into()]));
        config.gateway.data_dir = self.dir.path().join("data");
        config.mqtt.listen = "127.0.0.1:0".parse().unwrap();
        config.admin.listen = "127.0.0.1:0".parse().unwrap();
        config.store.ballast_bytes = ByteSize::mib(1);
        config.routes.push(Route {
            name: "raw".into(),
            filter: "records/#".into(),
            cluster: "default".into(),
            topic: "raw".into(),
            key: Key::Terminal,
            format: Format::Raw,
        });
        config.routes.last_mut().unwrap().key = Key::Topic;
        (self.change)(&mut config);
        let mut switches = Switches {
            clock: self.clock.clone().map(|c| c as _),
            ..Switches::default()
        };
        (self.switch)(&mut switches);
        let gateway = self
            .runtime
            .block_on(Gateway::start(config, switches))
            .unwrap();
        self.gateway = Some(gateway);
    }

    /// Stops in order and starts again on the same data; the port changes.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn stop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            self.runtime.block_on(gateway.stop(Duration::from_secs(2)));
        }
    }

    /// What the gateway runs on, for calls to it that begin tasks.
    #[allow(dead_code)] // only the dialogues of conformance need it
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    pub fn broker(&self) -> &Arc<Broker> {
        self.gateway().broker()
    }

    pub fn addr(&self) -> SocketAddr {
        self.gateway().mqtt_addr()
    }

    /// A connection that was accepted.
    pub fn client(&self, connect: &Connect) -> io::Result<Wire> {
        Wire::accepted(self.addr(), connect)
    }

    /// A clean session.
    pub fn clean(&self, version: u8, client_id: &str) -> io::Result<Wire> {
        self.client(&Connect::clean(version, client_id))
    }

    /// Waits for something that no packet tells.
    pub fn until(&self, what: &str, wanted: impl FnMut() -> bool) {
        until(what, wanted);
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Looks until it is so.
pub fn until(what: &str, mut wanted: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !wanted() {
        assert!(Instant::now() < give_up, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Retain as published, no local: bits of the subscription options.
pub const NO_LOCAL: u8 = 0b100;
pub const AS_PUBLISHED: u8 = 0b1000;
pub const ONLY_IF_NEW: u8 = 0b1_0000;
pub const NO_RETAINED: u8 = 0b10_0000;
