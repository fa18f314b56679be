//! Keys that a terminal made itself: what a cut, a flipped bit or another setting
//! leaves of them, and what comes out of a source of random bytes that is none.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use embassy_futures::block_on;
use embedded_storage_async::nor_flash::{NorFlash, ReadNorFlash as _};
use risiti_sim::nor::{Nor, NorError, Tear};
use risiti_terminal::hardware::{Entropy, NoEntropy};
use risiti_terminal::store::Store;
use risiti_terminal::vault::{BeforeVault, Holder, OwnKeys, Vault, VaultError};

const PAGE: usize = 1024;
const PAGES: usize = 16;
/// Where the vault begins, by its format.
const VAULT: usize = (PAGES - 1) * PAGE;
const KEYS: std::ops::Range<usize> = VAULT + 32..VAULT + 64;
const SHOWN: usize = VAULT + 68;
const CONFIRMED: usize = VAULT + 76;
const END: usize = VAULT + 84;
type Chip = Nor<PAGE>;

const T1: Holder<'_> = Holder {
    id: "t1",
    generation: 1,
};

/// Random bytes, and how often they were asked for.
struct Source {
    chance: fastrand::Rng,
    asked: u32,
}

impl Source {
    fn new(seed: u64) -> Self {
        Self {
            chance: fastrand::Rng::with_seed(seed),
            asked: 0,
        }
    }
}

impl Entropy for Source {
    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        self.asked += 1;
        self.chance.fill(bytes);
        Ok(())
    }
}

/// A source that gives what it is told to.
struct Says(Saying);

type Saying = fn(&mut [u8]) -> Result<(), NoEntropy>;

impl Entropy for Says {
    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        (self.0)(bytes)
    }
}

fn both(keys: &OwnKeys) -> [u8; 32] {
    let seal = keys.seal();
    [*seal.record, *seal.receipt].concat().try_into().unwrap()
}

type Opened = Result<([u8; 32], bool), VaultError>;

fn open(chip: &Chip, holder: Holder<'_>, source: &mut impl Entropy) -> Opened {
    let opened = block_on(Vault::of(chip.handle()).keys(holder, false, source));
    opened.map(|keys| {
        assert_eq!(keys.seal().generation, holder.generation);
        (both(&keys), keys.is_confirmed())
    })
}

fn confirm(chip: &Chip, holder: Holder<'_>) -> Result<(), VaultError> {
    let mut source = Source::new(0);
    let keys = block_on(Vault::of(chip.handle()).keys(holder, true, &mut source))?;
    assert!(keys.is_confirmed() && source.asked == 0);
    Ok(())
}

/// A chip with keys, and the keys.
fn shown() -> (Chip, [u8; 32]) {
    let chip = Chip::new(PAGES * PAGE);
    let (keys, confirmed) = open(&chip, T1, &mut Source::new(1)).unwrap();
    assert!(!confirmed);
    (chip, keys)
}

#[test]
fn keys_are_made_once_and_stay_before_and_after_they_are_confirmed() {
    let (chip, keys) = shown();
    let mut source = Source::new(2);
    assert_eq!(open(&chip, T1, &mut source), Ok((keys, false)));
    confirm(&chip, T1).unwrap();
    for _ in 0..3 {
        assert_eq!(open(&chip, T1, &mut source), Ok((keys, true)));
    }
    assert_eq!(source.asked, 0);
    // In the last page, and nowhere else; a new terminal is erased once.
    assert_eq!(chip.image()[KEYS], keys);
    assert!(chip.image()[..VAULT].iter().all(|byte| *byte == 0xFF));
    assert_eq!(chip.wear()[PAGES - 1], 1);
}

