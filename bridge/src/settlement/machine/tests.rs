//! The machine step by step, with Kafka's answers as the test likes.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use rdkafka::error::RDKafkaErrorCode as Code;
use risiti_wire::{Account, Currency, Payment, Record, RecordBody};

use super::*;
use crate::settlement::core::Policy;

const TERMINAL: &str = "t-1";

/// The machine and its clock.
struct Bench {
    machine: Machine,
    now: Now,
}

/// A payment in partition 0.
fn payment(offset: i64, sequence: u64, amount_minor: u64) -> Taken {
    let record = Record {
        sequence,
        resend: false,
        body: RecordBody::Payment(Payment {
            time_s: 0,
            account: Account::new("77").unwrap(),
            amount_minor,
            currency: Currency::new(404).unwrap(),
            reference: None,
        }),
    };
    let mut buffer = [0; risiti_wire::limits::RECORD_BYTES_MAX];
    Taken {
        partition: 0,
        offset,
        time_ms: 1_700_000_000_000,
        key: Some(TERMINAL.into()),
        value: record.encode(&mut buffer).unwrap().to_vec(),
    }
}

fn record(taken: Taken) -> Event {
    Event::Polled(Polled {
        record: Some(taken),
        ..Polled::default()
    })
}

fn changed(changes: &[Change]) -> Event {
    Event::Polled(Polled {
        changes: changes.to_vec(),
        ..Polled::default()
    })
}

fn nothing() -> Event {
    Event::Polled(Polled::default())
}

fn failed(remedy: Remedy) -> Failure {
    Failure::new(remedy, None, "no")
}

fn again() -> Event {
    Event::Done(Err(failed(Remedy::Again)))
}

fn done() -> Event {
    Event::Done(Ok(()))
}

fn ends(partitions: &[i32]) -> Ends {
    let mut ends = Ends::default();
    for partition in partitions {
        ends.note(*partition, 3, 9);
    }
    ends
}

impl Bench {
    fn with(change: impl FnOnce(&mut MachineSettings)) -> Self {
        let mut settings =
            MachineSettings::new(&risiti_config::Settlement::default(), Policy::default());
        settings.group = "bank".into();
        settings.instance = "a".into();
        settings.batch_records_max = 3;
        change(&mut settings);
        Self {
            machine: Machine::new(settings),
            now: Now::from_secs(100),
        }
    }

    fn plain() -> Self {
        Self::with(|_| {})
    }

    /// What is asked for, twice the same.
    fn asks(&mut self) -> Action {
        let action = self.machine.poll(self.now);
        assert_eq!(self.machine.poll(self.now), action);
        action
    }

    /// It asks for this and is told that.
    #[track_caller]
    fn step(&mut self, action: Action, event: Event) {
        assert_eq!(self.asks(), action);
        self.machine.done(event, self.now);
    }

    /// Waits as long as it wants to.
    #[track_caller]
    fn waits(&mut self) -> Duration {
        let Action::Pause(pause) = self.asks() else {
            panic!("{:?} is no pause", self.asks());
        };
        self.now += pause;
        self.machine.done(Event::Passed, self.now);
        pause
    }

    fn news(&mut self) -> Vec<News> {
        self.machine.take_news()
    }

    /// A member of the group that holds nothing.
    fn joined(mut self, forgets_offsets: bool) -> Self {
        self.step(Action::Open, Event::Opened(Ok(forgets_offsets)));
        self.step(Action::Init, done());
        self.step(Action::Join, Event::Joined(Ok(())));
        self
    }

    fn take_over(&mut self, partition: i32, offset: Option<i64>) {
        let poll = self.asks();
        assert!(matches!(poll, Action::Poll { .. }), "{poll:?}");
        self.step(poll, changed(&[Change::Assigned(vec![partition])]));
        self.read_back(&[partition], &[(partition, offset)]);
    }

    #[track_caller]
    fn read_back(&mut self, partitions: &[i32], offsets: &[(i32, Option<i64>)]) {
        let ends = ends(partitions);
        let memories = partitions.iter().map(|p| (*p, Partition::default()));
        let partitions = partitions.to_vec();
        let offsets = offsets.iter().copied().collect();
        self.step(
            Action::AskOffsets(partitions.clone()),
            Event::Offsets(Ok(offsets)),
        );
        self.step(
            Action::AskEnds(partitions.clone()),
            Event::Ends(Ok(ends.clone())),
        );
        let memories = Event::Memories(Ok(memories.collect()));
        self.step(Action::Read(partitions, ends), memories);
    }

