//! Kafka's committed logs, as entries for the judge in [`risiti_sim::ledger`].

use risiti_sim::ledger::{self, Delivery, Entry};

use crate::real_kafka::Committed;

pub use risiti_sim::ledger::{Account, Accounts, Found, Verdict, verdict};

/// Reads a log of records.
///
/// # Errors
/// A message is none, or its headers contradict it.
pub fn read(log: &[Committed]) -> Result<Vec<Found>, String> {
    log.iter().map(|one| ledger::record(&entry(one))).collect()
}

/// Reads a log of receipts.
///
/// # Errors
/// A message is none.
pub fn receipts(log: &[Committed]) -> Result<Vec<Found>, String> {
    log.iter().map(|one| ledger::receipt(&entry(one))).collect()
}

/// Reads a log of finalised transactions.
///
/// # Errors
/// A message is none.
pub fn transactions(log: &[Committed]) -> Result<Vec<Found>, String> {
    log.iter()
        .map(|one| ledger::transaction(&entry(one)))
        .collect()
}

/// Reads a log of delivery events.
///
/// # Errors
/// A message is none.
pub fn deliveries(log: &[Committed]) -> Result<Vec<Delivery>, String> {
    log.iter()
        .map(|one| ledger::delivery(&entry(one)))
        .collect()
}

/// Every acknowledged record of so many is in the log, once and in order.
///
/// # Panics
/// They are not.
pub fn assert_exactly_once(verdict: &Verdict, records: u64) {
    println!("{verdict}");
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.acknowledged, records);
    assert_eq!(verdict.in_kafka, records);
}

fn entry(message: &Committed) -> Entry<'_> {
    Entry {
        partition: message.partition,
        offset: message.offset,
        key: &message.key,
        value: &message.value,
        ce_id: message.header("ce_id"),
        ce_type: message.header("ce_type"),
    }
}
