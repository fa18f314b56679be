//! What stands in Kafka, read from messages.
//!
//! Promises: a message that contradicts itself (key, headers, payload) is an
//! error that names its place. Never: a consumer; messages are passed in.

use std::collections::BTreeSet;

use risiti_wire::seal::SealError;
use risiti_wire::{Receipt, Record, peek};
use serde_json::Value;

use crate::site::Site;

/// A message of a topic, as any consumer has it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Where it stands.
    pub partition: i32,
    /// At which offset.
    pub offset: i64,
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// Its header `ce_id`.
    pub ce_id: Option<&'a str>,
    /// Its header `ce_type`.
    pub ce_type: Option<&'a str>,
}

/// One message about one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Who published the record.
    pub client: String,
    /// Its number.
    pub sequence: u64,
    /// Whether it bears the resend mark.
    pub resend: bool,
    /// Where it stands.
    pub partition: i32,
    /// At which offset.
    pub offset: i64,
}

/// One delivery event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    /// The terminal.
    pub terminal: String,
    /// The sequence number of the record that the receipt answers.
    pub sequence: u64,
    /// The receipt's number in the gateway's outbox.
    pub number: u64,
    /// Which gateway delivered it.
    pub gateway: String,
}

/// Reads a record. A terminal's tells its number in its payload and its terminal
/// in the key; a raw one is the text `<client>/<number>`.
///
/// # Errors
/// It is neither, or its headers contradict it.
pub fn record(entry: &Entry<'_>) -> Result<Found, String> {
    let key = key(entry)?;
    let (client, sequence, resend) = match entry.ce_type {
        Some("risiti.record") => {
            let opened = opened(entry, |site| site.opened_record(&key, entry.value))?;
            let record = Record::decode(&opened)
                .map_err(|error| wrong(entry, &format!("no record ({error})")))?;
            let told = format!("{key}/{}", record.sequence);
            if entry.ce_id != Some(&told) {
                return Err(wrong(entry, "ce_id is not the record's"));
            }
            (key.clone(), record.sequence, record.resend)
        }
        Some("mqtt.message") => {
            let text = std::str::from_utf8(entry.value).map_err(|_| wrong(entry, "no text"))?;
            let (client, number) = text
                .rsplit_once('/')
                .ok_or_else(|| wrong(entry, "no number"))?;
            let number = number.parse().map_err(|_| wrong(entry, "no number"))?;
            (client.to_owned(), number, false)
        }
        _ => return Err(wrong(entry, "no ce_type")),
    };
    if client != key {
        return Err(wrong(entry, "the key is not its client"));
    }
    Ok(found(entry, client, sequence, resend))
}

/// Reads a receipt: its terminal in the key, the number in the payload.
///
/// # Errors
/// It is none.
pub fn receipt(entry: &Entry<'_>) -> Result<Found, String> {
    let key = key(entry)?;
    let opened = opened(entry, |site| site.opened_receipt(&key, entry.value))?;
    let receipt =
        Receipt::decode(&opened).map_err(|error| wrong(entry, &format!("no receipt ({error})")))?;
    Ok(found(entry, key, receipt.sequence, false))
}

/// What a message says: one that is sealed must be by the simulated site, for the
/// terminal in its key.
fn opened(
    entry: &Entry<'_>,
    open: impl FnOnce(&Site) -> Result<Vec<u8>, SealError>,
) -> Result<Vec<u8>, String> {
    if peek(entry.value).is_ok_and(|header| header.sealed) {
        open(&Site::default()).map_err(|error| wrong(entry, &error.to_string()))
    } else {
        Ok(entry.value.to_vec())
    }
}

/// Reads a finalised transaction: JSON with `terminal` and `sequence`, its
/// terminal in the key.
///
/// # Errors
/// It is none, or the key contradicts it.
pub fn transaction(entry: &Entry<'_>) -> Result<Found, String> {
    let (terminal, sequence, _) = json(entry)?;
    Ok(found(entry, terminal, sequence, false))
}

