//! What becomes of a batch that does not go through at once.

use super::*;

const OK: Delivery = Delivery::Delivered;
const TIMED_OUT: Delivery = Delivery::Failed(Code::MessageTimedOut);
const TOO_LARGE: Delivery = Delivery::Failed(Code::MessageSizeTooLarge);

/// Its transaction is over; what became of it is told like this.
#[track_caller]
fn is_aborted(bench: &mut Bench, told: &[News]) {
    bench.step(Action::Abort, done());
    assert_eq!(bench.news(), told);
}

fn a_delivery_failed() -> News {
    let text = format!("a delivery failed: {}", Code::MessageTimedOut);
    News::Error(Some(text))
}

/// The same again, after a pause.
#[track_caller]
fn is_sent_again(bench: &mut Bench) {
    assert_eq!(bench.waits(), limits::BACKOFF_MIN);
    assert_eq!(bench.machine.next(), 5);
    let smaller = bench.read_bounds().1;
    assert_eq!(smaller, 1 << 19, "the link may be slow");
}

#[test]
fn a_transaction_that_could_not_begin_is_tried_again() {
    let mut bench = Bench::sending(&["a/1"]);
    bench.step(Action::Begin, Event::Done(Err(failed(Remedy::Abort))));
    is_aborted(&mut bench, &[News::Aborted]);
    is_sent_again(&mut bench);

    let mut bench = Bench::sending(&["a/1"]);
    bench.step(Action::Begin, again());
    assert_eq!(bench.news(), [News::Aborted]);
    is_sent_again(&mut bench);
}

#[test]
fn an_error_that_finishes_the_producer_makes_it_anew() {
    let anew = || failed(Remedy::Anew);
    let hand_over = || Action::HandOver {
        records: true,
        position: Some(6),
    };
    let at = |action: &Action| {
        let mut bench = Bench::sending(&["a/1"]);
        while bench.asks() != *action {
            let event = match bench.asks() {
                Action::HandOver { .. } => Event::HandedOver(Ok(true)),
                Action::Await => Event::Progress(Ok((0, false))),
                Action::Collect if *action == Action::Abort => {
                    Event::Deliveries(vec![OK, TIMED_OUT])
                }
                Action::Collect => Event::Deliveries(vec![OK, OK]),
                _ => done(),
            };
            bench.machine.done(event, bench.now);
        }
        bench.news();
        bench
    };
    for (action, event) in [
        (Action::Begin, Event::Done(Err(anew()))),
        (hand_over(), Event::HandedOver(Err(anew()))),
        (Action::Await, Event::Progress(Err(anew()))),
        (Action::Commit, Event::Done(Err(anew()))),
        (Action::Abort, Event::Done(Err(anew()))),
        (Action::Abort, Event::Done(Err(failed(Remedy::Abort)))),
    ] {
        let mut bench = at(&action);
        bench.step(action, event);
        bench.is_made_anew("no");
    }
}

#[test]
fn a_batch_that_was_not_taken_whole_is_never_committed() {
    let mut bench = Bench::sending(&["a/1", "a/2"]);
    bench.step(Action::Begin, done());
    let hand_over = Action::HandOver {
        records: true,
        position: Some(7),
    };
    bench.step(hand_over, Event::HandedOver(Ok(false)));
    bench.step(Action::Collect, Event::Deliveries(vec![OK, OK, OK]));
    is_aborted(&mut bench, &[News::Aborted]);
    is_sent_again(&mut bench);
}

#[test]
fn g2_a_batch_whose_position_or_record_failed_is_never_committed() {
    for deliveries in [
        vec![OK, OK, TIMED_OUT],
        vec![OK, TIMED_OUT, OK],
        vec![TIMED_OUT, OK, OK],
    ] {
        let mut bench = Bench::sending(&["a/1", "a/2"]);
        bench.step(Action::Begin, done());
        bench.delivers(true, Some(7), &deliveries);
        is_aborted(&mut bench, &[a_delivery_failed(), News::Aborted]);
        is_sent_again(&mut bench);
    }
    // Not even shown.
    for deliveries in [vec![OK, OK, Delivery::Pending], vec![]] {
        let mut bench = Bench::sending(&["a/1", "a/2"]);
        bench.step(Action::Begin, done());
        bench.delivers(true, Some(7), &deliveries);
        is_aborted(&mut bench, &[News::Aborted]);
    }
}

