//! The outbox on a real store: what is on disk at which moment, and what is
//! still there after a kill.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

mod receipts_house;

use receipts_house::{Desk, House, event_count, poll, receipt, until};
use risiti_bridge::receipts::{
    Elsewhere, NextOffset, Poll, ReceiptNumber, ReceiptsFault, ReceiptsOptions,
};
use risiti_store::RecordSource;
use risiti_store::limits::BATCH_KEYS_MAX;

fn numbers(house: &House, terminal: &str) -> Vec<ReceiptNumber> {
    let page = house.outbox.page(terminal, 0, 1_000).unwrap();
    page.iter().map(|receipt| receipt.number).collect()
}

#[test]
fn receipts_are_numbered_by_terminal_and_survive_a_restart() {
    let desk = Desk::new();
    let house = desk.open();
    house.store(&[("a", 10), ("b", 20), ("a", 11)], 3);
    house.store(&[("a", 12)], 4);
    assert_eq!(numbers(&house, "a"), [1, 2, 3]);
    assert_eq!(numbers(&house, "b"), [1]);
    house.acknowledge("a", 3);
    drop(house);
    let house = desk.open();
    assert_eq!(numbers(&house, "a"), [1, 2]);
    assert_eq!(house.outbox.waiting(), 3);
    assert_eq!(house.offset(), Some(4));
    // A number is never used again, although its row is gone.
    house.store(&[("a", 13)], 5);
    assert_eq!(numbers(&house, "a"), [1, 2, 4]);
    assert_eq!(house.outbox.end("a").unwrap(), 5);
    assert_eq!(house.outbox.end("stranger").unwrap(), 1);
}

#[test]
fn a_page_begins_behind_a_number_and_ends_at_its_limit() {
    let desk = Desk::new();
    let house = desk.open();
    let all: Vec<_> = (1..=10).map(|sequence| ("a", sequence)).collect();
    house.store(&all, 1);
    let page = house.outbox.page("a", 3, 4).unwrap();
    let got: Vec<_> = page.iter().map(|r| (r.number, r.sequence)).collect();
    assert_eq!(got, [(4, 4), (5, 5), (6, 6), (7, 7)]);
    house.acknowledge("a", 5);
    let page = house.outbox.page("a", 3, 4).unwrap();
    let got: Vec<_> = page.iter().map(|r| r.number).collect();
    assert_eq!(got, [4, 6, 7, 8]);
    assert!(house.outbox.page("a", 10, 4).unwrap().is_empty());
}

#[test]
fn nobody_hears_of_a_receipt_before_the_sync_that_covers_it() {
    let desk = Desk::new();
    let gate = desk.gate();
    let house = desk.open_gated(&gate);
    gate.close();
    house
        .outbox
        .submit("default", &poll(&[("a", 1)], 1))
        .unwrap();
    gate.wait_blocked();
    assert!(house.heard().is_empty());
    assert_eq!(house.outbox.end("a").unwrap(), 1);
    assert!(numbers(&house, "a").is_empty());
    gate.open();
    house.wait_heard(1);
    assert_eq!(house.heard(), [("a".to_owned(), vec![1])]);
    assert_eq!(numbers(&house, "a"), [1]);
}

#[test]
fn an_acknowledged_receipt_is_never_given_again_and_stays_as_the_last() {
    let desk = Desk::new();
    let house = desk.open();
    house.store(&[("a", 1), ("a", 2)], 1);
    assert_eq!(house.outbox.last("a").unwrap().unwrap().number, 2);
    house.outbox.acknowledged("a", 1, false);
    // At once, although its row is still there.
    assert_eq!(numbers(&house, "a"), [2]);
    house.acknowledge("a", 2);
    house.wait_gone("a");
    assert_eq!(house.outbox.last("a").unwrap().unwrap().sequence, 2);
    assert_eq!(house.outbox.waiting(), 0);
    assert_eq!(house.outbox.last("b").unwrap(), None);
}

#[test]
fn a_delivery_event_is_in_the_journal_once_and_says_what_was_delivered() {
    let desk = Desk::new();
    let house = desk.open();
    house.store(&[("a", 7)], 1);
    house.acknowledge("a", 1);
    // A second PUBACK, and one for a number that nobody was given.
    house.outbox.acknowledged("a", 1, true);
    house.outbox.acknowledged("a", 2, false);
    house.outbox.acknowledged("stranger", 1, false);
    house.store(&[("a", 8)], 2);
    house.acknowledge("a", 2);
    let events = house.events();
    let got: Vec<_> = events.iter().map(|e| (e.number, e.sequence)).collect();
    assert_eq!(got, [(1, 7), (2, 8)]);
    assert_eq!(events[0].gateway, "gw-1");
    assert_eq!((&*events[0].terminal, events[0].status), ("a", 0));
}

