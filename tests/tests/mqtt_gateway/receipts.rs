//! The receipt's last mile: from the outbox to its terminal's PUBACK.
//!
//! Receipts are put into the gateway's outbox as its consumer does it; what
//! comes before that is `receipts_consumer`'s.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use risiti_bridge::receipts::{Delivered, Outbox, Poll, Received};
use risiti_store::{Journal, RecordSource};
use risiti_tests::wire_client::{Connect, Message, Value, Wire, property};

use crate::house::{House, VERSIONS, until};

/// The topic of a terminal's receipts.
pub fn topic(terminal: &str) -> String {
    format!("t/{terminal}/receipts")
}

/// A session that lasts as long as the gateway allows.
pub fn lasting(version: u8, client_id: &str) -> Connect {
    let connect = Connect::persistent(version, client_id);
    match version {
        5 => connect.with(property::SESSION_EXPIRY, Value::Four(u32::MAX)),
        _ => connect,
    }
}

/// Stores receipts for a terminal, the payload of each its text, and waits until
/// they are durable.
pub fn issue_to(outbox: &Arc<Outbox>, terminal: &str, texts: &[&str], expires_ms: Option<u64>) {
    let end = outbox.end(terminal).unwrap();
    let received: Vec<_> = (end..)
        .zip(texts)
        .map(|(number, text)| Received {
            terminal: terminal.into(),
            sequence: number + 1_000,
            status: 0,
            settled_ms: 0,
            expires_ms,
            partition: 0,
            offset: 0,
            payload: text.as_bytes().to_vec().into(),
        })
        .collect();
    for received in received.chunks(100) {
        let poll = Poll {
            receipts: received.to_vec(),
            ..Poll::default()
        };
        outbox.submit("default", &poll).unwrap();
    }
    until("the receipts are stored", || {
        outbox.end(terminal).unwrap() == end + texts.len() as u64
    });
}

impl House {
    /// Stores receipts that do not expire.
    pub fn issue(&self, terminal: &str, texts: &[&str]) {
        issue_to(self.gateway().outbox(), terminal, texts, None);
    }

    /// A terminal that has subscribed and is connected.
    pub fn terminal(&self, connect: &Connect) -> io::Result<Wire> {
        let mut wire = self.client(connect)?;
        assert_eq!(wire.subscribe(&[(&topic(&connect.client_id), 1)])?, [1]);
        Ok(wire)
    }

    /// Waits until so many receipts wait.
    pub fn until_waiting(&self, count: u64) {
        until("so many receipts wait", || {
            self.gateway().outbox().waiting() == count
        });
    }

    /// The delivery events in the journal.
    pub fn delivered(&self) -> Vec<Delivered> {
        delivered_in(self.gateway().journal())
    }
}

/// The delivery events in a journal.
pub fn delivered_in(journal: &Journal) -> Vec<Delivered> {
    let mut delivered = Vec::new();
    let mut from = journal.oldest();
    while from < journal.end() {
        let read = journal.read(from, 1_000, usize::MAX).unwrap();
        for record in read.records {
            from = record.position + 1;
            if record.record.client_id.starts_with(b"receipts/") {
                delivered.push(Delivered::decode(&record.record.payload).unwrap());
            }
        }
    }
    delivered
}

/// Asserts that nothing comes, also not from a page of the outbox that is being
/// read: that would take milliseconds.
pub fn stays_quiet(wire: &mut Wire) -> io::Result<()> {
    match wire.recv_within(Duration::from_millis(300)) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
        other => Err(io::Error::other(format!("came: {other:?}"))),
    }
}

/// The texts of the next receipts, each acknowledged.
pub fn take(wire: &mut Wire, count: usize) -> io::Result<Vec<String>> {
    (0..count).map(|_| Ok(wire.take()?.text())).collect()
}

