//! Numbers, counts and bounds, one by one and against a simple-minded account.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const BOUNDS: Bounds = Bounds {
    terminals_max: 8,
    unknown_receipts_max: 20,
    per_terminal_max: 5,
};

/// What a terminal has, by a simple-minded account.
#[derive(Default)]
struct Account {
    seen: bool,
    given: ReceiptNumber,
    waiting: BTreeSet<ReceiptNumber>,
    going: BTreeSet<ReceiptNumber>,
}

/// Does what chance says to the ledger and to accounts, which must agree.
fn run(seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut ledger = Ledger::new(BOUNDS);
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    for _ in 0..2_000 {
        let terminal = format!("t{}", chance.u8(0..6));
        let account = accounts.entry(terminal.clone()).or_default();
        match chance.u8(0..6) {
            0..=2 => {
                if ledger.is_strange(&terminal) {
                    ledger.introduce(&terminal, account.given + 1, 0);
                }
                let mut before = Before::new();
                match ledger.admit(&terminal, &mut before) {
                    Ok((_, number)) if chance.u8(0..4) == 0 => {
                        assert_eq!(number, account.given + 1);
                        ledger.undo(before);
                    }
                    Ok((_, number)) => {
                        assert_eq!(number, account.given + 1);
                        account.given = number;
                        account.waiting.insert(number);
                        ledger.durable(&terminal, number);
                    }
                    Err(Full::Terminal) => assert_eq!(account.waiting.len(), 5),
                    Err(Full::Unknown) => {
                        assert!(!account.seen);
                        ledger.dismiss(&terminal);
                    }
                }
            }
            3 => {
                ledger.seen(&terminal);
                account.seen = true;
            }
            4 => {
                let number = chance.u64(0..account.given + 2);
                let free =
                    (1..=account.given).contains(&number) && !account.going.contains(&number);
                assert_eq!(ledger.going(&terminal, number).is_some(), free);
                if free {
                    account.going.insert(number);
                }
            }
            _ => {
                if let Some(number) = account.going.pop_first() {
                    let name = ledger.name(&terminal).unwrap();
                    assert!(ledger.is_going(&name, number));
                    if account.waiting.remove(&number) {
                        ledger.leaves(&terminal);
                    }
                    ledger.gone(&name, number);
                }
            }
        }
        let count = |pick: &dyn Fn(&Account) -> bool| -> u64 {
            let some = accounts.values().filter(|account| pick(account));
            some.map(|account| account.waiting.len() as u64).sum()
        };
        assert_eq!(ledger.waiting(), count(&|_| true));
        assert_eq!(ledger.unknown(), count(&|account| !account.seen));
        assert!(ledger.unknown() <= BOUNDS.unknown_receipts_max);
    }
    // And what is on disk brings it all back.
    let mut again = Ledger::new(BOUNDS);
    for terminal in accounts.keys() {
        if let Some(row) = ledger.row(terminal) {
            again.restore(terminal, row);
            assert_eq!(again.row(terminal), Some(row));
        }
    }
    assert_eq!(
        (again.waiting(), again.unknown()),
        (ledger.waiting(), ledger.unknown())
    );
}

#[test]
fn it_agrees_with_a_simple_minded_account_whatever_happens() {
    for seed in 0..50 {
        run(seed);
    }
}

#[test]
fn a_visitor_makes_room_by_the_oldest_that_never_had_a_receipt() {
    let mut ledger = Ledger::new(BOUNDS);
    for n in 0..8 {
        assert_eq!(ledger.seen(&format!("v{n}")), Some(None));
    }
    ledger.introduce("v0", 1, 0);
    ledger.admit("v0", &mut Before::new()).unwrap();
    assert_eq!(ledger.seen("new"), Some(Some("v1".into())));
    assert_eq!(ledger.terminals(), 8);
    assert!(ledger.row("v0").is_some());
    assert_eq!(ledger.seen("v0"), None);
}

fn row(seen: bool, next: ReceiptNumber, waiting: u32) -> TerminalRow {
    TerminalRow {
        seen,
        next,
        waiting,
    }
}

fn counts(ledger: &Ledger) -> (u64, u64) {
    (ledger.waiting(), ledger.unknown())
}