    /// It settles partition 0, which the group has read up to 7.
    fn settling(forgets_offsets: bool) -> Self {
        let mut bench = Self::plain().joined(forgets_offsets);
        bench.take_over(0, Some(7));
        bench.news();
        bench
    }

    /// One with a payment decided, whose transaction is about to begin.
    fn beginning(forgets_offsets: bool) -> Self {
        let mut bench = Self::settling(forgets_offsets);
        bench.step(WAITING, record(payment(7, 1, 10)));
        bench.step(AT_ONCE, nothing());
        bench.news();
        bench
    }

    /// One at that step of its transaction.
    fn at(action: Action) -> Self {
        let mut bench = Self::beginning(action == Action::CommitOffsets);
        while bench.asks() != action {
            let event = match bench.asks() {
                Action::HandOver if action == Action::Abort => {
                    Event::HandedOver(Ok(Err("full".into())))
                }
                Action::HandOver => Event::HandedOver(Ok(Ok(()))),
                Action::Await => Event::Progress(Ok((0, None))),
                _ => done(),
            };
            bench.machine.done(event, bench.now);
        }
        bench
    }

    /// The clients are finished for this reason, and new ones are made after a pause.
    #[track_caller]
    fn is_made_anew(&mut self, reason: &str) {
        let told = [News::Anew(reason.into()), News::State(State::Connecting)];
        assert_eq!(self.news(), told);
        self.waits();
        assert_eq!(self.asks(), Action::Open);
    }

    fn sequences(&self) -> Vec<i64> {
        let pending = self.machine.pending().iter();
        pending.map(|decided| decided.offset).collect()
    }
}

const WAITING: Action = Action::Poll { wait: true };
const AT_ONCE: Action = Action::Poll { wait: false };

#[test]
fn g7_it_settles_a_partition_once_its_offsets_are_stable_and_its_changelog_is_read() {
    let mut bench = Bench::plain().joined(false);
    let states = [State::Connecting, State::Joining].map(News::State);
    assert_eq!(bench.news(), states);
    bench.step(WAITING, changed(&[Change::Assigned(vec![0, 2])]));
    assert_eq!(bench.news(), [News::State(State::Rebuilding)]);
    assert!(!bench.machine.core().holds(0));
    bench.read_back(&[0, 2], &[(0, Some(7)), (2, None)]);
    assert!(bench.machine.core().holds(0) && bench.machine.core().holds(2));
    assert_eq!(bench.machine.sizes(), (2, 0, 0));
    let told = [
        News::TakenOver {
            offsets: [(0, Some(7)), (2, None)].into(),
            numbers: 0,
        },
        News::State(State::Settling),
    ];
    assert_eq!(bench.news(), told);
    assert_eq!(bench.asks(), WAITING);
}

#[test]
fn what_was_settled_before_is_remembered_and_counted() {
    let mut before = Bench::beginning(false);
    let memory = before.machine.core().partition(0).unwrap().clone();
    let mut bench = Bench::plain().joined(false);
    bench.step(WAITING, changed(&[Change::Assigned(vec![0])]));
    bench.news();
    let partitions = vec![0];
    let offsets = [(0, Some(7))];
    bench.step(
        Action::AskOffsets(partitions.clone()),
        Event::Offsets(Ok(offsets.into())),
    );
    bench.step(
        Action::AskEnds(partitions.clone()),
        Event::Ends(Ok(ends(&[0]))),
    );
    let memories = [(0, memory)].into();
    bench.step(
        Action::Read(partitions, ends(&[0])),
        Event::Memories(Ok(memories)),
    );
    let taken_over = News::TakenOver {
        offsets: offsets.into(),
        numbers: 1,
    };
    assert_eq!(bench.news()[0], taken_over);
    assert_eq!(bench.machine.sizes(), (1, 1, 1));
    bench.step(WAITING, record(payment(7, 1, 10)));
    assert_eq!(bench.machine.pending()[0].verdict, Verdict::Again);
    assert_eq!(before.asks(), Action::Begin);
}

