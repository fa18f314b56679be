//! What a restart finds in the store.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytestring::ByteString;
use risiti_store::StoreError;

use super::Broker;
use super::wills::DelayedWill;
use crate::limits;
use crate::outgoing::{Outgoing, Sequence};
use crate::rows::{self, RetainedRow, SessionNumber, SessionRow, WillRow};
use crate::session::Session;

/// Deliveries that wait in the store for one session.
struct Owed {
    first: Sequence,
    last: Sequence,
    count: u64,
}

impl Broker {
    /// Brings back sessions, subscriptions, retained messages and wills.
    pub(super) fn recover(self: &Arc<Self>) -> Result<(), StoreError> {
        let now_ms = self.steady_ms();
        let mut numbers = HashSet::new();
        self.each_row(rows::SESSIONS, |broker, key, value| {
            let Ok(client_id) = ByteString::try_from(key) else {
                return;
            };
            let row: SessionRow = match rows::decode(&value) {
                Ok(row) => row,
                Err(error) => {
                    tracing::error!(%client_id, %error, "a session can't be brought back");
                    return;
                }
            };
            numbers.insert(row.number);
            match broker.recover_session(client_id.clone(), &row, now_ms) {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%client_id, %error, "a session can't be brought back");
                }
            }
        })?;
        self.each_row(rows::RETAINED, |broker, _, value| {
            let limits = broker.limits();
            let read = rows::decode::<RetainedRow>(&value)
                .and_then(|row| Ok((row.message()?, row.received_ms)));
            match read {
                // Of a time when this was an ordinary topic: nobody may read it.
                Ok((message, _)) if broker.receipts.is_receipts_topic(&message.topic) => {}
                Ok((message, received_ms)) => {
                    broker.retained.write().set(
                        Arc::new(message),
                        received_ms,
                        limits.retained_messages_max as usize,
                        limits.retained_bytes_max.bytes() as usize,
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "a retained message can't be brought back");
                }
            }
        })?;
        self.each_row(rows::WILLS, |broker, key, value| {
            let read = rows::decode::<WillRow>(&value).and_then(|row| Ok((row.message()?, row)));
            match (rows::will_number(&[rows::WILLS, &key].concat()), read) {
                // Its connection ended when the gateway did.
                (Some(number), Ok((message, row))) => {
                    let owner = row.owner();
                    let client_id = ByteString::from(row.client_id);
                    let session = broker.sessions.lock().get(&client_id).cloned();
                    let (session, expiry_s) =
                        session.map_or((0, 0), |s| (s.number, s.lock().expiry_s));
                    let will = DelayedWill {
                        number,
                        client_id,
                        owner,
                        publisher: session,
                        message,
                    };
                    broker.delay_will(session, will, row.delay_s.min(expiry_s));
                }
                (_, Err(error)) => tracing::error!(%error, "a will can't be brought back"),
                (None, _) => {}
            }
        })?;
        self.drop_orphans(&numbers)?;
        self.any_subscription
            .store(!self.subscriptions.lock().is_empty(), Ordering::Release);
        Ok(())
    }

    pub(super) fn each_row(
        self: &Arc<Self>,
        prefix: &[u8],
        mut f: impl FnMut(&Arc<Self>, Vec<u8>, Vec<u8>),
    ) -> Result<(), StoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self
                .state
                .scan(prefix, after.as_deref(), limits::ROWS_PER_PAGE)?;
            let complete = page.len() < limits::ROWS_PER_PAGE;
            for (key, value) in page {
                let rest = key.get(prefix.len()..).unwrap_or_default().to_vec();
                f(self, rest, value);
                after = Some(key);
            }
            if complete {
                return Ok(());
            }
        }
    }

    fn recover_session(
        &self,
        client_id: ByteString,
        row: &SessionRow,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let session = Arc::new(Session::restore(client_id.clone(), row, now_ms));
        let owed = self.owed(row.number)?;
        let unreleased = self
            .state
            .scan(
                &rows::unreleased_prefix(row.number),
                None,
                limits::ROWS_PER_PAGE,
            )?
            .iter()
            .filter_map(|(key, _)| rows::unreleased_packet_id(key))
            .collect();
        {
            let mut state = session.lock();
            state.unreleased = unreleased;
            if let Some(owed) = owed {
                state.owed = owed.count;
                // What was sent comes again with DUP. How far that went is not
                // known of a session that was connected: as far as it may.
                let window = u64::from(risiti_mqtt::ConnectionLimits::default().inflight_max);
                let sent = match row.disconnected_ms {
                    Some(_) => row.sent,
                    None => owed.first + window - 1,
                };
                state.outgoing = Outgoing::resume(owed.last + 1, sent.min(owed.last));
            }
            let mut all = self.subscriptions.lock();
            for subscription in row.subscriptions() {
                if self.receipts.is_receipts_topic(&subscription.filter.filter) {
                    let sent = row.disconnected_ms.and(row.receipts_sent);
                    state.receipts = self.recover_receipts(&client_id, subscription, sent);
                    continue;
                }
                match all.insert(&session, &subscription) {
                    Ok(number) => state.subscriptions.push((number, subscription)),
                    Err(error) => {
                        tracing::error!(%client_id, %error, "a subscription can't be brought back");
                    }
                }
            }
        }
        self.sessions.lock().insert(client_id, session);
        Ok(())
    }

    /// What the store holds for a session: at most what its queue may hold.
    fn owed(&self, number: SessionNumber) -> Result<Option<Owed>, StoreError> {
        let prefix = rows::deliveries_prefix(number);
        let mut owed: Option<Owed> = None;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self
                .state
                .scan(&prefix, after.as_deref(), limits::ROWS_PER_PAGE)?;
            let complete = page.len() < limits::ROWS_PER_PAGE;
            for (key, _) in page {
                if let Some(sequence) = rows::delivery_sequence(&key) {
                    let owed = owed.get_or_insert(Owed {
                        first: sequence,
                        last: sequence,
                        count: 0,
                    });
                    owed.last = sequence;
                    owed.count += 1;
                }
                after = Some(key);
            }
            if complete {
                return Ok(owed);
            }
        }
    }

    /// Deletes rows of sessions that are no more: their deletion was cut short.
    fn drop_orphans(self: &Arc<Self>, known: &HashSet<SessionNumber>) -> Result<(), StoreError> {
        for prefix in [b"q".as_slice(), b"i".as_slice()] {
            let mut after: Option<Vec<u8>> = None;
            loop {
                // One row a session: then on to the next session.
                let row = self.state.scan(prefix, after.as_deref(), 1)?;
                let Some(number) = row
                    .first()
                    .and_then(|(key, _)| key.get(1..9))
                    .and_then(|n| n.try_into().ok())
                    .map(SessionNumber::from_be_bytes)
                else {
                    break;
                };
                if !known.contains(&number) {
                    tracing::info!(number, "removing what was left of a discarded session");
                    self.delete_rows_of(number);
                }
                after = Some([prefix, &number.to_be_bytes(), &[u8::MAX; 8]].concat());
            }
        }
        Ok(())
    }
}
