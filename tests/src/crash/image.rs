//! The crash model: which directories can a power cut leave?
//!
//! After [1] and [2] (abstract persistence models), for a cut after the first
//! `at` operations of a recording:
//!
//! | what | survives |
//! | --- | --- |
//! | write, size change | surely, if issued before an fsync or fdatasync of that file began which ended before the cut |
//! | each other write | all, none, or any of its 512-byte sectors, independent of every other write: so in any order |
//! | each other size change | or not; a file may also have its new size with zeros for data |
//! | writes before a *failed* sync | as un-synced for ever: the kernel drops such pages and a later sync succeeds without them [3] |
//! | create, mkdir, rename, unlink, rmdir | surely, if issued before a sync of the (new) parent directory began which ended before the cut |
//! | the same, [`Names::Journaled`] | also by a sync of the named file itself; and no later name survives without all earlier ones (ext4, XFS) |
//! | each other name operation | or not, independent of the others ([`Names::Strict`]) or a random prefix ([`Names::Journaled`]); a rename is atomic |
//! | `sync_file_range`, close, flush | nothing: no journal commit, no flush of the disk's cache |
//!
//! Not modelled: a sector torn in itself, old garbage of other files in a hole,
//! misdirected or corrupted sectors (bit flips have their own tests).
//!
//! [1] Pillai et al., "All File Systems Are Not Created Equal: On the
//! Complexity of Crafting Crash-Consistent Applications" (ALICE), OSDI 2014.
//! [2] Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box
//! Crash Testing" (CrashMonkey, ACE), OSDI 2018.
//! [3] Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020.

use super::recording::{Entry, NodeId, Op, Recording};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;

const SECTOR_BYTES: usize = 512;

/// What happens to writes that no sync covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// None reached the disk.
    Dropped,
    /// All did (as after a kill).
    Kept,
    /// A random subset of their sectors did.
    Torn,
}

/// What makes a name durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Only a sync of its directory (POSIX to the letter).
    Strict,
    /// Also a sync of the file itself, and in order (ext4-like).
    Journaled,
}

/// A power cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// After how many operations of the recording.
    pub at: usize,
    /// Fate of un-synced writes.
    pub unsynced: Unsynced,
    /// Fate of names.
    pub names: Names,
    /// Every random choice follows from it.
    pub seed: u64,
}

/// How one file's un-synced operations fare under [`Unsynced::Torn`]; one
/// manner a file and cut finds more than an even coin for each sector.
#[derive(Clone, Copy)]
enum Manner {
    All,
    None,
    Sectors,
    Writes,
    Size,
}

