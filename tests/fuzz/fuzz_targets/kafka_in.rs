//! What comes from Kafka: records for settlement, its changelog, receipts, positions,
//! delivery events.
//!
//! Settlement's core is given records, good ones and any bytes, of few terminals and
//! numbers, so that they collide. Two instances decide the same. A number is accepted
//! once; what comes again gets the first receipt byte for byte (G2, G7); the sums of
//! a day stay within the rule; every receipt says what its record said. What the
//! changelog holds, compacted anywhere, is what the instance remembers.
//!
//! A row, a position, a delivery event and a message of the receipts' topic that are
//! read are written again as the same; what is no receipt becomes a letter from
//! which it comes back. Memory follows what was read.

#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use risiti_bridge::headers::Provenance;
use risiti_bridge::properties::Properties;
use risiti_bridge::receipts::{Delivered, ReceiptMessage, message_of};
use risiti_bridge::settlement::core::Transaction;
use risiti_bridge::settlement::memory::{Kind, Partition};
use risiti_bridge::settlement::messages::{Envelope, Topic};
use risiti_bridge::settlement::{
    Core, Decision, Input, Policy, Settings, Verdict, changelog, rules,
};
use risiti_bridge::{Compiled, Routes, position};
use risiti_config::{Bootstrap, Config};
use risiti_fuzz::control::breaks;
use risiti_fuzz::seeds::{self, Seed};
use risiti_fuzz::{Choices, memory, target};
use risiti_store::{Identity, NewRecord, Record as Stored};
use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX};
use risiti_wire::{Account, Currency, Payment, Receipt, Record, RecordBody, Reversal, mark_resend};

const DAY_MAX_MINOR: u64 = 1_000;
const WINDOW: usize = 6;

target!("kafka_in", seeds, |data| {
    let mut choices = Choices::new(data);
    match choices.byte() % 6 {
        0 | 1 => settlement(choices),
        2 => row(choices.rest()),
        3 => receipt_message(choices),
        4 => small(choices.rest()),
        _ => headers(choices),
    }
});

fn policy() -> Policy {
    Policy {
        rules: vec![rules::reversal_linked(), rules::day_max(DAY_MAX_MINOR)],
        bank_reference: None,
    }
}

fn core() -> Core {
    let settings = Settings {
        window: WINDOW,
        ..Settings::default()
    };
    let mut core = Core::new(settings, policy());
    core.assign(0, Partition::default());
    core
}

fn settlement(mut choices: Choices<'_>) {
    let (mut core, mut twin) = (core(), core());
    let envelope = Envelope {
        records_topic: "risiti.records".into(),
        receipt_expiry_s: 0,
    };
    let mut time_ms = 20_000 * 86_400_000;
    let mut log: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    let mut story = Story::default();
    for offset in 0..40 {
        if choices.is_empty() {
            break;
        }
        let how = choices.byte();
        let terminal = ["t-1", "t-2", "no/terminal"][usize::from(how >> 6).min(2)];
        time_ms += u64::from(choices.byte() & 15) * 7_200_000;
        let mut buffer = [0; RECORD_BYTES_MAX];
        let value = match how & 7 {
            0 => choices.led(),
            _ => record(how, &mut choices, &mut buffer),
        };
        let key = Some(terminal.as_bytes()).filter(|_| how & 0x38 != 0x38);
        let input = Input {
            partition: 0,
            offset,
            time_ms,
            key,
            value,
        };
        let decision = core.settle(&input).expect("it holds the partition");
        assert_eq!(
            twin.settle(&input).as_ref(),
            Some(&decision),
            "two instances, two decisions"
        );
        for message in envelope.messages(&input, &decision) {
            if message.topic == Topic::Receipts {
                assert_eq!(message.key.as_deref(), Some(terminal.as_bytes()));
            }
        }
        log.extend(decision.changelog.iter().cloned());
        story.judge(&decision, terminal, value);
    }
    let compacted = usize::from(choices.byte()) * log.len() / 255;
    assert_eq!(
        Some(&read_back(&log, compacted)),
        core.partition(0),
        "the changelog is not it"
    );
}

