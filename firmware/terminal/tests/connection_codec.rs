//! MQTT packets: byte for byte, by a codec that nobody here wrote, and whatever a
//! server may send.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use bytes::BytesMut;
use risiti_terminal::limits::{RECEIVE_BYTES_MAX, TRANSMIT_BYTES_MAX};
use risiti_terminal::mqtt::incoming::{ConnAck, Publish, packet_len};
use risiti_terminal::mqtt::transmit::{self, Alias, Connect};
use risiti_terminal::mqtt::{Fault, Incoming, NoRoom, Reason, Transmit};
use risiti_terminal::settings::Topic;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{self, Packet};

const RECORDS: Topic<'_> = Topic {
    before: "t/",
    behind: "/records",
};
const STATUS: Topic<'_> = Topic {
    before: "t/",
    behind: "/status",
};

const CONNECT: Connect<'_> = Connect {
    id: "abc",
    token: &[],
    session_expiry_s: 0x0102_0304,
    keep_alive_s: 120,
    packet_bytes_max: 384,
    topic_alias_maximum: 0,
    will: None,
};

const PUBLISH: transmit::Publish<'_> = transmit::Publish {
    topic: RECORDS,
    id: "abc",
    packet_id: 0x0203,
    dup: false,
    retain: false,
    alias: Alias::None,
    payload: b"xy",
};

fn written(write: impl FnOnce(&mut Transmit) -> Result<(), NoRoom>) -> Vec<u8> {
    let mut transmit = Transmit::new();
    write(&mut transmit).unwrap();
    transmit.bytes().to_vec()
}

/// As rumqttc reads it.
fn read(bytes: &[u8]) -> Packet {
    let mut stream = BytesMut::from(bytes);
    let packet = Packet::read(&mut stream, None).unwrap();
    assert!(stream.is_empty());
    packet
}

#[test]
fn connect_takes_the_bytes_that_its_table_says() {
    let bytes = written(|t| t.connect(&CONNECT));
    let expected =
        b"\x10\x1a\0\x04MQTT\x05\0\0\x78\x0a\x11\x01\x02\x03\x04\x27\0\0\x01\x80\0\x03abc";
    assert_eq!(bytes, expected);
    assert_eq!(bytes.len(), 25 + 3);
    let sizes = [
        Connect {
            token: b"12345678",
            ..CONNECT
        },
        Connect {
            topic_alias_maximum: 1,
            ..CONNECT
        },
        Connect {
            will: Some((STATUS, b"-")),
            ..CONNECT
        },
    ]
    .map(|connect| written(|t| t.connect(&connect)).len() - bytes.len());
    assert_eq!(sizes, [2 + 8, 3, 5 + "t/abc/status".len() + 1]);
}

#[test]
fn connect_is_read_as_it_was_meant() {
    let connect = Connect {
        token: b"secret",
        topic_alias_maximum: 1,
        will: Some((STATUS, b"-")),
        ..CONNECT
    };
    let bytes = written(|t| t.connect(&connect));
    // rumqttc takes no password without a user name; the gateway's codec does.
    let mut gateway = risiti_mqtt::Connection::new(&risiti_mqtt::ConnectionLimits::default(), 0);
    gateway.handle_input(0, &mut BytesMut::from(&bytes[..]));
    let Some(risiti_mqtt::Event::Connect(request)) = gateway.poll_event() else {
        panic!("no CONNECT");
    };
    assert_eq!(&*request.client_id, "abc");
    assert!(!request.clean_start);
    assert_eq!(request.keep_alive_s, 120);
    assert_eq!(request.session_expiry_s, 0x0102_0304);
    assert_eq!(request.packet_bytes_max, Some(384));
    assert_eq!(request.topic_alias_maximum, 1);
    assert_eq!(request.username, None);
    assert_eq!(request.password.as_deref(), Some(&b"secret"[..]));
    let will = request.will.unwrap();
    assert_eq!(&*will.message.topic, "t/abc/status");
    assert_eq!(&*will.message.payload, b"-");
    assert!(will.message.retain);

    let bytes = written(|t| {
        t.connect(&Connect {
            token: &[],
            ..connect
        })
    });
    let Packet::Connect(read, will, None) = read(&bytes) else {
        panic!("no CONNECT");
    };
    let properties = read.properties.unwrap();
    assert_eq!(properties.session_expiry_interval, Some(0x0102_0304));
    assert_eq!(properties.max_packet_size, Some(384));
    assert_eq!(properties.topic_alias_max, Some(1));
    let will = will.unwrap();
    assert_eq!(
        (&will.topic[..], &will.message[..]),
        (&b"t/abc/status"[..], &b"-"[..])
    );
    assert!(will.retain && will.qos == QoS::AtMostOnce);
}

