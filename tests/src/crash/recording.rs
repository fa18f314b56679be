//! A log of file operations, as `crash/shim.c` wrote it (format there).
//!
//! Inode numbers are turned into nodes that are never reused, and paths into
//! (directory, name), so that a rename of a directory confuses nothing. A log
//! that holds an operation which can't be replayed is refused, never guessed.
//! An operation that the last process was killed in is not in the log.

use super::Snapshot;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A file or directory for as long as it existed; 0 is the root.
pub type NodeId = usize;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    /// The directory.
    pub dir: NodeId,
    /// The name in it.
    pub name: OsString,
}

/// One operation.
#[derive(Debug, Clone)]
pub enum Op {
    /// A new file or directory got a name.
    Create(NodeId, Entry),
    /// Renamed; what stood under the new name before is gone.
    Rename(NodeId, Entry, Entry),
    /// A name was removed (file or directory).
    Remove(Entry),
    /// Bytes ([`Recording::bytes`]) were written at an offset.
    Write(NodeId, u64, Range<usize>),
    /// The file now has this size.
    SetLen(NodeId, u64),
    /// A sync of file or directory was asked for.
    SyncBegin(NodeId),
    /// The sync whose [`Op::SyncBegin`] has this number succeeded.
    SyncEnd(NodeId, usize),
    /// The sync whose [`Op::SyncBegin`] has this number failed.
    SyncFail(NodeId, usize),
}

/// Every file operation of a run, in order.
#[derive(Debug)]
pub struct Recording {
    ops: Vec<Op>,
    log: Vec<u8>,
    witness: Option<NodeId>,
    is_dir: Vec<bool>,
    base: usize,
}

impl Recording {
    /// Loads a log whose run began in the state `before` (default: empty).
    /// `witness` is the path given to [`super::Shim::witness`].
    ///
    /// # Errors
    /// The log can't be read, is cut short, or holds an operation that can't be
    /// replayed.
    pub fn load(log: &Path, before: &Snapshot, witness: &str) -> io::Result<Self> {
        let mut loader = Loader {
            nodes: HashMap::from([(before.root_ino, 0)]),
            paths: HashMap::from([(PathBuf::new(), 0)]),
            syncs: HashMap::new(),
            recording: Self {
                ops: Vec::new(),
                log: committed(log)?,
                witness: None,
                is_dir: vec![true],
                base: 0,
            },
        };
        let logged = loader.recording.log.len();
        loader.base(before, Path::new(witness));
        let mut at = HEAD_BYTES;
        while let Some(raw) = Raw::parse(&loader.recording.log[..logged], at)? {
            at = raw.data.end;
            loader.take(&raw)?;
            if raw.kind == CREATE && raw.a == Path::new(witness) {
                loader.recording.witness = loader.recording.is_dir.len().checked_sub(1);
            }
        }
        Ok(loader.recording)
    }

    /// The operations; a cut at `n` comes after `ops()[..n]` were issued.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The first operation of the run itself (before it: the snapshot).
    #[must_use]
    pub fn base(&self) -> usize {
        self.base
    }