impl Cut {
    /// `count` cuts through a recording, sorted, every policy in turn; where
    /// they are as [`Recording::cuts`] has it.
    #[must_use]
    pub fn through(recording: &Recording, count: usize, seed: u64) -> Vec<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let at = recording.cuts(&mut random, count);
        at.into_iter()
            .map(|at| Self {
                at,
                unsynced: match random.u8(..8) {
                    0 | 1 => Unsynced::Dropped,
                    2 => Unsynced::Kept,
                    _ => Unsynced::Torn,
                },
                names: if random.bool() {
                    Names::Strict
                } else {
                    Names::Journaled
                },
                seed: random.u64(..),
            })
            .collect()
    }

    /// Makes the directory that this cut leaves, in `into` (created; must be
    /// empty). The witness file is in no image.
    ///
    /// # Errors
    /// The image can't be written.
    pub fn build(&self, recording: &Recording, into: &Path) -> io::Result<()> {
        self.image(recording).write(into)
    }

    /// The directory that this cut leaves, in memory.
    #[must_use]
    pub fn image<'a>(&self, recording: &'a Recording) -> Image<'a> {
        let ops = &recording.ops()[..self.at];
        let durable = self.durable(recording);
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut names: BTreeMap<Entry, NodeId> = BTreeMap::new();
        let mut files: HashMap<NodeId, Vec<u8>> = HashMap::new();
        let mut sizes: HashMap<NodeId, usize> = HashMap::new();
        let mut manners: HashMap<NodeId, Manner> = HashMap::new();
        let mut journal_goes_on = true;

        for (n, op) in ops.iter().enumerate() {
            match op {
                Op::Create(..) | Op::Rename(..) | Op::Remove(..) => {
                    let kept = durable[n]
                        || match (self.unsynced, self.names) {
                            (Unsynced::Dropped, _) => false,
                            (Unsynced::Kept, _) => true,
                            (Unsynced::Torn, Names::Strict) => random.bool(),
                            (Unsynced::Torn, Names::Journaled) => {
                                journal_goes_on &= random.u8(..4) != 0;
                                journal_goes_on
                            }
                        };
                    if kept {
                        apply_name(&mut names, op);
                    }
                }
                Op::Write(node, at, range) => {
                    let (at, bytes) = (*at as usize, recording.bytes(range));
                    let size = sizes.entry(*node).or_default();
                    *size = (*size).max(at + bytes.len());
                    let file = files.entry(*node).or_default();
                    let manner = match self.unsynced {
                        _ if durable[n] => Manner::All,
                        Unsynced::Kept => Manner::All,
                        Unsynced::Dropped => Manner::None,
                        Unsynced::Torn => *manners
                            .entry(*node)
                            .or_insert_with(|| Manner::any(&mut random)),
                    };
                    match manner {
                        Manner::All => patch(file, at, bytes),
                        Manner::None | Manner::Size => {}
                        Manner::Writes => {
                            if random.bool() {
                                patch(file, at, bytes);
                            }
                        }
                        Manner::Sectors => {
                            for (at, sector) in sectors(at, bytes) {
                                if random.bool() {
                                    patch(file, at, sector);
                                }
                            }
                        }
                    }
                }
                Op::SetLen(node, len) => {
                    sizes.insert(*node, *len as usize);
                    let kept = durable[n]
                        || match self.unsynced {
                            Unsynced::Kept => true,
                            Unsynced::Dropped => false,
                            Unsynced::Torn => random.bool(),
                        };
                    if kept {
                        files.entry(*node).or_default().resize(*len as usize, 0);
                    }
                }
                Op::SyncBegin(_) | Op::SyncEnd(..) | Op::SyncFail(..) => {}
            }
        }
        for (node, manner) in manners {
            if let (Manner::Size, Some(size)) = (manner, sizes.get(&node)) {
                let file = files.entry(node).or_default();
                file.resize(file.len().max(*size), 0);
            }
        }
        Image {
            recording,
            names,
            files,
        }
    }

    /// For each operation before the cut: was it surely on the disk?
    fn durable(&self, recording: &Recording) -> Vec<bool> {
        let ops = &recording.ops()[..self.at];
        let mut durable = vec![false; ops.len()];
        // Per node what its next sync makes durable, oldest first.
        let mut waiting: HashMap<NodeId, Vec<usize>> = HashMap::new();
        let mut name_ops = Vec::new();
        for (n, op) in ops.iter().enumerate() {
            match op {
                Op::Write(node, ..) | Op::SetLen(node, _) => {
                    waiting.entry(*node).or_default().push(n);
                }
                Op::Create(_, at) | Op::Remove(at) | Op::Rename(_, _, at) => {
                    waiting.entry(at.dir).or_default().push(n);
                    name_ops.push(n);
                }
                Op::SyncBegin(_) => {}
                Op::SyncEnd(node, begin) => {
                    let list = waiting.entry(*node).or_default();
                    let covered = list.partition_point(|op| op < begin);
                    let mut last_name = None;
                    for op in list.drain(..covered) {
                        durable[op] = true;
                        if recording.is_dir(*node) {
                            last_name = Some(op);
                        }
                    }
                    if self.names == Names::Journaled {
                        let own = name_ops.iter().rev().copied().find(|&op| {
                            op < *begin
                                && matches!(&ops[op], Op::Create(of, _) | Op::Rename(of, ..) if of == node)
                        });
                        let last = last_name.max(own);
                        for &op in name_ops.iter().take_while(|&&op| Some(op) <= last) {
                            durable[op] = true;
                        }
                    }
                }
                Op::SyncFail(node, begin) => {
                    if !recording.is_dir(*node)
                        && let Some(list) = waiting.get_mut(node)
                    {
                        list.drain(..list.partition_point(|op| op < begin));
                    }
                }
            }
        }
        durable
    }
}

