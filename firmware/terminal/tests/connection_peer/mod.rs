//! A gateway in memory behind a modem without radio, in virtual time.
//!
//! Promises: the protocol is the gateway's own core, so that what breaks the
//! standard ends the connection as it would there; the link can be cut at any byte,
//! either way; what is not sealed by its terminal, or not as it was before, ends the
//! test. Never: a socket, or a decision by chance.
#![allow(dead_code)] // each test uses its part of it

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::BytesMut;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use embassy_sync::signal::Signal;
use risiti_mqtt::{
    Accept, CloseCause, Connection, ConnectionLimits, Delivery, Event, Message, Qos, ReasonCode,
};
use risiti_sim::nor::Nor;
use risiti_terminal::connection::{Errand, Link, Orders, Outcome, Scratch};
use risiti_terminal::energy::Radio;
use risiti_terminal::hardware::Clock;
use risiti_terminal::limits::RECEIVE_BYTES_MAX;
use risiti_terminal::modem::{Modem, ModemError, Network};
use risiti_terminal::settings::{SealKeys, Settings};
use risiti_terminal::store::Store;
use risiti_wire::limits::{RECEIPT_BYTES_MAX, RECORD_BYTES_MAX, SEALED_RECEIPT_BYTES_MAX};
use risiti_wire::seal::{self, Direction, Root};
use risiti_wire::{
    Account, Birth, Currency, Header, LOST, Lines, Payment, Receipt, Record, RecordBody, Standing,
    Status, peek,
};
use tokio::time::{Duration, Instant, sleep_until};

pub const ID: &str = "t-000017";

pub fn settings() -> Settings<'static> {
    Settings {
        id: ID,
        host: "gw.example",
        apn: "internet",
        currency: 404,
        seal: Some(seal_keys(1)),
        ..Settings::default()
    }
}

pub fn root() -> Root {
    Root::new([0x71; 32])
}

/// The terminal's keys of this generation.
pub fn seal_keys(generation: u8) -> SealKeys<'static> {
    let key = |direction| {
        let key = root().key(ID, generation, direction).unwrap();
        &*Box::leak(Box::new(*key.expose()))
    };
    SealKeys {
        generation,
        record: key(Direction::Up),
        receipt: key(Direction::Down),
    }
}

/// Tokio's time.
#[derive(Clone)]
pub struct TestClock(Instant);

impl TestClock {
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap()
    }

    async fn sleep_until(&self, at_ms: u64) {
        sleep_until(self.0 + Duration::from_millis(at_ms)).await;
    }
}

/// A PUBLISH of a record, as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    pub sequence: u64,
    pub packet_id: u16,
    pub dup: bool,
    pub resend_mark: bool,
}

/// How a gateway behaves.
pub struct Manners {
    /// CONNACK says this.
    pub refuses: Option<ReasonCode>,
    /// PUBACKs of records say this.
    pub puback: ReasonCode,
    /// SUBACK says this.
    pub suback: ReasonCode,
    /// Receipts are issued so long after their record; none: never.
    pub settles_ms: Option<u64>,
    /// It says nothing at all.
    pub mute: bool,
    /// It answers the first bytes with these, and then nothing.
    pub says: Option<Vec<u8>>,
    /// A keep alive instead of the terminal's.
    pub keep_alive_s: Option<u16>,
    pub limits: ConnectionLimits,
    /// Its CONNACKs and other answers take so long.
    pub answers_ms: u64,
    /// The generation with which settlement seals; none: nothing is sealed.
    pub seals: Option<u8>,
}

