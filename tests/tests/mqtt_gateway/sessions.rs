//! Sessions: clean and persistent, taken over, expired, resumed.

use std::io;

use risiti_tests::wire_client::{Connect, Message, Packet, Property, Value, Wire, property};

use crate::house::{House, VERSIONS};

#[test]
fn a_second_connection_takes_the_session_over_and_the_first_is_told() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        for connect in [
            Connect::clean(version, "clean"),
            Connect::persistent(version, &format!("kept-{version}")),
        ] {
            let mut first = house.client(&connect)?;
            first.subscribe(&[("a", 1)])?;
            let (mut second, ack) = Wire::connect(house.addr(), &connect)?;
            assert_eq!(ack.session_present, !connect.clean);
            let said = first.ended()?.map(|(code, _)| code);
            assert_eq!(said, (version == 5).then_some(0x8E));
            let mut speaks = house.clean(4, "speaks")?;
            speaks.publish(&Message::new("a", "x", 1))?;
            if connect.clean {
                second.nothing_came()?;
            } else {
                assert_eq!(second.take()?.text(), "x");
            }
            second.disconnect()?;
        }
    }
    Ok(())
}

#[test]
fn a_clean_start_discards_what_was_kept() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let kept = Connect::persistent(version, "kept");
        let mut wire = house.client(&kept)?;
        wire.subscribe(&[("a", 1)])?;
        wire.disconnect()?;
        house
            .clean(4, "speaks")?
            .publish(&Message::new("a", "x", 1))?;
        let (wire, ack) = Wire::connect(house.addr(), &Connect::clean(version, "kept"))?;
        assert!(!ack.session_present);
        wire.disconnect()?;
        let (mut wire, ack) = Wire::connect(house.addr(), &kept)?;
        assert!(!ack.session_present);
        wire.nothing_came()?;
        wire.send_raw(&[0xE0, 0])?;
        wire.ended()?;
        house.clean(version, "kept")?.disconnect()?;
    }
    Ok(())
}

#[test]
fn a_session_ends_when_its_expiry_interval_has_passed_and_not_before() -> io::Result<()> {
    let house = House::with_clock(|_| {});
    let clock = house.clock.clone().unwrap();
    let connect = Connect::persistent(5, "c").with(property::SESSION_EXPIRY, Value::Four(60));
    let mut wire = house.client(&connect)?;
    wire.subscribe(&[("a", 1)])?;
    // A connection that stands does not expire.
    clock.advance_ms(1_000_000);
    wire.ping()?;
    wire.disconnect()?;
    clock.advance_ms(59_000);
    let (wire, ack) = Wire::connect(house.addr(), &connect)?;
    assert!(ack.session_present);
    wire.disconnect()?;
    clock.advance_ms(60_000);
    // At once, not when it is next looked for …
    let (wire, ack) = Wire::connect(house.addr(), &connect)?;
    assert!(!ack.session_present);
    wire.disconnect()?;
    // … and also without anybody asking for it.
    clock.advance_ms(60_000);
    house.until("the session expires", || house.broker().sessions() == 0);
    Ok(())
}

/// Reconnected and open for long: the restart must not count from the
/// disconnection before.
#[test]
fn a_session_that_was_open_at_a_restart_has_its_whole_interval_after_it() -> io::Result<()> {
    let mut house = House::with_clock(|_| {});
    let clock = house.clock.clone().unwrap();
    let connect = Connect::persistent(5, "c").with(property::SESSION_EXPIRY, Value::Four(60));
    house.client(&connect)?.disconnect()?;
    house.broker().save_sessions();
    clock.advance_ms(30_000);
    let wire = house.client(&connect)?;
    clock.advance_ms(100_000);
    house.restart();
    drop(wire);
    clock.advance_ms(30_000);
    house.broker().expire_sessions();
    let (_, ack) = Wire::connect(house.addr(), &connect)?;
    assert!(ack.session_present);
    Ok(())
}