    /// The bytes of an [`Op::Write`].
    #[must_use]
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.log[range.clone()]
    }

    /// Whether a node is a directory.
    #[must_use]
    pub fn is_dir(&self, node: NodeId) -> bool {
        self.is_dir[node]
    }

    /// Whether a node is the witness file.
    #[must_use]
    pub fn is_witness(&self, node: NodeId) -> bool {
        self.witness == Some(node)
    }

    /// What the outside world had been told before operation `cut`.
    #[must_use]
    pub fn witnessed(&self, cut: usize) -> Vec<u8> {
        let mut told = Vec::new();
        for op in &self.ops[..cut] {
            if let Op::Write(node, _, range) = op
                && self.is_witness(*node)
            {
                told.extend_from_slice(self.bytes(range));
            }
        }
        told
    }

    /// How many files and directories were made in a directory of this name.
    #[must_use]
    pub fn made_in(&self, directory: &str) -> usize {
        let mut directories = Vec::new();
        let mut made = 0;
        for op in &self.ops {
            if let Op::Create(node, entry) = op {
                made += usize::from(directories.contains(&entry.dir));
                if entry.name == directory {
                    directories.push(*node);
                }
            }
        }
        made
    }

    /// `count` places to cut, sorted: a third anywhere, a third right after
    /// something was told to the outside world, a third around syncs, renames,
    /// creations and removals, where stores go wrong.
    #[must_use]
    pub fn cuts(&self, random: &mut fastrand::Rng, count: usize) -> Vec<usize> {
        let (mut told, mut edges) = (Vec::new(), Vec::new());
        for (n, op) in self.ops.iter().enumerate().skip(self.base) {
            match op {
                Op::Write(node, ..) if self.is_witness(*node) => told.push(n + 1),
                Op::Write(..) | Op::SyncBegin(_) => {}
                _ => edges.extend([n, n + 1]),
            }
        }
        let mut cuts: Vec<usize> = (0..count)
            .map(|n| {
                let pool = [&[][..], &told, &edges][n % 3];
                if pool.is_empty() {
                    random.usize(self.base..=self.ops.len())
                } else {
                    pool[random.usize(..pool.len())]
                }
            })
            .collect();
        cuts.sort_unstable();
        cuts
    }
}

const MAGIC: &[u8] = b"RSL2\x02\0\0\0";
const HEAD_BYTES: usize = 16_384;

/// The log up to where its writer last finished an entry.
fn committed(path: &Path) -> io::Result<Vec<u8>> {
    let mut log = fs::read(path)?;
    let end = log
        .get(8..16)
        .and_then(|end| end.try_into().ok())
        .map(u64::from_le_bytes)
        .and_then(|end| usize::try_from(end).ok())
        .filter(|end| log.starts_with(MAGIC) && (HEAD_BYTES..=log.len()).contains(end))
        .ok_or_else(|| {
            io::Error::other(format!("{}: no whole log of version 2", path.display()))
        })?;
    log.truncate(end);
    Ok(log)
}

const CREATE: u32 = 1;

/// An entry of the log.
struct Raw {
    kind: u32,
    ino: u64,
    offset: u64,
    a: PathBuf,
    b: PathBuf,
    data: Range<usize>,
}

impl Raw {
    /// The entry at `at`; `None` at the end.
    fn parse(log: &[u8], at: usize) -> io::Result<Option<Self>> {
        if at == log.len() {
            return Ok(None);
        }
        let torn = || io::Error::other(format!("no log entry at byte {at}"));
        let head = log.get(at..at + 40).ok_or_else(torn)?;
        let word = |n: usize| u32::from_le_bytes(head[n..n + 4].try_into().expect("4 bytes"));
        let long = |n: usize| u64::from_le_bytes(head[n..n + 8].try_into().expect("8 bytes"));
        if word(0) != 0x3148_5352 {
            return Err(torn());
        }
        let a = at + 40;
        let b = a + word(32) as usize;
        let data = b + word(36) as usize;
        let end = data + long(24) as usize;
        if end > log.len() {
            return Err(torn());
        }
        let path = |r: Range<usize>| PathBuf::from(OsString::from_vec(log[r].to_vec()));
        Ok(Some(Self {
            kind: word(4),
            ino: long(8),
            offset: long(16),
            a: path(a..b),
            b: path(b..data),
            data: data..end,
        }))
    }
}

struct Loader {
    /// By inode number, as of now.
    nodes: HashMap<u64, NodeId>,
    /// By path, as of now.
    paths: HashMap<PathBuf, NodeId>,
    /// Syncs under way. Two of one node: the first to end is taken for the
    /// first that began, which promises less.
    syncs: HashMap<NodeId, VecDeque<usize>>,
    recording: Recording,
}

