//! Wills: when they come, and when they must not.

use std::io;
use std::net::Shutdown;

use risiti_tests::wire_client::{Connect, Message, Value, Wire, property};

use crate::house::{House, VERSIONS};

fn will(text: &str) -> Message {
    Message::new("will", text, 1)
}

fn delayed(text: &str, seconds: u32) -> Message {
    will(text).with(property::WILL_DELAY, Value::Four(seconds))
}

#[test]
fn a_lost_connection_leaves_a_will_and_a_goodbye_does_not() -> io::Result<()> {
    let house = House::new();
    let mut witness = house.clean(5, "witness")?;
    witness.subscribe(&[("will", 1)])?;
    for version in VERSIONS {
        house
            .client(&Connect::clean(version, "good").will(will("false")))?
            .disconnect()?;
        let lost = house.client(&Connect::clean(version, "lost").will(will("lost")))?;
        lost.stream().shutdown(Shutdown::Both)?;
        assert_eq!(witness.take()?.text(), "lost");
        let mut wrong = house.client(&Connect::clean(version, "wrong").will(will("wrong")))?;
        wrong.send_raw(&[0xF3, 0])?;
        assert_eq!(witness.take()?.text(), "wrong");
    }
    let mut asked = house.client(&Connect::clean(5, "asked").will(will("asked")))?;
    asked.send_raw(&[0xE0, 1, 0x04])?;
    assert_eq!(witness.take()?.text(), "asked");
    witness.nothing_came()
}

#[test]
fn a_will_is_retained_if_it_says_so_and_keeps_its_properties() -> io::Result<()> {
    let house = House::new();
    let message = Message::new("status", "gone", 1)
        .retained()
        .with(property::USER_PROPERTY, Value::Pair("k".into(), "v".into()))
        .with(property::CONTENT_TYPE, Value::Text("t".into()));
    let lost = house.client(&Connect::clean(5, "lost").will(message))?;
    lost.stream().shutdown(Shutdown::Both)?;
    house.until("the will is retained", || house.broker().retained() == 1);
    let mut later = house.clean(5, "later")?;
    later.subscribe(&[("status", 1)])?;
    let got = later.take()?;
    assert!(got.retain);
    assert_eq!(
        got.property(property::USER_PROPERTY),
        Some(&Value::Pair("k".into(), "v".into()))
    );
    assert_eq!(
        got.property(property::CONTENT_TYPE),
        Some(&Value::Text("t".into()))
    );
    Ok(())
}

#[test]
fn a_delayed_will_waits_and_is_void_if_its_client_is_back_in_time() -> io::Result<()> {
    let house = House::with_clock(|_| {});
    let clock = house.clock.clone().unwrap();
    let mut witness = house.clean(5, "witness")?;
    witness.subscribe(&[("will", 1)])?;
    let connect = Connect::persistent(5, "c");
    for text in ["void", "due"] {
        let lost = house.client(&connect.clone().will(delayed(text, 60)))?;
        lost.stream().shutdown(Shutdown::Both)?;
        house.until("the connection is gone", || {
            house.broker().connections() == 1
        });
        clock.advance_ms(59_000);
        house.broker().publish_due_wills();
        witness.nothing_came()?;
        if text == "void" {
            let back = house.client(&connect)?;
            clock.advance_ms(10_000);
            house.broker().publish_due_wills();
            witness.nothing_came()?;
            back.disconnect()?;
        }
    }
    clock.advance_ms(1_000);
    assert_eq!(witness.take()?.text(), "due");
    Ok(())
}

#[test]
fn the_sessions_end_is_the_latest_for_a_will() -> io::Result<()> {
    let house = House::with_clock(|_| {});
    let clock = house.clock.clone().unwrap();
    let mut witness = house.clean(5, "witness")?;
    witness.subscribe(&[("will", 1)])?;
    // The session ends before the delay does …
    let connect = Connect::persistent(5, "c").with(property::SESSION_EXPIRY, Value::Four(10));
    let lost = house.client(&connect.clone().will(delayed("expired", 60)))?;
    lost.stream().shutdown(Shutdown::Both)?;
    house.until("the connection is gone", || {
        house.broker().connections() == 1
    });
    clock.advance_ms(10_000);
    assert_eq!(witness.take()?.text(), "expired");
    // … by a clean start …
    let lost = house.client(&connect.clone().will(delayed("replaced", 60)))?;
    lost.stream().shutdown(Shutdown::Both)?;
    house.until("the connection is gone", || {
        house.broker().connections() == 1
    });
    house.clean(5, "c")?.disconnect()?;
    assert_eq!(witness.take()?.text(), "replaced");
    // … or with its connection.
    let lost = house.client(&Connect::clean(5, "c").will(delayed("clean", 60)))?;
    lost.stream().shutdown(Shutdown::Both)?;
    assert_eq!(witness.take()?.text(), "clean");
    Ok(())
}

#[test]
fn a_takeover_publishes_the_will_unless_the_session_goes_on_within_its_delay() -> io::Result<()> {
    let house = House::new();
    let mut witness = house.clean(5, "witness")?;
    witness.subscribe(&[("will", 1)])?;
    for (connect, will, comes) in [
        (Connect::clean(4, "a"), will("4 clean"), true),
        (Connect::clean(5, "b"), delayed("5 clean", 60), true),
        (Connect::persistent(4, "c"), will("4 kept"), true),
        (Connect::persistent(5, "d"), will("5 kept"), true),
        (Connect::persistent(5, "e"), delayed("5 delayed", 60), false),
    ] {
        let text = will.text();
        let mut first = house.client(&connect.clone().will(will))?;
        let second = house.client(&connect)?;
        first.ended()?;
        if comes {
            assert_eq!(witness.take()?.text(), text);
        }
        second.disconnect()?;
        witness.nothing_came()?;
    }
    Ok(())
}

#[test]
fn a_will_on_a_records_topic_is_a_record() -> io::Result<()> {
    let house = House::new();
    let before = house.gateway().journal().end();
    let message = Message::new("records/status", "gone", 1);
    let lost = house.client(&Connect::clean(5, "lost").will(message))?;
    lost.stream().shutdown(Shutdown::Both)?;
    use risiti_store::RecordSource;
    house.until("the record is durable", || {
        house.gateway().journal().end() == before + 1
    });
    Ok(())
}

#[test]
fn a_refused_connect_leaves_no_will() -> io::Result<()> {
    let house = House::new();
    let mut witness = house.clean(5, "witness")?;
    witness.subscribe(&[("will", 1)])?;
    let (mut wire, ack) = Wire::connect(
        house.addr(),
        &Connect::persistent(4, "").will(will("refused")),
    )?;
    assert_eq!(ack.code, 2);
    wire.ended()?;
    witness.nothing_came()
}
