//! The host side of `crash/shim.c`: builds it, arms it, reads what it counted.
//!
//! Never touches the process it watches: all orders go through the control
//! file (layout at the head of `shim.c`), so they can change while it runs.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SOURCE: &str = include_str!("../../crash/shim.c");

/// Classes of file operations; combine with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operations(u64);

impl Operations {
    /// Opening or creating a file or directory.
    pub const OPEN: Self = Self(1);
    /// write, pwrite, writev, pwritev.
    pub const WRITE: Self = Self(2);
    /// fsync and fdatasync.
    pub const SYNC: Self = Self(4);
    /// rename, unlink, mkdir, rmdir, truncate, fallocate.
    pub const META: Self = Self(8);
    /// `sync_file_range`, which makes nothing durable.
    pub const RANGE: Self = Self(16);
    /// Reading a file, listing a directory, asking what a name stands for.
    pub const READ: Self = Self(32);
    /// Whatever a full disk refuses: all that needs space.
    pub const SPACE: Self = Self(2 | 8);
    /// All that changes something, or makes it last.
    pub const ANY: Self = Self(31);
}

impl std::ops::BitOr for Operations {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The error that a failed operation returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// The disk is broken here.
    Eio,
    /// The disk is full.
    Enospc,
    /// None: a write takes the first half of its bytes and says so.
    Short,
    /// None: what is looked for is not there. As if a store took what it could not
    /// read for nothing, to show that a test would notice it.
    Nothing,
}

/// Which operations fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Only these are counted and can fail.
    pub operations: Operations,
    /// The first one to fail, from 1; counted since the process began or
    /// [`Shim::fault`] was last called.
    pub first: u64,
    /// How many fail in a row; `u64::MAX` until [`Shim::heal`].
    pub count: u64,
    /// With which error.
    pub errno: Errno,
    /// A failed write leaves the first half of its bytes in the file.
    pub torn: bool,
}

/// A moment of a recorded operation that a kill can come at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Its path and data are in the log, and nothing yet says that they count.
    Noted = 1,
    /// The intent is noted, the operation not begun.
    Intended = 2,
    /// Half of the bytes are in the file (of writes only).
    HalfDone = 3,
    /// The operation is made, and not yet in the log.
    Done = 4,
    /// It is in the log, and its caller does not know.
    Recorded = 5,
}

/// A recorder between a process and the files below one directory.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    root: PathBuf,
    log: Option<PathBuf>,
    witness: Option<PathBuf>,
    control_path: PathBuf,
    control: File,
    // Holds the control file; deleted with the shim.
    _home: tempfile::TempDir,
}

