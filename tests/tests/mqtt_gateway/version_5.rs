//! What MQTT 5.0 adds: properties, options, reasons.

use std::io;
use std::net::Shutdown;

use risiti_tests::wire_client::{Connect, Message, Packet, Property, Value, Wire, property};

use crate::house::{AS_PUBLISHED, House, NO_LOCAL, NO_RETAINED, ONLY_IF_NEW};

#[test]
fn everything_a_publisher_says_of_its_message_reaches_v5_subscribers_unchanged() -> io::Result<()> {
    let house = House::new();
    let mut live = house.clean(5, "live")?;
    live.subscribe(&[("p", 2)])?;
    let mut kept = house.client(&Connect::persistent(5, "kept"))?;
    kept.subscribe(&[("p", 2)])?;
    let mut shared = house.clean(5, "shared")?;
    shared.subscribe(&[("$share/g/p", 2)])?;
    let mut speaks = house.clean(5, "speaks")?;
    let said = [
        Property(property::PAYLOAD_FORMAT, Value::Byte(1)),
        Property(property::CONTENT_TYPE, Value::Text("text/plain".into())),
        Property(property::RESPONSE_TOPIC, Value::Text("answers/1".into())),
        Property(
            property::CORRELATION_DATA,
            Value::Binary(vec![0, 255, 1, 2]),
        ),
        Property(
            property::USER_PROPERTY,
            Value::Pair("b".into(), "first".into()),
        ),
        Property(property::USER_PROPERTY, Value::Pair("a".into(), "ü".into())),
        Property(
            property::USER_PROPERTY,
            Value::Pair("b".into(), "first".into()),
        ),
    ];
    for qos in 0..=2 {
        let mut message = Message::new("p", "x", qos);
        message.properties = said.to_vec();
        speaks.publish(&message)?;
        for wire in [&mut live, &mut kept, &mut shared] {
            let mut got = wire.take()?.properties;
            let mut wanted = said.to_vec();
            // Only user properties have an order.
            got.sort_by_key(|p| p.0);
            wanted.sort_by_key(|p| p.0);
            assert_eq!(got, wanted);
        }
    }
    Ok(())
}

#[test]
fn no_more_is_in_flight_to_a_client_than_its_receive_maximum() -> io::Result<()> {
    let house = House::new();
    for connect in [Connect::clean(5, "clean"), Connect::persistent(5, "kept")] {
        let connect = connect.with(property::RECEIVE_MAXIMUM, Value::Two(3));
        let mut wire = house.client(&connect)?;
        wire.subscribe(&[("a", 2)])?;
        let mut speaks = house.clean(5, "speaks")?;
        for n in 0..10u8 {
            speaks.publish(&Message::new("a", n.to_string(), 1 + n % 2))?;
        }
        let mut held = Vec::new();
        for n in 0..10 {
            if held.len() == 3 {
                // No fourth comes until one of them is done.
                wire.nothing_came()?;
                let first: Message = held.remove(0);
                wire.acknowledge(&first)?;
            }
            let got = wire.message()?;
            assert_eq!(got.text(), n.to_string());
            held.push(got);
        }
    }
    Ok(())
}

#[test]
fn a_client_that_exceeds_our_receive_maximum_is_told_and_closed() -> io::Result<()> {
    let house = House::with(|config| config.mqtt.limits.receive_maximum = 4);
    let (mut wire, ack) = Wire::connect(house.addr(), &Connect::clean(5, "c"))?;
    assert_eq!(
        ack.property(property::RECEIVE_MAXIMUM),
        Some(&Value::Two(4))
    );
    // QoS 2 counts until PUBCOMP.
    for id in 1..=5 {
        wire.send_publish(&Message::new("a", "x", 2).id(id))?;
    }
    assert_eq!(wire.ended()?.unwrap().0, 0x93);
    Ok(())
}