impl Loader {
    fn base(&mut self, before: &Snapshot, witness: &Path) {
        for (path, ino, bytes) in &before.nodes {
            let node = self.create(*ino, path, bytes.is_none());
            if path == witness {
                self.recording.witness = Some(node);
            }
            if let Some(bytes) = bytes {
                let start = self.recording.log.len();
                self.recording.log.extend_from_slice(bytes);
                let range = start..start + bytes.len();
                self.recording.ops.push(Op::Write(node, 0, range));
            }
        }
        for node in 0..self.recording.is_dir.len() {
            let begin = self.recording.ops.len();
            self.recording.ops.push(Op::SyncBegin(node));
            self.recording.ops.push(Op::SyncEnd(node, begin));
        }
        self.recording.base = self.recording.ops.len();
    }

    fn create(&mut self, ino: u64, path: &Path, is_dir: bool) -> NodeId {
        let node = self.recording.is_dir.len();
        self.recording.is_dir.push(is_dir);
        self.nodes.insert(ino, node);
        let entry = self.entry(path);
        self.paths.insert(path.to_owned(), node);
        self.recording.ops.push(Op::Create(node, entry));
        node
    }

    fn entry(&self, path: &Path) -> Entry {
        let parent = path.parent().unwrap_or(Path::new(""));
        Entry {
            dir: *self.paths.get(parent).unwrap_or(&0),
            name: path.file_name().unwrap_or_default().to_owned(),
        }
    }

    fn take(&mut self, raw: &Raw) -> io::Result<()> {
        let unknown = || {
            io::Error::other(format!(
                "operation {} on inode {} {:?}, which the recording never saw created",
                raw.kind, raw.ino, raw.a
            ))
        };
        let node = || self.nodes.get(&raw.ino).copied().ok_or_else(unknown);
        let number = self.recording.ops.len();
        let op = match raw.kind {
            CREATE | 2 => {
                self.create(raw.ino, &raw.a, raw.kind == 2);
                return Ok(());
            }
            3 => {
                let node = *self.paths.get(&raw.a).ok_or_else(unknown)?;
                let op = Op::Rename(node, self.entry(&raw.a), self.entry(&raw.b));
                self.rename(&raw.a, &raw.b);
                op
            }
            4 | 5 => {
                let op = Op::Remove(self.entry(&raw.a));
                self.paths.remove(&raw.a).ok_or_else(unknown)?;
                op
            }
            6 => Op::Write(node()?, raw.offset, raw.data.clone()),
            7 => Op::SetLen(node()?, raw.offset),
            8 => {
                let node = node()?;
                self.syncs.entry(node).or_default().push_back(number);
                Op::SyncBegin(node)
            }
            9 | 10 => {
                let node = node()?;
                let begun = self.syncs.get_mut(&node).and_then(VecDeque::pop_front);
                let begin = begun.ok_or_else(unknown)?;
                if raw.kind == 9 {
                    Op::SyncEnd(node, begin)
                } else {
                    Op::SyncFail(node, begin)
                }
            }
            // A process began: its syncs under way died with the one before.
            12 => {
                self.nodes.insert(raw.ino, 0);
                self.syncs.clear();
                return Ok(());
            }
            _ => {
                let what = String::from_utf8_lossy(raw.a.as_os_str().as_bytes()).into_owned();
                return Err(io::Error::other(format!("can't be replayed: {what}")));
            }
        };
        self.recording.ops.push(op);
        Ok(())
    }

    /// Moves a path and all below it.
    fn rename(&mut self, from: &Path, to: &Path) {
        let moved: Vec<PathBuf> = self
            .paths
            .keys()
            .filter(|p| p.starts_with(from))
            .cloned()
            .collect();
        for path in moved {
            if let (Some(node), Ok(rest)) = (self.paths.remove(&path), path.strip_prefix(from)) {
                let new = if rest.as_os_str().is_empty() {
                    to.to_owned()
                } else {
                    to.join(rest)
                };
                self.paths.insert(new, node);
            }
        }
    }
}
