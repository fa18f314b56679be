//! Opening the row log: where everything lies, what the database has not heard
//! of, and what is damaged.
//!
//! What the database knows to be committed (its stamp) is taken as far as it can
//! be read. Of what is newer only whole commits count, and those are committed
//! anew, in a new file, and cut off here: nobody knows whether a sync has ever
//! covered them.
//!
//! A commit that failed is cut off as well, but that may fail too, and a power cut
//! then brings it back in the next life, or a file that had been removed. Its stamp
//! is below the database's by then. So a stamp alone proves nothing: what lies behind
//! the end that the database tells, or that the next file tells, never was.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::database::DatabaseOptions;
use crate::quarantine::Quarantine;
use crate::state::Batch;
use crate::state::value::Value;
use crate::{StoreError, files, raw_scan};

use super::entry::{ENTRY_BYTES_MAX, Entry, Kind, MAGIC};
use super::index::{Index, Place};
use super::{Inner, LogEnd, LogFile, LogWriter, Result, RowLog, path_of};

/// What was found.
pub(in crate::state) struct Opened {
    pub(in crate::state) log: RowLog,
    pub(in crate::state) writer: LogWriter,
    /// How far the commits go that the database knows of.
    pub(in crate::state) end: LogEnd,
    /// Whole commits that the database has not heard of, in order.
    pub(in crate::state) redo: Vec<Batch>,
    /// Files that such commits end, and what comes before those.
    redone_in: Vec<(u32, u64)>,
    /// The greatest stamp in it.
    pub(in crate::state) stamp_max: u64,
    pub(in crate::state) damage: Option<Damage>,
}

/// What was damaged.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::state) struct Damage {
    /// What was seen first.
    pub(in crate::state) reason: String,
    /// Entries that are gone, as far as they can be counted.
    pub(in crate::state) lost: u64,
    /// The names under `quarantine/`.
    pub(in crate::state) quarantined: String,
}

/// Opens the row log in `dir`. The database knows of everything up to
/// `durable_stamp`, and that the log reaches to `end`. New files
/// end at `file_bytes`.
pub(in crate::state) fn open(
    dir: &Path,
    durable_stamp: u64,
    end: Option<LogEnd>,
    file_bytes: u64,
    quarantine: &Quarantine,
) -> Result<Opened> {
    files::create_dir(dir)?;
    let mut numbers: Vec<u32> = Vec::new();
    for path in files::list(dir)? {
        numbers.extend(number_of(&path));
    }
    let mut begins: BTreeMap<u32, Begin> = BTreeMap::new();
    for number in &numbers {
        let begin = Begin::of(dir, *number)?;
        begins.extend(begin.map(|begin| (*number, begin)));
    }
    // All files say the same; damage leaves one that can be read, or the database.
    let told = begins.values().next().map(|begin| begin.salt);
    let salt = match told.or(end.map(|end| end.salt)) {
        Some(salt) => salt,
        None => new_salt()?,
    };
    let mut scan = Scan {
        salt,
        durable_stamp,
        bounds: bounds(&numbers, &begins, end),
        inner: Inner {
            index: Index::default(),
            files: BTreeMap::new(),
        },
        incomplete: HashMap::new(),
        redo: Vec::new(),
        redone_in: Vec::new(),
        stamp_max: 0,
        faults: Vec::new(),
    };
    let mut last = None;
    for number in &numbers {
        if let Some(length) = scan.file(dir, *number)? {
            last = Some((*number, length));
        }
        if let Some(begin) = begins.get(number)
            && begin.before < *number
            && numbers.first().is_some_and(|first| *first <= begin.before)
        {
            scan.reaches(begin.before, begin.length);
        }
    }
    if let Some(end) = end {
        scan.reaches(end.file, end.length);
    }
    for (stamp, (number, lost)) in std::mem::take(&mut scan.incomplete) {
        let reason = format!("entries of commit {stamp:#x} can't be read");
        scan.faults.push((number, reason, lost));
    }
    scan.faults.sort();
    let damage = scan.set_aside(dir, quarantine);
    let evacuate_upto = scan.faults.iter().map(|(number, _, _)| *number).max();
    let next_number = numbers.last().map_or(1, |number| number + 1);
    Ok(Opened {
        log: RowLog {
            dir: dir.to_path_buf(),
            salt,
            inner: RwLock::new(scan.inner),
        },
        writer: LogWriter::new(next_number, last, file_bytes, evacuate_upto),
        end: LogEnd {
            file: last.map_or(0, |(number, _)| number),
            length: last.map_or(0, |(_, length)| length),
            salt,
        },
        redo: scan.redo,
        redone_in: scan.redone_in,
        stamp_max: scan.stamp_max,
        damage,
    })
}

