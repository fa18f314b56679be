//! When errands are due, under many seeds.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use std::collections::BTreeSet;

use risiti_terminal::connection::{End, Orders, Outcome, Pace, Schedule};
use risiti_terminal::limits::BATTERY_WARNING_MV;
use risiti_terminal::modem::ModemError;
use risiti_terminal::mqtt::{Fault, Reason};
use risiti_terminal::settings::Settings;
use risiti_terminal::store::Levels;

const FULL_MV: u16 = 4_000;
const SEEDS: u64 = 1_000;
const DAY_MS: u64 = 86_400_000;

fn settings() -> Settings<'static> {
    Settings::default()
}

fn pace() -> Pace {
    Pace::new(&settings())
}

fn levels(waiting: u32, unsent: u32) -> Levels {
    Levels {
        waiting,
        unsent,
        capacity: 1_000,
        last_sequence: waiting,
        ..Levels::default()
    }
}

fn schedule(seed: u64, now_ms: u64, levels: &Levels) -> Schedule {
    Schedule::new(seed, pace(), &settings(), now_ms, levels)
}

const LEFT: Outcome = Outcome::new(End::Left);
const FAILED: Outcome = Outcome::new(End::Modem(ModemError::Refused));

fn reported() -> Outcome {
    Outcome {
        reported: true,
        ..LEFT
    }
}

/// One whose first errand went well.
fn settled(seed: u64) -> Schedule {
    let levels = levels(0, 0);
    let mut schedule = schedule(seed, 0, &levels);
    schedule.begin(0, FULL_MV, &levels).unwrap();
    schedule.ended(0, &reported(), &levels);
    schedule
}

#[test]
fn a_payment_leaves_at_once_and_nothing_is_due_without_one() {
    for seed in 0..SEEDS {
        let mut schedule = settled(seed);
        assert!(
            schedule.due_ms(&levels(0, 0)) > DAY_MS / 2,
            "a day's sign of life"
        );
        schedule.saved(5_000);
        assert!(schedule.due_ms(&levels(1, 1)) <= 5_000);
    }
}

#[test]
fn after_a_start_terminals_spread() {
    let waiting = levels(3, 3);
    let mut seconds = [0; 11];
    for seed in 0..SEEDS {
        let due_ms = schedule(seed, 7_000, &waiting).due_ms(&waiting) - 7_000;
        seconds[(due_ms / 1_000) as usize] += 1;
    }
    assert!(
        seconds[..10].iter().all(|n| (60..150).contains(n)),
        "{seconds:?}"
    );
    assert_eq!(seconds[10], 0);
}

#[test]
fn the_herd_after_a_gateways_restart_is_spread_and_comes_back() {
    // It is down for ten minutes; every terminal has a payment and tries.
    let waiting = levels(1, 1);
    let back_ms = 600_000;
    let mut tries_a_second = vec![0_u32; 3_600];
    let mut back = Vec::new();
    for seed in 0..SEEDS {
        let mut schedule = settled(seed);
        schedule.saved(1);
        loop {
            let now_ms = schedule.due_ms(&waiting).max(1);
            schedule.begin(now_ms, FULL_MV, &waiting).unwrap();
            tries_a_second[(now_ms / 1_000) as usize] += 1;
            if now_ms >= back_ms {
                back.push(now_ms - back_ms);
                break;
            }
            schedule.ended(now_ms, &FAILED, &waiting);
        }
    }
    // All had lost their connection in the same millisecond.
    let peak = tries_a_second[1..].iter().max().unwrap();
    assert!(*peak < 250, "{peak}");
    let peak = tries_a_second[600..].iter().max().unwrap();
    assert!(
        *peak < 20,
        "{peak} of 1,000 in the worst second after its return"
    );
    assert!(back.iter().all(|ms| *ms <= 900_000));
    back.sort_unstable();
    let median_s = back[back.len() / 2] / 1_000;
    println!("herd of 1,000: worst second {peak}, half of them back after {median_s} s");
}

