//! Receipts through SIGKILL of the gateway.
//!
//! They are put into the outbox while the gateway is down, by opening its store
//! as it does.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use risiti_bridge::TraceLog;
use risiti_bridge::receipts::{Outbox, OutboxSetup, ReceiptsOptions};
use risiti_config::Terminals;
use risiti_store::{Journal, State, StoreOptions};
use risiti_tests::crash::Shim;
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::wire_client::{Connect, PATIENCE, Packet, Wire};

use crate::house::VERSIONS;
use crate::receipts::{delivered_in, issue_to, lasting, stays_quiet, topic};
use crate::restart::{CONFIG, start};

/// A gateway's store, while it is down.
struct Store {
    state: Arc<State>,
    journal: Arc<Journal>,
    outbox: Arc<Outbox>,
}

impl Store {
    fn open(gateway: &mut GatewayProcess) -> Self {
        gateway.kill();
        let options = StoreOptions {
            consumers: vec!["default".into()],
            ..StoreOptions::new(gateway.data_dir().join("store"))
        };
        let (state, _) = State::open(&options).unwrap();
        let (journal, _) = Journal::open(&options, state.clone()).unwrap();
        let outbox = Outbox::open(OutboxSetup {
            state: state.clone(),
            journal: journal.clone(),
            gateway_id: "gw-1".into(),
            terminals: Terminals::default(),
            receipts_max: u64::MAX,
            unknown_receipts_max: 1_000,
            receipts_per_terminal_max: 1_000,
            now: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                since.map_or(0, |d| d.as_millis() as u64)
            }),
            trace: TraceLog::disabled(),
            options: ReceiptsOptions::default(),
        })
        .unwrap();
        Self {
            state,
            journal,
            outbox,
        }
    }

    fn issue(&self, terminal: &str, texts: &[&str]) {
        issue_to(&self.outbox, terminal, texts, None);
    }

    /// How often each receipt's delivery event is in the journal.
    fn delivered(&self) -> HashMap<(String, u64), u32> {
        let mut delivered = HashMap::new();
        for event in delivered_in(&self.journal) {
            *delivered.entry((event.terminal, event.number)).or_default() += 1;
        }
        delivered
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.outbox.close();
        self.journal.close();
        self.state.close();
    }
}

fn until_waiting(gateway: &GatewayProcess, count: u64) -> io::Result<()> {
    gateway
        .wait_until("so many wait", PATIENCE, |s| s.receipts.waiting == count)
        .map(drop)
}

fn subscribe(gateway: &GatewayProcess, connect: &Connect) -> io::Result<Wire> {
    let mut wire = Wire::accepted(gateway.mqtt_addr(), connect)?;
    assert_eq!(wire.subscribe(&[(&topic(&connect.client_id), 1)])?, [1]);
    Ok(wire)
}

#[test]
fn a_receipt_in_flight_at_a_kill_comes_again_with_dup_and_its_identifier() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    for version in VERSIONS {
        let id = format!("killed-{version}");
        let connect = lasting(version, &id);
        subscribe(&gateway, &connect)?.disconnect()?;
        Store::open(&mut gateway).issue(&id, &["one", "two", "three"]);
        gateway.restart()?;
        let (mut wire, ack) = Wire::connect(gateway.mqtt_addr(), &connect)?;
        assert!(ack.session_present);
        let first = [wire.message()?, wire.message()?, wire.message()?];
        assert_eq!(first.clone().map(|m| m.text()), ["one", "two", "three"]);
        for _ in 0..3 {
            gateway.restart()?;
            let (again, ack) = Wire::connect(gateway.mqtt_addr(), &connect)?;
            wire = again;
            assert!(ack.session_present);
            for old in &first {
                assert_eq!(wire.message()?, old.clone().again());
            }
        }
        for message in &first {
            wire.acknowledge(message)?;
        }
        until_waiting(&gateway, 0)?;
    }
    Ok(())
}

#[test]
fn a_disk_that_stands_still_holds_up_no_receipt_that_is_on_it() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir_all(dir.path().join("data"))?;
    let shim = Shim::over(&dir.path().join("data"))?;
    let switches = ProcessSwitches::default();
    let mut gateway = GatewayProcess::start(CONFIG, dir.path(), switches, Some(shim))?;
    for version in VERSIONS {
        let connect = lasting(version, &format!("still-{version}"));
        subscribe(&gateway, &connect)?.disconnect()?;
    }
    {
        let store = Store::open(&mut gateway);
        for version in VERSIONS {
            store.issue(&format!("still-{version}"), &["one"]);
        }
    }
    gateway.restart()?;
    let shim = gateway.shim().expect("it was given");
    shim.delay_syncs_ms(600_000);
    for version in VERSIONS {
        let connect = lasting(version, &format!("still-{version}"));
        let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
        assert_eq!(wire.take()?.text(), "one");
        wire.ping()?;
    }
    Ok(())
}

