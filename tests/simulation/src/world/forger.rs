//! Somebody between terminals and settlement who forges: a gateway that was taken
//! over, or whoever may write to its topics.
//!
//! Promises: it writes to the topics of records and receipts whatever one can make of
//! what one has seen there, without a key: payments made up, records and receipts
//! changed, moved to another number or another terminal, genuine records copied to
//! where they do not belong; and tells what it wrote. Never: what a terminal or
//! settlement sealed, as it is and where it belongs; that is a resend, which the rest
//! of the simulation makes.

use std::collections::BTreeSet;

use risiti_bridge::settlement::partitioner::partition_of;
use risiti_sim::site::Site;
use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX};
use risiti_wire::seal::{ROOT_BYTES, Root};
use risiti_wire::{Account, Currency, Lines, Payment, Receipt, Record, RecordBody, Status};

use crate::contract::chance;
use crate::kafka::{Kafka, topics};

/// Who forges in a run.
pub(super) struct Forger {
    terminals: usize,
    partitions: i32,
    chance: fastrand::Rng,
    /// Its own site: it has a root, but not this one's.
    site: Site,
    /// What it wrote: changed twice in one place it would be genuine again.
    made: BTreeSet<Vec<u8>>,
}

impl Forger {
    pub(super) fn new(terminals: usize, partitions: i32, seed: u64) -> Self {
        Self {
            terminals,
            partitions,
            chance: chance(seed, "forger"),
            site: Site::new(Root::new([0x66; ROOT_BYTES])),
            made: BTreeSet::new(),
        }
    }

    /// Writes one record and one receipt; returns their bytes.
    pub(super) fn forge(&mut self, kafka: &mut Kafka) -> [Vec<u8>; 2] {
        let victim = format!("t{}", self.chance.usize(..self.terminals));
        let sequence = self.chance.u64(1..40);
        let record = self.record(kafka, &victim, sequence);
        let receipt = self.receipt(kafka, &victim, sequence);
        for (topic, value) in [(topics::RECORDS, &record), (topics::RECEIPTS, &receipt)] {
            let partition = self.chance.i32(0..self.partitions);
            kafka.write(topic, partition, &victim, value);
            self.made.insert(value.clone());
        }
        [record, receipt]
    }

    /// Writes a genuine record to another partition than its own; returns where it
    /// stands now.
    pub(super) fn copy(&mut self, kafka: &mut Kafka) -> Option<(i32, i64)> {
        let genuine: Vec<_> = self.genuine(kafka, topics::RECORDS).collect();
        if genuine.is_empty() || self.partitions < 2 {
            return None;
        }
        let at = self.chance.usize(..genuine.len());
        let (terminal, value) = genuine.into_iter().nth(at)?;
        let own = partition_of(terminal.as_bytes(), self.partitions);
        let partition = (own + self.chance.i32(1..self.partitions)) % self.partitions;
        let offset = kafka.write(topics::RECORDS, partition, &terminal, &value)?;
        Some((partition, offset))
    }

    /// Whose messages of a topic, and what they are, that it has not made.
    fn genuine(&self, kafka: &Kafka, topic: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
        kafka.committed(topic).filter_map(|message| {
            let value = message.value.as_ref()?.to_vec();
            let key = String::from_utf8(message.key.as_ref()?.to_vec()).ok()?;
            (!self.made.contains(&value)).then_some((key, value))
        })
    }

    fn record(&mut self, kafka: &Kafka, victim: &str, sequence: u64) -> Vec<u8> {
        let made_up = payment(sequence, self.chance.u64(1..1_000_000));
        match self.chance.u8(0..4) {
            0 => made_up,
            1 => self.site.sealed_record(victim, &made_up).unwrap_or(made_up),
            _ => self.seen(kafka, topics::RECORDS).unwrap_or(made_up),
        }
    }

    fn receipt(&mut self, kafka: &Kafka, victim: &str, sequence: u64) -> Vec<u8> {
        let made_up = receipt(sequence, self.chance.u64(1..1_000_000));
        match self.chance.u8(0..4) {
            0 => made_up,
            1 => self
                .site
                .sealed_receipt(victim, &made_up)
                .unwrap_or(made_up),
            _ => self.seen(kafka, topics::RECEIPTS).unwrap_or(made_up),
        }
    }

    /// One that went by, with a bit of it changed but not the resend mark; in its
    /// header that moves it to another number.
    fn seen(&mut self, kafka: &Kafka, topic: &str) -> Option<Vec<u8>> {
        let genuine: Vec<_> = self.genuine(kafka, topic).collect();
        if genuine.is_empty() {
            return None;
        }
        let at = self.chance.usize(..genuine.len());
        let (_, mut value) = genuine.into_iter().nth(at)?;
        let at = self.chance.usize(3..value.len().max(4));
        if let Some(byte) = value.get_mut(at) {
            *byte ^= 1 << self.chance.u8(0..8);
        }
        Some(value)
    }
}

fn payment(sequence: u64, amount_minor: u64) -> Vec<u8> {
    let record = Record {
        sequence,
        resend: false,
        body: RecordBody::Payment(Payment {
            time_s: 0,
            account: Account::new("666").expect("three digits"),
            amount_minor,
            currency: Currency::NONE,
            reference: None,
        }),
    };
    let mut buffer = [0; RECORD_BYTES_MAX];
    record.encode(&mut buffer).expect("within bounds").to_vec()
}

fn receipt(sequence: u64, amount_minor: u64) -> Vec<u8> {
    let receipt = Receipt {
        sequence,
        number: 1,
        status: Status::Accepted,
        time_s: 1_767_225_600,
        amount_minor,
        currency: Currency::NONE,
        bank_reference: None,
        lines: Lines::default(),
    };
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    receipt.encode(&mut buffer).expect("within bounds").to_vec()
}
