//! One errand against a gateway's protocol core, in virtual time.
#![allow(clippy::unwrap_used)] // a test that fails may as well panic

mod connection_peer;

use std::cell::RefMut;

use connection_peer::{
    Arrived, ID, Terminal, as_task, open_receipt, packets, receipt, root, seal_keys, sealed,
};
use risiti_mqtt::{CloseCause, ConnectionLimits, ReasonCode};
use risiti_sim::nor::Tear;
use risiti_terminal::connection::{End, FIRMWARE, Link, Orders, Scratch};
use risiti_terminal::hardware::Clock;
use risiti_terminal::limits::{
    ANSWER_MS, ASKS_MS_MAX, ERRAND_MS_MAX, HELD_MS_MAX, IN_VAIN_MAX, PIPELINE_MAX,
};
use risiti_terminal::modem::ModemError;
use risiti_terminal::mqtt::client::packet_id;
use risiti_terminal::mqtt::{Fault, Reason};
use risiti_wire::limits::{RECEIPT_BYTES_MAX, SEALED_RECEIPT_BYTES_MAX};
use risiti_wire::seal::{self, Direction};
use risiti_wire::{Receipt, Status};

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBSCRIBE: u8 = 8;
const PINGREQ: u8 = 12;
const DISCONNECT: u8 = 14;

