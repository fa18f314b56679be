//! What a cut, an earlier lap or wear has left in single slots, put there by the
//! layout.
//!
//! Chips of eight pages: two of notes, two of receipts with three slots, four of
//! records with thirteen.

use embassy_futures::block_on;
use risiti_sim::nor::Tear;
use risiti_terminal::store::{Counters, Store, Taken};

use crate::basics::{PAGE, Small, open, print, save, take, waiting};
use crate::world::receipt;

/// Bytes of a page's head.
pub const HEAD: usize = 16;
/// Bytes of a slot of records.
const SLOT: usize = 76;
/// Bytes of a slot of notes.
const NOTE_SLOT: usize = 84;
/// Bytes of a slot of receipts.
const RECEIPT: usize = 308;
/// Bytes of marks, at the end of a slot of records or receipts.
const MARKS: usize = 6 * 4;

const BLANK: u32 = u32::MAX;

/// Where a slot of records stands; the first page is 4.
const fn record_at(page: usize, slot: usize) -> usize {
    page * PAGE + HEAD + slot * SLOT
}

/// Where a slot of receipts stands; the first page is 2.
const fn receipt_at(page: usize, slot: usize) -> usize {
    page * PAGE + HEAD + slot * RECEIPT
}

fn words(chip: &Small, at: usize) -> [u32; 6] {
    let image = chip.image();
    std::array::from_fn(|word| {
        let bytes = &image[at + 4 * word..][..4];
        u32::from_le_bytes(bytes.try_into().expect("4 bytes"))
    })
}

/// The marks of a record: settled, sent, whole, each with its second word.
fn marks_of_record(chip: &Small, page: usize, slot: usize) -> [u32; 6] {
    words(chip, record_at(page, slot) + SLOT - MARKS)
}

/// The marks of a receipt: ended, began, whole.
fn marks_of_receipt(chip: &Small, page: usize, slot: usize) -> [u32; 6] {
    words(chip, receipt_at(page, slot) + RECEIPT - MARKS)
}

/// A blank chip, and a store with so many records.
pub fn with_records(records: u32) -> (Small, Store<Small>) {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    for number in 1..=records {
        assert_eq!(save(&mut store), Ok(number));
    }
    (chip, store)
}

/// The receipt of this record comes, and is printed.
pub fn finish(store: &mut Store<Small>, number: u32) {
    assert_eq!(take(store, number), Taken::New, "{number}");
    assert_eq!(print(store), [number]);
}

#[test]
fn a_mark_takes_one_word_and_gets_the_other_if_that_may_have_been_cut() {
    let (chip, mut store) = with_records(1);
    assert_eq!(
        marks_of_record(&chip, 4, 0),
        [BLANK, BLANK, BLANK, BLANK, 0, BLANK]
    );
    block_on(store.mark_sent(1)).expect("marked");
    finish(&mut store, 1);
    assert_eq!(
        marks_of_record(&chip, 4, 0),
        [0, BLANK, 0, BLANK, 0, BLANK],
        "settled, sent, whole"
    );
    assert_eq!(
        marks_of_receipt(&chip, 2, 0),
        [0, BLANK, 0, BLANK, 0, BLANK],
        "ended, began, whole"
    );
    // Power may have been cut in any of them.
    open(&chip);
    assert_eq!(
        marks_of_record(&chip, 4, 0),
        [0, 0, 0, BLANK, 0, 0],
        "what a start rests on is made firm"
    );
}

#[test]
fn a_trace_of_either_word_tells_that_a_record_is_whole() {
    for (trace, is_whole) in [
        ([0x00, 0xFF], true),
        ([0xFF, 0x00], true),
        ([0x7F, 0xFF], true),
        ([0xFF, 0xFF], false),
    ] {
        let (chip, _) = with_records(2);
        let marks = record_at(4, 1) + SLOT - MARKS;
        chip.overwrite(marks + 16, &trace.map(|byte| [byte; 4]).concat());
        for _ in 0..2 {
            let (mut store, _) = open(&chip);
            let kept: &[u32] = if is_whole { &[1, 2] } else { &[1] };
            assert_eq!(waiting(&mut store), kept, "{trace:x?}");
            let last = store.levels().last_sequence;
            assert_eq!(last, 1 + u32::from(is_whole), "{trace:x?}");
        }
    }
}