#[test]
fn waits_grow_to_a_cap_and_fall_back_after_success() {
    for seed in 0..SEEDS {
        let waiting = levels(1, 1);
        let mut schedule = settled(seed);
        let mut now_ms = 1_000;
        let mut window_ms = u64::from(pace().retry_ms);
        for _ in 0..20 {
            schedule.ended(now_ms, &FAILED, &waiting);
            let wait_ms = schedule.due_ms(&waiting) - now_ms;
            assert!(
                wait_ms >= window_ms / 4 && wait_ms <= window_ms,
                "{wait_ms}"
            );
            window_ms = (2 * window_ms).min(pace().retry_ms_max.into());
            now_ms += wait_ms;
        }
        let acknowledged = Outcome {
            acknowledged: 1,
            ..LEFT
        };
        schedule.ended(now_ms, &acknowledged, &levels(1, 0));
        schedule.saved(now_ms);
        assert_eq!(schedule.due_ms(&levels(2, 1)), now_ms);
    }
}

#[test]
fn somebody_who_waits_shortens_the_wait_and_the_key_ends_it() {
    let waiting = levels(1, 1);
    let mut schedule = settled(1);
    for _ in 0..10 {
        schedule.ended(50_000, &FAILED, &waiting);
    }
    assert!(schedule.due_ms(&waiting) > 50_000 + 200_000);
    schedule.saved(51_000);
    assert_eq!(
        schedule.due_ms(&waiting),
        50_000 + u64::from(pace().saved_ms)
    );
    schedule.fetch();
    assert!(schedule.due_ms(&waiting) <= 51_000);
    let orders = schedule.begin(51_000, FULL_MV, &waiting).unwrap();
    assert!(orders.expects);
    // It asked once.
    schedule.ended(52_000, &FAILED, &waiting);
    assert!(schedule.due_ms(&waiting) > 52_000);
}

#[test]
fn what_somebody_has_to_put_right_is_not_asked_for_every_minute() {
    for end in [
        End::Refused(Reason::NOT_AUTHORIZED),
        End::Refused(Reason::BAD_USER_NAME_OR_PASSWORD),
        End::Modem(ModemError::Sim),
        End::Modem(ModemError::Denied),
    ] {
        let waiting = levels(1, 1);
        let mut schedule = settled(3);
        schedule.ended(0, &Outcome::new(end), &waiting);
        assert!(schedule.due_ms(&waiting) >= 900_000, "{end:?}");
    }
}

#[test]
fn receipts_are_polled_for_ever_more_rarely() {
    for seed in 0..SEEDS {
        let awaited = levels(2, 0);
        let mut schedule = settled(seed);
        let sent = Outcome {
            acknowledged: 2,
            ..LEFT
        };
        schedule.ended(1_000, &sent, &awaited);
        let (mut now_ms, mut polls, mut wait_ms) = (1_000, 0, u64::from(pace().poll_ms));
        // Before the first round of resends is due.
        while now_ms < 1_500_000 {
            let due_ms = schedule.due_ms(&awaited);
            let waited_ms = due_ms - now_ms;
            assert!(
                waited_ms >= wait_ms && waited_ms <= wait_ms * 3 / 2,
                "{waited_ms}"
            );
            now_ms = due_ms;
            let orders = schedule.begin(now_ms, FULL_MV, &awaited).unwrap();
            assert!(orders.expects);
            schedule.ended(now_ms, &LEFT, &awaited);
            wait_ms = (2 * wait_ms).min(pace().poll_ms_max.into());
            polls += 1;
        }
        assert!((5..=7).contains(&polls), "{polls}");
        // One that came makes the next likely.
        let came = Outcome {
            receipts: 1,
            ..LEFT
        };
        schedule.ended(now_ms, &came, &levels(1, 0));
        let wait_ms = schedule.due_ms(&levels(1, 0)) - now_ms;
        assert!(wait_ms <= u64::from(pace().poll_ms) * 3 / 2);
    }
}

