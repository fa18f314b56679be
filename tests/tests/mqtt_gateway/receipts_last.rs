//! The last receipt is retained: a terminal asks for it again by SUBSCRIBE.

use std::io;

use risiti_tests::wire_client::{Connect, Value, Wire, property};

use crate::house::{House, NO_RETAINED, ONLY_IF_NEW, VERSIONS};
use crate::receipts::{issue_to, lasting, stays_quiet, take, topic};

fn ask(wire: &mut Wire, id: &str, options: u8) -> io::Result<()> {
    assert_eq!(wire.subscribe(&[(&topic(id), options)])?, [1]);
    Ok(())
}

#[test]
fn a_subscribe_brings_the_last_receipt_again_and_delivers_nothing() -> io::Result<()> {
    let mut house = House::new();
    for version in VERSIONS {
        let id = format!("last-{version}");
        let connect = lasting(version, &id);
        let mut wire = house.terminal(&connect)?;
        stays_quiet(&mut wire)?; // there never was one
        house.issue(&id, &["one", "two"]);
        assert_eq!(take(&mut wire, 2)?, ["one", "two"]);
        house.until_waiting(0);
        for n in 0..3 {
            if n == 1 {
                house.restart();
                wire = house.client(&connect)?;
            }
            ask(&mut wire, &id, 1)?;
            let copy = wire.message()?;
            assert_eq!((copy.text(), copy.qos), ("two".into(), 1));
            assert_eq!((copy.retain, copy.dup), (true, false));
            wire.acknowledge(&copy)?;
            stays_quiet(&mut wire)?;
        }
        let delivered = house.delivered();
        assert_eq!(delivered.iter().filter(|d| d.terminal == id).count(), 2);
        // The next one is an ordinary one.
        house.issue(&id, &["three"]);
        let three = wire.take()?;
        assert_eq!((three.text(), three.retain), ("three".into(), false));
        house.until_waiting(0);
    }
    Ok(())
}

#[test]
fn what_waits_comes_instead_and_is_not_retained() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let id = format!("waits-{version}");
        let mut wire = house.terminal(&Connect::clean(version, &id))?;
        house.issue(&id, &["one"]);
        wire.take()?;
        house.until_waiting(0);
        wire.disconnect()?;
        house.issue(&id, &["two", "three"]);
        let mut wire = house.terminal(&Connect::clean(version, &id))?;
        for text in ["two", "three"] {
            let got = wire.take()?;
            assert_eq!((got.text().as_str(), got.retain), (text, false));
        }
        stays_quiet(&mut wire)?;
    }
    Ok(())
}

#[test]
fn retain_handling_is_honoured() -> io::Result<()> {
    let house = House::new();
    let mut wire = house.client(&lasting(5, "handles"))?;
    ask(&mut wire, "handles", 1 | NO_RETAINED)?;
    house.issue("handles", &["one"]);
    wire.take()?;
    house.until_waiting(0);
    ask(&mut wire, "handles", 1 | NO_RETAINED)?;
    ask(&mut wire, "handles", 1 | ONLY_IF_NEW)?;
    stays_quiet(&mut wire)?;
    wire.unsubscribe(&[&topic("handles")])?;
    ask(&mut wire, "handles", 1 | ONLY_IF_NEW)?;
    assert!(wire.take()?.retain);
    ask(&mut wire, "handles", 1)?;
    assert!(wire.take()?.retain);
    Ok(())
}

#[test]
fn a_copy_whose_connection_broke_comes_again_with_dup() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let id = format!("broke-{version}");
        let connect = lasting(version, &id);
        let mut wire = house.terminal(&connect)?;
        house.issue(&id, &["one"]);
        wire.take()?;
        house.until_waiting(0);
        ask(&mut wire, &id, 1)?;
        let copy = wire.message()?;
        drop(wire);
        let mut wire = house.client(&connect)?;
        assert_eq!(wire.take()?, copy.again());
        wire.disconnect()?;
        stays_quiet(&mut house.client(&connect)?)?;
    }
    assert_eq!(house.delivered().len(), 2);
    Ok(())
}

#[test]
fn an_expired_last_receipt_is_not_given_out() -> io::Result<()> {
    let house = House::with_clock(|_| {});
    let mut wire = house.terminal(&lasting(5, "stale"))?;
    let expires_ms = 1_700_000_000_000 + 60_000;
    issue_to(
        house.gateway().outbox(),
        "stale",
        &["one"],
        Some(expires_ms),
    );
    wire.take()?;
    house.until_waiting(0);
    house.clock.as_ref().unwrap().advance_ms(50_000);
    ask(&mut wire, "stale", 1)?;
    let rest = wire.take()?;
    assert_eq!(
        rest.property(property::MESSAGE_EXPIRY),
        Some(&Value::Four(10))
    );
    house.clock.as_ref().unwrap().advance_ms(10_000);
    ask(&mut wire, "stale", 1)?;
    stays_quiet(&mut wire)
}
