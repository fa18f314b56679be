//! What a store does when nothing goes wrong.

use embassy_futures::block_on;
use risiti_sim::nor::{Nor, NorError, Tear};
use risiti_terminal::store::{Counters, Opening, SaveError, Store, StoreError, Taken};
use risiti_wire::WireError;

use crate::world::receipt;

pub const PAGE: usize = 1024;
pub type Small = Nor<PAGE>;

pub fn open(chip: &Small) -> (Store<Small>, Opening) {
    block_on(Store::open(chip.handle())).expect("a sound chip is opened")
}

pub fn save(store: &mut Store<Small>) -> Result<u32, SaveError<NorError>> {
    block_on(store.save(|number, into| {
        into[..4].copy_from_slice(&number.to_le_bytes());
        Ok(4)
    }))
}

pub fn waiting(store: &mut Store<Small>) -> Vec<u32> {
    let mut into = [0; 40];
    let mut numbers = Vec::new();
    let mut after = 0;
    while let Some(waiting) = block_on(store.next_waiting(after, &mut into)).expect("read") {
        assert_eq!(into[..waiting.len], waiting.sequence.to_le_bytes());
        after = waiting.sequence;
        numbers.push(after);
    }
    numbers
}

pub fn take(store: &mut Store<Small>, number: u32) -> Taken {
    block_on(store.take_receipt(number, &receipt(number))).expect("taken")
}

/// Prints what there is; the numbers of the records.
pub fn print(store: &mut Store<Small>) -> Vec<u32> {
    let mut into = [0; 265];
    let mut printed = Vec::new();
    while let Some(job) = block_on(store.next_to_print(&mut into)).expect("read") {
        assert_eq!(into[..job.len], receipt(job.sequence));
        assert!(!job.interrupted);
        block_on(store.print_began(job.ordinal)).expect("begun");
        block_on(store.print_ended(job.ordinal)).expect("ended");
        printed.push(job.sequence);
    }
    printed
}

#[test]
fn a_blank_flash_is_a_new_terminal_and_stays_blank_until_something_is_saved() {
    let chip = Small::new(8 * PAGE);
    let (store, opening) = open(&chip);
    assert!(opening.is_new && opening.is_numbered);
    assert_eq!((opening.damaged, opening.torn), (0, 0));
    assert_eq!(store.levels().last_sequence, 0);
    assert!(chip.image().iter().all(|&byte| byte == 0xFF));
}

#[test]
fn what_was_saved_waits_in_order_across_starts() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    for number in 1..=20 {
        assert_eq!(save(&mut store), Ok(number));
    }
    let (mut store, opening) = open(&chip);
    assert!(!opening.is_new);
    assert_eq!(waiting(&mut store), (1..=20).collect::<Vec<_>>());
    assert_eq!(store.levels().waiting, 20);
    assert_eq!(store.levels().last_sequence, 20);
}

#[test]
fn a_start_without_a_payment_burns_no_number() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    assert_eq!(save(&mut store), Ok(1));
    for _ in 0..10 {
        open(&chip);
    }
    let (mut store, _) = open(&chip);
    // The rest of the first block of 16 is skipped, once.
    assert_eq!(save(&mut store), Ok(17));
}

#[test]
fn a_record_is_kept_after_its_puback_and_goes_with_its_receipt() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    save(&mut store).expect("saved");
    save(&mut store).expect("saved");
    block_on(store.mark_sent(1)).expect("marked");
    assert_eq!((store.levels().waiting, store.levels().unsent), (2, 1));
    let (mut store, _) = open(&chip);
    assert_eq!((store.levels().waiting, store.levels().unsent), (2, 1));
    let mut into = [0; 40];
    let first = block_on(store.next_waiting(0, &mut into)).expect("read");
    assert!(first.is_some_and(|waiting| waiting.sent));
    assert_eq!(take(&mut store, 1), Taken::New);
    assert_eq!(waiting(&mut store), [2]);
    assert_eq!((store.levels().waiting, store.levels().unsent), (1, 1));
}

