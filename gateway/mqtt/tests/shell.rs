//! What the shell around a connection relies on, beside the bytes on the wire.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

mod support;

use bytes::{Bytes, BytesMut};
use risiti_mqtt::{Accept, Connection, ConnectionLimits, Event, ReasonCode, Version};
use support::notation::bytes;
use support::script::{Feeding, Script};

fn open(version: &str) -> Script {
    let mut script = Script::new(Feeding::AllAtOnce);
    script.open(version).unwrap();
    script.connection.release_spare_memory();
    assert_eq!(script.connection.heap_bytes(), 0, "it begins with nothing");
    script
}

#[test]
fn the_version_is_known_from_connect_on() {
    for (protocol_level, version) in [(4, Version::V311), (5, Version::V5)] {
        let mut connection = Connection::new(&ConnectionLimits::default(), 0);
        assert_eq!(connection.version(), None);
        let properties = if protocol_level == 5 { "{}" } else { "" };
        let connect = format!("10{{ 'MQTT' {protocol_level:02x} 02 003c {properties} 'c' }}");
        connection.handle_input(0, &mut BytesMut::from(&bytes(&connect)[..]));
        assert!(matches!(connection.poll_event(), Some(Event::Connect(_))));
        assert_eq!(connection.version(), Some(version));
    }
}

#[test]
fn a_held_publish_stays_unread_while_what_comes_before_it_is_served() {
    let mut script = open("v4");
    let connection = &mut script.connection;
    connection.hold_publishes(true);
    let publish = bytes("32{ 'a' 0007 'x' }");
    let mut input = BytesMut::from(&[&bytes("c000"), &publish[..], &bytes("c000")].concat()[..]);
    connection.handle_input(1, &mut input);
    assert_eq!(connection.transmit().split(), Bytes::from(bytes("d000")));
    assert!(connection.poll_event().is_none());
    assert_eq!(input.len(), publish.len() + 2, "unread from the PUBLISH on");

    connection.hold_publishes(false);
    connection.handle_input(2, &mut input);
    assert!(matches!(
        connection.poll_event(),
        Some(Event::Publish { .. })
    ));
    assert_eq!(connection.transmit().split(), Bytes::from(bytes("d000")));
    assert!(input.is_empty());
}

#[test]
fn it_is_open_from_its_acceptance_until_it_ends() {
    let mut connection = Connection::new(&ConnectionLimits::default(), 0);
    assert!(!connection.is_open());
    let connect = bytes("10{ 'MQTT' 04 02 003c 'c' }");
    connection.handle_input(0, &mut BytesMut::from(&connect[..]));
    assert!(!connection.is_open(), "nobody accepted it yet");
    connection.accept(0, &Accept::default());
    assert!(connection.is_open());
    connection.handle_transport_lost();
    assert!(!connection.is_open());
}

#[test]
fn requests_without_an_answer_are_bounded_and_the_rest_waits_unread() {
    for request in ["82{ 0001 'a' 00 }", "a2{ 0001 'a' }"] {
        let mut connection = open("v4").connection;
        let mut input = BytesMut::from(&bytes(request).repeat(200)[..]);
        let mut handed_on = 0;
        connection.handle_input(0, &mut input);
        while connection.poll_event().is_some() {
            handed_on += 1;
            connection.handle_input(0, &mut input);
        }
        assert!(handed_on > 0 && handed_on < 200, "{handed_on}");
        assert!(!input.is_empty());
    }
}

/// MQTT-3.9.2-1 and MQTT-3.11.2-1: with its text if the client takes a packet of that
/// size, else without.
#[test]
fn an_answer_to_a_request_has_its_text_if_it_fits() {
    let codes = [ReasonCode::Success, ReasonCode::NotAuthorized];
    let with_text = "{ 0001 { 1f 'not yours' } 00 87 }";
    let without = "{ 0001 {} 00 87 }";
    for (first_byte, request) in [
        ("90", "82{ 0001 {} 'a' 00 'b' 00 }"),
        ("b0", "a2{ 0001 {} 'a' 'b' }"),
    ] {
        let whole = bytes(&format!("{first_byte}{with_text}"));
        for (properties, body) in [
            ("".to_owned(), with_text),
            (format!("27 {:08x}", whole.len()), with_text),
            (format!("27 {:08x}", whole.len() - 1), without),
            // MQTT-3.1.2-29: the client asked for none.
            ("17 00".to_owned(), without),
        ] {
            let mut script = open(&format!("v5 {{ {properties} }}"));
            script.send(&bytes(request));
            let connection = &mut script.connection;
            assert!(connection.poll_event().is_some());
            match first_byte {
                "90" => connection.subscribed(1, &codes, Some("not yours")),
                _ => connection.unsubscribed(1, &codes, Some("not yours")),
            }
            let wanted = bytes(&format!("{first_byte}{body}"));
            assert_eq!(script.take_output(), wanted, "{properties}");
        }
    }
}

