//! Damage: flipped bits, spoiled pages, cells that take nothing, a flash that
//! isn't ours.

use embassy_futures::block_on;
use risiti_sim::nor::{Nor, NorError};
use risiti_terminal::store::rules::Sound;
use risiti_terminal::store::{Counters, SaveError, Store, StoreError, Taken};

use crate::world::{Habits, Step, Stop, World, receipt};

const PAGE: usize = 1024;
/// For what is done to every bit.
const PAGE_SMALL: usize = 512;
const PAGES: usize = 8;
type Small = Nor<PAGE>;

/// Chips spoiled at random.
const RUNS: u64 = 2_000;

/// A world in the middle of its work: records sent and unsent, receipts to come,
/// to print and printed, every ring come round.
fn busy_world<const SIZE: usize>() -> World<SIZE, Sound> {
    let mut world = World::new(Nor::new(PAGES * SIZE), Habits::default());
    world.start().expect("a blank chip opens");
    let mut day = Vec::new();
    for _ in 0..25 {
        day.extend([Step::Save, Step::Save, Step::SendAll, Step::Count]);
        day.extend([Step::Take(0), Step::Take(0), Step::Print, Step::Print]);
    }
    day.extend([Step::Save, Step::Save, Step::SendAll, Step::Take(0)]);
    day.extend([Step::Save, Step::Save, Step::Take(1), Step::Print]);
    for step in day {
        world.step(step).expect("nothing is wrong yet");
    }
    world
}

#[test]
fn no_single_flipped_bit_loses_anything() {
    let mut repaired = 0;
    let busy = busy_world::<PAGE_SMALL>();
    let bits = busy.chip.image().len() * 8;
    for bit in 0..bits {
        let mut world = busy.copy();
        world.chip.flip(bit);
        let done = world.settle();
        assert_eq!(done, Ok(()), "bit {bit}, at {:#x}", bit / 8);
        repaired += u64::from(world.opening.repaired);
    }
    assert!(repaired > 0);
    println!("store: each of {bits} bits flipped: 0 lost; {repaired} repaired in slots that wait");
}

#[test]
fn damage_anywhere_is_counted_and_the_rest_goes_on() {
    let mut draw = fastrand::Rng::with_seed(7);
    let (mut damaged, mut missing) = (0, 0);
    let busy = busy_world::<PAGE>();
    for run in 0..RUNS {
        let world = busy.copy();
        for _ in 0..draw.usize(1..40) {
            world.chip.flip(draw.usize(..PAGES * PAGE * 8));
        }
        if draw.bool() {
            let at = draw.usize(..PAGES) * PAGE;
            let noise: Vec<u8> = (0..PAGE).map(|_| draw.u8(..)).collect();
            world.chip.overwrite(at, &noise);
        }
        // Whatever is lost, it opens, takes payments or says that it can't, and
        // finds its way round both rings again.
        let (mut store, opening) = block_on(Store::open(world.chip.handle())).expect("opened");
        damaged += u32::from(opening.damaged + opening.torn);
        let mut numbers = Vec::new();
        for _ in 0..120 {
            let saved = block_on(store.save(|number, into| {
                into[..4].copy_from_slice(&number.to_le_bytes());
                Ok(4)
            }));
            match saved {
                Ok(number) => numbers.push(number),
                Err(SaveError::Full) => {}
                Err(other) => panic!("run {run}: {other:?}"),
            }
            let mut into = [0; 40];
            while let Some(next) = block_on(store.next_waiting(0, &mut into)).expect("read") {
                let taken = block_on(store.take_receipt(next.sequence, &receipt(next.sequence)));
                let job = block_on(store.next_to_print(&mut [0; 265])).expect("read");
                if let Some(job) = job {
                    block_on(store.print_began(job.ordinal)).expect("begun");
                    block_on(store.print_ended(job.ordinal)).expect("ended");
                } else if taken != Ok(Taken::New) {
                    missing += 1;
                    break;
                }
            }
        }
        assert!(numbers.len() > 100, "run {run}: {} saved", numbers.len());
        assert!(numbers.is_sorted_by(|a, b| a < b), "run {run}");
        assert!(numbers[0] > 50, "run {run}: number {} again", numbers[0]);
    }
    assert!(damaged > 0);
    println!("store: {RUNS} spoiled chips: all go on; {damaged} slots counted, {missing} stuck");
}

