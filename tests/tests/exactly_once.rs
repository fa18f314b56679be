//! G2 and G3 from a client's PUBLISH to Kafka's committed log, with the real
//! processes: every acknowledged record stands there once and in order, whatever
//! is killed or cut, and the negative controls show that the tests would notice.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use risiti_sim::link::{Link, LinkProfile, Stalls};
use risiti_tests::asked::seed;
use risiti_tests::fleet::{ClientSpec, Fleet, Kind};
use risiti_tests::gateway_process::{KillAt, ProcessSwitches};
use risiti_tests::ledger::{Verdict, assert_exactly_once};
use risiti_tests::turn::turn;
use risiti_tests::upward::Upward;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(180);

fn assert_sessions_kept(fleet: &Fleet) {
    let counts = fleet.counts();
    println!("{counts:?}");
    assert_eq!(counts.sessions_lost.load(Relaxed), 0);
    assert_eq!(counts.wrong_pubacks.load(Relaxed), 0);
}

/// 2G in fast motion: several records of a client are on the way at any moment,
/// and whatever is on the way is cut off every few seconds.
fn bad_link() -> LinkProfile {
    LinkProfile {
        round_trip: Duration::from_millis(5),
        jitter: Duration::from_millis(20),
        stalls: Some(Stalls {
            probability: 0.005,
            shortest: Duration::from_millis(50),
            longest: Duration::from_millis(500),
        }),
        cut_after_mean: Some(Duration::from_secs(4)),
        ..LinkProfile::perfect()
    }
}

#[test]
fn g2_g3_under_20_kills_and_two_stops_of_kafka() {
    const RECORDS: u64 = 100_000;
    const CLIENTS: u64 = 50;
    let _turn = turn();
    let seed = seed();
    let mut chance = fastrand::Rng::with_seed(seed);
    let Upward {
        mut gateway,
        mut kafka,
        dir,
    } = Upward::start(ProcessSwitches::default()).unwrap();
    let mut specs = ClientSpec::mixed("c", CLIENTS as usize, RECORDS / CLIENTS);
    // Half of them are near, half behind a link that delays, stalls and drops.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let link = runtime
        .block_on(async { Link::start(gateway.mqtt_addr(), bad_link(), chance.u64(..)).unwrap() });
    for (n, spec) in specs.iter_mut().enumerate() {
        spec.per_second = Some(chance.f64() * 20.0 + 40.0);
        spec.through = (n % 4 < 2).then_some(link.addr());
    }
    let mut fleet = Fleet::start(gateway.mqtt_addr(), specs, chance.u64(..)).unwrap();

    // Moments of progress, so that every kill meets traffic however fast the
    // machine is; some milliseconds on top, so that none is bound to a PUBACK.
    let mut moments: Vec<u64> = (0..20).map(|_| chance.u64(1..RECORDS * 95 / 100)).collect();
    moments.sort_unstable();
    let kafka_moments = [RECORDS / 4, RECORDS * 6 / 10];
    std::thread::scope(|scope| {
        let fleet = &fleet;
        scope.spawn(|| {
            for moment in kafka_moments {
                assert!(fleet.wait_acknowledged(moment, LONG));
                kafka.stop();
                std::thread::sleep(Duration::from_secs(10));
                kafka.start_again().unwrap();
            }
        });
        for moment in moments {
            assert!(fleet.wait_acknowledged(moment, LONG));
            std::thread::sleep(Duration::from_micros(chance.u64(0..30_000)));
            gateway.kill();
            // A kill in the middle of opening and of its first commit, too.
            if chance.u8(0..3) == 0 {
                let after = Duration::from_millis(chance.u64(0..150));
                gateway.kill_while_starting(after).unwrap();
            }
            gateway.restart().unwrap();
        }
    });
    assert!(fleet.wait_done(LONG), "{:?}", fleet.counts());
    println!("{:?}", link.counts());
    let upward = Upward {
        gateway,
        kafka,
        dir,
    };
    assert_sessions_kept(&fleet);
    assert_exactly_once(&upward.verdict(&fleet).unwrap(), RECORDS);
}

/// Every window is full at every kill.
fn at_full_speed(records: u64, subscribed: bool) {
    let seed = seed();
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut upward = Upward::start(ProcessSwitches::default()).unwrap();
    let address = upward.gateway.mqtt_addr();
    let subscriber = subscribed.then(|| Subscriber::start(address));
    let specs = ClientSpec::mixed("c", 50, records / 50);
    let mut fleet = Fleet::start(address, specs, chance.u64(..)).unwrap();
    let mut kills = 0;
    while fleet.acknowledged() < records * 9 / 10 {
        let more = fleet.acknowledged() + chance.u64(1..records / 10);
        assert!(fleet.wait_acknowledged(more.min(records * 9 / 10), LONG));
        upward.gateway.kill();
        upward.gateway.restart().unwrap();
        kills += 1;
    }
    println!("{kills} kills");
    assert!(fleet.wait_done(LONG), "{:?}", fleet.counts());
    assert_sessions_kept(&fleet);
    assert_exactly_once(&upward.verdict(&fleet).unwrap(), records);
    if let Some(subscriber) = subscriber {
        println!("{} seen by a subscriber", subscriber.end());
    }
}