#[test]
fn a_connected_terminal_gets_its_receipt_at_once_and_its_puback_ends_it() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let id = format!("at-{version}");
        let mut wire = house.terminal(&lasting(version, &id))?;
        house.issue(&id, &["one"]);
        let got = wire.message()?;
        assert_eq!((got.topic.clone(), got.text()), (topic(&id), "one".into()));
        assert_eq!((got.qos, got.retain, got.dup), (1, false, false));
        assert!(got.packet_id >= 0x8000);
        assert!(house.delivered().iter().all(|d| d.terminal != id));
        wire.acknowledge(&got)?;
        house.until_waiting(0);
        let delivered = house.delivered();
        let delivered: Vec<_> = delivered.iter().filter(|d| d.terminal == id).collect();
        assert_eq!(delivered.len(), 1);
        assert_eq!((delivered[0].number, delivered[0].sequence), (1, 1_001));
        // Twice acknowledged is once delivered.
        wire.acknowledge(&got)?;
        wire.ping()?;
        wire.disconnect()?;
        stays_quiet(&mut house.client(&lasting(version, &id))?)?;
    }
    assert_eq!(house.delivered().len(), 2);
    Ok(())
}

#[test]
fn an_absent_terminal_gets_its_receipts_in_order_without_a_new_subscribe() -> io::Result<()> {
    let mut house = House::new();
    for version in VERSIONS {
        let id = format!("away-{version}");
        let connect = lasting(version, &id);
        house.terminal(&connect)?.disconnect()?;
        let texts: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        house.issue(&id, &texts[..60]);
        house.restart();
        house.issue(&id, &texts[60..]);
        let (mut wire, ack) = Wire::connect(house.addr(), &connect)?;
        assert!(ack.session_present);
        assert_eq!(take(&mut wire, 100)?, texts);
        stays_quiet(&mut wire)?;
        house.until_waiting(0);
    }
    Ok(())
}

#[test]
fn without_a_session_they_come_after_subscribe() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let id = format!("clean-{version}");
        house.issue(&id, &["one", "two"]);
        let mut wire = house.clean(version, &id)?;
        stays_quiet(&mut wire)?;
        wire.subscribe(&[(&topic(&id), 1)])?;
        assert_eq!(wire.take()?.text(), "one");
        let second = wire.message()?;
        house.until_waiting(1);
        drop(wire);
        // What a clean session had in flight is new to the next one.
        let mut wire = house.terminal(&Connect::clean(version, &id))?;
        let got = wire.take()?;
        assert_eq!((got.text(), got.dup), (second.text(), false));
        house.until_waiting(0);
    }
    Ok(())
}

#[test]
fn an_unacknowledged_receipt_comes_again_with_dup_on_each_connection() -> io::Result<()> {
    let mut house = House::new();
    for version in VERSIONS {
        let id = format!("again-{version}");
        let connect = lasting(version, &id);
        let mut wire = house.terminal(&connect)?;
        house.issue(&id, &["one"]);
        let first = wire.message()?;
        drop(wire);
        for n in 0..4 {
            if n == 2 {
                house.restart();
            }
            let mut wire = house.client(&connect)?;
            assert_eq!(wire.message()?, first.clone().again());
            if n % 2 == 0 {
                drop(wire); // the link breaks
            } else {
                wire.disconnect()?;
            }
        }
        house.issue(&id, &["two"]);
        let mut wire = house.client(&connect)?;
        assert_eq!(wire.take()?, first.again());
        let second = wire.take()?;
        assert_eq!((second.text(), second.dup), ("two".into(), false));
        house.until_waiting(0);
    }
    Ok(())
}

#[test]
fn a_takeover_in_the_middle_loses_and_repeats_nothing_that_was_acknowledged() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let id = format!("over-{version}");
        let connect = lasting(version, &id);
        let mut old = house.terminal(&connect)?;
        let texts: Vec<_> = (0..50).map(|n| n.to_string()).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        house.issue(&id, &texts);
        assert_eq!(take(&mut old, 20)?, texts[..20]);
        // All of them are taken before the session is.
        until("twenty are acknowledged", || {
            house.gateway().outbox().waiting() == 30
        });
        let in_flight = old.message()?;
        let mut new = house.client(&connect)?;
        old.ended()?;
        assert_eq!(new.take()?, in_flight.again());
        assert_eq!(take(&mut new, 29)?, texts[21..]);
        stays_quiet(&mut new)?;
        house.until_waiting(0);
    }
    Ok(())
}