#[test]
fn after_a_failure_the_others_get_some_time_to_tell_what_was_refused() {
    let mut bench = Bench::sending(&["a/1", "a/2"]);
    bench.step(Action::Begin, done());
    let hand_over = Action::HandOver {
        records: true,
        position: Some(7),
    };
    bench.step(hand_over, Event::HandedOver(Ok(true)));
    let progress = |pending, failed| Event::Progress(Ok((pending, failed)));
    bench.step(Action::Await, progress(3, false));
    bench.now += limits::EVIDENCE * 2;
    bench.step(Action::Await, progress(2, true));
    bench.now += limits::EVIDENCE;
    bench.step(Action::Await, progress(1, true));
    bench.now += Duration::from_millis(1);
    bench.step(Action::Await, progress(1, true));
    assert_eq!(bench.asks(), Action::Collect);
}

#[test]
fn a_record_that_kafka_refuses_is_kept_and_the_others_go() {
    let mut bench = Bench::sending(&["a/1", "a/2"]);
    bench.step(Action::Begin, done());
    bench.delivers(true, Some(7), &[TOO_LARGE, OK, OK]);
    is_aborted(&mut bench, &[News::Aborted]);
    let [letter] = bench.machine.letters() else {
        panic!("one");
    };
    assert_eq!(letter.record, record(5, "a/1"));
    assert_eq!((&*letter.route, &*letter.topic), ("a", "kafka.a"));
    assert!(
        letter.text.contains("MessageSizeTooLarge"),
        "{}",
        letter.text
    );
    bench.step(Action::Bury, Event::Buried(Ok(true)));
    assert_eq!(bench.read_bounds(), (100, 1 << 20), "as much at once");
    bench.machine.done(read(5, &["a/1", "a/2"]), bench.now);
    assert_eq!(bench.sends(), [6]);
    bench.commits(1, 7);
    // Nothing is left of it.
    assert!(bench.machine.settled.is_empty());
}

#[test]
fn a_topic_that_is_not_there_is_made_rather_than_its_records_refused() {
    let unknown = Delivery::Failed(Code::UnknownTopic);
    let refused = || {
        let mut bench = Bench::sending(&["a/1", "a/2"]);
        bench.step(Action::Begin, done());
        bench.delivers(true, Some(7), &[OK, unknown, OK]);
        is_aborted(&mut bench, &[News::Aborted]);
        bench
    };
    let mut bench = refused();
    bench.step(Action::Topics, Event::Topics(Ok(true)));
    assert_eq!(bench.asks(), Action::Look);
    let mut bench = refused();
    bench.step(Action::Topics, Event::Topics(Ok(false)));
    assert_eq!(bench.asks(), Action::Bury);
    assert_eq!(bench.letters(), [6]);
}

#[test]
fn a_batch_refused_as_a_whole_is_halved_until_it_is_known_by_what() {
    let mut bench = Bench::sending(&["a/1"; 7]);
    bench.step(Action::Begin, done());
    bench.delivers(true, Some(12), &[[TOO_LARGE; 7].as_slice(), &[OK]].concat());
    is_aborted(&mut bench, &[News::Aborted]);
    assert_eq!(bench.read_bounds(), (3, 1 << 20), "at once, and as fast");
    // What goes through doubles it again.
    bench.machine.done(read(5, &["a/1"; 3]), bench.now);
    bench.commits(3, 8);
    assert_eq!(bench.read_bounds().0, 6);
    bench.machine.done(read(8, &["a/1"; 6]), bench.now);
    bench.commits(6, 14);
    assert_eq!(bench.read_bounds().0, 12);
    for position in 14..20 {
        bench.machine.done(read(position, &["a/1"]), bench.now);
        bench.commits(1, position + 1);
        bench.read_bounds();
    }
    bench.machine.done(read(20, &[]), bench.now);
    bench.machine.done(Event::Passed, bench.now);
    assert_eq!(bench.read_bounds().0, 100, "up to what is configured");
}

/// What a commit was refused by.
fn refused(code: Code) -> Event {
    Event::Done(Err(Failure::new(Remedy::Abort, Some(code), "refused")))
}

