//! G2, G3, G4 and G5 with whole processes killed against a real Kafka, links cut and
//! half open, and processes that hang longer than their transactions may take: the
//! firmware's own terminals print each receipt once, and Kafka holds each record,
//! transaction and delivery event once. The controls run through the same loop.
//!
//! | variable | what |
//! | --- | --- |
//! | `RISITI_PROCESS_KILLS` | processes to kill, 50 by default; judged every 50 |
//! | `RISITI_SEED` | the course of a run |

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::time::{Duration, Instant};

use risiti_bridge::receipts::ReceiptsFault;
use risiti_tests::asked::{number, seed};
use risiti_tests::gateway_process::{KillAt, ProcessSwitches};
use risiti_tests::kill_loop::{
    self, Card, DECK, EPOCH_KILLS, End, EpochVerdict, HouseSwitches, Outcome, Settings, Terminals,
};
use risiti_tests::settlement_process::{SettlementKillAt, SettlementSwitches};
use risiti_tests::turn::turn;
use serde_json::json;

/// Half a minute is usual; a machine with much else to do takes longer.
const HOME_WITHIN: Duration = Duration::from_secs(300);

#[test]
fn g2_g3_g4_g5_whole_processes_killed_hung_and_cut_off_lose_and_repeat_nothing() {
    let _turn = turn();
    let seed = seed();
    let began = Instant::now();
    let outcome = kill_loop::run(&Settings {
        kills: number("RISITI_PROCESS_KILLS", EPOCH_KILLS),
        epoch_kills: EPOCH_KILLS,
        seed,
        deck: DECK,
        switches: HouseSwitches::default(),
        terminals: Terminals {
            per_gateway: 24,
            rough: true,
            home_within: HOME_WITHIN,
        },
        ends: |verdict| !verdict.is_clean(),
        keeps: true,
    })
    .unwrap();
    prove(&outcome, seed, began.elapsed());
    assert!(outcome.is_clean(), "seed {seed}: {outcome:#?}");
}

fn prove(outcome: &Outcome, seed: u64, took: Duration) {
    let mut extra = json!(outcome.counts);
    let totals = [
        ("epochs", outcome.epochs),
        ("payments", outcome.payments),
        ("resent", outcome.resent),
        ("terminal_power_cuts", outcome.terminal_cuts),
        ("producers_given_up", outcome.producers_given_up),
        ("gateway_mib_max", outcome.gateway_bytes_max >> 20),
    ];
    for (name, count) in totals {
        extra[name] = count.into();
    }
    let proof = json!({
        "what": "process-kills",
        "guarantees": "G2 G3 G4 G5",
        "runs": outcome.kills,
        "failures": u64::from(!outcome.is_clean()),
        "seed": seed,
        "seconds": took.as_secs(),
        "extra": extra,
    });
    println!("PROOF {proof}");
}

/// A broken house is judged every four kills: every other hits the one place that
/// shows it, if there is work under way. Given up after so many.
const CONVICTED_WITHIN_KILLS: u64 = 36;

/// A broken house, in which one kind of kill is dealt, is convicted of what it does, once
/// nothing is on its way any more. What else the same break does first is no answer: the
/// position covers the events of deliveries, too.
fn assert_convicted(
    switches: HouseSwitches,
    deck: &'static [(u32, Card)],
    does: fn(&EpochVerdict) -> bool,
) {
    let outcome = kill_loop::run(&Settings {
        kills: CONVICTED_WITHIN_KILLS,
        epoch_kills: 4,
        seed: seed(),
        deck,
        switches,
        terminals: Terminals {
            per_gateway: 24,
            rough: false,
            home_within: HOME_WITHIN,
        },
        ends: does,
        keeps: false,
    })
    .unwrap();
    assert_eq!(outcome.fault, None);
    let verdict = outcome.verdict.unwrap();
    assert_ne!(verdict.end, End::Late, "{verdict}");
    assert!(does(&verdict), "{verdict}");
    println!("convicted within {} kills", outcome.kills);
}

const AFTER_COMMIT: &[(u32, Card)] = &[(1, Card::GatewayAt(&[KillAt::AfterCommit]))];

#[test]
fn control_a_position_outside_the_transaction_is_convicted() {
    let _turn = turn();
    let switches = HouseSwitches {
        gateway: ProcessSwitches {
            position_outside_transaction: true,
            ..ProcessSwitches::default()
        },
        ..HouseSwitches::default()
    };
    assert_convicted(switches, AFTER_COMMIT, |verdict| {
        verdict.records.duplicated > 0
    });
}

const SETTLEMENT_AFTER_COMMIT: &[(u32, Card)] =
    &[(1, Card::SettlementAt(&[SettlementKillAt::AfterCommit]))];

#[test]
fn control_settlements_offsets_outside_the_transaction_are_convicted() {
    let _turn = turn();
    let switches = HouseSwitches {
        settlement: SettlementSwitches {
            offsets_outside_transaction: true,
            ..SettlementSwitches::default()
        },
        ..HouseSwitches::default()
    };
    assert_convicted(switches, SETTLEMENT_AFTER_COMMIT, |verdict| {
        verdict.answered_twice > 0
    });
}

const BETWEEN_OFFSET_AND_ROW: &[(u32, Card)] = &[(
    1,
    Card::GatewayAt(&[|nth| KillAt::Receipts(ReceiptsFault::BetweenOffsetAndRow, nth)]),
)];

#[test]
fn control_an_offset_of_receipts_before_the_row_is_convicted() {
    let _turn = turn();
    let switches = HouseSwitches {
        gateway: ProcessSwitches {
            offset_before_row: true,
            ..ProcessSwitches::default()
        },
        ..HouseSwitches::default()
    };
    assert_convicted(switches, BETWEEN_OFFSET_AND_ROW, |verdict| {
        verdict.receipts.missing > 0
    });
}