#[tokio::test(start_paused = true)]
async fn a_payment_and_its_receipt_take_three_segments_and_three_round_trips() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.pay().await;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(outcome.end, End::Left);
        assert_eq!((outcome.acknowledged, outcome.receipts), (1, 1));
        assert_eq!(
            terminal.sent_types(),
            [CONNECT, PUBLISH, PUBACK, DISCONNECT]
        );
        // CONNECT with the record; PUBACK with the leave.
        assert_eq!(terminal.modem.sent.len(), 2);
        // TCP, CONNECT to PUBACK, settlement's 300 ms, and half a round trip that is
        // not waited for.
        let took_ms = terminal.clock.now_ms() - terminal.modem.open_at_ms;
        assert_eq!(took_ms, 2 * terminal.modem.round_trip_ms + 300);
        let levels = terminal.store.lock().await.levels();
        assert_eq!((levels.waiting, levels.to_print), (0, 1));
        let gateway = terminal.gateway.borrow();
        assert_eq!(gateway.acknowledged, [1]);
        assert!(matches!(
            gateway.ends[..],
            [CloseCause::ClientDisconnected(ReasonCode::Success)]
        ));
        assert_eq!(terminal.modem.closes, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_first_errand_subscribes_and_reports_and_the_next_does_neither() {
    as_task(async {
        let mut terminal = Terminal::new().await;
        let orders = Orders {
            report: true,
            battery_mv: 3_900,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!(outcome.end, End::Left);
        assert!(outcome.reported);
        assert_eq!(
            terminal.sent_types(),
            [CONNECT, SUBSCRIBE, PUBLISH, DISCONNECT]
        );
        assert_eq!(terminal.modem.sent.len(), 2, "all of it in one segment");
        let birth = terminal.gateway.borrow().birth().unwrap();
        assert_eq!((birth.firmware, birth.battery_mv), (FIRMWARE, 3_900));
        assert_eq!((birth.signal, birth.time_s), (Some(17), 1_700_000_000));

        terminal.modem.sent.clear();
        terminal.run(&Orders::default()).await;
        assert_eq!(terminal.sent_types(), [CONNECT, DISCONNECT]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_lost_the_session_gets_subscription_and_report_again() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().session = None;
        terminal.pay().await;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(outcome.receipts, 1, "{outcome:?}");
        let gateway = terminal.gateway.borrow();
        assert_eq!((gateway.subscribes, gateway.births), (1, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_connack_was_lost_is_subscribed_to_all_the_same() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().session = None;
        // CONNECT arrives and makes a session; nothing comes back.
        terminal.modem.cut_down = Some(0);
        terminal.pay().await;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(outcome.end, End::Modem(ModemError::Closed));
        assert_eq!(terminal.gateway.borrow().session, Some(false));
        // The next CONNACK says that a session is present, and it is not enough.
        terminal.modem.cut_down = None;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!((outcome.end, outcome.receipts), (End::Left, 1));
        assert_eq!(terminal.gateway.borrow().session, Some(true));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn g4_a_session_without_subscription_is_subscribed_to_when_nothing_comes() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        // Another gateway, where an errand once ended between CONNECT and SUBSCRIBE.
        terminal.gateway.borrow_mut().session = Some(false);
        terminal.pay().await;
        for _ in 0..IN_VAIN_MAX {
            let outcome = terminal.run(&Orders::default()).await;
            assert_eq!((outcome.end, outcome.receipts), (End::Left, 0));
        }
        assert_eq!(terminal.gateway.borrow().subscribes, 0);
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!((outcome.end, outcome.receipts), (End::Left, 1));
        assert_eq!(terminal.gateway.borrow().subscribes, 1);

        // Where nothing is waited for, nothing is in vain.
        for _ in 0..=IN_VAIN_MAX {
            terminal.run(&Orders::default()).await;
        }
        assert_eq!(terminal.gateway.borrow().subscribes, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_record_without_puback_leaves_again_under_its_identifier_with_dup() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        let sequence = terminal.pay().await;
        terminal.modem.cut_down = Some(3);
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(outcome.end, End::Modem(ModemError::Closed));
        terminal.modem.cut_down = None;
        let later = terminal.pay().await;
        terminal.run(&Orders::default()).await;
        let arrived = |sequence: u32, dup| Arrived {
            sequence: sequence.into(),
            packet_id: packet_id(sequence),
            dup,
            resend_mark: false,
        };
        assert_eq!(
            terminal.gateway.borrow().arrived,
            [
                arrived(sequence, false),
                arrived(sequence, true),
                arrived(later, false),
            ]
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_power_cut_a_record_has_its_identifier_and_no_dup() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        let sequence = terminal.pay().await;
        terminal.modem.cut_down = Some(3);
        terminal.run(&Orders::default()).await;
        terminal.modem.cut_down = None;
        terminal.restart().await;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!((outcome.acknowledged, outcome.receipts), (1, 1));
        let gateway = terminal.gateway.borrow();
        let arrived = Arrived {
            sequence: sequence.into(),
            packet_id: packet_id(sequence),
            dup: false,
            resend_mark: false,
        };
        assert_eq!(gateway.arrived, [arrived, arrived]);
        assert_eq!(gateway.journal[&u64::from(sequence)], 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_marked_as_sent_when_connack_refuses() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.pay().await;
        terminal.gateway.borrow_mut().manners.refuses = Some(ReasonCode::ServerBusy);
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(outcome.end, End::Refused(Reason::SERVER_BUSY));
        assert!(terminal.gateway.borrow().arrived.is_empty());
        assert_eq!(terminal.store.lock().await.levels().unsent, 1);
        terminal.gateway.borrow_mut().manners.refuses = None;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!((outcome.acknowledged, outcome.receipts), (1, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_records_leave_in_order_and_never_beyond_the_window() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        let mut sequences = Vec::new();
        for _ in 0..100 {
            sequences.push(u64::from(terminal.pay().await));
        }
        // A gateway that closes on whoever exceeds this.
        let receive_maximum = PIPELINE_MAX as u16 - 3;
        limits(&terminal).receive_maximum = receive_maximum;
        terminal.link = Default::default();
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!((outcome.end, outcome.acknowledged), (End::Left, 100));
        let gateway = terminal.gateway.borrow();
        let arrived: Vec<u64> = gateway.arrived.iter().map(|one| one.sequence).collect();
        assert_eq!(arrived, sequences);
        assert!(gateway.arrived.iter().all(|one| !one.dup));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_takes_fewer_before_connack_closes_once() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        for _ in 0..5 {
            terminal.pay().await;
        }
        limits(&terminal).receive_maximum = 2;
        // As after a start: what the last CONNACK said is forgotten.
        terminal.link = Default::default();
        let outcome = terminal.run(&Orders::default()).await;
        let reason = Reason::RECEIVE_MAXIMUM_EXCEEDED;
        if outcome.end != End::Left {
            assert_eq!(outcome.end, End::Closed(reason));
        }
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(outcome.end, End::Left);
        assert_eq!(terminal.gateway.borrow().journal.len(), 5);
        assert!(terminal.gateway.borrow().journal.values().all(|n| *n == 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_alias_is_used_once_connack_allows_it_and_pays_for_itself() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        for _ in 0..40 {
            terminal.pay().await;
        }
        terminal.run(&Orders::default()).await;
        let lengths = |terminal: &Terminal| -> Vec<usize> {
            let sent = &terminal.modem.sent;
            let all: Vec<u8> = sent.iter().flat_map(|s| s.bytes.clone()).collect();
            let all = packets(&all);
            let records = all.iter().filter(|packet| packet[0] >> 4 == PUBLISH);
            records.map(|packet| packet.len()).collect()
        };
        let with = lengths(&terminal);
        assert_eq!(with.len(), 40);
        let name = "t/t-000017/records".len();
        // The last ones by alias, the first ones by name.
        assert_eq!(with[17] + name - 3, with[0], "{with:?}");

        let mut terminal = Terminal::known().await;
        limits(&terminal).topic_alias_maximum = 0;
        for _ in 0..40 {
            terminal.pay().await;
        }
        terminal.run(&Orders::default()).await;
        let without = lengths(&terminal);
        assert!(without.iter().all(|length| *length >= with[0]));
        assert!(with.iter().sum::<usize>() + 300 < without.iter().sum::<usize>());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn receipts_that_waited_come_by_alias_and_all_in_one_errand() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().manners.settles_ms = None;
        for _ in 0..20 {
            terminal.pay().await;
        }
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!((outcome.acknowledged, outcome.receipts), (20, 0));
        for sequence in 1..=20 {
            terminal.gateway.borrow_mut().settle(sequence);
        }
        terminal.modem.received.clear();
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!((outcome.end, outcome.receipts), (End::Left, 20));
        assert_eq!(terminal.gateway.borrow().acknowledged.len(), 20);
        let one = receipt(1, 1).len();
        // The first with its topic, the others with three bytes instead.
        let most = 16 + 20 * (one + 10) + "t/t-000017/receipts".len();
        assert!(terminal.modem.down_bytes() <= most);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn patience_with_a_receipt_ends_and_nothing_is_lost_by_it() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().manners.settles_ms = Some(60_000);
        terminal.pay().await;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!((outcome.end, outcome.receipts), (End::Left, 0));
        let took_ms = terminal.clock.now_ms() - terminal.modem.open_at_ms;
        let patience_ms = u64::from(terminal.settings.patience_ms);
        assert_eq!(took_ms, 2 * terminal.modem.round_trip_ms + patience_ms);
        // It comes with the next errand, before anybody grows impatient.
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!((outcome.end, outcome.receipts), (End::Left, 1));
        let took_ms = terminal.clock.now_ms() - terminal.modem.open_at_ms;
        assert_eq!(took_ms, 2 * terminal.modem.round_trip_ms);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_record_saved_while_connected_leaves_at_once() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().manners.settles_ms = Some(3_000);
        terminal.pay().await;
        let (store, saved, clock) = (&terminal.store, &terminal.saved, &terminal.clock);
        let errand = risiti_terminal::connection::Errand {
            modem: &mut terminal.modem,
            store,
            clock,
            settings: &terminal.settings,
            scratch: &mut terminal.scratch,
            link: &mut terminal.link,
            saved,
        };
        let later = async {
            clock.sleep(2_000).await;
            connection_peer::pay(&mut *store.lock().await).await;
            saved.signal(());
        };
        let orders = Orders::default();
        let (outcome, ()) = tokio::join!(errand.run(&orders), later);
        assert_eq!((outcome.acknowledged, outcome.receipts), (2, 2));
        assert_eq!(terminal.gateway.borrow().connects, 1);
        let second = &terminal.modem.sent[1];
        assert_eq!(
            (second.at_ms - terminal.modem.open_at_ms, second.bytes[0]),
            (2_000, 0x32)
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_came_before_is_acknowledged_and_counted() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        let sequence = terminal.pay().await;
        terminal.run(&Orders::default()).await;
        terminal.gateway.borrow_mut().settle(sequence.into());
        terminal.gateway.borrow_mut().settle(99_999);
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!(
            (outcome.receipts, outcome.repeated, outcome.strangers),
            (0, 1, 1)
        );
        assert!(terminal.gateway.borrow().outbox.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_cant_be_read_is_refused_and_stays_with_the_gateway() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        let sequence = terminal.pay().await;
        terminal.gateway.borrow_mut().manners.settles_ms = None;
        terminal.run(&Orders::default()).await;
        let mut later = receipt(sequence.into(), 1);
        later[1] = 2; // a version to come
        terminal.gateway.borrow_mut().outbox.insert(7, later);
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!((outcome.end, outcome.strangers), (End::Left, 1));
        let gateway = terminal.gateway.borrow();
        assert_eq!(gateway.refused, [7]);
        assert!(gateway.outbox.contains_key(&7));
    })
    .await;
}

/// Everything that somebody in between can put before a terminal as a receipt of its
/// record.
fn forgeries(sequence: u64) -> Vec<(&'static str, Vec<u8>)> {
    let genuine = receipt(sequence, 4);
    let mut changed = genuine.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut moved = receipt(sequence + 1, 4);
    moved[3] = sequence as u8;
    let open = open_receipt(sequence, 4);
    let others = |id: &str, direction, key_of: &str| {
        let key = root().key(key_of, 1, direction).unwrap();
        let key = seal::Key::new(Direction::Down, 1, *key.expose()).unwrap();
        let mut buffer = [0; SEALED_RECEIPT_BYTES_MAX];
        seal::seal(&key, id, &open, &mut buffer).unwrap().to_vec()
    };
    vec![
        ("open", open.clone()),
        ("changed", changed),
        ("moved to another record", moved),
        ("another terminal's", others("t-2", Direction::Down, "t-2")),
        (
            "by another terminal's key",
            others(ID, Direction::Down, "t-2"),
        ),
        ("by the key of records", others(ID, Direction::Up, ID)),
    ]
}

#[tokio::test(start_paused = true)]
async fn g10_a_forged_receipt_settles_nothing_and_blocks_nothing() {
    as_task(async {
        for (what, forged) in forgeries(1) {
            let mut terminal = Terminal::known().await;
            assert_eq!(terminal.pay().await, 1);
            terminal.gateway.borrow_mut().manners.settles_ms = None;
            terminal.run(&Orders::default()).await;
            terminal.gateway.borrow_mut().outbox.insert(4, forged);
            let orders = Orders {
                expects: true,
                ..Orders::default()
            };
            let outcome = terminal.run(&orders).await;
            assert_eq!((outcome.end, outcome.forged), (End::Left, 1), "{what}");
            assert_eq!((outcome.receipts, outcome.strangers), (0, 0), "{what}");
            let levels = terminal.store.lock().await.levels();
            assert_eq!((levels.waiting, levels.to_print), (1, 0), "{what}");
            // It does not come again, and what comes behind it is taken.
            assert!(terminal.gateway.borrow().outbox.is_empty(), "{what}");
            terminal.gateway.borrow_mut().settle(1);
            let outcome = terminal.run(&orders).await;
            assert_eq!((outcome.receipts, outcome.forged), (1, 0), "{what}");
            assert_whole(&terminal).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn control_g10_a_terminal_without_keys_believes_whoever_it_talks_to() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.settings.seal = None;
        terminal.gateway.borrow_mut().manners.seals = None;
        terminal.gateway.borrow_mut().manners.settles_ms = None;
        terminal.pay().await;
        terminal.run(&Orders::default()).await;
        let made_up = open_receipt(1, 4);
        terminal.gateway.borrow_mut().outbox.insert(4, made_up);
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!((outcome.receipts, outcome.forged), (1, 0));
        assert_eq!(terminal.store.lock().await.levels().to_print, 1);
    })
    .await;
}

/// What is to be printed is the receipt as settlement wrote it.
async fn assert_whole(terminal: &Terminal) {
    let mut bytes = [0; RECEIPT_BYTES_MAX];
    let mut store = terminal.store.lock().await;
    let next = store.next_to_print(&mut bytes).await.unwrap().unwrap();
    let receipt = Receipt::decode(&bytes[..next.len]).unwrap();
    assert_eq!((receipt.sequence, receipt.status), (1, Status::Accepted));
    assert_eq!(receipt.bank_reference, Some("FT2332"));
}

#[tokio::test(start_paused = true)]
async fn new_keys_serve_what_was_saved_before_them() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        assert_eq!(terminal.pay().await, 1);
        terminal.gateway.borrow_mut().manners.settles_ms = None;
        terminal.run(&Orders::default()).await;
        // Settlement answers with the keys of the record; the terminal has others by then.
        let before = receipt(1, 4);
        terminal.gateway.borrow_mut().outbox.insert(4, before);
        terminal.settings.seal = Some(seal_keys(2));
        terminal.gateway.borrow_mut().manners.seals = Some(2);
        let orders = Orders {
            expects: true,
            resend_up_to: 1,
            ..Orders::default()
        };
        terminal.gateway.borrow_mut().manners.settles_ms = Some(300);
        let outcome = terminal.run(&orders).await;
        // Of other keys is no forgery; the record goes out with the new ones and is
        // answered for them.
        assert_eq!((outcome.strangers, outcome.forged), (1, 0));
        assert_eq!((outcome.resent, outcome.receipts), (1, 1));
        assert!(terminal.gateway.borrow().outbox.is_empty());
        assert_eq!(sealed(2, &open_receipt(1, 1))[2], 0x0e);
        assert_whole(&terminal).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_without_room_is_left_to_the_gateway() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().manners.settles_ms = None;
        for _ in 0..60 {
            terminal.pay().await;
        }
        terminal.run(&Orders::default()).await;
        for sequence in 1..=60 {
            terminal.gateway.borrow_mut().settle(sequence);
        }
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!(outcome.end, End::Left);
        assert!(outcome.full, "{outcome:?}");
        let stored = terminal.store.lock().await.levels().to_print;
        let gateway = terminal.gateway.borrow();
        assert_eq!(gateway.acknowledged.len(), stored as usize);
        assert_eq!(gateway.outbox.len(), 60 - stored as usize);
        assert_eq!(u32::from(outcome.receipts), stored);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_puback_that_refuses_keeps_the_record_and_ends_the_errand() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        let sequence = terminal.pay().await;
        terminal.gateway.borrow_mut().manners.puback = ReasonCode::QuotaExceeded;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(
            (outcome.end, outcome.refused),
            (End::Left, Some(Reason(0x97)))
        );
        assert_eq!(terminal.store.lock().await.levels().unsent, 1);
        terminal.gateway.borrow_mut().manners.puback = ReasonCode::Success;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!((outcome.acknowledged, outcome.receipts), (1, 1));
        // That PUBLISH was over: the second is no repetition of it.
        let gateway = terminal.gateway.borrow();
        assert!(gateway.arrived.iter().all(|one| !one.dup));
        assert_eq!(gateway.journal[&u64::from(sequence)], 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_record_without_receipt_goes_out_again_with_the_resend_mark() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().manners.settles_ms = None;
        for _ in 0..3 {
            terminal.pay().await;
        }
        terminal.run(&Orders::default()).await;
        terminal.gateway.borrow_mut().arrived.clear();
        terminal.gateway.borrow_mut().manners.settles_ms = Some(100);
        let orders = Orders {
            expects: true,
            resend_after: 1,
            resend_up_to: 2,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!(
            (outcome.resent, outcome.resent_through, outcome.receipts),
            (1, 2, 1)
        );
        let again = Arrived {
            sequence: 2,
            packet_id: packet_id(2),
            dup: false,
            resend_mark: true,
        };
        assert_eq!(terminal.gateway.borrow().arrived, [again]);
        assert_eq!(terminal.store.lock().await.levels().waiting, 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_will_stands_until_the_next_report() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        let orders = Orders {
            report: true,
            ..Orders::default()
        };
        terminal.modem.cut_down = Some(10);
        terminal.run(&orders).await;
        assert!(terminal.gateway.borrow().is_lost());
        // Not ordered, but what stands there is not true any more.
        terminal.modem.cut_down = None;
        terminal.run(&Orders::default()).await;
        assert!(terminal.gateway.borrow().birth().is_some());
        let births = terminal.gateway.borrow().births;
        terminal.run(&Orders::default()).await;
        assert_eq!(terminal.gateway.borrow().births, births);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_key_that_asks_with_nothing_waiting_is_answered_soon() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!(outcome.end, End::Left);
        let took_ms = terminal.clock.now_ms() - terminal.modem.open_at_ms;
        assert_eq!(took_ms, 2 * terminal.modem.round_trip_ms + ASKS_MS_MAX);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_mute_gateway_is_given_up() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.pay().await;
        terminal.gateway.borrow_mut().manners.mute = true;
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(outcome.end, End::Timeout);
        let took_ms = terminal.clock.now_ms() - terminal.modem.open_at_ms;
        assert_eq!(took_ms, terminal.modem.round_trip_ms + ANSWER_MS);
        assert_eq!(terminal.modem.closes, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_breaks_the_standard_is_told_and_left() {
    as_task(async {
        let accepted = b"\x20\x03\x01\0\0";
        let cases: [(&[u8], Fault); 6] = [
            (b"\x20\x03\x01\0\0\x20\x03\x01\0\0", Fault::Protocol),
            (b"\xd0\0", Fault::Protocol),
            (b"\x00\0", Fault::Malformed),
            (b"\x30\xff\xff\xff\x7f", Fault::TooLarge),
            (
                b"\x20\x03\x01\0\0\x32\x0a\0\0\0\x01\x03\x23\0\x02xy",
                Fault::Alias,
            ),
            (
                b"\x20\x03\x01\0\0\x32\x0a\0\0\0\x01\x03\x23\0\x01xy",
                Fault::Alias,
            ),
        ];
        for (says, fault) in cases {
            let mut terminal = Terminal::known().await;
            terminal.gateway.borrow_mut().manners.says = Some(says.to_vec());
            let orders = Orders {
                expects: true,
                ..Orders::default()
            };
            let outcome = terminal.run(&orders).await;
            assert_eq!(outcome.end, End::Fault(fault), "{says:02x?}");
            let last = terminal.modem.sent.last().unwrap();
            assert_eq!(last.bytes, [0xe0, 1, fault.reason().0]);
        }
        let mut terminal = Terminal::known().await;
        let says = [&accepted[..], b"\xe0\x01\x8b"].concat();
        terminal.gateway.borrow_mut().manners.says = Some(says);
        let outcome = terminal.run(&Orders::default()).await;
        // There was nothing to wait for.
        assert!(matches!(outcome.end, End::Left | End::Closed(Reason(0x8b))));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_leaves_only_when_the_gateway_wants_signs_of_life() {
    as_task(async {
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        for (keep_alive_s, pings) in [(None, 0), (Some(8), 3)] {
            let mut terminal = Terminal::known().await;
            terminal.settings.patience_ms = 20_000;
            terminal.gateway.borrow_mut().manners.keep_alive_s = keep_alive_s;
            terminal.gateway.borrow_mut().manners.settles_ms = None;
            terminal.pay().await;
            let outcome = terminal.run(&orders).await;
            assert_eq!(outcome.end, End::Left);
            let sent = terminal.sent_types();
            let sent = sent.iter().filter(|one| **one == PINGREQ).count();
            assert_eq!(sent, pings);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_ends_is_left() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().manners.settles_ms = None;
        terminal.pay().await;
        let began_ms = terminal.clock.now_ms();
        // Something to acknowledge every four seconds, for an hour.
        let stranger = |n: u64| (began_ms + 4_000 * n, 99_999);
        terminal.modem.settling = (1..900).map(stranger).collect();
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!(outcome.end, End::Left);
        assert!(outcome.strangers > 70);
        let took_ms = terminal.clock.now_ms() - began_ms;
        assert!(took_ms > ERRAND_MS_MAX, "{took_ms}");
        assert!(took_ms < ERRAND_MS_MAX + 2_000, "{took_ms}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_the_flash_refuses_gets_no_puback() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().manners.settles_ms = None;
        terminal.pay().await;
        terminal.run(&Orders::default()).await;
        terminal.gateway.borrow_mut().settle(1);
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        terminal.flash.fail_once();
        let outcome = terminal.run(&orders).await;
        assert_eq!((outcome.end, outcome.receipts), (End::Store, 0));
        assert!(terminal.gateway.borrow().acknowledged.is_empty());
        let outcome = terminal.run(&orders).await;
        assert_eq!((outcome.end, outcome.receipts), (End::Left, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_modem_says_is_how_it_ended() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.modem.powers = Some(ModemError::Unregistered);
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(outcome.end, End::Modem(ModemError::Unregistered));
        terminal.modem.powers = None;
        terminal.modem.opens = Some(ModemError::Refused);
        let outcome = terminal.run(&Orders::default()).await;
        assert_eq!(outcome.end, End::Modem(ModemError::Refused));
        assert_eq!(terminal.gateway.borrow().connects, 0);
    })
    .await;
}

/// G2, G3, G4 and G7 from the terminal's side: whatever byte the link dies at,
/// either way, with the power or without.
#[tokio::test(start_paused = true)]
async fn a_cut_at_any_byte_loses_nothing_and_doubles_nothing() {
    as_task(async {
        let whole = {
            let mut terminal = Terminal::known().await;
            three_payments(&mut terminal).await;
            terminal.run(&Orders::default()).await;
            (terminal.modem.up_bytes(), terminal.modem.down_bytes())
        };
        let mut cuts = 0;
        for up in [true, false] {
            let bytes = if up { whole.0 } else { whole.1 };
            for at in 0..=bytes {
                for restarts in [false, true] {
                    let mut terminal = Terminal::known().await;
                    three_payments(&mut terminal).await;
                    let modem = &mut terminal.modem;
                    let cut = if up {
                        &mut modem.cut_up
                    } else {
                        &mut modem.cut_down
                    };
                    *cut = Some(at);
                    terminal.run(&Orders::default()).await;
                    (terminal.modem.cut_up, terminal.modem.cut_down) = (None, None);
                    if restarts {
                        terminal.restart().await;
                    }
                    let orders = Orders {
                        expects: true,
                        ..Orders::default()
                    };
                    let outcome = terminal.run(&orders).await;
                    let context = format!("cut {at} up {up} restart {restarts}: {outcome:?}");
                    assert_eq!(outcome.end, End::Left, "{context}");
                    assert_all_settled(&terminal, &context).await;
                    cuts += 1;
                }
            }
        }
        assert!(cuts > 600, "{cuts}");
    })
    .await;
}

fn limits(terminal: &Terminal) -> RefMut<'_, ConnectionLimits> {
    RefMut::map(terminal.gateway.borrow_mut(), |gateway| {
        &mut gateway.manners.limits
    })
}

async fn three_payments(terminal: &mut Terminal) {
    for _ in 0..3 {
        terminal.pay().await;
    }
}

async fn assert_all_settled(terminal: &Terminal, context: &str) {
    let levels = terminal.store.lock().await.levels();
    assert_eq!((levels.waiting, levels.to_print), (0, 3), "{context}");
    let gateway = terminal.gateway.borrow();
    let journal: Vec<_> = gateway.journal.iter().map(|(s, n)| (*s, *n)).collect();
    assert_eq!(journal, [(1, 1), (2, 1), (3, 1)], "{context}");
    assert!(gateway.outbox.is_empty(), "{context}");
    let faults = |end: &&CloseCause| matches!(end, CloseCause::Peer { .. });
    assert_eq!(gateway.ends.iter().find(faults), None, "{context}");
    let mut firsts: Vec<u64> = Vec::new();
    for one in &gateway.arrived {
        if !firsts.contains(&one.sequence) {
            firsts.push(one.sequence);
        }
    }
    assert_eq!(firsts, [1, 2, 3], "{context}");
}

/// G4 and G6: whatever step of a flash write the power goes at while connected.
#[tokio::test(start_paused = true)]
async fn a_receipt_that_got_its_puback_is_in_flash_whenever_the_power_goes() {
    as_task(async {
        let steps = {
            let mut terminal = Terminal::known().await;
            three_payments(&mut terminal).await;
            let before = terminal.flash.steps();
            terminal.run(&Orders::default()).await;
            terminal.flash.steps() - before
        };
        assert!(steps > 100, "{steps}");
        for step in 0..steps {
            let mut terminal = Terminal::known().await;
            three_payments(&mut terminal).await;
            terminal.flash.cut_after(step, Tear::Ragged, step);
            let outcome = terminal.run(&Orders::default()).await;
            assert_eq!(outcome.end, End::Store, "step {step}");
            terminal.flash.power_up();
            terminal.restart().await;
            let acknowledged = terminal.gateway.borrow().acknowledged.len();
            let levels = terminal.store.lock().await.levels();
            assert!(levels.to_print as usize >= acknowledged, "step {step}");
            let orders = Orders {
                expects: true,
                ..Orders::default()
            };
            let outcome = terminal.run(&orders).await;
            let context = format!("step {step}: {outcome:?}");
            assert_eq!(outcome.end, End::Left, "{context}");
            assert_all_settled(&terminal, &context).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pubacks_of_receipts_wait_for_company_and_no_longer_than_a_second() {
    as_task(async {
        let mut terminal = Terminal::known().await;
        terminal.gateway.borrow_mut().manners.settles_ms = None;
        for _ in 0..4 {
            terminal.pay().await;
        }
        terminal.run(&Orders::default()).await;
        for sequence in 1..=3 {
            terminal.gateway.borrow_mut().settle(sequence);
        }
        terminal.modem.sent.clear();
        // The fourth does not come, so that patience lasts.
        let orders = Orders {
            expects: true,
            ..Orders::default()
        };
        let outcome = terminal.run(&orders).await;
        assert_eq!(outcome.receipts, 3);
        let sent = &terminal.modem.sent;
        let lengths: Vec<usize> = sent.iter().map(|segment| segment.bytes.len()).collect();
        assert_eq!(lengths[1..], [3 * 4, 2], "PUBACKs, then the leave");
        assert_eq!(sent[1].at_ms - sent[0].at_ms, 700 + HELD_MS_MAX);
    })
    .await;
}

#[test]
fn an_errands_buffers_are_well_below_two_kilobytes() {
    assert!(size_of::<Scratch>() <= 1_360);
    assert!(size_of::<Link>() <= 16);
}