#[test]
fn g2_what_is_decided_and_its_offset_are_in_one_transaction() {
    let mut bench = Bench::settling(false);
    bench.step(WAITING, record(payment(7, 1, 10)));
    assert_eq!(bench.sequences(), [7]);
    bench.step(AT_ONCE, record(payment(9, 2, 10)));
    assert_eq!(bench.machine.offsets(), [(0, 10)].into());
    bench.step(AT_ONCE, nothing());
    bench.step(Action::Begin, done());
    bench.step(Action::PassOffsets, done());
    bench.step(Action::HandOver, Event::HandedOver(Ok(Ok(()))));
    bench.step(Action::Await, Event::Progress(Ok((2, None))));
    bench.step(Action::Await, Event::Progress(Ok((0, None))));
    assert_eq!(bench.news(), []);
    bench.step(Action::Commit, done());
    let [News::Committed(verdicts)] = &bench.news()[..] else {
        panic!("nothing else is told");
    };
    assert_eq!(verdicts.len(), 2);
    assert!(verdicts.iter().all(|v| matches!(v, Verdict::Accepted(_))));
    assert!(bench.machine.pending().is_empty());
    assert!(bench.machine.offsets().is_empty());
    assert_eq!(bench.asks(), WAITING);
}

#[test]
fn a_transaction_begins_when_nothing_more_is_there_or_it_is_full() {
    let mut bench = Bench::settling(false);
    bench.step(WAITING, nothing());
    for offset in 7..10 {
        let poll = bench.asks();
        assert!(matches!(poll, Action::Poll { .. }), "{offset}: {poll:?}");
        bench.step(poll, record(payment(offset, offset as u64, 1)));
    }
    assert_eq!(bench.sequences(), [7, 8, 9]);
    assert_eq!(bench.asks(), Action::Begin);

    // A poll that only changed something says nothing about what is there.
    let mut bench = Bench::settling(false);
    bench.step(WAITING, record(payment(7, 1, 10)));
    bench.step(AT_ONCE, changed(&[Change::Assigned(vec![])]));
    assert_eq!(bench.news(), [News::State(State::Settling)]);
    bench.step(AT_ONCE, nothing());
    assert_eq!(bench.asks(), Action::Begin);
}

#[test]
fn a_record_that_comes_with_its_partition_is_settled_behind_the_takeover() {
    let mut bench = Bench::plain().joined(false);
    let polled = Polled {
        record: Some(payment(7, 1, 10)),
        changes: vec![Change::Assigned(vec![0])],
        fatal: None,
    };
    bench.step(WAITING, Event::Polled(polled));
    bench.read_back(&[0], &[(0, None)]);
    assert_eq!(bench.sequences(), [7]);
    bench.step(AT_ONCE, nothing());
    assert_eq!(bench.asks(), Action::Begin);
}

#[test]
fn g2_what_was_decided_for_a_partition_that_goes_is_left_to_its_new_holder() {
    let mut bench = Bench::settling(false);
    bench.take_over(2, None);
    bench.step(WAITING, record(payment(7, 1, 10)));
    let elsewhere = Taken {
        partition: 2,
        ..payment(4, 1, 10)
    };
    bench.step(AT_ONCE, record(elsewhere));
    assert_eq!(bench.machine.offsets(), [(0, 8), (2, 5)].into());
    bench.news();
    bench.step(AT_ONCE, changed(&[Change::Revoked(vec![0])]));
    let told = [News::GivenUp(vec![0]), News::State(State::Settling)];
    assert_eq!(bench.news(), told);
    assert_eq!(bench.machine.offsets(), [(2, 5)].into());
    assert!(!bench.machine.core().holds(0));
    // What was fetched before is not settled.
    bench.step(AT_ONCE, record(payment(8, 2, 10)));
    assert_eq!(bench.sequences(), [4]);
    bench.step(AT_ONCE, nothing());
    assert_eq!(bench.asks(), Action::Begin);
}

