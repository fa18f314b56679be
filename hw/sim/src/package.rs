//! What a terminal is set up with, in one file: `ID.terminal`.
//!
//! Promises: for the eyes of whoever made it only, and never in place of another
//! file: what stands there may be the only copy of a token. Never: a secret in an error
//! or in `Debug`.
//!
//! The file is TOML, version 1:
//!
//! | key | value |
//! | --- | --- |
//! | `version` | 1 |
//! | `id` | the terminal's id: client identifier, and level of its topics |
//! | `token` | its MQTT password |
//! | `gateway` | `host:port` of its gateway; absent if nobody said |
//! | `seal.generation` | of its keys; the table is absent if it is to seal nothing |
//! | `seal.record`, `seal.receipt` | its two keys, 32 hexadecimal digits each |
//! | `seal.own` | true: it makes the keys of this generation itself; then none stand here |

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use risiti_wire::seal::{Direction, KEY_BYTES, Key, Root};
use serde::{Deserialize, Serialize};

use crate::limits::PACKAGE_BYTES_MAX;
use crate::site::Keys;

const VERSION: u32 = 1;

/// What a terminal is set up with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    version: u32,
    /// Its id.
    pub id: String,
    /// Its token.
    pub token: String,
    /// Where its gateway is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seal: Option<Seal>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    generation: u8,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    own: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    record: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    receipt: String,
}

/// Whole at once: a text that grows leaves copies behind.
fn digits(key: &Key) -> String {
    let mut digits = String::with_capacity(2 * KEY_BYTES);
    let _ = key.write_hex(&mut digits);
    digits
}

impl std::fmt::Debug for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Package").field("id", &self.id).finish()
    }
}

impl Package {
    /// Of a terminal that seals nothing.
    #[must_use]
    pub fn new(id: &str, token: &str, gateway: Option<&str>) -> Self {
        Self {
            version: VERSION,
            id: id.into(),
            token: token.into(),
            gateway: gateway.map(Into::into),
            seal: None,
        }
    }

    /// With its keys of this site and generation.
    ///
    /// # Errors
    /// Its id is none, or the generation is 0.
    pub fn sealed(mut self, root: &Root, generation: u8) -> io::Result<Self> {
        let keys = Keys::of(root, &self.id, generation).map_err(io::Error::other)?;
        self.seal = Some(Seal {
            generation,
            own: false,
            record: digits(&keys.record),
            receipt: digits(&keys.receipt),
        });
        Ok(self)
    }

    /// Of a terminal that makes its keys of this generation itself.
    #[must_use]
    pub fn with_own_keys(mut self, generation: u8) -> Self {
        self.seal = Some(Seal {
            generation,
            own: true,
            record: String::new(),
            receipt: String::new(),
        });
        self
    }

    /// The generation of the keys that it makes itself, if it does.
    #[must_use]
    pub fn own_keys(&self) -> Option<u8> {
        let seal = self.seal.as_ref()?;
        seal.own.then_some(seal.generation)
    }

    /// Its keys.
    ///
    /// # Errors
    /// What stands there are none.
    pub fn keys(&self) -> io::Result<Option<Keys>> {
        let Some(seal) = &self.seal else {
            return Ok(None);
        };
        if seal.own && seal.generation > 0 && seal.record.is_empty() && seal.receipt.is_empty() {
            return Ok(None);
        }
        let key = |direction, digits| Key::from_hex(direction, seal.generation, digits);
        match (
            key(Direction::Up, &seal.record),
            key(Direction::Down, &seal.receipt),
        ) {
            (Some(record), Some(receipt)) if !seal.own => Ok(Some(Keys { record, receipt })),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "seal: a generation from 1 and either two keys of 32 hexadecimal digits or own = true are expected",
            )),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, or is none of this version.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        File::open(path)?
            .take(PACKAGE_BYTES_MAX)
            .read_to_string(&mut text)?;
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        // toml's own error shows the line, and with it a key.
        let package: Self = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.get(..at).map_or(1, |before| before.lines().count().max(1));
            wrong(format!(
                "line {line}: no file of a terminal; make one with: risiti terminal add ID --out FILE"
            ))
        })?;
        if package.version != VERSION {
            return Err(wrong(format!(
                "version {}, and {VERSION} is known here",
                package.version
            )));
        }
        package.keys()?;
        Ok(package)
    }

    /// What the file says, but for the warning at its head.
    ///
    /// # Errors
    /// The library's.
    pub fn to_text(&self) -> io::Result<String> {
        toml::to_string(self).map_err(io::Error::other)
    }

    /// Writes it to a new file.
    ///
    /// # Errors
    /// There is a file already, or it can't be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = self.to_text()?;
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(b"# Holds the terminal's secrets: delete it once the terminal has them.\n")?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use risiti_wire::seal::ROOT_BYTES;

    use super::*;

    fn package() -> Package {
        Package::new("t1", "5ecret", Some("pay.example.org:1883"))
    }

    #[test]
    fn what_is_written_is_read_for_its_owner_only_and_replaces_no_other_file() {
        let dir = std::env::temp_dir().join(format!("package-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("t1.terminal");
        let root = Root::new([7; ROOT_BYTES]);
        let package = package().sealed(&root, 3).unwrap();
        package.write(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(package.write(&path).is_err());
        let read = Package::read(&path).unwrap();
        assert_eq!((read.id.as_str(), read.token.as_str()), ("t1", "5ecret"));
        assert_eq!(read.gateway.as_deref(), Some("pay.example.org:1883"));
        let Keys { record, receipt } = read.keys().unwrap().unwrap();
        for (key, direction) in [(record, Direction::Up), (receipt, Direction::Down)] {
            let own = root.key("t1", 3, direction).unwrap();
            assert_eq!((key.generation(), key.expose()), (3, own.expose()));
        }
        // What is none says where, and shows nothing of it.
        for wrong in [
            "version = 2\nid = \"t\"\ntoken = \"5ecret\"\n",
            "version = 1\nid = \"t\"\ntoken = 5ecret\n",
            "version = 1\nid = \"t\"\ntoken = \"5ecret\"\nseal = { generation = 0, record = \"\", receipt = \"\" }\n",
            "version = 1\nid = \"t\"\ntoken = \"5ecret\"\nmore = 1\n",
        ] {
            std::fs::write(&path, wrong).unwrap();
            let error = Package::read(&path).unwrap_err().to_string();
            assert!(!error.contains("5ecret"), "{error}");
        }
        assert!(!format!("{:?}", super::tests::package()).contains("5ecret"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_terminal_that_makes_its_own_keys_is_given_none() {
        let own = package().with_own_keys(2);
        assert_eq!(own.own_keys(), Some(2));
        assert!(own.keys().unwrap().is_none());
        let text = own.to_text().unwrap();
        assert!(text.contains("own = true"), "{text}");
        assert!(
            !text.contains("record") && !text.contains("receipt"),
            "{text}"
        );
        let read: Package = toml::from_str(&text).unwrap();
        assert_eq!(read.own_keys(), Some(2));
        assert!(package().with_own_keys(0).keys().is_err());
        // Both is neither.
        let mut both = package().sealed(&Root::new([7; ROOT_BYTES]), 1).unwrap();
        assert_eq!(both.own_keys(), None);
        both.seal.as_mut().unwrap().own = true;
        assert!(both.keys().is_err());
    }

    #[test]
    fn a_terminal_without_a_root_has_no_keys() {
        assert!(package().keys().unwrap().is_none());
        assert!(package().sealed(&Root::new([7; ROOT_BYTES]), 0).is_err());
    }
}
