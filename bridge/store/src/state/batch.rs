//! A set of puts and deletes that become durable together.

use crate::{StoreError, limits};

use super::envelope::PIECE_BYTES;
use super::value::Value;

/// Ordered puts and deletes. Applied atomically: after a power cut all of it is
/// there or nothing, unless [`Batch::allow_splitting`] was called.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) operations: Vec<(Vec<u8>, Option<Value>)>,
    pub(crate) non_atomic: bool,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `value` under `key`; a later operation on the same key wins.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.put_value(key.into(), Value::plain(value.into()));
        self
    }

    pub(crate) fn put_value(&mut self, key: Vec<u8>, value: Value) {
        self.bytes += key.len() + value.bytes.len();
        self.operations.push((key, Some(value)));
    }

    /// Deletes `key`; deleting what is not there is fine.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) -> &mut Self {
        let key = key.into();
        self.bytes += key.len();
        self.operations.push((key, None));
        self
    }

    /// The operations in order: a key, and its value or none if it is deleted.
    pub fn operations(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.operations
            .iter()
            .map(|(key, value)| (&key[..], value.as_ref().map(|value| &value.bytes[..])))
    }

    /// Lets a batch of more than [`limits::BATCH_KEYS_MAX`] keys be applied in
    /// several steps, in order: a power cut may leave a beginning of it.
    pub fn allow_splitting(&mut self) -> &mut Self {
        self.non_atomic = true;
        self
    }

    /// Whether nothing was put or deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Operations so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Keys and values together, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// In parts that each fit one atomic step; one part unless it may be split.
    pub(crate) fn into_parts(self) -> Vec<Self> {
        if !self.non_atomic {
            return vec![self];
        }
        let mut parts = Vec::new();
        let mut part = Self::new();
        let mut keys = 0;
        for (key, value) in self.operations {
            let operation_keys = 1 + pieces_of(bytes_of(value.as_ref()));
            if keys + operation_keys > limits::BATCH_KEYS_MAX {
                parts.push(std::mem::take(&mut part));
                keys = 0;
            }
            keys += operation_keys;
            match value {
                Some(value) => part.put_value(key, value),
                None => {
                    part.delete(key);
                }
            }
        }
        parts.push(part);
        parts
    }

    /// Whether it may be let in, if each value grows by so much.
    pub(crate) fn check(&self, grows_bytes: usize) -> Result<(), StoreError> {
        let mut keys = 0;
        for (key, value) in &self.operations {
            let value_bytes = bytes_of(value.as_ref());
            at_most("a key in bytes", key.len(), limits::KEY_BYTES_MAX)?;
            at_most(
                "a value in bytes",
                value_bytes,
                limits::STATE_VALUE_BYTES_MAX,
            )?;
            keys += 1;
            if value.is_some() {
                keys += pieces_of(value_bytes + grows_bytes);
            }
        }
        if !self.non_atomic {
            at_most("an atomic batch in keys", keys, limits::BATCH_KEYS_MAX)?;
        }
        Ok(())
    }
}

/// How large a value is, if it is put, bytes.
pub(crate) fn bytes_of(value: Option<&Value>) -> usize {
    value.map_or(0, |value| value.bytes.len())
}

/// How many pieces a value of this size takes beside its own entry.
pub(crate) fn pieces_of(value_bytes: usize) -> usize {
    if value_bytes <= PIECE_BYTES {
        0
    } else {
        value_bytes.div_ceil(PIECE_BYTES)
    }
}

fn at_most(what: &'static str, is: usize, max: usize) -> Result<(), StoreError> {
    if is > max {
        return Err(StoreError::Limit { what, is, max });
    }
    Ok(())
}
