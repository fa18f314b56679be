//! Hostile clients, while honest ones go on: a flood, a storm of connections, slow
//! ones, and whoever subscribes to everything.
//!
//! The clock stands, so what a rate grants is exact; that a client is left unread
//! shows in the order of what others are told, not in a time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use risiti_config::{ByteSize, Config};
use risiti_gateway::clock::ManualClock;
use risiti_tests::wire_client::{Connect, Message, Packet, Wire};

use crate::house::House;
use crate::site::{client, identified, identities};

/// As many as a rate grants at once, for each a second.
const BURST: u64 = risiti_gateway::limits::RATE_BURST_S;

fn house(change: fn(&mut Config)) -> House {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    House::of(change, |_| {}, Some(clock))
}

fn advance(house: &House, ms: u64) {
    house.clock.as_ref().unwrap().advance_ms(ms);
}

/// Whether nothing has come, without waiting for it.
fn is_silent(wire: &Wire) -> bool {
    wire.stream().set_nonblocking(true).unwrap();
    let peeked = wire.stream().peek(&mut [0]);
    wire.stream().set_nonblocking(false).unwrap();
    matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Honest work of a terminal: each message acknowledged in its turn.
fn goes_on(wire: &mut Wire, rounds: usize) {
    for n in 0..rounds {
        wire.publish(&Message::new("t/7/status", format!("{n}"), 1))
            .unwrap();
    }
}

#[test]
fn g9_a_flood_is_left_unread_and_honest_terminals_go_on() -> io::Result<()> {
    let house = house(|config| {
        identities(config);
        config.access.rates.publishes_per_identity_per_s_max = 5;
    });
    let flood = |id: &str| {
        let connect = identified(Connect::clean(5, id), "ops");
        Wire::accepted(house.addr(), &connect).unwrap()
    };
    let message = Message::new("cmd/ops/x", "flood", 1);
    let (mut first, mut second) = (flood("first"), flood("second"));
    // What is granted at once, and one more that is owed.
    for _ in 0..=BURST * 5 {
        first.publish(&message)?;
    }
    first.send_publish(&message.clone().id(9))?;
    // The measure is the identity's, over all its connections.
    second.publish(&message)?;
    second.send_publish(&message.clone().id(9))?;
    let mut seven = client(house.addr(), 5, "7");
    let mut eight = client(house.addr(), 4, "8");
    goes_on(&mut seven, 40);
    eight.ping()?;
    assert!(is_silent(&first) && is_silent(&second));
    // It waits for as long as it owes, and nothing is lost.
    advance(&house, 1_000);
    for wire in [&mut first, &mut second] {
        assert!(matches!(wire.recv()?, Packet::PubAck(9, code) if code < 0x80));
    }
    Ok(())
}

/// Without rates both are read for as long as they send.
#[test]
fn control_g9_without_a_rate_a_flood_is_taken() -> io::Result<()> {
    let house = house(|config| {
        identities(config);
        config.access.rates.publishes_per_identity_per_s_max = 0;
        config.access.rates.bytes_per_identity_per_s_max = ByteSize::ZERO;
        config.access.rates.connects_per_address_per_s_max = 0;
    });
    let mut floods = client(house.addr(), 5, "ops");
    for _ in 0..=BURST * 5 + 1 {
        floods.publish(&Message::new("cmd/ops/x", vec![b'x'; 40_000], 1))?;
    }
    for n in 0..BURST * 5 + 20 {
        Wire::accepted(house.addr(), &Connect::clean(5, &format!("storm-{n}")))?;
    }
    Ok(())
}

#[test]
fn g9_bytes_count_as_well_as_messages() -> io::Result<()> {
    let house = house(|config| {
        identities(config);
        config.access.rates.bytes_per_identity_per_s_max = ByteSize::kib(1);
    });
    let mut floods = client(house.addr(), 5, "ops");
    // One message may owe more than there is.
    floods.publish(&Message::new("cmd/ops/x", vec![b'x'; 40_000], 1))?;
    floods.send_publish(&Message::new("cmd/ops/x", "more", 1).id(9))?;
    let mut seven = client(house.addr(), 5, "7");
    goes_on(&mut seven, 20);
    assert!(is_silent(&floods));
    advance(&house, 60_000);
    assert!(matches!(floods.recv()?, Packet::PubAck(9, _)));
    Ok(())
}

#[test]
fn g9_a_storm_of_connections_from_one_address_ends_none_that_is_there() -> io::Result<()> {
    let house = house(|config| {
        identities(config);
        config.access.rates.connects_per_address_per_s_max = 5;
    });
    let mut seven = client(house.addr(), 5, "7");
    let mut refused = 0;
    let mut open = Vec::new();
    for n in 0..BURST * 5 + 20 {
        // Closed before a word was said.
        match Wire::connect(house.addr(), &Connect::clean(5, &format!("storm-{n}"))) {
            Ok((wire, ack)) => {
                assert_eq!(ack.code, 0);
                open.push(wire);
            }
            Err(_) => refused += 1,
        }
    }
    assert_eq!((open.len() as u64, refused), (BURST * 5 - 1, 21));
    goes_on(&mut seven, 20);
    advance(&house, 200);
    client(house.addr(), 5, "8").ping()
}

#[test]
fn an_identity_that_connects_too_often_waits_and_no_other_does() -> io::Result<()> {
    let house = house(|config| {
        identities(config);
        config.access.rates.connects_per_identity_per_s_max = 1;
    });
    let connect = |version| identified(Connect::clean(version, "7"), "7");
    for _ in 0..BURST {
        Wire::accepted(house.addr(), &connect(5))?.disconnect()?;
    }
    for (version, code) in [(5, 0x9f), (4, 3)] {
        let (_, ack) = Wire::connect(house.addr(), &connect(version))?;
        assert_eq!(ack.code, code);
    }
    client(house.addr(), 5, "8").ping()?;
    // Who guesses its token takes nothing of what it may.
    advance(&house, 1_000);
    for _ in 0..3 {
        let guess = connect(5).login(None, "guess");
        assert_eq!(Wire::connect(house.addr(), &guess)?.1.code, 0x86);
    }
    Wire::accepted(house.addr(), &connect(5))?.ping()
}

#[test]
fn g9_slow_clients_keep_nobody_out_and_are_closed_in_time() -> io::Result<()> {
    let house = house(identities);
    let mut slow: Vec<_> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect(house.addr()).unwrap();
            // A CONNECT that never comes to its end, each cut off elsewhere.
            let begun = b"\x10\x7f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x70";
            stream.write_all(&begun[..n % begun.len()]).unwrap();
            stream
        })
        .collect();
    house.until("they are there", || house.broker().connections() == 200);
    let mut seven = client(house.addr(), 5, "7");
    goes_on(&mut seven, 20);
    let timeout_s = house.broker().limits().connect_timeout_s;
    advance(&house, u64::from(timeout_s) * 1_000);
    // A byte more makes it look at the clock; without one it does so by itself.
    for stream in &mut slow {
        let _ = stream.write_all(b"x");
    }
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
    }
    goes_on(&mut seven, 20);
    Ok(())
}

