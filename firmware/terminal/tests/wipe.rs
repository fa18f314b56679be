//! An order to erase: only a whole one is one, what somebody waits for stays
//! without a word about it, and what can't be erased is told.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use embassy_futures::block_on;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use risiti_sim::nor::{Nor, NorError};
use risiti_terminal::hardware::{Entropy, NoEntropy};
use risiti_terminal::store::Store;
use risiti_terminal::vault::{BeforeVault, Holder, Vault};
use risiti_terminal::wipe::{ORDER_BYTES, Order, Refused, erase, finished, in_turn};

const PAGE: usize = 1024;
const PAGES: usize = 16;
type Chip = Nor<PAGE>;

#[test]
fn an_order_comes_back_as_it_went_and_no_flipped_bit_or_cut_is_one() {
    for even_unfinished in [false, true] {
        let order = Order { even_unfinished };
        let mut bytes = [0xff; 64];
        bytes[..ORDER_BYTES].copy_from_slice(&order.encode());
        assert_eq!(Order::decode(&bytes), Some(order));
        for cut in 0..ORDER_BYTES {
            assert_eq!(Order::decode(&bytes[..cut]), None);
        }
        for bit in 0..ORDER_BYTES * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Order::decode(&bytes), None, "{bit}");
        }
    }
    assert_eq!(Order::decode(&[0xff; 64]), None);
}

/// A chip on which one payment was saved.
fn paid() -> Chip {
    let chip = Chip::new(PAGES * PAGE);
    let (mut store, _) = block_on(Store::open(BeforeVault(chip.handle()))).unwrap();
    let saved = block_on(store.save(|_, into| {
        into[..4].copy_from_slice(b"paid");
        Ok(4)
    }));
    assert_eq!(saved.unwrap(), 1);
    chip
}

#[test]
fn a_payment_without_receipt_and_a_receipt_without_paper_are_unfinished() {
    let chip = paid();
    assert_eq!(
        block_on(finished(chip.handle())),
        Err(Refused::Unfinished(1))
    );
    let (mut store, _) = block_on(Store::open(BeforeVault(chip.handle()))).unwrap();
    block_on(store.take_receipt(1, b"receipt")).unwrap();
    assert_eq!(
        block_on(finished(chip.handle())),
        Err(Refused::Unfinished(1))
    );
    let job = block_on(store.next_to_print(&mut [0; 265]))
        .unwrap()
        .unwrap();
    block_on(store.print_began(job.ordinal)).unwrap();
    block_on(store.print_ended(job.ordinal)).unwrap();
    assert_eq!(block_on(finished(chip.handle())), Ok(()));
    assert_eq!(block_on(finished(Chip::new(PAGES * PAGE))), Ok(()));
}

#[test]
fn what_can_not_be_read_may_be_somebodys_payment() {
    let chip = paid();
    let at = chip.image().windows(4).position(|bytes| bytes == b"paid");
    chip.overwrite(at.expect("it is there"), &[0; 4]);
    assert_eq!(block_on(finished(chip.handle())), Err(Refused::Unreadable));
}

#[test]
fn keys_that_the_terminal_made_are_erased_first_and_with_all_the_rest() {
    let chip = paid();
    let holder = Holder {
        id: "t1",
        generation: 1,
    };
    let made = block_on(Vault::of(chip.handle()).keys(holder, false, &mut Counting));
    let keys = made.unwrap();
    let record = *keys.seal().record;
    let stands = || chip.image().windows(16).any(|bytes| bytes == record);
    assert!(stands());
    let mut pages: Vec<u32> = in_turn(PAGES as u32).collect();
    assert_eq!(block_on(erase(&mut chip.handle(), pages[0])), Ok(()));
    assert!(!stands());
    pages.sort_unstable();
    assert_eq!(pages, (0..PAGES as u32).collect::<Vec<_>>());
    for page in pages {
        assert_eq!(block_on(erase(&mut chip.handle(), page)), Ok(()));
    }
    assert!(chip.image().iter().all(|byte| *byte == 0xff));
}

/// Bytes that differ.
struct Counting;

impl Entropy for Counting {
    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        let each = bytes.iter_mut().enumerate();
        each.for_each(|(at, byte)| *byte = at as u8);
        Ok(())
    }
}

#[test]
fn every_page_is_blank_afterwards_and_one_that_stays_is_told() {
    let chip = paid();
    chip.overwrite(3 * PAGE, &[0; PAGE]);
    for page in 0..PAGES as u32 {
        assert_eq!(block_on(erase(&mut chip.handle(), page)), Ok(()));
    }
    assert!(chip.image().iter().all(|byte| *byte == 0xff));

    let chip = paid();
    chip.overwrite(3 * PAGE, &[0; PAGE]);
    let mut stuck = Stuck(chip);
    let failed: Vec<_> = (0..PAGES as u32)
        .filter_map(|page| block_on(erase(&mut stuck, page)).err())
        .collect();
    assert_eq!(failed, [Refused::Page(3)]);
}

/// A chip whose page 3 keeps what it holds, and says nothing of it.
struct Stuck(Chip);

impl ErrorType for Stuck {
    type Error = NorError;
}

impl ReadNorFlash for Stuck {
    const READ_SIZE: usize = Chip::READ_SIZE;

    async fn read(&mut self, at: u32, bytes: &mut [u8]) -> Result<(), NorError> {
        self.0.read(at, bytes).await
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl NorFlash for Stuck {
    const WRITE_SIZE: usize = Chip::WRITE_SIZE;
    const ERASE_SIZE: usize = Chip::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorError> {
        if from as usize == 3 * PAGE {
            return Ok(());
        }
        self.0.erase(from, to).await
    }

    async fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), NorError> {
        self.0.write(at, bytes).await
    }
}
