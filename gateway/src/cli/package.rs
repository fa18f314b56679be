//! What a terminal is set up with, as a file for whoever flashes it.
//!
//! Promises: for the eyes of whoever made it only, and never in place of another
//! file: what stands there may be the only copy of a token.
//!
//! The file is TOML, version 1:
//!
//! | key | value |
//! | --- | --- |
//! | `version` | 1 |
//! | `id` | the terminal's id: client identifier, and level of its topics |
//! | `token` | its MQTT password |
//! | `gateway` | `host:port` of its gateway; absent if nobody said |

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::access::Token;

/// What a terminal is set up with.
pub struct Package<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its token.
    pub token: &'a Token,
    /// Where its gateway is reached.
    pub gateway: Option<&'a str>,
}

impl Package<'_> {
    fn to_text(&self) -> String {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let mut text = format!(
            "# Holds the terminal's token: delete this file once the terminal has it.\nversion = 1\nid = {}\ntoken = {}\n",
            quoted(self.id),
            quoted(self.token.expose())
        );
        if let Some(gateway) = self.gateway {
            text.push_str(&format!("gateway = {}\n", quoted(gateway)));
        }
        text
    }

    /// Writes it to a new file.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_for_its_owner_only_and_replaces_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t1.toml");
        let token = Token::generate().unwrap();
        let package = Package {
            id: "t1",
            token: &token,
            gateway: Some("pay.example.org:1883"),
        };
        package.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let read: toml::Table = text.parse().unwrap();
        assert_eq!(read["version"].as_integer(), Some(1));
        assert_eq!(read["id"].as_str(), Some("t1"));
        assert_eq!(read["token"].as_str(), Some(token.expose()));
        assert_eq!(read["gateway"].as_str(), Some("pay.example.org:1883"));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(package.write(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
