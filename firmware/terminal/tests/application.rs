//! What people do at a terminal, and what they see.

use fastrand::Rng;
use risiti_sim::operator::text;
use risiti_terminal::application::{
    Answered, Application, Draft, Effect, Fact, Levels, NotSaved, Radio, RadioTrouble,
};
use risiti_terminal::hardware::Key;
use risiti_terminal::limits::{
    BATTERY_LOW_MV, BATTERY_RECOVERED_MV, DARK_MS, ENTRY_MS, NOTICE_MS, POSTPONE_MS,
    PRINT_RETRY_MS, PRINT_RETRY_MS_MAX, READ_MS,
};
use risiti_terminal::printing::PrinterError;
use risiti_wire::limits::RECORD_BYTES_MAX;
use risiti_wire::{Account, Currency, Record, RecordBody};

const LEVELS: Levels = Levels {
    waiting: 0,
    capacity: 1_000,
    to_print: 0,
    last_sequence: 0,
    damaged: false,
};

/// A terminal's application and the time.
struct Desk {
    app: Application,
    now_ms: u64,
}

impl Desk {
    fn new() -> Self {
        Self::with_currency(404)
    }

    fn with_currency(code: u16) -> Self {
        let currency = Currency::new(code).expect("in range");
        let mut desk = Self {
            app: Application::new(currency, 180, 0),
            now_ms: 0,
        };
        assert_eq!(desk.fact(Fact::Levels(LEVELS)), None);
        desk
    }

    /// A person's next key, not faster than one can read.
    fn key(&mut self, key: Key) -> Option<Effect> {
        self.now_ms += READ_MS;
        self.app.key(key, self.now_ms)
    }

    /// Digits, and `.` for ENTER, `<` for DELETE, `c p f` for the others.
    fn keys(&mut self, keys: &str) -> Vec<Effect> {
        keys.chars()
            .filter_map(|character| self.key(key(character)))
            .collect()
    }

    fn fact(&mut self, fact: Fact) -> Option<Effect> {
        self.app.fact(fact, self.now_ms)
    }

    fn levels(&mut self, levels: Levels) -> Option<Effect> {
        self.fact(Fact::Levels(levels))
    }

    /// Lets time pass; what the application wanted meanwhile.
    fn pass(&mut self, ms: u64) -> Vec<Effect> {
        let until_ms = self.now_ms + ms;
        let mut effects = Vec::new();
        while let Some(due_ms) = self.app.due().filter(|due_ms| *due_ms <= until_ms) {
            self.now_ms = self.now_ms.max(due_ms);
            effects.extend(self.app.tick(self.now_ms));
            let next_ms = self.app.due().unwrap_or(u64::MAX);
            assert!(next_ms > self.now_ms, "a tick leaves nothing due");
        }
        self.now_ms = until_ms;
        effects
    }

    #[track_caller]
    fn shows(&self, expected: &str) {
        let screen = text(&self.app.screen(self.now_ms));
        let rows: Vec<&str> = screen.lines().map(str::trim_end).collect();
        assert_eq!(rows.join("\n").trim_end(), expected);
    }
}

fn key(character: char) -> Key {
    match character {
        '.' => Key::Enter,
        '<' => Key::Delete,
        'c' => Key::Cancel,
        'p' => Key::Print,
        'f' => Key::Fetch,
        digit => Key::Digit(digit.to_digit(10).expect("a digit") as u8),
    }
}

fn draft(account: &str, amount_minor: u32) -> Draft {
    Draft {
        account: Account::new(account).expect("digits"),
        amount_minor,
        currency: Currency::new(404).expect("KES"),
    }
}

const TWELVE: Answered = Answered {
    sequence: 12,
    accepted: true,
};