/// One whose commit of these records was refused by that.
fn refused_at_commit(topics: &[&str], code: Code) -> Bench {
    let mut bench = Bench::sending(topics);
    bench.step(Action::Begin, done());
    let position = 5 + topics.len() as Position;
    let deliveries = vec![OK; topics.len() + 1];
    bench.delivers(true, Some(position), &deliveries);
    bench.step(Action::Commit, refused(code));
    bench
}

#[test]
fn a_commit_that_was_refused_without_a_reason_is_tried_again() {
    let mut bench = refused_at_commit(&["a/1"], Code::CoordinatorNotAvailable);
    is_aborted(
        &mut bench,
        &[News::Error(Some("refused".into())), News::Aborted],
    );
    is_sent_again(&mut bench);
}

#[test]
fn a_commit_that_was_refused_for_a_record_is_divided() {
    let mut bench = refused_at_commit(&["a/1", "a/2"], Code::PolicyViolation);
    is_aborted(
        &mut bench,
        &[News::Error(Some("refused".into())), News::Aborted],
    );
    assert_eq!(bench.read_bounds(), (1, 1 << 20));
}

#[test]
fn one_record_is_refused_once_the_position_alone_went_through() {
    let mut bench = refused_at_commit(&["a/1"], Code::PolicyViolation);
    is_aborted(&mut bench, &[News::Error(Some("refused".into()))]);
    bench.step(Action::Begin, done());
    bench.delivers(false, Some(5), &[OK]);
    bench.step(Action::Commit, done());
    assert_eq!(bench.news(), [News::Aborted]);
    assert_eq!(bench.letters(), [5]);
    assert_eq!(bench.asks(), Action::Bury);

    // Otherwise nothing is known.
    let mut bench = refused_at_commit(&["a/1"], Code::PolicyViolation);
    is_aborted(&mut bench, &[News::Error(Some("refused".into()))]);
    bench.step(Action::Begin, done());
    bench.delivers(false, Some(5), &[TIMED_OUT]);
    is_aborted(&mut bench, &[a_delivery_failed(), News::Aborted]);
    is_sent_again(&mut bench);
}

#[test]
fn a_position_that_kafka_refuses_is_an_alarm_and_is_tried_again() {
    let mut bench = Bench::ready();
    bench.reads(read(5, &["x"]));
    bench.step(Action::Bury, Event::Buried(Ok(true)));
    bench.step(Action::Begin, done());
    bench.delivers(false, Some(6), &[OK]);
    bench.news();
    bench.step(Action::Commit, refused(Code::TopicAuthorizationFailed));
    let alarm = "Kafka refuses the position: refused; grant writing to risiti.positions";
    is_aborted(
        &mut bench,
        &[
            News::Error(Some("refused".into())),
            News::Alarm(Some(alarm.into())),
        ],
    );
    assert_eq!(bench.waits(), limits::BACKOFF_MIN);
    assert_eq!((bench.machine.next(), bench.machine.saved()), (6, 5));
    assert_eq!(bench.asks(), Action::Look);
}

#[test]
fn g8_a_producer_whose_batches_never_get_through_is_made_anew() {
    let mut bench = Bench::ready();
    let fails = |bench: &mut Bench| {
        bench.reads(read(5, &["a/1"]));
        bench.news();
        bench.step(Action::Begin, again());
        assert_eq!(bench.news()[0], News::Aborted);
    };
    fails(&mut bench);
    let since = bench.now;
    bench.waits();
    bench.now = since + limits::UNANSWERED;
    fails(&mut bench);
    assert!(matches!(bench.asks(), Action::Pause(_)));
    bench.waits();
    fails(&mut bench);
    bench.waits();
    assert_eq!(bench.asks(), Action::Open);
}

#[test]
fn the_pace_follows_what_the_link_carries() {
    let mut bench = Bench::with(|settings| settings.batch_bytes_max = 8 << 20).at(5);
    let (_, bytes_max) = bench.read_bounds();
    let mut large = record(5, "a/1");
    large.record.payload = vec![0; bytes_max].into();
    let batch = ReadBatch {
        records: vec![large],
        next: 6,
        damaged: 0,
    };
    bench
        .machine
        .done(Event::Read(Ok(reading(batch))), bench.now);
    bench.commits(1, 6);
    assert_eq!(bench.read_bounds().1, 2 * bytes_max);
}

