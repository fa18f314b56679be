//! `risiti site`: the secret that all keys of a site are derived of, and the files in
//! which it and the generations of those keys stand.
//!
//! Promises: a root is made by the operating system's random source, into a file that
//! nobody else can read, and never over another one; one that others could read or
//! write is refused with what to do. Never: a root in an error, a log line or on a
//! screen.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use risiti_bridge::settlement::{Accepted, Generations, Sealing};
use risiti_wire::seal::{ROOT_BYTES, Root};
use zeroize::Zeroizing;

use super::Failure;
use crate::limits::{GENERATIONS_BYTES_MAX, ROOT_FILE_BYTES_MAX};

/// Others may not read, write or run it.
const OTHERS: u32 = 0o007;

/// What is done about a site.
#[derive(Subcommand)]
pub enum Command {
    /// Makes the root of a new site: for settlement, and for whoever provisions
    /// terminals.
    NewRoot {
        /// The file to make; it must not be there yet.
        file: PathBuf,
    },
}

/// Does it.
pub fn run(command: &Command) -> Result<(), Failure> {
    let Command::NewRoot { file } = command;
    new_root(file)?;
    super::say(format_args!(
        "{} holds a new root. Keep a copy where only you can read it: without it no sealed record can be settled any more.",
        file.display()
    ));
    Ok(())
}

fn new_root(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let mut bytes = Zeroizing::new([0_u8; ROOT_BYTES]);
    getrandom::fill(&mut *bytes)
        .map_err(|error| format!("no random bytes are to be had ({error}); try again"))?;
    let mut digits = Zeroizing::new(String::with_capacity(2 * ROOT_BYTES + 1));
    Root::new(*bytes).write_hex(&mut *digits)?;
    digits.push('\n');
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!(
            "{shown} is there already, and whatever was sealed with it needs it; name another file"
        ),
        _ => format!("{shown} can't be made ({error})"),
    })?;
    file.write_all(digits.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| format!("{shown} can't be written ({error}); delete it and try again"))?;
    Ok(())
}

/// Refuses a file that every user of this machine can open.
pub(super) fn require_private(metadata: &Metadata, path: &Path) -> Result<(), String> {
    let mode = metadata.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let shown = path.display();
    Err(format!(
        "{shown} is open to every user of this machine (mode {:03o}); run: chmod 600 {shown}",
        mode & 0o777
    ))
}