#[test]
fn a_payment_goes_from_key_to_saved() {
    let mut desk = Desk::new();
    desk.shows("--:--\nACCOUNT?");
    assert_eq!(desk.keys("0712"), []);
    desk.shows("ACCOUNT\n0712_\n\nENTER=ON C=STOP");
    assert_eq!(desk.keys("345678"), []);
    desk.shows("ACCOUNT\n0712 3456 78_\n\nENTER=ON C=STOP");
    assert_eq!(desk.keys("."), []);
    desk.shows("AMOUNT\nKES 0.00\n\nENTER=ON C=STOP");
    assert_eq!(desk.keys("150000"), []);
    desk.shows("AMOUNT\nKES 1500.00\n\nENTER=ON C=STOP");
    assert_eq!(desk.keys("."), []);
    desk.shows("PAY?   ENTER=YES\nKES 1500.00\n0712 3456 78");
    let draft = draft("0712345678", 150_000);
    assert_eq!(desk.keys("."), [Effect::Save(draft)]);
    desk.shows("SAVING");
    assert_eq!(desk.fact(Fact::Saved { sequence: 12 }), None);
    desk.shows("SAVED 12\nKES 1500.00\nRECEIPT FOLLOWS");
    assert_eq!(desk.pass(NOTICE_MS), []);
    let levels = Levels {
        waiting: 1,
        last_sequence: 12,
        ..LEVELS
    };
    assert_eq!(desk.levels(levels), None);
    desk.shows("--:--\nACCOUNT?     #12\nWAITING 1");
}

#[test]
fn a_draft_becomes_the_record_of_its_payment() {
    let mut bytes = [0; RECORD_BYTES_MAX];
    let draft = draft("000012345678901234", u32::MAX);
    let len = draft
        .encode(u32::MAX, u32::MAX, &mut bytes)
        .expect("the longest fits");
    let record = Record::decode(bytes.get(..len).expect("within")).expect("a record");
    let RecordBody::Payment(payment) = record.body else {
        panic!("no payment: {record:?}");
    };
    assert_eq!(record.sequence, u64::from(u32::MAX));
    assert!(!record.resend);
    assert_eq!(payment.account, draft.account);
    assert_eq!(payment.amount_minor, u64::from(u32::MAX));
    assert_eq!(payment.currency, draft.currency);
    assert_eq!(payment.time_s, u32::MAX);
}

#[test]
fn the_longest_account_and_amount_are_shown_whole() {
    let mut desk = Desk::new();
    // The 19th digit is not taken, nor is one that makes the amount too large.
    desk.keys("1234567890123456789");
    desk.shows("ACCOUNT\n1234 5678 9012\n3456 78_\nENTER=ON C=STOP");
    desk.keys(".42949672950");
    desk.shows("AMOUNT\nKES 42949672.95\n\nENTER=ON C=STOP");
    desk.keys(".");
    desk.shows("PAY?   ENTER=YES\nKES 42949672.95\n1234 5678 9012\n3456 78");
    assert_eq!(
        desk.keys("."),
        [Effect::Save(draft("123456789012345678", u32::MAX))]
    );
}

#[test]
fn decimals_are_those_of_the_currency() {
    let mut desk = Desk::with_currency(800);
    desk.keys("1.1500");
    desk.shows("AMOUNT\nUGX 1500\n\nENTER=ON C=STOP");
    let mut desk = Desk::with_currency(788);
    desk.keys("1.1500");
    desk.shows("AMOUNT\nTND 1.500\n\nENTER=ON C=STOP");
}

#[test]
fn what_was_typed_can_be_taken_back() {
    let mut desk = Desk::new();
    desk.keys("123<");
    desk.shows("ACCOUNT\n12_\n\nENTER=ON C=STOP");
    desk.keys(".55<");
    desk.shows("AMOUNT\nKES 0.05\n\nENTER=ON C=STOP");
    desk.keys("<<");
    desk.shows("ACCOUNT\n12_\n\nENTER=ON C=STOP");
    desk.keys(".9.<");
    desk.shows("AMOUNT\nKES 0.09\n\nENTER=ON C=STOP");
    desk.keys("<<<<<");
    desk.shows("--:--\nACCOUNT?");
    desk.keys("1.5.c");
    desk.shows("STOPPED\nNOTHING SAVED");
}

#[test]
fn nothing_is_paid_without_account_or_amount() {
    let mut desk = Desk::new();
    desk.keys("1<.");
    desk.shows("ACCOUNT\n_\n\nENTER=ON C=STOP");
    desk.keys("1.00.");
    desk.shows("AMOUNT\nKES 0.00\n\nENTER=ON C=STOP");
    assert_eq!(desk.keys("...."), []);
}

