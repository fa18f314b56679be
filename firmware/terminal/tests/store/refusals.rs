//! A flash that refuses any one operation: what was under way may be asked for
//! again, and is done once.

use std::cell::Cell;
use std::rc::Rc;

use embassy_futures::block_on;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use risiti_sim::nor::NorError;
use risiti_terminal::store::{Counters, SaveError, Store, Taken};

use crate::basics::{PAGE, Small, open};
use crate::slots::with_records;
use crate::world::receipt;

/// Operations of the longest call, and some: none refused ends a test earlier.
const OPERATIONS_MAX: u32 = 500;

/// When it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Nothing is done.
    Before,
    /// It is done, and nobody is told.
    After,
}

/// A chip, and how many operations it does before it refuses one.
struct Refusing {
    chip: Small,
    left: Rc<Cell<u32>>,
    when: When,
}

impl Refusing {
    fn refuses(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.wrapping_sub(1));
        left == 0
    }
}

impl ErrorType for Refusing {
    type Error = NorError;
}

impl ReadNorFlash for Refusing {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorError> {
        if self.refuses() {
            return Err(NorError::Refused);
        }
        self.chip.read(offset, bytes).await
    }

    fn capacity(&self) -> usize {
        self.chip.capacity()
    }
}

impl NorFlash for Refusing {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorError> {
        let refuses = self.refuses();
        if !(refuses && self.when == When::Before) {
            self.chip.erase(from, to).await?;
        }
        if refuses {
            Err(NorError::Refused)
        } else {
            Ok(())
        }
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorError> {
        let refuses = self.refuses();
        if !(refuses && self.when == When::Before) {
            self.chip.write(offset, bytes).await?;
        }
        if refuses {
            Err(NorError::Refused)
        } else {
            Ok(())
        }
    }
}

/// A store whose flash does all until the cell says otherwise.
fn open_refusing(chip: &Small, when: When) -> (Store<Refusing>, Rc<Cell<u32>>) {
    let left = Rc::new(Cell::new(u32::MAX));
    let flash = Refusing {
        chip: chip.handle(),
        left: Rc::clone(&left),
        when,
    };
    (block_on(Store::open(flash)).expect("opened").0, left)
}

/// Prints all there is; the numbers of the records.
fn print(store: &mut Store<Refusing>) -> Vec<u32> {
    let mut printed = Vec::new();
    let mut into = [0; 265];
    while let Some(job) = block_on(store.next_to_print(&mut into)).expect("read") {
        assert_eq!(into[..job.len], receipt(job.sequence));
        assert!(!job.interrupted);
        block_on(store.print_began(job.ordinal)).expect("began");
        block_on(store.print_ended(job.ordinal)).expect("ended");
        printed.push(job.sequence);
    }
    printed
}

/// Does this with the first operation refused, the second, and so on, until none is;
/// how many there were.
fn each_refused(mut done: impl FnMut(When, u32) -> bool) -> u32 {
    let mut refused = 0;
    for when in [When::Before, When::After] {
        let at = (0..OPERATIONS_MAX).find(|&at| !done(when, at));
        refused += at.expect("a call comes to its end");
    }
    refused
}

#[test]
fn a_receipt_is_taken_once_whichever_operation_was_refused() {
    // Whether the printer's task asks before the gateway delivers it again.
    for printer_first in [false, true] {
        for sent in [false, true] {
            let refused = each_refused(|when, at| {
                let context = format!("{when:?} {at} {printer_first} {sent}");
                let (chip, _) = with_records(2);
                let (mut store, left) = open_refusing(&chip, when);
                if sent {
                    block_on(store.mark_sent(1)).expect("marked");
                }
                left.set(at);
                let taken = block_on(store.take_receipt(1, &receipt(1)));
                left.set(u32::MAX);
                let was_refused = taken.is_err();
                let mut printed = Vec::new();
                if printer_first {
                    printed = print(&mut store);
                }
                if was_refused {
                    let again = block_on(store.take_receipt(1, &receipt(1)));
                    let again = again.expect("nothing is refused now");
                    assert!(
                        matches!(again, Taken::New | Taken::Repeated),
                        "{again:?} {context}"
                    );
                }
                let held = store.levels();
                let found = open(&chip.copy()).0.levels();
                assert_eq!(held.waiting, found.waiting, "{context}");
                assert_eq!(held.unsent, found.unsent, "{context}");
                assert_eq!(held.to_print, found.to_print, "{context}");
                assert_eq!((held.waiting, held.unsent), (1, 1), "{context}");
                printed.extend(print(&mut store));
                assert_eq!(printed, [1], "{context}");
                assert_eq!(store.levels().to_print, 0, "{context}");
                was_refused
            });
            assert!(refused > 20, "{refused}");
        }
    }
}

#[test]
fn a_record_that_was_refused_takes_no_other_with_it() {
    let refused = each_refused(|when, at| {
        let context = format!("{when:?} {at}");
        let (chip, _) = with_records(12);
        let (mut store, left) = open_refusing(&chip, when);
        let mut save = || {
            block_on(store.save(|number, into| {
                into[..4].copy_from_slice(&number.to_le_bytes());
                Ok(4)
            }))
        };
        let mut saved = vec![save().expect("saved")];
        left.set(at);
        let second = save();
        left.set(u32::MAX);
        match second {
            Ok(number) => saved.push(number),
            Err(error) => assert!(matches!(error, SaveError::Flash(_)), "{context}"),
        }
        for _ in 0..3 {
            saved.push(save().expect("saved"));
        }
        assert!(saved.is_sorted_by(|a, b| a < b), "{saved:?} {context}");
        let waiting = crate::basics::waiting(&mut open(&chip).0);
        for number in saved {
            assert!(waiting.contains(&number), "{number} {context}");
        }
        second.is_err()
    });
    assert!(refused > 10, "{refused}");
}

#[test]
fn what_is_noted_or_marked_is_so_after_another_try() {
    each_refused(|when, at| {
        let (chip, _) = with_records(2);
        let (mut store, left) = open_refusing(&chip, when);
        assert_eq!(block_on(store.take_receipt(1, &receipt(1))), Ok(Taken::New));
        let counters = Counters {
            starts: 3,
            ..Counters::default()
        };
        left.set(at);
        let mut refused = false;
        // Each again until it is done.
        let mut until_done = |is_done: &mut dyn FnMut(&mut Store<Refusing>) -> bool| {
            while !is_done(&mut store) {
                refused = true;
            }
        };
        until_done(&mut |store| block_on(store.put_counters(counters)).is_ok());
        until_done(&mut |store| block_on(store.set_subscribed(true)).is_ok());
        until_done(&mut |store| block_on(store.mark_sent(2)).is_ok());
        until_done(&mut |store| block_on(store.print_began(1)).is_ok());
        until_done(&mut |store| block_on(store.print_ended(1)).is_ok());
        // What was marked and not told is counted by the next start.
        let held = store.levels();
        assert_eq!(held.waiting, 1, "{when:?} {at}");
        assert!(held.unsent <= 1 && held.to_print <= 1, "{when:?} {at}");
        assert!(print(&mut store).is_empty(), "{when:?} {at}");
        let (store, _) = open(&chip);
        let found = store.levels();
        assert_eq!((found.waiting, found.unsent, found.to_print), (1, 0, 0));
        assert_eq!(*store.counters(), counters);
        assert!(store.is_subscribed());
        refused
    });
}