#[test]
fn a_spoiled_page_of_records_takes_no_other_with_it() {
    let mut world = World::<PAGE, Sound>::new(Small::new(PAGES * PAGE), Habits::default());
    world.start().expect("a blank chip opens");
    for _ in 0..40 {
        world.save().expect("saved").expect("there is room");
    }
    // Pages 4 to 7 hold records, 13 each; this one holds 14 to 26.
    world.chip.overwrite(5 * PAGE, &[0x5A; PAGE]);
    let (mut store, opening) =
        block_on(Store::open(world.chip.handle())).expect("damage is no error");
    // The head of its page can be told from its neighbours, the slots can't.
    assert_eq!(opening.damaged, 14);
    assert_eq!(store.levels().damaged, 14);
    let mut after = 0;
    let mut left = Vec::new();
    let mut into = [0; 40];
    while let Some(waiting) = block_on(store.next_waiting(after, &mut into)).expect("read") {
        after = waiting.sequence;
        left.push(after);
    }
    assert_eq!(left, (1..=13).chain(27..=40).collect::<Vec<_>>());
    // Their receipts are taken all the same, and printed.
    assert_eq!(
        block_on(store.take_receipt(20, &receipt(20))),
        Ok(Taken::New)
    );
    assert_eq!(
        block_on(store.take_receipt(20, &receipt(20))),
        Ok(Taken::Repeated)
    );
    let job = block_on(store.next_to_print(&mut [0; 265])).expect("read");
    assert!(job.is_some_and(|job| job.sequence == 20));
}

#[test]
fn g6_a_page_without_its_head_is_found_behind_one_of_which_nothing_is_left() {
    for left in [0xFF, 0x00, 0x5A] {
        for head_bytes in [16, 120] {
            let mut world = World::<PAGE, Sound>::new(Small::new(PAGES * PAGE), Habits::default());
            world.start().expect("a blank chip opens");
            for _ in 0..42 {
                world.save().expect("saved").expect("there is room");
            }
            // Pages 6 and 7 are the newest: 27 to 39, and 40 to 42.
            world.chip.overwrite(6 * PAGE, &[left; PAGE]);
            world.chip.overwrite(7 * PAGE, &[left; PAGE][..head_bytes]);
            let numbers = |store: &mut Store<Small>| {
                let mut numbers = Vec::new();
                let mut into = [0; 40];
                let mut after = 0;
                while let Some(next) = block_on(store.next_waiting(after, &mut into)).expect("read")
                {
                    after = next.sequence;
                    numbers.push(after);
                }
                numbers
            };
            let (mut store, opening) = block_on(Store::open(world.chip.handle())).expect("opened");
            assert!(opening.damaged >= 2, "two heads at least: {opening:?}");
            // Or with it the first slot and a part of the second.
            let first = if head_bytes == 16 { 40 } else { 42 };
            let kept: Vec<u32> = (1..=26).chain(first..=42).collect();
            assert_eq!(numbers(&mut store), kept, "{left:#x} {head_bytes}");
            let saved = block_on(store.save(|_, into| Ok(into.len()))).expect("there is room");
            let (mut store, _) = block_on(Store::open(world.chip.handle())).expect("opened");
            let kept: Vec<u32> = kept.into_iter().chain([saved]).collect();
            assert_eq!(numbers(&mut store), kept, "{left:#x} {head_bytes}");
        }
    }
}

