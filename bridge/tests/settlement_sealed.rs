//! G10 at settlement: what nobody but the terminal could have sealed is settled, and
//! nothing else; each refusal beside what is accepted.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_bridge::settlement::memory::Partition;
use risiti_bridge::settlement::messages::{Envelope, Topic};
use risiti_bridge::settlement::sealing::{Generations, Sealing};
use risiti_bridge::settlement::{
    Core, Decision, Enrolled, Input, Policy, Settings, Verdict, changelog,
};
use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX, SEALED_RECORD_BYTES_MAX};
use risiti_wire::seal::{Direction, Key, Root, SealError, generation, open, seal};
use risiti_wire::{
    Account, Currency, Payment, Reason, Receipt, Record, RecordBody, Status, mark_resend, peek,
};

fn root() -> Root {
    Root::new([0x11; 32])
}

fn payment(sequence: u64, amount_minor: u64) -> Vec<u8> {
    let record = Record {
        sequence,
        resend: false,
        body: RecordBody::Payment(Payment {
            time_s: 0,
            account: Account::new("0012345").unwrap(),
            amount_minor,
            currency: Currency::new(404).unwrap(),
            reference: Some("P-204"),
        }),
    };
    let mut buffer = [0; RECORD_BYTES_MAX];
    record.encode(&mut buffer).unwrap().to_vec()
}

/// As the terminal seals it, with its keys of this generation.
fn sealed_by(root: &Root, terminal: &str, generation: u8, message: &[u8]) -> Vec<u8> {
    let key = root.key(terminal, generation, Direction::Up).unwrap();
    let mut buffer = [0; SEALED_RECORD_BYTES_MAX];
    seal(&key, terminal, message, &mut buffer).unwrap().to_vec()
}

fn sealed(terminal: &str, message: &[u8]) -> Vec<u8> {
    sealed_by(&root(), terminal, 1, message)
}

/// As the terminal reads it: its status.
fn read(terminal: &str, generation: u8, receipt: &[u8]) -> Result<Status, SealError> {
    let key = root().key(terminal, generation, Direction::Down).unwrap();
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    let opened = open(&key, terminal, receipt, &mut buffer)?;
    Ok(Receipt::decode(opened).unwrap().status)
}