/// A gateway, settlement included. It survives connections.
pub struct Gateway {
    pub manners: Manners,
    /// A session exists; whether it has the subscription.
    pub session: Option<bool>,
    /// Every PUBLISH of a record.
    pub arrived: Vec<Arrived>,
    /// The bytes of each record when it came first, by generation and number.
    pub first: BTreeMap<(u8, u64), Vec<u8>>,
    /// The journal: a record's number and how often it was taken in.
    pub journal: BTreeMap<u64, u32>,
    /// Receipts that wait for their PUBACK, by their number.
    pub outbox: BTreeMap<u16, Vec<u8>>,
    /// Numbers of receipts that got their PUBACK; with an error.
    pub acknowledged: Vec<u16>,
    pub refused: Vec<u16>,
    pub subscribes: u32,
    pub connects: u32,
    pub pings: u32,
    /// What stands on the status topic.
    pub status: Option<Vec<u8>>,
    pub births: u32,
    /// How connections ended.
    pub ends: Vec<CloseCause>,
    next_receipt: u16,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            manners: Manners {
                refuses: None,
                puback: ReasonCode::Success,
                suback: ReasonCode::GrantedQos1,
                settles_ms: Some(300),
                mute: false,
                says: None,
                keep_alive_s: None,
                limits: ConnectionLimits::default(),
                answers_ms: 0,
                seals: Some(1),
            },
            session: None,
            arrived: Vec::new(),
            first: BTreeMap::new(),
            journal: BTreeMap::new(),
            outbox: BTreeMap::new(),
            acknowledged: Vec::new(),
            refused: Vec::new(),
            subscribes: 0,
            connects: 0,
            pings: 0,
            status: None,
            births: 0,
            ends: Vec::new(),
            next_receipt: 1,
        }
    }
}

impl Gateway {
    pub fn birth(&self) -> Option<Birth> {
        match Standing::decode(self.status.as_deref()?).unwrap() {
            Standing::Reported(birth) => Some(birth),
            Standing::Lost => None,
        }
    }

    pub fn is_lost(&self) -> bool {
        self.status.as_deref() == Some(&LOST)
    }

    /// Issues the receipt of a record.
    pub fn settle(&mut self, sequence: u64) {
        let number = self.next_receipt;
        self.next_receipt += 1;
        let receipt = match self.manners.seals {
            Some(generation) => sealed(generation, &open_receipt(sequence, number.into())),
            None => open_receipt(sequence, number.into()),
        };
        self.outbox.insert(number, receipt);
    }

    /// A record came: sealed as it should be, and as it was the first time.
    fn look(&mut self, payload: &[u8]) {
        let given = seal::generation(payload).unwrap();
        let expected = self.manners.seals;
        assert_eq!(given, expected, "what left is not sealed as it should be");
        let Some(generation) = given else { return };
        let key = root().key(ID, generation, Direction::Up).unwrap();
        let mut buffer = [0; RECORD_BYTES_MAX];
        let opened = seal::open(&key, ID, payload, &mut buffer).unwrap();
        let record = Record::decode(opened).unwrap();
        let mut bytes = payload.to_vec();
        bytes[2] &= !1; // the resend mark
        let place = (generation, record.sequence);
        let first = self.first.entry(place).or_insert_with(|| bytes.clone());
        assert_eq!(*first, bytes, "{place:?} was sealed twice");
    }
}

/// As settlement seals it for this terminal.
pub fn sealed(generation: u8, receipt: &[u8]) -> Vec<u8> {
    let key = root().key(ID, generation, Direction::Down).unwrap();
    let mut buffer = [0; SEALED_RECEIPT_BYTES_MAX];
    seal::seal(&key, ID, receipt, &mut buffer).unwrap().to_vec()
}

/// A receipt, sealed with the first keys.
pub fn receipt(sequence: u64, number: u64) -> Vec<u8> {
    sealed(1, &open_receipt(sequence, number))
}

pub fn open_receipt(sequence: u64, number: u64) -> Vec<u8> {
    let receipt = Receipt {
        sequence,
        number,
        status: Status::Accepted,
        time_s: 1_700_000_000,
        amount_minor: 12_500,
        currency: Currency::new(404).unwrap(),
        bank_reference: Some("FT2332"),
        lines: Lines::default(),
    };
    let mut buffer = [0; RECEIPT_BYTES_MAX];
    receipt.encode(&mut buffer).unwrap().to_vec()
}

/// One connection at the gateway's side.
struct Peer {
    connection: Connection,
    input: BytesMut,
    will: Option<Vec<u8>>,
    said: bool,
    in_flight: Vec<u16>,
    closed: bool,
}

