//! The machine step by step, with the answers of Kafka, the journal and the dead
//! letters as the test likes.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode as Code;
use risiti_config::{Key, Route, Terminals};
use risiti_store::{Identity, NewRecord, Record};

use super::super::core::Delivery;
use super::*;
use crate::route::Routes;

mod batches;
mod outages;

/// The machine and its clock.
struct Bench {
    machine: Machine,
    now: Now,
}

fn settings() -> Settings {
    Settings {
        cluster: DEFAULT_CLUSTER.into(),
        gateway_id: "g1".into(),
        mode: Mode::ExactlyOnce,
        batch_records_max: 100,
        batch_bytes_max: 1 << 20,
        transaction_timeout: Duration::from_secs(15),
        positions_topic: "risiti.positions".into(),
        position_outside_transaction: false,
    }
}

/// Topics `a/…` are for the default cluster, `b/…` for another one; `l` lacks what
/// its route takes as key.
fn routes() -> Arc<Routes> {
    let route = |name: &str, filter: &str, cluster: &str, key| Route {
        name: name.into(),
        filter: filter.into(),
        cluster: cluster.into(),
        topic: format!("kafka.{name}"),
        key,
        ..Route::records(&Terminals::default())
    };
    let routes = [
        route("a", "a/#", DEFAULT_CLUSTER, Key::Topic),
        route("b", "b/#", "other", Key::Topic),
        route("l", "l", DEFAULT_CLUSTER, Key::Level(3)),
    ];
    Arc::new(Routes::new(&routes, &Terminals::default()))
}

fn record(position: Position, topic: &str) -> Record {
    Record {
        position,
        record: NewRecord {
            received_ms: 0,
            client_id: bytes::Bytes::from_static(b"c"),
            topic: bytes::Bytes::copy_from_slice(topic.as_bytes()),
            identity: Identity::None,
            properties: bytes::Bytes::new(),
            payload: bytes::Bytes::from_static(b"payload"),
        },
    }
}

fn reading(batch: ReadBatch) -> Reading {
    Reading {
        batch,
        routes: routes(),
        until: None,
        clusters: Arc::new([DEFAULT_CLUSTER.to_owned(), "other".to_owned()].into()),
    }
}

/// Records from `first` on, to these topics.
fn batch(first: Position, topics: &[&str]) -> ReadBatch {
    let records: Vec<Record> = topics
        .iter()
        .zip(first..)
        .map(|(topic, position)| record(position, topic))
        .collect();
    ReadBatch {
        next: first + records.len() as Position,
        records,
        damaged: 0,
    }
}

fn read(first: Position, topics: &[&str]) -> Event {
    Event::Read(Ok(reading(batch(first, topics))))
}