#[test]
fn a_record_goes_out_again_between_one_and_three_intervals() {
    for seed in 0..SEEDS {
        let mut schedule = settled(seed);
        let awaited = levels(1, 0);
        let acknowledged = Outcome {
            acknowledged: 1,
            ..LEFT
        };
        // Sent at some time in the day, never answered.
        let sent_ms = seed * DAY_MS / SEEDS;
        let mut now_ms = sent_ms;
        run_until(&mut schedule, sent_ms);
        schedule.ended(now_ms, &acknowledged, &awaited);
        let mut resent = Vec::new();
        while now_ms < sent_ms + 10 * DAY_MS {
            now_ms = schedule.due_ms(&awaited);
            let orders = schedule.begin(now_ms, FULL_MV, &awaited).unwrap();
            let again = orders.resend_after < 1 && 1 <= orders.resend_up_to;
            if again {
                resent.push(now_ms - sent_ms);
            }
            let outcome = Outcome {
                acknowledged: again.into(),
                resent: again.into(),
                resent_through: again.into(),
                ..LEFT
            };
            schedule.ended(now_ms, &outcome, &awaited);
        }
        let interval_ms = u64::from(pace().resend_ms);
        assert!(resent[0] >= interval_ms, "{resent:?}");
        assert!(resent[0] <= 3 * interval_ms, "{resent:?}");
        // Then more rarely, down to about once a day.
        let last = resent.len() - 1;
        let pause_ms = resent[last] - resent[last - 1];
        assert!((DAY_MS..DAY_MS * 3 / 2).contains(&pause_ms), "{resent:?}");
        assert!((8..=14).contains(&resent.len()), "{resent:?}");
    }
}

/// Idle until then.
fn run_until(schedule: &mut Schedule, until_ms: u64) {
    let idle = levels(0, 0);
    while schedule.due_ms(&idle) < until_ms {
        let now_ms = schedule.due_ms(&idle);
        schedule.begin(now_ms, FULL_MV, &idle).unwrap();
        schedule.ended(now_ms, &reported(), &idle);
    }
}

#[test]
fn a_terminal_that_never_stays_on_resends_too_but_not_with_each_start() {
    let awaited = levels(1, 0);
    let resends = (0..SEEDS).filter(|seed| {
        let mut schedule = schedule(*seed, 0, &awaited);
        let orders = schedule.begin(60_000, FULL_MV, &awaited).unwrap();
        orders.resend_up_to == 1
    });
    let resends = resends.count();
    assert!((90..160).contains(&resends), "{resends}");
}

#[test]
fn a_round_of_resends_that_was_cut_goes_on_where_it_was() {
    let awaited = levels(5, 0);
    let mut schedule = schedule(9, 0, &awaited);
    let now_ms = u64::from(pace().resend_ms) + 1;
    let orders = schedule.begin(now_ms, FULL_MV, &awaited).unwrap();
    assert_eq!((orders.resend_after, orders.resend_up_to), (0, 5));
    let cut = Outcome {
        resent: 2,
        resent_through: 2,
        acknowledged: 2,
        ..FAILED
    };
    schedule.ended(now_ms, &cut, &awaited);
    let now_ms = schedule.due_ms(&awaited);
    let orders = schedule.begin(now_ms, FULL_MV, &awaited).unwrap();
    assert_eq!((orders.resend_after, orders.resend_up_to), (2, 5));
    schedule.ended(now_ms, &LEFT, &awaited);
    let now_ms = schedule.due_ms(&awaited);
    let orders = schedule.begin(now_ms, FULL_MV, &awaited).unwrap();
    assert_eq!(orders.resend_up_to, 0);
}

#[test]
fn below_the_batterys_limit_there_is_no_errand() {
    let waiting = levels(1, 1);
    let mut schedule = settled(2);
    schedule.saved(1_000);
    schedule.fetch();
    let low_mv = settings().battery_mv_min - 1;
    assert_eq!(schedule.begin(1_000, low_mv, &waiting), None);
    // Not even for the key; and it is looked at again.
    assert_eq!(schedule.due_ms(&waiting), 61_000);
    let orders = schedule.begin(61_000, low_mv + 1, &waiting).unwrap();
    assert!(orders.expects);
}

