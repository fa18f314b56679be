//! A receipt is its terminal's: who may read, and who may write, a receipts topic.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use risiti_tests::wire_client::{Connect, Message, Packet, Wire};

use crate::house::{House, VERSIONS};
use crate::receipts::{lasting, stays_quiet, topic};

/// Every way to ask for receipts that are not one's own: filter, and whether it
/// is refused. The others are granted, for they cover more than receipts, and
/// bring none.
const WAYS: [(&str, bool); 14] = [
    ("t/7/receipts", true),
    ("$share/g/t/7/receipts", true),
    ("t//receipts", true),
    ("#", false),
    ("+/#", false),
    ("+/+/+", false),
    ("+/7/receipts", false),
    ("t/#", false),
    ("t/+/receipts", false),
    ("t/7/#", false),
    ("t/7/+", false),
    ("t/7/receipts/#", false),
    ("$share/g/t/+/receipts", false),
    ("$share/g/#", false),
];

/// Identities that might be mistaken for the terminal `7`.
const IDENTITIES: [&str; 8] = ["8", "77", "07", "+", "#", "7/receipts", "t/7", "receipts/7"];

fn refused(version: u8) -> u8 {
    if version == 5 { 0x87 } else { 0x80 }
}

#[test]
fn nobody_but_its_terminal_gets_a_receipt() -> io::Result<()> {
    for persistent in [true, false] {
        let house = House::new();
        let mut others = Vec::new();
        for version in VERSIONS {
            for identity in IDENTITIES {
                let id = if version == 5 {
                    identity.to_owned()
                } else {
                    // One connection an identity; what stands for another version
                    // is as foreign.
                    format!("{identity}-")
                };
                let mut wire = house.client(&if persistent {
                    lasting(version, &id)
                } else {
                    Connect::clean(version, &id)
                })?;
                for (filter, is_refused) in WAYS {
                    for qos in 0..=2 {
                        let granted = wire.subscribe(&[(filter, qos)])?;
                        let expected = if is_refused { refused(version) } else { qos };
                        assert_eq!(granted, [expected], "{id} {filter}");
                    }
                }
                others.push((id, version, wire));
            }
        }
        let mut seven = house.terminal(&lasting(5, "7"))?;
        // Its own, by every way that covers more.
        for (filter, is_refused) in WAYS {
            if !is_refused {
                assert_eq!(seven.subscribe(&[(filter, 1)])?, [1]);
            }
        }
        house.issue("7", &["one"]);
        assert_eq!(seven.take()?.text(), "one");
        house.until_waiting(0);
        house.issue("7", &["two"]);
        let two = seven.message()?;
        assert_eq!(two.text(), "two");
        stays_quiet(&mut seven)?;
        for (_, _, wire) in &mut others {
            wire.nothing_came()?;
        }
        // Not from a queue, a retained store or a share, either, later on.
        if persistent {
            for (id, version, wire) in others {
                wire.disconnect()?;
                let mut wire = house.client(&lasting(version, &id))?;
                for (filter, _) in WAYS {
                    wire.subscribe(&[(filter, 1)])?;
                }
                wire.nothing_came()?;
            }
        }
        assert_eq!(house.gateway().outbox().waiting(), 1);
        seven.acknowledge(&two)?;
        house.until_waiting(0);
    }
    Ok(())
}

#[test]
fn a_client_subscribes_to_its_own_receipts_by_their_exact_topic_only() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let id = format!("own-{version}");
        house.issue(&id, &["one"]);
        let mut wire = house.client(&lasting(version, &id))?;
        let share = format!("$share/g/{}", topic(&id));
        assert_eq!(
            wire.subscribe(&[(&share, 1), ("t/+/receipts", 1), ("#", 1)])?,
            [refused(version), 1, 1]
        );
        stays_quiet(&mut wire)?;
        assert_eq!(wire.subscribe(&[("x", 2), (&topic(&id), 2)])?, [2, 1]);
        assert_eq!(wire.take()?.text(), "one");
        house.until_waiting(0);
    }
    Ok(())
}

#[test]
fn unsubscribe_ends_the_delivery_and_another_can_not_end_it() -> io::Result<()> {
    let mut house = House::new();
    for version in VERSIONS {
        let id = format!("leaves-{version}");
        let mut wire = house.terminal(&lasting(version, &id))?;
        let mut other = house.clean(version, "other")?;
        let codes = other.unsubscribe(&[&topic(&id), "nothing"])?;
        if version == 5 {
            assert_eq!(codes, [0x87, 0x11]);
        }
        house.issue(&id, &["one", "two"]);
        let one = wire.message()?;
        let two = wire.message()?;
        let codes = wire.unsubscribe(&[&topic(&id)])?;
        let again = wire.unsubscribe(&[&topic(&id)])?;
        if version == 5 {
            assert_eq!((codes, again), (vec![0], vec![0x11]));
        }
        house.issue(&id, &["three"]);
        // What was sent is still acknowledged.
        wire.acknowledge(&one)?;
        house.until_waiting(2);
        stays_quiet(&mut wire)?;
        wire.disconnect()?;
        let mut wire = house.client(&lasting(version, &id))?;
        assert_eq!(wire.message()?, two.clone().again());
        stays_quiet(&mut wire)?;
        wire.disconnect()?;
        house.restart();
        let mut wire = house.client(&lasting(version, &id))?;
        stays_quiet(&mut wire)?;
        wire.subscribe(&[(&topic(&id), 1)])?;
        assert_eq!(wire.take()?.text(), two.text());
        assert_eq!(wire.take()?.text(), "three");
        house.until_waiting(0);
    }
    Ok(())
}

