//! The notes of what was changed, by whom, and when.
//!
//! Promises: a note is on disk when [`Audit::note`] returns; notes are only ever
//! added; what is kept is bounded, and of two full files the older goes. Never: a
//! secret, or a line that somebody's text could end.
//!
//! `data_dir/audit.log`, and `audit.log.1` before it: a line of JSON for each note.
//!
//! | key | value |
//! | --- | --- |
//! | `at` | when, RFC 3339, UTC |
//! | `who` | by whom |
//! | `what` | what was asked for |
//! | `outcome` | `asked`, or what came of it: an HTTP status, `done` |

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::limits::AUDIT_BYTES_MAX;

/// The notes.
#[derive(Default)]
pub struct Audit {
    to: Option<(PathBuf, Arc<dyn Clock>)>,
    open: Mutex<Option<File>>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Audit")
    }
}

impl Audit {
    /// In that data directory.
    pub fn new(data_dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self {
            to: Some((data_dir.join("audit.log"), clock)),
            open: Mutex::default(),
        }
    }

    /// Notes nothing.
    pub fn disabled() -> Self {
        Self::default()
    }

    /// Whether anything is noted.
    pub fn is_enabled(&self) -> bool {
        self.to.is_some()
    }

    /// Adds a note. Waits for the disk.
    ///
    /// # Errors
    /// The operating system's: then nothing may rely on the note.
    pub fn note(&self, who: &str, what: &str, outcome: &str) -> std::io::Result<()> {
        let Some((path, clock)) = &self.to else {
            return Ok(());
        };
        let at = risiti_bridge::headers::rfc_3339(clock.unix_ms());
        let mut line = serde_json::json!({
            "at": at, "who": who, "what": what, "outcome": outcome,
        })
        .to_string();
        line.push('\n');
        let mut open = self.open.lock();
        let mut file = match open.take() {
            Some(file) => file,
            None => append_to(path)?,
        };
        if file.metadata()?.len() + line.len() as u64 > AUDIT_BYTES_MAX {
            drop(file);
            let mut before = path.clone().into_os_string();
            before.push(".1");
            std::fs::rename(path, before)?;
            file = append_to(path)?;
        }
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        *open = Some(file);
        Ok(())
    }
}

fn append_to(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn notes_are_added_over_restarts_a_line_each() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        for n in 0..3 {
            let audit = Audit::new(dir.path(), clock.clone());
            audit
                .note("me", &format!("POST /{n}\n{{\"at\":0}}"), "asked")
                .unwrap();
            audit.note("me", &format!("POST /{n}"), "200").unwrap();
        }
        let noted = lines(&dir.path().join("audit.log"));
        assert_eq!(noted.len(), 6);
        assert_eq!(noted[0]["at"], "2023-11-14T22:13:20.000Z");
        assert_eq!(noted[5]["what"], "POST /2");
        assert_eq!(noted[5]["outcome"], "200");
    }

    #[test]
    fn they_are_bounded_and_the_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let audit = Audit::new(dir.path(), clock);
        let long = "x".repeat(AUDIT_BYTES_MAX as usize / 8);
        for n in 0..30 {
            audit.note("me", &format!("{n} {long}"), "asked").unwrap();
        }
        let mut bytes = 0;
        for name in ["audit.log", "audit.log.1"] {
            bytes += std::fs::metadata(dir.path().join(name)).unwrap().len();
        }
        assert!(bytes <= 2 * AUDIT_BYTES_MAX);
        let newest = lines(&dir.path().join("audit.log"));
        assert!(
            newest.last().unwrap()["what"]
                .as_str()
                .unwrap()
                .starts_with("29 ")
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_can_not_be_noted_is_told() {
        let clock = Arc::new(ManualClock::at(0));
        let audit = Audit::new(Path::new("/nowhere"), clock);
        assert!(audit.note("me", "x", "asked").is_err());
        assert!(Audit::disabled().note("me", "x", "asked").is_ok());
    }
}
