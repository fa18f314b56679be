//! The terminals that may connect, and their tokens.
//!
//! Promises: it holds digests only; a terminal has one token, or while it is given
//! another one, two; a revoked one has none that is valid. Its text reads back as
//! what was written, and a text that is wrong in anything is refused whole. Never:
//! a clock, a file, or which token was used where.
//!
//! The text, version 1, is TOML, sorted by id so that two files are easily
//! compared:
//!
//! | key | value |
//! | --- | --- |
//! | `version` | 1 |
//! | `[[terminals]]` | one for each terminal |
//! | `id` | `[A-Za-z0-9_-]{1,23}`, once in the file |
//! | `token_sha256` | 64 hexadecimal digits |
//! | `next_sha256` | the same of its next token, while it is given one; else absent |
//! | `revoked` | true; else absent |

use std::collections::BTreeMap;
use std::fmt::Write as _;

use risiti_config::TokenDigest;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use super::token;
use crate::limits::REGISTRY_TERMINALS_MAX;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// One terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Of its token.
    pub token: TokenDigest,
    /// Of the token that follows, once it has been given out: both are valid until
    /// the new one was used, or the change was finished.
    pub next: Option<TokenDigest>,
    /// No token is valid any more.
    pub revoked: bool,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    terminals: BTreeMap<String, Terminal>,
}

/// Which token a client showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one it has.
    Current,
    /// The one that follows.
    Next,
}

/// Why a change was not made, or a text not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No id of a terminal.
    #[error("{0:?} is no terminal id; it takes 1 to 23 of A-Z, a-z, 0-9, _ and -")]
    BadId(String),
    /// The id is taken.
    #[error("terminal {0} is in the registry; `risiti terminal rotate {0}` gives it another token")]
    Exists(String),
    /// The id is taken by one that was revoked.
    #[error(
        "terminal {0} was revoked; `risiti terminal add --reinstate {0}` takes it back with a new token"
    )]
    WasRevoked(String),
    /// No such terminal.
    #[error("no terminal {0} in the registry; `risiti terminal list` names them")]
    Unknown(String),
    /// Another token was given out already.
    #[error(
        "terminal {0} has not used its next token yet; `risiti terminal rotate --finish {0}` ends the old one, `rotate --again {0}` makes another next one"
    )]
    Rotating(String),
    /// No other token was given out.
    #[error("terminal {0} has one token only; `risiti terminal rotate {0}` makes the next one")]
    NotRotating(String),
    /// As many as may be.
    #[error("the registry holds {REGISTRY_TERMINALS_MAX} terminals, as many as it may")]
    Full,
    /// The text is none of a registry.
    #[error("{0}; restore the file from a backup or another gateway (`risiti terminal export`)")]
    Malformed(String),
    /// A later release wrote it.
    #[error("it is of version {0}, this release reads version {VERSION}: upgrade the gateway")]
    Version(u32),
}

#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(rename = "version")]
    _version: u32,
    #[serde(default)]
    terminals: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    token_sha256: String,
    next_sha256: Option<String>,
    #[serde(default)]
    revoked: bool,
}

