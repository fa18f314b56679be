//! What was found broken in `rumqttd`'s own listener does not break here.

use std::collections::HashSet;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use risiti_tests::wire_client::{Connect, Message, Packet, Value, Wire, property};

use crate::house::{House, VERSIONS};

/// Many times what the router keeps of a topic. The publisher stays within the
/// 1,000 messages that the gateway holds for a live subscriber.
#[test]
fn a_burst_far_beyond_any_window_arrives_whole_and_in_order() -> io::Result<()> {
    const BURST: usize = 5_000;
    const AHEAD_MAX: usize = 150;
    let house = House::new();
    for (version, payload_bytes) in [(4, 5), (5, 5), (4, 3_000), (5, 300)] {
        let mut hears = house.clean(version, "hears")?;
        hears.subscribe(&[("burst", 1)])?;
        let addr = house.addr();
        let (took, taken) = mpsc::channel();
        let speaks = std::thread::spawn(move || -> io::Result<()> {
            let mut speaks = Wire::accepted(addr, &Connect::clean(version, "speaks"))?;
            let (mut acknowledged, mut sent, mut ahead) = (0, 0, 0);
            while acknowledged < BURST {
                while sent < BURST && sent - acknowledged < 60 {
                    ahead -= taken.try_iter().count();
                    if ahead == AHEAD_MAX {
                        taken.recv().unwrap();
                        ahead -= 1;
                    }
                    let id = speaks.next_id();
                    let payload = format!("{sent:0payload_bytes$}");
                    speaks.send_publish(&Message::new("burst", payload, 1).id(id))?;
                    sent += 1;
                    ahead += 1;
                }
                match speaks.recv()? {
                    Packet::PubAck(_, 0) => acknowledged += 1,
                    other => panic!("{other:?}"),
                }
            }
            Ok(())
        });
        for n in 0..BURST {
            assert_eq!(hears.take()?.text(), format!("{n:0payload_bytes$}"));
            // The publisher may have sent its last.
            let _ = took.send(());
        }
        speaks.join().unwrap()?;
    }
    assert_eq!(house.broker().fanout().skipped(), 0);
    Ok(())
}

#[test]
fn a_topic_that_starts_with_a_non_ascii_character_is_a_topic() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let mut hears = house.clean(version, "hears")?;
        hears.subscribe(&[("ñandú/+", 1), ("☃", 1), ("$share/ü/é", 1)])?;
        let mut speaks = house.clean(version, "speaks")?;
        for topic in ["ñandú/a", "☃", "é"] {
            speaks.publish(&Message::new(topic, "x", 1))?;
            assert_eq!(hears.take()?.topic, topic);
        }
    }
    Ok(())
}

#[test]
fn a_disconnect_in_the_middle_of_a_burst_harms_nobody() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let mut innocent = house.clean(version, "innocent")?;
        innocent.subscribe(&[("a/#", 1)])?;
        for round in 0..50 {
            let mut hasty = house.clean(version, &format!("hasty-{round}"))?;
            hasty.subscribe(&[("a/#", 1)])?;
            let mut bytes = Vec::new();
            for id in 1..=20 {
                bytes.extend(hasty.publish_bytes(&Message::new("a/b", "x", 1).id(id)));
            }
            bytes.extend([0xE0, 0]);
            hasty.send_raw(&bytes)?;
        }
        for _ in 0..50 * 20 {
            assert_eq!(innocent.take()?.topic, "a/b");
        }
        innocent.ping()?;
    }
    Ok(())
}