impl Peer {
    fn new(limits: &ConnectionLimits, now_ms: u64) -> Self {
        Self {
            connection: Connection::new(limits, now_ms),
            input: BytesMut::new(),
            will: None,
            said: false,
            in_flight: Vec::new(),
            closed: false,
        }
    }

    /// Bytes came. Returns records that were taken in.
    fn input(&mut self, gateway: &mut Gateway, now_ms: u64, bytes: &[u8]) -> Vec<u64> {
        self.input.extend_from_slice(bytes);
        if gateway.manners.mute || gateway.manners.says.is_some() {
            return Vec::new();
        }
        gateway.pings += bytes.windows(2).filter(|two| *two == [0xc0, 0]).count() as u32;
        let mut taken = Vec::new();
        loop {
            self.connection.handle_input(now_ms, &mut self.input);
            let mut any = false;
            while let Some(event) = self.connection.poll_event() {
                any = true;
                self.event(gateway, now_ms, event, &mut taken);
            }
            if !any {
                return taken;
            }
        }
    }

    fn event(&mut self, gateway: &mut Gateway, now_ms: u64, event: Event, taken: &mut Vec<u64>) {
        let connection = &mut self.connection;
        match event {
            Event::Connect(request) => {
                assert_eq!(&*request.client_id, ID);
                assert!(!request.clean_start);
                gateway.connects += 1;
                if let Some(reason) = gateway.manners.refuses {
                    return connection.refuse(reason, "");
                }
                self.will = request.will.map(|will| will.message.payload.to_vec());
                let present = gateway.session.is_some();
                gateway.session.get_or_insert(false);
                let accept = Accept {
                    session_present: present,
                    server_keep_alive_s: gateway.manners.keep_alive_s,
                    ..Accept::default()
                };
                connection.accept(now_ms, &accept);
            }
            Event::Publish {
                token,
                message,
                packet_id,
                dup,
            } => {
                let mut reason = ReasonCode::Success;
                if message.topic == format!("t/{ID}/records") {
                    reason = gateway.manners.puback;
                    let Header {
                        sequence, resend, ..
                    } = peek(&message.payload).unwrap();
                    gateway.look(&message.payload);
                    gateway.arrived.push(Arrived {
                        sequence,
                        packet_id,
                        dup,
                        resend_mark: resend,
                    });
                    if !reason.is_error() {
                        let times = gateway.journal.entry(sequence).or_default();
                        // As the store does: only a resend goes on to settlement again.
                        if *times == 0 || resend {
                            *times += 1;
                            taken.push(sequence);
                        }
                    }
                } else {
                    assert_eq!(message.topic, format!("t/{ID}/status"));
                    assert!(message.retain);
                    gateway.births += 1;
                    gateway.status = Some(message.payload.to_vec());
                }
                connection.publish_settled(token, reason, None);
            }
            Event::Subscribe { packet_id, filters } => {
                assert_eq!(filters.len(), 1);
                assert_eq!(filters[0].filter.filter, format!("t/{ID}/receipts"));
                gateway.subscribes += 1;
                gateway.session = Some(!gateway.manners.suback.is_error());
                connection.subscribed(packet_id, &[gateway.manners.suback], None);
            }
            Event::Acked { packet_id, reason } => {
                self.in_flight.retain(|one| *one != packet_id);
                if reason.is_error() {
                    gateway.refused.push(packet_id);
                } else {
                    assert!(gateway.outbox.remove(&packet_id).is_some());
                    gateway.acknowledged.push(packet_id);
                }
            }
            Event::Closed(closed) => {
                if closed.publish_will
                    && let Some(will) = self.will.take()
                {
                    gateway.status = Some(will);
                }
                gateway.ends.push(closed.cause);
                self.closed = true;
            }
            other => panic!("{other:?}"),
        }
    }

    /// The link is gone.
    fn lost(&mut self, gateway: &mut Gateway, now_ms: u64) {
        if !self.closed {
            self.connection.handle_transport_lost();
            while let Some(event) = self.connection.poll_event() {
                self.event(gateway, now_ms, event, &mut Vec::new());
            }
        }
    }

