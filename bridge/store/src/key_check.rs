//! Tells the right key from a wrong or a missing one, before any value is read.
//!
//! Promises: once a value may be encrypted, this file says so and is on disk; with
//! another key, or none, opening fails before anything is touched, so that what
//! can't be read is never taken for damage. If the file itself is gone or damaged,
//! what lies in the store judges the key. Never: anything a key could be found from.
//!
//! | offset | bytes | in the file `key-check` of the store's directory |
//! | --- | --- | --- |
//! | 0 | 4 | magic `RsK1` |
//! | 4 | 4 | version, 1, big-endian |
//! | 8 | 32 | derived from the key, as in `encryption.rs` |
//! | 40 | 4 | CRC32C of bytes 0..40, big-endian |

use std::path::Path;

use crate::encryption::{KEY_BYTES, PackCipher, StoreKey, ValueCipher};
use crate::journal::evidence as journal_evidence;
use crate::options::StoreOptions;
use crate::state::evidence as state_evidence;
use crate::{StoreError, files};

const MAGIC: &[u8; 4] = b"RsK1";
const VERSION: u32 = 1;
const FILE_BYTES: usize = 44;

/// What some bytes of a store say about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Evidence {
    /// Nothing is encrypted.
    None,
    /// Something is, and not with this one.
    Against,
    /// Something is, with this one.
    For,
}

/// Checks the key of `options` against the store; what to encrypt values of the
/// state with.
///
/// # Errors
/// [`StoreError::Key`], or the operating system refused.
pub(crate) fn check(options: &StoreOptions) -> Result<Option<ValueCipher>, StoreError> {
    let dir = &options.dir;
    let path = dir.join("key-check");
    let told = match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(StoreError::io("read", &path, e)),
    };
    let Some(key) = &options.key else {
        return match told {
            Some(_) => Err(missing(dir)),
            None => Ok(None),
        };
    };
    let due = content(key);
    let cipher = ValueCipher::new(key)?;
    match told {
        Some(bytes) if bytes == due => {
            // The life that named it may have failed at just that sync.
            files::sync_dir(dir)?;
            return Ok(Some(cipher));
        }
        Some(bytes) if is_whole(&bytes) => return Err(wrong(dir)),
        Some(_) => {
            tracing::error!(path = %path.display(), "damaged, the store's values judge the key")
        }
        None => {}
    }
    // New, or plain until now, or the file was lost.
    if evidence(dir, key, &cipher)? == Evidence::Against {
        return Err(wrong(dir));
    }
    files::create_dir(dir)?;
    files::write_whole(&path, &due)?;
    Ok(Some(cipher))
}

fn evidence(dir: &Path, key: &StoreKey, cipher: &ValueCipher) -> Result<Evidence, StoreError> {
    let pack_cipher = |journal: &[u8; 16]| PackCipher::of(key, journal);
    let journal = journal_evidence(&dir.join("journal"), &pack_cipher)?;
    Ok(journal.max(state_evidence(&dir.join("state"), cipher)?))
}

fn content(key: &StoreKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    let derived: &[u8; KEY_BYTES] = &key.derive(&[b"risiti store check 1"]);
    bytes.extend_from_slice(derived);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else {
        return false;
    };
    bytes.len() == FILE_BYTES
        && &content[..4] == MAGIC
        && crc32c::crc32c(content) == u32::from_be_bytes(*crc)
}

/// Something is encrypted, and there is no key.
pub(crate) fn missing(dir: &Path) -> StoreError {
    StoreError::Key {
        path: dir.to_path_buf(),
        reason: "its values are encrypted and no key is given; name the file of its key in store.key_file",
    }
}

fn wrong(dir: &Path) -> StoreError {
    StoreError::Key {
        path: dir.to_path_buf(),
        reason: "its values are encrypted with another key than the one in store.key_file; put the old key back",
    }
}