#[test]
fn the_control_that_has_its_position_outside_writes_it_behind() {
    let mut bench = Bench::with(|settings| settings.position_outside_transaction = true).at(5);
    bench.reads(read(5, &["a/1"]));
    bench.news();
    bench.step(Action::Begin, done());
    bench.delivers(true, None, &[OK]);
    bench.step(Action::Commit, done());
    assert_eq!(bench.news(), [News::Forwarded]);
    bench.step(Action::Begin, done());
    bench.delivers(false, Some(6), &[OK]);
    bench.step(Action::Commit, done());
    assert_eq!(bench.news()[0], News::Skipped(0));
    assert_eq!(bench.asks(), Action::Release { upto: 6 });
}

/// Without transactions, about to hand over records to these topics.
fn without(topics: &[&str]) -> Bench {
    let mut bench = Bench::with(|settings| settings.mode = Mode::Idempotent).at(5);
    bench.reads(read(5, topics));
    bench.news();
    bench
}

#[test]
fn without_transactions_the_position_follows_when_all_is_acknowledged() {
    let mut bench = without(&["a/1", "a/2"]);
    bench.delivers(true, None, &[OK, OK]);
    assert_eq!(bench.news(), [News::Forwarded]);
    bench.delivers(false, Some(7), &[OK]);
    let told = [
        News::Skipped(0),
        News::Committed,
        News::Error(None),
        News::Alarm(None),
        News::Position,
    ];
    assert_eq!(bench.news(), told);
    assert_eq!(bench.asks(), Action::Release { upto: 7 });
}

#[test]
fn without_transactions_what_was_delivered_is_not_sent_again() {
    let mut bench = without(&["a/1", "a/2", "a/3"]);
    bench.delivers(true, None, &[OK, TIMED_OUT, OK]);
    let told = [News::ForwardedSome(2), a_delivery_failed(), News::Aborted];
    assert_eq!(bench.news(), told);
    bench.waits();
    bench.reads(read(5, &["a/1", "a/2", "a/3"]));
    assert_eq!(bench.sends(), [6]);
}

#[test]
fn without_transactions_a_batch_that_was_not_taken_whole_is_awaited_and_finished_later() {
    let mut bench = without(&["a/1", "a/2"]);
    let hand_over = Action::HandOver {
        records: true,
        position: None,
    };
    bench.step(hand_over, Event::HandedOver(Ok(false)));
    for _ in 0..3 {
        bench.now += limits::EVIDENCE;
        bench.step(Action::Await, Event::Progress(Ok((1, true))));
    }
    bench.step(Action::Await, Event::Progress(Ok((0, true))));
    bench.step(Action::Collect, Event::Deliveries(vec![OK]));
    assert_eq!(bench.news(), [News::ForwardedSome(1), News::Aborted]);
    bench.waits();
    bench.reads(read(5, &["a/1", "a/2"]));
    assert_eq!(bench.sends(), [6]);
}

#[test]
fn without_transactions_a_position_that_failed_is_an_alarm_and_is_sent_again() {
    let mut bench = without(&["a/1"]);
    bench.delivers(true, None, &[OK]);
    bench.news();
    bench.delivers(false, Some(6), &[TIMED_OUT]);
    let alarm = "the position can't be saved in risiti.positions; see the last error";
    assert_eq!(
        bench.news(),
        [a_delivery_failed(), News::Alarm(Some(alarm.into()))]
    );
    assert_eq!(bench.waits(), limits::BACKOFF_MIN);
    bench.delivers(false, Some(6), &[OK]);
    assert_eq!(bench.asks(), Action::Release { upto: 6 });
}

#[test]
fn without_transactions_others_records_before_what_was_delivered_move_no_position() {
    let mut bench = without(&["b/1", "b/2", "a/1", "a/2"]);
    bench.delivers(true, None, &[OK, TIMED_OUT]);
    bench.waits();
    bench.reads(read(5, &["b/1", "b/2"]));
    assert_eq!(bench.machine.next(), 7);
    assert_eq!(bench.asks(), Action::Look, "nothing is worth saving yet");
}
