//! `make bench-attack`: what honest terminals wait for PUBACK while others attack.
//!
//! Promises: calm and each attack are measured in turn, round after round, on the same
//! gateway and machine, so a figure is a ratio of one run; the attackers keep on for as
//! long as it is measured, and how often they got through is told. Never: a verdict; it
//! is no test (those are in `tests/tests/access/hostile.rs`).

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use risiti_bridge::EmbeddedCluster;
use risiti_gateway::access::token;
use risiti_tests::bench::frame;
use risiti_tests::bench::gateway::{Gateway, TOPICS};
use risiti_tests::bench::sample::{Figures, Sample, latency_units, median};
use risiti_tests::carrier;
use risiti_tests::wire_client::{Connect, Message, Packet, Wire};
use serde::Serialize;

/// PUBACKs of honest terminals, in calm and under attack.
#[derive(Debug, Parser)]
struct Options {
    /// Seconds measured for each attack in each round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Honest terminals.
    #[arg(long, default_value_t = 20)]
    terminals: usize,
    /// Payments of all of them in a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Connections of an attacker.
    #[arg(long, default_value_t = 8)]
    attackers: usize,
    /// Where to work and to leave `attack.json`.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
}

const HONEST: &str = "honest-token-0123456789";
const ATTACKER: &str = "attacker-token-0123456789";

/// From where attackers come: rates are kept for each address.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What somebody does to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Attack {
    /// Nobody does anything.
    Calm,
    /// PUBLISHes of an identity, as many as the sockets take.
    Flood,
    /// Connections that send a byte of their CONNECT now and then.
    SlowLoris,
    /// Connections opened and cut, as fast as they can be.
    ReconnectStorm,
    /// Subscriptions to everything that is allowed, and gone again.
    SubscriptionBomb,
    /// Logins with tokens that are guessed.
    Guesses,
}

const ATTACKS: [Attack; 6] = [
    Attack::Calm,
    Attack::Flood,
    Attack::SlowLoris,
    Attack::ReconnectStorm,
    Attack::SubscriptionBomb,
    Attack::Guesses,
];

/// One attack's figures.
#[derive(Debug, Serialize)]
struct Row {
    attack: Attack,
    p50_ms: f64,
    p99_ms: f64,
    /// Of p99, to that of the calm of the same round.
    p99_to_calm: f64,
    /// What the attackers got through with in a second.
    acts_per_s: f64,
}

fn main() -> ExitCode {
    frame::end(run(&Options::parse()))
}

fn run(options: &Options) -> io::Result<()> {
    let work = frame::work_dir(&options.dir, "attack")?;
    let cluster = EmbeddedCluster::start().map_err(io::Error::other)?;
    for topic in TOPICS {
        cluster.create_topic(topic, 4).map_err(io::Error::other)?;
    }
    let gateway = Gateway::start_with(
        &frame::risiti()?,
        &work,
        cluster.bootstrap(),
        &configuration(),
    )?;
    let mut measured: Vec<Vec<(Figures, f64)>> = vec![Vec::new(); ATTACKS.len()];
    for round in 0..options.rounds.max(1) {
        for (attack, figures) in ATTACKS.iter().zip(&mut measured) {
            let one = measure(&gateway, *attack, options)?;
            eprintln!(
                "round {}: {attack:?}: p50 {:.2} ms, p99 {:.2} ms, {:.0} acts/s",
                round + 1,
                one.0.p50_ms,
                one.0.p99_ms,
                one.1
            );
            figures.push(one);
        }
    }
    let calm = measured[0].clone();
    let rows: Vec<Row> = ATTACKS
        .iter()
        .zip(&measured)
        .map(|(attack, rounds)| {
            let of = |pick: fn(&(Figures, f64)) -> f64| median(rounds.iter().map(pick).collect());
            let ratios = rounds.iter().zip(&calm);
            Row {
                attack: *attack,
                p50_ms: of(|(figures, _)| figures.p50_ms),
                p99_ms: of(|(figures, _)| figures.p99_ms),
                p99_to_calm: median(ratios.map(|(a, b)| a.0.p99_ms / b.0.p99_ms).collect()),
                acts_per_s: of(|(_, acts)| *acts),
            }
        })
        .collect();
    println!("| attack | PUBACK p50, ms | p99, ms | p99 to calm | got through, a second |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for row in &rows {
        println!(
            "| {:?} | {:.2} | {:.2} | {:.2} | {:.0} |",
            row.attack, row.p50_ms, row.p99_ms, row.p99_to_calm, row.acts_per_s
        );
    }
    frame::leave(&rows, &options.dir.join("attack.json"))
}

/// Behind the table of Kafka: identities for both, and the load's route.
fn configuration() -> String {
    let digest = |text: &str| token::digest(text.as_bytes()).to_hex();
    format!(
        r#"create_topics = false
[[routes]]
name = "bench"
filter = "bench/+/records"
topic = "bench.records"
key = "level:2"
format = "raw"
[access]
anonymous = "none"
[[access.users]]
name = "honest"
token_sha256 = "{}"
[[access.users]]
name = "attacker"
token_sha256 = "{}"
[[access.rules]]
who = "user:honest"
may = ["publish"]
filter = "bench/+/records"
[[access.rules]]
who = "user:attacker"
may = ["publish", "subscribe"]
filter = "attack/#"
"#,
        digest(HONEST),
        digest(ATTACKER)
    )
}