#[test]
fn a_packet_beyond_our_maximum_closes_its_connection_only() -> io::Result<()> {
    let house = House::with(|config| {
        config.mqtt.limits.packet_bytes_max = risiti_config::ByteSize::kib(4);
    });
    let mut innocent = house.clean(5, "innocent")?;
    for version in [4, 5] {
        let (mut wire, ack) = Wire::connect(house.addr(), &Connect::clean(version, "c"))?;
        if version == 5 {
            assert_eq!(
                ack.property(property::PACKET_BYTES_MAX),
                Some(&Value::Four(4_096))
            );
        }
        let overhead = wire.publish_bytes(&Message::new("a", "", 1)).len() + 1;
        wire.publish(&Message::new("a", vec![0; 4_096 - overhead], 1))?;
        // Only the head: the gateway does not wait for what it will not take.
        let bytes = wire.publish_bytes(&Message::new("a", vec![0; 5_000], 1));
        wire.send_raw(&bytes[..4])?;
        let said = wire.ended()?;
        assert_eq!(said.map(|(code, _)| code), (version == 5).then_some(0x95));
        innocent.ping()?;
    }
    Ok(())
}

#[test]
fn what_is_larger_than_a_client_takes_is_left_out_and_the_rest_comes() -> io::Result<()> {
    let house = House::new();
    for connect in [Connect::clean(5, "clean"), Connect::persistent(5, "kept")] {
        let connect = connect.with(property::PACKET_BYTES_MAX, Value::Four(200));
        let mut wire = house.client(&connect)?;
        wire.subscribe(&[("a", 1)])?;
        let mut speaks = house.clean(5, "speaks")?;
        for payload in ["one", &"x".repeat(300), "two"] {
            speaks.publish(&Message::new("a", payload, 1))?;
        }
        assert_eq!(wire.take()?.text(), "one");
        assert_eq!(wire.take()?.text(), "two");
        wire.nothing_came()?;
    }
    Ok(())
}

#[test]
fn topic_aliases_work_in_both_directions_and_die_with_the_connection() -> io::Result<()> {
    let house = House::with(|config| config.mqtt.limits.topic_alias_maximum = 2);
    let connect = Connect::persistent(5, "c").with(property::TOPIC_ALIAS_MAXIMUM, Value::Two(1));
    let (mut wire, ack) = Wire::connect(house.addr(), &connect)?;
    assert_eq!(
        ack.property(property::TOPIC_ALIAS_MAXIMUM),
        Some(&Value::Two(2))
    );
    wire.subscribe(&[("topic/+", 0)])?;
    let alias = |topic: &str, alias| {
        Message::new(topic, "x", 0).with(property::TOPIC_ALIAS, Value::Two(alias))
    };
    for (message, sent_as, with_alias) in [
        (alias("topic/1", 1), "topic/1", true),
        (alias("", 1), "", true),
        (alias("topic/2", 1), "topic/2", false),
        (alias("", 1), "topic/2", false),
        (alias("topic/1", 2), "", true),
    ] {
        wire.publish(&message)?;
        let got = wire.take()?;
        assert_eq!(got.topic, sent_as);
        let wanted = with_alias.then_some(&Value::Two(1));
        assert_eq!(got.property(property::TOPIC_ALIAS), wanted);
    }
    wire.send_publish(&alias("topic/3", 3))?;
    assert_eq!(wire.ended()?.unwrap().0, 0x94);
    let mut wire = house.client(&connect)?;
    wire.send_publish(&alias("", 1))?;
    assert_eq!(wire.ended()?.unwrap().0, 0x82);
    Ok(())
}

#[test]
fn a_message_expires_in_its_queue_and_its_age_is_told() -> io::Result<()> {
    let house = House::with_clock(|_| {});
    let clock = house.clock.clone().unwrap();
    let connect = Connect::persistent(5, "away");
    let mut wire = house.client(&connect)?;
    wire.subscribe(&[("a", 1)])?;
    wire.disconnect()?;
    let expiring = |text: &str, seconds| {
        Message::new("a", text, 1).with(property::MESSAGE_EXPIRY, Value::Four(seconds))
    };
    let mut speaks = house.clean(5, "speaks")?;
    speaks.publish(&expiring("short", 10))?;
    speaks.publish(&expiring("long", 60))?;
    speaks.publish(&expiring("kept", 60).retained())?;
    clock.advance_ms(10_000);
    let mut wire = house.client(&connect)?;
    for text in ["long", "kept"] {
        let got = wire.take()?;
        assert_eq!(got.text(), text);
        assert_eq!(
            got.property(property::MESSAGE_EXPIRY),
            Some(&Value::Four(50))
        );
    }
    wire.nothing_came()?;
    // The retained one, too.
    clock.advance_ms(49_000);
    let mut fresh = house.clean(5, "fresh")?;
    fresh.subscribe(&[("a", 1)])?;
    assert_eq!(
        fresh.take()?.property(property::MESSAGE_EXPIRY),
        Some(&Value::Four(1))
    );
    clock.advance_ms(1_000);
    fresh.subscribe(&[("a", 1)])?;
    fresh.nothing_came()?;
    house.until("the expired one is removed", || {
        house.broker().retained() == 0
    });
    Ok(())
}

