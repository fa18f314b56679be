//! The guarantees under simulation: thousands of seeds that must all end well, and
//! broken products that must all be convicted.
//!
//! `RISITI_RUNS` raises the number of runs, `RISITI_SEED` is the first seed. A seed
//! that fails is told with the command that shows it again, made small.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::time::Instant;

use risiti_simulation::runs::{attempt, control, explain, many};
use risiti_simulation::scenario::{KINDS, Scenario};
use risiti_simulation::shrink::shrink;
use risiti_simulation::world::trace;

/// Runs of `make test`.
const RUNS: u64 = 20_000;

/// Seeds within which a broken product must be convicted.
const CONTROL_RUNS: u64 = 20_000;

fn number(name: &str, usual: u64) -> u64 {
    let told = std::env::var(name).ok();
    told.map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn every_guarantee_holds_in_every_run() {
    let (runs, seed) = (number("RISITI_RUNS", RUNS), number("RISITI_SEED", 0));
    let began = Instant::now();
    let sum = match many(seed, runs, Default::default()) {
        Ok(sum) => sum,
        Err((seed, failure)) => panic!("{}", explain(&Scenario::of(seed), &failure)),
    };
    let seconds = began.elapsed().as_secs();
    eprintln!("{sum}");
    let mut extra: serde_json::Map<String, serde_json::Value> = serde_json::Map::new();
    extra.insert("virtual_days".into(), (sum.virtual_ms / 86_400_000).into());
    for (name, count) in &sum.counts {
        extra.insert((*name).into(), (*count).into());
    }
    for (name, count) in KINDS.iter().zip(sum.faults) {
        extra.insert(format!("fault_{}", name.replace(' ', "_")), count.into());
    }
    let proof = serde_json::json!({
        "what": "simulation",
        "guarantees": "G1 G2 G3 G4 G5 G6 G7 G8 G9 G10 G11",
        "runs": sum.runs,
        "failures": 0,
        "seed": seed,
        "seconds": seconds,
        "extra": extra,
    });
    println!("PROOF {proof}");
    assert_eq!(sum.runs, runs);
    if runs >= 5_000 {
        // A simulation in which nothing happens proves nothing.
        for (name, count) in KINDS.iter().zip(sum.faults) {
            assert!(count >= runs / 50, "{name} struck only {count} times");
        }
        for (name, count) in &sum.counts {
            assert!(*count > 0, "of {name} there was none");
        }
    }
}

/// The product broken in this way is convicted of this within some seeds.
fn convicted(name: &str, guarantees: &[&str]) {
    let controls = control(name).unwrap();
    let Err((seed, failure)) = many(0, CONTROL_RUNS, controls) else {
        panic!("{name}: nothing was found in {CONTROL_RUNS} runs");
    };
    let violation = failure.violation;
    println!("{name}: seed {seed}: {violation}");
    assert!(
        guarantees.contains(&violation.guarantee),
        "{name} should break {guarantees:?}: {violation}"
    );
}

#[test]
fn control_g1_a_puback_before_the_sync_is_convicted() {
    convicted("puback-before-sync", &["G1"]);
}

#[test]
fn control_g2_a_journal_without_dedup_is_convicted() {
    convicted("no-dedup", &["G2"]);
}

#[test]
fn control_g2_a_position_outside_the_transaction_is_convicted() {
    convicted("position-outside", &["G2"]);
}

#[test]
fn control_g2_settlement_without_a_memory_is_convicted() {
    convicted("no-memory", &["G2"]);
}

#[test]
fn control_g2_offsets_outside_the_transaction_are_convicted() {
    convicted("offsets-outside", &["G2"]);
}

#[test]
fn control_g3_a_journal_that_shuffles_is_convicted() {
    convicted("shuffles", &["G3"]);
}

#[test]
fn control_g4_an_offset_before_its_row_is_convicted() {
    convicted("offset-before-row", &["G4"]);
}

#[test]
fn control_g4_a_receipt_deleted_before_its_puback_is_convicted() {
    convicted("deleted-before-puback", &["G4"]);
}

#[test]
fn control_g5_a_flash_that_keeps_no_marks_prints_twice_and_is_convicted() {
    convicted("prints-again", &["G5"]);
}

#[test]
fn control_g6_a_flash_that_forgets_is_convicted() {
    convicted("flash-forgets", &["G6"]);
}

#[test]
fn control_g7_a_terminal_that_never_sends_again_is_convicted() {
    convicted("no-resend", &["G7", "liveness"]);
}

#[test]
fn control_g8_a_full_disk_that_drops_is_convicted() {
    convicted("drops-when-full", &["G8"]);
}

#[test]
fn control_g9_a_gateway_that_lets_anybody_publish_anywhere_is_convicted() {
    convicted("open-topics", &["G9"]);
}

#[test]
fn control_g10_settlement_that_takes_what_is_not_sealed_is_convicted() {
    convicted("takes-unsealed", &["G10"]);
}

#[test]
fn control_g2_settlement_that_takes_a_copied_record_is_convicted() {
    convicted("takes-copies", &["G2"]);
}

#[test]
fn control_g11_damage_in_silence_is_convicted() {
    convicted("damage-in-silence", &["G11"]);
}

#[test]
fn replay_is_exact() {
    for seed in 0..40 {
        let scenario = Scenario::of(seed);
        let once = attempt(&scenario).map_err(|failure| failure.violation);
        let (again, lines) = trace(&scenario);
        assert_eq!(once, again.map_err(|failure| failure.violation), "{seed}");
        assert!(!lines.is_empty());
        assert_eq!(lines, trace(&scenario).1, "seed {seed}");
    }
}

#[test]
fn without_one_part_the_others_are_what_they_were() {
    let scenario = Scenario::of(7);
    let part = scenario.parts()[0];
    let smaller = scenario.clone().without(&[part]);
    assert_eq!(smaller.parts(), scenario.parts()[1..]);
    assert_eq!(smaller.faults, scenario.faults);
    assert_eq!(smaller.payments[1..], scenario.payments[1..]);
}

#[test]
fn a_failing_seed_shrinks() {
    let controls = control("no-memory").unwrap();
    let (seed, failure) = many(0, CONTROL_RUNS, controls).unwrap_err();
    let scenario = Scenario::of(seed).with(controls);
    let shrunk = shrink(&scenario, &failure.violation);
    assert_eq!(shrunk.violation.guarantee, failure.violation.guarantee);
    let (before, after) = (scenario.parts().len(), shrunk.scenario.parts().len());
    println!("{before} parts became {after} in {} runs", shrunk.runs);
    assert!(after <= before && after <= 4, "{}", shrunk.scenario.story());
    // It says the same when it is run again.
    let again = attempt(&shrunk.scenario).unwrap_err();
    assert_eq!(again.violation, shrunk.violation);
}

#[test]
fn seeds_that_found_something_find_it_no_more() {
    for line in include_str!("seeds.txt").lines() {
        let Some((seed, what)) = line.split_once(' ') else {
            continue;
        };
        if seed.starts_with('#') {
            continue;
        }
        let scenario = Scenario::of(seed.parse().unwrap());
        if let Err(failure) = attempt(&scenario) {
            panic!("{what}\n{}", explain(&scenario, &failure));
        }
    }
}