    fn deliver(&mut self, gateway: &Gateway) {
        if gateway.session != Some(true) || !self.connection.is_open() {
            return;
        }
        for (number, payload) in &gateway.outbox {
            let known = self.in_flight.contains(number) || gateway.refused.contains(number);
            if known || self.connection.send_window() == 0 {
                continue;
            }
            let message = Message::new(format!("t/{ID}/receipts"), payload.clone());
            self.connection.deliver(&Delivery {
                packet_id: *number,
                message: &message,
                qos: Qos::AtLeastOnce,
                retain: false,
                dup: false,
                subscription_ids: &[],
                expiry_s: None,
            });
            self.in_flight.push(*number);
        }
    }

    fn output(&mut self, gateway: &mut Gateway) -> Vec<u8> {
        if let Some(bytes) = &gateway.manners.says {
            let first = !std::mem::replace(&mut self.said, true);
            return if first { bytes.clone() } else { Vec::new() };
        }
        self.connection.transmit().split().to_vec()
    }
}

/// A segment, as it left the terminal or reached it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub at_ms: u64,
    pub bytes: Vec<u8>,
}

/// A modem without radio. Its time is the clock's, half a round trip each way.
pub struct FakeModem {
    pub clock: TestClock,
    pub gateway: Rc<RefCell<Gateway>>,
    peer: Option<Peer>,
    pub round_trip_ms: u64,
    /// On their way to the terminal, by arrival.
    coming: VecDeque<Segment>,
    /// Settlement speaks then about that record.
    pub settling: Vec<(u64, u64)>,
    /// The link dies once so many bytes have left, or arrived.
    pub cut_up: Option<usize>,
    pub cut_down: Option<usize>,
    cut: bool,
    pub powers: Option<ModemError>,
    pub opens: Option<ModemError>,
    /// What left and what arrived.
    pub sent: Vec<Segment>,
    pub received: Vec<Segment>,
    pub open_at_ms: u64,
    pub closes: u32,
}

impl FakeModem {
    pub fn new(clock: &TestClock, gateway: &Rc<RefCell<Gateway>>) -> Self {
        Self {
            clock: clock.clone(),
            gateway: gateway.clone(),
            peer: None,
            round_trip_ms: 700,
            coming: VecDeque::new(),
            settling: Vec::new(),
            cut_up: None,
            cut_down: None,
            cut: false,
            powers: None,
            opens: None,
            sent: Vec::new(),
            received: Vec::new(),
            open_at_ms: 0,
            closes: 0,
        }
    }

    pub fn up_bytes(&self) -> usize {
        self.sent.iter().map(|segment| segment.bytes.len()).sum()
    }

    pub fn down_bytes(&self) -> usize {
        self.received
            .iter()
            .map(|segment| segment.bytes.len())
            .sum()
    }

    /// What the peer wants to say at that time of its own goes out.
    fn emit(&mut self, at_ms: u64) {
        let mut gateway = self.gateway.borrow_mut();
        let Some(peer) = &mut self.peer else { return };
        peer.deliver(&gateway);
        let bytes = peer.output(&mut gateway);
        let at_ms = at_ms + self.round_trip_ms / 2 + gateway.manners.answers_ms;
        let mut bytes = bytes;
        if let Some(left) = &mut self.cut_down {
            if bytes.len() >= *left {
                bytes.truncate(*left);
                self.cut = true;
                let now_ms = at_ms;
                peer.lost(&mut gateway, now_ms);
            }
            *left -= bytes.len();
        }
        if !bytes.is_empty() {
            self.coming.push_back(Segment { at_ms, bytes });
        }
    }

    /// Settlement speaks about what is due, in the order of time.
    fn settle(&mut self, until_ms: u64) {
        self.settling.sort_unstable();
        while self
            .settling
            .first()
            .is_some_and(|(at_ms, _)| *at_ms <= until_ms)
        {
            let (at_ms, sequence) = self.settling.remove(0);
            self.gateway.borrow_mut().settle(sequence);
            self.emit(at_ms);
        }
    }

