//! G4, G5 and G7 with the real processes: every payment is settled once and its
//! receipt printed once at its terminal, whatever is killed or cut; the negative
//! controls show that the tests would notice. The control of "printed once" is
//! in `hw/sim/tests/terminal.rs`.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use risiti_bridge::receipts::ReceiptsFault;
use risiti_sim::ledger::ReceiptsVerdict;
use risiti_sim::link::{Link, LinkProfile, Stalls};
use risiti_sim::terminal::{Away, PowerProfile, Resend, Terminals};
use risiti_tests::asked::seed;
use risiti_tests::gateway_process::{GatewayProcess, KillAt, ProcessSwitches};
use risiti_tests::round_trip::{RoundTrip, terminals};
use risiti_tests::turn::turn;
use risiti_tests::upward;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(150);

/// 2G in fast motion: whatever is on the way is cut off every few seconds.
fn bad_link() -> LinkProfile {
    LinkProfile {
        round_trip: Duration::from_millis(10),
        jitter: Duration::from_millis(30),
        stalls: Some(Stalls {
            probability: 0.005,
            shortest: Duration::from_millis(50),
            longest: Duration::from_millis(500),
        }),
        cut_after_mean: Some(Duration::from_secs(4)),
        ..LinkProfile::perfect()
    }
}

/// A terminal's own power fails as often as in a village's worst week.
const POWER: PowerProfile = PowerProfile {
    cut_after_mean: Duration::from_secs(20),
    dark_longest: Duration::from_secs(1),
};

/// For runs in which the loss of records is certain.
const SOON: Resend = Resend {
    after: Duration::from_secs(5),
    longest: Duration::from_secs(20),
};

fn assert_clean(verdict: &ReceiptsVerdict, payments: u64) {
    println!("{verdict}");
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.payments, payments);
    assert_eq!(verdict.settled, payments);
    assert_eq!(verdict.printed, payments);
}

fn assert_sessions_kept(terminals: &Terminals) {
    let counts = terminals.counts();
    println!("{counts:?}");
    assert_eq!(counts.sessions_lost.load(Relaxed), 0);
    assert_eq!(counts.wrong_acknowledgements.load(Relaxed), 0);
    assert_eq!(counts.refused.load(Relaxed), 0);
}

/// Moments of progress, so that every kill meets traffic however fast the
/// machine is.
fn moments(count: usize, of: u64, chance: &mut fastrand::Rng) -> Vec<u64> {
    let mut moments: Vec<u64> = (0..count).map(|_| chance.u64(1..of * 95 / 100)).collect();
    moments.sort_unstable();
    moments
}

