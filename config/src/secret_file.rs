//! Secrets that stand in files of their own.
//!
//! Promises: one trailing line break is no part of the secret, and a file that
//! everybody can read gives a warning; a key is refused if anybody but its owner can
//! read it. Never: what the file holds in an error.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::kind::{FilePath, Refusal};
use crate::limits::SECRET_BYTES_MAX;
use crate::section::Section;
use crate::{Secret, SecretKey};

/// Reads the secret whose file a key names.
pub fn read_secret(section: &Section<'_>, key: &'static str, what: &'static str) -> Option<Secret> {
    let path = section.read_optional(key, &FilePath { what })?;
    let refuse = |found: String, remedy: &str| {
        section.refuse(
            key,
            Refusal::new(&format!("the path of {what}"), &found, remedy),
        );
        None
    };
    let shown = path.display().to_string();
    let (text, mode) = match contents(&path) {
        Ok(read) => read,
        Err(error) => {
            return refuse(
                format!("{shown:?}, which can't be read ({error})"),
                "create the file, readable by the gateway's user only",
            );
        }
    };
    if mode & 0o004 != 0 {
        warn_of_readers(section, key, &path);
    }
    let secret = line_in(&text);
    if secret.is_empty() || secret.contains(['\n', '\0']) {
        return refuse(
            format!("{shown:?}, which does not hold one line of text"),
            "put the secret alone on the first line",
        );
    }
    Some(Secret::new(secret.to_owned()))
}

/// How a path in the directory that systemd gives a service for its credentials
/// begins.
const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";

/// Reads the key of 32 bytes whose file a key names. The file may lie where systemd
/// puts credentials (`LoadCredential=`).
pub fn read_key(section: &Section<'_>, key: &'static str, what: &'static str) -> Option<SecretKey> {
    let given = section.read_optional(key, &FilePath { what })?;
    let refuse = |found: String, remedy: &str| {
        section.refuse(
            key,
            Refusal::new(&format!("the path of {what}"), &found, remedy),
        );
        None
    };
    let credential = given.strip_prefix(CREDENTIALS).ok();
    let path = match (credential, section.report().credentials()) {
        (None, _) => given.clone(),
        (Some(name), Some(directory)) => directory.join(name),
        (Some(_), None) => {
            return refuse(
                format!(
                    "{:?}, and no credentials were given",
                    given.display().to_string()
                ),
                "start it by systemd with LoadCredential= in its unit, or write the path itself",
            );
        }
    };
    let shown = path.display().to_string();
    let (text, mode) = match contents(&path) {
        Ok(read) => read,
        Err(error) => {
            return refuse(
                format!("{shown:?}, which can't be read ({error})"),
                "create the file, readable by the gateway's user only: (umask 077; openssl rand -hex 32 > FILE)",
            );
        }
    };
    // The group's bits of a credential are the mask of an access list that names the
    // service's user alone.
    let others = if credential.is_some() { 0o007 } else { 0o077 };
    if mode & others != 0 {
        return refuse(
            format!("{shown:?}, which others than its owner can read or write"),
            &format!("make it the gateway's user's own and run: chmod 600 {shown}"),
        );
    }
    let read = SecretKey::from_hex(line_in(&text));
    if read.is_none() {
        return refuse(
            format!("{shown:?}, which does not hold 64 hexadecimal digits"),
            "put 32 random bytes there in hexadecimal: openssl rand -hex 32",
        );
    }
    read
}

fn line_in(text: &str) -> &str {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Checks a file that is read later: an error then would be far from the key that
/// caused it.
pub fn read_readable_file(
    section: &Section<'_>,
    key: &'static str,
    what: &'static str,
) -> Option<PathBuf> {
    let path = section.read_optional(key, &FilePath { what })?;
    let opened = File::open(&path).and_then(|file| file.metadata());
    let reason = match opened {
        Ok(metadata) if metadata.is_file() => return Some(path),
        Ok(_) => "which is no file".to_owned(),
        Err(error) => format!("which can't be read ({error})"),
    };
    let found = format!("{:?}, {reason}", path.display().to_string());
    let remedy = "put the PEM file there, readable by the gateway's user";
    section.refuse(
        key,
        Refusal::new(&format!("the path of {what}"), &found, remedy),
    );
    None
}

/// The same for a private key: a warning if every user can read it.
pub fn read_private_file(
    section: &Section<'_>,
    key: &'static str,
    what: &'static str,
) -> Option<PathBuf> {
    let path = read_readable_file(section, key, what)?;
    if std::fs::metadata(&path).is_ok_and(|metadata| mode_of(&metadata) & 0o004 != 0) {
        warn_of_readers(section, key, &path);
    }
    Some(path)
}

fn warn_of_readers(section: &Section<'_>, key: &str, path: &Path) {
    let (name, shown) = (section.path_of(key), path.display());
    section.report().warn(format!(
        "{name}: {shown} can be read by every user of this machine; run: chmod 600 {shown}"
    ));
}

fn contents(path: &Path) -> std::io::Result<(Zeroizing<String>, u32)> {
    let file = File::open(path)?;
    let mode = mode_of(&file.metadata()?);
    // Not moved while it grows: nothing of it stays behind.
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX as usize + 1));
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "longer than {SECRET_BYTES_MAX} bytes"
        )));
    }
    Ok((text, mode))
}

#[cfg(unix)]
fn mode_of(metadata: &std::fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode()
}

#[cfg(not(unix))]
fn mode_of(_: &std::fs::Metadata) -> u32 {
    0
}
