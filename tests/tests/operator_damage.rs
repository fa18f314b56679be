//! G11 as the operator meets it: bits are flipped while the gateway is stopped.
//! It starts, raises an alarm, keeps the original, counts what is lost, and the
//! rest goes on.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::real_kafka::RealKafka;
use risiti_tests::risiti_command::{output, risiti};
use risiti_tests::upward::{self, RAW};
use risiti_tests::wire_client::{Connect, Message, Packet, Wire};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn gateway(config: &str, dir: &Path) -> GatewayProcess {
    GatewayProcess::start(config, dir, ProcessSwitches::default(), None).unwrap()
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn find(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let at = |at: &usize| &bytes[*at..at + wanted.len()] == wanted;
    (0..bytes.len().saturating_sub(wanted.len()))
        .filter(at)
        .collect()
}

/// Flips one bit of every copy of `text` in the file.
fn flip(file: &Path, text: &str) {
    let bytes = fs::read(file).unwrap();
    let found = find(&bytes, text.as_bytes());
    assert!(!found.is_empty(), "{text} is not in {}", file.display());
    let file = fs::File::options().write(true).open(file).unwrap();
    for at in found {
        file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
    }
}

#[test]
fn flipped_bits_in_one_generation_cost_what_they_hit_and_are_told() {
    const EACH_LIFE: u32 = 200;
    let mut kafka = RealKafka::start().unwrap();
    kafka.stop();
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = gateway(&upward::config("gw-1", &kafka.bootstrap), dir.path());
    // Each life writes a generation of its own.
    for life in 0..3 {
        let connect = Connect::persistent(4, "c");
        let mut client = Wire::accepted(gateway.mqtt_addr(), &connect).unwrap();
        for number in life * EACH_LIFE + 1..=(life + 1) * EACH_LIFE {
            let text = format!("record {number:06}");
            client.publish(&Message::new("raw/c", text, 1)).unwrap();
        }
        if life < 2 {
            gateway.restart().unwrap();
        }
    }
    gateway.kill();
    let journal = gateway.data_dir().join("store/journal");
    let hit = "record 000300";
    let damaged = children(&journal)
        .into_iter()
        .map(|generation| generation.join("db"))
        .find(|db| db.is_file() && !find(&fs::read(db).unwrap(), hit.as_bytes()).is_empty())
        .unwrap();
    flip(&damaged, hit);
    let original = fs::read(&damaged).unwrap();

    gateway.restart().unwrap();
    kafka.start_again().unwrap();
    let status = gateway.wait_forwarded(LONG).unwrap();
    let numbers: Vec<u32> = kafka
        .committed(RAW)
        .unwrap()
        .iter()
        .map(|r| std::str::from_utf8(&r.value).unwrap()[7..].parse().unwrap())
        .collect();
    assert!(
        numbers.is_sorted_by(|a, b| a < b),
        "out of order: {numbers:?}"
    );
    let there: BTreeSet<u32> = numbers.into_iter().collect();
    let lost: Vec<u32> = (1..=3 * EACH_LIFE).filter(|n| !there.contains(n)).collect();
    println!("lost: {lost:?}");
    assert!(lost.contains(&300), "nothing was damaged");
    // One client with one PUBLISH at a time: a pack holds one record.
    assert_eq!(lost, [300], "more than the damaged pack is gone");
    assert_eq!(status.journal.damaged, lost.len() as u64);

    let alarms: Vec<_> = status
        .alarms
        .iter()
        .filter(|a| a.contains("damaged"))
        .collect();
    assert_eq!(alarms.len(), 1, "{:?}", status.alarms);
    assert!(
        alarms[0].contains("1 lost") && alarms[0].contains("check the disk"),
        "{alarms:?}"
    );
    let admin = gateway.admin_addr().unwrap().to_string();
    let shown = output(&mut risiti(["status", "--admin", &admin]), LONG).unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.contains("1 damaged") && text.contains(alarms[0].as_str()),
        "{text}"
    );
    let (_, metrics) = gateway.get("/metrics").unwrap();
    assert!(
        metrics.contains("\nrisiti_journal_damaged_positions_total 1\n"),
        "{metrics}"
    );
    assert_eq!(
        gateway.get("/readyz").unwrap().0,
        200,
        "records are still taken"
    );
    assert!(gateway.log().contains("ERROR"));

    let kept = children(&gateway.data_dir().join("store/quarantine"));
    assert!(
        kept.iter()
            .any(|item| fs::read(item.join("db")).is_ok_and(|db| db == original)),
        "the original is not in quarantine: {kept:?}"
    );
    // And it goes on.
    let mut client = Wire::accepted(gateway.mqtt_addr(), &Connect::persistent(4, "c")).unwrap();
    client
        .publish(&Message::new("raw/c", "record 000601", 1))
        .unwrap();
}

/// What a fresh gateway finds of the state.
#[derive(Debug, PartialEq)]
struct Kept {
    retained: usize,
    queued: usize,
    session: bool,
    alarms: usize,
}