/// One receipt more for a terminal.
fn admit(ledger: &mut Ledger, terminal: &str) -> Result<ReceiptNumber, Full> {
    let admitted = ledger.admit(terminal, &mut Before::new());
    admitted.map(|(_, number)| number)
}

#[test]
fn what_waits_is_counted_when_the_disk_tells_of_it() {
    let mut ledger = Ledger::new(BOUNDS);
    ledger.restore("a", row(true, 4, 2));
    assert_eq!(counts(&ledger), (2, 0));
    ledger.restore("b", row(false, 9, 3));
    assert_eq!(counts(&ledger), (5, 3));
    // Rows whose terminal's own was lost.
    ledger.introduce("c", 7, 4);
    assert_eq!(counts(&ledger), (9, 7));
    ledger.seen("d");
    ledger.introduce("d", 7, 1);
    assert_eq!(counts(&ledger), (10, 7));
    ledger.introduce("d", 9, 3);
    assert_eq!(counts(&ledger), (10, 7), "it is strange no more");
    assert_eq!(ledger.row("d"), Some(row(true, 7, 1)));
}

#[test]
fn numbers_are_known_once_the_disk_was_asked() {
    let mut ledger = Ledger::new(BOUNDS);
    assert_eq!(ledger.end("a"), None);
    ledger.seen("a");
    assert_eq!(ledger.end("a"), None);
    ledger.introduce("a", 1, 0);
    assert_eq!(ledger.end("a"), Some(1));
    assert_eq!(admit(&mut ledger, "a"), Ok(1));
    assert_eq!(ledger.end("a"), Some(1), "not durable");
    ledger.durable("a", 1);
    assert_eq!(ledger.end("a"), Some(2));
}

#[test]
fn g8_strangers_are_bounded_in_number_and_in_receipts() {
    let mut ledger = Ledger::new(BOUNDS);
    for n in 0..BOUNDS.terminals_max {
        let name = format!("s{n}");
        ledger.introduce(&name, 1, 0);
        assert_eq!(admit(&mut ledger, &name), Ok(1));
    }
    ledger.introduce("one more", 1, 0);
    assert_eq!(admit(&mut ledger, "one more"), Err(Full::Unknown));
    // Who had receipts before, or was here, is none too many.
    ledger.introduce("known", 5, 0);
    assert_eq!(admit(&mut ledger, "known"), Ok(5));
    ledger.restore("lost", row(false, 1, 1));
    assert_eq!(admit(&mut ledger, "lost"), Ok(1));
    ledger.restore("here", row(true, 1, 0));
    assert_eq!(admit(&mut ledger, "here"), Ok(1));

    let mut ledger = Ledger::new(BOUNDS);
    for n in 0..4 {
        ledger.restore(&format!("s{n}"), row(false, 6, 5));
    }
    assert_eq!(ledger.unknown(), BOUNDS.unknown_receipts_max);
    ledger.restore("s4", row(false, 6, 4));
    assert_eq!(admit(&mut ledger, "s4"), Err(Full::Unknown));
    ledger.restore("here", row(true, 6, 4));
    assert_eq!(admit(&mut ledger, "here"), Ok(6));
    assert_eq!(admit(&mut ledger, "here"), Err(Full::Terminal));
}

#[test]
fn what_one_commit_admitted_is_taken_back_whole() {
    let mut ledger = Ledger::new(BOUNDS);
    ledger.restore("a", row(true, 4, 2));
    ledger.restore("b", row(false, 1, 0));
    let mut before = Before::new();
    for terminal in ["a", "b", "a", "b", "b"] {
        ledger.admit(terminal, &mut before).unwrap();
    }
    assert_eq!(counts(&ledger), (7, 3));
    ledger.undo(before);
    assert_eq!(counts(&ledger), (2, 0));
    assert_eq!(ledger.row("a"), Some(row(true, 4, 2)));
    assert_eq!(ledger.row("b"), Some(row(false, 1, 0)));
}

#[test]
fn only_who_has_nothing_and_never_was_here_is_dismissed() {
    for (row, stays) in [
        (row(false, 1, 0), false),
        (row(true, 1, 0), true),
        (row(false, 2, 0), true),
        (row(false, 1, 1), true),
    ] {
        let mut ledger = Ledger::new(BOUNDS);
        ledger.restore("a", row);
        ledger.dismiss("a");
        assert_eq!(ledger.row("a").is_some(), stays, "{row:?}");
    }
}