#[test]
fn the_number_of_a_card_is_no_account() {
    let mut desk = Desk::new();
    assert_eq!(desk.keys("4111111111111111."), []);
    desk.shows("NO CARD NUMBERS!\nNOTHING SAVED");
    assert_eq!(desk.pass(NOTICE_MS), []);
    desk.shows("--:--\nACCOUNT?");
    // An account as long, without the check digit of a card.
    desk.keys("4111111111111112.100.");
    desk.shows("PAY?   ENTER=YES\nKES 1.00\n4111 1111 1111\n1112");
}

#[test]
fn a_doubled_key_confirms_nothing() {
    let mut desk = Desk::new();
    desk.keys("1.100.");
    // The screen with the whole payment came up with the key before.
    assert_eq!(desk.app.key(Key::Enter, desk.now_ms + READ_MS - 1), None);
    desk.shows("PAY?   ENTER=YES\nKES 1.00\n1");
    assert_eq!(desk.keys("."), [Effect::Save(draft("1", 100))]);
    // Nor does it save twice.
    assert_eq!(desk.keys("...."), []);
    desk.fact(Fact::Saved { sequence: 1 });
    assert_eq!(desk.keys("...."), []);
}

#[test]
fn a_payment_that_nobody_confirms_is_given_up() {
    for keys in ["12", "12.34", "12.34."] {
        let mut desk = Desk::new();
        desk.keys(keys);
        assert_eq!(desk.pass(ENTRY_MS - 1), []);
        desk.key(Key::Fetch);
        assert_eq!(desk.pass(ENTRY_MS - 1), []);
        assert_eq!(desk.pass(1), []);
        desk.shows("STOPPED\nNOTHING SAVED");
        assert_eq!(desk.pass(NOTICE_MS), []);
        desk.shows("--:--\nACCOUNT?");
    }
}

#[test]
fn a_full_terminal_refuses_and_says_what_to_do() {
    let full = "FULL\nNOT SAVED\nFETCH RECEIPTS,\nTHEN PAY AGAIN";
    let mut desk = Desk::new();
    desk.keys("1.100..");
    desk.fact(Fact::NotSaved(NotSaved::Full));
    desk.shows(full);

    let mut desk = Desk::new();
    let levels = Levels {
        waiting: 1_000,
        ..LEVELS
    };
    desk.levels(levels);
    desk.shows("--:--\nACCOUNT?\nFULL: KEY FETCH");
    desk.keys("1");
    desk.shows(full);
    assert_eq!(desk.keys("f"), [Effect::Fetch]);
    desk.shows("--:--\nACCOUNT?\nFULL: KEY FETCH\nFETCHING");
    desk.levels(LEVELS);
    desk.keys("1");
    desk.shows("ACCOUNT\n1_\n\nENTER=ON C=STOP");
}

#[test]
fn damage_is_seen_and_stops_nobody() {
    let mut desk = Desk::new();
    desk.levels(Levels {
        damaged: true,
        ..LEVELS
    });
    desk.shows("--:--\nACCOUNT?\nSTORAGE DAMAGED");
    desk.keys("1.100..");
    desk.fact(Fact::NotSaved(NotSaved::Failed));
    desk.shows("NOT SAVED\nSTORAGE FAILED\nTRY AGAIN OR\nCALL SERVICE");
    assert_eq!(
        desk.keys("c1.100.."),
        [Effect::Save(draft("1", 100))],
        "another try is free"
    );
}