fn looked(end: Position) -> Looked {
    Looked {
        fatal: None,
        down: false,
        routes_changed: false,
        end,
    }
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

fn connected() -> Event {
    Event::Connected {
        answer: Ok(()),
        distrust: None,
    }
}

fn found(at: Option<Position>, oldest: Position, end: Position) -> Event {
    Event::Position(Ok(Found { at, oldest, end }))
}

fn anew(reason: &str) -> News {
    News::Anew {
        reason: reason.into(),
        fenced: false,
    }
}

impl Bench {
    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self {
            machine: Machine::new(settings),
            now: Now::from_secs(100),
        }
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

    fn alarms(&mut self) -> Vec<Option<String>> {
        let news = self.news().into_iter();
        news.filter_map(|news| match news {
            News::Alarm(alarm) => Some(alarm),
            _ => None,
        })
        .collect()
    }

    /// Until it asks for where the positions end.
    fn recovering(mut self) -> Self {
        self.step(Action::Open, Event::Opened(Ok(())));
        self.step(Action::Connect, connected());
        self.step(Action::Topics, Event::Topics(Ok(false)));
        if self.machine.settings.mode == Mode::ExactlyOnce {
            self.step(Action::Init, done());
        }
        self
    }

    /// One that has found its position, a while ago.
    fn at(mut self, position: Position) -> Self {
        self = self.recovering();
        self.step(Action::AskEnds, Event::Ends(Ok((2, 7))));
        let from_to = Action::ReadPosition { from: 2, to: 7 };
        self.step(from_to, found(Some(position), 1, position + 1_000));
        self.step(Action::Release { upto: position }, Event::Passed);
        self.now += limits::CLUSTERS_START;
        self.news();
        self
    }

    fn ready() -> Self {
        Self::with(|_| {}).at(5)
    }

    /// It looks and reads this.
    #[track_caller]
    fn reads(&mut self, event: Event) {
        self.step(
            Action::Look,
            Event::Looked(looked(self.machine.next + 1_000)),
        );
        assert!(matches!(self.asks(), Action::Read { .. }));
        self.machine.done(event, self.now);
    }

    /// One that is about to send records to these topics, from position 5 on.
    fn sending(topics: &[&str]) -> Self {
        let mut bench = Self::ready();
        bench.reads(read(5, topics));
        bench.news();
        bench
    }

    /// Hands over, and every delivery is known.
    #[track_caller]
    fn delivers(&mut self, records: bool, position: Option<Position>, deliveries: &[Delivery]) {
        let hand_over = Action::HandOver { records, position };
        self.step(hand_over, Event::HandedOver(Ok(true)));
        self.step(Action::Await, Event::Progress(Ok((0, false))));
        let deliveries = Event::Deliveries(deliveries.to_vec());
        self.step(Action::Collect, deliveries);
    }

    /// The whole way of `records` records, and of the position behind them.
    #[track_caller]
    fn commits(&mut self, records: usize, position: Position) {
        self.step(Action::Begin, done());
        let deliveries = vec![Delivery::Delivered; records + 1];
        self.delivers(records > 0, Some(position), &deliveries);
        self.step(Action::Commit, done());
        self.step(Action::Release { upto: position }, Event::Passed);
    }

    /// The producer is finished for this reason, and a new one is made after a pause.
    #[track_caller]
    fn is_made_anew(&mut self, reason: &str) {
        let told = [
            anew(reason),
            News::Error(Some(reason.into())),
            News::State(State::Connecting),
        ];
        assert_eq!(self.news(), told);
        self.waits();
        assert_eq!(self.asks(), Action::Open);
    }

    /// Positions of the records under way.
    fn sends(&self) -> Vec<Position> {
        let sends = self.machine.sends().iter();
        sends.map(|send| send.record.position).collect()
    }

    fn letters(&self) -> Vec<Position> {
        let letters = self.machine.letters().iter();
        letters.map(|letter| letter.record.position).collect()
    }

    fn read_bounds(&mut self) -> (usize, usize) {
        self.step(Action::Look, Event::Looked(looked(Position::MAX)));
        let Action::Read {
            records_max,
            bytes_max,
            ..
        } = self.asks()
        else {
            panic!("{:?}", self.asks());
        };
        (records_max, bytes_max)
    }
}

#[test]
fn g2_it_finds_its_position_before_it_sends() {
    let mut bench = Bench::with(|_| {});
    assert_eq!(bench.news(), [News::State(State::Connecting)]);
    let mut bench = bench.recovering();
    let states = [State::Connecting, State::Recovering].map(News::State);
    assert_eq!(bench.news(), states);
    bench.step(Action::AskEnds, Event::Ends(Ok((2, 7))));
    bench.step(
        Action::ReadPosition { from: 2, to: 7 },
        found(Some(5), 1, 9),
    );
    let told = [News::Found(Some(5)), News::Error(None), News::Position];
    assert_eq!(bench.news(), told);
    assert_eq!((bench.machine.next(), bench.machine.saved()), (5, 5));
    bench.step(Action::Release { upto: 5 }, Event::Passed);
    assert_eq!(bench.asks(), Action::Look);

    // Without transactions it begins without them, too.
    let mut bench = Bench::with(|settings| settings.mode = Mode::Idempotent).recovering();
    assert_eq!(bench.asks(), Action::AskEnds);
}

#[test]
fn where_it_begins_is_in_the_journal_and_what_is_missing_is_told() {
    for (at, oldest, end, next, alarm) in [
        (None, 3, 9, 3, None),
        (Some(3), 3, 9, 3, None),
        (Some(9), 3, 9, 9, None),
        (Some(2), 3, 9, 3, Some("begins at 3")),
        (Some(10), 3, 9, 9, Some("ends at 9")),
    ] {
        let mut bench = Bench::with(|_| {}).recovering();
        bench.step(Action::AskEnds, Event::Ends(Ok((0, 1))));
        bench.step(
            Action::ReadPosition { from: 0, to: 1 },
            found(at, oldest, end),
        );
        assert_eq!((bench.machine.next(), bench.machine.saved()), (next, next));
        let alarms = bench.alarms();
        assert_eq!(alarms.len(), usize::from(alarm.is_some()), "{at:?}");
        if let (Some(alarm), Some(Some(told))) = (alarm, alarms.first()) {
            assert!(told.contains(alarm), "{told}");
        }
    }
}

#[test]
fn g2_a_batch_and_the_position_behind_it_are_in_one_transaction() {
    let mut bench = Bench::ready();
    bench.reads(read(5, &["a/1", "b/1", "a/2"]));
    assert_eq!(bench.sends(), [5, 7]);
    bench.step(Action::Begin, done());
    let hand_over = Action::HandOver {
        records: true,
        position: Some(8),
    };
    bench.step(hand_over, Event::HandedOver(Ok(true)));
    bench.step(Action::Await, Event::Progress(Ok((2, false))));
    bench.step(Action::Await, Event::Progress(Ok((0, false))));
    bench.step(
        Action::Collect,
        Event::Deliveries(vec![Delivery::Delivered; 3]),
    );
    assert_eq!((bench.machine.next(), bench.machine.saved()), (5, 5));
    bench.step(Action::Commit, done());
    assert_eq!((bench.machine.next(), bench.machine.saved()), (8, 8));
    let told = [
        News::Damaged(0),
        News::State(State::Sending),
        News::Sending,
        News::Forwarded,
        News::Skipped(1),
        News::Committed,
        News::Error(None),
        News::Alarm(None),
        News::Position,
    ];
    assert_eq!(bench.news(), told);
    bench.step(Action::Release { upto: 8 }, Event::Passed);
    bench.step(Action::Look, Event::Looked(looked(8)));
    assert!(bench.sends().is_empty(), "memory is for what is under way");
}

#[test]
fn a_few_records_wait_for_more_and_a_full_batch_for_nothing() {
    let short = Duration::from_millis(1);
    for (waiting, since, pause) in [
        (0, short, None),
        (1, short, Some(limits::TRANSACTION_SPACING - short)),
        (99, short, Some(limits::TRANSACTION_SPACING - short)),
        (100, short, None),
        (101, short, None),
        (1, limits::TRANSACTION_SPACING, None),
    ] {
        let mut bench = Bench::sending(&["a/1"]);
        bench.commits(1, 6);
        bench.now += since;
        bench.step(Action::Look, Event::Looked(looked(6 + waiting)));
        let paused = matches!(bench.asks(), Action::Pause(_)).then(|| bench.waits());
        assert_eq!(paused, pause, "{waiting} after {since:?}");
        let read = Action::Read {
            from: 6,
            records_max: 100,
            bytes_max: 1 << 20,
        };
        assert_eq!(bench.asks(), read);
    }
}

#[test]
fn with_nothing_to_send_it_waits_for_records() {
    let mut bench = Bench::ready();
    bench.reads(read(5, &[]));
    assert_eq!(bench.news(), [News::State(State::CaughtUp), News::Position]);
    let idle = Action::Idle {
        after: 5,
        at_most: None,
    };
    bench.step(idle, Event::Passed);
    assert_eq!(bench.asks(), Action::Look);
}

#[test]
fn a_position_that_moved_without_a_record_is_saved_after_a_while() {
    let mut bench = Bench::ready();
    let since = bench.now - limits::CLUSTERS_START;
    bench.reads(read(5, &["b/1", "b/2"]));
    assert_eq!(bench.news(), [News::Damaged(0), News::Skipped(2)]);
    assert_eq!((bench.machine.next(), bench.machine.saved()), (7, 5));
    bench.reads(read(7, &[]));
    let left = limits::UNSAVED_POSITION_AGE - (bench.now - since);
    let idle = |at_most| Action::Idle { after: 7, at_most };
    bench.step(idle(Some(left)), Event::Passed);
    bench.now = since + limits::UNSAVED_POSITION_AGE - Duration::from_millis(1);
    bench.reads(read(7, &[]));
    let left = Duration::from_millis(1);
    bench.step(idle(Some(left)), Event::Passed);
    bench.now += left;
    bench.reads(read(7, &[]));
    bench.news();
    bench.commits(0, 7);
    let told = [
        News::Committed,
        News::Error(None),
        News::Alarm(None),
        News::Position,
    ];
    assert_eq!(bench.news(), told);
    bench.reads(read(7, &[]));
    assert_eq!(bench.asks(), idle(None));
}

#[test]
fn a_position_that_moved_far_without_a_record_is_saved_at_once() {
    let far = |by: Position| {
        let mut bench = Bench::ready();
        let batch = ReadBatch {
            records: Vec::new(),
            next: 5 + by,
            damaged: by,
        };
        bench.reads(Event::Read(Ok(reading(batch))));
        assert_eq!(bench.news()[0], News::Damaged(by));
        assert_eq!(bench.machine.next(), 5 + by);
        bench.asks()
    };
    assert_eq!(far(limits::UNSAVED_POSITIONS_MAX - 1), Action::Look);
    assert_eq!(far(limits::UNSAVED_POSITIONS_MAX), Action::Begin);
}

#[test]
fn what_no_route_takes_is_kept_before_what_comes_with_it_is_sent() {
    let mut bench = Bench::ready();
    bench.reads(read(5, &["a/1", "x", "l"]));
    assert_eq!(bench.letters(), [6, 7]);
    let [none, keyless] = bench.machine.letters() else {
        panic!("two");
    };
    assert_eq!((&*none.route, &*none.topic), ("", ""));
    assert_eq!((&*keyless.route, &*keyless.topic), ("l", "kafka.l"));
    assert!(keyless.text.contains("route l"), "{}", keyless.text);
    bench.news();
    bench.step(Action::Bury, Event::Buried(Ok(true)));
    assert_eq!(bench.news()[0], News::Buried);
    assert_eq!(bench.sends(), [5]);
    bench.commits(1, 8);
    assert_eq!(bench.asks(), Action::Look);
}

#[test]
fn dead_letters_alone_have_their_position_saved_at_once() {
    let mut bench = Bench::ready();
    bench.reads(read(5, &["x"]));
    bench.step(Action::Bury, Event::Buried(Ok(true)));
    bench.commits(0, 6);
    // They are not sent again, and others' records are not taken for them.
    bench.reads(read(6, &["b/1"]));
    assert_eq!(bench.asks(), Action::Look);
    assert_eq!((bench.machine.next(), bench.machine.saved()), (7, 6));
}

#[test]
fn g8_without_room_for_dead_letters_it_waits_and_goes_on_by_itself() {
    let full = "the dead letters are full, forwarding waits; look at them with `risiti dead list`, then requeue or drop them";
    for (kept, state, reason) in [
        (Ok(false), State::DeadLettersFull, full),
        (Err("no disk".to_owned()), State::StoreFailing, "no disk"),
    ] {
        let mut bench = Bench::ready();
        bench.reads(read(5, &["x", "a/1"]));
        bench.news();
        bench.step(Action::Bury, Event::Buried(kept));
        let told = [
            News::State(state),
            News::Error(Some(reason.into())),
            News::Alarm(Some(reason.into())),
        ];
        assert_eq!(bench.news(), told);
        assert_eq!(bench.waits(), limits::BACKOFF_MAX);
        bench.step(Action::Bury, Event::Buried(Ok(true)));
        assert_eq!(bench.sends(), [6]);
    }
}

#[test]
fn a_former_table_is_asked_once_all_clusters_had_time_to_start() {
    let asks = |name: &str, until, since: Duration| {
        let mut bench = Bench::with(|settings| settings.cluster = name.into());
        let began = bench.now;
        bench = bench.at(5);
        bench.now = began + since;
        let reading = Reading {
            until,
            ..reading(batch(5, &["b/1"]))
        };
        bench.reads(Event::Read(Ok(reading)));
        bench.asks()
    };
    let (soon, later) = (
        limits::CLUSTERS_START - Duration::from_millis(1),
        limits::CLUSTERS_START,
    );
    let wait = Action::Pause(limits::BACKOFF_MIN);
    assert_eq!(asks(DEFAULT_CLUSTER, Some(6), soon), wait);
    assert_eq!(asks(DEFAULT_CLUSTER, Some(6), later), Action::Look);
    assert_eq!(asks(DEFAULT_CLUSTER, None, soon), Action::Look);
    assert_eq!(asks("other", Some(6), soon), Action::Begin);
}

#[test]
fn what_another_cluster_has_no_more_is_one_forwarders_to_keep() {
    let kept = |name: &str| {
        let mut bench = Bench::with(|settings| settings.cluster = name.into()).at(5);
        let reading = Reading {
            until: Some(6),
            clusters: Arc::new([DEFAULT_CLUSTER.to_owned()].into()),
            ..reading(batch(5, &["b/1"]))
        };
        bench.reads(Event::Read(Ok(reading)));
        bench.letters()
    };
    assert_eq!(kept(DEFAULT_CLUSTER), [5]);
    assert_eq!(kept("third"), [0; 0]);
}

#[test]
fn a_journal_that_can_not_be_read_is_read_again() {
    let mut bench = Bench::ready();
    bench.reads(Event::Read(Err("no disk".into())));
    let told = [
        News::State(State::StoreFailing),
        News::Error(Some("no disk".into())),
    ];
    assert_eq!(bench.news(), told);
    assert_eq!(bench.waits(), limits::BACKOFF_MAX);
    assert_eq!(bench.asks(), Action::Look);
}

#[test]
fn a_lost_link_and_other_routes_are_seen_to_before_it_goes_on() {
    let mut bench = Bench::ready();
    let down = Looked {
        down: true,
        ..looked(9)
    };
    bench.step(Action::Look, Event::Looked(down));
    assert_eq!(bench.news(), [News::State(State::Connecting)]);
    bench.step(Action::Connect, connected());
    let changed = Looked {
        routes_changed: true,
        ..looked(9)
    };
    bench.step(Action::Look, Event::Looked(changed));
    bench.step(Action::Topics, Event::Topics(Ok(true)));
    assert_eq!(bench.asks(), Action::Look);
    assert_eq!(bench.news(), []);
}

#[test]
fn so_many_records_are_read_as_configured_within_bounds() {
    for (configured, read) in [
        (0, 1),
        (1, 1),
        (100, 100),
        (1_000_000, limits::BATCH_RECORDS_MAX),
    ] {
        let mut bench = Bench::with(|settings| settings.batch_records_max = configured).at(5);
        assert_eq!(bench.read_bounds().0, read);
    }
    let mut bench = Bench::with(|settings| settings.batch_bytes_max = 70_000).at(5);
    assert_eq!(bench.read_bounds().1, 70_000);
}

/// Where it stands, and whether it may end there.
fn ends_at(bench: &mut Bench) -> (Action, bool) {
    let action = bench.asks();
    let stopping = bench.machine.stopping;
    bench.machine.stop();
    let is_end = bench.asks() == Action::Ended;
    bench.machine.stopping = stopping;
    (action, is_end)
}

#[test]
fn it_ends_where_nothing_is_known_that_somebody_else_has_to_know() {
    let mut bench = Bench::with(|_| {});
    let mut at = Vec::new();
    let events = [
        Event::Opened(Ok(())),
        connected(),
        Event::Topics(Ok(false)),
        done(),
        Event::Ends(Ok((2, 7))),
        found(Some(5), 1, 9),
        Event::Passed,
        Event::Looked(looked(9)),
        Event::Passed,
        read(5, &[]),
        Event::Passed,
        Event::Looked(looked(9)),
        read(5, &["a/1", "x"]),
        Event::Buried(Ok(true)),
        done(),
        Event::HandedOver(Ok(true)),
        Event::Progress(Ok((0, false))),
        Event::Deliveries(vec![Delivery::Delivered; 2]),
        Event::Done(Err(failed(Remedy::Abort))),
        done(),
    ];
    for event in events {
        at.push(ends_at(&mut bench));
        if let (Action::Pause(pause), true) = (bench.asks(), matches!(event, Event::Passed)) {
            bench.now += pause;
        }
        bench.machine.done(event, bench.now);
    }
    at.push(ends_at(&mut bench));
    for (action, is_end) in at {
        let expected = !matches!(
            action,
            Action::Bury
                | Action::Begin
                | Action::HandOver { .. }
                | Action::Await
                | Action::Collect
                | Action::Commit
                | Action::Abort
                | Action::Release { .. }
        );
        assert_eq!(is_end, expected, "{action:?}");
    }
}

#[test]
fn a_pause_lasts_until_its_end_however_often_it_is_asked_for() {
    let mut bench = Bench::with(|_| {});
    bench.step(Action::Open, Event::Opened(Err("no broker".into())));
    let whole = limits::BACKOFF_MIN;
    let part = whole / 5;
    bench.step(Action::Pause(whole), Event::Passed);
    bench.now += part;
    bench.step(Action::Pause(whole - part), Event::Passed);
    bench.now += whole - part;
    assert_eq!(bench.asks(), Action::Open);
}
