//! Many terminals at once: one never holds up another.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use risiti_gateway::limits;
use risiti_tests::wire_client::{Message, Wire};

use crate::house::{House, VERSIONS};
use crate::receipts::{lasting, stays_quiet};

#[test]
fn terminals_that_never_acknowledge_hold_up_nobody() -> io::Result<()> {
    let house = House::new();
    let texts: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let mut stuck = Vec::new();
    for n in 0..limits::RECEIPT_PAGES_AT_ONCE * 3 {
        let id = format!("stuck-{n}");
        let mut wire = house.terminal(&lasting(5, &id))?;
        house.issue(&id, &texts);
        assert_eq!(wire.message()?.text(), "0");
        stuck.push(wire);
    }
    for version in VERSIONS {
        let id = format!("good-{version}");
        let mut good = house.terminal(&lasting(version, &id))?;
        house.issue(&id, &texts[..100]);
        for text in &texts[..100] {
            assert_eq!(&good.take()?.text(), text);
        }
    }
    // They got their window full, in order, and no more.
    let window = risiti_mqtt::ConnectionLimits::default().inflight_max;
    for wire in &mut stuck {
        for text in &texts[1..usize::from(window)] {
            assert_eq!(&wire.message()?.text(), text);
        }
        wire.nothing_came()?;
    }
    // One that goes on gets all the others.
    let mut goes_on = stuck.swap_remove(0);
    drop(stuck);
    for id in 0..300 {
        goes_on.puback(0x8000 + id)?;
        if let Some(text) = texts.get(usize::from(window + id)) {
            assert_eq!(&goes_on.message()?.text(), text);
        }
    }
    stays_quiet(&mut goes_on)
}

/// A storm of terminals that come back, each to what waits for it; meanwhile
/// others publish, and get receipts as they come.
#[test]
fn a_storm_of_reconnects_does_not_stop_the_others() -> io::Result<()> {
    const TERMINALS: usize = 400;
    // So many that the storm outlasts a few syncs of a slow disk.
    const EACH: usize = 60;
    let mut house = House::new();
    let connect = |n: usize| {
        lasting(
            if n.is_multiple_of(2) { 4 } else { 5 },
            &format!("storm-{n}"),
        )
    };
    let texts: Vec<_> = (0..EACH).map(|n| n.to_string()).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    for n in 0..TERMINALS {
        house.terminal(&connect(n))?.disconnect()?;
        house.issue(&format!("storm-{n}"), &texts);
    }
    house.restart();
    let steady = lasting(5, "steady");
    let mut steady = house.terminal(&steady)?;
    let mut speaks = house.clean(5, "speaks")?;
    let over = AtomicBool::new(false);
    let served = AtomicU64::new(0);
    let meanwhile = std::thread::scope(|scope| -> io::Result<u64> {
        let mut threads = Vec::new();
        for thread in 0..8 {
            let (house, served) = (&house, &served);
            threads.push(scope.spawn(move || -> io::Result<()> {
                let mut wires = Vec::new();
                for n in (thread..TERMINALS).step_by(8) {
                    wires.push(Wire::accepted(house.addr(), &connect(n))?);
                }
                for mut wire in wires {
                    for n in 0..EACH {
                        assert_eq!(wire.take()?.text(), n.to_string());
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        let (house, over) = (&house, &over);
        let others = scope.spawn(move || -> io::Result<u64> {
            let mut answers = 0;
            loop {
                speaks.publish(&Message::new("records/a", "x", 1))?;
                answers += u64::from(!over.load(Ordering::Acquire));
                house.issue("steady", &["now"]);
                assert_eq!(steady.take()?.text(), "now");
                if over.load(Ordering::Acquire) {
                    return Ok(answers);
                }
                answers += 1;
            }
        });
        let done: io::Result<Vec<()>> = threads
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect();
        over.store(true, Ordering::Release);
        let answers = others.join().expect("no panic")?;
        done.map(|_| answers)
    })?;
    assert_eq!(served.load(Ordering::Relaxed), TERMINALS as u64);
    println!("{meanwhile} answers to the others meanwhile");
    assert!(meanwhile > 0, "the others stood still");
    house.until_waiting(0);
    let delivered: HashSet<_> = house
        .delivered()
        .into_iter()
        .map(|d| (d.terminal, d.number))
        .collect();
    assert!(delivered.len() >= TERMINALS * EACH);
    Ok(())
}
