//! A cluster that is away, that refuses its client, or that somebody else works on
//! under the same name.

use super::*;

/// One that was told that its producer is there.
fn connecting() -> Machine {
    let mut machine = Machine::new(settings());
    machine.done(Event::Opened(Ok(())), Now::ZERO);
    machine
}

/// The cluster does not answer for so long, asked as often as it wants to; the
/// first action that is neither a question nor a wait.
fn unanswered(machine: &mut Machine, from: Now, for_long: Duration) -> Option<Action> {
    let mut now = from;
    while now < from + for_long {
        match machine.poll(now) {
            Action::Connect => {
                now += limits::CALL;
                let answer = Err("no answer".into());
                let distrust = None;
                machine.done(Event::Connected { answer, distrust }, now);
            }
            Action::Pause(pause) => {
                now += pause;
                machine.done(Event::Passed, now);
            }
            other => return Some(other),
        }
    }
    None
}

#[test]
fn g8_a_producer_that_no_cluster_answers_is_made_anew() {
    let mut machine = connecting();
    let long = limits::UNANSWERED * 2;
    assert_eq!(
        unanswered(&mut machine, Now::ZERO, long),
        Some(Action::Open)
    );
}

/// A position to be saved. The cluster was there, and every message times out.
fn times_out(for_long: Duration) -> Option<Action> {
    let mut machine = connecting();
    machine.done(
        Event::Connected {
            answer: Ok(()),
            distrust: None,
        },
        Now::ZERO,
    );
    let mut now = Now::ZERO;
    machine.step = machine.save_position();
    while now < for_long {
        let event = match machine.poll(now) {
            Action::Begin | Action::Abort => Event::Done(Ok(())),
            Action::HandOver { .. } => Event::HandedOver(Ok(true)),
            Action::Await => {
                now += Duration::from_secs(9);
                Event::Progress(Ok((0, true)))
            }
            Action::Collect => {
                let code = rdkafka::error::RDKafkaErrorCode::MessageTimedOut;
                Event::Deliveries(vec![Delivery::Failed(code)])
            }
            Action::Pause(pause) => {
                now += pause;
                Event::Passed
            }
            Action::Look => {
                machine.step = machine.save_position();
                continue;
            }
            other => return Some(other),
        };
        machine.done(event, now);
    }
    None
}

/// Found by the soak: the broker hung, librdkafka lost it without an error, and
/// each batch timed out for ever.
#[test]
fn g8_a_producer_whose_messages_all_time_out_is_made_anew() {
    assert_eq!(times_out(limits::UNANSWERED), None);
    assert_eq!(times_out(limits::UNANSWERED * 2), Some(Action::Open));
}

/// A commit whose answer never comes would otherwise be asked for until somebody
/// stops the gateway.
#[test]
fn g8_a_call_that_has_no_answer_is_given_up_with_its_producer() {
    let unanswered = || Failure::new(Remedy::Again, None, "no answer");
    let mut machine = connecting();
    machine.step = Step::Init;
    let mut now = Now::ZERO;
    while machine.poll(now) == Action::Init {
        assert!(now < limits::UNANSWERED * 2, "asked for ever");
        now += limits::CALL;
        machine.done(Event::Done(Err(unanswered())), now);
    }
    assert!(now > limits::UNANSWERED, "given up after {now:?}");
    machine.done(Event::Passed, now);
    assert_eq!(machine.poll(now + limits::BACKOFF_MAX), Action::Open);
}

#[test]
fn a_short_outage_costs_no_producer() {
    let mut machine = connecting();
    let short = limits::UNANSWERED / 2;
    assert_eq!(unanswered(&mut machine, Now::ZERO, short), None);
    // It answers once in between: the next outage counts anew.
    while machine.poll(short + limits::BACKOFF_MAX) != Action::Connect {
        machine.done(Event::Passed, short + limits::BACKOFF_MAX);
    }
    machine.done(
        Event::Connected {
            answer: Ok(()),
            distrust: None,
        },
        short,
    );
    machine.step = Step::Connect { recover: false };
    assert_eq!(unanswered(&mut machine, short, limits::UNANSWERED), None);
}

