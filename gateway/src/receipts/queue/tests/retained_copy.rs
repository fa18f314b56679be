//! The last receipt once more, for a SUBSCRIBE that asks for retained messages.

use super::*;

#[test]
fn the_last_receipt_comes_retained_if_it_is_asked_for_and_nothing_waits() {
    let mut bench = Bench::new(2);
    for next in bench.send(9) {
        bench.acknowledge(&next);
    }
    bench.queue.begin(false);
    assert!(bench.send(9).is_empty(), "not asked for");
    bench.queue.begin(true);
    let sent = bench.send(9);
    assert_eq!(told(&sent), [(2, false)]);
    assert!(sent[0].retain && sent[0].qos == Qos::AtLeastOnce);
    // Its PUBACK says nothing of the outbox.
    assert!(bench.queue.done(sent[0].packet_id).unwrap().retained);
    assert!(bench.queue.is_empty());
    // With one that waits, that one is the answer.
    bench.store(1);
    bench.queue.begin(true);
    let sent = bench.send(9);
    assert_eq!(told(&sent), [(3, false)]);
    assert!(!sent[0].retain);
    bench.acknowledge(&sent[0]);
    assert!(bench.send(9).is_empty());
}

#[test]
fn a_retained_copy_whose_connection_broke_comes_again_with_dup() {
    let mut bench = Bench::new(1);
    let next = bench.send(9).remove(0);
    bench.acknowledge(&next);
    bench.queue.begin(true);
    let copy = bench.send(9).remove(0);
    bench.queue.connected();
    let again = bench.send(9).remove(0);
    assert!(again.retain && again.dup);
    assert_eq!(again.packet_id, copy.packet_id);
    assert!(bench.queue.done(again.packet_id).unwrap().retained);
    bench.queue.connected();
    assert!(bench.send(9).is_empty());
    // A new request is a new message.
    bench.queue.begin(true);
    assert!(!bench.send(9).remove(0).dup);
}

#[test]
fn a_retained_copy_that_was_not_sent_when_a_connection_broke_comes_with_the_next() {
    let mut bench = Bench::new(1);
    let next = bench.send(9).remove(0);
    bench.acknowledge(&next);
    bench.queue.begin(true);
    assert!(bench.send(0).is_empty());
    bench.queue.connected();
    let copy = bench.send(9).remove(0);
    assert!(copy.retain && !copy.dup);
}

#[test]
fn a_retained_copy_is_not_sent_twice_at_once() {
    let mut bench = Bench::new(1);
    let next = bench.send(9).remove(0);
    bench.acknowledge(&next);
    bench.queue.begin(true);
    let copy = bench.send(9).remove(0);
    bench.queue.begin(true);
    assert!(bench.send(9).is_empty());
    assert!(bench.queue.done(copy.packet_id).unwrap().retained);
    bench.queue.begin(true);
    let again = bench.send(9).remove(0);
    assert!(
        again.retain && !again.dup,
        "another request, another message"
    );
}

/// MQTT-3.10.4-3 binds deliveries; a copy of one that was acknowledged is none.
#[test]
fn a_retained_copy_of_an_unsubscribed_client_does_not_come_again() {
    let mut bench = Bench::new(1);
    let next = bench.send(9).remove(0);
    bench.acknowledge(&next);
    bench.queue.begin(true);
    assert!(bench.send(9).remove(0).retain);
    bench.queue.unsubscribe();
    bench.queue.connected();
    assert_eq!(bench.queue.ask(), None);
    assert!(bench.queue.next(9).is_none());
}
