//! What a fault does, and how it heals.
//!
//! Promises: a fault that could not strike (its victim has no power) is not
//! counted; one that waits for its victim's next work strikes at the horizon if
//! that did not come. Never: a fault that lasts beyond the horizon.

use super::World;
use super::site::{Damage, Death};
use crate::contract::Ms;
use crate::network::{Knows, Way};
use crate::reference::Violation;
use crate::scenario::{Fault, Scenario};
use crate::terminal::Place;

/// What is still to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    at_ms: Ms,
    event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Strikes(Fault),
    /// The way of a terminal is what it was.
    WayHeals(usize),
    /// Its disk has room again.
    DiskHeals(usize),
    /// An operator starts a gateway anew.
    Restart(usize),
    /// The network tells a terminal the time as it is.
    ClockHeals(usize),
    /// Everything is healed.
    Horizon,
}

/// A gateway whose disk has failed it is started anew by an operator after this.
const OPERATOR_MS: Ms = 20_000;

/// What the network tells as time is wrong for so long.
const WRONG_CLOCK_MS: Ms = 60_000;

/// How slow a slow cluster is.
const SLOW_MS: Ms = 800;

/// All of a scenario, the next last.
pub(super) fn pending(scenario: &Scenario) -> Vec<Pending> {
    let faults = scenario.faults.iter().flatten();
    let mut pending: Vec<Pending> = faults
        .map(|(at_ms, fault)| Pending {
            at_ms: *at_ms,
            event: Event::Strikes(*fault),
        })
        .collect();
    pending.sort_by_key(|one| std::cmp::Reverse(one.at_ms));
    pending.insert(
        0,
        Pending {
            at_ms: scenario.horizon_ms,
            event: Event::Horizon,
        },
    );
    pending
}

impl World {
    /// When something happens next.
    pub(super) fn happens_ms(&self) -> Ms {
        self.pending.last().map_or(Ms::MAX, |one| one.at_ms)
    }

    /// What is due happens.
    pub(super) fn happen(&mut self) -> Result<(), Violation> {
        while let Some(one) = self.pending.pop_if(|one| one.at_ms <= self.now_ms) {
            let fault = match one.event {
                Event::Strikes(fault) => fault,
                event => {
                    self.heal(&event);
                    continue;
                }
            };
            self.tell(|| format!("FAULT {fault:?}"));
            if self.strike(fault) {
                self.report.faults[fault.kind()] += 1;
            }
        }
        Ok(())
    }

    fn later(&mut self, in_ms: Ms, event: Event) {
        let at_ms = (self.now_ms + in_ms).min(self.scenario.horizon_ms);
        let place = self.pending.iter().position(|one| one.at_ms <= at_ms);
        let place = place.unwrap_or(self.pending.len());
        self.pending.insert(place, Pending { at_ms, event });
    }

    fn heal(&mut self, event: &Event) {
        let now_ms = self.now_ms;
        self.tell(|| format!("{event:?}"));
        match event {
            Event::WayHeals(terminal) => {
                if let Some(way) = self.seats[*terminal].way.take() {
                    self.network.set_way(*terminal, way);
                }
            }
            Event::DiskHeals(gateway) => {
                self.sites[*gateway].set_full(false);
                self.reference.full(*gateway, false);
            }
            Event::Restart(gateway) => {
                let death = Death {
                    tells: true,
                    down_ms: 1_000,
                    disk: Damage::None,
                };
                self.sites[*gateway].dies = Some((0, death));
            }
            Event::ClockHeals(terminal) => self.seats[*terminal].terminal.network_clock_off(0),
            Event::Horizon => {
                self.quiet = true;
                for seat in &mut self.seats {
                    if seat.terminal.awaits_cut() {
                        seat.terminal.cut_at(Place::Now);
                    }
                    seat.terminal.ask_for_receipts(now_ms);
                }
                for site in &mut self.sites {
                    site.heal();
                }
                for instance in &mut self.instances {
                    instance.heal();
                }
            }
            Event::Strikes(_) => {}
        }
    }

