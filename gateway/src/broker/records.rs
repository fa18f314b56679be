//! Which PUBLISH is a record, and what becomes of one that should be and is not.
//!
//! Promises: a terminal publishes records on its own topic only; what is no
//! record, where the route says that records come, is kept as a dead letter
//! before its client is told. Never: a look into what is sealed.

use std::sync::Arc;

use bytes::Bytes;
use risiti_bridge::{Compiled, DeadLetter, Reason};
use risiti_mqtt::{Message, ReasonCode};
use risiti_store::{Identity, NewRecord, Record};

use super::Broker;
use super::publish::Delivered;
use crate::mailbox::{Mailbox, Settled};
use crate::receipts::ReceiptsTopics;

/// What a client is told that publishes there.
pub(super) const RECEIPTS_TOPIC: &str = "receipts are the gateway's to publish";

/// Why nobody may publish this message, if so.
pub fn forbidden(topics: &ReceiptsTopics, message: &Message) -> Option<(ReasonCode, &'static str)> {
    if message.topic.starts_with('$') {
        // The server's own (MQTT 5.0, section 4.7.2).
        return Some((
            ReasonCode::NotAuthorized,
            "topics that begin with $ are the server's",
        ));
    }
    if topics.terminal(&message.topic).is_some() {
        return Some((ReasonCode::NotAuthorized, RECEIPTS_TOPIC));
    }
    (!message.payload_format_is_valid()).then_some((
        ReasonCode::PayloadFormatInvalid,
        "the payload is not the UTF-8 that it says it is",
    ))
}

/// What a client is told that publishes another terminal's records.
pub(super) const FOREIGN_RECORDS: &str = "a terminal publishes records on its own topic only: its id there must be its client identifier";

/// Whether a topic of that route is for the records of another terminal.
pub(super) fn is_foreign(route: &Compiled, topic: &str, client_id: &str) -> bool {
    route.is_risiti() && route.terminal(topic) != Some(client_id)
}

/// Why a message on a record's topic is no record.
#[derive(Debug)]
pub enum Refusal {
    /// Another terminal's topic.
    Foreign(&'static str),
    /// Not what the format says.
    Malformed(Box<NewRecord>, String),
}

/// A message on a route's topic, as the journal takes it.
///
/// # Errors
/// It is none, or another terminal's.
pub fn record(
    route: &Compiled,
    message: &Message,
    client_id: &str,
    how: Delivered,
    now_ms: u64,
) -> Result<NewRecord, Refusal> {
    let mut record = NewRecord {
        received_ms: now_ms,
        client_id: Bytes::copy_from_slice(client_id.as_bytes()),
        topic: message.topic.as_bytes().clone(),
        identity: if how.packet_id == 0 {
            Identity::None
        } else {
            Identity::Packet {
                packet_id: how.packet_id,
                dup: how.dup,
            }
        },
        properties: message.properties.clone(),
        payload: message.payload.clone(),
    };
    if route.is_risiti() {
        if is_foreign(route, &message.topic, client_id) {
            return Err(Refusal::Foreign(FOREIGN_RECORDS));
        }
        match risiti_wire::peek(&message.payload) {
            Ok(header) => {
                record.identity = Identity::Sequence {
                    sequence: header.sequence,
                    dup: how.dup,
                    resend_mark: header.resend,
                };
            }
            Err(why) => return Err(Refusal::Malformed(Box::new(record), why.to_string())),
        }
    }
    Ok(record)
}

impl Broker {
    /// A record that is none: kept as a dead letter, then told to its client.
    pub(super) fn keep_malformed(
        &self,
        route: &Compiled,
        record: NewRecord,
        why: String,
        mailbox: &Arc<Mailbox>,
        token: u64,
    ) {
        tracing::warn!(
            client = %String::from_utf8_lossy(&record.client_id),
            topic = %String::from_utf8_lossy(&record.topic),
            "malformed record, kept as a dead letter: {why}"
        );
        let letter = DeadLetter {
            refused_ms: record.received_ms,
            reason: Reason {
                cluster: route.route.cluster.clone(),
                route: route.route.name.clone(),
                topic: route.route.topic.clone(),
                text: format!("malformed record: {why}"),
            },
            // It has no position: a number of its own, in the order of time.
            journal_id: "refused".into(),
            record: Record {
                position: record.received_ms << 20 | fastrand::u64(..1 << 20),
                record,
            },
        };
        let dead_letters = self.dead_letters.clone();
        let mailbox = mailbox.clone();
        tokio::task::spawn_blocking(move || {
            let settled = match dead_letters.keep(&[letter]) {
                Ok(true) => Settled::Publish(token, ReasonCode::PayloadFormatInvalid),
                Ok(false) => {
                    tracing::error!(
                        "the dead-letter store is full: a malformed record stays unacknowledged; free it with `risiti dead drop`"
                    );
                    Settled::Abandoned(token)
                }
                Err(error) => {
                    tracing::error!(%error, "a malformed record could not be kept and stays unacknowledged");
                    Settled::Abandoned(token)
                }
            };
            mailbox.settle(settled);
        });
    }
}
