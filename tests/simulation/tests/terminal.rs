//! One terminal of the simulation, before the thinnest gateway that answers.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use risiti_mqtt::{
    Accept, Connection, ConnectionLimits, Deliver, Delivery, Event, Message, Qos, ReasonCode,
};
use risiti_sim::site::Site;
use risiti_simulation::Ms;
use risiti_simulation::contract::Controls;
use risiti_simulation::network::{Arrival, Network, Way};
use risiti_simulation::terminal::{Ask, Line, Meant, Place, Provision, Seen, Terminal};
use risiti_wire::{Currency, Lines, Receipt, Record, Status};

/// Keeps every record, and answers it at once.
#[derive(Default)]
struct Gateway {
    conns: BTreeMap<u64, Connection>,
    records: BTreeMap<u64, u32>,
    receipts: BTreeMap<u64, Vec<u8>>,
    waiting: BTreeMap<u64, u16>,
    session: bool,
}

impl Gateway {
    fn work(&mut self, conn: u64, now_ms: Ms) -> Option<(Vec<u8>, bool)> {
        let connection = self.conns.get_mut(&conn)?;
        let mut over = false;
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Connect(_) => {
                    let accept = Accept {
                        session_present: std::mem::replace(&mut self.session, true),
                        ..Accept::default()
                    };
                    connection.accept(now_ms, &accept);
                }
                Event::Publish { token, message, .. } => {
                    if message.topic.ends_with("/records") {
                        let opened = Site::default().opened_record("t1", &message.payload);
                        let opened = opened.unwrap();
                        let record = Record::decode(&opened).unwrap();
                        *self.records.entry(record.sequence).or_default() += 1;
                        let number = record.sequence as u16;
                        self.waiting.insert(record.sequence, number);
                        self.receipts.insert(record.sequence, receipt(&record));
                    }
                    connection.publish_settled(token, ReasonCode::Success, None);
                }
                Event::Subscribe { packet_id, filters } => {
                    let codes = vec![ReasonCode::GrantedQos1; filters.len()];
                    connection.subscribed(packet_id, &codes, None);
                }
                Event::Acked { packet_id, .. } => {
                    self.waiting.retain(|_, number| *number != packet_id);
                }
                Event::Closed(_) => over = true,
                _ => {}
            }
        }
        for (sequence, packet_id) in &self.waiting {
            let payload = Bytes::from(self.receipts[sequence].clone());
            let message = Message::new("t/t1/receipts".to_owned(), payload);
            let delivery = Delivery {
                packet_id: *packet_id,
                message: &message,
                qos: Qos::AtLeastOnce,
                retain: false,
                dup: false,
                subscription_ids: &[],
                expiry_s: None,
            };
            let _full: bool = connection.deliver(&delivery) != Deliver::Delivered;
        }
        Some((connection.transmit().split().to_vec(), over))
    }
}

fn receipt(record: &Record<'_>) -> Vec<u8> {
    let receipt = Receipt {
        sequence: record.sequence,
        number: record.sequence,
        status: Status::Accepted,
        time_s: 1_767_225_600,
        amount_minor: 1,
        currency: Currency::new(404).unwrap(),
        bank_reference: None,
        lines: Lines::default(),
    };
    let mut buffer = [0; 400];
    let open = receipt.encode(&mut buffer).unwrap();
    Site::default().sealed_receipt("t1", open).unwrap()
}

struct Run {
    terminal: Terminal,
    saved: Vec<u64>,
    printed: BTreeMap<u64, u32>,
    polls: u64,
    ended_ms: Ms,
}

