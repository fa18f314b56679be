//! A store that a process of its own fills, and is killed over, as a power cut
//! finds it: its locks go, and nothing is closed.
//!
//! Promises: the filling process is the test's own binary, with this test alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Instant;

use tempfile::TempDir;

/// Where the filling process is to work.
const STORE: &str = "RISITI_FILL_STORE";

/// The store in `data/store` of a gateway's directory.
#[derive(Debug)]
pub struct FilledStore {
    /// The gateway's directory.
    pub dir: TempDir,
    /// By how much the filling process grew in memory, as `fill` told.
    pub grown_bytes: u64,
}

impl FilledStore {
    /// Filled by `fill`, which must keep open whatever it opened. To be called
    /// first in the test of that name: the filling process comes there, too, and
    /// ends in here.
    ///
    /// # Errors
    /// The filling process failed; the error holds what it said.
    pub fn by(test: &str, fill: impl FnOnce(&Path) -> u64) -> io::Result<Self> {
        if let Some(store) = std::env::var_os(STORE) {
            println!("grown {}", fill(&PathBuf::from(store)));
            process::abort();
        }
        let dir = tempfile::tempdir()?;
        let store = dir.path().join("data/store");
        fs::create_dir_all(&store)?;
        let filling = Instant::now();
        let output = Command::new(std::env::current_exe()?)
            .args(["--exact", test, "--nocapture"])
            .env(STORE, &store)
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let grown_bytes = said
            .lines()
            .find_map(|line| line.split_once("grown ")?.1.trim().parse().ok())
            .ok_or_else(|| {
                let errors = String::from_utf8_lossy(&output.stderr);
                io::Error::other(format!("{said}{errors}"))
            })?;
        println!(
            "filled in {:.0} s, memory grew by {} MiB",
            filling.elapsed().as_secs_f64(),
            grown_bytes >> 20
        );
        Ok(Self { dir, grown_bytes })
    }
}