#[test]
fn a_trace_of_either_word_tells_that_a_receipt_is_whole() {
    for (trace, is_whole) in [
        ([0x00, 0xFF], true),
        ([0xFF, 0x00], true),
        ([0x7F, 0xFF], true),
        ([0xFF, 0xFF], false),
    ] {
        let (chip, mut store) = with_records(2);
        assert_eq!(take(&mut store, 1), Taken::New);
        // It was cut before the record was settled.
        let marks = receipt_at(2, 0) + RECEIPT - MARKS;
        chip.overwrite(marks + 16, &trace.map(|byte| [byte; 4]).concat());
        chip.overwrite(record_at(4, 0) + SLOT - MARKS, &[0xFF; 4]);
        for _ in 0..2 {
            let (mut store, _) = open(&chip);
            let to_print = u32::from(is_whole);
            assert_eq!(store.levels().to_print, to_print, "{trace:x?}");
            assert_eq!(store.levels().waiting, 2 - to_print, "{trace:x?}");
            assert_eq!(store.levels().unsent, 2 - to_print, "{trace:x?}");
            assert_eq!(waiting(&mut store).len() as u32, 2 - to_print);
        }
        let (mut store, _) = open(&chip);
        let again = if is_whole {
            Taken::Repeated
        } else {
            Taken::New
        };
        assert_eq!(take(&mut store, 1), again, "{trace:x?}");
        assert_eq!(print(&mut store), [1], "{trace:x?}");
    }
}

#[test]
fn the_slot_after_the_last_one_is_left_out_after_a_start() {
    let (chip, _) = with_records(1);
    let (mut store, _) = open(&chip);
    save(&mut store).expect("saved");
    let image = chip.image();
    let is_blank = |slot| {
        let at = record_at(4, slot);
        image[at..at + SLOT].iter().all(|&byte| byte == 0xFF)
    };
    assert_eq!([0, 1, 2, 3].map(is_blank), [false, true, false, true]);
    // With nothing lost by it.
    assert_eq!(waiting(&mut store), [1, 17]);
}

#[test]
fn a_slot_in_which_anything_stands_is_passed_by() {
    for word in 0..SLOT / 4 {
        let (chip, mut store) = with_records(1);
        chip.overwrite(record_at(4, 1) + 4 * word, &[0xFF, 0xA5, 0xFF, 0xFF]);
        assert_eq!(save(&mut store), Ok(2), "word {word}");
        assert_eq!(waiting(&mut store), [1, 2], "word {word}");
        let (mut store, _) = open(&chip);
        assert_eq!(waiting(&mut store), [1, 2], "word {word}");
    }
}

#[test]
fn slots_of_an_earlier_lap_are_nobodys() {
    let (chip, mut store) = with_records(52);
    let first_lap = chip.image();
    for number in 1..=52 {
        finish(&mut store, number);
    }
    for number in 53..=57 {
        assert_eq!(save(&mut store), Ok(number));
    }
    // As an erase leaves them that did not reach so far; they waited then.
    let left = record_at(4, 6)..5 * PAGE;
    chip.overwrite(left.start, &first_lap[left]);
    let (mut store, opening) = open(&chip);
    assert_eq!((opening.damaged, opening.torn), (0, 0));
    assert_eq!(waiting(&mut store), (53..=57).collect::<Vec<_>>());
    assert_eq!(store.levels().last_sequence, 57);
    assert_eq!(take(&mut store, 7), Taken::Repeated);
    let saved = save(&mut store).expect("there is room");
    let (mut store, _) = open(&chip);
    let kept: Vec<u32> = (53..=57).chain([saved]).collect();
    assert_eq!(waiting(&mut store), kept);
}

#[test]
fn a_slot_that_fails_is_ended_and_none_but_that() {
    let (chip, mut store) = with_records(1);
    let at = record_at(4, 1);
    // It takes its check and its marks only.
    chip.wear_out(at..at + 48);
    assert_eq!(save(&mut store), Ok(2));
    assert_eq!(store.levels().damaged, 1);
    assert_eq!(marks_of_record(&chip, 4, 1)[0], 0);
    let (mut store, opening) = open(&chip);
    assert_eq!((opening.damaged, opening.torn), (0, 0), "nobody misses it");
    assert_eq!(waiting(&mut store), [1, 2]);
}