/// Whoever closes with something unread resets the connection. What it had sent before
/// is here all the same, and is not thrown away because no answer can be written.
#[test]
fn what_was_sent_before_a_reset_is_taken() -> io::Result<()> {
    const BURST: u16 = 60; // within the Receive Maximum
    let house = House::new();
    for version in VERSIONS {
        let mut hears = house.clean(version, "hears")?;
        hears.subscribe(&[("a/#", 1)])?;
        for qos in [0, 1] {
            for round in 0..20 {
                let mut hasty = Wire::open(house.addr(), version)?;
                hasty.send_connect(&Connect::clean(version, &format!("hasty-{round}")))?;
                hasty.stream().peek(&mut [0])?; // its CONNACK stays unread
                // More than the gateway reads at a time, behind something it answers.
                let mut bytes = vec![0xC0, 0];
                for id in 1..=BURST {
                    let message = Message::new("a/b", format!("{id:0600}"), qos).id(id);
                    bytes.extend(hasty.publish_bytes(&message));
                }
                bytes.extend([0xE0, 0]);
                hasty.send_raw(&bytes)?;
                drop(hasty);
                for id in 1..=BURST {
                    assert_eq!(hears.take()?.text(), format!("{id:0600}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_last_persistent_member_of_a_share_may_leave() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let id = format!("member-{version}");
        let mut member = house.client(&Connect::persistent(version, &id))?;
        member.subscribe(&[("$share/g/work", 1)])?;
        member.disconnect()?;
        let mut member = house.client(&Connect::persistent(version, &id))?;
        member.unsubscribe(&["$share/g/work"])?;
        member.disconnect()?;
        let mut other = house.clean(version, "other")?;
        other.subscribe(&[("$share/g/work", 1)])?;
        let mut speaks = house.clean(version, "speaks")?;
        speaks.publish(&Message::new("work", "x", 1))?;
        assert_eq!(other.take()?.text(), "x");
    }
    Ok(())
}

#[test]
fn a_client_identifier_that_was_refused_connects_when_it_does_it_right() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        // Refused: its will is on a topic of the server's own.
        let wrong = Connect::clean(version, "again").will(Message::new("$SYS/x", "x", 0));
        for _ in 0..3 {
            let (mut wire, ack) = Wire::connect(house.addr(), &wrong).or_else(|e| {
                // 3.1.1 has no return code for it: closed without CONNACK.
                if e.kind() == io::ErrorKind::UnexpectedEof && version == 4 {
                    Ok((Wire::open(house.addr(), 4)?, Default::default()))
                } else {
                    Err(e)
                }
            })?;
            if version == 5 {
                assert_eq!(ack.code, 0x90);
                wire.ended()?;
            }
        }
        let mut right = house.clean(version, "again")?;
        right.ping()?;
    }
    Ok(())
}

#[test]
fn a_silent_peer_keeps_nobody_out_and_is_closed_in_time() -> io::Result<()> {
    let house = House::with(|config| config.mqtt.limits.connect_timeout_s = 1);
    let silent = (0..20)
        .map(|_| TcpStream::connect(house.addr()))
        .collect::<io::Result<Vec<_>>>()?;
    let mut half = Wire::open(house.addr(), 4)?;
    half.send_raw(&[0x10, 0x20, 0, 4, b'M'])?;
    house.clean(5, "other")?.ping()?;
    house.clean(4, "other")?.ping()?;
    for stream in silent {
        assert!(Wire::over(stream, 4).ended()?.is_none());
    }
    assert!(half.ended()?.is_none());
    Ok(())
}

#[test]
fn packets_that_only_a_server_sends_close_that_connection_only() -> io::Result<()> {
    let house = House::new();
    let mut innocent = house.clean(5, "innocent")?;
    // Before CONNECT: no packet is owed.
    for bytes in [
        &[0xb2, 0x01, 0x00, 0x32][..],
        &[0x20, 0x02, 0x00, 0x00],
        &[0x20, 0x03, 0x00, 0x00, 0x00],
        &[0xd0, 0x00],
        &[0x90, 0x03, 0x00, 0x01, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x00, 0x00],
    ] {
        let mut wire = Wire::open(house.addr(), 5)?;
        wire.send_raw(bytes)?;
        wire.ended()?;
        // After it: the reason is told.
        let mut wire = house.clean(5, "guilty")?;
        wire.send_raw(bytes)?;
        let (code, _) = wire.ended()?.expect("a v5 client is told why");
        assert!([0x81, 0x82].contains(&code), "{code:#x} for {bytes:x?}");
        let mut wire = house.clean(4, "guilty")?;
        wire.send_raw(bytes)?;
        assert!(wire.ended()?.is_none());
        innocent.ping()?;
    }
    Ok(())
}

/// The pattern of a battery terminal, 6,000 times.
#[test]
fn no_innocent_is_cut_off_nor_given_a_false_will_by_6000_short_connections() -> io::Result<()> {
    const CYCLES: usize = 6_000;
    let house = House::new();
    let will = Message::new("wills/innocent", "false", 1);
    let mut innocent = house.client(&Connect::clean(5, "innocent").will(will))?;
    innocent.subscribe(&[("cycle", 1)])?;
    let mut witness = house.clean(4, "witness")?;
    witness.subscribe(&[("wills/#", 1)])?;
    let addr = house.addr();
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            std::thread::spawn(move || -> io::Result<()> {
                for n in 0..CYCLES / 3 {
                    let version = if n % 2 == 0 { 4 } else { 5 };
                    let id = format!("terminal-{thread}-{}", n % 50);
                    let mut wire = Wire::accepted(addr, &Connect::clean(version, &id))?;
                    if n % 7 == 0 {
                        wire.subscribe(&[("cycle/other", 1)])?;
                    }
                    wire.publish(&Message::new("cycle", "x", 1))?;
                    match n % 3 {
                        0 => wire.disconnect()?,
                        1 => wire.send_raw(&[0xE0, 0])?,
                        _ => wire.stream().shutdown(Shutdown::Both)?,
                    }
                }
                Ok(())
            })
        })
        .collect();
    for _ in 0..CYCLES {
        assert_eq!(innocent.take()?.topic, "cycle");
    }
    for thread in threads {
        thread.join().unwrap()?;
    }
    innocent.nothing_came()?;
    witness.nothing_came()?;
    house.until("every short connection's session is gone", || {
        house.broker().sessions() == 2 && house.broker().filters() == 2
    });
    house.until("no link is left behind", || {
        house.broker().fanout().links() <= 2
    });
    // And where it is true, the will comes.
    innocent.stream().shutdown(Shutdown::Both)?;
    assert_eq!(witness.take()?.topic, "wills/innocent");
    Ok(())
}

#[test]
fn a_v5_publish_with_properties_reaches_v311_subscribers_without_them() -> io::Result<()> {
    let house = House::new();
    let mut old = house.clean(4, "old")?;
    old.subscribe(&[("p", 2)])?;
    let mut kept = house.client(&Connect::persistent(4, "kept"))?;
    kept.subscribe(&[("p", 2)])?;
    let mut speaks = house.clean(5, "speaks")?;
    for qos in 0..=2 {
        let message = Message::new("p", "x", qos)
            .with(property::USER_PROPERTY, Value::Pair("k".into(), "v".into()))
            .with(property::CONTENT_TYPE, Value::Text("text/plain".into()))
            .with(property::CORRELATION_DATA, Value::Binary(vec![0, 1]))
            .with(property::MESSAGE_EXPIRY, Value::Four(60));
        speaks.publish(&message)?;
        for wire in [&mut old, &mut kept] {
            let got = wire.take()?;
            assert_eq!((got.text().as_str(), got.qos), ("x", qos));
        }
    }
    Ok(())
}

/// Two seconds of traffic to a client that says nothing: a keep alive of one
/// second must end it although the gateway is busy writing to it.
#[test]
fn keep_alive_ends_a_silent_client_while_traffic_flows_out() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let mut silent = house.client(&Connect::clean(version, "silent").keep_alive_s(1))?;
        silent.subscribe(&[("flow", 0)])?;
        let addr = house.addr();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let speaks = std::thread::spawn(move || -> io::Result<()> {
            let mut speaks = Wire::accepted(addr, &Connect::clean(4, "speaks"))?;
            while stopped.recv_timeout(Duration::from_millis(50)).is_err() {
                speaks.publish(&Message::new("flow", "x", 0))?;
            }
            Ok(())
        });
        let said = silent.ended()?;
        assert_eq!(said.map(|(code, _)| code), (version == 5).then_some(0x8D));
        stop.send(()).unwrap();
        speaks.join().unwrap()?;
    }
    Ok(())
}