#[test]
fn subscription_identifiers_come_with_what_they_matched() -> io::Result<()> {
    let house = House::new();
    let id = |n| [Property(property::SUBSCRIPTION_ID, Value::Variable(n))];
    for connect in [Connect::clean(5, "clean"), Connect::persistent(5, "kept")] {
        let kept = !connect.clean;
        let mut wire = house.client(&connect)?;
        wire.subscribe_with(&[("a/+", 1)], &id(1))?;
        wire.subscribe_with(&[("a/#", 1)], &id(268_435_455))?;
        wire.subscribe_with(&[("a/b", 0)], &[])?;
        let mut speaks = house.clean(5, "speaks")?;
        speaks.publish(&Message::new("a/b", "x", 1))?;
        // One copy with all, or one for each subscription: both are right.
        let mut ids = Vec::new();
        for _ in 0..if kept { 1 } else { 3 } {
            let got = wire.take()?;
            for Property(id, value) in got.properties {
                assert_eq!(id, property::SUBSCRIPTION_ID);
                ids.push(value);
            }
        }
        wire.nothing_came()?;
        ids.sort_by_key(|v| format!("{v:?}"));
        assert_eq!(ids, [Value::Variable(1), Value::Variable(268_435_455)]);
        // Subscribing anew replaces the identifier.
        wire.subscribe_with(&[("a/+", 1)], &id(5))?;
        speaks.publish(&Message::new("a/c", "x", 1))?;
        let mut ids = Vec::new();
        for _ in 0..if kept { 1 } else { 2 } {
            ids.extend(wire.take()?.properties.into_iter().map(|p| p.1));
        }
        assert!(ids.contains(&Value::Variable(5)) && !ids.contains(&Value::Variable(1)));
        // Zero is none.
        wire.send_subscribe(&[("z", 0)], &id(0))?;
        assert_eq!(wire.ended()?.unwrap().0, 0x82);
    }
    Ok(())
}

#[test]
fn subscription_options_are_heeded() -> io::Result<()> {
    let house = House::new();
    for connect in [Connect::clean(5, "clean"), Connect::persistent(5, "kept")] {
        let mut wire = house.client(&connect)?;
        let mut speaks = house.clean(5, "speaks")?;
        speaks.publish(&Message::new("kept", "old", 1).retained())?;
        // Retain handling: 2 never, 1 only if new, 0 always.
        wire.subscribe(&[("kept", 1 | NO_RETAINED)])?;
        wire.nothing_came()?;
        wire.unsubscribe(&["kept"])?;
        wire.subscribe(&[("kept", 1 | ONLY_IF_NEW)])?;
        let got = wire.take()?;
        assert_eq!((got.text().as_str(), got.retain), ("old", true));
        wire.subscribe(&[("kept", 1 | ONLY_IF_NEW)])?;
        wire.nothing_came()?;
        wire.subscribe(&[("kept", 1)])?;
        assert!(wire.take()?.retain);
        // Retain as published, and not.
        speaks.publish(&Message::new("kept", "new", 1).retained())?;
        assert!(!wire.take()?.retain);
        wire.subscribe(&[("kept", 1 | NO_RETAINED | AS_PUBLISHED)])?;
        speaks.publish(&Message::new("kept", "new", 1).retained())?;
        assert!(wire.take()?.retain);
        speaks.publish(&Message::new("kept", "new", 1))?;
        assert!(!wire.take()?.retain);
        // No local.
        wire.subscribe(&[("mine", 1 | NO_LOCAL), ("also mine", 1)])?;
        wire.send_publish(&Message::new("mine", "x", 0))?;
        wire.nothing_came()?;
        wire.send_publish(&Message::new("also mine", "x", 0))?;
        assert_eq!(wire.take()?.topic, "also mine");
        speaks.publish(&Message::new("mine", "x", 1))?;
        assert_eq!(wire.take()?.topic, "mine");
        speaks.publish(&Message::new("kept", "", 1).retained())?;
    }
    // No local on a share is a protocol error.
    let mut wire = house.clean(5, "share")?;
    wire.send_subscribe(&[("$share/g/a", NO_LOCAL)], &[])?;
    assert_eq!(wire.ended()?.unwrap().0, 0x82);
    Ok(())
}

