//! G1 for the whole gateway: its power is cut under load, and what any client saw
//! acknowledged is there after the restart.
//!
//! A running gateway is recorded together with its clients, who note each PUBACK
//! as they see it (`src/bin/witness_client.rs`). From images of what a cut could
//! have left (crash model: `src/crash/image.rs`) the gateway is started again. Its
//! embedded Kafka starts empty and is filled from the journal, so every record
//! acknowledged must be there: once, in order. So must every queued message and
//! the last retained one.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use risiti_tests::asked::seed;
use risiti_tests::crash::{Cut, Names, Recording, Shim, Snapshot, Unsynced, convictions, scratch};
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::real_kafka;
use risiti_tests::risiti_command::Running;
use risiti_tests::upward::{self, RAW};
use risiti_tests::wire_client::{Connect, Message, Packet, Wire};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Of each of six clients.
const MESSAGES: u32 = 240;

const IMAGES: usize = 60;

/// A payload of no client.
const LAST: &str = "last";

/// On a slow disk more is under way at any moment.
const SYNC_MS: u64 = 3;

fn config() -> String {
    upward::config("gw-1", "embedded")
        + "[store]\nbudget_bytes = \"256MiB\"\nreceipts_reserve_bytes = \"1MiB\"\n\
           ballast_bytes = \"1MiB\"\nfree_bytes_min = \"1MiB\"\n"
}

/// Runs gateway and clients to the end of their messages.
fn record(home: &Path) -> Recording {
    let data = home.join("data");
    fs::create_dir(&data).unwrap();
    let log = home.join("log");
    let shim = Shim::over(&data).unwrap().recording(&log).witness("told");
    shim.skip_real_syncs();
    shim.delay_syncs_ms(SYNC_MS);
    let mut command = Command::new(env!("CARGO_BIN_EXE_witness_client"));
    let clients = shim
        .command(&mut command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut clients = Running(clients);
    // The recording takes a process that begins for one that follows another, whose
    // syncs died with it: none may be under way.
    let mut ready = String::new();
    let said = clients.0.stdout.take().unwrap();
    BufReader::new(said).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let switches = ProcessSwitches::default();
    let mut gateway = GatewayProcess::start(&config(), home, switches, Some(shim)).unwrap();
    let line = format!(
        "{} {} {MESSAGES}\n",
        gateway.mqtt_addr(),
        data.join("told").display()
    );
    let mut stdin = clients.0.stdin.take().unwrap();
    stdin.write_all(line.as_bytes()).unwrap();
    drop(stdin);
    assert!(clients.wait(LONG).unwrap().success());
    gateway.kill();
    Recording::load(&log, &Snapshot::default(), "told").unwrap()
}

/// Numbers by client.
type Numbers = BTreeMap<String, Vec<u32>>;

/// What was promised before the cut: `r`, `q` and `t`, and whether `s` was.
struct Told {
    by_kind: BTreeMap<String, Numbers>,
    subscribed: bool,
}

impl Told {
    fn before(recording: &Recording, cut: usize) -> Self {
        let text = String::from_utf8(recording.witnessed(cut)).unwrap();
        let mut by_kind: BTreeMap<String, Numbers> = BTreeMap::new();
        for line in text.lines() {
            if let [kind, client, number] = line.split(' ').collect::<Vec<_>>()[..] {
                let numbers = by_kind.entry(kind.into()).or_default();
                let number = number.parse().unwrap();
                numbers.entry(client.into()).or_default().push(number);
            }
        }
        Self {
            by_kind,
            subscribed: text.starts_with("s\n"),
        }
    }

    fn of(&self, kind: &str) -> Numbers {
        self.by_kind.get(kind).cloned().unwrap_or_default()
    }
}

fn parse(text: &[u8]) -> (String, u32) {
    let text = String::from_utf8(text.to_vec()).unwrap();
    let (client, number) = text.split_once('/').unwrap();
    (client.into(), number.parse().unwrap())
}

/// Every promised number is there; all that is there, once and in order.
fn judge(what: &str, told: &Numbers, found: &Numbers) -> Result<(), String> {
    for (client, numbers) in found {
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(format!(
                "{what} of {client}: twice or out of order: {numbers:?}"
            ));
        }
    }
    for (client, numbers) in told {
        let there = found.get(client).cloned().unwrap_or_default();
        let lost: Vec<_> = numbers.iter().filter(|n| !there.contains(n)).collect();
        if !lost.is_empty() {
            return Err(format!(
                "{what} of {client}: acknowledged and lost: {lost:?}"
            ));
        }
    }
    Ok(())
}

