//! What both benchmarks begin and end with.
//!
//! Promises: nothing of an earlier run is in the way; the report is a file, too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

/// The directory to work in, empty.
///
/// # Errors
/// It can't be made, or what is there can't be removed.
pub fn work_dir(dir: &Path, name: &str) -> io::Result<PathBuf> {
    let work = dir.join(name);
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    Ok(work)
}

/// `risiti` beside this binary: both are of the same build.
///
/// # Errors
/// This binary is nowhere.
pub fn risiti() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().unwrap_or(Path::new(".")).join("risiti"))
}

/// Leaves the report as JSON, and says where.
///
/// # Errors
/// The file can't be written.
pub fn leave(report: &impl Serialize, file: &Path) -> io::Result<()> {
    let json = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
    fs::write(file, json + "\n")?;
    println!("{}", file.display());
    Ok(())
}

/// How a benchmark ends; it tells why it could not be done.
#[must_use]
pub fn end(done: io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