#[test]
fn a_record_that_nobody_saw_as_saved_is_not_sent() {
    // 48 bytes of record, 4 of check, and the word that says that it is whole.
    for after in 0..56 {
        let chip = Small::new(8 * PAGE);
        let (mut store, _) = open(&chip);
        assert_eq!(save(&mut store), Ok(1));
        chip.cut_after(after, Tear::Clean, 0);
        let cut = block_on(store.save(|_, into| {
            into.fill(2);
            Ok(into.len())
        }));
        assert!(cut.is_err());
        for _ in 0..3 {
            chip.power_up();
            let (store, _) = open(&chip);
            let is_seen = after > 52;
            assert_eq!(store.levels().waiting, 1 + u32::from(is_seen), "{after}");
        }
    }
}

#[test]
fn receipts_come_in_any_order_and_each_is_new_once() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    for _ in 0..5 {
        save(&mut store).expect("saved");
    }
    for number in [4, 1, 3] {
        assert_eq!(take(&mut store, number), Taken::New);
        assert_eq!(take(&mut store, number), Taken::Repeated);
    }
    assert_eq!(take(&mut store, 0), Taken::Unknown);
    assert_eq!(take(&mut store, 99), Taken::Unknown);
    let (mut store, _) = open(&chip);
    assert_eq!(take(&mut store, 4), Taken::Repeated);
    assert_eq!(store.levels().to_print, 3);
    assert_eq!(print(&mut store), [4, 1, 3]);
    assert_eq!(store.levels().to_print, 0);
    assert_eq!(waiting(&mut store), [2, 5]);
}

#[test]
fn the_last_printed_receipt_can_be_had_again() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    let mut into = [0; 265];
    assert_eq!(block_on(store.last_receipt(&mut into)), Ok(None));
    for number in 1..=9 {
        save(&mut store).expect("saved");
        assert_eq!(take(&mut store, number), Taken::New);
        print(&mut store);
        let (mut store, _) = open(&chip);
        let len = block_on(store.last_receipt(&mut into)).expect("read");
        assert_eq!(len.map(|len| &into[..len]), Some(&receipt(number)[..]));
    }
}

#[test]
fn a_printing_that_did_not_end_is_told_from_one_that_did_not_begin() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    save(&mut store).expect("saved");
    take(&mut store, 1);
    let mut into = [0; 265];
    let job = block_on(store.next_to_print(&mut into)).expect("read");
    let job = job.expect("there is one");
    assert!(!job.interrupted);
    block_on(store.print_began(job.ordinal)).expect("begun");
    let (mut store, _) = open(&chip);
    let job = block_on(store.next_to_print(&mut into)).expect("read");
    assert!(job.is_some_and(|job| job.interrupted && job.sequence == 1));
}

#[test]
fn a_full_store_refuses_records_and_takes_them_again_after_receipts() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    let capacity = store.levels().capacity;
    for _ in 0..capacity {
        save(&mut store).expect("there is room");
    }
    let image = chip.image();
    assert_eq!(save(&mut store), Err(SaveError::Full));
    assert_eq!(waiting(&mut store).len() as u32, capacity);
    assert_eq!(chip.image()[2 * PAGE..], image[2 * PAGE..]);
    // The oldest page of records holds 13; it comes free as a whole.
    for number in 1..=12 {
        assert_eq!(take(&mut store, number), Taken::New);
        print(&mut store);
        assert_eq!(save(&mut store), Err(SaveError::Full));
    }
    assert_eq!(take(&mut store, 13), Taken::New);
    for number in 0..13 {
        assert!(save(&mut store).is_ok(), "{number}");
    }
    assert_eq!(save(&mut store), Err(SaveError::Full));
    let (mut store, _) = open(&chip);
    assert_eq!(waiting(&mut store).len() as u32, capacity);
    assert_eq!(save(&mut store), Err(SaveError::Full));
}

