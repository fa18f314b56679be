//! A gateway, Kafka and settlement in memory, for runs on a virtual clock.
//!
//! Promises: the protocol is the real gateway's own ([`risiti_mqtt::Connection`]);
//! PUBACK after the time that a disk takes; receipts are kept until their PUBACK,
//! and sent again with DUP; what it came to stands in a log that the judges of
//! [`ledger`](crate::ledger) read. Never: Kafka's transactions or the store on
//! disk, which have tests of their own; a session that expires.
//!
//! What it may be put through: its gateway goes down and comes again, forgets its
//! sessions, refuses every CONNECT, loses its disk with all that was acknowledged
//! and had not gone on to Kafka.

mod connection;
mod gateway;
mod settlement;
mod traffic;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use risiti_mqtt::connection::Closed;
use risiti_mqtt::{CloseCause, ConnectRequest, ReasonCode};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::ledger::{Found, ReceiptsLog};
use connection::Shell;
use gateway::{Gateway, Row, Taken};
use settlement::Settlement;
pub use settlement::{EPOCH_S, SettlementProfile};
pub use traffic::Traffic;

/// How the village is.
#[derive(Debug, Clone, PartialEq)]
pub struct VillageProfile {
    /// From a record to its PUBACK, the shortest and the longest, ms: one sync of
    /// a busy disk.
    pub durable_after_ms: (u64, u64),
    /// From the journal into Kafka, ms.
    pub forward_after_ms: (u64, u64),
    /// How settlement is.
    pub settlement: SettlementProfile,
}

impl Default for VillageProfile {
    fn default() -> Self {
        Self {
            durable_after_ms: (3, 40),
            forward_after_ms: (10, 100),
            settlement: SettlementProfile::default(),
        }
    }
}

/// What went on besides what stands in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VillageCounts {
    /// CONNECTs that were taken.
    pub connects: u64,
    /// Of them, those that found their session.
    pub resumed: u64,
    /// SUBSCRIBEs that were granted.
    pub subscribes: u64,
    /// Records that came again and were only acknowledged.
    pub repeated: u64,
    /// Records that came with the resend mark.
    pub resent: u64,
    /// Messages for a terminal's status.
    pub statuses: u64,
    /// Wills: connections that ended without a leave.
    pub wills: u64,
    /// What a terminal must never do: a topic of somebody else, a payload that is
    /// no record, a packet that breaks MQTT.
    pub faults: u64,
}

/// A gateway, Kafka and settlement. Clones are the same village.
#[derive(Debug, Clone)]
pub struct Village {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    state: Mutex<State>,
    /// Something became due earlier than it was.
    sooner: Notify,
    /// Counted up whenever the gateway goes down.
    down: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    profile: VillageProfile,
    chance: Rng,
    gateway: Gateway,
    settlement: Settlement,
    seats: HashMap<String, (u64, Arc<Notify>)>,
    seats_given: u64,
    /// By terminal. An auditor's, not the gateway's: it outlasts its disk.
    traffic: HashMap<String, Traffic>,
    up: bool,
    refuses: bool,
    counts: VillageCounts,
    fault: Option<String>,
}

/// A connection's place at its terminal's session.
#[derive(Debug)]
struct Seat {
    id: String,
    number: u64,
    /// There may be something to deliver, or it was taken over.
    notify: Arc<Notify>,
    /// The number of the last receipt that went out on this connection.
    sent_number: u64,
}

impl Village {
    /// Begins now. Call it in a runtime, and let [`run`](Self::run) go on.
    #[must_use]
    pub fn new(profile: VillageProfile, seed: u64) -> Self {
        let mut chance = Rng::with_seed(seed);
        let settlement = Settlement::new(profile.settlement.clone(), chance.fork());
        let state = State {
            profile,
            chance,
            gateway: Gateway::default(),
            settlement,
            seats: HashMap::new(),
            seats_given: 0,
            traffic: HashMap::new(),
            up: true,
            refuses: false,
            counts: VillageCounts::default(),
            fault: None,
        };
        Self {
            shared: Arc::new(Shared {
                began: Instant::now(),
                state: Mutex::new(state),
                sooner: Notify::new(),
                down: watch::Sender::new(0),
            }),
        }
    }

    /// Carries records to Kafka and receipts back, for ever.
    pub async fn run(&self) {
        loop {
            let due_ms = self.carry();
            let at = self.instant(due_ms.unwrap_or_default());
            tokio::select! {
                () = self.shared.sooner.notified() => {}
                () = tokio::time::sleep_until(at), if due_ms.is_some() => {}
            }
        }
    }

