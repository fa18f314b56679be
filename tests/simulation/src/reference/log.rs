//! What an auditor reads in Kafka: committed records only.
//!
//! Promises: each message is looked at once, when it becomes visible. Never: an
//! offset compared across partitions.

use std::collections::{BTreeMap, BTreeSet};

use risiti_sim::site::Site;
use risiti_wire::{Receipt, Record, RecordBody};

use super::book::{Book, Content};
use super::{Name, Tally, Violation, broken};
use crate::kafka::{Committed, Kafka, topics};

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Log {
    seen: BTreeMap<&'static str, Vec<usize>>,
    records: BTreeMap<Name, Content>,
    /// Journal and position of every record and delivery.
    places: BTreeSet<(Vec<u8>, u64)>,
    /// By journal, terminal and number, without the resend mark.
    firsts: BTreeSet<(Vec<u8>, Name)>,
    /// The highest number of each terminal, by journal.
    highest: BTreeMap<(Vec<u8>, String), u64>,
    settled: BTreeSet<Name>,
    receipts: Vec<(i32, i64, Name)>,
    numbers: BTreeMap<Name, u64>,
    visible: usize,
    /// What gateways have counted as damaged: their memory of a terminal's resends
    /// may have been it, or records.
    pub(super) told_lost: u64,
    /// Records behind later ones because of that: damage hit them before anybody had
    /// their PUBACK, and their terminals sent them again.
    overtaken: BTreeSet<Name>,
    /// Terminals whose records stand twice because of that.
    forgotten: BTreeSet<String>,
    /// The keys of all.
    site: Site,
    /// What somebody without one has written.
    pub(super) forged: BTreeSet<Vec<u8>>,
    /// Where of that records stand: partition, offset.
    pub(super) forged_at: BTreeSet<(i64, i64)>,
}

impl Log {
    /// Reads what is new.
    pub(super) fn read(
        &mut self,
        kafka: &Kafka,
        books: &BTreeMap<String, Book>,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let topics = [
            topics::RECORDS,
            topics::TRANSACTIONS,
            topics::REJECTED,
            topics::RECEIPTS,
            topics::DELIVERIES,
        ];
        let visible = topics.iter().map(|topic| kafka.visible(topic)).sum();
        if visible == self.visible {
            return Ok(());
        }
        self.visible = visible;
        for topic in topics {
            let mut seen = self.seen.remove(topic).unwrap_or_default();
            let news = kafka.newly_visible(topic, &mut seen);
            let news: Vec<Committed> = news.cloned().collect();
            self.seen.insert(topic, seen);
            for message in news {
                match topic {
                    topics::RECORDS => {
                        tally.records += 1;
                        self.record(&message, books, tally)?;
                    }
                    topics::RECEIPTS => {
                        tally.receipts += 1;
                        self.receipt(&message, books)?;
                    }
                    topics::DELIVERIES => self.once(&message)?,
                    topics::TRANSACTIONS => {
                        tally.settled += 1;
                        self.transaction(&message)?;
                    }
                    _ => self.rejected(&message, tally)?,
                }
            }
        }
        Ok(())
    }

    /// A place of a journal stands once in Kafka.
    fn once(&mut self, message: &Committed) -> Result<(), Violation> {
        let journal = message.header("risiti-journal").unwrap_or_default();
        let position = text(message.header("risiti-position"));
        let position = position.parse().unwrap_or_default();
        if !self.places.insert((journal.to_vec(), position)) {
            let what = format!(
                "position {position} of a journal stands again at {}@{}, {}",
                message.partition,
                message.offset,
                text(message.header("ce_id"))
            );
            return broken("G2", what);
        }
        Ok(())
    }