#[test]
fn the_idle_screen_tells_time_signal_battery_and_radio() {
    let mut desk = Desk::new();
    desk.fact(Fact::Clock {
        time_s: 1_795_282_329,
    });
    desk.fact(Fact::Signal(Some(20)));
    desk.fact(Fact::Battery { millivolts: 4_030 });
    desk.shows("20:32 |||.   84%\nACCOUNT?");
    assert_eq!(desk.pass(51_000), []);
    desk.shows("20:33 |||.   84%\nACCOUNT?");
    desk.fact(Fact::Signal(None));
    desk.fact(Fact::Battery { millivolts: 5_000 });
    for (radio, row) in [
        (Radio::Searching, "\n\nSEEKING NETWORK"),
        (Radio::Connecting, "\n\nCONNECTING"),
        (Radio::Online, "\n\nONLINE"),
        (Radio::Off, ""),
        (Radio::Failed(RadioTrouble::Modem), "\n\nMODEM SILENT"),
        (Radio::Failed(RadioTrouble::Sim), "\n\nNO SIM CARD"),
        (Radio::Failed(RadioTrouble::NoNetwork), "\n\nNO NETWORK"),
        (Radio::Failed(RadioTrouble::Denied), "\n\nSIM REFUSED"),
        (Radio::Failed(RadioTrouble::NoGateway), "\n\nNO GATEWAY"),
        (Radio::Failed(RadioTrouble::Refused), "\n\nGATEWAY REFUSES"),
        (Radio::Failed(RadioTrouble::Battery), "\n\nCHARGE FOR RADIO"),
        (Radio::Failed(RadioTrouble::Forged), "\n\nFALSE RECEIPT"),
    ] {
        desk.fact(Fact::Radio(radio));
        desk.shows(&format!("20:33       100%\nACCOUNT?{row}"));
    }
}

#[test]
fn the_clock_on_the_display_goes_from_minute_to_minute() {
    let mut desk = Desk::new();
    // A second into a minute, three of terminal's time after its start.
    desk.now_ms = 3_000;
    desk.fact(Fact::Clock {
        time_s: 1_795_282_321,
    });
    for (minute, due_ms) in [("20:32", 62_000), ("20:33", 122_000), ("20:34", 182_000)] {
        desk.shows(&format!("{minute}\nACCOUNT?"));
        // Lit, it would go dark before.
        desk.key(Key::Cancel);
        assert_eq!(desk.app.due(), Some(due_ms.min(desk.now_ms + DARK_MS)));
        while desk.now_ms < due_ms {
            desk.key(Key::Cancel);
            let passed_ms = (due_ms - desk.now_ms).min(DARK_MS / 2);
            assert_eq!(desk.pass(passed_ms), []);
        }
    }
}

#[test]
fn no_minute_wakes_the_display_once_the_time_is_too_old() {
    let mut desk = Desk::new();
    desk.fact(Fact::Clock { time_s: 1_000 });
    // Told 49 days ago.
    desk.now_ms = u64::from(u32::MAX) + 1;
    desk.key(Key::Cancel);
    desk.shows("--:--\nACCOUNT?");
    assert_eq!(desk.pass(0), []);
    assert_eq!(desk.app.due(), Some(desk.now_ms + DARK_MS));
}

#[test]
fn signal_has_a_bar_for_each_seven_and_begins_above() {
    let mut desk = Desk::new();
    for (signal, bars) in [
        (0, "...."),
        (1, "|..."),
        (7, "|..."),
        (8, "||.."),
        (21, "|||."),
        (22, "||||"),
        (31, "||||"),
    ] {
        desk.fact(Fact::Signal(Some(signal)));
        desk.shows(&format!("--:-- {bars}\nACCOUNT?"));
    }
}

#[test]
fn a_store_that_has_not_said_what_it_holds_is_not_full() {
    let currency = Currency::new(404).expect("in range");
    let mut desk = Desk {
        app: Application::new(currency, 180, 0),
        now_ms: 0,
    };
    desk.shows("--:--\nACCOUNT?");
    desk.keys("1");
    desk.shows("ACCOUNT\n1_\n\nENTER=ON C=STOP");
}

#[test]
fn a_record_is_stamped_with_the_time_if_it_is_known() {
    let mut desk = Desk::new();
    assert_eq!(desk.app.time_s(5_000), 0);
    desk.fact(Fact::Clock { time_s: 1_000 });
    assert_eq!(desk.app.time_s(59_999), 1_059);
    assert_eq!(desk.app.time_s(u64::from(u32::MAX) + 1), 0);
}