    fn is_over(&self) -> bool {
        self.cut || self.peer.as_ref().is_none_or(|peer| peer.closed)
    }
}

impl Modem for FakeModem {
    async fn power_on(&mut self, _: &Network<'_>) -> Result<(), ModemError> {
        self.powers.map_or(Ok(()), Err)
    }

    async fn open(&mut self, _: &str, _: u16) -> Result<(), ModemError> {
        self.close().await;
        self.open_at_ms = self.clock.now_ms();
        self.clock.sleep(self.round_trip_ms).await;
        if let Some(error) = self.opens {
            return Err(error);
        }
        let now_ms = self.clock.now_ms();
        let limits = self.gateway.borrow().manners.limits;
        self.peer = Some(Peer::new(&limits, now_ms));
        self.coming.clear();
        self.cut = false;
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ModemError> {
        assert!(!bytes.is_empty());
        let at_ms = self.clock.now_ms();
        if self.is_over() {
            return Err(ModemError::Closed);
        }
        self.sent.push(Segment {
            at_ms,
            bytes: bytes.to_vec(),
        });
        let mut arrives = bytes;
        if let Some(left) = &mut self.cut_up {
            if bytes.len() >= *left {
                arrives = &bytes[..*left];
                self.cut = true;
            }
            *left -= arrives.len();
        }
        let there_ms = at_ms + self.round_trip_ms / 2;
        self.settle(there_ms);
        let gateway = self.gateway.clone();
        let mut gateway = gateway.borrow_mut();
        let Some(peer) = &mut self.peer else {
            return Err(ModemError::Closed);
        };
        let taken = peer.input(&mut gateway, there_ms, arrives);
        if self.cut {
            peer.lost(&mut gateway, there_ms);
        }
        if let Some(settles_ms) = gateway.manners.settles_ms {
            let due = taken.iter().map(|one| (there_ms + settles_ms, *one));
            self.settling.extend(due);
        }
        drop(gateway);
        self.emit(there_ms);
        Ok(())
    }

    async fn receive(&mut self, into: &mut [u8]) -> Result<usize, ModemError> {
        assert!(!into.is_empty(), "the receive buffer is full");
        loop {
            let now_ms = self.clock.now_ms();
            self.settle(now_ms.saturating_sub(self.round_trip_ms / 2));
            let settles_ms = self.settling.iter().map(|(at_ms, _)| *at_ms).min();
            let settles_ms = settles_ms.map(|at_ms| at_ms + self.round_trip_ms / 2);
            let is_over = self.is_over();
            match self.coming.front_mut() {
                Some(segment) if segment.at_ms <= now_ms => {
                    let count = segment.bytes.len().min(into.len());
                    into[..count].copy_from_slice(&segment.bytes[..count]);
                    self.received.push(Segment {
                        at_ms: now_ms,
                        bytes: segment.bytes[..count].to_vec(),
                    });
                    segment.bytes.drain(..count);
                    if segment.bytes.is_empty() {
                        self.coming.pop_front();
                    }
                    return Ok(count);
                }
                Some(segment) => {
                    let at_ms = segment.at_ms.min(settles_ms.unwrap_or(u64::MAX));
                    self.clock.sleep_until(at_ms).await;
                }
                None if is_over => return Err(ModemError::Closed),
                None => match settles_ms {
                    Some(at_ms) => self.clock.sleep_until(at_ms).await,
                    None => std::future::pending().await,
                },
            }
        }
    }

    async fn close(&mut self) {
        let Some(mut peer) = self.peer.take() else {
            return;
        };
        let now_ms = self.clock.now_ms();
        peer.lost(&mut self.gateway.borrow_mut(), now_ms);
        self.closes += 1;
        // Settlement goes on without us.
        for (_, sequence) in std::mem::take(&mut self.settling) {
            self.gateway.borrow_mut().settle(sequence);
        }
    }

    async fn power_off(&mut self) {
        self.close().await;
    }

    fn network_time_s(&self) -> Option<u32> {
        Some(1_700_000_000)
    }

    fn signal(&self) -> Option<u8> {
        Some(17)
    }

    fn radio(&self) -> Radio {
        Radio::default()
    }
}

/// A terminal: what an errand needs, and what survives a power cut.
pub struct Terminal {
    pub clock: TestClock,
    pub gateway: Rc<RefCell<Gateway>>,
    pub modem: FakeModem,
    pub flash: Nor,
    pub store: Mutex<NoopRawMutex, Store<Nor>>,
    pub settings: Settings<'static>,
    pub scratch: Box<Scratch>,
    pub link: Link,
    pub saved: Signal<NoopRawMutex, ()>,
}

impl Terminal {
    pub async fn new() -> Self {
        let clock = TestClock::start();
        let gateway = Rc::new(RefCell::new(Gateway::default()));
        let flash = Nor::new(64 * 1024);
        let (store, _) = Store::open(flash.handle()).await.unwrap();
        Self {
            modem: FakeModem::new(&clock, &gateway),
            clock,
            gateway,
            flash,
            store: Mutex::new(store),
            settings: settings(),
            scratch: Box::default(),
            link: Link::new(),
            saved: Signal::new(),
        }
    }

