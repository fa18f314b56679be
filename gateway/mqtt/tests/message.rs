//! A message and its envelope: what a restart reads back.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

mod support;

use bytes::{Bytes, BytesMut};
use risiti_mqtt::codec::{Packet, decode};
use risiti_mqtt::limits::REASON_STRING_BYTES_MAX;
use risiti_mqtt::{EnvelopeError, Message, Qos, Version};
use support::notation::bytes;
use support::script::{Feeding, Script};

fn whole() -> Message {
    Message {
        topic: "a/b".into(),
        payload: Bytes::from_static(b"hi"),
        qos: Qos::ExactlyOnce,
        retain: true,
        properties: bytes("0101 03 'text' 08 'answers' 09 'id' 26 'k' 'v' 26 'k' 'w'").into(),
        expiry_s: Some(0x0102_0304),
    }
}

#[test]
fn each_property_is_told_by_its_own_name() {
    let message = whole();
    assert_eq!(message.payload_format_indicator(), Some(1));
    assert_eq!(message.content_type(), Some("text"));
    assert_eq!(message.response_topic(), Some("answers"));
    assert_eq!(message.correlation_data(), Some(&b"id"[..]));
    let user: Vec<_> = message.user_properties().collect();
    assert_eq!(user, [("k", "v"), ("k", "w")]);
    assert_eq!(message.properties().count(), 6);

    let bare = Message::new("a", "b");
    assert_eq!(bare.payload_format_indicator(), None);
    assert_eq!(bare.content_type(), None);
    assert_eq!(bare.response_topic(), None);
    assert_eq!(bare.correlation_data(), None);
    assert_eq!(bare.user_properties().count(), 0);
}

#[test]
fn a_payload_is_valid_unless_it_says_text_and_is_none() {
    let message = |properties: &str, payload: &'static [u8]| Message {
        properties: bytes(properties).into(),
        payload: payload.into(),
        ..Message::default()
    };
    assert!(message("0101", b"text").payload_format_is_valid());
    assert!(!message("0101", b"\xff").payload_format_is_valid());
    assert!(message("0100", b"\xff").payload_format_is_valid());
    assert!(message("", b"\xff").payload_format_is_valid());
}

#[test]
fn an_envelope_is_the_bytes_of_its_table() {
    let message = whole();
    let expected = [
        &bytes("01 0e 01020304 'a/b'")[..],
        &(message.properties.len() as u32).to_be_bytes(),
        &message.properties,
        b"hi",
    ]
    .concat();
    assert_eq!(message.encode(), expected);
    assert_eq!(message.encoded_len(), expected.len());
    assert_eq!(Message::decode(&message.encode()), Ok(message));

    let bare = Message::new("a", "b");
    assert_eq!(bare.encode(), bytes("01 00 'a' 00000000 62"));
    assert_eq!(bare.encoded_len(), bare.encode().len());
    assert_eq!(Message::decode(&bare.encode()), Ok(bare));
}

#[test]
fn what_is_no_envelope_is_refused_with_its_reason() {
    let refused = |text: &str| Message::decode(&bytes(text).into()).unwrap_err();
    assert_eq!(refused("02 00 'a' 00000000"), EnvelopeError::Version(2));
    for (text, reason) in [
        ("", "empty"),
        ("01 10 'a' 00000000", "unknown flags"),
        ("01 03 'a' 00000000", "QoS 3"),
        ("01 00 '+' 00000000", "topic is not valid"),
        ("01 00 0001ff 00000000", "topic is not UTF-8"),
        ("01 00 'a' 00000002 2301", "properties are not valid"),
    ] {
        assert_eq!(refused(text), EnvelopeError::Damaged(reason), "{text}");
    }
    let short = EnvelopeError::Damaged("shorter than its lengths say");
    let envelope = whole().encode();
    for length in 1..envelope.len() - whole().payload.len() {
        let cut = Message::decode(&envelope.slice(..length));
        assert_eq!(cut, Err(short), "{length}");
    }
}

#[test]
fn a_copy_is_the_same_message_in_memory_of_its_own() {
    let envelope = whole().encode();
    let read = Message::decode(&envelope).unwrap();
    let copy = read.detach();
    assert_eq!(copy, read);
    let within = |bytes: &Bytes| envelope.as_ptr_range().contains(&bytes.as_ptr());
    assert!(within(&read.payload) && !within(&copy.payload));
    assert!(within(&read.properties) && !within(&copy.properties));
}

/// The common PUBLISH has none or some of them in a row: no copy is made.
#[test]
fn properties_that_lie_side_by_side_stay_where_they_were_read() {
    for (properties, kept, in_place) in [
        (
            "0101 26 'k' 'v' 26 'k' 'w'",
            "0101 26 'k' 'v' 26 'k' 'w'",
            true,
        ),
        ("02 0000003c 0101 03 'text'", "0101 03 'text'", true),
        ("0101 02 0000003c 03 'text'", "0101 03 'text'", false),
        (
            "0101 02 0000003c 03 't' 09 'id'",
            "0101 03 't' 09 'id'",
            false,
        ),
    ] {
        let publish = bytes(&format!("32{{ 'a/b' 0007 {{ {properties} }} \"x\" }}"));
        let mut input = BytesMut::from(&publish[..]);
        let read = input.as_ptr_range();
        let packet = decode(&mut input, Version::V5, u32::MAX).unwrap();
        let Some(Packet::Publish(publish)) = packet else {
            panic!("{packet:?}")
        };
        let found = &publish.message.properties;
        assert_eq!(found, &bytes(kept), "{properties}");
        assert_eq!(read.contains(&found.as_ptr()), in_place, "{properties}");
    }
}

#[test]
fn a_reason_that_is_too_long_is_cut_between_two_characters() {
    for lead in 0..4 {
        let reason = "x".repeat(lead) + &"日".repeat(60_000);
        let mut script = Script::new(Feeding::AllAtOnce);
        script.open("v5").unwrap();
        script.step(&format!("close 8b {reason}")).unwrap();
        let sent = script.take_output();
        let at = sent.iter().position(|byte| *byte == 0x1f).unwrap();
        let length = usize::from(u16::from_be_bytes([sent[at + 1], sent[at + 2]]));
        let text = std::str::from_utf8(&sent[at + 3..at + 3 + length]).unwrap();
        assert!(reason.starts_with(text));
        assert!(text.len() <= REASON_STRING_BYTES_MAX, "{}", text.len());
        // A character takes three bytes: no more than two of them are lost.
        assert!(text.len() + 2 >= REASON_STRING_BYTES_MAX, "{}", text.len());
    }
}
