//! What a settled record says, and the bound that no rule needs to name.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use risiti_wire::{Account, Record, Reversal};

use super::*;
use crate::settlement::core::Core;
use crate::settlement::memory::Partition;

const DAY: u32 = 19_675;

fn core() -> Core {
    let mut core = Core::new(Settings::default(), Policy::default());
    core.assign(0, Partition::default());
    core
}

fn settle(core: &mut Core, sequence: u64, body: RecordBody<'_>) -> Verdict {
    let record = Record {
        sequence,
        resend: false,
        body,
    };
    let mut buffer = [0; risiti_wire::limits::RECORD_BYTES_MAX];
    let input = Input {
        partition: 0,
        offset: sequence as i64,
        time_ms: u64::from(DAY) * 86_400_000,
        key: Some(b"t"),
        value: record.encode(&mut buffer).unwrap(),
    };
    core.settle(&input).unwrap().verdict
}

fn payment(currency: u16) -> RecordBody<'static> {
    RecordBody::Payment(Payment {
        time_s: 7,
        account: Account::new("0012345").unwrap(),
        amount_minor: 250,
        currency: Currency::new(currency).unwrap(),
        reference: Some("term 2"),
    })
}

#[test]
fn a_settled_payment_says_what_its_terminal_said() {
    let mut core = core();
    let expected = Transaction {
        kind: Kind::Payment,
        account: Some("0012345".into()),
        amount_minor: 250,
        currency: 404,
        reference: Some("term 2".into()),
        terminal_time_s: 7,
        day: DAY,
        bank_reference: None,
    };
    assert_eq!(
        settle(&mut core, 1, payment(404)),
        Verdict::Accepted(expected.clone())
    );
    let reversal = RecordBody::Reversal(Reversal {
        time_s: 9,
        reverses: 1,
    });
    let back = Transaction {
        kind: Kind::Reversal { reverses: 1 },
        account: None,
        reference: None,
        terminal_time_s: 9,
        ..expected
    };
    assert_eq!(settle(&mut core, 2, reversal), Verdict::Accepted(back));
}

#[test]
fn g8_one_currency_more_than_are_remembered_of_a_day_is_refused() {
    let mut core = core();
    let currencies = 100..100 + limits::SETTLEMENT_CURRENCIES_MAX as u16;
    for currency in currencies.clone() {
        let verdict = settle(&mut core, currency.into(), payment(currency));
        assert!(matches!(verdict, Verdict::Accepted(_)), "{currency}");
    }
    let Verdict::Refused(refusal) = settle(&mut core, 1_000, payment(99)) else {
        panic!("it is one too many");
    };
    assert_eq!(refusal.reason, Reason::CURRENCY);
    // Those that are remembered go on.
    let verdict = settle(&mut core, 1_001, payment(currencies.start));
    assert!(matches!(verdict, Verdict::Accepted(_)));
}

#[test]
fn g8_one_terminal_more_than_a_partition_remembers_is_not_settled() {
    let mut memory = Partition::default();
    memory.terminal_mut("t");
    for n in 1..limits::SETTLEMENT_TERMINALS_MAX {
        memory.terminal_mut(&n.to_string());
    }
    let mut core = Core::new(Settings::default(), Policy::default());
    core.assign(0, memory);
    let verdict = settle(&mut core, 1, payment(404));
    assert!(matches!(verdict, Verdict::Accepted(_)), "it is known");
    let mut memory = Partition::default();
    for n in 0..limits::SETTLEMENT_TERMINALS_MAX {
        memory.terminal_mut(&n.to_string());
    }
    core.assign(0, memory);
    let verdict = settle(&mut core, 1, payment(404));
    assert!(matches!(verdict, Verdict::Foreign(_)), "{verdict:?}");
}

#[test]
fn what_is_remembered_is_counted() {
    let mut core = core();
    let empty = core.partition(0).unwrap();
    assert!(empty.is_empty() && empty.terminal("t").is_none());
    for (sequence, currency) in [(1, 404), (2, 404), (3, 800)] {
        settle(&mut core, sequence, payment(currency));
    }
    let mut memory = core.revoke(0).unwrap();
    assert!(!core.holds(0));
    memory.terminal_mut("u");
    assert!(!memory.is_empty());
    assert_eq!((memory.len(), memory.numbers()), (2, 3));
    let totals = memory.terminal("t").unwrap().totals();
    assert_eq!((totals.currencies(DAY), totals.currencies(DAY + 1)), (2, 0));
    core.assign(0, memory);
    core.assign(1, Partition::default());
    assert!(core.holds(0) && core.holds(1) && !core.holds(2));
    assert_eq!(core.sizes(), (2, 2, 3));
}