#[test]
fn a_torn_slot_is_no_damage_and_is_told_once() {
    let chip = Small::new(PAGES * PAGE);
    let save = |store: &mut Store<Small>| block_on(store.save(|_, into| Ok(into.len())));
    let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
    assert_eq!(save(&mut store), Ok(1));
    chip.cut_after(20, risiti_sim::nor::Tear::Clean, 0);
    assert!(save(&mut store).is_err());
    chip.power_up();
    let (_, opening) = block_on(Store::open(chip.handle())).expect("opened");
    assert_eq!((opening.damaged, opening.torn), (0, 1));
    let (mut store, opening) = block_on(Store::open(chip.handle())).expect("opened");
    assert_eq!((opening.damaged, opening.torn), (0, 0));
    assert_eq!(save(&mut store), Ok(17));
    assert_eq!(store.levels().waiting, 2);
}

#[test]
fn cells_that_take_nothing_are_passed_by() {
    // A page of records that keeps nothing, and one of which the first half does.
    for worn in [5 * PAGE..6 * PAGE, 5 * PAGE + 512..6 * PAGE] {
        let mut world = World::<PAGE, Sound>::new(Small::new(PAGES * PAGE), Habits::default());
        world.chip.wear_out(worn);
        world.start().expect("a blank chip opens");
        for _ in 0..30 {
            world.save().expect("saved").expect("there is room");
        }
        world.check().expect("all wait");
        assert!(world.store().levels().damaged > 0);
        world.settle().expect("all is settled");
    }
}

#[test]
fn a_flash_that_refuses_once_loses_nothing() {
    let mut world = busy_world::<PAGE>();
    for step in [Step::Print, Step::Print, Step::Print, Step::SendAll] {
        world.step(step).expect("nothing is wrong yet");
    }
    for step in [Step::Save, Step::Take(0), Step::Print, Step::Count] {
        world.chip.fail_once();
        let refused = world.step(step);
        assert!(
            matches!(&refused, Err(Stop::Broken(what)) if what.contains("Refused")),
            "{step:?}: {refused:?}"
        );
        world.step(step).expect("it goes on");
    }
    world.settle().expect("all is settled");
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let mut draw = fastrand::Rng::with_seed(3);
    for fill in [0, 1] {
        let image: Vec<u8> = (0..PAGES * PAGE).map(|_| draw.u8(..) * fill).collect();
        let chip = Small::holding(image.clone());
        let (mut store, opening) =
            block_on(Store::open(chip.handle())).expect("what it holds is no error");
        assert!(!opening.is_new && !opening.is_numbered);
        let saved = block_on(store.save(|_, _| Ok(1)));
        assert_eq!(
            saved,
            Err::<u32, SaveError<NorError>>(SaveError::Unnumbered)
        );
        let taken = block_on(store.take_receipt(1, &receipt(1)));
        assert_eq!(taken, Ok(Taken::Unknown));
        assert_eq!(block_on(store.set_subscribed(true)), Ok(()));
        assert_eq!(block_on(store.put_counters(Counters::default())), Ok(()));
        assert_eq!(chip.image(), image);
    }
}

#[test]
fn no_number_is_used_again_when_all_notes_are_lost() {
    let mut world = busy_world::<PAGE>();
    let last = world.store().levels().last_sequence;
    world.chip.overwrite(0, &[0; 2 * PAGE]);
    let (mut store, opening) = block_on(Store::open(world.chip.handle())).expect("opened");
    assert!(opening.is_numbered);
    let saved = block_on(store.save(|_, _| Ok(1)));
    assert!(saved.is_ok_and(|number| number > last));
}

#[test]
fn no_number_is_used_again_when_all_records_are_lost() {
    let mut world = busy_world::<PAGE>();
    let last = world.store().levels().last_sequence;
    world.chip.overwrite(4 * PAGE, &[0; 4 * PAGE]);
    let (mut store, opening) = block_on(Store::open(world.chip.handle())).expect("opened");
    assert!(opening.is_numbered);
    let saved = block_on(store.save(|_, _| Ok(1)));
    assert!(saved.is_ok_and(|number| number > last));
}

