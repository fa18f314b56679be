//! What a session sees of its receipts, whatever happens in between.

use std::collections::BTreeSet;

use bytes::Bytes;
use risiti_mqtt::{RetainHandling, TopicFilter};

use super::*;

mod bounds;
mod retained_copy;

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

/// Far more than any of these tests needs: beyond, something goes in circles.
const STEPS_MAX: usize = 10_000;

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
        for _ in 0..STEPS_MAX {
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
        panic!("it sends and reads without an end")
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
fn a_page_of_an_old_connection_does_no_harm() {
    let mut bench = Bench::new(40);
    bench.send(20);
    bench.queue.connected();
    assert_eq!(bench.queue.ask().map(|p| p.after), Some(0));
}

#[test]
fn arrivals_are_of_interest_to_a_session_that_is_served() {
    let mut bench = Bench::of(ReceiptsQueue::resume(subscription(Qos::AtLeastOnce), None));
    assert!(!bench.queue.arrived(&[receipt(1)]), "not connected");
    assert_eq!(bench.queue.ask(), None);
    assert!(bench.queue.next(9).is_none());
    bench.queue.connected();
    assert!(bench.queue.arrived(&[receipt(1)]));
    assert!(!bench.queue.arrived(&[]));
    assert!(bench.queue.unsubscribe());
    assert!(!bench.queue.arrived(&[receipt(2)]));
}

#[test]
fn a_session_knows_its_subscription_and_what_it_sent() {
    let mut bench = Bench::of(ReceiptsQueue::resume(subscription(Qos::AtMostOnce), None));
    assert_eq!(
        bench.queue.subscription(),
        Some(&subscription(Qos::AtMostOnce))
    );
    assert_eq!(bench.queue.sent(), None);
    let new = subscription(Qos::AtLeastOnce);
    assert!(!bench.queue.subscribe(new.clone()), "it had one");
    assert_eq!(bench.queue.subscription(), Some(&new));
    bench.queue.connected();
    bench.store(2);
    bench.send(1);
    assert_eq!(
        bench.queue.sent(),
        Some(2),
        "they may have been sent before"
    );
    bench.store(1);
    bench.send(9);
    assert_eq!(bench.queue.sent(), Some(3));
    bench.queue.unsubscribe();
    assert_eq!(bench.queue.subscription(), None);
    bench.queue.begin(true);
    assert_eq!(bench.queue.ask(), None, "nobody to begin with");
}

#[test]
fn a_page_that_a_subscribe_outdated_is_read_again_from_the_start() {
    let per_page = limits::RECEIPTS_PER_PAGE;
    let mut bench = Bench::new(per_page as u64 + 3);
    let page = bench.queue.ask().unwrap();
    let read = bench.read(page);
    bench.queue.page(page, read);
    let sent: Vec<_> = std::iter::from_fn(|| bench.queue.next(99)).collect();
    assert_eq!(sent.len(), per_page);
    let page = bench.queue.ask().unwrap();
    assert_eq!(page.after, per_page as u64);
    let read = bench.read(page);
    bench.queue.done(sent[1].packet_id).unwrap(); // refused
    bench.queue.begin(false);
    bench.queue.page(page, read);
    assert!(bench.queue.next(99).is_none(), "of that page nothing");
    let numbers: Vec<_> = told(&bench.send(99)).iter().map(|t| t.0).collect();
    let behind = per_page as u64;
    assert_eq!(numbers, [2, behind + 1, behind + 2, behind + 3]);
}

/// MQTT-3.3.1-2: at QoS 0 nothing has DUP, whatever was sent before.
#[test]
fn what_goes_out_at_qos_0_has_no_dup() {
    let mut bench = Bench::new(1);
    assert_eq!(told(&bench.send(9)), [(1, false)]);
    bench.queue.subscribe(subscription(Qos::AtMostOnce));
    bench.queue.connected();
    assert_eq!(told(&bench.send(0)), [(1, false)]);
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
        for _ in 0..STEPS_MAX {
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
