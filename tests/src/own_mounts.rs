//! A mount namespace of its own: what is mounted there goes with it.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::risiti_command::Running;

/// `unshare`, as far as its own options. Root needs no user namespace (and in a
/// chroot gets none); anybody else does.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--mount");
    command
}

/// A file system of its own, in memory, that can be filled; gone when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    root: PathBuf,
    _holder: Running,
}

impl SmallDisk {
    /// An empty one of that size, mounted at `disk` in `dir`.
    ///
    /// # Errors
    /// No file system is to be had: a failure, no reason to skip a test.
    pub fn mount(dir: &Path, size_mib: u64) -> io::Result<Self> {
        let disk = dir.join("disk");
        fs::create_dir(&disk)?;
        let script = "mount -t tmpfs -o size=$0m tmpfs \"$1\" && echo mounted && exec cat";
        let holder = command()
            .args(["sh", "-c", script, &size_mib.to_string()])
            .arg(&disk)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut holder = Running(holder);
        let mut line = String::new();
        if let Some(out) = holder.0.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        if line != "mounted\n" {
            return Err(io::Error::other("no file system of its own"));
        }
        let root = format!("/proc/{}/root{}", holder.0.id(), disk.display());
        Ok(Self {
            root: root.into(),
            _holder: holder,
        })
    }

    /// Where it is, seen from outside of the namespace.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that takes its space.
    #[must_use]
    pub fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }

    /// Takes every free byte, once.
    ///
    /// # Errors
    /// There can be no [`Self::filler`].
    pub fn fill(&self) -> io::Result<()> {
        let mut options = fs::File::options();
        let mut filler = options.append(true).create(true).open(self.filler())?;
        for bytes in [65_536, 4_096] {
            while filler.write_all(&vec![0; bytes]).is_ok() {}
        }
        Ok(())
    }

    /// Gives back what [`Self::fill`] took.
    ///
    /// # Errors
    /// It took nothing.
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.filler())
    }
}
