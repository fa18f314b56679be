//! A terminal's life, as a shell around its core: connections, key presses,
//! power cuts, one after the other.
//!
//! Promises: the account is written in the same step as the flash. Never: an
//! account that forgets in a power cut, or a core that does not.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::core::{Core, Event, Outgoing};
use super::power::{Cut, Power};
use super::{Order, TerminalCounts, TerminalSpec, lock};
use crate::ledger::Account;
use crate::limits::{BACKOFF, CONNACK_MAX, PING_EVERY, SILENCE_MAX};
use crate::mqtt::{Incoming, Wire};

/// One terminal.
pub struct Life {
    spec: TerminalSpec,
    core: Core,
    power: Power,
    chance: Rng,
    began: Instant,
    next_payment: Instant,
    paid: u64,
    /// No payments are made for now.
    rests: bool,
    account: Arc<Mutex<Account>>,
    counts: Arc<TerminalCounts>,
    orders: watch::Receiver<Order>,
}

/// Why a connection is over.
enum Over {
    /// Nothing is left to do for now.
    Idle,
    /// It broke, or the terminal gave it up.
    Broken,
    /// The terminal's power failed.
    Dark,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl From<Cut> for Over {
    fn from(_: Cut) -> Self {
        Self::Dark
    }
}

impl Life {
    pub fn new(
        spec: TerminalSpec,
        mut chance: Rng,
        began: Instant,
        account: Arc<Mutex<Account>>,
        counts: Arc<TerminalCounts>,
        orders: watch::Receiver<Order>,
    ) -> Self {
        let core = Core::new(&spec.id, spec.window, spec.resend, chance.fork());
        let power = Power::new(spec.power, chance.fork());
        let first = Duration::from_secs_f64(chance.f64() / spec.per_second.max(1e-6));
        Self {
            core,
            power,
            chance,
            began,
            next_payment: began + first,
            paid: 0,
            rests: false,
            account,
            counts,
            orders,
            spec,
        }
    }

    pub async fn run(mut self) {
        let mut orders = self.orders.clone();
        tokio::select! {
            () = self.live() => {}
            _ = orders.wait_for(|order| *order == Order::Vanish) => {}
        }
    }

    async fn live(&mut self) {
        let mut backoff = BACKOFF.0;
        loop {
            let connected = self.counts.connects.load(Relaxed);
            let pause = match self.connection().await {
                Over::Idle => {
                    backoff = BACKOFF.0;
                    self.spec.away.map_or(BACKOFF.0, |away| away.pause)
                }
                Over::Broken => {
                    if self.counts.connects.load(Relaxed) > connected {
                        backoff = BACKOFF.0;
                    }
                    let pause = backoff.mul_f64(0.5 + self.chance.f64());
                    backoff = (backoff * 2).min(BACKOFF.1);
                    pause
                }
                Over::Dark => {
                    self.go_dark().await;
                    continue;
                }
            };
            if self.pause(pause).await.is_err() {
                self.go_dark().await;
            }
        }
    }

    /// Waits, while payments go on.
    async fn pause(&mut self, pause: Duration) -> Result<(), Cut> {
        let until = Instant::now() + pause;
        loop {
            let due = self.press_keys()?;
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            let wake = [due, self.power.idle_cut_at()].into_iter().flatten();
            let wake = wake.min().unwrap_or(until).min(until);
            tokio::select! {
                () = sleep_until(wake) => {}
                changed = self.orders.changed() => if changed.is_err() {
                    return Ok(());
                },
            }
            self.look_at_power()?;
        }
    }

    async fn go_dark(&mut self) {
        lock(&self.account).power_cuts += 1;
        self.core.cut_power();
        let dark = self.power.dark();
        sleep(dark).await;
        self.power.restore(Instant::now());
        // Nobody could pay meanwhile.
        self.next_payment = self.next_payment.max(Instant::now());
        self.print_all();
    }

    async fn connection(&mut self) -> Over {
        match self.connected().await {
            Ok(over) | Err(over) => over,
        }
    }