#[test]
fn publish_takes_the_bytes_that_its_table_says() {
    let bytes = written(|t| t.publish(&PUBLISH));
    assert_eq!(bytes, b"\x32\x14\0\x0dt/abc/records\x02\x03\0xy");
    let with = |alias, dup, retain| {
        let publish = transmit::Publish {
            alias,
            dup,
            retain,
            ..PUBLISH
        };
        written(|t| t.publish(&publish))
    };
    assert_eq!(
        with(Alias::Defined, true, false),
        b"\x3a\x17\0\x0dt/abc/records\x02\x03\x03\x23\0\x01xy"
    );
    assert_eq!(
        with(Alias::Used, false, false),
        b"\x32\x0a\0\0\x02\x03\x03\x23\0\x01xy"
    );
    assert_eq!(with(Alias::None, false, true)[0], 0x33);
}

#[test]
fn every_other_packet_is_read_as_it_was_meant() {
    let subscribe = written(|t| t.subscribe(9, RECORDS, "abc"));
    assert_eq!(subscribe.len(), 8 + "t/abc/records".len());
    let Packet::Subscribe(subscribe) = read(&subscribe) else {
        panic!("no SUBSCRIBE");
    };
    let filter = &subscribe.filters[0];
    assert_eq!((subscribe.pkid, &*filter.path), (9, "t/abc/records"));
    assert_eq!(filter.qos, QoS::AtLeastOnce);
    assert_eq!(filter.retain_forward_rule, v5::RetainForwardRule::Never);
    assert!(!filter.nolocal && !filter.preserve_retain);

    assert_eq!(written(|t| t.puback(7, Reason::SUCCESS)), [0x40, 2, 0, 7]);
    let refusal = written(|t| t.puback(7, Reason::PAYLOAD_FORMAT_INVALID));
    assert_eq!(refusal, [0x40, 3, 0, 7, 0x99]);
    let Packet::PubAck(puback) = read(&refusal) else {
        panic!("no PUBACK");
    };
    assert_eq!(puback.reason, v5::PubAckReason::PayloadFormatInvalid);
    assert_eq!(written(Transmit::pingreq), [0xc0, 0]);
    assert_eq!(written(|t| t.disconnect(Reason::SUCCESS)), [0xe0, 0]);
    assert_eq!(
        written(|t| t.disconnect(Reason::PROTOCOL_ERROR)),
        [0xe0, 1, 0x82]
    );
}

#[test]
fn a_packet_stands_in_the_buffer_whole_or_not_at_all() {
    let payload = [7; 200];
    let long = transmit::Publish {
        payload: &payload,
        ..PUBLISH
    };
    let one = written(|t| t.publish(&long));
    assert_eq!(one[1..3], [0x80 | (218 & 0x7f), 1], "a length of two bytes");
    let mut transmit = Transmit::new();
    let mut packets = 0;
    while transmit.publish(&long).is_ok() {
        packets += 1;
    }
    assert_eq!(packets, TRANSMIT_BYTES_MAX / one.len());
    assert_eq!(transmit.bytes(), one.repeat(packets));
    // What is left takes what fits, to the last byte.
    while transmit.room() >= 4 {
        transmit.puback(1, Reason::SUCCESS).unwrap();
    }
    let full = transmit.bytes().to_vec();
    assert_eq!(transmit.puback(1, Reason::SUCCESS), Err(NoRoom));
    assert_eq!(transmit.bytes(), full);
}

