//! Values of the store, unreadable to whoever takes the disk.
//!
//! AES-256-GCM-SIV (RFC 8452), whose promise outlives a nonce that is used twice:
//! then it only shows that the same bytes stand under the same name. So the
//! journal's core needs no random source, and a directory that was copied and went
//! on twice gives nothing away.
//!
//! | derived from the key by HKDF-SHA256, without a salt | info |
//! | --- | --- |
//! | what packs of one journal are encrypted with (`journal/pack.rs`) | `risiti store journal 1` and the journal's id (16) |
//! | what values of the state are encrypted with | `risiti store state 1` |
//! | what tells the right key (`key_check.rs`) | `risiti store check 1` |
//!
//! A value of the state, encrypted, whole before it is cut into pieces; the
//! associated data is the row's key:
//!
//! | bytes | field |
//! | --- | --- |
//! | 12 | nonce: a random number of this opening, counted on |
//! | | ciphertext, as long as the value |
//! | 16 | tag |
//!
//! Never encrypted: names of rows (in them terminals, clients and topics), sizes,
//! positions, times of writing, what `RsS1` and `RsO1` entries say of themselves,
//! and what was written before there was a key, until it is written again. It is no
//! protection against whoever can write to the disk: plain values are taken too.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aes_gcm_siv::aead::AeadInOut;
use aes_gcm_siv::aead::inout::InOutBuf;
use aes_gcm_siv::{Aes256GcmSiv, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::StoreError;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// Bytes of a nonce and of a tag.
const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;

/// How much a value of the state grows.
pub(crate) const VALUE_GROWS_BYTES: usize = NONCE_BYTES + TAG_BYTES;

type Secret = Zeroizing<[u8; KEY_BYTES]>;

/// What all keys of a store are derived of. Overwritten when it is dropped, and
/// shown by nothing.
#[derive(Clone)]
pub struct StoreKey(Arc<Secret>);

impl StoreKey {
    /// From its bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    pub(crate) fn derive(&self, info: &[&[u8]]) -> Secret {
        let mut derived = Zeroizing::new([0; KEY_BYTES]);
        let expanded =
            Hkdf::<Sha256>::new(None, &self.0[..]).expand_multi_info(info, &mut *derived);
        debug_assert!(expanded.is_ok(), "only above 255 blocks of 32 bytes");
        derived
    }

    fn cipher(&self, info: &[&[u8]]) -> Arc<Aes256GcmSiv> {
        Arc::new(Aes256GcmSiv::new((&*self.derive(info)).into()))
    }
}

/// Encrypts bodies of one journal's packs.
#[derive(Clone)]
pub struct PackCipher(Arc<Aes256GcmSiv>);

impl PackCipher {
    /// For the journal of this id.
    #[must_use]
    pub fn of(key: &StoreKey, journal: &[u8; 16]) -> Self {
        Self(key.cipher(&[b"risiti store journal 1", journal]))
    }

    /// Encrypts in place; the tag.
    pub(crate) fn encrypt(
        &self,
        nonce: [u8; NONCE_BYTES],
        head: &[u8],
        body: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let nonce = Nonce::from(nonce);
        let tag = (self.0).encrypt_inout_detached(&nonce, head, InOutBuf::from(&mut body[..]));
        match tag {
            Ok(tag) => tag.into(),
            // Only above 2^36 bytes. Lost is better than open.
            Err(_) => {
                body.fill(0);
                [0; TAG_BYTES]
            }
        }
    }

    /// The body, if its tag fits.
    pub(crate) fn decrypt(
        &self,
        nonce: [u8; NONCE_BYTES],
        head: &[u8],
        body: &[u8],
    ) -> Option<Vec<u8>> {
        open(&self.0, nonce, head, body)
    }
}

/// Encrypts values of the state.
pub(crate) struct ValueCipher {
    cipher: Arc<Aes256GcmSiv>,
    /// Where the nonces of this opening begin.
    nonces_from: u128,
    nonces: AtomicU64,
}

impl ValueCipher {
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn new(key: &StoreKey) -> Result<Self, StoreError> {
        let path = Path::new("/dev/urandom");
        let mut random = [0; 16];
        File::open(path)
            .and_then(|mut file| file.read_exact(&mut random[4..]))
            .map_err(|e| StoreError::io("read", path, e))?;
        Ok(Self::with_nonces(key, u128::from_be_bytes(random)))
    }

    fn with_nonces(key: &StoreKey, nonces_from: u128) -> Self {
        Self {
            cipher: key.cipher(&[b"risiti store state 1"]),
            nonces_from,
            nonces: AtomicU64::new(0),
        }
    }

    /// The value under a row's key, as it is stored.
    ///
    /// # Errors
    /// It is larger than any that is let in.
    pub(crate) fn encrypt(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let count = u128::from(self.nonces.fetch_add(1, Ordering::Relaxed));
        let number = self.nonces_from.wrapping_add(count).to_be_bytes();
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&number[16 - NONCE_BYTES..]);
        let mut bytes = Vec::with_capacity(value.len() + VALUE_GROWS_BYTES);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(value);
        let body = InOutBuf::from(&mut bytes[NONCE_BYTES..]);
        let tag = (self.cipher)
            .encrypt_inout_detached(&Nonce::from(nonce), key, body)
            .map_err(|_| StoreError::Limit {
                what: "a value in bytes",
                is: value.len(),
                max: crate::limits::STATE_VALUE_BYTES_MAX,
            })?;
        bytes.extend_from_slice(&tag);
        Ok(bytes)
    }

    /// The value, if its tag fits.
    pub(crate) fn decrypt(&self, key: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = stored.split_first_chunk::<NONCE_BYTES>()?;
        open(&self.cipher, *nonce, key, body)
    }
}

fn open(
    cipher: &Aes256GcmSiv,
    nonce: [u8; NONCE_BYTES],
    associated: &[u8],
    body: &[u8],
) -> Option<Vec<u8>> {
    let (ciphertext, tag) = body.split_last_chunk::<TAG_BYTES>()?;
    let mut plain = ciphertext.to_vec();
    let nonce = Nonce::from(nonce);
    let buffer = InOutBuf::from(&mut plain[..]);
    cipher
        .decrypt_inout_detached(&nonce, associated, buffer, &Tag::from(*tag))
        .ok()?;
    Some(plain)
}

#[cfg(test)]
mod tests;
