//! A directory as it was when a recording began.
//!
//! It can be kept in a file, so that a recording made on it can be read again
//! after the directory is gone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory as it was before the recording began; all of it durable.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub(super) root_ino: u64,
    /// Path, inode number, and bytes unless it is a directory; parents first.
    pub(super) nodes: Vec<(PathBuf, u64, Option<Vec<u8>>)>,
}

impl Snapshot {
    /// Takes one.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut snapshot = Self {
            root_ino: fs::metadata(root)?.ino(),
            nodes: Vec::new(),
        };
        let mut open = vec![PathBuf::new()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(root.join(&dir))? {
                let entry = entry?;
                let (path, meta) = (dir.join(entry.file_name()), entry.metadata()?);
                let bytes = if meta.is_dir() {
                    open.push(path.clone());
                    None
                } else {
                    Some(fs::read(entry.path())?)
                };
                snapshot.nodes.push((path, meta.ino(), bytes));
            }
        }
        // Parents before their children.
        snapshot.nodes.sort_by_key(|n| n.0.components().count());
        Ok(snapshot)
    }

    /// Writes it to a file: a line for each node, then the bytes of the files.
    ///
    /// # Errors
    /// It can't be written.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        let mut bytes = format!("{}\n", self.root_ino).into_bytes();
        for (path, ino, content) in &self.nodes {
            let length = content.as_ref().map_or(-1, |c| c.len() as i64);
            bytes.extend(format!("{ino} {length} {}\n", path.display()).bytes());
        }
        bytes.push(b'\n');
        bytes.extend(self.nodes.iter().flat_map(|n| n.2.iter().flatten()));
        fs::write(file, bytes)
    }

    /// What [`Snapshot::save`] wrote.
    ///
    /// # Errors
    /// It can't be read, or is something else.
    pub fn load(file: &Path) -> io::Result<Self> {
        let bytes = fs::read(file)?;
        let parsed = || {
            let head = bytes.windows(2).position(|two| two == b"\n\n")?;
            let mut lines = std::str::from_utf8(bytes.get(..head)?).ok()?.lines();
            let mut snapshot = Self {
                root_ino: lines.next()?.parse().ok()?,
                nodes: Vec::new(),
            };
            let mut at = head + 2;
            for line in lines {
                let mut words = line.splitn(3, ' ');
                let ino = words.next()?.parse().ok()?;
                let length: i64 = words.next()?.parse().ok()?;
                let content = match usize::try_from(length) {
                    Ok(length) => {
                        at += length;
                        Some(bytes.get(at - length..at)?.to_vec())
                    }
                    Err(_) => None,
                };
                snapshot.nodes.push((words.next()?.into(), ino, content));
            }
            Some(snapshot)
        };
        parsed().ok_or_else(|| io::Error::other(format!("{}: no snapshot", file.display())))
    }
}

/// All that lies below `dir`, by its path there; a directory has no bytes.
///
/// # Errors
/// What can't be read.
pub fn tree(dir: &Path) -> io::Result<BTreeMap<PathBuf, Option<Vec<u8>>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = PathBuf::from(path.file_name().unwrap_or_default());
        if path.is_dir() {
            all.extend(tree(&path)?.into_iter().map(|(p, b)| (name.join(p), b)));
            all.insert(name, None);
        } else {
            all.insert(name, Some(fs::read(&path)?));
        }
    }
    Ok(all)
}