#[test]
fn a_record_that_the_group_had_passed_is_told_once_a_takeover() {
    let mut bench = Bench::settling(false);
    bench.step(WAITING, record(payment(6, 1, 10)));
    let told = News::PassedBefore {
        partition: 0,
        offset: 6,
    };
    assert_eq!(bench.news(), [told]);
    bench.step(AT_ONCE, record(payment(5, 2, 10)));
    assert_eq!(bench.news(), [], "once");

    let mut bench = Bench::settling(false);
    bench.step(WAITING, record(payment(7, 1, 10)));
    assert_eq!(bench.news(), [], "that is where it was to begin");

    // What it began at is forgotten with the partition.
    let mut bench = Bench::settling(false);
    bench.step(WAITING, changed(&[Change::Revoked(vec![0])]));
    bench.take_over(0, None);
    bench.news();
    bench.step(WAITING, record(payment(3, 1, 10)));
    assert_eq!(bench.news(), []);
}

#[test]
fn what_is_not_settled_is_told_and_what_is_settled_is_not() {
    let mut bench = Bench::with(|settings| settings.core.window = 1).joined(false);
    bench.take_over(0, None);
    bench.news();
    let told = |bench: &mut Bench, taken: Taken| {
        let (partition, offset) = (taken.partition, taken.offset);
        let poll = bench.asks();
        if poll == Action::Begin {
            for event in [
                done(),
                done(),
                Event::HandedOver(Ok(Ok(()))),
                Event::Progress(Ok((0, None))),
                done(),
            ] {
                bench.machine.done(event, bench.now);
            }
            bench.news();
        }
        let poll = bench.asks();
        bench.step(poll, record(taken));
        match bench.news().pop() {
            Some(News::NotSettled {
                terminal,
                sequence,
                partition: at,
                offset: of,
                verdict,
            }) => {
                assert_eq!((at, of), (partition, offset));
                assert_eq!(terminal.as_deref(), Some(TERMINAL));
                Some((sequence, verdict))
            }
            _ => None,
        }
    };
    assert_eq!(told(&mut bench, payment(1, 2, 10)), None, "accepted");
    assert_eq!(told(&mut bench, payment(2, 2, 10)), None, "again");
    let conflict = told(&mut bench, payment(3, 2, 11));
    assert_eq!(conflict, Some((Some(2), Verdict::Conflict)));
    assert_eq!(told(&mut bench, payment(4, 3, 10)), None, "accepted");
    let too_old = told(&mut bench, payment(5, 2, 10));
    assert_eq!(too_old, Some((Some(2), Verdict::TooOld)));
    let rubbish = Taken {
        value: b"rubbish".to_vec(),
        ..payment(6, 4, 10)
    };
    let Some((None, Verdict::Foreign(_))) = told(&mut bench, rubbish) else {
        panic!("it is told");
    };
}

#[test]
fn a_transaction_that_came_to_nothing_is_sent_again_as_it_was() {
    let cases = [
        (Action::Begin, Event::Done(Err(failed(Remedy::Abort))), "no"),
        (
            Action::PassOffsets,
            Event::Done(Err(failed(Remedy::Abort))),
            "no",
        ),
        (
            Action::HandOver,
            Event::HandedOver(Ok(Err("full".into()))),
            "full",
        ),
        (
            Action::Await,
            Event::Progress(Ok((1, Some("lost".into())))),
            "a delivery failed: lost",
        ),
        (
            Action::Await,
            Event::Progress(Ok((0, Some("lost".into())))),
            "a delivery failed: lost",
        ),
        (
            Action::Commit,
            Event::Done(Err(failed(Remedy::Abort))),
            "no",
        ),
    ];
    for (action, event, reason) in cases {
        let mut bench = Bench::at(action.clone());
        let before = bench.machine.pending().to_vec();
        bench.step(action, event);
        bench.step(Action::Abort, done());
        assert_eq!(bench.news(), [News::Aborted(reason.into())]);
        assert_eq!(bench.waits(), limits::BACKOFF_MIN);
        assert_eq!(bench.machine.pending(), before);
        bench.step(AT_ONCE, nothing());
        assert_eq!(bench.asks(), Action::Begin);
    }
}

#[test]
fn a_transaction_that_could_not_begin_is_tried_again_without_an_abort() {
    let mut bench = Bench::at(Action::Begin);
    bench.step(Action::Begin, again());
    assert_eq!(bench.news(), [News::Aborted("no".into())]);
    assert_eq!(bench.waits(), limits::BACKOFF_MIN);
    bench.step(AT_ONCE, nothing());
    assert_eq!(bench.asks(), Action::Begin);
}

