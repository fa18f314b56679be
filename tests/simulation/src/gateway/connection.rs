//! One connection of a client: what the product's shell and broker do with it.
//!
//! Promises: the protocol is [`risiti_mqtt::Connection`]'s; a PUBACK is sent when
//! the journal has spoken, CONNACK and SUBACK when the session's row is durable, the
//! first receipt when it is known to be connected. What has left is told from the
//! bytes themselves. Never: a byte read that the core does not want yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use risiti_bridge::Outbox;
use risiti_gateway::broker::{Delivered, Refusal, forbidden, record};
use risiti_gateway::identifiers::Identifiers;
use risiti_gateway::mailbox::{Farewell, Mailbox, Settled};
use risiti_gateway::receipts::queue::{Next, Page, PageRead};
use risiti_gateway::rows;
use risiti_gateway::session::{Epoch, Session};
use risiti_mqtt::connection::Closed;
use risiti_mqtt::{
    Accept, ConnectRequest, Connection, ConnectionLimits, Deliver, Delivery, Event, Message, Qos,
    ReasonCode, Subscription, Version,
};
use risiti_store::state::CommitSink;
use risiti_store::{AckSink, Batch, Identity, Outcome, RecordSink, Rows};

use super::journal::Intake;
use super::session::Sessions;
use super::{Clock, Settings};
use crate::contract::{Controls, GatewayEvent, Ms};
use crate::disk::SimRows;

/// Bytes that a socket of a slow reader holds before it takes no more.
const SOCKET_BYTES_MAX: usize = 64 * 1024;

/// What a connection works with.
pub(super) struct Around<'a> {
    pub now: Ms,
    pub clock: &'a Clock,
    pub rows: &'a SimRows,
    pub rng: &'a mut fastrand::Rng,
    pub intake: &'a Intake,
    pub outbox: &'a Arc<Outbox>,
    pub sessions: &'a Sessions,
    pub settings: &'a Settings,
    pub controls: Controls,
    pub events: &'a mut Vec<GatewayEvent>,
}

/// What is to be said once something is durable.
enum Answer {
    Connected {
        session_present: bool,
        assigned: Option<ByteString>,
        expiry_s: Option<u32>,
        seat: (Arc<Session>, Epoch),
    },
    Subscribed {
        packet_id: u16,
        codes: Vec<ReasonCode>,
        receipts: Option<bool>,
    },
    Unsubscribed {
        packet_id: u16,
        codes: Vec<ReasonCode>,
    },
}

/// A PUBLISH that is not acknowledged.
struct Unsettled {
    token: u64,
    packet_id: u16,
    record: Option<(String, u64)>,
}

/// Between the journal and a connection's mailbox: notes which were resends.
struct Told {
    mailbox: Arc<Mailbox>,
    duplicates: Arc<Mutex<Vec<u64>>>,
}

impl AckSink for Told {
    fn settled(&self, token: u64, outcome: Outcome) {
        if outcome == Outcome::Duplicate {
            let mut duplicates = self
                .duplicates
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            duplicates.push(token);
        }
        self.mailbox.settled(token, outcome);
    }
}

/// See the head of the file.
pub(super) struct Conn {
    connection: Connection,
    mailbox: Arc<Mailbox>,
    sink: Arc<dyn AckSink>,
    duplicates: Arc<Mutex<Vec<u64>>>,
    seat: Option<(Arc<Session>, Epoch)>,
    /// Whose receipts it gets: its client's own.
    terminal: ByteString,
    /// In the socket.
    unread: BytesMut,
    /// Read, not taken yet.
    input: BytesMut,
    /// The bytes of a packet that are not out yet, for who reads along.
    sent: BytesMut,
    unsettled: VecDeque<Unsettled>,
    answers: Vec<(u64, Answer)>,
    next_answer: u64,
    /// A page that waits until what it shows is known to be connected, and until
    /// when it waits at most.
    page: Option<(u64, Page, Ms)>,
    over: Option<Box<Closed>>,
    lost: bool,
}

const ANSWERS_FROM: u64 = 1 << 63;