#[test]
fn a_report_is_due_once_a_day_and_when_something_got_worse() {
    for seed in 0..SEEDS {
        let idle = levels(0, 0);
        let mut schedule = settled(seed);
        let mut now_ms = 0;
        let mut reports = 0;
        while now_ms < 30 * DAY_MS {
            now_ms = schedule.due_ms(&idle);
            let orders = schedule.begin(now_ms, FULL_MV, &idle).unwrap();
            assert!(orders.report);
            schedule.ended(now_ms, &reported(), &idle);
            reports += 1;
        }
        assert!((30..=35).contains(&reports), "{reports}");
    }
    let mut schedule = settled(1);
    let waiting = levels(1, 1);
    let report = |orders: Option<Orders>| orders.unwrap().report;
    assert!(!report(schedule.begin(1_000, FULL_MV, &waiting)));
    let worse = [
        (
            Levels {
                damaged: 1,
                ..waiting
            },
            FULL_MV,
        ),
        (Levels { torn: 1, ..waiting }, FULL_MV),
        (levels(900, 900), FULL_MV),
        (waiting, settings().battery_mv_min + 10),
    ];
    for (levels, battery_mv) in worse {
        assert!(
            report(schedule.begin(2_000, battery_mv, &levels)),
            "{levels:?}"
        );
    }
    // Told once.
    let (damaged, _) = worse[0];
    schedule.begin(3_000, FULL_MV, &damaged).unwrap();
    schedule.ended(3_000, &reported(), &damaged);
    assert!(!report(schedule.begin(4_000, FULL_MV, &damaged)));
}

#[test]
fn a_report_that_nobody_takes_is_not_offered_in_a_loop() {
    let idle = levels(0, 0);
    let mut schedule = settled(1);
    let now_ms = schedule.due_ms(&idle);
    assert!(schedule.begin(now_ms, FULL_MV, &idle).unwrap().report);
    schedule.ended(now_ms, &LEFT, &idle);
    assert!(schedule.due_ms(&idle) > now_ms + DAY_MS / 2);
}

#[test]
fn a_refused_record_is_not_sent_in_a_loop() {
    let waiting = levels(1, 1);
    let mut schedule = settled(4);
    let refused = Outcome {
        refused: Some(Reason(0x97)),
        ..LEFT
    };
    schedule.ended(1_000, &refused, &waiting);
    assert!(schedule.due_ms(&waiting) >= 1_000 + u64::from(pace().retry_ms) / 4);
    // Neither is one for which there was no reason.
    let mut schedule = settled(4);
    schedule.ended(1_000, &LEFT, &waiting);
    assert!(schedule.due_ms(&waiting) > 1_000);
}

/// How long nothing is due after this failure, with one record to send.
fn waits_ms(seed: u64, outcome: &Outcome) -> u64 {
    let waiting = levels(1, 1);
    let mut schedule = settled(seed);
    schedule.ended(0, outcome, &waiting);
    schedule.due_ms(&waiting)
}

#[test]
fn how_long_a_failure_is_waited_for_depends_on_whose_it_is() {
    let retry_ms = u64::from(pace().retry_ms);
    let search_ms = u64::from(pace().search_ms);
    let search_ms_max = u64::from(pace().search_ms_max);
    let refused = |reason| Outcome {
        refused: Some(reason),
        ..LEFT
    };
    for (outcome, window_ms) in [
        // The gateway's, which may be over in a moment.
        (Outcome::new(End::Modem(ModemError::Closed)), retry_ms),
        (Outcome::new(End::Modem(ModemError::Timeout)), retry_ms),
        (Outcome::new(End::Timeout), retry_ms),
        (Outcome::new(End::Refused(Reason::SERVER_BUSY)), retry_ms),
        (Outcome::new(End::Closed(Reason::SERVER_BUSY)), retry_ms),
        (Outcome::new(End::Fault(Fault::Protocol)), retry_ms),
        (refused(Reason::SERVER_BUSY), retry_ms),
        // One that took a minute of radio, or that no second try mends.
        (
            Outcome::new(End::Modem(ModemError::Unregistered)),
            search_ms,
        ),
        (Outcome::new(End::Store), search_ms),
        (Outcome::new(End::Fault(Fault::Malformed)), search_ms),
        // Who, or where, is wrong.
        (
            Outcome::new(End::Closed(Reason::NOT_AUTHORIZED)),
            search_ms_max,
        ),
        (refused(Reason::NOT_AUTHORIZED), search_ms_max),
    ] {
        for seed in 0..100 {
            let wait_ms = waits_ms(seed, &outcome);
            assert!(
                (window_ms / 4..=window_ms).contains(&wait_ms),
                "{outcome:?}: {wait_ms}"
            );
        }
    }
}

