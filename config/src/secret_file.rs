//! Secrets that stand in files of their own.
//!
//! Promises: one trailing line break is no part of the secret, and a file that
//! everybody can read gives a warning. Never: what the file holds in an error.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Secret;
use crate::kind::{FilePath, Refusal};
use crate::limits::SECRET_BYTES_MAX;
use crate::section::Section;

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
    let (text, readable_by_all) = match contents(&path) {
        Ok(read) => read,
        Err(error) => {
            return refuse(
                format!("{shown:?}, which can't be read ({error})"),
                "create the file, readable by the gateway's user only",
            );
        }
    };
    if readable_by_all {
        let name = section.path_of(key);
        section.report().warn(format!(
            "{name}: {shown} can be read by every user of this machine; run: chmod 600 {shown}"
        ));
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() || secret.contains(['\n', '\0']) {
        return refuse(
            format!("{shown:?}, which does not hold one line of text"),
            "put the secret alone on the first line",
        );
    }
    Some(Secret::new(secret.to_owned()))
}

/// Checks a file that librdkafka reads later: an error then would be far from
/// the key that caused it.
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

fn contents(path: &Path) -> std::io::Result<(String, bool)> {
    let file = File::open(path)?;
    let readable_by_all = is_readable_by_all(&file.metadata()?);
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "longer than {SECRET_BYTES_MAX} bytes"
        )));
    }
    Ok((text, readable_by_all))
}

#[cfg(unix)]
fn is_readable_by_all(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn is_readable_by_all(_: &std::fs::Metadata) -> bool {
    false
}