impl Shim {
    /// Watches everything below `root`, which must exist.
    ///
    /// # Errors
    /// There is no C compiler (`cc`), or a file can't be made.
    pub fn over(root: &Path) -> io::Result<Self> {
        let home = tempfile::tempdir()?;
        let control_path = home.path().join("control");
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&control_path)?;
        control.set_len(4096)?;
        let shim = Self {
            library: library()?,
            root: root.canonicalize()?,
            log: None,
            witness: None,
            control_path,
            control,
            _home: home,
        };
        shim.put(2, Operations::ANY.0)?;
        Ok(shim)
    }

    /// Records every operation into `log` (outside the root), appending.
    #[must_use]
    pub fn recording(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// What is written to `file` (below the root) is what the outside world was
    /// told: recorded in its order, never failed or delayed, in no image.
    #[must_use]
    pub fn witness(mut self, file: &str) -> Self {
        self.witness = Some(self.root.join(file));
        self
    }

    /// The directory that is watched.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Loads the shim into `command` (which must be dynamically linked).
    pub fn command<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("RISITI_SHIM_ROOT", &self.root)
            .env("RISITI_SHIM_CONTROL", &self.control_path);
        if let Some(log) = &self.log {
            command.env("RISITI_SHIM_LOG", log);
        }
        if let Some(witness) = &self.witness {
            command.env("RISITI_SHIM_WITNESS", witness);
        }
        command
    }

    /// From now on each fsync and fdatasync takes this long more; one that
    /// waits already sees the change, so 0 ends a stall at once.
    pub fn delay_syncs_ms(&self, delay_ms: u64) {
        self.order(1, delay_ms);
    }

    /// Syncs are recorded but not made: for recordings, whose images come from
    /// the log, this only saves time.
    pub fn skip_real_syncs(&self) {
        self.order(7, 1);
    }

    /// Arms a fault; the count starts anew.
    pub fn fault(&self, fault: Fault) {
        self.order(3, 0);
        let (operations, number, torn) = match fault.errno {
            Errno::Eio => (fault.operations, 5, fault.torn),
            Errno::Enospc => (fault.operations, 28, fault.torn),
            Errno::Nothing => (fault.operations, 2, fault.torn),
            // Nothing else can be short.
            Errno::Short => (Operations::WRITE, 0, true),
        };
        self.order(2, operations.0);
        self.order(4, fault.count);
        self.order(5, number);
        self.order(6, torn.into());
        self.order(8, 0);
        self.order(9, 0);
        self.order(3, fault.first);
    }

    /// No operation fails any more.
    pub fn heal(&self) {
        self.order(3, 0);
    }

    /// SIGKILL for the process at this moment of the `nth` (from 1) operation
    /// from now that has it.
    pub fn kill_at(&self, moment: Moment, nth: u64) {
        self.order(12, nth);
        self.order(11, moment as u64);
    }

    /// No kill is ordered any more.
    pub fn spare(&self) {
        self.order(11, 0);
    }

    /// The recorder takes what a kill cut short for not done, without a look:
    /// a bug, to show that a test would notice it.
    pub fn forget_what_kills_cut_short(&self) {
        self.order(13, 1);
    }

    /// A failed sync says that it succeeded: as if the store did not listen.
    pub fn say_that_failed_syncs_succeed(&self) {
        self.order(14, 1);
    }

    /// Syncs of directories are not made: as if the store forgot them.
    pub fn forget_syncs_of_directories(&self) {
        self.order(15, 1);
    }

    /// How many operations of the armed classes were seen (all, if none were armed).
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.get(8)
    }

    /// How many were made to fail.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.get(9)
    }

    /// How many fsync and fdatasync calls have returned.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.get(10)
    }

    fn order(&self, word: u64, value: u64) {
        self.put(word, value)
            .expect("the control file is open and 4 KiB long");
    }

    fn put(&self, word: u64, value: u64) -> io::Result<()> {
        self.control.write_all_at(&value.to_ne_bytes(), word * 8)
    }

    fn get(&self, word: u64) -> u64 {
        let mut bytes = [0; 8];
        self.control
            .read_exact_at(&mut bytes, word * 8)
            .expect("the control file is open and 4 KiB long");
        u64::from_ne_bytes(bytes)
    }
}

/// The compiled shim, built once per version of its source beside the tests.
fn library() -> io::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build().map_err(|e| e.to_string()))
        .clone()
        .map_err(io::Error::other)
}

fn build() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let dir = exe.parent().unwrap_or(Path::new("/tmp")).join("crash-shim");
    fs::create_dir_all(&dir)?;
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let library = dir.join(format!("shim-{:016x}.so", hasher.finish()));
    if library.exists() {
        return Ok(library);
    }
    // Built under an own name and renamed: tests run side by side.
    let own = tempfile::tempdir_in(&dir)?;
    let (source, object) = (own.path().join("shim.c"), own.path().join("shim.so"));
    fs::write(&source, SOURCE)?;
    let compiled = Command::new("cc")
        .args([
            "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-pthread", "-o",
        ])
        .arg(&object)
        .arg(&source)
        .output()
        .map_err(|e| io::Error::other(format!("cc: {e}; install gcc or clang")))?;
    if !compiled.status.success() {
        return Err(io::Error::other(format!(
            "cc could not build the crash shim: {}",
            String::from_utf8_lossy(&compiled.stderr)
        )));
    }
    fs::rename(&object, &library)?;
    Ok(library)
}