#[test]
fn nobody_publishes_a_receipt_but_the_gateway() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let id = format!("reads-{version}");
        let mut reads = house.terminal(&lasting(version, &id))?;
        // Its own terminal no more than another.
        for who in ["forges", &id] {
            for qos in 0..=2 {
                for retain in [false, true] {
                    if who == id && qos > 0 && version == 4 {
                        continue; // it would take the session over
                    }
                    let mut message = Message::new(&topic(&id), "forged", qos).id(7);
                    message.retain = retain;
                    let mut other;
                    let wire = if who == id {
                        &mut reads
                    } else {
                        other = house.clean(version, who)?;
                        &mut other
                    };
                    wire.send_publish(&message)?;
                    match (version, qos) {
                        (_, 0) => wire.nothing_came()?,
                        (5, 1) => assert_eq!(wire.recv()?, Packet::PubAck(7, 0x87)),
                        (5, _) => assert_eq!(wire.recv()?, Packet::PubRec(7, 0x87)),
                        // 3.1.1 can say no in one way only.
                        _ => {
                            assert_eq!(wire.recv_within(risiti_tests::wire_client::PATIENCE)?, None)
                        }
                    }
                }
            }
        }
        let will = Connect::clean(version, "dies").will(Message::new(&topic(&id), "forged", 1));
        let (_, ack) = Wire::connect(house.addr(), &will)?;
        assert_eq!(ack.code, if version == 5 { 0x87 } else { 5 });
        reads.nothing_came()?;
        house.issue(&id, &["true"]);
        assert_eq!(reads.take()?.text(), "true");
    }
    Ok(())
}

#[test]
fn a_route_over_receipts_topics_lets_nobody_publish_there() -> io::Result<()> {
    let house = House::with(|config| {
        config.routes[0].filter = "t/#".into();
        config.routes[0].format = risiti_config::Format::Raw;
    });
    let mut wire = house.clean(5, "7")?;
    wire.publish(&Message::new("t/7/anything", "x", 1))?;
    wire.send_publish(&Message::new(&topic("7"), "x", 1).id(7))?;
    assert_eq!(wire.recv()?, Packet::PubAck(7, 0x87));
    Ok(())
}

/// Whether receipts have their usual topics by now.
static USUAL: AtomicBool = AtomicBool::new(false);

#[test]
fn what_was_an_ordinary_topic_gives_nothing_away_once_receipts_go_there() -> io::Result<()> {
    let mut house = House::with(|config| {
        if !USUAL.load(Ordering::SeqCst) {
            config.terminals.receipts = "elsewhere/{id}".into();
        }
    });
    for version in VERSIONS {
        let mut wire = house.client(&lasting(version, &format!("spy-{version}")))?;
        assert_eq!(wire.subscribe(&[(&topic("7"), 1), ("t/#", 1)])?, [1, 1]);
        wire.disconnect()?;
    }
    let mut forges = house.clean(5, "forges")?;
    forges.publish(&Message::new(&topic("8"), "forged", 1).retained())?;
    drop(forges);
    let mut seven = house.client(&lasting(5, "7"))?;
    seven.subscribe(&[(&topic("7"), 1)])?;
    seven.disconnect()?;

    USUAL.store(true, Ordering::SeqCst);
    house.restart();
    house.issue("7", &["one"]);
    // The terminal's own subscription has become one to its receipts.
    let mut seven = house.client(&lasting(5, "7"))?;
    assert_eq!(seven.take()?.text(), "one");
    house.until_waiting(0);
    for version in VERSIONS {
        let mut spy = house.client(&lasting(version, &format!("spy-{version}")))?;
        let queued = spy.take()?; // it was its own by the rules of then
        assert_eq!(
            (&*queued.topic, queued.text()),
            (&*topic("8"), "forged".into())
        );
        stays_quiet(&mut spy)?;
        assert_eq!(spy.subscribe(&[("t/#", 1)])?, [1]);
        stays_quiet(&mut spy)?; // nothing retained either
    }
    let mut eight = house.terminal(&lasting(5, "8"))?;
    stays_quiet(&mut eight)
}
