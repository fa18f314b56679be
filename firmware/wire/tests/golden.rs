//! The format stands still: these bytes are these messages, for good.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use risiti_wire::limits::{AMOUNT_MINOR_MAX, RECEIPT_BYTES_MAX, RECORD_BYTES_MAX, SEQUENCE_MAX};
use risiti_wire::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// The rows of a table: columns with ` | ` between them.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split('|').map(str::trim).collect())
        .collect()
}

fn golden(name: &str) -> Vec<u8> {
    let rows = rows(include_str!("golden.txt"));
    bytes(
        rows.iter()
            .find(|row| row[0] == name)
            .unwrap_or_else(|| panic!("{name}"))[1],
    )
}

fn payment(
    sequence: u64,
    time_s: u32,
    account: &str,
    amount_minor: u64,
    currency: u16,
    reference: Option<&'static str>,
) -> Record<'static> {
    let account = Account::new(account).unwrap();
    let currency = Currency::new(currency).unwrap();
    Record {
        sequence,
        resend: false,
        body: RecordBody::Payment(Payment {
            time_s,
            account,
            amount_minor,
            currency,
            reference,
        }),
    }
}

fn records() -> Vec<(&'static str, Record<'static>)> {
    let ordinary = payment(
        1042,
        1_767_225_600,
        "123456789012",
        1_500_000,
        404,
        Some("P-204/7"),
    );
    vec![
        ("payment-smallest", payment(0, 0, "0", 1, 1, None)),
        ("payment-ordinary", ordinary),
        (
            "payment-resend",
            Record {
                resend: true,
                ..ordinary
            },
        ),
        (
            "payment-leading-zeros",
            payment(7, 1_767_225_600, "000000000042", 250, 800, None),
        ),
        (
            "payment-largest",
            payment(
                SEQUENCE_MAX,
                u32::MAX,
                "999999999999999999",
                AMOUNT_MINOR_MAX,
                999,
                Some("abcdefgh"),
            ),
        ),
        (
            "reversal",
            Record {
                sequence: 1043,
                resend: false,
                body: RecordBody::Reversal(Reversal {
                    time_s: 1_767_225_700,
                    reverses: 1042,
                }),
            },
        ),
        (
            "reversal-largest",
            Record {
                sequence: SEQUENCE_MAX,
                resend: false,
                body: RecordBody::Reversal(Reversal {
                    time_s: u32::MAX,
                    reverses: SEQUENCE_MAX - 1,
                }),
            },
        ),
    ]
}

fn receipts() -> Vec<(&'static str, Receipt<'static>)> {
    let accepted = Receipt {
        sequence: 1042,
        number: 900_001,
        status: Status::Accepted,
        time_s: 1_767_225_660,
        amount_minor: 1_500_000,
        currency: Currency::new(404).unwrap(),
        bank_reference: Some("FT26001ABCDE"),
        lines: Lines::new(&["Received with thanks", "Term 1 2026"]).unwrap(),
    };
    let rejected = Receipt {
        sequence: 1044,
        number: 900_002,
        status: Status::Rejected(Reason::ACCOUNT),
        time_s: 1_767_225_800,
        bank_reference: None,
        lines: Lines::default(),
        ..accepted
    };
    let unknown = Receipt {
        sequence: 0,
        number: 0,
        status: Status::Rejected(Reason::new(65_535).unwrap()),
        time_s: 0,
        amount_minor: 0,
        currency: Currency::NONE,
        bank_reference: None,
        lines: Lines::new(&["Àmharic ok: ሰላም"]).unwrap(),
    };
    vec![
        ("receipt-accepted", accepted),
        ("receipt-rejected", rejected),
        ("receipt-unknown-reason", unknown),
    ]
}

#[test]
fn every_record_is_its_golden_bytes() {
    for (name, record) in records() {
        let golden = golden(name);
        let mut buffer = [0; RECORD_BYTES_MAX];
        assert_eq!(record.encode(&mut buffer).unwrap(), golden, "{name}");
        assert_eq!(Record::decode(&golden), Ok(record), "{name}");
        let header = peek(&golden).unwrap();
        assert_eq!(
            (
                header.version,
                header.sequence,
                header.resend,
                header.sealed
            ),
            (1, record.sequence, record.resend, false),
            "{name}"
        );
    }
}

