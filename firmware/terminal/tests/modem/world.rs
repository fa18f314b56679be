//! A driver, its simulated modem, and a peer in memory.

use std::time::Duration;

use risiti_sim::clock::SimClock;
use risiti_sim::modem::{Call, Family, MemoryDialer, ModemSetup, ModemSim, PowerKey, Serial};
use risiti_sim::network::NetworkProfile;
use risiti_terminal::modem::{Driver, Modem, ModemError, Network, QuectelFamily, Sim800Family};
use tokio::sync::mpsc::UnboundedReceiver;

pub const NETWORK: Network<'static> = Network {
    apn: "internet",
    user: "",
    password: "",
};

/// A modem's driver, whichever.
pub type Driven<F> = Driver<F, Serial, PowerKey, SimClock>;

/// A family as the simulator and as the driver know it.
pub trait Tested: risiti_terminal::modem::Family {
    const FAMILY: Family;
}

impl Tested for Sim800Family {
    const FAMILY: Family = Family::Sim800;
}

impl Tested for QuectelFamily {
    const FAMILY: Family = Family::Quectel;
}

/// A modem with its driver, and the calls that it makes.
pub struct World<F> {
    pub sim: ModemSim,
    pub driver: Driven<F>,
    pub calls: UnboundedReceiver<Call>,
}

impl<F: Tested> World<F> {
    pub fn new(network: NetworkProfile, seed: u64) -> Self {
        Self::with(ModemSetup::new(F::FAMILY, network), seed)
    }

    pub fn with(setup: ModemSetup, seed: u64) -> Self {
        let (dialer, calls) = MemoryDialer::new();
        let clock = SimClock::start();
        let sim = ModemSim::start(setup, seed, clock.clone(), dialer);
        let driver = Driver::new(sim.serial(), sim.power_key(), clock);
        Self { sim, driver, calls }
    }

    /// Powers on and opens a connection.
    pub async fn up(&mut self) -> Result<(), ModemError> {
        self.driver.power_on(&NETWORK).await?;
        self.driver.open("gate.example", 1_883).await
    }

    /// The call that was made, if one was.
    pub fn call(&mut self) -> Call {
        self.calls.try_recv().expect("a call")
    }

    pub fn now(&self) -> Duration {
        self.sim.clock().now()
    }
}

/// 2G without chance, as far as it matters here.
pub fn steady() -> NetworkProfile {
    NetworkProfile::steady(Duration::from_millis(700))
}
