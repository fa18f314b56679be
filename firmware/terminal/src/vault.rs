//! Keys that this terminal made itself, in the last page of its flash.
//!
//! Promises: keys are given out only if they were written and read back, and once they
//! may have been seen they are the same at every start, whatever is cut; what nobody
//! can have seen is made anew. Once confirmed they are not to be shown any more. Never:
//! keys made of anything but the board's source of random bytes, and never other keys
//! in place of damaged ones: those may be enrolled, and what new ones seal would be
//! refused, payment after payment, without anybody at the terminal knowing. So damage
//! is an error, and the way out of it another generation.
//!
//! # Format, version 1
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic, `RVLT` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | generation of the keys |
//! | 6 | 1 | length of the terminal's id |
//! | 7 | 1 | 0 |
//! | 8 | 24 | the id, zeros behind it |
//! | 32 | 16 | key that seals records |
//! | 48 | 16 | key that opens receipts |
//! | 64 | 4 | CRC-32C of all before it, big-endian |
//! | 68 | 2 words of 4 | shown: somebody may have seen the keys |
//! | 76 | 2 words of 4 | confirmed: somebody has written them down |
//!
//! Each word is written once between two erases. A mark is CRC-32C of its kind (0, 1),
//! the generation, and the id, shifted right by one, big-endian: so it says whose it is
//! even if all before it is damaged.
//!
//! # What was cut, and what is damaged
//!
//! | keys | marks | then |
//! | --- | --- | --- |
//! | of this terminal and generation | none | nobody saw them: made anew |
//! | of this terminal and generation | any, torn or not | these are the keys; a word that is missing is written |
//! | of another one | any | made anew: that is how keys are changed |
//! | unreadable | one of this terminal and generation | damaged |
//! | unreadable | none of them | a write or an erase that was cut: made anew |
//!
//! One flipped bit in the keys is put right. Confirmed is what one whole word says, or
//! two torn ones: that takes two power cuts, each while somebody pressed the key.

use core::ops::Range;

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use risiti_wire::limits::TERMINAL_ID_BYTES_MAX;
use risiti_wire::seal::KEY_BYTES;

use crate::check::{Check, Flipped, one_flipped};
use crate::hardware::Entropy;
use crate::settings::SealKeys;

const MAGIC: [u8; 4] = *b"RVLT";
const VERSION: u8 = 1;

const ID_AT: usize = 8;
const HEAD_BYTES: usize = 32;
const _: () = assert!(ID_AT + TERMINAL_ID_BYTES_MAX <= HEAD_BYTES);
/// Head and keys.
const BODY_BYTES: usize = HEAD_BYTES + 2 * KEY_BYTES;
const WORD_BYTES: usize = 4;
/// And their check.
const MARKS_AT: usize = BODY_BYTES + WORD_BYTES;
/// Of each mark.
const MARK_WORDS: usize = 2;
/// All that is looked at.
const VAULT_BYTES: usize = MARKS_AT + 2 * MARK_WORDS * WORD_BYTES;
const BLANK: [u8; WORD_BYTES] = [0xFF; WORD_BYTES];

/// The keys are written, then each word of each mark; it is read before and after.
const ROUNDS_MAX: usize = 2 + 2 * MARK_WORDS;

type Page = [u8; VAULT_BYTES];

/// Whose keys they are, and which.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The terminal's id.
    pub id: &'a str,
    /// The generation.
    pub generation: u8,
}

/// The keys that a terminal made itself.
pub struct OwnKeys {
    generation: u8,
    record: [u8; KEY_BYTES],
    receipt: [u8; KEY_BYTES],
    is_confirmed: bool,
}

impl OwnKeys {
    /// As settings have them.
    #[must_use]
    pub fn seal(&self) -> SealKeys<'_> {
        SealKeys {
            generation: self.generation,
            record: &self.record,
            receipt: &self.receipt,
        }
    }

    /// Whether somebody has written them down; then they are not shown any more.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }
}

/// Why there are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultError {
    /// The flash can't be read or written.
    Flash,
    /// Keys that somebody may have enrolled can't be read any more: the terminal needs
    /// the next generation.
    Damaged,
    /// There are no random bytes to be had, or they are none.
    NoEntropy,
}

