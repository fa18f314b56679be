//! A million receipts wait for ten thousand terminals that are away: neither the
//! gateway's memory nor its start grows with them, and who comes gets theirs.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use risiti_bridge::limits::COMMITS_UNDER_WAY;
use risiti_bridge::receipts::{Outbox, OutboxSetup, Poll, ReceiptsOptions, Received};
use risiti_bridge::{EmbeddedCluster, TraceLog};
use risiti_config::Terminals;
use risiti_store::{Batch, Journal, State, StoreOptions};
use risiti_tests::filled_store::FilledStore;
use risiti_tests::gateway_process::{GatewayProcess, ProcessSwitches};
use risiti_tests::memory;
use risiti_tests::mock_kafka;
use risiti_tests::wire_client::{Connect, PATIENCE, Value, Wire, property};

const TERMINALS: u64 = 10_000;
const RECEIPTS_EACH: u64 = 100;
const RECEIPTS: u64 = TERMINALS * RECEIPTS_EACH;

/// What a box can spare.
const MEMORY_BYTES_MAX: u64 = 200 << 20;

/// In which it serves again.
const START_MAX: Duration = Duration::from_secs(2);

/// As long as a receipt with some lines on it.
const PAYLOAD_BYTES: usize = 160;

/// Stores them as the consumer does: in the order of Kafka, which is by time and
/// not by terminal. By how much memory grew.
fn fill(dir: &Path) -> u64 {
    let options = StoreOptions::new(dir);
    let (state, _) = State::open(&options).unwrap();
    let (journal, _) = Journal::open(&options, Arc::clone(&state)).unwrap();
    let outbox = Outbox::open(OutboxSetup {
        state: state.clone(),
        journal: journal.clone(),
        gateway_id: "gw-1".into(),
        terminals: Terminals::default(),
        receipts_max: u64::MAX,
        unknown_receipts_max: 0,
        receipts_per_terminal_max: 10_000,
        now: Arc::new(|| 1_700_000_000_000),
        trace: TraceLog::disabled(),
        options: ReceiptsOptions::default(),
    })
    .unwrap();
    for terminal in 0..TERMINALS {
        outbox.seen(&format!("t{terminal}"));
    }
    let resident = || memory::resident_bytes(std::process::id()).unwrap();
    let before = resident();
    let (mut poll, mut commits) = (Poll::default(), 0);
    for sequence in 1..=RECEIPTS_EACH {
        for terminal in 0..TERMINALS {
            if !poll.has_room() {
                submit(&outbox, &state, &std::mem::take(&mut poll), &mut commits);
            }
            poll.receipts.push(Received {
                terminal: format!("t{terminal}"),
                sequence,
                status: 0,
                settled_ms: 1_700_000_000_000,
                expires_ms: None,
                partition: 0,
                offset: 0,
                payload: vec![b'r'; PAYLOAD_BYTES].into(),
            });
        }
    }
    submit(&outbox, &state, &poll, &mut commits);
    state.commit(Batch::new()).unwrap();
    assert_eq!(outbox.waiting(), RECEIPTS);
    let grown = resident().saturating_sub(before);
    // As a power cut finds it: nothing is closed on purpose.
    std::mem::forget(outbox);
    std::mem::forget(journal);
    std::mem::forget(state);
    grown
}

/// With few commits under way, as the consumer has them.
fn submit(outbox: &Outbox, state: &State, poll: &Poll, commits: &mut usize) {
    outbox.submit("default", poll).unwrap();
    *commits += 1;
    if commits.is_multiple_of(COMMITS_UNDER_WAY) {
        state.commit(Batch::new()).unwrap();
    }
}

#[test]
fn a_million_receipts_wait_on_disk_and_not_in_memory() {
    let test = "a_million_receipts_wait_on_disk_and_not_in_memory";
    let FilledStore { dir, grown_bytes } = FilledStore::by(test, fill).unwrap();
    assert!(
        grown_bytes < MEMORY_BYTES_MAX,
        "{} MiB while filling",
        grown_bytes >> 20
    );

    let kafka: EmbeddedCluster = mock_kafka::start().unwrap();
    let starting = Instant::now();
    let mut gateway = GatewayProcess::start(
        &mock_kafka::config(&kafka),
        dir.path(),
        ProcessSwitches::default(),
        None,
    )
    .unwrap();
    println!(
        "first start after the kill: {} ms",
        starting.elapsed().as_millis()
    );
    let starting = Instant::now();
    gateway.restart().unwrap();
    let started = starting.elapsed();
    println!("start after another kill: {} ms", started.as_millis());
    // Below 2 s on a machine that has nothing else to do; a start that grows with
    // what waits took four times that long.
    assert!(started < 3 * START_MAX, "{started:?}");
    let status = gateway.status().unwrap();
    assert_eq!(status.receipts.waiting, RECEIPTS);
    assert_eq!(status.receipts.waiting_unknown, 0);
    assert_eq!(status.receipts.terminals, TERMINALS);
    assert_eq!(status.alarms, Vec::<String>::new());
    let resident = gateway.resident_bytes().unwrap();
    println!(
        "{} MiB on disk, {} MiB resident with all of them",
        status.journal.used_bytes >> 20,
        resident >> 20
    );
    assert!(resident < MEMORY_BYTES_MAX, "{} MiB", resident >> 20);

    // Who comes gets theirs, in their order.
    for terminal in [0, 4_711, TERMINALS - 1] {
        let id = format!("t{terminal}");
        let connect =
            Connect::persistent(5, &id).with(property::SESSION_EXPIRY, Value::Four(u32::MAX));
        let mut wire = Wire::accepted(gateway.mqtt_addr(), &connect).unwrap();
        wire.subscribe(&[(&format!("t/{id}/receipts"), 1)]).unwrap();
        let mut identifiers = Vec::new();
        for _ in 0..RECEIPTS_EACH {
            let receipt = wire.take().unwrap();
            assert_eq!(receipt.payload.len(), PAYLOAD_BYTES);
            identifiers.push(receipt.packet_id);
        }
        assert!(identifiers.is_sorted(), "{identifiers:?}");
    }
    gateway
        .wait_until("their rows are gone", PATIENCE, |status| {
            status.receipts.waiting == RECEIPTS - 3 * RECEIPTS_EACH
        })
        .unwrap();
}
