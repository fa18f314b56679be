//! What settlement decides, without Kafka: facts one by one, and a seeded model of
//! many terminals whose records come late, twice, changed, in another order and
//! over restarts.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use risiti_bridge::settlement::memory::Partition;
use risiti_bridge::settlement::messages::{Envelope, Topic};
use risiti_bridge::settlement::receipt::receipt_number;
use risiti_bridge::settlement::rules::{self, Refusal};
use risiti_bridge::settlement::{Core, Decision, Input, Policy, Settings, Verdict, changelog};
use risiti_wire::limits::RECORD_BYTES_MAX;
use risiti_wire::{
    Account, Currency, Payment, Reason, Receipt, Record, RecordBody, Reversal, Status, mark_resend,
};

const DAY_MS: u64 = 86_400_000;
const NOON_MS: u64 = 20_000 * DAY_MS + DAY_MS / 2;

/// One partition: what was written to its changelog is what a takeover reads.
struct Bench {
    core: Core,
    settings: Settings,
    policy: Policy,
    next_offset: i64,
    now_ms: u64,
    changelog: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Bench {
    fn new(settings: Settings, policy: Policy) -> Self {
        let mut core = Core::new(settings.clone(), policy.clone());
        core.assign(0, Partition::default());
        Self {
            core,
            settings,
            policy,
            next_offset: 0,
            now_ms: NOON_MS,
            changelog: Vec::new(),
        }
    }

    fn plain() -> Self {
        Self::new(Settings::default(), reversals())
    }

    fn settle(&mut self, terminal: &str, value: &[u8]) -> Decision {
        let input = Input {
            partition: 0,
            offset: self.next_offset,
            time_ms: self.now_ms,
            key: Some(terminal.as_bytes()),
            value,
        };
        self.next_offset += 1;
        let decision = self.core.settle(&input).unwrap();
        self.changelog.extend(decision.changelog.iter().cloned());
        decision
    }

    /// What `rows` of a changelog say.
    fn read_back(rows: &[(Vec<u8>, Option<Vec<u8>>)]) -> Partition {
        let mut memory = Partition::default();
        for (key, value) in rows {
            let (terminal, sequence) = changelog::decode_key(key).unwrap();
            let row = value.as_deref().map(|v| changelog::decode(v).unwrap());
            memory.restore(terminal, sequence, row);
        }
        memory
    }

    /// Another instance takes over. Kafka may have compacted the older part.
    fn take_over(&mut self, compact_until: usize) {
        let (old, new) = self.changelog.split_at(compact_until);
        let mut newest = BTreeMap::new();
        for (index, (key, _)) in self.changelog.iter().enumerate() {
            newest.insert(key.clone(), index);
        }
        let mut rows: Vec<_> = old
            .iter()
            .enumerate()
            .filter(|(index, (key, _))| newest[key] == *index)
            .map(|(_, row)| row.clone())
            .collect();
        rows.extend(new.iter().cloned());
        let memory = Self::read_back(&rows);
        assert_eq!(Some(&memory), self.core.partition(0));
        self.core = Core::new(self.settings.clone(), self.policy.clone());
        self.core.assign(0, memory);
    }
}

fn reversals() -> Policy {
    Policy {
        rules: vec![rules::reversal_linked()],
        bank_reference: None,
    }
}

fn encode(sequence: u64, body: RecordBody<'_>) -> Vec<u8> {
    let record = Record {
        sequence,
        resend: false,
        body,
    };
    let mut buffer = [0; RECORD_BYTES_MAX];
    record.encode(&mut buffer).unwrap().to_vec()
}

fn payment_in(sequence: u64, amount_minor: u64, currency: u16) -> Vec<u8> {
    encode(
        sequence,
        RecordBody::Payment(Payment {
            time_s: 0,
            account: Account::new("0012345").unwrap(),
            amount_minor,
            currency: Currency::new(currency).unwrap(),
            reference: None,
        }),
    )
}

fn payment(sequence: u64, amount_minor: u64) -> Vec<u8> {
    payment_in(sequence, amount_minor, 404)
}

fn reversal(sequence: u64, reverses: u64) -> Vec<u8> {
    let reversal = Reversal {
        time_s: 0,
        reverses,
    };
    encode(sequence, RecordBody::Reversal(reversal))
}

fn resend(record: &[u8]) -> Vec<u8> {
    let mut record = record.to_vec();
    mark_resend(&mut record).unwrap();
    record
}

fn status(decision: &Decision) -> Option<u16> {
    let receipt = Receipt::decode(decision.receipt.as_deref()?).unwrap();
    Some(match receipt.status {
        Status::Accepted => 0,
        Status::Rejected(reason) => reason.code(),
    })
}

#[test]
fn a_resend_gets_the_first_receipt_byte_for_byte_and_nothing_else() {
    let mut bench = Bench::plain();
    let first = bench.settle("t", &payment(1, 100));
    assert!(matches!(first.verdict, Verdict::Accepted(_)));
    bench.now_ms += DAY_MS;
    for value in [payment(1, 100), resend(&payment(1, 100))] {
        let again = bench.settle("t", &value);
        assert_eq!(again.verdict, Verdict::Again);
        assert_eq!(again.receipt, first.receipt);
        assert_eq!(again.number, first.number);
        assert_eq!(again.changelog, []);
        let messages = messages(&bench, "t", &value, &again);
        assert_eq!(messages, [Topic::Receipts]);
    }
}

fn messages(bench: &Bench, terminal: &str, value: &[u8], decision: &Decision) -> Vec<Topic> {
    let input = Input {
        partition: 0,
        offset: bench.next_offset - 1,
        time_ms: bench.now_ms,
        key: Some(terminal.as_bytes()),
        value,
    };
    let messages = Envelope::default().messages(&input, decision);
    messages.iter().map(|message| message.topic).collect()
}

#[test]
fn a_receipt_follows_from_its_records_place_and_time_alone() {
    let mut one = Bench::plain();
    let mut other = Bench::plain();
    let value = payment(7, 100);
    assert_eq!(one.settle("t", &value), other.settle("t", &value));
    let decision = one.settle("t", &payment(8, 100));
    let receipt = Receipt::decode(decision.receipt.as_deref().unwrap()).unwrap();
    assert_eq!(receipt.number, receipt_number(0, 1));
    assert_eq!(u64::from(receipt.time_s), NOON_MS / 1_000);
    // Places differ, so do numbers.
    let numbers: HashSet<u64> = (0..50)
        .flat_map(|offset| (0..50).map(move |partition| receipt_number(partition, offset)))
        .collect();
    assert_eq!(numbers.len(), 2_500);
}

#[test]
fn other_content_under_a_settled_number_is_refused_and_changes_nothing() {
    let mut bench = Bench::plain();
    let first = bench.settle("t", &payment(1, 100));
    let value = payment(1, 101);
    let other = bench.settle("t", &value);
    assert_eq!(other.verdict, Verdict::Conflict);
    assert_eq!(status(&other), Some(Reason::CONFLICT.code()));
    assert_eq!(other.changelog, []);
    assert_eq!(
        messages(&bench, "t", &value, &other),
        [Topic::Rejected, Topic::Receipts]
    );
    let again = bench.settle("t", &payment(1, 100));
    assert_eq!(again.receipt, first.receipt);
    // Another terminal's number 1 is another payment.
    let others = bench.settle("u", &value);
    assert!(matches!(others.verdict, Verdict::Accepted(_)));
}

#[test]
fn a_number_below_the_window_is_never_settled_also_after_a_takeover() {
    let settings = Settings {
        window: 4,
        ..Settings::default()
    };
    let mut bench = Bench::new(settings, reversals());
    // Skipped numbers cost no place: 5 numbers, 4 remembered.
    for sequence in [10, 12, 14, 5, 16] {
        bench.settle("t", &payment(sequence, 1));
    }
    for round in 0..2 {
        let value = payment(5, 1);
        let late = bench.settle("t", &value);
        assert_eq!(late.verdict, Verdict::TooOld, "{round}");
        assert_eq!(late.receipt, None);
        assert_eq!(messages(&bench, "t", &value, &late), [Topic::Rejected]);
        assert_eq!(bench.settle("t", &payment(10, 1)).verdict, Verdict::Again);
        bench.take_over(bench.changelog.len());
    }
    // What was not sent before is settled, also between others.
    let between = bench.settle("t", &payment(13, 1));
    assert!(matches!(between.verdict, Verdict::Accepted(_)));
    // A far jump does not shut the terminal out.
    bench.settle("t", &payment(4_000_000_000, 1));
    let after = bench.settle("t", &payment(17, 1));
    assert!(matches!(after.verdict, Verdict::Accepted(_)));
}

#[test]
fn g2_a_number_that_comes_late_is_settled_once_though_it_is_forgotten_at_once() {
    let settings = Settings {
        window: 3,
        ..Settings::default()
    };
    // The one settled last is the newest, the oldest, a reversal.
    let stories = [
        [payment(10, 1), payment(12, 1), payment(14, 1)],
        [payment(14, 1), reversal(16, 14), payment(10, 1)],
        [payment(10, 1), payment(12, 1), reversal(14, 12)],
    ];
    for story in stories {
        let mut bench = Bench::new(settings.clone(), reversals());
        for value in &story {
            assert_eq!(status(&bench.settle("t", value)), Some(0));
        }
        // Three later ones are settled, and nothing says that these were.
        for late in [5, 6] {
            let value = payment(late, 100);
            assert_eq!(status(&bench.settle("t", &value)), Some(0));
            // Another instance reads the changelog, compacted up to anywhere.
            for compact_until in 0..=bench.changelog.len() {
                bench.take_over(compact_until);
            }
            let again = bench.settle("t", &resend(&value));
            assert_eq!(again.verdict, Verdict::TooOld, "{late}");
        }
        let first = bench.settle("t", &resend(&story[0]));
        assert_eq!(first.verdict, Verdict::Again);
    }
}

#[test]
fn a_wider_window_does_not_open_what_a_narrower_one_closed() {
    let settings = Settings {
        window: 2,
        ..Settings::default()
    };
    let mut bench = Bench::new(settings, reversals());
    for sequence in 1..=4 {
        bench.settle("t", &payment(sequence, 1));
    }
    bench.settings.window = 100;
    bench.take_over(0);
    let late = bench.settle("t", &payment(1, 1));
    assert_eq!(late.verdict, Verdict::TooOld);
}

#[test]
fn a_reversal_takes_back_one_accepted_payment_of_its_terminal_once() {
    let mut bench = Bench::plain();
    bench.settle("t", &payment(1, 250));
    let cases = [
        ("t", reversal(2, 1), Some(0)),
        // Taken back before; no payment; not there; another terminal's.
        ("t", reversal(3, 1), Some(7)),
        ("t", reversal(4, 2), Some(7)),
        ("t", reversal(6, 5), Some(7)),
        ("u", reversal(2, 1), Some(7)),
    ];
    for (terminal, value, expected) in cases {
        let decision = bench.settle(terminal, &value);
        assert_eq!(status(&decision), expected, "{decision:?}");
        bench.take_over(bench.changelog.len() / 2);
    }
    let Verdict::Accepted(transaction) = bench.settle("u", &payment(9, 5)).verdict else {
        panic!("refused");
    };
    assert_eq!(transaction.amount_minor, 5);
    // The receipt of a reversal names the amount that comes back.
    let receipt = bench.settle("t", &reversal(2, 1)).receipt.unwrap();
    assert_eq!(Receipt::decode(&receipt).unwrap().amount_minor, 250);
}

#[test]
fn the_limits_hold_for_each_terminal_day_and_currency() {
    let policy = Policy {
        rules: vec![
            rules::reversal_linked(),
            rules::payment_max(500),
            rules::day_max(1_000),
        ],
        bank_reference: None,
    };
    let mut bench = Bench::new(Settings::default(), policy);
    let mut try_one = |terminal: &str, value: Vec<u8>, later_ms: u64| {
        bench.now_ms += later_ms;
        let decision = bench.settle(terminal, &value);
        bench.take_over(bench.changelog.len() / 2);
        status(&decision).unwrap()
    };
    assert_eq!(try_one("t", payment(1, 501), 0), 6);
    assert_eq!(try_one("t", payment(2, 500), 0), 0);
    assert_eq!(try_one("t", payment(3, 500), 0), 0);
    assert_eq!(try_one("t", payment(4, 1), 0), 6);
    assert_eq!(try_one("t", payment_in(5, 500, 800), 0), 0);
    assert_eq!(try_one("u", payment(1, 500), 0), 0);
    // What is taken back is free again.
    assert_eq!(try_one("t", reversal(6, 2), 0), 0);
    assert_eq!(try_one("t", payment(7, 500), 0), 0);
    assert_eq!(try_one("t", payment(8, 1), 0), 6);
    // Another day; taking back yesterday's payment does not widen today's limit.
    assert_eq!(try_one("t", payment(9, 500), DAY_MS), 0);
    assert_eq!(try_one("t", reversal(10, 3), 0), 0);
    assert_eq!(try_one("t", payment(11, 500), 0), 0);
    assert_eq!(try_one("t", payment(12, 1), 0), 6);
}

#[test]
fn a_day_begins_at_local_midnight() {
    let policy = Policy {
        rules: vec![rules::day_max(100)],
        bank_reference: None,
    };
    let settings = Settings {
        utc_offset_minutes: 180,
        ..Settings::default()
    };
    let mut bench = Bench::new(settings, policy);
    // 20:59 and 21:00 UTC are two days in Nairobi.
    bench.now_ms = 20_000 * DAY_MS + 21 * 3_600_000 - 1;
    assert_eq!(status(&bench.settle("t", &payment(1, 100))), Some(0));
    assert_eq!(status(&bench.settle("t", &payment(2, 1))), Some(6));
    bench.now_ms += 1;
    assert_eq!(status(&bench.settle("t", &payment(3, 100))), Some(0));
    // A broker whose clock is behind: it still counts to the new day.
    bench.now_ms -= 1;
    assert_eq!(status(&bench.settle("t", &payment(4, 1))), Some(6));
}

#[test]
fn an_unknown_account_is_refused() {
    let known = HashSet::from([Account::new("77").unwrap()]);
    let policy = Policy {
        rules: vec![rules::known_account(known)],
        bank_reference: None,
    };
    let mut bench = Bench::new(Settings::default(), policy);
    let decision = bench.settle("t", &payment(1, 100));
    assert_eq!(status(&decision), Some(Reason::ACCOUNT.code()));
    // The refusal too is answered the same again.
    let again = bench.settle("t", &resend(&payment(1, 100)));
    assert_eq!(
        (again.verdict, again.receipt),
        (Verdict::Again, decision.receipt)
    );
}

#[test]
fn a_banks_own_rule_and_reference_are_used_and_bounded() {
    let policy = Policy {
        rules: vec![Arc::new(|case| match case.sequence {
            13 => Err(Refusal::new(Reason::new(700).unwrap(), "not this one")),
            _ => Ok(()),
        })],
        bank_reference: Some(Arc::new(|case| match case.sequence {
            1 => Some(format!("KE/{}/{}", case.terminal, case.sequence)),
            // Too long for a receipt: it goes without, and still goes.
            _ => Some("x".repeat(100)),
        })),
    };
    let mut bench = Bench::new(Settings::default(), policy);
    let first = bench.settle("t", &payment(1, 1)).receipt.unwrap();
    let reference = Receipt::decode(&first).unwrap().bank_reference;
    assert_eq!(reference, Some("KE/t/1"));
    let second = bench.settle("t", &payment(2, 1)).receipt.unwrap();
    assert_eq!(Receipt::decode(&second).unwrap().bank_reference, None);
    assert_eq!(status(&bench.settle("t", &payment(13, 1))), Some(700));
}

#[test]
fn rubbish_is_kept_with_its_reason_and_stops_nothing() {
    let mut bench = Bench::plain();
    let mut chance = fastrand::Rng::with_seed(1);
    for length in 0..200_usize {
        let value: Vec<u8> = (0..length * 97).map(|_| chance.u8(..)).collect();
        let decision = bench.settle("t", &value);
        assert!(matches!(decision.verdict, Verdict::Foreign(_)));
        assert_eq!(decision.receipt, None);
        assert_eq!(messages(&bench, "t", &value, &decision), [Topic::Rejected]);
    }
    let no_key = Input {
        partition: 0,
        offset: 9,
        time_ms: 0,
        key: None,
        value: &payment(1, 1),
    };
    let decision = bench.core.settle(&no_key).unwrap();
    assert!(matches!(decision.verdict, Verdict::Foreign(_)));
    let fine = bench.settle("t", &payment(1, 1));
    assert!(matches!(fine.verdict, Verdict::Accepted(_)));
}

#[test]
fn every_flipped_bit_of_a_record_gets_an_answer() {
    let value = payment(1, 100);
    for bit in 0..value.len() * 8 {
        let mut bench = Bench::plain();
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let decision = bench.settle("t", &flipped);
        let settled = decision.receipt.is_some();
        assert_eq!(settled, !decision.changelog.is_empty(), "{bit}");
        bench.take_over(0);
    }
}

#[test]
fn a_record_that_says_what_none_may_say_is_answered_as_unreadable() {
    let mut bench = Bench::plain();
    // A payment with an empty body, number 9.
    let value = b"\x84\x01\x04\x09\x80";
    let first = bench.settle("t", value);
    assert_eq!(status(&first), Some(Reason::UNREADABLE.code()));
    let again = bench.settle("t", value);
    assert_eq!(
        (again.verdict, again.receipt),
        (Verdict::Again, first.receipt)
    );
    bench.take_over(0);
}

#[test]
fn a_partition_that_is_not_held_is_not_settled() {
    let mut bench = Bench::plain();
    let value = payment(1, 1);
    let mut input = Input {
        partition: 1,
        offset: 0,
        time_ms: 0,
        key: Some(b"t"),
        value: &value,
    };
    assert_eq!(bench.core.settle(&input), None);
    bench.core.revoke(0);
    input.partition = 0;
    assert_eq!(bench.core.settle(&input), None);
}

/// Of the model's test: small, so that much falls out of it.
const WINDOW: usize = 32;

#[derive(Debug, PartialEq)]
struct First {
    content: Vec<u8>,
    receipt: Vec<u8>,
    status: u16,
}

/// The reference: everything that was ever settled, without a window.
#[derive(Default)]
struct Model {
    /// What first came under each (terminal, number).
    settled: BTreeMap<(usize, u64), First>,
    /// Accepted sums of each (terminal, day), and what a payment added.
    sums: BTreeMap<(usize, u64), u64>,
    payments: BTreeMap<(usize, u64), (u64, u64)>,
    reversed: HashSet<(usize, u64)>,
}

/// 40 seeds: 5 terminals send in order, again, changed, late, and take back, over
/// days and takeovers; nothing is settled twice, no receipt ever changes, and the
/// sums are those of the model.
#[test]
fn nothing_settles_twice_whatever_comes_in_whatever_order() {
    let only = std::env::var("RISITI_SEED")
        .ok()
        .map(|s| s.parse().unwrap());
    for seed in only.map_or(0..40, |seed| seed..seed + 1) {
        one_seed(seed, false);
    }
}

#[test]
fn control_without_a_memory_the_model_sees_numbers_settled_twice() {
    let convicted = std::panic::catch_unwind(|| one_seed(0, true)).unwrap_err();
    let reason = convicted.downcast::<String>().unwrap();
    assert!(reason.contains("settled twice"), "{reason}");
}

fn one_seed(seed: u64, forgetful: bool) {
    const DAY_MAX: u64 = 6_000;
    {
        let mut chance = fastrand::Rng::with_seed(seed);
        let policy = Policy {
            rules: vec![rules::reversal_linked(), rules::day_max(DAY_MAX)],
            bank_reference: None,
        };
        let settings = Settings {
            window: WINDOW,
            forgetful,
            ..Settings::default()
        };
        let mut bench = Bench::new(settings, policy);
        let mut model = Model::default();
        let mut sent: Vec<Vec<(u64, Vec<u8>)>> = vec![Vec::new(); 5];
        let mut delayed: Vec<(usize, u64, Vec<u8>)> = Vec::new();
        for step in 0..2_000 {
            let terminal = chance.usize(0..5);
            let (sequence, value) = match chance.u8(0..20) {
                // Something new, sometimes with a gap.
                0..=11 => {
                    let last = sent[terminal].last().map_or(0, |(sequence, _)| *sequence);
                    let sequence = last + 1 + u64::from(chance.u8(0..10) == 0);
                    let value = if last > 0 && chance.u8(0..8) == 0 {
                        let back = chance.u64(1..10).min(last);
                        reversal(sequence, sequence - back)
                    } else {
                        payment(sequence, chance.u64(1..400))
                    };
                    sent[terminal].push((sequence, value.clone()));
                    if chance.u8(0..15) == 0 {
                        // It comes through another gateway, later.
                        delayed.push((terminal, sequence, value));
                        continue;
                    }
                    (sequence, value)
                }
                // A resend of any age.
                12..=16 if !sent[terminal].is_empty() => {
                    let back = chance.usize(0..sent[terminal].len().min(3 * WINDOW));
                    let at = sent[terminal].len() - 1 - back;
                    let (sequence, value) = sent[terminal][at].clone();
                    (sequence, resend(&value))
                }
                // Another content under a used number.
                17 if !sent[terminal].is_empty() => {
                    let (sequence, _) = sent[terminal][chance.usize(0..sent[terminal].len())];
                    (sequence, payment(sequence, 401 + chance.u64(0..5)))
                }
                18 if !delayed.is_empty() => {
                    let (terminal, sequence, value) =
                        delayed.swap_remove(chance.usize(0..delayed.len()));
                    check(
                        &mut bench, &mut model, terminal, sequence, &value, DAY_MAX, seed,
                    );
                    continue;
                }
                _ => {
                    if chance.u8(0..20) == 0 {
                        bench.now_ms += DAY_MS;
                    } else if chance.u8(0..4) == 0 {
                        let until = chance.usize(0..=bench.changelog.len());
                        bench.take_over(until);
                    }
                    continue;
                }
            };
            check(
                &mut bench, &mut model, terminal, sequence, &value, DAY_MAX, seed,
            );
            let (_, _, numbers) = bench.core.sizes();
            assert!(numbers <= 5 * WINDOW, "seed {seed} step {step}");
        }
        let accepted = model
            .settled
            .values()
            .filter(|first| first.status == 0)
            .count();
        assert!(accepted > 200, "seed {seed}: only {accepted} were accepted");
    }
}

fn check(
    bench: &mut Bench,
    model: &mut Model,
    terminal: usize,
    sequence: u64,
    value: &[u8],
    day_max: u64,
    seed: u64,
) {
    let at = (terminal, sequence);
    let day = bench.now_ms / DAY_MS;
    let decision = bench.settle(&format!("t-{terminal}"), value);
    let marked = resend(value);
    let place = format!(
        "seed {seed}, t-{terminal}/{sequence}: {:?}",
        decision.verdict
    );
    match &decision.verdict {
        Verdict::Again => {
            let first = &model.settled[&at];
            assert_eq!(first.content, marked, "{place}");
            assert_eq!(decision.receipt.as_ref(), Some(&first.receipt), "{place}");
        }
        Verdict::Conflict => assert_ne!(model.settled[&at].content, marked, "{place}"),
        // Nothing to compare with: the model has no window. Never settled is all
        // that counts, and that it is old.
        Verdict::TooOld => {
            let newer = model.newer(at);
            assert!(newer >= WINDOW, "{place}: only {newer} are newer");
        }
        Verdict::Seal(_) | Verdict::Foreign(_) => panic!("{place}"),
        Verdict::Accepted(_) | Verdict::Refused(_) => {
            let receipt = decision.receipt.clone().unwrap();
            let code = status(&decision).unwrap();
            let expected = model.judge(at, value, day, day_max);
            assert_eq!(code, expected, "{place}");
            let first = First {
                content: marked,
                receipt,
                status: code,
            };
            let before = model.settled.insert(at, first);
            assert_eq!(before, None, "{place}: settled twice");
        }
    }
}

impl Model {
    /// Settled numbers of the same terminal above this one.
    fn newer(&self, (terminal, sequence): (usize, u64)) -> usize {
        self.settled
            .range((terminal, sequence + 1)..(terminal + 1, 0))
            .count()
    }

    /// The status that this record must get, and what it changes.
    fn judge(&mut self, at: (usize, u64), value: &[u8], day: u64, day_max: u64) -> u16 {
        match Record::decode(value).unwrap().body {
            RecordBody::Payment(payment) => {
                let sum = self.sums.entry((at.0, day)).or_default();
                if *sum + payment.amount_minor > day_max {
                    return Reason::LIMIT.code();
                }
                *sum += payment.amount_minor;
                self.payments.insert(at, (day, payment.amount_minor));
                0
            }
            RecordBody::Reversal(reversal) => {
                let original = (at.0, reversal.reverses);
                if self.newer(original) >= WINDOW {
                    // Out of the window: not known any more.
                    return Reason::REVERSAL.code();
                }
                let Some((paid_on, amount)) = self.payments.get(&original).copied() else {
                    return Reason::REVERSAL.code();
                };
                if !self.reversed.insert(original) {
                    return Reason::REVERSAL.code();
                }
                if let Some(sum) = self.sums.get_mut(&(at.0, paid_on)) {
                    *sum -= amount;
                }
                0
            }
        }
    }
}
