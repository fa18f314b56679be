//! What survives SIGKILL, at any point of a dialogue.

use std::io;
use std::path::Path;

use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::wire_client::{Connect, Message, Packet, Value, Wire, property};

use crate::house::VERSIONS;

/// Kafka never answers: nothing here waits for it.
pub const CONFIG: &str = r#"
[kafka]
bootstrap = "127.0.0.1:1"
[store]
ballast_bytes = "1MiB"
[[routes]]
name = "raw"
filter = "records/#"
topic = "raw"
key = "topic"
format = "raw"
"#;

pub fn start(dir: &Path) -> io::Result<GatewayProcess> {
    GatewayProcess::start(CONFIG, dir, ProcessSwitches::default(), None)
}

/// Has all that was submitted to the store before become durable: a QoS 1
/// message that needs a row waits behind it.
fn settle_store(gateway: &GatewayProcess) -> io::Result<()> {
    let mut wire = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(4, "settles"))?;
    wire.publish(&Message::new("settled", "x", 1).retained())?;
    wire.disconnect()
}

#[test]
fn a_persistent_session_survives_a_kill_with_its_subscriptions() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    for version in VERSIONS {
        let connect = Connect::persistent(version, &format!("kept-{version}"));
        let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
        wire.subscribe(&[(&format!("{version}/+"), 1), ("gone", 1)])?;
        wire.unsubscribe(&["gone"])?;
    }
    gateway.restart()?;
    let mut speaks = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "speaks"))?;
    for version in VERSIONS {
        let connect = Connect::persistent(version, &format!("kept-{version}"));
        let (mut wire, ack) = Wire::connect(gateway.mqtt_addr(), &connect)?;
        assert!(ack.session_present);
        speaks.publish(&Message::new("gone", "no", 1))?;
        speaks.publish(&Message::new(&format!("{version}/b"), "yes", 1))?;
        let got = wire.take()?;
        assert_eq!((got.text().as_str(), got.dup), ("yes", false));
        wire.disconnect()?;
    }
    Ok(())
}

#[test]
fn what_was_queued_for_an_offline_client_comes_in_order_without_dup_after_a_kill() -> io::Result<()>
{
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    let connect = Connect::persistent(5, "away");
    let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
    wire.subscribe(&[("a", 2)])?;
    wire.disconnect()?;
    // A stop in order writes down that it is offline.
    gateway.terminate()?;
    gateway.restart()?;
    let mut speaks = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "speaks"))?;
    for n in 0..200u32 {
        let qos = 1 + (n % 2) as u8;
        let message = Message::new("a", n.to_string(), qos)
            .with(property::CONTENT_TYPE, Value::Text(format!("t{n}")));
        speaks.publish(&message)?;
        if n % 40 == 39 {
            gateway.restart()?;
            speaks = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "speaks"))?;
        }
    }
    let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
    let mut seen = 0;
    while seen < 200 {
        match wire.recv()? {
            Packet::Publish(got) => {
                assert_eq!(
                    (got.text(), got.qos, got.dup),
                    (seen.to_string(), 1 + (seen % 2) as u8, false)
                );
                assert_eq!(
                    got.property(property::CONTENT_TYPE),
                    Some(&Value::Text(format!("t{seen}")))
                );
                seen += 1;
                if got.qos == 1 {
                    wire.puback(got.packet_id)?;
                } else {
                    wire.pubrec(got.packet_id)?;
                }
            }
            Packet::PubRel(id, _) => wire.pubcomp(id)?,
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

#[test]
fn a_delivery_in_flight_at_a_kill_comes_again_with_dup_and_its_identifier() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    for version in VERSIONS {
        for qos in [1, 2] {
            let connect = Connect::persistent(version, &format!("c-{version}-{qos}"));
            let topic = format!("a/{version}/{qos}");
            let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
            wire.subscribe(&[(&topic, 2)])?;
            let mut speaks = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "speaks"))?;
            speaks.publish(&Message::new(&topic, "1", qos))?;
            speaks.publish(&Message::new(&topic, "2", qos))?;
            let first = [wire.message()?, wire.message()?];
            gateway.restart()?;
            let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
            for old in first {
                assert_eq!(wire.message()?, old.again());
            }
        }
    }
    Ok(())
}