#[test]
fn a_clock_that_is_set_ends_no_session() -> io::Result<()> {
    let house = House::with_clock(|_| {});
    let clock = house.clock.clone().unwrap();
    let connect = Connect::persistent(5, "c").with(property::SESSION_EXPIRY, Value::Four(60));
    let mut wire = house.client(&connect)?;
    wire.subscribe(&[("a", 1)])?;
    wire.disconnect()?;
    // A box without a battery wakes in 1970 and hears a time server.
    clock.jump_ms(55 * 365 * 24 * 3_600_000);
    clock.advance_ms(30_000);
    house.broker().expire_sessions();
    let (_wire, ack) = Wire::connect(house.addr(), &connect)?;
    assert!(ack.session_present);
    Ok(())
}

#[test]
fn a_disconnect_may_change_the_expiry_interval_but_not_give_one_to_a_session_without()
-> io::Result<()> {
    let house = House::with_clock(|_| {});
    let clock = house.clock.clone().unwrap();
    let goodbye = |seconds: u32| {
        let mut bytes = vec![0xE0, 7, 0, 5, property::SESSION_EXPIRY];
        bytes.extend(seconds.to_be_bytes());
        bytes
    };
    let connect = Connect::persistent(5, "c").with(property::SESSION_EXPIRY, Value::Four(60));
    let mut wire = house.client(&connect)?;
    wire.send_raw(&goodbye(600))?;
    wire.ended()?;
    clock.advance_ms(599_000);
    let (mut wire, ack) = Wire::connect(house.addr(), &connect)?;
    assert!(ack.session_present);
    wire.send_raw(&goodbye(0))?;
    wire.ended()?;
    let (wire, ack) = Wire::connect(house.addr(), &connect)?;
    assert!(!ack.session_present);
    wire.disconnect()?;
    let mut wire = house.clean(5, "none")?;
    wire.send_raw(&goodbye(60))?;
    assert_eq!(wire.ended()?.unwrap().0, 0x82);
    Ok(())
}

#[test]
fn the_gateway_bounds_the_expiry_interval_and_says_so() -> io::Result<()> {
    let house = House::with(|config| config.mqtt.limits.session_expiry_s_max = 100);
    let connect = Connect::persistent(5, "c").with(property::SESSION_EXPIRY, Value::Four(u32::MAX));
    let (_, ack) = Wire::connect(house.addr(), &connect)?;
    assert_eq!(
        ack.property(property::SESSION_EXPIRY),
        Some(&Value::Four(100))
    );
    Ok(())
}

#[test]
fn what_was_not_acknowledged_comes_again_first_in_order_with_dup_and_its_identifier()
-> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let connect = Connect::persistent(version, &format!("c{version}"));
        let mut wire = house.client(&connect)?;
        wire.subscribe(&[("a", 2)])?;
        let mut speaks = house.clean(5, "speaks")?;
        for (n, qos) in [(0, 1), (1, 2), (2, 1), (3, 2)] {
            speaks.publish(&Message::new("a", n.to_string(), qos))?;
        }
        let first: Vec<_> = (0..4).map(|_| wire.message()).collect::<io::Result<_>>()?;
        assert!(first.iter().all(|m| !m.dup));
        // 2 is acknowledged out of its turn; of 3 only PUBREC is seen.
        wire.puback(first[2].packet_id)?;
        wire.pubrec(first[3].packet_id)?;
        assert_eq!(wire.recv()?, Packet::PubRel(first[3].packet_id, 0));
        wire.disconnect()?;
        speaks.publish(&Message::new("a", "4", 1))?;
        let mut wire = house.client(&connect)?;
        for old in &first[..2] {
            let again = wire.message()?;
            assert_eq!(again, old.clone().again());
        }
        assert_eq!(wire.recv()?, Packet::PubRel(first[3].packet_id, 0));
        let new = wire.message()?;
        assert_eq!((new.text().as_str(), new.dup), ("4", false));
        wire.disconnect()?;
    }
    Ok(())
}

