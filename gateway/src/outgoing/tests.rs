//! What a session is sent, whatever memory and store hold.

use super::*;

fn queued(sequence: Sequence, qos: Qos) -> Queued {
    Queued {
        sequence,
        message: Arc::new(Message::new("a", "x")),
        qos,
        retain: false,
        subscription_ids: Vec::new(),
        received_ms: 0,
        dup: false,
    }
}

fn sent(outgoing: &mut Outgoing) -> Vec<(Sequence, bool)> {
    std::iter::from_fn(|| outgoing.next(usize::MAX))
        .map(|n| match n {
            Next::Deliver(q) => (q.sequence, q.dup),
            Next::Release(s) => (s, false),
        })
        .collect()
}

#[test]
fn what_was_sent_before_a_reconnect_comes_again_with_dup() {
    let mut o = Outgoing::default();
    for _ in 0..3 {
        let s = o.assign();
        o.stored(queued(s, Qos::AtLeastOnce));
    }
    assert!(o.next(1).is_some());
    o.disconnected();
    let page = o.wanted().unwrap();
    assert_eq!(page.after, 0);
    let rows = (1..=3)
        .map(|s| Stored::Message(queued(s, Qos::AtLeastOnce)))
        .collect();
    o.page(page, rows, true);
    assert_eq!(sent(&mut o), [(1, true), (2, false), (3, false)]);
}

#[test]
fn more_than_memory_may_hold_stays_in_the_store_and_keeps_its_order() {
    let mut o = Outgoing::default();
    let total = limits::SESSION_WAITING_MAX as u64 * 3;
    for _ in 0..total {
        let s = o.assign();
        o.stored(queued(s, Qos::AtLeastOnce));
    }
    assert_eq!(o.len(), limits::SESSION_WAITING_MAX);
    let mut got = Vec::new();
    // At most as many pages as rows.
    for _ in 0..total {
        while let Some(Next::Deliver(q)) = o.next(usize::MAX) {
            got.push(q.sequence);
            o.done(Outgoing::packet_id(q.sequence));
        }
        let Some(page) = o.wanted() else { break };
        let rows: Vec<_> = (page.after + 1..=total).take(50).collect();
        let complete = rows.len() < 50;
        o.page(
            page,
            rows.into_iter()
                .map(|s| Stored::Message(queued(s, Qos::AtLeastOnce)))
                .collect(),
            complete,
        );
    }
    assert_eq!(got, (1..=total).collect::<Vec<_>>());
}

#[test]
fn a_row_stored_while_its_page_is_read_is_neither_lost_nor_sent_twice() {
    let mut o = Outgoing::resume(3, 0);
    let page = o.wanted().unwrap();
    // Row 3 is stored after the page was read from the store …
    let s = o.assign();
    o.stored(queued(s, Qos::AtLeastOnce));
    // … which holds rows 1 and 2 only.
    o.page(
        page,
        vec![
            Stored::Message(queued(1, Qos::AtLeastOnce)),
            Stored::Message(queued(2, Qos::AtLeastOnce)),
        ],
        true,
    );
    assert_eq!(sent(&mut o).len(), 2);
    let page = o.wanted().unwrap();
    assert_eq!(page.after, 2);
    let rows = vec![Stored::Message(queued(3, Qos::AtLeastOnce))];
    o.page(page, rows, true);
    assert_eq!(sent(&mut o), [(3, false)]);
    assert_eq!(o.wanted(), None);
}

#[test]
fn pubrel_is_owed_again_after_pubrec_and_a_reconnect() {
    let mut o = Outgoing::default();
    let s = o.assign();
    o.stored(queued(s, Qos::ExactlyOnce));
    sent(&mut o);
    assert_eq!(o.received(1), Some(1));
    o.disconnected();
    let page = o.wanted().unwrap();
    o.page(page, vec![Stored::Released(1)], true);
    assert!(matches!(o.next(0), Some(Next::Release(1))));
    assert_eq!(o.done(1), Some((1, 0)));
    assert_eq!(o.done(1), None);
}