#[test]
fn a_packet_may_take_the_last_byte_and_the_last_of_its_lengths() {
    // Behind 20 bytes of topic, identifier and properties.
    let of = |remaining: usize| vec![7; remaining - 18];
    let with = |payload: &[u8]| written(|t| t.publish(&transmit::Publish { payload, ..PUBLISH }));
    // MQTT-1.5.5-1: the shortest form.
    assert_eq!(with(&of(127))[..4], [0x32, 127, 0, 13]);
    assert_eq!(with(&of(128))[..5], [0x32, 0x80, 1, 0, 13]);
    assert_eq!(with(&of(255))[..5], [0x32, 0xff, 1, 0, 13]);
    assert_eq!(with(&of(256))[..5], [0x32, 0x80, 2, 0, 13]);
    let whole = of(TRANSMIT_BYTES_MAX - 3);
    assert_eq!(with(&whole).len(), TRANSMIT_BYTES_MAX);
    let mut transmit = Transmit::new();
    assert!(transmit.is_empty());
    let payload = of(TRANSMIT_BYTES_MAX - 2);
    let larger = transmit::Publish {
        payload: &payload,
        ..PUBLISH
    };
    assert_eq!(transmit.publish(&larger), Err(NoRoom));
    assert!(transmit.is_empty());
}

#[test]
fn a_length_is_told_once_its_last_byte_is_there() {
    for (bytes, len) in [
        (&b"\x30"[..], Ok(None)),
        (b"\x30\x80", Ok(None)),
        (b"\x30\x80\x80", Ok(None)),
        (b"\x30\x80\x80\x80", Ok(None)),
        (b"\x30\x80\x80\x80\x80", Err(Fault::Malformed)),
        (b"\x30\x80\x01", Ok(Some(131))),
        (b"\xd0\0", Ok(Some(2))),
        (b"\x30\x80\0", Err(Fault::Malformed)),
        (b"\x30\xfd\x02", Ok(Some(RECEIVE_BYTES_MAX))),
        (b"\x30\xfe\x02", Err(Fault::TooLarge)),
    ] {
        assert_eq!(packet_len(bytes, RECEIVE_BYTES_MAX), len, "{bytes:02x?}");
    }
}

const ACCEPTED: ConnAck = ConnAck {
    session_present: false,
    reason: Reason::SUCCESS,
    receive_maximum: u16::MAX,
    packet_bytes_max: u32::MAX,
    topic_alias_maximum: 0,
    keep_alive_s: None,
    takes_qos_1: true,
    takes_retain: true,
};

