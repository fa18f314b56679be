//! Heads of pages, and whole pages, that say nothing or the wrong thing.
//!
//! Chips as in `slots`, unless a test says otherwise.

use embassy_futures::block_on;
use risiti_sim::nor::{ERASE_STEPS, Tear};
use risiti_terminal::store::{Counters, SaveError, StoreError};

use crate::basics::{PAGE, Small, open, save, waiting};
use crate::slots::{HEAD, finish, with_records};

#[test]
fn a_head_whose_check_is_wrong_is_counted_and_tells_nothing() {
    let (chip, _) = with_records(30);
    // The lowest number in page 5: more than one bit of it.
    chip.overwrite(5 * PAGE + 8, &[0, 0, 0xFF, 0xFF]);
    let (mut store, opening) = open(&chip);
    assert_eq!(opening.damaged, 1);
    assert_eq!(waiting(&mut store), (1..=30).collect::<Vec<_>>());
    assert_eq!(save(&mut store), Ok(33));
}

#[test]
fn a_head_that_belongs_elsewhere_hides_no_page() {
    let (chip, _) = with_records(42);
    let head = chip.image()[6 * PAGE..][..HEAD].to_vec();
    chip.overwrite(7 * PAGE, &head);
    let (mut store, opening) = open(&chip);
    assert_eq!(opening.damaged, 1);
    assert_eq!(waiting(&mut store), (1..=42).collect::<Vec<_>>());
    let saved = save(&mut store).expect("there is room");
    let kept: Vec<u32> = (1..=42).chain([saved]).collect();
    assert_eq!(waiting(&mut open(&chip).0), kept);
}

#[test]
fn a_page_of_the_lap_before_is_not_the_newest_for_want_of_its_head() {
    for spoiled in 5..8 {
        let (chip, mut store) = with_records(52);
        for number in 1..=52 {
            finish(&mut store, number);
        }
        for number in 53..=55 {
            assert_eq!(save(&mut store), Ok(number));
        }
        chip.overwrite(spoiled * PAGE, &[0x5A; HEAD]);
        let (mut store, _) = open(&chip);
        assert_eq!(waiting(&mut store), (53..=55).collect::<Vec<_>>());
        for _ in 0..30 {
            let number = save(&mut store).expect("there is room");
            finish(&mut store, number);
        }
        assert_eq!(waiting(&mut store), (53..=55).collect::<Vec<_>>());
    }
}

#[test]
fn without_any_head_the_latest_of_many_laps_is_found() {
    // Two pages of records; after 130 laps of them the byte that says which lap it
    // is looks like one before the first.
    let chip = Small::new(6 * PAGE);
    let (mut store, _) = open(&chip);
    let last = 130 * 26;
    for number in 1..=last {
        assert_eq!(save(&mut store), Ok(number));
        if number < last {
            finish(&mut store, number);
        }
    }
    for page in [4, 5] {
        chip.overwrite(page * PAGE, &[0xFF; HEAD]);
    }
    let (mut store, _) = open(&chip);
    assert_eq!(waiting(&mut store), [last]);
    let saved = save(&mut store).expect("there is room");
    assert_eq!(waiting(&mut open(&chip).0), [last, saved]);
}

#[test]
fn a_page_is_found_behind_fifteen_of_which_nothing_is_left() {
    // Of 24 pages two are for notes, two for receipts.
    let chip = Small::new(24 * PAGE);
    let (mut store, _) = open(&chip);
    for number in 1..=15 * 13 + 3 {
        assert_eq!(save(&mut store), Ok(number));
    }
    chip.overwrite(4 * PAGE, &[0xFF; 15 * PAGE]);
    chip.overwrite(19 * PAGE, &[0xFF; HEAD]);
    let (mut store, _) = open(&chip);
    assert_eq!(waiting(&mut store), [196, 197, 198]);
}