/// Where a slot of records stands, by the layout; the first page is 4.
const fn record_at(page: usize, slot: usize) -> usize {
    page * PAGE + 16 + slot * 76
}

fn save(store: &mut Store<Small>) -> u32 {
    block_on(store.save(|_, into| Ok(into.len()))).expect("there is room")
}

fn waiting(chip: &Small) -> Vec<u32> {
    let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
    let mut into = [0; 40];
    let mut numbers = Vec::new();
    let mut after = 0;
    while let Some(next) = block_on(store.next_waiting(after, &mut into)).expect("read") {
        after = next.sequence;
        numbers.push(after);
    }
    numbers
}

#[test]
fn g6_a_receipt_settles_no_record_but_its_own_when_the_number_of_that_is_lost() {
    let chip = Small::new(PAGES * PAGE);
    let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
    for number in 1..=16 {
        assert_eq!(save(&mut store), number);
    }
    let notes = chip.image()[..2 * PAGE].to_vec();
    assert_eq!((save(&mut store), save(&mut store)), (17, 18));
    let receipt = receipt(18);
    assert_eq!(
        block_on(store.take_receipt(18, &receipt)),
        Ok(Taken::New),
        "it is the newest receipt"
    );
    // Neither notes nor records tell of 17 and 18 any more.
    chip.overwrite(0, &notes);
    chip.overwrite(record_at(5, 3), &[0xFF; 2 * 76]);
    let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
    let saved = save(&mut store);
    assert!(saved > 18, "{saved} was given before");
    drop(store);
    assert_eq!(waiting(&chip), (1..=16).chain([saved]).collect::<Vec<_>>());
}

#[test]
fn no_receipt_is_taken_for_a_number_that_was_never_given() {
    let chip = Small::new(PAGES * PAGE);
    let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
    for _ in 0..3 {
        save(&mut store);
    }
    // Whatever number the last slot has, it was given.
    chip.overwrite(record_at(4, 2), &[0x5A; 52]);
    let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
    let next = 17;
    for number in [next, next + 1, u32::MAX] {
        let taken = block_on(store.take_receipt(number, &receipt(number)));
        assert_eq!(taken, Ok(Taken::Unknown), "{number}");
    }
    assert_eq!(block_on(store.take_receipt(3, &receipt(3))), Ok(Taken::New));
    assert_eq!(save(&mut store), next);
    drop(store);
    assert_eq!(waiting(&chip), [1, 2, next]);
}

/// Keeps counters until so many pages of notes were begun.
fn fill_notes(chip: &Small, store: &mut Store<Small>, serial: u32) {
    let newest = || {
        let image = chip.image();
        let serial_of = |page: usize| image[page * PAGE + 4..][..4].try_into().expect("4 bytes");
        [0, 1].map(|page| u32::from_le_bytes(serial_of(page)))
    };
    while !newest().contains(&serial) {
        let mut counters = *store.counters();
        counters.starts += 1;
        block_on(store.put_counters(counters)).expect("kept");
    }
}

#[test]
fn no_number_is_used_again_when_the_newest_notes_and_records_are_lost() {
    // Notes take pages with serials from 2 on: page 0, 1, 0 again. What is left of
    // one, of which a head alone.
    for (left, bytes) in [(0xFF, PAGE), (0x00, PAGE), (0x5A, PAGE), (0x5A, PAGE - 16)] {
        for turns in [3, 4] {
            if turns == 3 && left == 0xFF {
                // As it was before it was first begun: there is nothing to be seen.
                continue;
            }
            let chip = Small::new(PAGES * PAGE);
            let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
            let mut last = save(&mut store);
            fill_notes(&chip, &mut store, turns);
            // One note is in the new page. Each start leaves out a slot, writes two, and
            // takes a block: then it is full.
            for _ in 0..4 {
                (store, _) = block_on(Store::open(chip.handle())).expect("opened");
                last = save(&mut store);
            }
            assert_eq!(last, 65, "each in a block of its own");
            let page = turns as usize % 2 * PAGE;
            chip.overwrite(page + PAGE - bytes, &vec![left; bytes]);
            chip.overwrite(record_at(4, 1), &vec![left; PAGE - 16 - 76]);
            let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
            let saved = save(&mut store);
            assert!(
                saved > last,
                "{saved} after {last}: {left:#x} {bytes} {turns}"
            );
            // A page of notes has 13, and two are made of each block: once is enough.
            assert!(saved < last + 2 * 13 * 16, "{saved} after {last}");
            (store, _) = block_on(Store::open(chip.handle())).expect("opened");
            assert!(save(&mut store) <= saved + 2 * 16, "it is skipped once");
        }
    }
}