#[test]
fn records_that_no_gateway_has_are_not_waited_for_and_not_resent() {
    let unsent = levels(2, 2);
    let mut schedule = settled(5);
    // Long after a round of resends and a poll would have been due.
    let orders = schedule.begin(3 * DAY_MS, FULL_MV, &unsent).unwrap();
    assert!(!orders.expects);
    assert_eq!(orders.resend_up_to, 0);
}

#[test]
fn an_errand_asks_for_receipts_only_when_that_is_due() {
    let awaited = levels(1, 0);
    let mut schedule = settled(6);
    let sent = Outcome {
        acknowledged: 1,
        ..LEFT
    };
    schedule.ended(1_000, &sent, &awaited);
    let poll_ms = schedule.due_ms(&awaited);
    let early = schedule.begin(poll_ms - 1, FULL_MV, &awaited).unwrap();
    assert!(!early.expects);
    let due = schedule.begin(poll_ms, FULL_MV, &awaited).unwrap();
    assert!(due.expects);
    // With nothing sent there is nothing to ask for.
    let none = schedule.begin(poll_ms, FULL_MV, &levels(1, 1)).unwrap();
    assert!(!none.expects);
}

#[test]
fn an_errand_without_a_report_puts_off_none() {
    let idle = levels(0, 0);
    let mut schedule = settled(7);
    let report_ms = schedule.due_ms(&idle);
    for now_ms in [1_000, 50_000, report_ms - 1] {
        schedule.begin(now_ms, FULL_MV, &idle).unwrap();
        schedule.ended(now_ms, &LEFT, &idle);
        assert_eq!(schedule.due_ms(&idle), report_ms);
    }
}

#[test]
fn the_battery_is_reported_below_its_warning_and_not_at_it() {
    let idle = levels(0, 0);
    let warning_mv = settings().battery_mv_min + BATTERY_WARNING_MV;
    for (battery_mv, reports) in [(warning_mv, false), (warning_mv - 1, true)] {
        let orders = settled(8).begin(1_000, battery_mv, &idle).unwrap();
        assert_eq!(orders.report, reports, "{battery_mv} mV");
    }
}

/// At how many times a thousand terminals do something; two seeds in a row give the
/// same numbers.
fn times(time_ms: impl Fn(u64) -> u64) -> usize {
    (0..SEEDS).map(time_ms).collect::<BTreeSet<_>>().len()
}

#[test]
fn no_two_terminals_keep_step() {
    // A town that started in the same millisecond drifts apart with each wait, also
    // with those that no failure has drawn.
    let idle = levels(0, 0);
    let awaited = levels(1, 0);
    let reports = times(|seed| settled(seed).due_ms(&idle));
    assert!(reports > 400, "reports at {reports} times");
    let polls = times(|seed| {
        let mut schedule = settled(seed);
        schedule.ended(0, &LEFT, &awaited);
        schedule.due_ms(&awaited)
    });
    assert!(polls > 400, "polls at {polls} times");
    let interval_ms = u64::from(pace().resend_ms);
    let rounds = times(|seed| {
        let mut schedule = settled(seed);
        schedule.begin(interval_ms, FULL_MV, &awaited).unwrap();
        schedule.ended(interval_ms, &FAILED, &awaited);
        // The second round, of which the first tells nothing.
        let mut now_ms = 2 * interval_ms;
        while schedule
            .begin(now_ms, FULL_MV, &awaited)
            .unwrap()
            .resend_up_to
            == 0
        {
            now_ms += 60_000;
        }
        now_ms
    });
    assert!(rounds > 40, "rounds begin in {rounds} minutes");
}