#[test]
fn a_note_that_fails_is_written_into_the_next_slot() {
    let (chip, mut store) = with_records(1);
    chip.wear_out(HEAD + NOTE_SLOT..HEAD + 2 * NOTE_SLOT);
    let counters = Counters {
        starts: 7,
        ..Counters::default()
    };
    block_on(store.put_counters(counters)).expect("there are other slots");
    assert_eq!(store.levels().damaged, 1);
    let image = chip.image();
    let blank = image[HEAD..]
        .chunks_exact(NOTE_SLOT)
        .map(|slot| slot.iter().all(|&byte| byte == 0xFF));
    assert_eq!(
        blank.take(4).collect::<Vec<_>>(),
        [false, true, false, true]
    );
    assert_eq!(*open(&chip).0.counters(), counters);
}

#[test]
fn what_cannot_be_read_is_kept_until_its_page_is_needed() {
    let (chip, mut store) = with_records(52);
    for number in (1..=19).chain(21..=52) {
        finish(&mut store, number);
    }
    // Number 20, in page 5, waits; somebody may still have its receipt.
    chip.overwrite(record_at(5, 6), &[0x5A; SLOT - MARKS]);
    let other = chip.copy();
    assert_eq!(save(&mut store), Ok(53));
    assert_eq!(take(&mut store, 20), Taken::New);
    assert_eq!(print(&mut store), [20]);
    // The same after starts, each of which notes what it passes by.
    for _ in 0..3 {
        let (store, opening) = open(&other);
        assert_eq!((opening.damaged, store.levels().waiting), (1, 0));
    }
    let (mut store, _) = open(&other);
    let first = save(&mut store).expect("page 4 is free");
    let third = other.copy();
    assert_eq!(take(&mut store, 20), Taken::New);
    // Page 5 is needed after the 13 slots of page 4.
    let (mut store, _) = open(&third);
    let mut numbers = vec![first];
    for _ in 0..24 {
        numbers.push(save(&mut store).expect("it is given up"));
    }
    assert_eq!(waiting(&mut store), numbers);
    assert_eq!(take(&mut store, 20), Taken::Repeated);
}

#[test]
fn a_receipt_gets_no_number_of_one_that_cannot_be_read() {
    let (chip, mut store) = with_records(3);
    assert_eq!(take(&mut store, 1), Taken::New);
    assert_eq!(take(&mut store, 2), Taken::New);
    // Cells that read so at one start, and as they were at the next.
    let weak = (receipt_at(2, 1) + 20) * 8;
    let flip = || [0, 1, 9].map(|bit| chip.flip(weak + bit));
    flip();
    let (mut store, opening) = open(&chip);
    assert_eq!((opening.damaged, opening.torn), (1, 0));
    assert_eq!(take(&mut store, 3), Taken::New);
    flip();
    let (mut store, _) = open(&chip);
    let mut ordinals = Vec::new();
    let mut into = [0; 265];
    while let Some(job) = block_on(store.next_to_print(&mut into)).expect("read") {
        assert_eq!(into[..job.len], receipt(job.sequence));
        block_on(store.print_ended(job.ordinal)).expect("ended");
        ordinals.push(job.ordinal);
    }
    assert_eq!(ordinals, [1, 2, 3]);
}

#[test]
fn every_receipt_of_a_spoiled_page_is_taken_and_none_twice() {
    for starts in [false, true] {
        let (chip, _) = with_records(40);
        // Its slots can still be ended.
        for slot in 0..13 {
            chip.overwrite(record_at(5, slot), &[0x5A; SLOT - MARKS]);
        }
        let (mut store, _) = open(&chip);
        for number in 14..=26 {
            assert_eq!(take(&mut store, number), Taken::New, "{number}");
            if starts {
                store = open(&chip).0;
            }
            // The gateway did not hear that it was.
            assert_eq!(take(&mut store, number), Taken::Repeated, "{number}");
            assert_eq!(print(&mut store), [number]);
        }
        for number in 14..=26 {
            assert_eq!(take(&mut store, number), Taken::Repeated, "{number}");
        }
        assert_eq!(store.levels().waiting, 27);
    }
}