#[test]
fn another_generation_or_another_terminal_gets_other_keys() {
    let (chip, first) = shown();
    confirm(&chip, T1).unwrap();
    let second = Holder {
        generation: 2,
        ..T1
    };
    let other = Holder { id: "t", ..T1 };
    let mut known = vec![first];
    for (at, holder) in [second, T1, other, T1].into_iter().enumerate() {
        let mut source = Source::new(10 + at as u64);
        let (keys, confirmed) = open(&chip, holder, &mut source).unwrap();
        assert!(!confirmed && !known.contains(&keys), "{holder:?}");
        // And they stay.
        assert_eq!(open(&chip, holder, &mut source), Ok((keys, false)));
        assert_eq!(source.asked, 1);
        known.push(keys);
    }
}

#[test]
fn a_cut_at_any_byte_leaves_keys_that_nobody_saw_or_the_same_ones_for_ever() {
    for tear in [Tear::Clean, Tear::Ragged] {
        for seed in 0..12 {
            for from in ["blank", "rotated"] {
                let mut steps = 0;
                loop {
                    let chip = Chip::new(PAGES * PAGE);
                    if from == "rotated" {
                        let before = Holder {
                            generation: 7,
                            ..T1
                        };
                        open(&chip, before, &mut Source::new(99)).unwrap();
                        confirm(&chip, before).unwrap();
                    }
                    let mut source = Source::new(seed);
                    chip.cut_after(steps, tear, seed * 1000 + steps);
                    let cut = open(&chip, T1, &mut source);
                    assert_eq!(cut.is_err(), chip.is_cut());
                    if cut.is_ok() {
                        break;
                    }
                    // What was cut was never given out: any keys will do, from then on
                    // always the same, whatever weak cells read as.
                    chip.power_up();
                    let (keys, confirmed) = open(&chip, T1, &mut source).unwrap();
                    assert!(!confirmed);
                    for _ in 0..4 {
                        chip.power_up();
                        assert_eq!(open(&chip, T1, &mut source), Ok((keys, false)), "{steps}");
                    }
                    steps += 1;
                }
                // An erase, the keys and their check, two words.
                assert_eq!(steps, 8 + 68 + 8, "{from}");
            }
        }
    }
}

#[test]
fn a_cut_while_they_are_confirmed_changes_no_key_and_it_can_be_done_again() {
    for tear in [Tear::Clean, Tear::Ragged] {
        for seed in 0..50 {
            for steps in 0..8 {
                let (chip, keys) = shown();
                let mut source = Source::new(3);
                for again in 0..2 {
                    chip.cut_after(steps, tear, seed * 100 + steps + again * 10_000);
                    let cut = confirm(&chip, T1).is_err();
                    chip.power_up();
                    let (same, confirmed) = open(&chip, T1, &mut source).unwrap();
                    assert_eq!(same, keys);
                    assert!(cut || confirmed);
                }
                confirm(&chip, T1).unwrap();
                for _ in 0..3 {
                    chip.power_up();
                    assert_eq!(open(&chip, T1, &mut source), Ok((keys, true)));
                }
                assert_eq!(source.asked, 0);
            }
        }
    }
}

#[test]
fn damage_after_they_were_shown_is_told_and_other_keys_are_never_put_in_their_place() {
    for is_confirmed in [false, true] {
        let (chip, keys) = shown();
        if is_confirmed {
            confirm(&chip, T1).unwrap();
        }
        let mut source = Source::new(4);
        // One flipped bit changes nothing, wherever it is.
        for bit in VAULT * 8..END * 8 {
            let chip = chip.copy();
            chip.flip(bit);
            let (same, confirmed) = open(&chip, T1, &mut source).unwrap();
            assert_eq!((same, confirmed), (keys, is_confirmed), "{bit}");
        }
        // Two or more are damage; the marks, too, may have one.
        for first in (VAULT * 8..SHOWN * 8 - 5).step_by(7) {
            for mark in [SHOWN * 8 + 3, CONFIRMED * 8 + 3] {
                let chip = chip.copy();
                chip.flip(first);
                chip.flip(first + 5);
                chip.flip(mark);
                assert_eq!(open(&chip, T1, &mut source), Err(VaultError::Damaged));
                // For as long as the terminal is to have just these.
                assert_eq!(open(&chip, T1, &mut source), Err(VaultError::Damaged));
            }
        }
        assert_eq!(source.asked, 0);
        chip.overwrite(VAULT, &[0; 68]);
        assert_eq!(open(&chip, T1, &mut source), Err(VaultError::Damaged));
        let next = Holder {
            generation: 2,
            ..T1
        };
        let (other, confirmed) = open(&chip, next, &mut source).unwrap();
        assert!(other != keys && !confirmed);
    }
}

