//! `risiti terminal enroll`: the keys that a terminal made itself, from its display into
//! the file beside the site's root.
//!
//! Promises: a code is read from standard input alone, so that it stands in no list of
//! processes and no history; keys of one terminal and generation are enrolled once; the
//! file is its owner's alone, and written whole or not at all. Never: a code or a key in
//! an error, a log line or on a screen.

use std::fs::File;
use std::io::{BufRead as _, ErrorKind, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use risiti_bridge::settlement::{Accepted, Enrolled, Sealing};
use risiti_wire::seal::FIRST_GENERATION;
use risiti_wire::seal::code::{self, CODE_CHARS, CODE_ROW_CHARS, CODE_ROWS};
use zeroize::Zeroizing;

use super::{Failure, site};
use crate::access::file::{self, Stamp};
use crate::limits::{CODE_BYTES_MAX, ENROLLED_BYTES_MAX};

/// Enrols the keys whose code stands on standard input.
pub fn enroll(root_file: &Path, id: &str, generation: Option<u8>) -> Result<(), Failure> {
    let named = site::read_generations(root_file)?.named(id);
    let generation = match (generation, named) {
        (Some(generation), _) => generation,
        (None, None) => FIRST_GENERATION,
        (None, Some(accepted)) => accepted.last(),
    };
    // Refused before somebody types 56 characters.
    require_accepted(id, generation, named.unwrap_or_default())?;
    read_enrolled(root_file)?;
    let (record, receipt) = code::decode(id, generation, &typed()?)
        .map_err(|error| format!("the code of terminal {id}, generation {generation}: {error}"))?;
    let path = risiti_config::Settlement::enrolled_file(root_file);
    let with = || -> Result<_, Failure> {
        let text = text_of(&path)?.unwrap_or_default();
        Enrolled::with(&text, id, &record, &receipt)
            .map(Zeroizing::new)
            .map_err(|error| format!("{}: {error}", path.display()).into())
    };
    with()?;
    // Accepted first: keys that were enrolled can't be a second time, should that fail.
    if named.unwrap_or_default().last() < generation {
        site::accept(root_file, id, |before| {
            let before = before.unwrap_or_default();
            let least = match before.newest {
                0 => generation,
                _ => before.least,
            };
            let newest = before.last().max(generation);
            Ok(Accepted { newest, least })
        })?;
    }
    file::replace(&path, || with().map(|text| (text, ())))?;
    super::say(format_args!(
        "terminal     {id}\nkeys         generation {generation}, enrolled in {}",
        path.display()
    ));
    Ok(())
}

/// Keys that settlement would refuse are not enrolled.
fn require_accepted(id: &str, generation: u8, accepted: Accepted) -> Result<(), Failure> {
    let Accepted { newest, least } = accepted;
    if generation > accepted.last() || (newest > 0 && generation >= least) {
        return Ok(());
    }
    let next = match newest {
        0 => format!("risiti terminal add {id} --reinstate --own-keys"),
        _ => format!("risiti terminal rotate {id} --own-keys"),
    };
    Err(format!(
        "keys of generation {generation} of terminal {id} are not accepted any more; give it the next ones: {next}"
    )
    .into())
}

/// The rows that somebody types, or another program gives.
fn typed() -> Result<Zeroizing<String>, Failure> {
    let stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        eprintln!(
            "Type the {CODE_ROWS} rows of {CODE_ROW_CHARS} characters that the terminal shows (Ctrl-D gives up):"
        );
    }
    let mut text = Zeroizing::new(String::with_capacity(CODE_BYTES_MAX as usize + 1));
    let mut rows = stdin.take(CODE_BYTES_MAX);
    let is_whole = |text: &str| {
        let characters = text.bytes().filter(u8::is_ascii_alphanumeric);
        characters.count() >= CODE_CHARS
    };
    while !is_whole(&text) && rows.read_line(&mut text)? > 0 {}
    Ok(text)
}

/// Reads the keys that are enrolled; without a file, none.
pub(super) fn read_enrolled(root_file: &Path) -> Result<Enrolled, Failure> {
    let path = risiti_config::Settlement::enrolled_file(root_file);
    let Some(text) = text_of(&path)? else {
        return Ok(Enrolled::default());
    };
    Enrolled::parse(&text).map_err(|error| format!("{} {error}", path.display()).into())
}

