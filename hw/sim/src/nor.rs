//! A NOR flash chip in memory, whose power can be cut at any byte.
//!
//! Promises: as strict as the strictest chip: a word is written once between two
//! erases, and one that is not blank stops the test. What a cut leaves is drawn
//! from a seed: some bits of a write or an erase that was under way are done,
//! some not, and some cells are weak: they read otherwise at each start. Never:
//! a byte changed that was not being written or erased.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embedded_storage_async::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

/// Bytes that are written at once, and once.
const WORD_BYTES: usize = 4;

/// Steps of an erase that power can be cut in.
pub const ERASE_STEPS: u64 = 8;

/// One cell in so many of those that a cut leaves undecided is weak.
const WEAK_IN: u8 = 4;

/// A handle to a chip; the chip outlives a terminal that is switched off.
pub struct Nor<const PAGE: usize = 4096> {
    chip: Arc<Mutex<Chip>>,
}

/// What a cut does to the operation that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// What was done before the cut is done, nothing after.
    Clean,
    /// All that the operation still had to do may be done in part, cell by cell.
    Ragged,
}

/// Why the chip didn't answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NorError {
    /// Its power is cut; [`Nor::power_up`] ends that.
    PowerCut,
    /// Refused, as asked for by [`Nor::fail_once`].
    Refused,
    /// Not at a word's or page's edge.
    NotAligned,
    /// Beyond the end.
    OutOfBounds,
}

impl NorFlashError for NorError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::PowerCut | Self::Refused => NorFlashErrorKind::Other,
            Self::NotAligned => NorFlashErrorKind::NotAligned,
            Self::OutOfBounds => NorFlashErrorKind::OutOfBounds,
        }
    }
}

#[derive(Clone)]
struct Chip {
    cells: Vec<u8>,
    wear: Vec<u32>,
    /// Offset, and which of its bits read as they like.
    weak: Vec<(usize, u8)>,
    /// Cells that take nothing any more.
    worn: Range<usize>,
    steps: u64,
    read_bytes: u64,
    cut: Option<Cut>,
    refuse: bool,
    is_on: bool,
    draw: fastrand::Rng,
}

#[derive(Clone, Copy)]
struct Cut {
    at: Moment,
    tear: Tear,
}

#[derive(Clone, Copy)]
enum Moment {
    AtStep(u64),
    InErase { erases: u32, steps: u64 },
}