#[test]
fn a_restart_keeps_sessions_queues_and_retained_messages() -> io::Result<()> {
    let mut house = House::new();
    for version in VERSIONS {
        let mut away = house.client(&Connect::persistent(version, &format!("away-{version}")))?;
        away.subscribe(&[("queue/#", 2)])?;
        away.disconnect()?;
    }
    let mut speaks = house.clean(5, "speaks")?;
    for n in 0..300u32 {
        speaks.publish(&Message::new("queue/a", n.to_string(), 1 + (n % 2) as u8))?;
    }
    speaks.publish(&Message::new("kept/a", "1", 1).retained())?;
    speaks.publish(&Message::new("kept/b", "2", 1).retained())?;
    speaks.publish(&Message::new("kept/a", "", 1).retained())?;
    house.restart();
    for version in VERSIONS {
        let connect = Connect::persistent(version, &format!("away-{version}"));
        let (mut away, ack) = Wire::connect(house.addr(), &connect)?;
        assert!(ack.session_present);
        let mut ids = HashSet::new();
        for n in 0..300u32 {
            let got = loop {
                match away.recv()? {
                    Packet::Publish(message) => break message,
                    Packet::PubRel(id, _) => away.pubcomp(id)?,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!((got.text(), got.qos), (n.to_string(), 1 + (n % 2) as u8));
            ids.insert(got.packet_id);
            if got.qos == 1 {
                away.puback(got.packet_id)?;
            } else {
                away.pubrec(got.packet_id)?;
            }
        }
        assert_eq!(ids.len(), 300);
        let mut fresh = house.clean(version, "fresh")?;
        fresh.subscribe(&[("kept/#", 1)])?;
        let got = fresh.take()?;
        assert_eq!((got.topic.as_str(), got.retain), ("kept/b", true));
        fresh.nothing_came()?;
    }
    Ok(())
}