#[test]
fn an_expired_receipt_goes_without_a_delivery_event() {
    let desk = Desk::new();
    let house = desk.open();
    let mut expiring = poll(&[("a", 1), ("a", 2)], 1);
    expiring.receipts[0].expires_ms = Some(house.now_ms() + 1_000);
    // This one is of no use already when it comes.
    expiring.receipts[1].expires_ms = Some(house.now_ms());
    house.submit(&expiring);
    assert_eq!(numbers(&house, "a"), [1]);
    house.outbox.expired("a", 1);
    house.wait_gone("a");
    assert!(house.events().is_empty());
    assert_eq!(house.offset(), Some(1));
}

/// Receipt and offset, as they are after a kill at this place.
fn after_kill(options: ReceiptsOptions, place: ReceiptsFault) -> (Option<i64>, Vec<u64>) {
    let desk = Desk::new();
    let image = desk.killed_at(options, place, |house| {
        house
            .outbox
            .submit("default", &poll(&[("a", 1)], 1))
            .unwrap();
    });
    let house = image.open();
    (house.offset(), numbers(&house, "a"))
}

#[test]
fn g4_a_receipt_is_on_disk_with_its_offset_or_neither_is() {
    let options = ReceiptsOptions::default();
    let after = after_kill(options, ReceiptsFault::AfterCommit);
    assert_eq!(after, (Some(1), vec![1]));
}

#[test]
fn control_an_offset_saved_before_the_row_loses_the_receipt_at_a_kill() {
    let options = ReceiptsOptions {
        offset_before_row: true,
        ..ReceiptsOptions::default()
    };
    let after = after_kill(options, ReceiptsFault::BetweenOffsetAndRow);
    assert_eq!(after, (Some(1), vec![]), "the control must lose it");
}

#[test]
fn g4_a_kill_at_any_step_of_the_way_out_leaves_one_delivery_event() {
    for place in [
        ReceiptsFault::BeforeEvent,
        ReceiptsFault::BeforeDeletion,
        ReceiptsFault::AfterDeletion,
    ] {
        let desk = Desk::new();
        let image = desk.killed_at(ReceiptsOptions::default(), place, |house| {
            house.store(&[("a", 1), ("a", 2)], 1);
            house.outbox.acknowledged("a", 1, false);
        });
        let house = image.open();
        // Its terminal is sent again what still waits, and acknowledges it again.
        for number in numbers(&house, "a") {
            house.outbox.acknowledged("a", number, true);
        }
        house.wait_gone("a");
        assert_eq!(event_count(&house, "a", 1), 1, "{place:?}");
        assert_eq!(event_count(&house, "a", 2), 1, "{place:?}");
        assert_eq!(house.outbox.waiting(), 0);
    }
}

#[test]
fn control_without_the_journals_dedup_a_kill_repeats_the_delivery_event() {
    let desk = Desk::new();
    let place = ReceiptsFault::BeforeDeletion;
    let mut image = desk.killed_at(ReceiptsOptions::default(), place, |house| {
        house.store(&[("a", 1)], 1);
        house.outbox.acknowledged("a", 1, false);
    });
    image.dedup = false;
    let house = image.open();
    house.outbox.acknowledged("a", 1, true);
    house.wait_gone("a");
    assert_eq!(event_count(&house, "a", 1), 2, "the control must repeat it");
}

#[test]
fn beyond_the_bound_receipts_for_strangers_are_counted_and_not_kept() {
    let desk = Desk::new();
    let house = desk.open_bounded(2, 100);
    house.store(&[("x1", 1), ("x2", 1), ("x3", 1), ("x1", 2)], 1);
    assert_eq!(house.outbox.waiting_unknown(), 2);
    assert_eq!(house.count(|m| &m.unknown), 2);
    assert!(numbers(&house, "x3").is_empty());
    // The offset passes all the same, and who was here is not held up.
    assert_eq!(house.offset(), Some(1));
    house.outbox.seen("here");
    house.store(&[("here", 1), ("here", 2), ("here", 3)], 2);
    assert_eq!(numbers(&house, "here"), [1, 2, 3]);
    // One that comes makes room for others, and is remembered over a restart.
    house.outbox.seen("x1");
    assert_eq!(house.outbox.waiting_unknown(), 1);
    house.store(&[("x3", 1)], 3);
    assert_eq!(numbers(&house, "x3"), [1]);
    drop(house);
    let house = desk.open_bounded(2, 100);
    assert_eq!(house.outbox.waiting_unknown(), 2);
    house.store(&[("x1", 3), ("x4", 1)], 4);
    assert_eq!(numbers(&house, "x1"), [1, 2]);
    assert!(numbers(&house, "x4").is_empty());
}

