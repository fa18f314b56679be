//! The task of the way to the gateway.
//!
//! Promises: an errand when the schedule says so and the battery allows, and the
//! modem off between errands; what the radio costs is counted over the terminal's
//! life. Never: the modem on without an errand to come at once.

use core::convert::Infallible;

use embassy_futures::select::{Either3, select3};
use embedded_storage_async::nor_flash::NorFlash;

use super::desk::{Desk, SharedGauge, SharedStore};
use super::levels;
use super::pulse::Task;
use crate::application::{Fact, Radio as Doing, RadioTrouble};
use crate::connection::{End, Errand, Link, Orders, Outcome, Schedule, Scratch};
use crate::energy;
use crate::hardware::{Battery, Clock};
use crate::limits::{COUNTERS_MS, MODEM_LINGER_MS, RADIO_MS_MAX};
use crate::modem::{Modem, ModemError, Network};
use crate::settings::Settings;
use crate::store::Counters;

/// The way to the gateway.
pub struct Radio<'a, M, F, A, C> {
    pub desk: &'a Desk,
    pub store: &'a SharedStore<F>,
    pub gauge: &'a SharedGauge<'a, A>,
    pub settings: &'a Settings<'a>,
    pub clock: C,
    pub modem: Told<'a, M>,
    pub schedule: Schedule,
    pub link: Link,
    pub scratch: &'a mut Scratch,
    /// What was counted until this start.
    pub before: Counters,
    /// Not before this are counters written again.
    pub count_at_ms: u64,
}

impl<M: Modem, F: NorFlash, A: Battery, C: Clock> Radio<'_, M, F, A, C> {
    /// Works for ever.
    pub async fn run(&mut self) -> Infallible {
        loop {
            let levels = self.store.lock().await.levels();
            let due_ms = self.schedule.due_ms(&levels);
            let due = self.clock.sleep_until(due_ms);
            match select3(due, self.desk.saved.wait(), self.desk.fetch.wait()).await {
                Either3::First(()) => {
                    let done_by_ms = self.clock.now_ms() + RADIO_MS_MAX;
                    self.desk.pulse.works(Task::Radio, done_by_ms);
                    self.go().await;
                    self.desk.pulse.waits(Task::Radio);
                }
                Either3::Second(()) => self.schedule.saved(self.clock.now_ms()),
                Either3::Third(()) => self.schedule.fetch(),
            }
        }
    }

    async fn go(&mut self) {
        let millivolts = self.gauge.lock().await.millivolts().await;
        self.desk.facts.send(Fact::Battery { millivolts }).await;
        let levels = self.store.lock().await.levels();
        let now_ms = self.clock.now_ms();
        let Some(orders) = self.schedule.begin(now_ms, millivolts, &levels) else {
            self.modem.power_off().await;
            self.tell(Doing::Failed(RadioTrouble::Battery)).await;
            return;
        };
        let outcome = self.errand(&orders).await;
        let levels = self.store.lock().await.levels();
        let now_ms = self.clock.now_ms();
        self.schedule.ended(now_ms, &outcome, &levels);
        let soon_ms = now_ms.saturating_add(MODEM_LINGER_MS);
        if outcome.end != End::Left || self.schedule.due_ms(&levels) > soon_ms {
            self.modem.power_off().await;
        }
        self.report(&outcome).await;
        self.count(&outcome).await;
    }

    async fn errand(&mut self, orders: &Orders) -> Outcome {
        let errand = Errand {
            modem: &mut self.modem,
            store: self.store,
            clock: &self.clock,
            settings: self.settings,
            scratch: self.scratch,
            link: &mut self.link,
            saved: &self.desk.saved,
        };
        errand.run(orders).await
    }

    /// What came of it, for the people.
    async fn report(&mut self, outcome: &Outcome) {
        if let Some(time_s) = outcome.network_time_s {
            self.desk.facts.send(Fact::Clock { time_s }).await;
        }
        self.desk.facts.send(Fact::Signal(outcome.signal)).await;
        self.tell(match trouble(outcome) {
            None => Doing::Off,
            Some(trouble) => Doing::Failed(trouble),
        })
        .await;
        let levels = levels(self.store).await;
        self.desk.facts.send(levels).await;
    }

    async fn tell(&self, doing: Doing) {
        self.desk.facts.send(Fact::Radio(doing)).await;
    }

    /// Keeps what was counted, if it is time for it or was just reported.
    async fn count(&mut self, outcome: &Outcome) {
        let now_ms = self.clock.now_ms();
        if now_ms < self.count_at_ms && !outcome.reported {
            return;
        }
        let radio = self.modem.radio();
        let before = &self.before;
        let counters = Counters {
            starts: before.starts,
            saved: before.saved.saturating_add(self.desk.saved_count.get()),
            printed: before.printed.saturating_add(self.desk.printed_count.get()),
            sessions: before.sessions.saturating_add(radio.connections),
            up_bytes: before.up_bytes.saturating_add(radio.up_bytes),
            down_bytes: before.down_bytes.saturating_add(radio.down_bytes),
            radio_ms: before.radio_ms.saturating_add(radio.on_ms),
            energy_mj: before.energy_mj.saturating_add(radio.energy_mj),
        };
        // What fails here is counted with the next errand.
        let _failed = self.store.lock().await.put_counters(counters).await;
        self.count_at_ms = now_ms.saturating_add(COUNTERS_MS);
    }
}

fn trouble(outcome: &Outcome) -> Option<RadioTrouble> {
    let trouble = match outcome.end {
        _ if outcome.forged > 0 => RadioTrouble::Forged,
        End::Left => return outcome.refused.map(|_| RadioTrouble::Refused),
        End::Modem(ModemError::Sim) => RadioTrouble::Sim,
        End::Modem(ModemError::Unregistered | ModemError::Detached) => RadioTrouble::NoNetwork,
        End::Modem(ModemError::Denied) => RadioTrouble::Denied,
        End::Modem(ModemError::Power) => RadioTrouble::Battery,
        End::Modem(ModemError::Silent | ModemError::Protocol) => RadioTrouble::Modem,
        End::Refused(_) => RadioTrouble::Refused,
        _ => RadioTrouble::NoGateway,
    };
    Some(trouble)
}

/// A modem that tells the people what it is at.
pub struct Told<'a, M> {
    pub modem: &'a mut M,
    pub desk: &'a Desk,
}

impl<M> Told<'_, M> {
    async fn tell(&self, doing: Doing) {
        self.desk.facts.send(Fact::Radio(doing)).await;
    }
}

impl<M: Modem> Modem for Told<'_, M> {
    async fn power_on(&mut self, network: &Network<'_>) -> Result<(), ModemError> {
        self.tell(Doing::Searching).await;
        self.modem.power_on(network).await
    }

    async fn open(&mut self, host: &str, port: u16) -> Result<(), ModemError> {
        self.tell(Doing::Connecting).await;
        self.modem.open(host, port).await?;
        self.tell(Doing::Online).await;
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ModemError> {
        self.modem.send(bytes).await
    }

    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, ModemError> {
        self.modem.receive(into).await
    }

    async fn close(&mut self) {
        self.modem.close().await;
    }

    async fn power_off(&mut self) {
        self.modem.power_off().await;
    }

    fn network_time_s(&self) -> Option<u32> {
        self.modem.network_time_s()
    }

    fn signal(&self) -> Option<u8> {
        self.modem.signal()
    }

    fn radio(&self) -> energy::Radio {
        self.modem.radio()
    }
}
