//! What holds for every message and every input, by generated cases.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use proptest::prelude::*;
use risiti_wire::limits::{
    AMOUNT_MINOR_MAX, LINES_BYTES_MAX, RECEIPT_BYTES_MAX, RECORD_BYTES_MAX, SEQUENCE_MAX,
};
use risiti_wire::*;

/// A record without the borrowed text.
#[derive(Debug, Clone)]
struct Parts {
    sequence: u64,
    resend: bool,
    time_s: u32,
    account: String,
    amount_minor: u64,
    currency: u16,
    reference: Option<String>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let reference = proptest::option::of("[ -~]{1,8}");
    (
        0..=SEQUENCE_MAX,
        any::<bool>(),
        any::<u32>(),
        "[0-9]{1,18}",
        1..=AMOUNT_MINOR_MAX,
        1..=999_u16,
        reference,
    )
        .prop_map(
            |(sequence, resend, time_s, account, amount_minor, currency, reference)| Parts {
                sequence,
                resend,
                time_s,
                account,
                amount_minor,
                currency,
                reference,
            },
        )
}

/// Bytes that look like a message, more often than noise would.
fn likely_message() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just(vec![]),
        Just(vec![0x84, 1, 4, 7]),
        Just(vec![0x84, 1, 6]),
        Just(vec![0x84, 1, 12, 7, 0x87])
    ];
    let item = prop_oneof![
        0..=0x1b_u8,
        0x40..=0x45_u8,
        0x60..=0x65_u8,
        0x80..=0x87_u8,
        Just(0xf6),
        Just(0xff),
        any::<u8>()
    ];
    (start, proptest::collection::vec(item, 0..64)).prop_map(|(mut start, rest)| {
        start.extend(rest);
        start
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_payment_comes_back_as_it_went(parts in parts()) {
        let record = Record {
            sequence: parts.sequence,
            resend: parts.resend,
            body: RecordBody::Payment(Payment {
                time_s: parts.time_s,
                account: Account::new(&parts.account).unwrap(),
                amount_minor: parts.amount_minor,
                currency: Currency::new(parts.currency).unwrap(),
                reference: parts.reference.as_deref(),
            }),
        };
        let mut buffer = [0; RECORD_BYTES_MAX];
        let bytes = record.encode(&mut buffer).unwrap();
        prop_assert_eq!(Record::decode(bytes), Ok(record));
        let header = peek(bytes).unwrap();
        prop_assert_eq!((header.sequence, header.resend, header.kind), (parts.sequence, parts.resend, Kind::Payment));
    }

    #[test]
    fn a_reversal_comes_back_as_it_went(reverses in 0..SEQUENCE_MAX, ahead in 1..=SEQUENCE_MAX, time_s in any::<u32>()) {
        let record = Record {
            sequence: (reverses + ahead).min(SEQUENCE_MAX),
            resend: false,
            body: RecordBody::Reversal(Reversal { time_s, reverses }),
        };
        let mut buffer = [0; RECORD_BYTES_MAX];
        prop_assert_eq!(Record::decode(record.encode(&mut buffer).unwrap()), Ok(record));
    }

    #[test]
    fn a_receipt_comes_back_as_it_went(
        (sequence, number, status, time_s) in (0..=SEQUENCE_MAX, any::<u64>(), any::<u16>(), any::<u32>()),
        (amount_minor, currency) in (0..=AMOUNT_MINOR_MAX, 1..=999_u16),
        bank_reference in proptest::option::of("[ -~]{1,24}"),
        lines in proptest::collection::vec("[ -~éሰ]{0,32}", 0..=6),
    ) {
        prop_assume!(lines.iter().map(String::len).sum::<usize>() <= LINES_BYTES_MAX);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let receipt = Receipt {
            sequence,
            number,
            status: Reason::new(status).map_or(Status::Accepted, Status::Rejected),
            time_s,
            amount_minor,
            currency: Currency::new(currency).unwrap(),
            bank_reference: bank_reference.as_deref(),
            lines: Lines::new(&lines).unwrap(),
        };
        let mut buffer = [0; RECEIPT_BYTES_MAX];
        prop_assert_eq!(Receipt::decode(receipt.encode(&mut buffer).unwrap()), Ok(receipt));
    }

    #[test]
    fn a_message_has_one_encoding(bytes in likely_message()) {
        let peeked = peek(&bytes);
        if let Ok(record) = Record::decode(&bytes) {
            let mut buffer = [0; RECORD_BYTES_MAX];
            prop_assert_eq!(record.encode(&mut buffer).unwrap(), &bytes[..]);
            prop_assert!(bytes.len() <= 40);
            prop_assert_eq!(peeked.unwrap().sequence, record.sequence);
        }
        if let Ok(receipt) = Receipt::decode(&bytes) {
            let mut buffer = [0; RECEIPT_BYTES_MAX];
            prop_assert_eq!(receipt.encode(&mut buffer).unwrap(), &bytes[..]);
            prop_assert_eq!(peeked.unwrap().sequence, receipt.sequence);
        }
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (peek(&bytes), Record::decode(&bytes), Receipt::decode(&bytes));
    }
}