#[test]
fn beyond_the_bound_of_one_terminal_others_are_not_held_up() {
    let desk = Desk::new();
    let house = desk.open_bounded(100, 2);
    house.store(&[("a", 1), ("a", 2), ("a", 3), ("b", 1)], 1);
    assert_eq!(numbers(&house, "a"), [1, 2]);
    assert_eq!(numbers(&house, "b"), [1]);
    assert_eq!(house.count(|m| &m.terminal_full), 1);
    house.acknowledge("a", 1);
    house.wait_gone_number("a", 1);
    house.store(&[("a", 3)], 2);
    assert_eq!(numbers(&house, "a"), [2, 3]);
}

#[test]
fn what_another_gateway_delivered_goes_without_an_event_of_ours() {
    let desk = Desk::new();
    let house = desk.open();
    house.store(&[("a", 1), ("a", 2), ("b", 1)], 1);
    let elsewhere = Poll {
        elsewhere: [("a", 2), ("b", 9), ("stranger", 1)]
            .map(|(terminal, sequence)| Elsewhere {
                terminal: terminal.into(),
                sequence,
            })
            .into(),
        ..Poll::default()
    };
    house.submit(&elsewhere);
    assert_eq!(numbers(&house, "a"), [1]);
    assert_eq!(numbers(&house, "b"), [1]);
    assert_eq!(house.outbox.waiting(), 2);
    assert!(house.events().is_empty());
}

/// Found by a soak of two gateways on a busy machine: the rows stayed for ever.
#[test]
fn g8_what_another_gateway_delivered_goes_also_if_its_receipt_comes_later() {
    let desk = Desk::new();
    let house = desk.open();
    let delivered = |terminal: &str, sequence| Elsewhere {
        terminal: terminal.into(),
        sequence,
    };
    // Before its receipt is read.
    house.submit(&Poll {
        elsewhere: vec![delivered("a", 2)],
        ..Poll::default()
    });
    house.store(&[("a", 1), ("a", 2)], 1);
    // In the same commit.
    let mut both = poll(&[("b", 1), ("b", 2)], 2);
    both.elsewhere.push(delivered("b", 1));
    house.submit(&both);
    until("both are gone", || house.outbox.waiting() == 2);
    assert_eq!(numbers(&house, "a"), [1]);
    assert_eq!(numbers(&house, "b"), [2]);
    assert_eq!(house.count(|m| &m.delivered_elsewhere), 2);
    assert!(house.events().is_empty());
    // Asked for again, it is there again.
    house.store(&[("a", 2)], 3);
    assert_eq!(numbers(&house, "a"), [1, 3]);
}

#[test]
fn whatever_a_poll_holds_it_is_one_atomic_commit() {
    let desk = Desk::new();
    let house = desk.open();
    let mut poll = Poll::default();
    let mut stored = 0;
    for n in 0..10_000_u32 {
        if !poll.has_room() {
            assert!(poll.receipts.len() > 50);
            house.submit(&std::mem::take(&mut poll));
        }
        let terminal = format!("t{n}");
        poll.receipts.push(receipt(&terminal, 1));
        stored += 1;
        poll.elsewhere.extend((n % 50 == 0).then(|| Elsewhere {
            terminal: format!("t{}", n / 2),
            sequence: 1,
        }));
        poll.passed(NextOffset {
            topic: "receipts".into(),
            partition: i32::try_from(n % 100).unwrap(),
            next: i64::from(n),
        });
    }
    house.submit(&poll);
    let ended = || house.count(|m| &m.delivered_elsewhere);
    assert!(ended() > 100);
    assert_eq!(house.count(|m| &m.stored), stored);
    // What was delivered in the commit of its receipt goes after it.
    until("all is counted", || {
        house.outbox.waiting() == stored - ended()
    });
    const { assert!(BATCH_KEYS_MAX <= 512) };
}