#[test]
fn random_bytes_that_are_none_make_no_keys_and_it_is_tried_again() {
    let chip = Chip::new(PAGES * PAGE);
    let sources: [Saying; 5] = [
        |_| Err(NoEntropy),
        |_| Ok(()),
        |bytes| {
            bytes.fill(0x5A);
            Ok(())
        },
        |bytes| {
            bytes.fill(0xFF);
            Ok(())
        },
        // The same 16 bytes again.
        |bytes| {
            let each = bytes.iter_mut().enumerate();
            each.for_each(|(at, byte)| *byte = at as u8 % 16 + 1);
            Ok(())
        },
    ];
    for source in sources {
        let refused = open(&chip, T1, &mut Says(source));
        assert_eq!(refused, Err(VaultError::NoEntropy));
        assert!(chip.image().iter().all(|byte| *byte == 0xFF));
    }
    assert!(open(&chip, T1, &mut Source::new(5)).is_ok());
}

#[test]
fn a_flash_that_takes_nothing_gives_no_keys() {
    for worn in [VAULT..SHOWN, SHOWN..SHOWN + 4, SHOWN + 4..CONFIRMED] {
        let chip = Chip::new(PAGES * PAGE);
        chip.wear_out(worn);
        for _ in 0..2 {
            let refused = open(&chip, T1, &mut Source::new(6));
            assert_eq!(refused, Err(VaultError::Flash));
        }
    }
    let chip = Chip::new(PAGES * PAGE);
    chip.fail_once();
    let refused = open(&chip, T1, &mut Source::new(6));
    assert_eq!(refused, Err(VaultError::Flash));
    assert!(open(&chip, T1, &mut Source::new(6)).is_ok());
}

/// Pays and prints until each ring has gone round some times, or `until` holds.
fn work(store: &mut Store<impl NorFlash<Error = NorError>>, until: impl Fn() -> bool) {
    let mut bytes = [0; 265];
    for _ in 0..3_000 {
        if until() {
            return;
        }
        let saved = block_on(store.save(|_, into| {
            into[..4].copy_from_slice(b"paid");
            Ok(4)
        }));
        let number = saved.unwrap();
        block_on(store.take_receipt(number, b"receipt")).unwrap();
        let job = block_on(store.next_to_print(&mut bytes)).unwrap().unwrap();
        block_on(store.print_began(job.ordinal)).unwrap();
        block_on(store.print_ended(job.ordinal)).unwrap();
    }
}

#[test]
fn a_store_that_goes_round_never_touches_the_vault() {
    let (chip, keys) = shown();
    confirm(&chip, T1).unwrap();
    assert_eq!(BeforeVault(chip.handle()).capacity(), VAULT);
    let (mut store, _) = block_on(Store::open(BeforeVault(chip.handle()))).unwrap();
    work(&mut store, || false);
    let wear = chip.wear();
    assert!(
        wear[..PAGES - 1].iter().all(|erases| *erases > 3),
        "{wear:?}"
    );
    assert_eq!(wear[PAGES - 1], 1);
    assert_eq!(open(&chip, T1, &mut Source::new(7)), Ok((keys, true)));
}

#[test]
fn control_a_store_that_gets_the_whole_flash_erases_the_vault() {
    let (chip, _) = shown();
    // As a store has it that began on a blank flash.
    chip.overwrite(VAULT, &[0xFF; PAGE]);
    let (mut store, _) = block_on(Store::open(chip.handle())).unwrap();
    let is_erased = || chip.wear()[PAGES - 1] > 1;
    work(&mut store, is_erased);
    assert!(is_erased());
}