/// The last page of a flash.
pub struct Vault<F> {
    flash: F,
    at: u32,
}

impl<F: NorFlash> Vault<F> {
    /// Of this flash. Its other pages are not touched.
    pub fn of(flash: F) -> Self {
        const {
            let whole =
                WORD_BYTES.is_multiple_of(F::WRITE_SIZE) && WORD_BYTES.is_multiple_of(F::READ_SIZE);
            assert!(whole, "it is read and written by words");
            assert!(F::ERASE_SIZE >= VAULT_BYTES, "it is in one page");
        }
        let at = without_vault::<F>(flash.capacity()) as u32;
        Self { flash, at }
    }

    /// The keys of this holder; without any, or with those of another one, new ones are
    /// made. `are_written_down`: from now on they are confirmed; then none are made.
    ///
    /// # Errors
    /// See [`VaultError`]. Nothing was given out.
    pub async fn keys<E: Entropy>(
        &mut self,
        holder: Holder<'_>,
        are_written_down: bool,
        entropy: &mut E,
    ) -> Result<OwnKeys, VaultError> {
        let mut page = [0; VAULT_BYTES];
        let mut are_made = are_written_down;
        for _ in 0..ROUNDS_MAX {
            let read = self.flash.read(self.at, &mut page).await;
            read.map_err(|_| VaultError::Flash)?;
            let next = judge(&mut page, holder, are_made, are_written_down)?;
            let range = match next {
                Next::Have { is_confirmed } => return Ok(keys(&page, holder, is_confirmed)),
                Next::Write(range) => range,
                Next::Make => {
                    are_made = true;
                    let random = begin(&mut page, holder);
                    let filled = entropy.fill(random).await;
                    filled.map_err(|_| VaultError::NoEntropy)?;
                    let range = end(&mut page)?;
                    let to = self.at + F::ERASE_SIZE as u32;
                    let erased = self.flash.erase(self.at, to).await;
                    erased.map_err(|_| VaultError::Flash)?;
                    range
                }
            };
            let at = self.at + range.start as u32;
            let bytes = page.get(range).unwrap_or_default();
            let written = self.flash.write(at, bytes).await;
            written.map_err(|_| VaultError::Flash)?;
        }
        Err(VaultError::Flash)
    }
}

/// What is to be done.
enum Next {
    /// New keys.
    Make,
    /// A word of a mark; the page has it.
    Write(Range<usize>),
    /// Nothing: the page has them.
    Have { is_confirmed: bool },
}

/// Says what a page that was read holds, and what is to be done about it.
fn judge(
    page: &mut Page,
    holder: Holder<'_>,
    are_made: bool,
    are_written_down: bool,
) -> Result<Next, VaultError> {
    let (body, rest) = page.split_at_mut(BODY_BYTES);
    let is_readable = repair(body, rest);
    let is_ours = is_readable && body.starts_with(&head(holder));
    let marks = rest.get_mut(WORD_BYTES..).unwrap_or_default();
    let marks = marks.as_chunks_mut::<WORD_BYTES>().0;
    let (mut is_touched, mut is_confirmed) = (false, are_written_down);
    let (mut is_told, mut torn) = (false, 0);
    for (at, word) in marks.iter().enumerate() {
        if *word == BLANK {
            continue;
        }
        is_touched = true;
        let is_confirmation = at >= MARK_WORDS;
        let is_whole = *word == mark(is_confirmation, holder);
        is_told |= is_whole;
        if is_confirmation {
            torn += 1;
            is_confirmed |= is_whole || torn == MARK_WORDS;
        }
    }
    if !is_readable && is_told {
        return Err(VaultError::Damaged);
    } else if !(are_made || is_ours && is_touched) {
        return Ok(Next::Make);
    } else if !is_ours {
        // Just written, and not there.
        return Err(VaultError::Flash);
    }
    for (at, word) in marks.iter_mut().enumerate() {
        let is_confirmation = at >= MARK_WORDS;
        if *word == BLANK && (is_confirmed || !is_confirmation) {
            *word = mark(is_confirmation, holder);
            let from = MARKS_AT + at * WORD_BYTES;
            return Ok(Next::Write(from..from + WORD_BYTES));
        }
    }
    Ok(Next::Have { is_confirmed })
}