    /// Does what is due; tells when something will be.
    fn carry(&self) -> Option<u64> {
        let now_ms = self.now_ms();
        let mut state = self.state();
        // A gateway without power forwards nothing and takes no receipts.
        if !state.up {
            return None;
        }
        while let Some((terminal, record)) = state.gateway.forward(now_ms) {
            if let Err(error) = state.settlement.take(now_ms, &terminal, &record) {
                state.note_fault(format!("{terminal}: {error}"));
            }
        }
        let State {
            gateway,
            settlement,
            seats,
            ..
        } = &mut *state;
        while let Some(issued) = settlement.next(now_ms) {
            if let Some((_, notify)) = seats.get(&issued.terminal) {
                notify.notify_one();
            }
            gateway.receive(issued);
        }
        let due = [gateway.due_ms(), settlement.due_ms()];
        due.into_iter().flatten().min()
    }

    /// A connection to the gateway.
    ///
    /// # Errors
    /// It is down.
    pub fn dial(&self) -> io::Result<DuplexStream> {
        let (theirs, ours) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(self.accept(ours)?);
        Ok(theirs)
    }

    /// Serves a connection; the future ends with it.
    ///
    /// # Errors
    /// The gateway is down.
    pub fn accept<S>(&self, stream: S) -> io::Result<impl Future<Output = ()> + use<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if !self.state().up {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut down = self.shared.down.subscribe();
        down.mark_unchanged();
        Ok(Shell::new(self.clone(), down).run(stream))
    }

    /// The gateway goes down at once: what was not durable is lost.
    pub fn go_down(&self) {
        self.state().up = false;
        self.shared.down.send_modify(|times| *times += 1);
    }

    /// The gateway is there again.
    pub fn come_up(&self) {
        self.state().up = true;
        self.shared.sooner.notify_one();
    }

    /// The gateway is down for so long.
    pub async fn restart(&self, dark: Duration) {
        self.go_down();
        tokio::time::sleep(dark).await;
        self.come_up();
    }

    /// The gateway forgets all sessions with their subscriptions, not what it has
    /// for them. Connections end.
    pub fn forget_sessions(&self) {
        self.shared.down.send_modify(|times| *times += 1);
        self.state().gateway.forget_sessions();
    }

    /// The gateway loses its disk; connections end. What was acknowledged and is
    /// not in Kafka yet is gone, and so are receipts that waited.
    pub fn lose_disk(&self) {
        self.shared.down.send_modify(|times| *times += 1);
        self.state().gateway.lose_disk();
    }

    /// Whether every CONNECT is refused from now on (0x88, server unavailable).
    pub fn refuse(&self, refuses: bool) {
        self.state().refuses = refuses;
    }

    /// What stands in Kafka.
    #[must_use]
    pub fn log(&self) -> ReceiptsLog {
        let state = self.state();
        ReceiptsLog {
            settled: state.settlement.settled().to_vec(),
            receipts: state.settlement.receipts().to_vec(),
            deliveries: state.gateway.deliveries().map(<[_]>::to_vec),
        }
    }

    /// The records as they stand in Kafka.
    #[must_use]
    pub fn records(&self) -> Vec<Found> {
        self.state().settlement.records().to_vec()
    }