    /// A terminal that has been at the gateway before, and the counts begin anew.
    pub async fn known() -> Self {
        let mut terminal = Self::new().await;
        let outcome = terminal.run(&Orders::default()).await;
        assert!(outcome.accepted, "{outcome:?}");
        let mut gateway = terminal.gateway.borrow_mut();
        (gateway.connects, gateway.subscribes, gateway.births) = (0, 0, 0);
        gateway.ends.clear();
        drop(gateway);
        terminal.modem.sent.clear();
        terminal.modem.received.clear();
        terminal.modem.closes = 0;
        terminal
    }

    pub async fn pay(&self) -> u32 {
        pay(&mut *self.store.lock().await).await
    }

    pub async fn run(&mut self, orders: &Orders) -> Outcome {
        Errand {
            modem: &mut self.modem,
            store: &self.store,
            clock: &self.clock,
            settings: &self.settings,
            scratch: &mut self.scratch,
            link: &mut self.link,
            saved: &self.saved,
        }
        .run(orders)
        .await
    }

    /// The power goes, and comes again.
    pub async fn restart(&mut self) {
        self.modem.close().await;
        let (store, _) = Store::open(self.flash.handle()).await.unwrap();
        self.store = Mutex::new(store);
        self.link = Link::new();
    }

    /// All packets that left, by their type.
    pub fn sent_types(&self) -> Vec<u8> {
        let bytes: Vec<u8> = self
            .modem
            .sent
            .iter()
            .flat_map(|segment| segment.bytes.iter().copied())
            .collect();
        packets(&bytes)
            .iter()
            .map(|packet| packet[0] >> 4)
            .collect()
    }
}

/// Runs a test as a task of tokio. The future that a runtime blocks on gets another
/// waker with every poll, and what remembers wakers (embassy's signals) would wake
/// it for ever.
pub async fn as_task(test: impl Future<Output = ()> + 'static) {
    let local = tokio::task::LocalSet::new();
    let task = local.spawn_local(test);
    local.await;
    task.await.unwrap();
}

/// Cuts a stream into packets.
pub fn packets(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while let Ok(Some(length)) =
        risiti_terminal::mqtt::incoming::packet_len(bytes, RECEIVE_BYTES_MAX)
        && length <= bytes.len()
    {
        let (packet, rest) = bytes.split_at(length);
        packets.push(packet);
        bytes = rest;
    }
    packets
}

pub async fn pay(store: &mut Store<Nor>) -> u32 {
    let build = |sequence: u32, buffer: &mut [u8; RECORD_BYTES_MAX]| {
        let record = Record {
            sequence: sequence.into(),
            resend: false,
            body: RecordBody::Payment(Payment {
                time_s: 1_700_000_000,
                account: Account::new("011200345678").unwrap(),
                amount_minor: 12_500,
                currency: Currency::new(404).unwrap(),
                reference: None,
            }),
        };
        record.encode(buffer).map(<[u8]>::len)
    };
    store.save(build).await.unwrap()
}