/// One partition, whose changelog is what a takeover reads.
struct Bench {
    core: Core,
    settings: Settings,
    next_offset: i64,
    changelog: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Bench {
    fn new(sealing: Sealing) -> Self {
        let settings = Settings {
            window: 4,
            sealing,
            ..Settings::default()
        };
        let mut core = Core::new(settings.clone(), Policy::default());
        core.assign(0, Partition::default());
        Self {
            core,
            settings,
            next_offset: 0,
            changelog: Vec::new(),
        }
    }

    fn required() -> Self {
        Self::new(Sealing::new(root(), true, Generations::default()))
    }

    fn settle(&mut self, terminal: &str, value: &[u8]) -> Decision {
        let input = Input {
            partition: 0,
            offset: self.next_offset,
            time_ms: 1_700_000_000_000 + 1_000 * self.next_offset.unsigned_abs(),
            key: Some(terminal.as_bytes()),
            value,
        };
        self.next_offset += 1;
        let decision = self.core.settle(&input).unwrap();
        self.changelog.extend(decision.changelog.iter().cloned());
        if let Verdict::Seal(_) = decision.verdict {
            self.assert_refused(&input, &decision);
        }
        decision
    }

    /// Whoever forged it gets no answer and changes nothing; a person is told why.
    fn assert_refused(&self, input: &Input<'_>, decision: &Decision) {
        assert_eq!((&decision.receipt, decision.changelog.len()), (&None, 0));
        let messages = Envelope::default().messages(input, decision);
        let [message] = &messages[..] else {
            panic!("{messages:?}");
        };
        assert_eq!(message.topic, Topic::Rejected);
        let told: serde_json::Value =
            serde_json::from_slice(message.value.as_deref().unwrap()).unwrap();
        assert_eq!(told["reason"], "seal");
        assert_eq!(told["code"], Reason::SEAL.code());
        assert_eq!(
            told["sequence"].as_u64(),
            Some(peek(input.value).unwrap().sequence)
        );
        assert!(!told["detail"].as_str().unwrap().is_empty());
    }

    fn take_over(&mut self) {
        let mut memory = Partition::default();
        for (key, value) in &self.changelog {
            let (terminal, sequence) = changelog::decode_key(key).unwrap();
            let row = value.as_deref().map(|v| changelog::decode(v).unwrap());
            memory.restore(terminal, sequence, row);
        }
        self.core = Core::new(self.settings.clone(), Policy::default());
        self.core.assign(0, memory);
    }
}

fn is_seal(decision: &Decision) -> bool {
    matches!(decision.verdict, Verdict::Seal(_))
}

fn is_accepted(decision: &Decision) -> bool {
    matches!(decision.verdict, Verdict::Accepted(_))
}

#[test]
fn g10_a_sealed_payment_is_settled_and_answered_for_its_terminal_alone() {
    let mut bench = Bench::required();
    let decision = bench.settle("t", &sealed("t", &payment(1, 150)));
    let Verdict::Accepted(transaction) = &decision.verdict else {
        panic!("{:?}", decision.verdict);
    };
    assert_eq!(transaction.amount_minor, 150);
    assert_eq!(transaction.account.as_deref(), Some("0012345"));
    assert_eq!(transaction.reference.as_deref(), Some("P-204"));
    let receipt = decision.receipt.unwrap();
    assert_eq!(
        Receipt::decode(&receipt),
        Err(risiti_wire::WireError::Sealed)
    );
    assert_eq!(read("t", 1, &receipt), Ok(Status::Accepted));
    assert_eq!(read("u", 1, &receipt), Err(SealError::Forged));
}

/// A terminal's own key, which no root knows.
fn own(direction: Direction, generation: u8) -> Key {
    let bytes = match direction {
        Direction::Up => [0xA5; 16],
        Direction::Down => [0x5A; 16],
    };
    Key::new(direction, generation, bytes).unwrap()
}

fn sealed_with(key: &Key, terminal: &str, message: &[u8]) -> Vec<u8> {
    let mut buffer = [0; SEALED_RECORD_BYTES_MAX];
    seal(key, terminal, message, &mut buffer).unwrap().to_vec()
}

fn enrolled(terminal: &str, generation: u8) -> Enrolled {
    let (record, receipt) = (
        own(Direction::Up, generation),
        own(Direction::Down, generation),
    );
    let text = Enrolled::with("", terminal, &record, &receipt).unwrap();
    Enrolled::parse(&text).unwrap()
}

#[test]
fn g10_enrolled_and_derived_keys_stand_side_by_side_and_never_for_one_another() {
    let sealing = Sealing::new(root(), true, Generations::parse("t 2 1").unwrap());
    sealing.set_enrolled(enrolled("t", 1));
    let mut bench = Bench::new(sealing);
    let up = own(Direction::Up, 1);
    let decision = bench.settle("t", &sealed_with(&up, "t", &payment(1, 150)));
    assert!(is_accepted(&decision));
    // Its receipt is for its own key, and not for the derived one.
    let receipt = decision.receipt.unwrap();
    assert_eq!(read("t", 1, &receipt), Err(SealError::Forged));
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    let opened = open(&own(Direction::Down, 1), "t", &receipt, &mut buffer).unwrap();
    assert_eq!(Receipt::decode(opened).unwrap().status, Status::Accepted);
    // What the root's holder could make is none of this terminal any more.
    assert!(is_seal(&bench.settle("t", &sealed("t", &payment(2, 150)))));
    // Its next generation was not enrolled; another terminal has the root's.
    let next = sealed_by(&root(), "t", 2, &payment(2, 150));
    assert!(is_accepted(&bench.settle("t", &next)));
    assert!(is_accepted(
        &bench.settle("u", &sealed("u", &payment(1, 150)))
    ));
    assert!(is_seal(
        &bench.settle("u", &sealed_with(&up, "u", &payment(2, 150)))
    ));
}

#[test]
fn keys_that_are_enrolled_while_it_settles_count_from_the_next_record_on() {
    let sealing = Sealing::new(root(), true, Generations::default());
    let mut bench = Bench::new(sealing.clone());
    let record = sealed_with(&own(Direction::Up, 1), "t", &payment(1, 150));
    assert!(is_seal(&bench.settle("t", &record)));
    sealing.set_enrolled(enrolled("t", 1));
    assert!(is_accepted(&bench.settle("t", &record)));
}

#[test]
fn control_g10_without_enrolled_keys_the_derived_one_is_taken() {
    let mut bench = Bench::required();
    assert!(is_accepted(
        &bench.settle("t", &sealed("t", &payment(1, 150)))
    ));
}

#[test]
fn g10_every_changed_bit_of_a_record_is_refused_and_uses_up_no_number() {
    let genuine = sealed("t", &payment(1, 150));
    let mut bench = Bench::required();
    for bit in 0..genuine.len() * 8 {
        let mut forged = genuine.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        // The resend mark is nobody's promise.
        if bit != 16 {
            let decision = bench.settle("t", &forged);
            assert!(
                matches!(decision.verdict, Verdict::Seal(_) | Verdict::Foreign(_)),
                "{bit}: {:?}",
                decision.verdict
            );
            assert_eq!(decision.receipt, None);
        }
    }
    assert!(is_accepted(&bench.settle("t", &genuine)));
}

#[test]
fn g10_what_a_gateway_makes_up_is_refused_and_uses_up_no_number() {
    let mut bench = Bench::required();
    let open = payment(1, 150);
    let other_site = Root::new([0x12; 32]);
    let down = root().key("t", 1, Direction::Down).unwrap();
    let as_if_up = risiti_wire::seal::Key::new(Direction::Up, 1, *down.expose()).unwrap();
    let mut buffer = [0; SEALED_RECORD_BYTES_MAX];
    let with_the_receipts_key = seal(&as_if_up, "t", &open, &mut buffer).unwrap().to_vec();
    let mut moved = sealed("t", &payment(2, 150));
    moved[3] = 1;
    for (what, value) in [
        ("not sealed", open.clone()),
        ("another terminal's", sealed("u", &open)),
        ("another site's", sealed_by(&other_site, "t", 1, &open)),
        ("a later generation's", sealed_by(&root(), "t", 2, &open)),
        ("with the key of receipts", with_the_receipts_key),
        ("moved to another number", moved),
    ] {
        assert!(is_seal(&bench.settle("t", &value)), "{what}");
    }
    // Made-up terminals take no memory.
    bench.settle("nobody", &open);
    assert_eq!(bench.core.sizes(), (1, 0, 0));
    assert!(is_accepted(&bench.settle("t", &sealed("t", &open))));
    assert!(is_accepted(&bench.settle("u", &sealed("u", &open))));
}

#[test]
fn control_g10_without_required_seals_a_made_up_payment_is_settled() {
    let mut bench = Bench::new(Sealing::new(root(), false, Generations::default()));
    let made_up = bench.settle("t", &payment(1, 1_000_000));
    assert!(is_accepted(&made_up));
    // What is not sealed is answered openly, and what is sealed is still checked.
    assert!(Receipt::decode(&made_up.receipt.unwrap()).is_ok());
    let forged = bench.settle("t", &sealed("u", &payment(2, 1)));
    assert!(is_seal(&forged));
    let genuine = bench.settle("t", &sealed("t", &payment(2, 1)));
    assert!(is_accepted(&genuine));
}

#[test]
fn without_a_root_all_is_as_if_there_were_no_seals() {
    let mut bench = Bench::new(Sealing::default());
    assert!(is_accepted(&bench.settle("t", &payment(1, 1))));
    let sealed = bench.settle("t", &sealed("t", &payment(2, 1)));
    // It takes the key to read it: its number is left alone.
    assert!(matches!(sealed.verdict, Verdict::Foreign(_)));
    assert_eq!(sealed.receipt, None);
}

#[test]
fn a_replayed_record_gets_the_first_receipt_byte_for_byte_also_after_a_takeover() {
    let mut bench = Bench::required();
    let value = sealed("t", &payment(1, 150));
    let first = bench.settle("t", &value);
    let mut resend = value.clone();
    mark_resend(&mut resend).unwrap();
    for _ in 0..2 {
        for value in [&value, &resend] {
            let again = bench.settle("t", value);
            assert_eq!(again.verdict, Verdict::Again);
            assert_eq!(again.receipt, first.receipt);
            assert_eq!(again.changelog, []);
        }
        bench.take_over();
    }
    // A replay that is older than the window is not settled again.
    for sequence in 2..10 {
        bench.settle("t", &sealed("t", &payment(sequence, 1)));
    }
    assert_eq!(bench.settle("t", &value).verdict, Verdict::TooOld);
}

#[test]
fn a_record_that_was_copied_to_another_partition_is_not_settled_again() {
    let sealing = Sealing::new(root(), true, Generations::default());
    let mut bench = Bench::new(sealing.clone());
    // Of three partitions, u's records stand in this one, t's in the next.
    sealing.set_partitions(3);
    assert!(is_accepted(
        &bench.settle("u", &sealed("u", &payment(1, 150)))
    ));
    assert!(is_seal(&bench.settle("t", &sealed("t", &payment(1, 150)))));
    // Control: who does not know where it belongs settles it wherever it stands.
    sealing.set_partitions(0);
    assert!(is_accepted(
        &bench.settle("t", &sealed("t", &payment(1, 150)))
    ));
}

#[test]
fn other_content_under_a_number_is_told_to_its_terminal_under_another_nonce() {
    let mut bench = Bench::required();
    let first = bench.settle("t", &sealed("t", &payment(1, 150)));
    let other = bench.settle("t", &sealed("t", &payment(1, 151)));
    assert_eq!(other.verdict, Verdict::Conflict);
    let (first, other) = (first.receipt.unwrap(), other.receipt.unwrap());
    let rejected = Status::Rejected(Reason::CONFLICT);
    assert_eq!(read("t", 1, &first), Ok(Status::Accepted));
    assert_eq!(read("t", 1, &other), Ok(rejected));
    // 84 01 0e 01 83 40 a1 06 42 …: the receipts' own numbers.
    assert_eq!(first[..8], other[..8]);
    assert_ne!(first[8..12], other[8..12]);
}

#[test]
fn receipts_are_sealed_with_the_generation_of_their_record() {
    let generations = Generations::parse("t 2 1").unwrap();
    let mut bench = Bench::new(Sealing::new(root(), true, generations));
    for (sequence, given) in [(1, 1), (2, 2)] {
        let value = sealed_by(&root(), "t", given, &payment(sequence, 1));
        let receipt = bench.settle("t", &value).receipt.unwrap();
        assert_eq!(generation(&receipt), Ok(Some(given)));
        assert_eq!(read("t", given, &receipt), Ok(Status::Accepted));
    }
    // A terminal that got new keys meanwhile seals its record anew: the same record,
    // the same answer, now for the keys that it has.
    let again = bench.settle("t", &sealed_by(&root(), "t", 2, &payment(1, 1)));
    assert_eq!(again.verdict, Verdict::Again);
    assert_eq!(read("t", 2, &again.receipt.unwrap()), Ok(Status::Accepted));
}

#[test]
fn generations_change_while_it_settles() {
    let sealing = Sealing::new(root(), true, Generations::default());
    let mut bench = Bench::new(sealing.clone());
    let mut sequence = 0;
    let mut takes = |text: &str, given: u8| {
        sealing.set_generations(Generations::parse(text).unwrap());
        sequence += 1;
        let value = sealed_by(&root(), "t", given, &payment(sequence, 1));
        is_accepted(&bench.settle("t", &value))
    };
    assert!(takes("", 1));
    assert!(!takes("", 2));
    assert!(takes("t 2 1", 2) && takes("t 2 1", 1));
    assert!(takes("t 2 2", 2));
    assert!(!takes("t 2 2", 1));
    assert!(!takes("t revoked", 1) && !takes("t revoked", 2));
    assert!(takes("u revoked", 1));
}

#[test]
fn what_its_terminal_sealed_and_is_no_record_is_answered_as_unreadable() {
    let mut bench = Bench::required();
    // A payment with an empty body, number 9: no update will make it one.
    let decision = bench.settle("t", &sealed("t", b"\x84\x01\x04\x09\x80"));
    assert!(matches!(decision.verdict, Verdict::Refused(_)));
    let rejected = Status::Rejected(Reason::UNREADABLE);
    assert_eq!(read("t", 1, &decision.receipt.unwrap()), Ok(rejected));
    // What a later version may know is left to it.
    for value in [
        &b"\x84\x02\x04\x09\x80"[..],
        b"\x84\x01\x14\x09\x80",
        b"rubbish",
    ] {
        let decision = bench.settle("t", value);
        assert!(matches!(decision.verdict, Verdict::Foreign(_)), "{value:?}");
    }
}