    async fn connected(&mut self) -> Result<Over, Over> {
        let open = Wire::connect(self.spec.gateway, &self.spec.id, self.spec.version);
        let opened = timeout(CONNACK_MAX, open).await;
        let (mut wire, session_present) = opened.map_err(io::Error::from)??;
        self.counts.connects.fetch_add(1, Relaxed);
        let _connected = Connected::new(&self.counts);
        if self.core.connected(session_present) {
            self.counts.sessions_lost.fetch_add(1, Relaxed);
        }
        self.power.step()?;
        let mut heard = Instant::now();
        let mut ping_at = heard + PING_EVERY;
        loop {
            let key_at = self.press_keys()?;
            while let Some(packet) = self.core.next(self.began.elapsed()) {
                self.write(&mut wire, packet)?;
                self.power.step()?;
            }
            let flushed = timeout(SILENCE_MAX, wire.flush()).await;
            flushed.map_err(io::Error::from)??;
            self.print_all();
            let leave_at = match self.spec.away {
                Some(away) if !self.core.awaits_acknowledgement() => Some(heard + away.linger),
                _ => None,
            };
            if leave_at.is_some_and(|at| at <= Instant::now()) {
                wire.disconnect().await?;
                return Ok(Over::Idle);
            }
            let send_at = self.core.due().map(|due| self.began + due);
            let cut_at = self.power.idle_cut_at();
            let wake = [key_at, send_at, cut_at, leave_at].into_iter().flatten();
            let wake = wake.fold(ping_at.min(heard + SILENCE_MAX), Instant::min);
            tokio::select! {
                incoming = wire.next() => {
                    heard = Instant::now();
                    self.take(incoming?)?;
                }
                () = sleep_until(wake) => {
                    if heard.elapsed() >= SILENCE_MAX {
                        self.counts.stalls.fetch_add(1, Relaxed);
                        return Err(Over::Broken);
                    }
                    if Instant::now() >= ping_at {
                        wire.ping();
                        ping_at = Instant::now() + PING_EVERY;
                    }
                }
                changed = self.orders.changed() => if changed.is_err() {
                    return Err(Over::Broken);
                },
            }
            self.look_at_power()?;
        }
    }

    fn look_at_power(&mut self) -> Result<(), Cut> {
        if *self.orders.borrow() != Order::Work {
            self.power.make_good();
        }
        match self.power.idle_cut_at() {
            Some(at) if at <= Instant::now() => Err(Cut),
            _ => Ok(()),
        }
    }

    /// Makes the payments that are due; tells when the next one is.
    fn press_keys(&mut self) -> Result<Option<Instant>, Cut> {
        loop {
            let paid_all = self.spec.payments.is_some_and(|all| self.paid >= all);
            // A number of payments is kept to, whatever the order.
            let resting = self.spec.payments.is_none() && *self.orders.borrow() != Order::Work;
            if paid_all || resting {
                self.rests = resting;
                return Ok(None);
            }
            if std::mem::take(&mut self.rests) {
                // Nobody made the payments of the rest.
                let mean = 1.0 / self.spec.per_second.max(1e-6);
                self.next_payment =
                    Instant::now() + Duration::from_secs_f64(mean * self.chance.f64());
            }
            if self.next_payment > Instant::now() {
                return Ok(Some(self.next_payment));
            }
            let at = self.next_payment.saturating_duration_since(self.began);
            let time_s = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs() as u32);
            let Ok(sequence) = self.core.pay(at, time_s) else {
                return Ok(None);
            };
            lock(&self.account).published = sequence;
            self.paid += 1;
            let mean = 1.0 / self.spec.per_second.max(1e-6);
            self.next_payment += Duration::from_secs_f64(mean * (0.5 + self.chance.f64()));
            self.power.step()?;
        }
    }

    fn write(&mut self, wire: &mut Wire, packet: Outgoing) -> io::Result<()> {
        match packet {
            Outgoing::Subscribe { packet_id } => {
                wire.subscribe(self.core.receipts_topic(), packet_id)
            }
            Outgoing::Acknowledge { packet_id } => wire.acknowledge(packet_id),
            Outgoing::Publish {
                packet_id,
                dup,
                payload,
                resent,
            } => {
                if resent {
                    lock(&self.account).resent += 1;
                }
                let topic = format!("t/{}/records", self.spec.id);
                wire.publish(&topic, 1, &payload, packet_id, dup)
            }
        }
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), Over> {
        if self.spec.prints_before_saving
            && let Some(sequence) = self.core.first_receipt(&incoming)
        {
            *lock(&self.account).printed.entry(sequence).or_default() += 1;
            self.power.step()?;
        }
        let event = self.core.take(self.began.elapsed(), incoming);
        match event {
            Event::Acknowledged(sequence) => {
                lock(&self.account).acknowledged.insert(sequence);
            }
            Event::Receipt {
                sequence,
                waited,
                accepted,
            } => {
                let mut account = lock(&self.account);
                account.acknowledged.insert(sequence);
                account.waited.push(waited);
                account.rejected += u64::from(!accepted);
            }
            Event::Repeated => lock(&self.account).repeated += 1,
            Event::Stranger(what) => {
                eprintln!("{} got what is not its own: {what}", self.spec.id);
                lock(&self.account).strangers += 1;
            }
            Event::Refused => {
                self.counts.refused.fetch_add(1, Relaxed);
                return Err(Over::Broken);
            }
            Event::Wrong => {
                self.counts.wrong_acknowledgements.fetch_add(1, Relaxed);
                return Err(Over::Broken);
            }
            Event::None => {}
        }
        self.power.step()?;
        Ok(())
    }

    fn print_all(&mut self) {
        while let Some(job) = self.core.print() {
            if !self.spec.prints_before_saving {
                *lock(&self.account).printed.entry(job.sequence).or_default() += 1;
            }
        }
    }
}

/// Counts a connection for as long as it stands, also when it is cancelled.
struct Connected(Arc<TerminalCounts>);

impl Connected {
    fn new(counts: &Arc<TerminalCounts>) -> Self {
        counts.connected.fetch_add(1, Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Relaxed);
    }
}
