//! Bounds: what one client can make the gateway hold, and who feels it.

use std::io;
use std::time::Duration;

use risiti_config::ByteSize;
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::wire_client::{Connect, Message, Packet, Wire};

use crate::house::{House, VERSIONS};
use crate::restart::CONFIG;

#[test]
fn a_full_session_queue_keeps_its_oldest_and_costs_nobody_else() -> io::Result<()> {
    let house = House::with(|config| {
        config.mqtt.limits.queued_messages_per_session_max = 10;
    });
    for id in ["away", "other"] {
        let mut wire = house.client(&Connect::persistent(5, id))?;
        wire.subscribe(&[(if id == "away" { "+" } else { "a" }, 1)])?;
        wire.disconnect()?;
    }
    let mut speaks = house.clean(5, "speaks")?;
    for n in 0..15 {
        speaks.publish(&Message::new("b", n.to_string(), 1))?;
    }
    speaks.publish(&Message::new("a", "15", 1))?;
    let mut other = house.client(&Connect::persistent(5, "other"))?;
    assert_eq!(other.take()?.text(), "15");
    let mut away = house.client(&Connect::persistent(5, "away"))?;
    for n in 0..10 {
        assert_eq!(away.take()?.text(), n.to_string());
    }
    away.nothing_came()?;
    // There is room again.
    speaks.publish(&Message::new("b", "again", 1))?;
    assert_eq!(away.take()?.text(), "again");
    let full = &house.broker().metrics.queue_full;
    assert_eq!(full.load(std::sync::atomic::Ordering::Relaxed), 6);
    Ok(())
}

#[test]
fn subscriptions_of_a_session_are_bounded_and_a_renewal_needs_no_room() -> io::Result<()> {
    let house = House::with(|config| {
        config.mqtt.limits.subscriptions_per_session_max = 3;
    });
    for version in VERSIONS {
        for connect in [
            Connect::clean(version, "clean"),
            Connect::persistent(version, &format!("kept-{version}")),
        ] {
            let mut wire = house.client(&connect)?;
            let refused = if version == 5 { 0x97 } else { 0x80 };
            assert_eq!(
                wire.subscribe(&[("a", 0), ("b/+", 1), ("$share/g/c", 2), ("d", 0)])?,
                [0, 1, 2, refused]
            );
            assert_eq!(wire.subscribe(&[("a", 2)])?, [2]);
            wire.unsubscribe(&["a"])?;
            assert_eq!(wire.subscribe(&[("d", 0)])?, [0]);
        }
    }
    Ok(())
}

#[test]
fn retained_messages_are_bounded_in_number_and_bytes() -> io::Result<()> {
    let mut house = House::with(|config| {
        config.mqtt.limits.retained_messages_max = 3;
        config.mqtt.limits.retained_bytes_max = ByteSize::mib(1);
    });
    let mut speaks = house.clean(5, "speaks")?;
    for n in 0..5 {
        speaks.publish(&Message::new(&format!("kept/{n}"), "x", 1).retained())?;
    }
    assert_eq!(house.broker().retained(), 3);
    // Replacing and removing always work.
    speaks.publish(&Message::new("kept/0", "y", 1).retained())?;
    speaks.publish(&Message::new("kept/1", "", 1).retained())?;
    assert_eq!(house.broker().retained(), 2);
    // What was refused is not in the store either.
    house.restart();
    assert_eq!(house.broker().retained(), 2);
    Ok(())
}

#[test]
fn connections_beyond_the_maximum_are_closed_and_those_that_are_open_go_on() -> io::Result<()> {
    let house = House::with(|config| config.mqtt.limits.connections_max = 3);
    let mut open = (0..3)
        .map(|n| house.clean(4, &format!("c{n}")))
        .collect::<io::Result<Vec<_>>>()?;
    for _ in 0..5 {
        let mut refused = Wire::open(house.addr(), 4)?;
        assert!(refused.ended()?.is_none());
    }
    for wire in &mut open {
        wire.ping()?;
    }
    open.pop().unwrap().disconnect()?;
    house.until("the place is free", || house.broker().connections() == 2);
    house.clean(4, "next")?.ping()
}

#[test]
fn sessions_beyond_the_maximum_are_refused_until_one_ends() -> io::Result<()> {
    let house = House::with(|config| config.mqtt.limits.sessions_max = 2);
    house.client(&Connect::persistent(5, "one"))?.disconnect()?;
    house.client(&Connect::persistent(4, "two"))?.disconnect()?;
    let (_, ack) = Wire::connect(house.addr(), &Connect::clean(5, "three"))?;
    assert_eq!(ack.code, 0x97);
    // Those that exist may come back.
    house.client(&Connect::persistent(5, "one"))?.disconnect()?;
    house.clean(4, "two")?.disconnect()?;
    house.clean(5, "three")?.ping()
}