#[test]
fn receipts_that_nobody_prints_stay_with_the_gateway() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    for _ in 0..20 {
        save(&mut store).expect("saved");
    }
    // Two pages of three receipts.
    for number in 1..=6 {
        assert_eq!(take(&mut store, number), Taken::New);
    }
    assert_eq!(take(&mut store, 7), Taken::Full);
    assert_eq!(store.levels().to_print, 6);
    assert_eq!(waiting(&mut store).first(), Some(&7));
    assert_eq!(print(&mut store), (1..=6).collect::<Vec<_>>());
    assert_eq!(take(&mut store, 7), Taken::New);
}

#[test]
fn what_is_no_record_is_not_saved_and_uses_up_no_number() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    let bad = block_on(store.save(|_, _| Err(WireError::BufferTooSmall)));
    assert_eq!(bad, Err(SaveError::Record(WireError::BufferTooSmall)));
    let bad = block_on(store.save(|_, _| Ok(41)));
    assert_eq!(bad, Err(SaveError::Record(WireError::BufferTooSmall)));
    assert_eq!(save(&mut store), Ok(1));
}

#[test]
fn a_receipt_that_is_too_large_is_not_stored() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    save(&mut store).expect("saved");
    let taken = block_on(store.take_receipt(1, &[0; 266]));
    assert_eq!(taken, Ok(Taken::Unknown));
    assert_eq!(waiting(&mut store), [1]);
}

#[test]
fn counters_and_subscription_survive() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    for turn in 1..=100 {
        let counters = Counters {
            starts: turn,
            saved: 2,
            printed: 3,
            sessions: 4,
            up_bytes: 5 << 40,
            down_bytes: 6,
            radio_ms: 7,
            energy_mj: u64::from(turn) << 32,
        };
        block_on(store.put_counters(counters)).expect("kept");
        block_on(store.set_subscribed(turn % 2 == 1)).expect("kept");
        let (again, _) = open(&chip);
        assert_eq!(*again.counters(), counters);
        assert_eq!(again.is_subscribed(), turn % 2 == 1);
    }
}

#[test]
fn pages_wear_evenly() {
    let chip = Small::new(12 * PAGE);
    let (mut store, _) = open(&chip);
    for _ in 0..2_000 {
        let number = save(&mut store).expect("saved");
        assert_eq!(take(&mut store, number), Taken::New);
        print(&mut store);
    }
    let wear = chip.wear();
    for ring in [0..2, 2..4, 4..12] {
        let (least, most) = (wear[ring.clone()].iter().min(), wear[ring].iter().max());
        assert!(
            most.zip(least)
                .is_some_and(|(most, least)| most - least <= 1),
            "{wear:?}"
        );
    }
}

#[test]
fn a_flash_that_is_too_small_is_told() {
    let opened = block_on(Store::open(Small::new(5 * PAGE)));
    assert_eq!(opened.map(|_| ()), Err(StoreError::TooSmall));
    let opened = block_on(Store::open(Nor::<256>::new(64 * 256)));
    assert_eq!(opened.map(|_| ()), Err(StoreError::TooSmall));
}

#[test]
fn an_ordinary_flash_has_room_for_days_and_opens_quickly() {
    let chip = Nor::<4096>::new(1 << 20);
    let mut store = block_on(Store::open(chip.handle())).expect("opened").0;
    assert_eq!(store.levels().capacity, 11_713);
    for number in 1..=300_u32 {
        let saved = block_on(store.save(|_, into| {
            into.fill(7);
            Ok(40)
        }));
        assert_eq!(saved, Ok(number));
        block_on(store.mark_sent(number)).expect("marked");
        let taken = block_on(store.take_receipt(number, &receipt(number)));
        assert_eq!(taken, Ok(Taken::New));
        let job = block_on(store.next_to_print(&mut [0; 265])).expect("read");
        let ordinal = job.expect("there is one").ordinal;
        block_on(store.print_began(ordinal)).expect("begun");
        block_on(store.print_ended(ordinal)).expect("ended");
    }
    let before = chip.read_bytes();
    block_on(Store::open(chip.handle())).expect("opened");
    let read = chip.read_bytes() - before;
    println!("store: opening 1 MiB with nothing waiting reads {read} bytes");
    assert!(read < 48 * 1024, "{read}");
}