#[test]
fn a_visitor_that_ever_had_a_receipt_is_not_forgotten_for_another() {
    let mut ledger = Ledger::new(BOUNDS);
    ledger.restore("had one", row(true, 2, 0));
    ledger.restore("blank", row(true, 1, 0));
    for n in 2..BOUNDS.terminals_max {
        ledger.restore(&format!("r{n}"), row(true, 3, 1));
    }
    // One that had its first since.
    ledger.seen("blank");
    assert_eq!(ledger.seen("new"), Some(Some("blank".into())));
    ledger.introduce("new", 1, 0);
    admit(&mut ledger, "new").unwrap();
    ledger.leaves("new");
    assert_eq!(ledger.row("new"), Some(row(true, 2, 0)));
    assert_eq!(ledger.seen("newer"), None, "there is no room");
    assert_eq!(ledger.terminals(), BOUNDS.terminals_max);
}

#[test]
fn a_deletion_that_was_not_taken_is_taken_back() {
    let mut ledger = Ledger::new(BOUNDS);
    ledger.restore("a", row(true, 4, 2));
    ledger.restore("b", row(false, 4, 1));
    for terminal in ["a", "b"] {
        ledger.leaves(terminal);
    }
    assert_eq!(counts(&ledger), (1, 0));
    assert!(ledger.has_waiting("a") && !ledger.has_waiting("b"));
    assert!(!ledger.has_waiting("nobody"));
    ledger.leaves("b");
    assert_eq!(counts(&ledger), (1, 0), "none waits");
    ledger.stays("a");
    assert_eq!(counts(&ledger), (2, 0));
    ledger.stays("b");
    assert_eq!(counts(&ledger), (3, 1));
    assert_eq!(ledger.row("a"), Some(row(true, 4, 2)));
}

#[test]
fn a_receipt_is_on_its_way_out_until_it_is_gone() {
    let mut ledger = Ledger::new(BOUNDS);
    ledger.restore("a", row(true, 4, 2));
    let name = ledger.going("a", 3).unwrap();
    assert!(ledger.is_going(&name, 3));
    assert!(!ledger.is_going(&name, 2));
    assert!(ledger.going("a", 3).is_none());
    ledger.gone(&name, 3);
    assert!(!ledger.is_going(&name, 3));
}

#[test]
fn g11_what_damage_took_waits_no_more_once_all_rows_were_read() {
    for (seen, rows, left) in [(true, 1, 1), (false, 1, 1), (true, 3, 3), (true, 5, 3)] {
        let mut ledger = Ledger::new(BOUNDS);
        ledger.restore("other", row(false, 9, 4));
        ledger.restore("a", row(seen, 6, 3));
        ledger.recount("a", 6, rows);
        assert_eq!(ledger.row("a"), Some(row(seen, 6, left)));
        let unknown = if seen { 0 } else { u64::from(left) };
        assert_eq!(counts(&ledger), (4 + u64::from(left), 4 + unknown));
    }
}

#[test]
fn nothing_is_counted_anew_while_something_is_under_way() {
    let fresh = || {
        let mut ledger = Ledger::new(BOUNDS);
        ledger.restore("a", row(true, 6, 3));
        ledger
    };
    let mut going = fresh();
    let name = going.going("a", 5).unwrap();
    going.recount("a", 6, 0);
    assert_eq!(going.row("a"), Some(row(true, 6, 3)));
    going.gone(&name, 5);
    going.recount("a", 6, 0);
    assert_eq!(going.row("a"), Some(row(true, 6, 0)));

    let mut admitted = fresh();
    assert_eq!(admit(&mut admitted, "a"), Ok(6));
    for end in [6, 7] {
        admitted.recount("a", end, 0);
        assert_eq!(admitted.row("a"), Some(row(true, 7, 4)), "{end}");
    }
    admitted.durable("a", 6);
    admitted.recount("a", 6, 0);
    assert_eq!(admitted.row("a"), Some(row(true, 7, 4)));
    admitted.recount("a", 7, 1);
    assert_eq!(admitted.row("a"), Some(row(true, 7, 1)));
    admitted.recount("nobody", 1, 0);
}