#[test]
fn g8_a_call_without_an_answer_is_made_again_but_not_for_ever() {
    let mut init = Bench::with(|_| {});
    init.step(Action::Open, Event::Opened(Ok(())));
    init.step(Action::Connect, connected());
    init.step(Action::Topics, Event::Topics(Ok(false)));
    let mut commit = Bench::sending(&["a/1"]);
    commit.step(Action::Begin, done());
    commit.delivers(true, Some(6), &[Delivery::Delivered; 2]);
    let mut abort = Bench::sending(&["a/1"]);
    abort.step(Action::Begin, Event::Done(Err(failed(Remedy::Abort))));
    let benches = [
        (Action::Init, init),
        (Action::Commit, commit),
        (Action::Abort, abort),
    ];
    for (action, mut bench) in benches {
        bench.news();
        bench.step(action.clone(), again());
        bench.now += limits::UNANSWERED;
        bench.step(action.clone(), again());
        assert_eq!(bench.news(), []);
        bench.now += Duration::from_millis(1);
        bench.step(action, again());
        bench.is_made_anew("no");
    }
}

#[test]
fn a_cluster_that_is_away_is_asked_again_and_told_of() {
    let mut bench = Bench::with(|_| {});
    bench.step(Action::Open, Event::Opened(Ok(())));
    bench.news();
    let away = || Event::Connected {
        answer: Err("no route".into()),
        distrust: None,
    };
    bench.step(Action::Connect, away());
    assert_eq!(
        bench.news(),
        [News::Error(Some("no route".into())), News::Position]
    );
    assert_eq!(bench.waits(), limits::BACKOFF_MIN);
    bench.now += limits::UNANSWERED - limits::BACKOFF_MIN;
    bench.step(Action::Connect, away());
    bench.waits();
    bench.news();
    bench.step(Action::Connect, away());
    bench.is_made_anew("no route");
}

#[test]
fn credentials_that_are_not_accepted_are_an_alarm_until_they_are() {
    let mut bench = Bench::with(|settings| settings.cluster = "bank".into());
    bench.step(Action::Open, Event::Opened(Ok(())));
    bench.news();
    let distrust = Event::Connected {
        answer: Err("no".into()),
        distrust: Some("wrong password".into()),
    };
    bench.step(Action::Connect, distrust);
    let alarms = bench.alarms();
    let [Some(alarm)] = &alarms[..] else {
        panic!("{alarms:?}");
    };
    assert!(alarm.contains("wrong password") && alarm.contains("cluster bank"));
    bench.waits();
    bench.step(Action::Connect, connected());
    assert_eq!(bench.alarms(), [None]);
    assert_eq!(bench.asks(), Action::Topics);
}

#[test]
fn what_can_not_be_made_or_asked_makes_the_producer_anew() {
    let mut bench = Bench::with(|_| {});
    bench.news();
    let mut expected = limits::BACKOFF_MIN;
    for _ in 0..8 {
        bench.step(Action::Open, Event::Opened(Err("no".into())));
        assert_eq!(bench.news()[0], anew("no"));
        assert_eq!(bench.waits(), expected);
        expected = (2 * expected).min(limits::BACKOFF_MAX);
    }
    bench.step(Action::Open, Event::Opened(Ok(())));
    bench.step(Action::Connect, connected());
    bench.news();
    bench.step(Action::Topics, Event::Topics(Err("no".into())));
    bench.is_made_anew("no");

    let mut bench = Bench::with(|_| {}).recovering();
    bench.news();
    bench.step(Action::AskEnds, Event::Ends(Err("no".into())));
    bench.is_made_anew("no");
}

#[test]
fn a_position_that_can_not_be_read_is_waited_for_and_a_foreign_one_is_an_alarm() {
    for is_foreign in [false, true] {
        let mut bench = Bench::with(|_| {}).recovering();
        bench.step(Action::AskEnds, Event::Ends(Ok((0, 1))));
        bench.news();
        let not = Event::Position(Err(NotFound {
            text: "no".into(),
            is_foreign,
        }));
        bench.step(Action::ReadPosition { from: 0, to: 1 }, not);
        if is_foreign {
            assert_eq!(bench.alarms(), [Some("no".into())]);
        } else {
            bench.is_made_anew("no");
        }
    }
}

#[test]
fn who_may_have_no_transactions_is_told_what_to_do() {
    let mut bench = Bench::with(|_| {});
    bench.step(Action::Open, Event::Opened(Ok(())));
    bench.step(Action::Connect, connected());
    bench.step(Action::Topics, Event::Topics(Ok(false)));
    bench.news();
    bench.step(Action::Init, Event::Done(Err(failed(Remedy::Abort))));
    let alarm =
        "Kafka refuses transactions: no; grant the transactional id, or set mode = \"idempotent\"";
    assert_eq!(bench.alarms(), [Some(alarm.into())]);
    bench.waits();
    assert_eq!(bench.asks(), Action::Open);
}