impl Registry {
    /// From its text.
    ///
    /// # Errors
    /// It is wrong in something.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        // What the parser says shows the line, which holds a digest: only where.
        let malformed = |error: &toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
            RegistryError::Malformed(format!("line {line}: {}", error.message()))
        };
        let head: Head = toml::from_str(text).map_err(|error| malformed(&error))?;
        if head.version != VERSION {
            return Err(RegistryError::Version(head.version));
        }
        let parsed: Text = toml::from_str(text).map_err(|error| malformed(&error))?;
        if parsed.terminals.len() > REGISTRY_TERMINALS_MAX {
            return Err(RegistryError::Full);
        }
        let mut terminals = BTreeMap::new();
        for entry in parsed.terminals {
            let Entry { id, revoked, .. } = entry;
            check_id(&id)?;
            let digest = |text: &str| {
                TokenDigest::from_hex(text).ok_or_else(|| {
                    RegistryError::Malformed(format!(
                        "a digest of terminal {id} is not 64 hexadecimal digits"
                    ))
                })
            };
            let terminal = Terminal {
                token: digest(&entry.token_sha256)?,
                next: entry.next_sha256.as_deref().map(digest).transpose()?,
                revoked,
            };
            if terminals.contains_key(&id) {
                return Err(RegistryError::Malformed(format!(
                    "terminal {id} stands in it twice"
                )));
            }
            terminals.insert(id, terminal);
        }
        Ok(Self { terminals })
    }

    /// Its text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!(
            "# Terminals of a site; `risiti terminal` looks after this file.\nversion = {VERSION}\n"
        );
        for (id, terminal) in &self.terminals {
            let mut entry = || -> std::fmt::Result {
                writeln!(out, "\n[[terminals]]\nid = \"{id}\"")?;
                writeln!(out, "token_sha256 = \"{}\"", terminal.token.to_hex())?;
                if let Some(next) = terminal.next {
                    writeln!(out, "next_sha256 = \"{}\"", next.to_hex())?;
                }
                if terminal.revoked {
                    writeln!(out, "revoked = true")?;
                }
                Ok(())
            };
            entry().expect("writing to a String can't fail");
        }
        out
    }

    /// One terminal.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Terminal> {
        self.terminals.get(id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Terminal)> {
        self.terminals.iter().map(|(id, t)| (id.as_str(), t))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.terminals.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terminals.is_empty()
    }

    /// Which of a terminal's tokens that is, whether or not it is revoked. Both are
    /// looked at, whichever it is.
    #[must_use]
    pub fn which(&self, id: &str, shown: &TokenDigest) -> Option<Which> {
        let terminal = self.terminals.get(id)?;
        let current = token::same(&terminal.token, shown);
        let next = terminal
            .next
            .map_or_else(|| 0u8.ct_eq(&1), |next| token::same(&next, shown));
        if current.into() {
            Some(Which::Current)
        } else if next.into() {
            Some(Which::Next)
        } else {
            None
        }
    }

    /// Adds a terminal. `reinstate`: one that was revoked gets a new token.
    ///
    /// # Errors
    /// The id is none or taken, or there is no room.
    pub fn add(
        &mut self,
        id: &str,
        token: TokenDigest,
        reinstate: bool,
    ) -> Result<(), RegistryError> {
        check_id(id)?;
        match self.terminals.get(id) {
            Some(old) if !old.revoked => return Err(RegistryError::Exists(id.to_owned())),
            Some(_) if !reinstate => return Err(RegistryError::WasRevoked(id.to_owned())),
            None if self.terminals.len() >= REGISTRY_TERMINALS_MAX => {
                return Err(RegistryError::Full);
            }
            _ => {}
        }
        let terminal = Terminal {
            token,
            next: None,
            revoked: false,
        };
        self.terminals.insert(id.to_owned(), terminal);
        Ok(())
    }

    /// Gives a terminal its next token; the one it has stays valid. `again`: in
    /// place of a next one that was lost on the way.
    ///
    /// # Errors
    /// There is no such terminal, it is revoked, or it has a next one.
    pub fn rotate(
        &mut self,
        id: &str,
        next: TokenDigest,
        again: bool,
    ) -> Result<(), RegistryError> {
        let terminal = self.active(id)?;
        if terminal.next.is_some() && !again {
            return Err(RegistryError::Rotating(id.to_owned()));
        }
        terminal.next = Some(next);
        Ok(())
    }

    /// Ends the validity of the token that has a successor.
    ///
    /// # Errors
    /// There is no such terminal, it is revoked, or it has no next token.
    pub fn finish(&mut self, id: &str) -> Result<(), RegistryError> {
        let terminal = self.active(id)?;
        let Some(next) = terminal.next.take() else {
            return Err(RegistryError::NotRotating(id.to_owned()));
        };
        terminal.token = next;
        Ok(())
    }

    /// Ends the validity of all tokens of a terminal. False: they had ended.
    ///
    /// # Errors
    /// There is no such terminal.
    pub fn revoke(&mut self, id: &str) -> Result<bool, RegistryError> {
        let terminal = self
            .terminals
            .get_mut(id)
            .ok_or_else(|| RegistryError::Unknown(id.to_owned()))?;
        Ok(!std::mem::replace(&mut terminal.revoked, true))
    }

    fn active(&mut self, id: &str) -> Result<&mut Terminal, RegistryError> {
        match self.terminals.get_mut(id) {
            None => Err(RegistryError::Unknown(id.to_owned())),
            Some(terminal) if terminal.revoked => Err(RegistryError::WasRevoked(id.to_owned())),
            Some(terminal) => Ok(terminal),
        }
    }
}

