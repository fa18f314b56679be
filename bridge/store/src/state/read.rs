//! Reading the state: single values and pages of a prefix.
//!
//! A large value lies in pieces that carry the stamp of their head. A reader
//! may see the head of one commit and pieces of the next; it then reads again.

use std::ops::Bound;

use crate::StoreError;
use crate::database::Database;

use super::envelope::{Envelope, Head, Kind, entry_key, piece_key};
use super::value::Value;
use super::{KeyValue, Shared, Work, log};

/// How often a large value that is being overwritten is read again.
const TRIES: usize = 16;

pub(super) fn get(shared: &Shared, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    if log::is_numbered(key) {
        let found = row(shared, key);
        if matches!(found, Err(StoreError::Damaged { .. })) {
            drop_row(shared, key);
        }
        return found;
    }
    let database = shared.database()?;
    let stored_key = entry_key(key);
    for _ in 0..TRIES {
        let Some(bytes) = database.get(&stored_key)? else {
            return Ok(None);
        };
        match read(shared, &database, &stored_key, &bytes)? {
            Read::Whole(value) => return Ok(value),
            Read::Damaged => {
                if database.get(&stored_key)?.is_some_and(|now| now == bytes) {
                    set_aside(shared, &stored_key, &bytes);
                    return Err(damaged(&database, key));
                }
            }
        }
    }
    Err(damaged(&database, key))
}

/// A numbered row.
///
/// # Errors
/// [`StoreError::Damaged`], or it can't be read now.
pub(super) fn row(shared: &Shared, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(value) = shared.rows.get(key)? else {
        return Ok(None);
    };
    match value.open(key, shared.cipher.as_ref(), &shared.dir)? {
        Some(value) => Ok(Some(value)),
        None => Err(shared.rows.unfit(key)),
    }
}

enum Read {
    /// `None`: deleted.
    Whole(Option<Vec<u8>>),
    Damaged,
}

/// The value whose entry is `bytes`, as its caller put it.
fn read(
    shared: &Shared,
    database: &Database,
    stored_key: &[u8],
    bytes: &[u8],
) -> Result<Read, StoreError> {
    let value = match assemble(database, stored_key, bytes)? {
        Assembled::Whole(Some(value)) => value,
        Assembled::Whole(None) => return Ok(Read::Whole(None)),
        Assembled::Damaged => return Ok(Read::Damaged),
    };
    let opened = value.open(&stored_key[1..], shared.cipher.as_ref(), &shared.dir)?;
    Ok(opened.map_or(Read::Damaged, |value| Read::Whole(Some(value))))
}

pub(super) fn scan(
    shared: &Shared,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<KeyValue>, StoreError> {
    let mut found = scan_database(shared, prefix, after, limit)?;
    if log::may_hold(prefix) {
        let numbered = scan_rows(shared, prefix, after, limit)?;
        if !numbered.is_empty() {
            found.extend(numbered);
            found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            found.truncate(limit);
        }
    }
    Ok(found)
}

fn scan_rows(
    shared: &Shared,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<KeyValue>, StoreError> {
    let mut found = Vec::new();
    let mut after = after.map(<[u8]>::to_vec);
    while found.len() < limit {
        let keys = shared
            .rows
            .keys(prefix, after.as_deref(), limit - found.len());
        let Some(last) = keys.last() else { break };
        after = Some(last.clone());
        for key in keys {
            match get(shared, &key) {
                Ok(Some(value)) => found.push((key, value)),
                Ok(None) | Err(StoreError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

fn scan_database(
    shared: &Shared,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<KeyValue>, StoreError> {
    let database = shared.database()?;
    let stored_prefix = entry_key(prefix);
    let mut found = Vec::new();
    let mut from = match after {
        Some(key) => Bound::Excluded(entry_key(key)),
        None => Bound::Included(stored_prefix.clone()),
    };
    while found.len() < limit {
        // Tombstones are skipped, so a page may take more than one look.
        let wanted = limit - found.len();
        let page = database.page(from.as_ref().map(Vec::as_slice), wanted, |key| {
            key.starts_with(&stored_prefix)
        })?;
        let last_page = page.len() < wanted;
        for (stored_key, bytes) in &page {
            match read(shared, &database, stored_key, bytes)? {
                Read::Whole(Some(value)) => found.push((stored_key[1..].to_vec(), value)),
                Read::Whole(None) => {}
                Read::Damaged => match get(shared, &stored_key[1..]) {
                    // It was being overwritten.
                    Ok(Some(value)) => found.push((stored_key[1..].to_vec(), value)),
                    Ok(None) | Err(StoreError::Damaged { .. }) => {}
                    Err(e) => return Err(e),
                },
            }
        }
        match page.last() {
            Some((stored_key, _)) if !last_page => from = Bound::Excluded(stored_key.to_vec()),
            _ => break,
        }
    }
    Ok(found)
}

pub(super) enum Assembled {
    /// `None`: deleted.
    Whole(Option<Value>),
    Damaged,
}

/// Puts together the value whose entry is `bytes`, as it was written.
pub(super) fn assemble(
    database: &Database,
    stored_key: &[u8],
    bytes: &[u8],
) -> Result<Assembled, StoreError> {
    let Some(envelope) = Envelope::decode_for(stored_key, bytes) else {
        return Ok(Assembled::Damaged);
    };
    match envelope.kind {
        Kind::Value => {
            return Ok(Assembled::Whole(Some(Value {
                bytes: envelope.value.to_vec(),
                encrypted: envelope.encrypted,
            })));
        }
        Kind::Tombstone => return Ok(Assembled::Whole(None)),
        Kind::Piece => return Ok(Assembled::Damaged),
        Kind::Head => {}
    }
    let Some(head) = Head::decode(envelope.value) else {
        return Ok(Assembled::Damaged);
    };
    let mut value = Vec::with_capacity(head.total_bytes.min(crate::limits::STATE_VALUE_BYTES_MAX));
    for piece in 0..head.pieces {
        let stored_key = piece_key(&stored_key[1..], piece);
        let Some(bytes) = database.get(&stored_key)? else {
            return Ok(Assembled::Damaged);
        };
        match Envelope::decode_for(&stored_key, &bytes) {
            Some(found) if found.kind == Kind::Piece && found.stamp == envelope.stamp => {
                value.extend_from_slice(found.value);
            }
            _ => return Ok(Assembled::Damaged),
        }
    }
    if value.len() != head.total_bytes || crc32c::crc32c(&value) != head.crc {
        return Ok(Assembled::Damaged);
    }
    Ok(Assembled::Whole(Some(Value {
        bytes: value,
        encrypted: envelope.encrypted,
    })))
}

fn set_aside(shared: &Shared, stored_key: &[u8], bytes: &[u8]) {
    tracing::error!(key = ?stored_key, "state: damaged value, quarantined");
    let work = Work::SetAside {
        stored_key: stored_key.to_vec(),
        bytes: bytes.to_vec(),
    };
    // If the queue is full or closing, the next reader finds it again.
    let _ = shared.enqueue(work);
}

fn drop_row(shared: &Shared, key: &[u8]) {
    tracing::error!(?key, "state: damaged row, quarantined");
    let work = Work::DropRow { key: key.to_vec() };
    // As above.
    let _ = shared.enqueue(work);
}

fn damaged(database: &Database, key: &[u8]) -> StoreError {
    StoreError::Damaged {
        what: format!("state entry {}", key.escape_ascii()),
        path: database.dir().to_path_buf(),
    }
}
