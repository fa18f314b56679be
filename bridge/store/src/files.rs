//! Files and directories that are still there after a power cut.
//!
//! A created, renamed or removed name is durable only when its directory was
//! synced. Whoever creates something here gets it with its name on disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// Syncs a directory: the names in it.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|handle| handle.sync_all())
        .map_err(|e| StoreError::io("sync directory", dir, e))
}

/// Whether a directory of this name is there. A disk that can't tell has not said no:
/// what is taken for missing would be made anew, or left behind.
pub(crate) fn is_dir(path: &Path) -> Result<bool> {
    Ok(look_at(path)?.is_some_and(|meta| meta.is_dir()))
}

/// Whether a file of this name is there, as [`is_dir`].
pub(crate) fn is_file(path: &Path) -> Result<bool> {
    Ok(look_at(path)?.is_some_and(|meta| meta.is_file()))
}

fn look_at(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("look at", path, e)),
    }
}

/// Creates `dir` and its missing parents, each synced into its parent. One that
/// exists is synced too: whoever made it may have failed at just that.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    let parent = parent_of(dir);
    if is_dir(dir)? {
        return match sync_dir(parent) {
            // A parent that we may not read was there long before us.
            Err(StoreError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(())
            }
            other => other,
        };
    }
    create_dir(parent)?;
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(StoreError::io("create directory", dir, e)),
    }
    sync_dir(parent)
}

/// Writes a small file whole: a temporary name, sync, rename, sync of the
/// directory. After a power cut the file is the old one or the new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let written = fs::write(&temporary, bytes)
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = written {
        let _ = fs::remove_file(&temporary);
        return Err(StoreError::io("write", path, e));
    }
    sync_dir(parent_of(path))
}

/// Copies a file's bytes to a new file and syncs that. Byte by byte on purpose:
/// what a clone shares with the original is on disk only if the original is.
pub(crate) fn copy_bytes(from: &Path, to: &Path) -> Result<()> {
    let copied = File::open(from).and_then(|mut source| {
        let mut target = File::create(to)?;
        let mut chunk = vec![0; 256 * 1024];
        loop {
            match source.read(&mut chunk) {
                Ok(0) => return target.sync_all(),
                Ok(bytes) => target.write_all(&chunk[..bytes])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    });
    copied.map_err(|e| StoreError::io("copy", from, e))
}

/// Renames, and makes both directories' names durable.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| StoreError::io("rename", from, e))?;
    sync_dir(parent_of(to))?;
    if parent_of(from) != parent_of(to) {
        sync_dir(parent_of(from))?;
    }
    Ok(())
}

/// Removes a directory with everything in it; its name goes first (by a
/// rename), so that a half-removed database is never taken for a damaged one.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    let doomed = dir.with_extension(DOOMED);
    // A removal before this one may have got stuck half-way.
    if is_dir(&doomed)? {
        remove_doomed(&doomed)?;
    }
    fs::rename(dir, &doomed).map_err(|e| StoreError::io("remove", dir, e))?;
    remove_doomed(&doomed)
}

/// Removes a directory that has been renamed on its way out.
fn remove_doomed(doomed: &Path) -> Result<()> {
    // Names survive a power cut one by one: without this the content could go and
    // the old name come back.
    sync_dir(parent_of(doomed))?;
    fs::remove_dir_all(doomed).map_err(|e| StoreError::io("remove", doomed, e))?;
    sync_dir(parent_of(doomed))
}

/// The extension of a directory on its way out.
pub(crate) const DOOMED: &str = "doomed";

/// The extension of a directory that is being built.
pub(crate) const BUILDING: &str = "building";

/// Finishes what the life before left of removals and half-built directories. First of
/// all to be done in a directory: what that life renamed may have failed at its sync, and
/// whoever builds on a name that a power cut can still take back loses both.
pub(crate) fn sweep_leftovers(dir: &Path) -> Result<()> {
    sync_dir(dir)?;
    for entry in list(dir)? {
        let extension = entry.extension().and_then(|e| e.to_str());
        if matches!(extension, Some(DOOMED | BUILDING)) && is_dir(&entry)? {
            fs::remove_dir_all(&entry).map_err(|e| StoreError::io("remove", &entry, e))?;
        } else if extension == Some("tmp") {
            fs::remove_file(&entry).map_err(|e| StoreError::io("remove", &entry, e))?;
        }
    }
    Ok(())
}

/// The paths in a directory, sorted; none if it does not exist.
pub(crate) fn list(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut paths = match fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|e| e.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|e| StoreError::io("list", dir, e))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(StoreError::io("list", dir, e)),
    };
    paths.sort();
    Ok(paths)
}

/// What a directory really takes on disk, bytes (allocated blocks; a name that
/// vanishes meanwhile counts nothing).
pub(crate) fn allocated_bytes(path: &Path) -> u64 {
    taken_bytes(path, &|_, _| 0)
}

/// The same, where a file counts at least what `least` says for its path and
/// length.
pub(crate) fn taken_bytes(path: &Path, least: &dyn Fn(&Path, u64) -> u64) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::symlink_metadata(path) else {
        return 0;
    };
    let allocated = meta.blocks() * 512;
    if !meta.is_dir() {
        // A damaged generation is linked into the quarantine, not copied.
        return allocated.max(least(path, meta.len())) / meta.nlink().max(1);
    }
    let Ok(entries) = fs::read_dir(path) else {
        return allocated;
    };
    allocated
        + entries
            .flatten()
            .map(|entry| taken_bytes(&entry.path(), least))
            .sum::<u64>()
}

/// Free bytes of the file system that holds `path`, for an unprivileged user.
pub(crate) fn free_bytes(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path)
        .map_err(|e| StoreError::io("ask for free space", path, e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_that_got_stuck_keeps_no_other_from_its_end() {
        let home = tempfile::tempdir().unwrap();
        let (db, doomed) = (home.path().join("db"), home.path().join("db.doomed"));
        for dir in [&db, &doomed] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("file"), b"bytes").unwrap();
        }
        remove_dir(&db).unwrap();
        assert!(list(home.path()).unwrap().is_empty());
    }

    #[test]
    fn what_can_not_be_looked_at_is_not_missing() {
        let home = tempfile::tempdir().unwrap();
        let missing = home.path().join("missing");
        assert!(!is_dir(&missing).unwrap() && !is_file(&missing).unwrap());
        // A name that leads to itself: the system can't say what it stands for.
        let loops = home.path().join("loops");
        std::os::unix::fs::symlink(&loops, &loops).unwrap();
        assert!(is_dir(&loops).is_err() && is_file(&loops).is_err());
    }
}