#[test]
fn the_smallest_flash_that_is_no_error_works() {
    // Two pages a ring; a page takes its head and a receipt.
    const LEAST: usize = 16 + 308;
    for (pages, fits) in [(5, false), (6, true)] {
        let opened = block_on(Store::open(Nor::<LEAST>::new(pages * LEAST)));
        assert_eq!(opened.is_ok(), fits, "{pages} pages");
    }
    let opened = block_on(Store::open(Nor::<{ LEAST - 4 }>::new(6 * (LEAST - 4))));
    assert!(matches!(opened, Err(StoreError::TooSmall)));
    let chip = Nor::<LEAST>::new(6 * LEAST);
    for turn in 1..=30 {
        let (mut store, opening) = block_on(Store::open(chip.handle())).expect("opened");
        assert_eq!((opening.damaged, opening.torn), (0, 0), "turn {turn}");
        let number = block_on(store.save(|_, _| Ok(1))).expect("saved");
        let taken = block_on(store.take_receipt(number, &receipt(number)));
        assert_eq!(taken, Ok(Taken::New), "turn {turn}");
        let job = block_on(store.next_to_print(&mut [0; 265])).expect("read");
        let ordinal = job.expect("to print").ordinal;
        block_on(store.print_began(ordinal)).expect("begun");
        block_on(store.print_ended(ordinal)).expect("ended");
        assert_eq!(store.levels().damaged, 0, "turn {turn}");
    }
}

/// Notes that stand in the first page.
fn notes(chip: &Small) -> usize {
    let image = chip.image();
    let slots = image[16..PAGE].chunks_exact(84);
    slots
        .filter(|slot| slot.iter().any(|&byte| byte != 0xFF))
        .count()
}

#[test]
fn a_note_is_written_once_a_block_of_numbers_and_for_no_page_that_changes_nothing() {
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    for number in 1..=52 {
        assert_eq!(save(&mut store), Ok(number));
        // 16 numbers a block; 13 records a page, all of which wait.
        assert_eq!(notes(&chip), (number as usize).div_ceil(16), "{number}");
    }
    assert_eq!(save(&mut store), Err(SaveError::Full));
    assert_eq!(store.levels().damaged, 0);
    // The page that is needed now is given up before it is erased.
    let before = notes(&chip);
    for number in 1..=13 {
        assert_eq!(take(&mut store, number), Taken::New);
        print(&mut store);
    }
    let (taken, before) = (notes(&chip), notes(&chip) - before);
    assert!(before > 0, "so is that of the receipts");
    assert_eq!(save(&mut store), Ok(53));
    assert_eq!(notes(&chip), taken + 1);
    assert_eq!(store.levels().damaged, 0);
}

/// CRC-32C, bit by bit.
fn check(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
        }
    }
    (!crc).to_le_bytes()
}

#[test]
fn numbers_end_two_blocks_before_they_would_begin_again() {
    let last = u32::MAX - 2 * 16;
    let chip = Small::new(8 * PAGE);
    let (mut store, _) = open(&chip);
    assert_eq!(save(&mut store), Ok(1));
    // A long life later: the note says so.
    let mut note = chip.image()[16..16 + 76].to_vec();
    note[8..12].copy_from_slice(&(last - 2).to_le_bytes());
    let sum = check(&note[..72]);
    note[72..].copy_from_slice(&sum);
    chip.overwrite(16, &note);
    let (mut store, opening) = open(&chip);
    assert!(opening.is_numbered);
    assert_eq!(save(&mut store), Ok(last - 1));
    assert_eq!(save(&mut store), Ok(last));
    for _ in 0..3 {
        assert_eq!(save(&mut store), Err(SaveError::Unnumbered));
    }
    // Receipts come all the same.
    assert_eq!(take(&mut store, last), Taken::New);
    assert_eq!(waiting(&mut store), [1, last - 1]);
}