const RETAINED: usize = 100;
const QUEUED: usize = 50;

fn look(gateway: &GatewayProcess) -> Kept {
    let (mut sleeper, ack) =
        Wire::connect(gateway.mqtt_addr(), &Connect::persistent(5, "sleeper")).unwrap();
    let queued = count(&mut sleeper, "queued");
    let mut fresh = Wire::accepted(gateway.mqtt_addr(), &Connect::clean(5, "fresh")).unwrap();
    fresh.subscribe(&[("last/#", 0)]).unwrap();
    let retained = count(&mut fresh, "retained");
    Kept {
        retained,
        queued,
        session: ack.session_present,
        alarms: gateway.status().unwrap().alarms.len(),
    }
}

/// Messages until none comes for a while: how many there are is the question.
fn count(wire: &mut Wire, what: &str) -> usize {
    let mut count = 0;
    while let Ok(Some(packet)) = wire.recv_within(Duration::from_millis(500)) {
        let Packet::Publish(message) = packet else {
            panic!("{packet:?}");
        };
        assert!(
            message.text().starts_with(what),
            "wrong content: {}",
            message.text()
        );
        wire.acknowledge(&message).unwrap();
        count += 1;
    }
    count
}

#[test]
fn a_damaged_state_is_salvaged_and_never_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let config = upward::config("gw-1", "embedded")
        + "[store]\nbudget_bytes = \"256MiB\"\nreceipts_reserve_bytes = \"1MiB\"\n\
           ballast_bytes = \"1MiB\"\nfree_bytes_min = \"1MiB\"\n";
    let mut first = gateway(&config, dir.path());
    let connect = Connect::persistent(5, "sleeper");
    let mut sleeper = Wire::accepted(first.mqtt_addr(), &connect).unwrap();
    sleeper.subscribe(&[("chat/#", 1)]).unwrap();
    drop(sleeper);
    let mut client = Wire::accepted(first.mqtt_addr(), &Connect::clean(5, "c")).unwrap();
    for n in 0..RETAINED {
        let message = Message::new(&format!("last/{n:03}"), format!("retained {n:03}"), 1);
        client.publish(&message.retained()).unwrap();
    }
    for n in 0..QUEUED {
        client
            .publish(&Message::new("chat/1", format!("queued {n:03}"), 1))
            .unwrap();
    }
    assert!(first.terminate().unwrap().success());
    let whole = first.data_dir();
    let length = fs::metadata(whole.join("store/state/db/db")).unwrap().len();

    // Without damage nothing is told: what is counted below comes from damage.
    let mut reports = Vec::new();
    for spot in 0..=8 {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&whole)
            .arg(copy.path())
            .status();
        assert!(copied.unwrap().success());
        let db = copy.path().join("data/store/state/db/db");
        match spot {
            0 => {}
            1 => flip(&db, "retained 050"),
            2 => flip(&db, "queued 025"),
            _ => {
                let bytes = fs::read(&db).unwrap();
                // Where something is written, spread over the file.
                let from = (length as usize * (spot - 3)) / 7;
                let at = from + bytes[from..].iter().position(|b| *b != 0).unwrap_or(0);
                let file = fs::File::options().write(true).open(&db).unwrap();
                file.write_all_at(&[bytes[at] ^ 0x04], at as u64).unwrap();
            }
        }
        let original = fs::read(&db).unwrap();
        let gateway = gateway(&config, copy.path());
        let kept = look(&gateway);
        let values = gateway.get("/metrics").unwrap().1;
        let values = values
            .lines()
            .find_map(|l| l.strip_prefix("risiti_state_damaged_values_total "))
            .unwrap()
            .parse::<usize>()
            .unwrap();
        let quarantined = children(&copy.path().join("data/store/quarantine"));
        reports.push(format!(
            "spot {spot}: {kept:?}, {values} values, {}",
            quarantined.len()
        ));
        let missing = RETAINED - kept.retained + QUEUED - kept.queued;
        assert!(missing <= 1, "more than what was hit: {reports:#?}");
        assert!(kept.session, "{reports:#?}");
        if spot == 0 {
            assert_eq!(
                (missing, kept.alarms, values, quarantined.len()),
                (0, 0, 0, 0)
            );
        }
        if missing > 0 {
            assert!(kept.alarms > 0, "lost in silence: {reports:#?}");
            assert!(!quarantined.is_empty(), "no evidence: {reports:#?}");
            let told = &gateway.status().unwrap().alarms[0];
            assert!(told.contains("state database was damaged"), "{told}");
            assert!(!told.contains("0 lost"), "it does not know that: {told}");
        }
        for item in quarantined.iter().filter(|q| q.join("db").is_file()) {
            assert!(
                fs::read(item.join("db")).unwrap() == original,
                "not the original"
            );
        }
    }
    println!("{reports:#?}");
}