#[test]
fn a_slot_that_cannot_be_read_stands_for_no_number_below_its_page() {
    let (chip, mut store) = with_records(52);
    for number in 1..=13 {
        finish(&mut store, number);
    }
    assert_eq!(save(&mut store), Ok(53));
    // Page 4 begins anew; the oldest is 5, with 14 in its first slot.
    chip.overwrite(record_at(5, 0), &[0x5A; SLOT - MARKS]);
    let (mut store, _) = open(&chip);
    for number in [1, 5, 13] {
        assert_eq!(take(&mut store, number), Taken::Repeated, "{number}");
    }
    assert_eq!(take(&mut store, 14), Taken::New);
    assert_eq!(print(&mut store), [14]);
}

#[test]
fn a_receipt_whose_printing_did_not_end_is_not_the_last_one() {
    let (_chip, mut store) = with_records(2);
    finish(&mut store, 1);
    assert_eq!(take(&mut store, 2), Taken::New);
    let mut into = [0; 265];
    let job = block_on(store.next_to_print(&mut into)).expect("read");
    block_on(store.print_began(job.expect("to print").ordinal)).expect("begun");
    let len = block_on(store.last_receipt(&mut into)).expect("read");
    assert_eq!(len.map(|len| &into[..len]), Some(&receipt(1)[..]));
}

#[test]
fn torn_slots_of_every_ring_are_told() {
    let (chip, mut store) = with_records(2);
    // 48 bytes of a receipt are written at a time.
    chip.cut_after(100, Tear::Clean, 0);
    assert!(block_on(store.take_receipt(1, &[7; 265])).is_err());
    chip.power_up();
    let (mut store, opening) = open(&chip);
    assert_eq!((opening.damaged, opening.torn), (0, 1));
    chip.cut_after(20, Tear::Clean, 0);
    assert!(save(&mut store).is_err(), "in the note of a block");
    chip.power_up();
    let (mut store, opening) = open(&chip);
    assert_eq!((opening.damaged, opening.torn), (0, 1));
    assert_eq!(take(&mut store, 1), Taken::New);
    assert_eq!(print(&mut store), [1]);
}

#[test]
fn what_is_saved_after_a_start_with_nothing_waiting_waits() {
    let (chip, mut store) = with_records(1);
    finish(&mut store, 1);
    let (mut store, _) = open(&chip);
    assert_eq!(save(&mut store), Ok(17));
    assert_eq!(waiting(&mut store), [17]);
    assert_eq!(take(&mut store, 17), Taken::New);
    assert_eq!(print(&mut store), [17]);
    assert_eq!(store.levels().waiting, 0);
}

#[test]
fn one_flipped_bit_anywhere_in_a_slot_is_put_right() {
    let (chip, mut store) = with_records(2);
    assert_eq!(take(&mut store, 1), Taken::New);
    let counters = Counters {
        starts: 7,
        up_bytes: 1 << 40,
        ..Counters::default()
    };
    block_on(store.put_counters(counters)).expect("kept");
    let slots = [
        (record_at(4, 1), SLOT),
        (receipt_at(2, 0), RECEIPT),
        // The newest note: one was written for the block of numbers.
        (HEAD + NOTE_SLOT, NOTE_SLOT),
    ];
    for (at, bytes) in slots {
        for bit in at * 8..(at + bytes) * 8 {
            let chip = chip.copy();
            chip.flip(bit);
            let (mut store, opening) = open(&chip);
            let context = format!("bit {bit} at {:#x}", bit / 8);
            assert_eq!((opening.damaged, opening.torn), (0, 0), "{context}");
            assert_eq!(*store.counters(), counters, "{context}");
            assert_eq!(waiting(&mut store), [2], "{context}");
            assert_eq!(store.levels().last_sequence, 2, "{context}");
            assert_eq!(print(&mut store), [1], "{context}");
            assert_eq!(take(&mut store, 1), Taken::Repeated, "{context}");
            assert_eq!(take(&mut store, 2), Taken::New, "{context}");
            assert_eq!(save(&mut store), Ok(17), "{context}");
        }
    }
}