fn record<'b>(
    how: u8,
    choices: &mut Choices<'_>,
    buffer: &'b mut [u8; RECORD_BYTES_MAX],
) -> &'b [u8] {
    let sequence = u64::from(choices.byte() & 15);
    let amount = choices.byte();
    let body = if how & 7 < 5 || sequence == 0 {
        RecordBody::Payment(Payment {
            time_s: 0,
            account: Account::new("0012345").expect("digits"),
            amount_minor: u64::from(amount) + 1,
            currency: Currency::new(if amount & 1 == 0 { 404 } else { 800 }).expect("a code"),
            reference: None,
        })
    } else {
        RecordBody::Reversal(Reversal {
            time_s: 0,
            reverses: u64::from(amount) % sequence,
        })
    };
    let record = Record {
        sequence,
        resend: false,
        body,
    };
    let bytes = record.encode(buffer).map_or(0, <[u8]>::len);
    if how & 7 == 4 {
        // Marked, damaged, or both.
        let _ = mark_resend(&mut buffer[..bytes]);
        if amount > 200 && bytes > 5 {
            buffer[5] ^= 0x40;
        }
    }
    &buffer[..bytes]
}

/// What was settled so far.
#[derive(Default)]
struct Story {
    /// By terminal and number, however long ago: the receipt.
    first: BTreeMap<(String, u64), Vec<u8>>,
    /// Of accepted payments: their day.
    days: BTreeMap<(String, u64), u32>,
    /// By terminal, day and currency, without what was taken back.
    sums: BTreeMap<(String, u32, u16), u64>,
}

impl Story {
    fn judge(&mut self, decision: &Decision, terminal: &str, value: &[u8]) {
        let receipt = decision.receipt.as_deref().map(|bytes| {
            (
                bytes,
                Receipt::decode(bytes).expect("a receipt has its format"),
            )
        });
        if let Some((bytes, receipt)) = &receipt {
            assert!(bytes.len() <= RECEIPT_BYTES_MAX);
            assert_eq!(Some(receipt.sequence), decision.sequence);
        }
        let place = decision
            .sequence
            .map(|sequence| (terminal.to_owned(), sequence));
        match &decision.verdict {
            Verdict::Accepted(transaction) => {
                let (bytes, receipt) = receipt.expect("what is accepted has a receipt");
                let record = Record::decode(value).expect("what is accepted is a record");
                if let RecordBody::Payment(payment) = record.body {
                    assert_eq!(receipt.amount_minor, payment.amount_minor);
                    assert_eq!(
                        transaction.account.as_deref(),
                        Some(&*payment.account.to_string())
                    );
                }
                let place = place.expect("what is accepted has a number");
                let before = self.first.insert(place.clone(), bytes.to_vec());
                assert!(before.is_none(), "a number was settled twice");
                self.count(transaction, place);
            }
            Verdict::Refused(_) => {
                let (bytes, _) = receipt.expect("who is refused is told");
                let before = self.first.insert(place.expect("a number"), bytes.to_vec());
                assert!(before.is_none(), "a number was settled twice");
            }
            Verdict::Again => {
                let (bytes, _) = receipt.expect("the first receipt");
                let wanted = self
                    .first
                    .get(&place.expect("a number"))
                    .expect("settled before");
                // The control expects another answer to a resend of long ago.
                let changed = breaks("kafka-again");
                assert!(
                    (bytes == &wanted[..]) != changed,
                    "another receipt than the first"
                );
            }
            Verdict::Conflict => assert!(self.first.contains_key(&place.expect("a number"))),
            Verdict::TooOld | Verdict::Seal(_) | Verdict::Foreign(_) => assert!(receipt.is_none()),
        }
    }

    fn count(&mut self, transaction: &Transaction, (terminal, sequence): (String, u64)) {
        let (currency, amount_minor) = (transaction.currency, transaction.amount_minor);
        match transaction.kind {
            Kind::Payment => {
                let day = transaction.day;
                self.days.insert((terminal.clone(), sequence), day);
                let sum = self.sums.entry((terminal, day, currency)).or_default();
                *sum += amount_minor;
                assert!(*sum <= DAY_MAX_MINOR, "more than the rule allows a day");
            }
            Kind::Reversal { reverses } => {
                let day = self
                    .days
                    .remove(&(terminal.clone(), reverses))
                    .expect("a payment is taken back, and once");
                let sum = self.sums.entry((terminal, day, currency)).or_default();
                *sum = sum
                    .checked_sub(amount_minor)
                    .expect("what was paid is taken back");
            }
            Kind::Unreadable => panic!("nobody accepts what can't be read"),
        }
    }
}

