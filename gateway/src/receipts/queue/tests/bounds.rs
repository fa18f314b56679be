//! What memory and identifiers a session takes at most.

use super::*;

#[test]
fn memory_is_bounded_whatever_waits_and_arrives() {
    let total = limits::RECEIPTS_WAITING_MAX as u64 * 5;
    let mut bench = Bench::new(total);
    bench.send(1);
    bench.store(total);
    assert!(bench.queue.len() <= limits::RECEIPTS_WAITING_MAX + 1);
    let mut got = vec![1];
    bench.acknowledge(&Next {
        packet_id: Identifiers::RECEIPTS.of(1),
        ..bench_next(1)
    });
    while let [next] = &bench.send(1)[..] {
        got.push(next.receipt.number);
        assert!(got.len() as u64 <= 2 * total);
        let next = next.clone();
        bench.acknowledge(&next);
    }
    assert_eq!(got, (1..=2 * total).collect::<Vec<_>>());
    assert!(bench.rows.is_empty() && bench.queue.is_empty());
}

fn bench_next(number: ReceiptNumber) -> Next {
    Next {
        receipt: receipt(number),
        packet_id: 0,
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        subscription_id: None,
    }
}

#[test]
fn one_that_is_never_acknowledged_keeps_its_identifier_to_itself() {
    let mut bench = Bench::new(1);
    let oldest = bench.send(9).remove(0);
    let count = Identifiers::RECEIPTS.count();
    bench.end = count; // numbers that other connections saw
    bench.store(2);
    // Numbers up to `count` are free; the next would be the oldest's own.
    assert_eq!(told(&bench.send(9)), [(count, false)]);
    bench.acknowledge(&oldest);
    let next = bench.send(9).remove(0);
    assert_eq!(next.packet_id, oldest.packet_id);
}

/// MQTT-2.2.1-3: a refused receipt that comes again is older than what is in flight,
/// and may have the identifier of any of it.
#[test]
fn an_old_receipt_waits_for_the_identifier_that_a_new_one_took() {
    let count = Identifiers::RECEIPTS.count();
    let mut bench = Bench::new(2);
    let sent = bench.send(9);
    bench.queue.done(sent[0].packet_id).unwrap(); // refused
    bench.end = count + 1;
    bench.store(1);
    let new = bench.send(9).remove(0);
    assert_eq!(new.packet_id, sent[0].packet_id);
    bench.queue.begin(false);
    assert!(bench.send(9).is_empty());
    bench.acknowledge(&new);
    assert_eq!(told(&bench.send(9)), [(1, true)]);
}

#[test]
fn what_waits_in_memory_is_bounded_in_bytes() {
    let half = limits::RECEIPTS_WAITING_BYTES_MAX / 2;
    let heavy = |number| StoredReceipt {
        payload: vec![0; half].into(),
        ..receipt(number)
    };
    let mut bench = Bench::new(0);
    assert!(bench.send(9).is_empty());
    for _ in 0..2 {
        for number in bench.end..bench.end + 3 {
            bench.rows.insert(number);
            assert!(bench.queue.arrived(&[heavy(number)]));
        }
        bench.end += 3;
        assert_eq!(bench.queue.len(), 2, "the third is left to a page");
        for number in [bench.end - 3, bench.end - 2, bench.end - 1] {
            let sent = bench.send(1).remove(0);
            assert_eq!(sent.receipt.number, number);
            bench.acknowledge(&sent);
        }
        assert!(bench.queue.is_empty());
    }
}

#[test]
fn what_waits_and_what_is_in_flight_is_counted() {
    let mut bench = Bench::new(3);
    assert!(bench.queue.is_empty());
    let sent = bench.send(2);
    assert_eq!((bench.queue.len(), bench.queue.is_empty()), (3, false));
    for next in &sent {
        bench.acknowledge(next);
    }
    assert_eq!(bench.queue.len(), 1);
    let sent = bench.send(2);
    bench.acknowledge(&sent[0]);
    assert!(bench.queue.is_empty());
    bench.queue.begin(true);
    assert!(bench.send(0).is_empty(), "no window");
    assert_eq!((bench.queue.len(), bench.queue.is_empty()), (1, false));
    bench.send(1);
    assert_eq!(bench.queue.len(), 1);
}

#[test]
fn what_was_sent_makes_room_for_as_many_bytes() {
    let of = |number, bytes: usize| StoredReceipt {
        payload: vec![0; bytes].into(),
        ..receipt(number)
    };
    let mut bench = Bench::new(0);
    assert!(bench.send(9).is_empty());
    bench.queue.arrived(&[of(1, 1)]);
    bench
        .queue
        .arrived(&[of(2, limits::RECEIPTS_WAITING_BYTES_MAX - 1)]);
    assert!(bench.queue.is_full());
    assert!(bench.queue.next(1).is_some());
    bench.queue.arrived(&[of(3, 1)]);
    assert_eq!(bench.queue.waiting.len(), 2);
    assert!(bench.queue.is_full());
}
