//! What is said of a payment at each station of its way.

use super::*;

fn event(at_ms: u64, step: Passed) -> Event {
    Event { at_ms, step }
}

fn durable(position: u64) -> Event {
    event(
        1_008,
        Passed::Durable {
            received_ms: 1_000,
            position,
            resend: false,
        },
    )
}

fn forwarded() -> Event {
    event(
        1_030,
        Passed::Forwarded {
            topic: "risiti.records".into(),
            partition: 2,
            offset: 40,
        },
    )
}

fn stored(number: u64) -> Event {
    event(
        1_060,
        Passed::Stored {
            partition: 1,
            offset: 9,
            settled_ms: 1_050,
            number,
            status: 0,
        },
    )
}

fn sent(again: bool) -> Event {
    event(1_061, Passed::Sent { number: 1, again })
}

fn acknowledged() -> Event {
    event(1_900, Passed::Acknowledged { number: 1 })
}

fn now() -> Now {
    Now {
        gateway: "gw-1".into(),
        recording: true,
        reaches_back_ms: Some(500),
        clusters: vec![("default".into(), in_words(State::Connecting), 5)],
        connected: Some(false),
        withheld: None,
        receipts_topic: "t/a/receipts".into(),
    }
}

fn answer(events: &[Event], now: &Now) -> (Whereabouts, String) {
    let told = tell("a", 7, events, now);
    (told.whereabouts, told.answer)
}

#[test]
fn a_whole_life_is_told_in_nine_steps() {
    let events = [
        durable(7),
        forwarded(),
        stored(1),
        sent(false),
        acknowledged(),
    ];
    let told = tell("a", 7, &events, &now());
    assert_eq!(told.whereabouts, Whereabouts::Delivered);
    assert_eq!(told.total_ms, Some(900));
    let steps: Vec<_> = told
        .steps
        .iter()
        .map(|step| (step.at_ms, step.step.as_str()))
        .collect();
    assert_eq!(
        steps,
        [
            (1_000, "published"),
            (1_008, "on_disk"),
            (1_030, "in_kafka"),
            (1_050, "settled"),
            (1_060, "receipt_stored"),
            (1_061, "sent"),
            (1_900, "acknowledged"),
        ]
    );
}

#[test]
fn what_is_missing_is_said_in_words() {
    let (place, text) = answer(&[durable(7)], &now());
    assert_eq!(place, Whereabouts::WaitsForKafka);
    assert!(text.contains("waits for Kafka (cluster default is not reached, 2 records before it)"));

    let (place, text) = answer(&[durable(7), forwarded()], &now());
    assert_eq!(place, Whereabouts::NotSettled);
    assert!(text.contains("not settled yet"));

    let (place, text) = answer(&[durable(7), forwarded(), stored(1)], &now());
    assert_eq!(place, Whereabouts::WaitsForTerminal);
    assert!(text.contains("waits for the terminal") && text.contains("not connected"));

    let events = [durable(7), event(1, Passed::Dead)];
    let (place, text) = answer(&events, &now());
    assert_eq!(place, Whereabouts::DeadLetter);
    assert!(text.contains("risiti dead list"));
}

#[test]
fn a_step_that_was_not_recorded_is_concluded_from_later_ones() {
    // The forwarder is past it, but was killed before it could note that.
    let (place, text) = answer(&[durable(4)], &now());
    assert_eq!(place, Whereabouts::NotSettled);
    assert!(text.contains("not recorded"));
    // It came through another gateway.
    let (place, _) = answer(&[stored(1)], &now());
    assert_eq!(place, Whereabouts::WaitsForTerminal);
    let (place, _) = answer(&[acknowledged()], &now());
    assert_eq!(place, Whereabouts::Delivered);
}

#[test]
fn unacknowledged_sendings_are_counted() {
    let mut now = now();
    now.connected = Some(true);
    let events = [durable(7), stored(1), sent(false), sent(true)];
    let (place, text) = answer(&events, &now);
    assert_eq!(place, Whereabouts::WaitsForTerminal);
    assert!(text.contains("sent 2 times") && text.contains("is connected"));
}

#[test]
fn a_receipt_that_came_anew_has_not_expired() {
    let expired = event(2_000, Passed::Expired { number: 1 });
    let events = [durable(7), stored(1), expired];
    assert_eq!(answer(&events, &now()).0, Whereabouts::Expired);
    let events = [&events[..], &[stored(2)]].concat();
    assert_eq!(answer(&events, &now()).0, Whereabouts::WaitsForTerminal);
}

#[test]
fn an_unknown_payment_is_not_called_lost() {
    let mut now = now();
    let (place, text) = answer(&[], &now);
    assert_eq!(place, Whereabouts::Unknown);
    assert!(text.contains("never seen by gateway gw-1, or it is older"));
    now.withheld = Some("the disk is full".into());
    assert!(answer(&[], &now).1.ends_with("the disk is full"));
    now.recording = false;
    assert!(answer(&[], &now).1.contains("trace.bytes_max"));
}

#[test]
fn half_and_nearly_all_take_at_most() {
    let latency = Latency::of((1..=101).rev().collect());
    let expected = Latency {
        payments: 101,
        p50_ms: 51,
        p99_ms: 100,
    };
    assert_eq!(latency, expected);
    assert_eq!(Latency::of(Vec::new()), Latency::default());
}

#[test]
fn a_clock_that_was_set_back_gives_no_duration() {
    let early = event(3, Passed::Acknowledged { number: 1 });
    assert_eq!(tell("a", 7, &[durable(7), early], &now()).total_ms, None);
}