#[test]
fn a_terminal_whose_own_row_was_lost_gets_no_number_twice() {
    let desk = Desk::new();
    let house = desk.open();
    house.store(&[("a", 1), ("a", 2), ("a", 3)], 1);
    house.acknowledge("a", 1);
    house.wait_gone_number("a", 1);
    house.lose_row(b"ota");
    drop(house);
    let house = desk.open();
    house.store(&[("a", 4)], 2);
    let numbers = numbers(&house, "a");
    assert_eq!(numbers[..2], [2, 3]);
    assert!(numbers[2] > 1_000, "{numbers:?}");
    assert_eq!(house.outbox.waiting(), 3);
    for number in numbers {
        house.acknowledge("a", number);
    }
    house.wait_gone("a");
    assert_eq!(house.events().len(), 4);
}

#[test]
fn what_damage_took_does_not_wait_any_more() {
    let desk = Desk::new();
    let house = desk.open();
    house.store(&[("a", 1), ("a", 2), ("a", 3)], 1);
    house.lose_row(&[&b"ora\0"[..], &2_u64.to_be_bytes()].concat());
    assert_eq!(numbers(&house, "a"), [1, 3]);
    assert_eq!(house.outbox.waiting(), 2);
    house.acknowledge("a", 1);
    house.acknowledge("a", 3);
    // A PUBACK for the one that is gone leads to nothing.
    house.outbox.acknowledged("a", 2, false);
    house.store(&[("a", 4)], 2);
    assert_eq!(numbers(&house, "a"), [4]);
    assert_eq!(house.outbox.waiting(), 1);
    assert_eq!(house.events().len(), 2);
}

#[test]
fn visitors_without_receipts_are_forgotten_before_anybody_else() {
    let desk = Desk::new();
    let house = desk.open();
    house.store(&[("a", 1)], 1);
    let max = risiti_bridge::limits::TERMINALS_MAX;
    for n in 0..max + 10 {
        house.outbox.seen(&format!("v{n}"));
    }
    assert_eq!(house.outbox.terminals(), max);
    assert_eq!(numbers(&house, "a"), [1]);
}

const SMALL_BUDGET: (u64, u64) = (24_000_000, 7_000_000);

/// Stores so many receipts of the largest size for 50 terminals.
fn store_large(house: &House, count: u64) {
    let names: Vec<_> = (0..50).map(|n| format!("t{n}")).collect();
    let mut poll = Poll::default();
    for n in 0..count {
        let mut large = receipt(&names[(n % 50) as usize], n);
        large.payload = vec![7; 265].into();
        poll.receipts.push(large);
        if !poll.has_room() {
            house.submit(&std::mem::take(&mut poll));
        }
    }
    house.submit(&poll);
}

fn acknowledge_all(house: &House) {
    for terminal in 0..50 {
        let terminal = format!("t{terminal}");
        for number in numbers(house, &terminal) {
            house.outbox.acknowledged(&terminal, number, false);
        }
    }
}

#[test]
fn g8_as_many_receipts_as_may_wait_can_all_leave() {
    let mut desk = Desk::new();
    desk.budget_bytes = SMALL_BUDGET;
    let house = desk.open();
    let max = risiti_bridge::limits::receipts_max(SMALL_BUDGET.0, SMALL_BUDGET.1);
    assert!(max > 5_000, "{max}");
    store_large(&house, max);
    assert_eq!(house.outbox.waiting(), max);
    acknowledge_all(&house);
    until("they leave", || {
        assert_eq!(house.journal.health().withheld, None);
        // As the forwarder does.
        let end = house.journal.end();
        house.journal.release("default", end);
        house.outbox.waiting() == 0
    });
    assert_eq!(house.count(|m| &m.delivered), max);
}

#[test]
fn control_a_disk_full_of_receipts_lets_none_of_them_leave() {
    let mut desk = Desk::new();
    desk.budget_bytes = SMALL_BUDGET;
    let house = desk.open();
    let mut rounds = 0;
    while house.state.receipts_refused().is_none() {
        store_large(&house, 5_000);
        rounds += 1;
        assert!(rounds < 100, "the budget is never spent");
    }
    let waiting = house.outbox.waiting();
    assert!(waiting > 2 * risiti_bridge::limits::receipts_max(SMALL_BUDGET.0, SMALL_BUDGET.1));
    acknowledge_all(&house);
    until("appends are withheld", || {
        let end = house.journal.end();
        house.journal.release("default", end);
        house.journal.health().withheld.is_some()
    });
    assert_eq!(
        house.outbox.waiting(),
        waiting,
        "the control must hold them"
    );
}