#[test]
fn notes_pass_by_a_page_that_takes_nothing() {
    // Pages of notes: four of 32.
    for worn in 0..4 {
        let chip = Small::new(32 * PAGE);
        chip.wear_out(worn * PAGE..(worn + 1) * PAGE);
        let mut starts = 0;
        for _ in 0..10 {
            let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
            assert_eq!(
                store.counters().starts,
                starts,
                "what was kept is read again"
            );
            for _ in 0..13 {
                starts += 1;
                let counters = Counters {
                    starts,
                    ..Counters::default()
                };
                block_on(store.put_counters(counters)).expect("there are other pages");
            }
            save(&mut store);
        }
        assert_eq!(waiting(&chip).len(), 10);
    }
}

#[test]
fn g6_a_page_without_its_head_is_found_a_lap_beyond_the_last_head_there_is() {
    let chip = Small::new(PAGES * PAGE);
    let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
    let mut first_lap = Vec::new();
    // Pages 4 to 7 take 52 records; 53 to 65 come into page 4 again.
    for number in 1..=65 {
        assert_eq!(save(&mut store), number);
        let taken = block_on(store.take_receipt(number, &receipt(number)));
        assert_eq!(taken, Ok(Taken::New));
        let job = block_on(store.next_to_print(&mut [0; 265])).expect("read");
        let job = job.expect("to print");
        block_on(store.print_began(job.ordinal)).expect("began");
        block_on(store.print_ended(job.ordinal)).expect("ended");
        if number == 13 {
            first_lap = chip.image()[4 * PAGE..5 * PAGE].to_vec();
        }
    }
    for number in 66..=70 {
        assert_eq!(save(&mut store), number);
    }
    // Of all heads only one is left, of a page that an erase did not reach.
    chip.overwrite(4 * PAGE, &first_lap);
    for page in 5..8 {
        chip.overwrite(page * PAGE, &[0xFF; 16]);
    }
    assert_eq!(waiting(&chip), (66..=70).collect::<Vec<_>>());
    let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
    let saved = save(&mut store);
    assert!(saved > 70, "{saved} was given before");
    drop(store);
    assert_eq!(waiting(&chip), (66..=70).chain([saved]).collect::<Vec<_>>());
    // None is left: then what stands there tells alone.
    chip.overwrite(4 * PAGE, &[0xFF; 16]);
    assert_eq!(waiting(&chip), (66..=70).chain([saved]).collect::<Vec<_>>());
}

#[test]
fn the_newest_note_is_not_erased_for_want_of_another_page() {
    // Of two pages of notes the second takes its head, and nothing else.
    let chip = Small::new(PAGES * PAGE);
    chip.wear_out(PAGE + 16..2 * PAGE);
    let (mut store, _) = block_on(Store::open(chip.handle())).expect("opened");
    let counters = |starts| Counters {
        starts,
        ..Counters::default()
    };
    for starts in 1..=12 {
        block_on(store.put_counters(counters(starts))).expect("the first page takes 12");
    }
    let kept = block_on(store.put_counters(counters(13)));
    assert_eq!(kept, Err(StoreError::Worn));
    assert!(store.levels().damaged > 0);
    drop(store);
    let (store, _) = block_on(Store::open(chip.handle())).expect("opened");
    assert_eq!(*store.counters(), counters(12));
}
