//! The recorder's files: one that is written and one before it.
//!
//! Promises: both together never take more than their bound; the newest one goes
//! on where its last whole frame ends, so that a torn tail is cut off; damaged
//! bytes are passed over up to the next whole frame. Never: a sync. A kill of the
//! process loses nothing that was written, a power cut may.
//!
//! A segment is called `<number>.trace`, 16 hexadecimal digits that count up.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::format::{self, FRAME_BYTES_MAX};

/// Read at once from a segment.
const WINDOW_BYTES: usize = 4 * FRAME_BYTES_MAX;

/// Where frames go.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    segment_bytes_max: u64,
    number: u64,
    file: Option<File>,
    bytes: u64,
}

impl Segments {
    /// Opens the newest segment, or none yet; the first frame makes one.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut segments = Self {
            dir: dir.to_owned(),
            segment_bytes_max: bytes_max / 2,
            number: 0,
            file: None,
            bytes: 0,
        };
        let numbers = list(dir)?;
        let Some(&newest) = numbers.last() else {
            return Ok(segments);
        };
        segments.number = newest;
        let path = segments.path(newest);
        let mut end = 0;
        scan(&path, &mut |offset, frame| {
            end = offset + frame.len() as u64
        })?;
        let file = File::options().write(true).open(&path)?;
        file.set_len(end)?;
        segments.go_on(file, end)?;
        segments.remove_older();
        Ok(segments)
    }

    fn path(&self, number: u64) -> PathBuf {
        path(&self.dir, number)
    }

    fn go_on(&mut self, mut file: File, end: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(end))?;
        self.file = Some(file);
        self.bytes = end;
        Ok(())
    }

    /// Adds a whole frame. After an error it is as if it had not been added.
    pub fn append(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.bytes + frame.len() as u64 > self.segment_bytes_max {
            self.file = None;
        }
        if self.file.is_none() {
            let number = self.number + 1;
            // Whatever has that name was never finished.
            let file = File::create(self.path(number))?;
            self.number = number;
            self.go_on(file, 0)?;
            self.remove_older();
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if let Err(error) = file.write_all(frame) {
            let end = self.bytes;
            let restored = file
                .set_len(end)
                .and_then(|()| file.seek(SeekFrom::Start(end)));
            if restored.is_err() {
                // Its torn end is passed over by whoever reads it.
                self.file = None;
            }
            return Err(error);
        }
        self.bytes += frame.len() as u64;
        Ok(())
    }

    /// Leaves the newest segment and as much before it as the bound allows.
    fn remove_older(&self) {
        let Ok(numbers) = list(&self.dir) else {
            return;
        };
        let mut kept = 0;
        for (age, number) in numbers.iter().rev().enumerate() {
            let path = self.path(*number);
            kept += fs::metadata(&path).map_or(0, |meta| meta.len());
            let fits = age == 1 && kept <= 2 * self.segment_bytes_max;
            if age > 0
                && !fits
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "an old trace segment stays");
            }
        }
    }
}

/// The segments there are, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".trace"));
        numbers.extend(number.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The file of a segment.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.trace"))
}

/// Removes every segment.
pub(super) fn remove_all(dir: &Path) -> io::Result<()> {
    let numbers = match list(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for number in numbers {
        fs::remove_file(path(dir, number))?;
    }
    Ok(())
}

/// Shows every whole frame of a file with its offset, in order.
pub(super) fn scan(path: &Path, frame: &mut dyn FnMut(u64, &[u8])) -> io::Result<()> {
    scan_while(path, &mut |offset, bytes| {
        frame(offset, bytes);
        true
    })
}

/// The same for the frames that begin in the last `bytes` of a file.
pub(super) fn scan_end(path: &Path, bytes: u64, frame: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let Some(mut file) = open(path)? else {
        return Ok(());
    };
    let from = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(from))?;
    scan_file(file, &mut |_, bytes| {
        frame(bytes);
        true
    })
}

/// The same, until `frame` returns `false`.
pub(super) fn scan_while(path: &Path, frame: &mut dyn FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
    match open(path)? {
        Some(file) => scan_file(file, frame),
        None => Ok(()),
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        // Removed between the listing and now.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn scan_file(mut file: File, frame: &mut dyn FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
    let mut window = Vec::with_capacity(WINDOW_BYTES);
    let mut window_offset = 0_u64;
    loop {
        let wanted = WINDOW_BYTES - window.len();
        let read = (&mut file).take(wanted as u64).read_to_end(&mut window)?;
        let at_end = read < wanted;
        let mut at = 0;
        while at < window.len() {
            let rest = &window[at..];
            if let Some(bytes) = format::frame_bytes(rest) {
                if !frame(window_offset + at as u64, &rest[..bytes]) {
                    return Ok(());
                }
                at += bytes;
            } else if !at_end && rest.len() < FRAME_BYTES_MAX {
                break;
            } else {
                at += next_magic(rest);
            }
        }
        if at_end {
            return Ok(());
        }
        window.drain(..at);
        window_offset += at as u64;
    }
}

/// Bytes to where a frame may begin, at least one.
fn next_magic(bytes: &[u8]) -> usize {
    let behind = &bytes[1..];
    behind
        .windows(format::MAGIC.len())
        .position(|window| window == format::MAGIC)
        // A magic may straddle the end.
        .map_or(
            bytes.len().saturating_sub(format::MAGIC.len() - 1).max(1),
            |found| found + 1,
        )
}
