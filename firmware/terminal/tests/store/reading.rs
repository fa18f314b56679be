//! How much is read to find something: there is no index, and flash behind a slow
//! bus is read a byte in a microsecond or more.

use embassy_futures::block_on;
use risiti_sim::nor::Nor;
use risiti_terminal::store::{Counters, Store, Taken};

use crate::world::receipt;

/// Pages as most chips have them: 53 records, 13 receipts or 48 notes.
const PAGE: usize = 4096;
type Usual = Nor<PAGE>;

/// Records that fill twenty pages.
const RECORDS: u32 = 20 * 53;

fn open(chip: &Usual) -> Store<Usual> {
    block_on(Store::open(chip.handle())).expect("opened").0
}

/// What is read meanwhile, in bytes.
fn reads<T>(chip: &Usual, done: impl FnOnce() -> T) -> (u64, T) {
    let before = chip.read_bytes();
    let result = done();
    (chip.read_bytes() - before, result)
}

/// A chip of 1 MiB with twenty pages of records.
fn with_records() -> (Usual, Store<Usual>) {
    let chip = Usual::new(1 << 20);
    let mut store = open(&chip);
    for number in 1..=RECORDS {
        let saved = block_on(store.save(|_, into| Ok(into.len())));
        assert_eq!(saved, Ok(number));
    }
    (chip, store)
}

fn finish(store: &mut Store<Usual>, number: u32) {
    let taken = block_on(store.take_receipt(number, &receipt(number)));
    assert_eq!(taken, Ok(Taken::New));
    let job = block_on(store.next_to_print(&mut [0; 265])).expect("read");
    let ordinal = job.expect("to print").ordinal;
    block_on(store.print_began(ordinal)).expect("began");
    block_on(store.print_ended(ordinal)).expect("ended");
}

#[test]
fn what_is_settled_is_passed_by_at_a_start() {
    let (chip, mut store) = with_records();
    for number in 1..=RECORDS {
        finish(&mut store, number);
    }
    // All pages of notes have been written, too.
    for starts in 0..4 * 53 {
        let counters = Counters {
            starts,
            ..Counters::default()
        };
        block_on(store.put_counters(counters)).expect("kept");
    }
    // The first start passes them by, and notes that.
    let (first, _) = reads(&chip, || open(&chip));
    let (second, _) = reads(&chip, || open(&chip));
    println!("store: starts with nothing waiting read {first} bytes, then {second}");
    // 256 heads of 16 bytes, twice; two pages of notes, one of records, one of
    // receipts; the record of the newest receipt; a byte of each slot of sixteen pages
    // that were not begun.
    let least = 256 * 16 * 2 + 5 * PAGE as u64 + 16 * 53;
    assert!(second < least + 1_024, "{second}, and {least} would do");
}

#[test]
fn going_through_all_that_waits_reads_each_slot_a_few_times() {
    let (chip, _) = with_records();
    let mut store = open(&chip);
    let (bytes, count) = reads(&chip, || {
        let mut after = 0;
        let mut count = 0;
        let mut into = [0; 40];
        while let Some(next) = block_on(store.next_waiting(after, &mut into)).expect("read") {
            after = next.sequence;
            count += 1;
        }
        count
    });
    assert_eq!(count, RECORDS);
    println!("store: {count} records in turn: {bytes} bytes read");
    // Its own slot, the one before it, its body, the head of the next page.
    let each = 2 * 76 + 40 + 16 + 4;
    assert!(bytes < u64::from(RECORDS) * each + 2 * PAGE as u64);
    let (bytes, ()) = reads(&chip, || {
        for number in 1..=RECORDS {
            block_on(store.mark_sent(number)).expect("marked");
        }
    });
    println!("store: {count} records marked in turn: {bytes} bytes read");
    assert!(bytes < u64::from(RECORDS) * each + 2 * PAGE as u64);
}

#[test]
fn a_number_is_sought_by_the_heads_of_pages() {
    let (chip, _) = with_records();
    for number in [1, 500, RECORDS] {
        let mut store = open(&chip);
        let (bytes, done) = reads(&chip, || block_on(store.mark_sent(number)));
        assert_eq!(done, Ok(()));
        // Twenty heads with their lowest number, and one page.
        let most = 20 * (16 + 4) + PAGE as u64 + 256;
        assert!(bytes < most, "{bytes} for {number}");
    }
}

#[test]
fn what_is_settled_is_looked_at_once() {
    let (chip, mut store) = with_records();
    for number in 1..=1_000 {
        finish(&mut store, number);
    }
    let mut into = [0; 40];
    let mut next = || block_on(store.next_waiting(0, &mut into)).expect("read");
    let (first, waiting) = reads(&chip, &mut next);
    assert_eq!(waiting.map(|waiting| waiting.sequence), Some(1_001));
    let (again, waiting) = reads(&chip, &mut next);
    assert_eq!(waiting.map(|waiting| waiting.sequence), Some(1_001));
    println!("store: the first that waits after 1000: {first} bytes read, then {again}");
    assert!(first < 1_000 * 76 + PAGE as u64);
    assert!(again < 1_024, "{again}");
}