#[test]
fn every_receipt_is_its_golden_bytes() {
    for (name, receipt) in receipts() {
        let golden = golden(name);
        let mut buffer = [0; RECEIPT_BYTES_MAX];
        assert_eq!(receipt.encode(&mut buffer).unwrap(), golden, "{name}");
        assert_eq!(Receipt::decode(&golden), Ok(receipt), "{name}");
        assert_eq!(peek(&golden).unwrap().kind, Kind::Receipt, "{name}");
    }
}

#[test]
fn every_golden_row_is_tested() {
    assert_eq!(
        rows(include_str!("golden.txt")).len(),
        records().len() + receipts().len()
    );
}

#[test]
fn what_is_no_message_is_refused_with_field_and_reason() {
    let rows = rows(include_str!("refused.txt"));
    assert!(rows.len() >= 50, "only {} rows", rows.len());
    for row in rows {
        let bytes = bytes(row[2]);
        let error = match row[0] {
            "record" => Record::decode(&bytes).unwrap_err(),
            "receipt" => Receipt::decode(&bytes).unwrap_err(),
            other => panic!("{other}"),
        };
        assert_eq!(error.to_string(), row[3], "{}", row[1]);
    }
}

#[test]
fn a_record_takes_at_most_40_bytes() {
    assert_eq!(RECORD_BYTES_MAX, 40);
    // Every field at its largest.
    assert_eq!(golden("payment-largest").len(), 40);
    assert_eq!(golden("reversal-largest").len(), 19);
    // What is typical in the field is shorter still.
    assert_eq!(golden("payment-ordinary").len(), 37);
}

#[test]
fn the_largest_messages_just_fit_the_stated_buffers() {
    assert_eq!(golden("payment-largest").len(), RECORD_BYTES_MAX);
    let line = "x".repeat(32);
    let receipt = Receipt {
        sequence: SEQUENCE_MAX,
        number: u64::MAX,
        status: Status::Rejected(Reason::new(u16::MAX).unwrap()),
        time_s: u32::MAX,
        amount_minor: AMOUNT_MINOR_MAX,
        currency: Currency::NONE,
        bank_reference: Some("abcdefghijklmnopqrstuvwx"),
        lines: Lines::new(&[line.as_str(); 6]).unwrap(),
    };
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    assert_eq!(
        receipt.encode(&mut buffer).unwrap().len(),
        RECEIPT_BYTES_MAX
    );
    assert_eq!(
        receipt.encode(&mut buffer[1..]),
        Err(WireError::BufferTooSmall)
    );
    assert_eq!(
        records()[4].1.encode(&mut [0; RECORD_BYTES_MAX - 1]),
        Err(WireError::BufferTooSmall)
    );
}