#[test]
fn as_many_numbers_are_skipped_as_notes_may_be_lost_and_no_more() {
    let (chip, mut store) = with_records(20);
    // Two pages of 13 notes, with a block of 16 numbers each.
    chip.overwrite(0, &[0x00; 2 * PAGE]);
    let last = 20 + 26 * 16;
    let saved = save(&mut open(&chip).0).expect("numbered");
    assert!((20..=last + 1).contains(&saved), "{saved}");
    assert!(waiting(&mut store).len() >= 20);
}

#[test]
fn a_page_of_notes_that_was_never_begun_skips_no_numbers() {
    // Four pages of notes; two of them are full, the third is as it was made.
    let chip = Small::new(32 * PAGE);
    let (mut store, _) = open(&chip);
    assert_eq!(save(&mut store), Ok(1));
    for starts in 2..=24 {
        let counters = Counters {
            starts,
            ..Counters::default()
        };
        block_on(store.put_counters(counters)).expect("kept");
    }
    assert_ne!(chip.image()[2 * PAGE - 84..][..4], [0xFF; 4]);
    assert_eq!(chip.image()[2 * PAGE..3 * PAGE], [0xFF; PAGE]);
    assert_eq!(save(&mut open(&chip).0), Ok(17));
}

#[test]
fn spoiled_notes_alone_are_a_new_terminal_and_a_byte_elsewhere_is_not() {
    // As a cut in the very first note leaves it.
    let chip = Small::new(8 * PAGE);
    chip.overwrite(0, &[0x00; 40]);
    chip.overwrite(2 * PAGE - 40, &[0x00; 40]);
    let (mut store, opening) = open(&chip);
    assert!(opening.is_new && opening.is_numbered);
    assert!(save(&mut store).is_ok());
    for at in [
        2 * PAGE,
        2 * PAGE + 100,
        4 * PAGE - 1,
        4 * PAGE,
        6 * PAGE + 7,
        8 * PAGE - 1,
    ] {
        let chip = Small::new(8 * PAGE);
        chip.overwrite(at, &[0x7F]);
        let image = chip.image();
        let (mut store, opening) = open(&chip);
        assert!(!opening.is_new && !opening.is_numbered, "{at:#x}");
        assert_eq!(save(&mut store), Err(SaveError::Unnumbered), "{at:#x}");
        assert_eq!(chip.image(), image, "{at:#x}");
    }
}

#[test]
fn the_last_number_is_told_though_the_page_behind_it_was_cut() {
    let mut cuts = 0;
    loop {
        let (chip, mut store) = with_records(13);
        for number in 1..=13 {
            finish(&mut store, number);
        }
        // The next page is erased, its head is written, then a record.
        chip.cut_after(cuts, Tear::Clean, 0);
        if save(&mut store).is_ok() {
            break;
        }
        chip.power_up();
        let (store, opening) = open(&chip);
        let last = store.levels().last_sequence;
        assert!((13..=14).contains(&last), "{last} after {cuts}");
        assert_eq!(opening.damaged, 0, "{cuts}");
        cuts += 1;
    }
    assert!(cuts > ERASE_STEPS + 32, "{cuts}");
}

#[test]
fn the_newest_note_is_not_erased_for_want_of_another_page_in_any_lap() {
    let counters = |starts| Counters {
        starts,
        ..Counters::default()
    };
    for lap in 0..4 {
        let chip = Small::new(8 * PAGE);
        let (mut store, _) = open(&chip);
        let first = 24 * lap + 12;
        for starts in 1..=first {
            block_on(store.put_counters(counters(starts))).expect("there are two pages");
        }
        assert_eq!(store.levels().damaged, 0, "nothing was passed by");
        // The other page takes its head, and nothing else.
        chip.wear_out(PAGE + HEAD..2 * PAGE);
        let kept = block_on(store.put_counters(counters(first + 1)));
        assert_eq!(kept, Err(StoreError::Worn), "lap {lap}");
        let (store, _) = open(&chip);
        assert_eq!(*store.counters(), counters(first), "lap {lap}");
    }
}