/// The honest ones' figures while that goes on, and the attackers' acts a second.
fn measure(gateway: &Gateway, attack: Attack, options: &Options) -> io::Result<(Figures, f64)> {
    let addr = gateway.address();
    let (over, acts) = (AtomicBool::new(false), AtomicU64::new(0));
    let (figures, seconds) = std::thread::scope(|scope| {
        for number in 0..options.attackers {
            let (over, acts) = (&over, &acts);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // Whoever is closed or refused begins again.
                    let _ = act(addr, attack, number, over, acts);
                }
            });
        }
        // The attack is under way when it is measured.
        std::thread::sleep(Duration::from_millis(500));
        let before = (acts.load(Ordering::Relaxed), Instant::now());
        let figures = honest(addr, options);
        let seconds = before.1.elapsed().as_secs_f64();
        acts.fetch_sub(before.0, Ordering::Relaxed);
        over.store(true, Ordering::Relaxed);
        (figures, seconds)
    });
    let done = acts.load(Ordering::Relaxed) as f64 / seconds;
    // What this attack has left is not the next one's.
    gateway.drain()?;
    Ok((figures?, done))
}

/// Payments at an even pace, one terminal after the other.
fn honest(addr: SocketAddr, options: &Options) -> io::Result<Figures> {
    let mut terminals = Vec::new();
    for number in 0..options.terminals.max(1) {
        let connect = Connect::clean(5, &format!("honest-{number}"));
        terminals.push(Wire::accepted(
            addr,
            &connect.login(Some("honest"), HONEST),
        )?);
    }
    let pace = Duration::from_secs(1) / options.rate.max(1);
    let mut sample = Sample {
        elapsed: Duration::from_secs_f64(options.seconds),
        ..Sample::default()
    };
    let began = Instant::now();
    let count = (options.seconds * f64::from(options.rate)) as u32;
    for n in 0..count {
        let due = began + pace * n;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let number = n as usize % terminals.len();
        let topic = format!("bench/{number:05}/records");
        terminals[number].publish(&Message::new(&topic, [7; 40], 1))?;
        // From when it was due: who waits for a turn waits too.
        sample.latencies.push(latency_units(due.elapsed()));
        sample.acks += 1;
    }
    Ok(Figures::of(sample))
}

/// A connection of an attacker.
fn attacker(addr: SocketAddr, connect: &Connect) -> io::Result<Wire> {
    let (wire, ack) = Wire::connect_over(carrier::tcp_from(ELSEWHERE, addr)?, connect)?;
    match ack.code {
        0 => Ok(wire),
        _ => Err(io::Error::other(format!("refused: {ack:?}"))),
    }
}

/// One attacker's turn, until it is refused or it is over.
fn act(
    addr: SocketAddr,
    attack: Attack,
    number: usize,
    over: &AtomicBool,
    acts: &AtomicU64,
) -> io::Result<()> {
    let goes_on = || !over.load(Ordering::Relaxed);
    let done = || {
        acts.fetch_add(1, Ordering::Relaxed);
    };
    let client_id = format!("attacker-{number}");
    let connect = Connect::clean(5, &client_id).login(Some("attacker"), ATTACKER);
    match attack {
        Attack::Calm => {
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        }
        Attack::Flood => {
            let mut wire = attacker(addr, &connect)?;
            let message = Message::new("attack/flood", [7; 200], 1);
            let mut id = 0_u16;
            for _ in 0..64 {
                id += 1;
                wire.send_publish(&message.clone().id(id))?;
            }
            while goes_on() {
                match wire.recv_within(Duration::from_millis(100)) {
                    Ok(Some(Packet::PubAck(..))) => {
                        done();
                        id = id.checked_add(1).unwrap_or(1);
                        wire.send_publish(&message.clone().id(id))?;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    // Left unread.
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }
        Attack::SlowLoris => {
            let mut slow: Vec<TcpStream> = Vec::new();
            for _ in 0..64 {
                slow.push(carrier::tcp_from(ELSEWHERE, addr)?);
            }
            for byte in [0x10, 0x20, 0x00, 0x04, b'M', b'Q', b'T', b'T'] {
                for stream in &mut slow {
                    stream.write_all(&[byte])?;
                    done();
                }
                if !goes_on() {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        }
        Attack::ReconnectStorm => {
            let _ = attacker(addr, &connect)?;
            done();
            Ok(())
        }
        Attack::SubscriptionBomb => {
            let mut wire = attacker(addr, &connect)?;
            let filters: Vec<String> = (0..32).map(|n| format!("attack/+/{n}/#")).collect();
            let filters: Vec<(&str, u8)> = filters.iter().map(|f| (f.as_str(), 1)).collect();
            while goes_on() {
                wire.subscribe(&filters)?;
                let names: Vec<&str> = filters.iter().map(|(filter, _)| *filter).collect();
                wire.unsubscribe(&names)?;
                done();
            }
            Ok(())
        }
        Attack::Guesses => {
            let guess = format!("guess-{}", fastrand::u64(..));
            let connect = Connect::clean(5, "x").login(Some("honest"), guess);
            let _ = Wire::connect_over(carrier::tcp_from(ELSEWHERE, addr)?, &connect)?;
            done();
            Ok(())
        }
    }
}