#[test]
fn what_is_out_of_bounds_does_not_encode() {
    let good = payment(5, 0, "1", 1, 1, None);
    let RecordBody::Payment(inner) = good.body else {
        unreachable!()
    };
    let refused = |body| {
        Record { body, ..good }
            .encode(&mut [0; 256])
            .map(<[u8]>::len)
    };
    let with = |change: fn(&mut Payment<'static>)| {
        let mut payment = inner;
        change(&mut payment);
        refused(RecordBody::Payment(payment))
    };
    assert_eq!(
        with(|payment| payment.amount_minor = 0),
        Err(WireError::OutOfRange(Field::Amount))
    );
    assert_eq!(
        with(|payment| payment.amount_minor = AMOUNT_MINOR_MAX + 1),
        Err(WireError::OutOfRange(Field::Amount))
    );
    assert_eq!(
        with(|payment| payment.reference = Some("")),
        Err(WireError::OutOfRange(Field::Reference))
    );
    assert_eq!(
        with(|payment| payment.reference = Some("123456789")),
        Err(WireError::OutOfRange(Field::Reference))
    );
    assert_eq!(
        with(|payment| payment.reference = Some("a\u{1b}")),
        Err(WireError::BadText(Field::Reference))
    );
    assert_eq!(
        refused(RecordBody::Reversal(Reversal {
            time_s: 0,
            reverses: 5
        })),
        Err(WireError::OutOfRange(Field::Reverses))
    );
    assert_eq!(
        Record {
            sequence: SEQUENCE_MAX + 1,
            ..good
        }
        .encode(&mut [0; 256])
        .map(<[u8]>::len),
        Err(WireError::OutOfRange(Field::Sequence))
    );
    for digits in ["", "1234567890123456789", "12a", "-1", "１"] {
        assert_eq!(
            Account::new(digits),
            Err(WireError::OutOfRange(Field::Account)),
            "{digits}"
        );
    }
    assert_eq!(
        Currency::new(0),
        Err(WireError::OutOfRange(Field::Currency))
    );
    assert_eq!(
        Currency::new(1000),
        Err(WireError::OutOfRange(Field::Currency))
    );
    assert_eq!(Reason::new(0), Err(WireError::OutOfRange(Field::Status)));
    assert_eq!(
        Lines::new(&[""; 7]),
        Err(WireError::OutOfRange(Field::Lines))
    );
    assert_eq!(Lines::new(&["a\tb"]), Err(WireError::BadText(Field::Lines)));
    assert_eq!(
        Lines::new(&["ሰላምሰላምሰላምሰላምሰላምሰላም"; 4]),
        Err(WireError::OutOfRange(Field::Lines))
    );
}

#[test]
fn an_account_keeps_its_leading_zeros() {
    for digits in [
        "0",
        "00",
        "007",
        "123456789012",
        "000000000000000000",
        "999999999999999999",
    ] {
        assert_eq!(Account::new(digits).unwrap().to_string(), digits);
    }
}

#[test]
fn peek_passes_on_what_bodies_are_made_of_and_nothing_else() {
    // Kind 6 is reserved: an array of a byte string, null, a text, an array.
    assert!(peek(&bytes("84011818058443010203f661618141ff")).is_ok());
    // The byte string is cut off, or longer than it has to be.
    let cut = peek(&bytes("8401181805814301")).unwrap_err();
    assert_eq!(cut, WireError::Truncated(Field::Body));
    let longer = peek(&bytes("8401181805815801ff")).unwrap_err();
    assert_eq!(longer, WireError::NotCanonical(Field::Body));
    // A negative number, a map, a float.
    for other in ["20", "a0", "f90000"] {
        let text = format!("840118180581{other}");
        assert_eq!(
            peek(&bytes(&text)).unwrap_err(),
            WireError::WrongType(Field::Body),
            "{other}"
        );
    }
}

#[test]
fn every_named_reason_has_its_code_and_says_what_it_is() {
    let named = [
        (Reason::UNREADABLE, 1, "record unreadable"),
        (Reason::SEAL, 2, "seal not valid"),
        (Reason::TERMINAL, 3, "terminal not known"),
        (Reason::ACCOUNT, 4, "account not known"),
        (Reason::CURRENCY, 5, "currency not taken"),
        (Reason::LIMIT, 6, "limit exceeded"),
        (Reason::REVERSAL, 7, "nothing to take back"),
        (Reason::CONFLICT, 8, "number used before"),
        (Reason::TOO_OLD, 9, "number too old"),
    ];
    for (reason, code, text) in named {
        assert_eq!(reason.code(), code);
        assert_eq!(Reason::new(code), Ok(reason));
        assert_eq!(reason.text(), Some(text));
        assert_eq!(reason.to_string(), text);
    }
    let unnamed = Reason::new(4_711).unwrap();
    assert_eq!((unnamed.code(), unnamed.text()), (4_711, None));
    assert_eq!(unnamed.to_string(), "reason 4711");
}

#[test]
fn what_stands_in_a_log_names_accounts_and_lines() {
    assert!(format!("{:?}", Account::new("0712").unwrap()).contains("0712"));
    let text = ["Asante"];
    assert!(format!("{:?}", Lines::new(&text).unwrap()).contains("Asante"));
}