#[test]
fn g4_g5_each_payment_settled_and_printed_once_under_kills_of_everything() {
    const TERMINALS: usize = 200;
    const PAYMENTS: u64 = 20_000;
    let _turn = turn();
    let mut chance = fastrand::Rng::with_seed(seed());
    let mut house = RoundTrip::start(ProcessSwitches::default()).unwrap();
    let link = {
        let _inside = house.runtime.enter();
        Link::start(house.gateway.mqtt_addr(), bad_link(), chance.u64(..)).unwrap()
    };
    // Half a minute of payments, so that every kill falls among them.
    let mut specs = terminals(TERMINALS, PAYMENTS / TERMINALS as u64, link.addr());
    for (n, spec) in specs.iter_mut().enumerate() {
        spec.per_second = 3.0;
        spec.power = Some(POWER);
        spec.resend = Some(Resend {
            after: Duration::from_secs(6),
            longest: Duration::from_secs(60),
        });
        spec.away = (n % 4 == 3).then_some(Away {
            linger: Duration::from_millis(300),
            pause: Duration::from_millis(700),
        });
    }
    let mut all = house.terminals(specs, chance.u64(..));

    let kills = moments(10, PAYMENTS, &mut chance);
    let settlement_kills = moments(5, PAYMENTS, &mut chance);
    let handle = house.runtime.handle().clone();
    let wait = |printed: u64| {
        let reached = all.wait("printed", LONG, move |totals| totals.printed >= printed);
        handle.block_on(reached).unwrap();
    };
    std::thread::scope(|scope| {
        let RoundTrip {
            gateway,
            settlement,
            kafka,
            ..
        } = &mut house;
        let wait = &wait;
        scope.spawn(move || {
            wait(PAYMENTS * 2 / 5);
            kafka.stop();
            std::thread::sleep(Duration::from_secs(5));
            kafka.start_again().unwrap();
        });
        scope.spawn(move || {
            for moment in settlement_kills {
                wait(moment);
                settlement.start_again().unwrap();
            }
        });
        for moment in kills {
            wait(moment);
            std::thread::sleep(Duration::from_micros(chance.u64(0..30_000)));
            gateway.restart().unwrap();
        }
    });
    let done = house.wait_printed(&all, PAYMENTS, LONG);
    println!("{:?} {:?} {:?}", all.totals(), link.counts(), done);
    house.wait_delivered().unwrap();
    house.runtime.block_on(all.vanish());
    assert_sessions_kept(&all);
    assert_eq!(house.settlement.kills(), 5);
    let records = house.records_verdict(&all.accounts()).unwrap();
    println!("{records}");
    assert!(records.is_clean(), "{records}");
    assert_clean(
        &house.receipts_verdict(&all.accounts(), true).unwrap(),
        PAYMENTS,
    );
}

/// Bad links, with these switches. No resend end to end: it would heal what a
/// control breaks.
fn without_resend(switches: ProcessSwitches, kills: u32) -> ReceiptsVerdict {
    const PAYMENTS: u64 = 2_000;
    let mut chance = fastrand::Rng::with_seed(seed());
    let mut house = RoundTrip::start(switches).unwrap();
    let link = {
        let _inside = house.runtime.enter();
        let profile = LinkProfile {
            cut_after_mean: Some(Duration::from_secs(1)),
            ..bad_link()
        };
        Link::start(house.gateway.mqtt_addr(), profile, chance.u64(..)).unwrap()
    };
    let mut specs = terminals(40, PAYMENTS / 40, link.addr());
    for spec in &mut specs {
        spec.per_second = 10.0;
    }
    let mut all = house.terminals(specs, chance.u64(..));
    for nth in 1..=kills {
        house.gateway.wait_exit(LONG).unwrap();
        if nth == kills {
            house.gateway.set_switches(ProcessSwitches {
                kill_at: None,
                ..switches
            });
        }
        house.gateway.restart().unwrap();
    }
    house.wait_at_rest(&all, PAYMENTS, LONG).unwrap();
    house.runtime.block_on(all.vanish());
    house.receipts_verdict(&all.accounts(), false).unwrap()
}

#[test]
fn control_a_receipt_deleted_before_its_puback_is_missing() {
    let _turn = turn();
    let switches = ProcessSwitches {
        delete_before_puback: true,
        ..ProcessSwitches::default()
    };
    let verdict = without_resend(switches, 0);
    println!("{verdict}");
    assert!(verdict.missing > 0, "{verdict}");
    assert_eq!((verdict.unsettled, verdict.settled_twice), (0, 0));
}

#[test]
fn control_an_offset_passed_before_the_row_loses_receipts_in_a_kill() {
    let _turn = turn();
    let switches = ProcessSwitches {
        offset_before_row: true,
        // A commit holds some 250 receipts at most: three lives come there surely.
        kill_at: Some(KillAt::Receipts(ReceiptsFault::BetweenOffsetAndRow, 2)),
        ..ProcessSwitches::default()
    };
    let verdict = without_resend(switches, 3);
    println!("{verdict}");
    assert!(verdict.missing > 0, "{verdict}");
    assert_eq!((verdict.unsettled, verdict.settled_twice), (0, 0));
}