/// Another producer takes over.
fn is_fenced(bench: &mut Bench) {
    let fatal = Failure::new(Remedy::Anew, Some(Code::ProducerFenced), "fenced");
    let looked = Looked {
        fatal: Some(fatal),
        ..looked(9)
    };
    bench.step(Action::Look, Event::Looked(looked));
    let told = News::Anew {
        reason: "fenced".into(),
        fenced: true,
    };
    assert_eq!(bench.news()[0], told);
    bench.waits();
}

/// It begins again, and commits something: what alarms that gives.
fn commits_again(bench: &mut Bench) -> Vec<Option<String>> {
    bench.step(Action::Open, Event::Opened(Ok(())));
    bench.step(Action::Connect, connected());
    bench.step(Action::Topics, Event::Topics(Ok(false)));
    bench.step(Action::Init, done());
    bench.step(Action::AskEnds, Event::Ends(Ok((0, 1))));
    bench.step(
        Action::ReadPosition { from: 0, to: 1 },
        found(Some(5), 1, 9),
    );
    bench.step(Action::Release { upto: 5 }, Event::Passed);
    bench.machine.step = Step::Look;
    bench.now += limits::TRANSACTION_SPACING;
    bench.reads(read(5, &["a/1"]));
    bench.news();
    bench.commits(1, 6);
    bench.alarms()
}

#[test]
fn two_that_share_an_id_are_an_alarm_that_no_commit_ends() {
    let mut bench = Bench::ready();
    let first = bench.now;
    for _ in 1..limits::FENCED_ALARM {
        is_fenced(&mut bench);
        assert_eq!(commits_again(&mut bench), [None], "one is normal");
    }
    let fatal = Failure::new(Remedy::Anew, Some(Code::Fenced), "fenced");
    let fenced = Looked {
        fatal: Some(fatal),
        ..looked(9)
    };
    bench.step(Action::Look, Event::Looked(fenced));
    let alarms = bench.alarms();
    let [Some(alarm)] = &alarms[..] else {
        panic!("{alarms:?}");
    };
    assert!(
        alarm.starts_with("taken over 3 times within 60 s"),
        "{alarm}"
    );
    bench.waits();
    assert_eq!(commits_again(&mut bench), []);
    // The first one is long ago.
    bench.now = first + limits::FENCED_WINDOW - limits::TRANSACTION_SPACING;
    bench.machine.step = Step::Open;
    assert_eq!(commits_again(&mut bench), [None]);
}

#[test]
fn what_was_fenced_long_ago_is_no_reason_for_an_alarm() {
    let fences = |between: Duration| {
        let mut bench = Bench::ready();
        let first = bench.now;
        for times in 1..=limits::FENCED_ALARM {
            if times == limits::FENCED_ALARM {
                bench.now = first + between;
            }
            let fatal = Failure::new(Remedy::Anew, Some(Code::Fenced), "fenced");
            let step = bench.machine.finished(&fatal, bench.now);
            bench.machine.step = step;
        }
        !bench.alarms().is_empty()
    };
    assert!(fences(limits::FENCED_WINDOW - Duration::from_millis(1)));
    assert!(!fences(limits::FENCED_WINDOW));
}

#[test]
fn a_producer_that_is_finished_under_way_has_the_next_batch_made_smaller() {
    let mut bench = Bench::sending(&["a/1"]);
    bench.step(Action::Begin, Event::Done(Err(failed(Remedy::Anew))));
    bench.is_made_anew("no");
    commits_again(&mut bench);
    assert_eq!(bench.read_bounds().1, 1 << 19);

    // But not if nothing was under way.
    let mut bench = Bench::ready();
    is_fenced(&mut bench);
    commits_again(&mut bench);
    assert_eq!(bench.read_bounds().1, 1 << 20);
}

#[test]
fn a_panic_of_its_shell_makes_the_producer_anew() {
    let mut bench = Bench::sending(&["a/1"]);
    bench.step(Action::Begin, done());
    bench.machine.panicked(bench.now);
    bench.is_made_anew("a bug: the forwarder panicked; please report it");
    bench.step(Action::Open, Event::Opened(Ok(())));
    assert!(bench.sends().is_empty());
}