#[test]
fn receipts_are_printed_one_after_the_other() {
    let mut desk = Desk::new();
    let levels = Levels {
        to_print: 2,
        ..LEVELS
    };
    assert_eq!(desk.levels(levels), Some(Effect::Print));
    assert_eq!(desk.levels(levels), None, "one at a time");
    desk.fact(Fact::Printing(TWELVE));
    desk.shows("--:--\nACCOUNT?\n\nPRINTING 12");
    assert_eq!(desk.fact(Fact::Printed(TWELVE)), Some(Effect::Print));
    desk.shows("PAYMENT 12\nACCEPTED\nRECEIPT PRINTED");
    let rejected = Answered {
        sequence: 13,
        accepted: false,
    };
    assert_eq!(desk.fact(Fact::Printed(rejected)), None);
    desk.shows("PAYMENT 13\nREJECTED\nRECEIPT PRINTED");
    desk.pass(NOTICE_MS);
    desk.shows("--:--\nACCOUNT?");
}

#[test]
fn printing_disturbs_nobody_at_work() {
    let mut desk = Desk::new();
    desk.keys("12");
    let levels = Levels {
        to_print: 1,
        ..LEVELS
    };
    assert_eq!(desk.levels(levels), Some(Effect::Print));
    desk.fact(Fact::Printing(TWELVE));
    desk.fact(Fact::Printed(TWELVE));
    desk.shows("ACCOUNT\n12_\n\nENTER=ON C=STOP");
    assert_eq!(desk.keys(".100.."), [Effect::Save(draft("12", 100))]);
}

#[test]
fn the_last_receipt_is_printed_again_on_request() {
    let mut desk = Desk::new();
    assert_eq!(desk.keys("p"), [Effect::PrintLast]);
    assert_eq!(desk.keys("p"), [], "once at a time");
    desk.fact(Fact::NothingToPrint);
    desk.shows("NO RECEIPT YET");
    assert_eq!(desk.keys("p"), [Effect::PrintLast]);
    desk.fact(Fact::Printing(TWELVE));
    desk.fact(Fact::Printed(TWELVE));
    desk.shows("PAYMENT 12\nACCEPTED\nRECEIPT PRINTED");
}

#[test]
fn no_paper_is_told_once_and_tried_again() {
    let mut desk = Desk::new();
    let levels = Levels {
        to_print: 3,
        ..LEVELS
    };
    assert_eq!(desk.levels(levels), Some(Effect::Print));
    let stopped = Fact::PrinterStopped(PrinterError::NoPaper);
    assert_eq!(desk.fact(stopped), None);
    desk.shows("NO PAPER\n3 TO PRINT\nPUT PAPER IN,\nTHEN KEY PRINT");
    desk.pass(NOTICE_MS);
    desk.shows("--:--\nACCOUNT?\n\nNO PAPER");
    assert_eq!(desk.pass(PRINT_RETRY_MS - NOTICE_MS), [Effect::Print]);
    desk.fact(stopped);
    desk.shows("--:--\nACCOUNT?\n\nNO PAPER");
    assert_eq!(desk.keys("p"), [Effect::Print], "by key at once");
    // The pauses grow up to a bound.
    let mut longest_ms = 0;
    for _ in 0..20 {
        desk.fact(stopped);
        let before_ms = desk.now_ms;
        while desk.pass(1_000).is_empty() {}
        longest_ms = longest_ms.max(desk.now_ms - before_ms);
    }
    assert!((PRINT_RETRY_MS_MAX..PRINT_RETRY_MS_MAX + 1_000).contains(&longest_ms));
    // Once it goes, it goes on.
    assert_eq!(desk.fact(Fact::Printed(TWELVE)), Some(Effect::Print));
    desk.fact(stopped);
    assert_eq!(desk.pass(PRINT_RETRY_MS), [Effect::Print]);
    // With nothing to print any more, nobody needs paper.
    desk.fact(stopped);
    desk.pass(NOTICE_MS);
    desk.shows("--:--\nACCOUNT?\n\nNO PAPER");
    desk.levels(LEVELS);
    desk.shows("--:--\nACCOUNT?");
}

