//! Terminals by the hundred: the firmware's own core, each on a simulated board
//! behind a simulated modem and 2G network, with people before it.
//!
//! Promises: what a terminal is said to have done is what its people saw and hold
//! in hands; with one seed and a clock of its own (a paused tokio), the same
//! course. Never: a peer of its own; a real gateway or the
//! [`village`](crate::village) answers.
//!
//! - [`Fleet::gather`] in the caller's `LocalSet`, on whatever time that has
//! - [`Fleet::start`] on a thread of its own, in real time or faster

pub mod airtime;
mod board;
mod book;
mod console;
mod costs;
mod device;
mod dialer;
mod person;
mod power;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use risiti_terminal::energy::{Radio, State};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::battery::BatteryProfile;
use crate::clock::SimClock;
use crate::ledger::Accounts;
use crate::modem::{Dialer, ModemSim};
use crate::network::NetworkProfile;
use crate::operator::Habits;
use crate::printer::PrinterModel;
pub use book::Book;
pub use costs::{Cost, Costs};
pub use dialer::GatewayDialer;
pub use power::CutProfile;

use device::Device;

/// How one terminal is.
#[derive(Debug, Clone)]
pub struct TerminalSpec {
    /// Its terminal id.
    pub id: String,
    /// What its people do.
    pub habits: Habits,
    /// The network around it.
    pub network: NetworkProfile,
    /// Probability that its modem says something unasked before a line.
    pub chatter: f64,
    /// Its own power cuts; none: never.
    pub cuts: Option<CutProfile>,
    /// Its battery and how full it is, 0 to 1; none: mains.
    pub battery: Option<(BatteryProfile, f64)>,
    /// Its printer.
    pub printer: PrinterModel,
    /// Bytes of its flash.
    pub flash_bytes: usize,
    /// How long it stays connected for a receipt.
    pub patience: Duration,
    /// When a record without receipt goes out again.
    pub resend_after: Duration,
    /// Its flash loses in a power cut what was written since the start: the
    /// negative control.
    pub forgets: bool,
}

impl TerminalSpec {
    /// A terminal in a village with good power.
    #[must_use]
    pub fn new(id: &str, habits: Habits, network: NetworkProfile) -> Self {
        Self {
            id: id.to_owned(),
            habits,
            network,
            chatter: 0.05,
            cuts: None,
            battery: None,
            printer: PrinterModel::default(),
            // 16 pages: some 750 records and 26 receipts.
            flash_bytes: 64 * 1024,
            patience: Duration::from_secs(5),
            resend_after: Duration::from_secs(4 * 3_600),
            forgets: false,
        }
    }
}

/// What terminals do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Payments are made, the power fails.
    Work,
    /// No more of either; what waits is brought home.
    Rest,
    /// They are gone at once.
    Vanish,
}

/// What all terminals have come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Payments that displays have shown as saved.
    pub saved: u64,
    /// Of them, those whose receipt is on paper, whole.
    pub printed: u64,
    /// Papers that say that they are printed again.
    pub again: u64,
    /// Papers that are not whole.
    pub torn: u64,
    /// Power cuts of terminals, brown-outs among them.
    pub power_cuts: u64,
    /// Resets by watchdogs.
    pub resets: u64,
}

struct Member {
    id: String,
    book: Arc<Mutex<Book>>,
    modem: Arc<Mutex<Option<ModemSim>>>,
}

/// Running terminals. They vanish when it is dropped.
pub struct Fleet {
    members: Vec<Member>,
    orders: watch::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Starts terminals in the `LocalSet` that this is called in, on this clock.
    #[must_use]
    pub fn gather<D: Dialer + Clone>(
        specs: Vec<TerminalSpec>,
        world: &SimClock,
        dialer: &D,
        seed: u64,
    ) -> Self {
        let (fleet, devices) = Self::prepare(specs, seed);
        for device in devices {
            tokio::task::spawn_local(device.live(world, dialer.clone()));
        }
        fleet
    }