#[test]
fn a_closed_window_holds_qos_1_back() {
    let mut o = Outgoing::default();
    let s = o.assign();
    assert!(o.push(queued(s, Qos::AtLeastOnce)));
    assert!(o.next(0).is_none());
    assert!(o.next(1).is_some());
}

/// With a payload of so many bytes.
fn heavy(sequence: Sequence, bytes: usize) -> Queued {
    Queued {
        message: Arc::new(Message::new("a", vec![0; bytes])),
        ..queued(sequence, Qos::AtLeastOnce)
    }
}

fn rows(sequences: &[Sequence]) -> Vec<Stored> {
    let row = |s: &Sequence| Stored::Message(queued(*s, Qos::AtLeastOnce));
    sequences.iter().map(row).collect()
}

#[test]
fn what_waits_in_memory_of_what_is_stored_is_bounded_in_bytes() {
    const HALF: usize = limits::SESSION_WAITING_BYTES_MAX / 2;
    let mut o = Outgoing::default();
    for bytes in [HALF, HALF, 1] {
        let s = o.assign();
        o.stored(heavy(s, bytes));
    }
    assert_eq!(o.len(), 2, "the third is left to a page");
    // Nothing overtakes it, whatever room there is.
    assert!(o.next(9).is_some());
    let s = o.assign();
    o.stored(heavy(s, 1));
    assert_eq!(o.wanted(), None, "not while something waits here");
    assert!(o.next(9).is_some());
    let page = o.wanted().unwrap();
    assert_eq!(page.after, 2);
    o.page(page, rows(&[3, 4]), true);
    assert_eq!(sent(&mut o), [(3, false), (4, false)]);

    // What was sent takes no room: the next two have it.
    for bytes in [HALF, HALF] {
        let s = o.assign();
        o.stored(heavy(s, bytes));
    }
    assert_eq!(sent(&mut o), [(5, false), (6, false)]);
    // One that is larger than all may be is not left in the store for good.
    let s = o.assign();
    o.stored(heavy(s, 3 * HALF));
    assert_eq!(sent(&mut o), [(7, false)]);
}

#[test]
fn what_exists_in_memory_only_is_bounded_in_number_and_bytes() {
    let mut o = Outgoing::default();
    for n in 0..limits::LIVE_WAITING_MAX {
        assert!(o.push(queued(0, Qos::AtMostOnce)), "{n}");
    }
    assert!(!o.push(queued(0, Qos::AtMostOnce)));
    assert_eq!(o.len(), limits::LIVE_WAITING_MAX);
    assert!(o.next(0).is_some());
    assert!(o.push(queued(0, Qos::AtMostOnce)), "one left");

    const HALF: usize = limits::LIVE_WAITING_BYTES_MAX / 2;
    let mut o = Outgoing::default();
    assert!(o.push(heavy(0, 3 * HALF)), "alone it may be larger");
    assert!(!o.push(heavy(0, 0)), "but nothing goes with it");
    assert!(o.next(9).is_some());
    assert!(o.push(heavy(0, HALF)) && o.push(heavy(0, HALF)));
    assert!(!o.push(heavy(0, 1)));
    assert!(o.next(9).is_some());
    assert!(o.push(heavy(0, HALF)));
}

#[test]
fn a_session_has_room_until_its_memory_is_full() {
    let mut o = Outgoing::default();
    for _ in 0..limits::SESSION_WAITING_MAX {
        assert!(o.has_room());
        assert!(o.push(queued(0, Qos::AtMostOnce)));
    }
    assert!(!o.has_room());
    o.next(0);
    assert!(o.has_room());
}