#[test]
fn a_qos_2_message_is_taken_once_however_often_it_is_sent() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        for topic in ["a", "records/a"] {
            let mut hears = house.clean(4, "hears")?;
            hears.subscribe(&[(topic, 2)])?;
            let connect = Connect::persistent(version, &format!("c{version}{topic}"));
            let mut wire = house.client(&connect)?;
            let message = Message::new(topic, "once", 2).id(7);
            wire.send_publish(&message)?;
            assert!(matches!(wire.recv()?, Packet::PubRec(7, 0)));
            assert_eq!(hears.take()?.text(), "once");
            wire.send_publish(&message.clone().again())?;
            assert!(matches!(wire.recv()?, Packet::PubRec(7, _)));
            // Not even over a reconnect, nor after it with another payload.
            wire.disconnect()?;
            let mut wire = house.client(&connect)?;
            wire.send_publish(&message.clone().again())?;
            assert!(matches!(wire.recv()?, Packet::PubRec(7, _)));
            wire.pubrel(7)?;
            assert_eq!(wire.recv()?, Packet::PubComp(7, 0));
            wire.pubrel(7)?;
            assert!(matches!(wire.recv()?, Packet::PubComp(7, _)));
            hears.nothing_came()?;
            // Released: the identifier is free for another message.
            wire.send_publish(&Message::new(topic, "twice", 2).id(7))?;
            assert!(matches!(wire.recv()?, Packet::PubRec(7, 0)));
            assert_eq!(hears.take()?.text(), "twice");
            wire.disconnect()?;
            hears.disconnect()?;
        }
    }
    Ok(())
}

#[test]
fn a_client_without_identifier_gets_one_of_its_own() -> io::Result<()> {
    let house = House::new();
    let (_one, ack) = Wire::connect(house.addr(), &Connect::clean(5, ""))?;
    let Some(Value::Text(first)) = ack.property(property::ASSIGNED_CLIENT_ID).cloned() else {
        panic!("{ack:?}");
    };
    let (_two, ack) = Wire::connect(house.addr(), &Connect::clean(5, ""))?;
    assert_ne!(
        ack.property(property::ASSIGNED_CLIENT_ID),
        Some(&Value::Text(first))
    );
    let mut old = house.clean(4, "")?;
    old.ping()?;
    // Without Clean Session there would be nothing to find the session by.
    let (_, ack) = Wire::connect(house.addr(), &Connect::persistent(4, ""))?;
    assert_eq!(ack.code, 2);
    Ok(())
}

#[test]
fn unsubscribe_ends_delivery_and_tells_whether_there_was_something_to_end() -> io::Result<()> {
    let house = House::new();
    for connect in [Connect::clean(5, "clean"), Connect::persistent(5, "kept")] {
        let mut wire = house.client(&connect)?;
        wire.subscribe(&[("a/+", 1), ("b", 0)])?;
        assert_eq!(wire.unsubscribe(&["a/+", "never"])?, [0, 0x11]);
        let mut speaks = house.clean(5, "speaks")?;
        speaks.publish(&Message::new("a/1", "x", 1))?;
        speaks.publish(&Message::new("b", "y", 1))?;
        assert_eq!(wire.take()?.text(), "y");
        wire.nothing_came()?;
    }
    Ok(())
}

#[test]
fn subscriptions_of_a_persistent_session_need_no_second_subscribe() -> io::Result<()> {
    let mut house = House::new();
    let id = [Property(property::SUBSCRIPTION_ID, Value::Variable(300))];
    let mut wire = house.client(&Connect::persistent(5, "c"))?;
    wire.subscribe_with(&[("a/#", 1)], &id)?;
    house.restart();
    let mut wire = house.client(&Connect::persistent(5, "c"))?;
    house
        .clean(4, "speaks")?
        .publish(&Message::new("a/b", "x", 2))?;
    let got = wire.take()?;
    assert_eq!((got.text().as_str(), got.qos), ("x", 1));
    assert_eq!(
        got.property(property::SUBSCRIPTION_ID),
        Some(&Value::Variable(300))
    );
    Ok(())
}
