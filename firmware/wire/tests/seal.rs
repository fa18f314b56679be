//! Sealing, from outside: golden bytes, and everything that must not open.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

use risiti_wire::limits::{
    RECEIPT_BYTES_MAX, RECORD_BYTES_MAX, SEALED_RECEIPT_BYTES_MAX, SEALED_RECORD_BYTES_MAX,
    SEQUENCE_MAX,
};
use risiti_wire::seal::{Direction, Key, Root, SealError, generation, open, seal};
use risiti_wire::{Field, Kind, Receipt, Record, WireError, mark_resend, peek};

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('|').map(str::trim).collect())
}

/// The root of `sealed.txt`.
fn root() -> Root {
    Root::new(std::array::from_fn(|index| index as u8))
}

fn key(terminal: &str, generation: u8, direction: Direction) -> Key {
    root().key(terminal, generation, direction).unwrap()
}

fn direction(message: &[u8]) -> Direction {
    match peek(message).unwrap().kind {
        Kind::Receipt => Direction::Down,
        _ => Direction::Up,
    }
}

/// A row of `sealed.txt`.
struct Golden {
    name: &'static str,
    terminal: &'static str,
    generation: u8,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Golden {
    fn all() -> Vec<Self> {
        rows(include_str!("sealed.txt"))
            .map(|row| Self {
                name: row[0],
                terminal: row[1],
                generation: row[2].parse().unwrap(),
                plain: golden(row[0]),
                sealed: bytes(row[3]),
            })
            .collect()
    }

    fn key(&self) -> Key {
        key(self.terminal, self.generation, direction(&self.plain))
    }
}

fn golden(name: &str) -> Vec<u8> {
    let row = rows(include_str!("golden.txt")).find(|row| row[0] == name);
    bytes(row.unwrap()[1])
}

fn sealed(key: &Key, terminal: &str, message: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut into = [0; SEALED_RECEIPT_BYTES_MAX];
    seal(key, terminal, message, &mut into).map(<[u8]>::to_vec)
}

fn opened(key: &Key, terminal: &str, message: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut into = [0; RECEIPT_BYTES_MAX];
    open(key, terminal, message, &mut into).map(<[u8]>::to_vec)
}

#[test]
fn keys_are_derived_as_the_format_says() {
    for (terminal, generation, direction, expected) in [
        (
            "village-17",
            1,
            Direction::Up,
            "d4dfef836c38811f455aadd73e7d7fda",
        ),
        (
            "village-17",
            1,
            Direction::Down,
            "f29ad6b526d5168e1ebe8649fc2f99b4",
        ),
        (
            "village-17",
            2,
            Direction::Up,
            "f1a42e5a5466ce3a7c65daacf47ebc30",
        ),
        (
            "village-18",
            1,
            Direction::Up,
            "fcc5e243f2a115883a41e7591de84654",
        ),
    ] {
        let key = key(terminal, generation, direction);
        assert_eq!(key.expose().to_vec(), bytes(expected));
        assert_eq!((key.generation(), key.direction()), (generation, direction));
    }
    let refused = root().key("a/b", 1, Direction::Up).err();
    assert_eq!(refused, Some(WireError::BadText(Field::TerminalId)));
    let refused = root().key("t", 0, Direction::Up).err();
    assert_eq!(refused, Some(WireError::OutOfRange(Field::Generation)));
}

#[test]
fn a_key_is_written_in_the_digits_that_it_is_read_from() {
    let own = root().key("t", 3, Direction::Down).unwrap();
    let mut digits = String::new();
    own.write_hex(&mut digits).unwrap();
    assert_eq!(digits.len(), 32);
    let read = Key::from_hex(Direction::Down, 3, &digits).unwrap();
    assert_eq!(read.expose(), own.expose());
    assert_eq!((read.direction(), read.generation()), (Direction::Down, 3));
    assert!(Key::from_hex(Direction::Down, 0, &digits).is_none());
    assert!(Key::from_hex(Direction::Down, 3, &digits[1..]).is_none());
}

#[test]
fn a_root_is_read_from_its_digits() {
    let digits = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
    let read = Root::from_hex(digits).unwrap();
    assert_eq!(read.expose(), root().expose());
    let mut written = String::new();
    read.write_hex(&mut written).unwrap();
    assert_eq!(written, digits.to_lowercase());
    for wrong in [
        "",
        &digits[2..],
        &format!("{digits}00"),
        &digits.replace('A', "g"),
        &digits.replace("1A", "é"),
    ] {
        assert!(Root::from_hex(wrong).is_none(), "{wrong}");
    }
}

#[test]
fn sealing_gives_the_golden_bytes_and_opening_what_was_sealed() {
    for row in Golden::all() {
        let key = row.key();
        let made = sealed(&key, row.terminal, &row.plain).unwrap();
        assert_eq!(made, row.sealed, "{}", row.name);
        let back = opened(&key, row.terminal, &row.sealed);
        assert_eq!(back, Ok(row.plain.clone()), "{}", row.name);
        assert_eq!(generation(&row.sealed), Ok(Some(row.generation)));
        assert_eq!(generation(&row.plain), Ok(None));
    }
}

#[test]
fn a_payment_and_its_receipt_take_25_bytes_more() {
    let all = Golden::all();
    let more = |name: &str| {
        let row = all.iter().find(|row| row.name == name).unwrap();
        row.sealed.len() - row.plain.len()
    };
    assert_eq!(more("payment-ordinary") + more("receipt-accepted"), 25);
}

#[test]
fn a_gateway_reads_of_a_sealed_message_what_it_needs_and_no_more() {
    for row in Golden::all() {
        let (clear, hidden) = (peek(&row.plain).unwrap(), peek(&row.sealed).unwrap());
        assert!(hidden.sealed && !clear.sealed);
        assert_eq!(
            (hidden.kind, hidden.sequence, hidden.resend),
            (clear.kind, clear.sequence, clear.resend)
        );
        let refused = [
            Record::decode(&row.sealed).err(),
            Receipt::decode(&row.sealed).err(),
        ];
        assert!(refused.contains(&Some(WireError::Sealed)), "{}", row.name);
    }
    // Nothing of the reference, the account, the bank's words.
    let all = Golden::all();
    let row = all
        .iter()
        .find(|row| row.name == "receipt-accepted")
        .unwrap();
    assert!(row.plain.windows(8).any(|w| w == b"Received"));
    assert!(!row.sealed.windows(3).any(|w| w == b"Rec"));
}

#[test]
fn every_flipped_bit_is_refused_but_the_one_of_the_resend_mark() {
    for row in Golden::all() {
        let key = row.key();
        for bit in 0..row.sealed.len() * 8 {
            let mut flipped = row.sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // The marks stand in the third byte.
            if bit == 16 {
                let mut other = row.plain.clone();
                other[2] ^= 1;
                assert_eq!(opened(&key, row.terminal, &flipped), Ok(other));
            } else {
                let refused = opened(&key, row.terminal, &flipped);
                assert!(refused.is_err(), "{} bit {bit}", row.name);
            }
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for row in Golden::all() {
        for length in 0..row.sealed.len() {
            let cut = &row.sealed[..length];
            assert!(opened(&row.key(), row.terminal, cut).is_err() && peek(cut).is_err());
        }
        let mut longer = row.sealed.clone();
        longer.push(0);
        assert!(opened(&row.key(), row.terminal, &longer).is_err());
    }
}

#[test]
fn what_another_terminal_sealed_does_not_open() {
    let payment = golden("payment-ordinary");
    let mine = key("t-1", 1, Direction::Up);
    let other = key("t-2", 1, Direction::Up);
    let message = sealed(&mine, "t-1", &payment).unwrap();
    assert_eq!(opened(&mine, "t-1", &message), Ok(payment.clone()));
    assert_eq!(opened(&other, "t-2", &message), Err(SealError::Forged));
    // Nor with the right key under another's name, nor the other way round.
    assert_eq!(opened(&mine, "t-2", &message), Err(SealError::Forged));
    assert_eq!(opened(&other, "t-1", &message), Err(SealError::Forged));
}

#[test]
fn a_record_under_another_number_does_not_open() {
    let key = key("t", 1, Direction::Up);
    let message = sealed(&key, "t", &golden("payment-ordinary")).unwrap();
    let mut moved = message.clone();
    // 84 01 06 19 0412: the number.
    assert_eq!(moved[4..6], [0x04, 0x12]);
    moved[5] = 0x13;
    assert_eq!(peek(&moved).unwrap().sequence, 1_043);
    assert_eq!(opened(&key, "t", &moved), Err(SealError::Forged));
    moved[5] = 0x12;
    assert!(opened(&key, "t", &moved).is_ok());
}

#[test]
fn a_receipt_under_another_number_of_its_own_does_not_open() {
    let key = key("t", 1, Direction::Down);
    let message = sealed(&key, "t", &golden("receipt-rejected")).unwrap();
    let at = message.windows(3).position(|w| w == [0x0d, 0xbb, 0xa2]);
    let mut moved = message.clone();
    moved[at.unwrap() + 2] = 0xa3;
    assert_eq!(opened(&key, "t", &moved), Err(SealError::Forged));
    assert!(opened(&key, "t", &message).is_ok());
}

#[test]
fn a_message_of_one_direction_is_none_of_the_other() {
    let (up, down) = (key("t", 1, Direction::Up), key("t", 1, Direction::Down));
    let record = sealed(&up, "t", &golden("payment-ordinary")).unwrap();
    assert_eq!(opened(&down, "t", &record), Err(SealError::OtherDirection));
    let payment = golden("payment-ordinary");
    assert_eq!(sealed(&down, "t", &payment), Err(SealError::OtherDirection));
    // Called a receipt, and given a receipt's number, it is none either; nor is it
    // with the same bytes as the key of the other direction.
    let mut other = record.clone();
    other[2] = 0x0e;
    assert_eq!(opened(&down, "t", &other), Err(SealError::Forged));
    let at = other.iter().position(|byte| *byte == 0xa0).unwrap();
    other.splice(at..=at, [0xa1, 0x06, 0x41, 0x01]);
    assert_eq!(opened(&down, "t", &other), Err(SealError::Forged));
    let same = Key::new(Direction::Down, 1, *up.expose()).unwrap();
    assert_eq!(opened(&same, "t", &other), Err(SealError::Forged));
    // A payment called a reversal.
    let mut other = record.clone();
    other[2] = 0x0a;
    assert_eq!(opened(&up, "t", &other), Err(SealError::Forged));
    assert!(opened(&up, "t", &record).is_ok());
}

#[test]
fn another_generation_is_told_and_can_not_be_feigned() {
    let (old, new) = (key("t", 1, Direction::Up), key("t", 2, Direction::Up));
    let payment = golden("payment-ordinary");
    let (first, second) = (
        sealed(&old, "t", &payment).unwrap(),
        sealed(&new, "t", &payment).unwrap(),
    );
    assert_eq!(
        opened(&new, "t", &first),
        Err(SealError::OtherGeneration(1))
    );
    assert_eq!(
        opened(&old, "t", &second),
        Err(SealError::OtherGeneration(2))
    );
    // The kid taken off, or another one put on.
    let at = second
        .windows(4)
        .position(|w| w == [0xa1, 4, 0x41, 2])
        .unwrap();
    let mut feigned = second.clone();
    feigned.splice(at..at + 4, [0xa0]);
    assert_eq!(generation(&feigned), Ok(Some(1)));
    assert_eq!(opened(&old, "t", &feigned), Err(SealError::Forged));
    // Even with the same bytes as key.
    let same = Key::new(Direction::Up, 1, *new.expose()).unwrap();
    assert_eq!(opened(&same, "t", &feigned), Err(SealError::Forged));
    assert_eq!(opened(&new, "t", &second), Ok(payment));
}

#[test]
fn a_headers_map_has_one_encoding() {
    let message =
        |map: &str| bytes(&format!("840106018340{map}4800112233445566 77").replace(' ', ""));
    assert!(peek(&message("a0")).is_ok());
    assert!(peek(&message("a1044102")).is_ok());
    assert!(peek(&message("a20441020641ff")).is_ok());
    for (map, error) in [
        ("a1044101", WireError::NotCanonical(Field::Generation)), // what it is without
        ("a1044100", WireError::NotCanonical(Field::Generation)),
        ("a104420002", WireError::OutOfRange(Field::Generation)),
        ("a106420001", WireError::NotCanonical(Field::Number)),
        (
            "a10649010000000000000000",
            WireError::OutOfRange(Field::Number),
        ),
        ("a20641ff044102", WireError::OutOfRange(Field::Seal)), // not ascending
        ("a2044102044103", WireError::OutOfRange(Field::Seal)), // twice
        ("a1054102", WireError::OutOfRange(Field::Seal)),
        ("a3044102054102064101", WireError::WrongType(Field::Seal)),
        ("b801044102", WireError::NotCanonical(Field::Seal)),
        ("bf044102ff", WireError::NotCanonical(Field::Seal)),
        ("80", WireError::WrongType(Field::Seal)),
    ] {
        assert_eq!(peek(&message(map)), Err(error), "{map}");
    }
    // A protected header, which ours have not.
    let protected = bytes("840106018343a1010aa0480011223344556677");
    assert_eq!(peek(&protected), Err(WireError::OutOfRange(Field::Seal)));
}

#[test]
fn what_is_no_open_message_is_not_sealed() {
    let (up, down) = (key("t", 1, Direction::Up), key("t", 1, Direction::Down));
    let payment = golden("payment-ordinary");
    let once = sealed(&up, "t", &payment).unwrap();
    assert_eq!(sealed(&up, "t", &once), Err(SealError::Sealed));
    assert_eq!(opened(&up, "t", &payment), Err(SealError::Open));
    assert!(matches!(
        sealed(&up, "t", b"rubbish"),
        Err(SealError::Wire(_))
    ));
    let reserved = bytes("840118180582616100");
    let unknown = SealError::Wire(WireError::UnknownKind { kind: 6 });
    assert_eq!(sealed(&up, "t", &reserved), Err(unknown));
    let longer = bytes("84010c0188000000000000f680");
    let wrong = SealError::Wire(WireError::WrongType(Field::Body));
    assert_eq!(sealed(&down, "t", &longer), Err(wrong));
    let no_id = SealError::Wire(WireError::OutOfRange(Field::TerminalId));
    assert_eq!(sealed(&up, "", &payment), Err(no_id));
    assert_eq!(opened(&up, "", &once), Err(no_id));
}

#[test]
fn a_resend_is_the_same_seal_with_its_mark() {
    let key = key("t", 1, Direction::Up);
    let mut message = sealed(&key, "t", &golden("payment-ordinary")).unwrap();
    mark_resend(&mut message).unwrap();
    let again = sealed(&key, "t", &golden("payment-resend")).unwrap();
    assert_eq!(message, again);
    assert_eq!(opened(&key, "t", &message), Ok(golden("payment-resend")));
}

#[test]
fn every_message_fits_sealed_and_a_shorter_buffer_is_refused() {
    let id = "12345678901234567890123";
    let key_up = key(id, 255, Direction::Up);
    let mut buffer = [0; SEALED_RECORD_BYTES_MAX];
    let largest = golden("payment-largest");
    assert_eq!(largest.len(), RECORD_BYTES_MAX);
    let made = seal(&key_up, id, &largest, &mut buffer).unwrap().to_vec();
    assert_eq!(made.len(), SEALED_RECORD_BYTES_MAX);
    let key_down = key(id, 255, Direction::Down);
    let receipt = largest_receipt();
    let sealed_receipt = sealed(&key_down, id, &receipt).unwrap();
    assert_eq!(
        (receipt.len(), sealed_receipt.len()),
        (RECEIPT_BYTES_MAX, SEALED_RECEIPT_BYTES_MAX)
    );
    let full = Err(SealError::Wire(WireError::BufferTooSmall));
    for (key, plain, message) in [
        (&key_up, &largest, &made),
        (&key_down, &receipt, &sealed_receipt),
    ] {
        for length in 0..message.len() {
            assert_eq!(seal(key, id, plain, &mut vec![0; length]), full);
        }
        for length in 0..plain.len() {
            assert_eq!(open(key, id, message, &mut vec![0; length]), full);
        }
        assert_eq!(
            open(key, id, message, &mut vec![0; plain.len()]).unwrap(),
            plain
        );
    }
}

fn largest_receipt() -> Vec<u8> {
    use risiti_wire::{Currency, Lines, Reason, Status};
    let line = "0123456789abcdef0123456789abcdef";
    let receipt = Receipt {
        sequence: SEQUENCE_MAX,
        number: u64::MAX,
        status: Status::Rejected(Reason::new(u16::MAX).unwrap()),
        time_s: u32::MAX,
        amount_minor: u32::MAX.into(),
        currency: Currency::new(999).unwrap(),
        bank_reference: Some("0123456789abcdef01234567"),
        lines: Lines::new(&[line; 6]).unwrap(),
    };
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    receipt.encode(&mut buffer).unwrap().to_vec()
}

#[test]
fn a_refused_message_leaves_nothing_in_the_buffer() {
    let key = key("t", 1, Direction::Up);
    let mut message = sealed(&key, "t", &golden("payment-ordinary")).unwrap();
    *message.last_mut().unwrap() ^= 1;
    let mut into = [0; RECORD_BYTES_MAX];
    assert_eq!(open(&key, "t", &message, &mut into), Err(SealError::Forged));
    // The header may stand there; the content does not.
    assert_eq!(into[6..], [0; RECORD_BYTES_MAX - 6]);
}

#[test]
fn what_is_wrong_with_a_seal_is_said() {
    let generation = SealError::OtherGeneration(7).to_string();
    assert!(generation.contains('7'), "{generation}");
    let wire = WireError::WrongType(Field::Body);
    assert_eq!(SealError::Wire(wire).to_string(), wire.to_string());
    let said: std::collections::HashSet<String> = [
        SealError::Open,
        SealError::Sealed,
        SealError::OtherDirection,
        SealError::Forged,
    ]
    .map(|error| error.to_string())
    .into();
    assert_eq!(said.len(), 4, "{said:?}");
}
