//! Stand-ins for battery terminals that speak both versions of MQTT, for tests of
//! the gateway: cheap, in real time, with a flash and a printer that are models. The
//! terminal's own firmware runs in [`fleet`](crate::fleet).
//!
//! Promises: a payment is in the account from the moment at which it is in
//! flash, and leaves flash only for its receipt; what is not in flash is lost in
//! a power cut; each receipt is printed once. Never: a payment given up.
//!
//! Packets are those of [`mqtt`](crate::mqtt). Sessions are persistent; SUBSCRIBE
//! goes out only where the gateway has no session, or has never acknowledged the
//! subscription.

mod core;
mod flash;
mod life;
mod power;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::ledger::{Account, Accounts};
use crate::mqtt::MqttVersion;

pub use self::core::{Resend, amount_minor};
use self::life::Life;
pub use self::power::PowerProfile;

/// How a terminal comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away {
    /// It hangs up after so long without a packet, if it waits for no PUBACK.
    pub linger: Duration,
    /// It comes again after this.
    pub pause: Duration,
}

/// How one terminal is.
#[derive(Debug, Clone)]
pub struct TerminalSpec {
    /// Its terminal id, also its client identifier.
    pub id: String,
    /// Where it finds its gateway, or a link to it.
    pub gateway: SocketAddr,
    /// Which MQTT it speaks.
    pub version: MqttVersion,
    /// PUBLISHes that it keeps unacknowledged at most, from 1.
    pub window: usize,
    /// Payments made at it; none: on and on, until [`Terminals::rest`].
    pub payments: Option<u64>,
    /// Payments a second, on average.
    pub per_second: f64,
    /// When a record without a receipt is sent again with the resend mark; none:
    /// never.
    pub resend: Option<Resend>,
    /// Its own power cuts; none: never.
    pub power: Option<PowerProfile>,
    /// Whether it hangs up between its errands, as a battery terminal does;
    /// none: it stays connected.
    pub away: Option<Away>,
    /// Prints a receipt when it comes, before it is in flash: the negative
    /// control of "printed once".
    pub prints_before_saving: bool,
}

/// What goes on at terminals besides what is in their accounts.
#[derive(Debug, Default)]
pub struct TerminalCounts {
    /// Connections that stand now.
    pub connected: AtomicU64,
    /// CONNACKs.
    pub connects: AtomicU64,
    /// Sessions with a subscription that the gateway had forgotten.
    pub sessions_lost: AtomicU64,
    /// Acknowledgements for nothing that is in flight, or out of order.
    pub wrong_acknowledgements: AtomicU64,
    /// Records or subscriptions that the gateway refused.
    pub refused: AtomicU64,
    /// Connections given up because nothing moved.
    pub stalls: AtomicU64,
}

/// What terminals do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
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
    /// Payments saved.
    pub saved: u64,
    /// Of them, those that a gateway has.
    pub acknowledged: u64,
    /// Of them, those whose receipt is printed.
    pub printed: u64,
    /// Records sent again with the resend mark.
    pub resent: u64,
    /// Power cuts of terminals.
    pub power_cuts: u64,
}

#[derive(Debug)]
struct Member {
    id: String,
    account: Arc<Mutex<Account>>,
    life: JoinHandle<()>,
}

/// Running terminals. Dropping it ends them.
#[derive(Debug)]
pub struct Terminals {
    members: Vec<Member>,
    order: watch::Sender<Order>,
    counts: Arc<TerminalCounts>,
}

impl Terminals {
    /// Starts them. Call it inside a tokio runtime. They look for their gateway
    /// for as long as it takes.
    #[must_use]
    pub fn start(specs: Vec<TerminalSpec>, seed: u64) -> Self {
        let (order, orders) = watch::channel(Order::Work);
        let counts = Arc::new(TerminalCounts::default());
        let mut chance = fastrand::Rng::with_seed(seed);
        let began = Instant::now();
        let start = |spec: TerminalSpec| {
            let account = Arc::new(Mutex::new(Account::default()));
            let id = spec.id.clone();
            let life = Life::new(
                spec,
                chance.fork(),
                began,
                Arc::clone(&account),
                Arc::clone(&counts),
                orders.clone(),
            );
            Member {
                id,
                account,
                life: tokio::spawn(life.run()),
            }
        };
        let members = specs.into_iter().map(start).collect();
        Self {
            members,
            order,
            counts,
        }
    }

    /// No more payments and no more power cuts; what waits is brought home.
    pub fn rest(&self) {
        let _ = self.order.send(Order::Rest);
    }

    /// Payments are made again after [`Self::rest`]; those that fell into the rest
    /// are not made up for. The power stays good.
    pub fn work(&self) {
        let _ = self.order.send(Order::Work);
    }

    /// What they did since the last call, or the start: for runs so long that the
    /// books of all of it would not fit. Numbers go on, and `published` stays the
    /// last one. Call it when nothing is on its way.
    #[must_use]
    pub fn take_accounts(&self) -> Accounts {
        let take = |member: &Member| {
            let mut account = lock(&member.account);
            let next = Account {
                published: account.published,
                ..Account::default()
            };
            (member.id.clone(), std::mem::replace(&mut *account, next))
        };
        self.members.iter().map(take).collect()
    }

    /// Ends them all at once, wherever they are.
    pub async fn vanish(&mut self) {
        let _ = self.order.send(Order::Vanish);
        for member in &mut self.members {
            let _ = (&mut member.life).await;
        }
    }

    /// What they have come to.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for member in &self.members {
            let account = lock(&member.account);
            totals.saved += account.published;
            totals.acknowledged += account.acknowledged.len() as u64;
            totals.printed += account.printed.len() as u64;
            totals.resent += account.resent;
            totals.power_cuts += account.power_cuts;
        }
        totals
    }

    /// Waits until they have come to this.
    ///
    /// # Errors
    /// They have not within so long; the error tells what they have come to.
    pub async fn wait(
        &self,
        what: &str,
        within: Duration,
        mut reached: impl FnMut(&Totals) -> bool,
    ) -> io::Result<Totals> {
        let until = Instant::now() + within;
        loop {
            let totals = self.totals();
            if reached(&totals) {
                return Ok(totals);
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!(
                    "not within {within:?}: {what}; {totals:?}, {:?}",
                    self.counts
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What goes on besides.
    #[must_use]
    pub fn counts(&self) -> &TerminalCounts {
        &self.counts
    }

    /// Connections that stand now.
    #[must_use]
    pub fn connected(&self) -> u64 {
        self.counts.connected.load(Ordering::Relaxed)
    }

    /// What they did so far, for the judge.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        let account = |member: &Member| (member.id.clone(), lock(&member.account).clone());
        self.members.iter().map(account).collect()
    }
}

impl Drop for Terminals {
    fn drop(&mut self) {
        for member in &self.members {
            member.life.abort();
        }
    }
}

/// Totals are looked at so often by who waits for them.
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn lock(account: &Mutex<Account>) -> std::sync::MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}
