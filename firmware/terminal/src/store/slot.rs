//! One slot: written once, read with its check, marked by single words.
//!
//! Promises: a slot that reads as valid says what was written, one flipped bit
//! apart, which is put right; what was cut while it was written doesn't read as
//! valid. Never: a word written that isn't blank.
//!
//! # Format
//!
//! Little endian, after the page's head; every word is written once between two
//! erases.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | magic: kind of slot, and its version in the low four bits |
//! | 1 | 1 | lap: how often the ring had come round, low eight bits |
//! | 2 | 2 | bytes used of the body |
//! | 4 | 4 | number |
//! | 8 | by kind | body, the rest blank |
//! | then | 4 | CRC-32C of all before it |
//! | then | 4 each | marks: blank until they are set, then zero; a kind with fewer than six words has the last ones |
//!
//! A mark that matters has two words. One is enough while all goes well; the
//! second is for the case that power was cut in the first. It is set if either
//! word has at most [`ONES_MAX`] ones, or if neither is blank: so neither one
//! flipped bit nor a write that was cut can set or clear it for good.

use embedded_storage_async::nor_flash::NorFlash;

use crate::check::{Check, Flipped, one_flipped};

/// A word that is erased.
const BLANK: u32 = u32::MAX;

/// Ones in the word of a set mark. A set word has none; a flipped bit makes
/// one, and a word cut half-way has anything.
const ONES_MAX: u32 = 8;

/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 8;

/// Bytes read or written at a time: a record in one piece, and a buffer that
/// costs little in every future that holds it.
const PIECE_BYTES: usize = 48;

/// Words of marks that a slot may have.
const MARKS_MAX: usize = 6;

/// The two words of a mark.
const PAIR: u8 = 0b11;

/// Word of the mark that ends a slot's life: settled, printed.
pub(super) const DONE: u8 = 0;
/// Word that says a record was sent, or that the printing of a receipt began.
pub(super) const BEGUN: u8 = 2;
/// Word of the mark that a slot was read back as it was written.
pub(super) const WHOLE: u8 = 4;

/// What slots of one kind look like.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) magic: u8,
    /// A multiple of 4.
    pub(super) body_bytes: usize,
    /// Words: the last ones of those that there are.
    pub(super) marks: usize,
    /// Whether the check is looked at; tests show what happens without.
    pub(super) checked: bool,
    /// Whether a mark that is set gets its second word.
    pub(super) marks_twice: bool,
}

impl Shape {
    pub(super) const fn new(magic: u8, body_bytes: usize, marks: usize) -> Self {
        assert!(body_bytes.is_multiple_of(4) && marks <= MARKS_MAX);
        Self {
            magic,
            body_bytes,
            marks,
            checked: true,
            marks_twice: true,
        }
    }

    const fn covered_bytes(self) -> usize {
        HEADER_BYTES + self.body_bytes
    }

    pub(super) const fn slot_bytes(self) -> usize {
        self.covered_bytes() + 4 + 4 * self.marks
    }

    /// Whether its slots have this word.
    pub(super) const fn has(self, word: u8) -> bool {
        word as usize >= self.first_mark()
    }

    const fn first_mark(self) -> usize {
        MARKS_MAX - self.marks
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was ever written here.
    Blank,
    /// It says what was written.
    Valid,
    /// Cut while it was written, damaged, or not ours.
    Unreadable,
}

/// What stands in a slot.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) state: State,
    pub(super) lap: u8,
    pub(super) number: u32,
    pub(super) length: u16,
    /// Words of marks, a bit for each, that are blank.
    blank: u8,
    /// Words of marks that have so few ones that they are set.
    set: u8,
    pub(super) flipped: Option<Flipped>,
}

impl Slot {
    /// Whether the mark whose two words begin here is set.
    pub(super) const fn is_marked(&self, word: u8) -> bool {
        let pair = PAIR << word;
        self.set & pair != 0 || self.blank & pair == 0
    }