#[test]
fn peek_passes_sealed_and_reserved_messages_on() {
    let sealed = peek(&bytes("8401061903e88340a04401020304")).unwrap();
    assert_eq!(
        (sealed.kind, sealed.sealed, sealed.sequence),
        (Kind::Payment, true, 1000)
    );
    let reserved = peek(&bytes("840118180582616100")).unwrap();
    assert_eq!(reserved.kind, Kind::Reserved(6));
}

#[test]
fn peek_refuses_a_body_that_is_not_well_formed() {
    for (hex, error) in [
        ("84010605820101", WireError::WrongType(Field::Seal)), // sealed, but no COSE_Encrypt0
        ("84010405410a", WireError::WrongType(Field::Body)),   // open, but bytes
        ("840104058201", WireError::Truncated(Field::Body)),   // an element is missing
        ("8401040581ff", WireError::WrongType(Field::Body)),   // a stray break
        ("84010405a0", WireError::WrongType(Field::Body)),     // a map
        ("84010405819f00ff", WireError::NotCanonical(Field::Body)), // indefinite inside
        ("84010405811801", WireError::NotCanonical(Field::Body)), // not shortest inside
        ("84010405810100", WireError::TrailingBytes),
        (
            "840104059bffffffffffffffff",
            WireError::Truncated(Field::Body),
        ),
        ("8501040580f6", WireError::WrongType(Field::Message)),
        ("840204", WireError::UnknownVersion { version: 2 }),
    ] {
        assert_eq!(peek(&bytes(hex)), Err(error), "{hex}");
    }
}

#[test]
fn the_resend_mark_is_set_in_place_and_changes_nothing_else() {
    let mut message = golden("payment-ordinary");
    mark_resend(&mut message).unwrap();
    assert_eq!(message, golden("payment-resend"));
    mark_resend(&mut message).unwrap();
    assert_eq!(message, golden("payment-resend"));
    let mut reserved = bytes("840118180582616100");
    mark_resend(&mut reserved).unwrap();
    assert!(peek(&reserved).unwrap().resend);
    let mut damaged = golden("payment-ordinary");
    damaged.pop();
    let before = damaged.clone();
    assert!(mark_resend(&mut damaged).is_err());
    assert_eq!(damaged, before);
}

#[test]
fn a_terminal_id_is_safe_everywhere() {
    for id in ["a", "T-0001_x", "12345678901234567890123"] {
        assert_eq!(validate_terminal_id(id), Ok(()), "{id}");
    }
    for id in ["", "123456789012345678901234"] {
        assert_eq!(
            validate_terminal_id(id),
            Err(WireError::OutOfRange(Field::TerminalId)),
            "{id}"
        );
    }
    for id in ["a/b", "+", "#", "a b", "é", "a.b", "a\0", ".."] {
        assert_eq!(
            validate_terminal_id(id),
            Err(WireError::BadText(Field::TerminalId)),
            "{id}"
        );
    }
}

#[test]
fn every_truncation_is_refused() {
    for row in rows(include_str!("golden.txt")) {
        let whole = bytes(row[1]);
        for length in 0..whole.len() {
            let cut = &whole[..length];
            assert!(
                peek(cut).is_err() && Record::decode(cut).is_err() && Receipt::decode(cut).is_err(),
                "{} cut to {length}",
                row[0]
            );
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_or_another_whole_message() {
    for row in rows(include_str!("golden.txt")) {
        let whole = bytes(row[1]);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = peek(&flipped);
            // If it reads at all, it reads as a message with exactly these bytes.
            if let Ok(record) = Record::decode(&flipped) {
                assert_eq!(
                    record.encode(&mut [0; RECORD_BYTES_MAX]).unwrap(),
                    flipped,
                    "{} bit {bit}",
                    row[0]
                );
            }
            if let Ok(receipt) = Receipt::decode(&flipped) {
                assert_eq!(
                    receipt.encode(&mut [0; RECEIPT_BYTES_MAX]).unwrap(),
                    flipped,
                    "{} bit {bit}",
                    row[0]
                );
            }
        }
    }
}