    /// Whether it struck now; what strikes later is counted then.
    fn strike(&mut self, fault: Fault) -> bool {
        let now_ms = self.now_ms;
        match fault {
            Fault::TerminalCut {
                terminal,
                place,
                dark_ms,
            } => {
                let seat = &mut self.seats[terminal];
                seat.dark_ms = dark_ms;
                seat.terminal.cut_at(place);
                return seat.terminal.is_on();
            }
            Fault::NoNetwork { terminal, for_ms } => {
                let seat = &mut self.seats[terminal];
                seat.terminal.no_network_until(now_ms + for_ms);
                self.network.lose(terminal, Knows::Client, now_ms);
            }
            Fault::NetworkClock { terminal, by_s } => {
                self.seats[terminal].terminal.network_clock_off(by_s);
                self.later(WRONG_CLOCK_MS, Event::ClockHeals(terminal));
            }
            Fault::Loss { terminal, knows } => self.network.lose(terminal, knows, now_ms),
            Fault::Stall { terminal, for_ms } => self.network.stall(terminal, now_ms + for_ms),
            Fault::Late { terminal, by_ms } => {
                self.network.delay_up(terminal, by_ms);
                self.network.lose(terminal, Knows::Client, now_ms);
            }
            Fault::Crumbs { terminal, for_ms } => {
                let way = self.network.way(terminal);
                self.seats[terminal].way.get_or_insert(way);
                let crumbles_of = 1;
                self.network.set_way(terminal, Way { crumbles_of, ..way });
                self.later(for_ms, Event::WayHeals(terminal));
            }
            Fault::Roam { terminal, gateway } => self.seats[terminal].gateway = gateway,
            Fault::GatewayKill {
                gateway,
                steps,
                tells,
                down_ms,
            } => {
                let death = Death {
                    tells,
                    down_ms,
                    disk: Damage::None,
                };
                return self.dies(gateway, steps, death);
            }
            Fault::GatewayWipe { gateway, down_ms } => {
                let death = Death {
                    tells: false,
                    down_ms,
                    disk: Damage::Wiped,
                };
                return self.dies(gateway, 0, death);
            }
            Fault::FlippedBit { gateway, down_ms } => {
                let death = Death {
                    tells: true,
                    down_ms,
                    disk: Damage::Flipped,
                };
                return self.dies(gateway, 0, death);
            }
            Fault::GatewayClock { gateway, by_ms } => self.sites[gateway].jump_wall_clock(by_ms),
            Fault::DiskFull { gateway, for_ms } => {
                self.sites[gateway].set_full(true);
                self.reference.full(gateway, true);
                self.later(for_ms, Event::DiskHeals(gateway));
            }
            Fault::FailedSyncs { gateway, syncs } => {
                self.sites[gateway].fail_syncs(syncs);
                self.later(OPERATOR_MS, Event::Restart(gateway));
                return self.sites[gateway].onlooker().is_some();
            }
            Fault::ForwarderHangs {
                gateway,
                steps,
                for_ms,
            } => self.sites[gateway].forwarder_hangs = Some((steps, for_ms)),
            Fault::ForwarderKill {
                gateway,
                steps,
                down_ms,
            } => self.sites[gateway].forwarder_dies = Some((steps, down_ms)),
            Fault::Fence { gateway } => {
                if let Some(id) = self.sites[gateway].transactional_id() {
                    self.kafka.fence(&id);
                    return true;
                }
                return false;
            }
            Fault::SettlementKill {
                instance,
                steps,
                down_ms,
            } => self.instances[instance].dies = Some((steps, down_ms)),
            Fault::SettlementHangs {
                instance,
                steps,
                for_ms,
            } => self.instances[instance].hangs = Some((steps, for_ms)),
            Fault::KafkaDown { for_ms } => self.kafka.down_until(now_ms + for_ms),
            Fault::KafkaSlow { for_ms } => self.kafka.slow_until(now_ms + for_ms, SLOW_MS),
            Fault::LostAnswers { calls } => self.kafka.lose_answer_of_next(calls),
            Fault::FailedCalls { calls } => self.kafka.fail_next(calls),
            Fault::Hostile {
                gateway,
                connections,
            } => {
                self.hostile
                    .come(gateway, connections, now_ms, &mut self.network);
                for _ in 0..connections {
                    self.reference.forged(self.forger.forge(&mut self.kafka));
                    if let Some(place) = self.forger.copy(&mut self.kafka) {
                        self.reference.copied(place);
                    }
                }
            }
        }
        true
    }

    fn dies(&mut self, gateway: usize, steps: u32, death: Death) -> bool {
        let site = &mut self.sites[gateway];
        let runs = site.onlooker().is_some();
        if runs {
            site.dies = Some((steps, death));
        }
        runs
    }

    /// A gateway's process is gone.
    pub(super) fn gateway_dies(&mut self, n: usize, death: Death) {
        let now_ms = self.now_ms;
        self.tell(|| format!("gateway {n} dies: {death:?}"));
        self.report.gateway_deaths += 1;
        self.sites[n].die(death, now_ms);
        self.network.gateway_vanishes(n, death.tells, now_ms);
        match death.disk {
            Damage::None => {}
            Damage::Wiped => self.reference.wiped(n),
            Damage::Flipped => self.reference.flipped(n),
        }
    }
}
