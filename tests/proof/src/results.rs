//! What was seen: `tests/proof/results.jsonl`, one line a run of a machine.
//!
//! Promises: a line says what ran, how often, from which seed, on which commit, and
//! what failed; lines are only ever added. A result counts for the product that it
//! ran on: the tree of `firmware`, `gateway`, `bridge`, `config` at that commit.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// What a machine says of itself, in a line that begins with `PROOF `.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The machine.
    pub what: String,
    /// Which guarantees it tried to break.
    #[serde(default)]
    pub guarantees: String,
    /// How often it tried.
    pub runs: u64,
    /// How often it did.
    #[serde(default)]
    pub failures: u64,
    /// From which all its choices follow; none if it has none.
    #[serde(default)]
    pub seed: Option<serde_json::Value>,
    /// Other counts worth knowing.
    #[serde(default)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// One run of a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// What the machine said.
    #[serde(flatten)]
    pub said: Said,
    /// How long it took, seconds.
    pub seconds: u64,
    /// UTC, `2026-01-31 17:05`.
    pub ended: String,
    /// The commit, with `+` if files were changed since.
    pub commit: String,
    /// What of it is the product.
    pub product: String,
    /// Exactly how it was run.
    pub command: String,
}

/// What is checked out.
#[derive(Debug, Clone)]
pub struct Version {
    /// The commit, with `+` if files were changed since.
    pub commit: String,
    /// A digest of the product's trees.
    pub product: String,
}

/// What the words of a machine's output say.
#[must_use]
pub fn said(line: &str) -> Option<Said> {
    // A test's name may stand before it on the line.
    let at = line.find("PROOF {")?;
    serde_json::from_str(&line[at + "PROOF ".len()..]).ok()
}

/// What was seen so far.
///
/// # Errors
/// In words: the file, and what is wrong with it.
pub fn read(path: &Path) -> Result<Vec<Seen>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let mut seen = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let told =
            |what: &dyn std::fmt::Display| format!("{}:{}: {what}", path.display(), number + 1);
        let line = line.map_err(|e| told(&e))?;
        seen.push(serde_json::from_str(&line).map_err(|e| told(&e))?);
    }
    Ok(seen)
}

/// Adds what was seen.
///
/// # Errors
/// In words: the file, and why it can't be written.
pub fn add(path: &Path, seen: &Seen) -> Result<(), String> {
    let line = serde_json::to_string(seen).map_err(|e| e.to_string())?;
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| writeln!(file, "{line}"))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// What is checked out at `root`.
///
/// # Errors
/// It is no git repository, or there is no git.
pub fn version(root: &Path) -> Result<Version, String> {
    let commit = git(root, &["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(
        root,
        &[
            "status",
            "--porcelain",
            "--",
            "firmware",
            "gateway",
            "bridge",
            "config",
            "hw",
            "tests/*.rs",
        ],
    )?;
    let mut trees = String::new();
    for tree in ["firmware", "gateway", "bridge", "config"] {
        let hash = git(root, &["rev-parse", &format!("HEAD:{tree}")])?;
        trees += &hash[..hash.len().min(4)];
    }
    Ok(Version {
        commit: if changed.is_empty() {
            commit
        } else {
            commit + "+"
        },
        product: trees,
    })
}

/// The time of day, UTC, as people write it.
///
/// # Errors
/// There is no `date`.
pub fn time_of_day() -> Result<String, String> {
    output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]))
}

fn git(root: &Path, words: &[&str]) -> Result<String, String> {
    output(Command::new("git").arg("-C").arg(root).args(words))
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {why}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_line_is_found_behind_the_name_of_its_test() {
        let line = r#"test it ... PROOF {"what":"it","runs":3,"failures":0,"seed":7,"seconds":1}"#;
        let said = said(line).map(|said| (said.what, said.runs, said.seed));
        assert_eq!(said, Some(("it".into(), 3, Some(7.into()))));
    }

    #[test]
    fn what_is_no_such_line_says_nothing() {
        for line in ["", "PROOF", "PROOF {", "PROOF {}", r#"PROOF {"what":"x"}"#] {
            assert_eq!(said(line), None, "{line}");
        }
    }
}
