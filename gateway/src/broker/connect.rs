//! Sessions come, are taken over, go, and expire.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytestring::ByteString;
use risiti_mqtt::connection::Closed;
use risiti_mqtt::{CloseCause, ConnectRequest, ReasonCode};
use risiti_store::state::Batch;

use super::access::NOT_ALLOWED;
use super::records::{FOREIGN_RECORDS, RECEIPTS_TOPIC, is_foreign};
use super::wills::Cause;
use super::{Broker, Seat};
use crate::access::{Claim, Login, LoginRefusal, Proof};
use crate::listener::Listener;
use crate::mailbox::{Farewell, Mailbox};
use crate::rows::{self, SessionNumber, WillRow};
use crate::session::Session;
use crate::tls::PeerCertificate;

/// A CONNECT that was let in.
pub struct Connected {
    /// The connection's place.
    pub seat: Seat,
    /// Whether a session was resumed.
    pub session_present: bool,
    /// The client identifier that was made up for it.
    pub assigned_client_id: Option<ByteString>,
    /// The session expiry interval in force, seconds.
    pub session_expiry_s: u32,
    /// QoS 2 identifiers that wait for PUBREL.
    pub unreleased: Vec<u16>,
}

/// Where a CONNECT comes in.
pub struct Entrance<'a> {
    /// From where.
    pub address: IpAddr,
    /// At which listener.
    pub listener: &'a Listener,
    /// With which certificate.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// A refusal of a CONNECT: what the client is told.