#[test]
fn a_receive_maximum_of_one_lets_through_one_at_a_time_and_both_kinds() -> io::Result<()> {
    const RECEIPTS: u32 = 300;
    const MESSAGES: u32 = 300;
    let house = House::new();
    let connect = lasting(5, "narrow").with(property::RECEIVE_MAXIMUM, Value::Two(1));
    let mut wire = house.terminal(&connect)?;
    wire.subscribe(&[("plain", 1)])?;
    wire.disconnect()?;
    let mut speaks = house.clean(5, "speaks")?;
    for n in 0..MESSAGES {
        speaks.publish(&Message::new("plain", n.to_string(), 1))?;
    }
    let texts: Vec<_> = (0..RECEIPTS).map(|n| n.to_string()).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    house.issue("narrow", &texts);
    let mut wire = house.client(&connect)?;
    let (mut receipts, mut messages) = (0, 0);
    while receipts + messages < RECEIPTS + MESSAGES {
        let got = wire.message()?;
        wire.nothing_came()?; // before it is acknowledged
        wire.acknowledge(&got)?;
        let count = match got.topic.as_str() {
            "plain" => &mut messages,
            _ => &mut receipts,
        };
        assert_eq!(got.text(), count.to_string());
        *count += 1;
        // They take turns: neither kind waits for the end of the other.
        if messages == MESSAGES - 1 {
            assert!(receipts > RECEIPTS / 5, "{receipts}");
        }
        if receipts == RECEIPTS - 1 {
            assert!(messages > MESSAGES / 5, "{messages}");
        }
    }
    house.until_waiting(0);
    Ok(())
}

#[test]
fn the_rest_of_the_expiry_goes_along_and_an_expired_one_is_dropped_and_counted() -> io::Result<()> {
    let house = House::with_clock(|_| {});
    let clock = house.clock.as_ref().unwrap();
    let outbox = house.gateway().outbox();
    let now_ms = 1_700_000_000_000;
    for (round, version) in (0..).zip(VERSIONS) {
        let id = format!("late-{version}");
        let connect = lasting(version, &id);
        house.terminal(&connect)?.disconnect()?;
        let start_ms = now_ms + round * 100_000;
        issue_to(outbox, &id, &["short"], Some(start_ms + 10_000));
        issue_to(outbox, &id, &["long"], Some(start_ms + 60_000));
        house.issue(&id, &["for ever"]);
        clock.advance_ms(20_500);
        let mut wire = house.client(&connect)?;
        let long = wire.take()?;
        assert_eq!(long.text(), "long");
        if version == 5 {
            let rest = long.property(property::MESSAGE_EXPIRY);
            assert_eq!(rest, Some(&Value::Four(40)));
        }
        let last = wire.take()?;
        assert_eq!(last.text(), "for ever");
        assert_eq!(last.property(property::MESSAGE_EXPIRY), None);
        stays_quiet(&mut wire)?;
        house.until_waiting(0);
        until("it is counted", || {
            outbox.metrics().expired.load(Relaxed) == round + 1
        });
        clock.advance_ms(79_500);
    }
    // No event says that it reached its terminal.
    assert_eq!(house.delivered().len(), 4);
    Ok(())
}

#[test]
fn at_qos_0_each_connection_gets_what_waits_and_nothing_is_taken_for_delivered() -> io::Result<()> {
    let house = House::new();
    for version in VERSIONS {
        let id = format!("zero-{version}");
        let connect = lasting(version, &id);
        let mut wire = house.client(&connect)?;
        assert_eq!(wire.subscribe(&[(&topic(&id), 0)])?, [0]);
        house.issue(&id, &["one"]);
        assert_eq!(wire.message()?.qos, 0);
        stays_quiet(&mut wire)?;
        wire.disconnect()?;
        let mut wire = house.client(&connect)?;
        let got = wire.message()?;
        assert_eq!((got.text(), got.qos, got.dup), ("one".into(), 0, false));
        // QoS 2 is granted as 1; what was sent without a promise is still owed.
        assert_eq!(wire.subscribe(&[(&topic(&id), 2)])?, [1]);
        let got = wire.take()?;
        assert_eq!((got.text(), got.qos, got.dup), ("one".into(), 1, false));
        house.until_waiting(0);
    }
    Ok(())
}