/// What a takeover reads, with the first part of the log compacted.
fn read_back(log: &[(Vec<u8>, Option<Vec<u8>>)], compacted: usize) -> Partition {
    let mut newest = BTreeMap::new();
    for (at, (key, _)) in log.iter().enumerate() {
        newest.insert(key, at);
    }
    let mut memory = Partition::default();
    for (at, (key, value)) in log.iter().enumerate() {
        if at < compacted && newest[key] != at {
            continue;
        }
        let (terminal, sequence) = changelog::decode_key(key).expect("our own key");
        let row = value
            .as_deref()
            .map(|value| changelog::decode(value).expect("our own row"));
        memory.restore(terminal, sequence, row);
    }
    memory
}

fn row(bytes: &[u8]) {
    let account = memory::begin();
    let row = changelog::decode(bytes);
    assert!(
        account.peak_bytes() <= 16_384 + 4 * bytes.len(),
        "a length was believed"
    );
    if let Ok(row) = row {
        assert_eq!(changelog::decode(&changelog::encode(&row)), Ok(row));
    }
    if let Ok((terminal, sequence)) = changelog::decode_key(bytes) {
        let key = changelog::key(terminal, sequence);
        assert_eq!(changelog::decode_key(&key), Ok((terminal, sequence)));
    }
}

fn receipt_message(mut choices: Choices<'_>) {
    let flags = choices.byte();
    let key = choices.led();
    let expiry = choices.led();
    let value = choices.rest();
    let message = ReceiptMessage {
        partition: i32::from(flags >> 4),
        offset: i64::from(flags) * 1_000_003,
        timestamp_ms: (flags & 1 == 0).then_some(i64::from(flags) * 1_000_000_007 - 5),
        key: Some(key).filter(|_| flags & 2 == 0),
        value: Some(value).filter(|_| flags & 4 == 0),
        expiry: Some(expiry).filter(|_| flags & 8 == 0),
    };
    match message.read() {
        Ok(received) => {
            assert_eq!(&received.payload[..], value);
            assert_eq!(received.terminal.as_bytes(), key);
            let receipt = Receipt::decode(value).expect("read as one");
            assert_eq!(received.sequence, receipt.sequence);
            assert!(received.expires_ms.is_none_or(|at_ms| at_ms > 0));
        }
        Err(why) => {
            let letter = message.letter("default", "risiti.receipts", &why, 77);
            assert!(letter.is_receipt());
            let back = message_of(&letter).expect("a letter of a receipt");
            assert_eq!(
                (back.partition, back.offset),
                (message.partition, message.offset)
            );
            if value.len() < 1_000
                && key.len() < 100
                && message.value.is_some_and(|v| !v.is_empty())
            {
                assert_eq!(back.value, message.value);
            }
        }
    }
}

fn small(bytes: &[u8]) {
    if let Some(next) = position::decode(bytes) {
        assert_eq!(
            position::decode(position::encode(next).as_bytes()),
            Some(next)
        );
    }
    if let Some(delivered) = Delivered::decode(bytes) {
        let again = serde_json::to_vec(&delivered).expect("numbers and texts");
        assert_eq!(Delivered::decode(&again), Some(delivered));
    }
}

