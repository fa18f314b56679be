//! What is delivered comes whole and in the order in which it was published.

use std::collections::HashMap;
use std::io;

use risiti_tests::wire_client::{Connect, Message, Packet, Wire};

use crate::house::{House, VERSIONS};

/// Publishes numbers under `client_id` to topics chosen by number, many at once.
fn publish_numbers(
    house: &House,
    client_id: &str,
    count: u32,
    message: impl Fn(u32) -> Message + Send + 'static,
) -> std::thread::JoinHandle<io::Result<()>> {
    let addr = house.addr();
    let connect = Connect::clean(5, client_id);
    std::thread::spawn(move || {
        let mut wire = Wire::accepted(addr, &connect)?;
        let (mut sent, mut acknowledged) = (0, 0);
        while acknowledged < count {
            while sent < count && sent - acknowledged < 30 {
                let id = wire.next_id();
                wire.send_publish(&message(sent).id(id))?;
                sent += 1;
            }
            match wire.recv()? {
                Packet::PubAck(_, code) => {
                    assert!(code < 0x80);
                    acknowledged += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        Ok(())
    })
}

/// Records wait for the journal, others only for the subscriber's queue: that
/// one overtakes the other must cost neither.
#[test]
fn a_persistent_subscriber_misses_nothing_when_one_message_overtakes_another() -> io::Result<()> {
    const EACH: u32 = 1_000;
    let house = House::new();
    let mut hears = house.client(&Connect::persistent(5, "hears"))?;
    hears.subscribe(&[("records/#", 1), ("plain/#", 1)])?;
    let publishers = [
        publish_numbers(&house, "records", EACH, |n| {
            Message::new("records/a", format!("records {n}"), 1)
        }),
        publish_numbers(&house, "plain", EACH, |n| {
            Message::new("plain/a", format!("plain {n}"), 1)
        }),
    ];
    let mut next: HashMap<String, u32> = HashMap::new();
    for _ in 0..2 * EACH {
        let got = hears.take()?;
        let text = got.text();
        let (who, n) = text.split_once(' ').unwrap();
        let next = next.entry(who.to_owned()).or_default();
        assert_eq!(n, next.to_string());
        *next += 1;
    }
    for publisher in publishers {
        publisher.join().unwrap()?;
    }
    hears.nothing_came()
}

/// Every other message is retained and waits for the store.
#[test]
fn one_publishers_messages_on_a_topic_stay_in_order_for_live_subscribers() -> io::Result<()> {
    const COUNT: u32 = 1_000;
    let house = House::new();
    for version in VERSIONS {
        let mut hears = house.clean(version, "hears")?;
        let topics = [format!("status/{version}"), format!("records/{version}")];
        hears.subscribe(&[(&topics[0], 1), (&topics[1], 1)])?;
        for topic in topics {
            let publisher = publish_numbers(&house, "speaks", COUNT, move |n| {
                let message = Message::new(&topic, n.to_string(), 1);
                if n % 2 == 0 {
                    message.retained()
                } else {
                    message
                }
            });
            for n in 0..COUNT {
                assert_eq!(hears.take()?.text(), n.to_string());
            }
            publisher.join().unwrap()?;
        }
    }
    Ok(())
}

#[test]
fn a_clean_session_with_a_share_beside_a_subscription_misses_nothing() -> io::Result<()> {
    const EACH: u32 = 200;
    let house = House::new();
    let mut hears = house.clean(5, "hears")?;
    hears.subscribe(&[("$share/g/shared", 1), ("own", 1)])?;
    let shared = publish_numbers(&house, "shared", EACH, |n| {
        Message::new("shared", n.to_string(), 1)
    });
    let own = publish_numbers(&house, "own", EACH, |n| {
        Message::new("own", n.to_string(), 1)
    });
    let mut next = HashMap::new();
    for _ in 0..2 * EACH {
        let got = hears.take()?;
        let next: &mut u32 = next.entry(got.topic.clone()).or_default();
        assert_eq!(got.text(), next.to_string());
        *next += 1;
    }
    shared.join().unwrap()?;
    own.join().unwrap()?;
    hears.nothing_came()
}

#[test]
fn a_new_subscriber_gets_every_retained_message_however_many() -> io::Result<()> {
    const COUNT: u32 = 2_000;
    let house = House::new();
    let publisher = publish_numbers(&house, "speaks", COUNT, |n| {
        Message::new(&format!("kept/{n:05}"), n.to_string(), 1).retained()
    });
    publisher.join().unwrap()?;
    for (connect, qos) in [
        (Connect::clean(4, "clean"), 0),
        (Connect::clean(5, "clean"), 1),
        (Connect::persistent(4, "kept-4"), 1),
        (Connect::persistent(5, "kept-5"), 0),
    ] {
        let mut hears = house.client(&connect)?;
        hears.subscribe(&[("kept/+", qos)])?;
        for n in 0..COUNT {
            let got = hears.take()?;
            assert_eq!((got.topic, got.retain), (format!("kept/{n:05}"), true));
        }
        hears.nothing_came()?;
    }
    Ok(())
}

#[test]
fn the_retained_message_a_subscriber_gets_is_never_older_than_what_it_has() -> io::Result<()> {
    const COUNT: u32 = 2_000;
    let house = House::new();
    let publisher = publish_numbers(&house, "speaks", COUNT, |n| {
        Message::new("value", n.to_string(), 1).retained()
    });
    let mut round = 0;
    loop {
        round += 1;
        let mut hears = house.client(&Connect::persistent(5, &format!("hears-{round}")))?;
        let finished = publisher.is_finished();
        let id = hears.send_subscribe(&[("value", 1)], &[])?;
        let mut last = 0;
        for _ in 0..20 {
            let got = match hears.recv()? {
                Packet::SubAck(got, _) if got == id => continue,
                Packet::Publish(got) => got,
                other => panic!("{other:?}"),
            };
            hears.acknowledge(&got)?;
            let value = got.text().parse().unwrap();
            assert!(value >= last, "{value} after {last}");
            last = value;
            if last == COUNT - 1 {
                break;
            }
        }
        hears.send_raw(&[0xE0, 0])?;
        if finished {
            assert_eq!(last, COUNT - 1);
            break;
        }
    }
    publisher.join().unwrap()
}

/// A publisher that says goodbye in the same breath.
#[test]
fn what_was_published_before_a_disconnect_still_reaches_subscribers() -> io::Result<()> {
    let house = House::new();
    let mut hears = house.client(&Connect::persistent(4, "hears"))?;
    hears.subscribe(&[("records/#", 2), ("plain", 2)])?;
    for n in 0..20 {
        for (topic, qos) in [
            ("records/x", 0),
            ("records/x", 1),
            ("plain", 0),
            ("plain", 1),
        ] {
            let mut hasty = house.clean(4, "hasty")?;
            let text = format!("{n} {topic} {qos}");
            let mut bytes = hasty.publish_bytes(&Message::new(topic, &text, qos).id(1));
            bytes.extend([0xE0, 0]);
            hasty.send_raw(&bytes)?;
            assert_eq!(hears.take()?.text(), text);
        }
    }
    Ok(())
}
