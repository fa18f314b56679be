//! The sessions of a gateway: what its broker keeps of terminals.
//!
//! Promises: what a session is, who sits in it and how it is brought back is the
//! product's own ([`Session`]); here they are kept and found. Never: a session of
//! a client that was told that it has none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use bytestring::ByteString;
use risiti_bridge::Outbox;
use risiti_bridge::receipts::{Arrivals, StoredReceipt};
use risiti_gateway::receipts::{ReceiptsQueue, ReceiptsTopics};
use risiti_gateway::rows::{self, SessionRow};
use risiti_gateway::session::Session;
use risiti_store::{Batch, Rows};

use crate::disk::SimRows;

type Map = BTreeMap<ByteString, Arc<Session>>;

/// See the head of the file.
#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<Map>>);

impl Sessions {
    /// What the rows hold.
    pub(super) fn recover(
        rows: &SimRows,
        outbox: &Outbox,
        topics: &ReceiptsTopics,
        steady_ms: u64,
    ) -> Self {
        let sessions = Self::default();
        for (key, value) in rows
            .scan(rows::SESSIONS, None, usize::MAX)
            .unwrap_or_default()
        {
            let client_id = key.get(rows::SESSIONS.len()..).unwrap_or_default().to_vec();
            let (Ok(client_id), Ok(row)) = (
                ByteString::try_from(client_id),
                rows::decode::<SessionRow>(&value),
            ) else {
                continue;
            };
            let session = Session::restore(client_id.clone(), &row, steady_ms);
            {
                let mut state = session.lock();
                for subscription in row.subscriptions() {
                    if topics.is_own(&subscription.filter, &client_id) {
                        let sent = row.disconnected_ms.and(row.receipts_sent);
                        outbox.seen(&client_id);
                        let queue = ReceiptsQueue::resume(subscription, sent);
                        state.receipts = Some(Box::new(queue));
                    }
                }
            }
            sessions.lock().insert(client_id, Arc::new(session));
        }
        sessions
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Map> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of receipts.
    pub(super) fn listener(&self) -> Arc<dyn Arrivals> {
        Arc::new(Listener(self.clone()))
    }

    /// Whether a row tells less than is known, so that the next sweep writes it.
    pub(super) fn is_sweep_due(&self) -> bool {
        self.lock().values().any(|session| {
            let state = session.lock();
            state.row_is_stale && session.persistent && state.mailbox.is_none()
        })
    }

    /// In how long the first of them expires, ms.
    pub(super) fn expiry_ms(&self, steady_ms: u64) -> Option<u64> {
        let sessions = self.lock();
        let offline = sessions.values().filter_map(|session| {
            let state = session.lock();
            let since_ms = state.disconnected_ms?;
            let at_ms = since_ms + u64::from(state.expiry_s) * 1000;
            (state.expiry_s < u32::MAX).then_some(at_ms.saturating_sub(steady_ms))
        });
        offline.min()
    }

    /// Ends sessions whose time is over, and writes down since when others are
    /// offline. Whose they were.
    pub(super) fn sweep(&self, steady_ms: u64, rows: &SimRows) -> Vec<Bytes> {
        let over: Vec<Arc<Session>> = self
            .lock()
            .values()
            .filter(|session| session.lock().has_expired(steady_ms))
            .cloned()
            .collect();
        let mut batch = Batch::new();
        for session in &over {
            self.end(session, &mut batch);
        }
        for session in self.lock().values() {
            let mut state = session.lock();
            if state.row_is_stale && session.persistent && state.mailbox.is_none() && !state.ended {
                batch.put(rows::session_key(&session.client_id), session.row(&state));
                state.row_is_stale = false;
            }
        }
        if !batch.is_empty() {
            let _ = rows.submit(batch, None);
        }
        let names = over.iter().map(|s| s.client_id.as_bytes().clone());
        names.collect()
    }

    /// Discards a session.
    pub(super) fn end(&self, session: &Arc<Session>, batch: &mut Batch) {
        {
            let mut state = session.lock();
            state.ended = true;
            state.mailbox = None;
            state.outgoing.disconnected();
            state.receipts = None;
        }
        let mut sessions = self.lock();
        if sessions
            .get(&session.client_id)
            .is_some_and(|s| s.number == session.number)
        {
            sessions.remove(&session.client_id);
        }
        if session.persistent {
            batch.delete(rows::session_key(&session.client_id));
        }
    }
}

struct Listener(Sessions);

impl Arrivals for Listener {
    fn arrived(&self, terminal: &str, receipts: &[StoredReceipt]) {
        let session = self.0.lock().get(terminal).cloned();
        let Some(session) = session else { return };
        let mut state = session.lock();
        let queue = state.receipts.as_mut();
        if queue.is_some_and(|queue| queue.arrived(receipts)) {
            state.wake();
        }
    }
}