#[test]
fn an_interrupted_receipt_is_asked_for_and_not_printed_unasked() {
    let question = "RECEIPT OF 12\nON PAPER?\nENTER=YES\nPRINT=NO, AGAIN";
    let interrupted = Fact::Interrupted {
        ordinal: 5,
        sequence: 12,
    };
    for (key, again) in [(Key::Enter, false), (Key::Print, true)] {
        let mut desk = Desk::new();
        let levels = Levels {
            to_print: 2,
            ..LEVELS
        };
        assert_eq!(desk.levels(levels), Some(Effect::Print));
        assert_eq!(desk.fact(interrupted), None);
        desk.shows(question);
        // Neither time nor news prints it.
        assert_eq!(desk.levels(levels), None);
        assert_eq!(desk.pass(DARK_MS), []);
        desk.shows("");
        // A key in the dark answers nothing, nor does one that comes too soon.
        assert_eq!(desk.key(key), None);
        desk.shows(question);
        assert_eq!(desk.app.key(key, desk.now_ms + READ_MS - 1), None);
        let answer = Effect::Answer { ordinal: 5, again };
        assert_eq!(desk.key(key), Some(answer));
        let then = if again {
            desk.fact(Fact::Printed(TWELVE))
        } else {
            desk.fact(Fact::Settled)
        };
        assert_eq!(then, Some(Effect::Print), "the next one");
    }
}

#[test]
fn a_question_waits_for_customers() {
    let mut desk = Desk::new();
    let levels = Levels {
        to_print: 1,
        ..LEVELS
    };
    desk.levels(levels);
    desk.fact(Fact::Interrupted {
        ordinal: 0,
        sequence: 3,
    });
    assert_eq!(desk.keys("1.100.."), [Effect::Save(draft("1", 100))]);
    desk.fact(Fact::Saved { sequence: 4 });
    desk.key(Key::Enter);
    desk.shows("RECEIPT OF 3\nON PAPER?\nENTER=YES\nPRINT=NO, AGAIN");
    assert_eq!(desk.keys("c"), []);
    desk.shows("--:--\nACCOUNT?");
    assert_eq!(desk.pass(POSTPONE_MS), []);
    desk.key(Key::Cancel);
    desk.shows("RECEIPT OF 3\nON PAPER?\nENTER=YES\nPRINT=NO, AGAIN");
}

#[test]
fn a_question_that_was_put_off_stays_away_until_its_time() {
    let mut desk = Desk::new();
    desk.levels(Levels {
        to_print: 1,
        ..LEVELS
    });
    desk.fact(Fact::Interrupted {
        ordinal: 0,
        sequence: 3,
    });
    desk.key(Key::Cancel);
    let again_ms = desk.now_ms + POSTPONE_MS;
    while desk.now_ms + 2 * DARK_MS < again_ms {
        desk.pass(DARK_MS);
        desk.shows("");
        desk.key(Key::Cancel);
        desk.shows("--:--\nACCOUNT?");
    }
    desk.pass(again_ms - desk.now_ms);
    desk.key(Key::Cancel);
    desk.shows("RECEIPT OF 3\nON PAPER?\nENTER=YES\nPRINT=NO, AGAIN");
}

#[test]
fn the_key_that_closes_a_notice_answers_no_question_behind_it() {
    for key in [Key::Enter, Key::Delete, Key::Cancel] {
        let mut desk = Desk::new();
        desk.levels(Levels {
            to_print: 1,
            ..LEVELS
        });
        desk.fact(Fact::Interrupted {
            ordinal: 0,
            sequence: 3,
        });
        assert_eq!(desk.keys("1.1c"), []);
        desk.shows("STOPPED\nNOTHING SAVED");
        assert_eq!(desk.key(key), None);
        desk.shows("RECEIPT OF 3\nON PAPER?\nENTER=YES\nPRINT=NO, AGAIN");
    }
}

#[test]
fn a_question_stands_back_for_the_last_receipt() {
    let mut desk = Desk::new();
    desk.levels(Levels {
        to_print: 1,
        ..LEVELS
    });
    desk.fact(Fact::Interrupted {
        ordinal: 0,
        sequence: 3,
    });
    assert_eq!(desk.keys("cp"), [Effect::PrintLast]);
    desk.pass(POSTPONE_MS);
    // The printer is busy: an answer could not be carried out.
    assert_eq!(desk.keys("cpp."), []);
    assert_eq!(desk.fact(Fact::Printed(TWELVE)), None);
    assert_eq!(desk.app.key(Key::Enter, desk.now_ms), None, "too soon");
    let answer = Effect::Answer {
        ordinal: 0,
        again: false,
    };
    assert_eq!(desk.keys("."), [answer]);
}

