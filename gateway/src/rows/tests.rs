//! Rows and keys, as they are written and read back.

use super::*;

#[test]
fn rows_come_back_as_they_were_written() {
    let subscription = Subscription {
        filter: TopicFilter {
            share: Some("g".into()),
            filter: "a/+/c".into(),
        },
        qos: Qos::ExactlyOnce,
        no_local: false,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        id: Some(77),
    };
    let row = SessionRow::new(9, 60, Some(5), 7, Some(4), [&subscription].into_iter());
    let back: SessionRow = decode(&encode(&row)).unwrap();
    assert_eq!(back, row);
    assert_eq!(back.subscriptions().collect::<Vec<_>>(), [subscription]);

    let message = Message::new("a/b", "payload");
    let row = DeliveryRow::new(1, Qos::AtLeastOnce, true, vec![3, 4], &message);
    let back: DeliveryRow = decode(&encode(&row)).unwrap();
    assert_eq!(back.message().unwrap().unwrap(), message);
    assert!(back.retain());
    assert_eq!(back.qos(), Qos::AtLeastOnce);
    let released: DeliveryRow = decode(&encode(&DeliveryRow::released())).unwrap();
    assert_eq!(released.message().unwrap(), None);
}

#[test]
fn a_row_of_a_later_version_is_refused_by_its_number() {
    let mut bytes = encode(&WillRow::new("c", 3, &Message::new("w", "")));
    bytes[1] = 2;
    assert!(matches!(
        decode::<WillRow>(&bytes),
        Err(RowError::Version(2))
    ));
}

#[test]
fn every_option_of_a_subscription_comes_back() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for flags in 0..4u8 {
            for retain_handling in [
                RetainHandling::Send,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ] {
                let subscription = Subscription {
                    filter: TopicFilter {
                        share: None,
                        filter: "a".into(),
                    },
                    qos,
                    no_local: flags & 1 != 0,
                    retain_as_published: flags & 2 != 0,
                    retain_handling,
                    id: None,
                };
                let row = SessionRow::new(1, 60, None, 0, None, [&subscription].into_iter());
                let options = row.subscriptions[0].options;
                assert_eq!(
                    options,
                    qos as u8 | flags << 2 | (retain_handling as u8) << 4
                );
                let back: SessionRow = decode(&encode(&row)).unwrap();
                assert_eq!(back.subscriptions().collect::<Vec<_>>(), [subscription]);
            }
        }
    }
}

/// What no release wrote is left out, and what stands beside it is not.
#[test]
fn a_subscription_that_can_not_be_read_takes_no_other_with_it() {
    let row = |options| SubscriptionRow {
        filter: "a".to_owned(),
        options,
        id: None,
        share: None,
    };
    let session = SessionRow {
        subscriptions: vec![row(0b00_0011), row(0b11_0000), row(0b00_0010)],
        ..SessionRow::new(1, 60, None, 0, None, std::iter::empty())
    };
    let read: Vec<_> = session.subscriptions().map(|s| s.qos).collect();
    assert_eq!(read, [Qos::ExactlyOnce]);
}

#[test]
fn a_delivery_keeps_its_qos_and_its_retain_flag() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for retain in [false, true] {
            let row = DeliveryRow::new(1, qos, retain, Vec::new(), &Message::new("a", "x"));
            let back: DeliveryRow = decode(&encode(&row)).unwrap();
            assert_eq!((back.qos(), back.retain()), (qos, retain));
        }
    }
    let released = DeliveryRow::released();
    assert_eq!(
        (released.qos(), released.retain()),
        (Qos::ExactlyOnce, false)
    );
}

#[test]
fn a_retained_message_and_a_will_come_back() {
    let message = Message {
        retain: true,
        ..Message::new("a/b", "payload")
    };
    let back: RetainedRow = decode(&encode(&RetainedRow::new(7, &message))).unwrap();
    assert_eq!(
        (back.received_ms, back.message().unwrap()),
        (7, message.clone())
    );
    let back: WillRow = decode(&encode(&WillRow::new("c", 3, &message))).unwrap();
    assert_eq!((back.delay_s, &*back.client_id), (3, "c"));
    assert_eq!(back.message().unwrap(), message);
}

#[test]
fn what_is_no_row_says_so() {
    let errors = [
        decode::<WillRow>(&[]).unwrap_err(),
        decode::<WillRow>(b"\x81").unwrap_err(),
        RetainedRow {
            version: VERSION,
            received_ms: 0,
            envelope: vec![1].into(),
        }
        .message()
        .unwrap_err(),
    ];
    for error in errors {
        assert!(
            error.to_string().starts_with("row can't be read: "),
            "{error}"
        );
    }
}

/// The table at the head of this file.
#[test]
fn keys_are_the_bytes_of_their_table() {
    assert_eq!(session_key("c1"), b"sc1");
    assert_eq!(retained_key("a/b"), b"ra/b");
    assert_eq!(will_key(0x0102), b"w\0\0\0\0\0\0\x01\x02");
    assert_eq!(deliveries_prefix(3), b"q\0\0\0\0\0\0\0\x03");
    assert_eq!(
        delivery_key(3, 0x0405),
        b"q\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\x04\x05"
    );
    assert_eq!(unreleased_prefix(3), b"i\0\0\0\0\0\0\0\x03");
    assert_eq!(unreleased_key(3, 0x0607), b"i\0\0\0\0\0\0\0\x03\x06\x07");
}

#[test]
fn keys_give_back_what_is_in_them() {
    assert_eq!(delivery_sequence(&delivery_key(1, 77)), Some(77));
    assert_eq!(unreleased_packet_id(&unreleased_key(1, 9)), Some(9));
    assert_eq!(will_number(&will_key(78)), Some(78));
    assert_eq!(delivery_sequence(b"q12345678"), None);
    assert_eq!(unreleased_packet_id(b"i12345678"), None);
    assert_eq!(will_number(b"w"), None);
}

#[test]
fn a_topic_too_long_for_a_key_stands_by_its_beginning_and_a_digest() {
    let topic = |last: &str| "t".repeat(380 - last.len()) + last;
    assert_eq!(
        retained_key(&topic("x")),
        [b"r", topic("x").as_bytes()].concat()
    );
    let long = |last: &str| topic("x") + last;
    let key = retained_key(&long("a"));
    assert_eq!(key.len(), 1 + 300 + 16);
    assert!(key[1..].starts_with(&long("a").as_bytes()[..300]));
    assert_ne!(key, retained_key(&long("b")));
}