#[test]
fn what_a_server_sends_is_understood() {
    let full = b"\x20\x47\x01\0\x44\x11\0\0\0\x09\x21\0\x05\x24\0\x25\0\x27\0\0\x02\0\x12\0\x01i\x22\0\x02\x1f\0\x01r\
        \x26\0\x01a\0\x01b\x26\0\x01a\0\x01b\x28\x01\x29\x01\x2a\0\x13\0\x1e\x1a\0\x01x\x1c\0\x01y\x15\0\x01m\x16\0\x02\xff\xff";
    let told = ConnAck {
        session_present: true,
        receive_maximum: 5,
        packet_bytes_max: 512,
        topic_alias_maximum: 2,
        keep_alive_s: Some(30),
        takes_qos_1: false,
        takes_retain: false,
        ..ACCEPTED
    };
    let refused = ConnAck {
        reason: Reason::SERVER_BUSY,
        ..ACCEPTED
    };
    let publish = |topic, alias, packet_id, payload| {
        Incoming::Publish(Publish {
            topic,
            alias,
            packet_id,
            payload,
        })
    };
    let cases: &[(&[u8], Incoming<'_>)] = &[
        (b"\x20\x03\0\0\0", Incoming::ConnAck(ACCEPTED)),
        (b"\x20\x03\0\x89\0", Incoming::ConnAck(refused)),
        (full, Incoming::ConnAck(told)),
        (b"\x20\x07\0\0\x04\x24\x01\x25\x01", Incoming::ConnAck(ACCEPTED)),
        (b"\x32\x0a\0\x03t/a\0\x07\0xy", publish(b"t/a", None, Some(7), b"xy")),
        (b"\x3b\x08\0\x03t/a\0\x07\0", publish(b"t/a", None, Some(7), b"")),
        (b"\x30\x07\0\x03t/a\0x", publish(b"t/a", None, None, b"x")),
        (b"\x32\x09\0\0\0\x07\x03\x23\0\x01x", publish(b"", Some(1), Some(7), b"x")),
        (
            b"\x32\x1d\0\x01t\0\x07\x16\x01\x01\x02\0\0\0\x3c\x0b\x05\x0b\x80\x01\x26\0\x01a\0\x01b\x03\0\0x",
            publish(b"t", None, Some(7), b"x"),
        ),
        (b"\x40\x02\0\x07", Incoming::PubAck { packet_id: 7, reason: Reason::SUCCESS }),
        (b"\x40\x03\0\x07\x10", Incoming::PubAck { packet_id: 7, reason: Reason(0x10) }),
        (b"\x40\x08\0\x07\x97\x04\x1f\0\x01q", Incoming::PubAck { packet_id: 7, reason: Reason(0x97) }),
        (b"\x90\x04\0\x07\0\x01", Incoming::SubAck { packet_id: 7, reason: Reason(1) }),
        (b"\x90\x08\0\x07\x04\x1f\0\x01q\x87", Incoming::SubAck { packet_id: 7, reason: Reason::NOT_AUTHORIZED }),
        (b"\xd0\0", Incoming::PingResp),
        (b"\xe0\0", Incoming::Disconnect { reason: Reason::SUCCESS }),
        (b"\xe0\x01\x8b", Incoming::Disconnect { reason: Reason(0x8b) }),
        (b"\xe0\x06\x9d\x04\x1c\0\x01h", Incoming::Disconnect { reason: Reason(0x9d) }),
    ];
    for (bytes, expected) in cases {
        assert_eq!(
            packet_len(bytes, RECEIVE_BYTES_MAX),
            Ok(Some(bytes.len())),
            "{bytes:02x?}"
        );
        assert_eq!(Incoming::decode(bytes), Ok(*expected), "{bytes:02x?}");
    }
}

#[test]
fn what_breaks_the_standard_is_refused_for_the_standards_reason() {
    use Fault::{Malformed, Protocol};
    let cases: &[(&[u8], Fault, &str)] = &[
        (b"\x00\0", Malformed, "a reserved type"),
        (b"\x21\x03\0\0\0", Malformed, "reserved bits"),
        (
            b"\x20\x03\x02\0\0",
            Malformed,
            "reserved bits of CONNACK's flags",
        ),
        (
            b"\x20\x03\x01\x89\0",
            Malformed,
            "a session present with a refusal",
        ),
        (b"\x20\x02\0\0", Malformed, "CONNACK of 3.1.1"),
        (
            b"\x20\x03\0\x03\0",
            Malformed,
            "a return code of 3.1.1: not let in, and no error",
        ),
        (
            b"\x20\x06\0\0\x03\x21\0\0",
            Protocol,
            "a receive maximum of 0",
        ),
        (
            b"\x20\x08\0\0\x05\x27\0\0\0\0",
            Protocol,
            "a packet size of 0",
        ),
        (b"\x20\x05\0\0\x02\x24\x02", Protocol, "QoS 2 as a maximum"),
        (
            b"\x20\x09\0\0\x06\x21\0\x01\x21\0\x01",
            Protocol,
            "a property twice",
        ),
        (
            b"\x20\x06\0\0\x03\x23\0\x01",
            Protocol,
            "another packet's property",
        ),
        (b"\x20\x05\0\0\x02\x7e\0", Malformed, "an unknown property"),
        (
            b"\x20\x04\0\0\x80\0",
            Malformed,
            "a length of properties that is not the shortest",
        ),
        (
            b"\x20\x04\0\0\x02\x21",
            Malformed,
            "properties beyond the packet",
        ),
        (b"\x20\x04\0\0\0x", Malformed, "bytes behind the properties"),
        (b"\x36\x06\0\x01t\0\x07\0", Malformed, "QoS 3"),
        (b"\x38\x04\0\x01t\0", Malformed, "DUP at QoS 0"),
        (b"\x34\x06\0\x01t\0\x07\0", Protocol, "QoS 2, not granted"),
        (b"\x32\x06\0\x01t\0\0\0", Protocol, "packet identifier 0"),
        (
            b"\x32\x06\0\x01#\0\x07\0",
            Malformed,
            "a wildcard in a topic name",
        ),
        (b"\x32\x06\0\x01\xff\0\x07\0", Malformed, "no UTF-8"),
        (b"\x32\x06\0\x01\0\0\x07\0", Malformed, "a null character"),
        (b"\x32\x05\0\0\0\x07\0", Protocol, "neither topic nor alias"),
        (
            b"\x32\x08\0\x01t\0\x07\x02\x0b\0",
            Protocol,
            "a subscription identifier of 0",
        ),
        (b"\x32\x04\0\x09t\0", Malformed, "a topic beyond the packet"),
        (b"\x40\x01\0", Malformed, "half a packet identifier"),
        (b"\x40\x05\0\x07\x10\0x", Malformed, "bytes behind PUBACK"),
        (b"\x90\x03\0\x07\0", Malformed, "SUBACK without a code"),
        (
            b"\x90\x05\0\x07\0\x01\x01",
            Malformed,
            "SUBACK with two codes",
        ),
        (b"\xd0\x01x", Malformed, "PINGRESP with a body"),
        (
            b"\xe0\x07\x8b\x05\x11\0\0\0\0",
            Protocol,
            "a server's session expiry",
        ),
        (b"\x10\0", Protocol, "CONNECT from a server"),
        (b"\x50\x02\0\x07", Protocol, "PUBREC, but we send no QoS 2"),
        (b"\x62\x02\0\x07", Protocol, "PUBREL"),
        (b"\x70\x02\0\x07", Protocol, "PUBCOMP"),
        (b"\x82\0", Protocol, "SUBSCRIBE from a server"),
        (
            b"\xb0\x04\0\x07\0\0",
            Protocol,
            "UNSUBACK, but we never unsubscribe",
        ),
        (b"\xc0\0", Protocol, "PINGREQ from a server"),
        (b"\xf0\0", Protocol, "AUTH, but no method was agreed"),
    ];
    for (bytes, expected, what) in cases {
        assert_eq!(Incoming::decode(bytes), Err(*expected), "{what}");
    }
}

#[test]
fn a_length_is_believed_only_within_bounds() {
    for (bytes, expected) in [
        (&b""[..], Ok(None)),
        (b"\x30", Ok(None)),
        (b"\x30\x80", Ok(None)),
        (b"\x30\x05", Ok(Some(7))),
        (b"\x30\x80\x01", Ok(Some(131))),
        (b"\x30\x80\0", Err(Fault::Malformed)),
        (b"\x30\x80\x80\x80\x80", Err(Fault::Malformed)),
        (b"\x30\xff\xff\xff\x7f", Err(Fault::TooLarge)),
        (b"\x30\xfe\x02", Err(Fault::TooLarge)),
        (b"\x30\xfd\x02", Ok(Some(RECEIVE_BYTES_MAX))),
    ] {
        assert_eq!(
            packet_len(bytes, RECEIVE_BYTES_MAX),
            expected,
            "{bytes:02x?}"
        );
    }
}

#[test]
fn noise_and_flipped_bits_never_panic() {
    let mut random = fastrand::Rng::with_seed(4);
    let seeds: [&[u8]; 4] = [
        b"\x20\x0c\x01\0\x09\x21\0\x40\x27\0\x04\0\0",
        b"\x32\x0e\0\x03t/a\0\x07\x05\x02\0\0\0\x3cxy",
        b"\x40\x08\0\x07\x97\x04\x1f\0\x01q",
        b"\xe0\x06\x9d\x04\x1c\0\x01h",
    ];
    let mut understood = 0;
    for round in 0..200_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..random.usize(0..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes[at] ^= 1 << random.u8(..8),
                2 => bytes.insert(at, random.u8(..)),
                _ => bytes.truncate(at.max(2)),
            }
        }
        if let Ok(Some(len)) = packet_len(&bytes, RECEIVE_BYTES_MAX)
            && let Some(packet) = bytes.get(..len)
        {
            understood += u32::from(Incoming::decode(packet).is_ok());
        }
        let _ = Incoming::decode(&bytes);
    }
    assert!(understood > 50_000, "{understood}");
}