#[test]
fn a_refused_receipt_waits_for_the_next_connection() -> io::Result<()> {
    let house = House::new();
    let connect = lasting(5, "refuses");
    let mut wire = house.terminal(&connect)?;
    house.issue("refuses", &["one", "two"]);
    let one = wire.message()?;
    let [high, low] = one.packet_id.to_be_bytes();
    wire.send_raw(&[0x40, 3, high, low, 0x97])?; // PUBACK: quota exceeded
    assert_eq!(wire.take()?.text(), "two");
    stays_quiet(&mut wire)?;
    house.until_waiting(1);
    assert_eq!(house.delivered().len(), 1);
    wire.disconnect()?;
    assert_eq!(house.client(&connect)?.take()?, one.again());
    house.until_waiting(0);
    Ok(())
}

#[test]
fn a_receipt_larger_than_the_terminal_takes_waits_for_one_that_takes_it() -> io::Result<()> {
    let house = House::new();
    let small = lasting(5, "small").with(property::PACKET_BYTES_MAX, Value::Four(100));
    house.terminal(&small)?.disconnect()?;
    house.issue("small", &[&"x".repeat(200), "y"]);
    let mut wire = house.client(&small)?;
    assert_eq!(wire.take()?.text(), "y");
    stays_quiet(&mut wire)?;
    house.until_waiting(1);
    wire.disconnect()?;
    let mut wire = house.client(&lasting(5, "small"))?;
    assert_eq!(wire.take()?.text(), "x".repeat(200));
    house.until_waiting(0);
    Ok(())
}

const DAY_MS: u64 = 24 * 3_600 * 1_000;

#[test]
fn a_terminal_that_was_away_for_30_days_and_5_restarts_gets_its_receipts() -> io::Result<()> {
    let mut house = House::with_clock(|_| {});
    for version in VERSIONS {
        house
            .terminal(&lasting(version, &format!("month-{version}")))?
            .disconnect()?;
    }
    for restart in 0..5 {
        house.clock.as_ref().unwrap().advance_ms(6 * DAY_MS);
        for version in VERSIONS {
            house.issue(&format!("month-{version}"), &[&format!("{restart}")]);
        }
        house.restart();
    }
    for version in VERSIONS {
        let connect = lasting(version, &format!("month-{version}"));
        let (mut wire, ack) = Wire::connect(house.addr(), &connect)?;
        assert!(ack.session_present);
        for n in 0..5 {
            let got = wire.take()?;
            assert_eq!((got.text(), got.dup), (n.to_string(), false));
        }
        stays_quiet(&mut wire)?;
    }
    house.until_waiting(0);
    Ok(())
}

#[test]
fn receipts_outlive_the_session_of_their_terminal() -> io::Result<()> {
    let mut house = House::with_clock(|_| {});
    for version in VERSIONS {
        let id = format!("year-{version}");
        house.terminal(&lasting(version, &id))?.disconnect()?;
        house.issue(&id, &["one"]);
    }
    house.clock.as_ref().unwrap().advance_ms(200 * DAY_MS);
    house.broker().expire_sessions();
    house.restart();
    for version in VERSIONS {
        let id = format!("year-{version}");
        let (mut wire, ack) = Wire::connect(house.addr(), &lasting(version, &id))?;
        assert!(!ack.session_present);
        stays_quiet(&mut wire)?;
        wire.subscribe(&[(&topic(&id), 1)])?;
        assert_eq!(wire.take()?.text(), "one");
    }
    house.until_waiting(0);
    Ok(())
}

/// What comes first on the next connection when a cut fell between a receipt's
/// way out and its PUBACK, and another was stored since.
fn first_after_a_cut(house: &House) -> io::Result<String> {
    let connect = lasting(5, "cut");
    let mut wire = house.terminal(&connect)?;
    house.issue("cut", &["one"]);
    assert_eq!(wire.message()?.text(), "one");
    drop(wire);
    house.until("it is gone", || house.broker().connections() == 0);
    house.issue("cut", &["two"]);
    Ok(house.client(&connect)?.message()?.text())
}

#[test]
fn a_cut_before_puback_loses_no_receipt() -> io::Result<()> {
    assert_eq!(first_after_a_cut(&House::new())?, "one");
    Ok(())
}

#[test]
fn control_a_receipt_deleted_before_its_puback_is_lost_by_that_cut() -> io::Result<()> {
    let house = House::with_switch(|s| s.delete_before_puback = true);
    assert_eq!(first_after_a_cut(&house)?, "two");
    Ok(())
}
