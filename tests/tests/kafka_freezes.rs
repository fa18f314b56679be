//! G2, G3, G4, G5 and G8 while a real broker hangs for seconds, again and again: each
//! time everything goes on by itself, and at the end Kafka holds each record and each
//! receipt once.
//!
//! A broker that hangs is no broker that is away: connections stay, questions get no
//! answer, and clients are not told. librdkafka has lost such a broker for good.
//!
//! | variable | what |
//! | --- | --- |
//! | `RISITI_FREEZES` | times, 3 by default |
//! | `RISITI_FREEZE_PAUSE_S` | seconds between two of them, beside what recovering takes; 2 by default |
//! | `RISITI_SEED` | the terminals' course |

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::time::{Duration, Instant};

use risiti_tests::asked::{number, seed};
use risiti_tests::kill_loop::{self, Freezes};
use serde_json::json;

#[test]
fn g8_a_broker_that_hangs_again_and_again_is_found_again_each_time() {
    let (seed, began) = (seed(), Instant::now());
    let freezes = Freezes {
        count: number("RISITI_FREEZES", 3),
        each: Duration::from_secs(5),
        between: Duration::from_secs(number("RISITI_FREEZE_PAUSE_S", 2)),
    };
    let outcome = kill_loop::freeze(&freezes, seed).unwrap();
    let proof = json!({
        "what": "kafka-freezes",
        "guarantees": "G2 G3 G4 G5 G8",
        "runs": freezes.count,
        "failures": u64::from(!outcome.is_clean()),
        "seed": seed,
        "seconds": began.elapsed().as_secs(),
        "extra": {
            "payments": outcome.payments,
            "producers_given_up": outcome.producers_given_up,
        },
    });
    println!("PROOF {proof}");
    assert!(outcome.is_clean(), "seed {seed}: {outcome:#?}");
}