    /// Starts terminals on a thread of their own, `factor` times as fast as the
    /// world.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start<D: Dialer + Clone>(
        specs: Vec<TerminalSpec>,
        factor: u32,
        dialer: D,
        seed: u64,
    ) -> io::Result<Self> {
        let (mut fleet, devices) = Self::prepare(specs, seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let live = move || {
            let all = LocalSet::new();
            let _inside = runtime.enter();
            let world = SimClock::faster(factor);
            for device in devices {
                all.spawn_local(device.live(&world, dialer.clone()));
            }
            runtime.block_on(all);
        };
        let thread = std::thread::Builder::new().name("terminals".into());
        fleet.thread = Some(thread.spawn(live)?);
        Ok(fleet)
    }

    fn prepare(specs: Vec<TerminalSpec>, seed: u64) -> (Self, Vec<Blueprint>) {
        let (orders, _) = watch::channel(Order::Work);
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut members = Vec::with_capacity(specs.len());
        let mut devices = Vec::with_capacity(specs.len());
        for spec in specs {
            let member = Member {
                id: spec.id.clone(),
                book: Arc::default(),
                modem: Arc::default(),
            };
            devices.push(Blueprint {
                spec,
                book: Arc::clone(&member.book),
                modem: Arc::clone(&member.modem),
                orders: orders.subscribe(),
                chance: chance.fork(),
            });
            members.push(member);
        }
        let fleet = Self {
            members,
            orders,
            thread: None,
        };
        (fleet, devices)
    }

    /// No more payments and no more power cuts; what waits is brought home.
    pub fn rest(&self) {
        let _ = self.orders.send(Order::Rest);
    }

    /// Ends them all at once, wherever they are. With [`start`](Self::start) they
    /// are gone when it returns, with [`gather`](Self::gather) soon after.
    pub fn vanish(&mut self) {
        let _ = self.orders.send(Order::Vanish);
        if let Some(thread) = self.thread.take() {
            // What a terminal's panic has to say stands on standard error.
            let _ = thread.join();
        }
    }

    /// What they have come to.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for member in &self.members {
            let book = lock(&member.book);
            totals.saved += book.saved_count();
            totals.printed += book.printed_count();
            totals.again += book.again_count();
            totals.torn += book.torn_count();
            totals.power_cuts += book.power_cuts + book.brown_outs;
            totals.resets += book.resets;
        }
        totals
    }

    /// What they did so far, for the judge.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        let account = |member: &Member| (member.id.clone(), lock(&member.book).account());
        self.members.iter().map(account).collect()
    }

    /// The books, by terminal.
    #[must_use]
    pub fn books(&self) -> Vec<(String, Book)> {
        let book = |member: &Member| (member.id.clone(), lock(&member.book).clone());
        self.members.iter().map(book).collect()
    }

    /// What the radios have really done, by terminal; bytes and connections are
    /// the peer's to count.
    #[must_use]
    pub fn radios(&self) -> Vec<(String, Radio)> {
        let radio = |member: &Member| {
            let modem = lock(&member.modem);
            let radio = modem.as_ref().map(ModemSim::radio);
            (member.id.clone(), radio.unwrap_or_default())
        };
        self.members.iter().map(radio).collect()
    }

    /// How many have a connection open or opening.
    #[must_use]
    pub fn online(&self) -> u64 {
        let is_online = |member: &&Member| {
            let modem = lock(&member.modem);
            modem.as_ref().map(ModemSim::state) == Some(State::Data)
        };
        self.members.iter().filter(is_online).count() as u64
    }

    /// Whether they still run; a terminal that panics takes all with it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_none_or(|thread| !thread.is_finished())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.vanish();
    }
}

/// A terminal that is not built yet: what can be sent to the thread it lives on.
struct Blueprint {
    spec: TerminalSpec,
    book: Arc<Mutex<Book>>,
    modem: Arc<Mutex<Option<ModemSim>>>,
    orders: watch::Receiver<Order>,
    chance: fastrand::Rng,
}

impl Blueprint {
    fn live<D: Dialer>(self, world: &SimClock, dialer: D) -> impl Future<Output = ()> + use<D> {
        let device = Device::new(
            self.spec,
            world,
            dialer,
            self.book,
            self.orders,
            self.chance,
        );
        *lock(&self.modem) = Some(device.modem().clone());
        device.live()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