/// Each part of a connection's memory, filled alone, is counted for what it takes:
/// ten thousand connections are planned by that figure.
mod heap {
    use super::*;

    const MANY: usize = 50;

    fn publishes(script: &mut Script, qos: u8) {
        for packet_id in 1..=MANY {
            let packet_id = match qos {
                0 => String::new(),
                _ => format!("{packet_id:04x}"),
            };
            script.send(&bytes(&format!("3{:x}{{ 'a' {packet_id} }}", qos << 1)));
        }
    }

    fn drain(script: &mut Script) {
        while script.connection.poll_event().is_some() {}
    }

    fn settle_all(script: &mut Script) {
        for token in 0..MANY as u64 {
            let connection = &mut script.connection;
            connection.publish_settled(token, ReasonCode::Success, None);
        }
        script.connection.transmit().clear();
        script.connection.release_spare_memory();
    }

    #[test]
    fn what_is_to_be_written_is_counted() {
        let mut script = open("v4");
        script.send(&bytes("c000"));
        let capacity = script.connection.transmit().capacity();
        assert!(capacity >= 2);
        assert_eq!(script.connection.heap_bytes(), capacity);
    }

    #[test]
    fn events_that_wait_are_counted() {
        let mut script = open("v4");
        publishes(&mut script, 0);
        settle_all(&mut script);
        let bytes = script.connection.heap_bytes();
        assert_eq!(bytes, MANY * size_of::<Event>());
    }

    #[test]
    fn publishes_that_wait_for_the_store_are_counted() {
        let mut script = open("v4");
        publishes(&mut script, 1);
        drain(&mut script);
        script.connection.release_spare_memory();
        // A token each, at the least.
        assert!(script.connection.heap_bytes() >= MANY * size_of::<u64>());
        settle_all(&mut script);
        assert_eq!(script.connection.heap_bytes(), 0);
    }

    #[test]
    fn identifiers_that_wait_for_pubrel_are_counted() {
        let mut script = open("v4");
        publishes(&mut script, 2);
        drain(&mut script);
        settle_all(&mut script);
        let bytes = script.connection.heap_bytes();
        assert!(bytes >= MANY * size_of::<u16>() * 2, "{bytes}");
    }

    #[test]
    fn deliveries_in_flight_are_counted() {
        let mut script = open("v4");
        for packet_id in 1..=MANY {
            let line = format!("deliver id={packet_id} qos=1 topic=t -> Delivered");
            script.step(&line).unwrap();
        }
        script.connection.transmit().clear();
        script.connection.release_spare_memory();
        let held = script.connection.heap_bytes();
        assert!(held >= MANY * size_of::<u16>() * 2, "{held}");

        for packet_id in 1..=MANY {
            script.send(&bytes(&format!("4002 {packet_id:04x}")));
        }
        drain(&mut script);
        script.connection.release_spare_memory();
        assert_eq!(script.connection.heap_bytes(), 0);
    }

    #[test]
    fn topic_aliases_of_both_directions_are_counted() {
        let topic = "a".repeat(100);
        let aliases = 5;
        let least = aliases * (topic.len() + size_of::<Box<str>>());
        // A table grows by doubling, and a string of it may hold more than its text.
        let most = 3 * least;

        let mut script = open("v5");
        for alias in 1..=aliases {
            script.send(&bytes(&format!("30{{ '{topic}' {{ 23 {alias:04x} }} }}")));
        }
        drain(&mut script);
        settle_all(&mut script);
        let bytes = script.connection.heap_bytes();
        assert!(bytes >= least && bytes <= most, "the client's: {bytes}");

        let mut script = open("v5 { 22 0010 }");
        for alias in 1..=aliases {
            let line = format!("deliver qos=0 topic={topic}{alias} -> Delivered");
            script.step(&line).unwrap();
        }
        script.connection.transmit().clear();
        script.connection.release_spare_memory();
        let bytes = script.connection.heap_bytes();
        assert!(bytes >= least && bytes <= most, "ours: {bytes}");
    }
}