/// A record on its way to Kafka, with whatever its publisher put into it.
fn headers(mut choices: Choices<'_>) {
    thread_local! {
        static ROUTE: std::sync::Arc<Compiled> = {
            let config = Config::new(Bootstrap::Servers(vec!["k:9092".into()]));
            Routes::of(&config).find("t/x/records").expect("the route of records").clone()
        };
    }
    let identity = match choices.byte() % 3 {
        0 => Identity::None,
        1 => Identity::Packet {
            packet_id: 7,
            dup: true,
        },
        _ => Identity::Sequence {
            sequence: choices.word().into(),
            dup: false,
            resend_mark: true,
        },
    };
    let received_ms = u64::from(choices.word()) << (choices.byte() & 31);
    let client_id = Bytes::copy_from_slice(choices.led());
    let topic = Bytes::copy_from_slice(choices.led());
    let properties = Bytes::copy_from_slice(choices.rest());
    let given = Properties::new(&properties).count();
    let record = Stored {
        position: 9,
        record: NewRecord {
            received_ms,
            client_id,
            topic,
            identity,
            properties,
            payload: Bytes::new(),
        },
    };
    let provenance = Provenance::new("gw-1", "0123456789abcdef");
    let headers = ROUTE.with(|route| provenance.headers(&record, route));
    use rdkafka::message::Headers;
    let mut ids = 0;
    for at in 0..headers.count() {
        let header = headers.get(at);
        ids += usize::from(header.key == "ce_id");
        assert!(header.value.is_some(), "{} has no value", header.key);
    }
    assert_eq!(ids, 1, "one identity");
    assert!(headers.count() <= 14 + given);
}

fn seeds() -> Vec<Seed> {
    let mut all: Vec<Seed> = Vec::new();
    // Payments, a resend, another content, a reversal, rubbish.
    let story: &[u8] = &[
        0, 1, 0, 1, 100, 1, 0, 1, 100, 1, 0, 1, 50, 6, 0, 2, 0x01, 1, 3, 3, 200, 1, 0, 4, 250, 1,
        15, 5, 255, 4, 0, 6, 9, 0x41, 0, 1, 77, 0, 0, 3, 1, 2, 3, 0x80, 0, 0, 1, 1, 0, 7, 3, 1, 0,
        8, 4, 1, 0, 9, 5, 1, 0, 10, 6, 1, 0, 1, 100, 128,
    ];
    all.push(("story".into(), story.to_vec()));
    for (number, line) in seeds::file("firmware/wire/tests/golden.txt")
        .lines()
        .enumerate()
    {
        let Some(bytes) = line.split('|').nth(1).map(str::trim).and_then(seeds::unhex) else {
            continue;
        };
        let mut seed = vec![0, 0x08, 1, bytes.len() as u8];
        seed.extend_from_slice(&bytes);
        seed.extend([0x08, 0, bytes.len() as u8]);
        seed.extend_from_slice(&bytes);
        all.push((format!("record-{number:02}"), seed));
        let mut seed = vec![3, 0x20, 3];
        seed.extend_from_slice(b"t-1");
        seed.extend_from_slice(&[2, b'6', b'0']);
        seed.extend_from_slice(&bytes);
        all.push((format!("receipt-{number:02}"), seed));
    }
    let mut core = core();
    let mut buffer = [0; RECORD_BYTES_MAX];
    for (sequence, how) in [(1, 1), (2, 6)] {
        let value = record(how, &mut Choices::new(&[sequence, 1]), &mut buffer);
        let input = Input {
            partition: 0,
            offset: 7,
            time_ms: 1 << 40,
            key: Some(b"t-1"),
            value,
        };
        for (key, value) in core.settle(&input).expect("held").changelog {
            let row = [&[2][..], value.as_deref().unwrap_or_default()].concat();
            all.push((format!("row-{sequence}"), row));
            all.push((format!("row-key-{sequence}"), [&[2][..], &key].concat()));
        }
    }
    all.push(("position".into(), b"\x041 52731".to_vec()));
    let delivered = Delivered {
        terminal: "t-1".into(),
        sequence: 5,
        number: 6,
        status: 0,
        gateway: "gw-1".into(),
        stored_ms: 7,
        acknowledged_ms: 8,
    };
    let json = serde_json::to_vec(&delivered).expect("numbers and texts");
    all.push(("delivered".into(), [&[4][..], &json].concat()));
    let properties: &[u8] = b"\x05\x02\0\0\0\x07\x60\0\0\0\x20\x03t-1\x0bt/t-1/recor\x01\x01\x02\0\0\0\x3c\x03\0\x01c\x08\0\x01r\x09\0\x01x\x26\0\x01a\0\x01b";
    all.push(("headers".into(), properties.to_vec()));
    all
}