/// Outward: a kill after each step of the dialogue. The client counts a message
/// when it sees an identifier that it does not hold (method A of MQTT 4.3.3).
#[test]
fn a_qos_2_delivery_is_made_once_through_kills_between_all_its_packets() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    for version in VERSIONS {
        let connect = Connect::persistent(version, &format!("c-{version}"));
        let topic = format!("a/{version}");
        let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
        wire.subscribe(&[(&topic, 2)])?;
        for kill_after in ["PUBLISH", "PUBREC", "PUBREL", "PUBCOMP"] {
            let mut speaks = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(4, "speaks"))?;
            speaks.publish(&Message::new(&topic, kill_after, 2))?;
            let mut held: Option<u16> = None;
            let mut taken = 0;
            let mut killed = false;
            loop {
                let step;
                match wire.recv()? {
                    Packet::Publish(got) => {
                        assert_eq!(got.text(), kill_after);
                        if held != Some(got.packet_id) {
                            held = Some(got.packet_id);
                            taken += 1;
                        }
                        step = if killed || kill_after != "PUBLISH" {
                            wire.pubrec(got.packet_id)?;
                            "PUBREC"
                        } else {
                            "PUBLISH"
                        };
                    }
                    Packet::PubRel(id, _) => {
                        assert_eq!(held, Some(id));
                        step = if killed || kill_after != "PUBREL" {
                            held = None;
                            wire.pubcomp(id)?;
                            "PUBCOMP"
                        } else {
                            "PUBREL"
                        };
                    }
                    other => panic!("{other:?}"),
                }
                if !killed && step == kill_after {
                    killed = true;
                    gateway.restart()?;
                    wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
                    if step != "PUBCOMP" {
                        continue;
                    }
                }
                if held.is_none() {
                    break;
                }
            }
            // PUBCOMP may have been lost with the gateway: then PUBREL comes
            // again, but never the message.
            settle_store(&gateway)?;
            wire.send_raw(&[0xC0, 0])?;
            loop {
                match wire.recv()? {
                    Packet::PubRel(id, _) => wire.pubcomp(id)?,
                    Packet::PingResp => break,
                    other => panic!("after {kill_after}: {other:?}"),
                }
            }
            assert_eq!(taken, 1, "{kill_after}");
        }
    }
    Ok(())
}

/// Inward: the client sends again what it has no answer to, as the standard says.
#[test]
fn a_qos_2_publish_is_taken_once_through_kills_between_all_its_packets() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    for version in VERSIONS {
        for topic in ["plain", "records/a"] {
            let hears = Connect::persistent(version, &format!("hears-{version}-{topic}"));
            let mut hearing = Wire::accepted(gateway.mqtt_addr(), &hears)?;
            hearing.subscribe(&[(topic, 1)])?;
            hearing.disconnect()?;
            let speaks = Connect::persistent(version, &format!("speaks-{version}-{topic}"));
            for kill_after in ["PUBREC", "PUBREL", "PUBCOMP"] {
                let message = Message::new(topic, kill_after, 2).id(9);
                let mut wire = Wire::accepted(gateway.mqtt_addr(), &speaks)?;
                wire.send_publish(&message)?;
                assert!(matches!(wire.recv()?, Packet::PubRec(9, 0)));
                if kill_after == "PUBREC" {
                    gateway.restart()?;
                    wire = Wire::accepted(gateway.mqtt_addr(), &speaks)?;
                    // As if the PUBREC had been lost with it.
                    wire.send_publish(&message.clone().again())?;
                    assert!(matches!(wire.recv()?, Packet::PubRec(9, _)));
                }
                wire.pubrel(9)?;
                if kill_after == "PUBREL" {
                    gateway.restart()?;
                    wire = Wire::accepted(gateway.mqtt_addr(), &speaks)?;
                    wire.pubrel(9)?;
                }
                assert!(matches!(wire.recv()?, Packet::PubComp(9, _)));
                if kill_after == "PUBCOMP" {
                    gateway.restart()?;
                    wire = Wire::accepted(gateway.mqtt_addr(), &speaks)?;
                    wire.pubrel(9)?;
                    assert!(matches!(wire.recv()?, Packet::PubComp(9, _)));
                }
                wire.disconnect()?;
            }
            let mut hearing = Wire::accepted(gateway.mqtt_addr(), &hears)?;
            for text in ["PUBREC", "PUBREL", "PUBCOMP"] {
                assert_eq!(hearing.take()?.text(), text);
            }
            hearing.nothing_came()?;
            hearing.unsubscribe(&[topic])?;
        }
    }
    Ok(())
}