impl Opened {
    /// Commits anew, with `stamp`, what the database has not heard of; it has to
    /// hear of it in one step with that stamp. Returns how far the log reaches.
    pub(in crate::state) fn redo(
        &mut self,
        stamp: u64,
        options: &DatabaseOptions,
    ) -> Result<LogEnd> {
        let mut group = self.log.group(stamp);
        for batch in &self.redo {
            group.add(batch);
        }
        let appended = self.writer.append(&self.log, group, options)?;
        self.writer.publish(&self.log, &appended);
        for (number, length) in &self.redone_in {
            cut(&path_of(&self.log.dir, *number), *length)?;
            if let Some(file) = self.log.inner.write().files.get_mut(number) {
                file.bytes = *length;
            }
        }
        Ok(appended.end())
    }
}

fn cut(path: &Path, length: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| {
        file.set_len(length)?;
        file.sync_all()
    })
    .map_err(|e| StoreError::io("truncate", path, e))
}

fn number_of(path: &Path) -> Option<u32> {
    if path.extension()? != "log" {
        return None;
    }
    u32::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

struct Scan {
    salt: u32,
    durable_stamp: u64,
    /// By file: where its commits end, as far as that was told.
    bounds: BTreeMap<u32, u64>,
    inner: Inner,
    /// By stamp of a commit that is not whole: in which file, and how many
    /// entries are missing. A failed sync leaves such a one; then the next file
    /// has it whole.
    incomplete: HashMap<u64, (u32, u64)>,
    redo: Vec<Batch>,
    redone_in: Vec<(u32, u64)>,
    stamp_max: u64,
    /// In which file, what, and how many entries it cost.
    faults: Vec<(u32, String, u64)>,
}

/// The commit that is being read.
struct Reading {
    stamp: u64,
    entries: u64,
    /// What it does, if the database has not heard of it.
    batch: Option<Batch>,
}

impl Scan {
    /// Takes in one file; how far the commits go that the database knows of. None
    /// where there is none: no sync has covered such a file, nor its name, so that a
    /// later one must not say that it was there.
    fn file(&mut self, dir: &Path, number: u32) -> Result<Option<u64>> {
        let bound = self.bounds.get(&number).copied().unwrap_or(u64::MAX);
        let path = path_of(dir, number);
        let file = File::open(&path).map_err(|e| StoreError::io("open", &path, e))?;
        let file = LogFile {
            file: Arc::new(file),
            bytes: 0,
            live_bytes: 0,
        };
        self.inner.files.insert(number, file);
        let mut reading: Option<Reading> = None;
        let (mut upto, mut known_upto, mut torn) = (0, 0, false);
        let mut is_known = false;
        raw_scan::scan_file(&path, MAGIC, ENTRY_BYTES_MAX, &mut |offset, bytes| {
            let entry = Entry::decode(bytes, self.salt)?;
            let length = entry.bytes();
            let end = offset + length as u64;
            if entry.kind == Kind::Begin {
                if offset > 0 {
                    // Not one of ours: it needs no salt.
                    return None;
                }
                (upto, known_upto) = (end, end);
                return Some(length);
            }
            self.stamp_max = self.stamp_max.max(entry.stamp);
            let known = entry.stamp <= self.durable_stamp;
            if known && end > bound {
                torn = true;
                return Some(length);
            }
            if known {
                // Damage to its commit leaves it where it is.
                (upto, known_upto, is_known) = (end, end, true);
            }
            let mut commit = match reading.take() {
                Some(commit) if commit.stamp == entry.stamp => commit,
                other => {
                    torn |= other.is_some_and(|cut| self.ends(number, cut, None));
                    Reading {
                        stamp: entry.stamp,
                        entries: 0,
                        batch: (!known).then(Batch::new),
                    }
                }
            };
            if entry.kind == Kind::End {
                let entries = entry.value.try_into().map_or(0, u32::from_be_bytes);
                if self.ends(number, commit, Some(u64::from(entries))) {
                    torn = true;
                } else {
                    upto = end;
                }
                return Some(length);
            }
            commit.entries += 1;
            match (&mut commit.batch, entry.kind) {
                (Some(batch), Kind::Row | Kind::OtherPut) => {
                    let value = Value {
                        bytes: entry.value.to_vec(),
                        encrypted: entry.encrypted,
                    };
                    batch.put_value(entry.key.to_vec(), value);
                }
                (Some(batch), _) => {
                    batch.delete(entry.key);
                }
                (None, Kind::Row) => {
                    let place = Place {
                        file: number,
                        offset: u32::try_from(offset).unwrap_or(u32::MAX),
                        bytes: length as u32,
                    };
                    self.inner.set(entry.key, Some(place));
                }
                (None, Kind::RowDeleted) => self.inner.set(entry.key, None),
                (None, _) => {}
            }
            reading = Some(commit);
            Some(length)
        })?;
        torn |= reading.is_some_and(|cut| self.ends(number, cut, None));
        if torn {
            // It must not count later, when the database's stamp is above it.
            cut(&path, upto)?;
        }
        if upto > known_upto {
            self.redone_in.push((number, known_upto));
        }
        let bytes = fs::metadata(&path)
            .map_err(|e| StoreError::io("look at", &path, e))?
            .len();
        if let Some(file) = self.inner.files.get_mut(&number) {
            file.bytes = bytes;
        }
        Ok(is_known.then_some(known_upto))
    }

    /// A commit ends, with so many entries as it says itself, if that can be
    /// read. Returns whether it is one that never came to its end.
    fn ends(&mut self, number: u32, commit: Reading, entries: Option<u64>) -> bool {
        if entries == Some(commit.entries) {
            self.incomplete.remove(&commit.stamp);
            self.redo.extend(commit.batch);
            return false;
        }
        if commit.batch.is_some() {
            return true;
        }
        let lost = entries.map_or(1, |entries| entries.saturating_sub(commit.entries).max(1));
        self.incomplete.insert(commit.stamp, (number, lost));
        false
    }

    /// A file has to be there, with at least so many bytes.
    fn reaches(&mut self, number: u32, length: u64) {
        if number == 0 {
            // There was none.
            return;
        }
        let what = match self.inner.files.get(&number) {
            Some(file) if file.bytes >= length => return,
            Some(file) => format!("it is {} bytes shorter than it was", length - file.bytes),
            None => "it is gone".to_string(),
        };
        self.faults.push((number, what, 1));
    }

    /// Keeps the evidence; what there is to tell.
    fn set_aside(&self, dir: &Path, quarantine: &Quarantine) -> Option<Damage> {
        let (number, what, _) = self.faults.first()?;
        let mut names: Vec<String> = Vec::new();
        let mut seen = None;
        for (number, _, _) in &self.faults {
            if seen == Some(*number) || !self.inner.files.contains_key(number) {
                continue;
            }
            seen = Some(*number);
            match quarantine.link_file(&path_of(dir, *number), "rows") {
                Ok(name) => names.push(name),
                Err(error) => tracing::warn!(%error, "state: a damaged file could not be kept"),
            }
        }
        Some(Damage {
            reason: format!("{}: {what}", path_of(dir, *number).display()),
            lost: self.faults.iter().map(|(_, _, lost)| lost).sum(),
            quarantined: if names.is_empty() {
                "nothing".to_string()
            } else {
                names.join(", ")
            },
        })
    }
}

/// Shows `each` what is encrypted in the newest file that holds anything such.
pub(in crate::state) fn each_encrypted(
    dir: &Path,
    each: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<()> {
    for path in files::list(dir)?.iter().rev() {
        let begin = number_of(path).map(|number| Begin::of(dir, number));
        let Some(Begin { salt, .. }) = begin.transpose()?.flatten() else {
            continue;
        };
        let mut found = false;
        raw_scan::scan_file(path, MAGIC, ENTRY_BYTES_MAX, &mut |_, bytes| {
            let entry = Entry::decode(bytes, salt)?;
            if entry.encrypted {
                found = true;
                each(entry.key, entry.value);
            }
            Some(entry.bytes())
        })?;
        if found {
            break;
        }
    }
    Ok(())
}

/// What the begin of a file tells.
struct Begin {
    /// The file with the last commit before it, 0 if there was none.
    before: u32,
    /// As far as the commits of that one went.
    length: u64,
    salt: u32,
}

impl Begin {
    /// `None` if it can't be read, or is another file's.
    fn of(dir: &Path, number: u32) -> Result<Option<Self>> {
        let path = path_of(dir, number);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(BEGIN_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|e| StoreError::io("read", &path, e))?;
        Ok(Self::decode(&bytes, number))
    }

    fn decode(bytes: &[u8], own: u32) -> Option<Self> {
        let entry = Entry::decode(bytes, 0).filter(|entry| entry.kind == Kind::Begin)?;
        let number = |at| Some(u64::from_be_bytes(*entry.value.get(at..)?.first_chunk()?));
        (number(0)? == u64::from(own)).then_some(())?;
        Some(Self {
            before: u32::try_from(number(8)?).ok()?,
            length: number(16)?,
            salt: u32::from_be_bytes(*entry.value.get(24..)?.first_chunk()?),
        })
    }
}

/// Where the commits of each file end, as far as a later file or the database tells.
fn bounds(
    numbers: &[u32],
    begins: &BTreeMap<u32, Begin>,
    end: Option<LogEnd>,
) -> BTreeMap<u32, u64> {
    let mut bounds = BTreeMap::new();
    for number in numbers {
        let later = begins
            .range(number + 1..)
            .map(|(_, b)| (b.before, b.length));
        let told = later.chain(end.map(|end| (end.file, end.length)));
        let told = told.filter(|(last, _)| last <= number);
        let bound = told.map(|(last, length)| if last == *number { length } else { 0 });
        bounds.extend(bound.min().map(|bound| (*number, bound)));
    }
    bounds
}

/// More than the begin of a file takes.
const BEGIN_BYTES_MAX: u64 = 256;

fn new_salt() -> Result<u32> {
    let path = Path::new("/dev/urandom");
    let mut salt = [0; 4];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut salt))
        .map_err(|e| StoreError::io("read", path, e))?;
    Ok(u32::from_be_bytes(salt))
}
