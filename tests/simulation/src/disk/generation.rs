//! A file that is only ever appended to, on a disk that tears and forgets.
//!
//! Promises: what a successful sync covered is there whatever is cut; what it did
//! not cover may be there, sector by sector of 512 bytes, in any combination
//! (a disk's cache writes in its own order); pages whose sync failed count as clean
//! and are never written again by a later one (Linux since 4.13: fsync(2), "a
//! subsequent fsync may report success"; Rebello et al., "Can Applications Recover
//! from fsync Failures?", USENIX ATC 2020). Never: a byte that was not written,
//! but for zeros where a hole is left.

use std::ops::Range;

/// What a disk writes whole or not at all, bytes.
pub const SECTOR_BYTES: usize = 512;

/// See the head of the file.
#[derive(Debug, Clone, Default)]
pub struct AppendedFile {
    /// As the running system sees it: the page cache.
    bytes: Vec<u8>,
    /// Below, every page is clean.
    clean: usize,
    /// Pages that are clean, and were never written: their sync failed.
    lost: Vec<Range<usize>>,
}

impl AppendedFile {
    /// What a reader of the running system sees.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends; nothing is durable by that.
    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A sync that succeeds: what it brought to the disk.
    pub fn sync(&mut self) -> Range<usize> {
        let from = std::mem::replace(&mut self.clean, self.bytes.len());
        from..self.bytes.len()
    }

    /// A sync that fails: the pages are clean now, and may never be written.
    pub fn fail_sync(&mut self) {
        if self.clean < self.bytes.len() {
            self.lost.push(self.clean..self.bytes.len());
            self.clean = self.bytes.len();
        }
    }

    /// Written anew into another file that is synced, as the running system sees
    /// it.
    pub fn rewrite(&mut self) {
        self.clean = self.bytes.len();
        self.lost.clear();
    }

    /// Synced, and read from the disk itself: pages that were never written show
    /// what the disk has.
    pub fn reread(&mut self, rng: &mut fastrand::Rng) {
        for lost in std::mem::take(&mut self.lost) {
            for sector in sectors(&lost) {
                if rng.bool() {
                    self.bytes[sector].fill(0);
                }
            }
        }
        self.clean = self.bytes.len();
    }

    /// Whether these bytes would be there after a cut now, whatever it drops.
    #[must_use]
    pub fn is_durable(&self, range: &Range<usize>) -> bool {
        range.end <= self.clean
            && self
                .lost
                .iter()
                .all(|lost| lost.end <= range.start || range.end <= lost.start)
    }

    /// The power goes: what no sync covered survives as the disk pleases. Returns
    /// whether anything was torn or dropped.
    pub fn cut(&mut self, rng: &mut fastrand::Rng) -> bool {
        let mut doubtful = std::mem::take(&mut self.lost);
        if self.clean < self.bytes.len() {
            doubtful.push(self.clean..self.bytes.len());
        }
        let mut torn = false;
        for range in doubtful.into_iter().rev() {
            torn |= self.tear(range, rng);
        }
        self.clean = self.bytes.len();
        torn
    }

    fn tear(&mut self, range: Range<usize>, rng: &mut fastrand::Rng) -> bool {
        let mode = rng.u8(0..4);
        let is_tail = range.end == self.bytes.len();
        let sectors: Vec<Range<usize>> = sectors(&range).collect();
        match mode {
            0 if is_tail => self.bytes.truncate(range.start),
            0 => self.bytes[range].fill(0),
            1 => return false,
            2 => {
                let kept = rng.usize(0..=sectors.len());
                for sector in &sectors[kept..] {
                    self.bytes[sector.clone()].fill(0);
                }
                if is_tail && let Some(first) = sectors.get(kept) {
                    self.bytes.truncate(first.start);
                }
            }
            _ => {
                for sector in sectors {
                    if rng.bool() {
                        self.bytes[sector].fill(0);
                    }
                }
            }
        }
        true
    }

    /// Damage: one bit is another, for ever.
    pub fn flip(&mut self, at: usize, bit: u8) {
        if let Some(byte) = self.bytes.get_mut(at) {
            *byte ^= 1 << (bit & 7);
        }
    }
}

/// The sectors that a range touches, cut to it.
fn sectors(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let (start, end) = (range.start, range.end);
    (start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)).map(move |sector| {
        (sector * SECTOR_BYTES).max(start)..((sector + 1) * SECTOR_BYTES).min(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_every_cut_and_the_rest_only_some() {
        let (mut kept_all, mut dropped_all, mut torn) = (0, 0, 0);
        for seed in 0..500 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut file = AppendedFile::default();
            let synced = vec![1; rng.usize(1..3_000)];
            file.write(&synced);
            file.sync();
            let rest = vec![2; rng.usize(1..3_000)];
            file.write(&rest);
            file.cut(&mut rng);
            assert_eq!(&file.bytes()[..synced.len()], &synced[..], "seed {seed}");
            match file.bytes()[synced.len()..]
                .iter()
                .filter(|b| **b == 2)
                .count()
            {
                0 => dropped_all += 1,
                n if n == rest.len() => kept_all += 1,
                _ => torn += 1,
            }
        }
        assert!(kept_all > 50 && dropped_all > 50 && torn > 50);
    }

    #[test]
    fn a_sync_after_a_failed_one_brings_nothing_back() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut file = AppendedFile::default();
            file.write(&[2; 600]);
            file.fail_sync();
            file.sync();
            assert!(!file.is_durable(&(0..600)));
            file.cut(&mut rng);
            lost += usize::from(file.bytes().iter().filter(|b| **b == 2).count() < 600);
        }
        assert!(lost > 50);
    }
}