/// What the file says; none if there is no file.
fn text_of(path: &Path) -> Result<Option<Zeroizing<String>>, Failure> {
    let shown = path.display();
    let unreadable = |error| {
        format!("{shown} can't be read ({error}); let settlement's user read it, and nobody else")
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(unreadable)?,
    };
    let metadata = file.metadata().map_err(unreadable)?;
    site::require_private(&metadata, path)?;
    if metadata.len() > ENROLLED_BYTES_MAX {
        return Err(format!("{shown} is longer than {ENROLLED_BYTES_MAX} bytes; take away keys of former generations").into());
    }
    // Room for all of it at once: a text that grows leaves copies behind.
    let room = usize::try_from(metadata.len()).unwrap_or_default() + 1;
    let mut text = Zeroizing::new(String::with_capacity(room));
    file.take(metadata.len())
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Ok(Some(text))
}

/// The file of enrolled keys while settlement runs: looked at again and again.
pub(super) struct EnrolledFile {
    root_file: PathBuf,
    sealing: Sealing,
    /// Of what was looked at last.
    stamp: Option<Stamp>,
    /// Whether there were keys in it.
    had_keys: bool,
}

impl EnrolledFile {
    /// Beside this root.
    pub(super) fn new(root_file: &Path, sealing: Sealing) -> Self {
        Self {
            root_file: root_file.to_owned(),
            sealing,
            stamp: None,
            had_keys: false,
        }
    }

    /// Takes over what it says now. While it can't be read, or says nonsense, or is
    /// gone, what it said before holds: else derived keys would be taken for those that
    /// were enrolled.
    pub(super) fn look(&mut self) {
        let path = risiti_config::Settlement::enrolled_file(&self.root_file);
        let stamp = Stamp::now(&path).ok().flatten();
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        match read_enrolled(&self.root_file) {
            Ok(enrolled) if enrolled.is_empty() && self.had_keys => {
                tracing::error!(
                    file = %path.display(),
                    "no enrolled keys stand there any more; those that were known stay in force until a restart"
                );
            }
            Ok(enrolled) => {
                tracing::info!(keys = enrolled.len(), "enrolled keys taken");
                self.had_keys |= !enrolled.is_empty();
                self.sealing.set_enrolled(enrolled);
            }
            Err(error) => tracing::error!(%error, "the enrolled keys stay as they were"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use risiti_bridge::settlement::Generations;
    use risiti_wire::seal::{Direction, Key, Root};

    use super::*;

    fn line(terminal: &str, byte: u8) -> String {
        let key = |direction| Key::new(direction, 1, [byte; 16]).unwrap();
        let (record, receipt) = (key(Direction::Up), key(Direction::Down));
        Enrolled::with("", terminal, &record, &receipt).unwrap()
    }

    fn private(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn keys_that_others_can_read_are_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("site.root");
        assert!(read_enrolled(&root).unwrap().is_empty());
        let path = dir.path().join("site.root.enrolled");
        private(&path, &line("t1", 7));
        assert_eq!(read_enrolled(&root).unwrap().len(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_enrolled(&root).unwrap_err().to_string();
        assert!(
            error.contains("chmod 600") && !error.contains("0707"),
            "{error}"
        );
        private(&path, "t1 1 0707\n");
        let error = read_enrolled(&root).unwrap_err().to_string();
        assert!(
            error.contains("site.root.enrolled line 1") && !error.contains("0707"),
            "{error}"
        );
    }

    #[test]
    fn enrolled_keys_are_taken_over_and_never_let_go_while_settlement_runs() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("site.root");
        let path = dir.path().join("site.root.enrolled");
        let sealing = Sealing::new(Root::new([1; 32]), true, Generations::default());
        let mut file = EnrolledFile::new(&root, sealing.clone());
        let has = || sealing.enrolled();
        file.look();
        assert_eq!(has(), 0);
        private(&path, &line("t1", 7));
        file.look();
        assert_eq!(has(), 1);
        private(&path, "nonsense and nothing else\n");
        file.look();
        assert_eq!(has(), 1);
        fs::remove_file(&path).unwrap();
        file.look();
        assert_eq!(has(), 1);
        private(&path, &(line("t1", 7) + &line("t2", 8)));
        file.look();
        assert_eq!(has(), 2);
    }
}