/// Runs until all is home; cuts the power at these places.
fn run(seed: u64, payments: usize, mut cuts: Vec<(Ms, Place)>, controls: Controls) -> Run {
    let meant = (0..payments).map(|index| Meant {
        index,
        at_ms: 5_000 + 20_000 * index as Ms,
        account: format!("{:06}", 100_000 + index),
        amount_minor: 100 + index as u64,
    });
    let provision = Provision {
        patience_ms: 5_000,
        resend_after_s: 100,
    };
    let mut terminal = Terminal::new("t1", provision, meant.collect(), controls, seed);
    let way = Way {
        delay_ms: (20, 200),
        crumbles_of: 3,
    };
    let mut network = Network::new(vec![way], seed);
    let mut gateway = Gateway::default();
    let mut conn = 0;
    let mut dark_until_ms = 0;
    let mut run = (Vec::new(), BTreeMap::new());
    let mut now_ms = 0;
    let mut arrivals = Vec::new();
    cuts.sort_by_key(|(at_ms, _)| std::cmp::Reverse(*at_ms));
    for _ in 0..1_000_000 {
        if !terminal.is_on() && now_ms >= dark_until_ms {
            terminal.power_up(now_ms);
        }
        if cuts.last().is_some_and(|(at_ms, _)| *at_ms <= now_ms) {
            terminal.cut_at(cuts.pop().unwrap().1);
        }
        if now_ms > 240_000 {
            terminal.ask_for_receipts(now_ms);
            if terminal.awaits_cut() {
                terminal.cut_at(Place::Now);
            }
        }
        network.arrivals(now_ms, &mut arrivals);
        for arrival in arrivals.drain(..) {
            match arrival {
                Arrival::Knock { conn, .. } => {
                    let limits = ConnectionLimits::default();
                    gateway.conns.clear();
                    gateway.conns.insert(conn, Connection::new(&limits, now_ms));
                    network.accept(conn, now_ms);
                }
                Arrival::ToGateway { conn, bytes, .. } => {
                    if let Some(connection) = gateway.conns.get_mut(&conn) {
                        let mut input = BytesMut::from(&bytes[..]);
                        connection.handle_input(now_ms, &mut input);
                        let (out, over) = gateway.work(conn, now_ms).unwrap();
                        // What waited behind CONNECT.
                        let connection = gateway.conns.get_mut(&conn).unwrap();
                        connection.handle_input(now_ms, &mut input);
                        let (more, over_too) = gateway.work(conn, now_ms).unwrap();
                        for out in [out, more] {
                            if !out.is_empty() {
                                network.from_gateway(conn, out, now_ms);
                            }
                        }
                        if over || over_too {
                            gateway.conns.remove(&conn);
                            network.gateway_closes(conn, now_ms);
                        }
                    }
                }
                Arrival::GatewayClosed { conn, .. } => {
                    gateway.conns.remove(&conn);
                }
                Arrival::Accepted { conn: c, .. } if c == conn => terminal.line(Line::Open),
                Arrival::ToClient { conn: c, bytes, .. } if c == conn => terminal.received(&bytes),
                Arrival::ClientClosed { conn: c, .. } if c == conn => terminal.line(Line::Gone),
                _ => {}
            }
        }
        if terminal.due_ms() <= now_ms && !terminal.poll(now_ms).unwrap() {
            network.client_vanishes(0);
            dark_until_ms = now_ms + 3_000;
        }
        for ask in terminal.take_asks() {
            match ask {
                Ask::Open => conn = network.open(0, 0, now_ms),
                Ask::Send(bytes) => network.from_client(conn, bytes, now_ms),
                Ask::Close => network.client_closes(conn, now_ms),
            }
        }
        for seen in terminal.take_seen() {
            if let Seen::Saved(saved) = seen {
                run.0.push(saved.sequence);
            }
        }
        for paper in terminal.take_papers() {
            if let (Some(number), true, false) = (paper.payment(), paper.whole, paper.again()) {
                *run.1.entry(number).or_default() += 1;
            }
        }
        if terminal.is_content() && cuts.is_empty() && !terminal.awaits_cut() {
            break;
        }
        let mut next_ms = network.due_ms().min(terminal.due_ms());
        if !terminal.is_on() {
            next_ms = next_ms.min(dark_until_ms);
        }
        if let Some((at_ms, _)) = cuts.last() {
            next_ms = next_ms.min(*at_ms);
        }
        if now_ms < 240_000 && terminal.awaits_cut() {
            next_ms = next_ms.min(240_001);
        }
        assert!(next_ms < Ms::MAX, "seed {seed}: nothing is due any more");
        now_ms = next_ms.max(now_ms + 1);
        assert!(now_ms < 100_000_000, "seed {seed}: it does not end");
    }
    Run {
        polls: terminal.polls,
        terminal,
        saved: run.0,
        printed: run.1,
        ended_ms: now_ms,
    }
}

#[test]
fn a_terminal_pays_and_prints() {
    let run = run(1, 3, Vec::new(), Controls::default());
    assert_eq!(run.saved, [1, 2, 3]);
    assert_eq!(run.printed, BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
    assert!(run.terminal.is_content() && run.polls < 2_000);
    assert!(run.ended_ms < 120_000, "{} ms", run.ended_ms);
}

#[test]
fn one_seed_one_course() {
    let cuts = || {
        let place = Place::Flash {
            steps: 150,
            seed: 7,
        };
        vec![(12_000, Place::Polls(9)), (30_000, place)]
    };
    let (one, two) = (
        run(5, 4, cuts(), Controls::default()),
        run(5, 4, cuts(), Controls::default()),
    );
    assert_eq!((one.polls, one.ended_ms), (two.polls, two.ended_ms));
    assert_eq!((one.saved, one.printed), (two.saved, two.printed));
}

#[test]
fn whatever_is_cut_each_payment_is_saved_once_and_printed() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let cut = |rng: &mut fastrand::Rng| {
            let place = match rng.bool() {
                true => Place::Polls(rng.u32(0..60)),
                false => Place::Flash {
                    steps: rng.u64(0..500),
                    seed: rng.u64(..),
                },
            };
            (rng.u64(0..120_000), place)
        };
        let cuts = (0..rng.usize(0..4)).map(|_| cut(&mut rng)).collect();
        let run = run(seed, 4, cuts, Controls::default());
        let mut saved = run.saved.clone();
        saved.sort_unstable();
        saved.dedup();
        assert_eq!(saved.len(), 4, "seed {seed}: {:?}", run.saved);
        assert!(run.printed.values().all(|n| *n == 1), "seed {seed}");
    }
}