impl Manner {
    fn any(random: &mut fastrand::Rng) -> Self {
        match random.u8(..8) {
            0 => Self::All,
            1 => Self::None,
            2 => Self::Size,
            3 | 4 => Self::Writes,
            _ => Self::Sectors,
        }
    }
}

fn apply_name(names: &mut BTreeMap<Entry, NodeId>, op: &Op) {
    match op {
        Op::Create(node, at) => {
            names.insert(at.clone(), *node);
        }
        Op::Rename(node, from, to) => {
            // The old name may be another file's by now, in another order.
            if names.get(from) == Some(node) {
                names.remove(from);
            }
            names.insert(to.clone(), *node);
        }
        Op::Remove(at) => {
            names.remove(at);
        }
        _ => {}
    }
}

fn patch(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

/// `bytes` written at `at`, cut at the file's sector boundaries.
fn sectors(at: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR_BYTES - at % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    std::iter::once((at, head)).chain(
        rest.chunks(SECTOR_BYTES)
            .enumerate()
            .map(move |(n, sector)| (at + first + n * SECTOR_BYTES, sector)),
    )
}

/// What a power cut left.
#[derive(Debug)]
pub struct Image<'a> {
    recording: &'a Recording,
    names: BTreeMap<Entry, NodeId>,
    files: HashMap<NodeId, Vec<u8>>,
}

impl Image<'_> {
    /// Writes it to a directory (created; must be empty).
    ///
    /// # Errors
    /// The image can't be written.
    pub fn write(&self, into: &Path) -> io::Result<()> {
        fs::create_dir_all(into)?;
        self.walk(0, into, &mut |path, content| match content {
            None => fs::create_dir(path),
            Some(bytes) => fs::write(path, bytes),
        })
    }

    /// Two images of one recording with the same digest are the same: it is
    /// looked at once.
    #[must_use]
    pub fn digest(&self) -> u32 {
        let mut digest = 0;
        let mut add = |path: &Path, content: Option<&[u8]>| {
            let length = content.map_or(u64::MAX, |bytes| bytes.len() as u64);
            digest = crc32c::crc32c_append(digest, path.as_os_str().as_encoded_bytes());
            digest = crc32c::crc32c_append(digest, &length.to_be_bytes());
            digest = crc32c::crc32c_append(digest, content.unwrap_or_default());
            Ok(())
        };
        self.walk(0, Path::new(""), &mut add)
            .expect("adding to a digest never fails");
        digest
    }

    /// Shows directories (without content) and files, parents first.
    fn walk(&self, dir: NodeId, at: &Path, show: &mut Show<'_>) -> io::Result<()> {
        let first = Entry {
            dir,
            name: "".into(),
        };
        for (entry, node) in self.names.range(first..).take_while(|(e, _)| e.dir == dir) {
            let path = at.join(&entry.name);
            if self.recording.is_dir(*node) {
                show(&path, None)?;
                self.walk(*node, &path, show)?;
            } else if !self.recording.is_witness(*node) {
                let bytes = self.files.get(node).map_or(&[][..], Vec::as_slice);
                show(&path, Some(bytes))?;
            }
        }
        Ok(())
    }
}

type Show<'a> = dyn FnMut(&Path, Option<&[u8]>) -> io::Result<()> + 'a;
