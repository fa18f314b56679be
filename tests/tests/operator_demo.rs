//! `risiti demo` as a newcomer runs it: whole payments, and a verdict that a
//! script can rely on.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::time::Duration;

use risiti_tests::risiti_command::{output, risiti};

/// It waits 60 s for settlement and 90 s for receipts before it gives up.
const LONG: Duration = Duration::from_secs(240);

#[test]
fn the_demo_brings_every_receipt_home_and_says_so() {
    let args = ["demo", "--seconds", "8", "--terminals", "40", "--seed", "3"];
    let ended = output(&mut risiti(args), LONG).unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    println!("{text}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{}", ended.status);
    assert!(text.contains("verdict: CLEAN"));
    for through in ["1 power cut of the gateway", "1 kill of settlement"] {
        assert!(text.contains(through), "not through {through}");
    }
    let count = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    let payments = count("payments ");
    assert!(payments > 100, "{payments}");
    for step in ["acknowledged", "in Kafka", "settled ", "receipts printed"] {
        assert_eq!(count(step), payments, "{step}");
    }
}
