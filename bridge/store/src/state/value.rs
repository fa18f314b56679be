//! A value as the state keeps it, and what its callers see of it.
//!
//! Promises: within the state a value stays as it was written, encrypted or plain,
//! whatever moves it, and whoever moves it needs no key; callers see only plain ones.

use std::path::Path;

use crate::encryption::{VALUE_GROWS_BYTES, ValueCipher};
use crate::key_check::{self, Evidence};
use crate::{StoreError, files, raw_scan};

use super::Batch;
use super::envelope::{ENTRY, ENVELOPE_BYTES_MAX, Envelope, Kind, MAGIC};
use super::log;

/// See the head of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) bytes: Vec<u8>,
    pub(crate) encrypted: bool,
}

impl Value {
    pub(crate) fn plain(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            encrypted: false,
        }
    }

    /// What was put under `key`; none if it does not fit its tag.
    ///
    /// # Errors
    /// It is encrypted, and there is no key.
    pub(super) fn open(
        self,
        key: &[u8],
        cipher: Option<&ValueCipher>,
        dir: &Path,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match (self.encrypted, cipher) {
            (false, _) => Ok(Some(self.bytes)),
            (true, Some(cipher)) => Ok(cipher.decrypt(key, &self.bytes)),
            (true, None) => Err(key_check::missing(dir)),
        }
    }
}

/// How much each value of a batch grows when it is encrypted, bytes.
pub(super) fn grows_bytes(cipher: Option<&ValueCipher>) -> usize {
    cipher.map_or(0, |_| VALUE_GROWS_BYTES)
}

/// The batch with its values as they are stored.
pub(super) fn encrypted(batch: Batch, cipher: Option<&ValueCipher>) -> Result<Batch, StoreError> {
    let Some(cipher) = cipher else {
        return Ok(batch);
    };
    let mut stored = Batch::new();
    stored.non_atomic = batch.non_atomic;
    for (key, value) in batch.operations {
        match value {
            Some(value) if !value.encrypted => {
                let bytes = cipher.encrypt(&key, &value.bytes)?;
                let encrypted = true;
                stored.put_value(key, Value { bytes, encrypted });
            }
            Some(value) => stored.put_value(key, value),
            None => {
                stored.delete(key);
            }
        }
    }
    Ok(stored)
}

/// What the values that lie in the raw bytes of a state's directory say about a
/// key. Large ones say nothing: they lie in pieces.
pub(crate) fn evidence(dir: &Path, cipher: &ValueCipher) -> Result<Evidence, StoreError> {
    let mut found = Evidence::None;
    let mut judge = |key: &[u8], value: &[u8]| {
        found = found.max(match cipher.decrypt(key, value) {
            Some(_) => Evidence::For,
            None => Evidence::Against,
        });
    };
    for name in ["db", "before", "fresh"] {
        if !files::is_dir(&dir.join(name))? {
            continue;
        }
        raw_scan::scan_database(
            &dir.join(name),
            MAGIC,
            ENVELOPE_BYTES_MAX,
            &mut |_, bytes| {
                let (envelope, length) = Envelope::decode(bytes)?;
                if let (true, Kind::Value, Some((&ENTRY, key))) = (
                    envelope.encrypted,
                    envelope.kind,
                    envelope.key.split_first(),
                ) {
                    judge(key, envelope.value);
                }
                Some(length)
            },
        )?;
    }
    log::each_encrypted(&dir.join("rows"), &mut judge)?;
    Ok(found)
}
