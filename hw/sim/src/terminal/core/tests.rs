//! What a terminal decides, fact by fact.

use risiti_wire::{Lines, peek};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const RESEND: Resend = Resend {
    after: SECOND,
    longest: Duration::from_secs(3),
};

fn terminal() -> Core {
    Core::new("a", 2, Some(RESEND), Rng::with_seed(1))
}

fn receipt(terminal: &str, sequence: u64, packet_id: u16) -> Incoming {
    let receipt = Receipt {
        sequence,
        number: 7,
        status: Status::Accepted,
        time_s: 0,
        amount_minor: amount_minor(terminal, sequence),
        currency: Currency::NONE,
        bank_reference: None,
        lines: Lines::default(),
    };
    let mut buffer = [0; risiti_wire::limits::RECEIPT_BYTES_MAX];
    Incoming::Message(Message {
        topic: "t/a/receipts".into(),
        payload: Bytes::copy_from_slice(receipt.encode(&mut buffer).unwrap()),
        packet_id: Some(packet_id),
        dup: false,
        retain: false,
    })
}

fn puback(packet_id: u16) -> Incoming {
    Incoming::Acknowledged {
        packet_id,
        success: true,
    }
}

/// All packets that are next, PUBLISH as (identifier, number, DUP, mark).
fn published(core: &mut Core, now: Duration) -> Vec<(u16, u64, bool, bool)> {
    let mut all = Vec::new();
    while let Some(packet) = core.next(now) {
        match packet {
            Outgoing::Publish {
                packet_id,
                dup,
                payload,
                ..
            } => {
                let header = peek(&payload).unwrap();
                all.push((packet_id, header.sequence, dup, header.resend));
            }
            Outgoing::Subscribe { packet_id } => {
                let success = true;
                core.take(now, Incoming::Subscribed { packet_id, success });
            }
            Outgoing::Acknowledge { .. } => {}
        }
    }
    all
}

fn connected_with_payments(payments: u64) -> Core {
    let mut core = terminal();
    for _ in 0..payments {
        core.pay(Duration::ZERO, 0).unwrap();
    }
    core.connected(false);
    core
}

#[test]
fn records_leave_in_order_and_within_the_window() {
    let mut core = connected_with_payments(3);
    let first = published(&mut core, SECOND);
    assert_eq!(first, [(2, 1, false, false), (3, 2, false, false)]);
    assert_eq!(core.take(SECOND, puback(2)), Event::Acknowledged(1));
    assert_eq!(published(&mut core, SECOND), [(4, 3, false, false)]);
}

#[test]
fn subscribe_goes_out_only_where_the_gateway_does_not_know_it() {
    let mut core = terminal();
    core.connected(false);
    let Some(Outgoing::Subscribe { packet_id }) = core.next(SECOND) else {
        panic!("no SUBSCRIBE");
    };
    // Cut before the SUBACK: the session may be there without the subscription.
    core.cut_power();
    core.connected(true);
    assert_eq!(core.next(SECOND), Some(Outgoing::Subscribe { packet_id }));
    let success = true;
    core.take(SECOND, Incoming::Subscribed { packet_id, success });
    assert!(!core.connected(true));
    assert_eq!(core.next(SECOND), None);
    assert!(core.connected(false), "a lost session is told");
    assert!(matches!(
        core.next(SECOND),
        Some(Outgoing::Subscribe { .. })
    ));
}

#[test]
fn after_a_cut_link_the_same_identifiers_go_out_again_with_dup() {
    let mut core = connected_with_payments(2);
    published(&mut core, SECOND);
    core.connected(true);
    let again = published(&mut core, SECOND);
    assert_eq!(again, [(2, 1, true, false), (3, 2, true, false)]);
}

#[test]
fn after_a_power_cut_what_has_no_puback_goes_out_as_new() {
    let mut core = connected_with_payments(2);
    published(&mut core, SECOND);
    core.take(SECOND, puback(2));
    core.cut_power();
    core.connected(true);
    assert_eq!(published(&mut core, SECOND), [(1, 2, false, false)]);
}

#[test]
fn g7_without_a_receipt_it_goes_out_marked_and_later_each_time() {
    let mut core = connected_with_payments(1);
    published(&mut core, Duration::ZERO);
    core.take(Duration::ZERO, puback(2));
    let mut due = Vec::new();
    for packet_id in 3..7 {
        let at = core.due().unwrap();
        let before = at - Duration::from_millis(1);
        assert_eq!(published(&mut core, before), []);
        assert_eq!(published(&mut core, at), [(packet_id, 1, false, true)]);
        core.take(at, puback(packet_id));
        due.push(at);
    }
    let waits: Vec<u64> = due.windows(2).map(|w| (w[1] - w[0]).as_secs()).collect();
    assert!(waits[0] >= 2 && waits[1] >= 3 && waits[2] <= 4, "{waits:?}");
}

#[test]
fn a_receipt_ends_the_sending_and_is_printed_once() {
    let mut core = connected_with_payments(1);
    published(&mut core, Duration::ZERO);
    core.take(Duration::ZERO, puback(2));
    let event = core.take(SECOND, receipt("a", 1, 9));
    let (sequence, waited, accepted) = (1, SECOND, true);
    assert_eq!(
        event,
        Event::Receipt {
            sequence,
            waited,
            accepted
        }
    );
    assert_eq!(
        core.next(SECOND),
        Some(Outgoing::Acknowledge { packet_id: 9 })
    );
    assert_eq!(core.print().unwrap().sequence, 1);
    assert_eq!((core.print(), core.due()), (None, None));
    // Its PUBACK was lost in a power cut: it comes again.
    core.cut_power();
    core.connected(true);
    assert_eq!(core.take(SECOND, receipt("a", 1, 9)), Event::Repeated);
    assert!(matches!(
        core.next(SECOND),
        Some(Outgoing::Acknowledge { .. })
    ));
    assert_eq!(core.print(), None);
}

#[test]
fn a_receipt_in_flash_is_printed_after_a_power_cut() {
    let mut core = connected_with_payments(1);
    core.take(SECOND, receipt("a", 1, 9));
    core.cut_power();
    assert_eq!(core.print().unwrap().sequence, 1);
}

#[test]
fn a_receipt_of_another_terminal_is_a_stranger_and_keeps_the_record() {
    let mut core = connected_with_payments(1);
    let event = core.take(SECOND, receipt("b", 1, 9));
    assert!(matches!(event, Event::Stranger(_)), "{event:?}");
    let event = core.take(SECOND, receipt("a", 2, 10));
    assert!(matches!(event, Event::Stranger(_)), "never sent: {event:?}");
    assert_eq!(published(&mut core, SECOND).len(), 1);
    assert_eq!(core.print(), None);
}

#[test]
fn an_acknowledgement_out_of_order_is_wrong() {
    let mut core = connected_with_payments(2);
    published(&mut core, SECOND);
    assert_eq!(core.take(SECOND, puback(3)), Event::Wrong);
    assert_eq!(core.take(SECOND, puback(77)), Event::Wrong);
}
