//! A driver, its simulated modem, and a peer in memory.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use embedded_io_async::{ErrorType, Read, Write};
use fastrand::Rng;
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
pub type Driven<F> = Driver<F, Wire, PowerKey, SimClock>;

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
        Self::wired(setup, seed, |_| {})
    }

    /// With a serial line that is not a perfect one.
    pub fn wired(setup: ModemSetup, seed: u64, change: impl FnOnce(&mut Wire)) -> Self {
        let (dialer, calls) = MemoryDialer::new();
        let clock = SimClock::start();
        let sim = ModemSim::start(setup, seed, clock.clone(), dialer);
        let mut wire = Wire::new(sim.serial(), seed);
        change(&mut wire);
        let driver = Driver::new(wire, sim.power_key(), clock);
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

/// A serial line as bad as it is wanted.
pub struct Wire {
    serial: Serial,
    chance: Rng,
    /// Hands over some bytes only, after a pause.
    pub stutters: bool,
    /// One byte of so many from the modem is lost; none at 0.
    pub loses_down: u32,
    /// One byte of so many to the modem is lost; none at 0.
    pub loses_up: u32,
}

impl Wire {
    pub fn new(serial: Serial, seed: u64) -> Self {
        Self {
            serial,
            chance: Rng::with_seed(seed),
            stutters: false,
            loses_down: 0,
            loses_up: 0,
        }
    }

    fn is_lost(&mut self, one_of: u32) -> bool {
        one_of > 0 && self.chance.u32(..one_of) == 0
    }
}

impl ErrorType for Wire {
    type Error = Infallible;
}

impl Read for Wire {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Infallible> {
        let mut most = into.len();
        if self.stutters {
            most = self.chance.usize(1..=most);
            for _ in 0..self.chance.u8(..3) {
                tokio::task::yield_now().await;
            }
        }
        loop {
            let mut kept = 0;
            let count = self.serial.take(&mut into[..most]).await;
            for at in 0..count {
                if !self.is_lost(self.loses_down) {
                    into[kept] = into[at];
                    kept += 1;
                }
            }
            if kept > 0 {
                return Ok(kept);
            }
        }
    }
}

impl Write for Wire {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let mut count = bytes.len();
        if self.stutters {
            count = self.chance.usize(1..=count);
            for _ in 0..self.chance.u8(..3) {
                tokio::task::yield_now().await;
            }
        }
        for byte in &bytes[..count] {
            if !self.is_lost(self.loses_up) {
                self.serial.push(&[*byte]);
            }
        }
        Ok(count)
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Runs a future for so many polls at most, then drops it.
pub async fn for_polls<T>(future: impl Future<Output = T>, mut polls: u32) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        let polled = future.as_mut().poll(context).map(Some);
        if polled.is_pending() && polls == 0 {
            // It would be dropped at the next poll; why wait for that?
            return Poll::Ready(None);
        }
        polled
    })
    .await
}