/// Messages up to the one with this payload, each acknowledged. What was stored and
/// never promised comes too, so their number tells nothing, and an answer to PINGREQ may
/// overtake those that are still read from the store.
fn drain(wire: &mut Wire, last: &str) -> Numbers {
    let mut found = Numbers::new();
    loop {
        match wire.recv().unwrap() {
            Packet::Publish(message) => {
                wire.acknowledge(&message).unwrap();
                if message.payload == last.as_bytes() {
                    return found;
                }
                let (client, number) = parse(&message.payload);
                found.entry(client).or_default().push(number);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Starts the gateway on what the cut left, and holds it to what was told until
/// `told_at`.
fn restart(recording: &Recording, cut: &Cut, told_at: usize, home: &Path) -> Result<(), String> {
    cut.build(recording, &home.join("data")).unwrap();
    let told = Told::before(recording, told_at);
    let mut gateway = GatewayProcess::start(&config(), home, ProcessSwitches::default(), None)
        .map_err(|error| format!("no start: {error}"))?;
    gateway.wait_forwarded(LONG).map_err(|e| e.to_string())?;
    let log = real_kafka::committed(gateway.embedded_bootstrap().unwrap(), RAW).unwrap();
    let mut in_kafka = Numbers::new();
    for record in &log {
        let (client, number) = parse(&record.value);
        in_kafka.entry(client).or_default().push(number);
    }
    judge("records", &told.of("r"), &in_kafka)?;

    let queued = told.of("q");
    let connect = Connect::persistent(5, "sleeper");
    let (mut sleeper, ack) = Wire::connect(gateway.mqtt_addr(), &connect).unwrap();
    if told.subscribed && !ack.session_present {
        return Err("the session is gone".into());
    }
    if told.subscribed {
        // Behind all that waits.
        let mut other = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "other")).unwrap();
        other.publish(&Message::new("chat/last", LAST, 1)).unwrap();
        judge("queued messages", &queued, &drain(&mut sleeper, LAST))?;
    }

    let retained = told.of("t");
    let mut fresh = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "fresh")).unwrap();
    for (client, numbers) in retained {
        let topic = format!("last/{client}");
        fresh.subscribe(&[(&topic, 0)]).unwrap();
        let last = numbers.last().unwrap();
        let there = match fresh.recv() {
            Ok(Packet::Publish(message)) => parse(&message.payload).1,
            other => return Err(format!("retained of {client}: {other:?}, not {last}")),
        };
        if there < *last {
            return Err(format!(
                "retained of {client}: {there}, acknowledged {last}"
            ));
        }
    }
    let alarms = gateway.status().unwrap().alarms;
    gateway.kill();
    if alarms.is_empty() {
        Ok(())
    } else {
        Err(format!("a power cut is no damage: {alarms:?}"))
    }
}

#[test]
fn what_any_client_saw_acknowledged_survives_a_power_cut_of_the_gateway() {
    let seed = seed();
    let home = tempfile::tempdir_in(scratch()).unwrap();
    let recording = record(home.path());
    let cuts = Cut::through(&recording, IMAGES, seed);
    let broken = convictions(
        3,
        &cuts,
        |_| (),
        |(), cut| {
            let home = tempfile::tempdir_in(scratch()).unwrap();
            let judged = restart(&recording, cut, cut.at, home.path());
            judged.err().map(|reason| format!("{cut:?}: {reason}"))
        },
    );
    let told = Told::before(&recording, recording.ops().len());
    let promises: usize = told.by_kind.values().flatten().map(|(_, n)| n.len()).sum();
    println!(
        "{} operations, {promises} promises, {} images, {} broken",
        recording.ops().len(),
        cuts.len(),
        broken.len()
    );
    assert_eq!(promises, 6 * MESSAGES as usize);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The negative control: of each kind, a promise that came after the cut is
/// missed.
#[test]
fn a_promise_that_the_files_do_not_keep_is_missed() {
    let home = tempfile::tempdir_in(scratch()).unwrap();
    let recording = record(home.path());
    let end = recording.ops().len();
    let cut = Cut {
        at: end * 2 / 3,
        unsynced: Unsynced::Dropped,
        names: Names::Journaled,
        seed: 1,
    };
    let image = tempfile::tempdir_in(scratch()).unwrap();
    let missed = restart(&recording, &cut, end, image.path()).unwrap_err();
    assert!(missed.contains("acknowledged and lost"), "{missed}");
}