/// A gateway's disk is gone, with records on it that Kafka has not seen.
fn wiped(resend: Option<Resend>) -> (ReceiptsVerdict, u64) {
    const PAYMENTS: u64 = 4_000;
    let mut house = RoundTrip::start(ProcessSwitches::default()).unwrap();
    let mut specs = terminals(80, PAYMENTS / 80, house.gateway.mqtt_addr());
    for spec in &mut specs {
        spec.resend = resend;
    }
    let mut all = house.terminals(specs, seed());
    house.wait_printed(&all, PAYMENTS / 4, LONG).unwrap();
    house.strand_records(&all, 400, LONG).unwrap();
    house.wipe_gateway().unwrap();
    house.kafka.start_again().unwrap();
    match resend {
        Some(_) => house.wait_printed(&all, PAYMENTS, LONG).unwrap(),
        None => house.wait_at_rest(&all, PAYMENTS, LONG).unwrap(),
    }
    house.runtime.block_on(all.vanish());
    let counts = all.counts();
    println!("{counts:?}");
    assert!(counts.sessions_lost.load(Relaxed) > 0, "nothing was lost");
    let verdict = house.receipts_verdict(&all.accounts(), false).unwrap();
    println!("{verdict}");
    (verdict, PAYMENTS)
}

#[test]
fn g7_the_loss_of_a_gateway_with_its_disk_loses_nothing() {
    let _turn = turn();
    let (verdict, payments) = wiped(Some(SOON));
    assert_clean(&verdict, payments);
    assert!(verdict.resent > 0, "{verdict}");
}

#[test]
fn g7_terminals_of_a_lost_gateway_go_on_at_another_one() {
    const PAYMENTS: u64 = 4_000;
    let _turn = turn();
    let mut house = RoundTrip::start(ProcessSwitches::default()).unwrap();
    // Readers of committed records wait for the transaction of the gateway that
    // never comes back, by default for a minute.
    let config = |id: &str| {
        upward::config(id, &house.kafka.bootstrap).replace(
            "partitions = 3",
            "partitions = 3\ntransaction_timeout_ms = 10000",
        )
    };
    house.gateway.write_config(&config("gw-1")).unwrap();
    let other_dir = tempfile::tempdir().unwrap();
    let switches = ProcessSwitches::default();
    let other = GatewayProcess::start(&config("gw-2"), other_dir.path(), switches, None).unwrap();
    house.gateway.restart().unwrap();
    // What stands before the gateways of a site.
    let balancer = {
        let _inside = house.runtime.enter();
        Link::start(house.gateway.mqtt_addr(), LinkProfile::perfect(), 1).unwrap()
    };
    let mut specs = terminals(80, PAYMENTS / 80, balancer.addr());
    for spec in &mut specs {
        spec.resend = Some(SOON);
    }
    let mut all = house.terminals(specs, seed());
    house.wait_printed(&all, PAYMENTS / 4, LONG).unwrap();
    house.strand_records(&all, 400, LONG).unwrap();
    house.gateway.kill();
    std::fs::remove_dir_all(house.gateway.data_dir()).unwrap();
    balancer.set_upstream(other.mqtt_addr());
    house.kafka.start_again().unwrap();
    house.wait_printed(&all, PAYMENTS, LONG).unwrap();
    house.runtime.block_on(all.vanish());
    println!("{:?}", all.counts());
    let verdict = house.receipts_verdict(&all.accounts(), false).unwrap();
    assert_clean(&verdict, PAYMENTS);
    assert!(verdict.resent > 0, "{verdict}");
}

#[test]
fn control_without_the_resend_end_to_end_a_lost_disk_loses_payments() {
    let _turn = turn();
    let (verdict, _) = wiped(None);
    assert!(verdict.unsettled > 0 && verdict.missing > 0, "{verdict}");
    assert_eq!(verdict.settled_twice, 0);
}