#[test]
fn an_error_that_finishes_the_producer_ends_its_clients() {
    let anew = || failed(Remedy::Anew);
    let cases = [
        (Action::Begin, Event::Done(Err(anew()))),
        (Action::PassOffsets, Event::Done(Err(anew()))),
        (Action::HandOver, Event::HandedOver(Err(anew()))),
        (Action::Await, Event::Progress(Err(anew()))),
        (Action::Commit, Event::Done(Err(anew()))),
        (Action::CommitOffsets, Event::Done(Err(anew()))),
        // Whatever it asks for: the offsets of what is committed are not known.
        (Action::CommitOffsets, again()),
        (Action::Abort, Event::Done(Err(anew()))),
        (Action::Abort, Event::Done(Err(failed(Remedy::Abort)))),
    ];
    for (action, event) in cases {
        let mut bench = Bench::at(action.clone());
        bench.step(action, event);
        bench.is_made_anew("no");
        bench.step(Action::Open, Event::Opened(Ok(false)));
        assert!(bench.machine.pending().is_empty());
        assert_eq!(bench.machine.sizes(), (0, 0, 0));
        assert_eq!(bench.asks(), Action::Init);
    }
}

#[test]
fn g8_a_call_without_an_answer_is_made_again_but_not_for_ever() {
    let init = || {
        let mut bench = Bench::plain();
        bench.step(Action::Open, Event::Opened(Ok(false)));
        bench.news();
        bench
    };
    let benches = [
        (Action::Init, init()),
        (Action::PassOffsets, Bench::at(Action::PassOffsets)),
        (Action::Commit, Bench::at(Action::Commit)),
        (Action::Abort, Bench::at(Action::Abort)),
    ];
    for (action, mut bench) in benches {
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
fn an_answer_in_between_begins_the_wait_anew() {
    let mut bench = Bench::at(Action::Commit);
    bench.step(Action::Commit, again());
    bench.now += limits::UNANSWERED;
    bench.step(Action::Commit, done());
    bench.step(WAITING, record(payment(8, 2, 10)));
    bench.step(AT_ONCE, nothing());
    bench.step(Action::Begin, done());
    bench.now += Duration::from_secs(1);
    bench.step(Action::PassOffsets, again());
    assert_eq!(bench.asks(), Action::PassOffsets);

    // Also the answer of one that begins, and of the group's offsets.
    let mut bench = Bench::plain();
    bench.step(Action::Open, Event::Opened(Ok(false)));
    bench.step(Action::Init, again());
    bench.now += limits::UNANSWERED;
    bench.step(Action::Init, done());
    bench.now += Duration::from_secs(1);
    bench.step(Action::Join, Event::Joined(Ok(())));
    bench.step(WAITING, changed(&[Change::Assigned(vec![0])]));
    let unstable = || Event::Offsets(Err("unstable".into()));
    bench.step(Action::AskOffsets(vec![0]), unstable());
    bench.now += limits::UNANSWERED;
    bench.read_back(&[0], &[(0, None)]);
    bench.step(WAITING, changed(&[Change::Assigned(vec![1])]));
    bench.news();
    bench.step(Action::AskOffsets(vec![1]), unstable());
    assert_eq!(bench.news(), [News::Error("unstable".into())]);
}

#[test]
fn g7_a_takeover_waits_longer_and_longer_for_stable_offsets_and_not_for_ever() {
    let mut bench = Bench::plain().joined(false);
    bench.step(WAITING, changed(&[Change::Assigned(vec![0])]));
    bench.news();
    let ask = || Action::AskOffsets(vec![0]);
    let unstable = || Event::Offsets(Err("unstable".into()));
    let mut waited = Duration::ZERO;
    let mut expected = limits::BACKOFF_MIN;
    let since = bench.now;
    while bench.now - since <= limits::UNANSWERED {
        bench.step(ask(), unstable());
        assert_eq!(bench.news(), [News::Error("unstable".into())]);
        let pause = bench.waits();
        assert_eq!(pause, expected);
        expected = (2 * expected).min(limits::BACKOFF_MAX);
        waited += pause;
    }
    assert_eq!(waited, bench.now - since);
    bench.step(ask(), unstable());
    bench.is_made_anew("unstable");
}

#[test]
fn offsets_that_the_cluster_forgets_are_committed_once_more() {
    let mut bench = Bench::at(Action::CommitOffsets);
    assert_eq!(bench.machine.offsets(), [(0, 8)].into());
    assert_eq!(bench.news(), []);
    bench.step(Action::CommitOffsets, done());
    assert!(matches!(bench.news()[..], [News::Committed(_)]));
    assert_eq!(bench.asks(), WAITING);
}

#[test]
fn the_control_that_has_its_offsets_outside_commits_them_behind() {
    let mut bench =
        Bench::with(|settings| settings.offsets_outside_transaction = true).joined(false);
    bench.take_over(0, None);
    bench.step(WAITING, record(payment(7, 1, 10)));
    bench.step(AT_ONCE, nothing());
    bench.step(Action::Begin, done());
    bench.step(Action::HandOver, Event::HandedOver(Ok(Ok(()))));
    bench.step(Action::Await, Event::Progress(Ok((0, None))));
    bench.step(Action::Commit, done());
    bench.step(Action::CommitOffsets, done());
    assert_eq!(bench.asks(), WAITING);
}

#[test]
fn g8_after_so_many_failures_in_a_row_the_clients_are_made_anew() {
    let mut bench = Bench::at(Action::Begin);
    let fails = |bench: &mut Bench| {
        bench.step(Action::Begin, again());
        assert!(matches!(bench.news()[..], [News::Aborted(_)]));
        let pause = bench.waits();
        bench.step(AT_ONCE, nothing());
        pause
    };
    for _ in 0..limits::SETTLEMENT_ATTEMPTS_MAX {
        fails(&mut bench);
    }
    bench.step(Action::Begin, again());
    bench.is_made_anew("no");

    // A commit in between, and it counts anew.
    let mut bench = Bench::at(Action::Begin);
    for _ in 0..limits::SETTLEMENT_ATTEMPTS_MAX {
        fails(&mut bench);
    }
    bench.step(Action::Begin, done());
    bench.step(Action::PassOffsets, done());
    bench.step(Action::HandOver, Event::HandedOver(Ok(Ok(()))));
    bench.step(Action::Await, Event::Progress(Ok((0, None))));
    bench.step(Action::Commit, done());
    bench.news();
    bench.step(WAITING, record(payment(8, 2, 10)));
    bench.step(AT_ONCE, nothing());
    assert_eq!(fails(&mut bench), limits::BACKOFF_MIN);
}

#[test]
fn who_was_taken_over_is_told_what_to_do() {
    let hint =
        "no; another instance named a took over: give each a name of its own (settlement.instance)";
    for (code, reason) in [
        (Code::Fenced, hint),
        (Code::ProducerFenced, hint),
        (Code::FencedInstanceId, hint),
        (Code::UnknownMemberId, "no"),
    ] {
        let mut bench = Bench::settling(false);
        let polled = Polled {
            record: Some(payment(7, 1, 10)),
            fatal: Some(Failure::new(Remedy::Anew, Some(code), "no")),
            ..Polled::default()
        };
        bench.step(WAITING, Event::Polled(polled));
        bench.is_made_anew(reason);
    }
}

#[test]
fn clients_that_can_not_be_made_or_asked_are_made_anew_with_growing_pauses() {
    let mut bench = Bench::plain();
    bench.news();
    let mut expected = limits::BACKOFF_MIN;
    for _ in 0..8 {
        bench.step(Action::Open, Event::Opened(Err("no broker".into())));
        assert_eq!(bench.news()[0], News::Anew("no broker".into()));
        assert_eq!(bench.waits(), expected);
        expected = (2 * expected).min(limits::BACKOFF_MAX);
    }
    bench.step(Action::Open, Event::Opened(Ok(false)));
    bench.step(Action::Init, done());
    bench.step(Action::Join, Event::Joined(Err("no group".into())));
    bench.is_made_anew("no group");

    let mut bench = Bench::plain().joined(false);
    bench.step(WAITING, changed(&[Change::Assigned(vec![0])]));
    bench.step(Action::AskOffsets(vec![0]), Event::Offsets(Ok([].into())));
    bench.news();
    bench.step(Action::AskEnds(vec![0]), Event::Ends(Err("no end".into())));
    bench.is_made_anew("no end");

    let mut bench = Bench::plain().joined(false);
    bench.step(WAITING, changed(&[Change::Assigned(vec![0])]));
    bench.step(Action::AskOffsets(vec![0]), Event::Offsets(Ok([].into())));
    bench.step(Action::AskEnds(vec![0]), Event::Ends(Ok(ends(&[0]))));
    bench.news();
    let damaged = Event::Memories(Err("damaged".into()));
    bench.step(Action::Read(vec![0], ends(&[0])), damaged);
    bench.is_made_anew("damaged");
}

#[test]
fn who_may_not_begin_is_told_what_to_grant() {
    for remedy in [Remedy::Abort, Remedy::Anew] {
        let mut bench = Bench::plain();
        bench.step(Action::Open, Event::Opened(Ok(false)));
        bench.news();
        bench.step(Action::Init, Event::Done(Err(failed(remedy))));
        bench.is_made_anew("Kafka refuses transactions: no; grant the transactional id bank-a");
    }
}

#[test]
fn a_panic_of_its_shell_makes_the_clients_anew() {
    let mut bench = Bench::at(Action::Commit);
    bench.machine.panicked(bench.now);
    bench.is_made_anew("a bug: settlement panicked; please report it");
}

#[test]
fn a_pause_lasts_until_its_end_however_often_it_is_asked_for() {
    let mut bench = Bench::plain();
    bench.step(Action::Open, Event::Opened(Err("no broker".into())));
    let whole = limits::BACKOFF_MIN;
    let part = whole / 5;
    bench.step(Action::Pause(whole), Event::Passed);
    bench.now += part;
    bench.step(Action::Pause(whole - part), Event::Passed);
    bench.now += whole - part;
    assert_eq!(bench.asks(), Action::Open);
}

#[test]
fn it_ends_where_no_transaction_is_open_and_nothing_is_decided() {
    let mut bench = Bench::plain();
    let mut ended = Vec::new();
    let mut ends_at = |bench: &mut Bench| {
        let action = bench.asks();
        let stopping = std::mem::replace(&mut bench.machine.stopping, false);
        bench.machine.stop();
        let is_end = bench.asks() == Action::Ended;
        bench.machine.stopping = stopping;
        ended.push((action, is_end));
    };
    ends_at(&mut bench);
    bench.step(Action::Open, Event::Opened(Ok(true)));
    ends_at(&mut bench);
    bench.step(Action::Init, done());
    ends_at(&mut bench);
    bench.step(Action::Join, Event::Joined(Ok(())));
    ends_at(&mut bench);
    bench.step(WAITING, changed(&[Change::Assigned(vec![0])]));
    ends_at(&mut bench);
    bench.step(Action::AskOffsets(vec![0]), Event::Offsets(Err("u".into())));
    ends_at(&mut bench);
    bench.waits();
    bench.step(Action::AskOffsets(vec![0]), Event::Offsets(Ok([].into())));
    ends_at(&mut bench);
    bench.step(Action::AskEnds(vec![0]), Event::Ends(Ok(ends(&[0]))));
    ends_at(&mut bench);
    let memories = [(0, Partition::default())].into();
    bench.step(
        Action::Read(vec![0], ends(&[0])),
        Event::Memories(Ok(memories)),
    );
    bench.step(WAITING, record(payment(7, 1, 10)));
    ends_at(&mut bench);
    bench.step(AT_ONCE, nothing());
    ends_at(&mut bench);
    bench.step(Action::Begin, done());
    ends_at(&mut bench);
    bench.step(Action::PassOffsets, done());
    ends_at(&mut bench);
    bench.step(Action::HandOver, Event::HandedOver(Ok(Ok(()))));
    ends_at(&mut bench);
    bench.step(Action::Await, Event::Progress(Ok((0, None))));
    ends_at(&mut bench);
    bench.step(Action::Commit, done());
    ends_at(&mut bench);
    bench.step(Action::CommitOffsets, done());
    ends_at(&mut bench);
    let at_end = |action: &Action| {
        !matches!(
            action,
            Action::Begin
                | Action::PassOffsets
                | Action::HandOver
                | Action::Await
                | Action::Commit
                | Action::CommitOffsets
        ) && *action != AT_ONCE
    };
    assert_eq!(ended.len(), 16);
    for (action, is_end) in ended {
        assert_eq!(is_end, at_end(&action), "{action:?}");
    }
    let mut bench = Bench::at(Action::Abort);
    bench.machine.stop();
    assert_eq!(bench.asks(), Action::Abort);
}