/// Reads a delivery event: JSON with `terminal`, `sequence`, `number` and
/// `gateway`, its terminal in the key.
///
/// # Errors
/// It is none, or the key contradicts it.
pub fn delivery(entry: &Entry<'_>) -> Result<Delivery, String> {
    let (terminal, sequence, value) = json(entry)?;
    let number = value["number"]
        .as_u64()
        .ok_or_else(|| wrong(entry, "no number"))?;
    let gateway = value["gateway"]
        .as_str()
        .ok_or_else(|| wrong(entry, "no gateway"))?;
    Ok(Delivery {
        terminal,
        sequence,
        number,
        gateway: gateway.to_owned(),
    })
}

/// Leaves the first of each (client, number, resend mark), in the order of the
/// log, as a consumer does that removes duplicates by `ce_id`; tells how many
/// went. For a Kafka that has no transactions.
#[must_use]
pub fn without_repeats(mut log: Vec<Found>) -> (Vec<Found>, u64) {
    let before = log.len();
    log.sort_by_key(|one| (one.partition, one.offset));
    let mut seen = BTreeSet::new();
    log.retain(|one| seen.insert((one.client.clone(), one.sequence, one.resend)));
    let removed = (before - log.len()) as u64;
    (log, removed)
}

fn json(entry: &Entry<'_>) -> Result<(String, u64, Value), String> {
    let value: Value = serde_json::from_slice(entry.value)
        .map_err(|error| wrong(entry, &format!("no JSON ({error})")))?;
    let key = key(entry)?;
    if value["terminal"].as_str() != Some(&key) {
        return Err(wrong(entry, "the key is not its terminal"));
    }
    let sequence = value["sequence"]
        .as_u64()
        .ok_or_else(|| wrong(entry, "no sequence"))?;
    Ok((key, sequence, value))
}

fn key(entry: &Entry<'_>) -> Result<String, String> {
    let key = std::str::from_utf8(entry.key).map_err(|_| wrong(entry, "the key is no text"))?;
    Ok(key.to_owned())
}

fn found(entry: &Entry<'_>, client: String, sequence: u64, resend: bool) -> Found {
    Found {
        client,
        sequence,
        resend,
        partition: entry.partition,
        offset: entry.offset,
    }
}

fn wrong(entry: &Entry<'_>, what: &str) -> String {
    format!(
        "{what}: partition {}, offset {}, key {}",
        entry.partition,
        entry.offset,
        String::from_utf8_lossy(entry.key)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(key: &'a str, value: &'a str) -> Entry<'a> {
        Entry {
            partition: 3,
            offset: 7,
            key: key.as_bytes(),
            value: value.as_bytes(),
            ce_id: None,
            ce_type: None,
        }
    }

    #[test]
    fn a_transaction_tells_its_terminal_and_number() {
        let found = transaction(&entry("a", r#"{"terminal":"a","sequence":5}"#)).unwrap();
        assert_eq!((found.client.as_str(), found.sequence), ("a", 5));
        assert_eq!((found.partition, found.offset), (3, 7));
    }

    #[test]
    fn a_message_under_anothers_key_is_an_error_that_names_its_place() {
        let error = transaction(&entry("b", r#"{"terminal":"a","sequence":5}"#)).unwrap_err();
        assert!(error.contains("partition 3, offset 7, key b"), "{error}");
    }

    #[test]
    fn a_delivery_without_its_number_is_an_error() {
        let whole = r#"{"terminal":"a","sequence":5,"number":2,"gateway":"g"}"#;
        assert_eq!(delivery(&entry("a", whole)).unwrap().number, 2);
        assert!(delivery(&entry("a", &whole.replace("number", "n"))).is_err());
    }

    #[test]
    fn repeats_are_removed_by_identity_and_a_marked_one_is_no_repeat() {
        let one = |offset, resend| Found {
            client: "a".into(),
            sequence: 1,
            resend,
            partition: 0,
            offset,
        };
        let (left, removed) = without_repeats(vec![one(2, false), one(1, false), one(3, true)]);
        assert_eq!(left, [one(1, false), one(3, true)]);
        assert_eq!(removed, 1);
    }
}
