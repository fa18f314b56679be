//! Negative controls: without one rule of the store, the tests find it out.

use risiti_terminal::store::rules::{Rules, Sound};

use crate::cuts::{cut_erases, cut_everywhere, many_runs};
use crate::world::Habits;

/// Random runs after which a broken rule must have shown.
const RUNS: u64 = 5_000;

struct WithoutCheck;
impl Rules for WithoutCheck {
    const CHECKS: bool = false;
}

struct WithoutReservation;
impl Rules for WithoutReservation {
    const RESERVES: bool = false;
}

struct SettledFirst;
impl Rules for SettledFirst {
    const RECEIPT_FIRST: bool = false;
}

struct WithoutFloors;
impl Rules for WithoutFloors {
    const NOTES_FLOORS: bool = false;
}

struct MarkedOnce;
impl Rules for MarkedOnce {
    const MARKS_TWICE: bool = false;
}

fn must_find(what: &str, found: &str) {
    println!(
        "store: {what}: {}",
        found.lines().next().unwrap_or("nothing")
    );
    assert!(!found.is_empty(), "{what}: nothing was found");
}

#[test]
fn without_its_check_a_torn_slot_is_taken_for_a_record() {
    must_find(
        "without check",
        &many_runs::<WithoutCheck>(0, RUNS, 1, Habits::default()).1,
    );
}

#[test]
fn without_reservation_a_number_is_used_twice() {
    let found = many_runs::<WithoutReservation>(0, RUNS, 1, Habits::default()).1;
    must_find("without reservation", &found);
    assert!(found.contains("is used"), "{found}");
}

#[test]
fn a_record_settled_before_its_receipt_is_stored_loses_the_receipt() {
    let found = many_runs::<SettledFirst>(0, RUNS, 1, Habits::default()).1;
    must_find("settled first", &found);
    assert!(found.contains("has no receipt"), "{found}");
}

#[test]
fn without_the_floor_a_page_half_erased_comes_to_life() {
    must_find(
        "without floors",
        &cut_erases::<WithoutFloors>(1, Habits::default()).1,
    );
}

#[test]
fn a_mark_of_one_word_is_set_at_one_start_and_not_at_the_next() {
    must_find(
        "marked once",
        &cut_everywhere::<MarkedOnce>(1, Habits::default()).1,
    );
}

#[test]
fn marked_as_begun_after_printing_a_receipt_is_printed_twice() {
    let habits = Habits { begins_late: true };
    let found = many_runs::<Sound>(0, RUNS, 1, habits).1;
    must_find("begun late", &found);
    assert!(found.contains("printed twice"), "{found}");
}
