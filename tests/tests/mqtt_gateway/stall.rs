//! A disk that takes its time: what waits for it, and what must not.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use risiti_tests::crash::Shim;
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::wire_client::{Connect, Message, Packet, Wire};

use crate::restart::CONFIG;

/// A gateway whose syncs can be slowed, once it serves.
fn start(dir: &Path, config: &str) -> io::Result<GatewayProcess> {
    std::fs::create_dir_all(dir.join("data"))?;
    let shim = Shim::over(&dir.join("data"))?;
    GatewayProcess::start(config, dir, ProcessSwitches::default(), Some(shim))
}

#[test]
fn puback_and_pubrec_come_after_the_sync_that_covers_them() -> io::Result<()> {
    const SYNC: Duration = Duration::from_millis(500);
    let dir = tempfile::tempdir()?;
    let gateway = start(dir.path(), CONFIG)?;
    let addr = gateway.mqtt_addr();
    let mut away = Wire::accepted(addr, &Connect::persistent(4, "away"))?;
    away.subscribe(&[("queued/#", 1)])?;
    away.disconnect()?;
    let mut speaks = Wire::accepted(addr, &Connect::persistent(5, "speaks"))?;
    let shim = gateway.shim().expect("it was given");
    shim.delay_syncs_ms(SYNC.as_millis() as u64);
    for message in [
        Message::new("records/a", "x", 1),
        Message::new("records/a", "x", 2),
        Message::new("queued/a", "x", 1),
        Message::new("queued/a", "x", 2),
        Message::new("kept", "x", 1).retained(),
        Message::new("plain", "x", 2),
    ] {
        // Not behind a sync that began before: the shim counts those that ended.
        let syncs = shim.syncs();
        let sent = Instant::now();
        let id = speaks.next_id();
        speaks.send_publish(&message.clone().id(id))?;
        match speaks.recv()? {
            Packet::PubAck(..) => assert_eq!(message.qos, 1),
            Packet::PubRec(..) => {
                assert_eq!(message.qos, 2);
                assert!(sent.elapsed() >= SYNC, "{message:?}");
                speaks.pubrel(id)?;
                assert!(matches!(speaks.recv()?, Packet::PubComp(..)));
            }
            other => panic!("{other:?}"),
        }
        assert!(sent.elapsed() >= SYNC, "{message:?}");
        assert!(shim.syncs() > syncs, "{message:?}");
    }
    // The negative control: what needs no disk does not wait for it.
    let sent = Instant::now();
    speaks.publish(&Message::new("nobody", "x", 1))?;
    assert!(sent.elapsed() < SYNC);
    Ok(())
}

/// Eight seconds without a sync.
#[test]
fn a_stalled_store_holds_up_only_what_needs_it() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let gateway = start(dir.path(), CONFIG)?;
    let addr = gateway.mqtt_addr();
    let mut speaks = Wire::accepted(addr, &Connect::clean(5, "speaks").keep_alive_s(2))?;
    let mut hears = Wire::accepted(addr, &Connect::clean(4, "hears"))?;
    hears.subscribe(&[("live", 0)])?;
    let shim = gateway.shim().expect("it was given");
    shim.delay_syncs_ms(60_000);
    let begun = Instant::now();
    speaks.send_publish(&Message::new("records/a", "x", 1).id(77))?;
    let mut round = 0;
    while begun.elapsed() < Duration::from_secs(8) {
        round += 1;
        // The one that waits is answered in everything else …
        speaks.ping()?;
        speaks.publish(&Message::new("live", round.to_string(), 0))?;
        assert_eq!(hears.take()?.text(), round.to_string());
        // … and others come, subscribe, publish and go.
        for version in [4, 5] {
            let mut other = Wire::accepted(addr, &Connect::clean(version, "other"))?;
            other.subscribe(&[("other", 1)])?;
            other.publish(&Message::new("live", "other", 0))?;
            assert_eq!(hears.take()?.text(), "other");
            speaks.publish(&Message::new("other", "x", 0))?;
            assert_eq!(other.take()?.text(), "x");
            other.disconnect()?;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // PUBACK did not come, or ping() would have failed on it.
    shim.delay_syncs_ms(0);
    assert_eq!(speaks.recv()?, Packet::PubAck(77, 0));
    Ok(())
}

/// So much waits for the disk that no further PUBLISH is read.
#[test]
fn a_full_memory_of_waiting_publishes_stops_publishes_only() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let config = format!("[mqtt]\nungated_bytes_max = \"1MiB\"\n{CONFIG}");
    let gateway = start(dir.path(), &config)?;
    let addr = gateway.mqtt_addr();
    let mut greedy = Wire::accepted(addr, &Connect::clean(4, "greedy").keep_alive_s(1))?;
    let mut modest = Wire::accepted(addr, &Connect::clean(5, "modest").keep_alive_s(2))?;
    let shim = gateway.shim().expect("it was given");
    shim.delay_syncs_ms(60_000);
    let payload = vec![b'x'; 60_000];
    for id in 1..=40 {
        greedy.send_publish(&Message::new("records/g", &payload, 1).id(id))?;
    }
    // The same from one that is gone: its claim stays as long as its records wait.
    let mut gone = Wire::accepted(addr, &Connect::clean(4, "gone"))?;
    gone.send_publish(&Message::new("records/h", &payload, 1).id(1))?;
    gone.send_raw(&[0xE0, 0])?;
    drop(gone);
    let begun = Instant::now();
    let mut other = Wire::accepted(addr, &Connect::clean(5, "other"))?;
    while begun.elapsed() < Duration::from_secs(4) {
        modest.ping()?;
        other.subscribe(&[("live", 0)])?;
        std::thread::sleep(Duration::from_millis(200));
    }
    modest.send_publish(&Message::new("records/m", "x", 1).id(1))?;
    let waiting = modest.recv_within(Duration::from_millis(500));
    assert_eq!(
        waiting.unwrap_err().kind(),
        io::ErrorKind::TimedOut,
        "its PUBLISH waits unread"
    );
    // Neither was cut for a silence that was not theirs, nor is anything lost.
    shim.delay_syncs_ms(0);
    for id in 1..=40 {
        assert_eq!(greedy.recv()?, Packet::PubAck(id, 0));
    }
    assert_eq!(modest.recv()?, Packet::PubAck(1, 0));
    modest.ping()
}

/// A persistent session can't be let in while its row can't be written; the
/// gateway goes on serving, and lets it in once it can.
#[test]
fn a_connect_that_needs_the_disk_waits_for_it_alone() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let gateway = start(dir.path(), CONFIG)?;
    let addr = gateway.mqtt_addr();
    let shim = gateway.shim().expect("it was given");
    shim.delay_syncs_ms(60_000);
    let mut kept = Wire::open(addr, 5)?;
    kept.send_connect(&Connect::persistent(5, "kept"))?;
    let waiting = kept.recv_within(Duration::from_millis(500));
    assert_eq!(waiting.unwrap_err().kind(), io::ErrorKind::TimedOut);
    Wire::accepted(addr, &Connect::clean(4, "other"))?.disconnect()?;
    shim.delay_syncs_ms(0);
    assert!(matches!(kept.recv()?, Packet::ConnAck(ack) if ack.code == 0));
    Ok(())
}