/// MQTT-4.3.1-1: QoS 0 is sent once and is over.
#[test]
fn qos_0_needs_no_window_and_leaves_nothing_in_flight() {
    let mut o = Outgoing::default();
    assert!(o.is_empty() && o.is_drained());
    assert!(o.push(queued(0, Qos::AtMostOnce)));
    assert_eq!((o.len(), o.is_empty(), o.is_drained()), (1, false, false));
    assert!(matches!(o.next(0), Some(Next::Deliver(q)) if !q.dup));
    assert!(o.is_empty() && o.is_drained());
    assert_eq!(o.sent(), 0);
}

#[test]
fn what_waits_and_what_is_in_flight_is_counted_until_it_is_done() {
    let mut o = Outgoing::default();
    for _ in 0..5 {
        let s = o.assign();
        o.stored(heavy(s, 10 + s as usize));
    }
    assert!(o.next(9).is_some() && o.next(9).is_some());
    assert_eq!(o.len(), 5);
    assert_eq!(o.sent(), 2);
    assert_eq!(o.next_sequence(), 6);
    assert_eq!(o.done(2), Some((2, 12)));
    assert_eq!(o.done(2), None, "once");
    assert_eq!(o.done(3), None, "not sent yet");
    assert_eq!(o.len(), 4);
    assert!(!o.is_drained());
    sent(&mut o);
    assert!(o.is_drained() && !o.is_empty());
}

#[test]
fn a_queue_is_drained_when_nothing_waits_in_the_store_either() {
    let mut o = Outgoing::resume(3, 0);
    assert!(o.is_empty() && !o.is_drained());
    let page = o.wanted().unwrap();
    o.page(page, rows(&[1, 2]), true);
    assert!(!o.is_drained());
    sent(&mut o);
    assert!(o.is_drained());
}

/// MQTT-4.3.3-4 and -5, and MQTT-4.4.0-1 where PUBREC comes twice.
#[test]
fn pubrec_counts_for_qos_2_in_flight_and_for_nothing_else() {
    let mut o = Outgoing::default();
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce] {
        let s = o.assign();
        o.stored(queued(s, qos));
    }
    assert!(o.next(9).is_some() && o.next(9).is_some());
    assert_eq!(o.received(1), None, "QoS 1");
    assert_eq!(o.received(2), Some(2));
    assert_eq!(o.received(2), Some(2), "again");
    assert_eq!(o.received(3), None, "not sent yet");
    assert_eq!(o.received(9), None);
    assert_eq!(o.done(1), Some((1, 1)));
    assert_eq!(o.done(2), Some((2, 0)));
}

#[test]
fn a_page_brings_nothing_twice() {
    let mut o = Outgoing::resume(4, 2);
    let page = o.wanted().unwrap();
    let mut read = rows(&[1, 1]);
    read.extend([2, 2, 1].map(Stored::Released));
    read.extend(rows(&[2, 3]));
    o.page(page, read, true);
    let mut got = Vec::new();
    while let Some(next) = o.next(9) {
        got.push(match next {
            Next::Deliver(q) => (q.sequence, q.dup, false),
            Next::Release(s) => (s, false, true),
        });
    }
    assert_eq!(got, [(1, true, false), (2, false, true), (3, false, false)]);
}

/// MQTT-2.2.1-3: identifiers repeat, and the one of a delivery that is never
/// acknowledged is not given again.
#[test]
fn one_that_is_never_acknowledged_keeps_its_identifier_to_itself() {
    let count = Identifiers::MESSAGES.count();
    let mut o = Outgoing::resume(count + 3, 0);
    let page = o.wanted().unwrap();
    o.page(page, rows(&[2, count + 1, count + 2]), true);
    assert_eq!(sent(&mut o), [(2, false), (count + 1, false)]);
    assert_eq!(Outgoing::packet_id(2), Outgoing::packet_id(count + 2));
    assert_eq!(o.done(Outgoing::packet_id(2)), Some((2, 1)));
    assert_eq!(sent(&mut o), [(count + 2, false)]);
}