    /// Whether this word is blank.
    pub(super) const fn is_blank(&self, word: u8) -> bool {
        self.blank & 1 << word != 0
    }

    /// Whether something stands in one of the two words of the mark that begins here.
    pub(super) const fn has_trace(&self, word: u8) -> bool {
        !self.is_blank(word) || !self.is_blank(word + 1)
    }

    /// Whether all words of marks are.
    pub(super) const fn is_unmarked(&self) -> bool {
        self.blank == u8::MAX
    }

    /// Whether its life has ended. Of a slot that can't be read, two words that
    /// are not blank say nothing: they may be as spoiled as the rest.
    pub(super) fn is_done(&self) -> bool {
        match self.state {
            State::Unreadable => self.set & PAIR << DONE != 0,
            State::Valid | State::Blank => self.is_marked(DONE),
        }
    }

    /// What an earlier lap has left: it can't be read, and nobody misses it.
    pub(super) fn make_stale(&mut self) {
        self.state = State::Unreadable;
        self.blank = 0;
        self.set = u8::MAX;
    }
}

/// Whether a slot may stand here, by its first byte: a look that costs less than
/// [`inspect`], which puts one flipped bit right.
pub(super) async fn may_be<F: NorFlash>(
    flash: &mut F,
    at: u32,
    shape: Shape,
) -> Result<bool, F::Error> {
    let mut magic = [0];
    flash.read(at, &mut magic).await?;
    let [magic] = magic;
    Ok((magic ^ shape.magic).count_ones() <= 1)
}

/// Reads a slot and looks at its check.
pub(super) async fn inspect<F: NorFlash>(
    flash: &mut F,
    at: u32,
    shape: Shape,
) -> Result<Slot, F::Error> {
    let mut piece = [0; PIECE_BYTES];
    let mut header = [0; HEADER_BYTES];
    let mut check = Check::new();
    let mut blank = true;
    let mut may_be_ours = false;
    let mut done = 0;
    while done < shape.covered_bytes() {
        let (part, _) = piece.split_at_mut(PIECE_BYTES.min(shape.covered_bytes() - done));
        flash.read(at + done as u32, part).await?;
        if done == 0
            && let Some(first) = part.first_chunk()
        {
            header = *first;
            may_be_ours = (first[0] ^ shape.magic).count_ones() <= 1;
        }
        if may_be_ours {
            check.update(part);
        } else {
            blank &= part.iter().all(|&byte| byte == 0xFF);
        }
        done += part.len();
    }
    let (part, _) = piece.split_at_mut(4 + 4 * shape.marks);
    flash.read(at + done as u32, part).await?;
    let mut words = part.chunks_exact(4).map(|word| {
        word.iter()
            .rev()
            .fold(0, |all, &byte| all << 8 | u32::from(byte))
    });
    let stored = words.next().unwrap_or(BLANK);
    // Words that a shape doesn't have are blank.
    let (mut blank_words, mut set_words) = (u8::MAX, 0);
    for (word, index) in words.zip(shape.first_mark()..) {
        if word != BLANK {
            blank_words &= !(1 << index);
        }
        if word.count_ones() <= ONES_MAX {
            set_words |= 1 << index;
        }
    }

    let difference = stored ^ check.finish();
    let flipped = match difference {
        0 => None,
        _ if !shape.checked || !may_be_ours => None,
        _ => one_flipped(difference, shape.covered_bytes() as u16),
    };
    if let Some(Flipped::Data(bit)) = flipped
        && let Some(byte) = header.get_mut(usize::from(bit / 8))
    {
        *byte ^= 1 << (bit % 8);
    }
    let [magic, lap, low, high, number @ ..] = header;
    let length = u16::from_le_bytes([low, high]);
    let state = if !may_be_ours && blank && stored == BLANK && blank_words == u8::MAX {
        State::Blank
    } else if may_be_ours
        && (difference == 0 || flipped.is_some() || !shape.checked)
        && magic == shape.magic
        && usize::from(length) <= shape.body_bytes
    {
        State::Valid
    } else {
        State::Unreadable
    };
    Ok(Slot {
        state,
        lap,
        number: u32::from_le_bytes(number),
        length,
        blank: blank_words,
        set: set_words,
        flipped,
    })
}