pub type ConnectRefusal = (ReasonCode, &'static str);

impl Broker {
    /// Lets a client in: finds or makes its session, takes it over from an
    /// older connection, and makes durable what must survive (a new persistent
    /// session, a will) before the client is told.
    ///
    /// # Errors
    /// What CONNACK is to say.
    pub async fn connect(
        self: &Arc<Self>,
        request: &ConnectRequest,
        mailbox: &Arc<Mailbox>,
        entrance: Entrance<'_>,
    ) -> Result<Connected, ConnectRefusal> {
        let limits = self.limits();
        let login = self.login(request, &entrance)?;
        let assigned_client_id = request
            .client_id
            .is_empty()
            .then(|| ByteString::from(format!("auto-{:016x}", fastrand::u64(..))));
        let client_id = assigned_client_id
            .clone()
            .unwrap_or_else(|| ByteString::from(&*request.client_id));
        let expiry_s = request.session_expiry_s.min(limits.session_expiry_s_max);
        if let Some(will) = &request.will
            && will.message.topic.starts_with('$')
        {
            return Err((
                ReasonCode::TopicNameInvalid,
                "topics that begin with $ are the server's",
            ));
        }
        if let Some(will) = &request.will
            && self.receipts.is_receipts_topic(&will.message.topic)
        {
            return Err((ReasonCode::NotAuthorized, RECEIPTS_TOPIC));
        }

        if let Some(will) = &request.will {
            if !self.may_will(&login.who, &will.message.topic) {
                return Err((ReasonCode::NotAuthorized, NOT_ALLOWED));
            }
            if let Some(route) = self.routes.newest().find(&will.message.topic)
                && is_foreign(route, &will.message.topic, &client_id)
            {
                return Err((ReasonCode::NotAuthorized, FOREIGN_RECORDS));
            }
        }

        let mut batch = Batch::new();
        batch.allow_splitting();
        let first_use = match &login.proof {
            Proof::Token(token) if login.is_first_use => Some(*token),
            _ => None,
        };
        if let Some(token) = &first_use {
            batch.put(
                rows::used_token_key(&client_id),
                rows::used_token_row(token),
            );
        }
        let (seat, session_present, unreleased) = {
            let _order = self.order.lock();
            let mut sessions = self.sessions.lock();
            // What was in force at the login may have ended since.
            if !self.access.admits(&login.who, &client_id, &login.proof) {
                return Err(LoginRefusal::Wrong.told());
            }
            let old = sessions.get(&client_id).cloned();
            if let Some(old) = &old {
                self.may_take(&login.who, old)?;
                self.supersede(old);
            }
            let now_ms = self.steady_ms();
            let resumed = old
                .as_ref()
                .filter(|s| s.owner == login.who && s.is_resumed_by(request.clean_start, now_ms))
                .cloned();
            if let (Some(old), None) = (&old, &resumed) {
                self.end_session(&mut sessions, old, &mut batch);
                self.forget_packets(&client_id);
            }
            let session = match &resumed {
                Some(session) => {
                    self.settle_will(session, Cause::Resumed, &mut batch);
                    session.clone()
                }
                None => {
                    if sessions.len() >= limits.sessions_max as usize {
                        return Err((
                            ReasonCode::QuotaExceeded,
                            "the gateway holds as many sessions as it may",
                        ));
                    }
                    let session = Session::new(
                        client_id.clone(),
                        fastrand::u64(1..SessionNumber::MAX),
                        expiry_s,
                    );
                    let session = Arc::new(session.owned_by(login.who.clone()));
                    sessions.insert(client_id.clone(), session.clone());
                    session
                }
            };
            let mut state = session.lock();
            let seated = state.seat(mailbox.clone(), expiry_s);
            state.proof = login.proof;
            state.certificate = entrance.certificate;
            let changed = resumed.is_none() || seated.expiry_changed;
            if session.persistent && (changed || seated.stored_as_offline) {
                let row = session.row(&state);
                if changed {
                    batch.put(rows::session_key(&client_id), row);
                } else {
                    // Nobody waits for it: should it be lost, the session only
                    // counts as offline for longer than it was.
                    let mut online = Batch::new();
                    online.put(rows::session_key(&client_id), row);
                    self.submit(online);
                }
                state.row_is_stale = false;
            }
            if let Some(will) = &request.will {
                let mut will = will.clone();
                will.message = will.message.detach();
                let number = fastrand::u64(..);
                let row = WillRow::new(&client_id, will.delay_s, &will.message);
                batch.put(
                    rows::will_key(number),
                    rows::encode(&row.owned_by(&login.who)),
                );
                state.will = Some((number, will));
            }
            let seat = Seat {
                session: session.clone(),
                epoch: seated.epoch,
            };
            let unreleased = state.unreleased.clone();
            (seat, resumed.is_some(), unreleased)
        };
        if !batch.is_empty()
            && let Err(error) = self.commit(batch).await
        {
            tracing::warn!(%error, %client_id, "CONNECT refused: its session can't be stored");
            let closed = Closed {
                cause: CloseCause::TransportLost,
                publish_will: false,
                session_expiry_s: None,
            };
            self.disconnected(&seat, &closed);
            return Err((
                ReasonCode::ServerUnavailable,
                "the session can't be stored now; try again later",
            ));
        }
        if let Some(token) = first_use {
            tracing::info!(%client_id, "the terminal has its next token; the old one is not valid any more");
            self.access.used(client_id.clone(), token);
        }
        Ok(Connected {
            seat,
            session_present,
            assigned_client_id,
            session_expiry_s: expiry_s,
            unreleased,
        })
    }

    /// Who that is, if it may come in there.
    fn login(
        &self,
        request: &ConnectRequest,
        entrance: &Entrance<'_>,
    ) -> Result<Login, ConnectRefusal> {
        let refused = |why: LoginRefusal| {
            let metrics = &self.access.metrics;
            metrics.logins.fetch_add(1, Ordering::Relaxed);
            Err(why.told())
        };
        let certificate = entrance.certificate.as_deref();
        if certificate.is_some_and(|shown| !shown.is_trusted()) {
            return refused(LoginRefusal::Certificate);
        }
        let claim = Claim {
            client_id: &request.client_id,
            username: request.username.as_deref(),
            password: request.password.as_deref(),
            certificate: certificate.map(PeerCertificate::name),
        };
        let now_ms = self.monotonic_ms();
        let login = self.access.login(claim, entrance.address, now_ms)?;
        if !entrance.listener.is_for(&login.who) {
            tracing::warn!(client_id = %request.client_id, who = %login.who, listener = entrance.listener.name(), "login refused: the listener is for others (listeners.who)");
            return refused(LoginRefusal::Elsewhere);
        }
        Ok(login)
    }

    /// Ends the connection that holds a session now, if any.
    fn supersede(&self, session: &Arc<Session>) {
        if let Some(mailbox) = session.lock().unseat() {
            self.metrics.taken_over.fetch_add(1, Ordering::Relaxed);
            mailbox.end(Farewell::TakenOver);
        }
    }

    /// A connection is over.
    pub fn disconnected(self: &Arc<Self>, seat: &Seat, closed: &Closed) {
        let session = &seat.session;
        let mut batch = Batch::new();
        batch.allow_splitting();
        {
            let _order = self.order.lock();
            let mut sessions = self.sessions.lock();
            let most_s = self.limits().session_expiry_s_max;
            let expiry_s = closed.session_expiry_s.map(|s| s.min(most_s));
            if !session.lock().leave(seat.epoch, self.steady_ms(), expiry_s) {
                return;
            }
            let cause = if closed.publish_will {
                Cause::Lost
            } else {
                Cause::Leave
            };
            self.settle_will(session, cause, &mut batch);
            let over = session.lock().expiry_s == 0 || !session.persistent;
            if over {
                self.end_session(&mut sessions, session, &mut batch);
                match closed.cause {
                    CloseCause::ClientDisconnected(_) => self.forget_packets(&session.client_id),
                    _ => self.forget_packets_later(&sessions, &session.client_id),
                }
            }
        }
        self.submit(batch);
    }

    /// Packet identifiers of a client whose session is over stand for nothing any
    /// more. What the journal remembers of them goes, or names that come once would
    /// add up on disk for ever.
    fn forget_packets(&self, client_id: &ByteString) {
        self.journal.forget(client_id.as_bytes().clone());
    }

    /// The same for a client without a session that has lost its connection: many
    /// come again at once, and send with DUP what was not acknowledged. So the last
    /// [`LOST_CLIENTS_KEPT`](crate::limits::LOST_CLIENTS_KEPT) are still recognised.
    fn forget_packets_later(
        &self,
        sessions: &std::collections::HashMap<ByteString, Arc<Session>>,
        client_id: &ByteString,
    ) {
        let mut lost = self.lost_clients.lock();
        lost.push_back(client_id.clone());
        if lost.len() > crate::limits::LOST_CLIENTS_KEPT
            && let Some(oldest) = lost.pop_front()
        {
            // One that is here again is lost again, or takes its leave.
            if !sessions.contains_key(&oldest) {
                self.forget_packets(&oldest);
            }
        }
    }

    /// Discards a session with everything that belongs to it.
    pub(super) fn end_session(
        self: &Arc<Self>,
        sessions: &mut std::collections::HashMap<ByteString, Arc<Session>>,
        session: &Arc<Session>,
        batch: &mut Batch,
    ) {
        self.settle_will(session, Cause::SessionEnded, batch);
        let (subscriptions, linked, owes_rows) = {
            let mut state = session.lock();
            state.ended = true;
            state.mailbox = None;
            state.outgoing.disconnected();
            state.receipts = None;
            (
                std::mem::take(&mut state.subscriptions),
                std::mem::take(&mut state.linked),
                state.owed > 0 || !state.unreleased.is_empty(),
            )
        };
        {
            let mut all = self.subscriptions.lock();
            for (_, subscription) in &subscriptions {
                all.remove(session, &subscription.filter);
            }
            self.any_subscription
                .store(!all.is_empty(), Ordering::Release);
        }
        if linked {
            let fanout = self.fanout.clone();
            let number = session.number;
            tokio::spawn(async move { fanout.detach(number).await });
        }
        if sessions
            .get(&session.client_id)
            .is_some_and(|s| s.number == session.number)
        {
            sessions.remove(&session.client_id);
        }
        if session.persistent {
            batch.delete(rows::session_key(&session.client_id));
            if owes_rows {
                let broker = self.clone();
                let number = session.number;
                tokio::task::spawn_blocking(move || broker.delete_rows_of(number));
            }
        }
    }

    /// Removes the rows of a session that is no more, a page at a time.
    pub(super) fn delete_rows_of(&self, number: SessionNumber) {
        for prefix in [
            rows::deliveries_prefix(number),
            rows::unreleased_prefix(number),
        ] {
            loop {
                let page = match self.state.scan(&prefix, None, crate::limits::ROWS_PER_PAGE) {
                    Ok(page) if page.is_empty() => break,
                    Ok(page) => page,
                    Err(error) => {
                        tracing::warn!(%error, "rows of a discarded session stay until the next start");
                        return;
                    }
                };
                let mut batch = Batch::new();
                for (key, _) in &page {
                    batch.delete(key.clone());
                }
                if self.state.commit(batch).is_err() {
                    return;
                }
            }
        }
    }

    /// Ends sessions whose time is over and writes down since when others are
    /// offline. To be called now and then.
    pub fn expire_sessions(self: &Arc<Self>) {
        let now_ms = self.steady_ms();
        let mut batch = Batch::new();
        batch.allow_splitting();
        {
            let _order = self.order.lock();
            let mut sessions = self.sessions.lock();
            let over: Vec<_> = sessions
                .values()
                .filter(|session| session.lock().has_expired(now_ms))
                .cloned()
                .collect();
            for session in &over {
                tracing::debug!(client = %session.client_id, "session expired");
                self.end_session(&mut sessions, session, &mut batch);
                self.forget_packets(&session.client_id);
            }
        }
        self.submit(batch);
        self.save_sessions();
    }

    /// Writes down since when sessions are offline, where the store knows less.
    pub fn save_sessions(&self) {
        let mut batch = Batch::new();
        batch.allow_splitting();
        for session in self.sessions.lock().values() {
            let mut state = session.lock();
            if state.row_is_stale && session.persistent && state.mailbox.is_none() && !state.ended {
                batch.put(rows::session_key(&session.client_id), session.row(&state));
                state.row_is_stale = false;
            }
        }
        self.submit(batch);
    }
}