/// A client that subscribes to a flood and reads nothing of it.
#[test]
fn a_slow_reader_is_cut_off_without_growing_memory() -> io::Result<()> {
    const FLOOD: u32 = 20_000;
    let dir = tempfile::tempdir()?;
    let config = format!("[mqtt]\nwrite_timeout_s = 2\n{CONFIG}");
    let gateway = GatewayProcess::start(&config, dir.path(), ProcessSwitches::default(), None)?;
    let addr = gateway.mqtt_addr();
    let mut slow = Wire::accepted(addr, &Connect::clean(4, "slow"))?;
    slow.subscribe(&[("flood", 0), ("+", 1), ("$share/g/flood", 1)])?;
    let mut kept = Wire::accepted(addr, &Connect::persistent(5, "kept"))?;
    kept.subscribe(&[("flood", 0)])?;
    let mut quick = Wire::accepted(addr, &Connect::clean(5, "quick"))?;
    quick.subscribe(&[("other", 1)])?;
    let before = gateway.resident_bytes()?;
    let mut speaks = Wire::accepted(addr, &Connect::clean(5, "speaks"))?;
    let payload = vec![b'x'; 4_000];
    let mut highest = before;
    for n in 0..FLOOD {
        speaks.publish(&Message::new("flood", &payload, u8::from(n % 50 == 0)))?;
        if n % 1_000 == 0 {
            speaks.publish(&Message::new("other", n.to_string(), 1))?;
            assert_eq!(quick.take()?.text(), n.to_string());
            highest = highest.max(gateway.resident_bytes()?);
        }
    }
    println!(
        "resident: {} MiB before, {} MiB at most in a flood of {} MiB",
        before >> 20,
        highest >> 20,
        (FLOOD as usize * payload.len()) >> 20
    );
    assert!(highest - before < 40 << 20, "{before} → {highest}");
    // The flood is over, what waits for them is not: they are cut off.
    gateway.wait_until("the slow readers are gone", Duration::from_secs(20), |s| {
        s.connections == 2
    })?;
    assert!(gateway.log().contains("takes no bytes"));
    Ok(())
}

#[test]
fn a_flood_of_subscriptions_is_held_within_its_bounds_and_leaves_nothing() -> io::Result<()> {
    let house = House::new();
    let mut innocent = house.clean(5, "innocent")?;
    innocent.subscribe(&[("calm", 1)])?;
    let levels = vec!["+"; 60].join("/");
    let mut greedy = Vec::new();
    for n in 0..40 {
        let version = VERSIONS[n % 2];
        let mut wire = house.clean(version, &format!("greedy-{n}"))?;
        let filters: Vec<String> = (0..64)
            .map(|k| match k % 4 {
                0 => format!("{levels}/{n}/{k}"),
                1 => format!("$share/group-{n}-{k}/#"),
                2 => format!("+/{n}-{k}/#"),
                _ => format!("{}/{n}/{k}", "deep/".repeat(50)),
            })
            .collect();
        let filters: Vec<(&str, u8)> = filters.iter().map(|f| (f.as_str(), 0)).collect();
        let codes = wire.subscribe(&filters)?;
        assert!(codes.iter().all(|c| *c < 0x80 || *c == 0x8F || *c == 0x80));
        greedy.push(wire);
    }
    let mut speaks = house.clean(5, "speaks")?;
    for n in 0..100 {
        speaks.publish(&Message::new("calm", n.to_string(), 1))?;
        assert_eq!(innocent.take()?.text(), n.to_string());
    }
    drop(greedy);
    house.until("their filters are gone", || house.broker().filters() == 1);
    house.until("their links are gone", || {
        house.broker().fanout().links() <= 2
    });
    Ok(())
}

/// More QoS 2 messages than are ever released, from a client of a version
/// without receive maximum.
#[test]
fn unreleased_qos_2_messages_are_bounded() -> io::Result<()> {
    let house = House::new();
    let mut wire = house.client(&Connect::persistent(4, "c"))?;
    let mut taken = 0;
    for id in 1..=3_000 {
        if wire
            .send_publish(&Message::new("a", "x", 2).id(id))
            .is_err()
        {
            break;
        }
        match wire.recv_within(Duration::from_secs(30))? {
            Some(Packet::PubRec(..)) => taken += 1,
            Some(other) => panic!("{other:?}"),
            None => break,
        }
    }
    assert_eq!(taken, 1_024);
    Ok(())
}

/// Many filters with live subscribers, each of which gets some: what the router
/// keeps of it must not add up.
#[test]
fn what_was_published_to_live_subscribers_leaves_little_behind() -> io::Result<()> {
    const CLIENTS: usize = 20;
    const FILTERS: usize = 50;
    const EACH: usize = 40;
    let dir = tempfile::tempdir()?;
    let gateway = GatewayProcess::start(CONFIG, dir.path(), ProcessSwitches::default(), None)?;
    let addr = gateway.mqtt_addr();
    let mut hear = Vec::new();
    for client in 0..CLIENTS {
        let mut wire = Wire::accepted(addr, &Connect::clean(4, &format!("hears-{client}")))?;
        let filters: Vec<_> = (0..FILTERS).map(|n| format!("{client}/{n}")).collect();
        let filters: Vec<_> = filters.iter().map(|f| (f.as_str(), 0)).collect();
        wire.subscribe(&filters)?;
        hear.push(wire);
    }
    let before = gateway.resident_bytes()?;
    let mut speaks = Wire::accepted(addr, &Connect::clean(5, "speaks"))?;
    let payload = vec![b'x'; 4_000];
    for _ in 0..EACH {
        for (client, wire) in hear.iter_mut().enumerate() {
            for n in 0..FILTERS {
                speaks.publish(&Message::new(&format!("{client}/{n}"), &payload, 0))?;
            }
            for n in 0..FILTERS {
                assert_eq!(wire.take()?.topic, format!("{client}/{n}"));
            }
        }
    }
    let after = gateway.resident_bytes()?;
    println!(
        "resident: {} MiB before, {} MiB after {} MiB through {} filters",
        before >> 20,
        after >> 20,
        (CLIENTS * FILTERS * EACH * payload.len()) >> 20,
        CLIENTS * FILTERS
    );
    // Two messages a filter are 8 MiB; all would be 152.
    assert!(after - before.min(after) < 40 << 20, "{before} → {after}");
    Ok(())
}