#[test]
fn g2_g3_under_kills_at_full_speed() {
    let _turn = turn();
    at_full_speed(200_000, false);
}

/// With a subscriber a record goes another way through the gateway.
#[test]
fn g2_g3_under_kills_with_a_subscriber_to_everything() {
    let _turn = turn();
    at_full_speed(50_000, true);
}

/// A client that subscribes to all records, with a persistent session.
struct Subscriber {
    runtime: tokio::runtime::Runtime,
    seen: tokio::task::JoinHandle<()>,
    count: std::sync::Arc<AtomicU64>,
}

impl Subscriber {
    fn start(gateway: SocketAddr) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let count = std::sync::Arc::new(AtomicU64::new(0));
        let counter = count.clone();
        let (subscribed, is_subscribed) = std::sync::mpsc::channel();
        let seen = runtime.spawn(async move {
            let mut options = rumqttc::MqttOptions::new("subscriber", "127.0.0.1", gateway.port());
            options.set_clean_session(false);
            let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
            for filter in ["t/+/records", "raw/#"] {
                client
                    .subscribe(filter, rumqttc::QoS::AtLeastOnce)
                    .await
                    .unwrap();
            }
            loop {
                use rumqttc::{Event, Packet};
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(_))) => {
                        counter.fetch_add(1, Relaxed);
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        let _ = subscribed.send(());
                    }
                    Ok(_) => {}
                    // The gateway was killed; it comes back.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        is_subscribed.recv_timeout(LONG).unwrap();
        is_subscribed.recv_timeout(LONG).unwrap();
        Self {
            runtime,
            seen,
            count,
        }
    }

    fn end(self) -> u64 {
        self.seen.abort();
        self.runtime.shutdown_background();
        self.count.load(Relaxed)
    }
}

/// Kills the gateway between the commit of a batch and its knowing so, again and
/// again, and lets it finish.
fn killed_after_commits(position_outside_transaction: bool) -> (Verdict, u64) {
    const RECORDS: u64 = 10_000;
    let switches = |kill_at| ProcessSwitches {
        position_outside_transaction,
        kill_at,
        ..ProcessSwitches::default()
    };
    let mut upward = Upward::start(switches(Some(KillAt::AfterCommit(1)))).unwrap();
    let specs = ClientSpec::mixed("c", 10, RECORDS / 10);
    let mut fleet = Fleet::start(upward.gateway.mqtt_addr(), specs, 1).unwrap();
    for _ in 0..3 {
        upward.gateway.wait_exit(LONG).unwrap();
        upward.gateway.restart().unwrap();
    }
    upward.gateway.set_switches(switches(None));
    upward.gateway.restart().unwrap();
    assert!(fleet.wait_done(LONG));
    (upward.verdict(&fleet).unwrap(), RECORDS)
}

#[test]
fn g2_a_kill_between_commit_and_knowing_repeats_nothing() {
    let _turn = turn();
    let (verdict, records) = killed_after_commits(false);
    assert_exactly_once(&verdict, records);
}

#[test]
fn control_with_the_position_outside_the_transaction_that_kill_duplicates() {
    let _turn = turn();
    let (verdict, records) = killed_after_commits(true);
    println!("{verdict}");
    assert!(verdict.duplicated > 0, "{verdict}");
    assert_eq!((verdict.lost, verdict.in_kafka), (0, records));
}

/// Every client loses every 50th PUBACK with its connection, and sends again.
fn pubacks_lost(without_dedup: bool) -> (Verdict, Fleet, u64) {
    const RECORDS: u64 = 10_000;
    let upward = Upward::start(ProcessSwitches {
        without_dedup,
        ..ProcessSwitches::default()
    })
    .unwrap();
    let mut specs = ClientSpec::mixed("c", 10, RECORDS / 10);
    for spec in &mut specs {
        spec.puback_lost_every = Some(50);
        // At QoS 2 the session itself knows the identifier: no control of dedup.
        if without_dedup && spec.kind == Kind::RawQos2 {
            spec.kind = Kind::Raw;
        }
    }
    let mut fleet = Fleet::start(upward.gateway.mqtt_addr(), specs, 1).unwrap();
    assert!(fleet.wait_done(LONG), "{:?}", fleet.counts());
    (upward.verdict(&fleet).unwrap(), fleet, RECORDS)
}

#[test]
fn g2_a_lost_puback_repeats_nothing() {
    let _turn = turn();
    let (verdict, fleet, records) = pubacks_lost(false);
    assert_sessions_kept(&fleet);
    assert!(fleet.counts().pubacks_lost.load(Relaxed) >= records / 50);
    assert_exactly_once(&verdict, records);
}

#[test]
fn control_without_dedup_a_lost_puback_duplicates() {
    let _turn = turn();
    let (verdict, fleet, records) = pubacks_lost(true);
    println!("{verdict}");
    // Its PUBACK was on the way, so each of these was durable before.
    assert!(verdict.duplicated >= fleet.counts().pubacks_lost.load(Relaxed));
    assert_eq!((verdict.lost, verdict.in_kafka), (0, records));
}