#[test]
fn g9_who_subscribes_to_everything_is_bounded_and_others_get_their_messages() -> io::Result<()> {
    let house = house(identities);
    let mut bombs: Vec<_> = (0..4)
        .map(|n| {
            let connect = identified(Connect::persistent(5, &format!("bomb-{n}")), "auditor");
            Wire::accepted(house.addr(), &connect).unwrap()
        })
        .collect();
    for (n, bomb) in bombs.iter_mut().enumerate() {
        let mut granted = 0;
        for round in 0..10 {
            let filters: Vec<_> = (0..20).map(|i| format!("+/{n}/{round}/{i}/#")).collect();
            let asked: Vec<_> = filters.iter().map(|f| (f.as_str(), 1)).collect();
            for code in bomb.subscribe(&asked)? {
                assert!(code == 1 || code == 0x97, "{code}");
                granted += u32::from(code == 1);
            }
        }
        let most = house.broker().limits().subscriptions_per_session_max;
        assert_eq!(granted, most);
    }
    let mut ops = client(house.addr(), 5, "ops");
    ops.subscribe(&[("t/+/status", 1)])?;
    let mut seven = client(house.addr(), 5, "7");
    for n in 0..50 {
        seven.publish(&Message::new("t/7/status", format!("{n}"), 1))?;
        assert_eq!(ops.take()?.text(), n.to_string(), "each, in order");
    }
    Ok(())
}