#[test]
fn overlapping_subscriptions_of_a_persistent_session_give_one_copy_at_the_highest_qos()
-> io::Result<()> {
    let house = House::new();
    for version in [4, 5] {
        let mut wire = house.client(&Connect::persistent(version, &format!("c{version}")))?;
        wire.subscribe(&[("o/#", 0), ("o/+", 2), ("o/a", 1)])?;
        house
            .clean(5, "speaks")?
            .publish(&Message::new("o/a", "x", 2))?;
        assert_eq!(wire.take()?.qos, 2);
        wire.nothing_came()?;
    }
    Ok(())
}

#[test]
fn a_share_gives_each_message_to_one_member_and_waits_for_those_that_are_away() -> io::Result<()> {
    let house = House::new();
    for version in [4, 5] {
        let group = format!("$share/g/work/{version}");
        let topic = format!("work/{version}");
        let mut members = Vec::new();
        for n in 0..3 {
            let id = format!("member-{version}-{n}");
            let mut member = house.client(&Connect::persistent(version, &id))?;
            member.subscribe(&[(&group, 1)])?;
            members.push(member);
        }
        let mut speaks = house.clean(5, "speaks")?;
        for n in 0..9 {
            speaks.publish(&Message::new(&topic, n.to_string(), 1))?;
        }
        let mut all = Vec::new();
        for member in &mut members {
            for _ in 0..3 {
                all.push(member.take()?.text());
            }
            member.nothing_came()?;
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 9);
        // One away: the others get all.
        members.remove(0).disconnect()?;
        for n in 0..4 {
            speaks.publish(&Message::new(&topic, n.to_string(), 1))?;
        }
        for member in &mut members {
            member.take()?;
            member.take()?;
        }
        // All away: kept for them.
        for member in members {
            member.disconnect()?;
        }
        for n in 0..3 {
            speaks.publish(&Message::new(&topic, format!("kept {n}"), 1))?;
        }
        let mut all = Vec::new();
        for n in 0..3 {
            let id = format!("member-{version}-{n}");
            let mut member = house.client(&Connect::persistent(version, &id))?;
            all.push(member.take()?.text());
            member.nothing_came()?;
        }
        all.sort();
        assert_eq!(all, ["kept 0", "kept 1", "kept 2"]);
    }
    Ok(())
}

#[test]
fn refusals_say_why_unless_the_client_wants_no_reasons() -> io::Result<()> {
    let house = House::new();
    for wants in [true, false] {
        let connect = Connect::clean(5, "c").with(0x17, Value::Byte(wants.into()));
        let mut wire = house.client(&connect)?;
        wire.send_publish(&Message::new("$SYS/x", "x", 1).id(1))?;
        assert_eq!(wire.recv()?, Packet::PubAck(1, 0x87));
        wire.send_publish(
            &Message::new("a", [0xFF], 1)
                .id(2)
                .with(property::PAYLOAD_FORMAT, Value::Byte(1)),
        )?;
        assert_eq!(wire.recv()?, Packet::PubAck(2, 0x99));
        wire.send_publish(&Message::new("nobody", "x", 1).id(3))?;
        assert_eq!(wire.recv()?, Packet::PubAck(3, 0x10));
        // DISCONNECT may always explain.
        wire.send_raw(&[0xF5, 0])?;
        let (code, properties) = wire.ended()?.unwrap();
        assert!([0x81, 0x82].contains(&code));
        assert!(properties.iter().any(|p| p.0 == property::REASON_STRING));
    }
    // 3.1.1 has no way to say no to a PUBLISH: the connection is closed.
    let mut old = house.clean(4, "old")?;
    old.send_publish(&Message::new("$SYS/x", "x", 1).id(1))?;
    assert!(old.ended()?.is_none());
    Ok(())
}