impl Conn {
    pub(super) fn new(now: Ms) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let duplicates = Arc::default();
        Self {
            connection: Connection::new(&ConnectionLimits::default(), now),
            sink: Arc::new(Told {
                mailbox: Arc::clone(&mailbox),
                duplicates: Arc::clone(&duplicates),
            }),
            mailbox,
            duplicates,
            seat: None,
            terminal: ByteString::new(),
            unread: BytesMut::new(),
            input: BytesMut::new(),
            sent: BytesMut::new(),
            unsettled: VecDeque::new(),
            answers: Vec::new(),
            next_answer: ANSWERS_FROM,
            page: None,
            over: None,
            lost: false,
        }
    }

    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The other end is gone.
    pub(super) fn lost(&mut self) {
        self.lost = true;
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    pub(super) fn due_ms(&self) -> Option<Ms> {
        let page = self.page.as_ref().map(|(_, _, until)| *until);
        let protocol = self.connection.poll_timeout();
        [page, protocol].into_iter().flatten().min()
    }

    /// What [`risiti_gateway`] promises of a connection's memory.
    pub(super) fn bounds(&self) -> Result<(), String> {
        let limits = ConnectionLimits::default();
        let most = usize::from(limits.receive_maximum);
        if self.unsettled.len() > most {
            return Err(format!("{} PUBLISHes unsettled", self.unsettled.len()));
        }
        let most = limits.packet_bytes_max as usize + SOCKET_BYTES_MAX;
        if self.input.len() > most {
            return Err(format!("{} bytes read and not taken", self.input.len()));
        }
        if self.connection.heap_bytes() > 2 * limits.packet_bytes_max as usize {
            return Err(format!("{} bytes of heap", self.connection.heap_bytes()));
        }
        Ok(())
    }

    /// Does all that can be done now. Whether that was anything.
    pub(super) fn work(&mut self, around: &mut Around<'_>) -> bool {
        let mut moved = false;
        for settled in self.mailbox.take_settled() {
            moved = true;
            match settled {
                Settled::Publish(token, reason) => self.settle(token, reason, around),
                Settled::Committed(token) => self.committed(token, around),
                Settled::Abandoned(_) => {}
            }
        }
        if let Some(why) = self.mailbox.farewell() {
            let (reason, text) = match why {
                Farewell::TakenOver => (
                    ReasonCode::SessionTakenOver,
                    "another connection of the same client identifier",
                ),
                Farewell::ShuttingDown => (ReasonCode::ServerShuttingDown, "the gateway stops"),
                Farewell::Administrative => {
                    (ReasonCode::AdministrativeAction, "ended by an operator")
                }
            };
            self.connection.close(reason, text);
        }
        if let Some((_, page, _)) = self.page.take_if(|(_, _, until)| *until <= around.now) {
            self.read_page(page, around);
            moved = true;
        }
        if self
            .connection
            .poll_timeout()
            .is_some_and(|at| at <= around.now)
        {
            self.connection.handle_timeout(around.now);
        }
        self.take_input(around.now);
        while let Some(event) = self.connection.poll_event() {
            moved = true;
            self.handle(event, around);
            self.take_input(around.now);
        }
        if self.lost && self.over.is_none() && self.unread.is_empty() {
            self.connection.handle_transport_lost();
            while let Some(event) = self.connection.poll_event() {
                moved = true;
                self.handle(event, around);
            }
        }
        self.deliver(around);
        moved
    }

    fn take_input(&mut self, now: Ms) {
        // A connection that is told to go takes no more work.
        if self.connection.wants_input() && self.mailbox.farewell().is_none() {
            let unread = self.unread.split();
            self.input.extend_from_slice(&unread);
        } else if self.lost {
            self.unread.clear();
        }
        if !self.input.is_empty() {
            self.connection.handle_input(now, &mut self.input);
        }
    }

    /// The bytes that leave now. A PUBACK that is among them has left.
    pub(super) fn take_bytes(&mut self, around: &mut Around<'_>) -> Option<Vec<u8>> {
        let out = self.connection.transmit().split();
        if out.is_empty() {
            return None;
        }
        self.sent.extend_from_slice(&out);
        while let Some((first, packet)) = next_packet(&mut self.sent) {
            let is_ok = packet.get(2).is_none_or(|reason| *reason < 0x80);
            if let (0x40, true, Some(id)) = (first & 0xF0, is_ok, packet.first_chunk()) {
                self.puback_left(u16::from_be_bytes(*id), around);
            }
        }
        Some(out.to_vec())
    }

    fn puback_left(&mut self, packet_id: u16, around: &mut Around<'_>) {
        let found = self.unsettled.iter().position(|u| u.packet_id == packet_id);
        let Some(unsettled) = found.and_then(|at| self.unsettled.remove(at)) else {
            return;
        };
        if let Some((terminal, sequence)) = unsettled.record {
            around
                .events
                .push(GatewayEvent::Acked { terminal, sequence });
        }
    }

    /// Whether it is over; ends it then.
    pub(super) fn end(&mut self, around: &mut Around<'_>) -> bool {
        let Some(closed) = self.over.take() else {
            return false;
        };
        if let Some((session, epoch)) = self.seat.take() {
            self.disconnected(&session, epoch, closed.session_expiry_s, around);
        }
        true
    }

    fn disconnected(
        &self,
        session: &Arc<Session>,
        epoch: Epoch,
        expiry_s: Option<u32>,
        around: &mut Around<'_>,
    ) {
        let most_s = around.settings.config.mqtt.limits.session_expiry_s_max;
        let expiry_s = expiry_s.map(|s| s.min(most_s));
        let steady_ms = around.clock.steady_ms(around.now);
        if !session.lock().leave(epoch, steady_ms, expiry_s) {
            return;
        }
        let over = session.lock().expiry_s == 0 || !session.persistent;
        if over {
            let mut batch = Batch::new();
            around.sessions.end(session, &mut batch);
            if !batch.is_empty() {
                let _ = around.rows.submit(batch, None);
            }
        }
    }

    fn handle(&mut self, event: Event, around: &mut Around<'_>) {
        match event {
            Event::Connect(request) => self.connect(&request, around),
            Event::Publish {
                token,
                message,
                packet_id,
                dup,
            } => self.publish(token, message.detach(), packet_id, dup, around),
            Event::PublishRelease { packet_id } => self.connection.publish_completed(packet_id),
            Event::Subscribe { packet_id, filters } => self.subscribe(packet_id, filters, around),
            Event::Unsubscribe { packet_id, filters } => {
                let Some((session, epoch)) = self.seat.clone() else {
                    return;
                };
                let mut changed = false;
                let codes = filters
                    .iter()
                    .map(|filter| {
                        if !around.settings.topics.is_own(filter, &session.client_id) {
                            return ReasonCode::NotAuthorized;
                        }
                        let mut state = session.lock();
                        if state.epoch != epoch || state.ended {
                            return ReasonCode::UnspecifiedError;
                        }
                        if state.receipts.as_mut().is_some_and(|q| q.unsubscribe()) {
                            changed = true;
                            ReasonCode::Success
                        } else {
                            ReasonCode::NoSubscriptionExisted
                        }
                    })
                    .collect();
                let answer = Answer::Unsubscribed { packet_id, codes };
                self.answer_with_row(changed, &session, answer, around);
            }
            Event::Acked { packet_id, reason } => self.acked(packet_id, reason, around),
            Event::Received { packet_id } => self.connection.released(packet_id),
            Event::Closed(closed) => self.over = Some(closed),
        }
    }

    /// As `broker/connect.rs`.
    fn connect(&mut self, request: &ConnectRequest, around: &mut Around<'_>) {
        let limits = &around.settings.config.mqtt.limits;
        let assigned = request
            .client_id
            .is_empty()
            .then(|| ByteString::from(format!("auto-{:016x}", around.rng.u64(..))));
        let client_id = assigned
            .clone()
            .unwrap_or_else(|| ByteString::from(&*request.client_id));
        let expiry_s = request.session_expiry_s.min(limits.session_expiry_s_max);
        let steady_ms = around.clock.steady_ms(around.now);
        let mut batch = Batch::new();
        let old = around.sessions.lock().get(&client_id).cloned();
        if let Some(mailbox) = old.as_ref().and_then(|old| old.lock().unseat()) {
            mailbox.end(Farewell::TakenOver);
        }
        let resumed = old
            .as_ref()
            .filter(|session| session.is_resumed_by(request.clean_start, steady_ms))
            .cloned();
        if let (Some(old), None) = (&old, &resumed) {
            around.sessions.end(old, &mut batch);
            around.intake.forget(client_id.as_bytes().clone());
        }
        let session_present = resumed.is_some();
        let session = match resumed {
            Some(session) => session,
            None => {
                let mut sessions = around.sessions.lock();
                if sessions.len() >= limits.sessions_max as usize {
                    drop(sessions);
                    self.connection
                        .refuse(ReasonCode::QuotaExceeded, "too many sessions");
                    return;
                }
                let number = around.rng.u64(1..u64::MAX);
                let session = Arc::new(Session::new(client_id.clone(), number, expiry_s));
                sessions.insert(client_id.clone(), Arc::clone(&session));
                session
            }
        };
        let epoch = {
            let mut state = session.lock();
            let seated = state.seat(Arc::clone(&self.mailbox), expiry_s);
            let changed = !session_present || seated.expiry_changed;
            if session.persistent && (changed || seated.stored_as_offline) {
                let key = rows::session_key(&client_id);
                if changed {
                    batch.put(key, session.row(&state));
                } else {
                    let mut online = Batch::new();
                    online.put(key, session.row(&state));
                    let _ = around.rows.submit(online, None);
                }
                state.row_is_stale = false;
            }
            seated.epoch
        };
        self.terminal = client_id;
        let answer = Answer::Connected {
            session_present,
            assigned,
            expiry_s: (expiry_s != request.session_expiry_s).then_some(expiry_s),
            seat: (session, epoch),
        };
        let batch = Some(batch).filter(|batch| !batch.is_empty());
        self.answer_when_durable(batch, answer, around);
    }

    fn subscribe(&mut self, packet_id: u16, filters: Vec<Subscription>, around: &mut Around<'_>) {
        let Some((session, epoch)) = self.seat.clone() else {
            return;
        };
        let topics = &around.settings.topics;
        let most = around
            .settings
            .config
            .mqtt
            .limits
            .subscriptions_per_session_max as usize;
        let mut receipts = None;
        let mut codes = Vec::new();
        for subscription in filters {
            let filter = &subscription.filter;
            let terminal = topics.terminal(&filter.filter).map(ByteString::from);
            let own = topics.is_own(filter, &session.client_id);
            match terminal {
                Some(terminal) if own || around.controls.open_topics => {
                    self.terminal = terminal;
                    let subscription = Subscription {
                        filter: subscription.filter.detach(),
                        ..subscription
                    };
                    let granted = session.lock().subscribe_receipts(epoch, subscription, most);
                    match granted {
                        Ok((code, wants_last)) => {
                            around.outbox.seen(&session.client_id);
                            receipts = Some(receipts.unwrap_or(false) || wants_last);
                            codes.push(code);
                        }
                        Err(code) => codes.push(code),
                    }
                }
                Some(_) => codes.push(ReasonCode::NotAuthorized),
                // An ordinary subscription, to which nothing is published here.
                None => codes.push(match subscription.qos {
                    Qos::AtMostOnce => ReasonCode::Success,
                    Qos::AtLeastOnce => ReasonCode::GrantedQos1,
                    Qos::ExactlyOnce => ReasonCode::GrantedQos2,
                }),
            }
        }
        let answer = Answer::Subscribed {
            packet_id,
            codes,
            receipts,
        };
        self.answer_with_row(receipts.is_some(), &session, answer, around);
    }

    /// SUBACK and UNSUBACK wait for the session's row, if it changed.
    fn answer_with_row(
        &mut self,
        changed: bool,
        session: &Arc<Session>,
        answer: Answer,
        around: &mut Around<'_>,
    ) {
        let mut batch = None;
        if changed && session.persistent {
            let mut state = session.lock();
            if !state.ended {
                state.row_is_stale = false;
                let mut row = Batch::new();
                row.put(rows::session_key(&session.client_id), session.row(&state));
                batch = Some(row);
            }
        }
        self.answer_when_durable(batch, answer, around);
    }

    fn answer_when_durable(
        &mut self,
        batch: Option<Batch>,
        answer: Answer,
        around: &mut Around<'_>,
    ) {
        let token = self.next_answer;
        self.next_answer += 1;
        self.answers.push((token, answer));
        match batch {
            None => self.committed(token, around),
            Some(batch) => self.submit(batch, token, around),
        }
    }

    fn submit(&mut self, batch: Batch, token: u64, around: &mut Around<'_>) {
        let sink: Arc<dyn CommitSink> = Arc::clone(&self.mailbox) as _;
        if around.rows.submit(batch, Some((sink, token))).is_err() {
            self.connection
                .close(ReasonCode::ServerBusy, "too much waits for the disk");
        }
    }

    fn committed(&mut self, token: u64, around: &mut Around<'_>) {
        if let Some((_, page, _)) = self.page.take_if(|(waits, _, _)| *waits == token) {
            self.read_page(page, around);
            return;
        }
        let Some(at) = self.answers.iter().position(|(t, _)| *t == token) else {
            return;
        };
        match self.answers.remove(at).1 {
            Answer::Connected {
                session_present,
                assigned,
                expiry_s,
                seat,
            } => {
                self.connection.accept(
                    around.now,
                    &Accept {
                        session_present,
                        assigned_client_id: assigned.as_deref(),
                        session_expiry_s: expiry_s,
                        server_keep_alive_s: None,
                        unreleased: &[],
                    },
                );
                self.seat = Some(seat);
            }
            Answer::Subscribed {
                packet_id,
                codes,
                receipts,
            } => {
                self.connection.subscribed(packet_id, &codes, None);
                if let Some(wants_last) = receipts {
                    self.with_queue(|queue| queue.begin(wants_last));
                }
            }
            Answer::Unsubscribed { packet_id, codes } => {
                self.connection.unsubscribed(packet_id, &codes, None);
            }
        }
    }

    /// As `broker/publish.rs`.
    fn publish(
        &mut self,
        token: u64,
        message: Message,
        packet_id: u16,
        dup: bool,
        around: &mut Around<'_>,
    ) {
        let Some((session, epoch)) = self.seat.clone() else {
            return;
        };
        if message.qos != Qos::AtMostOnce {
            self.unsettled.push_back(Unsettled {
                token,
                packet_id,
                record: None,
            });
        }
        if let Some((reason, _)) = forbidden(&around.settings.topics, &message) {
            return self.settle(token, reason, around);
        }
        let Some(route) = around.settings.routes.find(&message.topic) else {
            return self.settle(token, ReasonCode::NoMatchingSubscribers, around);
        };
        let how = Delivered {
            packet_id,
            dup,
            token,
        };
        let owner = route.terminal(&message.topic).unwrap_or_default();
        let client_id = match around.controls.open_topics {
            true => owner,
            false => &session.client_id,
        };
        let record = match record(route, &message, client_id, how, around.clock.unix_ms()) {
            Ok(record) => record,
            Err(Refusal::Foreign(_)) => {
                return self.settle(token, ReasonCode::NotAuthorized, around);
            }
            // Kept as a dead letter in the product.
            Err(Refusal::Malformed(..)) => {
                return self.settle(token, ReasonCode::PayloadFormatInvalid, around);
            }
        };
        if let (Identity::Sequence { sequence, .. }, Some(unsettled)) =
            (record.identity, self.unsettled.back_mut())
            && unsettled.token == token
        {
            unsettled.record = Some((client_id.to_owned(), sequence));
        }
        let state = session.lock();
        if state.epoch == epoch {
            around.intake.append(record, &self.sink, token);
        }
    }

    fn settle(&mut self, token: u64, reason: ReasonCode, around: &mut Around<'_>) {
        // A v3.1.1 client can't be told; its record is kept as a dead letter.
        let reason = if reason == ReasonCode::PayloadFormatInvalid
            && self.connection.version() == Some(Version::V311)
        {
            ReasonCode::Success
        } else {
            reason
        };
        let was_duplicate = {
            let mut duplicates = self
                .duplicates
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let found = duplicates.iter().position(|t| *t == token);
            found.map(|at| duplicates.swap_remove(at)).is_some()
        };
        let unsettled = self.unsettled.iter().position(|u| u.token == token);
        if let Some(at) = unsettled {
            if let (true, Some((terminal, sequence))) = (was_duplicate, &self.unsettled[at].record)
            {
                around.events.push(GatewayEvent::Duplicate {
                    terminal: terminal.clone(),
                    sequence: *sequence,
                });
            }
            if reason != ReasonCode::Success {
                self.unsettled[at].record = None;
            }
        }
        self.connection.publish_settled(token, reason, None);
    }

    fn with_queue<T>(
        &self,
        act: impl FnOnce(&mut risiti_gateway::receipts::ReceiptsQueue) -> T,
    ) -> Option<T> {
        let (session, epoch) = self.seat.as_ref()?;
        let mut state = session.lock();
        if state.epoch != *epoch {
            return None;
        }
        state.receipts.as_deref_mut().map(act)
    }

    /// As `connection/receipts.rs` and `broker/receipts.rs`.
    fn deliver(&mut self, around: &mut Around<'_>) {
        self.mailbox.take_deliver();
        if !self.connection.is_open() || self.seat.is_none() {
            return;
        }
        loop {
            let window = self.connection.send_window();
            let Some(next) = self.with_queue(|queue| queue.next(window)).flatten() else {
                break;
            };
            self.send(&next, around);
        }
        if self.page.is_some() {
            return;
        }
        let Some(page) = self
            .with_queue(risiti_gateway::receipts::ReceiptsQueue::ask)
            .flatten()
        else {
            return;
        };
        if page.after > 0 {
            return self.read_page(page, around);
        }
        // The row that says that this session is connected comes before the first
        // receipt.
        let token = self.next_answer;
        self.next_answer += 1;
        let wait_ms = risiti_gateway::limits::RECEIPTS_DURABLE_WAIT.as_millis() as Ms;
        self.page = Some((token, page, around.now + wait_ms));
        self.submit(Batch::new(), token, around);
    }

    fn send(&mut self, next: &Next, around: &mut Around<'_>) {
        let now_ms = around.clock.unix_ms();
        let receipt = &next.receipt;
        if receipt.expires_ms.is_some_and(|ms| now_ms >= ms) {
            self.with_queue(|queue| queue.done(next.packet_id));
            if !next.retain {
                around.outbox.expired(&self.terminal, receipt.number);
            }
            return;
        }
        let expiry_s = receipt
            .expires_ms
            .map(|ms| u32::try_from((ms - now_ms).div_ceil(1000)).unwrap_or(u32::MAX));
        let topic = around.settings.topics.of(&self.terminal);
        let message = Message::new(topic, receipt.payload.clone());
        let subscription_ids: Vec<u32> = next.subscription_id.into_iter().collect();
        let outcome = self.connection.deliver(&Delivery {
            packet_id: next.packet_id,
            message: &message,
            qos: next.qos,
            retain: next.retain,
            dup: next.dup,
            subscription_ids: &subscription_ids,
            expiry_s,
        });
        match outcome {
            Deliver::Delivered => {
                around.events.push(GatewayEvent::Delivered {
                    terminal: self.terminal.to_string(),
                    sequence: receipt.sequence,
                });
                if around.controls.deleted_before_puback && !next.retain {
                    around
                        .outbox
                        .acknowledged(&self.terminal, receipt.number, next.dup);
                }
            }
            Deliver::TooLarge => {
                self.with_queue(|queue| queue.done(next.packet_id));
            }
            Deliver::WindowFull | Deliver::TransmitFull | Deliver::NotOpen => {}
        }
    }

    fn read_page(&mut self, page: Page, around: &mut Around<'_>) {
        let read: PageRead = match page.read(around.outbox, &self.terminal, around.clock.unix_ms())
        {
            Ok(read) => read,
            Err(_) => {
                self.connection
                    .close(ReasonCode::ServerBusy, "receipts can't be read now");
                return;
            }
        };
        self.with_queue(|queue| queue.page(page, read));
        self.deliver(around);
    }

    fn acked(&mut self, packet_id: u16, reason: ReasonCode, around: &mut Around<'_>) {
        if !Identifiers::RECEIPTS.contains(packet_id) {
            return;
        }
        let done = self.with_queue(|queue| queue.done(packet_id)).flatten();
        let Some(done) = done.filter(|done| !done.retained && !reason.is_error()) else {
            return;
        };
        around.events.push(GatewayEvent::Taken {
            terminal: self.terminal.to_string(),
            sequence: done.sequence,
        });
        around
            .outbox
            .acknowledged(&self.terminal, done.number, done.again);
    }
}

/// Takes the next whole packet off what was sent: its first byte and its body.
fn next_packet(sent: &mut BytesMut) -> Option<(u8, Bytes)> {
    let first = *sent.first()?;
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let byte = *sent.get(at)?;
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if sent.len() < at + length {
        return None;
    }
    let packet = sent.split_to(at + length).freeze();
    Some((first, packet.slice(at..)))
}