#[test]
fn a_low_battery_saves_but_does_not_print() {
    let mut desk = Desk::new();
    desk.fact(Fact::Battery {
        millivolts: BATTERY_LOW_MV - 1,
    });
    let levels = Levels {
        to_print: 1,
        waiting: 7,
        ..LEVELS
    };
    assert_eq!(desk.levels(levels), None);
    desk.shows("--:--         6%\nACCOUNT?\nBATTERY LOW");
    assert_eq!(desk.keys("p"), []);
    desk.shows("BATTERY LOW\nCHARGE IT TO\nPRINT RECEIPTS");
    assert_eq!(desk.keys("c1.100.."), [Effect::Save(draft("1", 100))]);
    desk.fact(Fact::Saved { sequence: 1 });
    assert_eq!(
        desk.fact(Fact::Battery {
            millivolts: BATTERY_RECOVERED_MV - 1
        }),
        None
    );
    assert_eq!(
        desk.fact(Fact::Battery {
            millivolts: BATTERY_RECOVERED_MV
        }),
        Some(Effect::Print)
    );
}

#[test]
fn a_battery_is_low_below_its_limit_and_not_at_it() {
    let mut desk = Desk::new();
    for (millivolts, is_low) in [
        (BATTERY_LOW_MV, false),
        (BATTERY_LOW_MV - 1, true),
        (BATTERY_RECOVERED_MV - 1, true),
        (BATTERY_RECOVERED_MV, false),
        (BATTERY_LOW_MV, false),
    ] {
        desk.fact(Fact::Battery { millivolts });
        let screen = text(&desk.app.screen(desk.now_ms));
        assert_eq!(screen.contains("BATTERY LOW"), is_low, "{millivolts} mV");
    }
}

#[test]
fn the_display_goes_dark_and_a_key_lights_it() {
    let mut desk = Desk::new();
    desk.pass(DARK_MS);
    desk.shows("");
    assert_eq!(desk.app.due(), None, "nothing wakes it");
    desk.key(Key::Cancel);
    desk.shows("--:--\nACCOUNT?");
    desk.pass(DARK_MS);
    desk.key(Key::Digit(7));
    desk.shows("ACCOUNT\n7_\n\nENTER=ON C=STOP");
}

#[test]
fn storage_that_fails_under_a_print_is_told_and_tried_again() {
    let mut desk = Desk::new();
    let levels = Levels {
        to_print: 1,
        ..LEVELS
    };
    desk.levels(levels);
    assert_eq!(desk.fact(Fact::StorageFailed), None);
    desk.shows("STORAGE FAILED\n1 TO PRINT\nCALL SERVICE");
    assert_eq!(desk.pass(PRINT_RETRY_MS), [Effect::Print]);
}

#[test]
fn a_store_that_counts_what_it_cannot_find_wears_nobody_out() {
    let mut desk = Desk::new();
    let levels = Levels {
        to_print: 1,
        ..LEVELS
    };
    assert_eq!(desk.levels(levels), Some(Effect::Print));
    assert_eq!(desk.fact(Fact::NothingToPrint), None);
    assert_eq!(desk.levels(levels), None);
    assert_eq!(desk.pass(PRINT_RETRY_MS - 1), []);
    assert_eq!(desk.pass(1), [Effect::Print]);
    desk.fact(Fact::NothingToPrint);
    assert_eq!(desk.keys("p"), [Effect::Print], "by key at once");
}

/// What the screen said when a key was pressed on it.
fn confirmed(screen: &str) -> Option<(String, String)> {
    let mut rows = screen.lines().map(str::trim_end);
    let digits = |row: &str| -> String { row.chars().filter(char::is_ascii_digit).collect() };
    (rows.next() == Some("PAY?   ENTER=YES")).then(|| {
        let amount = digits(rows.next().unwrap_or_default());
        let account: String = rows.map(digits).collect();
        (account, amount.trim_start_matches('0').to_owned())
    })
}