#[test]
fn a_keep_alive_longer_than_allowed_is_shortened_and_told() -> io::Result<()> {
    let house = House::with(|config| config.mqtt.limits.keepalive_s_max = 60);
    for asked in [0, 61, 600] {
        let (_wire, ack) =
            Wire::connect(house.addr(), &Connect::clean(5, "c").keep_alive_s(asked))?;
        assert_eq!(
            ack.property(property::SERVER_KEEP_ALIVE),
            Some(&Value::Two(60))
        );
    }
    let (_wire, ack) = Wire::connect(house.addr(), &Connect::clean(5, "c").keep_alive_s(60))?;
    assert_eq!(ack.property(property::SERVER_KEEP_ALIVE), None);
    Ok(())
}

#[test]
fn a_malformed_packet_closes_its_connection_and_leaves_the_session() -> io::Result<()> {
    let house = House::new();
    let mut innocent = house.clean(5, "innocent")?;
    innocent.subscribe(&[("will", 1)])?;
    let faults: &[&[u8]] = &[
        &[0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01], // QoS 3
        &[0x32, 0x06, 0x00, 0x01, b'a', 0x00, 0x00, 0x00], // identifier 0
        &[0x30, 0x04, 0x00, 0x01, b'#', 0x00],       // wildcard in a topic
        &[0x30, 0x05, 0x00, 0x02, 0xC3, 0x28, 0x00], // not UTF-8
        &[0x30, 0x04, 0x00, 0x01, 0x00, 0x00],       // U+0000
        &[0x80, 0x07, 0x00, 0x01, 0x00, 0x00, 0x01, b'a', 0x00], // SUBSCRIBE flags
        &[0x82, 0x03, 0x00, 0x01, 0x00],             // no filter
        &[
            0x82, 0x09, 0x00, 0x01, 0x00, 0x00, 0x03, b'a', b'#', b'b', 0x00,
        ], // bad filter
        &[0x10, 0x00],                               // a second CONNECT
        &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01],       // length of five bytes
        &[0x32, 0x07, 0x00, 0x01, b'a', 0x00, 0x01, 0x05, 0x26], // properties cut short
    ];
    for (n, bytes) in faults.iter().enumerate() {
        let id = format!("guilty-{n}");
        let connect = Connect::persistent(5, &id).will(Message::new("will", &id, 1));
        let mut wire = house.client(&connect)?;
        wire.send_raw(bytes)?;
        let (code, _) = wire.ended()?.expect("it is told");
        assert!(code >= 0x80, "{bytes:x?}");
        assert_eq!(innocent.take()?.text(), id);
        let (_, ack) = Wire::connect(house.addr(), &connect)?;
        assert!(ack.session_present);
        assert_eq!(innocent.take()?.text(), id, "the second connection's");
    }
    // A connection that ends inside a packet is only that.
    let mut wire = house.clean(4, "cut")?;
    wire.send_raw(&[0x30, 0x7F, 0x00])?;
    wire.stream().shutdown(Shutdown::Both)?;
    innocent.ping()
}

/// A client in full flow does not lose the reason to a reset.
#[test]
fn a_client_that_goes_on_sending_still_reads_why_it_was_closed() -> io::Result<()> {
    let house = House::with(|config| config.mqtt.limits.receive_maximum = 4);
    for _ in 0..20 {
        let mut wire = house.clean(5, "c")?;
        let mut bytes = Vec::new();
        for id in 1..=2_000 {
            bytes.extend(wire.publish_bytes(&Message::new("a", "x", 2).id(id)));
        }
        wire.send_raw(&bytes)?;
        assert_eq!(wire.ended()?.expect("it is told").0, 0x93);
    }
    Ok(())
}