    /// Payments that settlement refused.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.state().settlement.rejected()
    }

    /// Receipts that wait for their PUBACK.
    #[must_use]
    pub fn receipts_waiting(&self) -> usize {
        self.state().gateway.waiting()
    }

    /// Nothing is on its way: each record is answered, each receipt delivered.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let state = self.state();
        state.gateway.due_ms().is_none()
            && state.settlement.due_ms().is_none()
            && state.gateway.waiting() == 0
    }

    /// What went on besides.
    #[must_use]
    pub fn counts(&self) -> VillageCounts {
        self.state().counts
    }

    /// The first fault of a terminal, in words.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.state().fault.clone()
    }

    /// The last status that a terminal has told.
    #[must_use]
    pub fn status(&self, id: &str) -> Option<Bytes> {
        self.state().gateway.terminal(id).status.clone()
    }

    /// What passed between the gateway and a terminal, in connections that were
    /// taken.
    #[must_use]
    pub fn traffic(&self, id: &str) -> Traffic {
        self.state().traffic.get(id).copied().unwrap_or_default()
    }

    /// Milliseconds since it began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.shared.began.elapsed().as_millis() as u64
    }

    fn instant(&self, at_ms: u64) -> Instant {
        self.shared.began + Duration::from_millis(at_ms)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = &self.shared.state;
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, request: &ConnectRequest) -> Result<(Seat, bool), ReasonCode> {
        let mut state = self.state();
        if state.refuses {
            return Err(ReasonCode::ServerUnavailable);
        }
        let id = request.client_id.to_string();
        if risiti_wire::validate_terminal_id(&id).is_err() {
            state.note_fault(format!("{id:?} is no terminal's id"));
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        let terminal = state.gateway.terminal(&id);
        if request.clean_start {
            terminal.session = false;
            terminal.subscribed = false;
        }
        let resumed = terminal.session;
        terminal.session = request.session_expiry_s > 0;
        state.counts.connects += 1;
        state.counts.resumed += u64::from(resumed);
        state.seats_given += 1;
        let seat = Seat {
            id: id.clone(),
            number: state.seats_given,
            notify: Arc::new(Notify::new()),
            sent_number: 0,
        };
        let notify = Arc::clone(&seat.notify);
        if let Some((_, before)) = state.seats.insert(id, (seat.number, notify)) {
            before.notify_one();
        }
        Ok((seat, resumed))
    }

    fn is_taken_over(&self, seat: &Seat) -> bool {
        let state = self.state();
        let now = state.seats.get(&seat.id);
        now.is_some_and(|(number, _)| *number != seat.number)
    }

    fn subscribe(&self, id: &str) {
        let mut state = self.state();
        state.counts.subscribes += 1;
        state.gateway.terminal(id).subscribed = true;
    }

    fn durable_at_ms(&self) -> u64 {
        let now_ms = self.now_ms();
        let mut state = self.state();
        let (shortest, longest) = state.profile.durable_after_ms;
        now_ms + state.chance.u64(shortest..=longest)
    }

    fn take_record(&self, id: &str, record: &Bytes) -> ReasonCode {
        let now_ms = self.now_ms();
        let mut state = self.state();
        let (shortest, longest) = state.profile.forward_after_ms;
        let at_ms = now_ms + state.chance.u64(shortest..=longest);
        let taken = state.gateway.take(at_ms, id, record);
        let resend = risiti_wire::peek(record).is_ok_and(|header| header.resend);
        state.counts.resent += u64::from(resend);
        match taken {
            Some(Taken::New) => self.shared.sooner.notify_one(),
            Some(Taken::Repeated) => state.counts.repeated += 1,
            None => {
                state.note_fault(format!("{id} published what is no record"));
                return ReasonCode::PayloadFormatInvalid;
            }
        }
        ReasonCode::Success
    }

    fn take_status(&self, id: &str, status: Bytes) -> ReasonCode {
        let mut state = self.state();
        state.counts.statuses += 1;
        state.gateway.terminal(id).status = Some(status);
        ReasonCode::Success
    }

    fn refuse_topic(&self, id: &str, topic: &str) -> ReasonCode {
        self.state()
            .note_fault(format!("{id} published to {topic}"));
        ReasonCode::NotAuthorized
    }

    fn delivered(&self, id: &str, packet_id: u16) {
        self.state().gateway.delivered(id, packet_id);
    }

    /// Gives what is owed to `send` until it takes no more.
    fn deliver(&self, seat: &mut Seat, mut send: impl FnMut(&Row, bool) -> bool) {
        let mut state = self.state();
        let terminal = state.gateway.terminal(&seat.id);
        if !terminal.subscribed {
            return;
        }
        for row in &mut terminal.outbox {
            if row.number <= seat.sent_number {
                continue;
            }
            if !send(row, row.sent) {
                return;
            }
            row.sent = true;
            seat.sent_number = row.number;
        }
    }

    fn note_closed(&self, seat: &Seat, closed: &Closed, passed: &Traffic) {
        let mut state = self.state();
        let traffic = state.traffic.entry(seat.id.clone()).or_default();
        traffic.add(passed);
        state.counts.wills += u64::from(closed.publish_will);
        if let CloseCause::Peer { .. } = &closed.cause {
            state.note_fault(format!("{}: {}", seat.id, closed.cause));
        }
        if let Some((number, _)) = state.seats.get(&seat.id)
            && *number == seat.number
        {
            state.seats.remove(&seat.id);
        }
    }
}

impl State {
    fn note_fault(&mut self, text: String) {
        self.counts.faults += 1;
        self.fault.get_or_insert(text);
    }
}

/// Bytes in one direction between a network and the gateway: a socket's buffer.
const PIPE_BYTES: usize = 8 * 1024;