/// A word of a mark: of keys that were shown, or confirmed.
fn mark(is_confirmation: bool, holder: Holder<'_>) -> [u8; WORD_BYTES] {
    let mut check = Check::new();
    check.update(&[u8::from(is_confirmation), holder.generation]);
    check.update(holder.id.as_bytes());
    // Never what reads as blank.
    (check.finish() >> 1).to_be_bytes()
}

fn head(holder: Holder<'_>) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let [m0, m1, m2, m3] = MAGIC;
    // The id's bound is 23 bytes.
    let length = holder.id.len() as u8;
    let start = [m0, m1, m2, m3, VERSION, holder.generation, length, 0];
    let (to, id) = head.split_at_mut(ID_AT);
    to.copy_from_slice(&start);
    for (to, from) in id.iter_mut().zip(holder.id.as_bytes()) {
        *to = *from;
    }
    head
}

/// The page of new keys; returns where these are to stand.
fn begin<'a>(page: &'a mut Page, holder: Holder<'_>) -> &'a mut [u8] {
    let (to, rest) = page.split_at_mut(HEAD_BYTES);
    to.copy_from_slice(&head(holder));
    rest.get_mut(..2 * KEY_BYTES).unwrap_or_default()
}

/// Looks at the keys that stand there now, and gives them their check; returns what is
/// to be written.
fn end(page: &mut Page) -> Result<Range<usize>, VaultError> {
    let (body, rest) = page.split_at_mut(BODY_BYTES);
    let (record, receipt) = body.split_at(HEAD_BYTES).1.split_at(KEY_BYTES);
    // All zero, all equal, or nothing but what was there before: two random keys are
    // the same once in 2^128 times.
    if record == receipt {
        return Err(VaultError::NoEntropy);
    }
    let sum = checksum(body).to_be_bytes();
    rest.split_at_mut(WORD_BYTES).0.copy_from_slice(&sum);
    Ok(0..MARKS_AT)
}

fn keys(page: &Page, holder: Holder<'_>, is_confirmed: bool) -> OwnKeys {
    let (record, receipt) = page.split_at(HEAD_BYTES).1.split_at(KEY_BYTES);
    let key = |bytes: &[u8]| bytes.first_chunk().copied().unwrap_or_default();
    OwnKeys {
        generation: holder.generation,
        record: key(record),
        receipt: key(receipt),
        is_confirmed,
    }
}

fn checksum(body: &[u8]) -> u32 {
    let mut check = Check::new();
    check.update(body);
    check.finish()
}

/// Puts one flipped bit right; false if there is more that is wrong.
fn repair(body: &mut [u8], check: &[u8]) -> bool {
    let stored = check.first_chunk().copied().unwrap_or_default();
    let difference = checksum(body) ^ u32::from_be_bytes(stored);
    if difference == 0 {
        return true;
    }
    match one_flipped(difference, BODY_BYTES as u16) {
        Some(Flipped::Check) => true,
        Some(Flipped::Data(bit)) => {
            if let Some(byte) = body.get_mut(usize::from(bit / 8)) {
                *byte ^= 1 << (bit % 8);
            }
            true
        }
        None => false,
    }
}

const fn without_vault<F: NorFlash>(capacity: usize) -> usize {
    (capacity / F::ERASE_SIZE).saturating_sub(1) * F::ERASE_SIZE
}

/// A flash that ends before the vault: all that the [store](crate::store) gets, so that
/// no slot of it can ever stand where keys are.
pub struct BeforeVault<F>(pub F);

impl<F: ErrorType> ErrorType for BeforeVault<F> {
    type Error = F::Error;
}

// The futures are the chip's own: one around each would be in the image, too.
impl<F: NorFlash> ReadNorFlash for BeforeVault<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, at: u32, bytes: &mut [u8]) -> impl Future<Output = Result<(), F::Error>> {
        self.0.read(at, bytes)
    }

    fn capacity(&self) -> usize {
        without_vault::<F>(self.0.capacity())
    }
}

impl<F: NorFlash> NorFlash for BeforeVault<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> impl Future<Output = Result<(), F::Error>> {
        self.0.erase(from, to)
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> impl Future<Output = Result<(), F::Error>> {
        self.0.write(at, bytes)
    }
}
