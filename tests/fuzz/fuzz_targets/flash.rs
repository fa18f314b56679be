//! The terminal's store, opened on a flash that is damaged.
//!
//! A chip is taken from the middle of its work and damaged. Whatever the damage, the
//! store opens, in no memory, goes on taking payments or says that it can't, never
//! writes a word twice between two erases (the chip would stop the run), gives no
//! number twice that can still be read, none at all if either all notes or all records
//! were spared, and reads the same at the next start: records, receipts, counters. After
//! damage that its check is made for (up to four flipped bits, pages gone blank or
//! to zeros, pages as they were earlier) it hands out no record and no receipt but
//! those that were stored, byte by byte (G6, G11).

#![no_main]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;

use embassy_futures::block_on;
use risiti_fuzz::control::breaks;
use risiti_fuzz::seeds::Seed;
use risiti_fuzz::{Choices, target};
use risiti_sim::nor::Nor;
use risiti_terminal::store::{Counters, Opening, SaveError, Store, StoreError, Taken};
use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX};

const PAGE: usize = 512;
const PAGES: usize = 8;
type Chip = Nor<PAGE>;
/// Where the store of so small a chip keeps its notes and its records, in bytes.
const NOTES: Range<usize> = 0..2 * PAGE;
const RECORDS: Range<usize> = 4 * PAGE..PAGES * PAGE;

/// A chip at a moment of its life.
struct Moment {
    cells: Vec<u8>,
    highest: u32,
}

static LIFE: LazyLock<Vec<Moment>> = LazyLock::new(|| {
    let chip = Chip::new(PAGES * PAGE);
    let mut moments = vec![Moment {
        cells: chip.image(),
        highest: 0,
    }];
    let mut highest = 0;
    for day in 0..12_u32 {
        let (mut store, _) = block_on(Store::open(chip.handle())).expect("an undamaged chip");
        for _ in 0..5 {
            highest = save(&mut store).expect("room for a day");
            block_on(store.mark_sent(highest)).expect("sent");
        }
        while store.levels().waiting > day % 3 {
            let mut into = [0; RECORD_BYTES_MAX];
            let next = block_on(store.next_waiting(0, &mut into))
                .expect("read")
                .expect("waits");
            let taken = block_on(store.take_receipt(next.sequence, &receipt(next.sequence)));
            assert_eq!(taken, Ok(Taken::New));
            if day % 4 != 3 || store.levels().to_print > 1 {
                let job = block_on(store.next_to_print(&mut [0; RECEIPT_BYTES_MAX]));
                let job = job.expect("read").expect("to print");
                block_on(store.print_began(job.ordinal)).expect("began");
                block_on(store.print_ended(job.ordinal)).expect("ended");
            }
        }
        moments.push(Moment {
            cells: chip.image(),
            highest,
        });
    }
    moments
});

