//! The registry on disk.
//!
//! Promises: a change is made whole or not at all, whatever is cut (written beside,
//! synced, renamed, its directory synced); two that change it at once come one
//! after the other; it is for its owner's eyes only. Never: a file larger than a
//! full registry read into memory.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::registry::{Registry, RegistryError};
use crate::limits::REGISTRY_BYTES_MAX;

/// Why the registry could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system.
    #[error(
        "{path}: {source}; whoever serves has to be able to read it, and whoever changes it, to write it and its directory"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What it holds, or a change that it does not take.
    #[error("registry {path}: {source}")]
    Registry {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: RegistryError,
    },
    /// Anybody could add a terminal.
    #[error("registry {path}: every user of this machine can change it; run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

/// Tells one state of the file from another: a file that was replaced or written to
/// has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
            inode: metadata.ino(),
        }
    }

    /// Of the file as it is now; none if there is none.
    ///
    /// # Errors
    /// The operating system's.
    pub fn now(path: &Path) -> Result<Option<Self>, FileError> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io(path)(source)),
        }
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> FileError + '_ {
    |source| FileError::Io {
        path: path.to_owned(),
        source,
    }
}

fn registry(path: &Path) -> impl Fn(RegistryError) -> FileError + '_ {
    |source| FileError::Registry {
        path: path.to_owned(),
        source,
    }
}

/// Reads it; none if there is no file.
///
/// # Errors
/// It can't be read, is no registry, or may be written by everybody.
pub fn load(path: &Path) -> Result<Option<(Registry, Stamp)>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(path)(source)),
    };
    // Of what is read, not of what may have taken its place meanwhile.
    let metadata = file.metadata().map_err(io(path))?;
    if metadata.permissions().mode() & 0o002 != 0 {
        return Err(FileError::Exposed {
            path: path.to_owned(),
        });
    }
    let mut text = String::new();
    file.take(REGISTRY_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(io(path))?;
    if text.len() as u64 > REGISTRY_BYTES_MAX {
        return Err(registry(path)(RegistryError::Full));
    }
    let read = Registry::parse(&text).map_err(registry(path))?;
    Ok(Some((read, Stamp::of(&metadata))))
}

/// Changes it: what `change` makes of it is on disk when this returns. Nothing is
/// written if it refuses.
///
/// # Errors
/// It can't be read or written, or the change is refused.
pub fn edit<T>(
    path: &Path,
    change: impl FnOnce(&mut Registry) -> Result<T, RegistryError>,
) -> Result<T, FileError> {
    replace(path, || {
        let mut read = load(path)?.map(|(read, _)| read).unwrap_or_default();
        let done = change(&mut read).map_err(registry(path))?;
        Ok((read.to_text(), done))
    })
}

/// Replaces a file by a text, whole or not at all, while nobody else does. A text that
/// is secret overwrites itself when it is dropped.
///
/// # Errors
/// It can't be written, or no text is made.
pub fn replace<S: AsRef<str>, T, E: From<FileError>>(
    path: &Path,
    make: impl FnOnce() -> Result<(S, T), E>,
) -> Result<T, E> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Beside it: the file itself is replaced, and a lock on it with it.
    let lock_path = beside(path, "lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(io(&lock_path))?;
    lock.lock().map_err(io(&lock_path))?;
    let (text, done) = make()?;
    write(path, directory, text.as_ref()).map_err(io(path))?;
    Ok(done)
}

fn write(path: &Path, directory: &Path, text: &str) -> std::io::Result<()> {
    let new_path = beside(path, "new");
    // One that a cut left behind may be anybody's to read.
    match std::fs::remove_file(&new_path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&new_path)?;
    new.set_permissions(Permissions::from_mode(0o600))?;
    keep_owner(&new, path, directory)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    std::fs::rename(&new_path, path)?;
    File::open(directory)?.sync_all()
}

/// An administrator writes what the gateway's user has to read: the file stays its
/// owner's, a new one becomes its directory's owner's.
fn keep_owner(new: &File, path: &Path, directory: &Path) -> std::io::Result<()> {
    let owner = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(_) => std::fs::metadata(directory)?,
    };
    if new.metadata()?.uid() == owner.uid() {
        return Ok(());
    }
    std::os::unix::fs::fchown(new, Some(owner.uid()), Some(owner.gid()))
}

/// The path with `.ending` behind it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::token;

    fn add(path: &Path, id: &str) -> Result<(), FileError> {
        edit(path, |r| r.add(id, token::digest(id.as_bytes()), false))
    }

    #[test]
    fn a_change_is_on_disk_for_its_owner_only_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("terminals.toml");
        assert!(load(&path).unwrap().is_none());
        add(&path, "t1").unwrap();
        let (read, first) = load(&path).unwrap().unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(Stamp::now(&path).unwrap(), Some(first));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What a cut left behind is in nobody's way.
        std::fs::write(beside(&path, "new"), "half").unwrap();
        add(&path, "t2").unwrap();
        let (read, second) = load(&path).unwrap().unwrap();
        assert_eq!(read.len(), 2);
        assert_ne!(first, second);
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["terminals.toml", "terminals.toml.lock"]);
    }

    #[test]
    fn a_change_that_is_refused_and_a_file_that_is_none_leave_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("terminals.toml");
        add(&path, "t1").unwrap();
        let before = Stamp::now(&path).unwrap();
        assert!(matches!(add(&path, "t1"), Err(FileError::Registry { .. })));
        assert_eq!(Stamp::now(&path).unwrap(), before);
        std::fs::write(&path, "version = 1\n[[termin").unwrap();
        assert!(add(&path, "t2").is_err());
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "version = 1\n[[termin"
        );
    }

    #[test]
    fn a_file_that_everybody_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("terminals.toml");
        add(&path, "t1").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn many_that_change_it_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = Arc::new(dir.path().join("terminals.toml"));
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let path = path.clone();
                std::thread::spawn(move || {
                    for n in 0..10 {
                        add(&path, &format!("t{thread}-{n}")).unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(load(&path).unwrap().unwrap().0.len(), 80);
    }
}