#[test]
fn retained_messages_set_replaced_and_removed_are_so_after_a_kill() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    let long = format!("kept/{}", "long/".repeat(100));
    let mut speaks = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "speaks"))?;
    for (topic, payload) in [
        ("kept/set", "1"),
        ("kept/replaced", "1"),
        ("kept/removed", "1"),
        ("kept/replaced", "2"),
        ("kept/removed", ""),
        (&long, "3"),
    ] {
        speaks.publish(&Message::new(topic, payload, 1).retained())?;
    }
    for _ in 0..2 {
        gateway.restart()?;
        for version in VERSIONS {
            let connect = Connect::clean(version, "fresh");
            let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
            wire.subscribe(&[("kept/#", 1)])?;
            let mut got = Vec::new();
            for _ in 0..3 {
                let message = wire.take()?;
                assert!(message.retain);
                got.push((message.topic.clone(), message.text()));
            }
            got.sort();
            let wanted = [
                (long.clone(), "3".to_owned()),
                ("kept/replaced".into(), "2".into()),
                ("kept/set".into(), "1".into()),
            ];
            assert_eq!(got, wanted);
            wire.nothing_came()?;
            wire.disconnect()?;
        }
    }
    Ok(())
}

#[test]
fn wills_of_clients_that_were_connected_at_a_kill_are_published_after_it() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    let addr = gateway.mqtt_addr();
    let mut witness = Wire::accepted(addr, &Connect::persistent(5, "witness"))?;
    witness.subscribe(&[("will/#", 1)])?;
    let will = |text: &str| Message::new(&format!("will/{text}"), text, 1);
    let _clean = Wire::accepted(addr, &Connect::clean(4, "clean").will(will("clean")))?;
    let _kept = Wire::accepted(addr, &Connect::persistent(5, "kept").will(will("kept")))?;
    Wire::accepted(addr, &Connect::clean(5, "good").will(will("good")))?.disconnect()?;
    settle_store(&gateway)?;
    gateway.restart()?;
    let mut witness = Wire::accepted(gateway.mqtt_addr(), &Connect::persistent(5, "witness"))?;
    let mut got = [witness.take()?.text(), witness.take()?.text()];
    got.sort();
    assert_eq!(got, ["clean", "kept"]);
    settle_store(&gateway)?;
    // Once, not at every restart.
    gateway.restart()?;
    let mut witness = Wire::accepted(gateway.mqtt_addr(), &Connect::persistent(5, "witness"))?;
    witness.nothing_came()
}

#[test]
fn a_delayed_will_waits_over_a_kill_and_its_client_may_still_recall_it() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    let addr = gateway.mqtt_addr();
    let mut witness = Wire::accepted(addr, &Connect::persistent(5, "witness"))?;
    witness.subscribe(&[("will", 1)])?;
    let delayed = |text: &str, seconds| {
        Message::new("will", text, 1).with(property::WILL_DELAY, Value::Four(seconds))
    };
    let back = Connect::persistent(5, "back");
    let _back = Wire::accepted(addr, &back.clone().will(delayed("recalled", 2)))?;
    let away = Connect::persistent(5, "away").will(delayed("due", 3));
    let _away = Wire::accepted(addr, &away)?;
    gateway.restart()?;
    let mut witness = Wire::accepted(gateway.mqtt_addr(), &Connect::persistent(5, "witness"))?;
    let _back = Wire::accepted(gateway.mqtt_addr(), &back)?;
    witness.nothing_came()?;
    // The recalled one would have been due before it.
    assert_eq!(witness.take()?.text(), "due");
    witness.nothing_came()
}

#[test]
fn twenty_kills_under_load_lose_and_reorder_nothing_for_a_subscriber() -> io::Result<()> {
    const KILLS: u32 = 20;
    const EACH: u32 = 50;
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    let hears = Connect::persistent(4, "hears");
    let mut hearing = Wire::accepted(gateway.mqtt_addr(), &hears)?;
    hearing.subscribe(&[("records/#", 1)])?;
    let speaks = Connect::persistent(5, "speaks");
    let (mut sent, mut acknowledged) = (0u32, 0u32);
    for _ in 0..KILLS {
        let mut wire = Wire::accepted(gateway.mqtt_addr(), &speaks)?;
        // Within the receive maximum.
        let until = acknowledged + EACH;
        for n in acknowledged..until {
            let message = Message::new("records/a", n.to_string(), 1).id((n % 60_000) as u16 + 1);
            // What had no answer at the kill before is sent again.
            let again = n < sent;
            wire.send_publish(&if again { message.again() } else { message })?;
        }
        sent = until;
        // A part is acknowledged; then the power goes.
        for _ in 0..fastrand::u32(1..=until - acknowledged) {
            match wire.recv()? {
                Packet::PubAck(_, 0) => acknowledged += 1,
                other => panic!("{other:?}"),
            }
        }
        gateway.restart()?;
    }
    // All that was acknowledged is there, and nothing comes before its turn.
    let mut seen = 0u32;
    let mut hearing = Wire::accepted(gateway.mqtt_addr(), &hears)?;
    while seen < acknowledged {
        let got: u32 = hearing.take()?.text().parse().unwrap();
        assert!(got <= seen, "{got} came, {seen} was the next");
        if got == seen {
            seen += 1;
        }
    }
    Ok(())
}