target!("flash", seeds, |data| {
    let mut choices = Choices::new(data);
    let at = choices.below(LIFE.len());
    let moment = &LIFE[at];
    let mut cells = moment.cells.clone();
    let telling = damage(&mut cells, &mut choices, at);
    let is_spared = |ring: Range<usize>| cells[ring.clone()] == moment.cells[ring];
    let mut last = match is_spared(NOTES) || is_spared(RECORDS) {
        true => moment.highest,
        false => 0,
    };
    let chip = Chip::holding(cells);
    let Some((mut store, opening)) = open(&chip) else {
        return;
    };
    if breaks("flash-damage") {
        assert_eq!(opening.damaged, 0);
    }
    let before = held(&mut store, telling);
    drop(store);
    let (mut store, again) = open(&chip).expect("it opened before");
    assert_eq!(
        held(&mut store, telling),
        before,
        "what waits changed with a start"
    );
    assert_eq!(opening.is_numbered, again.is_numbered);
    for _ in 0..usize::from(choices.byte() & 31) {
        match save(&mut store) {
            Ok(number) => {
                assert!(
                    opening.is_numbered && number > last,
                    "{number} after {last}"
                );
                assert!(!before.0.contains_key(&number), "{number} waits already");
                last = number;
            }
            Err(Stop::Unnumbered) => assert!(!again.is_numbered),
            Err(Stop::Full | Stop::Worn) => {}
        }
        go_on(&mut store, telling);
        let counters = Counters {
            saved: last,
            ..*store.counters()
        };
        match block_on(store.put_counters(counters)) {
            Ok(()) | Err(StoreError::Worn) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let after = held(&mut store, telling);
    let counters = *store.counters();
    drop(store);
    if let Some((mut store, _)) = open(&chip) {
        assert_eq!(
            held(&mut store, telling),
            after,
            "what was saved is lost by a start"
        );
        if again.is_numbered {
            assert_eq!(*store.counters(), counters, "counters are lost by a start");
        }
    }
});

fn open(chip: &Chip) -> Option<(Store<Chip>, Opening)> {
    match block_on(Store::open(chip.handle())) {
        Ok(opened) => Some(opened),
        Err(StoreError::Worn) => None,
        Err(error) => panic!("what a flash holds is never an error: {error:?}"),
    }
}

/// Damages the cells; whether what is handed out afterwards must be what was stored.
fn damage(cells: &mut [u8], choices: &mut Choices<'_>, at: usize) -> bool {
    let mut flips = 0;
    let mut telling = true;
    for _ in 0..choices.byte() & 15 {
        let place = usize::from(choices.short()) % cells.len();
        let page = place / PAGE * PAGE;
        match choices.byte() {
            0..=99 if flips < 4 => {
                flips += 1;
                cells[place] ^= 1 << choices.below(8);
            }
            0..=99 => {}
            100..=139 => cells[place..page + PAGE].fill(0xff),
            140..=159 => cells[page..=place].fill(0xff),
            160..=179 => cells[place..page + PAGE].fill(0),
            180..=219 => {
                let earlier = &LIFE[choices.below(at + 1)].cells;
                cells[page..page + PAGE].copy_from_slice(&earlier[page..page + PAGE]);
            }
            // Anything at all: a checksum can be made to fit.
            _ => {
                telling = false;
                let noise = choices.led();
                let end = (place + noise.len()).min(cells.len());
                cells[place..end].copy_from_slice(&noise[..end - place]);
            }
        }
    }
    telling
}

/// All records that wait, by number; and the receipt that is to be printed next.
type Held = (BTreeMap<u32, Vec<u8>>, Option<(u32, u32)>);

fn held(store: &mut Store<Chip>, telling: bool) -> Held {
    let mut all = BTreeMap::new();
    let mut after = 0;
    let mut into = [0; RECORD_BYTES_MAX];
    while let Some(next) = block_on(store.next_waiting(after, &mut into)).expect("read") {
        assert!(next.sequence > after, "{} after {after}", next.sequence);
        after = next.sequence;
        let bytes = into[..next.len].to_vec();
        assert!(
            !telling || bytes == record(after),
            "{after} was never saved so"
        );
        all.insert(after, bytes);
    }
    let job = block_on(store.next_to_print(&mut [0; RECEIPT_BYTES_MAX])).expect("read");
    (all, job.map(|job| (job.ordinal, job.sequence)))
}

/// A receipt comes, and one is printed.
fn go_on(store: &mut Store<Chip>, telling: bool) {
    let mut into = [0; RECORD_BYTES_MAX];
    if let Some(next) = block_on(store.next_waiting(0, &mut into)).expect("read") {
        let number = next.sequence;
        match block_on(store.take_receipt(number, &receipt(number))) {
            Ok(_) | Err(StoreError::Worn) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let mut into = [0; RECEIPT_BYTES_MAX];
    let Some(job) = block_on(store.next_to_print(&mut into)).expect("read") else {
        return;
    };
    let stored = into[..job.len] == receipt(job.sequence)[..];
    assert!(
        !telling || stored,
        "the receipt of {} was never stored so",
        job.sequence
    );
    for done in [
        block_on(store.print_began(job.ordinal)),
        block_on(store.print_ended(job.ordinal)),
    ] {
        assert!(matches!(done, Ok(()) | Err(StoreError::Worn)), "{done:?}");
    }
}

#[derive(Debug)]
enum Stop {
    Full,
    Unnumbered,
    Worn,
}

fn save(store: &mut Store<Chip>) -> Result<u32, Stop> {
    let saved = block_on(store.save(|number, into| {
        let bytes = record(number);
        into[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }));
    saved.map_err(|error| match error {
        SaveError::Full => Stop::Full,
        SaveError::Unnumbered => Stop::Unnumbered,
        SaveError::Flash(StoreError::Worn) => Stop::Worn,
        other => panic!("{other:?}"),
    })
}

/// The bytes of a record follow from its number.
fn record(number: u32) -> Vec<u8> {
    bytes(number, 12 + number as usize * 7 % (RECORD_BYTES_MAX - 11))
}

fn receipt(number: u32) -> Vec<u8> {
    bytes(
        !number,
        20 + number as usize * 53 % (RECEIPT_BYTES_MAX - 19),
    )
}

fn bytes(seed: u32, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn seeds() -> Vec<Seed> {
    let damages: [(&str, &[u8]); 7] = [
        ("none", &[0]),
        ("flip", &[1, 0x04, 0x33, 0, 3]),
        (
            "flips",
            &[4, 0, 20, 0, 1, 4, 20, 0, 2, 8, 9, 0, 3, 12, 70, 0, 4],
        ),
        ("blank", &[1, 0x06, 0, 100]),
        ("half-blank", &[2, 0x06, 0x80, 140, 0x02, 0x80, 100]),
        ("earlier", &[2, 0, 0, 180, 3, 2, 0, 180, 5]),
        ("noise", &[1, 0x08, 0, 255, 8, 1, 2, 3, 4, 5, 6, 7, 8]),
    ];
    let mut all = Vec::new();
    for moment in [0_u8, 3, 8, 12] {
        for (name, damage) in damages {
            let mut seed = vec![moment];
            seed.extend_from_slice(damage);
            seed.push(20);
            all.push((format!("{name}-{moment:02}"), seed));
        }
    }
    // The moments are all that was ever saved.
    assert!(LIFE.iter().is_sorted_by_key(|moment| moment.highest));
    all
}
