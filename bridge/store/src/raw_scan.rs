//! Finds self-describing entries in the raw bytes of a damaged database.
//!
//! Needs nothing of sled's structure to be whole: values lie in sled's files
//! contiguous and uncompressed, so an entry is wherever its magic stands and
//! its checksum agrees. Reads in windows: memory is bounded by the largest
//! entry, not by the file.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::{StoreError, files};

const WINDOW_BYTES: usize = 1024 * 1024;

/// Shows every place of `magic` in the files of sled database `dir` to `entry`,
/// with its offset in its file and at least `entry_bytes_max` bytes behind it
/// unless the file ends. It returns the length of the entry that it recognised
/// there, if any.
///
/// # Errors
/// A file could not be read.
pub(crate) fn scan_database(
    dir: &Path,
    magic: [u8; 4],
    entry_bytes_max: usize,
    entry: &mut dyn FnMut(u64, &[u8]) -> Option<usize>,
) -> Result<(), StoreError> {
    let db = dir.join("db");
    if files::is_file(&db)? {
        scan_file(&db, magic, entry_bytes_max, entry)?;
    }
    for blob in files::list(&dir.join("blobs"))? {
        scan_file(&blob, magic, entry_bytes_max, entry)?;
    }
    Ok(())
}

pub(crate) fn scan_file(
    path: &Path,
    magic: [u8; 4],
    entry_bytes_max: usize,
    entry: &mut dyn FnMut(u64, &[u8]) -> Option<usize>,
) -> Result<(), StoreError> {
    let mut file = File::open(path).map_err(|e| StoreError::io("open", path, e))?;
    // Most files are far smaller than a window, and one byte more shows their end.
    let length = file.metadata().map_or(u64::MAX, |meta| meta.len());
    let whole_bytes = WINDOW_BYTES + entry_bytes_max;
    let mut window_bytes =
        usize::try_from(length.saturating_add(1)).map_or(whole_bytes, |l| l.min(whole_bytes));
    let mut window: Vec<u8> = Vec::with_capacity(window_bytes);
    let mut at_end = false;
    let mut window_offset = 0_u64;
    while !at_end {
        let filled = window.len();
        window.resize(window_bytes, 0);
        let read = read_full(&mut file, &mut window[filled..])
            .map_err(|e| StoreError::io("read", path, e))?;
        at_end = filled + read < window.len();
        window.truncate(filled + read);
        // It has grown since.
        window_bytes = whole_bytes;
        // An entry that may run past the window waits for the next one.
        let safe = if at_end {
            window.len()
        } else {
            window.len().saturating_sub(entry_bytes_max)
        };
        let mut at = 0;
        while at < safe {
            let Some(found) = find(&window[at..], magic) else {
                at = safe.max(at);
                break;
            };
            if at + found >= safe {
                at = safe;
                break;
            }
            at += found;
            at += entry(window_offset + at as u64, &window[at..]).unwrap_or(1);
        }
        // The magic itself may straddle the border of what was searched.
        let keep_from = at.min(window.len());
        window.drain(..keep_from);
        window_offset += keep_from as u64;
    }
    Ok(())
}

fn read_full(file: &mut File, mut into: &mut [u8]) -> std::io::Result<usize> {
    let mut total = 0;
    while !into.is_empty() {
        match file.read(into) {
            Ok(0) => break,
            Ok(n) => {
                total += n;
                into = &mut into[n..];
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}

fn find(haystack: &[u8], magic: [u8; 4]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|b| *b == magic[0]) {
        if haystack[from + at..].starts_with(&magic) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = *b"RsT1";
    const ENTRY_BYTES: usize = 5_000;

    /// Magic, number, filling, and the number again as its check.
    fn entry(number: u32) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &number.to_be_bytes()].concat();
        bytes.resize(ENTRY_BYTES - 4, b'R');
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes
    }

    #[test]
    fn every_whole_entry_is_found_once_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut rng = fastrand::Rng::with_seed(3);
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        while bytes.len() < 5 * WINDOW_BYTES {
            let number = rng.u32(..);
            expected.push((bytes.len() as u64, number));
            bytes.extend(entry(number));
            // Gaps that bring entries and their magic onto every border.
            bytes.extend(std::iter::repeat_n(b'R', rng.usize(0..9_000)));
        }
        bytes.extend(&entry(7)[..ENTRY_BYTES - 1]);
        std::fs::write(&path, &bytes).unwrap();
        let mut found = Vec::new();
        scan_file(&path, MAGIC, ENTRY_BYTES, &mut |offset, bytes| {
            let entry = bytes.get(..ENTRY_BYTES)?;
            let number = u32::from_be_bytes(entry[4..8].try_into().ok()?);
            if entry[ENTRY_BYTES - 4..] != number.to_be_bytes() {
                return None;
            }
            found.push((offset, number));
            Some(ENTRY_BYTES)
        })
        .unwrap();
        assert_eq!(found, expected);
    }
}
