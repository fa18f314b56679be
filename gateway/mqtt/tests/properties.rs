//! What holds for all inputs, tried on random ones.

mod support;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use risiti_mqtt::codec::{Packet, Property, decode};
use risiti_mqtt::topics::{filter_matches, validate_filter};
use risiti_mqtt::{
    Accept, Connection, ConnectionLimits, Deliver, Delivery, Event, FilterTree, Message, Qos,
    ReasonCode, Version,
};
use support::notation::{bytes, put_variable_integer};
use support::script::{Feeding, Script};

/// Bytes that often look like packets: a first byte of a real type, and a length
/// that fits.
fn packet_like() -> impl Strategy<Value = Vec<u8>> {
    (
        any::<u8>(),
        prop::collection::vec(any::<u8>(), 0..60),
        any::<bool>(),
    )
        .prop_map(|(first, body, honest)| {
            let mut packet = vec![first];
            put_variable_integer(
                &mut packet,
                if honest { body.len() } else { body.len() + 1 },
            );
            packet.extend(body);
            packet
        })
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé日/ ]{0,12}"
}

fn topic() -> impl Strategy<Value = String> {
    "[abé$]{0,2}(/[abé]{0,2}){0,5}".prop_filter("topics are not empty", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    ("([ab$]{0,2}|\\+)(/([ab]{0,2}|\\+)){0,5}(/#)?").prop_filter("only valid filters", |filter| {
        validate_filter(filter).is_ok()
    })
}

/// A client's PUBLISH, put together here by the layout in the standard.
#[derive(Debug, Clone)]
struct ClientPublish {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    packet_id: u16,
    dup: bool,
    retain: bool,
    content_type: Option<String>,
    correlation: Option<Vec<u8>>,
    user: Vec<(String, String)>,
    expiry_s: Option<u32>,
    alias: Option<u16>,
    /// Where expiry and alias stand among the others.
    rotation: usize,
}

fn client_publish() -> impl Strategy<Value = ClientPublish> {
    (
        (
            topic(),
            prop::collection::vec(any::<u8>(), 0..200),
            0..3u8,
            1..=u16::MAX,
        ),
        (any::<bool>(), any::<bool>(), prop::option::of(text())),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        prop::collection::vec((text(), text()), 0..4),
        (
            prop::option::of(any::<u32>()),
            prop::option::of(1..=16u16),
            0..8usize,
        ),
    )
        .prop_map(
            |(
                (topic, payload, qos, packet_id),
                (dup, retain, content_type),
                correlation,
                user,
                (expiry_s, alias, rotation),
            )| ClientPublish {
                topic,
                payload,
                qos,
                packet_id: if qos == 0 { 0 } else { packet_id },
                dup: dup && qos > 0,
                retain,
                content_type,
                correlation,
                user,
                expiry_s,
                alias,
                rotation,
            },
        )
}

fn put_field(out: &mut Vec<u8>, field: &[u8]) {
    out.extend((field.len() as u16).to_be_bytes());
    out.extend(field);
}

impl ClientPublish {
    fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::new();
        put_field(&mut body, self.topic.as_bytes());
        if self.qos > 0 {
            body.extend(self.packet_id.to_be_bytes());
        }
        if version == Version::V5 {
            let mut properties = self.properties();
            let count = properties.len().max(1);
            properties.rotate_left(self.rotation % count);
            let block = properties.concat();
            put_variable_integer(&mut body, block.len());
            body.extend(block);
        }
        body.extend(&self.payload);
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut packet = vec![0x30 | flags];
        put_variable_integer(&mut packet, body.len());
        packet.extend(body);
        packet
    }

    fn properties(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut put = |id: u8, fields: &[&[u8]]| {
            let mut one = vec![id];
            fields.iter().for_each(|field| put_field(&mut one, field));
            all.push(one);
        };
        if let Some(content_type) = &self.content_type {
            put(0x03, &[content_type.as_bytes()]);
        }
        if let Some(correlation) = &self.correlation {
            put(0x09, &[correlation]);
        }
        for (name, value) in &self.user {
            put(0x26, &[name.as_bytes(), value.as_bytes()]);
        }
        if let Some(expiry_s) = self.expiry_s {
            all.push([&[0x02][..], &expiry_s.to_be_bytes()].concat());
        }
        if let Some(alias) = self.alias {
            all.push([&[0x23][..], &alias.to_be_bytes()].concat());
        }
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decoding_any_bytes_never_panics(
        input in prop_oneof![packet_like(), prop::collection::vec(any::<u8>(), 0..80)],
        version in version(),
        packet_bytes_max in prop_oneof![Just(20u32), Just(u32::MAX)],
    ) {
        let mut input = BytesMut::from(&input[..]);
        while let Ok(Some(_)) = decode(&mut input, version, packet_bytes_max) {}
    }

    #[test]
    fn any_bytes_on_an_open_connection_end_in_order(
        packets in prop::collection::vec(packet_like(), 1..8),
        v5 in any::<bool>(),
    ) {
        let mut script = Script::new(Feeding::AllAtOnce);
        script.open(if v5 { "v5" } else { "v4" }).unwrap();
        packets.iter().for_each(|packet| script.send(packet));
        let mut closed = false;
        while let Some(event) = script.connection.poll_event() {
            prop_assert!(!closed, "Closed is the last event");
            closed = matches!(event, Event::Closed(_));
        }
        prop_assert_eq!(closed, !script.connection.is_open());
    }

    #[test]
    fn a_publish_is_read_as_it_was_put(publish in client_publish(), version in version()) {
        let mut input = BytesMut::from(&publish.encode(version)[..]);
        let packet = decode(&mut input, version, u32::MAX).unwrap();
        let Some(Packet::Publish(got)) = packet else { panic!("{packet:?}") };
        prop_assert!(input.is_empty());
        prop_assert_eq!(&*got.message.topic, &publish.topic);
        prop_assert_eq!(&got.message.payload[..], &publish.payload[..]);
        prop_assert_eq!(got.message.qos as u8, publish.qos);
        prop_assert_eq!(got.packet_id, publish.packet_id);
        prop_assert_eq!(got.dup, publish.dup);
        prop_assert_eq!(got.message.retain, publish.retain);
        if version == Version::V5 {
            let content_type = publish.content_type.as_deref();
            prop_assert_eq!(got.message.content_type(), content_type);
            let correlation = publish.correlation.as_deref();
            prop_assert_eq!(got.message.correlation_data(), correlation);
            prop_assert_eq!(got.message.expiry_s, publish.expiry_s);
            prop_assert_eq!(got.topic_alias, publish.alias);
            // Rotation moves whole properties, so compare as the client put them.
            let mut user: Vec<_> = got.message.user_properties().collect();
            let mut wanted: Vec<_> =
                publish.user.iter().map(|(name, value)| (&**name, &**value)).collect();
            user.sort_unstable();
            wanted.sort_unstable();
            prop_assert_eq!(user, wanted);
            prop_assert!(got.message.properties().all(|property| !matches!(
                property,
                Property::TopicAlias(_) | Property::MessageExpiryInterval(_)
            )));
        } else {
            prop_assert!(got.message.properties.is_empty());
        }
    }

    /// What goes out is what came in; the way out is read by the layout of the
    /// cases, the way in by the client's encoder above.
    #[test]
    fn a_delivery_is_the_publish_it_was(publish in client_publish(), v5 in any::<bool>()) {
        let mut script = Script::new(Feeding::AllAtOnce);
        let version = if v5 { Version::V5 } else { Version::V311 };
        script.open(if v5 { "v5" } else { "v4" }).unwrap();
        let publish = ClientPublish { alias: None, rotation: 0, ..publish };
        let sent = publish.encode(version);
        script.send(&sent);
        let Some(Event::Publish { message, dup, .. }) = script.connection.poll_event() else {
            panic!("no Publish event");
        };
        // The order in which we put expiry: first.
        let mut wanted = publish.clone();
        wanted.rotation = publish.properties().len() - usize::from(publish.expiry_s.is_some());
        let outcome = script.connection.deliver(&Delivery {
            packet_id: publish.packet_id,
            message: &message,
            qos: message.qos,
            retain: message.retain,
            dup,
            subscription_ids: &[],
            expiry_s: message.expiry_s,
        });
        prop_assert_eq!(outcome, Deliver::Delivered);
        prop_assert_eq!(script.take_output(), wanted.encode(version));
    }

    #[test]
    fn an_envelope_gives_its_message_back(publish in client_publish(), version in version()) {
        let mut input = BytesMut::from(&publish.encode(version)[..]);
        let packet = decode(&mut input, version, u32::MAX).unwrap();
        let Some(Packet::Publish(got)) = packet else { panic!("{packet:?}") };
        let envelope = got.message.encode();
        prop_assert_eq!(envelope.len(), got.message.encoded_len());
        prop_assert_eq!(Message::decode(&envelope).unwrap(), got.message.clone());
        prop_assert_eq!(got.message.detach(), got.message);
    }

    #[test]
    fn a_damaged_envelope_never_panics(
        publish in client_publish(),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let message = Message {
            expiry_s: publish.expiry_s,
            ..Message::new(publish.topic, publish.payload)
        };
        let mut envelope = message.encode().to_vec();
        let index = at.index(envelope.len());
        envelope[index] ^= with;
        envelope.truncate(cut.index(envelope.len() + 1));
        let _any = Message::decode(&Bytes::from(envelope));
    }

    /// G3 needs it: acknowledgements in the order of the PUBLISHes, each only once
    /// it and all before it are settled.
    #[test]
    fn pubacks_leave_in_order_whatever_the_order_of_settling(
        (count, order) in (1..40usize).prop_flat_map(|count| {
            let all: Vec<u64> = (0..count as u64).collect();
            (Just(count), Just(all).prop_shuffle())
        }),
        qos2 in any::<u64>(),
    ) {
        let mut script = Script::new(Feeding::AllAtOnce);
        script.open("v4").unwrap();
        let first_byte = |at: usize| if qos2 >> at & 1 == 1 { 0x34 } else { 0x32 };
        for at in 0..count {
            script.send(&[first_byte(at), 5, 0, 1, b'a', 0, at as u8 + 1]);
        }
        let mut settled = vec![false; count];
        let mut acknowledged = Vec::new();
        for token in order {
            script.connection.publish_settled(token, ReasonCode::Success, None);
            settled[token as usize] = true;
            acknowledged.extend(script.take_output());
            let due = settled.iter().take_while(|settled| **settled).count();
            let wanted: Vec<u8> = (0..due)
                .flat_map(|at| {
                    [if first_byte(at) == 0x34 { 0x50 } else { 0x40 }, 2, 0, at as u8 + 1]
                })
                .collect();
            prop_assert_eq!(&acknowledged, &wanted);
        }
    }

    /// Whatever client and shell do in whatever order: no panic, never more in
    /// flight than the client takes, and one end, after which nothing is said.
    #[test]
    fn a_random_dialogue_keeps_the_contract(
        v5 in any::<bool>(),
        steps in prop::collection::vec((0..16u8, 1..4u8, 0..8u64), 1..80),
    ) {
        let mut script = Script::new(Feeding::AllAtOnce);
        script.open(if v5 { "v5 {210002220002}" } else { "v4" }).unwrap();
        let window = if v5 { 2 } else { 64 };
        let none = if v5 { "{}" } else { "" };
        let mut in_flight = 0;
        let mut closed = false;
        for (step, id, token) in steps {
            let was_closed = closed;
            let connection = &mut script.connection;
            match step {
                0..=2 => {
                    let first_byte = 0x30 | step << 1;
                    let packet_id = if step > 0 { format!("00{id:02x}") } else { String::new() };
                    script.send(&bytes(&format!("{first_byte:02x}{{ 'a' {packet_id} {none} }}")));
                }
                3 => script.send(&[0x62, 2, 0, id]),
                4 => script.send(&[0x40, 2, 0, id]),
                5 => script.send(&[0x50, 2, 0, id]),
                6 => script.send(&[0x70, 2, 0, id]),
                7 => script.send(&bytes(&format!("82{{ 00{id:02x} {none} 'a' 01 }}"))),
                8 => script.send(&[0xc0, 0]),
                9 | 10 => connection.publish_settled(token, ReasonCode::Success, Some("why")),
                11 => connection.publish_completed(id.into()),
                12 => connection.released(id.into()),
                13 if token == 0 => connection.close(ReasonCode::SessionTakenOver, ""),
                13 if token == 1 => connection.handle_transport_lost(),
                _ => {
                    let qos = Qos::from_u8(id % 3).unwrap();
                    let message = Message::new("long/topic", "x");
                    let outcome = connection.deliver(&Delivery {
                        // Free ones only, as the session's part is.
                        packet_id: 100 + in_flight,
                        message: &message,
                        qos,
                        retain: false,
                        dup: false,
                        subscription_ids: &[],
                        expiry_s: None,
                    });
                    if outcome == Deliver::Delivered && qos != Qos::AtMostOnce {
                        in_flight += 1;
                        prop_assert!(in_flight <= window);
                    }
                }
            }
            let output = script.take_output();
            prop_assert!(!was_closed || output.is_empty(), "said after the end");
            while let Some(event) = script.connection.poll_event() {
                prop_assert!(!closed, "{:?} after Closed", event);
                closed = matches!(event, Event::Closed(_));
            }
        }
    }

    #[test]
    fn the_tree_finds_what_a_naive_matcher_finds(
        changes in prop::collection::vec((filter(), any::<bool>()), 1..40),
        topics in prop::collection::vec(topic(), 1..10),
    ) {
        let mut tree = FilterTree::new();
        let mut naive: Vec<(String, usize)> = Vec::new();
        for (value, (filter, insert)) in changes.into_iter().enumerate() {
            if insert {
                tree.insert(&filter, value).unwrap();
                naive.push((filter, value));
            } else {
                let wanted = naive.iter().position(|(known, _)| *known == filter);
                let wanted = wanted.map(|at| naive.remove(at).1);
                prop_assert_eq!(tree.remove(&filter, |_| true), wanted);
            }
            prop_assert_eq!(tree.len(), naive.len());
            // One node for each different beginning of a filter, and the root.
            let mut beginnings = BTreeMap::new();
            for (filter, _) in &naive {
                let levels: Vec<_> = filter.split('/').collect();
                for depth in 1..=levels.len() {
                    beginnings.insert(levels[..depth].join("/"), ());
                }
            }
            prop_assert_eq!(tree.node_count(), 1 + beginnings.len());
        }
        for topic in topics {
            let mut found = Vec::new();
            tree.matches(&topic, |value| found.push(*value));
            found.sort_unstable();
            let mut wanted: Vec<_> = naive
                .iter()
                .filter(|(filter, _)| filter_matches(filter, &topic))
                .map(|(_, value)| *value)
                .collect();
            wanted.sort_unstable();
            prop_assert_eq!(found, wanted, "{}", topic);
        }
    }
}

#[test]
fn an_idle_connection_is_small() {
    // 10,000 of them shall fit; see the head of the design's section on the gateway.
    assert!(size_of::<Connection>() < 512, "{}", size_of::<Connection>());
    for version in ["v4", "v5"] {
        let mut script = Script::new(Feeding::AllAtOnce);
        script.open(version).unwrap();
        for packet_id in 1..=50u8 {
            let properties = if version == "v5" { "{}" } else { "" };
            script.send(&bytes(&format!(
                "32{{ 'a' 00{packet_id:02x} {properties} }}"
            )));
        }
        while script.connection.poll_event().is_some() {}
        assert!(
            script.connection.heap_bytes() > 1000,
            "control: a busy one holds more"
        );
        for token in 0..50 {
            script
                .connection
                .publish_settled(token, ReasonCode::Success, None);
        }
        script.take_output();
        script.connection.release_spare_memory();
        assert_eq!(script.connection.heap_bytes(), 0);
    }
}

#[test]
fn a_filter_deeper_than_the_bound_is_refused_and_a_deep_topic_is_matched() {
    let mut tree = FilterTree::new();
    assert!(tree.insert(&"a/".repeat(64), 1).is_err());
    assert!(tree.insert(&"a/".repeat(20_000), 1).is_err());
    assert_eq!(tree.node_count(), 1);
    tree.insert("a/#", 1).unwrap();
    tree.insert("+/a/#", 2).unwrap();
    let mut found = 0;
    tree.matches(&"a/".repeat(30_000), |_| found += 1);
    assert_eq!(found, 2);
}

#[test]
fn a_flood_of_requests_waits_for_the_answers() {
    let mut script = Script::new(Feeding::AllAtOnce);
    script.open("v4").unwrap();
    for packet_id in 1..=100u8 {
        script.send(&[0x82, 6, 0, packet_id, 0, 1, b'a', 0]);
    }
    let mut answered = 0;
    assert!(!script.connection.wants_input());
    while let Some(event) = script.connection.poll_event() {
        let Event::Subscribe { packet_id, .. } = event else {
            panic!("{event:?}")
        };
        script
            .connection
            .subscribed(packet_id, &[ReasonCode::Success], None);
        answered += 1;
        script.take_output();
    }
    assert_eq!(answered, 100);
    assert!(script.connection.wants_input());
}

#[test]
fn a_payload_format_that_is_none_is_told() {
    let message = Message {
        properties: Bytes::from_static(&[1, 1]),
        ..Message::new("t", Bytes::from_static(&[0xff]))
    };
    assert!(!message.payload_format_is_valid());
    assert!(
        Message {
            payload: "ü".into(),
            ..message.clone()
        }
        .payload_format_is_valid()
    );
    assert!(
        Message {
            properties: Bytes::new(),
            ..message
        }
        .payload_format_is_valid()
    );
}

#[test]
fn an_envelope_of_another_version_says_so() {
    let error = Message::decode(&Bytes::from_static(&[2, 0, 0, 1, b'a', 0, 0, 0, 0])).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
    let message = Message {
        qos: Qos::AtLeastOnce,
        retain: true,
        ..Message::new("a", "b")
    };
    assert_eq!(&message.encode()[..], &[1, 5, 0, 1, b'a', 0, 0, 0, 0, b'b']);
}

#[test]
fn an_envelope_with_what_no_message_has_is_damaged() {
    let good: &[u8] = &[1, 0, 0, 1, b'a', 0, 0, 0, 2, 1, 1, b'x'];
    assert!(Message::decode(&Bytes::from_static(good)).is_ok());
    let damaged = |at: usize, value: u8| {
        let mut envelope = good.to_vec();
        envelope[at] = value;
        Message::decode(&Bytes::from(envelope)).is_err()
    };
    assert!(damaged(1, 3), "QoS 3");
    assert!(damaged(1, 0x10), "unknown flags");
    assert!(damaged(4, b'#'), "wildcard in the topic");
    assert!(damaged(4, 0xff), "topic not UTF-8");
    assert!(damaged(9, 0x23), "a topic alias among the properties");
    assert!(damaged(10, 2), "a property out of its range");
    assert!(damaged(8, 200), "properties longer than the envelope");
}

#[test]
fn a_detached_message_does_not_hold_on_to_what_was_read() {
    let mut block = BytesMut::with_capacity(8192);
    block.extend_from_slice(&bytes("30{ 'a' \"x\" }"));
    let packet = decode(&mut block, Version::V311, 100).unwrap();
    let Some(Packet::Publish(publish)) = packet else {
        panic!("{packet:?}")
    };
    let kept = publish.message.detach();
    drop(publish);
    // Only if nothing else refers to the block can it be used again whole.
    assert!(block.try_reclaim(8192));
    assert_eq!(kept.topic, "a");
}

#[test]
fn every_connection_begins_unaccepted() {
    let mut connection = Connection::new(&ConnectionLimits::default(), 0);
    connection.accept(0, &Accept::default());
    assert!(!connection.is_open());
    assert!(connection.transmit().is_empty());
}