/// Reads the body of a slot that was found valid, from `skip` bytes on; how many
/// there were, at most as many as fit.
pub(super) async fn read_body<F: NorFlash>(
    flash: &mut F,
    at: u32,
    slot: &Slot,
    skip: usize,
    into: &mut [u8],
) -> Result<usize, F::Error> {
    let bytes = usize::from(slot.length)
        .saturating_sub(skip)
        .min(into.len());
    let (into, _) = into.split_at_mut(bytes);
    flash.read(at + (HEADER_BYTES + skip) as u32, into).await?;
    if let Some(Flipped::Data(bit)) = slot.flipped
        && let Some(index) = usize::from(bit / 8).checked_sub(HEADER_BYTES + skip)
        && let Some(byte) = into.get_mut(index)
    {
        *byte ^= 1 << (bit % 8);
    }
    Ok(bytes)
}

/// Writes a slot whose place is blank. What was written counts once it was read
/// back.
pub(super) async fn write<F: NorFlash>(
    flash: &mut F,
    at: u32,
    shape: Shape,
    lap: u8,
    number: u32,
    body: [&[u8]; 2],
) -> Result<(), F::Error> {
    let [first, second] = body;
    let [low, high] = ((first.len() + second.len()) as u16).to_le_bytes();
    let header = [shape.magic, lap, low, high];
    let number = number.to_le_bytes();
    let mut bytes = header
        .iter()
        .chain(&number)
        .chain(first)
        .chain(second)
        .copied();
    let mut check = Check::new();
    let mut piece = [0; PIECE_BYTES];
    let mut done = 0;
    while done < shape.covered_bytes() {
        let (part, _) = piece.split_at_mut(PIECE_BYTES.min(shape.covered_bytes() - done));
        let mut used = 0;
        for (index, byte) in part.iter_mut().enumerate() {
            *byte = match bytes.next() {
                Some(next) => {
                    used = index + 1;
                    next
                }
                None => 0xFF,
            };
        }
        check.update(part);
        let (used, _) = part.split_at(used.next_multiple_of(4).min(part.len()));
        if !used.is_empty() {
            flash.write(at + done as u32, used).await?;
        }
        done += part.len();
    }
    flash
        .write(at + done as u32, &check.finish().to_le_bytes())
        .await
}

/// Sets the mark whose two words begin here, of a slot that was just inspected.
/// A mark that one word sets gets the other one too: power may have been cut in
/// the first, and a word cut half-way may read otherwise next time.
pub(super) async fn set_mark<F: NorFlash>(
    flash: &mut F,
    at: u32,
    shape: Shape,
    slot: &Slot,
    word: u8,
) -> Result<(), F::Error> {
    if slot.is_marked(word) && !shape.marks_twice {
        return Ok(());
    }
    for word in [word, word + 1] {
        if !slot.is_blank(word) {
            continue;
        }
        if set_word(flash, at, shape, word).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Sets one word that is blank; whether it can be relied on.
pub(super) async fn set_word<F: NorFlash>(
    flash: &mut F,
    at: u32,
    shape: Shape,
    word: u8,
) -> Result<bool, F::Error> {
    let before = shape.covered_bytes() + 4 + 4 * (usize::from(word) - shape.first_mark());
    let at = at + before as u32;
    flash.write(at, &[0; 4]).await?;
    let mut read = [0xFF; 4];
    flash.read(at, &mut read).await?;
    Ok(u32::from_le_bytes(read).count_ones() <= ONES_MAX)
}
