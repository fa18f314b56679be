//! Terminals before a gateway that does the least a gateway must: whatever is
//! cut, each receipt is printed once; and what a negative control breaks is seen.

#![allow(clippy::unwrap_used)] // a test that can't go on has failed

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use risiti_sim::ledger::{Accounts, Found, ReceiptsLog, ReceiptsVerdict, receipts_verdict};
use risiti_sim::link::{Link, LinkProfile};
use risiti_sim::mqtt::MqttVersion;
use risiti_sim::terminal::{Away, PowerProfile, Resend, TerminalSpec, Terminals};
use risiti_wire::{Currency, Lines, Receipt, Record, RecordBody, Status};
use rumqttc::mqttbytes::v4::{
    ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(60);

/// What the gateway keeps of a terminal.
#[derive(Default)]
struct Session {
    present: bool,
    subscribed: bool,
    settled: BTreeSet<u64>,
    /// Receipts by packet identifier, until their PUBACK.
    receipts: BTreeMap<u16, Vec<u8>>,
}

/// A gateway, Kafka and settlement in one.
struct Fake {
    addr: SocketAddr,
    sessions: Arc<Mutex<BTreeMap<String, Session>>>,
}

impl Fake {
    /// `answers`: which sending of a record it answers with a receipt, from 1.
    async fn start(answers: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let sessions: Arc<Mutex<BTreeMap<String, Session>>> = Arc::default();
        let shared = Arc::clone(&sessions);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared), answers));
            }
        });
        Self { addr, sessions }
    }

    fn verdict(&self, accounts: &Accounts) -> ReceiptsVerdict {
        let sessions = self.sessions.lock().unwrap();
        let settled = sessions.iter().flat_map(|(client, session)| {
            session.settled.iter().map(|sequence| Found {
                client: client.clone(),
                sequence: *sequence,
                resend: false,
                partition: 0,
                offset: 0,
            })
        });
        let log = ReceiptsLog {
            settled: settled.collect(),
            ..ReceiptsLog::default()
        };
        receipts_verdict(accounts, &log)
    }
}

async fn serve(
    mut stream: TcpStream,
    sessions: Arc<Mutex<BTreeMap<String, Session>>>,
    answers: u32,
) -> io::Result<()> {
    let mut incoming = BytesMut::new();
    let mut client = String::new();
    loop {
        let packet = match Packet::read(&mut incoming, 64 * 1024) {
            Err(Error::InsufficientBytes(_)) => match stream.read_buf(&mut incoming).await? {
                0 => return Ok(()),
                _ => continue,
            },
            packet => packet.map_err(io::Error::other)?,
        };
        let mut out = BytesMut::new();
        let mut put = |packet: Packet| {
            packet.write(&mut out, 64 * 1024).unwrap();
        };
        {
            let mut sessions = sessions.lock().unwrap();
            if let Packet::Connect(connect) = &packet {
                client = connect.client_id.clone();
            }
            let session = sessions.entry(client.clone()).or_default();
            match packet {
                Packet::Connect(_) => {
                    let code = ConnectReturnCode::Success;
                    put(Packet::ConnAck(ConnAck::new(code, session.present)));
                    session.present = true;
                    if session.subscribed {
                        for (packet_id, receipt) in &session.receipts {
                            put(delivery(&client, *packet_id, receipt));
                        }
                    }
                }
                Packet::Subscribe(subscribe) => {
                    assert_eq!(subscribe.filters[0].path, format!("t/{client}/receipts"));
                    session.subscribed = true;
                    let granted = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)];
                    put(Packet::SubAck(SubAck::new(subscribe.pkid, granted)));
                }
                Packet::Publish(publish) => {
                    put(Packet::PubAck(PubAck::new(publish.pkid)));
                    let record = Record::decode(&publish.payload).unwrap();
                    if u32::from(record.resend) + 1 >= answers {
                        let fresh = session.settled.insert(record.sequence);
                        if fresh || record.resend {
                            let packet_id = (1..).find(|n| !session.receipts.contains_key(n));
                            let packet_id = packet_id.unwrap();
                            let receipt = receipt(&record);
                            put(delivery(&client, packet_id, &receipt));
                            session.receipts.insert(packet_id, receipt);
                        }
                    }
                }
                Packet::PubAck(ack) => drop(session.receipts.remove(&ack.pkid)),
                Packet::PingReq => put(Packet::PingResp),
                _ => return Ok(()),
            }
        }
        stream.write_all(&out).await?;
    }
}