/// Runs random keys, facts and pauses, and judges each payment that is saved by
/// the screen before its key. Returns how many were saved, and how many of them
/// the screen one step earlier did not show.
fn random_people(seed: u64, steps: u32) -> (u32, u32) {
    let mut rng = Rng::with_seed(seed);
    let mut desk = Desk::new();
    let mut saves = 0;
    let mut not_earlier = 0;
    let mut before = String::new();
    let mut printing = false;
    for _ in 0..steps {
        let earlier = before;
        before = text(&desk.app.screen(desk.now_ms));
        desk.now_ms += *rng
            .choice(&[0, 1, 50, 399, 400, 1_000, 20_000])
            .unwrap_or(&0);
        let due = desk.app.due().is_some_and(|due_ms| due_ms <= desk.now_ms);
        let effect = if due && rng.bool() {
            desk.app.tick(desk.now_ms)
        } else if rng.u8(0..10) < 8 {
            let keys = ['1', '0', '7', '.', '.', '.', '<', 'c', 'p', 'f'];
            let pressed = *rng.choice(&keys).unwrap_or(&'c');
            desk.app.key(key(pressed), desk.now_ms)
        } else {
            desk.fact(random_fact(&mut rng, &mut printing))
        };
        match effect {
            Some(Effect::Save(draft)) => {
                saves += 1;
                let meant = (draft.account.to_string(), draft.amount_minor.to_string());
                let meant = Some(meant);
                assert_eq!(confirmed(&before), meant, "seed {seed}");
                not_earlier += u32::from(confirmed(&earlier) != meant);
                let then = desk.fact(match rng.u8(0..3) {
                    0 => Fact::NotSaved(NotSaved::Full),
                    1 => Fact::NotSaved(NotSaved::Failed),
                    _ => Fact::Saved { sequence: saves },
                });
                assert!(!printing || then.is_none());
                printing |= then.is_some();
            }
            Some(Effect::Print | Effect::PrintLast | Effect::Answer { .. }) => {
                assert!(!printing, "seed {seed}: two jobs at once");
                printing = true;
            }
            Some(Effect::Fetch) | None => {}
        }
        let screen = desk.app.screen(desk.now_ms);
        let ascii = |byte: &u8| (b' '..=b'~').contains(byte);
        assert!(screen.0.iter().flatten().all(ascii));
    }
    (saves, not_earlier)
}

fn random_fact(rng: &mut Rng, printing: &mut bool) -> Fact {
    let receipt = Answered {
        sequence: rng.u32(..),
        accepted: rng.bool(),
    };
    let was_printing = *printing;
    match rng.u8(0..14) {
        0 => Fact::Clock {
            time_s: rng.u32(..),
        },
        1 => Fact::Battery {
            millivolts: rng.u16(3_300..4_300),
        },
        2 => Fact::Signal(rng.bool().then(|| rng.u8(..))),
        3 | 4 => Fact::Levels(Levels {
            waiting: rng.u32(0..12),
            capacity: 10,
            to_print: rng.u32(0..3),
            last_sequence: rng.u32(..),
            damaged: rng.bool(),
        }),
        5 => Fact::Radio(Radio::Failed(RadioTrouble::NoNetwork)),
        6 if was_printing => Fact::Printing(receipt),
        // All others end a job, and come only when there is one.
        ending if was_printing => {
            *printing = false;
            match ending {
                7 => Fact::Printed(receipt),
                8 => Fact::Settled,
                9 => Fact::NothingToPrint,
                10 => Fact::PrinterStopped(PrinterError::NoPaper),
                11 => Fact::StorageFailed,
                _ => Fact::Interrupted {
                    ordinal: rng.u32(..),
                    sequence: rng.u32(..),
                },
            }
        }
        _ => Fact::Radio(Radio::Off),
    }
}

#[test]
fn nothing_is_saved_that_was_not_on_display() {
    let (mut saved, mut control) = (0, 0);
    for seed in 0..1_000 {
        let (saves, not_earlier) = random_people(seed, 1_000);
        saved += saves;
        control += not_earlier;
    }
    println!("{saved} payments in 1,000,000 steps");
    assert!(saved > 2_000);
    // The control: an application that took the key for the screen before would
    // have been found out.
    assert!(control > 20, "{control}");
}