    fn record(
        &mut self,
        message: &Committed,
        books: &BTreeMap<String, Book>,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let id = text(message.key.as_deref());
        let value = message.value.as_deref().unwrap_or_default();
        let place = (i64::from(message.partition), message.offset);
        if self.forged.contains(value) || self.forged_at.contains(&place) {
            self.forged_at.insert(place);
            return Ok(());
        }
        self.once(message)?;
        let opened = self.site.opened_record(&id, value).unwrap_or_default();
        let (Some(book), Ok(record)) = (books.get(&id), Record::decode(&opened)) else {
            return broken("G9", format!("a record of {id:?} that is none in Kafka"));
        };
        let RecordBody::Payment(payment) = record.body else {
            return broken("G9", format!("{id} took back a payment: nobody did"));
        };
        let content = (payment.account.to_string(), payment.amount_minor);
        let sequence = record.sequence;
        book.check(&id, sequence, &content)?;
        let name = (id.clone(), sequence);
        self.records.insert(name.clone(), content);
        if record.resend {
            tally.resent += 1;
            return Ok(());
        }
        let journal = message.header("risiti-journal").unwrap_or_default();
        if !self.firsts.insert((journal.to_vec(), name.clone())) {
            self.forgotten.insert(id.clone());
            if self.forgotten.len() as u64 > self.told_lost {
                return broken("G2", format!("{id}/{sequence} stands twice in Kafka"));
            }
            return Ok(());
        }
        let highest = self.highest.entry((journal.to_vec(), id.clone()));
        let highest = highest.or_default();
        if sequence > *highest {
            *highest = sequence;
            return Ok(());
        }
        self.overtaken.insert(name);
        if self.overtaken.len() as u64 > self.told_lost {
            let what = format!("{id}/{sequence} stands behind {highest}");
            return broken("G3", what);
        }
        Ok(())
    }

    fn receipt(
        &mut self,
        message: &Committed,
        books: &BTreeMap<String, Book>,
    ) -> Result<(), Violation> {
        let id = text(message.key.as_deref());
        let value = message.value.as_deref().unwrap_or_default();
        if self.forged.contains(value) {
            return Ok(());
        }
        let Ok(opened) = self.site.opened_receipt(&id, value) else {
            return broken("G10", format!("a receipt that is not sealed for {id:?}"));
        };
        let (true, Ok(receipt)) = (books.contains_key(&id), Receipt::decode(&opened)) else {
            return broken("G9", format!("a receipt for {id:?} that is none in Kafka"));
        };
        let name = (id, receipt.sequence);
        if *self.numbers.entry(name.clone()).or_insert(receipt.number) != receipt.number {
            let what = format!("{}/{} has two different receipts", name.0, name.1);
            return broken("G2", what);
        }
        let place = (message.partition, message.offset);
        self.receipts.push((place.0, place.1, name));
        Ok(())
    }

    fn transaction(&mut self, message: &Committed) -> Result<(), Violation> {
        let identity = text(message.header("ce_id"));
        let name = identity.rsplit_once('/').and_then(|(id, sequence)| {
            let sequence = sequence.parse().ok()?;
            Some((id.to_owned(), sequence))
        });
        if let Some((id, sequence)) = &name
            && !self.records.contains_key(&(id.clone(), *sequence))
        {
            let what = format!("{id}/{sequence} is settled, and its terminal never sealed it");
            return broken("G10", what);
        }
        self.settle(name, &identity)
    }

    fn rejected(&mut self, message: &Committed, tally: &mut Tally) -> Result<(), Violation> {
        let value = message.value.as_deref().unwrap_or_default();
        let told: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
        let record = &told["record"];
        let place = record["partition"].as_i64().zip(record["offset"].as_i64());
        if place.is_some_and(|place| self.forged_at.contains(&place)) {
            tally.refused += 1;
            return Ok(());
        }
        if told["reason"] == "seal" {
            return broken(
                "G10",
                format!("what its terminal sealed is refused: {told}"),
            );
        }
        let name = told["terminal"].as_str().zip(told["sequence"].as_u64());
        let name = name.map(|(id, sequence)| (id.to_owned(), sequence));
        self.settle(name, &told.to_string())
    }

    fn settle(&mut self, name: Option<Name>, told: &str) -> Result<(), Violation> {
        match name {
            Some(name) if self.settled.insert(name.clone()) => Ok(()),
            Some((id, sequence)) => broken("G2", format!("{id}/{sequence} is settled twice")),
            None => broken("G9", format!("settled, and nobody's: {told}")),
        }
    }

    /// Whether this record stands there.
    pub(super) fn holds(&self, name: &Name) -> bool {
        self.records.contains_key(name)
    }

    /// What this record says there.
    pub(super) fn content(&self, name: &Name) -> Option<&Content> {
        self.records.get(name)
    }

    /// Whether settlement has sealed a receipt for it. Of one transaction, what stands
    /// in this topic may be seen before what stands in that of the settled ones.
    pub(super) fn is_answered(&self, name: &Name) -> bool {
        self.is_settled(name) || self.numbers.contains_key(name)
    }

    /// Whether this payment was settled.
    pub(super) fn is_settled(&self, name: &Name) -> bool {
        self.settled.contains(name)
    }

    /// All receipts: partition, offset, whose.
    pub(super) fn receipts(&self) -> impl Iterator<Item = (i32, i64, &Name)> {
        self.receipts.iter().map(|(p, o, name)| (*p, *o, name))
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