/// Reads a site's root.
pub(super) fn read_root(path: &Path) -> Result<Root, Failure> {
    let shown = path.display();
    let unreadable = |error| {
        format!(
            "settlement.root_file {shown} can't be read ({error}); make one with: risiti site new-root {shown}"
        )
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    require_private(&metadata, path).map_err(|error| format!("settlement.root_file {error}"))?;
    let mut text = Zeroizing::new(String::new());
    file.take(ROOT_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Root::from_hex(text.trim_end()).ok_or_else(|| {
        format!(
            "settlement.root_file {shown} does not hold the 64 hexadecimal digits of a root; put back the file that risiti site new-root made"
        )
        .into()
    })
}

/// Reads which generations of keys are accepted; without a file, the first of each
/// terminal.
pub(super) fn read_generations(root_file: &Path) -> Result<Generations, Failure> {
    let path = risiti_config::Settlement::generations_file(root_file);
    let text = match text_of(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Generations::default()),
        Err(error) => {
            let shown = path.display();
            return Err(format!(
                "{shown} can't be read ({error}); let settlement's user read it, or remove it"
            )
            .into());
        }
    };
    Generations::parse(&text).map_err(|error| format!("{} {error}", path.display()).into())
}

/// Changes what is accepted of a terminal; `change` has what was before, if it was
/// named. Settlement notices within seconds.
pub(super) fn accept(
    root_file: &Path,
    terminal: &str,
    change: impl FnOnce(Option<Accepted>) -> Result<Accepted, Failure>,
) -> Result<Accepted, Failure> {
    let path = risiti_config::Settlement::generations_file(root_file);
    crate::access::file::replace(&path, || {
        let before = read_generations(root_file)?.named(terminal);
        let accepted = change(before)?;
        let text = match text_of(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text?,
        };
        Ok((Generations::edited(&text, terminal, accepted), accepted))
    })
}

fn text_of(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    file.take(GENERATIONS_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > GENERATIONS_BYTES_MAX {
        let what = format!("longer than {GENERATIONS_BYTES_MAX} bytes");
        return Err(std::io::Error::other(what));
    }
    Ok(text)
}

/// The file of generations while settlement runs: looked at again and again.
pub(super) struct GenerationsFile {
    root_file: PathBuf,
    sealing: Sealing,
    /// What is accepted now; none: what the file holds now was refused.
    known: Option<Generations>,
}

impl GenerationsFile {
    /// Beside this root. `sealing` holds what was read from it at the start.
    pub(super) fn new(root_file: &Path, sealing: Sealing) -> Self {
        Self {
            root_file: root_file.to_owned(),
            sealing,
            known: None,
        }
    }

    /// Takes over what it says now. While it can't be read, or says nonsense, what it
    /// said before holds.
    pub(super) fn look(&mut self) {
        match read_generations(&self.root_file) {
            Ok(generations) => {
                if self.known.as_ref() == Some(&generations) {
                    return;
                }
                tracing::info!(terminals = generations.len(), "generations of keys taken");
                self.known = Some(generations.clone());
                self.sealing.set_generations(generations);
            }
            Err(error) => {
                if self.known.take().is_some() {
                    tracing::error!(%error, "the generations of keys stay as they were");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn made() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.root");
        new_root(&path).unwrap();
        (dir, path)
    }

    fn refused(path: &Path) -> String {
        read_root(path).err().unwrap().to_string()
    }

    #[test]
    fn a_new_root_is_its_makers_alone_and_none_is_like_another() {
        let (_one, path) = made();
        let (_two, other) = made();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (root, other) = (read_root(&path).unwrap(), read_root(&other).unwrap());
        assert_ne!(root.expose(), other.expose());
        assert_ne!(root.expose(), &[0; ROOT_BYTES]);
    }

    #[test]
    fn a_root_is_never_written_over() {
        let (_dir, path) = made();
        let before = fs::read(&path).unwrap();
        let error = new_root(&path).unwrap_err().to_string();
        assert!(error.contains("name another file"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_root_that_others_can_read_or_write_is_refused_with_what_to_do() {
        let (_dir, path) = made();
        for mode in [0o604, 0o602, 0o644, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = refused(&path);
            assert!(error.contains("chmod 600"), "{error}");
        }
        for mode in [0o600, 0o400, 0o640] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(read_root(&path).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn a_file_that_is_no_root_is_refused_and_not_shown() {
        let (dir, path) = made();
        fs::write(&path, "5ecret").unwrap();
        let error = refused(&path);
        assert!(
            error.contains("64 hexadecimal") && !error.contains("5ecret"),
            "{error}"
        );
        let error = refused(&dir.path().join("none"));
        assert!(error.contains("risiti site new-root"), "{error}");
    }

    #[test]
    fn generations_are_taken_over_and_stay_while_the_file_is_wrong() {
        let (dir, path) = made();
        assert!(read_generations(&path).unwrap().is_empty());
        let sealing = Sealing::new(read_root(&path).unwrap(), true, Generations::default());
        let mut file = GenerationsFile::new(&path, sealing);
        file.look();
        let beside = dir.path().join("site.root.generations");
        fs::write(&beside, "t 2 1\n").unwrap();
        file.look();
        let newest = |file: &GenerationsFile| file.known.as_ref().map(|g| g.of("t").newest);
        assert_eq!(newest(&file), Some(2));
        fs::write(&beside, "t 2\n").unwrap();
        let error = read_generations(&path).unwrap_err().to_string();
        assert!(error.contains("site.root.generations line 1"), "{error}");
        file.look();
        assert_eq!(newest(&file), None);
        fs::write(&beside, "t revoked\n").unwrap();
        file.look();
        assert_eq!(newest(&file), Some(0));
    }
}
