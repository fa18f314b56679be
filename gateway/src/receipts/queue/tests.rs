//! What a session sees of its receipts, whatever happens in between.

use std::collections::BTreeSet;

use bytes::Bytes;
use risiti_mqtt::{RetainHandling, TopicFilter};

use super::*;

fn receipt(number: ReceiptNumber) -> StoredReceipt {
    StoredReceipt {
        number,
        sequence: number + 100,
        stored_ms: 0,
        expires_ms: None,
        payload: Bytes::from(number.to_string()),
    }
}

fn subscription(qos: Qos) -> Subscription {
    Subscription {
        filter: TopicFilter::parse("t/17/receipts".into(), true).unwrap(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
        id: Some(9),
    }
}

/// An outbox, and a client that is connected or not.
struct Bench {
    rows: BTreeSet<ReceiptNumber>,
    end: ReceiptNumber,
    queue: ReceiptsQueue,
}

impl Bench {
    /// Subscribed and connected, with so many receipts waiting.
    fn new(waiting: u64) -> Self {
        let mut bench = Self::of(ReceiptsQueue::resume(
            subscription(Qos::ExactlyOnce),
            Some(0),
        ));
        bench.store(waiting);
        bench.queue.begin(false);
        bench
    }

    fn of(queue: ReceiptsQueue) -> Self {
        Self {
            rows: BTreeSet::new(),
            end: 1,
            queue,
        }
    }

    /// As many new ones; the queue is told.
    fn store(&mut self, count: u64) {
        for _ in 0..count {
            self.rows.insert(self.end);
            self.queue.arrived(&[receipt(self.end)]);
            self.end += 1;
        }
    }

    fn read(&self, page: Page) -> PageRead {
        let above = page.after + 1;
        let receipts: Vec<_> = self
            .rows
            .range(above..)
            .take(limits::RECEIPTS_PER_PAGE)
            .map(|number| receipt(*number))
            .collect();
        PageRead {
            complete: receipts.len() < limits::RECEIPTS_PER_PAGE,
            receipts,
            end: page.wants_end.then_some(self.end),
            last: (page.wants_last && self.end > 1).then(|| receipt(self.end - 1)),
        }
    }

    /// All that goes out with that window, reading pages as needed.
    fn send(&mut self, window: usize) -> Vec<Next> {
        let mut sent = Vec::new();
        loop {
            let free = window.saturating_sub(self.queue.in_flight.len());
            if let Some(next) = self.queue.next(free) {
                sent.push(next);
            } else if let Some(page) = self.queue.ask() {
                let read = self.read(page);
                self.queue.page(page, read);
            } else {
                return sent;
            }
            assert!(self.queue.waiting.len() <= limits::RECEIPTS_WAITING_MAX);
        }
    }

    fn acknowledge(&mut self, next: &Next) {
        let done = self.queue.done(next.packet_id).unwrap();
        assert_eq!(done.number, next.receipt.number);
        assert_eq!(done.sequence, next.receipt.sequence);
        if !done.retained {
            self.rows.remove(&done.number);
        }
    }
}

/// Number and DUP.
fn told(sent: &[Next]) -> Vec<(ReceiptNumber, bool)> {
    sent.iter().map(|n| (n.receipt.number, n.dup)).collect()
}

#[test]
fn receipts_leave_in_order_at_qos_1_under_their_own_identifiers() {
    let mut bench = Bench::new(3);
    let sent = bench.send(usize::MAX);
    assert_eq!(told(&sent), [(1, false), (2, false), (3, false)]);
    for next in &sent {
        assert_eq!((next.qos, next.retain), (Qos::AtLeastOnce, false));
        assert_eq!(next.subscription_id, Some(9));
        assert_eq!(next.packet_id, 32_767 + next.receipt.number as u16);
    }
}

#[test]
fn what_is_not_acknowledged_comes_again_with_dup_and_its_identifier() {
    let mut bench = Bench::new(4);
    let first = bench.send(3);
    bench.acknowledge(&first[1]);
    bench.queue.connected();
    let again = bench.send(usize::MAX);
    assert_eq!(told(&again), [(1, true), (3, true), (4, false)]);
    assert_eq!(again[0].packet_id, first[0].packet_id);
    assert_eq!(again[1].packet_id, first[2].packet_id);
}

#[test]
fn after_a_kill_all_that_may_have_been_sent_has_dup_and_what_comes_then_has_not() {
    let mut bench = Bench::of(ReceiptsQueue::resume(subscription(Qos::AtLeastOnce), None));
    bench.store(2);
    bench.queue.connected();
    assert_eq!(told(&bench.send(9)), [(1, true), (2, true)]);
    bench.store(1);
    assert_eq!(told(&bench.send(9)), [(3, false)]);
}

#[test]
fn a_receipt_stored_while_a_page_is_read_is_neither_lost_nor_sent_twice() {
    for read_before in [true, false] {
        let mut bench = Bench::new(2);
        let page = bench.queue.ask().unwrap();
        assert_eq!(bench.queue.ask(), None, "one at a time");
        let early = bench.read(page);
        bench.store(1);
        let late = bench.read(page);
        bench
            .queue
            .page(page, if read_before { early } else { late });
        let numbers: Vec<_> = told(&bench.send(9)).iter().map(|t| t.0).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert!(bench.send(9).is_empty());
    }
}

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
fn at_qos_0_each_connection_gets_what_waits_once() {
    let mut bench = Bench::of(ReceiptsQueue::resume(
        subscription(Qos::AtMostOnce),
        Some(0),
    ));
    bench.store(2);
    for _ in 0..2 {
        bench.queue.connected();
        let sent = bench.send(0);
        assert_eq!(told(&sent), [(1, false), (2, false)]);
        assert!(
            sent.iter()
                .all(|n| n.packet_id == 0 && n.qos == Qos::AtMostOnce)
        );
        assert!(bench.send(0).is_empty() && bench.queue.is_empty());
    }
    bench.queue.subscribe(subscription(Qos::AtLeastOnce));
    bench.queue.begin(false);
    // What was sent without a promise is owed in full.
    assert_eq!(told(&bench.send(9)), [(1, false), (2, false)]);
}

#[test]
fn an_unsubscribed_client_gets_nothing_more_but_its_pubacks_count() {
    let mut bench = Bench::new(3);
    let sent = bench.send(2);
    assert!(bench.queue.unsubscribe());
    assert!(!bench.queue.unsubscribe());
    bench.store(1);
    assert!(bench.send(9).is_empty());
    bench.acknowledge(&sent[0]);
    // What was sent is delivered to its end, and that is all.
    for _ in 0..2 {
        bench.queue.connected();
        let again = bench.send(9);
        assert_eq!(told(&again), [(2, true)]);
        assert_eq!(again[0].packet_id, sent[1].packet_id);
        bench.store(1);
        assert!(bench.send(9).is_empty());
    }
    bench.acknowledge(&sent[1]);
    bench.queue.connected();
    assert_eq!(bench.queue.ask(), None);
    assert!(bench.send(9).is_empty());
    assert!(bench.queue.subscribe(subscription(Qos::AtLeastOnce)));
    bench.queue.begin(false);
    let numbers: Vec<_> = told(&bench.send(9)).iter().map(|t| t.0).collect();
    assert_eq!(numbers, [3, 4, 5, 6]);
}

#[test]
fn a_subscribe_again_sends_nothing_that_is_in_flight_twice() {
    let mut bench = Bench::new(3);
    assert_eq!(bench.send(2).len(), 2);
    // While a page is on its way.
    bench.queue.begin(true);
    let page = bench.queue.ask().unwrap();
    let read = bench.read(page);
    bench.queue.begin(true);
    bench.queue.page(page, read);
    assert_eq!(told(&bench.send(9)), [(3, false)]);
    assert!(bench.send(9).is_empty());
}

#[test]
fn a_refused_receipt_is_offered_again_by_the_next_connection_or_subscribe() {
    let mut bench = Bench::new(1);
    for again in [false, true, true] {
        let sent = bench.send(9);
        assert_eq!(told(&sent), [(1, again)]);
        // PUBACK with an error: the delivery is over, the row stays.
        bench.queue.done(sent[0].packet_id).unwrap();
        assert!(bench.send(9).is_empty());
        if again {
            bench.queue.begin(false);
        } else {
            bench.queue.connected();
        }
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

#[test]
fn a_page_of_an_old_connection_does_no_harm() {
    let mut bench = Bench::new(40);
    bench.send(20);
    bench.queue.connected();
    assert_eq!(bench.queue.ask().map(|p| p.after), Some(0));
}

/// Random steps against a plain account of what a client must see.
#[test]
fn whatever_happens_each_receipt_comes_in_order_until_it_is_acknowledged() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new(0);
        let mut pending: Option<(Page, PageRead)> = None;
        let mut flying: Vec<Next> = Vec::new();
        let mut ever_sent = BTreeSet::new();
        let mut highest = 0;
        let window = random.usize(1..6);
        for _ in 0..random.usize(20..200) {
            match random.u8(0..12) {
                0..=2 => bench.store(random.u64(1..8)),
                3 | 4 => {
                    pending = pending.or_else(|| {
                        let page = bench.queue.ask()?;
                        Some((page, bench.read(page)))
                    });
                }
                5 => {
                    if let Some((page, read)) = pending.take() {
                        bench.queue.page(page, read);
                    }
                }
                6..=8 => {
                    let Some(next) = bench.queue.next(window - flying.len()) else {
                        continue;
                    };
                    let number = next.receipt.number;
                    assert!(bench.rows.contains(&number), "seed {seed}");
                    assert!(number > highest, "out of order, seed {seed}");
                    assert_eq!(next.dup, !ever_sent.insert(number), "seed {seed}");
                    highest = number;
                    flying.push(next);
                }
                9 | 10 if !flying.is_empty() => {
                    let next = flying.swap_remove(random.usize(..flying.len()));
                    bench.acknowledge(&next);
                }
                11 if random.bool() => {
                    bench.queue.connected();
                    (pending, highest) = (None, 0);
                    flying.clear();
                }
                11 if pending.is_none() => {
                    bench.queue.begin(false);
                    // In flight stays in flight; what was refused none was.
                    highest = 0;
                }
                _ => {}
            }
        }
        if let Some((page, read)) = pending.take() {
            bench.queue.page(page, read);
        }
        for next in flying {
            bench.acknowledge(&next);
        }
        loop {
            let sent = bench.send(window);
            if sent.is_empty() {
                break;
            }
            for next in &sent {
                bench.acknowledge(next);
            }
        }
        assert!(bench.rows.is_empty(), "seed {seed}: {:?}", bench.rows);
    }
}
