//! How scenarios are drawn.
//!
//! Promises: small ones, so that thousands a minute run and a failing one can be
//! read; each fault and payment has chance of its own. Never: a fault that can't
//! heal before the horizon.

use fastrand::Rng;

use super::fault::{Fault, KINDS};
use super::{BUSY_MS, HORIZON_MS, Payment, Scenario};
use crate::contract::{Controls, Ms, chance};
use crate::network::{Knows, Way};
use crate::terminal::{Place, Provision};

/// Faults of a run, at most.
const FAULTS_MAX: usize = 12;
/// From a payment's first key a terminal is awake for about so long.
const AWAKE_MS: Ms = 25_000;
/// Payments of a run, at most.
const PAYMENTS_MAX: usize = 8;
/// Terminals of a run, at most.
const TERMINALS_MAX: usize = 4;

pub(super) fn scenario(seed: u64) -> Scenario {
    let mut rng = chance(seed, "scenario");
    let terminals = few(&mut rng, TERMINALS_MAX);
    let gateways = rng.usize(1..=2);
    let settlements = rng.usize(1..=2);
    let payments = rng.usize(1..=PAYMENTS_MAX);
    let faults = rng.usize(0..=FAULTS_MAX);
    // Runs in which few things fail, each often, find what a mixture does not.
    let favourite = (rng.u8(0..3) == 0).then(|| rng.usize(..KINDS.len()));
    let provisions = (0..terminals).map(|n| provision(seed, n)).collect();
    let ways = (0..=terminals).map(|n| way(seed, n)).collect();
    let one_payment = |n| {
        let mut rng = chance(seed, &format!("payment {n}"));
        Some(Payment {
            at_ms: rng.u64(1_000..BUSY_MS),
            terminal: rng.usize(..terminals),
        })
    };
    let payments: Vec<Option<Payment>> = (0..payments).map(one_payment).collect();
    let one_fault = |n| {
        let mut rng = chance(seed, &format!("fault {n}"));
        let paid = payments[rng.usize(..payments.len())];
        let kind = match favourite {
            Some(favourite) if rng.bool() => favourite,
            _ => rng.usize(..KINDS.len()),
        };
        // A terminal sleeps most of the time: what fails meanwhile hits nobody.
        let at_ms = match (rng.u8(0..4), paid) {
            (1.., Some(paid)) => paid.at_ms + rng.u64(0..AWAKE_MS),
            _ => rng.u64(0..BUSY_MS),
        };
        let places = Places {
            terminals,
            gateways,
            settlements,
        };
        Some((at_ms, fault(&mut rng, kind, &places)))
    };
    Scenario {
        seed,
        terminals: provisions,
        ways,
        gateways,
        settlements,
        faults: (0..faults).map(one_fault).collect(),
        payments,
        horizon_ms: HORIZON_MS,
        controls: Controls::default(),
    }
}

/// One more often than many.
fn few(rng: &mut Rng, most: usize) -> usize {
    rng.usize(1..=most).min(rng.usize(1..=most))
}

fn provision(seed: u64, terminal: usize) -> Provision {
    let mut rng = chance(seed, &format!("provision {terminal}"));
    Provision {
        patience_ms: rng.u16(500..8_000),
        resend_after_s: rng.u32(40..400),
    }
}

fn way(seed: u64, client: usize) -> Way {
    let mut rng = chance(seed, &format!("way of {client}"));
    let least = [2, 20, 300][rng.usize(..3)];
    let crumbles_of = [0, 0, 0, 8][rng.usize(..4)];
    Way {
        delay_ms: (least, least * rng.u64(1..6)),
        crumbles_of,
    }
}

struct Places {
    terminals: usize,
    gateways: usize,
    settlements: usize,
}

/// Most of them short: what lasts longer than all waits is one case, what ends in
/// the middle of one is many.
fn lasts(rng: &mut Rng) -> Ms {
    let longest = HORIZON_MS - BUSY_MS - AWAKE_MS;
    let magnitude = rng.u32(0..=17);
    rng.u64(1..=1_u64 << magnitude).min(longest)
}

/// In the middle of what a part is doing.
fn steps(rng: &mut Rng) -> u32 {
    let most = [1, 8, 40][rng.usize(..3)];
    rng.u32(0..most)
}

fn fault(rng: &mut Rng, kind: usize, places: &Places) -> Fault {
    let terminal = rng.usize(..places.terminals);
    let gateway = rng.usize(..places.gateways);
    let instance = rng.usize(..places.settlements);
    let for_ms = lasts(rng);
    let steps = steps(rng);
    match kind {
        0 => Fault::TerminalCut {
            terminal,
            place: match rng.u8(0..5) {
                0 => Place::Now,
                1 | 2 => Place::Polls(rng.u32(0..60)),
                _ => Place::Flash {
                    steps: rng.u64(0..200),
                    seed: rng.u64(..),
                },
            },
            dark_ms: for_ms,
        },
        1 => Fault::NoNetwork { terminal, for_ms },
        2 => Fault::NetworkClock {
            terminal,
            by_s: rng.i64(-1_000_000_000..1_000_000_000),
        },
        3 => Fault::Loss {
            terminal,
            knows: match rng.u8(0..4) {
                0 => Knows::Both,
                1 => Knows::Client,
                2 => Knows::Gateway,
                _ => Knows::Nobody,
            },
        },
        4 => Fault::Stall { terminal, for_ms },
        5 => Fault::Late {
            terminal,
            by_ms: for_ms,
        },
        6 => Fault::Crumbs { terminal, for_ms },
        7 => Fault::Roam { terminal, gateway },
        8 => Fault::GatewayKill {
            gateway,
            steps,
            tells: rng.bool(),
            down_ms: for_ms,
        },
        9 => Fault::GatewayWipe {
            gateway,
            down_ms: for_ms,
        },
        10 => Fault::GatewayClock {
            gateway,
            by_ms: rng.i64(-100_000_000_000..100_000_000_000),
        },
        11 => Fault::DiskFull { gateway, for_ms },
        12 => Fault::FailedSyncs {
            gateway,
            syncs: rng.u32(1..4),
        },
        13 => Fault::FlippedBit {
            gateway,
            down_ms: for_ms,
        },
        14 => Fault::ForwarderHangs {
            gateway,
            steps,
            for_ms,
        },
        15 => Fault::ForwarderKill {
            gateway,
            steps,
            down_ms: for_ms,
        },
        16 => Fault::Fence { gateway },
        17 => Fault::SettlementKill {
            instance,
            steps,
            down_ms: for_ms,
        },
        18 => Fault::SettlementHangs {
            instance,
            steps,
            for_ms,
        },
        19 => Fault::KafkaDown { for_ms },
        20 => Fault::KafkaSlow { for_ms },
        21 => Fault::LostAnswers {
            calls: rng.u32(1..6),
        },
        22 => Fault::FailedCalls {
            calls: rng.u32(1..6),
        },
        _ => Fault::Hostile {
            gateway,
            connections: rng.u32(1..4),
        },
    }
}
