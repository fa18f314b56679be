//! One client of a fleet: its outbox, its connections, one after the other.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{ClientSpec, FleetCounts, Kind, Order, STALL};
use crate::ledger::Account;
use risiti_sim::mqtt::{Incoming, Wire};

/// Clients look for their gateway again after this long, doubled up to the
/// second: terminals would be slower, but a restart should meet them all.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// A record on its way.
struct InFlight {
    number: u64,
    packet_id: u16,
    payload: Vec<u8>,
    /// QoS 2: there was a PUBREC, PUBCOMP is still to come.
    received: bool,
}

pub(super) struct Client {
    spec: ClientSpec,
    gateway: SocketAddr,
    chance: fastrand::Rng,
    account: Arc<Mutex<Account>>,
    counts: Arc<FleetCounts>,
    orders: watch::Receiver<Order>,
    /// The next number to publish.
    next: u64,
    in_flight: VecDeque<InFlight>,
    packet_id: u16,
    had_session: bool,
    pubacks: u64,
    begun: Instant,
}

/// Why a connection is over.
enum Over {
    /// Everything is acknowledged.
    Done,
    /// It was cut.
    Cut,
}

impl Client {
    pub(super) fn new(
        spec: ClientSpec,
        gateway: SocketAddr,
        chance: fastrand::Rng,
        account: Arc<Mutex<Account>>,
        counts: Arc<FleetCounts>,
        orders: watch::Receiver<Order>,
    ) -> Self {
        Self {
            spec,
            gateway,
            chance,
            account,
            counts,
            orders,
            next: 1,
            in_flight: VecDeque::new(),
            packet_id: 0,
            had_session: false,
            pubacks: 0,
            begun: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut orders = self.orders.clone();
        tokio::select! {
            () = self.work() => {}
            _ = orders.wait_for(|order| *order == Order::Vanish) => {}
        }
    }

    async fn work(&mut self) {
        let mut backoff = BACKOFF.0;
        loop {
            let before = self.pubacks;
            match self.connection().await {
                Ok(Over::Done) => return,
                Ok(Over::Cut) | Err(_) => {}
            }
            if self.pubacks > before {
                backoff = BACKOFF.0;
            }
            sleep(backoff.mul_f64(0.5 + self.chance.f64())).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    async fn connection(&mut self) -> io::Result<Over> {
        let open = Wire::connect(self.gateway, &self.spec.id, self.spec.version);
        let (mut wire, session_present) = timeout(STALL, open).await??;
        self.counts.connects.fetch_add(1, Ordering::Relaxed);
        if self.had_session && !session_present {
            self.counts.sessions_lost.fetch_add(1, Ordering::Relaxed);
        }
        self.had_session = true;
        self.send_again(&mut wire)?;
        let mut moved = Instant::now();
        loop {
            let due = self.send_new(&mut wire)?;
            wire.flush().await?;
            let resting = *self.orders.borrow() != Order::Go;
            if self.in_flight.is_empty() && (resting || self.next > self.spec.records) {
                wire.disconnect().await?;
                return Ok(Over::Done);
            }
            tokio::select! {
                incoming = wire.next() => {
                    let incoming = incoming?;
                    if incoming != Incoming::Other {
                        moved = Instant::now();
                    }
                    if matches!(incoming, Incoming::Acknowledged { .. })
                        && self.loses_this_puback()
                    {
                        return Ok(Over::Cut);
                    }
                    self.take(incoming, &mut wire)?;
                }
                () = sleep_until(due.unwrap_or(moved + STALL)) => {
                    if self.in_flight.is_empty() {
                        moved = Instant::now();
                    } else if moved.elapsed() >= STALL {
                        self.counts.stalls.fetch_add(1, Ordering::Relaxed);
                        return Ok(Over::Cut);
                    }
                }
                _ = self.orders.changed() => {}
            }
        }
    }

    /// After a reconnect: whatever is not acknowledged, in its order.
    fn send_again(&mut self, wire: &mut Wire) -> io::Result<()> {
        let topic = self.spec.topic();
        let resends = self.in_flight.len() as u64;
        self.counts.resends.fetch_add(resends, Ordering::Relaxed);
        for index in 0..self.in_flight.len() {
            let mut dup = true;
            if self.spec.kind == Kind::Terminal && self.chance.bool() {
                // It has forgotten its identifiers in a power cut of its own.
                dup = false;
                let packet_id = self.take_packet_id();
                self.in_flight[index].packet_id = packet_id;
            }
            let one = &self.in_flight[index];
            if one.received {
                wire.release(one.packet_id)?;
            } else {
                wire.publish(&topic, self.qos(), &one.payload, one.packet_id, dup)?;
            }
        }
        Ok(())
    }

    /// Fills the window with what is there to send; tells when there is more.
    fn send_new(&mut self, wire: &mut Wire) -> io::Result<Option<Instant>> {
        let topic = self.spec.topic();
        while self.in_flight.len() < self.spec.window
            && self.next <= self.spec.records
            && *self.orders.borrow() == Order::Go
        {
            if let Some(per_second) = self.spec.per_second {
                let due = Duration::from_secs_f64((self.next - 1) as f64 / per_second);
                if self.begun.elapsed() < due {
                    return Ok(Some(self.begun + due));
                }
            }
            let one = InFlight {
                number: self.next,
                packet_id: self.take_packet_id(),
                payload: self.spec.payload(self.next),
                received: false,
            };
            self.lock().published = self.next;
            self.next += 1;
            let sent = wire.publish(&topic, self.qos(), &one.payload, one.packet_id, false);
            self.in_flight.push_back(one);
            sent?;
        }
        Ok(None)
    }

    fn take(&mut self, incoming: Incoming, wire: &mut Wire) -> io::Result<()> {
        let twice = self.spec.kind == Kind::RawQos2;
        match incoming {
            Incoming::Acknowledged {
                packet_id,
                success: true,
            } => {
                // In the order of their PUBLISH (MQTT-4.6.0-2, -3).
                let next = self.in_flight.iter_mut().find(|one| !one.received);
                let Some(one) = next.filter(|one| one.packet_id == packet_id) else {
                    return self.wrong();
                };
                one.received = true;
                let number = one.number;
                self.lock().acknowledged.insert(number);
                self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                if twice {
                    return wire.release(packet_id);
                }
                self.in_flight.pop_front();
            }
            Incoming::Completed { packet_id } => {
                let is = |one: &InFlight| one.received && one.packet_id == packet_id;
                let Some(index) = self.in_flight.iter().position(is) else {
                    return self.wrong();
                };
                self.in_flight.remove(index);
            }
            Incoming::Acknowledged { success: false, .. } => return self.wrong(),
            Incoming::Message(_) | Incoming::Subscribed { .. } | Incoming::Other => {}
        }
        Ok(())
    }

    fn wrong(&self) -> io::Result<()> {
        self.counts.wrong_pubacks.fetch_add(1, Ordering::Relaxed);
        Err(io::Error::other("a wrong acknowledgement"))
    }

    fn qos(&self) -> u8 {
        match self.spec.kind {
            Kind::Terminal | Kind::Raw => 1,
            Kind::RawQos2 => 2,
        }
    }

    fn loses_this_puback(&mut self) -> bool {
        self.pubacks += 1;
        let lost = self
            .spec
            .puback_lost_every
            .is_some_and(|every| self.pubacks.is_multiple_of(every));
        if lost {
            self.counts.pubacks_lost.fetch_add(1, Ordering::Relaxed);
        }
        lost
    }

    /// The next packet identifier that is not in flight (MQTT-2.2.1-3).
    fn take_packet_id(&mut self) -> u16 {
        loop {
            self.packet_id = self.packet_id % u16::MAX + 1;
            let taken = self.in_flight.iter().any(|o| o.packet_id == self.packet_id);
            if !taken {
                return self.packet_id;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