/// What never was sent has no DUP, if the gateway knew before the kill that its
/// terminal was offline.
#[test]
fn what_came_while_its_terminal_was_away_has_no_dup_after_a_stop() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    let connect = lasting(4, "away");
    subscribe(&gateway, &connect)?.disconnect()?;
    gateway.terminate()?;
    Store::open(&mut gateway).issue("away", &["one"]);
    gateway.restart()?;
    let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
    assert!(!wire.take()?.dup);
    until_waiting(&gateway, 0)
}

/// When nothing has come for so long, nothing waits, or the disk is slow.
const QUIET: Duration = Duration::from_millis(100);

#[test]
fn kills_while_receipts_go_out_lose_none_and_tell_each_delivery_once() -> io::Result<()> {
    const RECEIPTS: usize = 200;
    let dir = tempfile::tempdir()?;
    let mut gateway = start(dir.path())?;
    let connect = |version| lasting(version, &format!("loop-{version}"));
    for version in VERSIONS {
        subscribe(&gateway, &connect(version))?;
    }
    let texts: Vec<_> = (0..RECEIPTS).map(|n| n.to_string()).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    {
        let store = Store::open(&mut gateway);
        for version in VERSIONS {
            store.issue(&format!("loop-{version}"), &texts);
        }
    }
    // What each terminal has, in the order in which it first saw it.
    let mut seen: [Vec<usize>; 2] = Default::default();
    for round in 0.. {
        assert!(round < 100, "it never ends");
        gateway.restart()?;
        // Open until then: a close with bytes unread resets the connection, and
        // PUBACKs on their way are lost with it.
        let mut open = Vec::new();
        let mut left = gateway.status()?.receipts.waiting;
        for (seen, version) in seen.iter_mut().zip(VERSIONS) {
            let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect(version))?;
            // The kill falls anywhere between PUBACK and the end of the row.
            for _ in 0..fastrand::usize(5..30) {
                let got = match wire.recv_within(QUIET) {
                    Ok(Some(Packet::Publish(got))) => got,
                    Err(e) if e.kind() == io::ErrorKind::TimedOut => match seen.len() {
                        RECEIPTS => break,
                        _ => continue,
                    },
                    other => panic!("{other:?}"),
                };
                wire.acknowledge(&got)?;
                left -= 1;
                let number: usize = got.text().parse().unwrap();
                assert!(number <= seen.len(), "{number} came out of turn");
                if number == seen.len() {
                    seen.push(number);
                }
            }
            open.push(wire);
        }
        // Now and then what was acknowledged gets the time to be so for good.
        if fastrand::bool() {
            gateway.wait_until("they are gone", PATIENCE, |status| {
                status.receipts.waiting <= left
            })?;
        }
        if seen.iter().all(|s| s.len() == RECEIPTS) {
            break;
        }
    }
    gateway.restart()?;
    for version in VERSIONS {
        let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect(version))?;
        while gateway.status()?.receipts.waiting > 0 {
            match wire.recv_within(QUIET) {
                Ok(Some(Packet::Publish(m))) => wire.acknowledge(&m)?,
                Err(e) if e.kind() == io::ErrorKind::TimedOut => break,
                other => panic!("{other:?}"),
            }
        }
    }
    until_waiting(&gateway, 0)?;
    let delivered = Store::open(&mut gateway).delivered();
    assert_eq!(delivered.len(), 2 * RECEIPTS);
    assert!(delivered.values().all(|times| *times == 1));
    Ok(())
}

/// The switch of the negative control, over a kill.
#[test]
fn control_a_receipt_deleted_before_its_puback_is_lost_by_a_kill() -> io::Result<()> {
    for delete_before_puback in [false, true] {
        let dir = tempfile::tempdir()?;
        let switches = ProcessSwitches {
            delete_before_puback,
            ..ProcessSwitches::default()
        };
        let mut gateway = GatewayProcess::start(CONFIG, dir.path(), switches, None)?;
        let connect = lasting(5, "control");
        subscribe(&gateway, &connect)?;
        Store::open(&mut gateway).issue("control", &["one"]);
        gateway.restart()?;
        let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
        assert_eq!(wire.message()?.text(), "one");
        if delete_before_puback {
            until_waiting(&gateway, 0)?;
        }
        gateway.restart()?;
        let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect)?;
        if delete_before_puback {
            stays_quiet(&mut wire)?;
        } else {
            assert_eq!(wire.take()?.text(), "one");
        }
    }
    Ok(())
}