impl<const PAGE: usize> Nor<PAGE> {
    /// A blank chip.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self::holding(vec![0xFF; bytes])
    }

    /// A chip that holds this, whole pages of it.
    #[must_use]
    pub fn holding(cells: Vec<u8>) -> Self {
        Self::of(Chip {
            wear: vec![0; cells.len() / PAGE],
            cells,
            weak: Vec::new(),
            worn: 0..0,
            steps: 0,
            read_bytes: 0,
            cut: None,
            refuse: false,
            is_on: true,
            draw: fastrand::Rng::with_seed(0),
        })
    }

    fn of(chip: Chip) -> Self {
        Self {
            chip: Arc::new(Mutex::new(chip)),
        }
    }

    /// Another handle to this chip.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self {
            chip: Arc::clone(&self.chip),
        }
    }

    /// Another chip in the same state.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::of(self.chip().clone())
    }

    /// Cuts the power once so many steps more are done; a byte written is one, an
    /// erase has [`ERASE_STEPS`]. What the cut leaves is drawn from the seed.
    pub fn cut_after(&self, steps: u64, tear: Tear, seed: u64) {
        let mut chip = self.chip();
        let at = chip.steps + steps;
        chip.cut = Some(Cut {
            at: Moment::AtStep(at),
            tear,
        });
        chip.draw = fastrand::Rng::with_seed(seed);
    }

    /// Cuts the power in the middle of an erase, once so many others are done.
    pub fn cut_in_erase(&self, erases: u32, tear: Tear, seed: u64) {
        let mut chip = self.chip();
        chip.draw = fastrand::Rng::with_seed(seed);
        let steps = chip.draw.u64(..ERASE_STEPS);
        chip.cut = Some(Cut {
            at: Moment::InErase { erases, steps },
            tear,
        });
    }

    /// Cuts the power between two operations.
    pub fn cut_now(&self) {
        self.chip().is_on = false;
    }

    /// Gives power again, and takes back a cut that was not reached. Weak cells
    /// decide what to read as.
    pub fn power_up(&self) {
        let chip = &mut *self.chip();
        chip.is_on = true;
        chip.cut = None;
        for &(at, mask) in &chip.weak {
            chip.cells[at] = chip.cells[at] & !mask | chip.draw.u8(..) & mask;
        }
    }

    /// Whether power is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        !self.chip().is_on
    }

    /// Refuses the next write or erase, with nothing done.
    pub fn fail_once(&self) {
        self.chip().refuse = true;
    }

    /// Steps done since the chip was made.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.chip().steps
    }

    /// Bytes read since the chip was made.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.chip().read_bytes
    }

    /// How often each page was erased.
    #[must_use]
    pub fn wear(&self) -> Vec<u32> {
        self.chip().wear.clone()
    }

    /// What the chip reads as.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.chip().cells.clone()
    }

    /// Flips a bit, counted from the first byte's lowest.
    pub fn flip(&self, bit: usize) {
        self.chip().cells[bit / 8] ^= 1 << (bit % 8);
    }

    /// Puts these bytes there, whatever was there.
    pub fn overwrite(&self, at: usize, bytes: &[u8]) {
        self.chip().cells[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// From now on writes in this range change nothing.
    pub fn wear_out(&self, range: Range<usize>) {
        self.chip().worn = range;
    }

    /// A lock that a failed test left is still good to read.
    fn chip(&self) -> MutexGuard<'_, Chip> {
        self.chip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chip {
    fn check(&self, from: u32, to: u32, edge: usize) -> Result<Range<usize>, NorError> {
        let (from, to) = (from as usize, to as usize);
        if !self.is_on {
            Err(NorError::PowerCut)
        } else if from > to || to > self.cells.len() {
            Err(NorError::OutOfBounds)
        } else if !from.is_multiple_of(edge) || !to.is_multiple_of(edge) {
            Err(NorError::NotAligned)
        } else {
            Ok(from..to)
        }
    }

    /// How many of these steps are done before the power is cut, if it is.
    fn cut_within(&self, steps: u64) -> Option<(u64, Tear)> {
        let Some(Cut {
            at: Moment::AtStep(at),
            tear,
        }) = self.cut
        else {
            return None;
        };
        let left = at.saturating_sub(self.steps);
        (left < steps).then_some((left, tear))
    }

    /// As [`Self::cut_within`], for an erase.
    fn cut_within_erase(&mut self) -> Option<(u64, Tear)> {
        match &mut self.cut {
            Some(Cut {
                at: Moment::InErase { erases: 0, steps },
                tear,
            }) => Some((*steps, *tear)),
            Some(Cut {
                at: Moment::InErase { erases, .. },
                ..
            }) => {
                *erases -= 1;
                None
            }
            _ => self.cut_within(ERASE_STEPS),
        }
    }

    /// Some cells of each of these bytes go over to what they should become. The
    /// range falls into a few parts that have come to a different point: not at
    /// all, half-way, all but done.
    fn tear(&mut self, range: Range<usize>, becomes: impl Fn(usize) -> u8) {
        let mut progress = 0;
        let mut part_end = range.start;
        for at in range.clone() {
            if at == part_end {
                part_end = self.draw.usize(at + 1..=range.end);
                progress = match self.draw.u8(..3) {
                    0 => 0,
                    1 => u8::MAX,
                    _ => self.draw.u8(..),
                };
            }
            let undecided = self.cells[at] ^ becomes(at);
            if undecided == 0 {
                continue;
            }
            let mut over = 0;
            let mut weak = 0;
            for bit in 0..8 {
                over |= u8::from(self.draw.u8(..u8::MAX) < progress) << bit;
                weak |= u8::from(self.draw.u8(..WEAK_IN) == 0) << bit;
            }
            self.cells[at] ^= undecided & over;
            // Cells that have not begun, or are done, are what they were drawn as.
            if (1..u8::MAX).contains(&progress) && undecided & weak != 0 {
                self.weak.push((at, undecided & weak));
            }
        }
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), NorError> {
        let range = self.check(at, at + bytes.len() as u32, WORD_BYTES)?;
        if std::mem::take(&mut self.refuse) {
            return Err(NorError::Refused);
        }
        for (word, new) in range.clone().step_by(WORD_BYTES).zip(bytes.chunks(4)) {
            let is_blank = self.cells[word..word + WORD_BYTES] == [0xFF; WORD_BYTES];
            assert!(
                is_blank || new == [0xFF; WORD_BYTES],
                "the word at {word:#x} is written, and is not blank"
            );
        }
        if range.start >= self.worn.start && range.end <= self.worn.end {
            return Ok(());
        }
        let cut = self.cut_within(bytes.len() as u64);
        let done = cut.map_or(bytes.len(), |(done, _)| done as usize);
        for (at, &byte) in range.clone().zip(bytes).take(done) {
            self.cells[at] &= byte;
        }
        // A cell that is written is no longer weak.
        if !self.weak.is_empty() {
            for (at, mask) in &mut self.weak {
                if (range.start..range.start + done).contains(at) {
                    *mask &= bytes[*at - range.start];
                }
            }
            self.weak.retain(|&(_, mask)| mask != 0);
        }
        self.steps += done as u64;
        match cut {
            None => Ok(()),
            Some((_, tear)) => {
                self.is_on = false;
                if tear == Tear::Ragged {
                    let start = range.start;
                    self.tear(start + done..range.end, |at| bytes[at - start]);
                }
                Err(NorError::PowerCut)
            }
        }
    }

    fn erase(&mut self, from: u32, to: u32, page: usize) -> Result<(), NorError> {
        let range = self.check(from, to, page)?;
        if std::mem::take(&mut self.refuse) {
            return Err(NorError::Refused);
        }
        for start in range.step_by(page) {
            self.wear[start / page] += 1;
            let cut = self.cut_within_erase();
            let steps = cut.map_or(ERASE_STEPS, |(steps, _)| steps);
            let end = start + page;
            self.steps += steps;
            match cut {
                None => {
                    self.cells[start..end].fill(0xFF);
                    self.weak.retain(|(at, _)| !(start..end).contains(at));
                }
                Some((_, Tear::Clean)) => {
                    let done = start + page * steps as usize / ERASE_STEPS as usize;
                    self.cells[start..done].fill(0xFF);
                    self.weak.retain(|(at, _)| !(start..done).contains(at));
                }
                Some((_, Tear::Ragged)) => self.tear(start..end, |_| 0xFF),
            }
            if cut.is_some() {
                self.is_on = false;
                return Err(NorError::PowerCut);
            }
        }
        Ok(())
    }
}

impl<const PAGE: usize> ErrorType for Nor<PAGE> {
    type Error = NorError;
}

impl<const PAGE: usize> ReadNorFlash for Nor<PAGE> {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorError> {
        let mut chip = self.chip();
        let range = chip.check(offset, offset + bytes.len() as u32, 1)?;
        bytes.copy_from_slice(&chip.cells[range]);
        chip.read_bytes += bytes.len() as u64;
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.chip().cells.len()
    }
}

impl<const PAGE: usize> NorFlash for Nor<PAGE> {
    const WRITE_SIZE: usize = WORD_BYTES;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorError> {
        self.chip().erase(from, to, PAGE)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorError> {
        self.chip().write(offset, bytes)
    }
}