fn receipt(record: &Record<'_>) -> Vec<u8> {
    let RecordBody::Payment(payment) = &record.body else {
        panic!("no payment");
    };
    let receipt = Receipt {
        sequence: record.sequence,
        number: record.sequence,
        status: Status::Accepted,
        time_s: 0,
        amount_minor: payment.amount_minor,
        currency: Currency::NONE,
        bank_reference: None,
        lines: Lines::default(),
    };
    let mut buffer = [0; risiti_wire::limits::RECEIPT_BYTES_MAX];
    receipt.encode(&mut buffer).unwrap().to_vec()
}

fn delivery(client: &str, packet_id: u16, receipt: &[u8]) -> Packet {
    let topic = format!("t/{client}/receipts");
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, receipt);
    publish.pkid = packet_id;
    Packet::Publish(publish)
}

fn specs(count: usize, gateway: SocketAddr) -> Vec<TerminalSpec> {
    (0..count)
        .map(|n| TerminalSpec {
            id: format!("t{n}"),
            gateway,
            version: MqttVersion::V3_1_1,
            window: 1 + n % 8,
            payments: Some(50),
            per_second: 200.0,
            resend: None,
            power: Some(PowerProfile {
                cut_after_mean: Duration::from_millis(50),
                dark_longest: Duration::from_millis(5),
            }),
            away: (n % 3 == 0).then_some(Away {
                linger: Duration::from_millis(5),
                pause: Duration::from_millis(5),
            }),
            prints_before_saving: false,
        })
        .collect()
}

fn bad_link() -> LinkProfile {
    LinkProfile {
        round_trip: Duration::from_millis(2),
        cut_after_mean: Some(Duration::from_millis(100)),
        ..LinkProfile::perfect()
    }
}

/// Twenty terminals with fifty payments each.
async fn run(answers: u32, change: impl Fn(&mut TerminalSpec)) -> (ReceiptsVerdict, Terminals) {
    let fake = Fake::start(answers).await;
    let link = Link::start(fake.addr, bad_link(), 1).unwrap();
    let mut specs = specs(20, link.addr());
    specs.iter_mut().for_each(change);
    let mut terminals = Terminals::start(specs, 1);
    let all = |totals: &risiti_sim::terminal::Totals| totals.printed == 1_000;
    terminals.wait("all printed", LONG, all).await.unwrap();
    terminals.vanish().await;
    (fake.verdict(&terminals.accounts()), terminals)
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_each_receipt_is_printed_once_whatever_is_cut() {
    let (verdict, terminals) = run(1, |_| {}).await;
    println!("{verdict}");
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.payments, verdict.printed), (1_000, 1_000));
    assert!(verdict.power_cuts > 20, "{verdict}");
    assert!(verdict.repeated > 0, "no PUBACK was ever lost: {verdict}");
    let counts = terminals.counts();
    assert_eq!(counts.sessions_lost.load(Relaxed), 0);
    assert_eq!(counts.wrong_acknowledgements.load(Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_a_terminal_that_prints_before_it_saves_prints_twice() {
    let (verdict, _) = run(1, |spec| spec.prints_before_saving = true).await;
    assert!(verdict.printed_twice > 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_record_whose_first_sending_has_no_receipt_gets_it_for_the_resend() {
    let resend = Resend {
        after: Duration::from_millis(50),
        longest: Duration::from_millis(200),
    };
    let (verdict, _) = run(2, |spec| spec.resend = Some(resend)).await;
    println!("{verdict}");
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.resent >= 1_000, "{verdict}");
}
