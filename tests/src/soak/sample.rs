//! What a process takes of the machine, by the kernel's own books.
//!
//! Promises: a look at a process that is gone, or a file that goes while it is
//! looked at, is no error of the soak. Never: a number that the process tells of
//! itself.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, bytes (`VmRSS`).
    pub resident_bytes: u64,
    /// What of it is no file's, bytes (`RssAnon`).
    pub anonymous_bytes: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Allocated bytes of its data directory.
    pub disk_bytes: u64,
}

/// Looks at a process, and at its directory if it has one.
///
/// # Errors
/// There is no such process.
pub fn usage(pid: u32, dir: Option<&Path>) -> io::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> io::Result<u64> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("process {pid} has no {name}")))
    };
    Ok(Usage {
        resident_bytes: field("VmRSS:")? * 1024,
        anonymous_bytes: field("RssAnon:")? * 1024,
        threads: field("Threads:")?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
        disk_bytes: dir.map_or(0, allocated_bytes),
    })
}

/// Allocated bytes of everything under a directory.
#[must_use]
pub fn allocated_bytes(dir: &Path) -> u64 {
    /// What `st_blocks` counts in, whatever the file system (POSIX `stat`).
    const BLOCK_BYTES: u64 = 512;
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match fs::symlink_metadata(entry.path()) {
            Ok(data) if data.is_dir() => {
                data.blocks() * BLOCK_BYTES + allocated_bytes(&entry.path())
            }
            Ok(data) => data.blocks() * BLOCK_BYTES,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_with_its_files_and_disk() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), vec![1; 100_000]).unwrap();
        let before = usage(std::process::id(), Some(dir.path())).unwrap();
        assert!(before.anonymous_bytes > 0 && before.anonymous_bytes <= before.resident_bytes);
        assert!(before.threads > 0);
        assert!(before.disk_bytes >= 100_000, "{before:?}");
        let _open: Vec<_> = (0..100)
            .map(|_| fs::File::open(dir.path().join("deep/file")).unwrap())
            .collect();
        let after = usage(std::process::id(), None).unwrap();
        assert!(after.descriptors >= 100, "{after:?}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(usage(u32::MAX, None).is_err());
    }
}