fn check_id(id: &str) -> Result<(), RegistryError> {
    risiti_wire::validate_terminal_id(id).map_err(|_| RegistryError::BadId(id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> TokenDigest {
        token::digest(&[n])
    }

    #[test]
    fn old_and_new_token_are_valid_until_the_change_is_finished() {
        let mut r = Registry::default();
        r.add("t1", digest(1), false).unwrap();
        assert_eq!(r.which("t1", &digest(1)), Some(Which::Current));
        assert_eq!(r.which("t1", &digest(2)), None);
        assert_eq!(r.which("t2", &digest(1)), None);
        r.rotate("t1", digest(2), false).unwrap();
        assert_eq!(r.which("t1", &digest(1)), Some(Which::Current));
        assert_eq!(r.which("t1", &digest(2)), Some(Which::Next));
        // A next one that may be on its way is not replaced by mistake.
        let again = r.rotate("t1", digest(3), false);
        assert_eq!(again, Err(RegistryError::Rotating("t1".into())));
        r.rotate("t1", digest(3), true).unwrap();
        assert_eq!(r.which("t1", &digest(2)), None);
        r.finish("t1").unwrap();
        assert_eq!(r.which("t1", &digest(1)), None);
        assert_eq!(r.which("t1", &digest(3)), Some(Which::Current));
        assert_eq!(r.finish("t1"), Err(RegistryError::NotRotating("t1".into())));
    }

    #[test]
    fn a_revoked_terminal_comes_back_only_by_name_and_with_a_new_token() {
        let mut r = Registry::default();
        r.add("t1", digest(1), false).unwrap();
        let exists = r.add("t1", digest(2), true);
        assert_eq!(exists, Err(RegistryError::Exists("t1".into())));
        r.rotate("t1", digest(2), false).unwrap();
        assert_eq!(r.revoke("t1"), Ok(true));
        assert_eq!(r.revoke("t1"), Ok(false));
        let was_revoked = Err(RegistryError::WasRevoked("t1".into()));
        assert_eq!(r.add("t1", digest(3), false), was_revoked);
        assert_eq!(r.rotate("t1", digest(3), false), was_revoked);
        assert_eq!(r.finish("t1"), was_revoked);
        assert!(r.get("t1").unwrap().revoked);
        r.add("t1", digest(3), true).unwrap();
        assert!(!r.get("t1").unwrap().revoked);
        for old in [1, 2] {
            assert_eq!(r.which("t1", &digest(old)), None, "token {old}");
        }
        let unknown = RegistryError::Unknown("t2".into());
        assert_eq!(r.revoke("t2"), Err(unknown.clone()));
        assert_eq!(r.rotate("t2", digest(1), true), Err(unknown));
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut r = Registry::default();
        assert_eq!(Registry::parse(&r.to_text()), Ok(r.clone()));
        for (n, id) in ["b", "a", "c-_Z9"].into_iter().enumerate() {
            r.add(id, digest(n as u8), false).unwrap();
        }
        r.rotate("a", digest(9), false).unwrap();
        r.revoke("b").unwrap();
        assert_eq!(Registry::parse(&r.to_text()), Ok(r.clone()));
        let ids: Vec<_> = r.iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["a", "b", "c-_Z9"]);
    }

    #[test]
    fn a_text_that_is_wrong_in_anything_is_refused_whole() {
        let mut r = Registry::default();
        r.add("t1", digest(1), false).unwrap();
        let good = r.to_text();
        let twice = format!("{good}{}", &good[good.find("[[").unwrap()..]);
        for (bad, says) in [
            (String::new(), "version"),
            ("version = 2".into(), "version 2"),
            ("version = \"1\"".into(), "line 1"),
            (good.replace("version = 1", ""), "version"),
            (good.replace("t1", "t/1"), "terminal id"),
            (good.replace("t1", "+"), "terminal id"),
            (good.replace("t1", ""), "terminal id"),
            (good.replace("token_sha256", "token"), "line 6"),
            (format!("{good}revoked = \"yes\"\n"), "line 7"),
            (format!("{good}next_sha256 = \"00\"\n"), "digest"),
            (format!("{good}surprise = 1\n"), "surprise"),
            (twice, "twice"),
            (good[..good.len() - 2].to_owned(), "line"),
        ] {
            let error = Registry::parse(&bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}\n{error}");
            assert!(!error.contains(&digest(1).to_hex()[..8]), "{error}");
        }
    }

    #[test]
    fn no_bit_that_flips_makes_another_token_valid() {
        let mut r = Registry::default();
        r.add("t1", digest(1), false).unwrap();
        let text = r.to_text().into_bytes();
        for at in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let Some(read) = String::from_utf8(flipped)
                .ok()
                .and_then(|t| Registry::parse(&t).ok())
            else {
                continue;
            };
            assert_eq!(read.which("t1", &digest(2)), None);
        }
    }

    #[test]
    fn it_is_bounded() {
        let terminals = (0..REGISTRY_TERMINALS_MAX).map(|n| {
            let terminal = Terminal {
                token: digest(0),
                next: None,
                revoked: false,
            };
            (format!("t{n}"), terminal)
        });
        let mut r = Registry {
            terminals: terminals.collect(),
        };
        assert_eq!(
            r.add("one-more", digest(1), false),
            Err(RegistryError::Full)
        );
        r.revoke("t0").unwrap();
        r.add("t0", digest(1), true).unwrap();
    }
}
